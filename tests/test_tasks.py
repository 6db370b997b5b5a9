"""`cookbook make`: from a file of labels to a measured model; skipped, resumed, explained."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pandas as pd
import pytest
from typer.testing import CliRunner

from cookbook import cli, data, inference, tables, task_texts, tasks
from tests.servers.scripted_ollama import serving, title

TASK = """
name = "desk"
kind = "message"
per_label = 60
base_model = "minilm"
epochs = 8
learning_rate = 3e-4
[llm]
model = "phi3"
host = "{host}"
price = [1.0, 2.0]
[labels.billing]
definition = "The customer asks about a price, an invoice, a payment or a refund."
examples = [["a gym", "Why was I charged twice in May?"]]
[labels.technical]
definition = "Something doesn't work, and the customer wants it to work."
examples = [["a gym", "The app says my card is unknown at every door"]]
"""


def message(request, number):
    """A message that a small model can tell: money or machines, in the title's words."""
    system = request["messages"][0]["content"]
    about = "the invoice and refund for" if "is billing" in system else "the broken screen with"
    said = json.loads(title(request, number))["title"].split()
    return json.dumps({"message": " ".join([*said[:2], about, *said[2:]])})


def task_file(folder, host="http://127.0.0.1:9", text=TASK):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "task.toml"
    path.write_text(text.format(host=host) if "{host}" in text else text)
    return path


# --- Reading a task


def test_the_task_that_comes_along_is_a_task(tmp_path):
    done = CliRunner().invoke(cli.app, ["new", str(tmp_path / "desk.toml")])
    assert done.exit_code == 0, done.output
    task = tasks.read_task(tmp_path / "desk.toml")
    assert list(task.labels) == ["billing", "technical"]
    assert task.folder == tmp_path / "help-desk"
    again = CliRunner().invoke(cli.app, ["new", str(tmp_path / "desk.toml")])
    assert again.exit_code == 1
    assert "is there already" in again.output


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('kind = "message"', 'kinds = "message"', r"nobody knows 'kinds'; is it 'kind'\?"),
        (
            'model = "phi3"',
            'modle = "phi3"',
            r"llm.model: Field required; nobody knows 'llm.modle'; is it 'model'\?",
        ),
        (
            'examples = [["a gym", "Why was I charged twice in May?"]]',
            "",
            "billing.examples: Field",
        ),
        ('"Why was I charged twice in May?"]]', '"Why?", "x"]]', r"labels.billing.examples.0"),
        ("per_label = 60", "per_label = 0", "per_label: Input should be greater"),
        ('name = "desk"', 'name = "../desk"', "name: String should match"),
        ('name = "desk"', 'name = "desk', "is no TOML: .*line 2"),
        ("[labels.billing]", "[labels.räkning]", r"put quotes around .* \[labels.räkning\]"),
        ('kind = "message"', 'language = "suédois"', r"nobody knows .*Is it 'Swedish' \(sv\)"),
        ('kind = "message"', 'language = "Qwxyz"', r"nobody knows the language 'Qwxyz'"),
        ('kind = "message"', 'texts = "mine.csv"', r"texts = '.*mine.csv' isn't there"),
        ('kind = "message"', 'fields.keywords = "names"', r"\[labels\] or \[fields\], not both"),
        ("[labels.technical]", "[more.technical]", "nobody knows 'more'"),
        (
            '[llm]\nmodel = "phi3"\nhost = "{host}"\nprice = [1.0, 2.0]',
            "",
            "two labels or more and",
        ),
    ],
)
def test_what_is_wrong_with_a_task_is_said_in_a_line(old, new, told, tmp_path):
    assert old in TASK
    path = task_file(tmp_path, text=TASK.replace(old, new))
    with pytest.raises((ValueError, FileNotFoundError), match=told) as caught:
        tasks.read_task(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "desk").exists()


