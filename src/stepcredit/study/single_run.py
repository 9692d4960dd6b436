"""One run of a study: the warm start from the cache, RL with one method, and the figures kept."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepcredit.errors import StepCreditError
from stepcredit.keys import digest64
from stepcredit.lab.devices import is_gpu
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.runs import RunFolder
from stepcredit.lab.warm_settings import WarmStartSettings
from stepcredit.study.run_key import supervised_models
from stepcredit.study.study_cells import reads_signal

CURVE_POINTS = 12
CURVE = {
    "pass_at_1": "rewards/accuracy/mean",
    "length": "completions/mean_length",
    "fillers": "rollouts/fillers",
    "format": "rewards/format_reward/mean",
    "entropy": "entropy",
    "teacher_kl": "rollouts/teacher_kl",
    "step_accuracy": "rollouts/step_accuracy",
    "process_std": "stepcredit/process_std",
    "outcome_std": "stepcredit/outcome_std",
    "format_std": "stepcredit/format_std",
    "clipped": "stepcredit/clipped_share",
}
"""The figures of a learning curve, and the metric of the trainer's log that each one is."""
SPLIT = "held-out"
"""Name of the evaluation set of a task that has one only."""
FIGURES = ("pass_at_1", "pass_at_8", "length", "fillers", "step_accuracy", "format")
ADDED_CURVE = {"turns": "rollouts/turns"}
"""As `CURVE`: figures that stores of this format did not always have, and not every task has."""
ADDED_FIGURES = ("turns",)
"""As `FIGURES`, likewise."""


@dataclass(frozen=True)
class EvaluatedSplit:
    """One evaluation of a policy on one set of problems.

    Args:
        split: name of the set.
        samples: answers per problem.
        correct: number of right answers to each problem.
        figures: means by name; None for a figure that the task does not have.
    """

    split: str
    samples: int
    correct: tuple[int, ...]
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class RunResult:
    """What is kept of a run.

    Args:
        start: name of the warm start, shared by the runs that began with it.
        before, after: evaluations of the warm start, and of the final policy.
        curve: rows of `CURVE` and `ADDED_CURVE` figures by update: means over the updates since the
            row before, on the training problems, each of which is seen once.
        cpu_seconds, wall_seconds: RL and the final evaluation, without the warm start.
        tokens: sampled tokens.
        signal_calls, teacher_calls, monte_carlo_calls: responses scored by the process signal, by a
            teacher, and rolled out again to estimate a value.
    """

    start: str
    before: Sequence[EvaluatedSplit]
    after: Sequence[EvaluatedSplit]
    curve: Sequence[Mapping[str, float | None]]
    cpu_seconds: float
    wall_seconds: float
    tokens: int
    signal_calls: int
    teacher_calls: int
    monte_carlo_calls: int = 0


@dataclass
class Clock:
    """CPU and wall seconds of this process since it was made."""

    cpu: float = field(default_factory=time.process_time)
    wall: float = field(default_factory=time.perf_counter)

    def seconds(self) -> tuple[float, float]:
        """(CPU seconds, wall seconds)."""
        return time.process_time() - self.cpu, time.perf_counter() - self.wall


def run_once(
    settings: LabSettings, cache_dir: Path, work_dir: Path, watch: Callable[[int], None]
) -> RunResult:
    """Train one method as `stepcredit train` does, and return its figures.

    Args:
        settings: the settings of the run.
        cache_dir: folder of the warm starts and teachers; each is built once, also by several
            processes.
        work_dir: a folder for the run's files; it is deleted at the end.
        watch: called with the number of each finished update.

    Returns:
        `RunResult`; the same numbers for the same settings on the same processor.

    Raises:
        StepCreditError: the warm start did not reach its target.
    """
    from stepcredit.credit.torch_threads import threads
    from stepcredit.lab.loop import Method, quiet, train_method

    shutil.rmtree(work_dir, ignore_errors=True)
    folder = RunFolder.create(work_dir.parent, work_dir.name, work_dir.name)
    estimator = settings.estimator(settings.method, settings.fields)
    try:
        with quiet(), threads(settings.threads):
            start, before = _prepared(settings, folder, cache_dir)
            clock = Clock()
            run = Method(settings.method, estimator, [])
            finished = train_method(
                settings, folder, run, lambda _, row: watch(row["update"]), threading.Event()
            )
            assert finished
            cpu, wall = clock.seconds()
        rows = folder.rows("metrics")
        return RunResult(
            start=start,
            before=before,
            after=evaluated_splits(rows[-1]),
            curve=curve_rows(rows),
            cpu_seconds=cpu,
            wall_seconds=wall,
            **_costs(settings, rows),
        )
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def _prepared(
    settings: LabSettings, folder: RunFolder, cache_dir: Path
) -> tuple[str, list[EvaluatedSplit]]:
    """Copy the warm start, and the teacher if it is read, and look up the start's evaluation."""
    from stepcredit.lab.comparison import WARM_START, warm_start_row
    from stepcredit.lab.loop import evaluate_policy, load_policy
    from stepcredit.lab.resume import mark

    paths = {"warm": folder.warm_start, "teacher": folder.teacher}
    for model in supervised_models(settings):
        path, start = paths[model], getattr(settings, model)
        with one_builder(cache_dir, start.key()):
            shutil.copytree(_supervised(start, cache_dir), path)
    name = start_name(settings)
    record = cache_dir / f"evaluation-{name}.json"
    with one_builder(cache_dir, record.name):
        if not record.is_file():
            policy = load_policy(folder.warm_start, settings.device)
            row = warm_start_row(evaluate_policy(settings, *policy))
            draft = record.with_suffix(".draft")
            draft.write_text(json.dumps(row))
            draft.replace(record)
    row = json.loads(record.read_text())
    assert row["method"] == WARM_START
    mark(folder, [])
    return name, evaluated_splits(row)


