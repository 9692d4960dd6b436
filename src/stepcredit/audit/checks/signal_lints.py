"""Signals that hold little: constant, saturated or three-valued scores, groups without variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.checks.lints import first_places
from stepcredit.audit.finding import (
    AuditFigure,
    CheckResult,
    Finding,
    Severity,
    Unchecked,
    Worse,
)
from stepcredit.audit.group_means import FEWEST_GROUPS
from stepcredit.credit.metrics.batch_warnings import NEARLY_CONSTANT
from stepcredit.credit.metrics.signal_statistics import stream_variances
from stepcredit.credit.stages.groups import TOLERANCE
from stepcredit.data.forest import reduce_rows
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.rules import counted
from stepcredit.data.streams import Stream

VARIANCE, VALUES = "groups without variance", "values of the signal"
MANY_WITHOUT = 0.6
"""Groups all right or all wrong are common; above this part, most prompts teach nothing."""
SATURATED = 0.9
"""If this part of the scores stands at one end of their range, the rest alone is learned from."""
END_OF_RANGE = 0.01
"""Scores within this part of the range from its end stand at the end."""
FEWEST_SCORES = 30
"""With fewer scores, nothing is said of their values."""


@register_check(VARIANCE)
def check_variance(data: AuditInput) -> CheckResult:
    """Groups in which all values of a stream, or all outcomes, are equal: they teach nothing."""
    rollouts, figures, found = data.batch.rollouts, [], []
    group = rollouts.group_index.numpy()
    for name, (flat, several) in flat_groups(rollouts).items():
        count = int(several.sum())
        share = float(flat.sum() / count) if count else None
        is_format = name == "format"  # equal formats are what is wanted
        worse: Worse = "" if is_format else "higher"
        what = "share of groups whose values are all equal"
        figure = AuditFigure(what, share, count, "groups", stream=name, worse=worse)
        figures.append(figure)
        if share is None or is_format or count < FEWEST_GROUPS:
            continue
        if share > MANY_WITHOUT:
            sentence = f"In {int(flat.sum())} of {counted(count, 'group')} all values of {name!r} "
            sentence += "are equal, so that it teaches nothing there."
            advice = (
                "Leave out the prompts that are too easy or too hard, or sample more responses "
            )
            advice += (
                "per prompt." if name == "outcome" else "per prompt; or choose another signal."
            )
            places = first_places(np.flatnonzero(flat[group]))
            topic = f"groups in which all values of {name} are equal"
            found.append(
                Finding(VARIANCE, "warn", sentence, (figure,), advice, places, share, topic)
            )
    return CheckResult(tuple(figures), tuple(found))


def flat_groups(rollouts: Rollouts) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each stream, the groups whose values are all equal, and those with two values or more.

    Returns:
        {stream: (equal values among at least two, at least two values)}, for process streams, and
        for "outcome" and "format" where any is known.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0, 1, 1], [1] * 4, outcome=[1.0, 1.0, 1.0, 0.0])
        >>> [flags.tolist() for flags in flat_groups(r)["outcome"]]
        [[True, False], [True, True]]
    """
    group, ones = rollouts.group_index, torch.ones_like(rollouts.group_index)
    found = {
        name: _flat(stream.values, stream.counts, group, rollouts.num_groups)
        for name, stream in rollouts.streams.items()
    }
    for name, scalar in (("outcome", rollouts.outcomes), ("format", rollouts.formats)):
        known = scalar.known
        if bool(known.any()):
            counts = ones[known]
            found[name] = _flat(scalar.values[known], counts, group[known], rollouts.num_groups)
    return found


