"""Checkpoints of TRL's trainer that hold: what goes on from one is what would have come anyway.

TRL samples once for several updates and keeps the samples in memory, so a checkpoint between two
samplings can't be gone on from exactly. Here checkpoints are written only where one sampling's
updates are done.
"""

from __future__ import annotations

import warnings
from math import lcm
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.grpo_trainer import GRPOTrainer

from stepcredit.engines.trl.start_checks import check_row_count
from stepcredit.errors import EngineError

STATE = "stepcredit_state.pt"


def updates_a_sampling(args: Any) -> int:
    """Optimizer steps after which a sampling's updates are done, if counted from such a step.

    Example:
        >>> from types import SimpleNamespace as Args
        >>> updates_a_sampling(Args(
        ...     steps_per_generation=2, num_iterations=3, gradient_accumulation_steps=2))
        3
    """
    every = args.steps_per_generation * args.num_iterations
    return lcm(args.gradient_accumulation_steps, every) // args.gradient_accumulation_steps


def check_saving(args: Any) -> None:
    """Refuse settings under which a run that goes on from a checkpoint would be another run.

    Raises:
        EngineError: one line, beginning with the setting.
    """
    if args.ignore_data_skip:
        reason = "True goes on with other prompts than were left; leave it off"
        raise EngineError(reason, field="ignore_data_skip")
    saves = args.save_strategy != "no"
    if saves and args.sync_ref_model:
        reason = "True moves the reference, which no checkpoint holds; set save_strategy='no'"
        raise EngineError(reason, field="sync_ref_model")
    if args.enable_jit_checkpoint:
        reason = "True saves between two samplings; save every few steps instead"
        raise EngineError(reason, field="enable_jit_checkpoint")


def check_best(args: Any, state: Any) -> None:
    """Refuse to look for the best model where no checkpoint can be written.

    Args:
        args: the config.
        state: the trainer's, with its numbers of steps.

    Raises:
        EngineError: one line, beginning with the setting.
    """
    if args.save_strategy != "best" and not args.load_best_model_at_end:
        return
    every = updates_a_sampling(args)
    asked = {"max_steps": state.max_steps}
    if args.eval_strategy == "steps":
        asked["eval_steps"] = state.eval_steps
    if args.save_strategy == "steps":
        asked["save_steps"] = state.save_steps
    for field, steps in asked.items():
        if steps % every:
            reason = f"step {steps} lies within a sampling, where the best model can't be kept"
            raise EngineError(f"{reason}; use a multiple of {every}", field=field)


class ResumingGRPOTrainer(GRPOTrainer):
    """TRL's trainer that goes on, bit for bit, from any checkpoint it writes.

    A save that falls within a sampling waits for its end; at the end of training the model itself
    is written instead, into `output_dir`. Figures not yet logged are in the checkpoint too.

    Source: trl 1.16.0 and transformers 5.23, trainer.py. Differs: when a checkpoint is written, and
    that a later epoch's order of prompts is found again.
    """

    _train_sampler: Any = None
    _waiting = False
    _restored: dict[str, Any] | None = None

    @property
    def between_samplings(self) -> bool:
        """Whether all updates on what was sampled are done."""
        return bool(self._step % self._substeps == 0)

    @property
    def _substeps(self) -> int:
        """Micro-batches that are made of one sampling."""
        args: Any = self.args
        return int(args.steps_per_generation * args.num_iterations)

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[Any]:
        rows: Any = self.train_dataset if dataset is None else dataset
        check_row_count(self.args, len(rows), "train_dataset")
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler  # type: ignore[no-any-return]

    def _init_training_state(
        self, max_steps: int, steps_an_epoch: int, epochs: int, checkpoint: Any, trial: Any
    ) -> tuple[int, int]:
        """Refuse a checkpoint that does not hold; bring the sampler to the epoch's order."""
        if checkpoint is not None and not any(Path(checkpoint).glob("rng_state*.pth")):
            reason = f"{checkpoint} holds the model alone: train from it anew"
            raise EngineError(reason, field="resume_from_checkpoint")
        self._step, self._buffered_inputs, self._waiting = 0, None, False
        done: tuple[int, int] = super()._init_training_state(
            max_steps, steps_an_epoch, epochs, checkpoint, trial
        )
        check_best(self.args, self.state)
        step = self.state.global_step
        if done[1] % self._substeps:
            reason = f"step {step} lies within a sampling; go on from a multiple of"
            every = updates_a_sampling(self.args)
            raise EngineError(f"{reason} {every}", field="resume_from_checkpoint")
        sampler = self._train_sampler
        if getattr(sampler, "shuffle", False):
            for _ in range(done[0]):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        kept = None if checkpoint is None else Path(checkpoint) / STATE
        self._restored = (
            torch.load(kept, weights_only=True) if kept is not None and kept.exists() else None
        )
        self._check_processes()
        return done

    def _check_processes(self) -> None:
        """Refuse a checkpoint of more or fewer processes: samples and order would be others."""
        there = self.accelerator.num_processes
        wrote = there if self._restored is None else self._restored["loss"].numel()
        if wrote != there:
            reason = f"{wrote} processes wrote it, here {there} would go on: start as many"
            raise EngineError(reason, field="resume_from_checkpoint")

    def _maybe_log_save_evaluate(self, tr_loss: Any, *args: Any, **kwargs: Any) -> None:
        self.control.should_save |= self._waiting
        self._waiting = self.control.should_save and not self.between_samplings
        self.control.should_save &= not self._waiting
        if self._waiting and self.control.should_training_stop:
            self._waiting = False
            self._save_the_model_alone()
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)

    def _save_the_model_alone(self) -> None:
        step, folder = self.state.global_step, self.args.output_dir
        text = f"step {step} lies within a sampling: the model is in {folder}, without a checkpoint"
        warnings.warn(text, UserWarning, stacklevel=2)
        self.save_model()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        unlogged = self._unlogged()
        if self.args.should_save and not self.args.save_only_model:
            folder = Path(self._get_output_dir(trial=trial))
            folder = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(unlogged, folder / STATE)
        super()._save_checkpoint(model, trial)

    def _unlogged(self) -> dict[str, Any]:
        """What the next log will average, and since when; called on every process."""
        return {
            "metrics": dict(self._metrics["train"]),
            "loss": self.accelerator.gather(self._tr_loss.reshape(1)).cpu(),
            "last_logged": self._globalstep_last_logged,
        }

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's; the first one after going on takes up the figures that were not logged yet."""
        if self._restored is not None:
            kept, self._restored = self._restored, None
            self._metrics["train"].update(kept["metrics"])
            self._tr_loss += kept["loss"][self.accelerator.process_index].to(self._tr_loss)
            self._globalstep_last_logged = kept["last_logged"]
        return super().training_step(*args, **kwargs)
