"""What the lab needs beyond the base installation."""

from __future__ import annotations

from importlib.util import find_spec

from stepcredit.errors import MissingExtra


def require_train(*packages: str) -> None:
    """Check that the packages of the extra `train` are installed, without importing them.

    Args:
        *packages: top-level module names, such as "transformers".

    Raises:
        MissingExtra: when one is absent; the reason names the extra.

    Example:
        >>> require_train("torch")
        >>> require_train("no_such_package")
        Traceback (most recent call last):
        ...
        stepcredit.errors.MissingExtra: no_such_package: not installed; it comes with the extra \
train: pip install 'stepcredit[train]'

    Source: ours.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(
                "not installed; it comes with the extra train: pip install 'stepcredit[train]'",
                field=package,
            )
