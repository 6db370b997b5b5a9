import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from sklearn.metrics import classification_report
from transformers import EvalPrediction

from cookbook import features, metrics

NAMES = ["a", "b", "c"]


def test_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    references, predictions = rng.integers(0, 3, (2, 500))
    report = classification_report(references, predictions, target_names=NAMES, output_dict=True)
    figures = metrics.classification_metrics(references, predictions, NAMES)
    assert figures["accuracy"] == report["accuracy"]
    for average in ("macro", "weighted"):
        for score, name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert figures[f"{score}_{average}"] == pytest.approx(report[f"{average} avg"][name])
    for label in NAMES:
        assert figures[f"f1_{label}"] == pytest.approx(report[label]["f1-score"])
        assert figures[f"accuracy_{label}"] == pytest.approx(report[label]["recall"])
        assert figures[f"support_{label}"] == report[label]["support"]


def test_an_average_does_not_hide_a_weak_label():
    table = metrics.per_label(["a"] * 98 + ["b"] * 2, ["a"] * 100, ["a", "b"])
    assert table.loc["a", "accuracy"] == 1.0
    assert table.loc["b", "accuracy"] == 0.0


def test_a_label_never_predicted_scores_zero():
    table = metrics.per_label([0, 1, 2], [0, 0, 2], NAMES)
    assert table.loc["b", ["precision", "recall", "f1"]].tolist() == [0, 0, 0]


def test_a_label_without_texts_is_not_measured_and_leaves_the_mean_alone():
    table = metrics.per_label([0, 1], [0, 1], NAMES)
    assert table.loc["c", ["accuracy", "precision", "recall", "f1"]].isna().all()
    figures = metrics.classification_metrics([0, 1], [0, 1], NAMES)
    assert figures["f1_macro"] == 1.0
    assert "f1_c" not in figures
    assert figures["support_c"] == 0


def test_a_label_that_is_predicted_but_absent_counts_against_the_mean():
    assert metrics.classification_metrics([0, 0, 1], [0, 2, 1], NAMES)["f1_macro"] == pytest.approx(
        (2 / 3 + 1 + 0) / 3
    )


def test_a_single_label():
    figures = metrics.classification_metrics([0, 0], [0, 0], ["only", "other"])
    assert figures["accuracy"] == figures["f1_macro"] == 1.0


def test_names_and_ids_give_the_same():
    by_id = metrics.classification_metrics([0, 1, 1], [0, 0, 1], ["a", "b"])
    assert by_id == metrics.classification_metrics(list("abb"), list("aab"), ["a", "b"])


def test_trainer_figures_are_plain_floats_that_json_takes():
    compute = metrics.compute_metrics(NAMES)
    logits = np.array([[3.0, 1, 0], [0, 2, 1]], dtype=np.float32)
    figures = compute((logits, np.array([0, 1])))
    assert {type(value) for value in figures.values()} == {float}
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert compute(((logits, "hidden states"), np.array([0, 1]))) == figures
    few = metrics.compute_metrics(NAMES, keep=["f1_macro", "accuracy"])((logits, np.array([0, 1])))
    assert list(few.items()) == [(name, figures[name]) for name in ("f1_macro", "accuracy")]
    with pytest.raises(ValueError, match="No figure is called 'f1_makro'; there are: accuracy, "):
        metrics.compute_metrics(NAMES, keep=["f1_makro"])((logits, np.array([0, 1])))


def test_a_log_of_many_labels_has_the_averages_and_the_worst_three():
    names = [f"label {i}" for i in range(77)]
    ids = np.arange(77).repeat(3)
    predicted = ids.copy()
    predicted[[6, 9, 10, 12, 13, 14]] += 1
    figures = metrics.compute_metrics(names)((np.eye(77)[predicted], ids))
    averages = {f"{f}_{a}" for f in ("precision", "recall", "f1") for a in ("macro", "weighted")}
    assert set(figures) - averages == {"accuracy", "f1_label 4", "f1_label 3", "f1_label 5"}
    assert figures["f1_label 4"] == 0.0
    whole = metrics.classification_metrics(ids, predicted, names)
    assert len(whole) == 7 + 5 * 77
    assert figures.items() <= whole.items()


