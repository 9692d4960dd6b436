"""Imports modules and functions that a setting names.

The working folder often holds data from elsewhere, so nothing is imported from it unless the user
names what to import.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import resolve_name
from traceback import extract_tb
from types import ModuleType
from typing import Any

from stepcredit.errors import SettingError


def import_named(names: str | Sequence[str] | None) -> list[ModuleType]:
    """Import the modules that a setting names, so that they register their classes.

    Each process that needs the classes calls it; a module that is imported already is not run
    again.

    Args:
        names: one, several or no modules. Each is a dotted name, searched on Python's import path
            or else in the working folder; or the path of a file that ends in `.py`, which becomes
            the module of the file's name (with `_` for what a module's name can't hold).

    Raises:
        SettingError: there is no such module, or it raises an error. Its field is the name as
            given, and its reason says the line.

    Example:
        >>> [module.__name__ for module in import_named("math")], import_named(None)
        (['math'], [])
        >>> import_named(["my_rewards.py"])
        Traceback (most recent call last):
        stepcredit.errors.SettingError: my_rewards.py: no such file
    """
    given = [names] if isinstance(names, str) else (names or [])
    if not isinstance(given, Sequence):
        raise SettingError(f"expected a module, or a list of modules, got {names!r}")
    return [_imported(name) for name in given]


def _imported(name: Any) -> ModuleType:
    if not isinstance(name, str):
        raise SettingError("expected the name or the file of a module", field=str(name))
    try:
        return _module_of_file(name) if name.endswith(".py") else _module_named(name)
    except SettingError:
        raise
    except (Exception, SystemExit) as error:
        raise SettingError(_reason_of_failure(error, name), field=name) from error


def _module_of_file(name: str) -> ModuleType:
    """The module that a file holds, under the file's name.

    Raises:
        SettingError: there is no such file, or another module has its name.
        Exception: whatever the file raises.
    """
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise SettingError("no such file", field=name)
    module_name = re.sub(r"\W", "_", path.stem)
    there = find_spec(module_name)
    if there is not None and there.origin is not None:
        if Path(there.origin).resolve() != path:
            reason = f"another module is called {module_name!r}: rename the file"
            raise SettingError(reason, field=name)
        return import_module(module_name)
    spec = spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[module_name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _reason_of_failure(error: BaseException, name: str) -> str:
    """Why a module can't be imported, in one line; with the line in the module that failed."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    path = name if name.endswith(".py") else name.replace(".", "/")
    own = [
        frame.lineno for frame in extract_tb(error.__traceback__) if _is_of(frame.filename, path)
    ]
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}: {kind}: {error.msg}"
    if not own:
        return text or kind
    return f"line {own[-1]}: {kind}: {text}".removesuffix(": ")


def _is_of(filename: str, path: str) -> bool:
    """Whether a file is the one at a path, or the module or package of that path."""
    file = Path(filename).as_posix()
    whole = Path(path).expanduser().resolve().as_posix()
    return file == whole or file.endswith((f"/{path}.py", f"/{path}/__init__.py"))


def _module_named(name: str) -> ModuleType:
    """The module of that name, from Python's import path or else from the working folder.

    Raises:
        Exception: whatever the import raises.
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
