# SPDX-License-Identifier: GPL-2.0-only
"""C source as text: what is code in it, where its functions are, whether it is whole, and both readings of an #if.

No preprocessor runs and nothing is parsed: tokens, braces and directives are all that is looked at. Every text that
comes out has its lines and columns where they were.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Comments, strings, character constants; what is left between them is code.
_NOT_CODE = re.compile(r'//(?:\\\n|[^\n])*|/\*.*?(?:\*/|\Z)|"(?:\\.|[^"\\\n])*"|' r"'(?:\\.|[^'\\\n])*'", re.DOTALL)
_DIRECTIVE = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b\s*(.*)")
# A directive with its continuation lines; and what opens, closes and ends, within braces and outside of them. What
# starts with one of a few letters is found fast.
_HASH = re.compile(r"#(?:\\\r?\n|[^\n])*\n?")
_INSIDE = re.compile(r"#(?:\\\r?\n|[^\n])*|{|}")
_OUTSIDE = re.compile(r"#(?:\\\r?\n|[^\n])*|{|}|\(|\)|;")
_WORD = re.compile(r"[A-Za-z_]\w*")


def blank(text: str) -> str:
    """Return `text` with nothing left but its line ends."""
    return "\n".join(" " * len(line) for line in text.split("\n"))


def code(text: str) -> str:
    """Return `text` with comments, strings and character constants blanked out."""
    return _NOT_CODE.sub(lambda match: blank(match[0]), text)


def _pieces(clean: str) -> Iterator[tuple[int, int, str]]:
    """Yield start and end of each piece of code, and its directive: "if 0", "else", "#" for any other, "" for C."""
    last = 0
    for match in _HASH.finditer(clean):
        if not _starts_line(clean, match.start()):
            continue
        if last < match.start():
            yield last, match.start(), ""
        found = _DIRECTIVE.match(match[0])
        yield match.start(), match.end(), f"{found[1]} {found[2]}".strip() if found else "#"
        last = match.end()
    if last < len(clean):
        yield last, len(clean), ""


def _starts_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip()


def _line(text: str, at: int) -> int:
    """Return the number of the line that a place is in, counted from 1."""
    return text.count("\n", 0, at) + 1


def last_line(text: str) -> int:
    """Return the number of the last line."""
    return text.count("\n") + (not text.endswith("\n"))


class Part(NamedTuple):
    """A piece of a text: from where to where, and whether it is a directive between definitions."""

    start: int
    end: int
    directive: bool


def split(clean: str) -> tuple[list[Part], bool]:
    """Split code into its definitions and declarations.

    Where an #if has thrown out the count of braces, a function ends with the brace at the start of a line.

    Args:
        clean: what `code` returned.

    Returns:
        All parts, in order, and whether the last one is whole.
    """
    parts, whole = _split(clean, False)
    return (parts, whole) if whole or not _cuts(clean, plain=False) else _split(clean, True)


def _split(clean: str, at_margin: bool) -> tuple[list[Part], bool]:
    found = []
    broken = False
    start = depth = parens = 0
    before: list[tuple[int, int]] = []  # how deep it was at each #if
    end = 0
    # Within braces parentheses do not count.
    while match := (_INSIDE if depth else _OUTSIDE).search(clean, end):
        token, end = match[0], match.end()
        if token in "()":
            parens = max(0, parens + (1 if token == "(" else -1))
        elif token == "{":
            # A function within a function: the one before has no end.
            broken = broken or (at_margin and depth > 0 and clean[match.start() - 1 : match.start()] == "\n")
            depth += 1
            parens = 0
        elif token == "}":
            depth = 0 if at_margin and clean[match.start() - 1 : match.start()] == "\n" else max(0, depth - 1)
            parens = 0
            line_end = clean.find("\n", end)
            if depth == 0 and not clean[end : line_end if line_end >= 0 else len(clean)].strip():
                found.append(Part(start, end, False))
                start = end
        elif token == ";":
            if depth == 0 and parens == 0:
                found.append(Part(start, end, False))
                start = end
        elif not _starts_line(clean, match.start()):
            end = match.start() + 1
        else:
            directive = _DIRECTIVE.match(token)
            word = directive[1] if directive else ""
            if word.startswith("if"):
                before.append((depth, parens))
            elif word in ("elif", "else") and before:
                depth, parens = before[-1]
            elif word == "endif" and before:
                before.pop()
            if depth == 0 and parens == 0 and not clean[start : match.start()].strip():
                found.append(Part(start, match.start(), False))
                found.append(Part(match.start(), end, True))
                start = end
    found.append(Part(start, len(clean), False))
    return _glued(clean, found), depth == 0 and not before and not broken


_CONDITION = re.compile(r"^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else|endif)\b", re.MULTILINE)


def _glued(clean: str, parts: Sequence[Part]) -> list[Part]:
    """Make one part of those that an #if starts in or before and its #else or #endif stands in."""
    found: list[Part] = []
    stack: list[tuple[int, bool]] = []  # of each #if: its part, and whether that holds more than it
    for part in parts:
        found.append(part)
        for match in _CONDITION.finditer(clean, part.start, part.end):
            inside = not found[-1].directive
            if match[1].startswith("if"):
                stack.append((len(found) - 1, inside))
            elif stack:
                first, more = stack.pop()
                if more or inside:
                    found[first:] = [Part(found[first].start, found[-1].end, False)]
                    more = True
                if match[1] != "endif":
                    stack.append((first, more))
    return found


