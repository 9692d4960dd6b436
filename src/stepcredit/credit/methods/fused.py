"""What PASS and PASS-min share: weights, operators and the gate of Advantage Fusion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from jaxtyping import Bool
from torch import Tensor

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.chunker_registry import needs_of
from stepcredit.credit.stages.chunks import Chunker
from stepcredit.credit.stages.fusion import (
    FusionTerms,
    Operators,
    ReadAt,
    Weights,
    canonical_operators,
    canonical_weights,
    check_named_process,
    check_operators,
    entering_scale,
    fused_scale,
    gated_mask,
    ready_advantages,
    standardize_scalars,
    sum_tables,
    weights_in_form,
)
from stepcredit.credit.stages.groups import OPERATORS, Group, Standardized, Values, standardized
from stepcredit.credit.stages.process_streams import DenseStream
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import every_token
from stepcredit.errors import MethodError
from stepcredit.settings.fields import choice, composed, flag, number

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


def with_chunker_reads(
    reads: Reads, rule: str | Mapping[str, Mapping[str, object]] | Chunker | None
) -> Reads:
    """What a method reads whose chunks follow a rule.

    Args:
        reads: what it reads besides.
        rule: the chunker, as for `chunker`; None: every score is a chunk.

    Example:
        >>> with_chunker_reads(Reads("one"), "cut_points").logprobs
        ('student',)
    """
    needs = needs_of(rule)
    models = ("student",) if needs == "student_logprobs" else ()
    logprobs = tuple(dict.fromkeys((*reads.logprobs, *models)))
    return replace(reads, text=needs == "text", steps=needs == "step_ends", logprobs=logprobs)


@dataclass(frozen=True)
class Fused(Estimator):
    """Base class of the methods built on Advantage Fusion: weights, operators and the gate."""

    weights: Weights = composed((1.0, 1.0, 1.0), canonical_weights, ABOUT_WEIGHTS)
    operator: Operators = composed(
        "masked_norm", _parse_operators, f"{' | '.join(OPERATORS)}, or {{stream: operator}}"
    )
    outcome_operator: str | None = composed(
        None, _parse_outcome_operator, "operator of outcome and format; null: as `operator`"
    )
    ddof: int = choice(1, (0, 1), "the std's divisor is n - ddof")
    eps: float = number(1e-6, "added to the std", at_least=0)
    gate: bool = flag(True, "a response that broke its format learns only from the format reward")

    paper = "2606.29296"
    by_stream: ClassVar[tuple[str, ...]] = ("operator",)
    """Fields that may be {stream: value}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, named in self._settings_by_stream.items():
            for name in named:
                if name not in self._weights:
                    raise MethodError(f"{name!r} has no weight", field=field)

    @cached_property
    def _weights(self) -> Mapping[str, float]:
        """The weight of each stream."""
        return canonical_weights(self.weights)

    @property
    def reads(self) -> Reads:
        """The streams with a weight, ready-made advantages among them, and the format's gate."""
        weighted = weighted_reads(self._weights)
        return replace(weighted, gate=self.gate, ready_made=True)

    @property
    def standardizes(self) -> bool:
        """Whether the operator of any stream divides by its std."""
        names = list(self._weights)
        rules = canonical_operators(self.operator, self.outcome_operator, names)
        return "masked_norm" in rules.values()

    def with_weights(self, weights: Mapping[str, float]) -> Fused:
        """The same method with other weights; a stream without one loses its other settings too."""
        kept: dict[str, Any] = {
            field: {name: value for name, value in named.items() if name in weights}
            for field, named in self._settings_by_stream.items()
        }
        return replace(self, weights=weights_in_form(weights, self.weights), **kept)

    @property
    def _settings_by_stream(self) -> dict[str, Mapping[str, Any]]:
        """Fields that are given as {stream: value}."""
        given = {field: vars(self)[field] for field in self.by_stream}
        return {field: value for field, value in given.items() if isinstance(value, Mapping)}

    def _standardize(self, table: DenseStream, group: Group, stream: str) -> Standardized:
        """N of a process stream."""
        if table.is_zero:
            return Standardized.of_zeros(table.values, group)
        rules = canonical_operators(self.operator, self.outcome_operator, [stream])
        least = self._least_stds.get(stream, 0.0)
        settings: dict[str, Any] = {"ddof": self.ddof, "eps": self.eps, "min_std": least}
        values, mask, counts = table.values, table.mask, table.counts
        return standardized(values, mask, group, rules[stream], counts=counts, **settings)

    def _scalars(self, rollouts: Rollouts, group: Group) -> dict[str, Standardized]:
        """N of outcome and format."""
        both = {"outcome": rollouts.outcomes, "format": rollouts.formats}
        rules = canonical_operators(self.operator, self.outcome_operator, list(both))
        return standardize_scalars(
            both, group, rules, ddof=self.ddof, eps=self.eps, min_std=self._least_stds
        )

    @cached_property
    def _least_stds(self) -> Mapping[str, float]:
        """The least std that each stream is divided by; a stream that is not named has no limit."""
        return {}

    def _finished(
        self, credit: Credit, rollouts: Rollouts, terms: FusionTerms, chunks: Callable[[], ReadAt]
    ) -> Credit:
        """The credit with the sizes of its terms, and with the ready-made advantages added.

        Args:
            credit: what was made of the fused terms.
            rollouts: the rollouts.
            terms: the terms.
            chunks: returns where the credit reads the process streams.
        """
        scale = fused_scale(terms)
        sized = replace(credit, scale=scale, entering=lambda: entering_scale(terms, chunks()))
        return self._with_ready(sized, rollouts, terms)

    def _with_ready(self, credit: Credit, rollouts: Rollouts, terms: FusionTerms) -> Credit:
        """The credit plus the ready-made advantages, which are added per token and unchanged."""
        tables = ready_advantages(rollouts, terms.weights, terms.gated)
        if not tables:
            return credit
        credit = credit.in_order()
        tokens, ready = every_token(rollouts.lengths), sum_tables(tables, tables[0])
        advantage = tokens.read(credit.advantage, credit.slots) + ready

        def stages() -> dict[str, Values]:
            shape = credit.advantage.shape
            chunked = credit.stages().items()
            read = {name: tokens.read(value.expand(shape), credit.slots) for name, value in chunked}
            return read | {"ready-made": ready}

        group, fused = terms.group, credit.entering
        assert credit.scale is not None
        assert fused is not None
        size = sum_tables([group.largest(table) for table in tables], credit.scale)
        return Credit(
            tokens, advantage, stages, scale=credit.scale + size, entering=lambda: fused() + size
        )

    def check_streams(self, signals: Collection[str]) -> None:
        """A triple of weights needs a stream named "process" among those of the batch."""
        check_named_process(self._weights, signals)

    def notes(self, rollouts: Rollouts) -> list[str]:
        """Streams that are weighted and absent or present and ignored, and gated responses whose
        advantage is 0.
        """
        read = [*self._weights, *(["outcome"] if self.reads.outcome else [])]
        gated = gated_mask(rollouts, self.gate)
        formats = self._scalars(rollouts, Group.of(rollouts))["format"]
        return stream_notes(rollouts, self._weights, read) + gate_notes(gated, formats)


def stream_notes(
    rollouts: Rollouts, weights: Mapping[str, float], read: Collection[str]
) -> list[str]:
    """Streams that have a weight and are absent, and streams that are present and ignored.

    Args:
        rollouts: a batch.
        weights: of the streams whose absence is noted.
        read: the streams that the method reads.
    """
    present = [*rollouts.streams]
    present += ["outcome"] * bool(rollouts.has_outcome.any())
    present += ["format"] * bool(rollouts.has_format.any())
    absent = [name for name in weights if name not in present and weights[name] != 0]
    notes = [f"stream {name!r} has a weight and is absent: it adds 0" for name in absent]
    ignored = [name for name in present if name not in read]
    return notes + [f"stream {name!r} has no weight: it is ignored" for name in ignored]


def gate_notes(gated: Bool[Tensor, " rollout"], formats: Standardized) -> list[str]:
    """Gated responses that learn nothing.

    Args:
        gated: True for the responses that learn from the format reward alone.
        formats: N of the format reward.
    """
    silent = gated & (formats.values[:, 0] == 0)
    if not bool(silent.any()):
        return []
    reason = "their format reward is absent, zero, or equal in the group"
    return [f"{int(silent.sum())} of {int(gated.sum())} gated responses learn nothing: {reason}"]
