"""Rows to model inputs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cookbook.data import set_aside
from cookbook.formats import require
from cookbook.marks import to_tokens, token_places
from cookbook.words import spans, split_keywords

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase

# Models that count positions from the pad token's id on, so that as many fewer can be used.
_FROM_PAD = re.compile("camembert|data2vec-text|esm|longformer|luke|mpnet|xmod|(xlm-)?roberta.*")
MARKS: dict[str, Any] = {
    "id2label": {0: "O", 1: "B-KEY", 2: "I-KEY"},
    "label2id": {"O": 0, "B-KEY": 1, "I-KEY": 2},
    "ignore_mismatched_sizes": True,
}
"""What `from_pretrained` needs for a model that marks keywords, to be passed on with `**`."""

# What models call their inputs: the Trainer would hand over a column of such a name.
_INPUTS = re.compile(r"labels|(label|position|token_type|decoder_input)_ids|\w+_(embeds|mask)")


def usable_length(tokenizer: PreTrainedTokenizerBase, config: Any = None) -> int | None:
    """Return how many tokens a model takes at most; None where nothing states a limit.

    Args:
        tokenizer: The model's tokenizer.
        config: The model's configuration, `model.config`.

    Example:
        >>> from transformers import PreTrainedTokenizerFast, RobertaConfig
        >>> from tokenizers import Tokenizer, models
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
        >>> usable_length(tokenizer, RobertaConfig(max_position_embeddings=514))
        512
    """
    limits = [tokenizer.model_max_length]
    for name in ("max_position_embeddings", "max_encoder_position_embeddings", "n_positions"):
        if limit := getattr(config, name, None):
            unused = config.pad_token_id + 1 if _FROM_PAD.fullmatch(config.model_type) else 0
            limits.append(limit - unused)
    # No limit is 1e30 in a tokenizer, and -1 in the configuration of XLNet.
    return min((int(limit) for limit in limits if 0 < limit < 1e6), default=None)


def tokenize(
    splits: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    text: str = "text",
    max_length: int | None = None,
    config: Any = None,
) -> DatasetDict:
    """Add `input_ids`, `attention_mask` and `length` (tokens) to every split, without padding.

    Padding is the collator's work, batch by batch. Columns that the Trainer would take for inputs
    get another name, with a warning; texts that are cut are counted in one.

    A split that is streamed (`load_dataset(…, streaming=True)`, for more rows than memory holds) is
    done as it is read: the warning then is about the first thousand rows with such texts, and the
    Trainer needs `max_steps` and `train_sampling_strategy="random"`.

    Args:
        splits: Splits with a column of texts.
        tokenizer: The model's tokenizer.
        text: Column of the texts.
        max_length: Tokens at most; None for what `usable_length` says.
        config: `model.config`, for a tokenizer that states no limit or too high a one.

    Raises:
        ValueError: A text is no string; names split and row.
    """
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    limit = max_length or usable_length(tokenizer, config)
    if any(isinstance(part, IterableDataset) for part in splits.values()):
        told: list[Any] = []

        def add(batch: dict[str, Any], rows: list[int], split: str) -> dict[str, Any]:
            few = DatasetDict({f"{split}[{rows[0]}:]": Dataset.from_dict(batch)})
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                done = tokenize(few, tokenizer, text, limit).popitem()[1].to_dict()
            if said and not told:  # once, or a long stream says it a thousand times
                told.extend(said)
                warnings.warn(str(said[0].message), stacklevel=2)
            return done

        streams = {}
        for name, part in splits.items():
            first = list(part.take(1))
            if not first:
                raise ValueError(f"Split {name!r} has no rows: leave it out.")
            head = Dataset.from_list(first, features=part.features)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said where the rows are read
                kinds = tokenize(DatasetDict({name: head}), tokenizer, text, limit)[name].features
            about: Any = {"batched": True, "with_indices": True, "fn_kwargs": {"split": name}}
            gone = sorted(set(part.column_names or head.column_names) - set(kinds))
            streams[name] = part.map(add, **about, remove_columns=gone, features=kinds)
        return IterableDatasetDict(streams)
    made = {}
    for name, part in splits.items():  # no comprehension: warnings count the calls between
        made[name] = _inputs(part, name, tokenizer, text, limit)
    return _add(splits, made)


def tokenize_seq2seq(
    splits: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    target: str = "keywords",
    text: str = "text",
    max_length: int | None = None,
    max_target_length: int | None = None,
    decoder_start_token_id: int | None = None,
    config: Any = None,
) -> DatasetDict:
    """Add what a seq2seq model trains on: beside the inputs of `tokenize`, what it is to write.

    That is `labels` and `target_length`, without padding too: `DataCollatorForSeq2Seq` pads.

    Args:
        splits: Splits with a column of texts and one of targets.
        tokenizer: The model's tokenizer.
        target: Column of what the model is to write; one string per row.
        text: Column of the texts.
        max_length: Tokens of a text at most; None for what `usable_length` says.
        max_target_length: The same for the targets.
        decoder_start_token_id: That of `model.config`. Targets that begin with this token lose it:
            the decoder is given it anyway.
        config: `model.config`, for a tokenizer that states no limit or too high a one.

    Raises:
        ValueError: A text or target is no string or empty, or the tokenizer has no pad token.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(
            "The tokenizer has no pad token, which batches need. Set tokenizer.pad_token = "
            "tokenizer.eos_token, and model.config.pad_token_id = tokenizer.pad_token_id."
        )
    usable = usable_length(tokenizer, config)
    made = {}
    for name, part in splits.items():
        ids = _encode(part, name, tokenizer, target, max_target_length or usable, "text_target")
        if set(pc.list_element(ids, 0).to_pylist()) == {decoder_start_token_id}:
            ids = pc.list_slice(ids, 1)
        targets = {"labels": ids, "target_length": pc.list_value_length(ids)}
        made[name] = _inputs(part, name, tokenizer, text, max_length or usable) | targets
    return _add(splits, made)


