"""Speed of writing keywords beside the way the articles do it; one line a figure.

The ratio comes from one run with the same model, texts and machine. Run on an idle machine:
`make bench`. It takes the model that `make demo` saved, or trains one for a minute.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import disable_progress_bars
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from cookbook import data, features, inference, metrics, offline, training

SAVED = Path(__file__).resolve().parents[2] / "out" / "keywords" / "model"
TEXTS = 200


def trained(splits, tokenizer):
    """Return a model that has seen a thousand posts: enough to write keywords and stop."""
    set_seed(0)
    train = splits["train"]
    model = offline.warm_start_bart(train["text"][:], train["keywords"][:])
    start = model.config.decoder_start_token_id
    rows = features.tokenize_seq2seq(splits, tokenizer, decoder_start_token_id=start)
    model.get_input_embeddings().requires_grad_(False)
    model.model.encoder.layers[:3].requires_grad_(False)
    with TemporaryDirectory() as folder:
        trainer = Seq2SeqTrainer(
            model=model,
            args=training.seq2seq_arguments(
                folder,
                batch_size=8,
                max_steps=125,
                learning_rate=1e-3,
                eval_strategy="no",
                save_strategy="no",
                load_best_model_at_end=False,
                disable_tqdm=True,
            ),
            train_dataset=rows["train"],
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        )
        trainer.remove_callback(PrinterCallback)  # one line a figure, nothing else
        trainer.train()
    return model.eval()


@torch.inference_mode()
def article(texts, model, tokenizer):
    """Write keywords the way that the articles do: one text at a time, as the model is set up."""
    lines = []
    for text in texts:
        batch = tokenizer(text, return_tensors="pt", truncation=True, return_token_type_ids=False)
        ids = model.generate(**batch.to(model.device))[0]
        lines.append(tokenizer.decode(ids, skip_special_tokens=True))
    return [data.split_keywords(line) for line in lines]


def main():
    """Measure and print."""
    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    splits = data.load_splits(
        data.shipped("tech_keywords.csv"), label=None, keywords="keywords", seed=0
    )
    if SAVED.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(SAVED)
        model = AutoModelForSeq2SeqLM.from_pretrained(SAVED).eval()
    else:
        tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
        model = trained(splits, tokenizer)
    test = splits["test"].select(range(TEXTS))
    texts = test["text"][:]
    gold = [data.split_keywords(cell) for cell in test["keywords"]]
    ways = {"article": article, "cookbook": inference.extract_keywords}
    seconds, f1 = {}, {}
    for name, way in ways.items():
        way(texts[:20], model, tokenizer)  # warm up
        start = time.perf_counter()
        found = way(texts, model, tokenizer)
        seconds[name] = time.perf_counter() - start
        f1[name] = metrics.keyphrase_metrics(texts, found, gold)["f1@M"]
    figures = {
        "keywords_generate_ratio": seconds["article"] / seconds["cookbook"],
        "keywords_generate_f1_article": f1["article"],
        "keywords_generate_f1_cookbook": f1["cookbook"],
        "keywords_texts_per_second": TEXTS / seconds["cookbook"],
    }
    for name, value in figures.items():
        print(f"{name}: {value:.4g}", flush=True)


if __name__ == "__main__":
    main()
