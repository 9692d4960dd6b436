"""What is refused at start, by the key's name: on verl's own config and its own losses."""

from __future__ import annotations

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import transfer_queue
import verl
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
from verl.trainer.ppo.v1 import PPOTrainerSync

import stepcredit as sc
from stepcredit.engines.verl.config_checks import (
    check_engine,
    check_policy_loss,
    check_trainer_hooks,
)
from stepcredit.engines.verl.trainer import checked_settings
from stepcredit.errors import EngineError

OWN = "+algorithm.stepcredit"
TEACHER = ("distillation.enabled=true", f"{OWN}.process_signal=opd")
LOSS = "distillation.distillation_loss"
NO_COUNT = f"{LOSS}.distillation_loss_coef=0"
SAMPLED_AT = "actor_rollout_ref.rollout.temperature"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["algorithm.adv_estimator=gdpo"],
            "algorithm.adv_estimator: 'gdpo' needs more than verl's V1 trainer gives it; use grpo",
        ),
        (
            ["algorithm.adv_estimator=stepcredit-rloo"],
            "algorithm.adv_estimator: 'stepcredit-rloo' is for verl's other trainers; use grpo, "
            "and algorithm.stepcredit.method=rloo",
        ),
        (
            ["algorithm.norm_adv_by_std_in_grpo=false"],
            "algorithm.norm_adv_by_std_in_grpo: False has no effect: 'pass' divides by the "
            "standard deviation; choose another method, or another "
            "algorithm.stepcredit.fields.operator",
        ),
        (
            ["algorithm.use_kl_in_reward=true"],
            "algorithm.use_kl_in_reward: True has no effect: the outcome is only the reward; use "
            "actor_rollout_ref.actor.use_kl_loss",
        ),
        (
            [
                "algorithm.use_kl_in_reward=true",
                "algorithm.adv_estimator=reinforce_plus_plus",
                *TEACHER[:1],
                NO_COUNT,
                f"{OWN}.process_signal=g-opd",
            ],
            "algorithm.use_kl_in_reward: True counts the reference's log-probs twice: they are in "
            "the advantages",
        ),
        (
            ["algorithm.use_pf_ppo=true"],
            "algorithm.use_pf_ppo: True samples the rows again, but credit is written back row by "
            "row",
        ),
        (
            ["distillation.enabled=true", f"{LOSS}.use_task_rewards=false"],
            f"{LOSS}.use_task_rewards: False drops the policy loss, and the advantages with it; "
            "set it to true",
        ),
        (
            [*TEACHER],
            f"{LOSS}.distillation_loss_coef: 1.0 counts the teacher twice: it is in the "
            "advantages; set it to 0",
        ),
        (
            [*TEACHER, NO_COUNT, f"{LOSS}.loss_mode=forward_kl_topk"],
            f"{LOSS}.loss_mode: 'forward_kl_topk' keeps the largest log-probs, not the sampled "
            "token's; use k1",
        ),
        (
            [f"{OWN}.process_signal=opd"],
            "algorithm.stepcredit: reads teacher_logprobs: set distillation.enabled=true and "
            f"{LOSS}.distillation_loss_coef=0",
        ),
        (
            ["distillation.enabled=true", NO_COUNT, f"{OWN}.method=g-opd"],
            "algorithm.stepcredit: reads base_logprobs: set "
            "actor_rollout_ref.actor.use_kl_loss=true (its kl_loss_coef may be 0)",
        ),
        (
            [f"{OWN}.method=prime"],
            "algorithm.stepcredit: reads prm_logprobs: verl has none; use the signal 'implicit' "
            "with its own models",
        ),
        (
            [f"{OWN}.method=gigpo"],
            "algorithm.stepcredit.method: gigpo needs step_states: nothing gives them",
        ),
        (
            ["distillation.enabled=true", NO_COUNT, f"{OWN}.process_signal=self-teacher"],
            "algorithm.stepcredit.process_signal: self-teacher needs the policy's log-probs with "
            "a context in the prompt, which verl does not compute: name a teacher, such as the "
            "policy's server",
        ),
        (
            [*TEACHER, NO_COUNT, f"{SAMPLED_AT}=0.6"],
            f"{SAMPLED_AT}: 0.6 is the policy's temperature, but verl's teacher has 1: set it to 1",
        ),
        (
            [*TEACHER[1:], f"{OWN}.process_signal_fields.teacher=a-folder", f"{SAMPLED_AT}=0.6"],
            f"{SAMPLED_AT}: 0.6 is the policy's temperature, but the models of 'opd' have 1: "
            "set both to the same",
        ),
        (
            ["reward.reward_manager.name=dapo", f"{OWN}.process_signal=equations"],
            "reward.reward_manager.name: 'dapo' does not compute the scores that "
            "algorithm.stepcredit names; use stepcredit",
        ),
        (
            ["reward.reward_model.enable=true", f"{OWN}.format_reward=format"],
            "reward.reward_model.enable: True bypasses the reward manager, which computes the "
            "scores that algorithm.stepcredit names; set it to false",
        ),
        (
            [
                "reward.reward_model.enable=true",
                "reward.custom_reward_function.path=mine.py",
                f"{OWN}.format_reward=format",
            ],
            "reward.reward_model.enable_resource_pool: False returns rewards without further "
            "scores; set it to true",
        ),
        (
            ["algorithm.adv_estimator=gae", f"{OWN}.method=pure"],
            "algorithm.adv_estimator: 'pure' can't take verl's own advantage (it weighs no "
            "process streams); use grpo",
        ),
        (
            ["algorithm.adv_estimator=gae", f"{OWN}.method=gdpo"],
            "algorithm.adv_estimator: 'gdpo' can't take verl's own advantage (it weighs no "
            "process streams); use grpo",
        ),
        (
            ["algorithm.adv_estimator=gae", f"{OWN}.method=grpo-process"],
            "algorithm.adv_estimator: 'grpo-process' does not read gae's advantage; use grpo",
        ),
        (
            ["actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean"],
            "actor_rollout_ref.actor.policy_loss.loss_mode: 'geo_mean' does not train each token "
            "by its own advantage (cosine 0.126)",
        ),
        (
            [
                f"{OWN}.outcome_reward=maths",
                "reward.custom_reward_function.path=mine.py",
            ],
            "algorithm.stepcredit.outcome_reward: reward.custom_reward_function.path=mine.py gives "
            "an outcome too: remove one",
        ),
        (
            [f"{OWN}.outcome_reward=maths", f"{OWN}.format_reward=maths"],
            "algorithm.stepcredit.format_reward: maths is the outcome_reward too, so it would "
            "count twice",
        ),
        (
            [f"{OWN}.fields.weights.outcome=1", f"{OWN}.fields.weights.prm=2"],
            "algorithm.stepcredit.fields.weights.prm: no such stream: there are outcome, format",
        ),
        (
            [
                f"{OWN}.process_signal=equations",
                f"{OWN}.fields.weights.process=1",
                f"{OWN}.fields.weights.prm=2",
            ],
            "algorithm.stepcredit.fields.weights.prm: no such stream: there are process, outcome, "
            "format",
        ),
        (
            [f"{OWN}.method=grpo-process"],
            "algorithm.stepcredit.method: grpo-process needs a process stream",
        ),
        (
            [f"{OWN}.fields.k=-1"],
            "algorithm.stepcredit.fields.k: expected a number of at least 0, got -1",
        ),
    ],
)
def test_a_setting_that_loses_credit_or_counts_it_twice_is_refused(compose, overrides, line):
    with pytest.raises(EngineError) as caught:
        checked_settings(compose(*overrides))
    assert line in str(caught.value).splitlines()


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["algorithm.adv_estimator=gae"],
        [  # the reward function may return further streams
            f"{OWN}.fields.weights.prm=2",
            "reward.custom_reward_function.path=mine.py",
        ],
        ["algorithm.adv_estimator=gae", f"{OWN}.fields.chunks=sentences"],
        ["algorithm.adv_estimator=gae", f"{OWN}.fields.chunks=steps"],
        ["algorithm.adv_estimator=rloo", f"{OWN}.method=pass-min"],
        ["algorithm.adv_estimator=reinforce_plus_plus", "algorithm.use_kl_in_reward=true"],
        ["distillation.enabled=true"],
        [*TEACHER, NO_COUNT],
        [*TEACHER, NO_COUNT, "actor_rollout_ref.actor.use_kl_loss=true"],
        [
            *TEACHER[1:],
            f"{OWN}.process_signal_fields.teacher=a-folder",
            f"{OWN}.process_signal_fields.temperature=0.6",
            f"{SAMPLED_AT}=0.6",
        ],
        [f"{SAMPLED_AT}=0.6"],
        ["reward.reward_manager.name=dapo"],
        ["reward.reward_manager.name=stepcredit", f"{OWN}.process_signal=equations"],
        [
            "reward.reward_manager.source=importlib",
            "reward.reward_manager.name=StepCreditRewardManager",
            "reward.reward_manager.module.path=pkg://stepcredit.engines.verl.reward_manager",
            f"{OWN}.process_signal=equations",
        ],
        ["algorithm.rollout_correction.bypass_mode=true"],
        ["algorithm.norm_adv_by_std_in_grpo=false", f"{OWN}.method=dr-grpo"],
    ],
)
def test_what_credit_survives_is_taken(compose, overrides):
    assert checked_settings(compose(*overrides)).estimator is not None


