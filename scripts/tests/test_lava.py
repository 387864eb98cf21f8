# SPDX-License-Identifier: GPL-2.0-only
"""Jobs for a LAVA farm, and what comes back from it: a job boots what verify boots, and its log is judged alike."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import real_trees
from kmendlib import cli
from kmendlib.host.errors import BadInput, ExitCode
from kmendlib.proof import evidence, guest, ktap, lava, verify
from kmendlib.proof.evidence import Evidence
from kmendlib.show.report import exit_code, rows
from kmendlib.tree import arches, manifest
from kmendlib.tree.tree import Tree, version_key

LOGS = Path(__file__).with_name("logs")
BUG = manifest.load().bug("pci-cfg-wait")
PROOF = "pci_cfg_wait_test_queue_still_while_locked"
SHA = {"kernel": "ab" * 32, "initrd": "cd" * 32}


def way(folder: Path, arch: str, stages: list[lava.Stage]) -> lava._Way:
    return lava._Way(SimpleNamespace(evidence=SimpleNamespace(folder=folder)), arches.load(arch), stages)


def boots(bug: manifest.Bug, arch: str) -> list[verify.Suite]:
    suites = verify.suites(bug, [finding.id for finding in bug.findings])
    return [suite for suite in suites if arch in (*suite.arches, *suite.controls)]


def write(tmp_path: Path, arch: str, bugs: Iterable[manifest.Bug]) -> tuple[list[lava.Stage], dict[str, list[str]]]:
    """Hand files to jobs as a run does; return the boots and, by their names, the commands that verify would run."""
    stages: list[lava.Stage] = []
    commands = {}
    initrd: concurrent.futures.Future[Path] = concurrent.futures.Future()
    initrd.set_result(tmp_path / "initramfs.cpio")
    (tmp_path / "initramfs.cpio").write_text("programs")
    runner = way(tmp_path / "out", arch, stages)
    for state in verify.STATES:
        image = tmp_path / f"{runner.arch.make_target}-{state}"
        image.write_text(f"kernel {state}")
        archive = tmp_path / f"modules-{state}" / "modules.cpio"
        archive.parent.mkdir()
        archive.with_name("initramfs.cpio").write_text(f"programs and modules {state}")
        for bug in bugs:
            for suite in boots(bug, arch):
                names = [*suite.needs.modules.get(arch, ()), *([suite.module] if suite.module else [])]
                (archive.parent / "order").write_text("".join(f"{name}.ko\n" for name in names))
                runner.boot("kmend:1-x", image, initrd, archive, suite, state, 1)
                commands[stages[-1].place] = runner.guest(image, initrd, archive, suite)
    return stages, commands


def render(stages: Sequence[lava.Stage], url: str = "http://farm/kmend") -> dict[str, str]:
    checkout = {"id": "kmend:1", "comment": "linux-6.12.y (6.12.117)"}
    return lava.jobs(stages, checkout, url, lava.Options())


def by_option(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Group words by option, the initramfs last: its place on the command line says nothing."""
    return sorted(lava._options(words), key=lambda option: option[0] == "-initrd")


