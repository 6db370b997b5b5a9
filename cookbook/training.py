"""TrainingArguments that suit this hardware, resuming after a kill, and spread over seeds."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pyarrow as pa
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import Seq2SeqTrainingArguments, Trainer, TrainingArguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What makes a run another run; everything else may change between a kill and its resumption.
_IDENTITY = (
    "seed",
    "data_seed",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "label_smoothing_factor",
    "optim",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "train_sampling_strategy",
    "bf16",
    "fp16",
)


def mixed_precision() -> str:
    """Say which mixed precision pays on this machine: `"fp16"`, `"bf16"` or `"no"`.

    bf16 on GPUs that compute in it (compute capability 8 and up) and on CPUs with AMX, fp16 on
    older GPUs with tensor cores (a T4 has no bf16), none elsewhere. A CPU without bf16 instructions
    only emulates it. With AVX512-BF16 alone MiniLM trained 1.3 times and a small BART 1.7 times as
    slowly as in fp32, and classified 0.75 times as fast (two cores of an Intel Xeon, torch 2.13).

    Example:
        >>> mixed_precision() in ("fp16", "bf16", "no")
        True
    """
    if torch.cuda.is_available():
        major = torch.cuda.get_device_capability()[0]
        return "bf16" if major >= 8 else "fp16" if major == 7 else "no"
    if torch.backends.mps.is_available():
        return "no"
    # torch has no public question for this yet; an older torch without it means no.
    return "bf16" if getattr(torch.cpu, "_is_amx_tile_supported", bool)() else "no"


def describe_run(base_model: str) -> str:
    """Name model, device, precision and versions: the first thing that a notebook prints.

    Example:
        >>> describe_run("albert/albert-base-v2").splitlines()[0]
        'model      albert/albert-base-v2'
    """
    if torch.cuda.is_available():
        gigabytes = torch.cuda.get_device_properties(0).total_memory / 2**30
        device = f"{torch.cuda.get_device_name()} ({gigabytes:.0f} GB)"
    elif torch.backends.mps.is_available():
        device = f"Apple GPU ({platform.machine()})"
    else:
        device = f"CPU, {os.cpu_count()} cores ({torch.backends.cpu.get_cpu_capability()})"
    packages = ("transformers", "datasets", "accelerate", "torch", "scikit-learn")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"model      {base_model}\n"
        f"device     {device}\n"
        f"precision  {mixed_precision()} (mixed)\n".replace("no (mixed)", "fp32")
        + f"versions   Python {platform.python_version()}, {versions}"
    )


def training_arguments(
    output_dir: str | Path,
    *,
    batch_size: int = 32,
    per_device_batch_size: int | None = None,
    metric: str = "f1_macro",
    **settings: Any,
) -> TrainingArguments:
    """Return plain `TrainingArguments` with defaults for a small model on small hardware.

    Mixed precision as the hardware has it, batches of like length (padding costs as much as text),
    warm-up over the first tenth of the run (the 500 steps common in tutorials can be longer than a
    run on a few thousand titles), evaluation and a checkpoint every epoch, the best one by `metric`
    loaded at the end.

    With batches of like length, the Trainer reads the evaluation rows in that order too:
    `trainer.evaluate` is right, but the rows of `trainer.predict(...).predictions` are not in the
    order of the data set. For answers row by row use `cookbook.inference.classify`.

    Args:
        output_dir: Folder for checkpoints.
        batch_size: Rows per optimizer step over all devices, 32 as in the article. What doesn't fit
            on the devices at once is accumulated.
        per_device_batch_size: Rows on one device at once; None for as many as `batch_size` allows.
        metric: What picks the best checkpoint; higher is better, except for a loss.
        **settings: Any other field of `TrainingArguments`; wins over the defaults above.

    Returns:
        The arguments, for a `Trainer`.

    Raises:
        ValueError: `batch_size` isn't a multiple of what the devices take at once.

    Example:
        >>> args = training_arguments("out", per_device_batch_size=8, report_to="none")
        >>> args.per_device_train_batch_size * args.gradient_accumulation_steps
        32
    """
    defaults = _defaults(batch_size, per_device_batch_size, metric)
    return TrainingArguments(output_dir=str(output_dir), **{**defaults, **settings})


def seq2seq_arguments(
    output_dir: str | Path,
    *,
    batch_size: int = 64,
    per_device_batch_size: int | None = None,
    metric: str = "f1@M",
    **settings: Any,
) -> Seq2SeqTrainingArguments:
    """Return plain `Seq2SeqTrainingArguments`, with the defaults of `training_arguments`.

    Beyond those, what is evaluated is what the model writes (`predict_with_generate`), and the
    texts reach `compute_metrics` (`metrics.compute_keyphrase_metrics` needs them). Generation takes
    the model's own `generation_config`; its cache is on, though the Trainer switches it off to
    train.

    Args:
        output_dir: Folder for checkpoints.
        batch_size: Rows per optimizer step over all devices; 64 as in the article, which
            accumulates 16 batches of 4 on a T4.
        per_device_batch_size: Rows on one device at once; None for as many as `batch_size` allows.
        metric: What picks the best checkpoint; higher is better, except for a loss.
        **settings: Any other field of `Seq2SeqTrainingArguments`; wins over the defaults, for
            instance `gradient_checkpointing=True` where memory is short.

    Returns:
        The arguments, for a `Seq2SeqTrainer`.

    Raises:
        ValueError: `batch_size` isn't a multiple of what the devices take at once.

    Example:
        >>> args = seq2seq_arguments("out", per_device_batch_size=4)
        >>> args.gradient_accumulation_steps
        16
    """
    defaults = _defaults(batch_size, per_device_batch_size, metric) | {
        "per_device_eval_batch_size": 32,
        "predict_with_generate": True,
        "include_for_metrics": ["inputs"],
    }
    return Seq2SeqTrainingArguments(output_dir=str(output_dir), **{**defaults, **settings})


def memory_estimate(
    model: PreTrainedModel,
    batch_size: int,
    length: int,
    target_length: int,
    *,
    half: bool = True,
    checkpointing: bool = False,
) -> pd.Series:
    """Work out on paper what fine-tuning an encoder-decoder takes of a GPU's memory.

    Weights, gradients and the two moments of AdamW in fp32, 4 bytes each (mixed precision keeps
    them so); with `half` a 2-byte copy of the weights for the computation. Activations per layer
    after Korthikanti et al. 2022 (https://arxiv.org/abs/2205.05198), equation 2: 34sbh + 5as²b
    bytes in half precision; a decoder layer has the cross-attention on top, counted as half a layer
    more. The logits are kept three times in fp32: as such, as log-probabilities, as gradient. What
    CUDA itself and fragmentation take, about 1 GB, comes on top.

    Args:
        model: The model; one on the `meta` device will do, which takes no memory.
        batch_size: Rows on the device at once.
        length: Tokens of a text.
        target_length: Tokens of a target.
        half: Whether activations are in fp16 or bf16.
        checkpointing: Whether each layer keeps its input only, and computes the rest again.

    Returns:
        Gigabytes (10^9 bytes) by `weights`, `gradients`, `optimizer`, `half-precision copy`,
        `activations`, `logits` and `total`.

    Example:
        >>> import torch
        >>> from transformers import BartConfig, BartForConditionalGeneration
        >>> with torch.device("meta"):
        ...     large = BartForConditionalGeneration(BartConfig())
        >>> float(memory_estimate(large, 4, 128, 48)["optimizer"].round(1))
        3.3
    """
    config: Any = model.config
    parameters = model.num_parameters()
    trained = model.num_parameters(only_trainable=True)
    width, heads = config.d_model, config.encoder_attention_heads

    def layer(tokens: int) -> float:
        full = 34 * tokens * width + 5 * heads * tokens**2
        # The one layer that is being computed again is whole for a moment; see `activations`.
        return batch_size * (2 * tokens * width if checkpointing else full) * (1 if half else 2)

    activations = config.encoder_layers * layer(length)
    activations += 1.5 * config.decoder_layers * layer(target_length)
    if checkpointing:
        whole = 34 * length * width + 5 * heads * length**2
        activations += batch_size * whole * (1 if half else 2)
    sizes = {
        "weights": 4 * parameters,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "half-precision copy": 2 * parameters if half else 0,
        "activations": activations,
        "logits": 3 * 4 * batch_size * target_length * config.vocab_size,
    }
    return pd.Series({**sizes, "total": sum(sizes.values())}, name="GB") / 1e9


def last_checkpoint(trainer: Trainer) -> str | None:
    """Return the checkpoint from which this very run goes on, or None to start from the beginning.

    To be passed on: `trainer.train(resume_from_checkpoint=last_checkpoint(trainer))`. Only whole
    checkpoints count, not one that a kill tore. A run is known by its model and which of its
    weights are trained, its settings, and the tokens and labels of both splits; checkpoints of
    another run in the same folder are moved aside and kept, since going on from them would mix two
    runs, or train on rows that are tested now.

    Args:
        trainer: The trainer, ready to train.

    Returns:
        Path of the newest whole checkpoint of this run, or None.
    """
    folder = Path(str(trainer.args.output_dir))
    model = cast("torch.nn.Module", trainer.model)
    settings = {name: str(getattr(trainer.args, name)) for name in _IDENTITY}
    run = {
        "model": str(getattr(model, "name_or_path", "")),
        "settings": settings,
        "trained": sorted(n for n, p in model.named_parameters() if p.requires_grad),
        "data": _fingerprint(trainer.train_dataset),
        "validation": _fingerprint(trainer.eval_dataset),
    }
    marker = folder / "run.json"
    known = json.loads(marker.read_text("utf-8")) if marker.is_file() else None
    if known != run:
        if any(folder.glob("checkpoint-*")):
            number = 1
            while (aside := folder.with_name(f"{folder.name}.other-run-{number}")).exists():
                number += 1
            folder.rename(aside)
            print(f"{folder} held checkpoints of another run; they are now in {aside}")  # noqa: T201
        folder.mkdir(parents=True, exist_ok=True)
        half = marker.with_suffix(".part")
        half.write_text(json.dumps(run, indent=1), "utf-8")
        half.replace(marker)
        return None
    # The Trainer writes trainer_state.json last, so a checkpoint that has it is whole.
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    whole = [path for path in whole if _is_json(path / "trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def over_seeds(run: Callable[[int], Mapping[str, float]], seeds: Iterable[int]) -> pd.DataFrame:
    """Repeat a run with several seeds: one figure from one seed says little.

    Fine-tuning the same model on the same data can end far apart by seed alone (Dodge et al. 2020,
    "Fine-Tuning Pretrained Language Models: Weight Initializations, Data Orders, and Early
    Stopping").

    Args:
        run: Takes a seed, sets it before it creates the model, trains, and returns figures by name.
        seeds: The seeds.

    Returns:
        One row per seed, one column per figure; `.agg(["mean", "std"])` gives the spread.

    Example:
        >>> over_seeds(lambda seed: {"accuracy": 0.9 + seed / 100}, seeds=[1, 3]).mean().round(2)
        accuracy    0.92
        dtype: float64
    """
    rows = {seed: dict(run(seed)) for seed in tqdm(list(seeds), desc="Seeds")}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")


def _defaults(batch_size: int, per_device_batch_size: int | None, metric: str) -> dict[str, Any]:
    devices = max(1, torch.cuda.device_count())  # the Trainer uses every GPU that it sees
    per_device = per_device_batch_size or max(1, batch_size // devices)
    if batch_size % (per_device * devices):
        raise ValueError(
            f"batch_size={batch_size} isn't a multiple of per_device_batch_size={per_device} on "
            f"{devices} device{'s' * (devices > 1)}"
        )
    precision = mixed_precision()
    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return {
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": batch_size // (per_device * devices),
        "per_device_eval_batch_size": 64,
        "train_sampling_strategy": "group_by_length",
        "fp16": precision == "fp16",
        "bf16": precision == "bf16",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "warmup_steps": 0.1,
        "weight_decay": 0.01,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
        "logging_steps": 0.05,
        "report_to": "none",
    }


def _fingerprint(dataset: Any) -> str:
    if not isinstance(dataset, Dataset):
        return f"{type(dataset).__name__} of {len(dataset) if dataset is not None else 0} rows"
    columns = [c for c in ("input_ids", "label", "labels") if c in dataset.column_names]
    table = dataset.select_columns(columns).with_format("arrow")[:]
    digest = hashlib.sha256()
    with pa.ipc.new_stream(sink := pa.BufferOutputStream(), table.schema) as stream:
        stream.write_table(table.combine_chunks())
    digest.update(sink.getvalue())
    return digest.hexdigest()


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return True
