"""Asking an LLM server: what it answers is read, what goes wrong is explained, nothing is lost."""

import json

import ollama
import pytest
from pydantic import BaseModel

from cookbook import llm
from cookbook.llm import Answer, Journal, connect, in_order, read_json
from tests.servers.scripted_ollama import Cut, Failure, Raw, Slow, Thought, Truncated, serving


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Between one try and the next."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


HELLO = [{"role": "user", "content": "A title, please"}]


class Title(BaseModel):
    title: str


class Post(BaseModel):
    keywords: list[str]
    topic: str = ""


def ask(server, journal=None, model="phi3", **settings):
    found = connect(model, server.url, **settings)
    return found.ask(HELLO, Title.model_json_schema(), {"seed": 1}, journal)


def always(answer):
    return lambda request, number: answer


# --- Reading answers


@pytest.mark.parametrize(
    "content",
    [
        '{"title": "Tea"}',
        '```json\n{"title": "Tea"}\n```',
        'Sure! Here it is:\n{"title": "Tea"}\nShall I go on?',
        '<think>{"title": "a draft"} no, better: {"title": …}</think>\n{"title": "Tea"}',
        'no opening tag {"title": 7}</think>{"title": "Tea"}',
        '<think>never closed {"title": "Tea"}',
        '{"titel": "Coffee"} {"title": "Tea"}',
        '{"title": "Tea"} {"comment": "It fits"}',
        '[{"no": 1}] {"title": "Tea"}' + " \n" * 500,
        '{"title": "Tea"} [[[[',
    ],
)
def test_json_is_found_whatever_stands_around_it(content):
    assert read_json(content, Title).title == "Tea"


@pytest.mark.parametrize(
    ("given", "keywords"),
    [
        ("Redis, Valkey", ["Redis", "Valkey"]),
        (["Postgres", 17], ["Postgres", "17"]),
        (["Go"], ["Go"]),
    ],
)
def test_types_are_mended_where_nothing_is_lost(given, keywords):
    assert read_json(json.dumps({"keywords": given}), Post).keywords == keywords


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("I can't do that", "no JSON"),
        ("", "no JSON"),
        ('{"title": "cut o', "no JSON"),
        ('{"headline": "Tea"}', "wrong schema: title: Field required"),
        ('{"title": null}', "wrong schema: title: Input should be a valid string"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_field(content, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        read_json(content, Title)


# --- Asking


def test_jobs_come_back_in_their_order_and_may_depend_on_results():
    given = []

    def next_job():
        return len(given) if len(given) < 5 and not given.append(1) else None

    assert list(in_order(lambda job: -job, next_job, 3)) == [(i, -i) for i in range(1, 6)]


def test_a_model_that_thinks_is_asked_not_to():
    with serving(always("{}"), capabilities=["completion", "thinking"]) as server:
        ask(server)
    assert server.requests[0]["think"] is False
    with serving(always("{}")) as server:
        ask(server)
    assert server.requests[0].get("think") is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Truncated('{"title": "A'), "truncated"),
        (Thought("", "Hmm, a title", reason="length"), "truncated while thinking"),
        (Truncated("<think>Hmm"), "truncated while thinking"),
        (Thought("", "Hmm, a title"), "thoughts, but no answer"),
        (Raw(b"garbage"), "garbled answer"),
        (Raw(b'["a list"]'), "garbled answer"),
        (
            Raw(b'{"message": {"role": "assistant", "content": "{"}, "done": false}'),
            "ended early",
        ),
    ],
)
def test_an_answer_that_is_not_whole_has_a_reason(answer, reason):
    with serving(always(answer)) as server:
        assert ask(server).reason == reason


@pytest.mark.parametrize(
    "fault", [Failure(503, "server busy"), Failure(500, "llama runner died"), Cut('{"title": "A')]
)
def test_what_may_pass_is_tried_again(fault):
    with serving(lambda request, number: fault if number < 2 else '{"title": "Tea"}') as server:
        assert ask(server) == Answer('{"title": "Tea"}', "")
    assert len(server.requests) == 3


def test_the_first_question_is_tried_again_too():
    busy = Failure(503, "server busy")
    with serving(always("{}"), before=lambda path, n: busy if n < 3 else None) as server:
        assert ask(server).content == "{}"


def test_a_server_that_stays_busy():
    with (
        serving(always(Failure(503, "server busy"))) as server,
        pytest.raises(ConnectionError, match="stays busy"),
    ):
        ask(server)


def test_an_answer_that_takes_too_long():
    with (
        serving(always(Slow("{}", 30))) as server,
        pytest.raises(TimeoutError, match="Raise timeout="),
    ):
        ask(server, timeout=0.2)


def test_a_refused_question():
    with (
        serving(always(Failure(400, "invalid format"))) as server,
        pytest.raises(RuntimeError, match=r"400.*invalid format"),
    ):
        ask(server)


# --- Finding server and model


