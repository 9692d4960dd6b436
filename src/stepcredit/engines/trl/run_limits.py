"""How long prompts are, and whether lengths, folders and the disk suffice for a run under TRL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from math import ceil
from typing import Any

from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.preflight.run_folders import (
    check_disk,
    check_folder_writable,
    kept_checkpoints,
)
from stepcredit.errors import EngineError
from stepcredit.signals.chat import apply_chat_template

MEASURED_ROWS = 64
"""Rows whose prompts are measured where no longest prompt is set."""


def prompt_ids_of(prompt: str | Sequence[Any], tokenizer: Any) -> list[int]:
    """The tokens of a prompt, in the form in which the policy gets it."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    text = apply_chat_template(tokenizer, prompt, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def longest_prompt(rows: Iterable[Mapping[str, Any]], tokenizer: Any) -> int:
    """The most tokens of the rows' prompts; 0 where they can't be told."""
    try:
        few = islice(rows, MEASURED_ROWS)
        return max((len(prompt_ids_of(row["prompt"], tokenizer)) for row in few), default=0)
    except Exception:  # a prompt with images, or a template that fails: other checks say so
        return 0


def trained_bytes(model: Any) -> int:
    """Bytes of all trained weights, also where DeepSpeed has shared them out."""
    trained = [each for each in model.parameters() if each.requires_grad]
    return sum(getattr(each, "ds_numel", each.numel()) * each.element_size() for each in trained)


def check_output(found: Preflight, args: Any, weights: int | None) -> None:
    """Check that the run's folders can be written, and that its checkpoints fit the disk.

    Args:
        found: gets the results.
        args: the config.
        weights: bytes of the trained weights; None: not known.
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
    count = checkpoints_of(args)
    found.run("disk space", lambda: check_disk(folder, weights, count, "output_dir"))


def checkpoints_of(args: Any) -> int:
    """How many checkpoints are on the disk at the same time, by the config.

    Args:
        args: the config.
    """
    strategy, limit = (
        str(getattr(args.save_strategy, "value", args.save_strategy)),
        args.save_total_limit,
    )
    if strategy == "epoch":
        return kept_checkpoints(ceil(args.num_train_epochs), 1, limit)
    steps = args.max_steps if args.max_steps > 0 else None
    every = {"steps": args.save_steps, "best": args.eval_steps or 1}.get(strategy)
    return kept_checkpoints(steps, every, limit)


def check_policy_lengths(found: Preflight, args: Any, prompt: int, config: Any) -> None:
    """Check that a prompt and the longest completion fit the policy, and the sampler.

    Args:
        found: gets the results.
        args: the config.
        prompt: the most tokens of a prompt.
        config: of the policy.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limits = {"the model": getattr(text, "max_position_embeddings", None)}
    if args.use_vllm:
        limits["vllm_max_model_length"] = args.vllm_max_model_length
    for what, limit in limits.items():
        if limit is not None:
            found.run(
                f"lengths fit {what}",
                partial(_check_sum, prompt, args.max_completion_length, what, limit),
            )


def _check_sum(prompt: int, completion: int, what: str, limit: int) -> str:
    if prompt + completion > limit:
        reason = f"{completion} tokens after a prompt of {prompt} need {prompt + completion}"
        raise EngineError(f"{reason}, {what} has {limit}", field="max_completion_length")
    return f"{prompt} + {completion} of {limit}"
