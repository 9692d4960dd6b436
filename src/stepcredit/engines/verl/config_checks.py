"""Checks at start: what of verl would lose token credit or count it twice is refused, by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import verl

import stepcredit as sc
from stepcredit.credit.stages.fusion import SCALARS
from stepcredit.engines.verl.batch_credit import with_engine
from stepcredit.engines.verl.config_keys import ENGINE, PLACE, VerlSettings, logprobs_read
from stepcredit.engines.versions import warn_outside
from stepcredit.errors import EngineError, StepCreditError
from stepcredit.signals.models.ratios import log_ratios, sides_in_rows

TESTED = ("0.9.0", "0.10")
HOOKS = {
    "_compute_advantage": ("self", "batch", "metrics"),
    "_next_train_batch": ("self", "num_prompts"),
}
QUEUE = ("kv_batch_get", "kv_batch_put")
NEED_MORE = ("gdpo", "remax", "optimal_token_baseline", "tir_optimal_token_baseline")
"""Estimators of verl's that its V1 trainer does not give what they need."""
UNSCALED = ("dr-grpo", "rloo")
"""Methods that divide by no std, as `norm_adv_by_std_in_grpo=false` asks for."""
MANAGER = "stepcredit"
Refusal = tuple[str, bool, str]


def check_hooks(trainer: type, queue: Any) -> None:
    """Warn outside the tested range; refuse a trainer or queue without what is used here.

    Raises:
        EngineError: names the hook.
    """
    version = verl.__version__
    warn_outside("verl", version, TESTED)
    for name, expected in HOOKS.items():
        hook = getattr(trainer, name, None)
        found = tuple(inspect.signature(hook).parameters) if callable(hook) else ()
        if found != expected:
            reason = f"verl {version} has ({', '.join(found)}), expected ({', '.join(expected)})"
            raise EngineError(reason, field=name)
    for name in QUEUE:
        if not callable(getattr(queue, name, None)):
            raise EngineError("the queue has no such function", field=f"transfer_queue.{name}")


def check_settings(config: Any, settings: VerlSettings) -> None:
    """Refuse the settings under which advantages a token can't be honoured.

    Raises:
        EngineError: one line, beginning with the key.
    """
    for key, refused, reason in _refusals(config, settings):
        if refused:
            raise EngineError(f"{_at(config, key)!r} {reason}", field=key)
    for model in sorted(models_read(settings)):
        _check_model(config, model)
    if uses_engine(config):
        check_engine(settings.estimator, str(_at(config, "algorithm.adv_estimator")))


def uses_engine(config: Any) -> bool:
    """Whether verl's own advantage is a stream: for all its estimators but grpo.

    grpo's is the outcome's, standardized, which the methods do themselves.
    """
    return bool(_at(config, "algorithm.adv_estimator") != "grpo")


def models_read(settings: VerlSettings) -> set[str]:
    """Whose log-probs the method and the signals take from the queue."""
    own = set(getattr(settings.estimator, "models", ()))
    return own.union(*map(logprobs_read, settings.scored_in_trainer.values()))


