"""How Sphinx sets the book; `build.py` lays out what it reads."""

from importlib.metadata import version as installed
from typing import Any

from sphinx.application import Sphinx

project = "small-model-cookbook"
author = "The small-model-cookbook authors"
project_copyright = f"2026, {author}"
version = release = installed(project)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
nb_execution_mode = "off"  # a notebook's outputs are those it is committed with
nb_merge_streams = True
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]
default_role = "code"  # docstrings have names between single backticks
highlight_language = "python"
smartquotes_action = "D"  # dashes alone: a quotation mark may be code

autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_sourcelink = False
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def untyped(*event: Any) -> None:
    """Keep what is returned a sentence: what stands before its colon is no type."""
    _, what, *_, lines = event
    if what == "property" and lines:
        lines[0] = f": {lines[0]}"
    for number, line in enumerate(lines[:-1]):
        if line.strip() in ("Returns:", "Yields:"):
            told = lines[number + 1]
            lines[number + 1] = told.replace(told.strip(), f": {told.strip()}")


def setup(app: Sphinx) -> None:
    """Read docstrings before napoleon does."""
    app.connect("autodoc-process-docstring", untyped, priority=400)
