"""What verl's trainer logs of a batch: names of the table, and what its scores cost."""

from __future__ import annotations

from typing import Any

import pytest

from stepcredit.credit.metrics.metric_table import PREFIX, metric_of
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.metric_names import logged_costs, scoring_shares
from stepcredit.errors import EngineError
from stepcredit.lab.arithmetic import build_tokenizer

JUDGE = {"url": "http://localhost:1", "model": "judge"}
PRICES = {"process": {"read": 2.0, "written": 10.0}}


def settings(**given: Any) -> VerlSettings:
    return VerlSettings.of({"algorithm": {"stepcredit": given}})


def with_costs(extras: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that two workers scored, three each, of which one took a second per row."""
    usage = {"answers": 2, "read": 500, "written": 10, "uncounted": 0}
    return [
        {
            **extra,
            "stepcredit_cost": {
                "worker": f"host {row % 2}",
                "streams": {"process": {"seconds": 0.5 + row % 2 / 2, "usage": usage}},
            },
        }
        for row, extra in enumerate(extras)
    ]


def test_every_name_is_in_the_table_and_costs_are_those_of_the_workers(made: Any) -> None:
    batch = QueuedBatch.of(*made.queue(with_costs(made.step_extras())))
    known = settings(process_signal="judge", process_signal_fields=JUDGE, judge_prices=PRICES)
    credit = BatchCredit(batch, known, build_tokenizer())
    found = credit.metrics(longest=8) | logged_costs([credit.costs()], PRICES)
    assert [name for name in found if metric_of(name) is None] == []
    assert all(name.startswith(PREFIX) for name in found)
    assert found["stepcredit/scoring_seconds/process"] == 3.0  # of the slower worker
    assert found["stepcredit/judge_answers/process"] == 12.0
    assert found["stepcredit/judge_tokens_read/process"] == 3000.0
    assert found["stepcredit/judge_cost/process"] == pytest.approx((6000 + 600) / 1e6)
    shares = scoring_shares(found, 12.0)
    assert shares == {"stepcredit/scoring_step_share/process": 0.25}
    for name in ("raw_mean/process", "pay/first_steps", "pay/right_responses"):
        assert f"{PREFIX}{name}" in found


def test_what_the_trainer_scores_itself_is_timed_too(made: Any) -> None:
    batch = QueuedBatch.of(*made.queue([{} for _ in made.UIDS]))
    known = settings(process_signal="equations", splitter="turns")
    credit = BatchCredit(batch, known, build_tokenizer())
    credit.metrics(longest=8)
    found = logged_costs([credit.costs()])
    assert found["stepcredit/scoring_seconds/process"] > 0
    assert "stepcredit/judge_answers/process" not in found


def test_prices_of_a_stream_without_a_judge_are_refused() -> None:
    with pytest.raises(EngineError) as caught:
        settings(process_signal="equations", judge_prices=PRICES)
    line = "algorithm.stepcredit.judge_prices.process: no stream of this name has a judge"
    assert str(caught.value) == line
