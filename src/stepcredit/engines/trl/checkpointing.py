"""Checkpoints from which TRL training resumes bit for bit.

TRL samples once for several updates and keeps the samples in memory, so training cannot resume
exactly from a checkpoint written in the middle of a generation. Here a checkpoint is written only
after all updates on a generation.
"""

from __future__ import annotations

import warnings
from math import lcm
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.grpo_trainer import GRPOTrainer

from stepcredit.engines.run_record import (
    Record,
    check_same_credit,
    lines_of,
    new_run,
    read_run,
    write_run,
)
from stepcredit.engines.trl.start_checks import check_enough_rows
from stepcredit.errors import EngineError

STATE = "stepcredit_state.pt"
RESUME = "resume_from_checkpoint"
"""The setting that names the checkpoint, for errors."""


def last_checkpoint(folder: str | Path) -> tuple[str | None, list[str]]:
    """The last checkpoint of the run that wrote into a folder last.

    Args:
        folder: a run's `output_dir`.

    Returns:
        Its path, or None; and the names of the checkpoints of other runs, which may have higher
        steps. In a folder that names no run all checkpoints count.

    Example:
        >>> import tempfile
        >>> last_checkpoint(tempfile.mkdtemp())
        (None, [])
    """
    run, _ = read_run(folder)
    there = checkpoints_in(folder)
    own = [path for path in there if run is None or read_run(path)[0] == run]
    return str(own[-1]) if own else None, [path.name for path in there if path not in own]


def checkpoints_in(folder: str | Path) -> list[Path]:
    """The folders of checkpoints in a run's folder, by step."""
    found = Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    steps = {path: path.name.rpartition("-")[2] for path in found if path.is_dir()}
    there = [path for path, step in steps.items() if step.isdecimal()]
    return sorted(there, key=lambda path: int(steps[path]))


class CreditReport(TrainerCallback):  # type: ignore[misc]
    """Prints what credit is made of when training starts; `remove_callback` silences it.

    Args:
        trainer: whose record is printed.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print the record, on the first process."""
        if state.is_world_process_zero:
            print(*lines_of(self.trainer.credit_record), sep="\n", flush=True)


def updates_per_generation(args: Any) -> int:
    """Optimizer steps until all updates on a generation are done, counted from its beginning.

    Example:
        >>> from types import SimpleNamespace as Args
        >>> updates_per_generation(Args(
        ...     steps_per_generation=2, num_iterations=3, gradient_accumulation_steps=2))
        3
    """
    every = args.steps_per_generation * args.num_iterations
    return lcm(args.gradient_accumulation_steps, every) // args.gradient_accumulation_steps


def check_saving(args: Any, *, stops: bool = False) -> None:
    """Refuse settings under which a resumed run would differ from an uninterrupted one.

    Args:
        args: the config.
        stops: whether a watch may stop the run, with a checkpoint.

    Raises:
        EngineError: one line, beginning with the setting.
    """
    if args.ignore_data_skip:
        reason = "True resumes with the wrong prompts; leave it off"
        raise EngineError(reason, field="ignore_data_skip")
    if stops and args.save_only_model:
        reason = "True writes checkpoints that can't be resumed, but a stop of watch needs one that"
        raise EngineError(f"{reason} can; let watch only warn", field="save_only_model")
    saves = args.save_strategy != "no" or stops
    if saves and args.sync_ref_model:
        reason = "True changes the reference, which no checkpoint holds; set save_strategy='no'"
        reason += " and let watch only warn" if stops else ""
        raise EngineError(reason, field="sync_ref_model")
    if args.enable_jit_checkpoint:
        reason = "True saves within a generation; save every few steps instead"
        raise EngineError(reason, field="enable_jit_checkpoint")


def check_best(args: Any, state: Any) -> None:
    """Refuse to keep the best model at steps where no checkpoint can be written.

    Args:
        args: the config.
        state: the trainer's state, with its numbers of steps.

    Raises:
        EngineError: one line, beginning with the setting.
    """
    if args.save_strategy != "best" and not args.load_best_model_at_end:
        return
    every = updates_per_generation(args)
    settings = {"max_steps": state.max_steps}
    if args.eval_strategy == "steps":
        settings["eval_steps"] = state.eval_steps
    if args.save_strategy == "steps":
        settings["save_steps"] = state.save_steps
    for field, steps in settings.items():
        if steps % every:
            reason = f"step {steps} is within a generation, where the best model can't be kept"
            raise EngineError(f"{reason}; use a multiple of {every}", field=field)


def check_other_checkpoints(args: Any) -> None:
    """Refuse a new run whose checkpoints would be deleted in favour of an earlier run's.

    Args:
        args: the config.

    Raises:
        EngineError: names the newest checkpoint that is there.
    """
    others = checkpoints_in(str(args.output_dir))
    if others and args.save_total_limit and args.save_strategy != "no":
        reason = f"{args.output_dir} holds {others[-1].name} of an earlier run, and the lowest"
        reason += " numbers are deleted first: name another output_dir"
        raise EngineError(reason, field="save_total_limit")


def check_is_whole(checkpoint: str | Path) -> None:
    """Refuse a checkpoint without the state from which training goes on.

    Raises:
        EngineError: names the checkpoint.
    """
    if not any(Path(checkpoint).glob("rng_state*.pth")):
        reason = f"{checkpoint} holds only the model: start a new training from it"
        raise EngineError(reason, field=RESUME)