@pytest.mark.parametrize("name", sorted(POLICY_LOSS_REGISTRY))
def test_of_verls_losses_one_alone_trains_by_the_mean_advantage(compose, name):
    loss = "actor_rollout_ref.actor.policy_loss"
    actor = compose(f"{loss}.loss_mode={name}", f"{loss}.dro_beta=0.1").actor_rollout_ref.actor
    if name != "geo_mean":
        check_policy_loss(actor)
        return
    with pytest.raises(EngineError, match="'geo_mean' does not train each token"):
        check_policy_loss(actor)


def test_a_loss_that_fails_when_tried_is_named(compose):
    actor = compose("actor_rollout_ref.actor.policy_loss.loss_mode=dro").actor_rollout_ref.actor
    with pytest.raises(EngineError) as caught:
        check_policy_loss(actor)
    line = "actor_rollout_ref.actor.policy_loss.loss_mode: 'dro' fails on two example responses: "
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"])
def test_every_way_of_adding_up_the_loss_keeps_token_credit(compose, mode):
    check_policy_loss(
        compose(f"actor_rollout_ref.actor.loss_agg_mode={mode}").actor_rollout_ref.actor
    )


def test_methods_that_fuse_streams_take_verls_own_advantage():
    check_engine(sc.PASS(scope="process", weights=(0.0, 1.0, 0.0)), "gae")
    check_engine(sc.estimator("pass-min"), "gae")
    with pytest.raises(EngineError) as caught:
        check_engine(sc.PASS(weights=(1.0, 0.0, 1.0)), "gae")
    line = "algorithm.adv_estimator: 'pass' does not read gae's advantage; use grpo"
    assert str(caught.value) == line


