"""Rows to model inputs."""

from __future__ import annotations

import warnings
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase


def tokenize(
    splits: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    text: str = "text",
    max_length: int | None = None,
) -> DatasetDict:
    """Add `input_ids`, `attention_mask` and `length` to every split, without padding.

    Padding is the collator's work, batch by batch (`DataCollatorWithPadding`): padded here, every
    title would cost as much as the longest.

    Args:
        splits: Splits with a column of texts.
        tokenizer: A fast tokenizer.
        text: Column of the texts.
        max_length: Tokens at most; None for what the model takes.

    Returns:
        The splits with `input_ids` and `attention_mask` (a list of ints per row) and `length` (the
        number of tokens, by which the Trainer groups its batches). Other columns stay.

    Raises:
        ValueError: A text is no string; names split and row.

    Warns:
        UserWarning: Texts were cut, with their number and the tokens lost.
    """
    from datasets import DatasetDict

    # Some tokenizers state no limit, which transformers expresses as 1e30.
    limit = max_length or (tokenizer.model_max_length if tokenizer.model_max_length < 1e6 else None)
    return DatasetDict(
        {name: _tokenize(part, name, tokenizer, text, limit) for name, part in splits.items()}
    )


def _tokenize(
    part: Dataset, split: str, tokenizer: PreTrainedTokenizerBase, text: str, limit: int | None
) -> Dataset:
    from datasets import Dataset, concatenate_datasets

    texts = part[text][:]
    for row, value in enumerate(texts):
        if not isinstance(value, str):
            raise ValueError(f"Row {row} of split {split!r}: {value!r} in {text!r} is no text.")
    # Cut afterwards instead of in the tokenizer, which doesn't tell what it has cut.
    input_ids = tokenizer(
        texts,
        add_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    lengths = np.array([len(ids) for ids in input_ids], dtype=np.int32)
    if limit is not None and (cut := np.flatnonzero(lengths > limit)).size:
        warnings.warn(
            f"{cut.size} of {len(texts)} texts in split {split!r} are longer than {limit} tokens "
            f"and were cut: {lengths[cut].sum() - cut.size * limit:,} of {lengths.sum():,} tokens "
            f"are lost, the longest text has {lengths.max():,} (row {lengths.argmax()}).",
            stacklevel=4,
        )
        shorter = tokenizer(
            [texts[i] for i in cut],
            truncation=True,
            max_length=limit,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        for i, ids in zip(cut, shorter, strict=True):
            input_ids[i] = ids
        lengths = np.array([len(ids) for ids in input_ids], dtype=np.int32)
    # Arrow arrays straight from the flat tokens: several times faster than a map over rows.
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.fromiter(chain.from_iterable(input_ids), dtype=np.int32, count=int(offsets[-1]))
    ones = np.ones(len(flat), dtype=np.int8)
    columns = {
        "input_ids": pa.ListArray.from_arrays(offsets, flat),
        "attention_mask": pa.ListArray.from_arrays(offsets, ones),
        "length": pa.array(lengths),
    }
    others = part.remove_columns(columns.keys() & set(part.column_names))
    return concatenate_datasets([others, Dataset(pa.table(columns))], axis=1)
