"""What the tests that run notebooks share."""

import importlib.util
import json
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest

from cookbook import inference, metrics, tables, words

ROOT = Path(__file__).resolve().parent.parent
NOWHERE = "http://127.0.0.1:9"  # nobody listens there


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "notebooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


address, runner = load("address"), load("run")


def outputs(path):
    """Return what the cells of a notebook printed and showed."""
    cells = nbformat.read(path, as_version=4).cells
    found = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in found)


def kill(name, folder, **parameters):
    """Run a notebook in a process of its own; kill it and its kernel at the first checkpoint."""
    settings = json.dumps(runner.DEMO[name] | parameters)  # JSON is YAML too
    notebook, copy = ROOT / "notebooks" / f"{name}.ipynb", folder / "killed.ipynb"
    command = [sys.executable, "-m", "papermill", notebook, copy, "--cwd", folder, "-y", settings]
    checkpoints = folder / runner.DEMO[name]["output_dir"] / "checkpoints"
    with (folder / "log.txt").open("w") as log:
        run = psutil.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 600  # for a hang: it takes seconds
    try:
        while not list(checkpoints.glob("**/trainer_state.json")):
            assert time.monotonic() < deadline
            with suppress(psutil.TimeoutExpired):
                run.wait(0.02)
                pytest.fail((folder / "log.txt").read_text())  # it ended before a checkpoint
    finally:
        for process in (*run.children(recursive=True), run) if run.is_running() else ():
            process.kill()
    assert run.wait() == -signal.SIGKILL
    assert not (checkpoints.parent / "model").exists()


def gone_on_from(executed):
    """The step of the checkpoint from which a run went on."""
    return int(re.findall(r"Going on from .*-(\d+)", outputs(executed))[0])


def challenge_passed(answer):
    """The share of the challenge titles that get their label."""
    rows = tables.read(ROOT / "data" / "clickbait_challenge.csv")
    return (rows["label"].to_numpy() == pd.Series(answer(rows["text"].tolist())).to_numpy()).mean()


def challenge_f1(model):
    """F1@M of a keyword model on the challenge posts."""
    rows = tables.read(ROOT / "data" / "keywords_challenge.csv")
    found = inference.extract_keywords(rows["text"], model)
    gold = [words.split_keywords(cell) for cell in rows["keywords"]]
    return metrics.keyphrase_metrics(rows["text"], found, gold)["f1@M"]
