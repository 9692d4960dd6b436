"""A lab run: the warm start, RL with one or two methods, evaluations, and the run folder."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import stepcredit as sc
from stepcredit.credit.rich_table import table_lines
from stepcredit.credit.torch_threads import threads
from stepcredit.data.files.atomic import write_json
from stepcredit.data.masking import row_steps_to_trained
from stepcredit.lab.devices import check_device_is_here
from stepcredit.lab.evaluate import Evaluation, evaluation_columns
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.readers import Readers
from stepcredit.lab.report import Live, closing_figures, closing_table, live
from stepcredit.lab.resume import mark, restore
from stepcredit.lab.rollout_grader import scores_by_step
from stepcredit.lab.runs import RunFolder
from stepcredit.lab.sampling import sample
from stepcredit.lab.simulated_prm import filler_minus_right
from stepcredit.lab.warmstart import WarmStartSettings, warm_start
from stepcredit.requires import require

WARM_START = "warm start"
PROBE_PROMPTS = 32


def train(
    settings: LabSettings,
    runs_dir: str | os.PathLike[str] = "runs",
    name: str | None = None,
    cache_dir: str | os.PathLike[str] = "cache/warmstart",
    console: Console | None = None,
) -> Path:
    """Train a small reasoner with step-level credit, and write the results to a run folder.

    Args:
        settings: the settings of the run.
        runs_dir, name: the folder is runs_dir/name; the default name is METHOD-SIGNAL-sSEED, with a
            number added if that folder exists.
        cache_dir: folder of the cached warm starts.
        console: prints the progress and the closing table.

    Returns:
        the run's folder: `config.json`, `metrics.jsonl`, `rollouts.jsonl`, `checkpoint/`,
        `curves.png`, `summary.json`.

    Raises:
        FileError: the named folder exists.
        KeyboardInterrupt: the run was interrupted; the message says how to resume it.
        MissingExtra: the extra `train` is not installed.
    """
    require("train", "transformers", "trl", "datasets", "matplotlib")
    check_device_is_here(settings.device)
    default = f"{settings.method}-{settings.signal}-s{settings.seed}"
    folder = RunFolder.create(Path(runs_dir), name, default)
    settings.save(folder.config)
    mark(folder, [])
    return _run(settings, folder, Path(cache_dir), console or Console())


def resume(
    path: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str] = "cache/warmstart",
    console: Console | None = None,
) -> Path:
    """Resume an interrupted run; the result is bit for bit that of an uninterrupted run.

    Args:
        path: the run's folder.
        cache_dir: folder of the cached warm starts; used only if the run folder has no copy yet.
        console: as for `train`.

    Returns:
        the run's folder.

    Raises:
        FileError: the folder holds no run.
        StepCreditError: this machine does not have the run's device.
        KeyboardInterrupt: the run was interrupted again.
    """
    require("train", "transformers", "trl", "datasets", "matplotlib")
    folder = RunFolder(Path(path))
    settings = LabSettings.load(folder.config)
    check_device_is_here(settings.device)
    return _run(settings, folder, Path(cache_dir), console or Console())


def _run(settings: LabSettings, folder: RunFolder, cache_dir: Path, console: Console) -> Path:
    from stepcredit.lab.loop import quiet

    labels = [label for label, _ in settings.estimators()]
    heading = f"run {folder.path}: {', then '.join(labels)} on {settings.signal}"
    console.print(heading, highlight=False, markup=False, soft_wrap=True)
    with quiet(), threads(settings.threads):
        try:
            with live(console, settings.updates) as shown:
                _all_methods(settings, folder, cache_dir, shown, console)
        except KeyboardInterrupt as stop:
            command = f"stepcredit train --resume {folder.path}"
            stop.args = (f"interrupted; continue with: {command}",)
            raise
    close(settings, folder, console)
    return folder.path


def _all_methods(
    settings: LabSettings, folder: RunFolder, cache_dir: Path, shown: Live, console: Console
) -> None:
    """Train the warm start, then every method that is not finished yet."""
    from stepcredit.lab.loop import Method, interrupts, train_method

    estimators = settings.estimators()
    finished, checkpoint = restore(folder, [label for label, _ in estimators])
    _start(settings, folder, cache_dir, shown, console)
    stop = threading.Event()
    with interrupts(stop):
        for label, estimator in estimators:
            if label in finished:
                continue
            run = Method(label, estimator, finished, checkpoint)
            if not train_method(settings, folder, run, shown.update, stop):
                raise KeyboardInterrupt
            finished, checkpoint = [*finished, label], None
            mark(folder, finished)
            shutil.rmtree(folder.working(label), ignore_errors=True)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)


def _start(
    settings: LabSettings, folder: RunFolder, cache_dir: Path, shown: Live, console: Console
) -> None:
    """Copy the warm start into the run folder, evaluate it, and warn about a faulty signal."""
    from stepcredit.lab.loop import evaluate_policy, load_policy, load_readers

    _keep(settings.warm, folder.warm_start, cache_dir, shown)
    if any(settings.models_read(estimator) for _, estimator in settings.estimators()):
        _keep(settings.teacher, folder.teacher, cache_dir, shown)
    if folder.rows("metrics"):
        return
    model, tokenizer = load_policy(folder.warm_start, settings.device)
    readers = load_readers(settings, folder, settings.estimators()[0][1], model, tokenizer)
    for line in signal_warnings(settings, model, tokenizer, readers):
        console.print(
            f"warning: {line}", highlight=False, markup=False, style="yellow", soft_wrap=True
        )
    found = evaluate_policy(settings, model, tokenizer)
    folder.append("metrics", [warm_start_row(found)])
    mark(folder, [])


def warm_start_row(found: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The row of metrics that holds the evaluations of the warm start."""
    return {"method": WARM_START, "update": 0, **evaluation_columns(found)}


