# SPDX-License-Identifier: GPL-2.0-only
"""The rules in scripts/audit: what a rule is given of a tree's files, what Coccinelle says then, and the memory of it.

A rule gets only those functions that hold one of the words in its header, each on its own lines, so Coccinelle parses a
few hundred lines instead of some thousands. What it said of the same text once, it need not say again: it is kept in
the cache folder, by the content of all that it depends on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kmendlib.host import files, paths
from kmendlib.host.errors import Infrastructure
from kmendlib.tree import cocci, code

# What was said is kept for this many texts, each of a few kilobytes.
_KEPT = 2000
# The format of what is kept.
_FORMAT = b"kmend audit 1\n"

# This many readings of the #ifs of a file are looked at.
_READINGS = 4


class Refused(Exception):
    """Coccinelle gave up on a file."""


@dataclass(frozen=True)
class Rule:
    """A semantic patch.

    path: its file.
    words: what a function holds that it looks at; None if it looks at all of a file.
    others: the same for files of which it looks at other things, by their names; what calls such a function is none.
    follow: it looks at what calls such functions, too.
    homes: functions by which a file is known that has another name in its folder.
    older: what a tree of before the code in question has in a file.
    options: what must be set in a configuration, so that the code is built.
    """

    path: Path
    words: re.Pattern[str] | None
    others: tuple[tuple[str, re.Pattern[str]], ...]
    follow: bool
    homes: tuple[tuple[str, tuple[str, ...]], ...]
    older: re.Pattern[str] | None
    options: tuple[str, ...]


@functools.cache
def load(path: Path) -> Rule:
    """Read a rule with what its header says, one line each, or several.

    ``// Reads: REGEX``, ``// Reads of FILE: REGEX``, ``// Follows: calls``, ``// Home: FILE: FUNCTION...``,
    ``// Older: REGEX``, ``// Built: OPTION...``.
    """
    head = path.read_text(encoding="utf-8").partition("\nvirtual ")[0]

    def lines(key: str) -> list[str]:
        return re.findall(rf"^// {key}: (.+)$", head, re.MULTILINE)

    def pattern(key: str) -> re.Pattern[str] | None:
        return re.compile("|".join(lines(key))) if lines(key) else None

    homes = [line.split(": ") for line in lines("Home")]
    return Rule(
        path,
        pattern("Reads"),
        tuple((name, re.compile(each)) for name, each in re.findall(r"^// Reads of (\S+): (.+)$", head, re.MULTILINE)),
        bool(lines("Follows")),
        tuple((name, tuple(functions.split())) for name, functions in homes),
        pattern("Older"),
        tuple(word for line in lines("Built") for word in line.split()),
    )


@dataclass(frozen=True, order=True)
class Said:
    """One line of a rule's output.

    file, line, column: the place; the file relative to the tree.
    finding: its id.
    status: what the rule says of the finding, or "seen".
    reason: why.
    """

    file: str
    line: int
    column: int
    finding: str
    status: str
    reason: str


_LINE = re.compile(r"(.+?):(\d+):(\d+)-\d+: ([\w-]+/[\w-]+): ([\w-]+): (.*)")


@dataclass(frozen=True)
class Answer:
    """What is known of some files.

    said: the lines of a rule's output, each once.
    torn: by the file, line and reason if what the rule looks at is not whole.
    uses: by the file, line and column of each use of a name in code.
    """

    said: Sequence[Said]
    torn: Mapping[str, tuple[int, str]]
    uses: Mapping[str, Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class Question:
    """What a rule is asked: some files, in this order, and a name whose uses are looked for in them."""

    rule: Rule
    files: Mapping[str, Source]
    symbol: str

    @property
    def key(self) -> str:
        """All that the answer depends on."""
        parts = [part for name, source in self.files.items() for part in (name.encode(), source.data)]
        return _key(self.rule.path, self.symbol.encode(), *parts)

    def texts(self) -> list[dict[str, str]]:
        """Return what Coccinelle is given, by file: each reading of one goes with the first reading of the others."""
        readings = [source.readings(self.rule, name) for name, source in self.files.items()]
        return [
            {name: each[min(number, len(each) - 1)] for name, each in zip(self.files, readings, strict=True)}
            for number in range(max(map(len, readings), default=0))
        ]


def prepare(questions: Iterable[Question]) -> None:
    """Look for the answers to all of these at once, for `ask`: to start Coccinelle takes most of its time."""
    unknown = [each for each in questions if not _known(each.key)]
    asked = [(each.rule.path, text) for each in unknown for text in each.texts()]
    wanted = {_text_key(rule, text): (rule, text) for rule, text in asked}
    wanted = {key: each for key, each in wanted.items() if not _known(key)}
    # All texts of a rule go together, the largest first to who has least.
    texts: dict[Path, list[str]] = {}
    for key, (rule, _) in wanted.items():
        texts.setdefault(rule, []).append(key)
    size = {rule: sum(_weight(wanted[key][1]) for key in keys) for rule, keys in texts.items()}
    shares: list[list[str]] = [[] for _ in range(_CPUS)]
    loads = [0] * _CPUS
    for rule in sorted(texts, key=size.__getitem__, reverse=True):
        least = loads.index(min(loads))
        shares[least] += texts[rule]
        loads[least] += size[rule]
    with ThreadPoolExecutor(_CPUS) as pool:
        found = list(pool.map(lambda keys: _together([wanted[key] for key in keys]), shares))
    for keys, said in zip(shares, found, strict=True):
        for key, each in zip(keys, said, strict=True):
            if each is not None:
                _kept(key, functools.partial(str, each))


def _weight(text: Mapping[str, str]) -> int:
    """Return how much work a text is: a rule, by itself, is as much as some functions."""
    return 6000 + sum(len(each.split()) for each in text.values())


def ask(question: Question) -> Answer:
    """Return what a rule says of some files, all at once, and where a name is used in them.

    Raises:
        Refused: Coccinelle gave up on these files.
        Infrastructure: Coccinelle is missing or does not work at all.
    """
    rule, files = question.rule, question.files

    def find() -> str:
        lines: dict[str, None] = {}
        for text in question.texts():
            lines |= dict.fromkeys(_spatch(rule.path, text).splitlines())
        torn = {name: source.torn(rule, name) for name, source in files.items()}
        symbol = question.symbol
        uses = {name: code.uses(source.clean, symbol) if symbol else [] for name, source in files.items()}
        return json.dumps([list(lines), {name: at for name, at in torn.items() if at}, uses])

    lines, torn, uses = json.loads(_kept(question.key, find))
    matches = [match for match in map(_LINE.fullmatch, lines) if match]
    return Answer([Said(match[1], int(match[2]), int(match[3]), *match.groups()[3:]) for match in matches], torn, uses)


class Source:
    """The text of one file, as rules read it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.dos = b"\r\n" in data
        self.pointer = data.startswith(b"version https://git-lfs.github.com/spec/")
        self._lock = threading.Lock()
        self._readings: dict[tuple[Rule, str], list[str]] = {}

    @functools.cached_property
    def text(self) -> str:
        """All of it, with the line ends of Unix."""
        return self.data.decode("latin-1").replace("\r\n", "\n")

    @functools.cached_property
    def clean(self) -> str:
        """What is code in it."""
        return code.code(self.text)

    @functools.cached_property
    def parts(self) -> tuple[list[code.Part], bool]:
        """Its definitions and declarations, and whether the last one is whole."""
        return code.split(self.clean)

    def readings(self, rule: Rule, name: str) -> list[str]:
        """Return what a rule looks at, the rest blanked out; several texts where an #if cuts a statement in two."""
        with self._lock:
            if (rule, name) not in self._readings:
                other = dict(rule.others).get(name)
                words = other or rule.words
                follow = rule.follow and not other
                text = code.pick(self.text, self.clean, self.parts[0], words, follow) if words else self.text
                self._readings[rule, name] = code.readings(text, _READINGS)
            return self._readings[rule, name]

    def torn(self, rule: Rule, name: str) -> tuple[int, str] | None:
        """Return line and reason if what a rule looks at is not whole."""
        if not self.parts[1]:
            return code.last_line(self.text), "the file ends within a function or an #if"
        for text in self.readings(rule, name):
            found = code.torn(code.code(text))
            if found:
                return found
        return None


