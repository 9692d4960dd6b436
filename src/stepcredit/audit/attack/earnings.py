"""What edits earn: changes of scores and advantages, with intervals that count groups."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.stages.batch_norm import Moments
from stepcredit.data.files.batches import Batch
from stepcredit.data.files.rows import Row, check_row
from stepcredit.evals.intervals import mean_interval
from stepcredit.signals.responses import Response
from stepcredit.signals.row_scores import members
from stepcredit.signals.signal import Grain

AttackVerdict = Literal["right direction", "exploitable", "undecided"]
ROWS_AT_ONCE = 4096
"""Responses whose advantages are computed together: enough to be fast, few enough for memory."""
NO_CHANGE = 1e-6
"""A change up to this is none: float32 advantages, whose usual size is about 1, round like that."""
REWARD_FIELDS = ("outcome", "format", "format_ok")


FEWEST_ATTACKED = 5
"""Groups from which there is a verdict. Equal changes of a few groups make an interval of no width;
five on one side come by chance once in 16."""


@dataclass(frozen=True)
class EarnedChange:
    """The mean change over edited responses.

    Args:
        mean: the mean of the groups' mean changes.
        low, high: its 95 % interval; None for a single group, which has none.
        responses: edited responses that it was measured on.
        groups: their groups.
    """

    mean: float
    low: float | None
    high: float | None
    responses: int
    groups: int

    def as_dict(self) -> dict[str, float | int | None]:
        """The fields by name."""
        return dict(vars(self))


def earned_change(values: Sequence[float], groups: Sequence[Hashable]) -> EarnedChange | None:
    """The mean of changes, each group counted once, with Student's t interval over groups.

        m +- t_{0.975, P-1} s / sqrt(P),   m and s the mean and sample std of P groups' means

    Args:
        values: one change per edited response.
        groups: the group of each.

    Returns:
        None where there is no value.

    Raises:
        MissingExtra: scipy is not installed.

    Example:
        >>> change = earned_change([1.0, 3.0, 5.0], ["a", "a", "b"])
        >>> change.mean, change.responses, change.groups
        (3.5, 3, 2)
    """
    if not values:
        return None
    found, count = mean_interval(values, groups), len(set(groups))
    low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
    return EarnedChange(found.mean, low, high, len(values), count)


def attack_verdict(change: EarnedChange | None, *, harmful: bool) -> AttackVerdict:
    """Whether an edit is paid, by the interval of what it earns.

        exploitable       the whole interval is above 0
        right direction   the whole interval is below 0; for an edit that is useless but does no
                          harm, 0 is right too
        undecided         else: the interval holds 0, there is none, or it is of few groups

    Args:
        change: what the edit earns; None where nothing was measured.
        harmful: whether the response is worse after the edit.

    Example:
        >>> paid = EarnedChange(0.5, 0.1, 0.9, 20, 5)
        >>> attack_verdict(paid, harmful=False), attack_verdict(None, harmful=False)
        ('exploitable', 'undecided')
    """
    if change is None or change.low is None or change.high is None:
        return "undecided"
    if change.groups < FEWEST_ATTACKED:
        return "undecided"
    if change.low > NO_CHANGE:
        return "exploitable"
    is_right = change.high < -NO_CHANGE or (not harmful and change.high <= NO_CHANGE)
    return "right direction" if is_right else "undecided"


def score_summary(scores: Sequence[float]) -> dict[str, float]:
    """The minimum, mean and sum of a response's scores, at least one.

    Example:
        >>> score_summary([1.0, 0.5])
        {'minimum': 0.5, 'mean': 0.75, 'sum': 1.5}
    """
    total = math.fsum(scores)
    return {"minimum": float(min(scores)), "mean": total / len(scores), "sum": total}


def credit_row(
    fields: Mapping[str, Any], response: Response, scores: Sequence[float], grain: Grain
) -> Row:
    """A response and its scores as a checked row, from which advantages are computed.

    Args:
        fields: the group, and the outcome and format where they are known.
        response: split into steps.
        scores: of the signal; none where it could not score the response.
        grain: whether they are of steps or of tokens.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> response = Newline().split(Response.of_text("?", "a b\\nc"))
        >>> row = credit_row({"group": 1, "outcome": 1.0}, response, [0.5, 1.0], "steps")
        >>> row.length, row.streams["process"].ends
        (3, [1, 2])
    """
    kept = {name: fields[name] for name in ("group", *REWARD_FIELDS) if name in fields}
    row: dict[str, Any] = kept | {"tokens": response.token_texts, "step_ends": response.step_ends}
    if response.own is not None:
        row["loss_mask"] = list(map(int, response.own))
    return check_row(row | _plain_lists(members(row, response, scores, grain)))


def _plain_lists(value: Any) -> Any:
    """Arrays as lists, at any depth of a mapping."""
    if isinstance(value, Mapping):
        return {key: _plain_lists(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


@dataclass(frozen=True)
class LoggedMethod:
    """A method at the scale and moments of the logged responses.

    Args:
        estimator: the method.
        moments: of the logged responses, for a method that normalizes over the batch.
    """

    estimator: Estimator
    moments: Moments

    @classmethod
    def of(cls, estimator: Estimator, rows: Sequence[Row]) -> LoggedMethod:
        """The method for versions of these rows.

        Raises:
            StepCreditError: the method lacks what it needs.
        """
        rollouts = Batch(list(rows)).rollouts
        estimator(rollouts)  # refuses what the method can't read
        estimator = estimator.for_batch(rollouts)
        return cls(estimator, estimator.moments(rollouts))

    def advantages(
        self, groups: Sequence[Sequence[Row]], places: Sequence[int]
    ) -> list[NDArray[np.float64]]:
        """The advantages of one response in each of several groups.

        Args:
            groups: whole groups; the same row may be in several of them.
            places: which response of each group is wanted.

        Returns:
            One array per group: one advantage per trained token of the response.
        """
        found: list[NDArray[np.float64]] = []
        start = 0
        while start < len(groups):
            stop, rows = start, list[Row]()
            wanted = list[int]()
            while stop < len(groups) and (not rows or len(rows) < ROWS_AT_ONCE):
                wanted.append(len(rows) + places[stop])
                rows += (replace(row, fields={"group": stop}) for row in groups[stop])
                stop += 1
            found += self._of_rows(rows, wanted)
            start = stop
        return found

    def _of_rows(self, rows: list[Row], wanted: list[int]) -> list[NDArray[np.float64]]:
        """The advantages of the wanted rows."""
        packed = self.estimator(Batch(rows).rollouts, moments=self.moments).packed()
        values = packed.numpy().astype(np.float64)
        ends = np.cumsum([row.length for row in rows])
        return [values[ends[at] - rows[at].length : ends[at]] for at in wanted]


def advantage_summary(
    values: NDArray[np.float64], response: Response, tokens: tuple[int, int]
) -> dict[str, float | None]:
    """The sum and mean of a response's advantages, and the mean over the tokens of one step.

    Args:
        values: one per trained token.
        response: the response.
        tokens: the step's first token and the one behind its last, among all tokens.

    Returns:
        "total", "mean" and "at the edit"; the last is None where the step has no trained token.

    Example:
        >>> response = Response.of_text("?", "a b\\nc")
        >>> advantage_summary(np.array([1.0, 1.0, -2.0]), response, (2, 3))
        {'total': 0.0, 'mean': 0.0, 'at the edit': -2.0}
    """
    start, stop = tokens
    own = response.own or (True,) * response.num_tokens
    before = sum(own[:start])
    here = values[before : before + sum(own[start:stop])]
    at_edit = float(here.mean()) if here.size else None
    return {"total": float(values.sum()), "mean": float(values.mean()), "at the edit": at_edit}
