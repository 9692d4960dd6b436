"""The mark of prompts that are sampled for training: verl does not mark those of validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

TRAINING = "stepcredit_train"
"""Field that the trainer sets on prompts sampled for training: only their steps are scored."""


def training_marks(prompts: int) -> Tensor:
    """The field of prompts that are sampled for training, one row per prompt.

    verl's queue keeps a field of rows, and a checkpoint keeps it too. A field with one value for
    all is lost when verl samples prompts again that a checkpoint left unfinished.

    Args:
        prompts: how many.

    Example:
        >>> training_marks(2)
        tensor([[True],
                [True]])
    """
    return torch.ones(prompts, 1, dtype=torch.bool)


def is_marked(value: Any) -> bool:
    """Whether a row's field is the mark, in any form in which verl passes it on.

    Args:
        value: of the field `TRAINING`; None: the row has no such field.

    Example:
        >>> [is_marked(value) for value in (torch.tensor([True]), np.array([[True]]), True, None)]
        [True, True, True, False]
    """
    return bool(np.asarray(value).any())
