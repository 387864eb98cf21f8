# SPDX-License-Identifier: GPL-2.0-only
"""Builds kernels and the guest's initramfs, out of tree; but for old kernels with one toolchain for all."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure
from kmendlib.host.files import digest
from kmendlib.host.paths import CONFIGS, cache
from kmendlib.proof.jobs import Jobs
from kmendlib.run import Build
from kmendlib.tree.arches import Arch
from kmendlib.tree.manifest import SELFTESTS, Bug
from kmendlib.tree.package import depends
from kmendlib.tree.source import Workspace

_OBJECT = re.compile(r"^  (?:CC|AS|LDS|AR|LD|HOSTCC)\b")
# A build from scratch takes about this many steps for each option that is on: 2.2 (arm64) to 2.7 (x86_64) on 6.12.
_STEPS_PER_OPTION = 2.5
_ERROR = re.compile(r"error(?:[: ]|$)|undefined symbol|Permission denied|\*\*\* ", re.IGNORECASE)
_HEAP = "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=33554432:glibc.malloc.mmap_threshold=67108864"


class BuildError(Exception):
    """A configuration or compilation failed; the text says where, in a line."""


def toolchain() -> tuple[str, str]:
    """Return kbuild's ``LLVM=`` value and the compiler's name: with the suffix -19 where there is one."""
    return ("-19", "clang-19") if shutil.which("clang-19") else ("1", "clang")


def _environment() -> dict[str, str]:
    return proc.environment(
        {
            "CCACHE_DIR": str(cache() / "ccache"),
            "CCACHE_BASEDIR": str(cache()),
            "CCACHE_NOHASHDIR": "1",
            # Takes the headers from the compiler's own list: a miss costs no second run of the preprocessor.
            "CCACHE_DEPEND": "1",
            # Puts a compiler's heap into huge pages, where the kernel gives some: a quarter of its time.
            "GLIBC_TUNABLES": _HEAP,
            # A kernel that says when and where it was built is another kernel every time.
            "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
            "KBUILD_BUILD_USER": "kmend",
            "KBUILD_BUILD_HOST": "kmend",
        }
    )


def compiler(arch: Arch) -> str:
    """Return the name of the compiler that an architecture's kernels are built with."""
    return f"{arch.triplet}gcc" if arch.compiler == "gcc" else toolchain()[1]


def _make(workspace: Workspace, arch: Arch) -> list[str]:
    return [
        "make",
        "-C",
        str(workspace.src(arch.name)),
        f"O={workspace.build(arch.name)}",
        f"ARCH={arch.params.linux_arch}",
        f"CROSS_COMPILE={arch.triplet}" if arch.compiler == "gcc" else f"LLVM={toolchain()[0]}",
        f"CC=ccache {compiler(arch)}",
        *arch.make,
    ]


def _run(command: Sequence[str], log: Path, jobs: Jobs, on_line: Callable[[str], None] | None = None) -> int:
    """Run make within a budget; return its exit code. Raise BuildError where it hangs."""
    with jobs.make() as (flags, pipe):
        try:
            return proc.run_logged(command, log, env=_environment() | flags, on_line=on_line, pass_fds=pipe)
        except proc.Hung as error:
            raise BuildError(str(error)) from None


