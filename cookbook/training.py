"""TrainingArguments that suit this hardware, resuming after a kill, and spread over seeds."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher
from tqdm.auto import tqdm
from transformers import Seq2SeqTrainingArguments, Trainer, TrainingArguments

from cookbook.models import digest
from cookbook.tables import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What makes a run another run; everything else may change between a kill and its resumption.
_IDENTITY = re.compile(
    "seed|data_seed|num_train_epochs|max_steps|learning_rate|lr_scheduler_type|warmup_steps|optim|"
    "weight_decay|label_smoothing_factor|train_sampling_strategy|bf16|fp16"
)


def mixed_precision() -> str:
    """Say which mixed precision pays on this machine: `"fp16"`, `"bf16"` or `"no"`.

    bf16 on GPUs that compute in it (compute capability 8 and up) and on CPUs with AMX, fp16 on
    older GPUs with tensor cores (a T4), none elsewhere: with less, a CPU is slower in bf16.

    Example:
        >>> mixed_precision() in ("fp16", "bf16", "no")
        True
    """
    if torch.cuda.is_available():
        major = torch.cuda.get_device_capability()[0]
        return "bf16" if major >= 8 else "fp16" if major == 7 else "no"
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

    Mixed precision as the hardware has it, batches of like length, the best of each epoch's
    checkpoints loaded at the end. cuDNN's attention is switched off, for the whole process.
    `trainer.predict` answers in another order than the rows': use `cookbook.inference.classify`.

    Args:
        output_dir: Folder for checkpoints.
        batch_size: Rows per optimizer step over all devices; what doesn't fit is accumulated.
        per_device_batch_size: Rows on one device at once; None for as many as that allows.
        metric: What picks the best checkpoint.
        **settings: Any other field of `TrainingArguments`.

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
    """Return plain `Seq2SeqTrainingArguments`, as `training_arguments` does.

    Beyond that, what the model writes is evaluated, after its own `generation_config`, and the
    texts reach `compute_metrics` (`metrics.compute_keyphrase_metrics` needs them).

    Args:
        output_dir: Folder for checkpoints.
        batch_size: Rows per optimizer step over all devices.
        per_device_batch_size: Rows on one device at once.
        metric: What picks the best checkpoint.
        **settings: Any other field, for instance `gradient_checkpointing=True`.

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

    AdamW in fp32; activations after Korthikanti et al. 2022 (https://arxiv.org/abs/2205.05198),
    equation 2, cross-attention as half a layer more. CUDA itself takes about 1 GB on top.

    Args:
        model: The model; one on the `meta` device will do.
        batch_size: Rows on the device at once.
        length: Tokens of a text.
        target_length: Tokens of a target.
        half: Whether activations are in fp16 or bf16.
        checkpointing: Whether each layer keeps its input only, and computes the rest again.

    Returns:
        Gigabytes (10^9 bytes) by what takes them, and their `total`.

    Raises:
        ValueError: The model is no BART or kin of it, such as PEGASUS.

    Example:
        >>> from transformers import BartConfig, BartForConditionalGeneration
        >>> with torch.device("meta"):
        ...     large = BartForConditionalGeneration(BartConfig())
        >>> float(memory_estimate(large, 4, 128, 48)["optimizer"].round(1))
        3.3
    """
    config: Any = model.config
    if not hasattr(config, "decoder_layers"):
        name = f"{type(model).__name__} ({config.model_type})"
        raise ValueError(f"{name} isn't covered: this is about encoder-decoders such as BART.")
    parameters = model.num_parameters()
    trained = model.num_parameters(only_trainable=True)
    tokens = np.array([length, target_length])
    layers = [config.encoder_layers, 1.5 * config.decoder_layers]
    inputs = 2 * tokens * config.hidden_size
    whole = 17 * inputs + 5 * config.num_attention_heads * tokens**2
    # While a layer is computed again, it is whole for a moment.
    activations = inputs @ layers + whole[0] if checkpointing else whole @ layers
    sizes = {
        "weights": 4 * parameters,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "half-precision copy": 2 * parameters if half else 0,
        "activations": batch_size * activations * (2 - half),
        "logits": 3 * 4 * batch_size * target_length * config.vocab_size,
    }
    return pd.Series({**sizes, "total": sum(sizes.values())}, name="GB") / 1e9


def last_checkpoint(trainer: Trainer) -> str | None:
    """Return the checkpoint from which this very run goes on, or None to start from the beginning.

    To be passed on: `trainer.train(resume_from_checkpoint=last_checkpoint(trainer))`. A run is
    known by its base model's weights and which of them are trained, its label names, its settings,
    and the tokens and labels of both splits (of a stream, of its first thousand rows), on however
    many devices. Checkpoints of another run are moved aside and kept.
    """
    run = _identity(trainer)
    with trainer.args.main_process_first(local=False):
        return _newest(Path(str(trainer.args.output_dir)), run)


def _newest(folder: Path, run: dict[str, Any]) -> str | None:
    """Return the newest whole checkpoint of this run."""
    if read_json(folder / "run.json") != run:
        if any(folder.glob("checkpoint-*")):
            _put_aside(folder, "checkpoints of another run")
        write_json(folder / "run.json", run)
        return None
    numbered = [each for each in folder.glob("checkpoint-*") if each.name[11:].isdecimal()]
    newest_first = sorted(numbered, key=lambda p: -int(p.name[11:]))
    for checkpoint in newest_first:
        # The Trainer writes trainer_state.json last, so a checkpoint that has it is whole.
        with suppress(OSError, ValueError):
            json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
            print(f"Going on from {checkpoint}")  # noqa: T201
            return str(checkpoint)
    return None


def train_once(trainer: Trainer, folder: str | Path) -> Path:
    """Train to the end and save the model, or go on with it, or find it done by this very run.

    A run is known as `last_checkpoint` knows it; beside the folder, `NAME.run.json` says which one
    it holds. The checkpoints go when the model is saved.

    Args:
        trainer: Not yet trained.
        folder: Where the model goes; what is there of another run is moved aside.

    Returns:
        The folder.

    Raises:
        ValueError: It is the Trainer's own, for checkpoints.
    """
    folder, run, checkpoints = Path(folder), _identity(trainer), Path(str(trainer.args.output_dir))
    if folder.resolve() == checkpoints.resolve():
        raise ValueError(f"{folder} is the folder of the checkpoints: save the model elsewhere.")
    marker = folder.with_name(f"{folder.name}.run.json")
    with trainer.args.main_process_first(local=False):
        done = read_json(marker) == run and folder.is_dir()
        newest = None if done else _newest(checkpoints, run)
    if not done:
        trainer.train(resume_from_checkpoint=newest)
    with trainer.args.main_process_first(local=False):  # the others find it there
        if trainer.args.process_index == 0:
            if not done:
                marker.unlink(missing_ok=True)  # what the folder holds is nobody's until it's whole
                if folder.exists():
                    _put_aside(folder, "another model")
                trainer.save_model(str(folder))
                write_json(marker, run)
            for checkpoint in checkpoints.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
            (checkpoints / "run.json").unlink(missing_ok=True)
            with suppress(OSError):  # something else lies there
                checkpoints.rmdir()
    return folder


def _identity(trainer: Trainer) -> dict[str, Any]:
    """Return all that makes a run what it is."""
    model, loss, args = cast("Any", trainer.model), trainer.compute_loss_func, trainer.args
    return {
        **({"loss": _loss(loss)} if loss else {}),
        "model": [model.name_or_path, getattr(model.config, "_commit_hash", None)],
        # Of the files, for the weights of a new head vary where no seed was set.
        "weights": [digest([path]) for path in _weights(model.name_or_path)],
        "labels": list(map(str, model.config.id2label.values())),
        "settings": {n: str(v) for n, v in vars(args).items() if _IDENTITY.fullmatch(n)},
        # Over all devices: the same run may go on with more of them, or fewer.
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "trained": sorted(n for n, p in model.named_parameters() if p.requires_grad),
        "data": _fingerprint(trainer.train_dataset),
        "validation": _fingerprint(trainer.eval_dataset),
    }


def _loss(function: Callable[..., Any]) -> list[str]:
    """Name a loss by the function and what it holds, such as class weights."""
    inside = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    return [getattr(function, "__qualname__", repr(function)), *map(Hasher.hash, inside)]


def _put_aside(folder: Path, what: str) -> None:
    numbered = (f"{folder.name}.other-run-{number}" for number in count(1))
    aside = next(path for path in map(folder.with_name, numbered) if not path.exists())
    folder.rename(aside)
    print(f"{folder} held {what}, which is now in {aside}")  # noqa: T201


def start_at_base_rates(model: PreTrainedModel, rows: Dataset) -> None:
    """Let a new head begin by saying each label as often as the training texts have it.

    Where a text may have several of many labels, nearly all answers are no. A head that begins
    with 50% for each first learns to say no to everything, and a small model may stay there. So
    the last layer's bias becomes the log-odds of each label (Lin et al. 2017, section 3.3,
    https://arxiv.org/abs/1708.02002); its weights stay.

    Args:
        model: A classifier with a new head; changed in place.
        rows: The training split, as `labels.encode_labels` returns it.

    Raises:
        ValueError: The model has no last layer of that many labels, or the texts have one label
            each.
    """
    if "label_names" not in rows.features:
        raise ValueError("For texts with several labels: encode_labels has found one each.")
    given = np.array(rows["label"][:])
    wanted = given.shape[1]
    layers = [layer for layer in model.modules() if getattr(layer, "out_features", 0) == wanted]
    if not layers or layers[-1].bias is None:
        raise ValueError(f"The model has no last layer with a bias for {wanted} labels.")
    rate = np.clip(given.mean(axis=0), 1 / len(given), 1 - 1 / len(given))
    layers[-1].bias.data = torch.tensor(np.log(rate / (1 - rate))).to(layers[-1].bias)


def over_seeds(run: Callable[[int], Mapping[str, float]], seeds: Iterable[int]) -> pd.DataFrame:
    """Repeat a run with several seeds: one figure from one seed says little.

    Args:
        run: Takes a seed, sets it before it creates the model, trains, and returns figures by name.
        seeds: The seeds.

    Returns:
        One row per seed, one column per figure.

    Example:
        >>> over_seeds(lambda seed: {"accuracy": 0.9 + seed / 100}, seeds=[1, 3]).mean().round(2)
        accuracy    0.92
        dtype: float64
    """
    rows = {seed: dict(run(seed)) for seed in tqdm(list(seeds), desc="Seeds")}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")


def _defaults(batch_size: int, per_device_batch_size: int | None, metric: str) -> dict[str, Any]:
    # A process each under `accelerate launch`; else the Trainer uses every GPU that it sees.
    devices = int(os.environ.get("WORLD_SIZE", 0)) or max(1, torch.cuda.device_count())
    per_device = per_device_batch_size or max(1, batch_size // devices)
    if batch_size % (per_device * devices):
        raise ValueError(
            f"batch_size={batch_size} isn't a multiple of per_device_batch_size={per_device} on "
            f"{devices} device{'s' * (devices > 1)}"
        )
    precision = mixed_precision()
    # In half precision torch prefers cuDNN's attention on compute capability 9.0 and 10.0 (H100,
    # H200, B200; check_prefer_cudnn_attention in its sdp_utils.cpp), never on a T4 or an A100. A
    # plan for every new shape took a B200 0.44 s forward and 0.55 s backward
    # (https://github.com/modelscope/FunASR/issues/3704). That would explain why an H200 took 6.9 s
    # in bf16, 1.9 s in fp32, for 88 steps of MiniLM: five lengths (8, 16, … 40), a second each.
    # So torch is left FlashAttention and the like, as elsewhere; not yet measured on such a card.
    torch.backends.cuda.enable_cudnn_sdp(False)
    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return {
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": batch_size // (per_device * devices),
        "per_device_eval_batch_size": 64,
        # Or the Trainer multiplies the loss by the number of processes, for models (BERT, BART)
        # whose loss is a mean already: two GPUs would report, and train on, twice the loss.
        "average_tokens_across_devices": False,
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


def _weights(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("*model*.[sb]*")) if folder else []  # .safetensors or .bin


def _fingerprint(dataset: Any) -> str:
    if not isinstance(dataset, (Dataset, IterableDataset)):
        return type(dataset).__name__
    if isinstance(dataset, IterableDataset):
        dataset = Dataset.from_list(list(dataset.take(1000)))
    columns = [c for c in ("input_ids", "label", "labels") if c in dataset.column_names]
    return digest([json.dumps(dataset.select_columns(columns).to_dict()).encode()])
