"""The reward manager on one event loop, as a worker of verl's reward loop runs it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
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
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
from verl.trainer.ppo.metric_utils import process_validation_metrics
from verl.trainer.ppo.reward import resolve_reward_manager_cls

from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.reward_manager import StepCreditRewardManager
from stepcredit.errors import EngineError

SERVED = Path(__file__).resolve().parents[2] / "signals" / "served"
TEXT = "1 + 1 = <<1+1=2>>2.\n\n2 + 2 = <<2+2=5>>5.\n\nSo \\boxed{5}"
ENDS = [TEXT.index("2 + 2") - 1, TEXT.index("So") - 1, len(TEXT)]
SCORES = [1.0, 0.0, 0.5]


def loaded(name):
    """A module of the served signals' tests: verl's wheel holds a package `tests` of its own."""
    spec = importlib.util.spec_from_file_location(f"served_{name}", SERVED / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


truth = loaded("truth")


@pytest.fixture(scope="module")
def tokenizer():
    """A token a character, and an end-of-text token."""
    made = truth.tokenizer()
    made.backend_tokenizer.decoder = decoders.Fuse()
    made.eos_token = "<|im_end|>"
    return made


def config(**given):
    """As much of verl's config as the manager reads."""
    reward = {"num_workers": 2, "custom_reward_function": {"path": None}}
    return OmegaConf.create({"algorithm": {"stepcredit": given}, "reward": reward})


def graded(data_source, solution_str, ground_truth, extra_info):
    """A reward function of the user's: with extras, as verl allows."""
    return {"score": float(ground_truth in solution_str), "acc": 1.0, "pred": solution_str[-2:]}


def sent(tokenizer, text, training=True, uid="u", session=0, **columns):
    """What verl's agent loop sends of one session with one output."""
    prompt = torch.tensor(tokenizer("How many?")["input_ids"])
    response = torch.tensor([*tokenizer(text)["input_ids"], tokenizer.eos_token_id])
    ids = torch.cat([prompt, response])[None]
    known = {
        "raw_prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "1?"}],
        "data_source": "sums",
        "reward_model": {"style": "rule", "ground_truth": "5"},
        "extra_info": {"level": 3},
        "uid": uid,
        "session_id": session,
        **({"stepcredit_train": True} if training else {}),
        **columns,
    }
    others = {
        "__num_turns__": np.array([2]),
        "tool_extra_fields": np.array([{"min_global_steps": 0}], dtype=object),
        "prompt_len": np.array([len(prompt)]),
        "response_len": np.array([len(response)]),
    }
    batch = TensorDict(
        {
            "prompts": prompt[None],
            "responses": response[None],
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
        },
        batch_size=1,
    )
    arrays = {name: np.array([value]) for name, value in known.items()}
    return DataProto(batch=batch, non_tensor_batch={**arrays, **others})


def rewarded(tokenizer, rows, compute_score=graded, **given):
    """Results of rows that come at once, as a reward loop worker's `compute_score` gives them."""

    async def all_at_once():
        manager = StepCreditRewardManager(config(**given), tokenizer, compute_score)
        manager.loop = asyncio.get_running_loop()
        return await asyncio.gather(*map(manager.run_single, rows))

    return asyncio.run(all_at_once())


@pytest.fixture(scope="module")
def server():
    """The misbehaving server of the served signals' tests, in a process of its own."""
    script = [sys.executable, str(SERVED / "server.py")]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        yield loaded("conftest").Misbehaving(f"http://127.0.0.1:{int(process.stdout.readline())}")
        process.kill()


def prm(server, tokenizer, folder, **fields):
    """The served reward model's keys."""
    tokenizer.save_pretrained(folder)
    known = {"url": server.url, "model": "prm", "tokenizer": str(folder), "backoff": 0.01}
    known |= {"protocol": "qwen2.5-math-prm", "timeout": 2.0, **fields}
    return {"process_signal": "prm-served", "process_signal_fields": known}


