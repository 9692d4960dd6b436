"""Majority votes by hand, and over equivalent answers of the maths grader."""

from __future__ import annotations

import pytest

from stepcredit.evals.eval_tasks import EVAL_TASKS
from stepcredit.evals.majority_vote import Vote, answer_classes, majority_votes, same_answers


def equal(pairs: list[tuple[str, str]]) -> list[bool]:
    return [one == other for one, other in pairs]


HAND = {
    "two of three": (["4", "5", "4"], [1, 0, 1], Vote(1.0, is_tied=False)),
    "the wrong answer wins": (["5", "4", "5"], [0, 1, 0], Vote(0.0, is_tied=False)),
    "two tied, one right": (["4", "5"], [1, 0], Vote(0.5, is_tied=True)),
    "three tied, one right": (["4", "5", "6"], [1, 0, 0], Vote(1 / 3, is_tied=True)),
    "two of five tied with two": (["4", "5", "4", "5", "6"], [1, 0, 1, 0, 0], Vote(0.5, True)),
    "no answer does not vote": ([None, None, "4"], [0, 0, 1], Vote(1.0, is_tied=False)),
    "an empty answer does not vote": (["", "", "4"], [0, 0, 1], Vote(1.0, is_tied=False)),
    "nobody answers": ([None, None], [0, 0], Vote(0.0, is_tied=False)),
}


@pytest.mark.parametrize("name", HAND)
def test_by_hand(name: str) -> None:
    answers, outcomes, expected = HAND[name]
    found = majority_votes([answers], [outcomes], equal)[0]
    assert (found.score, found.is_tied) == (pytest.approx(expected.score), expected.is_tied)


def test_problems_do_not_mix() -> None:
    one, two = ["1", "2", "2"], ["2", "1", "1"]
    found = majority_votes([one, two, []], [[1, 0, 0], [0, 1, 1], []], equal)
    assert [vote.score for vote in found] == [0.0, 1.0, 0.0]


def test_equivalent_spellings_of_maths_vote_together() -> None:
    answers = [["0.5", "3", "\\frac{1}{2}", "3", "1/2"], ["x=2", "2", "7"]]
    same = same_answers(EVAL_TASKS["math500"])
    classes = answer_classes(answers, same)
    assert [[each.members for each in own] for own in classes] == [
        [[0, 2, 4], [1, 3]],
        [[0, 1], [2]],
    ]
    assert [v.score for v in majority_votes(answers, [[1, 0, 1, 0, 1], [1, 1, 0]], same)] == [1, 1]


def test_words_vote_by_their_normalized_text() -> None:
    same = same_answers(EVAL_TASKS["hotpotqa"])
    classes = answer_classes([["The Fox.", "dog", "fox"]], same)
    assert [each.members for each in classes[0]] == [[0, 2], [1]]
