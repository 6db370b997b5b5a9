"""Metrics that don't hide a weak label."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binom, bootstrap
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from cookbook.keyphrases import choose_threshold as choose_threshold
from cookbook.keyphrases import compute_keyphrase_metrics as compute_keyphrase_metrics
from cookbook.keyphrases import compute_marking_metrics as compute_marking_metrics
from cookbook.keyphrases import f1_of as f1_of
from cookbook.keyphrases import kept
from cookbook.keyphrases import keyphrase_matches as keyphrase_matches
from cookbook.keyphrases import keyphrase_metrics as keyphrase_metrics
from cookbook.label_cells import label_names
from cookbook.multilabel import figures_of
from cookbook.tables import write_json

if TYPE_CHECKING:
    from transformers import EvalPrediction

Labels = Sequence[Any]

# Labels of which a Trainer logs every figure; of more it logs the averages and the worst.
_LOGGED, _WORST = 10, 3


def confusion(references: Labels, predictions: Labels, names: Sequence[str]) -> pd.DataFrame:
    """Count how often each label (row) was answered with each label (column).

    Args:
        references: True class ids or label names, one per text.
        predictions: Predicted class ids or label names, one per text.
        names: Label names in the order of their ids.

    Returns:
        A square table of counts, labels on both axes.

    Raises:
        ValueError: The two differ in length, are empty, or an id has no name.

    Example:
        >>> confusion([0, 1, 1], [0, 0, 1], ["a", "b"]).to_numpy().tolist()
        [[1, 0], [1, 1]]
    """
    true, predicted = _ids(references, predictions, names)
    counts = confusion_matrix(true, predicted, labels=np.arange(len(names)))
    index = pd.Index(names, name="label")
    return pd.DataFrame(counts, index=index, columns=pd.Index(names, name="predicted"))


def worst_pairs(counts: pd.DataFrame, n: int = 10) -> pd.DataFrame:
    """List which labels are taken for which most often: of many labels no table can be read.

    Args:
        counts: True labels down, predicted ones across, such as `confusion` returns.
        n: Pairs at most.

    Returns:
        Columns `label`, `predicted`, `texts` and `share` (of the texts with that label), by texts.

    Example:
        >>> pairs = worst_pairs(confusion([0, 1, 1], [0, 0, 1], ["a", "b"]))
        >>> pairs[["label", "predicted", "share"]].to_numpy().tolist()
        [['b', 'a', 0.5]]
    """
    every = pd.MultiIndex.from_product([counts.index, counts.columns], names=["label", "predicted"])
    pairs = every.to_frame(index=False).assign(texts=counts.to_numpy().ravel())
    pairs["share"] = pairs["texts"] / pairs.groupby("label")["texts"].transform("sum")
    wrong = pairs[(pairs["label"] != pairs["predicted"]) & (pairs["texts"] > 0)]
    return wrong.sort_values("texts", ascending=False, kind="stable").head(n).reset_index(drop=True)


def per_label(references: Labels, predictions: Labels, names: Sequence[str]) -> pd.DataFrame:
    """Score every label by itself, as scikit-learn's `precision_recall_fscore_support` does.

    Args:
        references: True class ids or label names, one per text.
        predictions: Predicted class ids or label names, one per text.
        names: Label names in the order of their ids.

    Returns:
        One row per label: `accuracy` (share of its texts that were answered right: its recall),
        `precision`, `recall`, `f1` (0 to 1) and `support` (texts). A label that was never predicted
        has precision and F1 of 0; one without texts has NaN throughout.

    Raises:
        ValueError: The two differ in length, are empty, or a label is unknown; or they are numbers
            while the names are others, so that they may be ids or names.

    Example:
        >>> per_label([0, 1, 1], [0, 0, 1], ["a", "b"])["recall"].tolist()
        [1.0, 0.5]
    """
    return _figures(*_ids(references, predictions, names), names)[1]


def classification_metrics(
    references: Labels, predictions: Labels, names: Sequence[str]
) -> dict[str, float]:
    """Return every figure as one flat dictionary of plain floats.

    Args:
        references: True class ids or label names, one per text.
        predictions: Predicted class ids or label names, one per text.
        names: Label names in the order of their ids.

    Returns:
        `accuracy`; `precision_macro`, `recall_macro`, `f1_macro` (mean over the labels that occur);
        `precision_weighted` and so on (weighted by support); and `accuracy_<name>`,
        `precision_<name>`, `recall_<name>`, `f1_<name>`, `support_<name>` for every label. Of one
        without texts only the support is there.

    Raises:
        ValueError: As `per_label`.

    Example:
        >>> classification_metrics([0, 1, 1, 1], [0, 0, 1, 1], ["a", "b"])["accuracy"]
        0.75
    """
    averages, table = _figures(*_ids(references, predictions, names), names)
    return averages | _flat(table)


def compute_metrics(
    names: Sequence[str], keep: Sequence[str] = ()
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the function that a `Trainer` takes as `compute_metrics`.

    Args:
        names: Label names in the order of their ids, such as `id2label.values()`.
        keep: Names of the figures to return, for a log that can be read; all.

    Returns:
        A function from an `EvalPrediction` with logits of shape (texts, labels) to the figures of
        `classification_metrics`, where a text may have several labels to those of
        `multilabel.multilabel_metrics`; with more than ten labels to the averages and `f1_<name>`
        of the worst three, for a log that can be read.

    Example:
        >>> compute = compute_metrics(["a", "b"])
        >>> compute((np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 1])))["f1_macro"]
        1.0
    """
    names = list(names)

    def compute(prediction: EvalPrediction | tuple[Any, Any]) -> dict[str, float]:
        logits, references = prediction
        if isinstance(logits, tuple):  # some models return hidden states behind the logits
            logits = logits[0]
        # A Trainer has ids, so they are never taken for names that are numbers.
        true, predicted = np.asarray(references), np.argmax(logits, axis=-1)
        if true.ndim == 2:
            averages, table = figures_of(true, expit(np.asarray(logits, float)), names)
            table = table.drop(columns="threshold")
        else:
            averages, table = _figures(true, predicted, names)
        if len(names) > _LOGGED:
            table = table[["f1"]].nsmallest(_WORST, "f1")
        return kept(averages | _flat(table), keep)

    return compute


