"""Reads presets: the package's own by name, or a YAML file of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from stepcredit.errors import FileError, StepCreditError
from stepcredit.settings.registry import hint
from stepcredit.settings.yaml_files import yaml_mapping
from stepcredit.study.run_key import lab_fields, plain_value
from stepcredit.study.study_cells import Arm, Block, Preset

FOLDER = Path(__file__).with_name("presets")
ARMS = "arms"
"""Name of the file that holds the arms of all presets."""
TUNED = Path("evidence/tuned.yaml")
PRESET_FIELDS = {"about", "role", "blocks", "slice_seeds", "left_out"}
BLOCK_FIELDS = {"task", "signals", "arms", "seeds", "lab", "tuned"}
ARM_FIELDS = {"like", "method", "fields", "lab", "about", "grid"}
Tuned = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""For each task, the chosen settings of each arm: {"fields": ..., "lab": ...}."""


def preset_names() -> list[str]:
    """Names of the package's presets.

    Example:
        >>> "main" in preset_names()
        True
    """
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != ARMS)


def find_preset(name: str, tuned: Path | None = TUNED) -> Preset:
    """The preset with this name, or that of a YAML file.

    Args:
        name: a name of `preset_names`, or the path of a file that ends in .yaml.
        tuned: the file with the chosen settings, for presets that use them; None: the defaults.

    Raises:
        StepCreditError: no preset has this name.
        FileError: the file is missing, or is no preset; names the field at fault.
    """
    own = name in preset_names()
    if not own and not name.endswith((".yaml", ".yml")):
        reason = f"no preset of this name{hint(name, preset_names())}"
        raise StepCreditError(f"{reason}; `stepcredit study list` prints them", field=name)
    path = FOLDER / f"{name}.yaml" if own else Path(name)
    try:
        return _preset(path.stem, yaml_mapping(path), tuned)
    except FileError:
        raise
    except StepCreditError as error:
        raise error.at(place=f"preset {path.stem}") from error.__cause__


def _preset(name: str, given: Mapping[str, Any], tuned: Path | None) -> Preset:
    check_names(given, PRESET_FIELDS, ("about", "role", "blocks"))
    arms = yaml_mapping(FOLDER / f"{ARMS}.yaml")
    blocks = []
    for number, block in enumerate(given["blocks"]):
        try:
            blocks.append(_block(block, arms, tuned))
        except StepCreditError as error:
            raise error.at(place=f"block {number + 1}") from error.__cause__
    more = {name: given[name] for name in ("slice_seeds",) if name in given}
    left_out = tuple(given.get("left_out", ()))
    return Preset(name, given["about"], given["role"], tuple(blocks), left_out=left_out, **more)


def check_names(
    given: Mapping[str, Any], known: Iterable[str], required: Iterable[str] = ()
) -> None:
    """Refuse a mapping with an unknown name, or without a required one.

    Raises:
        StepCreditError: names the name.

    Example:
        >>> check_names({"about": "x"}, {"about", "role"}, ["about"])
    """
    if not isinstance(given, Mapping):
        raise StepCreditError(f"expected a mapping, got {given!r}")
    for name in given:
        if name not in known:
            raise StepCreditError(f"no such field{hint(str(name), sorted(known))}", field=str(name))
    for name in required:
        if name not in given:
            raise StepCreditError("is missing", field=name)


def _block(given: Mapping[str, Any], arms: Mapping[str, Any], tuned: Path | None) -> Block:
    check_names(given, BLOCK_FIELDS, ("signals", "arms", "seeds"))
    task = given.get("task", "arithmetic")
    chosen = tuned_arms(tuned, task) if given.get("tuned") and tuned else {}
    built = [arm for entry in given["arms"] for arm in _arms(entry, arms)]
    if len({arm.label for arm in built}) < len(built):
        raise StepCreditError("two arms have one label", field="arms")
    return Block(
        task=task,
        signals=dict(map(_named_signal, given["signals"])),
        arms=tuple(_tuned_arm(arm, chosen) for arm in built),
        seeds=seed_list(given["seeds"]),
        lab=plain_value(given.get("lab", {})),
    )


