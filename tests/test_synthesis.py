"""Texts written and annotated: a scripted server for faults, a real small model for the rest."""

import json
import multiprocessing
import random
import re

import pandas as pd
import pytest
from pydantic import BaseModel

from cookbook import quality, tables, words
from cookbook.synthesis import CLICKBAIT, Label, annotate, generate_texts, more_like, tidy
from tests.servers.scripted_ollama import Raw, Slow, Thought, Truncated, serving, title

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
    rows = tables.read(tmp_path / "titles.csv")
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
        '{"headline": "A dog likes warm rain"}': "wrong schema: title: Field required",
        '{"title": null}': "wrong schema: title: Input should be a valid string",
        "{nothing}": "no JSON",
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
    "text",
    [
        "Sure! Dogs like warm rain",
        "Certainly: Dogs like warm rain",
        "Sure, here is a title on rain",
        "Here is a title: dogs like warm rain",
        "Here are three headlines for you: one",
        "Title: dogs like warm rain",
        "A clickbait title about a dog",
        "This is a factual title about a dog",
        "As an AI language model, I like dogs",
        "I'm sorry, but I can't assist with that",
        "Dogs of [insert city] like warm rain",
        "Dogs of {place} like warm rain",
        "Dogs of <Company Name> like warm rain",
        '{"headline": "Dogs like warm rain',
    ],
)
def test_talk_about_the_answer_is_no_title(tmp_path, text):
    with serving(answering(json.dumps({"title": text}))) as server:
        done = write(tmp_path / "titles.csv", server, per_label=1)
    assert done.rejected["reason"].tolist() == ["meta text"]


def test_titles_that_merely_sound_like_such_talk_are_kept(tmp_path):
    titles = [
        "Bank trains a large language model on its own mail",
        "Actor poses as an AI for a week",
        "Sure Start centres to close in June",
        "Of course you can grow figs in Scotland",
        "Sure, dogs love snow, but cats vote against it",
        "Here are the nine ferries that never sailed: the map",
        "Here is why your bread sinks",
        "Coach says '[they] will be ready' by Sunday",
        "I can't help crying at this video [watch]",
        "Why clickbait titles still work on all of us",
        "How the <b> tag outlived its inventor",
        "Headline writers of Fleet Street go on strike",
    ]
    with serving(answering(*titles)) as server:
        done = write(tmp_path / "titles.csv", server, per_label=6)
    assert sorted(done.rows["text"]) == sorted(titles)


def test_words_are_counted_where_there_are_no_spaces(tmp_path):
    labels = [Label("a", "标题党", (("城市", "她打开门之后沉默了很久"),))]
    answers = [
        "市长辞职",
        "北京地铁新线九月全线通车运营",
        "很" * 80,
        "雨，雨",
        "警方逮捕三名盗窃案嫌疑人",
    ]
    with serving(answering(*answers)) as server:
        done = write(tmp_path / "x.csv", server, labels=labels, topics=["城市"], per_label=3)
    assert done.rows["text"].tolist() == [answers[0], answers[1], answers[4]]
    assert done.rejected["reason"].tolist() == ["too long", "too short"]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ('"Quoted"', "Quoted"),
        ("“Curly” at both “ends”", "“Curly” at both “ends”"),
        ("  You won't  believe it!!! ", "You won't believe it"),
        ("'It's over.'", "It's over"),
        ("‘It’s over’", "It’s over"),
        ("Is it?", "Is it?"),
        ("本当？", "本当？"),
        ("「本当に終わり！」", "本当に終わり"),
        ("「A」と「B」", "「A」と「B」"),
        ("『终于来了』。", "终于来了"),
        ("यह खत्म हुआ।", "यह खत्म हुआ"),
        ("انتهى الأمر۔", "انتهى الأمر"),
        ("", ""),
        ("!", ""),
    ],
)
def test_tidying_unwraps_every_label_alike(raw, clean):
    assert tidy(raw) == clean


def three(request, number):
    seeds = (3 * request["options"]["seed"] + i for i in range(3))
    titles = [json.loads(title({"options": {"seed": seed}}, 0))["title"] for seed in seeds]
    return json.dumps({"titles": titles})


def test_a_list_per_question_gives_several_rows(tmp_path):
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
        write(out, server, model="phi3:latest")
        assert out.read_bytes() == before
        assert len(server.requests) == asked
        write(out, server, per_label=8)
        assert len(server.requests) == asked + 6
    assert tables.read(out)["label"].value_counts().to_dict() == {"clickbait": 8, "factual": 8}


