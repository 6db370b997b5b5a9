import numpy as np
import pandas as pd
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from cookbook import inference


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
