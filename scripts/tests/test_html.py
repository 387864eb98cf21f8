# SPDX-License-Identifier: GPL-2.0-only
"""The report page and what lies beside it: their content, that evidence which cannot be trusted is no pass, and that
nothing in evidence can harm the reader.  The page is looked at in Chromium where that is installed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from browser import CONTRAST, OUTSIDE, PROGRAM, Browser
from kmendlib import cli
from kmendlib.host.errors import BadInput, ExitCode
from kmendlib.host.text import visible
from kmendlib.proof import evidence
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.plan import Request
from kmendlib.run import Build
from kmendlib.show import formats, page, timeline
from kmendlib.tree import diagram, manifest
from made import FIX, LINE, LOGS, PLAN, edit_results, leave, plan

Make = Callable[..., Evidence]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that leaves evidence in a folder of a name."""
    return lambda name="run", **words: leave(tmp_path / name, **words)


class _Text(HTMLParser):
    """Reads a page: its text, its tags, and whether they close in the order in which they open."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def read(html: str) -> _Text:
    parser = _Text()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def words(html: str) -> str:
    return " ".join(read(html).text.split())


def test_answer_comes_first(make: Make) -> None:
    shown = words(page.render([make()]))
    first = shown.partition("Matrix red k/N")[0]
    assert "/usr/src/linux (4.19.90)" in first
    assert "This tree has 1 of 2 bugs: pci-cfg-wait. Proved mended: 1 of 2." in first
    assert "The tree has pci-cfg-wait: unlocked-queue" in first
    assert "Proved mended: red with the bug, green without pci-cfg-wait: x86_64, arm64" in first
    assert "Could not be run or shown riscv-kvm-exit: x86_64: run it with: kmend verify --arch riscv64" in first
    assert "Not proved" not in first


def test_matrix_counts(make: Make) -> None:
    shown = words(page.render([make()]))
    assert "pci_cfg_wait kunit x86_64 ✔ PROVED red 1/1 2.5s green 1/1 2.5s arm64 ✔ PROVED red 1/1 2.5s" in shown
    assert "pci:cfg_reset kselftest x86_64 ✔ PASS hit 0/1 2.5s green 1/1 2.5s –" in shown
    assert "riscv_kvm_exit kunit x86_64 ○ not run" in shown


def test_source_has_the_line_marked(make: Make) -> None:
    html = page.render([make()])
    (marked,) = re.findall(r'<span class="mark"><span class="number">(.*?)</span>(.*?)\n</span>', html)
    assert marked == (f"▶{LINE:6} ", "\t__add_wait_queue(&amp;pci_cfg_wait, &amp;wait);")
    assert f"{LINE - 4} </span>" in html and f"{LINE + 4} </span>" in html and f"{LINE + 5} </span>" not in html


def test_diff_keeps_its_signs(make: Make) -> None:
    html = page.render([make()])
    lines = (manifest.PATCHES / FIX).read_text(encoding="utf-8").split("\n")
    assert '<span class="del">-	__add_wait_queue(&amp;pci_cfg_wait, &amp;wait);\n</span>' in html
    for sign, kind in (("+", "add"), ("-", "del")):
        wanted = [line for line in lines if line.startswith(sign) and line[:3] not in ("+++", "---") and line != "-- "]
        assert wanted and [line[0] for line in re.findall(rf'<span class="{kind}">(.*?)\n</span>', html)] == [
            sign
        ] * len(wanted)
    assert "mends it, in the kernel “after”" in html


@pytest.mark.parametrize(
    ("log", "verdict", "telling"),
    [
        ("kunit_oops.log", "PANIC", r"Oops|BUG:|Unable to handle|Internal error"),
        ("list_corruption.log", "PANIC", r"list_(add|del) corruption|BUG|Oops"),
        ("lockdep_splat.log", "FAIL", r"WARNING: |BUG: "),
        ("kunit_fail.log", "FAIL", r"^\s*not ok"),
        ("kunit_cut_off.log", "MISS", r"\S"),
        ("empty.log", "MISS", r"^$"),
    ],
)
def test_wrong_run_has_its_telling_line_marked(make: Make, log: str, verdict: str, telling: str) -> None:
    kept = make(worse=verdict, log=log, reason="a reason")
    html = page.render([kept])
    section = html.partition("Runs that are not as they must be")[2]
    assert f"pci_cfg_wait on arm64, after, boot 1</span> {verdict}: a reason" in section
    (marked,) = re.findall(r'<span class="mark">(?:<span class="number">▶ *\d+ </span>)?(.*?)\n</span>', section)
    assert re.search(telling, marked)
    last = (LOGS / log).read_text(errors="replace", encoding="utf-8").rstrip("\r\n").split("\n")[-1].rstrip("\r")
    assert visible(last)[:40].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in section
    assert "Not proved" in words(html) and Evidence.open(kept.folder).run.exit_code() != ExitCode.OK


def test_kernel_that_did_not_build(make: Make) -> None:
    kept = make(seal=False)
    broken = kept.run.build_id("x86_64", "after")
    builds = tuple(build for build in kept.run.builds if build.id != broken)
    kept.update(builds=builds, results=tuple(result for result in kept.run.results if result.build != broken))
    (kept.folder / "x86_64/build.log").write_text("CC a.o\na.c:1: error: no\nmake: *** failed\n", encoding="utf-8")
    kept.add(Build(broken, "x86_64", "a.c:1: error: no", log="x86_64/build.log"))
    kept.seal()
    html = page.render([Evidence.open(kept.folder)])
    assert re.search(r'class="mark">.*▶     2 </span>a.c:1: error: no', html) and "✘ ERROR" in words(html)


def test_versions_and_how_to_run_it_again(make: Make) -> None:
    shown = words(page.render([make()]))
    assert "base linux-4.19.y KUnit kmend's small one" in shown
    assert "x86_64: compiler gcc 12.2.0 x86_64: QEMU QEMU emulator version 10.0.2" in shown
    assert hashlib.sha256(b"CONFIG_KUNIT=y\n").hexdigest() in shown
    assert "scripts/kmend verify --tree /usr/src/linux --arch x86_64,arm64" in shown


def test_page_needs_nothing_else(make: Make) -> None:
    html = page.render([make(worse="PANIC", reason="see https://example.org/")])
    parser = read(html)
    assert not {tag for tag, _ in parser.tags} & {"script", "link", "img", "iframe", "object", "base", "form"}
    targets = [attrs[name] for _, attrs in parser.tags for name in ("href", "src") if name in attrs]
    assert targets and all(target and target.startswith("#") for target in targets)
    ids = [attrs["id"] for _, attrs in parser.tags if "id" in attrs]
    assert {target.removeprefix("#") for target in targets if target} <= set(ids) and len(ids) == len(set(ids))
    assert "default-src 'none'" in html and "url(" not in html and "@import" not in html


def test_several_folders_side_by_side(make: Make) -> None:
    good, bad = make("one"), make("two", worse="PANIC", comment="other (5.4.1)")
    shown = words(page.render([good, bad]))
    assert "1: /usr/src/linux (4.19.90)" in shown and "2: other (5.4.1)" in shown
    assert "arm64, 1 ✔ PROVED ≠ differs red 1/1 2.5s" in shown
    assert "arm64, 2 ✘ NOT PROVED ≠ differs red 1/1 2.5s green 0/1 2.5s (PANIC)" in shown
    assert "x86_64, 1 ✔ PROVED red" in shown and "x86_64, 2 ✔ PROVED red" in shown


# What a page must not have: all that is not text, and what turns text around.
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
HOSTILE = (
    "</pre></title></style><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} {% raw %} &lt; "
    '\x1b[2J\x1b]0;title\x07 \x00 \x9b31m \u202etxt.exe\u2069 \u200b \ud800 " \' onmouseover="alert(3)'
)


def test_hostile_evidence_is_shown_harmlessly(make: Make) -> None:
    bug = '"><svg onload=alert(4)>'
    plans = [
        *PLAN,
        plan(bug, "x86_64", f"s {HOSTILE}", not_run=HOSTILE),
        plan("../../etc/passwd", "arm64", "s", not_run="-"),
    ]
    kept = make(worse="PANIC", reason=HOSTILE, comment=HOSTILE.replace("\0", ""), plans=plans, seal=False)
    log = kept.folder / "arm64/after-pci_cfg_wait-1.log"
    log.write_bytes(
        HOSTILE.encode(errors="surrogatepass") + b"\n\xff\xfe" + b"x" * 5000 + b"\nKernel panic - not syncing: <b>\n"
    )
    kept.seal()
    loaded = Evidence.open(kept.folder)
    path = kept.folder / page.NAME
    path.write_text(page.render([loaded]), encoding="utf-8")
    html = path.read_text(encoding="utf-8")
    assert not RAW.search(html)
    parser = read(html)
    assert not {tag for tag, _ in parser.tags} & {"script", "img", "b\u0000"}
    assert not [name for _, attrs in parser.tags for name in attrs if name.startswith("on")]
    assert "␛[2J␛]0;title␇ ␀ <U+009B>31m <U+202E>txt.exe<U+2069>" in parser.text
    assert "<script>alert(1)</script>" in parser.text and "{{ 7 * 7 }}" in parser.text and "root:" not in parser.text
    assert "Kernel panic - not syncing: <b>" in parser.text and "characters more" in parser.text
    # The XML stands, and the table has one line for each row, no markup and nobody called.
    xml = formats.junit([loaded]).decode()
    assert not RAW.search(xml) and "&lt;script&gt;" in xml
    table = formats.summary([loaded])
    assert not RAW.search(table) and "<script" not in table and "<img" not in table
    assert sum(line.startswith("| ") for line in table.split("\n")) == 2 + len(plans)


def test_console_without_end_is_cut(make: Make) -> None:
    kept = make(worse="PANIC", seal=False)
    with (kept.folder / "arm64/after-pci_cfg_wait-1.log").open("wb") as log:
        log.truncate(100 << 20)
        log.seek(0, 2)
        log.write(b"\n" * 100_000 + b"Kernel panic - not syncing: flood\n" + b"<<\n" * 5000)
    kept.seal()
    html = page.render([Evidence.open(kept.folder)])
    assert len(html) < 200_000
    shown = words(html)
    assert "The log has 104,972,634 bytes; what is shown is from the last 262,144." in shown
    assert "▶ Kernel panic - not syncing: flood" in shown and "lines left out" in shown


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link", "arm64", "x" * 5000, "a\0b"])
def test_no_file_outside_of_the_folder_is_shown(make: Make, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("Kernel panic - not syncing: secret\n", encoding="utf-8")
    kept = make(worse="PANIC", seal=False)
    (kept.folder / "link").symlink_to(tmp_path / "secret")
    results = [replace(result, ending=replace(result.ending, console=Path(name))) for result in kept.run.results]
    kept.update(results=tuple(results))
    html = page.render([kept])
    assert "syncing: secret" not in html and "The log is not in the folder." in html


def no_pass(kept: Evidence) -> str:
    """Assert that nothing of evidence is shown as a pass, anywhere, and return what the page says."""
    html = page.render([kept])
    shown = words(html)
    assert "✔" not in shown and "PROVED" not in shown.replace("NOT PROVED", "") and "green 1/1" not in shown
    assert "Nothing of this evidence is shown as a pass." in shown
    assert "success" not in formats.summary([kept])
    xml = formats.junit([kept]).decode()
    assert xml.count("<testcase") == xml.count("<error") > 0
    assert kept.run.exit_code() == ExitCode.USAGE and not any(proof.proved for proof in kept.run.proofs)
    return shown


def test_folder_that_was_cut_off(make: Make) -> None:
    kept = Evidence.open(make(seal=False).folder)
    assert "Not trusted: unfinished: the run was cut off, or still goes on" in no_pass(kept)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda f: (f / "results.json").write_text(
                (f / "results.json").read_text(encoding="utf-8").replace("FAIL", "PASS"), encoding="utf-8"
            ),
            "results",
        ),
        (
            lambda f: (f / "arm64/after-pci_cfg_wait-1.log").write_text("all fine\n", encoding="utf-8"),
            "arm64/after-pci_cfg_wait-1.log is",
        ),
        (lambda f: (f / "arm64/config").unlink(), "arm64/config is missing"),
        (lambda f: (f / "audit.json").write_text("{}", encoding="utf-8"), "audit.json is not as the run left it"),
        (lambda f: (f / "SHA256SUMS").write_text("", encoding="utf-8"), "SHA256SUMS is not as the run left it"),
        (
            lambda f: (f / "SHA256SUMS").write_text("0  ../../etc/passwd\n" * 2, encoding="utf-8"),
            "../../etc/passwd is missing, and ",
        ),
    ],
)
def test_folder_that_was_edited(make: Make, change: Callable[[Path], object], why: str) -> None:
    folder = make().folder
    assert not Evidence.open(folder).run.distrust
    change(folder)
    assert f"Not trusted: changed since: {why}" in no_pass(Evidence.open(folder))


def test_folder_from_before_there_were_digests(make: Make) -> None:
    folder = make().folder
    edit_results(folder, lambda data: data["checkouts"][0]["misc"].pop("format"))
    assert "Not trusted: from an older kmend" in no_pass(Evidence.open(folder))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data["version"].update(minor=4), "KCIDB 5.4"),
        (lambda data: data["version"].update(major=6, minor=0), "KCIDB 6.0"),
        (lambda data: data["checkouts"][0]["misc"].update(format=99), "format 99"),
    ],
)
def test_folder_from_a_newer_version(make: Make, change: Callable[[Any], object], why: str) -> None:
    folder = make().folder
    edit_results(folder, change)
    with pytest.raises(BadInput, match=f"newer kmend .{re.escape(why)}.: show it with that one"):
        Evidence.open(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["tests"][0].update(duration="3"),
        lambda data: data["tests"][0].update(duration=1e300),
        lambda data: data["tests"][0].update(status="GREAT"),
        lambda data: data["tests"][0].update(log_excerpt="x" * 16385),
        lambda data: data["tests"][0].update(log_excerpt="a\0b"),
        lambda data: data["tests"][0].update(path="a b"),
        lambda data: data["tests"][0].update(mine=1),
        lambda data: data["tests"][0]["misc"].update(cases=["PASS"]),
        lambda data: data["tests"][0]["misc"].update(verdict="GREAT"),
        lambda data: data["checkouts"][0]["misc"].update(plan=None),
        lambda data: data["checkouts"][0].update(start_time="today"),
        lambda data: data["checkouts"].append(data["checkouts"][0]),
        lambda data: data["builds"][0].update(architecture="X86"),
        lambda data: data["builds"][0].update(id="without-origin"),
    ],
)
def test_schema_finds_what_kcidb_would_refuse(make: Make, change: Callable[[Any], object]) -> None:
    folder = make().folder
    data = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert evidence.problem(data, "results") == ""
    edit_results(folder, change)
    with pytest.raises(BadInput, match="damaged") as error:
        Evidence.open(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "[" * 100_000, "9" * 5000, "\ufeff{}", '{"version": {"major": null}}', '{"version": 5}'],
)
def test_json_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="damaged"):
        Evidence.open(tmp_path)


def test_digests_are_those_of_sha256sum(make: Make) -> None:
    folder = make().folder
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    # What is rendered beside it later changes nothing.
    (folder / page.NAME).write_text("page", encoding="utf-8")
    assert not Evidence.open(folder).run.distrust


def test_junit_says_what_is_as_it_must_be(make: Make, tmp_path: Path) -> None:
    junitparser = pytest.importorskip("junitparser")
    path = tmp_path / "junit.xml"
    path.write_bytes(formats.junit([make(worse="PANIC", reason="Oops")]))
    suites = list(junitparser.JUnitXml.fromfile(str(path)))
    found = {case.name: [type(r).__name__ for r in case.result] for suite in suites for case in suite}
    assert [suite.name for suite in suites][0] == "pci-cfg-wait pci_cfg_wait x86_64"
    assert found == {
        "pci_cfg_wait before 1": [],
        "pci_cfg_wait after 1": ["Failure"],
        "pci:cfg_reset before 1": [],
        "pci:cfg_reset after 1": [],
        "riscv_kvm_exit": ["Skipped"],
    }


def test_boot_that_is_missing_is_no_pass_in_junit(make: Make) -> None:
    kept = make(seal=False)
    kept.update(results=kept.run.results[:-1])
    assert 'name="pci:cfg_reset after 1"' in formats.junit([kept]).decode()
    assert "this boot was not run" in formats.junit([kept]).decode()


def test_summary_has_the_form_of_the_gate(make: Make) -> None:
    lines = formats.summary([make(worse="PANIC")]).split("\n")
    assert lines[2:8] == [
        "| check | result |",
        "| :-: | :-: |",
        "| pci-cfg-wait pci_cfg_wait x86_64 | success |",
        "| pci-cfg-wait pci_cfg_wait arm64 | failure |",
        "| pci-cfg-wait pci:cfg_reset x86_64 | success |",
        "| riscv-kvm-exit riscv_kvm_exit x86_64 | skipped |",
    ]


def test_summary_calls_nobody(make: Make) -> None:
    text = formats.summary([make(comment="@torvalds #1 a|b *c* `d` [e](f) <g>")])
    assert "@&#8203;torvalds #&#8203;1 a&#124;b &#42;c&#42; &#96;d&#96; &#91;e&#93;(f) &#60;g&#62;" in text


def run(*arguments: str | Path) -> int:
    return cli.main([str(each) for each in arguments])


def test_page_that_cannot_be_written(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", make().folder, "--out", tmp_path / "no/where.html") == ExitCode.USAGE
    assert "where.html: No such file or directory: name another file with --out" in capsys.readouterr().err


def test_command_asks_for_the_same() -> None:
    book = manifest.load()
    request = Request(None, None, book.bugs, ("x86_64",), 1, None)
    assert request.command() == "scripts/kmend verify --base linux-6.12.y --arch x86_64"
    chosen = book.select(["pci-cfg-wait", "nfsd-cb-shutdown/no-wait"])
    request = Request(Path("/a tree"), None, chosen, ("x86_64", "arm64"), 3, None)
    assert request.command() == (
        "scripts/kmend verify --tree '/a tree' --bug pci-cfg-wait --bug nfsd-cb-shutdown/no-wait"
        " --arch x86_64,arm64 --repeat 3"
    )


def _interleavings(text: str) -> Iterator[tuple[tuple[int, int], str]]:
    """Find the two-lane blocks of a bug's page: the widths of their columns, and their text without the indentation."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if rule := re.fullmatch(r"  (-+)  (-+)", line):
            end = next(at for at in range(number, len(lines)) if lines[at] and not lines[at].startswith("  "))
            block = "\n".join(line.removeprefix("  ") for line in lines[number - 1 : end]).rstrip()
            yield (len(rule[1]), len(rule[2])), block


