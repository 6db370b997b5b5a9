"""Metrics that don't hide a weak label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.metrics import confusion_matrix as count_confusions

if TYPE_CHECKING:
    from transformers import EvalPrediction


def confusion(
    references: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]
) -> pd.DataFrame:
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
    true, predicted = _checked(references, predictions, names)
    counts = count_confusions(true, predicted, labels=np.arange(len(names)))
    index = pd.Index(names, name="label")
    return pd.DataFrame(counts, index=index, columns=pd.Index(names, name="predicted"))


def per_label(
    references: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]
) -> pd.DataFrame:
    """Score every label by itself.

    Definitions as in scikit-learn's `precision_recall_fscore_support`. `accuracy` is the article's
    accuracy per label: the share of the texts of that label that were answered right, which is the
    same number as its recall.

    Args:
        references: True class ids or label names, one per text.
        predictions: Predicted class ids or label names, one per text.
        names: Label names in the order of their ids.

    Returns:
        One row per label: `accuracy`, `precision`, `recall`, `f1` (0 to 1) and `support` (texts).
        A label that was never predicted has precision and F1 of 0; a label without texts has NaN
        throughout, for nothing was measured.

    Example:
        >>> per_label([0, 1, 1], [0, 0, 1], ["a", "b"])["recall"].tolist()
        [1.0, 0.5]
    """
    true, predicted = _checked(references, predictions, names)
    precision, recall, f1, support = precision_recall_fscore_support(
        true, predicted, labels=np.arange(len(names)), zero_division=0
    )
    index = pd.Index(names, name="label")
    table = pd.DataFrame(
        {"accuracy": recall, "precision": precision, "recall": recall, "f1": f1}, index=index
    )
    table[support == 0] = np.nan
    return table.assign(support=support)


def classification_metrics(
    references: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]
) -> dict[str, float]:
    """Return every figure as one flat dictionary of plain floats.

    Args:
        references: True class ids or label names, one per text.
        predictions: Predicted class ids or label names, one per text.
        names: Label names in the order of their ids.

    Returns:
        `accuracy`; `precision_macro`, `recall_macro`, `f1_macro` (mean over the labels that
        occur among references or predictions: scikit-learn's default);
        `precision_weighted`, `recall_weighted`, `f1_weighted` (weighted by support); and for every
        label `accuracy_<name>`, `precision_<name>`, `recall_<name>`, `f1_<name>`, `support_<name>`.
        Of a label without texts only the support is there: nothing was measured, and JSON knows no
        NaN.

    Example:
        >>> classification_metrics([0, 1, 1, 1], [0, 0, 1, 1], ["a", "b"])["accuracy"]
        0.75
    """
    table = per_label(references, predictions, names)
    true, predicted = _checked(references, predictions, names)
    figures = {"accuracy": float(accuracy_score(true, predicted))}
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        for score, value in zip(("precision", "recall", "f1"), scores[:3], strict=True):
            figures[f"{score}_{average}"] = float(value)
    for column in table:
        for name, value in table[column].dropna().items():
            figures[f"{column}_{name}"] = float(value)
    return figures


def compute_metrics(names: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the function that a `Trainer` takes as `compute_metrics`.

    Args:
        names: Label names in the order of their ids, such as `id2label.values()`.

    Returns:
        A function from an `EvalPrediction` with logits of shape (texts, labels) to the figures of
        `classification_metrics`.

    Example:
        >>> import numpy as np
        >>> compute = compute_metrics(["a", "b"])
        >>> compute((np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 1])))["f1_macro"]
        1.0
    """
    names = list(names)

    def compute(prediction: EvalPrediction | tuple[Any, Any]) -> dict[str, float]:
        logits, references = prediction
        if isinstance(logits, tuple):  # some models return hidden states behind the logits
            logits = logits[0]
        return classification_metrics(references, np.argmax(logits, axis=-1), names)

    return compute


def pass_rates(challenge: pd.DataFrame, predictions: Sequence[str]) -> pd.DataFrame:
    """Score a challenge set by group, in the manner of CheckList (Ribeiro et al. 2020).

    A row passes if its label is right. Where a group repeats texts of the group `as_written` in
    another form (same `case`), `unchanged` also says how often the answer stayed what it was.

    Args:
        challenge: Columns `text`, `label`, `group`, `case`.
        predictions: A label name per row.

    Returns:
        One row per group in the order of the file: `rows`, `passed` (share with the right label),
        `unchanged` (share with the answer of the text as written; NaN where it doesn't apply).

    Raises:
        ValueError: There isn't one prediction per row.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"text": ["A"], "label": ["x"], "group": ["g"], "case": [None]})
        >>> pass_rates(rows, ["x"])["passed"].tolist()
        [1.0]
    """
    if len(predictions) != len(challenge):
        raise ValueError(f"{len(predictions)} predictions for {len(challenge)} rows")
    rows = challenge.assign(predicted=list(predictions))
    rows["passed"] = rows["predicted"] == rows["label"]
    written = rows[rows["group"] == "as_written"].set_index("case")["predicted"]
    before = rows["case"].map(written)
    repeats = before.notna() & (rows["group"] != "as_written")
    rows["unchanged"] = (rows["predicted"] == before).astype(float).where(repeats)
    table = rows.groupby("group", sort=False).agg(
        rows=("text", "size"), passed=("passed", "mean"), unchanged=("unchanged", "mean")
    )
    return table


def _checked(
    references: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    found = _ids(references, names), _ids(predictions, names)
    if found[0].shape != found[1].shape or found[0].ndim != 1 or not found[0].size:
        raise ValueError(
            "references and predictions must be two lists of class ids of the same length, not "
            f"empty: got shapes {found[0].shape} and {found[1].shape}"
        )
    unknown = set(np.unique(found).tolist()) - set(range(len(names)))
    if unknown:
        raise ValueError(f"Class ids without a name: {sorted(unknown)}; names are {list(names)}")
    return found


def _ids(values: Sequence[Any], names: Sequence[str]) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "OUST":
        return array
    ids = pd.Index(names).get_indexer(pd.Index(array))
    if (ids < 0).any():
        unknown = sorted(set(array[ids < 0].tolist()), key=str)
        raise ValueError(f"Labels that the model doesn't know: {unknown}; it has {list(names)}")
    return ids
