# SPDX-License-Identifier: GPL-2.0-only
"""Writes fixes as mails that a maintainer takes: plain ones for stable trees, or with the header of openEuler."""

import email
import email.policy
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import BadInput, NothingToDo
from kmendlib.tree import bases, manifest, series
from kmendlib.tree.apply import refuse_undecided
from kmendlib.tree.audit import Audit
from kmendlib.tree.manifest import PATCHES, Bug, Upstream

STABLE = "Cc: stable@vger.kernel.org"
_COMMIT_URL = "https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/commit/?id="
_TRAILER = re.compile(r"[A-Z][\w-]+: \S.*")


@dataclass(frozen=True)
class Options:
    """How the mails are to look.

    Attributes:
        format: ``git`` or ``openeuler``.
        signoff: who signs them off, as "Name <address>", or empty.
        issue: URL of the issue that openEuler's checks ask for.
        cve: the CVE's number, or ``NA``.
    """

    format: str
    signoff: str = ""
    issue: str = ""
    cve: str = "NA"


def of_base(name: str, bugs: Sequence[Bug]) -> list[Path]:
    """Return the patches of a base's series that mend some bugs, in order.

    Args:
        name: a base, or one of its series where it has several.
        bugs: the bugs.

    Raises:
        BadInput: there is no such base, or it has several series.
        NothingToDo: it has no such patch.
    """
    known = {series for base in bases.load().values() for series in base.series}
    if name not in known:
        of_that = bases.get(name).series
        if len(of_that) > 1:
            raise BadInput(f"{name} has several series: give --base {' or '.join(of_that)}")
        if not of_that:
            raise NothingToDo(f"{name}: nothing to export: it has no series")
        (name,) = of_that
    path = PATCHES / "series" / name
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not (PATCHES / line).is_file():
            raise BadInput(f"{path}:{number}: there is no patch {line}")
    wanted = {patch for bug in bugs for finding in bug.findings for patch in finding.fix_patches}
    found = [PATCHES / line for line in lines if line in wanted]
    if not found:
        raise NothingToDo(f"series {name}: nothing to export: it has no such patch")
    return found


def of_tree(audit: Audit) -> list[Path]:
    """Return the patches that `apply` would push onto the audited tree, in order.

    Raises:
        BadInput: it cannot be told what the tree needs, as for `apply`.
        NothingToDo: it needs none.
    """
    refuse_undecided(audit)
    if not audit.patches:
        raise NothingToDo(f"{audit.tree.path}: nothing to export: it needs no patch")
    return [PATCHES / name for name in audit.patches]


def identity() -> str:
    """Return who the user is to git, as "Name <address>".

    Raises:
        BadInput: git does not know.
    """
    name, address = (proc.output(["git", "config", f"user.{key}"]) for key in ("name", "email"))
    if not name or not address:
        raise BadInput("--signoff: git does not know who you are: set user.name and user.email with git config")
    return f"{name.strip()} <{address.strip()}>"


def export(patches: Sequence[Path], options: Options, out: Path) -> list[Path]:
    """Write one mail a patch into a folder.

    Args:
        patches: the patches, in the order in which they are applied.
        options: how they are to look.
        out: the folder, made if it is not there; it must be empty.

    Returns:
        The mails' paths, in order.

    Raises:
        BadInput: the folder is not empty, or openEuler's header lacks its issue.
    """
    if options.format == "openeuler" and not re.match(r"https?://\S+$", options.issue):
        raise BadInput("openEuler's checks want the issue in each patch: give it with --issue URL")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out}: not an empty folder; give one that is, or a new one")
    mails = {}
    for number, patch in enumerate(patches, 1):
        subject, text = _mail(patch, number, len(patches), options)
        mails[f"{number:04}-{re.sub(r'[^A-Za-z0-9]+', '-', subject).strip('-')[:52]}.patch"] = text
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kmend-", dir=out) as folder:
        for name, text in mails.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        for name in mails:
            (Path(folder) / name).rename(out / name)
    return [out / name for name in mails]


def _mail(patch: Path, number: int, count: int, options: Options) -> tuple[str, str]:
    """Return the subject and the whole mail."""
    message = email.message_from_string(patch.read_text(encoding="utf-8"), policy=email.policy.compat32)
    subject = re.sub(r"^\[PATCH\]\s*", "", " ".join(str(message["Subject"]).split()))
    log, _, rest = str(message.get_payload()).partition("\n---\n")
    paragraphs = log.strip().split("\n\n")
    trailers = paragraphs.pop().splitlines() if all(map(_TRAILER.match, paragraphs[-1].splitlines())) else []
    body = "\n\n".join(paragraphs)
    if options.format == "openeuler":
        body = _header(patch, body, options) + body
    else:
        trailers.append(STABLE)
    if options.signoff:
        trailers.append(f"Signed-off-by: {options.signoff}")
    prefix = "PATCH" if count == 1 else f"PATCH {number}/{count}"
    lines = [
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001",
        f"From: {options.signoff or message['From']}",
        f"Date: {message['Date']}",
        f"Subject: [{prefix}] {subject}",
        "",
        body,
        *(["", *trailers] if trailers else []),
        "---",
    ]
    return subject, "\n".join(lines) + "\n" + rest


def _header(patch: Path, log: str, options: Options) -> str:
    """Return the header that openEuler's checks parse."""
    upstream = _upstream(patch, log)
    origin = ["openEuler inclusion"]
    if upstream:
        origin = ["mainline inclusion", f"from mainline-{upstream.version}", f"commit {upstream.commit}"]
    lines = [
        *origin,
        "category: bugfix",
        f"bugzilla: {options.issue}",
        f"CVE: {options.cve}",
        "",
        f"Reference: {_COMMIT_URL + upstream.commit if upstream else 'NA'}",
        "",
        "-" * 32,
    ]
    return "\n".join(lines) + "\n\n"


def _upstream(patch: Path, log: str) -> Upstream | None:
    """Return the mainline fix that a patch is a backport of: its log begins with that."""
    name = series.patch_name(patch)
    bug: Bug = next(bug for bug in manifest.load().bugs if name in bug.patches)
    said = re.match(r"commit ([0-9a-f]{12,40}) \(", log)
    fixes = [item for item in bug.upstream if item.role == "fix" and item.version]
    return next((item for item in fixes if said and item.commit.startswith(said[1])), None)
