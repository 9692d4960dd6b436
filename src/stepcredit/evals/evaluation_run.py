"""A run of `stepcredit eval`: draws the samples that a file lacks, and appends them graded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from stepcredit.evals.problems import EvalProblem
from stepcredit.evals.sample_file import SampleFile
from stepcredit.evals.sample_grading import graded_rows
from stepcredit.evals.sampler import Drawn, Sampler, SampleRequest


@dataclass
class SampleCounts:
    """Samples of a run.

    Args:
        wanted: problems times samples per problem.
        kept: those that the file had before.
        drawn: those of this run.
    """

    wanted: int
    kept: int = 0
    drawn: int = 0


def run_settings(sampler: Sampler, problems: Sequence[EvalProblem]) -> dict[str, dict[str, Any]]:
    """What the samples of each task depend on: the model, and how they are drawn."""
    tasks = dict.fromkeys(problem.task for problem in problems)
    return {task.name: sampler.identity | sampler.settings.identity(task) for task in tasks}


def sample_problems(
    sampler: Sampler,
    problems: Sequence[EvalProblem],
    path: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    counts: SampleCounts | None = None,
) -> SampleCounts:
    """Draw the samples of problems that a file lacks, and append each as soon as it is graded.

    Args:
        sampler: the model, with how samples are drawn.
        problems: of one or more tasks; the problems of a task stand together.
        path: the file of samples, a `.jsonl` file; a run that was stopped goes on in it.
        progress: called with the number of samples in the file and of those wanted.
        counts: filled while the run goes; None: a new one.

    Returns:
        The counts.

    Raises:
        SettingError, RowError: the file holds samples of another model or other settings.
        SignalError: the model or the server failed; the samples drawn so far are in the file.
    """
    settings = run_settings(sampler, problems)
    each = sampler.settings.samples
    counts = counts or SampleCounts(0)
    counts.wanted = len(problems) * each
    with SampleFile(path, problems, settings) as file:
        requests = [
            SampleRequest(problem, place, sampler.settings.user_turn(problem), _system(sampler))
            for problem in problems
            for place in range(each)
            if (problem.group, place) not in file.known
        ]
        counts.kept = counts.wanted - len(requests)
        for _, group in groupby(requests, key=lambda request: request.problem.task.name):
            own = list(group)
            for drawn in sampler.draw(own):
                file.append(_rows(own, drawn, settings))
                counts.drawn += len(drawn)
                if progress is not None:
                    progress(counts.kept + counts.drawn, counts.wanted)
    return counts


def _system(sampler: Sampler) -> str | None:
    return sampler.settings.system


def _rows(
    requests: Sequence[SampleRequest], drawn: Drawn, settings: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    own = [requests[index] for index, _ in drawn]
    return graded_rows(own, [sample for _, sample in drawn], settings)
