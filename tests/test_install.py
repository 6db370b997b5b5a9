"""What pip would do in Colab: it brings what is missing, and leaves what is there."""

import json
import os
import re
import subprocess
import sys
import venv
from importlib.metadata import requires
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LIST = (ROOT / "constraints-colab.txt").read_text("utf-8")
COLAB = {canonicalize_name(n): v for n, v in re.findall(r"(?m)^([\w.-]+)==(\S+)$", LIST)}


def pip(command, python=sys.executable, folder=None):
    """Run a line of pip in a shell, as %pip does, for an environment."""
    line = f"{sys.executable} -m pip --python {python} {command}"
    return subprocess.run(line, shell=True, capture_output=True, text=True, cwd=folder)


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A Python that takes Colab's packages for installed: names and versions, nothing inside."""
    folder = tmp_path_factory.mktemp("colab")
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for name, version in {**COLAB, "torch": "2.11.0+cu128"}.items():
        about = site / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (about / "METADATA").write_text(text, "utf-8")
    return folder / "bin" / "python"


@pytest.mark.slow
def test_the_install_cell_replaces_nothing_that_colab_has(colab, tmp_path):
    if pip("install --dry-run --ignore-installed --no-deps --retries 0 yake").returncode:
        pytest.skip("pip reaches no index of packages")
    built = pip(f"wheel --no-deps --no-build-isolation -w {tmp_path} {ROOT}")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    notebook = nbformat.read(ROOT / "notebooks" / "clickbait" / "3_compare_and_deploy.ipynb", 4)
    (cell,) = (c.source for c in notebook.cells if "install" in c.metadata.get("tags", []))
    cell = re.sub(r"git\+[^\"]+", wheel.as_uri(), cell)
    cell = cell.replace("install -q", "install -q --dry-run --report plan.json")
    for command in re.findall(r"%pip (.+)", cell):
        done = pip(command, colab, tmp_path)
        assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "plan.json").read_text("utf-8"))["install"]
    planned = {canonicalize_name(one["metadata"]["name"]) for one in plan}
    assert {"small-model-cookbook", "cleanlab", "onnx", "yake"} <= planned
    assert sorted(planned & COLAB.keys()) == []


@pytest.mark.slow
def test_clean_environment_a_wheel_makes_a_model(titles, tmp_path):
    if pip("install --dry-run --ignore-installed --no-deps --retries 0 yake").returncode:
        pytest.skip("pip reaches no index of packages")
    built = pip(f"wheel --no-deps --no-build-isolation -w {tmp_path} {ROOT}")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    limits = f"--no-compile -c {ROOT / 'constraints.txt'}"
    done = pip(f"install -q {limits} '{wheel}[run,deploy,offline]'", python)
    assert done.returncode == 0, done.stderr
    home = tmp_path / "home"
    home.mkdir()
    titles.head(100)[["text", "label"]].to_csv(home / "mine.csv", index=False)
    task = 'name = "bait"\ntexts = "mine.csv"\nbase_model = "minilm"\nepochs = 1\n'
    (home / "task.toml").write_text(task)
    where = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    copy = [python.with_name("cookbook"), "notebooks", "notebooks"]
    subprocess.run(copy, cwd=home, env=where, check=True, capture_output=True)
    assert (home / "notebooks" / "clickbait" / "2_fine_tune_albert.ipynb").is_file()
    command = [python.with_name("cookbook"), "make", "task.toml"]
    made = subprocess.run(command, cwd=home, env=where, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "accuracy" in made.stdout
    assert "bait" in (home / "bait" / "to_push" / "README.md").read_text("utf-8")
    assert (home / "bait" / "trained" / "hub_dataset.html").is_file()


def test_the_ranges_admit_what_colab_has():
    # With Python 3.12, which can still be chosen there, it has had these.
    older = {"torch": "2.6.0", "numpy": "2.0.2", "pandas": "2.2.2", "scikit-learn": "1.6.1"}
    for line in requires("small-model-cookbook"):
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if requirement.marker is None:
            assert all(part.operator == ">=" for part in requirement.specifier)
        for versions in (COLAB, older):
            if name in versions:
                assert versions[name] in requirement.specifier, line
