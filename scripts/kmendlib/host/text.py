# SPDX-License-Identifier: GPL-2.0-only
"""The templates in scripts/templates, through which text gets to a reader."""

import json
import re
from functools import cache
from typing import Any

from kmendlib.host.paths import SCRIPTS
from kmendlib.host.words import visible

# What Markdown, or GitHub's, would read as more than text.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&@#]")


def _markdown(text: str) -> str:
    # A space without width keeps @ and # from calling somebody, or an issue.
    return _MARKDOWN.sub(
        lambda match: f"{match[0]}&#8203;" if match[0] in "@#" else f"&#{ord(match[0])};",
        " ".join(visible(text).split()),
    )


@cache
def template(name: str) -> Any:
    """Return a template; whatever it shows goes through `visible` first, and HTML is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SCRIPTS / "templates"),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # What the template made itself is no plain str.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    # What JSON takes for a string, YAML does, too.
    environment.filters |= {"markdown": _markdown, "quoted": lambda text: json.dumps(str(text), ensure_ascii=False)}
    return environment.get_template(name)
