"""What models think of texts: soft labels, how sure they are, and how far from the truth."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from scipy.special import xlogy

from cookbook import marks, tables, words
from cookbook.label_cells import label_names
from cookbook.models import Model, load

if TYPE_CHECKING:
    from datasets import Dataset

# Of classifiers a frame with a column per label, of markers a list with an array per text.
Soft: TypeAlias = Any


class NothingToLearn(ValueError):
    """The teachers are sure of no text, or none is left."""


def soft_labels(
    teachers: Sequence[Any], texts: Iterable[str], names: Sequence[str] | None = None
) -> Soft:
    """Return what several models think of texts, on average.

    Of a model that `trust` has calibrated these are the calibrated probabilities: those that hold
    are what a student should learn, and on them alone do several teachers have one scale.

    Args:
        teachers: What `inference.load` takes or returns, of one kind and with the same labels; an
            estimator of scikit-learn with `predict_proba`; or, as one vote, anything whose
            `predict` gives a label name a text, such as `baselines.llm`.
        texts: The texts.
        names: The labels of classifiers, in the order wanted; None for the teachers' own.

    Returns:
        Of classifiers the mean probability of each label, a column each; they add up to 1 unless a
        text may have several. NaN where no teacher has an answer: a blank text has none. Of markers
        an array per text, shape (pieces, 2), as `marks.of_pieces` gives one.

    Raises:
        ValueError: There is no teacher, one writes, or they differ in kind or labels.

    Example:
        >>> from cookbook.baselines import Classifier
        >>> votes = [Classifier(x, lambda texts, x=x: [x] * len(texts)) for x in ("a", "a", "b")]
        >>> soft_labels(votes, ["A title"], ["b", "a"]).round(2).values.tolist()
        [[0.33, 0.67]]
    """
    texts = tables.strings(texts)
    found = [_answers(teacher, texts) for teacher in teachers]
    if len({type(each) for each in found}) != 1:
        raise ValueError("Wanted are teachers, all of one kind: that classify, or that mark words.")
    if isinstance(found[0], list):
        return [np.mean(each, axis=0) for each in zip(*found, strict=True)]
    known = list(names or dict.fromkeys(name for each in found for name in each if name))
    whole = [set(each) for each in found if not each.attrs.get("votes")]
    if odd := [sorted(each) for each in whole if each != set(known)]:
        raise ValueError(f"A teacher's labels are {odd[0]}; wanted are {known}.")
    if odd := [sorted(more) for each in found if (more := set(each) - {"", *known})]:
        raise ValueError(f"A teacher gives labels {odd[0]}; wanted are {known}.")
    blank = [not text.strip() for text in texts]
    stacked = []
    for each in found:
        answered = ~each.isna().any(axis=1).to_numpy() & ~np.array(blank, bool)
        given = each.reindex(columns=known, fill_value=0.0).to_numpy(float)
        stacked.append(np.where(answered[:, None], given, np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a text that nobody knows
        return pd.DataFrame(np.nanmean(stacked, axis=0), columns=known)


def _answers(teacher: Any, texts: list[str]) -> Soft:
    if hasattr(teacher, "predict_proba"):
        names = label_names(teacher.classes_).tolist()
        return pd.DataFrame(teacher.predict_proba(texts), columns=names)
    if hasattr(teacher, "predict") and not isinstance(teacher, Model):
        said = label_names(teacher.predict(texts))
        votes = pd.get_dummies(said).astype(float)
        votes[""] = said.map(lambda name: np.nan if name is None else 0.0)
        votes.attrs["votes"] = True
        return votes
    loaded = load(teacher)
    found = loaded.probabilities(texts)
    return found if loaded.kind == "marker" else pd.DataFrame(found, columns=loaded.names)


def sureness(found: Soft) -> np.ndarray:
    """Say how sure soft labels are of each text, from 0 to 1; NaN where it has no answer.

    Of one label a text: the likeliest one's probability. Of several: that of the most doubtful
    label, to be there or not. Of marks: the mean over the pieces, to be inside or not.

    Example:
        >>> sureness(pd.DataFrame({"a": [0.9, 0.4], "b": [0.1, 0.6]})).tolist()
        [0.9, 0.6]
    """
    if isinstance(found, list):
        inside = [each.sum(axis=1) for each in found]
        return np.array([np.maximum(p, 1 - p).mean() if len(p) else np.nan for p in inside])
    given = found.to_numpy()
    return np.maximum(given, 1 - given).min(axis=1) if several(found) else given.max(axis=1)


def at_a_loss(here: np.ndarray, usual: np.ndarray) -> list[str]:
    """Say, with the figures, where teachers are at a loss with texts.

    Args:
        here: Their `sureness` of each.
        usual: That of each text of the validation split.

    Returns:
        A sentence, where they doubt half as much again as usual, and more than by chance; or none.
    """
    doubt, normal = 1 - np.nanmean(here), 1 - np.nanmean(usual)
    noise = 3 * np.sqrt(np.nanvar(here) / len(here) + np.nanvar(usual) / len(usual))
    if doubt <= max(1.5 * normal, normal + noise):
        return []
    return [
        f"The teachers are less sure of these texts ({1 - doubt:.3f} on average) than of the "
        f"validation split ({1 - normal:.3f}): are they of another kind?"
    ]


def truth(rows: Dataset, like: Soft) -> Soft:
    """Return the true labels of a split in the form of soft ones.

    Args:
        rows: With `label` (class ids, or a 0 or 1 per label), or with `keywords`.
        like: Soft labels, for their kind and names.
    """
    if isinstance(like, list):
        pairs = zip(rows["text"], rows["keywords"], strict=True)
        return [marks.of_keywords(text, words.split_keywords(cell)) for text, cell in pairs]
    label = np.array(rows["label"][:])
    given = label if label.ndim == 2 else np.eye(like.shape[1])[label]
    return pd.DataFrame(given, columns=like.columns)


def losses(found: Soft, rows: Dataset) -> np.ndarray:
    """Return the cross-entropy of soft labels with the true ones, per text (of marks, per piece).

    Args:
        found: Soft labels.
        rows: As for `truth`.
    """
    true = truth(rows, found)
    if isinstance(found, list):
        inside = [(p.sum(axis=1), t.sum(axis=1)) for p, t in zip(found, true, strict=True)]
        return np.array([_entropy(*both).mean() if len(both[0]) else np.nan for both in inside])
    given, true = found.to_numpy(), true.to_numpy()
    if several(found):
        return _entropy(given, true).sum(axis=1)
    return -xlogy(true, np.clip(given, 1e-7, 1)).sum(axis=1)


def _entropy(given: np.ndarray, true: np.ndarray) -> np.ndarray:
    given = np.clip(given, 1e-7, 1 - 1e-7)
    return -(xlogy(true, given) + xlogy(1 - true, 1 - given))


def several(found: pd.DataFrame) -> bool:
    """Say whether a text may have several labels: their probabilities don't add up to 1."""
    return not np.allclose(found.dropna().sum(axis=1), 1, atol=1e-3)


def rows_of(found: Soft, rows: np.ndarray) -> Soft:
    """Return the soft labels of some of the texts."""
    return [found[i] for i in rows] if isinstance(found, list) else found.iloc[rows]


def likeliest(found: Soft, texts: Sequence[str]) -> dict[str, Any]:
    """Return the column of hard labels, `label` or `keywords`, for soft ones.

    Example:
        >>> likeliest(pd.DataFrame({"a": [0.9], "b": [0.1]}), ["A title"])["label"].tolist()
        ['a']
    """
    if isinstance(found, list):
        pairs = zip(texts, found, strict=True)
        read = [[name for name, _ in marks.read_marks(text, each)] for text, each in pairs]
        return {"keywords": list(map(words.join_keywords, read))}
    names = found.columns.to_numpy(object)
    if several(found):
        return {"label": ["|".join(names[row >= 0.5]) or "[]" for row in found.to_numpy()]}
    best = found.fillna(0.0).to_numpy().argmax(axis=1)
    return {"label": np.where(found.isna().any(axis=1), None, names[best])}
