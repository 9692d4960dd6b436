"""What a judge costs: requests and tokens, estimated before it is asked and counted afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from typing import Any

LETTERS_PER_TOKEN = 4
"""Characters of English text per token, about."""


@dataclass(frozen=True)
class JudgeCost:
    """What a judge will be asked.

    Args:
        requests: number of requests, without repetitions.
        read: tokens of all questions, estimated by their length: 4 characters are a token.
        written: the most tokens of all answers; None where the server decides.

    Example:
        >>> print(JudgeCost(requests=25, read=96_000, written=8_000))
        25 requests, about 96,000 tokens to read, at most 8,000 to write
    """

    requests: int
    read: int
    written: int | None = None

    @classmethod
    def of(cls, bodies: Iterable[dict[str, Any]]) -> JudgeCost:
        """The cost of chat requests, each with `messages` and `n` answers."""
        requests, letters, most = 0, 0, 0
        unbounded = False
        for body in bodies:
            requests += 1
            letters += sum(len(turn["content"]) for turn in body["messages"])
            unbounded |= "max_tokens" not in body
            most += body.get("max_tokens", 0) * body["n"]
        read = -(-letters // LETTERS_PER_TOKEN)
        return cls(requests, read, None if unbounded else most)

    def __str__(self) -> str:
        plural = "s" * (self.requests != 1)
        text = f"{self.requests:,} request{plural}, about {self.read:,} tokens to read"
        return text if self.written is None else f"{text}, at most {self.written:,} to write"


@dataclass
class Usage:
    """What a judge was asked: it counts while answers arrive.

    Args:
        answers: number of answers, those included that were malformed and asked for again.
        read, written: tokens that the server counted in its answers' `usage`.
        uncounted: answers without such a count.

    Example:
        >>> usage = Usage()
        >>> usage.add({"usage": {"prompt_tokens": 900, "completion_tokens": 40}})
        >>> print(usage)
        1 answer, 900 tokens read, 40 written
    """

    answers: int = 0
    read: int = 0
    written: int = 0
    uncounted: int = 0

    def add(self, answer: Any) -> None:
        """Count one answer."""
        self.answers += 1
        told = answer.get("usage") if isinstance(answer, dict) else None
        read, written = _count(told, "prompt_tokens"), _count(told, "completion_tokens")
        if read is None or written is None:
            self.uncounted += 1
        else:
            self.read += read
            self.written += written

    def __sub__(self, earlier: Usage) -> Usage:
        """What was asked since an earlier count.

        Example:
            >>> Usage(answers=3, read=20) - Usage(answers=1, read=5)
            Usage(answers=2, read=15, written=0, uncounted=0)
        """
        pairs = zip(astuple(self), astuple(earlier), strict=True)
        return Usage(*(now - before for now, before in pairs))

    def __add__(self, other: Usage) -> Usage:
        """The counts of both."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Usage(*(mine + its for mine, its in pairs))

    def __str__(self) -> str:
        text = f"{self.answers:,} answer{'s' * (self.answers != 1)}"
        if self.uncounted < self.answers:
            text += f", {self.read:,} tokens read, {self.written:,} written"
        if self.uncounted:
            text += f"; the server counted no tokens of {self.uncounted:,}"
        return text


def _count(told: Any, name: str) -> int | None:
    """A whole number among what a server counted."""
    found = told.get(name) if isinstance(told, dict) else None
    return found if type(found) is int and found >= 0 else None


@dataclass(frozen=True)
class CountedAsking:
    """Sends requests as an `Asking` does, and counts the answers.

    Args:
        asking: sends a request.
        usages: they count, each of them.
    """

    asking: Any
    usages: tuple[Usage, ...]

    async def __call__(self, path: str, body: dict[str, Any], read: Callable[[Any], Any]) -> Any:
        """As `Asking`."""

        def counted(answer: Any) -> Any:
            for usage in self.usages:
                usage.add(answer)
            return read(answer)

        return await self.asking(path, body, counted)