KEYWORDS = """
name = "posts"
texts = "posts.csv"
base_model = "minilm"
epochs = 4
learning_rate = 6e-4
[llm]
model = "phi3"
host = "{host}"
[fields]
keywords = "names that the text is about, spelt as in the text"
topic = "one or two broad topics"
[[examples]]
text = "We moved from Heroku"
keywords = ["Heroku"]
topic = "cloud"
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('keywords = "names', 'keyword = "names', r"\[fields\] needs keywords"),
        ('topic = "one', 'text = "one', r"\[fields\] needs keywords, .* and no text and no id"),
        ('texts = "posts.csv"', "", r"\[fields\] needs texts"),
        (
            'keywords = ["Heroku"]\n',
            "",
            "example 1 needs text, keywords, topic, and has text, topic",
        ),
        (
            'keywords = ["Heroku"]',
            "keywords = []",
            "example 1: keywords: List should have at least 1",
        ),
        ('name = "posts"', 'name = "posts"\nseveral = true', "several is about labels"),
    ],
)
def test_what_is_wrong_with_a_task_of_keywords_is_said_in_a_line(old, new, told, tmp_path):
    assert old in KEYWORDS
    (tmp_path / "posts.csv").write_text("text\nWe left Heroku\n")
    path = task_file(tmp_path, text=KEYWORDS.replace(old, new))
    with pytest.raises(ValueError, match=told) as caught:
        tasks.read_task(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_base_model_suits_the_language(tmp_path):
    mine = 'name = "own"\ntexts = "mine.csv"\n'
    (tmp_path / "mine.csv").write_text("text,label\nA,x\n")
    for language, base in {
        "en": "distilbert/distilbert-base-uncased",
        "Swedish": "KBLab/bert-base-swedish-cased",
        "ja": "distilbert/distilbert-base-multilingual-cased",
    }.items():
        path = task_file(tmp_path, text=f'{mine}language = "{language}"\n')
        assert tasks.read_task(path).base_model == base
    path = task_file(tmp_path, text=f'{mine}language = "sv"\nbase_model = "minilm"\n')
    assert tasks.read_task(path).base_model == "minilm"


def test_a_language_by_name_is_its_code_and_goes_into_the_question(tmp_path):
    with serving(message) as server:
        text = TASK.replace('kind = "message"', 'kind = "message"\nlanguage = "Swedish"')
        path = task_file(tmp_path, server.url, text)
        assert tasks.read_task(path).language == "sv"
        tasks.make(path, ["write"])
        assert "Write in Swedish." in server.requests[0]["messages"][0]["content"]
        plain = task_file(tmp_path / "plain", server.url)
        tasks.make(plain, ["write"])
        assert "Write in" not in server.requests[-1]["messages"][0]["content"]


def test_a_step_before_its_turn_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checked.csv isn't there yet: do the step before"):
        tasks.make(task_file(tmp_path), ["train"])
    with pytest.raises(ValueError, match=r"no steps \['trian'\]; there are write, check, train"):
        tasks.make(task_file(tmp_path), ["trian"])


def test_an_estimate_is_worked_out_from_ten_questions(tmp_path):
    with serving(message) as server:
        path = task_file(tmp_path, server.url)
        told = tasks.estimate(path)
    assert len(server.requests) >= 10
    assert "120 texts: some 120 questions" in told
    assert "hours of asking: " in told
    assert "hours of training on cpu: 0." in told
    assert not (tmp_path / "desk" / "texts.csv").exists()


def test_an_estimate_without_a_usable_answer_says_why(tmp_path):
    (tmp_path / "posts.csv").write_text("text\nWe left Heroku\n")
    with serving(lambda request, number: "no") as server:
        path = task_file(tmp_path, server.url, KEYWORDS)
        with pytest.raises(RuntimeError, match="No answer can be used, most of them for: no JSON"):
            tasks.estimate(path)


def test_texts_of_an_earlier_definition_and_measured_ones_are_not_trained_on(tmp_path):
    with serving(message) as server:
        path = task_file(tmp_path, server.url, TASK.replace("per_label = 60", "per_label = 10"))
        tasks.make(path, ["write", "check"])
        before = tables.read(tmp_path / "desk" / "texts.csv")
        changed = path.read_text().replace("a payment or a refund", "a payment or a discount")
        path.write_text(changed.replace("[llm]", 'measured = "hand.csv"\n[llm]'))
        tables.write(before.head(4), tmp_path / "hand.csv")
        done = tasks.make(path, ["write", "check"])
    texts = tables.read(tmp_path / "desk" / "texts.csv")
    assert texts["label"].value_counts().to_dict() == {"billing": 10, "technical": 10}
    assert not set(texts["prompt_version"]) & set(before["prompt_version"])
    measured = before.head(4)[["text", "label"]]
    tables.write(pd.concat([texts[["text", "label"]], measured]), tmp_path / "mine.csv")
    own = 'name = "own"\ntexts = "mine.csv"\nmeasured = "hand.csv"\n'
    done = tasks.make(task_file(tmp_path, text=own), ["check"])
    assert "4 near a measured one left out" in done.done["check"]
    checked = tables.read(tmp_path / "own" / "checked.csv")
    assert not set(checked["text"]) & set(measured["text"])


# --- The whole way


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A task made whole, with unlabelled texts and a few that a person labelled."""
    folder = tmp_path_factory.mktemp("made")
    with serving(message) as server:
        texts = [json.loads(message(ask(label, seed), 0))["message"] for label, seed in new(0, 60)]
        (folder / "inbox").mkdir()
        tables.write(pd.DataFrame({"text": texts[:70]}), folder / "inbox" / "may.csv")
        tables.write(pd.DataFrame({"text": texts[70:]}), folder / "inbox" / "june.parquet")
        rows = [(json.loads(message(ask(a, s), 0))["message"], a) for a, s in new(100, 15)]
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / "hand.csv", index=False)
        more = 'kind = "message"\nunlabelled = "inbox"\nmeasured = "hand.csv"'
        more += "\nsure = 0.8"
        path = task_file(folder, server.url, TASK.replace('kind = "message"', more))
        done = tasks.make(path)
        yield path, done, server


