"""Scores items in batches: concurrent callers on an event loop share one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from stepcredit.errors import SignalError

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 0.02
"""Seconds that the first item of a batch waits for others."""


class AsyncBatcher(Generic[Item, Result]):
    """Collects the items of concurrent callers into batches, and gives each caller its own result.

    A batch holds all items that are waiting. One batch runs at a time, in a separate thread; items
    that arrive meanwhile form the next batch. A caller gets its result as soon as the batch yields
    it. If a batch fails, its error is raised in every caller that has no result yet.

    Args:
        score: takes a batch and yields (index of an item, its result), in any order. It may block.
        window: seconds that the first item of a batch waits for others.

    Example:
        >>> async def doubled():
        ...     double = AsyncBatcher(lambda items: ((i, 2 * item) for i, item in enumerate(items)))
        ...     return await asyncio.gather(*map(double, [1, 2, 3]))
        >>> asyncio.run(doubled())
        [2, 4, 6]
    """

    def __init__(
        self,
        score: Callable[[Sequence[Item]], Iterable[tuple[int, Result]]],
        window: float = WINDOW,
    ) -> None:
        self._score, self._window = score, window
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stepcredit")

    async def __call__(self, item: Item) -> Result:
        """The item's result.

        Raises:
            Exception: the batch raised it before this item had a result.
            SignalError: the batch ended without a result for the item.
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
                await loop.run_in_executor(self._thread, self._run_batch, items, futures, loop)
            except Exception as error:
                _fail(futures, error)
            except asyncio.CancelledError:
                _fail([*futures, *(future for _, future in self._waiting)], SignalError("stopped"))
                raise
            except BaseException as error:  # such as a panic of tokenizers: no caller waits forever
                _fail(futures, SignalError(f"{type(error).__name__}: {error}"))
            _fail(futures, SignalError("was not scored"))

    def _run_batch(
        self,
        items: Sequence[Item],
        futures: Sequence[asyncio.Future[Result]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        for index, result in self._score(items):
            loop.call_soon_threadsafe(_resolve, futures[index], result)


def _resolve(future: asyncio.Future[Result], result: Result) -> None:
    """Give a caller its result, unless the caller was cancelled."""
    if not future.done():
        future.set_result(result)


def _fail(futures: Sequence[asyncio.Future[Result]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
