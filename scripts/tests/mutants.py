# SPDX-License-Identifier: GPL-2.0-only
"""Kernel trees changed by rule, and what the audit may say of each.

Of a finding a tree gives up to two states, a faulty one and a sound one. One of them is the tree as it is, the other
one has kmend's fix or the reintroduce patch on it; a tree without the feature gets it by the bug's test bed. Each state
is then changed in ways that must not change the verdict, and taken to pieces in ways after which it must not get
better. Nothing is left to chance: the same trees give the same mutants.

A verdict is right if it is among those that the mutant allows, no answer if it is "unknown" where more can be said,
and wrong otherwise.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kmendlib.tree import bases, rules, series
from kmendlib.tree.audit import Status, _question, _View, audit
from kmendlib.tree.manifest import PATCHES, Bug, Finding
from kmendlib.tree.tree import Tree, version_key

Files = dict[str, str]

TRUTH = Path(__file__).with_name("audit-truth.toml")

# What is done to a tree, and what the verdict must be then.
GROUPS = {
    "unchanged": "the known one",
    "noise": "unchanged",
    "renamed": "unchanged",
    "the other way round": "unchanged",
    "moved": "unchanged",
    "another version": "unchanged",
    "part missing": "not better",
    "half a fix": "as without it",
    "no code": "unchanged",
    "#ifdef": "as without the fix",
}


@dataclass(frozen=True)
class Mutant:
    """A tree's files for one finding, changed by rule.

    finding: its id.
    state: "as is", or what was done to get this state.
    group: the kind of change, one of GROUPS.
    change: what was changed.
    right: the verdicts that are right.
    make: makes the files; of most mutants only a share is looked at.
    """

    finding: str
    state: str
    group: str
    change: str
    right: frozenset[Status]
    make: Callable[[], Files] = dataclasses.field(compare=False)

    @property
    def files(self) -> Files:
        """The files that the rule reads, as they are in this mutant."""
        return self.make()

    @property
    def id(self) -> str:
        """What it is called in a test's report."""
        return f"{self.finding}: {self.state}: {self.change}"

    def outcome(self, status: Status) -> str:
        """Return "right", "no answer" or "wrong"."""
        if status in self.right:
            return "right"
        return "no answer" if status is Status.UNKNOWN else "wrong"


def last_read(tree: Tree) -> str:
    """Return the last tree of a tree's line that was read, up to its version; empty without one, or for a vendor's.

    A line keeps the truth of that tree until somebody reads a newer one.
    """
    plain = [base for base in bases.load().values() if not base.vendor and not base.release]
    version = tree.version or "0"
    line = next((base for base in plain if base.matches(version) and not tree.extraversion), None)
    known = [name for name in tomllib.loads(TRUTH.read_text(encoding="ascii")) if re.fullmatch(r"[\d.]+", name)]
    read = [name for name in known if line and line.matches(name) and version_key(name) <= version_key(version)]
    return max(read, key=version_key, default="")


def truth(tree: Tree, name: str) -> dict[str, Status]:
    """Return what reading said of a tree's findings; empty if nobody has read this tree.

    "FINDING, reverted" is the status without the fix, where that is not "affected", and "FINDING, with the feature" the
    one with the bug's test bed, where that is not "fixed".

    Args:
        tree: the tree; its version is looked up, if it has one.
        name: what the tree's folder is called, which comes first.
    """
    known = tomllib.loads(TRUTH.read_text(encoding="ascii"))
    found = known.get(name) or known.get(tree.release) or known.get(last_read(tree), {})
    return {finding: Status(status) for finding, status in found.items()}


def judge(tree: Tree, bug: Bug, finding: Finding, texts: Sequence[Files]) -> list[Status]:
    """Return the audit's verdict on each of these texts in a tree that is otherwise `tree`: all in one start."""
    alone = dataclasses.replace(bug, findings=(dataclasses.replace(finding, fix=()),))
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        trees = [_lay(tree, finding, files, Path(folder).resolve() / str(number)) for number, files in enumerate(texts)]
        rules.prepare(_question(_View(each), finding) for each in trees)
        return [audit(each, [alone]).bugs[0].findings[0].status for each in trees]


