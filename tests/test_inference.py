import json
import shutil
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
    set_seed,
)

from cookbook import data, inference, metrics, offline

WORDS = [
    "the",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "council",
    "approves",
    "budget",
    "one",
    "trick",
    "will",
    "change",
    "how",
    "you",
    "cook",
]
TEXTS = ["the cat sat on the mat", "one trick will change how you cook", "council approves"]
SMALL: dict = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32, "initializer_range": 0.5}
NAMES = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
BART: dict = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
BART |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}


def word_tokenizer(template="[CLS] $A [SEP]", **settings):
    """A tokenizer of whole words."""
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    ids = {token: number for number, token in enumerate([*known, *WORDS])}
    made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if template:
        used = [(token, ids[token]) for token in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    named |= {"sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **{**named, **settings})


def saved(folder, kind, tokenizer=None, **settings):
    """A folder with a small model of random weights."""
    set_seed(0)
    network = getattr(transformers, kind)
    tokenizer = tokenizer or word_tokenizer()
    config = network.config_class(vocab_size=len(tokenizer), **settings)
    network(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def bert(tmp_path):
    return saved(tmp_path / "bert", "BertForSequenceClassification", **SMALL, **NAMES)


def edited(folder, name, **changes):
    known = json.loads((folder / name).read_text("utf-8"))
    (folder / name).write_text(json.dumps(known | changes), "utf-8")


def test_the_answers_are_those_of_the_plain_pipeline(trained):
    texts = trained.test["text"].tolist()
    found = inference.classify(texts, trained.folder)
    plain = pipeline("text-classification", model=str(trained.folder), top_k=None)(texts)
    assert found["text"].tolist() == texts
    for row, answer in zip(found.itertuples(), plain, strict=True):
        assert row.label == answer[0]["label"]
        assert row.score == pytest.approx(answer[0]["score"], abs=1e-4)
    assert np.allclose(found[trained.names].sum(axis=1), 1)


def test_odd_texts_get_an_answer_and_blank_ones_none(trained):
    texts = ["🤯" * 50, "日本語の見出し", "عنوان الخبر", "x" * 10_000, "word " * 2_000]
    with pytest.warns(UserWarning, match="2 of 7 texts are blank"):
        found = inference.classify(["", *texts, " \n"], trained.folder)
    assert found["score"][1:6].between(0.5, 1).all()
    assert found.loc[[0, 6], ["label", "score", *trained.names]].isna().all(axis=None)


def test_no_texts_no_answers(trained):
    assert inference.classify([], trained.folder).empty


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], "Text 1 is None"),
        (["a", float("nan")], "Text 1 is nan"),
        ("My title", "put 'My title' into a list"),
    ],
)
def test_what_is_no_text_is_named(texts, message, exported):
    with pytest.raises(ValueError, match=message):
        inference.classify(texts, exported.int8)
    with pytest.raises(ValueError, match=message):
        inference.extract_keywords(texts, exported.keywords)


def test_a_model_in_memory_needs_its_tokenizer_and_keeps_its_mode(trained):
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder).train()
    with pytest.raises(ValueError, match="Pass the tokenizer"):
        inference.classify(["a"], model)
    inference.classify(["a"], model, AutoTokenizer.from_pretrained(trained.folder))
    assert model.training


def test_what_is_loaded_once_answers_many_times(exported, bert, monkeypatch):
    for folder, ask in {
        exported.int8: inference.classify,
        bert: inference.classify,
        exported.keywords: inference.extract_keywords,
    }.items():
        loaded = inference.load(folder)
        assert inference.load(loaded) is loaded
        alone = ask(TEXTS, folder)
        again = ask(TEXTS, loaded)
        assert again.equals(alone) if isinstance(alone, pd.DataFrame) else again == alone
    # An exported model is kept as long as its files stay what they are.
    assert inference.load(exported.int8) is inference.load(str(exported.int8))


