"""Bounds on logged metrics: a run warns or stops where a metric stays outside of one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isnan
from typing import Any

from stepcredit.credit.metrics.metric_table import (
    COST,
    METRICS,
    NUMBER,
    PREFIX,
    STREAM,
    Engine,
    Metric,
    metric_of,
)
from stepcredit.data.inputs import LOGPROBS
from stepcredit.engines.build import fields_of, finite_setting
from stepcredit.errors import EngineError
from stepcredit.settings.registry import hint

WARN, STOP = "warn", "stop"
KEYS = ("min", "max", "for", "then")


@dataclass(frozen=True)
class Bound:
    """What a metric must not leave.

    Args:
        metric: its name as it is logged.
        low, high: the smallest and the largest value allowed; None: any.
        values: how many values in a row must lie outside.
        stops: whether the run stops then; else it warns.
    """

    metric: str
    low: float | None = None
    high: float | None = None
    values: int = 1
    stops: bool = False

    def broken_by(self, value: float) -> str | None:
        """Which limit a value breaks, in words; None: it lies inside.

        Example:
            >>> Bound("stepcredit/length", high=800.0).broken_by(912.0)
            'above its max of 800'
        """
        if self.high is not None and value > self.high:
            return f"above its max of {self.high:g}"
        if self.low is not None and value < self.low:
            return f"below its min of {self.low:g}"
        return None


@dataclass(frozen=True)
class WatchResult:
    """What a watch says after one step.

    Args:
        warnings: lines to warn with.
        stop: why the run must stop, in one line; None: it goes on.
    """

    warnings: tuple[str, ...] = ()
    stop: str | None = None


@dataclass
class Watch:
    """Follows the bounds of a run from value to value.

    Args:
        bounds: of the run.

    Example:
        >>> watch = Watch([Bound("stepcredit/length", high=8.0, values=2, stops=True)])
        >>> watch.check({"stepcredit/length": 9.0}, step=1).stop is None
        True
        >>> watch.check({"stepcredit/length": 9.5}, step=2).stop
        'watch: step 2: stepcredit/length is 9.5, above its max of 8, for 2 values in a row'
    """

    bounds: Sequence[Bound]
    _outside: dict[int, int] = field(default_factory=dict)
    _unknown: set[str] = field(default_factory=set)
    _compared: set[str] = field(default_factory=set)

    @property
    def unchecked(self) -> list[str]:
        """A line for each metric that has had no value until now, for the end of a run.

        Example:
            >>> watch = Watch([Bound("kl", high=1.0), Bound("entropy", low=0.1)])
            >>> watch.check({"kl": 0.5}, step=1).stop, watch.unchecked
            (None, ['watch: entropy never had a value in this run: its bound was not checked'])
        """
        names = dict.fromkeys(bound.metric for bound in self.bounds)
        return [
            f"watch: {name} never had a value in this run: its bound was not checked"
            for name in names
            if name not in self._compared
        ]

    def check(
        self, values: Mapping[str, float], step: int, among: Collection[str] | None = None
    ) -> WatchResult:
        """Compare the values of a step with the bounds.

        A metric that is missing or NaN is warned of once, and changes nothing: its values outside
        the bound stay counted.

        Args:
            values: by metric.
            step: the training step, for messages.
            among: the metrics whose bounds are checked; None: all.
        """
        warnings, stop = list[str](), None
        for index, bound in enumerate(self.bounds):
            name = bound.metric
            if among is not None and name not in among:
                continue
            value = values.get(name)
            if value is None or isnan(value):
                warnings += self._missing(name, values, step)
                continue
            self._compared.add(name)
            line = self._broken(index, float(value), step)
            if line is None:
                continue
            if bound.stops:
                stop = stop or line
            elif self._outside[index] == bound.values:  # once, until it comes back inside
                warnings.append(line)
        return WatchResult(tuple(warnings), stop)

    def _broken(self, index: int, value: float, step: int) -> str | None:
        """The line about a bound that is broken for long enough; each bound has its own count."""
        bound = self.bounds[index]
        broken = bound.broken_by(value)
        count = 0 if broken is None else self._outside.get(index, 0) + 1
        self._outside[index] = count
        if broken is None or count < bound.values:
            return None
        line = f"watch: step {step}: {bound.metric} is {value:.6g}, {broken}"
        return line if bound.values == 1 else f"{line}, for {count} values in a row"

    def _missing(self, name: str, values: Mapping[str, float], step: int) -> list[str]:
        if name in self._unknown:
            return []
        self._unknown.add(name)
        what = "is NaN" if name in values else f"has no value{closest(name, values)}"
        line = f"watch: step {step}: {name} {what}; its bound is not checked in such steps"
        return [line]


def closest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: the closest that are.

    Example:
        >>> closest("stepcredit/lenght", ["stepcredit/length", "kl"])
        ' (did you mean stepcredit/length?)'
        >>> closest("lenght", ["stepcredit/length", "kl"])
        ' (did you mean stepcredit/length?)'
        >>> closest("x", ["kl"])
        ''
    """
    names = list(known)
    near = get_close_matches(name, names, n=3) or get_close_matches(f"{PREFIX}{name}", names, n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def checked_bounds(given: Any, setting: str) -> tuple[Bound, ...]:
    """The bounds that a setting names; whether their metrics exist is not looked at.

    Args:
        given: {metric: {"min": ..., "max": ..., "for": values in a row, "then": "warn" or
            "stop"}}, or a list of such bounds for a metric; metrics of stepcredit with or without
            their prefix. None: no bounds.
        setting: what errors name.

    Raises:
        EngineError: names the bound.

    Example:
        >>> checked_bounds({"length": {"max": 800, "for": 3, "then": "stop"}}, "watch")
        (Bound(metric='stepcredit/length', low=None, high=800.0, values=3, stops=True),)
    """
    bounds = fields_of(given, setting)
    return tuple(
        _bound(name, each, place)
        for name, of_metric in bounds.items()
        for each, place in _each_bound(of_metric, f"{setting}.{name}")
    )


def _each_bound(given: Any, place: str) -> Iterator[tuple[Any, str]]:
    """The bounds of a metric, and what errors call each: there may be one, or a list of them."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        yield given, place
        return
    if not given:
        raise EngineError("expected a bound or a list of bounds, got an empty list", field=place)
    for number, each in enumerate(given):
        yield each, f"{place}[{number}]"


def _bound(name: str, given: Any, place: str) -> Bound:
    if not isinstance(given, Mapping):
        reason = f"expected keys among {', '.join(KEYS)}, got {given!r}"
        raise EngineError(reason, field=place)
    for key in given:
        if key not in KEYS:
            raise EngineError(f"no such key{hint(str(key), list(KEYS))}", field=f"{place}.{key}")
    low, high = (
        None if given.get(key) is None else finite_setting(given[key], f"{place}.{key}")
        for key in ("min", "max")
    )
    if low is None and high is None:
        raise EngineError("expected min, max or both", field=place)
    if low is not None and high is not None and low > high:
        raise EngineError(f"min {low:g} is above max {high:g}", field=place)
    values, then = given.get("for", 1), given.get("then", WARN)
    if isinstance(values, bool) or not isinstance(values, int) or values < 1:
        reason = f"expected a whole number of at least 1, got {values!r}"
        raise EngineError(reason, field=f"{place}.for")
    if then not in (WARN, STOP):
        raise EngineError(f"expected warn or stop, got {then!r}", field=f"{place}.then")
    is_ours = metric_of(name) is not None and not name.startswith(PREFIX)
    return Bound(f"{PREFIX}{name}" if is_ours else name, low, high, values, then == STOP)


def every_stream(signals: Iterable[str]) -> list[str]:
    """The names that metrics of streams may have, where these are the process streams.

    Example:
        >>> every_stream(["prm"])[:4]
        ['prm', 'outcome', 'format', 'logprobs']
    """
    return [*signals, "outcome", "format", "logprobs", *(f"{each}_logprobs" for each in LOGPROBS)]


@dataclass(frozen=True)
class CostStreams:
    """The streams of which a run logs costs.

    Args:
        scored: those that a signal or callable scores.
        judged: those of them whose signal has a judge.
        priced: those of them whose judge has prices.
        served: those of `scored` whose signal asks a server.
    """

    scored: Collection[str] = ()
    judged: Collection[str] = ()
    priced: Collection[str] = ()
    served: Collection[str] = ()

    def of(self, row: Metric) -> tuple[Collection[str], str]:
        """The streams that have a metric of costs, and what the others lack.

        Example:
            >>> row = metric_of("stepcredit/judge_cost/prm")
            >>> CostStreams(scored=["prm"], judged=["prm"]).of(row)
            ((), 'judge_prices has no prices for this stream')
        """
        if row.name.startswith("judge_cost/"):
            return self.priced, "judge_prices has no prices for this stream"
        if row.name.startswith("judge_"):
            return self.judged, "no signal of this stream has a judge"
        if row.name.startswith("server_"):
            return self.served, "no signal of this stream asks a server"
        return self.scored, "no signal scores this stream"


def check_watched(
    bounds: Iterable[Bound],
    setting: str,
    engine: Engine,
    streams: Collection[str] | None,
    others: Iterable[str] = (),
    prefixes: tuple[str, ...] = (),
    costs: CostStreams | None = None,
) -> None:
    """Refuse bounds on metrics that the engine does not log.

    Args:
        bounds: of the run.
        setting: what errors name.
        engine: which of the metrics it logs.
        streams: names of all streams; None: they are known only with the first batch.
        others: further metrics, which the trainer logs itself.
        prefixes: beginnings of names that the trainer logs itself.
        costs: the streams of which costs are logged; None: as the other metrics.

    Raises:
        EngineError: the first bound on an unknown metric, with the closest names.

    Example:
        >>> check_watched([Bound("stepcredit/right_shar", high=1)], "watch", "trl", ["prm"])
        ... # doctest: +ELLIPSIS
        Traceback (most recent call last):
        stepcredit.errors.EngineError: watch.stepcredit/right_shar: no such metric (did you mean ...
    """
    rows = [row for row in METRICS if engine in row.engines and NUMBER not in row.name]
    known = {name for row in rows for name in _names(row, streams or (), costs)} | set(others)
    for bound in bounds:
        name = bound.metric
        row = metric_of(name) if name.startswith(PREFIX) else None
        is_open = row is not None and (costs is None or row.panel != COST) and STREAM not in name
        of_any_stream = is_open and streams is None and row in rows
        if name not in known and not of_any_stream and not name.startswith(prefixes or ("\0",)):
            near = known | {f"{PREFIX}{row.name}" for row in rows if streams is None}
            reason = _why_not(name, row, costs) or f"no such metric{closest(name, sorted(near))}"
            raise EngineError(reason, field=f"{setting}.{name}")


def _names(row: Metric, streams: Collection[str], costs: CostStreams | None) -> Iterator[str]:
    """The names of a metric that a run logs."""
    own = streams if costs is None or row.panel != COST else costs.of(row)[0]
    yield from (f"{PREFIX}{name}" for name in row.names(own))


def _why_not(name: str, row: Metric | None, costs: CostStreams | None) -> str | None:
    """Why a metric of the table has no value in this run; None: it is none of the table's."""
    if row is None:
        return None
    if NUMBER in row.name:
        return "is of an evaluation, but a watch compares the values of training"
    if name == f"{PREFIX}{row.name}" and STREAM in name:
        return "write the name of a stream in place of STREAM"
    return costs.of(row)[1] if costs is not None and row.panel == COST else None
