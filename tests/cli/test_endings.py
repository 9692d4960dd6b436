"""How a process ends: closed streams, stop signals, one's own code, outputs of every kind."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ended, Forked, Run, environment, read, write

import stepcredit.cli.standard_streams
from stepcredit.cli.output import printable

ROWS: list[dict[str, Any]] = [{"group": 1, "length": 2, "outcome": float(i % 2)} for i in range(4)]
COMMAND = f"{sys.executable} -m stepcredit"


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., Ended]:
    """Runs a line of a shell, in a folder with `in.jsonl`; CLI is the command."""
    write(tmp_path / "in.jsonl", ROWS)

    def run(line: str, **variables: str) -> Ended:
        env = environment() | {"CLI": COMMAND} | variables
        words = ["bash", "-c", line]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


FULL: dict[int, str | None] = {1: "/dev/full"}
CLOSED: dict[str, tuple[str, dict[int, str | None], str]] = {
    "no input to validate": ("validate -", {0: None}, "standard input: is closed\n"),
    "no input to shape": ("shape - -o out.jsonl", {0: None}, "standard input: is closed\n"),
    "no output": ("validate in.jsonl", {1: None}, "standard output: is closed\n"),
    "no output, a list": ("methods", {1: None}, "standard output: is closed\n"),
    "no output, help": ("--help", {1: None}, "standard output: is closed\n"),
    "no output, -": ("shape in.jsonl -o -", {1: None}, "standard output: is closed\n"),
    "no output, its path": (
        "shape in.jsonl -o /dev/stdout",
        {1: None},
        "standard output: is closed\n",
    ),
    "no such handle": ("shape in.jsonl -o /dev/fd/7", {}, "/dev/fd/7: is closed\n"),
    "full, help": ("--help", FULL, "standard output: no space left on device\n"),
    "full": ("validate in.jsonl", FULL, "standard output: no space left on device\n"),
    "full, its path": ("shape in.jsonl -o /dev/full", {}, "/dev/full: no space left on device\n"),
    "no errors": ("validate no.jsonl", {2: None}, ""),
    "full errors": ("validate no.jsonl", {2: "/dev/full"}, ""),
    "neither": ("validate in.jsonl", {1: None, 2: None}, ""),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("case", CLOSED)
def test_a_stream_that_is_closed_or_full_is_one_line(
    case: str, run_process: Run, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    command, streams, error = CLOSED[case]
    assert run_process(*command.split(), streams=streams) == Ended(1, "", error)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


STARTED = {
    "$CLI validate - <&-": "standard input: is closed\n",
    "$CLI --help >&-": "standard output: is closed\n",
    "$CLI validate in.jsonl >/dev/full": "standard output: no space left on device\n",
    "$CLI validate no.jsonl 2>/dev/full": "",
    "$CLI validate in.jsonl >&- 2>&-": "",
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_new_process_of_python_ends_the_same(shell: Callable[..., Ended], tmp_path: Path) -> None:
    """The test above forks its processes; these start as a shell starts them."""
    assert shell("$CLI shape in.jsonl -o out.jsonl <&- >&- 2>&-").code == 0
    (tmp_path / "out.jsonl").unlink()
    assert {line: shell(line) for line in STARTED} == {
        line: Ended(1, "", error) for line, error in STARTED.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_closed_streams_that_are_not_needed_do_no_harm(run_process: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    none = dict.fromkeys(range(3))
    assert run_process("shape", "in.jsonl", "-o", "out.jsonl", streams=none).code == 0
    assert [len(row["advantages"]) for row in read(tmp_path / "out.jsonl")] == [2, 2, 2, 2]
    gate = '{"group": 1, "length": 2, "format_ok": false}'  # shaped with a warning
    (tmp_path / "gate.jsonl").write_text(gate + "\n")
    given = {0: str(tmp_path / "gate.jsonl"), 2: None}
    assert run_process("shape", "-", "-o", "warned.jsonl", streams=given).code == 0
    assert (tmp_path / "warned.jsonl").read_text().startswith(gate[:-1])


def test_standard_output_keeps_what_it_was_redirected_to(run_process: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "all").write_text("before\n")
    for handle, output in ((1, "/dev/stdout"), (3, "/dev/fd/3")):
        ended = run_process("shape", "in.jsonl", "-o", output, streams={handle: "all"})
        assert ended.err == ""
    lines = (tmp_path / "all").read_text().splitlines()
    assert lines[0] == "before"
    assert lines[1:5] == lines[5:]


LINKS = {
    "ln -s target out": ("", ["in.jsonl", "out", "target"]),
    "echo old > target; ln -s target out": ("", ["in.jsonl", "out", "target"]),
    "echo old > target; ln target out": ("", ["in.jsonl", "out", "target"]),
    "ln -s in.jsonl out": ("", ["in.jsonl", "out"]),
    "ln in.jsonl out": ("", ["in.jsonl", "out"]),
    "ln -s out out": ("out: too many levels of symbolic links\n", ["in.jsonl", "out"]),
    "mkdir out": ("out: is a directory\n", ["in.jsonl", "out"]),
    "ln -s no/target out": ("out: no such file or directory\n", ["in.jsonl", "out"]),
}


@pytest.mark.parametrize("make", LINKS)
def test_an_output_of_any_kind_is_written_or_refused_first(
    make: str, run_process: Run, tmp_path: Path
) -> None:
    """A symbolic link stays and its target is replaced; of a hard link, the other name stays."""
    write(tmp_path / "in.jsonl", ROWS)
    subprocess.run(["bash", "-c", make], cwd=tmp_path, check=True)
    before = (tmp_path / "in.jsonl").read_text()
    error, names = LINKS[make]
    ended = run_process("shape", "in.jsonl", "-o", "out")
    assert (ended.code, ended.err) == (int(bool(error)), error)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    if error:
        return
    assert all("advantages" in row for row in read(tmp_path / "out"))
    assert (tmp_path / "out").is_symlink() == ("-s" in make)
    if "target out" in make and "-s" not in make:
        assert (tmp_path / "target").read_text() == "old\n"
    if "in.jsonl" not in make or "-s" not in make:
        assert (tmp_path / "in.jsonl").read_text() == before


def test_a_pipe_with_a_name_is_written_and_its_reader_may_go(
    shell: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = shell("mkfifo pipe; wc -l < pipe & $CLI shape in.jsonl -o pipe; wait")
    assert (ended.code, ended.out.strip(), ended.err) == (0, "4", "")
    write(tmp_path / "long.jsonl", ROWS * 5000)
    gone = shell("head -c 1 < pipe > first & $CLI shape long.jsonl -o pipe; echo $?; wait")
    assert (gone.out, gone.err) == ("141\n", "")


@pytest.mark.parametrize("command", ["shape", "score --signal equations", "reward --reward format"])
@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_a_name_of_any_length_is_written_or_refused_first(
    command: str, letter: str, run_process: Run, tmp_path: Path
) -> None:
    text = "<think>a</think>\\boxed{1}"
    rows = [{"group": 1, "tokens": [text], "length": 1, "outcome": 1, "text": text}] * 2
    write(tmp_path / "in.jsonl", rows)
    fits = letter * (249 // len(letter.encode())) + ".jsonl"
    words = (*command.split(), "in.jsonl", "-o")
    assert run_process(*words, fits) == Ended(0, "", "")
    assert len(read(tmp_path / fits)) == 2
    (tmp_path / fits).unlink()
    ended = run_process(*words, fits * 2)
    assert (ended.code, ended.err) == (1, f"{fits * 2}: file name too long\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


NAMES = ["a\nb.jsonl", "a\x1b[31mb.jsonl", "a\u202eb.jsonl", "[red]a.jsonl", "a\udcffb.jsonl"]


@pytest.mark.parametrize("name", [*NAMES, *(n.replace("jsonl", "parquet") for n in NAMES)])
def test_a_name_of_any_characters_is_written_and_shown(
    name: str, run_process: Run, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    ended = run_process("shape", "in.jsonl", "-o", name)
    assert (ended.code, ended.err) == (0, "")
    assert run_process("validate", name).out.startswith("rollouts    4 in 1 group\n")
    missing = run_process("validate", f"no {name}")
    assert missing.err == printable(f"no {name}: no such file or directory") + "\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write every file")
def test_a_file_that_may_not_be_written_stays(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "out.jsonl").write_text("kept")
    (tmp_path / "out.jsonl").chmod(stat.S_IRUSR)
    assert run("shape", "in.jsonl", "-o", "out.jsonl").err == "out.jsonl: permission denied\n"
    assert (tmp_path / "out.jsonl").read_text() == "kept"


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where it has just gone: the one that tries the output is deleted."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that take a while to shape."""
    draw = random.Random(0)
    scores = [[draw.random() for _ in range(200)] for _ in range(100)]
    rows = [{"group": i, "token_scores": scores[i % 100], "outcome": 1.0} for i in range(1_500)]
    path = tmp_path_factory.mktemp("long") / "in.jsonl"
    write(path, rows)
    return path


