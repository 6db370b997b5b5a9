"""Comparisons of classifiers that answer from a list, and of two ways to find keywords."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from cookbook import baselines, compare, data, multilabel, plots, words
from cookbook.label_cells import one_hot

ROWS = pd.DataFrame({"text": list("abcdef"), "label": list("xxxyyy")})
SETS = {"one": ROWS, "two": ROWS.iloc[:1]}


def fixed(name, answers, size=None):
    table = dict(zip(ROWS["text"], answers, strict=True))
    return baselines.Classifier(name, lambda texts: [table[text] for text in texts], size)


def test_every_classifier_is_scored_on_every_set():
    compared = compare.compare([fixed("good", "xxxyyx", 2_000_000), fixed("bad", "yyyyyy")], SETS)
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
    compared = compare.compare([fixed("half", ["x", "x", "", "y", "y", "y"])], {"one": ROWS})
    assert compared.table.loc["half", ("one", "accuracy")] == pytest.approx(5 / 6)
    assert compared.table.loc["half", ("one", "f1_macro")] == pytest.approx((0.8 + 1) / 2)
    assert compared.per_label.index.get_level_values("label").tolist() == ["x", "y"]


def test_only_a_difference_beyond_chance_is_significant():
    many = pd.concat([ROWS] * 40)
    ways = [fixed("good", "xxxyyy"), fixed("bad", "xyxyxx"), fixed("same", "xxxyyy")]
    differences = compare.compare(ways, {"one": many, "few": ROWS}).differences("good")
    bad, same = differences.loc[("one", "bad")], differences.loc[("one", "same")]
    assert bad["difference"] == pytest.approx(-0.5)
    assert bad["low"] < -0.5 < bad["high"] < 0
    assert bad["p"] < 0.001
    assert same.tolist() == [0, 0, 0, 1]
    assert differences.loc[("few", "bad"), "p"] == pytest.approx(0.125)
    with pytest.raises(KeyError, match="best"):
        compare.compare(ways, SETS).differences("best")


@pytest.mark.parametrize(
    ("classifiers", "sets", "message"),
    [
        ([fixed("a", "xxxyyy")] * 2, SETS, "name of its own"),
        ([fixed("a", "xxxyyy")], {}, "one set, each"),
        ([fixed("a", "xxxyyy")], {"cost": ROWS}, "none of them 'text', 'label' or 'cost'"),
        ([fixed("label", "xxxyyy")], SETS, "none of them 'text', 'label'"),
        ([fixed("a", "xxxyyy")], {"one": ROWS[["text"]]}, "label"),
        ([fixed("a", "xxxyyy")], {"one": ROWS.iloc[:0]}, "no row of set 'one'"),
        ([fixed("a", "xxxyyy")], {"one": ROWS.assign(label=None)}, "No usable row"),
        ([fixed("a", "xxxyyy")], {"one": ROWS.assign(label=1)}, r"'y'\]; the labels are \['1'\]"),
        ([fixed("a", [""] * 6)], SETS, r"no label here, such as \[''\]"),
        ([fixed("a", "000111")], SETS, r"no label here, such as \['0', '1'\]"),
        ([baselines.Classifier("a", lambda texts: ["x"])], SETS, "1 answers to 7 texts"),
    ],
)
def test_what_cannot_be_compared_is_named(classifiers, sets, message):
    with pytest.raises(ValueError, match=message):
        compare.compare(classifiers, sets)


@pytest.mark.parametrize(
    ("labels", "answers"),
    [
        ([1, 1, 1, 5, 5, 5], [1, 1, 1, 5, 5, 5]),
        ([1, 1, 1, 5, 5, 5], list("111555")),
        (list("111555"), np.array([1, 1, 1, 5, 5, 5.0])),
        (list("xxxyyy"), np.array(list("xxxyyy"))),
        (pd.Categorical(list("xxxyyy")), pd.Categorical(list("xxxyyy"))),
        ([True] * 3 + [False] * 3, [True] * 3 + [False] * 3),
        (["x ", "x ", "x ", "y", "y", "y"], list("xxxyyy")),
        (
            ["cost", "text", "label", "f1", "rows", "|"],
            ["cost", "text", "label", "f1", "rows", "|"],
        ),
    ],
)
def test_labels_of_any_type_are_compared_by_name(labels, answers):
    given = dict(zip(ROWS["text"], answers, strict=True))
    right = baselines.Classifier("right", lambda texts: [given[text] for text in texts])
    compared = compare.compare([right], {"one": ROWS.assign(label=labels)})
    assert compared.table["one", "accuracy"].tolist() == [1]
    assert compared.table["one", "f1_macro"].tolist() == [1]


def test_a_dataset_with_class_ids_is_compared_by_their_names():
    ids = Dataset.from_pandas(ROWS.assign(label=[1, 1, 1, 0, 0, 0], length=3))
    splits = DatasetDict(one=ids.cast_column("label", ClassLabel(names=["y", "x"])))
    compared = compare.compare([fixed("right", "xxxyyy")], splits)
    assert compared.table["one", "accuracy"].tolist() == [1]
    assert compared.answers["one"]["label"].tolist() == list("xxxyyy")


def test_answers_that_are_no_label_of_the_set_are_told_and_wrong():
    with pytest.warns(UserWarning, match=r"3 of 6 answers of odd are no label here.*'Y'"):
        compared = compare.compare([fixed("odd", "xxxYYY")], {"one": ROWS})
    assert compared.table["one", "accuracy"].tolist() == [0.5]
    with pytest.warns(UserWarning, match="odd are no label here"):
        curve = compare.learning_curve(
            {"odd": lambda texts, labels: fixed("", "xxxYYY")}, ROWS, ROWS, [6], seeds=[0]
        )
    assert curve["accuracy"].tolist() == [0.5]


def test_rows_that_cannot_be_scored_are_left_out_and_counted():
    holes = ROWS.assign(text=["a", "b", None, "d", "e", "f"], label=[*"xxxyy", np.nan])
    with pytest.warns(UserWarning, match="2 of 6 rows of set 'one'"):
        compared = compare.compare([fixed("right", "xxxyyy")], {"one": holes, "all": ROWS})
    assert compared.answers["one"]["text"].tolist() == list("abde")
    assert compared.table.loc["right"][[("one", "accuracy"), ("all", "accuracy")]].tolist() == [
        1,
        1,
    ]


def test_one_classifier_alone_differs_from_nobody():
    assert compare.compare([fixed("a", "xxxyyy")], SETS).differences("a").empty


def test_a_learning_curve_trains_on_balanced_subsets_one_within_the_other(few_titles):
    splits = data.load_splits(few_titles, group="pair", validation=0.05, test=0.3)
    train, test = splits["train"].to_pandas(), splits["test"].to_pandas()
    seen = []

    def fit(texts, labels):
        seen.append(pd.Series(labels, index=texts))
        return baselines.tfidf(texts, labels)

    curve = compare.learning_curve({"TF-IDF": fit}, train, test, [20, 300, 60], seeds=[0, 1])
    assert curve["rows"].tolist() == [20, 20, 60, 60, 300, 300]
    means = curve.groupby("rows")["accuracy"].mean()
    assert means[300] > means[20] > 0.5
    assert [len(part) for part in seen] == [20, 20, 60, 60, 300, 300]
    for small, large in (*combinations(seen[::2], 2), *combinations(seen[1::2], 2)):
        assert set(small.index) <= set(large.index)
        assert small.value_counts(normalize=True)["factual"] == pytest.approx(0.5, abs=0.05)
    assert set(seen[0].index) != set(seen[1].index)
    # Nearly all rows, and a label with few of them.
    by_label = train.groupby("label")
    few = pd.concat(
        [by_label.get_group("factual").head(95), by_label.get_group("clickbait").head(5)]
    )
    odd = compare.learning_curve({"TF-IDF": fit}, few, test, [99, 20], seeds=[0])
    assert odd["rows"].tolist() == [20, 99]
    with pytest.raises(ValueError, match=r"\[1, 9000\]"):
        compare.learning_curve({"TF-IDF": fit}, train, test, [1, 100, 9000])


# --- Several labels a text

SEVERAL = ROWS.assign(label=[["x"], ["x", "y"], ["y"], ["y", "z"], [], ["z"]])
RIGHT = SEVERAL["label"].tolist()
HALF = [["x"], ["x"], [], ["z", "y"], ["x"], ["y"]]  # one too few, none, any order, one too many


def test_several_labels_are_scored_as_multilabel_does():
    compared = compare.compare(
        [fixed("right", RIGHT), fixed("half", HALF)],
        {"one": SEVERAL, "two": SEVERAL.iloc[:3]},
        several=True,
    )
    table = compared.table
    names = ["x", "y", "z"]
    expected = multilabel.multilabel_metrics(RIGHT, one_hot(HALF, names), names)
    for figure in ("f1_macro", "f1_micro", "f1_samples", "exact_match"):
        assert table.loc["half", ("one", figure)] == pytest.approx(expected[figure])
        assert table.loc["right", ("one", figure)] == table.loc["right", ("two", figure)] == 1
    assert table.loc["half", ("one", "exact_match")] == pytest.approx(2 / 6)
    assert table.loc["half", ("two", "f1_macro")] == pytest.approx((1 + 0) / 2)
    assert ("one", "accuracy") not in table
    by_label = compared.per_label.loc["half"].loc["one"]
    assert by_label.loc["y"].tolist() == pytest.approx([1 / 2, 1 / 3, 2 / 5, 3])
    assert list(compared.per_label.loc["half"].loc["two"].index) == ["x", "y"]
    assert compared.answers["one"]["half"].tolist() == HALF
    assert plots.comparison(table).axes[0].get_title() == "f1_macro"


def test_a_difference_of_several_labels_is_in_f1_and_tested_on_whole_sets():
    many = pd.concat([SEVERAL] * 20)
    ways = [fixed("right", RIGHT), fixed("half", HALF), fixed("same", RIGHT)]
    compared = compare.compare(ways, {"one": many}, several=True)
    differences = compared.differences("right").loc["one"]
    figures = compared.table["one", "f1_samples"]
    half = differences.loc["half"]
    assert half["difference"] == pytest.approx(figures["half"] - figures["right"])
    assert half["low"] < half["difference"] < half["high"] < 0
    assert half["p"] < 0.001
    assert differences.loc["same"].tolist() == [0, 0, 0, 1]


def test_labels_joined_in_a_cell_are_several_where_that_is_said():
    joined = ROWS.assign(label=["x", "x|y", "y", "y; z", "[]", "z"])
    compared = compare.compare([fixed("right", RIGHT)], {"one": joined}, several=True)
    assert compared.table["one", "exact_match"].tolist() == [1]
    assert compared.answers["one"]["label"].tolist() == RIGHT
    with pytest.raises(ValueError, match="say several=True"):
        compare.compare([fixed("right", RIGHT)], {"one": SEVERAL})


def test_of_several_labels_one_that_no_text_has_is_told_and_wrong():
    odd = [[*own, "w"] for own in RIGHT]
    with pytest.warns(UserWarning, match=r"6 of 13 answers of odd are no label here.*'w'"):
        compared = compare.compare([fixed("odd", odd)], {"one": SEVERAL}, several=True)
    figures = compared.table.loc["odd", "one"]
    assert figures["exact_match"] == 0
    assert figures["f1_macro"] == 1  # of the labels that texts have
    assert figures["f1_micro"] == pytest.approx(2 * 7 / (7 + 13))
    with pytest.raises(ValueError, match=r"no label here, such as \['w'\]"):
        compare.compare([fixed("w", [["w"]] * 6)], {"one": SEVERAL}, several=True)
    nothing = compare.compare([fixed("none", [[]] * 6)], {"one": SEVERAL}, several=True)
    assert nothing.table["one", "exact_match"].tolist() == pytest.approx([1 / 6])


def test_a_learning_curve_of_several_labels_keeps_rare_ones_in_small_draws():
    kinds = {"cat purrs": ["cat"], "dog barks": ["dog"], "cat and dog": ["cat", "dog"]}
    rows = [(f"{text} {n}", own) for text, own in kinds.items() for n in range(20)]
    rows += [(f"old hen {n}", ["hen"]) for n in range(10)]
    table = pd.DataFrame(rows, columns=["text", "label"])
    seen = []

    def fit(texts, labels):
        seen.append(labels)
        return baselines.tfidf(texts, labels)

    curve = compare.learning_curve({"TF-IDF": fit}, table, table, [14, 70], [0], several=True)
    assert ["hen"] in seen[0]
    assert curve["f1_macro"].iloc[1] == 1
    assert plots.learning_curve(curve).axes[0].get_ylabel() == "f1_macro"


# --- Keywords


def test_ways_to_find_keywords_are_compared_on_the_same_texts(short_posts):
    texts = short_posts["text"].tolist()
    gold = [words.split_keywords(cell) for cell in short_posts["keywords"]]
    known = dict(zip(texts, gold, strict=True))
    perfect = {"gold": lambda texts: [known[text] for text in texts]}
    ways = perfect | {"words": baselines.nltk_keywords, "spaCy": baselines.spacy_keywords}
    compared = compare.compare_keywords(ways, texts, gold)
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
        compare.compare_keywords(ways, texts, gold[:2])


@pytest.mark.parametrize(
    ("ways", "texts", "gold", "message"),
    [
        ({}, ["Redis"], [["Redis"]], "0 ways"),
        ({"a": list}, [], [], "0 texts"),
        ({"a": list}, "Redis", [["R"]] * 5, "one string"),
        ({"a": lambda texts: [text.split() for text in texts]}, ["Redis"], ["Redis"], "one string"),
        ({"a": list}, ["Redis"], [["Redis"]], "text 0 are one string"),
        ({"a": lambda texts: []}, ["Redis"], [["Redis"]], "0 answers to 1 texts"),
    ],
)
def test_keywords_that_cannot_be_compared_are_named(ways, texts, gold, message):
    with pytest.raises(ValueError, match=message):
        compare.compare_keywords(ways, texts, gold)
