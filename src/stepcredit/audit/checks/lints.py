"""Faults of a log's groups, outcomes and formats."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.finding import (
    AuditFigure,
    CheckResult,
    EvidencePlace,
    Finding,
    Severity,
    Unchecked,
)
from stepcredit.audit.group_means import FEWEST_GROUPS
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.data.rules import counted

GROUPS, OUTCOMES, GATE = "groups", "outcomes", "format gate"
MOST_OFTEN = 0.75
"""If this part of the groups has one size, the others are incomplete; with less, sizes vary."""
MANY_ALONE = 0.1
"""A log that was cut leaves a lone response or two; above this part of the groups, it was torn."""
MOSTLY_GATED = 0.9
"""If this part of the responses breaks the format, hardly any outcome or step is learned from."""
PLACES = 5
"""Rows that a finding points to."""


@register_check(GROUPS)
def check_groups(data: AuditInput) -> CheckResult:
    """Groups of one response, and groups smaller than the others.

    Returns:
        Per log, the share of groups of one and of incomplete groups.
    """
    index = data.batch.rollouts.group_index.numpy()
    sizes = np.bincount(index)
    alone, usual = float((sizes == 1).mean()), usual_size(sizes.tolist())
    small = np.zeros_like(sizes, dtype=bool) if usual is None else (sizes < usual)
    figures = (
        _share("share of groups with one response", alone, len(sizes), "groups"),
        _share("share of incomplete groups", float(small.mean()), len(sizes), "groups"),
    )
    found = []
    if alone > MANY_ALONE:
        found.append(_alone(data.batch, sizes, index, figures[0]))
    if small.any() and usual is not None:
        found.append(_incomplete(usual, small, index, figures[1]))
    few = () if len(sizes) >= FEWEST_GROUPS else (_few_groups(len(sizes)),)
    return CheckResult(figures, tuple(found), few)


def _few_groups(count: int) -> Unchecked:
    reason = f"The file has {counted(count, 'group')}. With fewer than {FEWEST_GROUPS}, what is so "
    reason += "can't be told from chance: figures are shown, and most checks infer nothing."
    return Unchecked(GROUPS, "group", reason)


def _share(name: str, value: float, count: int, of: str) -> AuditFigure:
    """The share of what has a fault."""
    return AuditFigure(name, value, count, of, worse="higher")


def usual_size(sizes: Sequence[int]) -> int | None:
    """The size that at least three quarters of the groups have; None: there is none, or it is 1.

    Example:
        >>> usual_size([8, 8, 8, 5]), usual_size([8, 4, 2]), usual_size([1, 1])
        (8, None, None)
    """
    size, count = Counter(sizes).most_common(1)[0]
    return size if size > 1 and count >= MOST_OFTEN * len(sizes) else None


def torn_groups(prompts: Sequence[str | None], group: Sequence[int]) -> int:
    """How many prompts have rows in more than one group; a row without a prompt counts nowhere.

    Example:
        >>> torn_groups(["a", "a", "b", None], [0, 1, 2, 3])
        1
    """
    groups: dict[str, set[int]] = defaultdict(set)
    for prompt, of in zip(prompts, group, strict=True):
        if prompt is not None:
            groups[prompt].add(of)
    return sum(len(found) > 1 for found in groups.values())


def _alone(
    batch: LoggedBatch, sizes: np.ndarray, index: np.ndarray, figure: AuditFigure
) -> Finding:
    count = int((sizes == 1).sum())
    torn = torn_groups([row.fields.get("prompt") for row in batch.rows], index.tolist())
    which = f"{count} of {len(sizes)}" if count < len(sizes) else f"All {count}"
    which = "The only group holds" if len(sizes) == 1 else f"{which} groups hold"
    sentence = f"{which} one response only, so nothing can be compared within a group"
    if torn:
        sentence += f"; {counted(torn, 'prompt')} stand in more than one group, so the log's groups"
        sentence += " were torn apart"
    advice = "Give all responses to one prompt the same `group`; a log of a trainer on several "
    advice += "processes must be put together first."
    rows = np.flatnonzero(sizes[index] == 1)
    severity: Severity = "fault" if torn else "warn"
    places, topic = first_places(rows), "groups of one response"
    return Finding(GROUPS, severity, f"{sentence}.", (figure,), advice, places, figure.value, topic)


def _incomplete(usual: int, small: np.ndarray, index: np.ndarray, figure: AuditFigure) -> Finding:
    count = int(small.sum())
    only_last = count == 1 and bool(small[-1])
    what = "The last group has" if only_last else f"{counted(count, 'group')} of {len(small)} have"
    sentence = f"{what} fewer than the {usual} responses that most groups have."
    advice = "Look for a log that was cut off, or for a filter that drops responses; leave "
    advice += "incomplete groups out, since their mean and std are those of the rest."
    severity: Severity = "note" if only_last else "warn"
    rows = np.flatnonzero(small[index])
    places, topic = first_places(rows), "incomplete groups"
    return Finding(GROUPS, severity, sentence, (figure,), advice, places, figure.value, topic)


@register_check(OUTCOMES)
def check_known_outcomes(data: AuditInput) -> CheckResult:
    """Outcomes that are missing, in a whole group or in a part of one."""
    rollouts = data.batch.rollouts
    known, group = rollouts.has_outcome.numpy(), rollouts.group_index.numpy()
    share = float((~known).mean())
    figure = _share("share of responses without an outcome", share, len(known), "responses")
    partly = partly_known_groups(known, group)
    found = []
    if len(partly):
        sentence = f"{counted(len(partly), 'group')} know the outcome of some responses only: the "
        sentence += "unknown ones can't be compared."
        advice = "Give every response of a group its `outcome`, or null to all of them."
        rows = np.flatnonzero(np.isin(group, partly) & ~known)
        places, topic = first_places(rows), "groups whose outcomes are partly unknown"
        found.append(Finding(OUTCOMES, "fault", sentence, (figure,), advice, places, share, topic))
    elif not known.any():
        reason = "No response has an outcome, so nothing is compared with it."
        return CheckResult((figure,), unchecked=(Unchecked(OUTCOMES, "outcome", reason),))
    elif share:
        missing = len(np.unique(group[~known]))
        sentence = (
            f"{missing} of {counted(rollouts.num_groups, 'group')} have no outcome and learn "
        )
        sentence += "from their steps and their format alone."
        advice = "If these prompts have answers, grade them: `stepcredit reward` writes `outcome`."
        rows = np.flatnonzero(~known)
        places, topic = first_places(rows), "groups without an outcome"
        found.append(Finding(OUTCOMES, "note", sentence, (figure,), advice, places, share, topic))
    return CheckResult((figure,), tuple(found))


def partly_known_groups(known: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The groups in which some values are known and others are not.

    Example:
        >>> partly_known_groups(np.array([True, False, True]), np.array([0, 0, 1])).tolist()
        [0]
    """
    size, held = np.bincount(group), np.bincount(group, known)
    return np.flatnonzero((held > 0) & (held < size))


