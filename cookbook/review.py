"""A person decides, row by row: which label, which keywords; every decision on disk at once."""

from __future__ import annotations

import getpass
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from cookbook import data as datasets
from cookbook import inference, quality, tables, words
from cookbook.decisions import AT_RANDOM, COLUMNS, folded, key_of
from cookbook.decisions import Agreement as Agreement
from cookbook.decisions import Reviewed as Reviewed
from cookbook.decisions import agreement as agreement
from cookbook.decisions import apply as apply
from cookbook.decisions import decisions as decisions
from cookbook.decisions import report as report
from cookbook.label_cells import label_sets


def queue(
    data: Any,
    *,
    text: str = "text",
    label: str = "label",
    keywords: str | None = None,
    several: bool = False,
    model: inference.Loadable | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Line up the rows that a person is to decide on, and say of each why it stands there.

    Of rows with labels or keywords, the doubtful ones come first (`quality.doubtful`). With a
    model, whose answers are then what is decided on, the texts that it is least sure of, unlike
    ones before more of the same: they would teach most. A sample at random measures how often the
    labels, or the model, are right, which the doubtful rows can't.

    Args:
        data: Any table that `tables.read` takes.
        text: Column of the texts.
        label: Column of the labels.
        keywords: Column of the keywords, to decide on these instead.
        several: Whether a text may have several labels.
        model: Whose answers are decided on, in place of a column.
        sample: Rows to draw at random.
        seed: Of the draw.

    Returns:
        One row a text: `text`, `was` (a label, labels as 'a|b', keywords as 'a, b') and `why`.

    Raises:
        ValueError: As `quality.doubtful`, or a column is missing.
    """
    rows = tables.read(data, [text]).rename(columns={text: "text"})
    rows = rows[rows["text"].map(lambda cell: isinstance(cell, str) and bool(cell.strip()))]
    rows = rows[~rows["text"].map(key_of).duplicated()].reset_index(drop=True)
    if sample is not None:
        rows = rows.sample(min(sample, len(rows)), random_state=seed, ignore_index=True)
    if model is not None:
        found = _answers(rows["text"].tolist(), inference.load(model))
    else:
        column = keywords or label
        tables.require(rows.columns, [column], "The table")
        about = {"label": None, "keywords": column} if keywords else {"label": column}
        known = datasets.usable(rows, several=several, **about)
        cells = known[column].map("|".join) if several else known[column]
        found = pd.DataFrame({"text": known["text"], "was": cells.astype(str)})
        if sample is None:
            found = _doubtful(known, column, bool(keywords), several)
    if sample is not None:
        found["why"] = AT_RANDOM
    return found[["text", "was", "why"]].reset_index(drop=True)


def _doubtful(rows: pd.DataFrame, column: str, keywords: bool, several: bool) -> pd.DataFrame:
    about: dict[str, Any] = {"keywords": column} if keywords else {"label": column}
    ranked = quality.doubtful(rows, several=several, **about)
    said = ranked["suggested"].map(lambda one: ", ".join(one) if several else str(one))
    was = ranked["keywords" if keywords else "label"]
    ranked["was"] = was.map("|".join) if several else was.astype(str)
    doubt = "not in the text: " if keywords else "the other texts suggest "
    same = ranked["suggested"].map(sorted) == was.map(sorted) if several else said == ranked["was"]
    ranked["why"] = np.where(same | (said == ""), "", doubt + said)
    return ranked


def _answers(texts: list[str], loaded: Any) -> pd.DataFrame:
    """Return what a model says, the texts first that it is least sure of and that are unlike."""
    if loaded.kind == "classifier":
        found = inference.classify(texts, loaded)
        labels = found["label"].map("|".join) if loaded.several else found["label"]
        was, sure = labels.tolist(), found["score"].to_numpy(float)
    else:
        marked = inference.extract_keywords(texts, loaded, scores=loaded.kind == "marker")
        if loaded.kind == "marker":
            was = [words.join_keywords([name for name, _ in each]) for each in marked]
            sure = np.array([min((score for _, score in each), default=0.0) for each in marked])
        else:
            was, sure = list(map(words.join_keywords, marked)), np.full(len(texts), np.nan)
    told = [f"the model is {one:.0%} sure" if one == one else "" for one in sure]
    table = pd.DataFrame({"text": texts, "was": was, "why": told})
    return table.loc[_unlike(texts, sure)]


def _unlike(texts: list[str], sure: np.ndarray) -> np.ndarray:
    """Order texts so that the least sure of each kind come first, then the second of each."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    order = pd.DataFrame({"sure": sure, "kind": 0})
    if len(texts) > 20:
        vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4)).fit_transform(texts)
        clusters = MiniBatchKMeans(int(len(texts) ** 0.5), random_state=0, n_init=1)
        order["kind"] = clusters.fit_predict(vectors)
    order = order.sort_values("sure", kind="stable")
    # Of the least sure fifth alone: a kind that the model knows needs nobody.
    order["turn"] = order.groupby("kind").cumcount().where(np.arange(len(order)) < len(order) / 5)
    return order.sort_values(["turn", "sure"], kind="stable").index.to_numpy()


