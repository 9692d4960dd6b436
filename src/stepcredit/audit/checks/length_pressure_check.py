"""The cumulative trap and length pressure: what one more step pays, whatever it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.finding import AuditFigure, CheckResult, EvidencePlace, Finding, Unchecked
from stepcredit.audit.group_means import FEWEST_GROUPS
from stepcredit.audit.one_more_step import (
    Floats,
    StepLevels,
    StepPressure,
    break_even_scores,
    step_pressures,
)
from stepcredit.audit.path_totals import (
    PathTotals,
    break_even_values,
    path_totals,
    paying_stretches,
)
from stepcredit.audit.pure_baseline import PureBaseline
from stepcredit.audit.step_credit import read_streams
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.methods.pass_ import PASS
from stepcredit.credit.methods.pure import PURE
from stepcredit.credit.metrics.advantage_statistics import (
    length_correlation,
    value_length_correlation,
)
from stepcredit.credit.metrics.signal_statistics import response_scores
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.rollouts import Rollouts
from stepcredit.evals.intervals import mean_interval

NAME = "length"
EXPONENTS = (0.0, 0.7, 1.0)
"""Values of k for which PASS is also measured: the plain return, the default, the strict mean."""
TRAP = 0.25
"""A change by one more typical step, in standard deviations of the responses' advantages, from
which it is reported: four such steps move a response by one of them."""
CORRELATED = 0.3
"""A correlation with length, beyond that of the outcome, from which it is reported."""
CERTAIN = 4.0
"""A correlation must also be this many times 1/sqrt(n): then chance gives it once in 15,000."""
PLACES = 5
"""Responses that a finding points to."""


@register_check(NAME)
def check_length_pressure(data: AuditInput) -> CheckResult:
    """What one more step pays under each method and k, and how credit goes with length."""
    figures, findings = _correlations(data)
    rollouts = data.batch.rollouts
    if not process_signals(rollouts):
        reason = "The file has no process signal, so no step has a value of its own."
        missing = Unchecked(NAME, "step_scores", reason)
        return CheckResult(tuple(figures), tuple(findings), (missing,))
    levels, series = StepLevels.of(rollouts), dict[str, dict[str, list[float]]]()
    variants = {name: _variants(name, method) for name, method in _added_up(data.methods, rollouts)}
    pressures = step_pressures(
        {name: method for of in variants.values() for name, method in of.items()}, rollouts, levels
    )
    for base, of in variants.items():
        totals = _path_totals(data.methods[base], rollouts)
        for name, method in of.items():
            pressure = pressures[name]
            own = [*_of_step(pressure, levels, rollouts, name), *_theory(method, totals, name)]
            figures += own
            series[name] = {level: change.tolist() for level, change in pressure.changes.items()}
            if name == base:
                findings += _trap(name, method, pressure, levels, own, rollouts)
    unchecked = tuple(_unmeasured(data.methods, rollouts))
    return CheckResult(tuple(figures), tuple(findings), unchecked, {"one_more_step": series})


def _adds_up(method: Estimator, rollouts: Rollouts) -> bool:
    """Whether a method reads a process signal that one more step can be given a value in."""
    return bool(read_streams(method, rollouts)) and not method.reads.logprobs


def _unmeasured(methods: Mapping[str, Estimator], rollouts: Rollouts) -> Iterator[Unchecked]:
    """The methods that read more of a step than one more step has."""
    for name, method in methods.items():
        if _adds_up(method, rollouts) and method.reads.text:
            reason = f"The chunks of {name} follow texts, which one more step does not have."
            yield Unchecked(NAME, "tokens", reason)
        if _adds_up(method, rollouts) and method.reads.states:
            reason = f"{name} compares the states of steps, and one more step has none."
            yield Unchecked(NAME, "step_states", reason)
        if read_streams(method, rollouts) and method.reads.logprobs:
            reason = f"{name} reads log-probs too, and one more step has none."
            yield Unchecked(NAME, f"{method.reads.logprobs[0]}_logprobs", reason)


def _added_up(
    methods: Mapping[str, Estimator], rollouts: Rollouts
) -> Iterator[tuple[str, Estimator]]:
    """The methods that can be measured."""
    for name, method in methods.items():
        reads = method.reads
        if _adds_up(method, rollouts) and not (reads.text or reads.states):
            yield name, method


def _variants(name: str, method: Estimator) -> dict[str, Estimator]:
    """A method, and PASS at other exponents."""
    if not isinstance(method, PASS):
        return {name: method}
    others = {f"{name}, k = {k:g}": replace(method, k=k) for k in EXPONENTS if k != method.k}
    return {name: method, **others}


def _path_totals(method: Estimator, rollouts: Rollouts) -> PathTotals | None:
    """Those of PASS, which are the same for every exponent; None for another method."""
    return path_totals(method, rollouts) if isinstance(method, PASS) else None


def _of_step(
    pressure: StepPressure, levels: StepLevels, rollouts: Rollouts, name: str
) -> Iterator[AuditFigure]:
    """The changes by one more step of each level, and the break-even score."""
    count, groups = len(pressure.rows), rollouts.group_index.numpy()[pressure.rows].tolist()
    if not count:
        return
    for level, values in levels.items():
        scores = ", ".join(f"{value:.3g}" for value in values.values())
        about = f"by one more step of the {level} score ({scores})"
        change = pressure.changes[level]
        interval = mean_interval(change, groups)
        low, high = (interval.low, interval.high) if len(set(groups)) > 1 else (None, None)
        yield AuditFigure(
            f"change of a response's advantage {about}",
            interval.mean,
            count,
            "responses",
            low,
            high,
            method=name,
        )
        label = f"share of responses whose advantage rises {about}"
        yield AuditFigure(label, float(np.mean(change > 0)), count, "responses", method=name)
    streams = list(levels.typical)
    if len(streams) == 1:
        scores_found = break_even_scores(pressure, levels, streams[0])
        label = "score of one more step at which a response's advantage stays the same (median)"
        yield _median(label, scores_found, name, stream=streams[0])


def _median(label: str, values: Floats, method: str, *, stream: str = "") -> AuditFigure:
    """The median as a figure; None where it is infinite, or of nothing."""
    median = float(np.median(values)) if values.size else float("inf")
    value = median if np.isfinite(median) else None
    return AuditFigure(label, value, values.size, "responses", method=method, stream=stream)


def _theory(method: Estimator, totals: PathTotals | None, name: str) -> Iterator[AuditFigure]:
    """Of PASS: the break-even value of a chunk, and the stretch from which padding pays."""
    if totals is None or not isinstance(method, PASS):
        return
    label = "value of one more chunk at which the path score stays the same (median, theory)"
    yield _median(label, break_even_values(totals, method.k), name)
    paid = totals.values[totals.values > 0]
    if paid.size:
        filler = float(np.median(paid))
        stretches = paying_stretches(totals, method.k, filler)
        label = f"length, in times the response's own, from which chunks of value {filler:.3g} pay"
        yield _median(f"{label} (median, theory)", stretches, name)


def _trap(
    name: str,
    method: Estimator,
    pressure: StepPressure,
    levels: StepLevels,
    evidence: Iterable[AuditFigure],
    rollouts: Rollouts,
) -> Iterator[Finding]:
    """A typical step that is paid, or fined, in nearly every response."""
    change = pressure.changes["typical"]
    mean = float(change.mean()) / pressure.spread if pressure.spread > 0 else 0.0
    groups = int(rollouts.group_index[torch.as_tensor(pressure.rows)].unique().numel())
    if abs(mean) < TRAP or groups < FEWEST_GROUPS:
        return
    share = float(np.mean(change * mean > 0))
    verb, wrong = ("raises", "padding pays") if mean > 0 else ("lowers", "stopping early pays")
    scores = ", ".join(f"{value:.3g}" for value in levels.typical.values())
    sentence = f"Under {name} one more step of the typical score ({scores}) {verb} the advantage of"
    sentence += f" {share:.0%} of the responses, on average by {abs(mean):.2f} of its standard"
    sentence += f" deviations: {wrong}."
    baseline = PureBaseline.of(method, rollouts, levels)
    sentence += "" if baseline is None else f" {baseline.sentence}"
    advice = _advice(method)
    if baseline is not None and abs(baseline.change) < TRAP:
        advice = "Take the baseline once per response: `--set baseline=rollout`."
    order = np.argsort(-change * np.sign(mean), kind="stable")[:PLACES]
    places = tuple(EvidencePlace(int(pressure.rows[at])) for at in order)
    topic = f"one more typical step {verb} the advantage under {name}"
    yield Finding(NAME, "warn", sentence, tuple(evidence), advice, places, share, topic)


def _advice(method: Estimator) -> str:
    if isinstance(method, PURE) and method.form != "sum":
        advice = "Give `pure` scores from -1 to 1, p(good) - p(bad), for which its minimum is made"
        return f"{advice}, or use the method `pass-min`, which standardizes them."
    if not isinstance(method, PASS):
        advice = "Standardize the scores within the group before they are added up: use the method"
        return f"{advice} `pass`, or `pass-min`, where no further step can raise the minimum."
    changes = ["`--set operator=masked_norm`"] if method.operator != "masked_norm" else []
    changes += ["`--set k=1.0`"] if method.k < 1 else []
    return f"Set {' and '.join(changes)}." if changes else "Use the method `pass-min`."


def _correlations(data: AuditInput) -> tuple[list[AuditFigure], list[Finding]]:
    """Correlations with length, within groups, of outcome, signals and advantages."""
    rollouts = data.batch.rollouts
    outcome = value_length_correlation(rollouts.outcome, rollouts.has_outcome, rollouts)
    figures = [_figure("outcome", *outcome, stream="outcome")]
    findings = []
    for name, (scores, known) in response_scores(rollouts).items():
        found = value_length_correlation(torch.as_tensor(scores), torch.as_tensor(known), rollouts)
        figures.append(_figure("mean score", *found, stream=name))
        if _beyond(*found, outcome[0]):
            findings.append(_longer(f"The scores of {name!r}", *found, figures[0], figures[-1]))
    for name, advantages in data.advantages.items():
        found = length_correlation(advantages, rollouts), rollouts.num_rollouts
        figures.append(_figure("mean advantage", *found, method=name))
        if _beyond(*found, outcome[0]):
            subject = f"The advantages of {name}"
            findings.append(_longer(subject, *found, figures[0], figures[-1]))
    return figures, findings


def _figure(
    about: str, value: float | None, count: int, *, method: str = "", stream: str = ""
) -> AuditFigure:
    label = f"correlation of the {about} with the length, within groups"
    return AuditFigure(label, value, count, "responses", method=method, stream=stream)


def _beyond(value: float | None, count: int, outcome: float | None) -> bool:
    """Whether a correlation is large, certain, and not what right answers' lengths give."""
    if value is None:
        return False
    least = max(CORRELATED, CERTAIN / count**0.5)
    return abs(value) >= least and abs(value - (outcome or 0.0)) >= least


def _longer(
    subject: str, value: float | None, count: int, outcome: AuditFigure, own: AuditFigure
) -> Finding:
    longer = "longer" if (value or 0) > 0 else "shorter"
    sentence = f"{subject} are higher in {longer} responses of a group (correlation {value:.2f})"
    sentence += ", beyond what the lengths of right answers explain."
    advice = "Compare the best paid responses with short and long right ones; on PASS,"
    advice += " `--set k=1.0` pays the mean of a response's chunks."
    if own.stream:
        advice = "Look at long and short responses of high scores before you train on this signal."
    topic = f"{subject} are higher in {longer} responses".removeprefix("The ")
    return Finding(NAME, "note", sentence, (outcome, own), advice, topic=topic)
