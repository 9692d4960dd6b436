"""The embedded task "arithmetic": chains of + - * modulo 10, one step per line.

A prompt such as `3+4*2-1=` is read left to right, without operator precedence. A completion has
one line per step, with the value reached as its left operand, and then the answer in its template:

    3+4=7
    7*2=4
    4-1=3
    <3>$

`$` is the end-of-sequence token. A line `kX` (X is a digit, usually the value reached) is filler:
it is allowed by the grammar, adds no information and does no harm. One character is one token, so
an exact checker can read every step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stepcredit.errors import SettingError, StepCreditError
from stepcredit.lab.grading import Graded, Problem, follows_template
from stepcredit.lab.model import SIZES
from stepcredit.lab.outcome_signals import OUTCOME_SIGNALS, OutcomeSignal
from stepcredit.lab.simulated_prm import SIGNALS, Simulated
from stepcredit.lab.task import ProcessSignal, Task, check_signal_fields, hash_split
from stepcredit.lab.task_registry import TASKS
from stepcredit.lab.tokenizer import EOS, MAX_LENGTH, build_tokenizer, completion_text
from stepcredit.lab.warm_settings import WarmStartSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "ARITHMETIC",
    "ArithmeticTask",
    "Graded",
    "Problem",
    "build_tokenizer",
    "check",
    "check_tokens",
    "completion_text",
    "demonstration",
    "problems",
    "prompts",
    "solve",
]

TASK_VERSION = 3
MAX_FILLERS = 6
OPERATIONS = "3-5"
LONGEST_CHAIN = 20
LONG_MAX_STEPS = 3000
OPERATORS = "+-*"

_LINE = re.compile(r"[^\n$]*[\n$]|[^\n$]+")
_STEP = re.compile(r"([0-9])([+*-])([0-9])=([0-9])\n")
_FILLER = re.compile(r"k[0-9]\n")
_ANSWER = re.compile(r"<([0-9])>\$")
_PROMPT = re.compile(r"[0-9](?:[+*-][0-9])+=")
_RANGE = re.compile(r"([0-9]{1,2})-([0-9]{1,2})")


def apply(left: int, operator: str, right: int) -> int:
    """One operation modulo 10.

    Args:
        left: a digit.
        operator: one of `+`, `-`, `*`.
        right: a digit.

    Returns:
        The digit (left operator right) mod 10.

    Example:
        >>> apply(3, "-", 7), apply(7, "*", 8)
        (6, 6)
    """
    if operator == "+":
        return (left + right) % 10
    if operator == "-":
        return (left - right) % 10
    return (left * right) % 10


def parse_prompt(prompt: str) -> tuple[int, list[tuple[str, int]]]:
    """The first value of a chain and its operations in order.

    Args:
        prompt: such as `3+4*2=`.

    Returns:
        (3, [("+", 4), ("*", 2)]).

    Raises:
        StepCreditError: the text is not a prompt of this task.

    Example:
        >>> parse_prompt("3+4*2=")
        (3, [('+', 4), ('*', 2)])
    """
    if not _PROMPT.fullmatch(prompt):
        raise StepCreditError(f"expected a chain such as 3+4*2=, got {prompt!r}", field="prompt")
    pairs = zip(prompt[1:-1:2], prompt[2:-1:2], strict=True)
    return int(prompt[0]), [(operator, int(digit)) for operator, digit in pairs]


def solve(prompt: str) -> list[int]:
    """The value after each operation of a chain, left to right.

    Args:
        prompt: such as `3+4*2=`.

    Returns:
        One digit per operation; the last one is the answer.

    Raises:
        StepCreditError: the text is not a prompt of this task.

    Example:
        >>> solve("3+4*2=")
        [7, 4]
    """
    value, operations = parse_prompt(prompt)
    values = []
    for operator, digit in operations:
        value = apply(value, operator, digit)
        values.append(value)
    return values


def problems(n: int, split: str = "train", seed: int = 0) -> list[Problem]:
    """Draw distinct problems of one split: `Task.problems` of this task.

    Args:
        n: number of problems, > 0.
        split: "train"; "check", which decides when the warm start stops; or "held_out".
        seed: seed of the draw; the splits are disjoint for all seeds.

    Returns:
        n different problems of 3 to 5 operations; the first m of them are those drawn with n = m.

    Raises:
        StepCreditError: the split is unknown or n is not positive.

    Example:
        >>> problem = problems(1, "held_out", seed=0)[0]
        >>> hash_split(problem.prompt), problem.answer == solve(problem.prompt)[-1]
        ('held_out', True)
    """
    return ARITHMETIC.problems(n, split, seed)


def prompts(
    split: str, generator: np.random.Generator, operations: tuple[int, int] = (3, 5)
) -> Iterator[str]:
    """Prompts of one split, without end; a prompt may be repeated.

    Args:
        split: one of the task's splits.
        generator: source of the random draws.
        operations: the fewest and the most operations.

    Returns:
        An endless iterator of prompts; each number of operations is equally frequent.

    Example:
        >>> from stepcredit.keys import keyed_generator
        >>> hash_split(next(prompts("check", keyed_generator(0, "x"))))
        'check'
    """
    fewest, most = operations
    while True:
        count = int(generator.integers(fewest, most + 1))
        digits = generator.integers(0, 10, count + 1).tolist()
        operators = generator.integers(0, len(OPERATORS), count).tolist()
        pairs = zip(operators, digits[1:], strict=True)
        prompt = f"{digits[0]}{''.join(f'{OPERATORS[o]}{d}' for o, d in pairs)}="
        if hash_split(prompt) == split:
            yield prompt


def demonstration(
    prompt: str,
    generator: np.random.Generator,
    filler: float = 0.12,
    early_stop: float = 0.08,
) -> str:
    """A completion to imitate, sometimes with filler lines, sometimes with an early answer.

    Args:
        prompt: such as `3+4*2=`.
        generator: source of the random draws.
        filler: probability of a filler line before each line, and of another one after it, up to
            `MAX_FILLERS` in all. `kX` names the value reached, so it does no harm.
        early_stop: probability of answering with the value reached before the last operation.

    Returns:
        The completion, `$` included. Filler and early answers are included so that a policy that
        imitates it can discover both habits.

    Example:
        >>> from stepcredit.keys import keyed_generator
        >>> print(demonstration("3+4*2=", keyed_generator(0, "x"), filler=0, early_stop=0))
        3+4=7
        7*2=4
        <4>$
    """
    value, operations = parse_prompt(prompt)
    stop = len(operations)
    if generator.random() < early_stop:
        stop = int(generator.integers(1, len(operations)))
    text, fillers = "", 0
    for place in range(stop + 1):
        while fillers < MAX_FILLERS and generator.random() < filler:
            text, fillers = f"{text}k{value}\n", fillers + 1
        if place < stop:
            operator, digit = operations[place]
            result = apply(value, operator, digit)
            text, value = f"{text}{value}{operator}{digit}={result}\n", result
    return f"{text}<{value}>{EOS}"


def check(prompt: str, completion: str) -> Graded:
    """Grade a completion exactly, line by line.

    Args:
        prompt: such as `3+4*2=`.
        completion: one character per token, the end-of-sequence token as `$`.

    Returns:
        `Graded`. A line ends at its newline or `$`; text cut off by the token limit counts as one
        more, malformed, line. The answer line is the last step. An empty completion has no step,
        outcome 0 and format 0.

    Raises:
        StepCreditError: the prompt does not belong to this task.

    Example:
        >>> graded = check("3+4*2=", "3+4=7\\nk7\\n7*2=5\\n<5>$")
        >>> graded.kinds, graded.step_ends
        (['right', 'filler', 'wrong', 'answer'], [5, 8, 14, 18])
        >>> graded.outcome, graded.format
        (0.0, 1.0)
    """
    value, operations = parse_prompt(prompt)
    step_ends, kinds, position, done = [], [], -1, 0
    for line in _LINE.findall(completion):
        position += len(line)
        step_ends.append(position)
        kind, written = _kind(line, value, operations[done:])
        kinds.append(kind)
        if written is not None:
            value, done = written, done + 1
    template = _ANSWER.fullmatch(completion[-4:])
    well_formed = follows_template(kinds)
    return Graded(
        step_ends=step_ends,
        kinds=kinds,
        outcome=float(template is not None and int(template[1]) == solve(prompt)[-1]),
        format=float(well_formed),
        format_ok=well_formed,
        operations=len(operations),
    )


def _kind(line: str, value: int, pending: list[tuple[str, int]]) -> tuple[str, int | None]:
    """The kind of a line, and the value it writes if it has the form of a step."""
    if step := _STEP.fullmatch(line):
        left, operator, right, result = int(step[1]), step[2], int(step[3]), int(step[4])
        follows = bool(pending) and pending[0] == (operator, right) and left == value
        right_step = follows and result == apply(left, operator, right)
        return ("right" if right_step else "wrong"), result
    if _FILLER.fullmatch(line):
        return "filler", None
    if answer := _ANSWER.fullmatch(line):
        return ("answer" if int(answer[1]) == value else "bad_answer"), None
    return "malformed", None


def check_tokens(
    prompt: str, completion_ids: Sequence[int], tokenizer: PreTrainedTokenizerFast
) -> Graded:
    """Grade the token ids of a completion: `Task.check_tokens` of this task.

    Args:
        prompt: such as `3+4*2=`.
        completion_ids: the trained tokens, with the end-of-sequence token and without padding.
        tokenizer: the task's.

    Returns:
        `Graded`; the last of `step_ends` is `len(completion_ids) - 1`.

    Raises:
        StepCreditError: the prompt does not belong to this task.

    Example:
        >>> tokenizer = build_tokenizer()
        >>> check_tokens("3+4*2=", tokenizer("3+4=7\\n7*2=4\\n<4>$").input_ids, tokenizer).outcome
        1.0
    """
    return ARITHMETIC.check_tokens(prompt, completion_ids, tokenizer)


TEACHER = WarmStartSettings(
    filler=0.0,
    early_stop=0.0,
    floor=0.0,
    target=0.8,
    ceiling=1.0,
    check_from=300,
    check_every=25,
    max_steps=3000,
)


def operation_range(text: str) -> tuple[int, int]:
    """The fewest and the most operations of a chain.

    Raises:
        SettingError: the text is no range within 1 to 20.

    Example:
        >>> operation_range("6-10")
        (6, 10)
    """
    matched = _RANGE.fullmatch(text) if isinstance(text, str) else None
    fewest, most = map(int, matched.groups()) if matched else (0, 0)
    if not 1 <= fewest <= most <= LONGEST_CHAIN:
        reason = f"expected a range from 1 to {LONGEST_CHAIN} such as 6-10, got {text!r}"
        raise SettingError(reason, field="operations")
    return fewest, most


@TASKS.register("arithmetic")
@dataclass(frozen=True)
class ArithmeticTask(Task):
    """Chains of + - * modulo 10.

    Args:
        operations: the fewest and the most operations of a chain, such as "6-10"; at most 20.

    Raises:
        SettingError: the range cannot be read.
    """

    operations: str = OPERATIONS

    signals = (*SIGNALS, *OUTCOME_SIGNALS)
    default_signal = "noisy"

    def __post_init__(self) -> None:
        operation_range(self.operations)

    @property
    def cache_key(self) -> int | str:
        """The task's version, and the operations if they are not the usual ones."""
        usual = self.operations == OPERATIONS
        return TASK_VERSION if usual else f"arithmetic {TASK_VERSION}, {self.operations}"

    @property
    def max_new_tokens(self) -> int:
        """Room for the longest chain with all its fillers: 56 for 5 operations."""
        return 6 * operation_range(self.operations)[1] + 3 * MAX_FILLERS + 8

    def warm_start(self, seed: int, model: str = "small") -> WarmStartSettings:
        """Supervised training to a pass@1 of about 0.43."""
        return self._of_this(WarmStartSettings(seed=seed, model=SIZES[model]))

    def teacher(self, signal: str, seed: int) -> WarmStartSettings:
        """One teacher for all signals, which was shown clean demonstrations only."""
        return self._of_this(replace(TEACHER, seed=seed))

    def _of_this(self, start: WarmStartSettings) -> WarmStartSettings:
        """The supervised training on chains of this length; longer chains may take more steps."""
        if self.operations == OPERATIONS:
            return start
        fields = {"operations": self.operations}
        return replace(start, max_steps=LONG_MAX_STEPS, task_fields=fields)

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """One character per token."""
        longest_prompt = 2 * operation_range(self.operations)[1] + 2
        return build_tokenizer(max(MAX_LENGTH, longest_prompt + self.max_new_tokens))

    def prompts(self, split: str, generator: np.random.Generator) -> Iterator[str]:
        """Chains of one split."""
        return prompts(split, generator, operation_range(self.operations))

    def problem(self, prompt: str) -> Problem:
        """The chain and its value."""
        return Problem(prompt, solve(prompt)[-1])

    def demonstration(
        self, prompt: str, generator: np.random.Generator, filler: float, early_stop: float
    ) -> str:
        """See the function `demonstration`."""
        return demonstration(prompt, generator, filler, early_stop)

    def check(self, prompt: str, completion: str) -> Graded:
        """See the function `check`."""
        return check(prompt, completion)

    def signal(
        self, name: str, seed: int, fields: Mapping[str, Any] | None = None
    ) -> ProcessSignal:
        """A simulated process reward model, or a signal that is made of outcomes.

        The settings are `filler` and `flips` of the first; `n` of `monte-carlo`.
        """
        self.check_signal(name)
        of_outcomes = {"monte-carlo": ("n",)} | dict.fromkeys(OUTCOME_SIGNALS[1:], ())
        check_signal_fields(fields, of_outcomes.get(name, ("filler", "flips")))
        if name in OUTCOME_SIGNALS:
            return OutcomeSignal(name, self, seed, **(fields or {}))
        return Simulated(name, seed, **(fields or {}))


ARITHMETIC = ArithmeticTask()
MAX_NEW_TOKENS = ARITHMETIC.max_new_tokens