def new(start, count):
    pairs = [(label, 10**6 + start + i) for i in range(count) for label in ("billing", "technical")]
    return [(label, seed * 2 + (label == "billing")) for label, seed in pairs]


def ask(label, seed):
    return {"messages": [{"content": f"Every one of them is {label}:"}], "options": {"seed": seed}}


def test_a_task_becomes_a_measured_model(made):
    path, done, _ = made
    folder = path.parent / "desk"
    assert list(done.done) == list(tasks.STEPS)
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["real"]["accuracy"] > 0.9
    assert "accuracy" in done.done["measure"]
    assert "mistakes_real.csv first" in done.done["measure"]
    assert len(tables.read(folder / "texts.csv")) == 120
    said = ["Please send the invoice for May", "The broken screen flickers again"]
    for model in ("trained/model", "model", "int8"):
        answers = inference.classify(said, folder / model)
        assert set(answers["label"]) <= {"billing", "technical"}
        assert ("sure" in answers) == (model != "trained/model")
    assert "30 rows promise 80.0% at 95% confidence" in done.done["trust"]
    assert "as before: sure from" in done.done["export"]
    assert "<html" in (folder / "trained" / "hub_dataset.html").read_text()
    card = (folder / "to_push" / "README.md").read_text()
    assert "Texts written by phi3." in card
    assert f"{figures['test']['accuracy']:.3f}" in card
    assert "texts of hand.csv" in card
    assert (folder / "taught" / "best.json").is_file()
    assert str(folder) in str(done)


def test_a_folder_that_is_moved_is_not_trained_anew(made, tmp_path):
    path, done, _ = made
    there = shutil.copytree(path.parent, tmp_path / "elsewhere")
    again = tasks.make(there / "task.toml", ["train", "teach", "measure", "trust"])
    assert again.done == {name: done.done[name] for name in again.done}


