# SPDX-License-Identifier: GPL-2.0-only
"""Child processes: none outlives the driver, each has its output kept."""

import contextlib
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from kmendlib.host import share
from kmendlib.host.errors import ExitCode, Infrastructure
from kmendlib.host.files import naming

# All that tools get of the user's variables: any other may change what is built, where from, or what is run.
_PASS = re.compile(r"HOME|TMPDIR|TERM|XDG_\w+")
_PASS_TO_FETCH = re.compile(r"(?i:\w+_proxy)|SSL_CERT_(?:FILE|DIR)")


def environment(extra: Mapping[str, str] | None = None, *, fetch: bool = False) -> dict[str, str]:
    """Return the environment of every tool: English messages in UTF-8, and of the user's variables what is needed.

    Args:
        extra: further variables.
        fetch: for a tool that fetches something: how the network is reached, as well.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if _PASS.fullmatch(name) or (fetch and _PASS_TO_FETCH.fullmatch(name))
    }
    # What is named from where one stands may be a stranger's.
    path = [folder for folder in os.environ.get("PATH", os.defpath).split(":") if os.path.isabs(folder)]
    return env | {"PATH": ":".join(path), "LANG": "C.UTF-8"} | dict(extra or {})


# All signals that end a program and that can be caught: a lost connection, Ctrl-C, Ctrl-\\, kill, and used-up time.
ENDING = frozenset(signal.Signals[f"SIG{name}"] for name in "HUP INT QUIT TERM ALRM VTALRM PROF USR1 USR2 XCPU".split())


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Hold back the signals that end a program; they are delivered at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# A child gets this long to end by itself when it is asked to.
_GRACE_SECONDS = 5.0
# A command that prints nothing for so long, in seconds on an idle host, hangs: the longest step, a link, takes minutes.
SILENCE_LIMIT = 1800.0
# No load stretches a limit further.
_SLOWEST = 8.0
# What is called short is over in less.
_SHORT = 300.0

# Set while all children of all threads are to end; none is started then.
stopping = threading.Event()
_starting = threading.Lock()
_children: set[subprocess.Popen[bytes]] = set()


class Hung(Infrastructure):
    """A tool did not go on."""

    code = ExitCode.TIMEOUT


# The signals that came, and whether the main thread is about to start a child.
_came: list[int] = []
_spawning = False


def _hear(number: int, _: FrameType | None = None) -> None:
    _came.append(number)
    if len(_came) == 1:
        # In a thread of its own: what the main thread leaves may wait for a child that is not willing.
        threading.Thread(target=stop, daemon=True).start()
    # A further one, as Ctrl-C again, does not cut off the cleaning up, which the children's grace bounds. A child
    # must be among `_children` before anything is raised.
    if len(_came) == 1 and not _spawning:
        raise KeyboardInterrupt(number)


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Let the first signal that ends the program raise KeyboardInterrupt; what is ignored, as by nohup, stays so.

    Yields:
        The signals that came.
    """
    _came.clear()
    stopping.clear()
    before = {each: signal.getsignal(each) for each in ENDING}
    heard = [each for each, handler in before.items() if handler is not signal.SIG_IGN]
    for each in heard:
        signal.signal(each, _hear)
    yield _came
    # Once one came, the program ends, and no other one may change how.
    for each in heard:
        signal.signal(each, signal.SIG_IGN if _came else before[each])


def stop() -> None:
    """End the children of all threads, be they willing or not: each wait for them raises InterruptedError."""
    with _starting:
        stopping.set()
        ours = list(_children)
        for process in ours:
            _signal(process, signal.SIGTERM)
    end = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < end and any(map(_runs, ours)):
        time.sleep(0.02)
    with _starting:
        for process in _children & set(ours):
            _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a child's group, unless the child was reaped: then the number may be somebody else's."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a child has not ended; it is not reaped, so that its number stays its own."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
    except ChildProcessError:
        return False


def wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until a child has ended, or for so long, and tell whether it has; it is not reaped."""
    limit = time.monotonic() + seconds
    while _runs(process):
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def child(command: Sequence[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in a process group of its own and leave nothing of the group behind.

    Who wants its exit code does `wait`, and has it in `returncode` after the context: a child that was reaped has no
    group any more that could be ended.

    Raises:
        InterruptedError: `stopping` was set, before or meanwhile.
    """
    global _spawning
    ours, earlier = threading.current_thread() is threading.main_thread(), len(_came)
    with _starting:
        if stopping.is_set():
            raise InterruptedError("stopped")
        _spawning = _spawning or ours
        try:
            process = subprocess.Popen(command, start_new_session=True, **options)  # type: ignore[call-overload]
            _children.add(process)
        finally:
            _spawning = _spawning and not ours
    try:
        if ours and not earlier and _came:
            raise KeyboardInterrupt(_came[0])
        yield process
        if stopping.is_set():
            raise InterruptedError("stopped")
    finally:
        # make removes half-written targets, if it is asked to end and given the time.
        if _runs(process):
            _signal(process, signal.SIGTERM)
            wait(process, _GRACE_SECONDS)
        _signal(process, signal.SIGKILL)
        with _starting:
            process.wait()
            _children.discard(process)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Run a command, append its output to `log`, and return its exit code.

    Args:
        command: the command's words.
        log: the file that takes standard output and standard error, after a line with the command.
        env: the whole environment; by default `environment()`.
        on_line: called with each line of output, for progress.
        pass_fds: file descriptors that the command gets as they are.

    Raises:
        Hung: it printed nothing for too long.
    """
    limit = SILENCE_LIMIT * slowness()
    with naming(log), log.open("ab") as out:
        out.write(os.fsencode("$ " + " ".join(command) + "\n"))
        out.flush()
        with (
            child(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment() if env is None else env,
                pass_fds=pass_fds,
            ) as process,
            selectors.DefaultSelector() as selector,
        ):
            assert process.stdout
            selector.register(process.stdout, selectors.EVENT_READ)
            heard, rest = time.monotonic(), b""
            while True:
                if not selector.select(1.0):
                    # What it left running may keep the pipe open.
                    if not _runs(process):
                        break
                    if time.monotonic() - heard > limit:
                        raise Hung(f"{command[0]} printed nothing for {limit / 60:.0f} min: stopped (log: {log})")
                    continue
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    break
                heard = time.monotonic()
                out.write(data)
                *lines, rest = (rest + data).split(b"\n")
                # A line without end is no progress.
                rest = rest[-(1 << 16) :]
                for line in lines if on_line else ():
                    on_line(line.decode(errors="replace").rstrip())  # type: ignore[misc]
            if not wait(process, limit):
                raise Hung(f"{command[0]} closed its output and did not end for {limit / 60:.0f} min (log: {log})")
    return process.returncode


def run(
    command: Sequence[str | Path], *, stdin: bytes = b"", limit: float = _SHORT, **options: object
) -> subprocess.CompletedProcess[bytes]:
    """Run a short command, and return what it prints and its exit code.

    Args:
        command: the command's words.
        stdin: what it reads.
        limit: seconds that it may take.
        options: as for subprocess.Popen(); the environment is `environment()` unless it is among them.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it took longer.
    """
    settings = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()}
    with child([os.fspath(word) for word in command], **(settings | options)) as process:
        out, errors = process.communicate(stdin, limit)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def tool(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a short command as `run` does; raise Infrastructure where it is missing, or takes too long."""
    try:
        return run(command, **options)
    except FileNotFoundError as error:
        raise Infrastructure(f"{command[0]} is not installed: run kmend setup") from error
    except subprocess.TimeoutExpired as error:
        raise Infrastructure(f"{command[0]} took more than {error.timeout:.0f} s") from error


def output(command: Sequence[str]) -> str | None:
    """Return what a short command prints on standard output, or None where it is missing or fails."""
    try:
        done = run(command)
    except (OSError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout.decode(errors="replace")


def slowness() -> float:
    """Return by how much limits are stretched: the load on each CPU that is ours, from 1 to `_SLOWEST`."""
    return min(_SLOWEST, max(1.0, os.getloadavg()[0] / share.cpus()))