def expected_calibration_error(
    scores: Sequence[float], right: Sequence[bool], bins: int = 15
) -> float:
    """Say how far probabilities are from the shares of right answers, on average.

    Texts are put into bins of equal width by probability; within each, mean probability and share
    of right answers are compared (Guo et al. 2017, https://arxiv.org/abs/1706.04599, with 15 bins).

    Args:
        scores: The probability of each answer, from 0 to 1.
        right: Whether it was right.
        bins: Number of bins.

    Raises:
        ValueError: The two differ in length, or are empty.

    Example:
        >>> round(expected_calibration_error([0.9, 0.9, 0.6], [True, True, False]), 3)
        0.267
    """
    if len(scores) != len(right) or not len(scores):
        raise ValueError(f"{len(scores)} probabilities for {len(right)} answers")
    frame = pd.DataFrame({"score": np.asarray(scores, float), "right": np.asarray(right, float)})
    place = np.minimum((frame["score"] * bins).astype(int), bins - 1)
    sums = frame.groupby(place).sum()
    return float((sums["score"] - sums["right"]).abs().sum() / len(frame))


def pass_rates(challenge: pd.DataFrame, predictions: Sequence[str]) -> pd.DataFrame:
    """Score a challenge set by group, in the manner of CheckList (Ribeiro et al. 2020).

    Args:
        challenge: Columns `text`, `label`, `group`, `case`.
        predictions: A label name per row.

    Returns:
        One row per group in the order of the file: `rows`, `passed` (share with the right label)
        and `unchanged` (share answered as the text of the same `case` in group `as_written`; NaN
        where there is none).

    Raises:
        ValueError: There isn't one prediction per row.

    Example:
        >>> rows = pd.DataFrame({"text": ["A"], "label": ["x"], "group": ["g"], "case": [None]})
        >>> pass_rates(rows, ["x"])["passed"].tolist()
        [1.0]
    """
    if len(predictions) != len(challenge):
        raise ValueError(f"{len(predictions)} predictions for {len(challenge)} rows")
    rows = challenge.assign(predicted=label_names(predictions).to_numpy())
    rows["passed"] = rows["predicted"] == label_names(rows["label"])
    written = rows[(rows["group"] == "as_written") & rows["case"].notna()]
    before = rows["case"].map(written.set_index("case")["predicted"])
    repeats = before.notna() & (rows["group"] != "as_written")
    rows["unchanged"] = (rows["predicted"] == before).astype(float).where(repeats)
    return rows.groupby("group", sort=False).agg(
        rows=("text", "size"), passed=("passed", "mean"), unchanged=("unchanged", "mean")
    )


