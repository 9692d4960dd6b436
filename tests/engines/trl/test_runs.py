"""Runs in one folder: whose a checkpoint is, what may not change, what is not overwritten."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

import stepcredit as sc
from stepcredit.engines.run_record import FILE, differences, read_run
from stepcredit.engines.trl.checkpointing import last_checkpoint
from stepcredit.engines.trl.generation_file import set_rollouts_aside
from stepcredit.errors import EngineError, SettingError
from stepcredit.launch.script import checkpoint_of

SAVING = {"save_strategy": "steps", "save_steps": 2}


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop |= state.global_step == self.step


def test_a_stale_checkpoint_of_an_earlier_run_is_not_the_last(make_trainer, tmp_path, capsys):
    make_trainer(args={**SAVING, "max_steps": 6}).train()
    fresh = make_trainer(args={**SAVING, "max_steps": 6})
    fresh.add_callback(StopAt(2))
    fresh.train()
    found, others = last_checkpoint(tmp_path)
    assert (found, others) == (str(tmp_path / "checkpoint-2"), ["checkpoint-4", "checkpoint-6"])
    capsys.readouterr()
    settings = {"output_dir": str(tmp_path), "rollouts_dir": None}
    for wanted in ("auto", True):
        training = SimpleNamespace(resume_from_checkpoint=wanted, **settings)
        assert checkpoint_of(training) == found
    line = "resume_from_checkpoint: of another run, left out: checkpoint-4, checkpoint-6"
    assert capsys.readouterr().out.splitlines() == [line, line]
    again = make_trainer(args={**SAVING, "max_steps": 4})
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4
    assert read_run(tmp_path)[0] == read_run(tmp_path / "checkpoint-2")[0]


def test_a_checkpoint_without_a_record_is_taken_with_a_warning(make_trainer, tmp_path):
    make_trainer(args={**SAVING, "max_steps": 2}).train()
    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / FILE).unlink()
    with pytest.warns(UserWarning, match="does not say by what credit it was trained"):
        make_trainer(args={"max_steps": 2}).train(resume_from_checkpoint=str(checkpoint))


def test_checkpoints_are_named_by_their_number(make_trainer, tmp_path):
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    with pytest.raises(EngineError, match=r"holds checkpoint-10 of an earlier run"):
        make_trainer(args={**SAVING, "save_total_limit": 1}).train()


def test_a_folder_of_stale_checkpoints_alone_has_none(make_trainer, tmp_path):
    make_trainer(args={**SAVING, "max_steps": 2}).train()
    make_trainer(args={"max_steps": 1}).train()
    assert last_checkpoint(tmp_path) == (None, ["checkpoint-2"])
    with pytest.raises(EngineError, match=r"^resume_from_checkpoint: no checkpoint in"):
        make_trainer().train(resume_from_checkpoint=True)
    training = SimpleNamespace(
        resume_from_checkpoint="true", output_dir=str(tmp_path), rollouts_dir=None
    )
    with pytest.raises(SettingError, match=r"^resume_from_checkpoint: no checkpoint in"):
        checkpoint_of(training)


def test_checkpoints_of_before_are_found_by_their_step(make_trainer, tmp_path):
    make_trainer(args={**SAVING, "max_steps": 4}).train()
    for path in tmp_path.rglob(FILE):
        path.unlink()
    assert last_checkpoint(tmp_path) == (str(tmp_path / "checkpoint-4"), [])
    make_trainer(args={"max_steps": 6}).train(resume_from_checkpoint=True)


def test_a_finished_run_trains_no_step_more(make_trainer, tmp_path):
    args = {**SAVING, "max_steps": 4}
    done = make_trainer(args=args)
    done.train()
    before = {name: value.clone() for name, value in done.model.state_dict().items()}
    again = make_trainer(args=args)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert again.state.global_step == 4
    assert again.credited is None
    after = again.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    longer = make_trainer(args={**args, "max_steps": 6})
    longer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert longer.state.global_step == 6


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": sc.PASS(weights=(1.0, 1.0, 0.3), clip=4.0, gate=False)}, "fields.clip was 5.0"),
        ({"method": "grpo"}, "method was 'pass', is 'grpo'"),
        ({"process_signal": sc.signal("arithmetic")}, "streams.process.from was"),
        ({"outcome_reward": "task_reward"}, "outcome.from was 'accuracy', is 'task_reward'"),
        ({"splitter": "newline"}, "splitter was 'blank-line', is"),
    ],
)
def test_other_credit_than_the_checkpoint_s_is_refused(make_trainer, tmp_path, changes, line):
    make_trainer(args={**SAVING, "max_steps": 2}).train()
    folder = str(tmp_path / "checkpoint-2")
    with pytest.raises(EngineError) as caught:
        make_trainer(args={"max_steps": 4}, **changes).train(resume_from_checkpoint=folder)
    said = str(caught.value)
    assert said.startswith(f"resume_from_checkpoint: {folder} was trained with other credit: ")
    assert line in said
    assert said.endswith("set it back, or start a new run from its model")


def test_where_scores_are_computed_and_what_is_called_right_may_change(make_trainer, tmp_path):
    where = {"model": "m", "protocol": "pure", "tokenizer": "t"}
    one = sc.signal("prm-served", url="http://one:1", **where)
    other = sc.signal("prm-served", url="http://other:2", concurrency=3, **where)
    records = [make_trainer(process_signal=each).credit_record for each in (one, other)]
    assert records[0] != records[1]
    assert differences(*records) == []
    make_trainer(args={**SAVING, "max_steps": 2}).train()
    again = make_trainer(args={"max_steps": 4}, right_above=0.5)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_record_is_json_and_stays_equal_when_read(make_trainer):
    record = make_trainer().credit_record
    assert differences(json.loads(json.dumps(record)), record) == []


def test_rollouts_of_an_earlier_run_are_not_overwritten(make_trainer, tmp_path):
    folder = tmp_path / "rollouts"
    args = {**SAVING, "max_steps": 2}
    make_trainer(args=args, rollouts_dir=folder).train()
    kept = (folder / "rollouts-000000.jsonl").read_bytes()
    with pytest.raises(EngineError) as caught:
        make_trainer(args=args, rollouts_dir=folder).train()
    assert str(caught.value) == (
        f"rollouts_dir: {folder / 'rollouts-000000.jsonl'} is of an earlier run: name another "
        "folder, or move its files"
    )
    assert (folder / "rollouts-000000.jsonl").read_bytes() == kept
    resumed = make_trainer(args={**args, "max_steps": 4}, rollouts_dir=folder)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert (folder / "rollouts-000002.jsonl").exists()


def test_an_attempt_without_a_checkpoint_leaves_its_rollouts_aside(tmp_path, capsys):
    folder = tmp_path / "rollouts"
    folder.mkdir()
    for attempt in (1, 2):
        (folder / "rollouts-000000.jsonl").write_text(f"{attempt}")
        training = SimpleNamespace(
            resume_from_checkpoint="auto", output_dir=str(tmp_path), rollouts_dir=str(folder)
        )
        assert checkpoint_of(training) is None
        moved = folder / f"earlier-{attempt}"
        assert (moved / "rollouts-000000.jsonl").read_text() == f"{attempt}"
        assert str(moved) in capsys.readouterr().out
    assert set_rollouts_aside(folder) is None
    assert set_rollouts_aside(None) is None


def test_checkpoints_that_would_be_deleted_at_once_are_refused(make_trainer):
    make_trainer(args={**SAVING, "max_steps": 4}).train()
    with pytest.raises(EngineError, match=r"^save_total_limit: .* of an earlier run"):
        make_trainer(args={**SAVING, "max_steps": 4, "save_total_limit": 1}).train()
