"""What commands say at their end about the requests to servers, and several servers by options."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.cli.conftest import Run
from tests.signals.served.conftest import Misbehaving, process, second, second_process, server

__all__ = ["process", "second", "second_process", "server"]


def rows(path: Path, count: int) -> Path:
    """Rollouts of one step each, all different."""
    lines = [
        json.dumps({"group": "g", "outcome": 1.0, "prompt": f"{i}?", "text": f"It is {i}."})
        for i in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_score_with_two_servers_prints_the_requests_of_each(
    run: Run, tmp_path: Path, server: Misbehaving, second: Misbehaving
) -> None:
    second.plan(share=1.0, kinds=["error"])
    source = rows(tmp_path / "in.jsonl", 20)
    urls = json.dumps([server.url, second.url])
    options = ["--signal", "judge", "--set", f"url={urls}", "--set", "model=m"]
    options += ["--set", "backoff=0.01", "--set", "concurrency=4"]
    ended = run("score", str(source), "-o", str(tmp_path / "out.jsonl"), *options)
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    whole, one, two = lines[-3:]
    sent, _, failed = map(int, re.findall(r"(\d+) (?:requests|sent again|failed)", whole))
    assert whole.startswith("judge: ")
    assert failed > 0
    assert sent - failed in (21, 22)  # 20 responses, and the first request to each good server
    assert re.fullmatch(rf"judge: {server.url}: \d+ sent, 0 failed, [\d.e-]+ s each", one)
    pattern = rf"judge: {second.url}: \d+ sent, \d+ failed \(the last: HTTP 503: error on purpose\)"
    assert re.match(pattern, two)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20


def test_a_signal_without_a_server_prints_nothing(run: Run, tmp_path: Path) -> None:
    source = rows(tmp_path / "in.jsonl", 2)
    ended = run("score", str(source), "-o", str(tmp_path / "out.jsonl"), "--signal", "arithmetic")
    assert (ended.code, ended.err) == (0, "")
