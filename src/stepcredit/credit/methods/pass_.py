"""PASS: Advantage Fusion, Chunk-by-Value, Divide-Length."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from stepcredit.credit.blocks import Blocks
from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.fused import Fused, with_chunker_reads
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit, CreditFromEnd
from stepcredit.credit.stages.chunker_registry import chunker, is_built_in, needs_of
from stepcredit.credit.stages.chunks import (
    READINGS,
    Chunker,
    Chunks,
    LeadStream,
    chunks_within_parts,
)
from stepcredit.credit.stages.fusion import (
    SCALARS,
    FusionTerms,
    ReadAt,
    canonical_operators,
    fuse_process,
    gated_mask,
    weighted_streams,
)
from stepcredit.credit.stages.groups import Group, Standardized, Values, std_ratio, weighted_mean
from stepcredit.credit.stages.process_streams import (
    DenseStream,
    Layouts,
    dense_stream,
    lacks_logprobs,
)
from stepcredit.credit.stages.returns import (
    divide_length,
    residual,
    residual_from_end,
    return_from_end,
    return_to_go,
)
from stepcredit.data.forest import copies_rows, from_row_ends
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, whole_responses
from stepcredit.data.streams import TokenAdvantages
from stepcredit.errors import MethodError
from stepcredit.settings.fields import choice, composed, flag, is_number, number, text

_LEAST_STD = is_number(at_least=0)


def _parse_min_std(value: Any) -> None:
    for name, least in value.items() if isinstance(value, Mapping) else [("", value)]:
        expected = _LEAST_STD(least)
        if expected:
            at = f" for {name!r}" if name else ""
            raise MethodError(f"expected {expected}{at}, got {least!r}", field="min_std")


@register("pass")
@dataclass(frozen=True)
class PASS(Fused):
    """Advantage Fusion, Chunk-by-Value, Divide-Length.

        A(t) = sum over streams of w N(s)(t) + w_out N(r_out) + w_fmt N(r_fmt);  W N(r_fmt) if gated
        A_b  = A at the last token of chunk b; `read` takes its process part in other ways
        A_j  = (sum over j' >= j of gamma^(j' - j) A_b_j') / (K - j + 1)^k

    Args:
        weights: (process, outcome, format), or {stream: weight} for any number of process streams.
        operator: N of every stream, or {stream: operator}.
        outcome_operator: N of outcome and format; None: as `operator`.
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        k: exponent of the chunks left, at least 0; 0 gives the plain return-to-go, 1 the mean.
        chunks: a chunker's name, {name: options} or a chunker; "auto": steps for a step signal,
            group_runs for a token signal.
        chunks_from: the stream that chunks follow; None: the first weighted stream that is present.
            A group without the named stream also follows its first one.
        gate: a response that broke its format learns only from the format reward.
        scope: "fused": Divide-Length acts on everything, as published; "process": it acts on the
            process streams, and outcome and format are added once.
        match_std: rescale the process part to its std at k = 0, over the group's ungated tokens.
        recenter: subtract the process part's mean over the group's ungated tokens.
        read: the process part of a chunk's value: "last", the standardized signal at its last
            token, as published; "mean" or "sum" of it over the chunk's trained tokens, where each
            token of a step has the step's score; "ends", the sum over the steps that end in the
            chunk, each counted once. Ready-made advantages are not read by chunk.
        min_std: the least std that `masked_norm` divides a stream by, a number for all streams or
            {stream: number}, in the stream's own unit; 0: no limit. Without one a stream that is
            almost constant gets as much credit as any other, because it is divided by its own std.
        gamma: the discount per chunk, from 0 to 1. Under scope "fused" the outcome and the format
            in the return are discounted too; the divisor is not changed.
        clip: the last step: A is limited to [-clip, clip].

    Raises:
        MethodError: a field out of range; `min_std` of streams that `masked_norm` does not
            standardize; no group has the stream named in `chunks_from`; the weights are a triple
            and no process stream of the batch is named "process".

    Example:
        >>> import stepcredit as sc
        >>> rollouts = sc.Rollouts(group=[0, 0], outcome=[1.0, 0.0],
        ...     process=sc.Steps(ends=[[1, 2, 4], [2, 4]], scores=[[.9, .9, .6], [.2, .6]]))
        >>> [round(x, 3) for x in sc.PASS(k=0.7)(rollouts).ragged()[0].tolist()]
        [1.755, 1.755, 1.341, 0.568, 0.568]

    Source: PASS (2606.29296) Eqs. 4-7, Algorithms 1-3. Differs: several process streams, k above
        1, `scope`, `match_std`, `recenter`, `read`, `gamma`, `min_std` and `clip` are added here.
    """

    k: float = number(0.7, "exponent of the chunks left", at_least=0)
    chunks: str | Mapping[str, Mapping[str, object]] | Chunker = composed(
        "auto", chunker, "chunker's name, or {name: options}"
    )
    chunks_from: str | None = text(None, "stream that chunks follow; null: the first")
    scope: str = choice("fused", ("fused", "process"), "what Divide-Length acts on")
    match_std: bool = flag(False, "rescale the process part to its std at k = 0")
    recenter: bool = flag(False, "subtract the process part's token mean")
    read: str = choice("last", READINGS, "the process part of a chunk's value")
    gamma: float = number(1.0, "discount per chunk", at_least=0, at_most=1)
    min_std: float | Mapping[str, float] = composed(
        0.0, _parse_min_std, "least std that a stream is divided by, or {stream: std}; 0: any"
    )

    by_stream = ("operator", "min_std")
    equation = "A_j = sum_{j' >= j} gamma^(j' - j) A_b_j' / (K - j + 1)^k"

    def __post_init__(self) -> None:
        super().__post_init__()
        lead = self.chunks_from
        if lead is not None and (lead not in self._weights or lead in SCALARS):
            raise MethodError(f"{lead!r} is no process stream with a weight", field="chunks_from")
        self._check_min_std()

    def _check_min_std(self) -> None:
        """Refuse a limit that no stream's operator reads, or not that of the stream it names."""
        limited = [name for name, least in self._least_stds.items() if least]
        rules = canonical_operators(self.operator, self.outcome_operator, limited)
        idle = [name for name in limited if rules[name] != "masked_norm"]
        if idle and (isinstance(self.min_std, Mapping) or idle == limited):
            reason = f"has no effect on {idle[0]!r}, whose operator is {rules[idle[0]]!r}: only"
            raise MethodError(f"{reason} 'masked_norm' divides by a std", field="min_std")

    @cached_property
    def _least_stds(self) -> Mapping[str, float]:
        if isinstance(self.min_std, Mapping):
            return self.min_std
        return dict.fromkeys(self._weights, self.min_std)

    @property
    def reads(self) -> Reads:
        """As for every fused method, and what the chunker reads."""
        return with_chunker_reads(super().reads, self.chunks)

    def check(self, rollouts: Rollouts) -> None:
        """Chunks follow a signal; a chunker may need the texts or log-probs of every response."""
        if isinstance(rollouts.streams.get(self.chunks_from or ""), TokenAdvantages):
            reason = f"{self.chunks_from!r} is ready-made: chunks follow a signal"
            raise MethodError(reason, field="chunks_from")
        if rollouts.tokens is not None and needs_of(self.chunks) == "text":
            empty = torch.tensor([not row for row in rollouts.tokens], device="cpu")
            self.refuse_missing(empty, "tokens")
        if "student" in self.reads.logprobs:
            self.refuse_missing(lacks_logprobs(rollouts, "student"), "student_logprobs")

    def check_streams(self, signals: Collection[str]) -> None:
        """Some group must have the stream that chunks follow."""
        super().check_streams(signals)
        if self.chunks_from is not None and self.chunks_from not in signals:
            reason = f"no group has the stream {self.chunks_from!r}"
            raise MethodError(reason, field="chunks_from")

    def notes(self, rollouts: Rollouts) -> list[str]:
        """Those of every fused method, and how many groups lack the stream that chunks follow."""
        return super().notes(rollouts) + self._groups_without_lead(rollouts)

    def _groups_without_lead(self, rollouts: Rollouts) -> list[str]:
        if self.chunks_from is None:
            return []
        lead, groups = rollouts.streams.get(self.chunks_from), rollouts.num_groups
        held = (
            0 if lead is None else Group.of(rollouts).count_where(lead.counts > 0).count_nonzero()
        )
        lacking = groups - int(held)
        lines = f"{lacking} of {groups} groups lack the stream {self.chunks_from!r}"
        return [f"{lines}: their chunks follow the first weighted one"] * (lacking > 0)

    def credit(self, rollouts: Rollouts) -> Credit:
        """Fusion, chunks, divided return-to-go."""
        part, both = self._process_part(rollouts), self._scalars(rollouts, Group.of(rollouts))
        return self._with_scalars(part, both, rollouts)

    def _credits_of(self, blocks: Blocks) -> Iterator[tuple[Rollouts, Credit]]:
        """Each block and its credit; N of outcome and format is computed for all at once."""
        if type(self).credit is not PASS.credit:
            yield from super()._credits_of(blocks)
            return
        both = self._scalars(blocks.ordered, Group.of(blocks.ordered))
        for block, rows, groups in blocks.with_spans():
            own = {name: normed.cut(rows, groups) for name, normed in both.items()}
            yield block, self._with_scalars(self._process_part(block), own, block)

    def credits(self, versions: Sequence[Rollouts]) -> list[Credit]:
        """Credit of each version, from one process part per set of streams."""
        if type(self).credit is not PASS.credit or not is_built_in(self.chunks):
            return super().credits(versions)
        groups = [Group.of(version) for version in versions]
        streams = [(*version.streams.values(), *version.logprobs.values()) for version in versions]
        outcomes = [(version.outcomes, version.formats) for version in versions]
        parts = _once_each(streams, partial(self._process_part, layouts={}), versions)
        scalars = _once_each(outcomes, self._scalars, versions, groups)
        return list(map(self._with_scalars, parts, scalars, versions))

    def credits_at(self, exponents: Sequence[float], rollouts: Rollouts) -> list[Credit]:
        """The credit at several exponents k; what they share is computed once.

        Args:
            exponents: values of k, at least 0.
            rollouts: whole groups, as for `credit`.

        Example:
            >>> import stepcredit as sc
            >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0, 1], [0]], [[0.5, 1.0], [0.5]]))
            >>> plain, mean = sc.PASS(operator="abs_max").credits_at([0.0, 1.0], r)
            >>> plain.advantage[0].tolist(), mean.advantage[0].tolist()
            ([1.5, 1.0], [0.75, 1.0])
        """
        part, both = self._process_part(rollouts), self._scalars(rollouts, Group.of(rollouts))
        found = []
        for k in exponents:
            method = replace(self, k=k)
            left, divisors = method._chunks_left(part.chunks, part.returns.from_end)
            returns = replace(part.returns, chunks_left=left, divisors=divisors)
            found.append(method._with_scalars(replace(part, returns=returns), both, rollouts))
        return found

    def _process_part(self, rollouts: Rollouts, layouts: Layouts | None = None) -> _ProcessPart:
        """What the process streams alone decide."""
        group, weights = Group.of(rollouts), self._weights
        streams = weighted_streams(rollouts, weights)
        tables = {name: dense_stream(s, rollouts, layouts) for name, s in streams.items()}
        normed = {name: self._standardize(table, group, name) for name, table in tables.items()}
        chunks = self._chunks(rollouts, tables, normed, group)
        sources = {name: (normed[name], tables[name].slots) for name in normed}
        read = {name: chunks.read(z.values, at, self.read) for name, (z, at) in sources.items()}
        gated = gated_mask(rollouts, self.gate)
        fused = fuse_process(read, weights, chunks.slots, gated)
        is_zero = all(table.is_zero for table in tables.values())
        returns = self._returns(fused, chunks, is_zero)
        return _ProcessPart(sources, chunks, read, gated, group, fused, returns)

    def _returns(self, fused: Values, chunks: Chunks, is_zero: bool) -> _Returns:
        """The return-to-go of the fused process streams, and what Divide-Length needs."""
        slots, ends = chunks.slots, chunks.chunk_ends
        plain = ends is None and self.gamma == 1 and not (self.match_std or self.recenter)
        from_end = plain and copies_rows(fused)
        if is_zero:
            undivided = fused
        elif from_end:
            undivided = return_from_end(fused, slots.counts)
        else:
            undivided = return_to_go(fused, ends, self.gamma)
        left, divisors = self._chunks_left(chunks, from_end)
        return _Returns(undivided, left, divisors, slots.counts, from_end)

    def _chunks_left(self, chunks: Chunks, from_end: bool) -> tuple[Values, Values]:
        """What the sum of outcome and format is multiplied by, and the divisors."""
        slots, ends = chunks.slots, chunks.chunk_ends
        if from_end:
            return residual_from_end(slots.width, self.k, slots.counts.device)
        left, divisors = residual(slots.counts, slots.width, self.k, ends)
        if self.gamma != 1:
            left = return_to_go(slots.mask.to(torch.float64), ends, self.gamma)
        return left, divisors

    def _with_scalars(
        self, part: _ProcessPart, both: Mapping[str, Standardized], rollouts: Rollouts
    ) -> Credit:
        """The credit of a process part, and of N of outcome and format."""
        terms = FusionTerms(part.sources, both, self._weights, part.gated, part.group)
        credit, factor = self._divide(part, terms)

        def read_at() -> ReadAt:
            return ReadAt(part.chunks.slots, factor(), partial(part.chunks.read, how=self.read))

        return self._finished(credit, rollouts, terms, read_at)

    def _chunks(
        self,
        rollouts: Rollouts,
        tables: dict[str, DenseStream],
        normed: dict[str, Standardized],
        group: Group,
    ) -> Chunks:
        if not tables:
            return Chunks(whole_responses(rollouts.lengths))
        name = self.chunks_from if self.chunks_from in tables else next(iter(tables))
        table = tables[name]
        z = normed[name].values
        lead = LeadStream(table.values, z, table.mask, table.slots, group, rollouts)
        return chunks_within_parts(chunker(self.chunks), lead)

    def _divide(
        self, part: _ProcessPart, terms: FusionTerms
    ) -> tuple[Credit, Callable[[], Values]]:
        """Divide-Length, of the process streams and of the scalars apart.

        Return-to-go and Divide-Length are linear, so the advantage is the sum of the two parts.

        Returns:
            The credit, and a function that gives each process value's factor in its own chunk.
        """
        slots, returns, scalars = part.chunks.slots, part.returns, terms.fused_scalars()
        undivided, divisors, fused = returns.undivided, returns.divisors, self.scope == "fused"

        def whole() -> Values:
            return torch.addcmul(undivided, scalars, returns.chunks_left)

        ratio: float | Tensor = 1.0
        if self.match_std or self.recenter:
            divided = divide_length(undivided, divisors)
            weight = slots.sizes * (~terms.gated)[:, None].to(torch.float64)
            if self.match_std:
                ratio = std_ratio(undivided, divided, weight, terms.group)
            divided = self._recentered(divided * ratio, weight, terms.group)
            advantage = divided
            if fused:
                advantage = divided + divide_length(scalars * returns.chunks_left, divisors)
        elif fused:
            to_go = whole()
            advantage = divide_length(to_go, divisors, out=to_go)
        else:
            advantage = divide_length(undivided, divisors)
        advantage = advantage if fused else advantage + scalars

        def stages() -> dict[str, Values]:
            flat = {name: normed.values for name, normed in terms.scalars.items()}
            read = {f"N({name})": value for name, value in {**part.read, **flat}.items()}
            to_go = returns.in_order(whole() if fused else undivided)
            own = {"fused": part.fused + scalars, "return_to_go": to_go}
            return read | own | {"divisor": returns.in_order(divisors)}

        kind = CreditFromEnd if returns.from_end else Credit
        credit = kind(slots, advantage, stages, part.chunks.chunk_ends)
        return credit, lambda: credit.last_slots * ratio / returns.in_order(divisors)

    def _recentered(self, process: Values, weight: Values, group: Group) -> Values:
        """With `recenter`: less its mean over the tokens of the group's ungated responses."""
        if not self.recenter:
            return process
        mean, _ = weighted_mean(process, weight, group)
        return torch.where(weight > 0, process - group.to_rows(mean), process)


