"""verl's asynchronous trainers: which are supported, what they batch, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

from verl.trainer.ppo.v1 import (
    PPOTrainer,
    PPOTrainerColocateAsync,
    PPOTrainerSeparateAsync,
    PPOTrainerSync,
    get_trainer_cls,
    replay_buffer,
)

from stepcredit.credit.metrics.batch_warnings import CreditWarning
from stepcredit.engines.scoring_costs import ScoringCost
from stepcredit.engines.verl import experimental_trainers
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.config_keys import DEFAULTS, VerlSettings
from stepcredit.engines.verl.outcome_estimators import READ_KEYS
from stepcredit.engines.verl.trainer import TRAINERS, TokenCreditTrainer
from stepcredit.engines.verl.whole_groups import WholeGroups
from stepcredit.errors import EngineError
from stepcredit.signals.served.judge_cost import Usage

MODES = {
    "stepcredit": ("sync", PPOTrainerSync),
    "stepcredit_colocate_async": ("colocate_async", PPOTrainerColocateAsync),
    "stepcredit_separate_async": ("separate_async", PPOTrainerSeparateAsync),
}


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_is_verls_trainer_with_our_advantages(mode: str) -> None:
    verl_mode, base = MODES[mode]
    trainer = get_trainer_cls(mode)
    assert trainer is TRAINERS[mode]
    assert trainer.verl_mode == verl_mode
    assert issubclass(trainer, base)
    for hook in ("_compute_advantage", "step", "_compute_metrics", "_next_train_batch"):
        assert getattr(trainer, hook) is getattr(TokenCreditTrainer, hook)
    for hook in ("on_step_end", "on_sample_end", "on_init_end"):
        assert getattr(trainer, hook) is getattr(base, hook)


APART = (
    *("actor_rollout_ref.rollout.nnodes=1", "actor_rollout_ref.rollout.n_gpus_per_node=8"),
    *("data.train_batch_size=64", "actor_rollout_ref.actor.ppo_mini_batch_size=16"),
    "trainer.v1.separate_async.parameter_sync_step=4",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
)
"""What verl asks of a trainer whose servers have GPUs of their own."""


@pytest.mark.parametrize("mode", MODES)
def test_a_trainer_samples_as_verls_own_mode_does(compose: Any, mode: str) -> None:
    others = APART if mode == "stepcredit_separate_async" else ()
    trainer = TRAINERS[mode](compose(f"trainer.v1.trainer_mode={mode}", *others))
    assert trainer.parameter_sync_step == (4 if others else 1)
    is_sync = mode == "stepcredit"
    expected = replay_buffer.ReplayBuffer if is_sync else replay_buffer.ReplayBufferAsync
    assert type(trainer.replay_buffer) is expected
    assert trainer.trainer_mode == MODES[mode][0]


class Queue:
    """What a replay buffer reads of verl's queue: two prompts complete, one still sampled."""

    def __init__(self) -> None:
        done = {"is_prompt": True, "status": "finished"}
        running = {"is_prompt": True, "status": "running", "global_steps": 1}
        prompts = {"a": {**done, "global_steps": 2}, "b": {**done, "global_steps": 1}}
        keys = ["a_0_0", "b_0_0", "c_0_0", "a_1_0", "b_1_0", "b_1_1", "c_1_0", "c_2_0"]
        self.rows = {"train": {**prompts, "c": running, **{key: {} for key in keys}}}

    def kv_list(self) -> dict[str, Any]:
        return self.rows

    def kv_clear(self, partition_id: str, keys: list[str]) -> None:
        for key in keys:
            self.rows[partition_id].pop(key)


