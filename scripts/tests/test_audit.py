# SPDX-License-Identifier: GPL-2.0-only
"""The audit on small made-up files of each shape, on mutants of them, and on real trees where they are at hand."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import (
    ACCESS,
    UNLOCKED,
    WAIT_EVENT,
    WAKE_INSIDE,
    WAKE_OUTSIDE,
    MakeTree,
    access_c,
    by_status,
    coccicheck,
    edit,
    tools,
    tree_hash,
)
from kmendlib.host.errors import BadInput, ExitCode, Infrastructure
from kmendlib.tree import code, manifest
from kmendlib.tree.apply import refuse_undecided
from kmendlib.tree.audit import Audit, Status, audit, table, worst, worst_code
from kmendlib.tree.manifest import Bug, Finding
from kmendlib.tree.tree import Tree

BUGS = (manifest.load().bug("pci-cfg-wait"),)
FIX = "pci-cfg-wait/v3.4-v5.8.patch"

ADD = "__add_wait_queue(&pci_cfg_wait, &wait);"
REMOVE = "__remove_wait_queue(&pci_cfg_wait, &wait);"
LOCKED_ADD = "add_wait_queue(&pci_cfg_wait, &wait);"
LOCKED_REMOVE = "remove_wait_queue(&pci_cfg_wait, &wait);"
HELD_ADD = f"spin_lock(&pci_cfg_wait.lock);\n\t{ADD}\n\tspin_unlock(&pci_cfg_wait.lock);"
HELD_REMOVE = f"spin_lock(&pci_cfg_wait.lock);\n\t{REMOVE}\n\tspin_unlock(&pci_cfg_wait.lock);"


def look(root: Path) -> Audit:
    before = tree_hash(root)
    found = audit(Tree.open(root), BUGS)
    assert tree_hash(root) == before, "the audit wrote to the tree"
    return found


def waiter(add: str, remove: str) -> str:
    assert UNLOCKED.count(ADD) == 1 and UNLOCKED.count(REMOVE) == 1
    # The longer name first: it holds the shorter one.
    return UNLOCKED.replace(REMOVE, remove).replace(ADD, add)


AFFECTED = {
    "as shipped": UNLOCKED,
    "added under the lock, removed without": waiter(LOCKED_ADD, REMOVE),
    "added without the lock, removed under it": waiter(ADD, LOCKED_REMOVE),
    "lock held for the add only": waiter(HELD_ADD, REMOVE),
    "lock held for the removal only": waiter(ADD, HELD_REMOVE),
    "lock let go before the add": waiter(
        f"spin_lock(&pci_cfg_wait.lock); spin_unlock(&pci_cfg_wait.lock); {ADD}", HELD_REMOVE
    ),
    "lock taken on one path only": waiter(f"if (dev->x)\n\t\tspin_lock(&pci_cfg_wait.lock);\n\t{ADD}", HELD_REMOVE),
    "another queue's lock": waiter(HELD_ADD.replace("(&pci_cfg_wait.lock)", "(&other_wait.lock)"), LOCKED_REMOVE),
    "pci_lock is not the queue's lock": waiter(HELD_ADD.replace("(&pci_cfg_wait.lock)", "(&pci_lock)"), LOCKED_REMOVE),
    "exclusive add": waiter("__add_wait_queue_exclusive(&pci_cfg_wait, &wait);", LOCKED_REMOVE),
    "add at the tail": waiter("__add_wait_queue_entry_tail(&pci_cfg_wait, &wait);", LOCKED_REMOVE),
    "plain list functions": waiter("list_add(&wait.entry, &pci_cfg_wait.head);", "list_del(&wait.entry);"),
    "plain list functions of old": waiter(
        "list_add(&wait.task_list, &pci_cfg_wait.task_list);", "list_del(&wait.task_list);"
    ),
    "plain list function on the queue's head": waiter("list_add(node, &pci_cfg_wait.head);", LOCKED_REMOVE),
    "own entry taken off the list": waiter(LOCKED_ADD, "list_del_init(&wait.entry);"),
    "wait_event that wants the lock held": waiter("wait_event_interruptible_locked(pci_cfg_wait, 1);", ""),
    "all on one line": re.sub(r"\s+", " ", UNLOCKED.split("/*")[0]) + "\n",
    "brace on its own line, attribute first": edit(
        UNLOCKED,
        "static noinline void pci_wait_cfg(struct pci_dev *dev)\n",
        "noinline static void\npci_wait_cfg (struct pci_dev * dev)\n",
    ),
    "fixed under #ifdef only": waiter(f"#ifdef CONFIG_X\n\t{LOCKED_ADD}\n#else\n\t{ADD}\n#endif", LOCKED_REMOVE),
    "wait_event beside the old code": waiter(f"{ADD}\n\twait_event(pci_cfg_wait, 1);", REMOVE),
}

FIXED = {
    "wait_event": WAIT_EVENT,
    "wait_event that a signal ends": edit(WAIT_EVENT, "wait_event(", "wait_event_interruptible("),
    "wait_event with a limit": edit(WAIT_EVENT, "!dev->block_cfg_access)", "!dev->block_cfg_access, HZ)").replace(
        "wait_event(", "wait_event_timeout("
    ),
    "functions that take the lock": waiter(LOCKED_ADD, LOCKED_REMOVE),
    "prepare_to_wait": waiter(
        "prepare_to_wait(&pci_cfg_wait, &wait, TASK_UNINTERRUPTIBLE);", "finish_wait(&pci_cfg_wait, &wait);"
    ),
    "lock held around both": waiter(HELD_ADD, HELD_REMOVE),
    "lock held with interrupts off": waiter(HELD_ADD, HELD_REMOVE)
    .replace("spin_lock(&p", "spin_lock_irq(&p")
    .replace("spin_unlock(&p", "spin_unlock_irq(&p"),
}

UNKNOWN = {
    "no pci_wait_cfg": "",
    "queue behind a pointer": waiter(
        "struct wait_queue_head *q = &pci_cfg_wait;\n\n\t__add_wait_queue(q, &wait);", "__remove_wait_queue(q, &wait);"
    ),
    "calls behind a macro": waiter("QUEUE(&pci_cfg_wait, &wait);", "UNQUEUE(&pci_cfg_wait, &wait);"),
    "queue behind a macro": "#define QUEUE (&pci_cfg_wait)\n"
    + waiter("__add_wait_queue(QUEUE, &wait);", "__remove_wait_queue(QUEUE, &wait);"),
    "queue in a helper": "static void queue(struct wait_queue_entry *w)\n"
    "{\n\t__add_wait_queue(&pci_cfg_wait, w);\n}\n\n" + waiter("queue(&wait);", LOCKED_REMOVE),
    "only waits, never queues": waiter("", ""),
    "only removes": waiter("", LOCKED_REMOVE),
    "another kind of queue": waiter(
        "prepare_to_swait(&pci_cfg_wait, &wait, 2);", "finish_swait(&pci_cfg_wait, &wait);"
    ),
    "does not parse": waiter(f"{ADD} %% ((", REMOVE),
    "fixed, but a function that uses the queue does not parse": WAIT_EVENT
    + "void other(void)\n{\n\t%% (( __add_wait_queue(&pci_cfg_wait, &w);\n}\n",
}


# With other wakers, and other files.
LATENT = {
    "every waker holds pci_lock": access_c(wake=WAKE_INSIDE),
    "and the queue's lock": access_c(wake=edit(WAKE_INSIDE, "wake_up_all(", "wake_up_all_locked(")),
}
NOT_LATENT = {
    "one more waker": access_c(wake=WAKE_INSIDE + "void other(void)\n{\n\twake_up(&pci_cfg_wait);\n}\n"),
    "one more wake-up": access_c(wake=edit(WAKE_INSIDE, "flags;\n", "flags;\n\n\twake_up_all(&pci_cfg_wait);")),
    "removed without pci_lock": access_c(
        waiter(ADD, f"raw_spin_unlock_irq(&pci_lock);\n\t{REMOVE}\n\traw_spin_lock_irq(&pci_lock);"), WAKE_INSIDE
    ),
    "queue is public": access_c(wake=WAKE_INSIDE).replace("static DECLARE_WAIT", "DECLARE_WAIT"),
    "no waker in sight": access_c(wake=""),
    "a walk without any lock": access_c(WAIT_EVENT, edit(WAKE_OUTSIDE, "wake_up_all(", "wake_up_all_locked(")),
}
OLDER = {"older than the bug": access_c("").replace("pci_cfg_wait", "pci_ucfg_wait")}
GARBAGE = {"empty": "", "binary": "\0\xff\xfe" * 100, "open comment": "/* never closed", "blank": "\n" * 10}
GARBAGE |= {"open string": '"'}


def files(waits: dict[str, str]) -> dict[str, str]:
    return {name: access_c(wait) for name, wait in waits.items()}


@pytest.mark.parametrize(
    ("access", "status"),
    by_status(
        AFFECTED=files(AFFECTED) | NOT_LATENT,
        LATENT=LATENT,
        FIXED=files(FIXED),
        UNKNOWN=files(UNKNOWN) | GARBAGE,
        NOT_APPLICABLE=OLDER,
    ),
)
def test_status(make_tree: MakeTree, access: str, status: Status) -> None:
    found = look(make_tree(access))
    assert found.bugs[0].status is status, table([found])
    codes = {Status.AFFECTED: ExitCode.FAILED, Status.UNKNOWN: ExitCode.NOTHING}
    assert worst_code([found]) is codes.get(status, ExitCode.OK)
    assert status is Status.AFFECTED or found.patches == ()


def test_json_is_as_designed(make_tree: MakeTree) -> None:
    root = make_tree()
    lines = (root / ACCESS).read_text(encoding="utf-8").splitlines()
    found = json.loads(json.dumps(look(root).to_json()))
    assert found == {
        "tree": str(root),
        "version": "4.19.90",
        "bugs": [
            {
                "id": "pci-cfg-wait",
                "status": "affected",
                "findings": [
                    {
                        "id": "pci-cfg-wait/unlocked-queue",
                        "status": "affected",
                        "evidence": [
                            {
                                "file": ACCESS,
                                "line": 1 + lines.index("\t" + call),
                                "reason": call.split("(")[0] + "() without pci_cfg_wait.lock",
                            }
                            for call in (ADD, REMOVE)
                        ],
                    }
                ],
                "patches": [FIX],
            }
        ],
    }


def test_no_variant_fits(make_tree: MakeTree) -> None:
    found = look(make_tree(access_c(AFFECTED["all on one line"])))
    assert found.patches == ()
    assert found.bugs[0].findings[0].unfit
    assert found.bugs[0].findings[0].evidence[-1].reason == f"no fix fits this code: {FIX}"


@pytest.mark.parametrize(
    ("header", "refused"),
    [("int wait_event_frob(void);\n", False), ("int wait_event_frobs(void);\n", True), (None, True), ("", False)],
    ids=["there", "another word", "no such file", "nobody knows"],
)
def test_a_variant_that_would_not_compile_is_not_chosen(make_tree: MakeTree, header: str | None, refused: bool) -> None:
    """Where it fits, it says what it depends on; of a tree without the folder nobody knows."""
    root = make_tree(version="3.4.0")
    if header != "":
        (root / "include/linux").mkdir(parents=True, exist_ok=True)
    if header:
        (root / "include/linux/frob.h").write_text(header, encoding="ascii")
    (finding,) = BUGS[0].findings
    frobs = dataclasses.replace(finding, depends={FIX: "include/linux/frob.h: wait_event_frob"})
    found = audit(Tree.open(root), [dataclasses.replace(BUGS[0], findings=(frobs,))])
    assert found.patches == (() if refused else (FIX,))
    if refused:
        said = f"{FIX} fits, and would not compile: include/linux/frob.h has no wait_event_frob"
        assert found.bugs[0].findings[0].evidence[-1].reason == said
        with pytest.raises(BadInput, match=f"is affected, but {re.escape(said)}; mend it by hand"):
            refuse_undecided(found)


def test_a_variant_that_does_not_mend_is_not_chosen(make_tree: MakeTree) -> None:
    """The patch applies, but the waker still walks the queue without a lock."""
    found = look(make_tree(access_c(wake=edit(WAKE_OUTSIDE, "wake_up_all(", "wake_up_all_locked("))))
    assert found.bugs[0].findings[0].unfit


def test_only_the_file_is_there(make_tree: MakeTree) -> None:
    found = look(make_tree(version=None))
    assert found.bugs[0].status is Status.AFFECTED
    assert found.patches == (FIX,)
    assert found.to_json()["version"] is None


def test_file_missing_in_a_full_tree(make_tree: MakeTree) -> None:
    root = make_tree(version="6.12.1")
    (root / ACCESS).unlink()
    found = look(root)
    assert found.bugs[0].status is Status.UNKNOWN
    assert found.bugs[0].findings[0].evidence[0].reason == "the file is not there"


@pytest.mark.parametrize("last", ["wait_event(pci_cfg_wait", "wake_up_all(&pci_cfg_wait);", "pcie_cap_version("])
def test_file_that_ends_in_a_function_is_unknown(make_tree: MakeTree, last: str) -> None:
    """What is left may be sound, but nobody knows what the rest says."""
    root = make_tree()
    (root / ACCESS).write_text(access_c(WAIT_EVENT).partition(last)[0] + last + "\n{\n", encoding="utf-8")
    (finding,) = look(root).bugs[0].findings
    assert finding.status is Status.UNKNOWN
    assert finding.evidence[0].reason == "the file ends within a function or an #if"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("int f(void) {\n#ifdef A\n{ }\n#else\n}\n", 5),
        ("void f(void) {\n#ifdef A\nif (a) {\n#else\nif (b) {\n#endif\n} }\n", 4),
        ("void f(void) {\n#ifdef A\nif (a) { }\n#else\nif (b) {\n#endif\n} }\n", 6),
        ("void f(void) {\n#if 0\nif (a) {\n#else\nif (b) { }\n#endif\n}\n", 0),
        ("void f(void) {\n#if 0\n#ifdef B\n{\n#endif\n#endif\n}\n", 0),
        ("#define B do { \\\n\t{\\\n#if a {\nvoid f(void) { }\n/* { */ // {\n#define E }\n#endif\n", 0),
        ("#endif\nvoid f(void) { }\n", 0),
        ("void f(void) {\n\ta(#if {\n\t); } }\n", 0),
        ("int f(void)\n{\n\tif (a ||\n#if 0\n\tif (b ||\n#endif\n\t    c)\n\t\treturn 1;\n}\n", 4),
        ("int f(void)\n{\n\tg(1);\n#if 0\n\tg(2);\n#endif\n\treturn 1;\n}\n", 0),
        ("", 0),
    ],
)
def test_code_that_is_not_whole(text: str, line: int) -> None:
    found = code.torn(code.code(text))
    assert (found[0] if found else 0) == line
    assert (code.torn(code.code(text.replace("\n", "\r\n"))) or (0,))[0] == line


WHOLE = "\t} while (dev->block_cfg_access);\n"


def cut(first: str, second: str, rest: str = "") -> str:
    return f"#ifdef CONFIG_X\n{first}#else\n{second}#endif\n{rest}"


def test_if_that_cuts_a_statement_is_read_both_ways(make_tree: MakeTree) -> None:
    """Coccinelle would read the first branch, as if there were no other."""
    access = access_c(edit(WAIT_EVENT, WHOLE, cut(WHOLE, "\t} while (0);\n")))
    assert look(make_tree(access)).bugs[0].status is Status.FIXED


@pytest.mark.parametrize("word", ["ifdef", "ifndef"])
def test_fault_in_one_branch_of_an_if_that_cuts_a_statement(make_tree: MakeTree, word: str) -> None:
    faulty = f"\t\t{ADD}\n{WHOLE}"
    access = access_c(edit(WAIT_EVENT, WHOLE, cut(WHOLE, faulty).replace("ifdef", word)))
    (finding,) = look(make_tree(access)).bugs[0].findings
    assert finding.status is Status.AFFECTED
    assert finding.evidence[0].line == 1 + access.splitlines().index(f"\t\t{ADD}")


def test_too_many_ifs_that_cut_a_statement_are_unknown(make_tree: MakeTree) -> None:
    access = access_c(edit(WAIT_EVENT, WHOLE, cut(WHOLE, "\t} while (0);\n")))
    for number in range(2):
        opens = cut("\tif (a) {\n", "\tif (b) {\n", "\t}\n").replace("_X", f"_{number}")
        access = edit(access, "\tdo {\n\t\traw_spin_unlock_irq", f"{opens}\tdo {{\n\t\traw_spin_unlock_irq")
    (finding,) = look(make_tree(access)).bugs[0].findings
    assert finding.status is Status.UNKNOWN
    assert finding.evidence[0].reason == "an #if has a brace in one of its branches that ends in none"


def test_if_that_cuts_another_function_is_no_matter(make_tree: MakeTree) -> None:
    torn = cut("\tif (a) {\n", "\tif (b) {\n", "\t\tx();\n\t}\n}\n").replace("#else", "#elif B")
    other = "\nvoid other(void)\n{\n" + torn
    assert look(make_tree(access_c(WAIT_EVENT) + other)).bugs[0].status is Status.FIXED
    assert look(make_tree(access_c() + other, name="b")).bugs[0].status is Status.AFFECTED


def test_latin_1_in_a_comment(make_tree: MakeTree) -> None:
    root = make_tree()
    (root / ACCESS).write_bytes(b"/* J\xf6rg */\n" + (root / ACCESS).read_bytes())
    assert look(root).bugs[0].status is Status.AFFECTED


def test_cocciconfig_of_the_tree_is_not_used(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree()
    (root / ".cocciconfig").write_text("[spatch]\noptions = --no-such-option\n", encoding="utf-8")
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(root))
    assert look(root).bugs[0].status is Status.AFFECTED


def test_spatch_missing(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = make_tree()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Infrastructure, match="spatch .* is not installed: run kmend setup") as error:
        audit(Tree.open(root), BUGS)
    assert error.value.code is ExitCode.INFRASTRUCTURE


def test_spatch_broken(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Coccinelle that fails on every file is no verdict on this one."""
    root = make_tree()
    tools(monkeypatch, tmp_path, spatch="echo 'no python here' >&2; exit 3")
    with pytest.raises(Infrastructure, match="spatch does not work .* no python here"):
        audit(Tree.open(root), BUGS)


