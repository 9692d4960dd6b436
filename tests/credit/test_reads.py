"""What each method says that it reads."""

from dataclasses import dataclass

import pytest

import stepcredit as sc
from stepcredit.credit.metrics import training_metrics
from stepcredit.errors import MethodError

WEIGHTS = {"process": 1.0, "outcome": 1.0, "format": 1.0}
WEIGHTED = sc.Reads("weighted", WEIGHTS, format=True)


@pytest.mark.parametrize(
    ("method", "reads"),
    [
        (sc.PASS(), sc.Reads("weighted", WEIGHTS, format=True, gate=True, ready_made=True)),
        (
            sc.PASS(weights={"prm": 2.0}, chunks="steps", gate=False),
            sc.Reads("weighted", {"prm": 2.0}, outcome=None, ready_made=True, steps=True),
        ),
        (
            sc.PASSMin(weights={"prm": 2.0}),
            sc.Reads("weighted", {"prm": 2.0}, gate=True, ready_made=True),
        ),
        (
            sc.PASSMin(weights={"prm": 2.0}, outcome_in_min=0),
            sc.Reads("weighted", {"prm": 2.0}, outcome=None, gate=True, ready_made=True),
        ),
        (sc.ProcessGRPO(), WEIGHTED),
        (sc.ProcessGRPO(pooling="process"), sc.Reads("one", outcome=None)),
        (
            sc.ProcessGRPO(chunks="sentences"),
            sc.Reads("weighted", WEIGHTS, format=True, text=True),
        ),
        (
            sc.ProcessGRPO(chunks="cut_points"),
            sc.Reads("weighted", WEIGHTS, ("student",), format=True),
        ),
        (
            sc.PASS(weights={"prm": 2.0}, chunks="cut_points", gate=False),
            sc.Reads("weighted", {"prm": 2.0}, ("student",), None, ready_made=True),
        ),
        (sc.GRPO(), sc.Reads(None, outcome="required")),
        (sc.RLOO(), sc.Reads(None, outcome="required")),
        (sc.DrGRPO(), sc.Reads(None, outcome="required")),
        (sc.GDPO(), sc.Reads(None, format=True)),
        (sc.GDPO(weights={"outcome": 1.0}), sc.Reads(None)),
        (sc.PURE(), sc.Reads("one")),
        (sc.ADCA(), sc.Reads("one")),
        (sc.TurnReturn(), sc.Reads("one", steps=True)),
        (sc.OPD(), sc.Reads(None, None, ("student", "teacher"), None)),
        (sc.GOPD(), sc.Reads(None, None, ("student", "teacher", "base"), None)),
        (sc.PRIME(), sc.Reads(None, None, ("prm", "ref"))),
    ],
)
def test_a_method_says_what_it_reads(method: sc.Estimator, reads: sc.Reads) -> None:
    assert method.reads == reads


def test_each_chunker_that_reads_text_or_steps_is_known() -> None:
    rules = ["auto", "steps", "runs", "tokens", "sentences", {"delimiters": {"pattern": "x"}}]
    reads = [sc.PASS(chunks=rule).reads for rule in rules]
    assert [(r.text, r.steps) for r in reads] == [
        (False, False),
        (False, True),
        (False, False),
        (False, False),
        (True, False),
        (True, False),
    ]


@dataclass(frozen=True)
class Own(sc.Estimator):
    """A user's method that says nothing about itself."""

    weights: float = 1.0

    def credit(self, rollouts: sc.Rollouts) -> sc.Credit:
        return sc.Credit.flat(rollouts, rollouts.outcome[:, None])


def test_a_method_that_says_nothing_may_read_every_stream_and_weighs_none_by_name() -> None:
    assert Own().reads == sc.Reads()
    assert sc.Reads() == sc.Reads(process="every", weights=None, logprobs=(), outcome="optional")
    assert Own().standardizes
    assert Own().paper == ""


@pytest.mark.parametrize(
    ("method", "divides"),
    [
        (sc.GRPO(), True),
        (sc.DrGRPO(), False),
        (sc.RLOO(), False),
        (sc.TurnReturn(), False),
        (sc.PASS(), True),
        (sc.PASS(operator="center"), False),
        (sc.PASS(operator="center", outcome_operator="masked_norm"), True),
    ],
)
def test_methods_that_divide_by_no_std(method: sc.Estimator, divides: bool) -> None:
    assert method.standardizes is divides


def test_other_weights() -> None:
    method = sc.PASS(operator={"process": "abs_max", "outcome": "center"})
    other = method.with_weights({"prm": 2.0, "outcome": 1.0})
    assert other.reads.weights == {"prm": 2.0, "outcome": 1.0}
    assert other.operator == {"outcome": "center"}
    assert dict(sc.ProcessGRPO().with_weights({"prm": 2.0}).weights) == {"prm": 2.0}


def test_other_weights_are_refused_where_there_are_none() -> None:
    with pytest.raises(MethodError, match="weighs no streams"):
        sc.PURE().with_weights({"prm": 1.0})
    with pytest.raises(MethodError, match="gdpo takes outcome and format alone, not 'prm'"):
        sc.GDPO().with_weights({"prm": 1.0})
    with pytest.raises(MethodError, match="has no weights"):
        sc.ProcessGRPO(pooling="process").with_weights({"prm": 1.0})


@dataclass(frozen=True)
class Gated(sc.Estimator):
    """A user's method that says what it reads."""

    @property
    def reads(self) -> sc.Reads:
        return sc.Reads(process=None, gate=True)

    def credit(self, rollouts: sc.Rollouts) -> sc.Credit:
        return sc.Credit.flat(rollouts, rollouts.outcome[:, None])


def test_metrics_ask_a_user_s_method_what_it_reads() -> None:
    rollouts = sc.Rollouts([0, 0], lengths=[1, 1], outcome=[1.0, 0.0], format_ok=[True, False])
    assert training_metrics(rollouts, Gated())["format_gated_share"] == 0.5
    assert training_metrics(rollouts, Own())["format_gated_share"] == 0.0


def test_what_is_read_can_be_hashed_and_not_be_changed() -> None:
    reads = sc.PASS().reads
    assert hash(reads) == hash(sc.PASS().reads)
    with pytest.raises(TypeError):
        reads.weights["process"] = 2.0  # type: ignore[index]
