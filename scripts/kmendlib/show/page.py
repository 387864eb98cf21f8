# SPDX-License-Identifier: GPL-2.0-only
"""Renders evidence as one HTML page that needs nothing else: scripts/templates/report.html.j2, filled from here."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kmendlib.host import files
from kmendlib.host.paths import SCRIPTS
from kmendlib.host.words import visible
from kmendlib.proof import ktap
from kmendlib.proof.evidence import Evidence, digest, inside, load_audit
from kmendlib.show import timeline
from kmendlib.show.report import Row, rows
from kmendlib.show.timeline import Timeline
from kmendlib.tree import manifest

NAME = "report.html"

# What is shown of a console: so much of its end is read, so many lines of that, and so much of a line.
_READ = 256 * 1024
_BEFORE, _AFTER, _LAST = 6, 8, 12
_LINE = 400
# Further limits against evidence without end.
_BOOTS = 10
_PATCH_LINES = 1500

_TONES = {"PROVED": "good", "PASS": "good", "SKIP": "idle", "not run": "idle"}
_MARKS = {"good": "✔", "bad": "✘", "idle": "○", "warn": "▲"}
_STATUS_TONES = {"affected": "bad", "unknown": "warn", "latent": "warn", "fixed": "good", "not-applicable": "idle"}

@dataclass(frozen=True)
class Line:
    """A line as it is shown: its number or 0, its text, and what it is, which is a class of the style sheet, too."""

    number: int
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Run:
    """A boot, or a build, that did not come out as it must.

    Attributes:
        title: which one.
        said: the verdict and why.
        log: path of the console in the evidence folder.
        lines: the last ones, the telling one marked; ``gap`` ones say how many were left out.
        note: what was cut.
    """

    title: str
    said: str
    log: str
    lines: list[Line]
    note: str


def _cut(text: str) -> str:
    return text if len(text) <= _LINE else f"{text[:_LINE]} … {len(text) - _LINE} characters more"


def _end_of(path: Path) -> tuple[list[str], str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _READ, 0))
        text = file.read(_READ).decode(errors="replace")
    lines = [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]
    if size <= _READ:
        return lines, ""
    return lines[1:] or lines, f"The log has {size:,} bytes; what is shown is from the last {_READ:,}."


def console(folder: Path, name: str, excerpt: str, reason: str = "") -> tuple[list[Line], str]:
    """Choose the lines of a console to show.

    Args:
        folder: the evidence folder.
        name: the log's path in it.
        excerpt: what results.json has of it, where the log is not there.
        reason: why the boot has its verdict; often it quotes the telling line.

    Returns:
        The lines, and a note about what was cut.
    """
    path = inside(folder, name)
    lines, note = _end_of(path) if path else (excerpt.split("\n"), "The log is not in the folder.")
    told = [number for number, line in enumerate(lines) if len(line.strip()) > 8 and line.strip() in reason]
    mark = told[0] if told else ktap.telling(lines)
    if mark is None:
        # The guest went silent, or ended: the last thing that it said.
        mark = next((number for number in reversed(range(len(lines))) if lines[number].strip()), 0)
    shown = set(range(mark - _BEFORE, mark + _AFTER + 1)) | set(range(len(lines) - _LAST, len(lines)))
    found: list[Line] = []
    last = -1
    for number in sorted(number for number in shown if 0 <= number < len(lines)):
        if number > last + 1:
            left = number - last - 1
            found.append(Line(0, f"{left} line{'s' if left > 1 else ''} left out", "gap"))
        found.append(Line(number + 1, _cut(lines[number]), "mark" if number == mark else ""))
        last = number
    # Without the log's beginning nobody knows the lines' numbers.
    return [Line(0, line.text, line.kind) for line in found] if note else found, note


@dataclass(frozen=True)
class Patch:
    """A patch as it is shown: its name, what it is for, and its lines."""

    name: str
    role: str
    lines: list[Line]
    note: str


def diff(text: str) -> list[Line]:
    """Tell the lines of a patch apart: ``log``, ``meta``, ``hunk``, ``add``, ``del`` and context."""
    found = []
    body = False
    for text_line in text.rstrip("\n").split("\n"):
        body = body or text_line.startswith(("diff --git ", "--- a/", "Index: "))
        kind = "log"
        if body:
            kind = {"+": "add", "-": "del", "@": "hunk", " ": "", "": ""}.get(text_line[:1], "meta")
            if text_line.startswith(("--- ", "+++ ")) or text_line == "-- ":
                kind = "meta"
        found.append(Line(0, _cut(text_line), kind))
    return found


@dataclass(frozen=True)
class Cell:
    """One suite on one architecture, of one evidence folder."""

    source: "Source"
    arch: str
    row: Row
    differs: bool

    @property
    def word(self) -> str:
        """What came of it."""
        return self.row.word

    @property
    def tone(self) -> str:
        """Good, bad or idle: the style sheet's name for it."""
        return _TONES.get(self.word, "bad")

    @property
    def said(self) -> list[str]:
        """The counts of both states, or why there are none."""
        if not self.row.trusted:
            return []
        if self.row.plan["not_run"]:
            return [self.row.plan["not_run"]]
        return list(self.row.counts())


