"""torchrl: a `Transform` that writes the advantage, one a token, by stepcredit.

    buffer = ReplayBuffer(storage=LazyTensorStorage(4096), transform=StepCredit(group_size=8))
    buffer.extend(batch)  # whole groups; what is sampled has "advantage", for GRPOLoss

It works where a batch enters the buffer, since what is sampled from it holds no whole groups. The
advantage is (rollout, token, 1), 0 off the mask. Store rows padded to one length: of ragged ones
GRPOLoss pads log-probs on the left and the advantage on the right. Read in torchrl 0.14.
"""

from collections import Counter

from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torchrl.envs.transforms import Transform

import stepcredit as sc


class StepCredit(Transform):
    """An estimator's advantages, written where whole groups enter a replay buffer.

    Args:
        estimator: PASS, unless told otherwise.
        group_size: responses a prompt; a batch that holds another number of one is refused.
        group, mask, step_id, step_scores, outcome: keys of the batch, as `Rollouts.from_padded`
            takes them; `step_id` and `step_scores` may be missing, for outcomes alone.
        advantage: key that is written.
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
        """What is sampled has its advantages already."""
        return tensordict

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase:
        labels = tensordict[self.group]
        group = labels.flatten().tolist() if isinstance(labels, Tensor) else list(labels)
        for label, count in Counter(group).items():
            if count != self.group_size:
                reason = f"{count} responses, a group has {self.group_size}: extend with whole ones"
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