def pick(text: str, clean: str, parts: Sequence[Part], words: re.Pattern[str], follow: bool) -> str:
    """Return `text` with those of its definitions blanked out that have none of `words`.

    Args:
        text: the source.
        clean: what `code` returned of it.
        parts: what `split` returned of that.
        words: what is looked for.
        follow: keep also what calls something that is kept, and what that in turn is called by, and what is called by
            name in it.
    """
    texts = [clean[part.start : part.end] for part in parts]
    kept = [
        bool(part.directive and _DIRECTIVE.match(each) or words.search(each))
        for part, each in zip(parts, texts, strict=True)
    ]
    if follow:
        names = [_name(each) for each in texts]
        inside = [set(_WORD.findall(each)) for each in texts]
        known: set[str] | None = None
        while known != (known := {name for name, keep in zip(names, kept, strict=True) if name and keep}):
            kept = [keep or bool(name and has & known) for name, has, keep in zip(names, inside, kept, strict=True)]
        # What those give to others by name, as a table or a work item does.
        given = set().union(*(has for has, keep in zip(inside, kept, strict=True) if keep))
        kept = [keep or name in given for name, keep in zip(names, kept, strict=True)]
    pieces = [text[part.start : part.end] for part in parts]
    return "".join(each if keep else blank(each) for each, keep in zip(pieces, kept, strict=True))


_HEAD = re.compile(r"([A-Za-z_]\w*)\s*\([^{};]*\{")


def _name(part: str) -> str:
    """Return the name of the function that a piece of code defines, or ""."""
    if "{" not in part or "=" in part[: part.index("{")]:
        return ""
    match = _HEAD.search(part)
    return match[1] if match else ""


def defines(text: str, names: Iterable[str]) -> bool:
    """Return whether C code defines one of these functions, on lines that start with it or its type."""
    for match in re.finditer(rf"\b(?:{'|'.join(names)})\s*\([^;{{}}]*\{{", text):
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if re.fullmatch(r"(?:\w[\w \t*]*)?", before):
            return True
    return False


# A line that ends a statement, or a block, or starts one.
_ENDS = re.compile(r"[;{}]\s*\n")