def _refusals(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    yield from _of_estimator(config, settings)
    yield from _of_distillation(config, settings)
    yield from _of_temperature(config, settings)
    yield from _of_rewards(config, settings)


def _of_estimator(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    name, engine = str(_at(config, "algorithm.adv_estimator")), uses_engine(config)
    own = name.removeprefix("stepcredit-")
    yield (
        "algorithm.adv_estimator",
        name in NEED_MORE,
        "needs more than verl's V1 trainer gives it; use grpo",
    )
    yield (
        "algorithm.adv_estimator",
        own != name,
        f"is for verl's own trainers; use grpo, and {PLACE}.method={own}",
    )
    yield (
        "algorithm.norm_adv_by_std_in_grpo",
        not engine
        and settings.estimator.name not in UNSCALED
        and not _at(config, "algorithm.norm_adv_by_std_in_grpo", True),
        f"has no effect: the method standardizes; set {PLACE}.fields.operator instead",
    )
    in_reward = bool(_at(config, "algorithm.use_kl_in_reward", False))
    yield (
        "algorithm.use_kl_in_reward",
        in_reward and not engine,
        "has no effect: the outcome is the reward alone; use actor_rollout_ref.actor.use_kl_loss",
    )
    yield (
        "algorithm.use_kl_in_reward",
        in_reward and bool(models_read(settings) & {"base", "ref"}),
        "counts the reference's log-probs twice: they are in the advantages",
    )
    yield (
        "algorithm.use_pf_ppo",
        bool(_at(config, "algorithm.use_pf_ppo", False)),
        "draws rows anew, but credit is written back row by row",
    )


def _of_distillation(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    if not _at(config, "distillation.enabled", False):
        return
    loss, reads = "distillation.distillation_loss", "teacher" in models_read(settings)
    yield (
        f"{loss}.use_task_rewards",
        not _at(config, f"{loss}.use_task_rewards", True),
        "drops the policy loss, and the advantages with it; set it to true",
    )
    yield (
        f"{loss}.distillation_loss_coef",
        reads and _at(config, f"{loss}.distillation_loss_coef", 1.0) != 0,
        "counts the teacher twice: it is in the advantages; set it to 0",
    )
    yield (
        f"{loss}.loss_mode",
        reads and "topk" in str(_at(config, f"{loss}.loss_mode", "")),
        "keeps the largest log-probs, not the sampled token's; use k1",
    )


def _of_temperature(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    """verl's log-probs of policy and reference are at the temperature it samples at."""
    key = "actor_rollout_ref.rollout.temperature"
    own = _at(config, key, 1.0)
    yield (
        key,
        "teacher" in models_read(settings) and own != 1,
        "is the policy's, but verl's teacher answers at 1: set it to 1",
    )
    for ratio in log_ratios(settings.scored_in_trainer):
        told = sides_in_rows(ratio)
        yield (
            key,
            bool(told) and told < set(ratio.sides) and own != ratio.temperature,
            f"is the policy's, but {ratio.name!r} asks its models at {ratio.temperature:g}: set "
            "both alike",
        )


def _of_rewards(config: Any, settings: VerlSettings) -> Iterator[Refusal]:
    if not needs_manager(settings):
        return
    yield (
        "reward.reward_manager.name",
        not _is_manager(config),
        f"does not score what {PLACE} names; use {MANAGER}",
    )
    model, own = "reward.reward_model", _at(config, "reward.custom_reward_function.path")
    enabled = bool(_at(config, f"{model}.enable", False))
    colocated = enabled and not _at(config, f"{model}.enable_resource_pool", False)
    yield (
        f"{model}.enable",
        enabled and not own,
        f"rewards without a reward manager, which scores what {PLACE} names; leave it off",
    )
    yield (
        f"{model}.enable_resource_pool",
        colocated,
        "gives no scores beside the reward; set it to true",
    )


def _is_manager(config: Any) -> bool:
    """Whether the reward loop will run our manager, or a subclass of it."""
    from verl.trainer.ppo.reward import resolve_reward_manager_cls

    from stepcredit.engines.verl.reward_manager import StepCreditRewardManager

    if is_default_manager(config):
        return True  # the trainer puts ours in its place
    return issubclass(resolve_reward_manager_cls(config), StepCreditRewardManager)


def is_default_manager(config: Any) -> bool:
    """Whether the reward manager is the one that verl's config comes with."""
    given = config.reward.reward_manager
    return bool((given.source, given.name) == ("register", "naive"))


def needs_manager(settings: VerlSettings) -> bool:
    """Whether anything is asked for that the reward loop's manager of stepcredit computes."""
    rewards = (settings.outcome_reward, settings.format_reward)
    return bool(settings.scored_with_rewards) or any(each is not None for each in rewards)


def _check_model(config: Any, model: str) -> None:
    """Refuse a method or signal made of log-probs that will not be in the queue."""
    actor = "actor_rollout_ref.actor.use_kl_loss"
    kept = _at(config, actor, False) or _at(config, "algorithm.use_kl_in_reward", False)
    missing = {
        "teacher": (
            not _at(config, "distillation.enabled", False),
            "set distillation.enabled=true and distillation.distillation_loss"
            ".distillation_loss_coef=0",
        ),
        "base": (not kept, f"set {actor}=true (its kl_loss_coef may be 0)"),
        "ref": (not kept, f"set {actor}=true (its kl_loss_coef may be 0)"),
        "prm": (True, "verl has none; use the signal 'implicit' with its own models"),
    }
    absent, remedy = missing.get(model, (False, ""))
    if absent:
        raise EngineError(f"reads {model}_logprobs: {remedy}", field=PLACE)


def check_engine(estimator: sc.Estimator, name: str) -> None:
    """Refuse a method that takes no ready-made advantages, where verl's own are one of its streams.

    It is run on two made-up responses, with verl's advantages and with none.

    Raises:
        EngineError: names verl's estimator.
    """
    fused = with_engine(estimator)
    found = []
    for size in (1.0, 0.0):
        own = sc.TokenAdvantages([[size, -size], [-size, 2 * size]])
        steps = sc.Steps(ends=[[0, 1], [0, 1]], scores=[[0.0, 0.0], [0.0, 0.0]])
        signals = [name for name in getattr(fused, "weights", ()) if name not in SCALARS]
        streams = {**dict.fromkeys(signals or ["process"], steps), ENGINE: own}
        rollouts = sc.Rollouts(
            [0, 0],
            lengths=[2, 2],
            process=streams,
            outcome=[1.0, 0.0],
            tokens=[["So.", " 5."], ["So.", " 6."]],
        )
        try:
            found.append(fused(rollouts).packed())
        except StepCreditError as error:
            reason = f"{estimator.name!r} can't take {name}'s advantage ({error}); use grpo"
            raise EngineError(reason, field="algorithm.adv_estimator") from error
    if torch.equal(*found):
        reason = f"{estimator.name!r} does not read {name}'s advantage; use grpo"
        raise EngineError(reason, field="algorithm.adv_estimator")


def check_loss(actor: Any) -> None:
    """Refuse a policy loss that does not multiply each token's log-prob by its own advantage.

    verl's loss is run once on two made-up responses. At ratio 1 the gradient by the log-probs of a
    row must point along minus the advantages of the row.

    Args:
        actor: verl's `actor_rollout_ref.actor`, as a config or its dataclass.

    Raises:
        EngineError: names the loss.
    """
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.utils.config import omega_conf_to_dataclass

    settings = omega_conf_to_dataclass(actor)
    name = settings.policy_loss.get("loss_mode", "vanilla")
    logps = torch.full((2, 3), -1.0, requires_grad=True)
    advantages = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 0.25, 3.0]])
    field = "actor_rollout_ref.actor.policy_loss.loss_mode"
    try:
        loss, _ = get_policy_loss_fn(name)(
            old_log_prob=logps.detach(),
            log_prob=logps,
            advantages=advantages,
            response_mask=torch.ones(2, 3),
            loss_agg_mode=settings.loss_agg_mode,
            config=settings,
            rollout_is_weights=None,
        )
    except Exception as error:  # whatever a loss of verl's or of the user's may raise
        reason = f"{name!r} fails on two made-up responses: {type(error).__name__}: {error}"
        raise EngineError(reason, field=field) from error
    (gradient,) = torch.autograd.grad(loss, logps)
    along = torch.nn.functional.cosine_similarity(gradient, -advantages, dim=1)
    if not bool((along > 1 - 1e-4).all()):
        reason = f"{name!r} does not train each token by its own advantage"
        raise EngineError(f"{reason} (cosine {float(along.min()):.3f})", field=field)


def _at(config: Any, path: str, default: Any = None) -> Any:
    """The value under a dotted path; the default where it, or a part of the path, is not there."""
    for name in path.split("."):
        if not isinstance(config, Mapping) or config.get(name) is None:
            return default
        config = config[name]
    return config
