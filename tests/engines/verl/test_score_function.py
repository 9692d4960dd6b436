"""Rewards as verl calls them: the function that its config names."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from stepcredit.engines.verl.score_function import (
    as_compute_score,
    compute_score,
    compute_score_async,
)
from stepcredit.errors import RolloutError
from stepcredit.rewards import reward


def as_verl_calls(**more: Any) -> dict[str, Any]:
    """The arguments of verl's reward manager, by name, with what it puts into extra_info."""
    return {
        "data_source": "math",
        "solution_str": r"\boxed{\frac{2}{4}}",
        "ground_truth": "0.5",
        "extra_info": {"index": 3, "num_turns": None, "rollout_reward_scores": {}},
        "reward_router_address": None,
        "reward_model_tokenizer": None,
    } | more


def test_verl_calls_it_in_threads_of_an_event_loop() -> None:
    async def manager() -> list[float]:
        loop = asyncio.get_running_loop()
        truths = ["0.5", "0.25"] * 4
        calls = [as_verl_calls(ground_truth=truth) for truth in truths]
        asked = [loop.run_in_executor(None, lambda c=call: compute_score(**c)) for call in calls]
        return list(await asyncio.gather(*asked))

    assert asyncio.run(manager()) == [1.0, 0.0] * 4


def test_verl_awaits_it() -> None:
    async def manager() -> list[float]:
        calls = [as_verl_calls(ground_truth=truth) for truth in ("0.5", "0.25")]
        return list(await asyncio.gather(*(compute_score_async(**call) for call in calls)))

    assert asyncio.iscoroutinefunction(compute_score_async)
    assert asyncio.run(manager()) == [1.0, 0.0]


def test_verl_names_the_reward_and_its_fields() -> None:
    call = as_verl_calls(
        solution_str="<answer>the fox</answer>",
        ground_truth=np.array(["wolf", "fox"], dtype=object),
        reward="qa-em",
        settings={"read": "answer-tag"},
    )
    assert compute_score(**call) == 1.0
    facts = {"supporting_facts": np.array([["A", 0]], dtype=object)}
    joint = as_verl_calls(
        solution_str="<support>A | 0</support><answer>fox</answer>",
        ground_truth="fox",
        extra_info=facts,
        reward="qa-joint",
    )
    assert compute_score(**joint) == 1.0


def test_verl_is_told_the_data_source_at_fault() -> None:
    with pytest.raises(RolloutError) as caught:
        compute_score("gsm8k", r"\boxed{1}", {"target": {}}, reward="exact")
    assert str(caught.value).startswith("data source gsm8k: ")


@pytest.mark.parametrize("name", ["maths", "exact"])
def test_a_missing_gold_answer_does_not_end_a_run(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    call = as_verl_calls(data_source=name, ground_truth=None, reward=name)
    assert [compute_score(**call) for _ in range(2)] == [0.0, 0.0]
    assert caplog.text.count(f"data source {name}: the gold answer of a row is missing") == 1


def test_an_unreadable_gold_answer_does_not_end_a_run(caplog: pytest.LogCaptureFixture) -> None:
    call = as_verl_calls(ground_truth="t(0,4]")
    assert [compute_score(**call) for _ in range(2)] == [0.0, 0.0]
    assert caplog.text.count("the gold answer 't(0,4]' can't be read as maths") == 1
    found = compute_score(**call, settings={"unreadable": "unknown"})
    assert isinstance(found, dict)
    assert (found["score"], found["outcome"]) == (0.0, None)
    right = compute_score(**as_verl_calls(), settings={"unreadable": "unknown"})
    assert right == {"score": 1.0, "acc": 1.0, "outcome": 1.0}
    as_outcome = as_compute_score(reward("maths"))
    assert as_outcome("math", r"\boxed{4}", "t(0,4]")["outcome"] is None


@pytest.mark.parametrize("name", ["compute_score", "compute_score_async"])
@pytest.mark.parametrize("module", ["engines.verl.score_function", "rewards"])
def test_verls_config_names_it(module: str, name: str) -> None:
    """The old path too, for this release."""
    pytest.importorskip("verl", reason="needs verl, in an environment of its own")
    from omegaconf import OmegaConf
    from verl.trainer.ppo.reward import get_custom_reward_fn

    given = {
        "path": f"pkg://stepcredit.{module}",
        "name": name,
        "reward_kwargs": {"reward": "exact", "settings": {"read": "hash"}},
    }
    config = OmegaConf.create({"reward": {"custom_reward_function": given}})
    function = get_custom_reward_fn(config)
    assert asyncio.iscoroutinefunction(function) == (name == "compute_score_async")
    found = function("gsm8k", "#### 42", "42")
    assert (asyncio.run(found) if asyncio.iscoroutine(found) else found) == 1.0


def test_the_old_path_warns_of_the_new_one() -> None:
    from stepcredit import rewards

    place = "stepcredit.engines.verl.score_function.compute_score"
    line = f"^stepcredit.rewards.compute_score is now {place}; the old name goes in 0\\.2\\.0$"
    with pytest.warns(DeprecationWarning, match=line) as caught:
        found = rewards.compute_score
    assert found is compute_score
    assert [each.filename for each in caught] == [__file__]
