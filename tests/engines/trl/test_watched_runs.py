"""Real runs: which names are logged, and that bounds warn of and stop a run."""

from __future__ import annotations

import os
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engines.trl.test_processes import ROOT, TWO

from stepcredit.credit.metrics.batch_warnings import CreditWarning
from stepcredit.credit.metrics.metric_table import PREFIX, metric_of
from stepcredit.engines.trl.checkpointing import check_saving
from stepcredit.engines.trl.watch_callback import WatchCallback, check_watch, trainer_metrics
from stepcredit.engines.watch import Bound, WatchResult
from stepcredit.errors import EngineError
from stepcredit.signals.signal_registry import signal

SCRIPT = Path(__file__).with_name("watched_processes.py")
BOOKKEEPING = {"epoch", "num_tokens", "step", "total_flos", "train_loss"}
"""What transformers logs of the run itself."""


def test_what_a_run_logs_is_in_the_table_or_trls_own(make_trainer: Any) -> None:
    trainer = make_trainer(args={"max_steps": 2, "logging_steps": 1})
    trainer.train()
    logged = {name for entry in trainer.state.log_history for name in entry}
    ours = {name for name in logged if name.startswith(PREFIX)}
    assert [name for name in ours if metric_of(name) is None] == []
    for name in ("raw_mean/process", "raw_std/outcome", "pay/first_steps", "pay/last_steps"):
        assert f"{PREFIX}{name}" in ours
    seconds = [e for e in trainer.state.log_history if f"{PREFIX}scoring_seconds/process" in e]
    shares = [e for e in trainer.state.log_history if f"{PREFIX}scoring_step_share/process" in e]
    assert len(seconds) == len(shares) == 1  # one generation
    assert 0 < shares[0][f"{PREFIX}scoring_step_share/process"] < 1
    others = {name for name in logged - ours - BOOKKEEPING if not name.startswith("train_")}
    assert others <= set(trainer_metrics(trainer.reward_func_names))


def test_a_bound_that_is_broken_warns_once(make_trainer: Any) -> None:
    trainer = make_trainer(
        args={"max_steps": 6}, watch={"length": {"max": 0.5}, "kl": {"max": 9.0}}
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    said = [str(each.message) for each in caught if issubclass(each.category, CreditWarning)]
    said = [line for line in said if line.startswith("watch: ")]
    assert len(said) == 3
    assert said[0].startswith("watch: step 2: stepcredit/length is ")
    assert said[0].endswith(", above its max of 0.5")
    assert said[1].startswith("watch: step 2: kl has no value")
    assert said[2] == "watch: kl never had a value in this run: its bound was not checked"
    assert trainer.state.global_step == 6


def test_a_run_stops_at_a_generations_end_with_a_checkpoint(
    make_trainer: Any, tmp_path: Path, capsys: Any
) -> None:
    bound = {"max": 0.5, "for": 2, "then": "stop"}
    trainer = make_trainer(args={"max_steps": 8}, watch={"stepcredit/length": bound})
    trainer.train()
    assert trainer.state.global_step == 4  # two generations of two updates each
    checkpoint = tmp_path / "checkpoint-4"
    assert (checkpoint / "stepcredit_state.pt").exists()
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("stopped by")]
    assert line.startswith("stopped by watch: step 4: stepcredit/length is ")
    end = f", above its max of 0.5, for 2 values in a row; checkpoint: {checkpoint}"
    assert line.endswith(end)
    again = make_trainer(args={"max_steps": 8})
    again.train(resume_from_checkpoint=str(checkpoint))
    assert again.state.global_step == 8


def test_a_bound_on_an_unknown_metric_is_refused_with_the_closest_names(make_trainer: Any) -> None:
    with pytest.raises(EngineError) as caught:
        make_trainer(watch={"stepcredit/lenght": {"max": 8}, "length": {"max": 8}})
    line = "watch.stepcredit/lenght: no such metric (did you mean stepcredit/length or "
    assert str(caught.value).startswith(line)


