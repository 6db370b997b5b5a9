"""The loopback hub, as the unmodified clients see it."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import _http as http

from tests.servers.hub import serving


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving(tmp_path / "hub") as hub:
        # The clients have read their environment already, and other tests keep them offline.
        settings = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "ENDPOINT": hub.url}
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        settings["HUGGINGFACE_CO_URL_TEMPLATE"] = template
        for name, value in settings.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        yield hub


@pytest.fixture
def as_(hub):
    return lambda name: HfApi(endpoint=hub.url, token=hub.tokens[name] if name else False)


@pytest.fixture
def api(as_):
    """The client of maker, who has a model already."""
    as_("write").create_repo("maker/small")
    return as_("write")


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client would have waited between attempts."""
    waits = []
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=waits.append))
    return waits


def fresh(hub, folder, code):
    """What the code prints in a process of its own, which has nothing in its cache."""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder), "HF_TOKEN": hub.tokens["read"]}
    settings |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **settings}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def upload(api, content=b"a", path="a.txt", **settings):
    return api.upload_file(
        path_or_fileobj=content, path_in_repo=path, repo_id="maker/small", **settings
    )


def test_a_folder_comes_back_as_it_was(hub, api, tmp_path):
    content = {"README.md": b"---\nlicense: mit\ntags: [tiny]\n---\n# Hi\n", "a/b/c d.txt": b"x"}
    content |= {"a/big.csv": bytes(11_000_000), "weights.bin": b"\0\1", "a/empty.bin": b""}
    for path, text in content.items():
        (tmp_path / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / path).write_bytes(text)
    api.upload_folder(repo_id="maker/small", folder_path=tmp_path / "up", commit_message="All")
    stored = hub.files("model", "maker/small")
    assert stored.pop(".gitattributes").startswith(b"*.bin filter=lfs")
    assert stored == content

    down = Path(api.snapshot_download("maker/small", cache_dir=tmp_path / "cache"))
    pulled = {path: (down / path).read_bytes() for path in content}
    assert pulled == content
    listed = api.list_repo_tree("maker/small", recursive=True)
    lfs = {entry.path for entry in listed if isinstance(entry, RepoFile) and entry.lfs}
    assert lfs == {"a/big.csv", "weights.bin"}

    info = api.model_info("maker/small")
    assert info.sha == hub.commits("model", "maker/small")[0].sha
    assert info.card_data.license == "mit"
    assert info.tags == ["tiny"]
    assert {file.rfilename for file in info.siblings} == {*content, ".gitattributes"}


def test_what_is_there_already_makes_no_commit(hub, api):
    first = upload(api, b"\0", "weights.bin")
    upload(api)
    count, asked = len(hub.commits("model", "maker/small")), len(hub.requests)
    again = upload(api, b"\0", "weights.bin")
    upload(api)
    assert len(hub.commits("model", "maker/small")) == count == 3
    assert not [seen for seen in hub.requests[asked:] if "/commit/" in seen.path]
    # What it answers is the newest commit, not the one that brought the file.
    assert again.oid != first.oid


def test_deleting(hub, api):
    for path in ["a.txt", "a/b.txt", "a/c/d.txt", "ab.txt"]:
        upload(api, path=path)
    api.delete_folder("a", repo_id="maker/small")
    api.delete_file("a.txt", repo_id="maker/small")
    assert set(hub.files("model", "maker/small")) == {".gitattributes", "ab.txt"}
    with pytest.raises(EntryNotFoundError):
        api.delete_file("a.txt", repo_id="maker/small")


def test_a_stale_parent_is_refused(hub, api):
    parent = api.model_info("maker/small").sha
    upload(api, parent_commit=parent)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refused:
        upload(api, b"b", parent_commit=parent)
    assert refused.value.response.status_code == 412
    assert hub.files("model", "maker/small")["a.txt"] == b"a"


def test_whose_token_it_is(as_):
    told = as_("write").whoami()
    assert told["name"] == "maker"
    roles = [as_(name).whoami()["auth"]["accessToken"]["role"] for name in ("read", "fine")]
    assert roles == ["read", "fineGrained"]
    assert as_("stranger").whoami()["name"] == "stranger"


