"""Trinity-RFT: advantages by stepcredit, one a token. Copy it where Python finds it, and name it:

    algorithm:
      algorithm_type: grpo
      repeat_times: 8
      advantage_fn: trinity_advantage.StepCreditAdvantage
      advantage_fn_args: {method: pass, fields: {k: 0.7}}

The signals are what a workflow leaves in its experiences: `reward` is the outcome, `info` may hold
`step_ends` and `step_scores` (ends count all tokens of the response), `format` and `format_ok`;
without step scores a `token_level_reward` is the process signal; `teacher_logprobs` and the sampled
`logprobs` feed the methods made of log-probs. Read in Trinity-RFT 0.6.0.
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
    """Runs in the explorer's pipeline, on all experiences of one explore step: groups are whole."""

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
        metrics = self.shape([exp for exp in exps if exp.action_mask.any()])
        return exps, {f"stepcredit/{name}": value for name, value in metrics.items()}

    def shape(self, exps: list[Experience]) -> dict[str, float]:
        """Writes the advantages of experiences that have something to train."""
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
            **process(exps, mask.shape[1]),
        )
        advantages = self.estimator(rollouts)
        for exp, row in zip(exps, advantages.padded(mask), strict=True):
            exp.advantages = row[: len(exp.action_mask)].clone()
            exp.returns = exp.advantages.clone()
        return training_metrics(rollouts, self.estimator, advantages=advantages)


def process(exps: list[Experience], width: int) -> dict[str, Tensor]:
    """Steps and their scores, or scores a token, or neither."""
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
    """What all responses have, of the policy that sampled them and of the teacher."""
    rows = {
        "student": [exp.logprobs for exp in exps],
        "teacher": [exp.teacher_logprobs for exp in exps],
    }
    known = {name: row for name, row in rows.items() if all(each is not None for each in row)}
    return {name: padded(row) for name, row in known.items()}


def padded(rows: list[Tensor]) -> Tensor:
    """One row a response, zeros after its end."""
    return pad_sequence(rows, batch_first=True)
