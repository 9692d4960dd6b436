"""What verl loads of stepcredit: the rest is registered when the part of verl it belongs to loads.

verl loads its plugins at the end of `import verl`, in every process of a cluster, servers of models
too. The trainer would make that import two seconds slower and 150 MB larger; so it waits until
verl's own trainers are imported, as do the estimators and the reward manager. A part that fails is
told of in the log, where verl would hide it, and lets those who don't use it go on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

logger = logging.getLogger(__name__)

OURS = "stepcredit.engines.verl"
PARTS = {
    "verl.trainer.ppo.core_algos": (
        "stepcredit.engines.verl.outcome_estimators",
        "register_estimators",
    ),
    "verl.trainer.ppo.v1": (f"{OURS}.trainer", None),
    "verl.experimental.reward_loop.reward_manager": (
        "stepcredit.engines.verl.reward_manager",
        None,
    ),
}
"""For each module of verl that registers such things: our module, and its function that registers
ours where its import alone does not."""


class AfterImport(MetaPathFinder):
    """Has our part registered when a module of verl was imported; finds nothing itself."""

    def __init__(self) -> None:
        self._asking: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module as it is found without us, with our registration after its execution."""
        if name not in PARTS or name in self._asking:
            return None
        self._asking.add(name)
        try:
            spec = find_spec(name)
        finally:
            self._asking.discard(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            registered(name)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def registered(name: str) -> None:
    """Register our part of a module of verl; a failure is logged.

    Args:
        name: verl's module.
    """
    ours, function = PARTS[name]
    try:
        module = import_module(ours)
        if function is not None:
            getattr(module, function)()
    except Exception as error:
        kind = type(error).__name__
        logger.warning("stepcredit can't be used in verl: %s: %s: %s", ours, kind, error)


def install() -> None:
    """Wait for verl's modules; register at once where one is there already."""
    if not any(isinstance(finder, AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, AfterImport())
    for name in PARTS:
        if name in sys.modules:
            registered(name)


install()
