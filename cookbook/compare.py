"""A fair comparison: the same texts, the same scores, time beside them, and what is chance."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support
from tqdm.auto import tqdm

from cookbook import data, metrics, multilabel, tables
from cookbook.baselines import Classifier
from cookbook.label_cells import one_hot, rarest

_SCORES = ("precision", "recall", "f1", "support")
_AVERAGES = ("f1_macro", "f1_micro", "f1_samples", "exact_match")
KeywordFinder = Callable[[Sequence[str]], list[list[str]]]


@dataclass(frozen=True)
class Comparison:
    """What `compare` measured.

    Attributes:
        table: One row per classifier; `accuracy` and `f1_macro` (over the labels of the set) under
            the name of each set, or where a text may have several labels `f1_macro`, `f1_micro`,
            `f1_samples` and `exact_match`, as in `multilabel.multilabel_metrics`;
            `texts_per_second` and `megabytes` (10⁶ bytes) under `cost`.
        per_label: One row per classifier, set and label: `precision`, `recall`, `f1`, `support`.
        answers: Under the name of each set `text`, `label` and a column per classifier.
    """

    table: pd.DataFrame
    per_label: pd.DataFrame
    answers: dict[str, pd.DataFrame]

    def differences(self, reference: str, seed: int = 0) -> pd.DataFrame:
        """Say of every other classifier whether it is really better or worse than `reference`.

        Args:
            reference: Name of a classifier.
            seed: Seed of the bootstrap.

        Returns:
            One row per set and classifier: `difference` in accuracy (positive where it is better),
            its 95% interval from `low` to `high` (paired bootstrap), and `p` (McNemar's test,
            mid-p; not corrected for how many are compared). Of several labels a text the difference
            is in `f1_samples`, the mean F1 of the texts, and `p` is of texts with just their
            labels.

        Raises:
            KeyError: There is no such classifier.
        """
        rows = {}
        others = self.table.index.drop(reference)
        for name, other in product(self.answers, others):
            answers: Any = self.answers[name]
            ours, theirs = (_f1_of_texts(answers["label"], answers[n]) for n in (other, reference))
            spread = metrics.paired_bootstrap(ours, theirs, seed=seed)
            exact = metrics.mcnemar([True] * len(answers), ours == 1, theirs == 1)
            rows[name, other] = spread | {"p": exact["p"]}
        index = pd.MultiIndex.from_product([self.answers, others], names=["set", "classifier"])
        return pd.DataFrame(rows.values(), index)


def compare(
    classifiers: Iterable[Classifier], sets: Mapping[str, Any], several: bool = False
) -> Comparison:
    """Let every classifier label the same texts, and score and time it.

    Each gets one text first, so that loading isn't timed. Compare times of one machine only.

    Args:
        classifiers: The classifiers.
        sets: Tables with `text` and `label` by name, such as a DatasetDict.
        several: Whether a text may have several labels: cells then hold lists or 'a|b', and a
            classifier gives lists.

    Returns:
        Figures, answers, and with `.differences(name)` what is more than chance.

    Raises:
        ValueError: A name is there twice, a set is empty or lacks a column, or a classifier leaves
            a text out or knows none of the labels.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"text": ["A", "B"], "label": ["x", "y"]})
        >>> always = Classifier("always x", lambda texts: ["x"] * len(texts))
        >>> float(compare([always], {"test": rows}).table["test", "accuracy"].iloc[0])
        0.5
    """
    classifiers = list(classifiers)
    names = [classifier.name for classifier in classifiers]
    taken = {"text", "label", "cost"} & {*names, *sets}
    if not names or not sets or taken or len(set(names)) < len(names):
        raise ValueError(
            "Give at least one classifier and one set, each with a name of its own, none of them "
            f"'text', 'label' or 'cost': {names}, {list(sets)}"
        )
    together = pd.concat(
        {k: _labelled(rows, f" of set {k!r}", several) for k, rows in sets.items()}
    )
    table, per_label = {}, {}
    for classifier in tqdm(classifiers, desc="Compare", leave=False):
        name = classifier.name
        together[name], speed = _labels(name, classifier, together, several)
        figures: dict[tuple[Any, str], float] = {}
        for where, rows in together.groupby(level=0, sort=False):
            averages, per_label[name, where] = _scores(rows["label"], rows[name], several)
            figures |= {(where, figure): value for figure, value in averages.items()}
        size = np.nan if classifier.size is None else classifier.size / 1e6
        table[name] = figures | {("cost", "texts_per_second"): speed, ("cost", "megabytes"): size}
    return Comparison(
        pd.DataFrame.from_dict(table, orient="index").rename_axis("classifier"),
        pd.concat(per_label, names=["classifier", "set", "label"]),
        {where: pd.DataFrame(together.loc[where]) for where in sets},
    )


def _scores(
    true: pd.Series, given: pd.Series, several: bool
) -> tuple[dict[str, float], pd.DataFrame]:
    """Return the figures of a set, and those of each of its labels."""
    labels = sorted(set(_each(true, several)))
    if several:
        names = sorted({*labels, *_each(given, several)})  # those that no text has are wrong
        answers = one_hot(given, names)
        averages, table = multilabel.figures_of(true.tolist(), answers, names)
        return {figure: averages[figure] for figure in _AVERAGES}, table.loc[labels, [*_SCORES]]
    scores = precision_recall_fscore_support(true, given, labels=labels, zero_division=0)
    table = pd.DataFrame(dict(zip(_SCORES, scores, strict=True)), labels)
    return {"accuracy": (true == given).mean(), "f1_macro": table["f1"].mean()}, table


def _each(cells: pd.Series, several: bool) -> list[str]:
    """Return all the labels in a column."""
    return [*chain.from_iterable(cells)] if several else cells.tolist()


def _f1_of_texts(true: pd.Series, given: pd.Series) -> np.ndarray:
    """Return the F1 of each text: 1 or 0 where it has one label, and where it has none."""

    def f1(own: Any, found: Any) -> float:
        if isinstance(own, str):
            return float(own == found)
        every = len(own) + len(found)
        return 2 * len({*own} & {*found}) / every if every else 1.0

    return np.array([*map(f1, true, given)])


def learning_curve(
    fit: Mapping[str, Callable[[Sequence[str], Sequence[Any]], Classifier]],
    train: Any,
    test: Any,
    sizes: Sequence[int],
    seeds: Sequence[int] = (0, 1, 2),
    several: bool = False,
) -> pd.DataFrame:
    """Train on more and more rows: how many would be enough, and would more help?

    Every seed draws its own rows, stratified by label; the smaller subset lies within the larger.

    Args:
        fit: Functions from texts and labels to a classifier by name, such as `{"TF-IDF": tfidf}`.
        train: Rows to draw from, with `text` and `label`.
        test: Rows to score on, with `text` and `label`.
        sizes: Numbers of training rows.
        seeds: Of the draws.
        several: As for `compare`; then a draw is stratified by each text's rarest label.

    Returns:
        `name`, `rows`, `seed` and `accuracy` (`f1_macro` of several), one row each, for
        `plots.learning_curve`.

    Raises:
        ValueError: A size is above the number of rows or below that of labels.
    """
    train = _labelled(train, " to train on", several)
    test = _labelled(test, " to test on", several)
    strata = rarest(train["label"]) if several else train["label"]
    labels = strata.nunique()
    if bad := [size for size in sizes if not labels <= size <= len(train)]:
        raise ValueError(f"Sizes must lie between {labels} (labels) and {len(train)} (rows): {bad}")
    orders = {seed: _stratified(train, strata, seed) for seed in seeds}
    measure = "f1_macro" if several else "accuracy"
    found = []
    work = [*product(sorted(set(sizes)), seeds, fit.items())]
    for size, seed, (name, make) in tqdm(work, desc="Learning curve"):
        rows = orders[seed].head(size)
        classifier = make(rows["text"].tolist(), rows["label"].tolist())
        answers, _ = _labels(name, classifier, test, several)
        averages, _ = _scores(test["label"], pd.Series(answers), several)
        found.append((name, size, seed, averages[measure]))
    return pd.DataFrame(found, columns=["name", "rows", "seed", measure])


def _stratified(rows: pd.DataFrame, strata: pd.Series, seed: int) -> pd.DataFrame:
    """Shuffle rows so that labels take turns by their shares: whatever stands first has them."""
    drawn = strata.sample(frac=1, random_state=seed)
    of_label = drawn.groupby(drawn)
    place = (of_label.cumcount() + 0.5) / of_label.transform("size")
    return rows.loc[place.sort_values(kind="stable").index]


@dataclass(frozen=True)
class KeywordComparison:
    """What `compare_keywords` measured.

    Attributes:
        table: One row per way: `f1@5` (or another `k`), `f1@M` and others of
            `metrics.keyphrase_metrics`, and `texts_per_second`.
        found: Keywords per text under the name of each way.
        matches: `metrics.keyphrase_matches` of each way, to see where its mean comes from.
    """

    table: pd.DataFrame
    found: dict[str, list[list[str]]]
    matches: dict[str, pd.DataFrame]

    def differences(self, reference: str, seed: int = 0) -> pd.DataFrame:
        """Say of every other way whether it is really better or worse than `reference`.

        Args:
            reference: Name of a way.
            seed: Seed of the bootstrap.

        Returns:
            One row per way: `difference` in F1@M (positive where it is better) and its 95% interval
            from `low` to `high`, by a paired bootstrap over the texts.

        Raises:
            KeyError: There is no such way.
        """

        def scores(name: str) -> np.ndarray:
            return self.matches[name]["all"][["precision@M", "recall@M"]].to_numpy()

        def f1(rows: np.ndarray) -> float:
            return metrics.f1_of(*rows.mean(axis=0))

        rows = {
            name: metrics.paired_bootstrap(scores(name), scores(reference), f1, seed=seed)
            for name in self.table.index.drop(reference)
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("way")


def compare_keywords(
    ways: Mapping[str, KeywordFinder],
    texts: Sequence[str],
    gold: Sequence[Sequence[str]],
    k: int = 5,
) -> KeywordComparison:
    """Let several ways find keywords in the same texts, and score and time them.

    Args:
        ways: Functions by name, from texts to a list of keywords each, the best first, such as
            `baselines.nltk_keywords`.
        texts: The texts.
        gold: True keywords per text.
        k: Cut-off of the figures `@k`.

    Returns:
        Figures, keywords, and with `.differences(name)` what is more than chance.

    Raises:
        ValueError: Ways, texts or lists of keywords are missing, or keywords are one string.

    Example:
        >>> ways = {"first word": lambda texts: [text.split()[:1] for text in texts]}
        >>> compared = compare_keywords(ways, ["Redis hums"], [["Redis"]])
        >>> float(compared.table.loc["first word", "f1@M"])
        1.0
    """
    texts = tables.strings(texts)
    if not ways or not texts or len(texts) != len(gold):
        raise ValueError(f"{len(ways)} ways, {len(texts)} texts and {len(gold)} lists of keywords")
    table, found, matches = {}, {}, {}
    for name, way in tqdm(ways.items(), desc="Compare", leave=False):
        found[name], speed = _timed(name, way, texts)
        matches[name] = metrics.keyphrase_matches(texts, found[name], gold, k)
        figures = metrics.keyphrase_metrics(texts, found[name], gold, k)
        table[name] = figures | {"texts_per_second": speed}
    columns = [f"f1@{k}", "f1@M", "precision@M", "recall@M", "present_f1@M", "absent_recall@M"]
    rows = pd.DataFrame(table, [*columns, "texts_per_second"]).T.rename_axis("way")
    return KeywordComparison(rows, found, matches)


def _labelled(rows: Any, where: str, several: bool) -> pd.DataFrame:
    """Return texts and the names of their labels."""
    table = tables.read(rows, ["text", "label"])[["text", "label"]]
    table = data.usable(table, where=where, several=several)
    if table.empty:
        raise ValueError(f"There is no row{where}.")
    return table.reset_index(drop=True)


def _labels(
    name: str, classifier: Classifier, rows: pd.DataFrame, several: bool
) -> tuple[list[Any], float]:
    """Return the names that texts get, '' or [] where there is none, and texts per second."""
    answers, speed = _timed(name, classifier.predict, rows["text"].tolist())
    if several:
        names = data.label_sets(answers).map(lambda own: own or [])
    else:
        names = data.label_names(answers, f" that {name} gives").fillna("")
    given, known = _each(names, several), sorted(set(_each(rows["label"], several)))
    others = [label for label in given if label not in known]
    told = (
        f"{len(others)} of {len(given)} answers of {name} are no label here, such as "
        f"{sorted(set(others))[-5:]}; the labels are {known[:20]}"
    )
    if given and len(others) == len(given):
        raise ValueError(f"{told}. Map the answers to these names.")
    if any(others):
        warnings.warn(f"{told}. They count as wrong.", stacklevel=3)
    return names.tolist(), speed


def _timed(
    name: str, work: Callable[[Sequence[str]], Iterable[Any]], texts: list[str]
) -> tuple[list[Any], float]:
    """Return the answers, and texts per second after a first text that isn't timed."""
    work(texts[:1])
    started = time.perf_counter()
    answers = list(work(texts))
    seconds = time.perf_counter() - started
    if len(answers) != len(texts):
        raise ValueError(f"{name} gave {len(answers)} answers to {len(texts)} texts.")
    return answers, len(texts) / max(seconds, 1e-9)