@dataclass(frozen=True)
class Suite:
    """A line of the matrix; `cells` are by architecture, then by evidence folder."""

    name: str
    kind: str
    cells: list[list[Cell | None]]


@dataclass(frozen=True)
class Group:
    """A bug in an answer: its id, and what is said of it."""

    bug: str
    said: str


@dataclass
class Source:
    """One evidence folder, ready to be shown.

    Attributes:
        number: its number on the page, from 1.
        evidence: what was read of it.
    """

    number: int
    evidence: Evidence
    rows: list[Row] = field(init=False)
    audit: dict[str, Any] | None = field(init=False)

    def __post_init__(self) -> None:
        self.rows = rows(self.evidence)
        self.audit = load_audit(self.evidence.folder)

    @property
    def title(self) -> str:
        """The tree that was looked at."""
        return str(self.evidence.checkout["comment"])

    @property
    def date(self) -> str:
        """When the run began, to the minute."""
        return str(self.evidence.checkout.get("start_time", ""))[:16].replace("T", " ")

    @property
    def bugs(self) -> list[str]:
        """The bugs in the order in which they were asked for."""
        return list(dict.fromkeys(row.plan["bug"] for row in self.rows))

    @property
    def arches(self) -> list[str]:
        """The architectures in the order in which they were asked for."""
        return list(dict.fromkeys(row.plan["arch"] for row in self.rows))

    @property
    def trusted(self) -> bool:
        """Whether it is as the run left it."""
        return not self.evidence.distrust

    def _with(self, status: str) -> list[Group]:
        found = []
        for bug in self.audit["bugs"] if self.audit and self.trusted else ():
            if bug["status"] == status:
                which = [f["id"].partition("/")[2] for f in bug["findings"] if f["status"] == status]
                found.append(Group(bug["id"], ", ".join(which)))
        return found

    @cached_property
    def headline(self) -> str:
        """The one answer."""
        if not self.trusted:
            return "Nothing of this evidence is shown as a pass."
        if not self.audit:
            return "Which bugs this tree has is not known: audit.json is missing or damaged."
        has, unknown = self._with("affected"), self._with("unknown")
        total = len(self.audit["bugs"])
        names = ", ".join(group.bug for group in has)
        text = f"This tree has {len(has)} of {total} bugs: {names}." if has else f"This tree has none of {total} bugs."
        if unknown:
            text += f" Of {len(unknown)} nobody knows: {', '.join(group.bug for group in unknown)}."
        proved = len({group.bug for group in self.proved})
        open_ = len({group.bug for group in self.not_proved})
        text += f" Proved mended: {proved} of {len(self.bugs)}." if self.bugs else ""
        return text + (f" Not proved: {open_}." if open_ else "")

    @property
    def statuses(self) -> list[tuple[str, str, list[Group]]]:
        """What the audit said: a heading, its tone, and the bugs, with their findings."""
        names = {
            "affected": "The tree has",
            "unknown": "Not known: code that no rule knows",
            "latent": "Wrong in the source, cannot happen here (latent)",
            "fixed": "Fixed already",
            "not-applicable": "The tree cannot have",
        }
        return [(names[each], _STATUS_TONES[each], self._with(each)) for each in names if self._with(each)]

    def _how(self, bug: str) -> str:
        """How a bug was shown in a tree that does not have it."""
        status = {each["id"]: each["status"] for each in self.audit["bugs"]}.get(bug) if self.audit else None
        beds = [name for row in self.rows if row.plan["bug"] == bug for name in row.plan.get("testbed", ())]
        if beds:
            return f" (not in this tree: shown with {beds[0]} on it)"
        return " (fixed in this tree: put back for the proof)" if status in ("fixed", "latent") else ""

    @cached_property
    def proved(self) -> list[Group]:
        """Bugs with a proof, and the architectures on which nothing spoke against it."""
        found = []
        for bug in self.bugs:
            good = []
            for arch in self.arches:
                here = [row for row in self.rows if (row.plan["bug"], row.plan["arch"]) == (bug, arch)]
                mine = [row for row in here if not row.plan["not_run"]]
                bad = any(row.word not in _TONES for row in mine)
                if not bad and any(row.word == "PROVED" for row in mine):
                    good.append(arch)
            if good:
                found.append(Group(bug, ", ".join(good) + self._how(bug)))
        return found

    @cached_property
    def not_proved(self) -> list[Group]:
        """What was run and did not come out as it must."""
        if not self.trusted:
            return []
        found: dict[tuple[str, str, str], list[str]] = {}
        for row in self.rows:
            if row.word not in _TONES:
                found.setdefault((row.plan["bug"], row.plan["arch"], row.word), []).append(row.plan["suite"])
        return [Group(bug, f"{arch}: {word}: {', '.join(names)}") for (bug, arch, word), names in found.items()]

    @cached_property
    def not_run(self) -> list[Group]:
        """What could not be run or shown, and why."""
        found: dict[tuple[str, str], list[str]] = {}
        for row in self.rows if self.trusted else ():
            plan = row.plan
            why = [plan["not_run"]] if plan["not_run"] else list(plan.get("left_out", ()))
            if row.word == "SKIP":
                why.append(f"{plan['suite']} skipped: {row.after[0]['misc']['reason']}")
            for each in why:
                found.setdefault((plan["bug"], each), []).append(plan["arch"])
        everywhere = set(self.arches)
        return [
            Group(bug, why if set(where) == everywhere else f"{', '.join(dict.fromkeys(where))}: {why}")
            for (bug, why), where in found.items()
        ]

    def findings(self, bug: str) -> list[dict[str, Any]]:
        """What the audit said of a bug's findings."""
        said = self.audit["bugs"] if self.audit and self.trusted else ()
        return [finding for each in said if each["id"] == bug for finding in each["findings"]]

    @staticmethod
    def excerpt(place: dict[str, Any]) -> list[Line]:
        """The source around a place that the audit names, which is marked."""
        numbered = enumerate(place["source"]["lines"], place["source"]["first"])
        return [Line(number, text, "mark" if number == place["line"] else "") for number, text in numbered]

    @cached_property
    def _series(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for state in ("before", "after"):
            path = inside(self.evidence.folder, f"patches/{state}/series")
            found[state] = []
            with contextlib.suppress(OSError):
                found[state] = files.read_text(path, _READ, errors="replace").splitlines() if path else []
        return found

    def patches(self, bug: str) -> list[Patch]:
        """The patches that make the difference between the kernels."""
        before, after = self._series["before"], self._series["after"]
        chosen = [("after", name, "mends it, in the kernel “after”") for name in after if name not in before]
        back = "puts the bug back, in the kernel “before”"
        chosen += [("before", name, back) for name in before if name not in after]
        found = []
        for state, name, role in chosen:
            if name.partition("/")[0] != bug:
                continue
            path = inside(self.evidence.folder, f"patches/{state}/{name}")
            with path.open(encoding="utf-8", errors="replace", newline="\n") if path else _nothing() as file:
                lines = diff(file.read(_PATCH_LINES * 200))
            note = "" if path else "The patch is not in the folder."
            if len(lines) > _PATCH_LINES:
                note = f"{len(lines) - _PATCH_LINES} lines more are not shown."
            found.append(Patch(name, role, lines[:_PATCH_LINES], note))
        return found

    def shared(self, bug: str) -> list[str]:
        """Names of the patches that both kernels have: hooks of the tests, and test beds."""
        both = [name for name in self._series["before"] if name in self._series["after"]]
        return [name for name in both if name.partition("/")[0] == bug]

    def wrong(self, bug: str) -> tuple[list[Run], str]:
        """The runs of a bug that did not come out as they must, and how many more there are."""
        found = []
        more = 0
        folder = self.evidence.folder
        for row in self.rows:
            if row.plan["bug"] != bug or (row.control and row.skipped):
                continue
            where = f"{row.plan['suite']} on {row.plan['arch']}"
            for state in ("before", "after"):
                for number, test in enumerate(row.wrong(state)):
                    if number >= _BOOTS:
                        more += 1
                        continue
                    misc = test["misc"]
                    reason = misc["reason"]
                    lines, note = console(folder, test["log_url"], test["log_excerpt"], reason)
                    said = f"{misc['verdict']}: {reason or 'every case passed'}"
                    found.append(Run(f"{where}, {state}, boot {misc['number']}", said, test["log_url"], lines, note))
        return found, f"{more} more boots ended in this way." if more else ""

    def broken(self) -> list[Run]:
        """The kernels that did not build."""
        found = []
        for build in self.evidence.builds:
            if build["status"] != "PASS":
                said = build.get("log_excerpt", "")
                lines, note = console(self.evidence.folder, build.get("log_url", ""), said, said)
                found.append(Run(build["id"], f"no kernel: {said}", build.get("log_url", ""), lines, note))
        return found

    @property
    def versions(self) -> list[tuple[str, str]]:
        """What was used, by name."""
        checkout = self.evidence.checkout
        misc = checkout["misc"]
        found = [
            ("tree", self.title),
            ("base", str(misc.get("base", "not recorded"))),
            ("KUnit", {"own": "the tree's own", "compat": "kmend's small one"}.get(misc.get("kunit", ""), "")),
            ("started", checkout.get("start_time", "")),
            ("seconds", f"{misc.get('seconds', {}).get('total', '')}"),
            ("evidence", str(self.evidence.folder)),
        ]
        for arch in self.arches:
            builds = [build for build in self.evidence.builds if build["architecture"] == arch]
            compilers = dict.fromkeys(build["compiler"] for build in builds if "compiler" in build)
            found.append((f"{arch}: compiler", ", ".join(compilers) or "none"))
            found.append((f"{arch}: QEMU", misc.get("qemu", {}).get(arch, "none")))
            config = inside(self.evidence.folder, f"{arch}/config")
            found.append((f"{arch}: configuration (SHA-256)", digest(config) if config else "none"))
        return [(name, value) for name, value in found if value]

    @property
    def command(self) -> str:
        """The command that ran it."""
        return str(self.evidence.checkout["misc"].get("command", ""))


def _nothing() -> Any:
    import io

    return io.StringIO("")


@dataclass(frozen=True)
class Bug:
    """A bug as it is shown: its id and title, its lines of the matrix, and its timelines."""

    id: str
    title: str
    suites: list[Suite]
    timelines: list[Timeline]


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    sources: list[Source]
    arches: list[str]
    bugs: list[Bug]


def _suites(sources: Sequence[Source], arches: Sequence[str], bug: str) -> list[Suite]:
    cells: dict[tuple[str, str], dict[tuple[str, int], Row]] = {}
    for source in sources:
        for row in source.rows:
            if row.plan["bug"] == bug:
                suite = cells.setdefault((row.plan["suite"], row.plan["kind"]), {})
                suite[row.plan["arch"], source.number] = row
    found = []
    for (name, kind), here in cells.items():
        lines: list[list[Cell | None]] = []
        for arch in arches:
            mine = [(source, here.get((arch, source.number))) for source in sources]
            differs = len({row.word for _, row in mine if row}) > 1
            lines.append([Cell(source, arch, row, differs) if row else None for source, row in mine])
        found.append(Suite(name, kind, lines))
    return found


def page(evidences: Sequence[Evidence]) -> Page:
    """Arrange evidence for the template."""
    sources = [Source(number, evidence) for number, evidence in enumerate(evidences, 1)]
    arches = list(dict.fromkeys(arch for source in sources for arch in source.arches))
    titles = {bug.id: bug.title for bug in manifest.load().bugs}
    bugs = [
        Bug(bug, titles.get(bug, ""), _suites(sources, arches, bug), timeline.load(bug))
        for bug in dict.fromkeys(bug for source in sources for bug in source.bugs)
    ]
    return Page(sources, arches, bugs)


def _template(name: str) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SCRIPTS / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever is shown goes through here before it is escaped; what the template made itself is no str.
        finalize=lambda value: visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
    )
    environment.globals |= {"marks": _MARKS, "tones": _STATUS_TONES}
    return environment.get_template(name)


def figure(line: Timeline) -> str:
    """Return a timeline as HTML: drawn, and as text."""
    return str(_template("timeline.html.j2").module.figure(line))


def render(evidences: Sequence[Evidence]) -> str:
    """Return the page as HTML."""
    text: str = _template("report.html.j2").render(page=page(evidences))
    return text
