"""`stepcredit audit` of a run, with `--watch`, and with `--diff`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.audit.made_runs import lab_run, step_rows, verl_rows, write_lines
from tests.cli.conftest import Ended, Run

from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding
from stepcredit.cli import audit_run
from stepcredit.cli.standard_streams import Stopped


def mean_outcome(given: AuditInput) -> CheckResult:
    """A check that is quick: the mean outcome, and a warning where it is below a half."""
    outcome = given.batch.rollouts.outcome
    mean = float(outcome.mean())
    figure = AuditFigure("mean \x1boutcome", mean, len(outcome), "responses", worse="lower")
    warning = Finding("outcome", "warn", f"It is {mean}.", (figure,), "-", topic="low \x1bmean")
    return CheckResult((figure,), (warning,) if mean < 0.5 else ())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted check as the only one."""
    monkeypatch.setattr(
        "stepcredit.audit.audit_report.audit_checks", lambda: {"outcome": mean_outcome}
    )


def outcome_rows(step: int, outcome: float) -> list[dict[str, Any]]:
    return [
        {"group": f"{step}-{at}", "step": step, "length": 2, "outcome": outcome} for at in range(2)
    ]


def words(ended: Ended) -> str:
    return " ".join(ended.out.split())


def test_a_run_is_followed_step_by_step(run: Run, tmp_path: Path) -> None:
    means = {1: 1.0, 20: 0.0, 40: 0.25, 60: 0.75}
    rows = [row for step, outcome in means.items() for row in outcome_rows(step, outcome)]
    write_lines(tmp_path / "runs" / "a" / "rollouts.jsonl", rows)
    ended = run("audit", "runs/a", "--json", "report.json")
    assert (ended.code, ended.err) == (0, "")
    shown = words(ended)
    assert "runs/a: 4 steps (1 to 60)" in shown
    assert "(the worst step is 20: 1 warning)" in shown
    assert "- warn low \\x1bmean: 20 to 40" in shown
    assert "first 1 at step 1; worst 0 at step 20; last 0.75 at step 60" in shown
    assert "The last step, 60: The checks that ran found nothing to change." in shown
    assert "\x1b" not in ended.out
    found = json.loads(Path("report.json").read_text())
    assert found["format"] == "stepcredit-audit"
    assert len(found["run"]["steps"]) == 4
    assert run("audit", "runs/a", "--fail-on", "warn").code == 3
    assert run("audit", "runs/a@60", "--fail-on", "warn").code == 0


