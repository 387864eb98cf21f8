# SPDX-License-Identifier: GPL-2.0-only
"""Jobs for a LAVA farm, and what comes back from it: a job boots what verify boots, and its log is judged alike."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import parser_tree, planned
from kmendlib import cli
from kmendlib.host.errors import BadInput, ExitCode
from kmendlib.host.files import digest
from kmendlib.proof import guest, ktap, lava
from kmendlib.proof.evidence import Evidence
from kmendlib.proof.verify import Kernel
from kmendlib.run import STATES, Boot, Build, End, Ending, Run
from kmendlib.tree import arches, manifest

LOGS = Path(__file__).with_name("logs")
BUG = manifest.load().bug("pci-cfg-wait")
PROOF = "pci_cfg_wait_test_queue_still_while_locked"
SHA = {"kernel": "ab" * 32, "initrd": "cd" * 32}


def write(tmp_path: Path, arch: str, bugs: Sequence[manifest.Bug]) -> tuple[Run, dict[str, list[str]]]:
    """Hand files to a farm as a run does; return the run and, by the boots' names, the commands that verify runs."""
    shelf = lava._Shelf()
    commands = {}
    initrd: concurrent.futures.Future[Path] = concurrent.futures.Future()
    initrd.set_result(tmp_path / arch / "initramfs.cpio")
    (tmp_path / arch).mkdir()
    initrd.result().write_text("programs", encoding="utf-8")
    bench: Any = SimpleNamespace(evidence=SimpleNamespace(folder=tmp_path / "out"))
    todo = planned(bugs, [arch])
    (target,) = todo.targets
    for state in STATES:
        image = tmp_path / arch / f"{target.arch.make_target}-{state}"
        image.write_text(f"kernel {state}", encoding="utf-8")
        archive = tmp_path / f"modules-{state}" / "initramfs.cpio"
        archive.parent.mkdir()
        archive.write_text(f"programs and modules {state}", encoding="utf-8")
        order = tuple(f"{name}.ko" for name in target.modules)
        kernel = Kernel(f"kmend:1-{arch}-{state}", image, initrd, archive, order)
        for boot in target.boots:
            if boot.state == state:
                ready = replace(boot, guest=kernel.guest(boot.guest))
                shelf(bench, ready, kernel.id)
                # LAVA reads a console without times.
                words = guest.command(replace(ready.guest, timed=None))
                commands[boot.place] = [word.removesuffix(f" {' '.join(guest.WORDS)}") for word in words]
    assert len(commands) == len(target.boots)
    title = "linux-6.12.y (6.12.117)"
    return Run("kmend:1", title, todo.rows, waiting=tuple(shelf.boots), files=shelf.files), commands


def render(run: Run, url: str = "http://farm/kmend") -> dict[str, str]:
    return lava.jobs(run, url, lava.Farm())


