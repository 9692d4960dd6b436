"""Reads YAML files of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepcredit.errors import FileError


def yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        FileError: it is missing, or holds no mapping.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise FileError(error.strerror or str(error), field=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(f"is no YAML: {' '.join(str(error).split())}", field=str(path)) from None
    if not isinstance(found, dict):
        raise FileError("expected a mapping", field=str(path))
    return found
