# SPDX-License-Identifier: GPL-2.0-only
"""Turns a guest into QEMU's words, runs it, and keeps what its console says."""

import contextlib
import fcntl
import hashlib
import os
import re
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure
from kmendlib.host.files import digest, naming
from kmendlib.run import End, Ending, GuestSpec

CONSOLE_LIMIT = 16 << 20
# A guest that is alive prints within this many seconds of work; a KUnit case that waits is bounded by far less.
SILENCE_LIMIT = 120.0
# A guest that has panicked has said all; not every one of them manages to reboot.
PANIC_LIMIT = 5.0
# Seconds of the host's clock, whatever the load: a boot takes a minute's work at the most.
HOST_LIMIT = 2400.0
# QEMU gets no answer but "later" from a pipe that is full, and the guest's serial port would be slower then.
_PIPE = 1 << 20

# For every guest there is: nothing that nobody asked for, and no way back after a panic.
FIXED = ("-nodefaults", "-nographic", "-no-reboot")
# The guest's clock is the host's, and each of its CPUs a thread.
HOST_CLOCK = ("-accel", "tcg,thread=multi")
# The guest's clock is its count of instructions, a nanosecond each, and what waits for it does not wait on the host:
# what a guest does depends on nothing outside.  A slower machine (a larger shift) would be no cheaper.
OWN_CLOCK = ("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm")
# A vCPU that spins with its interrupts off keeps its turn up to the next timer, a tenth of a second if there is no other,
# and the one that has the lock waits.  A filter for packets, of which there are none, has a timer each 500 microseconds.
TURNS = (
    *("-netdev", "hubport,id=idle,hubid=0", "-netdev", "hubport,id=turns,hubid=1,netdev=idle"),
    *("-object", "filter-buffer,id=turn,netdev=turns,queue=all,interval=500"),
)
# What QEMU 10 ends with where a guest of loongarch64 interrupts its own CPU on that clock, as SRCU of v7.x does.
LOSES_COUNT = "Raised interrupt while not in I/O function"
# The kernel begins each line with its clock, and does not look up names for those who read traces: nobody does, and it
# takes a second of each boot.
WORDS = ("printk.time=1", "initcall_blacklist=trace_eval_init")
# Kernels of loongarch64 cut their command line behind this many characters, and no other that is known does sooner.
_ROOM = 511
_STAMP = re.compile(rb"\[ *(\d+\.\d{6})\] ")
_RESULT = re.compile(rb"(?:not )?ok ")


def size_words(spec: GuestSpec) -> list[str]:
    """Return QEMU's words for what is a guest's own of the machine, and for its console."""
    # Of several -smp options the last one counts.
    return ["-smp", str(spec.cpus), "-m", str(spec.memory), "-serial", "stdio"]


def _words(spec: GuestSpec) -> tuple[str, ...]:
    """Return the words of a guest's command line, with those that every one gets here."""
    return (*spec.words, *WORDS, *(spec.timed or ()))


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
    """Return the QEMU command for a guest, whose clock stands before each line of its console."""
    clock = HOST_CLOCK if spec.timed is None else [*OWN_CLOCK, *TURNS, "-seed", str(spec.seed)]
    kernel = kernel_words(replace(spec, words=_words(spec)))
    words = [spec.emulator, *FIXED, *clock, *spec.machine, *size_words(spec), *kernel]
    return [*words, *initrd_words(spec), *device_words(spec)]


@contextlib.contextmanager
def ready(spec: GuestSpec) -> Iterator[list[str]]:
    """Yield the QEMU command for a guest; lists for its init that a kernel might cut off are in its initramfs."""
    words = command(spec)
    own = [word for word in spec.words if word.startswith(("kmend.modules=", "kmend.symbols="))]
    if not own or not spec.initrd or len(" ".join(_words(spec))) <= _ROOM:
        yield words
        return
    with tempfile.TemporaryDirectory(prefix="kmend-guest-") as folder:
        Path(folder, "kmend.words").write_text(" ".join(own), encoding="utf-8")
        os.utime(Path(folder, "kmend.words"), (0, 0))
        done = proc.tool(["cpio", "--quiet", "-o", "-H", "newc", "--reproducible"], cwd=folder, stdin=b"kmend.words\n")
        if done.returncode:
            raise Infrastructure(f"cannot archive init's words: {done.stderr.decode(errors='replace').strip()}")
        whole = Path(folder, "initramfs.cpio")
        whole.write_bytes(b"".join(part.read_bytes() for part in spec.initrd) + done.stdout)
        yield command(replace(spec, words=tuple(word for word in spec.words if word not in own), initrd=(whole,)))


