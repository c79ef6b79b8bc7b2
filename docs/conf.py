"""Sphinx configuration: `sphinx-build -W -b html docs docs/_build/html`."""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))
sys.path.insert(0, str(HERE.parent))

from keras_saq.version import __version__  # noqa: E402

project = "keras_saq"
copyright = "The keras_saq team"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    # Ours, in docs/_extensions.
    "docstrings",
    "included_links",
    "mathml",
    "picture",
]
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["dollarmath", "fieldlist"]
myst_heading_anchors = 4
# A dollar sign in a shell line is not mathematics.
myst_dmath_allow_digits = False
myst_dmath_double_inline = False

# Docstrings write code in single backticks; names that have a page are links.
default_role = "py:obj"
autodoc_default_options = {"members": True}
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
# Keras's docstrings are Markdown, and documented by Keras.
autodoc_inherit_docstrings = False
autodoc_typehints = "none"
autosummary_generate = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# What is not marked as Python is shell lines and printed tables.
highlight_language = "text"

html_theme = "furo"
html_title = f"keras_saq {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# The page's own text is the source; the copy would double the site.
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"

# Only what is typed: no prompts, no output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
