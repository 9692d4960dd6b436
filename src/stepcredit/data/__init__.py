"""Rollouts at rest: what a batch holds, where each value belongs, and how files keep it."""

from stepcredit.data.advantages import Advantages
from stepcredit.data.files import RolloutFile
from stepcredit.data.reading import read_rollouts, read_rows
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps, Stream, TokenAdvantages, Tokens
from stepcredit.data.writing import write_rollouts

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
