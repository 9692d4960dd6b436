"""verl's V1 trainers with one advantage per token, from any method of stepcredit.

The hook is `_compute_advantage`: it lets verl compute its own advantage and write it to the queue,
then overwrites it, by key, with the method's. verl's losses multiply the advantages token by token.
`plugin` makes verl load this module together with its own trainers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from stepcredit.errors import EngineError, MissingExtra

try:
    import transfer_queue
    from tensordict import TensorDict
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, PPOTrainer
    from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
    from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    from verl.utils.import_utils import import_external_libs
except ImportError as error:
    raise MissingExtra("needs the extra: pip install 'stepcredit[verl]'", field="verl") from error

from stepcredit.credit.metrics.batch_warnings import CreditWarning
from stepcredit.engines.gold_answers import refuse_unreadable
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.prompt_pass_at_k import prompt_pass_at_k
from stepcredit.engines.run_record import lines_of, write_run
from stepcredit.engines.scoring_costs import ScoringCost, server_warnings
from stepcredit.engines.verl.batch import FIELDS, QueuedBatch, unbind_rows
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_checks import (
    MANAGER,
    check_config,
    check_policy_loss,
    check_trainer_hooks,
    is_default_manager,
    is_our_manager,
    uses_engine,
)
from stepcredit.engines.verl.config_keys import CONFIG_KEY, VerlSettings
from stepcredit.engines.verl.config_preflight import check_run
from stepcredit.engines.verl.extras import ERROR
from stepcredit.engines.verl.group_filter import (
    FILTER,
    check_filtered_golds,
    filter_warnings,
)
from stepcredit.engines.verl.metric_names import is_early, logged_costs, scoring_shares
from stepcredit.engines.verl.other_trainers import check_other_trainer, guard
from stepcredit.engines.verl.run_folder import begin_run, record_of, unread_keys
from stepcredit.engines.verl.training_mark import TRAINING, training_marks
from stepcredit.engines.verl.whole_groups import WholeGroups, has_own_sampler
from stepcredit.engines.watch import Watch

MODE = "stepcredit"


class TokenCreditTrainer(PPOTrainer):  # type: ignore[misc]
    """What all of our trainers add to a V1 trainer of verl: one advantage per token.

    The keys under `algorithm.stepcredit` configure it (`VerlSettings`). With
    `algorithm.adv_estimator=grpo` the method reads the outcome. With any other, such as gae, verl's
    own advantage replaces the outcome, as the stream "engine".

    verl's replay buffer gives all of its trainers the responses to a prompt together, when the last
    of them is complete; `WholeGroups` checks it.

    Args:
        config: verl's whole config. Its `trainer_mode` is set to `verl_mode`, from which verl
            decides how to sample batches, and its reward manager to "stepcredit" if it is "naive".

    Raises:
        EngineError: at start, for a setting under which token credit would be lost or counted
            twice; it names the setting. In training, for a group that is not whole.

    Source: verl 0.9.1, verl/trainer/ppo/v1/trainer_base.py. Differs: only the advantages; the
        returns that train a critic are verl's own. Checkpoints also hold what credit is made of.
    """

    verl_mode: str
    """verl's own trainer mode, which this one extends."""
    total_training_steps: int
    _warned: frozenset[str] = frozenset()
    _run = ""

    def __init__(self, config: Any) -> None:
        self.credit_settings = checked_settings(config)
        config.trainer.v1.trainer_mode = self.verl_mode
        if is_default_manager(config):
            config.reward.reward_manager.name = MANAGER
        self.credited: BatchCredit | None = None
        self.credit_record = record_of(config, self.credit_settings)
        print(*lines_of(self.credit_record), sep="\n", flush=True)
        self._warn({line: line for line in unread_keys(self.credit_settings)})
        self._warn({line: line for line in filter_warnings(config, self.credit_settings)})
        super().__init__(config)

    def _init_dataloader(self) -> None:
        """Load verl's data sets, then run the preflight, before any worker starts."""
        super()._init_dataloader()
        found, settings = Preflight(), self.credit_settings
        check_golds(found, self.config, settings, self.train_dataset)
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
        batch[TRAINING] = training_marks(len(batch))
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
        if self._has_our_manager:
            queued.check_marks(lambda extras: ERROR in extras or not extras)
        self._warn(self._groups.check(queued))
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
        self._costs.append(credit.costs())
        self._warn(server_warnings(self._costs[-1]))
        self._warn(credit.warnings())
        self.credited = credit
        return written

    def fit(self, agent_loop_manager: Any) -> Any:
        """verl's training; at its end, which bounds were never checked."""
        ended = super().fit(agent_loop_manager)
        self._warn({line: line for line in self._watch.unchecked})
        return ended

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """verl's step, what its scores cost, then the bounds on what is known after it.

        A stop saves a checkpoint here, where verl saves too: later the weights are with the
        servers that sample.
        """
        self._costs.clear()
        batch = super().step(metrics, timing_raw)
        metrics.update(logged_costs(self._costs, self.credit_settings.judge_prices))
        step = int(self.global_steps)
        stop = self._check_bounds(metrics, step, is_early)
        if stop is not None:
            self._stop(stop, step)
        return batch

    def _check_bounds(
        self, metrics: Mapping[str, Any], step: int, is_meant: Callable[[str], bool]
    ) -> str | None:
        """Compare those metrics with their bounds, and warn; returns why the run must stop."""
        names = [bound.metric for bound in self.credit_settings.watch if is_meant(bound.metric)]
        verdict = self._watch.check(metrics, step, names)
        self._warn({line: line for line in verdict.warnings})
        return verdict.stop

    def _stop(self, reason: str, step: int) -> None:
        """Save a checkpoint, unless verl will, and make this step the last one."""
        every = self.config.trainer.save_freq
        is_last = step >= self.total_training_steps
        if every <= 0 or (step % every and not is_last):
            self._save_checkpoint()
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{step}"
        print(f"stopped by {reason}; checkpoint: {folder}", flush=True)
        self.total_training_steps = step

    def _compute_metrics(
        self,
        batch: Any,
        metrics: dict[str, Any],
        timing_raw: dict[str, float],
        global_steps: int,
        epoch: int,
    ) -> None:
        """verl's metrics, the share of scoring in the step's time, and the bounds on verl's own."""
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        metrics.update(scoring_shares(metrics, timing_raw["step"]))
        self._check_bounds(metrics, global_steps, lambda name: not is_early(name))

    @cached_property
    def _watch(self) -> Watch:
        return Watch(self.credit_settings.watch)

    @cached_property
    def _has_our_manager(self) -> bool:
        """Whether the reward loop says of each row of training whether it failed."""
        return is_our_manager(self.config)

    @cached_property
    def _costs(self) -> list[Mapping[str, ScoringCost]]:
        """What the scores of each batch of the current step took."""
        return []

    @cached_property
    def _groups(self) -> WholeGroups:
        sessions = int(self.config.actor_rollout_ref.rollout.n)
        return WholeGroups(sessions, has_own_sampler(self.config))