def _once_each(
    keys: Sequence[tuple[object, ...]], make: Callable[..., Any], *arguments: Sequence[Any]
) -> list[Any]:
    """What is made of each set of arguments, once for those whose keys are the same objects."""
    made: dict[tuple[int, ...], Any] = {}
    for key, *given in zip(keys, *arguments, strict=True):
        objects = tuple(map(id, key))
        if objects not in made:
            made[objects] = make(*given)
    return [made[tuple(map(id, key))] for key in keys]


@dataclass(frozen=True, eq=False)
class _ProcessPart:
    """What the process streams of a block decide, whatever its outcomes and format rewards are.

    Args:
        sources: N of each stream, and the slots of its columns.
        chunks: the chunks that follow one of them.
        read: N of each stream, read at the chunks.
        gated: True for gated rollouts.
        group: which rows form a group.
        fused: the weighted sum of `read`.
        returns: its return-to-go, and what Divide-Length needs.
    """

    sources: Mapping[str, tuple[Standardized, Slots]]
    chunks: Chunks
    read: Mapping[str, Values]
    gated: Tensor
    group: Group
    fused: Values
    returns: _Returns


@dataclass(frozen=True, eq=False)
class _Returns:
    """The return-to-go of the fused process streams, and what Divide-Length needs.

    Args:
        undivided: the return-to-go, (rollout, slot).
        chunks_left: what the sum of outcome and format is multiplied by: its return-to-go for 1.
        divisors: what Divide-Length divides by.
        counts: slots per response.
        from_end: all three are counted from a response's last slot.
    """

    undivided: Values
    chunks_left: Values
    divisors: Values
    counts: Int64[Tensor, " rollout"]
    from_end: bool = False

    def in_order(self, table: Values) -> Values:
        """A table of this order, or one row of it for all responses, in the order of the slots."""
        if not self.from_end:
            return table
        return from_row_ends(table.expand(self.undivided.shape), self.counts)
