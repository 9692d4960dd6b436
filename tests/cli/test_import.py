"""`--import MODULE`: methods that a module of one's own registers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Run, environment, write

MODULE = """
from dataclasses import dataclass
import stepcredit as sc

@sc.register("thrice")
@dataclass(frozen=True)
class Thrice(sc.Estimator):
    '''Three times the outcome.'''

    def credit(self, rollouts):
        return sc.Credit.flat(rollouts, 3 * rollouts.outcome[:, None])
"""
COMMANDS = {
    "shape": ("in.jsonl", "-o", "-", "--method", "thrice"),
    "explain": ("in.jsonl", "--group", "g", "--method", "thrice"),
    "compare": ("in.jsonl", "thrice", "grpo"),
    "methods": (),
    "train": ("--method", "thrice", "--updates", "0"),
}


def test_a_module_in_this_folder_gives_its_methods(run_process: Run, tmp_path: Path) -> None:
    """A process each: a method once registered stays."""
    (tmp_path / "my_methods.py").write_text(MODULE)
    write(tmp_path / "in.jsonl", [{"group": "g", "length": 2, "outcome": 0.5}])
    ended = {
        command: run_process(command, *words, "--import", "my_methods")
        for command, words in COMMANDS.items()
    }
    assert json.loads(ended["shape"].out)["advantages"] == [1.5, 1.5]
    assert ended["explain"].out.split()[-1] == "1.5000"
    assert ended["compare"].out.split()[-2:] == ["1.5000", "0.0000"]
    assert "thrice  Three times the outcome." in ended["methods"].out.splitlines()
    assert ended["train"].err == "updates: expected a positive number, got 0\n"
    codes = {command: end.code for command, end in ended.items()}
    assert codes == dict.fromkeys(COMMANDS, 0) | {"train": 1}
    without = run_process("shape", *COMMANDS["shape"])
    assert without.err.startswith("--method thrice: unknown method 'thrice'")


BROKEN = {
    "nothing_of_that_name": "No module named 'nothing_of_that_name'",
    "broken_methods": "line 1: ValueError: one line and another",
    "silent_methods": "line 1: AssertionError",
    "": "Empty module name",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("module", BROKEN)
def test_a_module_that_fails_is_told_in_one_line(
    module: str, command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_methods.py").write_text('raise ValueError("one line\\n  and another")')
    (tmp_path / "silent_methods.py").write_text("assert False")
    ended = run(command, *COMMANDS[command], "--import", module)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"{f'--import {module}'.strip()}: {BROKEN[module]}\n"


HOSTILE = """
from pathlib import Path
Path({canary!r}).write_text("ran")
class Evil: pass
"""
OPTIONAL = (
    *("bottleneck", "numexpr", "numba", "uvloop", "evil", "typing", "enum", "copyreg"),
    *("pkgutil", "weakref", "dataclasses", "logging", "json", "random", "struct", "numpy"),
)
"""Modules that libraries import where they are there, some of Python's own, and one that an entry
point names."""
ORDINARY = {
    "validate": ("in.jsonl",),
    "shape": ("in.jsonl", "-o", "out.jsonl"),
    "methods": (),
    "signals": (),
    "rewards": (),
    "score": ("in.jsonl", "-o", "out.jsonl", "--signal", "equations"),
}


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of data that holds modules of every name above: none of them may be imported."""
    canary = tmp_path / "canary"
    for name in OPTIONAL:
        (tmp_path / f"{name}.py").write_text(HOSTILE.format(canary=str(canary)))
    (tmp_path / "evil-1.dist-info").mkdir()
    (tmp_path / "evil-1.dist-info" / "METADATA").write_text("Name: evil\nVersion: 1\n")
    (tmp_path / "evil-1.dist-info" / "entry_points.txt").write_text(
        "".join(
            f"[stepcredit.{kind}]\nevil = evil:Evil\n"
            for kind in ("estimators", "signals", "rewards", "splitters")
        )
    )
    row = {"group": "g", "tokens": ["1+1=2", "."], "text": "1+1=2.", "outcome": 0.5}
    write(tmp_path / "in.jsonl", [row])
    yield tmp_path
    assert not canary.exists()


@pytest.mark.parametrize("command", ORDINARY)
def test_nothing_is_imported_from_the_working_folder(
    command: str, hostile_folder: Path, start_process: Run
) -> None:
    ended = start_process(command, *ORDINARY[command])
    assert ended.code == 0, ended.err


def test_nothing_is_imported_from_the_working_folder_in_pythons_safe_mode(
    hostile_folder: Path,
) -> None:
    """Python leaves the folder out, for all commands alike: one process runs them all."""
    code = "from stepcredit.cli import app\n"
    code += "".join(
        f"app({[command, *words]}, standalone_mode=False)\n" for command, words in ORDINARY.items()
    )
    env = environment() | {"PYTHONSAFEPATH": "1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=hostile_folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("safe", [False, True])
def test_a_function_in_this_folder_is_a_signal(
    safe: bool, start_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if safe:
        monkeypatch.setenv("PYTHONSAFEPATH", "1")
    program = "def score(response): return [0.5] * len(response.step_texts)\n"
    (tmp_path / "mine.py").write_text(program)
    write(tmp_path / "in.jsonl", [{"group": "g", "text": "1+1=2", "prompt": "?"}])
    ended = start_process(
        "score", "in.jsonl", "-o", "-", "--signal", "callable", "--set", "function=mine:score"
    )
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["step_scores"] == [0.5]
