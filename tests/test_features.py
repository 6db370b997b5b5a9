import numpy as np
import pandas as pd
import pytest
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    IterableDatasetDict,
    Value,
    load_dataset,
)
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    BertConfig,
    DataCollatorWithPadding,
    GPT2Config,
    LEDConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
    XLNetConfig,
)

from cookbook import features, labels


def dataset(*texts):
    return DatasetDict(train=Dataset.from_dict({"text": list(texts), "label": [0] * len(texts)}))


def test_the_tokens_are_the_tokenizer_s_own_and_nothing_is_padded(tokenizer):
    texts = ["A title", "A somewhat longer title, with more words in it", "🤯 日本語 Заголовок"]
    train = features.tokenize(dataset(*texts), tokenizer)["train"]
    assert train["input_ids"][:] == tokenizer(texts)["input_ids"]
    assert train["length"][:] == [len(ids) for ids in train["input_ids"]]
    assert [sum(mask) for mask in train["attention_mask"]] == train["length"][:]
    assert train["label"][:] == [0, 0, 0]


def test_cut_texts_are_counted_and_still_end_properly(tokenizer):
    long = "word " * 2000
    assert len(long) == 10_000
    with pytest.warns(UserWarning, match=r"1 of 2 texts in split 'train' are longer than 512 "):
        train = features.tokenize(dataset("short", long), tokenizer)["train"]
    assert train["length"][1] == 512
    assert train["input_ids"][1] == tokenizer(long, truncation=True)["input_ids"]
    assert train["input_ids"][1][-1] == tokenizer.sep_token_id


def test_the_warning_says_how_many_tokens_are_lost(tokenizer):
    with pytest.warns(UserWarning, match="4 of 12 tokens are lost, the longest text has 12"):
        features.tokenize(
            dataset("one two three four five six seven eight nine ten"), tokenizer, max_length=8
        )


def test_what_is_no_text_is_named(tokenizer):
    splits = DatasetDict(train=Dataset.from_dict({"text": ["a", None], "label": [0, 1]}))
    with pytest.raises(ValueError, match="Row 1 of split 'train': None"):
        features.tokenize(splits, tokenizer)


def test_an_empty_text_is_fine(tokenizer):
    assert features.tokenize(dataset(""), tokenizer)["train"]["length"][:] == [2]


def test_a_batch_is_padded_to_its_own_longest(tokenizer):
    train = features.tokenize(dataset("a", "a b c", "a b c d e f g h"), tokenizer)["train"]
    batches = DataLoader(
        train.select_columns(["input_ids", "attention_mask", "label"]),
        batch_size=2,
        collate_fn=DataCollatorWithPadding(tokenizer),
    )
    shapes = [tuple(batch["input_ids"].shape) for batch in batches]
    assert shapes == [(2, 5), (1, 10)]


@pytest.mark.parametrize("name", ["labels", "label_ids", "position_ids", "token_type_ids"])
def test_a_column_that_the_model_would_take_for_input_is_renamed(tokenizer, name):
    rows = dataset("a b c", "d e")["train"].add_column(name, ["checked", "not sure"])
    with pytest.warns(UserWarning, match=f"{name}_original") as caught:
        found = features.tokenize(DatasetDict(train=rows, test=rows), tokenizer)
    assert len(caught) == 1
    assert found["test"][f"{name}_original"][:] == ["checked", "not sure"]
    assert name not in found["train"].column_names


def test_a_column_of_the_user_s_called_like_ours_is_kept(tokenizer):
    rows = DatasetDict(train=dataset("a b c")["train"].add_column("length", [90]))
    with pytest.warns(UserWarning, match="length_original"):
        found = features.tokenize(rows, tokenizer)["train"]
    assert (found["length"][:], found["length_original"][:]) == ([5], [90])


@pytest.fixture
def wordwise():
    """A tokenizer of words that adds nothing, states no limit and drops what isn't a letter."""
    made = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "a": 2}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("[^a-z]+"), "removed")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<pad>")


def test_a_split_without_rows_is_named(wordwise):
    splits = dataset("a a", "a")
    splits["test"] = splits["train"].select([])
    with pytest.raises(ValueError, match="Split 'test' has no rows: leave it out"):
        features.tokenize(splits, wordwise)
    stream = IterableDatasetDict(test=splits["train"].to_iterable_dataset().filter(lambda _: False))
    with pytest.raises(ValueError, match="Split 'test' has no rows: leave it out"):
        features.tokenize(stream, wordwise)


