"""HTTP connections to one server, and what its answers and failures mean.

A fault (connection refused, timeout, status 5xx, 408, 425 or 429, incomplete or malformed answer)
allows another try. Any other status than 200 is final, a redirect included, and so is an answer
that is too long.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any, NoReturn, Self

import anyio
import httpx

from stepcredit.errors import SignalError
from stepcredit.signals.served.answers import items, member
from stepcredit.signals.served.bodies import body_of, parse_body
from stepcredit.signals.served.failures import Ended, Fault, Refused
from stepcredit.signals.served.server import Server

ASKED_AGAIN = {408, 425, 429}
"""Statuses after which a request is sent again, as it is after 5xx."""


class Client:
    """Connections to one server, reused.

    Each has its own `httpx` client: a shared client's pool looks at all its connections for every
    request, which with 32 connections takes as long as all other work. Redirects are not
    followed and no cookie is kept. Proxies are those of the environment, but none is used for a
    loopback address, and a key passes through one only inside TLS: to an http:// address it is
    sent directly.

    Args:
        url: the server's address.
        server: timeouts and limits.
        key: the API key, or None.
        certificates: those that TLS trusts.
    """

    def __init__(
        self, url: str, server: Server, key: str | None, certificates: ssl.SSLContext
    ) -> None:
        self.url, self.server = url, server
        self._key, self._certificates = key, certificates
        self._idle: list[httpx.AsyncClient] = []
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._open.aclose()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx.AsyncClient]:
        """The connection used last of those that are free, or a new one."""
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
                trust_env=not is_loopback(self.url)
                and (not self._key or self.url.lower().startswith("https:")),
            )
        except (ValueError, ImportError, httpx.InvalidURL):
            reason = (
                "the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY names can't be used"
            )
            raise Refused(reason) from None
        return await self._open.enter_async_context(new)

    async def post(self, path: str, content: bytes) -> Any:
        """Send one request and return the JSON of its answer.

        Raises:
            Fault: no answer in time, an incomplete answer, or a status that allows another try.
            Refused: any other status than 200, with the server's own message; or an answer that is
                too long.
        """
        return await self._ask("POST", path, content)

    async def served_models(self) -> frozenset[str] | None:
        """The names under which the server serves models; None: it does not say.

        Raises:
            Fault: as `post`.
        """
        try:
            answer = await self._ask("GET", "/v1/models", None)
        except Refused:  # a server without such a list
            return None
        try:
            names = [member(each, "id") for each in items(answer, "data")]
        except Fault:
            return None
        return frozenset(name for name in names if isinstance(name, str))

    async def _ask(self, method: str, path: str, content: bytes | None) -> Any:
        async with self._connection() as connection:
            answer, found = await self._exchange(connection, method, self.url + path, content)
        if answer.status_code != httpx.codes.OK:
            _refuse(answer, message_of(found))
        return parse_body(found)

    async def _exchange(
        self, connection: httpx.AsyncClient, method: str, url: str, content: bytes | None
    ) -> tuple[httpx.Response, bytes]:
        """An answer and its body, within the time limit of one request."""
        try:
            with anyio.fail_after(self.server.timeout):
                async with connection.stream(method, url, content=content) as answer:
                    return answer, await body_of(answer, self.server.max_body)
        except TimeoutError:
            raise Fault(f"no answer within {self.server.timeout:g} s") from None
        except Ended:
            raise
        except Exception as error:  # not only httpx's errors: a proxy's host and port have others
            raise Fault("{}", _said(error)) from None


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own: a proxy would look for the server at itself.

    Example:
        >>> [is_loopback(f"http://{host}:8000") for host in ("localhost", "[::1]", "10.0.0.5")]
        [True, True, False]
    """
    host = httpx.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost" or host.endswith(".localhost")


def trusted_certificates() -> ssl.SSLContext:
    """The certificates that TLS trusts, those of the environment included.

    Raises:
        SignalError: those that the environment names can't be read.
    """
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
    raise Refused(*words, status=answer.status_code)


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
