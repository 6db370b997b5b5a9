import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import classification_report

from cookbook import metrics

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


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ([0, 1], [0], "same length"),
        ([], [], "not empty"),
        ([0, 3], [0, 0], r"without a name: \[3\]"),
        (["a", "x"], ["a", "a"], r"doesn't know: \['x'\]"),
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
    with pytest.raises(ValueError, match="1 predictions for 5 rows"):
        metrics.pass_rates(challenge, ["factual"])
