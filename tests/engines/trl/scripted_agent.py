"""TRL's trainer with an agent whose turns are scripted; as a script, a run in one or two processes.

The tools, the calls' parsing and the mask are TRL's own.

torchrun --nproc_per_node 2 scripted_agent.py FOLDER
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import trl
from datasets import Dataset
from tests.engines.trl.on_cpu import ON_CPU
from tests.signals import tiny_models
from transformers import PrinterCallback

import stepcredit as sc
from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.engines.trl.config import StepCreditConfig
from stepcredit.signals.programs.checked import Program

TEMPLATE = Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja"
CALL = '<tool_call>\n{{"name": "add", "arguments": {{"a": {a}, "b": 2}}}}\n</tool_call><|im_end|>'
Script = Callable[[int, int], str]


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one.
        b: the other.
    """
    return a + b


def tokenizer() -> Any:
    """A tiny tokenizer with the chat template and the end of turn of Qwen."""
    made = copy.deepcopy(tiny_models.tokenizer())
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.add_special_tokens({"eos_token": "<|im_end|>"})
    made.chat_template = TEMPLATE.read_text()
    return made


class ScriptedTrainer(StepCreditGRPOTrainer):
    """The trainer, whose model writes what a script gives for a row of all processes and a turn."""

    script: Script

    def _generate(self, prompts: Any) -> Any:
        self.turns = [0] * len(prompts)
        self.rows: dict[int, str] = {}
        return super()._generate(prompts)

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.rows:
            chosen = list(range(len(prompt_ids)))
        else:
            chosen = [row for row in self.rows if "<tool_call>" in self.rows[row]]
        first = self.accelerator.process_index * len(self.turns)
        texts = [type(self).script(first + row, self.turns[row]) for row in chosen]
        for row in chosen:
            self.turns[row] += 1
        self.rows = dict(zip(chosen, texts, strict=True))
        return [self.processing_class(text).input_ids for text in texts], None


def make_trainer(script: Script, folder: Path, **changes: Any) -> ScriptedTrainer:
    """A trainer on `add`, whose turns the script writes; keywords override its settings."""
    own = type("OwnScript", (ScriptedTrainer,), {"script": staticmethod(script)})
    words = tokenizer()
    config = StepCreditConfig(
        output_dir=str(folder / "out"),
        max_steps=1,
        max_completion_length=400,
        logging_steps=1,
        **ON_CPU,
        **{"per_device_train_batch_size": 4, "num_generations": 4, **changes.pop("config", {})},
    )
    asked = {"prompt": [{"role": "user", "content": "Add 1 and 2."}]}
    model = tiny_models.build("llama", vocab_size=len(words), max_position_embeddings=2048)
    settings = {
        "model": model,
        "args": config,
        "train_dataset": Dataset.from_list([asked] * 8),
        "processing_class": words,
        "tools": [add],
        "rollouts_dir": folder / "rollouts",
    }
    settings["preflight"] = False  # the script is made for the batch alone
    trainer = own(**{**settings, **changes})
    trainer.remove_callback(PrinterCallback)
    return trainer


ROWS, GROUP = 12, 4
CALLS = [(1, 4), (1,), (), (2,), (1, 4), (2, 1), (1,), (1, 1), (), (3, 3, 1), (3,), (1,)]
"""The numbers that each row adds to, call by call. Rows 4 to 7 are a group on both processes."""
OUTCOME = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
GROUPS = [range(start, start + GROUP) for start in range(0, ROWS, GROUP)]


def asked(row: int, turn: int) -> str:
    """A call for each number of the row, then an answer."""
    if turn < len(CALLS[row]):
        return f"Try {row}.\n" + CALL.format(a=CALLS[row][turn])
    return ("Yes" if OUTCOME[row] else "No") + f": {row}.<|im_end|>"


def right(completions: Any, **_: Any) -> list[float]:
    """The row's outcome, which the answer says."""
    return [float("Yes" in messages[-1]["content"]) for messages in completions]


def train(folder: Path) -> dict[str, Any]:
    """The record of this process of a run with gigpo, tools and states."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = make_trainer(
        asked,
        folder,
        config={"per_device_train_batch_size": ROWS // processes, "num_generations": GROUP},
        method=sc.GiGPO(gamma=1.0),
        states="tool-calls",
        process_signal=Program(lambda r: [0.1 * step for step in range(len(r.step_texts))]),
        reward_funcs=[right],
    )
    trainer.train()
    batch, states = trainer.credited, trainer.credited.rollouts.step_states

    def rows(table: torch.Tensor) -> list[list[Any]]:
        pairs = zip(table.tolist(), batch.lengths, strict=True)
        return [row[:length] for row, length in pairs]

    return {
        "world": trainer.accelerator.num_processes,
        "ids": batch.completion_ids,
        "mask": rows(batch.mask),
        "advantages": rows(batch.advantages),
        "states": states.values.tolist(),
        "steps": states.counts.tolist(),
        "outcomes": batch.rollouts.outcome.tolist(),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    record = train(target)
    torch.save(record, target / f"rank-{os.environ.get('RANK', '0')}.pt")
