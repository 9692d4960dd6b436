"""Hops of the real question sets: gold reasoning against a reference that compares word lists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import RolloutError
from stepcredit.signals.programs.hops import Hops, gold_hops
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import Newline


def rows(shared_dir: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((shared_dir / "data/qa" / f"{name}.json").read_text())


def split(text: str, facts: dict[str, Any]) -> Response:
    return Newline().split(Response.of_text("?", text, facts=facts, name="in:5"))


def scores(text: str, facts: dict[str, Any], **fields: float) -> list[float]:
    return Hops(**fields).scores([split(text, facts)])[0]


def says(step: str, name: str) -> bool:
    """Whether the name's words stand in the step one after the other."""
    heard, said = (re.findall(r"[^\W_]+", text.lower()) for text in (step, name))
    return any(heard[at : at + len(said)] == said for at in range(len(heard)))


def expected(steps: list[str], hops: list[tuple[str, ...]]) -> list[float]:
    known: set[tuple[str, ...]] = set()
    found = []
    for step in steps:
        new = {hop for hop in hops if all(says(step, name) for name in hop)} - known
        known |= new
        found.append(float(bool(new)))
    return found


def test_2wiki_reasoning(shared_dir: Path) -> None:
    """A model wrote these answers: nine in ten state their triple in its own words."""
    all_found = stated = steps = 0
    for row in rows(shared_dir, "2wiki_train500"):
        answers = [" ".join(pair["answer"].split()) for pair in row["qa_pairs"]]
        got = scores("\n".join(answers), row)
        assert got == expected(answers, [(triple[0], triple[2]) for triple in row["evidences"]])
        all_found += all(got)
        stated, steps = stated + sum(got), steps + len(got)
        gold = [f"The {relation} of {one} is {other}." for one, relation, other in row["evidences"]]
        told = dict.fromkeys((one, other) for one, _, other in row["evidences"])
        assert sum(scores("\n".join(gold), row)) == len(told)
    assert (all_found, stated, steps) == (392, 1047.0, 1184)


def test_musique_decompositions(shared_dir: Path) -> None:
    for row in rows(shared_dir, "musique_train100"):
        answers = [hop["answer"] for hop in row["question_decomposition"]]
        assert gold_hops(row) == [(answer,) for answer in answers]
        assert scores("\n".join(f"So {a}." for a in answers), row) == [1.0] * len(answers)
        assert scores("No.\n" + "\n".join(["All is unknown."] * 3), row) == [0.0] * 4
        twice = [f"It is {answers[0]}."] * 2
        assert scores("\n".join(twice), row) == [1.0, 0.0]


def test_hotpot_titles(shared_dir: Path) -> None:
    for row in rows(shared_dir, "hotpotqa_train100"):
        titles = sorted({title for title, _ in row["supporting_facts"]})
        other = next(title for title, _ in row["context"] if title not in titles)
        text = "\n".join([f"By {other}.", *(f"{title.upper()} says so." for title in titles)])
        assert scores(text, row)[1:] == expected(text.splitlines(), [(t,) for t in titles])[1:]
        assert sum(scores(text, row)) >= 1
        assert scores(" ".join(titles), row) == [1.0]


@pytest.mark.parametrize(
    ("hops", "text", "found"),
    [
        (["Paris"], "paris!\nParis\nParisian", [1, 0, 0]),
        (["Paris"], "Parisian\nin-Paris-today\nPARIS", [0, 1, 0]),
        ([["Paris", "France"]], "Paris\nFrance\nFrance has Paris", [0, 0, 1]),
        (["A", "B"], "A and B\nA\nB", [1, 0, 0]),
        (["A", "A"], "A\nA", [1, 0]),
        (["Straße", "É. Zola"], "STRASSE\né zola", [1, 1]),
        (["U.S."], "the U S\nus\nU.S. again", [1, 0, 0]),
        (["New York"], "New\nYork New\nNew  York", [0, 0, 1]),
        (["1999"], "19990\n1 999\nin 1999", [0, 0, 1]),
        (["東京"], "東京\n", [1]),
    ],
)
def test_a_hop_counts_once_and_by_whole_words(
    hops: list[Any], text: str, found: list[float]
) -> None:
    assert scores(text, {"hops": hops}) == found
    graded = scores(text, {"hops": hops}, found=0.75, missed=-1)
    assert graded == [0.75 if score else -1 for score in found]


FIELDS = "hops, evidences, question_decomposition, supporting_facts"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, f"needs one of {FIELDS}"),
        ({"hops": []}, f"needs one of {FIELDS}"),
        (
            {"hops": None},
            "can't be read as gold facts: TypeError: 'NoneType' object is not iterable",
        ),
        ({"hops": "Paris"}, "can't be read as gold facts: TypeError: expected a list"),
        ({"hops": [5]}, "can't be read as gold facts: TypeError: 'int' object is not iterable"),
        ({"hops": [[5]]}, "expected names, got (5,)"),
        ({"hops": [[]]}, "expected names, got ()"),
        ({"hops": ["Paris", "?!"]}, "expected names, got ('?!',)"),
        (
            {"evidences": [["a", "b"]]},
            "can't be read as gold facts: ValueError: not enough values to unpack "
            "(expected 3, got 2)",
        ),
        (
            {"question_decomposition": [{"question": "?"}]},
            "can't be read as gold facts: KeyError: 'answer'",
        ),
    ],
)
def test_facts_that_are_no_hops_are_refused(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(RolloutError) as raised:
        scores("a\nb", facts)
    assert str(raised.value) == f"in:5: hops: {reason}"


def test_hops_are_part_of_what_is_scored() -> None:
    one, other = (split("a", {"hops": [name]}) for name in "ab")
    assert Hops().content(one) != Hops().content(other)
    assert Hops().content(one) == Hops().content(split("a", {"hops": ["a"], "outcome": 1}))
