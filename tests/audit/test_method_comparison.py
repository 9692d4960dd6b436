"""Methods side by side, against numpy and scipy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.audit.made_rollouts import audited, clean_rows

import stepcredit as sc
from stepcredit.audit.checks import method_comparison
from stepcredit.audit.checks.method_comparison import agreement_of, check_methods


@dataclass(frozen=True)
class Opposite(sc.Estimator):
    """GRPO's advantages with the other sign."""

    def credit(self, rollouts: sc.Rollouts) -> sc.Credit:
        return sc.Credit.flat(rollouts, -sc.GRPO().credit(rollouts).advantage)


def test_figures_against_plain_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_comparison, "TOKENS_AT_ONCE", 100)
    methods = {"a": sc.PASS(), "b": sc.PURE()}
    data = audited(clean_rows(), **methods)
    rows = [data.advantages[name].ragged() for name in methods]
    a, b = (np.concatenate([x.double().numpy() for x in each]) for each in rows)
    means = [[float(x.double().mean()) for x in each] for each in rows]
    values = {f.name: f.value for f in check_methods(data).figures if f.method == "a, b"}
    expected = {
        "rank correlation of the responses' mean advantages": spearmanr(*means).statistic,
        "share of tokens whose advantages have the same sign": np.mean(np.sign(a) == np.sign(b)),
        "cosine of the advantages": a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    }
    assert values == pytest.approx(expected)


def test_a_planted_opposite_is_found() -> None:
    methods = {"grpo": sc.GRPO(), "rloo": sc.RLOO(), "opposite": Opposite()}
    result = check_methods(audited(clean_rows(), **methods))
    assert [f.severity for f in result.findings] == ["note"]
    assert "opposite" in result.findings[0].sentence
    assert len(result.findings[0].places) == 5
    values = {f.value for f in result.findings[0].evidence if f.name.startswith("cosine")}
    assert min(values) < -0.99
    together = {f.method: f.value for f in result.figures if f.name.endswith("together")}
    assert together["opposite"] == pytest.approx(-1, abs=0.05)


def test_the_responses_furthest_apart_are_named() -> None:
    rows = [
        {"group": 0, "token_scores": [float(i), -float(i)], "outcome": float(i != 3)}
        for i in range(5)
    ]
    rows += [{"group": 1, "token_scores": [0.0, 0.0], "outcome": 0.0}]
    data = audited(rows, grpo=sc.GRPO(), raw=sc.ProcessGRPO(pooling="process"))
    means = {
        name: np.array([float(x.double().mean()) for x in adv.ragged()])
        for name, adv in data.advantages.items()
    }
    gap = np.abs(means["grpo"] / means["grpo"].std() - means["raw"] / means["raw"].std())
    found = check_methods(data).series["apart"]
    assert found[0]["row"] == int(gap.argmax())


def test_methods_that_agree_are_not_accused() -> None:
    for seed in range(10):
        methods = {"grpo": sc.GRPO(), "pass": sc.PASS(), "min": sc.PASSMin()}
        assert check_methods(audited(clean_rows(seed), **methods)).findings == ()


def test_one_method_is_no_comparison() -> None:
    result = check_methods(audited(clean_rows(), grpo=sc.GRPO(), opd=sc.OPD()))
    assert [u.field for u in result.unchecked] == ["--method"]


@pytest.mark.parametrize("size", [1, 2])
def test_constant_advantages_have_no_correlation(size: int) -> None:
    rows = [{"group": 0, "length": 1, "outcome": 1.0}] * size
    result = check_methods(audited(rows, grpo=sc.GRPO(), rloo=sc.RLOO()))
    assert result.findings == ()
    by_name = {f.name: f.value for f in result.figures if f.method == "grpo, rloo"}
    assert by_name["share of tokens whose advantages have the same sign"] == 1
    assert by_name["cosine of the advantages"] is None
    assert result.series["least_alike"] == []


def test_one_response_longer_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_comparison, "TOKENS_AT_ONCE", 1)
    r = sc.Rollouts([0, 0], lengths=[5, 3], outcome=[1.0, 0.0])
    assert agreement_of([sc.GRPO()(r), sc.RLOO()(r)]).tokens == 8