def test_steps_that_cannot_be_read_have_one_line_each(run: Run, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_lines(tmp_path / "dump" / f"{step}.jsonl", verl_rows(step))
    (tmp_path / "dump" / "2.jsonl").write_text("no json\n")
    (tmp_path / "dump" / "3.jsonl").write_text("")
    ended = run("audit", "dump")
    assert ended.code == 0
    lines = [line for line in ended.err.splitlines() if line.startswith("step ")]
    assert lines == [
        "step 2 is left out: dump/2.jsonl: none of its responses can be used",
        "step 3 is left out: dump/3.jsonl: there are no rollouts in it",
    ]
    assert "dump/2.jsonl:1: is not JSON" in ended.err
    assert "dump: 1 step (1)" in words(ended)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("empty",), "empty: no rollouts of a run in this folder: expected rollouts.jsonl, "),
        (("none",), "none: "),
        (("run@7",), "run: has no step 7: its steps are 1, 20"),
        (("run", "run"), "run: one file or folder is audited; --diff compares two"),
        (("--diff", "run"), "--diff: expected two files, or two steps RUN@STEP, got run"),
        (("--diff", "run", "run", "run"), "--diff: expected two files, or two steps RUN@STEP"),
        (("--diff", "run", "empty"), "empty: no rollouts of a run in this folder"),
        (("--diff", "run", "run", "--watch"), "--watch: --diff compares what there is now"),
        (("text.txt",), "text.txt:1: is not JSON"),
        (("none", "--watch"), "none: no such file or folder"),
        (("text.txt", "--watch"), "text.txt:1: is not JSON"),
        (("plain.jsonl", "--watch"), "plain.jsonl: no row names its step: expected a field of "),
        (("run", "--watch", "--json", "-"), "--json -: --watch writes it again: name a file"),
    ],
)
def test_refusals_are_one_line(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    lab_run(tmp_path / "run", (1, 20))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("a text\n")
    write_lines(tmp_path / "plain.jsonl", [{"group": 1, "length": 1}])
    ended = run("audit", *arguments)
    assert ended.code == 1
    assert ended.err.startswith(line)
    assert ended.err.count("\n") == 1


class Clock:
    """Time that passes only while `--watch` sleeps; something happens in each pause."""

    def __init__(self, events: Iterator[Callable[[], object]]) -> None:
        self.now, self.events, self.pauses = 0.0, events, 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        event = next(self.events, None)
        if event is None:
            raise KeyboardInterrupt
        event()


@pytest.fixture
def watch(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Runs `audit --watch` with what happens in each pause; then Ctrl-C."""

    def watched(*arguments: str, events: list[Callable[[], object]]) -> Ended:
        monkeypatch.setattr(audit_run, "time", Clock(iter(events)))
        return run("audit", *arguments, "--watch")

    return watched


def test_watch_audits_each_new_step_once(watch: Callable[..., Ended], tmp_path: Path) -> None:
    path = tmp_path / "run" / "rollouts.jsonl"
    path.parent.mkdir()
    one, two, three = outcome_rows(1, 1.0), outcome_rows(2, 0.0), outcome_rows(3, 0.5)
    seen: list[int] = []

    def steps() -> None:
        found = json.loads(Path("report.json").read_text())
        seen.append(len(found["run"]["steps"]))

    events = [
        lambda: write_lines(path, one),
        lambda: None,
        lambda: write_lines(path, one + two[:1], '{"group"'),
        lambda: steps(),
        lambda: None,
        lambda: write_lines(path, one + two),
        lambda: write_lines(path, one + two + three),
        lambda: steps(),
        lambda: None,
    ]
    ended = watch("run", "--json", "report.json", events=events)
    assert ended.code == 0
    lines = [line for line in ended.out.splitlines() if line.startswith("step ")]
    assert lines == [
        "step 1: 2 responses, 2 groups; no finding",
        "step 2: 2 responses, 2 groups; 1 warning; new: low \x1bmean",
        "step 3: 2 responses, 2 groups; no finding; gone: low \x1bmean",
    ]
    assert seen == [1, 2]
    assert "run: no rollouts yet: waiting (Ctrl-C ends)" in ended.err
    assert "run: 3 steps (1 to 3)" in words(ended)
    steps()
    assert seen[-1] == 3


def test_watch_says_once_that_nothing_comes(watch: Callable[..., Ended], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", outcome_rows(1, 1.0) + outcome_rows(2, 1.0))
    ended = watch(str(path.name), events=[lambda: None] * 40)
    assert ended.code == 0
    assert ended.err == "in.jsonl: nothing new since step 2: still waiting (Ctrl-C ends)\n"
    assert "in.jsonl: 2 steps (1 to 2)" in words(ended)


def test_a_stop_signal_ends_a_watch_with_its_code(
    watch: Callable[..., Ended], tmp_path: Path
) -> None:
    write_lines(tmp_path / "in.jsonl", outcome_rows(1, 1.0) + outcome_rows(2, 1.0))

    def stop() -> None:
        raise Stopped(15)

    ended = watch("in.jsonl", "--json", "report.json", events=[stop])
    assert ended.code == 143
    assert len(json.loads(Path("report.json").read_text())["run"]["steps"]) == 1


def test_the_difference_of_two_steps(run: Run, tmp_path: Path) -> None:
    rows = step_rows(1)
    shifted = [
        {**row, "update": 2, "step_scores": [x / 2 for x in row["step_scores"]]} for row in rows
    ]
    write_lines(tmp_path / "run" / "rollouts.jsonl", rows + shifted)
    ended = run("audit", "--diff", "run@1", "run@2", "--method", "pass", "--json", "diff.json")
    assert (ended.code, ended.err) == (0, "")
    shown = words(ended)
    assert "from run@1: 16 responses in 8 groups to run@2: 16 responses" in shown
    assert "Paired: the same responses in both files, 8 prompts; 16 of 16 responses" in shown
    assert "Got a lower score from a signal:" in shown
    assert "score of right steps, process: " in shown
    assert "Findings that appeared: none Findings that vanished: none" in shown
    assert "Responses whose credit changed most: - pass: lines " in shown
    found = json.loads(Path("diff.json").read_text())
    assert (found["format"], found["paired_by"]) == ("stepcredit-audit-diff", "responses")


def test_a_finding_that_appears_fails_on_request(run: Run, tmp_path: Path) -> None:
    write_lines(tmp_path / "high.jsonl", outcome_rows(1, 1.0))
    write_lines(tmp_path / "low.jsonl", outcome_rows(2, 0.0))
    assert run("audit", "--diff", "high.jsonl", "low.jsonl", "--fail-on", "warn").code == 3
    assert run("audit", "--diff", "low.jsonl", "high.jsonl", "--fail-on", "warn").code == 0