@pytest.mark.parametrize("bug", [bug.id for bug in manifest.load().bugs])
def test_timelines_are_those_of_the_bugs_page(bug: str) -> None:
    lines = timeline.timelines(bug)
    blocks = list(_interleavings((diagram.PAGES / f"{bug}.rst").read_text(encoding="utf-8")))
    assert lines and [line.to_text(widths) for line, (widths, _) in zip(lines, blocks, strict=True)] == [
        block for _, block in blocks
    ]
    known = {finding.id for finding in manifest.load().bug(bug).findings}
    assert {line.finding for line in lines} <= known
    for line in lines:
        assert line.wrong
        for drawing in (line.wide(), line.narrow()):
            assert all(mark.x + mark.length <= drawing.width and mark.y <= drawing.height for mark in drawing.marks)


def test_bug_without_timeline() -> None:
    assert timeline.timelines("no-such-bug") == [] and timeline.timelines("../../patches/bugs") == []


@pytest.mark.skipif(not PROGRAM, reason="chromium is not installed")
def test_page_in_a_browser(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    good = make("one")
    bad = make("two", worse="PANIC", log="list_corruption.log", reason="list_add corruption " + "x" * 200)
    profile = tmp_path / "browser"
    profile.mkdir()
    with Browser(profile) as browser:
        for name, evidences in (("one", [good]), ("both", [good, bad])):
            path.write_text(page.render(evidences), encoding="utf-8")
            for width in (360, 1440):
                for scheme in ("light", "dark"):
                    browser.show(width, scheme=scheme)
                    browser.open(path)
                    browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
                    assert browser.run("document.documentElement.scrollWidth") <= width
                    assert browser.run(OUTSIDE) == []
                    assert browser.run(CONTRAST) == []
                    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
                        "rgb(255, 255, 255)" if scheme == "light" else "rgb(13, 17, 23)"
                    )
                    drawn = "narrow" if width == 360 else "wide"
                    assert browser.run(f"getComputedStyle(document.querySelector('svg.{drawn}')).display") != "none"
                    assert "This tree has 1 of 2 bugs" in browser.run("document.querySelector('.headline').innerText")
                    # The answer is what a reader sees first.
                    assert browser.run(
                        "document.querySelector('.headline').getBoundingClientRect().bottom < innerHeight"
                    )
                    browser.picture(tmp_path / f"{name}-{width}-{scheme}.png")
        _keyboard(browser)
        browser.show(1000, scheme="dark", media="print")
        browser.open(path)
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.run("document.querySelector('details:not([open]) pre').checkVisibility()")
        assert browser.run(CONTRAST) == []
        browser.picture(tmp_path / "print.png")
    assert len(list(tmp_path.glob("*.png"))) == 9


def _keyboard(browser: Browser) -> None:
    """Go through the page with the keyboard alone."""
    browser.show(1440)
    browser.press("Tab")
    assert browser.run("document.activeElement.className") == "skip"
    assert browser.run("document.activeElement.getBoundingClientRect().top >= 0")
    browser.press("Enter")
    assert browser.run("document.activeElement.id") == "main"
    seen = set()
    for _ in range(60):
        browser.press("Tab")
        seen.add(browser.run("document.activeElement.tagName"))
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        if browser.run("document.activeElement.tagName") == "SUMMARY":
            was = browser.run("document.activeElement.parentElement.open")
            browser.press("Enter")
            assert browser.run("document.activeElement.parentElement.open") is not was
        if {"SUMMARY", "A", "DIV"} <= seen:
            return
    raise AssertionError(f"only {seen} can be reached")
