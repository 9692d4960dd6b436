"""An attack as a part of the audit of the same responses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")

from tests.audit.test_audit_report import check_schema

from stepcredit.audit.attack.attack_check import (
    ATTACK_CHECK,
    EditRow,
    SavedAttack,
    attack_result,
    paid_edits,
    with_attack,
)
from stepcredit.audit.attack.attack_plan import EditSettings, plan_attack
from stepcredit.audit.attack.attack_run import run_attack
from stepcredit.audit.attack.attacked_keys import response_key
from stepcredit.audit.attack.attacked_rows import read_attacked
from stepcredit.audit.attack.earnings import EarnedChange, earned_change
from stepcredit.audit.attack.edits import edits_named
from stepcredit.audit.audit_report import audit
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.credit.method_registry import METHODS
from stepcredit.errors import FileError
from stepcredit.signals import signal

EDITS = ("insert-contentless", "break-arithmetic")


def talking(response: Any) -> list[float]:
    """A signal that pays for words without numbers."""
    return [0.2 if any(map(str.isdigit, step)) else 1.0 for step in response.step_texts]


def rows(groups: int = 6) -> list[dict[str, Any]]:
    found = []
    for group in range(groups):
        for wrong in (0, 1):
            total = 11 + group + wrong
            text = f"We add.\n\nSo {group} + 11 = {total}.\n\nIt is {total}."
            found.append({"group": group, "prompt": "?", "text": text, "outcome": 1.0 - wrong})
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rollouts, the attack on them, and the same responses with scores."""
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    file = read_attacked(source)
    plan = plan_attack(file.rows, EditSettings(edits_named(list(EDITS)), file.cutter), limit=8)
    methods = {name: METHODS.build(name) for name in ("pass", "grpo")}
    report = run_attack(plan, signal("callable", function=talking), methods)
    (tmp_path / "attack.json").write_text(json.dumps(report.as_dict()))
    return tmp_path


def scored(given: list[dict[str, Any]]) -> LoggedBatch:
    """The rows as `stepcredit score` leaves them."""
    file = [{**row, "tokens": [row["text"]], "token_scores": [0.5]} for row in given]
    return LoggedBatch.of(file, "scored.jsonl")


def test_the_report_of_an_attack_becomes_figures_and_a_table(folder: Path) -> None:
    attack, given = SavedAttack.read(folder / "attack.json"), scored(rows())
    saved = json.loads((folder / "attack.json").read_text())
    assert len(attack.responses) == len(saved["responses"]) == 8
    report = with_attack(audit(given, {"grpo": METHODS.build("grpo")}, checks={}), attack)
    found = report.as_json()
    check_schema(found)
    check = found["checks"][ATTACK_CHECK]
    for own, edit in zip(check["series"]["earnings"], saved["edits"], strict=True):
        assert own == edit
    [figure] = [
        figure
        for figure in check["figures"]
        if figure["name"].endswith("at the edit insert-contentless") and figure["method"] == "pass"
    ]
    change = saved["edits"][0]["advantages"]["pass"]["at the edit"]
    assert (figure["value"], figure["low"], figure["high"]) == (
        change["mean"],
        change["low"],
        change["high"],
    )
    assert len(report.findings) <= 1


