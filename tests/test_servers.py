"""The Ollama servers of the tests, as the unmodified client sees them."""

import asyncio
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import ollama
import pytest

from tests.servers import ollama as real
from tests.servers import scripted_ollama as scripted
from tests.servers.scripted_ollama import Cut, Failure, Raw, Slow, Truncated

SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string", "minLength": 5, "maxLength": 40}},
    "required": ["title"],
}
ENOUGH = 300  # tokens for 40 characters, be they emoji
ASK = [{"role": "user", "content": "Write one short news title about gardening, as JSON."}]
STORY = [{"role": "user", "content": "Write a very long story about a lighthouse."}]
TEXT = '{"title": "Bakers rescue a ferry"}'


@contextmanager
def client_of(answer, **settings):
    with scripted.serving(answer, **settings) as server:
        yield ollama.Client(server.url, timeout=20)


def content(parts):
    return "".join(part.message.content for part in parts)


# The scripted server


def test_a_scripted_answer_arrives_whole_and_streamed():
    with scripted.serving(lambda request, number: f"{TEXT} {number}") as server:
        client = ollama.Client(server.url)
        whole = client.chat("phi3", ASK, format=SCHEMA, options={"seed": 3})
        assert (whole.message.content, whole.done, whole.done_reason) == (f"{TEXT} 0", True, "stop")
        parts = list(client.chat("phi3:latest", ASK, stream=True))
        assert content(parts) == f"{TEXT} 1"
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
        assert len(parts) > 2
        assert client.generate("phi3", "A title").response == f"{TEXT} 2"
    first, second, third = server.requests
    assert (first["format"], first["options"], first["stream"]) == (SCHEMA, {"seed": 3}, False)
    assert (second["stream"], third["prompt"]) == (True, "A title")
    assert whole.eval_count
    assert whole.prompt_eval_count
    assert whole.total_duration


def test_the_other_routes_answer_the_client():
    with client_of(lambda request, number: TEXT, models=["phi3", "qwen2.5:1.5b"]) as client:
        names = ["phi3:latest", "qwen2.5:1.5b"]
        assert [model.model for model in client.list().models] == names
        assert [model.model for model in client.ps().models] == names
        assert client.show("phi3").capabilities == ["completion"]
        assert client.generate("phi3").done_reason == "load"
        with pytest.raises(ollama.ResponseError, match="404 page not found"):
            client.embed("phi3", "text")


def test_the_plain_routes_and_bad_requests():
    with scripted.serving(lambda request, number: TEXT) as server:
        assert httpx.get(server.url).text == "Ollama is running"
        assert "version" in httpx.get(f"{server.url}/api/version").json()
        assert httpx.get(f"{server.url}/nothing").status_code == 404
        for body in ("", "{", "[]", "{}"):
            answer = httpx.post(f"{server.url}/api/chat", content=body)
            assert (answer.status_code, list(answer.json())) == (400, ["error"])
        assert server.requests == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_has_its_status_and_the_next_request_is_answered(stream):
    failures = [Failure(503, "server busy"), Failure(404, "model 'x' not found")]
    with client_of(lambda request, number: [*failures, TEXT][number]) as client:
        for failure in failures:
            with pytest.raises(ollama.ResponseError, match=failure.error) as caught:
                list(client.chat("phi3", ASK, stream=stream))
            assert caught.value.status_code == failure.status
        assert client.chat("phi3", ASK).message.content == TEXT


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_404_and_never_reaches_the_script(stream):
    with scripted.serving(lambda request, number: TEXT) as server:
        with pytest.raises(ollama.ResponseError, match="model 'phi4' not found") as caught:
            list(ollama.Client(server.url).chat("phi4", ASK, stream=stream))
        assert caught.value.status_code == 404
        assert server.requests == []


def test_a_script_that_raises_says_so():
    with (
        client_of(lambda request, number: {}["missing"]) as client,
        pytest.raises(ollama.ResponseError, match=r"KeyError.*missing") as caught,
    ):
        client.chat("phi3", ASK)
    assert caught.value.status_code == 500


def test_a_truncated_answer_ends_with_length():
    with client_of(lambda request, number: Truncated('{"title": "Bak')) as client:
        whole = client.chat("phi3", ASK)
        assert (whole.message.content, whole.done_reason) == ('{"title": "Bak', "length")
        *_, last = client.chat("phi3", ASK, stream=True)
        assert (last.done, last.done_reason) == (True, "length")


