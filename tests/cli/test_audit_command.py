"""`stepcredit audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.audit.made_rollouts import small_rows
from tests.cli.conftest import Run
from tests.conftest import SHARED

from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.finding import (
    AuditFigure,
    CheckResult,
    EvidencePlace,
    Finding,
    Unchecked,
)

LOGS = SHARED / "cases" / "formats"
ROWS = small_rows(3)


def planted(given: AuditInput) -> CheckResult:
    """A warning whose texts hold what must not reach a terminal."""
    figure = AuditFigure("mean \x1b[31madvantage", 0.25, 6, "responses", 0.1, 0.4, "pass")
    places = tuple(EvidencePlace(i) for i in (0, 4) if i < len(given.batch.rows))
    sentence = "Filler is paid [bold]more\x1b]0;x\x07\u202e."
    found = Finding("planted", "warn", sentence, (figure,), "Set `--set k=1.0`.", places, 0.5)
    lacks = Unchecked("planted", "step_labels", "No row says which steps are right.")
    return CheckResult((figure,), (found,), (lacks,), {"methods": sorted(given.methods)})


@pytest.fixture
def rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file, and the planted check as the only one."""
    monkeypatch.setattr("stepcredit.audit.audit_report.audit_checks", lambda: {"planted": planted})
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def loaded(path: str) -> dict[str, Any]:
    return dict(json.loads(Path(path).read_text()))


def test_summary_page_and_json(run: Run, rollouts: str) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    ended = run("audit", rollouts, "-o", "page.html", "--json", "report.json")
    assert (ended.code, ended.err) == (0, "")
    words = " ".join(ended.out.split())
    assert "6 responses in 2 groups, 24 trained tokens" in words
    assert "methods: pass, pure, pass-min, grpo; checks: 1" in words
    assert "1. warn Filler is paid [bold]more\\x1b]0;x\\x07\\u202e." in words
    assert "advantage, pass: 0.25 (0.1 to 0.4), n = 6 responses" in words
    assert "What to change: Set `--set k=1.0`. See lines 1, 5 of the file." in words
    assert "Planted (step_labels): No row says which steps are right." in words
    assert not {"\x1b", "\x07", "\u202e"} & set(ended.out)
    assert loaded("report.json")["format"] == "stepcredit-audit"
    assert Path("page.html").read_text().startswith("<!doctype html>")


def test_methods_and_their_fields(run: Run, rollouts: str) -> None:
    chosen = ("--method", "grpo", "--method", "pass", "--set", "k=0.5")
    ended = run("audit", rollouts, *chosen, "--json", "report.json")
    report = loaded("report.json")
    assert ended.code == 0
    assert list(report["methods"]) == ["grpo", "pass"]
    assert "k=0.5" in report["methods"]["pass"]
    assert report["checks"]["planted"]["series"] == {"methods": ["grpo", "pass"]}


def test_json_on_standard_output_stands_alone(run: Run, rollouts: str) -> None:
    ended = run("audit", rollouts, "--json", "-")
    assert json.loads(ended.out)["verdict"] == [0]


@pytest.mark.parametrize(("level", "code"), [("warn", 3), ("fault", 0)])
def test_fail_on(run: Run, rollouts: str, level: str, code: int) -> None:
    ended = run("audit", rollouts, "--fail-on", level)
    assert (ended.code, ended.err) == (code, "")
    assert "Filler is paid" in ended.out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--fail-on", "note"), "--fail-on note: expected warn or fault"),
        (("--method", "pas"), "--method pas: unknown method 'pas', did you mean 'pass'?"),
        (("--method", "grpo", "--set", "k=1"), "--set k: none of grpo has such a field"),
        (("--conformance", "--set", "k=1"), "--set: --conformance needs --method beside it"),
        (("--json", "no/such/folder.json"), "no/such/folder.json"),
    ],
)
def test_refusals_are_one_line(
    run: Run, rollouts: str, arguments: tuple[str, ...], line: str
) -> None:
    ended = run("audit", rollouts, *arguments)
    assert ended.code == 1
    assert ended.err.startswith(line)
    assert ended.err.count("\n") == 1


def test_an_empty_file_is_refused(run: Run, rollouts: str) -> None:
    Path("empty.jsonl").write_text("")
    ended = run("audit", "empty.jsonl")
    assert ended.code == 1
    assert ended.err.startswith("empty.jsonl: ")


