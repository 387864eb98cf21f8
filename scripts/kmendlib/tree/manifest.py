# SPDX-License-Identifier: GPL-2.0-only
"""The manifest patches/bugs.toml: what is known about each bug.

Patch names are relative to patches/, sources of a suite to kunit/, files of a
selftest to selftests/.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from kmendlib.host.errors import BadInput

REPO = Path(__file__).resolve().parents[3]
PATCHES = REPO / "patches"
KUNIT = REPO / "kunit"
SELFTESTS = REPO / "selftests"
RULES = REPO / "scripts" / "audit"
MANIFEST = PATCHES / "bugs.toml"

QEMU_CONFIGS = KUNIT / "qemu_configs"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[dict[str, Any]]:
    """Give what a data file holds, its lists as tuples.

    `scripts/schemas/data.json` says what may be in one, and the unit tests hold all of them to it.

    Raises:
        BadInput: it cannot be read, or whoever reads it cannot go on: one line with the file's name.
    """
    try:
        yield {key: _frozen(value) for key, value in tomllib.loads(path.read_text(encoding="utf-8")).items()}
    except OSError as error:
        raise BadInput(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not TOML: {error}") from error
    except KeyError as error:
        raise BadInput(f"{path}: key {error} is missing") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        said = re.sub(r"^_?(\w+)(\.__init__)?\(\)", r"\1:", str(error))
        raise BadInput(f"{path}: {said}") from error


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(each) for key, each in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Upstream:
    """A mainline commit: its id, its subject, what it did, and the first release that has it, if known.

    The id of a cause is as long as whoever names it has it, 12 digits at least; that of a fix is whole.

    Author and trailers are the commit's own, word by word; empty where nobody here could read them.
    """

    commit: str
    subject: str
    role: str  # "fix" or "cause"
    version: str = ""  # as in "v5.9-rc1"
    author: str = ""  # "Name <address>"
    trailers: tuple[str, ...] = ()
    cve: str = ""


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
    depends: by the name of one of its patches, what a tree must have where that fits, or it does not compile:
        "FILE: WORD".
    unverified: those of its patches with hunks for files that nobody here could read: inferred from their use.
    reintroduce: the variants of the patch that puts the fault back.
    forced: the suite makes it happen where nothing else can: it is red where the audit says latent, too.
    reported: functions that the console names where it dies as the reported machine did.
    """

    id: str
    title: str
    rule: Path
    files: tuple[str, ...]
    fix: tuple[tuple[str, ...], ...]
    context: tuple[str, ...] = ()
    symbol: str = ""
    depends: dict[str, str] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()
    reintroduce: tuple[str, ...] = ()
    forced: bool = False
    reported: tuple[str, ...] = ()

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
    loads: modules that init loads first, where a kernel that was shipped has them as such.
    parameters: further words of the kernel's command line.
    """

    cpus: tuple[int, ...] = (2,)
    memory: int = 1024
    machine: dict[str, str] = field(default_factory=dict)
    modules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    loads: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


# Keys of a suite or kselftest that have something for each finding.
_BY_FINDING = {"proof", "hits", "also"}


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
    guest: Guest
    proof: dict[str, tuple[str, ...]] = field(default_factory=dict)
    module: str = ""
    # What a kselftest has besides.
    kind: ClassVar[str] = "kunit"
    races: ClassVar[tuple[str, ...]] = ()
    arches: ClassVar[tuple[str, ...]] = ()
    controls: ClassVar[tuple[str, ...]] = ()
    qemu: ClassVar[tuple[str, ...]] = ()
    # Measured boots take 2 to 20.
    limit: ClassVar[int] = 120

    @property
    def id(self) -> str:
        return self.name

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the kernel's command line that make it run."""
        return f"kunit.filter_glob={self.name}", "kunit.enable=1"

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
    races: ids of the findings whose races are forced while it runs.
    hits: by the finding's id, cases that fail for that fault alone, but where it is may pass by luck.
    also: by the finding's id, cases that prove it as well, where those of `proof` cannot run.
    seconds: how long it puts on load.
    limit: seconds of the guest's clock that a boot may take.
    guest: what its boots need.
    """

    collection: str
    name: str
    sources: tuple[str, ...]
    config: Path
    guest: Guest
    proof: dict[str, tuple[str, ...]] = field(default_factory=dict)
    qemu: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    races: tuple[str, ...] = ()
    hits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    also: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seconds: int = 5
    limit: int = 180
    kind: ClassVar[str] = "kselftest"
    module: ClassVar[str] = ""

    @property
    def id(self) -> str:
        return f"{self.collection}:{self.name}"

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the kernel's command line that make it run."""
        # No suite has this name: one in a module would print its plan into this one's whenever it is loaded.
        no_suite = ("kunit.enable=0", "kunit.filter_glob=none")
        return *no_suite, "printk.devkmsg=on", f"kmend.selftests={self.id}", f"kmend.seconds={self.seconds}"