def test_a_text_without_a_token_is_named(wordwise):
    with pytest.raises(ValueError, match="Row 1 of split 'train': '!!!' has no token"):
        features.tokenize(dataset("a a", "!!!", "a"), wordwise)
    with pytest.raises(ValueError, match=r"Row 0 .*'\?' has no token"):
        features.tokenize_seq2seq(pairs(text=["a"], keywords=["?"]), wordwise)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (RobertaConfig(max_position_embeddings=514), 512),
        (RobertaConfig(max_position_embeddings=514, pad_token_id=0), 513),
        (XLMRobertaConfig(max_position_embeddings=34), 32),
        (MPNetConfig(max_position_embeddings=514), 512),
        (BertConfig(max_position_embeddings=128), 128),
        (GPT2Config(n_positions=64), 64),
        (T5Config(n_positions=256), 256),
        (LEDConfig(max_encoder_position_embeddings=300), 300),
        (XLNetConfig(), None),
        (T5Config(), None),
        (None, None),
    ],
)
def test_the_usable_length_is_the_model_s_where_the_tokenizer_states_none(wordwise, config, limit):
    assert features.usable_length(wordwise, config) == limit
    wordwise.model_max_length = 48
    assert features.usable_length(wordwise, config) == min(48, limit or 48)


def test_texts_are_cut_to_what_the_model_takes(wordwise):
    config = RobertaConfig(max_position_embeddings=6)
    with pytest.warns(UserWarning, match="longer than 4 tokens"):
        train = features.tokenize(dataset("a " * 9), wordwise, config=config)["train"]
    assert train["length"][:] == [4]
    rows = pairs(text=["a " * 9], keywords=["a"])
    with pytest.warns(UserWarning, match="longer than 4 tokens"):
        train = features.tokenize_seq2seq(rows, wordwise, config=config)["train"]
    assert train["length"][:] == [4]


def test_tokenizing_twice_replaces_the_columns(tokenizer):
    once = features.tokenize(dataset("a b c"), tokenizer)
    twice = features.tokenize(once, tokenizer, max_length=4)["train"]
    assert np.asarray(twice["input_ids"][0]).shape == (4,)


def pairs(**columns):
    return DatasetDict(train=Dataset.from_dict(columns))


def test_a_seq2seq_row_has_the_tokens_of_both_sides(tokenizer):
    rows = pairs(text=["Redis is fast", "We use Go"], keywords=["Redis", "Go"], topic=["DB", "PL"])
    train = features.tokenize_seq2seq(rows, tokenizer)["train"]
    assert train["labels"][:] == tokenizer(["Redis", "Go"])["input_ids"]
    assert train["input_ids"][:] == tokenizer(["Redis is fast", "We use Go"])["input_ids"]
    assert train["target_length"][:] == [len(ids) for ids in train["labels"]]
    short = features.tokenize_seq2seq(rows, tokenizer, decoder_start_token_id=101)["train"]
    assert short["labels"][:] == [ids[1:] for ids in train["labels"]]
    assert short["target_length"][:] == [length - 1 for length in train["target_length"]]
    other = features.tokenize_seq2seq(rows, tokenizer, decoder_start_token_id=102)["train"]
    assert other["labels"][:] == train["labels"][:]
    topics = features.tokenize_seq2seq(rows, tokenizer, target="topic")["train"]
    assert topics["labels"][:] == tokenizer(["DB", "PL"])["input_ids"]


def test_a_label_in_the_way_of_the_targets_is_renamed(tokenizer):
    rows = pairs(text=["a b", "c"], label=["x", "y"], labels=["d, e", "f"])
    with pytest.warns(UserWarning, match="'label': 'label_original', 'labels': 'labels_original'"):
        found = features.tokenize_seq2seq(rows, tokenizer, target="labels")
    train = found["train"]
    assert train["labels"][:] == tokenizer(["d, e", "f"])["input_ids"]
    assert train["labels_original"][:] == ["d, e", "f"]
    again = features.tokenize_seq2seq(found, tokenizer, target="labels_original")["train"]
    assert again["labels"][:] == train["labels"][:]


def test_cut_targets_are_counted(tokenizer):
    rows = pairs(text=["a", "b"], keywords=["Go", "Redis, Kafka, Flink, Spark"])
    with pytest.warns(UserWarning, match=r"1 of 2 targets in split 'train' are longer than 5 "):
        train = features.tokenize_seq2seq(rows, tokenizer, max_target_length=5)["train"]
    assert train["target_length"][:] == [3, 5]


@pytest.mark.parametrize(
    ("target", "message"), [(" ", "' ' in 'keywords'"), (None, "None in 'keywords'")]
)
def test_a_row_without_a_target_is_named(tokenizer, target, message):
    with pytest.raises(ValueError, match=f"Row 1 of split 'train': .*{message}"):
        features.tokenize_seq2seq(pairs(text=["a", "b"], keywords=["x", target]), tokenizer)


