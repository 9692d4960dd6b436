"""What an attack found, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepcredit.audit.attack.earnings import AttackVerdict, EarnedChange, attack_verdict
from stepcredit.audit.attack.edits import Edit

ATTACK_SCHEMA = "stepcredit.attack/1"
"""Name and version of the JSON that `AttackReport.as_dict` gives."""
AT_THE_EDIT = "at the edit"
"""The figure that decides a verdict: what the policy is paid where it writes the edit."""


@dataclass(frozen=True)
class AttackCost:
    """How much an attack scores.

    Args:
        originals: logged responses.
        edited: edited responses.
        steps: their steps together.
        tokens: their tokens together.

    Example:
        >>> print(AttackCost(100, 920, 5100, 81_000))
        1,020 responses to score: 100 logged and 920 edited, with 5,100 steps and 81,000 tokens
    """

    originals: int
    edited: int
    steps: int
    tokens: int

    def __str__(self) -> str:
        what = f"{self.originals:,} logged and {self.edited:,} edited"
        size = f"{self.steps:,} steps and {self.tokens:,} tokens"
        return f"{self.originals + self.edited:,} responses to score: {what}, with {size}"


@dataclass(frozen=True)
class EditEarnings:
    """What one edit earns.

    Args:
        edit: the edit.
        applied: responses that it was applied to and that were scored before and after it.
        left_out: why it was not measured on the others, and on how many.
        scores: change of the response's minimum, mean and sum of scores.
        advantages: by method, change of the response's "total" and "mean" advantage, and "at the
            edit": the mean advantage of the edited step, minus that of the step in its place
            before.
    """

    edit: Edit
    applied: int
    left_out: Mapping[str, int]
    scores: Mapping[str, EarnedChange | None]
    advantages: Mapping[str, Mapping[str, EarnedChange | None]]

    def verdict(self, method: str, figure: str = AT_THE_EDIT) -> AttackVerdict:
        """Whether the edit is paid under a method, by one of its figures.

        Args:
            method: a method of `advantages`.
            figure: "total", "mean" or "at the edit".
        """
        return attack_verdict(self.advantages[method][figure], harmful=self.edit.harmful)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        advantages = {
            method: _plain_changes(found) | {"verdict": self.verdict(method)}
            for method, found in self.advantages.items()
        }
        return {
            "edit": self.edit.name,
            "about": self.edit.about,
            "harmful": self.edit.harmful,
            "applied": self.applied,
            "left_out": dict(self.left_out),
            "scores": _plain_changes(self.scores),
            "advantages": advantages,
        }


@dataclass(frozen=True)
class AttackReport:
    """What an attack found.

    Args:
        signal: name of the signal.
        methods: names of the methods.
        cost: what was scored.
        groups: groups that were attacked.
        earnings: what each edit earns.
        unrun: methods that can't run on these responses, with the reason.
        responses: keys of the logged responses, as `response_key` gives them.
    """

    signal: str
    methods: Sequence[str]
    cost: AttackCost
    groups: int
    earnings: Sequence[EditEarnings]
    unrun: Mapping[str, str] = field(default_factory=dict)
    responses: Sequence[str] = ()

    def exploitable(self, method: str, figure: str = AT_THE_EDIT) -> list[str]:
        """The names of the edits that are paid under a method."""
        found = (e for e in self.earnings if e.verdict(method, figure) == "exploitable")
        return [earnings.edit.name for earnings in found]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, under the schema `ATTACK_SCHEMA`."""
        return {
            "schema": ATTACK_SCHEMA,
            "signal": self.signal,
            "methods": list(self.methods),
            "methods_left_out": dict(self.unrun),
            "cost": dict(vars(self.cost)),
            "groups": self.groups,
            "responses": list(self.responses),
            "verdict_by": AT_THE_EDIT,
            "edits": [earnings.as_dict() for earnings in self.earnings],
        }


def _plain_changes(changes: Mapping[str, EarnedChange | None]) -> dict[str, Any]:
    return {name: None if one is None else one.as_dict() for name, one in changes.items()}