@pytest.mark.parametrize(
    ("references", "predictions"),
    [
        ([1, 2, 3, 2], ["1", "2", "3", "2"]),
        ([1.0, 2.0, 3.0, 2.0], ["1", "2", "3", "2"]),
        (pd.Series([1, 2, 3, 2]), pd.Series([1, 2, 3, 2])),
        ([1, 4, 4], ["1", "4", "4"]),
        ([0, 1, 1], ["1", "2", "2"]),
    ],
)
def test_numbers_that_may_be_ids_or_names_are_refused(references, predictions):
    with pytest.raises(ValueError, match="class ids, or labels among"):
        metrics.classification_metrics(references, predictions, ["1", "2", "3", "4"])


@pytest.mark.parametrize(
    ("references", "predictions", "names"),
    [
        ([0, 1, 1], ["0", "1", "1"], ["0", "1"]),
        ([True, False, False], ["True", "False", "False"], ["False", "True"]),
        ([True, False, False], ["yes", "no", "no"], ["no", "yes"]),
        ([0, 1, 1], ["True", "False", "False"], ["True", "False"]),
        (pd.Series([0, 1, 1], dtype="Int64"), pd.Categorical(["a", "b", "b"]), ["a", "b"]),
        ([2, 7, 7], [2, 7, 7], [2, 7]),
    ],
)
def test_numbers_that_can_mean_one_thing_only_are_taken_for_it(references, predictions, names):
    assert metrics.classification_metrics(references, predictions, names)["accuracy"] == 1


def test_a_trainer_has_ids_whatever_the_names_look_like():
    compute = metrics.compute_metrics(["1", "2", "3"])
    figures = compute((np.eye(3)[[1, 2, 2]], np.array([1, 2, 1])))
    assert figures["recall_2"] == 0.5
    assert figures["recall_3"] == 1


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ([0, 1], [0], "same length"),
        ([], [], "not empty"),
        ([0, 3], [0, 0], "No such label: 3; the model has"),
        (["a", "x"], ["a", "a"], "No such label: x; the model has"),
    ],
)
def test_bad_input_is_named(references, predictions, message):
    with pytest.raises(ValueError, match=message):
        metrics.per_label(references, predictions, NAMES)


def test_confusion_counts_true_down_predicted_across():
    counts = metrics.confusion(list("aab"), list("abb"), ["a", "b"])
    assert counts.loc["a", "b"] == 1
    assert counts.loc["b", "a"] == 0
    assert counts.to_numpy().sum() == 3


def test_pass_rates_per_group():
    challenge = pd.DataFrame(
        [
            ("Rain falls", "factual", "as_written", "f1"),
            ("Guess what", "clickbait", "as_written", "c1"),
            ("rain falls", "factual", "lower_case", "f1"),
            ("guess what", "clickbait", "lower_case", "c1"),
            ("7 dams built", "factual", "factual_number", None),
        ],
        columns=["text", "label", "group", "case"],
    )
    predictions = ["factual", "factual", "clickbait", "factual", "factual"]
    table = metrics.pass_rates(challenge, predictions)
    assert table["passed"].tolist() == [0.5, 0.0, 1.0]
    assert table.loc["lower_case", "unchanged"] == 0.5
    assert table["unchanged"].isna().tolist() == [True, False, True]
    alone = pd.concat([challenge, challenge.head(2).assign(case=None)])
    table = metrics.pass_rates(alone, [*predictions, "factual", "factual"])
    assert table["unchanged"].isna().tolist() == [True, False, True]
    with pytest.raises(ValueError, match="1 predictions for 5 rows"):
        metrics.pass_rates(challenge, ["factual"])
    stars = challenge.assign(label=[1, 2, 1, 2, 1])
    assert metrics.pass_rates(stars, list("12121"))["passed"].tolist() == [1, 1, 1]