def test_a_tokenizer_without_a_pad_token_is_an_error_that_says_what_to_set(minilm):
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"Set tokenizer.pad_token = tokenizer.eos_token"):
        features.tokenize_seq2seq(pairs(text=["a"], keywords=["x"]), tokenizer)


POST = "Why we left Next.js: C++ and the React-Native port (React Native!) in 日本"
KEYWORDS = "React Native, Next.js, React, C++, 日本, Kubernetes"


def marked_tokens(tokenizer, max_length=None):
    """The stretches of the post that a tokenizer's labels mark, and the row."""
    rows = Dataset.from_dict({"text": [POST], "keywords": [KEYWORDS]})
    with pytest.warns(UserWarning, match="1 of 6 keywords of split 'train' stand nowhere in their"):
        splits = features.tokenize_marker(DatasetDict(train=rows), tokenizer, max_length=max_length)
    row = splits["train"][0]
    found = []
    for mark, (start, end) in zip(row["labels"], row["offset_mapping"], strict=True):
        if mark == 1:
            found.append([start, end])
        elif mark == 2:
            found[-1][1] = end
    return [POST[start:stop] for start, stop in found], row


def byte_level():
    """As RoBERTa's: tokens begin with the space before them."""
    encoder = Tokenizer(models.BPE(unk_token="<unk>"))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.train_from_iterator([POST] * 9, trainers.BpeTrainer(special_tokens=["<unk>", "<pad>"]))
    return PreTrainedTokenizerFast(tokenizer_object=encoder, pad_token="<pad>", unk_token="<unk>")


def metaspace():
    """As ALBERT's and DeBERTa's: a sign for the space before a word belongs to it."""
    encoder = Tokenizer(models.Unigram())
    encoder.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<pad>"]
    trainer = trainers.UnigramTrainer(special_tokens=special, unk_token="<unk>", vocab_size=60)
    encoder.train_from_iterator([POST] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=encoder, pad_token="<pad>", unk_token="<unk>")


@pytest.mark.parametrize("make", [byte_level, metaspace, None])
def test_keywords_are_marked_wherever_they_stand_whatever_cuts_the_text(make, tokenizer):
    found, row = marked_tokens(make() if make else tokenizer)
    assert found == ["Next.js", "C++", "React", "React Native", "日本"]
    assert len(row["labels"]) == len(row["input_ids"]) == row["length"]


def test_special_tokens_have_no_mark_and_a_cut_text_keeps_those_it_has(tokenizer):
    with pytest.warns(UserWarning, match="texts in split 'train' are longer than 10 tokens"):
        found, row = marked_tokens(tokenizer, max_length=10)
    assert found == ["Next.js"]
    assert (row["labels"][0], row["labels"][-1]) == (-100, -100)


def test_a_slow_tokenizer_and_keywords_of_other_texts_are_refused(tokenizer):
    rows = DatasetDict(train=Dataset.from_dict({"text": ["Go"], "keywords": ["Rust"]}))
    with pytest.raises(ValueError, match="None of the keywords of split 'train' stands"):
        features.tokenize_marker(rows, tokenizer)


def test_streams_of_every_kind_keep_their_labels_by_name(wordwise, tmp_path):
    rows = {"text": ["is one", "is zero"], "label": [0, 1]}
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["1", "0"])})
    whole = DatasetDict(train=Dataset.from_dict(rows, features=kinds))
    stream = IterableDatasetDict(train=whole["train"].to_iterable_dataset())
    for names in (None, ["0", "1"], ["1", "0"]):
        expected, found = (labels.encode_labels(each, names=names) for each in (whole, stream))
        assert found["train"].features["label"] == expected["train"].features["label"]
        assert [row["label"] for row in found["train"]] == expected["train"]["label"][:]
    pd.DataFrame({"text": ["a", "b"], "said": ["x", "y"]}).to_csv(tmp_path / "a.csv", index=False)
    files = {"train": str(tmp_path / "a.csv")}
    read = load_dataset("csv", data_files=files, streaming=True)
    encoded = labels.encode_labels(read, "said", names=["x", "y"])
    tokens = features.tokenize(encoded, wordwise)["train"]
    assert [row["label"] for row in tokens] == [0, 1]
    assert tokens.features["label"].names == ["x", "y"]
    with pytest.raises(ValueError, match=r"Split 'train' has no column 'label'; it has: 'text'"):
        labels.encode_labels(read, names=["x", "y"])
    with pytest.raises(ValueError, match=r"Stream every split, or none: \['test'\]"):
        labels.encode_labels({**stream, "test": whole["train"]}, names=["0", "1"])
    with pytest.raises(ValueError, match=r"Split 'train' has no column 'body'"):
        features.tokenize(encoded, wordwise, "body")
