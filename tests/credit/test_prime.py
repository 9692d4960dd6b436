"""PRIME's norm over the batch: by hand, in parts, and where the log-ratios are 0."""

from __future__ import annotations

from random import Random

import pytest
import torch
from tests.credit.strategies import build, random_rows

import stepcredit as sc
from stepcredit.errors import MethodError

RAW = {"process_weight": 1.0, "whiten_batch": False}


def rollouts(prm: list[list[float]], **fields: object) -> sc.Rollouts:
    """Responses of one group whose reference gives every token a log-prob of 0."""
    ref = [[0.0] * len(row) for row in prm]
    return sc.Rollouts([0] * len(prm), logprobs={"prm": prm, "ref": ref}, **fields)  # type: ignore[arg-type]


def test_the_largest_return_of_the_batch_becomes_one() -> None:
    """Returns of the log-ratios (-4, -3) and (1): divided by 4; means -0.5 and 0.25."""
    got = sc.PRIME(norm="batch", **RAW)(rollouts([[-1.0, -3.0], [1.0]])).ragged()
    assert got[0].tolist() == pytest.approx([-1.5, -1.0])
    assert got[1].tolist() == pytest.approx([0.75])


def test_beta_is_not_read_and_scaling_the_log_ratios_changes_nothing() -> None:
    one, two = rollouts([[-1.0, -3.0], [1.0]]), rollouts([[-4.0, -12.0], [4.0]])
    for beta in (0.05, 7.0):
        method = sc.PRIME(norm="batch", beta=beta)
        assert torch.equal(method(one).packed(), method(two).packed())


def test_the_scale_is_taken_before_the_baseline() -> None:
    """Equal log-ratios leave a baseline of themselves: the process part is 0, not 0 / 0."""
    method = sc.PRIME(norm="batch", **RAW)
    assert method(rollouts([[-2.0], [-2.0]])).packed().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("tiny", [0.0, 5e-324])
def test_log_ratios_of_zero_or_hardly_more_are_finite(tiny: float) -> None:
    method = sc.PRIME(norm="batch", **RAW)
    got = method(rollouts([[tiny, 0.0], [0.0]], outcome=[1.0, 0.0])).packed()
    assert bool(got.isfinite().all())
    assert got[1:].tolist() == pytest.approx([1.0, -1.0], abs=1e-6)


def test_the_parts_of_a_batch_need_its_scale() -> None:
    rows = sorted(random_rows(Random(4), [3, 2], "none"), key=lambda row: row["group"])
    method, whole = sc.PRIME(norm="batch"), build(rows)
    fixed, parts = method.for_batch(whole), [build(rows[:3]), build(rows[3:])]
    moments = fixed.moments(parts[0]) + fixed.moments(parts[1])
    got = torch.cat([fixed(part, moments=moments).packed() for part in parts])
    torch.testing.assert_close(got, method(whole).packed())
    for call in (method.credit, method.moments, lambda part: method(part, moments=moments)):
        with pytest.raises(MethodError) as refused:
            call(parts[0])
        assert str(refused.value) == "norm: a part of a batch needs `for_batch` of the whole"
