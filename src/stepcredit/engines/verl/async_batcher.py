"""Items that come one by one on an event loop, scored in batches by one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from stepcredit.errors import SignalError

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 0.02
"""Seconds that the first of a batch waits for others."""


class Gathering(Generic[Item, Result]):
    """Makes batches of what concurrent callers ask, and gives each its own result.

    A batch is all that is waiting: one runs at a time, in a thread of its own, and what comes
    meanwhile is the next. A result is handed over as soon as it is there. A batch that fails gives
    its error to all whose results it had not brought yet.

    Args:
        stream: blocking; of a batch, (index of an item, its result), in any order.
        window: seconds that the first of a batch waits for others.

    Example:
        >>> async def doubled():
        ...     twice = Gathering(lambda items: ((i, 2 * item) for i, item in enumerate(items)))
        ...     return await asyncio.gather(*map(twice, [1, 2, 3]))
        >>> asyncio.run(doubled())
        [2, 4, 6]
    """

    def __init__(
        self,
        stream: Callable[[Sequence[Item]], Iterable[tuple[int, Result]]],
        window: float = WINDOW,
    ) -> None:
        self._stream, self._window = stream, window
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stepcredit")

    async def __call__(self, item: Item) -> Result:
        """The item's result.

        Raises:
            Exception: what the batch raised before it came to this item.
            SignalError: the batch ended without a result for it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run())
        return await future

    async def _run(self) -> None:
        await asyncio.sleep(self._window)
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            items, futures = [item for item, _ in batch], [future for _, future in batch]
            try:
                await loop.run_in_executor(self._thread, self._work, items, futures, loop)
            except Exception as error:
                _fail(futures, error)
            except asyncio.CancelledError:
                _fail([*futures, *(future for _, future in self._waiting)], SignalError("stopped"))
                raise
            except BaseException as error:  # such as a panic of the tokenizers: none waits for ever
                _fail(futures, SignalError(f"{type(error).__name__}: {error}"))
            _fail(futures, SignalError("was not scored"))

    def _work(
        self,
        items: Sequence[Item],
        futures: Sequence[asyncio.Future[Result]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        for index, result in self._stream(items):
            loop.call_soon_threadsafe(_hand_over, futures[index], result)


def _hand_over(future: asyncio.Future[Result], result: Result) -> None:
    """A result to a caller who may have gone."""
    if not future.done():
        future.set_result(result)


def _fail(futures: Sequence[asyncio.Future[Result]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
