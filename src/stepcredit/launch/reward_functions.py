"""The rewards of a recipe as TRL reward functions, under the names that the recipe gives them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepcredit.engines.build import build_named, fields_of
from stepcredit.engines.trl.reward_function import TRLReward
from stepcredit.errors import RolloutError, SettingError
from stepcredit.rewards.base import Reward
from stepcredit.rewards.reward_registry import REWARDS
from stepcredit.settings.modules import object_named
from stepcredit.settings.registry import hint

Function = Callable[..., Sequence[float | None]]


class NamedReward:
    """A TRL reward function with a name; a reward of stepcredit gives None without a gold answer.

    Args:
        name: its name in the trainer and the logs.
        function: a `TRLReward`, or a function of the user's: called with (prompts, completions,
            **columns), it returns one number per completion; it may be a coroutine function.

    Example:
        >>> scored = NamedReward("right", TRLReward("exact"))
        >>> scored(prompts=["?", "?"], completions=["42", "42"], answer=["42", None])
        [1.0, None]
    """

    def __init__(self, name: str, function: Function) -> None:
        self.__name__, self.function = name, function
        if isinstance(function, TRLReward):
            function.__name__ = name

    @property
    def rule(self) -> Reward | None:
        """The reward of stepcredit; None for a function of the user's."""
        return self.function.rule if isinstance(self.function, TRLReward) else None

    @property
    def answer(self) -> str | None:
        """The column with the gold answer; where it is null, the reward is None."""
        return getattr(self.rule, "answer", None)

    @property
    def is_format(self) -> bool:
        """Whether it is a format reward of stepcredit."""
        return self.rule is not None and self.rule.gives == "format"

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """One number per completion, None where there is no gold answer."""
        inputs: dict[str, Any] = {"prompts": prompts, "completions": completions, **columns}
        given: Any = self.function(**inputs)
        values = list(asyncio.run(given) if asyncio.iscoroutine(given) else given)
        if len(values) != len(completions):
            reason = f"gave {len(values)} rewards for {len(completions)} completions"
            raise SettingError(reason, field=f"rewards.{self.__name__}")
        return values


def reward_functions(
    named: Mapping[str, str], fields: Mapping[str, Mapping[str, Any]]
) -> list[NamedReward]:
    """The rewards of a recipe.

    Args:
        named: {name: reward}; a reward as `stepcredit rewards` lists it, or MODULE:FUNCTION of a
            TRL reward function (the module may be in the current folder).
        fields: {name: {field: value}}.

    Raises:
        SettingError, EngineError: an unknown reward or field; the message begins with the key.

    Example:
        >>> [each.__name__ for each in reward_functions({"right": "exact"}, {})]
        ['right']
    """
    for name in fields:
        if name not in named:
            reason = f"no reward has this name{hint(name, list(named))}"
            raise SettingError(reason, field=f"reward_fields.{name}")
    return [_named_reward(name, rule, fields.get(name)) for name, rule in named.items()]


def _named_reward(name: str, rule: str, given: Any) -> NamedReward:
    place, fields_place = f"rewards.{name}", f"reward_fields.{name}"
    fields = fields_of(given, fields_place)
    if ":" in str(rule):
        if fields:
            raise SettingError("a function has no fields", field=fields_place)
        return NamedReward(name, _imported(name, rule))
    if rule not in REWARDS.names():
        reason = f"unknown reward {rule!r}{hint(str(rule), REWARDS.names())}, or MODULE:FUNCTION"
        raise SettingError(reason, field=place)
    return NamedReward(name, TRLReward(build_named(REWARDS, rule, fields, place, fields_place)))


def _imported(name: str, address: str) -> Function:
    try:
        found: Function = object_named(address)
    except Exception as error:
        reason = f"{address}: {type(error).__name__}: {error}"
        raise SettingError(reason, field=f"rewards.{name}") from error
    if not callable(found):
        raise SettingError(f"{address} is not a function", field=f"rewards.{name}")
    return found


def tag_format(training: Any, functions: Sequence[NamedReward]) -> None:
    """Set `format_reward` where the recipe does not and one of its rewards is a format reward.

    Raises:
        SettingError: more than one is.
    """
    judges = [each.__name__ for each in functions if each.is_format]
    if training.format_reward is None and judges:
        if len(judges) > 1:
            reason = f"name one of {', '.join(judges)}: each of them is a format reward"
            raise SettingError(reason, field="format_reward")
        training.format_reward = judges[0]


def check_facts(functions: Sequence[NamedReward], rows: Sequence[Mapping[str, Any]]) -> None:
    """Call each reward of stepcredit on one row, to find a missing column before training starts.

    Raises:
        SettingError: a column that a reward needs is missing, or can't be read.
    """
    for each in functions:
        if each.rule is None or not len(rows):
            continue
        first = rows[0]
        if each.answer is not None and each.answer in first and first[each.answer] is None:
            continue
        try:
            each.rule(["?"], [first])
        except RolloutError as error:
            known = ", ".join(name for name in first if name != "prompt")
            reason = f"{each.rule.name}: {error.field}: {error.reason} (columns: {known})"
            raise SettingError(reason, field=f"rewards.{each.__name__}") from error
