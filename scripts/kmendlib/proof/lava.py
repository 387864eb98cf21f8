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

import concurrent.futures
import datetime
import hashlib
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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kmendlib.host import files, proc
from kmendlib.host.errors import BadInput
from kmendlib.host.paths import SCRIPTS
from kmendlib.host.progress import Display
from kmendlib.proof import evidence, ktap, verify
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.guest import CONSOLE_LIMIT, Boot, End
from kmendlib.proof.ktap import Parser, Result, Verdict
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

# The guest's last words, each with the end of its line: LAVA logs whole lines, and stops reading at what this matches.
# After a panic nothing may follow, and a job must go on with its next boot.
END = r"reboot: (?:Power down|Restarting system|System halted)[^\n]*\n|Kernel panic - not syncing[^\n]*\n"
PATTERN = (
    r"\n *(?P<result>ok(?! \d+ [^\n]*# SKIP)|not ok|o(?=k \d+ [^\n]*# SKIP))k? \d+ (?:- )?(?P<test_case_id>[^\s#]+)"
    r"[^\n]*(?=\n)"
)


@dataclass(frozen=True)
class Stage:
    """A boot as a job has it: what LAVA is to run, and what it stands for.

    Attributes:
        place: the boot's name, which the job has as the namespace of its actions: ``ARCH-STATE-SUITE-N``.
        build: id of the build in the evidence.
        path: the test's path in KCIDB.
        bug: the bug's id.
        arch: the architecture.
        suite: the suite's label.
        name: the suite as KTAP prints it.
        kind: ``kunit`` or ``kselftest``.
        state: ``before`` or ``after``.
        number: which of the repeated boots it is, from 1.
        limit: wall time in seconds.
        words: QEMU's words after its name, with ``{kernel}`` and ``{initrd}`` for the files.
        kernel: the kernel's path in the folder, and its digest.
        initrd: the initramfs' path and digest, or nothing.
    """

    place: str
    build: str
    path: str
    bug: str
    arch: str
    suite: str
    name: str
    kind: str
    state: str
    number: int
    limit: int
    words: tuple[str, ...]
    kernel: tuple[str, str]
    initrd: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """Path and digest of each file that is deployed, by LAVA's label."""
        return {"kernel": self.kernel} | ({"initrd": self.initrd} if self.initrd else {})


