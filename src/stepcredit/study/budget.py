"""What the presets cost: runs, and hours from the measured seconds per run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.table import Table
from rich.text import Text

from stepcredit.credit.rich_table import literal
from stepcredit.errors import StepCreditError
from stepcredit.lab.devices import is_gpu
from stepcredit.study.study_cells import Cell, Preset
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_presets import find_preset, preset_names
from stepcredit.study.study_runner import cores
from stepcredit.study.study_store import StudyStore
from stepcredit.study.tuning import TUNING, both_rounds

ASSUMED_SECONDS = {"arithmetic": 0.3, "multihop": 0.5, "agent": 0.45}
"""CPU seconds per update of a run, where the store has no run of the task yet."""
SLICED = (
    *("answers", "base", "chunkers", "clip", "group", "horizon", "no-prm", "noise", "operators"),
    *("scope", "temperature"),
)
"""Presets of which the budget holds the slice only."""


NUMBERS = ("runs", "done", "hours left")
"""Columns of the table that hold numbers."""


@dataclass(frozen=True)
class PresetCost:
    """What a preset costs.

    Args:
        name, about: its name, and what it asks.
        runs: its runs, those shared with presets before it left out.
        done: runs that the store has.
        hours: hours of one core that the other runs take.
        notes: what is left out, or why it can't run.
    """

    name: str
    about: str
    runs: int
    done: int
    hours: float
    notes: tuple[str, ...] = ()


def seconds_per_update(data: StudyData | None, cost: str = "cpu_seconds") -> dict[str, float]:
    """Seconds per update of each task: measured in the store, else assumed.

    Args:
        data: the runs; None: there are none.
        cost: "cpu_seconds" or "wall_seconds".
    """
    found = dict(ASSUMED_SECONDS)
    runs = [] if data is None else data.finished
    for task in {run.task for run in runs}:
        own = [run for run in runs if run.task == task and run.curve]
        rates = [run.costs[cost] / (run.curve[-1]["update"] or 1) for run in own]
        found[task] = fmean(rates) if rates else found.get(task, 0.3)
    return found


def preset_costs(store: Path, tuned: Path, device: str | None = None) -> list[PresetCost]:
    """The cost of each preset, in the order in which they should run.

    Args:
        store: the file of results; it may be missing.
        tuned: the chosen settings.
        device: where the runs are done; None: as the presets say.
    """
    data, done = _data(store)
    cost = "wall_seconds" if is_gpu(device) else "cpu_seconds"
    rates, counted = seconds_per_update(data, cost), set[str]()
    costs = []
    for name in study_order():
        try:
            preset = find_preset(name, tuned if tuned.is_file() else None).on_device(device)
            fresh = [c for c in _once(_cells(preset, data)) if c.key not in counted]
        except StepCreditError as error:
            costs.append(PresetCost(name, "", 0, 0, 0.0, (str(error),)))
            continue
        counted |= {cell.key for cell in fresh}
        costs.append(_cost(preset, fresh, done, rates))
    return costs


def _cells(preset: Preset, data: StudyData | None) -> list[Cell]:
    """What of a preset is to run: the slice of some; of tuning what its first round keeps."""
    if preset.name == TUNING and data is not None:
        with suppress(StepCreditError):  # the first round is not finished
            return both_rounds(preset, data)
    return (preset.slice() if preset.name in SLICED else preset).cells()


def study_order() -> list[str]:
    """Names of the presets: tuning, those that are run in full, then the slices."""
    first = [TUNING, "main", "own", "k", "ablation", "optimizer", "hacking", "matched"]
    return first + [name for name in preset_names() if name not in first]


def _cost(
    preset: Preset, fresh: Sequence[Cell], done: set[str], rates: dict[str, float]
) -> PresetCost:
    left = [cell for cell in fresh if cell.key not in done]
    seconds = sum(cell.settings.updates * rates.get(cell.task, 0.3) for cell in left)
    found = len(fresh) - len(left)
    return PresetCost(preset.name, preset.about, len(fresh), found, seconds / 3600, preset.left_out)


def _once(cells: Sequence[Cell]) -> list[Cell]:
    return list({cell.key: cell for cell in cells}.values())


def _data(store: Path) -> tuple[StudyData | None, set[str]]:
    if not store.is_file():
        return None, set()
    with StudyStore(store) as opened:
        done = {key for key, status in opened.statuses().items() if status == "done"}
        return StudyData(opened), done


def study_table(store: Path, tuned: Path, device: str | None = None) -> Table:
    """The presets with their costs, and the sum, as `stepcredit study list` prints them."""
    costs, workers = preset_costs(store, tuned, device), 1 if is_gpu(device) else cores()
    where = "one GPU, one run at a time" if is_gpu(device) else f"{workers} cores"
    missing = f"{tuned} is not here: runs are counted at the defaults, not at the chosen settings"
    table = Table(
        title=f"presets; hours on {where}",
        title_justify="left",
        caption=None if tuned.is_file() else missing,
        caption_justify="left",
    )
    for name in ("preset", "runs", "done", "hours left", "what it asks"):
        table.add_column(
            name, justify="right" if name in ("runs", "done", "hours left") else "left"
        )
    for cost in costs:
        lines = [cost.about, *(f"left out: {note}" for note in cost.notes)]
        if cost.name in SLICED and cost.runs:
            lines[0] += " (slice)"
        text = Text("\n").join(map(literal, filter(None, lines)))
        hours = f"{cost.hours / workers:.2f}"
        table.add_row(cost.name, str(cost.runs), str(cost.done), hours, text)
    table.add_section()
    total = sum(cost.hours for cost in costs) / workers
    runs, done = sum(cost.runs for cost in costs), sum(cost.done for cost in costs)
    table.add_row("all", str(runs), str(done), f"{total:.2f}", "")
    return table
