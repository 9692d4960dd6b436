"""The figures of a file of samples: one summary per task, with intervals over problems."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.errors import FileError, RolloutError, SettingError
from stepcredit.evals.best_sample import POOLS, best_of_n, can_multiply
from stepcredit.evals.bootstrap import bootstrap_interval
from stepcredit.evals.eval_tasks import EVAL_TASKS, EvalTask
from stepcredit.evals.intervals import Interval
from stepcredit.evals.majority_vote import majority_votes, same_answers
from stepcredit.evals.sample_grading import QA_MEASURES
from stepcredit.evals.unbiased_pass_at_k import pass_at_k

MODEL_FIELDS = ("backend", "model", "weights")


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """What the figures need of a sample.

    Args:
        answer: the answer in its text; None if it has none.
        outcome: 1 for a right answer, else 0.
        tokens: tokens of the response.
        is_cut: whether it was cut off at the limit.
        measures: of question answering; else empty.
        scores: the process signal of its steps, if the file was scored.
    """

    answer: str | None
    outcome: float
    tokens: int
    is_cut: bool
    measures: dict[str, float]
    scores: list[float] | None


@dataclass(frozen=True)
class TaskSamples:
    """The samples of one task.

    Args:
        task: the task.
        problems: the samples of each problem.
        settings: what they were drawn with, as the first row has it.
    """

    task: EvalTask
    problems: list[list[SampleRecord]]
    settings: dict[str, Any]

    @property
    def most(self) -> int:
        """n: samples of the problem that has the most."""
        return max(map(len, self.problems))

    @property
    def missing(self) -> int:
        """Samples that problems lack to have n each."""
        return sum(self.most - len(own) for own in self.problems)

    def records(self) -> Iterator[SampleRecord]:
        """All samples."""
        for own in self.problems:
            yield from own


@dataclass(frozen=True)
class TaskSummary:
    """The figures of one task.

    Args:
        task: its name.
        problems: number of problems.
        samples: n, samples per problem.
        missing: samples that are still missing.
        figures: means over problems with their intervals, by name.
        details: `cut` and `no_answer`, fractions of the samples; `tokens_if_right` and
            `tokens_if_wrong`, means; `maj_ties`, the fraction of problems with a tied vote.
        notes: what a reader of the figures should know.
    """

    task: str
    problems: int
    samples: int
    missing: int
    figures: dict[str, Interval]
    details: dict[str, float]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; the infinite interval of a single problem is null."""
        figures = {name: _finite(value.as_dict()) for name, value in self.figures.items()}
        counts = {"problems": self.problems, "samples": self.samples, "missing": self.missing}
        return {
            "task": self.task,
            **counts,
            "figures": figures,
            "details": self.details,
            "notes": self.notes,
        }


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def read_samples(path: str | Path) -> list[TaskSamples]:
    """The samples of a file, by task, in the order of the file.

    Args:
        path: a file that `stepcredit eval` wrote, or that another command made of it: `.jsonl`,
            `.jsonl.gz` or `.parquet`.

    Raises:
        RowError: a row is no sample, or is of another model than the first.
        FileError: the file can't be read, or is empty.
    """
    groups: dict[str, dict[Any, list[SampleRecord]]] = defaultdict(lambda: defaultdict(list))
    settings: dict[str, dict[str, Any]] = {}
    with RolloutFile(path, needs_tokens=False) as file:
        for row in file.rows():
            try:
                task = _task_of(row.fields, settings)
                groups[task][row.group].append(_record(row.fields))
            except RolloutError as error:
                raise error.at_line(str(path), row.line) from None
    if not groups:
        raise FileError(f"{path}: holds no sample")
    return [
        TaskSamples(EVAL_TASKS[name], list(own.values()), settings[name])
        for name, own in groups.items()
    ]


def _task_of(row: dict[str, Any], settings: dict[str, dict[str, Any]]) -> str:
    """The task of a row, whose settings are noted; refuses rows of two models in one file."""
    name, own = row.get("task"), row.get("settings")
    if name not in EVAL_TASKS or not isinstance(own, dict):
        raise RolloutError("is no sample of `stepcredit eval`", field="task")
    for other in settings.values():
        for field_name in MODEL_FIELDS:
            if own.get(field_name) != other.get(field_name):
                reason = f"{own.get(field_name)!r}, and {other.get(field_name)!r} in other rows"
                raise RolloutError(f"samples of two models: {reason}", field=field_name)
    settings.setdefault(str(name), own)
    return str(name)


def _record(row: dict[str, Any]) -> SampleRecord:
    outcome = row.get("outcome")
    if outcome is None:
        raise RolloutError("missing: is the sample not graded?", field="outcome")
    return SampleRecord(
        answer=row.get("read_answer"),
        outcome=float(outcome),
        tokens=int(row.get("completion_tokens", 0)),
        is_cut=row.get("finish") == "length",
        measures=row.get("measures", {}),
        scores=row.get("step_scores"),
    )


