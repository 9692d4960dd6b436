"""The command line in this process, and in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepcredit.cli import app


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: str, stdin: bytes = b"") -> Ended:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run_here


@pytest.fixture
def run_process(tmp_path: Path) -> Run:
    """Runs a command in a process of its own, in an empty folder."""

    def run_there(*arguments: str, prefix: tuple[str, ...] = ()) -> Ended:
        command = [*prefix, sys.executable, "-m", "stepcredit", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True)
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run_there


def environment() -> dict[str, str]:
    """This process's environment, where the package is importable, with one thread."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Rows as JSON lines; the file's name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
