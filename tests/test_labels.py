import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)

from cookbook import data, labels


def splits(**columns):
    return DatasetDict(
        {
            name: Dataset.from_dict({"text": ["t"] * len(values), "label": values})
            for name, values in columns.items()
        }
    )


def test_ids_follow_the_sorted_names_whatever_the_order_of_the_rows():
    first = labels.encode_labels(splits(train=["b", "a", "c"], test=["c"]))
    second = labels.encode_labels(splits(train=["c", "b", "a"], test=["c"]))
    assert labels.label_maps(first) == labels.label_maps(second)
    assert labels.label_maps(first)["label2id"] == {"a": 0, "b": 1, "c": 2}
    assert first["test"]["label"][:] == second["test"]["label"][:] == [2]


def test_numbers_as_labels_sort_as_numbers():
    encoded = labels.encode_labels(splits(train=[10, 2, 1]))
    assert encoded["train"].features["label"].names == ["1", "2", "10"]


def test_booleans_and_numbers_beside_a_missing_one():
    encoded = labels.encode_labels(splits(train=[True, False, True]))
    assert labels.label_maps(encoded)["label2id"] == {"False": 0, "True": 1}
    rows = pd.DataFrame({"text": [f"t{i}" for i in range(61)], "label": [0.0, 1.0] * 30 + [None]})
    with pytest.warns(UserWarning, match="1 without a label"):
        loaded = data.load_splits(rows)
    assert labels.encode_labels(loaded)["train"].features["label"].names == ["0", "1"]


def test_class_ids_with_names_are_checked_like_names():
    feature = ClassLabel(names=["x", "y", "z"])
    three = splits(train=[0, 1], test=[2]).cast_column("label", feature)
    with pytest.raises(ValueError, match=r"Split 'test' has 1 rows.*\['z'\]"):
        labels.encode_labels(three)
    with pytest.raises(ValueError, match=r"one label only, \['x'\]"):
        labels.encode_labels(splits(train=[0, 0]).cast_column("label", feature))


def named(names, ids):
    rows = Dataset.from_dict({"text": ["t"] * len(ids), "label": ids})
    return rows.cast_column("label", ClassLabel(names=names))


def test_class_ids_of_another_order_are_matched_by_name():
    given = DatasetDict(train=named(["no", "yes"], [0, 1]), test=named(["yes", "no"], [0, 1, 1]))
    encoded = labels.encode_labels(given)
    assert encoded["test"].features["label"].names == ["no", "yes"]
    assert encoded["test"]["label"][:] == [1, 0, 0]


def test_numbers_are_matched_with_names_that_are_numbers_not_with_ids():
    train = named(["1", "2", "3"], [0, 1, 2])
    stars = Dataset.from_dict({"text": ["t"] * 3, "label": [3, 1, 2]})
    encoded = labels.encode_labels(DatasetDict(train=train, test=stars))
    assert encoded["test"]["label"][:] == [2, 0, 1]
    ids = stars.remove_columns("label").add_column("label", [0, 1, 2])
    with pytest.raises(ValueError, match=r"Split 'test' has 1 rows.*\['0'\]"):
        labels.encode_labels(DatasetDict(train=train, test=ids))


@pytest.mark.parametrize(
    ("train", "test"),
    [([True, False], ["True", "False"]), ([1.0, 2.0], ["1", "2"]), (["1", "2"], [1, 2])],
)
def test_types_may_differ_from_split_to_split(train, test):
    encoded = labels.encode_labels(splits(train=train, test=test))
    assert encoded["train"]["label"][:] == encoded["test"]["label"][:]


def test_numbers_beside_words_sort_before_them():
    rows = pd.DataFrame({"text": [f"t{i}" for i in range(60)], "label": [10, "2", "other"] * 20})
    encoded = labels.encode_labels(data.load_splits(rows))
    assert encoded["train"].features["label"].names == ["2", "10", "other"]


def test_lists_are_several_labels_a_text():
    encoded = labels.encode_labels(
        splits(train=[["b"], ["a", "b"], []], test=[["a", "a"]]), names=["b", "a"]
    )
    assert encoded["train"]["label"][:] == [[1, 0], [1, 1], [0, 0]]
    assert encoded["test"]["label"][:] == [[0, 1]]
    assert encoded["train"]["label_names"][:] == [[0], [1, 0], []]
    assert labels.label_maps(encoded)["problem_type"] == "multi_label_classification"
    assert labels.label_maps(encoded)["id2label"] == {0: "b", 1: "a"}
    again = labels.encode_labels(encoded)
    assert again["train"][:] == encoded["train"][:]
    with pytest.raises(ValueError, match=r"Split 'test' has 1 rows.*\['c'\].*rows \[1\]"):
        labels.encode_labels(splits(train=[["a"], ["b"]], test=[["a"], ["b", "c"]]))


