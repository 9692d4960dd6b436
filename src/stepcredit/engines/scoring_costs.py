"""What scoring takes: seconds of each signal, tokens of its judges, and requests to its servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

from stepcredit.engines.build import finite_setting
from stepcredit.errors import EngineError
from stepcredit.settings.registry import hint
from stepcredit.signals.served.chat_judge import ChatJudge
from stepcredit.signals.served.judge_cost import Usage
from stepcredit.signals.server_statistics import (
    ServedStatistics,
    ServerStatistics,
    sum_statistics,
)
from stepcredit.signals.signal import distinct_signals, served_statistics_in

PRICES = ("read", "written")
TOKENS_PER_PRICE = 1_000_000
"""Prices are per million tokens, as providers name them."""
Prices = Mapping[str, Mapping[str, float]]
TINY = 1e-9
"""A time below which no queue is told."""
SECONDS, STEP_SHARE = "scoring_seconds/", "scoring_step_share/"
"""Beginnings of the names of metrics that are times, which differ between two equal runs."""


@dataclass(frozen=True)
class ScoringCost:
    """What the scores of one stream took.

    Args:
        seconds: the time around the signal's call.
        usage: what its judges were asked; None: there is no judge in it.
        served: its requests to servers; None: it has no server.

    Example:
        >>> both = ScoringCost(2.0).beside(ScoringCost(3.0, Usage(answers=1)))
        >>> both.seconds, both.usage.answers
        (3.0, 1)
    """

    seconds: float = 0.0
    usage: Usage | None = None
    served: ServedStatistics | None = None

    def beside(self, other: ScoringCost) -> ScoringCost:
        """The cost of two processes that score at the same time: the longer of the two times."""
        return replace(self.after(other), seconds=max(self.seconds, other.seconds))

    def after(self, other: ScoringCost) -> ScoringCost:
        """The cost of two calls, one after the other."""
        known = [each.usage for each in (self, other) if each.usage is not None]
        usage = reduce(add, known) if known else None
        counted = [each.served for each in (self, other) if each.served is not None]
        served = sum_statistics(counted) if counted else None
        return ScoringCost(self.seconds + other.seconds, usage, served)

    def as_extra(self) -> dict[str, Any]:
        """The cost as plain numbers, for a process that can send nothing else."""
        return {
            "seconds": self.seconds,
            "usage": self.usage and asdict(self.usage),
            "served": self.served and asdict(self.served),
        }

    @classmethod
    def of_extra(cls, extra: Mapping[str, Any]) -> ScoringCost:
        """The inverse of `as_extra`.

        Example:
            >>> ScoringCost.of_extra(ScoringCost(1.0, Usage(answers=2)).as_extra()).usage.answers
            2
        """
        usage, served = extra.get("usage"), extra.get("served")
        return cls(
            float(extra["seconds"]),
            None if usage is None else Usage(**usage),
            None if served is None else ServedStatistics(**{**served, "servers": _servers(served)}),
        )


def _servers(served: Mapping[str, Any]) -> tuple[ServerStatistics, ...]:
    return tuple(ServerStatistics(**each) for each in served["servers"])


@dataclass
class ScoringMeter:
    """Measures the calls of signals, by stream.

    Example:
        >>> meter = ScoringMeter()
        >>> with meter.of("prm", None):
        ...     pass
        >>> list(meter.costs), meter.costs["prm"].usage
        (['prm'], None)
    """

    costs: dict[str, ScoringCost] = field(default_factory=dict)

    @contextmanager
    def of(self, stream: str, source: Any) -> Iterator[None]:
        """Measure what happens inside as scoring of a stream.

        Args:
            stream: its name.
            source: the signal or callable that is called.
        """
        watch = CostWatch(source)
        yield
        cost = watch.lap()
        self.costs[stream] = self.costs.get(stream, ScoringCost()).after(cost)

    def of_logprobs(self, model: str, source: Any) -> AbstractContextManager[None]:
        """The same for the log-probs of a model."""
        return self.of(f"{model}_logprobs", source)


class CostWatch:
    """Says again and again what a signal took since it was asked last.

    Args:
        source: a signal, or a callable, which has neither judge nor server.
    """

    def __init__(self, source: Any) -> None:
        self._judges, self._source = judges_in(source), source
        self._since, self._asked = time.perf_counter(), self._usage()
        self._served = served_statistics_in(source)

    def lap(self) -> ScoringCost:
        """The cost since the last lap, or since the beginning."""
        now, asked = time.perf_counter(), self._usage()
        seconds, self._since = now - self._since, now
        usage, self._asked = (asked - self._asked if self._judges else None), asked
        served, before = served_statistics_in(self._source), self._served
        self._served = served
        if served is None or before is None:
            return ScoringCost(seconds, usage)
        return ScoringCost(seconds, usage, served.since(before))

    def _usage(self) -> Usage:
        return reduce(add, (judge.spent for judge in self._judges), Usage())


def cost_metrics(
    costs: Mapping[str, ScoringCost], prices: Prices | None = None
) -> dict[str, float]:
    """What is logged of the costs.

        judge_cost = (tokens read * price + tokens written * price) / 1,000,000

        server_queue = seconds for which responses and requests waited / scoring seconds

    `judge_cost` is left out where no price is given, or the server did not count all tokens. The
    queue is the mean number of those that waited for one of the `concurrency` places (Little's
    law).

    Args:
        costs: by stream.
        prices: by stream, the prices `read` and `written` per million tokens.

    Example:
        >>> cost = ScoringCost(2.0, Usage(answers=1, read=500_000, written=1_000))
        >>> found = cost_metrics({"judge": cost}, {"judge": {"read": 2.0, "written": 10.0}})
        >>> found["scoring_seconds/judge"], found["judge_cost/judge"]
        (2.0, 1.01)
    """
    found: dict[str, float] = {}
    for stream, cost in costs.items():
        found[f"{SECONDS}{stream}"] = cost.seconds
        served = cost.served
        if served is not None and served.sent:
            found[f"server_queue/{stream}"] = served.waited_seconds / max(cost.seconds, TINY)
            found[f"server_failed_share/{stream}"] = served.failed / served.sent
        usage, price = cost.usage, (prices or {}).get(stream)
        if usage is None:
            continue
        found[f"judge_answers/{stream}"] = float(usage.answers)
        found[f"judge_tokens_read/{stream}"] = float(usage.read)
        found[f"judge_tokens_written/{stream}"] = float(usage.written)
        found[f"judge_uncounted_answers/{stream}"] = float(usage.uncounted)
        if price is not None and not usage.uncounted:
            money = usage.read * price["read"] + usage.written * price["written"]
            found[f"judge_cost/{stream}"] = money / TOKENS_PER_PRICE
    return found


def server_warnings(costs: Mapping[str, ScoringCost]) -> dict[str, str]:
    """A line for each server that failed to answer, by kind; the others were asked in its place.

    Args:
        costs: by stream.

    Example:
        >>> lost = ServerStatistics("http://b:8000", sent=4, failed=4, last_fault="HTTP 503")
        >>> good = ServerStatistics("http://a:8000", sent=9)
        >>> server_warnings({"prm": ScoringCost(1.0, served=ServedStatistics((good, lost)))})
        {'server/http://b:8000': 'http://b:8000 (prm): 4 of 4 requests failed, the last: HTTP 503'}
    """
    found = {}
    for stream, cost in costs.items():
        for each in cost.served.servers if cost.served else ():
            if each.failed:
                line = f"{each.url} ({stream}): {each.failed} of {each.sent} requests failed"
                found[f"server/{each.url}"] = f"{line}, the last: {each.last_fault}"
    return found


def step_shares(seconds: Mapping[str, float], step: float) -> dict[str, float]:
    """The scoring time of each stream as a share of a training step's time.

    Example:
        >>> step_shares({"prm": 2.0}, 8.0)
        {'scoring_step_share/prm': 0.25}
    """
    return {f"{STEP_SHARE}{name}": each / step for name, each in seconds.items() if step > 0}


def merged_costs(parts: Sequence[Mapping[str, ScoringCost]]) -> dict[str, ScoringCost]:
    """The costs of several processes that score at the same time.

    Example:
        >>> merged_costs([{"prm": ScoringCost(1.0)}, {"prm": ScoringCost(2.0)}])["prm"].seconds
        2.0
    """
    return _by_stream(parts, ScoringCost.beside)


def summed_costs(parts: Sequence[Mapping[str, ScoringCost]]) -> dict[str, ScoringCost]:
    """The costs of what is scored one after the other, such as the batches of a step.

    Example:
        >>> summed_costs([{"prm": ScoringCost(1.0)}, {"prm": ScoringCost(2.0)}])["prm"].seconds
        3.0
    """
    return _by_stream(parts, ScoringCost.after)


def _by_stream(
    parts: Sequence[Mapping[str, ScoringCost]],
    join: Callable[[ScoringCost, ScoringCost], ScoringCost],
) -> dict[str, ScoringCost]:
    found: dict[str, ScoringCost] = {}
    for part in parts:
        for name, cost in part.items():
            found[name] = join(found[name], cost) if name in found else cost
    return found


def checked_prices(given: Any, signals: Any, setting: str) -> dict[str, dict[str, float]]:
    """The prices of judges' tokens, by stream.

    Args:
        given: {stream: {"read": price, "written": price}}, per million tokens; None: no prices.
        signals: {stream: signal}, or one signal, which is the stream "process".
        setting: what errors name.

    Raises:
        EngineError: a stream without a judge, or something else than two prices of at least 0.

    Example:
        >>> checked_prices({"prm": {"read": 1}}, {}, "judge_prices")
        Traceback (most recent call last):
        stepcredit.errors.EngineError: judge_prices.prm: no stream of this name has a judge
    """
    named = signals if isinstance(signals, Mapping) else {"process": signals}
    judges = [name for name, source in named.items() if has_judge(source)]
    found: dict[str, dict[str, float]] = {}
    if given is not None and not isinstance(given, Mapping):
        raise EngineError(f"expected {{stream: prices}}, got {given!r}", field=setting)
    for name, prices in (given or {}).items():
        place = f"{setting}.{name}"
        if name not in judges:
            reason = "no stream of this name has a judge"
            reason += hint(str(name), judges) if judges else ""
            raise EngineError(reason, field=place)
        if not isinstance(prices, Mapping) or sorted(prices) != sorted(PRICES):
            reason = f"expected the prices read and written per million tokens, got {prices!r}"
            raise EngineError(reason, field=place)
        found[name] = {each: finite_setting(prices[each], f"{place}.{each}") for each in PRICES}
        for each, price in found[name].items():
            if price < 0:
                reason = f"expected a number of at least 0, got {price:g}"
                raise EngineError(reason, field=f"{place}.{each}")
    return found


def has_judge(source: Any) -> bool:
    """Whether a judge is asked for a source's scores.

    Example:
        >>> has_judge(None)
        False
    """
    return bool(judges_in(source))


def has_server(source: Any) -> bool:
    """Whether a source's scores come from a server, in whole or in part.

    Example:
        >>> has_server(len)
        False
    """
    return served_statistics_in(source) is not None


def judges_in(source: Any) -> list[ChatJudge]:
    """The judges in a source, each object once.

    Example:
        >>> judges_in(None)
        []
    """
    return [each for each in distinct_signals(source) if isinstance(each, ChatJudge)]
