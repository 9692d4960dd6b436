"""Checks that the packages of an extra are installed."""

from __future__ import annotations

from importlib.util import find_spec

from stepcredit.errors import MissingExtra


def require(extra: str, *packages: str) -> None:
    """Check that packages of an extra are installed, without importing them.

    Args:
        extra: the extra of stepcredit that installs them, such as "train".
        *packages: top-level module names, such as "transformers".

    Raises:
        MissingExtra: one is absent; the reason names the extra.

    Example:
        >>> require("train", "torch")
        >>> require("train", "no_such_package")
        Traceback (most recent call last):
        ...
        stepcredit.errors.MissingExtra: no_such_package: not installed; it comes with the extra \
train: pip install 'stepcredit[train]'
    """
    for package in packages:
        if find_spec(package) is None:
            reason = f"not installed; it comes with the extra {extra}: "
            raise MissingExtra(f"{reason}pip install 'stepcredit[{extra}]'", field=package)
