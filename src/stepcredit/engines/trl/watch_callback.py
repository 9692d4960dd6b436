"""`WatchCallback`: TRL's trainer warns or stops where a logged metric leaves its bounds."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from stepcredit.credit.metrics.batch_warnings import CreditWarning
from stepcredit.engines.run_record import by_stream
from stepcredit.engines.scoring_costs import Prices, has_judge, has_server
from stepcredit.engines.trl.signal_streams import Given, has_named_streams
from stepcredit.engines.watch import Bound, CostStreams, Watch, check_watched, every_stream

OF_LOGS = ("loss", "grad_norm", "learning_rate")
"""Metrics of transformers' trainer, which exist only where it logs (`logging_steps`)."""
OF_TRAINER = (
    *OF_LOGS,
    *("reward", "reward_std", "frac_reward_zero_std", "entropy", "kl", "step_time"),
    "num_tokens",
    *(f"completions/{of}_length" for of in ("mean", "min", "max")),
    *(f"completions/{of}_terminated_length" for of in ("mean", "min", "max")),
    *("completions/clipped_ratio", "tools/call_frequency", "tools/failure_frequency"),
    *(f"clip_ratio/{of}" for of in ("low_mean", "low_min", "high_mean", "high_max", "region_mean")),
    *(f"sampling/sampling_logp_difference/{of}" for of in ("mean", "max")),
    *(f"sampling/importance_sampling_ratio/{of}" for of in ("min", "mean", "max")),
    *("policy_loss", "entropy_coef", "aux_loss", "cispo_clip_ratio", "vespo/phi_seq_mean"),
)
"""Metrics that TRL 1.16 logs itself, beside those of each reward function."""


def trainer_metrics(rewards: Iterable[str]) -> Iterator[str]:
    """The names of the metrics that TRL logs itself.

    Args:
        rewards: names of its reward functions.

    Example:
        >>> "rewards/accuracy/mean" in set(trainer_metrics(["accuracy"]))
        True
    """
    yield from OF_TRAINER
    for name in rewards:
        yield from (f"rewards/{name}/{of}" for of in ("mean", "std"))


def check_watch(
    bounds: Iterable[Bound],
    process_signal: Given,
    rewards: Iterable[str],
    logprobs: Given = None,
    prices: Prices | None = None,
) -> None:
    """Refuse bounds on metrics that a run does not log.

    Args:
        bounds: of the run.
        process_signal: the trainer's.
        rewards: names of its reward functions.
        logprobs, prices: the trainer's `logprobs` and `judge_prices`.

    Raises:
        EngineError: the first such bound, with the closest names.
    """
    known = has_named_streams(process_signal)
    streams = every_stream(by_stream(process_signal)) if known else None
    costs, names = _cost_streams(process_signal, logprobs, prices or {}), list(rewards)
    own = tuple(f"{name}/" for name in names)  # what functions log by `log_metric`
    check_watched(bounds, "watch", "trl", streams, trainer_metrics(names), own, costs)


def _cost_streams(process_signal: Given, logprobs: Given, prices: Prices) -> CostStreams:
    """The streams whose scoring a trainer measures, under the names it logs."""
    sources = by_stream(process_signal)
    if isinstance(logprobs, Mapping):
        sources |= {f"{model}_logprobs": source for model, source in logprobs.items()}
    elif logprobs is not None:
        sources["logprobs"] = logprobs
    judged = [name for name, source in sources.items() if has_judge(source)]
    served = [name for name, source in sources.items() if has_server(source)]
    return CostStreams(list(sources), judged, list(prices), served)


class WatchCallback(TrainerCallback):  # type: ignore[misc]
    """Compares the metrics of each generation with bounds, and warns or stops.

    A generation has one value of a metric: the mean of its values from one generation's end to the
    next. A stop waits for the end of a generation, so that the checkpoint can be resumed; the first
    process decides for all of them.

    Args:
        trainer: a `ResumingGRPOTrainer`.
        bounds: of the run.

    Attributes:
        stopped: why the run was stopped, in one line; None: it was not.
    """

    def __init__(self, trainer: Any, bounds: Sequence[Bound]) -> None:
        self.trainer, self.watch = trainer, Watch(bounds)
        self.stopped: str | None = None
        self._names = list(dict.fromkeys(bound.metric for bound in bounds))
        self._read: dict[str, tuple[list[float], int]] = {}
        self._values: dict[str, list[float]] = defaultdict(list)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count anew, without what is there already: an earlier run's, or a checkpoint's values."""
        self.watch, self.stopped = Watch(self.watch.bounds), None
        self._values.clear()
        restored = (self.trainer._restored or {}).get("metrics", {})
        there = {**self.trainer._metrics["train"], **restored}
        self._read = {name: (given, len(given)) for name, given in there.items()}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Collect the values of the step; compare them where a generation ends."""
        for name in self._names:
            self._values[name] += self._new_values(name)
        if not self.trainer.is_between_generations:
            return
        values = {name: _mean(given) for name, given in self._values.items() if given}
        self._values.clear()
        expected = [name for name in self._names if name in values or name not in OF_LOGS]
        verdict = self.watch.check(values, state.global_step, expected)
        if state.is_world_process_zero:
            for line in verdict.warnings:
                warnings.warn(line, CreditWarning, stacklevel=2)
        self.stopped = self._for_all_processes(verdict.stop)
        if self.stopped is not None:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Collect what exists only in logs."""
        for name in self._names:
            if name in OF_LOGS and name in (logs or {}):
                self._values[name].append(float(logs[name]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say why the run was stopped, and which bounds had no value, on the first process."""
        if not state.is_world_process_zero:
            return
        for line in self.watch.unchecked:
            warnings.warn(line, CreditWarning, stacklevel=2)
        if self.stopped is not None:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            print(f"stopped by {self.stopped}; checkpoint: {folder}", flush=True)

    def _new_values(self, name: str) -> list[float]:
        """What was added to a metric's list since the last time; after a log it is a new list."""
        given: list[float] = self.trainer._metrics["train"].get(name, [])
        known, count = self._read.get(name, (given, 0))
        self._read[name] = (given, len(given))
        return given[count if known is given else 0 :]

    def _for_all_processes(self, stop: str | None) -> str | None:
        """What the first process decided."""
        stops = any(bound.stops for bound in self.watch.bounds)
        if not stops or self.trainer.accelerator.num_processes == 1:
            return stop
        decided = [stop]
        broadcast_object_list(decided)
        return decided[0]


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are known; NaN where none is."""
    known = [value for value in values if not isnan(value)]
    return fmean(known) if known else nan
