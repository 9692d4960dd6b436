"""Import paths of release 0.1: each still works, with a warning that names the new one.

This module goes in the release that `stepcredit._deprecations` names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from operator import attrgetter
from types import FunctionType, ModuleType
from typing import Any, ParamSpec, TypeVar
from warnings import warn

from stepcredit._deprecations import NEXT_MINOR

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

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
    "engines.logged_rows": "logs.carried_columns",
    "engines.logs": "logs.conversion",
    "engines.named": "engines.build",
    "engines.trl.checks": "engines.trl.start_checks",
    "engines.trl.data": "launch.datasets",
    "engines.trl.logprobs": "engines.trl.policy_logprobs",
    "engines.trl.completion_logs": "logs.read_log",
    "engines.trl.logs": "logs.read_log",
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
    "engines.verl.generation_dumps": "logs.read_log",
    "engines.verl.logs": "logs.read_log",
    "engines.verl.rewards": "engines.verl.reward_manager",
    "engines.verl.rows": "engines.verl.reward_loop",
    "engines.verl.settings": "engines.verl.config_keys",
    "evals.pass_at_k": "evals.unbiased_pass_at_k",
    "lab.keys": "keys",
    "lab.plots": "lab.curves",
    "lab.settings": "lab.lab_settings",
    "lab.signals": "lab.simulated_prm",
    "lab.train": "lab.comparison",
    "rewards.adapters": "engines.trl.reward_function",
    "rewards.answers": "rewards.answer_kinds",
    "rewards.boxed": "rewards.extract",
    "rewards.files": "rewards.reward_file",
    "rewards.letters": "rewards.serving",
    "rewards.registry": "rewards.reward_registry",
    "rewards.spelling": "rewards.normalize",
    "rewards.support": "rewards.supporting_facts",
    "signals.answers": "signals.models.answer_progress",
    "signals.batching": "signals.models.batching",
    "signals.causal": "signals.models.causal",
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
    "signals.sampling": "signals.models.keyed_sampling",
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

RENAMED = {
    "cli.told:ended": "cli.output:report_error",
    "cli.told:refused": "cli.output:refuse",
    "cli.told:silence_output": "cli.output:discard_output",
    "cli.told:told_in_one_line": "cli.output:errors_to_stderr",
    "credit._arguments:number": "credit.theory.arguments:finite_number",
    "credit._arguments:whole": "credit.theory.arguments:positive_whole",
    "credit.baselines:ADCA": "credit.methods.adca:ADCA",
    "credit.baselines:GDPO": "credit.methods.gdpo:GDPO",
    "credit.baselines:ProcessGRPO": "credit.methods.grpo_process:ProcessGRPO",
    "credit.chunks:CHUNKERS": "credit.stages.chunker_registry:CHUNKERS",
    "credit.chunks:ETA": "credit.stages.chunkers:ETA",
    "credit.chunks:Signal": "credit.stages.chunks:LeadStream",
    "credit.chunks:change_points": "credit.stages.chunkers:change_points",
    "credit.chunks:chunker": "credit.stages.chunker_registry:chunker",
    "credit.chunks:delimiters": "credit.stages.chunkers:delimiters",
    "credit.chunks:group_runs": "credit.stages.chunkers:group_runs",
    "credit.chunks:runs": "credit.stages.chunkers:runs",
    "credit.chunks:sentences": "credit.stages.chunkers:sentences",
    "credit.chunks:sign_runs": "credit.stages.chunkers:sign_runs",
    "credit.chunks:steps": "credit.stages.chunkers:steps",
    "credit.chunks:tokens": "credit.stages.chunkers:tokens",
    "credit.chunks:windows": "credit.stages.chunkers:windows",
    "credit.estimator:BLOCK": "credit.blocks:SCORES_PER_BLOCK",
    "credit.estimator:group_of": "credit.stages.groups:Group.of",
    "credit.estimators:ABOUT_WEIGHTS": "credit.methods.fused:ABOUT_WEIGHTS",
    "credit.estimators:Fused": "credit.methods.fused:Fused",
    "credit.explain:explain": "credit.estimator:Estimator.explain",
    "credit.explain:literal": "credit.rich_table:literal",
    "credit.explain:plain": "credit.rich_table:table_lines",
    "credit.groups:IsEnd": "credit.stages.groups:Mask",
    "credit.logprobs:PRIME": "credit.methods.prime:PRIME",
    "credit.metrics:safe_name": "engines.verl.metric_names:safe_name",
    "credit.metrics.panel:safe_name": "engines.verl.metric_names:safe_name",
    "credit.metrics_signals:row_index": "data.forest:row_index",
    "credit.metrics_signals:segmentation": "credit.metrics.signal_statistics:step_boundaries",
    "credit.metrics_texts:check_rows": "credit.metrics.text_statistics:check_one_per_rollout",
    "credit.metrics_texts:share": "credit.metrics.text_statistics:fraction",
    "credit.streams:Table": "credit.stages.process_streams:DenseStream",
    "credit.streams:check_one_process": "credit.stages.process_streams:check_one_process",
    "credit.streams:gated": "credit.stages.fusion:gated_mask",
    "credit.streams:own_process": "credit.stages.process_streams:find_process_stream",
    "credit.streams:process_signals": "credit.stages.process_streams:process_signals",
    "credit.streams:process_streams": "credit.stages.fusion:weighted_streams",
    "credit.streams:table_of": "credit.stages.process_streams:dense_stream",
    "credit.streams:the_process": "credit.stages.process_streams:process_stream",
    "credit.streams:total_of": "credit.stages.fusion:sum_tables",
    "data.batches:Gathering": "data.files.batches:GroupBatcher",
    "data.batches:label_of": "data.files.batches:group_label",
    "data.checks:Signal": "data.files.rows:RowStream",
    "data.checks:show": "data.rules:shown",
    "data.inputs:Scalar": "data.inputs:RolloutValues",
    "data.inputs:Signals": "data.batch_streams:BatchStreams",
    "data.inputs:check_rows": "data.batch_streams:check_row_counts",
    "data.inputs:check_fit": "data.batch_streams:check_fit",
    "data.inputs:lengths_of": "data.batch_streams:trained_lengths",
    "data.inputs:mapping_of": "data.inputs:by_name",
    "data.inputs:scalar_of": "data.inputs:rollout_values",
    "data.inputs:segmentation": "data.inputs:step_ends_stream",
    "data.inputs:stream_on": "data.batch_streams:stream_on",
    "data.inputs:told_length": "data.batch_streams:implied_length",
    "data.parquet:with_columns": "data.files.parquet:replace_columns",
    "data.store:AT_ONCE": "data.files.score_store:KEYS_PER_QUERY",
    "data.store:FORM": "data.files.score_store:SCHEMA_VERSION",
    "data.store:MARK": "data.files.score_store:APPLICATION_ID",
    "data.store:PATIENCE": "data.files.sqlite_file:LOCK_TIMEOUT",
    "engines.logs:Columns": "logs.logged_response:RewardColumns",
    "engines.logs:Logged": "logs.logged_response:LoggedResponse",
    "engines.logs:carried": "logs.carried_columns:extra_columns",
    "engines.logs:files_in": "logs.log_files:files_of_log",
    "engines.logged_rows:RewardColumns": "logs.logged_response:RewardColumns",
    "engines.named:built": "engines.build:build_named",
    "engines.trl.checks:check_finite": "engines.trl.start_checks:check_advantages",
    "engines.trl.checks:check_rows": "engines.trl.start_checks:check_enough_rows",
    "engines.trl.data:with_columns": "launch.datasets:with_named_columns",
    "engines.trl.logprobs:rows_of": "engines.trl.policy_logprobs:as_lists",
    "engines.trl.logs:trl_completions": "logs.read_log:read_completion_logs",
    "engines.trl.pieces:Pieces": "launch.tiny_vocabulary:TinyVocabulary",
    "engines.trl.pieces:pieces_of": "launch.tiny_vocabulary:reward_pieces",
    "engines.trl.processes:Share": "engines.trl.distributed:RankData",
    "engines.trl.processes:gathered": "engines.trl.distributed:all_gather",
    "engines.trl.processes:joined": "engines.trl.distributed:concat_ranks",
    "engines.trl.responses:Asked": "engines.trl.generation:Generation",
    "engines.trl.responses:SampledBatch": "engines.trl.generation:Generation",
    "engines.trl.resume:updates_a_sampling": "engines.trl.checkpointing:updates_per_generation",
    "engines.trl.rollouts:Credited": "engines.trl.generation:Generation",
    "engines.trl.rollouts:rewards_of": "engines.trl.generation_file:rewards_by_name",
    "engines.trl.rollouts:rows_of": "engines.trl.generation_file:rollout_rows",
    "engines.trl.script:built": "launch.script:trainer_of_recipe",
    "engines.trl.script:main": "launch.script:train_from_flags",
    "engines.trl.script:train": "launch.script:train_and_save",
    "engines.trl.signals:ask": "engines.trl.signal_streams:scores_from",
    "engines.trl.signals:logprobs_of": "engines.trl.signal_streams:logprob_streams",
    "engines.trl.signals:process_of": "engines.trl.signal_streams:process_streams",
    "engines.trl.signals:streams_of": "engines.trl.signal_streams:policy_streams",
    "engines.trl.texts:decoded": "engines.trl.signal_streams:response_and_step_texts",
    "engines.trl.texts:token_texts": "engines.trl.signal_streams:policy_token_texts",
    "engines.trl.texts:turn_ends": "data.masking:turn_ends",
    "engines.trl.smoke:STILL": "launch.smoke:CPU_OVERRIDES",
    "engines.trl.smoke:smoked": "launch.smoke:for_smoke_test",
    "engines.trl.tiny:LEANING": "launch.tiny_models:OUTPUT_WEIGHT",
    "engines.trl.tiny:PRESENCE": "launch.tiny_models:KIND_SCALE",
    "engines.trl.tiny:spelled": "launch.tiny_models:byte_spelling",
    "engines.verl.checks:NEED_MORE": "engines.verl.config_checks:UNSUPPORTED_ESTIMATORS",
    "engines.verl.checks:QUEUE": "engines.verl.config_checks:QUEUE_FUNCTIONS",
    "engines.verl.checks:TESTED": "engines.verl.config_checks:TESTED_VERSIONS",
    "engines.verl.checks:check_hooks": "engines.verl.config_checks:check_trainer_hooks",
    "engines.verl.checks:check_loss": "engines.verl.config_checks:check_policy_loss",
    "engines.verl.checks:check_settings": "engines.verl.config_checks:check_config",
    "engines.verl.credit:Credit": "engines.verl.batch_credit:BatchCredit",
    "engines.verl.credit:told_streams": "engines.verl.extras:reported_streams",
    "engines.verl.gathering:Gathering": "engines.verl.async_batcher:AsyncBatcher",
    "engines.verl.logs:verl_rollouts": "logs.read_log:read_verl_dumps",
    "engines.verl.rows:ERROR": "engines.verl.extras:ERROR",
    "engines.verl.rows:graded": "engines.verl.score_function:as_compute_score",
    "engines.verl.rows:merged": "engines.verl.extras:merge_extras",
    "engines.verl.rows:numbers_alone": "engines.verl.extras:averageable",
    "engines.verl.rows:shared": "engines.verl.reward_loop:split_concurrency",
    "engines.verl.rows:told": "engines.verl.extras:score_extras",
    "engines.verl.rows:told_outcome": "engines.verl.extras:reported_outcome",
    "engines.verl.settings:ENGINE": "engines.verl.config_keys:ENGINE_STREAM",
    "engines.verl.settings:PLACE": "engines.verl.config_keys:CONFIG_KEY",
    "engines.verl.settings:logprobs_read": "signals.models.ratios:models_from_rows",
    "evals.pass_at_k:pass_at_k": "evals.unbiased_pass_at_k:pass_at_k",
    "lab.settings:TrainSettings": "lab.lab_settings:LabSettings",
    "lab.signals:filler_gap": "lab.simulated_prm:filler_minus_right",
    "rewards.adapters:completion_text": "engines.trl.reward_function:text_of_completion",
    "rewards.adapters:compute_score": "engines.verl.score_function:compute_score",
    "rewards.adapters:compute_score_async": "engines.verl.score_function:compute_score_async",
    "rewards.answers:base_of": "rewards.answer_kinds:answer_base",
    "rewards.answers:letter_of": "rewards.answer_kinds:answer_letter",
    "rewards.answers:option_of": "rewards.answer_kinds:answer_option",
    "rewards.answers:words_of": "rewards.answer_kinds:answer_words",
    "rewards.extract:last_box": "rewards.boxes:last_box",
    "rewards.spelling:spelled": "rewards.normalize:normalize_answer",
    "signals.causal:frozen_in_eval": "signals.models.causal:eval_mode",
    "signals.causal:is_model": "signals.models.checkpoints:is_model",
    "signals.checkpoints:SPARING": "signals.models.checkpoints:FSDP_LOADING_ENV",
    "signals.checkpoints:label_of": "signals.models.checkpoints:model_label",
    "signals.checkpoints:within_memory": "signals.models.checkpoints:oom_as_signal_error",
    "signals.contexts:reading": "signals.models.contexts:reads_field",
    "signals.equations:spelled_plainly": "signals.programs.plain_spelling:spelled_plainly",
    "signals.equations:written_equations": "signals.programs.written_sums:written_equations",
    "signals.files:Laid": "signals.score_file:PreparedRow",
    "signals.prm.protocol:built": "prm.protocol:build_protocol",
    "signals.prm.reading:Reading": "prm.model_input:ModelInput",
    "signals.prm.reading:plain": "prm.model_input:token_ids",
    "signals.prm:Reading": "prm:ModelInput",
    "signals.ratios:side": "signals.models.ratios:model_field",
    "signals.ratios:sides_in_rows": "signals.models.ratios:models_from_rows",
    "signals.sampling:seed_of": "signals.models.keyed_sampling:draw_seed",
    "signals.served.prompt_logprobs:Told": "signals.served.prompt_logprobs:TokenLogprob",
    "signals.served.base:MAX_BODY": "signals.served.server:MAX_BODY",
    "signals.signal:Scored": "signals.signal:IndexedScores",
    "signals.signal:gathered": "signals.signal:in_order",
    "signals.signal:joined": "signals.signal:concat",
    "signals.training.evaluating:Scored": "prm.judging.judged_files:Progress",
    "signals.training.formats:Reading": "prm.labelled.label_fields:LabelOptions",
    "signals.training.judge:judge": "prm.judging.evaluation:judge_scores",
    "signals.training.reading:Read": "prm.labelled.labelled_file:LabelledFile",
    "signals.training.rows:described": "prm.labelled.labelled_rows:row_counts",
    "signals.training.settings:TrainSettings": "prm.training.train_settings:PRMTrainSettings",
    "signals.training.train:TrainSettings": "prm.training.train_settings:PRMTrainSettings",
    "signals.training:Reading": "prm.training:LabelOptions",
    "signals.training:TrainSettings": "prm.training:PRMTrainSettings",
    "signals.training:judge": "prm.training:judge_scores",
}
"""Old names of functions and classes ("module:name"), where the name or its module changed."""


class MovedModules(MetaPathFinder, Loader):
    """Imports a module under its old name; every access to it leads to the new module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a stand-in module for each old name; None for any other name."""
        room, _, name = fullname.partition(".")
        if room != "stepcredit" or name not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Let the module's attributes be read from the new module."""
        old = module.__name__.partition(".")[2]

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return moved(old, name, MOVED[old])

        vars(module)["__getattr__"] = attribute
        _keep_function(module.__name__)


