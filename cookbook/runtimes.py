"""What a loaded model runs on: torch, ONNX or CTranslate2, all asked in the same way."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cookbook import extra
from cookbook.marks import token_places
from cookbook.tables import read_json

# Neither torch nor transformers is imported up here: an exported model needs neither.
if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_network(folder: Path, kind: str, dtype: str) -> PreTrainedModel:
    """Load a model of transformers whose weights are all there, onto the fastest device."""
    import torch
    import transformers

    from cookbook.training import mixed_precision

    if dtype == "auto":
        dtype = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}[mixed_precision()]
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"{dtype=} is none; 'float32', 'bfloat16', 'float16' and 'auto' are.")
    heads = {"writer": "Seq2SeqLM", "marker": "TokenClassification"}
    auto = getattr(transformers, f"AutoModelFor{heads.get(kind, 'SequenceClassification')}")
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
    """Return a batch as arrays; one padding for all that take arrays."""
    lengths = np.array([len(row) for row in rows])[:, None]
    mask = np.arange(lengths.max()) < lengths
    # XLNet reads a text's last place.
    if config.get("summary_type") == "last" and rows[0].shape[1] == 2:
        mask = mask[:, ::-1]
    ids, types = np.full(mask.shape, pad, np.int64), np.zeros(mask.shape, np.int64)
    ids[mask], types[mask] = np.concatenate(rows).T[:2]
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask.astype(np.int64)}


class Torch:
    """Runs a model of transformers."""

    def __init__(self, kind: str, network: Any, tokenizer: Any, max_length: int | None) -> None:
        from cookbook.features import usable_length

        self.kind, self.network, self.tokenizer = kind, network, tokenizer
        self.writes = writes = kind == "writer"
        limits = (max_length, usable_length(tokenizer, network.config))
        self.limit = min(filter(None, limits), default=None)
        takes = inspect.signature(network.forward).parameters
        self.columns = [name for name in tokenizer("a") if name in takes]
        self.pad = tokenizer.pad_token_id
        if self.pad is None:
            raise ValueError("The tokenizer has no pad token: set tokenizer.pad_token, and save.")
        if kind == "marker" and not tokenizer.is_fast:
            name = type(tokenizer).__name__
            raise ValueError(f"{name} doesn't say where tokens stand: take a 'fast' tokenizer.")
        # A CPU's cache holds few tokens; a GPU is filled by many, as many as fit into a T4.
        on_cpu = network.device.type == "cpu"
        self.size = 32 if on_cpu else 128 if writes else 512
        self.tokens = 512 if on_cpu and not writes else 2**15

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Read texts: a row of ids and types a token, not padded; of a marker see `_windows`."""
        if self.kind == "marker":
            return _windows(self.tokenizer.backend_tokenizer, texts, self.limit)
        cut = {"truncation": self.limit is not None, "max_length": self.limit}
        found = self.tokenizer(texts, **cut, return_attention_mask=False, verbose=False)
        ids = found["input_ids"]
        types = found.get("token_type_ids") or [[0] * len(row) for row in ids]
        return [np.array(row, np.int32).T for row in zip(ids, types, strict=True)]

    def inputs(self, rows: list[np.ndarray]) -> dict[str, Any]:
        """Return a batch as the network takes it."""
        import torch

        batch, device = _padded(rows, self.pad, vars(self.network.config)), self.network.device
        tensors = {name: torch.from_numpy(batch[name]) for name in self.columns}
        if device.type == "cuda":  # a copy from pinned memory doesn't wait for what is computed
            pinned = {name: each.pin_memory() for name, each in tensors.items()}
            return {name: each.to(device, non_blocking=True) for name, each in pinned.items()}
        return {name: each.to(device) for name, each in tensors.items()}

    def answer(
        self, batches: Iterable[list[np.ndarray]], stop: bool = False, **generation: Any
    ) -> Iterator[Any]:
        """Answer each batch: logits, or the lines that were written."""
        import torch

        network, config, cuda = self.network, self.network.config, torch.backends.cuda
        if stop:
            generation = {"stopping_criteria": [_repeats(self.tokenizer)], **generation}

        def run(batch: dict[str, Any]) -> Any:
            if not self.writes:
                return network(**batch, **generation).logits
            ids = network.generate(**batch, **{"use_cache": True, **generation})
            return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

        ready = map(self.inputs, batches)
        batch = next(ready, None)
        while batch is not None:
            before = network.training, config.pad_token_id, cuda.cudnn_sdp_enabled()
            network.eval()
            config.pad_token_id = self.pad
            cuda.enable_cudnn_sdp(False)  # `training` says why
            try:
                with torch.inference_mode():
                    found = run(batch)
            finally:
                network.train(before[0])
                config.pad_token_id = before[1]
                cuda.enable_cudnn_sdp(before[2])
            batch = next(ready, None)  # a GPU still computes while the next one is prepared
            yield found if self.writes else found.float().cpu().numpy()

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


