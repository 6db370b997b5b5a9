"""What a model knows of its own doubt: probabilities that hold, promises that are kept."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax
from scipy.stats import binomtest
from transformers import AutoConfig

from cookbook import baselines, export, inference, metrics, multilabel, tables, teach, trust
from cookbook.models import configure
from tests import small

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
NAMES = ["a", "b", "c"]


# --- Probabilities that hold


def drawn(rows, too_sure, several=False, seed=0):
    """Labels drawn from true probabilities, and those of a model that is too sure of itself."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (rows, 3))
    if several:
        true = expit(logits)
        own = rng.random(true.shape) < true
        sets = [[n for n, one in zip(NAMES, row, strict=True) if one] for row in own]
        return sets, expit(too_sure * logits), true
    true = softmax(logits, axis=1)
    return [NAMES[rng.choice(3, p=row)] for row in true], softmax(too_sure * logits, axis=1), true


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("too_sure", [0.5, 2.5])
def test_the_temperature_is_found_from_probabilities_alone(several, too_sure):
    labels, scores, true = drawn(4000, too_sure, several)
    found = trust.calibrate(labels, scores, NAMES)
    assert found.temperature == pytest.approx(too_sure, rel=0.1)
    assert found.error_after < 0.02 < 0.08 < found.error_before
    assert found.loss_after < found.loss_before
    after = trust.cooled(scores, found.temperature, several)
    assert np.abs(after - true).max() < 0.05
    assert (after.argmax(axis=1) == scores.argmax(axis=1)).all()
    assert f"temperature {found.temperature:.2f}, fitted on 4,000 texts" in str(found)


def test_the_errors_are_those_of_the_metrics():
    labels, scores, _ = drawn(500, 2.0)
    found = trust.calibrate(labels, scores, NAMES)
    right = [NAMES[i] == name for i, name in zip(scores.argmax(axis=1), labels, strict=True)]
    error = metrics.expected_calibration_error(scores.max(axis=1), right)
    assert found.error_before == pytest.approx(error)


def test_any_implementation_will_do(few_titles):
    train, rest = few_titles.iloc[::2], few_titles.iloc[1::2]
    plain = baselines.tfidf(train["text"].tolist(), train["label"].tolist())
    scores = plain.probabilities(rest["text"].tolist())
    found = trust.calibrate(rest["label"].tolist(), scores, sorted(set(train["label"])))
    assert found.temperature < 0.8  # the mean of many words is hardly ever sure
    assert found.error_after < 0.045 < found.error_before


def test_a_model_with_one_label_is_calibrated_too():
    scores = trust.cooled([[0.9], [0.2]], 2.0)
    assert scores.ravel().tolist() == pytest.approx([0.75, 1 / 3])


def test_too_few_mistakes_are_told_and_none_changes_nothing():
    with pytest.warns(UserWarning, match=r"Only 0 of 20 answers are wrong"):
        found = trust.calibrate(["a"] * 20, np.array([[0.9, 0.1]] * 20), ["a", "b"])
    assert found.temperature == 1.0
    with pytest.warns(UserWarning, match=r"Only 3 of 20 answers are wrong"):
        trust.calibrate(["a"] * 17 + ["b"] * 3, np.array([[0.9, 0.1]] * 20), ["a", "b"])


@pytest.mark.parametrize(
    ("labels", "scores", "told"),
    [
        (["a", "d"], [[0.9, 0.1, 0]] * 2, r"Row 1 has labels \['d'\]"),
        (["a"], [[0.9, 0.1, 0]] * 2, r"1 texts with labels, 3 names, .* \(2, 3\)"),
        (["a", "b"], [[0.9, 0.1, 0], [np.nan] * 3], "Row 1 has no probabilities"),
        ([], np.zeros((0, 3)), "a row per text"),
    ],
)
def test_what_cannot_be_calibrated_is_named(labels, scores, told):
    with pytest.raises(ValueError, match=told):
        trust.calibrate(labels, scores, NAMES)


