"""How long prompts are, and whether lengths, folders and the disk suffice for a run under TRL."""

from __future__ import annotations

import os
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from stepcredit.engines.preflight.context_lengths import (
    check_sum,
    context_length,
    has_rope,
    prompt_ids_of,
)
from stepcredit.engines.preflight.preflight_report import Preflight, first_rows
from stepcredit.engines.preflight.run_folders import (
    MOMENTS,
    check_disk,
    check_folder_writable,
    kept_checkpoints,
    size_on_disk,
)
from stepcredit.errors import EngineError

MEASURED_ROWS = 64
"""Rows whose prompts are measured where no longest prompt is set."""
LONGER = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
"""Environment variable with which vLLM takes a context longer than the model's."""
ADAM = ("adamw_torch", "adamw_torch_fused", "adamw_apex_fused")
"""Optimizers of transformers that keep Adam's two moments in the precision of the weights."""


def longest_prompt(rows: Any, tokenizer: Any, **template: Any) -> int:
    """The most tokens of the rows' prompts; 0 where they can't be told.

    Args:
        rows: a data set, of which the first rows are read.
        tokenizer: the policy's.
        template: further arguments of the chat template.
    """
    try:
        prompts = (row["prompt"] for row in first_rows(rows, MEASURED_ROWS))
        lengths = (len(prompt_ids_of(prompt, tokenizer, **template)) for prompt in prompts)
        return max(lengths, default=0)
    except Exception:  # a prompt with images, or a template that fails: other checks say so
        return 0


def trained_bytes(model: Any) -> int:
    """Bytes of all trained weights, also where DeepSpeed has shared them out."""
    trained = [each for each in model.parameters() if each.requires_grad]
    return sum(getattr(each, "ds_numel", each.numel()) * each.element_size() for each in trained)


def check_output(
    found: Preflight, args: Any, weights: int | None, *, has_own_optimizer: bool = False
) -> None:
    """Check that the run's folders can be written, and that its checkpoints fit the disk.

    Args:
        found: gets the results.
        args: the config.
        weights: bytes of the trained weights; None: not known.
        has_own_optimizer: whether the trainer was given an optimizer, which `args` do not name.
    """
    folder = str(args.output_dir)
    writable = found.run(
        "output_dir can be written", lambda: check_folder_writable(folder, "output_dir")
    )
    rollouts = getattr(args, "rollouts_dir", None)
    if rollouts is not None:
        found.run(
            "rollouts_dir can be written", lambda: check_folder_writable(rollouts, "rollouts_dir")
        )
    if writable is None or weights is None:
        found.skip("disk space", "the folder or the size of the model has a fault")
        return
    moments = 0 if args.save_only_model else MOMENTS
    optimizer = str(getattr(args.optim, "value", args.optim))
    if moments and (has_own_optimizer or optimizer not in ADAM):
        moments, name = 0, "of your own" if has_own_optimizer else optimizer
        found.note("disk space", f"the state of the optimizer {name} is not counted")
    count = checkpoints_of(args)
    found.run(
        "disk space",
        lambda: check_disk(
            folder,
            weights,
            count,
            "output_dir",
            moments=moments,
            existing=size_on_disk(Path(folder).expanduser().glob("checkpoint-*")),
        ),
    )


def checkpoints_of(args: Any) -> int:
    """How many checkpoints are on the disk at the same time, by the config.

    Args:
        args: the config.
    """
    strategy, limit = (
        str(getattr(args.save_strategy, "value", args.save_strategy)),
        args.save_total_limit,
    )
    if strategy == "epoch" and args.max_steps <= 0:
        return kept_checkpoints(ceil(args.num_train_epochs), 1, limit)
    steps = args.max_steps if args.max_steps > 0 else None
    if strategy != "steps":  # "best", or "epoch" where steps are set: how many is not known
        steps = None
    every = {"steps": args.save_steps, "best": 1, "epoch": 1}.get(strategy)
    return kept_checkpoints(steps, every, limit)


def check_policy_lengths(found: Preflight, args: Any, prompt: int, config: Any) -> None:
    """Check that a prompt and the longest completion fit the policy, and the sampler.

    A policy with RoPE computes any length, so that without vLLM a longer one is a note.

    Args:
        found: gets the results.
        args: the config.
        prompt: the most tokens of a prompt.
        config: of the policy.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    completion, setting = args.max_completion_length, "max_completion_length"
    what, limit = "lengths fit the model", context_length(text)
    if limit is not None and prompt + completion > limit and has_rope(text) and not args.use_vllm:
        found.note(what, f"{prompt} + {completion} tokens are more than the {limit} it is made for")
    elif limit is not None:
        found.run(what, partial(check_sum, prompt, completion, "the model", limit, setting))
    longest = args.vllm_max_model_length if args.use_vllm else None
    if longest is not None:
        what = "vllm_max_model_length"
        found.run(
            f"lengths fit {what}", partial(check_sum, prompt, completion, what, longest, setting)
        )
        found.run(f"{what} fits the model", partial(_check_sampled, longest, limit))


def _check_sampled(longest: int, limit: int | None) -> str:
    """What vLLM would refuse: a context longer than the model's.

    Raises:
        EngineError: names the setting.
    """
    if limit is not None and longest > limit and not os.environ.get(LONGER):
        reason = f"vLLM refuses more than the {limit} that the model is made for, unless the"
        raise EngineError(
            f"{longest} tokens: {reason} variable {LONGER} is 1", field="vllm_max_model_length"
        )
    return f"{longest} of {limit or 'any'}"
