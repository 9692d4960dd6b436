"""Patterns of responses that are known from reward hacking, each found by a plain rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepcredit.credit.metrics.group_averages import Flags, Floats, Indices
from stepcredit.credit.metrics.signal_statistics import (
    response_scores,
    right_and_wrong,
    step_boundaries,
)
from stepcredit.credit.metrics.text_statistics import is_contentless, reflection_words
from stepcredit.data.rollouts import Rollouts

USUAL_STEPS = 3
"""Steps of the median response from which a response of a single step stands out."""
MARKED_SHARE = 0.5
"""Where more texts than this hold a final answer's mark, a text without one has no answer."""
_ANSWER_MARKS = ("\\boxed", "####", "answer", "\na:")
_THINK_END = "</think>"


def pattern_flags(
    rollouts: Rollouts,
    texts: Sequence[str | None] | None = None,
    truncated: Flags | None = None,
    right_above: float = 0.0,
) -> dict[str, Flags]:
    """Which responses show each pattern that a batch allows to look for.

    Args:
        rollouts: the batch.
        texts: the responses; None: unknown.
        truncated: which responses were cut off at the length limit; None: unknown.
        right_above: a response is right where its outcome is above this.

    Returns:
        {"contentless", "unsolved", "one step", "no step", "convincing" or "truncated": one flag
        per response}, without the patterns whose fields the batch lacks.

    Example:
        >>> import stepcredit as sc
        >>> found = pattern_flags(sc.Rollouts([0, 0], lengths=[1, 1]), ["...", "5"])
        >>> {name: flags.tolist() for name, flags in found.items()}
        {'contentless': [True, False], 'unsolved': [False, False]}
    """
    found: dict[str, Flags] = {}
    if texts is not None and any(text is not None for text in texts):
        found |= {"contentless": contentless_responses(texts), "unsolved": unsolved_thinking(texts)}
    ends, scores = step_boundaries(rollouts), response_scores(rollouts)
    if ends is not None:
        found["one step"] = one_step_responses(ends.counts.tolist())
    if rollouts.streams:
        counts = [stream.counts.cpu().numpy() for stream in rollouts.streams.values()]
        found["no step"] = unscored_responses(np.sum(counts, axis=0).tolist())
    if scores and bool(rollouts.has_outcome.any()):
        right, wrong = (each.cpu().numpy() for each in right_and_wrong(rollouts, right_above))
        values, known = next(iter(scores.values()))
        group = rollouts.group_index.cpu().numpy()
        found["convincing"] = convincing_wrong(values, right & known, wrong & known, group)
    return found if truncated is None else found | {"truncated": truncated}


def contentless_responses(texts: Sequence[str | None]) -> Flags:
    """Which responses hold no letter and no digit; a response without a known text does not count.

    Example:
        >>> contentless_responses(["x = 3", "...", None, ""]).tolist()
        [False, True, False, True]
    """
    return np.array([text is not None and is_contentless(text) for text in texts], np.bool_)


def one_step_responses(step_counts: Sequence[int]) -> Flags:
    """Which responses are one giant step, where that is not how most responses are written.

    A response of one step stands out if the median response has three steps or more.

    Example:
        >>> one_step_responses([1, 4, 5]).tolist(), one_step_responses([1, 1, 2]).tolist()
        ([True, False, False], [False, False, False])
    """
    counts = np.asarray(step_counts)
    usual = counts.size > 0 and float(np.median(counts)) >= USUAL_STEPS
    found: Flags = (counts == 1) & usual
    return found


def unscored_responses(score_counts: Sequence[int]) -> Flags:
    """Which responses have no score of a process signal that others have.

    Example:
        >>> unscored_responses([0, 2]).tolist(), unscored_responses([0, 0]).tolist()
        ([True, False], [False, False])
    """
    counts = np.asarray(score_counts)
    found: Flags = (counts == 0) & bool(counts.any())
    return found


def unsolved_thinking(texts: Sequence[str | None]) -> Flags:
    """Which responses think and give no answer.

    Either nothing but signs stands behind the thinking's end (`<think>` without an end, too), or
    the text holds words of reflection, and no mark of a final answer where most texts have one:
    `\\boxed`, `####`, the word "answer", a line that begins with "A:".

    Example:
        >>> unsolved_thinking(["<think>2+3", "<think>5</think> 5", "<think>5</think>."]).tolist()
        [True, False, True]
        >>> unsolved_thinking(["wait, 2+3", "answer: 5", "wait, the answer is 5"]).tolist()
        [True, False, False]
    """
    marked = [text is not None and _has_answer_mark(text) for text in texts]
    expects_mark = sum(marked) > MARKED_SHARE * max(1, len(texts))
    found = [
        text is not None
        and (_only_thinks(text) or (expects_mark and not mark and reflection_words([text]) > 0))
        for text, mark in zip(texts, marked, strict=True)
    ]
    return np.array(found, np.bool_)


def _has_answer_mark(text: str) -> bool:
    lower = f"\n{text.lower()}"
    return any(mark in lower for mark in _ANSWER_MARKS)


def _only_thinks(text: str) -> bool:
    if _THINK_END in text:
        return is_contentless(text.rpartition(_THINK_END)[2])
    return "<think>" in text


def truncated_responses(rows: Sequence[Mapping[str, Any]]) -> Flags | None:
    """Which responses the log calls cut off: `truncated` is true, or `finish_reason` is "length".

    Returns:
        One flag per row; None where no row has either field.

    Example:
        >>> truncated_responses([{"truncated": True}, {"finish_reason": "stop"}]).tolist()
        [True, False]
    """
    if not any("truncated" in row or "finish_reason" in row for row in rows):
        return None
    cut = [row.get("truncated") is True or row.get("finish_reason") == "length" for row in rows]
    return np.array(cut, np.bool_)


def convincing_wrong(scores: Floats, right: Flags, wrong: Flags, group: Indices) -> Flags:
    """Which wrong responses have at least the mean score of the right responses of their group.

        wrong_i and s_i >= mean of s over the right responses of i's group

    Args:
        scores: one per response, such as its mean step score.
        right, wrong: by the outcome; a response of unknown outcome is neither.
        group: the group of each, from 0.

    Returns:
        One flag per response; none in a group without a right response.

    Example:
        >>> scores, right = np.array([0.8, 0.9, 0.1]), np.array([True, False, False])
        >>> convincing_wrong(scores, right, ~right, np.zeros(3, int)).tolist()
        [False, True, False]
    """
    groups = int(group.max()) + 1 if group.size else 0
    counts = np.bincount(group[right], minlength=groups)
    totals = np.bincount(group[right], weights=scores[right], minlength=groups)
    mean = np.divide(totals, counts, out=np.full(groups, np.inf), where=counts > 0)
    found: Flags = wrong & (scores >= mean[group])
    return found


def best_of_group(values: Floats, group: Indices) -> Flags:
    """Which responses have the largest value of their group, and one that is above its smallest.

    Example:
        >>> best_of_group(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1])).tolist()
        [False, True, False]
    """
    groups = int(group.max()) + 1 if group.size else 0
    high, low = np.full(groups, -np.inf), np.full(groups, np.inf)
    np.maximum.at(high, group, values)
    np.minimum.at(low, group, values)
    found: Flags = (values == high[group]) & (high > low)[group]
    return found
