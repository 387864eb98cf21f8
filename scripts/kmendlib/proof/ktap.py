# SPDX-License-Identifier: GPL-2.0-only
"""Turns a boot into a verdict.  The KTAP itself is read by the kernel's own kunit_parser.py."""

import importlib.util
import inspect
import io
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kmendlib.host.errors import Infrastructure
from kmendlib.host.words import Verdict
from kmendlib.run import End, Ending, Judgement, Row
from kmendlib.tree import manifest

TAIL_LINES = 25

_PANIC = re.compile(
    r"Kernel panic - not syncing|\bOops\b|kernel BUG at |BUG: unable to handle|BUG: kernel NULL pointer"
    r"|Unable to handle kernel|Internal error:|Kernel BUG\b"
)
_SPLAT = re.compile(
    r"\bWARNING: |\bBUG: |list_(?:add|del)(?:_\w+)? corruption|INFO: task .* blocked|rcu: INFO: |INFO: rcu_"
    r"|possible (?:circular|recursive) locking|inconsistent lock state|suspicious RCU usage|bad unlock balance"
)
# The tests are over: how an architecture stops its CPUs is not what they are about.
_POWER_OFF = re.compile(r"reboot: (?:Power down|Restarting system|System halted)")
# The guest's clock, which may stand before each line.
_STAMP = re.compile(r"\[ *\d+\.\d{6}\] ")
# At the start of the line: a subtest's own is indented.
_VERSION = re.compile(r"K?TAP version \d")
# Lines of test results and their diagnostics may quote the kernel log.
_NOT_OK = re.compile(r"^\s*not ok \d")
_KTAP_LINE = re.compile(r"^\s*(?:#|ok \d|not ok \d|1\.\.\d|K?TAP version)")
# What a kernel prints ahead of a call trace.
_TROUBLE = re.compile(
    r"BUG: |Oops|Reserved instruction|WARNING: |Unable to handle|list_(add|del) corruption|Internal error"
)


Parser = Callable[[list[str]], Any]


