# SPDX-License-Identifier: GPL-2.0-only
"""Fills pages from the program itself, so that they cannot say anything else, and draws the bugs' timelines.

    .. kmend-commands::          each command: how it is called, what it does, its options
    .. kmend-words:: NAME        the words of a set (`SETS`), each with its meaning

A literal block that is a timeline of the page's bug is drawn; where it can only be text, it stays the text that it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from kmendlib import cli
from kmendlib.host import errors, words
from kmendlib.show import page, timeline
from kmendlib.tree import audit
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

SETS = {
    "exit-codes": errors.ExitCode,
    "statuses": audit.Status,
    "results": words.Outcome,
    "verdicts": words.Verdict,
    "has": words.Has,
}
_RULE = re.compile(r".*\n-+  -+\n")


def _paragraph(text: str) -> nodes.paragraph:
    return nodes.paragraph(text, text)


def _item(term: str, *definition: nodes.Node) -> nodes.definition_list_item:
    head = nodes.term("", "", nodes.literal(term, term))
    return nodes.definition_list_item("", head, nodes.definition("", *definition))


class Words(Directive):
    """Lists a set of words with their meanings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the list."""
        chosen = SETS.get(self.arguments[0])
        if not chosen:
            raise self.error(f"no set of words '{self.arguments[0]}': choose from {', '.join(SETS)}")
        items = [_item(str(word.value), _paragraph(f"{word.meaning}.")) for word in chosen]
        return [nodes.definition_list("", *items, classes=["kmend-words"])]


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    yield from commands.choices.items()


def _called(action: argparse.Action) -> str:
    """Say how an option or argument is written."""
    value = str(action.metavar or action.dest)
    if action.choices is not None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return value
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")


def _options(command: argparse.ArgumentParser) -> nodes.definition_list:
    shown = [action for action in command._actions if not isinstance(action, argparse._HelpAction)]
    items = [_item(_called(action), _paragraph(f"{_sentence(action.help or '')}.")) for action in shown]
    return nodes.definition_list("", *items, classes=["kmend-options"])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _usage(command: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(command.prog, width=80)
    formatter.add_usage(command.usage, command._actions, command._mutually_exclusive_groups, "")
    return formatter.format_help().strip().replace("[-h] ", "").replace(" [-h]", "")


class Commands(Directive):
    """Makes a section for each command, from the parser of the command line."""

    option_spec: ClassVar[dict[str, Any]] = {"labels": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        sections: list[nodes.Node] = []
        for name, command in _commands(cli.parser()):
            section = nodes.section("", nodes.title(f"kmend {name}", f"kmend {name}"))
            section["names"].append(f"kmend {name}")
            self.state.document.note_implicit_target(section, section)
            if "labels" in self.options:
                section["names"].append(f"kmend-{name}")
                self.state.document.note_explicit_target(section, section)
            usage = _usage(command)
            section += nodes.literal_block(usage, usage)
            section += _paragraph(command.description or "")
            options = _options(command)
            if options.children:
                section += options
            sections.append(section)
        return sections


class Timelines(SphinxPostTransform):
    """Draws each timeline of a bug's page where the output can show it."""

    default_priority = 400
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Put a drawing in the place of each literal block that is one of the bug's timelines."""
        place = PurePosixPath(self.env.docname)
        if place.parent.name != "bugs":
            return
        lines = timeline.timelines(place.name)
        drawn = 0
        for block in list(self.document.findall(nodes.literal_block)):
            rule = _RULE.match(block.astext())
            if not rule:
                continue
            first, second = map(len, rule[0].split("\n")[1].split("  "))
            for line in lines:
                if line.to_text((first, second)) == block.astext().rstrip():
                    block.replace_self(nodes.raw("", page.figure(line), format="html"))
                    drawn += 1
        # A translation may have other words in its lanes, which stay text.
        if drawn != len(lines) and place.parts[0] == "bugs":
            logging.getLogger(__name__).warning(
                "%d of %d timelines of %s.toml are on its page", drawn, len(lines), place.name, location=place.name
            )


def _language(_: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Say of a translated page what language it is in."""
    place = PurePosixPath(name).parts
    if place[0] == "translations":
        context["language"] = place[1].replace("_", "-")


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what is here."""
    app.connect("html-page-context", _language)
    app.add_directive("kmend-words", Words)
    app.add_directive("kmend-commands", Commands)
    app.add_post_transform(Timelines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
