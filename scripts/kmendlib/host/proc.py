# SPDX-License-Identifier: GPL-2.0-only
"""Child processes: none outlives the driver, each has its output kept."""

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

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
ENDING = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGXCPU,
    }
)


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Hold back the signals that end a program; they are delivered at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_GRACE_SECONDS = 5.0

# Set while all children of all threads are to end; none is started then.
stopping = threading.Event()
_starting = threading.Lock()
_children: set[subprocess.Popen[bytes]] = set()


def stop() -> None:
    """End the children of all threads: each thread's wait for its own raises InterruptedError."""
    with _starting:
        stopping.set()
        for process in list(_children):
            _signal(process, signal.SIGTERM)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@contextlib.contextmanager
def child(command: Sequence[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in a process group of its own and leave nothing of the group behind.

    Raises:
        InterruptedError: `stopping` was set, before or meanwhile.
    """
    with _starting:
        if stopping.is_set():
            raise InterruptedError("stopped")
        process = subprocess.Popen(command, start_new_session=True, **options)  # type: ignore[call-overload]
        _children.add(process)
    try:
        yield process
        if stopping.is_set():
            raise InterruptedError("stopped")
    finally:
        # make removes half-written targets, if it is asked to end and given the time.
        if process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                _signal(process, signal.SIGTERM)
                process.wait(_GRACE_SECONDS)
        _signal(process, signal.SIGKILL)
        process.wait()
        with _starting:
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
    """
    with log.open("ab") as out:
        out.write(("$ " + " ".join(command) + "\n").encode())
        with child(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment() if env is None else env,
            pass_fds=pass_fds,
        ) as process:
            assert process.stdout
            for line in process.stdout:
                out.write(line)
                if on_line:
                    on_line(line.decode(errors="replace").rstrip())
            code = process.wait()
    return code


def output(command: Sequence[str]) -> str | None:
    """Return what a short command prints on standard output, or None where it is missing or fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="replace")


def slowness() -> float:
    """Return by how much limits are stretched: the load on each CPU of the host, never below 1."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
