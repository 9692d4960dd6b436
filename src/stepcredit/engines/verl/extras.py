"""The extras of a response: what the reward loop reports in addition to the reward.

verl keeps them in its queue, in `extra_fields["reward_extra_info"]`. The reward manager writes
them and the trainer reads them. Their names are those of the rollout format, and `ends` and scores
of tokens count all tokens of the response.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import stepcredit as sc
from stepcredit.data.streams import Stream
from stepcredit.engines.each_stream import of_each_stream
from stepcredit.engines.scoring_costs import ScoringCost, merged_costs
from stepcredit.errors import EngineError, RolloutError
from stepcredit.signals.signal import Signal
from stepcredit.signals.unscorable import scored_ends

ERROR = "stepcredit_error"
"""Extra that holds a row's error. The trainer stops at it; verl would log it and drop the row."""

CUT = "stepcredit_cut"
"""Extra that says which streams scored a row only up to a step before the last."""

COST = "stepcredit_cost"
"""Extra that says what a row's scores took: the worker, and by stream the seconds and answers."""

Extras = Mapping[str, Any]
OF_AGENTS = ("step_ends", "step_scores", "token_scores", "signals", "step_states")
"""Fields that an agent loop may put into the `extra_fields` of its output."""


def agent_extras(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What an agent loop says of the steps of an output, by the rollout format's names.

    Example:
        >>> agent_extras({"turn_scores": [], "step_states": ["a", "b"], "token_scores": None})
        {'step_states': ['a', 'b']}
    """
    return {name: fields[name] for name in OF_AGENTS if fields.get(name) is not None}


def merge_extras(given: Extras, ours: Extras) -> dict[str, Any]:
    """The reward function's extras, and ours.

    Raises:
        EngineError: both have the same one.

    Example:
        >>> merge_extras({"acc": 1.0}, {"format": 0.0})
        {'acc': 1.0, 'format': 0.0}
    """
    for name in ours:
        if given.get(name) is not None:
            reason = "the reward function returns it too: only one of the two may"
            raise EngineError(reason, field=name)
    return {**given, **ours}


def averageable(extras: Extras) -> dict[str, Any]:
    """The extras that verl's validation can read: it fails on lists and mappings, and skips None.

    Example:
        >>> averageable({"outcome": None, "pred": "42", "step_ends": [3]})
        {'outcome': None, 'pred': '42'}
    """
    return {
        name: value
        for name, value in extras.items()
        if not isinstance(value, Mapping | list | tuple) and not getattr(value, "ndim", 0)
    }


def reported_outcome(extras: Extras, reward: float | None) -> float | None:
    """The outcome of a row: its extra `outcome`, where None means unknown, or else its reward.

    Raises:
        RolloutError: the extra is neither a number nor None.

    Example:
        >>> reported_outcome({}, 1.0), reported_outcome({"outcome": 0.5}, 1.0)
        (1.0, 0.5)
        >>> reported_outcome({"outcome": None}, 0.0) is None
        True
    """
    given = extras.get("outcome", reward)
    try:
        return None if given is None else float(given)
    except (TypeError, ValueError):
        raise RolloutError(f"expected a number or null, got {given!r}", field="outcome") from None


def score_extras(
    signals: Mapping[str, Signal],
    scores: Mapping[str, Sequence[float]],
    ends: Sequence[int] | None,
) -> dict[str, Any]:
    """Scores as extras. Every row gets the same names, whether it has scores or not.

    Scores of tokens are an array, which passes verl's queue and is read far faster than a list.

    Args:
        signals: by stream.
        scores: by stream; empty for a row without scores.
        ends: index of each step's last token, counting all tokens of the response; None where no
            signal scores steps.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> score_extras({"process": signal("equations")}, {"process": [1.0]}, [8])
        {'step_ends': [8], 'step_scores': [1.0]}
        >>> score_extras({"checked": signal("equations")}, {"checked": [1.0]}, [8])
        {'signals': {'checked': {'scores': [1.0], 'ends': [8]}}}
    """
    extras: dict[str, Any] = {}
    for name, signal in signals.items():
        own: Any = scores.get(name)
        of_steps = signal.grain == "steps"
        scored = ends if own is None or ends is None else scored_ends(ends, len(own))
        if signal.may_leave_out and of_steps:
            is_cut = 0 < len(own or ()) < len(ends or ())
            extras.setdefault(CUT, {})[name] = is_cut
        if own is not None and not of_steps:
            own = np.array(own, dtype=np.float64)
        if name != "process":
            stream = {"scores": own, **({"ends": scored} if of_steps else {})}
            extras.setdefault("signals", {})[name] = None if own is None else stream
        elif of_steps:
            extras |= {"step_ends": None if own is None else scored, "step_scores": own}
        else:
            extras["token_scores"] = own
    return extras


def scoring_costs(rows: Iterable[Extras]) -> dict[str, ScoringCost]:
    """What the reward loop's scores of a batch took, by stream.

    Args:
        rows: each response's extras.

    Returns:
        Of each stream, the seconds of the slowest worker and the answers of all.

    Example:
        >>> def row(worker, seconds):
        ...     return {COST: {"worker": worker, "streams": {"prm": {"seconds": seconds}}}}
        >>> scoring_costs([row("a", 1.0), row("b", 1.5), row("a", 1.0), {}])["prm"].seconds
        2.0
    """
    by_worker: dict[str, dict[str, ScoringCost]] = {}
    for extras in rows:
        told = extras.get(COST) or {}
        own = by_worker.setdefault(told.get("worker", ""), {})
        for name, extra in told.get("streams", {}).items():
            own[name] = own.get(name, ScoringCost()).after(ScoringCost.of_extra(extra))
    return merged_costs(list(by_worker.values()))


def has_scores_of(extras: Extras, stream: str) -> bool:
    """Whether the reward loop scored a row for a stream, if only to find that it can't be scored.

    Example:
        >>> has_scores_of({"step_scores": []}, "process"), has_scores_of({}, "process")
        (True, False)
    """
    if stream == "process" and not {"step_scores", "token_scores"}.isdisjoint(extras):
        return True
    return stream in (extras.get("signals") or {})


def reported_streams(rows: Sequence[Extras]) -> dict[str, Stream]:
    """The process streams in the extras of a batch, over all tokens of the responses.

    `step_ends` with `step_scores`, or `token_scores`, are the stream "process". `signals` holds
    further streams: {name: {`ends`, `scores`}}, without `ends` where the scores are of tokens. A
    row without scores of a stream has None, empty lists or no such key. Each list may also be an
    array or a tensor.

    Args:
        rows: each response's extras.

    Raises:
        RolloutError: a row that breaks a rule, by its number and its stream.

    Example:
        >>> streams = reported_streams([{"step_ends": [1, 4], "step_scores": [0.5, 1.0]}, {}])
        >>> streams["process"].counts.tolist(), streams["process"].ends.tolist()
        ([2, 0], [1, 4])
    """
    given = [_reported(extras, row) for row, extras in enumerate(rows)]
    rows_of: dict[str, list[Extras]] = {
        name: [streams.get(name, {}) for streams in given]
        for name in dict.fromkeys(name for streams in given for name in streams)
    }
    return of_each_stream(rows_of, _stream)


def _reported(extras: Extras, row: int) -> dict[str, Extras]:
    """The streams of which a row has scores."""
    streams = _named_streams(extras, row)
    own = [name for name in ("step_scores", "token_scores") if _has_values(extras.get(name))]
    if len(own) > 1 or (own and _has_values(streams.get("process", {}).get("scores"))):
        raise RolloutError("the stream 'process' is given twice", row=row, field=own[0])
    if own:
        ends = extras.get("step_ends") if own == ["step_scores"] else None
        streams["process"] = {"ends": ends, "scores": extras[own[0]]}
    return {name: stream for name, stream in streams.items() if _has_values(_values(stream))}


def _named_streams(extras: Extras, row: int) -> dict[str, Extras]:
    """The streams under `signals`; refuses ends and scores of any stream that are no lists."""
    streams: dict[str, Extras] = {
        name: _mapping(stream, f"signals.{name}", row)
        for name, stream in _mapping(extras.get("signals"), "signals", row).items()
    }
    lists = {name: extras.get(name) for name in ("step_ends", "step_scores", "token_scores")}
    for name, stream in streams.items():
        lists |= {f"signals.{name}.{key}": value for key, value in stream.items()}
    for name, values in lists.items():
        if type(values) is list or values is None:
            continue
        if not isinstance(values, Collection) or getattr(values, "ndim", 1) != 1:
            raise RolloutError(f"expected a list, got {values!r}", row=row, field=name)
    return streams


def _mapping(given: Any, name: str, row: int) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise RolloutError(f"expected names with their values, got {given!r}", row=row, field=name)
    return dict(given)


def _stream(rows: Sequence[Extras]) -> Stream:
    kinds = [_kind(stream) if stream else None for stream in rows]
    kind = next(kind for kind in kinds if kind is not None)
    for row, other in enumerate(kinds):
        if other not in (None, kind):
            raise RolloutError(f"holds {other}, other responses {kind}", row=row)
    values = [_values(stream) for stream in rows]
    if kind == "scores of steps":
        ends = [_as_list(stream.get("ends")) for stream in rows]
        return sc.Steps(ends, [_as_list(row) for row in values])
    return (sc.TokenAdvantages if kind == "advantages" else sc.Tokens)(*_packed(values))


def _kind(stream: Extras) -> str:
    if "advantages" in stream:
        return "advantages"
    return "scores of tokens" if stream.get("ends") is None else "scores of steps"


def _values(stream: Extras) -> Any:
    return stream.get("advantages", stream.get("scores"))


def _has_values(values: Any) -> bool:
    return values is not None and len(values) > 0


def _packed(rows: Sequence[Any]) -> tuple[Any, list[int] | None]:
    """Rows of numbers as `Tokens` takes them: arrays of floats are joined, the rest are lists."""
    arrays = [row for row in rows if _has_values(row)]
    if not all(type(row) is np.ndarray and row.dtype.char in "efd" for row in arrays):
        return [_as_list(row) for row in rows], None
    counts = [0 if row is None else len(row) for row in rows]
    return np.concatenate(arrays, dtype=np.float64), counts


def _as_list(values: Any) -> list[Any]:
    if type(values) is list:
        return values
    if values is None:
        return []
    return values.tolist() if hasattr(values, "tolist") else list(values)
