import json
import os
import random
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict, load_dataset
from safetensors.torch import load_file
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    T5Config,
    Trainer,
    set_seed,
)

from cookbook import data, features, inference, labels, training
from tests import small
from tests.small import SHIPPED

SMALL = Path(__file__).with_name("small.py")


def run_apart(kind, folder, *options):
    """Run in a process of its own: what other tests loaded into this one can move the last bit."""
    command = [sys.executable, str(SMALL), kind, str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory):
    """Of either kind a run that nobody killed, and what is left of one killed in its last epoch."""

    @cache
    def made(kind):
        folder = tmp_path_factory.mktemp(kind)
        whole = run_apart(kind, folder / "whole")
        assert whole.returncode == 0, whole.stderr
        assert "Began with None" in whole.stdout
        killed = run_apart(kind, folder / "killed", "5")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (folder / "killed" / "model").exists()
        return kind, folder

    return made


@pytest.fixture(params=["classifier", "writer"])
def runs(request, runs_of):
    return runs_of(request.param)


def same(weights, others):
    return all(torch.equal(weights[name], others[name]) for name in weights)


def goes_on_from(runs, checkpoint, folder):
    """Whether the killed run, copied, ends with the weights of the whole one."""
    kind, origin = runs
    again = run_apart(kind, folder)
    assert again.returncode == 0, again.stderr
    assert f"Began with {checkpoint}" in again.stdout
    models = (path / "model" / "model.safetensors" for path in (origin / "whole", folder))
    return same(*map(load_file, models))


def test_a_killed_run_goes_on_to_the_same_model(runs, tmp_path):
    killed = shutil.copytree(runs[1] / "killed", tmp_path / "killed")
    assert goes_on_from(runs, "checkpoint-4", killed)


@pytest.mark.parametrize("runs", ["classifier"], indirect=True)
def test_a_torn_checkpoint_is_passed_over(runs, tmp_path):
    killed = shutil.copytree(runs[1] / "killed", tmp_path / "killed")
    state = killed / "checkpoints" / "checkpoint-4" / "trainer_state.json"
    state.write_text(state.read_text()[:100])
    shutil.copytree(killed / "checkpoints/checkpoint-2", killed / "checkpoints/checkpoint-best")
    assert goes_on_from(runs, "checkpoint-2", killed)


@pytest.mark.parametrize("runs", ["classifier"], indirect=True)
def test_another_run_s_checkpoints_are_moved_aside_not_gone_on_from(runs, tmp_path, capsys):
    killed = shutil.copytree(runs[1] / "killed", tmp_path / "killed")
    begun, _ = small.run("classifier", killed, num_train_epochs=1)
    assert begun is None
    assert "held checkpoints of another run" in capsys.readouterr().out
    assert (killed / "checkpoints.other-run-1" / "checkpoint-4").is_dir()


