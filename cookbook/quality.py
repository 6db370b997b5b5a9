"""What is wrong with a data set: balance, giveaways, duplicates, leakage, contradictions."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

# What a reader would call cheating: signs that say nothing of the content. Each maps a text to a
# number; yes/no signs to 0 or 1.
SURFACE_FEATURES: dict[str, Callable[[str], float]] = {
    "has '!'": lambda text: "!" in text,
    "has '?'": lambda text: "?" in text,
    "has a digit": lambda text: any(c.isdigit() for c in text),
    "starts with a digit": lambda text: text[:1].isdigit(),
    "has a quotation mark": lambda text: any(c in '"“”„«»' for c in text),
    "has a colon": lambda text: ":" in text,
    "ends in punctuation": lambda text: text[-1:] in ".!?…",
    "share of capitalised words": lambda text: _share(text.split(), lambda word: word[0].isupper()),
    "share of capitals": lambda text: _share(text, str.isupper),
    "characters": len,
    "words": lambda text: len(text.split()),
}


@dataclass
class QualityReport:
    """What `check` found; prints as a summary.

    Attributes:
        rows: Number of rows checked.
        balance: One row per split, one column per label, in rows.
        giveaways: One row per surface feature and label, the worst first: `score` is the balanced
            accuracy with which this feature alone tells `label` from the rest (0.5 is chance).
        duplicates: One row per copy: where it stands, what it copies, how alike (0 to 100), whether
            `exact` or `near`, and whether that leaks from one split into another.
        conflicts: Every row of a text that carries more than one label.
        problems: One line of text per finding; empty where nothing was found.
    """

    rows: int
    balance: pd.DataFrame
    giveaways: pd.DataFrame
    duplicates: pd.DataFrame
    conflicts: pd.DataFrame
    problems: list[str]
    _source: object = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def __str__(self) -> str:
        counts = self.balance.sum()
        labels = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        worst = self.giveaways.iloc[0] if len(self.giveaways) else None
        lines = [f"{self.rows:,} rows: {labels}"]
        if worst is not None:
            lines.append(
                f"Strongest surface feature: {worst['feature']}, balanced accuracy "
                f"{worst['score']:.2f} (chance 0.50)"
            )
        lines += [f"PROBLEM  {problem}" for problem in self.problems] or ["No problem found."]
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """Return the findings as one table: `check`, `split`, `row`, `text`, `detail`."""
        tables: list[tuple[Any, ...]] = []
        for row in self.giveaways[self.giveaways["flagged"]].itertuples():
            detail = f"tells {row.label!r} with balanced accuracy {row.score:.2f}"
            tables.append(("giveaway", None, None, row.feature, detail))
        for row in self.duplicates.itertuples():
            kind = "leak" if row.leaks else f"{row.kind} duplicate"
            tables.append((kind, row.split, row.row, row.text, f"of {row.of_split} {row.of_row}"))
        for row in self.conflicts.itertuples():
            tables.append(("two labels", row.split, row.row, row.text, f"here {row.label!r}"))
        if problem := _imbalance(self.balance):
            tables.append(("balance", None, None, None, problem))
        return pd.DataFrame(tables, columns=["check", "split", "row", "text", "detail"])

    def clean(self) -> pd.DataFrame | Dataset | DatasetDict:
        """Return the data, as it came, without copies and without texts that carry two labels.

        The first of each group of duplicates stays, and train comes before validation and test.
        Giveaways and imbalance can't be mended by dropping rows: write more or other texts.
        """
        bad = pd.concat([self.duplicates, self.conflicts])[["split", "row"]]
        return _without(self._source, bad)


def check(
    data: pd.DataFrame | Dataset | DatasetDict,
    *,
    text: str = "text",
    label: str = "label",
    giveaway: float = 0.7,
    similarity: float = 90,
    ignore_numbers: bool = False,
) -> QualityReport:
    """Look for what makes a score on this data worth less than it seems.

    Args:
        data: DataFrame, one split, or all of them; with all, leaks between splits are found too.
        text: Column of the texts.
        label: Column of the labels, names or class ids.
        giveaway: Balanced accuracy from which a surface feature alone counts as a giveaway. 0.7
            lets real style pass (in the shipped titles 'the' reaches 0.63) and catches an
            exclamation mark on 40% of one label's texts.
        similarity: From 0 to 100, how alike two texts must be to count as near duplicates (see
            `near_duplicates`).
        ignore_numbers: Whether texts that differ only in a number are duplicates.

    Returns:
        A report that prints, with a table per check.

    Example:
        >>> import pandas as pd
        >>> titles = pd.DataFrame({"text": ["Rain", "rain!", "Sun"], "label": ["a", "a", "b"]})
        >>> report = check(titles)
        >>> report.duplicates["kind"].tolist()
        ['exact']
    """
    frames = _frames(data, text, label)
    every = pd.concat(
        [frame.assign(split=split, row=range(len(frame))) for split, frame in frames.items()],
        ignore_index=True,
    )
    keys = every["text"].map(normalise)
    balance = pd.crosstab(every["split"], every["label"]).reindex(list(frames), fill_value=0)
    giveaways = surface_giveaways(every["text"], every["label"])
    giveaways["flagged"] &= giveaways["score"] >= giveaway

    labels_per_text = every["label"].groupby(keys).transform("nunique")
    conflicts = every[(labels_per_text > 1) & (keys != "")]
    pairs = near_duplicates(every["text"], similarity, ignore_numbers)
    copy, first = every.iloc[pairs["row"]], every.iloc[pairs["of"]]
    duplicates = pd.DataFrame(
        {
            "split": copy["split"].to_numpy(),
            "row": copy["row"].to_numpy(),
            "text": copy["text"].to_numpy(),
            "of_split": first["split"].to_numpy(),
            "of_row": first["row"].to_numpy(),
            "of_text": first["text"].to_numpy(),
            "similarity": pairs["similarity"].to_numpy(),
            "kind": np.where(
                keys[copy.index].to_numpy() == keys[first.index].to_numpy(), "exact", "near"
            ),
            "leaks": copy["split"].to_numpy() != first["split"].to_numpy(),
        }
    )

    problems = []
    if problem := _imbalance(balance):
        problems.append(problem)
    for row in giveaways[giveaways["flagged"]].itertuples():
        problems.append(
            f"giveaway: {row.feature} alone tells {row.label!r} with balanced accuracy "
            f"{row.score:.2f} (mean {row.mean_in:.2f} there, {row.mean_out:.2f} elsewhere)"
        )
    for kind in ("exact", "near"):
        of_kind = duplicates[duplicates["kind"] == kind]
        if len(of_kind):
            problems.append(
                f"{len(of_kind)} {kind} duplicates, {of_kind['leaks'].sum()} across splits, "
                f"such as {of_kind['text'].iloc[0]!r} and {of_kind['of_text'].iloc[0]!r}"
            )
    if len(conflicts):
        problems.append(
            f"{keys[conflicts.index].nunique()} texts with two labels, such as "
            f"{conflicts['text'].iloc[0]!r}"
        )
    return QualityReport(len(every), balance, giveaways, duplicates, conflicts, problems, data)


# Words that say nothing about a text when they stand alone as a keyword.
_GENERIC = frozenset(
    """app application apps article best code company computer data developer developers development
    example feature guide help idea information issue language learning life new news online people
    problem product program programming project question software solution system team tech
    technology thing time tool tools tutorial update use user users way website work world year
    years""".split()  # noqa: SIM905
)


@dataclass
class KeywordReport:
    """What `check_keywords` found; prints as a summary.

    Attributes:
        rows: Number of rows checked.
        per_text: Keywords per text, on average.
        literal: Share of the keywords that stand in their text, letter by letter (case and
            punctuation apart).
        findings: One row per finding: `check`, `split`, `row`, `text`, `detail`.
        problems: One line of text per kind of finding; empty where nothing was found.
    """

    rows: int
    per_text: float
    literal: float
    findings: pd.DataFrame
    problems: list[str]
    _source: object = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def __str__(self) -> str:
        lines = [
            f"{self.rows:,} texts, {self.per_text:.1f} keywords a text, {self.literal:.0%} of them "
            "stand in the text"
        ]
        lines += [f"PROBLEM  {problem}" for problem in self.problems] or ["No problem found."]
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """Return the findings as one table: `check`, `split`, `row`, `text`, `detail`."""
        return self.findings

    def clean(self) -> pd.DataFrame | Dataset | DatasetDict:
        """Return the data, as it came, without the rows that have a finding.

        Of duplicates the first stays, and train comes before validation and test.
        """
        bad = self.findings[["split", "row"]]
        return _without(self._source, bad)


def check_keywords(
    data: pd.DataFrame | Dataset | DatasetDict,
    *,
    text: str = "text",
    keywords: str = "keywords",
    far: float = 60,
    similarity: float = 90,
) -> KeywordReport:
    """Look for what makes keywords worth less as training targets than they seem.

    Args:
        data: DataFrame, one split, or all of them; with all, leaks between splits are found too.
        text: Column of the texts.
        keywords: Column of the keywords (`data.split_keywords` says what a cell may be).
        far: From 0 to 100: a keyword is far from its text where rapidfuzz's `partial_ratio`, the
            likeness to the most similar stretch of the text, is lower. A row is reported where that
            is so for three quarters of its keywords: a few may well be abstractions.
        similarity: From 0 to 100, how alike two texts must be to count as near duplicates (see
            `near_duplicates`).

    Returns:
        A report that prints, with a table of findings: keywords that are empty, repeated, generic
        or far from the text, and texts that repeat another.

    Example:
        >>> import pandas as pd
        >>> report = check_keywords(pd.DataFrame({"text": ["Go, fast"], "keywords": ["Go, go"]}))
        >>> report.findings["check"].tolist()
        ['repeated keyword']
    """
    from rapidfuzz import fuzz

    from cookbook.data import split_keywords

    every = pd.concat(
        [
            frame.assign(split=split, row=range(len(frame)))
            for split, frame in _frames(data, text, keywords, optional=True).items()
        ],
        ignore_index=True,
    )
    found: list[tuple[str, str, int, str, str]] = []
    literal = total = 0
    for split, row, string, cell in zip(
        every["split"], every["row"], every["text"], every["label"], strict=True
    ):
        where = (split, row, string)
        phrases = split_keywords(cell)
        if not phrases:
            found.append(("no keywords", *where, ""))
            continue
        written = split_keywords(cell, unique=False)
        if not all(written):
            found.append(("empty keyword", *where, repr(cell)))
        names = [phrase.casefold() for phrase in written if phrase]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            found.append(("repeated keyword", *where, ", ".join(repeated)))
        if generic := [phrase for phrase in phrases if phrase.casefold() in _GENERIC]:
            found.append(("generic keyword", *where, ", ".join(generic)))
        source = f" {normalise(string)} "
        # Whole words: 'Go' doesn't stand in 'Google'.
        there = [f" {normalise(phrase) or phrase} " in source for phrase in phrases]
        literal += sum(there)
        total += len(phrases)
        away = [
            phrase
            for phrase, stands in zip(phrases, there, strict=True)
            if not stands and fuzz.partial_ratio(normalise(phrase), source) < far
        ]
        if len(away) >= 0.75 * len(phrases):
            found.append(("far from the text", *where, ", ".join(away)))
    pairs = near_duplicates(every["text"], similarity)
    for i, of in zip(pairs["row"], pairs["of"], strict=True):
        copy, first = every.iloc[i], every.iloc[of]
        kind = "leak" if copy["split"] != first["split"] else "duplicate text"
        detail = f"of {first['split']} {first['row']}: {first['text']}"
        found.append((kind, copy["split"], copy["row"], copy["text"], detail))

    findings = pd.DataFrame(found, columns=["check", "split", "row", "text", "detail"])
    problems = [
        f"{kind}: {len(rows)} rows, such as {rows['split'].iloc[0]} {rows['row'].iloc[0]}, "
        f"{rows['text'].iloc[0][:60]!r} {rows['detail'].iloc[0][:60]}".rstrip()
        for kind, rows in findings.groupby("check", sort=False)
    ]
    return KeywordReport(
        len(every), total / max(len(every), 1), literal / max(total, 1), findings, problems, data
    )


def doubtful(
    data: pd.DataFrame | Dataset | DatasetDict,
    *,
    text: str = "text",
    label: str = "label",
    keywords: str | None = None,
    folds: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank rows for a person to review, the most doubtful first.

    Reading every row takes days; most wrong ones stand at the top of this list. For labels: a cheap
    model (logistic regression on words and letters) is trained without the row and asked about it;
    cleanlab turns its probabilities into a score of the label (confident learning, Northcutt et al.
    2021, https://arxiv.org/abs/1911.00068). With 5% of the labels of the shipped titles flipped at
    random, the worst tenth held 85 to 92% of the flips in four draws. For keywords: how far they
    are from the text.

    Args:
        data: DataFrame, one split, or all of them together.
        text: Column of the texts.
        label: Column of the labels, names or class ids.
        keywords: Column of keywords; where given, these are ranked instead of labels.
        folds: Parts of the cross-validation; fewer where a label has fewer rows.
        seed: Seed of the parts.

    Returns:
        One row per text: `split`, `row`, `text`, `label` (or `keywords`), `suggested` (the
        likeliest label; for keywords those that don't stand in the text) and `score` (0 to 1, low
        means doubtful).

    Raises:
        ValueError: A text is no string or has no label (names the row), or a label has one row
            only, or there is only one label.

    Example:
        >>> import pandas as pd
        >>> posts = pd.DataFrame({"text": ["Go is fast"] * 2, "keywords": ["Go", "Kubernetes"]})
        >>> doubtful(posts, keywords="keywords")["row"].tolist()
        [1, 0]
    """
    column = keywords or label
    every = pd.concat(
        [
            frame.assign(split=split, row=range(len(frame)))
            for split, frame in _frames(data, text, column, optional=bool(keywords)).items()
        ],
        ignore_index=True,
    )
    if keywords:
        scores, suggested = _keyword_likeness(every["text"], every["label"])
    else:
        scores, suggested = _label_quality(every["text"], every["label"], folds, seed)
    ranked = every.assign(suggested=suggested, score=scores)
    ranked = ranked[["split", "row", "text", "label", "suggested", "score"]]
    ranked = ranked.sort_values("score", kind="stable").reset_index(drop=True)
    return ranked.rename(columns={"label": "keywords" if keywords else "label"})


