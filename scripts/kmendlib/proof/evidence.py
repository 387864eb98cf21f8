# SPDX-License-Identifier: GPL-2.0-only
"""The evidence of a run: a folder of plain files, from which everything shown is rendered.

    results.json                   what was built and run, in the names of KernelCI's KCIDB schema v5.3
    audit.json                     what the audit said of the tree
    patches/STATE/series, *.patch  the patches that made each state
    ARCH/config, ARCH/build.log    the configuration, and make's output
    ARCH/STATE-SUITE-N.log         the console of boot N
    SHA256SUMS                     the digest of each of these, written when the run has ended

The page and what is made for other programs lies beside them: see page.py and formats.py; what a farm boots is in
lava/: see lava.py.
"""

import datetime
import itertools
import json
import os
import re
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kmendlib.host import files
from kmendlib.host.errors import BadInput
from kmendlib.host.files import digest
from kmendlib.host.paths import SCRIPTS, cache
from kmendlib.host.words import Verdict
from kmendlib.run import FORMAT, KCIDB_STATUS, VERSION, BootResult, Build, Run, key

RESULTS = "results.json"
AUDIT = "audit.json"
SEAL = "SHA256SUMS"
_LAST = re.compile(
    rb"(?:reboot: (?:Power down|Restarting system|System halted)|Kernel panic - not syncing)[^\n]*(?:\n|$)"
)
# Lines of source that are kept above and below each that the audit names.
AROUND = 4


def now() -> str:
    """Return the time in the form that KCIDB asks for (RFC 3339)."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def new_folder(out: Path | None) -> Path:
    """Make the folder for a run's evidence.

    Args:
        out: what the user asked for; by default a folder named after the time, in the cache.

    Raises:
        BadInput: the folder has something in it already, or cannot be made.
    """
    if out is None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        out = cache() / "evidence" / stamp
        number = 1
        while out.exists():
            number += 1
            out = out.with_name(f"{stamp}-{number}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise BadInput(f"{out} is not empty: name a new folder with --out")
        if not os.access(out, os.W_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise BadInput(f"cannot make the evidence folder {out}: {error.strerror}: name another with --out") from None
    return out


@dataclass
class Evidence:
    """A run and its folder; collects results and writes them down, from any thread.

    Attributes:
        folder: where the files are.
        run: the run as far as it is known.
    """

    folder: Path
    run: Run
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> "Evidence":
        """Read a run's evidence; whether it is as the run left it is in `run.distrust`.

        Raises:
            BadInput: it is no evidence folder, its results.json is damaged, or it is from a newer kmend.
        """
        try:
            data = json.loads(files.read_text(folder / RESULTS))
        except (FileNotFoundError, NotADirectoryError):
            raise BadInput(f"{folder} is no evidence folder: it has no {RESULTS}") from None
        except OSError as error:
            raise BadInput(f"{folder / RESULTS} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{folder / RESULTS} is damaged ({str(error)[:100]}): run kmend verify again") from None
        if newer := _newer(data):
            raise BadInput(f"{folder} is from a newer kmend ({newer}): show it with that one")
        if wrong := problem(data, "results"):
            raise BadInput(f"{folder / RESULTS} is damaged ({wrong}): run kmend verify again")
        return cls(folder, replace(Run.from_kcidb(data), distrust=_distrust(folder, data)))

    @cached_property
    def audit(self) -> dict[str, Any] | None:
        """What the audit said, or None where that is missing or damaged."""
        try:
            data: dict[str, Any] = json.loads(files.read_text(self.folder / AUDIT))
        except (OSError, ValueError, RecursionError):
            return None
        return None if problem(data, "audit") else data

    def update(self, **changes: Any) -> None:
        """Change what is known of the run; the names are those of `Run`."""
        with self._lock:
            self.run = replace(self.run, **changes)
            self.write()

    def add(self, record: Build | BootResult) -> None:
        """Record a kernel or what came of a boot."""
        with self._lock:
            if isinstance(record, Build):
                self.update(builds=(*self.run.builds, record))
            else:
                self.update(results=(*self.run.results, record))

    def add_patches(self, state: str, patches: Sequence[Path]) -> None:
        """Keep the patches of a state, and their order."""
        folder = self.folder / "patches" / state
        folder.mkdir(parents=True, exist_ok=True)
        for patch in patches:
            (folder / patch.parent.name).mkdir(exist_ok=True)
            shutil.copyfile(patch, folder / patch.parent.name / patch.name)
        files.write({folder / "series": "".join(f"{patch.parent.name}/{patch.name}\n" for patch in patches)})

    def add_audit(self, said: dict[str, Any], tree: Path) -> None:
        """Keep what the audit said of a tree, with the lines of source around each place that it names."""
        for bug in said["bugs"]:
            for finding in bug["findings"]:
                for place in finding["evidence"]:
                    source = _source(tree / place["file"], place["line"])
                    if source:
                        place["source"] = source
        files.write({self.folder / AUDIT: json.dumps(said, indent=1) + "\n"})

    def write(self) -> None:
        """Write results.json; a reader sees the old or the new one, never half of it."""
        with self._lock:
            files.write({self.folder / RESULTS: json.dumps(self.run.to_kcidb(), indent=1) + "\n"})

    def seal(self) -> None:
        """Say that the run has ended: write down each file's digest, in the form of sha256sum(1).

        Who changes a file and its digest is not found out: this is against mistakes, not against forgers.
        """
        with self._lock:
            self.write()
            lines = [f"{digest(self.folder / name)}  {name}\n" for name in _sealed(self.folder)]
            files.write({self.folder / SEAL: "".join(lines)})


def _sealed(folder: Path) -> list[str]:
    """Return the files that a seal is for: a page may be made again, and a farm's files may go."""
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        name.as_posix()
        for name in names
        if (name.name in (RESULTS, AUDIT) if len(name.parts) == 1 else name.parts[0] != "lava")
    ]


