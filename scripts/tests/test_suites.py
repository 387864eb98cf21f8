# SPDX-License-Identifier: GPL-2.0-only
"""The kernels of Debian's suites: which are fetched, what is kept of them, and what is said when they cannot be had."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from test_source import BAD

from conftest import tools
from kmendlib.host.errors import Infrastructure
from kmendlib.host.paths import cache
from kmendlib.tree import manifest, source, suites

SUITES = ("trixie", "trixie-backports", "sid")
MADISON = """\
linux-source-6.1 | 6.1.176-1 | http://mirror.example bookworm/main amd64 Packages
linux-source-7.2 |   7.2.13-1 | http://mirror.example sid/main amd64 Packages
linux-source-7.2 | 7.2.11-1~bpo13+1 | http://mirror.example trixie-backports/main amd64 Packages
linux-source-7.10 | 7.10.4-1~bpo13+1 | http://mirror.example trixie-backports/main amd64 Packages
linux-source-7.10 | 7.10.2-1~bpo13+1 | http://mirror.example trixie-backports/main amd64 Packages
"""
GOOD = 'case "$*" in *update*) ;; *) for last; do :; done; touch "${last%%=*}.deb";; esac'


def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, apt: str = GOOD, madison: str = MADISON) -> Path:
    """Stand in for apt and a mirror; return the log of apt-get's calls."""
    tree = tmp_path / "made/linux-source"
    for name in ("Makefile", "mm/swap.c", "mm/deep/other.c", "fs/nfsd/nfs4state.c"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"{name}\n", encoding="utf-8")
    unpack = 'mkdir -p "$3/usr/src" && name=$(basename "$2" .deb) && '
    unpack += f'tar -C {tree.parent} -cJf "$3/usr/src/$name.tar.xz" linux-source'
    (tmp_path / "madison").write_text(madison, encoding="utf-8")
    (tmp_path / "names").write_text("".join(f"{line.split()[0]}\n" for line in madison.splitlines()), encoding="utf-8")
    bin = tmp_path / "bin"
    tools(monkeypatch, bin, apt_get=f'echo "$*" >> $0.log\n{apt}', dpkg_deb=unpack)
    answer = f'case "$*" in *pkgnames*) cat {tmp_path}/names;; *) cat {tmp_path}/madison;; esac'
    tools(monkeypatch, bin, apt_cache=answer)
    monkeypatch.setattr(source.setup, "debian_line", lambda suite: f"deb http://mirror.example {suite} main")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return bin / "apt-get.log"


def fetch(*have: str) -> tuple[dict[str, Path], list[str]]:
    return suites.fetch(SUITES, {"mm"}, have, lambda line: None)


def test_newest_of_each_line_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = mirror(monkeypatch, tmp_path)
    trees, older = fetch("6.1.192", "7.2.12", "6.12.117")
    versions = {"7.10.4": "7.10.4-1~bpo13+1", "7.2.13": "7.2.13-1"}
    assert trees == {name: cache() / "debian" / version for name, version in versions.items()}
    # Of a suite's own older versions nothing is said.
    assert older == [
        "linux-source-7.2 7.2.11-1~bpo13+1 (trixie-backports): a newer one of its line was audited",
        "linux-source-6.1 6.1.176-1 (bookworm): a newer one of its line was audited",
    ]
    calls = [line.rpartition(" ")[2] for line in log.read_text(encoding="utf-8").splitlines()]
    assert calls == ["update", "linux-source-7.10=7.10.4-1~bpo13+1", "linux-source-7.2=7.2.13-1"]
    for tree in trees.values():
        there = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
        assert there == {"Makefile", "mm/swap.c"}
    assert fetch("6.1.192", "7.2.12", "6.12.117") == (trees, older)
    assert [line.rpartition(" ")[2] for line in log.read_text(encoding="utf-8").splitlines()[3:]] == ["update"]


def test_what_no_suite_has_any_more_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mirror(monkeypatch, tmp_path)
    trees, _ = fetch()
    assert set(trees) == {"7.10.4", "7.2.13", "6.1.176"}
    (tmp_path / "madison").write_text(MADISON.replace("7.10.4-1", "7.10.5-1"), encoding="utf-8")
    again, _ = fetch()
    assert set(again) == {"7.10.5", "7.2.13", "6.1.176"}
    assert sorted(os.listdir(cache() / "debian")) == sorted(["fetch.log", *(path.name for path in again.values())])


@pytest.mark.parametrize(
    ("apt", "madison", "says"),
    [
        (BAD, MADISON, "E: no network"),
        (GOOD, "", "no kernel's source in any of Debian's suites"),
        (GOOD.replace("touch", "echo 404; exit 100; true"), MADISON, "404"),
    ],
    ids=["no network", "nothing there", "no package"],
)
def test_suites_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, apt: str, madison: str, says: str
) -> None:
    mirror(monkeypatch, tmp_path, apt, madison)
    with pytest.raises(Infrastructure, match=says):
        fetch()
    assert os.listdir(cache() / "debian") == ["fetch.log"]


def test_package_that_is_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was unpacked of it is no tree."""
    mirror(monkeypatch, tmp_path)
    (tmp_path / "made/linux-source/mm/other.c").write_bytes(random.Random(1).randbytes(100_000))
    path = tmp_path / "bin/dpkg-deb"
    path.write_text(
        path.read_text(encoding="utf-8") + '\ntruncate -s 50000 "$3/usr/src/$name.tar.xz"\n', encoding="utf-8"
    )
    with pytest.raises(Infrastructure, match="cannot unpack linux-source-7.10 7.10.4-1"):
        fetch()
    assert os.listdir(cache() / "debian") == ["fetch.log"]


def test_folders_are_those_of_the_rules_and_the_fixes() -> None:
    found = suites.folders(manifest.load().bugs)
    assert {"mm", "virt/kvm", "arch/riscv/kvm", "fs/nfsd", "drivers/pci", "include/linux"} <= found
    assert "." not in found and len(found) < 20
