"""Train a classifier without a notebook, and export it for service.py.

    python deploy/train.py titles.csv out/titles --base albert/albert-base-v2
    accelerate launch --num_processes 2 deploy/train.py titles.csv out/titles  # on two GPUs
    torchrun --standalone --nproc_per_node 2 deploy/train.py titles.csv out/titles  # or CPUs

The table holds the columns text and label. In the folder lie afterwards `model`, `metrics.json` and
`exported`. It is the notebook clickbait/2_fine_tune_albert in short; a run that was killed goes on,
with another number of processes too. The steps are of as many texts, whatever that number.
"""

# ruff: noqa: T201
import argparse
from pathlib import Path

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    set_seed,
)

from cookbook import data, export, features, inference, labels, metrics, quality, training


def train(
    table: str,
    folder: str | Path,
    base: str = "albert/albert-base-v2",
    epochs: float = 3,
    learning_rate: float = 5e-5,
    seed: int = 0,
) -> None:
    """Train, export and measure; a process of several does its share.

    Args:
        table: CSV, JSONL or Parquet with the columns text and label.
        folder: Where everything goes.
        base: Base model.
        epochs: How often every text is seen.
        learning_rate: The highest.
        seed: Of the splits and of the new head.
    """
    folder = Path(folder)
    args = training.training_arguments(
        folder / "checkpoints",
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
    )
    alone = args.process_index == 0  # one process speaks for all
    splits = data.load_splits(table, seed=seed)
    if alone:
        print(quality.check(splits))
    texts, truth = splits["test"]["text"][:], splits["test"]["label"][:]
    splits = labels.encode_labels(splits)
    names = splits["train"].features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(base)
    splits = features.tokenize(splits, tokenizer)
    set_seed(seed)
    # A GPU computes fastest in multiples of 8, and meets few shapes so; a CPU only gets more to do.
    multiple = None if args.use_cpu else 8
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(
            base, dtype="float32", **labels.label_maps(splits)
        ),
        args=args,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple),
        compute_metrics=metrics.compute_metrics(names),
    )
    trained = trainer.train(resume_from_checkpoint=training.last_checkpoint(trainer))
    trainer.save_model(str(folder / "model"))
    if not alone:
        return
    exported = export.export_onnx(folder / "model", folder / "exported")
    answers = inference.classify(texts, exported)["label"].tolist()
    scores = metrics.classification_metrics(truth, answers, names)
    metrics.save_metrics(
        folder,
        base_model=base,
        labels=names,
        rows={name: len(part) for name, part in splits.items()},
        settings={"epochs": epochs, "learning_rate": learning_rate},
        train_seconds=trained.metrics["train_runtime"],
        environment=training.describe_run(base),
        test=scores,
    )
    print(metrics.per_label(truth, answers, names).round(3))
    print(f"accuracy {scores['accuracy']:.3f}, as exported to {exported}")


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", help="CSV, JSONL or Parquet with the columns text and label")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--base", default="albert/albert-base-v2", help="base model")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
