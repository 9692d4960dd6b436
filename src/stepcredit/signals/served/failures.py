"""Retryable and final failures of a request."""

from __future__ import annotations

from collections.abc import Callable


class Ended(Exception):
    """A request that got no usable answer.

    What the server itself said is kept apart from our words, and stands in no `str` of the
    exception: only `text`, which is given the function that hides the API key, puts it in.

    Args:
        reason: what was wrong, a few words; `{}` stands for each text in `said`.
        said: texts that a server or a library wrote, of any length.

    Example:
        >>> Ended("HTTP 401: {}", "wrong key sk-1").text(lambda said: said.replace("sk-1", "***"))
        'HTTP 401: wrong key ***'
    """

    def __init__(self, reason: str, *said: str) -> None:
        super().__init__(reason)
        self.reason, self.said = reason, said

    def text(self, shown: Callable[[str], str]) -> str:
        """The whole reason, each of the server's texts as `shown` makes it."""
        return self.reason.format(*map(shown, self.said)) if self.said else self.reason


class Fault(Ended):
    """A retryable failure: the answer failed or is malformed.

    Args:
        reason, said: as in `Ended`.
        wait: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, *said: str, wait: float = 0.0) -> None:
        super().__init__(reason, *said)
        self.wait = wait


class Refused(Ended):
    """A final failure: the server refused, or the last attempt failed."""
