"""Stored advantages with a planted fault: it is named, placed, and clean ones are not accused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepcredit as sc
from stepcredit.audit.conformance import conformance_of
from stepcredit.audit.finding import CheckResult
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.stored_advantages import StoredAdvantages

Rows = list[dict[str, Any]]
Values = list[list[float]]
METHODS = ("pass", "grpo-process", "pure", "grpo")


def sampled_rows(seed: int = 0, tools: bool = False, groups: int = 6, size: int = 5) -> Rows:
    """Rows with step scores, outcomes, and a tool's output behind the first step."""
    rng, rows = np.random.default_rng(seed), []
    for group in range(groups):
        for _ in range(size):
            sizes = rng.integers(3, 7, rng.integers(2, 6))
            ends = (sizes.cumsum() - 1).tolist()
            row = {
                "group": group,
                "step_ends": ends,
                "step_scores": rng.normal(0.4, 0.3, len(ends)).tolist(),
                "outcome": float(rng.random() < 0.4),
            }
            if tools:
                mask = [1] * int(sizes.sum())
                mask[ends[0] + 1 : ends[0] + 3] = [0, 0]
                row["loss_mask"] = mask
            rows.append(row)
    return rows


def trained_advantages(rows: Rows, method: str) -> Values:
    """A method's advantages, one per trained token."""
    rollouts = LoggedBatch.of(rows).rollouts
    return [row.tolist() for row in sc.estimator(method)(rollouts).ragged()]


def checked(rows: Rows, stored: Values, *methods: str) -> CheckResult:
    """What is said of rows that hold these advantages."""
    held = [row | {"advantages": a} for row, a in zip(rows, stored, strict=True)]
    batch = LoggedBatch.of(held, "log.jsonl")
    return conformance_of(batch, {name: sc.estimator(name) for name in methods or METHODS})


def named(result: CheckResult) -> str:
    """The name of the fault in the first finding's evidence."""
    return result.findings[0].evidence[1].name.rpartition(": ")[2]


def each(change: Callable[[list[float]], list[float]]) -> Callable[[Values], Values]:
    return lambda values: [change(row) for row in values]


def whitened(values: Values) -> Values:
    flat = [x for row in values for x in row]
    mean = sum(flat) / len(flat)
    std = (sum((x - mean) ** 2 for x in flat) / (len(flat) - 1)) ** 0.5
    return [[(x - mean) / std for x in row] for row in values]


def twice(values: Values) -> Values:
    return [row for at in range(0, len(values), 5) for row in whitened(values[at : at + 5])]


PLANTED: dict[str, Callable[[Values], Values]] = {
    "sign flipped": each(lambda row: [-x for x in row]),
    "scaled": each(lambda row: [3 * x for x in row]),
    "shifted by one token": each(lambda row: [0.0, *row[:-1]]),
    "broadcast": each(lambda row: [sum(row) / len(row)] * len(row)),
    "whitened again": whitened,
    "normalized twice": twice,
    "zeroed": lambda values: [[0.0] * len(a) if i % 3 else a for i, a in enumerate(values)],
    "moved by a constant": each(lambda row: [0.8 * x + 0.3 for x in row]),
}


@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("fault", PLANTED)
@pytest.mark.parametrize("method", ["pass", "grpo-process", "pure"])
def test_a_planted_fault_is_named(method: str, fault: str, tools: bool) -> None:
    rows = sampled_rows(3, tools)
    stored = PLANTED[fault](trained_advantages(rows, method))
    for methods in ((method,), METHODS):
        result = checked(rows, stored, *methods)
        assert named(result) == fault
        assert f"'{method}'" in result.findings[0].sentence
        assert result.findings[0].severity == "fault"


@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("decimals", [3, 17])
def test_advantages_of_a_method_are_not_accused(method: str, tools: bool, decimals: int) -> None:
    rows = sampled_rows(1, tools)
    stored = [[round(x, decimals) for x in row] for row in trained_advantages(rows, method)]
    result = checked(rows, stored)
    assert result.findings == ()
    shares = {figure.method: figure.value for figure in result.figures}
    assert shares[method] == 1


