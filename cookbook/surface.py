"""What stands on the surface of texts: signs that give a label away, and near duplicates."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process
from tqdm.auto import tqdm

from cookbook import words
from cookbook.label_cells import one_hot
from cookbook.minhash import CROWD, Form, alike, longest
from cookbook.multilabel import choose_thresholds

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

_LEAST = 90  # similarity from which MinHash misses little

SURFACE_FEATURES: dict[str, Callable[[str], float]] = {
    "has '!'": lambda text: "!" in text,
    "has '?'": lambda text: "?" in text or "؟" in text,
    "has a digit": lambda text: any(c.isdigit() for c in text),
    "starts with a digit": lambda text: text[:1].isdigit(),
    "has a quotation mark": lambda text: any(c in words.QUOTES for c in text),
    "has a colon": lambda text: ":" in text,
    "ends in punctuation": lambda text: text.rstrip()[-1:] in tuple(words.ENDS),
    "share of capitalised words": lambda text: _share(text.split(), lambda word: word[0].isupper()),
    "share of capitals": lambda text: _share(text, str.isupper),
    "characters": len,
    "words": lambda text: len(words.tokens(text)),
}
"""What a reader would call cheating: signs that say nothing of the content. Each maps a text, its
full-width signs narrowed, to a number; yes/no signs to 0 or 1."""


def words_and_letters(C: float = 1.0) -> Pipeline:
    """Make an untrained TF-IDF of words, pairs of words and runs of letters, all in lower case.

    Logistic regression on top. It takes seconds, and errs elsewhere than a language model.

    Args:
        C: Inverse of the strength of regularisation.

    Example:
        >>> trained = words_and_letters().fit(["Wow, cats", "Bank cuts rate"], ["bait", "fact"])
        >>> trained.predict(["Rate cut"]).tolist()
        ['fact']
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    by_word = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    by_letter = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return make_pipeline(make_union(by_word, by_letter), LogisticRegression(C=C, max_iter=1000))


def surface_giveaways(texts: pd.Series, labels: pd.Series) -> pd.DataFrame:
    """Measure how well one surface feature alone tells each label from the rest.

    The score is the balanced accuracy of the best threshold on that feature: (1 + D) / 2, with D
    the two-sample Kolmogorov-Smirnov statistic. Openings (the first two words) are scored by their
    label rate in the other half of the rows, so that rare ones prove nothing by themselves.

    Args:
        texts: The texts.
        labels: A label per text, or a list of them.

    Returns:
        One row per feature and label, the highest score first: `feature`, `label`, `score` (0.5 to
        1), `mean_in` and `mean_out` (mean of the feature within the label and elsewhere), `flagged`
        (whether D exceeds what chance gives once in a thousand).

    Example:
        >>> table = surface_giveaways(pd.Series(["Wow!", "No!", "a", "b"]), pd.Series(list("xxyy")))
        >>> float(table["score"].max())
        1.0
    """
    from scipy.stats import ks_2samp

    narrow = [unicodedata.normalize("NFKC", text) for text in texts]
    values = {
        name: np.array([feature(text) for text in narrow], dtype=float)
        for name, feature in SURFACE_FEATURES.items()
    }
    spelt = [set(words.tokens(words.fold(text))) for text in narrow]
    openings = [" ".join(words.tokens(words.fold(text))[:2]) for text in narrow]
    each = pd.Series(spelt).explode().dropna()
    often = each.value_counts()
    often = often[often >= min(5, len(labels))]
    # How many texts of a label have a word.
    pairs = each.to_frame("word").join(labels.reset_index(drop=True).rename("label").explode())
    sizes = labels.explode().value_counts()
    having = pd.crosstab(pairs["word"], pairs["label"]).reindex(
        index=often.index, columns=sizes.index, fill_value=0
    )
    names = sorted(sizes.index, key=str)
    several = labels.map(lambda own: isinstance(own, list)).any()
    rows = []
    for name in names if len(names) > 1 else []:
        inside = np.array([name in own if several else own == name for own in labels])
        if inside.all():  # a label that every text has is told by nothing
            continue
        # Critical value of the two-sample Kolmogorov-Smirnov test at 0.001.
        critical = 1.95 * np.sqrt(1 / inside.sum() + 1 / (~inside).sum())
        shares = having[name] / sizes[name]
        others = (often - having[name]) / max(len(labels) - sizes[name], 1)
        measured = values | {"first two words": _rate(openings, inside)}
        for word in (shares - others).abs().nlargest(3).index:
            measured[f"the word '{word}'"] = np.array([word in text for text in spelt], dtype=float)
        for feature, value in measured.items():
            within, without = value[inside], value[~inside]
            distance = float(ks_2samp(within, without, method="asymp").statistic)
            means = within.mean(), without.mean()
            rows.append((feature, name, (1 + distance) / 2, *means, distance > critical))
    columns = ["feature", "label", "score", "mean_in", "mean_out", "flagged"]
    table = pd.DataFrame(rows, columns=columns).astype({"flagged": bool})
    if len(names) == 2 and not several:  # what tells one tells the other as well: say it once
        table = table[table["mean_in"] >= table["mean_out"]].drop_duplicates("feature")
    return table.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)


