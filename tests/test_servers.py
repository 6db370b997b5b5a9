"""The stand-in servers, as the unmodified clients see them: a wrong one would make tests lie."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import huggingface_hub
import ollama
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.servers import hub as hubs
from tests.servers.ollama import CONTEXT
from tests.servers.scripted_ollama import (
    Cut,
    Failure,
    Raw,
    Slow,
    Thought,
    Truncated,
    serving,
    title,
)

ASK = [{"role": "user", "content": "Write one short news title about gardening, as JSON."}]
TEXT = '{"title": "Bakers rescue a ferry"}'

# --- Ollama, by script


def ask(*answers):
    """Return what the client gets from a server that gives these answers, and the server."""

    def answer(request, number):
        if answers[number] is None:
            raise KeyError("missing")
        return answers[number]

    with serving(answer) as server:
        client = ollama.Client(server.url, timeout=20)
        return [client.chat("phi3", ASK) for _ in answers], server


def test_an_answer_arrives_as_the_script_gave_it():
    answers = [TEXT, Truncated('{"title": "Bak'), Thought(TEXT, "Hm.", "length"), Slow(TEXT, 0.01)]
    found, server = ask(*answers)
    said = [(f.message.content, f.message.thinking, f.done_reason) for f in found]
    plain = (TEXT, None, "stop")
    assert said == [plain, ('{"title": "Bak', None, "length"), (TEXT, "Hm.", "length"), plain]
    assert [request["messages"] for request in server.requests] == [ASK] * 4


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Failure(503, "server busy"), ollama.ResponseError, "server busy"),
        (Cut(TEXT), httpx.RemoteProtocolError, "without sending complete message body"),
        (Raw(b"<html>Bad gateway</html>"), json.JSONDecodeError, "Expecting value"),
        (None, ollama.ResponseError, r"the script raised KeyError.*missing"),
    ],
)
def test_a_fault_reaches_the_client(fault, error, words):
    with pytest.raises(error, match=words):
        ask(fault)


def test_the_other_routes_answer_the_client():
    def before(path, number):
        return Failure(500, "asleep") if number == 1 else None

    abilities = ("completion", "thinking")
    with serving(title, models=["phi3"], capabilities=abilities, before=before) as server:
        client = ollama.Client(server.url, timeout=20)
        with pytest.raises(ollama.ResponseError, match="asleep"):
            client.list()
        assert [model.model for model in client.list().models] == ["phi3:latest"]
        assert client.show("phi3").capabilities == list(abilities)
        with pytest.raises(ollama.ResponseError, match="model 'phi4' not found") as caught:
            client.chat("phi4", ASK)
        assert caught.value.status_code == 404
        assert httpx.get(f"{server.url}/v1/api/tags").status_code == 404
        assert server.requests == []


def test_a_server_that_stops_hangs_up_on_those_who_wait():
    with ThreadPoolExecutor(2) as pool:
        with serving(lambda request, number: Slow(TEXT, 3600), parallel=1) as server:
            client = ollama.Client(server.url, timeout=20)
            waiting = [pool.submit(client.chat, "phi3", ASK) for _ in range(2)]
            assert server.wait_for(2)
        for answer in waiting:
            assert isinstance(answer.exception(), httpx.RemoteProtocolError)
    with pytest.raises(ConnectionError):
        client.chat("phi3", ASK)


def test_only_so_many_are_worked_on_at_once_and_all_are_counted():
    inside, most, lock = 0, 0, threading.Lock()
    all_there, pair = threading.Event(), threading.Barrier(2)

    def answer(request, number):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        assert all_there.wait(20)
        pair.wait(20)  # raises unless two are in here
        with lock:
            inside -= 1
        return f"answer {number}"

    async def six(server):
        client = ollama.AsyncClient(server.url, timeout=20)
        chats = [asyncio.create_task(client.chat("phi3", ASK)) for _ in range(6)]
        assert await asyncio.to_thread(server.wait_for, 6)
        all_there.set()
        return [chat.message.content for chat in await asyncio.gather(*chats)]

    with serving(answer, parallel=2) as server:
        answers = asyncio.run(six(server))
    assert sorted(answers) == [f"answer {i}" for i in range(6)]
    assert most == 2
    assert server.most_at_once == 6


def test_built_in_titles_differ_for_every_seed():
    assert len({title({"options": {"seed": seed}}, 0) for seed in range(5000)}) == 5000


# --- The real model


@pytest.mark.ollama
def test_the_model_keeps_to_schema_length_and_seed(smollm):
    client = ollama.Client(smollm.url, timeout=60)
    text = {"type": "string", "minLength": 5, "maxLength": 40}
    schema = {"type": "object", "properties": {"title": text}, "required": ["title"]}
    options = {"seed": 1, "num_predict": 300}  # enough for 40 characters, be they emoji
    answer = client.chat(smollm.model, ASK, format=schema, options=options)
    assert 5 <= len(json.loads(answer.message.content)["title"]) <= 40
    assert (answer.done, answer.done_reason) == (True, "stop")
    short = [
        client.chat(smollm.model, ASK, options={"seed": seed, "temperature": 1, "num_predict": 12})
        for seed in (1, 2)
    ]
    assert [answer.done_reason for answer in short] == ["length", "length"]
    assert short[0].message.content != short[1].message.content


@pytest.mark.ollama
def test_the_model_refuses_what_it_can_not_do(smollm):
    client = ollama.Client(smollm.url, timeout=60)
    long = [{"role": "user", "content": "dog " * (CONTEXT + 1)}]
    for asked, schema, words in (
        (ASK, {"type": "nonsense"}, "unrecognized type"),
        (long, None, "exceeds the available context"),
    ):
        with pytest.raises(ollama.ResponseError, match=words) as caught:
            client.chat(smollm.model, asked, format=schema)
        assert caught.value.status_code == 400


# --- The Hub


@pytest.fixture
def hub(monkeypatch):
    with hubs.serving() as hub:
        # The client has read its environment already, and other tests keep it offline.
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        settings = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "ENDPOINT": hub.url}
        for name, value in {**settings, "HUGGINGFACE_CO_URL_TEMPLATE": template}.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        yield hub


@pytest.fixture
def as_(hub):
    return lambda name: HfApi(endpoint=hub.url, token=hub.tokens.get(name, name) or False)


@pytest.fixture
def api(as_):
    """The client of maker, who has a model already."""
    as_("write").create_repo("maker/small")
    return as_("write")


def upload(api, content=b"a", path="a.txt", repo_id="maker/small", **settings):
    return api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=repo_id, **settings)


def test_a_folder_comes_back_as_it_was_and_again_makes_no_commit(hub, api, tmp_path):
    content = {"README.md": b"---\nlicense: mit\n---\n# Hi\n", "a/b/c d.txt": b"x"}
    content |= {"a/big.csv": bytes(11_000_000), "weights.bin": b"\0\1", "a/empty.txt": b""}
    for path, text in content.items():
        (tmp_path / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / path).write_bytes(text)
    for _ in range(2):
        api.upload_folder(repo_id="maker/small", folder_path=tmp_path / "up", commit_message="All")
    assert [commit.title for commit in hub.commits("model", "maker/small")] == [
        "All",
        "initial commit",
    ]
    stored = hub.files("model", "maker/small")
    stored.pop(".gitattributes")
    assert stored == content
    down = Path(api.snapshot_download("maker/small", cache_dir=tmp_path / "cache"))
    assert {path: (down / path).read_bytes() for path in content} == content
    listed = api.list_repo_tree("maker/small", recursive=True)
    assert {entry.path for entry in listed if getattr(entry, "lfs", None)} == {
        "a/big.csv",
        "weights.bin",
    }


def test_what_is_deleted_is_gone(hub, api):
    for path in ["a.txt", "a/b.txt", "a/c/d.txt", "ab.txt"]:
        upload(api, path=path)
    api.delete_folder("a", repo_id="maker/small")
    api.delete_file("a.txt", repo_id="maker/small")
    assert set(hub.files("model", "maker/small")) == {".gitattributes", "ab.txt"}
    with pytest.raises(EntryNotFoundError):
        api.delete_file("a.txt", repo_id="maker/small")


def test_who_may_write(hub, api, as_):
    upload(as_("fine"))
    for name, status in {"read": 403, "stranger": 403, "hf_unknown": 401}.items():
        for attempt in (lambda api: upload(api, b"b"), lambda api: api.create_repo("maker/new")):
            with pytest.raises(HfHubHTTPError) as refused:
                attempt(as_(name))
            assert refused.value.response.status_code == status
    with pytest.raises(RepositoryNotFoundError):
        upload(as_(""), b"b")
    assert hub.files("model", "maker/small")["a.txt"] == b"a"
    assert as_("read").whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="already created this model"):
        api.create_repo("maker/small")


def test_a_private_repository_is_not_seen_by_others(as_):
    as_("write").create_repo("maker/secret", private=True)
    assert as_("read").model_info("maker/secret").private
    for name in ["stranger", ""]:
        with pytest.raises(RepositoryNotFoundError):
            as_(name).model_info("maker/secret")


def test_branches_and_pull_requests(hub, api, as_, tmp_path):
    first = api.model_info("maker/small").sha
    made = upload(as_("stranger"), b"\0", "weights.bin", create_pr=True)
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    upload(api)
    assert set(hub.files("model", "maker/small")) == {".gitattributes", "a.txt"}
    down = api.hf_hub_download(
        "maker/small", "weights.bin", revision="refs/pr/1", cache_dir=tmp_path
    )
    assert Path(down).read_bytes() == b"\0"
    api.create_branch("maker/small", branch="try/1", revision=first)
    upload(api, b"b", "b.txt", revision="try/1")
    assert set(hub.files("model", "maker/small", "try/1")) == {".gitattributes", "b.txt"}
    with pytest.raises(RevisionNotFoundError):
        upload(api, revision="nowhere")
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        upload(api, b"c", parent_commit=first)
    with pytest.raises((BadRequestError, ValueError), match=r"Invalid metadata|mapping"):
        upload(api, b"---\n- mit\n---\n", "README.md")


@pytest.mark.parametrize(("what", "done"), [(500, False), ("cut", False), ("half", True)])
def test_a_fault_in_a_commit(hub, api, what, done):
    hub.faults.append(("POST", "/commit/main$", what, 1))
    with pytest.raises(Exception, match=r"500|disconnected|closed connection"):
        upload(api)
    assert ("a.txt" in hub.files("model", "maker/small")) == done
    upload(api, b"b", "b.txt")
    assert hub.files("model", "maker/small")["b.txt"] == b"b"
