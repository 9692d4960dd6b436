"""The preflight of a recipe: every fault of keys, rows, rewards and models, in one list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from datasets import Dataset
from transformers import AutoConfig

from stepcredit.credit.method_registry import METHODS
from stepcredit.engines.build import (
    SPLITTER_FIELDS,
    build_named,
    build_signals,
    check_states,
)
from stepcredit.engines.preflight.memory_lines import memory_lines
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.preflight.server_pings import ping_servers
from stepcredit.engines.run_record import Record, by_stream
from stepcredit.engines.trl.checkpointing import (
    check_best,
    check_other_checkpoints,
    check_resumed,
    check_saving,
)
from stepcredit.engines.trl.config import StepCreditConfig
from stepcredit.engines.trl.generation_file import check_no_rollouts
from stepcredit.engines.trl.keywords import credit_settings
from stepcredit.engines.trl.planned_run import PlannedRun, planned_record
from stepcredit.engines.trl.policy_logprobs import check_models, needed_models
from stepcredit.engines.trl.privileged_logprobs import trained_teacher
from stepcredit.engines.trl.reward_function import check_gold_answers
from stepcredit.engines.trl.run_limits import (
    check_output,
    check_policy_lengths,
    longest_prompt,
)
from stepcredit.engines.trl.signal_streams import check_sources, check_weights, unread_settings
from stepcredit.engines.trl.start_checks import (
    check_enough_rows,
    check_format_gate,
    check_reward_name,
    check_settings,
)
from stepcredit.engines.trl.start_preflight import check_made_up
from stepcredit.engines.trl.watch_callback import check_watch
from stepcredit.errors import SettingError, StepCreditError
from stepcredit.launch.recipe import KINDS, Recipe, names_of
from stepcredit.launch.recipe_fields import mapping_of
from stepcredit.launch.recipe_size import checkpoint_weights, recipe_plan, shares_weights
from stepcredit.launch.reward_functions import (
    NamedReward,
    check_facts,
    reward_functions,
    tag_format,
)
from stepcredit.signals.splitting import SPLITTERS


@dataclass
class Ingredients:
    """What the trainer of a recipe is made from; what a fault left out is None or empty.

    Args:
        recipe: the keys, checked; None: TRL refuses them.
        functions: the rewards.
        tokenizer: the policy's.
        rows, eval_rows: to train and to evaluate on.
        tools: the functions that the policy may call.
        credit: the trainer's keywords of credit, as objects.
        record: what credit is made of.
        sizes: lines of the estimate of memory and disk.
    """

    recipe: Recipe | None = None
    functions: list[NamedReward] = field(default_factory=list)
    tokenizer: Any = None
    rows: Dataset | None = None
    eval_rows: Dataset | None = None
    tools: Mapping[str, Any] = field(default_factory=dict)
    credit: dict[str, Any] | None = None
    record: Record | None = None
    sizes: list[str] = field(default_factory=list)


def checked_recipe(
    found: Preflight, values: Mapping[str, Any], notes: Sequence[str] = ()
) -> Recipe | None:
    """The keys as the dataclasses that check them, without the parts of credit that are refused.

    Args:
        found: gets a fault for each part that is refused.
        values: every key's value.
        notes: lines to print.

    Returns:
        The recipe; None: a set of keys is refused as a whole.
    """
    kept = _buildable(found, dict(values))
    parts: list[Any] = []
    for kind in KINDS:
        given = {name: kept[name] for name in names_of(kind)}
        parts.append(found.run(f"keys of {kind.__name__}", partial(kind, **given)))
    arguments, training, model = parts
    if arguments is None or training is None or model is None:
        found.skip("rows, rewards, signals and folders", "the keys have faults")
        return None
    return Recipe(arguments, training, model, tuple(notes))


def _buildable(found: Preflight, values: dict[str, Any]) -> dict[str, Any]:
    """The values, where a method, splitter or signal that can't be built is left out."""
    for name, registry, fields_key in (
        ("method", METHODS, "fields"),
        ("splitter", SPLITTERS, "splitter_fields"),
    ):
        if values.get(name) is None:
            continue
        build = partial(_build, registry, values, name, fields_key)
        if found.run(name, build) is None:
            values[name] = values[fields_key] = None
    for name in ("process_signal", "logprobs"):
        _keep_buildable_signals(found, values, name)
    return values


