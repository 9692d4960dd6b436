"""Rows of verl's queue, made by hand: what its agent loop, reward loop and workers put there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from torch import Tensor


class Made:
    """Six responses to two prompts, a tool's tokens in two of them, and two rows of padding."""

    UIDS = ("b7", "a1", "b7", "a1", "a1", "b7")
    MASKS = (
        [1, 1, 1, 1, 1, 1],
        [1, 1, 0, 0, 1, 1, 1, 1],
        [1, 1, 1],
        [1, 0, 0, 1],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 0, 0],
    )
    ENDS = ([1, 5], [1, 3, 6, 7], [2], [0, 2, 3], [0, 4], [2, 3, 5])
    OUTCOMES = (1.0, 0.0, 0.0, 1.0, 0.5, 1.0)
    PADDING_UID = "padded"
    MARKED: ClassVar[dict[str, Any]] = {"stepcredit_train": torch.ones(8, 1, dtype=torch.bool)}
    """The mark that the trainer sets on prompts, as the queue has it: `queue(extras, **MARKED)`."""

    @staticmethod
    def scores_of(row: int) -> list[float]:
        """A score a step of a row, all different."""
        return [
            round(0.37 * (row + 1) * (step + 1) % 1.0, 4) for step in range(len(Made.ENDS[row]))
        ]

    @staticmethod
    def nested(rows: list[Any], dtype: torch.dtype) -> Tensor:
        """One row a response, as the queue gives them back."""
        tensors = [torch.tensor(row, dtype=dtype) for row in rows]
        return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)

    @staticmethod
    def queue(extras: list[dict[str, Any]], **changes: Any) -> tuple[dict[str, Any], list, list]:
        """Fields, keys and tags of six responses to two prompts and two rows of padding.

        Args:
            extras: each response's `reward_extra_info`.
            changes: further fields, or others.
        """
        rewards = [
            [0.0] * (len(mask) - 1) + [r] for mask, r in zip(Made.MASKS, Made.OUTCOMES, strict=True)
        ]
        prompts = [[row + 2] * (row + 1) for row in range(len(Made.UIDS))]
        responses = [list(range(10, 10 + len(mask))) for mask in Made.MASKS]
        fields = {
            "uid": [*Made.UIDS, Made.PADDING_UID, Made.PADDING_UID],
            "response_mask": Made.nested([*Made.MASKS, [0], [0]], torch.int64),
            "rm_scores": Made.nested([*rewards, [0.0], [0.0]], torch.float32),
            "prompts": Made.nested([*prompts, [1, 1, 1], [1, 1, 1]], torch.int64),
            "responses": Made.nested([*responses, [1], [1]], torch.int64),
            "extra_fields": [
                {"reward_extra_info": extra} for extra in [*extras, extras[0], extras[0]]
            ],
            **changes,
        }
        sessions = [f"{uid}_{row}_0" for row, uid in enumerate(Made.UIDS)]
        keys = [*sessions, f"{Made.PADDING_UID}_0_0", f"{Made.PADDING_UID}_1_0"]
        tags = [{"is_padding": row >= len(Made.UIDS)} for row in range(len(keys))]
        return fields, keys, tags

    @staticmethod
    def step_extras() -> list[dict[str, Any]]:
        """A process signal of steps: ends count all tokens, a tool's included."""
        return [
            {"step_ends": ends, "step_scores": Made.scores_of(row)}
            for row, ends in enumerate(Made.ENDS)
        ]


@pytest.fixture
def made() -> type[Made]:
    """What rows are made of, and the maker of a queue's answer."""
    return Made


BASE = (
    "algorithm.adv_estimator=grpo",
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "data.max_response_length=8",
    "trainer.logger=[]",
)
"""What verl's own defaults leave open, or set to a GPU's taste."""


ON_CPU = Path(__file__).with_name("on_cpu")
"""Modules that processes of Ray import: a platform for a CPU, an actor, scripted rollouts."""


@pytest.fixture(scope="session")
def compose() -> Callable[..., Any]:
    """A maker of verl's whole config: `compose("key.of.it=value", "+new.key=value")`."""
    pytest.importorskip("verl", reason="needs verl, in an environment of its own")
    from hydra import compose as composed
    from hydra import initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        base = composed("ppo_trainer", [*BASE])
    OmegaConf.set_struct(base, False)

    def make(*overrides: str) -> Any:
        given = OmegaConf.from_dotlist([override.removeprefix("+") for override in overrides])
        config = OmegaConf.merge(base, given)
        OmegaConf.set_struct(config, True)
        return config

    return make


@pytest.fixture(scope="module")
def transfer_queue() -> Iterator[ModuleType]:
    """verl's queue on a local Ray, without a dashboard, whose processes train on the CPU."""
    pytest.importorskip("verl", reason="needs verl, in an environment of its own")
    import ray
    import transfer_queue as queue
    from omegaconf import OmegaConf

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VERL_PLATFORM", "cpu")
        environment.setenv("VERL_ENGINE_DEVICE", "cuda")
        environment.setenv("VERL_USE_EXTERNAL_MODULES", "stepcredit_cpu_platform")
        environment.setenv("TRANSFER_QUEUE_ENABLE", "1")
        environment.setenv("OMP_NUM_THREADS", "1")
        environment.setenv("PYTHONPATH", str(ON_CPU), prepend=os.pathsep)
        ray.init("local", num_cpus=16, include_dashboard=False, log_to_driver=False)
    backend = {"storage_backend": "SimpleStorage", "SimpleStorage": {"num_data_storage_units": 1}}
    queue.init(OmegaConf.create({"backend": backend}))
    yield queue
    queue.close()
    ray.shutdown()
