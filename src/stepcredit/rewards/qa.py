"""Rewards for question answering: SQuAD's exact match and F1, HotpotQA's joint scores."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stepcredit.errors import RolloutError
from stepcredit.rewards.base import Facts, Reward, needed_fact, optional_fact
from stepcredit.rewards.extract import READERS, answer_of
from stepcredit.rewards.reward_registry import register_reward
from stepcredit.rewards.supporting_facts import gold_facts, named_facts
from stepcredit.rewards.thinking import after_thinking
from stepcredit.settings.fields import choice, text

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = frozenset({"yes", "no", "noanswer"})


class Score(NamedTuple):
    """Precision, recall, F1 and exact match of one answer, each from 0 to 1."""

    precision: float = 0.0
    recall: float = 0.0
    f1: float = 0.0
    em: float = 0.0


def normalized(answer: str) -> str:
    """Lower case, no punctuation, no a/an/the, single spaces.

    Example:
        >>> normalized(" The  U.S. Senate, a chamber ")
        'us senate chamber'

    Source: SQuAD 1.1 evaluation script.
    """
    plain = answer.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", plain).split())


def answer_score(answer: str, gold: str) -> Score:
    """One answer against one gold answer, as HotpotQA scores them.

        precision = shared words / words of the answer, recall = shared / words of the gold answer

    F1 is 0 if one of the two is yes, no or noanswer and the other differs, or if they share no word
    (two empty answers share no word, but match exactly).

    Example:
        >>> answer_score("the red fox", "A fox")
        Score(precision=0.5, recall=1.0, f1=0.6666666666666666, em=0.0)

    Source: HotpotQA evaluation script v1.
    """
    found, expected = normalized(answer), normalized(gold)
    em = float(found == expected)
    if found != expected and (found in _CLOSED or expected in _CLOSED):
        return Score()
    words, gold_words = found.split(), expected.split()
    shared = sum((Counter(words) & Counter(gold_words)).values())
    return _from_counts(shared, len(words), len(gold_words), em)


def support_score(found: Iterable[Hashable], gold: Iterable[Hashable]) -> Score:
    """Named supporting facts against the gold ones, compared as sets.

    Example:
        >>> support_score([("Lilu", 0), ("Alu", 1)], [("Lilu", 0)])
        Score(precision=0.5, recall=1.0, f1=0.6666666666666666, em=0.0)

    Source: HotpotQA evaluation script v1.
    """
    named, expected = set(found), set(gold)
    return _from_counts(len(named & expected), len(named), len(expected), float(named == expected))


def _from_counts(shared: int, found: int, expected: int, em: float) -> Score:
    precision = shared / found if found else 0.0
    recall = shared / expected if expected else 0.0
    return Score(precision, recall, _f1(precision, recall), em)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def joint(answer: Score, support: Score) -> Score:
    """The joint score of answer and facts: products of precisions, recalls and exact matches.

    Example:
        >>> joint(Score(1.0, 0.5, 2 / 3, 0.0), Score(0.5, 1.0, 2 / 3, 0.0)).f1
        0.5

    Source: HotpotQA evaluation script v1.
    """
    precision, recall = answer.precision * support.precision, answer.recall * support.recall
    return Score(precision, recall, _f1(precision, recall), answer.em * support.em)


@dataclass(frozen=True)
class _QA(Reward):
    """Common part of the rewards in this file: extracts the answer and scores it."""

    answer: str = text("answer", "the fact that holds the gold answer, or a list of them")
    aliases: str = text(
        "answer_aliases", "the fact that lists other right answers, if there is one"
    )
    read: str = choice("answer-tag", tuple(READERS), "where the answer is in a response")

    def scores(self, response: str, facts: Facts, row: int) -> list[Score]:
        """The response's answer against the gold answer and each alias; zeros if it has none."""
        answer = answer_of(response, self.read)
        golds = _golds(facts, self.answer, self.aliases, row)
        self.tally["no answer"] += answer is None
        if answer is None:
            return [Score()]
        return [answer_score(answer, gold) for gold in golds]


def _golds(facts: Facts, name: str, aliases: str, row: int) -> list[str]:
    first = needed_fact(facts, name, row)
    golds = list(first) if isinstance(first, list | tuple) else [first]
    golds += optional_fact(facts, aliases) or []
    wrong = [gold for gold in golds if not isinstance(gold, str)]
    if wrong or not golds:
        reason = f"expected strings, got {wrong[0]!r}" if wrong else "expected an answer, got none"
        raise RolloutError(reason, row=row, field=name)
    return golds


@register_reward("qa-em")
@dataclass(frozen=True)
class ExactMatch(_QA):
    """1 if the answer equals the gold answer or an alias after SQuAD's normalization, else 0.

    Example:
        >>> ExactMatch()(["It is <answer>The fox.</answer>"], [{"answer": "Fox"}])
        [1.0]

    Source: SQuAD 1.1 evaluation script; best over aliases as in MuSiQue.
    """

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """1 for each answer that matches, else 0."""
        return [
            max(each.em for each in self.scores(response, known, row))
            for row, (response, known) in enumerate(zip(texts, facts, strict=True))
        ]


@register_reward("qa-f1")
@dataclass(frozen=True)
class F1(_QA):
    """F1 of the answer's words against the gold answer or its best alias, from 0 to 1.

    Example:
        >>> F1()(["<answer>red fox</answer>"], [{"answer": "wolf", "answer_aliases": ["the fox"]}])
        [0.6666666666666666]

    Source: HotpotQA evaluation script v1; best over aliases as in MuSiQue.
    """

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """F1 of each answer."""
        return [
            max(each.f1 for each in self.scores(response, known, row))
            for row, (response, known) in enumerate(zip(texts, facts, strict=True))
        ]


@register_reward("qa-joint")
@dataclass(frozen=True)
class Joint(_QA):
    """HotpotQA's joint F1 (or exact match) of answer and supporting facts, from 0 to 1.

    The response names its facts in a tag, one per line: `Title | 3`, or only `Title` if the gold
    facts are titles; or as JSON, `[["Title", 3], ...]`.

    Example:
        >>> response = "<support>Lilu | 0\\nAlu | 1</support><answer>a demon</answer>"
        >>> gold = {"answer": "demon", "supporting_facts": [["Lilu", 0]]}
        >>> Joint()([response], [gold])
        [0.6666666666666666]

    Source: HotpotQA evaluation script v1.
    """

    supporting: str = text("supporting_facts", "the fact that lists the gold supporting facts")
    tag: str = text("support", "the tag in which a response names its supporting facts")
    metric: str = choice("f1", ("f1", "em"), "which joint score")

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """The joint score of each response."""
        found = []
        for row, (response, known) in enumerate(zip(texts, facts, strict=True)):
            answer = max(self.scores(response, known, row), key=lambda each: (each.f1, each.em))
            gold = gold_facts(needed_fact(known, self.supporting, row), row, self.supporting)
            support = support_score(named_facts(after_thinking(response), self.tag), gold)
            found.append(float(getattr(joint(answer, support), self.metric)))
        return found
