"""Send the requests of many items concurrently, from code that is not asynchronous.

The event loop runs in a separate thread, so the caller may run inside another event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Protocol, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

from stepcredit.errors import SignalError
from stepcredit.signals.served.asking import Asking
from stepcredit.signals.served.failures import Refused
from stepcredit.signals.served.server import Server
from stepcredit.signals.served.server_pool import ServerPool
from stepcredit.signals.served.server_records import ServedRecords
from stepcredit.signals.served.side_by_side import together


class Named(Protocol):
    """An item with a name for errors, such as a response."""

    @property
    def name(self) -> str:
        """The name."""


Result = TypeVar("Result")
Item = TypeVar("Item", bound=Named)


def stream(
    server: Server,
    items: Sequence[Item],
    ask: Callable[[Asking, Item], Awaitable[Result]],
    done: str = "scored",
    *,
    model: str | None = None,
    records: ServedRecords | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield the result of each item as soon as it is complete.

    Closing the iterator cancels all running requests; when it returns, the connections are closed
    and the thread has ended.

    Args:
        server: the servers' addresses, timeouts and retries.
        items: responses to score, or other items; any number.
        ask: sends the requests that one item needs.
        done: what is done with an item, for errors.
        model: the name under which each of several servers must serve the model; None: only that
            all serve the same.
        records: what is known of the servers, and counts; updated.

    Returns:
        (index, result) in the order of completion.

    Raises:
        SignalError: names the item that failed first in time; the others are cancelled. Where
            several run at once, that need not be the first of `items`.
    """
    pool = ServerPool(server, model, records)
    results = SimpleQueue[tuple[int, Result] | None]()

    async def run() -> None:
        waiting = iter(enumerate(items))
        workers = min(server.concurrency, len(items))
        queued = len(items) - workers
        since = pool.records.queue(queued)

        async def work() -> None:
            nonlocal queued
            for index, item in waiting:
                if index >= workers:
                    queued -= 1
                    pool.records.leave(since)
                results.put((index, await _answered(pool, item, ask, done)))

        async with pool:
            try:
                await together([work] * workers)
            finally:
                pool.records.leave(since, queued, served=False)

    with start_blocking_portal() as portal:
        running = portal.start_task_soon(run)
        running.add_done_callback(lambda _: results.put(None))
        while (found := results.get()) is not None:
            yield found
        running.result()


async def _answered(
    pool: ServerPool, item: Item, ask: Callable[[Asking, Item], Awaitable[Result]], done: str
) -> Result:
    asking = Asking(pool)
    try:
        with anyio.fail_after(pool.server.deadline):
            return await ask(asking, item)
    except Refused as refused:
        reason = asking.text(refused)
    except TimeoutError:
        last = f", last: {asking.last_fault}" if asking.last_fault else ""
        places = ", ".join(pool.server.urls)
        reason = f"{places}: not {done} within {pool.server.deadline:g} s{last}"
    raise SignalError(reason, place=item.name)  # without its cause, which may hold the key
