"""What a cell of labels holds: one name, or several."""

from __future__ import annotations

import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from cookbook.words import fold, split_keywords


def label_names(values: Iterable[Any], where: str = "") -> pd.Series:
    """Turn labels of any type into names, the same ones from a file and from a table in memory.

    A name is what stands in a CSV, without white space around it; 1.0 is '1'. Spellings that become
    one name are named in a warning.

    Args:
        values: Labels; a list of one counts as that one.
        where: Said of a row in an error, such as " of split 'test'".

    Returns:
        A string for each, or None where there is no label.

    Raises:
        ValueError: A row has several labels.

    Example:
        >>> label_names([True, 2.0, "news ", " ", None]).tolist()
        ['True', '2', 'news', None, None]
    """
    cells = pd.Series(values).astype(object)
    names: list[str | None] = []
    spelt: dict[str, str | None] = {}
    for row, cell in enumerate(cells):
        if isinstance(cell, str) and cell in spelt:  # a column has many rows and few labels
            names.append(spelt[cell])
            continue
        found = list(dict.fromkeys(_names_in(cell)))
        if len(found) > 1:
            raise ValueError(
                f"Row {row}{where} has several labels, {found}; a classifier gives a text one. "
                "Keep one a row; or, where a text may have several, say several=True."
            )
        names.append(found[0] if found else None)
        if isinstance(cell, str):
            spelt[cell] = names[-1]
    if alike := [name for name, n in Counter(spelt.values()).items() if name and n > 1]:
        told = f"Spellings{where} that differ in white space or '.0' are one label: {alike[:5]}"
        warnings.warn(told, stacklevel=2)
    return pd.Series(names, cells.index, dtype=object)


def doubtful_labels(names: Iterable[str], several: bool = False) -> list[str]:
    """Say which labels look like one, and which look like several, joined.

    Args:
        names: The labels.
        several: Whether a text may have several: then none is joined.

    Example:
        >>> doubtful_labels(["news", "News", "sport", "news|sport"])[0]
        "['news', 'News'] differ in case only"
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(fold(name), []).append(name)
    told = [f"{each} differ in case only" for each in alike.values() if len(each) > 1]
    parts = {name: {part.strip() for part in re.split(r"[|;,/+&]", name)} - {""} for name in alike}
    often = Counter(chain.from_iterable(parts.values()))
    joined = [
        name for name, own in parts.items() if len(own) > 1 and all(often[part] > 1 for part in own)
    ]
    if joined and not several:
        some = [alike[name][0] for name in joined[:5]]
        told.append(f"{some} join others, though here a text has one")
    return told


def label_sets(values: Iterable[Any]) -> pd.Series:
    """Turn cells with several labels each into lists of names, each name once.

    A cell may be a list, one written as text (`["a", "b"]`), or names with '|' or ';' between them
    ('a|b', 'a; b'); commas belong to a name. Names are as in `label_names`.

    Args:
        values: The cells.

    Returns:
        A list for each, empty where a list is ('[]' too), or None where the cell is blank: nobody
        has said which labels the text has.

    Example:
        >>> label_sets(["bug|urgent", "bug; bug", ["2", 3.0], "[]", ""]).tolist()
        [['bug', 'urgent'], ['bug'], ['2', '3'], [], None]
    """

    def found(cell: Any) -> list[str] | None:
        own = list(dict.fromkeys(_names_in(cell, several=True)))
        return own if own or pd.api.types.is_list_like(cell) or str(cell).strip() == "[]" else None

    cells = pd.Series(values).astype(object)
    return pd.Series(list(map(found, cells)), cells.index, dtype=object)


def label_columns(frame: pd.DataFrame, columns: Sequence[str], where: str = "") -> pd.Series:
    """Turn one column per label, with 1 or 0 in it, into lists of names.

    Args:
        frame: The rows.
        columns: The labels' columns.
        where: Said of a row in an error, such as " of split 'test'".

    Raises:
        ValueError: A cell is neither 1 nor 0, nor yes or no, nor true or false.

    Example:
        >>> rows = pd.DataFrame({"bug": [1, 0], "urgent": ["1", "0"]})
        >>> label_columns(rows, ["bug", "urgent"]).tolist()
        [['bug', 'urgent'], []]
    """
    yes, no = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
    said = frame[list(columns)].map(lambda cell: str(cell).strip().lower())
    bad = ~said.isin(yes | no)
    if bad.to_numpy().any():
        row, column = next(zip(*bad.to_numpy().nonzero(), strict=True))
        raise ValueError(
            f"Row {row}{where} has {frame[columns[column]].iloc[row]!r} in {columns[column]!r}: a "
            "column that stands for a label holds 1 or 0."
        )
    marked = said.isin(yes).to_numpy()
    sets = [[name for name, one in zip(columns, row, strict=True) if one] for row in marked]
    return pd.Series(sets, frame.index, dtype=object)


def rarest(sets: pd.Series) -> pd.Series:
    """Return each text's rarest label, '' where it has none.

    Splits that are stratified by it keep rare labels, as iterative stratification does, which
    begins with them (Sechidis et al. 2011, https://doi.org/10.1007/978-3-642-23808-6_10).

    Example:
        >>> rarest(pd.Series([["common", "rare"], ["common"], []])).tolist()
        ['rare', 'common', '']
    """
    counts = Counter(chain.from_iterable(sets))
    return sets.map(lambda own: min(own, key=lambda name: (counts[name], name), default=""))


def one_hot(sets: Iterable[Iterable[str]], names: Sequence[str]) -> np.ndarray:
    """Return a row per text and a column per label: 1 where the text has it, else 0.

    Raises:
        ValueError: A text has a label that isn't among the names.

    Example:
        >>> one_hot([["b"], []], ["a", "b"]).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    from sklearn.preprocessing import MultiLabelBinarizer  # which only warns of such a label

    rows = list(map(list, sets))
    for row, own in enumerate(rows):
        if unknown := set(own) - set(names):
            raise ValueError(f"Row {row} has labels {sorted(unknown)}; there are {list(names)}.")
    return MultiLabelBinarizer(classes=list(names)).fit_transform(rows).astype(np.float32)


def _names_in(cell: Any, several: bool = False) -> Iterator[str]:
    """Yield the names in a cell: one, none, or those of a list, also one written as text."""
    if isinstance(cell, str) and several and re.search(r"[|;]", cell) and cell.strip()[:1] != "[":
        cell = re.split(r"[|;]", cell)
    elif isinstance(cell, str) and re.fullmatch(r"\s*\[(.*['\",].*)?\]\s*", cell, re.DOTALL):
        try:
            cell = json.loads(cell)
        except ValueError:  # as Python, numpy or a person writes a list
            cell = split_keywords(cell, unique=False) or cell.strip()[1:-1].split(",")
    if pd.api.types.is_list_like(cell):
        yield from chain.from_iterable(map(_names_in, cell))
    elif not pd.isna(cell):
        name = unicodedata.normalize("NFC", " ".join(str(cell).split()))
        yield from filter(None, [re.sub(r"^(-?\d+)\.0$", r"\1", name)])
