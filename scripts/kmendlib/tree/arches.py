# SPDX-License-Identifier: GPL-2.0-only
"""The architectures: one file each in ``kunit/qemu_configs``, in the form that kunit.py reads too."""

import runpy
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kmendlib.host.errors import BadInput, Infrastructure
from kmendlib.tree.manifest import QEMU_CONFIGS

# The host that most people have.
DEFAULT = "x86_64"


@dataclass(frozen=True)
class QemuArchParams:
    """The fields of the class of this name in the kernel's tools/testing/kunit/qemu_config.py."""

    linux_arch: str
    kconfig: str
    qemu_arch: str
    kernel_path: str
    kernel_command_line: str
    extra_qemu_params: list[str] = field(default_factory=list)
    serial: str = "stdio"


@dataclass(frozen=True)
class Registers:
    """What a race has to know of an architecture's machine code.

    Attributes:
        arguments: numbers of the registers with a function's first arguments, in GDB's remote protocol.
        stack: that of the stack pointer.
        pc: that of the program counter.
        returns: that of the return address; None where it lies on top of the stack when a function is entered.
        call: tells length and offset of the direct call at a place of some code, or None.
    """

    arguments: tuple[int, ...]
    stack: int
    pc: int
    returns: int | None
    call: Callable[[bytes, int], tuple[int, int] | None]


@dataclass(frozen=True)
class Image:
    """How an image of an architecture is known.

    Attributes:
        elf: its number in ELF's headers.
        magic: place and bytes, in images that are no ELF.
        words: further words for kernels that somebody else built.
    """

    elf: int
    magic: tuple[int, bytes]
    words: tuple[str, ...] = ()

    def fits(self, data: bytes) -> bool:
        """Tell whether an image is of the architecture."""
        at, magic = self.magic
        if data[:5] == b"\x7fELF\x02":
            return int.from_bytes(data[18:20], "little") == self.elf
        return data[at : at + len(magic)] == magic


@dataclass(frozen=True)
class Arch:
    """An architecture by kmend's name (``riscv64``), what kunit.py knows of it, and how kernels are built for it.

    Attributes:
        name: kmend's name.
        params: what kunit.py knows.
        compiler: ``llvm`` or ``gcc``.
        make: further words for make.
        fragment: name and text of a configuration fragment that comes last.
        registers: for races.
        image: how its images are known.
        timed: further words of the kernel's command line where QEMU counts instructions for a clock; None: it must not.
    """

    name: str
    params: QemuArchParams
    compiler: str = "llvm"
    make: tuple[str, ...] = ()
    fragment: tuple[str, str] | None = None
    registers: Registers | None = None
    image: Image | None = None
    timed: tuple[str, ...] | None = None

    @property
    def qemu(self) -> str:
        """Name of the emulator's program."""
        return f"qemu-system-{self.params.qemu_arch}"

    @property
    def triplet(self) -> str:
        """What the names of GNU's tools for it begin with."""
        return f"{self.params.qemu_arch}-linux-gnu-"

    @property
    def folder(self) -> str:
        """Name of its folder in a tree's ``arch/``."""
        return self.params.linux_arch.removesuffix("_64")

    @property
    def make_target(self) -> str:
        """What ``make`` is asked for, so that ``kernel_path`` appears."""
        return Path(self.params.kernel_path).name


def names() -> list[str]:
    """Names of all architectures, the default first."""
    found = {path.stem for path in QEMU_CONFIGS.glob("*.py")}
    return sorted(found, key=lambda name: (name != DEFAULT, name))


def load(name: str) -> Arch:
    """Read one architecture's file.

    Args:
        name: kmend's name of the architecture, as ``uname -m`` gives it there (arm64 for aarch64).

    Raises:
        Infrastructure: the architecture's firmware is missing.
    """
    # The files say `from ..qemu_config import QemuArchParams`, so give them that parent package.
    parent = types.ModuleType("kunit")
    parent.__path__ = []
    config = types.ModuleType("kunit.qemu_config")
    config.__dict__["QemuArchParams"] = QemuArchParams
    sys.modules |= {"kunit": parent, "kunit.qemu_config": config}
    try:
        has = runpy.run_path(str(QEMU_CONFIGS / f"{name}.py"), run_name=f"kunit.qemu_configs.{name}")
    except SystemExit as missing:
        raise Infrastructure(f"{missing}: run kmend setup") from None
    registers = Registers(**has["GDB"], call=has["gdb_call"])
    return Arch(name, has["QEMU_ARCH"], registers=registers, image=Image(**has["IMAGE"]), timed=has.get("TIMED"))


def of_image(data: bytes) -> str:
    """Return the architecture of an image; nothing where it is none.

    Raises:
        Infrastructure: an architecture's firmware is missing.
    """
    return next((name for name in names() if (image := load(name).image) and image.fits(data)), "")


def select(argument: str) -> tuple[str, ...]:
    """Turn the value of ``--arch`` (``all``, or names with commas between) into names.

    Raises:
        BadInput: there is no such architecture.
    """
    chosen = names() if argument == "all" else [name for name in argument.split(",") if name]
    if not chosen:
        raise BadInput(f"--arch names no architecture: choose from {', '.join(names())} or all")
    for name in chosen:
        if name not in names():
            raise BadInput(f"unknown architecture '{name}': choose from {', '.join(names())} or all")
    return tuple(dict.fromkeys(chosen))