def test_labels_that_look_alike_or_joined_are_said():
    with pytest.warns(UserWarning, match=r"\['News', 'news'\] differ in case only"):
        labels.encode_labels(splits(train=["News", "news", "sport"]))
    with pytest.warns(UserWarning, match=r"\['a\|b'\] join others"):
        labels.encode_labels(splits(train=["a", "b", "a|b"]))


def test_blank_labels_are_none():
    with pytest.raises(ValueError, match=r"\[None\] \(first at rows \[1\]\)"):
        labels.encode_labels(splits(train=["a", "  ", "b"]))


def test_another_column_becomes_the_one_that_the_trainer_looks_for():
    named = splits(train=["a", "b"]).rename_column("label", "kind")
    assert labels.encode_labels(named, label="kind")["train"].column_names == ["text", "label"]


def test_names_that_figures_have_are_refused():
    with pytest.raises(ValueError, match=r"can't be called \['macro'\]"):
        labels.encode_labels(splits(train=["macro", "micro"]))


def test_twenty_classes():
    names = [f"class {i:02}" for i in range(20)]
    encoded = labels.encode_labels(splits(train=names[::-1]))
    assert list(labels.label_maps(encoded)["id2label"].values()) == names
    assert encoded["train"]["label"][:] == list(range(20))[::-1]


def test_a_label_that_train_never_had_is_named_with_its_row():
    with pytest.raises(ValueError, match=r"Split 'test' has 1 rows.*\['satire'\].*rows \[1\]"):
        labels.encode_labels(splits(train=["a", "b"], test=["a", "satire"]))


def test_one_class_only_is_an_error():
    with pytest.raises(ValueError, match=r"one label only, \['a'\]"):
        labels.encode_labels(splits(train=["a", "a"]))


def test_a_row_without_a_label_is_an_error():
    with pytest.raises(ValueError, match=r"\[None\] \(first at rows \[2\]\)"):
        labels.encode_labels(splits(train=["a", "b", None]))


def test_ids_of_an_earlier_model_can_be_kept():
    encoded = labels.encode_labels(splits(train=["a", "b"]), names=["b", "a", "unused"])
    assert encoded["train"]["label"][:] == [1, 0]
    with pytest.raises(ValueError, match=r"`names` lack: \['b'\]"):
        labels.encode_labels(splits(train=["a", "b"]), names=["a", "c"])


def test_encoding_twice_changes_nothing():
    once = labels.encode_labels(splits(train=["b", "a"], test=["b"]))
    twice = labels.encode_labels(once)
    assert isinstance(twice["train"].features["label"], ClassLabel)
    assert twice["test"]["label"][:] == once["test"]["label"][:]


def test_label_maps_want_encoded_labels():
    with pytest.raises(ValueError, match="call encode_labels first"):
        labels.label_maps(splits(train=["a", "b"]))


@pytest.mark.parametrize(
    "head",
    [
        {"id2label": {0: "x", 1: "y", 2: "z"}},
        {"problem_type": "multi_label_classification"},
        {"num_labels": 1, "problem_type": "regression"},
    ],
)
def test_a_model_fine_tuned_for_something_else_can_be_the_base(head, tmp_path):
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, **head
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    maps = labels.label_maps(labels.encode_labels(splits(train=["bad", "good"])))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, **maps)
    assert model.config.id2label == {0: "bad", 1: "good"}
    answer = model(input_ids=torch.tensor([[1, 2]]), labels=torch.tensor([1]))
    assert answer.logits.shape == (1, 2)
    assert answer.loss.isfinite()


@pytest.mark.parametrize(
    "names",
    [
        ["one", "2"],
        {0: "one", 1: 2},
        {"1": "2", "0": "one"},
        ClassLabel(names=["one", "2"]),
    ],
)
def test_ids_become_names(names):
    assert labels.names_of([1, 0, -1, None], names) == ["2", "one", None, None]
    assert labels.names_of(pd.Series([1.0, float("nan")]), names) == ["2", None]
    with pytest.raises(ValueError, match=r"\[2\] have no name"):
        labels.names_of([0, 2], names)


def test_the_saved_model_answers_with_names(minilm, tmp_path):
    encoded = labels.encode_labels(splits(train=["x", "y", "z"]))
    maps = labels.label_maps(encoded)
    model = AutoModelForSequenceClassification.from_pretrained(minilm, **maps)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.num_labels == 3
    assert config.id2label == {0: "x", 1: "y", 2: "z"}
    assert "LABEL_0" not in (tmp_path / "config.json").read_text()
