"""`Server`: the address of a server, and its timeouts and retries."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_BODY = 64 * 2**20
"""The most bytes in one answer, unless `max_body` sets another limit."""


@dataclass(frozen=True, slots=True)
class Server:
    """The address of a server, and its timeouts and retries.

    Args:
        url: http(s) address, with the path that all endpoints share.
        concurrency: requests that run at the same time, and connections kept.
        timeout: seconds for one request.
        deadline: seconds for one response, all its requests and their repetitions.
        attempts: how often one request is sent.
        backoff: seconds before the first repetition, at most; doubled for each further one.
        api_key_env: name of the environment variable that holds the key.
        max_body: bytes of one answer at most.
    """

    url: str
    concurrency: int
    timeout: float
    deadline: float
    attempts: int
    backoff: float
    api_key_env: str | None = field(repr=False)
    max_body: int
