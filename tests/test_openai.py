"""LLMs behind OpenAI's protocol (vLLM, llama.cpp, OpenRouter), and several servers at once."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pandas as pd
import pytest
from typer.testing import CliRunner

from cookbook import baselines, cli, economics, synthesis
from cookbook.llm import Answer, Journal, connect
from tests.servers import scripted_ollama
from tests.servers.scripted_ollama import Cut, Raw, Said, Thought, Truncated, title
from tests.servers.scripted_openai import Failure, serving

HELLO = [{"role": "user", "content": "A title, please"}]
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
TEA = '{"title": "Tea"}'
SECRET = "sk-not-to-be-seen"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    """None of this machine's, and no server that tells how long to wait is waited for."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


def ask(server, model="gpt", schema=SCHEMA, **settings):
    found = connect(model, base_url=server.base_url, **settings)
    return found.ask(HELLO, schema, {"seed": 1, "temperature": 0.5, "num_predict": 9})


def always(answer):
    return lambda request, number: answer


def by_seed(request, number):
    """What the other protocol's script says for the same seed."""
    return title({"options": {"seed": request["seed"]}}, number)


# --- Asking


def test_the_question_goes_in_the_terms_of_the_protocol_and_tokens_come_back():
    with serving(always(TEA)) as server:
        assert ask(server) == Answer(TEA, "", 7, 3)
    asked = server.requests[0]
    assert asked["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (asked["seed"], asked["temperature"], asked["max_tokens"]) == (1, 0.5, 9)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Truncated('{"title": "A'), "truncated"),
        (Thought("", "Hmm, a title", reason="length"), "truncated while thinking"),
        (Thought("", "Hmm, a title"), "thoughts, but no answer"),
        (Said("", reason="content_filter"), "refused"),
        (Failure(400, "The response was filtered", code="content_filter"), "refused"),
        (Failure(400, "This model's maximum context length is 8 tokens"), "too long for the model"),
        (Failure(400, "the request exceeds the available context size"), "too long for the model"),
        (Raw(b'{"error": {"message": "upstream is down"}}'), "garbled answer"),
        (Raw(b"a page", kind="text/html"), "garbled answer"),
        (Raw(b"a page"), "garbled answer"),
    ],
)
def test_an_answer_that_is_not_whole_has_a_reason(answer, reason):
    with serving(always(answer)) as server:
        found = ask(server)
    assert found.reason == reason
    assert "None" not in found.content


@pytest.mark.parametrize("fault", [Failure(429, "slow down"), Failure(502, "no"), Cut(TEA)])
def test_what_may_pass_is_tried_again(fault):
    with serving(lambda request, number: fault if number < 2 else TEA) as server:
        assert ask(server).content == TEA
    assert len(server.requests) == 3


def test_what_a_server_refuses_of_a_question_is_left_out_and_said_once():
    def answer(request, number):
        form = request.get("response_format", {}).get("type")
        if form:
            return Failure(400, f"response_format {form!r} is not supported by this model")
        if "seed" in request:
            return Failure(400, "Unsupported parameter: 'seed'", param="seed")
        if "max_tokens" in request:
            told = "Use 'max_completion_tokens' instead of 'max_tokens'."
            return Failure(400, told, param="max_tokens")
        return f"Here you are: {TEA}" if request["max_completion_tokens"] == 9 else Said("")

    with serving(answer) as server:
        found = connect("gpt", base_url=server.base_url)
        options = {"seed": 1, "temperature": 0.5, "num_predict": 9}
        with pytest.warns(UserWarning, match="takes no") as told:
            answers = [found.ask(HELLO, SCHEMA, options) for _ in range(2)]
    assert all(TEA in answer.content for answer in answers)
    said = [str(warning.message) for warning in told]
    assert [each.split("takes no ")[1].split()[0] for each in said] == [
        "json_schema",
        "json_object",
        "seed",
    ]
    assert len(server.requests) == 6  # four that were refused, and the two


def test_another_refusal_is_an_error():
    with (
        serving(always(Failure(400, "messages must not be empty"))) as server,
        pytest.raises(RuntimeError, match=r"400.*messages must not be empty"),
    ):
        ask(server)


# --- Keys, models, addresses


def test_the_key_comes_from_the_environment_and_is_never_shown(monkeypatch):
    with serving(always(TEA), key="right") as server:
        with pytest.raises(PermissionError, match=r"wants a key.*variable OPENAI_API_KEY"):
            ask(server)
        monkeypatch.setenv("MY_KEY", SECRET)
        with pytest.raises(PermissionError, match=r"refuses the key.*MY_KEY") as caught:
            ask(server, key="MY_KEY")
        assert SECRET not in str(caught.value)
        monkeypatch.setenv("MY_KEY", "right")
        assert ask(server, key="MY_KEY").content == TEA


def test_a_model_that_is_not_there():
    with (
        serving(always(TEA), models=["gpt", "phi"]) as server,
        pytest.raises(LookupError, match="doesn't have 'gtp'; there are gpt, phi"),
    ):
        ask(server, model="gtp")


