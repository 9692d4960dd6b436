"""The embedded task "multihop": questions over a small knowledge base that stands in the prompt.

A fact says who is what to whom. A prompt has the facts, in random order, and a question, which
follows one relation after another:

    " Cid's boss Ann Ann's sister Eve Eve's sister Bob Ann's boss Bob Eve's boss Ida.
     Ann's sister's boss:"

A completion has one line per hop, with the person reached as its subject, and then the answer:

     Ann's sister Eve
     Eve's boss Ida
    < Ida>$

`$` is the end-of-sequence token. Filler is a line `k Eve` (usually the person reached) or a line
that was written before: both are allowed by the grammar, add no information and do no harm. A
name with the space before it is one token, and so is a relation, such as `'s boss`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stepcredit.errors import StepCreditError
from stepcredit.lab.grading import Graded, Problem, follows_template
from stepcredit.lab.log_ratios import LOG_RATIOS, TeacherRatio
from stepcredit.lab.model import ModelSettings
from stepcredit.lab.task import Task, check_signal_fields, hash_split
from stepcredit.lab.task_registry import TASKS
from stepcredit.lab.tokenizer import EOS, PAD, UNKNOWN, build_word_tokenizer
from stepcredit.lab.warm_settings import WarmStartSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TASK_VERSION = "multihop 2"
MAX_NEW_TOKENS = 48
MAX_FILLERS = 6
HOPS = {"train": 2, "check": 2, "held_out": 2, "held_out_3": 3, "held_out_4": 4}
FACTS = 8
"""Facts of a prompt."""
DEMONSTRATED = (2, 3, 4)
"""Hops of a demonstration: each of these equally often."""
NAMES = tuple(f" {name}" for name in (
    "Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal",
    "Ida", "Jan", "Kim", "Lee", "Mia", "Ned", "Oli", "Pam",
))  # fmt: skip
RELATIONS = tuple(f"'s {relation}" for relation in (
    "boss", "sister", "friend", "teacher", "cousin", "doctor",
))  # fmt: skip
VOCABULARY = (*NAMES, *RELATIONS, ".", ":", "k", "<", ">", "\n", EOS, PAD, UNKNOWN)

_TOKEN = re.compile("|".join(map(re.escape, VOCABULARY)) + r"|[\s\S]")
"""As the tokenizer reads: a character outside the vocabulary is a token."""
_NAME, _RELATION = ("|".join(map(re.escape, words)) for words in (NAMES, RELATIONS))
_FACT = f"(?:{_NAME})(?:{_RELATION})(?:{_NAME})"
_PROMPT = re.compile(rf"((?:{_FACT})+)\.({_NAME})((?:{_RELATION})+):")
_LINE = re.compile(r"[^\n$]*[\n$]|[^\n$]+")
_HOP = re.compile(rf"({_NAME})({_RELATION})({_NAME})\n")
_FILLER = re.compile(rf"k(?:{_NAME})\n")
_ANSWER = re.compile(rf"<({_NAME})>\$")

Fact = tuple[str, str, str]


@dataclass(frozen=True)
class HopQuestion:
    """A prompt, read.

    Args:
        facts: the object of each (subject, relation); no pair has two objects.
        start: the person from whom the question starts.
        relations: the relations to follow, in order.
    """

    facts: Mapping[tuple[str, str], str]
    start: str
    relations: tuple[str, ...]

    def hops(self) -> list[Fact]:
        """(subject, relation, object) of each hop; the last object is the answer."""
        found, person = [], self.start
        for relation in self.relations:
            reached = self.facts[person, relation]
            found.append((person, relation, reached))
            person = reached
        return found


def read_question(prompt: str) -> HopQuestion:
    """The facts and the question of a prompt.

    Raises:
        StepCreditError: the text is not a prompt of this task.

    Example:
        >>> read_question(" Ann's boss Bob Bob's friend Eve. Ann's boss's friend:").relations
        ("'s boss", "'s friend")
    """
    matched = _PROMPT.fullmatch(prompt)
    if not matched:
        expected = "facts and a question such as ' Ann's boss Bob. Ann's boss:'"
        raise StepCreditError(f"expected {expected}, got {prompt!r}", field="prompt")
    words = _TOKEN.findall(matched[1])
    pairs = zip(words[::3], words[1::3], strict=True)
    facts = dict(zip(pairs, words[2::3], strict=True))
    return HopQuestion(facts, matched[2], tuple(_TOKEN.findall(matched[3])))


def draw_prompt(hops: int, generator: np.random.Generator, size: int = FACTS) -> str:
    """A random question with the facts that it needs, and distractors up to `size` facts.

    One distractor has the relation of a hop and another subject. The others take turns: the subject
    of a hop and another relation; neither a subject nor a relation that is needed. No two facts
    have the same subject and relation, so there is one answer.

    Args:
        hops: number of relations to follow, up to that of all relations.
        generator: source of the random draws.
        size: number of facts, at least `hops`.

    Returns:
        The prompt.
    """
    people = [NAMES[i] for i in generator.permutation(len(NAMES))[: hops + 1]]
    order = [RELATIONS[i] for i in generator.permutation(len(RELATIONS))]
    facts = {(people[i], order[i]): people[i + 1] for i in range(hops)}
    for place in range(size - hops):
        i = int(generator.integers(hops))
        subjects, relations = people[i : i + 1], order[hops:]
        if place % 2 == 0:
            subjects = [name for name in NAMES if name not in people]
        if place == 0:
            relations = order[i : i + 1]
        _add_fact(facts, subjects, relations, generator)
    texts = ["".join((*pair, reached)) for pair, reached in facts.items()]
    shuffled = "".join(texts[i] for i in generator.permutation(len(texts)))
    return f"{shuffled}.{people[0]}{''.join(order[:hops])}:"


def _add_fact(
    facts: dict[tuple[str, str], str],
    subjects: Sequence[str],
    relations: Sequence[str],
    generator: np.random.Generator,
) -> None:
    """Add a fact about one of the subjects and relations that has none yet."""
    free = [(s, r) for s in subjects for r in relations if (s, r) not in facts]
    subject, relation = free[int(generator.integers(len(free)))]
    others = [name for name in NAMES if name != subject]
    facts[subject, relation] = others[int(generator.integers(len(others)))]


def _check_line(
    line: str, before: set[str], person: str, pending: Sequence[str], question: HopQuestion
) -> tuple[str, str | None]:
    """The kind of a line, and the person it reaches if it is a hop that is not a repetition."""
    if hop := _HOP.fullmatch(line):
        if line in before:
            return "filler", None
        subject, relation, reached = hop.groups()
        follows = subject == person and list(pending[:1]) == [relation]
        true = question.facts.get((subject, relation)) == reached
        return ("right" if follows and true else "wrong"), reached
    if _FILLER.fullmatch(line):
        return "filler", None
    if answer := _ANSWER.fullmatch(line):
        return ("answer" if answer[1] == person else "bad_answer"), None
    return "malformed", None


POLICIES = {
    "small": ModelSettings(width=64, layers=3, heads=4, feed_forward=128),
    "medium": ModelSettings(width=96, layers=3, heads=3, feed_forward=256),
}
WARM_START = WarmStartSettings(
    task="multihop",
    learning_rate=4e-3,
    matrix_learning_rate=5e-3,
    check_from=150,
    check_every=3,
    check_problems=128,
    ceiling=0.5,
    max_steps=1500,
)
TEACHER = replace(
    WARM_START,
    model=ModelSettings(width=80, layers=4, heads=4, feed_forward=192),
    matrix_learning_rate=0.01,
    averaging=0.97,
    early_stop=0.0,
    floor=0.0,
    target=0.7,
    ceiling=1.0,
    check_from=300,
    check_every=20,
    check_problems=256,
    max_steps=1000,
)
MISMATCHED = replace(TEACHER, filler=0.45, target=0.6)


@TASKS.register("multihop")
@dataclass(frozen=True)
class MultihopTask(Task):
    """Questions of two hops to train on, and of two, three and four to evaluate on."""

    signals = LOG_RATIOS
    default_signal = "opd"
    splits = tuple(HOPS)
    evaluation_splits = {"2 hops": "held_out", "3 hops": "held_out_3", "4 hops": "held_out_4"}  # noqa: RUF012

    @property
    def cache_key(self) -> int | str:
        """The task's version."""
        return TASK_VERSION

    @property
    def max_new_tokens(self) -> int:
        """Room for four hops with six fillers."""
        return MAX_NEW_TOKENS

    def warm_start(self, seed: int, model: str = "small") -> WarmStartSettings:
        """Supervised training to a pass@1 of about 0.43 on two hops."""
        return replace(WARM_START, seed=seed, model=POLICIES[model])

    def teacher(self, signal: str, seed: int) -> WarmStartSettings:
        """A larger decoder, shown no early stops; for `mismatched` signals, much more filler."""
        shown = MISMATCHED if signal.endswith("mismatched") else TEACHER
        return replace(shown, seed=self.teacher_seed(seed))

    def teacher_seed(self, seed: int) -> int:
        """One benign and one mismatched teacher for all runs: their seed never changes."""
        return TEACHER.seed

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """One name, relation or sign per token."""
        return build_word_tokenizer(VOCABULARY)

    def prompts(self, split: str, generator: np.random.Generator) -> Iterator[str]:
        """Questions of one split."""
        while True:
            prompt = draw_prompt(HOPS[split], generator)
            if split.startswith(hash_split(prompt)):
                yield prompt

    def demonstrated(self, generator: np.random.Generator) -> Iterator[str]:
        """Questions of two, three and four hops, none of them in a split to evaluate on.

        They have any number of facts up to `FACTS`: looking up is learned sooner among few facts.
        """
        while True:
            hops = DEMONSTRATED[int(generator.integers(len(DEMONSTRATED)))]
            size = int(generator.integers(hops, FACTS + 1))
            prompt = draw_prompt(hops, generator, size)
            if hash_split(prompt) == "train":
                yield prompt

    def problem(self, prompt: str) -> Problem:
        """The question and the person it asks for."""
        return Problem(prompt, read_question(prompt).hops()[-1][2].strip())

    def demonstration(
        self, prompt: str, generator: np.random.Generator, filler: float, early_stop: float
    ) -> str:
        """A completion to imitate, sometimes with filler lines, sometimes with an early answer.

        Args:
            prompt: a question.
            generator: source of the random draws.
            filler: probability of a filler line before each line, and of another one after it, up
                to `MAX_FILLERS` in all; half of them repeat the line before, where there is one.
            early_stop: probability of answering with the person reached before the last hop.

        Returns:
            The completion, `$` included.
        """
        question = read_question(prompt)
        hops, person = question.hops(), question.start
        if generator.random() < early_stop:
            hops = hops[: int(generator.integers(1, len(hops)))]
        lines: list[str] = []
        written = fillers = 0
        for hop in [*hops, None]:
            while fillers < MAX_FILLERS and generator.random() < filler:
                repeats = written and generator.random() < 0.5
                lines.append("".join(hops[written - 1]) if repeats else f"k{person}")
                fillers += 1
            if hop is not None:
                lines.append("".join(hop))
                person, written = hop[2], written + 1
        return "\n".join([*lines, f"<{person}>{EOS}"])

    def check(self, prompt: str, completion: str) -> Graded:
        """Grade a completion exactly, line by line.

        Returns:
            `Graded`. `right`: the fact that comes next, from the person last reached. `wrong`: any
            other hop, and a repeated line is `filler`, as `k NAME` is. A line ends at its newline
            or `$`; text cut off by the token limit counts as one more, malformed, line.

        Raises:
            StepCreditError: the prompt does not belong to this task.

        Example:
            >>> facts = " Ann's boss Bob Bob's friend Eve"
            >>> text = " Ann's boss Bob\\nk Bob\\n Bob's friend Ann\\n< Ann>$"
            >>> graded = MultihopTask().check(f"{facts}. Ann's boss's friend:", text)
            >>> graded.kinds, graded.step_ends, graded.outcome
            (['right', 'filler', 'wrong', 'answer'], [3, 6, 10, 14], 0.0)
        """
        question = read_question(prompt)
        person, pending = question.start, list(question.relations)
        step_ends, kinds, position = [], [], -1
        before: set[str] = set()
        for line in _LINE.findall(completion):
            position += len(_TOKEN.findall(line))
            step_ends.append(position)
            kind, reached = _check_line(line, before, person, pending, question)
            kinds.append(kind)
            before.add(line)
            if reached is not None:
                person, pending = reached, pending[1:]
        answer = re.search(rf"<({_NAME})>\$\Z", completion)
        well_formed = follows_template(kinds)
        return Graded(
            step_ends=step_ends,
            kinds=kinds,
            outcome=float(answer is not None and answer[1] == question.hops()[-1][2]),
            format=float(well_formed),
            format_ok=well_formed,
            operations=len(question.relations),
        )

    def signal(self, name: str, seed: int, fields: Mapping[str, Any] | None = None) -> TeacherRatio:
        """The log-ratio of a teacher and the policy."""
        self.check_signal(name)
        check_signal_fields(fields, ())
        return TeacherRatio(name)