def test_an_attack_on_another_file_is_refused(folder: Path) -> None:
    attack, given = SavedAttack.read(folder / "attack.json"), rows()
    attack.check_rows(scored([*given, {**given[0], "group": "more"}]))
    changed = [{**row, "text": row["text"].replace("We add", "We sum")} for row in given]
    with pytest.raises(FileError, match=r"another file: 8 of its 8 attacked responses are not in"):
        attack.check_rows(scored(changed))
    with pytest.raises(FileError, match=r"^\S+attack.json: is an attack on another file"):
        attack.check_rows(scored([{**row, "group": f"{row['group']}b"} for row in given]))
    without = [{"group": 1, "length": 3, "outcome": 1.0}]
    with pytest.raises(FileError, match="8 of its 8"):
        attack.check_rows(LoggedBatch.of(without))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("{", "is not JSON of"),
        ("[1]", "is not JSON of"),
        ({"schema": "stepcredit.attack/9"}, "its schema is not stepcredit.attack/1"),
        ({"responses": []}, "run `stepcredit attack` again"),
        ({"edits": 3}, "is not as `stepcredit attack --json` writes it"),
        ({"methods": ["pass"]}, "has other methods"),
        ({"signal": {"a": 1}}, "expected a text"),
        ({"responses": [[1]]}, "expected a text"),
    ],
)
def test_other_files_are_refused_in_one_line(folder: Path, change: Any, reason: str) -> None:
    path = folder / "attack.json"
    text = change
    if isinstance(change, dict):
        text = json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)
    with pytest.raises(FileError) as caught:
        SavedAttack.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_no_numbers_are_refused(folder: Path) -> None:
    path = folder / "attack.json"
    saved = json.loads(path.read_text())
    saved["edits"][0]["scores"]["mean"]["mean"] = "much"
    path.write_text(json.dumps(saved))
    with pytest.raises(FileError, match="is not as"):
        SavedAttack.read(path)
    with pytest.raises(FileError):
        SavedAttack.read(folder / "missing.json")


def test_keys_follow_group_and_text_alone() -> None:
    key = response_key("1", {"text": "a b", "outcome": 1.0})
    assert key == response_key("1", {"tokens": ["a", " b"], "token_scores": [1.0, 2.0]})
    assert key != response_key("2", {"text": "a b"})
    assert response_key("1", {"text": "2a"}) != response_key("12", {"text": "a"})
    assert response_key("1", {"text": "\ud800"}) is not None


def edit(name: str, groups: int = 8, **means: float) -> EditRow:
    """An edit measured on groups whose changes spread by about 0.2 around the means."""
    spread = [-0.3, -0.2, -0.1, 0.0, 0.0, 0.1, 0.2, 0.3][:groups]
    changes = {
        method: {"at the edit": earned_change([mean + x for x in spread], range(groups))}
        for method, mean in means.items()
    }
    return EditRow(name, "", False, 8, {}, {}, changes)


def saved(*edits: EditRow) -> SavedAttack:
    methods = tuple(edits[0].advantages)
    return SavedAttack("attack.json", "judge", methods, ("key",), edits)


def test_one_finding_names_what_is_surely_paid() -> None:
    attack = saved(edit("a", p=0.6, q=-1.0), edit("b", p=0.9, q=-1.0), edit("c", p=-0.4, q=-1.0))
    result = attack_result(attack)
    [finding] = result.findings
    assert finding.sentence == (
        "The signal judge can be gamed: edits that make no response better are paid, under p "
        "b by +0.90 and a by +0.60."
    )
    assert "`--method q`" in finding.advice
    assert finding.share == pytest.approx(2 / 3)
    assert [figure.value for figure in finding.evidence] == pytest.approx([0.9, 0.6])


def test_what_may_be_chance_or_is_small_is_no_finding() -> None:
    edits = [edit(f"e{i}", p=0.18) for i in range(10)]
    assert all(row.verdict("p") == "exploitable" for row in edits)
    assert attack_result(saved(*edits)).findings == ()  # one of ten may be chance
    assert paid_edits(saved(edits[0]))["p"] == [edits[0]]  # alone it stands
    assert attack_result(saved(edit("few", groups=7, p=3.0))).findings == ()
    tiny = EarnedChange(0.05, 0.04, 0.06, 80, 40)
    row = EditRow("tiny", "", False, 80, {}, {}, {"p": {"at the edit": tiny}})
    assert attack_result(saved(row)).findings == ()


def test_no_method_is_advised_under_which_an_edit_is_paid_a_little() -> None:
    [finding] = attack_result(saved(edit("a", p=0.9, q=0.17))).findings
    assert "--method" not in finding.advice
    assert "--set weights" in finding.advice


def test_an_edit_that_was_measured_nowhere_has_no_figure() -> None:
    none = EditRow("a", "", True, 0, {"why": 3}, {"mean": None}, {"p": {"at the edit": None}})
    result = attack_result(saved(none))
    assert (result.figures, result.findings) == ((), ())
    assert result.series["earnings"][0]["advantages"]["p"]["verdict"] == "undecided"
