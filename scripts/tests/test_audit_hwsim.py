# SPDX-License-Identifier: GPL-2.0-only
"""The audit's rule for hwsim-del: made-up files of each shape, and mutants of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import by_status, coccicheck, edit, lay, look_at
from kmendlib.tree import manifest
from kmendlib.tree.audit import Status

BUG = manifest.load().bug("hwsim-del")
HWSIM = "drivers/net/ieee802154/mac802154_hwsim.c"
DEL, ADD = "early-free", "stale-pib"

# What the driver has of both findings; FREE and UNDO are filled in.
DRIVER = """\
static int hwsim_update_pib(struct ieee802154_hw *hw, u8 page, u8 channel)
{
	pib_old = rcu_replace_pointer(phy->pib, pib, 1);
	kfree_rcu(pib_old, rcu);
	return 0;
}

static int hwsim_add_one(struct genl_info *info, struct device *dev,
			 bool init)
{
	struct ieee802154_hw *hw;
	struct hwsim_phy *phy;
	struct hwsim_pib *pib;
	int err;

	phy = hw->priv;
	pib = kzalloc(sizeof(*pib), GFP_KERNEL);
	if (!pib) {
		err = -ENOMEM;
		goto err_pib;
	}

	rcu_assign_pointer(phy->pib, pib);

	err = ieee802154_register_hw(hw);
	if (err)
		goto err_reg;

	if (init) {
		err = hwsim_subscribe_all_others(phy);
		if (err < 0)
			goto err_subscribe;
	}
	return 0;

err_subscribe:
	ieee802154_unregister_hw(phy->hw);
err_reg:
	UNDO
err_pib:
	ieee802154_free_hw(phy->hw);
	return err;
}

