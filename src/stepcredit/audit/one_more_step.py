"""What one more step would do to a response's advantage, under any method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from numpy.typing import NDArray
from torch import Tensor

from stepcredit.audit.credited_parts import Credited, parts_and_credits
from stepcredit.audit.step_credit import read_streams
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.metrics.advantage_statistics import first_token_advantages
from stepcredit.credit.metrics.signal_statistics import step_boundaries
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.forest import broadcast, offsets, previous_values
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps, Stream, TokenAdvantages

Floats = NDArray[np.float64]


def typical_step_size(rollouts: Rollouts) -> int:
    """Median tokens per step, rounded down; 1 where no steps are known.

    Example:
        >>> import stepcredit as sc
        >>> typical_step_size(sc.Rollouts([0], process=sc.Steps([[2, 5, 6]], [[1.0, 1.0, 1.0]])))
        3
    """
    ends = step_boundaries(rollouts)
    if ends is None:
        return 1
    return int((ends.values - previous_values(ends.values, ends.counts, -1)).median())


def with_one_more_step(
    rollouts: Rollouts, rows: Bool[Tensor, " rollout"], values: Mapping[str, float], tokens: int
) -> Rollouts:
    """The rollouts with one more step at the end of some responses.

    The new step has one score in a stream of steps, and one per token in a stream of tokens. A
    stream without a score for a response stays without. Log-probs, texts, masks and the states of
    steps are left out.

    Args:
        rollouts: the batch.
        rows: which responses get the step.
        values: by process stream, the score of the new step; ready-made advantages get 0.
        tokens: trained tokens of the new step, at least 1.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], process=sc.Steps([[1], [2]], [[0.5], [0.7]]))
        >>> longer = with_one_more_step(r, torch.tensor([True, False]), {"process": 0.9}, 3)
        >>> longer.lengths.tolist(), longer.streams["process"].ends.tolist()
        ([5, 3], [1, 4, 2])
    """
    more = rows.to(torch.int64)
    lengths = rollouts.lengths + more * tokens
    streams: dict[str, Stream] = {}
    for name, stream in rollouts.streams.items():
        extra = more * (stream.counts > 0)
        value = 0.0 if isinstance(stream, TokenAdvantages) else values.get(name, 0.0)
        if isinstance(stream, Steps):
            ends = _appended(stream.ends, stream.counts, extra, lengths - 1)
            scores = _appended(stream.values, stream.counts, extra, value)
            streams[name] = Steps._of(values=scores, ends=ends, counts=stream.counts + extra)
        else:
            scores = _appended(stream.values, stream.counts, extra * tokens, value)
            streams[name] = type(stream)._of(values=scores, counts=stream.counts + extra * tokens)
    ends_of = rollouts.step_ends
    if ends_of is not None:
        places = _appended(ends_of.values, ends_of.counts, more, lengths - 1)
        ends_of = Stream._of(values=places, counts=ends_of.counts + more)
    left_out: dict[str, Any] = {"logprobs": {}, "tokens": None, "response_mask": None}
    left_out |= {"step_states": None}
    return rollouts.replaced(lengths=lengths, streams=streams, step_ends=ends_of, **left_out)


def _appended(
    values: Tensor,
    counts: Int[Tensor, " row"],
    extra: Int[Tensor, " row"],
    value: float | Int[Tensor, " row"],
) -> Tensor:
    """Packed values with `extra` more at the end of each row: one number, or one per row."""
    total = counts + extra
    if isinstance(value, Tensor):
        found = broadcast(value.to(values.dtype), total)
    else:
        found = values.new_full((int(total.sum()),), value)
    starts = broadcast(offsets(total)[:-1] - offsets(counts)[:-1], counts)
    found[torch.arange(values.numel()) + starts] = values
    return found


@dataclass(frozen=True)
class StepLevels:
    """The scores that one more step is given, by stream.

    Args:
        worst, typical, best: the smallest score, the median and the largest of each stream.
    """

    worst: Mapping[str, float]
    typical: Mapping[str, float]
    best: Mapping[str, float]

    @classmethod
    def of(cls, rollouts: Rollouts) -> StepLevels:
        """The levels of all process streams that hold scores.

        Example:
            >>> import stepcredit as sc
            >>> steps = sc.Steps([[0, 1, 2]], [[0.5, 0.25, 1.0]])
            >>> StepLevels.of(sc.Rollouts([0], process=steps)).typical
            {'process': 0.5}
        """
        held = {name: stream.values for name, stream in process_signals(rollouts).items()}
        return cls(
            {name: float(values.min()) for name, values in held.items()},
            {name: float(values.median()) for name, values in held.items()},
            {name: float(values.max()) for name, values in held.items()},
        )

    def items(self) -> Iterator[tuple[str, Mapping[str, float]]]:
        """The levels, each with its name."""
        yield from (("worst", self.worst), ("typical", self.typical), ("best", self.best))


@dataclass(frozen=True, eq=False)
class StepPressure:
    """What one more step changes in the advantage of each response.

    Args:
        rows: the responses that have a process signal.
        changes: by level ("worst", "typical", "best"), the change of each response's advantage.
        spread: population std, over responses, of the advantages that change.
    """

    rows: NDArray[np.int64]
    changes: Mapping[str, Floats]
    spread: float


def step_pressure(method: Estimator, rollouts: Rollouts, levels: StepLevels) -> StepPressure:
    """The change of each response's advantage by one more step, the others of its group as logged.

        dA_i = A_i(first token) with the step - A_i(first token) without it

    The first token's advantage is the return over the whole response, in every method. Group
    statistics are computed anew with the step in them.

    Args:
        method: it reads a process stream, and no log-probs or texts; its clip is applied.
        rollouts: whole groups.
        levels: the scores that the step is given.

    Returns:
        No rows where no response has a process signal that the method reads.

    Raises:
        MethodError, RolloutError: as for the method.

    Example: every further step of a positive score pays under a plain sum.
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0, 1], [0]], [[0.5, 1.0], [0.5]]))
        >>> method = sc.PASS(k=0.0, operator="abs_max")
        >>> step_pressure(method, r, StepLevels.of(r)).changes["best"].tolist()
        [1.0, 1.0]
    """
    return step_pressures({"": method}, rollouts, levels)[""]


def step_pressures(
    methods: Mapping[str, Estimator], rollouts: Rollouts, levels: StepLevels
) -> dict[str, StepPressure]:
    """`step_pressure` of several methods, block by block of groups.

    Args:
        methods: by name, each as for `step_pressure`.
        rollouts: whole groups.
        levels: the scores that the step is given.
    """
    tokens = typical_step_size(rollouts)
    firsts = {name: _FirstTokens.empty(rollouts, levels) for name in methods}
    for part, rows, credits in parts_and_credits(methods, rollouts):
        _put_first_tokens(credits, part, levels, tokens, firsts, rows)
    return {
        name: firsts[name].pressure(_scored(read_streams(method, rollouts), rollouts))
        for name, method in methods.items()
    }


@dataclass(frozen=True, eq=False)
class _FirstTokens:
    """The advantage of each response's first token, as logged and with one more step.

    Args:
        before: as logged.
        after: by level, with one more step of this level's scores.
    """

    before: Float64[Tensor, " rollout"]
    after: Mapping[str, Float64[Tensor, " rollout"]]

    @classmethod
    def empty(cls, rollouts: Rollouts, levels: StepLevels) -> _FirstTokens:
        zeros = torch.zeros(rollouts.num_rollouts, dtype=torch.float64)
        return cls(zeros, {level: zeros.clone() for level, _ in levels.items()})

    def pressure(self, scored: Bool[Tensor, " rollout"]) -> StepPressure:
        """The changes of the scored responses."""
        before, rows = self.before[scored], scored.nonzero()[:, 0].numpy()
        changes = {level: (after[scored] - before).numpy() for level, after in self.after.items()}
        spread = float(before.std(correction=0)) if rows.size else 0.0
        return StepPressure(rows, changes, spread)


def _put_first_tokens(
    credits: Sequence[Credited],
    part: Rollouts,
    levels: StepLevels,
    tokens: int,
    firsts: Mapping[str, _FirstTokens],
    rows: Int[Tensor, " rollout"],
) -> None:
    """Fill in what methods give to some of the rows: whole groups, of which one response at a time
    gets the step.
    """
    turn = _place_in_group(part).masked_fill(~_scored(process_signals(part), part), -1)
    for credit in credits:
        for name, advantages in credit(part).items():
            firsts[name].before[rows] = first_token_advantages(advantages)
    for place in range(int(turn.max()) + 1):
        chosen = turn == place
        for level, values in levels.items():
            longer = with_one_more_step(part, chosen, values, tokens)
            for credit in credits:
                for name, advantages in credit(longer).items():
                    first = first_token_advantages(advantages)
                    firsts[name].after[level][rows[chosen]] = first[chosen]


def _scored(streams: Mapping[str, Stream], rollouts: Rollouts) -> Bool[Tensor, " rollout"]:
    """Which responses have a score of any of the streams."""
    scored = torch.zeros_like(rollouts.format_ok)
    for stream in streams.values():
        scored |= stream.counts > 0
    return scored


def _place_in_group(rollouts: Rollouts) -> Int[Tensor, " rollout"]:
    """The number of each response in its group, from 0."""
    order = rollouts.group_index.argsort(stable=True)
    sizes = rollouts.group_index.bincount()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - broadcast(offsets(sizes)[:-1], sizes)
    return place


def break_even_scores(pressure: StepPressure, levels: StepLevels, stream: str) -> Floats:
    """The score at which one more step leaves a response's advantage as it is.

        the zero of dA, interpolated between the worst, the typical and the best score

    Args:
        pressure: the changes at the three scores.
        levels: the three scores.
        stream: the process stream that is scored.

    Returns:
        One score per response whose change has a zero between worst and best, in the stream's unit.

    Example:
        >>> changes = {"worst": np.array([-1.0]), "typical": np.array([0.0])}
        >>> changes["best"] = np.array([2.0])
        >>> levels = StepLevels({"process": 0.0}, {"process": 0.5}, {"process": 1.0})
        >>> break_even_scores(StepPressure(np.array([0]), changes, 1.0), levels, "process").tolist()
        [0.5]
    """
    names = ("worst", "typical", "best")
    scores = [dict(levels.items())[name][stream] for name in names]
    found = np.full(len(pressure.rows), np.nan)
    for low, high in ((1, 2), (0, 1)):  # where both cross, the lower one stays
        first, second = pressure.changes[names[low]], pressure.changes[names[high]]
        crosses = (first <= 0) & (second >= 0) & (second > first)
        part = np.divide(-first, second - first, out=np.zeros_like(first), where=crosses)
        found = np.where(crosses, scores[low] + part * (scores[high] - scores[low]), found)
    return found[~np.isnan(found)]