def _keep(settings: WarmStartSettings, path: Path, cache_dir: Path, shown: Live) -> None:
    """Copy a supervised model into the run folder; train it first if it is not cached."""
    if path.is_dir():
        return
    source = warm_start(settings, cache_dir, partial(shown.warm, path.name.replace("_", " ")))
    draft = path.with_name(f".{path.name}")
    shutil.copytree(source, draft, dirs_exist_ok=True)
    draft.replace(path)


def signal_warnings(
    settings: LabSettings, model: Any, tokenizer: Any, readers: Readers | None = None
) -> list[str]:
    """A warning if the signal scores filler steps higher than right steps.

    Args:
        settings: the settings of the run.
        model, tokenizer: the warm start, whose answers are scored.
        readers: the models that the signal reads.

    Returns:
        No line, or one line with the gap between the scores and the gap between the method's
        advantages. No line for a method that does not read the signal.
    """
    from stepcredit.lab.loop import grader

    label, estimator = settings.estimators()[0]
    if estimator.reads.process is None or estimator.reads.logprobs:
        return []
    drawn = settings.built_task().problems(PROBE_PROMPTS, "train", settings.seed)
    prompts = [p.prompt for p in drawn for _ in range(settings.group_size)]
    prompt_texts = [p.prompt for p in drawn]
    ids = sample(
        model,
        tokenizer,
        prompt_texts,
        settings.group_size,
        settings.seed,
        "signal probe",
        environment=settings.built_task().environment,
    )
    task = grader(settings, model, tokenizer, readers)
    graded = task.graded(prompts, ids)
    process = task.process_signal(prompts, ids)
    kinds, ends = [g.kinds for g in graded], [g.step_ends for g in graded]
    gap = filler_minus_right(scores_by_step(process, ends), kinds)
    if gap is None or gap <= 0:
        return []
    masks, states = task.masks_and_states(prompts, ids)
    rollouts = sc.Rollouts(
        group=prompts,
        mask=masks,
        process=process,
        step_states=states if estimator.reads.states else None,
        outcome=[g.outcome for g in graded],
        format=[g.format for g in graded],
        format_ok=[g.format_ok for g in graded],
    )
    flags = [None] * len(ends) if masks is None else masks
    rows = zip(estimator(rollouts).ragged(), ends, flags, strict=True)
    values = [row[row_steps_to_trained(e, e, mask)[0]].tolist() for row, e, mask in rows]
    paid = filler_minus_right(values, kinds)
    return [
        f"the signal {settings.signal!r} scores a filler line {gap:+.2f} relative to a right step,"
        f" and {label} gives it {paid:+.2f} in advantage: if that is above 0, expect more filler"
    ]


def close(settings: LabSettings, folder: RunFolder, console: Console) -> None:
    """Write the curves and the summary, and print the closing table."""
    from stepcredit.lab.curves import plot_curves

    rows = folder.rows("metrics")
    labels = " and ".join(label for label, _ in settings.estimators())
    title = f"{labels} on the {settings.signal} signal, seed {settings.seed}"
    plot_curves(rows, folder.curves, title)
    figures = closing_figures(rows)
    write_json(folder.summary, figures)
    for line in (*table_lines(closing_table(figures)), f"all files are in {folder.path}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
