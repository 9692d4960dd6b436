"""Sampled evaluation on one fixed set of problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stepcredit.evals import Interval, mean_interval, pass_at_k
from stepcredit.lab.arithmetic import ARITHMETIC, MAX_NEW_TOKENS
from stepcredit.lab.grading import Graded, Problem
from stepcredit.lab.sampling import sample
from stepcredit.lab.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SAMPLES_PER_PROBLEM = 8
HELD_OUT_SEED = 0


@dataclass(frozen=True)
class Evaluation:
    """Figures of sampled answers to a set of problems, with 95 % intervals over prompts.

    Args:
        pass_at_1: probability that an answer is right.
        pass_at_8: probability that at least one of 8 answers (or of all, if fewer) is right.
        length: tokens per answer, without those of tools.
        fillers: filler lines per answer.
        step_accuracy: right steps divided by the steps that the problem needs.
        format: fraction of answers that follow the template.
        answers: number of answers sampled.
        correct: number of right answers to each problem.
        turns: turns per answer, where the task has tools.
    """

    pass_at_1: Interval
    pass_at_8: Interval
    length: Interval
    fillers: Interval
    step_accuracy: Interval
    format: Interval
    answers: int
    correct: tuple[int, ...]
    turns: Interval | None = None

    def as_dict(self) -> dict[str, object]:
        """The figures by name, ready for JSON: {"pass_at_1": {"mean", "low", "high"}, ...}.

        The counts per problem are not among them, nor the turns of a task without tools.
        """
        rows = {field.name: getattr(self, field.name) for field in fields(self)}
        del rows["correct"]
        known = {name: value for name, value in rows.items() if value is not None}
        return {n: v.as_dict() if isinstance(v, Interval) else v for n, v in known.items()}


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    samples_per_problem: int = SAMPLES_PER_PROBLEM,
    seed: int = 0,
    max_new_tokens: int = MAX_NEW_TOKENS,
    task: Task = ARITHMETIC,
) -> Evaluation:
    """Sample answers at temperature 1 and grade them exactly.

    Args:
        model: the policy; its mode (train or eval) does not change.
        tokenizer: the task's tokenizer.
        problems: the problems, each at most once.
        samples_per_problem: answers per problem.
        seed: seed of the sampling, keyed by (seed, "evaluate"); the random state of the training
            does not change.
        max_new_tokens: most tokens of an answer.
        task: the task, which grades the answers.

    Returns:
        `Evaluation`; the same numbers for the same weights and arguments.

    Example:
        >>> from stepcredit.lab.arithmetic import build_tokenizer, problems
        >>> from stepcredit.lab.model import build_model
        >>> tokenizer = build_tokenizer()
        >>> held_out = problems(2, "held_out")
        >>> evaluate(build_model(tokenizer), tokenizer, held_out, samples_per_problem=2).answers
        4
    """
    prompts = [problem.prompt for problem in problems]
    completions = sample(
        model,
        tokenizer,
        prompts,
        samples_per_problem,
        seed,
        "evaluate",
        max_new_tokens,
        environment=task.environment,
    )
    repeated = [prompt for prompt in prompts for _ in range(samples_per_problem)]
    rows = zip(repeated, completions, strict=True)
    graded = [task.check_tokens(prompt, ids, tokenizer) for prompt, ids in rows]
    if task.environment is None:
        return summarize(graded, [len(ids) for ids in completions], samples_per_problem)
    tokens = map(tokenizer.convert_ids_to_tokens, completions)
    lengths = [sum(task.environment.policy_tokens(row)) for row in tokens]
    found = summarize(graded, lengths, samples_per_problem)
    counts = np.array([len(g.kinds) for g in graded]).reshape(-1, samples_per_problem)
    return replace(found, turns=mean_interval(counts.mean(axis=1)))


def evaluation_columns(found: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Evaluations as columns of a row of metrics: the figures, and the right answers per problem.

    Args:
        found: evaluations by the label of their split.

    Returns:
        `evaluation` and `correct`, as mappings by label if there are several splits.
    """
    figures = {label: one.as_dict() for label, one in found.items()}
    correct = {label: one.correct for label, one in found.items()}
    if len(found) > 1:
        return {"evaluation": figures, "correct": correct}
    (label,) = found
    return {"evaluation": figures[label], "correct": correct[label]}


def by_split(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The column `evaluation` of a row of metrics as figures by split.

    Returns:
        The first split is that of the training; its name is empty if it is the only one.

    Example:
        >>> by_split({"pass_at_1": 0.5}), by_split({"2 hops": {"pass_at_1": 0.5}})
        ({'': {'pass_at_1': 0.5}}, {'2 hops': {'pass_at_1': 0.5}})
    """
    return {"": evaluation} if "pass_at_1" in evaluation else dict(evaluation)


def summarize(
    graded: Sequence[Graded], lengths: Sequence[int], samples_per_problem: int
) -> Evaluation:
    """Figures and intervals of graded answers; the answers to one problem are adjacent.

    Args:
        graded: the checker's results, problem by problem.
        lengths: tokens of each answer.
        samples_per_problem: answers per problem.

    Returns:
        `Evaluation`.

    Example:
        >>> from stepcredit.lab.arithmetic import check
        >>> answers = [check("1+1*2=", text) for text in ("<4>$", "<5>$", "<4>$", "<4>$")]
        >>> summarize(answers, [4] * 4, samples_per_problem=2).pass_at_1.mean
        0.75
    """
    shape = (-1, samples_per_problem)
    correct = np.array([g.outcome for g in graded]).reshape(shape).sum(axis=1).astype(np.int64)
    k = min(8, samples_per_problem)

    def by_prompt(values: Sequence[float]) -> Interval:
        return mean_interval(np.array(values, dtype=np.float64).reshape(shape).mean(axis=1))

    return Evaluation(
        pass_at_1=mean_interval(pass_at_k(correct, samples_per_problem, 1)),
        pass_at_8=mean_interval(pass_at_k(correct, samples_per_problem, k)),
        length=by_prompt(lengths),
        fillers=by_prompt([g.fillers for g in graded]),
        step_accuracy=by_prompt([g.step_accuracy for g in graded]),
        format=by_prompt([g.format for g in graded]),
        answers=len(graded),
        correct=tuple(correct.tolist()),
    )
