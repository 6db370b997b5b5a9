"""Rows to model inputs."""

from __future__ import annotations

import warnings
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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

    return DatasetDict(
        {name: _tokenize(part, name, tokenizer, text, max_length) for name, part in splits.items()}
    )


def tokenize_seq2seq(
    splits: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    target: str = "keywords",
    text: str = "text",
    max_length: int | None = None,
    max_target_length: int | None = None,
    decoder_start_token_id: int | None = None,
) -> DatasetDict:
    """Add what a seq2seq model trains on: the tokens of the text, and those of what to write.

    No padding: `DataCollatorForSeq2Seq` pads each batch, the labels with -100, which the loss
    ignores.

    Args:
        splits: Splits with a column of texts and one of targets.
        tokenizer: A fast tokenizer.
        target: Column of what the model is to write, such as `keywords`, `topic` or `summary`; one
            string per row.
        text: Column of the texts.
        max_length: Tokens of a text at most; None for what the tokenizer allows. The model's own
            limit is `model.config.max_position_embeddings`, 1,024 for BART.
        max_target_length: The same for the targets.
        decoder_start_token_id: That of `model.config`. A target that begins with this token loses
            it: the decoder is given it anyway, and would have to write it a second time.

    Returns:
        The splits with `input_ids`, `attention_mask`, `labels` (a list of ints per row), `length`
        and `target_length` (tokens). Other columns stay.

    Raises:
        ValueError: A text or target is no string, or a target is empty; names split and row. Or
            the tokenizer has no pad token; says what to set.

    Warns:
        UserWarning: Texts or targets were cut, with their number and the tokens lost.
    """
    from datasets import DatasetDict

    if tokenizer.pad_token_id is None:
        raise ValueError(
            "The tokenizer has no pad token, which batches need. Set tokenizer.pad_token = "
            "tokenizer.eos_token, and model.config.pad_token_id = tokenizer.pad_token_id."
        )
    prepared = DatasetDict()
    for name, part in splits.items():
        for row, value in enumerate(part[target][:]):
            if isinstance(value, str) and not value.strip():
                raise ValueError(f"Row {row} of split {name!r}: {target!r} is empty.")
        ids, lengths = _encode(part, name, tokenizer, target, max_target_length, is_target=True)
        starts = pc.list_element(ids, 0).to_numpy() if len(ids) else np.array([])
        if len(starts) and (starts == decoder_start_token_id).all():
            ids, lengths = pc.list_slice(ids, 1), lengths - 1
        others = part.remove_columns({"labels", "target_length"} & set(part.column_names))
        prepared[name] = _add(others, {"labels": ids, "target_length": pa.array(lengths)})
    return tokenize(prepared, tokenizer, text, max_length)


def _tokenize(
    part: Dataset, split: str, tokenizer: PreTrainedTokenizerBase, text: str, limit: int | None
) -> Dataset:
    input_ids, lengths = _encode(part, split, tokenizer, text, limit)
    ones = np.ones(len(input_ids.values), dtype=np.int8)
    columns = {
        "input_ids": input_ids,
        "attention_mask": pa.ListArray.from_arrays(input_ids.offsets, ones),
        "length": pa.array(lengths),
    }
    return _add(part.remove_columns(columns.keys() & set(part.column_names)), columns)


def _encode(
    part: Dataset,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    column: str,
    limit: int | None,
    is_target: bool = False,
) -> tuple[pa.ListArray, np.ndarray]:
    """Return the token ids of a column, cut at the limit, and their number per row."""
    texts = part[column][:]
    for row, value in enumerate(texts):
        if not isinstance(value, str):
            raise ValueError(f"Row {row} of split {split!r}: {value!r} in {column!r} is no text.")

    def encode(some: list[str], **options: Any) -> list[list[int]]:
        given = {"text_target": some} if is_target else {"text": some}
        ids = tokenizer(
            **given, return_attention_mask=False, return_token_type_ids=False, **options
        )["input_ids"]
        return cast("list[list[int]]", ids)

    # Some tokenizers state no limit, which transformers expresses as 1e30.
    if limit is None and tokenizer.model_max_length < 1e6:
        limit = tokenizer.model_max_length
    # Cut afterwards instead of in the tokenizer, which doesn't tell what it has cut.
    input_ids = encode(texts, verbose=False)
    lengths = np.array([len(ids) for ids in input_ids], dtype=np.int32)
    if limit is not None and (cut := np.flatnonzero(lengths > limit)).size:
        what = "target" if is_target else "text"
        warnings.warn(
            f"{cut.size} of {len(texts)} {what}s in split {split!r} are longer than {limit} tokens "
            f"and were cut: {lengths[cut].sum() - cut.size * limit:,} of {lengths.sum():,} tokens "
            f"are lost, the longest {what} has {lengths.max():,} (row {lengths.argmax()}).",
            stacklevel=5,
        )
        shorter = encode([texts[i] for i in cut], truncation=True, max_length=limit)
        for i, ids in zip(cut, shorter, strict=True):
            input_ids[i] = ids
        lengths = np.array([len(ids) for ids in input_ids], dtype=np.int32)
    # Arrow arrays straight from the flat tokens: several times faster than a map over rows.
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.fromiter(chain.from_iterable(input_ids), dtype=np.int32, count=int(offsets[-1]))
    return pa.ListArray.from_arrays(offsets, flat), lengths


def _add(part: Dataset, columns: dict[str, Any]) -> Dataset:
    from datasets import Dataset, concatenate_datasets

    return concatenate_datasets([part, Dataset(pa.table(columns))], axis=1)
