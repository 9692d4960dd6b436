"""The key of a run: two runs with equal settings have one key, so that none is done twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import stepcredit as sc
from stepcredit.keys import digest64
from stepcredit.lab.lab_settings import LabSettings

RUN_VERSION = 1
"""Version of what a run computes.

It is part of every key. Raise it if the lab learns something else from the same settings, or if the
default of a setting changes: the keys hold only the settings that differ from their defaults.
"""


def run_key(settings: LabSettings) -> str:
    """Hash of everything that decides the numbers of a run.

    Args:
        settings: the settings of a run of one method.

    Returns:
        16 hexadecimal digits. Settings are compared after they are resolved: a field that is given
        its default does not change the key, nor does the signal of a method that reads none.

    Example:
        >>> plain, given, other = (
        ...     run_key(LabSettings(compare=None, **changes))
        ...     for changes in ({}, {"fields": {"k": 0.7}}, {"seed": 1})
        ... )
        >>> plain == given, plain == other
        (True, False)
    """
    text = json.dumps(resolved_settings(settings), sort_keys=True, default=list)
    return f"{digest64(text):016x}"


def resolved_settings(settings: LabSettings) -> dict[str, Any]:
    """The settings of a run that differ from their defaults, and those of its method.

    Example:
        >>> resolved_settings(LabSettings(compare=None, method="pure", signal="hackable"))["method"]
        {'name': 'pure', 'clip': 5.0}
    """
    estimator = settings.estimator(settings.method, settings.fields)
    own = changed_fields(estimator, sc.estimator(settings.method))
    task, fields, model = settings.task, settings.task_fields, settings.model
    plain = LabSettings(compare=None, task=task, task_fields=fields, model=model)
    given = changed_fields(settings, plain)
    for name in ("method", "fields", "compare", *STARTS):
        given.pop(name, None)
    keys = {name: getattr(settings, name).key() for name in supervised_models(settings)}
    method = {"name": settings.method, **own}
    lab = {"task": task, "task_fields": plain_value(fields), "model": model, **given, **keys}
    return {"version": RUN_VERSION, "method": method, "lab": lab}


STARTS = ("warm", "teacher")
"""The supervised trainings: `resolved_settings` holds the key of each one that a run reads."""


def supervised_models(settings: LabSettings) -> tuple[str, ...]:
    """Which of `STARTS` a run reads: the warm start always, the teacher if its log-probs are read.

    Example:
        >>> supervised_models(LabSettings(method="opd", compare=None))
        ('warm', 'teacher')
    """
    estimator = settings.estimator(settings.method, settings.fields)
    return STARTS if settings.models_read(estimator) else STARTS[:1]


def changed_fields(record: Any, default: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from those of another object of its class.

    Args:
        record: the object.
        default: the other object.

    Example:
        >>> changed_fields(sc.PASS(k=1.0), sc.PASS())
        {'k': 1.0}
    """
    found = {}
    for field in fields(record):
        value, other = vars(record)[field.name], vars(default)[field.name]
        if value != other:
            nested = is_dataclass(value) and is_dataclass(other)
            found[field.name] = changed_fields(value, other) if nested else plain_value(value)
    return found


def plain_value(value: Any) -> Any:
    """A setting as JSON holds it: mappings become dicts, tuples lists, whole floats stay floats."""
    if isinstance(value, Mapping):
        return {str(name): plain_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    return value


def lab_fields() -> list[str]:
    """Names of the settings that the lab has."""
    return [field.name for field in fields(LabSettings)]
