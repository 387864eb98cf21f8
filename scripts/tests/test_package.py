# SPDX-License-Identifier: GPL-2.0-only
"""What a package, a folder or an image is taken for, and that a stranger's leaves nothing where it should not."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
from itertools import takewhile
from pathlib import Path

import pytest

import kernels
from conftest import tools
from kernels import RELEASE
from kmendlib.host.errors import BadInput
from kmendlib.tree import arches, package
from kmendlib.tree.package import Shipped

pytestmark = pytest.mark.skipif(not shutil.which("bsdtar"), reason="no bsdtar: install libarchive-tools")


def opened(tmp_path: Path, *paths: Path, modules: Path | None = None) -> Shipped:
    """Return the one kernel in what is given."""
    (given,) = package.find(paths, modules, False)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return given.open(scratch)


def test_a_deb(tmp_path: Path) -> None:
    path = kernels.deb(tmp_path / "a.deb", kernels.archive(kernels.files()))
    kernel = opened(tmp_path, path)
    assert (kernel.release, kernel.arch, kernel.package) == (RELEASE, "x86_64", "linux-image-lab 6.12.99-1")
    assert kernel.config and "CONFIG_PCI" in kernel.config.set
    assert list(kernel.modules) == ["kvm"]
    assert kernel.image.read_bytes() == kernels.image()


def test_what_an_image_below_the_modules_is_called(tmp_path: Path) -> None:
    """As the kernel's own `make binrpm-pkg` and newer Debian packages have it."""
    place = f"./usr/lib/modules/{RELEASE}"
    contents = {f"{place}/vmlinuz": kernels.image(), f"{place}/config": b"CONFIG_A=y\n", f"{place}/System.map": b""}
    kernel = opened(tmp_path, kernels.rpm(tmp_path / "a.rpm", contents))
    assert kernel.release == RELEASE and kernel.config


def test_packages_of_one_kernel(tmp_path: Path) -> None:
    names = kernels.files()
    split = ({name: content for name, content in names.items() if name.startswith(part)} for part in ("boot", "lib"))
    paths = [kernels.deb(tmp_path / f"{n}.deb", kernels.archive(each), str(n)) for n, each in enumerate(split)]
    kernel = opened(tmp_path, *reversed(paths))
    assert (kernel.package, list(kernel.modules)) == ("0 6.12.99-1", ["kvm"])


def test_two_images_of_one_release(tmp_path: Path) -> None:
    """As two builds of one tree: neither is mixed up with the other."""
    paths = [kernels.deb(tmp_path / f"{n}.deb", kernels.archive(kernels.files()), n) for n in ("before", "after")]
    with pytest.raises(BadInput, match="two images of 6.12.99-lab, in before 6.12.99-1 and after 6.12.99-1"):
        opened(tmp_path, *paths)


def test_several_kernels(tmp_path: Path) -> None:
    paths = [
        kernels.deb(tmp_path / f"{release}.deb", kernels.archive(kernels.files(release=release)))
        for release in ("6.1.1", "6.12.2", "7.2.3")
    ]
    assert [given.release for given in package.find(paths, None, False)] == ["6.1.1", "6.12.2", "7.2.3"]


@pytest.mark.parametrize("arch", arches.names())
def test_images_of_all_architectures(arch: str, tmp_path: Path) -> None:
    known = arches.load(arch).image
    assert known
    path = tmp_path / "Image.gz"
    path.write_bytes(gzip.compress(kernels.image(magic=known.magic)))
    kernel = opened(tmp_path, path)
    assert (kernel.arch, kernel.release) == (arch, RELEASE)
    elf = b"\x7fELF\x02" + bytes(13) + known.elf.to_bytes(2, "little")
    assert arches.of_image(elf.ljust(4096, b"\0")) == arch


def test_a_packed_efi_image(tmp_path: Path) -> None:
    known = arches.load("arm64").image
    assert known
    inside = gzip.compress(kernels.image(magic=known.magic))
    outside = b"MZ\0\0zimg" + (4096).to_bytes(4, "little") + len(inside).to_bytes(4, "little")
    (tmp_path / "vmlinuz").write_bytes(outside.ljust(4096, b"\0") + inside)
    kernel = opened(tmp_path, tmp_path / "vmlinuz")
    assert kernel.arch == "arm64" and kernel.image.read_bytes() == gzip.decompress(inside)
    (tmp_path / "vmlinuz").write_bytes(outside.ljust(4096, b"\0") + inside[:-20])
    shutil.rmtree(kernel.scratch)
    with pytest.raises(BadInput, match=r"^vmlinuz \(payload\): cannot be unpacked"):
        opened(tmp_path, tmp_path / "vmlinuz")


def test_a_configuration_within_an_image(tmp_path: Path) -> None:
    known = arches.load("riscv64").image
    assert known
    config = b"IKCFG_ST" + gzip.compress(b"CONFIG_IKCONFIG=y\n") + b"IKCFG_ED"
    (tmp_path / "Image").write_bytes(kernels.image(magic=known.magic) + config)
    kernel = opened(tmp_path, tmp_path / "Image")
    assert kernel.config and kernel.config.set == {"CONFIG_IKCONFIG"}


