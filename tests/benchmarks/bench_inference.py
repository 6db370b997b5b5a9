"""Speed of answering many texts beside the way the articles do it; one line a figure.

Ratios come from one run with the same model, texts and machine. Run on an idle machine:
`make bench`. It takes the models that `make demo` saved, or fine-tunes one for half a minute.
"""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from bench_keywords import article as keywords_article
from bench_keywords import trained as trained_bart
from datasets import disable_progress_bars
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    pipeline,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from cookbook import data, export, features, inference, labels, metrics, offline, tables, training

SAVED = Path(__file__).resolve().parents[2] / "out"
POSTS = 100
GROWTH = (1_000, 10_000, 100_000)


def trained_classifier(folder):
    """Fine-tune MiniLM on 1,000 titles: enough to be right nine times in ten."""
    splits = data.load_splits(data.shipped("clickbait_titles.csv"), group="pair")
    splits["train"] = splits["train"].shuffle(seed=0).select(range(1000))
    tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
    splits = features.tokenize(labels.encode_labels(splits), tokenizer)
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        offline.minilm(), **labels.label_maps(splits)
    )
    trainer = Trainer(
        model=model,
        args=training.training_arguments(
            folder,
            num_train_epochs=1,
            learning_rate=2e-4,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            disable_tqdm=True,
        ),
        train_dataset=splits["train"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.remove_callback(PrinterCallback)  # one line a figure, nothing else
    trainer.train()
    trainer.save_model(folder)
    return folder


def fastest(ways, texts, rounds=4):
    """Return each way's best of a few runs in texts per second, and its answers.

    They take turns, so that a slow minute of the machine is a slow minute for all.
    """
    seconds, answers = dict.fromkeys(ways, float("inf")), {}
    for way in ways.values():
        way(texts[:20])
    for _, (name, way) in itertools.product(range(rounds), ways.items()):
        start = time.perf_counter()
        answers[name] = way(texts)
        seconds[name] = min(seconds[name], time.perf_counter() - start)
    return {name: len(texts) / each for name, each in seconds.items()}, answers


def clickbait(model, folder):
    """Measure the classifier: the article's loop, batches in torch, ONNX in fp32 and int8."""
    test = data.load_splits(data.shipped("clickbait_titles.csv"), group="pair")["test"].to_pandas()
    challenge = tables.read(data.shipped("clickbait_challenge.csv"))
    rows = pd.concat([test, challenge])[["text", "label"]]
    classifier = pipeline("text-classification", model=str(model))
    network = AutoModelForSequenceClassification.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    exact = export.export_onnx(model, folder / "onnx", int8=False)
    int8 = export.export_onnx(model, folder / "onnx-int8")
    ways = {
        "article": lambda texts: [classifier(text)[0]["label"] for text in texts],
        "torch": lambda texts: inference.classify(texts, network, tokenizer)["label"].tolist(),
        "onnx": lambda texts: inference.classify(texts, exact)["label"].tolist(),
        "int8": lambda texts: inference.classify(texts, int8)["label"].tolist(),
    }
    speed, answers = fastest(ways, rows["text"].tolist())
    right = {name: (rows["label"].to_numpy() == found).mean() for name, found in answers.items()}
    best = max(list(ways)[1:], key=speed.__getitem__)
    yield "clickbait_infer_ratio", speed[best] / speed["article"]
    for name in ways:
        yield f"clickbait_infer_titles_per_second_{name}", speed[name]
        yield f"clickbait_infer_accuracy_{name}", right[name]


def keywords(model, tokenizer, folder):
    """Measure the keywords: the article's loop, batches in torch, CTranslate2 in int8; a marker."""
    splits = data.load_splits(
        data.shipped("tech_keywords.csv"), label=None, keywords="keywords", seed=0
    )
    test = splits["test"].select(range(POSTS))
    gold = [data.split_keywords(cell) for cell in test["keywords"]]
    # Loaded once, as the model of the loop is.
    writing = inference.load(export.export_ctranslate2(model, folder / "ctranslate2", tokenizer))
    ways = {
        "article": lambda texts: keywords_article(texts, model, tokenizer),
        "torch": lambda texts: inference.extract_keywords(texts, model, tokenizer),
        "int8": lambda texts: inference.extract_keywords(texts, writing),
    }
    marker = SAVED / "keywords_marked" / "int8"
    if marker.is_dir():
        marking = inference.load(marker)
        ways["mark_int8"] = lambda texts: inference.extract_keywords(texts, marking)
    speed, found = fastest(ways, test["text"][:], rounds=2)
    yield "keywords_infer_ratio", max(speed["torch"], speed["int8"]) / speed["article"]
    if marker.is_dir():
        yield "keywords_mark_ratio", speed["mark_int8"] / speed["article"]
    for name in ways:
        f1 = metrics.keyphrase_metrics(test["text"][:], found[name], gold)["f1@M"]
        yield f"keywords_infer_posts_per_second_{name}", speed[name]
        yield f"keywords_infer_f1_{name}", f1


def growth(exported, folder):
    """Measure time and memory of `answer_file` as the file grows, each in its own process."""
    code = (
        "import re, sys, time; from cookbook import inference; start = time.perf_counter();"
        "inference.answer_file(*sys.argv[1:4]); seconds = time.perf_counter() - start;"
        # Not getrusage, which counts what the process was before exec: this one, torch and all.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1];"
        "print(seconds, int(peak) / 1024)"
    )
    titles = tables.read(data.shipped("clickbait_titles.csv"))["text"].tolist()
    for rows in GROWTH:
        source = folder / f"{rows}.csv"
        texts = itertools.islice(itertools.cycle(titles), rows)
        pd.DataFrame({"text": list(texts)}).to_csv(source, index=False)
        command = [sys.executable, "-c", code, source, folder / f"{rows}.out.csv", exported]
        run = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ}
        )
        seconds, megabytes = map(float, run.stdout.split())
        yield f"clickbait_file_{rows}_seconds", seconds
        yield f"clickbait_file_{rows}_titles_per_second", rows / seconds
        yield f"clickbait_file_{rows}_peak_megabytes", megabytes


def main():
    """Measure and print."""
    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with TemporaryDirectory() as name:
        folder = Path(name)
        classifier = SAVED / "clickbait" / "model"
        if not classifier.is_dir():
            classifier = trained_classifier(folder / "trained")
        writer = SAVED / "keywords" / "model"
        if writer.is_dir():
            tokenizer = AutoTokenizer.from_pretrained(writer)
            bart = AutoModelForSeq2SeqLM.from_pretrained(writer).eval()
        else:
            tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
            splits = data.load_splits(
                data.shipped("tech_keywords.csv"), label=None, keywords="keywords", seed=0
            )
            bart = trained_bart(splits, tokenizer)
        figures = itertools.chain(
            clickbait(classifier, folder),
            keywords(bart, tokenizer, folder),
            growth(folder / "onnx-int8", folder),
        )
        for figure, value in figures:
            print(f"{figure}: {value:.4g}", flush=True)


if __name__ == "__main__":
    main()
