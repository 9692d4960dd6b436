"""`Rollouts`: a batch of sampled responses with their scores and rewards, checked on creation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from stepcredit.data.batch_streams import (
    BatchStreams,
    check_fit,
    check_lengths,
    check_row_counts,
    response_mask,
    trained_lengths,
)
from stepcredit.data.forest import all_true, group_sum, offsets, to_dense, true_counts
from stepcredit.data.inputs import (
    Process,
    RolloutValues,
    Scalars,
    check_whole_groups,
    flags_of,
    group_rows,
    named_logprobs,
    named_streams,
    rollout_values,
    step_ends_stream,
    texts_of,
)
from stepcredit.data.packing import Rows, row_numbers, whole_number
from stepcredit.data.padded import read_padded
from stepcredit.data.rules import counted
from stepcredit.data.states import StepKeys, StepStates, states_of
from stepcredit.data.streams import Stream, Tokens
from stepcredit.data.trajectories import Names, Trajectories, flat, trajectories_of
from stepcredit.errors import RolloutError


@dataclass(frozen=True, init=False, eq=False)
class Rollouts:
    """Groups of responses with their process, outcome and format signals.

    Args:
        group: the prompt that each rollout answers: one label or integer per rollout. The rows of a
            group may stand anywhere. Labels 3 and "3" are the same group.
        lengths: trained tokens per rollout; may be left out where another argument implies them.
        process: one stream (it is then named "process") or {name: stream}.
        outcome: one number per rollout, None in a list where it is unknown. It is known for all
            rollouts of a group or for none of it.
        format: the format reward, as `outcome`.
        format_ok: whether each response kept its format; all True where left out.
        logprobs: {"student" | "teacher" | "base" | "prm" | "ref": one log-prob per trained token}.
        step_ends: where steps end, for signals that have no step ends themselves.
        tokens: the texts of the trained tokens, for chunkers that read text.
        left_out: how many steps without a trained token were left out before, with their scores;
            `explain` prints it. It is a count of the batch: `take` and `blocks` keep it.
        mask: which tokens of each response are trained, True or nonzero: a list with one row of
            flags per response, or a (rollout, token) tensor or array, which may be padded on the
            right. With a mask, `process`, `logprobs`, `step_ends` and `tokens` count all tokens of
            the response, those of tools included. They are changed to trained tokens here; a step
            without a trained token is left out with its score, and counted in `left_out`. None: all
            tokens are trained.
        step_states: the state that each step was taken in, for methods that compare the steps of a
            group that were taken in the same state. A list per rollout (None or [] = not known)
            with one key per step, or with a list of keys per step, from the finest to the coarsest;
            a key is a string or an integer, and 1 and "1" are the same. Or a packed tensor of
            integers, (step,) or (step, level). The steps are those of `step_ends`, or else of the
            stream "process", or of the only stream of steps. Steps that share a state share the
            coarser ones too; equal keys of different groups are different states.
        trajectory: which rollouts are the parts of one trajectory, such as the sequences before and
            after a context was compacted, or those of an agent and its sub-agents. One name per
            rollout: rollouts of one group with the same name are its parts, in their order; None in
            a list, or a name that no other rollout of the group has, is a whole trajectory. A name
            is a string or an integer, and 1 and "1" are the same; equal names in different groups
            are different trajectories. The parts are credited as one response: it is one member of
            its group, its steps follow one another, and no chunk spans two parts. Outcome, format
            and `format_ok` are equal on all parts; a part whose outcome or format is unknown takes
            that of the others. A stream is given for all parts or for none.

    Tensors and arrays are held, not copied, if their dtype and layout allow it: writing into one
    later changes the rollouts without a check, so give a clone of a buffer that is used again.
    Lists are copied, and their values are on the CPU. Where streams are on several devices, all are
    moved to the first accelerator among them. A masked value of a `numpy.ma` array is an unknown
    outcome or format; anywhere else it is refused.

    Raises:
        RolloutError: rows that break a rule; it carries the row and the field.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=["q", "q"], process=sc.Steps([[1, 4], [2]], [[0.9, 0.6], [0.2]]),
        ...                 outcome=[1.0, 0.0])
        >>> r
        Rollouts(2 responses in 1 group, 8 tokens; process: steps, outcome)
        >>> tool = sc.Rollouts(["q"], process=sc.Steps([[1, 3, 4]], [[0.9, 0.5, 0.2]]),
        ...                    mask=[[1, 1, 0, 0, 1]])
        >>> tool.streams["process"].ends.tolist(), tool.lengths.tolist(), tool.left_out
        ([1, 2], [3], 1)
    """

    group_index: Int[Tensor, " rollout"]
    group_labels: list[str | int]
    lengths: Int[Tensor, " rollout"]
    streams: dict[str, Stream]
    logprobs: dict[str, Tokens]
    outcomes: RolloutValues
    formats: RolloutValues
    format_ok: Bool[Tensor, " rollout"]
    step_ends: Stream | None
    tokens: list[list[str]] | None
    left_out: int
    response_mask: Stream | None
    step_states: StepStates | None
    trajectories: Trajectories | None
    part_ends: Stream | None

    def __init__(
        self,
        group: Sequence[Any] | Tensor | np.ndarray,
        lengths: Sequence[int] | Tensor | None = None,
        process: Process | None = None,
        outcome: Scalars | None = None,
        format: Scalars | None = None,
        format_ok: Sequence[bool] | Tensor | None = None,
        logprobs: Mapping[str, Tokens | Rows] | None = None,
        step_ends: Rows | Stream | None = None,
        tokens: Sequence[Sequence[str] | None] | None = None,
        left_out: int = 0,
        mask: Any = None,
        step_states: StepKeys | None = None,
        trajectory: Names | None = None,
    ) -> None:
        texts = texts_of(tokens)
        given = BatchStreams(
            named_streams(process), named_logprobs(logprobs), step_ends_stream(step_ends), texts
        )
        labels, index = group_rows(group)
        count = index.numel()
        check_row_counts(count, given)
        if step_states is not None:
            states = states_of(step_states, given.steps(), index, len(labels))
            given = replace(given, states=states)
        left_out = whole_number(left_out, "left_out")
        flags = None
        if mask is None:
            streams = given.on(given.device)
            size = trained_lengths(lengths, count, streams)
            check_fit(size, streams)
        else:
            streams = given.on(given.device_beside(mask))
            flags = response_mask(mask, count, streams)
            size = flags.counts
            if not all_true(flags.values):
                trained = to_dense(flags.values, flags.counts)
                streams, size = streams.to_trained(trained), true_counts(trained)
                left_out += given.num_steps() - streams.num_steps()
            check_lengths(lengths, size)
        parts = trajectories_of(trajectory, index)
        index = index.to(size.device)
        if parts is not None:
            parts = parts.to(size.device)
            parts.check_streams(streams)
        outcomes = _of_groups(outcome, index, len(labels), "outcome", parts)
        formats = _of_groups(format, index, len(labels), "format", parts)
        ok = flags_of(format_ok, count, size.device)
        if parts is not None:
            parts.check_equal(ok, "format_ok")
        self._set(
            group_index=index,
            group_labels=labels,
            lengths=size,
            streams=streams.streams,
            logprobs=streams.logprobs,
            outcomes=outcomes,
            formats=formats,
            format_ok=ok,
            step_ends=streams.step_ends,
            tokens=streams.tokens,
            left_out=left_out,
            response_mask=flags,
            step_states=streams.states,
            trajectories=parts,
            part_ends=None,
        )

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def _of(cls, **fields: Any) -> Rollouts:
        """Rollouts of fields that are checked already; all of them must be given."""
        rollouts = cls.__new__(cls)
        rollouts._set(**fields)
        return rollouts

    @property
    def num_rollouts(self) -> int:
        """Number of rollouts in the batch."""
        return self.group_index.numel()

    @property
    def num_groups(self) -> int:
        """Number of groups in the batch."""
        return len(self.group_labels)

    @property
    def device(self) -> torch.device:
        """Where the batch's tensors are."""
        return self.group_index.device

    @property
    def outcome(self) -> Float[Tensor, " rollout"]:
        """Outcome of each rollout, 0 where unknown."""
        return self.outcomes.values

    @property
    def has_outcome(self) -> Bool[Tensor, " rollout"]:
        """True where the outcome is known."""
        return self.outcomes.known

    @property
    def format(self) -> Float[Tensor, " rollout"]:
        """Format reward of each rollout, 0 where unknown."""
        return self.formats.values

    @property
    def has_format(self) -> Bool[Tensor, " rollout"]:
        """True where the format reward is known."""
        return self.formats.known

    @cached_property
    def even_group_size(self) -> int | None:
        """Rows per group, where all groups have equally many and stand in the order of their index.

        Example:
            >>> Rollouts(["a", "a", "b", "b"], [1, 1, 1, 1]).even_group_size
            2
            >>> Rollouts(["a", "a", "b"], [1, 1, 1]).even_group_size is None
            True
        """
        size, rest = divmod(self.num_rollouts, self.num_groups)
        if rest:
            return None
        each = torch.arange(self.num_groups, device=self.device).unsqueeze(1)
        return size if all_true(self.group_index.view(-1, size) == each) else None

    @property
    def group_order(self) -> Int[Tensor, " rollout"] | None:
        """Row numbers that bring the rows of each group together; None: they are together.

        Example:
            >>> Rollouts(["a", "b", "a"], [1, 1, 1]).group_order.tolist()
            [0, 2, 1]
        """
        index = self.group_index
        if self.even_group_size or not bool((index[1:] < index[:-1]).any()):
            return None
        return index.argsort(stable=True)

    def with_streams(self, streams: Mapping[str, Stream]) -> Rollouts:
        """The same rollouts with other process streams, checked as at construction.

        Args:
            streams: {name: stream}, over trained tokens.

        Raises:
            RolloutError: a stream that does not fit the lengths.
        """
        given = BatchStreams(named_streams(streams), {}).on(self.device)
        check_row_counts(self.num_rollouts, given)
        check_fit(self.lengths, given)
        if self.trajectories is not None:
            self.trajectories.check_streams(given)
        return self.replaced(streams=given.streams)

    def replaced(self, **changes: Any) -> Rollouts:
        """The same rollouts with other fields; the changes are not checked."""
        fields = {name: getattr(self, name) for name in Rollouts.__dataclass_fields__}
        return Rollouts._of(**fields | changes)

    def take(self, rows: Sequence[int] | Sequence[bool] | Tensor | np.ndarray) -> Rollouts:
        """The given rollouts in the given order; groups get new numbers by first appearance.

        Args:
            rows: numbers of rollouts, from 0, in any order and with repetitions, or one flag per
                rollout.

        Raises:
            RolloutError: a number outside the rollouts, another number of flags than of rollouts,
                or no rollout at all.

        Example:
            >>> r = Rollouts(group=["a", "b"], lengths=[2, 3])
            >>> r.take([1]).group_labels, r.take([True, False]).group_labels
            (['b'], ['a'])
        """
        taken = row_numbers(rows, self.num_rollouts).to(self.device)
        if not taken.numel():
            raise RolloutError("expected at least one rollout, got none", field="rows")
        taken_labels = [self.group_labels[g] for g in self.group_index[taken].tolist()]
        labels, index = group_rows(taken_labels)
        return self.replaced(
            group_index=index.to(self.device),
            group_labels=labels,
            lengths=self.lengths[taken],
            **self._each_stream(lambda stream: stream._taken(taken)),
            outcomes=self.outcomes.take(taken),
            formats=self.formats.take(taken),
            format_ok=self.format_ok[taken],
            tokens=None if self.tokens is None else [self.tokens[i] for i in taken.tolist()],
            trajectories=None if self.trajectories is None else self.trajectories.take(taken),
        )

    def joined(self) -> Rollouts:
        """One rollout per trajectory: what methods are given, and metrics describe.

        The tokens and steps of a trajectory's parts follow one another, and `part_ends` says where
        each part ends. Rollouts without trajectories of several parts are returned as they are.

        Example:
            >>> from stepcredit.data.streams import Steps
            >>> steps = Steps([[0, 1], [2], [0]], [[0.5, 1.0], [0.25], [0.75]])
            >>> r = Rollouts(["q"] * 3, process=steps, trajectory=["a", "a", "b"])
            >>> whole = r.joined()
            >>> whole.lengths.tolist(), whole.streams["process"].ends.tolist()
            ([5, 1], [0, 1, 4, 0])
            >>> whole.part_ends.values.tolist(), whole.part_ends.counts.tolist()
            ([1, 4, 0], [2, 1])
        """
        parts, lengths = self.trajectories, self.lengths
        if parts is None:
            return self
        streams = self._each_stream(lambda stream: parts.join(stream, lengths))
        if self.step_ends is not None:
            streams["step_ends"] = parts.join_ends(self.step_ends, lengths)
        return self.replaced(
            group_index=self.group_index[parts.first],
            lengths=group_sum(lengths, parts.of_row, parts.count),
            **streams | {"part_ends": parts.ends(lengths)},
            outcomes=self.outcomes.take(parts.first),
            formats=self.formats.take(parts.first),
            format_ok=self.format_ok[parts.first],
            tokens=None if self.tokens is None else parts.join_lists(self.tokens, flat),
            trajectories=None,
        )

    def _each_stream(self, change: Callable[[Stream], Any]) -> dict[str, Any]:
        """The fields that hold packed streams, each stream changed, always in the same order."""
        ends, states, mask = self.step_ends, self.step_states, self.response_mask
        parts = self.part_ends
        return {
            "streams": {name: change(stream) for name, stream in self.streams.items()},
            "logprobs": {name: change(stream) for name, stream in self.logprobs.items()},
            "step_ends": None if ends is None else change(ends),
            "step_states": None if states is None else change(states),
            "part_ends": None if parts is None else change(parts),
            "response_mask": None if mask is None else change(mask),
        }

    def to(self, device: torch.device | str) -> Rollouts:
        """The same rollouts on another device."""
        names = ("group_index", "lengths", "format_ok")
        moved = {name: getattr(self, name).to(device) for name in names}
        return self.replaced(
            **moved,
            **self._each_stream(lambda stream: stream.to(device)),
            outcomes=self.outcomes.to(device),
            formats=self.formats.to(device),
            trajectories=None if self.trajectories is None else self.trajectories.to(device),
        )

    def blocks(self, budget: float) -> Iterator[Rollouts]:
        """Cut into runs of whole groups of about `budget` values each, views of the same tensors.

        All groups of a block have the same process streams, and the block's `streams` holds no
        others, so a group's result does not depend on the streams of other groups. The rows of each
        group must stand together, and the groups in the order of their index.
        """
        packed: list[Stream] = []
        self._each_stream(packed.append)
        if all(stream.values.numel() <= budget for stream in packed) and all(
            stream.scores_every_rollout for stream in self.streams.values()
        ):
            yield self
            return
        sizes = [offsets(stream.counts).cpu().numpy() for stream in packed]
        starts = np.searchsorted(self.group_index.cpu().numpy(), np.arange(self.num_groups + 1))
        counted = sizes if self.response_mask is None else sizes[:-1]
        for first, last in _group_runs(starts, counted, len(self.streams), budget):
            yield self._cut(first, last, starts, sizes)

    def _cut(self, first: int, last: int, starts: np.ndarray, sizes: list[np.ndarray]) -> Rollouts:
        rows = slice(int(starts[first]), int(starts[last]))
        spans = iter([slice(int(size[rows.start]), int(size[rows.stop])) for size in sizes])
        cut = self._each_stream(lambda stream: stream.cut(rows, next(spans)))
        held = {name: stream for name, stream in cut["streams"].items() if stream.values.numel()}
        return self.replaced(
            group_index=self.group_index[rows] - first,
            group_labels=self.group_labels[first:last],
            lengths=self.lengths[rows],
            **cut | {"streams": held},
            outcomes=self.outcomes.take(rows),
            formats=self.formats.take(rows),
            format_ok=self.format_ok[rows],
            tokens=None if self.tokens is None else self.tokens[rows],
        )

    @classmethod
    def from_padded(
        cls,
        mask: Shaped[Tensor, "rollout token"],
        group: Sequence[Any] | Tensor | np.ndarray,
        step_id: Int[Tensor, "rollout token"] | None = None,
        step_scores: Float[Tensor, "rollout step"] | None = None,
        token_scores: Float[Tensor, "rollout token"] | None = None,
        outcome: Scalars | None = None,
        format: Scalars | None = None,
        format_ok: Sequence[bool] | Tensor | None = None,
        process: Process | None = None,
        logprobs: Mapping[str, Float[Tensor, "rollout token"]] | None = None,
        tokens: Sequence[Sequence[str] | None] | None = None,
        step_states: StepKeys | None = None,
        trajectory: Names | None = None,
    ) -> Rollouts:
        """Rollouts from a trainer's padded tensors, padded on either side and with tool output.

        Every table may also be an array, or a list of lists of one length. All are read on the
        mask's device.

        Args:
            mask: nonzero where a token is trained; values of floats and lists must be 0 or 1.
            group: the prompt that each rollout answers.
            step_id: the step that each token belongs to, an index into its row of `step_scores`; -1
                for a token outside all steps. Along the trained tokens it may not decrease. A
                trained token outside all steps joins the step before it, or the first step if there
                is none before. A step without a trained token is left out with its score, and
                counted in `left_out`; a rollout without any step has no such score. Without
                `step_scores` it says where steps end, for the other streams.
            step_scores: one score per step; the stream "process".
            token_scores: or one score per token, read where the mask is set.
            outcome, format, format_ok: one per rollout, as for `Rollouts`.
            process: further streams, over trained tokens, as for `Rollouts`.
            logprobs: {"student" | "teacher" | ...: one log-prob per token, read where the mask is
                set}.
            tokens: the text of every token of the mask's width, read where the mask is set.
            step_states: the states that the steps were taken in, as for `Rollouts`: one list per
                rollout, or a (rollout, step) or (rollout, step, level) table of integers. `step_id`
                is an index into its row too.
            trajectory: which rollouts are the parts of one trajectory, as for `Rollouts`.

        Returns:
            Rollouts on the mask's device; `estimator(rollouts).padded(mask)` goes back.

        Raises:
            RolloutError: shapes that differ, step ids that decrease or lie outside `step_scores`.

        Example:
            >>> ids, scores = torch.tensor([[-1, 0, 0, 1]]), torch.tensor([[0.9, 0.2]])
            >>> mask = torch.tensor([[0, 1, 1, 1]])
            >>> r = Rollouts.from_padded(mask, group=[7], step_id=ids, step_scores=scores)
            >>> r.streams["process"].ends.tolist(), r.lengths.tolist()
            ([1, 2], [3])
        """
        read = read_padded(
            mask, group, step_id, step_scores, token_scores, process, logprobs, tokens, step_states
        )
        streams = read.streams
        return cls(
            read.group,
            read.lengths,
            streams.streams,
            outcome,
            format,
            format_ok,
            logprobs=streams.logprobs,
            step_ends=streams.step_ends,
            tokens=streams.tokens,
            left_out=read.left_out,
            step_states=read.step_states,
            trajectory=trajectory,
        )

    def __repr__(self) -> str:
        """Sizes and what the rollouts hold, on one line.

        Example:
            >>> Rollouts(group=["a", "a"], lengths=[2, 3], outcome=[1.0, 0.0])
            Rollouts(2 responses in 1 group, 5 tokens; outcome)
        """
        held = [f"{name}: {stream.kind}" for name, stream in self.streams.items()]
        held += [f"{name}_logprobs" for name in self.logprobs]
        held += ["step states"] * (self.step_states is not None)
        held += ["outcome"] * bool(self.has_outcome.any()) + ["format"] * bool(
            self.has_format.any()
        )
        responses = counted(self.num_rollouts, "response")
        if self.trajectories is not None:
            whole = self.trajectories.count
            responses += f" of {whole:,} {'trajectory' if whole == 1 else 'trajectories'}"
        groups, tokens = counted(self.num_groups, "group"), int(self.lengths.sum())
        size = f"{responses} in {groups}, {counted(tokens, 'token')}"
        return f"Rollouts({'; '.join([size, ', '.join(held)] if held else [size])})"


def _of_groups(
    given: Scalars | None, group: Tensor, groups: int, field: str, parts: Trajectories | None
) -> RolloutValues:
    """Outcome or format: one number per trajectory, known for whole groups."""
    values = rollout_values(given, group, field)
    values = values if parts is None else parts.agreed(values, field)
    check_whole_groups(values, group, groups, field)
    return values


def _group_runs(
    starts: np.ndarray, sizes: list[np.ndarray], streams: int, budget: float
) -> Iterator[tuple[int, int]]:
    """First and last group of each block: as many groups as fit the budget, at least one."""
    last_group = len(starts) - 1
    ends = np.max([size[starts] for size in sizes], axis=0) if sizes else np.zeros(last_group + 1)
    held = np.array([np.diff(size[starts]) > 0 for size in sizes[:streams]]).reshape(
        streams, last_group
    )
    changes = np.flatnonzero((held[:, 1:] != held[:, :-1]).any(axis=0)) + 1
    first = 0
    while first < last_group:
        last = int(np.searchsorted(ends, ends[first] + budget, side="right")) - 1
        same = changes[np.searchsorted(changes, first, side="right") :][:1]
        last = min(max(last, first + 1), *same.tolist(), last_group)
        yield first, last
        first = last
