"""The settings of a training run, as one frozen record that is kept in the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import stepcredit as sc
from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import FileError, MethodError, StepCreditError
from stepcredit.lab.answered import Answered
from stepcredit.lab.devices import check_device_name
from stepcredit.lab.model import SIZES, ModelSettings
from stepcredit.lab.outcome_signals import OutcomeSignal
from stepcredit.lab.task import ProcessSignal, Task, task_named
from stepcredit.lab.warm_settings import WarmStartSettings
from stepcredit.settings.fields import check_seed

MODELS = ("student", "teacher", "base", "prm", "ref")
STREAMS = ("process", "outcome", "format")
QUICK = {
    "updates": 8,
    "prompts": 8,
    "evaluate_every": 4,
    "checkpoint_every": 2,
    "record_every": 4,
    "evaluation_problems": 128,
}


def from_task() -> Any:
    """A field of `LabSettings` whose default depends on the task."""
    return field(default=None)


@dataclass(frozen=True)
class LabSettings:
    """The settings of a run: the task, the signal, the methods, and how the policy is trained.

    A default that depends on the task, such as its signal and its supervised starts, is filled in
    when the record is made.

    Args:
        method: name of the method.
        fields: settings of the method; they replace the defaults of the lab (weights, clip) and of
            the method.
        compare: a second method, trained from the same warm start and seed with the lab's
            defaults; None to train one method only.
        signal: name of the task's signal that scores the steps or the tokens.
        signal_fields: settings of the signal, such as the level of a filler line.
        seed: seed of the warm start, the problems, the sampling and the signal's noise.
        updates: number of generations of `prompts` x `group_size` completions; each generation is
            trained on once, in `minibatches` optimizer steps.
        learning_rate, schedule, beta1, beta2, clip_ratio, max_grad_norm, loss: settings of the
            optimizer steps.
        weights: weights of the process, outcome and format streams.
        clip: largest absolute value of an advantage.
        max_new_tokens: most tokens of an answer.
        evaluate_every, checkpoint_every, record_every: updates between two evaluations, two
            checkpoints, and two batches of rollouts written.
        evaluation_problems, evaluation_samples: size of the fixed held-out set, and answers per
            problem.
        threads: number of torch threads; a setting because floating-point sums depend on it.
        warm: the supervised training of the warm start.
        teacher: the supervised training of the teacher for methods that read log-probs; without
            such a method it is not trained.
        task, task_fields: name of the task, and its options.
        model: size of the policy, a name of `SIZES`.
        answered: share of the prompts whose outcomes are known, by seed and prompt. The others keep
            their process scores and format rewards. A method that requires outcomes is trained on
            the known prompts of the run alone, again and again, so that it samples as many answers.
        device: where the policy samples, learns and is evaluated, `cpu` or `cuda`; a setting
            because the rounding depends on it. Supervised starts are always trained on the CPU, so
            that runs on either begin alike.
    """

    method: str = "pass"
    fields: Mapping[str, Any] = field(default_factory=dict)
    compare: str | None = "grpo"
    signal: str = from_task()
    signal_fields: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    updates: int = 120
    prompts: int = 12
    group_size: int = 8
    minibatches: int = 2
    learning_rate: float = 1.2e-4
    schedule: str = "constant"
    beta1: float = 0.9
    beta2: float = 0.95
    clip_ratio: float = 0.2
    max_grad_norm: float = 1.0
    loss: str = "dapo"
    weights: tuple[float, float, float] = (1.0, 1.0, 0.3)
    clip: float = 5.0
    max_new_tokens: int = from_task()
    evaluate_every: int = 20
    checkpoint_every: int = 5
    record_every: int = 20
    evaluation_problems: int = 256
    evaluation_samples: int = 8
    threads: int = 1
    warm: WarmStartSettings = from_task()
    teacher: WarmStartSettings = from_task()
    task: str = "arithmetic"
    task_fields: Mapping[str, Any] = field(default_factory=dict)
    model: str = "small"
    answered: float = 1.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._fill_in()
        for name in ("updates", "prompts", "minibatches", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                reason = f"expected a positive number, got {getattr(self, name)}"
                raise StepCreditError(reason, field=name)
        if self.prompts * self.group_size % self.minibatches:
            completions = self.prompts * self.group_size
            reason = f"{self.minibatches} do not divide {completions} completions"
            raise StepCreditError(reason, field="minibatches")
        check_seed(self.seed)
        check_device_name(self.device)
        self._check_signal()
        for label, estimator in self.estimators():
            check_task_has(label, estimator, self.built_task())
            self._check_outcomes(label, estimator)

    def _check_signal(self) -> None:
        """Refuse a signal made of outcomes where some of them are unknown."""
        known = self.known_outcomes()
        if isinstance(self.process_signal(), OutcomeSignal) and known.share < 1:
            reason = f"needs the outcome of every prompt, got answered={self.answered:g}"
            raise StepCreditError(reason, field=f"signal {self.signal}")

    def _check_outcomes(self, label: str, estimator: sc.Estimator) -> None:
        """Refuse a method that requires outcomes where no prompt has one."""
        if self.known_outcomes().share == 0 and estimator.reads.outcome == "required":
            raise MethodError("needs outcomes, and answered=0 leaves none", field=label)

    def _fill_in(self) -> None:
        """Set the fields that were left to the task."""
        if self.model not in SIZES:
            reason = f"expected one of {', '.join(SIZES)}, got {self.model!r}"
            raise StepCreditError(reason, field="model")
        task = self.built_task()
        signal = self.signal if self.signal is not None else task.default_signal
        task.check_signal(signal)
        found = {
            "signal": signal,
            "max_new_tokens": task.max_new_tokens,
            "warm": task.warm_start(self.seed, self.model),
            "teacher": task.teacher(signal, self.seed),
        }
        for name, value in found.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def built_task(self) -> Task:
        """The task with its options."""
        return task_named(self.task, self.task_fields)

    def process_signal(self) -> ProcessSignal:
        """The signal of the run.

        Raises:
            StepCreditError: the task has no such signal, or the signal has no such setting.
        """
        return self.built_task().signal(self.signal, self.seed, self.signal_fields)

    def known_outcomes(self) -> Answered:
        """Which prompts have a known outcome.

        Raises:
            StepCreditError: the share is out of range.
        """
        return Answered(self.answered, self.seed)

    def models_read(self, estimator: sc.Estimator) -> set[str]:
        """The models whose log-probs the method reads, itself or through the signal."""
        read = set(estimator.reads.logprobs)
        return read if estimator.reads.process is None else read | {*self.process_signal().models}

    def estimators(self) -> list[tuple[str, sc.Estimator]]:
        """(label, estimator) of each method, in training order; no two labels are equal."""
        runs = [(self.method, self.estimator(self.method, self.fields))]
        if self.compare is not None:
            label = self.compare if self.compare != self.method else f"{self.compare}-defaults"
            runs.append((label, self.estimator(self.compare, {})))
        return runs

    def estimator(self, method: str, fields: Mapping[str, Any]) -> sc.Estimator:
        """The method with the lab's clip and weights, except where `fields` sets others.

        Args:
            method: name of the method.
            fields: settings of the method.

        Raises:
            MethodError: the method is unknown, has no such field, or cannot take the lab's weights.
        """
        default = sc.estimator(method)
        ours = _plain(self._with_weights(replace(default, clip=self.clip)))
        changed = {n: ours[n] for n, value in _plain(default).items() if ours[n] != value}
        return sc.estimator(method, **{**changed, **fields})

    def _with_weights(self, estimator: sc.Estimator) -> sc.Estimator:
        """The method with the lab's weights for the streams that it weights."""
        reads, weights = estimator.reads, dict(zip(STREAMS, self.weights, strict=True))
        if reads.weights is not None:
            return estimator.with_weights({s: w for s, w in weights.items() if s in reads.weights})
        if not reads.format:
            return estimator
        try:  # a method that weights only the outcome and the format; other methods weight neither
            return estimator.with_weights({s: weights[s] for s in ("outcome", "format")})
        except MethodError:
            return estimator

    def save(self, path: Path) -> None:
        """Write the settings as JSON, with the resolved settings of each method."""
        estimators = {label: {"method": e.name, **_plain(e)} for label, e in self.estimators()}
        text = json.dumps({"settings": asdict(self), "estimators": estimators}, indent=2)
        with file_errors(str(path)):
            path.write_text(text + "\n")

    @classmethod
    def load(cls, path: Path) -> LabSettings:
        """Load the settings from a run folder.

        Raises:
            FileError: the file does not exist, or does not hold the settings of a run.
        """
        try:
            given = json.loads(path.read_text())["settings"]
            starts: dict[str, Any] = {
                name: _warm_start(given.pop(name)) for name in ("warm", "teacher")
            }
            return cls(**{**given, "weights": tuple(given["weights"])}, **starts)
        except FileNotFoundError:
            raise FileError("no such file: not a run folder", field=str(path)) from None
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"not the config of a run: {error}", field=str(path)) from None


