"""An embedded task for a trainer: reward functions, process signal, and rows to record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

import stepcredit as sc
from stepcredit.data.streams import Stream
from stepcredit.lab.answered import Answered
from stepcredit.lab.grading import Graded
from stepcredit.lab.log_ratios import summed_over_steps
from stepcredit.lab.outcome_signals import OutcomeSignal
from stepcredit.lab.readers import Readers
from stepcredit.lab.task import ProcessScores, ProcessSignal, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from stepcredit.engines.trl import Generation


class RolloutGrader:
    """Rewards and process scores of sampled completions; each completion is graded once.

    Args:
        task: the task.
        tokenizer: the task's tokenizer.
        signal: scores the steps or the tokens.
        format_weight: weight of the format in `task_reward`.
        readers: gives the log-probs of completions that the signal or the method reads, by model.
        answered: the prompts whose outcomes the method is given.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: PreTrainedTokenizerFast,
        signal: ProcessSignal,
        format_weight: float,
        readers: Readers | None = None,
        answered: Answered | None = None,
    ) -> None:
        self.tokenizer, self.signal, self.format_weight = tokenizer, signal, format_weight
        self.readers, self.answered = readers, answered or Answered()
        self.environment = task.environment
        self.teacher_kl: float | None = None
        self._grade = lru_cache(maxsize=1024)(partial(task.check_tokens, tokenizer=tokenizer))

    def graded(
        self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]]
    ) -> list[Graded]:
        """The exact checker's result for each completion."""
        pairs = zip(prompts, completion_ids, strict=True)
        return [self._grade(prompt, tuple(ids)) for prompt, ids in pairs]

    def reward_functions(self) -> list[Any]:
        """TRL's rewards: `accuracy`, `format_reward`, and their weighted sum `task_reward`.

        If only some prompts are answered, there is also `known_accuracy`, which is None for the
        others. `task_reward` is the format's part alone there, for all of a group. `accuracy` is
        always the checker's.
        """

        def accuracy(prompts: Any, completion_ids: Any, **_: Any) -> list[float]:
            return [g.outcome for g in self.graded(prompts, completion_ids)]

        def format_reward(prompts: Any, completion_ids: Any, **_: Any) -> list[float]:
            return [g.format for g in self.graded(prompts, completion_ids)]

        def task_reward(prompts: Any, completion_ids: Any, **_: Any) -> list[float]:
            known = known_accuracy(prompts, completion_ids)
            rows = zip(known, self.graded(prompts, completion_ids), strict=True)
            return [(outcome or 0.0) + self.format_weight * g.format for outcome, g in rows]

        def known_accuracy(prompts: Any, completion_ids: Any, **_: Any) -> list[float | None]:
            rows = zip(prompts, self.graded(prompts, completion_ids), strict=True)
            return [g.outcome if self.answered(prompt) else None for prompt, g in rows]

        rewards: list[Any] = [accuracy, format_reward, task_reward]
        return rewards + [known_accuracy] * (self.answered.share < 1)

    def process_signal(self, prompts: Any, completion_ids: Any, **_: Any) -> ProcessScores:
        """The signal's scores of each completion, of its steps or of its tokens."""
        graded = self.graded(prompts, completion_ids)
        logprobs = self.logprobs(prompts, completion_ids) if self.signal.models else {}
        return self.signal.process(prompts, completion_ids, graded, logprobs)

    def logprobs(self, prompts: Any, completion_ids: Any, **_: Any) -> dict[str, sc.Tokens]:
        """The log-probs of each completion's tokens, by model; they give the newest `teacher_kl`.

        The KL divergence from the teacher is estimated as the mean over the sampled tokens of
        log p_student - log p_teacher.
        """
        assert self.readers is not None
        found = self.readers(prompts, completion_ids)
        if {"student", "teacher"} <= set(found):
            self.teacher_kl = float((found["student"].values - found["teacher"].values).mean())
        return found

    def masks_and_states(
        self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]]
    ) -> tuple[list[list[int]] | None, list[list[str]] | None]:
        """Which tokens the policy wrote, and the state of each turn; None without tools."""
        if self.environment is None:
            return None, None
        masks, states = [], []
        for ids, graded in zip(completion_ids, self.graded(prompts, completion_ids), strict=True):
            tokens = self.tokenizer.convert_ids_to_tokens(list(ids))
            starts = [0, *(end + 1 for end in graded.step_ends[:-1])]
            masks.append([int(own) for own in self.environment.policy_tokens(tokens)])
            states.append([self.environment.state("".join(tokens[:start])) for start in starts])
        return masks, states

    def figures(self, batch: Generation) -> dict[str, float]:
        """Mean fillers and step accuracy of a batch of rollouts, and its KL from the teacher.

        With tools, also the mean turns; with a signal made of outcomes, also the number of answers
        that it continued.
        """
        graded = self.graded(batch.prompts, batch.completion_ids)
        found = {
            "rollouts/fillers": float(np.mean([g.fillers for g in graded])),
            "rollouts/step_accuracy": float(np.mean([g.step_accuracy for g in graded])),
        }
        if self.environment is not None:
            found["rollouts/turns"] = float(np.mean([len(g.kinds) for g in graded]))
        if isinstance(self.signal, OutcomeSignal):
            found = {"rollouts/monte_carlo": float(self.signal.completions), **found}
        return (
            found if self.teacher_kl is None else {"rollouts/teacher_kl": self.teacher_kl, **found}
        )

    def rows(self, batch: Generation, method: str, update: int) -> list[dict[str, Any]]:
        """A batch in the ROLLOUTS format: one row per completion, with its advantages."""
        rollouts = batch.rollouts
        graded = self.graded(batch.prompts, batch.completion_ids)
        process = rollouts.streams.get("process")
        column = "step_scores" if isinstance(process, sc.Steps) else "token_scores"
        scores = None if process is None else _by_rollout(process)
        probs = {f"{n}_logprobs": _by_rollout(s) for n, s in rollouts.logprobs.items()}
        advantages = batch.advantages.cpu().numpy()
        masks, states = self.masks_and_states(batch.prompts, batch.completion_ids)
        rows = []
        for i, ids in enumerate(batch.completion_ids):
            tokens = self.tokenizer.convert_ids_to_tokens(ids)
            row = {
                "group": f"{method}-{update}-{int(rollouts.group_index[i])}",
                "length": len(ids),
                "prompt": batch.prompts[i],
                "text": "".join(tokens),
                "tokens": tokens,
                "token_ids": ids,
                "step_ends": graded[i].step_ends,
                **({} if scores is None else {column: scores[i]}),
                "outcome": float(rollouts.outcome[i]) if rollouts.has_outcome[i] else None,
                "format": float(rollouts.format[i]),
                "format_ok": bool(rollouts.format_ok[i]),
                "advantages": advantages[i, : len(ids)],
            }
            row |= {name: values[i] for name, values in probs.items()}
            if masks is not None and states is not None:
                trained = {"length": sum(masks[i]), "loss_mask": masks[i]}
                row |= {**trained, "step_states": states[i]}
            rows.append({**row, "method": method, "update": update, "kinds": graded[i].kinds})
        return rows


def scores_by_step(process: ProcessScores, ends: Sequence[Sequence[int]]) -> list[list[float]]:
    """One score per step of each completion: a step's own score, or the sum of its tokens' scores.

    Args:
        process: scores of steps or of tokens.
        ends: index of each step's last token.

    Example:
        >>> scores_by_step(sc.Tokens([[1.0, 2.0, 4.0]]), [[1, 2]])
        [[3.0, 4.0]]
    """
    if isinstance(process, sc.Tokens):
        process = summed_over_steps(process.values, process.counts, ends)
    return [row.tolist() for row in _by_rollout(process)]


def _by_rollout(stream: Stream) -> list[np.ndarray]:
    return [values.numpy() for values in stream.values.cpu().split(stream.counts.tolist())]
