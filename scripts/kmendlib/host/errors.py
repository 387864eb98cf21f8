# SPDX-License-Identifier: GPL-2.0-only
"""Exit codes, and the errors that end a command with one of them."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """What the exit status of a command says. One code for each verdict; `meaning` says it to the user."""

    meaning: str

    def __new__(cls, value: int, meaning: str = "") -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    OK = 0, "proved, or clean"
    FAILED = 1, "a test did not give the verdict it must; audit, try: a bug is there; port: conflicts"
    USAGE = 2, "usage or bad input"
    PANIC = 3, "the guest panicked where it must not"
    NOTHING = 4, "nothing to do, or all skipped; audit, try: something is not known"
    INFRASTRUCTURE = 5, "infrastructure: build, QEMU, disk"
    FAULT = 70, "a fault of kmend itself"
    TIMEOUT = 124, "time-out"
    STOPPED = 130, "stopped by Ctrl-C, a lost connection or another signal"
    NO_READER = 141, "whoever read the output went away"


class KmendError(Exception):
    """An error that ends the command.

    The message is one line: what is wrong, where, and what to do about it.
    """

    code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, code: ExitCode | None = None) -> None:
        super().__init__(" ".join(message.split()))
        if code is not None:
            self.code = code


class BadInput(KmendError):
    """The user gave something that cannot be worked on."""

    code = ExitCode.USAGE


class NothingToDo(KmendError):
    """The tree is already as it was asked to be."""

    code = ExitCode.NOTHING


class Infrastructure(KmendError):
    """A tool is missing or broken, or the disk is full."""

    code = ExitCode.INFRASTRUCTURE