def test_a_cut_stream_ends_without_done_and_a_cut_body_is_an_error():
    with client_of(lambda request, number: Cut(TEXT)) as client:
        parts = list(client.chat("phi3", ASK, stream=True))
        assert content(parts) == TEXT
        assert not any(part.done for part in parts)
        with pytest.raises(
            httpx.RemoteProtocolError, match="without sending complete message body"
        ):
            client.chat("phi3", ASK)


@pytest.mark.parametrize("stream", [False, True])
def test_raw_bytes_are_no_json(stream):
    with (
        client_of(lambda request, number: Raw(b"<html>Bad gateway</html>")) as client,
        pytest.raises(json.JSONDecodeError),
    ):
        list(client.chat("phi3", ASK, stream=stream))


def test_raw_bytes_make_an_error_in_mid_stream():
    with (
        client_of(lambda request, number: Raw(b'{"error": "out of memory"}\n')) as client,
        pytest.raises(ollama.ResponseError, match="out of memory") as caught,
    ):
        list(client.chat("phi3", ASK, stream=True))
    assert caught.value.status_code == -1


def test_a_slow_answer_arrives_late_and_frees_its_slot_when_the_client_gives_up():
    answers = [Slow(TEXT, 0.01), Slow(TEXT, 3600), TEXT]
    with scripted.serving(lambda request, number: answers[number], parallel=1) as server:
        assert ollama.Client(server.url).chat("phi3", ASK).message.content == TEXT
        with pytest.raises(httpx.ReadTimeout):
            ollama.Client(server.url, timeout=httpx.Timeout(20, read=0.1)).chat("phi3", ASK)
        assert ollama.Client(server.url, timeout=20).chat("phi3", ASK).message.content == TEXT


def test_a_server_that_stops_hangs_up_on_those_who_wait():
    with ThreadPoolExecutor(2) as pool:
        with scripted.serving(lambda request, number: Slow(TEXT, 3600), parallel=1) as server:
            client = ollama.Client(server.url, timeout=20)
            waiting = [pool.submit(client.chat, "phi3", ASK) for _ in range(2)]
            assert server.wait_for(2)
        for answer in waiting:
            assert isinstance(answer.exception(), httpx.RemoteProtocolError)
    with pytest.raises(ConnectionError):
        client.chat("phi3", ASK)


def test_only_so_many_requests_are_worked_on_at_once():
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

    async def ask(server):
        client = ollama.AsyncClient(server.url, timeout=20)
        chats = [asyncio.create_task(client.chat("phi3", ASK)) for _ in range(6)]
        assert await asyncio.to_thread(server.wait_for, 6)
        all_there.set()
        return [chat.message.content for chat in await asyncio.gather(*chats)]

    with scripted.serving(answer, parallel=2) as server:
        answers = asyncio.run(ask(server))
    assert sorted(answers) == [f"answer {i}" for i in range(6)]
    assert most == 2
    assert server.most_at_once == 6


def test_the_async_client_streams_and_never_has_more_under_way_than_it_asked_for():
    async def ask(server, count):
        client = ollama.AsyncClient(server.url, timeout=20)
        slots = asyncio.Semaphore(3)

        async def one():
            async with slots:
                parts = [part async for part in await client.chat("phi3", ASK, stream=True)]
                return content(parts)

        return await asyncio.gather(*[one() for _ in range(count)])

    with scripted.serving(lambda request, number: TEXT, delay=0.001) as server:
        assert asyncio.run(ask(server, 60)) == [TEXT] * 60
    assert 1 <= server.most_at_once <= 3


def test_built_in_titles_differ_for_every_seed():
    answers = {scripted.title({"options": {"seed": seed}}, 0) for seed in range(5000)}
    assert len(answers) == 5000
    assert scripted.title({}, 7) == scripted.title({"options": {"seed": 7}}, 0)


