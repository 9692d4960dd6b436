"""The trainer on verl's own: its queue, its `_compute_advantage`, its config."""

from __future__ import annotations

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

from types import SimpleNamespace

import numpy as np
import torch
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from torch.nn.utils.rnn import pad_sequence
from verl.utils.tensordict_utils import get_tensordict

import stepcredit as sc
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.trainer import StepCreditPPOTrainer
from stepcredit.engines.verl.training_mark import is_marked
from stepcredit.errors import EngineError
from stepcredit.lab.arithmetic import build_tokenizer


def trainer_of(config):
    """The trainer as verl's own CPU tests build one: without workers or servers."""
    trainer = StepCreditPPOTrainer.__new__(StepCreditPPOTrainer)
    trainer.config, trainer.credit_settings = config, VerlSettings.of(config)
    trainer.tokenizer, trainer.credited = build_tokenizer(), None
    return trainer


def put(queue, fields, keys, tags):
    """Rows into the queue as verl's agent loop and workers put them."""
    stacks = {n: NonTensorStack(*v) if isinstance(v, list) else v for n, v in fields.items()}
    return queue.kv_batch_put(
        keys=keys, partition_id="train", fields=TensorDict(stacks, batch_size=len(keys)), tags=tags
    )


def advantages_in(queue, batch):
    got = queue.kv_batch_get(batch.keys, batch.partition_id, select_fields=["advantages"])
    return list(got["advantages"].unbind())


@pytest.fixture
def batch(transfer_queue, made):
    """A maker of batches in the queue; they are taken out again."""
    taken = []

    def make(extras, **changes):
        fields, keys, tags = made.queue(extras, **changes)
        taken.append(put(transfer_queue, fields, keys, tags))
        return taken[-1]

    yield make
    for each in taken:
        transfer_queue.kv_clear(keys=each.keys, partition_id=each.partition_id)


def padded(rows):
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def in_tokens(made):
    """Each response's steps over trained tokens, worked out by hand."""
    scores = [made.scores_of(row) for row in range(6)]
    scores[1].pop(1)
    scores[3].pop(1)
    scores[5].pop()
    ends = [[1, 5], [1, 4, 5], [2], [0, 1], [0, 4], [2, 3]]
    return sc.Steps(ends=ends, scores=scores)


def test_the_queue_holds_the_cores_advantages_by_key(batch, transfer_queue, compose, made):
    queued = batch(made.step_extras())
    queued.reorder([5, 0, 7, 3, 1, 2, 6, 4])  # as verl balances its ranks
    metrics = {}
    trainer = trainer_of(compose("+algorithm.stepcredit.fields.k=1.0"))
    written = trainer._compute_advantage(queued, metrics)
    lengths = [6, 6, 3, 2, 5, 4]
    rollouts = sc.Rollouts(made.UIDS, lengths, in_tokens(made), outcome=made.OUTCOMES)
    masks = padded(made.MASKS)
    expected = [*sc.PASS(k=1.0)(rollouts).padded(masks), torch.zeros(1), torch.zeros(1)]
    assert written.keys == queued.keys
    for row, found in zip(
        [5, 0, 7, 3, 1, 2, 6, 4], advantages_in(transfer_queue, queued), strict=True
    ):
        torch.testing.assert_close(found, expected[row][: len(found)], rtol=0, atol=2**-20)
    assert expected[0].abs().max() > 0
    assert metrics["stepcredit/share/process"] > 0


def test_metrics_are_the_librarys_and_verl_averages_them_all(batch, compose, made):
    from verl.trainer.ppo.v1.utils import MetricsAggregator

    metrics = {}
    trainer = trainer_of(compose())
    trainer._compute_advantage(batch(made.step_extras()), metrics)
    ours = {name: value for name, value in metrics.items() if name.startswith("stepcredit/")}
    assert ours["stepcredit/length"] == pytest.approx(26 / 6)
    assert ours["stepcredit/steps"] == pytest.approx(12 / 6)
    assert ours["stepcredit/truncated_share"] == pytest.approx(1 / 6)
    ended = [list(range(10, 10 + len(mask))) for mask in made.MASKS]
    ended[1][-1] = trainer.tokenizer.eos_token_id
    ids = made.nested([*ended, [1], [1]], torch.int64)
    again = trainer_of(compose())  # a trainer refuses prompts that come twice
    again._compute_advantage(batch(made.step_extras(), responses=ids), metrics)
    assert metrics["stepcredit/truncated_share"] == 0
    assert {f"stepcredit/{name}" for name in ("reflection_words", "repeated_step_share")} <= set(
        ours
    )
    kinds = MetricsAggregator()
    assert {kinds._get_aggregation_type(name) for name in ours} == {"weighted_avg"}


