"""Label names and ids, in one place, kept by the data set and by the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from cookbook.formats import require
from cookbook.label_cells import doubtful_labels, label_names, label_sets, one_hot

if TYPE_CHECKING:  # datasets takes a second to import
    from datasets import ClassLabel, Dataset, DatasetDict

# Names that figures ("f1_macro") and columns of answers have beside those of the labels; the
# second ones where a text may have several.
_RESERVED, _OF_SEVERAL = {"macro", "weighted", "text", "label", "score"}, {"micro", "samples"}


def encode_labels(
    splits: DatasetDict, label: str = "label", names: Sequence[str] | None = None
) -> DatasetDict:
    """Turn the label column of every split into class ids that remember their names.

    Labels are matched by name (see `label_cells`), never by id. The ids follow train's, or else its
    sorted names, numbers by their size. Lists of names become what a model of several labels a text
    trains on.

    Args:
        splits: Splits with at least `train`.
        label: Column with names, numbers, or class ids that have names already.
        names: Names in the order of their ids, to keep those of an earlier model. Streamed splits
            need them, unless theirs are class ids, since nobody has read their rows yet, and may
            have one label a text.

    Returns:
        The splits, with the column `label`, as the Trainer wants it, as a `datasets.ClassLabel`. Of
        lists it holds a 1 or 0 per label; the names are in `label_names`, lists of a `ClassLabel`.

    Raises:
        ValueError: Train has one label only, a row has none, a split has one that train or `names`
            lack, or one is called like a figure.

    Example:
        >>> from datasets import Dataset, DatasetDict
        >>> splits = DatasetDict(train=Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}))
        >>> encode_labels(splits)["train"]["label"][:]
        [0, 1]
    """
    from datasets import ClassLabel, DatasetDict, IterableDataset, List, Value

    if any(isinstance(part, IterableDataset) for part in splits.values()):
        return _encode_streams(splits, label, names)
    require(splits["train"].column_names, [label], "Split 'train'")
    if label == "label" and "label_names" in splits["train"].features:  # they are encoded already
        label = "label_names"
    feature = splits["train"].features[label]
    several = hasattr(feature, "feature")  # a list
    columns = {name: _names_in(part, label, name, several) for name, part in splits.items()}
    present = list(columns["train"].explode().dropna().unique())
    if len(present) < 2:
        raise ValueError(
            f"Column {label!r} of split 'train' has one label only, {present}: a classifier needs "
            "at least two."
        )
    known = getattr(feature.feature if several else feature, "names", None)
    names = names or known or _in_order(present)
    ids = ClassLabel(names=label_names(names).tolist())
    refuse_reserved(ids.names, several)
    for told in doubtful_labels(ids.names, several):
        warnings.warn(f"Labels {told}. Correct them, unless that is meant.", stacklevel=2)

    encoded = DatasetDict()
    for split, part in splits.items():
        each = columns[split].explode() if several else columns[split]
        unseen = each[~each.isin(set(present) & set(ids.names)) & ~(each.isna() & several)]
        if len(unseen):
            raise ValueError(
                f"Split {split!r} has {len(unseen)} rows with labels that 'train' or `names` lack: "
                f"{unseen.unique().tolist()[:5]} (first at rows {unseen.index[:5].tolist()}). "
                "Correct or drop them, or add such rows to 'train'."
            )
        others = part.remove_columns({label, "label", "label_names"} & set(part.column_names))
        if several:
            matrix = one_hot(columns[split], ids.names)
            kept = pa.array(columns[split].map(lambda own: [ids.str2int(name) for name in own]))
            others = others.add_column("label_names", kept, feature=List(ids))
            floats = List(Value("float32"), length=len(ids.names))
            encoded[split] = others.add_column("label", list(matrix), feature=floats)
            continue
        column = pa.array(columns[split].map({n: i for i, n in enumerate(ids.names)}), pa.int64())
        encoded[split] = others.add_column("label", column, feature=ids)
    return encoded


def _encode_streams(splits: Any, label: str, names: Sequence[str] | None) -> Any:
    from datasets import ClassLabel, Dataset, Features, IterableDatasetDict

    if whole := [name for name, part in splits.items() if isinstance(part, Dataset)]:
        raise ValueError(f"Stream every split, or none: {whole} are read whole.")
    parts = {name: part._resolve_features() for name, part in splits.items()}  # a CSV's has none
    for name, part in parts.items():
        require(part.column_names, [label], f"Split {name!r}")
    features = {name: part.features[label] for name, part in parts.items()}
    names = names or getattr(features["train"], "names", None)
    if names is None or len(names) < 2:
        raise ValueError("The rows of a stream aren't read yet: give the names of two labels.")
    ids = ClassLabel(names=label_names(names).tolist())
    refuse_reserved(ids.names)

    def encode(batch: dict[str, Any], rows: list[int], split: str) -> dict[str, Any]:
        given, known = batch.pop(label), getattr(features[split], "names", None)
        given = label_names(names_of(given, known) if known else given)
        unseen = given[~given.isin(ids.names)]
        if len(unseen):
            first = rows[unseen.index[0]]
            raise ValueError(f"Row {first} of split {split!r}: {unseen.iloc[0]!r} isn't in names.")
        return {**batch, "label": given.map(ids.str2int).tolist()}

    encoded = {}
    for split, part in parts.items():
        kept = {name: kind for name, kind in part.features.items() if name != label}
        about: Any = {"features": Features({**kept, "label": ids}), "fn_kwargs": {"split": split}}
        drop = [label] if label != "label" else None
        encoded[split] = part.map(
            encode, batched=True, with_indices=True, remove_columns=drop, **about
        )
    return IterableDatasetDict(encoded)


def refuse_reserved(names: Iterable[str], several: bool = False) -> None:
    """Refuse labels that are called like a figure or a column of answers.

    Raises:
        ValueError: Some are; names them.
    """
    if taken := sorted((_RESERVED | (_OF_SEVERAL if several else set())) & set(names)):
        raise ValueError(f"Labels can't be called {taken}: figures or columns have those names.")


def label_maps(splits: DatasetDict) -> dict[str, Any]:
    """Return what `from_pretrained` needs for the model to answer with names, never `LABEL_0`.

    To be passed on with `**`. A base model that was fine-tuned before, for other labels or several
    a text, gets a new head.

    Raises:
        ValueError: There are no class ids yet.

    Example:
        >>> from datasets import Dataset, DatasetDict
        >>> splits = DatasetDict(train=Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}))
        >>> label_maps(encode_labels(splits))["id2label"]
        {0: 'x', 1: 'y'}
    """
    known = splits["train"].features
    feature = known["label_names"].feature if "label_names" in known else known.get("label")
    if not hasattr(feature, "int2str"):
        raise ValueError("There are no class ids yet: call encode_labels first.")
    how_many = "multi" if "label_names" in known else "single"
    id2label = dict(enumerate(feature.names))
    return {
        "id2label": id2label,
        "label2id": {name: i for i, name in id2label.items()},
        "problem_type": f"{how_many}_label_classification",
        "ignore_mismatched_sizes": True,
    }


def names_of(
    ids: Iterable[int | None], names: ClassLabel | Mapping[Any, Any] | Sequence[Any]
) -> list[str | None]:
    """Return the names of class ids; None where there is no label (None or -1).

    Args:
        ids: Class ids.
        names: A `ClassLabel`, the `id2label` of a model, or names in the order of their ids.

    Raises:
        ValueError: An id has no name.

    Example:
        >>> names_of([1, 0, -1], {"0": 1, "1": 2})
        ['2', '1', None]
    """
    names = getattr(names, "names", names)
    known = names if isinstance(names, Mapping) else dict(enumerate(names))
    name_of = {int(i): str(name) for i, name in known.items()} | {-1: None}
    whole = pd.Series(ids, dtype="Int64").fillna(-1).tolist()
    if unknown := sorted(set(whole) - set(name_of)):
        raise ValueError(f"Class ids {unknown[:5]} have no name; there are: {known}")
    return [name_of[i] for i in whole]


def _names_in(part: Dataset, label: str, split: str, several: bool) -> pd.Series:
    values, feature = part[label][:], part.features[label]
    if several:
        ids = getattr(feature.feature, "names", None)
        return label_sets([names_of(own, ids) for own in values] if ids else values)
    values = names_of(values, feature) if hasattr(feature, "int2str") else values
    return label_names(values, f" of split {split!r}")


def _in_order(names: Iterable[str]) -> list[str]:
    """Sort '2' before '10', and numbers before words."""
    number = partial(pd.to_numeric, errors="coerce")
    return pd.Series(sorted(names)).sort_values(key=number, kind="stable").tolist()
