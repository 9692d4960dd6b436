"""`stepcredit eval`: figures by their definitions, stops, other commands, errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from tests.cli.conftest import Run, environment
from tests.evals.eval_rows import FakeServer, gsm8k_rows, read_lines, solve, write_lines


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def asked(tmp_path: Path, server: FakeServer) -> list[str]:
    """A command that samples twelve sums, four times each."""
    write_lines(tmp_path / "rows.jsonl", gsm8k_rows(12))
    place = ["--backend", "server", "--url", server.url, "--model", "m", "--attempts", "2"]
    return ["eval", *place, "--tasks", "gsm8k", "--file", "gsm8k=rows.jsonl", "-o", "out.jsonl"]


def mixed(body: dict[str, Any]) -> str:
    """Right or wrong by the seed; some answers are long, some have no box."""
    kind = body["seed"] % 5
    if kind == 0:
        return "I do not know." if body["seed"] % 2 else ""
    text = solve(body)
    if kind == 1:
        return text.replace("boxed{", "boxed{1")
    return text if kind < 4 else f"{'so ' * 12}{text}"


def test_every_figure_by_its_definition(
    run: Run, asked: list[str], server: FakeServer, tmp_path: Path
) -> None:
    server.answer = mixed
    done = run(*asked, "-n", "4", "--k", "1,2,3", "--json")
    assert done.code == 0, done.err
    rows = read_lines(tmp_path / "out.jsonl")
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_problem.setdefault(row["group"], []).append(row)
    assert {len(own) for own in by_problem.values()} == {4}
    found = json.loads(done.out)["tasks"][0]
    figures = {name: value["mean"] for name, value in found["figures"].items()}
    outcomes = [[row["outcome"] for row in own] for own in by_problem.values()]
    for k in (1, 2, 3):
        draws = [fmean(any(draw) for draw in combinations(own, k)) for own in outcomes]
        assert figures[f"pass@{k}"] == pytest.approx(fmean(draws))
    assert figures["avg@4"] == pytest.approx(fmean(map(fmean, outcomes)))
    assert figures["maj@4"] == pytest.approx(fmean(map(by_hand, by_problem.values())))
    assert found["details"]["cut"] == fmean(row["text"].startswith("so so") for row in rows)
    unanswered = fmean("box" not in row["text"] for row in rows)
    assert {"", "I do not know."} < {row["text"] for row in rows}
    assert 0 < unanswered == found["details"]["no_answer"]
    assert figures["tokens"] == pytest.approx(fmean(len(row["text"].split()) + 1 for row in rows))
    assert 0 < figures["avg@4"] < 1
    assert json.loads((tmp_path / "out.summary.json").read_text())["tasks"] == [found]


def by_hand(rows: list[dict[str, Any]]) -> float:
    """The majority vote over answers that are whole numbers."""
    counts: dict[str, list[float]] = {}
    for row in rows:
        if "box" in row["text"]:
            answer = row["text"].split("boxed{")[1].split("}")[0]
            counts.setdefault(answer, []).append(row["outcome"])
    most = max(map(len, counts.values()), default=0)
    return fmean(own[0] for own in counts.values() if len(own) == most) if counts else 0.0


def test_the_table_has_a_line_per_task(run: Run, asked: list[str]) -> None:
    done = run(*asked, "-n", "2")
    assert done.code == 0, done.err
    heading, line, *_ = done.out.splitlines()
    assert heading.split()[:5] == ["task", "problems", "n", "avg@2", "pass@2"]
    assert line.split()[:5] == ["gsm8k", "12", "2", "0.500", "0.500"]
    again = run("eval", "--from", "out.jsonl")
    assert again.out == done.out


def test_a_killed_run_goes_on_and_counts_each_sample_once(
    run: Run, asked: list[str], server: FakeServer, tmp_path: Path
) -> None:
    def slow(body: dict[str, Any]) -> str:
        time.sleep(0.05)
        return mixed(body)

    server.answer = slow
    command = [sys.executable, "-m", "stepcredit", *asked, "-n", "4", "--concurrency", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment())
    path, deadline = tmp_path / "out.jsonl", time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = path.read_bytes()
    kept = before.count(b"\n")
    assert 10 <= kept < 48
    with path.open("ab") as file:  # what a kill in the middle of a line leaves
        file.write(before.splitlines()[0][:50])
    asked_before = len(server.asked)
    server.answer = mixed
    again = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"out.jsonl: {kept} samples of an earlier run, {48 - kept} of this one" in again.stderr
    assert len(server.asked) - asked_before == 48 - kept
    rows = read_lines(path)
    assert len(rows) == len({(row["group"], row["sample"]) for row in rows}) == 48
    assert path.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert run(*asked, "-n", "4", "-o", "whole.jsonl").code == 0
    by_key = [
        {(row["group"], row["sample"]): row for row in read_lines(tmp_path / name)}
        for name in ("out.jsonl", "whole.jsonl")
    ]
    assert by_key[0] == by_key[1]


def test_more_samples_and_more_tasks_are_added(
    run: Run, asked: list[str], server: FakeServer, tmp_path: Path
) -> None:
    assert run(*asked, "-n", "1").code == 0
    assert run(*asked, "-n", "3").code == 0
    assert len(server.asked) == 36
    write_lines(tmp_path / "other.jsonl", [{"problem": "7 + 1?", "answer": "8"}])
    more = ["--file", "math500=other.jsonl", "--tasks", "gsm8k,math500"]
    done = run(*asked, "-n", "3", *more)
    assert (done.code, len(server.asked)) == (0, 39)
    assert [line.split()[0] for line in done.out.splitlines()[1::2]] == ["gsm8k", "math500"]


def test_a_template_from_a_file_and_a_system_turn(
    run: Run, asked: list[str], server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "turn.txt").write_text("Please: {prompt} Use {braces}.")
    done = run(*asked, "--template", "gsm8k=@turn.txt", "--system", "Think.", "--limit", "1")
    assert done.code == 0, done.err
    assert server.asked[0]["messages"] == [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "Please: 0 + 1? Use {braces}."},
    ]
    absent = run(*asked, "--template", "gsm8k=@none.txt")
    assert (absent.code, absent.err) == (1, "none.txt: no such file or directory\n")


def test_other_commands_read_the_file(run: Run, asked: list[str], server: FakeServer) -> None:
    server.answer = mixed
    assert run(*asked, "-n", "4").code == 0
    valid = run("validate", "out.jsonl")
    assert valid.code == 0
    assert "48 in 12 groups" in valid.out
    assert run("shape", "out.jsonl", "-o", "shaped.jsonl", "--method", "grpo").code == 0
    assert run("explain", "out.jsonl", "--group", "gsm8k/0", "--method", "grpo").code == 0
    again = ("--reward", "maths", "--set", "read=number")
    assert run("reward", "out.jsonl", "-o", "graded.jsonl", *again).code == 0
    outcomes = [
        [row["outcome"] for row in read_lines(Path(n))] for n in ("out.jsonl", "graded.jsonl")
    ]
    assert outcomes[0] == outcomes[1]
    scored = run("score", "out.jsonl", "-o", "scored.jsonl", "--signal", "equations")
    assert scored.code == 0, scored.err


LIKES_SHORT = """
def brief(response):
    return [0.9 if "so so" not in step else 0.1 for step in response.step_texts]
