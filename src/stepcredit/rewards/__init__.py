"""Rewards: rules that give a response one number. `reward(name, **settings)` builds one."""

from stepcredit._moved import moved
from stepcredit.rewards.base import Reward
from stepcredit.rewards.boxes import last_box
from stepcredit.rewards.extract import answer_of, last_tag
from stepcredit.rewards.maths import Verdict, grade
from stepcredit.rewards.reward_registry import register_reward, reward, rewards
from stepcredit.rewards.thinking import after_thinking

__all__ = [
    "Reward",
    "Verdict",
    "after_thinking",
    "answer_of",
    "grade",
    "last_box",
    "last_tag",
    "register_reward",
    "reward",
    "rewards",
]

_IN_ENGINES = {
    "TRLReward": "engines.trl.reward_function",
    "compute_score": "engines.verl.score_function",
    "compute_score_async": "engines.verl.score_function",
}
"""Functions with a trainer's calling convention, which are in the engine of that trainer now."""


def __getattr__(name: str) -> object:
    """A function or class that was moved to an engine, with a DeprecationWarning."""
    if name in _IN_ENGINES:
        return moved("rewards", name, _IN_ENGINES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
