"""The preflight of a run under verl: rows, rewards, signals and folders, before workers start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import iscoroutine
from numbers import Real
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from stepcredit.engines.preflight.made_up_credit import CreditSources, check_scoring
from stepcredit.engines.preflight.made_up_responses import (
    OUTCOMES,
    made_up_ids,
    made_up_responses,
    right_text,
)
from stepcredit.engines.preflight.preflight_report import Preflight, first_rows
from stepcredit.engines.preflight.run_folders import (
    check_disk,
    check_folder_writable,
    kept_checkpoints,
)
from stepcredit.engines.texts import question_of
from stepcredit.engines.verl.config_checks import models_read, own_agent_loop
from stepcredit.engines.verl.config_keys import CONFIG_KEY, VerlSettings
from stepcredit.engines.verl.reward_loop import dataset_facts
from stepcredit.errors import EngineError

TRIED_ROWS = 8
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


def check_run(
    found: Preflight, config: Any, settings: VerlSettings, tokenizer: Any, dataset: Any
) -> None:
    """Check all that a run needs but its config, which `check_config` checks.

    Args:
        found: gets the results.
        config: verl's.
        settings: those of its keys that could be built.
        tokenizer: the policy's; None: it has a fault.
        dataset: verl's training set; None: it has a fault.
    """
    table = getattr(dataset, "dataframe", None)
    rows = first_rows(table, TRIED_ROWS) if table is not None else []
    if tokenizer is None or not rows:
        found.skip("rewards, signals and credit", "tokenizer or rows have a fault")
    else:
        _check_made_up(found, config, settings, tokenizer, rows)
    _check_limits(found, config)


def _check_made_up(
    found: Preflight,
    config: Any,
    settings: VerlSettings,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    prompt_key, longest = str(config.data.prompt_key), int(config.data.max_response_length)
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
    prompt = rows[0][prompt_key]
    responses = found.run(
        "the made-up responses as signals read them",
        lambda: made_up_responses(
            ids,
            tokenizer,
            question=question_of(prompt, without=""),
            prompt_ids=_prompt_ids(prompt, tokenizer),
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
                process=dict(settings.signals),
                states=settings.states,
                places=PLACES,
            ),
            responses,
            outcomes=outcomes,
            formats=formats,
            format_ok=None if formats is None else list(map(settings.keeps_format, formats)),
        )


def _prompt_ids(prompt: Any, tokenizer: Any) -> list[int]:
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    text = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


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
    path = (config.reward.get("custom_reward_function") or {}).get("path")
    if path is None and (loop := own_agent_loop(config)) is not None:
        found.skip("outcomes", f"the agent loop {loop} may give them")
        return list(OUTCOMES)
    if (config.reward.get("reward_model") or {}).get("enable"):
        found.skip("outcomes", "verl's reward model gives them")
        return list(OUTCOMES)
    place = "reward.custom_reward_function" if path else "data.reward_fn_key"
    scored = found.run(
        "verl's reward function on the first rows",
        lambda: _scores(_reward_function(config), texts, rows),
        at=place,
    )
    return list(OUTCOMES) if scored is None else scored[: len(OUTCOMES)]


def _reward_function(config: Any) -> Callable[..., Any]:
    """The reward function of the config, or verl's own."""
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.reward_score import default_compute_score

    return get_custom_reward_fn(config) or default_compute_score


def _scores(
    function: Callable[..., Any], texts: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> list[float | None]:
    """What a reward function in verl's shape gives.

    Raises:
        EngineError: something that is no number.
        Exception: whatever the function raises.
    """
    found: list[float | None] = []
    for text, row in zip(texts, rows, strict=True):
        given = function(
            data_source=row.get("data_source"),
            solution_str=text,
            ground_truth=(row.get("reward_model") or {}).get("ground_truth"),
            extra_info=row.get("extra_info") or {},
        )
        if iscoroutine(given):
            given = asyncio.run(given)
        outcome = given.get("outcome", given.get("score")) if isinstance(given, Mapping) else given
        if not isinstance(outcome, Real | None):
            raise EngineError(f"gave {given!r}, expected a number, or a dict with a score")
        found.append(None if outcome is None else float(outcome))
    return found


def _check_limits(found: Preflight, config: Any) -> None:
    """Folders, lengths and the disk."""
    for key in FOLDERS:
        folder = config.trainer.get(key.rpartition(".")[2])
        if folder is not None:
            found.run(f"{key} can be written", partial(check_folder_writable, str(folder), key))
    path = os.path.expanduser(config.actor_rollout_ref.model.path)
    policy = found.run(
        "the policy's config",
        lambda: AutoConfig.from_pretrained(str(path)),
        at="actor_rollout_ref.model.path",
    )
    if policy is None:
        found.skip("lengths and disk space", "the policy has a fault")
        return
    found.run("lengths fit the model", lambda: _check_sum(config, policy))
    weights = _policy_bytes(policy)
    if weights is None:
        found.skip("disk space", "the size of the policy is not known")
        return
    trainer = config.trainer
    steps = trainer.get("total_training_steps")
    every = trainer.save_freq if trainer.save_freq > 0 else None
    kept = kept_checkpoints(steps, every, trainer.get("max_actor_ckpt_to_keep"))
    found.run(
        "disk space",
        lambda: check_disk(
            str(trainer.default_local_dir), weights, kept, "trainer.default_local_dir"
        ),
    )


def _check_sum(config: Any, policy: Any) -> str:
    prompt, response = int(config.data.max_prompt_length), int(config.data.max_response_length)
    limit = getattr(policy.get_text_config(), "max_position_embeddings", None)
    named = config.actor_rollout_ref.rollout.get("max_model_len")
    for what, most in (("the model", limit), ("rollout.max_model_len", named)):
        if most is not None and prompt + response > most:
            reason = f"{response} tokens after a prompt of {prompt} need {prompt + response}"
            raise EngineError(f"{reason}, {what} has {most}", field="data.max_response_length")
    return f"{prompt} + {response} of {limit}"


def _policy_bytes(config: Any) -> int | None:
    """Bytes of the policy's weights in float32, in which verl's FSDP trains and saves them."""
    try:
        with torch.device("meta"):
            policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception:  # of any architecture's own code
        return None
    return sum(each.numel() * each.element_size() for each in policy.parameters())