@pytest.mark.skipif(not LOGS.is_dir(), reason="there are no logs beside the checkout")
def test_a_log_is_read_without_a_separate_step(run: Run, rollouts: str) -> None:
    log = str(LOGS / "verl_ok.jsonl")
    ended = run("audit", log, "--json", "report.json")
    assert ended.code == 0
    assert loaded("report.json")["counts"]["responses"] >= 1
    ended = run("audit", log, "--from", "verl-rollouts", "--json", "named.json")
    assert loaded("named.json")["counts"] == loaded("report.json")["counts"]


def test_conformance_compares_the_advantages_of_the_file(run: Run, rollouts: str) -> None:
    rows = [
        {"group": 0, "outcome": right, "advantages": [sign * 0.7071] * 3}
        for right, sign in ((1.0, 1), (0.0, -1), (1.0, 1), (0.0, -1))
    ]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = run("audit", "own.jsonl", "--conformance", "--json", "report.json")
    report = loaded("report.json")
    assert ended.code == 0
    assert list(report["checks"]) == ["conformance"]
    assert {"grpo", "rloo", "pass"} <= set(report["methods"])
    ended = run("audit", "own.jsonl", "--conformance", "--method", "grpo", "--json", "one.json")
    assert list(loaded("one.json")["methods"]) == ["grpo"]


def attacked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts in `talk.jsonl`, and an attack on them in `attack.json`."""
    pytest.importorskip("scipy")
    code = "[1.0 - any(map(str.isdigit, step)) for step in response.step_texts]"
    Path("talkative.py").write_text(f"def talk(response):\n    return {code}\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    rows = [
        {"group": g, "prompt": "?", "text": f"We add.\n\n{g} + 1 = {g + 1}.", "outcome": float(i)}
        for g in range(8)
        for i in (0, 1)
    ]
    Path("talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    signal = ("--signal", "callable", "--set", "function=talkative:talk")
    edits = ("--method", "pass:scope=process,k=0", "--edits", "insert-contentless")
    assert run("attack", "talk.jsonl", *signal, *edits, "--json", "attack.json").code == 0
    score = run("score", "talk.jsonl", "-o", "scored.jsonl", *signal)
    assert score.code == 0


def test_an_attack_becomes_a_part_of_the_report(
    run: Run, rollouts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked(run, monkeypatch)
    wanted = ("--attack", "attack.json", "--json", "report.json", "-o", "page.html")
    ended = run("audit", "scored.jsonl", *wanted)
    assert (ended.code, ended.err) == (0, "")
    report = loaded("report.json")
    assert list(report["checks"]) == ["planted", "attack"]
    [finding] = [each for each in report["findings"] if each["check"] == "attack"]
    assert finding["sentence"].startswith("The signal callable can be gamed: ")
    assert "insert-contentless" in " ".join(ended.out.split())
    page = Path("page.html").read_text()
    assert '<h2 id="attack">What edits earn</h2>' in page
    assert "exploitable" in page


def test_an_attack_on_another_file_is_refused(
    run: Run, rollouts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked(run, monkeypatch)
    ended = run("audit", rollouts, "--attack", "attack.json", "--json", "report.json")
    reason = f"16 of its 16 attacked responses are not in {rollouts}"
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"attack.json: is an attack on another file: {reason}\n"
    assert not Path("report.json").exists()
    ended = run("audit", rollouts, "--attack", rollouts)
    assert ended.err == f"{rollouts}: is not JSON of `stepcredit attack --json`\n"
    ended = run("audit", rollouts, "--conformance", "--attack", "attack.json")
    assert ended.err.startswith("--attack: --conformance compares stored advantages")


@pytest.mark.parametrize("command", [("audit",), ("attack", "--signal", "arithmetic")])
def test_a_package_that_is_not_installed_is_named_before_the_work(
    command: tuple[str, ...], run: Run, rollouts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepcredit.requires.find_spec", lambda name: None)
    ended = run(*command, rollouts)
    assert (ended.code, ended.out) == (1, "")
    line = (
        "scipy: not installed; it comes with the extra report: pip install 'stepcredit[report]'\n"
    )
    assert ended.err == line
