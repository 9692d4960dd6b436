"""What became better paid from one file to another: by kind of step or response, and by method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stepcredit.audit.batch_pairs import BatchPairs
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.group_means import FEWEST_GROUPS, FINDING_CONFIDENCE, SMALLEST_MEAN
from stepcredit.audit.scored_steps import scores_of_steps
from stepcredit.audit.step_credit import step_credit
from stepcredit.credit.metrics.advantage_statistics import response_means
from stepcredit.credit.metrics.group_averages import Flags, Floats, Indices, means_by_group
from stepcredit.credit.metrics.signal_statistics import response_scores, right_and_wrong
from stepcredit.evals.intervals import difference_interval, mean_interval

Both = tuple[Floats, Floats]


@dataclass(frozen=True)
class PayChange:
    """How a mean changes from the first file to the second.

    Args:
        what: what the mean is of, such as "advantage of filler steps".
        method, stream: whose credit or scores they are; "" for neither.
        first, second: the mean in each file, in which each prompt or group counts once.
        change: second minus first; with pairs, the mean over the pairs.
        low, high: its 95 % interval; None where there are too few.
        units: pairs; without pairs, the prompts or groups of each file.
        direction: "up" or "down" where the change is certain at 99 %, not negligible, and of at
            least `FEWEST_GROUPS` units in each file; else "".
    """

    what: str
    method: str
    stream: str
    first: float
    second: float
    change: float
    low: float | None
    high: float | None
    units: tuple[int, ...]
    direction: Literal["up", "down", ""]


@dataclass(frozen=True, eq=False)
class _Side:
    """One file's values of a measure: steps or responses, with their kinds and units."""

    values: Floats
    flags: Mapping[str, Flags]
    units: Indices


def pay_changes(first: AuditInput, second: AuditInput, pairs: BatchPairs) -> list[PayChange]:
    """The changes of what each kind of step and of response is paid, and how signals score it.

        paired     mean over shared prompts of (mean of the second's - mean of the first's)
        unpaired   mean over the second's groups - mean over the first's, Welch's interval

    Args:
        first, second: the inputs; methods and streams that both have are compared.
        pairs: of their batches.

    Returns:
        By method, then by stream; kinds without a step or response in either file are left out.

    Source: of the interval without pairs, Welch 1947, The generalization of "Student's" problem.
    """
    sides = [
        _sides(given, kept, units)
        for given, kept, units in zip((first, second), pairs.kept, pairs.units, strict=True)
    ]
    found = []
    for key, a in sides[0].items():
        b = sides[1].get(key)
        if b is None:
            continue
        for kind in a.flags:
            if kind in b.flags:
                change = _change(key, kind, a, b, is_paired=bool(pairs.by))
                found += [] if change is None else [change]
    return found


_Key = tuple[str, str, str]
"""Quantity, method, stream."""


def _sides(given: AuditInput, kept: Flags, units: Indices) -> dict[_Key, _Side]:
    """Advantages by method and scores by stream, of steps and of responses, where they are kept."""
    return dict(_values(given, kept, units))


def _values(given: AuditInput, kept: Flags, units: Indices) -> Iterator[tuple[_Key, _Side]]:
    rollouts, kinds = given.batch.rollouts, given.step_kinds
    right, wrong = (flags.numpy() for flags in right_and_wrong(rollouts, given.right_above))
    responses = {"right responses": right & kept, "wrong responses": wrong & kept}
    steps = {}
    if kinds is not None:
        steps = {f"{kind} steps": flags & kept[kinds.row] for kind, flags in kinds.flags.items()}
    for method, advantages in given.advantages.items():
        if kinds is not None:
            credit = step_credit(advantages, kinds.ends).numpy()
            yield ("advantage of the steps", method, ""), _Side(credit, steps, units[kinds.row])
        means = response_means(advantages).numpy()
        yield ("advantage of the responses", method, ""), _Side(means, responses, units)
    if kinds is not None:
        for stream, (values, known) in scores_of_steps(rollouts, kinds.ends).items():
            scored = {kind: flags & known for kind, flags in steps.items()}
            yield ("score of the steps", "", stream), _Side(values, scored, units[kinds.row])
    for stream, (values, known) in response_scores(rollouts).items():
        scored = {kind: flags & known for kind, flags in responses.items()}
        yield ("score of the responses", "", stream), _Side(values, scored, units)


def _change(key: _Key, kind: str, a: _Side, b: _Side, *, is_paired: bool) -> PayChange | None:
    """The change of one kind under one method or stream; None where a file has none of it."""
    means = _unit_means(kind, a, b)
    if is_paired:
        both = np.isfinite(means[0]) & np.isfinite(means[1])
        own = means[0][both], means[1][both]
        units: tuple[int, ...] = (int(both.sum()),)
    else:
        own = means[0][np.isfinite(means[0])], means[1][np.isfinite(means[1])]
        units = len(own[0]), len(own[1])
    if not min(units):
        return None
    first, second = (float(values.mean()) for values in own)
    low, high = _ends(own, is_paired, 0.95)
    quantity, method, stream = key
    return PayChange(
        f"{quantity.split()[0]} of {kind}",
        method,
        stream,
        first,
        second,
        second - first,
        low,
        high,
        units,
        _direction(own, is_paired, float(np.concatenate([a.values, b.values]).std())),
    )


def _unit_means(kind: str, a: _Side, b: _Side) -> Both:
    """The mean of a kind in each unit; NaN where a unit has none. Both have as many units."""
    count = int(max(a.units.max(), b.units.max())) + 1
    return tuple(means_by_group(s.values, s.flags[kind], s.units, count) for s in (a, b))  # type: ignore[return-value]


def _ends(own: Both, is_paired: bool, confidence: float) -> tuple[float | None, float | None]:
    """The interval of the change; None without two units on each side."""
    if min(map(len, own)) < 2:
        return None, None
    if is_paired:
        found = mean_interval(own[1] - own[0], confidence=confidence)
    else:
        found = difference_interval(own[0], own[1], confidence)
    return found.low, found.high


def _direction(own: Both, is_paired: bool, spread: float) -> Literal["up", "down", ""]:
    if min(map(len, own)) < FEWEST_GROUPS:
        return ""
    low, high = _ends(own, is_paired, FINDING_CONFIDENCE)
    change = float(own[1].mean() - own[0].mean())
    if low is None or high is None or abs(change) < SMALLEST_MEAN * spread or low <= 0 <= high:
        return ""
    return "up" if change > 0 else "down"
