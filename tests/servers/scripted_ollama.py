"""A server that speaks Ollama's routes and answers by script: for faults, speed and `kill -9`.

    with serving(lambda request, number: '{"title": "Bakers rescue a ferry"}') as server:
        ollama.Client(server.url).chat("phi3", [{"role": "user", "content": "A title, please"}])

It needs the standard library only. The routes themselves are in `OllamaHandler`, which
tests/servers/ollama.py puts in front of a real model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Json = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """An HTTP status and Ollama's error JSON: `Failure(503, "server busy")`."""

    status: int
    error: str


@dataclass(frozen=True)
class Truncated:
    """An answer that ran into `num_predict`: its done_reason is "length"."""

    text: str


@dataclass(frozen=True)
class Cut:
    """An answer without its end: a stream without the done message, a body that breaks off."""

    text: str


@dataclass(frozen=True)
class Raw:
    """These bytes in place of the JSON, or of the stream's lines."""

    body: bytes


@dataclass(frozen=True)
class Slow:
    """An answer after so many seconds more; nobody waits for it once the server stops."""

    text: str
    seconds: float


class OllamaServer(ThreadingHTTPServer):
    """Listens on loopback. When it stops, it hangs up on its clients, as a killed Ollama does."""

    daemon_threads = False  # closing waits for them
    size = 1  # of a model, in bytes
    request_queue_size = 128

    def __init__(self, handler: type[OllamaHandler], models: Iterable[str], port: int) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.models = [full_name(model) for model in models]
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.connections: set[Any] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)


Server = TypeVar("Server", bound=OllamaServer)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Runs the server in a thread of this process."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        for connection in list(server.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()


def full_name(model: str) -> str:
    return model if ":" in model else f"{model}:latest"


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


def listing(model: str, size: int = 1) -> Json:
    digest = hashlib.sha256(model.encode()).hexdigest()
    details = {"format": "gguf", "family": "test", "parameter_size": "", "quantization_level": ""}
    names = {"name": model, "model": model}
    return {**names, "modified_at": now(), "size": size, "digest": digest, "details": details}


class OllamaHandler(BaseHTTPRequestHandler):
    """Ollama's routes. A subclass answers chat and generate: `say`, `say`, …, `done` or `fail`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: OllamaServer
    body: Json  # of the request
    pieces: list[str]  # of the answer so far
    streaming: bool  # whether a part of it has been sent

    def complete(self) -> None:
        raise NotImplementedError

    def say(self, text: str) -> None:
        """A piece of the answer: streamed, or kept for the end."""
        self.pieces.append(text)
        if self.body.get("stream", True):
            self.send_line(self.part(text, done=False))

    def done(self, reason: str, **counts: int) -> None:
        """Ends the answer."""
        counts["total_duration"] = time.perf_counter_ns() - self.began
        last = {"done": True, "done_reason": reason, **counts}
        if self.body.get("stream", True):
            self.send_line(self.part("", **last))
            self.end_stream()
        else:
            self.send(200, self.part("".join(self.pieces), **last))

    def fail(self, status: int, error: str) -> None:
        """An error: with its HTTP status, or as a line of the stream that has begun."""
        if self.streaming:
            self.send_line({"error": error})
            self.end_stream()
        else:
            self.send(status, {"error": error})

    def gone(self, within: float = 0.0) -> bool:
        """Whether the client hangs up within so many seconds, or has done so."""
        self.connection.settimeout(within)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(None)

    def part(self, text: str, **rest: Any) -> Json:
        message = {"message": {"role": "assistant", "content": text}}
        content = message if self.path == "/api/chat" else {"response": text}
        return {"model": self.body["model"], "created_at": now(), **content, **rest}

    def send(self, status: int, body: Json | str | bytes, length: int | None = None) -> None:
        """A whole response; a `length` beyond the body's breaks off the connection."""
        kind = "text/plain" if isinstance(body, str) else "application/json"
        if isinstance(body, dict):
            body = json.dumps(body)
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(length or len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = self.close_connection or bool(length)

    def send_line(self, line: Json) -> None:
        if not self.streaming:
            self.streaming = True
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
        data = json.dumps(line).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self) -> None:  # the name that http.server calls
        models = {"models": [listing(model, self.server.size) for model in self.server.models]}
        pages: dict[str, Json | str] = {
            "/": "Ollama is running",
            "/api/version": {"version": "0.0.0"},
            "/api/tags": models,
            "/api/ps": models,
        }
        found = self.path in pages
        self.send(200 if found else 404, pages.get(self.path, "404 page not found"))

    def do_POST(self) -> None:
        self.began = time.perf_counter_ns()
        self.pieces = []
        self.streaming = False
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.body = json.loads(data)
            model = str(self.body["model"])
        except (ValueError, KeyError, TypeError) as error:
            return self.fail(400, repr(error) if data else "missing request body")
        if self.path not in ("/api/chat", "/api/generate", "/api/show"):
            return self.send(404, "404 page not found")
        if full_name(model) not in self.server.models:
            return self.fail(404, f"model '{model}' not found")
        if self.path == "/api/show":
            details = listing(full_name(model))["details"]
            shown = {"details": details, "model_info": {}, "capabilities": ["completion"]}
            return self.send(200, shown)
        if not (self.body.get("messages") or self.body.get("prompt")):
            return self.send(200, self.part("", done=True, done_reason="load"))
        return self.complete()

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client may hang up at any time
            super().handle()

    def log_message(self, *args: Any) -> None:
        """Keeps quiet."""


