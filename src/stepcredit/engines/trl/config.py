"""`StepCreditConfig`: TRL's GRPOConfig and the settings of credit, as one flat YAML file."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from trl.trainer.grpo_config import GRPOConfig

from stepcredit._deprecations import NEXT_MINOR
from stepcredit.credit.method_registry import METHODS
from stepcredit.engines.build import (
    SPLITTER,
    SPLITTER_FIELDS,
    build_named,
    build_signals,
    fields_of,
)
from stepcredit.errors import EngineError
from stepcredit.signals.signal import Signal
from stepcredit.signals.splitting import SPLITTERS, Splitter

METHOD = "pass"
OLD_NAMES = {"estimator": "method", "estimator_fields": "fields"}
"""Settings of release 0.1 and their new names; the old ones go with the next release."""
Fields = dict[str, Any] | str | None
Signals = Signal | dict[str, Signal] | None


@dataclass
class StepCreditConfig(GRPOConfig):
    """GRPOConfig with the settings of credit; TrlParser reads it from YAML and the command line.

    Args:
        method: name of the method, as `stepcredit methods` lists them; None: "pass".
        fields: its fields.
        process_signal: name of a signal, or {stream: name}; a signal object or a callable is given
            to the trainer instead.
        process_signal_fields: its fields, or {stream: its fields}.
        logprobs: {model: name of a signal}, as `StepCreditGRPOTrainer` takes them.
        logprobs_fields: {model: its fields}.
        outcome_reward, format_reward, format_gate: as `StepCreditGRPOTrainer` takes them.
        splitter: name of the rule that cuts completions into steps; None: paragraphs, or the
            model's turns where tools answer.
        splitter_fields: its fields; unless they say so, a step within a token ends with the token.
        rollouts_dir: folder that gets one file of rollouts per generation, with signals and
            advantages.
        judge_prices, watch: as `StepCreditGRPOTrainer` takes them.
        right_above, preflight: as `StepCreditGRPOTrainer` takes them.
        estimator, estimator_fields: the old names of `method` and `fields`; they are read until
            0.2.0, with a FutureWarning.

    Raises:
        EngineError: an unknown name, a refused field, or a setting given under its old and its new
            name; the message begins with the setting.

    Example:
        >>> config = StepCreditConfig(fields={"k": 1.0}, bf16=False, report_to="none")
        >>> config.credit()["method"].k
        1.0

    Source: trl 1.16.0, trl/trainer/grpo_config.py.
    """

    _VALID_DICT_FIELDS = [  # noqa: RUF012 - TRL's own convention
        *GRPOConfig._VALID_DICT_FIELDS,
        "fields",
        "process_signal",
        "process_signal_fields",
        "logprobs",
        "logprobs_fields",
        "splitter_fields",
        "judge_prices",
        "watch",
        "estimator_fields",
    ]

    method: str | None = field(
        default=None,
        metadata={
            "help": "Method that computes the advantages, such as 'pass', 'grpo' or 'pure'. None: "
            "'pass'."
        },
    )
    fields: Fields = field(
        default=None,
        metadata={"help": 'Fields of the method, such as {"k": 0.7, "clip": 5.0}.'},
    )
    process_signal: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": "Signal that scores the steps or tokens, such as 'prm', or several streams, "
            'such as {"prm": "prm", "teacher": "opd"}. None: no signal.'
        },
    )
    process_signal_fields: Fields = field(
        default=None,
        metadata={
            "help": 'Fields of the signal, such as {"model": "a-folder"}; of several streams, '
            "fields by stream."
        },
    )
    logprobs: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": "Signals that give the log-probs of the methods made of them, by model: "
            'student, teacher, base, prm or ref, such as {"teacher": "logprobs"}. The student\'s '
            "are the trainer's own."
        },
    )
    logprobs_fields: Fields = field(
        default=None,
        metadata={
            "help": 'Fields of these signals by model, such as {"teacher": {"model": "a-folder"}}.'
        },
    )
    outcome_reward: str | None = field(
        default=None,
        metadata={
            "help": "Reward function that is the outcome. None: the sum of all functions but the "
            "format reward."
        },
    )
    format_reward: str | None = field(
        default=None,
        metadata={"help": "Reward function that is the format reward. None: there is none."},
    )
    format_gate: float | None = field(
        default=None,
        metadata={
            "help": "A response keeps the format where the format reward is at least this. None: "
            "where it is above 0."
        },
    )
    splitter: str | None = field(
        default=None,
        metadata={
            "help": "Rule that cuts completions into steps, such as 'blank-line', 'newline' or "
            "'sentence'. None: 'blank-line', or where tools answer 'turns'."
        },
    )
    splitter_fields: Fields = field(
        default=None,
        metadata={
            "help": 'Fields of the splitter, such as {"pattern": "Step"}; "inside" is "extend" '
            "unless it is among them."
        },
    )

    states: str | None = field(
        default=None,
        metadata={
            "help": "The state that each step was taken in, which gigpo reads: 'tool-calls', the "
            "last tool call before it, or MODULE:FUNCTION, a function of a response. None: not "
            "known, or the field step_states of a rollout_func."
        },
    )
    rollouts_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder that gets the rollouts of each generation, with signals and "
            "advantages, as a file that the stepcredit commands read. None: they are not kept."
        },
    )
    right_above: float = field(
        default=0.0,
        metadata={
            "help": "The metrics call a response right where its outcome is above this, as in "
            "agreement/* and length_right."
        },
    )
    preflight: bool = field(
        default=True,
        metadata={
            "help": "Whether rewards, signals, folders and lengths are tried before the first "
            "response is sampled."
        },
    )
    judge_prices: Fields = field(
        default=None,
        metadata={
            "help": "Prices of the tokens of judges, by stream, per million, such as "
            '{"process": {"read": 0.15, "written": 0.6}}; what judges cost is then logged.'
        },
    )
    watch: Fields = field(
        default=None,
        metadata={
            "help": "Bounds on logged metrics, such as "
            '{"stepcredit/length": {"max": 800, "for": 3, "then": "stop"}}: where a metric is '
            "outside for so many values in a row, the run warns or stops with a checkpoint."
        },
    )
    estimator: str | None = field(
        default=None, metadata={"help": f"The old name of method, which goes in {NEXT_MINOR}."}
    )
    estimator_fields: Fields = field(
        default=None, metadata={"help": f"The old name of fields, which goes in {NEXT_MINOR}."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {
            name for name in (*OLD_NAMES, "method", "fields") if getattr(self, name) is not None
        }
        for old in given & OLD_NAMES.keys():
            setattr(self, new_name(old, given), getattr(self, old))
            setattr(self, old, None)
        self.method = METHOD if self.method is None else self.method
        self.credit()

    def credit(self) -> dict[str, Any]:
        """The trainer's keywords that these settings give, built on each call.

        Raises:
            EngineError: an unknown name or a refused field; the message begins with the setting.
        """
        if isinstance(self.logprobs, str):
            reason = f"expected {{model: signal}}, got {self.logprobs!r}"
            raise EngineError(reason, field="logprobs")
        method_fields = self._fields("fields")
        return {
            "method": build_named(METHODS, self.method, method_fields, "method", "fields"),
            "process_signal": self._signals("process_signal"),
            "logprobs": self._signals("logprobs"),
            "outcome_reward": self.outcome_reward,
            "format_reward": self.format_reward,
            "format_gate": self.format_gate,
            "splitter": self._splitter(),
            "states": self.states,
            "rollouts_dir": self.rollouts_dir,
            "right_above": self.right_above,
            "preflight": self.preflight,
            "judge_prices": self._fields("judge_prices"),
            "watch": self._fields("watch"),
        }

    def _splitter(self) -> Splitter | None:
        fields = self._fields("splitter_fields")
        if self.splitter is None and not fields:
            return None
        name = SPLITTER if self.splitter is None else self.splitter
        given = {**SPLITTER_FIELDS, **fields}
        return build_named(SPLITTERS, name, given, "splitter", "splitter_fields")

    def _signals(self, setting: str) -> Signals:
        names: Any = getattr(self, setting)
        signals = build_signals(names, getattr(self, f"{setting}_fields"), setting)
        return signals if isinstance(names, Mapping) else signals.get("process")

    def _fields(self, setting: str) -> dict[str, Any]:
        return fields_of(getattr(self, setting), setting)


def new_name(name: str, given: Collection[str]) -> str:
    """The name of a setting in this release; an old name is warned of.

    Args:
        name: a setting.
        given: all settings that are given.

    Raises:
        EngineError: the same setting is given under its new name too.

    Example:
        >>> new_name("beta", ["beta"])
        'beta'
        >>> new_name("estimator", ["estimator", "method"])
        Traceback (most recent call last):
        stepcredit.errors.EngineError: estimator: it is the old name of method: give only method
    """
    new = OLD_NAMES.get(name)
    if new is None:
        return name
    if new in given:
        raise EngineError(f"it is the old name of {new}: give only {new}", field=name)
    reason = f"the setting {name} is now called {new}; the old name goes in {NEXT_MINOR}"
    warnings.warn(reason, FutureWarning, stacklevel=4)
    return new
