"""A short run whose completions depend on their place alone, to run in one process or in several.

torchrun --nproc_per_node 2 two_processes.py FOLDER
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from tests.engines.trl.on_cpu import ON_CPU
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig

import stepcredit as sc
from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.lab.arithmetic import build_tokenizer
from stepcredit.lab.model import ModelSettings, build_model
from stepcredit.signals import Regex
from stepcredit.signals.programs.checked import Program
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores, Signal

ROWS, GROUP, MINIBATCHES, GENERATIONS = 12, 4, 3, 2
STREAMS = ("program", "tokens", "mates", "mine")


def drawn(seed: str, row: int) -> list[int]:
    """A completion that shares beginnings with its group, longer in the batch's second half."""
    draws = Random(f"{seed} {row}")
    length = draws.randrange(3, 6) if row < ROWS // 2 else draws.randrange(5, 12)
    return [draws.randrange(2) for _ in range(length)]


PARTS = (5, 6)
"""Rows of one group that are the parts of one trajectory, each on another of two processes."""


def named(row: int) -> str | None:
    return "agent" if row in PARTS else None


def accuracy(completion_ids: Any, trajectory: Any, **_: Any) -> list[float]:
    pairs = zip(completion_ids, trajectory, strict=True)
    return [0.5 if name else float(sum(ids)) / 3 for ids, name in pairs]


def form(completion_ids: Any, trajectory: Any, **_: Any) -> list[float]:
    pairs = zip(completion_ids, trajectory, strict=True)
    return [1.0 if name else float(ids[-1]) for ids, name in pairs]


class Mates(Signal):
    """Step j scores how many rows of its group have the token with which the step ends."""

    grain = "steps"
    cacheable = False
    identity: ClassVar[dict[str, Any]] = {"signal": "mates"}
    scored: ClassVar[list[int]] = []
    """How many sampled responses each call scored, on this process."""

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        if all((response.name or "").startswith("completion") for response in responses):
            self.scored.append(len(responses))
        ids = [response.token_ids or () for response in responses]
        pairs = zip(responses, ids, strict=True)
        known = Counter((r.facts["group"], token) for r, own in pairs for token in set(own))
        for row, (response, own) in enumerate(zip(responses, ids, strict=True)):
            group = response.facts["group"]
            yield row, [float(known[group, own[end]]) for end in response.step_ends]


def mine(completion_ids: Any, **_: Any) -> Any:
    return [([len(ids) - 1], [float(len(ids))]) for ids in completion_ids]


def gate(completion_ids: Any, inputs: Any, **_: Any) -> list[bool]:
    pairs = zip(completion_ids, inputs, strict=True)
    return [bool(row["trajectory"]) or ids[0] == 0 for ids, row in pairs]


class Keep(TrainerCallback):
    """What the trainer credited, generation by generation."""

    trainer: Any
    rows: list[dict[str, Any]]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        batch = self.trainer.credited
        if state.global_step % MINIBATCHES == 0:
            lengths = [len(ids) for ids in batch.completion_ids]
            groups = batch.rollouts.group_index[batch.first :][: len(lengths)]
            self.rows.append(
                {
                    "ids": batch.completion_ids,
                    "prompts": batch.prompts,
                    "groups": groups.tolist(),
                    "width": batch.advantages.shape[1],
                    "advantages": [
                        row[:length].tolist()
                        for row, length in zip(batch.advantages, lengths, strict=True)
                    ],
                    "table": list(self.trainer._logs["advantages"])[-ROWS:],
                }
            )


def train(folder: Path) -> dict[str, Any]:
    """The run's record, of this process."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    tokenizer = build_tokenizer()
    program = Program(lambda r: [len(s) + r.facts["bonus"] for s in r.step_texts])
    tokens = Program(lambda r: [i / 7 for i in r.token_ids], per="tokens")
    signals = {"program": program, "tokens": tokens, "mates": Mates(), "mine": mine}

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        first = trainer.accelerator.process_index * len(prompts)
        seed = f"step {trainer.state.global_step}"
        return {
            "prompt_ids": [tokenizer(prompt).input_ids for prompt in prompts],
            "completion_ids": [drawn(seed, first + i) for i in range(len(prompts))],
            "logprobs": None,
            "trajectory": [named(first + i) for i in range(len(prompts))],
        }

    torch.manual_seed(0)
    trainer = StepCreditGRPOTrainer(
        model=build_model(tokenizer, ModelSettings(width=16, layers=1, heads=1, feed_forward=16)),
        reward_funcs=[accuracy, form],
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=MINIBATCHES * GENERATIONS,
            per_device_train_batch_size=ROWS // MINIBATCHES // processes,
            steps_per_generation=MINIBATCHES,
            gradient_accumulation_steps=1,
            num_generations=GROUP,
            max_completion_length=12,
            logging_steps=MINIBATCHES,
            **ON_CPU,
        ),
        train_dataset=Dataset.from_list([{"prompt": f"{n}+1=", "bonus": n} for n in range(9)]),
        processing_class=tokenizer,
        method=sc.PASS(weights={**dict.fromkeys(STREAMS, 0.5), "outcome": 1.0, "format": 0.3}),
        process_signal=signals,
        outcome_reward="accuracy",
        format_reward="form",
        format_gate=gate,
        splitter=Regex(pattern="1"),
        rollout_func=rollout,
        rollouts_dir=folder / "rollouts",
    )
    trainer.remove_callback(PrinterCallback)
    keep = Keep()
    keep.trainer, keep.rows = trainer, []
    trainer.add_callback(keep)
    trainer.train()
    shown = [
        {
            name: value
            for name, value in entry.items()
            if name.startswith("stepcredit/") and "/scoring_" not in name  # the clock's
        }
        for entry in trainer.state.log_history
    ]
    accelerator = trainer.accelerator
    world, rank = accelerator.num_processes, accelerator.process_index
    kept = {"generations": keep.rows, "metrics": shown, "scored": Mates.scored}
    return {"world": world, "rank": rank, **kept}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    record = train(target / "output")
    torch.save(record, target / f"rank-{record['rank']}.pt")