@pytest.mark.parametrize("name", ["gae", "reinforce_plus_plus"])
def test_verls_own_advantage_is_a_stream_and_its_returns_stay(
    batch, transfer_queue, compose, made, name
):
    from verl.trainer.ppo import core_algos

    values = [
        [0.05 * (row + 1) * (t + 1) for t in range(len(m))] for row, m in enumerate(made.MASKS)
    ]
    fields = {"values": made.nested([*values, [0.0], [0.0]], torch.float32)}
    queued = batch(made.step_extras(), **fields)
    order = [6, 5, 0, 7, 3, 1, 2, 4]
    queued.reorder(order)
    config = compose(f"algorithm.adv_estimator={name}", "algorithm.lam=0.9")
    trainer_of(config)._compute_advantage(queued, {})
    masks = padded([*made.MASKS, [0], [0]])
    rewards = torch.zeros(masks.shape)
    for row, outcome in enumerate(made.OUTCOMES):
        rewards[row, len(made.MASKS[row]) - 1] = outcome
    if name == "gae":
        held = padded([*values, [0.0], [0.0]])
        own, returns = core_algos.compute_gae_advantage_return(rewards, held, masks, 1.0, 0.9)
    else:
        own, returns = core_algos.compute_reinforce_plus_plus_outcome_advantage(
            rewards, masks, config=config.algorithm
        )
    ready = sc.TokenAdvantages([own[row][masks[row].bool()] for row in range(6)])
    rollouts = sc.Rollouts(made.UIDS, process={"process": in_tokens(made), "engine": ready})
    weights = {"process": 1.0, "engine": 1.0, "format": 1.0}
    expected = sc.PASS(weights=weights)(rollouts).padded(padded(made.MASKS))
    expected = [*expected, torch.zeros(1), torch.zeros(1)]
    got = transfer_queue.kv_batch_get(queued.keys, "train", select_fields=["advantages", "returns"])
    for place, row in enumerate(order):
        found, back = got["advantages"][place], got["returns"][place]
        torch.testing.assert_close(found, expected[row][: len(found)], rtol=0, atol=2**-18)
        torch.testing.assert_close(back, returns[row][: len(back)], rtol=0, atol=1e-6)


def test_tokens_that_verl_rejects_get_nothing_and_credit_stays_as_it_was(
    batch, transfer_queue, compose, made
):
    old = [[-1.0] * len(mask) for mask in made.MASKS]
    rollout = [list(row) for row in old]
    rollout[0][2] = -9.0
    fields = {
        "old_log_probs": made.nested([*old, [0.0], [0.0]], torch.float32),
        "rollout_log_probs": made.nested([*rollout, [0.0], [0.0]], torch.float32),
    }
    plain = batch(made.step_extras())
    trainer_of(compose())._compute_advantage(plain, {})
    before = advantages_in(transfer_queue, plain)
    queued = batch(made.step_extras(), **fields)
    correction = "algorithm.rollout_correction"
    config = compose(
        f"{correction}.rollout_rs=token_k1", f"{correction}.rollout_rs_threshold=0.5_2.0"
    )
    trainer_of(config)._compute_advantage(queued, {})
    after = advantages_in(transfer_queue, queued)
    assert before[0][2] != 0
    before[0][2] = 0.0
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


def test_a_teachers_kl_is_made_of_the_queues_log_probs(batch, transfer_queue, compose, made):
    old = [[-1.0 - 0.1 * t for t in range(len(m))] for m in made.MASKS]
    teacher = [
        [-0.8 + 0.03 * t * (row + 1) for t in range(len(m))] for row, m in enumerate(made.MASKS)
    ]
    whole = [[0.0] * row + values + [0.0] for row, values in enumerate(teacher)]
    rows = [torch.tensor(row)[:, None] for row in [*whole, [0.0] * 4, [0.0] * 4]]
    fields = {
        "old_log_probs": made.nested([*old, [0.0], [0.0]], torch.float32),
        "teacher_logprobs": torch.nested.as_nested_tensor(rows, layout=torch.jagged),
    }
    queued = batch([{}] * 6, **fields)
    config = compose("+algorithm.stepcredit.process_signal=opd")
    trainer_of(config)._compute_advantage(queued, {})
    scores = [
        [b - a for a, b, own in zip(*each, strict=True) if own]
        for each in zip(old, teacher, made.MASKS, strict=True)
    ]
    rollouts = sc.Rollouts(made.UIDS, process=sc.Tokens(scores), outcome=made.OUTCOMES)
    expected = sc.PASS()(rollouts).padded(padded(made.MASKS))
    found = advantages_in(transfer_queue, queued)
    for row, values in enumerate(expected):
        torch.testing.assert_close(found[row], values[: len(found[row])], rtol=1e-5, atol=1e-5)


