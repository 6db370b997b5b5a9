"""What a host and a joiner need: workflows, forms, the distribution, licences."""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cookbook

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
BIN = Path(sys.executable).parent
COPYLEFT = re.compile(r"[AL]?GPL|General Public|SSPL|EUPL|Open Software License|CC-BY-SA", re.I)


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- For whoever hosts it


def test_actionlint_finds_nothing_in_the_workflows():
    assert len(WORKFLOWS) == 3
    run(BIN / "actionlint", *WORKFLOWS)


def test_actionlint_would_find_something(tmp_path):
    text = WORKFLOWS[0].read_text("utf-8").replace("runs-on: ubuntu-latest", "runs-on: nowhere")
    (tmp_path / "bad.yml").write_text(text)
    done = subprocess.run(
        [BIN / "actionlint", tmp_path / "bad.yml"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "nowhere" in done.stdout


@pytest.mark.parametrize(
    ("schema", "pattern"),
    {
        "github-workflows": ".github/workflows/*.yml",
        "dependabot": ".github/dependabot.yml",
        "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
        "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
        "citation-file-format": "CITATION.cff",
    }.items(),
)
def test_what_the_host_reads_has_its_form(schema, pattern):
    files = sorted(ROOT.glob(pattern))
    assert files
    run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


def test_the_workflows_call_what_the_makefile_has():
    targets = set(re.findall(r"(?m)^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8")))
    text = "".join(path.read_text("utf-8") for path in WORKFLOWS)
    called = set(re.findall(r"run: make ([a-z-]+)", text))
    jobs = yaml.safe_load((GITHUB / "workflows" / "test.yml").read_text("utf-8"))["jobs"]
    called |= set(jobs["versions"]["strategy"]["matrix"]["target"])
    assert called == {"lint", "test", "test-colab", "test-oldest", "book", "dist"}
    assert called <= targets
    admitted = re.findall(r":: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert jobs["tests"]["strategy"]["matrix"]["python"] == admitted
    assert "://" not in text  # no address of an index, nor of anybody's machine


def test_the_citation_is_of_this_version():
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert about["version"] == cookbook.__version__
    assert f'\nversion = "{cookbook.__version__}"' in project
    assert f'Repository = "{about["repository-code"]}"' in project
    assert f'license = "{about["license"]}"' in project
    assert cookbook.__version__ in (ROOT / "CHANGELOG.md").read_text("utf-8")


# --- The distribution


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """An sdist, and the wheel that is built from it and from nothing else."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    return folder


def test_the_metadata_is_as_the_index_wants_it(dist):
    told = run(sys.executable, "-m", "twine", "check", "--strict", *dist.glob("*.[tw]*[zl]"))
    assert told.count("PASSED") == 2


def test_the_sdist_brings_what_is_built_and_tested_from_it(dist):
    (source,) = (path for path in dist.iterdir() if path.is_dir())
    for name in ("book/index.md", "data/measured.json", "tests/conftest.py", "CITATION.cff"):
        assert (source / name).is_file()
    assert not (source / "out").exists()


def test_the_wheel_alone_copies_the_notebooks_out(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from cookbook import cli, data\n"
        "assert 'site' in str(data.shipped('clickbait_titles.csv'))\n"
        "sys.argv = ['cookbook', 'notebooks', 'mine']; cli.main()"
    )
    told = run(sys.executable, "-c", code, cwd=tmp_path)
    copied = sorted((tmp_path / "mine").glob("*/*.ipynb"))
    assert [str(path.relative_to(tmp_path)) for path in copied] == sorted(told.split())
    assert len(copied) == len(list((ROOT / "notebooks").glob("*/*.ipynb")))


# --- Licences


def core(name):
    """All that pip installs with a package that is asked for without extras."""
    found, ahead = set(), [Requirement(name)]
    while ahead:
        wanted = ahead.pop()
        key = (canonicalize_name(wanted.name), *sorted(wanted.extras))
        if key not in found:
            found.add(key)
            lines = map(Requirement, requires(wanted.name) or [])
            ahead += [
                line
                for line in lines
                if line.marker is None
                or any(line.marker.evaluate({"extra": e}) for e in ("", *wanted.extras))
            ]
    return sorted({key[0] for key in found})


def test_no_core_dependency_is_under_a_copyleft_licence():
    names = core("small-model-cookbook")
    assert {"torch", "transformers", "pandas", "certifi"} <= set(names)
    options = ["-f", "json", "--from", "all", "--with-system", "-p", *names]
    listed = json.loads(run(sys.executable, "-m", "piplicenses", *options))
    assert {canonicalize_name(each["Name"]) for each in listed} == set(names)
    for each in listed:
        # Some have the whole text for a name.
        told = [v.split("\n")[0][:80] for k, v in each.items() if k.startswith("License")]
        told = [line for line in told if line != "UNKNOWN"]
        assert told, f"{each['Name']} says nothing of its licence"
        assert not COPYLEFT.search(" ".join(told)), f"{each['Name']}: {told}"
    assert COPYLEFT.search("GNU Affero General Public License v3")
