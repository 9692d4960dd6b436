"""Chunk-by-Value and the other chunkers: where credit may change along a response.

A chunker takes a `Signal` and returns `Chunks`: the slots it works on, and which of them end a
chunk. A chunk's value is read at its last token. All chunkers have the same face; each states its
cost in L, the response's length (S: its steps).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stepcredit.credit.stages.groups import TOLERANCE, Group, IsEnd, Mask, Values
from stepcredit.credit.stages.segmentation import COSTS, Segments, segment_ends
from stepcredit.data.forest import group_sum, segment_sum, slot_mask
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, every_token, step_slots
from stepcredit.errors import MethodError
from stepcredit.settings.fields import Check, is_number, is_one_of, is_pattern, is_whole

ETA = 1e-8


@dataclass(frozen=True, eq=False)
class Signal:
    """The process stream that leads: what chunkers look at.

    Args:
        raw: its scores (rollout, slot), 0 off `mask`.
        standardized: N of them, 0 off `mask`.
        mask: which slots hold a score; a rollout without the stream has none.
        slots: where they lie: the stream's steps, or every token.
        group: which rows form a group.
        rollouts: the rollouts, for chunkers that read step ends or text.
    """

    raw: Values
    standardized: Values
    mask: Mask
    slots: Slots
    group: Group
    rollouts: Rollouts

    @property
    def of_tokens(self) -> bool:
        """Is it one score a token?"""
        return self.slots.ends is None

    @property
    def token_slots(self) -> Slots:
        """Every token a slot: the signal's own slots where it scores tokens."""
        return self.slots if self.of_tokens else every_token(self.slots.lengths)

    @property
    def present(self) -> Bool[Tensor, " rollout"]:
        """Which rollouts have the stream: a row's scores stand at its beginning."""
        return self.mask[:, 0]


READINGS = ("last", "mean", "sum")


@dataclass(frozen=True, eq=False)
class Chunks:
    """Slots, and which of them end a chunk (None: all of them)."""

    slots: Slots
    is_end: IsEnd = None

    def read(self, values: Values, source: Slots, how: str = "last") -> Values:
        """A table over other slots, read chunk by chunk.

        Args:
            values: (rollout, source slot), 0 off the mask.
            source: its slots; a slot's value stands on each of its tokens.
            how: "last", at the last token of each slot; "mean" or "sum", over the trained tokens
                of each chunk.

        Returns:
            (rollout, slot); "mean" and "sum" are equal on all slots of a chunk.

        Example:
            >>> tokens = every_token(torch.tensor([3]))
            >>> cut = Chunks(tokens, torch.tensor([[False, True, True]]))
            >>> z = torch.tensor([[1.0, 3.0, 5.0]]).double()
            >>> cut.read(z, tokens, "mean").tolist(), cut.read(z, tokens, "sum").tolist()
            ([[2.0, 2.0, 5.0]], [[4.0, 4.0, 5.0]])
        """
        if how == "last":
            return self.slots.read(values, source)
        fine = source
        if source is not self.slots and source.ends is not None:
            fine = every_token(self.slots.lengths)
        chunk, width = self._numbers(), self.slots.width
        held = chunk if fine is self.slots else chunk.gather(1, self.slots.holding(fine))
        sizes = fine.sizes.to(torch.float64)
        total = segment_sum(fine.read(values, source) * sizes, held, width)
        if how == "mean":
            total = total / segment_sum(sizes, held, width).clamp(min=1)
        return torch.where(self.slots.mask, total.gather(1, chunk), 0.0)

    def _numbers(self) -> Int[Tensor, "rollout slot"]:
        """The number of the chunk that each slot belongs to, from 0."""
        ends = self.slots.mask if self.is_end is None else self.is_end
        return (ends.cumsum(1) - ends.to(torch.int64)).clamp(max=self.slots.width - 1)


Chunker = Callable[[Signal], Chunks]


def steps(signal: Signal) -> Chunks:
    """The chunks are the steps; equal neighbours are not merged. Cost O(S).

    Raises:
        MethodError: a token signal on rollouts without `step_ends`.

    Source: PASS (2606.29296) Algorithm 2.
    """
    if not signal.of_tokens:
        return Chunks(signal.slots)
    marks = signal.rollouts.step_ends
    if marks is None:
        raise MethodError("'steps' needs a step signal, or rollouts with step_ends", field="chunks")
    return Chunks(step_slots(marks.values, marks.counts, signal.slots.lengths))