def test_nobody_there_and_somebody_else_there():
    with pytest.raises(ConnectionError, match=r"No server answers.*refused.*ends in /v1"):
        connect("gpt", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ValueError, match="no address"):
        connect("gpt", base_url="http://here:there")
    with serving(always(TEA)) as server:
        found = connect("gpt", base_url=f"{server.url}/v2")
        with pytest.raises(ConnectionError, match="isn't an OpenAI-compatible server"):
            found.ask(HELLO, None, {})
        with pytest.raises(ConnectionError, match=r"isn't Ollama.*base_url="):
            connect("gpt", server.url)


def test_an_answer_that_takes_too_long(monkeypatch):
    monkeypatch.setattr(openai.OpenAI, "_sleep_for_retry", lambda *_, **__: None)
    with (
        serving(always(scripted_ollama.Slow(TEA, 30))) as server,
        pytest.raises(TimeoutError, match="Raise timeout="),
    ):
        ask(server, timeout=0.2)


# --- Whole runs


def test_a_quota_that_runs_out_midway_loses_nothing(tmp_path):
    out = tmp_path / "titles.csv"
    used_up = Failure(429, "You exceeded your current quota", code="insufficient_quota")
    with serving(lambda request, n: by_seed(request, n) if n < 5 else used_up) as server:
        model = connect("gpt", base_url=server.base_url)
        with pytest.raises(RuntimeError, match=r"quota is used up.*the same call goes on"):
            synthesis.generate_texts(out, model=model, per_label=10, concurrency=1)
    kept = out.read_text()
    with serving(by_seed) as server:
        model = connect("gpt", base_url=server.base_url)
        run = synthesis.generate_texts(out, model=model, per_label=10, concurrency=1)
    assert out.read_text().startswith(kept)
    assert len(run.rows) == 20
    with serving(by_seed) as server:
        model = connect("gpt", base_url=server.base_url)
        whole = synthesis.generate_texts(tmp_path / "whole.csv", model=model, per_label=10)
    assert sorted(run.rows["text"]) == sorted(whole.rows["text"])


def test_what_a_run_has_cost_is_counted(tmp_path):
    with serving(by_seed) as server:
        model = connect("gpt", base_url=server.base_url)
        run = synthesis.generate_texts(tmp_path / "titles.csv", model=model, per_label=3)
        again = synthesis.generate_texts(tmp_path / "titles.csv", model=model, per_label=3)
    asked = len(server.requests)
    assert (run.input_tokens, run.output_tokens) == (7 * asked, 3 * asked)
    assert again.output_tokens == run.output_tokens
    assert f"{7 * asked} tokens read, {3 * asked} written" in str(run)
    price = economics.ApiPrice("gpt", 1.0, 2.0, "its page", "2026-11-29")
    cost = economics.api_cost(
        price, 1, input_tokens=run.input_tokens, output_tokens=run.output_tokens
    )
    assert cost == pytest.approx(asked * (7 * 1 + 3 * 2) / 1e6)


def test_answers_of_before_tokens_were_counted_are_gone_on_with(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text('question,content,reason\nabc,"{""title"": ""Tea""}",\n')
    with Journal(path) as journal:
        assert journal.answers["abc"] == Answer(TEA, "")
        journal.add("def", Answer(TEA, "", 7, 3))
    with Journal(path) as journal:
        assert journal.answers == {"abc": Answer(TEA, ""), "def": Answer(TEA, "", 7, 3)}


def test_an_llm_of_any_server_is_a_baseline_and_annotates(tmp_path):
    def answer(request, number):
        asked = request["messages"][-1]["content"]
        if "id" not in asked:
            return json.dumps({"label": "factual"})
        said = {"keywords": ["Redis"], "topic": "Databases", "summary": "Redis is fast"}
        return json.dumps({"answers": [{"id": json.loads(asked)["id"], **said}]})

    with serving(answer) as server:
        model = connect("gpt", base_url=server.base_url)
        baseline = baselines.llm(model, ["clickbait", "factual"])
        assert baseline.predict(["A title"]) == ["factual"]
        assert baseline.name == "gpt, zero-shot"
        posts = pd.DataFrame({"text": ["Redis is fast."]})
        run = synthesis.annotate(posts, tmp_path / "posts.csv", model=model)
    assert run.rows["keywords"].tolist() == ["Redis"]


def test_the_command_takes_such_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "right")
    out = tmp_path / "titles.csv"
    with serving(by_seed, key="right") as server:
        options = ["--model", "gpt", "--per-label", "2", "--out", str(out)]
        options += ["--base-url", server.base_url, "--key", "MY_KEY"]
        done = CliRunner().invoke(cli.app, ["titles", *options])
    assert done.exit_code == 0, done.output
    assert "4 usable rows" in done.output


