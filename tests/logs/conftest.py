"""Commands in this process, and their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from stepcredit.cli import app


class Converted(NamedTuple):
    """How a conversion ended: its exit code, what it said, and the rows."""

    code: int
    said: list[str]
    rows: list[dict[str, Any]]


Convert = Callable[..., Converted]


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """A command: its exit code, standard output and standard error."""
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.stdout, ended.stderr


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Converts a file, or rows that are written into one."""

    def converted(source: Path | list[dict[str, Any]], *options: str | Path) -> Converted:
        if isinstance(source, list):
            rows, source = source, tmp_path / "log.jsonl"
            source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        out = tmp_path / "rollouts.jsonl"
        out.unlink(missing_ok=True)
        code, _, err = run("convert", source, "-o", out, *options)
        rows = read_lines(out) if out.exists() else []
        return Converted(code, err.splitlines(), rows)

    return converted


def advantages(rows: list[dict[str, Any]], tmp_path: Path, method: str = "grpo") -> list[float]:
    """The first advantage of each row, through the command line."""
    path, out = tmp_path / "to_shape.jsonl", tmp_path / "shaped.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run("shape", path, "-o", out, "--method", method)
    assert code == 0, err
    return [row["advantages"][0] for row in read_lines(out)]