def test_mcnemar_counts_only_the_texts_that_tell_two_classifiers_apart():
    references = ["a"] * 100
    first = ["a"] * 90 + ["b"] * 10
    second = ["b"] * 8 + ["a"] * 84 + ["b"] * 8
    test = metrics.mcnemar(references, first, second)
    assert (test["only_first"], test["only_second"]) == (8, 2)
    assert test["difference"] == pytest.approx(0.06)
    # Two-sided: twice the chance of fewer than 2 of 10 in a fair draw, and that of 2 once.
    assert test["p"] == pytest.approx((2 * (1 + 10) + 45) / 2**10)
    turned = metrics.mcnemar(references, second, first)
    assert turned["difference"] == pytest.approx(-0.06)
    assert turned["p"] == test["p"]
    assert metrics.mcnemar(references, first, first)["p"] == 1
    assert metrics.mcnemar(["a"] * 4, list("aabb"), list("bbaa"))["p"] == 1
    assert metrics.mcnemar([1, 2, 2], list("122"), [1, 2, 1])["only_first"] == 1
    with pytest.raises(ValueError, match="100 references, 90 and 100 answers"):
        metrics.mcnemar(references, first[:90], second)


def test_a_paired_bootstrap_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(0)
    first, second = rng.random(400), rng.random(400)
    spread = metrics.paired_bootstrap(first, second)
    mean, error = (first - second).mean(), (first - second).std() / np.sqrt(400)
    assert spread["difference"] == pytest.approx(mean)
    assert spread["low"] == pytest.approx(mean - 1.96 * error, abs=0.2 * error)
    assert spread["high"] == pytest.approx(mean + 1.96 * error, abs=0.2 * error)
    assert spread == metrics.paired_bootstrap(first, second)
    # What both find hard doesn't widen the interval: the same texts are drawn for both.
    near = metrics.paired_bootstrap(first + 0.1, first)
    assert near["low"] == pytest.approx(0.1)
    assert near["high"] == pytest.approx(0.1)


def test_a_bootstrap_takes_several_figures_per_text():
    def f1(rows):
        precision, recall = rows.mean(axis=0)
        return 2 * precision * recall / (precision + recall)

    first, second = np.array([[1, 0.5], [0.5, 1]] * 30), np.full((60, 2), 0.5)
    spread = metrics.paired_bootstrap(first, second, f1, resamples=200)
    assert spread["difference"] == pytest.approx(0.25)
    assert 0.2 < spread["low"] <= 0.25 <= spread["high"] < 0.3
    with pytest.raises(ValueError, match=r"\(60, 2\) and \(3,\)"):
        metrics.paired_bootstrap(first, [1, 2, 3])


TEXT = "We moved our running jobs from Redis to PostgreSQL 16"


def keyphrases(predicted, true, text=TEXT):
    return metrics.keyphrase_metrics([text], [predicted], [true])


def test_kpeval_divides_by_k_even_where_fewer_were_predicted():
    figures = keyphrases(["Redis", "PostgreSQL 16", "jobs"], ["Redis", "PostgreSQL 16", "Jobs"])
    assert figures["precision@5"] == pytest.approx(0.6)
    assert figures["precision@M"] == 1.0
    assert figures["recall@5"] == 1.0
    assert figures["meng_f1@5"] == 1.0  # Meng divides by the three that were predicted
    assert figures["exact_match"] == 1.0


def test_at_o_as_many_count_as_are_true():
    figures = keyphrases(["Redis", "Kafka", "jobs"], ["Redis"])
    assert figures["precision@O"] == figures["recall@O"] == figures["f1@O"] == 1.0
    assert figures["precision@M"] == pytest.approx(1 / 3)
    assert keyphrases(["Kafka", "Redis"], ["Redis"])["f1@O"] == 0.0


