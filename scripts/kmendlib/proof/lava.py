# SPDX-License-Identifier: GPL-2.0-only
"""Proofs on a LAVA farm: writes kernels and job definitions, and takes the jobs' logs back into evidence.

What `write` makes is evidence without boots, sealed, and beside it what a farm needs, which may go when the results
are in:

    lava/jobs/BUG-ARCH-STATE.yaml  the job definitions
    lava/ARCH/*                    kernels and initramfs
    lava/device-ARCH.yaml          a device for lava-run, which works without a server
    lava/kmend-qemu.jinja2         a device dictionary for a server

The verdict is not LAVA's: `take` judges each console as if this machine had booted it.
"""

import datetime
import itertools
import json
import math
import os
import re
import shlex
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kmendlib.host import files, proc
from kmendlib.host.errors import BadInput
from kmendlib.host.files import digest
from kmendlib.host.paths import SCRIPTS
from kmendlib.host.progress import Display
from kmendlib.host.text import template
from kmendlib.host.words import Verdict
from kmendlib.proof import evidence, guest, ktap
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.plan import Request
from kmendlib.proof.verify import Bench, verify
from kmendlib.run import Boot, End, Ending, Judgement, Run
from kmendlib.tree import arches, bases, source

FOLDER = "lava"
DEVICE_TYPE = "qemu"
# Seconds for LAVA to fetch the files of a boot.
DEPLOY = 600
# Of a line of a log, which LAVA itself keeps below a million characters, and of the logs of a job.
_LINE_LIMIT = 4 << 20
_LOG_LIMIT = 512 << 20
_SUFFIXES = (".yaml", ".yml", ".log")
# Brackets in a line that a safe parser has to read.
_DEEP = 100

# A farm's guests are on the host's clock.
FIXED = (*guest.FIXED, *guest.HOST_CLOCK)
# The guest's last words, each with the end of its line: LAVA logs whole lines, and stops reading at what this matches.
# After a panic nothing may follow, and a job must go on with its next boot.
END = r"reboot: (?:Power down|Restarting system|System halted)[^\n]*\n|Kernel panic - not syncing[^\n]*\n"
PATTERN = (
    r"\n *(?P<result>ok(?! \d+ [^\n]*# SKIP)|not ok|o(?=k \d+ [^\n]*# SKIP))k? \d+ (?:- )?(?P<test_case_id>[^\s#]+)"
    r"[^\n]*(?=\n)"
)


class _Shelf:
    """Takes boots by keeping their files for a farm in place of booting them."""

    def __init__(self) -> None:
        self.boots: list[Boot] = []
        self.files: dict[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self, bench: Bench, boot: Boot, _: str) -> None:
        """Keep the files of a boot whose kernel is built."""
        folder = bench.evidence.folder / FOLDER
        with self._lock:
            kernel, *initrd = (self._keep(file, boot, folder) for file in (boot.guest.kernel, *boot.guest.initrd))
            self.boots.append(replace(boot, guest=replace(boot.guest, kernel=kernel, initrd=tuple(initrd))))

    def _keep(self, file: Path, boot: Boot, folder: Path) -> Path:
        """Copy a file into the folder, once; return its path there."""
        arch = boot.row.arch
        # Archives with modules lie in a folder of their state's own.
        name = Path(arch, file.name if file.parent.name == arch else f"{file.parent.name}-{file.name}")
        if str(name) not in self.files:
            (folder / arch).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
            self.files[str(name)] = digest(folder / name)
        return name


def _images(boot: Boot) -> dict[str, Path]:
    """Return the path of each file that is deployed, by LAVA's label."""
    return {"kernel": boot.guest.kernel} | ({"initrd": boot.guest.initrd[0]} if boot.guest.initrd else {})


def _words(boot: Boot) -> dict[str, list[str]]:
    """Return QEMU's words as a job has them: the machine's, and those that come with each file, by LAVA's label."""
    spec = replace(boot.guest, kernel=Path("{kernel}"), initrd=(Path("{initrd}"),) if boot.guest.initrd else ())
    kernel = [*guest.size_words(spec), *guest.kernel_words(spec), *guest.device_words(spec)]
    return {"machine": [*FIXED, *spec.machine], "kernel": kernel, "initrd": guest.initrd_words(spec)}


def _line(words: Iterable[str]) -> str:
    """Join words to a line that LAVA splits again: it knows double quotes."""
    words = list(words)
    for word in words:
        if re.search(r"[\"'\\\n]", word):
            raise BadInput(f"LAVA cannot take QEMU's word {word!r}")
    return " ".join(f'"{word}"' if " " in word else word for word in words)


