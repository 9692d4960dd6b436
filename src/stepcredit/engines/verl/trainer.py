"""verl: its synchronous V1 trainer with one advantage a token, from any estimator of stepcredit.

All knowledge of verl is here and in the modules beside this one. The hook, as read in verl 0.9:
`_compute_advantage` has the engine's own advantage computed and written to the queue, then writes
the estimator's over it, by key; verl's losses multiply them in token by token. `plugin` has
verl load this when its trainers are.
"""

from __future__ import annotations

from typing import Any

import torch

from stepcredit.errors import EngineError, MissingExtra

try:
    import transfer_queue
    from tensordict import NonTensorData, TensorDict
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    from verl.utils.import_utils import import_external_libs
except ImportError as error:
    raise MissingExtra("needs the extra: pip install 'stepcredit[verl]'", field="verl") from error

from stepcredit.engines.verl.batch import FIELDS, QueuedBatch, rows_of
from stepcredit.engines.verl.batch_credit import Credit
from stepcredit.engines.verl.config_checks import (
    MANAGER,
    check_hooks,
    check_loss,
    check_settings,
    is_default_manager,
    uses_engine,
)
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.reward_loop import ERROR, TRAINING

MODE = "stepcredit"


class StepCreditPPOTrainer(PPOTrainerSync):
    """verl's PPOTrainerSync whose advantages are an estimator's, one a token.

    `trainer.v1.trainer_mode=stepcredit` turns it on; what stands under `algorithm.stepcredit` says
    more (`VerlSettings`). With `algorithm.adv_estimator=grpo` groups and outcomes are the method's;
    with any other, such as gae, verl's own advantage is the stream "engine" in the outcome's place.

    Args:
        config: verl's whole config. Its `trainer_mode` becomes "sync", by which verl chooses how
            batches are sampled, and its reward manager "stepcredit" where it was "naive".

    Raises:
        EngineError: a setting under which token credit would be lost or counted twice, by name, at
            start.

    Source: verl 0.9.1, verl/trainer/ppo/v1/trainer_base.py. Differs: the advantages, and nothing
        else; a critic's returns stay verl's own.
    """

    def __init__(self, config: Any) -> None:
        self.credit_settings = checked_settings(config)
        config.trainer.v1.trainer_mode = "sync"
        if is_default_manager(config):
            config.reward.reward_manager.name = MANAGER
        self.credited: Credit | None = None
        super().__init__(config)

    def _next_train_batch(self, *args: Any, **kwargs: Any) -> Any:
        """verl's prompts to train on, marked: of those to validate on no step is scored."""
        batch = super()._next_train_batch(*args, **kwargs)
        batch[TRAINING] = NonTensorData(True)
        return batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """The engine's advantages, overwritten; `credited` keeps what they are made of."""
        where = {"keys": batch.keys, "partition_id": batch.partition_id}
        data = transfer_queue.kv_batch_get(**where, select_fields=list(FIELDS))
        queued = QueuedBatch.of(data, batch.keys, batch.tags)
        stop_at_errors(queued)
        written = super()._compute_advantage(batch, metrics)
        if not queued.members:
            return written
        own = ["advantages", "response_mask"]
        after = transfer_queue.kv_batch_get(**where, select_fields=own)
        engine = rows_of(after["advantages"]) if uses_engine(self.config) else None
        credit = Credit(queued, self.credit_settings, self.tokenizer, engine)
        masks = rows_of(after["response_mask"])  # rejection may have masked more of it
        kept = [row * mask.bool() for row, mask in zip(credit.rows(), masks, strict=True)]
        nested = torch.nested.as_nested_tensor(kept, layout=torch.jagged)
        fields = TensorDict({"advantages": nested}, batch_size=len(kept))
        transfer_queue.kv_batch_put(**where, fields=fields)
        metrics.update(credit.figures(self.config.data.max_response_length))
        self.credited = credit
        return written


def stop_at_errors(batch: QueuedBatch) -> None:
    """Stop where the reward loop told of an error: verl would train on the other responses.

    Raises:
        EngineError: the first, which names its response.
    """
    for extra in batch.extras:
        if extra.get(ERROR):
            raise EngineError(str(extra[ERROR]), field="reward loop")


def checked_settings(config: Any) -> VerlSettings:
    """The credit's settings of verl's config, with all that is refused at start.

    Raises:
        EngineError: names the key or the hook.
    """
    check_hooks(PPOTrainerSync, transfer_queue)
    settings = VerlSettings.of(config)
    check_settings(config, settings)
    import_external_libs(config.actor_rollout_ref.model.get("external_lib"))  # it may hold a loss
    check_loss(config.actor_rollout_ref.actor)
    return settings


def register() -> None:
    """Make the trainer known to verl under its mode.

    Raises:
        EngineError: another class has the name.
    """
    other = TRAINER_REGISTRY.setdefault(MODE, StepCreditPPOTrainer)
    if other is not StepCreditPPOTrainer:
        reason = f"{MODE!r} is already {other.__module__}.{other.__qualname__}"
        raise EngineError(reason, field="trainer.v1.trainer_mode")


register()