# --- Promises


def answers(rows, seed):
    """Scores of a calibrated model, and whether it was right."""
    rng = np.random.default_rng(seed)
    scores = expit(np.abs(rng.normal(3.5, 2, rows)))
    return scores, rng.random(rows) < scores


SCORES, _ = answers(200_000, seed=99)  # calibrated: their mean is the accuracy


def read_off(scores, right, wanted):
    """The threshold that the accuracies suggest: the lowest above which as many are right."""
    order = np.argsort(-scores)
    shares = right[order].cumsum() / np.arange(1, len(order) + 1)
    return scores[order][np.flatnonzero(shares >= wanted).max(initial=0)]


@pytest.mark.parametrize(
    ("rows", "wanted", "coverage"), [(200, 0.98, 0.9), (300, 0.93, 0.8), (400, 0.97, 0)]
)
def test_of_200_promises_at_least_95_in_100_are_kept(rows, wanted, coverage):
    broken = naive = reached = 0
    for seed in range(200):
        given = answers(rows, seed)
        sure = trust.choose_threshold(*given, wanted, coverage=coverage)
        broken += SCORES[sure.threshold <= SCORES].mean() < sure.promised
        naive += SCORES[read_off(*given, wanted) <= SCORES].mean() < wanted
        reached += sure.kept
    assert broken <= 10
    assert naive > 60
    assert reached or coverage == 0.9  # where 200 rows are too few, they promise less


def test_forty_rows_promise_nothing_and_say_what_they_allow():
    sure = trust.choose_threshold([0.99] * 40, [True] * 40, 0.98)
    assert (sure.threshold, sure.kept, sure.promised, sure.coverage) == (None, False, 0, 0)
    assert str(sure) == (
        "40 rows allow no promise of 98.0%: at best 92.8%, were all of them right; 149 are needed"
    )
    assert trust.choose_threshold([0.99] * 149, [True] * 149, 0.98, coverage=1).kept


def test_the_bound_is_that_of_clopper_and_pearson():
    scores = np.linspace(1, 0.5, 200)
    right = np.arange(200) % 60 > 0  # four are wrong
    sure = trust.choose_threshold(scores, right, 0.985, coverage=1)
    interval = binomtest(196, 200, alternative="greater").proportion_ci(0.95, "exact")
    assert sure.low == pytest.approx(interval.low)
    assert (sure.threshold, sure.coverage, sure.accuracy, sure.kept) == (0, 1, 0.98, False)
    assert "200 rows promise 95.4% at 95% confidence, less than the 98.5% wanted" in str(sure)
    bolder = trust.choose_threshold(scores, right, 0.97, coverage=1, confidence=0.8)
    assert bolder.low > sure.low


def test_as_much_is_answered_as_the_promise_allows():
    scores = np.linspace(1, 0.5, 1000)
    right = np.arange(1000) < 960  # the forty at the end are wrong
    sure = trust.choose_threshold(scores, right, 0.95)
    assert sure.kept
    assert 0.96 < sure.coverage < 0.999
    assert sure.accuracy == pytest.approx(right[scores >= sure.threshold].mean())
    assert sure.coverage == (scores >= sure.threshold).mean()
    strict = trust.choose_threshold(scores, right, 0.99)
    assert 0.9 <= strict.coverage < sure.coverage
    assert strict.threshold > sure.threshold
    again = trust.at_threshold(sure.threshold, scores, right, 0.95)
    assert again == sure


def test_answers_with_one_score_stand_or_fall_together():
    sure = trust.choose_threshold([0.9] * 300 + [0.6] * 100, [True] * 300 + [False] * 100, 0.98)
    assert sure.coverage == 1  # nine tenths can't be had without the others
    sure = trust.choose_threshold(
        [0.9] * 300 + [0.6] * 100, [True] * 300 + [False] * 100, 0.98, coverage=0.5
    )
    assert sure.coverage == 0.75
    assert sure.threshold == pytest.approx(0.75)