def test_a_verl_outside_the_range_is_told_of_and_a_missing_hook_refused(monkeypatch):
    check_trainer_hooks(PPOTrainerSync, transfer_queue)
    monkeypatch.setattr(verl, "__version__", "0.10.0")
    told = r"^verl 0.10.0 is outside the range tested, >=0.9.1,<0.10$"
    with pytest.warns(UserWarning, match=told):
        check_trainer_hooks(PPOTrainerSync, transfer_queue)
    monkeypatch.setattr(verl, "__version__", "0.9.1")
    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", lambda self, data: data)
    with pytest.raises(EngineError) as caught:
        check_trainer_hooks(PPOTrainerSync, transfer_queue)
    line = "_compute_advantage: verl 0.9.1 has (self, data), expected (self, batch, metrics)"
    assert str(caught.value) == line


def test_a_loss_of_the_users_own_is_tried_as_verls_are(compose, tmp_path, monkeypatch):
    source = (
        "from verl.trainer.ppo.core_algos import register_policy_loss\n"
        "@register_policy_loss('by_the_mean')\n"
        "def loss(log_prob, advantages, **rest):\n"
        "    return -(advantages.mean(1, keepdim=True) * log_prob).sum(), {}\n"
    )
    (tmp_path / "a_loss_of_ones_own.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    overrides = (
        "actor_rollout_ref.model.external_lib=a_loss_of_ones_own",
        "actor_rollout_ref.actor.policy_loss.loss_mode=by_the_mean",
    )
    try:
        with pytest.raises(EngineError, match="'by_the_mean' does not train each token"):
            checked_settings(compose(*overrides))
    finally:
        POLICY_LOSS_REGISTRY.pop("by_the_mean", None)


def test_a_queue_without_the_functions_is_refused():
    with pytest.raises(EngineError) as caught:
        check_trainer_hooks(PPOTrainerSync, object())
    assert str(caught.value) == "transfer_queue.kv_batch_get: the queue has no such function"
