"""Stage, push and pull over real HTTP, with the unmodified clients, against a hub on loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, load_from_disk
from huggingface_hub import DatasetCard, HfApi, ModelCard, SpaceCard
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PhobertTokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
)

from cookbook import data, hub, inference, metrics, training
from cookbook.models import configure
from tests.servers.hub import serving

ME, TITLES = "maker/clickbait", ["Council approves budget", "This one trick changes everything"]
LABELS = ["clickbait", "factual"]
PROJECT = Path(__file__).parent.parent / "pyproject.toml"
SECRET = "hf_" + "S3cret" * 6
MARK = ".staged.json"
POSTS = {
    "text": [f"Post number {i} on tables of many rows" for i in range(12)],
    "label": ["rows", "yes|no", "two\nlines"] * 4,
}


@pytest.fixture
def server(monkeypatch):
    with serving() as server:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        unhurried = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        monkeypatch.setattr(huggingface_hub.utils._http, "time", unhurried)
        monkeypatch.setenv("HF_TOKEN", server.tokens["write"])
        yield server


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tiny(folder, tokenizer, names=("clickbait", "factual"), token=None):
    """Save an untrained classifier as a Trainer does."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    unscored = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    arguments = training.training_arguments(folder / "checkpoints", hub_token=token, **unscored)
    model = BertForSequenceClassification(config)
    Trainer(model=model, args=arguments, processing_class=tokenizer).save_model(folder / "model")
    return folder / "model"


def scores(accuracy=0.9721, names=("clickbait", "factual")):
    kinds = ("precision", "recall", "f1")
    each = {f"{kind}_{name}": 0.9 for kind in kinds for name in names}
    each |= {f"support_{name}": 179 for name in names}
    return {"accuracy": accuracy, "f1_macro": 0.972, **each}


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tokenizer):
    """A tiny classifier in its folder, with metrics and figures beside it, as a notebook does."""
    output = tmp_path_factory.mktemp("out")
    tiny(output, tokenizer, token=SECRET)
    metrics.save_metrics(
        output,
        base_model="minilm",
        labels=["clickbait", "factual"],
        rows={"train": 4420, "test": 358},
        settings={"epochs": 3, "learning_rate": 0.00015},
        train_seconds=147.8,
        environment="device     CPU, 2 cores\nversions   transformers 5.24.0",
        test=scores(),
        real=scores(0.9545),
        challenge={"lower_case": {"rows": 28, "passed": 1.0}},
        seeds={"0": {"test accuracy": 0.97}, "1": {"test accuracy": 0.95}},
    )
    (output / "figures").mkdir()
    (output / "figures" / "per_label.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 20)
    return output


@pytest.fixture(scope="module")
def staged(saved, tmp_path_factory):
    """It, staged once for all tests that only push it."""
    return hub.stage_model(saved / "model", ME, tmp_path_factory.mktemp("staged") / "bait")


def posts(*names, **columns):
    return DatasetDict({name: Dataset.from_dict({**POSTS, **columns}) for name in names})


def push_changed(saved, limits, **options):
    return hub.push(hub.stage_model(saved / "model", ME, limits=limits), **options)


def fresh(code, server, tmp_path):
    """Run code as a stranger would: a process of its own, with an empty cache."""
    env = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "cache")}
    env |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", code]
    return subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout


def code_in(card):
    (code,) = re.findall(r"```python\n(.*?)```", str(card), re.DOTALL)
    return code


def card_of(folder, kind=ModelCard):
    return kind.load(f"{folder}/README.md")


def tables_in(text):
    """The cells of every line of every table in a card."""
    found = re.findall(r"(?:^\|.*\n?)+", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in each.splitlines()] for each in found]


# --- Round trips


def test_what_is_pushed_is_what_was_staged(saved, server):
    folder = hub.stage_model(saved / "model", ME, data="Synthetic titles.", limits="English.")
    assert not server.requests
    assert hub.push(folder) == f"{server.url}/{ME}"
    assert len(server.commits("model", ME)) == 2  # the first is the hub's own
    pushed = server.files("model", ME)
    del pushed[".gitattributes"]
    staged = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}
    assert pushed == {name: path.read_bytes() for name, path in staged.items() if name != MARK}
    wanted = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "metrics.json"}
    assert wanted | {"figures/per_label.png"} <= set(pushed)
    assert "training_args.bin" not in pushed


