"""Checks at start: refuse settings of verl under which token credit is lost or counted twice."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import verl
from torch import Tensor

import stepcredit as sc
from stepcredit.engines.build import check_known_streams, check_states
from stepcredit.engines.known_environments import supported_range
from stepcredit.engines.loss_probe import check_token_loss
from stepcredit.engines.method_probe import check_shape
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.scoring_costs import has_judge, has_server
from stepcredit.engines.verl.batch_credit import with_engine
from stepcredit.engines.verl.config_keys import (
    CONFIG_KEY,
    ENGINE_STREAM,
    VerlSettings,
    check_one_outcome,
    value_at,
)
from stepcredit.engines.verl.metric_names import EARLY, OF_VERL, is_early, safe_name
from stepcredit.engines.versions import warn_outside
from stepcredit.engines.watch import CostStreams, check_watched, every_stream
from stepcredit.errors import EngineError
from stepcredit.signals.models.ratios import log_ratios, models_from_rows
from stepcredit.signals.models.self_teacher import SelfTeacher

TESTED_VERSIONS = supported_range("verl")
HOOKS = {
    "_compute_advantage": ("self", "batch", "metrics"),
    "_next_train_batch": ("self", "num_prompts"),
    "_load_checkpoint": ("self",),
    "_save_checkpoint": ("self",),
    "_val_metrics_update": (
        *("self", "data_sources", "sample_uids", "reward_extra_infos_dict"),
        *("sample_turns", "expected_acc_counts"),
    ),
    "step": ("self", "metrics", "timing_raw"),
    "_compute_metrics": ("self", "batch", "metrics", "timing_raw", "global_steps", "epoch"),
}
QUEUE_FUNCTIONS = ("kv_batch_get", "kv_batch_put")
UNSUPPORTED_ESTIMATORS = ("gdpo", "remax", "optimal_token_baseline", "tir_optimal_token_baseline")
"""Estimators of verl's that need more data than its V1 trainer passes to them."""
MANAGER = "stepcredit"
Refusal = tuple[str, bool, str]

LOOPS_WITHOUT_STATES = ("single_turn_agent", "tool_agent")
"""verl's own agent loops, which put no states into the `extra_fields` of their outputs."""


def check_trainer_hooks(trainer: type, queue: Any) -> None:
    """Warn about an untested version of verl; refuse one that lacks what this engine uses.

    Args:
        trainer: verl's trainer class.
        queue: verl's queue, the module `transfer_queue`.

    Raises:
        EngineError: names the method or function that is missing.
    """
    version = verl.__version__
    warn_outside("verl", version, TESTED_VERSIONS)
    for name, expected in HOOKS.items():
        hook = getattr(trainer, name, None)
        parameters = tuple(inspect.signature(hook).parameters) if callable(hook) else ()
        if parameters != expected:
            reason = (
                f"verl {version} has ({', '.join(parameters)}), expected ({', '.join(expected)})"
            )
            raise EngineError(reason, field=name)
    for name in QUEUE_FUNCTIONS:
        if not callable(getattr(queue, name, None)):
            raise EngineError("the queue has no such function", field=f"transfer_queue.{name}")


def check_config(config: Any, settings: VerlSettings) -> None:
    """Refuse settings under which advantages per token have no effect or a wrong one.

    Raises:
        EngineError: one line, beginning with the key.
        SeveralErrors: several of them.
    """
    found = Preflight()
    method, given = f"{CONFIG_KEY}.method", _states_from(config, settings)
    found.run("outcome", lambda: check_one_outcome(config, settings))
    found.run("states", lambda: check_states(settings.estimator, method, given=given))
    found.run("self-teachers", lambda: _check_self_teachers(settings))
    for key, refused, reason in _refusals(config, settings):
        if refused:
            found.refuse(key, EngineError(f"{value_at(config, key)!r} {reason}", field=key))
    for model in sorted(models_read(settings)):
        found.run(f"log-probs of {model}", partial(_check_model, config, model))
    if uses_engine(config):
        name = str(value_at(config, "algorithm.adv_estimator"))
        found.run("verl's advantage", lambda: check_engine(settings.estimator, name))
    found.run("streams", lambda: _check_streams(config, settings))
    found.run("watch", lambda: _check_watch(config, settings))
    found.stop()


def _states_from(config: Any, settings: VerlSettings) -> Any:
    """What may give the states of steps: the setting, or an agent loop that is none of verl's."""
    return settings.states or own_agent_loop(config)


def own_agent_loop(config: Any) -> str | None:
    """The name of the agent loop, if it is none of verl's own.

    Args:
        config: verl's.
    """
    loop = value_at(config, "actor_rollout_ref.rollout.agent.default_agent_loop")
    return str(loop) if loop not in (None, *LOOPS_WITHOUT_STATES) else None


def _check_self_teachers(settings: VerlSettings) -> None:
    """Refuse a self-teacher that needs the policy's log-probs after another prompt."""
    for ratio in log_ratios(settings.signals):
        if isinstance(ratio, SelfTeacher) and "teacher" in models_from_rows(ratio):
            reason = (
                f"{ratio.name} needs the policy's log-probs with a context in the prompt, which"
            )
            reason = f"{reason} verl does not compute: name a teacher, such as the policy's server"
            raise EngineError(reason, field=f"{CONFIG_KEY}.process_signal")


