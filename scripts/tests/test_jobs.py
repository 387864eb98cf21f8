# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the job budget: real makes and waiting threads share it."""

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmendlib.host import proc
from kmendlib.proof.jobs import BUILD_MEMORY, Jobs


@pytest.fixture
def three() -> Iterator[Jobs]:
    """A budget for three; what waits for ever is called off."""
    limit = threading.Timer(30, proc.stopping.set)
    limit.start()
    with contextlib.closing(Jobs(3, 3 * BUILD_MEMORY)) as jobs:
        yield jobs
    limit.cancel()
    limit.join()
    proc.stopping.clear()


def free(jobs: Jobs) -> int:
    """Count the tokens: take all that can be had, and give them back."""
    with contextlib.ExitStack() as stack:
        taken = 0
        with contextlib.suppress(InterruptedError):
            timer = threading.Timer(0.6, proc.stopping.set)
            timer.start()
            while True:
                stack.enter_context(jobs.slot(0))
                taken += 1
    timer.join()
    proc.stopping.clear()
    return taken


def run_make(jobs: Jobs, folder: Path, text: str) -> int:
    folder.mkdir(exist_ok=True)
    (folder / "Makefile").write_text(text, encoding="utf-8")
    with jobs.make() as (flags, pipe):
        return proc.run_logged(["make", "-C", str(folder)], folder / "log", env=proc.environment(flags), pass_fds=pipe)


# Each recipe waits until another one has begun, of any make: alone it would fail.
MEET = """all: a b
a b:
	touch {meet}/$@-{name}; n=0; \\
	until [ $$(ls {meet} | wc -l) -ge {many} ]; do n=$$((n+1)); [ $$n -lt 100 ] || exit 1; sleep 0.1; done
"""


def test_make_takes_further_jobs(three: Jobs, tmp_path: Path) -> None:
    meet = tmp_path / "meet"
    meet.mkdir()
    assert run_make(three, tmp_path / "x", MEET.format(meet=meet, name="x", many=2)) == 0
    assert "jobserver" not in (tmp_path / "x/log").read_text(encoding="utf-8")
    assert free(three) == 3


def test_two_makes_share_the_budget(three: Jobs, tmp_path: Path) -> None:
    """Of their eight recipes never more than three run at once."""
    busy = tmp_path / "busy"
    busy.mkdir()
    text = (
        "all: a b c d\na b c d:\n"
        "\ttouch {busy}/$@-{name}; ls {busy} | wc -l >> {seen}; sleep 0.2; rm {busy}/$@-{name}\n"
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        makes = [
            pool.submit(run_make, three, tmp_path / name, text.format(busy=busy, name=name, seen=tmp_path / "seen"))
            for name in ("x", "y")
        ]
    assert [make.result() for make in makes] == [0, 0]
    seen = [int(line) for line in (tmp_path / "seen").read_text(encoding="utf-8").split()]
    assert len(seen) == 8 and 2 <= max(seen) <= 3
    assert free(three) == 3


def test_one_job_is_one_at_a_time(tmp_path: Path) -> None:
    with contextlib.closing(Jobs(1, BUILD_MEMORY)) as one:
        text = f"all: a b\na b:\n\tmkdir {tmp_path}/lock && sleep 0.2 && rmdir {tmp_path}/lock\n"
        assert run_make(one, tmp_path / "x", text) == 0


def test_killed_make_takes_no_token_along(three: Jobs, tmp_path: Path) -> None:
    assert run_make(three, tmp_path / "x", "all: a b\na b:\n\tsleep 0.2; kill -9 $$PPID; sleep 0.2\n") < 0
    assert free(three) == 3


@pytest.mark.parametrize(("first", "second"), [(2, 2), (1, 100), (100, 1)], ids=["", "larger than all", "after it"])
def test_memory_is_counted(three: Jobs, first: int, second: int) -> None:
    """There is a job for the second one, but no memory; what is larger than all there is runs alone."""
    order = []

    def wait() -> None:
        with three.slot(second * BUILD_MEMORY):
            order.append("second")

    thread = threading.Thread(target=wait)
    with three.slot(first * BUILD_MEMORY):
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_several_jobs_at_once(three: Jobs) -> None:
    """Who takes two of three leaves one, and of two who do so one waits; who asks for more than all gets all."""
    at_once: list[int] = []
    inside = [0]

    def work(jobs: int) -> None:
        with three.slot(0, jobs):
            inside[0] += min(jobs, 3)
            at_once.append(inside[0])
            time.sleep(0.1)
            inside[0] -= min(jobs, 3)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, jobs) for jobs in (2, 2, 1, 2, 1, 5, 2, 1)]:
            done.result()
    assert len(at_once) == 8 and max(at_once) <= 3
    assert free(three) == 3


def test_who_waits_for_several_jobs_holds_none(three: Jobs) -> None:
    """A boot that needs two must not keep one from the others for as long as a make lasts."""

    def work(jobs: int) -> int:
        with three.slot(0, jobs):
            return jobs

    with concurrent.futures.ThreadPoolExecutor() as pool:
        with three.slot(0, 2):
            waits = pool.submit(work, 2)
            for _ in range(20):
                assert pool.submit(work, 1).result(timeout=5) == 1
            assert not waits.done()
        assert waits.result(timeout=5) == 2
    assert free(three) == 3


def test_stop_ends_a_make_and_those_that_wait(tmp_path: Path) -> None:
    with contextlib.closing(Jobs(1, BUILD_MEMORY)) as one, concurrent.futures.ThreadPoolExecutor() as pool:
        started = tmp_path / "x/started"
        first = pool.submit(run_make, one, tmp_path / "x", f"all:\n\ttouch {started}; sleep 60\n")
        while not started.exists():
            time.sleep(0.01)
        second = pool.submit(run_make, one, tmp_path / "y", "all:\n\ttrue\n")
        begin = time.monotonic()
        try:
            proc.stop()
            for make in (first, second):
                with pytest.raises(InterruptedError):
                    make.result(5)
        finally:
            proc.stopping.clear()
        assert time.monotonic() - begin < 5
        assert free(one) == 1


def test_nothing_starts_while_stopping(tmp_path: Path) -> None:
    try:
        proc.stop()
        with pytest.raises(InterruptedError):
            proc.run_logged(["touch", str(tmp_path / "mark")], tmp_path / "log")
    finally:
        proc.stopping.clear()
    assert not (tmp_path / "mark").exists()
