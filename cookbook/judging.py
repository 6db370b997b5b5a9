"""A second opinion on labels: an LLM, or anybody else, that isn't told what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logit
from scipy.stats import binomtest

from cookbook import data as datasets
from cookbook import quality, tables
from cookbook.baselines import Classifier


@dataclass(frozen=True)
class Judged:
    """What a judge thinks of labels; prints as a summary.

    Attributes:
        rows: `text`, `label`, `judged` ('' where the judge gave none), `suggested` by the other
            texts, and `score` from 0 (doubtful) to 1, of both together; the most doubtful first.
        agreed: Share of the labels that the judge gives too.
        known: Texts that a person labelled, by which the judge is judged.
        accuracy: Share of these that it has right; nan without any.
        low: Lower end of its 95% interval (Clopper and Pearson 1934).
        high: Upper end.
    """

    rows: pd.DataFrame
    agreed: float
    known: int
    accuracy: float
    low: float
    high: float

    @property
    def set_aside(self) -> pd.DataFrame:
        """The rows on which judge and label differ, with both opinions."""
        differ = (self.rows["judged"] != self.rows["label"]) & (self.rows["judged"] != "")
        return self.rows[differ].reset_index(drop=True)

    def __str__(self) -> str:
        told = f"The judge agrees with {self.agreed:.1%} of {len(self.rows):,} labels"
        if not self.known:
            return f"{told}; how far it can be trusted nobody knows: give known= some rows."
        right = f"it has {self.accuracy:.1%} of {self.known:,} labels by a person right"
        return f"{told}; {right} (95% interval {self.low:.1%} to {self.high:.1%})"


def judge(
    data: Any,
    judge: Classifier,
    *,
    known: Any = None,
    text: str = "text",
    label: str = "label",
    folds: int = 5,
    seed: int = 0,
) -> Judged:
    """Ask a judge for the labels of texts without telling them, and rank the texts by doubt.

    The doubt is the judge's and that of `quality.doubtful` together: two opinions that err
    independently multiply (Bayes). The judge counts for no more than its `known` rows prove. LLMs
    as judges err, and in their own way: look at the accuracy before you drop anything.

    Args:
        data: Any table that `tables.read` takes, with texts and a label each.
        judge: Whom to ask, for instance `baselines.llm` with another model than wrote the texts.
        known: Table of texts that a person labelled, 30 to 50 of them.
        text: Column of the texts.
        label: Column of the labels.
        folds: As for `quality.doubtful`.
        seed: As for `quality.doubtful`.

    Raises:
        ValueError: As `quality.doubtful`; the judge leaves a text out.
    """
    given = datasets.usable(tables.read(data, [text, label]), text=text, label=label)
    rows = quality.doubtful(given, text=text, label=label, folds=folds, seed=seed)
    asked = rows["text"].tolist()
    known_rows = pd.DataFrame({"text": [], "label": []})
    if known is not None:
        known_rows = datasets.usable(tables.read(known, [text, label]), text=text, label=label)
        known_rows = known_rows[[text, label]].set_axis(["text", "label"], axis=1)
    found = judge.predict([*asked, *known_rows["text"]])
    if len(found) != len(asked) + len(known_rows):
        raise ValueError(f"{judge.name} gave {len(found)} labels to {len(asked)} texts.")
    rows["judged"] = found[: len(asked)]
    right = int((np.array(found[len(asked) :], object) == known_rows["label"].to_numpy()).sum())
    agreed = float((rows["judged"] == rows["label"]).mean())
    n = len(known_rows)
    low, high = float("nan"), float("nan")
    if n:
        interval = binomtest(right, n).proportion_ci()
        low, high = float(interval.low), float(interval.high)
    # No further than what few rows prove; without any, as if all that differs were its mistakes.
    wrong = 1 - (low if n else agreed)
    rows["score"] = _together(rows, min(max(wrong, 0.01), 0.49))
    rows = rows.sort_values("score", kind="stable", ignore_index=True)
    rows = rows[["text", "label", "judged", "suggested", "score"]]
    return Judged(rows, agreed, n, right / n if n else float("nan"), low, high)


def _together(rows: pd.DataFrame, wrong: float) -> np.ndarray:
    """Return the probability of the given labels after both opinions."""
    odds = logit(np.clip(rows["score"].to_numpy(float), 1e-6, 1 - 1e-6))

    def loss(scale: float) -> float:
        return float(-log_expit(scale * odds).mean())

    # The cheap model is less sure than it could be; its odds have to weigh what the judge's do.
    scale = minimize_scalar(loss, bounds=(0.1, 10), method="bounded").x
    same = (rows["judged"] == rows["label"]).to_numpy()
    silent = (rows["judged"] == "").to_numpy()
    says = np.where(silent, 0.0, np.where(same, 1, -1) * logit(1 - wrong))
    return expit(scale * odds + says)
