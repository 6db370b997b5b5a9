"""How a server is spoken to that knows OpenAI's protocol, such as vLLM, llama.cpp, LM Studio."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cookbook.answers import NO_ANSWER, Answer
from cookbook.servers import (
    GARBLED,
    LOCAL,
    WEB_PAGE,
    Json,
    no_address,
    too_slow,
    unreachable,
    whole,
)


@dataclass(frozen=True)
class OpenAi:
    """A model on a server that speaks OpenAI's protocol: vLLM, llama.cpp, LM Studio, OpenRouter.

    What the server refuses of a question (a schema, a seed) is left out from then on, with a
    warning: the prompt names the form of the answer too, and whatever comes is read and checked.

    Attributes:
        model: Its name there.
        timeout: Seconds that an answer may take.
        key: The environment variable that holds the key.
        lacks: What the server has refused so far.
        digest, size, thinks: As `Ollama`'s; no such server tells.
    """

    client: Any
    model: str
    timeout: float
    key: str
    lacks: set[str] = field(default_factory=set)
    digest: str = ""
    size: int | None = None
    thinks: bool = False

    @property
    def address(self) -> str:
        """Where the server is."""
        return str(self.client.base_url)

    def ask(self, messages: Sequence[Json], schema: Json | None, options: Json) -> Answer:
        """Ask one question; see `llm.Llm.ask`."""
        while True:
            question = self._question(schema, options)
            try:
                said = self.client.chat.completions.create(
                    model=self.model, messages=messages, **question
                )
            except json.JSONDecodeError as error:
                return Answer(self._cause(error), NO_ANSWER)
            except Exception as error:
                cause = self._cause(error)
                if getattr(error, "status_code", 0) not in (400, 413, 422):
                    raise self.explained(error) from error
                if re.search("context.{0,20}(length|size|window)|too long", cause):
                    return Answer("", "too long for the model")
                if re.search("content.?(filter|policy)|moderation", cause):
                    return Answer("", "refused")
                if not self._simpler(question, cause):
                    raise self.explained(error) from error
                continue
            return self._read(said)

    def _question(self, schema: Json | None, options: Json) -> Json:
        room = "max_tokens" if "max_tokens" not in self.lacks else "max_completion_tokens"
        names = {"temperature": "temperature", "seed": "seed", "num_predict": room}
        question = {names[name]: value for name, value in options.items() if name in names}
        named = {"name": "answer", "schema": schema}
        forms: list[Json] = [{"type": "json_schema", "json_schema": named}, {"type": "json_object"}]
        if schema and (left := [form for form in forms if form["type"] not in self.lacks]):
            question["response_format"] = left[0]
        return {name: value for name, value in question.items() if name not in self.lacks}

    def _simpler(self, question: Json, cause: str) -> bool:
        """Take note of what the server refuses; whether the question can do without it."""
        for name in ("max_tokens", "temperature", "seed"):
            if name in question and name in cause:
                break
        else:
            if "response_format" not in question or not re.search(
                "format|schema|json|grammar", cause
            ):
                return False
            name = question["response_format"]["type"]
        if name not in self.lacks:
            self.lacks.add(name)
            if name != "max_tokens":  # which has another name there
                told = f"{self.address} takes no {name} for {self.model} ({cause[:200]})."
                warnings.warn(f"{told} It is left out from now on.", stacklevel=2)
        return True

    def _read(self, said: Any) -> Answer:
        try:
            choice = said.choices[0]
            message = choice.message
            content = (message.content or "").rstrip()
        except (*GARBLED, LookupError):  # a page, or an error with status 200
            told = said if isinstance(said, str) else getattr(said, "error", None) or said
            return Answer(str(told)[:300], NO_ANSWER)
        used = getattr(said, "usage", None)
        tokens = getattr(used, "prompt_tokens", 0) or 0, getattr(used, "completion_tokens", 0) or 0
        if getattr(message, "refusal", None) or choice.finish_reason == "content_filter":
            return Answer(content or str(message.refusal or ""), "refused", *tokens)
        # What such servers call it, and what OpenRouter does.
        thoughts = [getattr(message, name, None) for name in ("reasoning_content", "reasoning")]
        return whole(content, any(thoughts), choice.finish_reason, tokens)

    def _cause(self, error: BaseException) -> str:
        """Say what the server said, never with the key."""
        body = getattr(error, "body", None)
        said = body.get("message", body) if isinstance(body, dict) else body
        told = str(said or error.__cause__ or error)
        if re.match(r"\s*<(!doctype|html)", told, re.IGNORECASE):
            return WEB_PAGE
        if isinstance(body, dict):
            told += "".join(f" ({body[name]})" for name in ("code", "param") if body.get(name))
        secret = os.environ.get(self.key)
        return (told.replace(secret, "…") if secret else told).strip()[:300]

    def explained(self, error: Exception) -> Exception:
        """Say what is wrong with the server, its address or the key, and what to do."""
        import openai

        if not isinstance(error, openai.OpenAIError):
            return error
        cause, status = self._cause(error), getattr(error, "status_code", 0)
        said = f"{self.address} ({status or type(error).__name__}: {cause})"
        there = os.environ.get(self.key)
        if status in (401, 403):
            how = "refuses the key" if there else "wants a key"
            return PermissionError(
                f"{said} {how}. Put {'the right one' if there else 'it'} into the environment "
                f"variable {self.key}, or name another variable with key=."
            )
        if status == 402 or (status == 429 and re.search("quota|billing|credit", cause)):
            return RuntimeError(
                f"The quota is used up: {said}. What was answered is kept; when there is some "
                "again, the same call goes on."
            )
        if re.search("model", cause, re.IGNORECASE) and (
            status == 404 or re.search("not a valid|invalid model|not exist|not found", cause)
        ):
            names: list[str] = []
            with suppress(Exception):
                names = sorted(model.id for model in self.client.models.list())
            there_are = f"; there are {', '.join(names[:20])}" if names else ""
            return LookupError(f"{self.address} doesn't have {self.model!r}{there_are}. ({cause})")
        if isinstance(error, openai.APITimeoutError):
            return too_slow(self, f"{self.client.max_retries + 1} times")
        if status in (429, 503):
            told = f"{said} stays busy. Lower concurrency=, or go on later with the same call."
        elif status in (404, 405) or cause == WEB_PAGE:
            told = f"It isn't an OpenAI-compatible server that answers at {said}. "
            told += "Check base_url=, which usually ends in /v1."
        elif status:
            return RuntimeError(f"The server reports an error: {said}")
        else:
            told = f"No server answers at {said}. Check base_url=, which usually ends in /v1."
        return unreachable(told, self.address)


def openai_server(model: str, base_url: str, timeout: float, key: str) -> OpenAi:
    """Find an OpenAI-compatible server; see `llm.connect`."""
    import openai  # half a second

    try:
        client = openai.OpenAI(
            base_url=base_url,
            api_key=os.environ.get(key) or "none",  # a server on this machine wants none
            timeout=timeout,
            max_retries=4,  # it waits as long as the server says, else up to eight seconds
            http_client=openai.DefaultHttpxClient(trust_env=not LOCAL.match(base_url)),
        )
        found = OpenAi(client, model, timeout, key)
        client.models.list()  # so that a wrong address or key is said at once
    except openai.OpenAIError as error:
        # Not every server lists them, nor to every key.
        if getattr(error, "status_code", 0) not in (403, 404, 405):
            raise found.explained(error) from error
    except Exception as error:
        raise no_address(base_url, error) from error
    return found
