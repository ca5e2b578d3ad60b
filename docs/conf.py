"""How `make docs` builds the site: Sphinx over the Markdown of this folder, offline, every warning an error."""

from __future__ import annotations

from importlib.metadata import version as _installed

project = "gradwatch"
author = "the gradwatch authors"
copyright = author  # the name is Sphinx's
release = version = _installed("gradwatch")
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"gradwatch {version}"
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
myst_heading_anchors = 3
"""Links to headings inside pages are checked too."""
nitpicky = True
