"""Prompts without an answer: their outcomes are unknown from the reward loop to the advantage."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed: its tests have an environment apart")

from omegaconf import OmegaConf
from tensordict import TensorDict
from tokenizers import decoders
from verl import DataProto
from verl.trainer.ppo.metric_utils import process_validation_metrics
from verl.trainer.ppo.utils import create_rl_dataset

import stepcredit as sc
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.reward_manager import StepCreditRewardManager
from stepcredit.engines.verl.score_function import as_compute_score
from stepcredit.errors import EngineError, RolloutError
from stepcredit.rewards import reward

PREPARE = Path(__file__).resolve().parents[3] / "recipes" / "prepare.py"
TRUTH = Path(__file__).resolve().parents[2] / "signals" / "served" / "truth.py"
PURE = {
    "method": "pure",
    "fields": {"baseline": "per_token"},
    "process_signal": "equations",
    "splitter_fields": {"inside": "extend"},
    "outcome_reward": "maths",
    "outcome_reward_fields": {"unreadable": "text"},
}
RIGHT, WRONG = "2 + 3 = <<2+3=5>>5\n\n\\boxed{5}", "2 + 3 = <<2+3=6>>6\n\n\\boxed{6}"


def config(**given):
    """As much of verl's config as the manager reads."""
    reward = {"num_workers": 1, "custom_reward_function": {"path": None}}
    return OmegaConf.create({"algorithm": {"stepcredit": given}, "reward": reward})


@pytest.fixture(scope="module")
def tokenizer():
    """A token a character."""
    spec = importlib.util.spec_from_file_location("served_truth_of_outcomes", TRUTH)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.tokenizer()
    made.backend_tokenizer.decoder = decoders.Fuse()
    made.chat_template = "{% for turn in messages %}{{ turn.content }}{% endfor %}"
    return made


@pytest.fixture(scope="module")
def prepared(tokenizer, tmp_path_factory):
    """Ten problems as the recipe prepares them, one with its answer, as verl's data set reads."""
    folder = tmp_path_factory.mktemp("prepared")
    source, rows = folder / "source.json", folder / "rows.parquet"
    problem = {"problem": "2+3?", "solution": r"It is \boxed{5}.", "level": "Level 3"}
    source.write_text(json.dumps([problem] * 10))
    command = [sys.executable, str(PREPARE), "math", str(rows), "--source", str(source)]
    subprocess.run([*command, "--answers", "0.1"], check=True, timeout=200)
    keys = {"prompt_key": "prompt", "max_prompt_length": 200, "filter_overlong_prompts": False}
    keys |= {"cache_dir": str(folder), "return_raw_chat": True}
    with pytest.MonkeyPatch.context() as environment:
        environment.setattr("datasets.config.HF_DATASETS_CACHE", str(folder / "cache"))
        return list(create_rl_dataset([str(rows)], OmegaConf.create(keys), tokenizer, None))


def session(tokenizer, row, text, uid, number, training):
    """What verl's agent loop sends of a response to a row of the data set."""
    prompt, response = (
        torch.tensor(tokenizer(said, add_special_tokens=False)["input_ids"])
        for said in ("2+3?", text)
    )
    ids = torch.cat([prompt, response])[None]
    tensors = {"prompts": prompt[None], "responses": response[None], "input_ids": ids}
    batch = TensorDict({**tensors, "attention_mask": torch.ones_like(ids)}, batch_size=1)
    names = ("data_source", "reward_model", "extra_info", "raw_prompt")
    known = {name: row[name] for name in names} | {"uid": uid, "session_id": number}
    known |= {"prompt_len": len(prompt), "response_len": len(response)}
    known |= {"stepcredit_train": True} if training else {}
    arrays = {name: np.empty(1, dtype=object) for name in known}
    for name, value in known.items():
        arrays[name][0] = value
    return DataProto(batch=batch, non_tensor_batch=arrays)


def rewarded(tokenizer, rows, training=True):
    """A right and a wrong response to each row, as sent and as the manager rewards them."""
    sessions = [
        session(tokenizer, row, text, f"p{place}", number, training)
        for place, row in enumerate(rows)
        for number, text in enumerate((RIGHT, WRONG))
    ]

    async def all_at_once():
        manager = StepCreditRewardManager(config(**PURE), tokenizer, None)
        manager.loop = asyncio.get_running_loop()
        return await asyncio.gather(*map(manager.run_single, sessions))

    return sessions, asyncio.run(all_at_once())


