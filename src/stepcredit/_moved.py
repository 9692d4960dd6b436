"""Import paths of release 0.1: each still works, with a warning that names the new one.

This module goes with the next release.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from operator import attrgetter
from types import ModuleType
from typing import Any
from warnings import warn

MOVED = {
    "cli.agreement": "credit.metrics.agreement",
    "cli.streams": "cli.standard_streams",
    "cli.told": "cli.output",
    "credit._arguments": "credit.theory.arguments",
    "credit.baselines": "credit.methods.grpo",
    "credit.batch_norm": "credit.stages.batch_norm",
    "credit.bounds": "credit.theory.min_form_errors",
    "credit.change_points": "credit.stages.segmentation",
    "credit.chunks": "credit.stages.chunks",
    "credit.estimators": "credit.methods.pass_",
    "credit.explain": "credit.explanation",
    "credit.groups": "credit.stages.groups",
    "credit.logprobs": "credit.methods.distillation",
    "credit.metrics_advantages": "credit.metrics.advantage_statistics",
    "credit.metrics_signals": "credit.metrics.signal_statistics",
    "credit.metrics_texts": "credit.metrics.text_statistics",
    "credit.pass_min": "credit.methods.pass_min",
    "credit.pooling": "credit.stages.pooling",
    "credit.pure": "credit.methods.pure",
    "credit.registry": "credit.method_registry",
    "credit.returns": "credit.stages.returns",
    "credit.streams": "credit.stages.fusion",
    "data.atomic": "data.files.atomic",
    "data.batches": "data.files.batches",
    "data.checks": "data.files.rows",
    "data.columns": "data.files.columns",
    "data.faults": "data.files.faults",
    "data.footer": "data.files.footer",
    "data.jsonlines": "data.files.jsonl",
    "data.limits": "data.files.limits",
    "data.parquet": "data.files.parquet",
    "data.reading": "data.files.reading",
    "data.results": "data.files.results",
    "data.source": "data.files.lines",
    "data.splice": "data.files.splice",
    "data.spool": "data.files.spool",
    "data.store": "data.files.score_store",
    "data.writing": "data.files.writing",
    "engines.logs": "engines.logged_rows",
    "engines.named": "engines.build",
    "engines.trl.checks": "engines.trl.start_checks",
    "engines.trl.data": "launch.datasets",
    "engines.trl.logprobs": "engines.trl.policy_logprobs",
    "engines.trl.logs": "engines.trl.completion_logs",
    "engines.trl.pieces": "launch.tiny_vocabulary",
    "engines.trl.processes": "engines.trl.distributed",
    "engines.trl.responses": "engines.trl.generation",
    "engines.trl.texts": "engines.trl.signal_streams",
    "engines.trl.recipe": "launch.recipe",
    "engines.trl.resume": "engines.trl.checkpointing",
    "engines.trl.rewards": "launch.reward_functions",
    "engines.trl.rollouts": "engines.trl.generation_file",
    "engines.trl.script": "launch.script",
    "engines.trl.shown": "engines.trl.model_card",
    "engines.trl.signals": "engines.trl.signal_streams",
    "engines.trl.smoke": "launch.smoke",
    "engines.trl.tiny": "launch.tiny_models",
    "engines.verl.checks": "engines.verl.config_checks",
    "engines.verl.credit": "engines.verl.batch_credit",
    "engines.verl.estimators": "engines.verl.outcome_estimators",
    "engines.verl.gathering": "engines.verl.async_batcher",
    "engines.verl.logs": "engines.verl.generation_dumps",
    "engines.verl.rewards": "engines.verl.reward_manager",
    "engines.verl.rows": "engines.verl.reward_loop",
    "engines.verl.settings": "engines.verl.config_keys",
    "lab.plots": "lab.curves",
    "lab.settings": "lab.lab_settings",
    "lab.signals": "lab.simulated_prm",
    "lab.train": "lab.comparison",
    "rewards.answers": "rewards.answer_kinds",
    "rewards.boxed": "rewards.extract",
    "rewards.files": "rewards.reward_file",
    "rewards.registry": "rewards.reward_registry",
    "rewards.spelling": "rewards.normalize",
    "rewards.support": "rewards.supporting_facts",
    "signals.answers": "signals.models.answer_progress",
    "signals.batching": "signals.models.batching",
    "signals.causal": "signals.models.causal",
    "signals.chat": "signals.models.chat",
    "signals.checkpoints": "signals.models.checkpoints",
    "signals.completers": "signals.models.completers",
    "signals.contexts": "signals.models.contexts",
    "signals.distillation": "signals.models.ratios",
    "signals.equations": "signals.programs.equations",
    "signals.files": "signals.score_file",
    "signals.functions": "signals.programs.functions",
    "signals.gsm8k": "signals.programs.gsm8k",
    "signals.hops": "signals.programs.hops",
    "signals.implicit": "signals.models.ratios",
    "signals.logprobs": "signals.models.teacher_forcing",
    "signals.monte_carlo": "signals.models.monte_carlo",
    "signals.prefixes": "signals.programs.prefixes",
    "signals.prm": "prm",
    "signals.prm.heads": "prm.heads",
    "signals.prm.loading": "prm.loading",
    "signals.prm.local": "prm.local",
    "signals.prm.protocol": "prm.protocol",
    "signals.prm.protocols": "prm.published_protocols",
    "signals.prm.reading": "prm.model_input",
    "signals.ratios": "signals.models.ratios",
    "signals.registry": "signals.signal_registry",
    "signals.rows": "signals.row_scores",
    "signals.sampling": "signals.models.sampling",
    "signals.served.base": "signals.served.served_signal",
    "signals.served.faults": "signals.served.failures",
    "signals.served.judge": "signals.served.llm_judge",
    "signals.served.logprobs": "signals.served.teacher",
    "signals.served.pooling": "prm.served_prm",
    "signals.served.reading": "signals.served.answers",
    "signals.training": "prm.training",
    "signals.training.evaluating": "prm.judging.judged_files",
    "signals.training.examples": "prm.training.examples",
    "signals.training.fitting": "prm.training.fitting",
    "signals.training.formats": "prm.labelled.label_formats",
    "signals.training.judge": "prm.judging.evaluation",
    "signals.training.metrics": "prm.judging.step_metrics",
    "signals.training.plots": "prm.judging.judgement_plots",
    "signals.training.reading": "prm.labelled.labelled_file",
    "signals.training.rows": "prm.labelled.labelled_rows",
    "signals.training.settings": "prm.training.train_settings",
    "signals.training.train": "prm.training.pipeline",
    "signals.tree_attention": "signals.models.tree_attention",
    "signals.vocabulary": "signals.models.vocabulary",
}
"""Modules by their old name, with the module that most of their contents went to."""

RENAMED: dict[str, str] = {}
"""Old names of functions and classes ("module:name"), where the name or its module changed."""


class MovedModules(MetaPathFinder, Loader):
    """Finds a module under its old name: one that passes every access on to the new module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A module of our own for each old name; None for every other."""
        room, _, name = fullname.partition(".")
        if room != "stepcredit" or name not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its access to the new one."""
        old = module.__name__.partition(".")[2]

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return moved(old, name, MOVED[old])

        vars(module)["__getattr__"] = attribute


