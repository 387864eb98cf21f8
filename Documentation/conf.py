# SPDX-License-Identifier: GPL-2.0-only
"""Sphinx builds HTML and kmend(1) from this folder; development.rst says how."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE / "ext"), str(_HERE.parent / "scripts")]
sys.dont_write_bytecode = True

project = "kmend"
author = "the kmend maintainers"
copyright = "the kmend maintainers, GPL-2.0-only"
extensions = ["kmend_docs"]
# All of a page is text that is read as it stands: no quotes are turned, no code is coloured.
smartquotes = False
highlight_language = "none"

html_theme = "alabaster"
html_title = "kmend"
html_static_path = ["ext/kmend.css", "../scripts/templates/timeline.css"]
html_css_files = ["kmend.css", "timeline.css"]
html_copy_source = False
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}
# The colours are those of the report page, light and dark: kmend.css.
html_theme_options = {
    "description": "audits, mends and proves kernel trees",
    "github_button": False,
    "show_powered_by": False,
    "page_width": "1200px",
    "sidebar_width": "250px",
    "font_family": "system-ui, sans-serif",
    "font_size": "16px",
    "code_font_family": 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
} | {
    option: f"var(--{name})"
    for name, options in {
        "page": "base_bg body_bg narrow_sidebar_bg anchor_hover_bg xref_bg footnote_bg",
        "panel": "pre_bg code_bg highlight_bg code_hover note_bg seealso_bg topic_bg admonition_bg",
        "line": "hr_border table_border xref_border footnote_border sidebar_hr note_border relbar_border shadow",
        "text": "base_text body_text code_text sidebar_header sidebar_link sidebar_list narrow_sidebar_fg gray_1",
        "soft": "footer_text sidebar_text anchor sidebar_link_underscore",
        "link": "link link_hover anchor_hover_fg narrow_sidebar_link",
        "warn-fill": "code_highlight viewcode_target_bg",
    }.items()
    for option in options.split()
}

man_pages = [("kmend", "kmend", "audit, mend and prove kernel trees", "", 1)]
man_show_urls = False
