"""Finds out whether an error was raised in the user's code."""

from __future__ import annotations

import site
import sysconfig
from importlib.metadata import distributions
from pathlib import Path
from traceback import walk_tb

import stepcredit


def place_in_own_code(error: BaseException) -> str | None:
    """`FILE:LINE` of the last call in the user's code that led to an error; None if there is none.

    The user's code is every file outside stepcredit and the installed libraries, and the installed
    packages that register methods, signals, rewards and the like by an entry point.
    """
    plugins = {
        point.module.partition(".")[0]
        for distribution in distributions()
        for point in distribution.entry_points
        if point.group.startswith("stepcredit.")
    }
    libraries = _libraries()
    for frame, line in reversed(list(walk_tb(error.__traceback__))):
        file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__"))
        if file.startswith("<"):
            continue
        known = any(Path(file).is_relative_to(folder) for folder in libraries)
        if module.partition(".")[0] in plugins or not known:
            return f"{file}:{line}"
    return None


def _libraries() -> set[str]:
    """The folders of stepcredit, of Python and of the installed packages."""
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return folders | {str(Path(str(stepcredit.__file__)).parent)}
