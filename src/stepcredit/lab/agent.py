"""The embedded task "agent": questions that an agent answers with two tools.

A prompt names one of 10,000 knowledge bases and asks for a number:

    "4712 Ann's sister's boss's number*7="

Its facts are those of a prompt of the task "multihop", and each person has a number; the agent sees
neither. It writes calls, the tools write what follows the `=`, and at last it writes the answer:

    lookup Ann's sister= Eve
    lookup Eve's boss= Ida
    lookup Ida's number=4
    calculator 4*7=8
    <8>$

`$` is the end-of-sequence token, and sums are modulo 10. A lookup of what the knowledge base does
not hold, and a call that is none, is answered by ` none`. Nothing but the outcome punishes a wrong
call: the agent can look up again. A name with the space before it is one token, and so are the name
of a tool and a relation, such as `'s boss`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

import stepcredit as sc
from stepcredit.errors import StepCreditError
from stepcredit.keys import keyed_generator
from stepcredit.lab.arithmetic import apply
from stepcredit.lab.environment import Environment
from stepcredit.lab.grading import Graded, Problem, follows_template
from stepcredit.lab.multihop import (
    NAMES,
    POLICIES,
    RELATIONS,
    HopQuestion,
    draw_prompt,
    read_question,
)
from stepcredit.lab.simulated_prm import SIGNALS, Simulated
from stepcredit.lab.task import ProcessSignal, Task, check_signal_fields, hash_split
from stepcredit.lab.task_registry import TASKS
from stepcredit.lab.tokenizer import EOS, PAD, UNKNOWN, build_word_tokenizer
from stepcredit.lab.warm_settings import WarmStartSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TASK_VERSION = "agent 1"
MAX_NEW_TOKENS = 60
"""Room for nine calls and an answer."""
HOPS = 2
KNOWLEDGE_BASES = 10_000
NUMBER, NONE = "'s number", " none"
OPERATORS = "+-*"
VOCABULARY = (
    *("lookup", "calculator ", *NAMES, *RELATIONS, NUMBER, NONE),
    *(*"0123456789", *OPERATORS, "=", "<", ">", "\n", EOS, PAD, UNKNOWN),
)

_TOKEN = re.compile("|".join(map(re.escape, VOCABULARY)) + r"|[\s\S]")
"""As the tokenizer reads: a character outside the vocabulary is a token."""
_NAME, _RELATION = ("|".join(map(re.escape, words)) for words in (NAMES, (*RELATIONS, NUMBER)))
_PROMPT = re.compile(r"(\d{4}) [\s\S]*")
_TURN = re.compile(r"([^=]*)=([^\n]*)(?:\n|\Z)")
"""A call and what the tool answered."""
_LOOKUP = re.compile(rf"lookup({_NAME})({_RELATION})")
_CALCULATION = re.compile(r"calculator (\d)([+*-])(\d)")
_ANSWER = re.compile(r"<(\d)>\$")


@dataclass(frozen=True)
class AgentQuestion:
    """A prompt, read, with its knowledge base.

    Args:
        hops: the facts, and the relations to follow.
        numbers: the number of each person.
        operator, operand: what to do with the number of the person reached.
    """

    hops: HopQuestion
    numbers: Mapping[str, int]
    operator: str
    operand: int

    def lookup(self, person: str, relation: str) -> str:
        """The person or the number that the knowledge base has, or ` none`.

        Example:
            >>> read_agent_prompt(draw_agent_prompt(7)).lookup(" Ann", "'s number")
            '8'
        """
        if relation == NUMBER:
            return str(self.numbers[person])
        return self.hops.facts.get((person, relation), NONE)

    def calls(self) -> list[str]:
        """The calls that answer the question, in order."""
        hops = self.hops.hops()
        person = hops[-1][2]
        lookups = [f"lookup{subject}{relation}" for subject, relation, _ in hops]
        number = self.numbers[person]
        return [
            *lookups,
            f"lookup{person}{NUMBER}",
            f"calculator {number}{self.operator}{self.operand}",
        ]

    @property
    def answer(self) -> int:
        """The number asked for."""
        person = self.hops.hops()[-1][2]
        return apply(self.numbers[person], self.operator, self.operand)

    def reply(self, call: str) -> str:
        """What the tools answer to a call, without its `=`.

        Example:
            >>> read_agent_prompt(draw_agent_prompt(7)).reply("calculator 4*7")
            '8'
        """
        if looked_up := _LOOKUP.fullmatch(call):
            return self.lookup(looked_up[1], looked_up[2])
        if sum_ := _CALCULATION.fullmatch(call):
            return str(apply(int(sum_[1]), sum_[2], int(sum_[3])))
        return NONE


@lru_cache(maxsize=KNOWLEDGE_BASES)
def _knowledge_base(number: int) -> tuple[str, AgentQuestion]:
    generator = keyed_generator(number, TASK_VERSION)
    hops = read_question(draw_prompt(HOPS, generator))
    numbers = dict(zip(NAMES, generator.integers(10, size=len(NAMES)).tolist(), strict=True))
    operator = OPERATORS[int(generator.integers(len(OPERATORS)))]
    question = AgentQuestion(hops, numbers, operator, int(generator.integers(10)))
    asked = f"{hops.start}{''.join(hops.relations)}{NUMBER}{operator}{question.operand}"
    return f"{number:04d}{asked}=", question


def draw_agent_prompt(number: int) -> str:
    """The question over a knowledge base.

    Args:
        number: of the knowledge base, below `KNOWLEDGE_BASES`.

    Example:
        >>> draw_agent_prompt(7)
        "0007 Fay's sister's teacher's number-0="
    """
    return _knowledge_base(number)[0]


def read_agent_prompt(prompt: str) -> AgentQuestion:
    """The question of a prompt, with its knowledge base.

    Raises:
        StepCreditError: the text is not a prompt of this task.

    Example:
        >>> read_agent_prompt(draw_agent_prompt(7)).calls()[:2]
        ["lookup Fay's sister", "lookup Bob's teacher"]
    """
    matched = _PROMPT.fullmatch(prompt)
    text, question = _knowledge_base(int(matched[1])) if matched else ("", None)
    if question is None or text != prompt:
        expected = f"a question such as {draw_agent_prompt(0)!r}"
        raise StepCreditError(f"expected {expected}, got {prompt!r}", field="prompt")
    return question


class AgentTools(Environment):
    """`lookup` and `calculator` over the knowledge base of a prompt.

    The state is what the agent has learned: the calls that were answered by something else than
    ` none`, in any order. So a call made twice, and one without an answer, lead back to the state
    they were made in.

    Example:
        >>> tools, prompt = AgentTools(), draw_agent_prompt(7)
        >>> tools.reply(prompt, "calculator 4*7=")
        '8\\n'
        >>> tools.state("calculator 4*7=8\\nlookup Ann's boss= none\\ncalculator 4*7=8\\n")
        'calculator 4*7'
    """

    call_end = "="
    reply_end = "\n"

    def reply(self, prompt: str, completion: str) -> str:
        """The answer to the last call."""
        call = _TURN.sub("", completion[:-1])
        return read_agent_prompt(prompt).reply(call) + self.reply_end

    def state(self, completion: str) -> str:
        """The calls that were answered, sorted."""
        answered = {call for call, reply in _TURN.findall(completion) if reply != NONE}
        return ", ".join(sorted(answered))


WARM_START = WarmStartSettings(
    task="agent",
    model=POLICIES["small"],
    learning_rate=4e-3,
    filler=0.2,
    early_stop=0.2,
    floor=0.3,
    ceiling=0.5,
    check_from=100,
    check_every=5,
    check_problems=128,
    max_steps=1500,
)


@dataclass(frozen=True)
class NoScores:
    """A signal that scores every turn 0: the outcome is all that a method learns from."""

    models = ()

    def process(
        self,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        graded: Sequence[Graded],
        logprobs: Mapping[str, sc.Tokens],
    ) -> sc.Steps:
        """A zero for each turn."""
        return sc.Steps([g.step_ends for g in graded], [[0.0] * len(g.kinds) for g in graded])


@TASKS.register("agent")
@dataclass(frozen=True)
class AgentTask(Task):
    """Questions that need three lookups and a calculation."""

    signals = (*SIGNALS, "none")
    default_signal = "noisy"

    @property
    def cache_key(self) -> int | str:
        """The task's version."""
        return TASK_VERSION

    @property
    def environment(self) -> Environment:
        """The two tools."""
        return AgentTools()

    @property
    def max_new_tokens(self) -> int:
        """Room for nine calls, their replies, and an answer."""
        return MAX_NEW_TOKENS

    def warm_start(self, seed: int, model: str = "small") -> WarmStartSettings:
        """Supervised training to a pass@1 of about 0.43."""
        return replace(WARM_START, seed=seed, model=POLICIES[model])

    def teacher(self, signal: str, seed: int) -> WarmStartSettings:
        """The same training without bad habits; no signal of this task reads it."""
        return replace(WARM_START, seed=seed, filler=0.0, early_stop=0.0, floor=0.0, ceiling=1.0)

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """One name, relation, tool or sign per token."""
        return build_word_tokenizer(VOCABULARY)

    def prompts(self, split: str, generator: np.random.Generator) -> Iterator[str]:
        """Questions of one split."""
        while True:
            prompt = draw_agent_prompt(int(generator.integers(KNOWLEDGE_BASES)))
            if hash_split(prompt) == split:
                yield prompt

    def problem(self, prompt: str) -> Problem:
        """The question and its number."""
        return Problem(prompt, read_agent_prompt(prompt).answer)

    def demonstration(
        self, prompt: str, generator: np.random.Generator, filler: float, early_stop: float
    ) -> str:
        """Calls with the tools' answers, and the number; sometimes with a detour, or cut short.

        Args:
            prompt: a question.
            generator: source of the random draws.
            filler: probability of a needless call before each call: one that was made before, or
                the lookup of something else. Half of the wrong lookups that reach a person are
                believed: the agent goes on from there.
            early_stop: probability of answering with the number looked up, without the calculation.

        Returns:
            The completion, `$` included.
        """
        question = read_agent_prompt(prompt)
        person, turns = question.hops.start, list[str]()
        for relation in question.hops.relations:
            reached = NONE
            if generator.random() < filler:
                reached = _detour(question, person, turns, generator)
            if reached == NONE or generator.random() < 0.5:
                reached = _call(question, f"lookup{person}{relation}", turns)
            person = person if reached == NONE else reached
        value = _call(question, f"lookup{person}{NUMBER}", turns)
        if generator.random() >= early_stop:
            sum_ = f"calculator {value}{question.operator}{question.operand}"
            value = _call(question, sum_, turns)
        return "".join([*turns, f"<{value}>{EOS}"])

    def check(self, prompt: str, completion: str) -> Graded:
        """Grade a completion exactly, turn by turn.

        Returns:
            `Graded`, whose steps are turns with the tools' answers. `right`: the next of the calls
            that the question needs. `wrong`: any other call, such as a lookup of something else.
            `filler`: a call that was made before. `answer`: an answer that repeats what a tool
            answered last, be it too early. `malformed`: any other text, also one that was cut off.

        Raises:
            StepCreditError: the prompt does not belong to this task.

        Example:
            >>> prompt = draw_agent_prompt(7)
            >>> text = "calculator 4*7=8\\n<8>$"
            >>> graded = AgentTask().check(prompt, text)
            >>> graded.kinds, graded.step_ends, graded.outcome
            (['wrong', 'answer'], [6, 10], 0.0)
        """
        question = read_agent_prompt(prompt)
        turns = _TURN.findall(completion)
        texts = [turn[0] for turn in _TURN.finditer(completion)]
        rest = completion[sum(map(len, texts)) :]
        kinds = _kinds(question, [call for call, _ in turns])
        if rest:
            texts.append(rest)
            kinds.append(_answer_kind(rest, turns[-1][1] if turns else NONE))
        answer, well_formed = _ANSWER.fullmatch(rest), follows_template(kinds)
        return Graded(
            step_ends=[n - 1 for n in accumulate(len(_TOKEN.findall(text)) for text in texts)],
            kinds=kinds,
            outcome=float(answer is not None and int(answer[1]) == question.answer),
            format=float(well_formed),
            format_ok=well_formed,
            operations=len(question.calls()),
        )

    def signal(
        self, name: str, seed: int, fields: Mapping[str, Any] | None = None
    ) -> ProcessSignal:
        """A simulated process reward model of turns, or `none`, which scores every turn 0."""
        self.check_signal(name)
        check_signal_fields(fields, () if name == "none" else ("filler", "flips"))
        return NoScores() if name == "none" else Simulated(name, seed, **(fields or {}))


