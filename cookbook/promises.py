"""From which score on an answer is sure, and what may be promised of such answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import beta, binom

from cookbook.words import split_keywords, stems

_STEPS = 50  # thresholds that are tested


@dataclass(frozen=True)
class Sure:
    """From which score on a model is sure, and what that promises; prints as a line.

    Attributes:
        threshold: The score; None where there are too few rows for any promise.
        wanted: Accuracy that was asked for.
        coverage: Share of the answers whose score reaches the threshold.
        accuracy: Share of these that are right, on the rows that it was chosen on.
        low: The lower bound on that, at this confidence. Of too few rows: what they would allow,
            were all of them right.
        confidence: Share of the promises that are kept.
        rows: Rows (of keywords: texts) that it was chosen on.
        least: Coverage at which the search began.
    """

    threshold: float | None
    wanted: float
    coverage: float
    accuracy: float
    low: float
    confidence: float
    rows: int
    least: float

    @property
    def kept(self) -> bool:
        """Whether as much as was wanted may be promised."""
        return self.threshold is not None and self.low >= self.wanted

    @property
    def promised(self) -> float:
        """The accuracy that may be promised on other rows of the kind; 0 where none may be."""
        return min(self.low, self.wanted) if self.threshold is not None else 0.0

    def __str__(self) -> str:
        wanted = f"{self.wanted:.1%}"
        if self.threshold is None:
            return (
                f"{self.rows} rows allow no promise of {wanted}: at best {self.low:.1%}, were "
                f"all of them right; {_needed(self.wanted, self.confidence)} are needed"
            )
        told = "" if self.kept else f", less than the {wanted} wanted"
        return (
            f"sure from {self.threshold:.4f} on: {self.coverage:.1%} of the answers, "
            f"{self.accuracy:.1%} of them right; {self.rows:,} rows promise "
            f"{_down(self.promised)} at {self.confidence:.0%} confidence{told}"
        )


def choose_threshold(
    scores: Iterable[float],
    right: Iterable[bool],
    wanted: float = 0.98,
    *,
    coverage: float = 0.9,
    confidence: float = 0.95,
    groups: Iterable[Any] | None = None,
) -> Sure:
    """Choose from which score on answers are sure, so that the accuracy of these can be promised.

    A threshold that is read off the accuracies often breaks its promise. Here thresholds
    are tested one after the other, the strictest first, by the lower bound on the accuracy of what
    is above (Clopper and Pearson 1934); the last before the first that fails is it (fixed-sequence
    testing of Learn then Test, Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052). They
    are fixed by shares of the rows, without a look at what is right. Where already the first fails
    it is returned, with the bound that it has: a single test, so that this promise holds too.

    Args:
        scores: How sure each answer is, such as `score` of `inference.classify`. Of several labels
            a text it is that of the whole set: single labels are mostly easy noes, and those of a
            text hang together, so that they can't be counted as rows.
        right: Whether each answer is right, on rows that nothing was trained on.
        wanted: The accuracy to promise.
        coverage: Share of the rows to begin with; 0 for as few as may keep the promise: less is
            answered, more promised.
        confidence: Of the promise.
        groups: What answers belong to that hang together: the text of each keyword. A group then
            counts once, by its share of right answers (by the bound of
            Hoeffding and Bentkus, as there).

    Returns:
        The threshold, and what it promises.

    Raises:
        ValueError: The lengths differ, a score is missing, or a share isn't one.

    Example:
        >>> sure = choose_threshold(np.linspace(1, 0.5, 1000), [True] * 970 + [False] * 30)
        >>> round(sure.coverage, 2), sure.kept
        (0.98, True)
        >>> print(choose_threshold([0.9] * 40, [True] * 40))
        40 rows allow no promise of 98.0%: at best 92.8%, were all of them right; 149 are needed
    """
    rows, asked = _rows(scores, right, groups), _asked(wanted, confidence, coverage)
    seen = (~rows["group"].duplicated()).cumsum().to_numpy()  # groups among the surest rows
    needed = _needed(wanted, confidence)
    if seen[-1] < needed:
        best = (1 - confidence) ** (1 / seen[-1])
        return Sure(None, coverage=0.0, accuracy=math.nan, low=best, rows=int(seen[-1]), **asked)
    begin = max(seen.searchsorted(needed) + 1, math.ceil(coverage * (len(rows) + 1)))
    places = np.linspace(min(begin, len(rows)), len(rows), _STEPS).astype(int)
    tested = (_at(rows, _threshold(rows["score"].to_numpy(), n), asked) for n in places)
    first = next(tested)
    return [first, *takewhile(lambda each: each.kept, tested if first.kept else ())][-1]


def at_threshold(
    threshold: float,
    scores: Iterable[float],
    right: Iterable[bool],
    wanted: float = 0.98,
    *,
    coverage: float = 0.9,
    confidence: float = 0.95,
    groups: Iterable[Any] | None = None,
) -> Sure:
    """Say what a threshold promises that was chosen elsewhere: on other rows, or for another model.

    Args:
        threshold: The score from which on an answer is sure.
        scores: As for `choose_threshold`, and so are the others.
        right: Whether each answer is right.
        wanted: The accuracy to promise.
        coverage: Noted only.
        confidence: Of the promise.
        groups: What answers belong to that hang together.

    Raises:
        ValueError: As `choose_threshold`.

    Example:
        >>> round(at_threshold(0.5, [0.9] * 200 + [0.4], [True] * 200 + [False]).low, 4)
        0.9851
    """
    return _at(_rows(scores, right, groups), threshold, _asked(wanted, confidence, coverage))


def accuracy_by_coverage(
    scores: Iterable[float], right: Iterable[bool], *, confidence: float = 0.95
) -> pd.DataFrame:
    """Say how many of the surest answers are right, from the surest twentieth to all.

    Args:
        scores: How sure each answer is.
        right: Whether it is right.
        confidence: Of `low`.

    Returns:
        Columns `coverage` (share of the answers), `threshold`, `rows`, `accuracy` and `low`, the
        bound for each row by itself: to choose one by it is what `choose_threshold` is for.

    Raises:
        ValueError: The lengths differ, or a score is missing.

    Example:
        >>> table = accuracy_by_coverage([0.9] * 10 + [0.6] * 10, [True] * 10 + [False] * 10)
        >>> table[["coverage", "accuracy"]].to_numpy().tolist()
        [[0.5, 1.0], [1.0, 0.5]]
    """
    rows = _rows(scores, right, None)
    asked = _asked(0.5, confidence, 0.0)
    places = np.unique(np.ceil(np.linspace(0.05, 1, 20) * len(rows)).astype(int))
    ranked, table = rows["score"].to_numpy(), []
    for threshold in dict.fromkeys(_threshold(ranked, place) for place in places):
        at = _at(rows, threshold, asked)
        table.append((at.coverage, threshold, (ranked >= threshold).sum(), at.accuracy, at.low))
    return pd.DataFrame(table, columns=["coverage", "threshold", "rows", "accuracy", "low"])


def keyword_hits(found: Iterable[Any], references: Iterable[Any]) -> pd.DataFrame:
    """Say of each keyword that a model marked whether it is right, for `choose_threshold`.

    Args:
        found: Pairs of a keyword and its score, a list per text:
            `inference.extract_keywords(…, scores=True)`.
        references: The true keywords of each text: a list, or a cell.

    Returns:
        A row per keyword: `text` (its number), `keyword`, `score`, and `right`: whether it is among
        the true ones, stemmed, as in `metrics.keyphrase_matches`.

    Raises:
        ValueError: The lengths differ.

    Example:
        >>> keyword_hits([[("Go", 0.9), ("and", 0.4)]], ["go, Redis"])["right"].tolist()
        [True, False]
    """
    rows = []
    for text, (pairs, cell) in enumerate(zip(found, references, strict=True)):
        true = set(map(stems, split_keywords(cell)))
        rows += [(text, keyword, score, stems(keyword) in true) for keyword, score in pairs]
    return pd.DataFrame(rows, columns=["text", "keyword", "score", "right"])


def _down(share: float) -> str:
    """Write a share in per cent, rounded down: no more is promised than there is."""
    return f"{math.floor(1000 * share + 1e-6) / 10:.1f}%"


def _asked(wanted: float, confidence: float, coverage: float) -> dict[str, float]:
    for name, share in {"wanted": wanted, "confidence": confidence}.items():
        if not 0 < share < 1:
            raise ValueError(f"{name} is {share}, and should be between 0 and 1, such as 0.95.")
    if not 0 <= coverage <= 1:
        raise ValueError(f"coverage is {coverage}, and should be a share from 0 to 1.")
    return {"wanted": wanted, "confidence": confidence, "least": coverage}


def _rows(scores: Any, right: Any, groups: Any) -> pd.DataFrame:
    """Return the answers as a table, the surest first."""
    scores, right = list(scores), list(right)
    texts = range(len(scores)) if groups is None else list(groups)
    if not len(scores) == len(right) == len(texts) or not scores:
        raise ValueError(f"{len(scores)} scores, {len(right)} verdicts and {len(texts)} groups.")
    rows = pd.DataFrame({"score": scores, "right": right}, dtype=float).assign(group=texts)
    if (bad := np.flatnonzero(rows[["score", "right"]].isna().any(axis=1))).size:
        raise ValueError(f"Row {bad[0]} has no score or no verdict: leave out blank texts.")
    rows.attrs["grouped"] = groups is not None
    return rows.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _needed(wanted: float, confidence: float) -> int:
    """Return of how many rows, all of them right, the bound reaches the wanted accuracy."""
    return math.ceil(math.log(1 - confidence) / math.log(wanted))


def _threshold(ranked: np.ndarray, place: int) -> float:
    """Return a threshold half-way between the answer at a place and the next one below."""
    below = ranked[ranked < ranked[place - 1]]
    return float((ranked[place - 1] + below[0]) / 2) if below.size else 0.0


def _at(rows: pd.DataFrame, threshold: float, asked: Mapping[str, float]) -> Sure:
    """Measure what a threshold promises."""
    above = rows[rows["score"] >= threshold]
    grouped = rows.attrs["grouped"]
    shares = (above.groupby("group")["right"].mean() if grouped else above["right"]).to_numpy()
    accuracy = float(shares.mean()) if len(shares) else math.nan
    bound = _bounded if grouped else _exact
    low = bound(shares, asked["confidence"]) if len(shares) else 0.0
    found = {"coverage": len(above) / len(rows), "accuracy": accuracy, "low": low}
    return Sure(threshold, rows=rows["group"].nunique(), **found, **asked)


def _exact(right: np.ndarray, confidence: float) -> float:
    """Return the lower bound of Clopper and Pearson, on one side."""
    hits = round(right.sum())
    return float(beta.ppf(1 - confidence, hits, len(right) - hits + 1)) if hits else 0.0


def _bounded(shares: np.ndarray, confidence: float) -> float:
    """Return the lower bound of Hoeffding and Bentkus on a mean of numbers between 0 and 1."""
    n, lost, tiny = len(shares), float(1 - shares.mean()), 1e-12

    def chance(risk: float) -> float:
        hoeffding = math.exp(-n * float(rel_entr(lost, risk) + rel_entr(1 - lost, 1 - risk)))
        return min(hoeffding, math.e * float(binom.cdf(math.ceil(n * lost - 1e-9), n, risk)))

    if lost > 1 - tiny:
        return 0.0
    return 1 - float(brentq(lambda risk: chance(risk) - 1 + confidence, lost + tiny, 1 - tiny))
