"""The versions of a trainer that its engine was tested on."""

from __future__ import annotations

import warnings

from packaging.version import Version


def warn_outside(package: str, version: str, tested: tuple[str, str]) -> None:
    """Warn of a version outside the range tested, in the name of the caller's caller.

    Args:
        package: the trainer's.
        version: the one installed.
        tested: the first version tested, and the first not tested any more.

    Example:
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warn_outside("trl", "1.17.0", ("1.16.0", "1.17"))
        >>> str(told[0].message)
        'trl 1.17.0 is outside the range tested, >=1.16.0,<1.17'
    """
    first, beyond = tested
    if not Version(first) <= Version(version) < Version(beyond):
        text = f"{package} {version} is outside the range tested, >={first},<{beyond}"
        warnings.warn(text, UserWarning, stacklevel=4)
