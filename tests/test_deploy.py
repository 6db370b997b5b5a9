"""deploy/: the service in a clean environment, and the script that trains a model for it."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import venv
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import pytest

from cookbook import data, inference, metrics

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
TEXTS = [
    "Council approves budget for 2027",
    "",
    "This one trick will change how you cook rice",
    "You won't believe what the mayor said about " + "the old harbour and " * 80,
    "Ärger über 🚲 und Straßen\r\nin Köln",
    " \n",
    *[f"Number {i} of the reasons why bakers rescue a ferry" for i in range(20)],
]


@pytest.fixture(scope="session")
def clean_python(built):
    """An environment with nothing but what the service asks for.

    The runtime is of our version: in int8 two of them round apart, by more than a thousandth.
    """

    def make(folder):
        venv.create(folder, with_pip=True)
        same = [f"{name}=={version(name)}" for name in ("onnxruntime", "tokenizers")]
        wanted = ["install", "-q", "--no-compile", "-r", DEPLOY / "requirements.txt", *same]
        subprocess.run([folder / "bin" / "python", "-m", "pip", *wanted], check=True)

    return built("clean-python", make) / "bin" / "python"


@pytest.fixture(scope="module")
def service(clean_python, exported):
    """The address of the service, started for the exported fixture."""
    command = [clean_python, "-m", "uvicorn", "service:app", "--port", "0", "--no-access-log"]
    env = {**os.environ, "MODEL": str(exported.int8), "MOST_TEXTS": "50", "MOST_BYTES": "20000"}
    with subprocess.Popen(command, cwd=DEPLOY, env=env, stderr=subprocess.PIPE, text=True) as run:
        addresses = (re.search(r"running on (\S+)", line) for line in run.stderr)
        yield next(filter(None, addresses))[1]
        run.terminate()


def ask(url, body=None):
    """Return status and answer; a body that is no text is sent as JSON."""
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, sent)) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_environment_is_clean(clean_python):
    code = "import importlib.util as u; print([n for n in %r if u.find_spec(n)])"
    absent = ["torch", "transformers", "pandas", "cookbook"]
    found = subprocess.check_output([clean_python, "-c", code % absent], text=True, cwd=DEPLOY)
    assert found.strip() == "[]"


def test_the_service_answers_as_the_package_does(service, exported):
    assert ask(f"{service}/health") == (200, {"status": "ok", "labels": ["clickbait", "factual"]})
    status, said = ask(f"{service}/classify", {"texts": TEXTS})
    assert status == 200
    ours = inference.classify(TEXTS, exported.int8)
    for theirs, text, (_, row) in zip(said["answers"], TEXTS, ours.iterrows(), strict=True):
        if text.strip():
            assert theirs["label"] == row["label"]
            assert theirs["score"] == pytest.approx(row["score"], abs=1e-5)
            wanted = {name: row[name] for name in ("clickbait", "factual")}
            assert theirs["scores"] == pytest.approx(wanted, abs=1e-5)
        else:
            assert theirs == {"label": None, "score": None, "scores": {}}
    assert ask(f"{service}/classify", {"texts": []}) == (200, {"answers": []})


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"texts=Council", 400, "Send JSON"),
        (b"\xff\xfe", 400, "Send JSON"),
        (b"[" * 5000, 400, "Send JSON"),
        ({"text": ["A title"]}, 400, "Send JSON"),
        ({"texts": "A title"}, 422, "no list of texts"),
        ({"texts": ["A title", None]}, 422, "Text 1 is no text, but null"),
        ({"texts": ["\ud83d"]}, 422, "Text 0 is no text"),
        ({"texts": ["A title"] * 51}, 413, "at most 50"),
        ({"texts": ["A long title. " * 2000]}, 413, "at most 20,000 bytes"),
    ],
)
def test_bad_input_is_refused_in_words(service, body, status, told):
    found, said = ask(f"{service}/classify", body)
    assert found == status
    assert told in said
    assert ask(f"{service}/health")[0] == 200


def test_it_answers_events_of_a_function_too(clean_python, exported):
    code = (
        "import json, service\n"
        "ask = lambda body: service.handler({'body': body}, None)\n"
        "print(json.dumps([ask(json.dumps({'texts': ['Council approves budget']})), ask('{}')]))"
    )
    env = {**os.environ, "MODEL": str(exported.int8)}
    good, bad = json.loads(
        subprocess.check_output([clean_python, "-c", code], text=True, cwd=DEPLOY, env=env)
    )
    label = inference.classify(["Council approves budget"], exported.int8)["label"][0]
    assert json.loads(good["body"])["answers"][0]["label"] == label
    assert (good["statusCode"], bad["statusCode"]) == (200, 400)


def test_a_folder_that_is_no_export_is_refused(clean_python, trained):
    env = {**os.environ, "MODEL": str(trained.folder)}
    run = [clean_python, "-c", "import service"]
    done = subprocess.run(run, text=True, cwd=DEPLOY, env=env, capture_output=True)
    assert done.returncode == 1
    assert "holds no model.onnx" in done.stderr


def test_the_image_is_made_of_these_files():
    recipe = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = re.findall(r"^COPY (\S+)", recipe, re.MULTILINE)
    assert copied == ["requirements.txt", "service.py", "model"]
    assert all((DEPLOY / name).is_file() for name in copied[:2])


def test_the_script_trains_exports_and_measures(few_titles, minilm, tmp_path):
    """On a MiniLM of one layer, for speed."""
    base = shutil.copytree(minilm, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    few_titles.groupby("label").head(60).to_csv(tmp_path / "titles.csv", index=False)
    folder = tmp_path / "out"
    run = [sys.executable, DEPLOY / "train.py", tmp_path / "titles.csv", folder]
    options = ["--base", base, "--epochs", "1", "--learning-rate", "1e-3"]
    env = {**os.environ, "PYTHONPATH": str(DEPLOY.parent)}
    said = subprocess.check_output([*run, *options], text=True, env=env)
    measured = metrics.load_metrics(folder)
    assert f"accuracy {measured['test']['accuracy']:.3f}" in said
    assert measured["rows"]["train"] > measured["rows"]["test"] > 0
    assert inference.load(folder / "exported").names == ["clickbait", "factual"]


def steps_of(folder):
    """What the Trainer has logged, and the loss on the validation split after each epoch."""
    newest = max(folder.glob("checkpoints/checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    state = json.loads((newest / "trainer_state.json").read_text())
    return state, [each["eval_loss"] for each in state["log_history"] if "eval_loss" in each]


def test_two_processes_train_as_one_does_and_one_goes_on_where_two_were_killed(
    few_titles, minilm, tmp_path
):
    base = shutil.copytree(minilm, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    few_titles.to_csv(tmp_path / "titles.csv", index=False)
    options = ["--base", base, "--epochs", "3", "--learning-rate", "1e-3"]
    env = {**os.environ, "PYTHONPATH": str(DEPLOY.parent), "OMP_NUM_THREADS": "1"}
    env.pop("WORLD_SIZE", None)
    # On GPUs `accelerate launch` does the same; on CPUs it starts one process, or needs MPI.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

    def run(start, folder):
        what = [DEPLOY / "train.py", tmp_path / "titles.csv", tmp_path / folder, *options]
        return subprocess.Popen([*start, *what], env=env, text=True, stdout=subprocess.PIPE)

    one, _ = run([sys.executable], "one").communicate()
    two, _ = run(launch, "two").communicate()
    assert one.count("Strongest surface feature") == two.count("Strongest surface feature") == 1
    (alone, losses), (together, both) = steps_of(tmp_path / "one"), steps_of(tmp_path / "two")
    assert alone["global_step"] == together["global_step"]  # steps of as many texts
    assert both == pytest.approx(losses, abs=0.1)
    # Every row of the validation split counts once, the last batch too.
    model = inference.load(tmp_path / "two" / "model")
    rows = data.load_splits(str(tmp_path / "titles.csv"), seed=0)["validation"]
    found = inference.classify(rows["text"], model)["label"].to_numpy()
    shares = [e["eval_accuracy"] for e in together["log_history"] if "eval_accuracy" in e]
    assert max(shares) == pytest.approx((found == np.array(rows["label"][:])).mean())

    def begun():
        """Whether there is a checkpoint that is whole."""
        for state in (tmp_path / "killed").glob("checkpoints/checkpoint-*/trainer_state.json"):
            with suppress(OSError, ValueError):  # half of it is there
                return bool(json.loads(state.read_text()))
        return False

    killed = run(launch, "killed")
    while not begun():
        with pytest.raises(subprocess.TimeoutExpired):  # it is at work
            killed.wait(0.01)
    workers = psutil.Process(killed.pid).children(recursive=True)  # each in a session of its own
    for each in (killed, *workers):
        each.kill()
    psutil.wait_procs(workers)
    killed.communicate()
    said, _ = run([sys.executable], "killed").communicate()
    assert "Going on from" in said
    state, again = steps_of(tmp_path / "killed")
    assert state["global_step"] == alone["global_step"]
    assert again == pytest.approx(losses, abs=0.1)
