"""Advantage Fusion: weights, standardized streams, their weighted sum, and the format gate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from sys import float_info

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from stepcredit.credit.stages.groups import (
    OPERATORS,
    Group,
    Standardized,
    Values,
    standardize,
    standardized,
)
from stepcredit.credit.stages.process_streams import dense_stream, process_signals
from stepcredit.data.inputs import RolloutValues
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots
from stepcredit.data.streams import Stream, TokenAdvantages
from stepcredit.errors import MethodError

Weights = Sequence[float] | Mapping[str, float]
Operators = str | Mapping[str, str]
PerRollout = Float64[Tensor, "rollout 1"]
SCALARS = ("outcome", "format")
TRIPLE = ("process", *SCALARS)


def canonical_weights(weights: Weights) -> dict[str, float]:
    """Weights as one mapping of streams; a triple is (process, outcome, format).

    Raises:
        MethodError: not a triple or mapping of finite numbers.

    Example:
        >>> canonical_weights((1, 0.5, 0))
        {'process': 1.0, 'outcome': 0.5, 'format': 0.0}
    """
    if isinstance(weights, Mapping):
        named = dict(weights)
    elif isinstance(weights, Sequence) and not isinstance(weights, str) and len(weights) == 3:
        named = dict(zip(TRIPLE, weights, strict=True))
    else:
        expected = "three numbers (process, outcome, format) or {stream: number}"
        raise MethodError(f"expected {expected}, got {weights!r}", field="weights")
    for name, weight in named.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not abs(weight) <= float_info.max or not isinstance(name, str):
            raise MethodError(f"{name!r} has {weight!r}, expected a finite number", field="weights")
    return {name: float(weight) for name, weight in named.items()}


def weights_in_form(weights: Mapping[str, float], form: object) -> Weights:
    """The weights as a triple if `form` is one and they name just its streams, else by name.

    Example:
        >>> weights_in_form({"process": 1.0, "outcome": 1.0, "format": 0.3}, (1.0, 1.0, 1.0))
        (1.0, 1.0, 0.3)
        >>> weights_in_form({"prm": 2.0}, (1.0, 1.0, 1.0))
        {'prm': 2.0}
    """
    if isinstance(form, Sequence) and weights.keys() == set(TRIPLE):
        return tuple(weights[stream] for stream in TRIPLE)
    return dict(weights)


def canonical_operators(
    operator: Operators, outcome_operator: str | None, names: Sequence[str]
) -> dict[str, str]:
    """The operator of each named stream; `outcome_operator` governs outcome and format.

    Raises:
        MethodError: an unknown operator.

    Example:
        >>> canonical_operators("abs_max", "masked_norm", ["process", "outcome"])
        {'process': 'abs_max', 'outcome': 'masked_norm'}
    """
    rule = dict(operator) if isinstance(operator, Mapping) else dict.fromkeys(names, operator)
    chosen = {name: rule.get(name, "masked_norm") for name in names}
    if outcome_operator is not None:
        chosen |= {name: outcome_operator for name in SCALARS if name in chosen}
    check_operators({**rule, **chosen}.values())
    return chosen


def check_operators(operators: Iterable[object], field: str = "operator") -> None:
    """Refuse a value that is no operator's name.

    Raises:
        MethodError: lists the operators.
    """
    for operator in operators:
        if operator not in OPERATORS:
            expected = ", ".join(OPERATORS)
            raise MethodError(f"unknown operator {operator!r}: expected {expected}", field=field)


def sum_tables(tables: Sequence[Tensor], zero: Tensor) -> Tensor:
    """Sum of tables; `zero` for no tables.

    Example:
        >>> sum_tables([torch.tensor(1.0), torch.tensor(2.0)], torch.tensor(0.0))
        tensor(3.)
    """
    return sum(tables[1:], tables[0]) if tables else zero


def weighted_streams(rollouts: Rollouts, weights: Mapping[str, float]) -> dict[str, Stream]:
    """The process streams that the rollouts have and that have a weight, in the weights' order.

    Example:
        >>> from stepcredit.data.streams import Tokens
        >>> r = Rollouts([0], [1], {"prm": Tokens([[1.0]]), "kl": Tokens([[0.5]])})
        >>> list(weighted_streams(r, {"kl": 1.0, "outcome": 1.0}))
        ['kl']
    """
    scored = process_signals(rollouts)
    return {name: scored[name] for name in weights if name in scored}


def check_named_process(weights: Mapping[str, float], signals: Collection[str]) -> None:
    """Refuse a triple of weights for a batch whose process streams all have other names.

    Args:
        weights: as `canonical_weights` gives them.
        signals: names of the process streams of the whole batch.

    Raises:
        MethodError: lists the streams of the batch.
    """
    if signals and tuple(weights) == TRIPLE and "process" not in signals:
        reason = f"no stream is named 'process': give {{name: weight}} for {', '.join(signals)}"
        raise MethodError(reason, field="weights")


def ready_advantages(
    rollouts: Rollouts, weights: Mapping[str, float], gated: Bool[Tensor, " rollout"]
) -> list[Values]:
    """The weighted ready-made advantages per token, 0 for gated rollouts, one table per stream."""
    ready = {n: s for n, s in rollouts.streams.items() if isinstance(s, TokenAdvantages)}
    return [
        dense_stream(ready[name], rollouts).values * (weights[name] * ~gated[:, None])
        for name in weights
        if name in ready
    ]


def standardize_scalar(
    scalar: RolloutValues,
    group: Group,
    operator: str,
    *,
    ddof: int,
    eps: float,
    min_std: float = 0.0,
) -> PerRollout:
    """N of one number per rollout.

    Args:
        scalar: the numbers and which of them are known: `rollouts.outcomes` or `.formats`.
        group: which rows form a group.
        operator: N, as for `standardize`.
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        min_std: the least std that masked_norm divides by.

    Returns:
        (rollout, 1) float64; 0 where the number is unknown.

    Example:
        >>> r = Rollouts([0, 0], [1, 1], outcome=[1.0, 0.0])
        >>> standardize_scalar(r.outcomes, Group.of(r), "center", ddof=1, eps=0.0).tolist()
        [[0.5], [-0.5]]
    """
    known, values = scalar.known[:, None], scalar.values[:, None]
    return standardize(values, known, group, operator, ddof=ddof, eps=eps, min_std=min_std)


def standardize_scalars(
    scalars: Mapping[str, RolloutValues],
    group: Group,
    rules: Mapping[str, str],
    *,
    ddof: int,
    eps: float,
    min_std: Mapping[str, float] | None = None,
) -> dict[str, Standardized]:
    """N of several numbers per rollout, each standardized alone; one pass per operator.

    N of a number that no rollout has is 0.

    Args:
        scalars: by stream.
        group: which rows form a group.
        rules: the operator of each.
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        min_std: the least std that each is divided by; others have no such limit.
    """
    found: dict[str, Standardized] = {}
    least = {name: (min_std or {}).get(name, 0.0) for name in scalars}
    held = [name for name, scalar in scalars.items() if scalar.any_known]
    for operator, limit in dict.fromkeys((rules[name], least[name]) for name in held):
        names = [name for name in held if (rules[name], least[name]) == (operator, limit)]
        values = torch.cat([scalars[name].values for name in names]).unsqueeze(1)
        known = None
        if not all(scalars[name].all_known for name in names):
            known = torch.cat([scalars[name].known for name in names]).unsqueeze(1)
        every = group.repeated(len(names))
        normed = standardized(values, known, every, operator, ddof=ddof, eps=eps, min_std=limit)
        found |= dict(zip(names, normed.parts(len(names)), strict=True))
    return {
        name: found.get(name) or Standardized.of_zeros(scalar.values.unsqueeze(1), group)
        for name, scalar in scalars.items()
    }


def gated_mask(rollouts: Rollouts, gate: bool) -> Bool[Tensor, " rollout"]:
    """True for rollouts that broke their format, and so learn from the format reward alone.

    Args:
        rollouts: the rollouts.
        gate: False turns the gate off: no rollout is gated.

    Example:
        >>> gated_mask(Rollouts([0, 0], [1, 1], format_ok=[True, False]), gate=True).tolist()
        [False, True]
    """
    return ~rollouts.format_ok if gate else torch.zeros_like(rollouts.format_ok)


def fuse_scalars(
    outcome: PerRollout,
    format: PerRollout,
    gated: Bool[Tensor, " rollout"],
    weights: Mapping[str, float],
) -> PerRollout:
    """The part of Advantage Fusion that is the same for every chunk: outcome, format and gate.

        I = 1:  w_out N(r_out) + w_fmt N(r_fmt)
        I = 0:  W N(r_fmt),  W the sum of all weights configured, present or not

    Args:
        outcome: N(r_out), (rollout, 1).
        format: N(r_fmt), (rollout, 1).
        gated: True for gated rollouts, I = 0.
        weights: {stream: weight}.

    Returns:
        (rollout, 1) float64.

    Example:
        >>> one = torch.ones(2, 1).double()
        >>> gated, weights = torch.tensor([False, True]), {"process": 1.0, "outcome": 0.5}
        >>> fuse_scalars(one, one, gated, weights).tolist()
        [[0.5], [1.5]]

    Source: PASS (2606.29296) section 5.2.
    """
    open_value = _times(weights.get("outcome", 0.0), outcome)
    open_value = open_value + _times(weights.get("format", 0.0), format)
    if not bool(gated.any()):
        return open_value
    return torch.where(gated[:, None], sum(weights.values()) * format, open_value)


def fuse_process(
    read: Mapping[str, Values],
    weights: Mapping[str, float],
    slots: Slots,
    gated: Bool[Tensor, " rollout"],
) -> Values:
    """Weighted sum of the standardized process streams; 0 for gated rollouts.

        sum over streams of w N(s)

    Args:
        read: each stream, read at the slots.
        weights: of the streams.
        slots: the slots.
        gated: True for gated rollouts.

    Returns:
        (rollout, slot) float64.

    Example:
        >>> from stepcredit.data.slots import every_token
        >>> z = torch.tensor([[1.0, 3.0], [2.0, 0.0]]).double()
        >>> slots, gated = every_token(torch.tensor([2, 1])), torch.tensor([False, True])
        >>> fuse_process({"prm": z}, {"prm": 0.5}, slots, gated).tolist()
        [[0.5, 1.5], [0.0, 0.0]]

    Source: PASS (2606.29296) section 5.2. Differs: any number of process streams.
    """
    if not read:
        return torch.zeros((), dtype=torch.float64, device=gated.device).expand(slots.mask.shape)
    first, *more = (_times(weights[name], values) for name, values in read.items())
    fused = sum(more, first)
    return torch.where(gated[:, None], 0.0, fused) if bool(gated.any()) else fused


def _times(weight: float, table: Values) -> Values:
    """The product; for weight 1 the table itself, which saves a pass over tokens."""
    return table if weight == 1 else weight * table


@dataclass(frozen=True, eq=False)
class FusionTerms:
    """The terms that Advantage Fusion adds up.

    Args:
        process: N of each process stream, and the slots of its columns.
        scalars: N of outcome and of format, each (rollout, 1).
        weights: {stream: weight}.
        gated: True for gated rollouts.
        group: which rows form a group.
    """

    process: Mapping[str, tuple[Standardized, Slots]]
    scalars: Mapping[str, Standardized]
    weights: Mapping[str, float]
    gated: Bool[Tensor, " rollout"]
    group: Group

    def fused_process(self, read: Mapping[str, Values], slots: Slots) -> Values:
        """`fuse_process` of the process streams, read at the slots."""
        return fuse_process(read, self.weights, slots, self.gated)

    def fused_scalars(self) -> PerRollout:
        """`fuse_scalars` of outcome and format."""
        outcome, format = (self.scalars[name].values for name in SCALARS)
        return fuse_scalars(outcome, format, self.gated, self.weights)


def fused_scale(terms: FusionTerms) -> Float64[Tensor, " group"]:
    """A bound on the terms that the fusion adds up in each group: sum over streams of |w| max |N|.

    It counts gated responses and values that no chunk reads too; `entering_scale` does not.
    """
    normed = {name: normed for name, (normed, _) in terms.process.items()} | dict(terms.scalars)
    sizes = [
        _times(abs(weight), normed[name].largest)
        for name, weight in terms.weights.items()
        if name in normed
    ]
    if not sizes:
        return torch.zeros(terms.group.count, dtype=torch.float64, device=terms.gated.device)
    return sum(sizes[1:], sizes[0])


def entering_scale(terms: FusionTerms, chunks: ReadAt) -> Float64[Tensor, " group"]:
    """Size of the terms that the ungated advantages of each group depend on.

        max of sum over streams of |w N(s)| x factor  +  max of |w_out N(r_out)| + |w_fmt N(r_fmt)|

    A gated advantage is a single product, so nothing can cancel in it.
    """
    sizes = {name: abs(weight) for name, weight in terms.weights.items()}
    sources = {n: chunks.read(z.values.abs(), at) for n, (z, at) in terms.process.items()}
    read = fuse_process(sources, sizes, chunks.slots, terms.gated) * chunks.factor
    flat = [sizes[name] * terms.scalars[name].values.abs() for name in SCALARS if name in sizes]
    kept = (~terms.gated)[:, None]
    scalar = sum_tables(flat, torch.zeros_like(kept, dtype=torch.float64)) * kept
    return terms.group.largest(read) + terms.group.largest(scalar)


@dataclass(frozen=True, eq=False)
class ReadAt:
    """Where process streams are read, and the factor of each value in its chunk's advantage.

    Args:
        slots: the slots.
        factor: (rollout, slot); 0 on slots that end no chunk.
        read: reads a table over other slots at these slots.
    """

    slots: Slots
    factor: Values
    read: Callable[[Values, Slots], Values]