def _detour(
    question: AgentQuestion, person: str, turns: list[str], generator: np.random.Generator
) -> str:
    """Add a call that was made before, or a lookup of another relation; what it reached."""
    if turns and generator.random() < 0.5:
        turns.append(turns[-1])
        return NONE
    relation = RELATIONS[int(generator.integers(len(RELATIONS)))]
    return _call(question, f"lookup{person}{relation}", turns)


def _call(question: AgentQuestion, call: str, turns: list[str]) -> str:
    """Add a call with its answer, which is returned."""
    reply = question.reply(call)
    turns.append(f"{call}={reply}\n")
    return reply


def _kinds(question: AgentQuestion, calls: Sequence[str]) -> list[str]:
    """The kind of each call, by the calls before it."""
    pending, kinds = question.calls(), list[str]()
    for place, call in enumerate(calls):
        if not (_LOOKUP.fullmatch(call) or _CALCULATION.fullmatch(call)):
            kinds.append("malformed")
        elif call in calls[:place]:
            kinds.append("filler")
        else:
            kinds.append("right" if call in pending[:1] else "wrong")
            pending = pending[kinds[-1] == "right" :]
    return kinds


def _answer_kind(text: str, last: str) -> str:
    """The kind of the text after the last call."""
    answer = _ANSWER.fullmatch(text)
    if answer is None:
        return "malformed"
    return "answer" if answer[1] == last else "bad_answer"
