"""Reads a table of step ids: which steps have trained tokens, and where they end.

A step is a run of tokens, so everything is decided on runs of equal ids: a batch has some forty of
them per response, and thousands of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stepcredit.data.forest import group_sum, offsets, run_starts, true_places
from stepcredit.errors import RolloutError

PerRun = Int[Tensor, " run"]


@dataclass(frozen=True)
class IdRuns:
    """Runs of tokens of one row that have one step id and are all trained, or all not.

    Args:
        rows: the rollout of each run.
        ids: the step id of its tokens.
        trained: whether its tokens are trained.
        before: trained tokens of the rollout before the run.
    """

    rows: PerRun
    ids: PerRun
    trained: Bool[Tensor, " run"]
    before: PerRun

    @classmethod
    def of(
        cls,
        step_id: Int[Tensor, "rollout token"],
        trained: Bool[Tensor, "rollout token"],
        lengths: Int[Tensor, " rollout"],
    ) -> IdRuns:
        """The runs of a table, row after row; `lengths` are the trained tokens per rollout.

        Example:
            >>> ids, trained = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[1, 1, 1, 0]]).bool()
            >>> runs = IdRuns.of(ids, trained, torch.tensor([3]))
            >>> runs.ids.tolist(), runs.trained.tolist(), runs.before.tolist()
            ([0, 1, 1], [True, True, False], [0, 2, 3])
        """
        places = true_places(run_starts(step_id).logical_or_(run_starts(trained)))
        rows = places // trained.shape[1]
        is_trained = trained.flatten().index_select(0, places)
        ids = step_id.flatten().index_select(0, places).to(torch.int64)
        sizes = is_trained * places.diff(append=places.new_tensor([trained.numel()]))
        before = sizes.cumsum(0) - sizes - offsets(lengths).index_select(0, rows)
        return cls(rows, ids, is_trained, before)

    def where(self, chosen: Bool[Tensor, " run"]) -> IdRuns:
        """The chosen runs."""
        at = true_places(chosen)
        if at.numel() == chosen.numel():
            return self
        held = (self.rows, self.ids, self.trained, self.before)
        return IdRuns(*(values.index_select(0, at) for values in held))


@dataclass(frozen=True)
class StepPlaces:
    """The steps that have a trained token, rollout after rollout.

    Args:
        rows: the rollout of each step.
        ids: its id.
        ends: its last trained token, counted in trained tokens.
        counts: steps per rollout.
    """

    rows: Int[Tensor, " step"]
    ids: Int[Tensor, " step"]
    ends: Int[Tensor, " step"]
    counts: Int[Tensor, " rollout"]


def step_places(runs: IdRuns, lengths: Int[Tensor, " rollout"], steps: int) -> StepPlaces:
    """Where the steps end that have a trained token.

    A trained token outside all steps joins the step before it, or the first step of its rollout.
    So a step ends where the next one begins, and the last one with the rollout.

    Args:
        runs: the runs of step ids.
        lengths: trained tokens per rollout.
        steps: ids are below this number.

    Raises:
        RolloutError: ids of trained tokens that decrease, or lie outside -1..`steps` - 1.

    Example:
        >>> ids, trained = torch.tensor([[-1, 0, -1, 2]]), torch.ones(1, 4).bool()
        >>> runs = IdRuns.of(ids, trained, torch.tensor([4]))
        >>> step_places(runs, torch.tensor([4]), 3).ends.tolist()
        [2, 3]
    """
    _check_range(runs, steps)
    runs = runs.where(runs.trained & (runs.ids >= 0))
    _check_order(runs)
    begins = torch.ones_like(runs.trained)
    begins[1:] = ~_same_row(runs) | (runs.ids[1:] != runs.ids[:-1])
    first = runs.where(begins)
    ends = lengths.index_select(0, first.rows) - 1
    ends[:-1] = torch.where(_same_row(first), first.before[1:] - 1, ends[:-1])
    counts = group_sum(torch.ones_like(first.rows), first.rows, lengths.numel())
    return StepPlaces(first.rows, first.ids, ends, counts)


def _same_row(runs: IdRuns) -> Bool[Tensor, " run-1"]:
    """Whether each run but the first is of the same rollout as the run before it."""
    return runs.rows[1:] == runs.rows[:-1]


def _check_range(runs: IdRuns, steps: int) -> None:
    outside = runs.trained & ((runs.ids >= steps) | (runs.ids < -1))
    if bool(outside.any()):
        index = int(outside.nonzero()[0])
        reason = f"{int(runs.ids[index])} is outside -1..{steps - 1}"
        raise RolloutError(reason, row=int(runs.rows[index]), field="step_id")


def _check_order(runs: IdRuns) -> None:
    """Refuse ids of trained tokens that decrease; the runs are those of steps alone."""
    falls = _same_row(runs) & (runs.ids[1:] < runs.ids[:-1])
    if bool(falls.any()):
        row = int(runs.rows[1:][falls][0])
        raise RolloutError("step ids must not decrease", row=row, field="step_id")


def steps_left_out(runs: IdRuns, places: StepPlaces, steps: int) -> int:
    """The number of steps with a score that have tokens, but no trained one.

    Args:
        runs: the runs of step ids.
        places: the steps that have a trained token.
        steps: scores per rollout.

    Example:
        >>> ids, trained = torch.tensor([[0, 1, 2]]), torch.tensor([[True, False, True]])
        >>> lengths = torch.tensor([2])
        >>> runs = IdRuns.of(ids, trained, lengths)
        >>> steps_left_out(runs, step_places(runs, lengths, 3), 3)
        1
    """
    off = runs.where(~runs.trained & (runs.ids >= 0) & (runs.ids < steps))
    if not off.ids.numel():
        return 0
    shape = (places.counts.numel(), steps)
    lost = torch.zeros(shape, dtype=torch.bool, device=runs.rows.device)
    lost[off.rows, off.ids] = True
    lost[places.rows, places.ids] = False
    return int(lost.sum())
