"""Write the repository's address into every notebook: the Colab badge and the install cell.

The address stands in one place, `[project.urls]` in pyproject.toml. Run `make address` after it
changed; `tests/test_notebooks.py` checks that the notebooks agree with it.
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
BADGE = re.compile(r"\[!\[Open In Colab\].*\)")


def repository() -> str:
    """Return the address from pyproject.toml, without a slash at the end."""
    # tomllib came with Python 3.11, and one line needs no parser.
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(r'^Repository = "(.+?)/?"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("pyproject.toml has no Repository under [project.urls]")
    return found[1]


def badge(notebook: Path) -> str:
    """Return the Markdown of the badge that opens `notebook` in Colab."""
    path = repository().removeprefix("https://github.com/")
    target = f"https://colab.research.google.com/github/{path}/blob/main"
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open In Colab]({picture})]({target}/{notebook.relative_to(ROOT).as_posix()})"


def install(extras: str = "") -> str:
    """Return the code of the install cell, with extras such as '[compare,deploy]'.

    What is installed already, pip is told to keep: else it takes the newest of what is missing,
    and for that replaces what other packages need as it is.
    """
    before = "installed_before.txt"
    return (
        "from importlib.util import find_spec\n\n"
        'if find_spec("cookbook") is None:\n'
        f"    %pip list --format=freeze > {before}\n"
        f'    %pip install -q -c {before} "small-model-cookbook{extras} @ git+{repository()}"'
    )


def addressed(path: Path) -> nbformat.NotebookNode:
    """Return the notebook with today's address in its badge and its install cell."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = BADGE.sub(badge(path), notebook.cells[0].source)
    for cell in notebook.cells:
        if "install" in cell.metadata.get("tags", []):
            extras = re.search(r"small-model-cookbook(\[[\w,]+\])", cell.source)
            cell.source = install(extras[1] if extras else "")
    return notebook


def notebooks() -> list[Path]:
    """Return every notebook of the cookbook."""
    return sorted(
        path
        for path in (ROOT / "notebooks").rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    )


if __name__ == "__main__":
    for path in notebooks():
        nbformat.write(addressed(path), path)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
