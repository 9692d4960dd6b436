"""A short run of which the first process alone sees a broken bound.

torchrun --nproc_per_node 2 watched_processes.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from tests.engines.trl.on_cpu import ON_CPU
from trl import GRPOConfig

from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.engines.trl.watch_callback import WatchCallback
from stepcredit.lab.arithmetic import build_tokenizer, problems
from stepcredit.lab.model import ModelSettings, build_model


def short(completion_ids: Any, **_: Any) -> list[float]:
    return [1.0 / len(ids) for ids in completion_ids]


class OwnLengths(WatchCallback):
    """Reads a length of its own on each process, as metrics that are not gathered have one."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        first = self.trainer.accelerator.is_main_process
        values = self.trainer._metrics["train"].get("stepcredit/length")
        if values:
            values[-1] = 9.0 if first and state.global_step >= 3 else 1.0
        super().on_step_end(args, state, control, **kwargs)


if __name__ == "__main__":
    folder, tokenizer = Path(sys.argv[1]), build_tokenizer()
    torch.manual_seed(0)
    trainer = StepCreditGRPOTrainer(
        model=build_model(tokenizer, ModelSettings(width=16, layers=1, heads=1, feed_forward=16)),
        reward_funcs=[short],
        args=GRPOConfig(
            output_dir=str(folder / "output"),
            max_steps=8,
            per_device_train_batch_size=2,
            steps_per_generation=2,
            gradient_accumulation_steps=1,
            num_generations=4,
            max_completion_length=8,
            logging_steps=8,
            **ON_CPU,
        ),
        train_dataset=Dataset.from_list([{"prompt": p.prompt} for p in problems(8)]),
        processing_class=tokenizer,
        method="grpo",
        preflight=False,
        watch={"stepcredit/length": {"max": 8, "then": "stop"}},
    )
    trainer.remove_callback(WatchCallback)
    trainer.add_callback(OwnLengths(trainer, trainer.watch))
    trainer.train()
    rank = trainer.accelerator.process_index
    (folder / f"rank-{rank}.txt").write_text(str(trainer.state.global_step))
