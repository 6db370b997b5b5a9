"""Synthesis against real HTTP: a scripted server for faults, a real small model for the rest."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from pydantic import BaseModel

from cookbook import data, quality
from cookbook.synthesis import CLICKBAIT, Label, annotate, generate_texts, tidy
from tests.servers import ollama as real
from tests.servers.scripted_ollama import Cut, Failure, Raw, Slow, Truncated, serving, title

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ["text", "label", "topic", "style", "model", "prompt_version", "seed"]


def answering(*answers):
    """Give these answers in turn, then titles that are all different."""

    def answer(request, number):
        given = answers[number] if number < len(answers) else title(request, number)
        return json.dumps({"title": given}) if isinstance(given, str) and given[0] != "{" else given

    return answer


def write(out, server, **settings):
    settings = {"per_label": 5, "concurrency": 1, "host": server.url, **settings}
    return generate_texts(out, **settings)


# --- Titles


def test_it_writes_equally_many_usable_titles_per_label_over_the_same_topics(tmp_path):
    with serving(title) as server:
        done = write(tmp_path / "titles.csv", server, per_label=12, concurrency=4)
    rows = data.read_csv(tmp_path / "titles.csv")
    assert list(rows.columns) == COLUMNS
    assert rows["label"].value_counts().to_dict() == {"clickbait": 12, "factual": 12}
    assert rows["text"].is_unique
    assert not rows.duplicated(["label", "seed"]).any()
    topics = {name: set(part["topic"]) for name, part in rows.groupby("label")}
    assert len(topics["clickbait"] & topics["factual"]) > 6
    assert rows["style"].nunique() > 3
    assert "24 usable rows" in str(done)
    asked = server.requests
    assert all(request["options"]["num_predict"] and request["format"] for request in asked)
    assert len({json.dumps(request["messages"]) for request in asked}) == len(asked)


def test_titles_are_filtered_with_a_reason_and_nothing_is_lost(tmp_path):
    good = '"A ferry sank off the coast of Norway."'
    answers = {
        good: None,
        "A ferry sank off the coast of norway": "duplicate",
        "A ferry sank off the coasts of Norway": "near duplicate",
        "Nobody knows": "too short",
        "far " * 40 + "too long": "too long",
        "Here is a title: dogs like warm rain": "meta text",
        "A clickbait title about a dog": "meta text",
        CLICKBAIT[0].examples[0][1]: "copied example",
        '{"headline": "A dog likes warm rain"}': "wrong schema",
        '{"title": 7}': "wrong schema",
        Truncated('{"title": "A dog likes'): "truncated",
        Raw(b"garbage"): "garbled answer",
        Raw(
            b'{"model": "phi3", "message": {"role": "assistant", "content": "{}"}, "done": false}'
        ): ("ended early"),
    }
    with serving(answering(*answers)) as server:
        done = write(tmp_path / "titles.csv", server)
    expected = [reason for reason in answers.values() if reason]
    assert done.rejected["reason"].tolist() == expected
    assert done.reasons.sum() == len(expected)
    assert "A ferry sank off the coast of Norway" in done.rows["text"].tolist()
    assert done.rejected["text"][0] == "A ferry sank off the coast of norway"
    assert done.rows["label"].value_counts().to_dict() == {"clickbait": 5, "factual": 5}
    beside = pd.read_csv(tmp_path / "titles.rejected.csv")
    assert beside["reason"].tolist() == expected


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ('"Quoted"', "Quoted"),
        ("“Curly” at both “ends”", "“Curly” at both “ends”"),
        ("  You won't  believe it!!! ", "You won't believe it"),
        ("'It's over.'", "It's over"),
        ("Is it?", "Is it?"),
        ("", ""),
        ("!", ""),
    ],
)
def test_tidying_unwraps_every_label_alike(raw, clean):
    assert tidy(raw) == clean


def test_a_list_per_question_gives_several_rows(tmp_path):
    def three(request, number):
        titles = [
            json.loads(title({"options": {"seed": 1000 + 3 * number + i}}, 0))["title"]
            for i in range(3)
        ]
        return json.dumps({"titles": titles})

    with serving(three) as server:
        done = write(tmp_path / "titles.csv", server, per_call=3, per_label=6)
    assert done.rows["label"].value_counts().to_dict() == {"clickbait": 6, "factual": 6}
    assert len(server.requests) <= 5


def test_any_labels_will_do(tmp_path):
    labels = [
        Label(name, f"It is about {name}.", ((name, f"My {name} needs care"),))
        for name in ("billing", "crash", "feature")
    ]
    kinds = []

    def answer(request, number):
        kinds.extend(request["format"]["properties"])
        return title(request, number).replace("title", "support_request")

    with serving(answer) as server:
        done = write(tmp_path / "x.csv", server, labels=labels, kind="support request")
    assert done.rows["label"].value_counts().to_dict() == dict.fromkeys(
        ("billing", "crash", "feature"), 5
    )
    assert set(kinds) == {"support_request"}


def test_questions_run_at_once_but_not_more_than_asked(tmp_path):
    with serving(title, delay=0.02) as server:
        write(tmp_path / "titles.csv", server, per_label=20, concurrency=4)
    assert server.most_at_once == 4


def test_the_file_is_the_same_whoever_answers_first(tmp_path):
    def uneven(request, number):
        return Slow(title(request, number), random.Random(number).random() / 20)

    for name, answer, concurrency in (("a.csv", title, 3), ("b.csv", uneven, 3)):
        with serving(answer) as server:
            write(tmp_path / name, server, per_label=15, concurrency=concurrency)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


# --- Going on


def test_a_finished_file_asks_nothing_more_and_a_larger_one_only_the_rest(tmp_path):
    out = tmp_path / "titles.csv"
    with serving(title) as server:
        write(out, server)
        before = out.read_bytes()
        asked = len(server.requests)
        write(out, server)
        assert out.read_bytes() == before
        assert len(server.requests) == asked
        write(out, server, per_label=8)
        assert len(server.requests) == asked + 6
    assert data.read_csv(out)["label"].value_counts().to_dict() == {"clickbait": 8, "factual": 8}


def test_another_model_adds_its_own_rows_to_the_file(tmp_path):
    out = tmp_path / "titles.csv"

    def shifted(request, number):
        return title({"options": {"seed": request["options"]["seed"] + 5000}}, number)

    with serving(title, models=["phi3"]) as server:
        write(out, server)
    with serving(shifted, models=["qwen"]) as server:
        done = write(out, server, model="qwen")
    assert len(done.rows) == 10
    assert data.read_csv(out)["model"].value_counts().to_dict() == {"phi3": 10, "qwen": 10}


@pytest.mark.parametrize("torn", ['"A half, tit', "A half title,clickb", '"Two\nlines", and'])
def test_a_torn_line_is_taken_off(tmp_path, torn):
    out = tmp_path / "titles.csv"
    with serving(title) as server:
        write(out, server)
        whole = out.read_bytes()
        out.write_bytes(whole + torn.encode())
        write(out, server)
    assert out.read_bytes() == whole


def test_titles_that_look_like_numbers_or_nothing_stay_as_they_are(tmp_path):
    out = tmp_path / "titles.csv"
    odd = ["nan of the above, said the vicar", "007 is back in town", "1,000 reasons to stay"]
    with serving(answering(*odd)) as server:
        write(out, server)
        write(out, server, per_label=6)
    assert set(odd) <= set(data.read_csv(out)["text"])


def test_a_file_of_other_columns_is_left_alone(tmp_path):
    out = tmp_path / "titles.csv"
    out.write_text("text,label\nmine,a\n", "utf-8")
    with serving(title) as server, pytest.raises(ValueError, match="Name another file"):
        write(out, server)
    assert out.read_text("utf-8") == "text,label\nmine,a\n"


def command(*options, host):
    return subprocess.Popen(
        [sys.executable, "-m", "cookbook.synthesis", *map(str, options), "--host", host],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Whoever runs the tests in the background has them, and their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_killed_at_twenty_moments_it_ends_with_the_same_file(tmp_path):
    """kill -9 whenever another random number of questions has arrived; then let it finish."""
    rng = random.Random(0)
    plan = {"per_label": 150, "concurrency": 4}
    now_and_then = answering(*["Too short"] * 3)
    with serving(now_and_then, delay=0.002) as server:
        write(tmp_path / "whole.csv", server, **plan)
    with serving(now_and_then, delay=0.002) as server:
        kills = 0
        for _ in range(60):
            options = ["titles", "--per-label", 150, "--out", tmp_path / "killed.csv"]
            process = command(*options, host=server.url)
            if kills < 20:
                assert server.wait_for(len(server.requests) + rng.randint(1, 14))
                process.kill()
                kills += process.wait() == -signal.SIGKILL
            process.communicate()
            if process.returncode == 0:
                break
        assert kills >= 20
    whole, killed = (data.read_csv(tmp_path / f"{name}.csv") for name in ("whole", "killed"))
    assert killed["label"].value_counts().to_dict() == {"clickbait": 150, "factual": 150}
    assert killed["text"].is_unique
    assert not killed.duplicated(["model", "prompt_version", "label", "topic", "seed"]).any()
    assert killed["prompt_version"].unique().tolist() == whole["prompt_version"].unique().tolist()
    # What was asked just before a kill is asked again, so no more than that is missing or new.
    assert len(set(whole["text"]) & set(killed["text"])) >= 290


def test_a_second_process_on_the_same_file_is_refused(tmp_path):
    out = tmp_path / "titles.csv"
    with serving(title, delay=0.05) as server:
        process = command("titles", "--per-label", 500, "--out", out, host=server.url)
        assert server.wait_for(3)
        with pytest.raises(RuntimeError, match="Another process is writing"):
            write(out, server)
        process.kill()
        process.communicate()
        write(out, server)  # a killed process holds no lock


def test_ctrl_c_leaves_a_clean_file_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "titles.csv"
    with serving(title, delay=0.02) as server:
        process = command("titles", "--per-label", 500, "--out", out, host=server.url)
        assert server.wait_for(30)
        process.send_signal(signal.SIGINT)
        output = "".join(process.communicate())
    assert process.returncode == 130
    assert "To go on, run the same again" in output
    assert "Traceback" not in output
    rows = data.read_csv(out)
    assert len(rows) >= 10
    assert out.read_text("utf-8").endswith("\n")


# --- Faults


def test_no_server(tmp_path):
    with pytest.raises(ConnectionError, match="ollama serve"):
        generate_texts(tmp_path / "x.csv", host="http://127.0.0.1:9")
    assert not (tmp_path / "x.csv").exists()


def test_a_model_that_was_not_pulled(tmp_path):
    with serving(title) as server, pytest.raises(LookupError, match="ollama pull mistral"):
        write(tmp_path / "x.csv", server, model="mistral")


def test_an_answer_that_takes_too_long(tmp_path):
    def slow(request, number):
        return Slow(title(request, number), 30)

    with serving(slow) as server, pytest.raises(TimeoutError, match="Raise timeout="):
        write(tmp_path / "x.csv", server, timeout=0.2)


@pytest.mark.parametrize(
    "fault", [Failure(503, "server busy"), Failure(500, "llama runner died"), Cut('{"title": "A')]
)
def test_what_may_pass_is_tried_again(tmp_path, fault):
    with serving(answering(fault, fault)) as server:
        done = write(tmp_path / "titles.csv", server)
    assert len(server.requests) == 12
    assert len(done.rows) == 10
    assert done.rejected.empty


def test_a_server_that_stays_busy(tmp_path, monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    with serving(title) as server:
        write(tmp_path / "titles.csv", server, per_label=2)
        server.answer = lambda request, number: Failure(503, "server busy")
        with pytest.raises(ConnectionError, match="stays busy"):
            write(tmp_path / "titles.csv", server)
        server.answer = title
        write(tmp_path / "titles.csv", server)
    assert len(data.read_csv(tmp_path / "titles.csv")) == 10


def test_a_server_that_refuses_the_question(tmp_path):
    refusal = Failure(400, "invalid format")
    with serving(answering(refusal)) as server, pytest.raises(RuntimeError, match=r"400.*invalid"):
        write(tmp_path / "x.csv", server)


@pytest.mark.parametrize("answer", ["The same title again and again", '{"name": "no title"}'])
def test_it_gives_up_on_a_model_that_cannot_do_it(tmp_path, answer):
    with (
        serving(answering(*[answer] * 500)) as server,
        pytest.raises(RuntimeError, match=r"phi3 isn't up to this: 50 rejections in a row"),
    ):
        write(tmp_path / "x.csv", server)
    assert len(server.requests) < 60


@pytest.mark.parametrize(
    "settings",
    [
        {"per_label": 0},
        {"temperature": 0},
        {"topics": []},
        {"labels": []},
        {"labels": [Label("a", "b", ())]},
    ],
)
def test_settings_that_cannot_work(tmp_path, settings):
    with pytest.raises(ValueError, match=r"must be positive|Give each label"):
        generate_texts(tmp_path / "x.csv", **settings)


# --- Annotations


def keywords_for(text):
    return {"keywords": [word for word in text.split() if word[0].isupper()] or ["none"]}


def annotator(change=lambda answers, number: answers):
    """Answer every text with its capitalised words, in reverse order; `change` may spoil it."""

    def answer(request, number):
        texts = [json.loads(line) for line in request["messages"][-1]["content"].splitlines()]
        answers = [
            {"id": text["id"], **keywords_for(text["text"]), "topic": "Tech", "summary": "A post"}
            for text in reversed(texts)
        ]
        return json.dumps({"answers": change(answers, number)})

    return answer


@pytest.fixture
def posts():
    names = ["Redis", "Docker", "Rust", "Go", "Kafka", "Vue", "Svelte", "Deno", "Bun", "Zig", "Nim"]
    return pd.DataFrame({"text": [f"we use {name} now" for name in names], "source": range(11)})


def test_every_text_gets_its_own_annotation(tmp_path, posts):
    posts.to_csv(tmp_path / "posts.csv", index=False)
    with serving(annotator()) as server:
        done = annotate(tmp_path / "posts.csv", tmp_path / "out.csv", host=server.url)
    assert len(server.requests) == 2
    rows = data.read_csv(tmp_path / "out.csv", label=None)
    assert list(rows.columns)[:5] == ["text", "source", "keywords", "topic", "summary"]
    assert rows["text"].tolist() == posts["text"].tolist()
    assert rows["keywords"].tolist() == [text.split()[2] for text in posts["text"]]
    assert done.rejected.empty


def test_missing_doubled_and_bad_answers_are_asked_again_and_matched_by_id(tmp_path, posts):
    def spoil(answers, number):
        if number == 0:  # one missing, one twice, one bad, one of nobody
            answers = [*answers[1:], answers[2], {"id": 99999, "topic": "?"}]
            answers[4] = {**answers[4], "keywords": []}
        return answers

    with serving(annotator(spoil)) as server:
        done = annotate(posts, tmp_path / "out.csv", host=server.url, concurrency=1)
    assert done.rejected.empty
    assert done.rows["keywords"].tolist() == [text.split()[2] for text in posts["text"]]
    assert 3 <= len(server.requests) <= 6


def test_what_stays_bad_is_kept_with_its_reason(tmp_path, posts):
    def answer(request, number):
        if "Kafka" in request["messages"][-1]["content"]:
            return "I can't do Kafka"
        return annotator()(request, number)

    with serving(answer) as server:
        done = annotate(posts, tmp_path / "out.csv", host=server.url)
        asked = len(server.requests)
        annotate(posts, tmp_path / "out.csv", host=server.url)
        assert len(server.requests) == asked
    assert len(done.rows) == 10
    assert done.rejected[["text", "answer", "reason"]].values.tolist() == [
        ["we use Kafka now", "I can't do Kafka", "wrong schema"]
    ]


def test_any_fields_will_do(tmp_path, posts):
    class Mood(BaseModel):
        mood: str
        stars: int

    def answer(request, number):
        texts = [json.loads(line) for line in request["messages"][-1]["content"].splitlines()]
        return json.dumps(
            {"answers": [{"id": text["id"], "mood": "calm", "stars": 4} for text in texts]}
        )

    with serving(answer) as server:
        ask = "Give the mood of each text and one to five stars."
        out = tmp_path / "moods.csv"
        done = annotate(posts, out, fields=Mood, instruction=ask, host=server.url)
        assert ask in server.requests[0]["messages"][0]["content"]
    assert done.rows[["mood", "stars"]].drop_duplicates().values.tolist() == [["calm", "4"]]


def test_annotation_goes_on_where_it_was_killed(tmp_path, posts):
    posts = pd.concat([posts.assign(text=posts["text"] + f" {i}") for i in range(20)])
    # The same text twice is a row twice.
    posts = pd.concat([posts, posts.head(3)], ignore_index=True)
    posts["text"] += "\nand a second line"
    posts.to_csv(tmp_path / "posts.csv", index=False)
    options = ["annotate", "--in", tmp_path / "posts.csv", "--out", tmp_path / "out.csv"]
    with serving(annotator(), delay=0.05) as server:
        for kill in (True, True, True, False):
            process = command(*options, "--per-call", 3, host=server.url)
            if kill:
                assert server.wait_for(len(server.requests) + 9)
                process.kill()
            process.communicate()
        assert process.returncode == 0
    rows = data.read_csv(tmp_path / "out.csv", label=None)
    assert rows["text"].tolist() == posts["text"].tolist()


def test_a_text_that_cannot_fit_is_said_to_be_so(tmp_path, posts):
    posts.loc[3, "text"] = "long " * 9000
    with serving(annotator()) as server:
        done = annotate(posts, tmp_path / "out.csv", host=server.url)
    assert done.rejected["reason"].tolist() == ["too long for num_ctx=8192"]
    assert len(done.rows) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda posts: posts.rename(columns={"text": "body"}), "no column 'text'"),
        (lambda posts: posts.assign(topic="x"), "Column 'topic' is there already"),
    ],
)
def test_columns_that_are_missing_or_in_the_way(tmp_path, posts, change, message):
    with pytest.raises(ValueError, match=message):
        annotate(change(posts), tmp_path / "out.csv")


# --- Command line


def test_help_stands_alone():
    for name, words in {
        "titles": ["--per-label", "pull"],
        "annotate": ["--in", "keywords"],
    }.items():
        run = [sys.executable, "-m", "cookbook.synthesis", name, "--help"]
        text = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True).stdout
        assert all(word in text for word in [*words, "--model", "--timeout"])


def test_an_error_is_one_line(tmp_path):
    process = command("titles", "--out", tmp_path / "x.csv", host="http://127.0.0.1:9")
    error = process.communicate()[1]
    assert process.returncode == 1
    assert error.startswith("Error: No Ollama server")
    assert "Traceback" not in error


# --- A real model


@pytest.fixture(scope="module")
def smollm():
    with real.serving() as url:
        yield SimpleNamespace(url=url, model="smollm2")


@pytest.mark.ollama
def test_a_real_model_writes_titles(tmp_path, smollm):
    settings = {"model": smollm.model, "host": smollm.url, "per_label": 4, "concurrency": 1}
    done = generate_texts(tmp_path / "titles.csv", **settings)
    assert done.rows["label"].value_counts().to_dict() == {"clickbait": 4, "factual": 4}
    report = quality.check(done.rows)
    assert report.duplicates.empty
    asked = len(done.rows) + len(done.rejected)
    again = generate_texts(tmp_path / "titles.csv", **settings)
    assert len(again.rows) + len(again.rejected) == asked


@pytest.mark.ollama
def test_a_real_model_annotates(tmp_path, smollm, posts):
    done = annotate(
        posts.head(2), tmp_path / "out.csv", model=smollm.model, host=smollm.url, per_call=1
    )
    assert len(done.rows) + len(done.rejected) == 2
    assert done.rows["keywords"].map(data.split_keywords).map(len).between(1, 8).all()
