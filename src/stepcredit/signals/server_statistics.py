"""The counts of a signal's requests to servers, as a plain object for reports and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ServerStatistics:
    """The requests to one server.

    Args:
        url: its address.
        sent: requests that were sent to it, repetitions included.
        retried: those of them that had been sent before, to this server or another.
        failed: those of them that got no usable answer.
        seconds: from sending to the end of the answer, summed over the requests.
        last_fault: why the last of those that failed did.
    """

    url: str
    sent: int = 0
    retried: int = 0
    failed: int = 0
    seconds: float = 0.0
    last_fault: str | None = None

    def __str__(self) -> str:
        each = f", {self.seconds / self.sent:.3g} s each" if self.sent else ""
        fault = f" (the last: {self.last_fault})" if self.failed else ""
        return f"{self.url}: {self.sent:,} sent, {self.failed:,} failed{fault}{each}"


@dataclass(frozen=True)
class ServedStatistics:
    """The requests of a signal to its servers, counted since the signal was made.

    Args:
        servers: one per address.
        largest_queue: the most responses and requests that waited at the same time for one of the
            `concurrency` places.
        waited_seconds: how long they waited, summed.

    Example:
        >>> one = ServerStatistics("http://a:8000", sent=10, failed=1, seconds=5.0, last_fault="?")
        >>> before = ServedStatistics((replace(one, sent=4, seconds=2.0, failed=0),))
        >>> now = ServedStatistics((one,), largest_queue=6, waited_seconds=3.0)
        >>> now.since(before).sent, now.since(before).served_seconds, now.failed
        (6, 3.0, 1)
        >>> print(*now.lines(), sep="\\n")
        10 requests, 0 sent again, 1 failed; at most 6 waited at once, 0.3 s each
        http://a:8000: 10 sent, 1 failed (the last: ?), 0.5 s each
    """

    servers: tuple[ServerStatistics, ...] = ()
    largest_queue: int = 0
    waited_seconds: float = 0.0

    @property
    def sent(self) -> int:
        """Requests that were sent, repetitions included."""
        return sum(each.sent for each in self.servers)

    @property
    def retried(self) -> int:
        """Requests that were sent again."""
        return sum(each.retried for each in self.servers)

    @property
    def failed(self) -> int:
        """Requests without a usable answer."""
        return sum(each.failed for each in self.servers)

    @property
    def served_seconds(self) -> float:
        """Seconds from sending to the end of the answer, summed over the requests."""
        return sum(each.seconds for each in self.servers)

    def since(self, earlier: ServedStatistics) -> ServedStatistics:
        """The counts after an earlier state; the largest queue is that of the whole time."""
        before = {each.url: each for each in earlier.servers}
        servers = (_less(each, before.get(each.url)) for each in self.servers)
        waited = self.waited_seconds - earlier.waited_seconds
        return ServedStatistics(tuple(servers), self.largest_queue, waited)

    def lines(self) -> Iterator[str]:
        """The counts as a person reads them: all together, then by server."""
        each = f", {self.waited_seconds / self.sent:.3g} s each" if self.sent else ""
        waited = f"at most {self.largest_queue:,} waited at once{each}"
        yield (
            f"{self.sent:,} requests, {self.retried:,} sent again, {self.failed:,} failed; {waited}"
        )
        yield from map(str, self.servers)


def _less(now: ServerStatistics, before: ServerStatistics | None) -> ServerStatistics:
    if before is None:
        return now
    counts = {name: getattr(now, name) - getattr(before, name) for name in _COUNTS}
    return replace(now, **counts)


def _more(one: ServerStatistics, other: ServerStatistics) -> ServerStatistics:
    counts = {name: getattr(one, name) + getattr(other, name) for name in _COUNTS}
    return replace(other, **counts, last_fault=other.last_fault or one.last_fault)


_COUNTS = ("sent", "retried", "failed", "seconds")


def sum_statistics(parts: Iterable[ServedStatistics]) -> ServedStatistics:
    """The counts of several signals together; servers that they share are added up.

    Example:
        >>> one = ServedStatistics((ServerStatistics("http://a", sent=1),), largest_queue=2)
        >>> sum_statistics([one, one]).sent, sum_statistics([one, one]).largest_queue
        (2, 2)
    """
    servers: dict[str, ServerStatistics] = {}
    queue, waited = 0, 0.0
    for part in parts:
        queue, waited = max(queue, part.largest_queue), waited + part.waited_seconds
        for each in part.servers:
            known = servers.get(each.url)
            servers[each.url] = _more(known, each) if known else each
    return ServedStatistics(tuple(servers.values()), queue, waited)
