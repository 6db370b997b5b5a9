"""Labelled texts to train, validation and test, without leaks; the files that come along."""

from __future__ import annotations

import gzip
import shutil
import urllib.request
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cookbook import tables
from cookbook.label_cells import doubtful_labels as doubtful_labels
from cookbook.label_cells import label_columns, rarest
from cookbook.label_cells import label_names as label_names
from cookbook.label_cells import label_sets as label_sets
from cookbook.words import join_keywords
from cookbook.words import split_keywords as split_keywords  # for those who look for it here

if TYPE_CHECKING:  # datasets takes a second to import; reading a CSV doesn't need it
    from datasets import Dataset, DatasetDict

SPLITS = ("train", "validation", "test")

CHAKRABORTY_2016 = "https://raw.githubusercontent.com/bhargaviparanjape/clickbait/master/dataset"
"""Where `read_chakraborty` finds 32,000 real headlines: Chakraborty, Paranjape, Kakarla and
Ganguly, "Stop Clickbait" (ASONAM 2016), MIT licence; a gzip file per label, a headline a line."""
POSTS_2023 = (
    "https://raw.githubusercontent.com/ilsilfverskiold/gpt-create-dataset/"
    "b3dbbd6c263c412ec8007ecccf1a2185939e1e39/processedData_1700838002264.csv"
)
"""Where `read_posts` finds 2,000 tech posts of autumn 2023 with keywords, topic and summary by
GPT-4: the data of the article on tech keywords, by Ida Silfverskiöld, ISC licence."""


def shipped(name: str) -> Path:
    """Return the path of a data file that comes with the package.

    Raises:
        FileNotFoundError: No such file; the message lists those there are.

    Example:
        >>> shipped("clickbait_titles.csv").name
        'clickbait_titles.csv'
    """
    patterns = ("data/*", "deploy/*", "notebooks/*/*.ipynb")
    files_there = [path for pattern in patterns for path in _root().glob(pattern)]
    there = {path.name: path for path in sorted(files_there) if path.is_file()}
    if name not in there:
        raise FileNotFoundError(f"No shipped file {name!r}; there are: {', '.join(there)}")
    return there[name]


def _root() -> Path:
    """Return the folder of all that is shipped."""
    inside = Path(str(files("cookbook"))) / "shipped"
    # A wheel carries the folders inside the package; a clone has them beside it.
    return inside if inside.is_dir() else inside.parent.parent


def copy_notebooks(folder: str | Path) -> list[Path]:
    """Copy the notebooks that come with the package, to be opened and changed.

    Args:
        folder: Made where it is missing; what a notebook shows or links to comes along.

    Returns:
        The notebooks' new places.

    Raises:
        FileExistsError: A file there differs, perhaps by your hand; then nothing is copied.

    Example:
        >>> copy_notebooks("my_notebooks")  # doctest: +SKIP
    """
    root = _root() / "notebooks"
    patterns = ("*/*.ipynb", "pictures/*.png", "README.md")
    sources = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    copies = {path: Path(folder) / path.relative_to(root) for path in sources}
    for source, target in copies.items():
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise FileExistsError(f"{target} is there already, and differs. Name another folder.")
    for source, target in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return [target for target in copies.values() if target.suffix == ".ipynb"]


def read_chakraborty(address: str = CHAKRABORTY_2016, timeout: float = 20) -> pd.DataFrame:
    """Fetch the 32,000 real headlines of Chakraborty et al. (2016), to measure on.

    Returns:
        Columns `text` and `label` (`clickbait` or `factual`).

    Raises:
        ConnectionError: No internet, the server doesn't answer, or the download broke off.
    """
    parts = []
    for name, label in (("clickbait_data.gz", "clickbait"), ("non_clickbait_data.gz", "factual")):
        try:
            with urllib.request.urlopen(f"{address}/{name}", timeout=timeout) as answer:
                lines = gzip.decompress(answer.read()).decode("utf-8").splitlines()
        except Exception as error:  # a download breaks off in a dozen ways
            raise ConnectionError(f"{address}/{name} can't be read: {error}") from None
        texts = [line.strip() for line in lines if line.strip()]
        parts.append(pd.DataFrame({"text": texts, "label": label}))
    return pd.concat(parts, ignore_index=True)


