"""Peak memory of the command on a long file, in a process limited to what it may take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCATTERED = int(os.environ.get("STEPCREDIT_SCATTERED_ROLLOUTS", "100000"))
LIMIT_MB = 600
CHILD = """
import resource, sys
data = int(sys.argv[1]) << 20
resource.setrlimit(resource.RLIMIT_DATA, (data, data))
from stepcredit.cli import app
code = app(sys.argv[2:], standalone_mode=False)
told = open("/proc/self/status").read()
print(int(told.split("VmHWM:")[1].split()[0]) // 1024)
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("order", "rollouts"), [("contiguous", 1_000_000), ("interleaved", SCATTERED)]
)
def test_a_long_file_needs_little_memory(order: str, rollouts: int, tmp_path: Path) -> None:
    """RLIMIT_DATA counts the heap and private maps, not torch's libraries; VmHWM counts all.

    (ru_maxrss starts at what the process that started this one holds.)

    STEPCREDIT_SCATTERED_ROLLOUTS=1000000 runs a million in the slower order too.
    """
    with (tmp_path / "in.jsonl").open("w") as out:
        for i in range(rollouts):
            group = i // 8 if order == "contiguous" else i % (rollouts // 8)
            steps = f'"step_ends": [5, 11], "step_scores": [{i % 4 / 4}, 0.5]'
            out.write(f'{{"group": "p{group}", {steps}, "outcome": {i % 3 // 2}}}\n')
    arguments = ["shape", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(LIMIT_MB), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert int(done.stdout) < LIMIT_MB
    with (tmp_path / "out.jsonl").open() as lines:
        assert sum(1 for _ in lines) == rollouts
