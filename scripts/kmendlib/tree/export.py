# SPDX-License-Identifier: GPL-2.0-only
"""Writes fixes as mails: for stable trees, with openEuler's header, or for whoever else maintains the code."""

import email
import email.policy
import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmendlib.host import files, proc
from kmendlib.host.errors import BadInput, NothingToDo
from kmendlib.host.paths import SCRIPTS
from kmendlib.tree import bases, manifest, series
from kmendlib.tree.apply import refuse_undecided
from kmendlib.tree.audit import Audit
from kmendlib.tree.manifest import PATCHES, Bug, Finding, Upstream
from kmendlib.tree.tree import version_key

STABLE = "Cc: stable@vger.kernel.org"
# What a patch is asked for that kmend cannot know; no tool takes it for something else.
_BLANK = re.compile("<<< .*? >>>")
_COMMIT_URL = "https://git.kernel.org/torvalds/c/"
_CVE_URL = "https://www.cve.org/CVERecord?id="
_TRAILER = re.compile(r"[A-Z][\w-]+: \S.*")
# The first paragraph of a backport's log, on one line; what comes after "adapted:" is said in the mail.
_BACKPORT = re.compile(r'commit ([0-9a-f]{12,40})(?: \(".+?"\))? upstream(, adapted)?(?:: (.+))?\.')
_PORTED = re.compile(r"^\[ported from ", re.MULTILINE)
# Who kmend's patches are by, until somebody signs them off.
_NOBODY = "<kmend@localhost>"
_COVER = SCRIPTS / "templates" / "cover-letter.txt"


@dataclass(frozen=True)
class Options:
    """How the mails are to look.

    Attributes:
        format: ``stable``, ``openeuler`` or ``mail``.
        signoff: who signs them off, as "Name <address>", or empty.
        issue: URL of the issue that openEuler's checks ask for; empty leaves a blank.
        cve: the CVE's number; empty for the one of the upstream commit, if it has any.
        start: the number of the first file.
        needed: whether a tree or a base is known to need them: a fix of our own then asks to go to stable trees.
        title: what they are for.
        ran: what was run, a line each.
    """

    format: str
    signoff: str = ""
    issue: str = ""
    cve: str = ""
    start: int = 1
    needed: bool = True
    title: str = ""
    ran: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Mail:
    """A mail, and where its change comes from: a word for the cover letter, and the mainline fix if that is known."""

    patch: Path
    subject: str
    origin: str
    upstream: Upstream | None
    text: str


def of_base(name: str, bugs: Sequence[Bug]) -> tuple[list[Path], list[Bug]]:
    """Return the patches of a base's series that mend some bugs, in order, and the bugs of its age without one.

    Args:
        name: a base, or one of its series where it has several.
        bugs: the bugs.

    Raises:
        BadInput: there is no such base, or it has several series.
        NothingToDo: it has no such patch.
    """
    base = next((base for base in bases.load().values() if name in base.series), None)
    if not base:
        base = bases.get(name)
        if len(base.series) > 1:
            raise BadInput(f"{name} has several series: give --base {' or '.join(base.series)}")
        if not base.series:
            raise NothingToDo(f"{name}: nothing to export: it has no series; give --tree DIR, or patches")
        (name,) = base.series
    path = PATCHES / "series" / name
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not (PATCHES / line).is_file():
            raise BadInput(f"{path}:{number}: there is no patch {line}")
    wanted = {patch for bug in bugs for finding in bug.findings for patch in finding.fix_patches}
    found = [PATCHES / line for line in lines if line in wanted]
    if not found:
        raise NothingToDo(
            f"series {name}: nothing to export: it has no such patch; give --tree DIR for what one tree needs,"
            " or the patches themselves"
        )
    version = version_key(base.version)
    may_have = [bug for bug in bugs if version_key(bug.versions[0]) <= version <= version_key(bug.versions[1])]
    return found, [bug for bug in may_have if not {*bug.patches} & {*lines}]


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


