"""The command `cookbook`, as somebody types it."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
from typer.testing import CliRunner

from cookbook import cli, inference, tables
from tests.running import ROOT
from tests.servers import hub as hub_server
from tests.servers.scripted_ollama import serving, title


def typed(*words):
    return CliRunner().invoke(cli.app, list(map(str, words)))


def command(*words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "cookbook.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        # Whoever runs the tests in the background has them, and their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


# --- Help, errors, exit codes


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "titles": ["--per-label", "--topics", "ollama pull", "--timeout"],
        "annotate": ["--in", "--text", "keywords", "ollama pull"],
        "check": ["--label", "--keywords", "Exit status"],
        "answer": ["--text", "A saved or exported model"],
        "notebooks": ["made where it is missing"],
        "page": ["--port", "--host", "--share", "--example", "Ctrl-C"],
        "export": ["--no-int8", "without torch"],
        "push": ["--kind", "--private", "dataset", "--dry-run"],
        "new": ["task.toml"],
        "make": ["--only", "--estimate", "with unlabelled"],
        "write": ["the first step"],
        "train": ["whose HTML is the report"],
        "measure": ["what a person labelled"],
        "card": ["to be pushed"],
        "teach": ["--unlabelled", "--labelled", "--measured", "--base", "--rounds"],
    }.items(),
)
def test_help_says_what_a_command_does_and_shows_it(name, words):
    every = typed("--help").stdout
    assert f"  {name} " in every
    told = typed(name, "--help").stdout
    for word in [*words, f"  cookbook {name} "]:
        assert word in told


def test_the_notebooks_are_copied_out_but_never_over_changed_ones(tmp_path):
    folder = tmp_path / "mine"
    done = typed("notebooks", folder)
    assert done.exit_code == 0
    copied = [Path(line) for line in done.stdout.splitlines()]
    sources = sorted((ROOT / "notebooks").glob("*/[a-z0-9]*.ipynb"))
    assert copied == [folder / source.relative_to(ROOT / "notebooks") for source in sources]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(copied, sources, strict=True))
    assert (folder / "pictures" / "demo_clickbait.png").is_file()
    assert typed("notebooks", folder).exit_code == 0  # nothing has changed
    copied[3].write_text("mine")
    copied[4].unlink()
    again = typed("notebooks", folder)
    assert (again.exit_code, again.stdout) == (1, "")
    assert f"{copied[3]} is there already, and differs" in again.stderr
    assert copied[3].read_text() == "mine"
    assert not copied[4].exists()


def test_a_mistyped_command_is_another_status_than_an_error():
    assert typed("titel").exit_code == 2
    assert typed("check").exit_code == 2
    assert typed("export", "a", "b", "--int9").exit_code == 2


def test_an_error_is_one_line_on_stderr(tmp_path):
    done = typed("titles", "--out", tmp_path / "x.csv", "--host", "http://127.0.0.1:9")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: No Ollama server")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x.csv").exists()


def test_an_unforeseen_error_names_its_kind_and_stays_one_line(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise KeyError("a\nb")

    monkeypatch.setattr("cookbook.inference.answer_file", broken)
    done = typed("answer", "a.csv", tmp_path / "b.csv", "model")
    assert done.exit_code == 1
    assert done.stderr == "Error: KeyError('a\\nb')\n"


def test_a_warning_is_one_line_without_a_place_in_the_code(monkeypatch, tmp_path):
    def wordy(*_, **__):
        warnings.warn("Three rows\nhave no label.", stacklevel=1)
        return "done"

    monkeypatch.setattr("cookbook.inference.answer_file", wordy)
    done = typed("answer", "a.csv", tmp_path / "b.csv", "model")
    assert (done.exit_code, done.stdout) == (0, "done\n")
    assert done.stderr == "Warning: Three rows have no label.\n"


def test_a_parameter_is_named_as_the_option_that_it_is(tmp_path):
    (tmp_path / "a.csv").write_text("title,kind\nRain,news\n", "utf-8")
    done = typed("check", tmp_path / "a.csv")
    assert done.exit_code == 1
    assert "has no column 'text', 'label'; it has: 'title', 'kind'." in done.stderr
    assert "Name yours with --text, --label, --keywords" in done.stderr
    done = typed("check", tmp_path / "a.csv", "--text", "title")
    assert "has no column 'label'; it has: 'title', 'kind'" in done.stderr


def test_ctrl_c_ends_it_at_once_and_the_file_is_whole(tmp_path):
    out = tmp_path / "titles.csv"
    with serving(title, delay=0.02) as server:
        process = command("titles", "--per-label", 500, "--out", out, "--host", server.url)
        assert server.wait_for(30)
        process.send_signal(signal.SIGINT)
        output = "".join(process.communicate())
    assert process.returncode == 130
    assert "to go on, run the same again" in output
    assert "Traceback" not in output
    assert out.read_text("utf-8").endswith("\n")
    assert len(pd.read_csv(out)) >= 10


# --- Data


def test_topics_are_read_without_marks_and_blank_lines(tmp_path):
    topics = tmp_path / "topics.txt"
    topics.write_bytes(b"\xef\xbb\xbfgardening\r\n\r\n  rivers \r\n")
    out = tmp_path / "titles.csv"
    with serving(title) as server:
        options = ["--per-label", "6", "--out", out, "--host", server.url]
        done = typed("titles", "--topics", topics, *options)
    assert done.exit_code == 0, done.stderr
    assert "12 usable rows" in done.stdout
    assert set(pd.read_csv(out)["topic"]) == {"gardening", "rivers"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xef\xbb\xbf \n\n", "topics and styles must not be empty"),
        ("Café".encode("cp1252"), "topics.txt isn't UTF-8"),
    ],
)
def test_topics_that_will_not_do_are_refused_before_anybody_is_asked(content, told, tmp_path):
    topics = tmp_path / "topics.txt"
    topics.write_bytes(content)
    done = typed("titles", "--topics", topics, "--host", "http://127.0.0.1:9")
    assert done.exit_code == 1
    assert told in done.stderr


def test_texts_are_annotated_and_every_column_kept(tmp_path):
    def keywords(request, number):
        row = json.loads(request["messages"][-1]["content"].splitlines()[-1])
        said = {"id": row["id"], "keywords": ["Docker"], "topic": "Home", "summary": "A router"}
        return json.dumps({"answers": [said]})

    source, out = tmp_path / "posts.tsv", tmp_path / "annotated.csv"
    source.write_text("code\tbody\n007\tDocker runs on my router\n", "utf-8")
    with serving(keywords) as server:
        options = ["--in", source, "--out", out, "--text", "body", "--host", server.url]
        done = typed("annotate", *options, "--per-call", "1")
    assert done.exit_code == 0, done.stderr
    row = pd.read_csv(out, dtype=str).iloc[0]
    assert (row["code"], row["body"]) == ("007", "Docker runs on my router")
    assert "Docker" in row["keywords"]


def test_check_prints_what_it_finds_and_says_it_with_its_status(tmp_path):
    rows = [("Rain in Leeds", "news"), ("Bread from Hull", "news"), ("Look at this", "bait")]
    rows += [("Nobody saw it coming", "bait")]
    frame = pd.DataFrame(rows, columns=["text", "label"])
    frame.to_csv(tmp_path / "fine.csv", index=False)
    frame.assign(label=["news", "bait"] * 2, text="Rain").to_csv(tmp_path / "bad.csv", index=False)
    done = typed("check", tmp_path / "fine.csv")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "No problem found" in done.stdout
    done = typed("check", tmp_path / "bad.csv")
    assert (done.exit_code, done.stderr) == (1, "")
    assert "duplicate" in done.stdout


def test_check_looks_at_keywords_where_these_are_named(tmp_path):
    frame = pd.DataFrame({"body": ["Go is fast", "C is old"], "tags": ["Go; go", "C"]})
    frame.to_csv(tmp_path / "posts.csv", index=False)
    done = typed("check", tmp_path / "posts.csv", "--text", "body", "--keywords", "tags")
    assert done.exit_code == 1
    assert "repeated keyword" in done.stdout


# --- Models


def test_a_step_of_a_task_is_a_command_of_its_own(tmp_path):
    rows = pd.DataFrame({"text": ["Tea is up", "Tea will shock you"] * 2, "label": ["a", "b"] * 2})
    rows.to_csv(tmp_path / "mine.csv", index=False)
    task = tmp_path / "task.toml"
    task.write_text('name = "desk"\ntexts = "mine.csv"\n')
    for step, told in {"write": "mine.csv, your own", "check": "4 texts; 2 copies"}.items():
        done = typed(step, task)
        assert done.exit_code == 0, done.output
        assert told in done.stdout
    for step in ("teach", "measure", "export", "card"):
        done = typed(step, task)
        assert done.exit_code == (0 if step == "teach" else 1), done.output
        assert ("no unlabelled texts" if step == "teach" else "do the step before") in done.output
    assert "with --unlabelled" in typed("teach", "a/model").output
    assert "cookbook export MODEL FOLDER" in typed("export", "a/model").output


def test_a_table_is_answered_with_a_model_and_with_its_export(trained, exported, tmp_path):
    texts = trained.test["text"].head(5).tolist()
    pd.DataFrame({"title": texts, "score": "mine"}).to_csv(tmp_path / "a.csv", index=False)
    words = ["answer", tmp_path / "a.csv"]
    done = typed(*words, tmp_path / "torch.csv", trained.folder, "--text", "title")
    assert done.exit_code == 0, done.stderr
    process = command(*words, tmp_path / "onnx.csv", exported.exact, "--text", "title")
    # Where the output is no terminal, no progress bar writes a line at each of its steps.
    assert process.communicate() == (f"{tmp_path / 'onnx.csv'}\n", "")
    labels = inference.classify(texts, trained.folder)["label"].tolist()
    for name in ("torch", "onnx"):
        found = pd.read_csv(tmp_path / f"{name}.csv")
        assert found["title"].tolist() == texts
        assert set(found["score"]) == {"mine"}
        assert found["label"].tolist() == labels


def test_either_kind_of_model_is_exported_as_it_takes(trained, keyword_model, monkeypatch):
    for name in ("export_onnx", "export_ctranslate2"):

        def told(model, folder, name=name, **options):
            return f"{name} {folder} {options}"

        monkeypatch.setattr(f"cookbook.export.{name}", told)
    assert typed("export", trained.folder, "a").stdout == "export_onnx a {'int8': True}\n"
    assert typed("export", trained.folder, "a", "--no-int8").stdout.endswith("{'int8': False}\n")
    done = typed("export", keyword_model, "b")
    assert done.stdout == "export_ctranslate2 b {'quantization': 'int8'}\n"
    done = typed("export", keyword_model, "b", "--no-int8")
    assert done.stdout == "export_ctranslate2 b {'quantization': None}\n"


@pytest.mark.parametrize("name", ["answer", "export", "page"])
def test_what_can_answer_nothing_is_refused_by_every_command(name, minilm, tmp_path):
    (tmp_path / "a.csv").write_text("text\nRain\n", "utf-8")
    for model, told in {minilm: "BertModel", tmp_path / "nothing": "nothing"}.items():
        words = {
            "answer": [tmp_path / "a.csv", tmp_path / "b.csv", model],
            "export": [model, tmp_path / "made"],
            "page": [model],
        }[name]
        done = typed(name, *words)
        assert done.exit_code == 1
        assert done.stderr.startswith("Error: ")
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "b.csv").exists()


# --- The Hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_server.serving() as server:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", server.tokens["write"])
        monkeypatch.chdir(tmp_path)
        yield server


def test_a_model_is_laid_out_looked_at_and_pushed(trained, hub, tmp_path):
    done = typed("push", trained.folder, "maker/bait", "--license", "mit", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "to_push/models/bait\n"
    assert not hub.repos
    card = tmp_path / "to_push" / "models" / "bait" / "README.md"
    card.write_text(card.read_text("utf-8") + "\nI looked at it.\n", "utf-8")
    done = typed("push", "to_push/models/bait", "--private")
    assert done.stdout == f"{hub.url}/maker/bait\n"
    assert hub.repos["model", "maker/bait"].private
    card = hub.files("model", "maker/bait")["README.md"].decode()
    assert "license: mit" in card
    assert "I looked at it." in card


def test_a_table_and_a_page_are_pushed_with_what_was_said_of_them(few_titles, hub, tmp_path):
    few_titles.to_csv(tmp_path / "titles.csv", index=False)
    words = ["push", "titles.csv", "maker/titles", "--kind", "dataset"]
    done = typed(*words)
    assert done.exit_code == 1
    assert "Say with --provenance who wrote the data" in done.stderr
    assert typed(*words, "--provenance", "Written by hand.").exit_code == 0
    files = hub.files("dataset", "maker/titles")
    assert "Written by hand." in files["README.md"].decode()
    assert sum(name.endswith(".parquet") for name in files) == 3
    posts = pd.DataFrame({"text": [f"Post {i} on Redis" for i in range(20)], "tags": "Redis"})
    posts.to_csv(tmp_path / "posts.csv", index=False)
    words = ["push", "posts.csv", "maker/posts", "--kind", "dataset", "--keywords", "tags"]
    assert typed(*words, "--provenance", "Written by hand.", "--dry-run").exit_code == 0
    card = (tmp_path / "to_push" / "datasets" / "posts" / "README.md").read_text("utf-8")
    assert "keyword-extraction" in card
    assert typed("push", "maker/bait", "maker/page", "--kind", "space").exit_code == 0
    assert "maker/bait" in hub.files("space", "maker/page")["app.py"].decode()


# --- Learning from texts without labels


@pytest.mark.slow
def test_teach_makes_a_student_from_files_and_goes_on(trained, titles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool = titles.tail(90)[["text"]].rename(columns={"text": "headline"})
    pool.to_json("pool.jsonl", orient="records", lines=True)
    few = titles.head(200).rename(columns={"text": "headline", "label": "kind"})
    pd.concat([few, few.head(3)]).to_csv("titles.csv", index=False)
    pool.head(2).to_csv("real.csv", index=False)
    words = ["teach", trained.folder, "--unlabelled", "pool.jsonl", "--labelled", "titles.csv"]
    words += ["--measured", "real.csv", "--text", "headline", "--label", "kind", "--sample", 60]
    words += ["--rounds", 1, "--epochs", 1, "--out", "taught"]
    done = typed(*words)
    assert done.exit_code == 0, done.output
    folder = done.stdout.splitlines()[-1]
    assert folder == "taught/round-1/seed-0"
    assert "validation_loss" in done.stdout
    assert "3 of 203 labelled texts repeat another" in done.stderr
    used = tables.read("taught/round-1/pool.parquet")
    copies = used["text"].isin(pool["headline"].head(2))
    assert (used.loc[copies, "left_out"] == "copy of a held-out text").all()
    assert len(used) == 60
    answers = inference.classify(few["headline"].tolist(), folder)
    assert (answers["label"].to_numpy() == few["kind"].to_numpy()).mean() > 0.9
    made = (tmp_path / folder / "model.safetensors").stat().st_mtime_ns
    assert typed(*words).stdout == done.stdout
    assert (tmp_path / folder / "model.safetensors").stat().st_mtime_ns == made
    # A key to the labels isn't needed, and the texts may be several files.
    (tmp_path / "pool").mkdir()
    pool.head(50).to_json("pool/a.jsonl", orient="records", lines=True)
    pool.tail(40).to_csv("pool/b.csv", index=False)
    alone = typed("teach", trained.folder, "--unlabelled", "pool", "--text", "headline",
                  "--rounds", 1, "--epochs", 1, "--out", "alone")  # fmt: skip
    assert alone.exit_code == 0, alone.output
    assert alone.stdout.splitlines()[-1] == "alone/round-1/seed-0"
    assert set(tables.read("alone/round-1/pool.parquet")["text"]) < set(pool["headline"])


@pytest.mark.slow
def test_teach_makes_a_marker_too(marker, short_posts, tmp_path):
    short_posts.to_csv(tmp_path / "posts.csv", index=False)
    rows = tables.read(ROOT / "data" / "tech_keywords.csv").tail(30)[["text"]]
    rows.to_csv(tmp_path / "pool.csv", index=False)
    done = typed("teach", marker, "--unlabelled", tmp_path / "pool.csv",
                 "--labelled", tmp_path / "posts.csv", "--rounds", 1, "--epochs", 2,
                 "--out", tmp_path / "taught")  # fmt: skip
    assert done.exit_code == 0, done.output
    folder = done.stdout.splitlines()[-1]
    assert inference.extract_keywords(short_posts["text"].tolist(), folder)[0]