@pytest.mark.parametrize("kind", ["ReplayBuffer", "ReplayBufferAsync"])
def test_verls_buffers_give_all_responses_to_a_prompt_or_none(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The claim on which support of the asynchronous trainers stands, on verl's own classes."""
    monkeypatch.setattr(replay_buffer, "tq", Queue())
    buffer = getattr(replay_buffer, kind)(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={},
    )
    first, _ = buffer.sample(global_steps=2, partition_id="train", batch_size=1)
    assert first.keys == ["b_0_0", "b_1_0", "b_1_1"]
    second, _ = buffer.sample(global_steps=2, partition_id="train", batch_size=1)
    assert second.keys == ["a_0_0", "a_1_0"]


def test_a_prompt_that_comes_in_two_batches_is_refused(made: Any) -> None:
    batch = QueuedBatch.of(*made.queue(made.step_extras()))
    groups = WholeGroups(3)
    groups.check(batch)
    with pytest.raises(EngineError) as caught:
        groups.check(batch)
    line = "trainer.v1.sampler.custom_sampler: the responses to prompt a1 come in several batches, "
    assert str(caught.value) == f"{line}so its group is not whole when credit is computed"


def test_the_experimental_trainers_refuse_keys_that_they_would_ignore(
    compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl.experimental.separation.ray_trainer import SeparateRayPPOTrainer

    begun: list[str] = []
    plain = lambda self: begun.append(type(self).__name__)  # noqa: E731
    monkeypatch.setattr(SeparateRayPPOTrainer, "_init_worker_groups", plain)
    experimental_trainers.guard_experimental_trainers()
    experimental_trainers.guard_experimental_trainers()  # a second one adds nothing

    class OneStepOffRayTrainer(SeparateRayPPOTrainer):
        def __init__(self, config: Any) -> None:
            self.config = config

    def refusal(*overrides: str) -> str | None:
        try:
            OneStepOffRayTrainer(compose(*overrides))._init_worker_groups()
        except EngineError as error:
            return str(error)
        return None

    assert refusal() is None
    assert refusal("algorithm.adv_estimator=stepcredit-rloo") is None
    fields = "+algorithm.stepcredit.fields.ddof=0"
    assert refusal("algorithm.adv_estimator=stepcredit-rloo", fields) is None
    assert begun == ["OneStepOffRayTrainer"] * 3
    use = "use trainer.v1.trainer_mode=stepcredit_separate_async of verl.trainer.main_ppo"
    assert refusal(fields) == (
        "algorithm.stepcredit: OneStepOffRayTrainer does not read these keys, and grpo would train"
        f" instead: {use}"
    )
    assert refusal("algorithm.adv_estimator=stepcredit-rloo", f"{OWN}.fields.clop=1") == (
        "algorithm.stepcredit.fields.clop: rloo has no such field, did you mean 'clip'?"
    )
    for key in UNREAD:
        name = key.partition("=")[0].removeprefix("+")
        assert refusal("algorithm.adv_estimator=stepcredit-rloo", key) == (
            f"{name}: stepcredit-rloo gets rewards alone, so that this key has no effect: {use}"
        )
    outcome = ("algorithm.adv_estimator=stepcredit-rloo", f"{OWN}.outcome_reward=maths")
    assert refusal(*outcome, "reward.reward_manager.name=stepcredit") is None
    assert refusal(*outcome) == (
        "algorithm.stepcredit.outcome_reward: only the reward manager stepcredit reads this key, "
        "and OneStepOffRayTrainer runs another: set reward.reward_manager.name=stepcredit"
    )


OWN = "+algorithm.stepcredit"
UNREAD = (
    *(f"{OWN}.process_signal=equations", f"{OWN}.process_signal_fields={{a: 1}}"),
    *(f"{OWN}.splitter=newline", f"{OWN}.splitter_fields={{a: 1}}", f"{OWN}.states=tool-calls"),
    *(f"{OWN}.format_reward=format", f"{OWN}.format_reward_fields={{a: 1}}"),
    *(f"{OWN}.format_gate=0.5", f"{OWN}.right_above=0.5", f"{OWN}.judge_prices={{a: {{read: 1}}}}"),
    f"{OWN}.watch={{stepcredit/length: {{max: 1}}}}",
)
"""Keys that verl's trainers without token credit do not read, each with a value of its own."""


def test_every_key_is_read_by_other_trainers_or_refused() -> None:
    refused = {key.removeprefix(f"{OWN}.").partition("=")[0] for key in UNREAD}
    assert {*refused, *READ_KEYS, "preflight"} == set(DEFAULTS)


def test_keys_with_their_defaults_are_not_refused() -> None:
    defaults = {"stepcredit": {**DEFAULTS, "method": "rloo", "preflight": False}}
    algorithm = {"adv_estimator": "stepcredit-rloo", **defaults}
    experimental_trainers.check_experimental({"algorithm": algorithm}, "OneStepOffRayTrainer")


def test_an_estimator_of_the_users_may_read_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the example does that reads step scores, where verl hands them to an estimator."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    monkeypatch.setitem(ADV_ESTIMATOR_REGISTRY, "stepcredit-steps", lambda **_: None)
    algorithm = {"adv_estimator": "stepcredit-steps", "stepcredit": {"method": "pass"}}
    experimental_trainers.check_experimental({"algorithm": algorithm}, "OneStepOffRayTrainer")


BOUND = "+algorithm.stepcredit.watch={stepcredit/length: {max: 8, for: 2, then: stop}}"


@pytest.fixture
def watched(compose: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """A maker of trainers whose steps of verl give the lengths that it is told, without workers."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    def make(lengths: list[float], *overrides: str) -> Any:
        given = iter(lengths)
        config = compose(f"trainer.default_local_dir={tmp_path}", *overrides)
        trainer = TRAINERS["stepcredit"].__new__(TRAINERS["stepcredit"])
        trainer.config, trainer.credit_settings = config, VerlSettings.of(config)
        trainer.global_steps, trainer.total_training_steps = 0, 9
        trainer.parameter_sync_step, trainer.saved = 1, []

        def step(self: Any, metrics: dict[str, Any], timing: Any) -> Any:
            metrics["stepcredit/length"] = next(given)
            metrics["stepcredit/scoring_seconds/process"] = 2.0
            return SimpleNamespace()

        monkeypatch.setattr(PPOTrainer, "step", step)
        monkeypatch.setattr(
            PPOTrainer, "_compute_metrics", lambda self, *args: args[1].update(kept=1.0)
        )
        save = lambda self: self.saved.append(self.global_steps)  # noqa: E731
        monkeypatch.setattr(TokenCreditTrainer, "_save_checkpoint", save)
        return trainer

    return make


@pytest.mark.parametrize(("uncounted", "money"), [(0, (8000 + 800) / 1e6), (1, None)])
def test_costs_are_summed_over_the_batches_of_a_step(
    compose: Any, made: Any, monkeypatch: pytest.MonkeyPatch, uncounted: int, money: float | None
) -> None:
    """verl's own `step` and its mean over batches, here of a step with two; only its work is not
    done."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    prices = "+algorithm.stepcredit.judge_prices={process: {read: 2.0, written: 10.0}}"
    judge = "+algorithm.stepcredit.process_signal_fields={url: 'http://localhost:1', model: m}"
    config = compose("+algorithm.stepcredit.process_signal=judge", judge, prices)
    config.data.train_batch_size = 4
    trainer = TRAINERS["stepcredit"].__new__(TRAINERS["stepcredit"])
    trainer.config, trainer.credit_settings = config, VerlSettings.of(config)
    trainer.global_steps, trainer.parameter_sync_step = 1, 2
    trainer.prepare_step = dict  # type: ignore[method-assign]

    def step_once(self: Any, metrics: dict[str, Any], timing: Any, size: int) -> Any:
        index = self.local_trigger_step
        usage = {"answers": 3, "read": 2000, "written": 40, "uncounted": uncounted * index}
        cost = ScoringCost(1.0 + index, Usage(**usage))
        metrics["stepcredit/length"] = 8.0 * index
        self._costs.append({"process": cost})
        return SimpleNamespace(keys=[f"u_{index}_0"], tags=[{}], partition_id="train")

    monkeypatch.setattr(PPOTrainer, "_step_once", step_once)
    monkeypatch.setattr(PPOTrainer, "_compute_metrics", lambda self, *args: None)
    for _ in range(2):  # a second step begins anew
        metrics: dict[str, float] = {}
        trainer.step(metrics, {})
    trainer._compute_metrics(None, metrics, {"step": 12.0}, 1, 0)
    assert metrics["stepcredit/length"] == 4.0
    assert metrics["stepcredit/scoring_seconds/process"] == 3.0
    assert metrics["stepcredit/scoring_step_share/process"] == 0.25
    assert metrics["stepcredit/judge_answers/process"] == 6.0
    assert metrics["stepcredit/judge_tokens_read/process"] == 4000.0
    assert metrics["stepcredit/judge_tokens_written/process"] == 80.0
    assert metrics.get("stepcredit/judge_cost/process") == (money and pytest.approx(money))


def run(trainer: Any) -> dict[str, float]:
    """The steps as verl's `fit` takes them; the metrics of the last."""
    metrics: dict[str, float] = {}
    while trainer.global_steps < trainer.total_training_steps:
        trainer.global_steps += 1
        metrics = {}
        trainer.step(metrics, {})
        trainer._compute_metrics(None, metrics, {"step": 8.0}, trainer.global_steps, 0)
    return metrics


def test_a_watch_stops_verls_loop_with_one_checkpoint(watched: Any, capsys: Any) -> None:
    trainer = watched([9.0, 7.0, 8.5, 9.5, 1.0], BOUND, "trainer.save_freq=-1")
    metrics = run(trainer)
    assert (trainer.global_steps, trainer.saved) == (4, [4])
    line = "stopped by watch: step 4: stepcredit/length is 9.5, above its max of 8, for 2 values in"
    folder = f"{trainer.config.trainer.default_local_dir}/global_step_4"
    assert capsys.readouterr().out == f"{line} a row; checkpoint: {folder}\n"
    assert metrics["stepcredit/scoring_step_share/process"] == 0.25


def test_a_checkpoint_that_verl_writes_anyway_is_not_written_twice(watched: Any) -> None:
    trainer = watched([9.0, 9.0, 9.0], BOUND, "trainer.save_freq=2")
    run(trainer)
    assert (trainer.global_steps, trainer.saved) == (2, [])


def test_bounds_on_what_verl_does_not_log_or_logs_too_late_are_refused(compose: Any) -> None:
    from stepcredit.engines.verl.config_checks import check_config

    def refusal(name: str, then: str = "warn") -> str | None:
        config = compose(f"+algorithm.stepcredit.watch={{{name}: {{max: 1, then: {then}}}}}")
        try:
            check_config(config, VerlSettings.of(config))
        except EngineError as error:
            return str(error)
        return None

    assert refusal("stepcredit/length", "stop") is None
    assert refusal("actor/entropy", "stop") is None
    assert refusal("response_length/mean") is None
    place = "algorithm.stepcredit.watch."
    assert (refusal("stepcredit/lenght") or "").startswith(
        f"{place}stepcredit/lenght: no such metric (did you mean stepcredit/length or "
    )
    assert (refusal("stepcredit/agreement/prm") or "").startswith(
        f"{place}stepcredit/agreement/prm: no such metric"
    )
    assert refusal("stepcredit/no_context_share") is not None  # TRL alone logs it
    scored = "stepcredit/scoring_seconds/process"
    assert refusal(scored) == f"{place}{scored}: no signal scores this stream"
    assert (refusal("response_length/mean", "stop") or "").startswith(
        f"{place}response_length/mean: only metrics that begin with stepcredit/ or actor/ can stop"
    )


def test_bounds_on_costs_are_those_of_the_signals(compose: Any) -> None:
    """A judge's tokens without a judge, or its cost without prices, would never be compared."""
    from stepcredit.engines.verl.config_checks import check_config

    def refusal(name: str, *overrides: str) -> str | None:
        config = compose(f"{OWN}.watch={{{name}: {{max: 1}}}}", *overrides)
        try:
            check_config(config, VerlSettings.of(config))
        except EngineError as error:
            return str(error).removeprefix(f"algorithm.stepcredit.watch.{name}: ")
        return None

    program = f"{OWN}.process_signal=equations"
    judge = (
        f"{OWN}.process_signal=judge",
        f"{OWN}.process_signal_fields={{url: 'http://localhost:1', model: m}}",
    )
    prices = f"{OWN}.judge_prices={{process: {{read: 2.0, written: 10.0}}}}"
    answers, cost = "stepcredit/judge_answers/process", "stepcredit/judge_cost/process"
    assert refusal("stepcredit/scoring_seconds/process", program) is None
    assert refusal(answers, program) == "no signal of this stream has a judge"
    assert refusal(answers, *judge) is None
    assert refusal(cost, *judge) == "judge_prices has no prices for this stream"
    assert refusal(cost, *judge, prices) is None


def test_a_bound_that_was_never_checked_is_named_when_verl_ends(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PPOTrainer, "fit", lambda self, manager: run(self))
    bounds = f"{OWN}.watch={{stepcredit/length: {{max: 99}}, actor/entropy: {{min: 0}}}}"
    trainer = watched([9.0] * 9, bounds)
    line = "watch: actor/entropy never had a value in this run: its bound was not checked"
    with pytest.warns(CreditWarning, match=line) as told:
        assert trainer.fit(None)["stepcredit/length"] == 9.0
    assert not any("stepcredit/length never" in str(each.message) for each in told)


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
def test_verls_own_trainers_refuse_keys_that_they_would_ignore(
    compose: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    begun: list[str] = []
    own = get_trainer_cls(mode)
    monkeypatch.setattr(PPOTrainer, "_setup", lambda self: begun.append(type(self).__name__))
    monkeypatch.setattr(PPOTrainer, "on_init_end", lambda self: None)
    monkeypatch.setattr(own, "on_init_end", lambda self: None)
    monkeypatch.setattr(own, "_setup", PPOTrainer._setup)

    def start(kind: type, *overrides: str) -> str | None:
        trainer = kind.__new__(kind)
        trainer.config = compose(f"trainer.v1.trainer_mode={mode}", *overrides)
        try:
            trainer.init()
        except EngineError as error:
            return str(error)
        return None

    signal = f"{OWN}.process_signal=equations"
    assert start(own) is None
    assert start(own, "algorithm.adv_estimator=stepcredit-rloo", f"{OWN}.fields.clip=1.0") is None
    baseline = (f"{OWN}.outcome_reward=maths", "reward.reward_manager.name=stepcredit")
    assert start(own, *baseline) is None  # that manager reads it
    mine = type("Mine", (own,), {"__module__": "of_the_user"})
    assert start(mine, signal) is None
    assert start(TRAINERS[f"stepcredit_{mode}".removesuffix("_sync")], signal) is None
    assert len(begun) == 5
    assert start(own, signal) == (
        f"algorithm.stepcredit: trainer.v1.trainer_mode={mode} does not read these keys, and grpo "
        "would train instead: use one of the modes "
        "stepcredit, stepcredit_colocate_async, stepcredit_separate_async"
    )
    assert (start(own, baseline[0]) or "").startswith(
        "algorithm.stepcredit.outcome_reward: only the reward manager stepcredit reads this key"
    )
    assert (start(own, "algorithm.adv_estimator=stepcredit-rloo", signal) or "").startswith(
        "algorithm.stepcredit.process_signal: stepcredit-rloo gets rewards alone"
    )
