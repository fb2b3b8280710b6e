"""How Sphinx builds the site: ``sphinx-build -W --keep-going -n -b html docs docs/_build``."""

from __future__ import annotations

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from bnfold import __version__

project = "bnfold"
author = "The bnfold authors"
project_copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"  # in docstrings, `name` is code

smartquotes = False  # an option begins with two hyphens

html_theme = "furo"
html_title = f"bnfold {release}"
html_copy_source = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# Types of other projects, and of bnfold's inside, have no page here.
nitpick_ignore_regex = [("py:.*", r"(?!bnfold\.(torch\.)?\w+$).*")]


def _inline_math(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Write formulas as MathML, which browsers show without a script and without a network."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