def compare(folder: Path, run: Run) -> tuple[str, ...]:
    """Say in lines whether consoles are as they were when the same was booted before.

    Args:
        folder: the run's; the earlier ones are beside it, and in the cache.
        run: the run.
    """
    found: dict[str, tuple[str, Path, str]] = {}
    places = (folder.resolve().parent, cache() / "evidence")
    folders = {path for place in places for path in place.glob(f"*/{RESULTS}")}
    # What was made last counts.
    for path in sorted(folders - {folder.resolve() / RESULTS}, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            tests = json.loads(files.read_text(path))["tests"]
            for test in tests:
                inputs, printed = (test["misc"].get(name, "") for name in ("inputs", "printed"))
                if inputs:
                    found.setdefault(inputs, (test["start_time"], path.parent / test["log_url"], printed))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
    again = [(result, *found[result.inputs]) for result in run.results if result.inputs in found]
    other = [each for each in again if each[0].printed != each[3]]
    lines = [
        f"{result.ending.console}: not as on {date}: {_difference(folder / result.ending.console, log)}"
        for result, date, log, _ in other
    ]
    if again:
        last = max(date for _, date, _, _ in again)
        same = f"{len(again) - len(other)} of {len(again)}"
        lines.append(f"consoles that are the same, byte for byte, as on {last}: {same} that were booted before")
    return tuple(lines)


def said(console: Path) -> bytes:
    """Return a console up to the guest's last word.

    QEMU ends a guest when its main thread comes to it: what other CPUs print until then is the host's chance.
    """
    text = console.read_bytes()
    last = _LAST.search(text)
    return text[: last.end()] if last else text


def _difference(now: Path, then: Path) -> str:
    """Name the first line in which two consoles differ."""
    try:
        both = [said(path).decode(errors="replace").splitlines() for path in (now, then)]
    except OSError as error:
        return f"{then}: {error.strerror}"
    pairs = enumerate(itertools.zip_longest(*both, fillvalue="the end"), 1)
    number, (new, old) = next(((n, pair) for n, pair in pairs if pair[0] != pair[1]), (0, ("", "")))
    return f"line {number} is '{new[:200]}', and was '{old[:200]}' ({then})" if number else f"{then} was changed"


def _source(path: Path, line: int) -> dict[str, Any] | None:
    if not line:
        return None
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return None
    first = max(line - AROUND, 1)
    return {"first": first, "lines": [text[:200] for text in lines[first - 1 : line + AROUND]]}


def inside(folder: Path, name: str) -> Path | None:
    """Return a file of the folder; None if there is no such file, or it lies elsewhere, whatever its name says."""
    try:
        path = (folder / name).resolve()
        return path if path.is_file() and path.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):
        return None


