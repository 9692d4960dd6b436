"""An estimator of another installed package works in the command line by its entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
from dataclasses import dataclass
import stepcredit as sc

@dataclass(frozen=True)
class Twice(sc.Estimator):
    '''Twice the outcome.'''

    def credit(self, rollouts):
        return sc.Credit.flat(rollouts, 2 * rollouts.outcome[:, None])
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as an installer leaves it: two modules, one broken, and their entry points."""
    (tmp_path / "twice_plugin.py").write_text(PLUGIN)
    info = tmp_path / "twice_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: twice-plugin\nVersion: 1.0\n")
    points = "[stepcredit.estimators]\ntwice = twice_plugin:Twice\n"
    (info / "entry_points.txt").write_text(points)
    return tmp_path


def stepcredit(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that sees the folder."""
    env = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "stepcredit", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_installed_estimator_shapes_a_file(site: Path) -> None:
    rollouts = site / "rollouts.jsonl"
    rows = [{"group": 0, "length": 2, "outcome": outcome} for outcome in (0.5, 1.0)]
    rollouts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = stepcredit(site, "shape", str(rollouts), "-o", "-", "--method", "twice")
    assert (done.returncode, done.stderr) == (0, "")
    shaped = [json.loads(line)["advantages"] for line in done.stdout.splitlines()]
    assert shaped == [[1.0, 1.0], [2.0, 2.0]]
    assert "twice" in stepcredit(site, "methods").stdout


def test_broken_plugin_is_named_in_one_line(site: Path) -> None:
    (site / "twice_plugin.py").write_text("import nothing_of_that_name")
    rollouts = site / "rollouts.jsonl"
    rollouts.write_text(json.dumps({"group": 0, "length": 2, "outcome": 0.5}) + "\n")
    done = stepcredit(site, "shape", str(rollouts), "-o", "-", "--method", "twice")
    reason = "fails to load: No module named 'nothing_of_that_name'"
    assert done.stderr == f"--method twice: entry point 'twice' (twice_plugin:Twice) {reason}\n"
    assert (done.returncode, done.stdout) == (1, "")
    other = stepcredit(site, "shape", str(rollouts), "-o", "-", "--method", "grpo")
    assert other.returncode == 0


def test_a_plugin_that_is_no_dataclass_is_named_in_one_line(site: Path) -> None:
    (site / "twice_plugin.py").write_text("class Twice: pass")
    done = stepcredit(site, "methods")
    reason = "method 'twice' is no dataclass: <class 'twice_plugin.Twice'>"
    assert (done.returncode, done.stderr) == (1, f"{reason}\n")