def check_ks(ks: Sequence[int], samples: int) -> None:
    """Refuse a k of pass@k that is not between 1 and the samples per problem.

    Raises:
        SettingError: names it.

    Example:
        >>> check_ks([1, 16], samples=8)
        Traceback (most recent call last):
        ...
        stepcredit.errors.SettingError: k 16: expected 1 to 8, the samples per problem
    """
    for k in ks:
        if not 1 <= k <= samples:
            reason = f"expected 1 to {samples}, the samples per problem"
            raise SettingError(reason, field=f"k {k}")


def summarize_task(samples: TaskSamples, ks: Sequence[int] = ()) -> TaskSummary:
    """The figures of one task, each a mean over problems with a bootstrap interval over them.

    `avg@n` is the mean outcome, `pass@k` is unbiased, `maj@n` the majority vote, `best@n` the
    choice by a process signal; then the measures of question answering, and `tokens` per response.

    Args:
        samples: of the task.
        ks: the k of pass@k; none: n.

    Raises:
        SettingError: a k is larger than the samples of a problem.
    """
    fewest = min(map(len, samples.problems))
    check_ks(ks, fewest)
    votes = _votes(samples)
    figures = dict(_outcome_figures(samples, ks or [fewest]))
    if samples.most > 1:
        figures[f"maj@{samples.most}"] = [score for score, _ in votes]
        figures |= _best_figures(samples)
    figures |= dict(_measure_figures(samples))
    figures["tokens"] = _by_problem(samples, lambda record: record.tokens)
    return TaskSummary(
        samples.task.name,
        len(samples.problems),
        samples.most,
        samples.missing,
        {name: bootstrap_interval(values) for name, values in figures.items()},
        _details(samples, [tied for _, tied in votes]),
        list(_notes(samples)),
    )


def _by_problem(samples: TaskSamples, value: Callable[[SampleRecord], float]) -> list[float]:
    """The mean of a number over the samples of each problem."""
    return [fmean(map(value, own)) for own in samples.problems]


def _outcome_figures(samples: TaskSamples, ks: Sequence[int]) -> Iterator[tuple[str, list[float]]]:
    right = [sum(record.outcome == 1 for record in own) for own in samples.problems]
    counts = list(map(len, samples.problems))
    yield f"avg@{samples.most}", _by_problem(samples, lambda record: record.outcome)
    for k in ks:
        if k > 1 or samples.most > 1:
            yield f"pass@{k}", pass_at_k(right, counts, k).tolist()


def _votes(samples: TaskSamples) -> list[tuple[float, bool]]:
    """Each problem's score by majority vote, and whether the vote was tied."""
    if samples.most == 1:
        return []
    answers = [[record.answer for record in own] for own in samples.problems]
    outcomes = [[record.outcome for record in own] for own in samples.problems]
    votes = majority_votes(answers, outcomes, same_answers(samples.task))
    return [(vote.score, vote.is_tied) for vote in votes]


def _best_figures(samples: TaskSamples) -> dict[str, list[float]]:
    """Best of n by each pool; nothing where no sample has step scores."""
    scores = [record.scores for record in samples.records()]
    if not any(scores):
        return {}
    pools = [pool for pool in POOLS if pool != "product" or can_multiply(scores)]
    return {
        f"best@{samples.most} {pool}": [
            best_of_n([record.scores for record in own], [record.outcome for record in own], pool)
            for own in samples.problems
        ]
        for pool in pools
    }


def _measure_figures(samples: TaskSamples) -> Iterator[tuple[str, list[float]]]:
    if samples.task.is_qa:
        for name in QA_MEASURES[1:]:  # the first is the outcome
            yield name, [fmean(record.measures[name] for record in own) for own in samples.problems]


def _details(samples: TaskSamples, tied: Sequence[bool]) -> dict[str, float]:
    records = list(samples.records())
    details = {
        "cut": fmean(record.is_cut for record in records),
        "no_answer": fmean(not record.answer for record in records),
    }
    for name, outcome in (("tokens_if_right", 1.0), ("tokens_if_wrong", 0.0)):
        own = [record.tokens for record in records if record.outcome == outcome]
        details |= {name: fmean(own)} if own else {}
    return details | ({"maj_ties": fmean(tied)} if tied else {})


def _notes(samples: TaskSamples) -> Iterator[str]:
    name, records = samples.task.name, list(samples.records())
    if samples.missing:
        yield f"{name}: samples missing: {samples.missing}; the figures are of those in the file"
    scored = sum(bool(record.scores) for record in records)
    if 0 < scored < len(records):
        yield f"{name}: {len(records) - scored} of {len(records)} samples have no step scores"
    if not can_multiply([record.scores for record in records]):
        yield f"{name}: no best-of-n by product, because some step scores are negative"
