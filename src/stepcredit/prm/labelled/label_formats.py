"""The published formats of step labels: one function per format, from a row's JSON to rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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
    texts_in,
)
from stepcredit.prm.labelled.labelled_rows import RIGHT, WRONG, question_key
from stepcredit.prm.labelled.rated_steps import openr, openr_tree, ratings, rlhflow

STEP_TAG = "ки"
FIRST_STEP = re.compile(r"\s*\bStep 1:")


def prm800k(row: dict[str, Any], options: LabelOptions) -> Iterator[Labelled]:
    """The steps taken: the chosen ones, or those that the labeler wrote (right by instruction).

    If the last step has neither, its first completion, which was rated wrong, is used; if it has no
    completion, the labeler gave up there. Rating 1 is right, -1 wrong, null not labelled; `neutral`
    says how 0 is read.
    """
    question = text_in(object_in(row, "question"), "problem", within="question")
    steps = list_in(object_in(row, "label"), "steps", within="label")
    key = question_key(question)
    taken: list[str] = []
    labels: list[int | None] = []
    others: list[Labelled] = []
    for index, step in enumerate(steps):
        place, last = f"label.steps[{index}]", index == len(steps) - 1
        choices = _completions(step, place, options)
        if last and not choices and step.get("human_completion") is None:
            break
        chosen = _chosen(step, place, len(choices), last=last)
        text, label = (_own(step, place), RIGHT) if chosen is None else choices[chosen]
        before: list[int | None] = [None] * len(taken)
        others += [
            Labelled(question, [*taken, other], [*before, rated], key)
            for number, (other, rated) in enumerate(choices)
            if number != chosen and rated is not None
        ]
        taken.append(text)
        labels.append(label)
    yield Labelled(question, taken, labels, key)
    if options.alternatives:
        yield from others


def _completions(step: Any, place: str, options: LabelOptions) -> list[tuple[str, int | None]]:
    """Texts and labels of the offered steps; in published rows, null means that there are none."""
    if not isinstance(step, dict):
        raise RolloutError(f"expected an object, got {step!r:.60}", field=place)
    if step.get("completions") is None:
        return []
    found = []
    for index, completion in enumerate(list_in(step, "completions", place)):
        inner = f"{place}.completions[{index}]"
        text = text_in(completion, "text", inner)
        rated = label_of_rating(completion.get("rating"), options, f"{inner}.rating")
        found.append((text, rated))
    return found


def _chosen(step: dict[str, Any], place: str, offered: int, *, last: bool) -> int | None:
    """Index of the completion that was taken; None if the labeler's own step was taken."""
    chosen, field = step.get("chosen_completion"), f"{place}.chosen_completion"
    if chosen is None and step.get("human_completion") is not None:
        return None
    if chosen is None and not last:
        raise RolloutError("is null, and so is human_completion, but steps follow", field=field)
    chosen = 0 if chosen is None else chosen
    if not isinstance(chosen, int) or isinstance(chosen, bool) or not 0 <= chosen < offered:
        reason = f"expected the index of one of {offered} completions, got {chosen!r}"
        raise RolloutError(reason, field=field)
    return chosen


def _own(step: dict[str, Any], place: str) -> str:
    """The step that the labeler wrote."""
    own = object_in(step, "human_completion", place)
    return text_in(own, "text", within=f"{place}.human_completion")


def math_shepherd(row: dict[str, Any], options: LabelOptions) -> Iterator[Labelled]:
    """`input` has a tag after each step, and `label` the same text with + or - in its place."""
    text, marked = text_in(row, "input"), text_in(row, "label")
    *pieces, rest = text.split(STEP_TAG)
    if not pieces:
        raise RolloutError(f"holds no step tag {STEP_TAG}", field="input")
    labels, position = [], 0
    for index, piece in enumerate(pieces):
        position += len(piece)
        verdict = marked[position : position + 1]
        if marked[position - len(piece) : position] != piece or verdict not in VERDICTS:
            reason = f"does not repeat `input` up to the verdict + or - of step {index + 1}"
            raise RolloutError(reason, field="label")
        labels.append(VERDICTS[verdict])
        position += 1
    if (rest.strip(), marked[position:].strip()) != ("", ""):
        raise RolloutError(f"has text after the last {STEP_TAG}", field="input")
    first = FIRST_STEP.search(pieces[0])
    if first is None:
        raise RolloutError("the question does not end in `Step 1:`", field="input")
    question = pieces[0][: first.start()]
    steps = [pieces[0][first.start() :], *pieces[1:]]
    yield Labelled(question, steps, list(labels), question_key(question))


