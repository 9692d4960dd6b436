"""A run's figures and findings over its steps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from typing import Any, Literal

from stepcredit.audit.finding import SEVERITIES, AuditFigure, Worse
from stepcredit.audit.group_means import FEWEST_GROUPS
from stepcredit.audit.logged_step import StepName
from stepcredit.data.rules import counted

Trend = Literal["", "worse", "better"]
MOST_RANGES = 4
"""Ranges of steps that words name; the JSON names every step."""
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d.,]*(?:e[-+]?\d+)?(?![\w])")


@dataclass(frozen=True, eq=False)
class StepAudit:
    """What the audit found in one step of a run, without its responses.

    Args:
        name: the step.
        place: the file, and its lines where it holds several steps.
        counts: responses, groups and trained tokens.
        figures: by check, all that was measured.
        findings: as the JSON of a report has them, the worst first.
        unchecked: as the JSON of a report has them.
    """

    name: StepName
    place: str
    counts: Mapping[str, int]
    figures: Mapping[str, tuple[AuditFigure, ...]]
    findings: tuple[Mapping[str, Any], ...]
    unchecked: tuple[Mapping[str, Any], ...] = ()

    @property
    def worst(self) -> tuple[int, ...]:
        """How bad the findings are: how many of each severity, the worst severity first."""
        return tuple(sum(f["severity"] == each for f in self.findings) for each in SEVERITIES)


@dataclass(frozen=True, eq=False)
class Curve:
    """One figure over the steps of one policy.

    Args:
        check: the check that measures it.
        name: the figure's name, without the numbers that differ between steps.
        method, stream: whose it is; "" for neither.
        policy: the trained policy, where the run has several; else "".
        worse: the direction that is worse for training, if one is known.
        points: the figure in each step that has it, in order.
        groups: the groups of each of these steps.
    """

    check: str
    name: str
    method: str
    stream: str
    policy: str
    worse: Worse
    points: Mapping[StepName, AuditFigure] = field(default_factory=dict)
    groups: Mapping[StepName, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The figure: its check, its name, its method and its stream."""
        return self.check, self.name, self.method, self.stream

    @property
    def title(self) -> str:
        """The figure, whose it is, and the policy."""
        whose = "".join(f", {name}" for name in (self.method, self.stream) if name)
        return f"{self.name}{whose}" + (f" (trained with {self.policy})" if self.policy else "")

    @property
    def known(self) -> dict[StepName, AuditFigure]:
        """The points with a value."""
        return {step: figure for step, figure in self.points.items() if figure.value is not None}

    @property
    def trend(self) -> Trend:
        """Whether the last value is surely worse or better than the first: the intervals differ.

        "" where they overlap, where there are none, where no direction is worse, or where a step
        has fewer than `FEWEST_GROUPS` groups or an interval without width.
        """
        ends = list(self.known)[:1] + list(self.known)[-1:]
        if not self.worse or not ends or min(self.groups[step] for step in ends) < FEWEST_GROUPS:
            return ""
        (low, high), (last_low, last_high) = (_span(self.points[step]) for step in ends)
        rises, falls = last_low > high, last_high < low
        if not rises and not falls:
            return ""
        return "worse" if rises == (self.worse == "higher") else "better"

    @property
    def worst(self) -> StepName | None:
        """The step in which it is worst; the first of several; None where no direction is worse."""
        known = self.known
        if not self.worse or not known:
            return None
        sign = -1.0 if self.worse == "higher" else 1.0
        return min(known, key=lambda step: sign * (known[step].value or 0.0))


def _span(figure: AuditFigure) -> tuple[float, float]:
    """The interval of a figure; everything, where it has none or one without width."""
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return -inf, inf
    return figure.low, figure.high


def curves_of(steps: Sequence[StepAudit]) -> list[Curve]:
    """Every figure over the steps in which it was measured, in the order of the checks.

    Example:
        >>> steps = [StepAudit(StepName(at), "", {"groups": 8}, {"payment": (AuditFigure(
        ...              "pay", x, 8, "steps", worse="higher"),)}, ())
        ...          for at, x in ((1, 0.5), (20, 0.75), (40, 0.25))]
        >>> [curve] = curves_of(steps)
        >>> len(curve.points), curve.worst
        (3, StepName(number=20, part=0, policy=''))
    """
    groups = {step.name: step.counts["groups"] for step in steps}
    found: dict[tuple[str, str, str, str, str], dict[StepName, AuditFigure]] = {}
    for step in steps:
        for check, figures in step.figures.items():
            for figure in figures:
                name, policy = steady_name(figure.name), step.name.policy
                key = (check, name, figure.method, figure.stream, policy)
                found.setdefault(key, {}).setdefault(step.name, figure)
    return [
        Curve(*key, next(iter(points.values())).worse, points, groups)
        for key, points in found.items()
    ]


