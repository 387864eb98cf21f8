# SPDX-License-Identifier: GPL-2.0-only
"""Child processes: their environment, their log, and that none is left behind."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure


def test_of_the_users_variables_only_those_that_are_listed_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARCH", "KCFLAGS", "MAKEFLAGS", "LLVM", "O", "MY_OWN", "LC_ALL", "https_proxy", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("PATH", ".:/bin::/usr/bin:there")
    always = {"HOME", "TMPDIR", "TERM", "PATH", "LANG"}
    env = proc.environment({"CCACHE_DIR": "c"})
    assert {name for name in env if not name.startswith("XDG_")} <= {*always, "CCACHE_DIR"}
    assert (env["TERM"], env["CCACHE_DIR"], env["LANG"], env["PATH"]) == ("dumb", "c", "C.UTF-8", "/bin:/usr/bin")
    assert proc.environment(fetch=True).keys() - env.keys() >= {"https_proxy", "SSL_CERT_FILE"}


def test_log_has_command_and_both_outputs(tmp_path: Path) -> None:
    lines: list[str] = []
    code = proc.run_logged(["sh", "-c", "echo out; echo err >&2; exit 3"], tmp_path / "log", on_line=lines.append)
    assert code == 3
    assert sorted(lines) == ["err", "out"]
    assert (tmp_path / "log").read_text(encoding="utf-8").startswith("$ sh -c ")


def test_tool_that_prints_nothing_hangs_later_on_a_slow_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "SILENCE_LIMIT", 0.5)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    with pytest.raises(proc.Hung, match="printed nothing"):
        proc.run_logged(["sleep", "3"], tmp_path / "log")
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    assert proc.run_logged(["sleep", "3"], tmp_path / "log") == 0


def test_make_can_clean_up_when_stopped(tmp_path: Path) -> None:
    """A half-written object that stays would be taken for a finished one."""
    (tmp_path / "Makefile").write_text("half.o:\n\techo half > $@; echo begun; sleep 60\n", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        with proc.child(["make", "-s", "-C", str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout and process.stdout.readline() == b"begun\n"
            assert (tmp_path / "half.o").exists()
            raise KeyboardInterrupt
    assert not (tmp_path / "half.o").exists()


def test_child_that_ignores_the_request_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "_GRACE_SECONDS", 0.3)
    started = time.monotonic()
    with proc.child(["sh", "-c", "trap '' TERM; echo on; sleep 10; sleep 10"], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"on\n"
    assert time.monotonic() - started < 5


def test_output_of_a_missing_program() -> None:
    assert proc.output(["no-such-program"]) is None
    assert proc.output(["false"]) is None
    assert proc.output(["echo", "a"]) == "a\n"


def test_tool_that_takes_too_long_is_told() -> None:
    with pytest.raises(Infrastructure, match="^sleep took more than 1 s$"):
        proc.tool(["sleep", "20"], limit=1.0)
