"""Several labels a text: read, split, checked, trained, measured, and answered alike everywhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from sklearn.metrics import average_precision_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
)

from cookbook import (
    baselines,
    data,
    export,
    hub,
    inference,
    labels,
    losses,
    metrics,
    multilabel,
    quality,
    tables,
)
from tests import small
from tests.servers.scripted_ollama import serving

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
KINDS = ["Careers", "DevOps", "Security", "Web Development"]
SETS = [["a", "b"], ["a"], [], ["b", "c"], ["c", "a"]] * 12


def table(sets=SETS, label="label"):
    return pd.DataFrame({"text": [f"Text number {i}" for i in range(len(sets))], label: sets})


def read(splits, label="label"):
    return [sorted(own) for own in splits["train"][label]]


# --- Reading and splitting


@pytest.mark.parametrize(
    "written",
    [
        lambda own: own,
        lambda own: np.array(own, object),
        lambda own: json.dumps(own),
        lambda own: "|".join(own) or "[]",
        lambda own: " ; ".join(own) or "[]",
    ],
)
def test_cells_of_every_kind_are_the_same_sets(written):
    given = pd.DataFrame({"text": table()["text"], "label": [written(own) for own in SETS]})
    assert read(data.load_splits(given, several=True)) == read(
        data.load_splits(table(), several=True)
    )


def test_a_column_per_label_is_the_same_sets(tmp_path):
    each = {f"{name}": [name in own for own in SETS] for name in "abc"}
    given = table().drop(columns="label").assign(**each)
    wanted = read(data.load_splits(table(), several=True))
    assert read(data.load_splits(given, label=["a", "b", "c"])) == wanted
    path = tables.write(given.astype({"a": int, "b": float}), tmp_path / "rows.csv")
    assert read(data.load_splits(path, label=["a", "b", "c"])) == wanted
    given = given.astype(dict.fromkeys("abc", int))
    given.loc[3, "b"] = 2
    with pytest.raises(ValueError, match=r"Row 3 of split 'train' has .*2.* in 'b'.*1 or 0"):
        data.load_splits(given, label=["a", "b", "c"])


def test_lists_of_class_ids_as_the_hub_has_them():
    kinds = Features({"text": Value("string"), "topics": List(ClassLabel(names=["x", "y", "z"]))})
    rows = {"text": [f"Text {i}" for i in range(40)], "topics": [[0, 2], [1]] * 20}
    given = DatasetDict(train=Dataset.from_dict(rows, kinds))
    splits = labels.encode_labels(data.load_splits(given, label="topics", several=True))
    assert splits["train"].features["label_names"].feature.names == ["x", "y", "z"]
    assert {tuple(row) for row in splits["train"]["label"][:]} == {(1, 0, 1), (0, 1, 0)}


def test_blank_cells_are_dropped_and_counted_but_none_is_an_answer():
    given = table([*SETS, "", None, "[]", "a|"])
    with pytest.warns(UserWarning, match=r"2 without a label \(first at rows 60, 61\)"):
        splits = data.load_splits(given, several=True)
    assert sum(map(len, splits.values())) == 62


def test_commas_belong_to_a_name_and_one_label_stays_the_rule():
    given = pd.DataFrame({"text": ["A", "B"] * 20, "label": ["food, drink|art", "art"] * 20})
    splits = data.load_splits(given.assign(text=given.index.astype(str)), several=True)
    assert {name for own in splits["train"]["label"] for name in own} == {"food, drink", "art"}
    with pytest.raises(ValueError, match=r"Row 0 .*several labels, \['a', 'b'\].*several=True"):
        data.load_splits(table())


def test_rare_labels_are_in_every_split():
    rng = np.random.default_rng(0)
    sets = [
        ["common"] + ["rare"] * (i % 40 == 0) + ["other"] * int(rng.random() < 0.3)
        for i in range(800)
    ]
    splits = data.load_splits(table(sets), several=True)
    for part, share in zip(splits.values(), (0.8, 0.1, 0.1), strict=True):
        rare = sum("rare" in own for own in part["label"])
        assert rare == pytest.approx(20 * share, abs=1)


# --- Checks


def test_a_giveaway_a_duplicate_and_two_minds_are_found():
    texts = [f"Report {i} on {'ferries' if i % 2 else 'trams'}" for i in range(60)]
    sets = [["a"] if i % 3 else ["a", "loud"] for i in range(60)]
    texts = [f"{text}!" if "loud" in own else text for text, own in zip(texts, sets, strict=True)]
    rows = pd.DataFrame({"text": [*texts, texts[1]], "label": [*sets, ["b"]]})
    report = quality.check(rows, several=True)
    flagged = report.giveaways[report.giveaways["flagged"]]
    assert ("has '!'", "loud") in set(zip(flagged["feature"], flagged["label"], strict=True))
    assert {60} <= set(report.findings.query("check == 'exact duplicate'")["row"])
    assert set(report.conflicts["row"]) == {1, 60}
    assert "a 60" in str(report)
    many = [[f"label {i % 30:02}", f"label {i % 7:02}"] for i in range(90)]
    assert len(str(quality.check(table(many), several=True)).splitlines()[0]) < 600


def test_a_label_that_every_text_has_is_told_by_nothing(recwarn):
    report = quality.check(
        table([["a", *own] for own in (["b"], ["c"], []) for _ in range(5)]), several=True
    )
    assert "a" not in set(report.giveaways["label"])
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]


def test_a_wrong_label_is_among_the_most_doubtful():
    subjects = {"sea": "ferries and harbours", "rail": "trams and tunnels"}
    rows = [
        (" with ".join(subjects[name] for name in own) + f", report {i}", list(own))
        for i in range(30)
        for own in (("sea",), ("rail",), ("sea", "rail"))
    ]
    rows[4] = (rows[4][0], ["sea"])  # on rails, both before and after
    ranked = quality.doubtful(pd.DataFrame(rows, columns=["text", "label"]), several=True)
    assert ranked["row"][0] == 4
    assert ranked["suggested"][0] == ["rail"]


def test_which_labels_go_together():
    sets = [["a", "b"], ["a", "b"], ["c"], ["a", "c"]] * 20
    pairs = multilabel.together(sets).set_index(["label", "other"])
    assert pairs.loc[("a", "b"), "texts"] == 40
    assert pairs.loc[("a", "b"), "lift"] == pytest.approx(40 / (60 * 40 / 80))
    assert pairs.loc[("b", "c"), "texts"] == 0  # they avoid each other, which is said too


# --- Figures and thresholds


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(0)
    true = (rng.random((200, 3)) < [0.5, 0.3, 0.02]).astype(int)
    scores = np.clip(0.5 * true + rng.random((200, 3)) * 0.5, 0, 1)
    return true, scores


def test_the_figures_are_those_of_scikit_learn(scored):
    true, scores = scored
    found = (scores >= 0.5).astype(int)
    figures = multilabel.multilabel_metrics(true, scores, ["a", "b", "c"])
    for average in ("macro", "micro"):
        assert figures[f"f1_{average}"] == pytest.approx(f1_score(true, found, average=average))
    assert figures["f1_samples"] == pytest.approx(
        f1_score(true, found, average="samples", zero_division=1)
    )
    assert figures["exact_match"] == pytest.approx((true == found).all(axis=1).mean())
    assert figures["average_precision_b"] == pytest.approx(
        average_precision_score(true[:, 1], scores[:, 1])
    )
    assert figures["support_c"] == true[:, 2].sum()
    logits = np.log(scores + 1e-9) - np.log(1 - scores + 1e-9)
    logged = metrics.compute_metrics(["a", "b", "c"])((logits, true.astype(float)))
    assert logged == pytest.approx(figures)
    lists = [[name for name, one in zip("abc", row, strict=True) if one] for row in true]
    assert multilabel.multilabel_metrics(lists, scores, ["a", "b", "c"]) == figures


def test_a_label_without_texts_and_a_text_without_an_answer():
    scores = np.array([[0.9, 0.1], [np.nan, np.nan]])
    each = multilabel.per_label([["a"], ["a"]], scores, ["a", "b"])
    assert each.loc["a", ["precision", "recall"]].tolist() == [1.0, 0.5]
    assert np.isnan(each.loc["b", "f1"])
    with pytest.raises(ValueError, match="a row per text and a column per name"):
        multilabel.per_label([["a"]], scores, ["a", "b"])
    with pytest.raises(ValueError, match=r"Row 0 has labels \['c'\]"):
        multilabel.per_label([["c"], []], scores, ["a", "b"])


def test_thresholds_give_a_label_to_as_many_texts_as_have_it(scored):
    true, scores = scored
    shy = scores * [1, 0.4, 0.3]  # 'b' and the rare 'c' are never sure
    names = ["a", "b", "c"]
    chosen = multilabel.choose_thresholds(true, shy, names)
    found = multilabel.predicted(shy, names, chosen)
    assert found.sum(axis=0).tolist() == true.sum(axis=0).tolist()
    before = multilabel.multilabel_metrics(true, shy, names)
    after = multilabel.multilabel_metrics(true, shy, names, chosen)
    assert after["f1_macro"] > before["f1_macro"] + 0.2
    none, all_ = np.zeros((4, 1)), np.ones((4, 1))
    scores = np.array([[0.2], [0.9], [np.nan], [0.4]])
    for true, expected in ((none, [0, 0, 0, 0]), (all_, [1, 1, 0, 1])):
        threshold = multilabel.choose_thresholds(true, scores, ["a"])
        assert multilabel.predicted(scores, ["a"], threshold)[:, 0].tolist() == expected


# --- Weights


def test_weights_are_those_of_torch_and_scikit_learn():
    splits = labels.encode_labels(data.load_splits(table(), several=True))
    rows = splits["train"]
    weights = losses.class_weights(rows)
    matrix = np.array(rows["label"][:])
    assert weights.tolist() == pytest.approx(
        ((1 - matrix).sum(axis=0) / matrix.sum(axis=0)).tolist()
    )
    logits, given = torch.randn(6, 3), torch.tensor(matrix[:6], dtype=torch.float32)
    whole = losses.weighted_loss(weights)({"logits": logits}, given)
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=weights)(logits, given)
    assert whole.item() == pytest.approx(expected.item(), rel=1e-5)
    # Two accumulated batches add up to the one, as the Trainer counts.
    halves = [
        losses.weighted_loss(weights)({"logits": logits[i : i + 3]}, given[i : i + 3], 18)
        for i in (0, 3)
    ]
    assert sum(halves).item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses.class_weights(rows, {"b": 4}).tolist() == [1, 4, 1]
    with pytest.raises(ValueError, match=r"no labels \['d'\]; there are \['a', 'b', 'c'\]"):
        losses.class_weights(rows, {"d": 4})


def test_weights_of_one_label_a_text():
    rows = pd.DataFrame({"text": [str(i) for i in range(50)], "label": ["a"] * 40 + ["b"] * 10})
    train = labels.encode_labels(data.load_splits(rows))["train"]
    weights = losses.class_weights(train)
    assert weights.tolist() == pytest.approx([0.625, 2.5])
    logits, given = torch.randn(8, 2), torch.tensor([0, 0, 1, 0, 1, 0, 0, 0])
    expected = torch.nn.functional.cross_entropy(logits, given, weights, reduction="sum") / 8
    assert losses.weighted_loss(weights)({"logits": logits}, given).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


# --- A model, from rows to answers


@pytest.fixture(scope="module")
def posts():
    rows = pd.read_csv(data.shipped("tech_keywords.csv"), keep_default_na=False)
    sets = [[t for t in cell.split(", ") if t in KINDS] for cell in rows["topic"]]
    rows = pd.DataFrame({"text": rows["text"].str[:200], "label": sets})
    return rows[rows["label"].map(bool)].head(400)


@pytest.fixture(scope="module")
def trained(posts, built):
    """MiniLM that knows four topics, with thresholds that nobody would take by chance."""

    def make(folder):
        splits = data.load_splits(posts, several=True)
        settings = {"num_train_epochs": 3, "learning_rate": 5e-4, "metric": "f1_micro"}
        trainer = small.classifier(splits, folder / "checkpoints", **settings)
        trainer.train()
        chosen = {"Careers": 0.35, "DevOps": 0.2, "Security": 0.7, "Web Development": 0.45}
        trainer.model.config.label_thresholds = chosen
        trainer.save_model(folder / "model")
        found = trainer.evaluate()
        (folder / "figures.json").write_text(json.dumps(found))
        export.export_onnx(folder / "model", folder / "exact", int8=False)

    return built("several-labels", make)


def expected(answers, thresholds):
    scores = answers[KINDS].to_numpy(float)
    return [
        [name for name, score in zip(KINDS, row, strict=True) if score >= thresholds[name]]
        for row in scores
    ]


def test_a_single_label_is_scored_like_any_other():
    scores = np.array([[0.9], [0.2], [0.8]])
    figures = multilabel.multilabel_metrics([["a"], [], []], scores, ["a"])
    assert (figures["precision_a"], figures["recall_a"], figures["precision_micro"]) == (
        0.5,
        1,
        0.5,
    )
    assert figures["exact_match"] == figures["f1_samples"] == pytest.approx(2 / 3)
    two = multilabel.multilabel_metrics(
        [["a"], [], []], np.column_stack([scores, [0.1, 0.1, 0.1]]), ["a", "b"]
    )
    assert {name: two[name] for name in ("f1_micro", "f1_samples", "exact_match")} == {
        name: figures[name] for name in ("f1_micro", "f1_samples", "exact_match")
    }


def test_a_model_learns_several_labels_and_obeys_its_thresholds(trained, posts):
    assert (
        json.loads((trained / "figures.json").read_text())["eval_f1_micro"] > 0.5
    )  # of all labels for every text: 0.43
    answers = inference.classify([*posts["text"].head(40), " "], trained / "model")
    thresholds = inference.load(trained / "model").config["label_thresholds"]
    assert answers["label"][:40].tolist() == expected(answers[:40], thresholds)
    assert answers["label"][40] is None
    scores = answers[KINDS].to_numpy(float)[:40]
    held = np.array([[name in own for name in KINDS] for own in answers["label"][:40]])
    assert answers["score"][:40].tolist() == pytest.approx(
        np.where(held, scores, 1 - scores).min(axis=1).tolist()
    )
    config = AutoModelForSequenceClassification.from_pretrained(trained / "model").config
    assert config.problem_type == "multi_label_classification"


def test_onnx_the_service_a_file_and_the_page_answer_alike(trained, posts, tmp_path):
    texts = [*posts["text"].head(30), ""]
    answers = inference.classify(texts, trained / "model")
    exported = inference.classify(texts, trained / "exact")
    assert exported["label"].tolist() == answers["label"].tolist()
    asked = f"import json, service; print(json.dumps(service.classify({texts!r})))"
    env = {**os.environ, "MODEL": str(trained / "exact")}
    said = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=DEPLOY,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    served = json.loads(said.stdout)
    assert [each["label"] for each in served] == answers["label"].tolist()
    assert [each["score"] for each in served[:-1]] == pytest.approx(
        answers["score"][:-1].tolist(), abs=1e-3
    )
    source = tables.write(pd.DataFrame({"text": texts[:-1]}), tmp_path / "posts.csv")
    for ending in ("csv", "parquet"):
        target = inference.answer_file(source, tmp_path / f"answered.{ending}", trained / "exact")
        back = data.usable(tables.read(target), several=True)
        assert [list(own) for own in back["label"]] == answers["label"][:-1].tolist()
    page = pytest.importorskip("cookbook.page")
    shown = page._answer(inference.load(trained / "exact"), texts[0])
    for name in answers["label"][0]:
        assert f"<li>{name} " in shown


def test_the_card_says_how_good_each_label_is(trained, posts, tmp_path):
    splits = labels.encode_labels(data.load_splits(posts, several=True))
    test = splits["test"]
    found = inference.classify(test["text"][:], trained / "model")
    figures = multilabel.multilabel_metrics(np.array(test["label"][:]), found[KINDS], KINDS)
    about = {"base_model": "minilm", "labels": KINDS, "test": figures}
    folder = hub.stage_model(
        trained / "model", "you/topics", tmp_path / "to_push", metrics=about, language="en"
    )
    card = (folder / "README.md").read_text()
    assert f"| test split | {figures['f1_macro']:.3f} | {figures['f1_micro']:.3f} |" in card
    assert "inference.classify" in card
    assert f"| DevOps, test split | {figures['precision_DevOps']:.3f} |" in card


def test_the_card_of_many_labels_lists_the_worst(tokenizer, tmp_path):
    names = [f"label {i:02}" for i in range(30)]
    small.tiny_several(tmp_path / "model", tokenizer, names)
    true = np.eye(30, dtype=int)
    scores = np.where(true, 0.9, 0.1)
    scores[7] = 0.1  # the one that is never found
    about = {"labels": names, "test": multilabel.multilabel_metrics(true, scores, names)}
    folder = hub.stage_model(tmp_path / "model", "you/many", tmp_path / "to_push", metrics=about)
    card = (folder / "README.md").read_text()
    rows = re.findall(r"\| (label \d\d), test split", card)
    assert "the worst twenty of 30" in card
    assert len(rows) == 20
    assert rows[0] == "label 07"


def test_a_data_set_goes_to_the_hub_with_its_names_and_comes_back(tmp_path):
    splits = labels.encode_labels(data.load_splits(table(), several=True))
    about = {"provenance": "By hand.", "license": "cc0-1.0"}
    folder = hub.stage_dataset(splits, "you/sets", tmp_path / "to_push", **about)
    card = (folder / "README.md").read_text()
    counts = [sum(name in own for own in SETS) for name in "abc"]
    row = next(line for line in card.splitlines() if line.startswith("| train"))
    assert [int(cell) for cell in row.split("|")[3:6]] < counts
    part = Dataset.from_parquet(str(folder / "data" / "train-00000-of-00001.parquet"))
    assert part.features["label"].feature.names == ["a", "b", "c"]
    again = data.load_splits(DatasetDict(train=part), several=True)
    assert sorted(map(sorted, again["train"]["label"])) != []
    tables.write(table().assign(label=["|".join(own) or "[]" for own in SETS]), tmp_path / "s.csv")
    other = hub.stage_dataset(
        tmp_path / "s.csv", "you/more", tmp_path / "more", several=True, **about
    )
    assert "| text | label |" in (other / "README.md").read_text()


# --- Baselines


def test_tfidf_and_an_llm_give_several_labels(posts):
    train, test = posts.head(300), posts.tail(100)
    trained = baselines.tfidf(train["text"].tolist(), train["label"].tolist())
    scores = trained.probabilities(test["text"].tolist())
    figures = multilabel.multilabel_metrics(test["label"].tolist(), scores, KINDS)
    assert figures["average_precision_macro"] > 0.5
    found = trained.predict(test["text"].tolist())
    assert found == [
        [name for name, score in zip(KINDS, row, strict=True) if score > 0.5] for row in scores
    ]

    def answer(request, number):
        said = {0: ["devops", "Security"], 1: [], 2: ["Cooking"]}
        return json.dumps({"labels": said[number]})

    with serving(answer) as server:
        asked = baselines.llm(
            "phi3", KINDS, several=True, examples=[("A", ["Careers"])], host=server.url
        )
        with pytest.warns(UserWarning, match="1 of 3 answers of phi3 couldn't be read"):
            assert asked.predict(["x", "y", "z"]) == [["DevOps", "Security"], [], []]
    schema = server.requests[0]["format"]["properties"]["labels"]
    assert schema["items"]["enum"] == KINDS
