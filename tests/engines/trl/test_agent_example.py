"""The example of an agent runs through TRL's tool loop, on the tools of the embedded task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.engines.trl.on_cpu import ON_CPU
from tests.engines.trl.scripted_agent import ScriptedTrainer, tokenizer
from tests.loading import module_of
from tests.signals import tiny_models

from stepcredit.lab.agent import draw_agent_prompt, read_agent_prompt

EXAMPLE = module_of(Path(__file__).parents[3] / "examples" / "agent_tools.py")
QUESTION = read_agent_prompt(draw_agent_prompt(7))  # Fay's sister's teacher's number-0
LOOKUPS = [("Fay", "sister"), ("Bob", "teacher"), ("Dan", "number")]


def call(name: str, **arguments: object) -> str:
    asked = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{asked}\n</tool_call><|im_end|>"


def script(row: int, turn: int) -> str:
    """Rows 0 and 1 make all calls; row 2 asks Bob's boss on the way; row 3 answers at once."""
    lookups = [*LOOKUPS[:1], ("Bob", "boss"), *LOOKUPS[1:]] if row == 2 else LOOKUPS
    calls = [call("lookup", person=person, relation=relation) for person, relation in lookups]
    calls.append(call("calculator", left=6, operator="-", right=0))
    if row < 3 and turn < len(calls):
        return calls[turn]
    return f"{(6, 5, 6, 1)[row]}<|im_end|>"


def test_the_agent_calls_its_tools_and_is_compared_by_state(tmp_path: Path) -> None:
    scripted = type("Written", (ScriptedTrainer,), {"script": staticmethod(script)})
    words = tokenizer()
    given = EXAMPLE.settings(
        str(tmp_path),
        num_generations=4,
        per_device_train_batch_size=4,
        max_completion_length=1500,
        max_steps=1,
        shuffle_dataset=False,
        **ON_CPU,
    )
    given["train_dataset"] = given["train_dataset"].select([7])
    model = tiny_models.build("llama", vocab_size=len(words), max_position_embeddings=4096)
    trainer = scripted(model=model, processing_class=words, **given)
    trainer.train()
    batch = trainer.credited
    replies = [
        [message["content"] for message in messages if message["role"] == "tool"]
        for messages in batch.completions
    ]
    assert replies[0] == replies[1] == ["Bob", "Dan", "6", "6"]
    boss = QUESTION.reply("lookup Bob's boss").strip()
    assert replies[2:] == [["Bob", boss, "Dan", "6", "6"], []]
    assert batch.outcomes == [1.0, 0.0, 1.0, 0.0]
    states = batch.rollouts.step_states
    assert states.counts.tolist() == [5, 5, 6, 1]
    first, second, third, _ = states.values[:, 0].split(states.counts.tolist())
    assert first.tolist() == second.tolist()
    assert third[2] not in first  # after Bob's boss
    assert third[3:].tolist() == first[2:].tolist()
    after = [row[row != 0][-1] for row in batch.advantages[:2]]  # of the answers 6 and 5
    assert after[0] > 0 > after[1]


def test_a_wrong_call_is_answered() -> None:
    base = EXAMPLE.KnowledgeBase()
    base.reset(7, answer=6)
    assert base.lookup("Zoe", "boss") == base.calculator(12, "+", 1) == "none"
    assert base.lookup("Fay", "sister") == "Bob"


@pytest.mark.parametrize(("text", "reward"), [("It is 6", 1.0), ("6, or 16", 0.0), ("", 0.0)])
def test_the_last_number_is_the_answer(text: str, reward: float) -> None:
    assert EXAMPLE.correct([[{"role": "assistant", "content": text}]], [6]) == [reward]
