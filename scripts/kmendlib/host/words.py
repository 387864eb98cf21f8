# SPDX-License-Identifier: GPL-2.0-only
"""Words that the user is shown, each with its meaning: help and Documentation are made from them."""

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
    NOT_PROVED = "NOT PROVED", "a boot was not as it must be, or is missing; its last lines are below the table"
    ERROR = "ERROR", "a kernel did not build"
    NOT_TRUSTED = "NOT TRUSTED", "the evidence is not as the run left it: cut off, edited, or from an older kmend"
