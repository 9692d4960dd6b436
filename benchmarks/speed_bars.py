"""The figures of `shaping.py` that have a bar: ratios of contenders' times, and peak memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import contenders as c
from interleaved import Times

Size = tuple[int, int]
AllTimes = Mapping[Size, Mapping[str, Times]]
SMALL, MAIN, LARGE = (256, 1024), (1024, 4096), (4096, 4096)
GPU_LARGE = (16384, 4096)
"""16 times the tokens of `MAIN`."""
STEPS_BEFORE, TOKENS_BEFORE = 3.6, 70.0
"""PASS packed in / tensor copy at commit 340f8f1, before it was made faster: 3.8 and 75 ms
beside 1.07 ms. The bars of `training_metrics` are multiples of that time."""


@dataclass(frozen=True)
class Ratio:
    """A figure that has a bar.

    Args:
        name: what it is.
        value: as measured.
        most: the bar.
    """

    name: str
    value: float
    most: float

    @property
    def is_met(self) -> bool:
        """Whether the figure is within its bar."""
        return self.value <= self.most


@dataclass(frozen=True)
class Bar:
    """How many times as long as another contender one may take, at one size."""

    first: str
    second: str
    most: float
    size: Size = MAIN

    def ratio(self, times: AllTimes) -> Ratio | None:
        """The figure; None where a contender or the size was not run."""
        at = times.get(self.size, {})
        if self.first not in at or self.second not in at:
            return None
        place = "" if self.size == MAIN else f", {shown(self.size)}"
        value = at[self.first].least / at[self.second].least
        return Ratio(f"{self.first} / {self.second}{place}", round(value, 3), self.most)


BARS = (
    Bar(c.PADDED_STEPS, c.VERL_GRPO, 1.0),
    Bar(c.PADDED_STEPS, c.VECTORIZED, 4.0),
    Bar(c.PADDED_STEPS, c.COPY, 16.0),
    Bar(c.PADDED_TOKENS, c.VERL_GAE, 0.12),
    Bar(c.PASS_STEPS, c.VECTORIZED, 0.8),
    Bar(c.PASS_STEPS, c.COPY, 3.0),
    Bar(c.PASS_STEPS, c.VECTORIZED, 3.0, SMALL),
    Bar(c.PASS_TOKENS, c.VERL_GAE, 0.09),
    Bar(c.PASS_TOKENS, c.COPY, 40.0),
    Bar(c.PURE_STEPS, c.VECTORIZED, 1.2),
    Bar(c.PURE_STEPS, c.COPY, 5.0),
    Bar(c.QUEUE_STEPS, c.PADDED_STEPS, 3.0),
    Bar(c.QUEUE_TOKENS, c.PADDED_TOKENS, 3.0),
    Bar(c.METRICS_STEPS, c.COPY, 1.5 * STEPS_BEFORE),
    Bar(c.METRICS_TOKENS, c.COPY, 2.0 * TOKENS_BEFORE),
)
MEMORY = "peak memory of PASS packed in, steps / output"
MOST_MEMORY = 1.5


def cpu_ratios(times: AllTimes) -> Iterator[Ratio]:
    """The figures of a CPU that have a bar, as far as they could be measured."""
    for bar in BARS:
        ratio = bar.ratio(times)
        if ratio is not None:
            yield ratio


def gpu_ratios(times: AllTimes) -> Iterator[Ratio]:
    """Of the least and the largest size: 1.5 x verl's vectorized GRPO or 5 ms, and the growth."""
    few, many = min(times), max(times)
    grown = (many[0] * many[1]) / (few[0] * few[1])
    for name in (c.PADDED_STEPS, c.PADDED_TOKENS):
        least = times[few][name].least
        beside = times[few].get(c.VECTORIZED)
        most = max(5.0, 1.5 * beside.least if beside else 0.0)
        yield Ratio(f"{name}, ms (5, or 1.5 x {c.VECTORIZED})", round(least, 3), round(most, 3))
        growth = times[many][name].least / least
        yield Ratio(f"{name}, {grown:g} x the tokens", round(growth, 3), 1.1 * grown)


def shown(size: Size) -> str:
    """A size as tables name it."""
    return f"{size[0]} × {size[1]}"
