"""The estimators PASS and PURE are compared with, and the distillation and implicit-reward ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from stepcredit.credit.chunks import Chunker, Chunks, Signal, chunker
from stepcredit.credit.estimator import BatchNorm, Credit, Estimator, group_of, register
from stepcredit.credit.estimators import ABOUT_WEIGHTS, the_process
from stepcredit.credit.fields import choice, composed, flag, number
from stepcredit.credit.groups import TOLERANCE, Group, Mask, Values, standardize
from stepcredit.credit.returns import divide_length, divisor, residual_count, return_to_go
from stepcredit.credit.streams import (
    SCALARS,
    Table,
    Weights,
    canonical_weights,
    process_streams,
    standardize_scalar,
    table_of,
)
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots
from stepcredit.errors import MethodError, RolloutError


@dataclass(frozen=True)
class OutcomeEstimator(Estimator):
    """What the outcome-only methods share: one operator on the outcome, flat over the response."""

    ddof: int = choice(1, (0, 1), "the std's divisor is n - ddof")
    eps: float = number(1e-6, "added to the std", at_least=0)

    operator: ClassVar[str] = "masked_norm"

    def check(self, rollouts: Rollouts) -> None:
        """Every outcome must be known."""
        _refuse_missing(~rollouts.has_outcome, "outcome", self)

    def credit(self, rollouts: Rollouts) -> Credit:
        """N of the outcome on every token."""
        group = group_of(rollouts)
        value = standardize_scalar(rollouts.outcomes, group, self.operator, ddof=self.ddof, eps=self.eps)
        return Credit.flat(rollouts, value, outcome=rollouts.outcome[:, None])


@register("grpo")
@dataclass(frozen=True)
class GRPO(OutcomeEstimator):
    """Group-relative outcome: the same advantage on all tokens.

        A = (r_out - mean) / (std + eps)

    Args:
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        clip: A within [-clip, clip].

    Raises:
        RolloutError: an outcome is unknown.

    Example:
        >>> import stepcredit as sc
        >>> sc.GRPO(eps=0)(sc.Rollouts([0, 0], lengths=[1, 2], outcome=[1.0, 0.0])).packed()
        tensor([ 0.7071, -0.7071, -0.7071])

    Source: GRPO (2402.03300) section 4.1.2.
    """

    equation = "A = (r_out - mean) / (std + eps)"


@register("dr-grpo")
@dataclass(frozen=True)
class DrGRPO(OutcomeEstimator):
    """GRPO without the division by the std; its other half, no 1/|o| in the loss, is the trainer's.

        A = r_out - mean

    Raises:
        RolloutError: an outcome is unknown.

    Example:
        >>> import stepcredit as sc
        >>> sc.DrGRPO()(sc.Rollouts([0, 0], lengths=[1, 2], outcome=[1.0, 0.0])).packed()
        tensor([ 0.5000, -0.5000, -0.5000])

    Source: Dr.GRPO (2503.20783).
    """

    operator = "center"
    equation = "A = r_out - mean"


@register("rloo")
@dataclass(frozen=True)
class RLOO(OutcomeEstimator):
    """REINFORCE with the mean of the other responses as baseline.

        A = r_out - mean of the others

    Raises:
        RolloutError: an outcome is unknown.

    Example:
        >>> import stepcredit as sc
        >>> sc.RLOO()(sc.Rollouts([0, 0], lengths=[1, 2], outcome=[1.0, 0.0])).packed()
        tensor([ 1., -1., -1.])

    Source: RLOO (2402.14740).
    """

    operator = "leave_one_out"
    equation = "A = r_out - mean of the others"


def _parse_optional_chunker(rule: str | Mapping[str, Mapping[str, object]] | Chunker | None) -> None:
    if rule is not None:
        chunker(rule)


@register("grpo-process")
@dataclass(frozen=True)
class ProcessGRPO(Estimator):
    """GRPO with process supervision: the return-to-go of standardized step scores.

        process  z = N(s)                                       step scores alone
        sum      z = N(w_prc s + w_out r_out + w_fmt r_fmt)     "reward shaping": with k and chunks
        union    one mean and std over all s, all r_out and all r_fmt; standardized, weighted, added
        A_j = (sum over j' >= j of z_j') / (K - j + 1)^k

    Args:
        pooling: what is standardized together; see above. An absent format counts as 0 in `union`.
        weights: (process, outcome, format), or {stream: weight}; `process` pooling has none.
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        k: 0 is the plain return-to-go; above, Divide-Length ("reward shaping").
        chunks: None: every score is a chunk; else as for `PASS`.
        clip: A within [-clip, clip].

    Returns:
        The format gate is not applied.

    Raises:
        MethodError: there is no process stream.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0, 1], [0]], [[1.0, 0.0], [0.0]]))
        >>> [round(x, 3) for x in sc.ProcessGRPO(pooling="process")(r).packed().tolist()]
        [0.577, -0.577, -0.577]

    Source: GRPO (2402.03300) section 4.1.3; PASS (2606.29296) section 4.1 (`union`), Table 3 (`sum`).
    """

    pooling: str = choice("sum", ("process", "sum", "union"), "what is standardized together")
    weights: Weights = composed((1.0, 1.0, 1.0), canonical_weights, ABOUT_WEIGHTS)
    ddof: int = choice(1, (0, 1), "the std's divisor is n - ddof")
    eps: float = number(1e-6, "added to the std", at_least=0)
    k: float = number(0.0, "exponent of the chunks left", at_least=0)
    chunks: str | Mapping[str, Mapping[str, object]] | Chunker | None = composed(
        None, _parse_optional_chunker, "null: every score a chunk; else a chunker's name"
    )

    equation = "A_j = sum_{j' >= j} N(w_prc s + w_out r_out + w_fmt r_fmt)_j'"

    def credit(self, rollouts: Rollouts) -> Credit:
        """Pool, standardize, cut, divided return-to-go."""
        group, weights = group_of(rollouts), canonical_weights(self.weights)
        tables = {n: table_of(s, rollouts) for n, s in process_streams(rollouts, weights).items()}
        if not tables:
            raise MethodError("grpo-process needs a process stream")
        lead = next(iter(tables.values()))
        values = {name: lead.slots.read(t.values, t.slots) * lead.mask for name, t in tables.items()}
        pooled = _POOLINGS[self.pooling](self, values, lead, rollouts, group)
        cut = self._chunks(lead, pooled, group, rollouts)
        score = cut.slots.read(pooled, lead.slots)
        returns = return_to_go(score, cut.is_end)
        divisors = divisor(residual_count(cut.slots.mask, cut.is_end), self.k)
        stages = {"score": score, "return_to_go": returns, "divisor": divisors}
        return Credit(cut.slots, divide_length(returns, divisors), lambda: stages, cut.is_end)

    def _chunks(self, lead: Table, pooled: Values, group: Group, rollouts: Rollouts) -> Chunks:
        if self.chunks is None:
            return Chunks(lead.slots)
        rule = chunker(self.chunks) or chunker("steps")
        assert rule is not None
        return rule(Signal(lead.values, pooled, lead.mask, lead.slots, group, rollouts))

    def _normal(self, values: Values, mask: Mask, group: Group) -> Values:
        return standardize(values, mask, group, "masked_norm", ddof=self.ddof, eps=self.eps)

    def _pool_process(
        self, values: dict[str, Values], lead: Table, rollouts: Rollouts, group: Group
    ) -> Values:
        return self._normal(next(iter(values.values())), lead.mask, group)

    def _pool_sum(
        self, values: dict[str, Values], lead: Table, rollouts: Rollouts, group: Group
    ) -> Values:
        weights = canonical_weights(self.weights)
        scalars = {"outcome": rollouts.outcome[:, None], "format": rollouts.format[:, None]}
        both = {name: table for name, table in {**values, **scalars}.items() if name in weights}
        total = sum(weights[name] * table for name, table in both.items()) * lead.mask
        scale = sum(abs(weights[name]) * group.largest(table) for name, table in both.items())
        noise = total.abs() <= TOLERANCE * group.spread(scale)
        return self._normal(torch.where(noise, 0.0, total), lead.mask, group)

    def _pool_union(
        self, values: dict[str, Values], lead: Table, rollouts: Rollouts, group: Group
    ) -> Values:
        weights = canonical_weights(self.weights)
        scalars = torch.stack([rollouts.outcome, rollouts.format], 1)
        union = torch.cat([*values.values(), scalars], 1)
        mask = torch.cat([*[lead.mask] * len(values), torch.ones_like(scalars, dtype=torch.bool)], 1)
        parts = self._normal(union, mask, group).split([lead.slots.width] * len(values) + [1, 1], 1)
        named = dict(zip([*values, *SCALARS], parts, strict=True))
        return sum(weights[name] * named[name] for name in weights if name in named) * lead.mask


_POOLINGS = {
    "process": ProcessGRPO._pool_process,
    "sum": ProcessGRPO._pool_sum,
    "union": ProcessGRPO._pool_union,
}


def _scalar_weights(weights: Weights) -> dict[str, float]:
    named = canonical_weights(weights)
    for name in named:
        if name not in SCALARS:
            raise MethodError(f"gdpo takes outcome and format alone, not {name!r}", field="weights")
    return named


@register("gdpo")
@dataclass(frozen=True)
class GDPO(Estimator):
    """Each scalar reward standardized on its own, summed, then normalized over the batch.

        a = sum over n of w_n (r_n - mean) / (std + 1e-6)
        response  A = (a - mean) / (std + 1e-4) over the batch's responses
        token     A = (a - mean) / sqrt(variance + 1e-8) over the batch's tokens

    Args:
        weights: {"outcome": weight, "format": weight}; a process stream is refused.
        batch_norm: "response" (TRL's) or "token" (verl's).
        clip: A within [-clip, clip].

    Returns:
        Unknown rewards add 0. A batch of one response, or of equal ones, gives 0.

    Raises:
        MethodError: a weight for a process stream.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
        >>> [round(x, 3) for x in sc.GDPO()(r).packed().tolist()]
        [0.707, -0.707]

    Source: GDPO (2601.05242).
    """

    weights: Weights = composed(
        {"outcome": 1.0, "format": 1.0}, _scalar_weights, "{'outcome': number, 'format': number}"
    )
    batch_norm: str = choice("response", ("response", "token"), "what the batch-wide step counts")

    equation = "A = batchnorm(sum_n w_n (r_n - mean) / (std + 1e-6))"

    @property
    def batch_step(self) -> BatchNorm:
        """The batch normalization: always."""
        return BatchNorm("token", 1e-8) if self.batch_norm == "token" else BatchNorm("response", 1e-4)

    def credit(self, rollouts: Rollouts) -> Credit:
        """The weighted sum of standardized rewards."""
        group = group_of(rollouts)
        both = {"outcome": rollouts.outcomes, "format": rollouts.formats}
        normed = {
            name: standardize_scalar(scalar, group, "masked_norm", ddof=1, eps=1e-6)
            for name, scalar in both.items()
        }
        weights = _scalar_weights(self.weights)
        total = sum((w * normed[n] for n, w in weights.items()), torch.zeros_like(normed["outcome"]))
        return Credit.flat(rollouts, total, **{f"N({n})": v for n, v in normed.items()}, total=total)


def _refuse_missing(missing: Bool[Tensor, " rollout"], field: str, method: Estimator) -> None:
    if bool(missing.any()):
        name = method.name or type(method).__name__
        raise RolloutError(f"missing: {name} needs it", row=int(missing.nonzero()[0]), field=field)


@dataclass(frozen=True)
class LogprobEstimator(Estimator):
    """What the methods made of log-probs share: which models' they need, on every token."""

    models: ClassVar[tuple[str, ...]] = ()

    def check(self, rollouts: Rollouts) -> None:
        """Every rollout must have every model's log-probs."""
        for name in self.models:
            stream = rollouts.logprobs.get(name)
            every = torch.ones_like(rollouts.format_ok)
            _refuse_missing(every if stream is None else stream.counts == 0, f"{name}_logprobs", self)

    def tables(self, rollouts: Rollouts) -> list[Values]:
        """Each model's log-probs as a (rollout, token) table."""
        return [table_of(rollouts.logprobs[name], rollouts).values for name in self.models]