def quick_settings(**changes: Any) -> LabSettings:
    """Settings of a run of about a minute or less: it does every stage, but learns little.

    Args:
        changes: fields of `LabSettings`.

    Returns:
        Settings with a smaller decoder and a weaker warm start.

    Example:
        >>> quick_settings(seed=1).warm.seed
        1
    """
    settings = LabSettings(**{**QUICK, **changes})
    small = ModelSettings(width=64, layers=2, heads=2, feed_forward=128)
    warm = replace(settings.warm, model=small, floor=0.0, target=0.0, ceiling=1.0)
    warm = replace(warm, check_from=160, check_problems=64)
    teacher = replace(settings.teacher, model=small, target=0.0, check_from=240)
    starts = {"warm": warm, "teacher": teacher}
    return replace(settings, **{**starts, **{n: v for n, v in changes.items() if n in starts}})


def check_task_has(label: str, estimator: sc.Estimator, task: Task) -> None:
    """Refuse a method that reads what the task does not have.

    Args:
        label: name of the method in the error message.
        estimator: the method.
        task: the task.

    Raises:
        MethodError: the method reads log-probs of a model that the task does not have, needs the
            states of steps where the task has no tools, or needs a stream with another name than
            "process".
    """
    if estimator.reads.states and task.environment is None:
        reason = f"compares steps taken in one state, and the task {task.name!r} has no tools"
        raise MethodError(f"{reason} whose answers make states: try the task agent", field=label)
    for model in estimator.reads.logprobs:
        if model not in MODELS:
            known = ", ".join(MODELS)
            reason = f"reads {model}_logprobs, but the task has only those of {known}"
            raise MethodError(reason, field=label)
    estimator.check_streams(["process"])


def _warm_start(given: dict[str, Any]) -> WarmStartSettings:
    return WarmStartSettings(**{**given, "model": ModelSettings(**given["model"])})


def _plain(estimator: sc.Estimator) -> dict[str, Any]:
    values = vars(estimator)
    return {declared.name: values[declared.name] for declared in fields(estimator)}
