"""The main job: warm start, RL by two methods from it, evaluations, and the folder they leave."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import stepcredit as sc
from stepcredit.credit.rich_table import table_lines
from stepcredit.data.files.atomic import write_json
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.report import Live, closing_figures, closing_table, live
from stepcredit.lab.resume import mark, restore
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
    """Train a small reasoner with step-level credit, and leave a folder that shows what it learned.

    Args:
        settings: what the run depends on.
        runs_dir, name: the folder is runs_dir/name; without a name, METHOD-SIGNAL-sSEED, numbered
            where that exists.
        cache_dir: of the warm starts.
        console: where progress and the closing table go.

    Returns:
        the run's folder: `config.json`, `metrics.jsonl`, `rollouts.jsonl`, `checkpoint/`,
        `curves.png`, `summary.json`.

    Raises:
        FileError: when the named folder exists.
        KeyboardInterrupt: when interrupted; its message says how to go on.
        MissingExtra: when the extra `train` is not installed.
    """
    require("train", "transformers", "trl", "datasets", "matplotlib")
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
    """Go on with an interrupted run; it ends as it would have, bit for bit.

    Args:
        path: the run's folder.
        cache_dir: of the warm starts; used only where the interrupt came before the run's own copy.
        console: as for `train`.

    Returns:
        the run's folder.

    Raises:
        FileError: when it holds no run.
        KeyboardInterrupt: when interrupted again.
    """
    require("train", "transformers", "trl", "datasets", "matplotlib")
    folder = RunFolder(Path(path))
    return _run(LabSettings.load(folder.config), folder, Path(cache_dir), console or Console())


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
            stop.args = (f"interrupted; go on by: {command}",)
            raise
    close(settings, folder, console)
    return folder.path


def _all_methods(
    settings: LabSettings, folder: RunFolder, cache_dir: Path, shown: Live, console: Console
) -> None:
    """Warm start and every method not yet finished."""
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
    """The run's copy of the warm start, its evaluation, and the warning about the signal."""
    from stepcredit.lab.loop import evaluate_policy, load_policy

    _keep(settings.warm, folder.warm_start, cache_dir, shown)
    if any(estimator.reads.logprobs for _, estimator in settings.estimators()):
        _keep(settings.teacher, folder.teacher, cache_dir, shown)
    if folder.rows("metrics"):
        return
    model, tokenizer = load_policy(folder.warm_start)
    for line in signal_warnings(settings, model, tokenizer):
        console.print(
            f"warning: {line}", highlight=False, markup=False, style="yellow", soft_wrap=True
        )
    found = evaluate_policy(settings, model, tokenizer)
    row = {"method": WARM_START, "update": 0, "evaluation": found.as_dict()}
    folder.append("metrics", [row])
    mark(folder, [])


def _keep(settings: WarmStartSettings, path: Path, cache_dir: Path, shown: Live) -> None:
    """The run's own copy of a supervised model; trained where the cache has none."""
    if path.is_dir():
        return
    source = warm_start(settings, cache_dir, partial(shown.warm, path.name.replace("_", " ")))
    draft = path.with_name(f".{path.name}")
    shutil.copytree(source, draft, dirs_exist_ok=True)
    draft.replace(path)


def signal_warnings(settings: LabSettings, model: Any, tokenizer: Any) -> list[str]:
    """One line where the signal pays contentless steps more than right ones.

    Args:
        settings: the run's.
        model, tokenizer: the warm start, whose answers are scored.

    Returns:
        no line, or one with the gap in score and the gap in the method's advantages; none for a
        method made of log-probs, which does not read the signal.
    """
    from stepcredit.lab.arithmetic import problems
    from stepcredit.lab.loop import task_of

    label, estimator = settings.estimators()[0]
    if estimator.reads.logprobs:
        return []
    drawn = problems(PROBE_PROMPTS, "train", settings.seed)
    prompts = [p.prompt for p in drawn for _ in range(settings.group_size)]
    asked = [p.prompt for p in drawn]
    ids = sample(model, tokenizer, asked, settings.group_size, settings.seed, "signal probe")
    task = task_of(settings, tokenizer)
    graded = task.graded(prompts, ids)
    ends, scores = map(list, zip(*task.process_signal(prompts, ids), strict=True))
    kinds = [g.kinds for g in graded]
    gap = filler_minus_right(scores, kinds)
    if gap is None or gap <= 0:
        return []
    rollouts = sc.Rollouts(
        group=prompts,
        process=sc.Steps(ends, scores),
        outcome=[g.outcome for g in graded],
        format=[g.format for g in graded],
        format_ok=[g.format_ok for g in graded],
    )
    rows = zip(estimator(rollouts).ragged(), ends, strict=True)
    paid = filler_minus_right([row[row_ends].tolist() for row, row_ends in rows], kinds)
    return [
        f"the signal {settings.signal!r} scores a filler line {gap:+.2f} against a right step, and"
        f" {label} gives it {paid:+.2f} in advantage: expect padding where that is above 0"
    ]


def close(settings: LabSettings, folder: RunFolder, console: Console) -> None:
    """Write curves and summary, print the closing table."""
    from stepcredit.lab.curves import plot_curves

    rows = folder.rows("metrics")
    labels = " and ".join(label for label, _ in settings.estimators())
    title = f"{labels} on the {settings.signal} signal, seed {settings.seed}"
    plot_curves(rows, folder.curves, title)
    figures = closing_figures(rows)
    write_json(folder.summary, figures)
    for line in (*table_lines(closing_table(figures)), f"all of it in {folder.path}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """torch with so many threads, while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
