"""The mark of training: it outlives a checkpoint, and a batch that has lost it is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import numpy as np
import torch
from verl.trainer.ppo.v1 import trainer_base
from verl.utils.tensordict_utils import get_tensordict

from stepcredit.engines.verl import trainer as ours
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.reward_loop import RewardedRow
from stepcredit.errors import EngineError
from stepcredit.lab.arithmetic import build_tokenizer

LINE = (
    "stepcredit_train: response {} has lost this mark of training, so its steps were not scored: "
    "an agent loop manager of your own must pass it on, and the prompts of an old checkpoint are "
    "sampled anew without its folder transfer_queue"
)


class Queue:
    """verl's queue as far as its trainer keeps prompts in it: fields and tags by key."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.tags: dict[str, dict[str, Any]] = {}

    def kv_batch_put(
        self, keys: list[str], partition_id: str, tags: list[Any], fields: Any = None
    ) -> None:
        for row, key in enumerate(keys):
            self.tags.setdefault(key, {}).update(tags[row])
            if fields is not None:
                self.fields[key] = fields[row]

    def kv_list(self, partition_id: str) -> dict[str, Any]:
        return {partition_id: self.tags}

    def kv_batch_get(self, keys: list[str], partition_id: str) -> Any:
        return torch.stack([self.fields[key] for key in keys])


def as_rewarded(prompt: dict[str, Any]) -> RewardedRow:
    """A row of the reward loop: verl's agent loop makes an array of each field of its prompt."""
    columns = {name: np.array([value])[0] for name, value in prompt.items()}
    return RewardedRow([], [], columns)


@pytest.mark.parametrize("mode", ["stepcredit_colocate_async", "stepcredit_separate_async"])
def test_prompts_that_verl_issues_again_are_scored(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(trainer_base, "tq", Queue())
    trainer = ours.TRAINERS[mode].__new__(ours.TRAINERS[mode])
    trainer.config = SimpleNamespace(data=_Data(train_batch_size=2))
    trainer.trainer_mode, trainer.global_steps = ours.TRAINERS[mode].verl_mode, 3
    trainer.agent_loop_manager = SimpleNamespace(generate_sequences=sent.append)
    rows = {"uid": np.array(["u", "v"], dtype=object), "dummy_tensor": torch.zeros(2, 1)}
    monkeypatch.setattr(
        ours.TRAINERS[mode], "_fetch_one_gen_batch", lambda self: get_tensordict(rows)
    )
    trainer._add_batch_to_generate()
    assert trainer._reissue_inflight_prompts() == 2
    assert len(sent) == 2
    for prompts in sent:
        for row in range(2):
            mark = {"stepcredit_train": prompts["stepcredit_train"][row]}
            assert as_rewarded(mark).is_training
    assert not as_rewarded({"uid": "u"}).is_training


class _Data(dict[str, Any]):
    __getattr__ = dict.__getitem__


SCORED = VerlSettings.of({"algorithm": {"stepcredit": {"process_signal": "equations"}}})


def test_rows_that_lost_the_mark_and_their_scores_are_refused(made: Any) -> None:
    extras = [
        extra if uid == "a1" else {"acc": 1.0}
        for extra, uid in zip(made.step_extras(), made.UIDS, strict=True)
    ]
    with pytest.raises(EngineError) as caught:
        _ = BatchCredit(QueuedBatch.of(*made.queue(extras)), SCORED).rollouts
    assert str(caught.value) == LINE.format("b7_0_0")
    queued = QueuedBatch.of(*made.queue(extras, **made.MARKED))
    assert len(BatchCredit(queued, SCORED).rollouts.lengths) == 6  # an agent loop gave a reward


@pytest.mark.parametrize("manager", ["stepcredit", "dapo"])
def test_scores_of_a_reward_function_are_not_lost_silently(
    compose: Any, made: Any, monkeypatch: pytest.MonkeyPatch, manager: str
) -> None:
    """stepcredit's manager leaves them out in validation, and then says nothing of errors."""
    fields, keys, tags = made.queue([{"acc": 1.0}] * 6)
    monkeypatch.setattr(ours, "transfer_queue", SimpleNamespace(kv_batch_get=lambda **_: fields))

    def passed(self: Any, batch: Any, metrics: Any) -> None:
        raise EngineError("the batch passed")

    monkeypatch.setattr(trainer_base.PPOTrainer, "_compute_advantage", passed)
    config = compose(f"reward.reward_manager.name={manager}")
    trainer = ours.StepCreditPPOTrainer.__new__(ours.StepCreditPPOTrainer)
    trainer.config, trainer.credit_settings = config, VerlSettings.of(config)
    trainer.tokenizer = build_tokenizer()
    batch = SimpleNamespace(keys=keys, tags=tags, partition_id="train")
    with pytest.raises(EngineError) as caught:
        trainer._compute_advantage(batch, {})
    lost = LINE.format("b7_0_0")
    assert str(caught.value) == (lost if manager == "stepcredit" else "the batch passed")
