"""The pool of grading processes: limits that hold, and nothing lost but what is at fault."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stepcredit.errors import FileError, SignalError
from stepcredit.rewards import workers
from stepcredit.rewards.maths import Verdict, grade
from stepcredit.rewards.workers import Pool, Worker, shared_pool

HANGS = [
    "10^{10^{10}}",
    r"\binom{10^9}{5 \cdot 10^8}",
    "((9!)!)!",
    "(10^{9999})^{(10^{9})}",
]
"""Sent to the workers as they are, past the caps: each computes for ever, or until memory ends."""


@pytest.fixture
def pool() -> Pool:
    made = Pool("stepcredit.rewards.grader", 1)
    assert made.verdicts([("1", "1.0")], 30.0) == "R"
    yield made
    made.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("hanging", HANGS)
def test_the_limit_holds_and_costs_nothing_else(hanging: str, pool: Pool) -> None:
    pairs = [("1/2", "0.5"), (hanging, "3"), ("2/4", "0.5"), ("3", "4"), ("1/4", "0.25")]
    letters = pool.verdicts(pairs, 1.0)
    assert letters[1] in "TW"
    assert letters[0] + letters[2:] == "RRWR"


def test_one_that_hangs_is_timed_out(pool: Pool) -> None:
    assert pool.verdicts([("1", "2"), (HANGS[1], "3"), ("2/4", "0.5")], 1.0) == "WTR"


def test_a_hanging_gold_answer_is_timed_out(pool: Pool) -> None:
    assert pool.verdicts([("1", HANGS[1]), ("2/4", "0.5")], 1.0) == "TR"


@pytest.mark.timeout(60)
def test_the_limit_holds_in_any_thread_at_once() -> None:
    def ask(at: int) -> list[Verdict]:
        return grade([r"\binom{10^9}{5 \cdot 10^8}", f"{at}/2"], ["3", f"{at / 2}"], limit=1.0)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(ask, range(1, 5)))
    assert found == [[Verdict.TIMED_OUT, Verdict.RIGHT]] * 4


def test_works_inside_an_event_loop() -> None:
    async def ask() -> list[list[Verdict]]:
        here = grade(["2/4"], ["0.5"])
        others = [asyncio.to_thread(grade, [f"{at}/4"], ["0.5"]) for at in range(6)]
        return [here, *await asyncio.gather(*others)]

    found = [verdict is Verdict.RIGHT for (verdict,) in asyncio.run(ask())]
    assert found == [True, False, False, True, False, False, False]


def test_order_is_kept_over_many_chunks() -> None:
    answers = [f"{n}/7" for n in range(200)]
    golds = [f"{2 * n}/14" if n % 3 else "1/9" for n in range(200)]
    found = [verdict is Verdict.RIGHT for verdict in grade(answers, golds, workers=2)]
    assert found == [n % 3 != 0 for n in range(200)]


def test_a_killed_idle_worker_is_replaced(pool: Pool) -> None:
    worker = pool._idle[0]
    worker._process.kill()
    worker._process.wait()
    assert pool.verdicts([("2/4", "0.5")], 30.0) == "R"


def test_a_worker_killed_at_work_costs_no_verdict(pool: Pool) -> None:
    victim = pool._idle[0]._process
    with ThreadPoolExecutor(1) as threads:
        pairs = [(f"{n}/14", f"{2 * n}/28") for n in range(1, 400)]
        letters = threads.submit(pool.verdicts, pairs, 30.0)
        time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
        assert set(letters.result()) == {"R"}


def test_a_worker_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SignalError, match=r"did not start: ModuleNotFoundError: .*no_such_grader"):
        Worker("no_such_grader")


def test_a_missing_temporary_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(FileError, match=r"^temporary files: .*; set TMPDIR to a folder that can"):
        Worker("stepcredit.rewards.grader")


def test_a_closed_pool_starts_anew(pool: Pool) -> None:
    pool.close()
    assert not pool._idle
    assert pool.verdicts([("2/4", "0.5")], 30.0) == "R"


def test_the_pool_is_one_a_process() -> None:
    assert shared_pool("stepcredit.rewards.grader", 2) is shared_pool(
        "stepcredit.rewards.grader", 2
    )
    assert shared_pool("stepcredit.rewards.grader", 2) is not shared_pool(
        "stepcredit.rewards.grader", 1
    )


def run(program: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(program))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120
    )


def test_workers_import_neither_the_script_nor_torch(tmp_path: Path) -> None:
    """No `if __name__` guard is needed: the script runs once, and its workers hold no torch."""
    done = run(
        """
        print("script")
        from pathlib import Path
        from stepcredit.rewards.maths import grade
        from stepcredit.rewards.workers import shared_pool
        print(grade(["2/4"], ["0.5"], workers=1)[0].name)
        worker = shared_pool("stepcredit.rewards.grader", 1)._idle[0]
        maps = Path(f"/proc/{worker._process.pid}/maps")
        print("torch" in maps.read_text() if maps.exists() else False)
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr) == ("script\nRIGHT\nFalse\n", "")


def test_a_forked_child_grades_with_workers_of_its_own(tmp_path: Path) -> None:
    done = run(
        """
        import os
        from stepcredit.rewards.maths import grade
        grade(["2/4"], ["0.5"], workers=1)
        if os.fork() == 0:
            print(grade(["3/4"], ["0.75"], workers=1)[0].name, flush=True)
            os._exit(0)
        os.wait()
        print(grade(["1/4"], ["0.5"], workers=1)[0].name)
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr) == ("RIGHT\nWRONG\n", "")


def test_workers_end_with_their_parent_even_one_that_hangs(tmp_path: Path) -> None:
    done = run(
        r"""
        import os, threading, time
        from stepcredit.rewards.workers import Pool
        pool = Pool("stepcredit.rewards.grader", 2)
        pool.verdicts([("2/4", "0.5")] , 30.0)
        idle = pool._idle[0]._process.pid
        started = []
        take = pool._take
        pool._take = lambda: started.append(take()) or started[-1]
        hanging = [(r"\binom{10^9}{5 \cdot 10^8}", "3")]
        threading.Thread(target=pool.verdicts, args=(hanging, 2.0), daemon=True).start()
        time.sleep(1.0)
        print(idle, started[0]._process.pid, flush=True)
        os.kill(os.getpid(), 9)
        """,
        tmp_path,
    )
    deadline = time.monotonic() + 20.0
    alive = [int(process) for process in done.stdout.split()]
    assert len(alive) == 2
    while alive and time.monotonic() < deadline:
        alive = [process for process in alive if _runs(process)]
        time.sleep(0.1)
    assert alive == []


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_no_worker_is_left_when_the_script_ends(tmp_path: Path) -> None:
    done = run(
        """
        from stepcredit.rewards.maths import grade
        from stepcredit.rewards.workers import shared_pool
        grade(["2/4"], ["0.5"], workers=1)
        print(shared_pool("stepcredit.rewards.grader", 1)._idle[0]._process.pid)
        """,
        tmp_path,
    )
    assert done.stderr == ""
    assert not _runs(int(done.stdout))


def test_processes_are_at_most_as_many_as_asked_for() -> None:
    assert workers._cpus() >= 1
    pool = Pool("stepcredit.rewards.grader", 2)
    pool.verdicts([("2/4", "0.5")] * 100, 30.0)
    assert 1 <= len(pool._idle) <= 2
    pool.close()
