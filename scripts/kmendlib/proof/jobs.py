# SPDX-License-Identifier: GPL-2.0-only
"""One budget for all that runs at once: compilers and guests take their jobs from one GNU make jobserver."""

import contextlib
import math
import os
import select
import threading
import time
from collections.abc import Iterator

from kmendlib.host import share
from kmendlib.host.proc import stopping

# In MiB.  make's: the link of a vmlinux with KASAN takes the most.  A guest's: what QEMU takes on top of its memory.
BUILD_MEMORY = 2048
GUEST_EXTRA = 512


class Jobs:
    """A number of jobs, and the memory that they share.

    The tokens lie in a pipe as GNU make's manual has it ("POSIX Jobserver Interaction"), so that several makes and
    the boots beside them are never more than the budget together: one token is taken before a make or a guest is
    started, and make takes those for its further jobs by itself.
    """

    def __init__(self, count: int = 0, memory: int = 0) -> None:
        """Fill the budget.

        Args:
            count: jobs at once; as many as there are CPUs for us where it is 0.
            memory: MiB that may be in use; what is available now where it is 0.
        """
        self.count = count or math.ceil(share.cpus())
        self._memory = memory or share.memory()
        self._used = 0
        self._freed = threading.Condition()
        self._lock = threading.Lock()
        self._held = 0
        self._makes = 0
        self._read, self._write = os.pipe()
        # make does so with its own end, which is the same open file.
        os.set_blocking(self._read, False)
        os.write(self._write, b"+" * self.count)

    def close(self) -> None:
        """Give the pipe back; nothing may run any more."""
        os.close(self._read)
        os.close(self._write)

    @contextlib.contextmanager
    def slot(self, memory: int, jobs: int = 1) -> Iterator[None]:
        """Wait for jobs and for memory, and hold both.

        Args:
            memory: in MiB; what is larger than all there is runs alone.
            jobs: so many, or all where there are fewer.

        Raises:
            InterruptedError: `stopping` was set.
        """
        with self._freed:
            while self._used and self._used + memory > self._memory:
                self._freed.wait(0.5)
                _stop_here()
            self._used += memory
        try:
            jobs = min(jobs, self.count)
            self._take(jobs)
            try:
                yield
            finally:
                self._give(jobs)
        finally:
            with self._freed:
                self._used -= memory
                self._freed.notify_all()

    @contextlib.contextmanager
    def make(self) -> Iterator[tuple[dict[str, str], tuple[int, int]]]:
        """Hold a slot for a make; yield the environment and the file descriptors that let it take further jobs."""
        with self.slot(BUILD_MEMORY):
            with self._lock:
                self._makes += 1
            try:
                flags = f" -j{self.count} --jobserver-auth={self._read},{self._write}"
                yield {"MAKEFLAGS": flags}, (self._read, self._write)
            finally:
                with self._lock:
                    self._makes -= 1

    def _take(self, jobs: int) -> None:
        """Wait until so many are there at once: who holds some and waits for more keeps others from their work."""
        while True:
            _stop_here()
            select.select([self._read], [], [], 0.5)
            with self._lock, contextlib.suppress(BlockingIOError):
                there = len(os.read(self._read, jobs))
                if there == jobs:
                    self._held += jobs
                    return
                os.write(self._write, b"+" * there)
            time.sleep(0.1)

    def _give(self, jobs: int) -> None:
        with self._lock:
            self._held -= jobs
            if self._makes:
                os.write(self._write, b"+" * jobs)
                return
            # A make that was killed has taken its tokens along: what no one holds is back in the pipe now.
            with contextlib.suppress(BlockingIOError):
                while os.read(self._read, self.count):
                    pass
            os.write(self._write, b"+" * (self.count - self._held))


def _stop_here() -> None:
    if stopping.is_set():
        raise InterruptedError("stopped")
