"""Ask an LLM many questions at once, on one server or several; go on where a killed run was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ollama
import tenacity
from tqdm.auto import tqdm

from cookbook.answers import NO_ANSWER, Answer, Journal, fingerprint
from cookbook.answers import json_values as json_values  # for those who ask
from cookbook.answers import read_json as read_json
from cookbook.openai_servers import OpenAi, openai_server
from cookbook.servers import Json, Ollama, ollama_client, ollama_server

Server = Ollama | OpenAi

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Llm:
    """A model, on one server or several, as `connect` found it.

    Attributes:
        model: Its one name: 'phi3' for 'phi3:latest' too.
        servers: Those that are asked. One that dies is taken out, with a warning; so is one that
            three times in a row gives an error or no answer where another has one.
    """

    model: str
    servers: list[Server]
    _busy: Counter[str] = field(default_factory=Counter, repr=False)
    _odd: Counter[str] = field(default_factory=Counter, repr=False)
    _one_at_a_time: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def address(self) -> str:
        """Where the servers are."""
        return ", ".join(server.address for server in self.servers)

    @property
    def digest(self) -> str:
        """The hash of its weights, '' where the server doesn't tell."""
        return self.servers[0].digest

    @property
    def size(self) -> int | None:
        """The bytes of its weights, None where the server doesn't tell."""
        return self.servers[0].size

    def at_once(self, concurrency: int) -> int:
        """Return how many questions may be under way, where each server takes so many."""
        return concurrency * len(self.servers)

    def ask(
        self,
        messages: Sequence[Json],
        schema: Json | None,
        options: Json,
        journal: Journal | None = None,
    ) -> Answer:
        """Ask one question, again where the server is busy or the connection broke.

        Of several servers the one with fewest questions under way is asked, the next one where it
        is gone, reports an error or gives no answer.

        Args:
            messages: The conversation so far.
            schema: JSON schema that binds the answer.
            options: Of the model, as Ollama names them: `temperature`, `seed`, `num_ctx`. Without
                `num_predict` it may write without end.
            journal: Where an answer may stand already, and is kept; not what is none.

        Returns:
            The answer; what isn't whole has a reason.

        Raises:
            ConnectionError: The last server is gone, or stays busy.
            TimeoutError: It took longer than the timeout, more than once.
            LookupError: The model is gone.
            PermissionError: The key is missing or wrong.
            RuntimeError: The server reports an error, or a quota is used up.
        """
        thinks = self.servers[0].thinks
        key = fingerprint(self.model, self.digest, thinks, messages, schema, options)
        if journal and key in journal.answers:
            return journal.answers[key]
        answer = self._ask_one(messages, schema, options)
        if journal and answer.reason != NO_ANSWER:
            journal.add(key, answer)
        return answer

    def _ask_one(self, *question: Any) -> Answer:
        late: list[Server] = []
        odd: list[tuple[Server, Exception]] = []
        while True:
            with self._one_at_a_time:
                tried = [*late, *(one for one, _ in odd)]
                others = [one for one in self.servers if one not in tried] or self.servers
                server = min(others, key=lambda one: self._busy[one.address])
                self._busy[server.address] += 1
            try:
                answer = server.ask(*question)
            except TimeoutError:  # the question may be at fault, so the server stays
                late.append(server)
                if len(late) == 2 or len(self.servers) == 1:
                    raise
            except (OSError, LookupError) as error:
                self._leave_out(server, error)
            except RuntimeError as error:  # here too the question may be at fault
                odd.append((server, error))
                if not self._others(server, tried):
                    raise
            else:
                if answer.reason != NO_ANSWER:
                    self._blame(odd, server)
                    return answer
                if not self._others(server, tried):
                    return answer
                told = f"{server.address} gives no answers, but {answer.content[:80]!r}."
                odd.append((server, ConnectionError(told)))
            finally:
                with self._one_at_a_time:
                    self._busy[server.address] -= 1

    def _others(self, server: Server, tried: Sequence[Server]) -> list[Server]:
        """Return the servers that are left to be asked after this one."""
        return [one for one in self.servers if one is not server and one not in tried]

    def _blame(self, odd: Sequence[tuple[Server, Exception]], server: Server) -> None:
        """Leave out who could not answer, three times in a row, what this server could."""
        with self._one_at_a_time:
            self._odd[server.address] = 0
            self._odd.update(one.address for one, _ in odd)
        for one, error in odd:
            if self._odd[one.address] >= 3:
                self._leave_out(one, error)

    def _leave_out(self, server: Server, error: Exception) -> None:
        """Take a server out, if another is left; else the error is raised."""
        with self._one_at_a_time:
            others = [one for one in self.servers if one is not server]
            if not others:
                raise error
            if len(others) < len(self.servers):  # the first question to find it gone
                self.servers.remove(server)
                warnings.warn(f"{error} The other servers go on without it.", stacklevel=2)


def connect(
    model: str | Llm,
    host: str | Sequence[str] | None = None,
    timeout: float = 120,
    *,
    base_url: str | Sequence[str] | None = None,
    key: str = "OPENAI_API_KEY",
) -> Llm:
    """Find a model on an Ollama server, or on any that speaks OpenAI's protocol.

    What takes a model's name as `model` takes the result too:
    `generate_texts("titles.csv", model=connect("gpt-4o", base_url="https://api.openai.com/v1"))`.

    Args:
        model: A model that the server has; what was connected before is returned as it is.
        host: Ollama's address, with or without '/v1', or several: each is kept busy. None for
            `OLLAMA_HOST`, or this machine's.
        timeout: Seconds that an answer may take.
        base_url: Address of an OpenAI-compatible server, or several, in place of Ollama's; it
            usually ends in '/v1'.
        key: The environment variable that holds the key, which is read there and never written.

    Returns:
        The model, ready to be asked.

    Raises:
        ConnectionError: No server is there, or what is there isn't one; says what to do. Of several
            servers, those that are there are taken, with a warning.
        LookupError: The server doesn't have the model; names the `ollama pull` to run.
        PermissionError: The key is missing or wrong.
        ValueError: The address can't be one, the model can't write, or two servers hold different
            weights by the same name.
    """
    if isinstance(model, Llm):
        return model
    given = host if base_url is None else base_url
    found: list[Server] = []
    errors: list[Exception] = []
    for address in [given] if given is None or isinstance(given, str) else given:
        try:
            if base_url is None:
                found.append(ollama_server(model, address, timeout))
            else:
                found.append(openai_server(model, str(address), timeout, key))
        except (OSError, LookupError) as error:
            errors.append(error)
    if not found:
        raise errors[0] if errors else ValueError("host= or base_url= is an empty list")
    for one in errors:
        warnings.warn(f"{one} The other servers go on without it.", stacklevel=2)
    if len({(server.digest, server.thinks) for server in found}) > 1:
        held = ", ".join(f"{server.address}: {server.digest[:12]}" for server in found)
        raise ValueError(f"Servers hold different weights by the name {model!r}: {held}")
    return Llm(found[0].model, found)


def start_ollama(model: str, host: str | None = None, concurrency: int = 4) -> bool:
    """Start Ollama in Colab, and see to it that a model is there; elsewhere only look for a server.

    Args:
        model: The model, pulled where it is missing.
        host: As for `connect`.
        concurrency: How many questions the server is to work on at once.

    Returns:
        Whether the model can be asked; a line says so.
    """
    client = ollama_client(host, 3600)  # a pull takes minutes
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
