# SPDX-License-Identifier: GPL-2.0-only
"""The interleavings of the bugs as data, Documentation/bugs/BUG.toml: what a page draws, and what a race follows."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kmendlib.tree.manifest import REPO, reading

PAGES = REPO / "Documentation" / "bugs"
# Each CPU calls it at each tick of its timer, and it is in a file of its own: the guest's clock for a bound.
TICK = "update_process_times"

_Diagram = TypeVar("_Diagram")


@dataclass(frozen=True)
class Value:
    """A function's argument, and the offsets at which memory is read from there on, one after the other."""

    argument: int
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Condition:
    """That a value is an address or a number (`inside` is false), or lies in the object there; or that it is not so."""

    value: Value
    inside: bool
    wanted: bool
    name: str


@dataclass(frozen=True)
class Place:
    """Where a vCPU is stopped.

    Attributes:
        text: as the file has it.
        kind: ``enter``, ``leave`` or ``stay`` of a function, ``call`` of one in another, a ``return`` from there, or
            a ``write`` to an object.
        functions: the function's names, of which the kernel has one; or the object's name.
        callers: likewise those of the calling function.
        number: which of the calls in the caller, from 1; 0 for all.
        offset: of what is written, in the object.
        conditions: what must hold, too.
        keep: names for values, with what is added to each, and the sizes of the objects there.
    """

    text: str
    kind: str
    functions: tuple[str, ...]
    callers: tuple[str, ...] = ()
    number: int = 0
    offset: int = 0
    conditions: tuple[Condition, ...] = ()
    keep: tuple[tuple[str, Value, int, int], ...] = ()


_PLACE = re.compile(
    r"(?P<kind>enter|leave|stay|call|return|write) (?P<functions>[\w|]+)(?:\[(?P<offset>-?\d+)\])?"
    r"(?: in (?P<callers>[\w|]+))?(?: number (?P<number>\d+))?(?: if (?P<conditions>.*?))?(?: keep (?P<keep>.*))?"
)
_VALUE = r"arg(\d)((?:\[-?\d+\])*)"
_CONDITION = re.compile(_VALUE + r" (is|in|is not|not in) (\w+)")
_KEEP = re.compile(r"(\w+) = " + _VALUE + r"(-\d+)?(?: for (\d+))?")


def _value(argument: str, offsets: str) -> Value:
    return Value(int(argument), tuple(map(int, re.findall(r"-?\d+", offsets))))


def _each(what: str, pattern: re.Pattern[str], text: str | None) -> Iterator[re.Match[str]]:
    for part in filter(None, (text or "").split(" and ")):
        said = pattern.fullmatch(part)
        if not said:
            raise ValueError(f"{what}: {part}")
        yield said


def place(text: str) -> Place:
    """Read a place as the file has it.

    Raises:
        ValueError: it is none.
    """
    found = _PLACE.fullmatch(text)
    if not found or (found["kind"] in ("call", "return")) != bool(found["callers"]):
        raise ValueError(f"no place: {text}")
    conditions = _each("no condition", _CONDITION, found["conditions"])
    keep = _each("nothing to keep", _KEEP, found["keep"])
    return Place(
        text,
        found["kind"],
        tuple(found["functions"].split("|")),
        tuple(found["callers"].split("|")) if found["callers"] else (),
        int(found["number"] or 0),
        int(found["offset"] or 0),
        tuple(Condition(_value(it[1], it[2]), "in" in it[3], "not" not in it[3], it[4]) for it in conditions),
        tuple((it[1], _value(it[2], it[3]), int(it[4] or 0), int(it[5] or 1)) for it in keep),
    )


@dataclass(frozen=True)
class Step:
    """What happens at a row of the diagram.

    Attributes:
        row: the row's number.
        lane: the lane's.
        what: ``see`` (somebody comes there), ``park``, ``mark`` (it goes wrong) or ``then`` (on the way to the crash).
        places: where, one for each shape of the code.
    """

    row: int
    lane: int
    what: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Script:
    """An interleaving as it is forced.

    Attributes:
        finding: the finding that it shows.
        title: the diagram's.
        lanes: the names of the two lanes.
        steps: up to the mark, in order.
        then: what follows on the mark before all are let go.
        held: row and places of the lane that goes for the mark, where the fix makes it wait.
        control: a step that takes the place of the last `park`: outside the window.
        passed: where the other lane comes by in the control.
    """

    finding: str
    title: str
    lanes: tuple[str, str]
    steps: tuple[Step, ...]
    then: tuple[Step, ...]
    held: Step
    control: Step
    passed: Step

    def names(self) -> list[str]:
        """Return the symbols that it may need."""
        found = {TICK: None}
        for step in (*self.steps, *self.then, self.held, self.control, self.passed):
            for one in step.places:
                names = [*one.functions, *one.callers, *(condition.name for condition in one.conditions)]
                found |= dict.fromkeys(names)
        kept = {name for step in self.steps for one in step.places for name, *_ in one.keep}
        return [name for name in found if name not in kept and not name.isdigit()]


def _places(value: str | Iterable[str]) -> tuple[Place, ...]:
    return tuple(map(place, [value] if isinstance(value, str) else value))


def script(timeline: dict[str, Any]) -> Script | None:
    """Read the script of a diagram; None if it has none.

    Raises:
        ValueError: it is incomplete.
    """
    found: dict[str, list[Step]] = {"steps": [], "then": [], "held": [], "control": [], "pass": []}
    for number, row in enumerate(timeline["rows"]):
        table: dict[str, str | Iterable[str]] = next((cell for cell in row[2:] if isinstance(cell, dict)), {})
        for what, value in table.items():
            lane = 1 if row[1] and not row[0] else 0
            where = what if what in found else "steps"
            found[where].append(Step(number, lane, what, _places(value)))
    if not any(found.values()):
        return None
    finding = str(timeline["finding"])
    order = [step.what for step in found["steps"]]
    single = all(len(found[what]) == 1 for what in ("held", "control", "pass"))
    if order.count("mark") != 1 or order[-1] != "mark" or not single:
        raise ValueError(f"{finding}: a script has one mark as its last step, and one of held, control and pass")
    if "park" not in order:
        raise ValueError(f"{finding}: nobody is parked")
    return Script(
        finding,
        str(timeline["title"]),
        (timeline["lanes"][0], timeline["lanes"][1]),
        tuple(found["steps"]),
        tuple(found["then"]),
        found["held"][0],
        found["control"][0],
        found["pass"][0],
    )


def diagrams(bug: str, make: Callable[..., _Diagram] = dict) -> list[_Diagram]:
    """Return the diagrams of a bug's page; none if it has none.

    Args:
        bug: the bug's id.
        make: what makes one of the keys and values that the file has.

    Raises:
        BadInput: the file is wrong.
    """
    path = PAGES / f"{bug}.toml"
    if path.parent != PAGES or not path.is_file():
        return []
    with reading(path) as table:
        return [make(**each) for each in table["timeline"]]


def scripts(bug: str) -> list[Script]:
    """Return the scripts of a bug's diagrams.

    Raises:
        ValueError: one is incomplete.
    """
    return [found for item in diagrams(bug) if (found := script(item))]