def interrupted(folder):
    os.makedirs(folder)
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_model_is_trained_once(few_titles, tmp_path, monkeypatch):
    splits = data.load_splits(few_titles.groupby("label").head(20))
    settings = {"max_steps": 1, **small.UNSCORED}

    def trainer(**more):
        return small.classifier(splits, tmp_path / "out" / "checkpoints", **settings, **more)

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    folder = training.train_once(trainer(), tmp_path / "out" / "model")
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert training.train_once(trainer(), folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        "model", "model.run.json", "notes.txt"
    ]  # fmt: skip
    # Killed when half is saved, what lies there is nobody's.
    other = trainer(learning_rate=1e-3)
    monkeypatch.setattr(other, "save_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train_once(other, folder)
    training.train_once(trainer(), folder)
    assert (folder.parent / "model.other-run-2").is_dir()
    with pytest.raises(ValueError, match="is the folder of the checkpoints"):
        training.train_once(trainer(), tmp_path / "out" / "checkpoints")


@pytest.mark.parametrize("runs", ["writer"], indirect=True)
def test_one_row_to_validate_on_is_enough_to_be_scored(runs):
    state = runs[1] / "whole" / "checkpoints" / "checkpoint-6" / "trainer_state.json"
    logged = set().union(*json.loads(state.read_text())["log_history"])
    assert {"eval_loss", "eval_f1@M", "eval_present_f1@5", "eval_meng_f1@O"} <= logged


def test_seq2seq_arguments_evaluate_what_is_written(tmp_path):
    args = training.seq2seq_arguments(tmp_path, per_device_batch_size=4)
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 64
    assert args.predict_with_generate
    assert args.metric_for_best_model == "f1@M"
    assert training.seq2seq_arguments(tmp_path, gradient_checkpointing=True).gradient_checkpointing


def test_bart_large_fits_a_t4_on_paper():
    with torch.device("meta"):
        large = BartForConditionalGeneration(BartConfig())
    posts = training.memory_estimate(large, 4, 128, 48)
    assert posts["optimizer"] == pytest.approx(8 * 0.406, rel=0.01)  # two moments, 4 bytes each
    assert posts["total"] == pytest.approx(posts.drop("total").sum())
    assert posts["total"] < 9
    whole = training.memory_estimate(large, 4, 1024, 64)
    checkpointed = training.memory_estimate(large, 4, 1024, 64, checkpointing=True)
    assert whole["total"] < 15
    assert checkpointed["activations"] < whole["activations"] / 5


@pytest.mark.parametrize(
    "config", [BertConfig(num_hidden_layers=1), T5Config(num_layers=1, vocab_size=9)]
)
def test_other_models_are_refused_on_paper(config):
    kinds = {"bert": AutoModelForSequenceClassification, "t5": AutoModelForSeq2SeqLM}
    with torch.device("meta"):
        model = kinds[config.model_type].from_config(config)
    with pytest.raises(ValueError, match=rf"\({config.model_type}\) isn't covered.*BART"):
        training.memory_estimate(model, 4, 128, 48)


@pytest.fixture
def base(tmp_path):
    """The folder of a tiny encoder, and a Trainer's folder with a checkpoint."""
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    BertModel(config).save_pretrained(tmp_path / "base")
    training.last_checkpoint(of_base(tmp_path))
    state = tmp_path / "out" / "checkpoint-2" / "trainer_state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    return tmp_path


def of_base(folder, names=("x", "y"), ids=(0, 1), **settings):
    """A Trainer, ready to train, of a classifier whose head is new, without a seed."""
    maps = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    rows = Dataset.from_dict({"input_ids": [[1, 2], [3]], "label": list(ids)})
    return Trainer(
        model=BertForSequenceClassification.from_pretrained(folder / "base", **maps),
        args=training.training_arguments(folder / "out", **settings),
        train_dataset=rows,
        eval_dataset=rows,
    )


def test_the_same_run_goes_on_though_its_new_head_differs(base):
    expected = str(base / "out" / "checkpoint-2")
    assert training.last_checkpoint(of_base(base)) == expected
    assert training.last_checkpoint(of_base(base, logging_steps=7)) == expected


@pytest.mark.parametrize(
    "other", [{"names": ("y", "x")}, {"ids": (1, 0)}, {"seed": 1}, {"learning_rate": 1e-3}]
)
def test_another_run_does_not_go_on(base, other):
    assert training.last_checkpoint(of_base(base, **other)) is None
    assert (base / "out.other-run-1" / "checkpoint-2").is_dir()


def test_a_run_does_not_go_on_from_a_base_model_with_other_weights(base):
    model = BertModel.from_pretrained(base / "base")
    model.encoder.layer[0].output.dense.weight.data += 1
    model.save_pretrained(base / "base")
    assert training.last_checkpoint(of_base(base)) is None


@pytest.mark.parametrize(
    ("capability", "precision"), [((6, 1), "no"), ((7, 5), "fp16"), ((8, 0), "bf16")]
)
def test_precision_follows_the_gpu(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert training.mixed_precision() == precision


@pytest.mark.parametrize(("amx", "precision"), [(False, "no"), (True, "bf16")])
def test_precision_follows_the_instructions_of_the_cpu(monkeypatch, amx, precision):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert training.mixed_precision() == precision


def test_arguments_carry_the_precision(monkeypatch, tmp_path):
    for precision in ("fp16", "bf16", "no"):
        monkeypatch.setattr(training, "mixed_precision", lambda: precision)  # noqa: B023
        args = training.training_arguments(tmp_path)
        assert (args.fp16, args.bf16) == (precision == "fp16", precision == "bf16")


@pytest.mark.parametrize("arguments", [training.training_arguments, training.seq2seq_arguments])
def test_no_attention_is_left_that_plans_anew_for_every_shape(arguments, tmp_path):
    torch.backends.cuda.enable_cudnn_sdp(True)
    arguments(tmp_path)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_padded_to_multiples_as_on_a_gpu_a_run_has_few_shapes(tokenizer):
    posts = data.load_splits(SHIPPED / "tech_keywords.csv", label=None, keywords="keywords")
    posts = DatasetDict(train=posts["train"].select(range(800)))
    rows = features.tokenize_seq2seq(posts, tokenizer)["train"]
    rows = rows.select_columns(["input_ids", "attention_mask", "labels"])

    def shapes(collate, columns):
        batches = [collate([rows[i + j] for j in range(4)]) for i in range(0, len(rows), 4)]
        return {tuple(batch[column].shape for column in columns) for batch in batches}

    texts, both = ["input_ids"], ["input_ids", "labels"]
    eights = shapes(DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8), both)
    assert all(shape[1] % 8 == 0 for pair in eights for shape in pair)
    assert len(eights) < len(shapes(DataCollatorForSeq2Seq(tokenizer), both)) / 3
    rows = rows.remove_columns("labels")
    assert len(shapes(DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8), texts)) <= 15


