"""The set of ended groups: it holds what was added and nothing else, however it is packed."""

from __future__ import annotations

from random import Random

import pytest

from stepcredit.data.files import ended_groups
from stepcredit.data.files.ended_groups import EndedGroups


@pytest.mark.parametrize("recent", [1, 2, 7])
def test_it_holds_what_was_added_after_each_packing(
    recent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended_groups, "_RECENT", recent)
    ended, added, rng = EndedGroups(), set(), Random(0)
    for _ in range(300):
        label = str(rng.randrange(400))
        assert (label in ended) == (label in added)
        if label not in added:
            ended.add(label)
            added.add(label)
    assert [label in ended for label in map(str, range(400))] == [
        label in added for label in map(str, range(400))
    ]
