"""`Estimator`: what every method is; `Credit`: what it computes; the registry of methods."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float64, Int, Shaped
from torch import Tensor

from stepcredit._moved import also_callable
from stepcredit.credit.overflow import refuse_overflow, too_large
from stepcredit.credit.reads import Reads
from stepcredit.credit.stages.batch_norm import BatchNorm, Moments
from stepcredit.credit.stages.fusion import process_signals
from stepcredit.credit.stages.groups import Group, IsEnd, Mask, Values, is_rounding
from stepcredit.data.advantages import Advantages
from stepcredit.data.forest import take_rows, to_packed
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, whole_responses
from stepcredit.errors import MethodError, RolloutError
from stepcredit.settings.fields import check_fields, number

if TYPE_CHECKING:
    from stepcredit.credit.explanation import Explanation

BLOCK = 131_072
"""Scores a block of whole groups: what keeps a token signal's float64 tables in a core's cache."""


@dataclass(frozen=True, eq=False)
class Credit:
    """Advantages by slot, and every stage that led there.

    Args:
        slots: where the table's columns lie in the responses' tokens.
        advantage: (rollout, slot) float64; equal on all slots of a chunk.
        stages: gives the named tables (rollout, slot) or (rollout, 1) that led there, in order;
            called by `explain` alone.
        is_end: the last slot of each chunk; None: every slot is a chunk.
        scale: size of what was added up in each group; a group all of whose advantages are
            rounding beside it (1e-9) gets 0.
        entering: gives the same of what enters the advantages alone, where `scale` may count more:
            called where by `scale` a group would get 0.
    """

    slots: Slots
    advantage: Values
    stages: Callable[[], dict[str, Values]] = dict
    is_end: IsEnd = None
    scale: Float64[Tensor, " group"] | None = None
    entering: Callable[[], Float64[Tensor, " group"]] | None = None

    @classmethod
    def flat(cls, rollouts: Rollouts, advantage: Values, **stages: Values) -> Credit:
        """One advantage a response, on all its tokens; `advantage` is (rollout, 1)."""
        return cls(whole_responses(rollouts.lengths), advantage, lambda: stages)

    @property
    def chunk_ends(self) -> Mask:
        """True on the last slot of each chunk."""
        return self.slots.mask if self.is_end is None else self.is_end

    def settled(self, group: Group) -> Values:
        """The advantages, 0 for a group whose streams cancel but for rounding."""
        if self.scale is None:
            return self.advantage
        largest = group.largest(self.advantage)
        noise = is_rounding(largest, self.scale)
        if not bool(noise.any()):
            return self.advantage
        if self.entering is not None and bool((noise & (largest > 0)).any()):
            noise = is_rounding(largest, self.entering())
        return torch.where(group.spread(noise), 0.0, self.advantage)


@dataclass(frozen=True)
class Estimator(ABC):
    """A method: rollouts in, one advantage a trained token out.

    A subclass is a frozen dataclass that implements `credit`; its fields are the method's settings.
    The result for a group depends on that group alone, except for `batch_scale` and `batch_step`,
    where a method has them.

    Args:
        clip: c: the very last step, A <- max(-c, min(c, A)); None: not clipped.

    Example:
        >>> from dataclasses import dataclass
        >>> import stepcredit as sc
        >>> @dataclass(frozen=True)
        ... class Raw(sc.Estimator):
        ...     def credit(self, rollouts):
        ...         return sc.Credit.flat(rollouts, rollouts.outcome[:, None])
        >>> Raw()(sc.Rollouts(group=[0, 0], lengths=[2, 1], outcome=[1.0, 0.0])).packed()
        tensor([1., 1., 0.])
    """

    clip: float | None = number(
        None, "largest |advantage|; null: not clipped", above=0, optional=True, kw_only=True
    )

    name: ClassVar[str] = ""
    equation: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    """arXiv number of the paper that introduced the method, such as "2402.03300"; empty: none."""

    def __post_init__(self) -> None:
        check_fields(self, MethodError)

    @abstractmethod
    def credit(self, rollouts: Rollouts) -> Credit:
        """Credit of whole groups, before `batch_step` and `clip`.

        Args:
            rollouts: whole groups, the rows of each together.
        """

    @property
    def reads(self) -> Reads:
        """What the method reads under its settings.

        Trainers, metrics and commands ask this and nothing else: a method made of log-probs, or one
        that weighs streams by name, overrides it. The default is `Reads()`.
        """
        return Reads()

    @property
    def standardizes(self) -> bool:
        """Whether the method divides by a standard deviation. True unless a method overrides it."""
        return True

    def with_weights(self, weights: Mapping[str, float]) -> Estimator:
        """The same method with other weights of its streams.

        A method whose `reads.weights` come from another field than `weights` overrides it.

        Args:
            weights: {stream: weight}.

        Raises:
            MethodError: the method weighs no streams, or refuses these weights.

        Example:
            >>> import stepcredit as sc
            >>> dict(sc.PASS().with_weights({"prm": 1.0}).weights)
            {'prm': 1.0}
        """
        if "weights" not in {declared.name for declared in fields(self)}:
            raise MethodError("it weighs no streams", field="weights")
        return replace(self, weights=dict(weights))  # type: ignore[call-arg]

    def check(self, rollouts: Rollouts) -> None:
        """Refuse rollouts without the signals the method needs, naming the caller's row.

        Raises:
            RolloutError: a signal is missing.
        """
        return None

    def check_streams(self, signals: Collection[str]) -> None:
        """Refuse a batch in which no group has a process stream that the method needs.

        A group may lack it: an absent stream adds 0. It is called once per batch: by a command with
        the streams of the whole file.

        Args:
            signals: names of the process streams of which any response has a score; ready-made
                advantages are none of them.

        Raises:
            MethodError: names the setting.
        """
        return None

    @property
    def batch_scale(self) -> Callable[[Rollouts], float] | None:
        """A number of the whole batch that a method divides by before anything else.

        Of several batches that are parts of one, the largest number counts. None for all methods
        that have no such number.
        """
        return None

    def at_scale(self, scale: float) -> Estimator:
        """The method for the parts of a batch whose `batch_scale` is `scale`."""
        return self

    def for_batch(self, rollouts: Rollouts) -> Estimator:
        """The method for the parts of this batch: `at_scale` of its own `batch_scale`.

        Raises:
            RolloutError: a signal the method needs is not there.
        """
        if self.batch_scale is None:
            return self
        self.check(rollouts)
        return self.at_scale(self.batch_scale(rollouts))

    @property
    def batch_step(self) -> BatchNorm | None:
        """The batch-wide last step; None for all methods whose groups stand alone."""
        return None

    def __call__(self, rollouts: Rollouts, *, moments: Moments | None = None) -> Advantages:
        """Advantages of a batch.

        Args:
            rollouts: any rollouts.
            moments: the moments of the batch that these are a part of (`Moments()` for a method
                without a `batch_step`); the caller then calls `check_streams` for that batch, and
                this method of what `at_scale` returned.

        Returns:
            `Advantages`, float32, in the rollouts' order.

        Raises:
            MethodError: a signal the method needs is not there.
            RolloutError: an advantage is beyond float32; it names the response.
        """
        if rollouts.device.type == "mps":
            return self(rollouts.to("cpu"), moments=moments).to(rollouts.device)
        if moments is None and self.batch_scale is not None:
            return self.for_batch(rollouts)(rollouts)
        self.check(rollouts)
        if moments is None:
            self.check_streams(process_signals(rollouts))
        ordered, order = grouped(rollouts)
        parts = [self._slots(block) for block in self._blocks(ordered)]
        if self.batch_step is not None:
            total = self._moments(parts, order) if moments is None else moments
            parts = [replace(part, values=self._finished(part, total)) for part in parts]
        advantages = _in_order(_joined(parts, ordered.lengths), order)
        refuse_overflow(advantages.values, advantages.chunks)
        return replace(advantages, response_mask=rollouts.response_mask)

    def _finished(self, part: _Slots, moments: Moments) -> Tensor:
        """The batch-wide step, clipped; padding stays 0."""
        assert self.batch_step is not None
        values = self.clipped(self.batch_step(part.values, moments))
        return torch.where(part.tokens > 0, values, 0.0).to(torch.float32)

    def _moments(self, parts: list[_Slots], order: Tensor | None) -> Moments:
        """The parts' moments.

        Raises:
            RolloutError: their squares are beyond float64; it names the largest advantage's row.
        """
        assert self.batch_step is not None
        total = sum((self.batch_step.moments(p.values, p.tokens) for p in parts), Moments())
        if not math.isfinite(total.squares):
            found = _in_order(_joined(parts, torch.cat([part.counts for part in parts])), order)
            raise too_large(found.values, found.chunks)
        return total

    def moments(self, rollouts: Rollouts) -> Moments:
        """Moments of a batch before `batch_step`; those of several batches add up."""
        if self.batch_step is None:
            return Moments()
        self.check(rollouts)
        ordered, order = grouped(rollouts)
        return self._moments([self._slots(block) for block in self._blocks(ordered)], order)

    def explain(self, rollouts: Rollouts, *, moments: Moments | None = None) -> Explanation:
        """Every stage by chunk, as data and, printed, as a table.

        Args:
            rollouts: any rollouts.
            moments: as for the call.

        Raises:
            MethodError, RolloutError: as the call.

        Example:
            >>> import stepcredit as sc
            >>> e = sc.PASS().explain(sc.Rollouts(group=[0, 0], outcome=[1.0, 0.0], lengths=[2, 3]))
            >>> [round(row["advantage"], 3) for row in e.rows]
            [0.707, -0.707]
        """
        from stepcredit.credit.explanation import explain

        if moments is None and self.batch_scale is not None:
            return self.for_batch(rollouts).explain(rollouts)
        if moments is None:
            self.check_streams(process_signals(rollouts))
            moments = self.moments(rollouts)
        explanation = explain(self, rollouts, moments)
        chunks = explanation.rollout.bincount(minlength=rollouts.num_rollouts)
        refuse_overflow(explanation.advantage, chunks)
        return explanation

    def notes(self, rollouts: Rollouts) -> list[str]:
        """Warnings about what these rollouts cannot teach under this method."""
        return []

    def clipped(self, values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """The values within [-clip, clip]."""
        return values if self.clip is None else values.clamp(-self.clip, self.clip)

    def _blocks(self, ordered: Rollouts) -> Iterator[Rollouts]:
        return ordered.blocks(BLOCK if ordered.device.type == "cpu" else float("inf"))

    def _slots(self, block: Rollouts) -> _Slots:
        credit = credit_of(self, block)
        slots, table = credit.slots, credit.settled(group_of(block))
        if self.batch_step is None:
            table = self.clipped(table).to(torch.float32)
        if slots.ends is None:
            return _Slots(_cut_rows(table, slots.counts), None, slots.counts)
        sizes = torch.nn.functional.pad(slots.sizes, (0, 1)).flatten()
        width = torch.full_like(slots.counts, slots.width + 1)
        return _Slots(torch.nn.functional.pad(table, (0, 1)).flatten(), sizes, width)


@dataclass(frozen=True, eq=False)
class _Slots:
    """A block's values, their sizes in tokens, and how many belong to each rollout.

    Values past a response's end have size 0; the last of every rollout is left for padding. Sizes
    None: one token each, and no place for padding.
    """

    values: Tensor
    sizes: Tensor | None
    counts: Tensor

    @property
    def tokens(self) -> Tensor:
        """Tokens each value stands for."""
        return torch.ones_like(self.values, dtype=torch.int64) if self.sizes is None else self.sizes

    def with_padding(self) -> _Slots:
        """The same with a place for padding at each rollout's end."""
        if self.sizes is not None:
            return self
        rows = torch.split(self.values, self.counts.tolist())
        closing = self.values.new_zeros(1)
        values = torch.cat([part for row in rows for part in (row, closing)])
        sizes = torch.ones_like(values, dtype=torch.int64)
        counts = self.counts + 1
        sizes[counts.cumsum(0) - 1] = 0
        return _Slots(values, sizes, counts)


