"""The torchrl example: a buffer's rows have the core's advantages, and GRPOLoss follows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.loading import module_of
from torch import nn

import stepcredit as sc

pytest.importorskip("torchrl", reason="torchrl is not installed: its example is not tested")

from tensordict import NonTensorStack, TensorDict
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.modules.distributions.discrete import LLMMaskedCategorical
from torchrl.objectives.llm import GRPOLoss

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/torchrl_transform.py"

MASK = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 0, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]).bool()
STEP_ID = torch.tensor([[-1, 0, 0, 1, 2], [0, 0, 0, 1, 1], [-1, -1, 0, 1, 1], [-1, 0, 0, 1, 1]])
SCORES = torch.tensor([[0.9, 0.8, 0.1], [0.4, 0.3, 0.0], [0.7, 0.2, 0.0], [0.1, 0.6, 0.0]])
OUTCOME = torch.tensor([1.0, 0.0, 0.0, 1.0])


@pytest.fixture
def example() -> Any:
    return module_of(EXAMPLE)


def batch() -> TensorDict:
    """Groups 7 and 3, two responses each, with a hole in the second one."""
    fields = {
        "group": torch.tensor([7, 7, 3, 3]),
        "mask": MASK,
        "step_id": STEP_ID,
        "step_scores": SCORES,
        "outcome": OUTCOME[:, None],
        "row": torch.arange(4),
    }
    return TensorDict(fields, batch_size=[4])


def expected(estimator: sc.Estimator) -> list[list[float]]:
    """The same batch told as lists, without padding."""
    rollouts = sc.Rollouts(
        group=[7, 7, 3, 3],
        process=sc.Steps(
            ends=[[1, 2, 3], [1, 3], [0, 2], [1, 3]],
            scores=[[0.9, 0.8, 0.1], [0.4, 0.3], [0.7, 0.2], [0.1, 0.6]],
        ),
        outcome=OUTCOME.tolist(),
    )
    return [row.tolist() for row in estimator(rollouts).ragged()]


def test_sampled_rows_have_the_advantages_of_whole_groups(example: Any) -> None:
    transform = example.StepCredit(sc.PASS(k=1.0), group_size=2)
    buffer = ReplayBuffer(storage=LazyTensorStorage(4), transform=transform, batch_size=16)
    buffer.extend(batch())
    sampled = buffer.sample()
    assert sampled["advantage"].shape == (16, 5, 1)
    want = expected(sc.PASS(k=1.0))
    for row, advantage in zip(sampled["row"].tolist(), sampled["advantage"][..., 0], strict=True):
        torch.testing.assert_close(advantage[MASK[row]], torch.tensor(want[row]))
        assert advantage[~MASK[row]].count_nonzero() == 0


def test_groups_named_by_prompts_and_outcomes_alone(example: Any) -> None:
    told = batch().exclude("step_id", "step_scores")
    told["group"] = NonTensorStack("one", "one", "two", "two")
    written = example.StepCredit(sc.GRPO(), group_size=2).inv(told)
    want = (OUTCOME * 2 - 1)[:, None] * MASK / 2**0.5
    torch.testing.assert_close(written["advantage"][..., 0], want, atol=1e-5, rtol=0)


def test_part_of_a_group_is_refused(example: Any) -> None:
    buffer = ReplayBuffer(
        storage=LazyTensorStorage(4), transform=example.StepCredit(group_size=2), batch_size=4
    )
    reason = "group 3: 1 responses, but groups have 2: extend with whole ones"
    with pytest.raises(ValueError, match=f"^{reason}$"):
        buffer.extend(batch()[:3])


class Bigram(nn.Module):
    """The least that GRPOLoss takes for an actor: tokens' distributions under a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(8, 8))

    def get_dist(self, tensordict: TensorDict, logits_key: str = "logits") -> LLMMaskedCategorical:
        return LLMMaskedCategorical(self.table[tensordict["tokens", "full"]], tensordict["mask"])


def gradient(sampled: TensorDict) -> torch.Tensor:
    """What GRPOLoss learns in its first step, from log-probs of the same policy."""
    actor = Bigram()
    sampled["log_probs", "full"] = torch.full((4, 5), 1 / 8).log()
    GRPOLoss(actor, entropy_bonus=False)(sampled).loss_objective.backward()
    assert actor.table.grad is not None
    return actor.table.grad


def test_grpo_loss_follows_each_tokens_own_advantage(example: Any) -> None:
    written = example.StepCredit(group_size=2).inv(batch())
    written["tokens", "full"] = tokens = torch.arange(20).reshape(4, 5) % 7
    advantages = written["advantage"][..., 0]
    found = gradient(written)
    by_hand = torch.zeros(8, 8)
    for token, advantage in zip(tokens[MASK].tolist(), advantages[MASK].tolist(), strict=True):
        by_hand[token] += advantage * (1 / 8 - torch.eye(8)[token]) / int(MASK.sum())
    torch.testing.assert_close(found, by_hand)
    mean = advantages.sum(1) / MASK.sum(1)
    written["advantage"] = (mean[:, None] * MASK)[..., None]
    flat = gradient(written)
    assert torch.cosine_similarity(found.flatten(), flat.flatten(), dim=0) < 0.99