def test_the_surest_mistakes_come_first():
    answers = pd.DataFrame(
        {"text": list("abc"), "label": ["x", "x", "x"], "score": [0.7, 0.9, 0.99]}
    )
    table = inference.worst_mistakes(answers, ["y", "y", "x"])
    assert table["text"].tolist() == ["b", "a"]
    assert table.iloc[0].to_dict() == {"text": "b", "label": "y", "predicted": "x", "score": 0.9}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"architectures": ["BertForSequenceClassification"]}, "classifier"),
        (
            {"architectures": ["BartForSequenceClassification"], "is_encoder_decoder": True},
            "classifier",
        ),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "writer"),
        ({"architectures": ["MarianMTModel"], "is_encoder_decoder": True}, "writer"),
    ],
)
def test_what_a_model_is_stands_in_its_configuration(config, kind):
    assert inference.kind_of(config) == kind


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["BertModel"]}, "BertModel.* no head"),
        ({"architectures": ["GPT2LMHeadModel"]}, "no head"),
        ({"architectures": ["BartModel"], "is_encoder_decoder": True}, "no head"),
        ({"is_encoder_decoder": True}, "no head"),
        ({"problem_type": "regression"}, "is a regression"),
        ({"id2label": {}}, "no labels"),
        ({"id2label": {"0": "a", "2": "b"}}, "lacks one"),
        ({"id2label": {"0": "a", "1": "a"}}, "one twice"),
    ],
)
def test_what_can_not_answer_is_said(config, message):
    config = {"architectures": ["BertForSequenceClassification"]} | config
    if "is_encoder_decoder" in config and "Bert" in config["architectures"][0]:
        del config["architectures"]
    with pytest.raises(ValueError, match=message):
        inference.kind_of(config)