def _label_quality(
    texts: pd.Series, labels: pd.Series, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    from cleanlab.rank import get_label_quality_scores
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline, make_union

    counts = labels.value_counts()
    if len(counts) < 2 or counts.min() < 2:
        raise ValueError(
            f"To doubt a label takes two labels with two rows each; here: {counts.to_dict()}"
        )
    ids, names = pd.factorize(labels, sort=True)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    model = make_pipeline(make_union(words, letters), LogisticRegression(max_iter=1000))
    parts = StratifiedKFold(min(folds, counts.min()), shuffle=True, random_state=seed)
    found = cross_val_predict(model, texts, ids, cv=parts, method="predict_proba")
    return get_label_quality_scores(ids, found), np.asarray(names)[found.argmax(axis=1)]


def _keyword_likeness(texts: pd.Series, cells: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    from rapidfuzz import fuzz

    from cookbook.data import split_keywords

    scores, absent = [], []
    for text, cell in zip(texts, cells, strict=True):
        phrases = split_keywords(cell)
        source = f" {normalise(text)} "
        likeness = {
            phrase: 100.0
            if f" {normalise(phrase) or phrase} " in source
            else fuzz.partial_ratio(normalise(phrase), source)
            for phrase in phrases
        }
        scores.append(sum(likeness.values()) / 100 / len(phrases) if phrases else 0.0)
        absent.append(", ".join(phrase for phrase, value in likeness.items() if value < 100))
    return np.array(scores), np.array(absent)


def surface_giveaways(texts: pd.Series, labels: pd.Series) -> pd.DataFrame:
    """Measure how well one surface feature alone tells each label from the rest.

    The score is the balanced accuracy of the best threshold on that feature, which is
    (1 + D) / 2 with D the two-sample Kolmogorov-Smirnov statistic; for a yes/no feature D is
    Youden's J. Balanced, so that a rare label's giveaway shows as well. Openings (the first two
    words) are scored by their label rate in the other half of the rows, so that rare openings
    prove nothing by themselves.

    Args:
        texts: The texts.
        labels: A label per text.

    Returns:
        One row per feature and label, the highest score first: `feature`, `label`, `score` (0.5 to
        1), `mean_in` and `mean_out` (mean of the feature within the label and elsewhere), `flagged`
        (whether D exceeds what chance gives once in a thousand).

    Example:
        >>> import pandas as pd
        >>> table = surface_giveaways(pd.Series(["Wow!", "No!", "a", "b"]), pd.Series(list("xxyy")))
        >>> float(table["score"].max())
        1.0
    """
    from scipy.stats import ks_2samp
    from sklearn.feature_extraction.text import CountVectorizer

    texts = texts.reset_index(drop=True)
    labels = labels.reset_index(drop=True)
    values = {
        name: texts.map(feature).to_numpy(dtype=float) for name, feature in SURFACE_FEATURES.items()
    }
    openings = texts.str.lower().str.split().str[:2].str.join(" ")
    half = np.random.default_rng(0).permutation(len(texts)) % 2
    names = sorted(labels.unique(), key=str)
    try:
        vectorizer = CountVectorizer(binary=True, min_df=min(5, len(texts)))
        presence = vectorizer.fit_transform(texts)
        words = vectorizer.get_feature_names_out()
    except ValueError:  # no word occurs often enough
        presence, words = None, np.array([])

    rows = []
    # With two labels, what tells one from the rest tells the other as well: score it once.
    for name in names[: 1 if len(names) == 2 else None] if len(names) > 1 else []:
        inside = (labels == name).to_numpy()
        sizes = inside.sum(), (~inside).sum()
        # Two-sided critical value of the two-sample Kolmogorov-Smirnov test at 0.001.
        critical = 1.95 * np.sqrt(sum(sizes) / (sizes[0] * sizes[1]))
        scored = dict(values)
        rate = np.full(len(texts), inside.mean())
        for fold in (0, 1):
            known = (
                pd.Series(inside[half != fold]).groupby(openings[half != fold].to_numpy()).mean()
            )
            seen = openings[half == fold].map(known)
            rate[half == fold] = seen.fillna(inside.mean())
        scored["first two words"] = rate
        for feature, value in scored.items():
            distance = float(ks_2samp(value[inside], value[~inside], method="asymp").statistic)
            means = value[inside].mean(), value[~inside].mean()
            rows.append((feature, name, (1 + distance) / 2, *means, distance > critical))
        if presence is not None:
            share_in = np.asarray(presence[inside].mean(axis=0)).ravel()
            share_out = np.asarray(presence[~inside].mean(axis=0)).ravel()
            for i in np.argsort(-np.abs(share_in - share_out))[:3]:
                distance = abs(share_in[i] - share_out[i])
                row = (
                    f"the word '{words[i]}'",
                    name,
                    (1 + distance) / 2,
                    share_in[i],
                    share_out[i],
                )
                rows.append((*row, distance > critical))
    columns = ["feature", "label", "score", "mean_in", "mean_out", "flagged"]
    table = pd.DataFrame(rows, columns=columns)
    if len(names) == 2:  # name the label that has more of the feature
        other = table["mean_in"] < table["mean_out"]
        swapped = table.loc[other, ["mean_out", "mean_in"]].to_numpy()
        table.loc[other, "label"] = names[1]
        table.loc[other, ["mean_in", "mean_out"]] = swapped
    return table.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)


def near_duplicates(
    texts: pd.Series, similarity: float = 90, ignore_numbers: bool = False
) -> pd.DataFrame:
    """Find texts that repeat an earlier one, to the letter or nearly.

    Two texts are compared by rapidfuzz's `ratio` (the share of characters in common, in order) on
    their lower-cased words without punctuation, both as they stand and sorted: in order, so that it
    matters who beat whom; sorted, so that another word, which then stands elsewhere, weighs more.
    Exact where MinHash only estimates, and still fast: texts too different in length are never
    compared. Texts that differ in a number tell different things ('wins 3-1', 'version 14') and
    aren't duplicates unless told so.

    Args:
        texts: The texts.
        similarity: From 0 to 100, the ratio from which two texts count as the same.
        ignore_numbers: Whether to leave numbers out of the comparison.

    Returns:
        One row per repeated text: `row` (its position), `of` (the position of the first text of its
        group) and `similarity` to the closest earlier one (0 to 100).

    Example:
        >>> import pandas as pd
        >>> near_duplicates(pd.Series(["The sun rises", "Tea", "the sun rises!"])).values.tolist()
        [[2.0, 0.0, 100.0]]
    """
    from rapidfuzz import fuzz, process
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    keys, sorted_keys, numbers = (
        zip(*(_comparable(text, ignore_numbers) for text in texts), strict=True)
        if len(texts)
        else ((), (), ())
    )
    numbers_id = pd.factorize(pd.Series(numbers, dtype=object))[0]
    lengths = np.array([len(key) for key in keys], dtype=int)
    order = np.argsort(lengths, kind="stable")
    found: list[tuple[int, int, float]] = []
    step = 256
    # ratio = 200 * common / (a + b) can't reach `similarity` unless the longer text is at most
    # this many times as long as the shorter.
    stretch = (200 - similarity) / similarity if similarity else np.inf
    starts = range(0, len(keys), step)
    for start in tqdm(starts, desc="Near duplicates", leave=False, disable=len(starts) < 40):
        block = order[start : start + step]
        end = np.searchsorted(lengths[order], lengths[block[-1]] * stretch + 1e-9, side="right")
        later = order[start:end]
        scores = process.cdist(
            [keys[i] for i in block],
            [keys[i] for i in later],
            scorer=fuzz.ratio,
            score_cutoff=similarity,
            workers=-1,
        )
        for i, j in zip(*np.nonzero(scores), strict=True):
            a, b = block[i], later[j]
            alike = i < j and numbers_id[a] == numbers_id[b] and keys[a]
            if alike and fuzz.ratio(sorted_keys[a], sorted_keys[b]) >= similarity:
                found.append((min(a, b), max(a, b), scores[i, j]))
    columns = ["row", "of", "similarity"]
    if not found:
        return pd.DataFrame(columns=columns).astype({"row": int, "of": int, "similarity": float})
    pairs = pd.DataFrame(found, columns=["a", "b", "similarity"])
    graph = coo_array((np.ones(len(pairs)), (pairs["a"], pairs["b"])), shape=(len(keys),) * 2)
    component = connected_components(graph, directed=False)[1]
    first = pd.Series(np.arange(len(keys))).groupby(component).transform("min").to_numpy()
    best = pairs.groupby("b")["similarity"].max()
    best = best.reindex(np.flatnonzero(first != np.arange(len(keys))))
    # A text may be tied to its group only through a later one.
    best = best.fillna(pairs.groupby("a")["similarity"].max())
    table = pd.DataFrame(
        {"row": best.index, "of": first[best.index], "similarity": best.to_numpy()}
    )
    return table.reset_index(drop=True)


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
    from rapidfuzz import fuzz

    key, words, numbers = _comparable(text, ignore_numbers)
    if not key:
        return None
    for position, other in enumerate(earlier):
        other_key, other_words, other_numbers = _comparable(other, ignore_numbers)
        if (
            numbers == other_numbers
            and fuzz.ratio(key, other_key, score_cutoff=similarity)
            and fuzz.ratio(words, other_words) >= similarity
        ):
            return position
    return None


@lru_cache(maxsize=1 << 17)
def _comparable(text: str, ignore_numbers: bool) -> tuple[str, str, tuple[str, ...]]:
    """Return the words in order, the words sorted, and the numbers among them."""
    words = normalise(text).split()
    numbers = tuple(sorted(word for word in words if word[0].isdigit()))
    if ignore_numbers:
        words = [word for word in words if not word[0].isdigit()]
        numbers = ()
    return " ".join(words), " ".join(sorted(words)), numbers


def normalise(text: str) -> str:
    """Lower-case a text and drop its punctuation and extra white space.

    Letters, digits, symbols and emoji stay, and so do the marks that are vowels in many scripts.

    Example:
        >>> normalise("  You WON'T believe it! ")
        'you wont believe it'
    """
    text = text.casefold().replace("'", "").replace("’", "")
    return " ".join("".join(map(_punctuation_to_space, text)).split())


@cache
def _punctuation_to_space(character: str) -> str:
    return " " if unicodedata.category(character)[0] in "PZC" else character


def _imbalance(balance: pd.DataFrame, limit: float = 10) -> str | None:
    """Name the rarest and the commonest label where they are further apart than `limit` to 1."""
    counts = balance.sum().sort_values()
    if len(counts) == 1:
        return f"balance: only one label, {counts.index[0]!r}"
    if counts.iloc[-1] <= limit * counts.iloc[0]:
        return None
    return (
        f"balance: {counts.iloc[-1]:,} rows of {counts.index[-1]!r}, only {counts.iloc[0]:,} of "
        f"{counts.index[0]!r}"
    )


def _share(items: str | list[str], test: Callable[[str], bool]) -> float:
    return sum(map(test, items)) / len(items) if items else 0.0


def _without(source: Any, bad: pd.DataFrame) -> pd.DataFrame | Dataset | DatasetDict:
    """Return the data, as it came, without the rows named by `split` and `row`."""

    def kept(split: str, part: Any) -> np.ndarray:
        return np.setdiff1d(np.arange(len(part)), bad.loc[bad["split"] == split, "row"])

    if isinstance(source, pd.DataFrame):
        return source.iloc[kept("all", source)]
    if isinstance(source, Mapping):
        from datasets import DatasetDict

        return DatasetDict({name: part.select(kept(name, part)) for name, part in source.items()})
    return cast("Dataset", source.select(kept("all", source)))


def _frames(
    data: pd.DataFrame | Dataset | DatasetDict, text: str, label: str, optional: bool = False
) -> dict[str, pd.DataFrame]:
    parts = dict(data) if isinstance(data, Mapping) else {"all": data}
    frames = {}
    for name, part in parts.items():
        absent = [
            c
            for c in (text, label)
            if c not in getattr(part, "column_names", getattr(part, "columns", ()))
        ]
        if absent:
            raise ValueError(f"split {name!r} has no column {absent[0]!r}")
        if isinstance(part, pd.DataFrame):
            frame = part[[text, label]]
        else:
            frame = part.select_columns([text, label]).to_pandas()
            if hasattr(part.features[label], "int2str"):
                frame[label] = part.features[label].int2str(frame[label].tolist())
        frame = frame.set_axis(["text", "label"], axis=1).reset_index(drop=True)
        not_text = np.flatnonzero(~frame["text"].map(lambda value: isinstance(value, str)))
        if len(not_text):
            raise ValueError(
                f"row {not_text[0]} of {name!r}: {frame['text'][not_text[0]]!r} is no text. "
                "Drop such rows first: cookbook.data.usable does."
            )
        if not optional and frame["label"].isna().any():
            row = int(frame["label"].isna().to_numpy().argmax())
            raise ValueError(
                f"row {row} of {name!r} has no label. Drop such rows first: cookbook.data.usable "
                "does."
            )
        frames[name] = frame
    return frames