def test_stems_match_case_and_repeats_do_not_count():
    figures = keyphrases(["run job", "Running Jobs", ""], ["running jobs"])
    assert figures["predicted"] == 1
    assert figures["f1@M"] == 1.0


def test_present_means_that_the_stems_stand_one_after_the_other():
    figures = keyphrases(["Redis", "Databases"], ["Redis", "Databases", "Redis PostgreSQL"])
    assert figures["present_f1@M"] == 1.0
    assert figures["present_true"] == 1
    assert figures["absent_precision@M"] == 1.0
    assert figures["absent_recall@M"] == 0.5
    assert figures["recall@M"] == pytest.approx(2 / 3)


def test_the_two_macro_averages_differ_and_have_their_own_names():
    texts, predicted = ["Go", "Go"], [["Go"], ["Go", "a", "b", "c"]]
    figures = metrics.keyphrase_metrics(texts, predicted, [["Go"], ["Go"]])
    precision = (1 + 1 / 4) / 2
    assert figures["f1@M"] == pytest.approx(2 * precision / (precision + 1))
    assert figures["meng_f1@M"] == pytest.approx((1 + 0.4) / 2)


def test_a_text_without_keywords_counts_for_kpeval_and_not_for_meng():
    figures = metrics.keyphrase_metrics(["Go", "b"], [["Go"], []], [["Go"], []])
    assert figures["precision@M"] == figures["recall@M"] == 0.5
    assert figures["meng_f1@M"] == 1.0
    assert keyphrases([], ["Redis"])["f1@M"] == 0.0


def test_names_with_signs_are_told_apart():
    figures = keyphrases(["C", "F"], ["C++", "F#"], text="C++ or F#?")
    assert figures["f1@M"] == 0.0
    assert keyphrases(["c++"], ["C++"], text="C++ or F#?")["present_f1@M"] == 1.0


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("最近の人工知能とGPUの話", ["人工知能", "gpu"]),
        ("ไปเที่ยวเชียงใหม่กัน", ["เชียงใหม่"]),
        ("नई कला प्रदर्शनी", ["कला", "प्रदर्शनी"]),
        ("Un café à Zürich", [unicodedata.normalize("NFD", "café"), "ZÜRICH"]),
        ("서울에서 열린 전시회", ["서울", "전시회"]),
    ],
)
def test_keywords_are_present_in_any_script(text, keywords):
    figures = metrics.keyphrase_metrics([text], [keywords], [keywords])
    assert figures["present_true"] == len(keywords)
    assert figures["present_f1@M"] == 1


def test_a_longer_word_or_name_is_no_match():
    figures = keyphrases(["कल", "C"], ["कला", "C++"], text="कला और C++")
    assert figures["f1@M"] == figures["present_predicted"] == 0


def test_f1_is_a_harmonic_mean():
    assert metrics.f1_of(0.0, 0.0) == 0
    assert metrics.f1_of(0.5, 1.0) == pytest.approx(2 / 3)


