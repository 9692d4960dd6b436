"""What TRL's trainer with stepcredit refuses at start, by name, and what it lets through."""

from __future__ import annotations

import importlib
import sys

import pytest
import transformers
import trl
from trl import GRPOTrainer

from stepcredit.credit.metrics.batch_warnings import CreditWarning
from stepcredit.engines.trl.start_checks import check_hooks, check_settings
from stepcredit.errors import EngineError, MissingExtra


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            {"importance_sampling_level": "sequence", "loss_type": "grpo"},
            "importance_sampling_level: 'sequence' gives every token its response's mean advantage "
            "under loss_type='grpo'; use 'token'",
        ),
        (
            {"off_policy_mask_threshold": 0.5},
            "off_policy_mask_threshold: 0.5 masks tokens instead of responses with one advantage "
            "per token; leave it unset",
        ),
        (
            {"loss_type": "vespo"},
            "loss_type: 'vespo' chooses k and lambda by each token's sign; set vespo_k_pos = "
            "vespo_k_neg and vespo_lambda_pos = vespo_lambda_neg",
        ),
        (
            {"scale_rewards": "batch"},
            "scale_rewards: 'batch' has no effect: the method standardizes; leave it out, and set "
            "the method's operator",
        ),
        (
            {"multi_objective_aggregation": "normalize_then_sum"},
            "multi_objective_aggregation: 'normalize_then_sum' has no effect: the method "
            "adds the streams up; leave it out, and use method='gdpo'",
        ),
        (
            {"reward_weights": [1.0, 0.5, 0.0]},
            "reward_weights: [1.0, 0.5, 0.0] has no effect: the method weighs the streams; leave "
            "it out, and set the method's weights, or name one reward function that returns the "
            "weighted sum",
        ),
    ],
)
def test_settings_that_would_lose_credit_are_refused_by_name(make_trainer, args, line):
    with pytest.raises(EngineError) as refused:
        make_trainer(args=args)
    assert str(refused.value) == line


def score(completions, **_):
    return [0.0 for _ in completions]


def test_two_reward_functions_of_one_name_are_no_role(make_trainer):
    """Both would be taken for the format, and no outcome would be left."""
    for setting in ("outcome_reward", "format_reward"):
        other = {"outcome_reward": None, "format_reward": None}
        with pytest.raises(EngineError) as refused:
            make_trainer(reward_funcs=[score, score], **{**other, setting: "score"})
        line = f"{setting}: 2 reward functions are called 'score': give them names of their own "
        assert str(refused.value) == f"{line}(`__name__`)"
    with pytest.warns(CreditWarning, match="2 reward functions are called 'score': their metrics"):
        make_trainer(reward_funcs=[score, score], outcome_reward=None, format_reward=None)


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "sapo", "cispo"])
def test_token_level_losses_are_accepted(make_trainer, loss):
    assert make_trainer(args={"loss_type": loss}).loss_type == loss


@pytest.mark.parametrize(
    "args",
    [
        {"loss_type": "cispo", "importance_sampling_level": "sequence"},
        {"loss_type": "vespo", "vespo_k_neg": 2.0, "vespo_lambda_neg": 3.0},
        {"entropy_coef": 0.01, "top_entropy_quantile": 0.5},
    ],
)
def test_settings_under_which_credit_survives_are_accepted(make_trainer, args):
    make_trainer(args=args)


def test_a_loss_that_forgets_tokens_is_refused(make_trainer, monkeypatch):
    original = GRPOTrainer._compute_loss

    def forgetful(self, model, inputs):
        return original(self, model, {**inputs, "advantages": inputs["advantages"].mean(1)})

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", forgetful)
    with pytest.raises(EngineError) as refused:
        make_trainer()
    assert str(refused.value) == (
        "loss_type: 'dapo' does not train each token by its own advantage (cosine 0.126)"
    )


def test_the_check_of_the_loss_leaves_the_trainer_as_it_was(make_trainer):
    trainer = make_trainer(args={"use_adaptive_entropy": True})
    assert "_get_per_token_logps_and_entropies" not in vars(trainer)
    assert not trainer._metrics["eval"]
    assert not trainer._metrics["train"]
    assert trainer._entropy_window_stats is None


def test_a_trl_without_the_hook_is_refused():
    class Older:
        _calculate_rewards = _compute_loss = _save_checkpoint = print

    with pytest.raises(EngineError) as refused:
        check_hooks(Older)
    assert str(refused.value) == (
        f"_generate_and_score_completions: trl {trl.__version__} with transformers "
        f"{transformers.__version__} has no such method: it is the hook"
    )


def test_a_trl_outside_the_tested_range_warns(monkeypatch):
    monkeypatch.setattr(trl, "__version__", "1.99.0")
    with pytest.warns(UserWarning, match=r"^trl 1\.99\.0 is outside the range tested, >=1\.16"):
        check_hooks(GRPOTrainer)


def test_masking_truncated_completions_with_tools_is_refused(config):
    with pytest.raises(EngineError) as refused:
        check_settings(config(mask_truncated_completions=True), has_tools=True)
    assert str(refused.value) == (
        "mask_truncated_completions: True hides which tokens of a truncated response are a tool's; "
        "leave it off with tools"
    )


def test_an_unknown_reward_name_is_refused(make_trainer):
    with pytest.raises(EngineError) as refused:
        make_trainer(outcome_reward="accurracy")
    assert str(refused.value) == (
        "outcome_reward: no reward function 'accurracy', there are: accuracy, format_reward, "
        "task_reward"
    )


def test_without_trl_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "stepcredit.engines.trl.trainer", raising=False)
    monkeypatch.setitem(sys.modules, "trl.trainer.grpo_trainer", None)
    with pytest.raises(MissingExtra) as refused:
        importlib.import_module("stepcredit.engines.trl.trainer")
    assert str(refused.value) == "trl: needs the extra: pip install 'stepcredit[train]'"