# One for each processor, whoever asks.
_CPUS = len(os.sched_getaffinity(0))
_room = threading.Semaphore(_CPUS)
_memo: dict[str, Future[str]] = {}
_lock = threading.Lock()


def _text_key(rule: Path, text: Mapping[str, str]) -> str:
    return _key(rule, *(part for name, each in text.items() for part in (name.encode(), each.encode("latin-1"))))


def _spatch(rule: Path, text: Mapping[str, str]) -> str:
    """Return what Coccinelle prints of a rule on files with this text."""
    return _kept(_text_key(rule, text), lambda: _alone(rule, text))


def _known(key: str) -> bool:
    """Return whether there is an answer already, or somebody looks for it."""
    return key in _memo or _recall(paths.cache() / "audit" / key) is not None


def _kept(key: str, find: Callable[[], str]) -> str:
    """Return what is known by a key; what is not known is found, once, and kept."""
    with _lock:
        mine = key not in _memo
        future = _memo.setdefault(key, Future())
    if mine:
        path = paths.cache() / "audit" / key
        try:
            said = _recall(path)
            if said is None:
                said = find()
                _remember(path, said)
            future.set_result(said)
        except BaseException as error:
            # Who asks again gets a new try.
            del _memo[key]
            future.set_exception(error)
    return future.result()


