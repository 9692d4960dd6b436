"""RL with one method: TRL's GRPOTrainer through `engines.trl`, recorded at each update."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig

import stepcredit as sc
from stepcredit.credit.metrics.batch_warnings import CreditWarning
from stepcredit.credit.metrics.metric_table import PREFIX
from stepcredit.engines.scoring_costs import SECONDS, STEP_SHARE
from stepcredit.engines.trl.checkpointing import CreditReport
from stepcredit.lab.devices import is_gpu
from stepcredit.lab.evaluate import HELD_OUT_SEED, Evaluation, evaluate, evaluation_columns
from stepcredit.lab.grading import Problem
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.outcome_signals import OutcomeSignal, Policy
from stepcredit.lab.packed import without_padding
from stepcredit.lab.readers import Readers
from stepcredit.lab.resume import mark
from stepcredit.lab.rollout_grader import RolloutGrader
from stepcredit.lab.runs import RunFolder
from stepcredit.lab.sampled_trainer import SampledTrainer
from stepcredit.lab.sampling import StepSampler, sample
from stepcredit.signals.models.checkpoints import quiet_transformers

TIMES = ("step_time", "epoch", PREFIX + SECONDS, PREFIX + STEP_SHARE)
"""Beginnings of the names of what differs between two equal runs."""
Watch = Callable[[str, dict[str, Any]], None]


def load_policy(path: Path, device: str = "cpu") -> tuple[Any, Any]:
    """Load (model, tokenizer) from a checkpoint, in float32; the model leaves padding out."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return without_padding(model).to(device), AutoTokenizer.from_pretrained(path)


def evaluate_policy(settings: LabSettings, model: Any, tokenizer: Any) -> dict[str, Evaluation]:
    """Evaluate a policy on each of the task's splits, by the split's label.

    It is done each time on the same problems and with the same random draws.
    """
    task = settings.built_task()
    return {
        label: evaluate(
            model,
            tokenizer,
            task.problems(settings.evaluation_problems, split, HELD_OUT_SEED),
            settings.evaluation_samples,
            settings.seed,
            max_new_tokens=settings.max_new_tokens,
            task=task,
        )
        for label, split in task.evaluation_splits.items()
    }


def grader(
    settings: LabSettings, model: Any, tokenizer: Any, readers: Readers | None = None
) -> RolloutGrader:
    """The grader of the run's task, with the run's signal and the models that are read."""
    task, signal = settings.built_task(), settings.process_signal()
    if isinstance(signal, OutcomeSignal):
        signal.policy = Policy(model, tokenizer, settings.max_new_tokens, sample)
    weight, known = settings.weights[2], settings.known_outcomes()
    return RolloutGrader(task, tokenizer, signal, weight, readers, known)


def load_readers(
    settings: LabSettings, folder: RunFolder, estimator: sc.Estimator, policy: Any, tokenizer: Any
) -> Readers | None:
    """The models whose log-probs the method and its signal read; None if there are none."""
    names = settings.models_read(estimator)
    if not names:
        return None
    paths = folder.teacher, folder.warm_start
    teacher, base = (load_policy(path, settings.device)[0] for path in paths)
    return Readers.of(names, policy, teacher, base, tokenizer)


@dataclass(frozen=True)
class Method:
    """A method to train in a run.

    Args:
        label: name of the method in the logs.
        estimator: computes the advantages.
        finished: labels of the methods trained before it.
        checkpoint: checkpoint of this method to resume from; None starts from the warm start.
    """

    label: str
    estimator: sc.Estimator
    finished: list[str]
    checkpoint: Path | None = None


def train_method(
    settings: LabSettings, folder: RunFolder, run: Method, watch: Watch, stop: threading.Event
) -> bool:
    """Train one method, from the warm start or from a checkpoint.

    Args:
        settings: the settings of the run.
        folder: the run folder, for logs and checkpoints.
        run: the method to train.
        watch: called with the label and each row of metrics.
        stop: if set, training saves a checkpoint and stops at the end of the generation.

    Returns:
        True if training is finished; False if it was stopped early.
    """
    if stop.is_set():
        return False
    model, tokenizer = load_policy(folder.warm_start, settings.device)
    readers = load_readers(settings, folder, run.estimator, model, tokenizer)
    task = grader(settings, model, tokenizer, readers)
    working = folder.working(run.label)
    trainer = build_trainer(settings, model, tokenizer, task, run.estimator, working)
    trainer.add_callback(Recorder(settings, folder, run, trainer, task, watch, stop))
    trainer.train(resume_from_checkpoint=None if run.checkpoint is None else str(run.checkpoint))
    if trainer.state.global_step < trainer.args.max_steps:
        return False
    final = folder.checkpoint(run.label, first=not run.finished)
    model.save_pretrained(final)
    tokenizer.save_pretrained(final)
    return True


