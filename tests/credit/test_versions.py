"""Several versions of a batch, and several exponents of PASS, give what each alone gives."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
from tests.credit.cases import CASES, Case
from tests.credit.strategies import build, random_rows
from tests.credit.test_from_end import wide_rollouts

import stepcredit as sc
from stepcredit.credit import blocks
from stepcredit.credit.metrics.leave_one_out import (
    advantages_of_versions,
    silence_of,
    treats_groups_apart,
)

PASS_CASES = {name: case for name, case in CASES.items() if type(case.estimator()) is sc.PASS}
EXPONENTS = (0.0, 0.7, 1.0, 2.5)


def rollouts_of(case: Case, signal: str) -> sc.Rollouts:
    """Groups that are interleaved, some rows without scores where the case allows it."""
    return build(random_rows(Random(3), [4, 3, 1, 5], signal, **case.options))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_versions_are_credited_as_each_alone(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts, estimator = rollouts_of(case, case.signals[0]), case.estimator()
    changes = {**silence_of(rollouts), None: lambda given: given}
    expected = {name: estimator(change(rollouts)) for name, change in changes.items()}
    monkeypatch.setattr(blocks, "SCORES_PER_BLOCK", 20)
    found = advantages_of_versions(estimator, rollouts, changes)
    assert list(found) == list(expected)
    for name, advantages in expected.items():
        got, want = found[name].packed(), advantages.packed()
        torch.testing.assert_close(got, want, rtol=2e-6, atol=2e-6 * float(want.abs().max()))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_method_says_whether_groups_depend_on_each_other(case: Case) -> None:
    assert treats_groups_apart(case.estimator()) is not case.batch_wide


@pytest.mark.parametrize("case", PASS_CASES.values(), ids=PASS_CASES.keys())
def test_each_exponent_gives_the_bits_of_its_own_method(case: Case) -> None:
    method = case.estimator()
    assert isinstance(method, sc.PASS)
    batches = [rollouts_of(case, signal) for signal in case.signals]
    if not method.reads.logprobs:  # the wide ones hold none
        batches += [wide_rollouts(name == "steps") for name in case.signals if name != "streams"]
    for block in (block for batch in batches for block in blocks.Blocks.of(batch)):
        for k, credit in zip(EXPONENTS, method.credits_at(EXPONENTS, block), strict=True):
            own = replace(method, k=k)
            found, expected = (
                own.advantages_of(each, block) for each in (credit, own.credit(block))
            )
            assert torch.equal(found.packed(), expected.packed())