def test_an_error_of_the_reward_loop_stops_the_trainer(batch, compose, made):
    extras = made.step_extras()
    extras[3]["stepcredit_error"] = "response a1_3: the server answered 500"
    with pytest.raises(EngineError) as caught:
        trainer_of(compose())._compute_advantage(batch(extras), {})
    assert str(caught.value) == "reward loop: response a1_3: the server answered 500"


def test_prompts_to_train_on_are_marked_for_the_reward_loop(compose, monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainerSync

    prompts = TensorDict({"index": torch.arange(4)}, batch_size=4)
    monkeypatch.setattr(PPOTrainerSync, "_next_train_batch", lambda self, number=None: prompts)
    found = trainer_of(compose())._next_train_batch(4)
    parts = found.chunk(2)  # as verl hands them to its agent loops
    assert [part["stepcredit_train"].tolist() for part in parts] == [[[True], [True]]] * 2


def test_prompts_that_a_checkpoint_left_unfinished_keep_their_mark(
    transfer_queue, compose, made, monkeypatch
):
    """verl's own methods, with its own queue: they keep only the fields that have rows."""
    sent = []
    trainer = trainer_of(compose("data.train_batch_size=2"))
    trainer.trainer_mode, trainer.global_steps = "colocate_async", 3
    trainer.agent_loop_manager = SimpleNamespace(generate_sequences=sent.append)
    rows = {"uid": np.array(["c1", "c2"], dtype=object), "dummy_tensor": torch.zeros(2, 1)}
    monkeypatch.setattr(trainer, "_fetch_one_gen_batch", lambda: get_tensordict(rows))
    trainer._submit_batch_to_rollout(trainer._next_train_batch())
    assert trainer._reissue_inflight_prompts() == 2
    transfer_queue.kv_clear(keys=["c1", "c2"], partition_id="train")
    for prompts in sent:
        assert [is_marked(row) for row in prompts["stepcredit_train"]] == [True, True]


def test_one_key_turns_it_on_and_the_reward_manager_follows(compose, monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls

    given = []
    monkeypatch.setattr(PPOTrainerSync, "__init__", lambda self, config: given.append(config))
    mode = "trainer.v1.trainer_mode=stepcredit"
    trainer = get_trainer_cls("stepcredit")(compose(mode))
    assert trainer.credit_settings.estimator == sc.PASS()
    assert given[-1].trainer.v1.trainer_mode == "sync"
    assert given[-1].reward.reward_manager.name == "stepcredit"
    get_trainer_cls("stepcredit")(compose(mode, "reward.reward_manager.name=dapo"))
    assert given[-1].reward.reward_manager.name == "dapo"


def test_our_keys_leave_verls_own_reading_of_the_config_alone(compose):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    config = compose(
        "trainer.v1.trainer_mode=stepcredit",
        "+algorithm.stepcredit={method: pure, fields: {temperature: 0.2}}",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
        "trainer.n_gpus_per_node=1",
    )
    validate_config(config, need_reference_policy(config), need_critic(config))
    OmegaConf.resolve(config)
    assert VerlSettings.of(config).estimator == sc.PURE(temperature=0.2)


def test_a_validation_has_the_unbiased_pass_at_k_of_each_source(compose):
    """Two samples per prompt: of a's two prompts one is right once, one twice; b's never."""
    trainer = trainer_of(compose())
    outcomes = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    extras = {"reward": outcomes, "acc": outcomes}
    uids, sources = ["p", "p", "q", "q", "r", "r"], ["a"] * 4 + ["b"] * 2
    figures = trainer._val_metrics_update(sources, uids, extras, [])
    ours = {name: value for name, value in figures.items() if "pass@" in name}
    assert ours == {
        "val-core/a/outcome/pass@1": 0.75,
        "val-core/a/outcome/pass@2": 1.0,
        "val-core/b/outcome/pass@1": 0.0,
        "val-core/b/outcome/pass@2": 0.0,
    }
    assert figures["val-core/a/acc/mean@2"] == 0.75
    assert figures["val-core/a/acc/best@2/mean"] < 1.0  # drawn with replacement


def test_partial_credit_and_unknown_outcomes_of_a_validation(compose):
    trainer = trainer_of(compose("+algorithm.stepcredit.right_above=0.5"))
    extras = {"reward": [0.0] * 4, "outcome": [0.5, 0.9, None, 1.0]}
    figures = trainer._val_metrics_update(["a"] * 4, ["p", "p", "q", "q"], extras, [])
    assert figures["val-core/a/outcome/pass@1"] == 0.5
    assert figures["val-core/a/outcome/pass@2"] == 1.0
