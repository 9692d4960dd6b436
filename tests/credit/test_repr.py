"""How a method prints, and what importing one loads."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

import stepcredit as sc
from stepcredit.settings.fields import full_repr, number


@dataclass(frozen=True)
class Own(sc.Estimator):
    """A method of one's own."""

    weight: float = number(0.5, "a weight")

    def credit(self, rollouts: sc.Rollouts) -> sc.Credit:
        return sc.Credit.flat(rollouts, rollouts.outcome[:, None])


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        (sc.PASS(), "PASS()"),
        (sc.PASS(k=1.0), "PASS(k=1.0)"),
        (sc.PASS(clip=5.0, chunks="steps"), "PASS(clip=5.0, chunks='steps')"),
        (sc.PASS(weights={"prm": 1.0}), "PASS(weights={'prm': 1.0})"),
        (sc.PASS(gate=False, ddof=0), "PASS(ddof=0, gate=False)"),
        (sc.PURE(max_length=8, baseline="per_slot"), "PURE(baseline='per_slot', max_length=8)"),
        (sc.GDPO(), "GDPO()"),
        (Own(), "Own()"),
        (Own(weight=2), "Own(weight=2)"),
    ],
)
def test_a_method_prints_the_fields_that_are_not_at_their_default(
    method: sc.Estimator, shown: str
) -> None:
    assert repr(method) == shown
    assert eval(shown, {**vars(sc), "Own": Own, "PASS": sc.PASS, "PURE": sc.PURE}) == method


def test_an_explanation_shows_all_fields() -> None:
    rollouts = sc.Rollouts(group=[0, 0], outcome=[1.0, 0.0], lengths=[2, 3])
    assert full_repr(sc.GRPO()) == "GRPO(clip=None, ddof=1, eps=1e-06)"
    assert sc.GRPO().explain(rollouts).text().splitlines()[0] == full_repr(sc.GRPO())


def test_a_method_loads_no_rich() -> None:
    """It is imported with the first table."""
    code = (
        "import sys, stepcredit as sc\n"
        "explanation = sc.PASS().explain(sc.Rollouts([0, 0], [2, 3], outcome=[1.0, 0.0]))\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'rich'])\n"
        "print(len(explanation.text().splitlines()))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.stdout.splitlines(), done.stderr) == (["[]", "8"], "")
