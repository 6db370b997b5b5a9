"""The small fine-tunings that tests share; as a program it can be killed at a step.

Usage: small.py classifier|writer OUTPUT [KILL_AT_STEP]
"""

import os
import signal
import sys
from pathlib import Path

import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Seq2SeqTrainer,
    Trainer,
    TrainerCallback,
    set_seed,
)

from cookbook import data, features, labels, metrics, offline, training

SHIPPED = Path(__file__).resolve().parent.parent / "data"
UNSCORED = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}


def classifier(splits, folder, seed=0, **settings):
    """A Trainer that fine-tunes MiniLM, its embeddings frozen, on texts with labels."""
    tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
    splits = features.tokenize(labels.encode_labels(splits), tokenizer)
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        offline.minilm(), **labels.label_maps(splits)
    )
    model.base_model.embeddings.requires_grad_(False)
    return Trainer(
        model=model,
        args=training.training_arguments(folder, seed=seed, disable_tqdm=True, **settings),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=metrics.compute_metrics(list(model.config.id2label.values())),
    )


def tiny_several(folder, tokenizer, names, seed=0, problem_type="multi_label_classification"):
    """Save an untrained BERT of a few thousand weights that gives a text any of these labels."""
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        problem_type=problem_type,
    )
    set_seed(seed)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_base(folder, texts):
    """Save an untrained BERT of a few thousand weights that reads these texts sign by sign."""
    signs = sorted({sign for text in texts for sign in text if not sign.isspace()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{s}" for s in signs)]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    set_seed(0)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def writer(splits, folder, seed=0, **settings):
    """A trainer of the small BART, its embeddings frozen, on texts with keywords."""
    tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
    set_seed(seed)
    model = offline.warm_start_bart(splits["train"]["text"][:], splits["train"]["keywords"][:])
    start = model.config.decoder_start_token_id
    rows = features.tokenize_seq2seq(splits, tokenizer, decoder_start_token_id=start)
    model.get_input_embeddings().requires_grad_(False)
    return Seq2SeqTrainer(
        model=model,
        args=training.seq2seq_arguments(folder, seed=seed, disable_tqdm=True, **settings),
        train_dataset=rows["train"],
        eval_dataset=rows.get("validation"),
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        compute_metrics=metrics.compute_keyphrase_metrics(tokenizer),
    )


def marker(splits, folder, seed=0, **settings):
    """A Trainer of MiniLM, its embeddings frozen, that marks keywords."""
    tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
    rows = features.tokenize_marker(splits, tokenizer)
    set_seed(seed)
    model = AutoModelForTokenClassification.from_pretrained(offline.minilm(), **features.MARKS)
    model.base_model.embeddings.requires_grad_(False)
    return Trainer(
        model=model,
        args=training.training_arguments(folder, seed=seed, disable_tqdm=True, **settings),
        train_dataset=rows["train"],
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
    )


def posts(rows):
    """The shortest shipped posts whose keywords all stand in the text as they are."""
    table = pd.read_csv(SHIPPED / "tech_keywords.csv", keep_default_na=False)
    literal = [
        all(keyword in text for keyword in cell.split(", "))
        for text, cell in zip(table["text"], table["keywords"], strict=True)
    ]
    order = table["text"].str.len().argsort(kind="stable")
    return table.iloc[order][pd.Series(literal)[order].to_numpy()].head(rows).reset_index(drop=True)


class Kill(TrainerCallback):
    """Ends the process at a step, without a chance to clean up."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def run(kind, output, kill_at=0, **settings):
    """Go on with a short run, or begin it; return the checkpoint it began with and the Trainer.

    Two steps an epoch, three epochs, a checkpoint after each.
    """
    if kind == "classifier":
        titles = pd.read_csv(SHIPPED / "clickbait_titles.csv").groupby("label").head(40)
        splits = data.load_splits(titles)
        make, settings = classifier, {"num_train_epochs": 3, "learning_rate": 1e-4, **settings}
    else:
        rows = Dataset.from_pandas(posts(17))
        splits = DatasetDict(train=rows.select(range(16)), validation=rows.select([16]))
        make, settings = writer, {"num_train_epochs": 3, "learning_rate": 1e-3, **settings}
        settings |= {"batch_size": 8, "generation_max_length": 20}
    trainer = make(splits, Path(output) / "checkpoints", seed=3, **settings)
    trainer.add_callback(Kill(kill_at))
    start = training.last_checkpoint(trainer)
    trainer.train(resume_from_checkpoint=start)
    trainer.save_model(Path(output) / "model")
    return start and Path(start).name, trainer


if __name__ == "__main__":
    begun, _ = run(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
    print(f"Began with {begun}")