@contextmanager
def process(script, *arguments):
    """The server as a process of its own; yields its URL."""
    command = [sys.executable, str(Path(__file__).with_name("servers") / script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().removeprefix("listening on ").strip()
        finally:
            server.kill()


def test_the_scripted_server_runs_as_a_process():
    with process("scripted_ollama.py", "--port", "0", "--delay", "0.01") as url:
        client = ollama.Client(url, timeout=20)
        chats = [client.chat("phi3", ASK, options={"seed": seed}) for seed in (1, 2, 1)]
    first, second, again = (json.loads(chat.message.content)["title"] for chat in chats)
    assert first == again != second


# The real model


@pytest.fixture(scope="module")
def smollm_url():
    with real.serving() as url:
        yield url


@pytest.fixture
def smollm(smollm_url):
    return ollama.Client(smollm_url, timeout=30)


@pytest.mark.ollama
def test_a_schema_gives_json_that_parses(smollm):
    answer = smollm.chat("smollm2", ASK, format=SCHEMA, options={"seed": 1, "num_predict": ENOUGH})
    assert 5 <= len(json.loads(answer.message.content)["title"]) <= 40
    assert (answer.done, answer.done_reason) == (True, "stop")


@pytest.mark.ollama
def test_num_predict_and_stop_end_an_answer(smollm):
    short = smollm.chat("smollm2", STORY, options={"num_predict": 4, "num_ctx": 2048})
    assert (short.done_reason, short.eval_count) == ("length", 4)
    assert short.prompt_eval_count > 20
    assert short.eval_duration > 0
    counting = [{"role": "user", "content": "Count: one two three four five six seven."}]
    stopped = smollm.chat(
        "smollm2", counting, options={"stop": [" "], "num_predict": 40, "seed": 1}
    )
    assert stopped.done_reason == "stop"
    assert " " not in stopped.message.content


@pytest.mark.ollama
def test_streamed_pieces_make_the_answer(smollm):
    options = {"num_predict": 8, "seed": 1}
    parts = list(smollm.chat("smollm2", STORY, stream=True, options=options))
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 3
    assert content(parts)
    assert (parts[-1].done_reason, parts[-1].eval_count) == ("length", 8)


@pytest.mark.ollama
def test_two_seeds_differ(smollm):
    first, second = (
        smollm.chat("smollm2", STORY, options={"seed": seed, "temperature": 1, "num_predict": 20})
        for seed in (1, 2)
    )
    assert first.message.content != second.message.content


@pytest.mark.ollama
def test_generate_takes_a_system_prompt_and_json(smollm):
    options = {"num_predict": 6, "temperature": 0}
    plain = smollm.generate("smollm2", "A title", options=options)
    told = smollm.generate("smollm2", "A title", system="Be brief.", options=options)
    assert told.prompt_eval_count != plain.prompt_eval_count
    as_json = smollm.generate("smollm2", "A title", format="json", options=options)
    assert as_json.response.lstrip().startswith("{")
    assert not plain.response.lstrip().startswith("{")


@pytest.mark.ollama
def test_bad_requests_are_refused(smollm):
    with pytest.raises(ollama.ResponseError, match="model 'phi3' not found") as unknown:
        smollm.chat("phi3", ASK)
    assert unknown.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="unrecognized type") as schema:
        smollm.chat("smollm2", ASK, format={"type": "nonsense"})
    assert schema.value.status_code == 400
    long = [{"role": "user", "content": "dog " * (real.CONTEXT + 1)}]
    with pytest.raises(ollama.ResponseError, match="exceeds the available context") as prompt:
        list(smollm.chat("smollm2", long, stream=True))
    assert prompt.value.status_code == 400


@pytest.mark.ollama
@pytest.mark.parametrize("stream", [False, True])
def test_generation_stops_when_the_client_hangs_up(smollm_url, stream):
    # The schema makes an answer of a minute: whoever comes after it would wait that long.
    row = {"type": "array", "items": {"type": "string", "minLength": 5}, "minItems": 40}
    book = {"type": "array", "items": row, "minItems": 40}
    if stream:
        parts = ollama.Client(smollm_url, timeout=20).chat(
            "smollm2", STORY, format=book, stream=True
        )
        assert next(parts).message.content
        parts.close()
    else:
        hasty = ollama.Client(smollm_url, timeout=httpx.Timeout(20, read=0.5))
        with pytest.raises(httpx.ReadTimeout):
            hasty.chat("smollm2", STORY, format=book)
    patient = ollama.Client(smollm_url, timeout=20)
    assert patient.chat("smollm2", ASK, options={"num_predict": 2}).eval_count == 2


@pytest.mark.ollama
def test_the_async_client_asks_the_model_twice_at_once(smollm_url):
    async def ask():
        client = ollama.AsyncClient(smollm_url, timeout=30)
        settings = {"format": SCHEMA, "options": {"num_predict": ENOUGH}}
        return await asyncio.gather(*[client.chat("smollm2", ASK, **settings) for _ in range(2)])

    for answer in asyncio.run(ask()):
        assert json.loads(answer.message.content)["title"]


@pytest.mark.ollama
def test_the_real_server_runs_as_a_process_and_takes_another_name():
    with process("ollama.py", "--port", "0", "--model", "phi3") as url:
        client = ollama.Client(url, timeout=20)
        assert [model.model for model in client.list().models] == ["phi3:latest"]
        assert client.chat("phi3", ASK, options={"num_predict": 2}).eval_count == 2
