"""Signal quality where truth is known: of the outcome, of steps, or of the values of states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.example_places import MOST_PLACES, best_rows
from stepcredit.audit.finding import AuditFigure, CheckResult, EvidencePlace, Finding, Unchecked
from stepcredit.audit.group_means import FEWEST_GROUPS
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.outcome_ranking import (
    auc_with_interval,
    compared_groups,
    labelled_cases,
    score_aggregates,
)
from stepcredit.audit.scored_steps import scores_of_steps
from stepcredit.credit.metrics.group_averages import Floats
from stepcredit.credit.metrics.response_patterns import convincing_wrong
from stepcredit.credit.metrics.signal_statistics import (
    agreements,
    right_and_wrong,
    step_boundaries,
)
from stepcredit.credit.metrics.step_kinds import RIGHT, WRONG
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.streams import Stream
from stepcredit.prm.judging.step_metrics import FirstErrors, LabelledScores, reliability
from stepcredit.prm.labelled.labelled_rows import LabelledRow

NAME = "signal_quality"
LITTLE_BETTER = 0.6
"""An AUC whose interval ends below this tells right from wrong little better than a coin's 0.5."""
LARGE_ECE = 0.25
"""A mean distance between score and share of right steps from which scores are no probabilities."""
FEWEST_STEPS = 200
"""Steps below which bins hold too few of them for a word about calibration."""
WITHIN = "AUC within groups"
OF_OUTCOME = "of the step {} for the outcome"
RANKING = f"{WITHIN} {OF_OUTCOME.format('mean')}"
"""The figure that says first whether a signal is worth more than chance, which is 0.5."""


@register_check(NAME)
def check_signal_quality(given: AuditInput) -> CheckResult:
    """How well signals tell right responses and steps from wrong ones, and are calibrated."""
    batch, result = given.batch, CheckResult()
    if not process_signals(batch.rollouts):
        reason = "Without a process signal there is nothing whose quality could be measured."
        return CheckResult(unchecked=(Unchecked(NAME, "step_scores", reason),))
    parts = [*_of_outcomes(given), *_of_step_truth(batch)]
    for part in parts:
        result = CheckResult(
            result.figures + part.figures,
            result.findings + part.findings,
            series={**result.series, **part.series},
        )
    return CheckResult(result.figures, result.findings, tuple(_unchecked(batch)), result.series)


def _of_outcomes(given: AuditInput) -> Iterator[CheckResult]:
    """Each signal's minimum, mean and product against the outcome."""
    rollouts = given.batch.rollouts
    if not bool(rollouts.has_outcome.any()):
        return
    pairs = agreements(rollouts, given.right_above)
    sides = right_and_wrong(rollouts, given.right_above)
    for name, stream in process_signals(rollouts).items():
        scored = (stream.counts > 0).numpy()
        right, wrong = (flags.numpy() & scored for flags in sides)
        aggregates = score_aggregates(stream)
        cases = labelled_cases(aggregates, right, wrong, rollouts.group_index.numpy())
        count = int((right | wrong).sum())
        if not count:
            continue
        figures = _auc_figures(cases, OF_OUTCOME, "responses", name)
        within = [each for each in figures if each.name.startswith(WITHIN)]
        if name in pairs:
            what = "share of pairs of one group in which the right response has the higher mean"
            share = AuditFigure(what, pairs[name], count, "responses", stream=name, worse="lower")
            figures.append(share)
        found = convincing_wrong(aggregates["mean"], right, wrong, rollouts.group_index.numpy())
        places = best_rows(aggregates["mean"], found)
        groups = compared_groups(next(iter(cases.values())))
        finding = _ranking_finding(name, "responses", within, groups, places)
        bins, errors = _calibrated(cases, "the outcome", name, "responses")
        yield CheckResult(tuple(figures + errors), finding, series=bins)


def _auc_figures(
    cases: Mapping[str, LabelledScores], what: str, of: str, stream: str
) -> list[AuditFigure]:
    """The AUC of each kind of score (`{}`), over all cases and within groups."""
    count = len(next(iter(cases.values())).right)
    found = []
    for among, within in (("AUC", False), (WITHIN, True)):
        for kind, (area, ends) in auc_with_interval(cases, within_groups=within).items():
            name, (low, high) = f"{among} {what.format(kind)}", ends or (None, None)
            found.append(
                AuditFigure(name, area, count, of, low, high, stream=stream, worse="lower")
            )
    return found


def _ranking_finding(
    stream: str,
    of: str,
    figures: list[AuditFigure],
    groups: int,
    places: tuple[EvidencePlace, ...],
) -> tuple[Finding, ...]:
    """A finding where no aggregate ranks right above wrong: reversed, or almost a coin's toss.

    The figures compare the cases of one group, as credit does, in so many groups.
    """
    highs = [figure.high for figure in figures]
    if groups < FEWEST_GROUPS or any(high is None for high in highs):
        return ()
    best = max(figures, key=lambda figure: figure.high or 0.0)
    topic = f"{stream} does not tell right {of} from wrong ones"
    area = f"{best.value:.2f} [{best.low:.2f}, {best.high:.2f}]"
    size = f"{WITHIN} at most {area}, {best.count:,} {of}"
    if (best.high or 0.0) < 0.5:
        sentence = f"The signal {stream} ranks wrong {of} above right ones ({size})."
        advice = "Look whether its sign is turned round or its scores are of other rows; multiply "
        advice += "it by -1 only if you know why."
        return (Finding(NAME, "fault", sentence, tuple(figures), advice, places, topic=topic),)
    if (best.high or 0.0) < LITTLE_BETTER:
        sentence = f"The signal {stream} hardly tells right {of} from wrong ones ({size})."
        advice = "Take another signal (`stepcredit score --signal`), or give it less weight, for "
        advice += "example `--set weights='[0.3, 1, 1]'`."
        return (Finding(NAME, "note", sentence, tuple(figures), advice, places, topic=topic),)
    return ()


