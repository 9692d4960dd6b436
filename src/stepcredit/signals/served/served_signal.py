"""`Served`: the base class of all signals that a server scores."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

from stepcredit.errors import SettingError
from stepcredit.requires import require
from stepcredit.settings.fields import check_fields, declare, is_name, number, text, whole
from stepcredit.signals.responses import Response
from stepcredit.signals.served.server import MAX_BODY, Server, urls_of
from stepcredit.signals.served.server_records import ServedRecords
from stepcredit.signals.server_statistics import ServedStatistics
from stepcredit.signals.signal import IndexedScores, Signal

OPERATION = tuple(declared.name for declared in fields(Server))
"""Fields of the connection; they do not change the scores and are not part of the identity."""


NOT_SHOWN = "another (not shown: it may hold a secret)"
ADDRESS = "an http:// or https:// address"


def is_address(value: Any) -> str | None:
    """A check for http addresses in ASCII that hold no credentials, query or fragment.

    Example:
        >>> is_address("http://localhost:8000"), is_address("localhost:8000")
        (None, 'an http:// or https:// address')
        >>> is_address("http://localhost:8000?api_key=sk-secret")
        'an address without user, query and fragment (api_key_env names where a key is)'
    """
    import httpx

    if not isinstance(value, str):
        return ADDRESS
    if _may_hold_secret(value):
        return "an address without user, query and fragment (api_key_env names where a key is)"
    if not all("!" <= letter <= "~" for letter in value):
        return f"{ADDRESS} in ASCII, without spaces and control characters"
    if "," in value.partition("://")[2].partition("/")[0]:
        return 'one address (several addresses are a list: ["http://a:8000", "http://b:8000"])'
    try:
        url = httpx.URL(value)
        url.host.encode("idna")  # as for the look-up: no part longer than 63 characters
    except (httpx.InvalidURL, UnicodeError):
        return ADDRESS
    known = url.scheme in ("http", "https") and url.host and 0 <= (url.port or 0) <= 65535
    return None if known else ADDRESS


def are_addresses(value: Any) -> str | None:
    """A check for one http address, or a list of several different ones.

    Example:
        >>> are_addresses("http://a:8000"), are_addresses(["http://a:8000", "http://b:8000"])
        (None, None)
        >>> are_addresses(["http://a", "http://A:80/"]), are_addresses([])
        ('each address once', 'an http:// or https:// address, or a list of them')
    """
    if not isinstance(value, list | tuple):
        return is_address(value)
    if not value:
        return f"{ADDRESS}, or a list of them"
    wrong = next(filter(None, map(is_address, value)), None)
    if wrong is None and len(set(map(_place, urls_of(value)))) < len(value):
        return "each address once"
    return wrong


def _place(url: str) -> tuple[str, ...]:
    """What makes an address another one: neither capitals in its host nor a default port."""
    import httpx

    known = httpx.URL(url)  # it has no port where that is the scheme's own
    return known.scheme, known.host, str(known.port), known.path.rstrip("/")


def check_times(settings: Any) -> None:
    """Refuse a `timeout` that leaves no time for another server.

    Args:
        settings: a dataclass with `url`, `timeout` and `deadline`.

    Raises:
        SettingError: several addresses, and `timeout` is not below `deadline`.
    """
    if len(urls_of(settings.url)) > 1 and settings.timeout >= settings.deadline:
        why = "so that another server can answer when one hangs"
        expected = f"less than deadline ({settings.deadline:g}) with several addresses, {why}"
        raise SettingError(f"expected {expected}, got {settings.timeout:g}", field="timeout")


def shown_address(value: Any) -> str:
    """One or several addresses as an error may show them.

    Example:
        >>> shown_address("localhost:8000"), shown_address(["http://a", "http://me:secret@host"])
        ("'localhost:8000'", 'another (not shown: it may hold a secret)')
    """
    return NOT_SHOWN if _may_hold_secret(str(value)) else repr(value)


def _may_hold_secret(address: str) -> bool:
    return any(mark in address for mark in "@?#")


def is_variable(value: Any) -> str | None:
    """A check for names of environment variables, and None.

    Example:
        >>> is_variable("MY_KEY"), is_variable("sk-secret")
        (None, "an environment variable's name (letters, digits and _) or null")
    """
    if value is None or (isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)):
        return None
    return "an environment variable's name (letters, digits and _) or null"


@dataclass(frozen=True, kw_only=True)
class Served(Signal):
    """A signal scored by a server.

    Args:
        url: the server's address, such as `http://localhost:8000`; or a list of the addresses of
            several servers of the same model: each request goes to the one with the fewest under
            way, and a server that fails is set aside for a while.
        model: its name on the server; part of a score's identity.
        revision: which weights are served, as any text; part of a score's identity. Give it
            when a name can mean several models: after retraining, cached scores are then not used.
        concurrency: requests that run at the same time, on all servers together.
        timeout: seconds for one request; less than `deadline` where there are several servers.
        deadline: seconds for one response, all its requests and repetitions.
        attempts: how often a request is sent to each server before the run stops.
        backoff: seconds before the first repetition at most, doubled for each further one up to
            30; a server's `Retry-After` goes before it.
        api_key_env: name of the environment variable that holds the key, where one is needed. The
            key is read when a stream starts, and appears in no message, `repr` or identity.
        max_body: bytes of one answer at most; a longer one ends the run.
    """

    local_signal: ClassVar[str | None] = None
    """The name of the signal that computes the same scores in this process, if there is one."""

    url: Any = declare(
        MISSING, are_addresses, "address of the server, or of several", shown=shown_address
    )
    model: str = declare(MISSING, is_name, "the model's name on the server")
    revision: str | None = text(None, "which weights are served; part of the identity")
    concurrency: int = whole(32, "requests that run at the same time", at_least=1)
    timeout: float = number(60.0, "seconds for one request", above=0)
    deadline: float = number(600.0, "seconds for one response", above=0)
    attempts: int = whole(6, "how often a request is sent", at_least=1)
    backoff: float = number(0.5, "seconds before the first repetition at most", at_least=0)
    api_key_env: str | None = declare(
        None,
        is_variable,
        "environment variable that holds the API key",
        repr=False,
        shown=lambda _: NOT_SHOWN,
    )
    max_body: int = whole(MAX_BODY, "bytes of one answer at most", at_least=1)

    def __post_init__(self) -> None:
        require("signals", "httpx", "anyio", "tenacity")
        check_fields(self)
        check_times(self)

    @property
    def identity(self) -> dict[str, Any]:
        """The signal's name and all its settings but those of the connection."""
        names = [declared.name for declared in fields(self) if declared.name not in OPERATION]
        return {"signal": self.name, **{name: getattr(self, name) for name in names}}

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of the servers."""
        return urls_of(self.url)

    @property
    def named_model(self) -> str | None:
        """The name under which each server must serve the model; None: any, but all the same."""
        return self.model

    @cached_property
    def records(self) -> ServedRecords:
        """What is known of the servers, and the counts of the requests to them."""
        return ServedRecords()

    @property
    def own_statistics(self) -> ServedStatistics:
        """The counts of its requests since it was made."""
        return self.records.statistics()

    @abstractmethod
    async def ask(self, asking: Any, response: Response) -> list[float]:
        """One response's scores, from as many requests as are needed.

        Args:
            asking: sends a request (see `Asking`).
            response: the response to score.
        """

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """(index, scores) in the order of completion; closing it stops the running requests."""
        return self.run(responses, self.ask)

    def run(
        self,
        responses: Sequence[Response],
        ask: Callable[[Any, Response], Awaitable[list[float]]],
    ) -> Iterator[IndexedScores]:
        """As `stream`, with another function in place of `ask`."""
        from stepcredit.signals.served.running import stream

        server = Server(**{name: getattr(self, name) for name in OPERATION})
        return stream(server, responses, ask, model=self.named_model, records=self.records)