def _check_streams(config: Any, settings: VerlSettings) -> None:
    """Refuse weights of no stream, and a method that gives no credit.

    A reward function of the user's, or another reward manager, may give further streams; they are
    known only with the first batch.
    """
    streams, key = list(settings.signals), f"{CONFIG_KEY}.fields.weights"
    ours = config.reward.reward_manager.name in (MANAGER, "naive")
    if ours and value_at(config, "reward.custom_reward_function.path") is None:
        others = [ENGINE_STREAM] if uses_engine(config) else []
        method = f"{CONFIG_KEY}.method"
        check_known_streams(settings.estimator, streams, key, others, method=method)
    check_shape(settings.estimator, streams, f"{CONFIG_KEY}.method")


def _check_watch(config: Any, settings: VerlSettings) -> None:
    """Refuse bounds on unknown metrics, and a stop by one that is known too late."""
    streams, setting = None, f"{CONFIG_KEY}.watch"
    custom = value_at(config, "reward.custom_reward_function.path")
    if custom is None and own_agent_loop(config) is None:  # else they may give further streams
        streams = [safe_name(name) for name in every_stream([*settings.signals, ENGINE_STREAM])]
    costs = _cost_streams(settings)
    check_watched(settings.watch, setting, "verl", streams, prefixes=OF_VERL, costs=costs)
    for bound in settings.watch:
        if bound.stops and not is_early(bound.metric):
            reason = f"only metrics that begin with {' or '.join(EARLY)} can stop a run: verl"
            reason += " computes this one after its checkpoint; use then: warn"
            raise EngineError(reason, field=f"{setting}.{bound.metric}")


def _cost_streams(settings: VerlSettings) -> CostStreams:
    """The streams whose scoring is measured, under the names that are logged."""
    signals = settings.signals
    judged = [safe_name(name) for name, signal in signals.items() if has_judge(signal)]
    priced = [safe_name(name) for name in settings.judge_prices]
    served = [safe_name(name) for name, signal in signals.items() if has_server(signal)]
    return CostStreams([safe_name(name) for name in signals], judged, priced, served)


def uses_engine(config: Any) -> bool:
    """Whether verl's own advantage replaces the outcome: for all of verl's estimators but grpo.

    grpo's advantage is the standardized outcome, which the method computes itself.
    """
    return bool(value_at(config, "algorithm.adv_estimator") != "grpo")


def models_read(settings: VerlSettings) -> set[str]:
    """The models whose log-probs the method and the signals take from the queue."""
    return {*settings.estimator.reads.logprobs, *models_from_rows(settings.scored_in_trainer)}


