"""Shared fixtures: the packaged MiniLM, and a classifier fine-tuned on a slice of the titles."""

import os

# The clients read their environment on import. Tests use no network but loopback.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

from types import SimpleNamespace

import pandas as pd
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, set_seed
from transformers import DataCollatorWithPadding as Collator

from cookbook import data, features, labels, metrics, offline, training


@pytest.fixture(scope="session")
def minilm():
    return offline.minilm()


@pytest.fixture(scope="session")
def tokenizer(minilm):
    return AutoTokenizer.from_pretrained(minilm)


@pytest.fixture(scope="session")
def titles():
    return data.read_csv(data.shipped("clickbait_titles.csv"))


@pytest.fixture(scope="session")
def few_titles(titles):
    """300 titles of either label, in the order of the file."""
    return titles.groupby("label").head(300).reset_index(drop=True)


@pytest.fixture(scope="session")
def trained(minilm, tokenizer, few_titles, tmp_path_factory):
    """MiniLM fine-tuned for two epochs on 480 titles: good enough to be right most of the time."""
    splits = labels.encode_labels(data.load_splits(few_titles, group="pair"))
    splits = features.tokenize(splits, tokenizer)
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(minilm, **labels.label_maps(splits))
    names = list(model.config.id2label.values())
    trainer = Trainer(
        model=model,
        args=training.training_arguments(
            tmp_path_factory.mktemp("trained"),
            num_train_epochs=2,
            learning_rate=2e-4,
            disable_tqdm=True,
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        data_collator=Collator(tokenizer),
        compute_metrics=metrics.compute_metrics(names),
    )
    trainer.train()
    # Asked here, since a Trainer is of no use once other TrainingArguments were made.
    masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
    trainer.evaluate()
    folder = tmp_path_factory.mktemp("model")
    trainer.save_model(folder)
    test = splits["test"].to_pandas()
    test["label"] = [names[i] for i in test["label"]]
    return SimpleNamespace(
        trainer=trainer,
        masks=masks,
        folder=folder,
        splits=splits,
        names=names,
        test=pd.DataFrame(test),
    )
