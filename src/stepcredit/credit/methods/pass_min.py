"""PASS-min: Advantage Fusion over the return of PURE's min-form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from stepcredit.credit.estimator import Credit, group_of
from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.pass_ import Fused
from stepcredit.credit.reads import Reads
from stepcredit.credit.stages.fusion import (
    PerRollout,
    ReadAt,
    Table,
    canonical_weights,
    entering_scale,
    fuse_process,
    fuse_scalars,
    fused_scale,
    gated,
    process_streams,
    table_of,
)
from stepcredit.credit.stages.groups import Group, Mask, Values
from stepcredit.credit.stages.returns import min_form, return_to_go
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, whole_responses
from stepcredit.settings.fields import number


@register("pass-min")
@dataclass(frozen=True)
class PASSMin(Fused):
    """Both papers in one: Advantage Fusion with the min-form return in Divide-Length's place.

        z = N(s) of the response's steps, then c N(r_out) as one more value behind the last step
        r* = softmax(-z / T) z over all of these;  G_j = sum over j' >= j of r*, the outcome's too
        A_j = w_prc N(G)_j + w_out N(r_out) + w_fmt N(r_fmt)          W N(r_fmt) if gated

    A filler can't raise a minimum, nor can more steps; standardizing the returns bounds them. A
    response with fewer steps has a higher minimum, unless a wrong outcome is in the minimum.

    Args:
        weights, operator, outcome_operator, ddof, eps, gate, clip: as for `PASS`.
        temperature: T of the soft minimum, in units of the standardized scores; 0 is strict: of
            equal values the earlier one counts, the outcome last.
        outcome_in_min: c, at least 0. 0 leaves the outcome out of the minimum. Where a group's
            outcomes are all equal, the value behind its last steps is 0; where they are unknown,
            there is no such value.

    Raises:
        MethodError: a field out of range.

    Example:
        >>> import stepcredit as sc
        >>> rollouts = sc.Rollouts(group=[0, 0], outcome=[1.0, 0.0],
        ...     process=sc.Steps(ends=[[1, 2, 4], [2, 4]], scores=[[.9, .9, .6], [.2, .6]]))
        >>> method = sc.PASSMin(temperature=0, outcome_in_min=0)
        >>> [round(x, 3) for x in method(rollouts).ragged()[1].tolist()]
        [-2.488, -2.488, -2.488, -0.099, -0.099]

    Source: ours, from PASS (2606.29296) and PURE (2504.15275).
    """

    temperature: float = number(0.1, "T of the soft minimum; 0 is strict", at_least=0)
    outcome_in_min: float = number(
        2.0, "c: the minimum also sees c N(r_out); 0: the steps alone", at_least=0
    )

    equation = (
        "A_j = w_prc N(sum_{j' >= j} softmax(-z/T)_j' z_j') + w_out N(r_out) + w_fmt N(r_fmt), "
        "z the N(s), then c N(r_out)"
    )

    @property
    def reads(self) -> Reads:
        """As for every fused method; the outcome also where it is in the minimum alone."""
        reads = super().reads
        return replace(reads, outcome="optional") if self.outcome_in_min > 0 else reads

    def _reads_unweighted(self, stream: str) -> bool:
        return stream == "outcome" and self.outcome_in_min > 0

    def credit(self, rollouts: Rollouts) -> Credit:
        """Standardize, soft minimum, return-to-go, standardize, fuse."""
        group, weights = group_of(rollouts), canonical_weights(self.weights)
        scalars = self._scalars(rollouts, group)
        last = self._after_the_steps(rollouts, scalars["outcome"])
        found = {
            name: self._min_return(table_of(stream, rollouts), last, group, name)
            for name, stream in process_streams(rollouts, weights).items()
        }
        returns = {name: (own.standardized, own.slots) for name, own in found.items()}
        slots = next((own.slots for own in found.values()), whole_responses(rollouts.lengths))
        shut = gated(rollouts, self.gate)
        flat = fuse_scalars(scalars["outcome"], scalars["format"], shut, weights)
        read = {name: slots.read(*source) for name, source in returns.items()}
        advantage = fuse_process(read, weights, slots, shut) + flat

        def columns_read() -> dict[str, Values]:
            columns = [own.columns(name, slots) for name, own in found.items()]
            columns.append({f"N({name})": value for name, value in scalars.items()})
            return {name: value for part in columns for name, value in part.items()}

        credit = Credit(
            slots,
            advantage,
            columns_read,
            scale=fused_scale(returns, scalars, weights, group),
            entering=lambda: entering_scale(
                returns,
                scalars,
                weights,
                ReadAt(slots, slots.mask.double(), slots.read),
                shut,
                group,
            ),
        )
        return self._with_ready(credit, rollouts, weights, ~shut)

    def _after_the_steps(self, rollouts: Rollouts, outcome: PerRollout) -> tuple[Values, Mask]:
        """c N(r_out) and where it is known: one column, or none at c = 0."""
        width = int(self.outcome_in_min > 0)
        known = rollouts.has_outcome[:, None]
        return (self.outcome_in_min * outcome)[:, :width], known[:, :width]

    def _min_return(
        self, table: Table, last: tuple[Values, Mask], group: Group, stream: str
    ) -> _MinReturn:
        """N of the min-form return over a stream's steps, and what led there."""
        normed = self._standardize(table.values, table.mask, group, stream)
        values, mask = torch.cat([normed, last[0]], 1), torch.cat([table.mask, last[1]], 1)
        soft = min_form(values, mask, group, self.temperature)
        width = normed.shape[1]
        to_go = return_to_go(soft)[:, :width] * table.mask
        final = self._standardize(to_go, table.mask, group, stream)
        return _MinReturn(table.slots, normed, soft[:, :width], soft[:, width:], to_go, final)


@dataclass(frozen=True, eq=False)
class _MinReturn:
    """One stream's tables on its slots; `last` is the outcome's r*, (rollout, 0) without one."""

    slots: Slots
    normed: Values
    soft: Values
    last: Values
    to_go: Values
    standardized: Values

    def columns(self, stream: str, slots: Slots) -> dict[str, Values]:
        """The tables by name, as `explain` shows them, read at other slots."""
        tables = {"N": self.normed, "min": self.soft, "return": self.to_go}
        tables["N(return)"] = self.standardized
        read = {f"{k}({stream})": slots.read(table, self.slots) for k, table in tables.items()}
        flat = {f"min({stream}), outcome": self.last} if self.last.shape[1] else {}
        return read | flat
