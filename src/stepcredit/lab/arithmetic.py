"""The embedded task: chains of + - * modulo 10, worked left to right, one step a line.

A prompt is `3+4*2-1=`, read left to right as on a pocket calculator (no precedence). A completion
is a line a step, each restating its left operand, and the answer in its template:

    3+4=7
    7*2=4
    4-1=3
    <3>$

`$` is the end-of-sequence token. A line `kX` (X a digit, as a rule the value reached) is
grammatical filler: it says nothing new and spoils nothing. One character is one token, so an
exact checker can read every step.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stepcredit.errors import StepCreditError
from stepcredit.keys import keyed_generator
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

TASK_VERSION = 2
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
    """One chain: its prompt, such as `3+4*2=`, and the digit it comes to."""

    prompt: str
    answer: int


@dataclass(frozen=True)
class Graded:
    """What the exact checker says of one completion.

    Attributes:
        step_ends: index of each line's last token, increasing; the last is the last token.
        kinds: one of `KINDS` a line. `right`: does the next operation of the chain on the value
            as last written, rightly. `wrong`: any other line of a step's form. `filler`: `kX`.
            `answer`: the answer line, restating the value as last written; it may come too
            early, which `outcome` finds out: kinds judge a line by what precedes it, not by
            what is missing. `bad_answer`: any other line of the answer's form. `malformed`: no
            line of the grammar, or one cut off by the token limit.
        outcome: 1.0 where the completion ends in the template with the true value, else 0.0.
        format: 1.0 where every line is of the grammar and the answer line comes last, once.
        format_ok: `format` as a flag.
        operations: operations the chain asks for.
    """

    step_ends: list[int]
    kinds: list[str]
    outcome: float
    format: float
    format_ok: bool
    operations: int

    @property
    def fillers(self) -> int:
        """Filler lines."""
        return self.kinds.count("filler")

    @property
    def right_steps(self) -> int:
        """Steps done rightly."""
        return self.kinds.count("right")

    @property
    def step_accuracy(self) -> float:
        """Right steps over the operations asked for (or the steps written, if more)."""
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

    Source: ours.
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
        StepCreditError: when the text is no prompt of this task.

    Example:
        >>> parse_prompt("3+4*2=")
        (3, [('+', 4), ('*', 2)])

    Source: ours.
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
        One digit an operation; the last is the answer.

    Raises:
        StepCreditError: when the text is no prompt of this task.

    Example:
        >>> solve("3+4*2=")
        [7, 4]

    Source: ours.
    """
    value, operations = parse_prompt(prompt)
    values = []
    for operator, digit in operations:
        value = apply(value, operator, digit)
        values.append(value)
    return values


def split_of(prompt: str) -> str:
    """Which split a prompt belongs to: by a hash of its text, so no prompt is in two of them.

        BLAKE2b(prompt) mod 10:  0 held_out, 1 check, 2 to 9 train

    Args:
        prompt: any text.

    Returns:
        One of `SPLITS`. It depends on the text alone, never on a seed.

    Example:
        >>> split_of("3+4*2-1=")
        'train'

    Source: ours.
    """
    bucket = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
    number = int.from_bytes(bucket, "big") % 10
    return {0: "held_out", 1: "check"}.get(number, "train")


def problems(n: int, split: str = "train", seed: int = 0) -> list[Problem]:
    """Draw distinct problems of one split.

    Args:
        n: how many, > 0.
        split: "train"; "check", on which the warm start is stopped; or "held_out".
        seed: another seed, another draw; the splits stay disjoint over all seeds.

    Returns:
        n different problems of 3 to 5 operations; the first m of n are the n = m draw.

    Raises:
        StepCreditError: when the split is unknown or n is not positive.

    Example:
        >>> problem = problems(1, "held_out", seed=0)[0]
        >>> split_of(problem.prompt), problem.answer == solve(problem.prompt)[-1]
        ('held_out', True)

    Source: ours.
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
    """Prompts of one split without end; one may come again.

    Args:
        split: one of `SPLITS`.
        generator: what the draws come from.

    Returns:
        An endless iterator of prompts with 3 to 5 operations, each number of them equally often.

    Example:
        >>> from stepcredit.keys import keyed_generator
        >>> split_of(next(prompts("check", keyed_generator(0, "x"))))
        'check'

    Source: ours.
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
    """A worked completion to imitate, at times with filler, at times stopped early.

    Args:
        prompt: such as `3+4*2=`.
        generator: what the draws come from.
        filler: chance of a filler line before each line, and of another after it, up to
            `MAX_FILLERS` in all. `kX` names the value reached, so it disturbs nothing either.
        early_stop: chance that it answers with the value reached before the last operation.

    Returns:
        The completion, `$` included. Both habits are in it so that a policy which imitates it
        can find them: padding, and stopping early.

    Example:
        >>> from stepcredit.keys import keyed_generator
        >>> print(demonstration("3+4*2=", keyed_generator(0, "x"), filler=0, early_stop=0))
        3+4=7
        7*2=4
        <4>$

    Source: ours.
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
        completion: one character a token, the end-of-sequence token as `$`.

    Returns:
        `Graded`. A line ends at its newline or `$`; what the token limit cut off is one more
        line, malformed. The answer line is the last step. An empty completion has no step,
        outcome 0 and format 0.

    Raises:
        StepCreditError: when the prompt is none of this task.

    Example:
        >>> graded = check("3+4*2=", "3+4=7\\nk7\\n7*2=5\\n<5>$")
        >>> graded.kinds, graded.step_ends
        (['right', 'filler', 'wrong', 'answer'], [5, 8, 14, 18])
        >>> graded.outcome, graded.format
        (0.0, 1.0)

    Source: ours.
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
    """A line's kind, and the value it writes if it has a step's form."""
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
    """Grade a completion's token ids: `check` on one character a token.

    Args:
        prompt: such as `3+4*2=`.
        completion_ids: the trained tokens, the end-of-sequence token included, padding not.
        tokenizer: the task's.

    Returns:
        `Graded`; the last of `step_ends` is `len(completion_ids) - 1`.

    Raises:
        StepCreditError: when the prompt is none of this task.

    Example:
        >>> tokenizer = build_tokenizer()
        >>> check_tokens("3+4*2=", tokenizer("3+4=7\\n7*2=4\\n<4>$").input_ids, tokenizer).outcome
        1.0

    Source: ours.
    """
    return check(prompt, completion_text(completion_ids, tokenizer))
