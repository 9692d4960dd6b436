"""PURE: credit by the minimum of future rewards."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import register
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.batch_norm import WHITENING, BatchNorm
from stepcredit.credit.stages.fusion import standardize_scalar
from stepcredit.credit.stages.groups import Group, Values
from stepcredit.credit.stages.process_streams import (
    DenseStream,
    check_one_process,
    dense_stream,
    find_process_stream,
)
from stepcredit.credit.stages.returns import future_min, min_form, residual, return_to_go
from stepcredit.data.rollouts import Rollouts
from stepcredit.errors import MethodError
from stepcredit.settings.fields import choice, flag, number, whole


@register("pure")
@dataclass(frozen=True)
class PURE(Estimator):
    """Credit by the minimum of future rewards.

        A_j = G_j - baseline + w (r_out - mean of others)
        softmin     G_j = sum over j' >= j of r*_j',  r*_j = softmax(-s / T)_j s_j
        future_min  G_j = min over j' >= j of s_j'
        sum         G_j = sum over j' >= j of r*_j',  r*_j = s_j

    Args:
        temperature: T of the soft minimum, read only by `form="softmin"`; 0 is strict.
        baseline: over the other responses j of the group, O = G_1, L tokens, S steps:
            per_token: r*_s -= tokens(s) sum O_j / sum L_j;  per_step: r*_s -= mean of O_j / S_j;
            rollout: A -= mean of O_j;  per_slot: A -= sum_j sum_t G_jt / ((n - 1) max_length).
            `form="future_min"` takes rollout or per_slot, and one of them must be named.
        max_length: N of per_slot, a fixed number of tokens, never the padded width.
        outcome_weight: weight of the outcome; the paper finds equal weights stable.
        process_weight: factor of r*, or of the minimum.
        whiten_batch: (A - mean) / sqrt(variance + 1e-8) over the batch's trained tokens.
        form: "softmin"; "future_min", the strict form of the authors' verl branch; "sum", the form
            that loses to both in the paper's comparison.
        clip: the last step: A is limited to [-clip, clip].

    Returns:
        The process part of a response alone in its group is 0. Format and gate are ignored.
        Unknown outcomes add no term.

    Raises:
        MethodError: per_slot without max_length; future_min with another baseline than rollout or
            per_slot; a batch of several process streams, none named "process".

    Example:
        >>> import stepcredit as sc
        >>> rollouts = sc.Rollouts(group=[0, 0], process=sc.Steps([[0, 1], [0]], [[.8, -.5], [.3]]))
        >>> [round(x, 3) for x in sc.PURE(temperature=0)(rollouts).ragged()[0].tolist()]
        [-1.1, -0.8]

    Source: PURE (2504.15275) Eqs. 7-9 and its code. Differs: the minimum is over steps; baselines
        use trained tokens, never the padded width; a response alone in its group is defined.
    """

    temperature: float = number(0.1, "T of the soft minimum; 0 is strict", at_least=0)
    baseline: str = choice(
        "per_token",
        ("per_token", "per_step", "rollout", "per_slot"),
        "what the process return is compared with",
    )
    max_length: int | None = whole(None, "tokens, for per_slot", at_least=1, optional=True)
    outcome_weight: float = number(1.0, "weight of the outcome")
    process_weight: float = number(1.0, "weight of the process rewards")
    whiten_batch: bool = flag(False, "whiten over the batch's trained tokens")
    form: str = choice(
        "softmin", ("softmin", "future_min", "sum"), "what the steps' scores are reduced to"
    )

    paper = "2504.15275"
    equation = "A_j = sum_{j' >= j} (softmax(-s/T)_j' s_j' - baseline) + w (r_out - mean of others)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline == "per_slot" and self.max_length is None:
            raise MethodError("baseline='per_slot' needs it", field="max_length")
        if self.form == "future_min" and self.baseline not in _OF_RETURNS:
            reason = f"form='future_min' needs {' or '.join(_OF_RETURNS)}, got {self.baseline!r}"
            raise MethodError(reason, field="baseline")

    @property
    def reads(self) -> Reads:
        """One process stream, and the outcome where it is known."""
        return Reads(process="one")

    @property
    def batch_step(self) -> BatchNorm | None:
        """Whitening over tokens, with `whiten_batch`."""
        return WHITENING if self.whiten_batch else None

    def check_streams(self, signals: Collection[str]) -> None:
        """Of several process streams one must be named "process"."""
        check_one_process(signals)

    def credit(self, rollouts: Rollouts) -> Credit:
        """The returns less their baseline, plus the outcome's part."""
        group = Group.of(rollouts)
        others = standardize_scalar(rollouts.outcomes, group, "leave_one_out", ddof=1, eps=0.0)
        outcome = self.outcome_weight * others
        stream = find_process_stream(rollouts)
        if stream is None:
            return Credit.flat(rollouts, outcome, outcome=outcome)
        table = dense_stream(stream, rollouts)
        total, to_go, columns = self._returns(table, group)
        rivals = group.others(table.mask.any(1).to(torch.float64))
        returns = _Returns(total, to_go, table, group, rivals.clamp(min=1))
        baseline = _BASELINES[self.baseline](returns, float(self.max_length or 1))
        baseline = torch.where(rivals[:, None] > 0, baseline, to_go)
        process = (to_go - baseline) * table.mask
        stages = {"score": table.values, **columns, "baseline": baseline, "outcome": outcome}
        scale = group.largest(to_go) + group.largest(baseline) + group.largest(outcome)

        def entering() -> Tensor:
            """The same without lone and unscored responses, whose process part is 0."""
            sizes = (to_go.abs() + baseline.abs()) * (table.mask & (rivals[:, None] > 0))
            return group.largest(sizes) + group.largest(outcome)

        return Credit(
            table.slots, process + outcome, lambda: stages, scale=scale, entering=entering
        )

    def _returns(
        self, table: DenseStream, group: Group
    ) -> tuple[Float64[Tensor, " rollout"], Values, dict[str, Values]]:
        """O, the returns G, and what `explain` shows of them."""
        if self.form == "future_min":
            lowest = future_min(table.values, table.mask) * self.process_weight
            return lowest[:, 0], lowest, {"future_min": lowest}
        name, reward = "reward", table.values
        if self.form == "softmin":
            name, reward = "min", min_form(reward, table.mask, group, self.temperature)
        reward = reward * self.process_weight
        to_go = return_to_go(reward)
        return reward.sum(1), to_go, {name: reward, "return_to_go": to_go}