def _flat(
    values: torch.Tensor, counts: torch.Tensor, group: torch.Tensor, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    held, of = counts > 0, group.numpy()
    low, high = np.full(groups, np.inf), np.full(groups, -np.inf)
    if bool(held.any()):
        rows = of[held.numpy()]
        np.minimum.at(low, rows, reduce_rows(values, counts, "min").double()[held].numpy())
        np.maximum.at(high, rows, reduce_rows(values, counts, "max").double()[held].numpy())
    several = np.bincount(of, counts.numpy(), minlength=groups) > 1
    spread = np.where(several, high, 0.0) - np.where(several, low, 0.0)
    largest = np.maximum(np.abs(np.where(several, high, 0.0)), np.abs(np.where(several, low, 0.0)))
    return several & (spread <= TOLERANCE * largest), several


@dataclass(frozen=True)
class ScoreValues:
    """Which values a stream's scores have.

    Args:
        count: how many scores there are.
        distinct: how many different values; `MOST_DISTINCT` + 1 stands for more.
        low, high: the smallest and the largest.
        at_low, at_high: the share of scores at either end of the range.
    """

    count: int
    distinct: int
    low: float
    high: float
    at_low: float
    at_high: float


MOST_DISTINCT = 3
"""A judge that says bad, unsure and good has three values; scores of more are numbers."""


def score_values(stream: Stream) -> ScoreValues | None:
    """Counts and range of a stream's scores; None: it has none.

    Example:
        >>> import stepcredit as sc
        >>> score_values(sc.Tokens([[0.0, 1.0, 1.0, 1.0]]))
        ScoreValues(count=4, distinct=2, low=0.0, high=1.0, at_low=0.25, at_high=0.75)
    """
    values = stream.values.double().numpy()
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    reach = END_OF_RANGE * (high - low)
    return ScoreValues(
        values.size,
        _distinct(values),
        low,
        high,
        float((values <= low + reach).mean()),
        float((values >= high - reach).mean()),
    )


def _distinct(values: np.ndarray) -> int:
    """Different values up to `MOST_DISTINCT` + 1: one pass over the scores per value."""
    left, found = values, 0
    while left.size and found <= MOST_DISTINCT:
        left, found = left[left != left[0]], found + 1
    return found


@register_check(VALUES)
def check_values(data: AuditInput) -> CheckResult:
    """Scores that are constant, nearly so, at one end of their range, or of two or three values."""
    rollouts, figures, found = data.batch.rollouts, [], []
    if not rollouts.streams:
        reason = "No row holds scores of a process signal."
        return CheckResult(unchecked=(Unchecked(VALUES, "step_scores", reason),))
    variances = stream_variances(rollouts)
    for name, stream in rollouts.streams.items():
        values = score_values(stream)
        if values is None:
            continue
        end = max(values.at_low, values.at_high)
        what = "share of scores at one end of their range"
        figure = AuditFigure(what, end, values.count, "steps", stream=name, worse="higher")
        figures.append(figure)
        said = _of_values(name, values, variances.get(name, 0.0) ** 0.5)
        if said is not None and values.count >= FEWEST_SCORES:
            severity, sentence, advice = said
            topic = f"values of {name} that say little"
            found.append(Finding(VALUES, severity, sentence, (figure,), advice, topic=topic))
    return CheckResult(tuple(figures), tuple(found))


def _of_values(name: str, values: ScoreValues, std: float) -> tuple[Severity, str, str] | None:
    """Severity, sentence and advice of the clearest fault of a stream's values; None: none."""
    of = f"scores of {name!r}"
    scale = 1.0 if values.low >= 0 and values.high <= 1 else max(abs(values.low), abs(values.high))
    if values.distinct == 1:
        advice = "Look whether the signal scored these responses; a constant teaches nothing."
        return "warn", f"All {values.count} {of} are {values.low:g}.", advice
    if std < NEARLY_CONSTANT * scale:
        sentence = f"The {of} are almost constant: their std within groups is {std:.2g}, of a "
        advice = "Set `PASS(min_std=...)`, `--set min_std=...`, or choose another signal: a method "
        advice += "that divides by the std makes large credit of small differences."
        return "warn", f"{sentence}scale of {scale:.2g}.", advice
    share, at = max((values.at_high, values.high), (values.at_low, values.low))
    if share >= SATURATED:
        advice = "Score with a harder signal, or with the model's logits in place of its rounded "
        return "warn", f"{share:.0%} of the {of} stand at {at:g}.", f"{advice}probabilities."
    if values.distinct <= MOST_DISTINCT:
        sentence = (
            f"The {of} have {values.distinct} different values only, so that most steps of a "
        )
        advice = 'That is right for a judge or a program; `PASS(chunks="runs")` joins equal steps.'
        return "note", f"{sentence}response are credited alike.", advice
    return None