def _key(rule: Path, *parts: bytes) -> str:
    """All that an answer depends on: the program, the rule with what it imports, this module, and the files."""
    total = hashlib.sha256(_FORMAT)
    program = cocci.program()
    status = program.stat()
    own = rule.read_bytes()
    modules = sorted(rule.parent.glob("*.py")) if b"\nimport " in own else []
    # What makes a text of a file is part of the answer, too.
    read = [each.read_bytes() for each in (*modules, Path(__file__), Path(code.__file__), Path(cocci.__file__))]
    who = f"{program}\0{status.st_size}\0{status.st_mtime_ns}\0{cocci.PYTHON}".encode()
    for part in (who, rule.name.encode(), own, *read, b"", *parts):
        total.update(b"%d\0" % len(part) + part)
    return total.hexdigest()


def _recall(path: Path) -> str | None:
    """Return what is kept in a file; None if there is nothing, or not what was written."""
    try:
        head, digest, data = path.read_bytes().split(b"\n", 2)
    except (OSError, ValueError):
        return None
    if head + b"\n" != _FORMAT or hashlib.sha256(data).hexdigest().encode() != digest:
        return None
    return data.decode("latin-1")


def _remember(path: Path, said: str) -> None:
    """Keep an answer; where the cache cannot be written to, it is not kept."""
    data = said.encode("latin-1", errors="replace")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write({path: _FORMAT + hashlib.sha256(data).hexdigest().encode() + b"\n" + data})
        # The newest alone are kept; half of the room is made at a time.
        if len(os.listdir(path.parent)) > _KEPT:
            for old in sorted(path.parent.iterdir(), key=lambda each: each.stat().st_mtime)[: -_KEPT // 2]:
                old.unlink(missing_ok=True)


_NO_ROOM = re.compile(r"No space left|Cannot allocate|[Oo]ut of memory|Out_of_memory|quota exceeded|Read-only file")


def _together(texts: Sequence[cocci.Text]) -> Sequence[str | None]:
    """Return what rules say of these texts, None where nothing is known: that is looked at by itself."""
    with _room:
        try:
            return cocci.run(texts).lines if texts else []
        except (OSError, subprocess.TimeoutExpired, Infrastructure):
            return [None] * len(texts)


def _alone(rule: Path, text: Mapping[str, str]) -> str:
    """Return what a rule says of a text; if it says nothing, tell why."""
    try:
        with _room:
            done = cocci.run([(rule, text)])
        if done.lines[0] is not None:
            return done.lines[0]
        words = (done.errors.strip().splitlines() or [f"exit status {done.code}"])[-1]
        # Not for the code that it read.
        if done.code < 0 or _NO_ROOM.search(done.errors):
            raise Infrastructure(f"spatch was cut off: {words}")
        # Is it these files, or Coccinelle itself?
        if cocci.run([(rule, {"empty.c": ""})]).lines[0] is None:
            raise Infrastructure(f"spatch does not work with {rule}: {words}")
    except subprocess.TimeoutExpired as error:
        raise Refused(f"no answer after {error.timeout:.0f} s") from error
    raise Refused(words)
