"""Questions to one HTTP server: asked again after a fault, never answered by anything but it.

A fault (refused, late, 5xx, 408, 425, 429, torn or malformed answer) is asked again, with
exponential backoff and jitter, or after the server's `Retry-After`. Any other status than 200 is
final at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, Self, TypeVar

import anyio
import httpx
import tenacity

from stepcredit.errors import SettingError
from stepcredit.signals.served.faults import Fault, Refused

Answer = TypeVar("Answer")
LONGEST_MESSAGE = 300
"""Characters of a server's own words that an error repeats."""
LONGEST_WAIT = 30.0
"""Seconds between two repetitions, where the server names none."""
ASKED_AGAIN = {408, 425, 429}
"""Statuses that may pass, besides 5xx."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is and how patiently it is asked.

    Args:
        url: http(s) address, with the path that all endpoints share.
        concurrency: requests under way at once, and connections kept.
        timeout: seconds for one request.
        deadline: seconds for one response, all its requests and their repetitions.
        attempts: how often one request is asked.
        backoff: seconds before the first repetition, at most; doubled for each further one.
        api_key_env: name of the environment variable that holds the key.
    """

    url: str
    concurrency: int = 32
    timeout: float = 60.0
    deadline: float = 600.0
    attempts: int = 6
    backoff: float = 0.5
    api_key_env: str | None = None

    @property
    def api_key(self) -> str | None:
        """The key, read when it is needed and kept nowhere.

        Raises:
            SettingError: the environment variable is not set.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env)
        if not key:
            raise SettingError(f"no environment variable {self.api_key_env}", field="api_key_env")
        return key


class Client:
    """Connections to a server, bounded in number and reused.

    Each is an `httpx` client of its own: one client's pool looks at all its connections for every
    request, which at 32 of them takes as long as all the rest.

    Args:
        server: where it is and how patiently it is asked.

    Raises:
        SettingError: the API key's environment variable is not set.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._key = server.api_key
        self._certificates = httpx.create_ssl_context()
        self._slots = anyio.CapacityLimiter(server.concurrency)
        self._idle: list[httpx.AsyncClient] = []
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._open.aclose()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx.AsyncClient]:
        """The connection used last of those that are free, or a new one within the bound."""
        async with self._slots:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            finally:
                self._idle.append(connection)

    async def _connect(self) -> httpx.AsyncClient:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        one = httpx.Limits(max_connections=1)
        new = httpx.AsyncClient(
            headers=headers, limits=one, timeout=None, verify=self._certificates
        )
        return await self._open.enter_async_context(new)

    async def post(self, url: str, body: dict[str, Any]) -> Any:
        """One request: the JSON of its answer.

        Raises:
            Fault: no answer in time, a torn one, or a status that may pass.
            Refused: any other status than 200, with the server's own message.
        """
        content = json.dumps(body, separators=(",", ":")).encode()
        async with self._connection() as connection:
            try:
                with anyio.fail_after(self.server.timeout):
                    answer = await connection.post(url, content=content)
            except TimeoutError:
                raise Fault(f"no answer within {self.server.timeout:g} s") from None
            except httpx.RequestError as error:
                raise Fault(_said(error)) from error
        if answer.status_code != httpx.codes.OK:
            self._refuse(answer)
        try:
            return answer.json()
        except ValueError:
            raise Fault("the answer is not JSON") from None

    def _refuse(self, answer: httpx.Response) -> NoReturn:
        message = message_of(answer)
        if self._key:
            message = message.replace(self._key, "***")
        reason = f"HTTP {answer.status_code}" + (f": {message}" if message else "")
        if answer.status_code >= 500 or answer.status_code in ASKED_AGAIN:
            raise Fault(reason, wait=retry_after(answer.headers.get("Retry-After")))
        raise Refused(reason)


class Asking:
    """The questions that one response needs, under one deadline.

    Args:
        client: connections to the server.

    Example:
        An `Asking` is made for each response by `stream`, and used so:

            scores = await asking("/pooling", {"input": ids}, read_scores)
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.last_fault: str | None = None
        self._ends = time.monotonic() + client.server.deadline

    async def __call__(
        self, path: str, body: dict[str, Any], read: Callable[[Any], Answer]
    ) -> Answer:
        """What `read` makes of the server's answer.

        Args:
            path: the endpoint, under the server's address.
            body: sent as JSON.
            read: raises a `Fault` for a malformed answer, which is asked for again.

        Raises:
            Refused: the server's final word, the last fault, or the deadline is over.
        """
        server = self.client.server
        url = server.url.rstrip("/") + path
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Fault),
            stop=self._is_over,
            wait=_patience(server.backoff),
            reraise=True,
        )
        try:
            return await attempts(self._once, url, body, read)
        except Fault as fault:
            tries = attempts.statistics["attempt_number"]
            late = f" within {server.deadline:g} s" if tries < server.attempts else ""
            raise Refused(f"{url}: {fault} (attempt {tries}{late}, the last)") from fault
        except Refused as refused:
            raise Refused(f"{url}: {refused}") from refused.__cause__

    async def _once(self, url: str, body: dict[str, Any], read: Callable[[Any], Answer]) -> Answer:
        try:
            return read(await self.client.post(url, body))
        except Fault as fault:
            self.last_fault = str(fault)
            raise

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        late = time.monotonic() + state.upcoming_sleep >= self._ends
        return late or state.attempt_number >= self.client.server.attempts


def _patience(backoff: float) -> Callable[[tenacity.RetryCallState], float]:
    jitter = tenacity.wait_random_exponential(multiplier=backoff, max=max(backoff, LONGEST_WAIT))

    def seconds(state: tenacity.RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        return max(jitter(state), fault.wait if isinstance(fault, Fault) else 0.0)

    return seconds


def retry_after(header: str | None) -> float:
    """Seconds that a `Retry-After` header asks to wait; 0 for none or a wrong one.

    Example:
        >>> retry_after("2"), retry_after("Thu, 01 Jan 1970 00:00:00 GMT"), retry_after("soon")
        (2.0, 0.0, 0.0)
    """
    if header is None:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        then = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    now = datetime.now(UTC)
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


def message_of(answer: httpx.Response) -> str:
    """A server's own words about a failure, on one line.

    Example:
        >>> message_of(httpx.Response(404, json={"error": {"message": "no model `x`"}}))
        'no model `x`'
    """
    try:
        found = answer.json()
    except ValueError:
        found = answer.text
    for key in ("error", "detail", "message"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    line = " ".join(str(found).split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"


def _said(error: httpx.RequestError) -> str:
    """What broke a connection, in a few words."""
    for cause in _causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, ConnectionResetError):
            return "connection reset"
    return " ".join(str(error).split()) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
