"""Every notebook runs end to end, agrees with the repository's address and is fit to be read.

They run in empty folders, as in Colab, with parameters as small as what is asserted allows, the
longest first.
"""

import ast
import inspect
import json
import math
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from transformers import AlbertConfig, AlbertModel, TrainerCallback, TrainerState, pipeline

import cookbook
from cookbook import inference, metrics, tables, words
from tests.running import (
    NOWHERE,
    ROOT,
    address,
    challenge_f1,
    challenge_passed,
    gone_on_from,
    kill,
    outputs,
    runner,
)

NOTEBOOKS = address.notebooks()
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


# --- Those that fine-tune


@pytest.fixture(scope="module")
def demo(tmp_path_factory, titles):
    """The clickbait notebook on 240 titles of one's own, for two epochs and two seeds."""
    folder = tmp_path_factory.mktemp("demo")
    titles.groupby("label").head(120).to_csv(folder / "own.csv", index=False)
    real = titles.groupby("label").tail(20)[["text", "label"]]
    real.to_csv(folder / "real.csv", index=False)
    return runner.execute(
        "clickbait/2_fine_tune_albert",
        folder,
        titles="own.csv",
        real_headlines="real.csv",
        epochs=2,
        learning_rate=3e-4,
        early_stopping_patience=1,
        seeds=[0, 1],
    ).parent


@pytest.mark.slow
def test_the_notebook_runs_end_to_end_and_leaves_what_it_promises(demo):
    names = {path.name for path in demo.iterdir()}
    notebook = "2_fine_tune_albert"
    assert {f"{notebook}.ipynb", f"{notebook}.html", "model", "metrics.json", "figures"} <= names
    assert "checkpoints" not in names
    figures = {path.name for path in (demo / "figures").iterdir()}
    assert len(figures) >= 6
    assert "confusion_matrix.png" in figures


@pytest.mark.slow
def test_its_figures_are_those_of_the_saved_model(demo):
    results = metrics.load_metrics(demo)
    assert results["labels"] == ["clickbait", "factual"]
    assert results["test"]["support_clickbait"] + results["test"]["support_factual"] == 24
    assert results["real"]["accuracy"] == results["real_lower"]["accuracy"]  # MiniLM lower-cases
    assert set(results["seeds"]) == {"0", "1"}
    real = tables.read(demo.parents[1] / "real.csv")
    classifier = pipeline("text-classification", model=str(demo / "model"))
    found = [answer["label"] for answer in classifier(real["text"].tolist())]
    assert (real["label"] == found).mean() == pytest.approx(results["real"]["accuracy"])
    assert results["seeds"]["0"]["real accuracy"] == pytest.approx(results["real"]["accuracy"])
    table = runner.summary(results)
    for word in ("accuracy", "macro F1", "clickbait", "factual", "training"):
        assert word in table