@dataclass(frozen=True)
class Farm:
    """How a farm is told to run the jobs.

    Attributes:
        url: where the folder ``lava`` is served; by default the folder itself, for workers that have it mounted.
        device_type: the farm's name for its QEMU devices.
        stretch: by how much time limits are stretched, as nobody here knows how busy a worker is.
    """

    url: str = ""
    device_type: str = DEVICE_TYPE
    stretch: float = 1.0

    def __post_init__(self) -> None:
        """Raise BadInput where a worker could do nothing with it."""
        try:
            known = not self.url or urlsplit(self.url).scheme in ("http", "https", "file")
        except ValueError:
            known = False
        if not known or re.search(r"\s", self.url):
            raise BadInput(f"--url '{self.url}': give an http, https or file address")
        if not re.fullmatch(r"[\w.-]+", self.device_type):
            raise BadInput(f"--device-type '{self.device_type}' is no name of a device type")
        if not 1 <= self.stretch <= 100:
            raise BadInput(f"--stretch {self.stretch:g}: give a number from 1 to 100")


def jobs(run: Run, url: str, farm: Farm) -> dict[str, str]:
    """Render the files of a folder ``lava`` but for the kernels, by their paths there.

    Args:
        run: the run, whose boots wait for a farm, in the order in which a job has them.
        url: where the folder is served.
        farm: how it runs the jobs.
    """
    dictionary = (SCRIPTS / "templates/lava-dictionary.jinja2").read_text(encoding="utf-8")
    names = "".join(f"- {name}\n" for name in arches.names())
    texts = {"kmend-qemu.jinja2": dictionary.replace("- ARCHITECTURE\n", names)}
    for arch in dict.fromkeys(boot.row.arch for boot in run.waiting):
        mine = [boot for boot in run.waiting if boot.row.arch == arch]
        machines = {tuple(_words(boot)["machine"]) for boot in mine}
        # What not all of them have comes with the kernel.
        shared = machines.pop() if len(machines) == 1 else FIXED
        own = dict(itertools.pairwise(arches.load(arch).params.extra_qemu_params))
        device = f"device-{arch}.yaml"
        known = {"arch": arch, "options": [_line(shared)], "emulator": mine[0].guest.emulator, "file": device}
        texts[device] = template("lava-device.yaml.j2").render(known)
        for bug, state in dict.fromkeys((boot.row.bug, boot.state) for boot in mine):
            boots = []
            for boot in (boot for boot in mine if (boot.row.bug, boot.state) == (bug, state)):
                words = _words(boot)
                words["kernel"] = [*words["machine"][len(shared) :], *words["kernel"]]
                images = [
                    {
                        "label": label,
                        "argument": _line(words[label]),
                        "url": f"{url.rstrip('/')}/{path}",
                        "sha256": run.files[str(path)],
                    }
                    for label, path in _images(boot).items()
                ]
                limit = math.ceil(boot.guest.limit * farm.stretch)
                boots.append({"boot": boot, "limit": limit, "images": images})
            name = f"{bug}-{arch}-{state}"
            texts[f"jobs/{name}.yaml"] = template("lava-job.yaml.j2").render(
                known,
                title=f"{run.title}: {bug} on {arch}, {state}",
                name=f"kmend-{name}",
                device_type=farm.device_type,
                # For the farm's own -machine and -cpu: ours come later on QEMU's command line.
                machine=own.get("-machine", "virt"),
                cpu=own.get("-cpu", "max"),
                deploy=DEPLOY,
                checkout=run.id,
                bug=bug,
                state=state,
                boots=boots,
                end=END,
                pattern=PATTERN,
            )
    return texts


def write(request: Request, farm: Farm, display: Display) -> tuple[Evidence, list[Path]]:
    """Build what was asked for, and write it down for a farm.

    Returns:
        Evidence of the builds, which waits for the boots, and the job definitions.

    Raises:
        BadInput: the request cannot be met; says why.
        Infrastructure: the host lacks something; says what.
    """
    shelf = _Shelf()
    kept = verify(replace(request, forced=False), display, shelf)
    rows = kept.run.rows
    boots = sorted(shelf.boots, key=lambda boot: (rows.index(boot.row), boot.state, boot.number))
    kept.update(waiting=tuple(boots), files=shelf.files)
    folder = kept.folder / FOLDER
    paths = []
    for name, text in jobs(kept.run, farm.url or folder.resolve().as_uri(), farm).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if name.startswith("jobs/"):
            paths.append(path)
    kept.seal()
    return kept, paths


