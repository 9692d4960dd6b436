"""verl's synchronous V1 trainer with one advantage per token, from any method of stepcredit.

The hook is `_compute_advantage`: it lets verl compute its own advantage and write it to the queue,
then overwrites it, by key, with the method's. verl's losses multiply the advantages token by token.
`plugin` makes verl load this module together with its own trainers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
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

from stepcredit.credit.metrics.batch_warnings import CreditWarning
from stepcredit.engines.gold_answers import refuse_unreadable
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.prompt_pass_at_k import prompt_pass_at_k
from stepcredit.engines.run_record import lines_of, write_run
from stepcredit.engines.verl.batch import FIELDS, QueuedBatch, unbind_rows
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_checks import (
    MANAGER,
    check_config,
    check_policy_loss,
    check_trainer_hooks,
    is_default_manager,
    uses_engine,
)
from stepcredit.engines.verl.config_keys import CONFIG_KEY, VerlSettings
from stepcredit.engines.verl.config_preflight import check_run
from stepcredit.engines.verl.extras import ERROR
from stepcredit.engines.verl.reward_loop import TRAINING
from stepcredit.engines.verl.run_folder import begin_run, record_of, unread_keys
from stepcredit.rewards.base import Reward

MODE = "stepcredit"


class StepCreditPPOTrainer(PPOTrainerSync):
    """verl's PPOTrainerSync with one advantage per token, from a method of stepcredit.

    `trainer.v1.trainer_mode=stepcredit` turns it on, and the keys under `algorithm.stepcredit`
    configure it (`VerlSettings`). With `algorithm.adv_estimator=grpo` the method reads the outcome.
    With any other, such as gae, verl's own advantage replaces the outcome, as the stream "engine".

    Args:
        config: verl's whole config. Its `trainer_mode` is set to "sync", from which verl decides
            how to sample batches, and its reward manager to "stepcredit" if it is "naive".

    Raises:
        EngineError: at start, for a setting under which token credit would be lost or counted
            twice; it names the setting.

    Source: verl 0.9.1, verl/trainer/ppo/v1/trainer_base.py. Differs: only the advantages; the
        returns that train a critic are verl's own. Checkpoints also hold what credit is made of.
    """

    _warned: frozenset[str] = frozenset()
    _run = ""

    def __init__(self, config: Any) -> None:
        self.credit_settings = checked_settings(config)
        config.trainer.v1.trainer_mode = "sync"
        if is_default_manager(config):
            config.reward.reward_manager.name = MANAGER
        self.credited: BatchCredit | None = None
        self.credit_record = record_of(config, self.credit_settings)
        print(*lines_of(self.credit_record), sep="\n", flush=True)
        self._warn({line: line for line in unread_keys(self.credit_settings)})
        super().__init__(config)

    def _init_dataloader(self) -> None:
        """Load verl's data sets, then run the preflight, before any worker starts."""
        super()._init_dataloader()
        found, settings = Preflight(), self.credit_settings
        rule = settings.outcome_reward
        found.run("gold answers", lambda: check_dataset_golds(rule, self.train_dataset))
        if settings.preflight:
            check_run(
                found,
                self.config,
                settings,
                self.tokenizer,
                self.train_dataset,
                load_worker_models=False,
            )
        found.stop()
        print(found.summary, flush=True)

    def _warn(self, lines: Mapping[str, str]) -> None:
        """Warn once per kind."""
        for kind, line in lines.items():
            if kind not in self._warned:
                warnings.warn(line, CreditWarning, stacklevel=2)
        self._warned = self._warned.union(lines)

    def _load_checkpoint(self) -> Any:
        """Refuse a checkpoint of another run, or of other credit, before verl loads it."""
        self._run = begin_run(self.config.trainer, self.credit_record)
        return super()._load_checkpoint()

    def _save_checkpoint(self) -> Any:
        """Write what credit is made of into the checkpoint, before verl points to it."""
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        write_run(folder, self._run, self.credit_record)
        return super()._save_checkpoint()

    def _next_train_batch(self, *args: Any, **kwargs: Any) -> Any:
        """The next prompts to train on, marked as such: steps are scored only in training."""
        batch = super()._next_train_batch(*args, **kwargs)
        batch[TRAINING] = NonTensorData(True)
        return batch

    def _val_metrics_update(
        self, data_sources: Any, sample_uids: Any, extras: Any, *rest: Any, **more: Any
    ) -> dict[str, float]:
        """verl's figures of a validation, and each data source's pass@k without bias.

        verl's own `best@k` draws with replacement, so it is too low.
        """
        figures = super()._val_metrics_update(data_sources, sample_uids, extras, *rest, **more)
        outcomes, above = extras.get("outcome", extras["reward"]), self.credit_settings.right_above
        for source in dict.fromkeys(data_sources):
            rows = [row for row, each in enumerate(data_sources) if each == source]
            prompts, values = [sample_uids[row] for row in rows], [outcomes[row] for row in rows]
            for name, each in prompt_pass_at_k(prompts, values, above).items():
                figures[f"val-core/{source}/outcome/{name}"] = sum(each) / len(each)
        return dict(figures)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Let verl compute its advantages, then overwrite them; `credited` keeps the credit."""
        where = {"keys": batch.keys, "partition_id": batch.partition_id}
        data = transfer_queue.kv_batch_get(**where, select_fields=list(FIELDS))
        queued = QueuedBatch.of(data, batch.keys, batch.tags)
        stop_at_errors(queued)
        written = super()._compute_advantage(batch, metrics)
        if not queued.members:
            return written
        fields = ["advantages", "response_mask"]
        after = transfer_queue.kv_batch_get(**where, select_fields=fields)
        engine = unbind_rows(after["advantages"]) if uses_engine(self.config) else None
        credit = BatchCredit(queued, self.credit_settings, self.tokenizer, engine)
        masks = unbind_rows(after["response_mask"])  # verl's rejection may have masked more tokens
        kept = [row * mask.bool() for row, mask in zip(credit.rows(), masks, strict=True)]
        nested = torch.nested.as_nested_tensor(kept, layout=torch.jagged)
        overwriting = TensorDict({"advantages": nested}, batch_size=len(kept))
        transfer_queue.kv_batch_put(**where, fields=overwriting)
        metrics.update(credit.metrics(self.config.data.max_response_length))
        self._warn(credit.warnings())
        self.credited = credit
        return written


def check_dataset_golds(rule: Reward | None, dataset: Any) -> None:
    """Refuse a data set with gold answers that the reward can't read and does not leave unknown.

    Args:
        rule: the reward of the outcome; None is not checked.
        dataset: verl's; one without a table of its rows is not checked.

    Raises:
        EngineError: the first such answer, and the key with which such outcomes are left unknown.
    """
    table: Any = getattr(dataset, "dataframe", None)
    if rule is None or "reward_model" not in getattr(table, "column_names", ()):
        return
    golds = [(each or {}).get("ground_truth") for each in table["reward_model"]]
    place, column = f"{CONFIG_KEY}.outcome_reward_fields", "reward_model.ground_truth"
    refuse_unreadable(rule, golds, place, column)


def stop_at_errors(batch: QueuedBatch) -> None:
    """Stop if the reward loop reported an error: verl would train on the other responses.

    Raises:
        EngineError: the first error; it names the response.
    """
    for extra in batch.extras:
        if extra.get(ERROR):
            raise EngineError(str(extra[ERROR]), field="reward loop")


def checked_settings(config: Any) -> VerlSettings:
    """The settings of credit in verl's config, after all checks at start.

    Raises:
        EngineError: names the key, or the hook that verl lacks.
        SeveralErrors: several of them.
    """
    found = Preflight()
    settings = collected_settings(found, config)
    found.stop()
    return settings


def collected_settings(found: Preflight, config: Any) -> VerlSettings:
    """The settings of credit in verl's config; a part that is refused has its default.

    Args:
        found: gets the faults of the keys, of verl's other settings and of its policy loss.
        config: verl's.
    """
    found.run("verl's hooks", lambda: check_trainer_hooks(PPOTrainerSync, transfer_queue))
    faults = len(found.errors)
    settings = VerlSettings.collected(config, found)
    if len(found.errors) == faults:
        found.run("verl's settings", lambda: check_config(config, settings))
    libraries = config.actor_rollout_ref.model.get("external_lib")  # may register a policy loss
    found.run("external_lib", lambda: import_external_libs(libraries))
    found.run("policy loss", lambda: check_policy_loss(config.actor_rollout_ref.actor))
    return settings


def register_trainer() -> None:
    """Register the trainer with verl, as the trainer mode "stepcredit".

    Raises:
        EngineError: another class has that mode.
    """
    other = TRAINER_REGISTRY.setdefault(MODE, StepCreditPPOTrainer)
    if other is not StepCreditPPOTrainer:
        reason = f"{MODE!r} is already {other.__module__}.{other.__qualname__}"
        raise EngineError(reason, field="trainer.v1.trainer_mode")


register_trainer()
