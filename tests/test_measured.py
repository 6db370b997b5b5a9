"""One figure, one value: data/measured.json, and whatever names what stands in it."""

import json
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
MEASURED = json.loads((ROOT / "data" / "measured.json").read_text("utf-8"))
NUMBERS = ("value", "sd", "low", "high")


@cache
def text(name):
    """What a file says, a notebook in its outputs too, with single spaces."""
    path = ROOT / name
    if path.suffix != ".ipynb":
        return " ".join(path.read_text("utf-8").split())
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        parts.append(cell.source)
        for output in cell.get("outputs", []):
            parts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return " ".join(" ".join(parts).split())


def sentences(name, file):
    """What a file has to say of a figure, word for word."""
    figures = {each: f"{MEASURED[name][each]:.3f}" for each in NUMBERS if each in MEASURED[name]}
    said = MEASURED[name]["said"].get(file, [])
    assert all("{" in sentence for sentence in said)
    return [" ".join(sentence.format(**figures).split()) for sentence in said]


@pytest.mark.parametrize("name", MEASURED)
def test_a_figure_is_the_same_wherever_it_is_named(name):
    about = MEASURED[name]
    assert all(about[each] for each in ("what", "on", "machine", "value", "said"))
    for file in about["said"]:
        for sentence in sentences(name, file):
            assert sentence in text(file)


@pytest.mark.parametrize("page", ["README.md", "book/index.md", "book/not_working.md"])
def test_what_is_quoted_is_in_the_file_of_figures(page):
    """Each figure with three digits stands in a sentence that is compared."""
    whole, compared = text(page), set()
    for name in MEASURED:
        for sentence in sentences(name, page):
            for found in re.finditer(re.escape(sentence), whole):
                compared |= set(range(*found.span()))
    quoted = list(re.finditer(r"(?<![\d.,])\d+\.\d{3}(?!\d)", whole))
    alone = [
        whole[each.start() - 40 : each.end()] for each in quoted if each.start() not in compared
    ]
    assert quoted
    assert alone == []


def test_the_picture_shows_these_figures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    import picture

    with Image.open(picture.PICTURE) as image:
        assert image.info["Description"] == picture.drawn(MEASURED), "run python book/picture.py"
