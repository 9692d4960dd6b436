"""PASS, and what it shares with the other method built on Advantage Fusion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stepcredit.credit.estimator import Credit, Estimator, group_of, refuse_missing
from stepcredit.credit.method_registry import register
from stepcredit.credit.reads import Reads
from stepcredit.credit.stages.chunks import (
    READINGS,
    Chunker,
    Chunks,
    Signal,
    are_steps,
    chunker,
    paper_chunker,
    reads_text,
)
from stepcredit.credit.stages.fusion import (
    SCALARS,
    Operators,
    PerRollout,
    ReadAt,
    Table,
    Weights,
    canonical_operators,
    canonical_weights,
    check_named_process,
    check_operators,
    entering_scale,
    fuse_process,
    fuse_scalars,
    fused_scale,
    gated,
    process_streams,
    ready_advantages,
    standardize_scalars,
    table_of,
    total_of,
)
from stepcredit.credit.stages.groups import (
    OPERATORS,
    Group,
    Values,
    standardize,
    std_ratio,
    weighted_mean,
)
from stepcredit.credit.stages.returns import divide_length, residual, return_to_go
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import every_token, whole_responses
from stepcredit.data.streams import TokenAdvantages
from stepcredit.errors import MethodError
from stepcredit.settings.fields import choice, composed, flag, number, text

ABOUT_WEIGHTS = "three numbers (process, outcome, format) or {stream: number}"


def _parse_operators(value: Any) -> None:
    check_operators(value.values() if isinstance(value, Mapping) else [value])


def _parse_outcome_operator(value: Any) -> None:
    check_operators([] if value is None else [value], field="outcome_operator")


def weighted_reads(weights: Mapping[str, float]) -> Reads:
    """What a method reads that weighs its streams by name, outcome and format among them."""
    return Reads(
        process="weighted",
        weights=weights,
        outcome="optional" if "outcome" in weights else None,
        format="format" in weights,
    )


@dataclass(frozen=True)
class Fused(Estimator):
    """What the methods built on Advantage Fusion share: weights, operators, the gate."""

    weights: Weights = composed((1.0, 1.0, 1.0), canonical_weights, ABOUT_WEIGHTS)
    operator: Operators = composed(
        "masked_norm", _parse_operators, f"{' | '.join(OPERATORS)}, or {{stream: operator}}"
    )
    outcome_operator: str | None = composed(
        None, _parse_outcome_operator, "operator of outcome and format; null: as `operator`"
    )
    ddof: int = choice(1, (0, 1), "the std's divisor is n - ddof")
    eps: float = number(1e-6, "added to the std", at_least=0)
    gate: bool = flag(True, "a response that broke its format learns the format alone")

    paper = "2606.29296"

    def __post_init__(self) -> None:
        super().__post_init__()
        named = self.operator if isinstance(self.operator, Mapping) else {}
        for name in named:
            if name not in canonical_weights(self.weights):
                raise MethodError(f"{name!r} has no weight", field="operator")

    @property
    def reads(self) -> Reads:
        """The streams with a weight, ready-made advantages among them, and the format's gate."""
        weighted = weighted_reads(canonical_weights(self.weights))
        return replace(weighted, gate=self.gate, ready_made=True)

    @property
    def standardizes(self) -> bool:
        """Whether the operator of any stream divides by its std."""
        names = list(canonical_weights(self.weights))
        rules = canonical_operators(self.operator, self.outcome_operator, names)
        return "masked_norm" in rules.values()

    def with_weights(self, weights: Mapping[str, float]) -> Fused:
        """The same method with other weights; a stream that has none of them loses its operator."""
        operator = self.operator
        if isinstance(operator, Mapping):
            operator = {name: rule for name, rule in operator.items() if name in weights}
        return replace(self, weights=dict(weights), operator=operator)

    def _standardize(self, values: Values, mask: Tensor, group: Group, stream: str) -> Values:
        rules = canonical_operators(self.operator, self.outcome_operator, [stream])
        return standardize(values, mask, group, rules[stream], ddof=self.ddof, eps=self.eps)

    def _scalars(self, rollouts: Rollouts, group: Group) -> dict[str, PerRollout]:
        both = {"outcome": rollouts.outcomes, "format": rollouts.formats}
        rules = canonical_operators(self.operator, self.outcome_operator, list(both))
        return standardize_scalars(both, group, rules, ddof=self.ddof, eps=self.eps)

    def _reads_unweighted(self, stream: str) -> bool:
        """Whether the method reads a stream that has no weight."""
        return False

    def _with_ready(
        self, credit: Credit, rollouts: Rollouts, weights: Mapping[str, float], kept: Tensor
    ) -> Credit:
        """Ready-made advantages join at the tokens, as given."""
        tables = ready_advantages(rollouts, weights, kept)
        if not tables:
            return credit
        tokens, ready = every_token(rollouts.lengths), total_of(tables, tables[0])
        advantage = tokens.read(credit.advantage, credit.slots) + ready

        def stages() -> dict[str, Values]:
            shape = credit.advantage.shape
            chunked = credit.stages().items()
            read = {name: tokens.read(value.expand(shape), credit.slots) for name, value in chunked}
            return read | {"ready-made": ready}

        group, fused = group_of(rollouts), credit.entering
        assert credit.scale is not None
        assert fused is not None
        size = total_of([group.largest(table) for table in tables], credit.scale)
        return Credit(
            tokens, advantage, stages, scale=credit.scale + size, entering=lambda: fused() + size
        )

    def check_streams(self, signals: Collection[str]) -> None:
        """A triple of weights needs a stream named "process" among those of the batch."""
        check_named_process(canonical_weights(self.weights), signals)

    def notes(self, rollouts: Rollouts) -> list[str]:
        """What is configured and absent, present and without weight, or taught nothing."""
        weights = canonical_weights(self.weights)
        present = [*rollouts.streams]
        present += ["outcome"] * bool(rollouts.has_outcome.any())
        present += ["format"] * bool(rollouts.has_format.any())
        absent = [n for n in weights if n not in present and weights[n] != 0]
        ignored = [n for n in present if n not in weights and not self._reads_unweighted(n)]
        found = [f"stream {name!r} has a weight and is absent: it adds 0" for name in absent]
        found += [f"stream {name!r} has no weight: it is ignored" for name in ignored]
        shut = gated(rollouts, self.gate)
        silent = shut & (self._scalars(rollouts, group_of(rollouts))["format"][:, 0] == 0)
        if bool(silent.any()):
            found.append(
                f"{int(silent.sum())} of {int(shut.sum())} gated responses learn nothing: "
                "their format reward is absent, zero, or equal in the group"
            )
        return found


