# SPDX-License-Identifier: GPL-2.0-only
"""Kernels as somebody ships them: the image, modules and configuration of packages, folders or bare images.

Packages are a stranger's.  bsdtar and bsdcat read them, as nobody where there is a choice, and only turn what comes in
into what goes out; what is kept of that is written here: regular files with a kernel's names, up to a limit.
"""

import hashlib
import mmap
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO

from kmendlib.host import files, proc
from kmendlib.host.errors import BadInput
from kmendlib.tree import arches
from kmendlib.tree.config import Config

NOBODY = 65534
# Unpacked, a package may have so many times its own size, or so many bytes. Real ones have four times.
RATIO, LEAST = 40, 64 << 20
# An image, unpacked, or a module.
MOST = 512 << 20
# Seconds that a tool has to end when it has said all.
WAIT = 30.0

_FILE = re.compile(r"(?:\./|/)*(?:usr/)?(boot/[^/]+|lib/modules/[^/]+/(?:[^/]+|.+\.ko(?:\.\w+)?))")
_BOOT = re.compile(r"boot/(vmlinu[xz]|[bz]*Image(?:\.gz)?|config|System\.map)-(.+)")
_MODULES = re.compile(r"lib/modules/([^/]+)/(.+)")
_IN_MODULES = {"vmlinuz": "image", "config": "config", "System.map": "map", "modules.builtin": "builtin"}
_PACKED = (b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"BZh", b"\x02\x21\x4c\x18", b"\x04\x22\x4d\x18", b"\x5d\0\0")


@dataclass
class Parts:
    """What was found of a kernel, by its release; the paths are where it can be read.

    Attributes:
        release: what ``uname -r`` says there.
        package: name and version of the package with the image, or the path.
        digest: SHA-256 of the file that was given; of a folder that of the image.
        image, config, map, builtin: the files.
        modules: the modules' files by name, with underscores.
    """

    release: str
    package: str = ""
    digest: str = ""
    image: Path | None = None
    config: Path | None = None
    map: Path | None = None
    builtin: Path | None = None
    modules: dict[str, Path] = field(default_factory=dict)

    def take(self, other: "Parts") -> None:
        """Add what another package has of it.

        Raises:
            BadInput: both have an image.
        """
        if self.image and other.image:
            raise BadInput(f"two images of {self.release}, in {self.package} and {other.package}: try one at a time")
        if other.image:
            self.package, self.digest = other.package, other.digest
        for name in ("image", "config", "map", "builtin"):
            setattr(self, name, getattr(other, name) or getattr(self, name))
        self.modules |= other.modules


@dataclass(frozen=True)
class Shipped:
    """A kernel that somebody else built.

    Attributes:
        release: what ``uname -r`` says there.
        package: name and version of the package, or the path.
        digest: SHA-256 of what was given.
        arch: the architecture, by kmend's name.
        image: an image that QEMU boots.
        config: its configuration, if that is known.
        config_file: that as a file.
        addresses: data of System.map by name, if there is one: address and size.
        modules: its modules' files by name, with underscores.
        scratch: where files made of them may be put.
    """

    release: str
    package: str
    digest: str
    arch: str
    image: Path
    config: Config | None
    config_file: Path | None
    addresses: dict[str, tuple[int, int]]
    modules: dict[str, Path]
    scratch: Path

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
            needs = re.search(rb"\0depends=([\w,-]+)\0", data)
            needed = needs[1].decode().split(",") if needs else []
            for each in needed:
                if each.replace("-", "_") not in self.modules:
                    raise BadInput(f"module {name} needs {each}, which is missing")
            found |= {key: value for key, value in self.order(needed).items() if key not in found}
            found[path.stem] = path
        return found


