"""`StepCreditConfig`: TRL's GRPOConfig and what credit is made of, as one flat YAML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trl.trainer.grpo_config import GRPOConfig

import stepcredit as sc
from stepcredit.errors import EngineError, SettingError
from stepcredit.signals.registry import signal
from stepcredit.signals.signal import Signal
from stepcredit.signals.splitting import splitter

SPLITTER, SPLITTER_FIELDS = "blank-line", {"inside": "extend"}
Fields = dict[str, Any] | str | None
Thing = TypeVar("Thing")


@dataclass
class StepCreditConfig(GRPOConfig):
    """GRPOConfig with the credit's settings; TrlParser reads it from YAML and the command line.

    Args:
        estimator: method name, as `stepcredit methods` lists them.
        estimator_fields: its fields.
        process_signal: name of a signal; a signal object or a callable is the trainer's keyword.
        process_signal_fields: its fields.
        outcome_reward, format_reward, format_gate: as `StepCreditGRPOTrainer` takes them.
        splitter: name of the rule that cuts completions into steps.
        splitter_fields: its fields; unless they say so, a step within a token ends with the token.

    Raises:
        EngineError: a name that is unknown, or a field refused; it begins with the setting.

    Example:
        >>> config = StepCreditConfig(estimator_fields={"k": 1.0}, bf16=False, report_to="none")
        >>> config.credit()["estimator"].k
        1.0

    Source: trl 1.16.0, trl/trainer/grpo_config.py.
    """

    _VALID_DICT_FIELDS = [  # noqa: RUF012 - TRL's own convention
        *GRPOConfig._VALID_DICT_FIELDS,
        "estimator_fields",
        "process_signal_fields",
        "splitter_fields",
    ]

    estimator: str = field(
        default="pass",
        metadata={"help": "Method that gives the advantages, such as 'pass', 'grpo' or 'pure'."},
    )
    estimator_fields: Fields = field(
        default=None,
        metadata={"help": 'Fields of the estimator, such as {"k": 0.7, "clip": 5.0}.'},
    )
    process_signal: str | None = field(
        default=None,
        metadata={
            "help": "Signal that scores the steps or tokens, such as 'prm'. None: no signal."
        },
    )
    process_signal_fields: Fields = field(
        default=None,
        metadata={"help": 'Fields of the signal, such as {"model": "a-folder"}.'},
    )
    outcome_reward: str | None = field(
        default=None,
        metadata={
            "help": "Reward function that is the outcome. None: the sum of all functions but the "
            "format's."
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
    splitter: str = field(
        default=SPLITTER,
        metadata={
            "help": "Rule that cuts completions into steps, such as 'blank-line', 'newline' or "
            "'sentence'."
        },
    )
    splitter_fields: Fields = field(
        default=None,
        metadata={
            "help": 'Fields of the splitter, such as {"pattern": "Step"}; "inside" is "extend" '
            "unless it is among them."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.credit()

    def credit(self) -> dict[str, Any]:
        """The trainer's keywords that these settings stand for, built anew.

        Raises:
            EngineError: a name that is unknown, or a field refused; it begins with the setting.
        """
        cut = {**SPLITTER_FIELDS, **self._fields("splitter")}
        return {
            "estimator": self._built("estimator", sc.estimator, self._fields("estimator")),
            "process_signal": self._signal(),
            "outcome_reward": self.outcome_reward,
            "format_reward": self.format_reward,
            "format_gate": self.format_gate,
            "splitter": self._built("splitter", splitter, cut),
        }

    def _signal(self) -> Signal | None:
        given = self._fields("process_signal")
        if self.process_signal is not None:
            return self._built("process_signal", signal, given)
        if given:
            reason = "fields of no signal: name it (process_signal)"
            raise EngineError(reason, field="process_signal_fields")
        return None

    def _fields(self, setting: str) -> dict[str, Any]:
        given: Any = getattr(self, f"{setting}_fields")
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            raise EngineError(f"expected fields, got {given!r}", field=f"{setting}_fields")
        return dict(given)

    def _built(self, setting: str, build: Callable[..., Thing], fields: Mapping[str, Any]) -> Thing:
        try:
            return build(getattr(self, setting), **fields)
        except SettingError as error:
            refused = f"{setting}_fields.{error.field}" if error.field else setting
            raise EngineError(error.reason, field=refused) from error


DEFAULTS: dict[str, Any] = {
    "estimator": "pass",
    "process_signal": None,
    "outcome_reward": None,
    "format_reward": None,
    "format_gate": None,
}


def credit_settings(config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """A trainer's credit settings: the keywords given, else the config's, else the defaults.

    Args:
        config: a `StepCreditConfig`; any other sets nothing.
        given: keywords of the trainer, None where one is not given.
    """
    if isinstance(config, StepCreditConfig):
        base = config.credit()
    else:
        base = {**DEFAULTS, "splitter": splitter(SPLITTER, **SPLITTER_FIELDS)}
    chosen = base | {name: value for name, value in given.items() if value is not None}
    if isinstance(chosen["estimator"], str):
        chosen["estimator"] = sc.estimator(chosen["estimator"])
    return chosen
