"""TRL's trainer with token advantages. `python -m stepcredit.launch` trains from a YAML file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any
from warnings import warn

if TYPE_CHECKING:
    from stepcredit.engines.trl.config import StepCreditConfig
    from stepcredit.engines.trl.generation import Generation
    from stepcredit.engines.trl.reward_function import TRLReward
    from stepcredit.engines.trl.trainer import StepCreditGRPOTrainer

__all__ = ["Generation", "StepCreditConfig", "StepCreditGRPOTrainer", "TRLReward"]
_MODULES = {
    "Generation": "generation",
    "StepCreditConfig": "config",
    "StepCreditGRPOTrainer": "trainer",
    "TRLReward": "reward_function",
}


def __getattr__(name: str) -> Any:
    """Import TRL with the first of these names, so that its logs can be read without it."""
    if name == "CreditedBatch":
        warn("CreditedBatch is now Generation", DeprecationWarning, stacklevel=2)
        name = "Generation"
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
