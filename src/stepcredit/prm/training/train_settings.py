"""The settings of training a process reward model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.prm.protocol import Protocol, build_protocol
from stepcredit.settings.fields import (
    check_fields,
    choice,
    declare,
    flag,
    is_instance,
    is_seed,
    number,
    whole,
)

HEAD, RIGHT_CLASS = "classes", 1
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class PRMTrainSettings:
    """How a process reward model is trained.

    Args:
        protocol: how questions and steps are laid out and where a step is read; one with a head of
            two classes, such as `token-classifier` or `pure`.
        protocol_settings: the protocol's own fields, such as {"separator": "\\n\\n"}.
        epochs, max_steps: passes over the rows, or the exact number of updates.
        learning_rate, warmup, schedule, weight_decay: settings of AdamW; `warmup` is a share of the
            updates.
        batch_tokens: the most tokens in one batch, padding included.
        accumulate: batches per update; all their steps count equally, as in one large batch.
        label_smoothing: e in the target 1 - e/2 of a right step and e/2 of a wrong one.
        mask_after_error: train only on the steps up to the first error of a solution.
        max_length: longest input trained on, in tokens; the model's context if null.
        overlong: `refuse` a longer solution, or `cut` it to the steps that fit.
        precision: number format of the arithmetic and of the saved weights; the weights are
            float32 during training.
        checkpoint_every: updates between two checkpoints to resume from.
        seed: seed of the head, the order of the batches and the split.
        test, validation: shares of the questions on which the model is judged, and that choose the
            threshold.

    Raises:
        SettingError: a field out of range.

    Example:
        >>> PRMTrainSettings(label_smoothing=0.1).epochs
        1.0
    """

    protocol: Any = declare(
        "token-classifier",
        is_instance(str, "the name of a protocol"),
        "how questions and steps are laid out",
    )
    protocol_settings: Any = declare(
        {}, is_instance(dict, "an object"), "the protocol's own fields"
    )
    epochs: float = number(1.0, "passes over the rows", above=0)
    max_steps: int | None = whole(
        None, "number of updates, in place of epochs", at_least=1, optional=True
    )
    learning_rate: float = number(1e-5, "the highest learning rate", above=0)
    warmup: float = number(
        0.05, "share of the updates in which the learning rate rises", at_least=0
    )
    schedule: str = choice(
        "cosine", ("cosine", "linear", "constant"), "how the learning rate falls after the warm-up"
    )
    weight_decay: float = number(0.0, "weight decay of AdamW", at_least=0)
    batch_tokens: int = whole(16384, "most tokens per batch, padding included", at_least=1)
    accumulate: int = whole(1, "batches per update", at_least=1)
    label_smoothing: float = number(
        0.0, "share of the target that both classes get equally", at_least=0
    )
    mask_after_error: bool = flag(False, "no training on steps after the first error")
    max_length: int | None = whole(None, "longest input in tokens", at_least=1, optional=True)
    overlong: str = choice("refuse", ("refuse", "cut"), "what is done with longer solutions")
    precision: str = choice(
        "float32", PRECISIONS, "number format of the arithmetic and the saved weights"
    )
    checkpoint_every: int = whole(200, "updates between checkpoints", at_least=1)
    seed: int = declare(0, is_seed, "seed of the head, the order and the split")
    test: float = number(0.2, "share of the questions on which the model is judged", at_least=0)
    validation: float = number(0.1, "share of the questions that choose the threshold", at_least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("warmup", "label_smoothing"):
            if getattr(self, name) >= 1:
                reason = f"expected a number below 1, got {getattr(self, name)!r}"
                raise SettingError(reason, field=name)
        if self.test + self.validation >= 1:
            reason = f"expected test + validation below 1, got {self.test} + {self.validation}"
            raise SettingError(reason, field="test")
        if self.protocol_used.head != HEAD:
            reason = (
                f"expected a protocol with a head of two classes; {self.protocol} has another head"
            )
            raise SettingError(reason, field="protocol")

    @property
    def protocol_used(self) -> Protocol:
        """The protocol, built from its name and fields."""
        return build_protocol(self.protocol, self.protocol_settings)

    @property
    def right_class(self) -> int:
        """The class of right steps."""
        return getattr(self.protocol_used, "positive", RIGHT_CLASS)
