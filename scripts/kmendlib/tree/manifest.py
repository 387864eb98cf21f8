# SPDX-License-Identifier: GPL-2.0-only
"""The manifest patches/bugs.toml: what is known about each bug.

Patch names are relative to patches/, sources of a suite to kunit/, files of a
selftest to selftests/.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmendlib.host.errors import BadInput

REPO = Path(__file__).resolve().parents[3]
PATCHES = REPO / "patches"
KUNIT = REPO / "kunit"
SELFTESTS = REPO / "selftests"
RULES = REPO / "scripts" / "audit"
MANIFEST = PATCHES / "bugs.toml"

QEMU_CONFIGS = KUNIT / "qemu_configs"

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSION = re.compile(r"v[0-9]+(\.[0-9]+)+")


@dataclass(frozen=True)
class Upstream:
    """A mainline commit: its full id, its subject, what it did, and the first release that has it, if known."""

    commit: str
    subject: str
    role: str  # "fix" or "cause"
    version: str = ""  # as in "v5.9-rc1"


@dataclass(frozen=True)
class Finding:
    """One fault of a bug.

    id: "BUG/NAME".
    title: what is wrong, in a few words.
    rule: the semantic patch that judges it.
    files: the files that the rule judges, relative to the tree; without a known code shape one is unknown.
    context: files that it reads as well, where they are there: a shape that one of them lacks is no matter.
    symbol: a name; a use of it in `files` that the rule did not judge leaves
        the finding unknown. Empty if there is no such name.
    fix: the variants of its fix, newest code shape first; each is one patch or several, in order, or "series/BASE",
        which stands for the bug's patches in that series. Findings may share patches.
    unverified: those of its patches with hunks for files that nobody here could read: inferred from their use. A
        variant is tried without them, too.
    reintroduce: the variants of the patch that puts the fault back.
    forced: the suite makes it happen where nothing else can: it is red where the audit says latent, too.
    """

    id: str
    title: str
    rule: Path
    files: tuple[str, ...]
    context: tuple[str, ...]
    symbol: str
    fix: tuple[tuple[str, ...], ...]
    unverified: tuple[str, ...]
    reintroduce: tuple[str, ...]
    forced: bool

    @property
    def variants(self) -> tuple[tuple[str, ...], ...]:
        """The variants as they are tried: where one does not fit, it is tried without what is unverified."""
        found = []
        for variant in self.fix:
            found += [variant, tuple(name for name in variant if name not in self.unverified)]
        return tuple(dict.fromkeys(each for each in found if each))

    @property
    def fix_patches(self) -> tuple[str, ...]:
        """The patches of all variants, each once."""
        return tuple(dict.fromkeys(name for variant in self.fix for name in variant))

    @property
    def reintroduce_paths(self) -> tuple[Path, ...]:
        return tuple(PATCHES / name for name in self.reintroduce)


@dataclass(frozen=True)
class Guest:
    """What the guest of a suite or kselftest needs beyond the architecture's own.

    cpus: numbers of CPUs; it is booted with each, a control with the first.
    memory: in MiB.
    machine: the values of a further QEMU -machine option, by architecture.
    modules: kernel modules that the guest finds in /lib/modules, by architecture; those that they need come along.
    """

    cpus: tuple[int, ...]
    memory: int
    machine: dict[str, str]
    modules: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Suite:
    """A KUnit suite.

    name: as KTAP prints it.
    sources: paths under kunit/, which are those in the tree as well.
    kunitconfig: its path.
    hooks: the variants of the patch that builds it into the tree.
    proof: by the finding's id, the cases that must be red on before and green on after.
    module: the module that it is built into; empty if it is in the kernel itself.
    guest: what its boots need.
    """

    name: str
    sources: tuple[str, ...]
    kunitconfig: Path
    hooks: tuple[str, ...]
    proof: dict[str, tuple[str, ...]]
    module: str
    guest: Guest

    @property
    def hook_paths(self) -> tuple[Path, ...]:
        return tuple(PATCHES / name for name in self.hooks)


@dataclass(frozen=True)
class Selftest:
    """A kselftest.

    collection, name: as in "pci:cfg_reset".
    sources: paths under selftests/, which is tools/testing/selftests.
    config: the path of its configuration fragment.
    qemu: the arguments of one QEMU -device option each.
    proof: as for a suite; empty where the real path loses the race by luck alone.
    arches: those of the bug's architectures where it can run; empty for all.
    controls: others where it must be green as well, or say why it is skipped.
    seconds: how long it puts on load.
    limit: wall time of a boot in seconds.
    guest: what its boots need.
    """

    collection: str
    name: str
    sources: tuple[str, ...]
    config: Path
    qemu: tuple[str, ...]
    proof: dict[str, tuple[str, ...]]
    arches: tuple[str, ...]
    controls: tuple[str, ...]
    seconds: int
    limit: int
    guest: Guest

    @property
    def id(self) -> str:
        return f"{self.collection}:{self.name}"


@dataclass(frozen=True)
class Bug:
    """A bug.

    versions: the mainline releases that had its code shape.
    testbed: the variants of a patch that brings code which a tree lacks, so that the bug can be shown there.
    needs: what a tree must have for an architecture, so that the bug can be shown there; `{arch}` is its folder's name.
    """

    id: str
    title: str
    files: tuple[str, ...]
    upstream: tuple[Upstream, ...]
    versions: tuple[str, str]
    arches: tuple[str, ...]
    findings: tuple[Finding, ...]
    suites: tuple[Suite, ...]
    selftests: tuple[Selftest, ...]
    testbed: tuple[str, ...]
    needs: str

    @property
    def patches(self) -> tuple[str, ...]:
        """Every patch named, each once."""
        found = [*self.testbed]
        for finding in self.findings:
            found += [*finding.fix_patches, *finding.reintroduce]
        for suite in self.suites:
            found += suite.hooks
        return tuple(dict.fromkeys(found))

    @property
    def since(self) -> str:
        """The first release that had the code shape, as in "v3.4"."""
        return self.versions[0]


@dataclass(frozen=True)
class Manifest:
    """All bugs, in the order in which their fixes are applied."""

    bugs: tuple[Bug, ...]

    def bug(self, id: str) -> Bug:
        """Return the bug called `id`; BadInput names the known ones."""
        for bug in self.bugs:
            if bug.id == id:
                return bug
        known = ", ".join(bug.id for bug in self.bugs)
        raise BadInput(f"no bug is called {id!r}; known: {known}")

    def select(self, ids: tuple[str, ...] | list[str]) -> tuple[Bug, ...]:
        """Return the bugs called `ids` in manifest order, or all if empty.

        The id of a finding, BUG/NAME, stands for the bug with that finding alone.
        """
        chosen = []
        for id in ids:
            bug = self.bug(id.partition("/")[0])
            known = [finding.id for finding in bug.findings]
            if "/" in id and id not in known:
                raise BadInput(f"no finding is called {id!r}; known: {', '.join(known)}")
        for bug in self.bugs:
            findings = tuple(each for each in bug.findings if not ids or {bug.id, each.id} & set(ids))
            if findings:
                chosen.append(replace(bug, findings=findings))
        return tuple(chosen)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that a bug is about, each once."""
        return tuple(dict.fromkeys(name for bug in self.bugs for name in bug.files))

    @property
    def patches(self) -> tuple[str, ...]:
        """Every patch named, each once."""
        return tuple(dict.fromkeys(name for bug in self.bugs for name in bug.patches))


