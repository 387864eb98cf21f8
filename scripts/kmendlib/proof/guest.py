# SPDX-License-Identifier: GPL-2.0-only
"""Boots a kernel on QEMU and keeps what its console says."""

import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure
from kmendlib.host.proc import slowness
from kmendlib.tree.arches import Arch
from kmendlib.tree.manifest import Guest

CONSOLE_LIMIT = 16 << 20
# A guest that is alive prints within this many seconds; a KUnit case that waits is bounded by far less.
SILENCE_LIMIT = 60.0
# A guest that has panicked has said all; not every one of them manages to reboot.
PANIC_LIMIT = 5.0


class End(StrEnum):
    """How a boot came to its end."""

    EXIT = "exit"
    TIMEOUT = "timeout"
    SILENT = "silent"
    FLOOD = "flood"
    CUT = "cut"


@dataclass(frozen=True)
class Boot:
    """One run of a guest.

    Attributes:
        end: how it ended.
        code: QEMU's exit code; None where it was killed.
        console: file with all that the guest printed.
        stderr: what QEMU itself complained of.
        seconds: wall time of the run.
        ktap_seconds: wall time to the last line of test results; None where there was none.
        command: QEMU's words.
    """

    end: End
    code: int | None
    console: Path
    stderr: str
    seconds: float
    ktap_seconds: float | None
    command: str


def command(
    arch: Arch,
    image: Path,
    words: Sequence[str],
    initrd: Path | None,
    devices: Sequence[str],
    needs: Guest,
    cpus: int,
) -> list[str]:
    """Return the QEMU command for one boot.

    Args:
        arch: the architecture.
        image: the kernel.
        words: words of the kernel command line, after the architecture's own.
        initrd: the initramfs, if there is one.
        devices: values for ``-device``.
        needs: memory and machine.
        cpus: how many CPUs it has.
    """
    line = [arch.qemu, "-nodefaults", "-nographic", "-no-reboot", "-accel", "tcg,thread=multi"]
    # Several -machine options are merged, and a base may take back what a suite asks for.
    if arch.name in needs.machine:
        line += ["-machine", needs.machine[arch.name]]
    line += arch.params.extra_qemu_params
    # Of several -smp options the last one counts.
    line += ["-smp", str(cpus), "-m", str(needs.memory)]
    line += ["-serial", "stdio", "-kernel", str(image)]
    line += ["-append", " ".join([arch.params.kernel_command_line, "panic=-1", *words])]
    if initrd:
        line += ["-initrd", str(initrd)]
    for device in devices:
        line += ["-device", device]
    return line


def boot(words: Sequence[str], console: Path, limit: float) -> Boot:
    """Run a guest to its end, or to a limit's.

    Args:
        words: QEMU's command.
        console: file that takes the console, byte for byte.
        limit: wall time in seconds, before stretching for a slow host.

    Raises:
        Infrastructure: QEMU cannot be started.
        InterruptedError: all children of this process were stopped.
    """
    if not shutil.which(words[0]):
        raise Infrastructure(f"no {words[0]} here: run kmend setup")
    stretch = slowness()
    started = heard = time.monotonic()
    ktap: float | None = None
    end = End.EXIT
    silence = SILENCE_LIMIT
    size = 0
    tail = b""
    with (
        console.open("wb") as out,
        proc.child(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=proc.environment()
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout and process.stderr
        errors = b""
        for stream in (process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            now = time.monotonic()
            if now - started > limit * stretch:
                end = End.TIMEOUT
            elif now - heard > silence * stretch:
                end = End.SILENT
            elif size > CONSOLE_LIMIT:
                end = End.FLOOD
            if end is not End.EXIT:
                break
            for key, _ in selector.select(1.0):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    errors = (errors + data)[-65536:]
                else:
                    heard = time.monotonic()
                    out.write(data)
                    size += len(data)
                    lines = (tail + data).split(b"\n")
                    if any(line.lstrip().startswith((b"ok ", b"not ok ")) for line in lines[:-1]):
                        ktap = heard - started
                    if any(b"Kernel panic - not syncing" in line for line in lines):
                        silence = PANIC_LIMIT
                    tail = lines[-1][-4096:]
        code = process.wait() if end is End.EXIT else None
    return Boot(
        end,
        code,
        console,
        errors.decode(errors="replace").strip(),
        time.monotonic() - started,
        ktap,
        " ".join(words),
    )
