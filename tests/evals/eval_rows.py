"""Small files of problems, and a fake server that answers them."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

Answer = Callable[[dict[str, Any]], Any]


def gsm8k_rows(count: int) -> list[dict[str, Any]]:
    """Sums whose gold answers stand behind ####."""
    return [{"question": f"{i} + 1?", "answer": f"{i} + 1\n#### {i + 1}"} for i in range(count)]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file with one JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of such a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def solve(body: dict[str, Any]) -> str:
    """The right sum for even numbers, one too many for others; the seed decides nothing."""
    asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    number = int(asked.split(" + 1?")[0].split()[-1])
    return f"It is \\boxed{{{number + 1 + number % 2}}}."


class FakeServer:
    """A server with OpenAI's interface; `asked` lists the bodies of its requests.

    Args:
        answer: gives the text of an answer, or (status, body) for another one.
    """

    def __init__(self, answer: Answer = solve) -> None:
        self.answer, self.asked, self._lock = answer, list[dict[str, Any]](), Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake._lock:
                    fake.asked.append({"path": self.path, **body})
                found = fake.answer(body)
                status, answer = found if isinstance(found, tuple) else (200, whole(found, body))
                raw = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler


def whole(text: str, body: dict[str, Any]) -> dict[str, Any]:
    """A server's answer around a text; a response of more than ten words was cut off."""
    is_chat = "messages" in body
    choice = {"message": {"content": text}} if is_chat else {"text": text}
    finish = "length" if len(text.split()) > 10 else "stop"
    count = len(text.split()) + 1
    return {
        "choices": [{**choice, "finish_reason": finish}],
        "usage": {"completion_tokens": count},
    }
