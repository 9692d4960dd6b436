"""The package's checks, one file per theme; importing them registers them."""

from stepcredit.audit.checks import (
    contamination,
    hack_detectors,
    length_pressure_check,
    lints,
    method_comparison,
    payment,
    q_alignment,
    repeated_responses,
    resolution,
    shifted_scores,
    signal_lints,
    signal_quality,
    stored_lints,
)

__all__ = [
    "contamination",
    "hack_detectors",
    "length_pressure_check",
    "lints",
    "method_comparison",
    "payment",
    "q_alignment",
    "repeated_responses",
    "resolution",
    "shifted_scores",
    "signal_lints",
    "signal_quality",
    "stored_lints",
]