@register_check(GATE)
def check_gate(data: AuditInput) -> CheckResult:
    """A format gate that nearly every response fails."""
    batch = data.batch
    if not any("format_ok" in row.fields for row in batch.rows):
        reason = "No row says whether its response kept the format."
        return CheckResult(unchecked=(Unchecked(GATE, "format_ok", reason),))
    broken = ~batch.rollouts.format_ok.numpy()
    share = float(broken.mean())
    figure = _share("share of responses that break the format", share, len(broken), "responses")
    found = []
    if share > MOSTLY_GATED:
        of = "All" if share == 1 else f"{share:.0%} of the"
        sentence = f"{of} {len(broken)} responses break the format, so that methods with a gate "
        sentence += "learn nothing from their outcomes and steps"
        if not batch.rollouts.formats.any_known:
            sentence += ", and no format reward teaches them the format"
        advice = "Compare the template of the format reward with a response; or set "
        advice += "`PASS(gate=False)`, `--set gate=false`."
        places = first_places(np.flatnonzero(broken))
        severity: Severity = "fault" if share == 1 else "warn"
        topic = "format broken by nearly every response"
        found.append(
            Finding(GATE, severity, f"{sentence}.", (figure,), advice, places, share, topic)
        )
    return CheckResult((figure,), tuple(found))


def first_places(rows: np.ndarray) -> tuple[EvidencePlace, ...]:
    """The first rows of those that show a finding.

    Example:
        >>> first_places(np.array([4, 7]))
        (EvidencePlace(row=4, step=None), EvidencePlace(row=7, step=None))
    """
    return tuple(EvidencePlace(int(row)) for row in rows[:PLACES])
