"""PASS-min: Advantage Fusion over the return of PURE's min-form."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.fused import Fused
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.fusion import (
    FusionTerms,
    PerRollout,
    ReadAt,
    gated_mask,
    weighted_streams,
)
from stepcredit.credit.stages.groups import Group, Mask, Standardized, Values
from stepcredit.credit.stages.process_streams import DenseStream, dense_stream
from stepcredit.credit.stages.returns import min_form, return_to_go
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, whole_responses
from stepcredit.settings.fields import number


@register("pass-min")
@dataclass(frozen=True)
class PASSMin(Fused):
    """Advantage Fusion of PASS with the min-form return of PURE in place of Divide-Length.

        z = N(s) of the response's steps, then c N(r_out) as one more value behind the last step
        r* = softmax(-z / T) z over all of these;  G_j = sum over j' >= j of r*, the outcome's too
        A_j = w_prc N(G)_j + w_out N(r_out) + w_fmt N(r_fmt)          W N(r_fmt) if gated

    Neither filler nor more steps can raise a minimum, and standardizing the returns bounds them.
    Fewer steps do raise it, unless a wrong outcome is in the minimum.

    Args:
        weights, operator, outcome_operator, ddof, eps, gate, clip: as for `PASS`.
        temperature: T of the soft minimum, in units of the standardized scores; 0 is strict: of
            equal values the earliest counts, and the outcome comes last.
        outcome_in_min: c, at least 0; 0 leaves the outcome out of the minimum. In a group whose
            outcomes are all equal the value behind the last step is 0; a response whose outcome is
            unknown has no such value.

    Raises:
        MethodError: a field out of range.

    Example:
        >>> import stepcredit as sc
        >>> rollouts = sc.Rollouts(group=[0, 0], outcome=[1.0, 0.0],
        ...     process=sc.Steps(ends=[[1, 2, 4], [2, 4]], scores=[[.9, .9, .6], [.2, .6]]))
        >>> method = sc.PASSMin(temperature=0, outcome_in_min=0)
        >>> [round(x, 3) for x in method(rollouts).ragged()[1].tolist()]
        [-2.488, -2.488, -2.488, -0.099, -0.099]

    Source: a combination of PASS (2606.29296) and PURE (2504.15275).
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

    def credit(self, rollouts: Rollouts) -> Credit:
        """Standardize, soft minimum, return-to-go, standardize, fuse."""
        group, weights = Group.of(rollouts), self._weights
        both = self._scalars(rollouts, group)
        last = self._after_the_steps(rollouts, both["outcome"].values)
        minima = {
            name: self._min_return(dense_stream(stream, rollouts), last, group, name)
            for name, stream in weighted_streams(rollouts, weights).items()
        }
        returns = {name: (minimum.standardized, minimum.slots) for name, minimum in minima.items()}
        slots = next((m.slots for m in minima.values()), whole_responses(rollouts.lengths))
        terms = FusionTerms(returns, both, weights, gated_mask(rollouts, self.gate), group)
        read = {name: slots.read(z.values, at) for name, (z, at) in returns.items()}
        advantage = terms.fused_process(read, slots) + terms.fused_scalars()

        def stages() -> dict[str, Values]:
            columns = [minimum.columns(name, slots) for name, minimum in minima.items()]
            columns.append({f"N({name})": normed.values for name, normed in both.items()})
            return {name: value for part in columns for name, value in part.items()}

        def chunks() -> ReadAt:
            return ReadAt(slots, slots.mask.double(), slots.read)

        return self._finished(Credit(slots, advantage, stages), rollouts, terms, chunks)

    def _after_the_steps(self, rollouts: Rollouts, outcome: PerRollout) -> tuple[Values, Mask]:
        """c N(r_out) and where it is known: one column, or none at c = 0."""
        width = int(self.outcome_in_min > 0)
        known = rollouts.has_outcome[:, None]
        return (self.outcome_in_min * outcome)[:, :width], known[:, :width]

    def _min_return(
        self, table: DenseStream, last: tuple[Values, Mask], group: Group, stream: str
    ) -> _MinReturn:
        """N of the min-form return over a stream's steps, and what led there."""
        normed = self._standardize(table, group, stream).values
        values, mask = torch.cat([normed, last[0]], 1), torch.cat([table.mask, last[1]], 1)
        soft = min_form(values, mask, group, self.temperature)
        width = normed.shape[1]
        to_go = return_to_go(soft)[:, :width] * table.mask
        final = self._standardize(replace(table, values=to_go, is_zero=False), group, stream)
        return _MinReturn(table.slots, normed, soft[:, :width], soft[:, width:], to_go, final)


@dataclass(frozen=True, eq=False)
class _MinReturn:
    """The tables of one stream on its slots.

    `last` is r* of the outcome, (rollout, 0) if there is none.
    """

    slots: Slots
    normed: Values
    soft: Values
    last: Values
    to_go: Values
    standardized: Standardized

    def columns(self, stream: str, slots: Slots) -> dict[str, Values]:
        """The tables by name, as `explain` shows them, read at other slots."""
        tables = {"N": self.normed, "min": self.soft, "return": self.to_go}
        tables["N(return)"] = self.standardized.values
        read = {f"{k}({stream})": slots.read(table, self.slots) for k, table in tables.items()}
        flat = {f"min({stream}), outcome": self.last} if self.last.shape[1] else {}
        return read | flat