def export(patches: Sequence[Path], options: Options, out: Path) -> tuple[list[Path], list[str]]:
    """Write one mail a patch into a folder, and beside them what other tools read.

    That is `series` for quilt, `patches.spec` with the lines of a spec file, where mails go to a list
    `cover-letter.txt`, and where they may go into a package, and mend a CVE, `csaf.json` for its advisory.

    Args:
        patches: the patches, in the order in which they are applied.
        options: how they are to look.
        out: the folder, made if it is not there; it must be empty.

    Returns:
        The mails' paths, in order, and the blanks that were left for a person, each once.

    Raises:
        BadInput: the folder is not empty, a patch is no mail, or nobody of that format takes it.
    """
    if options.issue and not re.match(r"https?://\S+$", options.issue):
        raise BadInput(f"--issue {options.issue}: give the URL of an issue")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out}: not an empty folder; give one that is, or a new one")
    mails = [_mail(patch, number, len(patches), options) for number, patch in enumerate(patches, 1)]
    names = {}
    for number, mail in enumerate(mails, options.start):
        names[f"{number:04}-{re.sub(r'[^A-Za-z0-9]+', '-', mail.subject).strip('-')[:52]}.patch"] = mail
    texts = {name: mail.text for name, mail in names.items()} | {
        "series": "".join(f"{name}\n" for name in names),
        "patches.spec": "".join(f"Patch{number}: {name}\n" for number, name in enumerate(names, options.start)),
    }
    if options.format != "openeuler":
        texts["cover-letter.txt"] = _cover(mails, options)
    told = [mail.text for mail in mails]
    if options.format != "stable" and (mended := _vulnerabilities(names)):
        texts["csaf.json"] = json.dumps({"vulnerabilities": mended}, indent=2) + "\n"
        told.append(texts["csaf.json"])
    out.mkdir(parents=True, exist_ok=True)
    files.write({out / name: text for name, text in texts.items()})
    nobody = re.compile(f"^From: .*{_NOBODY}$", re.MULTILINE)
    left = (found for text in told for found in [*nobody.findall(text), *_BLANK.findall(text)])
    return [out / name for name in names], list(dict.fromkeys(left))


def _blank(what: str) -> str:
    return f"<<< {what} >>>"


def _mail(patch: Path, number: int, count: int, options: Options) -> _Mail:
    try:
        message = email.message_from_string(patch.read_text(encoding="utf-8"), policy=email.policy.compat32)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{patch}: cannot be read: {getattr(error, 'strerror', 'not UTF-8')}") from None
    log, separator, rest = str(message.get_payload()).partition("\n---\n")
    if not message["Subject"] or not message["From"] or not separator or message.is_multipart():
        raise BadInput(f"{patch}: no mail with a patch: git format-patch makes one")
    # Throws out what is no patch on a tree.
    series.touched_files(patch)
    subject = re.sub(r"^\[PATCH[^]]*\]\s*", "", " ".join(str(message["Subject"]).split()))
    paragraphs = log.strip().split("\n\n")
    trailers = paragraphs.pop().splitlines() if all(map(_TRAILER.match, paragraphs[-1].splitlines())) else []
    author, origin, commit, upstream = str(message["From"]), "no upstream commit", "", None
    ours = author.endswith(_NOBODY)
    if said := _BACKPORT.fullmatch(" ".join(paragraphs[0].split())):
        del paragraphs[0]
        upstream = _upstream(said[1])
        adapted = said[2] or _PORTED.search(log)
        origin = f"commit {said[1][:12]} upstream{', adapted' if adapted else ''}"
        commit = upstream.commit if upstream else said[1]
        if len(commit) < 40:
            commit = _blank(f"the 40 digits of commit {commit}")
        if ours:
            author = upstream.author if upstream and upstream.author else options.signoff or author
            chain = upstream.trailers if upstream else ()
            missing = f"Signed-off-by: {_blank(f'the sign-offs of commit {said[1][:12]}, and its author')}"
            how = f"Adapted{': ' + said[3] if said[3] else ', as the log says'}"
            how = how if adapted else "Upstream's, line by line"
            trailers = [*(chain or [missing]), f"[ {how}. The log is the backport's own. ]"]
    else:
        author = options.signoff if ours and options.signoff else author
        origin = "a fix of its own, not upstream's" if paragraphs[0].startswith("No backport: ") else origin
        if options.format == "stable":
            _refuse_vendors(patch)
            trailers += [STABLE] if options.needed and STABLE not in trailers else []
    if options.format == "openeuler":
        paragraphs.insert(0, _header(commit, upstream, options))
    else:
        paragraphs[:0] = [f"commit {commit} upstream."] if commit else []
        if ours:
            trailers.append(f"Assisted-by: {_blank('AGENT_NAME:MODEL_VERSION of what wrote it, or strike this line')}")
    signed = f"Signed-off-by: {options.signoff}"
    if options.signoff and signed not in trailers:
        trailers.append(signed)
    head = f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: {author}\nDate: {message['Date']}\n"
    head += f"Subject: [{'PATCH' if count == 1 else f'PATCH {number}/{count}'}] {subject}"
    body = [head, *paragraphs, *(["\n".join(trailers)] if trailers else [])]
    return _Mail(patch, subject, origin, upstream, "\n\n".join(body) + f"\n---\n{rest}")


