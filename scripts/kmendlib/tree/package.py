# SPDX-License-Identifier: GPL-2.0-only
"""Kernels as somebody ships them: the image, modules and configuration of packages, folders or bare images.

Packages are a stranger's.  bsdtar and bsdcat read them, as nobody where there is a choice, and only turn what comes in
into what goes out; what is kept of that is written here: regular files with a kernel's names, up to a limit.
"""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import IO

from kmendlib.host import files, proc
from kmendlib.host.errors import BadInput
from kmendlib.host.files import digest
from kmendlib.tree import arches
from kmendlib.tree.config import Config

NOBODY = 65534
# Unpacked, a package may have so many times its own size, or so many bytes. Real ones have four times.
RATIO, LEAST = 40, 64 << 20
# An image, unpacked, or a module; what comes unpacked may have symbols as well.
MOST = 512 << 20
# Seconds that a tool has to end when it has said all.
WAIT = 30.0

_FILE = re.compile(r"(?:\./|/)*(?:usr/)?(boot/[^/]+|lib/modules/[^/]+/(?:[^/]+|.+\.ko(?:\.\w+)?))")
_BOOT = re.compile(r"boot/(vmlinu[xz]|[bz]*Image(?:\.gz)?|config|System\.map)-(.+)")
_MODULES = re.compile(r"lib/modules/([^/]+)/(.+)")
# What else than an image a file with such a name is.
_KINDS = {"vmlinuz": "image", "config": "config_file", "System.map": "map"}
_PACKED = (b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"BZh", b"\x02\x21\x4c\x18", b"\x04\x22\x4d\x18", b"\x5d\0\0")


@dataclass
class Shipped:
    """A kernel that somebody else built: what was found of it, and, once `_ready` has seen it, what can be booted.

    Attributes:
        release: what ``uname -r`` says there.
        package: name and version of the package with the image, or the path.
        digest: SHA-256 of the file that was given; of a folder that of the image.
        image, config_file, map: the files; the image is one that QEMU boots.
        modules: the modules' files by name, with underscores.
        arch: the architecture, by kmend's name.
        config: its configuration, if that is known.
        addresses: data of System.map by name, if there is one: address and size.
        scratch: where files made of them may be put.
    """

    release: str
    package: str = ""
    digest: str = ""
    image: Path = Path()
    config_file: Path | None = None
    map: Path | None = None
    modules: dict[str, Path] = field(default_factory=dict)
    arch: str = ""
    config: Config | None = None
    addresses: dict[str, tuple[int, int]] = field(default_factory=dict)
    scratch: Path = Path()

    @property
    def whole(self) -> bool:
        """Whether there is an image."""
        return self.image != Path()

    def take(self, other: "Shipped") -> None:
        """Add what another package has of it.

        Raises:
            BadInput: both have an image.
        """
        if self.whole and other.whole:
            raise BadInput(f"two images of {self.release}, in {self.package} and {other.package}: try one at a time")
        if other.whole:
            self.package, self.digest, self.image = other.package, other.digest, other.image
        self.config_file, self.map = other.config_file or self.config_file, other.map or self.map
        self.modules |= other.modules

    def module(self, name: str) -> Path | None:
        """Return a module, unpacked; None where it is not one."""
        packed = self.modules.get(name.replace("-", "_"))
        if not packed:
            return None
        path = self.scratch / f"{name.replace('-', '_')}.ko"
        if not path.exists():
            path.write_bytes(_unpacked(packed))
        return path

    def order(self, names: Sequence[str]) -> dict[str, Path]:
        """Return those of some modules that are there, and what they need, in the order in which they can be loaded.

        Raises:
            BadInput: one that is needed is missing, or one is of another kernel.
        """
        found: dict[str, Path] = {}
        for name in names:
            path = self.module(name)
            if not path or path.stem in found:
                continue
            data = files.read(path, MOST)
            if not data.startswith(b"\x7fELF"):
                raise BadInput(f"module {name}: cannot be unpacked: it is damaged")
            made = re.search(rb"\0vermagic=([^\0 ]*)", data)
            if made and made[1].decode(errors="replace") != self.release:
                raise BadInput(f"module {name} is of {made[1].decode(errors='replace')}, the kernel is {self.release}")
            needed = depends(data)
            for each in needed:
                if each.replace("-", "_") not in self.modules:
                    raise BadInput(f"module {name} needs {each}, which is missing")
            found |= {key: value for key, value in self.order(needed).items() if key not in found}
            found[path.stem] = path
        return found


