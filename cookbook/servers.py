"""How an Ollama server is spoken to, and what to say of any server."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import ollama
import tenacity

from cookbook.answers import NO_ANSWER, Answer

Json = dict[str, Any]

# What the client raises when something arrives that is no JSON, or none of Ollama's.
GARBLED = (ValueError, TypeError, AttributeError)
WEB_PAGE = "a web page (HTML)"
LOCAL = re.compile(r"(https?://)?(127\.|localhost|\[::1\]|:|$)")


@dataclass(frozen=True)
class Ollama:
    """A model on a server of Ollama's.

    Attributes:
        model: Its one name: 'phi3' for 'phi3:latest' too.
        timeout: Seconds that an answer may take.
        digest: The hash of its weights, '' where the server doesn't tell.
        size: Their bytes, None where the server doesn't tell.
        thinks: Whether it would think before it answers; it is asked not to.
    """

    client: ollama.Client
    model: str
    timeout: float
    digest: str = ""
    size: int | None = None
    thinks: bool = False

    @property
    def address(self) -> str:
        """Where the server is."""
        return str(self.client._client.base_url)

    def ask(self, messages: Sequence[Json], schema: Json | None, options: Json) -> Answer:
        """Ask one question; see `llm.Llm.ask`."""
        answer: Answer = self.call(self._chat, messages=messages, format=schema, options=options)
        return answer

    def call(self, method: Any, **arguments: Any) -> Any:
        """Call a method of the client; what may pass is tried again, the rest explained."""
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.25, max=30),
            stop=tenacity.stop_after_attempt(6) | tenacity.stop_after_delay(2 * self.timeout),
            reraise=True,
        )
        try:
            return retry(method, **arguments)
        except (OSError, httpx.TransportError, ollama.ResponseError, *GARBLED) as error:
            raise self._explained(error) from error

    def _chat(self, **question: Any) -> Answer:
        think = False if self.thinks else None
        try:
            said = self.client.chat(self.model, keep_alive="15m", think=think, **question)
        except GARBLED as error:
            return Answer(_cause(error), NO_ANSWER)
        used = said.prompt_eval_count or 0, said.eval_count or 0
        content = (said.message.content or "").rstrip()
        # Unfinished without a word of why: as after many repeated tokens.
        ended = said.done_reason if said.done else "early"
        return whole(content, said.message.thinking, ended, used)

    def _explained(self, error: Exception) -> Exception:
        """Say what is wrong with the server, or its address, and what to do."""
        cause, status = _cause(error), getattr(error, "status_code", 0)
        said = f"{self.address} ({status or type(error).__name__}: {cause})"
        if status == 404 and re.search("model .*not found", cause):
            return LookupError(
                f"{self.address} doesn't have {self.model!r}. Run: ollama pull {self.model}"
            )
        if isinstance(error, httpx.ReadTimeout):
            return too_slow(self, "twice")
        if status in (429, 503):
            told = "{} stays busy. Lower concurrency=, or raise the server's OLLAMA_MAX_QUEUE."
        elif status in (404, 405) or cause == WEB_PAGE or isinstance(error, GARBLED):
            told = (
                "It isn't Ollama that answers at {}. Check the address; the port usually is 11434. "
                "A server that speaks OpenAI's protocol is named with base_url=."
            )
        elif status:
            return RuntimeError(f"The server reports an error: {said}")
        elif re.search("ssl|tls|certificate", cause, re.IGNORECASE):
            told = "No encrypted connection to {}. Write http:// if nothing is encrypted there; "
            told += "set SSL_CERT_FILE to the certificate if it is your own."
        else:
            told = "No Ollama server answers at {}. Start one with: ollama serve (to install it: "
            told += "https://ollama.com/download), or name another with host= or OLLAMA_HOST."
        return unreachable(told.format(said), self.address)


def ollama_server(model: str, host: str | None, timeout: float) -> Ollama:
    """Find a model on an Ollama server; see `llm.connect`."""
    name = model.removesuffix(":latest")
    found = Ollama(ollama_client(host, timeout), name, timeout)
    skills = found.call(found.client.show, model=model).capabilities or ["completion"]
    if "completion" not in skills:
        raise ValueError(f"{model} writes nothing; it can do: {', '.join(skills)}. Take another.")
    about: Any = ollama.ListResponse.Model()
    with suppress(Exception):  # what stands before the server may lack this; the rest works without
        listed = {str(one.model).removesuffix(":latest"): one for one in found.client.list().models}
        about = listed[name]
    thinks = "thinking" in skills
    return Ollama(found.client, name, timeout, about.digest or "", about.size or None, thinks)


def ollama_client(host: str | None, timeout: float) -> ollama.Client:
    """Return a client of the server at this address, or at `OLLAMA_HOST`."""
    given = (host or os.environ.get("OLLAMA_HOST") or "").strip()
    # Other clients of the same server want these endings; 0.0.0.0 is where a server listens.
    address = re.sub(r"/+(v1|api)(/[a-z/]*)?$", "", given).replace("0.0.0.0", "127.0.0.1")
    patience = httpx.Timeout(timeout, connect=min(timeout, 10))
    try:
        return ollama.Client(address, timeout=patience, trust_env=not LOCAL.match(address))
    except (ValueError, httpx.InvalidURL) as error:
        raise no_address(given, error) from error


def whole(content: str, thinking: Any, ended: str | None, tokens: tuple[int, int]) -> Answer:
    """Make an answer of what came, with the reason if it can't be whole."""
    thoughts = thinking or "<think" in content
    reason = "thoughts, but no answer" if thoughts and not content else ""
    if ended == "length":
        reason = "truncated while thinking" if thoughts else "truncated"
    return Answer(content, "ended early" if ended == "early" else reason, *tokens)


def no_address(given: str, error: Exception) -> ValueError:
    """Say that an address can't be one."""
    told = f"{given!r} is no address of a server ({error}), such as http://127.0.0.1:11434"
    return ValueError(told)


def too_slow(server: Any, times: str) -> TimeoutError:
    """Say that an answer took too long, and what to do."""
    return TimeoutError(
        f"{server.model} at {server.address} took longer than {server.timeout:.0f} s for an "
        f"answer, {times}. Raise timeout=, lower concurrency=, or take a smaller model."
    )


def unreachable(told: str, address: str) -> ConnectionError:
    """Say that a server isn't there; a proxy may be the reason."""
    if urllib.request.getproxies() and not LOCAL.match(address):
        told += " A proxy is set; NO_PROXY lists the servers to reach without it."
    return ConnectionError(told)


def _cause(error: BaseException) -> str:
    """Say what came, or what the client hides behind a sentence of its own."""
    if isinstance(error, ConnectionError) and error.__context__:
        error = error.__context__
    told = str(getattr(error, "doc", "") or getattr(error, "error", "") or error)
    is_page = re.match(r"\s*<(!doctype|html)", told, re.IGNORECASE)
    return WEB_PAGE if is_page else told.strip()[:300] or type(error).__name__


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, ollama.ResponseError):
        return error.status_code in (429, 500, 502, 503, 504)
    return isinstance(error, (ConnectionError, httpx.TransportError))
