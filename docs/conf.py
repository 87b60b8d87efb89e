"""Configuration of the documentation: `tox -e docs` builds it."""

from types import GenericAlias
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from distcorpus import __version__

project = "distcorpus"
author = "the distcorpus developers"
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"distcorpus {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "bysource"
# Certificates, dashboard and metrics are made with them; their docstrings can be read without.
autodoc_mock_imports = ["cryptography", "prometheus_client", "starlette", "uvicorn"]
# The docstrings say shapes and units, which annotations cannot.
autodoc_typehints = "none"
numpydoc_show_class_members = False
# Names in single backticks are code; nothing has to be marked up in a docstring.
default_role = "code"

# Pyro4's own documentation is not looked up: a build needs no network.
nitpick_ignore_regex = [("py:.*", r"(Pyro4|gensim)\..*")]


def skip_type_alias(
    app: Sphinx, what: str, name: str, member: object, skip: bool, options: Any
) -> bool | None:
    """Leave type aliases out of the API: numpydoc fails on them, and to readers they are their types."""
    return True if isinstance(member, GenericAlias) else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", skip_type_alias)
    app.add_lexer("mermaid", TextLexer)  # a forge draws it; here its lines are read
