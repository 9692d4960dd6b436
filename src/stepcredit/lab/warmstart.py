"""The warm start: supervised training on worked problems, stopped at a target accuracy."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stepcredit.errors import StepCreditError
from stepcredit.keys import keyed_generator
from stepcredit.lab.environment import Environment
from stepcredit.lab.evaluate import Evaluation, evaluate
from stepcredit.lab.model import build_model
from stepcredit.lab.task import Task, task_named
from stepcredit.lab.warm_settings import WarmStartSettings
from stepcredit.signals.models.checkpoints import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["FIGURES", "Report", "WarmStartSettings", "warm_start"]

FIGURES = "warm_start.json"


Report = Callable[[int, int, Evaluation | None], None]


def warm_start(
    settings: WarmStartSettings | None = None,
    cache_dir: str | os.PathLike[str] = "cache/warmstart",
    report: Report | None = None,
) -> Path:
    """A checkpoint that solves about two in five problems; it is trained once and cached.

    Args:
        settings: the settings; `WarmStartSettings()` if absent.
        cache_dir: folder of the checkpoints, one per hash of settings.
        report: called with (supervised step, largest number of steps, newest check or None).

    Returns:
        Folder of the checkpoint: `AutoModelForCausalLM` and `AutoTokenizer` load it, and
        `warm_start.json` in it holds the settings and figures. It is written atomically.

    Raises:
        StepCreditError: pass@1 jumps from below the floor to above the ceiling, or never reaches
            the target.
        MissingExtra: transformers is not installed.

    Example:
        >>> WarmStartSettings(seed=1).key() == WarmStartSettings(seed=1).key()
        True
    """
    settings = settings or WarmStartSettings()
    folder = Path(cache_dir) / settings.key()
    if (folder / FIGURES).is_file():
        return folder
    started = time.perf_counter()
    task = task_named(settings.task, settings.task_fields)
    tokenizer = task.build_tokenizer()
    model, step, found = _imitate(task, tokenizer, settings, report or (lambda *_: None))
    figures = {
        "settings": asdict(settings),
        "steps": step,
        "seconds": round(time.perf_counter() - started, 1),
        "check": found.as_dict(),
    }
    _publish(folder, model, tokenizer, figures)
    return folder


def _imitate(
    task: Task, tokenizer: PreTrainedTokenizerFast, settings: WarmStartSettings, report: Report
) -> tuple[PreTrainedModel, int, Evaluation]:
    """Train until a check reaches the target."""
    from stepcredit.lab.packed import without_padding

    model = without_padding(build_model(tokenizer, settings.model, settings.seed)).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))
    averaged = cast("PreTrainedModel", average.module)
    schedules = [_warmed_up(optimizer, settings) for optimizer in _optimizers(model, settings)]
    generator = keyed_generator(settings.seed, "demonstrations")
    source = task.demonstrated(generator)
    checked = task.problems(settings.check_problems, "check")
    before: _Check | None = None
    for step in range(1, settings.max_steps + 1):
        pairs = [
            (prompt, task.demonstration(prompt, generator, settings.filler, settings.early_stop))
            for prompt in islice(source, settings.batch_size)
        ]
        _step(model, tokenizer, schedules, pairs, task.environment)
        average.update_parameters(model)
        if step >= settings.check_from and step % settings.check_every == 0:
            samples, seed = settings.check_samples, settings.seed
            found = evaluate(
                averaged, tokenizer, checked, samples, seed, task.max_new_tokens, task=task
            )
            if found.pass_at_1.mean >= settings.target:
                return _in_band(averaged, _Check(step, found, {}), before, settings)
            weights = {name: value.clone() for name, value in averaged.state_dict().items()}
            before = _Check(step, found, weights)
        report(step, settings.max_steps, before.found if before else None)
    reason = f"not reached in {settings.max_steps} supervised steps"
    raise StepCreditError(reason, field=f"pass@1 {settings.target}")


def _optimizers(model: PreTrainedModel, settings: WarmStartSettings) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for the matrices of the layers and AdamW for the others."""
    rate = settings.matrix_learning_rate
    if rate is None:
        return [torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)]
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, weights in model.named_parameters():
        (matrices if ".layers." in name and weights.ndim == 2 else others).append(weights)
    return [torch.optim.AdamW(others, lr=settings.learning_rate), _muon(matrices, rate)]


def _warmed_up(optimizer: torch.optim.Optimizer, settings: WarmStartSettings) -> LambdaLR:
    """The optimizer's learning rate, rising to its full value over the warm-up."""
    return LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / settings.warmup_steps))


def _muon(matrices: list[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Muon, with updates of the size of AdamW's."""
    if not hasattr(torch.optim, "Muon"):
        raise StepCreditError("Muon needs torch 2.9 or newer", field="matrix_learning_rate")
    return torch.optim.Muon(
        matrices, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )


@dataclass(frozen=True)
class _Check:
    """One check: its step, its result, and the weights that were checked."""

    step: int
    found: Evaluation
    weights: dict[str, torch.Tensor]


def _in_band(
    model: PreTrainedModel, now: _Check, before: _Check | None, settings: WarmStartSettings
) -> tuple[PreTrainedModel, int, Evaluation]:
    """The check that reached the target, or the one before it if that was above the ceiling."""
    if now.found.pass_at_1.mean <= settings.ceiling:
        return model, now.step, now.found
    if before is None or before.found.pass_at_1.mean < settings.floor:
        band = f"{settings.floor} to {settings.ceiling}"
        reason = f"jumped over at step {now.step} to {now.found.pass_at_1.mean:.3f}"
        raise StepCreditError(f"{reason}: check earlier or more often", field=f"pass@1 {band}")
    model.load_state_dict(before.weights)
    return model, before.step, before.found


def _step(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    schedules: list[LambdaLR],
    pairs: list[tuple[str, str]],
    environment: Environment | None,
) -> None:
    """One optimizer step on the cross entropy of the tokens that a policy would write."""
    texts = [prompt + completion for prompt, completion in pairs]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    prompt_ids = tokenizer([prompt for prompt, _ in pairs]).input_ids
    prompt_ends = torch.tensor([len(ids) for ids in prompt_ids])[:, None]
    positions = torch.arange(batch["input_ids"].shape[1])
    learned = (positions >= prompt_ends) & batch["attention_mask"].bool()
    if environment is not None:
        learned &= _own_tokens(batch["input_ids"], prompt_ids, tokenizer, environment)
    labels = batch["input_ids"].masked_fill(~learned, -100)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    model.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for schedule in schedules:
        schedule.optimizer.step()
        schedule.step()


def _own_tokens(
    ids: torch.Tensor,
    prompt_ids: list[list[int]],
    tokenizer: PreTrainedTokenizerFast,
    environment: Environment,
) -> torch.Tensor:
    """(row, token) bool: False on the tokens of tools."""
    own = torch.ones_like(ids, dtype=torch.bool)
    for row, (numbers, prompt) in enumerate(zip(ids.tolist(), prompt_ids, strict=True)):
        tokens = tokenizer.convert_ids_to_tokens(numbers[len(prompt) :])
        own[row, len(prompt) :] = torch.tensor(environment.policy_tokens(tokens))
    return own


def _publish(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    figures: dict[str, object],
) -> None:
    """Write a checkpoint to a temporary folder, then move it to its place in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with quiet_transformers():
            model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / FIGURES).write_text(json.dumps(figures, indent=2) + "\n")
        if not (folder / FIGURES).is_file():
            draft.chmod(0o755)
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
