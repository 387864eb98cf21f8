# SPDX-License-Identifier: GPL-2.0-only
"""Coccinelle: one start for many rules and many texts, as the start is most of what a rule takes."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure

# The interpreter for the Python in rules: not one that PATH leads to by a detour.
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else "python3"

# A text needs less than a second; more than this, in seconds on an idle host, is a file that cannot be worked on.
_LIMIT = 60

# Isomorphisms of arithmetic and formats, which no rule needs: to make each rule's variants of them takes a third of a
# start.
_UNUSED = """
    add_signed add_int1 add_int2 plus_comm mult_comm plus_assoc minus_assoc plus_minus_assoc1 plus_minus_assoc2
    times_assoc div_assoc times_div_assoc1 times_div_assoc2 sizeof_type_expr inc for_inc zero_multiple_format
    bsd_branch_pred
""".split()

# A rule with files of these texts, by their names.
Text = tuple[Path, Mapping[str, str]]


@dataclass(frozen=True)
class Said:
    """What came of a start.

    code: the exit code.
    errors: what was said of trouble.
    lines: of each text what the rule said; None if it did not come to its end.
    """

    code: int
    errors: str
    lines: Sequence[str | None]


def program() -> Path:
    """Return where Coccinelle is."""
    found = shutil.which("spatch")
    if found is None:
        raise Infrastructure("spatch (Coccinelle) is not installed: run kmend setup")
    return Path(found)


def run(texts: Sequence[Text]) -> Said:
    """Let rules judge these texts, each by itself.

    Raises:
        subprocess.TimeoutExpired: it takes too long.
    """
    command = [str(program()), "-D", "audit", "--very-quiet", "--no-show-diff", "--no-includes", "--no-saved-typedefs"]
    command += ["--python", PYTHON, "--cocci-file", "rules.cocci", "--file-groups", "groups"]
    command += [word for name in _UNUSED for word in ("--disable-iso", name)]
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        groups = []
        for number, (rule, files) in enumerate(texts):
            groups.append([f"{rule.stem}/{number}/{name}" for name in files])
            for place, text in zip(groups[-1], files.values(), strict=True):
                Path(folder, place).parent.mkdir(parents=True, exist_ok=True)
                Path(folder, place).write_text(text, encoding="latin-1")
        Path(folder, "groups").write_text("\n\n".join("\n".join(group) for group in groups) + "\n", encoding="latin-1")
        rules = dict.fromkeys(rule for rule, _ in texts)
        Path(folder, "rules.cocci").write_text(_joined(rules), encoding="utf-8")
        # Its Python takes no path that is not UTF-8: it sees none but these.
        Path(folder, ".rules").symlink_to(next(iter(rules)).parent)
        # A .cocciconfig of the user's own must not change what the rule does.
        environment = proc.environment({"HOME": folder, "TMPDIR": ".", "PYTHONDONTWRITEBYTECODE": "1"})
        limit = (_LIMIT + len(texts)) * proc.slowness()
        done = proc.run(command, cwd=folder, env=environment, limit=limit)
    said: dict[int, list[str]] = {}
    ended = set()
    for line in done.stdout.decode("latin-1").splitlines():
        if match := re.match(r"[\w-]+/(\d+)(?:/(.+)|: end)$", line):
            said.setdefault(int(match[1]), []).append(match[2])
            if match[2] is None:
                ended.add(int(match[1]))
    lines = ["\n".join(said[number][:-1]) if number in ended else None for number in range(len(texts))]
    return Said(done.returncode, done.stderr.decode(errors="replace"), lines)


# A rule's header, its declarations or "", and what stands below them.
_BLOCK = re.compile(r"^@(?!@)([^@\n]+)@\n(.*?)^@@\n(.*?)(?=^@(?!@)|\Z)", re.MULTILINE | re.DOTALL)
_DEPENDS = re.compile(r" depends on (.+?)(?= disable\b| exists$| forall$|$)")
_HEAD = """\
virtual report
virtual audit

@initialize:python@
@@
import sys
sys.path.append(".rules")
end = lambda: None

"""
# Each text begins with all of these; the one whose folder it is in opens its rules.
_GATE = """\
@script:python {gate}@
@@
place = cocci.files()[0].split("/")
if place[0] == "{stem}":
    end()
{begin}
    def end(place="/".join(place[:2])):
{end}
        print(f"{{place}}: end")
else:
    cocci.include_match(False)

"""


def _joined(rules: Iterable[Path]) -> str:
    """Return one semantic patch for all of these, each for the files in the folder that has its name."""
    made = [_HEAD]
    for rule in rules:
        prefix = re.sub(r"\W", "_", rule.stem) + "__"
        gate = f"{prefix}gate"
        blocks = _BLOCK.findall(rule.read_text(encoding="utf-8"))
        names = "|".join(head.split()[0] for head, _, _ in blocks if ":" not in head.split()[0])
        word, named = rf"\b({names})\b", rf"{prefix}\1"
        python = {head: _indented(body) for head, _, body in blocks if head.startswith(("initialize", "finalize"))}
        begin, end = python["initialize:python"], textwrap.indent(python["finalize:python"], "    ")
        made.append(_GATE.format(gate=gate, stem=rule.stem, begin=begin, end=end))
        for head, declarations, body in blocks:
            if head in python:
                continue
            on = _DEPENDS.search(head)
            needs = f"{gate} && ({re.sub(word, named, on[1])})" if on else gate
            first, *rest = _DEPENDS.sub("", head).split(" ", 1)
            if first != "script:python":
                first = prefix + first
            if on or first != "script:python":
                first += f" depends on {needs}"
            declarations = re.sub(rf"{word}(?=\.\w)", named, declarations)
            made.append(f"@{' '.join([first, *rest])}@\n{declarations}@@\n{body}")
    return "".join([*made, "@finalize:python@\n@@\nend()\n"])


def _indented(body: str) -> str:
    """Return Python without what tells it where rules are, and without what is said above the next rule."""
    lines = [line for line in body.splitlines() if not re.match(r"//|import os, sys$|line = open|sys\.path", line)]
    return textwrap.indent("\n".join(lines), "    ")
