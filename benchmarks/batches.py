"""Random batches as benchmarks read them: packed, padded, as TRL's output and as verl's queue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import stepcredit as sc

STEPS = 40
"""Steps of a response, on average."""
PROMPT = 64
"""Tokens of a prompt."""


@dataclass(frozen=True)
class Batch:
    """Random responses with a score per step, a score per token, and an outcome.

    Args:
        rows: responses.
        width: the longest response's tokens; lengths are drawn from width/2..width.
        group_size: responses of a group, which are neighbours.
        device: where the tensors are.
    """

    rows: int
    width: int
    group_size: int = 8
    device: str = "cpu"

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lengths, steps per response, and the steps' ends, packed."""
        rng = np.random.default_rng(0)
        lengths = rng.integers(self.width // 2, self.width + 1, self.rows)
        most = np.minimum(lengths, rng.integers(STEPS // 2, STEPS * 3 // 2 + 1, self.rows))
        ends = [
            np.append(np.sort(rng.choice(n - 1, k - 1, replace=False)), n - 1)
            for n, k in zip(lengths, most, strict=True)
        ]
        return lengths, most, np.concatenate(ends)

    def _here(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    @cached_property
    def lengths(self) -> Tensor:
        """(rows,), trained tokens."""
        return self._here(self._drawn[0])

    @cached_property
    def steps(self) -> sc.Steps:
        """Random step scores."""
        _, counts, ends = self._drawn
        scores = np.random.default_rng(1).random(len(ends), dtype=np.float32)
        return sc.Steps(self._here(ends), self._here(scores), self._here(counts))

    @cached_property
    def tokens(self) -> sc.Tokens:
        """Random token scores."""
        total = int(self._drawn[0].sum())
        scores = np.random.default_rng(2).standard_normal(total, dtype=np.float32)
        return sc.Tokens(self._here(scores), self.lengths)

    @cached_property
    def outcome(self) -> Tensor:
        """(rows,), 0 or 1."""
        right = np.random.default_rng(3).random(self.rows) < 0.5
        return self._here(right.astype(np.float32))

    @cached_property
    def group(self) -> Tensor:
        """(rows,), the number of each response's group."""
        return torch.arange(self.rows, device=self.device) // self.group_size

    @cached_property
    def mask(self) -> Tensor:
        """(rows, width) int64, padded on the right."""
        return (torch.arange(self.width, device=self.device) < self.lengths[:, None]).long()

    @cached_property
    def step_id(self) -> Tensor:
        """(rows, width) int64: the step of each token; -1 off the mask."""
        lengths, counts, ends = self._drawn
        ids = np.full((self.rows, self.width), -1)
        starts = np.cumsum(counts) - counts
        for row, (length, start, count) in enumerate(zip(lengths, starts, counts, strict=True)):
            sizes = np.diff(ends[start : start + count], prepend=-1)
            ids[row, :length] = np.repeat(np.arange(count), sizes)
        return self._here(ids)

    @cached_property
    def step_scores(self) -> Tensor:
        """(rows, most steps) float32."""
        split = self.steps.values.float().split(self.steps.counts.tolist())
        return torch.nn.utils.rnn.pad_sequence(list(split), batch_first=True)

    @cached_property
    def token_scores(self) -> Tensor:
        """(rows, width) float32, 0 off the mask."""
        table = torch.zeros(self.rows, self.width, device=self.device)
        table[self.mask.bool()] = self.tokens.values.float()
        return table

    def packed(self, process: sc.Steps | sc.Tokens) -> sc.Rollouts:
        """Rollouts with one signal, checks included."""
        return sc.Rollouts(self.group, self.lengths, process, self.outcome)

    def padded(self, **signal: Tensor) -> sc.Rollouts:
        """The same from padded tables."""
        return sc.Rollouts.from_padded(self.mask, self.group, outcome=self.outcome, **signal)

    @cached_property
    def step_tables(self) -> dict[str, Tensor]:
        """The step signal as `from_padded` takes it."""
        return {"step_id": self.step_id, "step_scores": self.step_scores}

    @cached_property
    def trl_output(self) -> dict[str, Tensor]:
        """The tensors that TRL's `_generate_and_score_completions` returns and the hook reads."""
        prompts = torch.ones(self.rows, PROMPT, dtype=torch.int64, device=self.device)
        return {
            "prompt_ids": prompts,
            "prompt_mask": prompts,
            "completion_ids": self.mask,
            "completion_mask": self.mask,
        }

    @cached_property
    def completion_ids(self) -> list[list[int]]:
        """Token ids of each completion, as TRL's reward hook gets them."""
        return [[1] * length for length in self.lengths.tolist()]

    def queue(self, signal: dict[str, list[Any]]) -> tuple[dict[str, Any], list[str], list[Any]]:
        """Fields, keys and tags of verl's queue.

        Args:
            signal: what the reward function returned, {name: one list per response}.
        """
        lengths = self.lengths.tolist()
        rewards = [torch.zeros(length) for length in lengths]
        for reward, outcome in zip(rewards, self.outcome.tolist(), strict=True):
            reward[-1] = outcome
        ones = [torch.ones(length, dtype=torch.int64) for length in lengths]
        extras = [dict(zip(signal, row, strict=True)) for row in zip(*signal.values(), strict=True)]
        uids = [f"prompt {group}" for group in self.group.tolist()]
        fields = {
            "uid": uids,
            "response_mask": nested(ones),
            "rm_scores": nested(rewards),
            "prompts": nested([torch.ones(PROMPT, dtype=torch.int64)] * self.rows),
            "responses": nested(ones),
            "extra_fields": [{"reward_extra_info": extra} for extra in extras],
        }
        return fields, [f"{uid}_{row}_0" for row, uid in enumerate(uids)], [{}] * self.rows

    def step_lists(self) -> dict[str, list[list[Any]]]:
        """The step signal as a reward function returns it."""
        counts = self.steps.counts.tolist()
        ends, scores = self.steps.ends.split(counts), self.steps.values.split(counts)
        return {"step_ends": as_lists(ends), "step_scores": as_lists(scores)}

    def token_lists(self) -> dict[str, list[list[float]]]:
        """The token signal as a reward function returns it."""
        return {"token_scores": as_lists(self.tokens.values.split(self.lengths.tolist()))}


def nested(rows: list[Tensor]) -> Tensor:
    """Rows of several lengths, as verl's queue returns them."""
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def as_lists(rows: tuple[Tensor, ...]) -> list[list[Any]]:
    """One list per row."""
    return [row.tolist() for row in rows]
