"""Rollouts at rest: what a batch holds, where each value belongs, and how files keep it."""

from stepcredit.data.advantages import Advantages
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps, Stream, TokenAdvantages, Tokens

__all__ = ["Advantages", "Rollouts", "Steps", "Stream", "TokenAdvantages", "Tokens"]
