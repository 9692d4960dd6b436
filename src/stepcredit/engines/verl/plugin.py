"""The plugin that verl loads: it registers trainer, estimators and reward manager when needed.

verl loads its plugins at the end of `import verl`, in every process of a cluster, model servers
included. Importing the trainer there would take two more seconds and 150 MB. So each part is
registered only after the module of verl that it belongs to is imported. If a part fails to import,
the error is logged (verl would hide it) and the other parts keep working.
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
    "verl.trainer.ppo.core_algos": (f"{OURS}.outcome_estimators", "register_estimators"),
    "verl.trainer.ppo.v1": (f"{OURS}.trainer", None),
    "verl.experimental.separation.ray_trainer": (
        f"{OURS}.experimental_trainers",
        "guard_experimental_trainers",
    ),
    "verl.experimental.reward_loop.reward_manager": (f"{OURS}.reward_manager", None),
}
"""For each module of verl with a registry: our module, and the function in it that registers our
part; None if the import registers it."""


class AfterImport(MetaPathFinder):
    """An import hook that registers our part after a module of verl is imported."""

    def __init__(self) -> None:
        self._searching: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's usual spec, extended to register our part after the module is executed."""
        if name not in PARTS or name in self._searching:
            return None
        self._searching.add(name)
        try:
            spec = find_spec(name)
        finally:
            self._searching.discard(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register_part(name)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_part(name: str) -> None:
    """Register our part for a module of verl; an error is logged.

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


def install_import_hook() -> None:
    """Install the import hook, and register parts whose module of verl is imported already."""
    if not any(isinstance(finder, AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, AfterImport())
    for name in PARTS:
        if name in sys.modules:
            register_part(name)


install_import_hook()
