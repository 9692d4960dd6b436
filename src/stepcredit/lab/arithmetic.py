"""The embedded task: chains of + - * modulo 10, worked left to right, one step per line.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stepcredit.errors import StepCreditError
from stepcredit.keys import digest64, keyed_generator
from stepcredit.lab.tokenizer import EOS, build_tokenizer, completion_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
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
    "split_of",
]

TASK_VERSION = 3
MAX_NEW_TOKENS = 56
MAX_FILLERS = 6
MIN_OPERATIONS, MAX_OPERATIONS = 3, 5
OPERATORS = "+-*"
SPLITS = ("train", "check", "held_out")
KINDS = ("right", "wrong", "filler", "answer", "bad_answer", "malformed")

_LINE = re.compile(r"[^\n$]*[\n$]|[^\n$]+")
_STEP = re.compile(r"([0-9])([+*-])([0-9])=([0-9])\n")
_FILLER = re.compile(r"k[0-9]\n")
_ANSWER = re.compile(r"<([0-9])>\$")
_PROMPT = re.compile(r"[0-9](?:[+*-][0-9])+=")


@dataclass(frozen=True)
class Problem:
    """One chain: its prompt, such as `3+4*2=`, and its answer, a digit."""

    prompt: str
    answer: int


@dataclass(frozen=True)
class Graded:
    """The exact checker's result for one completion.

    Args:
        step_ends: index of each line's last token, increasing; the last is the last token.
        kinds: one of `KINDS` per line. `right`: a correct computation of the chain's next
            operation, on the value last written. `wrong`: any other line in the form of a step.
            `filler`: `kX`. `answer`: an answer line that repeats the value last written; it may
            come too early, because a kind judges a line by the lines before it, and only
            `outcome` shows that steps are missing. `bad_answer`: any other line in the form of an
            answer. `malformed`: a line outside the grammar, or one cut off by the token limit.
        outcome: 1.0 if the completion ends with the true value in the template, else 0.0.
        format: 1.0 if every line follows the grammar and the only answer line is last, else 0.0.
        format_ok: `format` as a bool.
        operations: number of operations in the chain.
    """

    step_ends: list[int]
    kinds: list[str]
    outcome: float
    format: float
    format_ok: bool
    operations: int

    @property
    def fillers(self) -> int:
        """Number of filler lines."""
        return self.kinds.count("filler")

    @property
    def right_steps(self) -> int:
        """Number of right steps."""
        return self.kinds.count("right")

    @property
    def step_accuracy(self) -> float:
        """Right steps divided by the chain's operations (or by the steps written, if more)."""
        written = self.right_steps + self.kinds.count("wrong")
        return self.right_steps / max(self.operations, written)


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


def split_of(prompt: str) -> str:
    """The split of a prompt, chosen by a hash of its text: no prompt is in two splits.

        BLAKE2b(prompt) mod 10:  0 held_out, 1 check, 2 to 9 train

    Args:
        prompt: any text.

    Returns:
        One of `SPLITS`. It depends on the text alone, never on a seed.

    Example:
        >>> split_of("3+4*2-1=")
        'train'
    """
    return {0: "held_out", 1: "check"}.get(digest64(prompt) % 10, "train")


def problems(n: int, split: str = "train", seed: int = 0) -> list[Problem]:
    """Draw distinct problems of one split.

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
        >>> split_of(problem.prompt), problem.answer == solve(problem.prompt)[-1]
        ('held_out', True)
    """
    if split not in SPLITS:
        raise StepCreditError(f"expected one of {', '.join(SPLITS)}, got {split!r}", field="split")
    if n <= 0:
        raise StepCreditError(f"expected a positive number of problems, got {n}", field="n")
    drawn: dict[str, None] = {}
    for prompt in prompts(split, keyed_generator(seed, "problems", split)):
        drawn[prompt] = None
        if len(drawn) == n:
            break
    return [Problem(prompt, solve(prompt)[-1]) for prompt in drawn]


def prompts(split: str, generator: np.random.Generator) -> Iterator[str]:
    """Prompts of one split, without end; a prompt may be repeated.

    Args:
        split: one of `SPLITS`.
        generator: source of the random draws.

    Returns:
        An endless iterator of prompts with 3, 4 or 5 operations, each equally often.

    Example:
        >>> from stepcredit.keys import keyed_generator
        >>> split_of(next(prompts("check", keyed_generator(0, "x"))))
        'check'
    """
    while True:
        operations = int(generator.integers(MIN_OPERATIONS, MAX_OPERATIONS + 1))
        digits = generator.integers(0, 10, operations + 1).tolist()
        operators = generator.integers(0, len(OPERATORS), operations).tolist()
        pairs = zip(operators, digits[1:], strict=True)
        prompt = f"{digits[0]}{''.join(f'{OPERATORS[o]}{d}' for o, d in pairs)}="
        if split_of(prompt) == split:
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
    well_formed = bool(kinds) and kinds[-1] in ("answer", "bad_answer")
    well_formed = well_formed and not any(
        kind in ("answer", "bad_answer", "malformed") for kind in kinds[:-1]
    )
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
    """Grade the token ids of a completion, with `check` on one character per token.

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
    return check(prompt, completion_text(completion_ids, tokenizer))