@dataclass
class Review:
    """Rows to decide on, and a file of decisions, which are known by the text; see `open_review`.

    Attributes:
        rows: As from `queue`.
        path: The file of decisions.
        names: Labels to choose from; none where keywords are decided on.
        several: Whether a text may have several labels.
        by: Who decides.
    """

    rows: pd.DataFrame
    path: Path
    names: list[str]
    several: bool = False
    by: str = ""
    todo: deque[int] = field(default_factory=deque)
    done: list[tuple[int, float]] = field(default_factory=list)
    _file: Any = None

    @property
    def current(self) -> dict[str, Any] | None:
        """The row to decide on; None where none is left."""
        if not self.todo:
            return None
        return {str(k): v for k, v in self.rows.iloc[self.todo[0]].items()}

    @property
    def pace(self) -> float:
        """Decisions a minute, over the last twenty; pauses of a minute and more don't count."""
        times = [at for _, at in self.done[-21:]]
        gaps = [after - before for before, after in pairwise(times) if after - before < 60]
        return 60 * len(gaps) / sum(gaps) if gaps and sum(gaps) else 0.0

    def decide(self, decision: str, value: str | None = None) -> None:
        """Decide on the current row; it is on disk when this returns.

        Args:
            decision: 'accept', 'correct', 'reject' (the text is no good) or 'skip'.
            value: Of 'correct': the label, labels as 'a|b', or keywords.

        Raises:
            ValueError: There is no such decision or label.
        """
        row = self.current
        if row is None:
            return
        if decision not in ("accept", "correct", "reject", "skip"):
            raise ValueError(f"Nobody knows the decision {decision!r}.")
        given = row["was"] if value is None else self._checked(value)
        if decision in ("accept", "correct"):
            decision = "accept" if self._same(given, row["was"]) else "correct"
        kept = given if decision in ("accept", "correct") else ""
        self._write(row, decision, kept)
        place = self.todo.popleft()
        self.done.append((place, time.monotonic()))

    def undo(self) -> None:
        """Take the last decision of this session back: its row is the current one again."""
        if self.done:
            place, _ = self.done.pop()
            self._write(self.rows.iloc[place], "undo", "")
            self.todo.appendleft(place)

    def _same(self, given: str, was: str) -> bool:
        if self.several:  # in whatever order
            return set(given.split("|")) == set(was.split("|"))
        return given == was

    def _checked(self, value: str) -> str:
        if not self.names:
            return words.join_keywords(value)
        chosen = value.split("|") if self.several else [value]
        chosen = [name for name in chosen if name]
        if unknown := [name for name in chosen if name not in self.names]:
            raise ValueError(f"There is no label {unknown[0]!r}; there are {self.names[:20]}.")
        return "|".join(name for name in self.names if name in chosen)

    def _write(self, row: Any, decision: str, value: str) -> None:
        at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._file.write([row["text"], row["was"], decision, value, row["why"], self.by, at])


@contextmanager
def open_review(
    rows: pd.DataFrame,
    path: str | Path,
    names: Sequence[str] = (),
    *,
    several: bool = False,
    by: str = "",
) -> Iterator[Review]:
    """Begin with a review, or go on with it; nobody else writes the file meanwhile.

    What was decided in the file is known by the text, so a table generated anew keeps it; what was
    skipped comes again, after the others.

    Args:
        rows: As from `queue`.
        path: CSV of decisions, to write or to go on with.
        names: Labels to choose from; none for keywords.
        several: Whether a text may have several labels.
        by: Who decides; '' for the name of this account.

    Raises:
        ValueError: The file holds something else; it stays as it is.
        RuntimeError: Somebody else is deciding in it.
    """
    with tables.Appender(path, COLUMNS) as file:
        decided = folded(file.before)
        keys = rows["text"].map(key_of)
        known = keys.map(decided.set_index(decided["text"].map(key_of))["decision"])
        todo = [*np.flatnonzero(known.isna()), *np.flatnonzero(known == "skip")]
        if len(rows) - len(todo):
            tqdm.write(f"{len(rows) - len(todo):,} of {len(rows):,} are decided in {path} already.")
        who = by or getpass.getuser()
        yield Review(rows, Path(path), list(names), several, who, deque(todo), [], file)


def choices(
    data: Any,
    label: str = "label",
    keywords: str | None = None,
    model: inference.Loadable | None = None,
    several: bool = False,
) -> tuple[list[str], bool]:
    """List the labels to choose from, the commonest first, and say whether a text may have several.

    Args:
        data: Any table that `tables.read` takes.
        label: Column of the labels.
        keywords: Column of the keywords, which are chosen freely: there are no labels then.
        model: Whose labels they are, in place of a column.
        several: Whether a text may have several.

    Example:
        >>> choices(pd.DataFrame({"label": ["a", "b", "b"]}))
        (['b', 'a'], False)
    """
    if model:
        loaded = inference.load(model)
        return (list(loaded.names), loaded.several) if loaded.kind == "classifier" else ([], False)
    if keywords:
        return [], False
    column = tables.read(data, [label])[label]
    named = label_sets(column).explode() if several else datasets.label_names(column)
    return named.dropna().value_counts().index.tolist(), several