@contextmanager
def _tool(words: Sequence[str], source: int | IO[bytes], errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    # It stands where it can write nothing, and its complaints go where they fill no pipe.
    options = {"stdin": source, "stdout": subprocess.PIPE, "stderr": errors, "env": proc.environment(), "cwd": "/"}
    with proc.child(words, **options, **who) as process:
        yield process


def _complaint(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read(1 << 16).decode(errors="replace").strip().splitlines()
    return lines[0].strip() if lines else "nothing in it"


def _packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith(_PACKED)


def _unpacked(path: Path) -> bytes:
    """Return a file's content, unpacked.

    Raises:
        BadInput: it is damaged, or too large.
    """
    if not _packed(path):
        return files.read(path, MOST)
    with path.open("rb") as file, tempfile.TemporaryFile() as errors:
        with _tool(["bsdcat"], file, errors) as process:
            assert process.stdout
            data = process.stdout.read(MOST + 1)
            whole = len(data) <= MOST and proc.wait(process, WAIT)
        if not whole or process.returncode:
            raise BadInput(f"{path.name}: cannot be unpacked: {_complaint(errors) if whole else 'too large'}")
    return data


# Packages


def _members(path: Path, deb: bool) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of a package's regular files with a kernel's names.

    Raises:
        BadInput: it is damaged, or unpacks to what no kernel has.
    """
    most = max(path.stat().st_size * RATIO, LEAST)
    total = 0
    with ExitStack() as stack:
        source: IO[bytes] = stack.enter_context(path.open("rb"))
        errors = stack.enter_context(tempfile.TemporaryFile())
        if deb:
            outer = stack.enter_context(_tool(["bsdtar", "-xOf", "-", "data.tar*"], source, errors))
            assert outer.stdout
            source = outer.stdout
        inner = stack.enter_context(_tool(["bsdtar", "-cf", "-", "--format=pax", "@-"], source, errors))
        assert inner.stdout
        with suppress(tarfile.TarError, EOFError, ValueError):
            with tarfile.open(fileobj=inner.stdout, mode="r|") as tar:
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
        while inner.stdout.read(1 << 16):
            pass
        if not proc.wait(inner, WAIT) or inner.poll() or not total:
            raise BadInput(f"{path}: a package that is cut off or damaged: {_complaint(errors)}")


def _name(path: Path, deb: bool) -> str:
    """Return name and version of a package, as it says itself."""
    with path.open("rb") as file, tempfile.TemporaryFile() as errors:
        if not deb:
            return file.read(76)[10:].split(b"\0")[0].decode(errors="replace") or path.name
        with _tool(["bsdtar", "-xOf", "-", "control.tar*"], file, errors) as outer:
            assert outer.stdout
            with _tool(["bsdtar", "-xOf", "-", "*control"], outer.stdout, errors) as inner:
                assert inner.stdout
                text = inner.stdout.read(1 << 16).decode(errors="replace")
    said = dict(re.findall(r"^(Package|Version): *(\S+)", text, re.MULTILINE))
    return f"{said['Package']} {said['Version']}" if len(said) == 2 else path.name


def _package(path: Path, deb: bool, scratch: Path) -> dict[str, Parts]:
    """Unpack a package below a private folder."""
    found: dict[str, Parts] = {}
    for name, content in _members(path, deb):
        target = scratch / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            with target.open("wb") as out:
                while data := content.read(1 << 20):
                    out.write(data)
            _sort(name, target, found)
    for parts in found.values():
        parts.package, parts.digest = _name(path, deb), _digest(path)
    return found


def _sort(name: str, path: Path, found: dict[str, Parts]) -> None:
    """Put a file with a kernel's name among the parts of that kernel."""
    boot, within = _BOOT.fullmatch(name), _MODULES.fullmatch(name)
    if boot:
        parts = found.setdefault(boot[2], Parts(boot[2]))
        setattr(parts, {"config": "config", "System.map": "map"}.get(boot[1], "image"), path)
    elif within:
        parts = found.setdefault(within[1], Parts(within[1]))
        kind = _IN_MODULES.get(within[2], "")
        if kind and not getattr(parts, kind):
            setattr(parts, kind, path)
        elif module := _module(within[2].rpartition("/")[2]):
            parts.modules[module] = path


def _module(name: str) -> str:
    """Return the module's name of a file's, or nothing."""
    match = re.fullmatch(r"([^/]+)\.ko(?:\.\w+)?", name)
    return match[1].replace("-", "_") if match else ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(path: Path) -> dict[str, Parts]:
    """Look at a folder with boot/ and lib/modules/."""
    found: dict[str, Parts] = {}
    for place in ("boot", "lib/modules", "usr/lib/modules"):
        for folder, _, names in os.walk(path / place):
            for name in names:
                file = Path(folder, name)
                known = _FILE.fullmatch(file.relative_to(path).as_posix())
                if known and file.is_file():
                    _sort(known[1], file, found)
    for parts in found.values():
        parts.package = f"{path} {parts.release}"
        parts.digest = _digest(parts.image) if parts.image else ""
    return found


# Images


def _payload(data: bytes | mmap.mmap) -> bytes:
    """Return what is packed in an bzImage or EFI zboot image; nothing where nothing is."""
    start = size = 0
    if data[0x202:0x206] == b"HdrS":
        start = ((data[0x1F1] or 4) + 1) * 512 + int.from_bytes(data[0x248:0x24C], "little")
        size = int.from_bytes(data[0x24C:0x250], "little")
        # All but gzip's have their size behind them.
        size -= 4 if data[start : start + 2] != b"\x1f\x8b" else 0
    elif data[:2] == b"MZ" and data[4:8] == b"zimg":
        start, size = int.from_bytes(data[8:12], "little"), int.from_bytes(data[12:16], "little")
    return data[start : start + size]


def _inner(data: bytes | mmap.mmap, scratch: Path) -> Path | None:
    """Write what is packed in an image to a file; None where nothing is."""
    packed, plain = scratch / "payload", scratch / "unpacked"
    packed.write_bytes(_payload(data))
    if not packed.stat().st_size:
        return None
    plain.write_bytes(_unpacked(packed))
    return plain


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _built_in_config(data: bytes | mmap.mmap, scratch: Path) -> Path | None:
    """Return the configuration that an image without compression holds (IKCONFIG)."""
    start, end = data.find(b"IKCFG_ST"), data.find(b"IKCFG_ED")
    if not 0 <= start < end:
        return None
    (scratch / "config.gz").write_bytes(data[start + 8 : end])
    return scratch / "config.gz"


def _addresses(path: Path | None) -> dict[str, tuple[int, int]]:
    """Return address and size of each symbol of a System.map."""
    text = files.read_text(path, errors="replace") if path else ""
    lines = sorted((int(at, 16), name) for at, name in re.findall(r"^([0-9a-f]{8,16}) \w (\S+)$", text, re.MULTILINE))
    beyond: dict[int, int] = dict(pairwise(dict.fromkeys(at for at, _ in lines)))
    return {name: (at, beyond.get(at, at) - at) for at, name in reversed(lines)}


def _ready(parts: Parts, scratch: Path) -> Shipped:
    """Make of what was found what can be booted.

    Raises:
        BadInput: it cannot; says why.
    """
    image = parts.image
    assert image
    scratch.mkdir(exist_ok=True)
    if _packed(image):
        (scratch / "image").write_bytes(_unpacked(image))
        image = scratch / "image"
    if image.stat().st_size < 4096:
        raise BadInput(f"{parts.image}: no kernel: only {image.stat().st_size} bytes")
    data = _mapped(image)
    # A bzImage is looked into for its configuration alone.
    looked_into = data[4:8] == b"zimg" or (data[0x202:0x206] == b"HdrS" and not parts.config)
    inner = _inner(data, scratch) if looked_into else None
    plain = _mapped(inner) if inner else data
    if inner and data[4:8] == b"zimg":
        image, data = inner, plain
    arch = arches.of_image(data)
    if not arch:
        raise BadInput(f"{parts.image}: no kernel for {', '.join(arches.names())}")
    if data[0x202:0x206] == b"HdrS":
        start = int.from_bytes(data[0x20E:0x210], "little") + 0x200
        said = re.match(rb"[^\0 ]+", data[start : start + 256])
    else:
        said = re.search(rb"Linux version ([^\0 ]+) \(", plain)
    release = said[said.re.groups].decode(errors="replace") if said else ""
    if parts.release and release != parts.release:
        raise BadInput(f"{parts.image}: the image is of {release or 'nobody knows what'}, the rest of {parts.release}")
    config = parts.config or _built_in_config(plain, scratch)
    return Shipped(
        release,
        parts.package,
        parts.digest,
        arch,
        image,
        Config.read(config) if config else None,
        config,
        _addresses(parts.map),
        parts.modules,
        scratch,
    )


@dataclass(frozen=True)
class Given:
    """What the user gave of one kernel.

    Attributes:
        release: what the files' names say that it is; empty for a bare image.
        packages: its packages.
        parts: what was found in a folder, or a bare image.
    """

    release: str
    packages: tuple[Path, ...] = ()
    parts: Parts | None = None

    def open(self, scratch: Path) -> Shipped:
        """Unpack it below a private folder.

        Raises:
            BadInput: it is damaged, or not whole.
        """
        parts = self.parts or Parts(self.release)
        for number, path in enumerate(self.packages):
            for release, more in _package(path, _is_deb(path), scratch / f"package-{number}").items():
                if release == self.release:
                    parts.take(more)
        if not parts.image:
            raise BadInput(f"{self.packages[0]}: modules of {self.release} without an image: give that package as well")
        return _ready(parts, scratch)


def _is_deb(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8) == b"!<arch>\n"


def _release(path: Path) -> str:
    """Return the release that a package's first file of a kernel is of.

    Raises:
        BadInput: it has none.
    """
    found: dict[str, Parts] = {}
    for name, _ in _members(path, _is_deb(path)):
        _sort(name, path, found)
        if found:
            return next(iter(found))
    raise BadInput(f"{path}: no kernel in this package: give those with its image and its modules")


def find(paths: Sequence[Path], modules: Path | None, installed: bool) -> list[Given]:
    """Tell which kernels there are in packages, folders and images; nothing is unpacked yet.

    Args:
        paths: what the user gave.
        modules: the folder with the modules of an image.
        installed: take this machine's own kernel as well.

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
            here = [parts for parts in _folder(path).values() if parts.image]
            if not here:
                raise BadInput(f"{path}: no boot/vmlinuz-VERSION in this folder")
            found += [Given(parts.release, parts=parts) for parts in here]
        elif magic == b"!<arch>\n" or magic[:4] == b"\xed\xab\xee\xdb":
            packages.setdefault(_release(path), []).append(path)
        else:
            images += 1
            found.append(Given("", parts=Parts("", str(path), _digest(path), path, modules=_below(modules))))
    if modules and images != 1:
        raise BadInput(f"--modules goes with one image, and {images} were given")
    if installed:
        release = os.uname().release
        parts = _folder(Path("/")).get(release, Parts(release))
        if not parts.image:
            raise BadInput(f"no /boot/vmlinuz-{release} on this machine: give the kernel's package")
        found.append(Given(release, parts=parts))
    return [*(Given(release, tuple(each)) for release, each in packages.items()), *found]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _below(folder: Path | None) -> dict[str, Path]:
    """Return the modules below a folder."""
    names = [Path(place, name) for place, _, names in os.walk(folder or "") for name in names] if folder else []
    found = {_module(path.name): path for path in names if _module(path.name) and path.is_file()}
    if folder and not found:
        raise BadInput(f"--modules {folder}: no modules below it")
    return found
