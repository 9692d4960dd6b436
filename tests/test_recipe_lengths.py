"""The lengths in the recipes add up: prompt, response, template and marks fit every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
CONTEXTS = {
    "Qwen/Qwen2.5-Math-7B": 4096,
    "Qwen/Qwen2.5-Math-PRM-7B": 4096,
    "jinachris/PURE-PRM-7B": 4096,
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


def verl_config(path: Path) -> dict[str, Any]:
    """A recipe for verl with those that it is built on."""
    own = yaml.safe_load(path.read_text())
    merged: dict[str, Any] = {}
    for name in own.pop("defaults"):
        if name not in ("ppo_trainer", "_self_"):
            merge(merged, verl_config(path.parent / f"{name}.yaml"))
    merge(merged, own)
    return merged


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def models_in(value: Any) -> set[str]:
    """The names of models among a signal's fields."""
    if isinstance(value, Mapping):
        return set().union(*map(models_in, value.values()), set())
    return {value} & CONTEXTS.keys() if isinstance(value, str) else set()


def lengths_of(path: Path) -> Lengths:
    if path.name.startswith("verl"):
        config = verl_config(path)
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


RECIPES = sorted(path for path in FOLDER.glob("*/*.yaml") if path.name != "sft.yaml")


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
        fields = verl_config(path)["algorithm"]["stepcredit"].get("process_signal_fields") or {}
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
