# SPDX-License-Identifier: GPL-2.0-only
"""Standard input, output and error of the program: there, in the terminal's encoding, and with errors that are told."""

import codecs
import contextlib
import io
import locale
import os
import sys
from typing import Any

OUTPUT = "standard output"


class _Raw(io.FileIO):
    """A stream whose errors say which one it is. Of those of standard error nobody could be told."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._number = number

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._number == 2:
                return len(data)
            raise OSError(error.errno, error.strerror, OUTPUT) from None


def prepare() -> None:
    """Open what the caller has closed, and let nothing that is printed fail for its characters."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file would be opened as this one. What is printed there is an error, but for messages.
            os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)
    encoding = "ascii"
    with contextlib.suppress(LookupError):
        encoding = codecs.lookup(locale.getencoding()).name
    # No locale is set then, which says nothing of the terminal.
    encoding = "utf-8" if encoding == "ascii" else encoding
    for number, name in ((1, "stdout"), (2, "stderr")):
        buffer = io.BufferedWriter(_Raw(number))
        stream = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=number == 2 or os.isatty(number))
        setattr(sys, name, stream)


def leave() -> None:
    """Drop what could not be written, so that Python's end does not try it again."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
