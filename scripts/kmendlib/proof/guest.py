# SPDX-License-Identifier: GPL-2.0-only
"""Turns a guest into QEMU's words, runs it, and keeps what its console says."""

import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure
from kmendlib.host.files import naming
from kmendlib.host.proc import slowness
from kmendlib.run import End, Ending, GuestSpec

CONSOLE_LIMIT = 16 << 20
# A guest that is alive prints within this many seconds; a KUnit case that waits is bounded by far less.
SILENCE_LIMIT = 60.0
# A guest that has panicked has said all; not every one of them manages to reboot.
PANIC_LIMIT = 5.0

# For every guest there is: nothing that nobody asked for, and no way back after a panic.
FIXED = ("-nodefaults", "-nographic", "-no-reboot", "-accel", "tcg,thread=multi")


def size_words(spec: GuestSpec) -> list[str]:
    """Return QEMU's words for what is a guest's own of the machine, and for its console."""
    # Of several -smp options the last one counts.
    return ["-smp", str(spec.cpus), "-m", str(spec.memory), "-serial", "stdio"]


def kernel_words(spec: GuestSpec) -> list[str]:
    """Return QEMU's words for the kernel and its command line."""
    return ["-kernel", str(spec.kernel), "-append", " ".join(spec.words)]


def initrd_words(spec: GuestSpec) -> list[str]:
    """Return QEMU's words for the initramfs, whose parts are one file by now."""
    return [word for part in spec.initrd for word in ("-initrd", str(part))]


def device_words(spec: GuestSpec) -> list[str]:
    """Return QEMU's words for the devices."""
    return [word for device in spec.devices for word in ("-device", device)]


def stub_words(socket: Path) -> list[str]:
    """Return QEMU's words for a GDB stub at a socket."""
    return ["-gdb", f"unix:{socket},server=on,wait=off"]


def command(spec: GuestSpec) -> list[str]:
    """Return the QEMU command for a guest."""
    words = [spec.emulator, *FIXED, *spec.machine, *size_words(spec), *kernel_words(spec)]
    return [*words, *initrd_words(spec), *device_words(spec)]


def boot(
    words: Sequence[str], console: Path, limit: float, hear: Callable[[str], None] | None = None
) -> Ending:
    """Run a guest to its end, or to a limit's.

    Args:
        words: QEMU's command.
        console: file that takes the console, byte for byte.
        limit: wall time in seconds, before stretching for a slow host.
        hear: called with each whole line of the console.

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
        naming(console),
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
                    if hear:
                        for line in lines[:-1]:
                            hear(line.decode(errors="replace"))
        # It may close its console and stay.
        if end is End.EXIT and not proc.wait(process, silence * stretch):
            end = End.SILENT
    stderr = errors.decode(errors="replace").strip()
    code = process.returncode if end is End.EXIT else None
    return Ending(end, console, time.monotonic() - started, ktap, " ".join(words), stderr, code)
