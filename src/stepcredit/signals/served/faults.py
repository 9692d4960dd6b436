"""How a question to a server ends without an answer."""

from __future__ import annotations


class Fault(Exception):
    """An answer that failed or makes no sense; asking again may help.

    Args:
        reason: what was wrong, a few words.
        wait: seconds the server wants to be left alone.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(Exception):
    """The end of a question: the server's final word, or the last of its faults."""
