"""Credit assignment for process-supervised reinforcement learning of LLM reasoners.

Step scores, teacher log-probs, outcome and format rewards in; one advantage per token out.
"""

import os
import sys


def _leave_out_working_folder() -> None:
    """Remove the working folder from the import path, where `python -m stepcredit...` put it.

    This runs before the other imports, which would search it: a folder of data can hold a file
    `typing.py`. While Python looks for the module to run, `sys.argv[0]` is "-m".
    """
    named = any(word.removeprefix("-m").split(".")[0] == "stepcredit" for word in sys.orig_argv)
    if sys.argv[:1] == ["-m"] and named and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]


_leave_out_working_folder()

import importlib as _importlib  # noqa: E402
from typing import TYPE_CHECKING as _TYPE_CHECKING  # noqa: E402

from stepcredit import _moved  # noqa: E402

if _TYPE_CHECKING:
    from stepcredit.credit.estimator import Estimator
    from stepcredit.credit.explanation import Explanation
    from stepcredit.credit.method_registry import estimator, methods, register
    from stepcredit.credit.methods.adca import ADCA
    from stepcredit.credit.methods.distillation import GOPD, OPD
    from stepcredit.credit.methods.gdpo import GDPO
    from stepcredit.credit.methods.gigpo import GiGPO
    from stepcredit.credit.methods.grpo import GRPO, RLOO, DrGRPO
    from stepcredit.credit.methods.grpo_process import ProcessGRPO
    from stepcredit.credit.methods.mix import Mix
    from stepcredit.credit.methods.pass_ import PASS
    from stepcredit.credit.methods.pass_min import PASSMin
    from stepcredit.credit.methods.prime import PRIME
    from stepcredit.credit.methods.pure import PURE
    from stepcredit.credit.methods.redistribute import Redistribute
    from stepcredit.credit.methods.reinforce_plus_plus import ReinforcePlusPlus
    from stepcredit.credit.methods.reweight import Reweight
    from stepcredit.credit.methods.rlsd import RLSD
    from stepcredit.credit.methods.sign_size import SignSize
    from stepcredit.credit.methods.turn_return import TurnReturn
    from stepcredit.credit.reads import Reads
    from stepcredit.credit.slot_credit import Credit
    from stepcredit.credit.stages.batch_norm import Moments
    from stepcredit.data.advantages import Advantages
    from stepcredit.data.files import RolloutFile, read_rollouts, read_rows, write_rollouts
    from stepcredit.data.rollouts import Rollouts
    from stepcredit.data.streams import Steps, TokenAdvantages, Tokens
    from stepcredit.rewards.base import Reward
    from stepcredit.rewards.reward_registry import register_reward, reward
    from stepcredit.signals.signal import Signal
    from stepcredit.signals.signal_registry import register_signal, signal

__version__ = "0.1.0"

_FACADE = {
    "credit.estimator": ("Estimator",),
    "credit.explanation": ("Explanation",),
    "credit.method_registry": ("estimator", "methods", "register"),
    "credit.methods.adca": ("ADCA",),
    "credit.methods.distillation": ("GOPD", "OPD"),
    "credit.methods.gdpo": ("GDPO",),
    "credit.methods.gigpo": ("GiGPO",),
    "credit.methods.grpo": ("GRPO", "RLOO", "DrGRPO"),
    "credit.methods.grpo_process": ("ProcessGRPO",),
    "credit.methods.mix": ("Mix",),
    "credit.methods.pass_": ("PASS",),
    "credit.methods.pass_min": ("PASSMin",),
    "credit.methods.prime": ("PRIME",),
    "credit.methods.pure": ("PURE",),
    "credit.methods.redistribute": ("Redistribute",),
    "credit.methods.reinforce_plus_plus": ("ReinforcePlusPlus",),
    "credit.methods.reweight": ("Reweight",),
    "credit.methods.rlsd": ("RLSD",),
    "credit.methods.sign_size": ("SignSize",),
    "credit.methods.turn_return": ("TurnReturn",),
    "credit.reads": ("Reads",),
    "credit.slot_credit": ("Credit",),
    "credit.stages.batch_norm": ("Moments",),
    "data.advantages": ("Advantages",),
    "data.files": ("RolloutFile", "read_rollouts", "read_rows", "write_rollouts"),
    "data.rollouts": ("Rollouts",),
    "data.streams": ("Steps", "TokenAdvantages", "Tokens"),
    "rewards.base": ("Reward",),
    "rewards.reward_registry": ("register_reward", "reward"),
    "signals.signal": ("Signal",),
    "signals.signal_registry": ("register_signal", "signal"),
}
_MODULES = {name: module for module, names in _FACADE.items() for name in names}
_ROOMS = ("credit", "data", "rewards", "signals")

__all__ = [
    "ADCA",
    "GDPO",
    "GOPD",
    "GRPO",
    "OPD",
    "PASS",
    "PRIME",
    "PURE",
    "RLOO",
    "RLSD",
    "Advantages",
    "Credit",
    "DrGRPO",
    "Estimator",
    "Explanation",
    "GiGPO",
    "Mix",
    "Moments",
    "PASSMin",
    "ProcessGRPO",
    "Reads",
    "Redistribute",
    "ReinforcePlusPlus",
    "Reward",
    "Reweight",
    "RolloutFile",
    "Rollouts",
    "SignSize",
    "Signal",
    "Steps",
    "TokenAdvantages",
    "Tokens",
    "TurnReturn",
    "estimator",
    "methods",
    "read_rollouts",
    "read_rows",
    "register",
    "register_reward",
    "register_signal",
    "reward",
    "signal",
    "write_rollouts",
]

_moved.install()


def __getattr__(name: str) -> object:
    """Load torch with the first name that needs it: the help of the command line needs none."""
    if name in _MODULES:
        module = _importlib.import_module(f"stepcredit.{_MODULES[name]}")
        globals()[name] = getattr(module, name)
        return globals()[name]
    if name in _ROOMS:
        return _importlib.import_module(f"stepcredit.{name}")
    raise AttributeError(f"module 'stepcredit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