@register("pass")
@dataclass(frozen=True)
class PASS(Fused):
    """Advantage Fusion, Chunk-by-Value, Divide-Length.

        A(t) = sum over streams of w N(s)(t) + w_out N(r_out) + w_fmt N(r_fmt);  W N(r_fmt) if gated
        A_b  = A at the last token of chunk b; `read`: its process part as a mean or sum instead
        A_j  = (sum over j' >= j of gamma^(j' - j) A_b_j') / (K - j + 1)^k

    Args:
        weights: (process, outcome, format), or {stream: weight} for any number of process streams.
        operator: N of every stream, or {stream: operator}.
        outcome_operator: N of outcome and format; None: as `operator`.
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        k: exponent of the chunks left, at least 0: 0 the plain return-to-go, 1 the strict mean.
        chunks: a chunker's name, {name: options} or a chunker; "auto": steps for a step signal,
            group_runs for a token signal.
        chunks_from: the stream chunks follow; None: the first weighted one present, which is also
            what a group follows that lacks the stream named here.
        gate: a response that broke its format learns the format alone.
        scope: "fused": Divide-Length acts on everything, as published; "process": on the process
            streams, outcome and format are added once.
        match_std: rescale the process part to its std at k = 0, over the group's ungated tokens.
        recenter: subtract the process part's mean over the group's ungated tokens.
        read: the process part of a chunk's value: "last", the standardized signal at its last
            token, as published; "mean" or "sum" of it over the chunk's trained tokens. A step's
            score stands on each of its tokens. Ready-made advantages are not read by chunk.
        gamma: the discount per chunk, from 0 to 1. Under scope "fused" the outcome and the format
            in the return are discounted too; the divisor is not changed.
        clip: the very last step, A within [-clip, clip].

    Raises:
        MethodError: a field out of range; no group has the stream named in `chunks_from`; the
            weights are a triple and no process stream of the batch is named "process".

    Example:
        >>> import stepcredit as sc
        >>> rollouts = sc.Rollouts(group=[0, 0], outcome=[1.0, 0.0],
        ...     process=sc.Steps(ends=[[1, 2, 4], [2, 4]], scores=[[.9, .9, .6], [.2, .6]]))
        >>> [round(x, 3) for x in sc.PASS(k=0.7)(rollouts).ragged()[0].tolist()]
        [1.755, 1.755, 1.341, 0.568, 0.568]

    Source: PASS (2606.29296) Eqs. 4-7, Algorithms 1-3. Differs: several process streams, k above
        1, `scope`, `match_std`, `recenter`, `read`, `gamma` and `clip` are ours.
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

    equation = "A_j = sum_{j' >= j} gamma^(j' - j) A_b_j' / (K - j + 1)^k"

    def __post_init__(self) -> None:
        super().__post_init__()
        lead, weights = self.chunks_from, canonical_weights(self.weights)
        if lead is not None and (lead not in weights or lead in SCALARS):
            raise MethodError(f"{lead!r} is no process stream with a weight", field="chunks_from")

    @property
    def reads(self) -> Reads:
        """As for every fused method, and what the chunker reads."""
        rule = chunker(self.chunks)
        return replace(super().reads, text=reads_text(rule), steps=are_steps(rule))

    def check(self, rollouts: Rollouts) -> None:
        """What leads the chunks must be a signal; chunkers of text need every response's."""
        if isinstance(rollouts.streams.get(self.chunks_from or ""), TokenAdvantages):
            reason = f"{self.chunks_from!r} is ready-made: chunks follow a signal"
            raise MethodError(reason, field="chunks_from")
        if reads_text(chunker(self.chunks)) and rollouts.tokens is not None:
            empty = torch.tensor([not row for row in rollouts.tokens], device="cpu")
            refuse_missing(empty, "tokens", self)

    def check_streams(self, signals: Collection[str]) -> None:
        """What leads the chunks must be there for some group."""
        super().check_streams(signals)
        if self.chunks_from is not None and self.chunks_from not in signals:
            reason = f"no group has the stream {self.chunks_from!r}"
            raise MethodError(reason, field="chunks_from")

    def notes(self, rollouts: Rollouts) -> list[str]:
        """Those of the fusion, and how many groups lack the stream that chunks are to follow."""
        return super().notes(rollouts) + self._groups_without_lead(rollouts)

    def _groups_without_lead(self, rollouts: Rollouts) -> list[str]:
        if self.chunks_from is None:
            return []
        lead, groups = rollouts.streams.get(self.chunks_from), rollouts.num_groups
        held = (
            0 if lead is None else group_of(rollouts).count_where(lead.counts > 0).count_nonzero()
        )
        lacking = groups - int(held)
        lines = f"{lacking} of {groups} groups lack the stream {self.chunks_from!r}"
        return [f"{lines}: their chunks follow the first weighted one"] * (lacking > 0)

    def credit(self, rollouts: Rollouts) -> Credit:
        """Fusion, chunks, divided return-to-go."""
        group, weights = group_of(rollouts), canonical_weights(self.weights)
        streams = process_streams(rollouts, weights)
        tables = {name: table_of(stream, rollouts) for name, stream in streams.items()}
        normed = {
            name: self._standardize(table.values, table.mask, group, name)
            for name, table in tables.items()
        }
        cut = self._chunks(rollouts, tables, normed, group)
        shut = gated(rollouts, self.gate)
        scalars = self._scalars(rollouts, group)
        flat = fuse_scalars(scalars["outcome"], scalars["format"], shut, weights)
        sources = {name: (normed[name], tables[name].slots) for name in normed}
        read = {name: cut.read(*source, self.read) for name, source in sources.items()}
        process = fuse_process(read, weights, cut.slots, shut)

        def streams_read() -> dict[str, Values]:
            return {f"N({name})": value for name, value in {**read, **scalars}.items()}

        credit, factor = self._divide(process, flat, cut, shut, group, streams_read)
        credit = replace(
            credit,
            scale=fused_scale(sources, scalars, weights, group),
            entering=lambda: entering_scale(
                sources,
                scalars,
                weights,
                ReadAt(cut.slots, factor(), partial(cut.read, how=self.read)),
                shut,
                group,
            ),
        )
        return self._with_ready(credit, rollouts, weights, ~shut)

    def _chunks(
        self, rollouts: Rollouts, tables: dict[str, Table], normed: dict[str, Values], group: Group
    ) -> Chunks:
        if not tables:
            return Chunks(whole_responses(rollouts.lengths))
        lead = self.chunks_from if self.chunks_from in tables else next(iter(tables))
        table = tables[lead]
        signal = Signal(table.values, normed[lead], table.mask, table.slots, group, rollouts)
        return (chunker(self.chunks) or paper_chunker(signal))(signal)

    def _divide(
        self,
        process: Values,
        flat: PerRollout,
        cut: Chunks,
        shut: Tensor,
        group: Group,
        streams: Callable[[], dict[str, Values]],
    ) -> tuple[Credit, Callable[[], Values]]:
        """Divide-Length is linear: A = P + Q, P of the process streams and Q of the rest.

        Returns:
            The credit, and what gives each process value's factor in its own chunk.
        """
        left, divisors = residual(cut.slots.counts, cut.slots.width, self.k, cut.is_end)
        plain = return_to_go(process, cut.is_end, self.gamma)
        if self.gamma != 1:
            left = return_to_go(cut.slots.mask.to(torch.float64), cut.is_end, self.gamma)
        fused = self.scope == "fused"
        returns = torch.addcmul(plain, flat, left) if fused else plain
        ratio = torch.ones_like(flat)
        if self.match_std or self.recenter:
            part = divide_length(plain, divisors)
            weight = cut.slots.sizes * (~shut)[:, None].to(torch.float64)
            if self.match_std:
                ratio = std_ratio(plain, part, weight, group)
            part = self._adjust(part * ratio, weight, group)
            advantage = part + divide_length(flat * left, divisors) if fused else part
        else:
            advantage = divide_length(returns, divisors)
        advantage = advantage if fused else advantage + flat

        def stages() -> dict[str, Values]:
            own = {"fused": process + flat, "return_to_go": returns, "divisor": divisors}
            return streams() | own

        credit = Credit(cut.slots, advantage, stages, cut.is_end)
        return credit, lambda: credit.chunk_ends * ratio / divisors

    def _adjust(self, part: Values, weight: Values, group: Group) -> Values:
        """`recenter`, over the tokens of the group's ungated responses."""
        if not self.recenter:
            return part
        mean, _ = weighted_mean(part, weight, group)
        return torch.where(weight > 0, part - group.spread(mean), part)
