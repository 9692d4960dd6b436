"""`StepCreditConfig`: TRL's GRPOConfig and what credit is made of, as one flat YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trl.trainer.grpo_config import GRPOConfig

import stepcredit as sc
from stepcredit.engines.build import build_named, fields_of
from stepcredit.errors import EngineError
from stepcredit.signals.signal import Signal
from stepcredit.signals.signal_registry import signal
from stepcredit.signals.splitting import Splitter, splitter

SPLITTER, SPLITTER_FIELDS = "blank-line", {"inside": "extend"}
Fields = dict[str, Any] | str | None
Signals = Signal | dict[str, Signal] | None


@dataclass
class StepCreditConfig(GRPOConfig):
    """GRPOConfig with the credit's settings; TrlParser reads it from YAML and the command line.

    Args:
        estimator: method name, as `stepcredit methods` lists them.
        estimator_fields: its fields.
        process_signal: name of a signal, or {stream: name}; a signal object or a callable is the
            trainer's keyword.
        process_signal_fields: its fields, or {stream: its fields}.
        logprobs: {model: name of a signal}, as `StepCreditGRPOTrainer` takes them.
        logprobs_fields: {model: its fields}.
        outcome_reward, format_reward, format_gate: as `StepCreditGRPOTrainer` takes them.
        splitter: name of the rule that cuts completions into steps; None: paragraphs, or the
            model's turns where tools answer.
        splitter_fields: its fields; unless they say so, a step within a token ends with the token.
        rollouts_dir: folder that gets a file of rollouts a generation, with signals and advantages.

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
        "process_signal",
        "process_signal_fields",
        "logprobs",
        "logprobs_fields",
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

    rollouts_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder that gets the rollouts of each generation, with signals and "
            "advantages, as a file that the stepcredit commands read. None: they are not kept."
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
        if isinstance(self.logprobs, str):
            reason = f"whose are they? give {{model: signal}}, got {self.logprobs!r}"
            raise EngineError(reason, field="logprobs")
        fields = self._fields("estimator_fields")
        return {
            "estimator": build_named(
                sc.estimator, self.estimator, fields, "estimator", "estimator_fields"
            ),
            "process_signal": self._signals("process_signal"),
            "logprobs": self._signals("logprobs"),
            "outcome_reward": self.outcome_reward,
            "format_reward": self.format_reward,
            "format_gate": self.format_gate,
            "splitter": self._splitter(),
            "rollouts_dir": self.rollouts_dir,
        }

    def _splitter(self) -> Splitter | None:
        fields = self._fields("splitter_fields")
        if self.splitter is None and not fields:
            return None
        name = SPLITTER if self.splitter is None else self.splitter
        given = {**SPLITTER_FIELDS, **fields}
        return build_named(splitter, name, given, "splitter", "splitter_fields")

    def _signals(self, setting: str) -> Signals:
        names: Any = getattr(self, setting)
        own = f"{setting}_fields"
        fields = self._fields(own)
        if not isinstance(names, Mapping):
            if names is None and fields:
                reason = f"fields of no signal: name it ({setting})"
                raise EngineError(reason, field=own)
            return None if names is None else build_named(signal, names, fields, setting, own)
        for stream in fields:
            if stream not in names:
                reason = f"{setting} has no such stream, there are: {', '.join(names)}"
                raise EngineError(reason, field=f"{own}.{stream}")
        return {
            stream: build_named(
                signal,
                name,
                fields_of(fields.get(stream), f"{own}.{stream}"),
                f"{setting}.{stream}",
                f"{own}.{stream}",
            )
            for stream, name in names.items()
        }

    def _fields(self, setting: str) -> dict[str, Any]:
        return fields_of(getattr(self, setting), setting)


DEFAULTS: dict[str, Any] = {
    "estimator": "pass",
    "process_signal": None,
    "logprobs": None,
    "outcome_reward": None,
    "format_reward": None,
    "format_gate": None,
    "splitter": None,
    "rollouts_dir": None,
}


def credit_settings(config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """A trainer's credit settings: the keywords given, else the config's, else the defaults.

    Args:
        config: a `StepCreditConfig`; any other sets nothing.
        given: keywords of the trainer, None where one is not given.
    """
    base = config.credit() if isinstance(config, StepCreditConfig) else DEFAULTS
    chosen = {**base, **{name: value for name, value in given.items() if value is not None}}
    if isinstance(chosen["estimator"], str):
        chosen["estimator"] = sc.estimator(chosen["estimator"])
    return chosen
