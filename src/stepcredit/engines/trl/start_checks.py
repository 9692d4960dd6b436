"""Refuses, before training, settings of TRL that would lose token credit or count it twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
import trl
from torch import Tensor

import stepcredit as sc
from stepcredit.engines.known_environments import supported_range
from stepcredit.engines.loss_probe import check_token_loss
from stepcredit.engines.versions import warn_outside
from stepcredit.errors import EngineError

TESTED = supported_range("trl")
HOOKS = (
    *("_calculate_rewards", "_generate_and_score_completions", "_compute_loss"),
    *("_init_training_state", "_maybe_log_save_evaluate", "_save_checkpoint"),
)
RATIO_FREE_LOSSES = ("cispo", "vespo")


def check_hooks(trainer: type) -> None:
    """Warn about an untested version of TRL; refuse a trainer without the methods overridden here.

    Raises:
        EngineError: names the hook.
    """
    version = trl.__version__
    warn_outside("trl", version, TESTED)
    for hook in HOOKS:
        if not callable(getattr(trainer, hook, None)):
            versions = f"trl {version} with transformers {transformers.__version__}"
            reason = f"{versions} has no such method: it is the hook"
            raise EngineError(reason, field=hook)


def check_settings(args: Any, *, has_tools: bool) -> None:
    """Refuse settings under which TRL does not follow one advantage per token.

    Args:
        args: the config.
        has_tools: whether tools write some of the tokens.

    Raises:
        EngineError: one line, beginning with the setting.
    """
    for field, refused, reason in _refusals(args, has_tools):
        if refused:
            raise EngineError(f"{getattr(args, field)!r} {reason}", field=field)


def _refusals(args: Any, has_tools: bool) -> list[tuple[str, bool, str]]:
    loss = args.loss_type
    uneven = args.vespo_k_pos != args.vespo_k_neg or args.vespo_lambda_pos != args.vespo_lambda_neg
    sequence = args.importance_sampling_level == "sequence" and loss not in RATIO_FREE_LOSSES
    return [
        (
            "importance_sampling_level",
            sequence,
            "gives every token its response's mean advantage under"
            f" loss_type={loss!r}; use 'token'",
        ),
        (
            "off_policy_mask_threshold",
            args.off_policy_mask_threshold is not None,
            "masks tokens instead of responses with one advantage per token; leave it unset",
        ),
        (
            "loss_type",
            loss == "vespo" and uneven,
            "chooses k and lambda by each token's sign; set vespo_k_pos = vespo_k_neg"
            " and vespo_lambda_pos = vespo_lambda_neg",
        ),
        (
            "scale_rewards",
            args.scale_rewards != "group",
            "has no effect: the method standardizes; leave it out, and set the method's operator",
        ),
        (
            "multi_objective_aggregation",
            args.multi_objective_aggregation != "sum_then_normalize",
            "has no effect: the method adds the streams up; leave it out, and use method='gdpo'",
        ),
        (
            "reward_weights",
            args.reward_weights is not None,
            "has no effect: the method weighs the streams; leave it out, and set the method's "
            "weights, or name one reward function that returns the weighted sum",
        ),
        (
            "mask_truncated_completions",
            args.mask_truncated_completions and has_tools,
            "hides which tokens of a truncated response are a tool's; leave it off with tools",
        ),
    ]


def check_loss(trainer: Any) -> None:
    """Refuse a loss of the trainer's that fails `check_token_loss`.

    The trainer's own `_compute_loss` is run once, on two example responses.

    Raises:
        EngineError: names the loss.
    """

    def loss(logps: Tensor, advantages: Tensor) -> Tensor:
        with _made_up_forward(trainer, logps):
            value: Tensor = trainer._compute_loss(trainer.model, _made_up_batch(logps, advantages))
        return value

    check_token_loss(loss, trainer.loss_type, "loss_type", trainer.accelerator.device)


def check_reward_name(setting: str, name: str | None, known: Sequence[str]) -> None:
    """Refuse a setting that names no reward function, or more than one.

    Args:
        setting: the setting.
        name: its value; None: none is named.
        known: the names of the reward functions.

    Raises:
        EngineError: names the setting, and lists the functions.
    """
    if name is not None and name not in known:
        reason = f"no reward function {name!r}, there are: {', '.join(known)}"
        raise EngineError(reason, field=setting)
    if name is not None and known.count(name) > 1:
        reason = f"{known.count(name)} reward functions are called {name!r}: give them names of "
        raise EngineError(f"{reason}their own (`__name__`)", field=setting)


def check_format_gate(gate: Any, format_reward: str | None) -> None:
    """Refuse a gate that is a threshold where no reward function gives the format reward.

    Raises:
        EngineError: says so.
    """
    if isinstance(gate, int | float) and format_reward is None:
        reason = f"{gate:g} is a threshold of the format reward: name format_reward"
        raise EngineError(reason, field="format_gate")


def check_enough_rows(args: Any, rows: int, field: str) -> None:
    """Refuse fewer rows than a generation samples: TRL would end at step 0 without a message.

    Args:
        args: the config.
        rows: number of rows of the training set.
        field: the setting that errors name.

    Raises:
        EngineError: names the setting.
    """
    needed = args.generation_batch_size // args.num_generations
    if rows < needed:
        reason = f"{rows} rows, but a generation samples {needed} prompts: not one step would be"
        raise EngineError(f"{reason} made; lower steps_per_generation or the batch", field=field)


def check_advantages(advantages: sc.Advantages, method: str) -> None:
    """Refuse an advantage that is NaN or infinite: it would make the loss NaN, then every weight.

    Args:
        advantages: of all rollouts.
        method: the estimator's name. Our methods give no such advantage, a user's own may.

    Raises:
        EngineError: names the rollout.
    """
    if bool(advantages.packed().isfinite().all()):
        return
    rows = advantages.ragged()
    row = next(row for row, values in enumerate(rows) if not bool(values.isfinite().all()))
    reason = f"{method} gave an advantage that is not a finite number"
    raise EngineError(reason, row=row, field="method")


def _made_up_batch(logps: Tensor, advantages: Tensor) -> dict[str, Tensor]:
    ids = torch.zeros((2, 3), dtype=torch.long, device=logps.device)
    ones = torch.ones((2, 3), device=logps.device)
    return {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1] + 1,
        "completion_ids": ids,
        "completion_mask": ids + 1,
        "advantages": advantages,
        "num_items_in_batch": torch.tensor(6, device=logps.device),
        "old_per_token_logps": logps.detach().clone(),
        "ref_per_token_logps": logps.detach().clone(),
        "importance_sampling_ratio": ones,
    }


@contextmanager
def _made_up_forward(trainer: Any, logps: Tensor) -> Iterator[None]:
    """Run in evaluation mode with `logps` as the forward pass's result; restore all afterwards."""
    training = trainer.model.training
    entropy = torch.ones_like(logps).detach()
    aux = torch.zeros((), device=logps.device)
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logps, entropy, aux)
    trainer.model.eval()
    try:
        yield
    finally:
        del trainer._get_per_token_logps_and_entropies
        trainer.model.train(training)
        trainer._metrics["eval"].clear()