static void hwsim_del(struct hwsim_phy *phy)
{
	struct hwsim_pib *pib;
	struct hwsim_edge *e;

	hwsim_edge_unsubscribe_me(phy);

	list_del(&phy->list);

	rcu_read_lock();
	list_for_each_entry_rcu(e, &phy->edges, list) {
		list_del_rcu(&e->list);
		hwsim_free_edge(e);
	}
	FREE
	ieee802154_free_hw(phy->hw);
}
"""
GONE = "ieee802154_unregister_hw(phy->hw);"
READ = "pib = rcu_dereference(phy->pib);"
FREE = "kfree_rcu(pib, rcu);"
EARLY = f"{READ}\n\trcu_read_unlock();\n\n\t{FREE}\n\n\t{GONE}"
LATE = f"rcu_read_unlock();\n\n\t{GONE}\n\tpib = rcu_access_pointer(phy->pib);\n\t{FREE}"
FIRST = "kfree(pib);"
LAST = "kfree(rcu_access_pointer(phy->pib));"


def driver(free: str = EARLY, undo: str = FIRST) -> str:
    return edit(edit(DRIVER, "FREE", free), "UNDO", undo)


def bare(text: str) -> str:
    """As up to v5.12: the edges stay."""
    start, end = text.index("\tlist_for_each"), text.index("\t}\n", text.index("\tlist_for_each"))
    return text[:start] + text[end + 3 :]


AFFECTED = {
    "as shipped": driver(),
    "as up to v5.12": bare(driver()),
    "half the fix: read before, freed after": driver(f"{READ}\n\trcu_read_unlock();\n\t{GONE}\n\t{FREE}"),
    "half the fix: freed before and after": driver(f"{READ}\n\t{FREE}\n\t{LATE}"),
    "read behind it on one path only": driver(
        f"{READ}\n\t{GONE}\n\tif (phy->idx)\n\t\tpib = rcu_access_pointer(phy->pib);\n\t{FREE}"
    ),
    "freed at once, no local": driver(f"rcu_read_unlock();\n\tkfree_rcu(phy->pib, rcu);\n\t{GONE}"),
    "the fix in a comment": driver(f"{EARLY}\n\t/* {LATE} */"),
    "the fix in a string": driver(f'{EARLY}\n\tpr_info("{GONE} {FREE}");'),
    "the fix under #if 0": driver(f"{EARLY}\n#if 0\n\t{LATE}\n#endif"),
    "the fix under #ifdef": driver(f"\n#ifdef CONFIG_X\n\t{LATE}\n#else\n\t{EARLY}\n#endif"),
    "all on one line": driver(EARLY.replace("\n", " ")),
    "another name of the function": driver().replace("hwsim_del(", "frob("),
    "freed by call_rcu()": driver(f"{READ}\n\tcall_rcu(&phy->pib->rcu, hwsim_free);\n\t{GONE}"),
}
FIXED = {
    "as mended": driver(LATE),
    "as up to v5.12, mended": bare(driver(LATE)),
    "as it was mailed": driver(edit(LATE, "access_pointer(phy->pib)", "dereference_protected(phy->pib, 1)")),
    "no local": driver(f"rcu_read_unlock();\n\t{GONE}\n\tkfree_rcu(rcu_access_pointer(phy->pib), rcu);"),
    "at once": driver(edit(LATE, FREE, "kfree(pib);")),
    "something in between": driver(edit(LATE, GONE, f'{GONE}\n\tpr_info("gone");')),
    "another name": driver(LATE)
    .replace("pib;", "last;")
    .replace("pib = rcu_a", "last = rcu_a")
    .replace(FREE, "kfree_rcu(last, rcu);"),
}
UNKNOWN = {
    "nothing is freed": driver(f"rcu_read_unlock();\n\t{GONE}"),
    "a helper frees": driver(f"rcu_read_unlock();\n\t{GONE}\n\tdrop_pib(phy);"),
    "never unregistered": driver(f"{READ}\n\trcu_read_unlock();\n\t{FREE}"),
    "does not parse": driver(f"%% ((\n\t{EARLY}"),
    "empty": "",
}


@pytest.mark.parametrize(("text", "status"), by_status(AFFECTED=AFFECTED, FIXED=FIXED, UNKNOWN=UNKNOWN))
def test_del(tmp_path: Path, text: str, status: Status) -> None:
    found = look_at(lay(tmp_path / "tree", {HWSIM: text}, "6.12.117"), BUG, DEL)
    assert found.status is status, found


LATENT = {
    "as shipped": driver(),
    "by kfree_rcu()": driver(undo=FREE),
    "the fix in a comment": driver(undo=f"{FIRST} /* {LAST} */"),
    "the fix under #ifdef": driver(undo=f"\n#ifdef CONFIG_X\n\t{LAST}\n#else\n\t{FIRST}\n#endif"),
}
ADD_FIXED = {
    "as mended": driver(undo=LAST),
    "by a local": driver(undo=f"pib = rcu_access_pointer(phy->pib);\n\t{FIRST}"),
}
ADD_UNKNOWN = {
    "nothing is freed": driver(undo=""),
    "a helper frees": driver(undo="drop_pib(phy);"),
    "freed, then unregistered": edit(driver(undo=""), "err_subscribe:\n", f"err_subscribe:\n\t{FIRST}\n"),
}


@pytest.mark.parametrize(("text", "status"), by_status(LATENT=LATENT, FIXED=ADD_FIXED, UNKNOWN=ADD_UNKNOWN))
def test_add(tmp_path: Path, text: str, status: Status) -> None:
    found = look_at(lay(tmp_path / "tree", {HWSIM: text}, "6.12.117"), BUG, ADD)
    assert found.status is status, found


@pytest.mark.parametrize("name", [DEL, ADD])
def test_older_than_the_driver(tmp_path: Path, name: str) -> None:
    """Its folder was there before it: the Makefile tells whether it is a part of such a tree that is missing."""
    makefile = str(Path(HWSIM).with_name("Makefile"))
    builds = "obj-$(CONFIG_IEEE802154_FAKELB) += fakelb.o\n"
    for text, status in (
        (builds, Status.NOT_APPLICABLE),
        (builds + "obj-$(CONFIG_IEEE802154_HWSIM) += mac802154_hwsim.o\n", Status.UNKNOWN),
        (None, Status.UNKNOWN),
    ):
        root = lay(tmp_path / str(status) / str(text is None), {HWSIM: None, makefile: text}, "4.17.0")
        assert look_at(root, BUG, name).status is status


def test_coccicheck_names_the_fault_alone(tmp_path: Path) -> None:
    path = tmp_path / "mac802154_hwsim.c"
    path.write_text(driver(), encoding="utf-8")
    (line,) = coccicheck("hwsim-del", path)
    assert ": hwsim-del/early-free: affected: kfree_rcu() of the pib before ieee802154_unregister_hw()" in line
    path.write_text(driver(LATE, LAST), encoding="utf-8")
    assert coccicheck("hwsim-del", path) == []