def mcnemar(references: Labels, first: Labels, second: Labels) -> dict[str, float]:
    """Test whether two classifiers differ in accuracy on the same texts.

    McNemar's test by the binomial distribution, with the mid-p value (Fagerland et al. 2013,
    https://doi.org/10.1186/1471-2288-13-91). Only the texts count that one has right and the other
    wrong: were the two as good as each other, either would be right on half of those.

    Args:
        references: True labels, one per text.
        first: Labels that the first classifier gave.
        second: Labels that the second one gave.

    Returns:
        `only_first` and `only_second` (texts that one alone has right), `difference` (accuracy of
        the first less that of the second) and `p` (two-sided; 1 where no text tells them apart).

    Raises:
        ValueError: The three differ in length, or are empty.

    Example:
        >>> round(mcnemar(list("aaaaaa"), list("aaaaaa"), list("bbbbbb"))["p"], 4)
        0.0156
    """
    if not len(references) == len(first) == len(second) or not len(references):
        raise ValueError(
            "Both classifiers must have answered every text: got "
            f"{len(references)} references, {len(first)} and {len(second)} answers"
        )
    true, *both = (label_names(values).to_numpy() for values in (references, first, second))
    right, other = (answers == true for answers in both)
    only_first, only_second = int((right & ~other).sum()), int((other & ~right).sum())
    chance = binom(only_first + only_second, 0.5)
    fewer = min(only_first, only_second)
    return {
        "only_first": only_first,
        "only_second": only_second,
        "difference": (only_first - only_second) / len(true),
        "p": float(2 * chance.cdf(fewer - 1) + chance.pmf(fewer)),
    }


