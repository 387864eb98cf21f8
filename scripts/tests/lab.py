# SPDX-License-Identifier: GPL-2.0-only
"""A place where the driver runs as a process: a small tree, a cache of its own, stand-ins for make, QEMU and apt.

make "builds" a file that says which source it was made of, and QEMU prints a console that was captured from a guest.
What stands between the two, and what reads their trees, is the driver with its real tools.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from conftest import parser_tree
from kmendlib.host import setup

LOGS = Path(__file__).with_name("logs")
KMEND = Path(__file__).resolve().parents[1] / "kmend"

_MAKE = r"""
echo "make MAKEFLAGS='$MAKEFLAGS' $*" >> "$lab/calls"
for word; do
	[ "$last" = -C ] && source=$word
	case $word in
	O=*) out=${word#O=};;
	ARCH=*) arch=${word#ARCH=};;
	TESTS=*) tests=$word;;
	KCONFIG_ALLCONFIG=*) all=${word#*=};;
	esac
	last=$word
done
[ "$arch" = x86_64 ] && arch=x86
if [ "$tests" ]; then echo "$tests" > "$out/initramfs.cpio"; exit; fi
if [ "$all" ]; then cp "$all" "$out/.config"; exit; fi
if [ -e "$lab/make.hangs" ]; then echo $$ > "$lab/began"; mv "$lab/began" "$lab/make.began"; exec sleep 600; fi
state=before
grep -q 'wait_event(pci_cfg_wait' "$source/drivers/pci/access.c" && state=after
grep -q pci_cfg_wait_kunit "$source/drivers/pci/access.c" || state=$state-without-suite
if [ -e "$lab/make.fails.$state" ]; then cat "$lab/make.fails.$state"; exit 2; fi
echo "  CC      drivers/pci/access.o"
case $last in
bzImage|Image) mkdir -p "$out/arch/$arch/boot"; echo "$state" > "$out/arch/$arch/boot/$last";;
vmlinux) echo "$state" > "$out/vmlinux";;
esac
"""

_QEMU = r"""
[ "$1" = --version ] && { echo "QEMU emulator version 10.0.2"; exit; }
echo "${0##*/} $*" >> "$lab/calls"
for word; do
	case $last in
	-kernel) state=$(head -n 1 "$word");;
	-gdb) socket=${word#unix:}; socket=${socket%%,*};;
	esac
	last=$word
done
kind=kunit
case "$*" in *kmend.selftests=*) kind=kselftest;; esac
number=0
# Two guests may start at the same time.
until mkdir "$lab/boots/$state-$kind-$number" 2>&-; do number=$((number + 1)); done
console=$lab/consoles/$state-$kind-$number
[ -e "$console" ] || console=$lab/consoles/$state-$kind
if [ "$socket" ]; then
	plays=broken
	[ "$state" = after ] && plays=held
	[ -e "$lab/races/$state" ] && plays=$(cat "$lab/races/$state")
	export lab
	[ "$plays" = hangs ] && exec "$lab/stub" "$socket" "${0##*-system-}" "$plays"
	[ "$plays" = nothing ] || "$lab/stub" "$socket" "${0##*-system-}" "$plays"
