"""`Estimator`: the base class of all methods."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from stepcredit._moved import also_callable, renamed
from stepcredit.credit.blocks import Blocks
from stepcredit.credit.explanation import ChunkColumns, Explanation
from stepcredit.credit.overflow import overflow_error, refuse_overflow
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.batch_norm import BatchNorm, Moments
from stepcredit.credit.stages.fusion import weights_in_form
from stepcredit.credit.stages.groups import Group
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.advantages import Advantages
from stepcredit.data.forest import to_packed
from stepcredit.data.rollouts import Rollouts
from stepcredit.errors import MethodError, RolloutError
from stepcredit.settings.fields import check_fields, number, short_repr


@dataclass(frozen=True)
class Estimator(ABC):
    """A method: it takes rollouts and returns one advantage per trained token.

    A subclass is a frozen dataclass that implements `credit`; its fields are the method's settings.
    The result for a group depends on that group alone, except in a method that has a `batch_scale`
    or a `batch_step`.

    Args:
        clip: c of the last step, A <- max(-c, min(c, A)); None: not clipped.

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

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__repr__" not in vars(cls):
            cls.__repr__ = short_repr  # type: ignore[method-assign]

    @abstractmethod
    def credit(self, rollouts: Rollouts) -> Credit:
        """Credit of whole groups, before `batch_step` and `clip`.

        Args:
            rollouts: whole groups, the rows of each together.
        """

    def credits(self, versions: Sequence[Rollouts]) -> list[Credit]:
        """Credit of several versions of the same groups; metrics call it to leave streams out.

        Versions differ only in the values of streams, outcome, format or log-probs; what two of
        them share is the same object. A method may override it to compute once what they share. It
        must return for each version what `credit` returns.

        Args:
            versions: at least one, each as for `credit`.
        """
        return [self.credit(version) for version in versions]

    @property
    def reads(self) -> Reads:
        """What the method reads under its settings.

        Trainers, metrics and commands use this and nothing else to learn what a method needs. A
        method of log-probs, or one that weighs streams by name, overrides it; the default is
        `Reads()`.
        """
        return Reads()

    @property
    def standardizes(self) -> bool:
        """Whether the method divides by a standard deviation. True unless a method overrides it."""
        return True

    def with_weights(self, weights: Mapping[str, float]) -> Estimator:
        """The same method with other weights of its streams.

        A method whose own weights are a triple keeps that form if these name the same streams. A
        method whose `reads.weights` come from another field than `weights` overrides it.

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
        own = vars(self)["weights"]
        return replace(self, weights=weights_in_form(weights, own))  # type: ignore[call-arg]

    def refuse_missing(self, missing: Bool[Tensor, " rollout"], field: str) -> None:
        """Refuse the first rollout that lacks what the method needs.

        Args:
            missing: True for the rollouts that lack it.
            field: the missing thing, by the rollout format's name.

        Raises:
            RolloutError: names the row and the field.
        """
        if bool(missing.any()):
            name, row = self.name or type(self).__name__, int(missing.nonzero()[0])
            raise RolloutError(f"missing: {name} needs it", row=row, field=field)

    def check(self, rollouts: Rollouts) -> None:
        """Refuse rollouts that lack a signal the method needs; the error names the caller's row.

        Raises:
            RolloutError: a signal is missing.
        """
        return None

    def check_streams(self, signals: Collection[str]) -> None:
        """Refuse a batch in which no group has a process stream that the method needs.

        A group may lack the stream: an absent stream adds 0. This check runs once per batch, and in
        a command once for the whole file.

        Args:
            signals: names of the process streams in which any response has a score, without
                ready-made advantages.

        Raises:
            MethodError: names the setting.
        """
        return None

    @property
    def batch_scale(self) -> Callable[[Rollouts], float] | None:
        """A function that computes a number of the whole batch, by which the method then divides.

        Of several batches that are parts of one, the largest number counts. None for a method
        without such a number.
        """
        return None

    def at_scale(self, scale: float) -> Estimator:
        """The method for the parts of a batch whose `batch_scale` is `scale`."""
        return self

    def for_batch(self, rollouts: Rollouts) -> Estimator:
        """The method for the parts of this batch, at the `batch_scale` of the whole.

        Raises:
            RolloutError: a signal that the method needs is missing.
        """
        return self if self.batch_scale is None else self.at_scale(self.scale_of(rollouts))

    def scale_of(self, rollouts: Rollouts) -> float:
        """The `batch_scale` of a batch; 1 for a method without one.

        Raises:
            RolloutError: a signal that the method needs is missing.
        """
        if self.batch_scale is None:
            return 1.0
        with _joined(rollouts) as whole:
            self.check(whole)
            return self.batch_scale(whole)

    @property
    def batch_step(self) -> BatchNorm | None:
        """Normalization over the whole batch as the last step; None for a method without one."""
        return None

    def __call__(self, rollouts: Rollouts, *, moments: Moments | None = None) -> Advantages:
        """Advantages of a batch.

        The parts of a trajectory are joined first, so `check`, `credit` and all other methods get
        one rollout per trajectory; the advantages are then cut back to the parts.

        Args:
            rollouts: any rollouts.
            moments: if the rollouts are a part of a batch: the moments of that batch, `Moments()`
                for a method without a `batch_step`. The caller then also calls `check_streams` for
                the batch, and uses the method that `at_scale` returned.

        Returns:
            `Advantages`, float32, in the rollouts' order.

        Raises:
            MethodError: a signal that the method needs is missing.
            RolloutError: an advantage is beyond float32; it names the response.
        """
        if rollouts.device.type == "mps":
            return self(rollouts.to("cpu"), moments=moments).to(rollouts.device)
        if rollouts.trajectories is not None:
            with _joined(rollouts) as whole:
                advantages = self(whole, moments=moments)
            advantages = rollouts.trajectories.cut(advantages, rollouts.lengths)
            return replace(advantages, response_mask=rollouts.response_mask)
        if moments is None and self.batch_scale is not None:
            return self.for_batch(rollouts)(rollouts)
        self.check(rollouts)
        if moments is None:
            self.check_streams(process_signals(rollouts))
        blocks = Blocks.of(rollouts)
        parts = self._of_blocks(blocks)
        if self.batch_step is not None:
            total = self._moments(parts, blocks) if moments is None else moments
            parts = [self._after_batch_step(part, total) for part in parts]
        advantages = _in_batch_order(parts, blocks)
        refuse_overflow(advantages.values, advantages.chunks)
        if rollouts.response_mask is None:
            return advantages
        return replace(advantages, response_mask=rollouts.response_mask)

    def _of_blocks(self, blocks: Blocks) -> list[Advantages]:
        """The advantages of each block; float64 and not clipped if a batch step follows."""
        return [self.advantages_of(credit, block) for block, credit in self._credits_of(blocks)]

    def _credits_of(self, blocks: Blocks) -> Iterator[tuple[Rollouts, Credit]]:
        """Each block and its credit; a method may compute once what the blocks share."""
        return ((block, self.credit(block)) for block in blocks)

    def advantages_of(self, credit: Credit, block: Rollouts) -> Advantages:
        """The credit of a block as advantages; float64 and not clipped if a batch step follows.

        Raises:
            MethodError: it is not the credit of this block.
        """
        credit = Credit.checked(credit, block)
        slots = credit.slots
        if slots.ends is not None:
            credit = credit.in_order()
        table = credit.without_rounding_noise(Group.of(block))
        last = self.batch_step is None
        table, dtype = (self.clipped(table), torch.float32) if last else (table, torch.float64)
        if slots.ends is None:
            values = to_packed(table, slots.counts, dtype, from_end=credit.from_end)
            return Advantages(values, None, slots.counts, block.lengths)
        values = table.new_empty((len(table), slots.width + 1), dtype=dtype)
        values[:, :-1], values[:, -1] = table, 0
        chunks = torch.full_like(slots.counts, slots.width + 1)
        return Advantages(values.flatten(), slots.sizes_and_place.flatten(), chunks, block.lengths)

    def _after_batch_step(self, part: Advantages, moments: Moments) -> Advantages:
        """The batch step's values, clipped; padding stays 0."""
        assert self.batch_step is not None
        values = self.clipped(self.batch_step(part.values, moments))
        values = values if part.sizes is None else torch.where(part.sizes > 0, values, 0.0)
        return replace(part, values=values.to(torch.float32))

    def _moments(self, parts: list[Advantages], blocks: Blocks) -> Moments:
        """The moments of the blocks' advantages.

        Raises:
            RolloutError: the squares are beyond float64; it names the largest advantage's row.
        """
        step = self.batch_step
        assert step is not None
        total = sum((step.moments(part.values, part.value_sizes) for part in parts), Moments())
        if not math.isfinite(total.squares):
            found = _in_batch_order(parts, blocks)
            raise overflow_error(found.values, found.chunks)
        return total

    def moments(self, rollouts: Rollouts) -> Moments:
        """Moments of a batch before `batch_step`; those of several batches add up."""
        if self.batch_step is None:
            return Moments()
        with _joined(rollouts) as whole:
            self.check(whole)
            blocks = Blocks.of(whole)
            return self._moments(self._of_blocks(blocks), blocks)

    def explain(self, rollouts: Rollouts, *, moments: Moments | None = None) -> Explanation:
        """Every stage of every chunk, as data and as a table.

        Args:
            rollouts: any rollouts.
            moments: as for the call.

        Raises:
            MethodError, RolloutError: as for the call.

        Example:
            >>> import stepcredit as sc
            >>> e = sc.PASS().explain(sc.Rollouts(group=[0, 0], outcome=[1.0, 0.0], lengths=[2, 3]))
            >>> [round(row["advantage"], 3) for row in e.rows]
            [0.707, -0.707]
        """
        if rollouts.trajectories is not None:
            with _joined(rollouts) as whole:
                found = self.explain(whole, moments=moments)
            return found.cut(rollouts.trajectories, rollouts.lengths.cpu())
        if moments is None and self.batch_scale is not None:
            return self.for_batch(rollouts).explain(rollouts)
        if moments is None:
            self.check_streams(process_signals(rollouts))
            moments = self.moments(rollouts)
        self.check(rollouts)
        parts = []
        for block, rows in Blocks.of(rollouts).with_rows():
            credit = Credit.checked(self.credit(block), block).in_order()
            values = credit.without_rounding_noise(Group.of(block))
            if self.batch_step is not None:
                values = self.batch_step(values, moments)
            parts.append(ChunkColumns.of(credit, values, self.clipped(values), rows))
        explanation = Explanation.of(self, rollouts, parts, self.notes(rollouts))
        chunks = explanation.rollout.bincount(minlength=rollouts.num_rollouts)
        refuse_overflow(explanation.advantage, chunks)
        return explanation

    def notes(self, rollouts: Rollouts) -> list[str]:
        """Warnings about signals of these rollouts that have no effect under this method."""
        return []

    def clipped(self, values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """The values within [-clip, clip]."""
        return values if self.clip is None else values.clamp(-self.clip, self.clip)


@contextmanager
def _joined(rollouts: Rollouts) -> Iterator[Rollouts]:
    """One rollout per trajectory; errors about one name the row of its first part."""
    parts = rollouts.trajectories
    with nullcontext() if parts is None else parts.naming_parts():
        yield rollouts.joined()


def _in_batch_order(parts: list[Advantages], blocks: Blocks) -> Advantages:
    joined, back = parts[0] if len(parts) == 1 else Advantages.cat(parts), blocks.back
    return joined if back is None else joined.take(back)


__getattr__ = partial(renamed, __name__)
also_callable(__name__, "estimator")