@pytest.mark.parametrize(
    "ask", [inference.classify, inference.extract_keywords, lambda _, model: inference.load(model)]
)
def test_every_entrance_refuses_what_is_no_whole_model(ask, bert, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model in .*modle"):
        ask(TEXTS, tmp_path / "modle")
    with pytest.raises(FileNotFoundError, match="no folder 'someone/modle'"):
        ask(TEXTS, "someone/modle")
    with pytest.raises(FileNotFoundError, match=r"no config\.json.*mean .*bert"):
        ask(TEXTS, tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"adapter.*Merge it"):
        ask(TEXTS, tmp_path / "adapter")
    base = saved(tmp_path / "base", "BertModel", **SMALL)
    with pytest.raises(ValueError, match="no head"):
        ask(TEXTS, base)
    edited(base, "config.json", architectures=["BertForSequenceClassification"])
    with pytest.raises(ValueError, match=r"lack .*classifier\.weight"):
        ask(TEXTS, base)
    for path in bert.glob("*token*"):
        path.unlink()
    with pytest.raises(ValueError, match="tokenizer"):
        ask(TEXTS, bert)


def test_a_writer_does_not_classify_nor_a_classifier_write(exported, bert):
    with pytest.raises(ValueError, match="Wanted is a classifier; this model writes"):
        inference.classify(TEXTS, exported.keywords)
    for classifier in (exported.int8, bert):
        with pytest.raises(ValueError, match="Wanted is a marker or writer; this model classifies"):
            inference.extract_keywords(TEXTS, classifier)
    with pytest.raises(ValueError, match="dtype='halved' is none"):
        inference.classify(["A"], bert, dtype="halved")


MODELS = {
    "BERT that pads at the left": (
        "BertForSequenceClassification",
        {"padding_side": "left"},
        {**SMALL, "max_position_embeddings": 64},
    ),
    "GPT-2 without a pad token in its configuration": (
        "GPT2ForSequenceClassification",
        {"template": None},
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.5, "pad_token_id": None},
    ),
    "XLNet, which reads the last place": (
        "XLNetForSequenceClassification",
        {"template": "$A [SEP] [CLS]", "padding_side": "left"},
        {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 32, "initializer_range": 0.5},
    ),
    "BART that classifies": (
        "BartForSequenceClassification",
        {},
        {**BART, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_what_else_is_asked_does_not_change_an_answer(case, tmp_path):
    kind, tokens, settings = MODELS[case]
    tokenizer = word_tokenizer(**tokens)
    folder = saved(tmp_path / "model", kind, tokenizer, **settings, **NAMES)
    together = inference.classify(TEXTS, folder)["good"]
    alone = [inference.classify([text], folder)["good"][0] for text in TEXTS]
    network = getattr(transformers, kind).from_pretrained(folder).eval()
    with torch.no_grad():
        logits = [network(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS]
    plain = [each.softmax(-1)[0, 1].item() for each in logits]
    assert np.allclose(together, alone, atol=1e-4)
    assert np.allclose(together, plain, atol=1e-4)


def test_large_batches_hold_every_text_once_and_not_too_many_tokens(bert):
    texts = [*TEXTS * 200, *[" ".join(WORDS * (10 + i % 30)) for i in range(100)]]
    loaded = inference.load(bert)
    expected = inference.classify(texts, loaded)["good"]
    loaded.runtime.size, loaded.runtime.tokens = 512, 2**15  # as on a GPU
    masks = []
    loaded.runtime.network.register_forward_pre_hook(
        lambda _, __, batch: masks.append(batch["attention_mask"]), with_kwargs=True
    )
    found = inference.classify(texts, loaded)["good"]
    assert np.allclose(found, expected, atol=1e-4)
    assert sum(map(len, masks)) == len(texts)
    assert max(map(len, masks)) == 512
    assert max(mask.numel() for mask in masks) <= 2**15
    lengths = [length for mask in masks for length in mask.sum(dim=1).tolist()]
    assert lengths == sorted(map(len, loaded.runtime.encode(texts)))
    # Who asks for a size gets it, however long the texts are.
    masks.clear()
    inference.classify(texts[-100:], loaded, batch_size=100)
    assert [len(mask) for mask in masks] == [100]


def test_cudnn_s_attention_is_off_while_a_model_answers_and_no_longer(bert):
    loaded, seen = inference.load(bert), []
    loaded.runtime.network.register_forward_pre_hook(
        lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled())
    )
    before = torch.backends.cuda.cudnn_sdp_enabled()
    for enabled in (False, True):
        torch.backends.cuda.enable_cudnn_sdp(enabled)
        inference.classify(TEXTS, loaded)
        assert torch.backends.cuda.cudnn_sdp_enabled() == enabled
    torch.backends.cuda.enable_cudnn_sdp(before)
    assert seen == [False, False]


def test_a_tokenizer_without_a_pad_token_is_refused(tmp_path):
    tokenizer = word_tokenizer(template=None, pad_token=None)
    settings = {"n_embd": 32, "n_layer": 1, "n_head": 2, "pad_token_id": None, **NAMES}
    folder = saved(tmp_path / "model", "GPT2ForSequenceClassification", tokenizer, **settings)
    with pytest.raises(ValueError, match=r"set tokenizer\.pad_token"):
        inference.classify(TEXTS, folder)


def test_a_text_is_cut_to_the_places_that_there_are(tmp_path):
    settings = {**SMALL, "max_position_embeddings": 20, "pad_token_id": 1}
    folder = saved(tmp_path / "model", "RobertaForSequenceClassification", **settings, **NAMES)
    texts = [" ".join(WORDS * 3), *TEXTS]
    found = inference.classify(texts, folder)["good"]  # two of the places are never used
    assert np.allclose(found, inference.classify(texts, folder, max_length=18)["good"], atol=1e-5)
    assert np.allclose(found, inference.classify(texts, folder, max_length=900)["good"], atol=1e-5)


def test_label_names_may_be_numbers(bert, numbers_for_names):
    edited(bert, "config.json", id2label={"0": 1, "1": 2}, label2id={"1": 0, "2": 1})
    found = inference.classify(TEXTS, bert)
    assert set(found["label"]) <= {"1", "2"}
    assert list(found.columns) == ["text", "label", "score", "1", "2"]


def test_label_names_may_be_called_like_a_column(bert):
    texts = {"text": TEXTS, "row": [1, 2, 3]}
    edited(bert, "config.json", id2label={"0": "score", "1": "text"})
    found = inference.classify(TEXTS, bert)
    assert list(found.columns)[3:] == ["score_predicted", "text_predicted"]
    assert np.allclose(found["score_predicted"] + found["text_predicted"], 1)
    (answered,) = inference.answer_chunks([pd.DataFrame(texts)], bert)
    assert answered["text"].tolist() == TEXTS
    assert answered["score"].between(0.5, 1).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"problem_type": "multi_label_classification", "id2label": {0: "a", 1: "b", 2: "c"}},
        {"num_labels": 1},
        {"num_labels": 2},  # called LABEL_0 and LABEL_1
    ],
)
def test_other_kinds_of_classifier_answer_as_their_pipeline_does(settings, tmp_path):
    folder = saved(tmp_path / "model", "BertForSequenceClassification", **SMALL, **settings)
    plain = pipeline("text-classification", model=str(folder), top_k=None)(TEXTS)
    found = inference.classify(TEXTS, folder)
    for row, answers in zip(found.to_dict("records"), plain, strict=True):
        for answer in answers:
            assert row[answer["label"]] == pytest.approx(answer["score"], abs=1e-4)


