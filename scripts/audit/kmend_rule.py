# SPDX-License-Identifier: GPL-2.0-only
"""What the rules have in common. Coccinelle imports it."""

from __future__ import annotations

import sys
from typing import Any

# A position as Coccinelle gives it: a list of places, of which the first one counts.
Position = list[Any]
Key = tuple[str, int, int]


def key(p: Position) -> Key:
    """File, line and column, to compare places by."""
    return p[0].file, int(p[0].line), int(p[0].column)


def file_of(p: Position) -> str:
    """The file that a place is in."""
    return str(p[0].file)


def function_of(p: Position) -> str:
    """The function that a place is in, "something_else" outside of functions."""
    return str(p[0].current_element)


class Report:
    """What a rule says: FILE:LINE:COLUMNS: FINDING: STATUS: REASON.

    The status is one of the audit's, or "seen" for a place that tells nothing about the fault.

    all: say everything, as `-D audit` wants it; else faults alone, as `-D report` does.
    anchors: by the name of a function, a place to speak of the file that has it.
    """

    def __init__(self) -> None:
        with open("/proc/self/cmdline", encoding="utf-8", errors="replace") as file:
            words = file.read().split("\0")
        if "--jobs" in words:
            # Then each file is read by a process of its own, and none of them comes to the end, where all is judged.
            sys.exit("the rules of kmend judge all files in one process: make coccicheck J=1")
        self.all = ("-D", "audit") in zip(words, words[1:], strict=False)
        self.anchors: dict[str, Position] = {}
        self._said: set[tuple[object, ...]] = set()

    def anchor(self, p: Position) -> None:
        """Keep the place of a function, if it is not in a header."""
        if p[0].file.endswith(".c"):
            self.anchors.setdefault(function_of(p), p)

    def say(self, p: Position, finding: str, status: str, reason: str) -> None:
        """Print a line, once."""
        said = (key(p), finding, status, reason)
        if (self.all or status == "affected") and said not in self._said:
            self._said.add(said)
            print(f"{p[0].file}:{p[0].line}:{p[0].column}-{p[0].column_end}: {finding}: {status}: {reason}")

    def say_all(self, finding: str, status: str, reason: str) -> None:
        """Say it of each file that has an anchor."""
        for p in self.anchors.values():
            self.say(p, finding, status, reason)