def tokens(signal: Signal) -> Chunks:
    """Each token a chunk. Cost O(L).

    Source: our reading of the paper's "w/o CV".
    """
    slots = signal.token_slots
    present = signal.present
    if bool(present.all()):
        return Chunks(slots)
    return Chunks(slots, slots.mask & (present[:, None] | slots.end_slots()))


def runs(signal: Signal, eta: float = ETA) -> Chunks:
    """Runs of equal raw scores: a new chunk where |u_t - u_{t-1}| > eta. Cost O(S), or O(L).

    Source: PASS (2606.29296) section 4.2. Differs: neighbours are compared, not each score with
        its chunk's first; the two differ only under a drift below eta.
    """
    jumps = _jumps(signal.raw, signal.group.spread(signal.group.largest(signal.raw)), eta)
    return Chunks(signal.slots, _ends(jumps, signal))


def sign_runs(signal: Signal) -> Chunks:
    """Runs of one sign of the standardized score; |z| <= 1e-9 of the largest is 0.

    Cost O(S), or O(L) for a token signal.

    Source: ours, for token signals, whose scores are hardly ever equal.
    """
    largest = signal.group.spread(signal.group.largest(signal.standardized))
    z = signal.standardized
    sign = torch.where(z.abs() <= TOLERANCE * largest, 0.0, z.sign())
    return Chunks(signal.slots, _ends(sign[:, 1:] != sign[:, :-1], signal))


def change_points(
    signal: Signal, penalty: float = 2.0, min_tokens: int = 4, cost: str = "absolute"
) -> Chunks:
    """Segments of one level: the exact minimum of the distance to it + penalty x changes.

    Args:
        signal: the leading stream.
        penalty: cost of one more segment, in units of the deviation of the group's scores
            ("absolute") or of their variance ("squared"; 2 ln L is the BIC).
        min_tokens: the fewest trained tokens of a chunk, unless the response has fewer.
        cost: "absolute", to the segment's median, which one surprising token among three or more
            does not move; or "squared", to its mean, which it does.

    Returns:
        Chunks over the stream's own slots. Cost O(L^2): "squared" at worst, and about O(L) where
        changes are many; "absolute" always.

    Source: penalized least squares with PELT's pruning (Killick et al. 2012). Ours.
    """
    rule = Segments(penalty, min_tokens, cost)
    ends = segment_ends(signal.raw, signal.mask, signal.slots.sizes, signal.group, rule)
    return Chunks(signal.slots, ends | signal.slots.end_slots())