def label_quality(
    texts: pd.Series, labels: pd.Series, folds: int, seed: int, several: bool
) -> tuple[Any, Any]:
    """Say for each text which label a cheap model suggests, and how sound the given one is.

    Args:
        texts: The texts.
        labels: A label per text, or a list of them.
        folds: Parts in which the model answers what it wasn't trained on.
        seed: Seed of the parts.
        several: Whether a text may have several.

    Returns:
        The suggestions, and scores from 0 (doubtful) to 1; see `quality.doubtful`.

    Raises:
        ValueError: There is only one label, or row of it.
    """
    from cleanlab import multilabel_classification, rank
    from scipy.special import expit, logit
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    counts = labels.explode().value_counts()
    if len(counts) < 2 or counts.min() < 2:
        raise ValueError(
            f"To doubt a label takes two labels with two rows each; here: {counts.to_dict()}"
        )
    model = words_and_letters(C=10 if several else 1)
    if several:
        names: Any = np.array(sorted(counts.index), object)
        given: np.ndarray = one_hot(labels, names.tolist())
        model = make_pipeline(model[:-1], OneVsRestClassifier(model[-1]))
        parts = KFold(folds, shuffle=True, random_state=seed)
        found = cross_val_predict(model, texts, given, cv=parts, method="predict_proba")
        # A rare label is never likely: each is judged by how many texts have it.
        usual = list(choose_thresholds(given, found, names).values())
        found = expit(logit(np.clip(found, 1e-6, 1 - 1e-6)) - logit(np.clip(usual, 1e-6, 1 - 1e-6)))
        own = [np.flatnonzero(row).tolist() for row in given]
        score = multilabel_classification.get_label_quality_scores(own, found)
        return [names[row >= 0.5].tolist() for row in found], score
    ids, names = pd.factorize(labels, sort=True)
    parts = StratifiedKFold(min(folds, counts.min()), shuffle=True, random_state=seed)
    found = cross_val_predict(model, texts, ids, cv=parts, method="predict_proba")
    return names[found.argmax(axis=1)], rank.get_label_quality_scores(ids, found)


def _rate(openings: list[str], inside: np.ndarray) -> np.ndarray:
    """Give each opening the rate of the label that it has in the other half of the rows."""
    half = np.random.default_rng(0).permutation(len(openings)) % 2
    rates = pd.Series(inside).groupby([half, openings]).mean()
    other = pd.MultiIndex.from_arrays([1 - half, openings])
    return rates.reindex(other).fillna(inside.mean()).to_numpy()


def _share(items: str | list[str], test: Callable[[str], bool]) -> float:
    return sum(map(test, items)) / len(items) if items else 0.0