def test_whatever_is_written_only_what_stands_in_the_text_stays(tokenizer):
    texts = ["", "   ", "We moved from Redis to PostgreSQL", "🤯" * 50, "日本語の見出し"]
    texts += ["عنوان الخبر", "word " * 2_000, "x" * 10_000]
    set_seed(0)
    untrained = offline.warm_start_bart()  # what it writes is nonsense, which is the hard case
    for present_only in (True, False):
        found = inference.extract_keywords(
            texts, untrained, tokenizer, present_only=present_only, max_new_tokens=20
        )
        assert len(found) == len(texts)
        assert found[0] == found[1] == []
        for keywords, text in zip(found, texts, strict=True):
            assert len({keyword.casefold() for keyword in keywords}) == len(keywords) <= 20
            assert not present_only or all(keyword in text for keyword in keywords)


def test_a_fine_tuned_model_writes_the_keywords_that_it_learnt(keyword_model, short_posts):
    found = inference.extract_keywords(short_posts["text"], keyword_model)
    gold = [data.split_keywords(cell) for cell in short_posts["keywords"]]
    assert metrics.keyphrase_metrics(short_posts["text"], found, gold)["f1@M"] > 0.6
    for keywords, text in zip(found, short_posts["text"], strict=True):
        assert all(keyword in text for keyword in keywords)  # in the text's own spelling


def test_batches_give_the_keywords_of_one_text_at_a_time(keyword_model, short_posts):
    texts = short_posts["text"][:12]
    loaded, options = inference.load(keyword_model), {"present_only": False}
    together = inference.extract_keywords(texts, loaded, batch_size=8, **options)
    alone = [inference.extract_keywords([text], loaded, **options)[0] for text in texts]
    assert together == alone
    assert sum(map(bool, together)) > 6
    assert inference.extract_keywords([], loaded) == []


def test_plain_generate_of_the_saved_model_stops(keyword_model, tokenizer):
    model = AutoModelForSeq2SeqLM.from_pretrained(keyword_model)
    batch = tokenizer("word " * 200, return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**batch).shape[1] <= 40


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_file_is_answered_row_by_row_whatever_else_it_holds(ending, exported, trained, tmp_path):
    rows = trained.test[["text", "label"]].head(20).reset_index(drop=True)
    rows["id"] = [f"{i:03}" for i in range(len(rows))]
    rows.loc[3, "text"] = 'two\nlines, "quotes"\r and commas'
    source = tmp_path / "titles.PARQUET"
    rows.to_parquet(source, index=False)
    target = tmp_path / f"answers.{ending}"
    inference.answer_file(source, target, exported.exact, chunk_rows=7)
    if ending == "parquet":
        answers = pd.read_parquet(target)
    elif ending == "csv":
        answers = pd.read_csv(target, dtype={"id": str})
    else:
        answers = pd.read_json(target, lines=True, dtype={"id": str})
    assert answers[["text", "label", "id"]].to_dict() == rows.to_dict()
    alone = inference.classify(rows["text"], exported.exact)
    assert answers["label_predicted"].tolist() == alone["label"].tolist()
    assert np.allclose(answers["score"], alone["score"], atol=1e-5)
    assert not [*tmp_path.glob("*.parts")]


def test_rows_without_a_text_get_no_answer(exported, tmp_path):
    source = tmp_path / "posts.csv"
    source.write_text('post;id\nWe moved to Redis;1\n;2\n"  ";3\n\nGo, Rust;4\n', "utf-8-sig")
    for model, column in {exported.keywords: "keywords", exported.int8: "label"}.items():
        target = tmp_path / f"{column}.parquet"
        with pytest.warns(UserWarning, match="3 of 5 texts are blank"):
            inference.answer_file(source, target, model, text="post", chunk_rows=2)
        answers = pd.read_parquet(target)
        assert answers["id"].tolist() == ["1", "2", "3", "", "4"]
        assert answers["post"][4] == "Go, Rust"
        assert answers[column].isna().tolist() == [False, True, True, True, False]


