"""Builds the methods, signals and rewards that a trainer's settings name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import stepcredit as sc
from stepcredit.errors import EngineError, MethodError, SettingError
from stepcredit.settings.fields import checked_number
from stepcredit.settings.registry import Registry, hint
from stepcredit.signals.signal_registry import SIGNALS

Thing = TypeVar("Thing")
SPLITTER, SPLITTER_FIELDS = "blank-line", {"inside": "extend"}
"""The splitter that is used where a trainer's settings name none."""


def keeps_format(format_: float | None, gate: float | None) -> bool:
    """Whether a response with this format reward keeps the format; True where it is unknown.

    Args:
        format_: the format reward.
        gate: the least that keeps the format; None: above 0.

    Example:
        >>> [keeps_format(reward, 0.5) for reward in (None, 0.4, 0.5)], keeps_format(0.0, None)
        ([True, False, True], False)
    """
    if format_ is None:
        return True
    return format_ > 0 if gate is None else format_ >= gate


def finite_setting(given: Any, setting: str) -> float:
    """A setting of a trainer that must be a finite number.

    Args:
        given: its value.
        setting: its name, for errors.

    Raises:
        EngineError: it is something else.

    Example:
        >>> finite_setting(1, "format_gate")
        1.0
    """
    try:
        return checked_number(given, setting)
    except SettingError as error:
        raise EngineError(error.reason, field=error.field) from None


def unread_streams(estimator: sc.Estimator, streams: Iterable[str], setting: str) -> Iterator[str]:
    """What to say of process signals that are scored for the metrics alone, one line each.

    Args:
        estimator: the method.
        streams: names of the process streams, as far as they are known.
        setting: the setting that names the signals.

    Example:
        >>> method = sc.PASS(weights={"prm": 0.0, "judge": 1.0})
        >>> print(*unread_streams(method, ["prm", "judge"], "process_signal"))
        process_signal: the stream 'prm' has weight 0: it is for the metrics alone
    """
    reads, name = estimator.reads, estimator.name or type(estimator).__name__
    if reads.process is None:
        yield f"{setting}: {name} reads no process stream: it is for the metrics alone"
    for stream in streams:
        if (reads.weights or {}).get(stream) == 0:
            yield f"{setting}: the stream {stream!r} has weight 0: it is for the metrics alone"