fi
cat "$console" || exit 9
[ -e "$console.error" ] || exit 0
cat "$console.error" >&2
exit 1
"""

_APT = r"""
echo "${0##*/} $*" >> "$lab/calls"
case "$*" in *install*) ;; *) exit 0;; esac
[ -d "$lab/brings" ] && exec mv "$lab"/brings/* "$lab/bin"
echo "E: there is no network here"
exit 100
"""

# What a boot prints, by the state of the source that its kernel was built from and by what it runs.
CONSOLES = {
    "before-kunit": "kunit_fail",
    "after-kunit": "kunit_pass",
    "before-kselftest": "kselftest_panic",
    "after-kselftest": "kselftest_pass",
}


class Lab:
    """A folder with a tree, a cache, stand-ins in PATH, and a home; `run` runs the driver in it."""

    def __init__(self, root: Path) -> None:
        """Make it below an empty folder."""
        self.root = root
        self.bin = root / "bin"
        for name in ("bin", "boots", "consoles", "here", "home", "races"):
            (root / name).mkdir()
        (root / "calls").touch()
        tools = {"make": _MAKE, "apt-get": _APT, "dnf": _APT}
        for need in setup.needs():
            if need.file.startswith("qemu-system-"):
                tools[need.file] = _QEMU
            elif "/" not in need.file and not need.file.startswith("python:") and not shutil.which(need.file):
                tools[need.file] = 'echo "version 99"\n'
        # The real ones, which get what all tools get.
        tools |= {name: f'exec {shutil.which(name)} "$@"' for name in ("git", "patch", "rsync", "spatch", "wiggle")}
        tools |= {"clang-19": 'echo "clang version 19.1.7"\n', "ld.lld-19": 'echo "LLD 19.1.7"\n'}
        tools.pop("libpython", None)
        (root / "stub").write_text(
            f"#!/bin/sh\nPYTHONPATH={KMEND.parent} exec {sys.executable} -B "
            f'{Path(__file__).with_name("stub_guest.py")} "$@"\n',
            encoding="utf-8",
        )
        (root / "stub").chmod(0o755)
        for name, text in tools.items():
            self.tool(name, text)
        for name, log in CONSOLES.items():
            self.console(name, log)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("KMEND", "GIT_"))}
        self.environment |= {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(root / "home"),
            "XDG_CACHE_HOME": str(root / "cache"),
            "GIT_CONFIG_NOSYSTEM": "1",
            # A variable that nobody knows, and that no tool may get.
            "FOREIGN": "x",
        }
        (root / "home/.gitconfig").write_text(
            "[user]\n\tname = A Person\n\temail = person@example.org\n", encoding="utf-8"
        )

    def tool(self, name: str, text: str) -> None:
        """Put a shell script into PATH."""
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(
            f'#!/bin/sh\n[ "$FOREIGN" ] && exit 98\nlab="{self.root}"\n{text}', encoding="utf-8"
        )
        (self.bin / name).chmod(0o755)

    def console(self, name: str, log: str, error: str = "") -> None:
        """Let boots print a captured log: of a state and kind, or of one of them alone, counted from 0."""
        shutil.copyfile(LOGS / f"{log}.log", self.root / "consoles" / name)
        if error:
            (self.root / "consoles" / f"{name}.error").write_text(error, encoding="utf-8")

    def race(self, state: str, plays: str) -> None:
        """Let the race of a state be what stub_guest.py plays, or nothing: the guest prints no symbols."""
        (self.root / "races" / state).write_text(plays, encoding="utf-8")

    def base(self, tree: Path) -> None:
        """Give the cache a default base: a copy of a small tree, with the KTAP parser of a real one."""
        newest = parser_tree()
        place = self.root / "cache/kmend/work" / "linux-6.12.y"
        shutil.copytree(tree, place / "pristine")
        shutil.copytree(newest / "tools/testing/kunit", place / "pristine/tools/testing/kunit")
        (place / "version").write_text("6.12.99\n", encoding="utf-8")

    def only_own_tools(self, without: str) -> None:
        """Leave in PATH what is needed alone, but for one program."""
        needed = [need.file for need in setup.needs()]
        for name in [*needed, "sh", "env", "grep", "cat", "head", "mv", "dirname", "readlink", "id", "python3"]:
            if found := shutil.which(name, path=self.environment["PATH"]):
                if name != without and not (self.bin / Path(name).name).exists():
                    (self.bin / Path(name).name).symlink_to(found)
        self.environment["PATH"] = str(self.bin)

    def apt_brings(self, name: str) -> None:
        """Let an installation bring a program."""
        (self.root / "brings").mkdir()
        self.tool(name, "")
        (self.bin / name).rename(self.root / "brings" / name)

    def seal(self, folder: str) -> None:
        """Make the digests of a folder of evidence anew."""
        lines = (self.root / folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        command = ["sha256sum", *(line.partition("  ")[2] for line in lines)]
        done = subprocess.run(command, cwd=self.root / folder, check=True, capture_output=True, text=True)
        (self.root / folder / "SHA256SUMS").write_text(done.stdout, encoding="utf-8")

    def start(self, words: Sequence[str], program: Path = KMEND, folder: Path | None = None) -> subprocess.Popen[str]:
        """Start the driver in the lab's folder, or another one, without a terminal."""
        return subprocess.Popen(
            [str(program), *words],
            cwd=folder or self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, words: Sequence[str], **options: Path) -> subprocess.CompletedProcess[str]:
        """Run the driver to its end; options as for `start`."""
        with self.start(words, **options) as process:
            out, error = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, error)

    def files(self) -> dict[str, str]:
        """Return what there is beside the cache and the lab's own: modes and digests, by path."""
        own = ("cache", "bin", "consoles", "calls", "boots", "home", "brings", "make.began", "races", "stub", "parked")
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if name.split("/")[0] not in own:
                content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
                found[name] = f"{path.lstat().st_mode:o} {content}"
        return found


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the paths that are new, gone, or not as they were."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