def _lay(tree: Tree, finding: Finding, files: Files, root: Path) -> Tree:
    """Lay the part of a tree that a rule reads."""
    root.mkdir()
    for name in _names(finding):
        # Which folders there are tells which features a tree has.
        for above in (Path(name).parent, Path(name).parent.parent):
            if (tree.path / above).is_dir():
                (root / above).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode("latin-1"))
    return Tree.open(root) if "Makefile" in files else Tree(root, tree.version, tree.extraversion)


def verdict(tree: Tree, bug: Bug, finding: Finding) -> Status:
    """Return the audit's verdict on a tree as it is."""
    return judge(tree, bug, finding, [_read(tree, finding, [])])[0]


def mutants(tree: Tree, bug: Bug, finding: Finding, known: Mapping[str, Status]) -> Iterator[Mutant]:
    """Make the mutants of a tree for one finding.

    Args:
        tree: the tree; it is only read.
        bug: the bug.
        finding: one of its findings.
        known: what is true of the tree, as truth() has it.
    """
    status = known[finding.id]
    yield from _of_states(tree, finding, "as is", known, status, [])
    for name in bug.testbed:
        if status in (Status.LATENT, Status.NOT_APPLICABLE) and series.fits(tree.path, PATCHES / name):
            status = known.get(f"{finding.id}, with the feature", Status.FIXED)
            yield from _of_states(tree, finding, "with the feature", known, status, [PATCHES / name])
            return


def _of_states(
    tree: Tree, finding: Finding, state: str, known: Mapping[str, Status], status: Status, patches: list[Path]
) -> Iterator[Mutant]:
    files = _read(tree, finding, patches)
    yield from _of_one(finding, state, files, {status})
    if status is Status.NOT_APPLICABLE:
        return
    reverts = status is Status.FIXED
    for variant in [(name,) for name in finding.reintroduce] if reverts else finding.fix:
        try:
            changed = _read(tree, finding, [*patches, *(PATCHES / name for name in variant)])
        except series.DoesNotFit:
            continue
        if reverts:
            faulty = known.get(f"{finding.id}, reverted", Status.AFFECTED)
            yield from _of_one(finding, f"{state}, reverted", changed, {faulty})
            yield from _of_both(finding, f"{state}, reverted", changed, files, faulty, {status})
        else:
            # Latent for lack of a feature, it can be called so when the rest is sound.
            mended = {Status.FIXED} | ({Status.NOT_APPLICABLE} if status is Status.LATENT else set())
            yield from _of_one(finding, f"{state}, mended", changed, mended)
            yield from _of_both(finding, f"{state}, mended", files, changed, status, mended)
        return


def _read(tree: Tree, finding: Finding, patches: list[Path]) -> Files:
    """Return the files that the finding's rule reads, with patches on."""
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        if patches:
            series.materialize(tree.path, patches, Path(folder))
        found = {}
        # Code may have gone to another file of its folder.
        view, rule = _View(tree), rules.load(finding.rule)
        for name in (place for each in _names(finding) for place in view.places(rule, each)):
            for path in (Path(folder, name), tree.path / name):
                if path.is_file():
                    found[name] = path.read_text(encoding="latin-1")
                    break
    return found


def _names(finding: Finding) -> tuple[str, ...]:
    return (*finding.context, *finding.files)


