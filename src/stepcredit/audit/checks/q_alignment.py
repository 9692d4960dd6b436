"""Q-alignment: whether signals and credit order steps as the changes of value do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.example_places import best_steps
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding, Unchecked, Worse
from stepcredit.audit.group_means import FINDING_CONFIDENCE, GroupMean
from stepcredit.audit.scored_steps import scores_of_steps
from stepcredit.audit.step_credit import read_streams, step_credit
from stepcredit.audit.value_alignment import SMALLEST_CHANGE, Alignment, ValueChanges, alignment
from stepcredit.credit.metrics.group_averages import Floats
from stepcredit.credit.metrics.step_kinds import StepKinds

NAME = "q_alignment"
MOST_LEAKAGE = 1.2
"""Size on steps that change nothing, beside all steps, above which they stand out; credit that
follows the outcome alone has 1, because it is the same on all steps of a response."""


@register_check(NAME)
def check_q_alignment(given: AuditInput) -> CheckResult:
    """How far each signal and each method's credit agree with what steps change in the value."""
    kinds, changes = given.step_kinds, ValueChanges.of(given.batch)
    if kinds is None or changes is None:
        field = "step_ends" if kinds is None else "step_values"
        reason = "Without values of states, or the truth about steps, alignment cannot be measured."
        return CheckResult(unchecked=(Unchecked(NAME, field, reason),))
    figures, findings = list[AuditFigure](), list[Finding]()
    in_order = dict[str, float]()
    for method, stream, numbers in _numbers(given, kinds):
        found = alignment(numbers, changes.values, kinds.group, centred=bool(method))
        own = _figures(found, changes.field, method, stream)
        figures += own
        if stream and found.spearman.is_surely_above():
            in_order[stream] = found.spearman.mean or 0.0
        if _is_suspect(found):
            level = FINDING_CONFIDENCE
            sure = alignment(
                numbers, changes.values, kinds.group, centred=bool(method), confidence=level
            )
            name = f"The credit of {method}" if method else f"The signal {stream}"
            advice = _advice_on_order(_ordered_reads(given, method, in_order))
            findings += _findings(name, sure, own, numbers, changes.values, kinds, advice)
    return CheckResult(tuple(figures), tuple(findings))


def _ordered_reads(
    given: AuditInput, method: str, in_order: Mapping[str, float]
) -> dict[str, float]:
    """Of the signals that a method reads, those that order steps as their changes do."""
    if not method:
        return {}
    reads = read_streams(given.methods[method], given.batch.rollouts)
    return {name: found for name, found in in_order.items() if name in reads}


def _advice_on_order(ordered: Mapping[str, float]) -> str:
    """What to change where numbers are in the wrong order, given the right order of their signals.

    Example:
        >>> print(_advice_on_order({}))
        Look whether scores are turned round, or shifted by a step (`step_ends`).
    """
    if not ordered:
        return "Look whether scores are turned round, or shifted by a step (`step_ends`)."
    signals = ", ".join(f"{name} (rank correlation {x:+.2f})" for name, x in ordered.items())
    advice = f"The scores of {signals} are in the right order, so this comes from the method: look "
    return f"{advice}at the steps named here, and compare it with other methods (`--method`)."


def _is_suspect(found: Alignment) -> bool:
    """Whether a 95 % interval is where a finding's wider one may be."""
    return _is_reversed(found) or _is_leaky(found)


def _is_reversed(found: Alignment) -> bool:
    return found.spearman.is_surely_below()


def _is_leaky(found: Alignment) -> bool:
    return found.leakage.is_surely_above(MOST_LEAKAGE)


def _numbers(given: AuditInput, kinds: StepKinds) -> Iterator[tuple[str, str, Floats]]:
    """(method, stream, one number per step): scores of signals, and then credit of methods."""
    for stream, (scores, known) in scores_of_steps(given.batch.rollouts, kinds.ends).items():
        yield "", stream, np.where(known, scores, np.nan)
    for method, advantages in given.advantages.items():
        yield method, "", step_credit(advantages, kinds.ends).numpy()


def _figures(found: Alignment, field: str, method: str, stream: str) -> list[AuditFigure]:
    named: list[tuple[str, Worse, GroupMean]] = [
        (f"rank correlation with what steps change ({field})", "lower", found.spearman),
        (f"share of steps with the sign of their change ({field})", "lower", found.sign_accuracy),
        (f"size on steps that change nothing, beside all steps ({field})", "higher", found.leakage),
    ]
    return [
        AuditFigure(name, of="steps", method=method, stream=stream, worse=worse, **mean.as_figure())
        for name, worse, mean in named
        if mean.count
    ]


def _findings(
    name: str,
    sure: Alignment,
    evidence: list[AuditFigure],
    numbers: Floats,
    changes: Floats,
    kinds: StepKinds,
    advice_on_order: str,
) -> Iterator[Finding]:
    spearman, leak = sure.spearman, sure.leakage
    if _is_reversed(sure):
        sentence = f"{name} orders steps against what they change in the chance of a right outcome "
        sentence += f"(rank correlation {spearman.mean:+.2f} in {spearman.groups:,} groups)."
        against = -numbers * np.sign(changes)
        places = best_steps(against, np.isfinite(against), kinds)
        topic = f"{name} orders steps against what they change".removeprefix("The ")
        yield Finding(NAME, "warn", sentence, tuple(evidence), advice_on_order, places, topic=topic)
    if _is_leaky(sure):
        sentence = f"{name} gives steps that change nothing more weight than others "
        sentence += f"({leak.mean:.2f} times the mean size, {leak.groups:,} groups)."
        advice = "Such steps add noise to training, or pay for padding: see the payment of filler, "
        advice += "and lower this signal's scores there."
        still = (np.abs(changes) <= SMALLEST_CHANGE) & np.isfinite(numbers)
        places = best_steps(np.abs(numbers), still, kinds)
        topic = f"{name} is large on steps that change nothing".removeprefix("The ")
        yield Finding(NAME, "note", sentence, tuple(evidence), advice, places, topic=topic)