def test_keywords_of_a_file_are_joined(exported, short_posts, tmp_path):
    source = tmp_path / "posts.csv"
    short_posts[["text"]].to_csv(source, index=False)
    target = inference.answer_file(source, tmp_path / "out.csv", exported.keywords)
    answers = pd.read_csv(target, keep_default_na=False)
    alone = inference.extract_keywords(short_posts["text"], exported.keywords)
    assert [data.split_keywords(cell) for cell in answers["keywords"]] == alone


def dying(pieces):
    """The `predict` of models, which stops after so many pieces; and what it was asked."""
    asked, predict = [], inference.Model.predict

    def answer(self, texts, *rest, **options):
        if len(asked) == pieces:
            raise KeyboardInterrupt
        asked.append(list(texts))
        return predict(self, texts, *rest, **options)

    return asked, answer


def test_a_file_goes_on_where_it_was_killed(exported, trained, tmp_path, monkeypatch):
    source, target = tmp_path / "titles.csv", tmp_path / "answers.csv"
    trained.test[["text"]].to_csv(source, index=False)
    texts = trained.test["text"].tolist()
    asked, answer = dying(3)
    monkeypatch.setattr(inference.Model, "predict", answer)
    with pytest.raises(KeyboardInterrupt):
        inference.answer_file(source, target, exported.int8, chunk_rows=10)
    assert not target.exists()
    monkeypatch.undo()
    asked, answer = dying(1000)
    monkeypatch.setattr(inference.Model, "predict", answer)
    inference.answer_file(source, target, exported.int8, chunk_rows=10)
    assert [text for piece in asked for text in piece] == texts[30:]
    assert pd.read_csv(target)["text"].tolist() == texts
    assert not [*tmp_path.glob("*.parts")]


@pytest.mark.parametrize("change", ["weights", "labels", "options", "source"])
def test_answers_of_two_runs_are_never_mixed(change, bert, tmp_path, monkeypatch):
    source, target = tmp_path / "titles.csv", tmp_path / "answers.csv"
    pd.DataFrame({"text": TEXTS}).to_csv(source, index=False)
    _, answer = dying(1)
    monkeypatch.setattr(inference.Model, "predict", answer)
    with pytest.raises(KeyboardInterrupt):
        inference.answer_file(source, target, bert, chunk_rows=1)
    monkeypatch.undo()
    options, texts = {}, TEXTS
    if change == "weights":  # an older checkpoint, moved there
        other = AutoModelForSequenceClassification.from_pretrained(bert)
        other.classifier.bias.data += torch.tensor([9.0, -9.0])
        other.save_pretrained(bert)
    elif change == "labels":
        edited(bert, "config.json", id2label={"0": "worse", "1": "better"})
    elif change == "options":
        options = {"max_length": 3}
    else:
        texts = ["on the mat", *TEXTS[1:]]
        pd.DataFrame({"text": texts}).to_csv(source, index=False)
    with pytest.warns(UserWarning, match="is of another run"):
        inference.answer_file(source, target, bert, chunk_rows=1, **options)
    answers, alone = pd.read_csv(target), inference.classify(texts, bert, **options)
    assert answers["label"].tolist() == alone["label"].tolist()
    assert np.allclose(answers["score"], alone["score"], atol=1e-5)
    assert len([*tmp_path.glob("*.parts")]) == 1  # that of the run which can still go on


def test_identity_is_of_what_shapes_the_answers(bert, tmp_path):
    copied = shutil.copytree(bert, tmp_path / "copied")
    (copied / "README.md").write_text("A card")
    identity = inference.load(bert).identity
    assert inference.load(copied).identity == identity
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    assert inference.load(model, tokenizer).identity == identity
    assert inference.load(bert, max_length=5).identity != identity
    model.classifier.bias.data[0] += 1e-3
    assert inference.load(model, tokenizer).identity != identity