def test_keywords_of_one_text_are_not_counted_as_if_each_were_a_text():
    """In eight texts of ten all ten are right, in the others none: 80% over all."""
    alone = together = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        right = (rng.random(60) < 0.8)[:, None] & np.ones((60, 10), bool)  # all or none
        flat = {"scores": rng.random(600), "right": right.ravel(), "wanted": 0.9, "coverage": 1}
        alone += trust.choose_threshold(**flat).promised > 0.8
        sure = trust.choose_threshold(**flat, groups=np.repeat(np.arange(60), 10))
        together += sure.promised > 0.8
        assert sure.rows == 60
    assert together <= 10 < 40 < alone


@pytest.mark.parametrize(
    ("scores", "right", "options", "told"),
    [
        ([0.9, np.nan], [True, True], {}, "Row 1 has no score"),
        ([0.9], [True, True], {}, "1 scores, 2 verdicts"),
        ([], [], {}, "0 scores"),
        ([0.9], [True], {"wanted": 98}, "wanted is 98, and should be between 0 and 1"),
        ([0.9], [True], {"confidence": 1}, "confidence is 1"),
        ([0.9], [True], {"coverage": 90}, "coverage is 90"),
    ],
)
def test_what_is_no_answer_is_named(scores, right, options, told):
    with pytest.raises(ValueError, match=told):
        trust.choose_threshold(scores, right, **options)


def test_accuracy_against_coverage_is_a_table():
    scores = np.linspace(1, 0.5, 100)
    table = trust.accuracy_by_coverage(scores, np.arange(100) < 90)
    assert table["coverage"].tolist() == pytest.approx([i / 20 for i in range(1, 21)])
    assert table["rows"].tolist() == list(range(5, 101, 5))
    assert table["accuracy"].tolist()[-3:] == pytest.approx([1.0, 90 / 95, 0.9])
    assert (table["low"] < table["accuracy"]).all()
    assert [(scores >= each).sum() for each in table["threshold"]] == table["rows"].tolist()


def test_a_keyword_is_right_where_its_stems_are_among_the_true_ones():
    found = [[("Databases", 0.9), ("cloud", 0.4)], [], [("Go", 0.8)]]
    hits = trust.keyword_hits(found, ["database, Redis", "Go", ["Rust"]])
    assert hits["right"].tolist() == [True, False, False]
    assert hits["text"].tolist() == [0, 0, 2]


# --- Of a model


@pytest.fixture(scope="module")
def rows(titles, few_titles):
    """200 titles that the model never saw."""
    others = titles[~titles["text"].isin(few_titles["text"])]
    return others.groupby("label").tail(100).reset_index(drop=True)


@pytest.fixture(scope="module")
def calibrated(trained, rows, tmp_path_factory):
    """A copy of the fine-tuned MiniLM that knows what it doesn't know; its int8 too."""
    folder = shutil.copytree(trained.folder, tmp_path_factory.mktemp("calibrated") / "model")
    found = trust.measure(folder, rows["text"], rows["label"], 0.97, data="other titles")
    trust.keep(folder, found)
    int8 = export.export_onnx(folder, folder.parent / "int8")
    return SimpleNamespace(folder=folder, found=found, int8=int8)


def test_what_is_kept_is_obeyed_and_changes_no_label(trained, calibrated, rows):
    before = inference.classify(rows["text"], trained.folder)
    after = inference.classify(rows["text"], calibrated.folder)
    found = calibrated.found
    assert found.calibration.temperature != pytest.approx(1, abs=0.02)
    assert "sure" not in before
    assert after["label"].tolist() == before["label"].tolist()
    assert after[trained.names].to_numpy() == pytest.approx(
        trust.cooled(before[trained.names], found.calibration.temperature), abs=1e-6
    )
    assert list(after) == ["text", "label", "score", "sure", *trained.names]
    assert after["sure"].tolist() == (after["score"] >= found.sure.threshold).tolist()
    right = after["label"] == rows["label"]
    assert after["sure"].mean() == pytest.approx(found.sure.coverage)
    assert right[after["sure"]].mean() == pytest.approx(found.sure.accuracy)
    assert AutoConfig.from_pretrained(calibrated.folder).sure_from == found.sure.threshold
    assert str(found).count("\n") == 1


