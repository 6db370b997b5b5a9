import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
import transformers
from transformers import AutoTokenizer, set_seed

from cookbook import data, export, inference, metrics

NAMES = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
SMALL: dict = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.3}
BART: dict = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.3}
BART |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "bos_token_id": 101}
BART |= {"pad_token_id": 0, "eos_token_id": 102, "decoder_start_token_id": 101}
TEXTS = ["One", "Two of them, or three", "word " * 100]


def small(kind, tokenizer, **settings):
    """A model of random weights."""
    set_seed(0)
    network = getattr(transformers, kind)
    return network(network.config_class(vocab_size=len(tokenizer), **settings)).eval()


def without_torch(code, *arguments):
    """Run code where neither torch nor transformers can be imported; return what it prints."""
    block = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; "
    run = subprocess.run(
        [sys.executable, "-c", block + code, *map(str, arguments)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_an_exported_classifier_answers_as_the_model_it_was(trained, exported):
    texts = [*trained.test["text"], "日本語の見出し", "word " * 2_000]
    plain = inference.classify(texts, trained.folder)
    found = inference.classify(texts, exported.exact)
    assert found["label"].tolist() == plain["label"].tolist()
    assert np.allclose(found[trained.names], plain[trained.names], atol=1e-4)


def test_eight_bits_cost_next_to_no_accuracy_and_a_quarter_of_the_size(exported, titles):
    rows = titles.groupby("label").tail(200)
    right = {}
    for name, folder in {"fp32": exported.exact, "int8": exported.int8}.items():
        answers = inference.classify(rows["text"], folder)
        right[name] = (answers["label"].to_numpy() == rows["label"].to_numpy()).mean()
    assert right["fp32"] > 0.85
    assert right["int8"] > right["fp32"] - 0.01
    size = {f: (f / "model.onnx").stat().st_size for f in (exported.exact, exported.int8)}
    assert size[exported.int8] < 0.3 * size[exported.exact]


ENCODERS = {
    "DistilBert": {
        **{"dim": 32, "n_heads": 2, "n_layers": 1, "hidden_dim": 64},
        "problem_type": "multi_label_classification",
    },
    # It counts places from behind the pad token on, so one less than there are is of use.
    "Roberta": {**SMALL, "pad_token_id": 0},
    "Bart": BART,
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_of_other_kinds_answer_as_before(kind, tokenizer, tmp_path):
    settings = {**ENCODERS[kind], **NAMES}
    model = small(f"{kind}ForSequenceClassification", tokenizer, **settings)
    plain = inference.classify(TEXTS, model, tokenizer)
    folder = export.export_onnx(model, tmp_path / "exported", tokenizer, int8=False)
    found = inference.classify(TEXTS, folder)
    assert np.allclose(found[["bad", "good"]], plain[["bad", "good"]], atol=1e-4)
    assert inference.kind_of(json.loads((folder / "config.json").read_text())) == "classifier"
    alone = [inference.classify([text], folder)["good"][0] for text in TEXTS]
    assert np.allclose(found["good"], alone, atol=1e-4)


def test_an_albert_is_quantised_and_its_layers_still_share_their_weights(
    tokenizer, tmp_path, capsys
):
    # Large enough that torch's exporter doesn't turn the weights itself.
    settings = {**SMALL, "hidden_size": 128, "intermediate_size": 256, "embedding_size": 16}
    settings |= {"num_hidden_layers": 3, "initializer_range": 0.1, **NAMES}
    model = small("AlbertForSequenceClassification", tokenizer, **settings)
    folder = export.export_onnx(model, tmp_path / "int8", tokenizer)
    assert "21 of 21 products with weights (100%)" in capsys.readouterr().out
    graph = onnx.load(folder / "model.onnx").graph
    weights = [np.prod(weight.dims) for weight in graph.initializer if len(weight.dims) == 2]
    assert sum(weights) < 1.05 * model.num_parameters()
    assert (folder / "model.onnx").stat().st_size < 1.3 * model.num_parameters() + 300_000
    plain = inference.classify(TEXTS, model, tokenizer)["good"]
    assert np.allclose(inference.classify(TEXTS, folder)["good"], plain, atol=0.1)


def test_few_products_in_int8_are_warned_of(tokenizer, tmp_path, monkeypatch):
    model = small("BertForSequenceClassification", tokenizer, **SMALL, **NAMES)
    from onnxruntime import quantization

    plain = quantization.quantize_dynamic
    monkeypatch.setattr(
        quantization,
        "quantize_dynamic",
        lambda *files, **options: plain(*files, **options, op_types_to_quantize=["Gather"]),
    )
    with pytest.warns(UserWarning, match=r"0 of 8 products .*hardly faster"):
        export.export_onnx(model, tmp_path / "exported", tokenizer)


def test_what_is_cut_and_where_is_kept(minilm, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(minilm, model_max_length=12)
    tokenizer.truncation_side = "left"
    model = small("BertForSequenceClassification", tokenizer, **SMALL, **NAMES)
    texts = ["the beginning of a text which is longer than twelve tokens to its very end", "Short"]
    plain = inference.classify(texts, model, tokenizer)["good"]
    # As left behind by a call; it isn't what the export is to do.
    tokenizer(texts, padding="max_length", max_length=30, truncation=True)
    folder = export.export_onnx(model, tmp_path / "exported", tokenizer, int8=False)
    assert np.allclose(inference.classify(texts, folder)["good"], plain, atol=1e-4)
    shorter = inference.classify(texts, folder, max_length=6)["good"]
    assert np.allclose(shorter, inference.classify(texts, model, tokenizer, max_length=6)["good"])
    again = AutoTokenizer.from_pretrained(folder)
    assert (again.model_max_length, again.truncation_side) == (12, "left")


def test_an_exported_classifier_needs_no_torch(exported, trained):
    texts = trained.test["text"].tolist()[:5]
    code = (
        "from cookbook import inference; import json;"
        "print(json.dumps(inference.classify(sys.argv[2:], sys.argv[1])['label'].tolist()))"
    )
    answers = json.loads(without_torch(code, exported.int8, *texts))
    assert answers == inference.classify(texts, exported.int8)["label"].tolist()


def test_exported_keywords_are_those_of_the_model_and_need_no_torch(
    exported, keyword_model, short_posts
):
    texts = short_posts["text"].tolist()
    gold = [data.split_keywords(cell) for cell in short_posts["keywords"]]
    code = (
        "from cookbook import inference; import json;"
        "print(json.dumps(inference.extract_keywords(sys.argv[2:], sys.argv[1])))"
    )
    found = json.loads(without_torch(code, exported.keywords, *texts))
    plain = inference.extract_keywords(texts, keyword_model)
    f1 = [metrics.keyphrase_metrics(texts, kept, gold)["f1@M"] for kept in (found, plain)]
    assert f1[0] > f1[1] - 0.05
    long = inference.extract_keywords(["", "x" * 10_000, "word " * 2000], exported.keywords)
    assert long[0] == []
    config = json.loads((exported.keywords / "config.json").read_text())
    assert inference.kind_of(config) == "writer"


@pytest.mark.parametrize("missing", ["decoder_start_token_id", "eos_token_id", "pad_token_id"])
def test_token_ids_may_stand_in_either_configuration(missing, tokenizer, tmp_path):
    model = small("BartForConditionalGeneration", tokenizer, **BART)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        setattr(model.generation_config, name, getattr(model.config, name))
    setattr(model.config, missing, None)
    folder = export.export_ctranslate2(model, tmp_path / "exported", tokenizer)
    ask = {"present_only": False, "max_decoding_length": 5}
    assert len(inference.extract_keywords(TEXTS, folder, **ask)) == len(TEXTS)
    setattr(model.generation_config, missing, None)
    with pytest.raises(ValueError, match=f"has {missing}"):
        export.export_ctranslate2(model, tmp_path / "refused", tokenizer)


def test_a_beginning_that_is_known_nowhere_is_where_decoding_starts(tokenizer, tmp_path):
    """As a Trainer of transformers 5.16 leaves it where the tokenizer has none."""
    model = small("BartForConditionalGeneration", tokenizer, **BART)
    whole = export.export_ctranslate2(model, tmp_path / "whole", tokenizer)
    model.config.bos_token_id = model.generation_config.bos_token_id = None
    found = export.export_ctranslate2(model, tmp_path / "found", tokenizer)
    assert (found / "config.json").read_text() == (whole / "config.json").read_text()


def test_what_can_not_be_exported_is_said(exported, tokenizer, tmp_path):
    writer = small("BartForConditionalGeneration", tokenizer, **BART)
    classifier = small("BertForSequenceClassification", tokenizer, **SMALL, **NAMES)
    target = tmp_path / "exported"
    with pytest.raises(ValueError, match="Wanted is a classifier"):
        export.export_onnx(writer, target, tokenizer)
    with pytest.raises(ValueError, match="Wanted is a writer"):
        export.export_ctranslate2(classifier, target, tokenizer)
    with pytest.raises(ValueError, match="exported already"):
        export.export_onnx(exported.int8, target)
    letters = transformers.ByT5Tokenizer()  # reads bytes; it has no tokenizer.json
    with pytest.raises(ValueError, match=r"ByT5Tokenizer has no tokenizer\.json"):
        export.export_onnx(classifier, target, letters)
    with pytest.raises(FileNotFoundError, match="no model"):
        export.export_onnx(tmp_path / "modle", target)
    assert not target.exists()


def test_an_export_leaves_model_and_folder_as_they_were(tokenizer, tmp_path):
    model = small("BertForSequenceClassification", tokenizer, **SMALL, **NAMES).bfloat16()
    before = model.config.to_dict()
    export.export_onnx(model, tmp_path / "onnx", tokenizer, int8=False)
    assert (model.dtype, model.config.to_dict()) == (torch.bfloat16, before)
    writer = small("BartForConditionalGeneration", tokenizer, **BART)
    before = writer.config.to_dict()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("Not to be lost")
    export.export_ctranslate2(writer, tmp_path / "mine", tokenizer)
    assert writer.config.to_dict() == before
    assert (tmp_path / "mine" / "notes.txt").read_text() == "Not to be lost"
    assert (tmp_path / "mine" / "model.bin").is_file()
