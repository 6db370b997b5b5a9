"""A small model first, and a large one, or a person, for what it isn't sure of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from cookbook.inference import classify
from cookbook.models import load
from cookbook.tables import strings

if TYPE_CHECKING:
    from cookbook.models import Loadable


@dataclass(frozen=True)
class Cascade:
    """What a cascade answered; prints as a line.

    Attributes:
        answers: As from `inference.classify`, with `by`: who gave the label, 'model', the name of
            the one that was asked, or 'queue' for what waits for a person (its label is still the
            model's).
        below: The model was sure from this score on.
    """

    answers: pd.DataFrame
    below: float

    def __str__(self) -> str:
        told = [f"{name} {n:,}" for name, n in self.answers["by"].value_counts().items()]
        return f"sure from {self.below:.3f} on; answered by: {', '.join(told)}"


def cascade(
    texts: Iterable[str],
    model: Loadable,
    ask: Any,
    *,
    below: float | None = None,
    budget: int | None = None,
) -> Cascade:
    """Answer with a small model, and ask a large one about what that isn't sure of.

    Args:
        texts: The texts.
        model: A classifier with one label a text, as for `inference.load`.
        ask: Who is asked: a `baselines.Classifier`, as `baselines.llm` makes. None where a person
            is: all that the model isn't sure of is then queued.
        below: The score below which it is asked; None for the one in the model's configuration
            (`trust.keep`).
        budget: Different texts that may be asked about at most, the least sure first; the others
            are queued.

    Raises:
        ValueError: There is no threshold, a text may have several labels, the model doesn't
            classify, or the one that is asked leaves a text out.
    """
    loaded = load(model).of_kind("classifier")
    if loaded.several:
        raise ValueError("This model gives a text several labels: cascade takes those with one.")
    if below is None:
        below = loaded.config.get("sure_from")
    if below is None:
        raise ValueError("Say below= which score to ask, or keep a threshold with trust.keep.")
    answers = classify(strings(texts), loaded)
    unsure = answers[answers["score"] < below].sort_values("score", kind="stable")
    answers["by"] = "model"
    answers.loc[unsure.index, "by"] = "queue"
    chosen = unsure["text"].drop_duplicates().tolist()[:budget] if ask else []
    if ask and chosen:
        found = list(ask.predict(chosen))
        if len(found) != len(chosen):
            raise ValueError(f"{ask.name} gave {len(found)} answers to {len(chosen)} texts.")
        said = answers["text"].map(dict(zip(chosen, found, strict=True)))
        # What couldn't be read is '': the model's label is better than none, and a person's best.
        told = said.notna() & (said != "") & (answers["score"] < below)
        answers["label"] = answers["label"].mask(told, said)
        answers["by"] = answers["by"].mask(told, ask.name)
    return Cascade(answers, float(below))


def trade_off(
    scores: Sequence[float],
    right: Sequence[bool],
    asked_right: Sequence[bool],
    *,
    dollars: float,
    asked_dollars: float,
    shares: Sequence[float] = (0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1),
) -> pd.DataFrame:
    """Work out what handing on the least sure texts brings, and what it costs.

    Args:
        scores: How sure the model is of each text, on texts that were not trained on.
        right: Whether its label is right.
        asked_right: Whether that of the one that is asked is.
        dollars: What a million texts cost with the model; see `economics`.
        asked_dollars: What a million cost with the one that is asked.
        shares: Shares of the texts to hand on.

    Returns:
        One row a share: `share`, `below` (the score that hands so many on), `accuracy` with its 95%
        interval from `low` to `high`, and `dollars` per million texts.

    Raises:
        ValueError: The lists differ in length, or are empty.

    Example:
        >>> costs = {"dollars": 1.0, "asked_dollars": 100.0, "shares": [0, 0.5]}
        >>> trade_off([0.6, 0.9], [False, True], [True, True], **costs)["accuracy"].tolist()
        [0.5, 1.0]
    """
    sure = np.asarray(scores, float)
    ours, theirs = np.asarray(right, bool), np.asarray(asked_right, bool)
    if not 0 < len(sure) == len(ours) == len(theirs):
        raise ValueError(f"{len(sure)} scores, {len(ours)} and {len(theirs)} answers: give as many")
    order, n = np.argsort(sure, kind="stable"), len(sure)
    rows = []
    for share in shares:
        handed = round(share * n)
        hits = int(theirs[order[:handed]].sum() + ours[order[handed:]].sum())
        interval = binomtest(hits, n).proportion_ci()
        below = sure[order[handed]] if handed < n else np.inf
        cost = dollars + share * asked_dollars
        rows.append((share, below, hits / n, interval.low, interval.high, cost))
    return pd.DataFrame(rows, columns=["share", "below", "accuracy", "low", "high", "dollars"])


def cheapest(table: pd.DataFrame, accuracy: float) -> pd.Series:
    """Choose the least share that reaches an accuracy, or the most accurate where none does.

    Args:
        table: From `trade_off`.
        accuracy: That is wanted.

    Example:
        >>> table = pd.DataFrame({"share": [0, 0.1], "accuracy": [0.9, 0.95]})
        >>> float(cheapest(table, 0.94)["share"])
        0.1
    """
    reached = table[table["accuracy"] >= accuracy]
    return reached.iloc[0] if len(reached) else table.iloc[int(table["accuracy"].argmax())]
