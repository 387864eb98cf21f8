# SPDX-License-Identifier: GPL-2.0-only
"""Shows how far long work is: a live line for each architecture, or plain log lines where there is no terminal."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from kmendlib.host.words import visible

# Without a terminal, a phase that takes long says so this often.
LOG_SECONDS = 60.0


class Display:
    """The lines of all architectures; used as a context, from any thread."""

    def __init__(self) -> None:
        """Write to standard error, so that standard output holds results alone."""
        self.console = Console(file=sys.stderr, highlight=False)
        self._live = self.console.is_terminal
        self._progress = Progress(
            TextColumn("{task.fields[arch]:<12}"),
            TextColumn("{task.description:<30}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._logged: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> "Display":
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def say(self, line: str) -> None:
        """Print one line, above the live ones."""
        self.console.print(visible(line), markup=False, soft_wrap=True)

    def update(self, arch: str, phase: str, done: int = 0, total: int | None = None) -> None:
        """Show an architecture's phase.

        Args:
            arch: the architecture's name.
            phase: what is being done, e.g. ``compile after``.
            done: steps done.
            total: steps in all, where known.
        """
        if self._live:
            if arch not in self._tasks:
                self._tasks[arch] = self._progress.add_task(phase, arch=arch, total=total)
            self._progress.update(self._tasks[arch], description=phase, completed=done, total=total)
            return
        last_phase, last_time = self._logged.get(arch, ("", 0.0))
        now = time.monotonic()
        if phase != last_phase or now - last_time >= LOG_SECONDS:
            self._logged[arch] = (phase, now)
            steps = f" {done}/{total}" if total else f" {done}" if done else ""
            self.say(f"{arch}: {phase}{steps}")