def test_a_model_and_its_tag_are_one_but_other_tags_are_others():
    with serving(always("{}"), models=["phi3:latest", "phi3:mini"]) as server:
        names = [connect(name, server.url).model for name in ("phi3", "phi3:latest", "phi3:mini")]
        with pytest.raises(LookupError, match="ollama pull phi3:medium"):
            connect("phi3:medium", server.url)
    assert names == ["phi3", "phi3", "phi3:mini"]


@pytest.mark.parametrize(
    "ending", ["/v1", "/v1/", "/api", "/api/chat", "/v1/chat/completions", "/"]
)
def test_endings_of_other_clients_are_taken_off_the_address(ending):
    with serving(always("{}")) as server:
        assert connect("phi3", server.url + ending).address.rstrip("/") == server.url


def test_the_address_may_come_from_the_environment_and_no_proxy_stands_before_it(monkeypatch):
    with serving(always("{}")) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url.removeprefix("http://"))
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        assert connect("phi3").model == "phi3"


def test_no_server():
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9 .*refused.*ollama serve"):
        connect("phi3", "http://127.0.0.1:9")


def test_an_address_that_cannot_be_one():
    with pytest.raises(ValueError, match="'http://here:there' is no address"):
        connect("phi3", "http://here:there")


PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"


@pytest.mark.parametrize(
    "answer",
    [
        Raw(PAGE, kind="text/html"),
        Raw(PAGE, 404, "text/html"),
        Raw(PAGE, 502, "text/html"),
        Raw(b'{"detail": "Not Found"}', 404),
        Raw(b"[]"),
        Raw(b'{"status": "ok"}'),
        Raw(b"404 page not found", 404, "text/plain"),
    ],
)
def test_something_else_behind_the_address(answer):
    with serving(always("{}"), before=lambda path, number: answer) as server:
        with pytest.raises(ConnectionError, match="isn't Ollama") as caught:
            connect("phi3", server.url)
        assert server.url in str(caught.value)
        assert ("HTML" in str(caught.value)) == (answer.body == PAGE)


def test_https_to_a_server_that_does_not_encrypt():
    with (
        serving(always("{}")) as server,
        pytest.raises(ConnectionError, match=r"SSL.* Write http:// if nothing is encrypted"),
    ):
        connect("phi3", server.url.replace("http:", "https:"))


def test_a_connection_that_breaks_off():
    with (
        serving(always(Cut("{"))) as server,
        pytest.raises(ConnectionError, match=r"No Ollama server answers.*ollama serve"),
    ):
        ask(server)


def test_a_model_that_only_embeds():
    with (
        serving(always("{}"), capabilities=["embedding"]) as server,
        pytest.raises(ValueError, match="phi3 writes nothing"),
    ):
        connect("phi3", server.url)


# --- The journal


def test_what_was_asked_before_is_not_asked_again(tmp_path):
    path = tmp_path / "answers.csv"
    with serving(always('{"title": "Tea"}')) as server:
        for model in ("phi3", "phi3:latest"):
            with Journal(path) as journal:
                assert ask(server, journal, model).content == '{"title": "Tea"}'
        assert len(server.requests) == 1
        with Journal(path) as journal:
            connect("phi3", server.url).ask(HELLO, None, {"seed": 2}, journal)
        assert len(server.requests) == 2


@pytest.mark.filterwarnings("ignore:.*torn line")
def test_a_torn_line_of_the_journal_is_taken_off(tmp_path):
    path = tmp_path / "answers.csv"
    with Journal(path) as journal:
        journal.add("a", Answer('tea\n"or", cof\rfee\r\n', ""))
    whole = path.read_bytes()
    path.write_bytes(whole + b'b,"{""title"": ""cut o')
    with Journal(path) as journal:
        assert journal.answers == {"a": Answer('tea\n"or", cof\rfee\r\n', "")}
    assert path.read_bytes() == whole


@pytest.mark.parametrize("mine", [b"My notes", b"a\nb\n", b'{"id": 1}\n', b"\n", b"[]\n\xff"])
def test_a_file_of_something_else_is_left_alone(tmp_path, mine):
    path = tmp_path / "answers.csv"
    path.write_bytes(mine)
    with pytest.raises(ValueError, match=r"answers\.csv .* left as it is"), Journal(path):
        pass
    assert path.read_bytes() == mine


def test_two_runs_on_one_journal(tmp_path):
    path = tmp_path / "answers.csv"
    with Journal(path), pytest.raises(RuntimeError, match="Another run"), Journal(path):
        pass


# --- For the notebooks


def test_a_notebook_is_told_whether_there_is_a_server(capsys):
    assert not llm.start_ollama("phi3", "http://127.0.0.1:9")
    assert "ollama serve" in capsys.readouterr().out
    with serving(always("{}")) as server:
        assert llm.start_ollama("phi3", server.url)
    assert capsys.readouterr().out == "Ollama answers, with phi3.\n"


def test_a_notebook_has_a_missing_model_pulled(monkeypatch, capsys):
    pulled = []
    monkeypatch.setattr(ollama.Client, "pull", lambda self, model: pulled.append(model))
    with serving(always("{}")) as server:
        assert llm.start_ollama("qwen3", server.url)
    assert pulled == ["qwen3"]
    assert "qwen3" in capsys.readouterr().out
