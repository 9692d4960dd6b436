"""GRPO with process supervision: step scores, outcomes and formats in one pool."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.fused import ABOUT_WEIGHTS, weighted_reads, with_chunker_reads
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.chunker_registry import chunker
from stepcredit.credit.stages.chunks import Chunker, Chunks, LeadStream, chunks_within_parts
from stepcredit.credit.stages.fusion import (
    Weights,
    canonical_weights,
    check_named_process,
    weighted_streams,
)
from stepcredit.credit.stages.groups import Group, Values, standardize
from stepcredit.credit.stages.pooling import no_scores, standardized_union, weighted_sum
from stepcredit.credit.stages.process_streams import (
    DenseStream,
    check_one_process,
    dense_stream,
    find_process_stream,
    lacks_logprobs,
)
from stepcredit.credit.stages.returns import divide_length, residual, return_to_go
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Stream
from stepcredit.errors import MethodError
from stepcredit.settings.fields import choice, composed, number

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

        process  z = N(s)                                       only step scores
        sum      z = N(w_prc s + w_out r_out + w_fmt r_fmt)     "reward shaping": with k and chunks
        union    one mean and std over all s, all r_out and all r_fmt; standardized, weighted, added
        A_j = (sum over j' >= j of gamma^(j' - j) z_j') / (K - j + 1)^k

    Args:
        pooling: what is standardized together; see above. An absent format counts as 0 in `union`.
        weights: (process, outcome, format), or {stream: weight}; None: 1 each. `process` pooling
            has no weights: it reads the stream "process", or the only one.
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        k: 0 is the plain return-to-go; above, Divide-Length ("reward shaping").
        chunks: None: every score is a chunk; else as for `PASS`.
        gamma: the discount per chunk, from 0 to 1, as for `PASS`; the divisor is not changed.
        clip: the last step: A is limited to [-clip, clip].

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
        Differs: `gamma` is added here.
    """

    pooling: str = choice("sum", ("process", "sum", "union"), "what is standardized together")
    weights: Weights | None = composed(None, _parse_optional_weights, f"{ABOUT_WEIGHTS}; null: 1")
    ddof: int = choice(1, (0, 1), "the std's divisor is n - ddof")
    eps: float = number(1e-6, "added to the std", at_least=0)
    k: float = number(0.0, "exponent of the chunks left", at_least=0)
    chunks: str | Mapping[str, Mapping[str, object]] | Chunker | None = composed(
        None, _parse_optional_chunker, "null: every score is a chunk; else a chunker's name"
    )
    gamma: float = number(1.0, "discount per chunk", at_least=0, at_most=1)

    paper = "2402.03300"
    equation = "A_j = sum_{j' >= j} gamma^(j' - j) N(w_prc s + w_out r_out + w_fmt r_fmt)_j'"

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
        reads = Reads(process="one", outcome=None)
        if self.weights is not None:
            reads = weighted_reads(canonical_weights(self.weights))
        return with_chunker_reads(reads, self.chunks)

    def check(self, rollouts: Rollouts) -> None:
        """A chunker of log-probs needs those of every response."""
        if "student" in self.reads.logprobs:
            self.refuse_missing(lacks_logprobs(rollouts, "student"), "student_logprobs")

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
        """Pooled scores, standardized and cut into chunks; their return-to-go, divided."""
        group, streams = Group.of(rollouts), self._streams(rollouts)
        tables = {name: dense_stream(stream, rollouts) for name, stream in streams.items()}
        lead = next(iter(tables.values()), None) or no_scores(rollouts)
        pooled = self._pooled(tables, lead, rollouts, group)
        chunks = Chunks(lead.slots)
        if tables and self.chunks is not None:
            stream = LeadStream(lead.values, pooled, lead.mask, lead.slots, group, rollouts)
            chunks = chunks_within_parts(chunker(self.chunks), stream)
        slots, ends = chunks.slots, chunks.chunk_ends
        score = slots.read(pooled, lead.slots)
        returns = return_to_go(score, ends, self.gamma)
        _, divisors = residual(slots.counts, slots.width, self.k, ends)
        stages = {"score": score, "return_to_go": returns, "divisor": divisors}
        return Credit(slots, divide_length(returns, divisors), lambda: stages, ends)

    def _pooled(
        self, tables: dict[str, DenseStream], lead: DenseStream, rollouts: Rollouts, group: Group
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
            return weighted_streams(rollouts, canonical_weights(self.weights))
        stream = find_process_stream(rollouts)
        return {} if stream is None else {"process": stream}
