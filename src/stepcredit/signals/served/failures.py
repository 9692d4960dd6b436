"""Retryable and final failures of a request."""

from __future__ import annotations

from collections.abc import Callable


class Ended(Exception):
    """A request that got no usable answer.

    Texts of the server are kept separate and are not part of the exception's `str`. Only `text`
    inserts them, after a function has hidden the API key in them.

    Args:
        reason: the reason in a few words; each `{}` in it is replaced by a text of `said`.
        said: texts that a server or a library wrote, of any length.
        status: the answer's HTTP status, where that is the failure.

    Example:
        >>> Ended("HTTP 401: {}", "wrong key sk-1").text(lambda said: said.replace("sk-1", "***"))
        'HTTP 401: wrong key ***'
    """

    def __init__(self, reason: str, *said: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.said, self.status = reason, said, status

    def text(self, shown: Callable[[str], str]) -> str:
        """The whole reason, with each of the server's texts changed by `shown`."""
        return self.reason.format(*map(shown, self.said)) if self.said else self.reason


class Fault(Ended):
    """A retryable failure: the answer failed or is malformed.

    Args:
        reason, said: as in `Ended`.
        wait: seconds to wait, according to the server.
    """

    def __init__(self, reason: str, *said: str, wait: float = 0.0) -> None:
        super().__init__(reason, *said)
        self.wait = wait


class OtherModel(Fault):
    """A server that was started anew with another model, which no repetition mends soon."""


class Refused(Ended):
    """A final failure: the server refused, or the last attempt failed."""
