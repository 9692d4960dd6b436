"""Rewards: rules that give a response one number. `reward(name, **settings)` builds one."""

from stepcredit.rewards.adapters import TRLReward, compute_score, compute_score_async
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
    "compute_score",
    "compute_score_async",
    "grade",
    "last_box",
    "last_tag",
    "register_reward",
    "reward",
    "rewards",
]