def test_who_may_write(hub, api, as_):
    upload(as_("fine"))
    for name, status in {"read": 403, "stranger": 403}.items():
        with pytest.raises(HfHubHTTPError) as refused:
            upload(as_(name), b"b")
        assert refused.value.response.status_code == status
        with pytest.raises(HfHubHTTPError) as refused:
            as_(name).create_repo("maker/new")
        assert refused.value.response.status_code == status
    with pytest.raises(RepositoryNotFoundError):
        upload(as_(None), b"b")
    with pytest.raises(HfHubHTTPError) as refused:
        as_(None).create_repo("new")
    assert refused.value.response.status_code == 401
    assert hub.files("model", "maker/small")["a.txt"] == b"a"
    # The client looks whether the repository is there before it passes the 403 on.
    assert as_("read").create_repo("maker/small", exist_ok=True).repo_id == "maker/small"


@pytest.mark.parametrize("action", ["whoami", "create_repo", "model_info", "upload"])
def test_an_unknown_token(hub, api, action):
    other = HfApi(endpoint=hub.url, token="hf_" + "x" * 34)
    calls = {
        "whoami": other.whoami,
        "create_repo": lambda: other.create_repo("maker/new"),
        "model_info": lambda: other.model_info("maker/small"),
        "upload": lambda: upload(other),
    }
    with pytest.raises(HfHubHTTPError, match="Invalid") as refused:
        calls[action]()
    assert refused.value.response.status_code == 401
    assert not isinstance(refused.value, RepositoryNotFoundError)


def test_a_private_repository_is_not_seen_by_others(hub, as_, tmp_path):
    as_("write").create_repo("maker/secret", private=True)
    assert as_("read").model_info("maker/secret").private
    for name in ["stranger", None]:
        for look in ["model_info", "snapshot_download", "list_repo_refs", "create_branch"]:
            settings = {"cache_dir": tmp_path / "cache"} if look == "snapshot_download" else {}
            settings |= {"branch": "b"} if look == "create_branch" else {}
            with pytest.raises(RepositoryNotFoundError):
                getattr(as_(name), look)("maker/secret", **settings)


def test_repositories_of_another_type_are_others(hub, api):
    with pytest.raises(HfHubHTTPError, match="already created this model"):
        api.create_repo("maker/small")
    assert api.create_repo("maker/small", exist_ok=True).repo_id == "maker/small"
    for kind, settings in {"dataset": {}, "space": {"space_sdk": "static"}}.items():
        assert not api.repo_exists("maker/small", repo_type=kind)
        api.create_repo("maker/small", repo_type=kind, **settings)
        upload(api, kind.encode(), repo_type=kind)
        assert hub.files(kind, "maker/small")["a.txt"] == kind.encode()
    assert "a.txt" not in hub.files("model", "maker/small")


def test_a_pull_request(hub, api, as_, tmp_path):
    made = upload(as_("stranger"), b"\0", "weights.bin", create_pr=True)
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    assert "weights.bin" not in hub.files("model", "maker/small")
    assert hub.files("model", "maker/small", "refs/pr/1")["weights.bin"] == b"\0"
    assert upload(api, create_pr=True).pr_num == 2
    upload(api, b"more", revision="refs/pr/2")
    assert hub.files("model", "maker/small", "refs/pr/2")["a.txt"] == b"more"
    refs = api.list_repo_refs("maker/small", include_pull_requests=True)
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1", "refs/pr/2"]
    down = api.hf_hub_download("maker/small", "a.txt", revision="refs/pr/2", cache_dir=tmp_path)
    assert Path(down).read_bytes() == b"more"


def test_a_branch(hub, api):
    first = api.model_info("maker/small").sha
    upload(api)
    api.create_branch("maker/small", branch="try/1", revision=first)
    upload(api, b"b", "b.txt", revision="try/1", commit_message="Try", commit_description="It")
    assert set(hub.files("model", "maker/small", "try/1")) == {".gitattributes", "b.txt"}
    refs = {ref.name: ref.target_commit for ref in api.list_repo_refs("maker/small").branches}
    assert refs == {name: hub.commits("model", "maker/small", name)[0].sha for name in refs}
    assert set(refs) == {"main", "try/1"}
    told = api.list_repo_commits("maker/small", revision="try/1")
    assert [(c.title, c.message) for c in told] == [("Try", "It"), ("initial commit", "")]
    assert told[0].authors == ["maker"]
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.create_branch("maker/small", branch="try/1")
    with pytest.raises(RevisionNotFoundError):
        upload(api, revision="nowhere")
    with pytest.raises(BadRequestError, match="goes to a branch"):
        upload(api, b"c", revision=first)


