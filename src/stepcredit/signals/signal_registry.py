"""Signals by name: ours, registered ones, or those of installed packages (entry points)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stepcredit.settings.registry import Registry
from stepcredit.signals.signal import Signal

Cls = TypeVar("Cls", bound=type[Signal])
_MODELS, _PROGRAMS = "stepcredit.signals.models", "stepcredit.signals.programs"
_SERVED, _PRM = "stepcredit.signals.served", "stepcredit.prm"
_MAPS, _COMBINED = "stepcredit.signals.score_maps", "stepcredit.signals.combine"
OWN = {
    "prm": f"{_PRM}.local",
    "prm-served": f"{_PRM}.served_prm",
    "judge": f"{_SERVED}.llm_judge",
    "rubric": f"{_SERVED}.rubric_judge",
    "logprobs": f"{_MODELS}.teacher_forcing",
    "logprobs-served": f"{_SERVED}.teacher",
    "opd": f"{_MODELS}.ratios",
    "g-opd": f"{_MODELS}.ratios",
    "implicit": f"{_MODELS}.ratios",
    "self-teacher": f"{_MODELS}.self_teacher",
    "answer-progress": f"{_MODELS}.answer_progress",
    "turn-progress": f"{_MODELS}.turn_progress",
    "monte-carlo": f"{_MODELS}.monte_carlo",
    "shared-prefix": f"{_PROGRAMS}.prefixes",
    "arithmetic": f"{_PROGRAMS}.checked",
    "equations": f"{_PROGRAMS}.checked",
    "hops": f"{_PROGRAMS}.hops",
    "callable": f"{_PROGRAMS}.checked",
    "difference": _MAPS,
    "discounted": _MAPS,
    "cap-filler": _MAPS,
    "aggregate": _MAPS,
    "affine": _COMBINED,
    "smooth": _COMBINED,
    "clip": _COMBINED,
    "weighted": _COMBINED,
}
"""Our own signals and the modules that register them; a module loads with the first use."""

SIGNALS = Registry[Signal]("signal", "stepcredit.signals", own=OWN)


def register_signal(name: str) -> Callable[[Cls], Cls]:
    """Register a signal under a name, for the command line and every engine.

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
    return SIGNALS.build(name, settings)