class KeepsFunctions(ModuleType):
    """A package in which the import of an old module hides no function of the same name.

    The import system sets every imported module as an attribute of its package. So `import
    stepcredit.evals.pass_at_k` would put a module in the place of the function `pass_at_k`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and _is_function(self, name)):
            super().__setattr__(name, value)


def _is_function(package: ModuleType, name: str) -> bool:
    """Whether a package has, or had, a function of this name."""
    is_renamed = f"{package.__name__.partition('.')[2]}:{name}" in RENAMED
    return is_renamed or isinstance(vars(package).get(name), FunctionType)


def _keep_function(module: str) -> None:
    """Let the package of an old module keep its function of that name, if it has one."""
    package, _, name = module.rpartition(".")
    if _is_function(sys.modules[package], name):
        sys.modules[package].__class__ = KeepsFunctions


def moved(old: str, name: str, new: str) -> Any:
    """The object that was `stepcredit.OLD.NAME`, from its new place, with a warning.

    Args:
        old: the old module, without "stepcredit.".
        name: the name that is looked up.
        new: the new module, for a name that `RENAMED` does not have.

    Raises:
        AttributeError: there is no such name.
    """
    new_module, _, new_name = RENAMED.get(f"{old}:{name}", f"{new}:{name}").partition(":")
    found = attrgetter(new_name)(import_module(f"stepcredit.{new_module}"))
    place = f"stepcredit.{new_module}.{new_name}"
    reason = f"stepcredit.{old}.{name} is now {place}; the old name goes in {NEXT_MINOR}"
    warn(reason, DeprecationWarning, stacklevel=3)
    return found


def renamed(module: str, name: str) -> Any:
    """The object that had the old name `name` in a module that still exists.

    Such a module has the line `__getattr__ = partial(renamed, __name__)`.

    Args:
        module: the module's full name.
        name: an old name.

    Raises:
        AttributeError: the module never had this name.
    """
    old = module.partition(".")[2]
    if f"{old}:{name}" not in RENAMED:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return moved(old, name, old)


def also_callable(module: str, function: str) -> None:
    """Let a module be called as the function that had its name in the package above.

    `from stepcredit.signals import signal` once gave a function; now it gives the module.

    Args:
        module: its full name.
        function: the name of the function in `stepcredit`.
    """

    class CallableModule(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Call the function, with a warning."""
            warn(f"{module} is a module: call sc.{function}", DeprecationWarning, stacklevel=2)
            return getattr(import_module("stepcredit"), function)(*args, **kwargs)

    sys.modules[module].__class__ = CallableModule


def reads_old_keyword(
    old: str, new: str
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """A decorator for a function that still takes a keyword argument under its old name.

    Args:
        old: the old name; its use warns.
        new: the new name.

    Example:
        >>> import warnings
        >>> double = reads_old_keyword("value", "number")(lambda number: 2 * number)
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     double(value=3)
        6
        >>> print(caught[0].message)
        <lambda>: the argument value is now number
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            if old in kwargs:
                reason = f"{function.__name__}: the argument {old} is now {new}"
                if new in kwargs:
                    raise TypeError(f"{reason}; give one of the two")
                warn(reason, DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def install() -> None:
    """Let old module names be imported; a module that exists comes first."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