def _refusals(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    yield from _refusals_of_estimator(config, settings)
    yield from _refusals_of_distillation(config, settings)
    yield from _refusals_of_temperature(config, settings)
    yield from _refusals_of_rewards(config, settings)


def _refusals_of_estimator(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    name, engine = str(value_at(config, "algorithm.adv_estimator")), uses_engine(config)
    method = name.removeprefix("stepcredit-")
    yield (
        "algorithm.adv_estimator",
        name in UNSUPPORTED_ESTIMATORS,
        "needs more than verl's V1 trainer gives it; use grpo",
    )
    yield (
        "algorithm.adv_estimator",
        method != name,
        f"is for verl's other trainers; use grpo, and {CONFIG_KEY}.method={method}",
    )
    yield (
        "algorithm.norm_adv_by_std_in_grpo",
        not engine
        and settings.estimator.standardizes
        and not value_at(config, "algorithm.norm_adv_by_std_in_grpo", True),
        f"has no effect: {settings.estimator.name!r} divides by the standard deviation; choose "
        f"another method, or another {CONFIG_KEY}.fields.operator",
    )
    in_reward = bool(value_at(config, "algorithm.use_kl_in_reward", False))
    yield (
        "algorithm.use_kl_in_reward",
        in_reward and not engine,
        "has no effect: the outcome is only the reward; use actor_rollout_ref.actor.use_kl_loss",
    )
    yield (
        "algorithm.use_kl_in_reward",
        in_reward and bool(models_read(settings) & {"base", "ref"}),
        "counts the reference's log-probs twice: they are in the advantages",
    )
    yield (
        "algorithm.use_pf_ppo",
        bool(value_at(config, "algorithm.use_pf_ppo", False)),
        "samples the rows again, but credit is written back row by row",
    )


def _refusals_of_distillation(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    if not value_at(config, "distillation.enabled", False):
        return
    loss, reads = "distillation.distillation_loss", "teacher" in models_read(settings)
    yield (
        f"{loss}.use_task_rewards",
        not value_at(config, f"{loss}.use_task_rewards", True),
        "drops the policy loss, and the advantages with it; set it to true",
    )
    yield (
        f"{loss}.distillation_loss_coef",
        reads and value_at(config, f"{loss}.distillation_loss_coef", 1.0) != 0,
        "counts the teacher twice: it is in the advantages; set it to 0",
    )
    yield (
        f"{loss}.loss_mode",
        reads and "topk" in str(value_at(config, f"{loss}.loss_mode", "")),
        "keeps the largest log-probs, not the sampled token's; use k1",
    )


def _refusals_of_temperature(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    """verl computes log-probs of policy and reference at the temperature at which it samples."""
    key = "actor_rollout_ref.rollout.temperature"
    temperature = value_at(config, key, 1.0)
    yield (
        key,
        "teacher" in models_read(settings) and temperature != 1,
        "is the policy's temperature, but verl's teacher has 1: set it to 1",
    )
    for ratio in log_ratios(settings.scored_in_trainer):
        from_rows = models_from_rows(ratio)
        mixed = bool(from_rows) and from_rows < set(ratio.models)
        yield (
            key,
            mixed and temperature != ratio.temperature,
            f"is the policy's temperature, but the models of {ratio.name!r} have "
            f"{ratio.temperature:g}: set both to the same",
        )


def _refusals_of_rewards(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    if not needs_manager(settings):
        return
    yield (
        "reward.reward_manager.name",
        not (is_default_manager(config) or is_our_manager(config)),
        f"does not compute the scores that {CONFIG_KEY} names; use {MANAGER}",
    )
    model, custom = "reward.reward_model", value_at(config, "reward.custom_reward_function.path")
    enabled = bool(value_at(config, f"{model}.enable", False))
    colocated = enabled and not value_at(config, f"{model}.enable_resource_pool", False)
    yield (
        f"{model}.enable",
        enabled and not custom,
        f"bypasses the reward manager, which computes the scores that {CONFIG_KEY} names; set it "
        "to false",
    )
    yield (
        f"{model}.enable_resource_pool",
        colocated,
        "returns rewards without further scores; set it to true",
    )


def is_our_manager(config: Any) -> bool:
    """Whether the reward manager is stepcredit's, or a subclass of it.

    The trainer makes it so where it is the default of verl's config.
    """
    from verl.trainer.ppo.reward import resolve_reward_manager_cls

    from stepcredit.engines.verl.reward_manager import StepCreditRewardManager

    return issubclass(resolve_reward_manager_cls(config), StepCreditRewardManager)


def is_default_manager(config: Any) -> bool:
    """Whether the reward manager is the default of verl's config."""
    given = config.reward.reward_manager
    return bool((given.source, given.name) == ("register", "naive"))


def needs_manager(settings: VerlSettings) -> bool:
    """Whether a setting needs stepcredit's reward manager."""
    rewards = (settings.outcome_reward, settings.format_reward)
    return bool(settings.scored_with_rewards) or any(each is not None for each in rewards)


def _check_model(config: Any, model: str) -> None:
    """Refuse a method or signal that reads log-probs which verl will not put into the queue."""
    actor = "actor_rollout_ref.actor.use_kl_loss"
    kept = value_at(config, actor, False) or value_at(config, "algorithm.use_kl_in_reward", False)
    reference = (kept, f"set {actor}=true (its kl_loss_coef may be 0)")
    teacher = (
        value_at(config, "distillation.enabled", False),
        "set distillation.enabled=true and distillation.distillation_loss.distillation_loss_coef=0",
    )
    none = (False, "verl has none; use the signal 'implicit' with its own models")
    known = {"student": (True, ""), "teacher": teacher, "base": reference, "ref": reference}
    available, remedy = known.get(model, none)
    if not available:
        raise EngineError(f"reads {model}_logprobs: {remedy}", field=CONFIG_KEY)


def check_engine(estimator: sc.Estimator, name: str) -> None:
    """Refuse a method that can't use verl's own advantage as one of its streams.

    Args:
        estimator: the method.
        name: verl's estimator, for errors.

    Raises:
        EngineError: the method weighs no process streams, reads no ready-made advantages, or gives
            the outcome, which verl's advantage replaces, no weight.
    """
    reads = with_engine(estimator).reads
    if not (reads.ready_made and (reads.weights or {}).get(ENGINE_STREAM)):
        reason = f"{estimator.name!r} does not read {name}'s advantage; use grpo"
        raise EngineError(reason, field="algorithm.adv_estimator")


def check_policy_loss(actor: Any) -> None:
    """Refuse a policy loss of verl's or of the user's that fails `check_token_loss`.

    Args:
        actor: verl's `actor_rollout_ref.actor`, as a config or its dataclass.

    Raises:
        EngineError: names the loss.
    """
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.utils.config import omega_conf_to_dataclass

    settings = omega_conf_to_dataclass(actor)
    name = settings.policy_loss.get("loss_mode", "vanilla")

    def loss(logps: Tensor, advantages: Tensor) -> Tensor:
        value: Tensor
        value, _ = get_policy_loss_fn(name)(
            old_log_prob=logps.detach(),
            log_prob=logps,
            advantages=advantages,
            response_mask=torch.ones_like(advantages),
            loss_agg_mode=settings.loss_agg_mode,
            config=settings,
            rollout_is_weights=None,
        )
        return value

    check_token_loss(loss, name, "actor_rollout_ref.actor.policy_loss.loss_mode")