def _refuse_vendors(patch: Path) -> None:
    """Refuse what no stable tree has the code for."""
    bug = next((bug for bug in manifest.load().bugs if series.patch_name(patch) in bug.patches), None)
    if bug and not bug.upstream:
        raise BadInput(f"{series.patch_name(patch)}: no tree of stable's has this code: give another --format")


def _header(commit: str, upstream: Upstream | None, options: Options) -> str:
    """Return the header that openEuler's checks parse."""
    origin = ["openEuler inclusion"]
    if commit:
        version = upstream.version if upstream else _blank("the first release with it, as in v5.4-rc1")
        origin = ["mainline inclusion", f"from mainline-{version}", f"commit {commit}"]
    issue = options.issue or _blank("the URL of your issue")
    cve = options.cve or (upstream.cve if upstream else "") or "NA"
    reference = _COMMIT_URL + commit[:12] if upstream else "NA"
    lines = [*origin, "category: bugfix", f"bugzilla: {issue}", f"CVE: {cve}", "", f"Reference: {reference}"]
    return "\n".join([*lines, "", "-" * 32])


def _upstream(commit: str) -> Upstream | None:
    """Return the mainline fix with this id, or the beginning of one, if the manifest has it."""
    fixes = (item for bug in manifest.load().bugs for item in bug.upstream if item.role == "fix")
    return next((item for item in fixes if item.commit.startswith(commit)), None)


def _cover(mails: Sequence[_Mail], options: Options) -> str:
    """Return the cover letter: it answers the kernel's process/coding-assistants.rst point by point."""
    names = {series.patch_name(mail.patch) for mail in mails}
    bugs = manifest.load().bugs
    findings = [(bug, each) for bug in bugs for each in bug.findings if names & {*each.fix_patches}]
    unread = sorted(names & {name for _, each in findings for name in each.unverified})
    return string.Template(_COVER.read_text(encoding="utf-8")).substitute(
        count=len(mails),
        title=options.title,
        patches=_items(f"{mail.subject}: {mail.origin}" for mail in mails),
        signed=f"Signed off by {options.signoff}." if options.signoff else _blank("nobody has signed off: you do"),
        files=_items(dict.fromkeys(name for mail in mails for name in series.touched_files(mail.patch))),
        reproducers=_items(line for bug, each in findings for line in _reproducers(bug, each))
        or f"  {_blank('how to reproduce it')}\n",
        ran=_items(options.ran)
        or f"  {_blank('nothing was run for this letter: kmend verify, then export --evidence DIR')}\n",
        unread=_items(f"{name}: has hunks for files that could not be read: inferred" for name in unread),
        cves=_items(f"{mail.upstream.cve}: {mail.subject}" for mail in mails if mail.upstream and mail.upstream.cve),
    )


def _vulnerabilities(mails: Mapping[str, _Mail]) -> list[dict[str, Any]]:
    """Return what a CSAF 2.0 advisory says under `vulnerabilities` of each CVE that mails mend, by their file names."""
    by_fix: dict[Upstream, dict[str, _Mail]] = {}
    for name, mail in mails.items():
        if mail.upstream and mail.upstream.cve:
            by_fix.setdefault(mail.upstream, {})[name] = mail
    products = [_blank("the ids of your packages, as your product_tree has them")]
    return [
        {
            "cve": fix.cve,
            "title": fix.subject,
            "notes": [{"category": "description", "text": "; ".join(_faults(mended.values())) or fix.subject}],
            "references": [
                {"summary": fix.cve, "url": _CVE_URL + fix.cve},
                {"summary": f"{fix.subject} ({fix.version})", "url": _COMMIT_URL + fix.commit[:12]},
            ],
            "product_status": {"fixed": products},
            "remediations": [
                {"category": "vendor_fix", "details": f"A kernel with {', '.join(mended)}", "product_ids": products}
            ],
        }
        for fix, mended in by_fix.items()
    ]


def _faults(mails: Iterable[_Mail]) -> list[str]:
    """Return what the findings that mails mend are called."""
    names = {series.patch_name(mail.patch) for mail in mails}
    return [each.title for bug in manifest.load().bugs for each in bug.findings if names & {*each.fix_patches}]


def _items(lines: Iterable[str]) -> str:
    return "".join(f"  - {line}\n" for line in lines)


def _reproducers(bug: Bug, finding: Finding) -> list[str]:
    """Return what shows a fault, each with the cases that are red where it is."""
    proofs = {test.id: cases for test in bug.tests if (cases := test.proof.get(finding.id))}
    shows = [f"{finding.id}: {test}: {', '.join(cases)}" for test, cases in proofs.items()]
    shows += [f"{finding.id}: {test.id}, its race forced" for test in bug.selftests if finding.id in test.races]
    return [*shows, f"kmend verify --tree DIR --bug {finding.id}"] if shows else []
