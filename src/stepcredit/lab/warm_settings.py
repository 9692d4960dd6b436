"""The settings of a supervised start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stepcredit.keys import digest64
from stepcredit.lab.model import ModelSettings
from stepcredit.lab.task_registry import TASKS


@dataclass(frozen=True)
class WarmStartSettings:
    """The settings of a warm start; all of them are part of its cache key.

    Args:
        seed: seed of the weights, the demonstrations and the sampling of the checks.
        model: the sizes of the decoder.
        batch_size, learning_rate, warmup_steps: settings of the supervised steps (AdamW; the
            learning rate is constant after the warm-up).
        matrix_learning_rate: learning rate of Muon for the matrices of the layers; the other
            parameters keep AdamW. None: AdamW for all.
        averaging: decay of the moving average of the weights. This average is checked and kept,
            because the pass@1 of the weights varies by 0.1 between two steps.
        filler, early_stop: probabilities in the demonstrations (see `Task.demonstration`).
        target: training stops at the first check whose pass@1 reaches this value.
        ceiling, floor: if that check is above the ceiling, the check before it is used, and
            training fails if that one is below the floor.
        check_from, check_every: supervised steps before the first check, and between two checks.
        check_problems, check_samples: problems of a check, and sampled answers per problem.
        max_steps: training fails if the target is not reached within this number of steps.
        task, task_fields: name of the task, and its options.
    """

    seed: int = 0
    model: ModelSettings = field(default_factory=ModelSettings)
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    matrix_learning_rate: float | None = None
    averaging: float = 0.9
    filler: float = 0.12
    early_stop: float = 0.08
    floor: float = 0.35
    target: float = 0.43
    ceiling: float = 0.45
    check_from: int = 120
    check_every: int = 5
    check_problems: int = 256
    check_samples: int = 2
    max_steps: int = 600
    task: str = "arithmetic"
    task_fields: Mapping[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """Hash of the settings and the task's version; it names the cache folder."""
        task = TASKS.build(self.task, self.task_fields)
        others = {name: value for name, value in asdict(self).items() if name != "task_fields"}
        if self.matrix_learning_rate is None:  # keys from before there was this setting stay valid
            del others["matrix_learning_rate"]
        text = json.dumps({**others, "task": task.cache_key}, sort_keys=True)
        return f"{digest64(text):016x}"
