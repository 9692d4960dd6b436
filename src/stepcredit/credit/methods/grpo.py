"""The estimators of outcomes and step scores that PASS and PURE are compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch

from stepcredit.credit.estimator import (
    Credit,
    Estimator,
    group_of,
    refuse_missing,
)
from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.pass_ import ABOUT_WEIGHTS, weighted_reads
from stepcredit.credit.reads import Reads
from stepcredit.credit.stages.batch_norm import BatchNorm
from stepcredit.credit.stages.chunks import (
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
    Table,
    Weights,
    canonical_weights,
    check_named_process,
    check_one_process,
    own_process,
    process_streams,
    standardize_scalar,
    table_of,
)
from stepcredit.credit.stages.groups import TOLERANCE, Group, Values, standardize
from stepcredit.credit.stages.pooling import no_scores, standardized_union, weighted_sum
from stepcredit.credit.stages.returns import divide_length, residual, return_to_go
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Stream
from stepcredit.errors import MethodError
from stepcredit.settings.fields import choice, composed, number


@dataclass(frozen=True)
class OutcomeEstimator(Estimator):
    """What the outcome-only methods share: one operator on the outcome, flat over the response."""

    ddof: int = choice(1, (0, 1), "the std's divisor is n - ddof")
    eps: float = number(1e-6, "added to the std", at_least=0)

    operator: ClassVar[str] = "masked_norm"

    @property
    def reads(self) -> Reads:
        """The outcome of every response, and nothing else."""
        return Reads(process=None, outcome="required")

    @property
    def standardizes(self) -> bool:
        """Whether the operator divides by the std."""
        return self.operator == "masked_norm"

    def check(self, rollouts: Rollouts) -> None:
        """Every outcome must be known."""
        refuse_missing(~rollouts.has_outcome, "outcome", self)

    def credit(self, rollouts: Rollouts) -> Credit:
        """N of the outcome on every token."""
        group = group_of(rollouts)
        value = standardize_scalar(
            rollouts.outcomes, group, self.operator, ddof=self.ddof, eps=self.eps
        )
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

    paper = "2402.03300"
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
    paper = "2503.20783"
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
    paper = "2402.14740"
    equation = "A = r_out - mean of the others"


_ONE_EACH = canonical_weights((1.0, 1.0, 1.0))


def _parse_optional_weights(weights: Weights | None) -> None:
    if weights is not None:
        canonical_weights(weights)


def _parse_optional_chunker(
    rule: str | Mapping[str, Mapping[str, object]] | Chunker | None,
) -> None:
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
        weights: (process, outcome, format), or {stream: weight}; None: 1 each. `process` pooling
            has no weights: it reads the stream "process", or the only one.
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        k: 0 is the plain return-to-go; above, Divide-Length ("reward shaping").
        chunks: None: every score is a chunk; else as for `PASS`.
        clip: A within [-clip, clip].

    Returns:
        The format gate is not applied. A group without a process stream is one chunk per response,
        of score w_out r_out + w_fmt r_fmt; its `process` pooling gives 0.

    Raises:
        MethodError: no group has a process stream; weights for `process` pooling.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0, 1], [0]], [[1.0, 0.0], [0.0]]))
        >>> [round(x, 3) for x in sc.ProcessGRPO(pooling="process")(r).packed().tolist()]
        [0.577, -0.577, -0.577]

    Source: GRPO (2402.03300) section 4.1.3; PASS (2606.29296) section 4.1 (union), Table 3 (sum).
    """

    pooling: str = choice("sum", ("process", "sum", "union"), "what is standardized together")
    weights: Weights | None = composed(None, _parse_optional_weights, f"{ABOUT_WEIGHTS}; null: 1")
    ddof: int = choice(1, (0, 1), "the std's divisor is n - ddof")
    eps: float = number(1e-6, "added to the std", at_least=0)
    k: float = number(0.0, "exponent of the chunks left", at_least=0)
    chunks: str | Mapping[str, Mapping[str, object]] | Chunker | None = composed(
        None, _parse_optional_chunker, "null: every score a chunk; else a chunker's name"
    )

    paper = "2402.03300"
    equation = "A_j = sum_{j' >= j} N(w_prc s + w_out r_out + w_fmt r_fmt)_j'"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling != "process":
            if self.weights is None:
                object.__setattr__(self, "weights", tuple(_ONE_EACH.values()))
            return
        if self.weights is not None and canonical_weights(self.weights) != _ONE_EACH:
            raise MethodError("pooling='process' has no weights", field="weights")
        object.__setattr__(self, "weights", None)

    @property
    def reads(self) -> Reads:
        """One process stream with `process` pooling, else the streams with a weight."""
        rule = None if self.chunks is None else chunker(self.chunks)
        reads = Reads(process="one", outcome=None)
        if self.weights is not None:
            reads = weighted_reads(canonical_weights(self.weights))
        return replace(reads, text=reads_text(rule), steps=are_steps(rule))

    def check_streams(self, signals: Collection[str]) -> None:
        """The batch must have a process stream that is read."""
        if self.weights is None:
            check_one_process(signals)
            read = bool(signals)
        else:
            weights = canonical_weights(self.weights)
            check_named_process(weights, signals)
            read = any(name in weights for name in signals)
        if not read:
            raise MethodError("grpo-process needs a process stream")

    def credit(self, rollouts: Rollouts) -> Credit:
        """Pool, standardize, cut, divided return-to-go."""
        group, streams = group_of(rollouts), self._streams(rollouts)
        tables = {name: table_of(stream, rollouts) for name, stream in streams.items()}
        lead = next(iter(tables.values()), None) or no_scores(rollouts)
        pooled = self._pooled(tables, lead, rollouts, group)
        cut = self._chunks(lead, pooled, group, rollouts) if tables else Chunks(lead.slots)
        score = cut.slots.read(pooled, lead.slots)
        returns = return_to_go(score, cut.is_end)
        _, divisors = residual(cut.slots.counts, cut.slots.width, self.k, cut.is_end)
        stages = {"score": score, "return_to_go": returns, "divisor": divisors}
        return Credit(cut.slots, divide_length(returns, divisors), lambda: stages, cut.is_end)

    def _pooled(
        self, tables: dict[str, Table], lead: Table, rollouts: Rollouts, group: Group
    ) -> Values:
        """The standardized scores on the slots of the leading stream."""
        values = {
            name: lead.slots.read(t.values, t.slots) * lead.mask for name, t in tables.items()
        }
        normal = partial(standardize, group=group, ddof=self.ddof, eps=self.eps)
        if self.weights is None:
            return normal(next(iter(values.values()), lead.values), lead.mask)
        scalars = {"outcome": rollouts.outcome[:, None], "format": rollouts.format[:, None]}
        weights = canonical_weights(self.weights)
        if self.pooling == "union":
            return standardized_union(values, scalars, lead, weights, normal)
        return normal(weighted_sum({**values, **scalars}, lead, weights, group), lead.mask)

    def _streams(self, rollouts: Rollouts) -> dict[str, Stream]:
        if self.weights is not None:
            return process_streams(rollouts, canonical_weights(self.weights))
        stream = own_process(rollouts)
        return {} if stream is None else {"process": stream}

    def _chunks(self, lead: Table, pooled: Values, group: Group, rollouts: Rollouts) -> Chunks:
        if self.chunks is None:
            return Chunks(lead.slots)
        signal = Signal(lead.values, pooled, lead.mask, lead.slots, group, rollouts)
        return (chunker(self.chunks) or paper_chunker(signal))(signal)


