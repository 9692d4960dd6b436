"""Rollouts: what a batch holds, which token each value belongs to, and files of rollouts."""

from stepcredit.data.advantages import Advantages
from stepcredit.data.files.reading import read_rollouts, read_rows
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.files.writing import write_rollouts
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