def read_posts(address: str = POSTS_2023) -> pd.DataFrame:
    """Fetch 2,000 real tech posts with GPT-4's keywords, to measure on.

    One in five of these keywords doesn't stand in its text.

    Returns:
        Columns `text`, `keywords`, `topic`, `summary` and `timestamp` ('' where there is none).

    Raises:
        ConnectionError: The address can't be reached.
    """
    columns = ["text", "keywords", "topic", "summary", "timestamp"]
    return tables.read(address, columns)[columns]


def load_splits(
    source: tables.Source,
    *,
    text: str = "text",
    label: str | Sequence[str] | None = "label",
    several: bool = False,
    keywords: str | None = None,
    group: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    **options: Any,
) -> DatasetDict:
    """Read texts into train, validation and test; make the splits that are missing.

    Rows that can't be used are dropped and counted (see `usable`), so are splits without labels or
    keywords. New splits are stratified by label. The rows' order and the seed decide alone: the
    same file gives the same splits everywhere.

    Args:
        source: Any table, several by name, or a data set's name on the Hub; see `tables`.
        text: Column of the texts.
        label: Column of the labels (see `label_cells`), one column per label with 1 or 0 in it, or
            None.
        several: Whether a text may have several labels; true of one column per label.
        keywords: Column of keywords, for a model that writes them, or None.
        group: Column whose equal cells keep rows in one split, or None.
        validation: Share of the rows for validation, where that split is missing.
        test: The same for test.
        seed: Seed of the split.
        **options: Passed to `tables.read_splits`, for instance `encoding="cp1252"`.

    Returns:
        The splits, with columns called `text`, `label` (names, or lists of them; class ids where
        train had some) and `keywords`.

    Raises:
        ValueError: A column is missing, a text has several labels, or nothing is left.
        ConnectionError: A data set of the Hub or an address can't be reached.

    Example:
        >>> splits = load_splits(shipped("clickbait_titles.csv"), group="pair")
        >>> {name: len(rows) for name, rows in splits.items()}
        {'train': 2865, 'validation': 358, 'test': 358}
    """
    from datasets import ClassLabel, Dataset, DatasetDict

    parts = tables.read_splits(source, **options)
    usual = [name for name in ("validation", "val", "valid", "dev") if name in parts][:1]
    parts = {"validation" if [name] == usual else name: part for name, part in parts.items()}
    if len(parts) == 1:
        parts = {"train": next(iter(parts.values()))}
    if "train" not in parts:
        raise ValueError(f"There is no 'train' split among {list(parts)}.")
    if label is not None and not isinstance(label, str):
        label, several = _gathered(parts, label), True
    wanted = filter(None, (text, label, keywords, group))
    tables.require(parts["train"].columns, wanted, "Split 'train'")
    named = {text: "text", label: "label", keywords: "keywords"}
    renamed = {old: new for old, new in named.items() if old}
    columns = chain.from_iterable(part.columns for part in parts.values())
    renamed |= set_aside(columns, [new for new in renamed.values() if new not in renamed])
    # Of class ids only the order is kept; another split may have another one.
    ids = getattr(parts["train"].get(label), "cat", None)
    frames = {}
    for name, part in parts.items():
        targets = filter(None, (label, keywords))
        lacking = [each for each in targets if each not in part or _is_blank(part[each]).all()]
        if lacking and name != "train":
            warnings.warn(f"Dropped split {name!r}: it has nothing in {lacking}.", stacklevel=2)
        else:
            part = usable(part, text, label, keywords, f" of split {name!r}", several)
            frames[name] = part.rename(columns=renamed)

    shares = {"validation": validation, "test": test}
    shares = {name: share for name, share in shares.items() if name not in frames}
    if shares:
        whole, ties = frames["train"], renamed.get(group, group) if group else None
        assigned = assign_splits(whole, "label" if label else None, ties, shares, seed)
        frames |= {name: whole[assigned == name] for name in ("train", *shares)}
    try:
        order = dict.fromkeys([*SPLITS, *frames])
        made = {name: Dataset.from_pandas(frames[name], preserve_index=False) for name in order}
        splits = DatasetDict(made)
    except pa.ArrowException as error:
        raise ValueError(f"A column holds values of several types: {error}") from None
    if ids is not None and not several:
        found = chain(label_names(ids.categories), *(part["label"] for part in frames.values()))
        splits = splits.cast_column("label", ClassLabel(names=list(dict.fromkeys(found))))
    return splits