@register("opd")
@dataclass(frozen=True)
class OPD(LogprobEstimator):
    """On-policy distillation: the negative log-ratio to a teacher, token by token.

        A_t = -c (log p_student - log p_teacher)

    Args:
        coefficient: c.
        clip: A within [-clip, clip].

    Raises:
        RolloutError: a rollout lacks `student_logprobs` or `teacher_logprobs`.

    Example:
        >>> import stepcredit as sc
        >>> sc.OPD()(sc.Rollouts([0], logprobs={"student": [[-1.0]], "teacher": [[-0.5]]})).packed()
        tensor([0.5000])

    Source: OPD (2306.13649).
    """

    coefficient: float = number(1.0, "scale of the log-ratio")

    models = ("student", "teacher")
    equation = "A_t = -c (log p_student - log p_teacher)"

    def credit(self, rollouts: Rollouts) -> Credit:
        """The log-ratio at every token."""
        student, teacher = self.tables(rollouts)
        slots = Slots(rollouts.lengths, rollouts.lengths)
        ratio = student - teacher
        return Credit(slots, -self.coefficient * ratio, lambda: {"student - teacher": ratio})


@register("g-opd")
@dataclass(frozen=True)
class GOPD(LogprobEstimator):
    """Generalized on-policy distillation, with a base model to extrapolate from.

        A_t = -c [(log p_student - log p_base) - lam (log p_teacher - log p_base)]

    Args:
        coefficient: c.
        lam: lambda; 1 is OPD for any base.
        clip: A within [-clip, clip].

    Raises:
        RolloutError: a rollout lacks student, teacher or base log-probs.

    Example:
        >>> import stepcredit as sc
        >>> probs = {"student": [[-1.0]], "teacher": [[-0.5]], "base": [[-2.0]]}
        >>> sc.GOPD(lam=1.0)(sc.Rollouts([0], logprobs=probs)).packed()
        tensor([0.5000])

    Source: G-OPD (2602.12125).
    """

    coefficient: float = number(1.0, "scale of the log-ratio")
    lam: float = number(1.25, "how far beyond the base the teacher is followed")

    models = ("student", "teacher", "base")
    equation = "A_t = -c [(log p_student - log p_base) - lam (log p_teacher - log p_base)]"

    def credit(self, rollouts: Rollouts) -> Credit:
        """The generalized log-ratio at every token."""
        student, teacher, base = self.tables(rollouts)
        slots = Slots(rollouts.lengths, rollouts.lengths)
        own, taught = student - base, teacher - base
        stages = {"student - base": own, "teacher - base": taught}
        return Credit(slots, -self.coefficient * (own - self.lam * taught), lambda: stages)


