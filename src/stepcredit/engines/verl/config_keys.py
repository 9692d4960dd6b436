"""`VerlSettings`: the checked values of the keys under `algorithm.stepcredit` in verl's config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import stepcredit as sc
from stepcredit.credit.method_registry import METHODS
from stepcredit.data.rules import NAME_TAKEN, RESERVED_NAMES
from stepcredit.engines.build import (
    SPLITTER,
    SPLITTER_FIELDS,
    build_named,
    build_signals,
    check_stream_weights,
    fields_of,
    finite_setting,
    keeps_format,
)
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.scoring_costs import Prices, checked_prices
from stepcredit.engines.watch import Bound, checked_bounds
from stepcredit.errors import EngineError, SettingError
from stepcredit.rewards.base import Reward
from stepcredit.rewards.reward_registry import REWARDS
from stepcredit.settings.modules import import_named
from stepcredit.settings.registry import Registry, hint
from stepcredit.signals.models.ratios import models_from_rows
from stepcredit.signals.signal import Signal
from stepcredit.signals.splitting import SPLITTERS, Splitter, Turns
from stepcredit.signals.state_keys import StateFunction, state_function

CONFIG_KEY = "algorithm.stepcredit"
ENGINE_STREAM = "engine"
"""Name of the stream that holds verl's own advantage, for any `adv_estimator` but grpo."""

