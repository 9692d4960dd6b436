"""What the lab needs of a task: problems, demonstrations, an exact checker, process signals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

import stepcredit as sc
from stepcredit.errors import StepCreditError
from stepcredit.keys import digest64, keyed_generator
from stepcredit.lab.environment import Environment
from stepcredit.lab.grading import Graded, Problem
from stepcredit.lab.task_registry import TASKS
from stepcredit.lab.tokenizer import completion_text
from stepcredit.lab.warm_settings import WarmStartSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ProcessScores = sc.Steps | sc.Tokens


class ProcessSignal(Protocol):
    """Scores the steps or the tokens of completions; one of a task's signals."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models whose log-probs it reads: "student", "teacher", "base"; often none."""

    def process(
        self,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        graded: Sequence[Graded],
        logprobs: Mapping[str, sc.Tokens],
    ) -> ProcessScores:
        """The scores of completions, from the checker's results and the models' log-probs."""


class Task(ABC):
    """One embedded task. A subclass is a frozen dataclass; its fields are the task's options.

    Class attributes:
        name: name of the task, given by `TASKS.register`.
        signals: names of its process signals.
        default_signal: the one that is used if none is named.
        splits: names of its splits, which share no prompt: "train"; "check", which decides when a
            warm start stops; and those to evaluate on.
        evaluation_splits: splits to evaluate on, by the label in reports; the first one is the
            distribution that the policy is trained on.
    """

    name: ClassVar[str]
    signals: ClassVar[tuple[str, ...]]
    default_signal: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ("train", "check", "held_out")
    evaluation_splits: ClassVar[Mapping[str, str]] = {"held-out": "held_out"}

    @property
    @abstractmethod
    def cache_key(self) -> int | str:
        """What the cache of supervised starts knows the task and its options by."""

    @property
    @abstractmethod
    def max_new_tokens(self) -> int:
        """The most tokens of an answer."""

    @abstractmethod
    def warm_start(self, seed: int, model: str = "small") -> WarmStartSettings:
        """The supervised training of the policy before RL; `model` is a name of `SIZES`."""

    @abstractmethod
    def teacher(self, signal: str, seed: int) -> WarmStartSettings:
        """The supervised training of the teacher that the signal and the methods read."""

    def teacher_seed(self, seed: int) -> int:
        """The seed of the teacher in a run with this seed: the same, or one for all runs."""
        return seed

    @property
    def environment(self) -> Environment | None:
        """The tools that answer in the middle of completions; None: there are none."""
        return None

    @abstractmethod
    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """The task's tokenizer, with padding on the left."""

    @abstractmethod
    def prompts(self, split: str, generator: np.random.Generator) -> Iterator[str]:
        """Prompts of one split, without end; a prompt may be repeated."""

    def demonstrated(self, generator: np.random.Generator) -> Iterator[str]:
        """Prompts of the demonstrations, without end: by default those of the split "train"."""
        return self.prompts("train", generator)

    @abstractmethod
    def problem(self, prompt: str) -> Problem:
        """The prompt and its answer."""

    @abstractmethod
    def demonstration(
        self, prompt: str, generator: np.random.Generator, filler: float, early_stop: float
    ) -> str:
        """A completion to imitate; the probabilities are those of its bad habits."""

    @abstractmethod
    def check(self, prompt: str, completion: str) -> Graded:
        """Grade a completion exactly, line by line."""

    @abstractmethod
    def signal(
        self, name: str, seed: int, fields: Mapping[str, Any] | None = None
    ) -> ProcessSignal:
        """A process signal by its name, with its settings.

        Raises:
            StepCreditError: the task has no such signal, or the signal has no such setting.
        """

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        """Draw distinct problems of one split.

        Args:
            n: number of problems, > 0.
            split: one of `splits`.
            seed: seed of the draw; the splits are disjoint for all seeds.

        Returns:
            n different problems; the first m of them are those drawn with n = m.

        Raises:
            StepCreditError: the split is unknown or n is not positive.
        """
        self.check_split(split)
        if n <= 0:
            raise StepCreditError(f"expected a positive number of problems, got {n}", field="n")
        drawn: dict[str, None] = {}
        for prompt in self.prompts(split, keyed_generator(seed, "problems", split)):
            drawn[prompt] = None
            if len(drawn) == n:
                break
        return [self.problem(prompt) for prompt in drawn]

    def check_split(self, split: str) -> None:
        """Refuse a split that the task does not have.

        Raises:
            StepCreditError: it names the splits.
        """
        if split not in self.splits:
            expected = ", ".join(self.splits)
            raise StepCreditError(f"expected one of {expected}, got {split!r}", field="split")

    def check_signal(self, name: str) -> None:
        """Refuse a signal that the task does not have.

        Raises:
            StepCreditError: it names the signals.
        """
        if name not in self.signals:
            expected = ", ".join(self.signals)
            raise StepCreditError(f"expected one of {expected}, got {name!r}", field="signal")

    def check_tokens(
        self, prompt: str, completion_ids: Sequence[int], tokenizer: PreTrainedTokenizerFast
    ) -> Graded:
        """Grade the token ids of a completion, with `check` on the text of its tokens.

        Args:
            prompt: a prompt of the task.
            completion_ids: its tokens, with the end-of-sequence token and without padding.
            tokenizer: the task's.

        Returns:
            `Graded`; the last of `step_ends` is `len(completion_ids) - 1`.

        Raises:
            StepCreditError: the prompt does not belong to this task.
        """
        return self.check(prompt, completion_text(completion_ids, tokenizer))


def check_signal_fields(given: Mapping[str, Any] | None, known: Sequence[str]) -> None:
    """Refuse a setting that a signal does not have.

    Args:
        given: the settings.
        known: names of those that the signal has.

    Raises:
        StepCreditError: names the setting.

    Example:
        >>> check_signal_fields({"flips": 0.2}, ("filler", "flips"))
    """
    unknown = sorted(set(given or {}) - set(known))
    if unknown:
        reason = f"has no setting {unknown[0]!r}, only {' and '.join(known) or 'its name'}"
        raise StepCreditError(reason, field="signal_fields")


def task_named(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """A task by its name, with its options.

    Args:
        name: one of `TASKS`.
        options: the task's fields by name.

    Raises:
        SettingError: the task or the option is unknown, or a value is out of range.

    Example:
        >>> task_named("arithmetic").default_signal
        'noisy'
        >>> task_named("arithmatic")
        Traceback (most recent call last):
        stepcredit.errors.SettingError: task: unknown task 'arithmatic', did you mean 'arithmetic'?
    """
    task: Task = TASKS.build(name, options, at="task", under="task_fields")
    return task


def hash_split(prompt: str) -> str:
    """The split of a prompt, chosen by a hash of its text: no prompt is in two splits.

        BLAKE2b(prompt) mod 10:  0 held_out, 1 check, 2 to 9 train

    Args:
        prompt: any text.

    Returns:
        "train", "check" or "held_out". It depends on the text alone, never on a seed.

    Example:
        >>> hash_split("3+4*2-1=")
        'train'
    """
    return {0: "held_out", 1: "check"}.get(digest64(prompt) % 10, "train")
