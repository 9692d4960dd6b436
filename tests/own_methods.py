"""A user's own methods, chunkers and splitter, with which engines and the lab are tested.

The fixture `own_methods` registers them by name while a test runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch

import stepcredit as sc
from stepcredit.credit.method_registry import METHODS
from stepcredit.credit.stages import Chunks, LeadStream, is_whole, register_chunker
from stepcredit.credit.stages.chunker_registry import CHUNKERS
from stepcredit.settings.fields import text
from stepcredit.signals import Response, Splitter, register_splitter
from stepcredit.signals.splitting import SPLITTERS


@dataclass(frozen=True)
class LogRatio(sc.Estimator):
    """A method made of log-probs: twice OPD."""

    paper = "0000.00001"

    @property
    def reads(self) -> sc.Reads:
        return sc.Reads(process=None, logprobs=("student", "teacher"), outcome=None)

    def credit(self, rollouts: sc.Rollouts) -> sc.Credit:
        credit = sc.OPD().credit(rollouts)
        return replace(credit, advantage=2 * credit.advantage)


@dataclass(frozen=True)
class Blend(sc.Estimator):
    """A method whose weights have a name of its own; its credit is that of PASS without the gate.

    Args:
        shares: weight of each stream.
    """

    shares: Mapping[str, float] = field(default_factory=lambda: {"process": 2.0, "outcome": 0.5})

    @property
    def reads(self) -> sc.Reads:
        return sc.Reads("weighted", self.shares, ready_made=True)

    def with_weights(self, weights: Mapping[str, float]) -> Blend:
        return replace(self, shares=dict(weights))

    def credit(self, rollouts: sc.Rollouts) -> sc.Credit:
        return sc.PASS(weights=self.shares, gate=False).credit(rollouts)


@dataclass(frozen=True)
class HalfOutcome(sc.Estimator):
    """A method of outcomes alone, which divides by no std."""

    @property
    def reads(self) -> sc.Reads:
        return sc.Reads(process=None, outcome="required")

    @property
    def standardizes(self) -> bool:
        return False

    def credit(self, rollouts: sc.Rollouts) -> sc.Credit:
        return sc.Credit.flat(rollouts, rollouts.outcome[:, None] / 2)


@dataclass(frozen=True)
class AfterMark(Splitter):
    """Steps end after each character of `mark`."""

    mark: str = text(";", "what a step ends with")

    def ends(self, response: Response) -> list[int]:
        return [place + 1 for place, letter in enumerate(response.text) if letter in self.mark]


def every_n(lead: LeadStream, n: int = 2) -> Chunks:
    """Chunks of n tokens."""
    slots = lead.token_slots
    place = torch.arange(1, slots.width + 1)
    return Chunks(slots, ((place % n == 0) & slots.mask) | slots.end_slots())


def after_dashes(lead: LeadStream) -> Chunks:
    """Chunks that end at a dash; all token texts must be there."""
    slots = lead.token_slots
    is_end = torch.zeros(slots.mask.shape, dtype=torch.bool)
    for row, tokens in enumerate(lead.rollouts.tokens or []):
        is_end[row, : len(tokens)] = torch.tensor([token == "-" for token in tokens])
    return Chunks(slots, is_end | slots.end_slots())


def register_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register all of them; they are forgotten when `monkeypatch` is undone."""
    for registry in (METHODS, CHUNKERS, SPLITTERS):
        monkeypatch.setattr(registry, "_known", registry.all())
    for name, method in {
        "log-ratio": LogRatio,
        "blend": Blend,
        "half-outcome": HalfOutcome,
    }.items():
        sc.register(name)(method)
    register_splitter("after-mark")(AfterMark)
    register_chunker("every-n", n=is_whole(at_least=1))(every_n)
    register_chunker("after-dashes", needs="text")(after_dashes)