def _calibrated(
    cases: Mapping[str, LabelledScores], truth: str, stream: str, of: str
) -> tuple[dict[str, Any], list[AuditFigure]]:
    """Reliability bins and expected calibration errors, of scores that are probabilities."""
    series, figures = dict[str, Any](), list[AuditFigure]()
    for kind, case in cases.items():
        found = reliability(case)
        if found["ece"] is not None:
            what = f"calibration error (ECE) of the step {kind} for {truth}"
            error = found["ece"]
            figures.append(
                AuditFigure(what, error, len(case.right), of, stream=stream, worse="higher")
            )
            series[f"reliability of the step {kind} of {stream} for {truth}"] = found["bins"]
    return series, figures


def _of_step_truth(batch: LoggedBatch) -> Iterator[CheckResult]:
    """Each signal's scores against the truth about steps."""
    labels, ends = batch.step_labels, step_boundaries(batch.rollouts)
    if labels is None or ends is None:
        return
    for name, (scores, known) in scores_of_steps(batch.rollouts, ends).items():
        table = _by_row(np.where(known, scores, np.nan), ends)
        steps = _labelled(batch, labels, table, filler=None)
        cases = {"score": LabelledScores.of([row for row, _ in steps], [own for _, own in steps])}
        count = len(cases["score"].right)
        if not count:
            continue
        figures = _auc_figures(cases, "of the scores for right steps", "steps", name)
        places = _worst_steps(labels, table)
        groups = compared_groups(cases["score"])
        findings = _ranking_finding(name, "steps", figures[1:], groups, places)
        bins, errors = _calibrated(cases, "right steps", name, "steps")
        findings += _calibration_finding(name, errors, count)
        solutions = _labelled(batch, labels, table, filler=1)
        first = _first_error_figures(solutions, name)
        yield CheckResult((*figures, *errors, *first), findings, series=bins)


def _by_row(values: Floats, ends: Stream) -> list[list[float]]:
    parts = np.split(values, ends.counts.numpy().cumsum()[:-1])
    return [part.tolist() for part in parts]


def _labelled(
    batch: LoggedBatch,
    labels: list[list[str | None]],
    scores: list[list[float]],
    filler: int | None,
) -> list[tuple[LabelledRow, list[float]]]:
    """Scored responses as labelled rows; `filler` is the label of steps neither right nor wrong."""
    known = {RIGHT: 1, WRONG: 0, None: None}
    rows = []
    for row, given, own in zip(batch.rows, labels, scores, strict=True):
        if own and not np.isnan(own[0]):
            truth = tuple(known.get(label, filler) for label in given)
            rows.append((LabelledRow("", (), truth, batch.source, str(row.group)), own))
    return rows


def _worst_steps(
    labels: list[list[str | None]], scores: list[list[float]]
) -> tuple[EvidencePlace, ...]:
    """The wrong steps with the highest scores."""
    wrong = [
        (score, row, step)
        for row, (given, own) in enumerate(zip(labels, scores, strict=True))
        for step, (label, score) in enumerate(zip(given, own, strict=True))
        if label == WRONG and not np.isnan(score)
    ]
    best = sorted(wrong, key=lambda each: -each[0])[:MOST_PLACES]
    return tuple(EvidencePlace(row, step) for _, row, step in best)


def _calibration_finding(stream: str, errors: list[AuditFigure], count: int) -> tuple[Finding, ...]:
    if not errors or count < FEWEST_STEPS or (errors[0].value or 0.0) < LARGE_ECE:
        return ()
    sentence = f"Scores of the signal {stream} are far from the share of right steps "
    sentence += f"({errors[0].value:.2f} apart on average, {count:,} steps)."
    advice = (
        "Group norms take away the scores' mean and scale; a method that does not (pure) reads "
    )
    advice += "them as they stand, so calibrate the signal before you use it there."
    topic = f"{stream} is not calibrated"
    return (Finding(NAME, "note", sentence, tuple(errors), advice, topic=topic),)


def _first_error_figures(
    solutions: list[tuple[LabelledRow, list[float]]], stream: str
) -> list[AuditFigure]:
    """F1 of finding the first wrong step, at the threshold that is best on these responses."""
    errors = FirstErrors.of([row for row, _ in solutions], [own for _, own in solutions])
    if not errors.wrong.size or errors.wrong.all() or not errors.wrong.any():
        return []
    threshold = errors.best_threshold()
    count = len(errors.wrong)
    return [
        AuditFigure(
            "F1 of finding the first wrong step, at the threshold that is best here",
            errors.at(threshold)["f1"],
            count,
            "responses",
            stream=stream,
            worse="lower",
        ),
        AuditFigure("threshold that is best here", threshold, count, "responses", stream=stream),
    ]


def _unchecked(batch: LoggedBatch) -> Iterator[Unchecked]:
    if not bool(batch.rollouts.has_outcome.any()):
        reason = "Without outcomes, signals cannot be compared with them."
        yield Unchecked(NAME, "outcome", reason)
    if batch.step_labels is None:
        reason = "Without the truth about steps, finding wrong steps cannot be measured."
        yield Unchecked(NAME, "step_labels", reason)
