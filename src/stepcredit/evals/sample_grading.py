"""Rows of the file of samples, with their grades."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from stepcredit.evals.eval_tasks import EvalTask
from stepcredit.evals.sampler import EvalSample, SampleRequest
from stepcredit.rewards.base import Reward
from stepcredit.rewards.extract import answer_of
from stepcredit.rewards.maths import Maths
from stepcredit.rewards.qa import F1, ExactMatch, Joint, support_score
from stepcredit.rewards.supporting_facts import gold_facts, named_facts
from stepcredit.rewards.thinking import after_thinking

SUPPORT_TAG = "support"
QA_MEASURES = ("em", "f1", "support_em", "support_f1", "joint_em", "joint_f1")
"""The measures of a question answering sample: of its answer, of its supporting facts, of both."""


@cache
def outcome_reward(task: EvalTask) -> Reward:
    """The reward whose value is the outcome of a task's samples: `maths`, or exact match."""
    if task.is_qa:
        return ExactMatch(read=task.read)
    return Maths(read=task.read, unreadable="text")


@cache
def _qa_rewards(task: EvalTask) -> dict[str, Reward]:
    return {
        "em": outcome_reward(task),
        "f1": F1(read=task.read),
        "joint_em": Joint(read=task.read, metric="em"),
        "joint_f1": Joint(read=task.read, metric="f1"),
    }


def qa_measures(
    task: EvalTask, texts: Sequence[str], facts: Sequence[Mapping[str, Any]]
) -> list[dict[str, float]]:
    """Exact match and F1 of answers, of supporting facts, and of both together.

    Args:
        task: a question answering task.
        texts: responses.
        facts: gold answer, aliases and supporting facts of each.

    Example:
        >>> from stepcredit.evals.eval_tasks import EVAL_TASKS
        >>> gold = {"answer": "a spirit", "supporting_facts": [["Lilu", 0], ["Alu", 3]]}
        >>> response = "<support>Lilu | 0</support> <answer>Spirit</answer>"
        >>> found = qa_measures(EVAL_TASKS["hotpotqa"], [response], [gold])[0]
        >>> found["em"], found["support_em"], round(found["joint_f1"], 3)
        (1.0, 0.0, 0.667)

    Source: HotpotQA evaluation script v1; the best over aliases as in MuSiQue.
    """
    columns = {name: rule(texts, facts) for name, rule in _qa_rewards(task).items()}
    found = []
    for row, (text, known) in enumerate(zip(texts, facts, strict=True)):
        gold = gold_facts(known["supporting_facts"], row, "supporting_facts")
        support = support_score(named_facts(after_thinking(text), SUPPORT_TAG), gold)
        own = {name: float(values[row] or 0.0) for name, values in columns.items()}
        own |= {"support_em": support.em, "support_f1": support.f1}
        found.append({name: own[name] for name in QA_MEASURES})
    return found


def graded_rows(
    requests: Sequence[SampleRequest],
    samples: Sequence[EvalSample],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The rows of samples that came together, graded.

    Args:
        requests: what was asked for.
        samples: what came.
        settings: what the samples of a task depend on, by the task's name.
    """
    rows = [
        _row(request, sample, settings[request.problem.task.name])
        for request, sample in zip(requests, samples, strict=True)
    ]
    for task in dict.fromkeys(request.problem.task for request in requests):
        own = [row for row in rows if row["task"] == task.name]
        _grade(task, own)
    return rows


def _grade(task: EvalTask, rows: Sequence[dict[str, Any]]) -> None:
    """Write `outcome`, and for question answering `measures`, into rows of one task."""
    texts = [row["text"] for row in rows]
    if task.is_qa:
        for row, found in zip(rows, qa_measures(task, texts, rows), strict=True):
            row |= {"outcome": found["em"], "measures": found}
        return
    for row, outcome in zip(rows, outcome_reward(task)(texts, rows), strict=True):
        row["outcome"] = outcome


def _row(request: SampleRequest, sample: EvalSample, settings: Mapping[str, Any]) -> dict[str, Any]:
    problem = request.problem
    row = {
        "group": problem.group,
        "task": problem.task.name,
        "sample": request.place,
        "prompt": problem.prompt,
        "text": sample.text,
        "tokens": sample.tokens,
        **problem.facts,
        "read_answer": answer_of(sample.text, problem.task.read),
        "finish": sample.finish,
        "completion_tokens": sample.completion_tokens,
        "settings": dict(settings),
    }
    if sample.token_ids is not None:
        row["token_ids"] = sample.token_ids
    if sample.prompt_ids is not None:
        row["prompt_ids"] = sample.prompt_ids
    return row


def grading_tally(tasks: Sequence[EvalTask]) -> dict[str, Counter[str]]:
    """What the rewards counted in this process, by task: answers that timed out, and others."""
    return {task.name: outcome_reward(task).tally for task in tasks}
