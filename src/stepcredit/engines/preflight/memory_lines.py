"""The estimate of one GPU's memory, as a preflight prints it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stepcredit.engines.preflight.memory_estimate import GIB, TrainingPlan, estimate_memory
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.errors import StepCreditError

KEPT_FREE = 0.1
"""The part of a GPU that the estimate does not count: contexts, buffers, fragmentation."""
ASSUMED = 80 * GIB
"""The memory of a GPU where none is in this machine."""
FORMULA = (
    "  by: weights P b / G (+ 4 A), gradients T t / G, optimizer 2 T t / G, reference P b / G,",
    "      scorers 2 P each, copies of gathered or bfloat16 weights, activations and logits of",
    "      the micro-batch's tokens; the sampler takes its share of the GPU",
    "  P parameters of b bytes, T trained ones of t bytes, A of adapters, G GPUs that share them;",
    "  stepcredit.engines.preflight.memory_estimate.estimate_memory has every term",
)


def memory_of_gpu() -> int:
    """Bytes of this machine's first GPU; `ASSUMED` where it has none."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return ASSUMED


def memory_lines(found: Preflight, planned: Callable[[], TrainingPlan]) -> list[str]:
    """The estimate with its formula; where it is more than fits, a note.

    Args:
        found: gets the note.
        planned: gives the settings; may raise an error of stepcredit, which becomes the line.

    Example:
        >>> from stepcredit.engines.preflight.memory_estimate import PUBLISHED_SHAPES
        >>> shape = PUBLISHED_SHAPES["Qwen/Qwen2.5-7B-Instruct"]
        >>> found = Preflight()
        >>> lines = memory_lines(found, lambda: TrainingPlan(shape, tokens=4096, gpus=1))
        >>> found.results[0].said
        'about 133 GiB of 80 at G = 1: keep a tenth free, or the run may end without memory'
    """
    try:
        plan = planned()
        estimate = estimate_memory(plan)
    except StepCreditError as error:
        return [f"memory: not estimated: {error}"]
    size = plan.gpu_bytes / GIB
    if estimate.peak > (1 - KEPT_FREE) * plan.gpu_bytes:
        told = f"about {estimate.peak / GIB:.0f} GiB of {size:.0f} at G = {plan.gpus}"
        found.note(
            "memory of one GPU", f"{told}: keep a tenth free, or the run may end without memory"
        )
    shown = ", ".join(
        f"{name} {part / GIB:.2f}" for name, part in estimate.parts.items() if part >= GIB / 1000
    )
    assumed = "" if torch.cuda.is_available() else " (assumed: this machine has no GPU)"
    return [
        f"memory of one GPU, estimated: {estimate.sampling / GIB:.2f} GiB while sampling, "
        f"{estimate.updating / GIB:.2f} while updating, of {size:.0f}{assumed}; G = {plan.gpus}",
        f"  parts: {shown or 'each below 0.001'}",
        *FORMULA,
    ]