def _gathered(parts: dict[str, pd.DataFrame], label: Sequence[str]) -> str:
    """Put one column of lists in place of a column per label; return its name."""
    name = tables.free_name("labels", chain.from_iterable(parts.values()))
    for split, part in parts.items():
        tables.require(part.columns, label, f"Split {split!r}")
        sets = label_columns(part, label, f" of split {split!r}")
        parts[split] = part.drop(columns=list(label)).assign(**{name: sets})
    return name


def assign_splits(
    frame: pd.DataFrame,
    label: str | None,
    group: str | None,
    shares: Mapping[str, float],
    seed: int,
) -> pd.Series:
    """Say for each row which split it goes to; stratified by label, groups kept whole.

    Each split gets at least one row of every label, unless small labels would then starve train.
    Labels that a split lacks are named in a warning; train has them all.

    Args:
        frame: The rows.
        label: Column of the labels, or None.
        group: Column of the groups, or None; blank cells tie nothing.
        shares: Share per new split, such as `{"validation": 0.1, "test": 0.1}`; the rest is train.
        seed: Seed of the draw.

    Raises:
        ValueError: The shares leave nothing to train on, or a split would be empty.
    """
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        raise ValueError(f"Split shares must be positive and leave a rest to train on: {shares}")
    keys = pd.Series(range(len(frame)), frame.index).astype(str)
    if group:
        keys = keys.where(_is_blank(frame[group]), "group " + frame[group].astype(str))
    own = frame[label] if label else pd.Series("", frame.index)
    several = own.map(lambda cell: isinstance(cell, list)).any()
    labels = rarest(own) if several else own.astype(str)
    each = own.reset_index(drop=True).explode().dropna().astype(str)
    by_key = labels.groupby(keys.to_numpy(), sort=False)
    sizes, mixed = by_key.size(), by_key.min() != by_key.max()
    stratum = by_key.agg(lambda own: "|".join(sorted(set(own))))
    too_rare = stratum.groupby(stratum).transform("size") <= len(shares)
    shared = stratum.mask(too_rare & mixed, "rare mixtures")[~too_rare | mixed]

    split_of = pd.Series("train", sizes.index)
    rng = np.random.default_rng(seed)
    rows = sizes[shared.index].groupby(shared).sum()
    quotas: dict[str, pd.Series] = {}
    for split, share in shares.items():
        shuffled = rows.sample(frac=1, random_state=seed + len(quotas))
        exact = share * shuffled.sort_values(ascending=False, kind="stable")
        quota = exact.round().clip(lower=1)
        # The smallest go without where one row of each would take too many from train.
        enough = quota.cumsum() > 1.2 * share * len(frame) + 2
        quotas[split] = quota.mask(enough & (exact < 1), 0)
    for name, members in shared.groupby(shared):
        left = {split: quota[name] for split, quota in quotas.items()} | {"train": np.inf}
        for key in rng.permutation(members.index.to_numpy()):
            # A group goes where at least half of it still fits, else to train.
            split_of[key] = next(split for split in left if left[split] >= sizes[key] / 2)
            left[split_of[key]] -= sizes[key]
    assigned = keys.map(split_of)
    for split in ("train", *shares):
        there = (assigned == split).to_numpy()[each.index]
        lacking = sorted(set(each) - set(each[there]))
        if not (assigned == split).any():
            raise ValueError(
                f"Split {split!r} would be empty: {len(frame)} rows in {len(sizes)} groups are too "
                "few, the groups too large, or the labels too rare. Bring more rows, or splits."
            )
        if lacking:
            warnings.warn(
                f"Too few rows to split: {split!r} has none of {len(lacking)} labels "
                f"({', '.join(lacking[:5])}). Scores there say nothing about them.",
                stacklevel=3,
            )
    return assigned


