"""What a GPU gives beside the way the articles do it; one line a figure, eight minutes at most.

    python tests/benchmarks/bench_gpu.py

Weights are drawn at random, since neither speed nor memory depends on them, and nothing is fetched:
the titles and posts are the shipped ones, the tokenizer is the one that pip brings. Fine-tuning has
a T4's 15 GB to use. `--tiny` tries every step on a CPU, with models too small to measure.
"""

import argparse
import gc
import math
import signal
import sys
import time
from datetime import date
from tempfile import TemporaryDirectory

import torch
from bench_keywords import article as keywords_article
from datasets import Dataset, DatasetDict, disable_progress_bars
from transformers import (
    AlbertConfig,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    DebertaV2Config,
    Trainer,
    pipeline,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from cookbook import data, features, inference, labels, offline, tables, training

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
T4 = 15e9  # bytes that it leaves to PyTorch
ALONE = 50  # texts for the article's ways, which take one at a time


def encoders(tiny):
    """Return the classifiers' configurations; ALBERT with as many words as the tokenizer has."""
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    sizes = {"minilm": (6, 384, 12, 1536), "albert": (12, 768, 12, 3072)}
    sizes["deberta"] = sizes["albert"]
    if tiny:
        sizes = dict.fromkeys(sizes, (2, 32, 2, 32))
    minilm, albert, deberta = (dict(zip(names, size, strict=True)) for size in sizes.values())
    deberta |= {"relative_attention": True, "position_buckets": 256, "pos_att_type": ["p2c", "c2p"]}
    deberta |= {"norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 0}
    return {
        "minilm": BertConfig(**minilm),
        "albert": AlbertConfig(vocab_size=30522, embedding_size=128, **albert),
        "deberta": DebertaV2Config(position_biased_input=False, **deberta),
    }


def writers(tiny):
    """Return the configurations of the two BARTs, with the tokenizer's special tokens."""
    tokens = {"pad_token_id": 0, "bos_token_id": 101, "decoder_start_token_id": 101}
    tokens |= {"eos_token_id": 102, "forced_eos_token_id": 102}
    sizes = {"bart_base": (768, 6, 12, 3072), "bart_large": (1024, 12, 16, 4096)}
    made = {}
    for name, size in sizes.items():
        width, *rest = (32, 1, 2, 32) if tiny else size
        parts = dict(zip(("layers", "attention_heads", "ffn_dim"), rest, strict=True))
        sides = {f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in parts.items()}
        made[name] = BartConfig(d_model=width, **sides, **tokens)
    return made


def drawn(kind, config):
    """Return a model of random weights; what went before it is let go."""
    if DEVICE == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
    set_seed(0)
    with torch.device(DEVICE):
        return kind.from_config(config, dtype=torch.float32).eval()


def per_second(way, texts):
    """Return the best of two runs, after one that loads what the GPU needs."""
    way(texts)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        way(texts)
        seconds.append(time.perf_counter() - start)
    return len(texts) / min(seconds)


def compared(name, model, loop, batches, texts):
    """Measure the article's loop, then batches in each precision, and how much faster they are."""
    alone = per_second(loop, texts[:ALONE])
    yield f"{name}_loop_per_second", alone
    fastest = 0.0
    for precision, dtype in DTYPES.items():
        model.to(dtype)
        speed = per_second(batches, texts)
        fastest = max(fastest, speed)
        yield f"{name}_{precision}_per_second", speed
    yield f"{name}_ratio", fastest / alone


def classifying(tokenizer, tiny, _):
    """Measure `classify`."""
    titles = tables.read(data.shipped("clickbait_titles.csv"))["text"].tolist()
    for name, config in encoders(tiny).items():
        model = drawn(AutoModelForSequenceClassification, config)
        single = pipeline("text-classification", model=model, tokenizer=tokenizer, device=DEVICE)
        yield from compared(
            f"classify_{name}",
            model,
            lambda texts, single=single: [single(text)[0]["label"] for text in texts],
            lambda texts, model=model: inference.classify(texts, model, tokenizer),
            titles[:4] if tiny else titles,
        )


def writing(tokenizer, tiny, _):
    """Measure `extract_keywords`."""
    posts = tables.read(data.shipped("tech_keywords.csv"))["text"].tolist()
    for name, config in writers(tiny).items():
        model = drawn(AutoModelForSeq2SeqLM, config)
        written = 2 if tiny else 24  # tokens of every text
        model.generation_config.update(max_new_tokens=written, min_new_tokens=written)
        yield from compared(
            f"keywords_{name}",
            model,
            lambda texts, model=model: keywords_article(texts, model, tokenizer),
            # With `present_only`, a model of random weights is stopped early: it repeats itself.
            lambda texts, model=model: inference.extract_keywords(
                texts, model, tokenizer, present_only=False
            ),
            posts[: 4 if tiny else 512],
        )


def settings(precision, steps):
    """Return what differs from the notebooks' own settings while it is measured."""
    return {
        "max_steps": steps,
        "fp16": precision == "fp16",
        "bf16": precision == "bf16",
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
    }


def precisions(tiny):
    """Return what to train in: each precision, and bf16 once more with cuDNN's attention."""
    plain = [(name, False) for name in DTYPES if not (tiny and name == "fp16")]  # no CPU trains so
    return [*plain, ("bf16", True)]


def fine_tuned(name, model, args, rows, collator, cudnn=False):
    """Measure a fine-tuning: speed, memory, and whether every loss is a number."""
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    trainer = Trainer(model, args, collator, rows)
    trainer.remove_callback(PrinterCallback)  # one line a figure, nothing else
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = trainer.train().metrics["train_runtime"]
    rows_a_step = args.per_device_train_batch_size * args.gradient_accumulation_steps
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    yield f"{name}_per_second", args.max_steps * rows_a_step / seconds
    yield f"{name}_peak_gigabytes", torch.cuda.max_memory_allocated() / 1e9
    yield f"{name}_losses_finite", all(map(math.isfinite, losses))


def training_titles(tokenizer, tiny, folder):
    """Measure the fine-tuning of notebook clickbait/2."""
    splits = data.load_splits(data.shipped("clickbait_titles.csv"), group="pair")
    rows = features.tokenize(labels.encode_labels(splits), tokenizer)["train"]
    for name, config in encoders(tiny).items():
        for precision, cudnn in precisions(tiny):
            model = drawn(AutoModelForSequenceClassification, config)
            model.base_model.embeddings.requires_grad_(False)
            size = {"batch_size": 4} if tiny else {}
            steps = settings(precision, 1 if tiny else 88)
            args = training.training_arguments(folder, **size, **steps)
            multiple = None if args.use_cpu else 8  # as in the notebook
            collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)
            name_of_run = f"train_{name}_{precision}{'_cudnn' * cudnn}"
            yield from fine_tuned(name_of_run, model, args, rows, collator, cudnn)


def training_posts(tokenizer, tiny, folder):
    """Measure the fine-tuning of notebook keywords/2, and posts of 1,000 tokens."""
    splits = data.load_splits(data.shipped("tech_keywords.csv"), label=None, keywords="keywords")
    posts = splits["train"].select(range(8 if tiny else 256))
    joined = [" ".join([text] * (2 if tiny else 99)) for text in posts["text"][:8]]  # then cut
    long = Dataset.from_dict({"text": joined, "keywords": posts["keywords"][:8]})
    for name, config in writers(tiny).items():
        runs = [("", posts, *each, False) for each in precisions(tiny)]
        half = "bf16" if tiny else "fp16"
        runs += [("_long", long, half, False, checkpointing) for checkpointing in (False, True)]
        for suffix, part, precision, cudnn, checkpointing in runs:
            model = drawn(AutoModelForSeq2SeqLM, config)
            prepared = features.tokenize_seq2seq(
                DatasetDict(train=part), tokenizer, max_length=1000, decoder_start_token_id=101
            )["train"]
            args = training.seq2seq_arguments(
                folder,
                batch_size=4 if tiny else 8 if suffix else 64,
                per_device_batch_size=4,
                gradient_checkpointing=checkpointing,
                **settings(precision, 1 if tiny else 4),
            )
            multiple = None if args.use_cpu else 8
            collator = DataCollatorForSeq2Seq(tokenizer, model, pad_to_multiple_of=multiple)
            run = f"train_{name}{suffix}{'_checkpointed' * checkpointing}_{precision}"
            run += "_cudnn" * cudnn
            longest = max(prepared["length"]), max(prepared["target_length"])
            told = training.memory_estimate(
                model, 4, *longest, half=precision != "fp32", checkpointing=checkpointing
            )
            yield f"{run}_estimate_gigabytes", told["total"]
            yield from fine_tuned(run, model, args, prepared, collator, cudnn)


def main():
    """Measure and print, until all is measured or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="try every step, on a CPU")
    parser.add_argument("--minutes", type=float, default=8, help="then it stops")
    options = parser.parse_args()
    if DEVICE == "cpu" and not options.tiny:
        print("There is no GPU: nothing is measured. See --tiny.", file=sys.stderr)
        return

    def stop(*_):
        print(f"stopped after {options.minutes:g} minutes: the rest isn't measured", flush=True)
        sys.exit()

    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(training.describe_run("random weights"))
    print(f"date       {date.today()}", flush=True)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
    tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
    with TemporaryDirectory() as folder:
        for section in (classifying, writing, training_titles, training_posts):
            if section is training_titles and DEVICE == "cuda":
                share = T4 / torch.cuda.get_device_properties(0).total_memory
                torch.cuda.set_per_process_memory_fraction(min(1, share))
            try:
                for figure, value in section(tokenizer, options.tiny, folder):
                    print(f"gpu_{figure}: {value:.4g}", flush=True)
            except torch.OutOfMemoryError as error:
                print(f"gpu_{section.__name__}: out of memory ({error})", flush=True)


if __name__ == "__main__":
    main()