def depends(module: bytes) -> list[str]:
    """Return the names of the modules that a module needs, given its content."""
    said = re.search(rb"\0depends=([\w,-]+)\0", module)
    return said[1].decode().split(",") if said else []


@contextmanager
def _tool(
    words: Sequence[str], source: int | IO[bytes], errors: IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run a tool on what is read from `source`; give it, and what it makes of that."""
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    # It stands where it can write nothing, and its complaints go where they fill no pipe.
    options = {"stdin": source, "stdout": subprocess.PIPE, "stderr": errors, "env": proc.environment(), "cwd": "/"}
    with proc.child(words, **options, **who) as process:
        assert process.stdout
        yield process, process.stdout


def _complaint(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read(1 << 16).decode(errors="replace").strip().splitlines()
    # What bsdtar says where a compressed archive ends too soon, and it found no words for that.
    return lines[0].strip().replace("bsdtar: (null)", "it ends too soon") if lines else "nothing in it"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _unpacked(path: Path) -> bytes:
    """Return a file's content, unpacked.

    Raises:
        BadInput: it is damaged, or too large.
    """
    if not _head(path).startswith(_PACKED):
        return files.read(path, 8 * MOST)
    with path.open("rb") as file, tempfile.TemporaryFile() as errors:
        with _tool(["bsdcat"], file, errors) as (process, out):
            data = out.read(MOST + 1)
            whole = len(data) <= MOST and proc.wait(process, WAIT)
        if not whole or process.returncode:
            raise BadInput(f"{path.name}: cannot be unpacked: {_complaint(errors) if whole else 'too large'}")
    return data


# Packages


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of a package's regular files with a kernel's names.

    Raises:
        BadInput: it is damaged, or unpacks to what no kernel has.
    """
    most = max(path.stat().st_size * RATIO, LEAST)
    total = 0
    with ExitStack() as stack:
        source: IO[bytes] = stack.enter_context(path.open("rb"))
        errors = stack.enter_context(tempfile.TemporaryFile())
        if _is_deb(path):
            _, source = stack.enter_context(_tool(["bsdtar", "-xOf", "-", "data.tar*"], source, errors))
        inner, out = stack.enter_context(_tool(["bsdtar", "-cf", "-", "--format=pax", "@-"], source, errors))
        with suppress(tarfile.TarError, EOFError, ValueError):
            with tarfile.open(fileobj=out, mode="r|") as tar:
                for member in tar:
                    total += max(member.size, 512)
                    if total > most:
                        raise BadInput(f"{path}: unpacks to more than {most >> 20} MiB: no kernel's package does")
                    found = _FILE.fullmatch(member.name)
                    content = tar.extractfile(member) if member.isreg() and found else None
                    if found and content and ".." not in member.name.split("/"):
                        yield found[1], content
                    # It would keep them all.
                    tar.members = []  # type: ignore[attr-defined]
        while out.read(1 << 16):
            pass
        if not proc.wait(inner, WAIT) or inner.poll() or not total:
            raise BadInput(f"{path}: a package that is cut off or damaged: {_complaint(errors)}")


def _is_deb(path: Path) -> bool:
    return _head(path) == b"!<arch>\n"


def _name(path: Path) -> str:
    """Return name and version of a package, as it says itself."""
    with path.open("rb") as file, tempfile.TemporaryFile() as errors:
        if not _is_deb(path):
            return file.read(76)[10:].split(b"\0")[0].decode(errors="replace") or path.name
        with _tool(["bsdtar", "-xOf", "-", "control.tar*"], file, errors) as (_, outer):
            with _tool(["bsdtar", "-xOf", "-", "*control"], outer, errors) as (_, inner):
                text = inner.read(1 << 16).decode(errors="replace")
    said = dict(re.findall(r"^(Package|Version): *(\S+)", text, re.MULTILINE))
    return f"{said['Package']} {said['Version']}" if len(said) == 2 else path.name


def _package(path: Path, scratch: Path) -> dict[str, Shipped]:
    """Unpack a package below a private folder."""
    found: dict[str, Shipped] = {}
    for name, content in _members(path):
        target = scratch / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            # What is cut off within a file is said by `_members`.
            with target.open("wb") as out, suppress(tarfile.ReadError):
                shutil.copyfileobj(content, out)
            _sort(name, target, found)
    for kernel in found.values():
        kernel.package, kernel.digest = _name(path), digest(path)
    return found


def _sort(name: str, path: Path, found: dict[str, Shipped]) -> None:
    """Put a file with a kernel's name among the parts of that kernel."""
    if boot := _BOOT.fullmatch(name):
        setattr(found.setdefault(boot[2], Shipped(boot[2])), _KINDS.get(boot[1], "image"), path)
    elif within := _MODULES.fullmatch(name):
        kernel, kind = found.setdefault(within[1], Shipped(within[1])), _KINDS.get(within[2], "")
        if kind and getattr(kernel, kind) in (None, Path()):
            setattr(kernel, kind, path)
        elif module := _module(within[2].rpartition("/")[2]):
            kernel.modules[module] = path


def _module(name: str) -> str:
    """Return the module's name of a file's, or nothing."""
    match = re.fullmatch(r"([^/]+)\.ko(?:\.\w+)?", name)
    return match[1].replace("-", "_") if match else ""


def _folder(path: Path) -> dict[str, Shipped]:
    """Look at a folder with boot/ and lib/modules/; return the kernels with an image."""
    found: dict[str, Shipped] = {}
    for place in ("boot", "lib/modules", "usr/lib/modules"):
        for folder, _, names in os.walk(path / place):
            for name in names:
                file = Path(folder, name)
                known = _FILE.fullmatch(file.relative_to(path).as_posix())
                if known and file.is_file():
                    _sort(known[1], file, found)
    found = {release: kernel for release, kernel in found.items() if kernel.whole}
    for kernel in found.values():
        kernel.package, kernel.digest = f"{path} {kernel.release}", digest(kernel.image)
    return found


# Images


def _inner(name: str, data: bytes, scratch: Path) -> bytes:
    """Return what is packed in the bzImage or EFI zboot image of a name; nothing where nothing is."""
    start = size = 0
    if data[0x202:0x206] == b"HdrS":
        start = ((data[0x1F1] or 4) + 1) * 512 + int.from_bytes(data[0x248:0x24C], "little")
        size = int.from_bytes(data[0x24C:0x250], "little")
        # All but gzip's have their size behind them.
        size -= 4 if data[start : start + 2] != b"\x1f\x8b" else 0
    elif data[:2] == b"MZ" and data[4:8] == b"zimg":
        start, size = int.from_bytes(data[8:12], "little"), int.from_bytes(data[12:16], "little")
    packed = scratch / f"{name} (payload)"
    packed.write_bytes(data[start : start + size])
    return _unpacked(packed)


def _addresses(path: Path | None) -> dict[str, tuple[int, int]]:
    """Return address and size of each symbol of a System.map."""
    text = files.read_text(path, errors="replace") if path else ""
    lines = sorted((int(at, 16), name) for at, name in re.findall(r"^([0-9a-f]{8,16}) \w (\S+)$", text, re.MULTILINE))
    beyond: dict[int, int] = dict(pairwise(dict.fromkeys(at for at, _ in lines)))
    return {name: (at, beyond.get(at, at) - at) for at, name in reversed(lines)}


def _ready(kernel: Shipped, scratch: Path) -> Shipped:
    """Make of what was found what can be booted.

    Raises:
        BadInput: it cannot; says why.
    """
    given, image = kernel.image, kernel.image
    scratch.mkdir(exist_ok=True)
    data = _unpacked(given)
    if len(data) < 4096:
        raise BadInput(f"{kernel.package}: no kernel: only {len(data)} bytes")
    plain, zboot = data, data[4:8] == b"zimg"
    # A bzImage is looked into for its configuration alone.
    if zboot or (data[0x202:0x206] == b"HdrS" and not kernel.config_file):
        plain = _inner(given.name, data, scratch) or data
    data = plain if zboot else data
    if zboot or _head(given).startswith(_PACKED):
        image = scratch / "image"
        image.write_bytes(data)
    arch, bzimage = arches.of_image(data), data[0x202:0x206] == b"HdrS"
    # Those for 32 bits are bzImages as well, and say so in their flags.
    if not arch or (bzimage and not data[0x236] & 1):
        raise BadInput(f"{kernel.package}: no kernel for {', '.join(arches.names())}")
    if bzimage:
        start = int.from_bytes(data[0x20E:0x210], "little") + 0x200
        said = re.match(rb"[^\0 ]+", data[start : start + 256])
    else:
        said = re.search(rb"Linux version ([^\0 ]+) \(", plain)
    release = said[said.re.groups].decode(errors="replace") if said else ""
    if not release:
        raise BadInput(f"{kernel.package}: no kernel: no version of Linux in it")
    if kernel.release and release != kernel.release:
        raise BadInput(f"{kernel.package}: the image is of {release}, the rest of {kernel.release}")
    config = kernel.config_file
    start, end = plain.find(b"IKCFG_ST"), plain.find(b"IKCFG_ED")
    if not config and 0 <= start < end:
        config = scratch / "config.gz"
        config.write_bytes(plain[start + 8 : end])
    return replace(
        kernel,
        release=release,
        image=image,
        arch=arch,
        config_file=config,
        config=Config.read(config) if config else None,
        addresses=_addresses(kernel.map),
        scratch=scratch,
    )


@dataclass(frozen=True)
class Given:
    """What the user gave of one kernel.

    Attributes:
        release: what the files' names say that it is; empty for a bare image.
        packages: its packages.
        found: what was found in a folder, or a bare image.
    """

    release: str
    packages: tuple[Path, ...] = ()
    found: Shipped | None = None

    def open(self, scratch: Path) -> Shipped:
        """Unpack it below a private folder.

        Raises:
            BadInput: it is damaged, or not whole.
        """
        kernel = self.found or Shipped(self.release)
        for number, path in enumerate(self.packages):
            if part := _package(path, scratch / f"package-{number}").get(self.release):
                kernel.take(part)
        if not kernel.whole:
            raise BadInput(f"{self.packages[0]}: no image of {self.release} in it: give the package with it as well")
        return _ready(kernel, scratch)


def _release(path: Path) -> str:
    """Return the release that a package's first file of a kernel is of; nothing if it has none."""
    found: dict[str, Shipped] = {}
    for name, _ in _members(path):
        _sort(name, path, found)
        for release in found:
            return release
    return ""


def find(
    paths: Sequence[Path], modules: Path | None, installed: bool, say: Callable[[str], None] = print
) -> list[Given]:
    """Tell which kernels there are in packages, folders and images; nothing is unpacked yet.

    Args:
        paths: what the user gave.
        modules: the folder with the modules of an image.
        installed: take this machine's own kernel as well.
        say: is told of packages that only name others, as Debian's linux-image does since 6.19.

    Raises:
        BadInput: something of it is no kernel, or there is none.
    """
    packages: dict[str, list[Path]] = {}
    found: list[Given] = []
    images = 0
    for path in paths:
        try:
            # What is no file is not waited for.
            magic = b"" if path.is_dir() else _head(path) if path.is_file() else files.read(path)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
        if path.is_dir():
            here = _folder(path)
            if not here:
                raise BadInput(f"{path}: no boot/vmlinuz-VERSION in this folder")
            found += [Given(release, found=kernel) for release, kernel in here.items()]
        elif magic == b"!<arch>\n" or magic[:4] == b"\xed\xab\xee\xdb":
            packages.setdefault(_release(path), []).append(path)
        else:
            images += 1
            found.append(Given("", found=Shipped("", str(path), digest(path), path, modules=_below(modules))))
    if modules and images != 1:
        raise BadInput(f"--modules goes with one image, and {images} were given")
    if installed:
        release = os.uname().release
        kernel = _folder(Path("/")).get(release)
        if not kernel:
            raise BadInput(f"no /boot/vmlinuz-{release} on this machine: give the kernel's package")
        found.append(Given(release, found=kernel))
    for path in packages.pop("", []):
        if not packages:
            raise BadInput(f"{path}: no kernel in this package: give those with its image and its modules")
        say(f"{path}: no kernel in this package: left out")
    return [*(Given(release, tuple(each)) for release, each in packages.items()), *found]


def _below(folder: Path | None) -> dict[str, Path]:
    """Return the modules below a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()] if folder else []
    found = {name: path for path in paths if (name := _module(path.name))}
    if folder and not found:
        raise BadInput(f"--modules {folder}: no modules below it")
    return found
