"""GiGPO: the return of each step beside those of other steps taken in the same state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.fused import (
    ABOUT_WEIGHTS,
    gate_notes,
    stream_notes,
    weighted_reads,
)
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.fusion import (
    SCALARS,
    FusionTerms,
    ReadAt,
    Weights,
    canonical_weights,
    check_named_process,
    entering_scale,
    fused_scale,
    gated_mask,
    standardize_scalars,
)
from stepcredit.credit.stages.groups import Group, Standardized, Values, is_rounding
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.credit.stages.returns import return_to_go
from stepcredit.credit.stages.state_groups import COMBINES, StateGroups
from stepcredit.data.forest import broadcast, to_dense
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots
from stepcredit.data.states import FIELD as STATES
from stepcredit.data.states import StepStates
from stepcredit.data.streams import Steps, Stream
from stepcredit.errors import MethodError, RolloutError
from stepcredit.settings.fields import choice, composed, flag, number

OPERATORS = {"std": "masked_norm", "center": "center"}
"""The group operator that each value of `norm` stands for."""


def _weights_of_one_stream(weights: Weights) -> dict[str, float]:
    named = canonical_weights(weights)
    streams = [name for name in named if name not in SCALARS]
    if len(streams) != 1:
        reason = f"expected one process stream beside outcome and format, got {len(streams)}"
        raise MethodError(reason, field="weights")
    return named


@register("gigpo")
@dataclass(frozen=True)
class GiGPO(Estimator):
    """The return of each step, standardized among the group's steps in the same state.

        G_j = sum over l >= j of gamma^(l - j) r_l,  r = step scores, plus the outcome at the last
        A_j = w_prc N_state(G_j) + w_out N(r_out) + w_fmt N(r_fmt)          W N(r_fmt) if gated

    N_state is over all steps of the group that were taken in the same state, which `step_states`
    names; a state that was met once gives 0. If every state was met once, the method is GRPO.

    Args:
        weights: (process, outcome, format), or {stream: weight} with exactly one process stream;
            its weight is that of the step part.
        gamma: the discount per step.
        outcome_in_return: whether the outcome is added to the last step's reward; an unknown one
            adds nothing.
        norm: N of the step part, the outcome and the format: "std" is (x - mean) / (std + eps),
            "center" is x - mean.
        gate: a response that broke its format learns only from the format reward. Its steps stay
            among those of their states.
        combine: what several keys per step, from the finest to the coarsest, give: "fallback" the N
            of the finest level at which the step's state has another member; "weighted" the mean
            over all these levels, with weights (k + 1)^alpha, k = 0 for the coarsest (HGPO).
        alpha: exponent of the weights of levels; read by "weighted" alone.
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        clip: the last step: A is limited to [-clip, clip].

    Returns:
        Without step scores, the rewards are 0 but for the outcome. A response without scores among
        others that have them has rewards of 0 too.

    Raises:
        RolloutError: a response without `step_states`, scores per token, or scores of other steps
            than those of the states.
        MethodError: a field out of range.

    Example:
        >>> import stepcredit as sc
        >>> rollouts = sc.Rollouts([0, 0], step_ends=[[1, 2], [2]], outcome=[1.0, 0.0],
        ...                        step_states=[["start", "door"], ["start"]])
        >>> [row.tolist() for row in sc.GiGPO(norm="center", gamma=1.0)(rollouts).ragged()]
        [[1.0, 1.0, 0.5], [-1.0, -1.0, -1.0]]

    Source: GiGPO (2505.10978); HGPO (2602.22817) for `combine="weighted"`. Differs: each trajectory
        counts once in the mean and std of outcomes, in the authors' code once per step; the gate
        and the format reward are added here. HGPO has no outcome term: weights=(1, 0, 0).
    """

    weights: Weights = composed((1.0, 1.0, 1.0), _weights_of_one_stream, ABOUT_WEIGHTS)
    gamma: float = number(0.95, "discount per step", at_least=0, at_most=1)
    outcome_in_return: bool = flag(True, "add the outcome to the last step's reward")
    norm: str = choice("std", tuple(OPERATORS), "of step part, outcome and format alike")
    gate: bool = flag(True, "a response that broke its format learns only from the format reward")
    combine: str = choice("fallback", COMBINES, "what several states per step give")
    alpha: float = number(1.0, "exponent of the weights of levels, with weighted", at_least=0)
    ddof: int = choice(1, (0, 1), "the std's divisor is n - ddof")
    eps: float = number(1e-6, "added to the std", at_least=0)

    paper = "2505.10978"
    equation = (
        "A_j = w_prc N_state(sum_{l >= j} gamma^(l - j) r_l) + w_out N(r_out) + w_fmt N(r_fmt)"
    )

    @cached_property
    def _weights(self) -> Mapping[str, float]:
        return _weights_of_one_stream(self.weights)

    @cached_property
    def _stream(self) -> str:
        """The name of the process stream."""
        return next(name for name in self._weights if name not in SCALARS)

    @property
    def reads(self) -> Reads:
        """One process stream, the states of its steps, the outcome and the format."""
        weighted = weighted_reads(self._weights)
        return Reads(
            process="weighted",
            weights=self._weights,
            outcome="optional" if self.outcome_in_return else weighted.outcome,
            format=weighted.format,
            gate=self.gate,
            steps=True,
            states=True,
        )

    @property
    def standardizes(self) -> bool:
        """Whether N divides by the std."""
        return self.norm == "std"

    def check(self, rollouts: Rollouts) -> None:
        """Every response needs states, and the scores must be of their steps."""
        states = rollouts.step_states
        missing = torch.ones_like(rollouts.format_ok)
        self.refuse_missing(missing if states is None else states.counts == 0, STATES)
        stream = process_signals(rollouts).get(self._stream)
        if states is not None and stream is not None:
            _check_steps(stream, states, self._stream)

    def check_streams(self, signals: Collection[str]) -> None:
        """A triple of weights needs a stream named "process" among those of the batch."""
        check_named_process(self._weights, signals)

    def credit(self, rollouts: Rollouts) -> Credit:
        """Discounted returns, standardized within states; fused with outcome and format."""
        group, states = Group.of(rollouts), StateGroups.of(rollouts)
        slots = states.slots
        returns = self._returns(rollouts, slots)
        settings: dict[str, Any] = {"ddof": self.ddof, "eps": self.eps}
        normed = states.standardize(
            returns, OPERATORS[self.norm], combine=self.combine, alpha=self.alpha, **settings
        )
        both = standardize_scalars(
            {"outcome": rollouts.outcomes, "format": rollouts.formats},
            group,
            dict.fromkeys(SCALARS, OPERATORS[self.norm]),
            **settings,
        )
        process = {self._stream: (Standardized(normed, group.largest(normed)), slots)}
        gated = gated_mask(rollouts, self.gate)
        terms = FusionTerms(process, both, self._weights, gated, group)
        advantage = terms.fused_process({self._stream: normed}, slots) + terms.fused_scalars()

        def stages() -> dict[str, Values]:
            sizes = states.members()
            names = ["members"] if len(sizes) == 1 else [f"members {k}" for k in range(len(sizes))]
            columns = {"return": returns, **dict(zip(names, sizes, strict=True))}
            columns["N(return)"] = normed
            return columns | {f"N({name})": scalar.values for name, scalar in both.items()}

        def entering() -> Tensor:
            return entering_scale(terms, ReadAt(slots, slots.mask.double(), slots.read))

        return Credit(slots, advantage, stages, scale=fused_scale(terms), entering=entering)

    def _returns(self, rollouts: Rollouts, slots: Slots) -> Values:
        """G of every step; 0 where it is rounding noise beside the rewards that it adds up."""
        rewards = torch.zeros(slots.mask.shape, dtype=torch.float64, device=slots.mask.device)
        stream = process_signals(rollouts).get(self._stream)
        if stream is not None and not stream.is_zeroed:
            rewards = to_dense(stream.values, stream.counts, width=slots.width, dtype=torch.float64)
        sizes = rewards.abs()
        if self.outcome_in_return:
            outcome = rollouts.outcome.double()[:, None] * slots.end_slots()
            rewards, sizes = rewards + outcome, sizes + outcome.abs()
        returns = return_to_go(rewards, gamma=self.gamma)
        noise = is_rounding(returns.abs(), return_to_go(sizes, gamma=self.gamma))
        return torch.where(noise, 0.0, returns)

    def notes(self, rollouts: Rollouts) -> list[str]:
        """Streams and gated responses without effect, and steps alone in their state."""
        weights = dict(self._weights)
        if self.outcome_in_return:
            weights.pop(self._stream)  # without scores, the outcome is what the steps return
        notes = stream_notes(rollouts, weights, [*self._weights, *SCALARS[:1]])
        alone = StateGroups.of(rollouts).alone_share
        if alone:
            notes.append(f"{alone:.1%} of the steps are alone in their state: their step part is 0")
        rules = {"format": OPERATORS[self.norm]}
        formats = {"format": rollouts.formats}
        group = Group.of(rollouts)
        both = standardize_scalars(formats, group, rules, ddof=self.ddof, eps=self.eps)
        return notes + gate_notes(gated_mask(rollouts, self.gate), both["format"])


def _check_steps(stream: Stream, states: StepStates, name: str) -> None:
    """The scores must be one per step, of the steps that have the states.

    Raises:
        RolloutError: names the first row at fault.
    """
    scored = stream.counts > 0
    if not isinstance(stream, Steps):
        reason = "a score per token: gigpo reads one per step"
        raise RolloutError(reason, row=int(scored.nonzero()[0]), field=name)
    other = scored & (stream.counts != states.counts)
    if not bool(other.any()):
        total = states.ends.numel()
        own = broadcast(scored, states.counts, total=total)
        apart = states.ends[own] != stream.ends
        rows = broadcast(
            torch.arange(len(scored), device=scored.device), states.counts, total=total
        )
        other = torch.zeros_like(scored).index_fill_(0, rows[own][apart], True)
    if bool(other.any()):
        reason = "scores of other steps than those of step_states"
        raise RolloutError(reason, row=int(other.nonzero()[0]), field=name)