def problem(data: object, schema: str) -> str:
    """Return in what data breaks one of the schemas in scripts/schemas, or nothing."""
    import jsonschema

    rules = json.loads((SCRIPTS / "schemas" / f"{schema}.json").read_text(encoding="utf-8"))
    found = jsonschema.Draft202012Validator(rules).iter_errors(data)
    worst = jsonschema.exceptions.best_match(found)
    if worst is None:
        return ""
    where = "/".join(map(str, worst.absolute_path)) or "the whole"
    return f"{where}: {str(worst.message)[:200]}"


def _newer(data: object) -> str:
    """Return the version of the evidence if this kmend is too old for it."""
    match data:
        case {"version": {"major": int(major), "minor": int(minor)}} if (major, minor) > VERSION:
            return f"KCIDB {major}.{minor}"
        case {"version": {}, "checkouts": [{"misc": {"format": int(layout)}}, *_]} if layout > FORMAT:
            return f"format {layout}"
    return ""


def _distrust(folder: Path, data: dict[str, Any]) -> str:
    """Return why the folder is not as a run left it, or nothing."""
    if "format" not in data["checkouts"][0]["misc"]:
        return "from an older kmend, which left no digests: nothing of it can be checked"
    try:
        lines = files.read_text(folder / SEAL, errors="replace").splitlines()
    except FileNotFoundError:
        return f"unfinished: the run was cut off, or still goes on (there is no {SEAL})"
    except OSError as error:
        return f"{SEAL} cannot be read: {error.strerror}"
    names = [line.partition("  ")[2] for line in lines]
    changed = []
    for line, name in zip(lines, names, strict=True):
        path = inside(folder, name)
        if path is None:
            changed.append(f"{name} is missing")
        elif digest(path) != line.partition("  ")[0]:
            changed.append(f"{name} is not as the run left it")
    shipped = "shipped" in data["checkouts"][0]["misc"]
    if RESULTS not in names or (AUDIT not in names and not shipped):
        changed.append(f"{SEAL} is not as the run left it")
    changed += [f"{name} is not in {SEAL}" for name in sorted({*_sealed(folder)} - {*names})]
    if changed:
        return f"changed since: {changed[0]}" + (f", and {len(changed) - 1} more" if changed[1:] else "")
    wrong = _contradiction(data, set(names))
    return f"no run leaves this: {wrong}" if wrong else ""


def _contradiction(data: dict[str, Any], there: set[str]) -> str:
    """Return in what the results contradict themselves, their plan or the files that are there, or nothing."""
    (checkout,) = data["checkouts"]
    plans = {key(row): row for row in checkout["misc"]["plan"]}
    if len(plans) < len(checkout["misc"]["plan"]):
        return "a row of the plan is there twice"
    builds = {build["id"]: build for build in data["builds"]}
    if len(builds) < len(data["builds"]):
        return "a build is there twice"
    for name, build in builds.items():
        if build["checkout_id"] != checkout["id"]:
            return f"build {name} is of another checkout"
    boots: set[tuple[object, ...]] = set()
    logs: set[str] = set()
    for test in data["tests"]:
        misc, log = test["misc"], test["log_url"]
        state, number, verdict = misc["state"], misc["number"], misc["verdict"]
        row, build = plans.get(key(misc), {}), builds.get(test["build_id"], {})
        built = build.get("status"), build.get("architecture")
        boot = (*key(misc), state, number)
        right = {
            "was not planned": row and not row["not_run"] and 1 <= number <= row["boots"],
            "is of a kernel with the bug, where there cannot be one": not row.get("control") or state != "before",
            "is there twice": boot not in boots and log not in logs,
            "is of a kernel that was not built": built == ("PASS", misc["arch"]),
            "is of another kernel than it says": test["build_id"] == f"{checkout['id']}-{misc['arch']}-{state}",
            f"has status {test['status']} and verdict {verdict}": test["status"] == KCIDB_STATUS.get(verdict, verdict),
            "has verdict PASS and a case that failed": verdict != Verdict.PASS or "FAIL" not in misc["cases"].values(),
            "has no console": log in there,
        }
        if wrong := next((what for what, holds in right.items() if not holds), ""):
            return f"boot {test['id']} {wrong}"
        boots.add(boot)
        logs.add(log)
    return ""
