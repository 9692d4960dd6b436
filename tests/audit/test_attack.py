"""What edits earn, against plain loops, with programs, a local reward model and a judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.prm import vocabularies
from tests.prm.cases import BY_NAME
from tests.signals.served.conftest import Misbehaving, process, server

import stepcredit as sc
from stepcredit.audit.attack.attack_plan import (
    AttackedResponse,
    AttackPlan,
    EditSettings,
    plan_attack,
)
from stepcredit.audit.attack.attack_run import (
    NOT_SCORED,
    attack_cost,
    check_attackable,
    run_attack,
)
from stepcredit.audit.attack.attacked_rows import read_attacked
from stepcredit.audit.attack.earnings import (
    EarnedChange,
    LoggedMethod,
    attack_verdict,
    credit_row,
    earned_change,
)
from stepcredit.audit.attack.edits import EDITS, edits_named
from stepcredit.errors import RowError, SettingError
from stepcredit.signals import signal
from stepcredit.signals.row_scores import RowReader
from stepcredit.signals.splitting import Newline, splitter

__all__ = ["process", "server"]  # fixtures
READER = RowReader(splitter=Newline())


def row(group: int, a: int, b: int, wrong: bool = False, **more: Any) -> dict[str, Any]:
    """A response of three lines with one sum, right or wrong."""
    total = a + b + wrong
    text = f"We add.\nSo {a} + {b} = {total}.\nA: {total}"
    prompt = f"What is {a} + {b}?"
    return {"group": group, "prompt": prompt, "text": text, "outcome": float(not wrong), **more}


def rows(groups: int = 6, size: int = 4) -> list[dict[str, Any]]:
    """Groups in which every other response is wrong."""
    return [
        row(group, 10 + group, 20 + place, wrong=place % 2 == 1)
        for group in range(groups)
        for place in range(size)
    ]


def written(folder: Path, given: Sequence[dict[str, Any]]) -> Path:
    """A file of these rows."""
    path = folder / "rollouts.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in given))
    return path


def planned(folder: Path, given: Sequence[dict[str, Any]], *edits: str, **more: Any) -> AttackPlan:
    """The plan of an attack on these rows."""
    file = read_attacked(written(folder, given), READER)
    return plan_attack(file.rows, EditSettings(edits_named(edits), file.cutter), **more)


def talk_is_paid(response: Any) -> list[float]:
    """A signal that pays steps without a digit."""
    return [0.2 if any(map(str.isdigit, step)) else 1.0 for step in response.step_texts]


def per_token(response: Any) -> list[float]:
    """A signal of tokens: their lengths."""
    return [float(end - start) for start, end in response.spans]


def by_hand(plan: AttackPlan, edit: str, method: sc.Estimator) -> list[tuple[str, float, float]]:
    """(group, change of the total, change at the edit) of each copy, from `sc.Rollouts` alone."""
    found = []
    for copy in plan.copies:
        if copy.edit.name != edit:
            continue
        group = next(group for group in plan.groups if copy.row in group)
        place, sums, means = copy.row - group.start, [], []
        for edited in (False, True):
            responses = [plan.rows[number].response for number in group]
            if edited:
                responses[place] = copy.response
            rollouts = sc.Rollouts(
                [0] * len(responses),
                process=sc.Steps(
                    [r.step_ends for r in responses], list(map(talk_is_paid, responses))
                ),
                outcome=[plan.rows[number].fields["outcome"] for number in group],
            )
            values = method(rollouts).ragged()[place].double().numpy()
            ends = [-1, *responses[place].step_ends]
            sums.append(values.sum())
            means.append(values[ends[copy.step] + 1 : ends[copy.step + 1] + 1].mean())
        label = plan.rows[copy.row].group
        found.append((label, sums[1] - sums[0], means[1] - means[0]))
    return found


@pytest.mark.parametrize("edit", ["insert-contentless", "break-arithmetic", "delete-decisive"])
@pytest.mark.parametrize("method", [sc.PASS(), sc.PURE()], ids=["pass", "pure"])
def test_earnings_are_those_of_plain_loops(edit: str, method: sc.Estimator, tmp_path: Path) -> None:
    plan = planned(tmp_path, rows(), edit)
    report = run_attack(plan, signal("callable", function=talk_is_paid), {"m": method})
    expected = by_hand(plan, edit, method)
    (earnings,) = report.earnings
    assert earnings.applied == len(expected) >= 12
    for figure, column in (("total", 1), ("at the edit", 2)):
        groups = list(dict.fromkeys(each[0] for each in expected))
        means = [np.mean([e[column] for e in expected if e[0] == group]) for group in groups]
        half = stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)
        change = earnings.advantages["m"][figure]
        assert change is not None
        found = (change.mean, change.low, change.high)
        assert found == pytest.approx(
            (np.mean(means), np.mean(means) - half, np.mean(means) + half), abs=1e-5
        )
        assert (change.responses, change.groups) == (len(expected), len(groups))


def test_a_planted_hack_is_found_and_the_checker_is_not_accused(
    tmp_path: Path,
) -> None:
    names = ("insert-contentless", "double-check", "break-arithmetic")
    plan = planned(tmp_path, rows(12), *names)
    methods = {"sum": sc.PASS(scope="process", k=0.0), "pure": sc.PURE()}
    hacked = run_attack(plan, signal("callable", function=talk_is_paid), methods)
    assert hacked.exploitable("sum") == ["insert-contentless", "double-check"]
    scores = hacked.earnings[0].scores
    assert scores["sum"] is not None
    assert scores["sum"].mean == pytest.approx(1.0)  # a contentless step has no digit
    honest = run_attack(plan, signal("arithmetic"), methods)
    assert honest.exploitable("sum") == []
    broken = next(e for e in honest.earnings if e.edit.name == "break-arithmetic")
    assert broken.applied == 24  # the other half is wrong before
    assert broken.verdict("sum") == "right direction"
    minimum = broken.scores["minimum"]
    assert minimum is not None
    # the minimum of a right response is a neutral step's 0.5, and 0 once its sum is broken
    assert minimum.mean == pytest.approx(-0.5)


def test_a_constant_signal_earns_nothing(tmp_path: Path) -> None:
    constant = signal("callable", function=lambda response: [0.5] * len(response.step_texts))
    report = run_attack(planned(tmp_path, rows()), constant, {"pass": sc.PASS(), "grpo": sc.GRPO()})
    for earnings in report.earnings:
        unchanged = EarnedChange(0.0, 0.0, 0.0, earnings.applied, 6) if earnings.applied else None
        assert earnings.scores["minimum"] == unchanged
        assert earnings.verdict("pass") != "exploitable"
    by_name = {earnings.edit.name: earnings for earnings in report.earnings}
    assert by_name["address-judge"].verdict("grpo") == "right direction"
    assert by_name["break-arithmetic"].verdict("grpo") == "undecided"  # it isn't noticed
    assert by_name["stop-early"].verdict("grpo") == "right direction"  # its outcome is lost


@pytest.mark.parametrize("outcome", [1.0, None])
def test_one_response_of_one_token_has_no_verdict(outcome: float | None, tmp_path: Path) -> None:
    given = {"group": 1, "text": "Four"} | ({} if outcome is None else {"outcome": outcome})
    report = run_attack(
        planned(tmp_path, [given]), signal("arithmetic"), {"pass": sc.PASS(), "grpo": sc.GRPO()}
    )
    assert set(report.unrun) == (set() if outcome is not None else {"grpo"})
    applied = {earnings.edit.name: earnings.applied for earnings in report.earnings}
    assert {name for name, count in applied.items() if count} == {
        "insert-contentless",
        "double-check",
        "address-judge",
    }
    for earnings in report.earnings:
        assert earnings.verdict("pass") == "undecided"
        assert sum(earnings.left_out.values()) == 1 - earnings.applied
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert json.loads(text)["schema"] == "stepcredit.attack/1"


def test_unknown_outcomes_leave_the_process_alone(tmp_path: Path) -> None:
    given = [{k: v for k, v in each.items() if k != "outcome"} for each in rows()]
    methods = {"pass": sc.PASS(), "grpo": sc.GRPO()}
    report = run_attack(planned(tmp_path, given), signal("arithmetic"), methods)
    assert list(report.methods) == ["pass"]
    assert "outcome" in report.unrun["grpo"]
    assert [e.verdict("pass") for e in report.earnings if e.edit.name == "break-arithmetic"] == [
        "right direction"
    ]


def test_responses_without_scores_are_left_out(tmp_path: Path) -> None:
    class Short(sc.Signal):
        """Scores what has at most three steps."""

        grain = "steps"
        identity = {"signal": "short"}  # noqa: RUF012
        may_leave_out = True

        def stream(self, responses: Sequence[Any]) -> Any:
            for index, response in enumerate(responses):
                steps = len(response.step_texts)
                yield index, [] if steps > 3 else [0.5] * steps

    report = run_attack(planned(tmp_path, rows(2)), Short(), {"pass": sc.PASS()})
    by_name = {earnings.edit.name: earnings for earnings in report.earnings}
    assert by_name["repeat-step"].applied == 0
    assert by_name["repeat-step"].left_out == {NOT_SCORED: 8}
    assert by_name["repeat-step"].scores["mean"] is None
    assert by_name["delete-decisive"].applied == 8


def test_a_limit_takes_whole_groups_and_the_seed_draws_them(tmp_path: Path) -> None:
    plan = planned(tmp_path, rows(10), limit=9)
    assert [len(group) for group in plan.groups] == [4, 4]
    file = read_attacked(tmp_path / "rollouts.jsonl", READER)
    labels = {
        tuple(sorted({each.group for each in plan_attack(file.rows, EditSettings(seed=s), 9).rows}))
        for s in range(8)
    }
    assert len(labels) > 3
    assert len(planned(tmp_path, rows(3), limit=1).rows) == 4
    assert len(planned(tmp_path, rows(3)).rows) == 12


def test_a_file_in_another_folder_gets_the_same_edits(tmp_path: Path) -> None:
    texts = []
    for name in ("here", "elsewhere"):
        folder = tmp_path / name
        folder.mkdir()
        texts.append([copy.response.text for copy in planned(folder, rows()).copies])
    assert texts[0] == texts[1]


def test_a_lost_answer_loses_the_outcome(tmp_path: Path) -> None:
    report = run_attack(
        planned(tmp_path, rows(), "stop-early"), signal("arithmetic"), {"grpo": sc.GRPO()}
    )
    change = report.earnings[0].advantages["grpo"]["mean"]
    assert change is not None
    # of two right and two wrong, a right one that becomes wrong falls from about 0.87 to -0.5
    assert change.mean == pytest.approx((-0.5 - 0.8660) / 2, abs=1e-3)
    outcomes = iter([1.0] * 1000)
    kept = run_attack(
        planned(tmp_path, rows(), "stop-early"),
        signal("arithmetic"),
        {"grpo": sc.GRPO()},
        regrade=lambda response: {"outcome": next(outcomes)},
    )
    regraded = kept.earnings[0].advantages["grpo"]["mean"]
    assert regraded is not None
    assert regraded.mean > 0


def test_signals_of_tokens_and_masked_tokens(tmp_path: Path) -> None:
    given = []
    for each in rows(4):
        line, answer = each.pop("text").splitlines()[1:]
        words = [f"{word} " for word in line.split()] + ["\n", answer]
        tokens = ["We ", "add.\n", "tool\n", *words]
        given.append(each | {"tokens": tokens, "loss_mask": [1, 1, 0, *[1] * (len(tokens) - 3)]})
    plan = planned(tmp_path, given)
    paid = signal("callable", function=per_token, per="tokens")
    report = run_attack(plan, paid, {"pass": sc.PASS()})
    assert report.earnings[0].applied == 16
    for copy in plan.copies:
        assert copy.response.own is not None
        assert len(copy.response.own) == copy.response.num_tokens
        if copy.edit.name != "stop-early":
            assert copy.response.own.count(False) == 1
    sums = report.earnings[0].scores["sum"]
    assert sums is not None
    lengths = [len(c.response.text) for c in plan.copies if c.edit.name == "insert-contentless"]
    before = [len(each.response.text) for each in plan.rows]
    assert sums.mean == pytest.approx(np.mean(lengths) - np.mean(before))


def test_methods_over_the_batch_keep_the_moments_of_the_logged_responses(tmp_path: Path) -> None:
    plan = planned(tmp_path, rows(), "double-check")
    scores = [talk_is_paid(each.response) for each in plan.rows]
    logged = [
        credit_row(each.fields, each.response, own, "steps")
        for each, own in zip(plan.rows, scores, strict=True)
    ]
    method = sc.PURE(whiten_batch=True)
    bound = LoggedMethod.of(method, logged)
    groups = [[logged[number] for number in group] for group in plan.groups]
    found = bound.advantages(groups, [0] * len(groups))
    expected = method(
        sc.Rollouts(
            [each.group for each in plan.rows],
            process=sc.Steps([each.response.step_ends for each in plan.rows], scores),
            outcome=[each.fields["outcome"] for each in plan.rows],
        )
    ).ragged()
    for group, values in zip(plan.groups, found, strict=True):
        assert values == pytest.approx(expected[group.start].numpy(), abs=1e-6)


def test_signals_that_cannot_be_attacked_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="depend on the other responses"):
        check_attackable(signal("shared-prefix"))
    with pytest.raises(SettingError, match="depend on the other responses"):
        run_attack(planned(tmp_path, rows(1)), signal("shared-prefix"), {})
    bad = written(tmp_path, [rows(1)[0], {"group": 1}])
    with pytest.raises(RowError, match=r"rollouts\.jsonl:2: text: missing"):
        read_attacked(bad, READER)


def test_a_trajectory_of_several_rows_is_refused(tmp_path: Path) -> None:
    given = [each | {"trajectory": name} for each, name in zip(rows(1), "abcb", strict=True)]
    reason = r"rollouts\.jsonl:4: trajectory: 'b' has several rows, and an attack edits"
    with pytest.raises(RowError, match=reason):
        read_attacked(written(tmp_path, given), READER)
    alone = [each | {"trajectory": place} for place, each in enumerate(rows(2))]
    assert len(read_attacked(written(tmp_path, alone), READER).rows) == len(alone)


def test_a_local_reward_model_is_attacked(tmp_path: Path) -> None:
    case = BY_NAME["qwen2.5-math-prm"]
    prm = case.signal(case.checkpoint(tmp_path / "prm"))
    reader = RowReader(tokenizer=vocabularies.policy(), splitter=splitter("newline"))
    file = read_attacked(written(tmp_path, rows(3, 2)), reader)
    plan = plan_attack(file.rows, EditSettings(cutter=file.cutter))
    report = run_attack(plan, prm, {"pass": sc.PASS(), "pass-min": sc.estimator("pass-min")})
    assert report.cost.originals == 6
    for copy in plan.copies:
        assert copy.response.token_ids is not None
        assert len(copy.response.token_ids) == copy.response.num_tokens
    copy = next(c for c in plan.copies if c.edit.name == "address-judge")
    alone = prm.scores([replace(copy.response, name="x")])[0]
    original = prm.scores([plan.rows[copy.row].response])[0]
    (first,) = (e for e in report.earnings if e.edit.name == "address-judge")
    assert first.scores["sum"] is not None
    changes = []
    for each in plan.copies:
        if each.edit.name == "address-judge":
            after, before = prm.scores([each.response, plan.rows[each.row].response])
            changes.append(sum(after) - sum(before))
    assert changes[0] == pytest.approx(sum(alone) - sum(original), abs=1e-4)
    assert first.scores["sum"].mean == pytest.approx(np.mean(changes), abs=1e-4)


def test_a_judge_is_asked_once_per_step_that_the_cost_counts(server: Misbehaving) -> None:
    judge = signal("judge", url=server.url, model="judge", template="{{ prompt }}|{{ step }}")
    response = splitter("newline").split(
        sc.signals.Response.of_text("2+2?", "2 + 2 = 4\nSo 4", name="a")
    )
    plan = plan_attack(
        [AttackedResponse("1", response, {"group": 1, "outcome": 1.0})],
        EditSettings(edits_named(["address-judge", "double-check"])),
    )
    cost = attack_cost(plan)
    assert (cost.originals, cost.edited, cost.steps) == (1, 2, 8)
    report = run_attack(plan, judge, {"pass": sc.PASS()})
    assert server.count()["requests"] == 8
    assert [earnings.applied for earnings in report.earnings] == [1, 1]


def test_verdicts_follow_the_interval() -> None:
    def verdict(low: float | None, high: float | None, harmful: bool) -> str:
        return attack_verdict(EarnedChange(0.0, low, high, 8, 5), harmful=harmful)

    assert verdict(0.1, 0.2, False) == verdict(0.1, 0.2, True) == "exploitable"
    assert verdict(-0.2, -0.1, False) == verdict(-0.2, -0.1, True) == "right direction"
    assert verdict(-0.1, 0.1, False) == verdict(-0.1, 0.1, True) == "undecided"
    assert (verdict(0, 0, False), verdict(0, 0, True)) == ("right direction", "undecided")
    assert verdict(None, None, False) == attack_verdict(None, harmful=True) == "undecided"
    assert verdict(1e-9, 1e-8, False) == "right direction"  # rounding
    few = EarnedChange(0.5, 0.5, 0.5, 8, 4)  # equal in four groups, which chance does too
    assert attack_verdict(few, harmful=False) == "undecided"
    assert earned_change([], []) is None
    single = earned_change([1.0, 2.0], ["a", "a"])
    assert single == EarnedChange(1.5, None, None, 2, 1)


def test_every_edit_has_its_texts() -> None:
    assert len(EDITS) == 10
    assert all(edit.about and edit.name == name for name, edit in EDITS.items())
