"""Rewards by name: the built-in ones, the user's, and those of installed packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stepcredit.rewards.base import Reward
from stepcredit.settings.registry import Registry

Cls = TypeVar("Cls", bound=type[Reward])
_ROOM = "stepcredit.rewards"
REWARDS: Registry[Reward] = Registry(
    "reward",
    "stepcredit.rewards",
    own={
        "maths": f"{_ROOM}.maths",
        "exact": f"{_ROOM}.exact",
        "qa-em": f"{_ROOM}.qa",
        "qa-f1": f"{_ROOM}.qa",
        "qa-joint": f"{_ROOM}.qa",
        "format": f"{_ROOM}.formats",
        "reasoning-gym": f"{_ROOM}.gym",
    },
)


def register_reward(name: str) -> Callable[[Cls], Cls]:
    """Register a reward under a name, for the command line and the trainers.

    Raises:
        SettingError: the name is already used by another reward.

    Example:
        >>> from dataclasses import dataclass
        >>> @register_reward("short")
        ... @dataclass(frozen=True)
        ... class Short(Reward):
        ...     def rewards(self, texts, facts):
        ...         return [float(len(text) < 10) for text in texts]
        >>> reward("short")(["brief", "by no means brief"])
        [1.0, 0.0]
    """
    return REWARDS.register(name)


def reward(name: str, /, **settings: Any) -> Reward:
    """Build a reward by its name.

    Args:
        name: a name listed by `rewards()`.
        settings: fields of the reward.

    Raises:
        SettingError: an unknown reward or field, or a value out of range.

    Example:
        >>> reward("format", template="boxed")([r"So \\boxed{5}.", "So 5."])
        [1.0, 0.0]
    """
    return REWARDS.build(name, settings)


def reward_class(name: str) -> type[Reward]:
    """The class of the reward of that name.

    Raises:
        SettingError: there is no such reward; the message suggests a similar name.

    Example:
        >>> reward_class("format").gives
        'format'
    """
    return REWARDS.named(name)


def rewards() -> dict[str, type[Reward]]:
    """All rewards by name, those of installed packages included.

    Example:
        >>> rewards()["maths"].__name__
        'Maths'
    """
    return REWARDS.all()
