"""Methods by name: registered here, or by installed packages through an entry-point group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stepcredit.credit.estimator import Estimator
from stepcredit.errors import MethodError
from stepcredit.settings.registry import Registry

Cls = TypeVar("Cls", bound=type[Estimator])
_METHODS = "stepcredit.credit.methods"
OWN = {
    "pass": f"{_METHODS}.pass_",
    "pass-min": f"{_METHODS}.pass_min",
    "pure": f"{_METHODS}.pure",
    "grpo": f"{_METHODS}.grpo",
    "dr-grpo": f"{_METHODS}.grpo",
    "rloo": f"{_METHODS}.grpo",
    "reinforce-plus-plus": f"{_METHODS}.reinforce_plus_plus",
    "gdpo": f"{_METHODS}.gdpo",
    "grpo-process": f"{_METHODS}.grpo_process",
    "turn-return": f"{_METHODS}.turn_return",
    "gigpo": f"{_METHODS}.gigpo",
    "adca": f"{_METHODS}.adca",
    "opd": f"{_METHODS}.distillation",
    "g-opd": f"{_METHODS}.distillation",
    "prime": f"{_METHODS}.prime",
    "mix": f"{_METHODS}.mix",
    "redistribute": f"{_METHODS}.redistribute",
    "reweight": f"{_METHODS}.reweight",
    "sign-size": f"{_METHODS}.sign_size",
    "rlsd": f"{_METHODS}.rlsd",
}
"""Our own methods, in the order in which they are listed, and the modules that register them."""

METHODS = Registry[Estimator]("method", "stepcredit.estimators", MethodError, own=OWN)


def register(name: str) -> Callable[[Cls], Cls]:
    """Give an estimator its method name, for the command line and every engine.

    Raises:
        MethodError: another estimator has that name.
    """
    return METHODS.register(name)


def methods() -> dict[str, type[Estimator]]:
    """All registered methods by name, those of installed packages included.

    Raises:
        MethodError: an installed package's estimator fails to load; it names the entry point.
    """
    return METHODS.all()


def estimator(name: str, /, **settings: Any) -> Estimator:
    """An estimator by its method name.

    Args:
        name: as `stepcredit methods` lists them.
        settings: its fields.

    Raises:
        MethodError: an unknown method or field, or a value out of range.

    Example:
        >>> estimator("pass", k=1.0).k
        1.0
    """
    return METHODS.build(name, settings)