def test_another_responses_advantages_are_misplaced() -> None:
    rows = sampled_rows(5)
    for row in rows:
        row["step_ends"], row["step_scores"] = [2, 5, 9], [*row["step_scores"][:2], 0.1]
    for at, row in enumerate(rows):
        row["step_scores"][0] = at / 7
    values = trained_advantages(rows, "pass")
    result = checked(rows, values[5:] + values[:5])
    assert named(result) == "misplaced"
    assert "of the batch" in result.findings[0].sentence
    within = [values[at - at % 5 + (at + 1) % 5] for at in range(len(values))]
    assert "of their group" in checked(rows, within).findings[0].sentence


def outcomes_of(rows: Rows) -> list[float]:
    """Each outcome less the mean of the others of its group of five."""
    found = []
    for at, row in enumerate(rows):
        others = [rows[i]["outcome"] for i in range(at - at % 5, at - at % 5 + 5) if i != at]
        found.append(row["outcome"] - sum(others) / 4)
    return found


def trained_sizes(row: dict[str, Any]) -> list[int]:
    """Trained tokens of each step."""
    starts = [0, *(end + 1 for end in row["step_ends"][:-1])]
    return [
        sum(row["loss_mask"][start : end + 1])
        for start, end in zip(starts, row["step_ends"], strict=True)
    ]


def reset_sums(row: dict[str, Any], rewards: list[float], last: float = 0.0) -> list[float]:
    """The trainer's loop `running = (running + reward) * mask`, of trained tokens.

    Rewards stand at the last tokens of steps, `last` at the last token of the response.
    """
    mask = row["loss_mask"]
    per_token = [0.0] * len(mask)
    for end, reward in zip(row["step_ends"], rewards, strict=True):
        per_token[end] = reward
    per_token[-1] += last
    running, sums = 0.0, []
    for reward, trained in reversed(list(zip(per_token, mask, strict=True))):
        running = (running + reward) * trained
        if trained:
            sums.append(running)
    return sums[::-1]


def pure_rewards(rows: Rows) -> list[list[float]]:
    """PURE's `softmax(-s / 0.1) s`, less the others' sum per token for each of the step's."""
    weighted = []
    for row in rows:
        s = np.array(row["step_scores"])
        weights = np.exp(-(s - s.min()) / 0.1)
        weighted.append(weights / weights.sum() * s)
    found = []
    for at, row in enumerate(rows):
        others = [i for i in range(at - at % 5, at - at % 5 + 5) if i != at]
        tokens = sum(sum(trained_sizes(rows[i])) for i in others)
        per_token = sum(weighted[i].sum() for i in others) / tokens
        found.append((weighted[at] - per_token * np.array(trained_sizes(row))).tolist())
    return found


def pass_values(rows: Rows) -> list[list[float]]:
    """PASS's standardized scores plus the standardized outcome, per step."""
    found = []
    for first in range(0, len(rows), 5):
        group = rows[first : first + 5]
        s = np.concatenate([row["step_scores"] for row in group])
        r = np.array([row["outcome"] for row in group])
        for row in group:
            z = (np.array(row["step_scores"]) - s.mean()) / (s.std(ddof=1) + 1e-6)
            z += (row["outcome"] - r.mean()) / (r.std(ddof=1) + 1e-6)
            found.append(z.tolist())
    return found


def per_step_tokens(row: dict[str, Any], values: list[float]) -> list[float]:
    """A value per step on the step's trained tokens."""
    sizes = trained_sizes(row)
    return [x for value, size in zip(values, sizes, strict=True) for x in [value] * size]


def reset_pass(rows: Rows) -> Values:
    """The sums of PASS with the loop's fault, divided by the steps left to the power 0.7."""
    found = []
    for row, values in zip(rows, pass_values(rows), strict=True):
        count = len(values)
        left = per_step_tokens(row, [(count - at) ** 0.7 for at in range(count)])
        sums = reset_sums(row, values)
        found.append([total / power for total, power in zip(sums, left, strict=True)])
    return found


def reset_pure(rows: Rows, outcome_in_return: bool) -> Values:
    """PURE with the loop's fault; its outcome is added at the end, or to all tokens."""
    found = []
    for row, rewards, own in zip(rows, pure_rewards(rows), outcomes_of(rows), strict=True):
        sums = reset_sums(row, rewards, own if outcome_in_return else 0.0)
        found.append(sums if outcome_in_return else [x + own for x in sums])
    return found


