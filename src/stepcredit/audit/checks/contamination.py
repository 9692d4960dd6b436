"""Channel contamination: whether the outcome drowns the process signal in what a method teaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stepcredit.audit.channel_shares import (
    OrderAgreement,
    PooledWeights,
    contamination_of,
    pooled_and_fused,
    pooled_weights,
)
from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.finding import (
    AuditFigure,
    CheckResult,
    EvidencePlace,
    Finding,
    Severity,
    Unchecked,
    Worse,
)
from stepcredit.audit.group_means import FEWEST_GROUPS
from stepcredit.audit.step_credit import read_streams
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.methods.adca import ADCA
from stepcredit.credit.methods.grpo_process import ProcessGRPO
from stepcredit.credit.methods.pass_ import PASS
from stepcredit.credit.methods.pure import PURE
from stepcredit.credit.stages.fusion import SCALARS
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Stream
from stepcredit.evals.intervals import mean_interval

NAME = "contamination"
SILENCED = 1 / 3
"""A weight of the pooled process stream, as a part of the outcome's, below which it is reported:
then the outcome decides nearly every sum of the two."""
SMALL_PART = 0.01
"""A part of the advantages' variance below which a process stream hardly changes the training: its
std is then a tenth of that of the rest."""
ORDER_LOST = 0.3
"""A rank correlation of step credit with and without the outcome below which the outcome, and not
the signal, decides which steps of a response are paid more."""
PLACES = 5
"""Responses that a finding points to."""


@register_check(NAME)
def check_contamination(data: AuditInput) -> CheckResult:
    """Whether the outcome drowns the process signal: for pooled streams, and for each method."""
    rollouts = data.batch.rollouts
    missing = _missing(rollouts)
    if missing:
        return CheckResult(unchecked=missing)
    results = [
        _pooled_result(name, stream, rollouts, data.methods)
        for name, stream in process_signals(rollouts).items()
    ]
    for name, method in data.methods.items():
        if read_streams(method, rollouts) and method.reads.outcome is not None:
            results.append(_method_result(name, method, data))
    return CheckResult(
        figures=tuple(figure for result in results for figure in result.figures),
        findings=tuple(finding for result in results for finding in result.findings),
        series={"shares": {k: v for result in results for k, v in result.series.items()}},
    )


def _missing(rollouts: Rollouts) -> tuple[Unchecked, ...]:
    if not process_signals(rollouts):
        reason = "The file has no process signal, so nothing can be drowned by the outcome."
        return (Unchecked(NAME, "step_scores", reason),)
    if not bool(rollouts.has_outcome.any()):
        reason = "No outcome is known, so the process signal stands alone."
        return (Unchecked(NAME, "outcome", reason),)
    return ()


def _pooled_result(
    name: str, stream: Stream, rollouts: Rollouts, methods: Mapping[str, Estimator]
) -> CheckResult:
    """The stream and the outcome, standardized together and apart."""
    weights = pooled_weights(rollouts, stream)
    if weights is None:
        return CheckResult()
    found = {
        how: contamination_of(method, rollouts.replaced(streams={name: stream}))
        for how, method in pooled_and_fused(name, stream).items()
    }
    about = "weight of one standard deviation in scores that are standardized together"
    parts = {name: weights.process, "outcome": weights.outcome}
    figures = [
        AuditFigure(about, value, weights.groups, "groups", stream=part)
        for part, value in parts.items()
    ]
    tokens = int(rollouts.lengths.sum())
    for how, contamination in found.items():
        label = f"share of the advantages' variance, streams standardized {how}"
        share = contamination.shares.get(name)
        figures.append(AuditFigure(label, share, tokens, "tokens", stream=name))
        label = f"rank correlation of step credit with and without the outcome, standardized {how}"
        figures.append(_order_figure(label, contamination.order, rollouts, stream=name))
    series = {f"{how} ({name})": dict(each.shares) for how, each in found.items()}
    findings: tuple[Finding, ...] = ()
    if weights.process < SILENCED * weights.outcome and weights.groups >= FEWEST_GROUPS:
        findings = (_pooled_finding(name, weights, figures, found["together"].order, methods),)
    return CheckResult(tuple(figures), findings, series=series)


def _order_figure(
    label: str, order: OrderAgreement, rollouts: Rollouts, *, method: str = "", stream: str = ""
) -> AuditFigure:
    """The mean correlation over responses, with its interval over groups."""
    worse: Worse = "lower" if method else ""
    if not order.rows.size:
        return AuditFigure(label, None, 0, "responses", method=method, stream=stream, worse=worse)
    groups = rollouts.group_index.numpy()[order.rows].tolist()
    interval = mean_interval(order.correlations, groups)
    low, high = (interval.low, interval.high) if len(set(groups)) > 1 else (None, None)
    return AuditFigure(
        label, interval.mean, len(groups), "responses", low, high, method, stream, worse
    )


def _places(order: OrderAgreement) -> tuple[EvidencePlace, ...]:
    """The responses whose order of steps changes most."""
    worst = np.argsort(order.correlations, kind="stable")[:PLACES]
    return tuple(EvidencePlace(int(order.rows[at])) for at in worst)


def _pooled_finding(
    name: str,
    weights: PooledWeights,
    figures: Sequence[AuditFigure],
    order: OrderAgreement,
    methods: Mapping[str, Estimator],
) -> Finding:
    pooling = [
        method
        for method, estimator in methods.items()
        if isinstance(estimator, ProcessGRPO) and estimator.weights is not None
    ]
    sentence = f"Where {name!r} and the outcome are standardized together, one standard deviation"
    sentence += f" of {name!r} counts {weights.process:.2f} and one of the outcome"
    sentence += f" {weights.outcome:.2f}: the outcome drowns the process signal"
    sentence += f", as in {', '.join(pooling)}." if pooling else "."
    advice = "Standardize each stream apart: use the method `pass`, or give the process stream a"
    advice += f' larger weight, such as `--set \'weights={{"{name}":'
    advice += f' {weights.outcome / weights.process:.2g}, "outcome": 1}}\'`.'
    severity: Severity = "warn" if pooling else "note"
    topic = f"{name} drowned by the outcome where they are standardized together"
    places = _places(order)
    return Finding(NAME, severity, sentence, tuple(figures), advice, places, topic=topic)


def _method_result(name: str, method: Estimator, data: AuditInput) -> CheckResult:
    """Shares and order under one method."""
    rollouts = data.batch.rollouts
    found = contamination_of(method, rollouts, data.advantages[name])
    label, tokens = "share of the advantages' variance", int(rollouts.lengths.sum())
    figures = [
        AuditFigure(label, share, tokens, "tokens", method=name, stream=stream)
        for stream, share in found.shares.items()
    ]
    label = "rank correlation of step credit with and without the outcome"
    order = _order_figure(label, found.order, rollouts, method=name)
    scalars = sum(found.shares.get(stream, 0.0) for stream in SCALARS)
    process = 1.0 - scalars
    findings: tuple[Finding, ...] = ()
    small = bool(found.shares) and 1e-9 < process < SMALL_PART
    lost = order.high is not None and order.high < ORDER_LOST
    if (small or lost) and rollouts.num_groups >= FEWEST_GROUPS:
        evidence = (*figures, order)
        parts = process if small else None, order.value if lost else None
        findings = (_drowned(name, method, *parts, evidence, found.order),)
    return CheckResult((*figures, order), findings, series={name: dict(found.shares)})


def _drowned(
    name: str,
    method: Estimator,
    process: float | None,
    order: float | None,
    evidence: tuple[AuditFigure, ...],
    agreement: OrderAgreement,
) -> Finding:
    """The finding; a figure that is not at fault is None."""
    parts = []
    if process is not None:
        parts.append(f"the process signal has {process:.1%} of the advantages' variance")
    if order is not None:
        part = "the order in which a response's steps are paid is mostly the outcome's: with and"
        parts.append(f"{part} without the outcome it has a rank correlation of {order:.2f}")
    sentence = f"Under {name} {', and '.join(parts)}."
    topic, places = f"process signal drowned under {name}", _places(agreement)
    return Finding(NAME, "warn", sentence, evidence, _larger(method), places, topic=topic)


def _larger(method: Estimator) -> str:
    """What gives the process signal a larger part."""
    if isinstance(method, PASS) and method.scope == "fused" and method.k < 1:
        advice = "The outcome is added once per chunk: set `--set scope=process`, which adds it"
        return f"{advice} once, or `--set k=1.0`."
    if isinstance(method, ProcessGRPO):
        return "Standardize each stream apart: use the method `pass`."
    if isinstance(method, PURE):
        return "Give the process signal a larger part with `--set process_weight=...`."
    if isinstance(method, ADCA):
        return "Give the process signal a larger part with `--set alpha=...`."
    if method.reads.weights is None:
        return "Give the process signal a larger part in the settings of the method."
    return "Give the process stream a larger weight with `--set weights=...`."