Answer = Callable[[Json, int], Any]


class ScriptedOllama(OllamaServer):
    """What `serving` yields: `url`, `requests` in order of arrival, and `most_at_once`."""

    def __init__(
        self, answer: Answer, parallel: int, delay: float, models: Iterable[str], port: int
    ) -> None:
        super().__init__(ScriptedHandler, models, port)
        self.answer, self.delay = answer, delay
        self.requests: list[Json] = []
        self.most_at_once = 0
        self.at_once = 0
        self.slots = threading.Semaphore(parallel)
        self.arrival = threading.Condition()

    def wait_for(self, count: int, timeout: float = 30.0) -> bool:
        """Waits until so many requests have arrived; whether they have."""
        with self.arrival:
            return self.arrival.wait_for(lambda: len(self.requests) >= count, timeout)

    @contextmanager
    def turn(self, request: Json) -> Iterator[int]:
        """Counts a request in, waits for one of the parallel slots, and counts it out."""
        with self.arrival:
            number = len(self.requests)
            self.requests.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.arrival.notify_all()
        try:
            with self.slots:
                yield number
        finally:
            with self.arrival:
                self.at_once -= 1


class ScriptedHandler(OllamaHandler):
    server: ScriptedOllama

    def complete(self) -> None:
        with self.server.turn(self.body) as number:
            try:
                answer = self.server.answer(self.body, number)
            except Exception as error:
                answer = Failure(500, f"the script raised {error!r}")
            extra = answer.seconds if isinstance(answer, Slow) else 0.0
            hung_up = self.gone(within=self.server.delay + extra)
        # Counted out before the answer is sent: whoever has it may ask again at once.
        if hung_up:
            self.close_connection = True
        elif isinstance(answer, Failure):
            self.fail(answer.status, answer.error)
        elif isinstance(answer, Raw):
            self.send(200, answer.body)
        elif isinstance(answer, Cut):
            self.cut(answer.text)
        else:
            self.tell(answer)

    def tell(self, answer: str | Truncated | Slow) -> None:
        words = re.findall(r"\s*\S+|\s+$", answer if isinstance(answer, str) else answer.text)
        for word in words:
            self.say(word)
        asked = self.body.get("messages") or self.body["prompt"]
        counts = {"prompt_eval_count": len(str(asked).split()), "eval_count": len(words)}
        self.done("length" if isinstance(answer, Truncated) else "stop", **counts)

    def cut(self, text: str) -> None:
        if self.body.get("stream", True):
            self.say(text)
            self.end_stream()
        else:
            whole = json.dumps(self.part(text, done=True)).encode()
            self.send(200, whole[: len(whole) // 2], length=len(whole))


@contextmanager
def serving(
    answer: Answer,
    *,
    parallel: int = 4,
    delay: float = 0.0,
    models: Iterable[str] = ("phi3:latest",),
    port: int = 0,
) -> Iterator[ScriptedOllama]:
    """Serves `answer(request, number)`: a text, or one of the faults above.

    Args:
        answer: Called once a chat or generate request, from several threads at once.
        parallel: How many requests are worked on at once; the others queue.
        delay: Seconds that every answer takes, of which it holds its slot.
        models: The names that it knows.
        port: 0 takes a free one.
    """
    with running(ScriptedOllama(answer, parallel, delay, models, port)) as server:
        yield server


QUALITIES = """
    Angry Anxious Barefoot Bold Careless Cautious Cheerful Clever Clumsy Curious Eager Elderly
    Fearless Forgetful Former Gentle Grumpy Homesick Honest Humble Hungry Jealous Lonely Lucky
    Masked Nervous Noisy Patient Proud Quiet Restless Retired Sleepless Stubborn Tired Unpaid
    Wealthy Wise Worried Young
"""
PEOPLE = """
    actors astronomers bakers barbers beekeepers bishops brewers carpenters chemists climbers
    coaches dancers dentists divers farmers fishermen gardeners geologists goalkeepers judges
    librarians mayors miners nurses painters pilots plumbers poets postmen pupils sailors shepherds
    singers students surgeons tailors teachers tourists weavers welders
"""
DEEDS = """
    abandon adopt auction ban borrow bury celebrate chase collect copy count decorate defend deliver
    destroy discover donate draw examine film forget hide inherit invent lose measure mend paint
    photograph praise protect repair rescue return sell steal study test translate weigh
"""
THINGS = """
    accordions anchors apples balloons bicycles blankets bridges candles canoes carpets chessboards
    clocks coins comets diaries ferries fossils glaciers goats greenhouses hats helmets kites
    ladders lanterns lighthouses locomotives maps mushrooms orchids parrots pumpkins satellites
    saxophones sculptures telescopes trams umbrellas violins windmills
"""
PLACES = """
    Accra Ankara Athens Bergen Bogota Boston Bristol Cairo Calgary Cork Dakar Delhi Dresden Florence
    Geneva Ghent Hanoi Helsinki Istanbul Jakarta Kyoto Lagos Lima Lisbon Malmo Manila Montreal
    Nairobi Oslo Perth Porto Prague Quito Riga Seville Sydney Tallinn Toronto Vienna Zagreb
"""
LISTS = [words.split() for words in (QUALITIES, PEOPLE, DEEDS, THINGS, PLACES)]


def title(request: Json, number: int) -> str:
    """A title of its own for every seed up to a hundred million; without a seed, for every request.

    >>> title({"options": {"seed": 1}}, 0)
    '{"title": "Wise painters copy sculptures in Istanbul"}'
    """
    seed = (request.get("options") or {}).get("seed", number)
    rest = seed * 48_271_397  # coprime with the number of titles, so that no two seeds meet
    chosen = []
    for words in LISTS:
        rest, place = divmod(rest, len(words))
        chosen.append(words[place])
    return json.dumps({"title": "{} {} {} {} in {}".format(*chosen)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answers every request with another title.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds an answer")
    parser.add_argument("--parallel", type=int, default=4, help="requests worked on at once")
    options = vars(parser.parse_args())
    with serving(title, **options) as scripted:
        print(f"listening on {scripted.url}", flush=True)
        threading.Event().wait()
