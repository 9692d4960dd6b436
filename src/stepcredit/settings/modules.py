"""Imports modules and functions that a setting names.

The working folder often holds data from elsewhere, so nothing is imported from it unless the user
names what to import.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pkgutil import resolve_name
from types import ModuleType
from typing import Any


def module_named(name: str) -> ModuleType:
    """The module of that name, from Python's import path or else from the working folder.

    Raises:
        Exception: whatever the import raises.

    Example:
        >>> module_named("math").__name__
        'math'
    """
    _search_working_folder_for(name)
    return import_module(name)


def object_named(address: str) -> Any:
    """The object at MODULE:NAME, from Python's import path or else from the working folder.

    Raises:
        Exception: whatever the import raises; AttributeError where the module has no such name.

    Example:
        >>> object_named("math:floor")(1.5)
        1
    """
    _search_working_folder_for(address.partition(":")[0])
    return resolve_name(address)


def _search_working_folder_for(name: str) -> None:
    """Put the working folder last on the import path if the module is not found elsewhere."""
    folder = os.getcwd()
    if folder not in sys.path and not _exists(name.partition(".")[0]):
        sys.path.append(folder)


def _exists(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # an empty name, or a module without a spec
        return package in sys.modules