def test_what_a_reward_function_logs_itself_can_be_bounded(
    make_trainer: Any, tmp_path: Path, capsys: Any
) -> None:
    """By TRL's `log_metric`, under the function's name; the bound fires on the logged value."""

    def grader(completions: Any, log_metric: Any, **_: Any) -> list[float]:
        log_metric("grader/seconds", 3.0)
        return [float(len(text) % 2) for text in completions]

    trainer = make_trainer(
        args={"max_steps": 4},
        reward_funcs=[grader],
        outcome_reward=None,
        format_reward=None,
        method="grpo",
        process_signal=None,
        watch={"grader/seconds": {"max": 2, "then": "stop"}, "num_tokens": {"min": 0}},
    )
    trainer.train()
    assert trainer.state.global_step == 2
    line = "stopped by watch: step 2: grader/seconds is 3, above its max of 2;"
    assert line in capsys.readouterr().out
    with pytest.raises(EngineError, match=r"watch.garder/seconds: no such metric"):
        make_trainer(watch={"garder/seconds": {"max": 2}})


def test_each_value_counts_once_across_logs_evaluations_and_resumes() -> None:
    """Two updates per generation; a list goes on over an evaluation, and is new after a log."""
    before = {"kl": [7.0]}
    metrics: dict[str, list[float]] = {}
    trainer = SimpleNamespace(
        _metrics={"train": metrics}, _restored={"metrics": before}, is_between_generations=False
    )
    callback = WatchCallback(trainer, [Bound("kl", high=0.0)])
    seen: list[float] = []
    state, control = SimpleNamespace(global_step=1, is_world_process_zero=False), SimpleNamespace()
    callback.on_train_begin(None, state, control)
    callback.watch.check = lambda values, *_: seen.append(values["kl"]) or WatchResult()  # type: ignore
    metrics.update(before)  # as the trainer restores them, in its first step
    for step, value in enumerate((1.0, 3.0, 4.0, 6.0, 8.0, 8.0), start=1):
        metrics.setdefault("kl", []).append(value)
        trainer.is_between_generations = step % 2 == 0
        callback.on_step_end(None, state, control)
        callback.on_log(None, state, control, logs={"eval_kl": 9.0})
        if step == 3:
            metrics.clear()
    assert seen == [2.0, 5.0, 8.0]


def test_a_second_training_counts_anew() -> None:
    """Three values in a row stop a run; the first training's values are none of the second's."""
    metrics: dict[str, list[float]] = {}
    trainer = SimpleNamespace(
        _metrics={"train": metrics},
        _restored=None,
        is_between_generations=True,
        accelerator=SimpleNamespace(num_processes=1),
    )
    callback = WatchCallback(trainer, [Bound("kl", high=0.0, values=3, stops=True)])
    state, control = SimpleNamespace(global_step=0, is_world_process_zero=False), SimpleNamespace()
    ended = []
    for values in (3, 3, 2):
        callback.on_train_begin(None, state, control)
        for number in range(values):
            assert callback.stopped is None, number
            state.global_step += 1
            metrics.setdefault("kl", []).append(1.0)
            callback.on_step_end(None, state, control)
        ended.append(callback.stopped is not None)
    assert ended == [True, True, False]


def test_a_stop_counts_as_saving(config: Any) -> None:
    args = config(sync_ref_model=True, beta=0.1)
    check_saving(args)
    with pytest.raises(EngineError, match=r"sync_ref_model: .* and let watch only warn"):
        check_saving(args, stops=True)


def test_a_stop_needs_a_checkpoint_that_can_be_resumed(config: Any) -> None:
    args = config(save_only_model=True)
    check_saving(args)
    with pytest.raises(EngineError, match=r"save_only_model: .*; let watch only warn"):
        check_saving(args, stops=True)


def test_costs_are_logged_of_what_is_scored_judged_and_priced() -> None:
    judge = signal("judge", url="http://localhost:1", model="m")
    given = {"judge": judge, "told": signal("equations")}
    prices = {"judge": {"read": 1.0, "written": 2.0}}

    def check(name: str) -> None:
        bounds = [Bound(f"{PREFIX}{name}", high=1.0)]
        check_watch(bounds, given, ["accuracy"], {"teacher": len}, prices)

    for name in ("judge_cost/judge", "scoring_seconds/told", "scoring_seconds/teacher_logprobs"):
        check(name)
    for name in ("judge_cost/told", "judge_answers/teacher_logprobs", "scoring_seconds/outcome"):
        with pytest.raises(EngineError, match=name):
            check(name)


def test_all_processes_stop_at_the_same_step(tmp_path: Path) -> None:
    """Only the first process's own values break the bound: it decides for both."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [*TWO, str(SCRIPT), str(tmp_path)],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [(tmp_path / f"rank-{rank}.txt").read_text() for rank in (0, 1)]
    assert steps == ["4", "4"]
    assert (tmp_path / "output" / "checkpoint-4").is_dir()
    assert done.stdout.count("stopped by watch: step 4: stepcredit/length is ") == 1
