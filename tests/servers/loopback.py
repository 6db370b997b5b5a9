"""What the stand-in servers share: they answer on loopback, in threads of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Json = dict[str, Any]


class Server(ThreadingHTTPServer):
    """Listens from the moment that it is made; `stopped` is set before it goes."""

    daemon_threads = False  # closing waits for them
    request_queue_size = 128

    def __init__(self, handler: type[Handler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.stopped = threading.Event()

    def handle_error(self, *args: Any) -> None:
        """Keeps quiet about clients that hung up."""


class Handler(BaseHTTPRequestHandler):
    """One request a connection (HTTP/1.0), so that a server that stops keeps nobody waiting."""

    timeout = 30

    def content(self) -> bytes:
        """The body of the request."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)

    def give(
        self,
        status: int,
        body: Any,
        kind: str = "application/json",
        *,
        half: bool = False,
        more: dict[str, str] | None = None,
    ) -> None:
        """Answer with bytes, a text or JSON; `half` hangs up in the middle of it."""
        text = body if isinstance(body, bytes | str) else json.dumps(body)
        data = text.encode() if isinstance(text, str) else text
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **(more or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if half else data)

    def log_message(self, *args: Any) -> None:
        """Keeps quiet."""


Running = TypeVar("Running", bound=Server)


@contextmanager
def running(server: Running) -> Iterator[Running]:
    """Run the server for as long as the block lasts."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
