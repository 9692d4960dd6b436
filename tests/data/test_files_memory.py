"""Peak memory of the command on a long file, in a process limited to what it may take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROLLOUTS = int(os.environ.get("STEPCREDIT_ROLLOUTS", "100000"))
LIMIT_MB = 600
CHILD = """
import resource, sys
data = int(sys.argv[1]) << 20
resource.setrlimit(resource.RLIMIT_DATA, (data, data))
from stepcredit.cli import app
code = app(sys.argv[2:], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
sys.exit(code)
"""


@pytest.mark.parametrize("order", ["contiguous", "interleaved"])
def test_a_long_file_needs_little_memory(order: str, tmp_path: Path) -> None:
    """RLIMIT_DATA counts the heap and private maps, not torch's libraries; ru_maxrss counts all.

    STEPCREDIT_ROLLOUTS=1000000 runs the file of a million.
    """
    ends, scores = [5, 11, 17, 23, 29], [0.5, 0.25, 0.75, 0.125, 1.0]
    with (tmp_path / "in.jsonl").open("w") as out:
        for i in range(ROLLOUTS):
            group = i // 8 if order == "contiguous" else i % (ROLLOUTS // 8)
            row = {"group": f"p{group}", "step_ends": ends, "outcome": float(i % 3 == 0)}
            out.write(json.dumps({**row, "step_scores": scores[i % 4 :] + scores[: i % 4]}) + "\n")
    arguments = ["shape", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(LIMIT_MB), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert int(done.stdout) < LIMIT_MB
    with (tmp_path / "out.jsonl").open() as lines:
        assert sum(1 for _ in lines) == ROLLOUTS