def test_text_without_rich(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = {"rich.console": None}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    text = table([look(make_tree())])
    assert "pci-cfg-wait/unlocked-queue  affected\n" in text
    assert f"    fix: {FIX}" in text


def test_latent_is_mended_on_demand(make_tree: MakeTree) -> None:
    tree = Tree.open(make_tree(access_c(wake=WAKE_INSIDE)))
    assert audit(tree, BUGS).patches == ()
    found = audit(tree, BUGS, latent=True)
    assert (found.bugs[0].status, found.patches) == (Status.LATENT, (FIX,))


def test_worst() -> None:
    assert worst(Status) is Status.AFFECTED
    assert worst([Status.FIXED, Status.NOT_APPLICABLE, Status.LATENT]) is Status.LATENT
    assert worst([Status.LATENT, Status.UNKNOWN]) is Status.UNKNOWN


def test_uses_are_found_in_code_only() -> None:
    text = '/* q */ q; // q \\\n q\n"q"; \'q\'; "\\"q"; aq; q1; q\n'
    text += "#if 0\nq\n#if 1\nq\n#endif\n#else\nq\n#endif\n# if A\nq\n#endif\n/* q"
    assert [line for line, _ in code.uses(code.code(text), "q")] == [1, 3, 10, 13]


# As "make coccicheck" runs it.
def test_report_mode_names_faults_alone(make_tree: MakeTree) -> None:
    said = coccicheck("pci-cfg-wait", make_tree() / ACCESS)
    assert [line.split(": ", 2)[1:] for line in said] == [
        ["pci-cfg-wait/unlocked-queue", f"affected: {name}() without pci_cfg_wait.lock"]
        for name in ("__add_wait_queue", "__remove_wait_queue")
    ]


@pytest.mark.parametrize("access", [access_c(WAIT_EVENT), access_c(wake=WAKE_INSIDE), access_c("")])
def test_report_mode_is_silent_otherwise(make_tree: MakeTree, access: str) -> None:
    assert coccicheck("pci-cfg-wait", make_tree(access) / ACCESS) == []


def test_two_files_in_one_run(make_tree: MakeTree) -> None:
    """What is known of one file must not colour the next."""
    folder = make_tree(name="a") / "drivers/pci"
    shutil.copyfile(make_tree(access_c(wake=WAKE_INSIDE), name="b") / ACCESS, folder / "zz.c")
    said = coccicheck("pci-cfg-wait", "--dir", folder, mode="audit")
    verdicts = {(Path(line.split(":")[0]).name, line.split(": ")[2]) for line in said}
    assert verdicts - {("access.c", "seen"), ("zz.c", "seen")} == {("access.c", "affected"), ("zz.c", "latent")}


@pytest.mark.parametrize("rule", sorted(path.stem for path in manifest.RULES.glob("*.cocci")))
def test_several_processes_are_refused(make_tree: MakeTree, rule: str) -> None:
    """None of them would come to where a rule judges, and coccicheck would take silence for a clean tree."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        coccicheck(rule, "--jobs", "2", "--chunksize", "1", "--dir", make_tree() / "drivers/pci")
    assert failed.value.stderr == "the rules of kmend judge all files in one process: make coccicheck J=1\n"


OTHER = "riscv-kvm-exit/init-leak-v6.4-v6.12.patch"


def with_findings(*findings: Finding) -> list[Bug]:
    return [dataclasses.replace(BUGS[0], findings=findings)]


def test_finding_that_an_earlier_one_mends_is_covered(make_tree: MakeTree) -> None:
    (first,) = BUGS[0].findings
    found = audit(Tree.open(make_tree(access_c(UNLOCKED))), with_findings(first, first))
    one, two = found.bugs[0].findings
    assert (one.fix, one.covered) == ((FIX,), False)
    assert (two.fix, two.covered, two.unfit) == ((), True, False)
    assert found.patches == (FIX,)


def test_variant_whose_first_patch_is_there_is_taken_from_the_second(make_tree: MakeTree) -> None:
    """A series can be stopped after any of its patches, and gone on with."""
    finding = dataclasses.replace(BUGS[0].findings[0], fix=((OTHER, FIX),))
    one, two = audit(Tree.open(make_tree(access_c(UNLOCKED))), with_findings(finding, finding)).bugs[0].findings
    assert one.fix == (FIX,)
    assert (two.fix, two.covered) == ((), True)


def test_whole_series_is_taken_before_the_rest_of_another(make_tree: MakeTree, tmp_path: Path) -> None:
    """Two series may end in the same patches, which fit where the second must be taken from its first."""
    new = tmp_path / "new.patch"
    new.write_text("--- a/Makefile\n+++ b/Makefile\n@@ -1 +1,2 @@\n VERSION = 4\n+NEW = 1\n", encoding="ascii")
    finding = dataclasses.replace(BUGS[0].findings[0], fix=((OTHER, FIX), (str(new), FIX)))
    (found,) = audit(Tree.open(make_tree(access_c(UNLOCKED))), with_findings(finding)).bugs[0].findings
    assert found.fix == (str(new), FIX)


def test_unverified_patch_is_named(make_tree: MakeTree) -> None:
    tree = Tree.open(make_tree(access_c(UNLOCKED)))
    finding = dataclasses.replace(BUGS[0].findings[0], unverified=(FIX,))
    found = audit(tree, with_findings(finding))
    assert found.bugs[0].unverified == (FIX,)
    assert found.to_json()["bugs"][0]["unverified"] == [FIX]
    assert f"{FIX} (unverified)" in " ".join(table([found]).split())
