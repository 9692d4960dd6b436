"""Setups in which TRL trains: LoRA, vLLM's samples, each token-level loss; and what it shows."""

from __future__ import annotations

import pandas
import pytest
import torch
from datasets import Dataset
from tests.engines.trl.conftest import TINY, gradient

import stepcredit as sc
from stepcredit.lab.arithmetic import problems
from stepcredit.lab.model import build_model
from stepcredit.signals.models.teacher_forcing import LocalLogProbs

LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "sapo", "cispo", "vespo"]
EVEN = {"vespo_k_neg": 2.0, "vespo_lambda_neg": 3.0}


@pytest.mark.parametrize("loss", LOSSES)
def test_each_token_level_loss_follows_single_tokens(make_trainer, seen, loss):
    """A token's advantage alone moves the weights as that token's log-prob does, and no other."""
    even = EVEN if loss == "vespo" else {}
    args = {"max_steps": 2, "steps_per_generation": 1, "loss_type": loss, "learning_rate": 0.0}
    trainer = make_trainer(args={**args, **even, "per_device_train_batch_size": 4})
    trainer.train()
    inputs = seen[-1]
    one = torch.zeros_like(inputs["advantages"])
    row, place = inputs["completion_mask"].nonzero()[5].tolist()
    one[row, place] = 1.0
    found = gradient(trainer, inputs, advantages=one)
    trainer.model.zero_grad()
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    width = inputs["completion_ids"].shape[1]
    logps, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width)
    logps[row, place].backward()
    alone = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    assert float(alone.abs().max()) > 0
    assert torch.nn.functional.cosine_similarity(found, -alone, dim=0) > 0.9999


class Recorder:
    """In place of TRL's vLLM class: it keeps its settings, and samples what it is told."""

    last = None

    def __init__(self, **settings):
        self.settings, self.synced, self.sampled = settings, 0, []
        Recorder.last = self

    def sync_weights(self):
        self.synced += 1

    def generate(self, prompts, images, num_generations, profiler):
        ids = [[(row + place) % 10 for place in range(4 + row % 3)] for row in range(len(prompts))]
        self.sampled.append(ids)
        logps = [[[-0.5 - 0.25 * (place % 2)] for place in range(len(own))] for own in ids]
        return prompts, ids, logps, None


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", Recorder)
    monkeypatch.setattr("trl.trainer.grpo_trainer.is_vllm_available", lambda: True, raising=False)
    return Recorder


@pytest.mark.parametrize("mode", ["token_truncate", "sequence_mask"])
def test_vllm_gets_its_settings_and_its_ratio_reaches_the_loss(make_trainer, seen, vllm, mode):
    args = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.37,
        "vllm_max_model_length": 99,
        "vllm_importance_sampling_mode": mode,
        "vllm_importance_sampling_clip_max": 2.5,
        "temperature": 0.8,
        "max_steps": 2,
    }
    trainer = make_trainer(args=args)
    trainer.train()
    settings = vllm.last.settings
    assert settings["mode"] == "colocate"
    assert settings["gpu_memory_utilization"] == 0.37
    assert (settings["max_model_length"], settings["temperature"]) == (99, 0.8)
    assert vllm.last.synced == 1
    batch = trainer.credited
    assert batch.completion_ids == vllm.last.sampled[0]
    for inputs in seen:
        ratio = inputs["importance_sampling_ratio"]
        assert ratio.shape[1] == (1 if mode == "sequence_mask" else inputs["advantages"].shape[1])
        assert inputs["advantages"].shape == inputs["completion_ids"].shape
    assert any(bool((inputs["importance_sampling_ratio"] != 1).any()) for inputs in seen)
    expected = trainer.estimator(batch.rollouts).padded(batch.mask)
    assert torch.equal(batch.advantages, expected)


def test_log_probs_of_what_vllm_sampled_are_the_policys(make_trainer, vllm, task):
    """Not those that vLLM gave."""
    teacher = LocalLogProbs(build_model(task.tokenizer, TINY), tokenizer=task.tokenizer)
    args = {"use_vllm": True, "vllm_mode": "colocate", "learning_rate": 0.0, "max_steps": 2}
    trainer = make_trainer(args=args, method="opd", logprobs={"teacher": teacher})
    trainer.train()
    sampled, model = trainer.credited, trainer.model.eval()
    found = trainer.credited.rollouts.logprobs["student"]
    for prompt, own, values in zip(
        sampled.prompt_ids,
        sampled.completion_ids,
        found.values.split(found.counts.tolist()),
        strict=True,
    ):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1]
        expected = logits.float().log_softmax(-1)[torch.arange(len(own)), torch.tensor(own)]
        assert torch.allclose(values.float(), expected, atol=1e-4)


