"""Runs in which only some prompts have a known outcome."""

from __future__ import annotations

import os
from dataclasses import replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

pytest.importorskip("trl")

from rich.console import Console
from tests.lab.micro import MICRO_WARM

import stepcredit as sc
from stepcredit.errors import StepCreditError
from stepcredit.lab.answered import Answered
from stepcredit.lab.arithmetic import problems
from stepcredit.lab.comparison import train
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.loop import training_problems
from stepcredit.lab.runs import RunFolder

MICRO = LabSettings(
    method="pure",
    compare="pass",
    answered=0.5,
    updates=2,
    prompts=4,
    group_size=4,
    evaluation_problems=8,
    record_every=1,
    max_new_tokens=40,
    warm=MICRO_WARM,
)


def test_the_known_prompts_are_the_asked_share_and_grow_with_it() -> None:
    prompts = [problem.prompt for problem in problems(2000)]
    few, some = ({p for p in prompts if Answered(share, 7)(p)} for share in (0.1, 0.4))
    assert few < some
    assert len(few) / 2000 == pytest.approx(0.1, abs=0.03)
    assert len(some) / 2000 == pytest.approx(0.4, abs=0.04)
    assert few != {p for p in prompts if Answered(0.1, 8)(p)}


def test_grpo_is_trained_on_the_known_prompts_alone_as_often_as_others_on_all() -> None:
    settings = LabSettings(compare=None, answered=0.1, seed=3)
    every = training_problems(settings, sc.PASS())
    known = training_problems(settings, sc.GRPO())
    assert len(every) == len(known) == 1440
    assert {p.prompt for p in known} == {p.prompt for p in every if Answered(0.1, 3)(p.prompt)}
    assert every == training_problems(replace(settings, answered=1.0), sc.GRPO())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """A run of two methods, in which half of the prompts are answered."""
    folder = tmp_path_factory.mktemp("answered")
    return RunFolder(train(MICRO, folder, "run", folder / "cache", Console(quiet=True)))


def test_unanswered_prompts_have_no_outcome_and_keep_scores_and_format(run: RunFolder) -> None:
    rows = [row for row in run.rows("rollouts") if row["method"] == "pass"]
    assert {row["outcome"] is None for row in rows} == {True, False}
    for row in rows:
        assert (row["outcome"] is not None) == Answered(0.5)(row["prompt"])
        assert row["step_scores"]
        assert row["format"] in (0.0, 1.0)


def test_the_advantages_are_those_of_unknown_outcomes(run: RunFolder) -> None:
    rows = [r for r in run.rows("rollouts") if (r["method"], r["update"]) == ("pass", 1)]
    rollouts = sc.Rollouts(
        group=[row["group"] for row in rows],
        process=sc.Steps([r["step_ends"] for r in rows], [r["step_scores"] for r in rows]),
        outcome=[row["outcome"] for row in rows],
        format=[row["format"] for row in rows],
        format_ok=[row["format_ok"] for row in rows],
    )
    expected = sc.PASS(weights=(1.0, 1.0, 0.3), clip=5.0)(rollouts).ragged()
    for row, values in zip(rows, expected, strict=True):
        assert row["advantages"] == pytest.approx(values.tolist(), abs=1e-5)


def test_the_metrics_hold_the_accuracy_of_all_answers(run: RunFolder) -> None:
    rows = [row for row in run.rows("metrics") if row["update"]]
    assert all(0 <= row["rewards/accuracy/mean"] <= 1 for row in rows)
    assert all(row["rewards/known_accuracy/mean"] is not None for row in rows)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"answered": 1.5}, "answered: expected a number from 0 to 1, got 1.5"),
        ({"answered": 0.0}, "grpo: needs outcomes, and answered=0 leaves none"),
    ],
)
def test_shares_out_of_range_are_refused(options: dict[str, float], line: str) -> None:
    with pytest.raises(StepCreditError) as refused:
        LabSettings(**options)  # type: ignore[arg-type]
    assert str(refused.value) == line


def test_a_run_without_an_answered_prompt_is_refused_for_grpo_alone() -> None:
    settings = LabSettings(method="pass", compare=None, answered=1e-9, updates=1, prompts=2)
    assert len(training_problems(settings, sc.PASS())) == 2
    with pytest.raises(StepCreditError, match="answered: 1e-09 leaves none of 2 problems"):
        training_problems(settings, sc.GRPO())
