"""Label names and ids, in one place, kept by the data set and by the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, DatasetDict


def encode_labels(
    splits: DatasetDict, label: str = "label", names: Sequence[str] | None = None
) -> DatasetDict:
    """Turn the label column of every split into class ids that remember their names.

    The ids follow the sorted names of the train split (numbers in numerical order), so they stay
    the same from run to run and from machine to machine.

    Args:
        splits: Splits with at least `train`.
        label: Column with names, numbers, or class ids that have names already.
        names: Names in the order of their ids, to keep those of an earlier model.

    Returns:
        The splits, with `label` as a `datasets.ClassLabel` (int64 ids).

    Raises:
        ValueError: Train has one label only; a row has none; or another split (or train, where
            `names` are given) has a label that isn't known.

    Example:
        >>> from datasets import Dataset
        >>> splits = DatasetDict(train=Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}))
        >>> encode_labels(splits)["train"]["label"][:]
        [0, 1]
    """
    feature = splits["train"].features.get(label)
    if isinstance(feature, ClassLabel):
        splits = DatasetDict(
            {
                name: part.remove_columns(label).add_column(
                    label, part.features[label].int2str(part[label][:])
                )
                for name, part in splits.items()
            }
        )
        names = names or feature.names
    train = splits["train"].with_format("arrow")[label].combine_chunks()
    present = [value for value in pc.unique(train).to_pylist() if value is not None]
    values = list(names) if names is not None else sorted(present, key=_sort_key)
    if names is not None and not set(map(str, present)) <= set(map(str, values)):
        unknown = sorted(set(map(str, present)) - set(map(str, values)))
        raise ValueError(f"Split 'train' has labels that are not among names={values}: {unknown}")
    if len(values) < 2:
        raise ValueError(
            f"Column {label!r} of split 'train' has one label only, {values}: a classifier needs "
            "at least two."
        )
    class_label = ClassLabel(names=[str(value) for value in values])

    encoded = DatasetDict()
    for split, part in splits.items():
        column = part.with_format("arrow")[label]
        # One look-up over the whole column, not one call per row.
        ids = pc.index_in(pc.cast(column, pa.string()), pa.array(class_label.names, pa.string()))
        if ids.null_count:
            unknown = pc.unique(column.filter(pc.is_null(ids)))
            rows = pc.indices_nonzero(pc.is_null(ids)).to_pylist()[:5]
            raise ValueError(
                f"Split {split!r} has {ids.null_count} rows with labels that 'train' doesn't have: "
                f"{unknown.to_pylist()[:5]} (first at rows {rows}). Correct or drop them, or add "
                "such rows to 'train'."
            )
        encoded[split] = part.remove_columns(label).add_column(
            label, ids.cast(pa.int64()).combine_chunks(), feature=class_label
        )
    return encoded


def label_maps(splits: DatasetDict, label: str = "label") -> dict[str, Any]:
    """Return what `from_pretrained` needs for the model to answer with names, never `LABEL_0`.

    Args:
        splits: Splits as `encode_labels` returns them.
        label: Column of the class ids.

    Returns:
        `{"id2label": {0: name, …}, "label2id": {name: 0, …}}`, to be passed on with `**`.

    Example:
        >>> from datasets import Dataset
        >>> splits = DatasetDict(train=Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}))
        >>> label_maps(encode_labels(splits))
        {'id2label': {0: 'x', 1: 'y'}, 'label2id': {'x': 0, 'y': 1}}
    """
    feature = splits["train"].features[label]
    if not isinstance(feature, ClassLabel):
        raise ValueError(f"Column {label!r} has no class ids yet: call encode_labels first.")
    id2label = dict(enumerate(feature.names))
    return {"id2label": id2label, "label2id": {name: i for i, name in id2label.items()}}


def _sort_key(value: Any) -> tuple[int, Any]:
    # '2' before '10', and numbers before words.
    try:
        return (0, float(value))
    except ValueError:
        return (1, value)
