# SPDX-License-Identifier: GPL-2.0-only
"""Child processes: their environment, their log, and that none is left behind."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from kmendlib.host import proc


def test_settings_of_the_users_shell_do_not_reach_kbuild(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARCH", "KCFLAGS", "MAKEFLAGS", "LLVM", "O"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("MY_OWN", "stays")
    env = proc.environment({"CCACHE_DIR": "c"})
    assert not {"ARCH", "KCFLAGS", "MAKEFLAGS", "LLVM", "O"} & set(env)
    assert (env["MY_OWN"], env["CCACHE_DIR"], env["LC_ALL"]) == ("stays", "c", "C")


def test_log_has_command_and_both_outputs(tmp_path: Path) -> None:
    lines: list[str] = []
    code = proc.run_logged(["sh", "-c", "echo out; echo err >&2; exit 3"], tmp_path / "log", on_line=lines.append)
    assert code == 3
    assert sorted(lines) == ["err", "out"]
    assert (tmp_path / "log").read_text().startswith("$ sh -c ")


def test_make_can_clean_up_when_stopped(tmp_path: Path) -> None:
    """A half-written object that stays would be taken for a finished one."""
    (tmp_path / "Makefile").write_text("half.o:\n\techo half > $@; echo begun; sleep 60\n")
    with pytest.raises(KeyboardInterrupt):
        with proc.child(["make", "-s", "-C", str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout and process.stdout.readline() == b"begun\n"
            assert (tmp_path / "half.o").exists()
            raise KeyboardInterrupt
    assert not (tmp_path / "half.o").exists()


def test_child_that_ignores_the_request_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "_GRACE_SECONDS", 0.3)
    started = time.monotonic()
    with proc.child(["sh", "-c", "trap '' TERM; echo on; sleep 60; sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"on\n"
    assert time.monotonic() - started < 5


def test_output_of_a_missing_program() -> None:
    assert proc.output(["no-such-program"]) is None
    assert proc.output(["false"]) is None
    assert proc.output(["echo", "a"]) == "a\n"
