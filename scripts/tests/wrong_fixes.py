# SPDX-License-Identifier: GPL-2.0-only
"""Wrong fixes: what becomes of a fix where one line of it is left out, turned round, moved or weakened.

A fix is the difference between a file as it is with the bug and as it is mended; each wrong one is the mended file with
one change, made in what the fix added, or with one part of the fix taken back.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

TESTS = Path(__file__).resolve().parent
# What is not code: comments, strings and characters. A preprocessor's line is taken for none.
_NO_CODE = re.compile(
    r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|^[ \t]*#(?:\\\n|[^\n])*", re.S | re.M
)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_DECLARES = re.compile(
    r"(?:(?:const|static|unsigned|struct|enum|union|bool|int|long|char|void|size_t|[us]\d+|__be\d+)\b[\w *]*[ *]\w+"
    r"(?:\[\w*\])?(?: = .*|, .*)?;|(?:LIST_HEAD|DEFINE_\w+|DECLARE_\w+)\()",
    re.S,
)
_HEAD = re.compile(r"\b(?:(if|while|switch|for)|(\w*for_each\w*|scoped_guard))\s*\(|\b(?:else|do)\b")
_LABEL = re.compile(r"(?:case\b[^:;{}?]*|\w+)\s*:(?!:)")
_LEAVES = re.compile(r"(?:return|goto|break|continue)\b")
# What orders, waits or counts, and what does less of it. The weaker one takes the same arguments, or some of them.
WEAKER = (
    (r"\bwait_event\(", "wait_event_timeout({0}, {1}, 1)"),
    (r"\bwait_var_event\(", "wait_var_event_timeout({0}, {1}, 1)"),
    (r"\bclear_and_wake_up_bit\(", "clear_bit({0}, {1})"),
    (r"\btest_and_set_bit\(", "test_bit({0}, {1})"),
    (r"\btest_and_clear_bit\(", "test_bit({0}, {1})"),
    (r"\batomic_dec_and_test\(", "(atomic_read({0}) == 1)"),
    (r"\brefcount_inc_not_zero\(", "(refcount_read({0}) != 0)"),
    (r"\bsmp_store_release\(", "WRITE_ONCE(*({0}), {1})"),
    (r"\bsmp_load_acquire\(", "READ_ONCE(*({0}))"),
    (r"\brcu_assign_pointer\(", "RCU_INIT_POINTER({0}, {1})"),
    (r"\blist_add_rcu\(", "list_add({0}, {1})"),
    (r"\blist_add_tail_rcu\(", "list_add_tail({0}, {1})"),
    (r"\blist_del_rcu\(", "list_del({0})"),
    (r"\blist_del_init\(", "list_del({0})"),
    (r"\bcancel_work_sync\(", "cancel_work({0})"),
    (r"\bcancel_delayed_work_sync\(", "cancel_delayed_work({0})"),
    (r"\bkfree_rcu\((?=[^;]*,)", "kfree({0})"),
    (r"\bspin_lock_irqsave\(", "spin_lock({0})"),
    (r"\bspin_unlock_irqrestore\(", "spin_unlock({0})"),
)


@dataclass(frozen=True)
class WrongFix:
    """A fix with one thing wrong.

    Attributes:
        bug: the bug's id.
        path: the file's path in the tree.
        place: the function, or what else the change is in.
        what: what was done, and to which code.
        text: the file.
    """

    bug: str
    path: str
    place: str
    what: str
    text: str

    @property
    def name(self) -> str:
        """What no other one has, and what is the same as long as the code is."""
        return f"{self.path}:{self.place}: {self.what}"


@dataclass(frozen=True)
class _Part:
    """A statement, or the head of one: where its text lies, and of a condition where that does."""

    start: int
    end: int
    depth: int
    kind: str
    function: str
    condition: tuple[int, int] | None = None


def _blank(text: str) -> str:
    """Return a text with blanks in place of all that is not code."""
    return _NO_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _close(code: str, at: int) -> int:
    """Return the place behind the bracket that closes the one at a place."""
    depth = 0
    for place in range(at, len(code)):
        depth += (code[place] in "([{") - (code[place] in ")]}")
        if not depth:
            return place + 1
    return len(code)


def _statement(code: str, at: int) -> int:
    """Return the place behind the semicolon that ends a statement."""
    while at < len(code) and code[at] != ";":
        at = _close(code, at) if code[at] in "([{" else at + 1
    return at + 1


def _parts(code: str) -> Iterator[_Part]:
    """Yield the statements of all functions, and the heads of those that hold others."""
    at, depth, function, outside = 0, 0, "", True
    while at < len(code):
        if code[at].isspace():
            at += 1
        elif code[at] in "{}":
            depth += 1 if code[at] == "{" else -1
            outside = outside or not depth
            at += 1
        elif outside:
            # What is no function ends with a semicolon, whatever brackets it has.
            end = at
            while end < len(code) and code[end] not in ";{}":
                end = _close(code, end) if code[end] in "([" else end + 1
            named = re.findall(r"(\w+)\s*\(", code[at:end])
            if code[end : end + 1] == "{" and named and "=" not in code[at:end]:
                function, outside, at = named[0], False, end
            else:
                at = max(_statement(code, end), at + 1)
        elif head := _HEAD.match(code, at):
            end, condition = head.end(), None
            if head[0].endswith("("):
                end = _close(code, end - 1)
                condition = (head.end(), end - 1) if head[1] in ("if", "while") else None
            if head[1] == "while" and code[end:].lstrip().startswith(";"):
                end = _statement(code, end)
            yield _Part(at, end, depth, "head", function, condition)
            at = end
        elif label := _LABEL.match(code, at):
            at = label.end()
        elif code[at] == ";":
            at += 1
        else:
            end = _statement(code, at)
            yield _Part(at, end, depth, "statement", function)
            at = end


def groups(before: str, after: str) -> list[tuple[range, range]]:
    """Return what differs: the lines, from 0, of the one text, and those that stand in the other in their place."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        paths = [Path(folder, name) for name in ("before", "after")]
        for path, text in zip(paths, (before, after), strict=True):
            path.write_text(text, encoding="utf-8")
        said = subprocess.run(["diff", "-U0", *paths], capture_output=True, check=False, encoding="utf-8").stdout
    found = re.findall(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", said, re.M)
    # Of no lines diff names the line before.
    ends = [[(int(at), int(n or 1)) for at, n in (row[:2], row[2:])] for row in found]
    old, new = [tuple(range(at - (n > 0), at - (n > 0) + n) for at, n in side) for side in zip(*ends, strict=True)]
    return list(zip(old, new, strict=True))


def _words(text: str) -> str:
    """Return code in one line."""
    return " ".join(text.split())


def _place(lines: Sequence[str], at: int) -> str:
    """Name the function or structure that a line is in."""
    first = next((line for line in reversed(lines[: at + 1]) if re.match(r"[A-Za-z_]\w*[^:\n]*$", line)), "")
    found = re.search(r"(\w+)\(|(?:struct|union|enum) (\w+)", first)
    return (found[1] or found[2]) if found else ""


def _content(text: str) -> str:
    """Return what the compiler sees of a file, without empty statements."""
    return re.sub(r"([;{}])(?: ;)+", r"\1", _words(_blank(text)))


def _replace(text: str, start: int, end: int, new: str) -> str:
    """Put something else into a text, of as many lines: what the compiler says of a line is the same."""
    return text[:start] + new + "\n" * (text.count("\n", start, end) - new.count("\n")) + text[end:]


def _arguments(code: str, at: int) -> list[tuple[int, int]]:
    """Return where the arguments of a call lie, whose bracket is at a place."""
    end, found, start = _close(code, at) - 1, [], at + 1
    place = start
    while place < end:
        if code[place] == ",":
            found.append((start, place))
            start = place + 1
        place = _close(code, place) if code[place] in "([{" else place + 1
    return [*found, (start, end)]


def _operands(code: str, start: int, end: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield where each operand of a condition lies whose operators are all && or all ||, and it with its operator."""
    ends, place = [start], start
    while place < end:
        if code[place : place + 2] in ("&&", "||"):
            ends.append(place)
            place += 2
        else:
            place = _close(code, place) if code[place] in "([{" else place + 1
    if len({code[at : at + 2] for at in ends[1:]}) != 1:
        return
    for number, (first, last) in enumerate(pairwise([*ends, end])):
        yield (first + 2 * bool(number), last), ((first, last) if number else (first, last + 2))


def _changes(text: str, code: str, touched: set[int]) -> Iterator[tuple[str, str, str]]:
    """Yield a function, what is done there, and the text that comes of it."""
    parts = list(_parts(code))
    line = [0]
    for letter in code:
        line.append(line[-1] + (letter == "\n"))

    def mine(part: _Part) -> bool:
        return bool(touched & set(range(line[part.start], line[part.end - 1] + 1)))

    for part in filter(mine, parts):
        said = text[part.start : part.end]
        if part.kind == "statement" and not _DECLARES.match(code, part.start, part.end):
            yield part.function, f"left out: {_words(said)}", _replace(text, part.start, part.end, ";")
        if part.condition:
            start, end = part.condition
            turned = f"!({text[start:end]})"
            yield part.function, f"turned round: {_words(said)}", text[:start] + turned + text[end:]
            for place, rest in _operands(code, start, end):
                what = f"not asked: {_words(text[slice(*place)])} in {_words(said)}"
                yield part.function, what, _replace(text, *rest, "")
        for pattern, weaker in WEAKER:
            for call in re.finditer(pattern, code[part.start : part.end]):
                at = part.start + call.end() - 1
                given = [text[slice(*place)].strip() for place in _arguments(code, at)]
                start, end = part.start + call.start(), _close(code, at)
                new = weaker.format(*given)
                yield part.function, f"weaker: {_words(text[start:end])}", _replace(text, start, end, new)
    for one, two in pairwise(parts):
        pair = (one, two)
        between = code[one.end : two.start]
        simple = all(each.kind == "statement" and not _LEAVES.match(code, each.start) for each in pair)
        declared = any(_DECLARES.match(code, each.start, each.end) for each in pair)
        # A label, or a bracket, lies between.
        if simple and not declared and not between.strip() and one.depth == two.depth and any(map(mine, pair)):
            first, second = text[one.start : one.end], text[two.start : two.end]
            new = second + text[one.end : two.start] + first
            what = f"swapped: {_words(first)} {_words(second)}"
            yield one.function, what, text[: one.start] + new + text[two.end :]


def wrong_fixes(bug: str, path: str, before: str, after: str) -> list[WrongFix]:
    """Return all wrong versions of a fix of one file, each code once.

    Args:
        bug: the bug's id.
        path: the file's path in the tree.
        before: the file with the bug.
        after: the mended file.
    """
    code = _blank(after)
    differ = groups(before, after)
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    made: list[tuple[str, str, str]] = []
    for theirs, ours in differ:
        gone, came = ("".join(lines[line] for line in those) for lines, those in ((old, theirs), (new, ours)))
        what = f"taken back: {_words(_COMMENT.sub('', came))}" if _blank(came).strip() else f"left in: {_words(gone)}"
        text = "".join([*new[: ours.start], gone, *new[ours.stop :]])
        made.append((_place(new, max(ours.start, ours.stop - 1)), what, text))
    touched = {line for _, ours in differ for line in ours}
    made += _changes(after, code, touched)
    seen = {_content(text) for text in (before, after)}
    found: list[WrongFix] = []
    for place, what, text in made:
        if (content := _content(text)) in seen:
            continue
        seen.add(content)
        one = WrongFix(bug, path, place, what, text)
        again = sum(other.name.partition(" #")[0] == one.name for other in found)
        found.append(WrongFix(bug, path, place, f"{what} #{again + 1}", text) if again else one)
    return found


def reasons() -> dict[str, dict[str, str]]:
    """Read wrong-fixes.toml: by bug and name of a wrong fix why no test can notice it."""
    rows = tomllib.loads((TESTS / "wrong-fixes.toml").read_text(encoding="utf-8"))
    return {bug: {row["name"]: row["why"] for row in those} for bug, those in rows.items()}


def unknown(every: Sequence[WrongFix]) -> list[str]:
    """Return what wrong-fixes.toml names and nobody makes."""
    names = {(each.bug, each.name) for each in every}
    bugs = {each.bug for each in every}
    return [name for bug, those in reasons().items() if bug in bugs for name in those if (bug, name) not in names]