FAILED_START = ".failed"
"""Suffix of the file that says why a supervised training failed, beside the cached ones."""


def _supervised(start: WarmStartSettings, cache_dir: Path) -> Path:
    """The cached supervised training; one that failed is not tried again for every run."""
    from stepcredit.lab.warmstart import warm_start

    record = cache_dir / f"{start.key()}{FAILED_START}"
    if record.is_file():
        raise StepCreditError(record.read_text())
    try:
        return warm_start(start, cache_dir)
    except StepCreditError as error:
        record.write_text(str(error))
        raise


def start_name(settings: LabSettings) -> str:
    """Hash of the warm start and of how it is evaluated."""
    evaluated = [settings.evaluation_problems, settings.evaluation_samples, settings.seed]
    gpu = [settings.device] * is_gpu(settings.device)  # whose rounding is another
    text = json.dumps([settings.warm.key(), settings.max_new_tokens, evaluated, *gpu])
    return f"{digest64(text):016x}"


@contextmanager
def one_builder(folder: Path, name: str) -> Iterator[None]:
    """Inside the block, no other process builds the same thing; it waits until this one is done."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        yield


def evaluated_splits(row: Mapping[str, Any]) -> list[EvaluatedSplit]:
    """The evaluations in a row of metrics: one, or one per split of the task.

    Example:
        >>> row = {"evaluation": {"pass_at_1": {"mean": 0.5}, "answers": 4}, "correct": [2, 0]}
        >>> evaluated_splits(row)[0].samples
        2
    """
    correct, figures = row["correct"], row["evaluation"]
    if not isinstance(correct, Mapping):
        correct, figures = {SPLIT: correct}, {SPLIT: figures}
    return [_evaluated(name, correct[name], figures[name]) for name in correct]


def _evaluated(split: str, correct: Sequence[int], figures: Mapping[str, Any]) -> EvaluatedSplit:
    names = (*FIGURES, *ADDED_FIGURES)
    means = {name: figures[name]["mean"] if name in figures else None for name in names}
    return EvaluatedSplit(split, figures["answers"] // len(correct), tuple(correct), means)


def curve_rows(
    rows: Sequence[Mapping[str, Any]], points: int = CURVE_POINTS
) -> list[dict[str, float | None]]:
    """The learning curve: at most `points` rows, each the mean over the updates before it.

    Args:
        rows: rows of metrics, one per update.
        points: most rows of the result.

    Example:
        >>> rows = [{"update": i, "entropy": float(i)} for i in (1, 2, 3, 4)]
        >>> [(row["update"], row["entropy"]) for row in curve_rows(rows, points=2)]
        [(2, 1.5), (4, 3.5)]
    """
    trained = [row for row in rows if row["update"] > 0]
    width = -(-len(trained) // points)
    bins = [trained[start : start + width] for start in range(0, len(trained), width)]
    return [_curve_row(some) for some in bins]


def _curve_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {"update": rows[-1]["update"]}
    for name, metric in {**CURVE, **ADDED_CURVE}.items():
        values = [row[metric] for row in rows if row.get(metric) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def _costs(settings: LabSettings, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Sampled tokens, and responses that were scored."""
    answers = settings.prompts * settings.group_size
    lengths = [row["completions/mean_length"] for row in rows if row["update"] > 0]
    responses = answers * len(lengths)
    return {
        "tokens": round(answers * sum(lengths)),
        "signal_calls": responses * reads_signal(settings),
        "teacher_calls": responses * ("teacher" in supervised_models(settings)),
        "monte_carlo_calls": int(sum(row.get("rollouts/monte_carlo", 0) for row in rows)),
    }
