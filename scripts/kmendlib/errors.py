# SPDX-License-Identifier: GPL-2.0-only
"""Exit codes, and the errors that end a command with one of them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit status of a command says. One code for each verdict."""

    OK = 0  # proved, or clean
    FAILED = 1  # a test did not give the verdict it must; audit: affected
    USAGE = 2  # wrong usage or bad input
    PANIC = 3  # the guest panicked where it must not
    NOTHING = 4  # nothing to do, or all skipped; audit: something unknown
    INFRASTRUCTURE = 5  # a tool, the build, QEMU or the disk
    TIMEOUT = 124


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