def _joined(parts: list[_Slots], lengths: Tensor) -> Advantages:
    """All blocks' values; where some stand for one token each and some for more, all have sizes."""
    if any(part.sizes is not None for part in parts):
        parts = [part.with_padding() for part in parts]
    values, counts = (torch.cat([getattr(p, n) for p in parts]) for n in ("values", "counts"))
    sizes = [part.sizes for part in parts if part.sizes is not None]
    return Advantages(values, torch.cat(sizes) if sizes else None, counts, lengths)


def _cut_rows(table: Tensor, counts: Tensor) -> Tensor:
    """`to_packed` for long rows: one copy a row beats one decision a value."""
    if table.device.type != "cpu":
        return to_packed(table, counts)
    return torch.cat([row[:n] for row, n in zip(table, counts.tolist(), strict=True)])


def refuse_missing(missing: Bool[Tensor, " rollout"], field: str, method: Estimator) -> None:
    """Refuse the first rollout that lacks what a method needs.

    Raises:
        RolloutError: names the row and the field.
    """
    if bool(missing.any()):
        name = method.name or type(method).__name__
        raise RolloutError(f"missing: {name} needs it", row=int(missing.nonzero()[0]), field=field)


def credit_of(method: Estimator, rollouts: Rollouts) -> Credit:
    """What the method's `credit` gives for whole groups.

    Raises:
        MethodError: it is no `Credit`, or not one advantage per slot of these rollouts.
    """
    credit: object = method.credit(rollouts)
    if not isinstance(credit, Credit):
        raise MethodError(f"credit() returns {type(credit).__name__}, expected a Credit")
    slots, got = (rollouts.num_rollouts, credit.slots.width), tuple(credit.advantage.shape)
    if got != slots or credit.slots.counts.numel() != rollouts.num_rollouts:
        raise MethodError(f"credit() returns advantages of shape {got}, expected {slots}")
    return credit


def group_of(rollouts: Rollouts) -> Group:
    """Which of the rollouts' rows form a group."""
    return Group(rollouts.group_index, rollouts.num_groups)


def grouped(rollouts: Rollouts) -> tuple[Rollouts, Int[Tensor, " rollout"] | None]:
    """The rollouts with each group's rows together, and the order taken (None: they were so)."""
    index = rollouts.group_index
    if not bool((index[1:] < index[:-1]).any()):
        return rollouts, None
    order = index.argsort(stable=True)
    return rollouts.take(order), order


def _in_order(advantages: Advantages, order: Tensor | None) -> Advantages:
    """Rows taken in `order` put back where they came from."""
    if order is None:
        return advantages
    back = torch.empty_like(order)
    back[order] = torch.arange(order.numel(), device=order.device)
    values, sizes, chunks = advantages.values, advantages.sizes, advantages.chunks
    return Advantages(
        take_rows(values, chunks, back),
        None if sizes is None else take_rows(sizes, chunks, back),
        chunks[back],
        advantages.lengths[back],
    )


also_callable(__name__, "estimator")