class StepCreditPPOTrainer(TokenCreditTrainer, PPOTrainerSync):  # type: ignore[misc]
    """verl's synchronous trainer with one advantage per token: `trainer_mode=stepcredit`."""

    verl_mode = "sync"


class StepCreditColocateAsync(TokenCreditTrainer, PPOTrainerColocateAsync):  # type: ignore[misc]
    """verl's asynchronous trainer whose servers share the GPUs of training."""

    verl_mode = "colocate_async"


class StepCreditSeparateAsync(TokenCreditTrainer, PPOTrainerSeparateAsync):  # type: ignore[misc]
    """verl's asynchronous trainer whose servers have GPUs of their own (fully asynchronous)."""

    verl_mode = "separate_async"


TRAINERS: dict[str, type[TokenCreditTrainer]] = {
    MODE: StepCreditPPOTrainer,
    f"{MODE}_colocate_async": StepCreditColocateAsync,
    f"{MODE}_separate_async": StepCreditSeparateAsync,
}
"""Our trainers by the value of `trainer.v1.trainer_mode`."""
USE_OURS = f"use one of the modes {', '.join(TRAINERS)}"


def is_verls_own(trainer: type) -> bool:
    """Whether a trainer is one of verl's own, without token credit; one of a user's may have it."""
    return trainer.__module__.startswith("verl.")


def check_verls_own(config: Any, trainer: type) -> None:
    """Refuse keys of credit that a trainer of verl's own would ignore.

    Args:
        config: verl's.
        trainer: the class of its trainer mode; one that is not verl's own is not checked.

    Raises:
        EngineError: one line that begins with the key.
    """
    if is_verls_own(trainer):
        mode = f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode}"
        check_other_trainer(config, mode, USE_OURS)


def check_golds(found: Preflight, config: Any, settings: VerlSettings, dataset: Any) -> None:
    """Check the gold answers of a data set: that they can be read, and what verl's filter does.

    Args:
        found: gets a fault for an answer that the outcome's reward can't read and does not leave
            unknown, and one for a filter of groups that unknown outcomes break.
        config: verl's.
        settings: of credit; without a reward of the outcome nothing is checked.
        dataset: verl's; one without a table of its rows is not checked.
    """
    table: Any = getattr(dataset, "dataframe", None)
    rule, column = settings.outcome_reward, "reward_model"
    if rule is None or column not in getattr(table, "column_names", ()):
        return
    golds = [(each or {}).get("ground_truth") for each in table[column]]
    place, read = f"{CONFIG_KEY}.outcome_reward_fields", f"{column}.ground_truth"
    found.run("gold answers", lambda: refuse_unreadable(rule, golds, place, read))
    found.run(FILTER, lambda: check_filtered_golds(config, settings, golds))


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
    found.run("verl's hooks", lambda: check_trainer_hooks(PPOTrainer, transfer_queue))
    faults = len(found.errors)
    settings = VerlSettings.collected(config, found)
    if len(found.errors) == faults:
        found.run("verl's settings", lambda: check_config(config, settings))
    libraries = config.actor_rollout_ref.model.get("external_lib")  # may register a policy loss
    found.run("external_lib", lambda: import_external_libs(libraries))
    found.run("policy loss", lambda: check_policy_loss(config.actor_rollout_ref.actor))
    return settings


def register_trainers() -> None:
    """Register the trainers with verl, each as its trainer mode, and let verl's check the keys.

    Raises:
        EngineError: another class has such a mode.
    """
    for mode, trainer in TRAINERS.items():
        other = TRAINER_REGISTRY.setdefault(mode, trainer)
        if other is not trainer:
            reason = f"{mode!r} is already {other.__module__}.{other.__qualname__}"
            raise EngineError(reason, field="trainer.v1.trainer_mode")
    guard(PPOTrainer, "init", lambda trainer: check_verls_own(trainer.config, type(trainer)))


register_trainers()
