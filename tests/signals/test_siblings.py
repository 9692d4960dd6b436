"""The draw of a right sibling: who can be drawn, how often, and what the draw depends on."""

from __future__ import annotations

from collections import Counter

import pytest

from stepcredit.errors import RolloutError
from stepcredit.signals.responses import Response
from stepcredit.signals.siblings import right_siblings


def answers(*pairs, group="g", **facts):
    return [
        Response.of_text(
            "?", text, name=f"r:{row}", facts={"group": group, "outcome": outcome, **facts}
        )
        for row, (text, outcome) in enumerate(pairs)
    ]


def test_only_other_right_texts_of_the_same_group_are_drawn():
    first = answers(("a", 1.0), ("b", 1.0), ("c", 0.0), ("d", None), group=1)
    second = answers(("e", 1.0), ("f", 0.5), group="2")
    mixed = [first[0], second[0], first[1], second[1], first[2], first[3]]
    assert right_siblings(mixed, right_above=0.5) == [
        *("b", None, "a", "e"),
        *right_siblings(mixed, right_above=0.5)[4:],
    ]
    for seed in range(50):
        assert set(right_siblings(mixed, right_above=0.5, seed=seed)[4:]) <= {"a", "b"}


def test_the_response_itself_is_never_drawn_nor_a_copy_of_it():
    copies = answers(("same", 1.0), (" same\n", 1.0), ("same", 1.0))
    assert right_siblings(copies) == [None, None, None]
    for seed in range(200):
        group = answers(("x", 1.0), ("x ", 1.0), ("y", 1.0), ("z", 1.0))
        assert {"x"}.isdisjoint(right_siblings(group, seed=seed)[:2])
        assert right_siblings(group, seed=seed)[2] != "y"


def test_each_other_right_text_is_as_likely():
    group = answers(("wrong", 0.0), *((f"right {i}", 1.0) for i in range(4)))
    drawn = Counter(right_siblings(group, seed=seed)[0] for seed in range(2000))
    assert set(drawn) == {f"right {i}" for i in range(4)}
    assert all(abs(count - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for count in drawn.values())


def test_order_and_other_groups_change_no_draw():
    group = answers(*((f"text {i}", float(i % 3 > 0)) for i in range(12)))
    others = answers(("far", 1.0), ("away", 1.0), group="other")
    alone = dict(zip((each.text for each in group), right_siblings(group, seed=3), strict=True))
    shuffled = [*others[:1], *group[::-1], *others[1:]]
    found = right_siblings(shuffled, seed=3)
    pairs = zip(shuffled, found, strict=True)
    assert {each.text: text for each, text in pairs if each.facts["group"] == "g"} == alone
    assert len(set(alone.values())) > 1


def test_a_part_of_a_trajectory_is_refused():
    alone = answers(("a", 1.0), trajectory=4)
    assert right_siblings(alone) == [None]
    with pytest.raises(RolloutError) as caught:
        right_siblings([*alone, *answers(("b", 1.0), trajectory="4")])
    assert str(caught.value) == (
        "r:0: trajectory: a part of a trajectory is no whole response, which this signal compares"
    )
