# SPDX-License-Identifier: GPL-2.0-only
"""The audit on real trees and on their mutants: no wrong verdict.

All mutants of ten trees take an hour. So each tree in KMEND_TREES gets its share of half of them, another half for each
finding; KMEND_AUDIT=all is for all. scripts/audit-table counts the same mutants.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

import mutants
from conftest import ACCESS, MakeTree, access_c, real_trees
from kmendlib.tree import manifest
from kmendlib.tree.audit import Status, audit
from kmendlib.tree.manifest import Bug, Finding
from kmendlib.tree.tree import Tree

BUGS = manifest.load().bugs
FINDINGS = {finding.id: (bug, finding) for bug in BUGS for finding in bug.findings}
PCI = "pci-cfg-wait/unlocked-queue"
TREES = real_trees()
WHOLE = [*TREES, *real_trees("KMEND_PARTS")]


def known_of(tree: Tree, bug: Bug, finding: Finding, name: str) -> dict[str, Status]:
    """Return what is true of a tree; of one that nobody has read, and none of its line, what the audit says is taken.

    A point release may mend what the last tree that was read had; nothing that was fixed may be anything else.
    """
    known = mutants.truth(tree, name)
    if mutants.last_read(tree) not in ("", tree.release) and known.get(finding.id) in (Status.AFFECTED, Status.LATENT):
        said = mutants.verdict(tree, bug, finding)
        known |= {finding.id: said} if said is Status.FIXED else {}
    if known and finding.id not in known:
        pytest.skip(f"{name}: nobody has read what there is of this tree for {finding.id}")
    return known or {finding.id: mutants.verdict(tree, bug, finding)}


@pytest.mark.skipif(not TREES, reason="KMEND_TREES names no folder with real trees")
@pytest.mark.parametrize("id", FINDINGS)
@pytest.mark.parametrize("number", range(len(TREES)), ids=[path.name for path in TREES])
def test_no_wrong_verdict(number: int, id: str) -> None:
    path, (bug, finding) = TREES[number], FINDINGS[id]
    tree = Tree.open(path)
    share = 1 if os.environ.get("KMEND_AUDIT") == "all" else 2 * len(TREES)
    turn = number + list(FINDINGS).index(id)
    known = known_of(tree, bug, finding, path.name)
    every = list(mutants.mutants(tree, bug, finding, known))
    # Of what is there, or was mended, both states are looked at: a patch that fits no more would halve the mutants.
    one_sided = known[id] in (Status.AFFECTED, Status.FIXED) and {mutant.state for mutant in every} == {"as is"}
    assert not one_sided, "no fix fits, or nothing puts the fault back"
    chosen = every[:1] + [mutant for index, mutant in enumerate(every[1:]) if index % share == turn % share]
    said = mutants.judge(tree, bug, finding, [mutant.files for mutant in chosen])
    wrong = [
        f"{mutant.state}: {mutant.change}: {status}, not {' or '.join(sorted(mutant.right))}"
        for mutant, status in zip(chosen, said, strict=True)
        if mutant.outcome(status) == "wrong"
    ]
    assert not wrong
    assert said[0] is not Status.UNKNOWN, "a whole tree is known"


@pytest.mark.skipif(not WHOLE, reason="KMEND_TREES names no folder with real trees")
@pytest.mark.parametrize("path", WHOLE, ids=[path.name for path in WHOLE])
def test_whole_tree(path: Path) -> None:
    """All bugs at once: each status is what reading said, and what is affected has a fix that fits.

    Of a kernel that is new in one of Debian's suites there are parts: what the audit reads.
    """
    tree = Tree.open(path)
    findings = [(bug.bug, finding) for bug in audit(tree, BUGS).bugs for finding in bug.findings]
    known = {each.id: known_of(tree, bug, FINDINGS[each.id][1], path.name)[each.id] for bug, each in findings}
    assert {each.id: each.status for _, each in findings} == known
    assert [each.id for _, each in findings if each.unfit] == []
    assert all(each.fix or each.covered for _, each in findings if each.status is Status.AFFECTED)


# The generator itself, on a made-up tree.


def made(make_tree: MakeTree) -> list[mutants.Mutant]:
    bug, finding = FINDINGS[PCI]
    return list(mutants.mutants(Tree.open(make_tree()), bug, finding, {PCI: Status.AFFECTED}))


def test_every_group_is_there(make_tree: MakeTree) -> None:
    every = made(make_tree)
    # Nothing in this tree has an else.
    assert {mutant.group for mutant in every} == set(mutants.GROUPS) - {"the other way round"}
    assert {mutant.state for mutant in every} == {"as is", "as is, mended"}


def test_the_same_again(make_tree: MakeTree, tmp_path: Path) -> None:
    bug, finding = FINDINGS[PCI]
    again = list(mutants.mutants(Tree.open(make_tree(name="again")), bug, finding, {PCI: Status.AFFECTED}))
    assert [(each, each.files) for each in again] == [(each, each.files) for each in made(make_tree)]
    assert len({(mutant.state, mutant.change) for mutant in again}) == len(again)


def test_noise_leaves_the_code(make_tree: MakeTree) -> None:
    text = access_c()
    for noise in (mutants.with_comments, mutants.with_blanks, mutants.with_tabs_gone, mutants.with_cr):
        assert noise(text) != text
        assert mutants.code(noise(text)).split() != [], "comments and directives are gone"
        assert "".join(mutants.code(noise(text)).split()) == "".join(mutants.code(text).split())


def test_locals_are_renamed_and_members_are_not() -> None:
    text = "int f(struct a *p, int m)\n{\n\tint i = m;\n\n\treturn p->i + container_of(p, struct b, m)->i;\n}\n"
    renamed = (
        "int f(struct a *p_1, int m)\n{\n\tint i_1 = m;\n\n\treturn p_1->i + container_of(p_1, struct b, m)->i;\n}\n"
    )
    assert mutants.with_other_locals(text) == renamed


def test_conditions_turn_round() -> None:
    text = "int f(void)\n{\n\tif (!q(a)) {\n\t\te();\n\t} else {\n\t\tg();\n\t}\n\treturn r;\n}\n"
    assert mutants.with_other_sense(text) == (
        "int f(void)\n{\n\tif (q(a)) {\n\t\tg();\n\t} else {\n\t\te();\n\t}\n\treturn r;\n}\n"
    )
    assert "".join(mutants.with_early_return(text).split()) == "intf(void){if(!q(a)){e();returnr;}g();returnr;}"
    for same in (text.replace("{\n\t\te", "{\n#if 1\n\t\te"), text.replace("else {", "else if (b) {")):
        assert mutants.with_other_sense(same) == same


def test_half_ends_within_a_function() -> None:
    head = "int f(void)\n{\n\tg();\n}\n\nint h(void)\n{\n"
    assert mutants._half(head + "\tg();\n\treturn 0;\n}\n") == head


def test_a_text_matcher_would_be_wrong(make_tree: MakeTree) -> None:
    """What takes a line of the fix for the fix does not get through this."""

    def match(files: mutants.Files) -> Status:
        return Status.FIXED if "wait_event(pci_cfg_wait" in files.get(ACCESS, "") else Status.AFFECTED

    wrong = {mutant.change for mutant in made(make_tree) if mutant.outcome(match(mutant.files)) == "wrong"}
    assert {"fix in a comment", "fix under #if 0", "fix in strings", "fix under #ifdef"} <= wrong
    assert "unchanged" not in wrong


def test_outcome() -> None:
    mutant = mutants.Mutant(PCI, "as is", "noise", "none", frozenset({Status.LATENT}), dict)
    assert [mutant.outcome(status) for status in (Status.LATENT, Status.UNKNOWN, Status.FIXED)] == [
        "right",
        "no answer",
        "wrong",
    ]


def test_truth_is_of_known_findings_and_statuses() -> None:
    """Of all trees in the list, whether they are at hand or not."""
    for name, said in tomllib.loads(mutants.TRUTH.read_text(encoding="ascii")).items():
        assert {finding.partition(",")[0] for finding in said} <= set(FINDINGS), name
        assert set(said.values()) <= set(Status), name


def test_line_keeps_the_truth_of_its_last_tree(make_tree: MakeTree) -> None:
    def truth(version: str, extra: str = "") -> dict[str, Status]:
        return mutants.truth(Tree.open(make_tree(version=version, extra=extra, name=version + extra)), "a-folder")

    assert truth("6.12.117") == truth("6.12.999") != {}
    assert truth("7.2.13") == truth("7.99.1") != {}
    assert truth("6.12.116") == truth("6.13.1") == truth("6.12.999", "-vendor.1") == {}