def _named_signal(entry: Any) -> tuple[str, Mapping[str, Any]]:
    """The name of a signal alone, or {name: settings of the lab}."""
    if isinstance(entry, str):
        return entry, {"signal": entry}
    ((name, settings),) = entry.items()
    return name, settings


def _arms(entry: Any, arms: Mapping[str, Any]) -> Iterator[Arm]:
    """The label of an arm of `arms.yaml` alone, or {label: its settings}; a grid makes several."""
    label, given = (
        next(iter(entry.items())) if isinstance(entry, dict) else (entry, {"like": entry})
    )
    try:
        check_names(given, ARM_FIELDS)
        base = _known_arm(given["like"], arms) if "like" in given else {}
        method = given.get("method", base.get("method"))
        if method is None:
            raise StepCreditError("is missing", field="method")
    except StepCreditError as error:
        raise error.at(place=f"arm {label}") from error.__cause__
    fields, lab = ({**base.get(part, {}), **given.get(part, {})} for part in ("fields", "lab"))
    changed = given.get("fields") or given.get("lab")  # it is not the other arm any more
    about = given.get("about", "" if changed else base.get("about", ""))
    arm = Arm(label, method, fields, lab, about)
    grid: Mapping[str, Any] = given.get("grid", {})
    for values in product(*grid.values()):
        yield _with_values(arm, dict(zip(grid, values, strict=True)))


def _with_values(arm: Arm, values: Mapping[str, Any]) -> Arm:
    """The arm with one point of its grid, which its label names."""
    if not values:
        return arm
    point = ", ".join(f"{name}={value}" for name, value in values.items())
    lab = {name: value for name, value in values.items() if name in lab_fields()}
    fields = {name: value for name, value in values.items() if name not in lab}
    label = f"{arm.label} [{point}]"
    return replace(arm, label=label, fields={**arm.fields, **fields}, lab={**arm.lab, **lab})


def _known_arm(label: str, arms: Mapping[str, Any]) -> Mapping[str, Any]:
    if label not in arms:
        raise StepCreditError(f"no such arm{hint(label, sorted(arms))}", field="like")
    found: Mapping[str, Any] = arms[label]
    return found


def tuned_arms(path: Path, task: str) -> Mapping[str, Mapping[str, Any]]:
    """The settings that were chosen for each arm on a task.

    Args:
        path: the file that `stepcredit study tune` wrote.
        task: the task.

    Raises:
        FileError: the file is missing, or has no such task.
    """
    if not path.is_file():
        raise FileError("no such file: run `stepcredit study tune` first", field=str(path))
    chosen: Tuned = yaml_mapping(path).get("chosen", {})
    if task not in chosen:
        reason = f"has no settings for the task {task!r}: run `stepcredit study tune`"
        raise FileError(reason, field=str(path))
    return chosen[task]


def _tuned_arm(arm: Arm, chosen: Mapping[str, Mapping[str, Any]]) -> Arm:
    """The arm with the settings chosen for it; those that the arm itself names come first.

    An arm that was not tuned takes those of the arm that its label begins with.
    """
    names = [name for name in chosen if arm.label == name or arm.label.startswith(f"{name}:")]
    if not names:
        return arm
    found = chosen[max(names, key=len)]
    fields, lab = ({**found.get(part, {})} for part in ("fields", "lab"))
    return replace(arm, fields={**fields, **arm.fields}, lab={**lab, **arm.lab})


def seed_list(given: Any) -> tuple[int, ...]:
    """Seeds from a list, or from the text "100-109".

    Raises:
        StepCreditError: it is neither.

    Example:
        >>> seed_list("100-103"), seed_list([1, 2])
        ((100, 101, 102, 103), (1, 2))
    """
    try:
        if isinstance(given, str):
            first, _, last = given.partition("-")
            return tuple(range(int(first), int(last or first) + 1))
        if all(isinstance(seed, int) for seed in given):
            return tuple(given)
    except (TypeError, ValueError):
        pass
    raise StepCreditError(f"expected a list of seeds or FIRST-LAST, got {given!r}", field="seeds")