Test = Suite | Selftest


@dataclass(frozen=True)
class Bug:
    """A bug.

    versions: the mainline releases that had its code shape.
    testbed: the variants of a patch that brings code which a tree lacks, so that the bug can be shown there.
    needs: what a tree must have for an architecture, so that the bug can be shown there; `{arch}` is its folder's name.
    options: what a kernel that has its code sets, each.
    symbols: functions of which a kernel with its code has one, where not every kernel with those options has it.
    built_from: folders whose files make compiles from another folder alone, and that one; `{arch}` likewise.
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
    testbed: tuple[str, ...] = ()
    needs: str = ""
    options: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    built_from: dict[str, str] = field(default_factory=dict)

    @property
    def tests(self) -> tuple[Test, ...]:
        """All that runs in a guest."""
        return *self.suites, *self.selftests

    @property
    def patches(self) -> tuple[str, ...]:
        """Every patch named, each once."""
        fixes = (name for finding in self.findings for name in (*finding.fix_patches, *finding.reintroduce))
        return tuple(dict.fromkeys([*self.testbed, *fixes, *(name for suite in self.suites for name in suite.hooks)]))


@dataclass(frozen=True)
class Manifest:
    """All bugs, in the order in which their fixes are applied."""

    bugs: tuple[Bug, ...]

    def bug(self, id: str) -> Bug:
        """Return the bug called `id`; BadInput names the known ones."""
        known = {bug.id: bug for bug in self.bugs}
        if id not in known:
            raise BadInput(f"no bug is called {id!r}; known: {', '.join(known)}")
        return known[id]

    def select(self, ids: tuple[str, ...] | list[str]) -> tuple[Bug, ...]:
        """Return the bugs called `ids` in manifest order, or all if empty.

        The id of a finding, BUG/NAME, stands for the bug with that finding alone.
        """
        for id in ids:
            known = [finding.id for finding in self.bug(id.partition("/")[0]).findings]
            if "/" in id and id not in known:
                raise BadInput(f"no finding is called {id!r}; known: {', '.join(known)}")
        chosen = (
            replace(bug, findings=tuple(each for each in bug.findings if not ids or {bug.id, each.id} & set(ids)))
            for bug in self.bugs
        )
        return tuple(bug for bug in chosen if bug.findings)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that a bug is about, each once."""
        return tuple(dict.fromkeys(name for bug in self.bugs for name in bug.files))


def load(path: str | Path = MANIFEST) -> Manifest:
    """Read the manifest at `path`; raise BadInput where it is wrong."""
    with reading(Path(path)) as top:
        return Manifest(tuple(_bug(**table) for table in top["bug"]))


def _bug(*, finding: Any, upstream: Any = (), suite: Any = (), selftest: Any = (), **more: Any) -> Bug:
    bug, files = more["id"], more["files"]
    return Bug(
        upstream=tuple(Upstream(**table) for table in upstream),
        findings=tuple(_finding(bug, **{"files": files} | table) for table in finding),
        suites=tuple(Suite(**_in_guest(bug, table, KUNIT, "kunitconfig")) for table in suite),
        selftests=tuple(Selftest(**_in_guest(bug, table, SELFTESTS, "config")) for table in selftest),
        **more,
    )


def _finding(bug: str, *, fix: tuple[str | tuple[str, ...], ...], **more: Any) -> Finding:
    more["rule"] = RULES / more.get("rule", f"{bug}.cocci")
    return Finding(fix=tuple(_variant(bug, names) for names in fix), **more)


def _variant(bug: str, names: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return a variant's patches: one, several, or the bug's own of a series."""
    if not isinstance(names, str):
        return names
    if not names.startswith("series/"):
        return (names,)
    lines = map(str.strip, (PATCHES / names).read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line.startswith(f"{bug}/"))


def _in_guest(bug: str, table: dict[str, Any], folder: Path, config: str) -> dict[str, Any]:
    """Return the table of what runs in a guest as its class has it; `config` is the key of its configuration."""
    guest = {each.name: table[each.name] for each in fields(Guest) if each.name in table}
    # A finding is named without its bug there.
    named: dict[str, Any] = {
        key: {f"{bug}/{name}": cases for name, cases in table[key].items()} for key in _BY_FINDING & table.keys()
    }
    races = tuple(f"{bug}/{name}" for name in table.get("races", ()))
    named |= {"races": races} if races else {}
    rest = {key: value for key, value in table.items() if key not in guest}
    return rest | named | {config: folder / table[config], "guest": Guest(**guest)}