def prmbench(row: dict[str, Any], options: LabelOptions) -> Iterator[Labelled]:
    """`modified_process`, wrong at `error_steps` (from 1); `question` identifies the question.

    The question's other two fields are spelled differently in the files of one benchmark, so a
    split by them would put one problem into two parts.
    """
    question, steps = text_in(row, "modified_question"), texts_in(row, "modified_process")
    wrong = list_in(row, "error_steps")
    for number in wrong:
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= len(steps):
            reason = f"expected step numbers from 1 to {len(steps)}, got {number!r}"
            raise RolloutError(reason, field="error_steps")
    if wrong and steps == row.get("original_process"):
        reason = "names wrong steps, but modified_process is original_process"
        raise RolloutError(reason, field="error_steps")
    key = question_key(text_in(row, "question" if "question" in row else "original_question"))
    labels = [WRONG if number in wrong else RIGHT for number in range(1, len(steps) + 1)]
    yield Labelled(question, steps, list(labels), key)
    if options.originals:
        right = texts_in(row, "original_process")
        question = text_in(row, "original_question")
        yield Labelled(question, right, [RIGHT] * len(right), key, once=True)


def processbench(row: dict[str, Any], options: LabelOptions) -> Iterator[Labelled]:
    """`label` is the index of the first wrong step, -1 for none; later steps are not labelled."""
    question, steps = text_in(row, "problem"), texts_in(row, "steps")
    first = row.get("label")
    if not isinstance(first, int) or isinstance(first, bool) or not -1 <= first < len(steps):
        reason = f"expected -1 or the index of one of {len(steps)} steps, got {first!r}"
        raise RolloutError(reason, field="label")
    labels: list[int | None] = [RIGHT] * len(steps)
    if first >= 0:
        labels[first:] = [WRONG] + [None] * (len(steps) - first - 1)
    yield Labelled(question, steps, labels, question_key(question))


def stepwise(row: dict[str, Any], options: LabelOptions) -> Iterator[Labelled]:
    """TRL's: `prompt`, `completions` (the steps) and `labels`, true, false or null."""
    question, steps, labels = (
        text_in(row, "prompt"),
        texts_in(row, "completions"),
        list_in(row, "labels"),
    )
    if len(labels) != len(steps):
        reason = f"expected one for each of {len(steps)} completions, got {len(labels)}"
        raise RolloutError(reason, field="labels")
    for label in labels:
        if label not in (0, 1, None) or isinstance(label, float):
            raise RolloutError(f"expected true, false or null, got {label!r}", field="labels")
    values = [None if label is None else int(label) for label in labels]
    yield Labelled(question, steps, values, question_key(question))


Format = Callable[[dict[str, Any], LabelOptions], Iterator[Labelled]]
FORMATS: dict[str, Format] = {
    "prm800k": prm800k,
    "math-shepherd": math_shepherd,
    "prmbench": prmbench,
    "processbench": processbench,
    "stepwise": stepwise,
    "rlhflow": rlhflow,
    "openr": openr,
    "openr-tree": openr_tree,
    "ratings": ratings,
}
FIELDS: dict[str, Sequence[str]] = {
    "openr": ("question", "process", "label"),
    "openr-tree": ("question", "reasoning_steps"),
    "prm800k": ("question", "label"),
    "math-shepherd": ("input", "label"),
    "prmbench": ("modified_question", "modified_process", "error_steps"),
    "processbench": ("problem", "steps", "label"),
    "stepwise": ("prompt", "completions", "labels"),
    "rlhflow": ("conversations",),
    "ratings": ("question", "steps"),
}
OTHERS: dict[str, Sequence[str]] = {
    "messages with step labels": ("messages", "step_labels"),
    "a conversation": ("messages",),
    "a log of responses": ("response",),
}
"""What other files look like, by their fields; `stepcredit convert` reads them."""


def recognized(row: dict[str, Any]) -> str:
    """The format to which a row's fields belong.

    Raises:
        RolloutError: they belong to no format.

    Example:
        >>> recognized({"problem": "1 + 1?", "steps": ["2"], "label": -1})
        'processbench'
    """
    for name, needed in FIELDS.items():
        if all(field in row for field in needed):
            return name
    reason = f"has the fields of no format: expected one of {', '.join(FORMATS)}"
    for kind, needed in OTHERS.items():
        if all(field in row for field in needed):
            reason += f"; this looks like {kind}, which `stepcredit convert` reads"
            break
    raise RolloutError(reason)