def _windows(encoder: Any, texts: list[str], limit: int | None) -> list[np.ndarray]:
    """Read texts whole, a long one in windows that have a quarter in common with the one before.

    A row of five columns each: ids, types, where each token stands (two), and the text's number.
    """
    encoder.no_padding()
    encoder.no_truncation()  # whose windows tokenizers 0.23.1 ends after the second
    rows = []
    for number, whole in enumerate(encoder.encode_batch(texts)):
        places = token_places(texts[number], whole.offsets)
        numbers = np.full(len(places), number)
        row = np.column_stack([whole.ids, whole.type_ids, places, numbers])
        if not limit or len(row) <= limit:
            rows.append(row)
            continue
        inside = np.flatnonzero(np.logical_not(whole.special_tokens_mask))
        first, end = int(inside[0]), int(inside[-1]) + 1
        room = limit - first - (len(row) - end)
        if (step := room - limit // 4) < 1:
            raise ValueError(f"{limit} tokens leave no room beside the special ones: allow more.")
        starts = range(first, end - limit // 4, step)
        rows += [np.vstack([row[:first], row[i : min(i + room, end)], row[end:]]) for i in starts]
    return rows


class Exported:
    """What the two runtimes without torch share: the folder and its tokenizer."""

    tokens = 2**15

    def __init__(
        self, kind: str, folder: Path, config: Mapping[str, Any], max_length: int | None
    ) -> None:
        from tokenizers import Tokenizer

        if not (folder / "tokenizer.json").is_file():
            raise ValueError(f"The tokenizer is missing in {folder}: there is no tokenizer.json.")
        self.kind, self.folder, self.config = kind, folder, config
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
    """Runs a classifier or marker of `export_onnx`."""

    def __init__(self, *arguments: Any) -> None:
        with extra("deploy"):
            import onnxruntime
        super().__init__(*arguments)
        # One by one, a text has the same marks in int8 whatever stands beside it.
        self.size = 1 if self.kind == "marker" else 8
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(self.folder / "model.onnx"),
            options,
            providers=["CPUExecutionProvider"],
            # The two operations that it puts together take a seventh less time apart.
            disabled_optimizers=["SkipLayerNormFusion"],
        )

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Read texts as `Torch` does."""
        if self.kind == "marker":
            return _windows(self.encoder, texts, self.limit)
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

    def __init__(self, *arguments: Any) -> None:
        with extra("deploy"):
            import ctranslate2
        super().__init__(*arguments)
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        self.size = 128 if device == "cuda" else 32
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
    """Return how many cores this process may use: as torch, what OMP_NUM_THREADS says (Ray does).

    In a container that is fewer than there are.
    """
    if (told := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        return max(int(told), 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


EXPORTED: dict[str, Any] = {"model.onnx": Onnx, "model.bin": CTranslate2}
"""The runtime that belongs to a file."""