def near_duplicates(
    texts: pd.Series,
    similarity: float = 90,
    ignore_numbers: bool = False,
    exact_up_to: int = 20_000,
) -> pd.DataFrame:
    """Find texts that repeat an earlier one, to the letter or nearly.

    Two texts are compared by rapidfuzz's `ratio` (the share of characters in common, in order) on
    their normalised words, both as they stand and sorted: in order, so that it matters who beat
    whom; sorted, so that another word weighs more. Texts that differ in a number tell different
    things ('wins 3-1', 'version 14') and aren't duplicates unless told so.

    Of many texts not every pair is compared, but those alike by MinHash (Broder 1997) on runs of
    three characters: of 30,000 titles with planted copies that finds 99.9% of the pairs, of those
    in which a tenth of the signs is mistyped 98%.

    Args:
        texts: The texts.
        similarity: From 0 to 100, the ratio from which two texts count as the same.
        ignore_numbers: Whether to leave numbers out of the comparison.
        exact_up_to: Texts up to which every pair is compared. Below a similarity of 90 it always
            is: MinHash would miss too many.

    Returns:
        One row per repeated text: `row` (its position), `of` (the position of the first text of its
        group) and `similarity` to the closest earlier one (0 to 100); of a text that repeats more
        than 64, to the closest of as many. Its `attrs["way"]` is 'every pair' or 'MinHash'.

    Example:
        >>> near_duplicates(pd.Series(["The sun rises", "Tea", "the sun rises!"])).values.tolist()
        [[2.0, 0.0, 100.0]]
    """
    places: dict[Form, int] = {}  # of the first of its form
    found = []
    for row, text in enumerate(texts):
        form = _comparable(text, ignore_numbers)
        first_row = places.setdefault(form, row)
        if form[0] and first_row < row:
            found.append((first_row, row, 100.0))
    forms = sorted((form for form in places if form[0]), key=lambda form: len(form[0]))
    way = "every pair" if len(forms) <= exact_up_to or similarity < _LEAST else "MinHash"
    rows = np.array([places[form] for form in forms], dtype=int)
    pairs = _every_pair if way == "every pair" else partial(alike, rows=rows)
    repeats: Counter[int] = Counter()
    least: dict[int, int] = {}
    for i, j, score in pairs(forms, similarity):
        a, b = sorted((int(rows[i]), int(rows[j])))
        if (repeats[b] < CROWD or a < least[b]) and _repeats(forms[i], forms[j], similarity):
            repeats[b] += 1
            least[b] = min(a, least.get(b, a))
            found.append((a, b, score))
    first = list(range(len(texts)))
    best: dict[int, float] = {}
    for a, b, score in sorted(found):
        first[b] = min(first[b], first[a])
        best[b] = max(best.get(b, 0.0), score)
    told = [(row, first[row], best[row]) for row in sorted(best)]
    table = pd.DataFrame(told, columns=["row", "of", "similarity"]).astype({"row": int, "of": int})
    table.attrs["way"] = way
    return table


def _every_pair(forms: list[Form], similarity: float) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs that are alike in order; the forms come by length."""
    keys = [form[0] for form in forms]
    lengths = np.array(list(map(len, keys)), dtype=int)
    ends = lengths.searchsorted(longest(lengths, similarity), side="right")
    step = 256
    for start in tqdm(range(0, len(keys), step), desc="Near duplicates", leave=False, delay=1):
        part = keys[start : start + step]
        later = keys[start : ends[start + len(part) - 1]]
        scores = process.cdist(part, later, scorer=fuzz.ratio, score_cutoff=similarity, workers=-1)
        for i, j in np.argwhere(scores).tolist():
            if i < j:
                yield start + i, start + j, float(scores[i, j])


def first_duplicate(
    text: str, earlier: Sequence[str], similarity: float = 90, ignore_numbers: bool = False
) -> int | None:
    """Say which earlier text this one repeats, by the rule of `near_duplicates`.

    For texts that come one by one: the earlier ones are prepared once and remembered.

    Args:
        text: The new text.
        earlier: The texts before it.
        similarity: From 0 to 100, the ratio from which two texts count as the same.
        ignore_numbers: Whether to leave numbers out of the comparison.

    Returns:
        Position of the first such text; None where the text is new.

    Example:
        >>> first_duplicate("the sun rises!", ["Tea", "The sun rises"])
        1
    """
    form = _comparable(text, ignore_numbers)
    for position, other in enumerate(earlier):
        if _repeats(form, _comparable(other, ignore_numbers), similarity):
            return position
    return None


def _repeats(one: Form, other: Form, similarity: float) -> bool:
    return (
        bool(one[0])
        and one[2] == other[2]
        and all(
            fuzz.ratio(*pair, score_cutoff=similarity) >= similarity
            for pair in zip(one[:2], other[:2], strict=True)
        )
    )


@lru_cache(maxsize=1 << 17)
def _comparable(text: str, ignore_numbers: bool) -> Form:
    """Return the words in order, the words sorted, and the numbers among them."""
    parts = words.normalise(text).split()
    numbers = tuple(sorted(part for part in parts if part[0].isdigit()))
    if ignore_numbers:
        parts, numbers = [part for part in parts if not part[0].isdigit()], ()
    return " ".join(parts), " ".join(sorted(parts)), numbers