def fragments(arch: Arch, bugs: Sequence[Bug]) -> list[tuple[str, str]]:
    """Return the configuration's fragments, name and text: what all need, debugging, architecture, bugs, line."""
    paths = [CONFIGS / "base.config", CONFIGS / "debug.config", CONFIGS / f"debug-{arch.name}.config"]
    parts = [(path.name, path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    parts.append((f"qemu_configs/{arch.name}.py", arch.params.kconfig))
    for bug in bugs:
        if arch.name in bug.arches:
            for suite in bug.suites:
                parts += _with_arch(suite.kunitconfig.name, suite.kunitconfig, arch)
        for test in bug.selftests:
            if arch.name in (*bug.arches, *test.controls):
                parts += _with_arch(f"{test.collection}/{test.config.name}", test.config, arch)
    if arch.fragment:
        parts.append(arch.fragment)
    return list(dict.fromkeys(parts))


def _with_arch(name: str, fragment: Path, arch: Arch) -> list[tuple[str, str]]:
    """Return a fragment and, where there is one, what goes on top of it for one architecture alone."""
    special = fragment.with_name(f"{fragment.name}.{arch.name}")
    parts = [(name, fragment.read_text(encoding="utf-8"))]
    return [*parts, (f"{name}.{arch.name}", special.read_text(encoding="utf-8"))] if special.exists() else parts


def _missing(config: Path, wanted: str) -> list[str]:
    """Return the options that `wanted` sets and that the final configuration lacks."""
    have = set(config.read_text(encoding="utf-8").splitlines())
    options = [line for line in wanted.splitlines() if line.startswith("CONFIG_") and not line.endswith("=n")]
    return [option for option in options if option not in have]


def _known(source: Path, arch: Arch, options: Sequence[str]) -> set[str]:
    """Return those of some options that a tree's Kconfig files define for an architecture: no tree has them all."""
    names = "|".join(sorted({option.partition("=")[0].removeprefix("CONFIG_") for option in options}))
    pattern = rf"^[[:space:]]*(menu)?config ({names})[[:space:]]*$"
    # Another architecture may have an option of the same name.
    places = [path for path in (*source.glob("*"), *source.glob("arch/*")) if path.name != "arch"]
    places = [path for path in places if path.is_file() or path.parent.name != "arch" or path.name == arch.folder]
    defined = (proc.output(["grep", "-rhE", "--include=Kconfig*", pattern, *map(str, places)]) or "").split()
    return {option for option in options if option.partition("=")[0].removeprefix("CONFIG_") in defined}


def configure(workspace: Workspace, arch: Arch, bugs: Sequence[Bug], log: Path, jobs: Jobs) -> float:
    """Write the build's configuration: the fragments on top of allnoconfig.

    Args:
        workspace: the tree's place.
        arch: the architecture.
        bugs: whose suites and kselftests the kernel has to hold.
        log: takes make's output.
        jobs: the budget.

    Returns:
        Seconds of wall time; 0 where nothing has changed since the last time.

    Raises:
        BuildError: make failed, or dropped an option that a bug's tests ask for and that the tree has.
    """
    started = time.monotonic()
    build = workspace.build(arch.name)
    build.mkdir(parents=True, exist_ok=True)
    parts = fragments(arch, bugs)
    text = "".join(f"# {name}\n{part.strip()}\n" for name, part in parts)
    asked = build / "kmend.config"
    config = build / ".config"
    allconfig = build / "allconfig"
    command = [*_make(workspace, arch), "-s", f"KCONFIG_ALLCONFIG={allconfig}", "allnoconfig"]
    rests_on = _rests_on(workspace.src(arch.name), arch, [text, *command])
    if asked.exists() and config.exists() and asked.read_text(encoding="utf-8") == f"{rests_on} {digest(config)}\n":
        return 0.0
    asked.unlink(missing_ok=True)
    allconfig.write_text(text, encoding="utf-8")
    if _run(command, log, jobs):
        raise BuildError(f"configuration failed: {_first_error(log)}")
    needed = [each for each in parts if ("/" in each[0] or ".kunitconfig" in each[0]) and each != arch.fragment]
    dropped = [(option, name) for name, part in needed for option in _missing(config, part)]
    known = _known(workspace.src(arch.name), arch, [option for option, _ in dropped]) if dropped else set()
    lost = [f"{option} ({name})" for option, name in dropped if option in known]
    if lost:
        raise BuildError(f"the tree's Kconfig does not take {', '.join(lost)}")
    if dropped:
        with log.open("a", encoding="utf-8") as out:
            out.write(f"# not in this tree: {', '.join(option for option, _ in dropped)}\n")
    asked.write_text(f"{rests_on} {digest(config)}\n", encoding="utf-8")
    return time.monotonic() - started


def _rests_on(source: Path, arch: Arch, words: Sequence[str]) -> str:
    """Return a digest of all that a configuration depends on: what is asked for, the tools, and the tree's Kconfig."""
    total = hashlib.sha256("\0".join(words).encode())
    linker = f"{arch.triplet}ld" if arch.compiler == "gcc" else f"ld.lld{toolchain()[1].removeprefix('clang')}"
    for tool in (compiler(arch), linker, "pahole", "rustc"):
        total.update(f"{tool}\0{proc.output([tool, '--version']) or ''}\0".encode())
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            if name.startswith("Kconfig") or (folder == str(source) and name == "Makefile"):
                path = Path(folder, name)
                total.update(os.fsencode(path.relative_to(source)) + b"\0")
                total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def _first_error(log: Path) -> str:
    lines = log.read_text(errors="replace", encoding="utf-8").splitlines()
    last_run = max((number for number, line in enumerate(lines) if line.startswith("$ ")), default=0)
    return next((line.strip() for line in lines[last_run + 1 :] if _ERROR.search(line)), f"no reason given, see {log}")


def image(workspace: Workspace, arch: Arch, state: str) -> Path:
    """Return the copy of the image that a state boots; a later build does not touch it."""
    return workspace.root / arch.name / f"{arch.make_target}-{state}"


def kernel(
    workspace: Workspace,
    arch: Arch,
    state: str,
    log: Path,
    jobs: Jobs,
    on_progress: Callable[[int, int | None], None],
    record: Build,
    modules: bool = False,
) -> Build:
    """Build the kernel of the state that is installed in the architecture's source folder.

    Args:
        workspace: the tree's place.
        arch: the architecture.
        state: ``before`` or ``after``; names the image's copy.
        log: takes make's output.
        jobs: the budget.
        on_progress: called with the steps done and, for a build from scratch, how many it will take: as many as
            the last one, or an estimate.
        record: what is known of the kernel.
        modules: build the modules, too.

    Returns:
        The record with what was run, and how long it took.

    Raises:
        BuildError: the kernel does not build; the text is the first error.
    """
    build = workspace.build(arch.name)
    counter = workspace.root / arch.name / "steps"
    made = build / arch.params.kernel_path
    scratch = not made.exists()
    options = sum(line.endswith("=y") for line in (build / ".config").read_text(encoding="utf-8").splitlines())
    total = int(counter.read_text(encoding="utf-8")) if counter.exists() else round(options * _STEPS_PER_OPTION)
    steps = 0

    def count(line: str) -> None:
        nonlocal steps
        if _OBJECT.match(line):
            steps += 1
            on_progress(steps, max(steps, total) if scratch else None)

    command = [*_make(workspace, arch), arch.make_target, *(["modules"] if modules else [])]
    started = time.monotonic()
    if _run(command, log, jobs, count):
        raise BuildError(_first_error(log))
    seconds = {**record.seconds, "build_seconds": round(time.monotonic() - started, 3)}
    if not made.exists():
        raise BuildError(f"make ended well but made no {arch.params.kernel_path}")
    if scratch:
        counter.write_text(str(steps), encoding="utf-8")
    shutil.copyfile(made, image(workspace, arch, state))
    version = (proc.output([compiler(arch), "--version"]) or "unknown").splitlines()[0]
    return replace(record, command=" ".join(command), compiler=version, seconds=seconds)


def objects(workspace: Workspace, arch: Arch, names: Sequence[str], log: Path, jobs: Jobs) -> None:
    """Compile parts of a kernel, of what is installed in the architecture's source folder.

    Args:
        workspace: the tree's place.
        arch: the architecture.
        names: make's targets: objects, or folders with a slash at the end.
        log: takes make's output.
        jobs: the budget.

    Raises:
        BuildError: one does not compile; the text is the first error.
    """
    if _run([*_make(workspace, arch), *names], log, jobs):
        raise BuildError(_first_error(log))


def _modules(build: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the modules named and those that they need, by name, in the order in which they can be loaded.

    Raises:
        BuildError: the build made no such module.
    """
    lines = (build / "modules.order").read_text(encoding="utf-8").split()
    built = [(build / line).with_suffix(".ko") for line in lines]
    modules: dict[str, Path] = {}
    for name in names:
        path = next((path for path in built if path.stem.replace("-", "_") == name.replace("-", "_")), None)
        if not path:
            raise BuildError(f"make ended well but made no module {name}")
        modules |= _modules(build, depends(path.read_bytes()))
        modules[path.stem] = path
    return modules


def module_archive(
    workspace: Workspace, arch: Arch, state: str, names: Sequence[str], programs: Path
) -> tuple[Path, tuple[str, ...]]:
    """Put modules of the last build, and those that they need, into a cpio archive, behind another one.

    It holds /lib/modules/NAME.ko, and /lib/modules/order: their file names in the order in which they can be loaded.

    Args:
        workspace: the tree's place.
        arch: the architecture.
        state: names the archive's folder.
        names: the modules.
        programs: the archive that comes first: the kernel unpacks one after the other.

    Returns:
        The archive and that order.

    Raises:
        BuildError: the build made no such module.
    """
    build = workspace.build(arch.name)
    kept = workspace.root / arch.name / f"modules-{state}"
    modules = _modules(build, names)
    order = tuple(f"{name}.ko" for name in modules)
    kept.mkdir(exist_ok=True)
    (kept / "order").write_text("".join(f"{name}\n" for name in order), encoding="utf-8")
    lines = ["dir /lib 0755 0 0", "dir /lib/modules 0755 0 0", f"file /lib/modules/order {kept / 'order'} 0644 0 0"]
    lines += [f"file /lib/modules/{name}.ko {path} 0644 0 0" for name, path in modules.items()]
    (kept / "list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = proc.run([build / "usr/gen_init_cpio", "-t", "0", kept / "list"])
    if done.returncode:
        raise BuildError(f"cannot archive the modules: {done.stderr.decode(errors='replace').strip()}")
    archive = kept / programs.name
    archive.write_bytes(programs.read_bytes() + done.stdout)
    return archive, order


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other run is at work in a folder that all runs share, and keep it; stop waiting when told to."""
    with (folder / "lock").open("a", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if proc.stopping.wait(0.2):
                    raise InterruptedError("stopped") from None
        yield


def initramfs(kernel_source: Path, arch: Arch, tests: Sequence[str], jobs: Jobs, kept: Path) -> Path:
    """Build the guest's init and the kselftests named into an initramfs.

    Args:
        kernel_source: a tree with tools/include/nolibc (v6.12 or later is known to do).
        arch: the architecture.
        tests: kselftests as ``COLLECTION:NAME``.
        jobs: the budget.
        kept: where the archive goes, which is returned: the next run's may have other tests.

    Raises:
        Infrastructure: they do not build.
        InterruptedError: all children of this process were stopped.
    """
    out = cache() / "guest" / arch.name
    out.mkdir(parents=True, exist_ok=True)
    log = out / "build.log"
    command = [
        "make",
        "-s",
        "-C",
        str(SELFTESTS / "init"),
        f"ARCH={arch.name}",
        f"LLVM={toolchain()[0]}",
        f"KSRC={kernel_source}",
        f"O={out}",
        f"TESTS={' '.join(tests)}",
    ]
    with _turn(out):
        log.unlink(missing_ok=True)
        if _run(command, log, jobs):
            raise Infrastructure(f"the guest's programs do not build for {arch.name}: {_first_error(log)} (log: {log})")
        shutil.copyfile(out / "initramfs.cpio", kept)
    return kept