def test_measured_again_there_is_nothing_left_to_mend(calibrated, rows):
    again = trust.measure(calibrated.folder, rows["text"], rows["label"], 0.97)
    assert again.calibration.temperature == pytest.approx(1, abs=0.01)
    settings = calibrated.found.settings
    assert again.settings["label_temperature"] == pytest.approx(
        settings["label_temperature"], rel=0.01
    )
    left = trust.measure(calibrated.folder, rows["text"], rows["label"], 0.97, fit=False)
    assert left.calibration is None
    assert "label_temperature" not in left.settings
    assert left.sure.threshold == pytest.approx(settings["sure_from"])


def test_a_file_has_the_column_and_a_blank_text_neither_yes_nor_no(calibrated, rows, tmp_path):
    source = tables.write(pd.DataFrame({"text": [*rows["text"][:30], " "]}), tmp_path / "in.csv")
    with pytest.warns(UserWarning, match="1 of 31 texts are blank"):
        target = inference.answer_file(source, tmp_path / "out.parquet", calibrated.int8)
    sure = pd.read_parquet(target)["sure"]
    wanted = inference.classify(rows["text"][:30], calibrated.int8)["sure"]
    assert sure[:30].tolist() == wanted.tolist()
    assert sure.isna().tolist() == [False] * 30 + [True]


def test_onnx_and_the_service_are_as_sure_as_the_package(calibrated, rows):
    texts = [*rows["text"][:40], ""]
    config = json.loads((calibrated.int8 / "config.json").read_text())
    assert config.items() >= calibrated.found.settings.items()
    ours = inference.classify(texts[:-1], calibrated.int8)
    assert ours["sure"].any()
    assert not ours["sure"].all()
    asked = f"import json, service; print(json.dumps(service.classify({texts!r})))"
    env = {**os.environ, "MODEL": str(calibrated.int8)}
    run = [sys.executable, "-c", asked]
    said = json.loads(subprocess.check_output(run, text=True, cwd=DEPLOY, env=env))
    assert [each["sure"] for each in said[:-1]] == ours["sure"].tolist()
    assert [each["score"] for each in said[:-1]] == pytest.approx(ours["score"].tolist(), abs=1e-5)
    assert said[-1] == {"label": None, "score": None, "scores": {}}


def test_int8_is_checked_and_what_it_does_not_keep_is_chosen_anew(calibrated, rows, tmp_path):
    folder = shutil.copytree(calibrated.int8, tmp_path / "int8")
    checked = trust.check_export(folder, rows["text"], rows["label"])
    answers = inference.classify(rows["text"], folder)
    right = answers["label"] == rows["label"]
    about = json.loads((folder / "config.json").read_text())["sure_about"]
    assert about["accuracy"] == pytest.approx(right[answers["sure"]].mean())  # its own figures
    assert about["data"] == "other titles"
    if not checked.anew:
        assert inference.load(folder).config["sure_from"] == calibrated.found.sure.threshold
    # A promise that nothing keeps: everything is sure.
    configure(folder, sure_from=0.0, sure_about={**about, "low": 0.995, "wanted": 0.97})
    anew = trust.check_export(folder, rows["text"], rows["label"])
    assert anew.anew
    assert inference.load(folder).config["sure_from"] == anew.sure.threshold > 0.5
    assert not trust.check_export(folder, rows["text"], rows["label"]).anew


def test_without_a_threshold_there_is_nothing_to_check(trained, rows):
    with pytest.raises(ValueError, match="has no threshold to check: measure and keep one"):
        trust.check_export(trained.folder, rows["text"], rows["label"])


