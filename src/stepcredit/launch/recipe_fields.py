"""Fields of the things that a recipe names: how those of the YAML file and of flags go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import yaml

from stepcredit.engines.build import fields_of
from stepcredit.errors import EngineError

NONE = ("none", "null")
OWN_FIELDS = {
    "method": "fields",
    "process_signal": "process_signal_fields",
    "splitter": "splitter_fields",
    "logprobs": "logprobs_fields",
}
"""Settings that name a thing, and the setting of its fields.

Another name on the command line drops the YAML's fields. With the same name, fields on the command
line are merged into them, as verl does.
"""
MERGED = {**OWN_FIELDS, "rewards": "reward_fields"}
"""Settings that name things, and the setting of their fields that a flag is merged into."""


def mapping_of(value: Any, name: str) -> dict[str, Any]:
    """A setting that holds a mapping, or a text of YAML or JSON; None is an empty mapping.

    Args:
        value: the setting's value.
        name: its key, for errors.

    Raises:
        EngineError: it holds something else, or a key that is not a string.

    Example:
        >>> mapping_of('{"accuracy": "maths"}', "rewards")
        {'accuracy': 'maths'}
    """
    if isinstance(value, str):
        with suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    return fields_of(value, name)


def drop_other_fields(values: dict[str, Any], given: set[str]) -> list[str]:
    """Drop the YAML's fields of what a flag replaces, and read `none`; a line for each dropped.

    Args:
        values: every key's value; changed.
        given: the keys that are given as flags.
    """
    notes = []
    for name in sorted(OWN_FIELDS.keys() & given):
        key = OWN_FIELDS[name]
        if str(values[name]).lower() in NONE:
            values[name] = None
        if key not in given and values.get(key):
            notes.append(f"{key}: left out, because they are not fields of --{name} {values[name]}")
            values[key] = None
    return notes


def merge_fields(
    values: dict[str, Any], given: set[str], read: Mapping[str, Any], path: str
) -> Iterator[str]:
    """Merge fields of flags into the YAML's where they are of the same thing; a line for each.

    A value that is no mapping is left as it is: it is refused later.

    Args:
        values: every key's value; changed.
        given: the keys that are given as flags.
        read: the YAML's keys.
        path: of the YAML, for the lines.
    """
    for name, key in MERGED.items():
        if key not in given or name in given:
            continue
        with suppress(EngineError):
            base, own = mapping_of(read.get(key), key), mapping_of(values[key], key)
            values[key] = merged(base, own)
            kept = [each for each in leaves(base) if each in leaves(values[key])]
            kept = [each for each in kept if each not in leaves(own)]
            if kept:
                yield f"{key}: {', '.join(kept)} stay as in {path}"


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings, merged at every depth; where both have a value, it is that of `own`.

    Example:
        >>> merged({"k": 0.7, "weights": {"process": 1, "format": 1}}, {"weights": {"process": 2}})
        {'k': 0.7, 'weights': {'process': 2, 'format': 1}}
    """
    both = {
        name: merged(base[name], value)
        for name, value in own.items()
        if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
    }
    return {**base, **own, **both}


def leaves(fields: Mapping[str, Any], above: str = "") -> list[str]:
    """The dotted names of all values in nested mappings.

    Example:
        >>> leaves({"k": 0.7, "weights": {"process": 1, "format": 1}})
        ['k', 'weights.process', 'weights.format']
    """
    found = []
    for name, value in fields.items():
        inner = leaves(value, f"{above}{name}.") if isinstance(value, Mapping) else []
        found += inner or [f"{above}{name}"]
    return found
