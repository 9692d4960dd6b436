"""Batches of what concurrent callers ask."""

from __future__ import annotations

import asyncio
import threading
from time import sleep

import pytest

from stepcredit.engines.verl.async_batcher import AsyncBatcher
from stepcredit.errors import SignalError


class Recorded:
    """A stream that doubles numbers: 0 fails, a negative one is forgotten."""

    def __init__(self, seconds=0.0):
        self.batches, self.seconds, self.threads = [], seconds, set()

    def __call__(self, items):
        self.batches.append(list(items))
        self.threads.add(threading.get_ident())
        for index, item in enumerate(items):
            if item == 0:
                raise ZeroDivisionError("0 in the batch")
            if item > 0:
                yield index, 2 * item
            sleep(self.seconds)


def test_what_comes_meanwhile_is_the_next_batch_in_the_same_thread():
    stream = Recorded(seconds=0.05)

    async def asked():
        double = AsyncBatcher(stream)
        first = [asyncio.create_task(double(item)) for item in (1, 2, 3)]
        await asyncio.sleep(0.06)
        second = [asyncio.create_task(double(item)) for item in (4, 5)]
        found = await asyncio.gather(*first, *second)
        return [*found, await double(6)]

    assert asyncio.run(asked()) == [2, 4, 6, 8, 10, 12]
    assert stream.batches == [[1, 2, 3], [4, 5], [6]]
    assert len(stream.threads) == 1
    assert threading.get_ident() not in stream.threads


def test_a_result_does_not_wait_for_the_rest_of_its_batch():
    first_is_there = threading.Event()

    def stream(items):
        yield 0, "first"
        assert first_is_there.wait(timeout=20)
        yield 1, "second"

    async def asked():
        told = AsyncBatcher(stream)
        tasks = [asyncio.create_task(told(item)) for item in (1, 2)]
        first = await tasks[0]
        assert not tasks[1].done()
        first_is_there.set()
        return first, await tasks[1]

    assert asyncio.run(asked()) == ("first", "second")


def test_a_failure_is_told_to_those_it_left_without_a_result_and_the_next_batch_is_asked():
    async def asked():
        double = AsyncBatcher(Recorded())
        found = await asyncio.gather(*map(double, [1, 0, 2]), return_exceptions=True)
        return found, await double(3)

    (first, *others), later = asyncio.run(asked())
    assert (first, later) == (2, 6)
    assert [repr(error) for error in others] == ["ZeroDivisionError('0 in the batch')"] * 2


def test_an_item_without_a_result_is_refused():
    async def asked():
        double = AsyncBatcher(Recorded())
        return await asyncio.gather(double(1), double(-1))

    with pytest.raises(SignalError, match=r"^was not scored$"):
        asyncio.run(asked())


class PanicException(BaseException):
    """As libraries in Rust raise."""


def test_what_is_no_ordinary_exception_leaves_nobody_waiting():
    started = threading.Event()

    def stream(items):
        started.set()
        sleep(0.1)
        if 0 in items:
            raise PanicException("index out of range")
        yield from ((index, 2 * item) for index, item in enumerate(items))

    async def asked():
        double = AsyncBatcher(stream)
        failed = asyncio.gather(double(0), double(1), return_exceptions=True)
        while not started.is_set():
            await asyncio.sleep(0.01)
        meanwhile = double(2)
        return await asyncio.wait_for(asyncio.gather(failed, meanwhile), timeout=20)

    errors, later = asyncio.run(asked())
    assert [str(error) for error in errors] == ["PanicException: index out of range"] * 2
    assert [type(error) for error in errors] == [SignalError] * 2
    assert later == 4