def test_one_prompt_in_ten_has_an_outcome_and_all_have_process_rewards(
    tokenizer, prepared, made, monkeypatch
):
    seen = {}

    def scored(self, responses):
        seen.update((each.name, each.facts.get("outcome", "absent")) for each in responses)
        yield from ((row, [1.0] * len(r.step_ends)) for row, r in enumerate(responses))

    monkeypatch.setattr("stepcredit.signals.programs.checked.Equations.stream", scored)
    known = [row["reward_model"]["ground_truth"] is not None for row in prepared]
    assert sum(known) == 1
    sessions, found = rewarded(tokenizer, prepared)
    extras = [each["reward_extra_info"] for each in found]
    expected = [outcome if has else None for has in known for outcome in (1.0, 0.0)]
    assert [each["outcome"] for each in extras] == expected
    assert [each["reward_score"] for each in found] == [outcome or 0.0 for outcome in expected]
    assert {frozenset(each) for each in extras} == {frozenset(extras[0])}
    names = [f"response p{place}_{number}" for place in range(len(known)) for number in (0, 1)]
    told = ["absent" if outcome is None else outcome for outcome in expected]
    assert seen == dict(zip(names, told, strict=True))
    responses = [each.batch["responses"][0] for each in sessions]
    fields = {
        "uid": [each.non_tensor_batch["uid"][0] for each in sessions],
        "response_mask": made.nested([[1] * len(row) for row in responses], torch.int64),
        "rm_scores": made.nested(
            [
                [0.0] * (len(row) - 1) + [each["reward_score"]]
                for row, each in zip(responses, found, strict=True)
            ],
            torch.float32,
        ),
        "prompts": made.nested([[1]] * len(responses), torch.int64),
        "responses": made.nested([row.tolist() for row in responses], torch.int64),
        "extra_fields": [{"reward_extra_info": extra} for extra in extras],
    }
    keys = [f"{uid}_{place % 2}_0" for place, uid in enumerate(fields["uid"])]
    batch = QueuedBatch.of(fields, keys, [{}] * len(keys))
    settings = VerlSettings.of(config(**PURE))
    facts = [response.facts for response in batch.responses(tokenizer, settings.splitter)]
    assert [known.get("outcome", "absent") for known in facts] == [
        "absent" if outcome is None else outcome for outcome in expected
    ]
    credit = BatchCredit(batch, settings, tokenizer)
    assert credit.rollouts.has_outcome.tolist() == [has for has in known for _ in range(2)]
    figures = credit.metrics()
    assert all(np.isfinite(value) for value in figures.values())


def test_an_unknown_outcome_adds_nothing_and_a_told_one_goes_before_the_reward(made):
    outcomes = {"b7": [None] * 3, "a1": [0.25, 0.75, np.float32(0.25)]}
    told = {uid: iter(values) for uid, values in outcomes.items()}
    extras = [
        {**extra, "outcome": next(told[uid])}
        for uid, extra in zip(made.UIDS, made.step_extras(), strict=True)
    ]
    settings = VerlSettings.of(config(method="pure"))
    credit = BatchCredit(QueuedBatch.of(*made.queue(extras)), settings)
    expected = [extra["outcome"] for extra in extras]
    assert credit.batch.outcomes == expected
    plain = BatchCredit(QueuedBatch.of(*made.queue(made.step_extras())), settings)
    process = sc.PURE(outcome_weight=0.0)(plain.rollouts).ragged()
    for uid, row, alone in zip(made.UIDS, credit.advantages.ragged(), process, strict=True):
        assert torch.equal(row, alone) is (uid == "b7")


def test_part_of_a_group_unknown_and_an_outcome_that_is_no_number_are_told_by_key(made):
    first = [{"outcome": None}, *made.step_extras()[1:]]
    with pytest.raises(RolloutError) as caught:
        _ = BatchCredit(QueuedBatch.of(*made.queue(first)), VerlSettings.of(config())).rollouts
    reason = "unknown, but known for others of its group"
    assert str(caught.value) == f"response b7_0_0: outcome: {reason}"
    second = [*made.step_extras()[:1], {"outcome": "right"}, *made.step_extras()[2:]]
    with pytest.raises(RolloutError) as caught:
        _ = BatchCredit(QueuedBatch.of(*made.queue(second)), VerlSettings.of(config())).rollouts
    reason = "expected a number or null, got 'right'"
    assert str(caught.value) == f"response a1_1_0: outcome: {reason}"


def test_verls_own_advantage_of_an_unknown_outcome_is_refused(made):
    extras = [{**extra, "outcome": 1.0} for extra in made.step_extras()]
    extras[3]["outcome"] = None
    engine = [torch.ones(len(mask)) for mask in [*made.MASKS, [0], [0]]]
    batch = QueuedBatch.of(*made.queue(extras))
    with pytest.raises(EngineError) as caught:
        _ = BatchCredit(batch, VerlSettings.of(config()), engine=engine).rollouts
    reason = "verl's own advantage counts the unknown outcome of response a1_3_0 as 0; use grpo"
    assert str(caught.value) == f"algorithm.adv_estimator: {reason}"


def test_validation_averages_the_known_outcomes_and_counts_none_as_wrong(tokenizer, prepared):
    _, found = rewarded(tokenizer, prepared, training=False)
    extras = [each["reward_extra_info"] for each in found]
    assert {tuple(each) for each in extras} == {("score", "acc", "outcome")}
    told = {name: [each[name] for each in extras] for name in extras[0]}
    uids = [f"p{place // 2}" for place in range(len(found))]
    counts = {("math", uid): 2 for uid in uids}
    averages = process_validation_metrics(
        ["math"] * len(found), uids, told, expected_acc_counts=counts
    )
    assert averages["math"]["outcome"]["mean@2"] == 0.5
    assert np.isnan(averages["math"]["acc"]["mean@2"])


def test_a_reward_that_reads_no_answer_grades_rows_without_one():
    layout = as_compute_score(reward("format", template="boxed"))
    assert layout("math", r"\boxed{5}", None) == {"score": 1.0, "acc": 1.0, "outcome": 1.0}
