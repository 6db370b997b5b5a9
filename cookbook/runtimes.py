"""What a loaded model runs on: torch, ONNX or CTranslate2, all asked in the same way."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cookbook import extra

# Neither torch nor transformers is imported up here: an exported model needs neither.
if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of settings; {} where it isn't there."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def read_network(folder: Path, kind: str, dtype: str) -> PreTrainedModel:
    """Load a model of transformers whose weights are all there, onto the fastest device."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    from cookbook.training import mixed_precision

    if dtype == "auto":
        dtype = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}[mixed_precision()]
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"{dtype=} is none; 'float32', 'bfloat16', 'float16' and 'auto' are.")
    auto = AutoModelForSeq2SeqLM if kind == "writer" else AutoModelForSequenceClassification
    network, told = auto.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    if missing := sorted(told["missing_keys"]):
        raise ValueError(
            f"The weights in {folder} lack {', '.join(missing[:5])}, which would be drawn at "
            "random: a head that was never trained, or an incomplete copy."
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.to("mps" if torch.backends.mps.is_available() else device)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside a model, or say that none does."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # Without any of them, transformers makes up an empty one.
        files = list(tokenizer.vocab_files_names.values())
        if files and not any((folder / name).is_file() for name in files):
            raise FileNotFoundError(f"there is none of {', '.join(files)}")
    except Exception as error:  # of many kinds
        raise ValueError(
            f"The tokenizer of {folder} can't be loaded: {error}. Save it there "
            "(tokenizer.save_pretrained), or pass tokenizer=."
        ) from error
    return tokenizer


def _padded(rows: list[np.ndarray], pad: int, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    batch: np.ndarray = np.zeros((3, len(rows), max(map(len, rows))), np.int64)
    batch[0] = pad
    last = config.get("summary_type") == "last"  # XLNet reads a text's last place
    for number, row in enumerate(rows):
        here = slice(-len(row), None) if last else slice(len(row))
        batch[:2, number, here] = row.T
        batch[2, number, here] = 1
    ids, types, mask = batch
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


class Torch:
    """Runs a model of transformers."""

    def __init__(self, writes: bool, network: Any, tokenizer: Any, max_length: int | None) -> None:
        from cookbook.features import usable_length

        self.writes, self.network, self.tokenizer = writes, network, tokenizer
        limits = (max_length, usable_length(tokenizer, network.config))
        self.limit = min(filter(None, limits), default=None)
        takes = inspect.signature(network.forward).parameters
        self.columns = [name for name in tokenizer("a") if name in takes]
        self.pad = tokenizer.pad_token_id
        if self.pad is None:
            raise ValueError("The tokenizer has no pad token: set tokenizer.pad_token, and save.")
        self.size = 32 if writes else 16 if network.device.type == "cpu" else 128

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Read texts: a row of ids and types a token, not padded."""
        found = self.tokenizer(
            texts, truncation=self.limit is not None, max_length=self.limit, verbose=False
        )
        ids = found["input_ids"]
        types = found.get("token_type_ids") or [[0] * len(row) for row in ids]
        return [np.array(row, np.int32).T for row in zip(ids, types, strict=True)]

    def inputs(self, rows: list[np.ndarray]) -> dict[str, Any]:
        """Return a batch as the network takes it."""
        import torch

        batch = _padded(rows, self.pad, self.network.config.to_dict())
        return {
            name: torch.from_numpy(batch[name]).to(self.network.device) for name in self.columns
        }

    def answer(
        self, batches: Iterable[list[np.ndarray]], stop: bool = False, **generation: Any
    ) -> Iterator[Any]:
        """Answer each batch: logits, or the lines that were written."""
        import torch

        network, config = self.network, self.network.config
        if stop:
            generation = {"stopping_criteria": [_repeats(self.tokenizer)], **generation}

        def run(batch: dict[str, Any]) -> Any:
            if not self.writes:
                return network(**batch, **generation).logits.float().cpu().numpy()
            ids = network.generate(**batch, **{"use_cache": True, **generation})
            return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

        for rows in batches:
            before = network.training, config.pad_token_id
            network.eval()
            config.pad_token_id = self.pad
            try:
                with torch.inference_mode():
                    found = run(self.inputs(rows))
            finally:
                network.train(before[0])
                config.pad_token_id = before[1]
            yield found

    def state(self) -> Iterator[Any]:
        """Return all that shapes the answers, as bytes or files."""
        import torch

        told = [self.network.config, getattr(self.network, "generation_config", None)]
        told += [sorted(self.tokenizer.get_vocab().items()), self.tokenizer.truncation_side]
        yield repr([*told, self.limit]).encode()
        for tensor in self.network.state_dict().values():
            yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def _repeats(tokenizer: Any, longest: int = 16) -> Callable[..., Any]:
    """Stop a text at its third keyword that was written before, or at one that is far too long."""
    import torch

    # With the marks of a space before them that tokenizers use.
    marks = [space + mark for space in ("", "Ġ", "▁") for mark in ",;"]
    separators = set(tokenizer.convert_tokens_to_ids(marks)) - {None, tokenizer.unk_token_id}

    def stuck(ids: list[int]) -> bool:
        runs = groupby(ids, separators.__contains__)
        *finished, begun = [tuple(run) for is_mark, run in runs if not is_mark]
        return len(finished) - len(set(finished)) >= 3 or len(begun) > longest

    def criterion(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([stuck(ids) for ids in input_ids.tolist()], device=input_ids.device)

    return criterion


class Exported:
    """What the two runtimes without torch share: the folder and its tokenizer."""

    def __init__(self, folder: Path, config: Mapping[str, Any], max_length: int | None) -> None:
        from tokenizers import Tokenizer

        if not (folder / "tokenizer.json").is_file():
            raise ValueError(f"The tokenizer is missing in {folder}: there is no tokenizer.json.")
        self.folder, self.config = folder, config
        self.encoder = Tokenizer.from_file(str(folder / "tokenizer.json"))
        cut = self.encoder.truncation or {}
        self.limit = min(filter(None, (max_length, cut.get("max_length"))), default=None)
        if self.limit:
            self.encoder.enable_truncation(self.limit, direction=cut.get("direction", "right"))

    def state(self) -> Iterator[Any]:
        """Return all that shapes the answers, as bytes or files."""
        yield str(self.limit).encode()
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (".onnx", ".bin", ".json") and path.name != "metrics.json":
                yield path


class Onnx(Exported):
    """Runs a classifier of `export_onnx`."""

    size = 8

    def __init__(self, *arguments: Any) -> None:
        with extra("deploy"):
            import onnxruntime
        super().__init__(*arguments)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(self.folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Read texts as `Torch` does."""
        rows = self.encoder.encode_batch(texts)
        return [np.array((row.ids, row.type_ids), np.int32).T for row in rows]

    def answer(self, batches: Iterable[list[np.ndarray]]) -> Iterator[np.ndarray]:
        """Return each batch's logits."""
        columns = [each.name for each in self.session.get_inputs()]

        def run(rows: list[np.ndarray]) -> np.ndarray:
            batch = _padded(rows, self.config.get("pad_token_id") or 0, self.config)
            return self.session.run(["logits"], {name: batch[name] for name in columns})[0]

        # A batch per core beats a batch on all cores: nothing waits for the slowest thread.
        with ThreadPoolExecutor(_cores()) as pool:
            yield from pool.map(run, batches)


class CTranslate2(Exported):
    """Runs a writer of `export_ctranslate2`."""

    size = 32

    def __init__(self, *arguments: Any) -> None:
        with extra("deploy"):
            import ctranslate2
        super().__init__(*arguments)
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        self.translator = ctranslate2.Translator(
            str(self.folder), device=device, intra_threads=_cores()
        )
        told = read_json(self.folder / "generation_config.json")
        longest = told.get("max_new_tokens") or told.get("max_length") or 20
        self.settings = {"beam_size": 1, "max_decoding_length": longest, "max_batch_size": 0}

    def encode(self, texts: list[str]) -> list[list[str]]:
        """Read texts: the tokens of each."""
        return [row.tokens for row in self.encoder.encode_batch(texts)]

    def answer(
        self, batches: Iterable[list[list[str]]], stop: bool = False, **generation: Any
    ) -> Iterator[list[str]]:
        """Return each batch's lines; greedily written ones stop by themselves."""
        known: Any = self.encoder.token_to_id
        for rows in batches:
            found = self.translator.translate_batch(rows, **{**self.settings, **generation})
            ids = [list(map(known, each.hypotheses[0])) for each in found]
            yield self.encoder.decode_batch(ids, skip_special_tokens=True)


def _cores() -> int:
    """Return how many cores this process may use, which in a container is fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


EXPORTED: dict[str, Any] = {"model.onnx": Onnx, "model.bin": CTranslate2}
"""The runtime that belongs to a file."""
