"""A run under verl says what its credit is, keeps it with checkpoints, and compares it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from stepcredit.credit.metrics.batch_warnings import CreditWarning
from stepcredit.engines.run_record import lines_of, read_run, write_run
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.run_folder import begin_run, record_of, unread_keys
from stepcredit.engines.verl.trainer import StepCreditPPOTrainer
from stepcredit.errors import EngineError

OWN = "+algorithm.stepcredit"


def record(compose, *overrides):
    config = compose(*overrides)
    return record_of(config, VerlSettings.of(config))


def test_the_record_says_where_everything_comes_from(compose):
    found = record(
        compose,
        f"{OWN}.process_signal=equations",
        f"{OWN}.outcome_reward=maths",
        f"{OWN}.format_reward=format",
        f"{OWN}.format_reward_fields.template=boxed",
        f"{OWN}.format_gate=0.5",
    )
    assert lines_of(found)[1:] == [
        "  process: equations (weight 1)",
        "  outcome: maths (weight 1)",
        "  format: format (weight 1)",
        "  gate: a response keeps its format where the reward is at least 0.5",
        "  steps: blank-line(inside='extend')",
    ]
    engine = record(compose, "algorithm.adv_estimator=gae")
    assert "  engine: verl's own advantage by gae, of verl's compute_score (weight 1)" in lines_of(
        engine
    )


def checkpoint(folder: Path, step: int, name: str | None, of: dict) -> None:
    place = folder / f"global_step_{step}"
    place.mkdir(parents=True)
    if name is not None:
        write_run(place, name, of)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


@pytest.fixture
def place(tmp_path):
    """verl's keys of a run's folder."""
    return {"resume_mode": "auto", "resume_from_path": None, "default_local_dir": str(tmp_path)}


def test_a_resumed_run_keeps_its_name(compose, place, tmp_path):
    credit = record(compose)
    first = begin_run(place, credit)
    assert read_run(tmp_path) == (first, credit)
    checkpoint(tmp_path, 2, first, credit)
    assert begin_run(place, credit) == first
    assert begin_run({**place, "resume_mode": "disable"}, credit) != first


def test_other_credit_is_refused(compose, place, tmp_path):
    checkpoint(tmp_path, 2, "a", record(compose))
    write_run(tmp_path, "a", record(compose))
    with pytest.raises(EngineError) as caught:
        begin_run(place, record(compose, f"{OWN}.fields.k=1.0"))
    assert str(caught.value) == (
        f"trainer.resume_mode: {tmp_path / 'global_step_2'} was trained with other credit: "
        "fields.k was 0.7, is 1.0: set it back, or start a new run from its model"
    )
    path = {"resume_mode": "resume_path", "resume_from_path": str(tmp_path / "global_step_2")}
    with pytest.raises(EngineError, match=r"fields\.k was 0\.7"):
        begin_run({**place, **path}, record(compose, f"{OWN}.fields.k=1.0"))


def test_a_stale_checkpoint_is_refused(compose, place, tmp_path):
    credit = record(compose)
    checkpoint(tmp_path, 8, "old", credit)
    begin_run({**place, "resume_mode": "disable"}, credit)
    with pytest.raises(EngineError, match=r"^trainer\.resume_mode: .*global_step_8 is of an ear"):
        begin_run(place, credit)


def test_checkpoints_of_before_are_taken(compose, place, tmp_path):
    checkpoint(tmp_path, 8, None, {})
    with pytest.warns(UserWarning, match="does not say by what credit it was trained"):
        assert begin_run(place, record(compose))


def test_the_trainer_writes_the_record_into_its_checkpoints(compose, place, monkeypatch, tmp_path):
    called = []
    for name in ("_load_checkpoint", "_save_checkpoint"):
        monkeypatch.setattr(PPOTrainerSync, name, lambda self, name=name: called.append(name))
    trainer = StepCreditPPOTrainer.__new__(StepCreditPPOTrainer)
    trainer.config = SimpleNamespace(
        trainer=type("Keys", (dict,), {"__getattr__": dict.__getitem__})(place)
    )
    trainer.credit_record, trainer.global_steps = record(compose), 3
    trainer._load_checkpoint()
    trainer._save_checkpoint()
    assert called == ["_load_checkpoint", "_save_checkpoint"]
    assert read_run(tmp_path / "global_step_3") == read_run(tmp_path)


def test_what_a_method_does_not_read_is_told(compose):
    config = compose(
        f"{OWN}.method=grpo",
        f"{OWN}.process_signal=equations",
        f"{OWN}.format_reward=format",
        f"{OWN}.format_reward_fields.template=boxed",
    )
    lines = list(unread_keys(VerlSettings.of(config)))
    assert lines == [
        "algorithm.stepcredit.process_signal: grpo reads no process stream: it is for the metrics "
        "alone",
        "algorithm.stepcredit.format_reward: grpo reads no format reward: it trains nothing",
    ]
    trainer = StepCreditPPOTrainer.__new__(StepCreditPPOTrainer)
    with pytest.warns(CreditWarning) as caught:
        trainer._warn({"a": "one"})
    trainer._warn({"a": "one"})
    assert [str(each.message) for each in caught] == ["one"]


def test_a_stream_of_weight_0_is_for_the_metrics_alone(compose):
    config = compose(
        f"{OWN}.process_signal=equations",
        f"{OWN}.fields={{weights: {{process: 0.0, outcome: 1.0}}}}",
    )
    assert list(unread_keys(VerlSettings.of(config))) == [
        "algorithm.stepcredit.process_signal: the stream 'process' has weight 0: it is for the "
        "metrics alone"
    ]
