"""Formats in which each step has its own rating: RLHFlow's, OpenR's, and a plain list of steps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.prm.labelled.label_fields import (
    VERDICTS,
    Labelled,
    LabelOptions,
    label_of_rating,
    list_in,
    object_in,
    text_in,
)
from stepcredit.prm.labelled.labelled_rows import RIGHT, WRONG, question_key

OPENR_TAG = "\n\n\n\n\n"
HALF = 0.5
"""A step of OpenR is right if more than half of the continuations after it are."""
DEEPEST = 200
_Waiting = tuple[dict[str, Any], str, list[str], list[int | None]]
_FIRST_STEP = re.compile(r"\s*\bStep 1\b")
_QUESTION_END = re.compile(r"\?[\"'”’)$]*\s+(?=\S)")


def rlhflow(row: dict[str, Any], options: LabelOptions) -> Iterator[Labelled]:
    """`conversations`: the user gives a step, the assistant + or -.

    The first turn is the question and the first step, which begins at `Step 1`; without that word,
    after a line break, or else after the last question mark within the turn.
    """
    turns = [turn for turn in list_in(row, "conversations") if not _is_system(turn)]
    if not turns or len(turns) % 2:
        reason = f"expected pairs of a step and its verdict, got {len(turns)} turns"
        raise RolloutError(reason, field="conversations")
    steps, labels = [], []
    for index in range(0, len(turns), 2):
        place = f"conversations[{index}]"
        steps.append(_said(turns[index], "user", place))
        verdict = _said(turns[index + 1], "assistant", f"conversations[{index + 1}]").strip()
        labels.append(_sign(verdict, f"conversations[{index + 1}].content"))
    question, steps[0] = _question_and_step(steps[0])
    yield Labelled(question, steps, list(labels), question_key(question))


def _is_system(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "system"


def _said(turn: Any, role: str, place: str) -> str:
    """What a turn says, whose role must be the given one."""
    if text_in(turn, "role", place) != role:
        raise RolloutError(f"expected {role!r}, got {turn['role']!r}", field=f"{place}.role")
    return text_in(turn, "content", place)


def _sign(verdict: Any, field: str) -> int:
    if verdict not in VERDICTS:
        raise RolloutError(f"expected + or -, got {verdict!r:.60}", field=field)
    return VERDICTS[verdict]


def _question_and_step(turn: str) -> tuple[str, str]:
    """The question and the first step in RLHFlow's first turn."""
    if first := _FIRST_STEP.search(turn):
        return turn[: first.start()], turn[first.start() :]
    head, line_break, rest = turn.strip().partition("\n")
    if line_break and rest.strip():
        return head, rest
    ends = [mark.end() for mark in _QUESTION_END.finditer(turn)]
    if not ends:
        reason = "expected the question, then `Step 1`, a line break, or a question mark"
        raise RolloutError(reason, field="conversations[0].content")
    return turn[: ends[-1]], turn[ends[-1] :]


def openr(row: dict[str, Any], options: LabelOptions) -> Iterator[Labelled]:
    """MATH-APS: `process` has five line breaks after each step, `label` a + or - for each."""
    question, process = text_in(row, "question"), text_in(row, "process")
    verdicts = list_in(row, "label")
    steps = [step for step in process.split(OPENR_TAG) if step.strip()]
    if len(steps) != len(verdicts):
        reason = f"expected one for each of {len(steps)} steps, got {len(verdicts)}"
        raise RolloutError(reason, field="label")
    labels = [_sign(verdict, f"label[{index}]") for index, verdict in enumerate(verdicts)]
    yield Labelled(question, steps, list(labels), question_key(question))


def openr_tree(row: dict[str, Any], options: LabelOptions) -> Iterator[Labelled]:
    """MATH-APS as a tree: each way from the root, which is the question, to a leaf is one row.

    A step is right if its `mc_value` is above 1/2, as in OpenR's own conversion. A node without
    text adds no step.
    """
    question = text_in(row, "question")
    root = object_in(row, "reasoning_steps")
    key = question_key(question)
    waiting: list[_Waiting] = [(root, "reasoning_steps", [], [])]
    while waiting:
        node, place, steps, labels = waiting.pop()
        children = list_in(node, "children", place)
        if not children and steps:
            yield Labelled(question, steps, labels, key)
        for index in reversed(range(len(children))):
            inner = f"{place}.children[{index}]"
            own, label = _node(children[index], inner)
            if len(steps) >= DEEPEST:
                raise RolloutError(f"is deeper than {DEEPEST} steps", field="reasoning_steps")
            added = bool(own.strip())
            waiting.append(
                (children[index], inner, steps + [own] * added, labels + [label] * added)
            )


def _node(node: Any, place: str) -> tuple[str, int | None]:
    """A node's text and label."""
    text = text_in(node, "text", place)
    value = node.get("mc_value")
    if value is not None and (not isinstance(value, int | float) or not 0 <= value <= 1):
        reason = f"expected a share from 0 to 1, got {value!r:.60}"
        raise RolloutError(reason, field=f"{place}.mc_value")
    return text, None if value is None else RIGHT if value > HALF else WRONG


def ratings(row: dict[str, Any], options: LabelOptions) -> Iterator[Labelled]:
    """`steps`: each an object of `step` and `rating`, rated as PRM800K's are."""
    question = text_in(row, "question")
    steps, labels = [], []
    for index, step in enumerate(list_in(row, "steps")):
        place = f"steps[{index}]"
        steps.append(text_in(step, "step", place))
        labels.append(label_of_rating(step.get("rating"), options, f"{place}.rating"))
    yield Labelled(question, steps, labels, question_key(question))
