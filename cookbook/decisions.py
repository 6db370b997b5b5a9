"""A file of a person's decisions: read, counted, put into a table, compared with another's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.metrics import cohen_kappa_score

from cookbook import metrics, tables, words

COLUMNS = ("text", "was", "decision", "value", "why", "by", "at")
AT_RANDOM = "drawn at random"


def decisions(path: str | Path) -> pd.DataFrame:
    """Read a file of decisions: the last of each text, without those taken back.

    Returns:
        `text`, `was`, `decision` (accept, correct, reject, skip), `value`, `why`, `by`, `at`.
    """
    return folded(tables.read(path, list(COLUMNS)))


def folded(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep of the rows of such a file the last of each text, and none that was taken back."""
    rows = rows.fillna("").astype(str)
    last = ~rows["text"].map(key_of).duplicated(keep="last")
    return rows.loc[last & (rows["decision"] != "undo"), list(COLUMNS)].reset_index(drop=True)


def key_of(text: str) -> str:
    """Return what a text is known by, whatever its row.

    Example:
        >>> key_of("Tea, at last!") == key_of("tea at last")
        True
    """
    return words.normalise(text) or text


def apply(
    data: Any,
    path: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    keywords: str | None = None,
) -> pd.DataFrame:
    """Put decisions into a table: corrected cells, without the texts that were rejected.

    Args:
        data: Any table that `tables.read` takes.
        path: The file of decisions.
        text: Column of the texts.
        label: Column of the labels, made where there is none.
        keywords: Column of the keywords, where these were decided on.

    Returns:
        The table with a column `reviewed`: 'accept', 'correct', or '' where nobody decided. A
        warning counts what was left out.
    """
    rows, column = tables.read(data, [text]), keywords or label
    found = _settled(path)
    keys = rows[text].map(lambda cell: key_of(cell) if isinstance(cell, str) else "")
    said = keys.map(found["decision"]).fillna("")
    if column not in rows:
        rows[column] = None
    # What was accepted may be a model's answer, in place of what the cell says.
    cells = rows[column].map(lambda cell: _as_decided(cell, bool(keywords)))
    values = keys.map(found["value"])
    new = (said == "correct") | ((said == "accept") & (cells != values))
    rows[column] = rows[column].astype(object).mask(new, values)
    if rejected := (said == "reject").sum():
        warnings.warn(f"{rejected} rejected texts are left out.", stacklevel=2)
    return rows.assign(reviewed=said)[said != "reject"].reset_index(drop=True)


def _as_decided(cell: Any, keywords: bool) -> str:
    """Write a cell as decisions have it."""
    if keywords:
        return words.join_keywords(cell)
    return "|".join(map(str, cell)) if isinstance(cell, (list, tuple)) else str(cell)


@dataclass(frozen=True)
class Reviewed:
    """What was decided; prints as a summary.

    Attributes:
        counts: Texts by decision.
        changes: `was`, `value` and `texts`: which label became which, the most frequent first.
        right: Share of what was looked at and accepted; of texts drawn at random alone.
        low: Lower end of its 95% interval (Clopper and Pearson 1934).
        high: Upper end.
    """

    counts: pd.Series
    changes: pd.DataFrame
    right: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")

    def __str__(self) -> str:
        lines = [", ".join(f"{name} {n:,}" for name, n in self.counts.items()) or "nothing yet"]
        for row in self.changes.head(10).itertuples():
            lines.append(f"  {row.was!r} became {row.value!r}: {row.texts:,}")
        if self.right == self.right:
            told = f"right: {self.right:.1%} of a sample at random "
            lines.append(f"{told}(95% interval {self.low:.1%} to {self.high:.1%})")
        return "\n".join(lines)


def report(path: str | Path) -> Reviewed:
    """Say what was decided, which label became which, and how often what stood there was right.

    Args:
        path: The file of decisions.
    """
    from scipy.stats import binomtest

    found = decisions(path)
    changed = found[found["decision"] == "correct"]
    changes = changed.groupby(["was", "value"]).size().rename("texts").reset_index()
    changes = changes.sort_values("texts", ascending=False, kind="stable", ignore_index=True)
    counts = found["decision"].value_counts()
    drawn = found[(found["why"] == AT_RANDOM) & (found["decision"] != "skip")]
    if drawn.empty:
        return Reviewed(counts, changes)
    right = int((drawn["decision"] == "accept").sum())
    interval = binomtest(right, len(drawn)).proportion_ci()
    return Reviewed(counts, changes, right / len(drawn), float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Agreement:
    """How far two people agree; prints as a summary.

    Attributes:
        texts: Texts that both decided on.
        agreed: Share of them with the same outcome.
        kappa: Cohen's kappa: agreement beyond chance, 1 at most; of keywords their mean F1@M.
        disagreements: `text` and what each made of it.
        merged: What both made of their texts, and what only one decided on.
    """

    texts: int
    agreed: float
    kappa: float
    disagreements: pd.DataFrame
    merged: pd.DataFrame

    def __str__(self) -> str:
        told = f"{self.texts:,} texts that both decided on: the same {self.agreed:.1%}, "
        told += f"kappa {self.kappa:.2f}; {len(self.merged):,} decisions in all"
        rows = self.disagreements.head(10).itertuples(index=False, name=None)
        return "\n".join([told, *(f"  {text[:60]!r}: {a!r} or {b!r}" for text, a, b in rows)])


def agreement(first: str | Path, second: str | Path, keywords: bool = False) -> Agreement:
    """Compare and merge two people's decisions on the same texts.

    Args:
        first: A file of decisions.
        second: Another.
        keywords: Whether keywords were decided on: kappa, which needs categories, is then replaced
            by the F1@M of the one's keywords against the other's.

    Raises:
        ValueError: There is no text that both decided on.
    """
    ours, theirs = (_settled(path) for path in (first, second))
    both = ours.index.intersection(theirs.index, sort=False)
    if both.empty:
        raise ValueError(f"There is no text that stands decided in both {first} and {second}.")
    a, b = ours.loc[both, "outcome"], theirs.loc[both, "outcome"]
    if keywords:
        one, other = (list(map(words.split_keywords, side)) for side in (a, b))
        kappa = metrics.keyphrase_metrics(ours.loc[both, "text"].tolist(), one, other)["f1@M"]
    else:
        kappa = 1.0 if (a == b).all() else float(cohen_kappa_score(a, b))
    apart = pd.DataFrame({"text": ours.loc[both, "text"], "first": a, "second": b})[a != b]
    alone = pd.concat([ours.loc[both][a == b], ours.drop(both), theirs.drop(both)])
    merged = alone[list(COLUMNS)].reset_index(drop=True)
    return Agreement(len(both), float((a == b).mean()), kappa, apart.reset_index(drop=True), merged)


def _settled(path: str | Path) -> pd.DataFrame:
    found = decisions(path)
    found = found[found["decision"] != "skip"]
    outcome = found["value"].mask(found["decision"] == "reject", "(rejected)")
    return found.assign(outcome=outcome).set_index(found["text"].map(key_of))