def check_resumed(checkpoint: str, record: Record) -> None:
    """Refuse to resume from a checkpoint that is not whole, or was trained with other credit.

    Args:
        checkpoint: its folder.
        record: what credit is made of now.

    Raises:
        EngineError: says what is missing, or what differs.
    """
    check_is_whole(checkpoint)
    check_same_credit(read_run(checkpoint)[1], record, RESUME, checkpoint)


class ResumingGRPOTrainer(GRPOTrainer):
    """TRL's trainer, which resumes bit for bit from any checkpoint it writes.

    A save in the middle of a generation waits until all updates on the generation are done; at the
    end of training the model alone is written instead, into `output_dir`. A checkpoint also holds
    the figures that are not logged yet.

    Source: trl 1.16.0 and transformers 5.23, trainer.py. Differs: when a checkpoint is written, and
    that the order of prompts in a later epoch is restored.
    """

    _train_sampler: Any = None
    _waiting = False
    _restored: dict[str, Any] | None = None
    _run = ""

    @property
    def credit_record(self) -> Record:
        """What credit is made of; it is kept with checkpoints and must not change between them."""
        return {}

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **rest: Any
    ) -> Any:
        """TRL's training; `True` resumes from the last checkpoint of this folder's last run."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint, _ = last_checkpoint(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                reason = f"no checkpoint in {self.args.output_dir}"
                raise EngineError(reason, field=RESUME)
        return super().train(resume_from_checkpoint, *args, **rest)

    @property
    def is_between_generations(self) -> bool:
        """Whether all updates on the generation are done."""
        return bool(self._step % self._substeps == 0)

    @property
    def _substeps(self) -> int:
        """Micro-batches that are made of one generation."""
        args: Any = self.args
        return int(args.steps_per_generation * args.num_iterations)

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[Any]:
        rows: Any = self.train_dataset if dataset is None else dataset
        check_enough_rows(self.args, len(rows), "train_dataset")
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler  # type: ignore[no-any-return]

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, checkpoint: Any, trial: Any
    ) -> tuple[int, int]:
        """Refuse a checkpoint that training can't resume from; restore the epoch's prompt order."""
        if checkpoint is not None:
            check_is_whole(checkpoint)
        self._step, self._buffered_inputs, self._waiting = 0, None, False
        done: tuple[int, int] = super()._init_training_state(
            max_steps, steps_per_epoch, epochs, checkpoint, trial
        )
        check_best(self.args, self.state)
        step = self.state.global_step
        if done[1] % self._substeps:
            reason = f"step {step} is within a generation; resume from a multiple of"
            every = updates_per_generation(self.args)
            raise EngineError(f"{reason} {every}", field=RESUME)
        sampler = self._train_sampler
        if getattr(sampler, "shuffle", False):
            for _ in range(done[0]):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        kept = None if checkpoint is None else Path(checkpoint) / STATE
        self._restored = (
            torch.load(kept, weights_only=True) if kept is not None and kept.exists() else None
        )
        self._check_processes()
        self._begin_run(checkpoint)
        return (epochs, 0) if checkpoint is not None and step >= max_steps else done

    def _begin_run(self, checkpoint: Any) -> None:
        """Name a new run, or take the checkpoint's name and refuse other credit than its own."""
        folder, record = str(self.args.output_dir), self.credit_record
        if checkpoint is None:
            self._run = new_run()
            self._check_other_runs()
        else:
            name, before = read_run(checkpoint)
            self._run = name or new_run()
            check_same_credit(before, record, RESUME, str(checkpoint))
        if self.args.should_save:
            write_run(folder, self._run, record)

    def _check_other_runs(self) -> None:
        """Refuse a new run beside the files of an earlier one, where some would be lost."""
        check_other_checkpoints(self.args)

    def _check_processes(self) -> None:
        """Refuse a checkpoint of another number of processes: samples and order would differ."""
        there = self.accelerator.num_processes
        wrote = there if self._restored is None else self._restored["loss"].numel()
        if wrote != there:
            reason = f"it was written by {wrote} processes, but there are {there}: start {wrote}"
            raise EngineError(reason, field=RESUME)

    def _maybe_log_save_evaluate(self, tr_loss: Any, *args: Any, **kwargs: Any) -> None:
        self.control.should_save |= self._waiting
        self._waiting = self.control.should_save and not self.is_between_generations
        self.control.should_save &= not self._waiting
        if self._waiting and self.control.should_training_stop:
            self._waiting = False
            self._save_the_model_alone()
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)

    def _save_the_model_alone(self) -> None:
        step, folder = self.state.global_step, self.args.output_dir
        text = f"step {step} is within a generation: the model is in {folder}, without a checkpoint"
        warnings.warn(text, UserWarning, stacklevel=2)
        self.save_model()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        unlogged = self._unlogged()
        if self.args.should_save and not self.args.save_only_model:
            folder = Path(self._get_output_dir(trial=trial))
            folder = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(unlogged, folder / STATE)
            write_run(folder, self._run, self.credit_record)
        super()._save_checkpoint(model, trial)

    def _unlogged(self) -> dict[str, Any]:
        """What the next log averages, and the last logged step; called on each process."""
        return {
            "metrics": dict(self._metrics["train"]),
            "loss": self.accelerator.gather(self._tr_loss.reshape(1)).cpu(),
            "last_logged": self._globalstep_last_logged,
        }

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's step; the first one of a resumed run restores the figures that were not logged."""
        if self._restored is not None:
            kept, self._restored = self._restored, None
            self._metrics["train"].update(kept["metrics"])
            self._tr_loss += kept["loss"][self.accelerator.process_index].to(self._tr_loss)
            self._globalstep_last_logged = kept["last_logged"]
        return super().training_step(*args, **kwargs)
