"""How the pages become a site: ``nox -s docs``."""

from __future__ import annotations

from docutils.nodes import Element, Node
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

from deadletter import __version__

project = "deadletter"
author = "deadletter contributors"
copyright = author  # noqa: A001 - Sphinx's name
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.githubpages"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # pages link to each other's headings
myst_fence_as_directive = []
nitpicky = True
# Classes of others; and of ours what is not public, so that it has no page. A role in our own text must lead somewhere.
nitpick_ignore_regex = [("py:(class|obj|exc|data|meth|attr)", r"(?!deadletter\.).*"), ("py:class", r"deadletter\..*")]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"show-inheritance": True}
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attrs classes have their fields as attributes already

html_theme = "furo"
html_title = "deadletter"
html_copy_source = False
html_theme_options = {"sidebar_hide_name": False}
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_extra_path = ["llms.txt"]


def public(app: Sphinx, env: BuildEnvironment, node: pending_xref, inner: Node) -> Element | None:
    """Lead an annotation, which names where a class is written, to where it is public."""
    domain = env.domains["py"]
    name = node.get("reftarget", "").rpartition(".")[2]
    for full, entry in domain.objects.items():
        if (
            node.get("refdomain") == "py"
            and entry.objtype in {"class", "exception"}
            and full.rpartition(".")[2] == name
        ):
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, [inner], full)
    return None


def setup(app: Sphinx) -> None:
    """Resolve annotations by public name."""
    app.connect("missing-reference", public)
