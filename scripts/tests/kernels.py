# SPDX-License-Identifier: GPL-2.0-only
"""Makes what looks like kernels and their packages, and packages that no kernel is in, for the tests of `kmend try`."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

RELEASE = "6.12.99-lab"
CONFIG = "CONFIG_PCI=y\nCONFIG_DEBUG_LIST=y\n# CONFIG_NFSD is not set\nCONFIG_KVM=y\n# CONFIG_MEMCG is not set\n"


def image(first: str = "after", release: str = RELEASE, magic: tuple[int, bytes] = (0x202, b"HdrS")) -> bytes:
    """Return an image; QEMU's stand-in looks at its first line."""
    data = bytearray(8192)
    data[: len(first) + 1] = f"{first}\n".encode()
    data[magic[0] : magic[0] + len(magic[1])] = magic[1]
    data[0x236] = 1
    data[0x20E:0x210] = (0x1000).to_bytes(2, "little")
    data[0x1200 : 0x1200 + len(release) + 1] = f"{release} ".encode()
    said = f"Linux version {release} (somebody)".encode()
    data[0x1800 : 0x1800 + len(said)] = said
    return bytes(data)


def module(name: str, release: str = RELEASE, depends: str = "", holds: str = "") -> bytes:
    """Return a module."""
    return f"\x7fELF\0{holds}\0vermagic={release} SMP\0name={name}\0depends={depends}\0".encode()


def files(first: str = "after", release: str = RELEASE, config: str = CONFIG) -> dict[str, bytes]:
    """Return the files of a kernel, by their paths."""
    return {
        f"boot/vmlinuz-{release}": image(first, release),
        f"boot/config-{release}": config.encode(),
        f"lib/modules/{release}/kernel/arch/x86/kvm/kvm.ko": module("kvm", release),
    }


def archive(contents: Mapping[str, bytes], members: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """Return a tar archive of files, and of further members without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return gzip.compress(out.getvalue(), mtime=0)


def deb(path: Path, data: bytes, name: str = "linux-image-lab", version: str = "6.12.99-1") -> Path:
    """Write a Debian package."""
    control = archive({"./control": f"Package: {name}\nVersion: {version}\n".encode()})
    out = b"!<arch>\n"
    for member, content in (("debian-binary", b"2.0\n"), ("control.tar.gz", control), ("data.tar.gz", data)):
        out += f"{member:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    path.write_bytes(out)
    return path


def rpm(path: Path, contents: Mapping[str, bytes], name: str = "kernel-6.12.99-1") -> Path:
    """Write an RPM package, as far as bsdtar looks: a lead, two empty headers, and a compressed cpio archive."""
    words = ["bsdtar", "-cf", "-", "--format=newc", "@-"]
    cpio = subprocess.run(words, input=archive(contents), stdout=subprocess.PIPE, check=True).stdout
    lead = b"\xed\xab\xee\xdb\x03\0\0\0\0\x01" + name.encode().ljust(66, b"\0") + bytes(20)
    header = b"\x8e\xad\xe8\x01" + bytes(12)
    path.write_bytes(lead + header + header + gzip.compress(cpio))
    return path


def write_all(place: Path) -> None:
    """Write what the cases of `kmend try` are about into a folder.

    Of a good kernel the race is held, of a bad one broken: QEMU's stand-in takes the first line for the state.
    """
    place.mkdir()
    good, bad = files(), files("before", "6.1.99-lab")
    deb(place / "good.deb", archive(good))
    deb(place / "bad.deb", archive(bad), version="6.1.99-1")
    rpm(place / "good.rpm", good)
    for part, name in (("boot", "image"), ("lib", "modules")):
        deb(place / f"{name}.deb", archive({each: good[each] for each in good if each.startswith(part)}), name)
    deb(place / "doc.deb", archive({"usr/share/doc/x": b"x"}))
    whole = (place / "good.deb").read_bytes()
    (place / "cut.deb").write_bytes(whole[: len(whole) - 60])
    # Cut off within a file, and not in what ends the archive.
    large = rpm(place / "cut.rpm", good | {f"lib/modules/{RELEASE}/large.ko": random.Random(1).randbytes(1 << 18)})
    large.write_bytes(large.read_bytes()[: 1 << 17])
    bomb = archive(good | {f"lib/modules/{RELEASE}/big.ko": bytes(80 << 20)})
    deb(place / "bomb.deb", bomb)
    built_in = CONFIG.replace("# CONFIG_NFSD is not set", "CONFIG_NFSD=y\nCONFIG_NFSD_V4=y")
    deb(place / "nfsd.deb", archive(files(config=built_in)))
    other = {name: module("kvm", "6.12.1") if name.endswith(".ko") else content for name, content in good.items()}
    config = CONFIG.replace("# CONFIG_NFSD is not set", "CONFIG_NFSD=m\nCONFIG_NFSD_V4=y").encode()
    other |= {f"boot/config-{RELEASE}": config, f"lib/modules/{RELEASE}/nfsd.ko": module("nfsd", "6.12.1")}
    deb(place / "other.deb", archive(other))
    (place / "bzImage").write_bytes(image())
    (place / "foreign").write_bytes(image(magic=(0x40, b"nothing")))
    (place / "empty").touch()
    for name, content in good.items():
        (place / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "root" / name).write_bytes(content)
