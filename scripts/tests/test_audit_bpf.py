# SPDX-License-Identifier: GPL-2.0-only
"""The audit's rule for prog-array-clear, on made-up files of each shape and mutants of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import by_status, coccicheck, edit, lay, look_at
from kmendlib.tree import manifest
from kmendlib.tree.audit import Status

BUG = manifest.load().bug("prog-array-clear")
FILE = "kernel/bpf/arraymap.c"

FAULTY = """\
static void prog_array_map_clear_deferred(struct work_struct *work)
{
	struct bpf_map *map = container_of(work, struct bpf_array_aux, work)->map;

	bpf_fd_array_map_clear(map, true);
	bpf_map_put(map);
}

static void prog_array_map_clear(struct bpf_map *map)
{
	struct bpf_array_aux *aux = container_of(map, struct bpf_array, map)->aux;

	bpf_map_inc(map);
	schedule_work(&aux->work);
}

static struct bpf_map *prog_array_map_alloc(union bpf_attr *attr)
{
	INIT_WORK(&aux->work, prog_array_map_clear_deferred);
	return map;
}

const struct bpf_map_ops prog_array_map_ops = {
	.map_release_uref = prog_array_map_clear,
};
"""
OF_OLD = """\
static void bpf_fd_array_map_clear(struct bpf_map *map)
{
	fd_array_map_delete_elem(map, &i);
}

const struct bpf_map_ops prog_array_map_ops = {
	.map_release_uref = bpf_fd_array_map_clear,
};
"""
QUEUE = "schedule_work(&aux->work);"
PUT = "bpf_map_put(map);"
ASKED = f"if (!{QUEUE[:-1]})\n\t\t{PUT}"


def queued(text: str) -> str:
    return edit(FAULTY, QUEUE, text)


CASES = by_status(
    AFFECTED={
        "as shipped": FAULTY,
        "another way to queue": queued("queue_work(system_unbound_wq, &aux->work);"),
        "on a CPU": queued("queue_work_on(0, system_wq, &aux->work);"),
        "another name": FAULTY.replace("prog_array_map_clear", "frob"),
        "a reference that may fail": edit(FAULTY, "bpf_map_inc(map)", "bpf_map_inc_not_zero(map)"),
        "not asked, and said so": queued(f"(void){QUEUE}"),
        "fix in a comment": queued(f"/* {ASKED} */\n\t{QUEUE}"),
        "fix under #if 0": queued(f"#if 0\n\t{ASKED}\n#else\n\t{QUEUE}\n#endif"),
        "fix under #ifdef": queued(f"#ifdef CONFIG_FROB\n\t{ASKED}\n#else\n\t{QUEUE}\n#endif"),
        "given back on one path": queued(f"if (x)\n\t\t{QUEUE}\n\telse {ASKED}"),
        "looked at before, without a lock": edit(
            FAULTY, "bpf_map_inc", "if (work_pending(&aux->work))\n\t\treturn;\n\tbpf_map_inc"
        ),
        "on one line": FAULTY.replace("\n", " ").replace("const", "\nconst"),
    },
    FIXED={
        "as mended": queued(ASKED),
        "with braces": queued(f"if (!{QUEUE[:-1]}) {{\n\t\t{PUT}\n\t}}"),
        "an early return": queued(f"if ({QUEUE[:-1]})\n\t\treturn;\n\t{PUT}"),
        "kept in a variable": queued(f"bool queued = {QUEUE}\n\n\tif (!queued)\n\t\t{PUT}"),
        "another way to queue": queued(ASKED.replace("schedule_work(", "queue_work(bpf_wq, ")),
    },
    UNKNOWN={
        "given back in any case": queued(f"{QUEUE}\n\t{PUT}"),
        "given back where it was queued": queued(ASKED.replace("!", "")),
        "given back twice": queued(f"{ASKED}\n\t{PUT}"),
        "another map's": queued(ASKED.replace("(map)", "(other)")),
        "asked, and no more": queued(f"if (!{QUEUE[:-1]})\n\t\tpr_debug(x);"),
        "taken behind": queued(f"if ({QUEUE[:-1]})\n\t\tbpf_map_inc(map);").replace("\n\tbpf_map_inc(map);", "", 1),
        "no work": edit(FAULTY, QUEUE, "").replace("bpf_map_inc(map);", ""),
        "a work that waits": queued("schedule_delayed_work(&aux->work, 1);"),
    },
    NOT_APPLICABLE={
        "cleared at once": OF_OLD,
        "not static": "void bpf_fd_array_map_clear(struct bpf_map *map)\n{\n}\n",
    },
)


@pytest.mark.parametrize(("text", "status"), CASES)
def test_status(tmp_path: Path, text: str, status: Status) -> None:
    found = look_at(lay(tmp_path, {FILE: text}, "6.12.117"), BUG, "pending-work")
    assert found.status is status, found.evidence


def test_report_mode_names_the_fault_alone(tmp_path: Path) -> None:
    for name, text in (("bad.c", FAULTY), ("good.c", queued(ASKED))):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (line,) = coccicheck("prog-array-clear", tmp_path)
    assert line.startswith(f"{tmp_path}/bad.c:14:") and "affected" in line