def in_characters():
    """The same response in characters, for the formulas of the served model."""
    steps = [TEXT[: ENDS[0] + 1], TEXT[ENDS[0] + 1 : ENDS[1] + 1], TEXT[ENDS[1] + 1 :]]
    return truth.response("1?", steps)


def test_it_is_found_by_name_and_by_module():
    manager = {"source": "register", "name": "stepcredit"}
    given = OmegaConf.create({"reward": {"reward_manager": manager}})
    assert resolve_reward_manager_cls(given) is StepCreditRewardManager
    assert get_reward_manager_cls("stepcredit") is StepCreditRewardManager
    module = {"path": "pkg://stepcredit.engines.verl.reward_manager"}
    by_path = {"source": "importlib", "name": "StepCreditRewardManager", "module": module}
    given = OmegaConf.create({"reward": {"reward_manager": by_path}})
    assert resolve_reward_manager_cls(given) is StepCreditRewardManager


def test_steps_are_scored_on_the_tokens_that_were_sampled(tokenizer):
    (found,) = rewarded(tokenizer, [sent(tokenizer, TEXT)], process_signal="equations")
    extras = found["reward_extra_info"]
    assert found["reward_score"] == 1.0
    cost = extras.pop("stepcredit_cost")
    assert cost["streams"]["process"]["seconds"] > 0
    assert cost["streams"]["process"]["usage"] is None
    assert str(os.getpid()) in cost["worker"]
    assert extras == {
        "score": 1.0,
        "acc": 1.0,
        "pred": "5}",
        "step_ends": ENDS,
        "step_scores": SCORES,
        "stepcredit_error": None,
    }


def test_outcome_and_format_of_ours(tokenizer):
    rows = [sent(tokenizer, TEXT), sent(tokenizer, "So 5", reward_model={"ground_truth": "7"})]
    right, wrong = rewarded(
        tokenizer,
        rows,
        compute_score=None,
        outcome_reward="exact",
        outcome_reward_fields={"read": "boxed"},
        format_reward="format",
        format_reward_fields={"template": "boxed"},
    )
    none = {"stepcredit_error": None}
    assert right["reward_score"] == 1.0
    told = {**dict.fromkeys(("score", "acc", "outcome"), 1.0), "format": 1.0, "format_ok": True}
    assert right["reward_extra_info"] == {**told, **none}
    assert wrong["reward_score"] == 0.0
    told = {**dict.fromkeys(("score", "acc", "outcome"), 0.0), "format": 0.0, "format_ok": False}
    assert wrong["reward_extra_info"] == {**told, **none}


def test_streams_of_several_names_and_grains(tokenizer):
    (found,) = rewarded(
        tokenizer,
        [sent(tokenizer, TEXT)],
        method="grpo-process",
        process_signal={"sums": "equations"},
        fields={"weights": {"outcome": 1.0, "sums": 1.0}},
    )
    extras = found["reward_extra_info"]
    assert extras["signals"] == {"sums": {"scores": SCORES, "ends": ENDS}}


def test_turns_are_left_to_the_trainer_which_knows_the_tools_tokens(tokenizer):
    given = {"process_signal": "equations", "splitter": "turns", "splitter_fields": {}}
    (found,) = rewarded(tokenizer, [sent(tokenizer, TEXT)], **given)
    assert set(found["reward_extra_info"]) == {"score", "acc", "pred", "stepcredit_error"}
    text = "1 + 1 = <<1+1=2>>2. <tool> 7 </tool> 2 + 2 = <<2+2=5>>5."
    ids, tool = tokenizer(text)["input_ids"], [text.index("<tool>"), text.index("2 + 2")]
    own = [int(not tool[0] <= place < tool[1]) for place in range(len(ids))]
    queued = {
        "uid": ["u"],
        "response_mask": torch.tensor([own]),
        "rm_scores": torch.zeros(1, len(ids)),
        "prompts": torch.tensor([tokenizer("1?")["input_ids"]]),
        "responses": torch.tensor([ids]),
    }
    batch = QueuedBatch.of(queued, ["u_0_0"], [{}])
    stream = BatchCredit(batch, VerlSettings.of(config(**given)), tokenizer).rollouts.streams[
        "process"
    ]
    assert stream.ends.tolist() == [tool[0] - 1, sum(own) - 1]
    assert stream.values.tolist() == [1.0, 0.0]