def usable(
    frame: pd.DataFrame,
    text: str = "text",
    label: str | None = "label",
    keywords: str | None = None,
    where: str = "",
    several: bool = False,
) -> pd.DataFrame:
    """Drop rows that can't be used, and warn with their number, reason and first positions.

    Args:
        frame: The rows.
        text: Column of the texts.
        label: Column of the labels, or None.
        keywords: Column of the keywords, or None.
        where: Said of the rows in the warning, such as " of split 'test'".
        several: Whether a text may have several labels.

    Returns:
        The others: labels as `label_names` or `label_sets`, keywords as one string, 'a, b'.

    Raises:
        ValueError: A column is missing, or no row is left.

    Example:
        >>> len(usable(pd.DataFrame({"text": ["A title", ""], "label": ["factual", "factual"]})))
        1
    """
    tables.require(frame.columns, filter(None, (text, label, keywords)), f"The table{where}")
    is_string = frame[text].map(lambda value: isinstance(value, str)).astype(bool)
    bad = {f"where {text!r} is not a string": ~is_string}
    bad[f"where {text!r} is empty"] = _is_blank(frame[text])
    if label:
        named = label_sets(frame[label]) if several else label_names(frame[label], where)
        frame = frame.assign(**{label: named})
        bad["without a label"] = named.isna()
    if keywords:
        cells = [join_keywords(cell) or None for cell in frame[keywords]]
        frame = frame.assign(**{keywords: pd.Series(cells, frame.index, dtype=object)})
        bad["without keywords"] = frame[keywords].isna()
    reasons = pd.Series(np.select(list(bad.values()), list(bad), ""))
    dropped = reasons[reasons != ""]
    if dropped.empty:
        return frame
    counts = "; ".join(f"{n} {why}" for why, n in dropped.value_counts(sort=False).items())
    first = ", ".join(map(str, dropped.index[:5]))
    message = f"{len(dropped)} of {len(frame)} rows{where}: {counts} (first at rows {first})."
    if len(dropped) == len(frame):
        raise ValueError(f"No usable row is left. Dropped {message}")
    warnings.warn(f"Dropped {message}", stacklevel=3 if where else 2)
    return frame[(reasons == "").to_numpy()]


def set_aside(columns: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Name anew the user's columns that are in the way of ours, with a warning.

    Example:
        >>> set_aside(["title", "text"], ["label"])
        {}
    """
    columns = set(columns)
    renamed = {n: tables.free_name(f"{n}_original", columns) for n in taken if n in columns}
    if renamed:
        warnings.warn(f"Columns in the way of ours have new names: {renamed}", stacklevel=3)
    return renamed


def show_samples(
    rows: pd.DataFrame | Dataset, n: int = 3, label: str = "label", seed: int = 0
) -> pd.DataFrame:
    """Draw a few rows of each label, to look at.

    Args:
        rows: DataFrame or one split.
        n: Rows per label; all where a label has fewer.
        label: Column of the labels; names are shown for class ids.
        seed: Seed of the draw.

    Example:
        >>> len(show_samples(pd.DataFrame({"text": list("abcd"), "label": list("xxyy")}), n=1))
        2
    """
    frame = tables.read(rows, [label])
    frame = frame.assign(**{label: label_names(frame[label])})
    drawn = frame.sample(frac=1, random_state=seed).groupby(label).head(n)
    return drawn.sort_values(label, kind="stable").reset_index(drop=True)


def _is_blank(cells: pd.Series) -> pd.Series:
    return cells.isna() | cells.astype(str).str.strip().isin(["", "[]"])
