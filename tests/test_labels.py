import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import AutoConfig, AutoModelForSequenceClassification

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
    assert labels.label_maps(encoded)["label2id"] == {"false": 0, "true": 1}
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
    with pytest.raises(ValueError, match=r"not among names.*\['b'\]"):
        labels.encode_labels(splits(train=["a", "b"]), names=["a", "c"])


def test_encoding_twice_changes_nothing():
    once = labels.encode_labels(splits(train=["b", "a"], test=["b"]))
    twice = labels.encode_labels(once)
    assert isinstance(twice["train"].features["label"], ClassLabel)
    assert twice["test"]["label"][:] == once["test"]["label"][:]


def test_label_maps_want_encoded_labels():
    with pytest.raises(ValueError, match="call encode_labels first"):
        labels.label_maps(splits(train=["a", "b"]))


def test_the_saved_model_answers_with_names(minilm, tmp_path):
    encoded = labels.encode_labels(splits(train=["x", "y", "z"]))
    maps = labels.label_maps(encoded)
    model = AutoModelForSequenceClassification.from_pretrained(minilm, **maps)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.num_labels == 3
    assert config.id2label == {0: "x", 1: "y", 2: "z"}
    assert "LABEL_0" not in (tmp_path / "config.json").read_text()