def test_validation_asks_no_signal_and_gives_what_verl_can_average(tokenizer, server, tmp_path):
    server.plan(setting={"step_tag_id": truth.TAG})
    rows = [sent(tokenizer, TEXT, training=False, session=i) for i in range(2)]

    def with_lists(**known):
        return {"score": 1.0, "acc": 1.0, "step_scores": [0.5, 1.0], "step_ends": [2, 3]}

    given = prm(server, tokenizer, tmp_path)
    found = rewarded(tokenizer, rows, with_lists, format_reward="format", **given)
    assert server.count()["requests"] == 0
    extras = [row["reward_extra_info"] for row in found]
    assert extras[0] == {"score": 1.0, "acc": 1.0, "format": 1.0, "format_ok": True}
    told = {name: [extra[name] for extra in extras] for name in extras[0]}
    averages = process_validation_metrics(["sums"] * 2, ["u"] * 2, told)
    assert averages["sums"]["format"]["mean@2"] == 1.0
    assert json.loads(json.dumps(extras)) == extras


def test_rows_that_come_at_once_are_asked_together_within_the_workers_share(
    tokenizer, server, tmp_path
):
    server.plan(setting={"step_tag_id": truth.TAG}, delay=0.05)
    rows = [sent(tokenizer, TEXT, session=i, uid=str(i)) for i in range(12)]
    found = rewarded(tokenizer, rows, **prm(server, tokenizer, tmp_path, concurrency=8))
    count = server.count()
    assert count["requests"] == 12
    assert count["most"] == 4
    expected = truth.step_scores(in_characters())
    for row in found:
        assert row["reward_extra_info"]["step_scores"] == pytest.approx(expected, abs=1e-12)
        assert row["reward_extra_info"]["step_ends"] == ENDS


def test_a_fault_of_the_server_is_asked_again(tokenizer, server, tmp_path):
    server.plan(setting={"step_tag_id": truth.TAG}, share=1.0, kinds=["error"])
    (found,) = rewarded(tokenizer, [sent(tokenizer, TEXT)], **prm(server, tokenizer, tmp_path))
    assert server.count()["requests"] == 2
    scores = found["reward_extra_info"]["step_scores"]
    assert scores == pytest.approx(truth.step_scores(in_characters()), abs=1e-12)


def test_a_server_that_fails_is_told_by_name_with_the_same_keys_and_no_scores(
    tokenizer, server, tmp_path
):
    server.plan(fail=[500, '{"error": "out of memory"}', {}])
    given = prm(server, tokenizer, tmp_path, attempts=2)
    (found,) = rewarded(tokenizer, [sent(tokenizer, TEXT)], **given)
    assert found["reward_score"] == 1.0
    extras = found["reward_extra_info"]
    assert (extras["step_ends"], extras["step_scores"]) == (None, None)
    reason = "HTTP 500: out of memory (attempt 2, the last)"
    assert extras["stepcredit_error"] == f"response u_0: {server.url}/pooling: {reason}"


