"""Push and pull over real HTTP, with the unmodified clients, against a hub on loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from datasets import load_from_disk
from huggingface_hub import ModelCard, SpaceCard
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    pipeline,
)

from cookbook import data, hub, inference, training
from tests.servers.hub import serving

ME, TITLES = "maker/clickbait", ["Council approves budget", "This one trick changes everything"]
PROJECT = Path(__file__).parent.parent / "pyproject.toml"
SECRET = "hf_" + "S3cret" * 6
UNTRAINED = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving(tmp_path / "hub") as server:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
        monkeypatch.setattr(hub, "get_token", lambda: server.tokens["write"])
        yield server


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tokenizer):
    """A tiny classifier in its folder, with metrics and figures beside it, as a notebook does."""
    output = tmp_path_factory.mktemp("out")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "clickbait", 1: "factual"},
        label2id={"clickbait": 0, "factual": 1},
    )
    arguments = training.training_arguments(output / "checkpoints", hub_token=SECRET, **UNTRAINED)
    trainer = Trainer(
        model=BertForSequenceClassification(config), args=arguments, processing_class=tokenizer
    )
    trainer.save_model(output / "model")
    scores = {"accuracy": 0.9721, "f1_macro": 0.972}
    scores |= {
        f"{kind}_{label}": 0.9
        for kind in ("precision", "recall", "f1")
        for label in ("clickbait", "factual")
    }
    scores |= {"support_clickbait": 179, "support_factual": 179}
    metrics = {
        "base_model": "minilm",
        "labels": ["clickbait", "factual"],
        "rows": {"train": 4420, "test": 358},
        "settings": {"epochs": 3, "learning_rate": 0.00015},
        "train_seconds": 147.8,
        "environment": "device     CPU, 2 cores\nversions   transformers 5.24.0",
        "test": scores,
        "real": {**scores, "accuracy": 0.9545},
        "challenge": {"lower_case": {"rows": 28, "passed": 1.0}},
        "seeds": {"0": {"test accuracy": 0.97}, "1": {"test accuracy": 0.95}},
    }
    (output / "metrics.json").write_text(json.dumps(metrics))
    (output / "figures").mkdir()
    picture = b"\x89PNG\r\n\x1a\n" + b"0" * 20
    (output / "figures" / "per_label.png").write_bytes(picture)
    return output


def fresh(code, server, tmp_path):
    """Run code as a stranger would: a process of its own, with an empty cache."""
    env = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "cache")}
    env |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", code]
    return subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout


def code_in(card):
    (code,) = re.findall(r"```python\n(.*?)```", str(card), re.DOTALL)
    return code


def everything(server):
    stored = [path.read_bytes() for path in server.folder.rglob("*") if path.is_file()]
    return b"\n".join([*stored, *(request.body for request in server.requests)])


# --- Round trips


def test_a_classifier_comes_back_the_same_by_the_code_in_its_card(saved, server, tmp_path, capsys):
    address = hub.push_model(saved / "model", ME, data="Synthetic titles.", limits="English only.")
    assert address == f"{server.url}/{ME}"
    assert address in capsys.readouterr().out
    assert len(server.commits("model", ME)) == 2  # the first is the hub's own
    names = set(server.files("model", ME))
    wanted = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "metrics.json"}
    assert wanted | {"figures/per_label.png"} <= names
    assert "training_args.bin" not in names
    card = server.files("model", ME)["README.md"].decode()
    code = (
        code_in(card)
        .replace("print(", "import json\nfound = (")
        .replace('"This one trick will change how you cook rice"', f"*{TITLES}")
    )
    found = json.loads(fresh(code + "\nprint(json.dumps(found))", server, tmp_path))
    ours = pipeline("text-classification", model=str(saved / "model"))(TITLES)
    assert [answer["label"] for answer in found] == [answer["label"] for answer in ours]
    np.testing.assert_allclose(
        [a["score"] for a in found], [a["score"] for a in ours], rtol=0, atol=1e-5
    )


def test_a_keyword_model_comes_back_the_same(keyword_model, server, tmp_path):
    hub.push_model(keyword_model, "maker/keywords", metrics={"base_model": "facebook/bart-base"})
    card = server.files("model", "maker/keywords")["README.md"].decode()
    found = fresh(code_in(card), server, tmp_path).strip().splitlines()[-1]
    tokenizer = AutoTokenizer.from_pretrained(keyword_model)
    model = AutoModelForSeq2SeqLM.from_pretrained(keyword_model)
    text = ["We moved our shop from Vercel to a Raspberry Pi."]
    batch = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    assert found == str(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
    assert ModelCard(card).data.base_model == "facebook/bart-base"


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("clickbait_titles.csv", {"label": "label"}),
        ("keywords_challenge.csv", {"label": None, "keywords": "keywords"}),
    ],
)
def test_a_data_set_comes_back_the_same(file, options, server, tmp_path):
    told = "Written by a language model in 2026."
    source = data.shipped(file)
    hub.push_dataset(source, "maker/texts", provenance=told, **options)
    again = len(server.commits("dataset", "maker/texts"))
    hub.push_dataset(source, "maker/texts", provenance=told, **options)
    assert len(server.commits("dataset", "maker/texts")) == again == 2
    card = server.files("dataset", "maker/texts")["README.md"].decode()
    assert told in card
    code = code_in(card) + f"\nsplits.save_to_disk({str(tmp_path / 'pulled')!r})"
    fresh(code, server, tmp_path)
    pulled = load_from_disk(str(tmp_path / "pulled"))
    ours = data.load_splits(source, **options)
    assert {name: len(part) for name, part in pulled.items()} == {
        name: len(part) for name, part in ours.items()
    }
    assert pulled["test"]["text"][:] == ours["test"]["text"][:]
    if options["label"]:
        feature = pulled["test"].features["label"]
        assert feature.names == ["clickbait", "factual"]
        assert feature.int2str(pulled["test"]["label"][:]) == ours["test"]["label"][:]
    else:
        assert pulled["test"]["keywords"][:] == ours["test"]["keywords"][:]


@pytest.mark.parametrize("where", ["the Hub", "a folder"])
def test_the_page_on_a_space_answers_as_the_model_does(saved, server, tmp_path, where):
    if where == "a folder":
        hub.push_demo(ME, "maker/page", dry_run=tmp_path / "page")
        app = (tmp_path / "page" / "app.py").read_text("utf-8")
        app = app.replace(repr(ME), repr(str(saved / "model")))
        assert not server.requests
    else:
        hub.push_model(saved / "model", ME)
        address = hub.push_demo(ME, "maker/page", title='Is it "bait"?', examples=TITLES)
        assert address == f"{server.url}/spaces/maker/page"
        app = server.files("space", "maker/page")["app.py"].decode()
    # As the Space runs it, but for a thread of its own, so that it can be asked.
    app = app.replace("launch()", "launch(prevent_thread_lock=True, quiet=True)")
    code = app.replace("demo.build", "_, url, _ = demo.build") + (
        "import json, os\n"
        "from gradio_client import Client\n"
        f"found = Client(url, verbose=False).predict({TITLES[1]!r}, api_name='/answer')\n"
        "print(json.dumps(found), flush=True)\n"
        "os._exit(0)  # the server's threads needn't be waited for\n"
    )
    found = json.loads(fresh(code, server, tmp_path).splitlines()[-1])
    answer = inference.classify(TITLES[1:], saved / "model").iloc[0]
    assert found["label"] == answer["label"]
    shares = {each["label"]: each["confidence"] for each in found["confidences"]}
    assert shares == pytest.approx(answer[["clickbait", "factual"]].to_dict(), abs=1e-4)


# --- The card


def test_the_card_says_what_was_measured_and_nothing_else(saved, tmp_path):
    folder = hub.push_model(saved / "model", ME, dry_run=tmp_path / "dry", datasets=("maker/x",))
    card = ModelCard.load(f"{folder}/README.md")
    results = {(r.dataset_name, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert results["test split", "Accuracy"] == 0.9721
    assert results["real headlines, as written", "Accuracy"] == 0.9545
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.datasets == ["maker/x"]
    for words in ("clickbait, test split", "| 179 |", "148 seconds", "figures/per_label"):
        assert words in card.text
    bare = hub.model_card(ME, json.loads((saved / "model/config.json").read_text()), {}, [])
    assert bare.data.eval_results is None
    assert "measured" not in bare.text


def test_keyphrase_scores_carry_their_variant():
    scores = dict.fromkeys(
        ["f1@5", "f1@M", "precision@M", "recall@M", "present_f1@M", "absent_f1@M"], 0.5
    )
    metrics = {"variant": "KPEval", "test": scores, "challenge": {"all": 0.58}}
    card = hub.model_card("maker/keywords", {"is_encoder_decoder": True}, metrics, [])
    assert {result.metric_name for result in card.data.eval_results} == {
        "f1@M (KPEval)",
        "precision@M (KPEval)",
        "recall@M (KPEval)",
    }
    assert "0.580" in card.text


# --- Once more, elsewhere


def test_the_same_push_makes_no_second_commit_and_a_change_makes_one(saved, server):
    for _ in range(2):
        hub.push_model(saved / "model", ME)
        assert len(server.commits("model", ME)) == 2
    hub.push_model(saved / "model", ME, limits="English only.")
    assert len(server.commits("model", ME)) == 3


def test_a_page_is_pushed_whole_and_the_same_one_only_once(saved, server, tmp_path):
    options = {"title": "Bait: or 'not'?", "license": "mit", "private": True}
    for _ in range(2):
        hub.push_demo(ME, "maker/page", **options)
        assert len(server.commits("space", "maker/page")) == 2
    assert server.repos["space", "maker/page"].private
    (made,) = {json.loads(r.body)["sdk"] for r in server.requests if r.path == "/api/repos/create"}
    assert made == "gradio"
    pushed = server.files("space", "maker/page")
    hub.push_demo(ME, "maker/page", **options, dry_run=tmp_path / "dry")
    written = {path.name: path.read_bytes() for path in (tmp_path / "dry").iterdir()}
    assert {".gitattributes": pushed[".gitattributes"], **written} == pushed
    assert set(written) == {"README.md", "app.py", "requirements.txt"}
    about = SpaceCard(pushed["README.md"].decode()).data.to_dict()
    assert about["title"] == options["title"]
    assert (about["sdk"], about["app_file"], about["license"]) == ("gradio", "app.py", "mit")
    assert about["models"] == [ME]
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["sdk_version"])
    address = re.search(r'^Repository = "(.+)"', PROJECT.read_text("utf-8"), re.MULTILINE)[1]
    wanted = f"small-model-cookbook[deploy] @ git+{address}"
    assert pushed["requirements.txt"].decode().splitlines() == [wanted]
    hub.push_demo(ME, "maker/page", **options, package="small-model-cookbook[deploy]==0.1.0")
    assert len(server.commits("space", "maker/page")) == 3


def test_a_branch_a_pull_request_and_a_private_repository(saved, server):
    hub.push_model(saved / "model", ME, private=True, message="First try")
    assert server.repos["model", ME].private
    assert server.commits("model", ME)[0].title == "First try"
    hub.push_model(saved / "model", ME, revision="next", limits="None known.")
    assert "None known." in server.files("model", ME, "next")["README.md"].decode()
    assert "None known." not in server.files("model", ME)["README.md"].decode()
    address = hub.push_model(saved / "model", ME, create_pr=True, limits="Many.")
    assert address.endswith("/discussions/1")
    assert "Many." not in server.files("model", ME)["README.md"].decode()


def test_a_dry_run_writes_what_a_push_would_and_asks_nothing(saved, server, tmp_path, capsys):
    folder = hub.push_model(saved / "model", ME, dry_run=tmp_path / "dry")
    assert not server.requests
    assert "Nothing pushed" in capsys.readouterr().out
    hub.push_model(saved / "model", ME)
    pushed = server.files("model", ME)
    pushed.pop(".gitattributes")
    written = {
        str(p.relative_to(folder)): p.read_bytes()
        for p in (tmp_path / "dry").rglob("*")
        if p.is_file()
    }
    assert pushed == written


# --- Tokens


def test_no_token_is_pushed_printed_or_stored(saved, server, capsys):
    assert SECRET.encode() in (saved / "model" / "training_args.bin").read_bytes()
    hub.push_model(saved / "model", ME)
    hub.push_dataset(
        data.shipped("keywords_challenge.csv"), "maker/d", provenance="Ours.", label=None
    )
    stored = everything(server)
    printed = "".join(capsys.readouterr())
    for token in (SECRET, *server.tokens.values()):
        assert token.encode() not in stored
        assert token not in printed


def test_a_file_that_holds_a_token_is_named_and_nothing_is_pushed(saved, server, tmp_path):
    shutil.copytree(saved, tmp_path / "out")
    (tmp_path / "out" / "model" / "notes.txt").write_text(f"login with {SECRET}")
    with pytest.raises(ValueError, match=r"notes\.txt holds a token") as caught:
        hub.push_model(tmp_path / "out" / "model", ME)
    assert SECRET not in str(caught.value)
    assert not server.repos


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        ("", ME, "hf auth login"),
        ("hf_unknown", ME, "isn't valid"),
        ("read", ME, "may only read"),
        ("stranger", ME, "You are stranger and can't write to 'maker'"),
    ],
)
def test_who_may_not_push_is_told_before_anything_is_made(
    saved, server, monkeypatch, token, repo_id, message
):
    monkeypatch.setattr(hub, "get_token", lambda: server.tokens.get(token, token))
    with pytest.raises(PermissionError, match=message):
        hub.push_model(saved / "model", repo_id)
    assert not server.repos
    assert all(request.method in ("GET", "HEAD") for request in server.requests)


@pytest.mark.parametrize("repo_id", ["clickbait", "maker/click bait", "a/b/c", "maker/--", ""])
def test_a_name_that_cannot_be(saved, server, repo_id):
    with pytest.raises(ValueError, match="can't be a repository"):
        hub.push_model(saved / "model", repo_id)
    assert not server.requests


def test_names_that_are_taken(saved, server):
    hub.push_model(saved / "model", ME)
    with pytest.raises(FileExistsError, match="exist_ok is off"):
        hub.push_model(saved / "model", ME, exist_ok=False)
    with pytest.raises(ValueError, match="is a model already"):
        hub.push_dataset(data.shipped("keywords_challenge.csv"), ME, provenance="Ours.", label=None)
    hub.push_demo(ME, ME, examples=np.array(["A title"]))  # a page may share it
    assert "examples=['A title']" in server.files("space", ME)["app.py"].decode()


def test_a_folder_without_a_model(tmp_path, server):
    with pytest.raises(FileNotFoundError, match="holds no model"):
        hub.push_model(tmp_path, ME)


# --- Faults


@pytest.mark.parametrize("what", [500, 429, "cut", "half", 412])
@pytest.mark.parametrize(
    "where", ["/commit/", "/preupload/", "/lfs/objects/batch", "/repos/create"]
)
def test_what_may_pass_is_tried_again_and_ends_complete(saved, server, what, where):
    if what == 412 and where != "/commit/":
        pytest.skip("only a commit can meet another one")
    server.faults.append(("POST", where, what, 1))
    hub.push_model(saved / "model", ME)
    assert server.faults[0][3] == 0
    assert len(server.commits("model", ME)) == 2
    assert "model.safetensors" in server.files("model", ME)


@pytest.mark.parametrize("what", [500, "cut"])
def test_what_does_not_pass_leaves_the_repository_as_it_was(saved, server, what):
    hub.push_model(saved / "model", ME)
    before = server.files("model", ME)
    server.faults.append(("POST", "/commit/", what, 99))
    with pytest.raises(ConnectionError, match=r"as it was\s+before"):
        hub.push_model(saved / "model", ME, limits="New.")
    assert server.files("model", ME) == before
    server.faults.clear()
    hub.push_model(saved / "model", ME, limits="New.")
    assert "New." in server.files("model", ME)["README.md"].decode()


def test_a_trainer_can_be_pushed_itself(saved, server, tokenizer, tmp_path):
    model = BertForSequenceClassification.from_pretrained(saved / "model")
    args = training.training_arguments(tmp_path / "run", **UNTRAINED)
    trainer = Trainer(model=model, args=args, processing_class=tokenizer)
    hub.push_model(trainer, ME)
    assert {"model.safetensors", "tokenizer.json", "README.md"} <= set(server.files("model", ME))
