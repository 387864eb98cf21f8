# SPDX-License-Identifier: GPL-2.0-only
"""The books: they build without a warning, say all that the program has, every link leads somewhere, and every bug has
its page, drawn.  Sphinx builds them where it is installed, and Chromium looks at them where that is."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from browser import CONTRAST, PROGRAM, Browser
from kmendlib import cli
from kmendlib.host.errors import ExitCode
from kmendlib.host.words import Outcome, Verdict
from kmendlib.show import timeline
from kmendlib.tree import manifest
from kmendlib.tree.audit import Status
from kmendlib.tree.manifest import REPO

DOCS = REPO / "Documentation"
BUGS = [bug.id for bug in manifest.load().bugs]
needs_sphinx = pytest.mark.skipif(not shutil.which("sphinx-build"), reason="sphinx-build is not installed")


def build(builder: str, folder: Path) -> Path:
    """Build the books; all that Sphinx says is in the failure's message."""
    command = ["sphinx-build", "-W", "--keep-going", "-n", "-q", "-b", builder, "-d", str(folder / "doctrees")]
    done = subprocess.run([*command, str(DOCS), str(folder / builder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / builder


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("html", tmp_path_factory.mktemp("books"))


@pytest.fixture(scope="module")
def man(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("man", tmp_path_factory.mktemp("man")) / "kmend.1"


class _Page(HTMLParser):
    """Reads a page: its text, the links that it has, and the places that can be linked."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("a", "code", "em", "span", "strong"):
            self.text += " "
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.ids.add(value)

    def handle_data(self, data: str) -> None:
        self.text += data


def words(text: str) -> str:
    return " ".join(text.split())


def _commands() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (each for each in cli.parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(commands.choices)


def expected() -> list[str]:
    """All that the reference must name: commands, what they do, options, exit codes and their meanings."""
    found = []
    for name, command in _commands().items():
        found += [f"kmend {name}", words(command.description or "")]
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction):
                found += [*action.option_strings, words(action.help or "")]
    found += [f"{word.value} {word.meaning}." for word in ExitCode]
    return found


def _same(text: str) -> str:
    return words(text).casefold()


@needs_sphinx
def test_reference_has_all_that_the_program_has(html: Path) -> None:
    text = _same(_Page(html / "reference.html").text)
    more = [f"{word.value} {word.meaning}." for words in (Status, Outcome, Verdict) for word in words]
    assert [each for each in [*expected(), *more] if _same(each) not in text] == []


@needs_sphinx
def test_manual_page_has_all_that_the_program_has(man: Path) -> None:
    source = man.read_text(encoding="utf-8")
    sections = re.findall(r"^\.SH (.*)$", source, re.MULTILINE)
    wanted = "NAME SYNOPSIS DESCRIPTION COMMANDS,EXIT STATUS,ENVIRONMENT FILES EXAMPLES,SEE ALSO"
    assert [name.strip('"') for name in sections if name != "COPYRIGHT"] == [
        name for part in wanted.split(",") for name in ([part] if part in ("EXIT STATUS", "SEE ALSO") else part.split())
    ]
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    command = ["man", "--warnings", "--no-hyphenation", "-l", str(man)]
    done = subprocess.run(
        command, env={"MANWIDTH": "2000", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, capture_output=True
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    text = _same(re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout.decode()))
    assert [each for each in expected() if _same(each) not in text] == []


def test_help_has_all_exit_codes() -> None:
    text = words(cli.parser().format_help())
    assert [word for word in ExitCode if f"{word.value} {word.meaning}" not in text] == []
    assert all(word.meaning for words in (ExitCode, Status, Outcome, Verdict) for word in words)


def test_every_option_says_what_it_does() -> None:
    for name, command in _commands().items():
        assert [action.dest for action in command._actions if not action.help] == [], name


@needs_sphinx
def test_links_between_pages_lead_somewhere(html: Path) -> None:
    pages = {path: _Page(path) for path in html.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (parts.fragment and parts.fragment not in pages[target].ids):
                dead.append((path.name, link))
    assert dead == [] and len(pages) > len(BUGS)


@needs_sphinx
def test_pages_need_no_network(html: Path) -> None:
    for path in html.rglob("*.html"):
        loaded = re.findall(
            r'<(?:link|script|img|iframe)\b[^>]*\b(?:href|src)="([^"]*)"', path.read_text(encoding="utf-8")
        )
        assert [each for each in loaded if urlsplit(each).netloc] == [], path


def _markdown() -> list[Path]:
    return [path for path in [REPO / "README.md", *DOCS.rglob("*.md")] if path.is_file()]


def _anchors(text: str) -> set[str]:
    """Return the names that forges give to the headings of a Markdown page."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_of_markdown_pages_lead_somewhere() -> None:
    dead = []
    for path in _markdown():
        text = path.read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)\s]+)\)", text)
        assert links
        for link in links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / parts.path).resolve() if parts.path else path
            there = target.exists() and (
                not parts.fragment or parts.fragment in _anchors(target.read_text(encoding="utf-8"))
            )
            if not there:
                dead.append((path.relative_to(REPO).as_posix(), link))
    assert dead == []


