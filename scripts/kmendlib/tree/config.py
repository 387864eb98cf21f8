# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's configuration: which options it sets."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kmendlib.host.errors import BadInput

_SET = re.compile(r"^(CONFIG_\w+)=(?!n$)", re.MULTILINE)
_UNSET = re.compile(r"^# CONFIG_\w+ is not set$", re.MULTILINE)
# What a configuration may have, in bytes; real ones have a third of a megabyte.
_MOST = 16 << 20


@dataclass(frozen=True)
class Config:
    """A configuration.

    name: the file's name.
    set: the options that are y, m, or have a value.
    """

    name: str
    set: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read a .config, a /boot/config-VERSION or a /proc/config.gz.

        Raises:
            BadInput: it cannot be read, or is none of these.
        """
        if path.exists() and not path.is_file():
            raise BadInput(f"{path}: cannot be read: not a regular file")
        try:
            with path.open("rb") as file:
                data = file.read(_MOST)
            if data.startswith(b"\x1f\x8b"):
                with gzip.open(path) as file:
                    data = file.read(_MOST)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
        text = data.decode("latin-1").replace("\r\n", "\n")
        found = frozenset(_SET.findall(text))
        if not found and not _UNSET.search(text):
            raise BadInput(f"{path}: no kernel configuration: not one line sets an option")
        return cls(str(path), found)

    def lacks(self, options: Iterable[str]) -> str:
        """Return the first of these options that is not set, or ""."""
        return next((option for option in options if option not in self.set), "")
