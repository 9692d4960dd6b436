"""The package's checks, one file per theme; importing them registers them."""

from stepcredit.audit.checks import hack_detectors, payment

__all__ = ["hack_detectors", "payment"]
