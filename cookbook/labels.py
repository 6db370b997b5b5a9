"""Label names and ids, in one place, kept by the data set and by the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict

# Names that figures ("f1_macro") and columns of answers have beside those of the labels.
_RESERVED = {"macro", "weighted", "text", "label", "score"}


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
        The splits, with the column `label` (the name that the Trainer looks for) as a
        `datasets.ClassLabel` (int64 ids).

    Raises:
        ValueError: Train has one label only; a row has none; another split has a label that train
            never had; `names` lack a label of train; or a label is called like a figure or column.

    Example:
        >>> from datasets import Dataset
        >>> splits = DatasetDict(train=Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}))
        >>> encode_labels(splits)["train"]["label"][:]
        [0, 1]
    """
    feature = splits["train"].features[label]
    if isinstance(feature, ClassLabel):
        names = names or feature.names
        splits = DatasetDict({name: _decoded(part, label) for name, part in splits.items()})
    # Arrow writes labels out the same way here and below, be they numbers, booleans or text.
    train = pc.cast(splits["train"].with_format("arrow")[label].combine_chunks(), pa.string())
    present = [value for value in pc.unique(train).to_pylist() if value is not None]
    if len(present) < 2:
        raise ValueError(
            f"Column {label!r} of split 'train' has one label only, {present}: a classifier needs "
            "at least two."
        )
    class_label = ClassLabel(names=list(map(str, names or sorted(present, key=_sort_key))))
    if unknown := sorted(set(present) - set(class_label.names)):
        raise ValueError(
            f"Split 'train' has labels that are not among names={class_label.names}: {unknown}"
        )
    if taken := sorted(_RESERVED & set(class_label.names)):
        raise ValueError(f"Labels can't be called {taken}: figures or columns have those names.")

    encoded = DatasetDict()
    for split, part in splits.items():
        column = pc.cast(part.with_format("arrow")[label], pa.string())
        unseen = pc.invert(pc.is_in(column, pa.array(present, pa.string())))
        if pc.any(unseen).as_py():
            unknown = pc.unique(column.filter(unseen)).to_pylist()
            rows = pc.indices_nonzero(unseen).to_pylist()
            raise ValueError(
                f"Split {split!r} has {len(rows)} rows with labels that 'train' doesn't have: "
                f"{unknown[:5]} (first at rows {rows[:5]}). Correct or drop them, or add such rows "
                "to 'train'."
            )
        # One look-up over the whole column, not one call per row.
        ids = pc.index_in(column, pa.array(class_label.names, pa.string()))
        others = part.remove_columns({label, "label"} & set(part.column_names))
        encoded[split] = others.add_column(
            "label", ids.cast(pa.int64()).combine_chunks(), feature=class_label
        )
    return encoded


def label_maps(splits: DatasetDict) -> dict[str, Any]:
    """Return what `from_pretrained` needs for the model to answer with names, never `LABEL_0`.

    Args:
        splits: Splits as `encode_labels` returns them.

    Returns:
        `{"id2label": {0: name, …}, "label2id": {name: 0, …}}`, to be passed on with `**`.

    Example:
        >>> from datasets import Dataset
        >>> splits = DatasetDict(train=Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}))
        >>> label_maps(encode_labels(splits))
        {'id2label': {0: 'x', 1: 'y'}, 'label2id': {'x': 0, 'y': 1}}
    """
    feature = splits["train"].features.get("label")
    if not isinstance(feature, ClassLabel):
        raise ValueError("There are no class ids yet: call encode_labels first.")
    id2label = dict(enumerate(feature.names))
    return {"id2label": id2label, "label2id": {name: i for i, name in id2label.items()}}


def _decoded(part: Dataset, label: str) -> Dataset:
    """Replace class ids by their names; -1, which stands for no label, by None."""
    names = part.features[label].names
    ids = part.with_format("arrow")[label].combine_chunks()
    ids = pc.if_else(pc.less(ids, 0), None, ids)
    return part.remove_columns(label).add_column(label, pa.array(names, pa.string()).take(ids))


def _sort_key(value: str) -> tuple[bool, float, str]:
    # '2' before '10', and numbers before words.
    try:
        number = float(value)
    except ValueError:
        number = math.inf
    return (not math.isfinite(number), number if math.isfinite(number) else 0, value)