def test_figures_are_saved_as_plain_json_and_read_again(tmp_path):
    table = metrics.per_label([0, 1], [0, 1], NAMES)
    path = metrics.save_metrics(
        tmp_path / "new",
        test={"f1": np.float32(0.5), "loss": float("nan"), "worst": float("-inf")},
        labels=table,
        seeds=pd.Series({1: 0.9, 2: pd.NA}),
        shape=np.array([[1, 2]]),
        folder=tmp_path,
        name="Größe",
    )
    assert path == tmp_path / "new" / "metrics.json"
    found = metrics.load_metrics(path)
    assert found == metrics.load_metrics(path.parent)
    assert found["test"] == {"f1": 0.5, "loss": None, "worst": None}
    assert [row["recall"] for row in found["labels"].values()] == [1.0, 1.0, None]
    assert found["labels"]["c"]["support"] == 0
    assert found["seeds"] == {"1": 0.9, "2": None}
    assert (found["shape"], found["folder"], found["name"]) == ([[1, 2]], str(tmp_path), "Größe")
    assert "NaN" not in path.read_text("utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"metrics\.json isn't a JSON object"):
        metrics.load_metrics(path)


def test_one_string_instead_of_a_list_is_an_error():
    with pytest.raises(ValueError, match="text 0 are one string"):
        metrics.keyphrase_metrics(["a"], ["Go, Redis"], [["Go"]])
    with pytest.raises(ValueError, match="2 predictions"):
        metrics.keyphrase_metrics(["a"], [["b"], ["c"]], [["Go"]])


def test_padding_is_replaced_on_every_side(tokenizer):
    def padded(text):
        return np.array([tokenizer(text)["input_ids"] + [-100] * 4])

    both = EvalPrediction(
        predictions=padded("redis, kafka"),
        label_ids=padded("redis, go"),
        inputs=padded("redis and go"),
    )
    figures = metrics.compute_keyphrase_metrics(tokenizer)(both)
    assert figures["f1@M"] == 0.5
    assert figures["present_f1@M"] == pytest.approx(2 / 3)
    assert all(type(value) is float for value in figures.values())
    with pytest.raises(ValueError, match="include_for_metrics"):
        metrics.compute_keyphrase_metrics(tokenizer)(EvalPrediction([[1]], [[1]]))
    assert metrics.compute_keyphrase_metrics(tokenizer, keep=["f1@M"])(both) == {"f1@M": 0.5}


def test_marks_are_scored_as_keywords_in_whatever_order_and_padding_they_come(tokenizer):
    rows = {
        "text": ["We moved to Next.js", "Redis, Kafka and Redis", "Go"],
        "keywords": ["Next.js, Hosting", "Kafka, Redis", "Go"],
    }
    splits = DatasetDict(validation=Dataset.from_dict(rows))
    with pytest.warns(UserWarning, match="1 of 5 keywords"):
        validation = features.tokenize_marker(splits, tokenizer)["validation"]
    # As the Trainer hands them over: by length, padded, and every mark right.
    order, width = [2, 0, 1], max(validation["length"][:])
    logits = np.full((3, width + 2, 3), -9.0, np.float32)
    inputs = np.full((3, width + 2), -100)
    for place, row in enumerate(order):
        ids, labels = validation["input_ids"][row], np.array(validation["labels"][row])
        inputs[place, : len(ids)] = ids
        inputs[place, len(ids) : width] = tokenizer.pad_token_id
        logits[place, np.arange(len(ids)), labels.clip(0)] = 9
    compute = metrics.compute_marking_metrics(validation, tokenizer)
    figures = compute(EvalPrediction(logits, None, inputs))
    assert figures["precision@M"] == 1
    assert figures["recall@M"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    few = metrics.compute_marking_metrics(validation, tokenizer, keep=["precision@M"])
    assert few(EvalPrediction(logits, None, inputs)) == {"precision@M": 1}
    with pytest.raises(ValueError, match="include_for_metrics"):
        compute(EvalPrediction(logits, None))


def test_texts_that_differ_in_case_only_are_scored_each_by_its_own_keywords(tokenizer):
    rows = {"text": ["We use Redis and Go", "We use redis and go"], "keywords": ["Redis", "go"]}
    splits = DatasetDict(validation=Dataset.from_dict(rows))
    validation = features.tokenize_marker(splits, tokenizer)["validation"]
    inputs = np.array(validation["input_ids"][:])
    assert (inputs[0] == inputs[1]).all()
    logits = np.eye(3, dtype=np.float32)[np.array(validation["labels"][:]).clip(0)] * 9
    compute = metrics.compute_marking_metrics(validation, tokenizer)
    for _ in range(2):  # after each epoch
        assert compute(EvalPrediction(logits, None, inputs))["f1@M"] == 1
