"""The trainer of the lab: TRL's with our credit, which does not compute a sample's log-probs twice.

TRL reads the completions once more to learn their log-probs under the policy that sampled them. The
lab's sampler knows them already, up to rounding; the pass was a fifth of a run's time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stepcredit.engines.trl import StepCreditGRPOTrainer


class SampledTrainer(StepCreditGRPOTrainer):
    """`StepCreditGRPOTrainer`, with the log-probs of the latest completions from their sampler."""

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,
        compute_entropy: bool = False,
        **options: Any,
    ) -> Any:
        """TRL's pass; without gradient and entropy, for the latest completions: what is known."""
        if not torch.is_grad_enabled() and not compute_entropy:
            ends = (part[:, -logits_to_keep:] for part in (input_ids, attention_mask))
            sampler: Any = self.rollout_func
            known = sampler.logprobs_of(*ends) if model is self.model else None
            if known is not None:
                return known, None, None
        return super()._get_per_token_logps_and_entropies(
            model,
            input_ids,
            attention_mask,
            logits_to_keep,
            *args,
            compute_entropy=compute_entropy,
            **options,
        )
