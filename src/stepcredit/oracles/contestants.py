"""Every estimator on every signal, measured against the exact advantages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import METHODS
from stepcredit.credit.stages.batch_norm import Moments
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.errors import MethodError
from stepcredit.oracles.every_group import GROUP_SIZE, SignalledGroups, WorldGroups
from stepcredit.oracles.gradient_validity import MeanGradient, Validity, useful_groups
from stepcredit.oracles.identification import Identification
from stepcredit.oracles.step_scores import SIGNALS
from stepcredit.oracles.worlds import WORLDS

BATCH = 1e9
"""Responses in the batch of a method that normalizes over the batch: as good as infinitely many."""
NO_SIGNAL = "none"
"""The signal's name in the row of a method that runs without step scores or models of theirs."""
SCORED_MODELS = frozenset({"teacher", "prm"})
"""The models that the step scores define; the others are the policy's own or uniform."""
STREAM = "process"
"""The name of the stream that holds the step scores."""
EXACT = "exact advantage"
"""The first row: a REINFORCE that knows the exact advantage."""

Credit = Float64[np.ndarray, " step"]


@dataclass(frozen=True)
class Contestant:
    """A method with its settings.

    Args:
        method: its name.
        settings: its fields.

    Example:
        >>> Contestant("pass", {"k": 1.0}).label
        'pass k=1.0'
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The method and its settings, as one would write them after `--method` and `--set`."""
        return " ".join([self.method, *(f"{k}={_written(v)}" for k, v in self.settings.items())])

    def estimator(self) -> Estimator:
        """The estimator.

        Raises:
            MethodError: an unknown method or field, or weights that leave out the step signal.
        """
        built = METHODS.build(self.method, self.settings)
        if built.reads.first_unweighted_stream([STREAM]) is not None:
            raise MethodError(
                f"has no {STREAM!r}, the name of the step signal here", field="weights"
            )
        return built


def _written(value: Any) -> str:
    """A field's value as one would write it after `--set`."""
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


CONTESTANTS = (
    Contestant("grpo"),
    Contestant("dr-grpo"),
    Contestant("rloo"),
    Contestant("reinforce-plus-plus"),
    Contestant("reinforce-plus-plus", {"of": {"pass": {"operator": "center"}}}),
    Contestant("gdpo"),
    Contestant("grpo-process"),
    Contestant("grpo-process", {"pooling": "process"}),
    Contestant("grpo-process", {"pooling": "union"}),
    Contestant("grpo-process", {"k": 0.7}),
    Contestant("pass"),
    Contestant("pass", {"k": 0}),
    Contestant("pass", {"k": 1}),
    Contestant("pass", {"scope": "process"}),
    Contestant("pass", {"scope": "process", "k": 0}),
    Contestant("pass", {"scope": "process", "match_std": True}),
    Contestant("pass", {"gamma": 0, "k": 0}),
    Contestant("pass-min"),
    Contestant("pass-min", {"outcome_in_min": 1}),
    Contestant("pass-min", {"outcome_in_min": 0}),
    Contestant("pure"),
    Contestant("pure", {"baseline": "rollout"}),
    Contestant("pure", {"form": "future_min", "baseline": "rollout"}),
    Contestant("pure", {"form": "sum"}),
    Contestant("turn-return"),
    Contestant("turn-return", {"baseline": "trajectories"}),
    Contestant("gigpo"),
    Contestant("gigpo", {"gamma": 1}),
    Contestant("gigpo", {"gamma": 1, "norm": "center"}),
    Contestant("adca"),
    Contestant("prime"),
    Contestant("opd"),
    Contestant("g-opd"),
    Contestant("mix"),
    Contestant("redistribute"),
    Contestant("redistribute", {"by_sign": False}),
    Contestant("reweight"),
    Contestant("sign-size"),
    Contestant("rlsd"),
)
"""The rows of the table: every method of the library, and the variants that claims are about."""


@dataclass(frozen=True)
class Figure:
    """A figure, and the standard error of its mean over the signal's draws.

    Args:
        mean: over the draws.
        standard_error: 0 where the signal has one draw: then the figure is exact.
    """

    mean: float
    standard_error: float = 0.0

    @classmethod
    def of(cls, draws: Sequence[float]) -> Figure:
        """The figure of one value per draw.

        Example:
            >>> Figure.of([0.25, 0.75])
            Figure(mean=0.5, standard_error=0.25)
        """
        mean = math.fsum(draws) / len(draws)
        if len(draws) == 1 or not math.isfinite(mean):
            return cls(mean)
        return cls(mean, float(np.std(draws, ddof=1)) / math.sqrt(len(draws)))


@dataclass(frozen=True)
class OracleRow:
    """One method under one signal.

    Args:
        method: its label.
        signal: the signal's name.
        figures: by name, those of `Identification` and of `Validity`, and "groups", of
            `useful_groups` beside RLOO.
    """

    method: str
    signal: str
    figures: Mapping[str, Figure]