def _of_one(finding: Finding, state: str, files: Files, right: set[Status]) -> Iterator[Mutant]:
    """What must not change a verdict, and what must not make it better."""

    def make(group: str, change: str, right: set[Status], changed: Callable[[], Files]) -> Mutant:
        return Mutant(finding.id, state, group, change, frozenset(right), changed)

    yield make("unchanged", "unchanged", right, lambda: files)
    parts = {name: _part(finding, text) for name, text in files.items()}
    for change, noise in _NOISE.items():
        yield make("noise", change, right, lambda noise=noise: {name: noise(text) for name, text in parts.items()})
    for change, turn in _TURNS.items():
        turned = {name: turn(text) for name, text in parts.items()}
        if turned != parts:
            yield make("the other way round", change, right, lambda turned=turned: turned)
    for name, _ in rules.load(finding.rule).homes:
        if name in parts:
            rest = _without(parts, name)
            moved = f"{name.rpartition('/')[0]}/frob.c"
            changed = rest | {moved: parts[name]}
            yield make("moved", f"{name} is {moved}", right, lambda changed=changed: changed)
    for version in ("2.6.32", "9.9.9"):
        major, patchlevel, sublevel = version.split(".")
        lie = f"VERSION = {major}\nPATCHLEVEL = {patchlevel}\nSUBLEVEL = {sublevel}\n"
        yield make("another version", f"called {version}", right, lambda lie=lie: parts | {"Makefile": lie})
    for number, old in enumerate(_RENAMES.get(finding.id, ()), 1):
        word = re.compile(rf"\b{old}\b")
        if any(word.search(code(text)) for text in parts.values()):
            changed = {name: word.sub(f"frob_{number}", text) for name, text in parts.items()}
            yield make("renamed", f"{old}() renamed", right, lambda changed=changed: changed)
    for name in parts:
        # Without all of the code nothing may be called sound; what can be seen to be wrong may be called so.
        less = right - ({Status.FIXED} if name in finding.files else set()) | {Status.UNKNOWN}
        yield make("part missing", f"no {name}", less, lambda name=name: _without(parts, name))
        half = _half(parts[name])
        if half:
            less = right - {Status.FIXED} | {Status.UNKNOWN}
            changed = parts | {name: half}
            yield make("part missing", f"half of {name}", less, lambda changed=changed: changed)


def _without(files: Files, name: str) -> Files:
    return {other: text for other, text in files.items() if other != name}


def _part(finding: Finding, text: str) -> str:
    """Leave out the functions of a large file that the rule has no eyes for: to read it all takes most of the time."""
    about = _ABOUT.get(finding.id.partition("/")[0])
    if about is None or len(text) < 60000:
        return text
    clean = code(text)
    out = []
    last = 0
    for match in _FUNCTION.finditer(clean):
        if not re.search(about, match[0]):
            out.append(text[last : match.start()])
            last = match.end()
    return "".join(out) + text[last:]


