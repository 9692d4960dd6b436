"""Methods of states in the oracle table: the world of a repair, by hand, and the rows they have."""

from __future__ import annotations

from math import comb

import pytest

from stepcredit.oracles import SIGNALS, Contestant, oracle_table
from stepcredit.oracles.state_claims import STATE_CLAIMS, credit_of_a_repair
from stepcredit.oracles.worlds import REPAIR, WORLDS

OTHERS = 3
"""Responses beside one, in a group of four."""


def test_the_world_of_a_repair() -> None:
    assert REPAIR.expected_outcome == 0.75
    assert REPAIR.q.tolist() == [1.0, 0.5, 1.0, 0.0]
    assert REPAIR.advantage.tolist() == [0.25, -0.25, 0.5, -0.5]
    assert REPAIR.name not in WORLDS


def test_credit_of_a_repair_by_hand() -> None:
    """Centred, without a discount: an outcome of 1 beside others, of the group or of the state."""
    of_group = (1 - 0.75) * OTHERS / (OTHERS + 1)
    others = {n: comb(OTHERS, n) / 2**OTHERS for n in range(OTHERS + 1)}  # in the state "wrong"
    of_state = sum(chance * (1 - 0.5) * n / (n + 1) for n, chance in others.items())
    assert credit_of_a_repair(Contestant("dr-grpo"), None) == pytest.approx((of_group, of_group))
    centred = Contestant("gigpo", {"norm": "center", "gamma": 1})
    wanted = (2 * of_group, of_group + of_state)
    assert credit_of_a_repair(centred, None) == pytest.approx(wanted)


def test_the_claim_about_repairs_holds_in_part() -> None:
    (claim,) = (decide() for decide in STATE_CLAIMS)
    exact, grpo, alone, undiscounted, scored = zip(
        claim.values[::2], claim.values[1::2], strict=True
    )
    assert exact == (-0.25, 0.5)
    assert grpo[0] == pytest.approx(grpo[1])
    assert claim.verdict == "held in part"
    for wrong, fixed in (alone, undiscounted, scored):
        assert 0 < wrong < fixed


def test_a_method_of_states_has_a_row_without_scores_too() -> None:
    rows = oracle_table([Contestant("gigpo")], ["delayed"])
    assert [row.signal for row in rows[1:]] == ["none", *SIGNALS]
    found = {row.signal: row.figures["leakage"].mean for row in rows}
    assert found["none"] != pytest.approx(found["right"])