# A path of this repository, as it stands in a page.
_PATH = re.compile(r"``((?:Documentation|patches|kunit|selftests|scripts)/[\w./-]+)``")


def test_paths_that_pages_name_are_there() -> None:
    named = {
        (page.relative_to(DOCS).as_posix(), path)
        for page in DOCS.rglob("*.rst")
        for path in _PATH.findall(page.read_text(encoding="utf-8"))
        # In capitals: a place for a name.
        if not re.search(r"\b[A-Z]{2,}\b", path)
    }
    # What the kernel has at such a path, and what a run leaves in its folder.
    ours = {each for each in named if not re.match(r"Documentation/dev-tools|patches/(before|after)/", each[1])}
    assert len(ours) > 20 and sorted(each for each in ours if not list(REPO.glob(f"{each[1].rstrip('/')}*"))) == []


@pytest.mark.parametrize("bug", BUGS)
def test_every_bug_has_a_page(bug: str) -> None:
    page = DOCS / "bugs" / f"{bug}.rst"
    assert page.is_file() and timeline.timelines(bug)
    assert f"\n   bugs/{bug}\n" in (DOCS / "index.rst").read_text(encoding="utf-8")
    assert f"(Documentation/bugs/{bug}.rst)" in (REPO / "README.md").read_text(encoding="utf-8")


def test_every_page_in_the_books_is_of_a_bug() -> None:
    assert sorted(path.stem for path in (DOCS / "bugs").glob("*.rst")) == sorted(BUGS)


@needs_sphinx
@pytest.mark.parametrize("bug", BUGS)
def test_interleavings_are_drawn(html: Path, bug: str) -> None:
    source = (html / "bugs" / f"{bug}.html").read_text(encoding="utf-8")
    page = _Page(html / "bugs" / f"{bug}.html")
    lines = timeline.timelines(bug)
    assert source.count('<svg class="wide"') == source.count('<svg class="narrow"') == len(lines) > 0
    for line in lines:
        assert line.title in page.text and line.to_text() in page.text


@needs_sphinx
def test_page_without_its_interleaving_does_not_build(tmp_path: Path) -> None:
    """What is drawn is the data's, and the page's text must be the same."""
    copy = tmp_path / "copy"
    shutil.copytree(REPO, copy, ignore=lambda folder, names: [name for name in names if name == ".git"])
    page = copy / "Documentation/bugs/pci-cfg-wait.rst"
    text = page.read_text(encoding="utf-8")
    assert "curr->func(curr, ...)" in text
    page.write_text(text.replace("curr->func(curr, ...)", "curr->func(wait, ...)"), encoding="utf-8")
    command = ["sphinx-build", "-W", "--keep-going", "-n", "-q", "-b", "html", str(copy / "Documentation")]
    done = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "0 of 1 timelines of pci-cfg-wait.toml are on its page" in done.stderr


@needs_sphinx
@pytest.mark.skipif(not PROGRAM, reason="chromium is not installed")
def test_pages_in_a_browser(html: Path, tmp_path: Path) -> None:
    wrong = []
    with Browser(tmp_path) as browser:
        for width, scheme in ((360, "light"), (360, "dark"), (1440, "light"), (1440, "dark")):
            for path in sorted(html.rglob("*.html")):
                browser.show(width, scheme=scheme)
                browser.open(path)
                browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
                reach, faint = browser.run("document.documentElement.scrollWidth"), browser.run(CONTRAST)
                if reach > width or faint:
                    wrong.append((path.name, width, scheme, reach, faint[:3]))
                if path.parent.name == "bugs":
                    drawn = "narrow" if width == 360 else "wide"
                    assert browser.run(f"getComputedStyle(document.querySelector('svg.{drawn}')).display") != "none"
    assert wrong == []