@pytest.mark.parametrize("kind", ["int8", "keywords"])
def test_an_exported_model_comes_back_whole(kind, exported, server, tmp_path):
    source = getattr(exported, kind)
    folder = hub.stage_model(source, "maker/small")
    hub.push(folder)
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for name, content in server.files("model", "maker/small").items():
        (pulled / name).write_bytes(content)
    card = card_of(pulled)
    assert "library_name" not in card.data.to_dict()
    assert "cookbook" in code_in(card)
    assert inference.load(pulled).identity == inference.load(source).identity


def test_everything_comes_back_by_the_code_in_its_card(staged, keyword_model, server, tmp_path):
    """In one process, which no other test needs."""
    hub.push(staged)
    about = {"base_model": "facebook/bart-base"}
    hub.push(hub.stage_model(keyword_model, "maker/keywords", metrics=about))
    told = "Written by a language model in 2026."
    sources = {
        "maker/titles": ("clickbait_challenge.csv", {"label": "label"}),
        "maker/posts": ("keywords_challenge.csv", {"label": None, "keywords": "keywords"}),
    }
    code = ""
    for repo_id, (file, options) in sources.items():
        for _ in range(2):
            source = data.shipped(file)
            hub.push(hub.stage_dataset(source, repo_id, provenance=told, **options))
            assert len(server.commits("dataset", repo_id)) == 2
        card = server.files("dataset", repo_id)["README.md"].decode()
        assert told in card
        code += f"{code_in(card)}\nsplits.save_to_disk({str(tmp_path / repo_id)!r})\n"
    cards = [server.files("model", repo)["README.md"].decode() for repo in (ME, "maker/keywords")]
    assert ModelCard(cards[1]).data.base_model == "facebook/bart-base"
    code += (
        code_in(cards[0])
        .replace("print(", "import json\nfound = (")
        .replace('"This one trick will change how you cook rice"', f"*{TITLES}")
    )
    code += "\nprint(json.dumps(found))\n" + code_in(cards[1])
    *_, classified, written = fresh(code, server, tmp_path).strip().splitlines()

    for repo_id, (file, options) in sources.items():
        pulled = load_from_disk(str(tmp_path / repo_id))
        ours = data.load_splits(data.shipped(file), **options)
        assert set(pulled) == set(ours)
        for name, part in ours.items():
            assert pulled[name]["text"][:] == part["text"][:]
            if options["label"]:
                names = pulled[name].features["label"]
                assert names.int2str(pulled[name]["label"][:]) == part["label"][:]
            else:
                assert pulled[name]["keywords"][:] == part["keywords"][:]
    found, ours = json.loads(classified), inference.classify(TITLES, staged)
    assert [answer["label"] for answer in found] == ours["label"].tolist()
    assert [answer["score"] for answer in found] == pytest.approx(ours["score"].tolist(), abs=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(keyword_model)
    model = AutoModelForSeq2SeqLM.from_pretrained(keyword_model)
    text = ["We moved our shop from Vercel to a Raspberry Pi."]
    batch = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    assert written == str(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))


