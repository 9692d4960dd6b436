"""The slime example: whole groups before slime splits the batch, and tensors on each rank."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.engines.turn_values import SCORES, by_token, expected
from tests.loading import module_of

from stepcredit.errors import EngineError, RolloutError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/slime_advantages.py"
MASKS = ([1, 1, 0, 1], [1, 1, 1, 0, 1, 1])
ENDS = ([1, 3], [2, 5])


@pytest.fixture(scope="module")
def example() -> Any:
    return module_of(EXAMPLE)


def args_of(**given: Any) -> Any:
    method = {"method": "pass", "fields": {"k": 1.0}}
    settings = {"context_parallel_size": 1, "normalize_advantages": False, "use_opd": False}
    return SimpleNamespace(**{**settings, "stepcredit": method, **given})


def sample(row: int, reward: float, **given: Any) -> Any:
    """What slime's `Sample` has, of what the example reads."""
    mask = MASKS[row]
    metadata = {"step_ends": ENDS[row], "step_scores": SCORES[row]}
    fields = {"group_index": 0, "rollout_id": None, "remove_sample": False, "metadata": metadata}
    fields |= {"loss_mask": mask, "response_length": len(mask), "reward": reward}
    made = SimpleNamespace(**{**fields, **given})
    made.get_reward_value = lambda args: made.reward
    return made


def on_rank(example: Any, advantages: list[Any], rows: list[int]) -> dict[str, Any]:
    """A rank's share of the batch, as slime's actor holds it."""
    share = {"rewards": [advantages[row] for row in rows]}
    share["log_probs"] = [torch.zeros(len(advantages[row]), dtype=torch.float64) for row in rows]
    example.set_advantages(args_of(), share)
    return share


def test_a_groups_samples_may_go_to_different_ranks(example: Any) -> None:
    samples = [sample(0, 1.0), sample(1, 0.0), sample(0, 9.0, remove_sample=True)]
    rewards, advantages = example.credit(args_of(), samples)
    assert rewards == [1.0, 0.0, 9.0]
    for row, turns in enumerate(expected()):
        share = on_rank(example, advantages, [row])
        (found,) = share["advantages"]
        assert found.dtype == torch.float64
        assert found.tolist() == by_token(MASKS[row], turns)
        assert torch.equal(share["returns"][0], found)
    assert on_rank(example, advantages, [2])["advantages"][0].tolist() == [0.0] * 4


def test_without_scores_or_masks_and_with_parts_of_a_trajectory(example: Any) -> None:
    bare = {"metadata": {}, "loss_mask": None}
    parts = [sample(0, 1.0, rollout_id=5, **bare), sample(1, 1.0, rollout_id=5, **bare)]
    others = [sample(0, 0.0, rollout_id=at, **bare) for at in (6, 7)]
    args = args_of(stepcredit={"method": "rloo"})
    _, advantages = example.credit(args, [*parts, *others])
    assert [set(each.tolist()) for each in advantages] == [{1.0}, {1.0}, {-0.5}, {-0.5}]
    assert [len(each) for each in advantages] == [4, 6, 4, 4]
    with pytest.raises(RolloutError, match="of its trajectory has"):
        example.credit(args, [parts[0], sample(1, 0.0, rollout_id=5, **bare), *others])


def test_what_would_give_a_wrong_number_is_refused(example: Any) -> None:
    refusals = {
        "context_parallel_size": (2, "advantages are not cut for context parallelism: set it to 1"),
        "normalize_advantages": (True, "would change the method's advantages: leave it off"),
        "use_opd": (True, "would change the method's advantages: leave it off"),
    }
    for name, (value, reason) in refusals.items():
        with pytest.raises(EngineError) as error:
            example.credit(args_of(**{name: value}), [sample(0, 1.0)])
        assert str(error.value) == f"{name}: {reason}"
    with pytest.raises(EngineError) as error:
        example.set_advantages(
            args_of(), {"rewards": [0.5, -0.5], "log_probs": [torch.zeros(2)] * 2}
        )
    reason = "a rank's groups are not whole: expected slime_advantages.credit, which has all"
    assert str(error.value) == f"custom_reward_post_process_path: {reason}"
    with pytest.raises(EngineError) as error:
        example.set_advantages(
            args_of(), {"rewards": [torch.ones(2)], "log_probs": [torch.ones(3)]}
        )
    assert str(error.value) == "row 0: rewards: 2 advantages, but 3 log-probs"