def _build(registry: Any, values: Mapping[str, Any], name: str, fields_key: str) -> Any:
    own = SPLITTER_FIELDS if name == "splitter" else {}
    given = {**own, **mapping_of(values[fields_key], fields_key)}
    return build_named(registry, values[name], given, name, fields_key)


def _keep_buildable_signals(found: Preflight, values: dict[str, Any], key: str) -> None:
    """Leave out of a key the signals that can't be built."""
    named, fields_key = values.get(key), f"{key}_fields"
    if isinstance(named, str) and named.startswith("{"):
        named = mapping_of(named, key)
    try:
        fields = mapping_of(values.get(fields_key), fields_key)
    except StepCreditError as error:
        found.refuse(key, error)
        values[key] = values[fields_key] = None
        return
    if not isinstance(named, Mapping):
        if found.run(key, lambda: build_signals(named, fields, key) or True) is None:
            values[key] = values[fields_key] = None
        return
    for stream in set(fields) - set(named):
        build = partial(build_signals, named, {stream: fields[stream]}, key)
        found.run(f"{key} {stream}", build)
    kept = {
        stream: name
        for stream, name in named.items()
        if found.run(
            f"{key} {stream}",
            partial(
                build_signals,
                {stream: name},
                {stream: fields[stream]} if stream in fields else None,
                key,
            ),
        )
        is not None
    }
    values[key] = kept or None
    values[fields_key] = {name: fields[name] for name in kept if name in fields} or None


def check_recipe(
    found: Preflight,
    recipe: Recipe,
    *,
    tokenizer_of: Callable[[Recipe], Any],
    rows_of: Callable[..., Dataset],
    tools_of: Callable[[Any], Mapping[str, Any]],
) -> Ingredients:
    """Run every check of a recipe, and make what its trainer is made from.

    Args:
        found: gets the results.
        recipe: the keys.
        tokenizer_of, rows_of, tools_of: load what the recipe names; the rows by the recipe, the
            tokenizer, "train" or "eval", and what the chat template gets beside the messages.
    """
    arguments, training = recipe.arguments, recipe.training
    made = Ingredients(recipe)
    if recipe.model.model_name_or_path is None:
        reason = "required: a folder or a name on the Hub"
        found.refuse("the policy", SettingError(reason, field="model_name_or_path"))
    else:
        made.tokenizer = found.run("the policy's tokenizer", lambda: tokenizer_of(recipe))
    made.functions = _functions(found, recipe)
    found.run("format_reward", lambda: tag_format(training, made.functions))
    made.tools = found.run("tools", lambda: tools_of(arguments.tools)) or {}
    _check_training(found, training, made)

    def rows(use: str) -> Dataset:
        return rows_of(recipe, made.tokenizer, use, **_template(made))

    made.rows = found.run("rows to train on", partial(rows, "train"))
    if training.eval_strategy != "no":
        made.eval_rows = found.run("rows to evaluate on", partial(rows, "eval"))
    good = _check_rows(found, made)
    made.credit = _credit_of(found, training)
    stops = made.credit is not None and any(bound.stops for bound in made.credit["watch"])
    found.run("checkpoints", lambda: check_saving(training, stops=stops))
    found.run("steps of the best model", lambda: check_best(training, _known_steps(training)))
    if made.credit is not None:
        _check_credit(found, made, good)
    _check_size(found, made)
    return made


def _credit_of(found: Preflight, training: StepCreditConfig) -> dict[str, Any] | None:
    """The trainer's keywords of credit; a fault in one of `SMALL` does not hide what else is wrong.

    Returns:
        None: the method, a signal or the rewards have a fault.
    """
    plain = copy(training)
    for name in SMALL:
        setattr(plain, name, None)
    credit = found.run("what credit is made of", lambda: credit_settings(plain, _NOTHING))
    if credit is None:
        return None
    for name in SMALL:
        if getattr(training, name) is not None:
            one = copy(plain)
            setattr(one, name, getattr(training, name))
            own = found.run(name, partial(credit_settings, one, _NOTHING))
            if own is None:
                found.left_out.add(name)
            else:
                credit[name] = own[name]
    return credit