def torn(clean: str) -> tuple[int, str] | None:
    """Return line and reason if C code is not whole as it stands: Coccinelle would take a part of it for all."""
    depths, off = [0], [False]  # of the file, and of the branch of each #if: how deep, and whether it is "#if 0"
    before = ""
    for start, end, directive in _pieces(clean):
        if not directive:
            depths[-1] += clean.count("{", start, end) - clean.count("}", start, end)
            before += clean[start:end]
            continue
        if directive == "if 0":
            open_ = _ENDS.split(before)[-1]
            if open_.count("(") > open_.count(")"):
                return _line(clean, start), "an #if 0 stands within an expression"
        if directive.startswith("e") and len(depths) > 1:
            live = not any(off)
            off.pop()
            if depths.pop() and live:
                return _line(clean, start), "an #if has a brace in one of its branches that ends in none"
        elif not directive.startswith("if"):
            continue
        if not directive.startswith("endif"):
            depths.append(0)
            off.append(directive == "if 0")
    if len(depths) == 1 and sum(depths) <= 0:
        return None
    return last_line(clean), "the file ends within a function or an #if"


def uses(clean: str, symbol: str) -> list[tuple[int, int]]:
    """Return line and column of each use of `symbol` in C code: not under "#if 0"."""
    name = re.compile(rf"\b{re.escape(symbol)}\b")
    if not name.search(clean):
        return []
    found = []
    off: list[bool] = []
    for start, end, directive in _pieces(clean):
        if directive.startswith("if"):
            off.append(directive == "if 0")
        elif off and directive.startswith("endif"):
            off.pop()
        elif off and directive.startswith("e"):
            off[-1] = False
        if not any(off):
            places = [match.start() for match in name.finditer(clean, start, end)]
            found += [(_line(clean, at), at - clean.rfind("\n", 0, at) - 1) for at in places]
    return found


@dataclass
class _If:
    """An #if: its condition without a negation, where its branches are, and what is known of them."""

    condition: str
    negative: bool
    start: int
    branches: list[tuple[int, int]]
    end: int = 0
    balanced: bool = True
    plain: bool = True  # no #elif, and no #if in it
    depth: int = 0


def readings(text: str, most: int) -> list[str]:
    """Return `text` as it is or, where an #if has a brace in a branch that ends in none, once for each branch.

    Args:
        text: the source.
        most: return `text` as it is if there would be more readings.
    """
    cuts = _cuts(code(text))
    # Conditions that are the same are true together.
    conditions = list(dict.fromkeys(cut.condition for cut in cuts))
    if not cuts or 2 ** len(conditions) > most:
        return [text]
    found = []
    for values in itertools.product((True, False), repeat=len(conditions)):
        holds = dict(zip(reversed(conditions), values, strict=True))
        pieces = []
        last = 0
        for cut in cuts:
            start, end = cut.branches[0 if holds[cut.condition] != cut.negative else 1]
            pieces += [text[last : cut.start], blank(text[cut.start : start]), text[start:end]]
            pieces.append(blank(text[end : cut.end]))
            last = cut.end
        found.append("".join([*pieces, text[last:]]))
    return found


def _cuts(clean: str, plain: bool = True) -> list[_If]:
    """Return each #if that cuts a statement in two; of these the plain ones alone, or all."""
    found: list[_If] = []
    stack: list[_If] = []
    for start, end, directive in _pieces(clean):
        word, _, condition = directive.partition(" ")
        if word.startswith("if"):
            if stack:
                stack[-1].plain = False
            name = condition if word == "if" else f"defined({condition})"
            stack.append(_If(name, word == "ifndef", start, [(end, end)], plain=directive != "if 0"))
        elif stack and word.startswith("e"):
            top = stack[-1]
            top.balanced = top.balanced and top.depth == 0
            top.depth = 0
            top.branches[-1] = top.branches[-1][0], start
            # Without an #else there is nothing in its place.
            top.branches.append((end, end))
            if word == "elif":
                top.plain = False
            elif word == "endif":
                top.end = end
                stack.pop()
                if (top.plain or not plain) and not top.balanced:
                    found.append(top)
        elif stack and not word:
            stack[-1].depth += clean.count("{", start, end) - clean.count("}", start, end)
    return found
