"""`Served`: what all signals scored by a server share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from stepcredit.requires import require
from stepcredit.settings.fields import check_fields, declare, number, text, whole
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Scored, Signal

OPERATION = (
    "url",
    "concurrency",
    "timeout",
    "deadline",
    "attempts",
    "backoff",
    "api_key_env",
)
"""Fields that say how a server is asked, not what: they are no part of a signal's identity."""


def is_address(value: Any) -> str | None:
    """A check for http addresses without credentials.

    Example:
        >>> is_address("http://localhost:8000"), is_address("localhost:8000")
        (None, 'an http:// or https:// address')
    """
    try:
        parts = urlsplit(value)
        found = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except (ValueError, AttributeError, TypeError):
        return "an http:// or https:// address"
    if found and parts.username is not None:
        return "an address without credentials (api_key_env names where they are)"
    return None if found else "an http:// or https:// address"


def is_name(value: Any) -> str | None:
    """A check for strings that are not empty."""
    return None if isinstance(value, str) and value else "a string that is not empty"


@dataclass(frozen=True, kw_only=True)
class Served(Signal):
    """A signal scored by a server.

    Args:
        url: the server's address, such as `http://localhost:8000`.
        model: its name on the server; part of a score's identity.
        revision: which weights are served, in your own words; part of a score's identity. Give it
            when a name can mean several: after retraining, a cache then asks anew.
        concurrency: requests under way at once.
        timeout: seconds for one request.
        deadline: seconds for one response, all its requests and repetitions.
        attempts: how often a request is asked before the run stops.
        backoff: seconds before the first repetition at most, doubled for each further one up to
            30; a server's `Retry-After` goes before it.
        api_key_env: name of the environment variable that holds the key, where one is needed.
    """

    url: str = declare(MISSING, is_address, "address of the server")
    model: str = declare(MISSING, is_name, "the model's name on the server")
    revision: str | None = text(None, "which weights are served; part of the identity")
    concurrency: int = whole(32, "requests under way at once", at_least=1)
    timeout: float = number(60.0, "seconds for one request", above=0)
    deadline: float = number(600.0, "seconds for one response", above=0)
    attempts: int = whole(6, "how often a request is asked", at_least=1)
    backoff: float = number(0.5, "seconds before the first repetition at most", at_least=0)
    api_key_env: str | None = text(None, "environment variable that holds the API key")

    def __post_init__(self) -> None:
        require("signals", "httpx", "anyio", "tenacity")
        check_fields(self)

    @property
    def identity(self) -> dict[str, Any]:
        """The signal's name and all its settings but those that say how the server is asked."""
        names = [declared.name for declared in fields(self) if declared.name not in OPERATION]
        return {"signal": self.name, **{name: getattr(self, name) for name in names}}

    @abstractmethod
    async def ask(self, asking: Any, response: Response) -> list[float]:
        """One response's scores, by as many questions as it takes."""

    def stream(self, responses: Sequence[Response]) -> Iterator[Scored]:
        """(index, scores) in the order of completion; closing it stops what is under way."""
        from stepcredit.signals.served.client import Server
        from stepcredit.signals.served.running import stream

        server = Server(**{name: getattr(self, name) for name in OPERATION})
        return stream(server, responses, self.ask)
