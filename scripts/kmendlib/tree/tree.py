# SPDX-License-Identifier: GPL-2.0-only
"""A kernel source tree: where it is and which version it says it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kmendlib.host import files
from kmendlib.host.errors import BadInput
from kmendlib.tree import manifest

# The version stands in the first lines of the top Makefile.
_HEAD_LINES = 40
# v6.12's has 70 KB.
_MAKEFILE_LIMIT = 4 << 20
_FIELD = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*([^#\n]*)")


def version_key(version: str) -> tuple[int, ...]:
    """Return `version` ("v5.9", "4.19.90") as numbers that compare."""
    return tuple(int(part) for part in version.removeprefix("v").split("."))


@dataclass(frozen=True)
class Tree:
    """A kernel source tree, or a part of one.

    path: the absolute path.
    version: VERSION.PATCHLEVEL.SUBLEVEL as in "4.19.90", without what a
        vendor adds; None if the tree has no top Makefile.
    extraversion: EXTRAVERSION as the Makefile has it, as in "-2102.3.0".
    """

    path: Path
    version: str | None
    extraversion: str = ""

    @property
    def release(self) -> str:
        """The version with what a vendor adds, or "unknown version"."""
        if self.version is None:
            return "unknown version"
        return self.version + self.extraversion

    @classmethod
    def open(cls, path: str | Path, need_makefile: bool = False) -> Tree:
        """Open the tree at `path`.

        need_makefile: refuse a tree without a kernel Makefile; else one file
            that a bug in the manifest is about makes a tree.

        Raises BadInput if `path` is no kernel tree or cannot be read.
        """
        root = Path(path).absolute()
        try:
            if not root.is_dir():
                what = "not a directory" if root.exists() else "no such directory"
                raise BadInput(f"{path}: {what}; give the top of a kernel source tree")
            root = root.resolve()
            fields = _version_fields(root / "Makefile")
            if fields is not None:
                numbers = [fields[key] for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
                return cls(root, ".".join(numbers), fields.get("EXTRAVERSION", ""))
            if not need_makefile and any((root / name).is_file() for name in manifest.load().files):
                return cls(root, None)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
        raise BadInput(
            f"{path}: no kernel tree: its Makefile does not give a kernel version; "
            f"give the top of a kernel source tree{_hint(root, path)}"
        )


def _hint(root: Path, path: str | Path) -> str:
    """Say where below a folder a kernel tree is, if it is not deep."""
    try:
        for makefile in [*sorted(root.glob("*/Makefile")), *sorted(root.glob("*/*/Makefile"))]:
            if _version_fields(makefile) is not None:
                return f": one is in {Path(path) / makefile.parent.relative_to(root)}"
    except OSError:
        pass
    return ""


def _version_fields(makefile: Path) -> dict[str, str] | None:
    """Return the version fields of a kernel's top Makefile, None if it is none."""
    try:
        head = files.read(makefile, _MAKEFILE_LIMIT).decode("latin-1").split("\n")[:_HEAD_LINES]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    fields: dict[str, str] = {}
    for line in head:
        if match := _FIELD.match(line):
            fields.setdefault(match[1], match[2].strip())
    fields["SUBLEVEL"] = fields.get("SUBLEVEL") or "0"
    numbers = [fields.get(key, "") for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    if not all(re.fullmatch("[0-9]{1,9}", number) for number in numbers):
        return None
    # U-Boot and BusyBox use the same four names: 2024.x and 1.x.
    if not 2 <= int(numbers[0]) < 100:
        return None
    return fields