def test_modules_in_the_order_of_their_needs(tmp_path: Path) -> None:
    modules = {"c": "b,a-x", "b": "a-x", "a-x": "", "z": ""}
    for name, depends in modules.items():
        (tmp_path / f"{name}.ko.gz").write_bytes(gzip.compress(kernels.module(name, depends=depends)))
    (tmp_path / "bzImage").write_bytes(kernels.image())
    kernel = opened(tmp_path, tmp_path / "bzImage", modules=tmp_path)
    assert list(kernel.order(["c", "none", "b"])) == ["a_x", "b", "c"]
    (tmp_path / "z.ko.gz").write_bytes(gzip.compress(kernels.module("z", release="6.12.1")))
    with pytest.raises(BadInput, match=f"module z is of 6.12.1, the kernel is {RELEASE}"):
        kernel.order(["z"])
    (tmp_path / "z.ko.gz").write_bytes(b"\x1f\x8bno")
    shutil.rmtree(kernel.scratch)
    kernel.scratch.mkdir()
    with pytest.raises(BadInput, match="module z: cannot be unpacked"):
        kernel.order(["z"])


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Return a member of an archive that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_hostile_package_leaves_its_kernel_alone(tmp_path: Path) -> None:
    """Links, devices, and paths that lead out of the folder: no file of them is made, and none is read through them."""
    contents = {
        f"../../boot/vmlinuz-{RELEASE}": b"out",
        f"lib/modules/{RELEASE}/../../../../out.ko": b"out",
        f"lib/modules/{RELEASE}/kernel/../../../out.ko": b"out",
        "etc/passwd": b"out",
        **kernels.files(),
    }
    members = [
        member(f"lib/modules/{RELEASE}/link.ko", tarfile.SYMTYPE, "/etc/passwd"),
        member(f"boot/System.map-{RELEASE}", tarfile.SYMTYPE, "/etc/passwd"),
        member(f"lib/modules/{RELEASE}/hard.ko", tarfile.LNKTYPE, "/etc/passwd"),
        member(f"lib/modules/{RELEASE}/disk.ko", tarfile.BLKTYPE),
        member(f"lib/modules/{RELEASE}/pipe.ko", tarfile.FIFOTYPE),
    ]
    kernel = opened(tmp_path, kernels.deb(tmp_path / "a.deb", kernels.archive(contents, members)))
    assert list(kernel.modules) == ["kvm"] and not kernel.addresses
    found = {path.relative_to(tmp_path / "scratch").as_posix() for path in (tmp_path / "scratch").rglob("*.ko")}
    assert found == {f"package-0/lib/modules/{RELEASE}/kernel/arch/x86/kvm/kvm.ko"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.deb", "scratch"]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_package_a_hundred_times_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "LEAST", 1 << 20)
    bomb = kernels.archive(kernels.files() | {f"lib/modules/{RELEASE}/big.ko": bytes(8 << 20)})
    path = kernels.deb(tmp_path / "a.deb", bomb)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(BadInput, match="unpacks to more than"):
        opened(tmp_path, path)
    kept = sum(path.stat().st_size for path in (tmp_path / "scratch").rglob("*") if path.is_file())
    assert kept < 2 << 20


@pytest.mark.parametrize("left", [200, 2000, 1 << 15, -40])
@pytest.mark.parametrize("name", ["usr/x", f"lib/modules/{RELEASE}/x.ko"])
def test_a_package_that_is_cut_off(left: int, name: str, tmp_path: Path) -> None:
    """Where nothing is kept of it, and within a file that is."""
    contents = kernels.files() | {name: os.urandom(1 << 16)}
    whole = kernels.deb(tmp_path / "a.deb", kernels.archive(contents)).read_bytes()
    (tmp_path / "a.deb").write_bytes(whole[:left])
    with pytest.raises(BadInput, match=r"a\.deb: (a package that is cut off or damaged|no kernel)"):
        opened(tmp_path, tmp_path / "a.deb")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_tools_run_as_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(monkeypatch, tmp_path / "bin", bsdcat="id -u; pwd; touch here 2>/dev/null && echo wrote; exit 0")
    # Down from the folder of temporary files, which is left alone.
    for folder in (tmp_path, *takewhile(lambda folder: folder != Path(tempfile.gettempdir()), tmp_path.parents)):
        folder.chmod(0o755)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x"))
    assert package._unpacked(tmp_path / "a.gz") == b"65534\n/\n"


def test_an_image_of_another_version_than_its_name(tmp_path: Path) -> None:
    contents = kernels.files() | {f"boot/vmlinuz-{RELEASE}": kernels.image(release="6.12.1")}
    with pytest.raises(BadInput, match=f"the image is of 6.12.1, the rest of {RELEASE}"):
        opened(tmp_path, kernels.deb(tmp_path / "a.deb", kernels.archive(contents)))


def test_what_is_no_kernel_for_us(tmp_path: Path) -> None:
    """A program, and a bzImage for 32 bits: neither is booted."""
    program = b"\x7fELF\x02" + bytes(13) + (62).to_bytes(2, "little")
    small = bytearray(kernels.image())
    small[0x236] = 0
    for content, says in ((program.ljust(8192, b"\0"), "no version of Linux"), (small, "no kernel for x86_64")):
        shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(BadInput, match=f"/a: .*{says}"):
            opened(tmp_path, tmp_path / "a")


def test_a_system_map(tmp_path: Path) -> None:
    """Debian's says that the real one is elsewhere."""
    real = b"ffffffff81000000 T _text\nffffffff81000040 T second\nffffffff81000100 D last\n"
    stub = b"ffffffffffffffff B The real System.map is elsewhere\n"
    for content, known in ((real, {"_text", "second", "last"}), (stub, set())):
        shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
        contents = kernels.files() | {f"boot/System.map-{RELEASE}": content}
        kernel = opened(tmp_path, kernels.deb(tmp_path / "a.deb", kernels.archive(contents)))
        assert set(kernel.addresses) == known
        assert not known or kernel.addresses["second"] == (0xFFFFFFFF81000040, 0xC0)
