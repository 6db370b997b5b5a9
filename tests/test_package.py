import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cookbook

ROOT = Path(__file__).resolve().parent.parent


def run(code, *options, **settings):
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        **settings,
    ).stdout.strip()


def test_importing_the_package_pulls_in_nothing_heavy():
    heavy = {"torch", "transformers", "datasets", "pandas", "numpy", "sklearn", "matplotlib"}
    loaded = run("import sys, cookbook; print(*sys.modules)").split()
    assert not heavy & {name.partition(".")[0] for name in loaded}


def test_an_exported_model_is_loaded_and_answers_without_torch(exported):
    modules = "tables, words, llm, data, quality, synthesis, metrics, inference, baselines, compare"
    code = f"import sys; from cookbook import {modules}, economics, plots, offline, page, cli\n"
    code += f"print(len(inference.classify(['A title'], {str(exported.int8)!r})))\n"
    code += f"print(len(inference.extract_keywords(['A post'], {str(exported.keywords)!r})))\n"
    code += "print('torch' in sys.modules)"
    assert run(code).split() == ["1", "1", "False"]


def test_every_module_is_reached_lazily():
    for name in cookbook.__all__:
        assert getattr(cookbook, name).__name__ == f"cookbook.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cookbook.nothing
    assert set(cookbook.__all__) <= set(dir(cookbook))
    assert {"data", "inference", "training", "words"} <= set(cookbook.__all__)
    assert "runtimes" not in cookbook.__all__


@pytest.mark.parametrize("module", sorted(path.stem for path in ROOT.glob("cookbook/[a-z]*.py")))
def test_a_module_needs_no_other_to_be_imported_first(module):
    run(f"import cookbook.{module}")


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "yake", None)
    command = r'yake is missing\. Run: pip install "small-model-cookbook\[compare\]"'
    with pytest.raises(ModuleNotFoundError, match=command), cookbook.extra("compare"):
        import yake  # noqa: F401


def test_a_wheel_carries_what_it_needs_and_finds_it_without_the_clone(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    build += ["-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("/METADATA"))
        assert "License-Expression: Apache-2.0" in archive.read(metadata).decode()
        assert any(name.endswith("/licenses/LICENSE") for name in names)
        commands = next(name for name in names if name.endswith("/entry_points.txt"))
        assert "cookbook = cookbook.cli:main" in archive.read(commands).decode()
    assets = {path.name for path in (ROOT / "cookbook" / "assets").iterdir()}
    assert assets == {path.name for path in (tmp_path / "site/cookbook/assets").iterdir()}
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from cookbook import data, tables\n"
        "print(data.shipped('clickbait_titles.csv'))\n"
        "print(data.shipped('hub_dataset.ipynb'), data.shipped('many_labels.ipynb'), sep='\\n')\n"
        "print(len(tables.read(data.shipped('clickbait_challenge.csv'))) >= 150)"
    )
    *where, enough = run(code, cwd=tmp_path).splitlines()
    assert all(Path(path).is_relative_to(tmp_path / "site") for path in where)
    assert len(where) == 3  # the notebooks that `cookbook make` runs are there too
    assert enough == "True"