def test_the_page_on_a_space_answers_as_the_model_does(saved, staged, server, tmp_path):
    hub.push(staged)
    address = hub.push(hub.stage_page(ME, "maker/page", title='Is it "bait"?', examples=TITLES))
    assert address == f"{server.url}/spaces/maker/page"
    app = server.files("space", "maker/page")["app.py"].decode()
    # As the Space runs it, but for a thread of its own, so that it can be asked.
    app = app.replace("launch()", "launch(prevent_thread_lock=True, quiet=True)")
    code = app.replace("page.build", "_, url, _ = page.build") + (
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


# --- What is staged


def test_a_new_staging_replaces_the_old_one_and_nothing_else(tmp_path):
    folder = hub.stage_dataset(posts("train", "test", "hard"), "me/first", provenance="Old.")
    assert folder == Path("to_push/datasets/first")
    again = hub.stage_dataset(posts("train"), "me/second", folder, provenance="New.")
    assert sorted(path.name for path in again.rglob("*.parquet")) == [
        "train-00000-of-00001.parquet"
    ]
    assert not list(folder.parent.glob(".*"))  # nothing half done is left beside it


@pytest.mark.parametrize("what", ["added", "changed", "unmarked", "file"])
def test_what_is_not_an_earlier_staging_is_refused_untouched(what, tmp_path):
    folder = hub.stage_dataset(posts("train"), "me/posts", tmp_path / "x", provenance="Ours.")
    mine = folder / ("README.md" if what == "changed" else "mine.txt")
    if what == "unmarked":
        (folder / MARK).unlink()
    elif what == "file":
        shutil.rmtree(folder)
        mine = folder
    mine.write_text("Written by hand.")
    with pytest.raises(FileExistsError, match="x holds what no staging put there"):
        hub.stage_dataset(posts("train"), "me/posts", folder, provenance="Ours.")
    assert mine.read_text() == "Written by hand."


def test_a_staging_that_fails_leaves_the_earlier_one(saved, tmp_path):
    folder = hub.stage_model(saved / "model", ME)
    with pytest.raises(FileNotFoundError, match="no model"):
        hub.stage_model(tmp_path, ME)
    assert (folder / "model.safetensors").is_file()


def test_a_slow_tokenizer_goes_along_whole(tmp_path):
    """vocab.txt and bpe.codes, as PhoBERT's, which has no tokenizer.json."""
    letters = sorted(set("the cat sat council approves budget") - {" "})
    pieces = [letter + "@@" for letter in letters] + letters
    (tmp_path / "vocab.txt").write_text("".join(f"{piece} 1\n" for piece in pieces), "utf-8")
    (tmp_path / "bpe.codes").write_text("#version: 0.2\nt h 1\n", "utf-8")
    slow = PhobertTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"))
    config = RobertaConfig(
        vocab_size=len(slow) + 1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=60,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "model")
    slow.save_pretrained(tmp_path / "model")
    staged = hub.stage_model(tmp_path / "model", ME)
    texts = ["the cat sat", "council approves the budget"]
    pd.testing.assert_frame_equal(
        inference.classify(texts, staged), inference.classify(texts, tmp_path / "model")
    )


def test_what_is_not_the_model_stays_behind_and_is_named(saved, tmp_path):
    model = shutil.copytree(saved / "model", tmp_path / "model")
    for name in ("customers.csv", "optimizer.pt", "pytorch_model.bin", ".env"):
        (model / name).write_text("mine")
    with pytest.warns(UserWarning, match="Not staged from .*: customers.csv$"):
        folder = hub.stage_model(model, ME)
    suffixes = {path.suffix for path in folder.iterdir() if path.name != MARK}
    assert suffixes <= {".json", ".safetensors", ".md", ".txt", ""}


# --- The card


def test_the_card_says_what_was_measured_and_nothing_else(saved, tmp_path):
    card = card_of(hub.stage_model(saved / "model", ME, datasets=("maker/x",), tags=["b", "a"]))
    results = {(r.dataset_name, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert results["test split", "Accuracy"] == 0.9721
    assert results["real headlines, as written", "Accuracy"] == 0.9545
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.datasets == ["maker/x"]
    assert card.data.tags == ["a", "b", "small-model-cookbook"]
    for words in (
        "| clickbait, test split | 0.900 | 0.900 | 0.900 | 179 |",
        "| lower_case | 28 | 1.000 |",
        "| test accuracy | 0.960 | 0.014 |",
        "148 seconds; epochs 3, learning_rate 0.00015.",
        "](figures/per_label.png)",
        "Rows: 4,420 for train, 358 for test.",
        "clickbait, factual.",
    ):
        assert words in card.text
    bare = card_of(hub.stage_model(saved / "model", ME, metrics={}, figures=tmp_path))
    assert bare.data.eval_results is None
    assert "measured" not in bare.text
    assert "figures/" not in bare.text


def test_the_card_says_when_the_model_is_sure_and_promises_no_more(saved, tmp_path):
    folder = shutil.copytree(saved / "model", tmp_path / "model")
    about = {"wanted": 0.98, "coverage": 0.905, "accuracy": 0.989, "low": 0.96996}
    about |= {"confidence": 0.95, "rows": 200, "least": 0.9, "data": "headlines | of 2016"}
    configure(folder, label_temperature=1.44, sure_from=0.93407, sure_about=about)
    card = card_of(hub.stage_model(folder, ME, tmp_path / "staged", metrics={})).text
    for words in (
        "whose score is at least 0.9341 is sure: `sure` in `inference.classify`",
        "On 200 headlines \\| of 2016, 90.5% of the answers reach it, and 98.9% of these are",
        "at least 96.9% are, at 95% confidence; 98.0% were wanted, which these texts can't",
        "it obeys the temperature and the threshold in config.json",
        "inference.classify([",
    ):
        assert words in card
    configure(folder, sure_about={**about, "low": 0.984})
    card = card_of(hub.stage_model(folder, ME, tmp_path / "staged", metrics={})).text
    assert "at least 98.0% are, at 95% confidence." in card
    configure(folder, sure_from=None, label_temperature=None)
    card = card_of(hub.stage_model(folder, ME, tmp_path / "staged", metrics={})).text
    assert "sure" not in card
    assert "pipeline(" in card


def test_tables_may_be_written_by_column(saved):
    by_column = {
        "challenge": {"rows": {"lower_case": 28}, "passed": {"lower_case": 0.5}},
        "seeds": {"test accuracy": {"0": 0.97, "1": 0.95}},
    }
    text = card_of(hub.stage_model(saved / "model", ME, metrics=by_column)).text
    assert "| lower_case | 28 | 0.500 |" in text
    assert "| test accuracy | 0.960 | 0.014 |" in text


def test_keyphrase_scores_carry_their_variant(keyword_model):
    names = ["f1@5", "f1@M", "precision@M", "recall@M", "present_f1@M", "absent_f1@M"]
    scored = {"variant": "KPEval", "test": dict.fromkeys(names, 0.5), "challenge": {"all": 0.58}}
    card = card_of(hub.stage_model(keyword_model, "maker/keywords", metrics=scored))
    assert {result.metric_name for result in card.data.eval_results} == {
        "f1@M (KPEval)",
        "precision@M (KPEval)",
        "recall@M (KPEval)",
    }
    assert "| all | 0.580 |" in card.text
    assert "keyword-extraction" in card.data.tags


@pytest.mark.parametrize("stage", ["model", "dataset", "page"])
def test_language_and_licence_are_those_that_were_named(stage, saved):
    def staged(**head):
        if stage == "model":
            return card_of(hub.stage_model(saved / "model", ME, **head))
        if stage == "page":
            return card_of(hub.stage_page(ME, "maker/page", **head), SpaceCard)
        folder = hub.stage_dataset(posts("train"), "maker/x", provenance="Ours.", **head)
        return card_of(folder, DatasetCard)

    assert not {"license", "language"} & set(staged().data.to_dict())
    named = staged(license="mit", language="de").data.to_dict()
    assert (named["license"], named["language"]) == ("mit", "de")
    with pytest.raises(TypeError, match="A card has no licence"):
        staged(licence="mit")


@pytest.mark.parametrize(
    "other",
    [
        {"labels": ["clickbait", "factual"], "test": scores(0.8765)},
        {"test": scores(0.8765)},
        {"variant": "KPEval", "test": {"f1@M": 0.8765}},
    ],
)
def test_scores_of_another_model_are_refused(other, tmp_path, tokenizer):
    model = tiny(tmp_path / "out", tokenizer, names=("toxic", "civil"))
    metrics.save_metrics(tmp_path / "out", **other)
    with pytest.raises(ValueError, match=r"another model's.* not \['toxic', 'civil'\]"):
        hub.stage_model(model, "me/toxic")
    assert "0.87" not in card_of(hub.stage_model(model, "me/toxic", metrics={})).text


def test_scores_without_a_list_of_labels_are_this_model_s(saved):
    found = metrics.classification_metrics(["factual"] * 2, ["factual", "clickbait"], LABELS)
    card = card_of(hub.stage_model(saved / "model", ME, metrics={"test": found}))
    assert "| test split | 0.500 |" in card.text


def test_labels_that_are_numbers_are_named(saved, tmp_path, numbers_for_names):
    model = shutil.copytree(saved / "model", tmp_path / "stars")
    config = json.loads((model / "config.json").read_text())
    config |= {"id2label": {"0": 1, "1": 2}, "label2id": {"1": 0, "2": 1}}
    (model / "config.json").write_text(json.dumps(config))
    assert "says which of these it is: 1, 2." in card_of(hub.stage_model(model, ME)).text


def test_no_label_breaks_a_table_or_is_taken_for_a_column():
    odd = posts("train", "test", other=["a \\| b", "`c`", None] * 4)
    folder = hub.stage_dataset(odd, "me/Ünfug-1".replace("Ü", "U"), provenance="Made up.")
    counts, sample = tables_in((folder / "README.md").read_text("utf-8"))
    assert [cell.strip() for cell in counts[0]] == ["", "all rows", "rows", "two lines", r"yes\|no"]
    assert [cell.strip() for cell in counts[2]] == ["train", "12", "4", "4", "4"]
    assert {len(line) for line in sample} == {3}


def test_labels_that_are_ordered_otherwise_in_a_split_are_counted_by_name():
    splits = posts("train", "test", label=[0, 1, 1] * 4)
    for name, order in {"train": ["news", "sport"], "test": ["sport", "news"]}.items():
        splits[name] = splits[name].cast_column("label", ClassLabel(names=order))
    folder = hub.stage_dataset(splits, "me/posts", provenance="Ours.")
    counts, _ = tables_in((folder / "README.md").read_text("utf-8"))
    rows = [[cell.strip() for cell in row] for row in (counts[0], *counts[2:])]
    assert rows[0] == ["", "all rows", "news", "sport"]
    assert rows[1:] == [["train", "12", "4", "8"], ["test", "12", "8", "4"]]
    assert Dataset.from_parquet(str(folder / "data/test-*"))["label"][:3] == [1, 0, 0]


def test_ids_without_a_label_are_counted_as_none():
    names = ClassLabel(names=["news", "sport"])
    unlabelled = posts("train", "test", label=[0, 1] * 6).cast_column("label", names)
    unlabelled["test"] = posts("test", label=[-1] * 12)["test"].cast_column("label", names)
    folder = hub.stage_dataset(unlabelled, "me/posts", provenance="Ours.", label=None)
    assert "| test | 12 |" in (folder / "README.md").read_text("utf-8")
    assert Dataset.from_parquet(str(folder / "data/test-*"))["label"][:] == [-1] * 12


def test_a_column_that_is_missing_is_named():
    with pytest.raises(ValueError, match="kind"):
        hub.stage_dataset(posts("train"), "me/posts", provenance="Ours.", label="kind")


def test_a_page_is_pushed_whole_and_the_same_one_only_once(server):
    options = {"title": "Bait: or 'not'?", "license": "mit"}
    for _ in range(2):
        hub.push(hub.stage_page(ME, "maker/page", **options), private=True)
        assert len(server.commits("space", "maker/page")) == 2
    assert server.repos["space", "maker/page"].private
    (made,) = {json.loads(r.body)["sdk"] for r in server.requests if r.path == "/api/repos/create"}
    assert made == "gradio"
    pushed = server.files("space", "maker/page")
    assert set(pushed) == {".gitattributes", "README.md", "app.py", "requirements.txt"}
    about = SpaceCard(pushed["README.md"].decode()).data.to_dict()
    assert about["title"] == options["title"]
    assert (about["sdk"], about["app_file"], about["license"]) == ("gradio", "app.py", "mit")
    assert about["models"] == [ME]
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["sdk_version"])
    address = re.search(r'^Repository = "(.+)"', PROJECT.read_text("utf-8"), re.MULTILINE)[1]
    wanted = f"small-model-cookbook[deploy] @ git+{address}"
    assert pushed["requirements.txt"].decode().splitlines() == [wanted]
    hub.push(hub.stage_page(ME, "maker/page", package="small-model-cookbook[deploy]==0.1.0"))
    assert len(server.commits("space", "maker/page")) == 3


# --- Once more, elsewhere


def test_the_same_push_makes_no_second_commit_and_a_change_makes_one(saved, staged, server):
    for _ in range(2):
        hub.push(staged)
        assert len(server.commits("model", ME)) == 2
    push_changed(saved, "English only.")
    assert len(server.commits("model", ME)) == 3


@pytest.mark.parametrize(
    ("kind", "old", "kept"),
    [
        (
            "dataset",
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002-ab12.parquet"],
            ["notes.txt", "data/notes.md", "old/train-00000-of-00001.parquet"],
        ),
        (
            "model",
            [
                "model-00001-of-00002.safetensors",
                "model.safetensors.index.json",
                "pytorch_model.bin",
                "model.onnx",
                "adapter_config.json",
                "added_tokens.json",
                "bpe.codes",
            ],
            ["handler.py", "LICENSE", "notes.txt", "onnx/model.onnx", "figures/team.png"],
        ),
    ],
)
def test_files_of_an_earlier_push_go_and_a_person_s_stay(kind, old, kept, staged, server):
    api = HfApi()
    api.create_repo(ME, repo_type=kind)
    for name in [*old, *kept]:
        options = {"path_or_fileobj": b"old", "path_in_repo": name, "repo_type": kind}
        api.upload_file(repo_id=ME, **options)
    before = len(server.commits(kind, ME))
    if kind == "model":
        hub.push(staged)
    else:
        hub.push(hub.stage_dataset(posts("train"), ME, provenance="Ours."))
    assert len(server.commits(kind, ME)) == before + 1
    there = server.files(kind, ME)
    assert not set(old) & set(there)
    assert [there[name] for name in kept] == [b"old"] * len(kept)


def test_a_branch_a_pull_request_and_a_private_repository(saved, staged, server):
    hub.push(staged, private=True, message="First try")
    assert server.repos["model", ME].private
    assert server.commits("model", ME)[0].title == "First try"
    push_changed(saved, "None known.", revision="next")
    assert "None known." in server.files("model", ME, "next")["README.md"].decode()
    assert "None known." not in server.files("model", ME)["README.md"].decode()
    address = push_changed(saved, "Many.", create_pr=True)
    assert address.endswith("/discussions/1")
    assert "Many." not in server.files("model", ME)["README.md"].decode()


# --- Tokens


def test_no_token_is_pushed_printed_or_stored(saved, staged, server, capsys):
    assert SECRET.encode() in (saved / "model" / "training_args.bin").read_bytes()
    hub.push(staged)
    hub.push(hub.stage_dataset(posts("train"), "maker/d", provenance="Ours."))
    stored = b"\n".join([*server.blobs.values(), *(r.body for r in server.requests)])
    printed = "".join(capsys.readouterr())
    for token in (SECRET, *server.tokens.values()):
        assert token.encode() not in stored
        assert token not in printed


# Of the forms that the services give out; put together here, so that none stands in this file.
KEYS = [
    "hf_" + "Ab" * 17,
    "sk-" + "proj-" + "Ab1_" * 12,
    "sk-" + "ant-" + "api03-" + "Ab1-" * 20,
    "sk-" + "Ab12" * 12,
    "ghp_" + "Ab1" * 12,
    "github_" + "pat_" + "Ab1" * 22,
    "AKIA" + "QWERTYUIOP123456",
    "AIza" + "Ab1-x" * 7,
    "xoxb-" + "123456789012-" * 2 + "Ab1Ab1",
    "-----BEGIN RSA PRIVATE " + "KEY-----\n" + "Ab1+/" * 20,
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("column", ["text", "notes"])
def test_a_key_in_a_row_is_refused_by_its_place(key, column):
    cells = [f"My key begins with {key[:12]}… and is lost" for _ in range(12)]
    cells[7] = f"Now it works:\n{key}"
    columns = {"text": {"text": cells}, "notes": {"notes": [[cell] for cell in cells]}}[column]
    wanted = rf"data/test-.*parquet, row 7, column '{column}', holds a token"
    with pytest.raises(ValueError, match=wanted) as caught:
        hub.stage_dataset(posts("test", **columns), "me/posts", provenance="Ours.", label=None)
    assert key not in str(caught.value)


def test_a_key_that_was_shortened_is_none():
    cells = [f"My key begins with {key[:12]}… and is lost" for key in (*KEYS, *KEYS[:2])]
    hub.stage_dataset(posts("train", text=cells), "me/posts", provenance="Ours.", label=None)


@pytest.mark.parametrize("place", ["card", "json", "own"])
def test_a_file_that_holds_a_token_is_named_and_nothing_is_pushed(place, saved, server, tmp_path):
    model = shutil.copytree(saved / "model", tmp_path / "model")
    if place == "card":
        folder = hub.stage_model(model, ME)
        (folder / "README.md").write_text(f"login with {SECRET}")
        with pytest.raises(ValueError, match=r"README\.md holds a token") as caught:
            hub.push(folder)
    else:  # one's own is known whatever its form
        key = server.tokens["write"] if place == "own" else "sk-" + "Ab12" * 12
        (model / "notes.json").write_text(json.dumps({"text": f"log in:\n{key}"}))
        with pytest.raises(ValueError, match=r"notes\.json holds a token") as caught:
            hub.stage_model(model, ME)
    assert SECRET not in str(caught.value)
    assert not server.repos


# --- Who may push what


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "aren't logged in.* hf auth login"),
        ("hf_unknown", "isn't valid.* hf auth login"),
        ("read", "may not write to maker/clickbait.* hf auth login"),
        ("stranger", "may not write to maker/clickbait.* hf auth login"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_who_may_not_push_is_told_and_changes_nothing(
    there, staged, server, monkeypatch, token, message
):
    if there:
        server.put("model", ME, {"README.md": b"Mine."})
    monkeypatch.setenv("HF_TOKEN", server.tokens.get(token, token))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", "no-such-file")
    with pytest.raises(PermissionError, match=message):
        hub.push(staged)
    assert [server.files(*repo) for repo in server.repos] == [{"README.md": b"Mine."}] * there


@pytest.mark.parametrize("repo_id", ["clickbait", "maker/click bait", "a/b/c", "maker/--", ""])
def test_a_name_that_cannot_be(saved, repo_id):
    with pytest.raises(ValueError, match=r"[Rr]epo"):
        hub.stage_model(saved / "model", repo_id)
    assert not Path("to_push").exists()


def test_names_that_are_taken(staged, server):
    hub.push(staged, exist_ok=False)
    with pytest.raises(FileExistsError, match="exist_ok is off"):
        hub.push(staged, exist_ok=False)
    with pytest.raises(ValueError, match="is a model already"):
        hub.push(hub.stage_dataset(posts("train"), ME, provenance="Ours."))
    hub.push(hub.stage_page(ME, ME, examples=np.array(["A title"])))  # a page may share it
    assert "examples=['A title']" in server.files("space", ME)["app.py"].decode()


def test_nothing_private_is_pushed_into_a_public_repository(saved, staged, server):
    hub.push(staged)
    with pytest.raises(ValueError, match="is public already"):
        push_changed(saved, "Confidential.", private=True)
    assert b"Confidential." not in server.files("model", ME)["README.md"]


def test_a_folder_is_pushed_for_what_it_was_staged(saved, staged, server):
    with pytest.raises(ValueError, match="wasn't staged"):
        hub.push(saved / "model", ME)
    with pytest.raises(ValueError, match="wasn't staged for maker/other"):
        hub.push(staged, "maker/other")
    assert not server.requests


# --- Faults


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("/preupload/", 500),
        ("/preupload/", 429),
        ("/preupload/", "cut"),
        ("/lfs/objects/batch", 503),
        ("/lfs/objects/batch", "half"),
    ],
)
def test_what_may_pass_is_tried_again_and_ends_complete(staged, server, what, where):
    server.faults.append(("POST", where, what, 1))
    hub.push(staged)
    assert server.faults[0][3] == 0
    assert len(server.commits("model", ME)) == 2
    assert "model.safetensors" in server.files("model", ME)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("/commit/", 500),
        ("/commit/", 412),
        ("/commit/", "cut"),
        ("/commit/", "half"),
        ("/repos/create", 500),
        ("/repos/create", "cut"),
    ],
)
def test_an_upload_that_broke_off_is_told_and_can_be_pushed_again(
    saved, staged, server, what, where
):
    hub.push(staged)
    before = server.files("model", ME)
    folder = hub.stage_model(saved / "model", ME, limits="New.")
    server.faults.append(("POST", where, what, 9))
    with pytest.raises(ConnectionError, match=r"as it was before, or complete\. Push again"):
        hub.push(folder)
    if what != "half":  # that one was done, and only the answer was lost
        assert server.files("model", ME) == before
    server.faults.clear()
    hub.push(folder)
    assert "New." in server.files("model", ME)["README.md"].decode()
    assert len(server.commits("model", ME)) == 3
