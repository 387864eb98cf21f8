# SPDX-License-Identifier: GPL-2.0-only
"""Wrong drivers are noticed: a share of them here, all by `scripts/mutate --driver`."""

from __future__ import annotations

import re

import pytest

import wrong
from conftest import real_trees

WRONG = wrong.load()
# As few as are run in half a minute.
PART = 15


def test_each_can_be_made() -> None:
    assert [problem for each in WRONG if (problem := each.problem())] == []
    assert len({each.name for each in WRONG}) == len(WRONG)


def test_each_names_a_test() -> None:
    for test in (test for each in WRONG for test in each.tests):
        file, _, name = test.partition("::")
        text = (wrong.REPO / file).read_text(encoding="utf-8")
        name, _, case = name.partition("[")
        assert not name or re.search(rf"^def {re.escape(name)}\(", text, re.MULTILINE), test
        # A command line that is in the table no more.
        assert name != "test_command" or not case or f'"{case.removesuffix("]")}"' in text, test


@pytest.mark.skipif(not real_trees(), reason="KMEND_TREES names no folder with real trees")
@pytest.mark.parametrize("each", wrong.share(WRONG, PART), ids=lambda each: each.name)
def test_noticed(each: wrong.Wrong) -> None:
    noticed, said = wrong.run(each)
    assert noticed, said
