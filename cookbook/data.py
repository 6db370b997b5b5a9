"""Read labelled texts from a CSV, a DataFrame or the Hub, and split them without leaks."""

from __future__ import annotations

import ast
import gzip
import re
import urllib.error
import urllib.request
import warnings
import zlib
from collections.abc import Hashable, Mapping
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # datasets takes a second to import; reading a CSV doesn't need it
    from datasets import Dataset, DatasetDict

    Source: TypeAlias = str | Path | pd.DataFrame | Dataset | DatasetDict

SPLITS = ("train", "validation", "test")
_SPLIT_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}

# The 32,000 headlines of Chakraborty, Paranjape, Kakarla and Ganguly, "Stop Clickbait" (ASONAM
# 2016), MIT licence: one gzip file per label, one headline a line.
CHAKRABORTY_2016 = "https://raw.githubusercontent.com/bhargaviparanjape/clickbait/master/dataset"


def shipped(name: str) -> Path:
    """Return the path of a data file that comes with the package.

    Works from a clone, an editable install and a wheel alike.

    Args:
        name: File name, such as `clickbait_titles.csv`.

    Raises:
        FileNotFoundError: No such file; the message lists those there are.

    Example:
        >>> shipped("clickbait_titles.csv").name
        'clickbait_titles.csv'
    """
    package = Path(str(files("cookbook")))
    # A wheel carries the files inside the package; a clone has them beside it.
    folders = [package / "shipped", package.parent / "data"]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    known = sorted(p.name for folder in folders if folder.is_dir() for p in folder.glob("*.csv"))
    raise FileNotFoundError(f"No shipped file {name!r}; there are: {', '.join(known)}")


