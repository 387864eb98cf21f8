# SPDX-License-Identifier: GPL-2.0-only
"""The command line of ``scripts/kmend``."""

import argparse
import contextlib
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kmendlib.host import files, proc, setup, streams
from kmendlib.host.errors import BadInput, ExitCode, KmendError
from kmendlib.host.words import Has, Outcome, Verdict, Word, visible
from kmendlib.tree import arches, manifest, series
from kmendlib.tree.audit import Status, audit, table, worst_code
from kmendlib.tree.config import Config
from kmendlib.tree.tree import Tree

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


def _tell(text: str) -> None:
    with _done():
        print(visible(text))


class _Formatter(argparse.HelpFormatter):
    """Wraps paragraphs and leaves lists, whose lines are indented, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = (
            line if line.startswith(" ") else super(_Formatter, self)._fill_text(line, width, indent)
            for line in text.split("\n")
        )
        return "\n".join(lines)


# What a value is, by its name in the usage; any other is text.
_TYPES = dict.fromkeys(("DIR", "FILE", "TREE", "KERNEL", "LOG", "EVIDENCE_DIR"), Path) | {"N": int, "S": int}

_Argument = tuple[str, dict[str, Any]]
_Command = Callable[[argparse.Namespace], ExitCode]
# Each with its arguments, of a list of which one may be given, and the end of its help; their docstrings are the rest.
_COMMANDS: dict[_Command, tuple[tuple[_Argument | list[_Argument], ...], str | None]] = {}


class _Once(argparse.Action):
    """An option with a value; of two of them argparse takes the last, and says nothing."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if self.dest in (given := vars(namespace).setdefault("given", set())):
            raise argparse.ArgumentError(self, "given more than once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def _argument(usage: str, text: str, **more: Any) -> _Argument:
    """Describe an argument of a command.

    Args:
        usage: ``--name VALUE``, ``name VALUE`` for one without a name on the command line, or ``--name`` for a switch.
        text: what its help says.
        more: what else add_argument() is to know.
    """
    name, _, value = usage.partition(" ")
    known: dict[str, Any] = {"metavar": value, "type": _TYPES.get(value, str)} if value else {"action": "store_true"}
    once = {"action": _Once} if value and name.startswith("--") else {}
    return name, {**known, **once, "help": text, **more}


def _command(*arguments: _Argument | list[_Argument], epilog: str | None = None) -> Callable[[_Command], _Command]:
    """Make a function a command, which has its name."""

    def known(run: _Command) -> _Command:
        _COMMANDS[run] = arguments, epilog
        return run

    return known


_BUG = _argument("--bug ID", "look at this bug, or finding (BUG/NAME), alone; may be given again", action="append")
_TREE = _argument("--tree DIR", "a kernel tree; it is only read")
_OUT = _argument("--out DIR", "folder for the evidence (default: one in the cache)")


def _proof(jobs: str) -> list[_Argument | list[_Argument]]:
    """Describe the arguments of what builds kernels; `jobs` says what is done at once."""
    known = f"architectures, of {', '.join(arches.names())} (default: {arches.DEFAULT})"
    return [
        [_TREE, _argument("--base NAME", "a named line of trees, fetched by itself (default: linux-6.12.y)")],
        _BUG,
        _argument("--arch A,…|all", known, default=arches.DEFAULT),
        _argument("--repeat N", "boot each suite with N seeds and report k of N", default=1),
        _argument("--jobs N", f"{jobs} at once, in all (default: one for each CPU)"),
    ]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; Documentation is made from it, too."""
    top = _Parser(
        prog="kmend",
        description="Audits a kernel tree for documented lifetime and locking bugs, mends it, and proves both.",
        epilog=_list("exit codes", ExitCode),
        formatter_class=_Formatter,
    )
    # For the commands that do not ask for them.
    top.set_defaults(seed=1, patch=[])
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for run, (arguments, epilog) in _COMMANDS.items():
        name, text = run.__name__.removeprefix("_"), " ".join(str(run.__doc__).split())
        short = text[0].lower() + text[1:].partition(". ")[0].removesuffix(".")
        command = commands.add_parser(name, help=short, description=text, epilog=epilog, formatter_class=_Formatter)
        command.set_defaults(run=run)
        for each in arguments:
            several = isinstance(each, list)
            # One of a tree and a folder to go on in is all that port can work on.
            place = command.add_mutually_exclusive_group(required=run is _port) if several else command
            for flag, options in each if several else [each]:
                place.add_argument(flag, **options)
    return top


def _bugs(arguments: argparse.Namespace) -> tuple[manifest.Bug, ...]:
    return manifest.load().select(arguments.bug or [])


def _check_numbers(arguments: argparse.Namespace) -> None:
    if arguments.repeat < 1:
        raise BadInput(f"--repeat {arguments.repeat}: give a number of boots, 1 or more")
    if not 1 <= arguments.seed <= SEEDS:
        raise BadInput(f"--seed {arguments.seed}: give a number, 1 to {SEEDS}")
    # Its tokens must fit into a pipe.
    if arguments.jobs is not None and not 1 <= arguments.jobs <= 4096:
        raise BadInput(f"--jobs {arguments.jobs}: give a number of jobs, 1 to 4096")


def _request(arguments: argparse.Namespace) -> "Request":
    _check_numbers(arguments)
    bugs = _bugs(arguments)
    chosen = arches.select(arguments.arch)
    for patch in arguments.patch:
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
        patches=tuple(arguments.patch),
        seed=arguments.seed,
    )


@_command(
    *_proof("jobs of make and guests"),
    _argument(
        "--patch FILE",
        "prove this patch of your own in the place of kmend's fix; may be given again, in order",
        action="append",
        default=[],
    ),
    _argument("--seed S", "the first seed: with the same one a boot is the same again", default=1),
    _OUT,
    epilog=_list("results", Outcome) + "\n\n" + _list("verdicts of a boot", Verdict),
)
def _verify(arguments: argparse.Namespace) -> ExitCode:
    """Build and boot a tree with and without each bug, and show the tests red and green.

    The tree is only read: kmend works on a private copy. Consoles, configurations, build logs, patches and results go
    into a folder of evidence, which the end of the output names, with report.html, junit.xml and summary.md for readers
    and other programs.
    """
    request = _request(arguments)
    from kmendlib.host.progress import Display
    from kmendlib.proof import verify
    from kmendlib.show.report import print_report

    with Display() as display:
        evidence = verify.verify(request, display)
    with _done():
        print_report(evidence)
        _page([evidence], None)
    return evidence.run.exit_code()


@_command(
    _argument("kernel KERNEL", "packages (.deb, .rpm), a folder with boot/ and lib/modules, or an image", nargs="*"),
    _argument("--modules DIR", "where the modules of the image are"),
    _argument("--installed", "this machine's own kernel"),
    _BUG,
    _argument("--repeat N", "boot each test N times and report k of N", default=1),
    _argument("--jobs N", "guests at once, in all (default: one for each CPU)"),
    _OUT,
    epilog=_list("what it has", Has),
)
def _try(arguments: argparse.Namespace) -> ExitCode:
    """Boot a kernel that somebody else built, and tell which bugs it has.

    Nothing of it is run but in a guest, it is only read, and nothing is built but, once, the guest's own parts.
    Packages of one kernel belong together, as those with its image and its modules. Evidence and page are as verify's.
    """
    _check_numbers(arguments)
    if not arguments.kernel and not arguments.installed:
        raise BadInput("no kernel given: name packages, a folder or an image, or say --installed")
    bugs = _bugs(arguments)
    setup.ensure(_say, [*_SHOWS, "bsdtar", "bsdcat"])
    from kmendlib.host.progress import Display
    from kmendlib.proof import shipped
    from kmendlib.run import gravest
    from kmendlib.show import page
    from kmendlib.show.report import print_reports
    from kmendlib.tree import package

    given = package.find(arguments.kernel, arguments.modules, arguments.installed, _say)
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


@_command(
    _argument("tree TREE", "a kernel tree, or a part of one", nargs="+"),
    _BUG,
    _argument(
        "--config FILE",
        "what is built: a .config, /boot/config-VERSION or /proc/config.gz; code that it leaves out is not built",
    ),
    _argument("--json", "print JSON, one object a line for each tree"),
    epilog=_list("statuses", Status),
)
def _audit(arguments: argparse.Namespace) -> ExitCode:
    """Tell which bugs a tree has, from its source.

    Nothing is built, nothing of the tree is run, and it is only read.
    """
    config = Config.read(arguments.config) if arguments.config else None
    trees = [Tree.open(path) for path in arguments.tree]
    audits = []
    for tree in trees:
        audits.append(audit(tree, _bugs(arguments), config=config))
        if arguments.json:
            print(json.dumps(audits[-1].to_json()), flush=True)
    if not arguments.json:
        print(table(audits, colour=sys.stdout.isatty()))
    return worst_code(audits)


@_command(
    _argument("tree TREE", "a kernel tree"),
    _BUG,
    _argument("--latent", "push the fixes of what is only latent as well"),
    _argument("--dry-run", "say what would be done"),
    _argument("--with-tests", "put the KUnit suites and kselftests in as well"),
    _argument("--compile", "first compile what the fixes touch, out of tree"),
)
def _apply(arguments: argparse.Namespace) -> ExitCode:
    """Push the fixes that the audit chooses onto a tree, all or nothing.

    A tree is refused, and stays as it is, where a file that would be patched has local changes, where a finding is
    unknown, where one is affected and no fix fits, and where, with --compile, a fix that fits does not compile.
    TREE/.kmend keeps what unapply needs.
    """
    from kmendlib.tree.apply import apply

    tree = Tree.open(arguments.tree, need_makefile=True)
    found = audit(tree, _bugs(arguments), latent=arguments.latent)
    if arguments.compile:
        from kmendlib.proof import touched

        # It takes minutes: whatever else is in the way is said before.
        apply(tree, found, dry_run=True, with_tests=arguments.with_tests)
        touched.check(found, _say)
    _tell(apply(tree, found, dry_run=arguments.dry_run, with_tests=arguments.with_tests).to_text())
    return ExitCode.OK


@_command(_argument("tree TREE", "the kernel tree"))
def _unapply(arguments: argparse.Namespace) -> ExitCode:
    """Take back what apply did, whole or half.

    The very bytes come back.
    """
    from kmendlib.tree.apply import unapply

    _tell(unapply(Tree.open(arguments.tree, need_makefile=True)).to_text())
    return ExitCode.OK


@_command(
    _argument("patch FILE", "a patch of your own, or of kmend's, in mail format", nargs="*"),
    [
        _argument("--tree DIR", "what this kernel tree needs; it is only read"),
        _argument("--base NAME", "what trees of this base, or series, need"),
    ],
    _BUG,
    _argument(
        "--format",
        "for the stable list, with openEuler's header, or for whoever else maintains the code",
        action="store",
        choices=("stable", "openeuler", "mail"),
        required=True,
    ),
    _argument("--out DIR", "an empty folder, or a new one", required=True),
    _argument(
        "--signoff", "sign them off as the user that git knows, who is the author of what no upstream commit is behind"
    ),
    _argument("--issue URL", "the issue that openEuler's header names", default=""),
    _argument(
        "--cve ID", "the CVE that openEuler's header names (default: that of the upstream commit, or NA)", default=""
    ),
    _argument("--start-number N", "the number of the first file (default: 1)", default=1),
    _argument("--evidence DIR", "a folder of kmend verify: the cover letter says what was run"),
)
def _export(arguments: argparse.Namespace) -> ExitCode:
    """Write fixes as mails, ready to send or to git am.

    A backport has the author and the sign-offs of its upstream commit. kmend signs nothing off: --signoff does it in
    your name. What kmend cannot know is left as <<< a blank >>>, and told. Beside the mails lie series, for quilt,
    patches.spec, with the lines of a spec file, and a cover letter; csaf.json, where they mend a CVE, for an advisory.
    """
    from kmendlib.tree import export

    if [bool(arguments.patch), bool(arguments.tree), bool(arguments.base)].count(True) != 1:
        raise BadInput("export: give --tree DIR, --base NAME, or patches")
    if arguments.patch and arguments.bug:
        raise BadInput("--bug: not for patches that are named themselves")
    if not 1 <= arguments.start_number <= 9999:
        raise BadInput(f"--start-number {arguments.start_number}: give a number, 1 to 9999")
    bugs = _bugs(arguments)
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
    _tell("\n".join(map(str, paths)))
    for blank in blanks:
        _say(f"left blank: {blank}")
    if left_out:
        names = ", ".join(bug.id for bug in left_out)
        _say(f"nothing here for {names}: what a tree needs depends on its code: export --tree DIR, or name the patch")
    return ExitCode.OK


def _ran(folder: Path) -> tuple[str, ...]:
    """Return what a run has shown, a line a row."""
    setup.ensure(_say, ["python:jsonschema"])
    from kmendlib.proof.evidence import Evidence

    run = Evidence.open(folder).run
    if run.distrust:
        raise BadInput(f"{folder}: not trusted: {run.distrust}")
    return tuple(
        f"{run.title}: {proof.row.bug}, {proof.row.arch}, {proof.row.suite}: {proof.row.not_run or proof.outcome}"
        for proof in run.proofs
    )


@_command(
    [_TREE, _argument("--continue DIR", "go on in a folder whose conflicts are resolved", dest="resume")],
    _BUG,
    _argument(
        "--from BUG/NAME.patch",
        "the variant to start from (default: the nearest one that leads to the end)",
        dest="variant",
        default="",
    ),
    _argument("--out FILE", "the new variant's path (default: BUG-FINDING-VERSION.patch)"),
)
def _port(arguments: argparse.Namespace) -> ExitCode:
    """Carry a fix to a tree that no variant of it fits: as a new variant, or with conflicts.

    The tree is only read. A merge counts if the touched files compile and the audit says fixed; what was not exact is
    told: read those hunks.
    """
    from kmendlib.proof import port

    if arguments.resume:
        if arguments.bug or arguments.variant:
            raise BadInput("--continue knows the finding and the variant: give no --bug and no --from")
        steps = iter([port.resume(arguments.resume, arguments.out, _say)])
    else:
        tree = Tree.open(arguments.tree, need_makefile=True)
        steps = port.port(tree, _bugs(arguments), arguments.variant, arguments.out, _say)
    results = []
    for result in steps:
        results.append(result)
        _tell(result.to_text())
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


@_command(
    _argument("evidence EVIDENCE_DIR", "a folder that kmend verify has left", nargs="+"),
    _argument("--out FILE", "the page (default: report.html in the folder, if it is one folder)"),
    _argument(
        "--lava LOG",
        "first take in the logs of LAVA jobs, or folders with them; the folder is one of kmend lava",
        nargs="+",
    ),
)
def _report(arguments: argparse.Namespace) -> ExitCode:
    """Show the results in evidence folders again, and make a page of them.

    Several folders are compared side by side. Evidence that was cut off, edited, or left by an older kmend is no pass.
    junit.xml and summary.md go beside the page.
    """
    folders = arguments.evidence
    if arguments.out and not arguments.out.name:
        raise BadInput(f"--out '{arguments.out}': give the name of a file")
    if len(folders) > 1 and not arguments.out:
        raise BadInput(f"{len(folders)} folders make one page: say where with --out FILE")
    if len(folders) > 1 and arguments.lava:
        raise BadInput("--lava: name the one folder that the logs are for")
    setup.ensure(_say, _SHOWS)
    from kmendlib.proof.evidence import Evidence
    from kmendlib.run import gravest
    from kmendlib.show.report import print_report

    evidences = [Evidence.open(folder) for folder in folders]
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


@_command(
    *_proof("jobs of make"),
    _argument("--out DIR", "folder for the jobs, and for the evidence that they give", required=True),
    _argument("--url URL", "where the farm finds DIR/lava (default: as a file, at its path here)", default=""),
    _argument("--device-type NAME", "the farm's name for QEMU devices (default: qemu)", default="qemu"),
    _argument("--stretch N", "stretch time limits, for busy workers (default: 1)", type=float, default=1.0),
)
def _lava(arguments: argparse.Namespace) -> ExitCode:
    """Build what verify would boot, and write it down as jobs for a LAVA farm.

    Nothing is booted. The folder is evidence without boots; its folder lava has a job definition for each bug,
    architecture and state, kernels and initramfs, and the farm's devices. What the jobs logged goes back into it with
    kmend report --lava.
    """
    from kmendlib.proof import lava

    farm = lava.Farm(arguments.url, arguments.device_type, arguments.stretch)
    request = _request(arguments)
    from kmendlib.host.progress import Display

    with Display() as display:
        evidence, jobs = lava.write(request, farm, display)
    proofs = evidence.run.proofs
    why = [(proof.row, proof.row.not_run or (f"no kernel: {proof.broken}" if proof.broken else "")) for proof in proofs]
    lines = [*map(str, jobs), *dict.fromkeys(f"{row.bug} on {row.arch}: {text}" for row, text in why if text)]
    lines.append(f"{len(jobs)} jobs, {len(evidence.run.waiting)} boots: {evidence.folder / lava.FOLDER}")
    lines.append(f"with their logs: scripts/kmend report {evidence.folder} --lava LOG…")
    _tell("\n".join(lines))
    if any(proof.broken for proof in proofs):
        return ExitCode.INFRASTRUCTURE
    return ExitCode.OK if jobs else ExitCode.NOTHING


@_command()
def _setup(_: argparse.Namespace) -> ExitCode:
    """Install what is missing on this machine."""
    setup.main(_say)
    return ExitCode.OK


@_command()
def _check(_: argparse.Namespace) -> ExitCode:
    """Run the project's own tests, the proofs on all architectures among them."""
    setup.ensure(_say)
    # What the tests of the page, of the books, of port, of lava and of packages need.
    more = ["chromium", "sphinx-build", "man", "wiggle", "python:lava_common", "python:yaml", "bsdtar", "bsdcat"]
    setup.ensure(_say, more)
    from kmendlib.check import check

    return check()


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
        except Exception as error:
            if not signals:
                return int(_told(error))
        # What ends once a signal has come, in whatever way, was stopped by that.
        proc.stop()
        with contextlib.suppress(OSError):
            _say("kmend: stopped")
        return int(ExitCode.STOPPED)


def _run(words: Sequence[str]) -> ExitCode:
    try:
        arguments = parser().parse_args(words)
        code: ExitCode = arguments.run(arguments)
    except SystemExit:
        # argparse has printed a help text.
        code = ExitCode.OK
    sys.stdout.flush()
    return code


def _told(error: Exception) -> ExitCode:
    """Tell of an error, and return its exit code."""
    if isinstance(error, BrokenPipeError):
        return ExitCode.NO_READER
    if isinstance(error, KmendError):
        text, code = str(error), error.code
    elif isinstance(error, OSError):
        text, code = _os_error(error), ExitCode.INFRASTRUCTURE
    else:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        text = f"a fault of kmend itself, please report it: {type(error).__name__}: {error} ({place})"
        code = ExitCode.FAULT
    with contextlib.suppress(OSError):
        _say(f"kmend: error: {' '.join(text.split())}")
    return code


def _os_error(error: OSError) -> str:
    # shutil names the file that it copies from first.
    name = error.filename2 or error.filename
    if "No usable temporary directory" in str(error):
        return "no folder for temporary files can be written: free some space there, or set TMPDIR"
    return f"{os.fsdecode(name)}: {error.strerror}" if name else str(error.strerror or error)
