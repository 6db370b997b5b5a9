"""Speed of the clickbait track beside the way the articles do it; one line a figure.

Ratios come from one run on the same data, model and machine. Run on an idle machine: `make bench`.
"""

import subprocess
import sys
import time
from functools import partial
from tempfile import TemporaryDirectory

import torch
from datasets import DatasetDict, disable_caching, disable_progress_bars
from sklearn.preprocessing import LabelEncoder
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from cookbook import data, features, labels, metrics, offline, training

# Both ways train on the same rows, with the same seed, learning rate and effective batch.
EPOCHS, LEARNING_RATE, BATCH_SIZE = 1, 1e-4, 32


def article_preparation(splits, tokenizer):
    """Prepare the way that the articles do: ids row by row, padding to the longest of a batch."""
    encoder = LabelEncoder().fit(splits["train"]["label"][:])
    prepared = splits.map(
        lambda row: {"labels": int(encoder.transform([row["label"]])[0])}, remove_columns="label"
    )
    return prepared.map(
        lambda rows: tokenizer(rows["text"], padding=True, truncation=True), batched=True
    )


def cookbook_preparation(splits, tokenizer):
    """Prepare with the cookbook's helpers."""
    return features.tokenize(labels.encode_labels(splits), tokenizer)


def train(checkpoint, tokenizer, prepared, make_arguments, freeze):
    """Fine-tune; return seconds and the accuracy on the test split."""
    # Made here: a second precision is refused unless its arguments come after the first Trainer.
    arguments = make_arguments()
    set_seed(arguments.seed)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2)
    if freeze:
        model.base_model.embeddings.requires_grad_(False)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=prepared["train"].remove_columns("text"),
        eval_dataset=prepared["test"].remove_columns("text"),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=metrics.compute_metrics(["clickbait", "factual"]),
    )
    trainer.remove_callback(PrinterCallback)  # one line a figure, nothing else
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    return seconds, trainer.evaluate()["eval_accuracy"]


def timed(function, *arguments, repeats=5):
    """Return the shortest of a few runs, in seconds, and what the last one returned."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def import_seconds():
    """Return what `import cookbook` adds to the start of the interpreter, in seconds."""
    run = partial(subprocess.run, check=True)
    bare, _ = timed(run, [sys.executable, "-c", "pass"], repeats=7)
    full, _ = timed(run, [sys.executable, "-c", "import cookbook"], repeats=7)
    return full - bare


def main():
    """Measure and print."""
    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    checkpoint = offline.minilm()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    splits = data.load_splits(data.shipped("clickbait_titles.csv"), group="pair")
    splits = DatasetDict(
        {name: part.select_columns(["text", "label"]) for name, part in splits.items()}
    )
    tokenizer("warm up")
    ours, prepared = timed(cookbook_preparation, splits, tokenizer)
    disable_caching()  # or an earlier map's cached rows would answer
    theirs, article_prepared = timed(article_preparation, splits, tokenizer)

    with TemporaryDirectory() as folder:
        common = {
            "num_train_epochs": EPOCHS,
            "learning_rate": LEARNING_RATE,
            "seed": 0,
            "save_strategy": "no",
            "eval_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        article = partial(
            TrainingArguments,
            folder,
            per_device_train_batch_size=BATCH_SIZE,
            warmup_steps=0.1,
            weight_decay=0.01,
            use_cpu=not torch.cuda.is_available(),
            **common,
        )
        cookbook = partial(
            training.training_arguments,
            folder,
            batch_size=BATCH_SIZE,
            load_best_model_at_end=False,
            **common,
        )
        runs = {
            "article": (article_prepared, article, False),
            "cookbook": (prepared, cookbook, True),
        }
        seconds, accuracy = {}, {}
        for name, (rows, make_arguments, freeze) in runs.items():
            seconds[name], accuracy[name] = train(
                checkpoint, tokenizer, rows, make_arguments, freeze
            )

    rows = sum(map(len, splits.values()))
    figures = {
        "clickbait_prepare_ratio": theirs / ours,
        "clickbait_train_ratio": seconds["article"] / seconds["cookbook"],
        "clickbait_train_accuracy_article": accuracy["article"],
        "clickbait_train_accuracy_cookbook": accuracy["cookbook"],
        "clickbait_prepare_rows_per_second": rows / ours,
        "clickbait_train_titles_per_second": EPOCHS * len(splits["train"]) / seconds["cookbook"],
        "import_seconds": import_seconds(),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.4g}", flush=True)


if __name__ == "__main__":
    main()