@pytest.mark.parametrize("per_call", [1, 3])
def test_lost_rows_come_back_from_the_journal_without_a_question(tmp_path, per_call):
    out = tmp_path / "titles.csv"
    answer = three if per_call == 3 else answering(*["Too short"] * 3)
    with serving(answer) as server:
        write(out, server, per_call=per_call)
        whole, asked = out.read_bytes(), len(server.requests)
        lines = whole.splitlines(keepends=True)
        for left in ([], lines[:1], lines[:7]):
            out.write_bytes(b"".join(left))
            write(out, server, per_call=per_call)
            assert sorted(out.read_bytes().splitlines()) == sorted(whole.splitlines())
        assert len(server.requests) == asked


def test_another_model_or_prompt_adds_its_own_rows_to_the_file(tmp_path):
    out = tmp_path / "titles.csv"

    def shifted(request, number):
        return title({"options": {"seed": request["options"]["seed"] + 5000}}, number)

    with serving(title, models=["phi3"]) as server:
        write(out, server)
    with serving(shifted, models=["qwen"]) as server:
        done = write(out, server, model="qwen")
        assert len(done.rows) == 10
        assert tables.read(out)["model"].value_counts().to_dict() == {"phi3": 10, "qwen": 10}
        warmer = write(out, server, model="qwen", temperature=1.5, seed=90_000)
    assert len(warmer.rows) == 10
    assert len(tables.read(out)) == 30


@pytest.mark.filterwarnings("ignore:.*torn line")
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
    assert set(odd) <= set(tables.read(out)["text"])


@pytest.mark.parametrize("name", ["titles.csv", "titles.rejected.csv", "titles.answers.csv"])
@pytest.mark.parametrize(
    "mine", [b"text,label\nmine,a\n", b"My notes, on one line", b'a,b\n5",6\n']
)
def test_a_file_of_something_else_is_left_alone(tmp_path, name, mine):
    (tmp_path / name).write_bytes(mine)
    with serving(title) as server, pytest.raises(ValueError, match=f"{re.escape(name)} .* left as"):
        write(tmp_path / "titles.csv", server)
    assert (tmp_path / name).read_bytes() == mine
    assert not server.requests


