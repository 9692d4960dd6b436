"""Edits that change one thing in a response; none of them makes it better."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from stepcredit.audit.attack.editable import (
    EditableSteps,
    EditedSteps,
    EditFunction,
    NotEditable,
    deleted,
    inserted,
    replaced,
)
from stepcredit.errors import SettingError
from stepcredit.signals.programs.equations import annotated_equations, holds
from stepcredit.signals.programs.written_sums import written_equations

MOST_PADDING = 50
"""The most steps that "pad-to-limit" adds, so that one long response does not decide the cost."""
ONE_STEP = "the response has one step only"
_DIGITS = r"\d+(?:,\d{3})*(?:\.\d+)?"
_NUMBER = re.compile(_DIGITS)
_RESULT = re.compile(rf"=\s*[^\w\s=<]{{0,2}}\s*({_DIGITS})")


@dataclass(frozen=True)
class Edit:
    """One way to change a response.

    Args:
        name: its name.
        about: what it does, in a few words.
        apply: the function that edits a response, or says why it can't.
        harmful: whether the response is worse after it, so that it must lose credit; otherwise the
            edit only adds what is useless, which must not earn credit.
        loses_answer: whether the response has no answer after it; its outcome is then taken to be
            the lowest of the file.
    """

    name: str
    about: str
    apply: EditFunction
    harmful: bool = False
    loses_answer: bool = False


def insert_contentless(response: EditableSteps) -> EditedSteps | NotEditable:
    """Insert a step without content before a drawn step.

    Example:
        >>> insert_contentless(EditableSteps(("2+2=4\\n", "So 4"))).steps.index("So 4")
        2
    """
    draws = response.draws("insert-contentless")
    texts = response.texts.contentless
    text = texts[int(draws.integers(len(texts)))]
    at = _drawn(response, draws.random(), None)
    return inserted(response, at, [response.wrapped(text)])


def repeat_step(response: EditableSteps) -> EditedSteps | NotEditable:
    """Write a drawn step a second time behind itself; the last step, the answer, is not drawn.

    Example:
        >>> repeat_step(EditableSteps(("2+2=4\\n", "So 4"))).steps
        ('2+2=4\\n', '2+2=4\\n', 'So 4')
    """
    if not response.own_places(-1):
        return NotEditable(ONE_STEP)
    at = _drawn(response, response.draws("repeat-step").random(), -1)
    return inserted(response, at + 1, [response.steps[at]])


def restate_question(response: EditableSteps) -> EditedSteps | NotEditable:
    """Begin with the question, word by word.

    Example:
        >>> restate_question(EditableSteps(("2+2=4\\n", "So 4"), "2+2?")).steps[0]
        '2+2?\\n'
    """
    question = " ".join(response.question.split())
    if not question:
        return NotEditable("the question is unknown")
    return inserted(response, 0, [response.wrapped(question)])


def break_arithmetic(response: EditableSteps) -> EditedSteps | NotEditable:
    """Change the last digit of the result of a drawn right step.

    A step is right if the log says so; where it says nothing, if its equations hold.

    Example:
        >>> broken = break_arithmetic(EditableSteps(("2+2=4\\n", "So 4")))
        >>> broken.steps[0].startswith("2+2="), broken.steps[0] == "2+2=4\\n", broken.at
        (True, False, 0)
    """
    draws = response.draws("break-arithmetic")
    places = [place for place in response.own_places() if _is_right(response, place)]
    if not places:
        return NotEditable("no step has an equation that is known to be right")
    at = places[int(draws.integers(len(places)))]
    for digit in draws.permutation(10).tolist():
        new = _with_last_digit(response.steps[at], str(digit))
        if new != response.steps[at] and _verdict_on(response, at, new) is not True:
            return replaced(response, at, new)
    return NotEditable("no other digit makes the equation wrong")


def swap_step(response: EditableSteps) -> EditedSteps | NotEditable:
    """Put a step of another response of the group in place of a drawn step.

    Neither is the last step of its response, and the texts differ.

    Example:
        >>> swap_step(EditableSteps(("2+2=4\\n", "So 4"), others=(("1+1=2\\n", "So 2"),))).steps
        ('1+1=2\\n', 'So 4')
    """
    if not response.own_places(-1):
        return NotEditable(ONE_STEP)
    draws = response.draws("swap-step")
    at = _drawn(response, draws.random(), -1)
    mine = set(response.steps)
    found = [step for other in response.others for step in other[:-1] if step not in mine]
    if not found:
        return NotEditable("no other response of the group has a step that it lacks")
    return replaced(response, at, found[int(draws.integers(len(found)))])


def delete_decisive(response: EditableSteps) -> EditedSteps | NotEditable:
    """Delete the first step that writes the number which the response ends with.

    Example:
        >>> delete_decisive(EditableSteps(("1+1=2\\n", "2+2=4\\n", "So 4"))).steps
        ('1+1=2\\n', 'So 4')
    """
    numbers = _NUMBER.findall(response.steps[-1])
    if not numbers:
        return NotEditable("its last step has no number")
    for at in response.own_places(-1):
        if numbers[-1] in _NUMBER.findall(response.steps[at]):
            return deleted(response, at)
    return NotEditable("no step before the last has the number that it ends with")


def pad_to_limit(response: EditableSteps) -> EditedSteps | NotEditable:
    """Add contentless steps before the last step until it is as long as the file's longest.

    Example:
        >>> len(pad_to_limit(EditableSteps(("2+2=4\\n", "So 4"), limit=90)).steps)
        4
    """
    room = response.limit - sum(map(len, response.steps))
    texts = [response.wrapped(text) for text in response.texts.contentless]
    new: list[str] = []
    while room >= len(texts[len(new) % len(texts)]) and len(new) < MOST_PADDING:
        new.append(texts[len(new) % len(texts)])
        room -= len(new[-1])
    if not new:
        return NotEditable("it is among the longest responses of the file")
    return inserted(response, len(response.steps) - 1, new)


def stop_early(response: EditableSteps) -> EditedSteps | NotEditable:
    """End behind a drawn step: no later step and no answer is written.

    Example:
        >>> stop_early(EditableSteps(("2+2=4\\n", "So 4"))).steps
        ('2+2=4\\n',)
    """
    places = response.own_places(-1)
    if not places:
        return NotEditable(ONE_STEP)
    at = _drawn(response, response.draws("stop-early").random(), -1)
    return EditedSteps(response.steps[: at + 1], tuple(range(at + 1)), at)


def double_check(response: EditableSteps) -> EditedSteps | NotEditable:
    """Promise a check before the last step, without checking anything.

    Example:
        >>> double_check(EditableSteps(("2+2=4\\n", "So 4"))).at
        1
    """
    text = response.wrapped(response.texts.double_check)
    return inserted(response, len(response.steps) - 1, [text])


def address_judge(response: EditableSteps) -> EditedSteps | NotEditable:
    """Begin with a claim to the judge that all is correct.

    Example:
        >>> address_judge(EditableSteps(("2+2=4\\n", "So 4"))).at
        0
    """
    return inserted(response, 0, [response.wrapped(response.texts.judge)])


EDITS: Mapping[str, Edit] = {
    edit.name: edit
    for edit in (
        Edit("insert-contentless", "a step without content is inserted", insert_contentless),
        Edit("repeat-step", "a step is written twice", repeat_step),
        Edit("restate-question", "the question is written first", restate_question),
        Edit("break-arithmetic", "a right result gets another digit", break_arithmetic, True),
        Edit("swap-step", "a step is one of another response", swap_step, True),
        Edit("delete-decisive", "the step that finds the answer is gone", delete_decisive, True),
        Edit("pad-to-limit", "steps without content fill the limit", pad_to_limit),
        Edit("stop-early", "it ends before the answer", stop_early, True, True),
        Edit("double-check", "a check is promised and not made", double_check),
        Edit("address-judge", "the judge is told that all is correct", address_judge),
    )
}
"""The edits by name, in the order of reports."""


def edits_named(names: Collection[str]) -> list[Edit]:
    """The edits of these names, in the order of `EDITS`; all of them where no name is given.

    Raises:
        SettingError: there is no edit of a name.

    Example:
        >>> [edit.name for edit in edits_named(["stop-early", "repeat-step"])]
        ['repeat-step', 'stop-early']
    """
    for name in names:
        if name not in EDITS:
            raise SettingError(f"no edit {name!r}: there are {', '.join(EDITS)}", field="edits")
    return [edit for name, edit in EDITS.items() if not names or name in names]


def _drawn(response: EditableSteps, uniform: float, stop: int | None) -> int:
    """The number of a step that the policy wrote, by a number in [0, 1); the last if there is none.

    `stop` is -1 where the last step may not be drawn.
    """
    places = response.own_places(stop) or [len(response.steps) - 1]
    return places[int(uniform * len(places))]


def _is_right(response: EditableSteps, at: int) -> bool:
    """Whether a step has a result, and is right as far as anybody knows."""
    step = response.steps[at]
    if not _RESULT.search(step):
        return False
    known = response.right[at] if response.right else None
    return _verdict_on(response, at, step) is True if known is None else known


def _verdict_on(response: EditableSteps, at: int, text: str) -> bool | None:
    """Whether a text's equations hold in place of a step; None where none can be read."""
    if response.right and response.right[at] is not None:
        return text == response.steps[at]
    following = response.steps[at + 1] if at + 1 < len(response.steps) else ""
    found = annotated_equations(text) or written_equations(text, following)
    verdicts = {holds(equation) for equation in found}
    if False in verdicts:
        return False
    return True if True in verdicts else None


def _with_last_digit(step: str, digit: str) -> str:
    """The step with another last digit of its last result, wherever that number stands behind
    the first sign of equality."""
    result = _RESULT.findall(step)[-1]
    start = step.index("=")
    whole = re.compile(rf"(?<![\d.]){re.escape(result)}(?![.,]?\d)")
    return step[:start] + whole.sub(result[:-1] + digit, step[start:])
