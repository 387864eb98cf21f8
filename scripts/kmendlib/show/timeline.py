# SPDX-License-Identifier: GPL-2.0-only
"""The interleavings of the bugs, as data: Documentation/bugs/BUG.toml.  A bug's page and the report show the same."""

from dataclasses import dataclass
from typing import Any

from kmendlib.tree import diagram

# An SVG's own units.  A character is as wide as in the widest monospaced font in use, so that no text leaves its lane.
_CHAR, _ROW, _PAD = 7.9, 19, 10


@dataclass(frozen=True)
class Timeline:
    """One interleaving of two actors.

    Attributes:
        finding: the id of the finding that it explains.
        title: what happens, in a few words.
        lanes: the two actors.
        rows: from top to bottom, what each lane does at a moment; leading spaces say what calls what.
        wrong: the numbers of the rows in which it goes wrong.
        forced: whether a race is forced by it.
    """

    finding: str
    title: str
    lanes: tuple[str, str]
    rows: tuple[tuple[str, str], ...]
    wrong: frozenset[int]
    forced: bool

    def to_text(self, widths: tuple[int, int] | None = None) -> str:
        """Return it as the bug's page has it.

        Args:
            widths: of the two columns; by default as wide as their text.
        """
        lines = [self.lanes, *self.rows]
        left, right = widths or (max(len(line[0]) for line in lines), max(len(line[1]) for line in lines))
        shown = [self.lanes, ("-" * left, "-" * right), *self.rows]
        return "\n".join(f"{first:{left}}  {second}".rstrip() for first, second in shown)

    def wide(self) -> "Drawing":
        """Lay it out in two lanes side by side."""
        widths = [max(map(len, cells)) * _CHAR + 4 * _PAD for cells in zip(self.lanes, *self.rows, strict=True)]
        starts = (0.0, widths[0] + _PAD)
        marks = [
            Mark(lane, start + 1.2 * _PAD, start + 2.4 * _PAD, 2.4 * _ROW + row * _ROW, text, row in self.wrong)
            for row, cells in enumerate(self.rows)
            for lane, (start, text) in enumerate(zip(starts, cells, strict=True))
            if text
        ]
        height = 2.4 * _ROW + len(self.rows) * _ROW
        return Drawing(starts[1] + widths[1], height, starts, (widths[0], widths[1]), tuple(marks))

    def narrow(self) -> "Drawing":
        """Lay it out for a telephone: two rails at the left, one line of text below the other."""
        marks = []
        y = 3.4 * _ROW
        for row, cells in enumerate(self.rows):
            for lane, text in enumerate(cells):
                if text:
                    x = 0.8 * _PAD + lane * 1.6 * _PAD
                    marks.append(Mark(lane, x, 4.2 * _PAD, y, text, row in self.wrong))
                    y += _ROW
        longest = max(len(text) for text in (*self.lanes, *(cell for row in self.rows for cell in row)))
        rails = (0.8 * _PAD, 2.4 * _PAD)
        return Drawing(4.2 * _PAD + (longest + 3) * _CHAR, y, rails, (0, 0), tuple(marks))


@dataclass(frozen=True)
class Mark:
    """One step: its lane, the place of its dot and of its text, and whether it goes wrong there."""

    lane: int
    dot: float
    left: float
    y: float
    line: str
    wrong: bool

    @property
    def text(self) -> str:
        """The text without its indentation."""
        return self.line.lstrip()

    @property
    def x(self) -> float:
        """Where the text begins."""
        return round(self.left + (len(self.line) - len(self.text)) * _CHAR, 1)

    @property
    def length(self) -> float:
        """How much room the text has."""
        return round(len(self.text) * _CHAR, 1)


@dataclass(frozen=True)
class Drawing:
    """A timeline's places in an SVG of this width and height; lanes begin at `starts` and are `widths` wide."""

    width: float
    height: float
    starts: tuple[float, float]
    widths: tuple[float, float]
    marks: tuple[Mark, ...]


def timelines(bug: str) -> list[Timeline]:
    """Return a bug's timelines; none if it has none. Raises BadInput where they are wrong."""
    return diagram.diagrams(bug, _timeline)


def _timeline(finding: str, title: str, lanes: tuple[str, str], rows: tuple[Any, ...], **_: Any) -> Timeline:
    wrong = (at for at, row in enumerate(rows) if any(what == "wrong" or "mark" in what for what in row[2:]))
    forced = any(isinstance(what, dict) for row in rows for what in row[2:])
    return Timeline(finding, title, lanes, tuple((row[0], row[1]) for row in rows), frozenset(wrong), forced)
