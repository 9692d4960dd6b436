"""maj@n: the answer that most samples of a problem agree on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from stepcredit.evals.eval_tasks import EvalTask
from stepcredit.rewards.maths import Verdict, grade
from stepcredit.rewards.qa import normalized

Pair = tuple[str, str]
Same = Callable[[Sequence[Pair]], list[bool]]
"""Whether the two answers of each pair are equivalent."""


@dataclass
class AnswerClass:
    """Equivalent answers of one problem.

    Args:
        first: the answer that came first.
        members: the indices of its samples.
    """

    first: str
    members: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Vote:
    """The result of a vote on one problem.

    Args:
        score: mean outcome of the classes with the most votes; 0 if no sample has an answer.
        is_tied: whether several classes have the most votes.
    """

    score: float
    is_tied: bool


def majority_votes(
    answers: Sequence[Sequence[str | None]], outcomes: Sequence[Sequence[float]], same: Same
) -> list[Vote]:
    """The majority vote of each problem's samples, over classes of equivalent answers.

    A sample without an answer does not vote. Each further answer joins the first class with whose
    first answer it is equivalent. A class's outcome is that of its first sample. Where several
    classes have the most votes, the score is the mean of their outcomes: what a random choice
    among them would give on average.

    Args:
        answers: for each problem, the answer of each sample, None where it has none.
        outcomes: for each problem, the outcome of each sample.
        same: decides which answers are equivalent.

    Example:
        >>> equal = lambda pairs: [a == b for a, b in pairs]
        >>> majority_votes([["4", "5", "4"], ["1", "2", None]], [[1, 0, 1], [0, 1, 0]], equal)
        [Vote(score=1.0, is_tied=False), Vote(score=0.5, is_tied=True)]

    Source: Wang et al. 2023 (arXiv 2203.11171), self-consistency. Differs: equivalent answers
        vote together, whatever their spelling.
    """
    pairs = zip(answer_classes(answers, same), outcomes, strict=True)
    return [_vote(classes, own) for classes, own in pairs]


def _vote(classes: Sequence[AnswerClass], outcomes: Sequence[float]) -> Vote:
    most = max((len(each.members) for each in classes), default=0)
    winners = [each for each in classes if len(each.members) == most]
    if not winners:
        return Vote(0.0, is_tied=False)
    return Vote(fmean(outcomes[each.members[0]] for each in winners), len(winners) > 1)


def answer_classes(answers: Sequence[Sequence[str | None]], same: Same) -> list[list[AnswerClass]]:
    """The classes of equivalent answers of each problem, in the order of their first samples.

    All problems are compared in the same calls of `same`, one call for each class of the problem
    with the most of them.
    """
    classes: list[list[AnswerClass]] = [[] for _ in answers]
    left = [_by_text(own) for own in answers]
    while any(left):
        heads = [(row, texts.pop(0)) for row, texts in enumerate(left) if texts]
        for row, head in heads:
            classes[row].append(head)
        pairs = [(row, other, head) for row, head in heads for other in left[row]]
        verdicts = same([(other.first, head.first) for _, other, head in pairs])
        for (row, other, head), equal in zip(pairs, verdicts, strict=True):
            if equal:
                head.members += other.members
                left[row].remove(other)
    for own in classes:
        for each in own:
            each.members.sort()
    return classes


def _by_text(answers: Sequence[str | None]) -> list[AnswerClass]:
    """One class for each different text."""
    classes: dict[str, AnswerClass] = {}
    for index, answer in enumerate(answers):
        if answer:
            classes.setdefault(answer, AnswerClass(answer)).members.append(index)
    return list(classes.values())


def same_answers(task: EvalTask) -> Same:
    """Which answers of a task are equivalent: as maths, or as normalized words."""
    return _same_words if task.is_qa else _same_maths


def _same_maths(pairs: Sequence[Pair]) -> list[bool]:
    verdicts = grade([one for one, _ in pairs], [other for _, other in pairs])
    return [verdict is Verdict.RIGHT for verdict in verdicts]


def _same_words(pairs: Sequence[Pair]) -> list[bool]:
    return [normalized(one) == normalized(other) for one, other in pairs]
