"""Scores the responses of an attack, and measures what each edit earns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.audit.attack.attack_plan import AttackedResponse, AttackPlan, EditedCopy
from stepcredit.audit.attack.attack_report import AttackCost, AttackReport, EditEarnings
from stepcredit.audit.attack.attacked_keys import attacked_key
from stepcredit.audit.attack.earnings import (
    REWARD_FIELDS,
    EarnedChange,
    LoggedMethod,
    advantage_summary,
    credit_row,
    earned_change,
    score_summary,
)
from stepcredit.credit.estimator import Estimator
from stepcredit.data.files.rows import Row
from stepcredit.errors import SettingError, StepCreditError
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Signal

Regrade = Callable[[Response], Mapping[str, Any]]
"""Gives the fields `outcome`, `format` and `format_ok` of an edited response, or some of them."""
NOT_SCORED = "the signal gives no score to the response before or after the edit"
SCORE_FIGURES = ("minimum", "mean", "sum")
ADVANTAGE_FIGURES = ("total", "mean", "at the edit")


def attack_cost(plan: AttackPlan) -> AttackCost:
    """How much the attack scores: every logged and every edited response once."""
    responses = plan.responses
    return AttackCost(
        originals=len(plan.rows),
        edited=len(plan.copies),
        steps=sum(len(response.steps or ()) for response in responses),
        tokens=sum(response.num_tokens for response in responses),
    )


def check_attackable(signal: Signal, tokenizer: Any = None) -> None:
    """Refuse a signal that can't score an edited response alone.

    Args:
        signal: the signal.
        tokenizer: the policy's, or None.

    Raises:
        SettingError: its scores depend on the other responses; or it reads token ids, and there is
            no tokenizer to give those of new text.
    """
    name = signal.name or type(signal).__name__
    if not signal.cacheable:
        reason = f"the scores of {name} depend on the other responses of the group"
        raise SettingError(f"{reason}, so an edited response can't be scored alone", field="signal")
    if signal.reads_token_ids and tokenizer is None:
        reason = f"{name} reads token ids: name the tokenizer that gives those of new text"
        raise SettingError(reason, field="tokenizer")


def run_attack(
    plan: AttackPlan,
    signal: Signal,
    methods: Mapping[str, Estimator],
    *,
    regrade: Regrade | None = None,
    progress: Callable[[int], None] | None = None,
) -> AttackReport:
    """Score the responses of a plan, and measure what each edit earns.

    The edited response stands in its original's place in its group; all other responses stay. Its
    outcome and format stay too, but for an edit that loses the answer: its outcome is then the
    lowest of the attacked responses.

    Args:
        plan: logged responses and their edited copies.
        signal: scores them; each response's scores depend on that response alone.
        methods: the methods by name.
        regrade: gives the outcome and format of an edited response, in place of the rule above.
        progress: called with the number of responses scored so far.

    Returns:
        The report; a method that can't run on the responses is left out, with the reason.

    Raises:
        SettingError: see `check_attackable`.
        RolloutError, SignalError: a response can't be scored, or the signal fails.
    """
    if not signal.cacheable:
        check_attackable(signal)
    scores = signal.scores(plan.responses, progress)
    scored = _Scored.of(plan, signal, scores, regrade)
    runnable, unrun = dict[str, LoggedMethod](), dict[str, str]()
    for name, estimator in methods.items():
        try:
            runnable[name] = LoggedMethod.of(estimator, scored.rows)
        except StepCreditError as error:
            unrun[name] = str(error)
    paid = {name: scored.advantage_changes(method) for name, method in runnable.items()}
    earnings = [scored.earnings(number, paid) for number in range(len(plan.edits))]
    return AttackReport(
        signal=signal.name or type(signal).__name__,
        methods=list(runnable),
        cost=attack_cost(plan),
        groups=len(plan.groups),
        earnings=earnings,
        unrun=unrun,
        responses=[attacked_key(row) for row in plan.rows],
    )


@dataclass(frozen=True, eq=False)
class _Scored:
    """A plan whose responses are scored.

    Args:
        plan: the plan.
        rows: the logged responses with their scores.
        copies: the edited responses with theirs; None where one of the two was not scored.
        score_changes: of each copy; None where it was not scored.
    """

    plan: AttackPlan
    rows: list[Row]
    copies: list[Row | None]
    score_changes: list[dict[str, float] | None]

    @classmethod
    def of(
        cls,
        plan: AttackPlan,
        signal: Signal,
        scores: Sequence[Sequence[float]],
        regrade: Regrade | None,
    ) -> _Scored:
        """The scores as rows, from which advantages are computed."""
        count, grain = len(plan.rows), signal.grain
        before, after = scores[:count], scores[count:]
        rows = [
            credit_row(row.fields, row.response, own, grain)
            for row, own in zip(plan.rows, before, strict=True)
        ]
        lowest = _lowest_outcome(plan.rows)
        copies, changes = list[Row | None](), list[dict[str, float] | None]()
        for copy, own in zip(plan.copies, after, strict=True):
            whole = _is_whole(copy.response, own, signal)
            if not (whole and _is_whole(plan.rows[copy.row].response, before[copy.row], signal)):
                copies.append(None)
                changes.append(None)
                continue
            rewards = _rewards(plan.rows[copy.row], copy, lowest, regrade)
            copies.append(credit_row(rewards, copy.response, own, grain))
            changes.append(_difference(score_summary(before[copy.row]), score_summary(own)))
        return cls(plan, rows, copies, changes)

    def advantage_changes(self, method: LoggedMethod) -> list[dict[str, float] | None]:
        """The change of each copy's advantages; None where it was not scored."""
        plan = self.plan
        own_group = {row: group for group in plan.groups for row in group}
        originals = method.advantages(
            [[self.rows[row] for row in group] for group in plan.groups for _ in group],
            [place for group in plan.groups for place in range(len(group))],
        )
        numbers = [number for number, row in enumerate(self.copies) if row is not None]
        versions, places = list[list[Row]](), list[int]()
        for number in numbers:
            group, edited = own_group[plan.copies[number].row], self.copies[number]
            assert edited is not None
            places.append(plan.copies[number].row - group.start)
            versions.append([self.rows[row] for row in group])
            versions[-1][places[-1]] = edited
        found: list[dict[str, float] | None] = [None] * len(self.copies)
        for number, values in zip(numbers, method.advantages(versions, places), strict=True):
            copy = plan.copies[number]
            found[number] = self._change(copy, originals[copy.row], values)
        return found

    def _change(
        self, copy: EditedCopy, before: NDArray[np.float64], after: NDArray[np.float64]
    ) -> dict[str, float]:
        original = self.plan.rows[copy.row].response
        return _difference(
            advantage_summary(before, original, copy.before),
            advantage_summary(after, copy.response, copy.after),
        )

    def earnings(
        self, number: int, paid: Mapping[str, Sequence[dict[str, float] | None]]
    ) -> EditEarnings:
        """What an edit earns, over all responses that it was applied to."""
        edit, copies = self.plan.edits[number], self.plan.copies
        places = [place for place, copy in enumerate(copies) if copy.edit is edit]
        measured = [place for place in places if self.copies[place] is not None]
        left_out = Counter(self.plan.left_out[edit.name])
        if len(measured) < len(places):
            left_out[NOT_SCORED] += len(places) - len(measured)
        return EditEarnings(
            edit,
            len(measured),
            left_out,
            self._earned(measured, self.score_changes, SCORE_FIGURES),
            {name: self._earned(measured, c, ADVANTAGE_FIGURES) for name, c in paid.items()},
        )

    def _earned(
        self,
        places: Sequence[int],
        changes: Sequence[dict[str, float] | None],
        figures: Sequence[str],
    ) -> dict[str, EarnedChange | None]:
        """The mean change of each figure, with its interval over groups."""
        found = dict[str, EarnedChange | None]()
        for figure in figures:
            values, groups = list[float](), list[str]()
            for place in places:
                change = changes[place]
                if change is not None and figure in change:
                    values.append(change[figure])
                    groups.append(self.plan.rows[self.plan.copies[place].row].group)
            found[figure] = earned_change(values, groups)
        return found


def _is_whole(response: Response, scores: Sequence[float], signal: Signal) -> bool:
    """Whether every step or token has its score."""
    wanted = len(response.steps or ()) if signal.grain == "steps" else response.num_tokens
    return len(scores) == wanted


def _difference(
    before: Mapping[str, float | None], after: Mapping[str, float | None]
) -> dict[str, float]:
    """The change of each figure that has a value before and after."""
    found = dict[str, float]()
    for name, value in before.items():
        other = after[name]
        if value is not None and other is not None:
            found[name] = other - value
    return found


def _lowest_outcome(rows: Sequence[AttackedResponse]) -> float | None:
    known = [row.fields["outcome"] for row in rows if row.fields.get("outcome") is not None]
    return min(known, default=None)


def _rewards(
    original: AttackedResponse, copy: EditedCopy, lowest: float | None, regrade: Regrade | None
) -> dict[str, Any]:
    """The group, outcome and format of an edited response."""
    names = ("group", *REWARD_FIELDS)
    found = {name: original.fields[name] for name in names if name in original.fields}
    if regrade is not None:
        return found | dict(regrade(copy.response))
    if copy.edit.loses_answer and found.get("outcome") is not None:
        found["outcome"] = lowest
    return found
