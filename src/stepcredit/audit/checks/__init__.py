"""The package's checks, one file per theme; importing them registers them."""

from stepcredit.audit.checks import payment

__all__ = ["payment"]
