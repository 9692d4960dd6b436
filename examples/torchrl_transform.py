"""torchrl: a `Transform` that writes one advantage per token, computed by stepcredit.

    buffer = ReplayBuffer(storage=LazyTensorStorage(4096), transform=StepCredit(group_size=8))
    buffer.extend(batch)  # whole groups; sampled batches have "advantage", which GRPOLoss reads

Advantages are computed when a batch enters the buffer, since sampled batches do not hold whole
groups. The advantage has shape (rollout, token, 1) and is 0 off the mask. Store rows padded to one
length: for ragged rows, GRPOLoss pads log-probs on the left but the advantage on the right. Written
for torchrl 0.14.
"""

from collections import Counter

from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torchrl.envs.transforms import Transform

import stepcredit as sc


class StepCredit(Transform):
    """Writes a method's advantages when whole groups enter a replay buffer.

    Args:
        estimator: the method; default: PASS.
        group_size: responses per prompt; a batch with another number for any prompt is refused.
        group, mask, step_id, step_scores, outcome: keys of the batch, which holds what
            `Rollouts.from_padded` takes; `step_id` and `step_scores` may be missing.
        advantage: key under which the advantages are written.
    """

    def __init__(
        self,
        estimator: sc.Estimator | None = None,
        *,
        group_size: int,
        group: NestedKey = "group",
        mask: NestedKey = "mask",
        step_id: NestedKey = "step_id",
        step_scores: NestedKey = "step_scores",
        outcome: NestedKey = "outcome",
        advantage: NestedKey = "advantage",
    ) -> None:
        super().__init__(in_keys=[group, mask, outcome], out_keys=[advantage])
        self.estimator = estimator or sc.PASS()
        self.group_size = group_size
        self.group, self.mask, self.outcome = group, mask, outcome
        self.step_id, self.step_scores, self.advantage = step_id, step_scores, advantage

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Return a sampled batch unchanged: it has its advantages already."""
        return tensordict

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase:
        labels = tensordict[self.group]
        group = labels.flatten().tolist() if isinstance(labels, Tensor) else list(labels)
        for label, count in Counter(group).items():
            if count != self.group_size:
                size = self.group_size
                reason = f"{count} responses, but groups have {size}: extend with whole ones"
                raise ValueError(f"{self.group} {label!r}: {reason}")
        mask = tensordict[self.mask]
        rollouts = sc.Rollouts.from_padded(
            mask=mask,
            group=group,
            step_id=tensordict.get(self.step_id, None),
            step_scores=tensordict.get(self.step_scores, None),
            outcome=tensordict[self.outcome].flatten(),
        )
        advantages = self.estimator(rollouts).padded(mask)
        return tensordict.set(self.advantage, advantages.unsqueeze(-1))
