"""HTTP client with retries, for one server.

After a fault (connection refused, timeout, status 5xx, 408, 425 or 429, incomplete or malformed
answer) a request is sent again, with exponential backoff and jitter, or after the server's
`Retry-After`. Any other status than 200 is final at once, a redirect included, and so is an answer
that is too long.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NoReturn, Self, TypeVar

import anyio
import httpx
import tenacity

from stepcredit.errors import SignalError
from stepcredit.signals.served.bodies import body_of, parse_body
from stepcredit.signals.served.failures import Ended, Fault, Refused
from stepcredit.signals.served.secrets import Redactor, api_key
from stepcredit.signals.served.server import Server

Answer = TypeVar("Answer")
LONGEST_WAIT = 30.0
"""Seconds between two repetitions, where the server names none."""
ASKED_AGAIN = {408, 425, 429}
"""Statuses after which a request is sent again, as it is after 5xx."""


class Client:
    """Connections to a server, bounded in number and reused.

    Each has its own `httpx` client: a shared client's pool looks at all its connections for every
    request, which with 32 connections takes as long as all other work. Redirects are not
    followed and no cookie is kept. Proxies are those of the environment, but a key passes through
    one only inside TLS: to an http:// address it is sent directly.

    Args:
        server: the server's address, timeouts and retries.

    Raises:
        SettingError: the API key's environment variable is not set, or holds no key.
        SignalError: the certificates that the environment names can't be read.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._key = api_key(server.api_key_env)
        self.redact = Redactor(self._key)
        self._certificates = _certificates()
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
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            new = httpx.AsyncClient(
                headers=headers,
                limits=httpx.Limits(max_connections=1),
                timeout=None,
                verify=self._certificates,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                trust_env=not self._key or self.server.url.lower().startswith("https:"),
            )
        except (ValueError, ImportError, httpx.InvalidURL):
            reason = (
                "the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY names can't be used"
            )
            raise Refused(reason) from None
        return await self._open.enter_async_context(new)

    async def post(self, url: str, body: dict[str, Any]) -> Any:
        """Send one request and return the JSON of its answer.

        Raises:
            Fault: no answer in time, an incomplete answer, or a status that allows another try.
            Refused: any other status than 200, with the server's own message; or an answer that is
                too long.
        """
        content = json.dumps(body, separators=(",", ":")).encode()
        async with self._connection() as connection:
            answer, found = await self._exchange(connection, url, content)
        if answer.status_code != httpx.codes.OK:
            _refuse(answer, message_of(found))
        return parse_body(found)

    async def _exchange(
        self, connection: httpx.AsyncClient, url: str, content: bytes
    ) -> tuple[httpx.Response, bytes]:
        """An answer and its body, within the time limit of one request."""
        try:
            with anyio.fail_after(self.server.timeout):
                async with connection.stream("POST", url, content=content) as answer:
                    return answer, await body_of(answer, self.server.max_body)
        except TimeoutError:
            raise Fault(f"no answer within {self.server.timeout:g} s") from None
        except Ended:
            raise
        except Exception as error:  # not only httpx's errors: a proxy's host and port have others
            raise Fault("{}", _said(error)) from None


def _certificates() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        names = "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names"
        raise SignalError(f"{names}: {error.strerror or error}") from None


def _refuse(answer: httpx.Response, message: str) -> NoReturn:
    reason = f"HTTP {answer.status_code}"
    words = (f"{reason}: {{}}", message) if message.strip() else (reason,)
    if answer.status_code >= 500 or answer.status_code in ASKED_AGAIN:
        raise Fault(*words, wait=retry_after(answer.headers.get("Retry-After")))
    raise Refused(*words)


class Asking:
    """Sends the requests that one response needs, under one deadline.

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
        """Send a request until it succeeds; returns what `read` gives for the answer.

        Args:
            path: the endpoint, under the server's address.
            body: sent as JSON.
            read: raises a `Fault` for a malformed answer; the request is then repeated.

        Raises:
            Refused: the server refused, the last attempt failed, or the deadline is over.
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
            ended = f"{self.text(fault)} (attempt {tries}{late}, the last)"
        except Refused as refused:
            ended = self.text(refused)
        raise Refused(f"{url}: {ended}")  # without its cause, which may hold the key

    async def _once(self, url: str, body: dict[str, Any], read: Callable[[Any], Answer]) -> Answer:
        try:
            return read(await self.client.post(url, body))
        except Fault as fault:
            self.last_fault = self.text(fault)
            raise

    def text(self, ended: Ended) -> str:
        """The reason why a request failed, in one line without the API key."""
        return ended.text(self.client.redact)

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
    """Seconds to wait according to a `Retry-After` header; 0 without a valid one.

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
        then = then.replace(tzinfo=then.tzinfo or UTC)
        return max(0.0, (then - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):  # of dates that are none
        return 0.0


def message_of(body: bytes) -> str:
    """The server's complete message about a failure.

    Example:
        >>> message_of(b'{"error": {"message": "no model `x`"}}')
        'no model `x`'
    """
    try:
        found = parse_body(body)
    except Fault:
        return body.decode("utf-8", "replace")
    for key in ("error", "detail", "message"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return str(found)


def _said(error: Exception) -> str:
    """The reason why a connection broke, in a few words."""
    for cause in _causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, ConnectionResetError):
            return "connection reset"
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