SHAPE = ("shape", "in.jsonl", "-o", "out.jsonl.gz")


def wait_until_writing(folder: Path, is_alive: Callable[[], bool]) -> None:
    """Wait until a command is at work on `.out.jsonl.gz.*.part`."""
    deadline = time.monotonic() + 120
    while not any(map(size_of, folder.glob(".*.part"))):
        assert is_alive()
        assert time.monotonic() < deadline


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGQUIT", "SIGINT"])
def test_a_stop_signal_while_the_output_is_written_leaves_nothing(
    name: str, long_file: Path, fork_process: Callable[..., Forked], tmp_path: Path
) -> None:
    os.link(long_file, tmp_path / "in.jsonl")
    running = fork_process(*SHAPE)
    wait_until_writing(tmp_path, running.is_alive)
    number = getattr(signal, name)
    os.kill(running.process, number)
    if number == signal.SIGHUP:  # a terminal that is closed sends it twice
        os.kill(running.process, number)
    assert running.end() == Ended(128 + number, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_nohup_keeps_a_command_running(long_file: Path, tmp_path: Path) -> None:
    os.link(long_file, tmp_path / "in.jsonl")
    words = ["nohup", *COMMAND.split(), *SHAPE]
    running = subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE)
    wait_until_writing(tmp_path, lambda: running.poll() is None)
    running.send_signal(signal.SIGHUP)
    running.communicate()
    assert running.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl.gz"]