def steady_name(name: str) -> str:
    """A figure's name with `…` in place of each number, so that it is the same in each step.

    Example:
        >>> steady_name("share that rises by one more step of the typical score (0.83)")
        'share that rises by one more step of the typical score (…)'
        >>> steady_name("F1 of finding the first wrong step")
        'F1 of finding the first wrong step'
    """
    return _NUMBER.sub("…", name)


@dataclass(frozen=True, eq=False)
class FindingSpan:
    """A finding over the steps of a run.

    Args:
        check: the check that found it.
        title: what it is about.
        sentence: the newest step's sentence.
        severities: how bad it is in each step that has it.
    """

    check: str
    title: str
    sentence: str
    severities: Mapping[StepName, str]

    @property
    def severity(self) -> str:
        """The worst of its severities."""
        return min(self.severities.values(), key=SEVERITIES.index)


def finding_spans(steps: Iterable[StepAudit]) -> list[FindingSpan]:
    """Each finding with the steps that have it: the worst first, then the most frequent.

    Example:
        >>> found = {"check": "groups", "severity": "warn", "topic": "cut groups",
        ...          "sentence": "3 groups are cut."}
        >>> steps = [StepAudit(StepName(at), "", {}, {}, (found,) * (at > 1)) for at in (1, 2, 3)]
        >>> [(span.title, list(map(str, span.severities))) for span in finding_spans(steps)]
        [('cut groups', ['2', '3'])]
    """
    severities: dict[tuple[str, str], dict[StepName, str]] = {}
    sentences: dict[tuple[str, str], str] = {}
    for step in steps:
        for finding in reversed(step.findings):
            key = finding_key(finding)
            severities.setdefault(key, {})[step.name] = finding["severity"]
            sentences[key] = finding["sentence"]
    spans = [FindingSpan(*key, sentences[key], found) for key, found in severities.items()]
    return sorted(spans, key=lambda s: (SEVERITIES.index(s.severity), -len(s.severities)))


def finding_key(finding: Mapping[str, Any]) -> tuple[str, str]:
    """By what a finding of a report's JSON is known again in another: its check and its topic."""
    return finding["check"], finding["topic"] or finding["sentence"]


def step_ranges(
    chosen: Iterable[StepName], steps: Sequence[StepName], most: int = MOST_RANGES
) -> str:
    """Steps in words, with runs of neighbours as ranges; each of several policies is named once.

    Args:
        chosen: some of the steps.
        steps: all steps, each policy's in order.
        most: ranges of a policy; more become how many of its steps they are, the first and the
            last.

    Example:
        >>> steps = [StepName(at) for at in (1, 20, 40, 60, 80)]
        >>> step_ranges([steps[0], steps[2], steps[3], steps[4]], steps)
        '1, 40 to 80'
        >>> step_ranges(steps, steps)
        'all steps'
        >>> step_ranges(steps[::2], steps, most=2)
        '3 of 5 steps from 1 to 80'
        >>> both = [StepName(at, policy=policy) for policy in ("pass", "grpo") for at in (1, 2, 3)]
        >>> step_ranges(both[1:5], both)
        'pass 2 to 3; grpo 1 to 2'
    """
    held = set(chosen)
    if held == set(steps):
        return "all steps"
    own = {policy: list(of) for policy, of in groupby(steps, key=lambda step: step.policy)}
    words = {policy: _ranges_of_one(held, of, most) for policy, of in own.items()}
    named = {policy: text for policy, text in words.items() if text}
    if len(own) == 1:
        return "".join(named.values())
    return "; ".join(f"{policy} {text}" for policy, text in named.items())


def _ranges_of_one(held: Collection[StepName], steps: Sequence[StepName], most: int) -> str:
    """`step_ranges` of one policy; empty if none of its steps is held."""
    runs = [list(run) for is_held, run in groupby(steps, key=lambda step: step in held) if is_held]
    if len(runs) > most:
        number = sum(map(len, runs))
        span = f"from {runs[0][0].label} to {runs[-1][-1].label}"
        return f"{number} of {counted(len(steps), 'step')} {span}"
    ends = [(run[0].label, run[-1].label) for run in runs]
    return ", ".join(first if first == last else f"{first} to {last}" for first, last in ends)


def spread_steps(steps: Sequence[StepName], most: int) -> list[StepName]:
    """At most `most` steps, evenly spaced, the first and the last among them.

    Example:
        >>> [step.number for step in spread_steps([StepName(at) for at in range(9)], 3)]
        [0, 4, 8]
    """
    if len(steps) <= most:
        return list(steps)
    return [steps[round(at * (len(steps) - 1) / (most - 1))] for at in range(most)]