def windows(signal: Signal, size: int = 32) -> Chunks:
    """Fixed windows of `size` tokens, the last one shorter. Cost O(L / size).

    Source: ours, a control for the other chunkers.
    """
    lengths = signal.slots.lengths
    size = min(size, int(lengths.max()))
    counts = torch.where(signal.present, (lengths + size - 1) // size, 1)
    index = torch.arange(1, int(counts.max()) + 1, device=lengths.device)
    ends = torch.minimum(index * size, lengths[:, None]) - 1
    last = index == counts[:, None]
    ends = torch.where(last, lengths[:, None] - 1, ends)
    past = torch.iinfo(torch.int64).max
    return Chunks(Slots(counts, lengths, torch.where(index <= counts[:, None], ends, past)))


def delimiters(signal: Signal, pattern: str = r"\n\s*$") -> Chunks:
    """A chunk ends with each token whose text matches a regular expression. Cost O(L).

    Raises:
        MethodError: the rollouts hold no token texts.

    Source: ours.
    """
    texts = signal.rollouts.tokens
    if texts is None:
        raise MethodError("'delimiters' needs rollouts with their tokens' texts", field="chunks")
    found = re.compile(pattern).search
    rows = [[i for i, text in enumerate(row[:-1]) if found(text)] + [len(row) - 1] for row in texts]
    device = signal.raw.device
    counts = torch.tensor([len(row) for row in rows], device=device)
    ends = torch.tensor([end for row in rows for end in row], device=device)
    return Chunks(step_slots(ends, counts, signal.slots.lengths))


def sentences(signal: Signal) -> Chunks:
    """`delimiters` at the ends of sentences and lines. Cost O(L)."""
    return delimiters(signal, pattern=r"[.!?。！？]['\")\]]*\s*$|\n\s*$")


def group_runs(signal: Signal, eta: float = ETA) -> Chunks:
    """Runs of equal values of the group's mean standardized signal; boundaries common to the group.

        u_t = (1/G) sum over i of N(s_i)_t, 0 past a response's end
        a new chunk where |u_t - u_{t-1}| > eta

    Cost O(L). On real-valued signals nearly every token becomes a chunk.

    Source: PASS (2606.29296) Algorithm 2. Differs: divided by G throughout, so that another
        response's end is a boundary.
    """
    lengths = signal.slots.lengths
    slots = signal.token_slots
    z = slots.read(signal.standardized, signal.slots)
    rows = torch.bincount(signal.group.index, minlength=signal.group.count)
    mean = group_sum(z, signal.group.index, signal.group.count) / rows[:, None]
    jumps = _jumps(mean, mean.abs().amax(1, keepdim=True), eta)
    if bool(signal.present.all()) and _everywhere(jumps, lengths, signal.group):
        return Chunks(slots)
    return Chunks(slots, _close(jumps[signal.group.index] & signal.present[:, None], slots))


def _everywhere(jumps: Tensor, lengths: Tensor, group: Group) -> bool:
    """Does every group jump between all tokens of its longest response?"""
    longest = lengths.new_zeros(group.count).scatter_reduce_(0, group.index, lengths, "amax")
    inside = slot_mask(longest - 1, jumps.shape[1])
    return not bool((inside & ~jumps).any())


def _jumps(values: Values, largest: Tensor, eta: float) -> Bool[Tensor, "rollout between"]:
    """Where neighbours differ by more than eta, and by more than rounding could make them."""
    least = (TOLERANCE * largest).clamp(min=eta)
    return (values[:, 1:] - values[:, :-1]).abs() > least


def _ends(jumps: Bool[Tensor, "rollout between"], signal: Signal) -> Mask:
    return _close(jumps & signal.mask[:, 1:], signal.slots)


def _close(jumps: Bool[Tensor, "rollout between"], slots: Slots) -> Mask:
    """Chunk ends from the jumps between slots: before each jump, and at the response's end."""
    ends = torch.nn.functional.pad(jumps, (0, 1)) & slots.mask
    return ends.logical_or_(slots.end_slots())


_ETA = {"eta": is_number(at_least=0)}
_OPTIONS: dict[str, dict[str, Check]] = {
    "runs": _ETA,
    "group_runs": _ETA,
    "change_points": {
        "penalty": is_number(above=0),
        "min_tokens": is_whole(at_least=1),
        "cost": is_one_of(COSTS),
    },
    "windows": {"size": is_whole(at_least=1)},
    "delimiters": {"pattern": is_pattern},
}
CHUNKERS: dict[str, Callable[..., Chunks]] = {
    "steps": steps,
    "runs": runs,
    "group_runs": group_runs,
    "tokens": tokens,
    "sign_runs": sign_runs,
    "change_points": change_points,
    "windows": windows,
    "sentences": sentences,
    "delimiters": delimiters,
}


def chunker(rule: str | Mapping[str, Mapping[str, object]] | Chunker) -> Chunker | None:
    """A chunker by name, by {name: options}, or as it is; None for "auto".

    "auto" is the paper's: `steps` for a step signal, `group_runs` for a token signal.

    Raises:
        MethodError: an unknown name or option.

    Example:
        >>> chunker({"windows": {"size": 8}}).keywords
        {'size': 8}
    """
    if callable(rule):
        return rule
    if rule == "auto":
        return None
    name: object = rule
    options: object = {}
    if isinstance(rule, Mapping) and len(rule) == 1:
        name, options = next(iter(rule.items()))
    known = CHUNKERS.get(name) if isinstance(name, str) else None
    if known is None:
        names = ", ".join(["auto", *CHUNKERS])
        raise MethodError(f"unknown chunker {rule!r}: expected {names}", field="chunks")
    if not isinstance(options, Mapping):
        raise MethodError(f"options of {name!r} must be a mapping, got {options!r}", field="chunks")
    for option, value in options.items():
        check = _OPTIONS.get(str(name), {}).get(option)
        expected = check(value) if check else None
        if check is None:
            raise MethodError(f"{name!r} has no option {option!r}", field="chunks")
        if expected:
            reason = f"{option} of {name!r}: expected {expected}, got {value!r}"
            raise MethodError(reason, field="chunks")
    return partial(known, **options) if options else known


def paper_chunker(signal: Signal) -> Chunker:
    """What "auto" stands for: `steps` for a step signal, `group_runs` for a token signal."""
    return group_runs if signal.of_tokens else steps


def are_steps(rule: Chunker | None) -> bool:
    """Whether the chunker's chunks are the steps, also for a token signal."""
    return getattr(rule, "func", rule) is steps


def reads_text(rule: Chunker | None) -> bool:
    """Does the chunker need the tokens' texts?"""
    return getattr(rule, "func", rule) in (delimiters, sentences)