def limit(spec: GuestSpec) -> float:
    """Return how many seconds of its clock a guest may take: the host's goes on while a guest waits for a CPU."""
    return spec.limit * (proc.slowness() if spec.timed is None else 1.0)


def inputs(spec: GuestSpec, version: str) -> str:
    """Return a digest of all that decides what a guest on its own clock does, wherever its files lie.

    Args:
        spec: the guest.
        version: QEMU's.
    """
    kernel, *initrd = (Path(digest(file)) for file in (spec.kernel, *spec.initrd))
    named = replace(spec, kernel=kernel, initrd=tuple(initrd))
    return hashlib.sha256("\0".join([version, *command(named)]).encode()).hexdigest()


class _Watch:
    """What came of a guest so far, and how much its QEMU was given to do it with.

    Attributes:
        clock: the guest's, in seconds, as its last line has it.
        silence: seconds without output after which it is taken for dead.
        ktap: wall time of the last line of test results.
    """

    def __init__(self, process: subprocess.Popen[bytes], limit: float) -> None:
        self.clock = 0.0
        self.silence = SILENCE_LIMIT
        self.ktap: float | None = None
        self.started = self._then = time.monotonic()
        self._process = process
        self._limit = limit
        self._size = 0
        # Seconds of CPU time, and such in which it did not ask for any; when it was heard.
        self._work = self._idle = self._heard = 0.0

    def hear(self, data: bytes, lines: Sequence[bytes]) -> None:
        """Take what the guest printed, and the lines that are whole now."""
        self._size += len(data)
        self._look()
        self._heard = self._work + self._idle
        for line in lines:
            stamp = _STAMP.match(line)
            self.clock = float(stamp[1]) if stamp else self.clock
            if _RESULT.match(line[stamp.end() if stamp else 0 :].lstrip()):
                self.ktap = time.monotonic() - self.started
            if b"Kernel panic - not syncing" in line:
                self.silence = PANIC_LIMIT

    def end(self) -> End | None:
        """Return the end that a limit puts to the guest, or None."""
        self._look()
        if self.clock > self._limit:
            return End.TIMEOUT
        if self._work + self._idle - self._heard > self.silence:
            return End.SILENT
        if self._size > CONSOLE_LIMIT:
            return End.FLOOD
        return End.STARVED if time.monotonic() - self.started > HOST_LIMIT else None

    def work(self) -> float:
        """Return the CPU time that it took, in seconds."""
        self._then = 0.0
        self._look()
        return self._work

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._then < 0.2:
            return
        folder = Path("/proc", str(self._process.pid))
        try:
            files = [folder / "stat", *(task / "stat" for task in (folder / "task").iterdir())]
            # The name, which comes before, is anybody's.
            whole, *tasks = (file.read_bytes().rpartition(b")")[2].split() for file in files)
        except OSError:
            return
        self._work = (int(whole[11]) + int(whole[12])) / os.sysconf("SC_CLK_TCK")
        # What runs, waits for a CPU, or is stopped, is not idle.
        if all(task[0] == b"S" for task in tasks):
            self._idle += now - self._then
        self._then = now


def boot(words: Sequence[str], console: Path, limit: float, hear: Callable[[str], None] | None = None) -> Ending:
    """Run a guest to its end, or to a limit's.

    Args:
        words: QEMU's command.
        console: file that takes the console, byte for byte.
        limit: seconds of the guest's clock.
        hear: called with each whole line of the console.

    Raises:
        Infrastructure: QEMU cannot be started.
        InterruptedError: all children of this process were stopped.
    """
    if not shutil.which(words[0]):
        raise Infrastructure(f"no {words[0]} here: run kmend setup")
    end: End | None = None
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
        watch = _Watch(process, limit)
        # Not every user may.
        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE)
        errors = b""
        for stream in (process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and not (end := watch.end()):
            for key, _ in selector.select(1.0):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    errors = (errors + data)[-65536:]
                else:
                    out.write(data)
                    *lines, tail = (tail + data).split(b"\n")
                    tail = tail[-4096:]
                    watch.hear(data, lines)
                    for line in lines if hear else ():
                        hear(line.decode(errors="replace"))  # type: ignore[misc]
        # It may close its console and stay.
        while not end and not proc.wait(process, 0.5):
            end = watch.end()
        work = watch.work()
    stderr = errors.decode(errors="replace").strip()
    code = None if end else process.returncode
    seconds = time.monotonic() - watch.started
    spent = (watch.clock or None, work)
    return Ending(end or End.EXIT, console, seconds, watch.ktap, " ".join(words), stderr, code, *spent)