def paired_bootstrap(
    first: Labels | np.ndarray,
    second: Labels | np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """Say how far a difference between two systems may be chance, from their scores per text.

    Texts are drawn with replacement, the same for both (Efron and Tibshirani 1993; percentile
    interval). An interval that excludes 0 is more than the choice of texts; it says nothing about
    other training seeds.

    Args:
        first: Scores of the first system, shape (texts,) or (texts, figures).
        second: Scores of the second one, of the same shape.
        statistic: From such scores to one number, for instance an F1 of mean precision and recall.
        resamples: Number of draws.
        confidence: Share of the draws within the interval.
        seed: Seed of the draws.

    Returns:
        `difference` (statistic of the first less that of the second) and its interval, `low` and
        `high`.

    Raises:
        ValueError: The shapes differ, or there are fewer than two texts.

    Example:
        >>> paired_bootstrap([1, 1, 1], [0, 0, 0])
        {'difference': 1.0, 'low': 1.0, 'high': 1.0}
    """
    ours, theirs = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if ours.shape != theirs.shape or len(ours) < 2:
        raise ValueError(
            "Scores of the same two texts or more are needed: got shapes "
            f"{ours.shape} and {theirs.shape}"
        )

    def difference(rows: np.ndarray) -> float:
        return float(statistic(ours[rows]) - statistic(theirs[rows]))

    # Rows are drawn, not scores, so that a statistic of several figures per text is no other case.
    rows = np.arange(len(ours))
    draws = bootstrap(
        (rows,),
        difference,
        vectorized=False,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    low, high = map(float, draws.confidence_interval)
    return {"difference": difference(rows), "low": low, "high": high}


def save_metrics(folder: str | Path, /, **results: Any) -> Path:
    """Write `metrics.json`, which the model card is built from: whole, and plain JSON.

    Args:
        folder: Where to.
        **results: Figures: numbers, text, lists, dictionaries, arrays, Series and DataFrames (by
            row, then column); NaN becomes null, and any other value the text of it.

    Returns:
        Path of the file.

    Example:
        >>> from tempfile import mkdtemp
        >>> load_metrics(save_metrics(mkdtemp(), test={"f1": np.float32(0.5)}, loss=float("nan")))
        {'test': {'f1': 0.5}, 'loss': None}
    """
    # JSON has no NaN and no infinity: written, read as None, and written again.
    plain = json.loads(json.dumps(results, default=_as_json), parse_constant=lambda _: None)
    return write_json(Path(folder, "metrics.json"), plain)


def load_metrics(path: str | Path) -> dict[str, Any]:
    """Read what `save_metrics` wrote, from the file or its folder.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It isn't a JSON object.
    """
    path = Path(path, "metrics.json") if Path(path).is_dir() else Path(path)
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path} isn't a JSON object, as save_metrics writes one.")
    return found


def _as_json(value: Any) -> Any:
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return json.loads(value.to_json(orient="index", double_precision=15))
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _figures(
    true: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> tuple[dict[str, float], pd.DataFrame]:
    ids = np.arange(len(names))
    scores = precision_recall_fscore_support(true, predicted, labels=ids, zero_division=0)
    precision, recall, f1, support = scores
    columns = {"accuracy": recall, "precision": precision, "recall": recall, "f1": f1}
    table = pd.DataFrame(columns, index=pd.Index(names, name="label"))
    averages = {"accuracy": float((true == predicted).mean())}
    occurs = (support > 0) | np.isin(ids, predicted)
    for average, weights in (("macro", occurs), ("weighted", support)):
        for score in ("precision", "recall", "f1"):
            averages[f"{score}_{average}"] = float(np.average(table[score], weights=weights))
    table[support == 0] = np.nan
    return averages, table.assign(support=support)


def _flat(table: pd.DataFrame) -> dict[str, float]:
    cells = ((f"{c}_{name}", value) for c in table for name, value in table[c].dropna().items())
    return {name: float(value) for name, value in cells}


def _ids(
    references: Labels, predictions: Labels, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Turn class ids or names into ids; refuse numbers that may be either."""
    if len(references) != len(predictions) or not len(references):
        raise ValueError(
            "References and predictions must be of the same length, not empty: got "
            f"{len(references)} and {len(predictions)}"
        )
    by_name = {str(name): i for i, name in enumerate(names)}
    by_id = {str(i): i for i in range(len(names))} | {"False": 0, "True": 1}
    sides = []
    for side in (references, predictions):
        cells = pd.Series(list(side))
        written, known = label_names(cells), by_name
        if pd.api.types.is_numeric_dtype(cells):
            known = by_id | by_name
            if any(known[name] != by_id[name] for name in by_id.keys() & set(written)):
                raise ValueError(
                    f"Are numbers such as {cells[0]} class ids, or labels among {list(by_name)}? "
                    "Pass labels as text, for instance list(map(str, labels))."
                )
        ids = written.map(known)
        if ids.isna().any():
            unknown = ", ".join(sorted(set(map(str, written[ids.isna()]))))
            raise ValueError(f"No such label: {unknown}; the model has {list(by_name)}")
        sides.append(ids.to_numpy(dtype=int))
    return sides[0], sides[1]