def oracle_table(
    contestants: Iterable[Contestant] = CONTESTANTS,
    worlds: Iterable[str] = tuple(WORLDS),
    progress: Callable[[int, int], None] | None = None,
    group_size: int = GROUP_SIZE,
) -> list[OracleRow]:
    """Measure methods under all signals over every group of some worlds.

    Args:
        contestants: the methods.
        worlds: names of worlds; all figures are over these together.
        progress: called with (rows done, rows in all).
        group_size: responses per group, 2 or more. From 4 on, each one more multiplies the time
            by about 3.5.

    Returns:
        One row per signal and method, sorted by signal; the first is the exact advantage's. A
        method that reads no step signal has one row, with the signal "none"; a method that compares
        states has a row without a signal too.

    Raises:
        MethodError: a method that does not exist, or lacks what it reads.

    Example:
        >>> exact, rloo = oracle_table([Contestant("rloo")], ["delayed"])
        >>> round(rloo.figures["cosine"].mean, 6), round(exact.figures["rmse"].mean, 6)
        (1.0, 0.0)
    """
    parts = tuple(WorldGroups(WORLDS[name], group_size) for name in worlds)
    pairs = list(_pairs(list(contestants)))
    rows = [_exact_row(parts)]
    batches: dict[str, list[SignalledGroups]] = {}
    for number, (contestant, estimator, signal) in enumerate(pairs):
        if signal not in batches:
            batches = {signal: _batches(parts, signal)}
        rows.append(_row(contestant.label, estimator, signal, batches[signal]))
        if progress is not None:
            progress(number + 1, len(pairs))
    return rows


def _pairs(contestants: Sequence[Contestant]) -> Iterable[tuple[Contestant, Estimator, str]]:
    """Each method with each of its signals, sorted by signal."""
    built = [(contestant, contestant.estimator()) for contestant in contestants]
    for signal in (NO_SIGNAL, *SIGNALS):
        for contestant, estimator in built:
            if reads_steps(estimator) if signal != NO_SIGNAL else needs_no_signal(estimator):
                yield contestant, estimator, signal


def reads_steps(estimator: Estimator) -> bool:
    """Whether a method reads step scores, or log-probs of a model that the scores define.

    Example:
        >>> import stepcredit as sc
        >>> reads_steps(sc.PASS()), reads_steps(sc.OPD()), reads_steps(sc.Reweight())
        (True, True, False)
    """
    reads = estimator.reads
    return reads.process is not None or not SCORED_MODELS.isdisjoint(reads.logprobs)


def needs_no_signal(estimator: Estimator) -> bool:
    """Whether a method credits responses without step scores or models of theirs.

    Example:
        >>> import stepcredit as sc
        >>> needs_no_signal(sc.GRPO()), needs_no_signal(sc.GiGPO()), needs_no_signal(sc.PASS())
        (True, True, False)
    """
    return not reads_steps(estimator) or estimator.reads.states


def _batches(parts: tuple[WorldGroups, ...], signal: str) -> list[SignalledGroups]:
    if signal == NO_SIGNAL:
        return [SignalledGroups(parts, None)]
    found = SIGNALS[signal]
    return [SignalledGroups(parts, found, draw) for draw in range(found.draws)]


def _exact_row(parts: tuple[WorldGroups, ...]) -> OracleRow:
    (batch,) = _batches(parts, NO_SIGNAL)
    return _of_draws(EXACT, NO_SIGNAL, [figures_of(batch, batch.advantage)])


def _row(
    label: str, estimator: Estimator, signal: str, batches: Sequence[SignalledGroups]
) -> OracleRow:
    draws = [figures_of(batch, credit_of(estimator, batch)) for batch in batches]
    return _of_draws(label, signal, draws)


def _of_draws(label: str, signal: str, draws: Sequence[Mapping[str, float]]) -> OracleRow:
    names = draws[0]
    return OracleRow(label, signal, {n: Figure.of([draw[n] for draw in draws]) for n in names})


def credit_of(estimator: Estimator, batch: SignalledGroups) -> Credit:
    """The estimator's advantage for each step of every group.

    A method that normalizes over its batch gets the moments of an infinitely large batch, in which
    every group is as frequent as it is probable.

    Args:
        estimator: any method.
        batch: every group of some worlds.

    Raises:
        MethodError: the method lacks what it reads.
    """
    rollouts = batch.rollouts
    estimator = estimator.for_batch(rollouts)
    if estimator.batch_step is None:
        return estimator(rollouts).packed().double().numpy()
    estimator.check_streams(process_signals(rollouts))
    moments = _batch_moments(estimator, batch)
    return estimator(rollouts, moments=moments).packed().double().numpy()


def _batch_moments(estimator: Estimator, batch: SignalledGroups) -> Moments:
    """Moments of the advantages before the method's batch step, by probability."""
    step = estimator.batch_step
    assert step is not None
    lengths = batch.rollouts.lengths
    sizes = torch.ones(int(lengths.sum()))
    if step.unit == "response":
        sizes = sizes / lengths.repeat_interleave(lengths)
    unchanged = Moments(count=2.0, mean=0.0, squares=1.0)
    before = estimator(batch.rollouts, moments=unchanged).packed().double()
    weight = sizes.double() * torch.from_numpy(batch.chance) * BATCH
    return Moments.of(before, weight)


def figures_of(batch: SignalledGroups, credit: Credit) -> dict[str, float]:
    """Identification and gradient validity of some credit, by name, and `useful_groups`.

    Args:
        batch: every group of some worlds.
        credit: of each step of each rollout.
    """
    known = Identification.of(credit, batch.advantage, batch.chance)
    validity, rival = _validity(batch, credit), _validity(batch, _leave_one_out(batch))
    groups = useful_groups(validity, rival.variance)
    return asdict(known) | asdict(validity) | {"groups": groups}


def _validity(batch: SignalledGroups, credit: Credit) -> Validity:
    return Validity.of([MeanGradient.of(part, values) for part, values in batch.by_part(credit)])


def _leave_one_out(batch: SignalledGroups) -> Credit:
    """The credit of RLOO, whose mean gradient is exact: the rival that reads no signal."""
    return credit_of(Contestant("rloo").estimator(), batch)
