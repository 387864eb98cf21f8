# SPDX-License-Identifier: GPL-2.0-only
"""Translations: each names its original and the commit that it follows, and what has fallen behind is listed.

The originals of that commit and of today are compared by their content, so it does not matter how many commits lie
between, or how they were put together.  All that needs history, which a shallow clone has not got.

What does not need it: a page has the commands, names and figures of its original, and the words of the glossary, a
table in the index page: a term, the words for it, and those that are not to be used.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmendlib import cli
from kmendlib.host.errors import ExitCode
from kmendlib.host.words import Has, Outcome, Verdict
from kmendlib.tree.audit import Status
from kmendlib.tree.manifest import REPO

FOLDER = Path("Documentation/translations/zh_CN")

GLOSSARY = FOLDER / "index.rst"
_HEAD = ["英文", "译法", "不用"]

# What a translation leaves as it is: what is marked as literal, commands that stand alone, and figures.
_KEPT = re.compile(
    r"``(?P<rst>.+?)``|^ +(?P<command>(?:\$ )?(?:scripts/|\./|make -C |PYTHONPATH=|KMEND_)[^#\n]+)"
    r"|(?P<figure>(?<![\w.,-])\d[\d,.]*(?![\w.-]))",
    re.MULTILINE | re.DOTALL,
)

_FIELD = r"^(?::{0}:[ \t]*(\S+)|<!--\s*{0}:\s*(\S+)\s*-->)[ \t]*$"


def git(repo: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # A clone may belong to another user, and its settings are nothing to go by.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "safe.directory=*", "-C", str(repo), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def no_history(repo: Path) -> str:
    """Say why the repository's history cannot be looked at, or nothing."""
    top = git(repo, "rev-parse", "--show-toplevel").stdout.strip()
    if not top or Path(top).resolve() != repo.resolve():
        return "no git clone: it is not known what translations follow"
    if git(repo, "rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        return "a shallow clone: it is not known what translations follow (git fetch --unshallow)"
    return ""


def pages(repo: Path) -> Iterator[Path]:
    """Yield the translated pages, as paths in the repository."""
    for path in sorted((repo / FOLDER).rglob("*")):
        if path.suffix in (".rst", ".md"):
            yield path.relative_to(repo)


def mirrored(page: Path) -> str:
    """Return where a page's original must be."""
    name = page.relative_to(FOLDER).as_posix()
    return name if name == "README.md" else f"Documentation/{name}"


def header(text: str) -> dict[str, str]:
    """Read the fields at a page's top."""
    top = "\n".join(text.split("\n")[:30])
    found = {}
    for name in ("Original", "Follows"):
        field = re.search(_FIELD.format(name), top, re.MULTILINE)
        if field:
            found[name] = field[1] or field[2]
    return found


def problem(repo: Path, page: Path) -> str:
    """Say what is wrong with a page's header, or how the page has fallen behind; or nothing."""
    fields = header((repo / page).read_text(encoding="utf-8"))
    original, follows = fields.get("Original", ""), fields.get("Follows", "")
    if original != mirrored(page):
        return f"{page}: its original is {mirrored(page)}, not '{original}'"
    if not (repo / original).is_file():
        return f"{page}: its original is gone"
    if not re.fullmatch(r"[0-9a-f]{40}", follows):
        return f"{page}: follows '{follows}': give a commit's 40 digits"
    if git(repo, "merge-base", "--is-ancestor", follows, "HEAD").returncode:
        return f"{page}: follows {follows}, which is not in this history"
    if git(repo, "cat-file", "-e", f"{follows}:{original}").returncode:
        return f"{page}: {original} was not there in {follows}"
    if git(repo, "diff", "--quiet", follows, "--", original).returncode:
        return f"{page}: has fallen behind: git diff {follows[:12]} -- {original}"
    return ""


def untranslated(repo: Path) -> list[str]:
    """Return the pages that have no translation."""
    there = {mirrored(page) for page in pages(repo)}
    docs = repo / "Documentation"
    ours = [
        path.relative_to(repo).as_posix() for path in docs.rglob("*.rst") if docs / "translations" not in path.parents
    ]
    return sorted({"README.md", *ours} - there)


def glossary(repo: Path) -> list[tuple[list[str], list[str]]]:
    """Read the words that are used, and those that are not, of each term."""
    rows = [re.split(" {2,}", line.rstrip()) for line in (repo / GLOSSARY).read_text(encoding="utf-8").split("\n")]
    start = rows.index(_HEAD) + 2
    end = next(number for number in range(start, len(rows)) if not rows[number][0].strip("="))
    return [(row[1].split("、"), row[2].split("、") if len(row) > 2 else []) for row in rows[start:end]]


def prose(repo: Path, page: Path) -> list[str]:
    """Return the lines of a page; of the index those above the glossary."""
    lines = (repo / page).read_text(encoding="utf-8").split("\n")
    if page == GLOSSARY:
        del lines[next(number for number, line in enumerate(lines) if line.split() == _HEAD) :]
    return lines


def wrong_words(repo: Path) -> list[str]:
    """Say where a page has a word that is not to be used, and what is used for it."""
    terms = glossary(repo)
    return [
        f"{page}:{number}: {word}: {'、'.join(used)}"
        for page in pages(repo)
        for number, line in enumerate(prose(repo, page), 1)
        for used, unused in terms
        for word in unused
        if word in line
    ]


def kept(text: str) -> set[str]:
    """Return what a translation leaves as it is."""
    found = {(match["rst"] or match["command"] or match["figure"]) for match in _KEPT.finditer(text)}
    return {re.sub("<.*?>", "<>", " ".join(each.split())).rstrip(",.") for each in found}


def test_translations_have_the_words_of_the_glossary() -> None:
    wrong = wrong_words(REPO)
    assert not wrong, "\n".join(wrong)


def test_words_of_the_glossary_are_in_use() -> None:
    text = "\n".join(line for page in pages(REPO) for line in prose(REPO, page))
    unused = [word for used, _ in glossary(REPO) for word in used if word not in text]
    assert not unused, f"{GLOSSARY}: not on any page: {'、'.join(unused)}"


def test_translations_have_what_is_no_words() -> None:
    missing = {
        str(page): lost
        for page in pages(REPO)
        if (lost := kept((REPO / mirrored(page)).read_text(encoding="utf-8")) - kept("\n".join(prose(REPO, page))))
    }
    assert not missing


def test_translations_have_not_fallen_behind() -> None:
    if why := no_history(REPO):
        pytest.skip(why)
    wrong = [said for said in (problem(REPO, page) for page in pages(REPO)) if said]
    assert not wrong, "\n".join(wrong)


def test_every_page_is_translated() -> None:
    missing = untranslated(REPO)
    assert not missing, f"not in {FOLDER}: {', '.join(missing)}"


def test_translated_reference_has_all_that_the_program_has() -> None:
    """The original is made from the program: it can say something else without a change of its text."""
    terms = re.findall(r"^``(.*)``$", (REPO / FOLDER / "reference.rst").read_text(encoding="utf-8"), re.MULTILINE)
    (commands,) = (each for each in cli.parser()._actions if isinstance(each, argparse._SubParsersAction))
    ours = [f"kmend {name}" for name in commands.choices]
    ours += [str(word.value) for words in (ExitCode, Status, Outcome, Verdict, Has) for word in words]
    assert terms == ours


PAGE = FOLDER / "guides/tree.rst"
ORIGINAL = "Documentation/guides/tree.rst"


def commit(repo: Path) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=n@localhost"]
    assert git(repo, "add", "-A").returncode == 0
    done = git(repo, *identity, "commit", "-q", "--no-gpg-sign", "--allow-empty", "-m", "text")
    assert done.returncode == 0, done.stderr
    return git(repo, "rev-parse", "HEAD").stdout.strip()


def write(repo: Path, name: str | Path, text: str) -> None:
    (repo / name).parent.mkdir(parents=True, exist_ok=True)
    (repo / name).write_text(text, encoding="utf-8")


def translate(repo: Path, follows: str, original: str = ORIGINAL) -> None:
    write(
        repo, PAGE, f".. SPDX\n\n.. include:: ../disclaimer.txt\n\n:Original: {original}\n:Follows: {follows}\n\nText\n"
    )


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A clone with one page and its translation."""
    repo = tmp_path / "repo"
    repo.mkdir()
    assert git(repo, "init", "-q").returncode == 0
    write(repo, ORIGINAL, "English\n")
    write(repo, "README.md", "English\n")
    first = commit(repo)
    translate(repo, first)
    write(repo, FOLDER / "README.md", f"<!-- SPDX -->\n<!-- Original: README.md -->\n<!-- Follows: {first} -->\n# T\n")
    commit(repo)
    return repo


def test_translation_of_today(repo: Path) -> None:
    assert [problem(repo, page) for page in pages(repo)] == ["", ""] and untranslated(repo) == []


def test_translation_that_has_fallen_behind(repo: Path) -> None:
    follows = header((repo / PAGE).read_text(encoding="utf-8"))["Follows"]
    write(repo, ORIGINAL, "More English\n")
    said = f"{PAGE}: has fallen behind: git diff {follows[:12]} -- {ORIGINAL}"
    # Not even committed yet, and then.
    assert problem(repo, PAGE) == said
    newer = commit(repo)
    assert problem(repo, PAGE) == said
    translate(repo, newer)
    assert problem(repo, PAGE) == ""


def test_commits_between_do_not_matter(repo: Path) -> None:
    write(repo, ORIGINAL, "More English\n")
    commit(repo)
    write(repo, ORIGINAL, "English\n")
    commit(repo)
    assert problem(repo, PAGE) == ""


def test_commit_of_another_history(repo: Path) -> None:
    here = git(repo, "rev-parse", "HEAD").stdout.strip()
    git(repo, "checkout", "-q", "--orphan", "other")
    other = commit(repo)
    git(repo, "checkout", "-q", "-f", here)
    translate(repo, other)
    assert problem(repo, PAGE) == f"{PAGE}: follows {other}, which is not in this history"
    translate(repo, "0" * 40)
    assert "not in this history" in problem(repo, PAGE)


@pytest.mark.parametrize("follows", ["", "HEAD", "main", "1234567"])
def test_commit_has_its_full_id(repo: Path, follows: str) -> None:
    translate(repo, follows)
    assert problem(repo, PAGE) == f"{PAGE}: follows '{follows}': give a commit's 40 digits"


def test_original_must_be_the_one_at_that_path(repo: Path) -> None:
    follows = header((repo / PAGE).read_text(encoding="utf-8"))["Follows"]
    translate(repo, follows, "Documentation/guides/farm.rst")
    assert "its original is Documentation/guides/tree.rst, not 'Documentation/guides/farm.rst'" in problem(repo, PAGE)
    translate(repo, follows)
    (repo / ORIGINAL).unlink()
    assert problem(repo, PAGE) == f"{PAGE}: its original is gone"


def test_original_that_is_newer_than_what_is_followed(repo: Path) -> None:
    follows = header((repo / PAGE).read_text(encoding="utf-8"))["Follows"]
    new = FOLDER / "audit.rst"
    write(repo, "Documentation/audit.rst", "English\n")
    assert untranslated(repo) == ["Documentation/audit.rst"]
    write(repo, new, f":Original: Documentation/audit.rst\n:Follows: {follows}\n")
    commit(repo)
    assert problem(repo, new) == f"{new}: Documentation/audit.rst was not there in {follows}"


def test_word_that_is_not_to_be_used(repo: Path) -> None:
    follows = header((repo / PAGE).read_text(encoding="utf-8"))["Follows"]
    table = ["====  ======  ==========", "英文  译法    不用", "====  ======  =========="]
    table += ["seal  校验和  封印、封条", "tree  内核树", "====  ======  ==========", "", "封印"]
    write(repo, GLOSSARY, "\n".join(["校验和", *table]))
    assert glossary(repo) == [(["校验和"], ["封印", "封条"]), (["内核树"], [])]
    assert wrong_words(repo) == []
    translate(repo, follows)
    write(repo, PAGE, (repo / PAGE).read_text(encoding="utf-8") + "结果和封条\n")
    assert wrong_words(repo) == [f"{PAGE}:9: 封条: 校验和"]


@pytest.mark.parametrize(
    ("english", "lost"),
    [
        ("It took 1,024 s.", {"1,024"}),
        ("See ``patches/series/\n  BASE``.", {"patches/series/ BASE"}),
        ("::\n\n    scripts/kmend audit TREE   # only read\n", {"scripts/kmend audit TREE"}),
        ("In ``kunit/<path in the tree>``, v6.12 and 6.12.117 and x86_64, on the same 3 CPUs.", {"6.12.117"}),
    ],
)
def test_what_a_translation_lost(english: str, lost: set[str]) -> None:
    assert kept(english) - kept("在 ``kunit/<内核树中的路径>`` 中，3 个 CPU 用了 1024 秒") == lost


def test_without_history(repo: Path, tmp_path: Path) -> None:
    assert no_history(repo) == ""
    assert "no git clone" in no_history(tmp_path) and "no git clone" in no_history(repo / "Documentation")
    shallow = tmp_path / "shallow"
    assert git(tmp_path, "clone", "-q", "--depth=1", f"file://{repo}", str(shallow)).returncode == 0
    assert "shallow" in no_history(shallow)