def test_what_a_signal_raises_is_told_by_name_whatever_it_is(tokenizer, monkeypatch):
    def broken(self, responses):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("stepcredit.signals.programs.checked.Equations.stream", broken)
    (found,) = rewarded(tokenizer, [sent(tokenizer, TEXT)], process_signal="equations")
    told = found["reward_extra_info"]["stepcredit_error"]
    assert told == "response u_0: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    "given", [{"outcome_reward": "exact"}, {"format_reward": "format"}, {"splitter": "newline"}]
)
def test_what_a_reward_of_ours_or_the_splitter_raises_is_told_too(tokenizer, monkeypatch, given):
    def broken(self, *_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("stepcredit.rewards.exact.Exact.rewards", broken)
    monkeypatch.setattr("stepcredit.rewards.formats.Format.rewards", broken)
    monkeypatch.setattr("stepcredit.signals.splitting.Splitter.split", broken)
    own = None if "outcome_reward" in given else graded
    rows = [sent(tokenizer, TEXT)]
    (found,) = rewarded(tokenizer, rows, own, process_signal="equations", **given)
    told = found["reward_extra_info"]["stepcredit_error"]
    assert told == "response u_0: ZeroDivisionError: division by zero"


def test_what_the_users_own_reward_function_raises_is_left_to_verl(tokenizer):
    def broken(**known):
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        rewarded(tokenizer, [sent(tokenizer, TEXT)], broken, process_signal="equations")


def test_an_outcome_that_fails_is_not_a_number_and_told(tokenizer):
    rows = [sent(tokenizer, TEXT)]
    given = {"outcome_reward": "qa-joint", "process_signal": "equations"}
    (found,) = rewarded(tokenizer, rows, None, **given)
    assert np.isnan(found["reward_score"])
    extras = found["reward_extra_info"]
    reason = "supporting_facts: missing: the reward needs it"
    assert extras["stepcredit_error"] == f"response u_0: row 0: {reason}"
    assert (extras["step_ends"], extras["step_scores"]) == (None, None)


def test_an_outcome_that_fails_in_validation_is_not_averaged_as_wrong(tokenizer):
    rows = [sent(tokenizer, TEXT, training=False)]
    (found,) = rewarded(tokenizer, rows, None, outcome_reward="qa-joint")
    told = {name: [value] for name, value in found["reward_extra_info"].items()}
    averages = process_validation_metrics(
        ["sums"], ["u"], told, expected_acc_counts={("sums", "u"): 1}
    )
    assert np.isnan(averages["sums"]["acc"]["mean@1"])


def test_a_stream_that_the_reward_function_gives_too_is_told(tokenizer):
    def with_scores(**known):
        return {"score": 1.0, "step_scores": [0.5]}

    (found,) = rewarded(tokenizer, [sent(tokenizer, TEXT)], with_scores, process_signal="equations")
    told = found["reward_extra_info"]["stepcredit_error"]
    reason = "the reward function returns it too: only one of the two may"
    assert told == f"response u_0: step_scores: {reason}"


def test_the_gold_answer_is_the_ground_truth_whatever_else_the_row_calls_answer(
    tokenizer, monkeypatch
):
    seen = []

    def kept(self, responses):
        seen.extend(responses)
        yield from ((row, [0.0] * len(r.step_ends)) for row, r in enumerate(responses))

    monkeypatch.setattr("stepcredit.signals.programs.checked.Equations.stream", kept)
    worked = {"answer": "2 + 3 = 5 #### 5", "level": 3}  # as in verl's own GSM8K
    rewarded(tokenizer, [sent(tokenizer, TEXT, extra_info=worked)], process_signal="equations")
    rewarded(
        tokenizer,
        [sent(tokenizer, TEXT, extra_info={"answer": "5"}, reward_model={"ground_truth": None})],
        compute_score=lambda **known: 0.0,
        process_signal="equations",
    )
    assert [(one.facts["answer"], one.facts.get("level")) for one in seen] == [
        ("5", 3),
        ("5", None),
    ]


def test_two_outcomes_are_refused(tokenizer):
    given = config(outcome_reward="exact")
    given.reward.custom_reward_function.path = "mine.py"
    with pytest.raises(EngineError) as caught:
        StepCreditRewardManager(given, tokenizer, graded)
    reason = "reward.custom_reward_function.path=mine.py gives an outcome too: remove one"
    assert str(caught.value) == f"algorithm.stepcredit.outcome_reward: {reason}"