def process(work, *arguments, **settings):
    """Start a process that can be killed; `forkserver` has done the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([generate_texts.__module__])
    started = context.Process(target=work, args=arguments, kwargs=settings)
    started.start()
    return started


def test_killed_at_any_moment_it_ends_with_the_same_texts(tmp_path):
    """kill -9 whenever another random number of questions has arrived; then let it finish."""
    rng = random.Random(0)
    now_and_then = answering(*["Too short"] * 3)
    with serving(title, delay=0.002) as server:
        write(tmp_path / "whole.csv", server, per_label=60, concurrency=4)
    with serving(now_and_then, delay=0.002) as server:
        for kill in (True, True, True, False):
            settings = {"per_label": 60, "host": server.url}
            started = process(generate_texts, tmp_path / "killed.csv", **settings)
            if kill:
                assert server.wait_for(len(server.requests) + rng.randint(1, 14))
                started.kill()
            started.join()
        assert started.exitcode == 0
        asked = [json.dumps(request, sort_keys=True) for request in server.requests]
    whole, killed = (tables.read(tmp_path / f"{name}.csv") for name in ("whole", "killed"))
    assert killed["label"].value_counts().to_dict() == {"clickbait": 60, "factual": 60}
    assert killed["text"].is_unique
    assert not killed.duplicated(["model", "prompt_version", "label", "topic", "seed"]).any()
    assert len(set(whole["text"]) & set(killed["text"])) >= 117
    # What was under way at a kill, and only that, is asked again.
    assert len(asked) - len(set(asked)) <= 3 * 4


def test_a_second_run_on_the_same_file_is_refused(tmp_path):
    out = tmp_path / "titles.csv"
    with serving(title, delay=0.05) as server:
        started = process(generate_texts, out, host=server.url)
        assert server.wait_for(3)
        with pytest.raises(RuntimeError, match=r"Another run is writing .*titles\.csv"):
            write(out, server)
        started.kill()
        started.join()
        write(out, server)  # a killed process holds no lock


# --- Giving up, and settings


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("The same title again and again", "50 rejections .*'duplicate'.* other words= or topics"),
        ('{"name": "no title"}', "50 rejections .*title: Field required.* Try a larger model"),
        (Thought("", "Hmm", reason="length"), "while thinking.* one that doesn't think"),
        ("Short", "'too short': .*Short"),
    ],
)
def test_it_gives_up_on_a_model_that_cannot_do_it_and_says_what_to_do(tmp_path, answer, told):
    with (
        serving(answering(*[answer] * 500)) as server,
        pytest.raises(RuntimeError, match=rf"phi3 isn't up to this: .*{told}"),
    ):
        write(tmp_path / "x.csv", server)
    assert len(server.requests) < 60


def test_without_a_server_or_model_no_file_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    with pytest.raises(ConnectionError, match="ollama serve"):
        generate_texts(tmp_path / "x.csv", host="http://127.0.0.1:9")
    with serving(title) as server, pytest.raises(LookupError, match="ollama pull mistral"):
        write(tmp_path / "x.csv", server, model="mistral")
    assert not list(tmp_path.iterdir())


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


def test_what_grows_row_by_row_is_a_csv(tmp_path):
    with serving(title) as server, pytest.raises(ValueError, match=r"end its name in \.csv"):
        write(tmp_path / "titles.parquet", server)


def test_more_is_written_in_the_manner_of_mistakes_for_every_label_alike(tmp_path):
    loud = ["WHY is NOBODY talking about THIS", "THIS is WHY nobody READS the manual"]
    calm = ["notes on a quiet week in the garden", "notes on a slow day in the shed"]
    mistakes = pd.DataFrame({"text": loud + calm})

    def answer(request, number):
        if number == 1:
            return json.dumps({"title": "notes on a quiet week in the gardens"})
        return title(request, number)

    with serving(answer) as server:
        options = {"groups": 2, "per_label": 3, "concurrency": 1, "host": server.url}
        with pytest.warns(UserWarning, match="1 of 12 texts are near copies"):
            rows = more_like(mistakes, tmp_path / "more.csv", **options)
        asked = [request["messages"][0]["content"] for request in server.requests]
    assert rows.groupby(["like", "label"]).size().sum() == 11
    assert set(rows["label"]) == {"clickbait", "factual"}
    assert rows["like"].nunique() == 2
    assert all(("NOBODY talking" in one) != ("quiet week" in one) for one in asked)
    for manner in ("NOBODY talking", "quiet week"):
        kinds = [one for one in asked if manner in one]
        assert {"is clickbait:" in one for one in kinds} == {True, False}


def test_mistakes_that_differ_in_case_only_are_one_group(tmp_path):
    mistakes = pd.DataFrame({"text": ["Tea time is here", "TEA TIME IS HERE", "tea time is here"]})
    with serving(title) as server:
        options = {"groups": 3, "per_label": 2, "concurrency": 1, "host": server.url}
        rows = more_like(mistakes, tmp_path / "more.csv", **options)
    assert len(set(rows["like"])) == 1
    assert len(rows) == 4


def test_mistakes_on_what_is_measured_on_are_refused(tmp_path):
    mistakes = pd.DataFrame({"text": ["Tea is up", "The ferry sank off Norway"]})
    with pytest.raises(ValueError, match="take mistakes on the validation split"):
        more_like(mistakes, tmp_path / "a.csv", held_out=["the ferry sank off norway!"])
    assert not (tmp_path / "a.csv").exists()


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
    rows = tables.read(tmp_path / "out.csv")
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
        ["we use Kafka now", "I can't do Kafka", "no JSON"]
    ]


def test_other_types_are_taken_and_what_is_missing_is_named(tmp_path, posts):
    given = {"Redis": "Redis, Valkey", "Docker": ["Docker", 28], "Rust": None}

    def spoil(answers, number):
        for answer in answers:
            answer["keywords"] = given.get(answer["keywords"][0], answer["keywords"])
        return answers

    with serving(annotator(spoil)) as server:
        done = annotate(posts.head(3), tmp_path / "out.csv", host=server.url)
    assert done.rows["keywords"].tolist() == ["Redis, Valkey", "Docker, 28"]
    assert done.rejected["reason"].tolist() == [
        "wrong schema: keywords: Input should be a valid list"
    ]


def test_answers_with_thoughts_fences_or_one_by_one_are_read(tmp_path, posts):
    def answer(request, number):
        answers = json.loads(annotator()(request, number))["answers"]
        return '<think>{"answers": []}</think>```json\n' + "\n".join(map(json.dumps, answers))

    with serving(answer) as server:
        done = annotate(posts, tmp_path / "out.csv", host=server.url)
    assert len(done.rows) == 11


def test_all_columns_are_kept_letter_by_letter(tmp_path):
    source, out = tmp_path / "posts.csv", tmp_path / "out.csv"
    cells = [
        ["we use Redis", "NA", "007", "1.10", "", 'a "quoted", one'],
        ["we\rlost Kafka", "None", "1e5", "-0", " ", "two\nlines"],
    ]
    frame = pd.DataFrame(cells, columns=["text", "country", "model", "reason", "answer", "0"])
    tables.write(frame, source)
    with serving(annotator()) as server:
        for _ in range(2):
            done = annotate(source, out, host=server.url)
        assert len(server.requests) == 1
    assert tables.read(out).iloc[:, :6].values.tolist() == cells
    assert done.rows["model_predicted"].tolist() == ["phi3", "phi3"]
    assert done.reasons.empty


def test_a_frame_may_hold_lists_numbers_and_gaps(tmp_path):
    frame = pd.DataFrame(
        {"text": ["we use Redis", "we use Go", "  ", None], 7: [["a", "b"], [], None, []]}
    )
    with serving(annotator()) as server:
        for _ in range(2):
            with pytest.warns(UserWarning, match="2 of 4 rows have no text in 'text'"):
                done = annotate(frame, tmp_path / "out.csv", host=server.url)
    assert done.rows["7"].tolist() == ['["a", "b"]', "[]"]
    assert len(server.requests) == 1


def test_equal_texts_of_other_rows_get_their_own_annotation(tmp_path, capsys):
    out = tmp_path / "out.csv"
    monday = pd.DataFrame(
        {"id": [1, 2, 2], "text": ["Docker is down", "Redis is up", "Redis is up"]}
    )
    tuesday = pd.DataFrame({"id": [3, 2], "text": ["Docker is down", "Redis is up"]})
    with serving(annotator()) as server:
        for day in (monday, tuesday, monday, tuesday):
            annotate(day, out, host=server.url)
    assert "2 of 2 rows stand in" in capsys.readouterr().out
    rows = tables.read(out)
    assert sorted(rows["id"]) == ["1", "2", "2", "3"]
    assert rows["keywords"][rows["id"] == "3"].tolist() == ["Docker"]


def test_lost_annotations_come_back_from_the_journal_without_a_question(tmp_path, posts):
    out = tmp_path / "out.csv"
    with serving(annotator()) as server:
        annotate(posts, out, host=server.url, per_call=3)
        whole, asked = out.read_bytes(), len(server.requests)
        lines = whole.splitlines(keepends=True)
        for left in ([], lines[:1], lines[:7]):
            out.write_bytes(b"".join(left))
            annotate(posts, out, host=server.url, per_call=3)
            assert out.read_bytes() == whole
        assert len(server.requests) == asked


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
    posts = pd.concat([posts.assign(text=posts["text"] + f" {i}") for i in range(6)])
    # The same row twice is a row twice.
    posts = pd.concat([posts, posts.head(3)], ignore_index=True)
    posts["text"] += "\nand a second line"
    tables.write(posts, tmp_path / "posts.csv")
    with serving(annotator(), delay=0.02) as server:
        files = (tmp_path / "posts.csv", tmp_path / "out.csv")
        for kill in (True, True, False):
            started = process(annotate, *files, per_call=3, host=server.url)
            if kill:
                assert server.wait_for(len(server.requests) + 7)
                started.kill()
            started.join()
        assert started.exitcode == 0
    rows = tables.read(tmp_path / "out.csv")
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
        (lambda posts: posts.assign(text=" "), "11 of 11 rows have no text"),
        (lambda posts: posts.set_axis(["text", "text"], axis=1), "more than one column .*'text'"),
    ],
)
def test_tables_that_cannot_be_annotated(tmp_path, posts, change, message):
    with pytest.raises(ValueError, match=message):
        annotate(change(posts), tmp_path / "out.csv")


# --- A real model


@pytest.mark.ollama
def test_a_real_model_writes_titles(tmp_path, smollm):
    settings = {"model": smollm.model, "host": smollm.url, "per_label": 1, "concurrency": 1}
    done = generate_texts(tmp_path / "titles.csv", **settings)
    assert done.rows["label"].value_counts().to_dict() == {"clickbait": 1, "factual": 1}
    report = quality.check(done.rows)
    assert report.duplicates.empty
    asked = len(done.rows) + len(done.rejected)
    again = generate_texts(tmp_path / "titles.csv", **settings)
    assert len(again.rows) + len(again.rejected) == asked


@pytest.mark.ollama
def test_a_real_model_annotates(tmp_path, smollm, posts):
    done = annotate(
        posts.head(1), tmp_path / "out.csv", model=smollm.model, host=smollm.url, per_call=1
    )
    assert len(done.rows) + len(done.rejected) == 1
    assert done.rows["keywords"].map(words.split_keywords).map(len).between(1, 8).all()
