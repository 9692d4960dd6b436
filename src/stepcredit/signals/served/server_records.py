"""What is known of a signal's servers: their health, and the counts of their requests."""

from __future__ import annotations

import time
from math import inf
from threading import Lock
from typing import Any

from stepcredit.signals.server_statistics import ServedStatistics, ServerStatistics

LONGEST_REST = 30.0
"""Seconds that a server rests at most after a fault, where it names no time itself."""
_COUNTING = Lock()
"""Held while counts change: several streams of one signal may run in threads of their own."""


class ServerRecord:
    """The health of one server and the counts of its requests; it outlives a stream.

    A server rests after a fault, longer after each further one. Then it gets one request at a time
    until one is answered, as before its first answer.
    """

    def __init__(self) -> None:
        self.sent = self.retried = self.failed = self.outstanding = 0
        self.seconds = 0.0
        self.last_fault: str | None = None
        self.is_proved = False
        """Whether it answered since its last fault, and served the right model then."""
        self.was_right = False
        """Whether it ever was."""
        self.models: frozenset[str] | None = None
        """The names of its models, where it tells them, when they were right last."""
        self.faults = 0
        self.rests_until = -inf
        """When its rest ends, on the monotonic clock."""
        self._failed_at = -inf

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process knows nothing: neither clocks nor counts are shared."""
        return ServerRecord, ()

    @property
    def is_known(self) -> bool:
        """Whether it was right before, or failed: then it may have been started anew since."""
        return self.was_right or self.faults > 0

    def failed_since(self, began: float) -> bool:
        """Whether it had a fault after a moment."""
        return began < self._failed_at

    def is_ready(self, now: float) -> bool:
        """Whether it may be sent a request beside those that it has."""
        return self.is_proved or (now >= self.rests_until and not self.outstanding)

    def begin(self, *, again: bool) -> float:
        """Count a request that is sent; returns when.

        Args:
            again: whether the same request was sent before, to any server.
        """
        with _COUNTING:
            self.sent += 1
            self.retried += again
            self.outstanding += 1
        return time.monotonic()

    def end(self, began: float) -> None:
        """Count a request that ended in any way."""
        with _COUNTING:
            self.outstanding -= 1
            self.seconds += time.monotonic() - began

    def answer(self, began: float) -> None:
        """Note a good answer; one to a request sent before the last fault says nothing."""
        if began >= self._failed_at:
            self.is_proved = self.was_right = True
            self.faults = 0

    def refuse(self, reason: str) -> None:
        """Note a final failure, after which no other request is sent."""
        with _COUNTING:
            self.failed += 1
        self.last_fault = reason

    def fail(self, began: float, reason: str, rest: float, wait: float) -> None:
        """Note a fault: the server rests.

        Args:
            began: when the request was sent.
            reason: why it failed, in one line.
            rest: seconds of the first rest, doubled for each further one.
            wait: seconds that the server asked for.
        """
        with _COUNTING:
            self.failed += 1
        self.last_fault = reason
        if self.failed_since(began):  # the same fault, seen by a request that was sent before it
            return
        now = time.monotonic()
        rest = min(LONGEST_REST, rest * 2.0 ** min(self.faults, 16))
        self.is_proved, self.faults = False, self.faults + 1
        self._failed_at, self.rests_until = now, now + max(rest, wait)


class ServedRecords:
    """The records of a signal's servers by address, and its queue."""

    def __init__(self) -> None:
        self.servers: dict[str, ServerRecord] = {}
        self.agreed: frozenset[str] | None = None
        """The models of all servers, from the first good answer, where no name is asked for."""
        self.waited_seconds = 0.0
        self.largest_queue = 0
        self._queue = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """As for a `ServerRecord`."""
        return ServedRecords, ()

    def of(self, url: str) -> ServerRecord:
        """The record of the server at an address."""
        with _COUNTING:
            return self.servers.setdefault(url, ServerRecord())

    def forget(self) -> None:
        """Forget which servers were right, and by which models; the counts stay."""
        self.agreed = None
        for each in self.servers.values():
            each.is_proved = each.was_right = False
            each.models = None

    def queue(self, count: int) -> float:
        """Count what begins to wait; returns when."""
        with _COUNTING:
            self._queue += count
            self.largest_queue = max(self.largest_queue, self._queue)
        return time.monotonic()

    def leave(self, since: float, count: int = 1, *, served: bool = True) -> None:
        """Count what waits no longer.

        Args:
            since: when it began to wait.
            count: how many.
            served: whether it is its turn; else it is given up, and its time does not count.
        """
        with _COUNTING:
            self._queue -= count
            self.waited_seconds += (time.monotonic() - since) * count * served

    def statistics(self) -> ServedStatistics:
        """The counts so far."""
        servers = tuple(
            ServerStatistics(url, own.sent, own.retried, own.failed, own.seconds, own.last_fault)
            for url, own in self.servers.items()
        )
        return ServedStatistics(servers, self.largest_queue, self.waited_seconds)
