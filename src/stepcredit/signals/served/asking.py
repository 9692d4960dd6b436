"""`Asking`: sends the requests that one response needs, again after faults, under one deadline.

After a fault, a request goes to each other server that is not set aside, at once. When none is
left, it is sent again with exponential backoff and jitter, or after the server's `Retry-After`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import tenacity

from stepcredit.signals.served.failures import Ended, Fault, Refused
from stepcredit.signals.served.server_pool import LATE, Member, ServedRequest, ServerPool

Answer = TypeVar("Answer")
LONGEST_WAIT = 30.0
"""Seconds between two repetitions, where the server names none."""


class Asking:
    """Sends the requests that one response needs, under one deadline.

    Args:
        pool: the servers.

    Example:
        An `Asking` is made for each response by `stream`, and used so:

            scores = await asking("/pooling", {"input": ids}, read_scores)
    """

    def __init__(self, pool: ServerPool) -> None:
        self.pool = pool
        self.last_fault: str | None = None
        self._ends = time.monotonic() + pool.server.deadline

    async def __call__(
        self, path: str, body: dict[str, Any], read: Callable[[Any], Answer]
    ) -> Answer:
        """Send a request until it succeeds; returns what `read` gives for the answer.

        Args:
            path: the endpoint, under a server's address.
            body: sent as JSON.
            read: raises a `Fault` for a malformed answer; the request is then repeated.

        Raises:
            Refused: a server refused, the last attempt failed, or the deadline is over.
        """
        server = self.pool.server
        content = json.dumps(body, separators=(",", ":")).encode()
        request = ServedRequest(path, content, read, self._ends)
        await self.pool.prove(request)
        faults: dict[str, str] = {}
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Fault),
            stop=self._is_over,
            wait=_patience(server.backoff),
            reraise=True,
        )
        try:
            return await attempts(self._round, request, faults)
        except Fault:
            tries = attempts.statistics["attempt_number"]
        late = f" within {server.deadline:g} s" if tries < server.attempts else ""
        reasons = self.pool.reasons(faults, path)
        raise Refused(f"{reasons} (attempt {tries}{late}, the last)")  # no cause: it may hold a key

    async def _round(self, request: ServedRequest[Answer], faults: dict[str, str]) -> Answer:
        """Send a request to one server after the other until one answers.

        Raises:
            Fault: none did; its `wait` is the shortest that one of them asked for.
        """
        tried: dict[Member, Fault] = {}
        while True:
            async with self.pool.slot():
                member = self.pool.choose(tried)
                if member is None:
                    raise min(tried.values(), key=lambda fault: fault.wait)
                try:
                    return await self.pool.send(member, request)
                except Fault as fault:
                    tried[member] = fault
                    faults[member.url] = reason = self.text(fault)
                    self._note(member, reason)
                except anyio.get_cancelled_exc_class():
                    if request.is_late and self.pool.has_several:
                        self._note(member, LATE)
                    raise

    def _note(self, member: Member, reason: str) -> None:
        self.last_fault = f"{member.url}: {reason}" if self.pool.has_several else reason

    def text(self, ended: Ended) -> str:
        """The reason why a request failed, in one line without the API key."""
        return self.pool.text(ended)

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        late = time.monotonic() + state.upcoming_sleep >= self._ends
        return late or state.attempt_number >= self.pool.server.attempts


def _patience(backoff: float) -> Callable[[tenacity.RetryCallState], float]:
    jitter = tenacity.wait_random_exponential(multiplier=backoff, max=max(backoff, LONGEST_WAIT))

    def seconds(state: tenacity.RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        return max(jitter(state), fault.wait if isinstance(fault, Fault) else 0.0)

    return seconds