def tokenize_marker(
    splits: DatasetDict,
    tokenizer: PreTrainedTokenizerBase,
    text: str = "text",
    keywords: str = "keywords",
    max_length: int | None = None,
    config: Any = None,
) -> DatasetDict:
    """Add what a model that marks keywords trains on: beside the inputs of `tokenize`, `labels`.

    A token is 0 (O, outside), 1 (B, a keyword begins) or 2 (I, it goes on), wherever a keyword
    stands (see `words.spans`); -100 for special tokens. `DataCollatorForTokenClassification` pads.
    Where each token stands is kept in `offset_mapping`. Keywords that stand nowhere in their text
    are lost, and counted. A split with a column `marks` (see `teach`) gets these as soft labels.

    Args:
        splits: Splits with a column of texts and one of keywords, as `split_keywords` reads them.
        tokenizer: The model's, a fast one.
        text: Column of the texts.
        keywords: Column of the keywords.
        max_length: Tokens at most; None for what `usable_length` says.
        config: `model.config`, for a tokenizer that states no limit or too high a one.

    Raises:
        ValueError: A text is no string, the tokenizer isn't fast, or no keyword stands in a text.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} doesn't say where tokens stand: it isn't fast."
        )
    limit, made = max_length or usable_length(tokenizer, config), {}
    for name, part in splits.items():
        inputs = _inputs(part, name, tokenizer, text, limit)
        texts, cells = part[text][:], list(map(split_keywords, part[keywords][:]))
        soft = part["marks"][:] if "marks" in part.column_names else None
        cut = {"truncation": limit is not None, "max_length": limit}
        told = tokenizer(texts, return_offsets_mapping=True, verbose=False, **cut)
        labels, ends, lost = [], [], 0
        for row, (each, wanted) in enumerate(zip(texts, cells, strict=True)):
            lost += sum(not spans(each, [keyword], inflected=True) for keyword in wanted)
            tokens = token_places(each, told["offset_mapping"][row])
            ends.append(tokens)
            if soft is not None:
                labels.append(to_tokens(each, tokens, soft[row]))
                continue
            marks: np.ndarray = np.zeros(len(tokens), np.int64)
            for start, stop in spans(each, wanted, inflected=True):
                inside = np.flatnonzero((tokens[:, 0] < stop) & (tokens[:, 1] > start))
                marks[inside], marks[inside[:1]] = 2, 1
            marks[tokens[:, 0] == tokens[:, 1]] = -100
            labels.append(marks)
        if lost == sum(map(len, cells)) and soft is None:
            raise ValueError(f"None of the keywords of split {name!r} stands in its text.")
        if lost:
            warnings.warn(
                f"{lost} of {sum(map(len, cells))} keywords of split {name!r} stand nowhere in "
                "their text: a model that marks can't learn them.",
                stacklevel=2,
            )
        for column, rows in (("labels", labels), ("offset_mapping", ends)):
            flat = np.concatenate(rows)
            values = pa.array(flat.ravel())
            if flat.ndim == 2:
                values = pa.FixedSizeListArray.from_arrays(values, flat.shape[1])
            inputs[column] = pa.ListArray.from_arrays(inputs["input_ids"].offsets, values)
        made[name] = inputs
    return _add(splits, made)


def _inputs(
    part: Dataset, split: str, tokenizer: PreTrainedTokenizerBase, text: str, limit: int | None
) -> dict[str, pa.Array]:
    ids = _encode(part, split, tokenizer, text, limit)
    ones = pa.ListArray.from_arrays(ids.offsets, np.ones(len(ids.values), dtype=np.int8))
    return {"input_ids": ids, "attention_mask": ones, "length": pc.list_value_length(ids)}


def _encode(
    part: Dataset, split: str, tokenizer: Any, column: str, limit: int | None, side: str = "text"
) -> pa.ListArray:
    """Return the token ids of a column, cut at the limit."""
    require(part.column_names, [column], f"Split {split!r}")
    texts, what = part[column][:], side.removeprefix("text_")
    for row, value in enumerate(texts):
        if not isinstance(value, str) or (what == "target" and not value.strip()):
            raise ValueError(f"Row {row} of split {split!r}: {value!r} in {column!r} is no {what}.")
    if not texts:
        raise ValueError(f"Split {split!r} has no rows: leave it out.")
    options: Any = {"return_attention_mask": False, "return_token_type_ids": False}
    # Cut afterwards instead of in the tokenizer, which doesn't tell what it has cut.
    tokens = tokenizer(**{side: texts}, verbose=False, **options)["input_ids"]
    lengths = np.array(list(map(len, tokens)), dtype=np.int32)
    if not lengths.all():  # a batch of such rows would end the training
        row = int(lengths.argmin())
        raise ValueError(f"Row {row} of split {split!r}: {texts[row]!r} has no token.")
    if limit is not None and (cut := np.flatnonzero(lengths > limit)).size:
        warnings.warn(
            f"{cut.size} of {len(texts)} {what}s in split {split!r} are longer than {limit} tokens "
            f"and were cut: {lengths[cut].sum() - cut.size * limit:,} of {lengths.sum():,} tokens "
            f"are lost, the longest {what} has {lengths.max():,} (row {lengths.argmax()}).",
            stacklevel=4,
        )
        options |= {side: [texts[i] for i in cut], "truncation": True, "max_length": limit}
        for i, ids in zip(cut, tokenizer(**options)["input_ids"], strict=True):
            tokens[i] = ids
    # An Arrow array straight from the tokens: several times faster than a map over rows.
    return pa.array(tokens, pa.list_(pa.int32()))


def _add(splits: DatasetDict, made: Mapping[str, dict[str, pa.Array]]) -> DatasetDict:
    """Put columns beside the others; of those in the way, ours go and the user's are renamed."""
    from datasets import Dataset, DatasetDict, concatenate_datasets

    new = set(next(iter(made.values())))
    there = set(chain.from_iterable(splits.column_names.values()))
    ours = new if {"input_ids", "length"} <= there else set()
    # The collator for seq2seq takes 'label' for the labels, where there is one.
    in_the_way = {"label", *new} if "labels" in new else new
    in_the_way = in_the_way.union(filter(_INPUTS.fullmatch, there))
    renamed = set_aside(there - ours, sorted(in_the_way - ours))
    result = DatasetDict()
    for name, part in splits.items():
        if again := ours & set(part.column_names):
            part = part.remove_columns(again)
        if names := {old: new for old, new in renamed.items() if old in part.column_names}:
            part = part.rename_columns(names)
        result[name] = concatenate_datasets([part, Dataset(pa.table(made[name]))], axis=1)
    return result
