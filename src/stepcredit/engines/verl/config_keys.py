"""What stands under `algorithm.stepcredit` in verl's config, checked: `VerlSettings`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import stepcredit as sc
from stepcredit.credit.stages.fusion import SCALARS
from stepcredit.engines.build import built, fields_of
from stepcredit.errors import EngineError
from stepcredit.rewards.base import Reward
from stepcredit.rewards.reward_registry import reward
from stepcredit.settings.registry import hint
from stepcredit.signals.models.ratios import LogRatio
from stepcredit.signals.signal import Signal
from stepcredit.signals.signal_registry import signal
from stepcredit.signals.splitting import Splitter, Turns, splitter

PLACE = "algorithm.stepcredit"
ENGINE = "engine"
"""The stream that verl's own advantage becomes, where its estimator is no group's baseline."""

DEFAULTS: dict[str, Any] = {
    "method": "pass",
    "fields": None,
    "process_signal": None,
    "process_signal_fields": None,
    "splitter": "blank-line",
    "splitter_fields": None,
    "outcome_reward": None,
    "outcome_reward_fields": None,
    "format_reward": None,
    "format_reward_fields": None,
    "format_gate": None,
}
SPLITTER_FIELDS = {"inside": "extend"}
Given = dict[str, Any]
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class VerlSettings:
    """The credit's settings, as verl's trainer and its reward loop both build them.

    Args:
        estimator: gives the advantages.
        signals: process signals by stream; one alone is "process".
        splitter: cuts responses into the steps that a signal scores.
        outcome_reward: the outcome; None: verl's own `compute_score`.
        format_reward: the format reward; None: what the reward function says, if it does.
        format_gate: a response keeps the format where the format reward is at least this; None:
            where it is above 0.
    """

    estimator: sc.Estimator
    signals: Mapping[str, Signal]
    splitter: Splitter
    outcome_reward: Reward | None
    format_reward: Reward | None
    format_gate: float | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> VerlSettings:
        """The settings of verl's whole config; what is not there is as `DEFAULTS` says.

        Args:
            config: verl's, with `algorithm` in it.

        Raises:
            EngineError: an unknown key or name, or a value refused; it begins with the key's path.

        Example:
            >>> given = {"method": "pure", "process_signal": "equations"}
            >>> settings = VerlSettings.of({"algorithm": {"stepcredit": given}})
            >>> settings.estimator.name, list(settings.signals)
            ('pure', ['process'])
        """
        given = _checked(_plain(config["algorithm"].get("stepcredit")))
        cut = {**SPLITTER_FIELDS, **_mapping(given["splitter_fields"], "splitter_fields")}
        given = {**given, "splitter_fields": cut}
        estimator = _built("method", "fields", sc.estimator, given)
        signals = dict(_signals(given))
        _check_weighed(estimator, signals)
        return cls(
            estimator=estimator,
            signals=signals,
            splitter=_built("splitter", "splitter_fields", splitter, given),
            outcome_reward=_reward("outcome_reward", given),
            format_reward=_reward("format_reward", given),
            format_gate=_gate(given["format_gate"]),
        )

    @property
    def scored_in_trainer(self) -> dict[str, Signal]:
        """The signals that read what the trainer alone has: whole groups, log-probs, or, where an
        agent's turns are the steps, which tokens the policy wrote."""
        return {name: each for name, each in self.signals.items() if self._needs_batch(each)}

    @property
    def scored_with_rewards(self) -> dict[str, Signal]:
        """The other signals: the reward loop scores each response as it comes."""
        return {name: each for name, each in self.signals.items() if not self._needs_batch(each)}

    def _needs_batch(self, given: Signal) -> bool:
        turns = given.grain == "steps" and isinstance(self.splitter, Turns)
        return turns or not given.cacheable or bool(logprobs_read(given))

    def keeps_format(self, format_: float | None) -> bool:
        """The format gate: True where the format reward is unknown.

        Example:
            >>> settings = VerlSettings.of({"algorithm": {"stepcredit": {"format_gate": 0.5}}})
            >>> [settings.keeps_format(reward) for reward in (None, 0.4, 0.5)]
            [True, False, True]
        """
        if format_ is None:
            return True
        return format_ > 0 if self.format_gate is None else format_ >= self.format_gate