def test_of_two_runs_at_once_the_second_is_told(bert, tmp_path):
    source, target = tmp_path / "titles.csv", tmp_path / "answers.csv"
    pd.DataFrame({"text": TEXTS}).to_csv(source, index=False)
    reached, go_on = threading.Event(), threading.Event()
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model.register_forward_hook(lambda *_: reached.set() or (go_on.wait(60) and None))
    first = threading.Thread(target=inference.answer_file, args=(source, target, model, tokenizer))
    first.start()
    assert reached.wait(60)
    with pytest.raises(RuntimeError, match="Another run is writing"):
        inference.answer_file(source, target, bert)
    go_on.set()
    first.join(60)
    assert pd.read_csv(target)["text"].tolist() == TEXTS


def test_a_stream_is_read_no_further_than_it_is_asked_for(exported):
    drawn = []

    def chunks():
        for number in range(1000):
            drawn.append(number)
            yield pd.DataFrame({"text": [f"Title {number}", None]}, index=[5, 9])

    stream = inference.answer_chunks(chunks(), exported.int8)
    answers = [next(stream), next(stream)]
    assert drawn == [0, 1]
    assert [len(answer) for answer in answers] == [2, 2]
    assert answers[1]["text"].tolist()[0] == "Title 1"
    assert answers[1]["label"].isna().tolist() == [False, True]
    assert answers[1].index.tolist() == [5, 9]


def test_a_stream_of_something_else_than_texts_is_refused(exported):
    for cell in (b"bytes", 7, ["list"]):
        with pytest.raises(ValueError, match=r"Row 1, 'text': .* is no text"):
            list(inference.answer_chunks([pd.DataFrame({"text": ["A", cell]})], exported.int8))


def test_a_file_without_the_column_or_of_another_kind_is_named(exported, tmp_path):
    source, target = tmp_path / "titles.csv", tmp_path / "out.csv"
    pd.DataFrame({"headline": ["A"]}).to_csv(source, index=False)
    with pytest.raises(ValueError, match="no column 'text'; it has: 'headline'"):
        inference.answer_file(source, target, exported.int8)
    with pytest.raises(ValueError, match=r"out\.xlsx ends in none of"):
        inference.answer_file(source, tmp_path / "out.xlsx", exported.int8)
    with pytest.raises(ValueError, match="is the source itself"):
        inference.answer_file(source, source, exported.int8, text="headline")
    # The mistake put right, the same target will do.
    assert inference.answer_file(source, target, exported.int8, text="headline")
    assert pd.read_csv(target)["label"].isin(["clickbait", "factual"]).all()


def test_columns_of_one_name_are_refused_before_the_work(exported, tmp_path, monkeypatch):
    source = tmp_path / "joined.parquet"
    pq.write_table(pa.table([["A"], ["x"], ["y"]], names=["text", "channel", "channel"]), source)
    monkeypatch.setattr(inference.Model, "predict", lambda *_: pytest.fail("worked"))
    with pytest.raises(ValueError, match="'channel'"):
        inference.answer_file(source, tmp_path / "out.csv", exported.int8)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_odd_cells_come_out_as_they_went_in(ending, exported, tmp_path):
    rows = pd.DataFrame(
        {
            "text": pd.Series(["A carriage\rreturn", pd.NA, "Third"], dtype="string"),
            "id": pd.Series([9007199254740993, pd.NA, 3], dtype="Int64"),
            "vector": [list(range(2000))] * 3,
            "label": ["x", "y", "z"],
            "label_predicted": ["u", "v", "w"],
        }
    ).set_index(pd.Index([5, 9, 7], name="row"))
    source, target = tmp_path / "source.parquet", tmp_path / f"answers.{ending}"
    rows.to_parquet(source)
    with pytest.warns(UserWarning, match="1 of 3 texts are blank"):
        inference.answer_file(source, target, exported.int8, chunk_rows=2)
    if ending == "csv":
        answers = pd.read_csv(target, dtype=str, keep_default_na=False)
        assert answers["id"].tolist() == ["9007199254740993", "", "3"]
        assert answers["row"].tolist() == ["5", "9", "7"]
        assert answers["text"].tolist() == ["A carriage\rreturn", "", "Third"]
        assert json.loads(answers["vector"][0]) == list(range(2000))
    else:
        answers = pd.read_parquet(target)
        assert pq.read_table(target)["id"].to_pylist() == [9007199254740993, None, 3]
    assert answers["label"].tolist() == ["x", "y", "z"]
    assert set(answers["label_predicted_predicted"].dropna()) <= {"clickbait", "factual", ""}
