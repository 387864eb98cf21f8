# SPDX-License-Identifier: GPL-2.0-only
"""What nfsd-cb-shutdown-courtesy.cocci makes of what it finds."""

from __future__ import annotations

import re

from kmend_rule import Key, Position, Report, file_of, function_of, key

# A client that is in the state, or not active.
_COURTESY = re.compile(
    r"[\w>.-]+->cl_state(==|>=)NFSD4?_COURTESY|[\w>.-]+->cl_state!=NFSD4?_ACTIVE|NFSD4?_COURTESY==[\w>.-]+->cl_state"
)


def operands(text: str) -> list[str]:
    """The operands of || in an expression without blanks, as far as no other operator is around them."""
    if "?" in text:
        return [text]
    depth, ends = 0, []
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and (letter == ")" or text.startswith("||", at)):
            ends.append(at)
    if text.startswith("(") and ends == [len(text) - 1]:
        return operands(text[1:-1])
    cuts = [-2, *(at for at in ends if text[at] == "|"), len(text)]
    parts = [text[first + 2 : last] for first, last in zip(cuts, cuts[1:], strict=False)]
    return [each for part in parts for each in operands(part)] if len(parts) > 1 else parts


class Courtesy:
    """What was found for courtesy-hang.

    owner: the code that destroys clients is at hand.
    courtesy: there is a courtesy state.
    works: work functions.
    sends: where something is sent.
    silent: of these, where a courtesy client may be sent something.
    mentions: where the state is looked at.
    leaves: functions that leave a courtesy client out.
    """

    FINDING = "nfsd-cb-shutdown/courtesy-hang"

    def __init__(self) -> None:
        self.out = Report()
        self.owner = self.courtesy = False
        self.works: set[str] = set()
        self.sends: list[Position] = []
        self.silent: set[Key] = set()
        self.mentions: list[Position] = []
        self.leaves: set[tuple[str, str]] = set()

    def left(self, p: Position, condition: str) -> None:
        """A function returns if this is true."""
        parts = operands(re.sub(r"\b(un)?likely\b|\s", "", condition))
        if any(_COURTESY.fullmatch(part) for part in parts):
            self.leaves.add((file_of(p), function_of(p)))

    def judge(self) -> None:
        """Say it of each place that sends."""
        for p in self.sends:
            self.out.say(p, self.FINDING, *self._judge(p))

    def _judge(self, p: Position) -> tuple[str, str]:
        fn = function_of(p)
        here = [place for place in self.mentions if file_of(place) == file_of(p)]
        looks = [place for place in here if function_of(place) == fn]
        silent = key(p) in self.silent
        if fn not in self.works:
            return "unknown", f"{fn}() sends callbacks, and is no work function"
        if not silent and (file_of(p), fn) in self.leaves:
            return "fixed", f"{fn}() sends nothing to a courtesy client"
        if not self.courtesy and not here:
            if self.owner:
                return "not-applicable", "clients have no courtesy state"
            return "unknown", "the states of a client are not known"
        if silent and not here:
            return "affected", f"{fn}() sends callbacks to courtesy clients too"
        if silent and looks:
            return "affected", f"{fn}() looks at the state of the client on one path only"
        return "unknown", "the state of the client is looked at in a way that no rule knows"