def moved(old: str, name: str, new: str) -> Any:
    """What was `stepcredit.OLD.NAME`, from the place where it is now; it warns of the change.

    Args:
        old: the old module, without "stepcredit.".
        name: the name asked for.
        new: the new module, for a name that `RENAMED` does not have.

    Raises:
        AttributeError: there is no such name.
    """
    new_module, _, new_name = RENAMED.get(f"{old}:{name}", f"{new}:{name}").partition(":")
    found = attrgetter(new_name)(import_module(f"stepcredit.{new_module}"))
    place = f"stepcredit.{new_module}.{new_name}"
    warn(f"stepcredit.{old}.{name} is now {place}", DeprecationWarning, stacklevel=3)
    return found


def renamed(module: str, name: str) -> Any:
    """What `name` was in a module that still exists; for a module's own `__getattr__`.

    Args:
        module: the module's full name.
        name: an old name.

    Raises:
        AttributeError: there was no such name.
    """
    old = module.partition(".")[2]
    if f"{old}:{name}" not in RENAMED:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return moved(old, name, old)


def also_callable(module: str, function: str) -> None:
    """Let a module be called as the function that had its name in the package above.

    `from stepcredit.signals import signal` gave a function and now gives the module of that name.

    Args:
        module: its full name.
        function: what it was, as a name of `stepcredit`.
    """

    class Callable(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """The function, with a warning."""
            warn(f"{module} is a module: call sc.{function}", DeprecationWarning, stacklevel=2)
            return getattr(import_module("stepcredit"), function)(*args, **kwargs)

    sys.modules[module].__class__ = Callable


def install() -> None:
    """Let old names be found, after every module that exists."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
