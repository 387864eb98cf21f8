# SPDX-License-Identifier: GPL-2.0-only
"""The evidence of a run: a folder of plain files, from which everything shown is rendered.

    results.json                   what was built and run, in the names of KernelCI's KCIDB schema v5.3
    audit.json                     what the audit said of the tree
    patches/STATE/series, *.patch  the patches that made each state
    ARCH/config, ARCH/build.log    the configuration, and make's output
    ARCH/STATE-SUITE-N.log         the console of boot N
"""

import datetime
import json
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kmendlib.errors import BadInput
from kmendlib.guest import Boot
from kmendlib.ktap import Result, Verdict
from kmendlib.paths import cache

RESULTS = "results.json"
ORIGIN = "kmend"

# KCIDB knows no status for a panic or a time-out: both are failures of the code under test.
_KCIDB_STATUS = {Verdict.PANIC: "FAIL", Verdict.TIMEOUT: "FAIL"}


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
    """Collects a run's results and writes them down, from any thread."""

    folder: Path
    checkout: dict[str, Any]
    builds: list[dict[str, Any]] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    def add_patches(self, state: str, patches: Sequence[Path]) -> None:
        """Keep the patches of a state, and their order."""
        folder = self.folder / "patches" / state
        folder.mkdir(parents=True, exist_ok=True)
        for patch in patches:
            (folder / patch.parent.name).mkdir(exist_ok=True)
            shutil.copyfile(patch, folder / patch.parent.name / patch.name)
        (folder / "series").write_text("".join(f"{patch.parent.name}/{patch.name}\n" for patch in patches))

    def add_build(self, arch: str, state: str, status: str, **values: Any) -> str:
        """Record a build and return its id; `status` is PASS or ERROR, `values` are further KCIDB fields."""
        identity = f"{self.checkout['id']}-{arch}-{state}"
        row = {
            "checkout_id": self.checkout["id"],
            "id": identity,
            "origin": ORIGIN,
            "architecture": arch,
            "status": status,
            **values,
        }
        with self._lock:
            self.builds.append(row)
            self.write()
        return identity

    def add_test(self, build: str, path: str, number: int, start: str, boot: Boot, result: Result, **misc: Any) -> None:
        """Record one boot.

        Args:
            build: id of the build that was booted.
            path: ``kunit.SUITE`` or ``kselftest.COLLECTION.NAME``.
            number: which of the repeated boots it was, from 1.
            start: when it began, as `now` gives it.
            boot: the boot.
            result: its verdict.
            misc: kmend's own: bug, arch, suite, kind and state.
        """
        row = {
            "build_id": build,
            "id": f"{build}-{path}-{number}",
            "origin": ORIGIN,
            "path": path,
            "status": _KCIDB_STATUS.get(result.verdict, str(result.verdict)),
            "start_time": start,
            "duration": round(boot.seconds, 3),
            "log_url": str(boot.console.relative_to(self.folder)),
            "log_excerpt": "\n".join(result.tail) if result.verdict is not Verdict.PASS else "",
            "misc": {
                **misc,
                "number": number,
                "verdict": str(result.verdict),
                "reason": result.reason,
                "cases": result.cases,
                "ktap_seconds": None if boot.ktap_seconds is None else round(boot.ktap_seconds, 3),
                "command": boot.command,
                "qemu_stderr": boot.stderr,
            },
        }
        with self._lock:
            self.tests.append(row)
            self.write()

    def write(self) -> None:
        """Write results.json; a reader sees the old or the new one, never half of it."""
        data = {
            "version": {"major": 5, "minor": 3},
            "checkouts": [self.checkout],
            "builds": self.builds,
            "tests": self.tests,
        }
        with self._lock:
            new = self.folder / f"{RESULTS}.new"
            new.write_text(json.dumps(data, indent=1) + "\n")
            new.replace(self.folder / RESULTS)


def load(folder: Path) -> Evidence:
    """Read a run's evidence.

    Raises:
        BadInput: it is no evidence folder, or its results.json is damaged.
    """
    try:
        data = json.loads((folder / RESULTS).read_text())
        (checkout,) = data["checkouts"]
        evidence = Evidence(folder, checkout, data["builds"], data["tests"])
        for row in checkout["misc"]["plan"]:
            row["bug"], row["arch"], row["suite"], row["kind"], row["proof"], row["not_run"]
        for test in evidence.tests:
            Verdict(test["misc"]["verdict"]), test["misc"]["cases"], test["misc"]["state"], test["duration"]
    except FileNotFoundError:
        raise BadInput(f"{folder} is no evidence folder: it has no {RESULTS}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder / RESULTS} is damaged ({error!r}): run kmend verify again") from None
    return evidence