@pytest.mark.ollama
def test_llama_cpp_s_own_server_keeps_to_the_schema():
    from tests.servers.ollama import load, weights

    llama = load(weights())
    found = connect("smollm2", base_url=f"{llama.listening_address}/v1")
    schema = {**SCHEMA, "properties": {"title": {"type": "string", "maxLength": 40}}}
    answer = found.ask(HELLO, schema, {"seed": 1, "num_predict": 60, "temperature": 0.5})
    assert not answer.reason
    assert 0 < len(json.loads(answer.content)["title"]) <= 40
    assert answer.input_tokens > 10 < answer.output_tokens
    long = [{"role": "user", "content": "A title, please. " * 3000}]
    assert found.ask(long, schema, {"num_predict": 60}).reason == "too long for the model"


# --- Several servers


def test_several_servers_are_each_kept_busy():
    with serving(always(TEA), delay=0.05) as one, serving(always(TEA), delay=0.05) as two:
        found = connect("gpt", base_url=[one.base_url, two.base_url])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: found.ask(HELLO, None, {"seed": n}), range(40)))
    assert len(one.requests) + len(two.requests) == 40
    assert min(len(one.requests), len(two.requests)) >= 15


def test_each_of_several_servers_is_asked_as_much_at_once_as_one(tmp_path):
    def most(*servers):
        hosts = [server.url for server in servers]
        synthesis.generate_texts(tmp_path / f"{len(hosts)}.csv", host=hosts, per_label=20)
        return [server.most_at_once for server in servers]

    slow = {"delay": 0.1, "parallel": 4}
    with scripted_ollama.serving(scripted_ollama.title, **slow) as one:
        assert most(one) == [4]
        with scripted_ollama.serving(scripted_ollama.title, **slow) as two:
            assert most(one, two) == [4, 4]


def test_a_server_that_dies_is_left_out_and_said(tmp_path):
    def dying(request, number):
        return scripted_ollama.title(request, number) if number < 3 else Raw(b"", 503)

    with (
        scripted_ollama.serving(dying) as one,
        scripted_ollama.serving(scripted_ollama.title) as two,
    ):
        with pytest.warns(UserWarning, match=rf"{one.url}.*servers go on without it") as told:
            run = synthesis.generate_texts(
                tmp_path / "a.csv", model="phi3", host=[one.url, two.url], per_label=10
            )
        assert len([w for w in told if "go on without" in str(w.message)]) == 1
        alone = synthesis.generate_texts(tmp_path / "b.csv", host=two.url, per_label=10)
    assert run.rows["text"].tolist() == alone.rows["text"].tolist()


PAGE = scripted_ollama.Raw(b"<html>Sign in</html>", kind="text/html")
BROKEN = scripted_ollama.Failure(500, "model runner has unexpectedly stopped")


@pytest.mark.parametrize(("fault", "told"), [(PAGE, "gives no answers"), (BROKEN, "unexpectedly")])
def test_a_server_that_gives_no_answers_costs_no_text(fault, told, tmp_path):
    texts = pd.DataFrame({"text": [f"Post {n} on Redis" for n in range(30)]})

    def right(request, number):
        asked = json.loads(request["messages"][-1]["content"].splitlines()[-1])
        said = {"keywords": ["Redis"], "topic": "Databases", "summary": "It is about Redis"}
        return json.dumps({"answers": [{"id": asked["id"], **said}]})

    with (
        scripted_ollama.serving(always(fault)) as bad,
        scripted_ollama.serving(right, delay=0.02) as good,
    ):
        where = {"host": [bad.url, good.url], "per_call": 1, "concurrency": 2}
        with pytest.warns(UserWarning, match=rf"{bad.url}.*{told}.*go on without it"):
            run = synthesis.annotate(texts, tmp_path / "a.csv", **where)
    assert len(run.rows) == 30
    assert run.rejected.empty


def test_a_question_that_no_server_can_answer_leaves_both_there():
    def told(request, number):
        return BROKEN if request["options"]["seed"] % 2 else TEA

    with (
        scripted_ollama.serving(told) as one,
        scripted_ollama.serving(told) as two,
    ):
        found = connect("phi3", [one.url, two.url])
        for seed in range(10):
            if seed % 2:
                with pytest.raises(RuntimeError, match="unexpectedly stopped"):
                    found.ask(HELLO, None, {"seed": seed})
            else:
                assert found.ask(HELLO, None, {"seed": seed}).content == TEA
        assert len(found.servers) == 2


def test_what_is_no_answer_is_asked_again_by_the_next_run(tmp_path):
    with serving(lambda request, number: Raw(b"a page") if number == 0 else TEA) as server:
        found = connect("gpt", base_url=server.base_url)
        with Journal(tmp_path / "a.csv") as journal:
            assert found.ask(HELLO, None, {}, journal).reason == "garbled answer"
            assert found.ask(HELLO, None, {}, journal).content == TEA
            assert found.ask(HELLO, None, {}, journal).content == TEA
    assert len(server.requests) == 2


def test_a_server_that_is_not_there_from_the_start_is_left_out_unless_all_are():
    with serving(always(TEA)) as server:
        addresses = ["http://127.0.0.1:9/v1", server.base_url]
        with pytest.warns(UserWarning, match=r"127\.0\.0\.1:9.*go on without it"):
            found = connect("gpt", base_url=addresses)
        assert found.ask(HELLO, None, {}).content == TEA
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9"):
        connect("gpt", base_url=["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"])