@pytest.mark.slow
def test_an_albert_three_labels_a_kill_and_no_internet(tmp_path, titles, tokenizer):
    """The default architecture, tiny; labels of one's own; what can't be fetched is skipped.

    Killed in the middle of the training, it goes on when it is run again.
    """
    config = AlbertConfig(
        vocab_size=tokenizer.vocab_size,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    AlbertModel(config).save_pretrained(tmp_path / "albert")
    tokenizer.save_pretrained(tmp_path / "albert")
    own = titles.groupby("label").head(60)[["text", "label"]]
    quizzes = own[own["text"].str.contains("?", regex=False)].assign(label="question")
    pd.concat([own.drop(quizzes.index), quizzes]).to_csv(tmp_path / "own.csv", index=False)
    name = "clickbait/2_fine_tune_albert"
    settings = {
        "base_model": str(tmp_path / "albert"),
        "frozen_layers": 0,
        "titles": "own.csv",
        "real_headlines": f"{NOWHERE}/real.csv",
        "epochs": 20,  # long enough to be killed in
        "seeds": [0],
    }
    kill(name, tmp_path, **settings)
    executed = runner.execute(name, tmp_path, **settings)
    text = executed.read_text()
    rows = metrics.load_metrics(executed.parent)["rows"]["train"]
    assert 0 < gone_on_from(executed) < 20 * math.ceil(rows / 32)
    assert "Skipped: real headlines couldn't be fetched" in text
    assert "127.0.0.1:9/real.csv can't be reached" in text
    assert "Nothing pushed" in text
    assert "real" not in metrics.load_metrics(executed.parent)
    config = AlbertConfig.from_pretrained(executed.parent / "model")
    assert config.architectures == ["AlbertForSequenceClassification"]
    assert config.label2id == {"clickbait": 0, "factual": 1, "question": 2}


@pytest.fixture(scope="module")
def keywords_demo(tmp_path_factory):
    """The keyword notebook on 100 posts of one's own, in their cells lists and semicolons.

    Killed in the middle of the training, and run again.
    """
    folder = tmp_path_factory.mktemp("keywords")
    own = tables.read(ROOT / "data" / "tech_keywords.csv").head(100)
    own.loc[:50, "keywords"] = own.loc[:50, "keywords"].str.replace(", ", ";")
    own.loc[51:70, "keywords"] = [str(cell.split(", ")) for cell in own.loc[51:70, "keywords"]]
    own.loc[71, "keywords"] = ""
    own.to_csv(folder / "own.csv", index=False)
    name = "keywords/2_fine_tune_bart"
    settings = {"posts": "own.csv", "epochs": 3, "real_posts": f"{NOWHERE}/posts.csv"}
    kill(name, folder, **settings)
    return runner.execute(name, folder, **settings).parent


@pytest.mark.slow
def test_the_keyword_notebook_runs_end_to_end_and_leaves_what_it_promises(keywords_demo):
    names = {path.name for path in keywords_demo.iterdir()}
    notebook = "2_fine_tune_bart"
    assert {f"{notebook}.ipynb", f"{notebook}.html", "model", "metrics.json", "figures"} <= names
    assert "checkpoints" not in names
    figures = {path.name for path in (keywords_demo / "figures").iterdir()}
    assert {"text_lengths.png", "loss.png", "challenge.png", "top_keywords.png"} <= figures
    text = (keywords_demo / f"{notebook}.ipynb").read_text()
    assert "1 without keywords" in text
    assert "Not measured on real posts" in text
    assert "Nothing pushed" in text


@pytest.mark.slow
def test_the_killed_keyword_notebook_goes_on_and_ends_with_all_of_its_losses(keywords_demo):
    step = gone_on_from(keywords_demo / "2_fine_tune_bart.ipynb")
    results = metrics.load_metrics(keywords_demo)
    last = 3 * math.ceil(results["rows"]["train"] / 4)
    assert 0 < step < last
    steps = [log["step"] for log in results["loss"]]
    assert steps[0] < step
    assert steps[-1] == last


@pytest.mark.slow
def test_its_scores_are_those_of_the_saved_model(keywords_demo):
    results = metrics.load_metrics(keywords_demo)
    assert challenge_f1(keywords_demo / "model") == pytest.approx(results["challenge"]["all"])
    for word in ("f1@5", "f1@M", "precision@M", "recall@M", "challenge", "training"):
        assert word in runner.summary(results)


# --- The guide, and a data set of one's own


@pytest.mark.slow
def test_the_marker_is_trained_measured_exported_and_counts_over_time(keyword_model, tmp_path):
    own = tables.read(ROOT / "data" / "tech_keywords.csv").head(320)
    own.head(300).to_csv(tmp_path / "own.csv", index=False)
    own.tail(20).to_csv(tmp_path / "real.csv", index=False)
    tables.read(ROOT / "data" / "tech_keywords_more.csv")[["text"]].head(30).to_csv(
        tmp_path / "pool.csv", index=False
    )
    settings = {"posts": "own.csv", "real_posts": "real.csv", "epochs": 3, "batch_size": 8}
    settings |= {"unlabelled_posts": "pool.csv"}
    executed = runner.execute(
        "keywords/3_mark_keywords", tmp_path, **settings, writer=str(keyword_model)
    )
    folder, text = executed.parent, outputs(executed)
    results = metrics.load_metrics(folder)
    challenge = tables.read(ROOT / "data" / "keywords_challenge.csv")
    gold = challenge["keywords"].map(words.split_keywords)
    found = inference.extract_keywords(challenge["text"], folder / "model")
    f1 = metrics.keyphrase_metrics(challenge["text"], found, gold)["f1@M"]
    assert results["challenge"]["all"] == pytest.approx(f1)
    assert f1 > 0.3
    assert {"test", "real"} <= set(results)
    assert "30 of 30 texts teach" in text
    found = inference.extract_keywords(challenge["text"], folder / "taught")
    f1 = metrics.keyphrase_metrics(challenge["text"], found, gold)["f1@M"]
    assert results["taught"]["challenge"] == pytest.approx(f1)
    assert set(results["taught"]) == {"test", "challenge", "real"}
    config = json.loads((folder / "int8" / "config.json").read_text())
    assert config["keyword_threshold"] == results["threshold"]
    assert "real" in text
    assert "BART" in text
    assert "Nothing pushed" in text


@pytest.mark.slow
def test_the_guide_counts_times_and_distils(tmp_path):
    executed = runner.execute("guide/choose_a_model", tmp_path, rows=100, epochs=1, timing=0.2)
    folder = executed.parent
    results = metrics.load_metrics(folder)
    # As published: Devlin et al. 2019 and the cards of MiniLM, ModernBERT and DeBERTa-v3.
    published = {"BERT base": 110, "MiniLM": 22.7, "ModernBERT base": 149, "DeBERTa-v3 base": 184}
    for name, millions in published.items():
        assert results["parameters"][name] / 1e6 == pytest.approx(millions, rel=0.01)
    rows = results["distillation"]
    assert rows["student, taught"]["parameters (M)"] < rows["teacher"]["parameters (M)"]
    student = pipeline("text-classification", model=str(folder / "model"))
    assert student.model.config.num_hidden_layers == 3
    passed = challenge_passed(lambda texts: [answer["label"] for answer in student(texts)])
    assert passed == pytest.approx(rows["student, taught"]["challenge passed"])
    assert {"classes.png", "distillation.png"} <= {p.name for p in (folder / "figures").iterdir()}
    assert "student, taught" in runner.summary(results)
    assert "factor of" in outputs(executed)


@pytest.mark.slow
def test_the_guide_takes_a_teacher_that_is_fine_tuned_already(tmp_path, trained):
    settings = {"teacher": str(trained.folder), "rows": 32, "epochs": 1, "timing": 0.2}
    folder = runner.execute("guide/choose_a_model", tmp_path, **settings).parent
    passed = challenge_passed(lambda texts: inference.classify(texts, trained.folder)["label"])
    rows = metrics.load_metrics(folder)["distillation"]
    assert rows["teacher"]["challenge passed"] == pytest.approx(passed)


@pytest.mark.slow
def test_a_data_set_of_the_hub_there_and_back_its_model_on_a_drive(tmp_path):
    (tmp_path / "drive" / "MyDrive").mkdir(parents=True)
    settings = {"rows": 100, "epochs": 1, "output_dir": "drive/MyDrive/mine", "hub_user": "maker"}
    with runner.small_hub() as hub:
        executed = runner.execute("your_own/hub_dataset", tmp_path, **settings)
        card = hub.files("model", "maker/my-classifier")["README.md"].decode()
        parts = [path for path in hub.files("dataset", "maker/my-data") if "parquet" in path]
    text = outputs(executed)
    assert "maker/clickbait-titles, from the Hub" in text
    assert f"{hub.url}/maker/my-classifier" in text
    assert f"{hub.url}/datasets/maker/my-data" in text
    drive = tmp_path / "drive" / "MyDrive" / "mine"
    accuracy = metrics.load_metrics(drive)["test"]["accuracy"]
    assert f"accuracy {accuracy:.3f}" in text
    assert f"| test split | {accuracy:.3f} |" in card
    names = ("test", "train", "validation")
    assert sorted(parts) == [f"data/{name}-00000-of-00001.parquet" for name in names]
    assert hub.tokens["write"] not in executed.read_text()


def test_a_csv_of_one_s_own_on_a_drive(begin, few_titles, capsys):
    Path("drive/MyDrive").mkdir(parents=True)
    own = few_titles.rename(columns={"text": "headline", "label": "kind"})
    own.to_csv("drive/MyDrive/my.csv", index=False)
    settings = {"dataset": "drive/MyDrive/my.csv", "text": "headline", "label": "kind"}
    found = begin("your_own/hub_dataset", "data.load_splits", **settings)
    assert "drive/MyDrive/my.csv, from a file" in capsys.readouterr().out
    rows = {name: len(part) for name, part in found["splits"].items()}
    assert rows == {"train": 480, "validation": 60, "test": 60}
    assert found["names"] == ["clickbait", "factual"]


# --- Without running them


@by_name
def test_the_address_is_that_of_pyproject(path):
    assert address.addressed(path) == nbformat.read(path, as_version=4)
    assert address.badge(path) in nbformat.read(path, as_version=4).cells[0].source


def test_a_new_address_reaches_badge_and_install_cell(monkeypatch):
    monkeypatch.setattr(address, "repository", lambda: "https://github.com/someone/else")
    for path in NOTEBOOKS:
        notebook = nbformat.writes(address.addressed(path))
        assert "github/someone/else/blob/main/notebooks/" in notebook
        assert "git+https://github.com/someone/else" in notebook


@by_name
def test_a_notebook_is_fit_to_be_read(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1
    assert notebook.cells[0].source.startswith("# ")
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert "widgets" not in notebook.metadata
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs, "committed without outputs"
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)), "not run from top to bottom"
    text = nbformat.writes(notebook)
    assert str(ROOT) not in text
    assert "!pip" not in text
    assert not re.search(r"hf_[A-Za-z0-9]{20}", text)


