"""The settings of training a process reward model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.prm.protocol import PROTOCOLS, Protocol
from stepcredit.settings.fields import check_fields, choice, declare, flag, number, whole

HEAD, RIGHT_CLASS = "classes", 1
PRECISIONS = ("float32", "bfloat16", "float16")


def _is_name(value: Any) -> str | None:
    return None if isinstance(value, str) else "the name of a protocol"


def _is_settings(value: Any) -> str | None:
    return None if isinstance(value, dict) else "an object"


@dataclass(frozen=True)
class PRMTrainSettings:
    """How a process reward model is trained.

    Args:
        protocol: how questions and steps are laid out and where a step is read; one with a head of
            two classes, such as `token-classifier` or `pure`.
        protocol_settings: the protocol's own fields, such as {"separator": "\\n\\n"}.
        epochs, max_steps: passes over the rows, or the exact number of updates.
        learning_rate, warmup, schedule, weight_decay: of AdamW; `warmup` a share of the updates.
        batch_tokens: the most tokens in one batch, padding included.
        accumulate: batches per update; all their steps count equally, as in one large batch.
        label_smoothing: e in the target 1 - e/2 of a right step and e/2 of a wrong one.
        mask_after_error: train on steps up to the first error of a solution only.
        max_length: longest input trained on, in tokens; the model's context if null.
        overlong: `refuse` a solution that is longer, or `cut` it to the steps that fit.
        precision: of the arithmetic and of the saved weights; the weights that are trained are
            float32.
        checkpoint_every: updates between two checkpoints to resume from.
        seed: of head, order and split.
        test, validation: shares of the questions held out for figures and for the threshold.

    Raises:
        SettingError: a field out of range.

    Example:
        >>> PRMTrainSettings(label_smoothing=0.1).epochs
        1.0
    """

    protocol: Any = declare("token-classifier", _is_name, "layout and read position")
    protocol_settings: Any = declare({}, _is_settings, "the protocol's own fields")
    epochs: float = number(1.0, "passes over the rows", above=0)
    max_steps: int | None = whole(None, "exactly so many updates", at_least=1, optional=True)
    learning_rate: float = number(1e-5, "the highest", above=0)
    warmup: float = number(0.05, "share of the updates in which it rises", at_least=0)
    schedule: str = choice("cosine", ("cosine", "linear", "constant"), "how it falls after that")
    weight_decay: float = number(0.0, "of AdamW", at_least=0)
    batch_tokens: int = whole(16384, "padded tokens a batch", at_least=1)
    accumulate: int = whole(1, "batches an update", at_least=1)
    label_smoothing: float = number(0.0, "mass moved to both classes alike", at_least=0)
    mask_after_error: bool = flag(False, "no training on steps after the first error")
    max_length: int | None = whole(None, "longest input in tokens", at_least=1, optional=True)
    overlong: str = choice("refuse", ("refuse", "cut"), "what becomes of longer ones")
    precision: str = choice("float32", PRECISIONS, "of the arithmetic and the saved weights")
    checkpoint_every: int = whole(200, "updates between checkpoints", at_least=1)
    seed: int = whole(0, "of head, order and split")
    test: float = number(0.2, "share of the questions for figures", at_least=0)
    validation: float = number(0.1, "share of the questions for the threshold", at_least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("warmup", "label_smoothing"):
            if getattr(self, name) >= 1:
                reason = f"expected a number below 1, got {getattr(self, name)!r}"
                raise SettingError(reason, field=name)
        if self.test + self.validation >= 1:
            reason = f"expected with validation less than 1, got {self.test} + {self.validation}"
            raise SettingError(reason, field="test")
        if self.protocol_used.head != HEAD:
            reason = f"expected one with a head of two classes, {self.protocol} has another"
            raise SettingError(reason, field="protocol")

    @property
    def protocol_used(self) -> Protocol:
        """The protocol, built from its name and fields."""
        return PROTOCOLS.build(self.protocol, **self.protocol_settings)

    @property
    def right_class(self) -> int:
        """The class of right steps."""
        return getattr(self.protocol_used, "positive", RIGHT_CLASS)