def benchmark(*options):
    """Run the benchmark of a GPU on a CPU; return what it says line by line."""
    script = Path(__file__).parent / "benchmarks" / "bench_gpu.py"
    run = subprocess.run(
        [sys.executable, script, *options],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    return run.stdout.splitlines()


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_tiny_on_a_cpu():
    lines = benchmark("--tiny")
    assert [line.split()[0] for line in lines[:5]] == [
        *("model", "device", "precision", "versions", "date")
    ]
    figures = {name: float(value) for name, value in (line.split(": ") for line in lines[5:])}
    for model in ("minilm", "albert", "deberta", "bart_base", "bart_large"):
        answering = "keywords" if "bart" in model else "classify"
        for way in ("loop", "fp32", "bf16", "fp16"):
            assert figures[f"gpu_{answering}_{model}_{way}_per_second"] > 0
        for precision in ("fp32", "bf16", "bf16_cudnn"):
            assert figures[f"gpu_train_{model}_{precision}_per_second"] > 0
            assert figures[f"gpu_train_{model}_{precision}_losses_finite"] == 1
    long = "gpu_train_bart_large_long{}_bf16_estimate_gigabytes"
    assert 0 < figures[long.format("_checkpointed")] < figures[long.format("")]


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_stops_when_its_time_is_over():
    *lines, last = benchmark("--tiny", "--minutes", "0.001")  # less than it takes to build a model
    assert lines[0] == "model      random weights"
    assert last.startswith("stopped after 0.001 minutes")
    assert benchmark() == []  # without a GPU there is nothing to measure


def test_arguments_keep_the_effective_batch_and_take_any_setting(tmp_path):
    args = training.training_arguments(
        tmp_path,
        per_device_batch_size=4,
        num_train_epochs=7,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 32
    assert args.num_train_epochs == 7
    assert args.eval_strategy == "no"
    with pytest.raises(ValueError, match="isn't a multiple of per_device_batch_size=5"):
        training.training_arguments(tmp_path, per_device_batch_size=5)


def test_warm_up_is_a_tenth_of_the_run(trained):
    assert trained.warmup == -(-trained.steps // 10)


def test_batches_hold_texts_of_like_length(trained):
    def padding(batches):
        return sum(max(batch) * len(batch) for batch in batches) / sum(map(sum, batches))

    rows = [length for batch in trained.lengths for length in batch]
    random.Random(0).shuffle(rows)
    assert padding(trained.lengths) < 1.2
    assert padding([rows[i : i + 32] for i in range(0, len(rows), 32)]) > 1.3


def test_the_best_checkpoint_is_the_one_that_is_kept(trained):
    scores = [log["eval_f1_macro"] for log in trained.log if "eval_f1_macro" in log]
    *epochs, evaluated_after_training = scores
    assert len(epochs) == 2
    assert trained.best == max(epochs)
    assert evaluated_after_training == pytest.approx(max(epochs))


def test_figures_are_logged_per_label(trained):
    logged = set().union(*trained.log)
    assert {"eval_accuracy_clickbait", "eval_accuracy_factual", "eval_accuracy"} <= logged


def test_the_same_seed_gives_the_same_head_and_another_another(minilm):
    def head(seed):
        set_seed(seed)
        return AutoModelForSequenceClassification.from_pretrained(minilm).classifier.weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_figures_over_seeds_are_one_row_each():
    table = training.over_seeds(lambda seed: {"accuracy": seed / 10}, [1, 2, 3])
    assert table.index.tolist() == [1, 2, 3]
    assert table.agg(["mean", "std"])["accuracy"].round(3).tolist() == [0.2, 0.1]


def test_the_run_is_described_with_model_device_precision_and_versions():
    lines = training.describe_run("some/model").splitlines()
    assert [line.split()[0] for line in lines] == ["model", "device", "precision", "versions"]
    assert f"torch {torch.__version__}" in lines[3]


def test_a_table_larger_than_memory_is_streamed_through_to_the_trainer(minilm, titles, tmp_path):
    rows = titles[["text", "label"]].sample(frac=1, random_state=0, ignore_index=True)
    rows.loc[2100, "text"] = "word " * 600
    for part in range(3):
        rows.iloc[800 * part : 800 * part + 800].to_parquet(tmp_path / f"train-{part}.parquet")
    files = {"train": str(tmp_path / "train-*.parquet")}
    splits = load_dataset("parquet", data_files=files, streaming=True)
    with pytest.raises(ValueError, match="give the names"):
        labels.encode_labels(splits)
    wrong = labels.encode_labels(splits, names=["bait", "factual"])
    with pytest.raises(ValueError, match=r"Row \d of split 'train': 'clickbait' isn't in"):
        list(wrong["train"])
    names = ["clickbait", "factual"]
    encoded = labels.encode_labels(splits, names=names)
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokens = features.tokenize(encoded, tokenizer)
    assert labels.label_maps(tokens) == labels.label_maps(encoded)
    with pytest.warns(UserWarning, match=r"1 of \d+ texts in split 'train\[\d+:\]' are longer"):
        assert max(row["length"] for row in tokens["train"]) == 512
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        minilm, dtype="float32", **labels.label_maps(encoded)
    )
    model.base_model.requires_grad_(False)
    model.base_model.encoder.layer[-1].requires_grad_(True)
    steps = {"max_steps": 20, "train_sampling_strategy": "random", "eval_strategy": "no"}
    steps |= {"save_strategy": "no", "load_best_model_at_end": False, "learning_rate": 1e-3}
    trainer = Trainer(
        model,
        training.training_arguments(tmp_path / "out", **steps),
        train_dataset=tokens["train"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    again = features.tokenize(encoded, tokenizer)["train"]
    others = features.tokenize(encoded, tokenizer)["train"].skip(5)
    assert training._fingerprint(again) == training._fingerprint(tokens["train"])
    assert training._fingerprint(others) != training._fingerprint(again)
    held = rows.iloc[2400:2600]
    found = inference.classify(held["text"], tmp_path / "model")["label"]
    assert (found.to_numpy() == held["label"].to_numpy()).mean() > 0.75
