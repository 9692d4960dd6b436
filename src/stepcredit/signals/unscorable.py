"""Responses that a model cannot score: too long for it, or empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from stepcredit.errors import RolloutError
from stepcredit.settings.fields import choice

REFUSE, UNKNOWN, CUT = "refuse", "unknown", "cut"
Input = TypeVar("Input")


class Unscorable(RolloutError):
    """A response that a model can't score: too long for its context, or empty."""


def unscorable_field(*, can_cut: bool = False) -> Any:
    """The field that says what is done with a response that the model can't score.

        refuse    an error, which names the response
        unknown   the response has no score, so the stream adds nothing to its advantages
        cut       the steps that the model can read are scored; the last of them stands for the rest

    Args:
        can_cut: whether "cut" is among the choices.
    """
    about = "what is done with a response that the model can't score, such as one that is too long"
    return choice(
        REFUSE, (REFUSE, UNKNOWN, CUT) if can_cut else (REFUSE, UNKNOWN), about, kw_only=True
    )


def identity_of_policy(policy: str) -> dict[str, str]:
    """The policy as a part of a signal's identity; nothing for "refuse", which changes no score.

    Example:
        >>> identity_of_policy("cut"), identity_of_policy("refuse")
        ({'unscorable': 'cut'}, {})
    """
    return {} if policy == REFUSE else {"unscorable": policy}


def unless_unscorable(read: Callable[[], Input], policy: str) -> Input | None:
    """What a function gives; None where the response can't be scored and `policy` allows that.

    Args:
        read: prepares one response for the model.
        policy: "refuse" lets the error pass.

    Raises:
        Unscorable: under "refuse".

    Example:
        >>> def too_long():
        ...     raise Unscorable("is 9 tokens, but the model's context is 8")
        >>> unless_unscorable(too_long, "unknown") is None
        True
    """
    try:
        return read()
    except Unscorable:
        if policy == REFUSE:
            raise
        return None


def scored_ends(ends: Sequence[int], count: int) -> list[int]:
    """Where the scored steps of a response end: the first `count`, the last of which has the rest.

    Args:
        ends: the last token of each step.
        count: how many of the steps have a score.

    Example:
        >>> scored_ends([2, 5, 9], 2), scored_ends([2, 5, 9], 3), scored_ends([2, 5, 9], 0)
        ([2, 9], [2, 5, 9], [])
    """
    return [*ends[: count - 1], ends[-1]] if count else []
