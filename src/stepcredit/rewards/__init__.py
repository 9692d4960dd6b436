"""Rewards: rules that give a response one number. `reward(name, **settings)` builds one."""

from stepcredit._moved import moved
from stepcredit.rewards.adapters import TRLReward
from stepcredit.rewards.base import Reward
from stepcredit.rewards.extract import after_thinking, answer_of, last_box, last_tag
from stepcredit.rewards.maths import Verdict, grade
from stepcredit.rewards.reward_registry import register_reward, reward, rewards

__all__ = [
    "Reward",
    "TRLReward",
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
    "compute_score": "engines.verl.score_function",
    "compute_score_async": "engines.verl.score_function",
}
"""Functions in the shape that a trainer calls: they moved to the engine of that trainer."""


def __getattr__(name: str) -> object:
    """A function that moved to an engine, with a DeprecationWarning."""
    if name in _IN_ENGINES:
        return moved("rewards", name, _IN_ENGINES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