@pytest.fixture
def lora():
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def weights(trainer, part):
    state = trainer.model.state_dict()
    return {name: value.clone() for name, value in state.items() if ("lora" in name) == part}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_lora_trains_its_adapters_token_by_token(make_trainer, seen, lora):
    trainer = make_trainer(peft_config=lora)
    base, adapters = weights(trainer, False), weights(trainer, True)
    trainer.train()
    assert adapters
    assert same(base, weights(trainer, False))
    assert not same(adapters, weights(trainer, True))
    assert any(row.unique().numel() > 2 for inputs in seen for row in inputs["advantages"])


def test_loras_base_is_the_model_without_the_adapter(make_trainer, lora, task):
    """G-OPD with beta > 0: TRL's reference, from which the adapter moves away."""
    torch.manual_seed(0)
    plain = build_model(task.tokenizer, TINY).eval()
    other = build_model(task.tokenizer, TINY).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(5.0)
    teacher = LocalLogProbs(other, tokenizer=task.tokenizer)
    trainer = make_trainer(
        args={"beta": 0.1, "learning_rate": 0.5, "max_steps": 4},
        peft_config=lora,
        method="g-opd",
        logprobs={"teacher": teacher},
        process_signal=LocalLogProbs(plain, tokenizer=task.tokenizer),
    )
    trainer.train()
    found = trainer.credited.rollouts.logprobs
    expected = trainer.credited.rollouts.streams["process"].values
    assert torch.allclose(found["base"].values, expected, atol=1e-4)
    assert not torch.allclose(found["student"].values, found["base"].values, atol=1e-3)


def test_a_lora_run_goes_on_bit_for_bit(make_trainer, lora, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    straight = make_trainer(args=settings, peft_config=lora)
    straight.train()
    again = make_trainer(args=settings, peft_config=lora)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert same(weights(straight, True), weights(again, True))


def test_the_table_of_completions_shows_our_numbers(make_trainer, tmp_path):
    pytest.importorskip("rich")
    trainer = make_trainer(args={"max_steps": 2, "log_completions": True, "logging_steps": 2})
    trainer.train()
    table = pandas.read_parquet(next((tmp_path / "completions").glob("*.parquet")))
    batch = trainer.credited
    means = batch.advantages.sum(1) / batch.mask.sum(1)
    assert table["advantage"].tolist() == pytest.approx(means.tolist(), abs=1e-6)
    assert table["accuracy"].tolist() == batch.rollouts.outcome.tolist()


def test_the_reward_shown_is_the_outcome(make_trainer):
    """Of the group's outcomes 0, 1, 1, 0 and 1, 1, 1, 1; TRL would add the format and the third."""

    def accuracy(completions, **_):
        return [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]

    def format_reward(completions, **_):
        return [5.0, 0.0] * 4

    trainer = make_trainer(
        args={"max_steps": 2},
        reward_funcs=[accuracy, format_reward],
        outcome_reward=None,
        train_dataset=Dataset.from_list([{"prompt": p.prompt} for p in problems(4)]),
    )
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["reward"] == 0.75
    assert entry["reward_std"] == pytest.approx(0.46291, abs=1e-5)
    assert entry["frac_reward_zero_std"] == 0.5
    assert entry["rewards/format_reward/mean"] == 2.5


@pytest.mark.parametrize(
    ("estimator", "line"),
    [
        (
            sc.PASS(gate=False),
            "trained with pass of stepcredit, a method introduced in [arXiv 2606.29296]"
            "(https://huggingface.co/papers/2606.29296).",
        ),
        ("adca", "trained with adca of stepcredit."),
    ],
)
def test_the_model_card_names_the_method(make_trainer, tmp_path, estimator, line):
    make_trainer(method=estimator).create_model_card(model_name="mine")
    card = (tmp_path / "README.md").read_text()
    assert line in card
    assert {"- stepcredit", "- trl"} <= set(card.splitlines())
