# SPDX-License-Identifier: GPL-2.0-only
"""Each command as a process on a small tree: its exit code, both streams, and what it wrote."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import kernels
from conftest import UNLOCKED, WAIT_EVENT, MakeTree, access_c
from kmendlib.host.paths import SCRIPTS
from kmendlib.tree.manifest import PATCHES
from lab import Lab, changed

TREES = {
    "affected": access_c(),
    "fixed": access_c(WAIT_EVENT),
    "reformatted": access_c().replace("\t", "    "),
    # Another call adds to the queue: no rule knows it.
    "unknown": access_c(UNLOCKED.replace("_wait_queue(&", "_vendor_queue(&")),
    # A vendor's comment is in the hunk's way: wiggle goes around it.
    "commented": access_c(UNLOCKED.replace("\tdo {\n", "\t/* Sleep till nobody blocks the access. */\n\tdo {\n")),
    "unmendable": access_c(UNLOCKED.replace("schedule();", "vendor_sleep(dev, HZ);")),
}


@dataclass(frozen=True)
class Case:
    """A command line and what must come of it, run in a folder with a tree `tree` and an empty folder `here`.

    Attributes:
        name: what the case is about.
        words: the command line.
        code: the exit code.
        out: expressions that standard output has, in this order; where there is none, it is empty.
        err: the same for standard error.
        wrote: patterns of the paths that changed, all of them; each of at least one.
        has: expressions that files which changed have, by their patterns; each is of one file.
        has_not: what those files do not have.
        tree: which tree.
        first: a command line that is run before.
        edits: what is edited then: a path, old and new text.
        sealed: whether the digests of the evidence are made anew after that.
        calls: expressions that the calls of make, QEMU and apt have.
        not_calls: an expression that they do not have.
        base: whether the cache has the default base.
        logs: what boots print where it is not as usual; with a ! where QEMU complains.
        fails: the states whose kernel does not build.
        lacks: a program that is not installed.
        brings: one that an installation brings.
    """

    name: str
    words: str
    code: int = 0
    out: tuple[str, ...] = ()
    err: tuple[str, ...] = ()
    wrote: tuple[str, ...] = ()
    has: dict[str, str] = field(default_factory=dict)
    has_not: str = ""
    tree: str = "affected"
    first: str = ""
    edits: tuple[str, str, str] | None = None
    sealed: bool = False
    calls: tuple[str, ...] = ()
    not_calls: str = ""
    base: bool = False
    logs: dict[str, str] = field(default_factory=dict)
    races: dict[str, str] = field(default_factory=dict)
    fails: str = ""
    lacks: str = ""
    brings: str = ""


FIX = "pci-cfg-wait/v3.4-v5.8.patch"
BUGS = "--bug pci-cfg-wait"
MENDED = ("tree/drivers/pci/access.c", "tree/.kmend*")
ADDED = ("tree/drivers/pci/Kconfig", "tree/drivers/pci/pci_cfg_wait_kunit.c", "tree/include/kunit/kernel_versions.h")
ADDED += ("tree/drivers/pci/.kunitconfig", "tree/include/kunit/actors*.h")
ADDED += ("tree/tools/testing/selftests/kselftest_kit.h", "tree/tools/testing/selftests/pci*")
READ = ("out", "out/results.json", "out/audit.json", "out/SHA256SUMS", "out/patches*")
SHOWN = ("out/report.html", "out/junit.xml", "out/summary.md")
BUILT = ("out/x86_64", "out/x86_64/config", "out/x86_64/build.log")
BOOTED = ("out/x86_64/before-*-1.log", "out/x86_64/after-*-1.log")
AUDIT = f"audit tree {BUGS}"
APPLY = f"apply tree {BUGS}"
EXPORT = f"export --tree tree {BUGS} --out out"
PORT = f"port --tree tree {BUGS} --out new.patch"
VERIFY = f"verify --tree tree {BUGS} --out out"
LAVA = f"lava --tree tree {BUGS} --out out"
REPORT = "report out"
EXPORTED = ("out", "out/0001-*", "out/series", "out/patches.spec", "out/cover-letter.txt")
OPENEULER = f"{EXPORT} --format openeuler --issue https://example.org/1"


def error(code: int, name: str, words: str, says: str, **more: Any) -> Case:
    """Return a case that ends with one line."""
    return Case(name, words, code, err=(rf"\Akmend: error: [^\n]*{says}[^\n]*\n\Z",), **more)


def verify(code: int, name: str, *rows: str, words: str = VERIFY, **more: Any) -> Case:
    """Return a case of `kmend verify` that comes to its end; `rows` are lines of the table, and what stands below."""
    table = (r"^tree \(6\.12\.99\) *$", *rows, r"^evidence: out$", r"^page: out/report\.html$")
    progress = (r"nearest base: linux-6\.12\.y", "x86_64: compile", "x86_64: test")
    usual = {"out": table, "err": progress, "wrote": (*READ, *SHOWN, *BUILT, *BOOTED), "base": True}
    return Case(name, words, code, **(usual | more))


def tried(code: int, name: str, words: str, *rows: str, **more: Any) -> Case:
    """Return a case of `kmend try` that comes to its end; `rows` are lines of the table, and what stands below."""
    ends = ("^evidence: out", r"^page: out/report\.html$")
    usual: dict[str, Any] = {"out": (*rows, *ends), "err": ("unpack",), "wrote": TRIED, "base": True}
    return Case(name, f"try {words} --out out", code, **(usual | more))


def boots(**logs: str) -> dict[str, str]:
    """Return what boots print where it is not as usual, as in after_kunit="kunit_oops"."""
    return {name.replace("_", "-"): log for name, log in logs.items()}


def ran(*edits: str, **logs: str) -> dict[str, Any]:
    """Let `kmend verify` run before, and its page be made again."""
    edited = {"edits": ("out/results.json", *edits), "sealed": True} if edits else {}
    return {"first": VERIFY, "base": True, "wrote": SHOWN, "logs": boots(**logs), **edited}


TRIED = ("out", "out/report.html", "out/junit.xml", "out/summary.md", "out/*results.json", "out/*")
QUEUE = "^pci-cfg-wait/unlocked-queue +"
SKIPPED, PANIC, FAILED, BROKEN, OTHER = "kunit_all_skipped", "kunit_oops", "kunit_fail", "empty!", "list_corruption"
TIMEOUT = ('"verdict": "FAIL"', '"verdict": "TIMEOUT"')
PAGE = ("page.html", "page.junit.xml", "page.summary.md")
SUITE = "^pci-cfg-wait +x86_64 +pci_cfg_wait +"
SELFTEST = "^pci-cfg-wait +x86_64 +pci:cfg_reset *(?:.unlocked-queue.)? +"

CASES = [
    # The command line itself.
    error(2, "no command", "", "COMMAND.*kmend --help"),
    error(2, "no such command", "frobnicate", "invalid choice"),
    Case(
        "help", "--help", 0, out=("^usage: kmend", "verify", "audit", "^exit codes:", "124 +time-out", "130 +stopped"),
    ),
    Case("help of a command", "audit --help", 0, out=("--json", "^statuses:", "affected", "unknown")),
    # audit
    Case("audit: affected", AUDIT, 1, out=(r"6\.12\.99", "pci-cfg-wait.*affected", r"access\.c:\d+", FIX)),
    Case("audit: fixed", AUDIT, 0, out=("pci-cfg-wait.*fixed",), tree="fixed"),
    Case("audit: unknown", AUDIT, 4, out=("pci-cfg-wait.*unknown",), tree="unknown"),
    Case("audit: JSON", f"{AUDIT} --json", 1, out=(r"\A\{", '"pci-cfg-wait"', '"affected"', r"\}\n\Z")),
    Case("audit: JSON of a fixed one", f"{AUDIT} --json", 0, out=(r"\A\{", '"fixed"'), tree="fixed"),
    Case("audit: two trees", "audit tree tree", 1, out=("^tree +finding", "affected")),
    Case("audit: two trees, JSON", f"audit tree tree {BUGS} --json", 1, out=(r"\A\{.*\}\n\{.*\}\n\Z",)),
    error(2, "audit: no configuration", f"{AUDIT} --config tree/Makefile", "not one line sets an option"),
    Case(
        "audit: every bug", "audit tree", 1,
        out=("pci-cfg-wait.*affected", "riscv-kvm-exit", "nfsd-cb", "memcg", "kvm-shadow"),
    ),
    error(2, "audit: no tree", "audit here", "no kernel tree"),
    error(2, "audit: no such folder", "audit /no/such", "/no/such"),
    error(2, "audit: no such bug", "audit tree --bug nope", "'nope'; known: pci-cfg-wait"),
    # apply and unapply
    Case("apply", APPLY, 0, out=("applied 1 patch$", FIX), wrote=MENDED),
    Case("apply --dry-run", f"{APPLY} --dry-run", 0, out=("would apply 1 patch$", FIX)),
    Case(
        "apply --with-tests", f"{APPLY} --with-tests", 0, out=("applied 2 patches", "pci_cfg_wait_kunit.c"),
        wrote=(*MENDED, *ADDED),
    ),
    Case(
        "apply --with-tests --dry-run", f"{APPLY} --with-tests --dry-run", 0,
        out=("would apply 2 patches", "pci_cfg_wait_kunit.c"),
    ),
    Case(
        "apply --compile", f"{APPLY} --compile", 0, out=("applied 1 patch$", FIX), wrote=MENDED,
        err=(r"compiling drivers/pci/access\.o for x86_64",), calls=(r"^make .*drivers/pci/access\.o$",),
    ),
    Case(
        "apply --compile: it does not", f"{APPLY} --compile", 2, fails="after-without-suite",
        err=("compiling", f"^kmend: error: .*{FIX}: does not compile: .*: error: no such thing; the tree is as it was"),
    ),
    Case(
        "apply --compile: nothing does", f"{APPLY} --compile", 5, fails="after-without-suite before-without-suite",
        err=("compiling", "^kmend: error: .* does not build here without the fix, either"),
    ),
    error(4, "apply --compile: twice", f"{APPLY} --compile", "applied already", first=APPLY, not_calls="make"),
    error(4, "apply: fixed", APPLY, "nothing to apply", tree="fixed"),
    error(2, "apply: unknown", APPLY, "is unknown", tree="unknown"),
    error(2, "apply: no fix fits", APPLY, "affected, but no fix fits", tree="reformatted"),
    error(4, "apply: twice", APPLY, "applied already", first=APPLY),
    error(2, "apply: no tree", "apply here", "no kernel tree"),
    Case("audit: applied", AUDIT, 0, out=("fixed",), first=APPLY),
    Case("unapply", "unapply tree", 0, out=("1 patch$", FIX), first=APPLY, wrote=MENDED),
    Case(
        "unapply: with tests", "unapply tree", 0, out=("2 patches",), first=f"{APPLY} --with-tests",
        wrote=(*MENDED, *ADDED),
    ),
    error(4, "unapply: nothing", "unapply tree", "nothing of kmend's is applied"),
    # export
    Case(
        "export", f"{EXPORT} --format stable", 0, out=(r"\Aout/0001-\S+\n\Z",),
        err=(r"\Aleft blank: <<< AGENT_NAME",),
        wrote=EXPORTED, has={
            "out/0001-*": r"^From: Bjorn Helgaas .*(?:\n.*){2}\n\ncommit 2a7e32d0547f[0-9a-f]{28} upstream\.\n\n",
            "out/series": r"\A0001-PCI-\S+\.patch\n\Z", "out/patches.spec": r"\APatch1: 0001-PCI-\S+\.patch\n\Z",
            "out/cover-letter.txt": r"^9\. ",
        },
        has_not=r"Signed-off-by: A Person|Cc: stable",
    ),
    Case(
        "export --signoff", f"{EXPORT} --format stable --signoff", 0, out=("0001-",), err=("left blank: ",),
        wrote=EXPORTED,
        has={"out/0001-*": r"^Signed-off-by: Bjorn (?:.*\n)+^Signed-off-by: A Person <person@example\.org>$"},
    ),
    Case(
        "export --start-number", f"{EXPORT} --format mail --start-number 9001", 0, out=(r"\Aout/9001-\S+\n\Z",),
        err=("left blank: ",), wrote=("out", "out/9001-*", *EXPORTED[2:]),
        has={"out/patches.spec": r"\APatch9001: 9001-PCI-"},
    ),
    Case(
        "export: openEuler", f"{OPENEULER} --cve CVE-2020-1", 0, out=("0001-",), wrote=EXPORTED[:4],
        has={"out/0001-*": r"^bugzilla: https://example\.org/1\nCVE: CVE-2020-1$"},
    ),
    Case(
        "export: openEuler without an issue", f"{EXPORT} --format openeuler", 0, out=("0001-",),
        err=(r"\Aleft blank: <<< the URL of your issue >>>\n\Z",), wrote=EXPORTED[:4],
        has={"out/0001-*": r"^bugzilla: <<< the URL of your issue >>>\nCVE: NA$"},
    ),
    Case(
        "export --base", "export --base linux-4.19.y --format stable --out out", 0, out=("0001-", "0002-", "0003-"),
        err=("left blank: ", "^nothing here for memcg-uncharge, hwsim-del: what a tree needs depends on its code: "),
        wrote=("out", "out/000[123]-*", *EXPORTED[2:]),
        has={
            "out/patches.spec": r"\APatch1: 0001-PCI-\S+\nPatch2: 0002-nfsd-\S+\nPatch3: 0003-nfsd-\S+\.patch\n\Z",
            "out/series": r"\A0001-PCI-\S+\.patch\n0002-nfsd-\S+\.patch\n0003-nfsd-\S+\.patch\n\Z",
        },
    ),
    Case(
        "export --base: a base that shares a series", "export --base openeuler-1.0-lts --format mail --out out", 0,
        out=("0001-", "0002-", "0003-"), err=("left blank: ", "^nothing here for memcg-uncharge, hwsim-del: "),
        wrote=("out", "out/000[123]-*", *EXPORTED[2:]),
    ),
    Case(
        "export --evidence", f"{EXPORT}/mails --format mail --evidence out", 0, out=("0001-",), err=("left blank: ",),
        first=VERIFY, base=True, wrote=("out/mails", "out/mails/*"),
        has={"out/mails/cover-letter.txt": r"^  - tree \(6\.12\.99\): pci-cfg-wait, x86_64, pci_cfg_wait: PROVED$"},
    ),
    Case(
        "export FILE", "export mine.patch --format stable --signoff --out out", 0,
        out=(r"\Aout/0001-PCI-Sleep\S+\n\Z",), wrote=EXPORTED,
        has={"out/0001-*": r"^From: Somebody <somebody@(?:.*\n)+^Signed-off-by: A Person <person@example\.org>$"},
        has_not="Cc: stable",
    ),
    error(
        2, "export FILE: no mail", "export tree/Makefile --format mail --out out",
        "tree/Makefile: no mail with a patch",
    ),
    error(2, "export FILE: no such file", "export no --format mail --out out", "no: cannot be read: No such file"),
    error(2, "export: nothing named", "export --format mail --out out", "give --tree DIR, --base NAME, or patches"),
    error(
        2, "export: tree and patch", f"{EXPORT} mine.patch --format mail", "give --tree DIR, --base NAME, or patches",
    ),
    error(2, "export FILE --bug", f"export mine.patch {BUGS} --format mail --out out", "--bug: not for patches"),
    error(2, "export --start-number 0", f"{EXPORT} --format mail --start-number 0", "--start-number 0: .* 1 to 9999"),
    error(
        2, "export --issue: no URL", f"{EXPORT} --format openeuler --issue 12", "--issue 12: give the URL of an issue",
    ),
    error(
        2, "export: a vendor's code", "export --base olk-6.6-first --format stable --out out",
        "no tree of stable's has this code: give another --format",
    ),
    error(4, "export: nothing", f"{EXPORT} --format stable", "nothing to export", tree="fixed"),
    error(
        4, "export --base: nothing", f"export --base linux-6.12.y {BUGS} --format stable --out out",
        "nothing to export.* give --tree DIR",
    ),
    error(2, "export: unknown base", "export --base x --format stable --out out", "unknown base 'x'"),
    error(
        2, "export: not an empty folder", f"{EXPORT} --format stable", "not an empty folder",
        first=f"{EXPORT} --format stable",
    ),
    # port
    Case(
        "port", PORT, 0, out=(
            "ported$", FIX, "merged by wiggle", "new.patch$",
            r"prove    scripts/kmend verify --tree \S+ --bug pci-cfg-wait/unlocked-queue --patch new\.patch$",
        ),
        err=(r"compiling drivers/pci/access\.o",),
        wrote=("new.patch",), tree="commented", calls=(r"^make .*drivers/pci/access\.o$",),
    ),
    Case("port: a conflict", PORT, 1, out=("not done$", "problem", "README"), wrote=("new*",), tree="unmendable"),
    error(4, "port: a variant fits", PORT, "fits"),
    # verify
    verify(
        0, "verify", SUITE + "red 1/1.*green 1/1.* PROVED *$", SELFTEST + r"broken 1/1 .*held 1/1 .* PROVED *$",
        "as reported 1/1 *$",
        calls=(
            "kunit.filter_glob=pci_cfg_wait.* kunit_shutdown=poweroff", "kmend.selftests=pci:cfg_reset .*-device nvme",
        ),
        has={"out/patches/after/series": FIX, "out/junit.xml": "<testsuite", "out/summary.md": "PROVED"},
    ),
    verify(
        0, "verify: fixed", SUITE + "red.* PROVED *$", tree="fixed", has={"out/patches/before/series": "reintroduce"},
    ),
    verify(
        0, "verify --repeat", SUITE + "red 3/3.*green 3/3.* PROVED *$", words=f"{VERIFY} --repeat 3",
        wrote=(*READ, *SHOWN, *BUILT, *BOOTED, "out/x86_64/*-2.log", "out/x86_64/*-3.log"),
    ),
    verify(
        0, "verify --repeat --seed", "loongarch64.*PROVED",
        words=f"{VERIFY} --arch loongarch64,x86_64 --repeat 2 --seed 41",
        calls=("loongarch64 .*-icount .* -seed 41 .*pci_cfg_wait", "loongarch64 .*-icount .* -seed 42 .*pci_cfg_wait"),
        wrote=(*READ, *SHOWN, *BUILT, *BOOTED, "out/x86_64/*-2.log", "out/loongarch64*"),
    ),
    verify(
        1, "verify: red twice of three", SUITE + "red 2/3.*green 3/3.*NOT PROVED *$", "before not red in 1 of 3",
        words=f"{VERIFY} --repeat 3", logs=boots(
            before_kunit_1="kunit_pass"), wrote=(*READ, *SHOWN, *BUILT, "out/x86_64/*.log",
        ),
    ),
    verify(
        1, "verify: green twice of three", SUITE + "red 3/3.*green 2/3.*NOT PROVED *$", "after not green in 1 of 3",
        words=f"{VERIFY} --repeat 3", logs=boots(
            after_kunit_2=FAILED), wrote=(*READ, *SHOWN, *BUILT, "out/x86_64/*.log",
        ),
    ),
    verify(0, "verify --jobs", "PROVED", words=f"{VERIFY} --jobs 3", calls=("^make MAKEFLAGS=' -j3 .* bzImage",)),
    verify(
        0, "verify: two architectures", "loongarch64.*PROVED", "x86_64.*PROVED",
        words=f"{VERIFY} --arch loongarch64,x86_64",
        calls=("qemu-system-x86_64 ", "qemu-system-loongarch64 ", r"make .*\bARCH=loongarch .* vmlinux"),
        wrote=(*READ, *SHOWN, *BUILT, *BOOTED, "out/loongarch64*"),
    ),
    verify(
        1, "verify: not green", SUITE + r"red 1/1.*green 0/1.*\(FAIL\).*NOT PROVED *$", "not ok: ",
        logs=boots(after_kunit=FAILED),
    ),
    # The audit says affected, and the boots do not; then it says fixed, and they do not.
    verify(
        1, "verify: not red", SUITE + "red 0/1.*DISPUTED *$", "is affected, but the tree as it is came out green",
        logs=boots(before_kunit="kunit_pass"), has={"out/report.html": "DISPUTED", "out/summary.md": "failure"},
    ),
    verify(
        1, "verify: not red where it is put back", SUITE + "red 0/1.*NOT PROVED *$", tree="fixed",
        logs=boots(before_kunit="kunit_pass"),
    ),
    verify(
        1, "verify: fixed, and red", SUITE + "red 1/1.*DISPUTED *$", "is fixed, but the tree as it is came out red",
        tree="fixed", logs=boots(after_kunit="kunit_fail"),
    ),
    verify(
        3, "verify: a panic", SUITE + r".*\(PANIC\).*NOT PROVED *$", r"^ *\| ", logs=boots(after_kunit=PANIC),
        # KCIDB has no word for it.
        has={"out/results.json": r'(?s)"path": "kunit.pci_cfg_wait",\s+"status": "FAIL",[^}]*"verdict": "PANIC"'},
    ),
    verify(0, "verify: another crash", SELFTEST + ".*PROVED *$", "reported 0/1", logs=boots(before_kselftest=OTHER)),
    # A race: silence is not held, and what does not come to it proves nothing.
    verify(
        1, "verify: nobody came to the race", SELFTEST + r"broken 1/1.*held 0/1.*\(MISS\).*NOT PROVED *$",
        "MISS: the race was not forced: ", races={"after": "nobody"}, calls=(r"(?:.*(?:\n.*)*cfg_reset.*-gdb){4}",),
    ),
    verify(
        5, "verify: no stub", SELFTEST + r"broken 1/1.*held 0/1.*\(ERROR\).*NOT PROVED *$", "ERROR: no GDB stub: No",
        races={"after": "no stub"},
    ),
    verify(
        1, "verify: no symbols", SELFTEST + r"broken 1/1.*held 0/1.*\(MISS\).*NOT PROVED *$",
        "MISS: the race was not forced: the guest printed no symbols", races={"after": "nothing"},
    ),
    verify(1, "verify: held before", SELFTEST + r".*DISPUTED *$", races={"before": "held"}),
    verify(
        1, "verify: broken after", SELFTEST + r"broken 1/1.*held 0/1.*\(FAIL\).*NOT PROVED *$",
        "the race was lost, and no test noticed", races={"after": "broken"},
    ),
    verify(
        5, "verify: QEMU fails", SUITE + r".*\(ERROR\).*NOT PROVED *$",
        r"ERROR: QEMU ended with code 1: qemu: no firmware \(", logs=boots(after_kunit=BROKEN),
    ),
    verify(4, "verify: skipped", SUITE + ".* SKIP *$", logs=boots(after_kunit=SKIPPED)),
    verify(1, "verify: no results", SUITE + r".*\(MISS\).*NOT PROVED *$", logs=boots(after_kunit="kunit_cut_off")),
    verify(
        1, "verify: skipped once of two", SUITE + r"red 2/2.*green 1/2.*\(SKIP\).*NOT PROVED *$",
        words=f"{VERIFY} --repeat 2",
        logs=boots(after_kunit_1=SKIPPED), wrote=(*READ, *SHOWN, *BUILT, "out/x86_64/*.log"),
    ),
    # Of several the gravest counts, whichever comes first.
    verify(3, "verify: a panic, then a skip", logs=boots(after_kunit=PANIC, after_kselftest="kselftest_skip")),
    verify(3, "verify: a panic, then a failure", logs=boots(after_kunit=PANIC, after_kselftest="kselftest_hang")),
    verify(
        5, "verify: a kernel does not build", SUITE + ".*ERROR *$",
        "no kernel: drivers/pci/access.c:7:1: error: no such thing",
        fails="after", wrote=(*READ, *SHOWN, *BUILT, BOOTED[0]),
    ),
    verify(
        4, "verify: not this architecture's", "riscv-kvm-exit +x86_64.*not run *$", "not run: ", err=("nearest base",),
        words="verify --tree tree --bug riscv-kvm-exit --out out", wrote=(*READ, *SHOWN), not_calls=r"qemu|\bARCH=",
    ),
    verify(
        0, "verify: the default base", SUITE + ".*PROVED", words=f"verify {BUGS} --out out",
        out=(r"^linux-6\.12\.y \(6\.12\.99\) *$", "PROVED"), err=("compile", "test"),
    ),
    verify(
        0, "verify --patch", SUITE + "red 1/1.*green 1/1.* PROVED *$", words=f"{VERIFY} --patch mine.patch",
        has={"out/patches/after/series": r"/mine\.patch$", "out/results.json": "--bug pci-cfg-wait --patch /"},
        has_not=r"v3\.4-v5\.8",
    ),
    verify(
        3, "verify --patch: the audit and the boots see no fix", SUITE + r"red 1/1.*green 0/1.*NOT PROVED *$",
        words=f"{VERIFY} --patch other.patch",
        err=("the audit does not see that pci-cfg-wait/unlocked-queue is mended by .*other.patch: the boots tell",),
    ),
    Case(
        "verify --patch: it does not fit", f"{VERIFY} --patch mine.patch --patch mine.patch", 2, base=True,
        err=("^kmend: error: mine.patch does not apply to .* without fuzz",),
    ),
    Case(
        "verify --patch: nothing to mend", f"{VERIFY} --patch mine.patch", 4, tree="fixed", base=True,
        err=("^kmend: error: .*: nothing for a patch to mend: affected by none of pci-cfg-wait/unlocked-queue$",),
    ),
    error(2, "verify --patch: no patch", f"{VERIFY} --patch tree/Makefile", "tree/Makefile: no patch in it", base=True),
    error(2, "verify --patch: no such file", f"{VERIFY} --patch no", "no: cannot be read", base=True),
    error(2, "lava --patch", f"{LAVA} --patch mine.patch", "unrecognized arguments"),
    error(2, "verify: --arch twice", "verify --arch arm64 --arch riscv64", "argument --arch: given more than once"),
    error(2, "verify --repeat 0", f"{VERIFY} --repeat 0", "--repeat 0: .*1 or more"),
    error(2, "verify --repeat many", f"{VERIFY} --repeat many", "--repeat: invalid int"),
    error(2, "verify --seed 0", f"{VERIFY} --seed 0", "--seed 0: give a number"),
    error(2, "verify --jobs 0", f"{VERIFY} --jobs 0", "--jobs 0: .*1 to 4096"),
    error(2, "verify --jobs 4097", f"{VERIFY} --jobs 4097", "--jobs 4097: .*1 to 4096"),
    error(2, "verify --bug nope", "verify --bug nope", "pci-cfg-wait"),
    error(2, "verify --arch sparc", "verify --arch sparc", "unknown architecture 'sparc': choose from x86_64, arm64"),
    error(2, "verify --arch ,", "verify --arch ,", "names no architecture"),
    error(2, "verify --tree --base", "verify --tree a --base b", "not allowed with"),
    error(2, "verify: unknown base", "verify --base linux-0.01", "unknown base 'linux-0.01'"),
    error(2, "verify: no tree", "verify --tree here", "no kernel tree"),
    error(2, "verify: no such folder", "verify --tree /no/such", "/no/such"),
    error(2, "verify: applied", VERIFY, "unapply", first=f"{APPLY} --with-tests", base=True),
    Case(
        "verify: evidence is never written over", f"verify --tree tree {BUGS} --out tree", 2, base=True,
        err=("nearest base", r"^kmend: error: .*not empty.*\n\Z"),
    ),
    # report
    Case(
        "report", REPORT, 0, out=(SUITE + ".*PROVED", SELFTEST + ".*PROVED", "^page: out/report.html$"), **ran(),
        has={"out/report.html": r"CPU 1, held: <code>waits in[\s\S]*CPU 1, mark: <code>default_wake_fu"},
    ),
    Case("report: a panic", REPORT, 3, out=("NOT PROVED",), **ran(after_kunit=PANIC)),
    Case(
        "report: a time-out beside a skip", REPORT, 124, out=(r"\(TIMEOUT\)",),
        **ran(*TIMEOUT, after_kunit=FAILED, after_kselftest="kselftest_skip"),
    ),
    Case(
        "report: a panic, then a time-out", REPORT, 3, out=(r"\(TIMEOUT\)",),
        **ran(*TIMEOUT, after_kunit=PANIC, after_kselftest="kselftest_hang"),
    ),
    Case(
        "report: edited", REPORT, 2, out=("NOT TRUSTED", "^not trusted: changed since: results.json"),
        **ran(*TIMEOUT) | {"sealed": False},
    ),
    Case("report --out", f"{REPORT} --out page.html", 0, out=("PROVED", "^page: page.html"), **ran() | {"wrote": PAGE}),
    Case(
        "report: two folders", f"{REPORT} out --out page.html", 0, out=("PROVED", "PROVED"), **ran() | {"wrote": PAGE},
    ),
    error(2, "report: two folders, no file", f"{REPORT} out", "--out FILE"),
    error(2, "report: no evidence", "report here", "no evidence folder"),
    error(2, "report: no such folder", "report /no/such", "no evidence folder"),
    # lava
    Case(
        "lava", f"{LAVA} --url http://farm/x --device-type vm --stretch 2", 0, base=True,
        not_calls="qemu-system-x86_64 -n",
        out=("2 jobs, 4 boots: out/lava", "report out --lava"), err=("compile",),
        wrote=(*READ, *BUILT, "out/lava*"),
        has={
            "out/lava/jobs/pci-cfg-wait-x86_64-after.yaml": r"(?s)device_type: .vm.*url: .http://farm/x/.*seconds: 240",
            "out/results.json": '"suite": "pci:cfg_reset"',
        },
    ),
    Case(
        "lava: nothing", "lava --tree tree --bug riscv-kvm-exit --out out", 4, base=True,
        out=("^riscv-kvm-exit on x86_64: ", "^0 jobs"), err=("nearest",), wrote=(*READ, "out/lava*"),
    ),
    Case(
        "lava: a kernel does not build", LAVA, 5, base=True, fails="after", out=("no kernel: ", "^1 jobs"),
        err=("compile",), wrote=(*READ, *BUILT, "out/lava*"),
    ),
    error(2, "lava --jobs 0", f"{LAVA} --jobs 0", "--jobs 0"),
    # setup
    Case("setup", "setup", 0, err=(r"\Aall \d+ needs are met\n\Z",)),
    # try
    tried(
        0, "try", "pkgs/good.deb", r"^linux-image-lab 6\.12\.99-1 \(x86_64\) *$", QUEUE + "free of it .*race held 1/1",
        "^riscv-kvm-exit/exit-order +not in it +only kernels for riscv64", "^nfsd.* not in it +CONFIG_NFSD is not set",
        "^kvm-shadow/early-free +not in it +no symbol",
        err=("unpack", "guest's own parts are built", "test pci:cfg_reset", "unlocked-queue: free of it: race held"),
        has={"out/results.json": '"debugging": "DEBUG_LIST"', "out/report.html": "race held 1/1"},
        calls=("^make .*nfsd:cb_shutdown", r"^qemu-system-x86_64 .*printk\.time=0"),
    ),
    tried(
        1, "try: has it", "pkgs/bad.deb", QUEUE + "has it .*race broken 1/1",
        has={"out/results.json": '"end": "broken"'},
    ),
    tried(
        1, "try: two kernels", "pkgs/good.deb pkgs/bad.deb --jobs 1",
        "^2 kernels", "^kernel +unlocked-queue *$", r"^6\.12\.99\S* +free of it *$", r"^6\.1\.99\S* +has it *$",
        r"^linux-image-lab 6\.1\.99-1 \(x86_64\)$",
        has={"out/report.html": r"1: linux-image-lab 6\.12\.99-1[^§]*2: linux-image-lab 6\.1\.99-1"},
    ),
    tried(
        4, "try: the race is never met", "pkgs/good.deb",
        QUEUE + "cannot tell +[0-9]+ .*MISS", "^pci:cfg_reset .*MISS: ",
        races={"after": "nothing"},
    ),
    tried(
        4, "try: a kernel that panics", "pkgs/good.deb", QUEUE + "cannot tell .*PANIC", "^pci:cfg_reset .*PANIC: ",
        races={"after": "nothing"}, logs=boots(after_kselftest="kselftest_no_init"),
    ),
    tried(
        4, "try: prints nothing", "pkgs/good.deb", QUEUE + "cannot tell .*MISS", "without a word on the console",
        races={"after": "nothing"}, logs=boots(after_kselftest="empty"),
    ),
    tried(
        4, "try: QEMU fails", "pkgs/good.deb",
        QUEUE + "cannot tell .*ERROR", "ERROR: QEMU ended with code 1: qemu: no firmware",
        races={"after": "nothing"}, logs=boots(after_kselftest="empty!"),
    ),
    tried(
        4, "try: a test that skips", "pkgs/nfsd.deb", "^nfsd-cb-shutdown/no-wait +cannot tell .*MISS",
        "^nfsd-cb-shutdown/inflight-leak +cannot tell",
        "^nfsd-cb-shutdown/courtesy-hang +cannot tell +only a KUnit suite",
    ),
    tried(
        0, "try: --bug", "pkgs/nfsd.deb --bug pci-cfg-wait", QUEUE + "free of it",
        has={"out/results.json": "pci"}, has_not="inflight-leak",
    ),
    tried(0, "try: --repeat", "pkgs/good.deb --repeat 2", QUEUE + "free of it .*held 2/2"),
    tried(0, "try: an RPM", "pkgs/good.rpm", r"^kernel-6\.12\.99-1 \(x86_64\)", QUEUE + "free of it"),
    tried(
        0, "try: image and modules", "pkgs/image.deb pkgs/modules.deb", r"^image 6\.12\.99-1",
        "^kvm-shadow.*no symbol",
    ),
    tried(
        0, "try: a package that only names others", "pkgs/doc.deb pkgs/good.deb", QUEUE + "free of it",
        err=("^pkgs/doc.deb: no kernel in this package: left out$", "unpack"),
    ),
    tried(0, "try: a folder", "pkgs/root", "^pkgs/root 6", "^kvm-shadow.*no symbol"),
    tried(
        4, "try: a bare image", "pkgs/bzImage --modules pkgs/root/lib/modules",
        r"^pkgs/bzImage \(x86_64\)", QUEUE + "free",
        "^nfsd-cb-shutdown/inflight-leak +cannot tell", has={"out/results.json": "unknown: no configuration"},
    ),
    tried(
        2, "try: one of two is damaged", "pkgs/bad.deb pkgs/other.deb", QUEUE + "has it",
        err=("unpack", "kmend: error: module nfsd is of 6.12.1, the kernel is 6.12.99-lab"),
    ),
    Case(
        "try: shown again", "report out", 0, first="try pkgs/good.deb --out out", base=True, wrote=SHOWN,
        out=("^linux-image-lab", QUEUE + "free of it", "^evidence: out$", "^page: "),
    ),
    error(2, "try: nothing", "try", "no kernel given: name packages"),
    error(2, "try: no such file", "try none.deb", "none.deb: cannot be read: No such file"),
    error(2, "try: no kernel in it", "try pkgs/doc.deb", "pkgs/doc.deb: no kernel in this package"),
    error(2, "try: cut off", "try pkgs/cut.deb", "pkgs/cut.deb: a package that is cut off or damaged"),
    Case(
        "try: an RPM that is cut off", "try pkgs/cut.rpm", 2, base=True,
        err=(r"\A6\.12\.99-lab: unpack\n(kmend: error: [^\n]*damaged: it ends too soon)\n\Z",),
    ),
    error(2, "try: a tree", "try tree", "tree: no boot/vmlinuz-VERSION in this folder"),
    error(2, "try: --modules without an image", "try pkgs/good.deb --modules pkgs", "--modules goes with one image"),
    error(2, "try: --modules without modules", "try pkgs/bzImage --modules here", "here: no modules below it"),
    error(2, "try: --repeat 0", "try pkgs/good.deb --repeat 0", "--repeat 0"),
    error(2, "try: a pipe", "try /dev/null", "/dev/null: cannot be read: not a regular file"),
    *(
        Case(
            f"try: {name}", f"try pkgs/{name} --out out", 2, base=True, wrote=("out",),
            err=("unpack", f"kmend: error: .*{says}"),
        )
        for name, says in {
            "foreign": "pkgs/foreign: no kernel for x86_64, ",
            "empty": "pkgs/empty: no kernel: only 0 bytes",
            "bomb.deb": "pkgs/bomb.deb: unpacks to more than 64 MiB",
            "modules.deb": "pkgs/modules.deb: no image of 6.12.99-lab in it: give",
            "other.deb": "module nfsd is of 6.12.1, the kernel is 6.12.99-lab",
        }.items()
    ),
    Case(
        "setup: installs what is missing", "setup", 0, lacks="bison", brings="bison", err=(
            "^installing: bison$", "needs are met",
        ),
        calls=("^apt-get .*update$", "^apt-get .*--no-install-recommends install bison$"),
    ),
    Case(
        "setup: still missing", "setup", 5, lacks="bison", brings="flex",
        err=("installing", "kmend: error: still missing after the installation: bison .log: "),
    ),
    Case(
        "setup: no network", "setup", 5, lacks="bison",
        err=("installing", "kmend: error: 'apt-get .* install bison' failed: E: there is no network here"),
    ),
]


# It mends nothing.
OTHER = """--- a/drivers/pci/new.c
+++ b/drivers/pci/new.c
@@ -0,0 +1 @@
+/* Nothing. */
"""


def mine() -> str:
    """Return a fix as a user of kmend might have made it, as a mail."""
    head, _, rest = (PATCHES / FIX).read_text(encoding="utf-8").split("\n\n", 2)
    head = head.replace("kmend <kmend@localhost>", "Somebody <somebody@example.org>")
    head = re.sub("Subject: .*", "Subject: [PATCH v2] PCI: Sleep on the queue", head)
    return f"{head}\n\n{rest}"


def lab_of(case: Case, root: Path, make_tree: MakeTree) -> Lab:
    """Make the place that a case asks for."""
    tree = make_tree(TREES[case.tree], version="6.12.99", kunit=True)
    (root / "mine.patch").write_text(mine(), encoding="utf-8")
    (root / "other.patch").write_text(OTHER, encoding="utf-8")
    lab = Lab(root)
    if f"{case.first} {case.words}".strip().startswith("try"):
        kernels.write_all(root / "pkgs")
    if case.base:
        lab.base(tree)
    for name, log in case.logs.items():
        lab.console(name, log.rstrip("!"), "qemu: no firmware\n" if log.endswith("!") else "")
    for state, plays in case.races.items():
        lab.race(state, plays)
    for state in case.fails.split():
        (root / f"make.fails.{state}").write_text(
            "drivers/pci/access.c:7:1: error: no such thing\n", encoding="utf-8"
        )
    if case.lacks:
        lab.only_own_tools(without=case.lacks)
    if case.brings:
        lab.apt_brings(case.brings)
    return lab


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_command(case: Case, tmp_path: Path, make_tree: MakeTree) -> None:
    lab = lab_of(case, tmp_path, make_tree)
    if case.first:
        lab.run(shlex.split(case.first))
    if case.edits:
        path, old, new = case.edits
        text = (tmp_path / path).read_text(encoding="utf-8")
        assert old in text
        (tmp_path / path).write_text(text.replace(old, new), encoding="utf-8")
    if case.sealed:
        lab.seal("out")
    for path in case.wrote if case.first else ():
        (tmp_path / path).unlink(missing_ok=True) if path in SHOWN else None
    before = lab.files()
    done = lab.run(shlex.split(case.words))
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == case.code, said
    for stream, wanted in ((done.stdout, case.out), (done.stderr, case.err)):
        assert bool(stream) == bool(wanted), said
        place = 0
        for expression in wanted:
            match = re.compile(expression, re.MULTILINE).search(stream, place)
            assert match, f"{expression} is not in, or not in its place:\n{stream}"
            place = match.end()
    found = changed(before, lab.files())
    strange = [path for path in found if not any(fnmatch.fnmatch(path, pattern) for pattern in case.wrote)]
    assert not strange, strange
    assert not [pattern for pattern in case.wrote if not fnmatch.filter(found, pattern)], found
    for pattern, expression in case.has.items():
        (path,) = [path for path in found if fnmatch.fnmatch(path, pattern)]
        text = (tmp_path / path).read_text(encoding="utf-8")
        assert re.search(expression, text, re.MULTILINE), text
        assert not case.has_not or not re.search(case.has_not, text), text
    calls = (tmp_path / "calls").read_text(encoding="utf-8")
    for expression in case.calls:
        assert re.search(expression, calls, re.MULTILINE), f"{expression} is not in:\n{calls}"
    assert not case.not_calls or not re.search(case.not_calls, calls, re.MULTILINE), calls


def wait_for(process: subprocess.Popen[str], path: Path) -> None:
    """Wait until somebody has written a file."""
    deadline = time.monotonic() + 60
    while not path.exists() or not path.stat().st_size:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "race"),
    [(signal.SIGINT, ""), (signal.SIGTERM, ""), (signal.SIGINT, "hangs")],
    ids=["INT", "TERM", "parked"],
)
def test_stopped(number: signal.Signals, race: str, tmp_path: Path, make_tree: MakeTree) -> None:
    """While a kernel is compiled, or a vCPU is parked: one line, its own exit code, no pass, and nothing goes on."""
    lab = lab_of(Case("", "", base=True, races={"before": race} if race else {}), tmp_path, make_tree)
    if not race:
        (tmp_path / "make.hangs").touch()
    mark = tmp_path / ("parked" if race else "make.began")
    with lab.start(shlex.split(VERIFY)) as process:
        wait_for(process, mark)
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.endswith("\nkmend: stopped\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text(encoding="ascii")), 0)
    assert lab.run(["report", "out"]).returncode == 2


def test_two_trees_at_once(tmp_path: Path, make_tree: MakeTree) -> None:
    """Two runs read the default base, and one of another tree goes on beside one of the base itself."""
    lab = lab_of(Case("", "", base=True), tmp_path, make_tree)
    shutil.copytree(tmp_path / "tree", tmp_path / "other")
    for first in ("--tree tree", ""):
        (tmp_path / "make.hangs").touch()
        with lab.start(shlex.split(f"verify {first} --bug pci-cfg-wait --out out{len(first)}")) as process:
            wait_for(process, tmp_path / "make.began")
            (tmp_path / "make.began").unlink()
            (tmp_path / "make.hangs").unlink()
            done = lab.run(shlex.split(f"verify --tree other --bug pci-cfg-wait --out other{len(first)}"))
            process.terminate()
            process.communicate(timeout=30)
        assert done.returncode == 0, done.stderr


def test_output_that_nobody_reads(tmp_path: Path, make_tree: MakeTree) -> None:
    lab = lab_of(Case("", ""), tmp_path, make_tree)
    with lab.start(["audit", "tree", "--json"]) as process:
        assert process.stdout
        process.stdout.close()
        assert process.wait(60) == 141


def test_from_anywhere(tmp_path: Path, make_tree: MakeTree) -> None:
    """Through a link, from another folder, and nothing is left beside the program."""
    lab = lab_of(Case("", ""), tmp_path, make_tree)
    copy = tmp_path / "repository"
    shutil.copytree(SCRIPTS, copy / "scripts", ignore=shutil.ignore_patterns("tests", "__pycache__"))
    for name in ("patches", "kunit", "selftests", "Documentation"):
        (copy / name).symlink_to(SCRIPTS.parent / name)
    (tmp_path / "kmend").symlink_to(copy / "scripts/kmend")
    before = lab.files()
    lab.environment.pop("PYTHONDONTWRITEBYTECODE", "")
    done = lab.run(["audit", "../tree"], program=tmp_path / "kmend", folder=tmp_path / "here")
    assert done.returncode == 1, done.stderr
    assert changed(before, lab.files()) == []
