"""Lengths and memory in the recipes add up: texts fit every model, and a GPU holds what it must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.loading import module_of

from stepcredit.engines.preflight.memory_estimate import estimate_memory

memory_table = module_of(Path(__file__).parents[1] / "recipes" / "memory_table.py")
CONTEXTS = {
    "Qwen/Qwen2.5-Math-7B": 4096,
    "Qwen/Qwen2.5-Math-PRM-7B": 4096,
    "jinachris/PURE-PRM-7B": 4096,
    "Qwen/Qwen2.5-Math-1.5B": 4096,
    "Qwen/Qwen2.5-1.5B-Instruct": 32768,
    "Qwen/Qwen2.5-7B-Instruct": 32768,
    "Qwen/Qwen2.5-32B-Instruct": 32768,
    "runs/smollm2-sft": 8192,
}
"""`max_position_embeddings` of the models' published configurations."""
TEMPLATE = 64
"""Tokens of a reward model's chat template and system prompt, at most."""
TOKENS_PER_STEP = 16
"""A step of worked maths has at least so many tokens on average; a mark is one token per step."""


@dataclass(frozen=True)
class Lengths:
    """What a recipe allows, and which models read it."""

    prompt: int
    response: int
    policy: str
    scorers: tuple[str, ...]
    engine: int | None

    @property
    def total(self) -> int:
        return self.prompt + self.response

    @property
    def scored(self) -> int:
        return self.total + TEMPLATE + self.response // TOKENS_PER_STEP


def models_in(value: Any) -> set[str]:
    """The names of models among a signal's fields."""
    if isinstance(value, Mapping):
        return set().union(*map(models_in, value.values()), set())
    return {value} & CONTEXTS.keys() if isinstance(value, str) else set()


def lengths_of(path: Path) -> Lengths:
    if path.name.startswith("verl"):
        config = memory_table.verl_config(path)
        credit, data = config["algorithm"]["stepcredit"], config["data"]
        scorers = models_in(credit.get("process_signal_fields"))
        scorers |= models_in(config.get("distillation", {}))
        policy = config["actor_rollout_ref"]["model"]["path"]
        engine = config["actor_rollout_ref"]["rollout"].get("max_model_len")
        both = data["max_prompt_length"], data["max_response_length"]
        return Lengths(*both, policy, tuple(sorted(scorers)), engine)
    recipe = yaml.safe_load(path.read_text())
    scorers = models_in(recipe.get("process_signal_fields")) | models_in(recipe.get("logprobs"))
    return Lengths(
        recipe.get("max_prompt_length") or 256,  # of chain sums: one short question
        recipe["max_completion_length"],
        recipe["model_name_or_path"],
        tuple(sorted(scorers)),
        recipe.get("vllm_max_model_length"),
    )


RECIPES = memory_table.recipe_paths()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_prompt_and_response_fit_every_model(path: Path) -> None:
    lengths = lengths_of(path)
    assert lengths.total <= CONTEXTS[lengths.policy]
    if lengths.engine is not None:
        assert lengths.total <= lengths.engine <= CONTEXTS[lengths.policy]
    for scorer in lengths.scorers:
        assert lengths.scored <= CONTEXTS[scorer], scorer


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_reward_model_does_not_end_the_run_over_one_response(path: Path) -> None:
    """Marks have no bound but the response's own tokens: steps may be as short as one token."""
    if path.name.startswith("verl"):
        fields = (
            memory_table.verl_config(path)["algorithm"]["stepcredit"].get("process_signal_fields")
            or {}
        )
    else:
        fields = yaml.safe_load(path.read_text()).get("process_signal_fields") or {}
    if "protocol" not in fields:
        return
    assert (fields["empty"], fields["unscorable"]) == ("score", "unknown")
    if "url" in fields:
        assert fields["context"] == CONTEXTS[fields["model"]]


def test_the_reward_models_are_among_those_read() -> None:
    read = {scorer for path in RECIPES for scorer in lengths_of(path).scorers}
    assert {"Qwen/Qwen2.5-Math-PRM-7B", "jinachris/PURE-PRM-7B"} <= read
    assert "Qwen/Qwen2.5-32B-Instruct" in read


@pytest.mark.parametrize("path", RECIPES, ids=memory_table.name_of)
def test_a_tenth_of_each_gpu_stays_free(path: Path) -> None:
    plan = memory_table.plan_of(path)
    assert estimate_memory(plan).peak <= 0.9 * plan.gpu_bytes


@pytest.mark.parametrize("path", RECIPES, ids=memory_table.name_of)
def test_the_sampler_holds_some_responses_of_full_length_and_sleeps(path: Path) -> None:
    plan, lengths = memory_table.plan_of(path), lengths_of(path)
    if plan.sampler_share:
        assert plan.sampler_sleeps
        assert estimate_memory(plan).cached_tokens >= 32 * lengths.total


def test_the_table_of_memory_is_that_of_the_code() -> None:
    text = (memory_table.FOLDER / "README.md").read_text()
    written = text.partition(memory_table.MARKS[0])[2].partition(memory_table.MARKS[1])[0]
    assert written.strip() == memory_table.table(), "python recipes/memory_table.py --write"


def test_the_arithmetic_that_the_readme_spells_out() -> None:
    """pass-maths/trl: 7,615,616,512 parameters on 8 GPUs, 15,360 tokens of a micro-batch."""
    found = estimate_memory(memory_table.plan_of(memory_table.FOLDER / "pass-maths/trl.yaml"))
    gib = 2**30
    assert found.parts["weights"] == 7_615_616_512 * 4 / 8
    assert found.parts["optimizer"] == 7_615_616_512 * 8 / 8
    assert found.parts["scorers"] == 7_615_616_512 * 2
    inputs, layer = 28 * 3584 * 2, 26 * 3584 + 4 * (3584 + 512) + 8 * 18_944
    assert found.parts["activations"] == 4 * (1024 + 2816) * (inputs + layer)
    assert found.parts["KV cache"] == int(0.45 * 80 * gib) - 2 * 7_615_616_512
    assert found.cached_tokens == found.parts["KV cache"] // 57_344
