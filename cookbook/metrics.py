"""Metrics that don't hide a weak label."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import binom, bootstrap
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from cookbook import words
from cookbook.data import label_names
from cookbook.tables import write_atomically

if TYPE_CHECKING:
    from transformers import EvalPrediction, PreTrainedTokenizerBase

Labels = Sequence[Any]
Phrases = Sequence[Sequence[str]]
Stems = tuple[str, ...]

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


def compute_metrics(names: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the function that a `Trainer` takes as `compute_metrics`.

    Args:
        names: Label names in the order of their ids, such as `id2label.values()`.

    Returns:
        A function from an `EvalPrediction` with logits of shape (texts, labels) to the figures of
        `classification_metrics`; with more than ten labels to the averages and `f1_<name>` of the
        worst three, for a log that can be read.

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
        averages, table = _figures(true, predicted, names)
        if len(names) > _LOGGED:
            table = table[["f1"]].nsmallest(_WORST, "f1")
        return averages | _flat(table)

    return compute


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
    written = rows[rows["group"] == "as_written"].set_index("case")["predicted"]
    before = rows["case"].map(written)
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


# Keyphrases. Scores as in KPEval (https://github.com/uclanlp/KPEval, exact matching), which follows
# Chan et al. 2019 (https://arxiv.org/abs/1906.04106); Meng's as in OpenNMT-kpg-release.


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
        source = _stems(text)
        sides = [list(dict.fromkeys(filter(None, map(_stems, phrases)))) for phrases in lists]
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


def compute_keyphrase_metrics(
    tokenizer: PreTrainedTokenizerBase, k: int = 5
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the function that a `Seq2SeqTrainer` takes as `compute_metrics`.

    Its arguments must say `predict_with_generate=True` and `include_for_metrics=["inputs"]`, as
    `training.seq2seq_arguments` does: the texts tell present from absent keywords.

    Args:
        tokenizer: Turns ids back into text.
        k: Cut-off of the figures `@k`.

    Returns:
        A function from an `EvalPrediction` with token ids of shape (texts, tokens) to the figures
        of `keyphrase_metrics`. -100, which stands for padding, is left out.

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
        return keyphrase_metrics(texts, predictions, references, k)

    return compute


def f1_of(precision: float, recall: float) -> float:
    """Return the harmonic mean of precision and recall, 0 where both are 0.

    Example:
        >>> f1_of(1.0, 0.5)
        0.6666666666666666
    """
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


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
    content = json.dumps(plain, indent=1, ensure_ascii=False)
    path = Path(folder, "metrics.json")
    return write_atomically(path, lambda half: half.write_text(f"{content}\n", "utf-8"))


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


@lru_cache(10_000)
def _stems(text: str) -> Stems:
    return tuple(map(_stemmer(), words.pieces(text)))


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer  # a second to import, so not before it is needed

    return cache(PorterStemmer().stem)


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
