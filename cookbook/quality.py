"""What is wrong with a data set: balance, giveaways, duplicates, leakage, contradictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from rapidfuzz import fuzz

from cookbook import tables, words
from cookbook.label_cells import doubtful_labels, label_names, label_sets
from cookbook.surface import first_duplicate as first_duplicate
from cookbook.surface import label_quality, near_duplicates, surface_giveaways

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    Data: TypeAlias = str | Path | pd.DataFrame | Dataset | DatasetDict


@dataclass
class Report:
    """What `check` or `check_keywords` found; prints as a summary.

    Attributes:
        rows: Number of rows checked.
        summary: What was checked, in a line or two.
        problems: One line of text per kind of finding; empty where nothing was found.
        findings: One row per finding: `check`, `split`, `row`, `text`, `detail`.
        duplicates: One row per copy: where it stands, what it copies, how alike (0 to 100), whether
            `exact` or `near`, and whether that leaks from one split into another.
        balance: Rows per split and label.
        giveaways: As `surface_giveaways` returns, those at fault `flagged`.
        conflicts: Every row of a text that carries more than one label.
        per_text: Keywords per text.
        literal: Share of the keywords that stand in their text.
    """

    rows: int
    summary: str
    problems: list[str]
    findings: pd.DataFrame
    duplicates: pd.DataFrame
    balance: pd.DataFrame = field(default_factory=pd.DataFrame)
    giveaways: pd.DataFrame = field(default_factory=pd.DataFrame)
    conflicts: pd.DataFrame = field(default_factory=pd.DataFrame)
    per_text: float = float("nan")
    literal: float = float("nan")
    _source: Any = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def __str__(self) -> str:
        problems = [f"PROBLEM  {problem}" for problem in self.problems] or ["No problem found."]
        return "\n".join([self.summary, *problems])

    def to_frame(self) -> pd.DataFrame:
        """Return the findings as one table."""
        return self.findings

    def clean(self) -> Data:
        """Return the data, as it came, without the rows that have a finding.

        The first of each group of duplicates stays, and train comes before validation and test.
        What whole columns show, such as a giveaway, can't be mended by dropping rows.
        """

        def kept(split: str, part: Any) -> Any:
            bad = self.findings.loc[self.findings["split"] == split, "row"]
            rest = np.setdiff1d(np.arange(len(part)), bad.to_numpy(int))
            return part.iloc[rest] if isinstance(part, pd.DataFrame) else part.select(rest)

        if not isinstance(self._source, Mapping):
            return kept("all", self._source)
        parts = {name: kept(str(name), part) for name, part in self._source.items()}
        return type(self._source)(parts)  # type: ignore[call-arg]


def check(
    data: Data,
    *,
    text: str = "text",
    label: str = "label",
    several: bool = False,
    giveaway: float = 0.7,
    similarity: float = 90,
    ignore_numbers: bool = False,
) -> Report:
    """Look for what makes a score on this data worth less than it seems.

    Args:
        data: Whatever `tables.read_splits` takes; with several splits, leaks are found too.
        text: Column of the texts.
        label: Column of the labels, names or class ids.
        several: Whether a text may have several labels (see `label_cells`).
        giveaway: Balanced accuracy from which a surface feature alone counts as a giveaway. 0.7
            lets real style pass.
        similarity: From 0 to 100, how alike near duplicates are (see `near_duplicates`).
        ignore_numbers: Whether texts that differ only in a number are duplicates.

    Returns:
        A report that prints, with a table per check.

    Raises:
        ValueError: A column is missing, a text is no string or has no label; says where.

    Example:
        >>> titles = pd.DataFrame({"text": ["Rain", "rain!", "Sun"], "label": ["a", "a", "b"]})
        >>> check(titles).duplicates["kind"].tolist()
        ['exact']
    """
    source, every = _rows(data, text, label, names=True, several=several)
    each = every.explode("label")
    balance = pd.crosstab(each["split"], each["label"])
    balance = balance.reindex(every["split"].unique(), fill_value=0)
    counts = balance.sum().sort_values()
    giveaways = surface_giveaways(every["text"], every["label"])
    giveaways["flagged"] &= giveaways["score"] >= giveaway
    keys = every["text"].map(words.normalise)
    said = every["label"].map(lambda own: tuple(sorted(own)) if several else own)
    conflicts = every[(said.groupby(keys).transform("nunique") > 1) & (keys != "")]

    told = [("labels", detail) for detail in doubtful_labels(counts.index, several)]
    if len(counts) < 2:
        told.append(("balance", f"only one label, {counts.index[0]!r}" if len(counts) else "none"))
    elif counts.iloc[-1] > 10 * counts.iloc[0]:
        few = f"only {counts.iloc[0]:,} of {counts.index[0]!r}"
        told.append(("balance", f"{counts.iloc[-1]:,} rows of {counts.index[-1]!r}, {few}"))
    flagged = giveaways[giveaways["flagged"]]
    for row in flagged.head(_MANY // 2).itertuples():
        detail = f"{row.feature} alone tells {row.label!r} with balanced accuracy {row.score:.2f}"
        detail += f" (mean {row.mean_in:.2f} there, {row.mean_out:.2f} elsewhere)"
        told.append(("giveaway", detail))
    if (more := len(flagged) - _MANY // 2) > 0:
        told.append(("giveaway", f"and {more} more, all in the report's giveaways"))
    found: list[Any] = [(kind, None, None, None, detail) for kind, detail in told]
    duplicates, copies = _duplicates(every, similarity, ignore_numbers)
    found += copies
    for row in conflicts.itertuples():
        found.append(("two labels", row.split, row.row, row.text, f"here {row.label!r}"))
    summary = f"{len(every):,} rows: {_listed(balance.sum())}"
    for row in giveaways.head(1).itertuples():
        summary += f"\nStrongest surface feature: {row.feature}, balanced accuracy "
        summary += f"{row.score:.2f} (chance 0.50)"
    summary += _way(duplicates)
    return Report(
        *(len(every), summary, *_findings(found), duplicates),
        balance=balance,
        giveaways=giveaways,
        conflicts=conflicts,
        _source=source,
    )


# Labels up to which a line names them all.
_MANY = 20
# Words that say nothing about a text when they stand alone as a keyword.
_GENERIC = frozenset(
    """app application apps article best code company computer data developer developers development
    example feature guide help idea information issue language learning life new news online people
    problem product program programming project question software solution system team tech
    technology thing time tool tools tutorial update use user users way website work world year
    years""".split()  # noqa: SIM905
)


def check_keywords(
    data: Data,
    *,
    text: str = "text",
    keywords: str = "keywords",
    far: float = 60,
    similarity: float = 90,
) -> Report:
    """Look for what makes keywords worth less as training targets than they seem.

    Args:
        data: Whatever `tables.read_splits` takes; with several splits, leaks are found too.
        text: Column of the texts.
        keywords: Column of the keywords (`words.split_keywords` says what a cell may be).
        far: From 0 to 100: a keyword is far from its text where the most similar stretch of it is
            less alike (rapidfuzz's `partial_ratio`). A row is reported where three quarters of its
            keywords are: a few may well be abstractions.
        similarity: From 0 to 100, how alike near duplicates are (see `near_duplicates`).

    Returns:
        A report that prints. It finds keywords that are empty, repeated, generic or far from the
        text, and texts that repeat another.

    Raises:
        ValueError: A column is missing, or a text is no string; says where.

    Example:
        >>> report = check_keywords(pd.DataFrame({"text": ["Go, fast"], "keywords": ["Go, go"]}))
        >>> report.findings["check"].tolist()
        ['repeated keyword']
    """
    source, every = _rows(data, text, keywords)
    found: list[Any] = []
    likeness: list[float] = []
    for *where, cell in every.to_numpy():
        phrases = words.split_keywords(cell)
        if not phrases:
            found.append(("no keywords", *where, ""))
            continue
        written = words.split_keywords(cell, unique=False)
        if not all(written):
            found.append(("empty keyword", *where, repr(cell)))
        names = Counter(words.fold(phrase) for phrase in written if phrase)
        if repeated := sorted(name for name, n in names.items() if n > 1):
            found.append(("repeated keyword", *where, ", ".join(repeated)))
        if generic := [phrase for phrase in phrases if words.fold(phrase) in _GENERIC]:
            found.append(("generic keyword", *where, ", ".join(generic)))
        alike = _likeness(phrases, where[-1])
        likeness += alike.values()
        away = [phrase for phrase, value in alike.items() if value < far]
        if len(away) >= 0.75 * len(phrases):
            found.append(("far from the text", *where, ", ".join(away)))
    duplicates, copies = _duplicates(every, similarity)
    per_text = len(likeness) / max(len(every), 1)
    literal = float(np.mean(np.array(likeness) == 100)) if likeness else 0.0
    summary = f"{len(every):,} texts, {per_text:.1f} keywords a text, {literal:.0%} of them stand "
    summary += f"in the text{_way(duplicates)}"
    return Report(
        *(len(every), summary, *_findings(found + copies), duplicates),
        per_text=per_text,
        literal=literal,
        _source=source,
    )


def doubtful(
    data: Data,
    *,
    text: str = "text",
    label: str = "label",
    several: bool = False,
    keywords: str | None = None,
    folds: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank rows for a person to review, the most doubtful first.

    For labels, a cheap model (logistic regression on words and letters) is asked about rows that it
    wasn't trained on, and cleanlab scores the labels by its answers (confident learning, Northcutt
    et al. 2021, https://arxiv.org/abs/1911.00068). For keywords the score is the mean likeness of
    each to the most similar stretch of the text.

    Args:
        data: Whatever `tables.read_splits` takes.
        text: Column of the texts.
        label: Column of the labels.
        several: Whether a text may have several labels; it is then as doubtful as its most doubtful
            ones (Thyagarajan et al. 2022, https://arxiv.org/abs/2211.13895).
        keywords: Column of the keywords, to doubt these instead.
        folds: Parts in which the cheap model answers.
        seed: Seed of the parts.

    Returns:
        One row per text: `split`, `row`, `text`, `label` (or `keywords`), `suggested` (the
        likeliest label, of several those likelier than not; for keywords those that don't stand in
        the text) and `score` (0 to 1, low means doubtful).

    Raises:
        ValueError: A text is no string or has no label, or there is only one label or row of it.

    Example:
        >>> posts = pd.DataFrame({"text": ["Go is fast"] * 2, "keywords": ["Go", "Kubernetes"]})
        >>> doubtful(posts, keywords="keywords")["row"].tolist()
        [1, 0]
    """
    _, every = _rows(data, text, keywords or label, names=keywords is None, several=several)
    if keywords:
        pairs = zip(every["label"], every["text"], strict=True)
        alike = [_likeness(words.split_keywords(cell), source) for cell, source in pairs]
        absent = [[name for name, value in each.items() if value < 100] for each in alike]
        suggested: Any = list(map(words.join_keywords, absent))
        score: Any = [sum(each.values()) / 100 / max(len(each), 1) for each in alike]
    else:
        suggested, score = label_quality(every["text"], every["label"], folds, seed, several)
    ranked = every.assign(suggested=suggested, score=score)
    ranked = ranked.sort_values("score", kind="stable").reset_index(drop=True)
    return ranked.rename(columns={"label": "keywords" if keywords else "label"})


def _listed(counts: pd.Series) -> str:
    """Say how many texts each label has; of many labels, the commonest and the rarest."""
    told = [f"{name} {count:,}" for name, count in counts.items()]
    if len(told) <= _MANY:
        return ", ".join(told)
    ordered = counts.sort_values(ascending=False, kind="stable")
    ends = (
        ", ".join(f"{name} {n:,}" for name, n in part.items())
        for part in (ordered.head(_MANY // 2), ordered.tail(_MANY // 2))
    )
    return f"{len(told)} labels, the commonest {', the rarest '.join(ends)}"


def _way(duplicates: pd.DataFrame) -> str:
    """Say where not every pair was compared."""
    if duplicates.attrs["way"] == "every pair":
        return ""
    return "\nSo many texts are compared by MinHash: of a hundred near duplicates it may miss one"


def _duplicates(
    every: pd.DataFrame, similarity: float, ignore_numbers: bool = False
) -> tuple[pd.DataFrame, list[Any]]:
    pairs = near_duplicates(every["text"], similarity, ignore_numbers)
    rows = every[["split", "row", "text"]]
    copies, firsts = (rows.iloc[pairs[side]].reset_index(drop=True) for side in ("row", "of"))
    table = copies.join(firsts.add_prefix("of_")).assign(similarity=pairs["similarity"])
    table["kind"] = np.where(table["similarity"] == 100, "exact", "near")
    table["leaks"] = table["split"] != table["of_split"]
    table.attrs |= pairs.attrs
    found = []
    for copy in table.itertuples():
        kind = "leak" if copy.leaks else f"{copy.kind} duplicate"
        detail = f"of {copy.of_split} {copy.of_row}: {copy.of_text}"
        found.append((kind, copy.split, copy.row, copy.text, detail))
    return table, found


def _likeness(phrases: list[str], text: str) -> dict[str, float]:
    """Return for each keyword 100 where it stands in the text, else its likeness to a stretch."""
    source = words.normalise(text)
    return {
        phrase: 100.0
        if words.restore_case(phrase, text) is not None
        else min(99.0, fuzz.partial_ratio(words.normalise(phrase), source))
        for phrase in phrases
    }


def _findings(found: list[Any]) -> tuple[list[str], pd.DataFrame]:
    """Return a line per problem, and the table of findings."""
    columns = ["check", "split", "row", "text", "detail"]
    table = pd.DataFrame(found, columns=columns, dtype=object).astype({"row": "Int64"})
    problems = [f"{kind}: {detail}" for kind, split, *_, detail in found if split is None]
    for kind, rows in table.dropna(subset="row").groupby("check", sort=False):
        one = rows.iloc[0]
        told = f"{kind}: {len(rows)} rows, such as {one['split']} {one['row']}, "
        problems.append(f"{told}{one['text'][:60]!r} {one['detail'][:60]}".rstrip())
    return problems, table


def _rows(
    data: Any, text: str, label: str, names: bool = False, several: bool = False
) -> tuple[Any, pd.DataFrame]:
    """Return the data, read where it has to be, and one table of it: split, row, text, label."""
    splits = tables.read_splits(data)
    parts = data.values() if isinstance(data, Mapping) else [data]
    if any(isinstance(part, (str, Path)) for part in parts):
        data = splits if isinstance(data, Mapping) or list(splits) != ["train"] else splits["train"]
    if not isinstance(data, Mapping):
        splits = {"all": splits["train"]}
    frames = []
    for split, frame in splits.items():
        tables.require(frame.columns, [text, label], f"Split {split!r}")
        part = frame[[text, label]].set_axis(["text", "label"], axis=1)
        part.insert(0, "split", split)
        part.insert(1, "row", range(len(part)))
        frames.append(part)
    every = pd.concat(frames, ignore_index=True)
    named = label_sets if several else label_names
    every["label"] = named(every["label"]) if names else every["label"].astype(object)
    not_text = ~every["text"].map(lambda value: isinstance(value, str))
    for bad, what in ((not_text, "no text"), (every["label"].isna() & names, "without a label")):
        for split, row, *cells in every[bad].head(1).to_numpy():
            raise ValueError(
                f"Row {row} of {split!r} is {what}: {cells}. Drop such rows first: "
                "cookbook.data.usable does."
            )
    return data, every