def signed(response):
    return [-1.0 for step in response.step_texts]
"""


def test_best_of_n_by_a_process_signal(
    run: Run, asked: list[str], server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "likes.py").write_text(LIKES_SHORT)
    server.answer = mixed
    by = ("--signal", "callable", "--set")
    done = run(*asked, "-n", "4", "--json", *by, "function=likes:brief")
    assert done.code == 0, done.err
    figures = json.loads(done.out)["tasks"][0]["figures"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in read_lines(tmp_path / "out.jsonl"):
        groups.setdefault(row["group"], []).append(row)
    expected = []
    for own in groups.values():
        short = [row for row in own if not row["text"].startswith("so so")] or own
        expected.append(fmean(row["outcome"] for row in short))
    for pool in ("min", "mean", "product"):
        assert figures[f"best@4 {pool}"]["mean"] == pytest.approx(fmean(expected))
    assert all("step_scores" in row for row in read_lines(tmp_path / "out.scored.jsonl"))
    signed = run(*asked, "-n", "4", "--json", *by, "function=likes:signed")
    figures = json.loads(signed.out)["tasks"][0]["figures"]
    assert figures["best@4 min"]["mean"] == pytest.approx(figures["avg@4"]["mean"])
    assert "best@4 product" not in figures
    assert "no best-of-n by product, because some step scores are negative" in signed.err


def test_question_answering_has_joint_scores(run: Run, server: FakeServer, tmp_path: Path) -> None:
    row = {
        "question": "7 + 1?",
        "answer": "the fox",
        "context": [["Fox", ["It is red.", " It runs."]], ["Dog", ["It barks."]]],
        "supporting_facts": [["Fox", 0], ["Dog", 0]],
    }
    write_lines(tmp_path / "qa.jsonl", [row, {**row, "answer": "a dog"}])
    server.answer = lambda _: "<support>Fox | 0</support> <answer>red fox</answer>"
    place = ["--backend", "server", "--url", server.url, "--model", "m"]
    files = ["--tasks", "hotpotqa", "--file", "hotpotqa=qa.jsonl", "-o", "qa-out.jsonl"]
    done = run("eval", *place, *files, "--json")
    assert done.code == 0, done.err
    assert f"sampling: {server.url}: 2 sent, 0 failed" in done.err
    figures = {k: v["mean"] for k, v in json.loads(done.out)["tasks"][0]["figures"].items()}
    f1, support, joint = 2 / 3, 2 / 3, 0.5  # precisions 1/2 and 1, recalls 1 and 1/2
    assert figures["f1"] == pytest.approx(f1 / 2)
    assert figures["support_f1"] == pytest.approx(support)
    assert figures["joint_f1"] == pytest.approx(joint / 2)
    assert (figures["avg@1"], figures["joint_em"]) == (0.0, 0.0)
    regraded = run("reward", "qa-out.jsonl", "-o", "joint.jsonl", "--reward", "qa-joint")
    assert regraded.code == 0
    # samples are in the order in which they were drawn, which the server decides
    assert sorted(row["outcome"] for row in read_lines(tmp_path / "joint.jsonl")) == [0.0, joint]


BAD = {
    "unknown task": (["--tasks", "gsm8"], "--tasks gsm8: unknown task; did you mean gsm8k?"),
    "no task": (["--tasks", ""], "--tasks: expected one or more of aime24, aime25"),
    "task twice": (["--tasks", "gsm8k,gsm8k"], "--tasks gsm8k: is given twice"),
    "file of no task": (["--file", "math500=x.jsonl"], "--file math500: is not among --tasks"),
    "file without task": (["--file", "rows.jsonl"], "--file rows.jsonl: expected TASK=VALUE"),
    "k above n": (["--k", "1,8", "-n", "4"], "--k 8: expected 1 to 4, the samples per problem"),
    "k no number": (["--k", "a"], "--k: expected whole numbers with commas, got 'a'"),
    "limit": (["--limit", "0"], "--limit: expected at least 1, got 0"),
    "batch": (["--tokens-per-batch", "0"], "--tokens-per-batch: expected at least 1, got 0"),
    "temperature": (["--temperature", "-1"], "--temperature: expected a number of at least 0"),
    "all the same": (["-n", "2", "--temperature", "0"], "--samples: 2 at temperature 0 would"),
    "backend": (["--backend", "vlm"], "--backend vlm: expected one of transformers, vllm, server"),
    "url": (["--url", "localhost"], "--url: expected an http:// or https:// address"),
    "template": (["--template", "gsm8k=Solve."], "--template gsm8k: holds no {prompt}"),
    "output": (["-o", "out.parquet"], "out.parquet: expected a name that ends in .jsonl"),
    "signal of tokens": (["--signal", "opd"], "--signal opd: scores tokens; best of n needs"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, run: Run, asked: list[str]) -> None:
    options, line = BAD[name]
    done = run(*asked, *options)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(line)
    assert done.out == ""


def test_needed_options_are_named(run: Run) -> None:
    assert run("eval", "--tasks", "gsm8k").err.startswith("-o: needed: the file of samples")


def test_a_server_that_is_down_is_one_line(run: Run, asked: list[str], server: FakeServer) -> None:
    server.close()
    done = run(*asked)
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith("gsm8k/")
    assert line.endswith("/v1/chat/completions: connection refused (attempt 2, the last)")


def test_a_server_that_goes_down_loses_nothing(
    run: Run, asked: list[str], server: FakeServer, tmp_path: Path
) -> None:
    server.answer = lambda body: solve(body) if len(server.asked) <= 5 else (400, "enough")
    done = run(*asked, "--concurrency", "1")
    assert done.code == 1
    kept, last = done.err.splitlines()
    assert kept == "5 of 12 samples are kept in out.jsonl: run the same command to continue"
    assert "HTTP 400" in last
    server.answer = solve
    assert run(*asked).code == 0
    assert len(read_lines(tmp_path / "out.jsonl")) == 12


OTHERS = {
    "model": (
        ["--model", "other"],
        "out.jsonl:1: model: was sampled with 'm', this run has 'other'",
    ),
    "settings": (["--temperature", "0.5"], "out.jsonl:1: temperature: was sampled with '1.0'"),
    "template": (["--template", "gsm8k={prompt}!"], "out.jsonl:1: template: was sampled with"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_run_is_refused(name: str, run: Run, asked: list[str]) -> None:
    assert run(*asked).code == 0
    before = Path("out.jsonl").read_bytes()
    done = run(*asked, *OTHERS[name][0])
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith(OTHERS[name][1])
    assert line.endswith("name another file with -o")
    assert Path("out.jsonl").read_bytes() == before


def test_other_files_are_refused(run: Run, asked: list[str], tmp_path: Path) -> None:
    write_lines(tmp_path / "out.jsonl", [{"group": 1, "length": 3}])
    assert "out.jsonl:1: is no sample of `stepcredit eval`" in run(*asked).err
    assert "out.jsonl:1: task: is no sample of" in run("eval", "--from", "out.jsonl").err
    (tmp_path / "out.jsonl").unlink()
    assert run(*asked).code == 0
    rows = read_lines(tmp_path / "out.jsonl")
    write_lines(tmp_path / "out.jsonl", [*rows, rows[3]])
    line = f"sample: {rows[3]['group']} has its sample 0 twice"
    assert f"out.jsonl:13: {line}" in run(*asked).err
    rows[5]["settings"]["model"] = "other"
    write_lines(tmp_path / "out.jsonl", rows)
    done = run("eval", "--from", "out.jsonl")
    assert done.err.startswith("out.jsonl:6: model: samples of two models: 'other', and 'm'")
    write_lines(tmp_path / "rows.jsonl", gsm8k_rows(13)[1:])
    (tmp_path / "out.jsonl").unlink()
    assert run(*asked).code == 0
    write_lines(tmp_path / "rows.jsonl", gsm8k_rows(12))
    assert "prompt: another problem than this run's gsm8k/" in run(*asked).err


def test_two_runs_cannot_write_one_file(run: Run, asked: list[str], tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "out.jsonl").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert run(*asked).err == "out.jsonl: another run is writing it\n"


def test_what_is_missing_is_said(run: Run, asked: list[str], tmp_path: Path) -> None:
    assert run(*asked, "-n", "2").code == 0
    rows = read_lines(tmp_path / "out.jsonl")
    write_lines(tmp_path / "part.jsonl", rows[1:])
    done = run("eval", "--from", "part.jsonl")
    assert done.code == 0
    assert done.err == "note: gsm8k: samples missing: 1; the figures are of those in the file\n"
    assert "--k 2: expected 1 to 1" in run("eval", "--from", "part.jsonl", "--k", "2").err
