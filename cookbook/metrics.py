"""Metrics that don't hide a weak label."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.metrics import confusion_matrix as count_confusions

if TYPE_CHECKING:
    from transformers import EvalPrediction, PreTrainedTokenizerBase


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


def mcnemar(
    references: Sequence[Any], first: Sequence[Any], second: Sequence[Any]
) -> dict[str, float]:
    """Test whether two classifiers differ in accuracy on the same texts.

    McNemar's test (McNemar 1947, https://doi.org/10.1007/BF02295996), which Dietterich 1998
    (https://doi.org/10.1162/089976698300017197) recommends where each was trained once. Only the
    texts count that one has right and the other wrong: were the two as good as each other, either
    would be right on half of those. By the binomial distribution, so few texts will do, with the
    mid-p value, which counts half the chance of what was seen: the exact one says too seldom that
    there is a difference (Fagerland et al. 2013, https://doi.org/10.1186/1471-2288-13-91).

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
    true, *both = (np.asarray(values, dtype=object) for values in (references, first, second))
    right, other = (answers == true for answers in both)
    only_first, only_second = int((right & ~other).sum()), int((other & ~right).sum())
    chance = stats.binom(only_first + only_second, 0.5)
    fewer = min(only_first, only_second)
    return {
        "only_first": only_first,
        "only_second": only_second,
        "difference": (only_first - only_second) / len(true),
        "p": float(2 * chance.cdf(fewer - 1) + chance.pmf(fewer)),
    }


def paired_bootstrap(
    first: Sequence[Any] | np.ndarray,
    second: Sequence[Any] | np.ndarray,
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
        rows = rows.astype(int)
        return float(statistic(ours[rows]) - statistic(theirs[rows]))

    # Rows are drawn, not scores, so that a statistic of several figures per text is no other case.
    drawn = stats.bootstrap(
        (np.arange(len(ours)),),
        difference,
        n_resamples=resamples,
        confidence_level=confidence,
        vectorized=False,
        method="percentile",
        random_state=seed,
    )
    low, high = drawn.confidence_interval
    whole = difference(np.arange(len(ours)))
    return {"difference": whole, "low": float(low), "high": float(high)}


# Keyphrases. Scores as in KPEval (https://github.com/uclanlp/KPEval, exact matching), which follows
# Chan et al. 2019 (https://arxiv.org/abs/1906.04106); Meng's as in OpenNMT-kpg-release.


def keyphrase_matches(
    texts: Sequence[str],
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    k: int = 5,
) -> pd.DataFrame:
    """Score the keywords of each text, to see where a mean comes from.

    Phrases are lower-cased and stemmed (Porter's stemmer in NLTK's version, which the reference
    implementations use); empty ones, and repeats after stemming, are dropped. A prediction is right
    where the same sequence of stems is among the references. A phrase is `present` where its stems
    stand one after the other in the stemmed text, else `absent`; `all` are both.

    Args:
        texts: The texts.
        predictions: Predicted keywords per text, the best first.
        references: True keywords per text.
        k: Cut-off of the figures `@k`.

    Returns:
        One row per text; columns in two levels: `all`, `present`, `absent`, and within each
        `precision@`, `recall@`, `f1@` with the cut-offs `k`, `M` (as many as were predicted) and
        `O` (as many as are true), `meng_f1@` likewise, `predicted` and `true` (counts). Precision
        at `k` and `O` divides by the cut-off even where fewer were predicted; Meng's F1 divides by
        what was predicted.

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
                "instance with cookbook.data.split_keywords."
            )
        source = _stems(text)
        predicted, true = (list(dict.fromkeys(map(_stems, phrases))) for phrases in lists)
        figures = {}
        for kind in ("all", "present", "absent"):
            found, wanted = (
                [p for p in side if p and (kind == "all" or (kind == "present") == _in(p, source))]
                for side in (predicted, true)
            )
            matches = np.cumsum([0, *(phrase in wanted for phrase in found)])
            for name, cut in ((str(k), k), ("M", len(found)), ("O", len(wanted))):
                right = int(matches[min(cut, len(found))])
                precision = right / cut if cut else 0.0
                recall = right / len(wanted) if wanted else 0.0
                figures[kind, f"precision@{name}"] = precision
                figures[kind, f"recall@{name}"] = recall
                figures[kind, f"f1@{name}"] = _harmonic(precision, recall)
                asked = min(cut, len(found))
                lenient = right / asked if asked else 0.0
                figures[kind, f"meng_f1@{name}"] = _harmonic(lenient, recall)
            figures[kind, "predicted"] = len(found)
            figures[kind, "true"] = len(wanted)
        figures["all", "exact_match"] = float(set(predicted) == set(true))
        rows.append(figures)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]) if rows else None)


def keyphrase_metrics(
    texts: Sequence[str],
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    k: int = 5,
) -> dict[str, float]:
    """Return every keyphrase figure as one flat dictionary of plain floats.

    Published figures differ by variant: the same predictions can score 0.33 or 0.61 at F1@5. The
    headline here is KPEval's: F1 is the harmonic mean of mean precision and mean recall, both over
    all texts. Meng's mean of each text's F1, over the texts that have a true keyword of that kind,
    stands beside it under its own name.

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
    figures = {}
    for kind in ("all", "present", "absent"):
        part = table[kind]
        prefix = "" if kind == "all" else f"{kind}_"
        having = part[part["true"] > 0]
        for cut in (str(k), "M", "O"):
            precision, recall = part[f"precision@{cut}"].mean(), part[f"recall@{cut}"].mean()
            figures[f"{prefix}precision@{cut}"] = float(precision)
            figures[f"{prefix}recall@{cut}"] = float(recall)
            figures[f"{prefix}f1@{cut}"] = _harmonic(float(precision), float(recall))
            meng = having[f"meng_f1@{cut}"].mean() if len(having) else 0.0
            figures[f"{prefix}meng_f1@{cut}"] = float(meng)
        figures[f"{prefix}predicted"] = float(part["predicted"].mean())
        figures[f"{prefix}true"] = float(part["true"].mean())
    figures["exact_match"] = float(table["all", "exact_match"].mean())
    return figures


def compute_keyphrase_metrics(
    tokenizer: PreTrainedTokenizerBase, k: int = 5
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the function that a `Seq2SeqTrainer` takes as `compute_metrics`.

    Its arguments must say `predict_with_generate=True` and `include_for_metrics=["inputs"]`, as
    `training.seq2seq_arguments` does: the texts, which tell present from absent keywords, come
    with the predictions, since batches of like length change the order of the rows.

    Args:
        tokenizer: Turns ids back into text.
        k: Cut-off of the figures `@k`.

    Returns:
        A function from an `EvalPrediction` with token ids of shape (texts, tokens) to the figures
        of `keyphrase_metrics`. -100, which stands for padding, is replaced on all sides.

    Raises:
        ValueError: The inputs are missing.

    Example:
        >>> from transformers import AutoTokenizer, EvalPrediction
        >>> from cookbook import offline
        >>> tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
        >>> ids = [tokenizer("redis, go").input_ids + [-100]]
        >>> both = EvalPrediction(predictions=ids, label_ids=ids, inputs=ids)
        >>> compute_keyphrase_metrics(tokenizer)(both)["f1@M"]
        1.0
    """
    from cookbook.data import split_keywords

    # A model may lack a pad token; what replaces -100 only has to be skipped.
    pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)

    def decoded(ids: Any) -> list[str]:
        ids = ids[0] if isinstance(ids, tuple) else ids
        rows = [np.where(np.asarray(row) < 0, pad, row).tolist() for row in ids]
        return tokenizer.batch_decode(rows, skip_special_tokens=True)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        if prediction.inputs is None:
            raise ValueError('Set include_for_metrics=["inputs"] in the training arguments.')
        predictions, references = (
            [split_keywords(line) for line in decoded(ids)]
            for ids in (prediction.predictions, prediction.label_ids)
        )
        return keyphrase_metrics(decoded(prediction.inputs), predictions, references, k=k)

    return compute


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _in(phrase: tuple[str, ...], source: tuple[str, ...]) -> bool:
    n = len(phrase)
    return any(source[i : i + n] == phrase for i in range(len(source) - n + 1))


@lru_cache(10_000)
def _stems(text: str) -> tuple[str, ...]:
    return tuple(_stem(token) for token in re.findall(r"\w+|[^\w\s]", text.lower()))


@cache
def _stem(word: str) -> str:
    return _stemmer().stem(word)


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer  # a second to import, so not before it is needed

    return PorterStemmer()


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