def test_a_student_takes_no_promise_over(calibrated, trained, tmp_path):
    build = teach.student(calibrated.folder, calibrated.folder)
    splits = small.labels.encode_labels(trained.splits, names=trained.names)
    config = build(splits, 0, tmp_path).model.config.to_dict()
    assert not {"label_temperature", "sure_from", "sure_about"} & set(config)


def test_soft_labels_are_the_calibrated_ones(calibrated, trained, rows):
    texts = rows["text"][:20]
    found = teach.soft_labels([calibrated.folder], texts, trained.names)
    mended = inference.classify(texts, calibrated.folder)[trained.names]
    assert found.to_numpy() == pytest.approx(mended.to_numpy())


def test_the_page_says_that_it_is_not_sure(calibrated, rows):
    page = pytest.importorskip("cookbook.page")
    loaded = inference.load(calibrated.folder)
    answers = inference.classify(rows["text"], loaded)
    for sure in (True, False):
        row = answers[answers["sure"] == sure].iloc[0]
        shown = page._answer(loaded, row["text"])
        assert ("not sure" in shown["label"]) == (not sure)
        assert max(shown["value"], key=shown["value"].get) == row["label"]


def test_several_labels_keep_theirs_and_are_sure_as_a_set(tokenizer, tmp_path):
    folder = small.tiny_several(tmp_path / "model", tokenizer, NAMES)
    configure(folder, label_thresholds={"a": 0.52, "b": 0.45})
    texts = [f"Text number {i} of {i % 7}" for i in range(300)]
    before = inference.classify(texts, folder)
    rng = np.random.default_rng(0)
    sets = [
        own if rng.random() < 0.97 else [name for name in NAMES if name not in own]
        for own in before["label"]
    ]
    found = trust.measure(folder, texts, ["|".join(own) or "[]" for own in sets], 0.9)
    assert found.calibration.temperature < 0.9  # an untrained model is hardly ever sure
    trust.keep(folder, found)
    after = inference.classify(texts, folder)
    assert after["label"].tolist() == before["label"].tolist()
    exact = [a == b for a, b in zip(after["label"], sets, strict=True)]
    assert found.sure.kept
    assert np.mean(np.array(exact)[after["sure"]]) == pytest.approx(found.sure.accuracy)
    held = np.array([[name in own for name in NAMES] for own in after["label"]])
    scores = multilabel.set_scores(after[NAMES].to_numpy(), held.astype(int))
    assert after["score"].tolist() == pytest.approx(scores.tolist())


def test_a_marker_says_which_keywords_it_is_sure_of(marker, short_posts, tmp_path):
    folder = shutil.copytree(marker, tmp_path / "marker")
    texts, true = short_posts["text"], short_posts["keywords"]
    found = trust.measure(folder, texts, true, 0.8, coverage=0.5)
    assert found.calibration is None
    assert found.sure.rows <= 24
    assert found.sure.promised > 0.7  # learnt by heart
    trust.keep(folder, found)
    least = found.sure.threshold + 0.01
    configure(folder, sure_from=least)
    (answered,) = inference.answer_chunks([short_posts[["text"]]], folder)
    pairs = inference.extract_keywords(texts, folder, scores=True)
    sure = [", ".join(name for name, score in each if score >= least) for each in pairs]
    assert answered["sure_keywords"].tolist() == sure
    page = pytest.importorskip("cookbook.page")
    configure(folder, sure_from=1.1)  # nothing is
    assert "(not sure)</li>" in page._answer(inference.load(folder), texts[0])


def test_settings_are_written_whole_and_taken_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        configure(tmp_path, sure_from=0.9)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "pad_token_id": null}')
    configure(tmp_path, sure_from=0.9, label_temperature=2.0)
    configure(tmp_path, sure_from=None)
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept == {"model_type": "bert", "pad_token_id": None, "label_temperature": 2.0}
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