def check_beginning(found: Preflight, made: Ingredients, checkpoint: str | None) -> None:
    """Refuse a run that would lose an earlier run's files, or go on from other credit than its own.

    Args:
        found: gets the results.
        made: of the recipe.
        checkpoint: from which it resumes; None: it begins anew.
    """
    assert made.recipe is not None
    training = made.recipe.training
    if checkpoint is None:
        found.run("checkpoints of earlier runs", lambda: check_other_checkpoints(training))
        if not resumes_if_it_can(training):  # else its files are moved aside
            found.run("rollouts of earlier runs", lambda: check_no_rollouts(training.rollouts_dir))
    elif made.record is not None:
        record = made.record
        found.run("credit of the checkpoint", lambda: check_resumed(checkpoint, record))


def resumes_if_it_can(training: StepCreditConfig) -> bool:
    """Whether the run resumes from the last checkpoint, and begins anew where there is none."""
    return str(training.resume_from_checkpoint).lower() == "auto"


def _known_steps(training: StepCreditConfig) -> Any:
    """The numbers of steps that a config gives; 0: they depend on how many rows there are."""
    given = {name: getattr(training, name) for name in ("max_steps", "eval_steps", "save_steps")}
    whole = {
        name: int(steps) if steps and steps >= 1 and steps == int(steps) else 0
        for name, steps in given.items()
    }
    return SimpleNamespace(**whole)


_NOTHING = dict.fromkeys(
    (
        *("method", "process_signal", "outcome_reward", "format_reward", "format_gate"),
        *("logprobs", "splitter", "states", "rollouts_dir", "right_above", "preflight"),
        *("judge_prices", "watch"),
    )
)


SMALL = ("states", "format_gate", "right_above", "judge_prices", "watch")
"""Settings of credit without which the others can be tried."""


def _functions(found: Preflight, recipe: Recipe) -> list[NamedReward]:
    """The rewards that can be built."""
    named: Any = recipe.arguments.rewards
    fields: Any = recipe.arguments.reward_fields
    if not named:
        reason = 'required, such as {"accuracy": "maths"}'
        found.refuse("rewards", SettingError(reason, field="rewards"))
        return []
    unknown = {name: given for name, given in fields.items() if name not in named}
    if unknown:
        found.run("rewards", lambda: reward_functions(dict(named), unknown))
    functions = []
    for name, rule in named.items():
        own = {name: fields[name]} if name in fields else {}
        built = found.run(f"reward {name}", partial(reward_functions, {name: rule}, own))
        functions += built or []
    return functions


def _check_training(found: Preflight, training: StepCreditConfig, made: Ingredients) -> None:
    """Settings of TRL under which token credit would be lost."""
    has_tools = bool(made.tools)
    found.run("TRL's settings", lambda: check_settings(training, has_tools=has_tools))
    names = list(made.recipe.arguments.rewards or {}) if made.recipe else []
    for setting in ("outcome_reward", "format_reward"):
        named = partial(check_reward_name, setting, getattr(training, setting), names)
        found.run(setting, named)


def _check_rows(found: Preflight, made: Ingredients) -> bool:
    """Check rows and rewards together; whether all rewards can be tried."""
    assert made.recipe is not None
    named: Any = made.recipe.arguments.rewards or {}
    if made.rows is None:
        found.skip("gold answers", "the rows have a fault")
        return False
    rows, training = made.rows, made.recipe.training
    found.run("enough rows", lambda: check_enough_rows(training, len(rows), "dataset_name"))
    before = len(found.errors)
    for each in made.functions:
        faults = len(found.errors)
        found.run(f"columns that {each.__name__} reads", partial(check_facts, [each], rows))
        if len(found.errors) == faults:
            found.run(f"gold answers of {each.__name__}", partial(check_gold_answers, [each], rows))
    chosen = {training.outcome_reward, training.format_reward} - {None}
    built = {each.__name__ for each in made.functions}
    return len(found.errors) == before and len(built) == len(named) and chosen <= built