def test_what_has_not_changed_is_not_done_again(made):
    path, done, server = made
    folder, asked = path.parent / "desk", len(server.requests)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/*.*")}
    again = tasks.make(path)
    assert again.done == done.done
    assert len(server.requests) == asked
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/*.*")} == before
    hand = path.parent / "hand.csv"
    rows = tables.read(hand)
    tables.write(rows.head(20), hand)
    changed = tasks.make(path)
    assert "20 real texts" in changed.done["measure"]
    assert changed.done["train"] == done.done["train"]


def test_a_folder_of_texts_has_changed_when_a_part_has(tmp_path):
    parts = tmp_path / "2026" / "may.csv", tmp_path / "june.csv"
    parts[0].parent.mkdir()
    parts[0].write_text("text\nMy bill is wrong\n")
    first = task_texts.digest_of(tmp_path)
    (tmp_path / ".DS_Store").write_text("where its window stood")
    assert task_texts.digest_of(tmp_path) == first
    parts[1].write_text("text\nThe screen is black\n")
    both = task_texts.digest_of(tmp_path)
    parts[0].write_text("text\nMy bill is right\n")
    changed = task_texts.digest_of(tmp_path)
    assert len({first, both, changed}) == 3
    (tmp_path / "2026" / "may.csv").rename(tmp_path / ".may.csv")
    (tmp_path / "2026" / "may.csv").symlink_to("../.may.csv")
    assert task_texts.digest_of(tmp_path) == changed
    (tmp_path / "_mine.csv").write_text("text\nNo part of the folder\n")
    assert task_texts.digest_of(tmp_path / "_mine.csv") != task_texts.digest_of(tmp_path) == changed


@pytest.mark.slow
def test_a_task_that_is_killed_goes_on_to_the_same_end(tmp_path):
    """Killed while it writes, while the notebook trains, and after: as if it hadn't been."""
    with serving(message, delay=0.01) as server:
        path = task_file(tmp_path / "killed", server.url)
        command = [sys.executable, "-c", "from cookbook.cli import main; main()", "make", str(path)]
        folder = path.parent / "desk"

        def writing():
            return len(server.requests) > 30

        def training():
            return list(folder.glob("trained/checkpoints/*/trainer_state.json"))

        def measured():
            return (folder / "metrics.json").exists()

        for moment in (writing, training, measured):
            deadline = time.monotonic() + 600
            run = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
            while not moment() and run.poll() is None:
                assert time.monotonic() < deadline
                with suppress(subprocess.TimeoutExpired):
                    run.wait(0.02)
            os.killpg(run.pid, signal.SIGKILL)
            assert run.wait() == -signal.SIGKILL
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "Everything is in" in done.stdout
        whole = task_file(tmp_path / "whole", server.url)
        tasks.make(whole)
    other = whole.parent / "desk"
    for name in ("texts.csv", "checked.csv"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    ours, theirs = (json.loads((f / "metrics.json").read_text()) for f in (folder, other))
    assert ours == theirs


@pytest.mark.slow
def test_texts_of_one_s_own_with_several_labels(tmp_path):
    rows = pd.read_csv(data.shipped("tech_keywords.csv"), keep_default_na=False)
    kinds = {"Careers", "DevOps", "Security", "Web Development", "Hardware"}
    sets = [[t for t in cell.split(", ") if t in kinds] for cell in rows["topic"]]
    rows = pd.DataFrame({"text": rows["text"].str[:120], "label": map("|".join, sets)})
    tables.write(rows[rows["label"] != ""].head(500), tmp_path / "mine.csv")
    path = task_file(
        tmp_path,
        text='name = "topics"\ntexts = "mine.csv"\nseveral = true\nbase_model = "minilm"\n'
        "epochs = 1\nlearning_rate = 3e-4\n",
    )
    done = tasks.make(path)
    assert "f1_macro" in done.done["measure"]
    answers = inference.classify(["We moved to Kubernetes"], tmp_path / "topics" / "int8")
    assert isinstance(answers["label"][0], list)
    card = (tmp_path / "topics" / "to_push" / "README.md").read_text()
    assert "several or none" in card


def annotated(request, number):
    """Keywords as the shipped posts have them, whatever is asked with an id."""
    shown = {row["text"]: row for row in POSTS.to_dict("records")}
    asked = [json.loads(line) for line in request["messages"][-1]["content"].splitlines()]
    return json.dumps(
        {
            "answers": [
                {
                    "id": one["id"],
                    "keywords": shown[one["text"]]["keywords"].split(", "),
                    "topic": shown[one["text"]]["topic"],
                }
                for one in asked
            ]
        }
    )


POSTS = tables.read(data.shipped("tech_keywords.csv")).head(180)


@pytest.mark.slow
def test_keywords_become_a_model_that_marks_them(tmp_path):
    rows = POSTS.head(120)
    tables.write(rows[["text"]], tmp_path / "posts.csv")
    tables.write(POSTS[["text", "keywords"]].tail(60), tmp_path / "hand.csv")
    more = 'texts = "posts.csv"\nmeasured = "hand.csv"\n'
    with serving(annotated) as server:
        path = task_file(tmp_path, server.url, KEYWORDS.replace('texts = "posts.csv"\n', more))
        told = tasks.estimate(path)
        assert "120 texts: some 12 questions" in told
        assert "hours of training on cpu: 0." in told
        done = tasks.make(path)
    folder = tmp_path / "posts"
    texts = tables.read(folder / "texts.csv")
    assert texts["text"].tolist() == rows["text"].tolist()
    assert "We moved from Heroku" in server.requests[0]["messages"][1]["content"]
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["real"]["f1@M"] > 0.2
    assert "f1@M" in done.done["measure"]
    assert "found" in tables.read(folder / "mistakes_real.csv")
    said = ["Ubuntu ships a new kernel for the Raspberry Pi"]
    assert inference.load(folder / "int8").kind == "marker"
    assert isinstance(inference.extract_keywords(said, folder / "int8")[0], list)
    assert "keyword_threshold" in json.loads((folder / "int8" / "config.json").read_text())
    assert "no promise of 98.0%" in done.done["trust"]
    assert "Texts annotated by phi3." in (folder / "to_push" / "README.md").read_text()
    assert "challenge" not in (folder / "trained" / "metrics.json").read_text()


def test_several_labels_are_written_and_then_asked_for(tmp_path):
    def script(request, number):
        if "annotate" not in request["messages"][0]["content"]:
            return message(request, number)
        asked = [json.loads(line) for line in request["messages"][-1]["content"].splitlines()]
        both = {"labels": ["billing", "technical"]}
        return json.dumps({"answers": [{"id": one["id"], **both} for one in asked]})

    with serving(script) as server:
        text = TASK.replace("per_label = 60", "per_label = 20\nseveral = true\nleast = 5")
        done = tasks.make(task_file(tmp_path, server.url, text), ["write", "check"])
    texts = tables.read(tmp_path / "desk" / "texts.csv")
    assert len(texts) == 40
    assert set(texts["label"]) == {"billing|technical", "technical|billing"}
    assert (texts["label"].str.split("|").str[0] == texts["written_as"]).all()
    assert "40 texts" in done.done["check"]
