"""Warns about versions of a trainer that its engine was not tested with."""

from __future__ import annotations

import warnings

from packaging.version import Version


def warn_outside(package: str, version: str, tested: tuple[str, str]) -> None:
    """Warn about an untested version; the warning points at the code two frames up.

    Args:
        package: the trainer's package.
        version: the installed version.
        tested: the first tested version, and the first that is too new.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warn_outside("trl", "1.17.0", ("1.16.0", "1.17"))
        >>> str(caught[0].message)
        'trl 1.17.0 is outside the range tested, >=1.16.0,<1.17'
    """
    first, beyond = tested
    if not Version(first) <= Version(version) < Version(beyond):
        text = f"{package} {version} is outside the range tested, >={first},<{beyond}"
        warnings.warn(text, UserWarning, stacklevel=4)