@pytest.mark.parametrize("arch", arches.names())
def test_job_boots_what_verify_boots(arch: str, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    stages, commands = write(tmp_path, arch, manifest.load().bugs)
    files = render(stages)
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
        stage = {stage.place: stage for stage in stages}
        for deploy, boot, test in zip(*[iter(job["actions"])] * 3, strict=True):
            place = deploy["deploy"]["namespace"]
            assert place == boot["boot"]["namespace"] == test["test"]["namespace"]
            assert (stage[place].bug, stage[place].state) == (bug, state)
            assert test["test"]["timeout"]["seconds"] == stage[place].limit
            line = [device["command"], *device["extra"]]
            for label, image in deploy["deploy"]["images"].items():
                assert image["url"].startswith(f"http://farm/kmend/{arch}/")
                file = tmp_path / "out/lava" / image["url"].removeprefix("http://farm/kmend/")
                assert lava._digest(file) == image["sha256sum"]
                line.append(image["image_arg"].replace(f"{{{label}}}", f"FILE-{label}"))
            want = list(commands[place])
            for label, image in deploy["deploy"]["images"].items():
                assert lava._digest(Path(want[want.index(f"-{label}") + 1])) == image["sha256sum"]
                want[want.index(f"-{label}") + 1] = f"FILE-{label}"
            assert by_option(shlex.split(" ".join(line))) == by_option(want)
            seen.add(place)
    assert seen == set(commands) and len(seen) == len(stages)
    names = {name for name in files if name.startswith("jobs/")}
    assert names == {f"jobs/{stage.bug}-{arch}-{stage.state}.yaml" for stage in stages}


@pytest.mark.parametrize("arch", arches.names())
def test_jobs_are_valid_by_lavas_schema(arch: str, tmp_path: Path) -> None:
    schemas = pytest.importorskip("lava_common.schemas")
    device = pytest.importorskip("lava_common.schemas.device")
    import yaml
    from voluptuous import Invalid

    stages, _ = write(tmp_path, arch, manifest.load().bugs)
    files = render(stages)
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
    files = lava.jobs(STAGES, {"id": "kmend:1", "comment": "linux"}, "http://farm", lava.Options(stretch=2.5))
    job = yaml.safe_load(files[f"jobs/{BUG.id}-{ARCH}-after.yaml"])
    assert job["actions"][2]["test"]["timeout"]["seconds"] == job["timeouts"]["connection"]["seconds"] == 300
    assert job["timeouts"]["job"]["seconds"] > 300 + lava.DEPLOY


def test_word_that_lava_cannot_quote() -> None:
    with pytest.raises(BadInput, match="LAVA cannot take QEMU's word"):
        lava._line([("-append", 'a="b c"')])


@pytest.mark.parametrize("arch", arches.names())
def test_command_of_a_log_is_known_again(arch: str, tmp_path: Path) -> None:
    """LAVA's command has words of the farm's own in front; one without any of ours is another."""
    stages, _ = write(tmp_path, arch, [BUG])
    for stage in stages:
        shared = lava._common(stages)
        line = " ".join([lava._line(shared), *(lava._argument(stage, label, len(shared)) for label in stage.files)])
        command = "/usr/bin/qemu-system-x -net nic -m 512 " + line.replace("{kernel}", "/k").replace("{initrd}", "/i")
        assert lava._ran(command, stage.words)
        for word in shlex.split(line):
            if word not in ("{kernel}", "{initrd}", "-smp", "2", "virt"):
                assert not lava._ran(shlex.join(each for each in shlex.split(command) if each != word), stage.words), (
                    word
                )


# What comes back.


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> ktap.Parser:
    trees = [tree for tree in real_trees() if ktap.load_parser(tree)]
    if not trees:
        pytest.skip("no tree with a KTAP parser in KMEND_TREES")
    newest = max(trees, key=lambda tree: version_key(Tree.open(tree).version))
    found = ktap.parser_for(newest)
    monkeypatch.setattr(lava.source, "fetch_base", lambda *ignored: SimpleNamespace(path=newest))
    return found


ARCH = "x86_64"


def stage(state: str, number: int = 1) -> lava.Stage:
    (suite,) = [suite for suite in boots(BUG, ARCH) if suite.kind == "kunit"]
    words = guest.command(
        arches.load(ARCH), Path("{kernel}"), suite.words, None, suite.devices, suite.needs, suite.cpus
    )[1:]
    return lava.Stage(
        f"{ARCH}-{state}-{suite.file}-{number}", f"kmend:1-{ARCH}-{state}", suite.path, BUG.id, ARCH, suite.label,
        suite.name, suite.kind, state, number, 120, tuple(words), (f"{ARCH}/{state}-bzImage", SHA["kernel"]),
    )  # fmt: skip


STAGES = [stage("before"), stage("after")]


@pytest.fixture
def waiting(tmp_path: Path) -> Evidence:
    """Evidence as `kmend lava` leaves it."""
    folder = tmp_path / "evidence"
    (folder / ARCH).mkdir(parents=True)
    plan = {
        "bug": BUG.id, "arch": ARCH, "suite": STAGES[0].suite, "kind": "kunit", "proof": [PROOF], "boots": 1,
        "not_run": "",
    }  # fmt: skip
    checkout = {"id": "kmend:1", "origin": "kmend", "comment": "linux", "misc": {"plan": [plan]}}
    found = Evidence(folder, checkout)
    found.add_audit({"tree": "linux", "version": "6.12.117", "bugs": []}, tmp_path)
    for state in verify.STATES:
        found.add_build(ARCH, state, "PASS")
    checkout["misc"]["lava"] = [lava.asdict(stage) for stage in STAGES]
    found.seal()
    return evidence.load(folder)


def record(level: str, message: object, second: float = 0.0) -> str:
    stamp = f"2026-11-21T20:40:{second:09.6f}"
    return json.dumps({"dt": stamp, "lvl": level, "msg": message}, ensure_ascii=False)


def action(case: str, place: str, result: str = "pass", **extra: str) -> dict[str, Any]:
    return {"case": case, "definition": "lava", "namespace": place, "result": result, "extra": extra}


def one_boot(stage: lava.Stage, console: str, monitor: str = "pass", **change: Any) -> list[str]:
    """Return what a log has of a boot."""
    lines = []
    for label in stage.files:
        digest = change.get("digest", SHA[label])
        lines.append(record("results", action("file-download", stage.place, label=label, sha256sum=digest)))
    words = [word.replace("{kernel}", "/var/tmp/bzImage") for word in change.get("words", stage.words)]
    line = " ".join(f'"{word}"' if " " in word else word for word in words)
    lines.append(record("info", f"Boot command: /usr/bin/qemu-system-x86_64 -monitor none {line}", 1))
    lines.append(record("results", action("execute-qemu", change.get("place", stage.place)), 1))
    texts = console.replace("\r", "").replace('"', '\\"').rstrip("\n").split("\n")
    lines += [record("target", text, 2 + number / len(texts)) for number, text in enumerate(texts)]
    return [*lines, record("results", action("lava-test-monitor", stage.place, monitor), 4)]


def end(result: str = "pass", **said: str) -> str:
    return record("results", {"case": "job", "definition": "lava", "result": result, **said}, 5)


def console(name: str) -> str:
    text = (LOGS / f"{name}.log").read_bytes().decode()
    return text if ktap.ended(text.replace("\r", "").split("\n")) else text + "reboot: Power down\n"


RED, GREEN = "kunit_fail", "kunit_pass"


def job(folder: Path, stage: lava.Stage, name: str, dash: bool = False) -> Path:
    path = folder / f"{stage.state}.yaml"
    lines = [record("info", "lava-dispatcher, installed at version: 2023.01"), *one_boot(stage, console(name)), end()]
    path.write_text("".join(f"{'- ' if dash else ''}{line}\n" for line in lines))
    return path


def take(waiting: Evidence, *places: Path) -> Evidence:
    said: list[str] = []
    lava.take(waiting, places, said.append)
    found = evidence.load(waiting.folder)
    assert not found.distrust
    return found


@pytest.mark.parametrize("dash", [False, True], ids=["as lava-run writes it", "as a server has it"])
def test_good_jobs_are_a_proof(waiting: Evidence, tmp_path: Path, parse: ktap.Parser, dash: bool) -> None:
    before, after = job(tmp_path, STAGES[0], RED, dash), job(tmp_path, STAGES[1], GREEN, dash)
    assert exit_code(waiting) == ExitCode.FAILED
    found = take(waiting, before, after)
    assert exit_code(found) == ExitCode.OK and [row.word for row in rows(found)] == ["PROVED"]
    for stage, test in zip(STAGES, found.tests, strict=True):
        misc = test["misc"]
        log = found.folder / test["log_url"]
        assert log == found.folder / ARCH / f"{stage.state}-pci_cfg_wait-1.log"
        same = ktap.judge(guest.Boot(guest.End.EXIT, 0, log, "", 1.0, 1.0, ""), stage.name, parse)
        assert (misc["verdict"], misc["cases"]) == (str(same.verdict), same.cases)
        assert misc["command"].startswith("/usr/bin/qemu-system-x86_64 -monitor none -nodefaults")
        assert 1 < misc["ktap_seconds"] <= test["duration"] < 3
        assert test["start_time"] == "2026-11-21T20:40:01+00:00"
    # Once more, in a folder, with what else lies there: the same.
    (tmp_path / "logs").mkdir()
    for path in (before, after):
        shutil.move(path, tmp_path / "logs")
    (tmp_path / "logs/result.yaml").write_text("case: job\nresult: pass\n")
    assert exit_code(take(found, tmp_path / "logs")) == ExitCode.OK


def test_missing_job_is_no_pass(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    job(tmp_path, STAGES[1], GREEN)
    said: list[str] = []
    found = lava.take(waiting, [tmp_path / "after.yaml"], said.append)
    assert exit_code(found) == ExitCode.FAILED and said == [f"{STAGES[0].place}: no result"]
    assert [row.word for row in rows(found)] == ["NOT PROVED"]


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
    before, after = job(tmp_path, STAGES[0], RED), job(tmp_path, STAGES[1], GREEN)
    after.write_text("\n".join(cut(after.read_text().splitlines())))
    found = take(waiting, before, after)
    assert [test["misc"]["verdict"] for test in found.tests] == ["FAIL", verdict]
    assert "cut off" in found.tests[1]["misc"]["reason"]
    assert exit_code(found) in (ExitCode.FAILED, ExitCode.INFRASTRUCTURE)


@pytest.mark.parametrize(
    ("name", "monitor", "says", "verdict", "code"),
    [
        # The job failed, but all cases had passed.
        (GREEN, "pass", "Infrastructure error", "ERROR", ExitCode.INFRASTRUCTURE),
        ("kunit_all_skipped", "pass", "canceled", "ERROR", ExitCode.INFRASTRUCTURE),
        ("kunit_oops", "pass", "", "PANIC", ExitCode.PANIC),
        ("kselftest_pass", "pass", "", "MISS", ExitCode.FAILED),
    ],
)
def test_failed_job_is_no_pass(
    name: str,
    monitor: str,
    says: str,
    verdict: str,
    code: ExitCode,
    waiting: Evidence,
    tmp_path: Path,
    parse: ktap.Parser,
) -> None:
    lines = one_boot(STAGES[1], console(name), monitor)
    after = tmp_path / "after.yaml"
    after.write_text("\n".join([*lines, end("fail", error_msg=says) if says else end()]))
    found = take(waiting, job(tmp_path, STAGES[0], RED), after)
    misc = found.tests[1]["misc"]
    assert misc["verdict"] == verdict and says in misc["reason"]
    assert exit_code(found) == code


def test_guest_that_hangs_is_a_time_out(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    lines = one_boot(STAGES[1], (LOGS / "kunit_cut_off.log").read_bytes().decode(), "fail")
    after = tmp_path / "after.yaml"
    after.write_text("\n".join([*lines, end("fail", error_msg="lava-test-monitor timed out after 120 seconds")]))
    found = take(waiting, job(tmp_path, STAGES[0], RED), after)
    assert found.tests[1]["misc"]["verdict"] == "TIMEOUT" and exit_code(found) == ExitCode.TIMEOUT


def test_job_whose_files_could_not_be_had(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    after = tmp_path / "after.yaml"
    after.write_text("\n".join([record("info", "start: 0 validate"), end("fail", error_msg="404 Not Found")]))
    said: list[str] = []
    found = lava.take(waiting, [job(tmp_path, STAGES[0], RED), after], said.append)
    assert said == [f"{STAGES[1].place}: no result", f"{after}: the job failed: 404 Not Found"]
    assert exit_code(found) == ExitCode.FAILED


HOSTILE = [
    # A guest prints what LAVA would: a job's good end, another boot, results of its own.
    end(),
    "- " + end(),
    record("info", "Boot command: /usr/bin/qemu-system-x86_64"),
    record("results", action("execute-qemu", STAGES[1].place)),
    'msg: "!!python/object/apply:os.system [touch /tmp/kmend-was-here]"',
    "&a [*a, *a]",
    '\x1b]0;title\x07\x1b[2J\x00\x7f\x9b31m <script>alert(1)</script> ‮ \\" \\',
]


def test_hostile_console_says_nothing_for_lava(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    """What a guest prints is text; the job's log has no end of its own here."""
    text = "\n".join(["Linux version 6", *HOSTILE, "ok 1 - pci_cfg_wait"])
    before = tmp_path / "before.yaml"
    before.write_text("\n".join(one_boot(STAGES[0], text)))
    found = take(waiting, before)
    (test,) = found.tests
    assert test["misc"]["verdict"] == "MISS" and exit_code(found) == ExitCode.FAILED
    kept = (found.folder / test["log_url"]).read_text()
    assert end() in kept and not Path("/tmp/kmend-was-here").exists()
    cli.main(["report", str(found.folder)])
    assert "<script>alert" not in (found.folder / "report.html").read_text()


def test_case_that_is_called_as_lavas_own(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    """A guest names its cases as it likes, and the farm's monitor reports them."""
    forged = {"case": "job", "definition": "pci_cfg_wait", "result": "pass", "extra": {"test_case_id": "job"}}
    after = tmp_path / "after.yaml"
    after.write_text("\n".join([*one_boot(STAGES[1], console(GREEN)), record("results", forged)]))
    found = take(waiting, after)
    assert found.tests[0]["misc"]["verdict"] == "ERROR" and "cut off" in found.tests[0]["misc"]["reason"]


def test_flood(waiting: Evidence, tmp_path: Path, parse: ktap.Parser) -> None:
    flood = console(GREEN) + ("x" * 1000 + "\n") * (20 << 10) + "after the flood\n"
    after = tmp_path / "after.yaml"
    after.write_text("\n".join([*one_boot(STAGES[1], flood), end()]))
    found = take(waiting, after)
    assert found.tests[0]["misc"]["verdict"] == "MISS" and "flooded" in found.tests[0]["misc"]["reason"]
    kept = (found.folder / found.tests[0]["log_url"]).read_text()
    assert len(kept) <= guest.CONSOLE_LIMIT and "after the flood" not in kept


def test_records_of_yaml_and_rubbish(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "log.yaml"
    deep = '{"a":' * 100000
    lines = [
        '- {"dt": "2026-11-21T20:40:00", "lvl": "info", "msg": "Boot command: \\x71emu"}',
        '- {"dt": "2026-11-21T20:40:01", "lvl": "target", "msg": "a\\_b \\u2028 \\e"}',
        '- {"lvl": "target", "msg": !!python/object/apply:os.system ["true"]}',
        "- {lvl: target",
        f"- {deep}",
        "Traceback (most recent call last):",
        "[1, 2]",
        "\x00\xff",
    ]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    log = lava.read(path)
    assert log and [run.command for run in log.runs] == ["qemu"]
    assert log.runs[0].console.decode() == "a\xa0b \u2028 \x1b\n"
    assert log.error == "its log is cut off"


def test_log_of_lava_run(parse: ktap.Parser, tmp_path: Path) -> None:
    """A log that lava-run 2023.01 wrote of a real boot; the lines about its own progress are taken out."""
    pytest.importorskip("yaml")
    log = lava.read(LOGS / "lava_run.yaml")
    assert log and not log.error
    (run,) = log.runs
    assert run.place == "loongarch64-before-pci_cfg_wait-1" and not run.failed and set(run.digests) == {"kernel"}
    boot = lava._boot(run, log, tmp_path / "console")
    assert (boot.end, round(boot.seconds)) == (guest.End.EXIT, 9) and boot.ktap_seconds
    result = ktap.judge(boot, "pci_cfg_wait", parse)
    assert result.verdict == "FAIL" and result.cases[PROOF] == "FAIL"
    assert lava._ran(run.command, shlex.split(run.command)[1:])


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
        (lambda e, t: t / "digest.yaml", f"{STAGES[0].place} booted another kernel than lava/x86_64/before-bzImage"),
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
    (folder / "text.yaml").write_text("all: well\n")
    os.mkfifo(folder / "fifo.yaml")
    place = spoil(waiting.folder, folder)
    text = console(RED)
    first = STAGES[0]
    words = [word.replace("pci_cfg_wait", "none") for word in first.words]
    made = {
        "digest": one_boot(first, text, digest="00" * 32),
        "words": one_boot(first, text, words=words),
        "place": one_boot(first, text, place="arm64-before-x-1"),
        "twice": one_boot(first, text) * 2,
    }.get(place.stem)
    if made:
        place.write_text("\n".join([*made, end()]))
    untouched = (waiting.folder / "results.json").read_bytes()
    assert says in refused(["report", str(waiting.folder), "--lava", str(place)], capsys)
    assert (waiting.folder / "results.json").read_bytes() == untouched


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "results.json").write_text((f / "results.json").read_text().replace("120", "121")), "changed"),
        (lambda f: (f / "SHA256SUMS").unlink(), "unfinished"),
        (lambda f: (f / "results.json").write_text("{"), "damaged"),
    ],
)
def test_folder_that_was_edited_takes_nothing(
    change: Callable[[Path], object], says: str, waiting: Evidence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = job(tmp_path, STAGES[0], RED)
    change(waiting.folder)
    assert says in refused(["report", str(waiting.folder), "--lava", str(log)], capsys)


def test_name_that_leads_out_of_the_folder_is_damage(waiting: Evidence) -> None:
    path = waiting.folder / "results.json"
    path.write_text(path.read_text().replace(STAGES[0].place, "x86_64-../../../etc/passwd"))
    with pytest.raises(BadInput, match="is damaged"):
        evidence.load(waiting.folder)


def test_evidence_of_verify_takes_nothing(
    waiting: Evidence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del waiting.checkout["misc"]["lava"]
    waiting.seal()
    log = job(tmp_path, STAGES[0], RED)
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
    (waiting.folder / "lava/x86_64/before-bzImage").write_text("kernel")
    (waiting.folder / "report.html").write_text("page")
    waiting.seal()
    shutil.rmtree(waiting.folder / "lava")
    (waiting.folder / "report.html").unlink()
    assert not evidence.load(waiting.folder).distrust
    shutil.rmtree(waiting.folder / ARCH)
    (waiting.folder / "audit.json").write_text("{}")
    assert "changed since" in evidence.load(waiting.folder).distrust


@pytest.mark.skipif(not shutil.which("lava-run") or os.geteuid() != 0, reason="no lava-run, or not root")
def test_lava_run(waiting: Evidence, tmp_path: Path, parse: ktap.Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAVA's own dispatcher runs the jobs, with something that prints a captured console for QEMU."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "qemu-system-x86_64").write_text(
        "#!/bin/sh\n"
        'case "$*" in --version) echo QEMU emulator version 10.0.2;; '
        f"*before-bzImage*) cat {tmp_path}/red;; *) cat {tmp_path}/green;; esac\n"
    )
    (bin / "qemu-system-x86_64").chmod(0o755)
    monkeypatch.setenv("PATH", str(bin), prepend=":")
    # Consoles that were captured from the tests' start on have no such line.
    for name, text in (("red", console(RED)), ("green", console(GREEN))):
        (tmp_path / name).write_text("Linux version 6.12.117\n" + text)
    (waiting.folder / "lava/x86_64").mkdir(parents=True)
    stages = []
    for each in STAGES:
        file = waiting.folder / "lava" / each.kernel[0]
        file.write_text(each.state)
        stages.append(lava.replace(each, kernel=(each.kernel[0], lava._digest(file))))
    waiting.checkout["misc"]["lava"] = [lava.asdict(each) for each in stages]
    waiting.seal()
    for name, text in render(stages, (waiting.folder / "lava").as_uri()).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    logs = []
    for path in sorted((tmp_path / "jobs").iterdir()):
        logs.append(tmp_path / f"{path.stem}.log")
        with logs[-1].open("w") as log:
            words = ["lava-run", "--job-id", f"kmend-test-{os.getpid()}", "--device", tmp_path / "device-x86_64.yaml"]
            words += ["--output-dir", tmp_path / path.stem, path]
            subprocess.run(words, stderr=log, check=False, timeout=120)
    assert exit_code(take(evidence.load(waiting.folder), *logs)) == ExitCode.OK
