"""What a run's credit is made of: printed at the start, kept with checkpoints, and compared."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import stepcredit as sc
from stepcredit.data.files.atomic import write_json
from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import EngineError
from stepcredit.rewards.base import Reward
from stepcredit.settings.fields import frozen
from stepcredit.signals.served.served_signal import OPERATION
from stepcredit.signals.signal import Signal
from stepcredit.signals.splitting import Splitter

FILE = "stepcredit_run.json"
"""The file in a run's folder, and in each of its checkpoints."""
NOT_COMPARED = {*OPERATION, "device", "max_tokens_per_batch", "workers", "packed", "right_above"}
"""Settings that change where and how fast scores are computed, or metrics; no advantage."""
Record = dict[str, Any]
Sources = Any
"""A signal, a callable, {name: either}, or None."""


def describe(
    estimator: sc.Estimator,
    sources: Sources,
    *,
    outcome: str,
    format_reward: str | None,
    gate: Any,
    splitter: Splitter | str | None,
    logprobs: Sources = None,
    untrained: Sequence[str] = (),
    right_above: float = 0.0,
    complete: bool = True,
) -> Record:
    """A run's credit as JSON: the method, its streams and weights, and where each comes from.

    Args:
        estimator: the method.
        sources: what gives the process streams: a signal, a callable, or either by stream.
        outcome: what the outcome is.
        format_reward: the format reward; None: there is none.
        gate: the threshold of the format reward, a callable, or None: above 0.
        splitter: cuts responses into steps.
        logprobs: what gives log-probs, by model.
        untrained: rewards that are neither the outcome nor the format reward.
        right_above: the outcome above which the metrics call a response right.
        complete: whether nothing else than `sources` can give a process stream.

    Example:
        >>> found = describe(sc.PASS(k=1.0), sc.signal("arithmetic"), outcome="accuracy",
        ...                  format_reward=None, gate=None, splitter="blank-line")
        >>> found["method"], found["fields"]["k"], found["streams"]["process"]["weight"]
        ('pass', 1.0, 1.0)
    """
    reads = estimator.reads
    streams = {
        name: {
            "from": spelled(source),
            "weight": (reads.weights or {}).get(name),
            "read": reads.process is not None,
        }
        for name, source in by_stream(sources).items()
    }
    return {
        "method": estimator.name or type(estimator).__name__,
        "fields": {each.name: spelled(vars(estimator)[each.name]) for each in fields(estimator)},
        "streams": streams,
        "weights": None if reads.weights is None else dict(reads.weights),
        "outcome": {"from": outcome, "read": reads.outcome is not None},
        "format": {"from": format_reward, "read": reads.format or reads.gate},
        "gate": _gate(gate, format_reward) if reads.gate else None,
        "logprobs": {name: spelled(source) for name, source in by_stream(logprobs).items()},
        "reads_logprobs": list(reads.logprobs),
        "splitter": spelled(splitter),
        "untrained_rewards": list(untrained),
        "right_above": right_above,
        "complete": complete,
    }


def by_stream(sources: Sources) -> dict[str, Any]:
    """Sources by stream; a single one is the stream "process".

    Example:
        >>> by_stream(None), list(by_stream(len)), list(by_stream({"prm": len}))
        ({}, ['process'], ['prm'])
    """
    if sources is None:
        return {}
    return dict(sources) if isinstance(sources, Mapping) else {"process": sources}


def _gate(gate: Any, format_reward: str | None) -> str | None:
    if callable(gate):
        return f"by {spelled(gate)}"
    if format_reward is None:
        return None
    return "above 0" if gate is None else f"at least {gate:g}"


def spelled(value: Any) -> Any:
    """A setting as JSON: signals with the fields that are set, functions and models by name.

    Example:
        >>> spelled(sc.signal("arithmetic", neutral=1.0)), spelled((1, None))
        ({'name': 'arithmetic', 'neutral': 1.0}, [1, None])
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): spelled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Signal | Splitter | Reward) and is_dataclass(value):
        return {"name": value.name or type(value).__name__, **_set_fields(value)}
    if isinstance(value, Callable) and hasattr(value, "__qualname__"):  # type: ignore[arg-type]
        return f"{value.__module__}.{value.__qualname__}"
    return type(value).__name__


def _set_fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, without those it does not show."""
    shown = [each for each in fields(value) if each.repr and each.init]
    given = {each.name: (getattr(value, each.name), each.default) for each in shown}
    return {name: spelled(own) for name, (own, default) in given.items() if not _same(own, default)}


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(frozen(other)) and bool(one == frozen(other)))


