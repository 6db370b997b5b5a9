"""Build the book in out/book: the pages beside this file, the notebooks as they stand, the API.

A link leads to another page of the book or, for what isn't in it, to the repository's address; one
that leads nowhere stops the build.
"""

import ast
import inspect
import os
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path, PurePosixPath

import nbformat
from sphinx.cmd.build import build_main
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<=\]\()(?!#|mailto:)([^)\s]+)(?=\))")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def repository() -> str:
    """Return where the repository's files are to be read, from pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    return re.findall(r'^Repository = "(.+?)/?"$', text, re.MULTILINE)[0] + "/blob/main/"


def chapters() -> dict[str, str]:
    """Return all that is in the book, in the repository and, without `book/`, in the book."""
    patterns = ("book/*.md", "notebooks/*.md", "notebooks/*/*.ipynb", "notebooks/pictures/*.png")
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    paths += [ROOT / "data" / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    names = [path.relative_to(ROOT).as_posix() for path in paths]
    return {name: name.removeprefix("book/") for name in names}


def linked(text: str, name: str, inside: dict[str, str]) -> str:
    """Return Markdown from the file `name` with its links as the book needs them.

    Raises:
        ValueError: A link leads to a file that isn't there.
    """
    online = repository()

    def lead(match: re.Match[str]) -> str:
        target, mark, part = match[1].partition("#")
        if target.startswith(online):
            path = target.removeprefix(online)
        elif ":" in target:
            return match[1]
        else:
            path = os.path.normpath(PurePosixPath(name).parent / target)
        if not (ROOT / path).exists():
            raise ValueError(f"{name} links to {match[1]}, which isn't there.")
        if path in inside:
            start = PurePosixPath(inside[name]).parent
            return os.path.relpath(inside[path], start) + mark + part
        return online + path + mark + part

    parts = FENCED.split(text)
    parts[::2] = [LINK.sub(lead, part) for part in parts[::2]]
    return "".join(parts)


def lay_out(folder: Path) -> None:
    """Write what Sphinx reads."""
    inside = chapters()
    for name, target in inside.items():
        source, path = ROOT / name, folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            path.write_text(linked(source.read_text("utf-8"), name, inside), "utf-8")
        elif source.suffix == ".ipynb":
            notebook = nbformat.read(source, as_version=4)
            for cell in notebook.cells:
                if cell.cell_type == "markdown":
                    cell.source = linked(cell.source, name, inside)
            nbformat.write(notebook, path)
        else:
            shutil.copy(source, path)
    shutil.copy(ROOT / "book" / "conf.py", folder)
    shutil.copytree(ROOT / "book" / "_static", folder / "_static")
    reference(folder)


def reference(folder: Path) -> None:
    """Write a page for each module of the table in modules.md, and lead from there to it."""
    page = folder / "modules.md"
    text = page.read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE))
    text = re.sub(r"^\| `(\w+)` \|", r"| [`\1`](api/\1.md) |", text, flags=re.MULTILINE)
    order = "\n".join(f"api/{name}" for name in rows)
    page.write_text(f"{text}\n```{{toctree}}\n:hidden:\n:titlesonly:\n\n{order}\n```\n", "utf-8")
    (folder / "api").mkdir()
    pages = {f"cookbook.{name}" for name in rows}
    shown: set[object] = set()
    for name, about in rows.items():
        body = commands() if name == "cli" else members(name, pages, shown)
        (folder / "api" / f"{name}.md").write_text(
            f"# cookbook.{name}\n\n{about[0].upper()}{about[1:]}.\n\n{body}", "utf-8"
        )


def members(name: str, pages: set[str], shown: set[object]) -> str:
    """Return the directives for what a module defines, or shows for one that has no page."""
    module = import_module(f"cookbook.{name}")
    found, constants = [], []
    body = ast.parse(inspect.getsource(module)).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_docstring(after):
            names = ast.walk(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
            constants += [each.id for each in names if isinstance(each, ast.Name)]
        elif isinstance(node, ast.ImportFrom) and node.module not in pages:
            found += [each.name for each in node.names if each.asname == each.name]
    lines = []
    for each in found:
        thing = getattr(module, each)
        if each.startswith("_") or not callable(thing) or thing in shown:
            continue
        shown.add(thing)
        kind = "autoclass" if inspect.isclass(thing) else "autofunction"
        lines += [f".. {kind}:: cookbook.{name}.{each}"]
        lines += ["   :members:", ""] if kind == "autoclass" else [""]
    for each in constants:
        lines += [f".. autodata:: cookbook.{name}.{each}", "   :no-value:", ""]
    about = [f".. automodule:: cookbook.{name}", "   :no-members:", ""]
    return "\n".join(["```{eval-rst}", *about, *lines, "```", ""])


def _is_docstring(node: ast.stmt | None) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def commands() -> str:
    """Return what `cookbook COMMAND --help` says of each command."""
    cli = import_module("cookbook.cli")
    names = [each.name or each.callback.__name__ for each in cli.app.registered_commands]
    parts = []
    for name in names:
        told = CliRunner().invoke(cli.app, [name, "--help"], prog_name="cookbook").stdout
        parts.append(f"## cookbook {name}\n\n```text\n{told.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    out = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "out" / "book"
    source = out.with_name(f"{out.name}_source")
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    lay_out(source)
    sys.exit(build_main(["-q", "-W", "--keep-going", "-b", "html", str(source), str(out)]))