def read_csv(
    source: str | Path, text: str = "text", label: str | None = "label", **options: Any
) -> pd.DataFrame:
    """Read a CSV of texts, everything as it stands: '007' stays text, 'NA' isn't a missing value.

    Args:
        source: Path or URL; `.gz` and the like are unpacked.
        text: Column of the texts.
        label: Column of the labels; None where there is none.
        **options: Passed to `pandas.read_csv`, for instance `encoding="cp1252"` or `sep=";"`.

    Returns:
        One row per text, at least the columns `text` and `label`.

    Raises:
        ValueError: The file is empty, a column is missing, or it isn't UTF-8; says what to do.
        ConnectionError: The URL can't be reached.

    Example:
        >>> read_csv(shipped("clickbait_titles.csv")).shape
        (3581, 5)
    """
    columns = [text] if label is None else [text, label]
    options = {
        "encoding": "utf-8-sig",  # UTF-8, with or without the mark that Excel writes
        "dtype": dict.fromkeys(columns, str),
        "keep_default_na": False,
        "na_values": [""],
        **options,
    }
    try:
        frame = pd.read_csv(source, **options)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{source} is empty: expected a header with {columns}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source} isn't {error.encoding} (byte {error.start}: "
            f"{error.object[error.start : error.start + 1]!r}). Save it as UTF-8 or pass "
            'encoding="cp1252" (Windows, Western Europe) or the one it has.'
        ) from None
    except pd.errors.ParserError as error:
        raise ValueError(f"{source} isn't a regular CSV: {error}") from None
    except (urllib.error.URLError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(f"{source} can't be reached: {reason}") from None
    _require(frame.columns, columns, source)
    if frame.empty:
        raise ValueError(f"{source} has a header but no rows.")
    return frame


def read_chakraborty(address: str = CHAKRABORTY_2016, timeout: float = 20) -> pd.DataFrame:
    """Fetch the 32,000 real headlines of Chakraborty et al. (2016), to measure on.

    Args:
        address: Folder that holds `clickbait_data.gz` and `non_clickbait_data.gz`.
        timeout: Seconds to wait for the server.

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
        except (OSError, EOFError, HTTPException, zlib.error) as error:
            reason = getattr(error, "reason", error)
            raise ConnectionError(f"{address}/{name} can't be read: {reason}") from None
        texts = [line.strip() for line in lines if line.strip()]
        parts.append(pd.DataFrame({"text": texts, "label": label}))
    return pd.concat(parts, ignore_index=True)


def load_splits(
    source: Source,
    *,
    text: str = "text",
    label: str | None = "label",
    keywords: str | None = None,
    group: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    **options: Any,
) -> DatasetDict:
    """Read texts into train, validation and test; make the splits that are missing.

    Rows whose text isn't a string, or is empty, and rows without a label or without keywords, where
    such a column is named, are dropped with a warning that counts them; so is a split without any
    label, such as the test split of a benchmark (-1 in a Hub data set means none). New splits are
    stratified by label, where there is one. Rows that share a `group` stay in one split, so that
    two versions of one story can't stand on both sides. The order of the rows and the seed decide
    alone: the same file gives the same splits on every machine.

    Args:
        source: Path or URL of a CSV, a DataFrame, a `Dataset`, a `DatasetDict`, or the name of a
            data set on the Hub.
        text: Column of the texts.
        label: Column of the labels; None where there is none.
        keywords: Column of keywords (see `split_keywords` for what a cell may be), for a model that
            writes them; every cell becomes one string with the keywords separated by ', '.
        group: Column that ties rows together, or None; empty cells tie nothing.
        validation: Share of the rows for validation, where that split is missing.
        test: Share of the rows for test, where that split is missing.
        seed: Seed of the split.
        **options: Passed to `pandas.read_csv` for a CSV, to `datasets.load_dataset` for the Hub.

    Returns:
        `DatasetDict` with `train`, `validation`, `test`, and what other splits the source has. The
        columns are called `text`, `label` (as the Trainer wants it) and `keywords`, whatever they
        were called.

    Raises:
        ValueError: A column is missing, or nothing is left; says which column or why.
        ConnectionError: A Hub data set or URL can't be reached.

    Example:
        >>> splits = load_splits(shipped("clickbait_titles.csv"), group="pair")
        >>> {name: len(rows) for name, rows in splits.items()}
        {'train': 2865, 'validation': 358, 'test': 358}
    """
    from datasets import ClassLabel, Dataset, DatasetDict

    wanted = [column for column in (text, label, keywords) if column]
    loaded = _load(source, text, label, options)
    if isinstance(loaded, Mapping):
        named = {_SPLIT_ALIASES.get(str(name), str(name)): part for name, part in loaded.items()}
        if "train" not in named:
            if len(named) > 1:
                raise ValueError(f"There is no 'train' split among {list(named)}.")
            named = {"train": next(iter(named.values()))}
    else:
        named = {"train": loaded}

    classes = None  # names of a Hub data set's class ids, which a DataFrame would lose
    frames: dict[str, pd.DataFrame] = {}
    for name, part in named.items():
        where = f"split {name!r}"
        if isinstance(part, Dataset):
            _require(part.column_names, wanted, where)
            feature = part.features[label] if label else None
            part = cast(pd.DataFrame, part.to_pandas())
            if isinstance(feature, ClassLabel):
                classes = feature
                part[label] = part[label].where(part[label] >= 0)
        _require(part.columns, [*wanted, *([group] if group else [])], where)
        if label and name != "train" and part[label].isna().all():
            warnings.warn(f"Dropped {where}: it has no labels.", stacklevel=2)
            continue
        if keywords:
            joined = part[keywords].map(lambda cell: ", ".join(split_keywords(cell)) or None)
            part = part.assign(**{keywords: joined})
        part = usable(part, text, label, keywords)
        names = {text: "text", label: "label", keywords: "keywords"}
        part = _named(part, {old: new for old, new in names.items() if old})
        if label:  # whole numbers beside a missing one were read as 0.0 and 1.0
            part = part.assign(label=part["label"].convert_dtypes())
        frames[name] = part

    missing = {"validation": validation, "test": test}
    missing = {name: share for name, share in missing.items() if name not in frames}
    if missing:
        whole = frames["train"]
        assigned = assign_splits(whole, "label" if label else None, group, missing, seed)
        frames |= {name: whole[assigned == name] for name in ("train", *missing)}

    ordered = [*SPLITS, *(name for name in frames if name not in SPLITS)]
    splits = DatasetDict(
        {name: Dataset.from_pandas(frames[name], preserve_index=False) for name in ordered}
    )
    return splits.cast_column("label", classes) if classes else splits


def assign_splits(
    frame: pd.DataFrame,
    label: str | None,
    group: str | None,
    shares: Mapping[str, float],
    seed: int,
) -> pd.Series:
    """Say for each row which split it goes to; stratified by label, groups kept whole.

    scikit-learn's `train_test_split` knows no groups, and its `StratifiedGroupKFold` promises a
    rare label to no fold, so this draws groups within each stratum until the split has its share of
    the rows. A stratum is the set of labels that a group contains; sets too rare to share are drawn
    from together. A label with too few rows for every split stays in train.

    Args:
        frame: The rows.
        label: Column of the labels, or None.
        group: Column of the groups, or None.
        shares: Share of the rows per new split, such as `{"validation": 0.1, "test": 0.1}`; what
            remains is `train`.
        seed: Seed of the draw.

    Returns:
        A split name per row, aligned with `frame`.

    Raises:
        ValueError: The shares leave nothing to train on, or a split would be empty.
    """
    if any(share <= 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ValueError(f"Split shares must be positive and leave a rest to train on: {shares}")
    keys = pd.Series(np.arange(len(frame)).astype(str), index=frame.index).radd("row ")
    if group:
        alone = frame[group].isna() | (frame[group].astype(str).str.strip() == "")
        keys = keys.where(alone, frame[group].astype(str).radd("group "))
    labels = frame[label] if label else pd.Series("", index=frame.index)
    by_key = labels.astype(str).groupby(keys.to_numpy(), sort=False)
    sizes = by_key.size()
    labels_in = by_key.agg(lambda s: "|".join(sorted(set(s))))
    mixed = by_key.min() != by_key.max()
    too_rare = labels_in.groupby(labels_in).transform("size") <= len(shares)
    stratum = labels_in.mask(too_rare & mixed, "rare mixtures")
    rare = sorted(set(stratum[too_rare & ~mixed]))
    if rare:
        warnings.warn(
            f"Too few rows to split, so all went to train: {', '.join(map(repr, rare))}. "
            "Scores say nothing about them.",
            stacklevel=3,
        )
    split_of = pd.Series("train", index=sizes.index)
    rng = np.random.default_rng(seed)
    for name, members in stratum.groupby(stratum):
        if name in rare:
            continue
        rows = sizes[members.index].sum()
        left = {split: max(1, round(share * rows)) for split, share in shares.items()}
        for key in rng.permutation(members.index.to_numpy()):
            # A group goes where at least half of it still fits, else to train.
            split = next((s for s in left if left[s] >= sizes[key] / 2), None)
            if split is not None:
                split_of[key] = split
                left[split] -= sizes[key]
    assigned = keys.map(split_of)
    empty = [name for name in ("train", *shares) if not (assigned == name).any()]
    if empty:
        raise ValueError(
            f"Split {empty[0]!r} would be empty: {len(frame)} rows in {len(sizes)} groups are too "
            "few, or the groups too large. Bring more rows, or pass the splits yourself."
        )
    return assigned


def usable(
    frame: pd.DataFrame,
    text: str = "text",
    label: str | None = "label",
    keywords: str | None = None,
) -> pd.DataFrame:
    """Drop rows that can't be used, and warn with their number, reason and first positions.

    Args:
        frame: The rows.
        text: Column of the texts.
        label: Column of the labels; None where there is none.
        keywords: Column of the keywords; None where there is none.

    Returns:
        The rows whose text is a non-empty string and whose label and keywords are there.

    Raises:
        ValueError: No row is left.

    Example:
        >>> import pandas as pd
        >>> len(usable(pd.DataFrame({"text": ["A title"], "label": ["factual"]})))
        1
    """
    is_string = frame[text].map(lambda value: isinstance(value, str)).astype(bool)
    is_blank = is_string & (frame[text].where(is_string, "x").astype(str).str.strip() == "")
    reasons = {f"{text!r} is not a string": ~is_string, f"{text!r} is empty": is_blank}
    if label is not None:
        reasons["without a label"] = is_string & ~is_blank & frame[label].isna()
    if keywords is not None:
        none = ~frame[keywords].map(lambda cell: bool(split_keywords(cell))).astype(bool)
        reasons["without keywords"] = is_string & ~is_blank & none
    bad = np.logical_or.reduce(list(reasons.values()))
    if not bad.any():
        return frame
    details = "; ".join(
        f"{mask.sum()} {'' if reason.startswith('without') else 'where '}{reason}"
        for reason, mask in reasons.items()
        if mask.any()
    )
    where = ", ".join(map(str, np.flatnonzero(bad)[:5]))
    message = f"{bad.sum()} of {len(frame)} rows: {details} (first at rows {where})."
    if bad.all():
        raise ValueError(f"No usable row is left. Dropped {message}")
    warnings.warn(f"Dropped {message}", stacklevel=2)
    return frame[~bad]


def split_keywords(cell: object, unique: bool = True) -> list[str]:
    """Turn a cell of keywords into a list, whatever way they are written down.

    A string separated by commas, semicolons or line breaks; a list, also one that a CSV holds as
    text (`"['Go', 'Redis']"`); nothing. The first of repeated keywords stays (case apart).

    Args:
        cell: What a column of keywords holds in one row, or what a model wrote.
        unique: False keeps repeated and empty keywords too, to check what was written.

    Returns:
        The keywords in their order, without white space around them; empty where there are none.

    Example:
        >>> split_keywords("Go; Redis;go"), split_keywords("['Go', 'C++']"), split_keywords(None)
        (['Go', 'Redis'], ['Go', 'C++'], [])
    """
    if isinstance(cell, str):
        if cell.strip().startswith("[") and cell.strip().endswith("]"):
            try:  # an array written to a CSV has no commas: "['Go' 'Redis']"
                listed = re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", cell.strip())
                return split_keywords(ast.literal_eval(listed), unique)
            except (ValueError, SyntaxError):
                pass  # no list after all
        parts = re.split(r"[,;\n]", cell)
    elif isinstance(cell, (list, tuple, np.ndarray)):
        parts = [part.replace(",", " ") for part in cell if isinstance(part, str)]
    else:
        parts = []
    parts = [" ".join(part.split()) for part in parts]
    if not unique:
        return parts
    kept: dict[str, str] = {}
    for part in filter(None, parts):
        kept.setdefault(part.casefold(), part)
    return list(kept.values())


def show_samples(
    rows: pd.DataFrame | Dataset, n: int = 3, label: str = "label", seed: int = 0
) -> pd.DataFrame:
    """Draw a few rows of each label, to look at.

    Args:
        rows: DataFrame or one split.
        n: Rows per label; all where a label has fewer.
        label: Column of the labels; names are shown for class ids.
        seed: Seed of the draw.

    Returns:
        Up to `n` rows per label, sorted by label.

    Example:
        >>> import pandas as pd
        >>> len(show_samples(pd.DataFrame({"text": list("abcd"), "label": list("xxyy")}), n=1))
        2
    """
    if isinstance(rows, pd.DataFrame):
        frame = rows
    else:
        frame = cast(pd.DataFrame, rows.to_pandas())
        if hasattr(rows.features[label], "int2str"):
            frame[label] = rows.features[label].int2str(frame[label].tolist())
    shuffled = frame.sample(frac=1, random_state=seed)
    return (
        shuffled.groupby(label, sort=True)
        .head(n)
        .sort_values(label, kind="stable")
        .reset_index(drop=True)
    )


def _load(
    source: Source, text: str, label: str | None, options: dict[str, Any]
) -> pd.DataFrame | Dataset | DatasetDict:
    if not isinstance(source, (str, Path)):
        return source
    name = str(source)
    if Path(name).exists() or ".csv" in name or name.startswith(("http://", "https://")):
        return read_csv(source, text, label, **options)
    from datasets import load_dataset

    try:
        return load_dataset(name, **options)
    except Exception as error:  # the client raises a dozen kinds; each means: not to be had
        raise ConnectionError(
            f"{name!r} is no file here, and it couldn't be loaded from the Hugging Face Hub: is "
            "the name right, the internet there, and access granted (hf auth login)? "
            f"{type(error).__name__}: {error}"
        ) from error


def _named(frame: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Rename columns; one that already bears a new name gives way."""
    in_the_way = [new for old, new in names.items() if old != new and new in frame.columns]
    return frame.drop(columns=in_the_way).rename(columns=dict(names))


def _require(columns: Any, wanted: list[Hashable] | list[str], where: Any) -> None:
    absent = [column for column in wanted if column not in columns]
    if absent:
        raise ValueError(
            f"{where} has no column {', '.join(map(repr, absent))}; it has: "
            f"{', '.join(map(repr, columns))}. Name yours with text=, label=, keywords= or group=."
        )
