"""Scores of keywords: exact, present and absent, over all texts.

As in KPEval (https://github.com/uclanlp/KPEval, exact matching), which follows Chan et al. 2019
(https://arxiv.org/abs/1906.04106); Meng's as in OpenNMT-kpg-release.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from cookbook import marks, words

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import EvalPrediction, PreTrainedTokenizerBase

Phrases = Sequence[Sequence[str]]
Stems = tuple[str, ...]


def keyphrase_matches(
    texts: Sequence[str], predictions: Phrases, references: Phrases, k: int = 5
) -> pd.DataFrame:
    """Score the keywords of each text, to see where a mean comes from.

    Phrases are folded and stemmed (NLTK's Porter stemmer, as in the reference implementations);
    empty ones, and repeats after stemming, are dropped. A prediction is right where the same
    sequence of stems is among the references. A phrase is `present` where its stems stand one after
    the other in the stemmed text, else `absent`; `all` are both.

    Args:
        texts: The texts.
        predictions: Predicted keywords per text, the best first.
        references: True keywords per text.
        k: Cut-off of the figures `@k`.

    Returns:
        One row per text; columns in two levels: `all`, `present`, `absent`, and within each
        `precision@`, `recall@`, `f1@`, `meng_f1@` with the cut-offs `k`, `M` (as many as were
        predicted) and `O` (as many as are true), `predicted` and `true` (counts). Precision divides
        by the cut-off even where fewer were predicted; Meng's F1 by what was predicted.

    Raises:
        ValueError: The three differ in length, or a text's keywords are one string, not a list.

    Example:
        >>> table = keyphrase_matches(["Redis and Go"], [["redis"]], [["Redis", "Go"]])
        >>> float(table["all", "precision@M"][0]), float(table["all", "precision@5"][0])
        (1.0, 0.2)
    """
    if not len(texts) == len(predictions) == len(references):
        raise ValueError(
            f"{len(texts)} texts, {len(predictions)} predictions and {len(references)} references"
        )
    rows = []
    for row, (text, *lists) in enumerate(zip(texts, predictions, references, strict=True)):
        if any(isinstance(phrases, str) for phrases in lists):
            raise ValueError(
                f"The keywords of text {row} are one string, not a list: split them first, for "
                "instance with cookbook.words.split_keywords."
            )
        source = words.stems(text)
        sides = [list(dict.fromkeys(filter(None, map(words.stems, phrases)))) for phrases in lists]
        there = {p: bool(words.positions(p, source)) for side in sides for p in side}
        figures = {("all", "exact_match"): float(set(sides[0]) == set(sides[1]))}
        for kind, wanted in (("all", (True, False)), ("present", (True,)), ("absent", (False,))):
            found, true = ([p for p in side if there[p] in wanted] for side in sides)
            scored = _phrase_figures(found, true, k)
            figures |= {(kind, name): value for name, value in scored.items()}
        rows.append(figures)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]) if rows else None)


def _phrase_figures(found: list[Stems], true: list[Stems], k: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, cut in ((str(k), k), ("M", len(found)), ("O", len(true))):
        asked = found[:cut]
        right = sum(phrase in true for phrase in asked)
        figures[f"precision@{name}"] = precision = right / max(cut, 1)
        figures[f"recall@{name}"] = recall = right / max(len(true), 1)
        figures[f"f1@{name}"] = f1_of(precision, recall)
        figures[f"meng_f1@{name}"] = f1_of(right / max(len(asked), 1), recall)
    return figures | {"predicted": len(found), "true": len(true)}


def keyphrase_metrics(
    texts: Sequence[str], predictions: Phrases, references: Phrases, k: int = 5
) -> dict[str, float]:
    """Return every keyphrase figure as one flat dictionary of plain floats.

    The headline is KPEval's: F1 is the harmonic mean of mean precision and mean recall, both over
    all texts. Meng's mean of each text's F1, over the texts that have a true keyword of that kind,
    stands beside it under its own name; the two differ widely on the same predictions.

    Args:
        texts: The texts.
        predictions: Predicted keywords per text, the best first.
        references: True keywords per text.
        k: Cut-off of the figures `@k`.

    Returns:
        `precision@M`, `recall@M`, `f1@M`, `meng_f1@M`, the same `@5` (or another `k`) and `@O`; all
        of them again as `present_…` and `absent_…`; `exact_match` (share of texts whose set of
        stemmed keywords is right); `predicted` and `true` (keywords per text). See
        `keyphrase_matches` for the terms.

    Raises:
        ValueError: There is no text, or the three differ in length.

    Example:
        >>> figures = keyphrase_metrics(["Redis and Go"], [["redis"]], [["Redis", "Go"]])
        >>> round(figures["f1@M"], 3), figures["recall@5"]
        (0.667, 0.5)
    """
    if not len(texts):
        raise ValueError("There is no text to score.")
    table = keyphrase_matches(texts, predictions, references, k)
    figures: dict[str, float] = {}
    for kind in ("all", "present", "absent"):
        part: Any = table[kind]
        mean, having = part.mean(), part[part["true"] > 0].mean().fillna(0.0)
        for cut in (k, "M", "O"):
            mean[f"f1@{cut}"] = f1_of(mean[f"precision@{cut}"], mean[f"recall@{cut}"])
            mean[f"meng_f1@{cut}"] = having[f"meng_f1@{cut}"]
        figures |= mean.add_prefix("" if kind == "all" else f"{kind}_").to_dict()
    return figures


def kept(figures: dict[str, float], keep: Sequence[str]) -> dict[str, float]:
    """Return the figures of these names, in their order; all where none is named.

    Raises:
        ValueError: There is no such figure.
    """
    if unknown := [name for name in keep if name not in figures]:
        raise ValueError(f"No figure is called {unknown[0]!r}; there are: {', '.join(figures)}.")
    return {name: figures[name] for name in keep or figures}


def choose_threshold(
    find: Callable[[float], Phrases],
    texts: Sequence[str],
    references: Phrases,
    tried: Sequence[float] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
) -> tuple[float, pd.DataFrame]:
    """Choose from which probability on a word is inside a keyword.

    It is the lowest threshold whose F1@M is the best but for noise (half a point): on texts of
    another kind a model is less sure, and finds too few.

    Args:
        find: A function from a threshold to the keywords of the texts.
        texts: Texts that weren't trained on.
        references: Their true keywords.
        tried: Thresholds to try.

    Returns:
        The threshold, and `f1@M`, `precision@M`, `recall@M` and `predicted` of each.

    Raises:
        ValueError: As `keyphrase_metrics`.
    """
    figures = {each: keyphrase_metrics(texts, find(each), references) for each in tried}
    table = pd.DataFrame(figures).T[["f1@M", "precision@M", "recall@M", "predicted"]]
    good = table["f1@M"] >= table["f1@M"].max() - 0.005
    return float(table.index[good].min()), table


def compute_keyphrase_metrics(
    tokenizer: PreTrainedTokenizerBase, k: int = 5, keep: Sequence[str] = ()
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the function that a `Seq2SeqTrainer` takes as `compute_metrics`.

    Its arguments must say `predict_with_generate=True` and `include_for_metrics=["inputs"]`, as
    `training.seq2seq_arguments` does: the texts tell present from absent keywords.

    Args:
        tokenizer: Turns ids back into text.
        k: Cut-off of the figures `@k`.
        keep: Names of the figures to return, for a log that can be read; all.

    Returns:
        A function from an `EvalPrediction` with token ids of shape (texts, tokens) to the figures
        of `keyphrase_metrics`. -100, which stands for padding, is left out.

    Raises:
        ValueError: The inputs are missing, or there is no such figure.

    Example:
        >>> from transformers import AutoTokenizer, EvalPrediction
        >>> from cookbook import offline
        >>> tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
        >>> ids = [tokenizer("redis, go").input_ids + [-100]]
        >>> both = EvalPrediction(predictions=ids, label_ids=ids, inputs=ids)
        >>> compute_keyphrase_metrics(tokenizer)(both)["f1@M"]
        1.0
    """

    def decoded(ids: Any) -> list[str]:
        rows = [[i for i in row if i >= 0] for row in (ids[0] if isinstance(ids, tuple) else ids)]
        return tokenizer.batch_decode(rows, skip_special_tokens=True)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        if prediction.inputs is None:
            raise ValueError('Set include_for_metrics=["inputs"] in the training arguments.')
        texts = decoded(prediction.inputs)
        predictions, references = (
            list(map(words.split_keywords, decoded(ids)))
            for ids in (prediction.predictions, prediction.label_ids)
        )
        figures = keyphrase_metrics(texts, predictions, references, k)
        return kept(figures, keep)

    return compute


def compute_marking_metrics(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    k: int = 5,
    threshold: float = 0.5,
    keep: Sequence[str] = (),
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the function that a `Trainer` takes as `compute_metrics` where a model marks keywords.

    It scores the keywords that are read off the marks, not the tokens. The arguments must say
    `include_for_metrics=["inputs"]`: rows of like length come together, in another order.

    Args:
        dataset: The split that is evaluated, from `features.tokenize_marker`, with its columns
            `text` and `keywords`.
        tokenizer: The model's, whose padding is left out.
        k: Cut-off of the figures `@k`.
        threshold: As for `marks.read_marks`.
        keep: Names of the figures to return, for a log that can be read; all.

    Returns:
        A function from an `EvalPrediction` with logits of shape (texts, tokens, 3) to the figures
        of `keyphrase_metrics`.

    Raises:
        ValueError: The inputs are missing, or there is no such figure.
    """
    texts, gold = dataset["text"][:], list(map(words.split_keywords, dataset["keywords"][:]))
    padding = [tokenizer.pad_token_id, -100]

    def bare(ids: Any) -> np.ndarray:
        return ~np.isin(ids, padding)

    rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
    places = []
    for row, (ids, ends) in enumerate(
        zip(dataset["input_ids"][:], dataset["offset_mapping"][:], strict=True)
    ):
        rows[tuple(np.array(ids)[bare(ids)])].append(row)
        places.append(np.array(ends)[bare(ids)])

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        if prediction.inputs is None:
            raise ValueError('Set include_for_metrics=["inputs"] in the training arguments.')
        found, order = [], []
        # Texts that differ in case only may have the same ids: each of them counts.
        left = {ids: cycle(those) for ids, those in rows.items()}
        for ids, logits in zip(prediction.inputs, prediction.predictions, strict=True):
            row = next(left[tuple(ids[bare(ids)])])
            probable = softmax(logits[bare(ids)].astype(float), axis=-1)[:, 1:]
            pieces = marks.of_pieces(texts[row], places[row], probable)
            found.append([name for name, _ in marks.read_marks(texts[row], pieces, threshold)])
            order.append(row)
        figures = keyphrase_metrics(
            [texts[row] for row in order], found, [gold[row] for row in order], k
        )
        return kept(figures, keep)

    return compute


def f1_of(precision: float, recall: float) -> float:
    """Return the harmonic mean of precision and recall, 0 where both are 0.

    Example:
        >>> f1_of(1.0, 0.5)
        0.6666666666666666
    """
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
