"""The preflight of a run under verl: rows, rewards, signals and folders, before workers start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from inspect import iscoroutine
from typing import Any

from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.rl_dataset import RLHFDataset

from stepcredit.engines.preflight.context_lengths import prompt_ids_of
from stepcredit.engines.preflight.made_up_credit import CreditSources, check_scoring
from stepcredit.engines.preflight.made_up_responses import (
    OUTCOMES,
    TRIED_ROWS,
    made_up_ids,
    made_up_responses,
    right_text,
)
from stepcredit.engines.preflight.memory_estimate import ModelShape
from stepcredit.engines.preflight.memory_lines import memory_lines, memory_of_gpu
from stepcredit.engines.preflight.memory_plans import verl_plan
from stepcredit.engines.preflight.preflight_report import Preflight, first_rows
from stepcredit.engines.preflight.run_folders import check_folder_writable
from stepcredit.engines.preflight.server_pings import ping_servers
from stepcredit.engines.texts import question_of
from stepcredit.engines.verl.checkpoint_space import STRATEGIES, check_checkpoint_space
from stepcredit.engines.verl.config_checks import MANAGER, models_read
from stepcredit.engines.verl.config_keys import CONFIG_KEY, VerlSettings
from stepcredit.engines.verl.extras import reported_outcome
from stepcredit.engines.verl.reward_loop import dataset_facts
from stepcredit.signals.models.local_model import RunsModels

FOLDERS = (
    "trainer.default_local_dir",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
)
PLACES = {
    "process": f"{CONFIG_KEY}.process_signal",
    "method": f"{CONFIG_KEY}.method",
    "splitter": f"{CONFIG_KEY}.splitter",
    "states": f"{CONFIG_KEY}.states",
}
SINGLE_TURN = "single_turn_agent"
"""verl's agent loop that only samples: what it adds to a row is known."""
ADDED_INFO = {"num_turns": 2, "rollout_reward_scores": {}}
"""What verl's naive reward manager adds to `extra_info` after that loop."""


def check_run(
    found: Preflight,
    config: Any,
    settings: VerlSettings,
    tokenizer: Any,
    dataset: Any,
    *,
    load_worker_models: bool,
) -> list[str]:
    """Check all that a run needs but its config, which `check_config` checks.

    Args:
        found: gets the results.
        config: verl's.
        settings: those of its keys that could be built.
        tokenizer: the policy's; None: it has a fault.
        dataset: verl's training set; None: it has a fault.
        load_worker_models: whether signals are scored whose models otherwise only the reward
            workers load; they stay loaded as long as the settings live.

    Returns:
        Lines of the estimate of memory.
    """
    what = "rewards, signals and credit"
    unscored = {} if load_worker_models else _models_of_workers(settings)
    if tokenizer is None or not dataset:
        found.skip(what, "tokenizer or rows have a fault")
        ping_servers(found, settings.signals, f"{CONFIG_KEY}.process_signal")
    elif type(dataset) is not RLHFDataset:
        found.skip(what, "what a data set of your own class gives is known only in the run")
    else:
        rows = first_rows(dataset.dataframe, TRIED_ROWS)
        _check_made_up(found, config, settings, tokenizer, rows, unscored)
    _check_folders(found, config)
    _note_validation(found, config.data)
    if tokenizer is not None:
        return _check_policy(found, config)
    found.skip("lengths and disk space", "the policy has a fault")
    return []


def _models_of_workers(settings: VerlSettings) -> dict[str, str]:
    """Why a signal is not scored in the trainer's process, by stream."""
    return {
        name: "its model is loaded only by the reward workers"
        for name, signal in settings.scored_with_rewards.items()
        if any(isinstance(each, RunsModels) for each in signal.walk())
    }


def _check_made_up(
    found: Preflight,
    config: Any,
    settings: VerlSettings,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    unscored: Mapping[str, str],
) -> None:
    prompt_key, longest = str(config.data.prompt_key), int(config.data.max_response_length)
    template = dict(config.data.get("apply_chat_template_kwargs") or {})
    facts = [dataset_facts(row.get("reward_model"), row.get("extra_info")) for row in rows]
    ids = found.run(
        "tokens of the made-up responses",
        lambda: made_up_ids(tokenizer, facts[0], longest),
        at="actor_rollout_ref.model.path",
    )
    if ids is None:
        return
    texts = [*tokenizer.batch_decode(ids, skip_special_tokens=True), *map(right_text, facts[1:])]
    known = [facts[0]] * len(ids) + facts[1:]
    sources = [rows[0]] * len(ids) + list(rows[1:])
    outcomes = _outcomes(found, config, settings, texts, known, sources)
    formats = _rule(found, settings.format_reward, "format_reward", texts, known)
    responses = found.run(
        "the made-up responses as signals read them",
        lambda: made_up_responses(
            ids,
            tokenizer,
            question=question_of(rows[0][prompt_key], without=""),
            prompt_ids=prompt_ids_of(rows[0][prompt_key], tokenizer, **template),
            row=facts[0],
            outcomes=outcomes,
            logprobs=sorted(models_read(settings)),
        ),
        at="actor_rollout_ref.model.path",
    )
    if responses is not None:
        check_scoring(
            found,
            CreditSources(
                settings.estimator,
                settings.splitter,
                process={n: each for n, each in settings.signals.items() if n not in unscored},
                unscored=unscored,
                states=settings.states,
                places=PLACES,
            ),
            responses,
            outcomes=outcomes,
            formats=formats,
            format_ok=None if formats is None else list(map(settings.keeps_format, formats)),
        )