def _scalar_weights(weights: Weights) -> dict[str, float]:
    named = canonical_weights(weights)
    for name in named:
        if name not in SCALARS:
            raise MethodError(f"gdpo takes outcome and format alone, not {name!r}", field="weights")
    return named


_TRAINERS_EPS = {"response": 1e-4, "token": 1e-6}


@register("gdpo")
@dataclass(frozen=True)
class GDPO(Estimator):
    """Each scalar reward standardized on its own, summed, then normalized over the batch.

        a = sum over n of w_n (r_n - mean) / (std + eps)
        response  A = (a - mean) / (std + 1e-4) over the batch's responses
        token     A = (a - mean) / sqrt(variance + 1e-8) over the batch's tokens

    Args:
        weights: {"outcome": weight, "format": weight}; a process stream is refused.
        batch_norm: "response" (TRL's) or "token" (verl's).
        eps: added to each group's std; None: what the trainer of that `batch_norm` adds, 1e-4 with
            "response" and 1e-6 with "token".
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
    eps: float | None = number(
        None, "added to a group's std; null: 1e-4, or 1e-6 with token", at_least=0, optional=True
    )

    paper = "2601.05242"
    equation = "A = batchnorm(sum_n w_n (r_n - mean) / (std + eps))"

    @property
    def reads(self) -> Reads:
        """The outcome and the format, those of them that have a weight."""
        return replace(weighted_reads(_scalar_weights(self.weights)), process=None, weights=None)

    @property
    def batch_step(self) -> BatchNorm:
        """The batch normalization: always."""
        return (
            BatchNorm("token", 1e-8) if self.batch_norm == "token" else BatchNorm("response", 1e-4)
        )

    def credit(self, rollouts: Rollouts) -> Credit:
        """The weighted sum of standardized rewards."""
        group = group_of(rollouts)
        both = {"outcome": rollouts.outcomes, "format": rollouts.formats}
        eps = _TRAINERS_EPS[self.batch_norm] if self.eps is None else self.eps
        normed = {
            name: standardize_scalar(scalar, group, "masked_norm", ddof=1, eps=eps)
            for name, scalar in both.items()
        }
        weights = _scalar_weights(self.weights)
        total = sum(
            (w * normed[n] for n, w in weights.items()), torch.zeros_like(normed["outcome"])
        )
        return Credit.flat(
            rollouts, total, **{f"N({n})": v for n, v in normed.items()}, total=total
        )


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
        Unknown outcomes add no term; a group without a process stream gets the outcome's term
        alone.

    Raises:
        MethodError: no group has a process stream, or there are several, none named "process".

    Example:
        >>> import stepcredit as sc
        >>> steps = sc.Steps([[0], [0]], [[1.0], [0.0]])
        >>> r = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
        >>> [round(x, 3) for x in sc.ADCA(alpha=1.0)(r).packed().tolist()]
        [2.0, -2.0]

    Source: ADCA-GRPO (AgentEvolver); alpha is 0.1 in its configuration, 1 in its code.
    """

    alpha: float = number(0.1, "weight of the step rewards")

    equation = "A_j = sum_{j' >= j} alpha (s - m)/sqrt(v + 1e-8) + z(r_out) at the last step"

    @property
    def reads(self) -> Reads:
        """One process stream, and the outcome where it is known."""
        return Reads(process="one")

    def check_streams(self, signals: Collection[str]) -> None:
        """The batch must have the one process stream."""
        check_one_process(signals)
        if not signals:
            raise MethodError("adca needs a process stream")

    def credit(self, rollouts: Rollouts) -> Credit:
        """Centre, scale, add the outcome, suffix sum."""
        group, stream = group_of(rollouts), own_process(rollouts)
        table = no_scores(rollouts) if stream is None else table_of(stream, rollouts)
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
