# SPDX-License-Identifier: GPL-2.0-only
"""Makes evidence of runs that never were, for the tests of what is shown of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import ACCESS, UNLOCKED, access_c
from kmendlib.host.files import digest
from kmendlib.proof.evidence import Evidence
from kmendlib.run import Build, Run
from kmendlib.tree import manifest

LOGS = Path(__file__).parent / "logs"
PROOF = "pci_cfg_wait_test_queue_still_while_locked"
FIX = "pci-cfg-wait/v3.4-v5.8.patch"
# The line of access_c() that the audit names.
LINE = access_c().split("\n").index("\t__add_wait_queue(&pci_cfg_wait, &wait);") + 1


def plan(bug: str, arch: str, suite: str, kind: str = "kunit", **values: Any) -> dict[str, Any]:
    row = {"bug": bug, "arch": arch, "suite": suite, "kind": kind, "proof": [PROOF], "boots": 1, "not_run": ""}
    return row | values


PLAN = [
    plan("pci-cfg-wait", "x86_64", "pci_cfg_wait"),
    plan("pci-cfg-wait", "arm64", "pci_cfg_wait"),
    plan("pci-cfg-wait", "x86_64", "pci:cfg_reset", "kselftest", proof=[]),
    plan("riscv-kvm-exit", "x86_64", "riscv_kvm_exit", not_run="run it with: kmend verify --arch riscv64"),
]


def said(status: str) -> dict[str, Any]:
    """What the audit says of a made-up tree."""
    place = {"file": ACCESS, "line": LINE, "reason": "__add_wait_queue() without pci_cfg_wait.lock"}
    finding = {"id": "pci-cfg-wait/unlocked-queue", "status": status, "evidence": [place]}
    other = {"id": "riscv-kvm-exit/exit-order", "status": "not-applicable", "evidence": []}
    return {
        "tree": "linux",
        "version": "4.19.90",
        "bugs": [
            {"id": "pci-cfg-wait", "status": status, "findings": [finding], "patches": [FIX]},
            {"id": "riscv-kvm-exit", "status": "not-applicable", "findings": [other], "patches": []},
        ],
    }


def leave(
    folder: Path,
    worse: str = "",
    log: str = "kunit_oops.log",
    reason: str = "",
    comment: str = "/usr/src/linux (4.19.90)",
    plans: list[dict[str, Any]] = PLAN,
    seal: bool = True,
) -> Evidence:
    """Leave evidence as a run does.

    Args:
        folder: the folder; beside it comes the tree.
        worse: the verdict of arm64's boots that are mended.
        log: what these print.
        reason: what is said of them.
        comment: what was verified.
        plans: the rows.
        seal: whether the run came to its end.
    """
    tree = folder.with_name(f"{folder.name}-tree")
    (tree / ACCESS).parent.mkdir(parents=True)
    (tree / ACCESS).write_text(access_c(UNLOCKED), encoding="utf-8")
    folder.mkdir()
    misc = {
        "plan": plans,
        "base": "linux-4.19.y",
        "kunit": "compat",
        "command": "scripts/kmend verify --tree /usr/src/linux --arch x86_64,arm64",
        "qemu": {"x86_64": "QEMU emulator version 10.0.2"},
        "seconds": {"total": 61.5},
    }
    checkout = {"id": "kmend:run", "origin": "kmend", "tree_name": "linux", "comment": comment, "misc": misc}
    checkout["start_time"] = "2026-11-21T16:37:09+00:00"
    builds: dict[str, Build] = {}
    tests: list[dict[str, Any]] = []
    kept = Evidence(folder, Run.from_kcidb({"checkouts": [checkout], "builds": [], "tests": []}))
    kept.add_audit(said("affected"), tree)
    kept.add_patches("before", [])
    kept.add_patches("after", [manifest.PATCHES / FIX])
    for row in plans:
        if row["not_run"]:
            continue
        arch = row["arch"]
        (folder / arch).mkdir(exist_ok=True)
        (folder / arch / "config").write_text("CONFIG_KUNIT=y\n", encoding="utf-8")
        for state in ("before", "after"):
            bad = worse if worse and state == "after" and arch == "arm64" else ""
            verdict = bad or ("FAIL" if state == "before" and row["proof"] else "PASS")
            build = kept.run.build_id(arch, state)
            builds[build] = Build(build, arch, compiler="gcc 12.2.0", config=f"{arch}/config")
            console = f"{arch}/{state}-{re.sub(r'[^a-z_]', '-', row['suite'])}-1.log"
            shutil.copyfile(LOGS / (log if bad else "kunit_pass.log"), folder / console)
            tests.append(
                {
                    "build_id": build,
                    "id": f"{build}-{row['suite']}-1",
                    "origin": "kmend",
                    "path": "kunit.pci_cfg_wait",
                    "status": "FAIL" if verdict == "PANIC" else verdict,
                    "duration": 3.0,
                    "log_url": console,
                    "log_excerpt": "",
                    "misc": {
                        "bug": row["bug"],
                        "arch": arch,
                        "suite": row["suite"],
                        "kind": row["kind"],
                        "state": state,
                        "number": 1,
                        "verdict": verdict,
                        "reason": reason if bad else "",
                        "cases": {PROOF: "PASS" if verdict == "PASS" else "FAIL"},
                        "ktap_seconds": 2.5,
                    },
                }
            )
    data = kept.run.to_kcidb() | {"tests": tests}
    kept.update(results=Run.from_kcidb(data).results, builds=tuple(builds.values()))
    if seal:
        kept.seal()
    return kept


def edit_results(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change results.json and write its new digest down, as somebody does who believes in the digest alone."""
    path, seal = folder / "results.json", folder / "SHA256SUMS"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    lines = [line for line in seal.read_text(encoding="utf-8").splitlines() if not line.endswith("  results.json")]
    seal.write_text("\n".join([*lines, f"{digest(path)}  results.json"]) + "\n", encoding="utf-8")