def lines_of(record: Record) -> list[str]:
    """The record as a person reads it at the start of a run.

    Args:
        record: as `describe` gives it.

    Example:
        >>> record = describe(sc.PASS(k=1.0), None, outcome="accuracy", format_reward=None,
        ...                   gate=None, splitter=None)
        >>> print(*lines_of(record)[1:], sep="\\n")
          outcome: accuracy (weight 1)
          format: none
          process: has a weight, but no such stream is given
    """
    settings = ", ".join(f"{name}={value!r}" for name, value in record["fields"].items())
    lines = [f"credit by {record['method']}({settings})"]
    for name, stream in record["streams"].items():
        lines.append(f"  {name}: {_source(stream['from'])}{_use(name, stream['read'], record)}")
    for name, model in record["logprobs"].items():
        read = name in record["reads_logprobs"]
        lines.append(f"  log-probs of {name}: {_source(model)}{'' if read else ' (not read)'}")
    outcome, format_ = record["outcome"], record["format"]
    lines.append(f"  outcome: {outcome['from']}{_use('outcome', outcome['read'], record)}")
    if format_["from"] is None:
        lines.append("  format: none")
    else:
        lines.append(f"  format: {format_['from']}{_use('format', format_['read'], record)}")
    if record["gate"] is not None:
        lines.append(f"  gate: a response keeps its format where the reward is {record['gate']}")
    lines += [f"  {name}: has a weight, but no such stream is given" for name in _absent(record)]
    if record["streams"] and record["splitter"] is not None:
        lines.append(f"  steps: {_source(record['splitter'])}")
    lines += [f"  {name}: trains nothing" for name in record["untrained_rewards"]]
    return lines


def _absent(record: Record) -> list[str]:
    """Process streams that have a weight, and that nothing gives."""
    given = {*record["streams"], "outcome", "format"}
    weights = record["weights"] if record["complete"] and record["weights"] else {}
    return [name for name, weight in weights.items() if weight and name not in given]


def _use(name: str, read: bool, record: Record) -> str:
    if not read:
        return f" ({record['method']} does not read it: for the metrics alone)"
    if name == "process" and not record["complete"] and name not in (record["weights"] or {name}):
        return " (its streams are known with the first batch)"
    if record["weights"] is None:
        return ""
    weight = record["weights"].get(name)
    return f" (weight {weight:g})" if weight is not None else " (no weight)"


def _source(value: Any) -> str:
    if not isinstance(value, dict) or "name" not in value:
        return str(value)
    rest = ", ".join(f"{key}={inner!r}" for key, inner in value.items() if key != "name")
    return f"{value['name']}({rest})" if rest else str(value["name"])


def differences(before: Record, now: Record) -> list[str]:
    """What differs between two records, as `setting: was A, is B`.

    Args:
        before: the record of a checkpoint.
        now: that of the run that resumes from it.

    Example:
        >>> differences({"fields": {"k": 0.7}}, {"fields": {"k": 1.0}})
        ['fields.k was 0.7, is 1.0']
    """
    found = []
    for name in dict.fromkeys([*before, *now]):
        if name in NOT_COMPARED:
            continue
        one, other = before.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += [f"{name}.{line}" for line in differences(one, other)]
        elif one != other:
            found.append(f"{name} was {one!r}, is {other!r}")
    return found


def check_same_credit(before: Record | None, now: Record, setting: str, place: str) -> None:
    """Refuse to resume a run under other settings of credit.

    Args:
        before: the record of the checkpoint; None: it has none, which is warned of.
        now: the record of the run.
        setting: the setting that names the checkpoint, for errors.
        place: the checkpoint.

    Raises:
        EngineError: says what differs.
    """
    if not before:
        line = f"{place} does not say by what credit it was trained: nothing could be compared"
        warnings.warn(f"{setting}: {line}", UserWarning, stacklevel=2)
    changed = differences(before or now, json.loads(json.dumps(now)))
    if changed:
        reason = f"{place} was trained with other credit: {'; '.join(changed)}"
        raise EngineError(
            f"{reason}: set it back, or start a new run from its model", field=setting
        )


def new_run() -> str:
    """A name for a run that no other run has."""
    return uuid4().hex


def write_run(folder: str | Path, run: str, record: Record) -> None:
    """Write a run's name and its record into a folder.

    Raises:
        FileError: the file can't be written.
    """
    with file_errors(str(folder)):
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / FILE, {"run": run, "credit": record})


def read_run(folder: str | Path) -> tuple[str | None, Record | None]:
    """The name and the record of the run that wrote into a folder; None where there are none."""
    try:
        known = json.loads((Path(folder) / FILE).read_text())
        return known["run"], known["credit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