@dataclass
class LoggedBoot:
    """One boot as a job's log has it.

    Attributes:
        place: the boot's name; empty until the log has told it.
        command: QEMU's command.
        start: when QEMU was started.
        last: when the last line came.
        ktap: when the last line of test results came, if any did.
        console: what the guest printed.
        flood: whether it printed more than is kept.
        over: whether LAVA has stopped to read it; what is logged after that are LAVA's own words to the guest.
        failed: whether the test action failed.
        digests: the digest of each file that was deployed, by its label.
    """

    place: str = ""
    command: str = ""
    start: datetime.datetime | None = None
    last: datetime.datetime | None = None
    ktap: datetime.datetime | None = None
    console: bytearray = field(default_factory=bytearray)
    flood: bool = False
    over: bool = False
    failed: bool = False
    digests: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobLog:
    """A job's log.

    Attributes:
        path: the file.
        boots: the boots.
        error: why the job did not come to a good end, or empty.
    """

    path: Path
    boots: tuple[LoggedBoot, ...]
    error: str


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a log's records: a line each, of YAML, with or without the dash of a list."""
    import yaml

    with path.open("rb") as file:
        while line := file.readline(_LINE_LIMIT):
            text = line.decode(errors="replace").strip().removeprefix("- ")
            if not text.startswith("{"):
                continue
            try:
                record = json.loads(text)
            except (ValueError, RecursionError):
                # The quick one is in C, and dies of what is nested too deep.
                deep = text.count("{") + text.count("[") > _DEEP
                loader = yaml.SafeLoader if deep else getattr(yaml, "CSafeLoader", yaml.SafeLoader)
                try:
                    # A few aliases of aliases fill any memory; LAVA writes none.
                    if "*" in text and any(isinstance(each, yaml.AliasEvent) for each in yaml.parse(text, loader)):
                        continue
                    record = yaml.load(text, Loader=loader)
                except (yaml.YAMLError, ValueError, RecursionError):
                    continue
            if isinstance(record, dict) and isinstance(record.get("lvl"), str):
                yield record


