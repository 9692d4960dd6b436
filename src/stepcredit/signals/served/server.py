"""`Server`: the addresses of servers of one model, and their timeouts and retries."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_BODY = 64 * 2**20
"""The most bytes in one answer, unless `max_body` sets another limit."""


@dataclass(frozen=True, slots=True)
class Server:
    """The address of a server, or of several that serve the same model, with timeouts and retries.

    Args:
        url: http(s) address, with the path that all endpoints share; or several.
        concurrency: requests that run at the same time, on all servers together.
        timeout: seconds for one request.
        deadline: seconds for one response, all its requests and their repetitions.
        attempts: how often one request is sent to each server.
        backoff: seconds before the first repetition, at most; doubled for each further one.
        api_key_env: name of the environment variable that holds the key.
        max_body: bytes of one answer at most.
    """

    url: str | tuple[str, ...]
    concurrency: int
    timeout: float
    deadline: float
    attempts: int
    backoff: float
    api_key_env: str | None = field(repr=False)
    max_body: int

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses, without a slash at the end."""
        return urls_of(self.url)


def urls_of(url: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """One address or several, as a tuple, without slashes at their ends.

    Example:
        >>> urls_of("http://a:8000/"), urls_of(["http://a:8000", "http://b:8000"])
        (('http://a:8000',), ('http://a:8000', 'http://b:8000'))
    """
    given = (url,) if isinstance(url, str) else url
    return tuple(each.rstrip("/") for each in given)
