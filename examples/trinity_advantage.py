"""Trinity-RFT: one advantage per token, computed by stepcredit.

Copy this file to a folder on the Python path, and name it in the config:

    algorithm:
      algorithm_type: grpo
      repeat_times: 8
      advantage_fn: trinity_advantage.StepCreditAdvantage
      advantage_fn_args: {method: pass, fields: {k: 0.7}}

The signals are read from the experiences that a workflow returns: `reward` is the outcome; `info`
may hold `step_ends` and `step_scores` (ends count all tokens of the response), `format` and
`format_ok`; without step scores, `token_level_reward` is the process signal; `teacher_logprobs` and
the sampled `logprobs` are for methods that read log-probs. Written for Trinity-RFT 0.6.0.
"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trinity.algorithm.advantage_fn import AdvantageFn
from trinity.buffer.operators import ExperienceOperatorV1
from trinity.common.experience import Experience

import stepcredit as sc
from stepcredit.credit.metrics.panel import training_metrics


class StepCreditAdvantage(AdvantageFn, ExperienceOperatorV1):
    """Runs in the explorer's pipeline, on all experiences of an explore step: on whole groups."""

    def __init__(self, method: str = "pass", fields: dict | None = None) -> None:
        self.estimator = sc.estimator(method, **(fields or {}))

    @classmethod
    def default_args(cls) -> dict:
        return {"method": "pass", "fields": {}}

    @classmethod
    def compute_in_trainer(cls) -> bool:
        return False

    async def process(self, exps: list[Experience]) -> tuple[list[Experience], dict]:
        return self(exps)

    def __call__(self, exps: list[Experience], **kwargs: dict) -> tuple[list[Experience], dict]:
        for exp in exps:
            exp.advantages = exp.returns = torch.zeros(len(exp.action_mask))
        metrics = self.write_advantages([exp for exp in exps if exp.action_mask.any()])
        return exps, {f"stepcredit/{name}": value for name, value in metrics.items()}

    def write_advantages(self, exps: list[Experience]) -> dict[str, float]:
        """Write the advantages of experiences with trained tokens, and return metrics."""
        if not exps:
            return {}
        mask = padded([exp.action_mask for exp in exps])
        rollouts = sc.Rollouts.from_padded(
            mask=mask,
            group=[exp.eid.tid for exp in exps],
            outcome=[exp.reward for exp in exps],
            format=[exp.info.get("format") for exp in exps],
            format_ok=[exp.info.get("format_ok", True) for exp in exps],
            logprobs=logprobs(exps),
            **process_scores(exps, mask.shape[1]),
        )
        advantages = self.estimator(rollouts)
        for exp, row in zip(exps, advantages.padded(mask), strict=True):
            exp.advantages = row[: len(exp.action_mask)].clone()
            exp.returns = exp.advantages.clone()
        return training_metrics(rollouts, self.estimator, advantages=advantages)


def process_scores(exps: list[Experience], width: int) -> dict[str, Tensor]:
    """Scores per step, or scores per token, or none."""
    if any("step_scores" in exp.info for exp in exps):
        scores = [torch.tensor(exp.info.get("step_scores", [])) for exp in exps]
        ends = [torch.tensor(exp.info.get("step_ends", [])) for exp in exps]
        for exp, score, end in zip(exps, scores, ends, strict=True):
            if len(score) != len(end):
                raise ValueError(f"{exp.eid}: {len(score)} step scores, {len(end)} step ends")
        ids = [torch.bucketize(torch.arange(width), end).clamp(max=len(end) - 1) for end in ends]
        return {"step_id": torch.stack(ids), "step_scores": padded(scores)}
    if all(exp.token_level_reward is not None for exp in exps):
        return {"token_scores": padded([exp.token_level_reward for exp in exps])}
    return {}


def logprobs(exps: list[Experience]) -> dict[str, Tensor]:
    """Log-probs of the sampling policy and of the teacher, those that all responses have."""
    rows = {
        "student": [exp.logprobs for exp in exps],
        "teacher": [exp.teacher_logprobs for exp in exps],
    }
    complete = {name: row for name, row in rows.items() if all(each is not None for each in row)}
    return {name: padded(row) for name, row in complete.items()}


def padded(rows: list[Tensor]) -> Tensor:
    """One row per response, zeros after its end."""
    return pad_sequence(rows, batch_first=True)
