"""Groups that verl filters out (DAPO): what is kept, what is refused, and what is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import isnan, nan
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import torch
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.trainer.ppo.v1 import replay_buffer

from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.verl import trainer as ours
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.group_filter import filter_metric, filter_warnings
from stepcredit.engines.verl.reward_loop import RewardedRow
from stepcredit.engines.verl.reward_manager import StepCreditRewardManager
from stepcredit.errors import EngineError

OWN = "+algorithm.stepcredit"
FILTER = "algorithm.filter_groups"
ON = f"{FILTER}.enable=true"
STEPS = f"{OWN}.process_signal=equations"
MATHS = f"{OWN}.outcome_reward=maths"


def dropped(monkeypatch: pytest.MonkeyPatch, metric: str, groups: dict[str, list[Any]]) -> set[str]:
    """The prompts that verl's own replay buffer drops; of each, two rewards or extras."""
    values = {f"{uid}_{n}_0": each for uid, row in groups.items() for n, each in enumerate(row)}
    tags = {uid: {"is_prompt": True, "status": "finished", "global_steps": 1} for uid in groups}
    queue = SimpleNamespace(
        kv_list=lambda: {"train": {**tags, **{key: {} for key in values}}},
        kv_batch_get=lambda keys, partition_id, select_fields: {
            select_fields[0]: [_field(select_fields[0], values[key]) for key in keys]
        },
    )
    monkeypatch.setattr(replay_buffer, "tq", queue)
    buffer = replay_buffer.ReplayBufferAsync(
        trainer_mode="colocate_async",
        trainer_config={},
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={},
        refill_fn=lambda count: None,
        filter_groups_metric=metric,
    )
    buffer._sync_metadata_from_transfer_queue()
    return set(buffer._dapo_filtered_keys("train")[0])


def _field(name: str, value: Any) -> Any:
    return torch.tensor([0.0, value]) if name == "rm_scores" else {"reward_extra_info": value}


def test_verls_filter_keeps_a_group_with_a_nan_and_fails_at_null(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The claim on which the advice `acc` and the reward of a failed response stand."""
    groups = {"same": [1.0, 1.0], "mixed": [1.0, 0.0], "failed": [1.0, nan], "unknown": [nan, nan]}
    assert dropped(monkeypatch, "reward", groups) == {"same"}
    extras = {uid: [{"acc": value} for value in row] for uid, row in groups.items()}
    assert dropped(monkeypatch, "acc", extras) == {"same"}
    with pytest.raises(TypeError):
        dropped(monkeypatch, "outcome", {"unknown": [{"outcome": None}] * 2})


@pytest.mark.parametrize(
    ("overrides", "reward", "score"),
    [
        ((), 1.0, 1.0),
        ((ON,), nan, 1.0),
        ((ON, f"{FILTER}.metric=score"), nan, nan),
    ],
)
def test_the_group_of_a_signal_that_failed_is_not_dropped_with_its_error(
    compose: Any,
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    reward: float,
    score: float,
) -> None:
    async def right(self: Any, data: Any) -> dict[str, Any]:
        return {"reward_score": 1.0, "reward_extra_info": {"score": 1.0, "acc": 1.0}}

    async def broken(self: Any, row: Any, outcome: Any) -> dict[str, Any]:
        raise EngineError("the server answered 500")

    monkeypatch.setattr(NaiveRewardManager, "run_single", right)
    monkeypatch.setattr(StepCreditRewardManager, "_score_extras", broken)
    row = RewardedRow([], [], {"uid": "u", "stepcredit_train": True})
    monkeypatch.setattr(RewardedRow, "of", lambda data: row)

    async def failed() -> dict[str, Any]:
        manager = StepCreditRewardManager(compose(STEPS, *overrides), None, lambda **_: 1.0)
        return await manager.run_single(None)

    found = asyncio.run(failed())
    extras = found["reward_extra_info"]
    assert extras["stepcredit_error"] == "response u: the server answered 500"
    assert [found["reward_score"], extras["score"]] == pytest.approx([reward, score], nan_ok=True)
    assert not isnan(extras["acc"])


GOLDS = ("1/2", None, "t(0,4]", "42")
KEEPS = "; acc keeps them"
MISSING = f"{FILTER}.metric: 1 of 4 rows have no gold answer that can be read, and"
AT_ZERO = " verl drops their groups with their step scores, as each {} is 0" + KEEPS
AT_NULL = " verl fails at their outcomes, which are null" + KEEPS
EXACT = f"{OWN}.outcome_reward=exact"
UNKNOWN = f"{OWN}.outcome_reward_fields.unreadable=unknown"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ((ON, STEPS, EXACT), MISSING + AT_ZERO.format("reward")),
        ((ON, STEPS, EXACT, f"{FILTER}.metric=score"), MISSING + AT_ZERO.format("score")),
        ((ON, EXACT, f"{FILTER}.metric=outcome"), MISSING + AT_NULL),
        ((ON, STEPS, MATHS, UNKNOWN), MISSING.replace("1 of", "2 of") + AT_ZERO.format("reward")),
        ((ON, STEPS, EXACT, f"{FILTER}.metric=acc"), None),
        ((ON, EXACT), None),  # outcomes alone: such a group trains nothing
        ((STEPS, EXACT), None),
        ((ON, STEPS), None),  # a reward function of verl's or the user's
        (
            (ON, STEPS, EXACT, "trainer.v1.sampler.custom_sampler={path: mine.py, name: Mine}"),
            None,
        ),
    ],
)
def test_a_filter_that_fails_or_drops_what_only_steps_train_is_refused(
    compose: Callable[..., Any], overrides: tuple[str, ...], line: str | None
) -> None:
    config = compose(*overrides)
    rows = [{"ground_truth": gold} for gold in GOLDS]
    table = _Table(reward_model=rows)
    found = Preflight()
    settings = VerlSettings.of(config)
    ours.check_golds(found, config, settings, SimpleNamespace(dataframe=table))
    assert found.faults == ([] if line is None else [line])


class _Table(dict[str, Any]):
    @property
    def column_names(self) -> list[str]:
        return list(self)


def test_what_is_lost_with_dropped_groups_is_said_once_at_the_start(
    compose: Callable[..., Any],
) -> None:
    def said(*overrides: str) -> list[str]:
        config = compose(*overrides)
        return list(filter_warnings(config, VerlSettings.of(config)))

    line = (
        "algorithm.filter_groups.enable: a group whose responses all have the same acc is dropped "
        "before its credit is computed, so that its step scores train nothing"
    )
    acc = f"{FILTER}.metric=acc"
    assert said(ON, acc, STEPS) == [f"{line}, and what they took is in no metric"]
    assert said(ON, acc, STEPS, f"{OWN}.splitter=turns") == [line]
    assert said(ON, acc) == said(STEPS) == []
    assert filter_metric(compose(ON)) == "reward"
    with pytest.warns(UserWarning, match="is dropped before its credit is computed"):
        ours.TRAINERS["stepcredit"](compose(ON, STEPS, "trainer.v1.trainer_mode=stepcredit"))
