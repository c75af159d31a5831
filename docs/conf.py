"""How the pages become a site: ``nox -s docs``."""

from __future__ import annotations

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from deadletter import __version__

project = "deadletter"
author = "deadletter contributors"
copyright = author  # noqa: A001 - Sphinx's name
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.githubpages"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # pages link to each other's headings
myst_fence_as_directive = []
nitpicky = True

html_theme = "furo"
html_title = "deadletter"
html_copy_source = False
html_theme_options = {"sidebar_hide_name": False}


def setup(app: Sphinx) -> None:
    """Show diagrams as they are written."""
    app.add_lexer("mermaid", TextLexer)