def _check_credit(found: Preflight, made: Ingredients, good: bool) -> None:
    """Check that method, signals and log-probs fit together, then score made-up responses."""
    assert made.recipe is not None
    assert made.credit is not None
    credit, training = made.credit, made.recipe.training
    estimator, signal, logprobs = credit["method"], credit["process_signal"], credit["logprobs"]
    names = list(made.recipe.arguments.rewards or {})
    if credit["watch"]:
        prices = credit["judge_prices"]
        found.run("watch", lambda: check_watch(credit["watch"], signal, names, logprobs, prices))
    faults = len(found.errors)
    found.run("sources of streams", lambda: check_sources(signal, logprobs))
    if not found.faults or signal is not None:
        found.run("weights of streams", lambda: check_weights(estimator, signal))
    found.run("states", lambda: check_states(estimator, "method", given=credit["states"]))
    gate, format_reward = credit["format_gate"], credit["format_reward"]
    found.run("format_gate", lambda: check_format_gate(gate, format_reward))
    models = found.run("log-probs", lambda: needed_models(estimator, signal, logprobs))
    if models is not None:
        view = SimpleNamespace(
            beta=training.beta,
            mask_truncated_completions=training.mask_truncated_completions,
            temperature=training.temperature,
            process_signal=signal,
            logprobs=logprobs,
        )
        found.run("temperatures and references", lambda: check_models(view, models))
    teacher = found.run("self-teacher", lambda: [trained_teacher(signal)])
    for line in unread_settings(estimator, signal, logprobs, credit["format_reward"]):
        found.note("not read by the method", line)
    run = PlannedRun(
        estimator=estimator,
        reward_funcs={each.__name__: each for each in made.functions} if good else {},
        tokenizer=made.tokenizer,
        rows=made.rows or [],
        longest=training.max_completion_length or 0,
        trainer_models=[*(models or ()), *(["teacher"] if teacher and teacher[0] else [])],
        has_tools=bool(made.tools),
        num_generations=training.num_generations or 1,
        template=_template(made),
        **{name: credit[name] for name in _PLANNED},
    )
    made.record = planned_record(
        replace(run, reward_funcs=dict.fromkeys(names)), credit["right_above"]
    )
    if not training.preflight:
        found.skip("signals and credit", "preflight is false")
    elif len(found.errors) == faults and made.tokenizer is not None and made.rows is not None:
        check_made_up(found, run)
    else:
        unfit = "the method and its signals do not fit together"
        why = unfit if len(found.errors) > faults else "the tokenizer or the rows have a fault"
        found.skip("signals and credit", why)
        ping_servers(found, by_stream(signal), "process_signal")
        ping_servers(found, by_stream(logprobs), "logprobs")


_PLANNED = (
    *("process_signal", "logprobs", "outcome_reward", "format_reward"),
    *("format_gate", "splitter", "states"),
)


def _template(made: Ingredients) -> dict[str, Any]:
    """What TRL gives the chat template beside the messages."""
    assert made.recipe is not None
    given = made.recipe.training.chat_template_kwargs
    return {**made.tools, **mapping_of(given, "chat_template_kwargs")}


def _policy_config(name: str, recipe: Recipe) -> Any:
    """The policy's config, by the same revision and trust with which the policy is loaded."""
    given = mapping_of(recipe.training.model_init_kwargs, "model_init_kwargs")
    return AutoConfig.from_pretrained(
        name,
        revision=given.get("revision", recipe.model.model_revision),
        trust_remote_code=given.get("trust_remote_code", recipe.training.trust_remote_code),
    )


def _check_size(found: Preflight, made: Ingredients) -> None:
    """Folders, disk and lengths, and the estimate of memory."""
    assert made.recipe is not None
    recipe, training = made.recipe, made.recipe.training
    name, config = recipe.model.model_name_or_path, None
    if name is not None and made.tokenizer is not None:
        config = found.run(
            "the policy's config",
            lambda: _policy_config(name, recipe),
            at="model_name_or_path",
        )
    trusts = training.trust_remote_code
    weights = None if config is None else checkpoint_weights(config, recipe.model, trusts)
    check_output(found, training, weights)
    if config is None:
        return
    longest = recipe.arguments.max_prompt_length
    if longest is None and made.rows is not None:
        longest = longest_prompt(made.rows, made.tokenizer, **_template(made))
    check_policy_lengths(found, training, longest or 0, config)
    signal = None if made.credit is None else made.credit["process_signal"]
    plan = partial(recipe_plan, config, recipe, longest or 0, signal)
    made.sizes = memory_lines(found, plan)
    if not shares_weights(training):
        made.sizes.append(
            "  G is 1, because nothing shares the weights: start --check as the run, with "
            "`accelerate launch --config_file ...`, to count its processes"
        )
