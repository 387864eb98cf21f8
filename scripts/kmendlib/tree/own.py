# SPDX-License-Identifier: GPL-2.0-only
"""Takes patches of the user's own in place of kmend's fixes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from kmendlib.host.errors import NothingToDo
from kmendlib.tree import series
from kmendlib.tree.audit import Audit, BugAudit, Status, audit
from kmendlib.tree.manifest import Bug
from kmendlib.tree.tree import Tree


def mended(tree: Tree, bugs: Sequence[Bug], patches: Sequence[Path], say: Callable[[str], None]) -> Audit:
    """Audit a tree whose fix are some patches, all of them together; the tree is only read.

    Args:
        tree: the tree.
        bugs: what they may mend.
        patches: the patches, in order.
        say: takes what the user should know.

    Returns:
        What the audit says of the findings that the patches mend, with the patches for their fix. If it sees that of
        none, of all that the tree has: the boots tell.

    Raises:
        BadInput: the patches do not fit.
        NothingToDo: the tree has none of the bugs.
    """
    names = tuple(str(patch.resolve()) for patch in patches)
    theirs = [replace(bug, findings=tuple(replace(each, fix=(names,)) for each in bug.findings)) for bug in bugs]
    said = audit(tree, theirs, latent=True)
    there = [each.id for each in said.findings if each.status in (Status.AFFECTED, Status.LATENT)]
    if not there:
        raise NothingToDo(f"{tree.path}: nothing for a patch to mend: affected by none of {', '.join(_ids(bugs))}")
    with TemporaryDirectory(prefix="kmend-") as scratch:
        series.materialize(tree.path, [Path(name) for name in names], Path(scratch))
    seen = [each.id for each in said.findings if each.fix or each.covered]
    if not seen:
        say(f"the audit does not see that {', '.join(there)} is mended by {', '.join(names)}: the boots tell")
    wanted = seen or there
    having = [bug for bug in said.bugs if {*wanted} & {*_ids([bug.bug])}]
    return replace(said, bugs=tuple(_narrowed(bug, wanted, names) for bug in having))


def _ids(bugs: Sequence[Bug]) -> list[str]:
    return [finding.id for bug in bugs for finding in bug.findings]


def _narrowed(bug: BugAudit, ids: Sequence[str], names: tuple[str, ...]) -> BugAudit:
    """Return it with some findings alone; the patches are there once, for the first of all."""
    findings = [replace(each, fix=(), covered=True) for each in bug.findings if each.id in ids]
    if findings[0].id == ids[0]:
        findings[0] = replace(findings[0], fix=names, covered=False)
    kept = tuple(each for each in bug.bug.findings if each.id in ids)
    return BugAudit(replace(bug.bug, findings=kept), tuple(findings))
