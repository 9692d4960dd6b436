"""Trains a two-class head and its body on examples, with transformers' Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepcredit.errors import SettingError, SignalError, first_line
from stepcredit.prm.training.examples import IGNORED, Example, batched, collated
from stepcredit.prm.training.train_settings import PRMTrainSettings
from stepcredit.signals.models.checkpoints import quiet_transformers

Report = Callable[[int, int, float | None], None]
LOSSES_LOGGED = 100
SCHEDULES = {"constant": "constant_with_warmup"}


def load_classifier(source: str, settings: PRMTrainSettings) -> Any:
    """A body with a new two-class head, or an unchanged two-class token classifier.

    Args:
        source: a folder, or a name on the Hub.
        settings: their seed is used to initialize the head.

    Returns:
        A token classifier of transformers, in float32, whose classes are named.

    Raises:
        SignalError: the model does not load, or has another number of classes.
    """
    from transformers import AutoModelForTokenClassification

    torch.manual_seed(settings.seed)
    names = {settings.right_class: "right", 1 - settings.right_class: "wrong"}
    with quiet_transformers():
        try:
            return AutoModelForTokenClassification.from_pretrained(
                source,
                num_labels=2,
                id2label=names,
                label2id={name: index for index, name in names.items()},
                dtype=torch.float32,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = f"does not load: {str(error).strip().partition(chr(10))[0]}"
            raise SignalError(reason, place=source) from error


def step_loss(
    outputs: Any,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    *,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of the labelled steps, each counting once over all batches of an update.

        loss = -sum_s [(1 - e) log p_s(y_s) + e/2 (log p_s(0) + log p_s(1))] / N

    Args:
        outputs: with `logits`, (solution, token, class).
        labels: (solution, token), -100 where no step is read.
        num_items_in_batch: N, labelled steps of the whole update; this batch's if absent.
        smoothing: e.

    Returns:
        A scalar, computed in float32.

    Source: Szegedy et al. 2016 (arXiv 1512.00567), section 7, by torch's cross entropy.
    """
    count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    total = torch.nn.functional.cross_entropy(
        outputs.logits.float().flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )
    return total / count


def fit(
    model: Any,
    examples: Sequence[Example],
    settings: PRMTrainSettings,
    checkpoints: Path,
    report: Report | None = None,
) -> list[dict[str, float]]:
    """Train a token classifier; continue from the newest checkpoint in the folder, if there is one.

    Batches hold examples of similar length. They are made once, and their order changes every
    epoch.

    Args:
        model: a token classifier; changed in place.
        examples: at least one.
        settings: the settings of the training.
        checkpoints: folder to keep checkpoints in.
        report: called with (updates done, all updates, newest loss or None).

    Returns:
        The Trainer's log: `step`, `loss`, `learning_rate`, `grad_norm` at every hundredth of
        the training.
    """
    from transformers import Trainer
    from transformers.trainer_callback import PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint

    batches = batched(examples, settings.batch_tokens)
    updates = settings.max_steps or math.ceil(
        settings.epochs * math.ceil(len(batches) / settings.accumulate)
    )
    arguments = _arguments(settings, checkpoints, updates)
    with quiet_transformers():
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=batches,  # type: ignore[arg-type]
            data_collator=lambda drawn: collated(list(chain.from_iterable(drawn))),
            compute_loss_func=partial(step_loss, smoothing=settings.label_smoothing),
            callbacks=[_reporting(report)] if report else [],
        )
        trainer.remove_callback(PrinterCallback)  # it prints the log where there is no bar
        newest = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
        trainer.train(resume_from_checkpoint=newest)
    return [row for row in trainer.state.log_history if "loss" in row]


def _arguments(settings: PRMTrainSettings, checkpoints: Path, updates: int) -> Any:
    """The settings as the Trainer takes them."""
    from transformers import TrainingArguments

    accelerators = (torch.cuda, torch.backends.mps, torch.xpu)
    try:
        return TrainingArguments(
            output_dir=str(checkpoints),
            max_steps=updates,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=settings.accumulate,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=SCHEDULES.get(settings.schedule, settings.schedule),
            warmup_steps=math.ceil(settings.warmup * updates),
            weight_decay=settings.weight_decay,
            bf16=settings.precision == "bfloat16",
            fp16=settings.precision == "float16",
            use_cpu=not any(device.is_available() for device in accelerators),
            seed=settings.seed,
            logging_steps=max(1, updates // LOSSES_LOGGED),
            save_strategy="steps",
            save_steps=settings.checkpoint_every,
            save_total_limit=1,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=True,
        )
    except ValueError as error:
        raise SettingError(first_line(error), field="precision") from error


def _reporting(report: Report) -> Any:
    """A callback of the Trainer that reports the progress."""
    from transformers import TrainerCallback

    class Reporting(TrainerCallback):
        loss: float | None = None

        def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.loss = (rest.get("logs") or {}).get("loss", self.loss)

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            report(state.global_step, state.max_steps, self.loss)

    return Reporting()
