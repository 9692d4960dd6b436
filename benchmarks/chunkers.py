"""What each chunker costs on a token signal: 64 responses of 4,096 tokens, PASS, one thread.

    python benchmarks/chunkers.py           a table
    python benchmarks/chunkers.py --json    one JSON object

Two signals: white noise (no change anywhere: the worst case of `change_points` by
squares), and noise around a
mean that moves every 32 tokens. Seconds of processor time, the least of three runs.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

import stepcredit as sc

ROWS, TOKENS, GROUP = 64, 4096, 8
SQUARED = {"min_tokens": 1, "cost": "squared"}
RULES: dict[str, object] = {
    "tokens": "tokens",
    "group_runs": "group_runs",
    "runs": "runs",
    "sign_runs": "sign_runs",
    "windows of 32": {"windows": {"size": 32}},
    "cut_points": "cut_points",
    "change_points": "change_points",
    "change_points, squared, penalty 3": {"change_points": {"penalty": 3.0, **SQUARED}},
    "change_points, squared, penalty 2 ln L": {"change_points": {"penalty": 16.6, **SQUARED}},
}


def signals() -> dict[str, torch.Tensor]:
    """The two signals, (response, token)."""
    torch.manual_seed(0)
    noise = torch.randn(ROWS, TOKENS)
    levels = 2 * torch.randn(ROWS, TOKENS // 32).repeat_interleave(32, 1)
    return {"noise": noise, "levels": torch.randn(ROWS, TOKENS) + levels}


def measure(rule: object, signal: torch.Tensor) -> dict[str, float]:
    """Seconds, and chunks per response."""
    rollouts = sc.Rollouts(
        group=torch.arange(ROWS) // GROUP,
        process=sc.Tokens(signal),
        logprobs={"student": sc.Tokens(-signal.abs())},
    )
    estimator = sc.PASS(chunks=rule)  # type: ignore[arg-type]
    seconds = []
    for _ in range(3):
        began = time.process_time()
        estimator(rollouts)
        seconds.append(time.process_time() - began)
    chunks = int(estimator.credit(rollouts).last_slots.sum()) / ROWS
    return {"seconds": round(min(seconds), 4), "chunks per response": round(chunks, 1)}


def main() -> None:
    """Measure every rule on both signals."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    torch.set_num_threads(1)
    found = {
        kind: {name: measure(rule, signal) for name, rule in RULES.items()}
        for kind, signal in signals().items()
    }
    if as_json:
        print(json.dumps(found))
        return
    for kind, rows in found.items():
        print(f"\n{kind:40s} seconds  chunks per response")
        for name, row in rows.items():
            print(f"  {name:38s} {row['seconds']:7.3f}  {row['chunks per response']:10.1f}")


if __name__ == "__main__":
    main()
