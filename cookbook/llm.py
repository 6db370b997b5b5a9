"""Ask an LLM server, Ollama, many questions at once; go on where a killed run was."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx
import ollama
import tenacity
from tqdm.auto import tqdm

from cookbook.answers import Answer, Journal, fingerprint
from cookbook.answers import json_values as json_values  # for those who ask
from cookbook.answers import read_json as read_json

Json = dict[str, Any]
Job = TypeVar("Job")
Result = TypeVar("Result")

# What the client raises when something arrives that is no JSON, or none of Ollama's.
_GARBLED = (ValueError, TypeError, AttributeError)
_WEB_PAGE = "a web page (HTML)"
_LOCAL = re.compile(r"(http://)?(127\.|localhost|\[::1\]|:|$)")


@dataclass(frozen=True)
class Llm:
    """A model on a server, as `connect` found it.

    Attributes:
        model: Its one name: 'phi3' for 'phi3:latest' too.
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

    def ask(
        self,
        messages: Sequence[Json],
        schema: Json | None,
        options: Json,
        journal: Journal | None = None,
    ) -> Answer:
        """Ask one question, again where the server is busy or the connection broke.

        Args:
            messages: The conversation so far.
            schema: JSON schema that binds the answer.
            options: Of the model. Without `num_predict` it may write without end.
            journal: Where an answer may stand already, and is kept.

        Returns:
            The answer; what isn't whole has a reason.

        Raises:
            ConnectionError: The server is gone, or stays busy.
            TimeoutError: It took longer than the timeout, twice.
            LookupError: The model is gone.
            RuntimeError: The server reports an error.
        """
        key = fingerprint(self.model, self.digest, self.thinks, messages, schema, options)
        if journal and key in journal.answers:
            return journal.answers[key]
        answer: Answer = self.call(self._chat, messages=messages, format=schema, options=options)
        if journal:
            journal.add(key, answer)
        return answer

    def call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Call a method of the client; what may pass is tried again, the rest explained."""
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.25, max=30),
            stop=tenacity.stop_after_attempt(6) | tenacity.stop_after_delay(2 * self.timeout),
            reraise=True,
        )
        try:
            return retry(method, **arguments)
        except (OSError, httpx.TransportError, ollama.ResponseError, *_GARBLED) as error:
            raise self._explained(error) from error

    def _chat(self, **question: Any) -> Answer:
        think = False if self.thinks else None
        try:
            said = self.client.chat(self.model, keep_alive="15m", think=think, **question)
        except _GARBLED as error:
            return Answer(_cause(error), "garbled answer")
        content = (said.message.content or "").rstrip()
        thoughts = said.message.thinking or "<think" in content
        if said.done_reason == "length":
            return Answer(content, "truncated while thinking" if thoughts else "truncated")
        if not said.done:  # as after many repeated tokens
            return Answer(content, "ended early")
        return Answer(content, "thoughts, but no answer" if thoughts and not content else "")

    def _explained(self, error: Exception) -> Exception:
        """Say what is wrong with the server, or its address, and what to do."""
        cause, status = _cause(error), getattr(error, "status_code", 0)
        said = f"{self.address} ({status or type(error).__name__}: {cause})"
        if status == 404 and re.search("model .*not found", cause):
            return LookupError(
                f"{self.address} doesn't have {self.model!r}. Run: ollama pull {self.model}"
            )
        if isinstance(error, httpx.ReadTimeout):
            return TimeoutError(
                f"{self.model} at {self.address} took longer than {self.timeout:.0f} s for an "
                "answer, twice. Raise timeout=, lower concurrency=, or take a smaller model."
            )
        if status in (429, 503):
            told = "{} stays busy. Lower concurrency=, or raise the server's OLLAMA_MAX_QUEUE."
        elif status in (404, 405) or cause == _WEB_PAGE or isinstance(error, _GARBLED):
            told = (
                "It isn't Ollama that answers at {}. Check the address; the port usually is 11434."
            )
        elif status:
            return RuntimeError(f"The server reports an error: {said}")
        elif re.search("ssl|tls|certificate", cause, re.IGNORECASE):
            told = "No encrypted connection to {}. Write http:// if nothing is encrypted there; "
            told += "set SSL_CERT_FILE to the certificate if it is your own."
        else:
            told = "No Ollama server answers at {}. Start one with: ollama serve (to install it: "
            told += "https://ollama.com/download), or name another with host= or OLLAMA_HOST."
        if urllib.request.getproxies() and not _LOCAL.match(self.address):
            told += " A proxy is set; NO_PROXY lists the servers to reach without it."
        return ConnectionError(told.format(said))


def connect(model: str, host: str | None = None, timeout: float = 120) -> Llm:
    """Find a model on an Ollama server.

    Args:
        model: A model that the server has pulled.
        host: Its address, with or without '/v1'; None for `OLLAMA_HOST`, or this machine's.
        timeout: Seconds that an answer may take.

    Returns:
        The model, ready to be asked.

    Raises:
        ConnectionError: No server is there, or what is there isn't Ollama; says what to do.
        LookupError: The server doesn't have the model; names the `ollama pull` to run.
        ValueError: The address can't be one, or the model can't write.
    """
    name = model.removesuffix(":latest")
    llm = Llm(_client(host, timeout), name, timeout)
    skills = llm.call(llm.client.show, model=model).capabilities or ["completion"]
    if "completion" not in skills:
        raise ValueError(f"{model} writes nothing; it can do: {', '.join(skills)}. Take another.")
    found: Any = ollama.ListResponse.Model()
    with suppress(Exception):  # what stands before the server may lack this; the rest works without
        listed = {str(one.model).removesuffix(":latest"): one for one in llm.client.list().models}
        found = listed[name]
    return replace(llm, digest=found.digest or "", size=found.size, thinks="thinking" in skills)


def start_ollama(model: str, host: str | None = None, concurrency: int = 4) -> bool:
    """Start Ollama in Colab, and see to it that a model is there; elsewhere only look for a server.

    Args:
        model: The model, pulled where it is missing.
        host: As for `connect`.
        concurrency: How many questions the server is to work on at once.

    Returns:
        Whether the model can be asked; a line says so.
    """
    client = _client(host, 3600)  # a pull takes minutes
    if "google.colab" in sys.modules:
        if shutil.which("ollama") is None:
            install = "curl -fsSL https://ollama.com/install.sh | sh"
            subprocess.run(install, shell=True, check=True, capture_output=True)
        settings = {**os.environ, "OLLAMA_NUM_PARALLEL": str(concurrency)}
        # Where one runs already, this ends at once.
        subprocess.Popen(["ollama", "serve"], env=settings, stderr=subprocess.DEVNULL)
        patient = tenacity.Retrying(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(1))
        with suppress(tenacity.RetryError):
            patient(client.list)
    try:
        try:
            connect(model, host)
        except LookupError:
            client.pull(model)
    except (OSError, ollama.ResponseError) as error:
        tqdm.write(str(error))
        return False
    tqdm.write(f"Ollama answers, with {model}.")
    return True


def in_order(
    work: Callable[[Job], Result], next_job: Callable[[], Job | None], concurrency: int
) -> Generator[tuple[Job, Result]]:
    """Work on several jobs at once; yield each with its result, in the order they were given out.

    Args:
        work: What is done, in threads.
        next_job: Gives out a job, which may depend on what was made of earlier results; None where
            there is none for the moment.
        concurrency: Jobs at once.

    Example:
        >>> jobs = iter([3, 1])
        >>> list(in_order(str, lambda: next(jobs, None), 2))
        [(3, '3'), (1, '1')]
    """
    pool = ThreadPoolExecutor(concurrency)
    waiting: deque[tuple[Job, Future[Result]]] = deque()
    try:
        while True:
            # Twice as many as are worked on, so that one slow answer doesn't hold up the others.
            while len(waiting) < 2 * concurrency and (job := next_job()) is not None:
                waiting.append((job, pool.submit(work, job)))
            if not waiting:
                return
            job, future = waiting.popleft()
            yield job, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _client(host: str | None, timeout: float) -> ollama.Client:
    given = (host or os.environ.get("OLLAMA_HOST") or "").strip()
    # Other clients of the same server want these endings; 0.0.0.0 is where a server listens.
    address = re.sub(r"/+(v1|api)(/[a-z/]*)?$", "", given).replace("0.0.0.0", "127.0.0.1")
    patience = httpx.Timeout(timeout, connect=min(timeout, 10))
    try:
        return ollama.Client(address, timeout=patience, trust_env=not _LOCAL.match(address))
    except (ValueError, httpx.InvalidURL) as error:
        told = f"{given!r} is no address of a server ({error}), such as http://127.0.0.1:11434"
        raise ValueError(told) from error


def _cause(error: BaseException) -> str:
    """Say what came, or what the client hides behind a sentence of its own."""
    if isinstance(error, ConnectionError) and error.__context__:
        error = error.__context__
    told = str(getattr(error, "doc", "") or getattr(error, "error", "") or error)
    is_page = re.match(r"\s*<(!doctype|html)", told, re.IGNORECASE)
    return _WEB_PAGE if is_page else told.strip()[:300] or type(error).__name__


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, ollama.ResponseError):
        return error.status_code in (429, 500, 502, 503, 504)
    return isinstance(error, (ConnectionError, httpx.TransportError))
