"""What a study runs: arms (methods with settings), signals and seeds, as settings of the lab."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from stepcredit.errors import StepCreditError
from stepcredit.lab.devices import check_device_name
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.study.run_key import lab_fields, run_key

TUNING_SEEDS = range(10)
"""Seeds on which settings may be chosen."""
FIRST_TEST_SEED = 100
"""Test seeds begin here; nothing is chosen by their results."""
ROLES = ("tuning", "test")


@dataclass(frozen=True)
class Arm:
    """One thing that is compared: a method with its settings.

    Args:
        label: its name in tables and claims.
        method: name of the method.
        fields: settings of the method, over the lab's.
        lab: settings of the lab that go with it, such as a learning rate.
        about: what it is, in one sentence.
    """

    label: str
    method: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    lab: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


@dataclass(frozen=True)
class Cell:
    """One run of a preset.

    Args:
        preset, label, task, signal: where it stands in tables.
        seed: seed of the warm start, the problems, the sampling and the signal's noise.
        settings: the settings of the run.
    """

    preset: str
    label: str
    task: str
    signal: str
    seed: int
    settings: LabSettings

    @cached_property
    def key(self) -> str:
        """The run's key; cells of several presets may share it."""
        return run_key(self.settings)


@dataclass(frozen=True)
class Block:
    """Every arm on every signal and seed.

    Args:
        task: the lab's task.
        signals: settings of the lab for each signal, by the signal's name in tables.
        arms: the arms.
        seeds: the seeds.
        lab: settings of the lab for all runs of the block.
    """

    task: str
    signals: Mapping[str, Mapping[str, Any]]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    lab: Mapping[str, Any] = field(default_factory=dict)

    def cells(self, preset: str) -> Iterator[Cell]:
        """Every run, seed by seed, so that an early end leaves every arm the same seeds.

        Raises:
            StepCreditError: the lab or the method has no such setting; names the arm.
        """
        for seed in self.seeds:
            for name, signal in self.signals.items():
                for arm in self.arms:
                    settings = cell_settings(self.task, {**self.lab, **signal}, arm, seed)
                    yield Cell(preset, arm.label, self.task, name, seed, settings)

    def on_device(self, device: str) -> Block:
        """The same block with all its runs on one device."""
        moved = [replace(arm, lab={**arm.lab, "device": device}) for arm in self.arms]
        return replace(self, arms=tuple(moved))


@dataclass(frozen=True)
class Preset:
    """A study by name.

    Args:
        name: its name.
        about: what it asks, in one sentence.
        role: "tuning" (seeds 0 to 9) or "test" (seeds from 100 on).
        blocks: what it runs.
        slice_seeds: seeds per block of its slice.
        left_out: what was asked for and is not in it, with the reason.
    """

    name: str
    about: str
    role: str
    blocks: tuple[Block, ...]
    slice_seeds: int = 3
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            reason = f"expected one of {', '.join(ROLES)}, got {self.role!r}"
            raise StepCreditError(reason, field="role")
        for block in self.blocks:
            check_seeds(block.seeds, self.role)

    def cells(self) -> list[Cell]:
        """Every run, seed by seed, and for each seed block by block.

        Raises:
            StepCreditError: the lab or a method has no such setting; names the preset and the arm.
        """
        try:
            cells = [cell for block in self.blocks for cell in block.cells(self.name)]
        except StepCreditError as error:
            raise error.at(place=f"preset {self.name}") from error.__cause__
        return sorted(cells, key=lambda cell: cell.seed)

    def on_device(self, device: str | None) -> Preset:
        """The same preset with all its runs on one device, `cpu` or `cuda`; None: unchanged.

        Raises:
            StepCreditError: there is no such device.
        """
        if device is None:
            return self
        check_device_name(device)
        return replace(self, blocks=tuple(block.on_device(device) for block in self.blocks))

    def slice(self) -> Preset:
        """The same preset with the first `slice_seeds` seeds of each block."""
        short = [replace(block, seeds=block.seeds[: self.slice_seeds]) for block in self.blocks]
        return replace(self, blocks=tuple(short))


def check_seeds(seeds: tuple[int, ...], role: str) -> None:
    """Refuse test seeds in a tuning preset, and tuning seeds in a test preset.

    Raises:
        StepCreditError: names the seed and the rule.

    Example:
        >>> check_seeds((100, 101), "test")
    """
    for seed in seeds:
        if role == "tuning" and seed not in TUNING_SEEDS:
            reason = f"{seed} is no tuning seed: those are 0 to {TUNING_SEEDS[-1]}"
            raise StepCreditError(reason, field="seeds")
        if role == "test" and seed < FIRST_TEST_SEED:
            reason = f"{seed} is no test seed: those are {FIRST_TEST_SEED} and above"
            raise StepCreditError(reason, field="seeds")


def cell_settings(task: str, given: Mapping[str, Any], arm: Arm, seed: int) -> LabSettings:
    """The settings of one run.

    A method that reads no process signal gets the lab's default signal, whatever is named: its runs
    on all signals are one run.

    Args:
        task: the lab's task.
        given: settings of the lab.
        arm: the arm; its settings of the lab come before those given.
        seed: the seed, which is that of the warm start too; the task gives its teacher's.

    Raises:
        StepCreditError: there is no such setting; names the arm.
    """
    chosen: dict[str, Any] = {**given, **arm.lab}
    if task != "arithmetic":
        chosen["task"] = task
    try:
        unknown = sorted(set(chosen) - set(lab_fields()))
        if unknown:
            raise StepCreditError("the lab has no such setting", field=unknown[0])
        plain = LabSettings(method=arm.method, fields=arm.fields, compare=None, **chosen)
        if not reads_signal(plain):
            chosen = {name: value for name, value in chosen.items() if name not in SIGNAL_SETTINGS}
            plain = LabSettings(method=arm.method, fields=arm.fields, compare=None, **chosen)
    except StepCreditError as error:
        raise error.at(place=f"arm {arm.label}") from error.__cause__
    return _for_study(plain, seed)


SIGNAL_SETTINGS = ("signal", "signal_fields")
"""Settings of the lab that only a method that reads the process signal depends on."""


def reads_signal(settings: LabSettings) -> bool:
    """Whether the method of a run reads the process signal.

    Example:
        >>> [reads_signal(LabSettings(method=name, compare=None)) for name in ("pass", "grpo")]
        [True, False]
    """
    return settings.estimator(settings.method, settings.fields).reads.process is not None


def _for_study(settings: LabSettings, seed: int) -> LabSettings:
    """The settings with the seed, one evaluation at the end, and no checkpoints before it."""
    warm = replace(settings.warm, seed=seed)
    teacher = replace(settings.teacher, seed=settings.built_task().teacher_seed(seed))
    last = settings.updates
    return replace(
        settings,
        seed=seed,
        warm=warm,
        teacher=teacher,
        evaluate_every=last,
        checkpoint_every=last,
        record_every=last,
    )