@register("adca")
@dataclass(frozen=True)
class ADCA(Estimator):
    """Step rewards centred over responses that count alike, the outcome joining the last step.

        A_j = sum over j' >= j of alpha (s - m) / sqrt(v + 1e-8), + z(r_out) at the last step
        m = mean_i mean_j s_ij,  v = mean_i mean_j (s_ij - m)^2,  z the population z-score

    Args:
        alpha: weight of the step rewards.
        clip: A within [-clip, clip].

    Returns:
        Unknown outcomes add no term.

    Raises:
        MethodError: there is no process stream, or several without one named "process".

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0], [0]], [[1.0], [0.0]]), outcome=[1.0, 0.0])
        >>> [round(x, 3) for x in sc.ADCA(alpha=1.0)(r).packed().tolist()]
        [2.0, -2.0]

    Source: ADCA-GRPO (AgentEvolver); alpha is 0.1 in its configuration, 1 in its code.
    """

    alpha: float = number(0.1, "weight of the step rewards")

    equation = "A_j = sum_{j' >= j} alpha (s - m)/sqrt(v + 1e-8) + z(r_out) at the last step"

    def credit(self, rollouts: Rollouts) -> Credit:
        """Centre, scale, add the outcome, suffix sum."""
        stream = the_process(rollouts)
        if stream is None:
            raise MethodError("adca needs a process stream")
        group, table = group_of(rollouts), table_of(stream, rollouts)
        reward = self.alpha * _balanced_norm(table, group)
        outcome = standardize_scalar(rollouts.outcomes, group, "masked_norm", ddof=0, eps=1e-8)
        total = reward + outcome * table.slots.end_slots()
        stages = {"reward": reward, "N(outcome)": outcome}
        scale = group.largest(reward) + group.largest(outcome)
        return Credit(table.slots, return_to_go(total), lambda: stages, scale=scale)


