"""QA scores against a second implementation, the definitions by hand, and the sets' own rows."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.errors import RolloutError
from stepcredit.rewards import qa
from stepcredit.rewards.qa import F1, ExactMatch, Joint
from stepcredit.rewards.supporting_facts import gold_facts, named_facts


def squad_words(answer: str) -> list[str]:
    """SQuAD's normalization sign by sign, without a regular expression.

    Articles go where they stand between signs that are no letter, digit or underscore; what counts
    as such is what Python's `str.isalnum` says.
    """
    kept = [sign for sign in answer.lower() if sign not in string.punctuation]
    words, word = [], ""
    for sign in [*kept, " "]:
        if sign.isalnum():
            word += sign
            continue
        words += [" "] if word in ("a", "an", "the") else list(word)
        words.append(sign)
        word = ""
    return "".join(words).split()


def second_f1(answer: str, gold: str) -> float:
    """F1 by taking the shared words out of the gold answer one at a time."""
    found, left = squad_words(answer), squad_words(gold)
    closed = ("yes", "no", "noanswer")
    if " ".join(found) != " ".join(left) and (
        " ".join(found) in closed or " ".join(left) in closed
    ):
        return 0.0
    shared, expected = 0, len(left)
    for word in found:
        if word in left:
            left.remove(word)
            shared += 1
    return 2 * shared / (len(found) + expected) if shared else 0.0


TEXT = st.text(st.sampled_from("aAnthe yYos.,-'_(1é\u00a0\n–"), max_size=30) | st.text(max_size=30)
WORDS = st.lists(
    st.sampled_from(["a", "An", "THE", "the,", "fox", "Fox.", "red", "yes", "No", "noanswer"]),
    max_size=6,
).map(" ".join)


@given(TEXT | WORDS)
def test_normalization_is_squads(answer: str) -> None:
    assert qa.normalized(answer) == " ".join(squad_words(answer))


@given(WORDS | TEXT)
def test_normalization_is_stable(answer: str) -> None:
    once = qa.normalized(answer)
    assert once == " ".join(once.split())
    assert not set(once) & set(string.punctuation)


@given(WORDS | TEXT, WORDS | TEXT)
def test_f1_is_the_second_implementations(answer: str, gold: str) -> None:
    score = qa.answer_score(answer, gold)
    assert score.f1 == pytest.approx(second_f1(answer, gold), abs=1e-12)
    assert score.em == float(squad_words(answer) == squad_words(gold))
    assert qa.answer_score(gold, answer).f1 == score.f1
    assert 0.0 <= score.f1 <= 1.0


@pytest.mark.parametrize(
    ("answer", "gold", "em", "f1"),
    [
        ("the Eiffel Tower", "Eiffel tower.", 1.0, 1.0),
        ("Eiffel", "the Eiffel Tower", 0.0, 2 / 3),
        ("yes", "yes", 1.0, 1.0),
        ("yes", "no", 0.0, 0.0),
        ("yes it is", "yes", 0.0, 0.0),
        ("no", "no country for old men", 0.0, 0.0),
        ("noanswer", "an answer", 0.0, 0.0),
        ("red red fox", "red fox fox", 0.0, 2 / 3),
        ("", "fox", 0.0, 0.0),
        ("October 5, 1987", "5 October 1987", 0.0, 1.0),
    ],
)
def test_scores_by_hand(answer: str, gold: str, em: float, f1: float) -> None:
    assert (qa.answer_score(answer, gold).em, qa.answer_score(answer, gold).f1) == (
        em,
        pytest.approx(f1),
    )


def tagged(answer: str) -> str:
    return f"<think>hm</think> <answer>{answer}</answer>"


@pytest.mark.parametrize("name", ["2wiki_train500", "hotpotqa_train100", "musique_train100"])
def test_gold_answers_are_right_against_themselves(name: str, qa_rows: Any) -> None:
    rows = qa_rows(name)
    responses = [tagged(row["answer"]) for row in rows]
    assert ExactMatch()(responses, rows) == [1.0] * len(rows)
    wrong = [tagged(f"{row['answer']} never") for row in rows]
    assert ExactMatch()(wrong, rows) == [0.0] * len(rows)
    assert all(score < 1.0 for score in F1()(wrong, rows))


def test_the_best_over_aliases_counts(qa_rows: Any) -> None:
    rows = [row for row in qa_rows("musique_train100") if row["answer_aliases"]]
    assert len(rows) > 20
    responses = [tagged(row["answer_aliases"][-1]) for row in rows]
    assert ExactMatch()(responses, rows) == [1.0] * len(rows)
    assert F1()(responses, rows) == [1.0] * len(rows)
    assert sum(ExactMatch(aliases="none")(responses, rows)) < len(rows)


def test_gold_supporting_facts_are_right_against_themselves(qa_rows: Any) -> None:
    for name in ("hotpotqa_train100", "2wiki_train500"):
        rows = qa_rows(name)
        facts = ["\n".join(f"{t} | {at}" for t, at in row["supporting_facts"]) for row in rows]
        responses = [
            f"<support>\n{named}\n</support>{tagged(row['answer'])}"
            for named, row in zip(facts, rows, strict=True)
        ]
        assert Joint()([*responses], rows) == [0.0] * len(rows)  # they stand in the thinking
        responses = [
            f"<support>\n{named}\n</support><answer>{row['answer']}</answer>"
            for named, row in zip(facts, rows, strict=True)
        ]
        perfect = [0.0 if qa.normalized(row["answer"]) == "" else 1.0 for row in rows]
        assert Joint()(responses, rows) == perfect
        assert Joint(metric="em")(responses, rows) == [1.0] * len(rows)


def test_joint_by_hand() -> None:
    """Answer: P 1/2, R 1. Facts: P 1/2, R 1/2. Joint: P 1/4, R 1/2, F1 1/3."""
    gold = {"answer": "fox", "supporting_facts": [["A", 0], ["B", 1]]}
    response = "<support>A | 0\nC | 3</support><answer>red fox</answer>"
    assert Joint()([response], [gold]) == [pytest.approx(1 / 3)]
    assert Joint(metric="em")([response], [gold]) == [0.0]


def test_supporting_facts_as_sets_hold_and_models_name_them() -> None:
    assert gold_facts([["A", 0], ("B", 1)], 0, "f") == [("A", 0), ("B", 1)]
    assert gold_facts({"title": ["A"], "sent_id": [2]}, 0, "f") == [("A", 2)]
    assert gold_facts(["A"], 0, "f") == ["A"]
    read = named_facts('<f>[["A", 0], "B", {"x": 1}]</f>', "f")
    assert read == [("A", 0), "B", "{'x': 1}"]
    assert named_facts("<f>\n A | B | 3 \n C | x\n\n</f>", "f") == [("A | B", 3), "C | x"]
    assert named_facts("none", "f") == []


BAD = {
    "missing": ({}, "row 0: answer: missing: the reward needs it"),
    "a number": ({"answer": 7}, "row 0: answer: expected strings, got 7"),
    "no answers": ({"answer": []}, "row 0: answer: expected an answer, got none"),
    "a bad alias": (
        {"answer": "a", "answer_aliases": ["b", None]},
        "row 0: answer: expected strings, got None",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_gold_answers_are_told(kind: str) -> None:
    facts, message = BAD[kind]
    with pytest.raises(RolloutError) as caught:
        F1()([tagged("a")], [facts])
    assert str(caught.value) == message


def test_bad_supporting_facts_are_told() -> None:
    with pytest.raises(RolloutError) as caught:
        Joint()([tagged("a")], [{"answer": "a", "supporting_facts": [["A", "0"]]}])
    expected = "expected [title, sentence] pairs or titles, got [['A', '0']]"
    assert str(caught.value) == f"row 0: supporting_facts: {expected}"


def test_no_answer_scores_nothing_and_is_counted() -> None:
    rule = F1()
    assert rule(["fox", "<answer>fox"], [{"answer": "fox"}] * 2) == [0.0, 0.0]
    assert rule.tally == {"no answer": 2}
    assert ExactMatch()(["fox"], [{"answer": "the"}]) == [0.0]
