"""A server that speaks Ollama's routes and answers by script: for faults, speed and `kill -9`.

    with serving(lambda request, number: '{"title": "Bakers rescue a ferry"}') as server:
        ollama.Client(server.url).chat("phi3", [{"role": "user", "content": "A title, please"}])

It speaks what the cookbook asks for, which streams nothing.
"""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.servers.loopback import Handler, Json, Server, running


@dataclass(frozen=True)
class Said:
    """An answer: its text, what the model thought before, why it ended and after how long.

    With `half` it breaks off in the middle. Nobody waits for it once the server stops.
    """

    text: str
    thinking: str = ""
    reason: str = "stop"
    seconds: float = 0.0
    half: bool = False


@dataclass(frozen=True)
class Raw:
    """These bytes in place of an answer."""

    body: bytes
    status: int = 200
    kind: str = "application/json"


Thought = Said
Cut = partial(Said, half=True)
Truncated = partial(Said, reason="length")  # it ran into num_predict


def Slow(text: str, seconds: float) -> Said:
    """An answer after so many seconds more."""
    return Said(text, seconds=seconds)


def Failure(status: int, error: str) -> Raw:
    """An HTTP status and Ollama's error JSON: `Failure(503, "server busy")`."""
    return Raw(json.dumps({"error": error}).encode(), status)


class OllamaServer(Server):
    """Knows these models, which can do these things."""

    def __init__(
        self, handler: type[Handler], models: Iterable[str], capabilities: Iterable[str]
    ) -> None:
        super().__init__(handler)
        names = [full_name(model) for model in models]
        self.models = {name: {"name": name, "model": name, "size": 1} for name in names}
        self.capabilities = list(capabilities)


class OllamaHandler(Handler):
    """Ollama's routes; a subclass answers chats."""

    server: OllamaServer

    def do_GET(self) -> None:  # the name that http.server calls
        models = {"models": list(self.server.models.values())}
        pages: Json = {"/": "Ollama is running", "/api/version": {"version": "0.12.0"}}
        pages |= {"/api/tags": models, "/api/ps": models}
        if self.path in pages:
            return self.give(200, pages[self.path])
        return self.give(404, "404 page not found", "text/plain")

    def do_POST(self) -> None:
        asked = self.content()
        if self.path not in ("/api/chat", "/api/show"):
            return self.give(404, "404 page not found", "text/plain")
        request = json.loads(asked)
        if full_name(request["model"]) not in self.server.models:
            return self.give(404, {"error": f"model '{request['model']}' not found"})
        if self.path == "/api/show":
            shown = {"details": {}, "model_info": {}, "capabilities": self.server.capabilities}
            return self.give(200, shown)
        return self.chat(request)

    @abstractmethod
    def chat(self, request: Json) -> None:
        """Answer a question."""

    def send(self, answer: Said | Raw, model: str = "") -> None:
        if isinstance(answer, Raw):
            return self.give(answer.status, answer.body, answer.kind)
        message = {"role": "assistant", "content": answer.text}
        message |= {"thinking": answer.thinking} if answer.thinking else {}
        told = {"model": model, "created_at": "2026-01-01T00:00:00Z", "message": message}
        return self.give(
            200, {**told, "done": True, "done_reason": answer.reason}, half=answer.half
        )


Answer = Callable[[Json, int], Any]


class ScriptedOllama(OllamaServer):
    """What `serving` yields: `url`, `requests` in order of arrival, and `most_at_once`."""

    def __init__(
        self,
        answer: Answer,
        parallel: int,
        delay: float,
        before: Any,
        *about: Any,
        handler: type[OllamaHandler] | None = None,
    ) -> None:
        super().__init__(handler or ScriptedHandler, *about)
        self.answer, self.delay, self.before = answer, delay, before
        self.requests: list[Json] = []
        self.calls = self.at_once = self.most_at_once = 0
        self.slots = threading.Semaphore(parallel)
        self.arrival = threading.Condition()

    def wait_for(self, count: int, timeout: float = 30.0) -> bool:
        """Waits until so many chats have arrived; whether they have."""
        with self.arrival:
            return self.arrival.wait_for(lambda: len(self.requests) >= count, timeout)

    @contextmanager
    def turn(self, request: Json) -> Iterator[int]:
        """Counts a chat in, waits for one of the parallel slots, and counts it out."""
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

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        with self.server.arrival:
            self.server.calls += 1
        instead = self.server.before and self.server.before(self.path, self.server.calls)
        if instead:
            self.content()
            self.send(instead)
        return not instead

    def chat(self, request: Json) -> None:
        with self.server.turn(request) as number:
            try:
                answer = self.server.answer(request, number)
            except Exception as error:
                answer = Failure(500, f"the script raised {error!r}")
            answer = Said(answer) if isinstance(answer, str) else answer
            seconds = self.server.delay + getattr(answer, "seconds", 0.0)
            stopped = self.server.stopped.wait(seconds)
        # Counted out before the answer is sent: whoever has it may ask again at once.
        if not stopped:
            self.send(answer, request["model"])


def full_name(model: str) -> str:
    """The name with its tag."""
    return model if ":" in model else f"{model}:latest"


@contextmanager
def serving(
    answer: Answer,
    *,
    parallel: int = 4,
    delay: float = 0.0,
    models: Iterable[str] = ("phi3:latest",),
    capabilities: Iterable[str] = ("completion",),
    before: Callable[[str, int], Any] | None = None,
) -> Iterator[ScriptedOllama]:
    """Serve `answer(request, number)`: a text, or one of the answers above.

    Args:
        answer: Called once a chat, from several threads at once.
        parallel: How many chats are worked on at once; the others queue.
        delay: Seconds that every answer takes, of which it holds its slot.
        models: The names that it knows.
        capabilities: What /api/show says of each: `("completion", "thinking")`.
        before: Called with path and number (from 1) of every request; a Failure or Raw that it
            returns is sent instead.
    """
    about = (models, capabilities)
    with running(ScriptedOllama(answer, parallel, delay, before, *about)) as server:
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
