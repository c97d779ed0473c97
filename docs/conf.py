"""Sphinx configuration: the Markdown pages of docs/ and the API reference from docstrings, built by ``make docs``."""

import os
import re
from pathlib import Path
from typing import Any

import ccnet

DOCS = Path(__file__).resolve().parent

project = "CCNet"
author = "the CCNet authors"
version = release = ccnet.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"CCNet {release}"
html_copy_source = False
html_show_copyright = False

nitpicky = True
nitpick_ignore_regex = [  # other libraries' references would need the network
    (r"py:.*", r"Path|Table|(collections|concurrent|contextlib|np|numpy|onnx_ir|pathlib|torch|typing)\..*"),
]

myst_heading_anchors = 3  # links to headings, as on GitHub

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def unlink_outside(app: Any, page: str, source: list[str]) -> None:
    """Replace links to files outside docs/ by their text and path: Sphinx builds no page of those files."""

    def replace(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = Path(os.path.normpath(DOCS / Path(page).parent / target))
        return link[0] if path.is_relative_to(DOCS) else f"{text} (`{path.relative_to(DOCS.parent)}`)"

    source[0] = re.sub(r"\[([^]\n]*)]\((\.\.?/[^)\s#]*)[^)\s]*\)", replace, source[0])


def escape_bars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape the bars of |Y - Ŷ| outside of code, which reStructuredText would take for a substitution."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        lines[number] = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def keep_colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading text before a colon as a type: annotations say the types.

    An empty type, a colon first, marks the docstring of an attribute and the text of Returns and Yields as description.
    """
    starts = [number + 1 for number, line in enumerate(lines[:-1]) if line.strip() in ("Returns:", "Yields:")]
    if lines and what in ("attribute", "data", "property"):
        starts.append(0)
    for start in starts:
        text = lines[start].lstrip()
        lines[start] = f"{lines[start][: len(lines[start]) - len(text)]}: {text}"


def setup(app: Any) -> None:
    """Connect the filters above; the last one runs before napoleon."""
    app.connect("source-read", unlink_outside)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("autodoc-process-docstring", keep_colons, priority=100)
