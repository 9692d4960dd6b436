"""Hack detectors: responses and steps of known bad patterns, and whether they are paid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.example_places import best_rows, best_steps
from stepcredit.audit.finding import (
    AuditFigure,
    CheckResult,
    EvidencePlace,
    Finding,
    Severity,
    Unchecked,
    evidence_of,
)
from stepcredit.audit.group_means import FINDING_CONFIDENCE, GroupMean, group_gap, group_mean
from stepcredit.audit.scored_steps import scores_of_steps
from stepcredit.credit.metrics.advantage_statistics import response_means
from stepcredit.credit.metrics.group_averages import Flags, Floats, Indices
from stepcredit.credit.metrics.leave_one_out import without_format
from stepcredit.credit.metrics.response_patterns import (
    best_of_group,
    pattern_flags,
    truncated_responses,
)
from stepcredit.credit.metrics.signal_statistics import response_scores, right_and_wrong
from stepcredit.credit.metrics.step_kinds import PADDING, StepKinds

NAME = "hack_detectors"
CONVINCING_SHARE = 0.25
"""Share of the wrong responses that score like right ones from which their pay is a finding; some
wrong responses look right to every signal."""
FORMAT_ONLY_SHARE = 0.1
"""Share of the wrong responses that only the format pays from which it is worth a note."""
FEWEST = 3
"""Responses of a pattern from which a share of them is a finding."""
PATTERNS = {
    "contentless": (
        "responses without content",
        "Set `format_ok` to false for them, so that the format gate leaves only the format.",
    ),
    "unsolved": (
        "responses that think and give no answer",
        "Grade a response without a final answer as wrong, and set its `format_ok` to false.",
    ),
    "one step": (
        "responses of one giant step",
        "Cut steps by another rule (`stepcredit score --split sentence`), or use a method that "
        "does not favour few steps (`--method pass`, k below 1).",
    ),
    "no step": (
        "responses without any scored step",
        "Give every response at least one step, or set `format_ok` to false for these.",
    ),
    "convincing": (
        "wrong responses that score like right ones",
        "Give the outcome more weight, for example `--set weights='[0.3, 1, 1]'`, or let it "
        "bound the steps' return (`--method pass-min`).",
    ),
    "truncated": (
        "responses that were cut off",
        "Grade a truncated response as wrong, or raise the token limit of sampling.",
    ),
}
"""By pattern, the responses in words, and what to change where they are paid."""


@dataclass(frozen=True)
class HackPattern:
    """A pattern of responses.

    Args:
        words: the responses, in the plural, as a sentence's subject.
        flags: which responses show it.
        advice: what to change where they are paid.
        least_share: share of the responses in `among` that it must surely pass to be a finding.
        among: the responses that the share is of; None: all.
        is_never_right: whether even one that is paid best of its group is worth a note.
    """

    words: str
    flags: Flags
    advice: str
    least_share: float = 0.0
    among: Flags | None = None
    is_never_right: bool = False

    @property
    def share(self) -> float:
        """Share of the responses that show it; 0 of none."""
        size = self.flags.size if self.among is None else int(self.among.sum())
        return float(self.flags.sum()) / size if size else 0.0

    def is_frequent(self, group: Indices) -> bool:
        """Whether its share surely passes `least_share`; any response is enough for a least of 0.

        Args:
            group: the group of each response, from 0.
        """
        if not self.least_share:
            return bool(self.flags.any())
        among = np.ones_like(self.flags) if self.among is None else self.among
        share = group_mean(self.flags.astype(np.float64), among, group, FINDING_CONFIDENCE)
        return share.is_surely_above(self.least_share)


def hack_patterns(given: AuditInput) -> dict[str, HackPattern]:
    """The patterns that the batch's fields allow to look for, by name.

    Example:
        >>> from stepcredit.audit.logged_batch import LoggedBatch
        >>> rows = [{"group": 1, "length": 1, "text": text} for text in ("...", "5")]
        >>> found = hack_patterns(AuditInput.of(LoggedBatch.of(rows), {}))
        >>> {name: pattern.flags.tolist() for name, pattern in found.items()}
        {'contentless': [True, False], 'unsolved': [False, False]}
    """
    rollouts = given.batch.rollouts
    cut = truncated_responses([row.fields for row in given.batch.rows])
    flags = pattern_flags(rollouts, given.batch.texts, cut, given.right_above)
    patterns = {
        name: HackPattern(words, flags[name], advice, is_never_right=name == "contentless")
        for name, (words, advice) in PATTERNS.items()
        if name in flags
    }
    if "convincing" in patterns:
        wrong = right_and_wrong(rollouts, given.right_above)[1].numpy()
        _, known = next(iter(response_scores(rollouts).values()))
        found = patterns["convincing"]
        among = wrong & known
        patterns["convincing"] = replace(found, least_share=CONVINCING_SHARE, among=among)
    return patterns


@register_check(NAME)
def check_hack_detectors(given: AuditInput) -> CheckResult:
    """Responses and steps of known bad patterns: how many, how they score, what they are paid."""
    group = given.batch.rollouts.group_index.numpy()
    pays = {name: response_means(a).numpy() for name, a in given.advantages.items()}
    scores = response_scores(given.batch.rollouts)
    figures, findings = list[AuditFigure](), list[Finding]()
    for pattern in hack_patterns(given).values():
        figures += _pattern_figures(pattern, pays, scores, group)
        findings += _paid_pattern(pattern, pays, group, figures)
    kinds = given.step_kinds
    for found in (_scored_padding(given, kinds), _format_only(given, pays)):
        for figure, finding in found:
            figures.append(figure)
            findings += [finding] if finding else []
    return CheckResult(tuple(figures), tuple(findings), tuple(_unchecked(given, kinds)))


def _pattern_figures(
    pattern: HackPattern,
    pays: Mapping[str, Floats],
    scores: Mapping[str, tuple[Floats, Flags]],
    group: Indices,
) -> Iterator[AuditFigure]:
    of = pattern.flags.size if pattern.among is None else int(pattern.among.sum())
    name, share = f"share of {pattern.words}", pattern.share if of else None
    yield AuditFigure(name, share, of, "responses", worse="higher")
    if not pattern.flags.any():
        return
    for name, (values, known) in scores.items():
        gap = group_gap(values, pattern.flags & known, ~pattern.flags & known, group)
        what = f"mean score of {pattern.words} minus that of the others of their group"
        if gap.count:
            yield AuditFigure(what, of="responses", stream=name, worse="higher", **gap.as_figure())
    for method, values in pays.items():
        paid = group_mean(values, pattern.flags, group).as_figure()
        yield AuditFigure(_pay_name(pattern), of="responses", method=method, worse="higher", **paid)


def _pay_name(pattern: HackPattern) -> str:
    return f"mean advantage of {pattern.words}"


def _paid_pattern(
    pattern: HackPattern,
    pays: Mapping[str, Floats],
    group: Indices,
    figures: Sequence[AuditFigure],
) -> Iterator[Finding]:
    """One finding for all methods that surely pay the pattern above 0.

    It is decided by wider intervals than those of the figures, which are shown.
    """
    if not pattern.is_frequent(group):
        return
    means = {m: group_mean(v, pattern.flags, group, FINDING_CONFIDENCE) for m, v in pays.items()}
    paid = {m: mean for m, mean in means.items() if mean.is_large(pays[m])}
    if not paid:
        yield from _best_paid_pattern(pattern, pays, group, figures)
        return
    worst = max(paid, key=lambda method: paid[method].mean or 0.0)
    mean = paid[worst]
    size = f"{mean.mean:+.2f} with {worst}, over {mean.count:,} responses in {mean.groups:,} groups"
    sentence = f"With {', '.join(paid)}, {pattern.words} are paid above 0 ({size})."
    evidence = evidence_of(figures, _pay_name(pattern), paid)
    places = best_rows(pays[worst], pattern.flags)
    topic = f"{pattern.words} paid above 0"
    yield _finding("warn", topic, sentence, evidence, pattern.advice, places, pattern.share)


def _best_paid_pattern(
    pattern: HackPattern,
    pays: Mapping[str, Floats],
    group: Indices,
    figures: Sequence[AuditFigure],
) -> Iterator[Finding]:
    """A note where responses of a pattern that is never right are the best of their group."""
    best = {m: pattern.flags & best_of_group(v, group) for m, v in pays.items()}
    worst = max(best, key=lambda method: int(best[method].sum()), default="")
    if not pattern.is_never_right or not worst or not best[worst].any():
        return
    count, of = int(best[worst].sum()), int(pattern.flags.sum())
    sentence = f"With {worst}, {count:,} of {of:,} {pattern.words} have the largest mean advantage "
    sentence += "of their group."
    places = best_rows(pays[worst], best[worst])
    evidence = evidence_of(figures, _pay_name(pattern), [worst])
    topic = f"{pattern.words} paid best of their group"
    yield _finding("note", topic, sentence, evidence, pattern.advice, places, pattern.share)


def _finding(
    severity: Severity,
    topic: str,
    sentence: str,
    evidence: Sequence[AuditFigure],
    advice: str,
    places: tuple[EvidencePlace, ...],
    share: float | None,
) -> Finding:
    return Finding(NAME, severity, sentence, tuple(evidence), advice, places, share, topic)


def _scored_padding(
    given: AuditInput, kinds: StepKinds | None
) -> Iterator[tuple[AuditFigure, Finding | None]]:
    """Whether a signal itself scores filler or repeated steps above right ones."""
    if kinds is None:
        return
    for name, (values, known) in scores_of_steps(given.batch.rollouts, kinds.ends).items():
        base = kinds.flags[kinds.baseline] & known
        for kind in PADDING:
            chosen = kinds.flags.get(kind, np.zeros_like(known)) & known
            others = base & ~chosen
            if not chosen.any():
                continue
            what = f"score of {kind} steps minus that of {kinds.baseline} steps"
            gap = group_gap(values, chosen, others, kinds.group)
            figure = AuditFigure(what, of="steps", stream=name, worse="higher", **gap.as_figure())
            sure = group_gap(values, chosen, others, kinds.group, FINDING_CONFIDENCE)
            is_paid = sure.is_large(values[known])
            places = best_steps(values, chosen, kinds)
            share = float(chosen.mean())
            what = f"{name} scores {kind} steps above {kinds.baseline} steps"
            yield figure, _padding(kind, what, sure, figure, places, share) if is_paid else None


def _padding(
    kind: str,
    what: str,
    gap: GroupMean,
    figure: AuditFigure,
    places: tuple[EvidencePlace, ...],
    share: float,
) -> Finding:
    size = f"{gap.mean:+.2f}, over {gap.count:,} steps in {gap.groups:,} groups"
    advice = f"Lower the score of {kind} steps in the signal: `stepcredit attack` shows what such "
    advice += "a step earns. A step can't raise a minimum (`--method pass-min`)."
    sentence = f"The signal {what} ({size})."
    return _finding("warn", what, sentence, [figure], advice, places, share)


def _format_only(
    given: AuditInput, pays: Mapping[str, Floats]
) -> Iterator[tuple[AuditFigure, Finding | None]]:
    """Wrong responses whose mean advantage is above 0, and would not be without the format."""
    rollouts = given.batch.rollouts
    wrong = right_and_wrong(rollouts, given.right_above)[1].numpy()
    if not wrong.any() or not bool(rollouts.has_format.any()):
        return
    quiet = without_format(rollouts)
    for method, estimator in given.methods.items():
        without = response_means(estimator(quiet)).numpy()
        flags = wrong & (pays[method] > 0) & (without <= 0)
        share = float(flags.sum() / wrong.sum())
        what = "share of wrong responses with a positive advantage that only the format gives"
        count = int(wrong.sum())
        figure = AuditFigure(what, share, count, "responses", method=method, worse="higher")
        if share < FORMAT_ONLY_SHARE or int(flags.sum()) < FEWEST:
            yield figure, None
            continue
        sentence = f"With {method}, {share:.0%} of the wrong responses are paid for their format "
        sentence += f"alone ({int(flags.sum()):,} of {count:,})."
        advice = "Give the format less weight, for example `--set weights='[1, 1, 0.3]'`."
        places = best_rows(pays[method], flags)
        topic = f"wrong responses paid for their format alone with {method}"
        yield figure, _finding("note", topic, sentence, [figure], advice, places, share)


def _unchecked(given: AuditInput, kinds: StepKinds | None) -> Iterator[Unchecked]:
    batch = given.batch
    if all(text is None for text in batch.texts):
        reason = (
            "Without texts, answers without content and thinking without an answer stay unseen."
        )
        yield Unchecked(NAME, "text", reason)
    if kinds is None:
        reason = "Without the ends of steps, giant steps and padding stay unseen."
        yield Unchecked(NAME, "step_ends", reason)
    if truncated_responses([row.fields for row in batch.rows]) is None:
        reason = "Without a field that tells which responses were cut off, their pay stays unseen."
        yield Unchecked(NAME, "truncated", reason)
    if not bool(batch.rollouts.has_outcome.any()):
        reason = "Without outcomes, wrong responses that are paid stay unseen."
        yield Unchecked(NAME, "outcome", reason)