def by_option(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Group words by option, the initramfs last: its place on the command line says nothing."""
    found: list[tuple[str, ...]] = []
    for word in words:
        if word.startswith("-") or not found:
            found.append((word,))
        else:
            found[-1] += (word,)
    return sorted(found, key=lambda option: option[0] == "-initrd")


@pytest.mark.parametrize("arch", arches.names())
def test_job_boots_what_verify_boots(arch: str, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    run, commands = write(tmp_path, arch, manifest.load().bugs)
    files = render(run)
    assert f"\n- {arch}\n" in files["kmend-qemu.jinja2"]
    device = yaml.safe_load(files[f"device-{arch}.yaml"])["actions"]["boot"]["methods"]["qemu"]["parameters"]
    seen = set()
    for name, text in files.items():
        if not name.startswith("jobs/"):
            continue
        job = yaml.safe_load(text)
        assert job["context"]["extra_options"] == device["extra"]
        bug, state = job["metadata"]["kmend-bug"], job["metadata"]["kmend-state"]
        assert name == f"jobs/{bug}-{arch}-{state}.yaml"
        boots = {boot.place: boot for boot in run.waiting}
        for deploy, boot, test in zip(*[iter(job["actions"])] * 3, strict=True):
            place = deploy["deploy"]["namespace"]
            assert place == boot["boot"]["namespace"] == test["test"]["namespace"]
            assert (boots[place].row.bug, boots[place].state) == (bug, state)
            assert test["test"]["timeout"]["seconds"] == boots[place].guest.limit
            line = [device["command"], *device["extra"]]
            for label, image in deploy["deploy"]["images"].items():
                assert image["url"].startswith(f"http://farm/kmend/{arch}/")
                file = tmp_path / "out/lava" / image["url"].removeprefix("http://farm/kmend/")
                assert digest(file) == image["sha256sum"]
                line.append(image["image_arg"].replace(f"{{{label}}}", f"FILE-{label}"))
            want = list(commands[place])
            for label, image in deploy["deploy"]["images"].items():
                assert digest(Path(want[want.index(f"-{label}") + 1])) == image["sha256sum"]
                want[want.index(f"-{label}") + 1] = f"FILE-{label}"
            assert by_option(shlex.split(" ".join(line))) == by_option(want)
            seen.add(place)
    assert seen == set(commands) and len(seen) == len(run.waiting)
    names = {name for name in files if name.startswith("jobs/")}
    assert names == {f"jobs/{boot.row.bug}-{arch}-{boot.state}.yaml" for boot in run.waiting}


@pytest.mark.parametrize("arch", arches.names())
def test_jobs_are_valid_by_lavas_schema(arch: str, tmp_path: Path) -> None:
    schemas = pytest.importorskip("lava_common.schemas")
    device = pytest.importorskip("lava_common.schemas.device")
    import yaml
    from voluptuous import Invalid

    run, _ = write(tmp_path, arch, manifest.load().bugs)
    files = render(run)
    device.validate(yaml.safe_load(files[f"device-{arch}.yaml"]))
    jobs = [yaml.safe_load(text) for name, text in files.items() if name.startswith("jobs/")]
    for job in jobs:
        schemas.validate(job)
    # It does find what is wrong.
    for wrong in (lambda job: job.pop("timeouts"), lambda job: job["context"].update(kernel="x")):
        job = json.loads(json.dumps(jobs[0]))
        wrong(job)
        with pytest.raises(Invalid):
            schemas.validate(job)


def test_farm_sees_each_case() -> None:
    """The expression that LAVA looks for in the console, as it looks: up to the first line that is whole."""
    text = (
        "TAP version 14\r\n1..4\r\n    ok 1 first\r\n    not ok 2 - second\r\n    ok 3 third # SKIP two CPUs\r\n"
        "    # ok 9 quoted\r\nok 1 - pci:cfg_reset # SKIP\r\nok 2 cut"
    )
    words = {"ok": "pass", "not ok": "fail", "o": "skip"}
    found = [(match["test_case_id"], words[match["result"]]) for match in re.finditer(lava.PATTERN, text, re.DOTALL)]
    assert found == [("first", "pass"), ("second", "fail"), ("third", "skip"), ("pci:cfg_reset", "skip")]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("reboot: Power down\r\n", True),
        ("reboot: Power down\r", False),
        ("Kernel panic - not syncing: Fatal exception\r\n", True),
        ("Kernel panic - not sync", False),
        ("rebooting\r\n", False),
    ],
)
def test_job_ends_with_the_whole_last_line(text: str, ends: bool) -> None:
    assert bool(re.search(lava.END, text, re.DOTALL)) == ends
    if ends:
        assert ktap.ended(text.replace("\r", "").split("\n"))


def test_limits_are_stretched_for_busy_workers() -> None:
    yaml = pytest.importorskip("yaml")
    files = lava.jobs(RUN, "http://farm", lava.Farm(stretch=2.5))
    job = yaml.safe_load(files[f"jobs/{BUG.id}-{ARCH}-after.yaml"])
    assert job["actions"][2]["test"]["timeout"]["seconds"] == job["timeouts"]["connection"]["seconds"] == 300
    assert job["timeouts"]["job"]["seconds"] > 300 + lava.DEPLOY


def test_word_that_lava_cannot_quote() -> None:
    with pytest.raises(BadInput, match="LAVA cannot take QEMU's word"):
        lava._line(["-append", 'a="b c"'])


@pytest.mark.parametrize("arch", arches.names())
def test_command_of_a_log_is_known_again(arch: str, tmp_path: Path) -> None:
    """LAVA's command has words of the farm's own in front; one without any of ours is another."""
    run, _ = write(tmp_path, arch, [BUG])
    for boot in run.waiting:
        line = " ".join(lava._line(words) for words in lava._words(boot).values())
        command = "/usr/bin/qemu-system-x -net nic -m 512 " + line.replace("{kernel}", "/k").replace("{initrd}", "/i")
        assert lava._ran(command, boot)
        for word in shlex.split(line):
            if word not in ("{kernel}", "{initrd}", "-smp", "2", "virt"):
                other = shlex.join(each for each in shlex.split(command) if each != word)
                assert not lava._ran(other, boot), word


# What comes back.


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> ktap.Parser:
    newest = parser_tree()
    monkeypatch.setattr(lava.source, "fetch_base", lambda *ignored: SimpleNamespace(path=newest))
    return ktap.parser_for(newest)


ARCH = "x86_64"


def a_run() -> Run:
    """A run of a KUnit suite, before and after, that waits for a farm."""
    todo = planned([replace(BUG, selftests=())], [ARCH])
    boots = []
    for boot in todo.targets[0].boots:
        boots.append(replace(boot, guest=replace(boot.guest, kernel=Path(ARCH, f"bzImage-{boot.state}"))))
    builds = tuple(Build(f"kmend:1-{ARCH}-{state}", ARCH) for state in STATES)
    files = {str(boot.guest.kernel): SHA["kernel"] for boot in boots}
    return Run("kmend:1", "linux", todo.rows, builds, waiting=tuple(boots), files=files)


RUN = a_run()
BOOTS = RUN.waiting


@pytest.fixture
def waiting(tmp_path: Path) -> Evidence:
    """Evidence as `kmend lava` leaves it."""
    folder = tmp_path / "evidence"
    (folder / ARCH).mkdir(parents=True)
    found = Evidence(folder, RUN)
    found.add_audit({"tree": "linux", "version": "6.12.117", "bugs": []}, tmp_path)
    found.seal()
    return Evidence.open(folder)


def record(level: str, message: object, second: float = 0.0) -> str:
    stamp = f"2026-11-21T20:40:{second:09.6f}"
    return json.dumps({"dt": stamp, "lvl": level, "msg": message}, ensure_ascii=False)


def action(case: str, place: str, result: str = "pass", **extra: str) -> dict[str, Any]:
    return {"case": case, "definition": "lava", "namespace": place, "result": result, "extra": extra}


def one_boot(boot: Boot, console: str, monitor: str = "pass", **change: Any) -> list[str]:
    """Return what a log has of a boot."""
    lines = []
    for label in lava._images(boot):
        digest = change.get("digest", SHA[label])
        lines.append(record("results", action("file-download", boot.place, label=label, sha256sum=digest)))
    words = [word for words in lava._words(boot).values() for word in words]
    words = [word.replace("{kernel}", "/var/tmp/bzImage").replace(*change.get("words", ("", ""))) for word in words]
    line = " ".join(f'"{word}"' if " " in word else word for word in words)
    lines.append(record("info", f"Boot command: /usr/bin/qemu-system-x86_64 -monitor none {line}", 1))
    lines.append(record("results", action("execute-qemu", change.get("place", boot.place)), 1))
    texts = console.replace("\r", "").replace('"', '\\"').rstrip("\n").split("\n")
    lines += [record("target", text, 2 + number / len(texts)) for number, text in enumerate(texts)]
    return [*lines, record("results", action("lava-test-monitor", boot.place, monitor), 4)]


def end(result: str = "pass", **said: str) -> str:
    return record("results", {"case": "job", "definition": "lava", "result": result, **said}, 5)


def console(name: str) -> str:
    text = (LOGS / f"{name}.log").read_bytes().decode()
    return text if ktap.ended(text.replace("\r", "").split("\n")) else text + "reboot: Power down\n"


RED, GREEN = "kunit_fail", "kunit_pass"


def job(folder: Path, boot: Boot, name: str, dash: bool = False) -> Path:
    path = folder / f"{boot.state}.yaml"
    lines = [record("info", "lava-dispatcher, installed at version: 2023.01"), *one_boot(boot, console(name)), end()]
    path.write_text("".join(f"{'- ' if dash else ''}{line}\n" for line in lines), encoding="utf-8")
    return path


def written(path: Path, *lines: str) -> Path:
    """Write a log."""
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def take(waiting: Evidence, *places: Path) -> Evidence:
    said: list[str] = []
    lava.take(waiting, places, said.append)
    found = Evidence.open(waiting.folder)
    assert not found.run.distrust
    return found


@pytest.mark.parametrize("dash", [False, True], ids=["as lava-run writes it", "as a server has it"])
def test_good_jobs_are_a_proof(waiting: Evidence, tmp_path: Path, parse: ktap.Parser, dash: bool) -> None:
    before, after = job(tmp_path, BOOTS[0], RED, dash), job(tmp_path, BOOTS[1], GREEN, dash)
    assert waiting.run.exit_code() == ExitCode.FAILED
    found = take(waiting, before, after)
    assert found.run.exit_code() == ExitCode.OK and [proof.outcome for proof in found.run.proofs] == ["PROVED"]
    for boot, result in zip(BOOTS, found.run.results, strict=True):
        ending = result.ending
        log = found.folder / ending.console
        assert log == found.folder / ARCH / f"{boot.state}-pci_cfg_wait-1.log"
        same = ktap.judge(Ending(End.EXIT, log, 1.0), boot.test, parse)
        assert (result.verdict, result.judged.cases) == (same.verdict, same.cases)
        assert ending.command.startswith("/usr/bin/qemu-system-x86_64 -monitor none -nodefaults")
        assert ending.ktap_seconds and 1 < ending.ktap_seconds <= ending.seconds < 3
        assert result.start == "2026-11-21T20:40:01+00:00"
    # Once more, in a folder, with what else lies there: the same.
    (tmp_path / "logs").mkdir()
    for path in (before, after):
        shutil.move(path, tmp_path / "logs")
    (tmp_path / "logs/result.yaml").write_text("case: job\nresult: pass\n", encoding="utf-8")
    assert take(found, tmp_path / "logs").run.exit_code() == ExitCode.OK


def test_logs_of_some_boots_leave_the_others_as_they_are(
    waiting: Evidence, tmp_path: Path, parse: ktap.Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = job(tmp_path, BOOTS[0], RED), job(tmp_path, BOOTS[1], GREEN)
    first = take(waiting, before, after).run
    assert take(waiting, after).run.results == first.results
    # A job that failed before QEMU was started has none of the boots.
    none = written(tmp_path / "none.yaml", *one_boot(BOOTS[0], console(RED))[:1], end("fail", error_msg="no disk left"))
    assert "no boot of" in refused(["report", str(waiting.folder), "--lava", str(none)], capsys)
    assert Evidence.open(waiting.folder).run.results == first.results


@pytest.mark.parametrize("place", ["_judge", "_ending"])
def test_stopped_while_logs_are_taken(
    place: str, waiting: Evidence, tmp_path: Path, parse: ktap.Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in waiting.folder.rglob("*") if path.is_file()}

    logs = job(tmp_path, BOOTS[0], RED), job(tmp_path, BOOTS[1], GREEN)
    found = take(waiting, *logs)
    kept, calls, real = files(), [], getattr(lava, place)

    def stopped(*words: object) -> object:
        calls.append(place)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*words)

    monkeypatch.setattr(lava, place, stopped)
    with pytest.raises(KeyboardInterrupt):
        take(found, *logs)
    assert files() == kept and Evidence.open(waiting.folder).run.exit_code() == ExitCode.OK


def test_missing_job_is_no_pass(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    job(tmp_path, BOOTS[1], GREEN)
    said: list[str] = []
    found = lava.take(waiting, [tmp_path / "after.yaml"], said.append)
    assert found.run.exit_code() == ExitCode.FAILED and said == [f"{BOOTS[0].place}: no result"]
    assert [proof.outcome for proof in found.run.proofs] == ["NOT PROVED"]


@pytest.mark.parametrize(
    ("cut", "verdict"),
    [
        # In the middle of the console; before the job's own result; before the power-off.
        (lambda lines: lines[: len(lines) // 2], "MISS"),
        (lambda lines: lines[:-1], "ERROR"),
        (lambda lines: [line for line in lines if "Power down" not in line], "MISS"),
        (lambda lines: [*lines[: len(lines) // 2], lines[len(lines) // 2][:20]], "MISS"),
    ],
)
def test_log_that_is_cut_off_is_no_pass(
    cut: Callable[[list[str]], list[str]], verdict: str, waiting: Evidence, tmp_path: Path, parse: ktap.Parser
) -> None:
    before, after = job(tmp_path, BOOTS[0], RED), job(tmp_path, BOOTS[1], GREEN)
    after.write_text("\n".join(cut(after.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    found = take(waiting, before, after)
    assert [result.verdict for result in found.run.results] == ["FAIL", verdict]
    assert "cut off" in found.run.results[1].judged.reason
    assert found.run.exit_code() in (ExitCode.FAILED, ExitCode.INFRASTRUCTURE)


@pytest.mark.parametrize(
    ("name", "says", "verdict", "code"),
    [
        # The job failed, but all cases had passed.
        (GREEN, "Infrastructure error", "ERROR", ExitCode.INFRASTRUCTURE),
        ("kunit_all_skipped", "canceled", "ERROR", ExitCode.INFRASTRUCTURE),
        ("kunit_oops", "", "PANIC", ExitCode.PANIC),
        ("kselftest_pass", "", "MISS", ExitCode.FAILED),
    ],
)
def test_failed_job_is_no_pass(
    name: str, says: str, verdict: str, code: ExitCode, waiting: Evidence, tmp_path: Path, parse: ktap.Parser
) -> None:
    last = end("fail", error_msg=says) if says else end()
    after = written(tmp_path / "after.yaml", *one_boot(BOOTS[1], console(name)), last)
    found = take(waiting, job(tmp_path, BOOTS[0], RED), after)
    result = found.run.results[1]
    assert result.verdict == verdict and says in result.judged.reason
    assert found.run.exit_code() == code


def test_guest_that_hangs_is_a_time_out(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    lines = one_boot(BOOTS[1], (LOGS / "kunit_cut_off.log").read_bytes().decode(), "fail")
    last = end("fail", error_msg="lava-test-monitor timed out after 120 seconds")
    after = written(tmp_path / "after.yaml", *lines, last)
    found = take(waiting, job(tmp_path, BOOTS[0], RED), after)
    assert found.run.results[1].verdict == "TIMEOUT" and found.run.exit_code() == ExitCode.TIMEOUT


def test_job_whose_files_could_not_be_had(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    last = end("fail", error_msg="404 Not Found")
    after = written(tmp_path / "after.yaml", record("info", "start: 0 validate"), last)
    said: list[str] = []
    found = lava.take(waiting, [job(tmp_path, BOOTS[0], RED), after], said.append)
    assert said == [f"{BOOTS[1].place}: no result", f"{after}: the job failed: 404 Not Found"]
    assert found.run.exit_code() == ExitCode.FAILED


HOSTILE = [
    # A guest prints what LAVA would: a job's good end, another boot, results of its own.
    end(),
    "- " + end(),
    record("info", "Boot command: /usr/bin/qemu-system-x86_64"),
    record("results", action("execute-qemu", BOOTS[1].place)),
    'msg: "!!python/object/apply:os.system [touch /tmp/kmend-was-here]"',
    "&a [*a, *a]",
    '\x1b]0;title\x07\x1b[2J\x00\x7f\x9b31m <script>alert(1)</script> ‮ \\" \\',
]


def test_hostile_console_says_nothing_for_lava(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    """What a guest prints is text; the job's log has no end of its own here."""
    text = "\n".join(["Linux version 6", *HOSTILE, "ok 1 - pci_cfg_wait"])
    found = take(waiting, written(tmp_path / "before.yaml", *one_boot(BOOTS[0], text)))
    (result,) = found.run.results
    assert result.verdict == "MISS" and found.run.exit_code() == ExitCode.FAILED
    kept = (found.folder / result.ending.console).read_text(encoding="utf-8")
    assert end() in kept and not Path("/tmp/kmend-was-here").exists()
    cli.main(["report", str(found.folder)])
    assert "<script>alert" not in (found.folder / "report.html").read_text(encoding="utf-8")


def test_case_that_is_called_as_lavas_own(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    """A guest names its cases as it likes, and the farm's monitor reports them."""
    forged = {"case": "job", "definition": "pci_cfg_wait", "result": "pass", "extra": {"test_case_id": "job"}}
    lines = [*one_boot(BOOTS[1], console(GREEN)), record("results", forged)]
    found = take(waiting, written(tmp_path / "after.yaml", *lines))
    assert found.run.results[0].verdict == "ERROR" and "cut off" in found.run.results[0].judged.reason


def test_flood(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    flood = console(GREEN) + ("x" * 1000 + "\n") * (20 << 10) + "after the flood\n"
    found = take(waiting, written(tmp_path / "after.yaml", *one_boot(BOOTS[1], flood), end()))
    assert found.run.results[0].verdict == "MISS" and "flooded" in found.run.results[0].judged.reason
    kept = (found.folder / found.run.results[0].ending.console).read_text(encoding="utf-8")
    assert len(kept) <= guest.CONSOLE_LIMIT and "after the flood" not in kept


def test_records_of_yaml_and_rubbish(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "log.yaml"
    deep = '{"a":' * 100000
    steps = zip("bcdefghij", ["x", *map("*{}".format, "bcdefghi")], strict=True)
    bomb = ", ".join(f"&{new} [{', '.join([old] * 9)}]" for new, old in steps)
    lines = [
        '- {"dt": "2026-11-21T20:40:00", "lvl": "info", "msg": "Boot command: \\x71emu"}',
        '- {"dt": "2026-11-21T20:40:01", "lvl": "target", "msg": "a\\_b \\u2028 \\e"}',
        '- {"lvl": "target", "msg": !!python/object/apply:os.system ["true"]}',
        "- {lvl: target",
        f"- {deep}",
        f'- {{"dt": [{bomb}], "lvl": "target", "msg": "a bomb"}}',
        "Traceback (most recent call last):",
        "[1, 2]",
        "\x00\xff",
    ]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    log = lava.read(path)
    assert log and [boot.command for boot in log.boots] == ["qemu"]
    assert log.boots[0].console.decode() == "a\xa0b \u2028 \x1b\n"
    assert log.error == "its log is cut off"


def test_log_of_lava_run(parse: ktap.Parser, tmp_path: Path) -> None:
    """A log that lava-run 2023.01 wrote of a real boot; the lines about its own progress are taken out."""
    pytest.importorskip("yaml")
    log = lava.read(LOGS / "lava_run.yaml")
    assert log and not log.error
    (logged,) = log.boots
    assert logged.place == "loongarch64-before-pci_cfg_wait-1" and not logged.failed
    assert set(logged.digests) == {"kernel"}
    ending = lava._ending(logged, log, tmp_path / "console")
    assert (ending.end, round(ending.seconds)) == (End.EXIT, 9) and ending.ktap_seconds
    result = ktap.judge(ending, "pci_cfg_wait", parse)
    assert result.verdict == "FAIL" and result.cases[PROOF] == "FAIL"
    todo = planned([replace(BUG, selftests=())], ["loongarch64"])
    assert lava._ran(logged.command, todo.targets[0].boots[0])


def change_text(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("kmend: error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda e, t: t / "none.yaml", "cannot read"),
        (lambda e, t: t, "has no log of a job of kmend"),
        (lambda e, t: t / "text.yaml", "is no log of a LAVA job"),
        (lambda e, t: t / "fifo.yaml", "is no file"),
        (lambda e, t: Path("/dev/zero"), "is no file"),
        (lambda e, t: t / "digest.yaml", f"{BOOTS[0].place} booted another kernel than lava/x86_64/bzImage-before"),
        (lambda e, t: t / "words.yaml", "was booted with other words than its job has"),
        (lambda e, t: t / "place.yaml", "boot 'arm64-before-x-1' is not of"),
        (lambda e, t: t / "twice.yaml", "give one of them"),
    ],
)
def test_log_that_cannot_be_taken(
    spoil: Callable[[Path, Path], Path],
    says: str,
    waiting: Evidence,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "text.yaml").write_text("all: well\n", encoding="utf-8")
    os.mkfifo(folder / "fifo.yaml")
    place = spoil(waiting.folder, folder)
    text = console(RED)
    first = BOOTS[0]
    made = {
        "digest": one_boot(first, text, digest="00" * 32),
        "words": one_boot(first, text, words=("pci_cfg_wait", "none")),
        "place": one_boot(first, text, place="arm64-before-x-1"),
        "twice": one_boot(first, text) * 2,
    }.get(place.stem)
    if made:
        place.write_text("\n".join([*made, end()]), encoding="utf-8")
    untouched = (waiting.folder / "results.json").read_bytes()
    assert says in refused(["report", str(waiting.folder), "--lava", str(place)], capsys)
    assert (waiting.folder / "results.json").read_bytes() == untouched


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: change_text(f / "results.json", "120.0", "121.0"), "changed"),
        (lambda f: (f / "SHA256SUMS").unlink(), "unfinished"),
        (lambda f: (f / "results.json").write_text("{", encoding="utf-8"), "damaged"),
    ],
)
def test_folder_that_was_edited_takes_nothing(
    change: Callable[[Path], object], says: str, waiting: Evidence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = job(tmp_path, BOOTS[0], RED)
    change(waiting.folder)
    assert says in refused(["report", str(waiting.folder), "--lava", str(log)], capsys)


def test_name_that_leads_out_of_the_folder_is_damage(waiting: Evidence) -> None:
    path = waiting.folder / "results.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"arch": "x86_64"', '"arch": "../../../etc"'), encoding="utf-8"
    )
    with pytest.raises(BadInput, match="is damaged"):
        Evidence.open(waiting.folder)


def test_evidence_of_verify_takes_nothing(
    waiting: Evidence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting.update(waiting=())
    waiting.seal()
    log = job(tmp_path, BOOTS[0], RED)
    assert "it is not from kmend lava" in refused(["report", str(waiting.folder), "--lava", str(log)], capsys)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lava"], "--out"),
        (["lava", "--out", "x", "--url", "ftp://farm"], "give an http, https or file address"),
        (["lava", "--out", "x", "--url", "http://[farm"], "give an http, https or file address"),
        (["lava", "--out", "x", "--device-type", "a b"], "is no name of a device type"),
        (["lava", "--out", "x", "--stretch", "0.5"], "a number from 1 to 100"),
        (["lava", "--out", "x", "--stretch", "nan"], "a number from 1 to 100"),
        (["lava", "--out", "x", "--arch", "sparc"], "unknown architecture"),
        (["lava", "--out", "x", "--bug", "none"], "none"),
        (["lava", "--out", "x", "--repeat", "0"], "1 or more"),
        (["report", "a", "b", "--out", "x", "--lava", "l"], "name the one folder"),
        (["report", "/none", "--lava", "l"], "no evidence folder"),
    ],
)
def test_bad_input_gets_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(words, capsys)


def test_page_and_farms_files_are_not_sealed(waiting: Evidence, tmp_path: Path) -> None:
    """The page may be made again, and a farm's files may go."""
    (waiting.folder / "lava/x86_64").mkdir(parents=True)
    (waiting.folder / "lava/x86_64/bzImage-before").write_text("kernel", encoding="utf-8")
    (waiting.folder / "report.html").write_text("page", encoding="utf-8")
    waiting.seal()
    shutil.rmtree(waiting.folder / "lava")
    (waiting.folder / "report.html").unlink()
    assert not Evidence.open(waiting.folder).run.distrust
    shutil.rmtree(waiting.folder / ARCH)
    (waiting.folder / "audit.json").write_text("{}", encoding="utf-8")
    assert "changed since" in Evidence.open(waiting.folder).run.distrust
