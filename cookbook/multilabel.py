"""Texts with several labels: how good each label is, from which probability on, which meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cookbook.label_cells import one_hot

Sets: TypeAlias = Sequence[Sequence[str]] | np.ndarray


def per_label(
    references: Sets, scores: np.ndarray, names: Sequence[str], thresholds: Any = 0.5
) -> pd.DataFrame:
    """Score every label by itself.

    Args:
        references: The labels of each text: lists of names, or 1 and 0 of shape (texts, labels).
        scores: Probabilities of the same shape, nan for a text without an answer.
        names: Label names in the order of the columns.
        thresholds: From which probability a label holds: one for all, or by name.

    Returns:
        One row per label: `precision`, `recall`, `f1` (0 where it was never predicted),
        `average_precision` (which no threshold shapes), `support` (texts that have it) and
        `threshold`. A label without texts has NaN where its texts count.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> per_label([["a"], ["b"]], np.array([[0.9, 0.2], [0.6, 0.7]]), ["a", "b"])["f1"].tolist()
        [0.6666666666666666, 1.0]
    """
    from sklearn.metrics import average_precision_score

    true, scores = _shapes(references, scores, names)
    found = predicted(scores, names, thresholds)
    figures = _averaged(true, found, None)
    table = pd.DataFrame(dict(zip(("precision", "recall", "f1"), figures, strict=False))).iloc[:-1]
    pairs = zip(true.T, np.nan_to_num(scores).T, strict=True)
    table["average_precision"] = [
        average_precision_score(own, given) if own.any() else np.nan for own, given in pairs
    ]
    table["support"] = true.sum(axis=0).astype(int)
    table.loc[table["support"] == 0, ["recall", "f1"]] = np.nan
    table["threshold"] = _of_each(thresholds, names)
    return table.set_index(pd.Index(names, name="label"))


def multilabel_metrics(
    references: Sets, scores: np.ndarray, names: Sequence[str], thresholds: Any = 0.5
) -> dict[str, float]:
    """Return every figure as one flat dictionary of plain floats.

    Args:
        references: As for `per_label`, and so are the others.
        scores: Probabilities of shape (texts, labels).
        names: Label names in the order of the columns.
        thresholds: From which probability a label holds.

    Returns:
        `f1_macro` (the mean of the labels that occur: a rare one counts as much as a common one),
        `f1_micro` (over all answers), `f1_samples` (the mean of the texts; one that has no label
        and gets none counts as 1), `precision_micro`, `recall_micro`, `exact_match` (texts with
        just their labels), `average_precision_macro`; and `precision_<name>`, `recall_<name>`,
        `f1_<name>`, `average_precision_<name>`, `support_<name>` for every label.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> scores = np.array([[0.9, 0.2], [0.1, 0.7]])
        >>> figures = multilabel_metrics([["a"], []], scores, ["a", "b"])
        >>> figures["exact_match"], figures["f1_samples"]
        (0.5, 0.5)
    """
    averages, table = figures_of(references, scores, names, thresholds)
    rows = table.drop(columns="threshold").to_dict("index").items()
    figures = {f"{c}_{name}": float(x) for name, row in rows for c, x in row.items() if x == x}
    return averages | figures


def choose_thresholds(
    references: Sets, scores: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """Choose for each label from which probability it holds: where as many texts get it as have it.

    To be kept as `model.config.label_thresholds`; whatever answers with the model then obeys. The
    threshold with the best F1 is chance where a label has few texts; this one fits less (Yang 2001
    compares both, as PCut and SCut, https://doi.org/10.1145/383952.383975).

    Args:
        references: The labels of texts that were not trained on: the validation split's.
        scores: Their probabilities, of shape (texts, labels).
        names: Label names in the order of the columns.

    Returns:
        A threshold by name, half-way between the last text that gets the label and the next.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> scores = np.array([[0.4], [0.3], [0.1]])
        >>> choose_thresholds([["a"], [], []], scores, ["a"])
        {'a': 0.35}
    """
    true, scores = _shapes(references, scores, names)
    ranked = -np.sort(-np.nan_to_num(scores), axis=0)
    ranked = np.vstack([np.ones(len(names)), ranked, np.zeros(len(names))])
    last = true.sum(axis=0)
    columns = range(len(names))
    chosen = (ranked[last, columns] + ranked[last + 1, columns]) / 2
    return {name: float(threshold) for name, threshold in zip(names, chosen, strict=True)}


def predicted(scores: np.ndarray, names: Sequence[str], thresholds: Any = 0.5) -> np.ndarray:
    """Say which labels hold: 1 or 0 per text and label; none for a text without an answer.

    Args:
        scores: Probabilities of shape (texts, labels).
        names: Label names in the order of the columns.
        thresholds: One for all, or by name; a label that isn't named has 0.5.

    Example:
        >>> predicted(np.array([[0.4, 0.4]]), ["a", "b"], {"a": 0.3}).tolist()
        [[1, 0]]
    """
    return (scores >= _of_each(thresholds, names)).astype(int)


def set_scores(scores: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return a score for each text's set of labels: that of its most doubtful one, to hold or not.

    Args:
        scores: Probabilities of shape (texts, labels).
        held: What `predicted` returned.

    Example:
        >>> set_scores(np.array([[0.9, 0.4]]), np.array([[1, 0]])).tolist()
        [0.6]
    """
    return np.where(held == 1, scores, 1 - scores).min(axis=1)


def together(sets: Sequence[Sequence[str]], n: int = 10) -> pd.DataFrame:
    """Say which labels go together, and which avoid each other.

    Args:
        sets: The labels of each text.
        n: Pairs at most, those furthest from chance.

    Returns:
        Columns `label`, `other`, `texts` (with both), `expected` (by chance, were they independent)
        and `lift` (the one over the other): above 1 they go together, below 1 they avoid each
        other. Pairs of which less than five are expected and found are left out.

    Example:
        >>> together([["a", "b"]] * 9 + [["a"], ["b"]] + [[]] * 9)["texts"].tolist()
        [9]
    """
    sets = [list(own) for own in sets]
    names = sorted(set(chain.from_iterable(sets)))
    matrix: np.ndarray = one_hot(sets, names).astype(int)
    both, counts = matrix.T @ matrix, matrix.sum(axis=0)
    rows = []
    for i, j in combinations(range(len(names)), 2):
        expected = counts[i] * counts[j] / len(sets)
        if max(expected, both[i, j]) >= 5:
            rows.append((names[i], names[j], int(both[i, j]), expected, both[i, j] / expected))
    table = pd.DataFrame(rows, columns=["label", "other", "texts", "expected", "lift"])
    # The Pearson residual: how far from chance, in standard deviations.
    order = ((table["texts"] - table["expected"]) / table["expected"] ** 0.5).abs()
    return table.loc[order.sort_values(ascending=False).index].head(n).reset_index(drop=True)


def figures_of(
    references: Sets, scores: np.ndarray, names: Sequence[str], thresholds: Any = 0.5
) -> tuple[dict[str, float], pd.DataFrame]:
    """Return the averages of `multilabel_metrics`, and the table of `per_label`."""
    true, scores = _shapes(references, scores, names)
    table = per_label(true, scores, names, thresholds)
    found = predicted(scores, names, thresholds)
    precision, recall, f1, _ = _averaged(true, found, "micro")
    samples = _averaged(true, found, "samples", zero_division=1)
    averages = {"f1_macro": table["f1"].mean(), "f1_micro": f1, "f1_samples": samples[2]}
    averages |= {"precision_micro": precision, "recall_micro": recall}
    averages["exact_match"] = (true == found).all(axis=1).mean()
    averages["average_precision_macro"] = table["average_precision"].mean()
    return {name: float(value) for name, value in averages.items()}, table


def _averaged(true: np.ndarray, found: np.ndarray, average: Any, zero_division: int = 0) -> Any:
    """Return scikit-learn's figures, with those of a last label that no text has or gets.

    It takes a single column for the two classes of one label.
    """
    from sklearn.metrics import precision_recall_fscore_support

    wide = (np.pad(each, ((0, 0), (0, 1))) for each in (true, found))
    return precision_recall_fscore_support(*wide, average=average, zero_division=zero_division)


def _shapes(references: Any, scores: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    plain = isinstance(references, np.ndarray) and references.ndim == 2
    true = references if plain else one_hot(references, names)
    scores = np.asarray(scores, float)
    if true.shape != scores.shape or true.shape[1] != len(names) or not len(true):
        raise ValueError(
            f"Labels of shape {true.shape}, probabilities of shape {scores.shape}, {len(names)} "
            "names: there must be a row per text and a column per name."
        )
    return true.astype(int), scores


def _of_each(thresholds: Any, names: Sequence[str]) -> np.ndarray:
    if isinstance(thresholds, Mapping):
        return np.array([float(thresholds.get(name, 0.5)) for name in names])
    return np.full(len(names), float(thresholds))