@by_name
def test_what_a_notebook_uses_exists(path):
    """Attributes of the cookbook's modules, and the keywords that their functions are given."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        source = re.sub(r"^(\s*)%", r"\1pass  # %", cell.source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in cookbook.__all__:
                function = getattr(getattr(cookbook, owner.id), node.func.attr)
                known = inspect.signature(function).parameters
                if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
                    assert {k.arg for k in node.keywords if k.arg} <= set(known)


@by_name
def test_the_minutes_said_are_those_of_the_stored_run(path):
    """Within a factor of two, in its head, the index and the book; or they are an estimate."""
    notebook = nbformat.read(path, as_version=4)
    (head,) = re.findall(r"about \d+ minutes? on two cores[^.;]*", notebook.cells[0].source)
    place = rf"{path.parent.name}/{path.name}\)"
    index = (ROOT / "notebooks" / "README.md").read_text("utf-8")
    (row,) = re.findall(rf"{place}.*\|(.*)\|\n", index)
    front = (ROOT / "book" / "index.md").read_text("utf-8")
    ways = re.findall(rf"{place}.*\| after (\d+ minutes).*\|\n", front)
    stored = notebook.metadata.get("cookbook")
    for said in (head, row, *ways):
        minutes = int(re.search(r"(?<!\S)(\d+) minute", said)[1])
        assert said in ways or ("an estimate, from" in said) == (stored is None)
        assert stored is None or 1 / 2 <= 60 * minutes / stored["seconds"] <= 2


def test_every_notebook_is_in_the_index():
    index = (ROOT / "notebooks" / "README.md").read_text()
    front = (ROOT / "README.md").read_text()
    for path in NOTEBOOKS:
        assert f"({path.relative_to(ROOT / 'notebooks').as_posix()})" in index
        assert f"({path.relative_to(ROOT).as_posix()})" in front


def test_its_check_stops_a_run_whose_loss_is_no_number():
    notebook = nbformat.read(ROOT / "notebooks" / "keywords" / "2_fine_tune_bart.ipynb", 4)
    (cell,) = (cell.source for cell in notebook.cells if "class StopAtNaN" in cell.source)
    (check,) = (node for node in ast.parse(cell).body if isinstance(node, ast.ClassDef))
    names = {"TrainerCallback": TrainerCallback, "math": math}
    exec(ast.unparse(check), names)
    logged, state = names["StopAtNaN"]().on_log, TrainerState(global_step=7)
    logged(None, state, None, logs={"loss": 1.5, "eval_loss": 2.0})
    for logs in ({"loss": float("nan")}, {"eval_loss": float("inf")}):
        with pytest.raises(FloatingPointError, match="Step 7"):
            logged(None, state, None, logs=logs)
