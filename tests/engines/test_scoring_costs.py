"""What scoring costs: whose time and answers count, and which prices are refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving, process, second, second_process, server
from tests.signals.served.test_client import STEP, prm

from stepcredit.engines.scoring_costs import (
    CostWatch,
    ScoringCost,
    ScoringMeter,
    checked_prices,
    cost_metrics,
    merged_costs,
    server_warnings,
)
from stepcredit.errors import EngineError
from stepcredit.signals.combine import Clipped, Weighted
from stepcredit.signals.score_maps import Difference
from stepcredit.signals.served.judge_cost import Usage
from stepcredit.signals.server_statistics import ServedStatistics, ServerStatistics
from stepcredit.signals.signal_registry import signal

__all__ = ["process", "second", "second_process", "server"]

ANSWER = {"usage": {"prompt_tokens": 900, "completion_tokens": 40}}


def test_requests_of_a_server_that_fails_are_counted_and_told(
    server: Misbehaving, second: Misbehaving
) -> None:
    server.plan(setting=STEP, delay=0.01)
    second.plan(fail=[503, "", {}])
    scoring = prm([server.url, second.url], concurrency=2)
    watch = CostWatch({"prm": scoring, "told": signal("equations")})
    scoring.scores(truth.responses(12))
    cost = ScoringCost.of_extra(watch.lap().as_extra())
    assert cost.served is not None
    by_url = {each.url: each for each in cost.served.servers}
    assert by_url[server.url].failed == 0
    assert by_url[second.url].failed == by_url[second.url].sent > 0
    found = cost_metrics({"prm": cost})
    assert found["server_failed_share/prm"] == cost.served.failed / cost.served.sent
    assert 0 < found["server_queue/prm"] <= 12
    [line] = server_warnings({"prm": cost}).values()
    assert line.startswith(f"{second.url} (prm): ")
    assert line.endswith(" requests failed, the last: HTTP 503")
    quiet = watch.lap()
    assert "server_queue/prm" not in cost_metrics({"prm": quiet})
    assert server_warnings({"prm": quiet}) == {}


def test_the_queue_of_two_processes_is_their_sum_and_their_requests_add_up() -> None:
    one = ServedStatistics((ServerStatistics("http://a", sent=4, failed=1),), waited_seconds=6.0)
    both = ScoringCost(2.0, served=one).beside(ScoringCost(3.0, served=one))
    found = cost_metrics({"prm": both})
    assert found["server_queue/prm"] == 12.0 / 3.0  # 6 + 6 seconds, within 3
    assert found["server_failed_share/prm"] == 2 / 8


def judge() -> Any:
    return signal("judge", url="http://localhost:1", model="judge")


def test_the_answers_of_a_judge_inside_another_signal_count_lap_by_lap() -> None:
    inner = judge()
    inner.spent.add(ANSWER)  # of an earlier batch
    watch = CostWatch({"a": signal("equations"), "b": Difference(inner)})
    inner.spent.add(ANSWER)
    inner.spent.add({})
    assert watch.lap().usage == Usage(answers=2, read=900, written=40, uncounted=1)
    assert watch.lap().usage == Usage()
    assert CostWatch(signal("equations")).lap().usage is None


def test_a_judge_in_several_places_is_counted_once_and_equal_judges_each() -> None:
    shared, equal = judge(), judge()
    watch = CostWatch(Weighted((shared, Clipped(shared, low=0.2), equal)))
    shared.spent.add(ANSWER)
    assert watch.lap().usage == Usage(answers=1, read=900, written=40)
    equal.spent.add(ANSWER)
    assert watch.lap().usage == Usage(answers=1, read=900, written=40)


def test_processes_score_at_the_same_time_and_all_answers_are_paid() -> None:
    one = {"judge": ScoringCost(2.0, Usage(answers=3, read=10)), "prm": ScoringCost(1.0)}
    two = {"judge": ScoringCost(1.5, Usage(answers=2, read=20)), "prm": ScoringCost(4.0)}
    both = merged_costs([one, two])
    assert both["judge"] == ScoringCost(2.0, Usage(answers=5, read=30))
    assert both["prm"].seconds == 4.0


def test_a_stream_that_is_scored_twice_takes_both_times() -> None:
    meter = ScoringMeter()
    for _ in range(2):
        with meter.of("prm", None):
            pass
    once = ScoringMeter()
    with once.of("prm", None):
        pass
    assert [*meter.costs] == ["prm"]
    assert meter.costs["prm"].after(ScoringCost(1.0)).seconds > 1.0


def test_money_is_left_out_where_tokens_were_not_counted() -> None:
    prices = {"judge": {"read": 1.0, "written": 1.0}}
    cost = ScoringCost(1.0, Usage(answers=2, read=900, written=40, uncounted=1))
    found = cost_metrics({"judge": cost}, prices)
    assert found["judge_uncounted_answers/judge"] == 1.0
    assert "judge_cost/judge" not in found
    known = cost_metrics({"judge": ScoringCost(1.0, Usage(1, 900, 40))}, prices)
    assert known["judge_cost/judge"] == pytest.approx(940 / 1e6)
    assert "judge_cost/judge" not in cost_metrics({"judge": ScoringCost(1.0, Usage(1, 900, 40))})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (0.15, "judge_prices: expected {stream: prices}, got 0.15"),
        (
            {"judg": {"read": 1, "written": 1}},
            "judge_prices.judg: no stream of this name has a judge, did you mean 'judge'?",
        ),
        (
            {"sums": {"read": 1, "written": 1}},
            "judge_prices.sums: no stream of this name has a judge: expected judge",
        ),
        (
            {"judge": {"read": 1}},
            "judge_prices.judge: expected the prices read and written per million tokens, got "
            "{'read': 1}",
        ),
        (
            {"judge": {"read": 1, "written": -1}},
            "judge_prices.judge.written: expected a number of at least 0, got -1",
        ),
        (
            {"judge": {"read": "a", "written": 1}},
            "judge_prices.judge.read: expected a finite number, got 'a'",
        ),
    ],
)
def test_prices_of_another_form_are_refused(given: Any, reason: str) -> None:
    with pytest.raises(EngineError) as caught:
        checked_prices(given, {"judge": judge(), "sums": signal("equations")}, "judge_prices")
    assert str(caught.value) == reason
