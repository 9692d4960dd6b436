"""The attack on the embedded task's signals: known hacks are found, the exact checker is safe."""

from __future__ import annotations

import pytest

from stepcredit.audit.attack.editable import EditableSteps, NotEditable
from stepcredit.keys import keyed_generator
from stepcredit.lab.arithmetic import check, demonstration, problems
from stepcredit.lab.lab_attack import (
    TrainedCell,
    answer_early,
    attack_task_signal,
    attacked_answers,
    confusion_lines,
    plan_task_attack,
)
from stepcredit.lab.lab_settings import LabSettings

pytest.importorskip("scipy")


def answers(prompts: int = 24, group: int = 4) -> dict[str, list[str]]:
    """Demonstrations, of which every other one has a wrong digit in its first line."""
    found = {}
    for problem in problems(prompts, "check"):
        texts = []
        for number in range(group):
            text = demonstration(problem.prompt, keyed_generator(number, problem.prompt))
            if number % 2:
                place = text.index("\n", text.index("=")) - 1
                text = f"{text[:place]}{(int(text[place]) + 3) % 10}{text[place + 1 :]}"
            texts.append(text)
        found[problem.prompt] = texts
    return found


def test_known_hacks_are_found_and_the_exact_checker_is_not_accused() -> None:
    settings = LabSettings(compare=None)
    methods = {
        "return-to-go": settings.estimator("pass", {"scope": "process", "k": 0.0}),
        "pure": settings.estimator("pure", {}),
    }
    plan = plan_task_attack(attacked_answers(answers()))
    hackable = attack_task_signal(plan, "hackable", methods)
    assert {"insert-contentless", "pad-to-limit"} <= set(hackable.exploitable("return-to-go"))
    assert hackable.exploitable("pure") == []
    exact = attack_task_signal(plan, "exact", methods)
    assert exact.exploitable("return-to-go") == []
    right = [e.edit.name for e in exact.earnings if e.verdict("return-to-go") == "right direction"]
    assert {"insert-contentless", "repeat-step", "break-arithmetic", "swap-step"} <= set(right)


def test_edited_answers_are_of_the_grammar_and_graded_again() -> None:
    plan = plan_task_attack(attacked_answers(answers(6)))
    for copy in plan.copies:
        graded = check(copy.response.prompt, copy.response.text)
        assert graded.step_ends == copy.response.step_ends
        assert len(copy.response.spans) == len(copy.response.text)
        before = check(copy.response.prompt, plan.rows[copy.row].response.text)
        if copy.edit.name == "insert-contentless":
            assert graded.fillers == before.fillers + 1
            assert graded.outcome == before.outcome
        if copy.edit.name == "answer-early":
            assert graded.kinds[copy.step :] == ["answer"]


def test_an_early_answer_needs_a_line_with_a_result() -> None:
    found = answer_early(EditableSteps(("k3\n", "<3>$")))
    assert found == NotEditable("no line follows another one that has a result")


def test_only_cells_of_both_are_counted() -> None:
    paid = {("a", "x"): True, ("a", "y"): False, ("b", "x"): False, ("b", "y"): True}
    known = {
        ("a", "x"): TrainedCell(True, "here"),
        ("a", "y"): TrainedCell(True, "here"),
        ("b", "x"): TrainedCell(False, "here"),
        ("c", "x"): TrainedCell(False, "here"),
    }
    first, _, exploitable, safe = confusion_lines(paid, known)
    assert first.startswith("3 cells")
    assert exploitable.split()[-2:] == ["1", "0"]
    assert safe.split()[-2:] == ["1", "1"]
