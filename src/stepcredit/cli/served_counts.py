"""What a command says at its end about the requests that it sent to servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepcredit.cli.output import say

if TYPE_CHECKING:
    from stepcredit.signals.server_statistics import ServedStatistics


def say_served(name: str, counts: ServedStatistics | None) -> None:
    """Print the counts of requests: all together, then by server.

    Args:
        name: the signal, or what was done.
        counts: None, or no request sent: nothing is printed.
    """
    if counts is not None and counts.sent:
        for line in counts.lines():
            say(f"{name}: {line}")