@dataclass(frozen=True, eq=False)
class _Returns:
    """The returns of a block, which baselines are made of.

    Args:
        total: O, the sum of each response's rewards.
        to_go: G, (rollout, slot).
        table: the process stream.
        group: which rows form a group.
        rivals: how many other responses of its group have scores, at least 1.
    """

    total: Float64[Tensor, " rollout"]
    to_go: Values
    table: DenseStream
    group: Group
    rivals: Float64[Tensor, " rollout"]

    @property
    def sizes(self) -> Values:
        """Tokens in each scored slot."""
        return (self.table.slots.sizes * self.table.mask).to(torch.float64)


def _per_token(returns: _Returns, max_length: float) -> Values:
    sizes = returns.sizes
    tokens = returns.group.others(sizes.sum(1)).clamp(min=1)
    return (returns.group.others(returns.total) / tokens)[:, None] * return_to_go(sizes)


def _per_step(returns: _Returns, max_length: float) -> Values:
    steps = returns.table.mask.sum(1)
    left, _ = residual(steps, returns.table.slots.width, k=0.0)
    share = returns.total / steps.clamp(min=1)
    return (returns.group.others(share) / returns.rivals)[:, None] * left


def _rollout(returns: _Returns, max_length: float) -> Values:
    return (returns.group.others(returns.total) / returns.rivals)[:, None]


def _per_slot(returns: _Returns, max_length: float) -> Values:
    area = (returns.to_go * returns.sizes).sum(1)
    return (returns.group.others(area) / (returns.rivals * max_length))[:, None]


_BASELINES: dict[str, Callable[[_Returns, float], Values]] = {
    "per_token": _per_token,
    "per_step": _per_step,
    "rollout": _rollout,
    "per_slot": _per_slot,
}
_OF_RETURNS = ("rollout", "per_slot")