RESETS: dict[str, tuple[str, Callable[[Rows], Values], str]] = {
    "pass": ("pass", reset_pass, "the return begins anew after each tool output. "),
    "pure": (
        "pure",
        lambda rows: reset_pure(rows, False),
        "the return begins anew after each tool output. ",
    ),
    "pure, outcome at the end": (
        "pure",
        lambda rows: reset_pure(rows, True),
        "after each tool output, and the last turn alone holds the outcome. ",
    ),
}


@pytest.mark.parametrize("case", RESETS)
def test_a_return_that_begins_anew_after_a_tool(case: str) -> None:
    method, planted, words = RESETS[case]
    rows = sampled_rows(2, tools=True)
    stored = planted(rows)
    for methods in ((method,), METHODS):
        result = checked(rows, stored, *methods)
        assert named(result) == "reset at tool output"
        assert f"'{method}': " in result.findings[0].sentence
        assert words in result.findings[0].sentence
        assert "This is sure" in result.findings[0].sentence
    without = [{**row, "loss_mask": [1] * len(row["loss_mask"])} for row in rows]
    clean = trained_advantages(without, method)
    assert reset_of_clean(without, method) == [pytest.approx(row, abs=1e-5) for row in clean]


def reset_of_clean(rows: Rows, method: str) -> Values:
    """Without tool output the loop has no fault: it gives the method's own advantages."""
    return reset_pass(rows) if method == "pass" else reset_pure(rows, False)


@pytest.mark.parametrize(
    "method",
    [
        sc.PASSMin(),
        sc.PURE(form="future_min", baseline="rollout"),
        sc.PURE(whiten_batch=True),
        sc.PASS(clip=0.5),
        sc.PASS(match_std=True),
        sc.PASS(gamma=0.9),
        sc.ProcessGRPO(gamma=0.9),
    ],
    ids=["pass-min", "future-min", "whitened", "clipped", "matched", "discount", "pooled discount"],
)
def test_a_return_that_no_difference_undoes_is_not_named(method: sc.Estimator) -> None:
    """What the sums' formula predicts is planted, and still no reset is claimed."""
    rows = sampled_rows(2, tools=True)
    stored = []
    for row, a in zip(rows, method(LoggedBatch.of(rows).rollouts).ragged(), strict=True):
        values, first_turn = a.tolist(), row["step_ends"][0] + 1
        later = values[first_turn]
        stored.append([x - later for x in values[:first_turn]] + values[first_turn:])
    held = [row | {"advantages": a} for row, a in zip(rows, stored, strict=True)]
    (finding,) = conformance_of(LoggedBatch.of(held), {"mine": method}).findings
    assert "begins anew" not in finding.sentence


@pytest.mark.parametrize(
    "method",
    [sc.PASS(scope="process", k=0.0), sc.ProcessGRPO(pooling="union"), sc.PURE(form="sum")],
    ids=["pass", "grpo-process", "pure"],
)
def test_a_sum_is_known_by_its_stages(method: sc.Estimator) -> None:
    """Less the outcome, each of these is a plain sum: a reset keeps the outcome on all tokens."""
    rows = sampled_rows(2, tools=True)
    known = method(LoggedBatch.of(rows).rollouts).ragged()
    no_outcome = [{k: v for k, v in row.items() if k != "outcome"} for row in rows]
    alone = (
        known
        if isinstance(method, sc.ProcessGRPO)
        else method(LoggedBatch.of(no_outcome).rollouts).ragged()
    )
    stored = []
    for row, a, process in zip(rows, known, alone, strict=True):
        values, first_turn = process.tolist(), row["step_ends"][0] + 1
        reset = [x - values[first_turn] for x in values[:first_turn]] + values[first_turn:]
        stored.append([x + float(a[0] - process[0]) for x in reset])
    held = [row | {"advantages": a} for row, a in zip(rows, stored, strict=True)]
    (finding,) = conformance_of(LoggedBatch.of(held), {"mine": method}).findings
    assert "the return begins anew after each tool output. " in finding.sentence


