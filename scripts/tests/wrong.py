# SPDX-License-Identifier: GPL-2.0-only
"""Wrong versions of the driver: wrong-drivers.toml read, made in copies of the repository, and shown to their tests."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
REPO = TESTS.parents[1]
# Seconds; the slowest test of a wrong driver takes a fifth of it.
LIMIT = 150
# What a copy has of its own: what is mutated, and what looks at itself. The rest is linked.
COPIED = ("scripts", "patches")
# What a wrong driver leaves running ends with the namespace. A host that gives none has to live with it.
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Wrong:
    """A wrong version of a file.

    Attributes:
        name: what is wrong, in a few words.
        file: the file's path in the repository.
        old: a text that is there once.
        new: what stands there instead.
        test: the test that notices, as pytest names it below scripts/tests, or a list of such names.
    """

    name: str
    file: str
    old: str
    new: str
    test: str | list[str]

    @property
    def tests(self) -> list[str]:
        """The names, for pytest."""
        return [f"scripts/tests/{name}" for name in ([self.test] if isinstance(self.test, str) else self.test)]

    def problem(self) -> str:
        """Say why it cannot be made, or nothing."""
        path = REPO / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (times := text.count(self.old)) != 1:
            return f"{self.name}: its text is {times} times in {self.file}: let wrong-drivers.toml follow"
        if self.old == self.new:
            return f"{self.name}: it is not another text"
        if self.file.endswith(".py"):
            try:
                compile(text.replace(self.old, self.new), self.file, "exec")
            except SyntaxError as error:
                return f"{self.name}: {error}"
        return ""


def load() -> list[Wrong]:
    """Read wrong-drivers.toml."""
    files = tomllib.loads((TESTS / "wrong-drivers.toml").read_text(encoding="utf-8"))
    return [Wrong(file=file, **row) for file, rows in files.items() for row in rows]


def share(every: Sequence[Wrong], part: int) -> list[Wrong]:
    """Return one of `part`: another one whenever a file that is made wrong changes."""
    chosen = []
    for each in every:
        content = hashlib.sha256((REPO / each.file).read_bytes() + each.name.encode()).digest()
        if int.from_bytes(content[:4], "big") % part == 0:
            chosen.append(each)
    return chosen


@contextlib.contextmanager
def copy(each: Wrong | None) -> Iterator[Path]:
    """Make a copy of the repository, with one wrong file."""
    with tempfile.TemporaryDirectory(prefix="kmend-wrong-") as folder:
        root = Path(folder)
        for path in REPO.iterdir():
            if path.name in COPIED:
                shutil.copytree(path, root / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (root / path.name).symlink_to(path)
        if each:
            if not each.file.startswith(COPIED):
                top = each.file.partition("/")[0]
                (root / top).unlink()
                shutil.copytree(REPO / top, root / top)
            path = root / each.file
            path.write_text(path.read_text(encoding="utf-8").replace(each.old, each.new), encoding="utf-8")
        yield root


@functools.cache
def _alone() -> tuple[str, ...]:
    may = shutil.which(ALONE[0]) and not subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode
    return ALONE if may else ()


def _pytest(root: Path, words: Sequence[str], limit: float = LIMIT) -> tuple[int, str]:
    command = [*_alone(), sys.executable, "-P", "-B", "-m", "pytest", "-q", "-x", "--tb=no", "-rfE"]
    command += ["-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(root / "scripts")}
    try:
        done = subprocess.run(
            [*command, *words], cwd=root, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, "time-out"
    return done.returncode, done.stdout + done.stderr


def tests_pass(every: Sequence[Wrong]) -> str:
    """Say which of the tests that are to notice does not pass, or is skipped, as the driver is; nothing if all do."""
    words = list(dict.fromkeys(word for each in every for word in each.tests))
    # All in one: they take longer than the slowest one by far.
    code, said = _pytest(REPO, ["-rs", "-n", str(len(os.sched_getaffinity(0))), *words], 12 * LIMIT)
    skipped = [line for line in said.splitlines() if line.startswith("SKIPPED")]
    return "\n".join(["as the driver is, not all of the tests pass:", said]) if code or skipped else ""


def run(each: Wrong) -> tuple[bool, str]:
    """Make one and show it to its test.

    Returns:
        Whether the test noticed, and what else there is to say.
    """
    with copy(each) as root:
        code, said = _pytest(root, each.tests)
        if code == 1:
            return True, ""
        if code:
            return False, f"{each.test}: pytest ended with code {code}: {said.strip().splitlines()[-1:]}"
        code, said = _pytest(root, ["scripts/tests"], 12 * LIMIT)
        others = [line.partition(" - ")[0] for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return False, f"{each.test} passes; noticed by {others[0]}" if others else f"{each.test} passes, as all others"
