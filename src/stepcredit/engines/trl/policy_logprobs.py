"""The policy's own log-probs and its reference's, for the signals and methods made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing

import stepcredit as sc
from stepcredit.errors import EngineError
from stepcredit.signals.models.ratios import LogRatio, log_ratios, models_from_rows
from stepcredit.signals.signal import Signal

POLICY, REFERENCE = "student", ("base", "ref")
OF_IMAGES = (
    *("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes"),
    *("num_tiles", "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
)


def needed_models(estimator: sc.Estimator, process_signal: Any, logprobs: Any) -> frozenset[str]:
    """Which of the policy's and the reference's log-probs the trainer must compute.

    These are the ones that a signal reads from the rows, and those that the method is made of and
    no signal gives. A callable for `logprobs` gives all that the method needs.

    Args:
        estimator: the method.
        process_signal, logprobs: as the trainer takes them.

    Returns:
        Any of "student", "base" and "ref".

    Raises:
        EngineError: the method needs another model's, and no signal gives them.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> sorted(needed_models(sc.PASS(), signal("g-opd", teacher="a", base=None), None))
        ['base', 'student']
    """
    models = set(estimator.reads.logprobs)
    if logprobs is None or isinstance(logprobs, Mapping):
        models -= (logprobs or {}).keys()
    else:
        models = set()
    for name in sorted(models - {POLICY, *REFERENCE}):
        reason = f"{estimator.name} is made of the {name}'s log-probs: name a signal of them"
        raise EngineError(reason, field=f"logprobs.{name}")
    read = models_from_rows(process_signal) | models_from_rows(logprobs)
    return frozenset((models | read) & {POLICY, *REFERENCE})


def check_models(trainer: Any, models: frozenset[str]) -> None:
    """Refuse log-probs that the trainer can't compute, or that are at different temperatures.

    Args:
        trainer: TRL's.
        models: what `needed_models` returned.

    Raises:
        EngineError: names the setting.
    """
    for name in sorted(models & {*REFERENCE}):
        if trainer.beta == 0:
            reason = f"0.0 loads no reference, whose log-probs are the {name}'s: set it above 0"
            raise EngineError(f"{reason}, or name a signal", field="beta")
        if trainer.mask_truncated_completions:
            reason = f"True hides truncated responses from the reference, the {name}'s log-probs"
            raise EngineError(f"{reason}; leave it off", field="mask_truncated_completions")
    if POLICY not in models:
        return
    own = float(trainer.temperature)
    for name, temperature in _temperatures(trainer):
        if temperature != own:
            reason = f"{own:g}, but {name} takes log-probs at {temperature:g}: set both alike"
            raise EngineError(reason, field="temperature")


def _temperatures(trainer: Any) -> Iterator[tuple[str, float]]:
    """The temperature of the log-probs that are compared with the policy's, and whose they are."""
    for ratio in log_ratios(trainer.process_signal):
        if POLICY in models_from_rows(ratio):
            yield f"the signal {ratio.name}", ratio.temperature
    given = trainer.logprobs
    for name, source in given.items() if isinstance(given, Mapping) else ():
        if isinstance(source, Signal) and not isinstance(source, LogRatio):
            yield f"logprobs.{name}", float(getattr(source, "temperature", trainer.temperature))


def policy_logprobs(
    trainer: Any, output: Mapping[str, Any], lengths: Tensor, models: frozenset[str]
) -> dict[str, Tensor]:
    """(completion, token) log-probs of the models, at the temperature the policy samples at.

    The policy's are those that TRL computed for its ratio, if it did so for every token; else they
    come from one forward pass without gradient. The reference's are those that TRL computed for
    its KL.

    Args:
        trainer: TRL's.
        output: of its `_generate_and_score_completions`.
        lengths: tokens of each completion, those of tools included.
        models: any of student, base and ref.
    """
    found = {name: output["ref_per_token_logps"] for name in REFERENCE if name in models}
    if POLICY in models:
        written = torch.arange(output["completion_ids"].shape[1]) < lengths[:, None]
        seen = output["completion_mask"].bool().cpu()
        known = output.get("old_per_token_logps") if bool((seen >= written).all()) else None
        found[POLICY] = policy_forward(trainer, output, written) if known is None else known
    return {name: values.detach().float().cpu() for name, values in found.items()}


def policy_forward(trainer: Any, output: Mapping[str, Any], written: Tensor) -> Tensor:
    """The policy's log-probs of the completions' tokens, by TRL's own forward pass.

    Args:
        trainer: TRL's.
        output: of its `_generate_and_score_completions`; the prompts in it may be others.
        written: (completion, token) bool, True up to the end of each completion.

    Returns:
        (completion, token), at the temperature the policy samples at, without gradient.
    """
    ids, args = output["completion_ids"], trainer.args
    training = trainer.model.training
    size = args.per_device_train_batch_size if training else args.per_device_eval_batch_size
    checkpointing = args.gradient_checkpointing_kwargs
    with torch.no_grad(), disable_gradient_checkpointing(trainer.model, checkpointing):
        logps, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([output["prompt_ids"], ids], dim=1),
            torch.cat([output["prompt_mask"], written.to(output["prompt_mask"])], dim=1),
            ids.shape[1],
            batch_size=size,
            **{name: output[name] for name in OF_IMAGES if name in output},
        )
    return logps  # type: ignore[no-any-return]


def as_lists(logprobs: Mapping[str, Tensor], lengths: list[int]) -> dict[str, list[list[float]]]:
    """{model: one list of log-probs per completion, with one log-prob per token}."""
    return {
        name: [row[:length].tolist() for row, length in zip(values, lengths, strict=True)]
        for name, values in logprobs.items()
    }