class _Way(verify.Way):
    """Hands kernels to jobs in place of booting them."""

    def __init__(self, run: Any, arch: arches.Arch, stages: list[Stage]) -> None:
        super().__init__(run, arch)
        self.stages = stages
        self.lock = threading.Lock()
        self.kept: dict[str, tuple[str, str]] = {}

    def keep(self, file: Path, name: str) -> tuple[str, str]:
        """Copy a file into the folder, once; return its path there and its digest."""
        with self.lock:
            if name not in self.kept:
                path = self.run.evidence.folder / FOLDER / self.arch.name / name
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, path)
                self.kept[name] = (f"{self.arch.name}/{name}", _digest(path))
            return self.kept[name]

    def boot(
        self,
        identity: str,
        image: Path,
        initrd: concurrent.futures.Future[Path] | None,
        archive: Path | None,
        suite: verify.Suite,
        state: str,
        number: int,
    ) -> None:
        """Keep what one boot needs."""
        words = self.guest(image, initrd, archive, suite)[1:]
        files = {}
        for label in ("kernel", "initrd"):
            if f"-{label}" in words:
                place = words.index(f"-{label}") + 1
                file = Path(words[place])
                words[place] = f"{{{label}}}"
                # With modules in it, it is of one state.
                of_state = label == "kernel" or (archive is not None and file.parent == archive.parent)
                name = self.arch.make_target if label == "kernel" else "initramfs.cpio"
                files[label] = self.keep(file, f"{state}-{name}" if of_state else name)
        self.stages.append(
            Stage(
                f"{self.arch.name}-{state}-{suite.file}-{number}",
                identity,
                suite.path,
                suite.bug,
                self.arch.name,
                suite.label,
                suite.name,
                suite.kind,
                state,
                number,
                math.ceil(suite.limit),
                tuple(words),
                files["kernel"],
                files.get("initrd", ()),
            )
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _options(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Group QEMU's words: an option and its value."""
    found: list[tuple[str, ...]] = []
    for word in words:
        if word.startswith("-") or not found:
            found.append((word,))
        else:
            found[-1] += (word,)
    return found


def _common(stages: Sequence[Stage]) -> list[tuple[str, ...]]:
    """Return the options that all boots start with, none of them about the boot itself."""
    lists = [_options(stage.words) for stage in stages]
    found = []
    for options in zip(*lists, strict=False):
        if len(set(options)) > 1 or options[0][0] in ("-kernel", "-append", "-initrd", "-device"):
            break
        found.append(options[0])
    return found


def _line(options: Iterable[tuple[str, ...]]) -> str:
    """Join options to a line that LAVA splits again: it knows double quotes."""
    words = [word for option in options for word in option]
    for word in words:
        if re.search(r"[\"'\\\n]", word):
            raise BadInput(f"LAVA cannot take QEMU's word {word!r}")
    return " ".join(f'"{word}"' if " " in word else word for word in words)


def _value(options: Iterable[tuple[str, ...]], name: str, default: str) -> str:
    return next((option[1] for option in options if option[0] == name and len(option) > 1), default)


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SCRIPTS / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # What JSON takes for a string, YAML does, too.
    environment.filters["quoted"] = lambda value: json.dumps(str(value), ensure_ascii=False)
    return environment


@dataclass(frozen=True)
class Options:
    """How a farm is told to run the jobs.

    Attributes:
        url: where the folder ``lava`` is served; by default the folder itself, for workers that have it mounted.
        device_type: the farm's name for its QEMU devices.
        stretch: by how much time limits are stretched, as nobody here knows how busy a worker is.
    """

    url: str = ""
    device_type: str = DEVICE_TYPE
    stretch: float = 1.0

    def check(self) -> None:
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


def jobs(stages: Sequence[Stage], checkout: dict[str, Any], url: str, options: Options) -> dict[str, str]:
    """Render the files of a folder ``lava`` but for the kernels, by their paths there.

    Args:
        stages: the boots, in the order in which a job has them.
        checkout: the evidence's checkout.
        url: where the folder is served.
        options: how the farm runs the jobs.
    """
    environment = _environment()
    template = environment.get_template("lava-job.yaml.j2")
    found = {}
    for arch in dict.fromkeys(stage.arch for stage in stages):
        mine = [stage for stage in stages if stage.arch == arch]
        common = _common(mine)
        shared = [_line([option]) for option in common]
        known = arches.load(arch)
        own = _options(known.params.extra_qemu_params)
        found[f"device-{arch}.yaml"] = environment.get_template("lava-device.yaml.j2").render(
            arch=arch, command=known.qemu, options=shared, file=f"device-{arch}.yaml"
        )
        for bug, state in dict.fromkeys((stage.bug, stage.state) for stage in mine):
            name = f"{bug}-{arch}-{state}"
            boots = [
                {
                    "place": stage.place,
                    "suite": stage.suite,
                    "name": re.sub(r"[^-\w.]", ".", stage.name),
                    "number": stage.number,
                    "limit": math.ceil(stage.limit * options.stretch),
                    "images": [
                        {
                            "label": label,
                            "argument": _argument(stage, label, len(common)),
                            "url": f"{url.rstrip('/')}/{path}",
                            "sha256": digest,
                        }
                        for label, (path, digest) in stage.files.items()
                    ],
                }
                for stage in mine
                if (stage.bug, stage.state) == (bug, state)
            ]
            found[f"jobs/{name}.yaml"] = template.render(
                title=f"{checkout['comment']}: {bug} on {arch}, {state}",
                name=f"kmend-{name}",
                device_type=options.device_type,
                arch=arch,
                # For the farm's own -machine and -cpu: ours come later on QEMU's command line.
                machine=_value(own, "-machine", "virt"),
                cpu=_value(own, "-cpu", "max"),
                options=shared,
                deploy=DEPLOY,
                checkout=checkout["id"],
                bug=bug,
                state=state,
                boots=boots,
                end=END,
                pattern=PATTERN,
            )
    dictionary = (SCRIPTS / "templates/lava-dictionary.jinja2").read_text(encoding="utf-8")
    names = "".join(f"- {name}\n" for name in arches.names())
    found["kmend-qemu.jinja2"] = dictionary.replace("- ARCHITECTURE\n", names)
    return found


def _argument(stage: Stage, label: str, shared: int) -> str:
    own = _options(stage.words)[shared:]
    if label == "kernel":
        return _line(option for option in own if option[0] != "-initrd")
    return _line(option for option in own if option[0] == f"-{label}")


def write(request: verify.Request, options: Options, display: Display) -> tuple[Evidence, list[Path]]:
    """Build what was asked for, and write it down for a farm.

    Returns:
        Evidence of the builds, which waits for the boots, and the job definitions.

    Raises:
        BadInput: the request cannot be met; says why.
        Infrastructure: the host lacks something; says what.
    """
    options.check()
    stages: list[Stage] = []
    found, _ = verify.verify(request, display, lambda run, arch: _Way(run, arch, stages))
    rows = [(row["bug"], row["arch"], row["suite"]) for row in found.checkout["misc"]["plan"]]
    stages.sort(key=lambda stage: (rows.index((stage.bug, stage.arch, stage.suite)), stage.state, stage.number))
    folder = found.folder / FOLDER
    url = options.url or folder.resolve().as_uri()
    paths = []
    for name, text in jobs(stages, found.checkout, url, options).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if name.startswith("jobs/"):
            paths.append(path)
    found.checkout["misc"]["lava"] = [asdict(stage) for stage in stages]
    found.seal()
    return found, paths


@dataclass
class Run:
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
class Log:
    """A job's log.

    Attributes:
        path: the file.
        runs: the boots.
        error: why the job did not come to a good end, or empty.
    """

    path: Path
    runs: tuple[Run, ...]
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


def read(path: Path) -> Log | None:
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


def _read(path: Path) -> Log | None:
    runs: list[Run] = []
    digests: dict[str, dict[str, str]] = {}
    job: dict[str, Any] | None = None
    some = False
    for record in _records(path):
        some = True
        level, said = record["lvl"], record.get("msg")
        if level == "results" and isinstance(said, dict):
            if said.get("definition") != "lava":
                continue
            place, case = str(said.get("namespace", "")), said.get("case")
            extra = said.get("extra")
            label, digest = (extra.get("label"), extra.get("sha256sum")) if isinstance(extra, dict) else ("", "")
            if case == "job":
                job = said
            elif label and digest:
                digests.setdefault(place, {})[str(label)] = str(digest)
            elif case == "execute-qemu" and runs:
                runs[-1].place = place
                runs[-1].digests = digests.get(place, {})
            elif case == "lava-test-monitor" and runs and runs[-1].place == place:
                runs[-1].over, runs[-1].failed = True, said.get("result") != "pass"
        elif level == "info" and isinstance(said, str) and said.startswith("Boot command: "):
            runs.append(Run(command=said.removeprefix("Boot command: "), start=_time(record)))
        elif level == "target" and isinstance(said, str) and runs and not runs[-1].over:
            _print(runs[-1], said, _time(record))
    if not some:
        return None
    if job is None:
        return Log(path, tuple(runs), "its log is cut off")
    error = "" if job.get("result") == "pass" else " ".join(str(job.get("error_msg") or "LAVA says no reason").split())
    return Log(path, tuple(runs), error[:300])


def _print(run: Run, line: str, when: datetime.datetime | None) -> None:
    # LAVA puts a backslash before each double quote.
    data = line.replace('\\"', '"').encode(errors="replace") + b"\n"
    run.flood = run.flood or len(run.console) + len(data) > CONSOLE_LIMIT
    if not run.flood:
        run.console += data
    run.last = when or run.last
    if line.lstrip().startswith(("ok ", "not ok ")):
        run.ktap = when


def _logs(places: Sequence[Path]) -> list[Log]:
    """Read the logs named, and all that are in the folders named."""
    found = []
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*.*") if path.suffix in _SUFFIXES and path.is_file())
            logs = [log for log in map(read, inside) if log]
            if not logs:
                raise BadInput(f"{place} has no log of a job of kmend (files *.yaml, *.yml and *.log were looked at)")
            found += logs
        else:
            log = read(place)
            if not log:
                raise BadInput(
                    f"{place} is no log of a LAVA job: take what 'lavacli jobs logs --raw' or lava-run writes"
                )
            found.append(log)
    return found


def _ran(command: str, words: Sequence[str]) -> bool:
    """Tell whether a command has all the words asked for, in their order, among those of the farm's own."""
    try:
        have = shlex.split(command)
    except ValueError:
        return False
    rest = iter(have)
    # A job has the initramfs last.
    options = sorted(_options(words), key=lambda option: option[0] == "-initrd")
    wanted = [word for option in options for word in option]
    return all(any(word == other or word in ("{kernel}", "{initrd}") for other in rest) for word in wanted)


def _boot(run: Run, log: Log, console: Path) -> Boot:
    console.write_bytes(run.console)
    lines = run.console.decode(errors="replace").split("\n")
    if run.flood:
        end = End.FLOOD
    elif ktap.ended(lines):
        end = End.EXIT
    elif run.failed and "timed out" in log.error:
        end = End.TIMEOUT
    else:
        end = End.CUT

    def after(when: datetime.datetime | None) -> float | None:
        return max((when - run.start).total_seconds(), 0.0) if when and run.start else None

    # What the console's end does not show LAVA does not tell: QEMU's exit code.
    return Boot(end, None, console, "", after(run.last) or 0.0, after(run.ktap), run.command)


def _verdict(boot: Boot, stage: Stage, log: Log, parse: Parser) -> Result:
    result = ktap.judge(boot, stage.name, parse)
    if log.error and result.verdict in (Verdict.PASS, Verdict.SKIP):
        return replace(result, verdict=Verdict.ERROR, reason=f"the job failed after that: {log.error}")
    return result


def _stages(found: Evidence) -> dict[str, Stage]:
    rows = found.checkout["misc"].get("lava")
    if rows is None:
        raise BadInput(f"{found.folder} waits for no results of LAVA: it is not from kmend lava")
    stages = [Stage(**row | {key: tuple(row[key]) for key in ("words", "kernel", "initrd")}) for row in rows]
    return {stage.place: stage for stage in stages}


def take(found: Evidence, places: Sequence[Path], say: Callable[[str], None]) -> Evidence:
    """Take the results of a farm's jobs into the evidence that waits for them, in place of earlier ones of these boots.

    Args:
        found: what `write` left.
        places: logs of jobs, and folders with such.
        say: takes one line at a time of what is amiss.

    Raises:
        BadInput: the evidence is not as it was left, or a file is not a log of its jobs; nothing is changed then.
    """
    stages = _stages(found)
    if found.distrust:
        raise BadInput(f"{found.folder}: {found.distrust}: LAVA's results are not taken into it")
    if not os.access(found.folder, os.W_OK):
        raise BadInput(f"{found.folder} cannot be written to")
    logs = _logs(places)
    taken: dict[str, tuple[Run, Log]] = {}
    for log in logs:
        for run in log.runs:
            stage = stages.get(run.place)
            if not run.place:
                # LAVA never said which boot it was: QEMU did not start, or the log ends there.
                continue
            if not stage:
                raise BadInput(f"{log.path}: boot '{run.place[:100]}' is not of {found.folder}")
            if run.place in taken:
                raise BadInput(f"boot {run.place} is in {taken[run.place][1].path} and in {log.path}: give one of them")
            for label, (path, digest) in stage.files.items():
                if run.digests.get(label) != digest:
                    raise BadInput(f"{log.path}: {run.place} booted another {label} than {FOLDER}/{path}")
            if not _ran(run.command, stage.words):
                raise BadInput(f"{log.path}: {run.place} was booted with other words than its job has")
            taken[run.place] = (run, log)
    if not taken:
        failed = [f"{log.path}: the job failed: {log.error}" for log in logs if log.error]
        raise BadInput(f"no boot of {found.folder} is in these logs: {'; '.join(failed) or 'nothing is changed'}")
    default = source.base_workspace(bases.DEFAULT)
    parse = ktap.parser_for(source.fetch_base(default, say).path)
    earlier = {test["log_url"]: test for test in found.tests}
    with tempfile.TemporaryDirectory(prefix="kmend-") as folder:
        # Judged beside the evidence, which is changed at once in the end.
        new = Evidence(Path(folder), found.checkout, found.builds)
        for place, stage in stages.items():
            name = f"{stage.arch}/{place.removeprefix(stage.arch + '-')}.log"
            if place not in taken:
                if name in earlier:
                    new.tests.append(earlier[name])
                else:
                    say(f"{place}: no result")
                continue
            run, log = taken[place]
            console = new.folder / name
            console.parent.mkdir(exist_ok=True)
            boot = _boot(run, log, console)
            start = run.start.isoformat(timespec="seconds") if run.start else evidence.now()
            new.add_test(
                stage.build,
                stage.path,
                stage.number,
                start,
                boot,
                _verdict(boot, stage, log, parse),
                bug=stage.bug,
                arch=stage.arch,
                suite=stage.suite,
                kind=stage.kind,
                state=stage.state,
            )
        consoles = {found.folder / path.relative_to(folder): path.read_bytes() for path in Path(folder).glob("*/*.log")}
    for log in logs:
        if log.error:
            say(f"{log.path}: the job failed: {log.error}")
    for below in {path.parent for path in consoles}:
        if below.is_symlink():
            raise BadInput(f"{below} is a link: nothing is written through it")
        below.mkdir(exist_ok=True)
    with proc.held_signals():
        files.write(consoles)
        found.tests = new.tests
        found.seal()
    return found
