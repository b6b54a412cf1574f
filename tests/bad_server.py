"""A small server of chat completions that does as a test tells it, and keeps what it was asked. For tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answered = tuple[int, Mapping[str, str], str | bytes]
"""Status, headers and body."""


def completion(text: str, finish: str = "stop", usage: object = None) -> Answered:
    """A reply as OpenAI's."""
    counted = {"prompt_tokens": 10, "completion_tokens": 2} if usage is None else usage
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return 200, {}, json.dumps({"object": "chat.completion", "choices": [choice], "usage": counted})


@dataclass
class Served:
    """A running server. asked: the bodies of its requests. keys: their `Authorization` headers."""

    address: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def served(answer: Callable[[dict[str, Any], int], Answered]) -> Iterator[Served]:
    """answer: from the body of a request, and which one it is from 0 on, to what is sent."""
    lock = threading.Lock()
    running = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal running
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(record.asked)
                record.asked.append(body)
                record.keys.append(self.headers["Authorization"])
                running += 1
                record.most_at_once = max(record.most_at_once, running)
            status, headers, content = answer(body, number)
            with lock:
                running -= 1
            data = content.encode() if isinstance(content, str) else content
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # what a redirect that is followed would ask

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    record = Served(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def texts_of(body: Mapping[str, Any]) -> tuple[str, str]:
    """The two answers of a request, in the order in which they stand there."""
    said = body["messages"][-1]["content"]
    first, second = (said.split(f"<answer_{name}>\n")[1].split(f"\n</answer_{name}>")[0] for name in "AB")
    return first, second
