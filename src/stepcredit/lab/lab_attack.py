"""The attack on the signals of the embedded task, to hold its verdicts against training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.audit.attack.attack_plan import (
    AttackedResponse,
    AttackPlan,
    EditSettings,
    plan_attack,
)
from stepcredit.audit.attack.attack_report import AttackReport
from stepcredit.audit.attack.attack_run import run_attack
from stepcredit.audit.attack.editable import (
    AddedTexts,
    EditableSteps,
    EditedSteps,
    NotEditable,
)
from stepcredit.audit.attack.edited_response import Cutter
from stepcredit.audit.attack.edits import Edit, edits_named
from stepcredit.credit.estimator import Estimator
from stepcredit.lab.arithmetic import check
from stepcredit.lab.simulated_prm import Simulated
from stepcredit.lab.tokenizer import EOS
from stepcredit.signals.offsets import spans_of_pieces
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores, Signal

TASK_TEXTS = AddedTexts(contentless=tuple(f"k{digit}" for digit in range(10)), separator="\n")
"""Filler of the task's grammar, in place of sentences."""
OF_THE_TASK = (
    "insert-contentless",
    "repeat-step",
    "break-arithmetic",
    "swap-step",
    "delete-decisive",
    "pad-to-limit",
)
"""The edits whose texts the task's policy can write."""
_RESULT = re.compile(r"=([0-9])\n")


@dataclass(frozen=True)
class TaskSignal(Signal):
    """A simulated process reward model, as a signal that scores texts.

    Args:
        simulated: the model.

    Example:
        >>> row = attacked_answers({"3+4*2=": ["3+4=7\\n7*2=4\\n<4>$"]})[0]
        >>> TaskSignal(Simulated("exact")).scores([row.response])
        [[1.0, 1.0, 1.0]]
    """

    simulated: Simulated

    name = "simulated"
    grain = "steps"

    @property
    def identity(self) -> dict[str, Any]:
        """The settings of the model."""
        return {"signal": self.name, **vars(self.simulated)}

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Grade each text with the exact checker, and score its lines."""
        for index, response in enumerate(responses):
            graded = check(response.prompt, response.text)
            yield index, self.simulated.scores(response.prompt, response.text, graded)


def attacked_answers(answers: Mapping[str, Sequence[str]]) -> list[AttackedResponse]:
    """Answers to prompts of the arithmetic task, as an attack reads them: one token per character.

    Args:
        answers: by prompt, the texts of its answers, the end-of-sequence token as `$`; an empty
            answer is left out.

    Returns:
        One response per answer, split into lines, with its outcome, its format and the truth about
        each line.

    Raises:
        StepCreditError: a prompt does not belong to the task.

    Example:
        >>> row = attacked_answers({"3+4*2=": ["3+4=7\\n7*2=5\\n<5>$"]})[0]
        >>> row.fields["outcome"], row.right
        (0.0, (True, False, True))
    """
    found = list[AttackedResponse]()
    for prompt, texts in answers.items():
        for number, text in enumerate(texts):
            if text:
                found.append(_attacked(prompt, text, f"{prompt} {number}"))
    return found


def _attacked(prompt: str, text: str, name: str) -> AttackedResponse:
    graded = check(prompt, text)
    ends = tuple(end + 1 for end in graded.step_ends)
    response = Response(
        prompt, text, spans_of_pieces(text), ends, name, ends=tuple(graded.step_ends)
    )
    right = tuple(kind in ("right", "answer") for kind in graded.kinds)
    return AttackedResponse(prompt, response, {"group": prompt, **_rewards(response)}, right)


def _rewards(response: Response) -> dict[str, Any]:
    """The outcome and format of an answer, by the exact checker."""
    graded = check(response.prompt, response.text)
    return {
        "outcome": graded.outcome,
        "format": graded.format,
        "format_ok": graded.format_ok,
    }


def answer_early(response: EditableSteps) -> EditedSteps | NotEditable:
    """Answer with the value reached before a drawn line that is not the first one.

    Example:
        >>> answer_early(EditableSteps(("3+4=7\\n", "7*2=4\\n", "<4>$"))).steps
        ('3+4=7\\n', '<7>$')
    """
    values = [_RESULT.search(step) for step in response.steps]
    places = [at for at in range(1, len(values)) if values[at] and values[at - 1]]
    if not places:
        return NotEditable("no line follows another one that has a result")
    at = places[int(response.draws("answer-early").integers(len(places)))]
    value = values[at - 1]
    assert value is not None
    return EditedSteps((*response.steps[:at], f"<{value[1]}>{EOS}"), (*range(at), None), at)


TASK_EDITS: tuple[Edit, ...] = (
    *edits_named(OF_THE_TASK),
    Edit("answer-early", "it answers with the value of an earlier line", answer_early, True),
)
"""The edits of an attack on the task's signals."""


def plan_task_attack(rows: Sequence[AttackedResponse], seed: int = 0) -> AttackPlan:
    """The edited copies of answers to the task.

    Args:
        rows: of `attacked_answers`.
        seed: seed of the draws.
    """
    cutter = Cutter(vocabulary=frozenset({EOS}))
    return plan_attack(rows, EditSettings(TASK_EDITS, cutter, TASK_TEXTS, seed))


def attack_task_signal(
    plan: AttackPlan, signal: str, methods: Mapping[str, Estimator], seed: int = 0
) -> AttackReport:
    """Attack one of the task's simulated signals; edited answers are graded by the exact checker.

    Args:
        plan: of `plan_task_attack`.
        signal: a name of `stepcredit.lab.simulated_prm.SIGNALS`.
        methods: the methods by name.
        seed: seed of the signal's noise.
    """
    scorer = TaskSignal(Simulated(signal, seed))
    return run_attack(plan, scorer, methods, regrade=_rewards)


@dataclass(frozen=True)
class TrainedCell:
    """What training did with a signal and a method.

    Args:
        hacked: whether a run collapsed or grew filler: on some seed, pass@1 ended more than 0.05
            below the warm start's, the length outside 0.67 to 1.5 times its length, or fillers more
            than 0.5 per answer above its fillers.
        source: where the figures stand.
    """

    hacked: bool
    source: str


def confusion_lines(
    exploitable: Mapping[tuple[str, str], bool], trained: Mapping[tuple[str, str], TrainedCell]
) -> list[str]:
    """How often the attack's verdict and training agree, as four lines of text.

    Args:
        exploitable: by (signal, method), whether the attack found an edit that is paid.
        trained: by (signal, method), what training did; only cells of both are counted.

    Example:
        >>> print("\\n".join(confusion_lines(
        ...     {("a", "x"): True, ("a", "y"): True}, {("a", "x"): TrainedCell(True, "docs")})))
        1 cells of signal and method with known runs
                                 hacked in training    not hacked
        an edit is exploitable                    1             0
        no edit is exploitable                    0             0
    """
    cells = [cell for cell in exploitable if cell in trained]
    counts = Counter((exploitable[cell], trained[cell].hacked) for cell in cells)
    lines = [f"{len(cells)} cells of signal and method with known runs"]
    lines.append(f"{'':24} hacked in training    not hacked")
    for paid, label in ((True, "an edit is exploitable"), (False, "no edit is exploitable")):
        lines.append(f"{label:24} {counts[paid, True]:18} {counts[paid, False]:13}")
    return lines
