"""Scores beside the states of steps: of the same steps, or refused."""

from __future__ import annotations

import pytest

from stepcredit.errors import RolloutError
from stepcredit.signals.responses import Response
from stepcredit.signals.row_scores import members
from stepcredit.signals.splitting import BlankLine

RESPONSE = BlankLine().split(Response.of_text("?", "a b\n\nc"))


def test_scores_of_the_steps_that_have_states_are_written() -> None:
    row = {"step_ends": [1, 2], "step_states": ["s", "t"]}
    assert members(row, RESPONSE, [0.5, 1.0], "steps")["step_ends"] == [1, 2]


def test_scores_of_other_steps_would_leave_states_without_steps() -> None:
    row = {"step_ends": [2], "step_states": ["s"]}
    with pytest.raises(RolloutError) as caught:
        members(row, RESPONSE, [0.5, 1.0], "steps")
    assert "step_states: are of the row's step_ends" in str(caught.value)
    named = members(row, RESPONSE, [0.5, 1.0], "steps", "prm")
    assert named["signals"]["prm"]["ends"] == [1, 2]
