# SPDX-License-Identifier: GPL-2.0-only
"""The scripts beside kmend that measure it: each runs, and what it counts, or compares, is what it says."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import ACCESS, UNLOCKED, WAIT_EVENT, MakeTree, access_c, tree_hash
from kmendlib.host.paths import SCRIPTS
from kmendlib.tree import arches, manifest

BACK = "pci-cfg-wait/reintroduce-v5.9-v7.x.patch"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=120, check=False)


def test_audit_table(make_tree: MakeTree, tmp_path: Path) -> None:
    """Of a tree that somebody has read every verdict is counted once by finding and once by what was done."""
    make_tree(version="4.19.90", name="trees/4.19.90")
    make_tree(version="6.0.1", name="trees/nobody-has-read-it")
    log = tmp_path / "log"
    done = run(SCRIPTS / "audit-table", tmp_path / "trees", "--share", "9", "--log", log)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {line[0] for line in lines} == {"4.19.90"}
    outcomes = ("right", "no answer", "wrong")

    def counted(those: list[Any]) -> tuple[str, ...]:
        return str(len(those)), *(str(sum(line[-1] == outcome for line in those)) for outcome in outcomes)

    mine = [line for line in lines if line[1] == "pci-cfg-wait/unlocked-queue"]
    (row,) = re.findall(r"^pci-cfg-wait/unlocked-queue +1 +(\d+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    assert row == counted(mine) and int(row[1]) > 2 and row[3] == "0"
    assert re.findall(r"^all +(\d+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.MULTILINE) == [counted(lines)] * 2


def test_mutate_that_is_asked_for_nothing() -> None:
    done = run(SCRIPTS / "mutate", "--driver", "no wrong driver has this name")
    assert (done.returncode, done.stderr) == (1, "no wrong driver is called so\n")


def script(name: str) -> Any:
    loader = importlib.machinery.SourceFileLoader(name, str(SCRIPTS / name))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def benchmark() -> Any:
    return script("benchmark")


@pytest.mark.parametrize("arch", arches.names())
def test_benchmark_has_the_same_suites_on_both_sides(arch: str, benchmark: Any) -> None:
    chosen = benchmark.suites(arch)
    ours = {suite.name for bug in chosen.bugs for suite in bug.suites}
    every = [(bug, suite) for bug in manifest.load().bugs for suite in bug.suites]
    assert (
        ours == {suite.name for bug, suite in every if arch in bug.arches and arch not in suite.guest.modules} != set()
    )
    assert not [bug.id for bug in chosen.bugs if bug.selftests]


def test_benchmark_gives_kunit_the_states_of_the_proof(make_tree: MakeTree, tmp_path: Path, benchmark: Any) -> None:
    root = make_tree(access_c(WAIT_EVENT), kunit=True)
    before = tree_hash(root)
    for state, names in (("before", [BACK]), ("after", [])):
        folder = tmp_path / "evidence/patches" / state
        for name in names:
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_bytes((manifest.PATCHES / name).read_bytes())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "series").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    chosen = benchmark.suites("x86_64")
    for state, wait in (("before", UNLOCKED), ("after", WAIT_EVENT)):
        made = benchmark.state_tree(root, tmp_path / "evidence", state, tmp_path, chosen)
        assert wait.partition("\n\t")[2].partition("\n\t} while")[0] in (made / ACCESS).read_text(encoding="utf-8"), (
            state
        )
        assert (made / "drivers/pci/pci_cfg_wait_kunit.c").exists()
        assert (made / "Makefile").samefile(root / "Makefile") and os.access(made / "drivers/pci/probe.sh", os.X_OK)
    assert tree_hash(root) == before


def test_benchmark_gives_coccicheck_the_files_of_the_audit(
    make_tree: MakeTree, tmp_path: Path, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree()
    (root / "scripts").mkdir(exist_ok=True)
    check = root / "scripts/coccicheck"
    said = f'echo "$C $MODE $COCCI $srctree $1" >> {tmp_path}/calls'
    check.write_text(f"#!/bin/sh\n{said}\nexit $(cat {tmp_path}/code)\n", encoding="utf-8")
    check.chmod(0o755)
    (tmp_path / "code").write_text("0", encoding="utf-8")
    monkeypatch.setattr(benchmark, "TURNS", 2)
    rows = benchmark.audit(root)
    assert [row[0] for row in rows] == ["kmend audit", "kmend audit, again", "call_kern.cocci, 1 files"]
    cold, again, _ = (row[2] for row in rows)
    assert cold > again > 0 and all(row[1] > 0 and row[3] > 1 for row in rows)
    assert (tmp_path / "calls").read_text(encoding="utf-8").splitlines() == [
        f"1 report {benchmark.STOCK} . {ACCESS}"
    ] * 2
    (tmp_path / "code").write_text("9", encoding="utf-8")
    with pytest.raises(SystemExit, match="exit code 9: sh"):
        benchmark.audit(root)


def endured(*consoles: str, verdicts: str = "PASS PASS") -> list[dict[str, Any]]:
    """Return the results of runs of one boot, by what its console was."""
    return [
        {
            "checkouts": [{"misc": {"seconds": {"total": 60.0}}}],
            "tests": [{"log_url": "x/log", "misc": {"verdict": verdict, "inputs": "in", "printed": printed}}],
        }
        for printed, verdict in zip(consoles, verdicts.split(), strict=True)
    ]


def test_endurance_adds_up() -> None:
    endurance = script("endurance")
    assert endurance.add_up(endured("a", "a")) == (
        ["2 runs, 2 boots, 2 min: 0 of 1 verdicts differed, and 0 of 1 consoles"], True,
    )  # fmt: skip
    lines, same = endurance.add_up(endured("a", "b"))
    assert not same and lines[0] == "x/log: 2 consoles of the same" and lines[-1].endswith("and 1 of 1 consoles")
    lines, same = endurance.add_up(endured("a", "a", verdicts="PASS FAIL"))
    assert not same and lines[0] == "x/log: FAIL 1, PASS 1, of 2 runs"
    missing = endured("a", "a")
    missing[1]["tests"] = []
    assert endurance.add_up(missing)[1] is False and endurance.add_up([])[1] is False


def test_endurance_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endurance = script("endurance")
    (tmp_path / "kmend").write_text(
        "#!/bin/sh\nfor out; do :; done\necho run >> $0.calls\n[ $(wc -l < $0.calls) = 2 ] && exit 143\n"
        f"mkdir $out; echo '{json.dumps(endured('a', 'a')[0])}' > $out/results.json; touch $out/SHA256SUMS\n",
        encoding="utf-8",
    )
    (tmp_path / "kmend").chmod(0o755)
    monkeypatch.setattr(endurance, "SCRIPTS", tmp_path)
    words = ["endurance", str(tmp_path / "out"), "--runs", "3", "--", "--arch", "x86_64"]
    monkeypatch.setattr("sys.argv", words)
    assert endurance.main() == 130
    assert endurance.main() == 0
    assert (tmp_path / "kmend.calls").read_text(encoding="utf-8").count("run") == 4
    monkeypatch.setattr("sys.argv", words[:-1] + ["arm64"])
    assert endurance.main() == 2
