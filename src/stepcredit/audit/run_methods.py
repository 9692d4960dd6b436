"""What a run recorded of its credit: its methods with their settings, and what it calls right."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import METHODS
from stepcredit.engines.run_record import FILE, read_run
from stepcredit.errors import MethodError, StepCreditError

CONFIG = "config.json"
"""The file in a folder of `stepcredit train`; its `estimators` are the methods by policy."""


@dataclass(frozen=True)
class RunMethods:
    """The method of each policy of a run, and the outcome above which it calls a response right.

    Args:
        by_policy: a method by the label of the policy that it trained.
        notes: what of the record can't be used, one line each.
        right_above: as the run's metrics used it.

    Example:
        >>> import stepcredit as sc
        >>> run = RunMethods({"pass": sc.PASS(clip=5.0)})
        >>> run.among({"pass": sc.PASS(), "grpo": sc.GRPO()}, "pass")
        {'pass': PASS(clip=5.0), 'grpo': GRPO(clip=5.0)}
    """

    by_policy: Mapping[str, Estimator] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    right_above: float = 0.0

    def among(self, methods: Mapping[str, Estimator], policy: str) -> dict[str, Estimator]:
        """The methods to compare on a policy's rollouts, under the settings of the run.

        The policy's own method stands first, with all settings of the run. The others get its clip,
        and its weights of those streams that they weigh themselves.

        Args:
            methods: by name.
            policy: label of the policy; "": not known. The one method of a run counts for every
                policy, and of several methods none does for a policy that is not known.
        """
        alone = next(iter(self.by_policy.values())) if len(self.by_policy) == 1 else None
        own = self.by_policy.get(policy, alone)
        if own is None:
            return dict(methods)
        others = {name: _alike(method, own) for name, method in methods.items()}
        return {own.name: own} | others | {own.name: own}

    def only(self, names: Collection[str]) -> RunMethods:
        """Those of some names, where a user wants no others to be compared."""
        kept = {label: own for label, own in self.by_policy.items() if own.name in names}
        return RunMethods(kept, self.notes if kept else (), self.right_above)


def _alike(method: Estimator, own: Estimator) -> Estimator:
    """A method with the clip of another one, and with its weights where it takes them."""
    method = replace(method, clip=own.clip)
    given, weighted = own.reads.weights or {}, method.reads.weights or {}
    shared = {stream: weight for stream, weight in given.items() if stream in weighted}
    if shared.keys() != weighted.keys():
        return method
    try:
        return method.with_weights(shared)
    except MethodError:
        return method


def run_methods(folder: str | Path) -> RunMethods:
    """What a run's folder says of its credit; no method where it says nothing.

    Args:
        folder: of `stepcredit train`, or the folder of the rollouts of a trainer whose
            `stepcredit_run.json` is in it or in the folder above.
    """
    place = Path(folder)
    if (place / CONFIG).is_file():
        found = _from_config(place / CONFIG)
        if found is not None:
            return found
    for above in (place, place.parent):
        if (above / FILE).is_file():
            return _from_record(above)
    return RunMethods()


def _from_config(path: Path) -> RunMethods | None:
    """The methods of `stepcredit train`; None where the file is of something else."""
    try:
        found = json.loads(path.read_text())["estimators"].items()
        named = {label: dict(fields) for label, fields in found}
        names = {label: fields.pop("method") for label, fields in named.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    methods, notes = dict[str, Estimator](), list[str]()
    for label, fields in named.items():
        try:
            methods[label] = METHODS.build(names[label], fields, at=f"estimators.{label}")
        except StepCreditError as error:
            notes.append(f"{path}: the settings of {label} are not used: {error}")
    return RunMethods(methods, tuple(notes))


def _from_record(folder: Path) -> RunMethods:
    """The method of a run of TRL or verl, and what it calls right."""
    path = folder / FILE
    record: Mapping[str, Any] = read_run(folder)[1] or {}
    above = record.get("right_above")
    right_above = float(above) if isinstance(above, int | float) else 0.0
    try:
        method = METHODS.build(str(record.get("method")), dict(record.get("fields") or {}))
    except StepCreditError as error:
        note = f"{path}: its method's settings are not used: {error}"
        return RunMethods(notes=(note,), right_above=right_above)
    return RunMethods({method.name: method}, right_above=right_above)