def _time(record: dict[str, Any]) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(str(record["dt"]))
    except (KeyError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def read(path: Path) -> JobLog | None:
    """Read a job's log; None if the file is none.

    Raises:
        BadInput: it cannot be read, or is larger than any log can be.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{path} is no file")
        if status.st_size > _LOG_LIMIT:
            raise BadInput(f"{path} is larger than {_LOG_LIMIT >> 20} MiB: no log of a job of kmend")
        return _read(path)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _read(path: Path) -> JobLog | None:
    boots: list[LoggedBoot] = []
    digests: dict[str, dict[str, str]] = {}
    job: dict[str, Any] | None = None
    some = False
    for record in _records(path):
        some = True
        match record["lvl"], record.get("msg"):
            case "results", {"definition": "lava", "case": "job"} as said:
                job = said
            case "results", {"definition": "lava", "namespace": place, "extra": {"label": label, "sha256sum": digest}}:
                digests.setdefault(str(place), {})[str(label)] = str(digest)
            case "results", {"definition": "lava", "namespace": place, "case": "execute-qemu"} if boots:
                boots[-1].place, boots[-1].digests = str(place), digests.get(str(place), {})
            case "results", {"definition": "lava", "namespace": place, "case": "lava-test-monitor", "result": result}:
                if boots and boots[-1].place == str(place):
                    boots[-1].over, boots[-1].failed = True, result != "pass"
            case "info", str(text) if text.startswith("Boot command: "):
                boots.append(LoggedBoot(command=text.removeprefix("Boot command: "), start=_time(record)))
            case "target", str(text) if boots and not boots[-1].over:
                _print(boots[-1], text, _time(record))
    if not some:
        return None
    if job is None:
        return JobLog(path, tuple(boots), "its log is cut off")
    error = "" if job.get("result") == "pass" else " ".join(str(job.get("error_msg") or "LAVA says no reason").split())
    return JobLog(path, tuple(boots), error[:300])


def _print(boot: LoggedBoot, line: str, when: datetime.datetime | None) -> None:
    # LAVA puts a backslash before each double quote.
    data = line.replace('\\"', '"').encode(errors="replace") + b"\n"
    boot.flood = boot.flood or len(boot.console) + len(data) > guest.CONSOLE_LIMIT
    if not boot.flood:
        boot.console += data
    boot.last = when or boot.last
    if line.lstrip().startswith(("ok ", "not ok ")):
        boot.ktap = when


def _logs(places: Sequence[Path]) -> list[JobLog]:
    """Read the logs named, and all that are in the folders named."""
    found = []
    for place in places:
        inside, wrong = [place], "is no log of a LAVA job: take what 'lavacli jobs logs --raw' or lava-run writes"
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*.*") if path.suffix in _SUFFIXES and path.is_file())
            wrong = "has no log of a job of kmend (files *.yaml, *.yml and *.log were looked at)"
        logs = [log for log in map(read, inside) if log]
        if not logs:
            raise BadInput(f"{place} {wrong}")
        found += logs
    return found


def _ran(command: str, boot: Boot) -> bool:
    """Tell whether a command has all the words that a job has, in their order, among those of the farm's own."""
    try:
        rest = iter(shlex.split(command))
    except ValueError:
        return False
    wanted = [word for words in _words(boot).values() for word in words]
    return all(any(word == other or word in ("{kernel}", "{initrd}") for other in rest) for word in wanted)


def _ending(logged: LoggedBoot, log: JobLog, console: Path) -> Ending:
    console.write_bytes(logged.console)
    if logged.flood:
        end = End.FLOOD
    elif ktap.ended(logged.console.decode(errors="replace").split("\n")):
        end = End.EXIT
    elif logged.failed and "timed out" in log.error:
        end = End.TIMEOUT
    else:
        end = End.CUT

    def after(when: datetime.datetime | None) -> float | None:
        return max((when - logged.start).total_seconds(), 0.0) if when and logged.start else None

    # What the console's end does not show LAVA does not tell: QEMU's exit code.
    return Ending(end, console, after(logged.last) or 0.0, after(logged.ktap), logged.command)


def _judge(ending: Ending, boot: Boot, log: JobLog, parse: ktap.Parser) -> Judgement:
    judged = ktap.judge_row(ending, boot.row, boot.test, parse)
    if log.error and judged.verdict in (Verdict.PASS, Verdict.SKIP):
        return replace(judged, verdict=Verdict.ERROR, reason=f"the job failed after that: {log.error}")
    return judged


def take(kept: Evidence, places: Sequence[Path], say: Callable[[str], None]) -> Evidence:
    """Take the results of a farm's jobs into the evidence that waits for them, in place of earlier ones of these boots.

    Args:
        kept: what `write` left.
        places: logs of jobs, and folders with such.
        say: takes one line at a time of what is amiss.

    Raises:
        BadInput: the evidence is not as it was left, or a file is not a log of its jobs; nothing is changed then.
    """
    run, folder = kept.run, kept.folder
    boots = {boot.place: boot for boot in run.waiting}
    if not boots:
        raise BadInput(f"{folder} waits for no results of LAVA: it is not from kmend lava, or from an older one")
    if run.distrust:
        raise BadInput(f"{folder}: {run.distrust}: LAVA's results are not taken into it")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{folder} cannot be written to")
    logs = _logs(places)
    taken: dict[str, tuple[LoggedBoot, JobLog]] = {}
    for log in logs:
        for logged in log.boots:
            place = logged.place
            if not place:
                # LAVA never said which boot it was: QEMU did not start, or the log ends there.
                continue
            if place not in boots:
                raise BadInput(f"{log.path}: boot '{place[:100]}' is not of {folder}")
            if place in taken:
                raise BadInput(f"boot {place} is in {taken[place][1].path} and in {log.path}: give one of them")
            for label, path in _images(boots[place]).items():
                if logged.digests.get(label) != run.files.get(str(path), ""):
                    raise BadInput(f"{log.path}: {place} booted another {label} than {FOLDER}/{path}")
            if not _ran(logged.command, boots[place]):
                raise BadInput(f"{log.path}: {place} was booted with other words than its job has")
            taken[place] = (logged, log)
    if not taken:
        failed = [f"{log.path}: the job failed: {log.error}" for log in logs if log.error]
        raise BadInput(f"no boot of {folder} is in these logs: {'; '.join(failed) or 'nothing is changed'}")
    parse = ktap.parser_for(source.fetch_base(source.base_workspace(bases.DEFAULT), say).path)
    earlier = {str(result.ending.console): result for result in run.results}
    results = []
    consoles: dict[Path, str | bytes] = {}
    # Judged beside the evidence, which is changed at once in the end.
    with tempfile.TemporaryDirectory(prefix="kmend-") as scratch:
        for place, boot in boots.items():
            if place not in taken:
                if boot.console in earlier:
                    results.append(earlier[boot.console])
                else:
                    say(f"{place}: no result")
                continue
            logged, log = taken[place]
            consoles[folder / boot.console] = bytes(logged.console)
            ending = _ending(logged, log, Path(scratch, "console"))
            start = logged.start.isoformat(timespec="seconds") if logged.start else evidence.now()
            kernel = run.build_id(boot.row.arch, boot.state)
            results.append(boot.result(ending, _judge(ending, boot, log, parse), kernel, start))
    for log in logs:
        if log.error:
            say(f"{log.path}: the job failed: {log.error}")
    for below in {path.parent for path in consoles}:
        if below.is_symlink():
            raise BadInput(f"{below} is a link: nothing is written through it")
        below.mkdir(exist_ok=True)
    with proc.held_signals():
        files.write(consoles)
        kept.update(results=tuple(results))
        kept.seal()
    return kept