def _balanced_norm(table: Table, group: Group) -> Values:
    """(s - m) / sqrt(v + 1e-8), every response of a group counting once."""
    each = table.mask.sum(1, keepdim=True, dtype=torch.float64)
    weight = table.mask / each.clamp(min=1)
    rows = group.sum((each > 0).to(torch.float64)).clamp(min=1)
    mean = group.sum(table.values * weight) / rows
    deviation = (table.values - group.spread(mean)) * table.mask
    variance = group.sum(deviation.square() * weight) / rows
    constant = group.largest(deviation) <= TOLERANCE * group.largest(table.values)
    scale = torch.where(constant, 0.0, (variance + 1e-8).rsqrt())
    return deviation * group.spread(scale)


@register("prime")
@dataclass(frozen=True)
class PRIME(LogprobEstimator):
    """Implicit process rewards of a language model trained on outcomes.

        r_t = beta (log p_prm - log p_ref), less the mean of the others' mean_t r
        A_t = sum over t' >= t of [w r_t' + (r_out - mean of the others) at the last token], whitened

    Args:
        beta: scale of the log-ratio.
        process_weight: w.
        whiten_batch: (A - mean) / sqrt(variance + 1e-8) over the batch's trained tokens.
        clip: the very last step, A within [-clip, clip].

    Returns:
        A lone response's process part is 0; unknown outcomes add no term.

    Raises:
        RolloutError: a rollout lacks `prm_logprobs` or `ref_logprobs`.

    Example:
        >>> import stepcredit as sc
        >>> probs = {"prm": [[-1.0], [-2.0]], "ref": [[-2.0], [-2.0]]}
        >>> r = sc.Rollouts([0, 0], logprobs=probs, outcome=[1.0, 0.0])
        >>> [round(x, 3) for x in sc.PRIME()(r).packed().tolist()]
        [0.707, -0.707]

    Source: PRIME (2502.01456).
    """

    beta: float = number(0.05, "scale of the log-ratio")
    process_weight: float = number(5.0, "weight of the implicit rewards")
    whiten_batch: bool = flag(True, "whiten over the batch's trained tokens")

    models = ("prm", "ref")
    equation = "A_t = whiten(sum_{t' >= t} w (r_t' - mean of others) + outcome part)"

    @property
    def batch_step(self) -> BatchNorm | None:
        """Whitening over tokens, unless switched off."""
        return BatchNorm("token", 1e-8) if self.whiten_batch else None

    def credit(self, rollouts: Rollouts) -> Credit:
        """Log-ratio, leave-one-out baseline, suffix sum."""
        group, slots = group_of(rollouts), Slots(rollouts.lengths, rollouts.lengths)
        prm, ref = self.tables(rollouts)
        reward = self.beta * (prm - ref)
        mean = reward.sum(1) / rollouts.lengths
        rivals = group.others(torch.ones_like(mean))
        baseline = group.others(mean) / rivals.clamp(min=1)
        others = standardize_scalar(rollouts.outcomes, group, "leave_one_out", ddof=1, eps=0.0)
        process = (reward - baseline[:, None]) * (slots.mask & (rivals > 0)[:, None])
        total = self.process_weight * process + others * slots.end_slots()
        scale = abs(self.process_weight) * group.largest(reward) + group.largest(others)
        stages = {"reward": reward, "baseline": baseline[:, None], "N(outcome)": others}
        return Credit(slots, return_to_go(total), lambda: stages, scale=scale)
