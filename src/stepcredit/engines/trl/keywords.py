"""The trainer's keywords of credit, joined with the settings of its config."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import stepcredit as sc
from stepcredit.credit.method_registry import METHODS
from stepcredit.engines.build import SPLITTER_FIELDS, build_named, fields_of, finite_setting
from stepcredit.engines.scoring_costs import checked_prices
from stepcredit.engines.trl.config import METHOD, StepCreditConfig, new_name
from stepcredit.engines.watch import checked_bounds
from stepcredit.errors import EngineError, SettingError
from stepcredit.settings.registry import Registry
from stepcredit.signals.signal_registry import SIGNALS
from stepcredit.signals.splitting import SPLITTERS, Splitter
from stepcredit.signals.state_keys import StateFunction, state_function

FIELDS = {"method": "fields", "splitter": "splitter_fields"}
"""Settings whose fields have another name than NAME_fields, and all that name one thing."""


def credit_settings(config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """A trainer's credit settings: the given keywords, else the config's, else the defaults.

    A method, splitter or signal that a keyword gives by name has the config's fields, if the config
    names the same one.

    Args:
        config: a `StepCreditConfig`; any other config sets nothing.
        given: the trainer's keywords; None where one is not given.

    Raises:
        EngineError: a keyword that is a class, or is neither an object of its kind nor a name;
            `states` that name no function; a threshold that is no finite number; one reward as
            outcome and format; or `method` is given under its old name too.
    """
    known = {name: value for name, value in given.items() if value is not None}
    known = {new_name(name, known): value for name, value in known.items()}
    is_ours = isinstance(config, StepCreditConfig)
    base = config.credit() if is_ours else dict.fromkeys(given)
    chosen = {**base, **known}
    own = config if is_ours else StepCreditConfig
    for setting, registry, kind in (
        ("method", METHODS, sc.Estimator),
        ("splitter", SPLITTERS, Splitter),
    ):
        if setting in known:
            chosen[setting] = _thing(setting, known[setting], registry, kind, own)
    if chosen["method"] is None:
        chosen["method"] = sc.estimator(METHOD)
    for setting in ("process_signal", "logprobs"):
        if setting in known:
            chosen[setting] = _sources(setting, known[setting], own)
    if chosen.get("states") is not None:
        chosen["states"] = _states(chosen["states"])
    _check_gate(chosen["format_gate"])
    threshold = chosen["right_above"]
    chosen["right_above"] = finite_setting(0 if threshold is None else threshold, "right_above")
    chosen["preflight"] = chosen["preflight"] is not False
    prices, signals = chosen["judge_prices"], chosen["process_signal"]
    chosen["judge_prices"] = checked_prices(prices, signals, "judge_prices")
    chosen["watch"] = checked_bounds(chosen["watch"], "watch")
    _check_rewards(chosen["outcome_reward"], chosen["format_reward"])
    return chosen


def _states(given: Any) -> StateFunction:
    """The function of the setting `states`; what is wrong with it is an error of a setting here."""
    try:
        return state_function(given)
    except SettingError as error:
        raise EngineError(error.reason, field=error.field) from error.__cause__


def _thing(setting: str, given: Any, registry: Registry[Any], kind: type, config: Any) -> Any:
    """A method or splitter, which a keyword gives as an object or by name."""
    _refuse_class(setting, given)
    if isinstance(given, kind):
        return given
    if not isinstance(given, str):
        reason = f"expected a {registry.kind} or the name of one, got {given!r}"
        raise EngineError(reason, field=setting)
    own = SPLITTER_FIELDS if setting == "splitter" else {}
    fields = _fields_for(setting, given, getattr(config, setting), config, FIELDS[setting])
    return build_named(registry, given, {**own, **fields}, setting, FIELDS[setting])


def _sources(setting: str, given: Any, config: Any) -> Any:
    """Signals, of which a keyword gives one or several, as objects, callables or by name."""
    named, key = getattr(config, setting), f"{setting}_fields"
    if not isinstance(given, Mapping):
        _refuse_class(setting, given)
        if not isinstance(given, str):
            return given
        fields = _fields_for(setting, given, named, config, key)
        return build_named(SIGNALS, given, fields, setting, key)
    found = {}
    by_stream = named if isinstance(named, Mapping) else {}
    for stream, source in given.items():
        place = f"{setting}.{stream}"
        _refuse_class(place, source)
        if isinstance(source, str):
            fields = {}
            if by_stream.get(stream) == source:
                fields = fields_of(fields_of(getattr(config, key), key).get(stream), place)
            source = build_named(SIGNALS, source, fields, place, f"{key}.{stream}")
        found[stream] = source
    return found


def _fields_for(setting: str, name: str, named: Any, config: Any, key: str) -> dict[str, Any]:
    """The config's fields, if they are those of the thing that the keyword names."""
    fields = fields_of(getattr(config, key), key)
    if not fields or named == name or (setting == "splitter" and named is None):
        return fields
    warnings.warn(
        f"{key}: left out, they are not those of {setting}={name!r}", UserWarning, stacklevel=5
    )
    return {}


def _refuse_class(setting: str, given: Any) -> None:
    if isinstance(given, type):
        reason = f"got the class {given.__name__}: call it, such as {given.__name__}()"
        raise EngineError(reason, field=setting)


def _check_gate(gate: Any) -> None:
    _refuse_class("format_gate", gate)
    is_number = isinstance(gate, int | float) and not isinstance(gate, bool)
    if gate is not None and not is_number and not callable(gate):
        reason = f"expected a number, a callable or None, got {gate!r}"
        raise EngineError(reason, field="format_gate")
    if is_number:
        finite_setting(gate, "format_gate")


def _check_rewards(outcome: str | None, format_: str | None) -> None:
    if outcome is not None and outcome == format_:
        reason = f"{format_} is the outcome_reward too, so it would count twice"
        raise EngineError(reason, field="format_reward")
