# SPDX-License-Identifier: GPL-2.0-only
"""Setup: whose mirror is used, what is installed, and what is said where nothing can be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import tools
from kmendlib.host import setup
from kmendlib.host.errors import Infrastructure

MIRROR = "http://mirror.example/debian"
KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCES = {
    "one line each": (
        "sources.list",
        "# deb http://old.example/debian bookworm main\n"
        "deb http://security.example/debian-security bookworm-security main\n"
        f"deb {MIRROR} bookworm main contrib\n",
        f"deb {MIRROR} bookworm-backports main",
    ),
    "with options": (
        "sources.list.d/a.list",
        f"deb [signed-by=/k.gpg arch=amd64] {MIRROR} bookworm main\n",
        f"deb [signed-by=/k.gpg arch=amd64] {MIRROR} bookworm-backports main",
    ),
    "deb822": (
        "sources.list.d/debian.sources",
        "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n"
        f"Types: deb\nURIs: {MIRROR}\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: {KEY}\n",
        f"deb [signed-by={KEY}] {MIRROR} bookworm-backports main",
    ),
    "disabled, or others": (
        "sources.list.d/x.sources",
        "Enabled: no\nTypes: deb\nURIs: http://a.example\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb-src\nURIs: http://b.example\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb\nURIs: http://c.example\nSuites: bookworm\nComponents: contrib\n",
        None,
    ),
}


@pytest.mark.parametrize(("name", "text", "line"), SOURCES.values(), ids=SOURCES.keys())
def test_backports_come_from_the_machines_own_mirror(
    tmp_path: Path, name: str, text: str, line: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "os_release", lambda: {"VERSION_CODENAME": "bookworm"})
    path = tmp_path / "etc/apt" / name
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    assert setup.debian_line("bookworm-backports", tmp_path) == line


def test_every_need_names_both_packages() -> None:
    for need in setup.needs():
        assert need.file and need.apt and (need.dnf or need.extra)


def test_need_that_openeuler_has_no_package_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "needs", lambda: [setup.Need("no-such-program", "some-package", "", extra=True)])
    monkeypatch.setattr(setup, "os_release", lambda: {"ID": "openEuler"})
    monkeypatch.setattr(setup.shutil, "which", lambda name: "/usr/bin/dnf" if name == "dnf" else None)
    setup.ensure(lambda line: None, ["no-such-program"])
    monkeypatch.setattr(setup, "os_release", lambda: {"ID": "debian"})
    with pytest.raises(Infrastructure, match="some-package"):
        setup.ensure(lambda line: None, ["no-such-program"])


@pytest.mark.parametrize(
    ("said", "met"),
    [
        ("Debian clang version 14.0.6", False),
        ("clang version 19.1.7 (vendor)", True),
        ("LLD 20.1.2 (compatible with GNU linkers)", True),
        ("Debian LLD 14.0.6 (compatible with GNU linkers)", False),
        ("no version", False),
    ],
)
def test_program_without_the_version_in_its_name_must_be_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, met: bool
) -> None:
    tools(monkeypatch, tmp_path, compiler=f"echo '{said}'")
    assert setup.Need("compiler-19", "compiler-19", "compiler").met() is met


NOTHING = setup.Need("no-such-program", "some-package", "some-rpm")


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "needs", lambda: [NOTHING])


def test_need_that_is_met_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "needs", lambda: [setup.Need("sh", "dash", "bash")])
    said: list[str] = []
    setup.ensure(said.append)
    assert said == []


@pytest.mark.parametrize(
    ("release", "tool", "message"),
    [
        ({"ID": "debian"}, "apt-get", "apt-get install some-package$"),
        ({"ID": "openEuler"}, "dnf", "dnf install some-rpm$"),
        ({"ID": "kylin"}, "dnf", "dnf install some-rpm$"),
    ],
)
def test_without_root_the_list_is_printed(
    release: dict[str, str], tool: str, message: str, missing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "os_release", lambda: release)
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}" if name == tool else None)
    with pytest.raises(Infrastructure, match=message) as caught:
        setup.ensure(lambda line: None)
    assert caught.value.code == 5


def test_dnf_installs_what_is_missing(missing: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As root on openEuler: by dnf's names, and what does not come with them is told."""
    log = tmp_path / "cache/kmend/setup.log"
    tools(monkeypatch, tmp_path, dnf=f"[ ! -e {tmp_path}/brings ] || cp {tmp_path}/brings {tmp_path}/no-such-program")
    monkeypatch.setattr(setup, "os_release", lambda: {"ID": "openEuler"})
    monkeypatch.setattr(setup.os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said: list[str] = []
    with pytest.raises(Infrastructure, match=f"still missing after the installation: no-such-program .log: {log}"):
        setup.ensure(said.append)
    assert said == ["installing: some-rpm"]
    assert log.read_text(encoding="utf-8") == "$ dnf -q -y install some-rpm\n"
    tools(monkeypatch, tmp_path, brings="")
    setup.ensure(said.append)


def test_unknown_distribution(missing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "os_release", lambda: {"ID": "slackware"})
    with pytest.raises(Infrastructure, match="no-such-program"):
        setup.ensure(lambda line: None)


def test_old_version_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(monkeypatch, tmp_path, qemu_system_test="echo 'QEMU emulator version 7.2.17 (Debian)'")
    assert not setup.Need("qemu-system-test", "a", "b", version=10).met()
    assert setup.Need("qemu-system-test", "a", "b", version=7).met()


def test_python_without_the_packages_says_which_one_is_wanted(tmp_path: Path) -> None:
    """As a user's first python3 may be: with a pytest of its own, and nothing else."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'junitparser' else find(name, *rest)\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", str(Path(__file__))]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    says = "has no junitparser: take /usr/bin/python3, or run scripts/kmend setup first"
    assert done.stderr == f"{sys.executable} {says}\n"