def test_a_second_stop_signal_counts_anew_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    now = [100.0]
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stepcredit.cli.standard_streams.stop_on_signals()
    with pytest.raises(stepcredit.cli.standard_streams.Stopped):
        handlers[signal.SIGTERM](signal.SIGTERM, None)
    now[0] += 1
    handlers[signal.SIGHUP](signal.SIGHUP, None)
    now[0] += 3
    with pytest.raises(stepcredit.cli.standard_streams.Stopped) as stopped:
        handlers[signal.SIGHUP](signal.SIGHUP, None)
    assert stopped.value.code == 129


OWN = """
import sys
from dataclasses import dataclass
import torch
import stepcredit as sc
from stepcredit.rewards.base import Reward
from stepcredit.rewards.reward_registry import register_reward
from stepcredit.settings.fields import text
from stepcredit.signals.signal_registry import register_signal
from stepcredit.signals.signal import Signal

def act(how):
    if how == "raises": raise KeyError("no\\n  such")
    if how == "exits": sys.exit(0)
    if how == "refused": raise ConnectionRefusedError(111, "Connection refused")
    if how == "pipe": raise BrokenPipeError(32, "Broken pipe")
    if how == "prints": print("said by the module")

@sc.register("own")
@dataclass(frozen=True)
class OwnMethod(sc.Estimator):
    how: str = text("", "what happens")

    def credit(self, rollouts):
        act(self.how)
        flat = {"shape": torch.zeros(7, 3), "nan": rollouts.outcome[:, None] * float("nan")}
        if self.how == "none": return None
        return sc.Credit.flat(rollouts, flat.get(self.how, rollouts.outcome[:, None]))

@register_reward("own")
@dataclass(frozen=True)
class OwnReward(Reward):
    how: str = text("", "what happens")

    def rewards(self, texts, facts):
        act(self.how)
        given = {"shape": [1.0], "nan": [float("nan")] * len(texts), "none": None}
        given["words"] = ["x"] * len(texts)
        return given.get(self.how, [1.0] * len(texts))

@register_signal("own")
@dataclass(frozen=True)
class OwnSignal(Signal):
    how: str = text("", "what happens")
    grain = "steps"
    identity = {"signal": "own"}

    def stream(self, responses):
        for index, response in enumerate(responses):
            act(self.how)
            steps = len(response.step_texts)
            given = {"shape": [1.0] * (steps + 1), "nan": [float("nan")] * steps, "none": None}
            given["words"] = ["x"] * steps
            yield index, given.get(self.how, [1.0] * steps)
"""
LINES = {number: line.split('"')[1] for number, line in enumerate(OWN.splitlines(), 1)
         if line.startswith("    if how ==")}  # fmt: skip
