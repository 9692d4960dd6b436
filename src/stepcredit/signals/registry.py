"""Signals by name: ours, registered ones, or those of installed packages (entry points)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stepcredit.settings.registry import Registry
from stepcredit.signals.signal import Signal

Cls = TypeVar("Cls", bound=type[Signal])
_ROOM = "stepcredit.signals"
OWN = {
    "prm": f"{_ROOM}.prm.local",
    "prm-served": f"{_ROOM}.served.pooling",
    "judge": f"{_ROOM}.served.judge",
    "logprobs": f"{_ROOM}.logprobs",
    "logprobs-served": f"{_ROOM}.served.logprobs",
    "opd": f"{_ROOM}.distillation",
    "g-opd": f"{_ROOM}.distillation",
    "implicit": f"{_ROOM}.implicit",
    "answer-progress": f"{_ROOM}.answers",
    "monte-carlo": f"{_ROOM}.monte_carlo",
    "shared-prefix": f"{_ROOM}.prefixes",
    "arithmetic": f"{_ROOM}.programs",
    "equations": f"{_ROOM}.programs",
    "hops": f"{_ROOM}.hops",
    "callable": f"{_ROOM}.programs",
}
"""Our own signals and the modules that register them; a module loads with the first use."""

SIGNALS = Registry[Signal]("signal", "stepcredit.signals", own=OWN)


def register_signal(name: str) -> Callable[[Cls], Cls]:
    """Give a signal its name, for the command line and every engine.

    Raises:
        SettingError: another signal has that name.
    """
    return SIGNALS.register(name)


def signals() -> dict[str, type[Signal]]:
    """All signals by name, those of installed packages included.

    Raises:
        SettingError: an installed package's signal fails to load.
        MissingExtra: a signal whose optional dependency is not installed.
    """
    return SIGNALS.all()


def signal(name: str, /, **settings: Any) -> Signal:
    """A signal by its name.

    Args:
        name: as `stepcredit signals` lists them.
        settings: its fields.

    Raises:
        SettingError: an unknown signal or field, or a value out of range.
        MissingExtra: its optional dependency is not installed.

    Example:
        >>> signal("equations").grain
        'steps'
    """
    return SIGNALS.build(name, **settings)