def parser_for(tree: Path) -> Parser:
    """Load kunit_parser.py from a kernel tree.

    Args:
        tree: the kernel tree.

    Returns:
        A function from console lines to the parser's Test.

    Raises:
        Infrastructure: it is missing, or from before v6.0, whose printer is in a file of its own.
    """
    modules: dict[str, Any] = {}
    for name in ("kunit_printer", "kunit_parser"):
        spec = importlib.util.spec_from_file_location(name, tree / f"tools/testing/kunit/{name}.py")
        assert spec and spec.loader
        modules[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(modules[name])
        except FileNotFoundError:
            raise Infrastructure(f"no tools/testing/kunit/kunit_parser.py that can be used in {tree}") from None
    printer, parser = modules["kunit_printer"].Printer, modules["kunit_parser"]
    takes_printer = "printer" in inspect.signature(parser.parse_run_tests).parameters

    def parse(lines: list[str]) -> Any:
        if takes_printer:
            return parser.parse_run_tests(iter(lines), printer(print=False))
        parser.stdout = printer(io.StringIO())
        return parser.parse_run_tests(iter(lines))

    return parse


def _below(test: Any) -> Iterator[Any]:
    """Yield all cases of a suite, and those that a case with parameters is made of."""
    for sub in test.subtests:
        yield sub
        yield from _below(sub)


def _find(test: Any, name: str) -> Any | None:
    for sub in test.subtests:
        found = sub if sub.name == name else _find(sub, name)
        if found:
            return found
    return None


_CASE = {"SUCCESS": "PASS", "FAILURE": "FAIL", "SKIPPED": "SKIP"}


def _first(pattern: re.Pattern[str], lines: list[str]) -> str:
    return next((line.strip() for line in lines if pattern.search(line) and not _KTAP_LINE.match(line)), "")


def plain(line: str) -> str:
    """Return a line of a console without the time that stands before it."""
    stamp = _STAMP.match(line)
    return line[stamp.end() :] if stamp else line


def ended(lines: Iterable[str]) -> bool:
    """Tell whether a console goes on to where a guest ends by itself: it powers off, or panics."""
    return any(_POWER_OFF.match(line) or "Kernel panic - not syncing" in line for line in lines)


def telling(lines: list[str]) -> int | None:
    """Return the number of the line of a console that says most of how a boot went wrong; None if none does."""
    for pattern in (_PANIC, _SPLAT):
        for number, line in enumerate(lines):
            if pattern.search(line) and not _KTAP_LINE.match(plain(line)):
                return number
    return next((number for number, line in enumerate(lines) if _NOT_OK.match(plain(line))), None)


def _document(lines: list[str], suite: str) -> list[str]:
    """Return the KTAP document with the suite's results: one in a module follows an empty one of the kernel's own."""
    starts = [number for number, line in enumerate(lines) if _VERSION.match(line)]
    documents = [lines[start:end] for start, end in itertools.pairwise([*starts, len(lines)])]
    name = re.compile(rf"\s*(?:# Subtest: |(?:not )?ok \d+ (?:- )?){re.escape(suite)}\s*(?:#|$)")
    return next((document for document in documents if any(map(name.match, document))), lines)


def judge(boot: Ending, suite: str, parse: Parser) -> Judgement:
    """Give the verdict on a boot.

    Args:
        boot: the boot.
        suite: name of the KUnit suite or kselftest that had to run.
        parse: the KTAP parser.
    """
    text = boot.console.read_bytes().decode(errors="replace").replace("\r", "")
    lines = [re.sub(r"[^\t\x20-\uffff]", "?", line) for line in text.split("\n")]
    tail = tuple(line for line in lines[-TAIL_LINES - 1 :] if line)
    lines = list(map(plain, lines))
    end = next((number for number, line in enumerate(lines) if _POWER_OFF.match(line)), len(lines))
    lines = lines[:end]
    # KTAP allows lines of others anywhere, but the parser takes one that comes within a header for the header's end.
    test = parse(_document([line for line in lines if _KTAP_LINE.match(line)], suite))
    run = _find(test, suite)
    cases = {case.name: _CASE.get(case.status.name, "MISS") for case in _below(run)} if run else {}
    if run and not run.subtests:
        cases = {run.name: _CASE.get(run.status.name, "MISS")}

    def result(verdict: Verdict, reason: str) -> Judgement:
        return Judgement(verdict, reason, cases, tail)

    panic = _first(_PANIC, lines)
    if panic:
        return result(Verdict.PANIC, panic)
    if boot.end in (End.TIMEOUT, End.SILENT):
        what = "time limit reached" if boot.end is End.TIMEOUT else "no output any more"
        own = boot.guest_seconds
        clock = f"{boot.seconds:.0f} s" if own is None else f"{own:.0f} s of the guest's clock"
        last = tail[-1] if tail else "nothing printed at all"
        return result(Verdict.TIMEOUT, f"{what} after {clock}; last line: {last}")
    if boot.end is End.STARVED:
        return result(Verdict.ERROR, f"the host gave it no time: it was not over in {boot.seconds:.0f} s")
    if boot.end is End.FLOOD:
        return result(Verdict.MISS, f"console flooded with over {boot.console.stat().st_size >> 20} MiB")
    if boot.end is End.CUT:
        return result(
            Verdict.MISS, f"the console is cut off; last line: {tail[-1] if tail else 'nothing printed at all'}"
        )
    if not text.strip():
        if boot.code:
            complaint = boot.qemu_stderr.splitlines()[-1] if boot.qemu_stderr else "no reason given"
            return result(Verdict.ERROR, f"QEMU ended with code {boot.code}: {complaint}")
        return result(Verdict.MISS, "the guest ended without a word on the console")
    if not run:
        said = next((line for line in lines if line.startswith("kmend-init: ")), "")
        return result(Verdict.MISS, f"no results of '{suite}' in the console log{said and f': {said}'}")
    counts = test.counts
    if counts.errors or counts.crashed:
        return result(Verdict.MISS, f"KTAP of '{suite}' is incomplete: {counts}")
    if counts.failed:
        failed = [name for name, status in cases.items() if status == "FAIL"]
        return result(Verdict.FAIL, f"not ok: {', '.join(failed) or suite}")
    splat = _first(_SPLAT, lines)
    if splat:
        return result(Verdict.FAIL, f"all cases ok, but the kernel complained: {splat}")
    if boot.code:
        return result(Verdict.ERROR, f"all cases ok, but QEMU ended with code {boot.code}: {boot.qemu_stderr}")
    if not counts.passed:
        skips = [line.strip() for line in lines if "# SKIP" in line]
        return result(Verdict.SKIP, skips[0].partition("# SKIP")[2].strip() if skips else "every case skipped")
    return result(Verdict.PASS, "")


def as_reported(console: str, functions: Sequence[str]) -> bool:
    """Tell whether a console shows trouble, and below it all the functions that a report names."""
    trouble = _TROUBLE.search(console)
    below = console[trouble.start() :] if trouble else ""
    return bool(functions and below) and all(re.search(rf"\b{re.escape(name)}", below) for name in functions)


def judge_row(boot: Ending, row: Row, test: str, parse: Parser) -> Judgement:
    """Give the verdict on a boot of a row.

    On the real path a guest may die of the bug before it can say what failed. Where it died as the reported machines
    did, the cases that were to show this, and never ended, have failed.

    Args:
        boot: the boot.
        row: its row.
        test: as the suite for `judge`.
        parse: the KTAP parser.
    """
    judged = judge(boot, test, parse)
    if row.kind != "kselftest" or judged.verdict is not Verdict.PANIC:
        return judged
    console = boot.console.read_text(encoding="utf-8", errors="replace")
    reported = {finding.id: finding.reported for finding in manifest.load().bug(row.bug).findings}
    shown = [claim for claim in row.claims if as_reported(console, reported.get(claim.finding, ()))]
    return replace(judged, cases={case: "FAIL" for claim in shown for case in claim.cases} | dict(judged.cases))