PLACES = {how: number for number, how in LINES.items()}
SHOWS = "STEPCREDIT_TRACEBACK=1 shows how it was reached"
RAISED = {
    "raises": f"KeyError: 'no\\n such'; {SHOWS}",
    "exits": "called sys.exit(0) before the command was done",
    "refused": f"ConnectionRefusedError: [Errno 111] Connection refused; {SHOWS}",
    "pipe": f"BrokenPipeError: [Errno 32] Broken pipe; {SHOWS}",
}
COMMANDS = {
    "shape": ("shape", "own.jsonl", "-o", "-", "--method", "own"),
    "reward": ("reward", "own.jsonl", "-o", "-", "--reward", "own"),
    "score": ("score", "own.jsonl", "-o", "-", "--signal", "own"),
}
GIVES_WRONG = {
    (
        "shape",
        "shape",
    ): "--method own: credit() returns advantages of shape (7, 3), expected (2, 1)",
    ("shape", "nan"): "advantages: the method gives nan, which is not a finite number",
    ("shape", "none"): "--method own: credit() returns NoneType, expected a Credit",
    ("reward", "shape"): "the reward own gives 1 values for 2 texts",
    ("reward", "nan"): "the reward own gives nan, expected a finite number",
    ("reward", "none"): "the reward own gives None, expected a list",
    ("reward", "words"): "the reward own gives 'x', expected a finite number",
    ("score", "shape"): "2 scores for 1 steps",
    ("score", "nan"): "the score of step 0 is nan",
    ("score", "none"): "the scores are None, expected a list of numbers",
    ("score", "words"): "the score of step 0 is x",
}


@pytest.fixture
def own(run_process: Run, tmp_path: Path) -> Callable[[str, str], Ended]:
    """Runs a command with a method, reward or signal of one's own that does something wrong."""
    (tmp_path / "own.py").write_text(OWN)
    row = {"group": 1, "length": 2, "text": "a b"}
    write(tmp_path / "own.jsonl", [row | {"outcome": 1.0}, row | {"outcome": 0.0}])

    def run(command: str, how: str) -> Ended:
        return run_process(*COMMANDS[command], "--import", "own", "--set", f"how={how}")

    return run


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("how", RAISED)
def test_what_ones_own_code_raises_names_its_line(
    command: str, how: str, own: Callable[[str, str], Ended], tmp_path: Path
) -> None:
    place = f"{tmp_path / 'own.py'}:{PLACES[how]}"
    assert own(command, how) == Ended(1, "", f"{place}: {RAISED[how]}\n")


@pytest.mark.parametrize(("command", "how"), GIVES_WRONG, ids=" ".join)
def test_what_ones_own_code_gives_is_checked(
    command: str, how: str, own: Callable[[str, str], Ended]
) -> None:
    ended = own(command, how)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"own.jsonl:1: {GIVES_WRONG[command, how]}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_what_ones_own_code_prints_stays_out_of_the_rows(
    command: str, own: Callable[[str, str], Ended]
) -> None:
    ended = own(command, "prints")
    assert ended.code == 0
    assert all(line.startswith('{"group"') for line in ended.out.splitlines())
    assert set(ended.err.splitlines()) == {"said by the module"}


def test_a_fault_of_stepcredit_itself_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.jsonl", ROWS)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by\n  nothing")

    broken.__code__ = broken.__code__.replace(co_filename=stepcredit.cli.standard_streams.__file__)
    monkeypatch.setattr("stepcredit.data.files.rollout_file.RolloutFile.fold", broken)
    where = "run with STEPCREDIT_TRACEBACK=1 to see where, and please report it"
    expected = f"internal error: ZeroDivisionError: by nothing; {where}\n"
    assert run("validate", "in.jsonl") == Ended(70, "", expected)
    monkeypatch.setenv("STEPCREDIT_TRACEBACK", "1")
    ended = run("validate", "in.jsonl")
    assert ended.code == 70
    assert ended.err.startswith("Traceback (most recent call last):\n")
    assert ended.err.endswith(expected)
