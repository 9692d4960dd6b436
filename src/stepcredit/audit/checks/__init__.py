"""The package's checks, one file per theme; importing them registers them."""

from stepcredit.audit.checks import (
    hack_detectors,
    lints,
    payment,
    repeated_responses,
    shifted_scores,
    signal_lints,
    stored_lints,
)

__all__ = [
    "hack_detectors",
    "lints",
    "payment",
    "repeated_responses",
    "shifted_scores",
    "signal_lints",
    "stored_lints",
]
