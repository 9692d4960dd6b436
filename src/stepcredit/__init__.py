"""Credit assignment for process-supervised reinforcement learning of LLM reasoners.

Step scores, teacher log-probs, outcome and format rewards in; one advantage a token out.
"""

import os
import sys


def _leave_out_working_folder() -> None:
    """Take the working folder off the import path, where `python -m stepcredit...` has put it.

    This runs before the other imports, which would look there: a folder of data can hold a
    `typing.py`. While Python looks for the module to run, `sys.argv[0]` is "-m".
    """
    named = any(word.removeprefix("-m").split(".")[0] == "stepcredit" for word in sys.orig_argv)
    if sys.argv[:1] == ["-m"] and named and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]


_leave_out_working_folder()

from importlib import import_module  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from stepcredit.credit import (
        ADCA,
        GDPO,
        GOPD,
        GRPO,
        OPD,
        PASS,
        PRIME,
        PURE,
        RLOO,
        Credit,
        DrGRPO,
        Estimator,
        Explanation,
        Moments,
        PASSMin,
        ProcessGRPO,
        estimator,
        methods,
        register,
    )
    from stepcredit.data import (
        Advantages,
        RolloutFile,
        Rollouts,
        Steps,
        TokenAdvantages,
        Tokens,
        read_rollouts,
        read_rows,
        write_rollouts,
    )

__version__ = "0.1.0"

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
    "Advantages",
    "Credit",
    "DrGRPO",
    "Estimator",
    "Explanation",
    "Moments",
    "PASSMin",
    "ProcessGRPO",
    "RolloutFile",
    "Rollouts",
    "Steps",
    "TokenAdvantages",
    "Tokens",
    "estimator",
    "methods",
    "read_rollouts",
    "read_rows",
    "register",
    "write_rollouts",
]

_ROOMS = ("data", "credit")


def __getattr__(name: str) -> Any:
    """Load torch with the first name that needs it: the command line's help does not."""
    if name in _ROOMS:
        return import_module(f"stepcredit.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'stepcredit' has no attribute {name!r}")
    rooms = (import_module(f"stepcredit.{room}") for room in _ROOMS)
    room = next(room for room in rooms if name in room.__all__)
    globals()[name] = getattr(room, name)
    return globals()[name]


def __dir__() -> list[str]:
    return [*globals(), *__all__]
