"""The embedded task for a trainer: reward functions, process signal, and rows to record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stepcredit.data.streams import Stream
from stepcredit.lab.arithmetic import Graded, check_tokens, completion_text
from stepcredit.lab.simulated_prm import Simulated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from stepcredit.engines.trl import Generation


class ArithmeticTask:
    """Rewards and step scores of sampled completions; each completion is graded once.

    Args:
        tokenizer: the task's tokenizer.
        signal: scores the steps.
        format_weight: weight of the format in `task_reward`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, signal: Simulated, format_weight: float
    ) -> None:
        self.tokenizer, self.signal, self.format_weight = tokenizer, signal, format_weight
        self._grade = lru_cache(maxsize=1024)(partial(check_tokens, tokenizer=tokenizer))

    def graded(
        self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]]
    ) -> list[Graded]:
        """The exact checker's result for each completion."""
        pairs = zip(prompts, completion_ids, strict=True)
        return [self._grade(prompt, tuple(ids)) for prompt, ids in pairs]

    def reward_functions(self) -> list[Any]:
        """TRL's rewards: `accuracy`, `format_reward`, and their weighted sum `task_reward`."""

        def accuracy(prompts: Any, completion_ids: Any, **_: Any) -> list[float]:
            return [g.outcome for g in self.graded(prompts, completion_ids)]

        def format_reward(prompts: Any, completion_ids: Any, **_: Any) -> list[float]:
            return [g.format for g in self.graded(prompts, completion_ids)]

        def task_reward(prompts: Any, completion_ids: Any, **_: Any) -> list[float]:
            graded = self.graded(prompts, completion_ids)
            return [g.outcome + self.format_weight * g.format for g in graded]

        return [accuracy, format_reward, task_reward]

    def process_signal(
        self, prompts: Any, completion_ids: Any, **_: Any
    ) -> list[tuple[list[int], list[float]]]:
        """(step_ends, step_scores) of each completion."""
        graded = self.graded(prompts, completion_ids)
        rows = zip(prompts, completion_ids, graded, strict=True)
        return [(g.step_ends, self.signal.scores(prompt, ids, g)) for prompt, ids, g in rows]

    def figures(self, batch: Generation) -> dict[str, float]:
        """Mean fillers and step accuracy of a batch of rollouts."""
        graded = self.graded(batch.prompts, batch.completion_ids)
        return {
            "rollouts/fillers": float(np.mean([g.fillers for g in graded])),
            "rollouts/step_accuracy": float(np.mean([g.step_accuracy for g in graded])),
        }

    def rows(self, batch: Generation, method: str, update: int) -> list[dict[str, Any]]:
        """A batch in the ROLLOUTS format: one row per completion, with its advantages."""
        rollouts = batch.rollouts
        graded = self.graded(batch.prompts, batch.completion_ids)
        scores = _by_rollout(rollouts.streams["process"])
        probs = {f"{n}_logprobs": _by_rollout(s) for n, s in rollouts.logprobs.items()}
        advantages = batch.advantages.cpu().numpy()
        rows = []
        for i, ids in enumerate(batch.completion_ids):
            text = completion_text(ids, self.tokenizer)
            row = {
                "group": f"{method}-{update}-{int(rollouts.group_index[i])}",
                "length": len(ids),
                "prompt": batch.prompts[i],
                "text": text,
                "tokens": list(text),
                "token_ids": ids,
                "step_ends": graded[i].step_ends,
                "step_scores": scores[i],
                "outcome": float(rollouts.outcome[i]),
                "format": float(rollouts.format[i]),
                "format_ok": bool(rollouts.format_ok[i]),
                "advantages": advantages[i, : len(ids)],
            }
            row |= {name: values[i] for name, values in probs.items()}
            rows.append({**row, "method": method, "update": update, "kinds": graded[i].kinds})
        return rows


def _by_rollout(stream: Stream) -> list[np.ndarray]:
    return [values.numpy() for values in torch.split(stream.values, stream.counts.tolist())]
