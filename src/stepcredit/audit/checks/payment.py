"""What credit pays: the mean advantage of right, wrong, filler, repeated, first and last steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.example_places import best_steps
from stepcredit.audit.finding import (
    AuditFigure,
    CheckResult,
    Finding,
    Unchecked,
    Worse,
    evidence_of,
)
from stepcredit.audit.group_means import FINDING_CONFIDENCE, GroupMean, group_gap, group_mean
from stepcredit.audit.step_credit import step_credit
from stepcredit.credit.metrics.group_averages import Floats
from stepcredit.credit.metrics.step_kinds import OTHER, PADDING, RIGHT, WRONG, StepKinds

NAME = "payment"
WORSE: dict[str, Worse] = {RIGHT: "lower", **dict.fromkeys((WRONG, *PADDING), "higher")}
"""Kinds of steps of whose pay it is known which direction is worse."""


def payment_by_kind(
    credit: Floats, kinds: StepKinds, confidence: float = 0.95
) -> dict[str, GroupMean]:
    """The mean advantage of each kind of step, in which each group counts once.

        pay(kind) = mean over groups of the mean of A at the last token of the group's such steps

    Args:
        credit: the advantage at each step's last token, packed.
        kinds: the steps.
        confidence: the level of the intervals.

    Returns:
        {kind: `GroupMean`}; a kind without a step has no mean.

    Example:
        >>> import numpy as np
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([1], process=sc.Steps([[0, 1]], [[0.5, 0.5]]))
        >>> kinds = StepKinds.of(r, [["a", "."]])
        >>> payment_by_kind(np.array([1.0, -1.0]), kinds)["filler"].mean
        -1.0
    """
    return {
        kind: group_mean(credit, flags, kinds.group, confidence)
        for kind, flags in kinds.flags.items()
    }


def padding_gaps(
    credit: Floats, kinds: StepKinds, confidence: float = 0.95
) -> dict[str, GroupMean]:
    """How much more than right steps the steps that add nothing are paid, by their kind.

        gap(kind) = mean over groups of (mean A of the group's such steps - of its right steps)

    `StepKinds.compared` says which steps stand for right ones.
    Above 0 the policy learns to pad. On the embedded task this figure told every collapse before
    training.

    Args:
        credit: the advantage at each step's last token, packed.
        kinds: the steps.
        confidence: the level of the intervals.

    Returns:
        {"filler": ..., "repeated": ...}, without a mean where no group has both kinds.
    """
    return {
        kind: group_gap(credit, kinds.flags[kind], rest, kinds.group, confidence)
        for kind, rest in kinds.compared.items()
    }


@register_check(NAME)
def check_payment(given: AuditInput) -> CheckResult:
    """What each method pays for each kind of step; whether it pays for steps that add nothing."""
    kinds = given.step_kinds
    if kinds is None:
        reason = "Without the ends of steps, what a step is paid cannot be measured."
        return CheckResult(unchecked=(Unchecked(NAME, "step_ends", reason),))
    credits = {
        name: step_credit(advantages, kinds.ends).numpy()
        for name, advantages in given.advantages.items()
    }
    payments = {name: payment_by_kind(credit, kinds) for name, credit in credits.items()}
    figures = [
        figure
        for name, credit in credits.items()
        for figure in _figures(name, payments[name], padding_gaps(credit, kinds), kinds)
    ]
    findings = [
        found
        for kind in PADDING
        if kind in kinds.flags and kinds.flags[kind].any()
        for found in _findings(kind, credits, kinds, figures)
    ]
    return CheckResult(tuple(figures), tuple(findings), _unchecked(given, kinds), _series(payments))


def _figures(
    method: str,
    payment: Mapping[str, GroupMean],
    gaps: Mapping[str, GroupMean],
    kinds: StepKinds,
) -> list[AuditFigure]:
    named = [(_mean_name(kind), WORSE.get(kind, ""), mean) for kind, mean in payment.items()]
    named += [(_gap_name(kind, kinds), WORSE[kind], gap) for kind, gap in gaps.items()]
    return [
        AuditFigure(name, of="steps", method=method, worse=worse, **mean.as_figure())
        for name, worse, mean in named
        if mean.count
    ]


def _mean_name(kind: str) -> str:
    return f"mean advantage of {kind} steps"


def _gap_name(kind: str, kinds: StepKinds) -> str:
    return f"advantage of {kind} steps minus that of {kinds.baseline} steps"


def _findings(
    kind: str,
    credits: Mapping[str, Floats],
    kinds: StepKinds,
    figures: Sequence[AuditFigure],
) -> list[Finding]:
    """One finding for the methods that pay a kind more than right steps, one for those above 0.

    They are decided by wider intervals than those of the figures, which are shown.
    """
    level = FINDING_CONFIDENCE
    gaps = {name: padding_gaps(credit, kinds, level)[kind] for name, credit in credits.items()}
    above = {name: gap for name, gap in gaps.items() if gap.is_large(credits[name])}
    means = {
        name: payment_by_kind(credit, kinds, level)[kind]
        for name, credit in credits.items()
        if name not in above
    }
    paid = {name: mean for name, mean in means.items() if mean.is_large(credits[name])}
    safe = [name for name in credits if name not in above and name not in paid]
    found = []
    if above:
        more = f"more than {_words(kinds.baseline)}, so the policy learns to write them"
        name, topic = _gap_name(kind, kinds), f"{kind} steps paid more than {kinds.baseline} steps"
        shown = evidence_of(figures, name, above)
        found.append(_finding(topic, kind, shown, above, more, credits, kinds, safe))
    if paid:
        more = "above 0 on average, so their number can creep up in training"
        name, topic = _mean_name(kind), f"{kind} steps paid above 0"
        shown = evidence_of(figures, name, paid)
        found.append(_finding(topic, kind, shown, paid, more, credits, kinds, safe))
    return found


def _words(baseline: str) -> str:
    return "right steps" if baseline == RIGHT else "the other steps"


def _finding(
    topic: str,
    kind: str,
    figures: tuple[AuditFigure, ...],
    means: Mapping[str, GroupMean],
    what: str,
    credits: Mapping[str, Floats],
    kinds: StepKinds,
    safe: list[str],
) -> Finding:
    worst = max(means, key=lambda method: means[method].mean or 0.0)
    mean, groups = means[worst], f"{means[worst].groups:,} groups"
    size = f"{mean.mean:+.2f} with {worst}, over {mean.count:,} steps in {groups}"
    sentence = f"With {_listed(list(means))}, {kind} steps are paid {what} ({size})."
    return Finding(
        check=NAME,
        severity="warn",
        sentence=sentence,
        evidence=figures,
        advice=_advice(kind, safe),
        places=best_steps(credits[worst], kinds.flags[kind], kinds),
        share=float(kinds.flags[kind].mean()),
        topic=topic,
    )


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _advice(kind: str, safe: list[str]) -> str:
    lower = "give the signal less weight, for example `--set weights='[0.3, 1, 1]'`"
    if safe:
        other = f"take a method that does not pay them here (`--method {safe[0]}`)"
    else:
        other = "take a method whose return such a step can't raise (`--method pass-min`)"
    return f"Lower the score that the signal gives to {kind} steps; else {other}, or {lower}."


def _unchecked(given: AuditInput, kinds: StepKinds) -> tuple[Unchecked, ...]:
    found = []
    if given.batch.steps is None:
        reason = "Without the tokens' texts, filler and repeated steps cannot be told apart."
        found.append(Unchecked(NAME, "tokens", reason))
    if kinds.baseline == OTHER:
        reason = "Without the truth about steps, right and wrong steps cannot be told apart."
        found.append(Unchecked(NAME, "step_labels", reason))
    return tuple(found)


def _series(payments: Mapping[str, Mapping[str, GroupMean]]) -> dict[str, Any]:
    """The mean advantages by method and kind, for a picture."""
    return {
        "payment": [
            {"method": method, "kind": kind, **mean.as_figure()}
            for method, payment in payments.items()
            for kind, mean in payment.items()
            if mean.count
        ]
    }
