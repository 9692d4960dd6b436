"""An agent with two tools, trained with GiGPO through TRL's own tool loop.

`python examples/agent_tools.py MODEL FOLDER`; MODEL is a chat model whose template knows tools,
such as Qwen/Qwen2.5-0.5B-Instruct. The questions and tools are those of the embedded task `agent`.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from datasets import Dataset
from trl import GRPOConfig

from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.lab.agent import draw_agent_prompt, read_agent_prompt

ASKED = (
    "What is{question} modulo 10? lookup(person, relation) knows people and the number of each; "
    "calculator works modulo 10. End with the number alone."
)


class KnowledgeBase:
    """The tools of one rollout: TRL makes one object per rollout, and calls its methods."""

    def reset(self, knowledge_base: int, **row: Any) -> None:
        """Take the knowledge base that a row of the dataset names."""
        self._question = read_agent_prompt(draw_agent_prompt(knowledge_base))

    def lookup(self, person: str, relation: str) -> str:
        """Look up who is what to a person, or the person's number.

        Args:
            person: a name, such as Ann.
            relation: such as boss, or number.
        """
        return self._question.reply(f"lookup {person}'s {relation}").strip()

    def calculator(self, left: int, operator: str, right: int) -> str:
        """Compute modulo 10.

        Args:
            left: a digit.
            operator: one of + - *.
            right: a digit.
        """
        return self._question.reply(f"calculator {left}{operator}{right}").strip()


def correct(completions: Any, answer: list[int], **_: Any) -> list[float]:
    """1 where the last number that the agent wrote is the answer."""
    numbers = [re.findall(r"\d+", messages[-1]["content"] or "") for messages in completions]
    return [float(found[-1:] == [str(right)]) for found, right in zip(numbers, answer, strict=True)]


def questions(count: int) -> Dataset:
    """The first questions, each with its knowledge base and its answer."""
    rows = []
    for number in range(count):
        prompt = draw_agent_prompt(number)
        asked = ASKED.format(question=prompt[4:-1])
        answer = read_agent_prompt(prompt).answer
        message = [{"role": "user", "content": asked}]
        rows.append({"prompt": message, "knowledge_base": number, "answer": answer})
    return Dataset.from_list(rows)


def settings(folder: str, **changes: Any) -> dict[str, Any]:
    """The trainer's arguments but for the model; `changes` are settings of GRPOConfig."""
    config = {
        "output_dir": folder,
        "num_generations": 8,
        "per_device_train_batch_size": 8,
        "max_completion_length": 512,
        "learning_rate": 1e-6,
        "logging_steps": 1,
    }
    return {
        "args": GRPOConfig(**{**config, **changes}),
        "train_dataset": questions(256),
        "environment_factory": KnowledgeBase,
        "reward_funcs": [correct],
        "method": "gigpo",
        "states": "tool-calls",
    }


if __name__ == "__main__":
    model, folder = sys.argv[1:]
    StepCreditGRPOTrainer(model=model, **settings(folder)).train()
