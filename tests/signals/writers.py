"""Writers of one cache, each in a process of its own, and what they write."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from stepcredit.signals.cache import Cached
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores, Signal


@dataclass(frozen=True)
class Digits(Signal):
    """Scores from a digest of the text: any process computes the same, none by chance."""

    version: int = 1
    asked: list[str] = field(default_factory=list, compare=False)

    name = "digits"
    grain = "tokens"

    @property
    def identity(self) -> dict[str, Any]:
        """The version."""
        return {"signal": self.name, "version": self.version}

    def content(self, response: Response) -> Any:
        """The text."""
        return response.text

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """In another order than asked."""
        for index in reversed(range(len(responses))):
            self.asked.append(responses[index].name)
            yield index, truth(responses[index].text, self.version)


def truth(text: str, version: int = 1) -> list[float]:
    """One number a character, all of a text's numbers of its own kind."""
    digest = sha256(f"{version} {text}".encode()).digest()
    seed = int.from_bytes(digest[:6])
    return [seed / (place + 3) for place in range(len(text))]


def response(row: int) -> Response:
    """A response of a few tokens, every 50th of 3,000: an entry of several pages."""
    text = f"{row} " + "x" * (3000 if row % 50 == 0 else row % 7)
    return Response("?", text, tuple((i, i + 1) for i in range(len(text))), name=f"row {row}")


def texts(count: int) -> list[Response]:
    """The first responses."""
    return [response(row) for row in range(count)]


def write(path: str, count: int, seed: int) -> None:
    """Score some of all, again and again, until killed."""
    chance = random.Random(seed)
    while True:
        some = [response(row) for row in chance.sample(range(count), 40)]
        for _ in Cached(Digits(), path).stream(some):
            pass