def test_a_card_is_checked(api):
    upload(api, b"---\nlicense: mit\n---\n# Hi", "README.md")
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        upload(api, b"---\nlicense: [mit\n---\n", "README.md")
    with pytest.raises(ValueError, match="should be a mapping"):
        upload(api, b"---\n- mit\n---\n", "README.md")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        upload(api, b"# Hi", "README.md")


def test_an_impossible_name_is_refused_by_the_client_itself(hub, api):
    asked = len(hub.requests)
    for name in ["maker/a b", "a/b/c", "maker/a..b"]:
        with pytest.raises(HFValidationError):
            api.create_repo(name)
    assert len(hub.requests) == asked


@pytest.mark.parametrize(("what", "seconds"), [(500, [1, 2]), (429, [1, 1]), ("cut", [1, 2])])
def test_the_client_tries_an_upload_again(hub, api, waits, what, seconds):
    hub.faults.append(("PUT", "^/lfs/", what, 2))
    upload(api, b"\0" * 100, "weights.bin")
    assert waits == seconds
    assert hub.files("model", "maker/small")["weights.bin"] == b"\0" * 100
    assert hub.faults[0][3] == 0


@pytest.mark.parametrize("what", [500, 429, 412, 403])
def test_the_client_tries_a_commit_once(hub, api, waits, what):
    hub.faults.append(("POST", "/commit/main$", what, 1))
    with pytest.raises(HfHubHTTPError) as failed:
        upload(api)
    assert failed.value.response.status_code == what
    assert not waits
    assert len(hub.commits("model", "maker/small")) == 1
    upload(api)
    assert len(hub.commits("model", "maker/small")) == 2


@pytest.mark.parametrize(("what", "done"), [("cut", False), ("half", True)])
def test_a_commit_whose_answer_is_lost(hub, api, waits, what, done):
    hub.faults.append(("POST", "/commit/main$", what, 1))
    with pytest.raises(Exception, match=r"disconnected|closed connection"):
        upload(api)
    assert not waits
    assert ("a.txt" in hub.files("model", "maker/small")) == done


def test_a_cut_download_is_made_whole(hub, api, waits, tmp_path, monkeypatch):
    content = bytes(range(256)) * 1000
    upload(api, content, "weights.bin")
    monkeypatch.setattr(huggingface_hub.file_download, "time", http.time)
    hub.faults += [("GET", "/resolve/", 429, 1), ("GET", "/resolve/", "half", 1)]
    down = api.hf_hub_download("maker/small", "weights.bin", cache_dir=tmp_path)
    assert Path(down).read_bytes() == content
    assert waits == [1, 1]


def test_a_model_is_pushed_and_pulled(hub, tmp_path):
    config = transformers.BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    model = transformers.BertModel(config)
    model.push_to_hub("maker/tiny", token=hub.tokens["write"], private=True)
    stored = hub.files("model", "maker/tiny")
    assert set(stored) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    pull = "from transformers import BertModel; model = BertModel.from_pretrained('maker/tiny')"
    told = fresh(hub, tmp_path, f"{pull}; print(model.embeddings.word_embeddings.weight.tolist())")
    assert json.loads(told) == model.embeddings.word_embeddings.weight.tolist()


def test_a_data_set_is_pushed_and_pulled(hub, tmp_path):
    rows = {"text": ["a", "b", "ü"], "label": [0, 1, 0]}
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(rows), test=datasets.Dataset.from_dict(rows).select([1])
    )
    for _ in range(2):
        splits.push_to_hub("maker/rows", token=hub.tokens["write"])
    assert len(hub.commits("dataset", "maker/rows")) == 2
    pull = "import json; from datasets import load_dataset; splits = load_dataset('maker/rows')"
    told = fresh(hub, tmp_path, f"{pull}; print(json.dumps({{n: splits[n][:] for n in splits}}))")
    assert json.loads(told) == {name: split[:] for name, split in splits.items()}


def test_it_runs_by_itself(tmp_path):
    command = [sys.executable, "-m", "tests.servers.hub", "--folder", str(tmp_path)]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        told = server.stdout.readline()
        address = re.fullmatch(r"listening on (http://127\.0\.0\.1:[0-9]+)\n", told)[1]
        try:
            with pytest.raises(urllib.error.HTTPError, match="Unauthorized"):
                urllib.request.urlopen(f"{address}/api/whoami-v2")
        finally:
            server.terminate()