def _rule(
    found: Preflight, rule: Any, key: str, texts: Sequence[str], facts: Sequence[Mapping[str, Any]]
) -> list[float | None] | None:
    """What a reward of ours gives for the made-up responses; None: there is none, or a fault."""
    if rule is None:
        return None
    lenient = rule.for_training()
    values = found.run(f"{key} on the first rows", lambda: _known(lenient, texts, facts))
    return None if values is None else values[: len(OUTCOMES)]


def _known(
    rule: Any, texts: Sequence[str], facts: Sequence[Mapping[str, Any]]
) -> list[float | None]:
    """The rewards, None where the gold answer that the reward reads is null."""
    answer = str(getattr(rule, "answer", ""))
    return [
        None if answer in row and row[answer] is None else rule([text], [row])[0]
        for text, row in zip(texts, facts, strict=True)
    ]


def _outcomes(
    found: Preflight,
    config: Any,
    settings: VerlSettings,
    texts: Sequence[str],
    facts: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> list[float | None]:
    """The outcomes of the made-up responses; made-up ones where the reward has a fault."""
    if settings.outcome_reward is not None:
        given = _rule(found, settings.outcome_reward, f"{CONFIG_KEY}.outcome_reward", texts, facts)
        return given or list(OUTCOMES)
    why = _why_not_called(config, rows)
    if why is not None:
        found.skip("outcomes", why)
        return list(OUTCOMES)
    path = (config.reward.get("custom_reward_function") or {}).get("path")
    place = "reward.custom_reward_function" if path else "data.reward_fn_key"
    scored = found.run(
        "verl's reward function on the first rows",
        lambda: _scores(_reward_function(config), texts, rows),
        at=place,
    )
    return list(OUTCOMES) if scored is None else scored[: len(OUTCOMES)]


def _why_not_called(config: Any, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why the reward function can't be called as in the run; None: it can."""
    reward, manager = config.reward, config.reward.reward_manager
    default = config.actor_rollout_ref.rollout.agent.default_agent_loop
    loops = {str(row.get("agent_name", default)) for row in rows} - {SINGLE_TURN}
    if manager.source != "register" or manager.name not in ("naive", MANAGER):
        return f"the reward manager {manager.name} gives them"
    if loops:
        named = ", ".join(sorted(loops))
        return f"the agent loop {named} may give them, or facts that the reward function reads"
    if (reward.get("reward_model") or {}).get("enable"):
        return "verl's reward model, or a function that asks it, gives them"
    if (reward.get("sandbox_fusion") or {}).get("url"):
        return "the reward function runs code in a sandbox"
    return None


def _reward_function(config: Any) -> Callable[..., Any]:
    """The reward function of the config, or verl's own."""
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.reward_score import default_compute_score

    return get_custom_reward_fn(config) or default_compute_score


def _scores(
    function: Callable[..., Any], texts: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> list[float | None]:
    """What a reward function in verl's shape gives, called as verl's naive manager calls it.

    Raises:
        RolloutError: something that is no number.
        Exception: whatever the function raises.
    """
    outcomes: list[float | None] = []
    for text, source in zip(texts, rows, strict=True):
        row = deepcopy(dict(source))
        given = function(
            data_source=row.get("data_source"),
            solution_str=text,
            ground_truth=(row.get("reward_model") or {}).get("ground_truth"),
            extra_info={**(row.get("extra_info") or {}), **deepcopy(ADDED_INFO)},
        )
        if iscoroutine(given):
            given = asyncio.run(given)
        extras, score = (given, given.get("score")) if isinstance(given, dict) else ({}, given)
        outcomes.append(reported_outcome(extras, score))
    return outcomes


def _check_folders(found: Preflight, config: Any) -> None:
    for key in FOLDERS:
        folder = config.trainer.get(key.rpartition(".")[2])
        if folder is not None:
            found.run(f"{key} can be written", partial(check_folder_writable, str(folder), key))


def _check_policy(found: Preflight, config: Any) -> list[str]:
    """Lengths, the disk and the memory, by the policy's config as verl's workers load it."""
    policy = found.run(
        "the policy's config",
        lambda: omega_conf_to_dataclass(config.actor_rollout_ref.model).hf_config,
        at="actor_rollout_ref.model.path",
    )
    if policy is None:
        found.skip("lengths and disk space", "the policy has a fault")
        return []
    _check_lengths(found, config, policy)
    check_checkpoint_space(found, config, policy)
    if config.actor_rollout_ref.actor.strategy not in STRATEGIES:
        return ["memory: not estimated: it is known for FSDP alone"]

    def shape_of(_: str) -> ModelShape:
        return ModelShape.of(policy.get_text_config().to_dict())

    plan = partial(verl_plan, config, shape_of=shape_of, gpu_bytes=memory_of_gpu())
    return memory_lines(found, plan)


def _note_validation(found: Preflight, data: Any) -> None:
    """Note where each run is evaluated on rows of its own: verl draws them without a seed."""
    count = data.get("val_max_samples") or 0
    if count > 0 and data.get("shuffle") and data.get("seed") is None:
        said = f"verl draws {count} of them anew in each run, so that runs can't be compared"
        found.note("rows to evaluate on", f"{said}: set data.seed")


def _check_lengths(found: Preflight, config: Any, policy: Any) -> None:
    """Note where the context is too short: verl's samplers then end responses early."""
    prompt, response = int(config.data.max_prompt_length), int(config.data.max_response_length)
    own = getattr(policy.get_text_config(), "max_position_embeddings", None)
    context = config.actor_rollout_ref.rollout.get("max_model_len") or own
    if context is None or prompt + response <= context:
        found.run("lengths fit the context", lambda: f"{prompt} + {response} of {context}")
        return
    reason = f"verl's sampler has {context} tokens (rollout.max_model_len, or the policy's)"
    most = f"after a prompt of {prompt} it ends responses at {max(0, context - prompt)}"
    found.note("lengths", f"{reason}: {most}, not at {response}")
