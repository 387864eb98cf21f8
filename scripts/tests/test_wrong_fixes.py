# SPDX-License-Identifier: GPL-2.0-only
"""Wrong fixes: which ones are made of a fix. That the tests notice them is seen by `scripts/mutate --fix`."""

from __future__ import annotations

import pytest

from wrong_fixes import WrongFix, wrong_fixes

BEFORE = """\
struct queue {
	int old;
};

static int take(struct queue *q)
{
	int got = 0;

	if (q->old)
		got = look(q); /* a word; { and another */
	put(q);
	return got;
}
"""
AFTER = """\
struct queue {
	spinlock_t lock;
};

static int take(struct queue *q)
{
	int got = 0;

	if (!q || is_empty(q))
		return -EINVAL;
	spin_lock(&q->lock);
	got = look(q, "a;");
	wait_event(q->wait,
		   done(q, 1));
	for (int i = 0; i < 2; i++) {
		if (at(q, i) > 1 && ({ int x = 1; x; }))
			give(q);
	}
	spin_unlock(&q->lock);
	put(q);
	return got;
}
"""


def made(before: str, after: str) -> dict[str, WrongFix]:
    """Return the wrong fixes by what is wrong, without the function."""
    return {each.what: each for each in wrong_fixes("bug", "a.c", before, after)}


@pytest.mark.parametrize(
    "what, lines",
    {
        "left out: spin_lock(&q->lock);": {"\tspin_lock(&q->lock);": "\t;"},
        'left out: got = look(q, "a;");': {'\tgot = look(q, "a;");': "\t;"},
        "left out: return -EINVAL;": {"\t\treturn -EINVAL;": "\t\t;"},
        "left out: wait_event(q->wait, done(q, 1));": {"\twait_event(q->wait,": "\t;", "\t\t   done(q, 1));": ""},
        "weaker: wait_event(q->wait, done(q, 1))": {
            "\twait_event(q->wait,": "\twait_event_timeout(q->wait, done(q, 1), 1)",
            "\t\t   done(q, 1));": ";",
        },
        "turned round: if (!q || is_empty(q))": {"\tif (!q || is_empty(q))": "\tif (!(!q || is_empty(q)))"},
        "not asked: !q in if (!q || is_empty(q))": {"\tif (!q || is_empty(q))": "\tif ( is_empty(q))"},
        "not asked: is_empty(q) in if (!q || is_empty(q))": {"\tif (!q || is_empty(q))": "\tif (!q )"},
        'swapped: spin_lock(&q->lock); got = look(q, "a;");': {
            "\tspin_lock(&q->lock);": '\tgot = look(q, "a;");',
            '\tgot = look(q, "a;");': "\tspin_lock(&q->lock);",
        },
        "swapped: spin_unlock(&q->lock); put(q);": {
            "\tspin_unlock(&q->lock);": "\tput(q);",
            "\tput(q);": "\tspin_unlock(&q->lock);",
        },
        "taken back: spinlock_t lock;": {"\tspinlock_t lock;": "\tint old;"},
    }.items(),
)
def test_made(what: str, lines: dict[str, str]) -> None:
    wanted = [lines.get(line, line) for line in AFTER.splitlines()]
    one = made(BEFORE, AFTER)[what]
    assert one.text.splitlines() == wanted and one.text.endswith("}\n")
    assert one.place == ("queue" if "lock;" in what and "taken" in what else "take")


def test_what_is_not_made() -> None:
    named = made(BEFORE, AFTER)
    # What the fix did not touch, declarations, and what lies inside a statement.
    assert not [what for what in named if what.endswith(("left out: put(q);", "return got;", "int got = 0;"))]
    assert not [what for what in named if what.startswith("left out") and "int x" in what]
    # A way out is not moved, and nothing past a bracket.
    assert [what for what in named if what.startswith("swapped")] == [
        'swapped: spin_lock(&q->lock); got = look(q, "a;");',
        'swapped: got = look(q, "a;"); wait_event(q->wait, done(q, 1));',
        "swapped: spin_unlock(&q->lock); put(q);",
    ]
    texts = [each.text for each in named.values()]
    assert len(set(texts)) == len(texts) and not {BEFORE, AFTER} & set(texts)


def test_of_a_fix_that_takes_out() -> None:
    before = AFTER.replace("\tput(q);\n", "\tput(q);\n\tkick(q);\n").replace(
        "\tspin_lock", "\tprepare(q);\n\tspin_lock"
    )
    assert list(made(before, AFTER)) == ["left in: prepare(q);", "left in: kick(q);"]


def test_each_code_once() -> None:
    # A comment makes no other code.
    assert made(AFTER, AFTER.replace("\tput(q);\n", "\t/* Give it back. */\n\tput(q);\n")) == {}


def test_line_that_is_a_statement() -> None:
    # Taken back and left out are the same.
    after = AFTER.replace("\tput(q);\n", "\tstop(q);\n\tput(q);\n")
    assert list(made(AFTER, after)) == ["swapped: spin_unlock(&q->lock); stop(q);", "swapped: stop(q); put(q);"]
    more = after.replace("\tint got = 0;\n", "\tint got = 1;\n")
    assert [what for what in made(AFTER, more) if "swapped" not in what] == [
        "taken back: int got = 1;",
        "taken back: stop(q);",
    ]


def test_same_words_twice() -> None:
    twice = "\tif (q)\n\t\tstop(q);\n\tput(q);\n\tif (got)\n\t\tstop(q);\n"
    after = AFTER.replace("\tput(q);\n", twice)
    names = [each.name for each in wrong_fixes("bug", "a.c", AFTER, after)]
    assert "a.c:take: left out: stop(q);" in names and "a.c:take: left out: stop(q); #2" in names
    assert len(set(names)) == len(names)
