"""Signal quality: AUC, calibration and first errors are those of plain loops; faults are found."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from tests.audit.lab_rows import lab_rows

import stepcredit as sc
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.checks.signal_quality import check_signal_quality
from stepcredit.audit.finding import AuditFigure, CheckResult
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.outcome_ranking import auc_with_interval, labelled_cases, score_aggregates


def rows_of(gap: float, groups: int = 30, answers: int = 6, seed: int = 0) -> list[dict[str, Any]]:
    """Responses of 2 to 4 steps whose scores are `gap` higher where the outcome is right."""
    generator, rows = np.random.default_rng(seed), []
    for group in range(groups):
        for _ in range(answers):
            steps = int(generator.integers(2, 5))
            right = bool(generator.random() < 0.5)
            scores = 0.5 + gap * (right - 0.5) + 0.1 * generator.standard_normal(steps)
            labels = [True] * steps if right else [True, False, *[False] * (steps - 2)]
            rows.append(
                {
                    "group": group,
                    "length": steps,
                    "step_ends": list(range(steps)),
                    "step_scores": scores.clip(0, 1).tolist(),
                    "step_labels": labels,
                    "outcome": float(right),
                }
            )
    return rows


def audited(rows: list[dict[str, Any]]) -> CheckResult:
    return check_signal_quality(AuditInput.of(LoggedBatch.of(rows), {}))


def figure(result: CheckResult, name: str) -> AuditFigure:
    return next(figure for figure in result.figures if figure.name.startswith(name))


def plain_auc(right: list[float], wrong: list[float]) -> float:
    won = sum((a > b) + 0.5 * (a == b) for a, b in product(right, wrong))
    return won / (len(right) * len(wrong))


@pytest.mark.parametrize(
    ("kind", "aggregate"), [("minimum", min), ("mean", np.mean), ("product", np.prod)]
)
def test_auc_for_the_outcome(kind: str, aggregate: Any) -> None:
    rows = rows_of(0.1)
    value = {1.0: [], 0.0: []}
    for row in rows:
        value[row["outcome"]].append(round(float(aggregate(row["step_scores"])), 12))
    found = figure(audited(rows), f"AUC of the step {kind} for the outcome")
    assert found.value == pytest.approx(plain_auc(value[1.0], value[0.0]))
    assert found.count == len(rows)
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.3


def within_groups(pairs: list[tuple[int, bool, float]]) -> float:
    """The AUC of (group, right, score) among pairs of one group, by loops."""
    won = total = 0.0
    for group, right, score in pairs:
        for other, wrong, below in pairs:
            if group == other and right and not wrong:
                won += (score > below) + 0.5 * (score == below)
                total += 1
    return won / total


def test_auc_within_groups_is_that_of_plain_loops() -> None:
    rows = rows_of(0.1)
    for row in rows:
        row["step_scores"] = [round(score, 1) for score in row["step_scores"]]  # with ties
    result = audited(rows)
    means = [(r["group"], r["outcome"] == 1, np.float32(min(r["step_scores"]))) for r in rows]
    found = figure(result, "AUC within groups of the step minimum")
    assert found.value == pytest.approx(within_groups(means))
    assert found.low < found.value < found.high
    steps = [
        (row["group"], label, score)
        for row in rows
        for label, score in zip(row["step_labels"], row["step_scores"], strict=True)
    ]
    found = figure(result, "AUC within groups of the scores for right steps")
    assert found.value == pytest.approx(within_groups(steps))


def test_a_signal_that_scores_hard_questions_higher_is_not_called_reversed() -> None:
    """Within each group it is right, and credit compares nothing else."""
    rows = rows_of(0.3, groups=40)
    kept = []
    for row in rows:
        is_hard = row["group"] % 2 == 1
        row["step_scores"] = [0.3 * score + 0.6 * is_hard for score in row["step_scores"]]
        if is_hard == (row["outcome"] == 0) or len(kept) % 5 == 0:
            kept.append(row)
    result = audited(kept)
    assert figure(result, "AUC of the step mean").high < 0.5
    assert figure(result, "AUC within groups of the step mean").low > 0.9
    assert [each for each in result.findings if each.severity == "fault"] == []


def test_groups_of_one_response_have_no_auc_within_groups() -> None:
    rows = [row | {"group": at} for at, row in enumerate(rows_of(-0.3))]
    result = audited(rows)
    assert figure(result, "AUC of the step mean").high < 0.5
    assert figure(result, "AUC within groups of the step mean").value is None
    assert "responses" not in "".join(each.sentence for each in result.findings)


def test_auc_of_steps_and_the_first_error() -> None:
    rows = rows_of(0.3)
    steps = [
        pair for row in rows for pair in zip(row["step_labels"], row["step_scores"], strict=True)
    ]
    right, wrong = ([s for label, s in steps if label == kind] for kind in (True, False))
    result = audited(rows)
    found = figure(result, "AUC of the scores for right steps")
    assert found.value == pytest.approx(plain_auc(right, wrong))
    threshold = figure(result, "threshold that is best here").value
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for row in rows:
        below = [at for at, s in enumerate(row["step_scores"]) if s < threshold]
        first = row["step_labels"].index(False) if False in row["step_labels"] else None
        hits[first is None].append((below[0] if below else None) == first)
    a, b = np.mean(hits[True]), np.mean(hits[False])
    assert figure(result, "F1 of finding").value == pytest.approx(2 * a * b / (a + b))


def test_calibration_is_that_of_plain_loops() -> None:
    rows = rows_of(0.3)
    result = audited(rows)
    pairs = [
        pair for row in rows for pair in zip(row["step_scores"], row["step_labels"], strict=True)
    ]
    error = 0.0
    for place in range(10):
        inside = [(s, label) for s, label in pairs if min(int(s * 10), 9) == place]
        if inside:
            scores, labels = zip(*inside, strict=True)
            error += len(inside) / len(pairs) * abs(np.mean(scores) - np.mean(labels))
    assert figure(result, "calibration error (ECE) of the step score").value == pytest.approx(error)
    bins = result.series["reliability of the step score of process for right steps"]
    assert sum(each["steps"] for each in bins) == len(pairs)


def test_a_reversed_signal_is_a_fault_and_shows_the_wrong_responses() -> None:
    rows = rows_of(-0.3)
    found = [each for each in audited(rows).findings if "ranks wrong responses" in each.sentence]
    assert [each.severity for each in found] == ["fault"]
    assert all(rows[place.row]["outcome"] == 0 for place in found[0].places)
    assert found[0].places


def test_a_signal_of_noise_gets_a_note() -> None:
    found = audited(rows_of(0.0, groups=300)).findings
    assert {each.severity for each in found} == {"note"}
    assert "hardly tells right responses from wrong ones" in found[0].sentence


@pytest.mark.parametrize("seed", range(10))
def test_a_good_signal_is_not_accused(seed: int) -> None:
    assert not audited(rows_of(0.4, seed=seed)).findings


@pytest.mark.parametrize("signal", ["exact", "noisy", "hackable", "centred", "negative"])
def test_signals_of_the_embedded_task_are_not_accused(signal: str) -> None:
    result = audited(lab_rows(signal, prompts=24))
    assert not result.findings
    assert bool(result.series) == (signal in ("exact", "noisy", "hackable"))


def test_filler_is_neither_a_right_nor_a_wrong_step() -> None:
    rows = lab_rows("exact", prompts=12)
    result = audited(rows)
    kinds = [kind for row in rows for kind in row["kinds"]]
    found = figure(result, "AUC of the scores for right steps")
    assert (found.value, found.count) == (1.0, kinds.count("right") + kinds.count("wrong"))
    assert figure(result, "F1 of finding the first wrong step").value == 1.0


def test_a_score_per_token_is_averaged_over_its_step() -> None:
    rows = rows_of(0.3)
    by_step = figure(audited(rows), "AUC of the scores").value
    for row in rows:
        scores = row.pop("step_scores")
        row["length"] *= 2
        row["step_ends"] = [2 * end + 1 for end in row["step_ends"]]
        row["token_scores"] = [s + off for s in scores for off in (0.25, -0.25)]
    assert figure(audited(rows), "AUC of the scores").value == pytest.approx(by_step)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"step_scores": [0.5, 0.5]},
        {"step_scores": [0.5, 0.5], "outcome": 1.0},
        {"step_scores": [0.5, 0.5], "step_labels": [1, 0]},
        {"step_scores": [0.5, 0.5], "step_labels": [None, None], "outcome": 0.0},
        {"step_scores": [1e30, -1e30], "step_labels": ["odd", "filler"], "outcome": 0.0},
        {"token_scores": [0.5, 0.5, 0.0], "outcome": 1.0},
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_degenerate_rows(fields: dict[str, Any], groups: int) -> None:
    rows = [{"group": g, "length": 3, "step_ends": [0, 2]} | fields for g in range(groups)]
    result = audited(rows)
    numbers = [x for f in result.figures for x in (f.value, f.low, f.high) if x is not None]
    assert np.isfinite(numbers).all()
    if not fields:
        assert [gap.field for gap in result.unchecked] == ["step_scores"]
    elif "outcome" not in fields:
        assert "outcome" in [gap.field for gap in result.unchecked]


def test_a_response_without_scores_is_left_out() -> None:
    rows = rows_of(0.3)
    expected = figure(audited(rows), "AUC of the step mean").value
    unscored = {"group": 0, "length": 2, "step_ends": [0, 1], "outcome": 1.0}
    found = figure(audited([*rows, unscored]), "AUC of the step mean")
    assert found.value == pytest.approx(expected)
    assert found.count == len(rows)


def test_measures_of_a_single_kind() -> None:
    stream = sc.Steps([[0], [0]], [[2.0], [3.0]])
    scores = score_aggregates(stream)
    assert set(scores) == {"minimum", "mean"}
    flags = np.array([True, True])
    cases = labelled_cases(scores, flags, ~flags, np.array([0, 1]))
    assert auc_with_interval(cases) == {"minimum": (None, None), "mean": (None, None)}