def fields_of(given: Any, setting: str) -> dict[str, Any]:
    """The fields, or other values by name, that a setting holds; None holds none.

    Args:
        given: the setting's value.
        setting: its name, for errors.

    Raises:
        EngineError: the value is not a mapping, or a key is not a string.

    Example:
        >>> fields_of({"k": 0.7}, "fields"), fields_of(None, "fields")
        ({'k': 0.7}, {})
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise EngineError(f"expected a mapping, got {given!r}", field=setting)
    for name in given:
        if not isinstance(name, str):
            raise EngineError(f"expected names, got {name!r}", field=setting)
    return dict(given)


def build_named(
    registry: Registry[Thing],
    name: Any,
    fields: Mapping[str, Any],
    setting: str,
    fields_setting: str,
) -> Thing:
    """The method, signal or reward that a setting names.

    Args:
        registry: builds the object from its name and fields.
        name, fields: of the method, signal or reward.
        setting: the setting that holds the name.
        fields_setting: the setting that holds the fields.

    Raises:
        EngineError: an unknown name or a bad field; the message begins with the setting.

    Example:
        >>> from stepcredit.credit.method_registry import METHODS
        >>> build_named(METHODS, "pass", {"k": 1.0}, "method", "fields").k
        1.0
    """
    try:
        return registry.build(name, fields, at=setting, under=fields_setting)
    except SettingError as error:
        raise EngineError(error.reason, field=error.field) from error


def build_signals(names: Any, fields: Any, setting: str) -> dict[str, sc.Signal]:
    """The signals that a setting names, by stream. A single signal is the stream "process".

    Args:
        names: a signal's name, or {stream: name}, or None.
        fields: the fields of the signal, or {stream: fields}: the value of the setting
            `{setting}_fields`.
        setting: the setting that holds the names.

    Raises:
        EngineError: an unknown name, a bad field, or fields without a signal; the message begins
            with the setting.

    Example:
        >>> names, fields = {"sums": "arithmetic"}, {"sums": {"neutral": 1.0}}
        >>> build_signals(names, fields, "process_signal")["sums"].neutral
        1.0
    """
    fields_setting = f"{setting}_fields"
    known = fields_of(fields, fields_setting)
    if not isinstance(names, Mapping):
        if names is None and known:
            raise EngineError("fields without a signal: set its name too", field=fields_setting)
        if names is None:
            return {}
        return {"process": build_named(SIGNALS, names, known, setting, fields_setting)}
    for stream in known:
        if stream not in names:
            reason = f"no such stream{hint(stream, list(map(str, names)))}"
            raise EngineError(reason, field=f"{fields_setting}.{stream}")
    return {
        stream: build_named(
            SIGNALS,
            name,
            fields_of(known.get(stream), f"{fields_setting}.{stream}"),
            f"{setting}.{stream}",
            f"{fields_setting}.{stream}",
        )
        for stream, name in names.items()
    }


def check_known_streams(
    estimator: sc.Estimator,
    streams: Iterable[str],
    setting: str,
    others: Iterable[str] = (),
    *,
    method: str = "method",
) -> None:
    """Refuse weights that do not fit the process streams, and streams that the method can't read.

    A weight of a stream that nothing gives would add nothing to any advantage, and still count in
    the sum of weights by which gated responses learn their format.

    Args:
        estimator: the method.
        streams: names of all process streams that the method will be given.
        others: names of streams that may have a weight too: ready-made advantages.
        method: the setting that names the method.
        setting: the setting that holds the method's weights.

    Raises:
        EngineError: names the stream; or all weights are 0.

    Example:
        >>> check_known_streams(sc.PASS(weights={"prm": 1.0, "outcome": 1.0}), ["prm"], "weights")
    """
    names = list(streams)
    weights = estimator.reads.weights
    if weights and not any(weights.values()):
        raise EngineError("all are 0: nothing would be learned", field=setting)
    check_stream_weights(estimator, names, setting)
    for name in weights_of_no_stream(estimator, names, others):
        there = ", ".join([*names, "outcome", "format"])
        raise EngineError(f"no such stream: there are {there}", field=f"{setting}.{name}")
    try:
        estimator.check_streams(names)
    except MethodError as error:
        raise EngineError(error.reason, field=method) from error


def check_states(estimator: sc.Estimator, setting: str, given: Any = None) -> None:
    """Refuse a method that compares states where nothing gives them.

    Args:
        estimator: the method.
        setting: the setting that names the method.
        given: what gives the states of steps; None: nothing does.

    Raises:
        EngineError: says what is missing.

    Example:
        >>> check_states(sc.GiGPO(), "method")
        Traceback (most recent call last):
        stepcredit.errors.EngineError: method: gigpo needs step_states: nothing gives them
    """
    if estimator.reads.states and given is None:
        name = estimator.name or type(estimator).__name__
        reason = f"{name} needs step_states: nothing gives them"
        raise EngineError(reason, field=setting)


def weights_of_no_stream(
    estimator: sc.Estimator, streams: Iterable[str], others: Iterable[str] = ()
) -> list[str]:
    """The names in the weights that no stream has.

    The default weights name the stream "process", which may be absent where there is no stream.

    Args:
        estimator: the method.
        streams: names of all process streams.
        others: names of streams that may have a weight too: ready-made advantages.

    Example:
        >>> method = sc.PASS(weights={"prm": 1.0, "outcome": 1.0})
        >>> weights_of_no_stream(method, ["prm"]), weights_of_no_stream(method, ["judge"])
        ([], ['prm'])
    """
    names = set(streams) or {"process"}
    allowed = names.union(others, ("outcome", "format"))
    weights = estimator.reads.weights or {}
    return [name for name, weight in weights.items() if weight and name not in allowed]


def check_stream_weights(estimator: sc.Estimator, streams: Iterable[str], setting: str) -> None:
    """Refuse a process stream that the method would ignore because it has no weight.

    Args:
        estimator: the method.
        streams: names of the process streams.
        setting: the setting that holds the method's weights.

    Raises:
        EngineError: names the stream and the weights.

    Example:
        >>> check_stream_weights(sc.PASS(), ["process"], "fields.weights")
    """
    reads = estimator.reads
    stream = reads.first_unweighted_stream(streams)
    if stream is not None:
        weights = ", ".join(f"{name}: {weight:g}" for name, weight in (reads.weights or {}).items())
        reason = f"the stream {stream!r} has no weight, the weights are {weights}"
        raise EngineError(reason, field=setting)
