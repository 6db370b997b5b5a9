import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartForConditionalGeneration,
    set_seed,
)

from cookbook import training

TRAIN_SMALL = Path(__file__).with_name("train_small.py")
TRAIN_SEQ2SEQ = Path(__file__).with_name("train_small_seq2seq.py")


def train(*arguments, script=TRAIN_SMALL):
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("whole")
    done = train(folder)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "model" / "model.safetensors")


def same(weights, others):
    return all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_killed_run_goes_on_to_the_same_model(whole, tmp_path):
    # 4 steps an epoch: killed in the middle of the third, with two checkpoints on disk.
    assert train(tmp_path, 10).returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    resumed = train(tmp_path)
    assert "resumed from checkpoint-8" in resumed.stdout, resumed.stderr
    assert same(whole, load_file(tmp_path / "model" / "model.safetensors"))


def test_a_torn_checkpoint_is_passed_over(whole, tmp_path):
    assert train(tmp_path, 10).returncode == -signal.SIGKILL
    state = tmp_path / "checkpoints" / "checkpoint-8" / "trainer_state.json"
    state.write_text(state.read_text()[:100])
    resumed = train(tmp_path)
    assert "resumed from checkpoint-4" in resumed.stdout, resumed.stderr
    assert same(whole, load_file(tmp_path / "model" / "model.safetensors"))


def test_another_run_s_checkpoints_are_moved_aside_not_gone_on_from(tmp_path):
    assert train(tmp_path, 6).returncode == -signal.SIGKILL
    other = train(tmp_path, 0, 1)
    assert "held checkpoints of another run" in other.stdout, other.stderr
    assert "resumed from None" in other.stdout
    assert (tmp_path / "checkpoints.other-run-1" / "checkpoint-4").is_dir()


def test_a_killed_seq2seq_run_goes_on_to_the_same_model(tmp_path):
    whole = train(tmp_path / "whole", script=TRAIN_SEQ2SEQ)
    assert whole.returncode == 0, whole.stderr
    # One row to validate on is enough to be scored.
    for figure in ("eval_loss", "eval_f1@M", "eval_present_f1@5", "eval_meng_f1@O"):
        assert figure in whole.stdout
    killed = tmp_path / "killed"
    assert train(killed, 6, script=TRAIN_SEQ2SEQ).returncode == -signal.SIGKILL
    resumed = train(killed, script=TRAIN_SEQ2SEQ)
    assert "resumed from checkpoint-4" in resumed.stdout, resumed.stderr
    weights = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    assert same(weights, load_file(killed / "model" / "model.safetensors"))


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
    args, steps = trained.trainer.args, trained.trainer.state.max_steps
    assert args.get_warmup_steps(steps) == -(-steps // 10)


def test_batches_hold_texts_of_like_length(trained):
    padded = sum(mask.numel() for mask in trained.masks)
    tokens = sum(int(mask.sum()) for mask in trained.masks)
    assert padded / tokens < 1.2
    lengths = trained.splits["train"]["length"][:]
    in_order = sum(max(lengths[i : i + 32]) * len(lengths[i : i + 32]) for i in range(0, 480, 32))
    assert in_order / tokens > 1.3


def test_the_best_checkpoint_is_the_one_that_is_kept(trained):
    state = trained.trainer.state
    scores = [log["eval_f1_macro"] for log in state.log_history if "eval_f1_macro" in log]
    *epochs, evaluated_after_training = scores
    assert len(epochs) == 2
    assert state.best_metric == max(epochs)
    assert evaluated_after_training == pytest.approx(max(epochs))


def test_figures_are_logged_per_label(trained):
    logged = set().union(*trained.trainer.state.log_history)
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