DEFAULTS: dict[str, Any] = {
    "import": None,
    "method": "pass",
    "fields": None,
    "process_signal": None,
    "process_signal_fields": None,
    "splitter": SPLITTER,
    "splitter_fields": None,
    "states": None,
    "outcome_reward": None,
    "outcome_reward_fields": None,
    "format_reward": None,
    "format_reward_fields": None,
    "format_gate": None,
    "right_above": 0.0,
    "preflight": True,
    "judge_prices": None,
    "watch": None,
}
Given = dict[str, Any]
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class VerlSettings:
    """The settings of credit. verl's trainer and its reward loop both build them from the config.

    Args:
        estimator: computes the advantages.
        signals: process signals by stream; a single one is the stream "process".
        splitter: splits responses into the steps that signals score.
        outcome_reward: gives the outcome; None: verl's own `compute_score` does.
        format_reward: gives the format reward; None: the reward function may return one.
        format_gate: a response keeps the format if its format reward is at least this; None: if it
            is above 0.
        right_above: the metrics call a response right where its outcome is above this.
        states: gives the state of each step; None: the agent loop may give them.
        preflight: whether the trainer tries rows, rewards and signals before its workers start.
        judge_prices: by stream, the prices of its judge's tokens per million.
        watch: bounds on logged metrics.
    """

    estimator: sc.Estimator
    signals: Mapping[str, Signal]
    splitter: Splitter
    outcome_reward: Reward | None
    format_reward: Reward | None
    format_gate: float | None
    right_above: float = 0.0
    states: StateFunction | None = None
    preflight: bool = True
    judge_prices: Prices = field(default_factory=dict)
    watch: tuple[Bound, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> VerlSettings:
        """The settings in verl's whole config; keys that are missing have the values of `DEFAULTS`.

        The modules that the key `import` names are imported first, so every process that builds
        settings has their classes.

        Args:
            config: verl's, with `algorithm` in it.

        Raises:
            EngineError: an unknown key or name, or a bad value; it begins with the path of the key.
            SeveralErrors: several of them.

        Example:
            >>> given = {"method": "pure", "process_signal": "equations"}
            >>> settings = VerlSettings.of({"algorithm": {"stepcredit": given}})
            >>> settings.estimator.name, list(settings.signals)
            ('pure', ['process'])
        """
        found = Preflight()
        settings = cls.collected(config, found)
        found.stop()
        return settings

    @classmethod
    def collected(cls, config: Mapping[str, Any], found: Preflight) -> VerlSettings:
        """As `of`; a part that is refused has its default, and its fault is kept.

        Args:
            config: verl's, with `algorithm` in it.
            found: gets the faults.
        """
        given = _with_defaults(found, _plain(config["algorithm"].get("stepcredit")))
        found.run("modules of your own", lambda: _import(given["import"]))
        estimator = found.run("method", lambda: _build("method", "fields", METHODS, given))
        faults = len(found.errors)
        signals = _signals(found, given)
        method = estimator or sc.PASS()
        if estimator is not None and len(found.errors) == faults:
            weights = f"{CONFIG_KEY}.fields.weights"
            found.run("weights", lambda: check_stream_weights(method, signals, weights))
        return cls(
            estimator=method,
            signals=signals,
            splitter=found.run("splitter", lambda: _splitter(given))
            or SPLITTERS.build(SPLITTER, SPLITTER_FIELDS),
            outcome_reward=found.run("outcome_reward", lambda: _reward("outcome_reward", given)),
            format_reward=found.run("format_reward", lambda: _reward("format_reward", given)),
            format_gate=found.run("format_gate", lambda: _gate(given["format_gate"])),
            right_above=found.run("right_above", lambda: _right_above(given["right_above"])) or 0.0,
            states=found.run("states", lambda: _states(given["states"])),
            preflight=found.run("preflight", lambda: _preflight(given["preflight"])) is not False,
            judge_prices=found.run("judge_prices", lambda: _prices(given, signals)) or {},
            watch=found.run("watch", lambda: _watch(given)) or (),
        )

    @property
    def scored_in_trainer(self) -> dict[str, Signal]:
        """Signals that need what only the trainer has: whole groups, log-probs, or, where steps are
        an agent's turns, which tokens the policy wrote."""
        return {name: each for name, each in self.signals.items() if self._needs_batch(each)}

    @property
    def scored_with_rewards(self) -> dict[str, Signal]:
        """The other signals: the reward loop scores each response when it is complete."""
        return {name: each for name, each in self.signals.items() if not self._needs_batch(each)}

    def _needs_batch(self, given: Signal) -> bool:
        scores_turns = given.grain == "steps" and isinstance(self.splitter, Turns)
        return scores_turns or not given.cacheable or bool(models_from_rows(given))

    def keeps_format(self, format_: float | None) -> bool:
        """Whether a response with this format reward keeps the format; True where it is unknown.

        Example:
            >>> settings = VerlSettings.of({"algorithm": {"stepcredit": {"format_gate": 0.5}}})
            >>> [settings.keeps_format(reward) for reward in (None, 0.4, 0.5)]
            [True, False, True]
        """
        return keeps_format(format_, self.format_gate)


def _plain(value: Any) -> Any:
    """A node of OmegaConf as plain mappings and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value


def _with_defaults(found: Preflight, given: Any) -> Given:
    """The value of every key: the given one, or the default."""
    keys = found.run(CONFIG_KEY, lambda: fields_of(given, CONFIG_KEY)) or {}
    for key in keys:
        if key not in DEFAULTS:
            reason = f"no such key{hint(str(key), list(DEFAULTS))}"
            found.refuse(CONFIG_KEY, _refused(reason, str(key)))
    return {**DEFAULTS, **keys}


def _splitter(given: Given) -> Splitter:
    own = _mapping(given["splitter_fields"], "splitter_fields")
    fields = {**SPLITTER_FIELDS, **own}
    return _build("splitter", "splitter_fields", SPLITTERS, {**given, "splitter_fields": fields})


def _mapping(given: Any, key: str) -> Given:
    return fields_of(given, f"{CONFIG_KEY}.{key}")


def _import(names: Any) -> None:
    try:
        import_named(names)
    except SettingError as error:
        raise _refused(str(error), "import") from error.__cause__


def _signals(found: Preflight, given: Given) -> dict[str, Signal]:
    """The signals that can be built, by stream."""
    names, setting = given["process_signal"], f"{CONFIG_KEY}.process_signal"
    fields = given["process_signal_fields"]
    if not isinstance(names, Mapping):
        return found.run("signal", lambda: build_signals(names, fields, setting)) or {}
    unknown = found.run("signals", lambda: _mapping(fields, "process_signal_fields")) or {}
    signals: dict[str, Signal] = {}
    for stream, name in names.items():
        own = {stream: unknown.pop(stream)} if stream in unknown else None
        build = partial(_signal, stream, name, own, setting)
        signals.update(found.run(f"signal {stream}", build) or {})
    if unknown:
        found.run("signals", lambda: build_signals(names, unknown, setting))
    return signals


def _signal(stream: Any, name: Any, fields: Given | None, setting: str) -> dict[str, Signal]:
    if not isinstance(stream, str) or stream in (*RESERVED_NAMES, ENGINE_STREAM):
        raise _refused(NAME_TAKEN, f"process_signal.{stream}")
    return build_signals({stream: name}, fields, setting)


def _reward(key: str, given: Given) -> Reward | None:
    fields_key = f"{key}_fields"
    if given[key] is None:
        if given[fields_key]:
            raise _refused("fields without a reward: set its name too", fields_key)
        return None
    return _build(key, fields_key, REWARDS, given)


def _right_above(given: Any) -> float:
    return finite_setting(given, f"{CONFIG_KEY}.right_above")


def _preflight(given: Any) -> bool:
    if not isinstance(given, bool):
        raise _refused(f"expected true or false, got {given!r}", "preflight")
    return given


def _prices(given: Given, signals: Mapping[str, Signal]) -> Prices:
    return checked_prices(given["judge_prices"], signals, f"{CONFIG_KEY}.judge_prices")


def _watch(given: Given) -> tuple[Bound, ...]:
    return checked_bounds(given["watch"], f"{CONFIG_KEY}.watch")


def _states(given: Any) -> StateFunction | None:
    try:
        return None if given is None else state_function(given)
    except SettingError as error:
        raise _refused(error.reason, "states") from error


def _gate(given: Any) -> float | None:
    return None if given is None else finite_setting(given, f"{CONFIG_KEY}.format_gate")


def _build(key: str, fields_key: str, registry: Registry[Thing], given: Given) -> Thing:
    """The thing that `key` names, built with the fields under `fields_key`."""
    fields = _mapping(given[fields_key], fields_key)
    places = f"{CONFIG_KEY}.{key}", f"{CONFIG_KEY}.{fields_key}"
    return build_named(registry, given[key], fields, *places)


def _refused(reason: str, key: str) -> EngineError:
    return EngineError(reason, field=f"{CONFIG_KEY}.{key}")


def check_one_outcome(config: Mapping[str, Any], settings: VerlSettings) -> None:
    """Refuse `outcome_reward` with a custom reward function, or as the format reward too.

    Raises:
        EngineError: names the key.
    """
    path = (config["reward"].get("custom_reward_function") or {}).get("path")
    if path is not None and settings.outcome_reward is not None:
        reason = f"reward.custom_reward_function.path={path} gives an outcome too: remove one"
        raise _refused(reason, "outcome_reward")
    if settings.format_reward is not None and settings.format_reward == settings.outcome_reward:
        reason = f"{settings.format_reward.name} is the outcome_reward too, so it would count twice"
        raise _refused(reason, "format_reward")


def value_at(config: Any, path: str, default: Any = None) -> Any:
    """The value under a dotted path of verl's config; the default if any part of it is missing.

    Example:
        >>> value_at({"data": {"seed": 1}}, "data.seed"), value_at({}, "data.seed", 0)
        (1, 0)
    """
    for name in path.split("."):
        if not isinstance(config, Mapping) or config.get(name) is None:
            return default
        config = config[name]
    return config
