"""A chunker and a splitter of one's own, named on the command line like built-in ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Run, read, write

CHUNKER = """
import torch
from stepcredit.credit.stages import Chunks, is_whole, register_chunker

@register_chunker("every-n", n=is_whole(at_least=1))
def every_n(lead, n=2):
    place = torch.arange(1, lead.slots.width + 1)
    return Chunks(lead.slots, (place % n == 0) & lead.slots.mask | lead.slots.end_slots())
"""
SPLITTER = """
from dataclasses import dataclass
from stepcredit.settings.fields import text
from stepcredit.signals import Splitter, register_splitter

@register_splitter("after-mark")
@dataclass(frozen=True)
class AfterMark(Splitter):
    mark: str = text(";", "what a step ends with")

    def ends(self, response):
        return [i + 1 for i, c in enumerate(response.text) if c == self.mark]
"""
ROWS = [
    {"group": 0, "length": 4, "token_scores": [3.0, 1.0, 0.0, 2.0], "outcome": 1.0},
    {"group": 0, "length": 2, "token_scores": [0.5, 1.5], "outcome": 0.0},
]


def shaped(run: Run, chunks: str, *more: str) -> list[list[float]]:
    """The advantages of `ROWS` under PASS with these chunks."""
    words = ("shape", "in.jsonl", "-o", "-", "--method", "pass", "--set", f"chunks={chunks}")
    ended = run(*words, *more)
    assert (ended.code, ended.err) == (0, "")
    return [json.loads(line)["advantages"] for line in ended.out.splitlines()]


def test_a_chunker_of_ones_own_is_named_with_its_options(run_process: Run, tmp_path: Path) -> None:
    (tmp_path / "my_chunkers.py").write_text(CHUNKER)
    write(tmp_path / "in.jsonl", ROWS)
    own = ("--import", "my_chunkers")
    assert shaped(run_process, "every-n", *own) == shaped(run_process, '{"windows": {"size": 2}}')
    threes = shaped(run_process, '{"every-n": {"n": 3}}', *own)
    assert threes == shaped(run_process, '{"windows": {"size": 3}}')
    assert threes[0][0] == threes[0][2] != threes[0][3]


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        (
            '{"every-n": {"n": 0}}',
            "n of 'every-n': expected a whole number of at least 1, got 0",
        ),
        ('{"every-n": {"m": 1}}', "'every-n' has no option 'm'"),
    ],
)
def test_its_options_are_checked(
    run_process: Run, tmp_path: Path, chunks: str, reason: str
) -> None:
    (tmp_path / "my_chunkers.py").write_text(CHUNKER)
    name = write(tmp_path / "in.jsonl", ROWS)
    words = ("shape", name, "-o", "-", "--set", f"chunks={chunks}", "--import", "my_chunkers")
    assert run_process(*words).err == f"--set chunks: {reason}\n"


def test_an_unknown_chunker_is_refused_with_the_names_there_are(run: Run, tmp_path: Path) -> None:
    name = write(tmp_path / "in.jsonl", ROWS)
    ended = run("shape", name, "-o", "-", "--set", "chunks=every-m")
    names = "auto, steps, runs, group_runs, tokens, sign_runs, change_points, windows, sentences"
    assert ended.err.startswith(f"--set chunks: unknown chunker 'every-m': expected {names}")


def test_a_package_adds_a_chunker_by_its_entry_point(tmp_path: Path) -> None:
    """The module's own decorator registers it, or the function is registered as it is."""
    (tmp_path / "chunk_plugin.py").write_text(
        CHUNKER + "\ndef whole(lead):\n    return Chunks(lead.slots, lead.slots.end_slots())\n"
    )
    info = tmp_path / "chunk_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chunk-plugin\nVersion: 1.0\n")
    points = "every-n = chunk_plugin:every_n\nwhole-response = chunk_plugin:whole\n"
    (info / "entry_points.txt").write_text(f"[stepcredit.chunkers]\n{points}")
    code = (
        "import stepcredit as sc\n"
        "r = sc.Rollouts([0, 0], process=sc.Tokens([[3.0, 1.0, 0.0, 2.0], [0.5, 1.5]]))\n"
        "for rule in ('every-n', {'every-n': {'n': 9}}, 'whole-response'):\n"
        "    print(len(sc.PASS(chunks=rule).explain(r).rows))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["3", "2", "2"], "")


def test_a_splitter_of_ones_own_is_named_with_its_fields(run_process: Run, tmp_path: Path) -> None:
    (tmp_path / "my_splitters.py").write_text(SPLITTER)
    name = write(tmp_path / "in.jsonl", [{"group": 0, "text": "1+1=2; 2+2=5| so 5"}])
    for split, scores in (("after-mark", [1.0, 0.0]), ("after-mark:mark=|", [0.0, 0.5])):
        words = ("score", name, "-o", "out.jsonl", "--signal", "arithmetic", "--split", split)
        ended = run_process(*words, "--import", "my_splitters")
        assert (ended.code, ended.err) == (0, "")
        assert read(tmp_path / "out.jsonl")[0]["step_scores"] == scores