class _Table:
    """A TOML table that is read key by key and must then be used up."""

    def __init__(self, source: Path, where: str, table: Any) -> None:
        self.source, self.where = source, where
        if not isinstance(table, dict):
            self.fail("must be a table")
        self.table: dict[str, Any] = dict(table)

    def fail(self, what: str) -> None:
        raise BadInput(f"{self.source}: {self.where}: {what}")

    def _take(self, key: str, default: Any) -> Any:
        if key not in self.table and default is None:
            self.fail(f"key {key!r} is missing")
        return self.table.pop(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str) or (not value and default is None):
            self.fail(f"key {key!r} must be a string that is not empty")
        return str(value)

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self._take(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item for item in value):
            self.fail(f"key {key!r} must be a list of strings")
        if not value and default is None:
            self.fail(f"key {key!r} must not be empty")
        return tuple(value)

    def paths(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        names = self.texts(key, default)
        for name in names:
            if name.startswith("/") or ".." in Path(name).parts:
                self.fail(f"key {key!r}: {name!r} leaves its folder")
        return names

    def variants(self, key: str, bug: str) -> tuple[tuple[str, ...], ...]:
        value = self._take(key, None)
        if not isinstance(value, list) or not value:
            self.fail(f"key {key!r} must be a list that is not empty")
        found = []
        for item in value:
            self.table[key] = [item] if isinstance(item, str) else item
            names = self.paths(key)
            if len(names) == 1 and names[0].startswith("series/"):
                names = tuple(name for name in self.series(names[0]) if name.startswith(f"{bug}/"))
            found.append(names)
        return tuple(found)

    def series(self, name: str) -> list[str]:
        try:
            lines = (PATCHES / name).read_text().splitlines()
        except OSError as error:
            self.fail(f"{name}: {error.strerror}")
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def flag(self, key: str) -> bool:
        value = self._take(key, False)
        if not isinstance(value, bool):
            self.fail(f"key {key!r} must be true or false")
        return bool(value)

    def number(self, key: str, default: int) -> int:
        value = self._take(key, default)
        if type(value) is not int or value < 1:
            self.fail(f"key {key!r} must be a number, 1 or more")
        return int(value)

    def numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self._take(key, default)
        if not isinstance(value, (list, tuple)) or not value or any(type(n) is not int or n < 1 for n in value):
            self.fail(f"key {key!r} must be a list of numbers, each 1 or more")
        return tuple(value)

    def arches(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        names = self.texts(key, default)
        strange = sorted(name for name in set(names) if not (QEMU_CONFIGS / f"{name}.py").exists())
        if strange:
            self.fail(f"key {key!r}: unknown architecture: {', '.join(strange)}")
        return names

    def table_of(self, key: str) -> _Table:
        return _Table(self.source, f"{self.where}: {key}", self._take(key, {}))

    def by_arch(self, key: str) -> _Table:
        table = self.table_of(key)
        strange = sorted(name for name in table.table if not (QEMU_CONFIGS / f"{name}.py").exists())
        if strange:
            table.fail(f"unknown architecture: {', '.join(strange)}")
        return table

    def tables(self, key: str, default: list[Any] | None = None) -> list[_Table]:
        value = self._take(key, default)
        if not isinstance(value, list):
            self.fail(f"key {key!r} must be a list of tables")
        return [_Table(self.source, f"{self.where}.{key}[{n}]", item) for n, item in enumerate(value)]

    def done(self) -> None:
        if self.table:
            self.fail("unknown key: " + ", ".join(sorted(self.table)))


def load(path: str | Path = MANIFEST, check_files: bool = True) -> Manifest:
    """Read the manifest at `path` and check it.

    check_files: also check that every file which it names is there.

    Raises BadInput that says where the manifest is wrong.
    """
    source = Path(path)
    try:
        with source.open("rb") as stream:
            data = tomllib.load(stream)
    except OSError as error:
        raise BadInput(f"{source}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{source}: not TOML: {error}") from error
    top = _Table(source, "top", data)
    bugs = tuple(_bug(table, check_files) for table in top.tables("bug"))
    top.done()
    if not bugs:
        top.fail("no bug in it")
    for what, names in (
        ("bug", [bug.id for bug in bugs]),
        ("finding", [finding.id for bug in bugs for finding in bug.findings]),
        ("suite", [suite.name for bug in bugs for suite in bug.suites]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            top.fail(f"{what} twice: {', '.join(twice)}")
    return Manifest(bugs)


def _bug(table: _Table, check_files: bool) -> Bug:
    id = table.text("id")
    table.where = f"bug {id}"
    if not _ID.fullmatch(id):
        table.fail("id must be lower case words joined by '-'")
    files = table.paths("files")
    versions = table.texts("versions")
    if len(versions) != 2 or not all(_VERSION.fullmatch(v) for v in versions):
        table.fail('versions must be the first and the last one, as ["v3.4", "v5.8"]')
    arches = table.arches("arches")
    bug = Bug(
        id=id,
        title=table.text("title"),
        files=files,
        upstream=tuple(_upstream(item) for item in table.tables("upstream", [])),
        versions=(versions[0], versions[1]),
        arches=arches,
        findings=tuple(_finding(item, id, files, check_files) for item in table.tables("finding")),
        suites=tuple(_suite(item, id, check_files) for item in table.tables("suite", [])),
        selftests=tuple(_selftest(item, id, check_files) for item in table.tables("selftest", [])),
        testbed=table.paths("testbed", ()),
        needs=table.text("needs", ""),
    )
    if not bug.findings:
        table.fail("no finding in it")
    ids = {finding.id for finding in bug.findings}
    for proof in [suite.proof for suite in bug.suites] + [test.proof for test in bug.selftests]:
        if not set(proof) <= ids:
            table.fail(f"proof of {', '.join(sorted(set(proof) - ids))}, which is no finding of this bug")
    table.done()
    _check(table, check_files, [PATCHES / name for name in bug.testbed])
    return bug


def _upstream(table: _Table) -> Upstream:
    upstream = Upstream(table.text("commit"), table.text("subject"), table.text("role"), table.text("version", ""))
    if not _COMMIT.fullmatch(upstream.commit):
        table.fail("commit must be a full id of 40 digits")
    if upstream.role not in ("fix", "cause"):
        table.fail('role must be "fix" or "cause"')
    table.done()
    return upstream


def _finding(table: _Table, bug: str, files: tuple[str, ...], check_files: bool) -> Finding:
    id = table.text("id")
    table.where = f"finding {id}"
    if not id.startswith(bug + "/") or not _ID.fullmatch(id.removeprefix(bug + "/")):
        table.fail(f"id must be {bug}/NAME")
    finding = Finding(
        id=id,
        title=table.text("title"),
        rule=RULES / table.text("rule", f"{bug}.cocci"),
        files=table.paths("files", files),
        context=table.paths("context", ()),
        symbol=table.text("symbol", ""),
        fix=table.variants("fix", bug),
        unverified=table.paths("unverified", ()),
        reintroduce=table.paths("reintroduce", ()),
        forced=table.flag("forced"),
    )
    table.done()
    _check(table, check_files, [finding.rule])
    strange = set(finding.unverified) - set(finding.fix_patches)
    if strange:
        table.fail(f"unverified: {', '.join(sorted(strange))}: no patch of its fix")
    _check(table, check_files, [PATCHES / name for name in finding.fix_patches])
    _check(table, check_files, finding.reintroduce_paths)
    return finding


def _guest(table: _Table) -> Guest:
    machine, modules = table.by_arch("machine"), table.by_arch("modules")
    return Guest(
        cpus=table.numbers("cpus", (2,)),
        memory=table.number("memory", 1024),
        machine={arch: machine.text(arch) for arch in tuple(machine.table)},
        modules={arch: modules.texts(arch) for arch in tuple(modules.table)},
    )


def _proof(table: _Table, bug: str) -> dict[str, tuple[str, ...]]:
    proof = table.table_of("proof")
    return {f"{bug}/{name}": proof.texts(name) for name in tuple(proof.table)}


def _suite(table: _Table, bug: str, check_files: bool) -> Suite:
    name = table.text("name")
    table.where = f"suite {name}"
    suite = Suite(
        name=name,
        sources=table.paths("sources"),
        kunitconfig=KUNIT / table.text("kunitconfig"),
        hooks=table.paths("hooks"),
        proof=_proof(table, bug),
        module=table.text("module", ""),
        guest=_guest(table),
    )
    table.done()
    _check(table, check_files, [KUNIT / source for source in suite.sources])
    _check(table, check_files, [suite.kunitconfig])
    _check(table, check_files, suite.hook_paths)
    return suite


def _selftest(table: _Table, bug: str, check_files: bool) -> Selftest:
    collection, name = table.text("collection"), table.text("name")
    table.where = f"selftest {collection}:{name}"
    selftest = Selftest(
        collection=collection,
        name=name,
        sources=table.paths("sources"),
        config=SELFTESTS / table.text("config"),
        qemu=table.texts("qemu", ()),
        proof=_proof(table, bug),
        arches=table.arches("arches", ()),
        controls=table.arches("controls", ()),
        seconds=table.number("seconds", 5),
        limit=table.number("limit", 180),
        guest=_guest(table),
    )
    table.done()
    _check(table, check_files, [SELFTESTS / source for source in selftest.sources])
    _check(table, check_files, [selftest.config])
    return selftest


def _check(table: _Table, check_files: bool, paths: Any) -> None:
    for path in paths if check_files else ():
        if not path.is_file():
            table.fail(f"{path.relative_to(REPO)} is not there")
