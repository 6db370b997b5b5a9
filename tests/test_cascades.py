"""A small model first, another for the rest: who is asked about what, and what it is worth."""

import numpy as np
import pytest

from cookbook import inference, trust
from cookbook.baselines import Classifier


class Asked:
    """Somebody who knows every label, and counts what was asked."""

    def __init__(self, truth, wrong=0.0):
        rng = np.random.default_rng(0)
        other = {"clickbait": "factual", "factual": "clickbait"}
        self.said = {t: other[n] if rng.random() < wrong else n for t, n in truth.items()}
        self.texts = []

    def __call__(self, texts):
        self.texts += texts
        return [self.said[text] for text in texts]


@pytest.fixture(scope="module")
def rows(titles):
    return titles.tail(300).reset_index(drop=True)


@pytest.fixture
def asked(rows):
    return Asked(dict(zip(rows["text"], rows["label"], strict=True)))


def test_what_the_model_is_not_sure_of_is_asked_and_the_rest_is_not(trained, rows, asked):
    plain = inference.classify(rows["text"], trained.folder)
    below = float(plain["score"].quantile(0.2))
    ask = Classifier("oracle", asked)
    found = trust.cascade(rows["text"], trained.folder, ask, below=below)
    unsure = plain["score"] < below
    assert sorted(asked.texts) == sorted(set(rows["text"][unsure]))
    assert (found.answers["by"] == np.where(unsure, "oracle", "model")).all()
    right = (found.answers["label"] == rows["label"]).mean()
    assert right > (plain["label"] == rows["label"]).mean()
    assert (found.answers["label"] == plain["label"])[~unsure].all()
    assert "oracle" in str(found)


def test_a_budget_goes_to_the_least_sure_and_the_others_wait_for_a_person(trained, rows, asked):
    plain = inference.classify(rows["text"], trained.folder)
    found = trust.cascade(
        rows["text"], trained.folder, Classifier("oracle", asked), below=2.0, budget=10
    )
    assert len(asked.texts) == 10
    least = plain.sort_values("score", kind="stable")["text"].drop_duplicates().head(10)
    assert set(asked.texts) == set(least)
    assert (found.answers["by"] == "queue").sum() == len(rows) - rows["text"].isin(least).sum()
    alone = trust.cascade(rows["text"], trained.folder, None, below=2.0).answers
    assert set(alone["by"]) == {"queue"}
    assert (alone["label"] == plain["label"]).all()


def test_an_answer_that_could_not_be_read_leaves_the_model_s_label_for_a_person(trained, rows):
    silent = Classifier("silent", lambda texts: [""] * len(texts))
    found = trust.cascade(rows["text"].head(20), trained.folder, silent, below=2.0).answers
    plain = inference.classify(rows["text"].head(20), trained.folder)
    assert set(found["by"]) == {"queue"}
    assert (found["label"] == plain["label"]).all()


def test_without_a_threshold_or_with_too_few_answers_it_says_so(trained, rows):
    with pytest.raises(ValueError, match=r"trust\.keep"):
        trust.cascade(rows["text"].head(3), trained.folder, None)
    lazy = Classifier("lazy", lambda texts: ["factual"])
    with pytest.raises(ValueError, match="lazy gave 1 answers to 3 texts"):
        trust.cascade(rows["text"].head(3), trained.folder, lazy, below=2.0)


def test_the_trade_off_ends_with_the_one_who_is_asked_alone(trained, rows, asked):
    plain = inference.classify(rows["text"], trained.folder)
    right = plain["label"] == rows["label"]
    other = Asked(asked.said, wrong=0.05)
    theirs = [
        label == name
        for label, name in zip(other(rows["text"].tolist()), rows["label"], strict=True)
    ]
    table = trust.trade_off(plain["score"], right, theirs, dollars=0.5, asked_dollars=100)
    assert table["accuracy"].iloc[0] == pytest.approx(right.mean())
    assert table["accuracy"].iloc[-1] == pytest.approx(np.mean(theirs))
    assert table["dollars"].tolist()[0] == 0.5
    assert table["dollars"].is_monotonic_increasing
    assert (table["low"] < table["accuracy"]).all()
    best = trust.cheapest(table, table["accuracy"].max())
    assert best["accuracy"] == table["accuracy"].max()
    assert trust.cheapest(table, 2.0)["accuracy"] == table["accuracy"].max()
    with pytest.raises(ValueError, match="3 scores, 2 and 3 answers"):
        trust.trade_off([1, 2, 3], [1, 0], [1, 1, 1], dollars=1, asked_dollars=1)
