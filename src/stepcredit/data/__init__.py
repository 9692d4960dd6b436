"""Rollouts at rest: what a batch holds, where each value belongs, and how files keep it."""

from stepcredit.data.advantages import Advantages
from stepcredit.data.files import RolloutFile, read_rollouts, read_rows, write_rollouts
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps, Stream, TokenAdvantages, Tokens

__all__ = [
    "Advantages",
    "RolloutFile",
    "Rollouts",
    "Steps",
    "Stream",
    "TokenAdvantages",
    "Tokens",
    "read_rollouts",
    "read_rows",
    "write_rollouts",
]
