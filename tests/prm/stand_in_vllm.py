"""A stand-in for vLLM: real models of transformers behind the parts of its interface that are used.

It computes in this process with the weights of a checkpoint, so that scores over HTTP can be
compared with those of the same weights read directly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer


@dataclass
class StandIn:
    """What the server does.

    Args:
        model: the folder of a token classifier or a causal language model.
        names: the models that it says it serves.
        step_tag: probabilities are given at this token alone.
        shift: rows are moved by so many places: a fault.
    """

    model: Path
    names: tuple[str, ...]
    step_tag: int | None = None
    shift: int = 0

    def answer(self, path: str, asked: dict[str, Any] | None) -> Any:
        """The JSON of an answer; None: there is no such endpoint."""
        if path == "/health":
            return {}
        if path == "/v1/models":
            return {"data": [{"id": name} for name in self.names]}
        if path == "/pooling" and asked is not None:
            return self._pooled(asked["input"])
        if path == "/v1/completions" and asked is not None:
            return self._completed(asked["prompt"])
        return None

    @torch.inference_mode()
    def _pooled(self, ids: list[int]) -> Any:
        model = AutoModelForTokenClassification.from_pretrained(self.model).eval()
        rows = model(torch.tensor([ids])).logits[0].softmax(-1).roll(self.shift, 0).tolist()
        if self.step_tag is not None:
            rows = [row for id, row in zip(ids, rows, strict=True) if id == self.step_tag]
        return {"data": [{"data": rows}]}

    @torch.inference_mode()
    def _completed(self, ids: list[int]) -> Any:
        model = AutoModelForCausalLM.from_pretrained(self.model).eval()
        words = AutoTokenizer.from_pretrained(self.model)
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        entries: list[Any] = [None]
        for place, id in enumerate(ids[1:]):
            value = float(logprobs[place, ids[place + 1 - self.shift]])
            entries.append({str(id): {"logprob": value, "decoded_token": words.decode([id])}})
        return {"choices": [{"prompt_logprobs": entries}]}


@contextmanager
def served(stand_in: StandIn, port: int = 0) -> Iterator[str]:
    """The address of a running server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(stand_in.answer(self.path, None))

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(stand_in.answer(self.path, json.loads(asked)))

        def reply(self, found: Any) -> None:
            data = json.dumps({"error": "Not Found"} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
