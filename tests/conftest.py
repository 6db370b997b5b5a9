"""Shared fixtures: the packaged MiniLM, and a classifier fine-tuned on a slice of the titles."""

import os

# The clients read their environment on import. Tests use no network but loopback.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

from types import SimpleNamespace

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Trainer,
    set_seed,
)
from transformers import DataCollatorWithPadding as Collator

from cookbook import data, features, inference, labels, metrics, offline, training


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


@pytest.fixture(scope="session")
def short_posts():
    """The 40 shortest posts whose keywords all stand in the text."""
    posts = data.read_csv(data.shipped("tech_keywords.csv"), label=None)
    literal = [
        all(inference.restore_case(keyword, text) for keyword in data.split_keywords(cell))
        for text, cell in zip(posts["text"], posts["keywords"], strict=True)
    ]
    order = posts["text"].str.len().argsort(kind="stable")
    return posts.iloc[order][pd.Series(literal)[order].to_numpy()].head(40).reset_index(drop=True)


@pytest.fixture(scope="session")
def keyword_model(tokenizer, short_posts, tmp_path_factory):
    """The folder of a small BART that has learnt the keywords of 40 short posts by heart."""
    splits = DatasetDict(train=Dataset.from_pandas(short_posts))
    set_seed(0)
    model = offline.warm_start_bart(short_posts["text"], short_posts["keywords"])
    start = model.config.decoder_start_token_id
    rows = features.tokenize_seq2seq(splits, tokenizer, decoder_start_token_id=start)
    model.get_input_embeddings().requires_grad_(False)
    trainer = Seq2SeqTrainer(
        model=model,
        args=training.seq2seq_arguments(
            tmp_path_factory.mktemp("keywords"),
            batch_size=8,
            num_train_epochs=25,
            learning_rate=8e-4,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            disable_tqdm=True,
        ),
        train_dataset=rows["train"],
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
    )
    trainer.train()
    model.generation_config.max_length = 40
    folder = tmp_path_factory.mktemp("keyword-model")
    trainer.save_model(folder)
    return folder


@pytest.fixture(scope="session")
def exported(trained, keyword_model, tmp_path_factory):
    """The fixtures' models, exported: exact and int8."""
    folder = tmp_path_factory.mktemp("exported")
    return SimpleNamespace(
        exact=inference.export_onnx(trained.folder, folder / "exact", int8=False),
        int8=inference.export_onnx(trained.folder, folder / "int8"),
        keywords=inference.export_ctranslate2(keyword_model, folder / "keywords"),
    )
