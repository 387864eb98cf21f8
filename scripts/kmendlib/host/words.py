# SPDX-License-Identifier: GPL-2.0-only
"""Words that the user is shown, each with its meaning: help and Documentation are made from them.

What others wrote is shown, too, and shown alone: a console or a path must not give orders to a terminal.
"""

import re
from enum import StrEnum
from typing import Self


class Word(StrEnum):
    """One of a set of words; each member is given as the word and its `meaning`."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        word = str.__new__(cls, value)
        word._value_ = value
        word.meaning = meaning
        return word


class Outcome(Word):
    """What came of a suite on an architecture, all boots together: the column "result"."""

    PROVED = "PROVED", "each boot with the bug was red, each without it green"
    PASS = "PASS", "no case proves the bug here: each boot of the mended kernel was green, and each other had a result"
    SKIP = "SKIP", "each boot of the mended kernel said that the suite cannot run here"
    NOT_RUN = "not run", "it was not to be run here; the reason is below the table"
    DISPUTED = (
        "DISPUTED",
        "the audit says affected and each boot of the tree as it is was green, or fixed and one was red: one of the"
        " two is wrong",
    )
    NOT_PROVED = "NOT PROVED", "a boot was not as it must be, or is missing; its last lines are below the table"
    ERROR = "ERROR", "a kernel did not build"
    NOT_TRUSTED = "NOT TRUSTED", "the evidence is not as the run left it: cut off, edited, or from an older kmend"


class Has(Word):
    """What a kernel as it was shipped has of a finding; the gravest first."""

    HAS = "has it", "a boot showed it: its race was forced and lost, or the cases that show it failed"
    CANNOT_TELL = "cannot tell", "no boot decided it; the reason says what is missing"
    FREE = "free of it", "each boot showed that it cannot happen: its race was held, or the cases that prove it passed"
    NOT_IN = "not in it", "the kernel was built without that code: by its architecture, an option, or an absent symbol"


class Verdict(Word):
    """What one boot came to.  Only a complete plan can be PASS."""

    PASS = "PASS", "all tests passed, with a complete KTAP plan and a clean kernel log"
    FAIL = "FAIL", "a test failed, or all passed and the kernel complained in its log"
    PANIC = "PANIC", "the kernel died: panic, oops or BUG"
    TIMEOUT = "TIMEOUT", "the time limit was reached, or the console went silent"
    MISS = "MISS", "the boot ended without all of its results: none at all, cut off, or a console without end"
    SKIP = "SKIP", "every case said that it cannot run here, and why"
    ERROR = "ERROR", "there was nothing to judge: QEMU failed, the host gave it no time, or the kernel did not build"


# Control characters, lone surrogates, and what is invisible or turns the direction of text around.
_UNSHOWN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def visible(text: str) -> str:
    """Return text in which each control character, and all that would change how text is shown, is a picture.

    Only the ends of lines and tabs stay, so that a text may have several lines.
    """
    return _UNSHOWN.sub(_picture, text)
