# SPDX-License-Identifier: GPL-2.0-only
"""LAVA's own dispatcher runs the jobs, with something that prints a captured console for QEMU.

No part of `kmend check`, as Debian's lava-dispatcher brings 137 packages: run by hand, as root, where it is installed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from test_lava import BOOTS, GREEN, RED, console, parse, render, take, waiting  # noqa: F401

from kmendlib.host.errors import ExitCode
from kmendlib.host.files import digest
from kmendlib.proof import ktap
from kmendlib.proof.evidence import Evidence


def test_lava_run(
    waiting: Evidence,  # noqa: F811
    tmp_path: Path,
    parse: ktap.Parser,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "qemu-system-x86_64").write_text(
        "#!/bin/sh\n"
        'case "$*" in --version) echo QEMU emulator version 10.0.2;; '
        f"*bzImage-before*) cat {tmp_path}/red;; *) cat {tmp_path}/green;; esac\n",
        encoding="utf-8",
    )
    (bin / "qemu-system-x86_64").chmod(0o755)
    monkeypatch.setenv("PATH", str(bin), prepend=":")
    # Consoles that were captured from the tests' start on have no such line.
    for name, text in (("red", console(RED)), ("green", console(GREEN))):
        (tmp_path / name).write_text("Linux version 6.12.117\n" + text, encoding="utf-8")
    (waiting.folder / "lava/x86_64").mkdir(parents=True)
    files = {}
    for boot in BOOTS:
        file = waiting.folder / "lava" / boot.guest.kernel
        file.write_text(boot.state, encoding="utf-8")
        files[str(boot.guest.kernel)] = digest(file)
    waiting.update(files=files)
    waiting.seal()
    for name, text in render(waiting.run, (waiting.folder / "lava").as_uri()).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    logs = []
    for path in sorted((tmp_path / "jobs").iterdir()):
        logs.append(tmp_path / f"{path.stem}.log")
        with logs[-1].open("w", encoding="utf-8") as log:
            words = ["lava-run", "--job-id", f"kmend-test-{os.getpid()}", "--device", tmp_path / "device-x86_64.yaml"]
            words += ["--output-dir", tmp_path / path.stem, path]
            subprocess.run(words, stderr=log, check=False, timeout=120)
    assert take(Evidence.open(waiting.folder), *logs).run.exit_code() == ExitCode.OK