def test_a_turn_that_lost_its_advantages_is_named_under_any_method() -> None:
    rows = sampled_rows(2, tools=True)
    method = sc.PASSMin()
    stored = []
    for row, a in zip(rows, method(LoggedBatch.of(rows).rollouts).ragged(), strict=True):
        first_turn = row["step_ends"][0] + 1
        stored.append([0.0] * first_turn + a.tolist()[first_turn:])
    held = [row | {"advantages": a} for row, a in zip(rows, stored, strict=True)]
    result = conformance_of(LoggedBatch.of(held), {"pass-min": method})
    assert named(result) == "reset at tool output"
    assert "only the last turn" in result.findings[0].sentence


def test_tokens_that_are_not_trained() -> None:
    rows = sampled_rows(2, tools=True)
    values = trained_advantages(rows, "pass")
    stored = []
    for row, a in zip(rows, values, strict=True):
        left = iter(a)
        stored.append([next(left) if flag else 0.25 for flag in row["loss_mask"]])
    (finding,) = checked(rows, stored).findings
    assert finding.evidence[0].value == 1.0
    assert finding.evidence[0].count == 2 * len(rows)
    assert "line 1 of log.jsonl" in finding.sentence


def test_the_first_row_is_named() -> None:
    rows = sampled_rows(4)
    values = trained_advantages(rows, "pass")
    stored = [row if at < 7 else [-x for x in row] for at, row in enumerate(values)]
    (finding,) = checked(rows, stored).findings
    assert finding.places[0].row == 7
    assert "line 8 of log.jsonl" in finding.sentence
    assert "23 of 30 responses" in finding.sentence


def test_two_readings_are_both_said() -> None:
    """Two responses per group, one right: a flipped sign is the other response's advantage."""
    rows = [{"group": at // 2, "length": 4, "outcome": float(at % 2)} for at in range(12)]
    stored = [[-x for x in row] for row in trained_advantages(rows, "grpo")]
    (finding,) = checked(rows, stored, "grpo").findings
    assert named(checked(rows, stored, "grpo")) == "sign flipped"
    assert "the data also fit that responses hold the advantages of other" in finding.sentence


def test_noise_is_no_known_fault() -> None:
    rows, rng = sampled_rows(6), np.random.default_rng(0)
    stored = [rng.normal(size=len(a)).tolist() for a in trained_advantages(rows, "pass")]
    (finding,) = checked(rows, stored).findings
    assert "no known fault explains them" in finding.sentence


def test_rows_without_advantages() -> None:
    rows = sampled_rows()
    (missing,) = conformance_of(LoggedBatch.of(rows), {"pass": sc.PASS()}).unchecked
    assert missing.field == "advantages"
    assert conformance_of(LoggedBatch.of(rows), {}).findings == ()
    rows[3]["advantages"] = trained_advantages(rows, "pass")[3]
    result = conformance_of(LoggedBatch.of(rows), {"pass": sc.PASS()})
    assert (result.findings, result.figures[0].count) == ((), 1)
    with_none = conformance_of(LoggedBatch.of(rows), {})
    assert [each.field for each in with_none.unchecked] == ["--method"]


def test_one_token_one_group_and_a_method_that_cannot_run() -> None:
    row = {"group": 0, "length": 1, "outcome": 1.0, "advantages": [0.0]}
    result = conformance_of(LoggedBatch.of([row]), {"grpo": sc.GRPO(), "opd": sc.OPD()})
    assert result.findings == ()
    assert "opd" in [each.field for each in result.unchecked]
    wrong = conformance_of(LoggedBatch.of([row | {"advantages": [2.0]}]), {"grpo": sc.GRPO()})
    assert "no known fault" in wrong.findings[0].sentence


def test_a_number_per_response_stands_on_all_its_tokens() -> None:
    batch = LoggedBatch.of([{"group": 0, "loss_mask": [1, 0, 1], "advantage": 0.5}])
    stored = StoredAdvantages.of(batch)
    assert stored is not None
    assert stored.values.tolist() == [0.5, 0.0, 0.5]


def test_of_many_responses_the_sentence_says_how_many_were_tried() -> None:
    rows = sampled_rows(groups=60)
    flipped = [[-x for x in row] for row in trained_advantages(rows, "pass")]
    (finding,) = checked(rows, flipped, "pass").findings
    assert "of 300 responses" in finding.sentence
    assert "explains all of the 200 of them that were tried" in finding.sentence
    assert finding.evidence[1].count == 200
