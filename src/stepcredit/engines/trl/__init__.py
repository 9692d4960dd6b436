"""TRL: all knowledge of it, and nothing else. `python -m stepcredit.engines.trl` trains."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepcredit.engines.trl.config import StepCreditConfig
    from stepcredit.engines.trl.trainer import CreditedBatch, StepCreditGRPOTrainer

__all__ = ["CreditedBatch", "StepCreditConfig", "StepCreditGRPOTrainer"]
_MODULES = {
    "CreditedBatch": "trainer",
    "StepCreditConfig": "config",
    "StepCreditGRPOTrainer": "trainer",
}


def __getattr__(name: str) -> Any:
    """TRL is imported with the first of these names: its logs are read without it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