def _half(text: str) -> str:
    """Cut a file in the middle of the first function that goes on half-way through it; "" if there is none."""
    lines = text.splitlines(keepends=True)
    for number in range(len(lines) // 2, len(lines)):
        if lines[number].startswith("\t") and lines[number].rstrip().endswith(";"):
            return "".join(lines[:number])
    return ""


def _of_both(
    finding: Finding, state: str, faulty: Files, sound: Files, status: Status, right: set[Status]
) -> Iterator[Mutant]:
    """Half a fix, and text of one state that is no code in the other."""
    faulty, sound = ({name: _part(finding, text) for name, text in each.items()} for each in (faulty, sound))
    blocks = [(name, *block) for name in sound if name in faulty for block in _blocks(faulty[name], sound[name])]
    blocks = [block for block in blocks if _code_of(faulty, sound, block).strip()]
    side = [block for block in blocks if _matters_not(finding, faulty, sound, block)]
    main = [block for block in blocks if block not in side]

    def make(group: str, change: str, right: set[Status], changed: Callable[[], Files]) -> Mutant:
        return Mutant(finding.id, state, group, change, frozenset(right), changed)

    # Of a whole series nobody can say what each line is for.
    if 1 < len(main) <= _PIECES:
        for number, one in enumerate(main, 1):
            change = f"change {number} of {len(main)}"
            kept = [*side, one]
            yield make("half a fix", f"{change} alone", {status}, lambda kept=kept: _swap(faulty, sound, kept))
            rest = [block for block in blocks if block is not one]
            if len(main) > 2:
                yield make("half a fix", f"all but {change}", {status}, lambda rest=rest: _swap(faulty, sound, rest))

    def swapped(merge: Callable[[list[str], list[str]], list[str]]) -> Callable[[], Files]:
        return lambda: _swap(faulty, sound, blocks, merge)

    for change, hide in _HIDDEN.items():
        hidden = swapped(lambda bad, good, hide=hide: [*hide(good), *bad])
        yield make("no code", f"fix {change}", {status}, hidden)
        hidden = swapped(lambda bad, good, hide=hide: [*good, *hide(bad)])
        yield make("no code", f"fault {change}", right, hidden)
    good = [line for name, _, _, c, d in blocks for line in _cut(sound[name], (c, d))]
    bad = [line for name, a, b, _, _ in blocks for line in _cut(faulty[name], (a, b))]
    for change, write in (("in strings", _strings), ("in a comment elsewhere", _comment)):
        for what, verdict, files, text in (
            ("fix", {status}, faulty, write(good)),
            ("fault", right, sound, write(bad)),
        ):
            added = {name: each + text for name, each in files.items()}
            yield make("no code", f"{what} {change}", verdict, lambda added=added: added)
    yield make("#ifdef", "fix under #ifdef", {status}, swapped(_either))


_PIECES = 12

# Blocks: lines a to b of the faulty file stand where c to d of the sound one do.
_Block = tuple[str, int, int, int, int]


def _blocks(faulty: str, sound: str) -> list[tuple[int, int, int, int]]:
    matcher = difflib.SequenceMatcher(None, faulty.splitlines(), sound.splitlines(), autojunk=False)
    return [(a, b, c, d) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]


def _cut(text: str, span: tuple[int, int]) -> list[str]:
    return text.splitlines(keepends=True)[slice(*span)]


def _code_of(faulty: Files, sound: Files, block: _Block) -> str:
    name, a, b, c, d = block
    return "".join([*_cut(code(faulty[name]), (a, b)), *_cut(code(sound[name]), (c, d))])


def _matters_not(finding: Finding, faulty: Files, sound: Files, block: _Block) -> bool:
    """True for a change of declarations alone, and for one that neither makes the fault nor mends it."""
    side = _SIDE.get(finding.id)
    lines = _code_of(faulty, sound, block).splitlines()
    return all(_DECLARES.fullmatch(line) or (side and side.search(f"{block[0]}: {line}")) for line in lines)


def _swap(
    faulty: Files,
    sound: Files,
    blocks: list[_Block],
    merge: Callable[[list[str], list[str]], list[str]] = lambda bad, good: good,
) -> Files:
    """Return the faulty files with `blocks` merged from both states."""
    result = dict(faulty)
    for name in faulty:
        if name not in sound:
            continue
        lines = faulty[name].splitlines(keepends=True)
        for _, a, b, c, d in sorted((block for block in blocks if block[0] == name), reverse=True):
            lines[a:b] = merge(lines[a:b], _cut(sound[name], (c, d)))
        result[name] = "".join(lines)
    return result


def _either(bad: list[str], good: list[str]) -> list[str]:
    if not good:
        return ["#ifndef CONFIG_FROB\n", *bad, "#endif\n"]
    return ["#ifdef CONFIG_FROB\n", *good, *(["#else\n", *bad] if bad else []), "#endif\n"]


def _commented(lines: list[str]) -> list[str]:
    return [_comment(lines)] if lines else []


def _comment(lines: list[str]) -> str:
    text = "".join(lines).replace("*/", "* /").replace("/*", "/ *")
    return f"/*\n{text}*/\n" if lines else ""


def _off(lines: list[str]) -> list[str]:
    return ["#if 0\n", *lines, "#endif\n"] if lines else []


def _slashes(lines: list[str]) -> list[str]:
    return ["//" + line for line in lines]


def _strings(lines: list[str]) -> str:
    words = [line.strip().replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return "\nstatic const char *const frob[] = {\n" + "".join(f'\t"{word}",\n' for word in words) + "};\n"


_HIDDEN: Mapping[str, Callable[[list[str]], list[str]]] = {
    "in a comment": _commented,
    "behind //": _slashes,
    "under #if 0": _off,
}

# Comments, strings and preprocessor lines, which stay as they are, and names and blanks.
_TOKEN = re.compile(
    r"(?P<note>//(?:\\\n|[^\n])*|/\*.*?(?:\*/|\Z))"
    r"|(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
    r"|(?P<line>^[ \t]*\#(?:/\*.*?\*/|\\\r?\n|[^\n])*)"
    r"|(?P<name>\w+)|(?P<blank>\s+)|(?P<other>.)",
    re.DOTALL | re.MULTILINE,
)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(text):
        yield str(match.lastgroup), match[0]


def code(text: str) -> str:
    """Return `text` with comments, strings and preprocessor lines blanked out; lines stay."""
    return "".join(
        re.sub(r"[^\n]", " ", token) if kind in ("note", "string", "line") else token for kind, token in _tokens(text)
    )


def _in_functions(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yield kind, token, and whether it is inside a function's body."""
    depth = 0
    start = True
    for kind, token in _tokens(text):
        if kind == "other" and token == "}":
            # At the start of a line a function ends, whatever #ifdef has done to the count.
            depth = 0 if start else max(0, depth - 1)
        yield kind, token, depth > 0
        if kind == "other" and token == "{":
            depth += 1
        start = token.endswith("\n")


_NOTES = ("spin_lock(&frob->lock);", "take the lock first", "wait_event(frob, 1);", "#if 0", '"')


def with_comments(text: str) -> str:
    """Put a comment behind every statement, brace and comma in functions."""
    out = []
    for number, (kind, token, inside) in enumerate(_in_functions(text)):
        out.append(token)
        if inside and kind == "other" and token in ";{,":
            out.append(f" /* {_NOTES[number % len(_NOTES)]} */ ")
    return "".join(out)


def with_blanks(text: str) -> str:
    """Indent with blanks, and put blanks around parentheses, and line ends behind commas, in functions."""
    out = []
    for kind, token, inside in _in_functions(text):
        if kind == "blank" and inside:
            token = token.replace("\t", "   ")
        elif kind == "other" and inside and token in "()":
            token = f" {token} "
        elif kind == "other" and inside and token == ",":
            token = ",\n      "
        out.append(token)
    return "".join(out)


def with_tabs_gone(text: str) -> str:
    """Take all indentation away in functions, and put an empty line behind each line."""
    return "".join(
        re.sub(r"\n[ \t]*", "\n\n", token) if kind == "blank" and inside else token
        for kind, token, inside in _in_functions(text)
    )


def with_cr(text: str) -> str:
    """End lines as DOS does."""
    return text.replace("\n", "\r\n")


_FUNCTION = re.compile(r"^[A-Za-z_][^;{}#=]*?\(([^;{}#]*)\)[^;{}()]*\n\{\n.*?^\}", re.DOTALL | re.MULTILINE)
_LOCAL = re.compile(
    r"^[ \t]+(?!return\b|goto\b|case\b|else\b|break\b)"
    r"(?:(?:const|static|unsigned|signed|struct|union|enum|volatile)\s+)*"
    r"[A-Za-z_]\w*[ \t*]+\**([A-Za-z_]\w*)[ \t]*(?:[=;,\[])",
    re.MULTILINE,
)
_KEYWORDS = frozenset({"void", "int", "long", "char", "bool", "short", "unsigned", "signed", "struct", "const"})
# The last argument of container_of() and of list_for_each_entry() and its like.
_MEMBER = r"(struct\s+\w+|_for_each_\w+\s*\([^;{}]*)\s*,\s*%s\s*\)"
_NO_LOCAL = (".", "->", "struct", "enum", "union", "goto")


def with_other_locals(text: str) -> str:
    """Rename the parameters and the local variables of each function."""
    clean = code(text)
    out = []
    last = 0
    for match in _FUNCTION.finditer(clean):
        names = {re.findall(r"\w+", part)[-1] for part in match[1].split(",") if re.search(r"\w+\W+\w+", part)}
        names |= set(_LOCAL.findall(match[0]))
        names -= {name for name in names if re.search(_MEMBER % name, match[0])}
        names -= _KEYWORDS
        out.append(text[last : match.start()])
        before = "\n"
        for kind, token in _tokens(text[match.start() : match.end()]):
            if kind == "name" and token in names and not before.endswith(_NO_LOCAL):
                token += "_1"
            if kind not in ("blank", "note"):
                before = before[-6:] + token
            out.append(token)
        last = match.end()
    return "".join(out) + text[last:]


def _closing(clean: str, start: int) -> int:
    """Return where the bracket at `start` is closed, or -1."""
    depth = 0
    for match in re.compile(r"[(){}]").finditer(clean, start):
        depth += 1 if match[0] in "({" else -1
        if depth == 0:
            return match.start()
    return -1


@dataclass(frozen=True)
class _Choice:
    """An if with an else, both in braces: where it starts and ends, and its texts."""

    start: int
    end: int
    condition: str
    first: str
    second: str

    @property
    def negated(self) -> str:
        """The condition in the other sense, without a second negation."""
        plain = re.fullmatch(r"\s*(!?)\s*(\w+(?:(?:->|\.)\w+)*(?:\([^()]*\))?)\s*", self.condition)
        if not plain:
            return f"!({self.condition})"
        return plain[2] if plain[1] else f"!{plain[2]}"


def _choices(text: str) -> Iterator[_Choice]:
    clean = code(text)
    last = 0
    for match in re.finditer(r"\bif\s*\(", clean):
        close = _closing(clean, match.end() - 1)
        body = re.compile(r"\)\s*\{").match(clean, close) if close >= 0 else None
        end = _closing(clean, body.end() - 1) if body else -1
        other = re.compile(r"\}\s*else\s*\{").match(clean, end) if end >= 0 else None
        stop = _closing(clean, other.end() - 1) if other else -1
        # What has a directive in it stays as it is, and so does what is within another one.
        if body and other and stop >= 0 and match.start() >= last and "#" not in text[match.start() : stop]:
            last = stop + 1
            inside = (text[match.end() : close], text[body.end() : end], text[other.end() : stop])
            yield _Choice(match.start(), last, *inside)


def with_other_sense(text: str) -> str:
    """Ask for the opposite, and change the branches over."""
    out, last = [], 0
    for each in _choices(text):
        out += [text[last : each.start], f"if ({each.negated}) {{{each.second}}} else {{{each.first}}}"]
        last = each.end
    return "".join(out) + text[last:]


def with_early_return(text: str) -> str:
    """Return from the first branch, where an else is the last thing that a function does."""
    out, last = [], 0
    for each in _choices(text):
        rest = re.compile(r"\s*(return\b[^;{}]*;)?\s*\n\}").match(text, each.end)
        if rest:
            back = rest[1] or "return;"
            out += [text[last : each.start], f"if ({each.condition}) {{{each.first}{back}\n\t}}\n{each.second}"]
            last = each.end
    return "".join(out) + text[last:]


_TURNS: Mapping[str, Callable[[str], str]] = {
    "conditions in the other sense": with_other_sense,
    "an early return for an else": with_early_return,
}

_NOISE: Mapping[str, Callable[[str], str]] = {
    "comments everywhere": with_comments,
    "blanks and line ends": with_blanks,
    "no indentation": with_tabs_gone,
    "DOS line ends": with_cr,
    "local variables renamed": with_other_locals,
}

# Functions that a vendor may call something else, in all files.
_RENAMES: Mapping[str, tuple[str, ...]] = {
    "pci-cfg-wait/unlocked-queue": ("pci_wait_cfg", "pci_cfg_access_unlock"),
    "riscv-kvm-exit/exit-order": ("riscv_kvm_exit", "kvm_riscv_aia_exit", "kvm_riscv_teardown", "kvm_exit"),
    "riscv-kvm-exit/init-leak": ("riscv_kvm_init", "kvm_riscv_aia_init", "kvm_riscv_teardown", "kvm_riscv_aia_exit"),
    "nfsd-cb-shutdown/no-wait": ("nfsd4_shutdown_callback", "nfsd41_cb_inflight_wait_complete", "nfsd41_destroy_cb"),
    "nfsd-cb-shutdown/courtesy-hang": ("nfsd4_run_cb_work", "nfsd4_shutdown_callback"),
    "nfsd-cb-shutdown/inflight-leak": ("nfsd4_run_cb", "nfsd4_cb_release", "nfsd41_destroy_cb", "nfsd_break_one_deleg"),
    "nfsd-cb-shutdown/late-run": ("deleg_reaper", "nfsd4_run_cb"),
    "nfsd-cb-shutdown/recall-count": ("nfsd_break_deleg_cb", "nfsd_change_deleg_cb"),
    "nfsd-cb-shutdown/late-notify": ("nfsd4_lm_notify", "nfsd4_run_cb", "nfsd4_try_run_cb"),
    "memcg-uncharge/uncharge-first": (
        "move_active_pages_to_lru",
        "get_deferred_split_queue",
        "mem_cgroup_uncharge",
        "free_compound_page",
        "destroy_large_folio",
        "folio_unqueue_deferred_split",
    ),
    "memcg-uncharge/unlocked-unqueue": (
        "mem_cgroup_swapout",
        "mem_cgroup_migrate",
        "folio_unqueue_deferred_split",
        "get_deferred_split_queue",
    ),
    "kvm-shadow/early-free": ("kvm_ioeventfd_batch_end", "ioeventfd_release"),
    "kvm-shadow/shared-list": ("kvm_ioeventfd_batch_begin", "kvm_find_shadow"),
    "kvm-shadow/batch-answers": ("kvm_ioeventfd_batch_begin", "kvm_assign_ioeventfd_idx"),
    "hwsim-del/early-free": ("hwsim_del", "ieee802154_unregister_hw", "hwsim_free_edge"),
    "hwsim-del/stale-pib": ("hwsim_add_one", "ieee802154_register_hw", "hwsim_subscribe_all_others"),
    "prog-array-clear/pending-work": ("prog_array_map_clear", "prog_array_map_clear_deferred"),
    "flow-block-list/unlocked-list": ("flow_block_cb_setup_simple", "flow_block_cb_is_busy"),
}

# What functions of large files are about that count.
_ABOUT: Mapping[str, str] = {
    "riscv-kvm-exit": "enable_virt|hardware_enable",
    "nfsd-cb-shutdown": r"(run|init)_cb\(|shutdown_callback|COURTESY|OPEN_DELEGATE|break_(one_)?deleg|_cb_release"
    "|dl_type|delegs_in_recall",
    "memcg-uncharge": "uncharge|deferred|split_queue|large_rmappable|compound_page|large_folio|_dtor|memcg_data"
    "|mem_cgroup =|free_unref|thp_underused|split_underused|MEMCG_AWARE",
    "kvm-shadow": "io_bus|ioeventfd|shadow|kvm_get_bus|kvm_get_real_bus|EVENTFD",
}

_DECLARES = re.compile(r"\s*|\s+(?:(?:struct|const|unsigned|enum) )*\w+[ *]+\w+(?:, \**\w+)*;|[\w *]+\([\w *,]*\);")

# Lines of a fix that mend nothing, as of a fault that they do not make.
_SIDE: Mapping[str, re.Pattern[str]] = {
    "pci-cfg-wait/unlocked-queue": re.compile(r"__must_hold|DECLARE_WAITQUEUE|set_current_state"),
    # What the queue refuses was marked in vain; braces go with that.
    "nfsd-cb-shutdown/inflight-leak": re.compile(
        r"WARN_ON_ONCE\(!queued\)|cb_running = 0|: \tif \(!queued\)|: \t\tclear_bit_unlock\(|: \t\}$"
    ),
    # What is collected, and the lock's end, go with the loop: left alone, they do not compile, or run nothing late.
    "nfsd-cb-shutdown/late-run": re.compile(
        r"LIST_HEAD\(&?cblist\)|list_add\(&clp->cl_ra_cblist|: \tspin_unlock\(&nn->client_lock\);|: \t\treturn;"
    ),
    # Without the late run, and without another, nobody is told.
    "nfsd-cb-shutdown/late-notify": re.compile(
        r"bool queue = false;|if \(queue\) \{|trace_nfsd_cb_notify_lock\(|run_cb\(&nbl->nbl_cb\)|: \t\}$"
    ),
    "memcg-uncharge/uncharge-first": re.compile(r"^mm/page_alloc\.c:\s+folio_unqueue_deferred_split"),
    # Struct, list and look-ups are one: what is left of them alone is dead, or does not compile.
    "kvm-shadow/shared-list": re.compile(""),
    # What was read is read once more.
    "hwsim-del/early-free": re.compile(r"pib = rcu_dereference\(phy->pib\)|: $"),
    "flow-block-list/unlocked-list": re.compile(r"int err = 0;"),
}
