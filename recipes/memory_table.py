"""The table of GPU memory of all recipes: `python recipes/memory_table.py --write`.

Nothing in it is measured: `stepcredit.engines.preflight.memory_estimate` has the formulas.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stepcredit.engines.preflight.memory_estimate import (
    GIB,
    PUBLISHED_SHAPES,
    ModelShape,
    TrainingPlan,
    checkpoint_bytes,
    estimate_memory,
)
from stepcredit.engines.preflight.memory_plans import published_shape, trl_plan, verl_plan

FOLDER = Path(__file__).resolve().parent
MARKS = "<!-- memory: begin -->", "<!-- memory: end -->"
OF_OURS = {"runs/smollm2-sft": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Models that a recipe trains first."""


@dataclass(frozen=True)
class Machine:
    """The GPUs that train: how many, and the GiB of each."""

    gpus: int = 8
    size: int = 80


MACHINES = {
    "pass-maths/trl-1.5b": Machine(1),
    "pass-qa/gopd": Machine(4),
    "pass-qa/opd": Machine(4),
    "smollm2/trl": Machine(1, 24),
    "without-a-prm/answer-progress": Machine(1),
    "without-a-prm/arithmetic": Machine(1, 24),
    "without-a-prm/teacher": Machine(1),
}
"""Recipes for TRL that are not for 8 GPUs of 80 GB; verl's say it themselves."""


def recipe_paths() -> list[Path]:
    """All recipes but the SFT before one of them."""
    return sorted(path for path in FOLDER.glob("*/*.yaml") if path.name != "sft.yaml")


def name_of(path: Path) -> str:
    """A recipe's folder and name."""
    return f"{path.parent.name}/{path.stem}"


def verl_config(path: Path) -> dict[str, Any]:
    """A recipe for verl, merged with those that it is built on; without verl's own defaults."""
    own = yaml.safe_load(path.read_text())
    merged: dict[str, Any] = {}
    for name in own.pop("defaults"):
        if name not in ("ppo_trainer", "_self_"):
            _merge(merged, verl_config(path.parent / f"{name}.yaml"))
    _merge(merged, own)
    return merged


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def shape_of(name: str) -> ModelShape:
    """The shape of a recipe's model."""
    return published_shape(OF_OURS.get(name, name))


def plan_of(path: Path) -> TrainingPlan:
    """What a recipe says about memory."""
    if path.name.startswith("verl"):
        return verl_plan(verl_config(path), shape_of=shape_of)
    machine = MACHINES.get(name_of(path), Machine())
    values = yaml.safe_load(path.read_text())
    return trl_plan(values, gpus=machine.gpus, shape_of=shape_of, gpu_bytes=machine.size * GIB)


def row_of(path: Path) -> list[str]:
    """A recipe's cells: GiB of one GPU by part, of both phases, and GB of a checkpoint."""
    plan = plan_of(path)
    found = estimate_memory(plan)
    where = f"{plan.gpus} x {plan.gpu_bytes // GIB}"
    parts = [f"{size / GIB:.1f}" if size else "" for size in found.parts.values()]
    phases = [f"{size / GIB:.0f}" for size in (found.sampling, found.updating)]
    return [f"`{name_of(path)}`", where, *parts, *phases, f"{checkpoint_bytes(plan) / 1e9:.3g}"]


def table() -> str:
    """The table in Markdown."""
    names = estimate_memory(TrainingPlan(next(iter(PUBLISHED_SHAPES.values())), tokens=1)).parts
    head = ["recipe", "GPUs x GiB", *names, "sampling", "updating", "checkpoint, GB"]
    rows = [head, ["---"] * len(head), *map(row_of, recipe_paths())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_table(text: str) -> str:
    """A document with the table between its marks."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{after}"


def main() -> None:
    """Print the table, or write it into README.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="rewrite recipes/README.md")
    if not parser.parse_args().write:
        print(table())
        return
    readme = FOLDER / "README.md"
    readme.write_text(with_table(readme.read_text()))


if __name__ == "__main__":
    main()
