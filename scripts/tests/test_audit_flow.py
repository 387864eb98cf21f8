# SPDX-License-Identifier: GPL-2.0-only
"""The audit's rule for flow-block-list, on made-up files of each shape and mutants of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import by_status, coccicheck, edit, lay, look_at
from kmendlib.tree import manifest
from kmendlib.tree.audit import Status

BUG = manifest.load().bug("flow-block-list")
FILE = "net/core/flow_offload.c"

FAULTY = """\
bool flow_block_cb_is_busy(flow_setup_cb_t *cb, void *cb_ident,
			   struct list_head *driver_block_list)
{
	struct flow_block_cb *block_cb;

	list_for_each_entry(block_cb, driver_block_list, driver_list) {
		if (block_cb->cb == cb && block_cb->cb_ident == cb_ident)
			return true;
	}

	return false;
}
EXPORT_SYMBOL(flow_block_cb_is_busy);

int flow_block_cb_setup_simple(struct flow_block_offload *f,
			       struct list_head *driver_block_list,
			       flow_setup_cb_t *cb, void *cb_ident,
			       void *cb_priv, bool ingress_only)
{
	struct flow_block_cb *block_cb;
	int err = 0;

	f->driver_block_list = driver_block_list;

	switch (f->command) {
	case FLOW_BLOCK_BIND:
		if (flow_block_cb_is_busy(cb, cb_ident, driver_block_list)) {
			err = -EBUSY;
			break;
		}

		block_cb = flow_block_cb_alloc(cb, cb_ident, cb_priv, NULL);
		if (IS_ERR(block_cb)) {
			err = PTR_ERR(block_cb);
			break;
		}

		flow_block_cb_add(block_cb, f);
		list_add_tail(&block_cb->driver_list, driver_block_list);
		break;
	case FLOW_BLOCK_UNBIND:
		block_cb = flow_block_cb_lookup(f->block, cb, cb_ident);
		if (!block_cb) {
			err = -ENOENT;
			break;
		}

		flow_block_cb_remove(block_cb, f);
		list_del(&block_cb->driver_list);
		break;
	default:
		err = -EOPNOTSUPP;
		break;
	}
	return err;
}
EXPORT_SYMBOL(flow_block_cb_setup_simple);
"""
MUTEX = "static DEFINE_MUTEX(frob_lock);\n\n"
LOCK, UNLOCK = "mutex_lock(&frob_lock);", "mutex_unlock(&frob_lock);"
SWITCH, END, RETURN = "\tswitch (f->command) {", "\treturn err;\n", "int err = 0;\n"
ADD = "list_add_tail(&block_cb->driver_list, driver_block_list);"
DEL = "list_del(&block_cb->driver_list);"
WALK = "if (flow_block_cb_is_busy(cb, cb_ident, driver_block_list)) {"


def locked(lock: str = LOCK, unlock: str = UNLOCK) -> str:
    return MUTEX + edit(edit(FAULTY, SWITCH, f"\t{lock}\n{SWITCH}"), END, f"\t{unlock}\n{END}")


MENDED = locked()

CASES = by_status(
    AFFECTED={
        "as shipped": FAULTY,
        "another name": FAULTY.replace("flow_block_cb_setup_simple", "frob"),
        "lock in a comment": locked(f"/* {LOCK} */", f"/* {UNLOCK} */"),
        "lock under #if 0": locked(f"#if 0\n\t{LOCK}\n#endif", f"#if 0\n\t{UNLOCK}\n#endif"),
        "lock under #ifdef": locked(f"#ifdef CONFIG_FROB\n\t{LOCK}\n#endif", f"#ifdef CONFIG_FROB\n\t{UNLOCK}\n#endif"),
        "the add alone": MUTEX + edit(FAULTY, ADD, f"{LOCK}\n\t\t{ADD}\n\t\t{UNLOCK}"),
        "the walk alone": edit(MENDED, "\t\tflow_block_cb_add", f"\t\t{UNLOCK}\n\t\tflow_block_cb_add"),
        "all but the walk": edit(locked("", ""), ADD, f"{LOCK}\n\t\t{ADD}\n\t\t{UNLOCK}").replace(
            DEL, f"{LOCK}\n\t\t{DEL}\n\t\t{UNLOCK}"
        ),
        "all but the deletion": edit(MENDED, "\t\tflow_block_cb_remove", f"\t\t{UNLOCK}\n\t\tflow_block_cb_remove"),
        "locked on one path": locked(f"if (cb_priv)\n\t\t{LOCK}", f"if (cb_priv)\n\t\t{UNLOCK}"),
        "locked too late": MUTEX + edit(FAULTY, END, f"\t{LOCK}\n\t{UNLOCK}\n{END}"),
        "all but another walker": edit(MENDED, f"\t{LOCK}\n{SWITCH}", SWITCH)
        .replace(UNLOCK, "")
        .replace("flow_block_cb_is_busy", "frob")
        .replace(ADD, f"{LOCK}\n\t\t{ADD}\n\t\t{UNLOCK}")
        .replace(DEL, f"{LOCK}\n\t\t{DEL}\n\t\t{UNLOCK}"),
        "another move": edit(FAULTY, ADD, "list_add(&block_cb->driver_list, driver_block_list);"),
        "on one line": FAULTY.replace("\n", " "),
    },
    FIXED={
        "as mended": MENDED,
        "another name": MENDED.replace("frob_lock", "flow_block_simple_lock"),
        "another walker": MENDED.replace("flow_block_cb_is_busy", "frob"),
        "guarded": MUTEX + edit(FAULTY, SWITCH, f"\tguard(mutex)(&frob_lock);\n\n{SWITCH}"),
        "locked at once": MUTEX + edit(edit(FAULTY, RETURN, f"{RETURN}\n\t{LOCK}\n"), END, f"\t{UNLOCK}\n{END}"),
        "each step locked": edit(
            edit(locked("", ""), ADD, f"{LOCK}\n\t\t{ADD}\n\t\t{UNLOCK}").replace(
                DEL, f"{LOCK}\n\t\t{DEL}\n\t\t{UNLOCK}"
            ),
            WALK,
            f"{LOCK}\n\t\terr = flow_block_cb_is_busy(cb, cb_ident, driver_block_list);\n\t\t{UNLOCK}\n\t\tif (err) {{",
        ),
    },
    UNKNOWN={
        "a lock of the block's": locked("mutex_lock(&f->lock);", "mutex_unlock(&f->lock);"),
        "a lock of the caller's": locked("ASSERT_RTNL();", ""),
        "a lock that is told to be held": locked("lockdep_assert_held(&frob_lock);", ""),
        "a spinlock": locked("spin_lock(&frob_lock);", "spin_unlock(&frob_lock);"),
        "one that may fail": locked("mutex_trylock(&frob_lock);"),
        "never let go": locked(unlock=""),
        "let go on one path": edit(MENDED, "err = -EBUSY;\n\t\t\tbreak;", "return -EBUSY;"),
        "two locks": "static DEFINE_MUTEX(nobs_lock);\n\n"
        + edit(edit(MENDED, "\tcase FLOW_BLOCK_BIND:", f"\tcase FLOW_BLOCK_BIND:\n\t\t{LOCK}"), f"\t{LOCK}\n{SWITCH}", SWITCH)
        .replace("\tcase FLOW_BLOCK_UNBIND:", "\tcase FLOW_BLOCK_UNBIND:\n\t\tmutex_lock(&nobs_lock);"),
        "a loop by hand": edit(MENDED, WALK, "list_for_each_entry(block_cb, driver_block_list, driver_list) {"),
        "inside of what may lock": FAULTY.replace("int flow_block_cb_setup", "static int flow_block_cb_setup"),
        "no such function": "int frob(void)\n{\n\treturn 0;\n}\n",
    },
)


@pytest.mark.parametrize(("text", "status"), CASES)
def test_status(tmp_path: Path, text: str, status: Status) -> None:
    found = look_at(lay(tmp_path, {FILE: text}, "6.12.117"), BUG, "unlocked-list")
    assert found.status is status, found.evidence


def test_a_tree_that_builds_no_such_file(tmp_path: Path) -> None:
    tree = lay(tmp_path, {"net/core/Makefile": "obj-y := sock.o skbuff.o\n"}, "4.19.0")
    assert look_at(tree, BUG, "unlocked-list").status is Status.NOT_APPLICABLE


def test_report_mode_names_the_fault_alone(tmp_path: Path) -> None:
    for name, text in (("bad.c", FAULTY), ("good.c", MENDED)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    lines = coccicheck("flow-block-list", tmp_path)
    assert [line.split(":")[1] for line in lines] == ["27", "39", "49"]
    assert all(line.startswith(f"{tmp_path}/bad.c:") and "affected" in line for line in lines)
