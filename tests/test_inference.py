import numpy as np
import pandas as pd
import pytest
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
    set_seed,
)

from cookbook import data, inference, metrics, offline


def test_the_answers_are_those_of_the_plain_pipeline(trained):
    texts = trained.test["text"].tolist()
    found = inference.classify(texts, trained.folder)
    plain = pipeline("text-classification", model=str(trained.folder), top_k=None)(texts)
    assert found["text"].tolist() == texts
    for row, answer in zip(found.itertuples(), plain, strict=True):
        assert row.label == answer[0]["label"]
        assert row.score == pytest.approx(answer[0]["score"], abs=1e-4)
    assert np.allclose(found[trained.names].sum(axis=1), 1)


def test_the_fine_tuned_model_is_right_most_of_the_time(trained):
    found = inference.classify(trained.test["text"], trained.folder)
    assert (found["label"].to_numpy() == trained.test["label"].to_numpy()).mean() > 0.8


def test_odd_texts_get_an_answer(trained):
    texts = ["", " ", "🤯" * 50, "日本語の見出し", "عنوان الخبر", "x" * 10_000, "word " * 2_000]
    found = inference.classify(texts, trained.folder)
    assert len(found) == len(texts)
    assert found["score"].between(0.5, 1).all()


def test_no_texts_no_answers(trained):
    assert inference.classify([], trained.folder).empty


def test_what_is_no_text_is_named(trained):
    with pytest.raises(ValueError, match="Text 1 is None"):
        inference.classify(["a", None], trained.folder)


def test_a_model_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(OSError, match="no-such-model"):
        inference.classify(["a"], tmp_path / "no-such-model")


def test_a_model_in_memory_needs_its_tokenizer_and_keeps_its_mode(trained):
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder).train()
    with pytest.raises(ValueError, match="Pass the tokenizer"):
        inference.classify(["a"], model)
    inference.classify(["a"], model, AutoTokenizer.from_pretrained(trained.folder))
    assert model.training


def test_the_surest_mistakes_come_first():
    answers = pd.DataFrame(
        {"text": list("abc"), "label": ["x", "x", "x"], "score": [0.7, 0.9, 0.99]}
    )
    table = inference.worst_mistakes(answers, ["y", "y", "x"])
    assert table["text"].tolist() == ["b", "a"]
    assert table.iloc[0].to_dict() == {"text": "b", "label": "y", "predicted": "x", "score": 0.9}


def test_whatever_is_written_only_what_stands_in_the_text_stays(tokenizer):
    texts = [
        "",
        "   ",
        "We moved from Redis to PostgreSQL",
        "🤯" * 50,
        "日本語の見出し",
        "عنوان الخبر",
        "word " * 2_000,
        "x" * 10_000,
    ]
    set_seed(0)
    untrained = offline.warm_start_bart()  # what it writes is nonsense, which is the hard case
    for present_only in (True, False):
        found = inference.extract_keywords(
            texts, untrained, tokenizer, present_only=present_only, max_new_tokens=40
        )
        assert len(found) == len(texts)
        assert found[0] == found[1] == []
        for keywords, text in zip(found, texts, strict=True):
            assert len({keyword.casefold() for keyword in keywords}) == len(keywords) <= 40
            assert not present_only or all(keyword in text for keyword in keywords)


def test_a_fine_tuned_model_writes_the_keywords_that_it_learnt(keyword_model, short_posts):
    found = inference.extract_keywords(short_posts["text"], keyword_model)
    gold = [data.split_keywords(cell) for cell in short_posts["keywords"]]
    assert metrics.keyphrase_metrics(short_posts["text"], found, gold)["f1@M"] > 0.6
    for keywords, text in zip(found, short_posts["text"], strict=True):
        assert all(keyword in text for keyword in keywords)  # in the text's own spelling


def test_batches_give_the_answers_of_one_text_at_a_time(keyword_model, short_posts):
    texts = short_posts["text"][:20]
    options = {"present_only": False}
    together = inference.extract_keywords(texts, keyword_model, batch_size=8, **options)
    alone = [inference.extract_keywords([t], keyword_model, **options)[0] for t in texts]
    assert together == alone
    assert sum(map(bool, together)) > 10
    assert inference.extract_keywords([], keyword_model) == []


def test_plain_generate_of_the_saved_model_stops(keyword_model, tokenizer):
    model = AutoModelForSeq2SeqLM.from_pretrained(keyword_model)
    batch = tokenizer("word " * 200, return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**batch).shape[1] <= 40


def test_keywords_of_what_is_no_text_are_an_error(keyword_model):
    with pytest.raises(ValueError, match="Text 1 is nan"):
        inference.extract_keywords(["a", float("nan")], keyword_model)


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("next. js", "Is Next.js 14 out?", "Next.js"),
        ("c + +", "C, C++ and C#", "C++"),
        (". net 8", "on .NET 8!", ".NET 8"),
        ("ci / cd", "our CI/CD", "CI/CD"),
        ("postgresql 16", "PostgreSQL  16", "PostgreSQL 16"),
        ("go", "Google and going", None),
        ("", "text", None),
        ("medellin", "From Medellín with love", "Medellín"),
        ("sao paulo", "São Paulo's metro", "São Paulo"),
        ("c", "C++ or C#, never C", "C"),
        ("go", "C++ or C#, never Golang", None),
        ("Go", "I go home and write Go", "Go"),
        (". net", "ASP.NET", None),
        ("straße", "Die STRASSE", None),
    ],
)
def test_a_keyword_gets_the_spelling_of_its_text(keyword, text, found):
    assert inference.restore_case(keyword, text) == found


def test_spellings_and_versions_of_one_thing_are_counted_together():
    table = inference.top_keywords(
        [["Next.js", "C", "LLM"], ["nextjs 14", "C++", "LLMs"], ["Next.js", "next.js", "C#"], []]
    ).set_index("keyword")
    assert table.loc["Next.js", "texts"] == 3
    assert table.loc["Next.js", "share"] == 0.75
    assert table.loc["Next.js", "spellings"] == ["Next.js", "nextjs"]
    assert table.loc["LLM", "texts"] == 2
    assert {"C", "C++", "C#"} <= set(table.index)
    assert len(inference.top_keywords([["C# 13"], ["C#"]])) == 1
    apart = inference.top_keywords([["Vue 2"], ["Vue 3"]], versions=True)
    assert apart["keyword"].tolist() == ["Vue 2", "Vue 3"]
    with pytest.raises(ValueError, match="one string, not a list"):
        inference.top_keywords(["Go, Redis"])


def test_a_stutter_is_mended_to_what_stands_in_the_text():
    text = "Ubiquiti, Zigbee2MQTT and Home Assistant: my smart home on a Raspberry Pi 5"
    written = ["ubiquititi", "zigbee2mqqtt", "home assistants", "raspberry pi5", "openhab", "kafka"]
    mended = ["Ubiquiti", "Zigbee2MQTT", "Home Assistant", "Raspberry Pi 5"]
    assert inference._spelt(written, text, present_only=True) == mended
    assert inference._spelt(["ubiquititi", "go"], text, present_only=False) == ["ubiquititi", "go"]
    assert inference._spelt(["kafka"], "", present_only=True) == []
