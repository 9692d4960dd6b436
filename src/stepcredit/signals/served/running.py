"""Score many responses concurrently, from code that is not asynchronous.

The event loop runs in a separate thread, so the caller may run inside another event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

from stepcredit.errors import SignalError
from stepcredit.signals.responses import Response
from stepcredit.signals.served.client import Asking, Client
from stepcredit.signals.served.failures import Refused
from stepcredit.signals.served.server import Server
from stepcredit.signals.signal import IndexedScores

Result = TypeVar("Result")
Score = Callable[[Asking, Response], Awaitable[list[float]]]


def stream(server: Server, responses: Sequence[Response], score: Score) -> Iterator[IndexedScores]:
    """Yield the scores of each response as soon as they are complete.

    Closing the iterator cancels all running requests; when it returns, the connections are closed
    and the thread has ended.

    Args:
        server: the server's address, timeouts and retries.
        responses: the responses, any number.
        score: sends the requests that one response needs.

    Returns:
        (index, scores) in the order of completion.

    Raises:
        SignalError: names the first response that could not be scored; the others are cancelled.
    """
    client = Client(server)
    done = SimpleQueue[IndexedScores | None]()
    with start_blocking_portal() as portal:
        scoring = portal.start_task_soon(_score_all, client, responses, score, done)
        scoring.add_done_callback(lambda _: done.put(None))
        while (scored := done.get()) is not None:
            yield scored
        scoring.result()


async def _score_all(
    client: Client,
    responses: Sequence[Response],
    score: Score,
    done: SimpleQueue[IndexedScores | None],
) -> None:
    waiting = iter(enumerate(responses))

    async def work() -> None:
        for index, response in waiting:
            done.put((index, await _score(client, response, score)))

    async with client:
        await together([work] * min(client.server.concurrency, len(responses)))


async def _score(client: Client, response: Response, score: Score) -> list[float]:
    asking = Asking(client)
    try:
        with anyio.fail_after(client.server.deadline):
            return await score(asking, response)
    except Refused as refused:
        reason = asking.text(refused)
    except TimeoutError:
        last = f", last: {asking.last_fault}" if asking.last_fault else ""
        reason = f"{client.server.url}: not scored within {client.server.deadline:g} s{last}"
    raise SignalError(reason, place=response.name)  # without its cause, which may hold the key


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