def build_trainer(
    settings: LabSettings,
    model: Any,
    tokenizer: Any,
    task: RolloutGrader,
    estimator: sc.Estimator,
    output_dir: Path,
) -> SampledTrainer:
    """TRL's trainer on the task, with the estimator's advantages.

    For a method that cannot weight the format, the outcome is outcome + weight x format. A signal
    that runs a model is left out if the method does not read it; others are still recorded.
    """
    drawn = training_problems(settings, estimator)
    costly = isinstance(task.signal, OutcomeSignal) or bool(task.signal.models)
    scored = estimator.reads.process is not None or not costly
    tools = task.environment
    trainer = SampledTrainer(
        model=model,
        reward_funcs=task.reward_functions(),
        args=grpo_config(settings, output_dir),
        train_dataset=Dataset.from_list([{"prompt": p.prompt} for p in drawn]),
        processing_class=tokenizer,
        method=estimator,
        process_signal=task.process_signal if scored else None,
        logprobs=task.logprobs if estimator.reads.logprobs else None,
        outcome_reward=outcome_source(settings, estimator),
        format_reward="format_reward",
        rollout_func=StepSampler(settings.seed, settings.max_new_tokens, tools),
        states=tools.states if tools is not None and estimator.reads.states else None,
        preflight=False,  # all that it would load is made here
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(CreditReport)
    return trainer


def training_problems(settings: LabSettings, estimator: sc.Estimator) -> list[Problem]:
    """The problems of a run in order: those with a known outcome alone for a method that needs it.

    Raises:
        StepCreditError: the method needs outcomes, and none of the problems has one.
    """
    number = settings.updates * settings.prompts
    drawn = settings.built_task().problems(number, "train", settings.seed)
    needs = estimator.reads.outcome == "required"
    return settings.known_outcomes().known(drawn) if needs else drawn


def outcome_source(settings: LabSettings, estimator: sc.Estimator) -> str:
    """Name of the reward function that is the outcome.

    Example:
        >>> outcome_source(LabSettings(), sc.PASS()), outcome_source(LabSettings(), sc.GRPO())
        ('accuracy', 'task_reward')
    """
    if not can_weight_format(estimator):
        return "task_reward"
    return "accuracy" if settings.answered == 1 else "known_accuracy"


def can_weight_format(estimator: sc.Estimator) -> bool:
    """Whether the method has weights for the format, even if these settings leave it out.

    Example:
        >>> can_weight_format(sc.GDPO(weights={"outcome": 1.0})), can_weight_format(sc.GRPO())
        (True, False)
    """
    both = estimator.reads, sc.estimator(estimator.name).reads
    return any(reads.format or reads.weights is not None for reads in both)


def grpo_config(settings: LabSettings, output_dir: Path) -> GRPOConfig:
    """TRL's settings: one device, float32, one checkpoint per `checkpoint_every` generations."""
    config = GRPOConfig(
        output_dir=str(output_dir),
        seed=settings.seed,
        max_steps=settings.updates * settings.minibatches,
        per_device_train_batch_size=settings.prompts * settings.group_size // settings.minibatches,
        steps_per_generation=settings.minibatches,
        num_generations=settings.group_size,
        max_completion_length=settings.max_new_tokens,
        temperature=1.0,
        beta=0.0,
        loss_type=settings.loss,
        epsilon=settings.clip_ratio,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        weight_decay=0.0,
        max_grad_norm=settings.max_grad_norm,
        shuffle_dataset=False,
        use_cpu=not is_gpu(settings.device),
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
        logging_steps=settings.minibatches,
        save_strategy="steps",
        save_steps=settings.checkpoint_every * settings.minibatches,
        save_total_limit=2,
    )
    config._n_gpu = min(1, config.n_gpu)  # of several GPUs, transformers would split the batch
    return config


class Recorder(TrainerCallback):
    """Writes the logs after each generation, evaluates, and marks complete checkpoints."""

    def __init__(
        self,
        settings: LabSettings,
        folder: RunFolder,
        run: Method,
        trainer: SampledTrainer,
        task: RolloutGrader,
        watch: Watch,
        stop: threading.Event,
    ) -> None:
        self.settings, self.folder, self.run, self.stop = settings, folder, run, stop
        self.trainer, self.task, self.watch = trainer, task, watch
        self.clock = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After an interrupt, save at the end of the generation, whatever `checkpoint_every` is."""
        if self.stop.is_set() and state.global_step % self.settings.minibatches == 0:
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write one row of metrics per update; evaluate and write rollouts when they are due."""
        logs, batch = kwargs["logs"], self.trainer.credited
        if "reward" not in logs or batch is None:
            return
        update = state.global_step // self.settings.minibatches
        row = {"method": self.run.label, "update": update}
        row |= {name: value for name, value in logs.items() if not name.startswith(TIMES)}
        row |= {"reward": logs["rewards/task_reward/mean"], **self.task.figures(batch)}
        if self._due(update, self.settings.evaluate_every):
            tokenizer = self.trainer.processing_class
            found = evaluate_policy(self.settings, self.trainer.model, tokenizer)
            row |= evaluation_columns(found)
        self.folder.append("metrics", [row])
        if update == 1 or self._due(update, self.settings.record_every):
            self.folder.append("rollouts", self.task.rows(batch, self.run.label, update))
        self._log_times(update, logs)
        self.watch(self.run.label, row)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as complete, now that all its files are written."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        mark(self.folder, self.run.finished, checkpoint)
        if self.stop.is_set():
            control.should_training_stop = True

    def _due(self, update: int, every: int) -> bool:
        return update % every == 0 or update == self.settings.updates

    def _log_times(self, update: int, logs: dict[str, Any]) -> None:
        """Log all times of the update apart from the metrics, as they differ between runs."""
        now = time.perf_counter()
        row = {"method": self.run.label, "update": update, "seconds": round(now - self.clock, 3)}
        row |= {name: value for name, value in logs.items() if name.startswith(TIMES)}
        self.folder.append("timing", [row])
        self.clock = now


@contextmanager
def interrupts(stop: threading.Event) -> Iterator[None]:
    """Inside the block, the first SIGINT sets `stop`, and the second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def first(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the libraries' progress bars, notices and deprecation warnings inside the block."""
    disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", CreditWarning)
        warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)
        yield
