"""A server that speaks OpenAI's routes and answers by script; see scripted_ollama.

with serving(lambda request, number: '{"title": "Bakers rescue a ferry"}') as server:
    openai.OpenAI(base_url=server.base_url, api_key="…").chat.completions.create(…)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.servers.loopback import running
from tests.servers.scripted_ollama import Answer, Raw, Said, ScriptedHandler, ScriptedOllama


def Failure(status: int, message: str, **more: Any) -> Raw:
    """A status and OpenAI's error JSON: `Failure(429, "slow down", code="rate_limit_exceeded")`."""
    return Raw(json.dumps({"error": {"message": message, **more}}).encode(), status)


class ScriptedOpenAi(ScriptedOllama):
    """What `serving` yields: `base_url`, and what `ScriptedOllama` has."""

    def __init__(self, answer: Answer, key: str, parallel: int, delay: float, *about: Any) -> None:
        super().__init__(answer, parallel, delay, None, *about, handler=OpenAiHandler)
        self.key = key
        self.base_url = f"{self.url}/v1"


class OpenAiHandler(ScriptedHandler):
    server: ScriptedOpenAi

    def refused(self) -> bool:
        if not self.server.key or self.headers["Authorization"] == f"Bearer {self.server.key}":
            return False
        given = self.headers["Authorization"].removeprefix("Bearer ")
        self.send(Failure(401, f"Incorrect API key provided: {given}."))
        return True

    def do_GET(self) -> None:
        names = [name.removesuffix(":latest") for name in self.server.models]
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in names]
        if self.path != "/v1/models":
            self.give(404, "404 page not found", "text/plain")
        elif not self.refused():
            self.give(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        request = json.loads(self.content())
        if self.path != "/v1/chat/completions":
            self.give(404, "404 page not found", "text/plain")
        elif not self.refused():
            if f"{request['model']}:latest" in self.server.models:
                self.chat(request)
            else:
                said = f"The model `{request['model']}` does not exist"
                self.send(Failure(404, said, code="model_not_found"))

    def send(self, answer: Said | Raw, model: str = "") -> None:
        if isinstance(answer, Raw):
            # The client waits as long as it is told to.
            more = {"retry-after-ms": "1"}
            return self.give(answer.status, answer.body, answer.kind, more=more)
        message = {"role": "assistant", "content": answer.text or None}
        message |= {"reasoning_content": answer.thinking} if answer.thinking else {}
        choice = {"index": 0, "message": message, "finish_reason": answer.reason}
        used = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        told = {"id": "1", "object": "chat.completion", "created": 0, "model": model}
        return self.give(200, {**told, "choices": [choice], "usage": used}, half=answer.half)


@contextmanager
def serving(
    answer: Answer,
    *,
    key: str = "",
    parallel: int = 4,
    delay: float = 0.0,
    models: Iterable[str] = ("gpt",),
) -> Iterator[ScriptedOpenAi]:
    """Serve `answer(request, number)` to those who have the key, if there is one."""
    with running(ScriptedOpenAi(answer, key, parallel, delay, models, ())) as server:
        yield server
