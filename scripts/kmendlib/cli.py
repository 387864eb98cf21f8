# SPDX-License-Identifier: GPL-2.0-only
"""The command line of ``scripts/kmend``."""

import argparse
import contextlib
import errno
import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kmendlib.host import files, proc, setup, streams
from kmendlib.host.errors import BadInput, ExitCode, KmendError
from kmendlib.host.words import Has, Outcome, Verdict, Word, visible
from kmendlib.tree import arches, manifest, series
from kmendlib.tree.audit import Status

if TYPE_CHECKING:
    from kmendlib.proof.evidence import Evidence
    from kmendlib.proof.plan import Request


def _list(title: str, words: Iterable[Word | ExitCode]) -> str:
    """List words and their meanings for a help text."""
    named = [(str(word.value), word.meaning) for word in words]
    width = max(len(name) for name, _ in named)
    return "\n".join([f"{title}:", *(f"  {name:{width}}  {meaning}" for name, meaning in named)])


# QEMU knows more seeds than anybody tries.
SEEDS = 1 << 30
# What shows evidence, among the things that setup installs.
_SHOWS = ("python:rich", "python:jinja2", "python:jsonschema", "python:junitparser")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see '{self.prog} --help')")


def _say(line: str) -> None:
    print(visible(line), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _done() -> Iterator[None]:
    """Tell of what was done: it is done, and its exit code true, though nothing can be printed."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename != streams.OUTPUT:
            raise
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        _say(f"kmend: done, but {error.filename} cannot be written: {error.strerror}")


class _Formatter(argparse.HelpFormatter):
    """Wraps paragraphs and leaves lists, whose lines are indented, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = (
            line if line.startswith(" ") else super(_Formatter, self)._fill_text(line, width, indent)
            for line in text.split("\n")
        )
        return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; Documentation is made from it, too."""
    top = _Parser(
        prog="kmend",
        description="Audits a kernel tree for documented lifetime and locking bugs, mends it, and proves both.",
        epilog=_list("exit codes", ExitCode),
        formatter_class=_Formatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def add(name: str, text: str, more: str = "", epilog: str = "") -> argparse.ArgumentParser:
        description = f"{text[0].upper()}{text[1:]}. {more}".strip()
        return commands.add_parser(
            name, help=text, description=description, epilog=epilog or None, formatter_class=_Formatter
        )

    def add_bugs(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--bug",
            action="append",
            metavar="ID",
            help="look at this bug, or finding (BUG/NAME), alone; may be given again",
        )

    def add_proof(command: argparse.ArgumentParser, jobs: str) -> None:
        what = command.add_mutually_exclusive_group()
        what.add_argument("--tree", type=Path, metavar="DIR", help="a kernel tree; it is only read")
        what.add_argument(
            "--base", metavar="NAME", help="a named line of trees, fetched by itself (default: linux-6.12.y)"
        )
        add_bugs(command)
        command.add_argument(
            "--arch",
            default=arches.DEFAULT,
            metavar="A,…|all",
            help=f"architectures, of {', '.join(arches.names())} (default: {arches.DEFAULT})",
        )
        command.add_argument(
            "--repeat", type=int, default=1, metavar="N", help="boot each suite with N seeds and report k of N"
        )
        command.add_argument(
            "--jobs", type=int, metavar="N", help=f"{jobs} at once, in all (default: one for each CPU)"
        )

    verify = add(
        "verify",
        "build and boot a tree with and without each bug, and show the tests red and green",
        "The tree is only read: kmend works on a private copy. Consoles, configurations, build logs, patches and"
        " results go into a folder of evidence, which the end of the output names, with report.html, junit.xml and"
        " summary.md for readers and other programs.",
        _list("results", Outcome) + "\n\n" + _list("verdicts of a boot", Verdict),
    )
    add_proof(verify, "jobs of make and guests")
    verify.add_argument(
        "--patch",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="prove this patch of your own in the place of kmend's fix; may be given again, in order",
    )
    verify.add_argument(
        "--seed", type=int, default=1, metavar="S", help="the first seed: with the same one a boot is the same again"
    )
    verify.add_argument("--out", type=Path, metavar="DIR", help="folder for the evidence (default: one in the cache)")

    command = add(
        "try",
        "boot a kernel that somebody else built, and tell which bugs it has",
        "Nothing of it is run but in a guest, it is only read, and nothing is built but, once, the guest's own parts."
        " Packages of one kernel belong together, as those with its image and its modules. Evidence and page are as"
        " verify's.",
        _list("what it has", Has),
    )
    command.add_argument(
        "kernel",
        type=Path,
        nargs="*",
        metavar="KERNEL",
        help="packages (.deb, .rpm), a folder with boot/ and lib/modules, or an image",
    )
    command.add_argument("--modules", type=Path, metavar="DIR", help="where the modules of the image are")
    command.add_argument("--installed", action="store_true", help="this machine's own kernel")
    add_bugs(command)
    command.add_argument("--repeat", type=int, default=1, metavar="N", help="boot each test N times and report k of N")
    command.add_argument("--jobs", type=int, metavar="N", help="guests at once, in all (default: one for each CPU)")
    command.add_argument("--out", type=Path, metavar="DIR", help="folder for the evidence (default: one in the cache)")

    command = add(
        "audit",
        "tell which bugs a tree has, from its source",
        "Nothing is built, nothing of the tree is run, and it is only read.",
        _list("statuses", Status),
    )
    command.add_argument("tree", type=Path, nargs="+", metavar="TREE", help="a kernel tree, or a part of one")
    add_bugs(command)
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="what is built: a .config, /boot/config-VERSION or /proc/config.gz; code that it leaves out is not built",
    )
    command.add_argument("--json", action="store_true", help="print JSON, one object a line for each tree")

    command = add(
        "apply",
        "push the fixes that the audit chooses onto a tree, all or nothing",
        "A tree is refused, and stays as it is, where a file that would be patched has local changes, where a finding"
        " is unknown, and where one is affected and no fix fits. TREE/.kmend keeps what unapply needs.",
    )
    command.add_argument("tree", type=Path, metavar="TREE", help="a kernel tree")
    add_bugs(command)
    command.add_argument("--latent", action="store_true", help="push the fixes of what is only latent as well")
    command.add_argument("--dry-run", action="store_true", help="say what would be done")
    command.add_argument("--with-tests", action="store_true", help="put the KUnit suites and kselftests in as well")

    command = add("unapply", "take back what apply did, whole or half", "The very bytes come back.")
    command.add_argument("tree", type=Path, metavar="TREE", help="the kernel tree")

    command = add(
        "export",
        "write fixes as mails, ready to send or to git am",
        "A backport has the author and the sign-offs of its upstream commit. kmend signs nothing off: --signoff does"
        " it in your name. What kmend cannot know is left as <<< a blank >>>, and told. Beside the mails lie"
        " series, for quilt, patches.spec, with the lines of a spec file, and a cover letter.",
    )
    command.add_argument(
        "patch", type=Path, nargs="*", metavar="FILE", help="a patch of your own, or of kmend's, in mail format"
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument("--tree", type=Path, metavar="DIR", help="what this kernel tree needs; it is only read")
    what.add_argument("--base", metavar="NAME", help="what trees of this base, or series, need")
    add_bugs(command)
    command.add_argument(
        "--format",
        choices=("stable", "openeuler", "mail"),
        required=True,
        help="for the stable list, with openEuler's header, or for whoever else maintains the code",
    )
    command.add_argument("--out", type=Path, metavar="DIR", required=True, help="an empty folder, or a new one")
    command.add_argument(
        "--signoff",
        action="store_true",
        help="sign them off as the user that git knows, who is the author of what no upstream commit is behind",
    )
    command.add_argument("--issue", default="", metavar="URL", help="the issue that openEuler's header names")
    command.add_argument(
        "--cve",
        default="",
        metavar="ID",
        help="the CVE that openEuler's header names (default: that of the upstream commit, or NA)",
    )
    command.add_argument(
        "--start-number", type=int, default=1, metavar="N", help="the number of the first file (default: 1)"
    )
    command.add_argument(
        "--evidence", type=Path, metavar="DIR", help="a folder of kmend verify: the cover letter says what was run"
    )

    command = add(
        "port",
        "carry a fix to a tree that no variant of it fits: as a new variant, or with conflicts",
        "The tree is only read. A merge counts if the touched files compile and the audit says fixed; what was not"
        " exact is told: read those hunks.",
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--tree", type=Path, metavar="DIR", help="a kernel tree; it is only read")
    what.add_argument(
        "--continue", dest="resume", type=Path, metavar="DIR", help="go on in a folder whose conflicts are resolved"
    )
    add_bugs(command)
    command.add_argument(
        "--from",
        dest="variant",
        default="",
        metavar="BUG/NAME.patch",
        help="the variant to start from (default: the nearest one that leads to the end)",
    )
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="the new variant's path (default: BUG-FINDING-VERSION.patch)"
    )

    command = add(
        "report",
        "show the results in evidence folders again, and make a page of them",
        "Several folders are compared side by side. Evidence that was cut off, edited, or left by an older kmend is"
        " no pass. junit.xml and summary.md go beside the page.",
    )
    command.add_argument(
        "evidence", type=Path, nargs="+", metavar="EVIDENCE_DIR", help="a folder that kmend verify has left"
    )
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: report.html in the folder, if it is one folder)"
    )
    command.add_argument(
        "--lava",
        type=Path,
        nargs="+",
        metavar="LOG",
        help="first take in the logs of LAVA jobs, or folders with them; the folder is one of kmend lava",
    )

    command = add(
        "lava",
        "build what verify would boot, and write it down as jobs for a LAVA farm",
        "Nothing is booted. The folder is evidence without boots; its folder lava has a job definition for each bug,"
        " architecture and state, kernels and initramfs, and the farm's devices. What the jobs logged goes back into"
        " it with kmend report --lava.",
    )
    add_proof(command, "jobs of make")
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder for the jobs, and for the evidence that they give",
    )
    command.add_argument(
        "--url", default="", metavar="URL", help="where the farm finds DIR/lava (default: as a file, at its path here)"
    )
    command.add_argument(
        "--device-type", default="qemu", metavar="NAME", help="the farm's name for QEMU devices (default: qemu)"
    )
    command.add_argument(
        "--stretch", type=float, default=1.0, metavar="N", help="stretch time limits, for busy workers (default: 1)"
    )

    add("setup", "install what is missing on this machine")
    add("check", "run the project's own tests, the proofs on all architectures among them")
    return top


def _bugs(ids: list[str] | None) -> tuple[manifest.Bug, ...]:
    return manifest.load().select(ids or [])


def _seed(arguments: argparse.Namespace) -> int:
    return getattr(arguments, "seed", 1)


def _check_numbers(arguments: argparse.Namespace) -> None:
    if arguments.repeat < 1:
        raise BadInput(f"--repeat {arguments.repeat}: give a number of boots, 1 or more")
    if not 1 <= _seed(arguments) <= SEEDS:
        raise BadInput(f"--seed {arguments.seed}: give a number, 1 to {SEEDS}")
    # Its tokens must fit into a pipe.
    if arguments.jobs is not None and not 1 <= arguments.jobs <= 4096:
        raise BadInput(f"--jobs {arguments.jobs}: give a number of jobs, 1 to 4096")


def _request(arguments: argparse.Namespace) -> "Request":
    _check_numbers(arguments)
    bugs = _bugs(arguments.bug)
    chosen = arches.select(arguments.arch)
    patches = tuple(getattr(arguments, "patch", ()))
    for patch in patches:
        series.touched_files(patch)
    setup.ensure(_say, _SHOWS)
    # rich is one of the things that setup installs.
    from kmendlib.proof.plan import Request

    return Request(
        arguments.tree,
        arguments.base,
        bugs,
        chosen,
        arguments.repeat,
        arguments.out,
        arguments.jobs or 0,
        patches=patches,
        seed=_seed(arguments),
    )


def _verify(arguments: argparse.Namespace) -> ExitCode:
    request = _request(arguments)
    from kmendlib.proof import verify
    from kmendlib.host.progress import Display
    from kmendlib.show.report import print_report

    with Display() as display:
        evidence = verify.verify(request, display)
    with _done():
        print_report(evidence)
        _page([evidence], None)
    return evidence.run.exit_code()


def _try(arguments: argparse.Namespace) -> ExitCode:
    _check_numbers(arguments)
    if not arguments.kernel and not arguments.installed:
        raise BadInput("no kernel given: name packages, a folder or an image, or say --installed")
    bugs = _bugs(arguments.bug)
    setup.ensure(_say, [*_SHOWS, "bsdtar", "bsdcat"])
    from kmendlib.host.progress import Display
    from kmendlib.proof import shipped
    from kmendlib.run import gravest
    from kmendlib.show import page
    from kmendlib.show.report import print_reports
    from kmendlib.tree import package

    given = package.find(arguments.kernel, arguments.modules, arguments.installed)
    request = shipped.Request(
        tuple(map(str, arguments.kernel)), tuple(given), bugs, arguments.repeat, arguments.out, arguments.jobs or 0
    )
    with Display() as display:
        evidences, code = shipped.try_out(request, display)
    with _done():
        if evidences:
            print_reports(evidences)
            folder = evidences[0].folder
            _page(evidences, (folder if len(given) == 1 else folder.parent) / page.NAME)
    return gravest([code, *(evidence.run.exit_code() for evidence in evidences)])


def _audit(arguments: argparse.Namespace) -> ExitCode:
    from kmendlib.tree.audit import audit, table, worst_code
    from kmendlib.tree.config import Config
    from kmendlib.tree.tree import Tree

    config = Config.read(arguments.config) if arguments.config else None
    trees = [Tree.open(path) for path in arguments.tree]
    audits = []
    for tree in trees:
        audits.append(audit(tree, _bugs(arguments.bug), config=config))
        if arguments.json:
            print(json.dumps(audits[-1].to_json()), flush=True)
    if not arguments.json:
        print(table(audits, colour=sys.stdout.isatty()))
    return worst_code(audits)


def _apply(arguments: argparse.Namespace) -> ExitCode:
    from kmendlib.tree.apply import apply
    from kmendlib.tree.audit import audit
    from kmendlib.tree.tree import Tree

    tree = Tree.open(arguments.tree, need_makefile=True)
    found = audit(tree, _bugs(arguments.bug), latent=arguments.latent)
    done = apply(tree, found, dry_run=arguments.dry_run, with_tests=arguments.with_tests)
    with _done():
        print(visible(done.to_text()))
    return ExitCode.OK


def _unapply(arguments: argparse.Namespace) -> ExitCode:
    from kmendlib.tree.apply import unapply
    from kmendlib.tree.tree import Tree

    done = unapply(Tree.open(arguments.tree, need_makefile=True))
    with _done():
        print(visible(done.to_text()))
    return ExitCode.OK


def _export(arguments: argparse.Namespace) -> ExitCode:
    from kmendlib.tree import export
    from kmendlib.tree.audit import audit
    from kmendlib.tree.tree import Tree

    if [bool(arguments.patch), bool(arguments.tree), bool(arguments.base)].count(True) != 1:
        raise BadInput("export: give --tree DIR, --base NAME, or patches")
    if arguments.patch and arguments.bug:
        raise BadInput("--bug: not for patches that are named themselves")
    if not 1 <= arguments.start_number <= 9999:
        raise BadInput(f"--start-number {arguments.start_number}: give a number, 1 to 9999")
    bugs = _bugs(arguments.bug)
    patches, title, left_out = arguments.patch, "Fixes", list[manifest.Bug]()
    if arguments.tree:
        tree = Tree.open(arguments.tree, need_makefile=True)
        patches, title = export.of_tree(audit(tree, bugs)), f"Fixes for {tree.release}"
    elif arguments.base:
        patches, left_out = export.of_base(arguments.base, bugs)
        title = f"Fixes for {arguments.base}"
    options = export.Options(
        arguments.format,
        export.identity() if arguments.signoff else "",
        arguments.issue,
        arguments.cve,
        arguments.start_number,
        not arguments.patch,
        title,
        _ran(arguments.evidence) if arguments.evidence else (),
    )
    paths, blanks = export.export(patches, options, arguments.out)
    with _done():
        print(visible("\n".join(map(str, paths))))
    for blank in blanks:
        _say(f"left blank: {blank}")
    if left_out:
        names = ", ".join(bug.id for bug in left_out)
        _say(f"nothing here for {names}: what a tree needs depends on its code: export --tree DIR, or name the patch")
    return ExitCode.OK


def _ran(folder: Path) -> tuple[str, ...]:
    """Return what a run has shown, a line a row."""
    setup.ensure(_say, ["python:jsonschema"])
    from kmendlib.proof.evidence import load

    run = load(folder).run
    if run.distrust:
        raise BadInput(f"{folder}: not trusted: {run.distrust}")
    return tuple(
        f"{run.title}: {proof.row.bug}, {proof.row.arch}, {proof.row.suite}: {proof.row.not_run or proof.outcome}"
        for proof in run.proofs
    )


def _port(arguments: argparse.Namespace) -> ExitCode:
    from kmendlib.proof import port
    from kmendlib.tree.tree import Tree

    if arguments.resume and (arguments.bug or arguments.variant):
        raise BadInput("--continue knows the finding and the variant: give no --bug and no --from")
    results = []
    if arguments.resume:
        results.append(port.resume(arguments.resume, arguments.out, _say))
        with _done():
            print(visible(results[0].to_text()))
    else:
        tree = Tree.open(arguments.tree, need_makefile=True)
        for result in port.port(tree, _bugs(arguments.bug), arguments.variant, arguments.out, _say):
            results.append(result)
            with _done():
                print(visible(result.to_text()))
    return port.exit_code(results)


def _page(evidences: Sequence["Evidence"], out: Path | None) -> None:
    from kmendlib.show import formats, page

    path = out or evidences[0].folder / page.NAME
    try:
        files.write({path: page.render(evidences), **formats.files(evidences, path)})
    except OSError as error:
        code = ExitCode.INFRASTRUCTURE if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else ExitCode.USAGE
        raise BadInput(
            f"cannot write {error.filename or path}: {error.strerror}: name another file with --out", code
        ) from None
    print(f"page: {visible(str(path))}")


def _report(arguments: argparse.Namespace) -> ExitCode:
    folders = arguments.evidence
    if arguments.out and not arguments.out.name:
        raise BadInput(f"--out '{arguments.out}': give the name of a file")
    if len(folders) > 1 and not arguments.out:
        raise BadInput(f"{len(folders)} folders make one page: say where with --out FILE")
    if len(folders) > 1 and arguments.lava:
        raise BadInput("--lava: name the one folder that the logs are for")
    setup.ensure(_say, _SHOWS)
    from kmendlib.proof.evidence import load
    from kmendlib.run import gravest
    from kmendlib.show.report import print_report

    evidences = [load(folder) for folder in folders]
    if arguments.lava:
        setup.ensure(_say, ["python:yaml"])
        from kmendlib.proof import lava

        evidences = [lava.take(evidences[0], arguments.lava, _say)]
    for evidence in evidences:
        print_report(evidence)
    if arguments.out or os.access(folders[0], os.W_OK):
        _page(evidences, arguments.out)
    else:
        _say(f"no page: {folders[0]} cannot be written to: name a file with --out")
    return gravest(evidence.run.exit_code() for evidence in evidences)


def _lava(arguments: argparse.Namespace) -> ExitCode:
    from kmendlib.proof import lava

    farm = lava.Farm(arguments.url, arguments.device_type, arguments.stretch)
    farm.check()
    request = _request(arguments)
    from kmendlib.host.progress import Display

    with Display() as display:
        evidence, jobs = lava.write(request, farm, display)
    proofs = evidence.run.proofs
    why = [(proof.row, proof.row.not_run or (f"no kernel: {proof.broken}" if proof.broken else "")) for proof in proofs]
    lines = [*map(str, jobs), *dict.fromkeys(f"{row.bug} on {row.arch}: {text}" for row, text in why if text)]
    lines.append(f"{len(jobs)} jobs, {len(evidence.run.waiting)} boots: {evidence.folder / lava.FOLDER}")
    lines.append(f"with their logs: scripts/kmend report {evidence.folder} --lava LOG…")
    with _done():
        print(visible("\n".join(lines)))
    if any(proof.broken for proof in proofs):
        return ExitCode.INFRASTRUCTURE
    return ExitCode.OK if jobs else ExitCode.NOTHING


def _setup(_: argparse.Namespace) -> ExitCode:
    setup.main(_say)
    return ExitCode.OK


def _check(_: argparse.Namespace) -> ExitCode:
    setup.ensure(_say)
    # What the tests of the page, of the books, of port, of lava and of packages need.
    more = ["chromium", "sphinx-build", "man", "wiggle", "python:lava_common", "python:yaml", "bsdtar", "bsdcat"]
    setup.ensure(_say, more)
    from kmendlib.check import check

    return check()


_COMMANDS = {
    "verify": _verify,
    "try": _try,
    "audit": _audit,
    "apply": _apply,
    "unapply": _unapply,
    "export": _export,
    "port": _port,
    "report": _report,
    "lava": _lava,
    "setup": _setup,
    "check": _check,
}


def _error(text: str) -> None:
    with contextlib.suppress(OSError):
        _say(f"kmend: error: {' '.join(text.split())}")


def main(words: Sequence[str]) -> int:
    """Run one command.

    Args:
        words: the command line without the program's name.

    Returns:
        The exit code, one of `ExitCode`.
    """
    with proc.caught_signals() as signals:
        try:
            return int(_run(words))
        except KeyboardInterrupt:
            pass
        except KmendError as error:
            if not signals:
                _error(str(error))
                return int(error.code)
        except BrokenPipeError:
            if not signals:
                return int(ExitCode.NO_READER)
        except OSError as error:
            if not signals:
                _error(_os_error(error))
                return int(ExitCode.INFRASTRUCTURE)
        except Exception as error:
            if not signals:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                _error(f"a fault of kmend itself, please report it: {type(error).__name__}: {error} ({place})")
                return int(ExitCode.FAULT)
        # What ends once a signal has come, in whatever way, was stopped by that.
        proc.stop()
        with contextlib.suppress(OSError):
            _say("kmend: stopped")
        return int(ExitCode.STOPPED)


def _run(words: Sequence[str]) -> ExitCode:
    try:
        arguments = parser().parse_args(words)
        code = _COMMANDS[arguments.command](arguments)
    except SystemExit:
        # argparse has printed a help text.
        code = ExitCode.OK
    sys.stdout.flush()
    return code


def _os_error(error: OSError) -> str:
    # shutil names the file that it copies from first.
    name = error.filename2 or error.filename
    if "No usable temporary directory" in str(error):
        return "no folder for temporary files can be written: free some space there, or set TMPDIR"
    return f"{os.fsdecode(name)}: {error.strerror}" if name else str(error.strerror or error)