def logprobs_read(given: Signal) -> set[str]:
    """Whose log-probs a signal, or one it is made of, takes from the rows.

    Example:
        >>> sorted(logprobs_read(signal("opd", teacher="a-folder")))
        ['student']
    """
    sides = given.sides if isinstance(given, LogRatio) else ()
    found = {name for name in sides if getattr(given, name) is None}
    return found.union(*(logprobs_read(part) for part in _parts(given)))


def _parts(given: Signal) -> Iterator[Signal]:
    """The signals among a signal's fields."""
    for value in vars(given).values():
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, Signal):
                yield part


def _plain(value: Any) -> Any:
    """OmegaConf's nodes as plain mappings and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value


def _checked(given: Any) -> Given:
    """All keys, those not given at their defaults."""
    found = fields_of(given, PLACE)
    for key in found:
        if key not in DEFAULTS:
            raise _refused(f"no such key{hint(str(key), list(DEFAULTS))}", str(key))
    return {**DEFAULTS, **found}


def _mapping(given: Any, key: str) -> Given:
    return fields_of(given, f"{PLACE}.{key}")


def _signals(given: Given) -> Iterator[tuple[str, Signal]]:
    name, own = given["process_signal"], "process_signal_fields"
    if name is None:
        if given[own]:
            raise _refused("fields of no signal: name it (process_signal)", own)
    elif isinstance(name, Mapping):
        yield from _named_signals(name, _mapping(given[own], own))
    else:
        yield "process", _built("process_signal", own, signal, given)


def _named_signals(names: Mapping[Any, Any], by_stream: Given) -> Iterator[tuple[str, Signal]]:
    for stream in by_stream:
        if stream not in names:
            reason = f"no such stream{hint(str(stream), list(map(str, names)))}"
            raise _refused(reason, f"process_signal_fields.{stream}")
    for stream, name in names.items():
        key, own = f"process_signal.{stream}", f"process_signal_fields.{stream}"
        if not isinstance(stream, str) or stream in (*SCALARS, ENGINE):
            raise _refused("this name is taken: a process stream needs another", key)
        yield stream, _built(key, own, signal, {key: name, own: by_stream.get(stream)})


def _check_weighed(estimator: sc.Estimator, signals: Mapping[str, Signal]) -> None:
    """Refuse a signal to which the method, though it weighs process streams, gives no weight."""
    reads = estimator.reads
    stream = reads.first_unweighted_stream(signals)
    if stream is not None:
        names = ", ".join(f"{name}: {weight:g}" for name, weight in (reads.weights or {}).items())
        reason = f"gives no weight to the stream {stream!r}: {names}"
        raise _refused(reason, "fields.weights")


def _reward(key: str, given: Given) -> Reward | None:
    own = f"{key}_fields"
    if given[key] is None:
        if given[own]:
            raise _refused(f"fields of no reward: name it ({key})", own)
        return None
    return _built(key, own, reward, given)


def _gate(given: Any) -> float | None:
    if given is None or (isinstance(given, int | float) and not isinstance(given, bool)):
        return given
    raise _refused(f"expected a number or null, got {given!r}", "format_gate")


def _built(name: str, own: str, build: Callable[..., Thing], given: Given) -> Thing:
    """What a key names, with the fields that stand under another; errors begin with the key."""
    fields = _mapping(given[own], own)
    return built(build, given[name], fields, f"{PLACE}.{name}", f"{PLACE}.{own}")


def _refused(reason: str, key: str) -> EngineError:
    return EngineError(reason, field=f"{PLACE}.{key}")
