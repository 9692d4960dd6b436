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
from stepcredit.signals.served.client import Asking, Client
from stepcredit.signals.served.failures import Refused
from stepcredit.signals.served.server import Server


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
) -> Iterator[tuple[int, Result]]:
    """Yield the result of each item as soon as it is complete.

    Closing the iterator cancels all running requests; when it returns, the connections are closed
    and the thread has ended.

    Args:
        server: the server's address, timeouts and retries.
        items: responses to score, or other items; any number.
        ask: sends the requests that one item needs.
        done: what is done with an item, for errors.

    Returns:
        (index, result) in the order of completion.

    Raises:
        SignalError: names the first item that got no result; the others are cancelled.
    """
    client = Client(server)
    results = SimpleQueue[tuple[int, Result] | None]()

    async def run() -> None:
        waiting = iter(enumerate(items))

        async def work() -> None:
            for index, item in waiting:
                results.put((index, await _answered(client, item, ask, done)))

        async with client:
            await together([work] * min(server.concurrency, len(items)))

    with start_blocking_portal() as portal:
        running = portal.start_task_soon(run)
        running.add_done_callback(lambda _: results.put(None))
        while (found := results.get()) is not None:
            yield found
        running.result()


async def _answered(
    client: Client, item: Item, ask: Callable[[Asking, Item], Awaitable[Result]], done: str
) -> Result:
    asking = Asking(client)
    try:
        with anyio.fail_after(client.server.deadline):
            return await ask(asking, item)
    except Refused as refused:
        reason = asking.text(refused)
    except TimeoutError:
        last = f", last: {asking.last_fault}" if asking.last_fault else ""
        reason = f"{client.server.url}: not {done} within {client.server.deadline:g} s{last}"
    raise SignalError(reason, place=item.name)  # without its cause, which may hold the key


async def together(calls: Sequence[Callable[[], Awaitable[Result]]]) -> list[Result]:
    """Results of calls that run at the same time, in the calls' order.

    Raises:
        Exception: the first that one of them raises; the others are cancelled.
    """
    results: dict[int, Result] = {}

    async def run(index: int) -> None:
        results[index] = await calls[index]()

    try:
        async with anyio.create_task_group() as group:
            for index in range(len(calls)):
                group.start_soon(run, index)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures.exceptions[0].__cause__
    return [results[index] for index in range(len(calls))]
