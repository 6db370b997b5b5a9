"""Models that mark keywords: every way in, on torch and without it."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import transformers

from cookbook import export, features, hub, inference, page, words

LONG = "We met at noon and talked about the weather. " * 90


@pytest.fixture(scope="module")
def gold(short_posts):
    return [words.split_keywords(cell) for cell in short_posts["keywords"]]


@pytest.fixture(scope="module")
def int8(marker, tmp_path_factory):
    return export.export_onnx(marker, tmp_path_factory.mktemp("marker") / "int8")


def folded(lists):
    return [{words.fold(keyword) for keyword in each} for each in lists]


def test_what_was_learnt_is_marked_in_the_spelling_of_the_text(marker, short_posts, gold):
    found = inference.extract_keywords(short_posts["text"], marker)
    right = [a == b for a, b in zip(folded(found), folded(gold), strict=True)]
    assert sum(right) >= 20
    texts = short_posts["text"]
    assert all(word in text for text, each in zip(texts, found, strict=True) for word in each)


def test_int8_marks_the_same_and_whatever_stands_beside_a_text(int8, marker, short_posts):
    texts = short_posts["text"].tolist()
    together = inference.extract_keywords(texts, int8, scores=True)
    assert [inference.extract_keywords([text], int8, scores=True)[0] for text in texts] == together
    same = zip(inference.extract_keywords(texts, marker), together, strict=True)
    assert sum(one == [word for word, _ in other] for one, other in same) >= 20


def test_an_exported_marker_needs_no_torch(int8):
    code = (
        "import sys; from cookbook import inference;"
        f"inference.extract_keywords(['Redis 7'], {str(int8)!r});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("runtime", ["marker", "int8"])
def test_a_text_of_thousands_of_words_is_read_to_its_end(runtime, request, short_posts, gold):
    folder = request.getfixturevalue(runtime)
    post, wanted = short_posts["text"][0], gold[0]
    alone = inference.extract_keywords([post], folder)[0]
    found = inference.extract_keywords([LONG + post], folder)[0]
    assert len((LONG + post).split()) > 800
    assert folded([alone]) == folded([wanted])
    assert set(alone) <= set(found)


def test_the_threshold_of_the_configuration_is_obeyed_everywhere(
    marker, int8, short_posts, tmp_path
):
    texts = short_posts["text"].tolist()
    for number, source in enumerate((marker, int8)):
        folder = shutil.copytree(source, tmp_path / str(number))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"keyword_threshold": 0.999}))
        assert inference.extract_keywords(texts, folder) == inference.extract_keywords(
            texts, source, threshold=0.999
        )
        assert inference.extract_keywords(texts, folder) != inference.extract_keywords(
            texts, source
        )


def test_every_score_reaches_the_threshold(marker, short_posts):
    pairs = inference.extract_keywords(short_posts["text"], marker, scores=True, threshold=0.3)
    assert all(0.3 <= score <= 1 for each in pairs for _, score in each)


def test_a_file_gets_a_column_of_keywords_and_a_blank_text_none(marker, short_posts, tmp_path):
    table = pd.DataFrame({"text": [short_posts["text"][0], " "]})
    table.to_csv(tmp_path / "posts.csv", index=False)
    with pytest.warns(UserWarning, match="1 of 2 texts are blank"):
        target = inference.answer_file(tmp_path / "posts.csv", tmp_path / "out.csv", marker)
    answered = pd.read_csv(target, keep_default_na=False)
    assert words.split_keywords(answered["keywords"][0])
    assert answered["keywords"][1] == ""


def test_what_a_marker_cannot_do_is_said(marker, keyword_model, trained):
    with pytest.raises(ValueError, match="This model marks, and has no use for num_beams"):
        inference.extract_keywords(["Redis"], marker, num_beams=4)
    with pytest.raises(ValueError, match="This model writes: only one that marks has scores"):
        inference.extract_keywords(["Redis"], keyword_model, scores=True)
    with pytest.raises(ValueError, match="Wanted is a classifier; this model marks words"):
        inference.classify(["Redis"], marker)
    with pytest.raises(ValueError, match="Wanted is a marker or writer; this model classifies"):
        inference.extract_keywords(["Redis"], trained.folder)


def test_a_length_that_holds_no_text_is_refused(marker):
    with pytest.raises(ValueError, match="2 tokens leave no room"):
        inference.extract_keywords(["Redis hums"], marker, max_length=2)


class Slow:
    """A tokenizer of Python alone: it doesn't know where its tokens stand."""

    is_fast, pad_token_id, model_max_length = False, 0, 64

    def __call__(self, text):
        return {"input_ids": [1]}


def test_a_tokenizer_that_does_not_know_where_tokens_stand_is_refused(marker):
    model = transformers.AutoModelForTokenClassification.from_pretrained(marker)
    with pytest.raises(ValueError, match="Slow doesn't say where tokens stand: take a 'fast'"):
        inference.extract_keywords(["Redis"], model, Slow())


def test_labels_of_another_scheme_are_refused():
    config = {"architectures": ["BertForTokenClassification"], "id2label": {0: "NOUN", 1: "VERB"}}
    with pytest.raises(ValueError, match=r"labels O, B… and I…: .'NOUN', 'VERB'"):
        inference.kind_of(config)
    config["id2label"] = {0: "B-KEY", 1: "I-KEY", 2: "O"}  # as models of the Hub have them
    assert inference.kind_of(config) == "marker"


def test_the_card_and_the_page_know_a_marker(marker, tmp_path):
    folder = hub.stage_model(marker, "me/marker", tmp_path / "staged")
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert 'extract_keywords(["We moved our shop from Vercel to a Raspberry Pi."], "me/m' in card
    assert "marks its keywords" in json.dumps(page.build(marker).get_config_file(), default=str)


CONFIGS = {
    "albert": {"hidden_size": 32, "embedding_size": 16, "num_attention_heads": 2},
    "roberta": {"hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 66},
    "deberta-v2": {"hidden_size": 32, "num_attention_heads": 2},
    "modernbert": {"hidden_size": 32, "num_attention_heads": 2},
}


@pytest.mark.parametrize("family", CONFIGS)
def test_any_encoder_marks_whole_texts(family, tokenizer):
    small = {"intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": len(tokenizer)}
    ids = {"pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102, "cls_token_id": 101}
    config = transformers.AutoConfig.for_model(
        family, **small, **CONFIGS[family], **features.MARKS, **ids, sep_token_id=102
    )
    model = transformers.AutoModelForTokenClassification.from_config(config)
    everything = inference.extract_keywords(
        [LONG + "Redis"], model, tokenizer, threshold=0.01, max_length=64
    )
    assert everything[0][-1].endswith("Redis")
