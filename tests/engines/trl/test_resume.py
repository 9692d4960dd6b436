"""Going on from a checkpoint: bit for bit the run that was not stopped."""

from __future__ import annotations

import warnings

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from stepcredit.engines.trl.checkpointing import STATE, updates_per_generation
from stepcredit.errors import EngineError
from stepcredit.lab.arithmetic import problems

FOUR = [{"prompt": problem.prompt} for problem in problems(4)]
TIMES = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second")


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def logged(trainer):
    """Every log but that of the end, without the clock's figures."""
    return [
        {
            name: value
            for name, value in entry.items()
            if name not in TIMES and "/scoring_" not in name
        }
        for entry in trainer.state.log_history
        if "train_loss" not in entry
    ]


def checkpoints(folder):
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("args", "written"),
    [
        ({}, [2, 4, 6, 8]),
        ({"num_iterations": 2}, [4, 8]),
        ({"num_iterations": 2, "gradient_accumulation_steps": 2}, [2, 4, 6, 8]),
        ({"gradient_accumulation_steps": 3}, [2, 4, 6, 8]),
        ({"gradient_accumulation_steps": 4, "save_steps": 3}, [3, 6, 8]),
        ({"save_steps": 3}, [4, 6, 8]),
        ({"shuffle_dataset": False, "logging_steps": 1}, [2, 4, 6, 8]),
    ],
)
def test_a_run_goes_on_as_it_would_have(make_trainer, tmp_path, args, written):
    """Two samplings an epoch, so that later epochs' orders count; logs that straddle the saves."""
    settings = {"max_steps": 8, "save_strategy": "steps", "save_steps": 1, "logging_steps": 3}
    settings |= args
    plain = make_trainer(
        args={**settings, "save_strategy": "no"}, train_dataset=Dataset.from_list(FOUR)
    )
    plain.train()
    straight = make_trainer(args=settings, train_dataset=Dataset.from_list(FOUR))
    straight.train()
    assert same(weights(plain), weights(straight))
    assert checkpoints(tmp_path) == written
    for step in written[:-1]:
        torch.manual_seed(step)
        again = make_trainer(
            args={**settings, "save_strategy": "no"}, train_dataset=Dataset.from_list(FOUR)
        )
        torch.manual_seed(step)
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert same(weights(again), weights(straight)), step
        assert logged(again) == logged(straight), step
    assert not same(weights(straight), weights(make_trainer()))


def test_the_optimizer_steps_a_sampling_lasts():
    from types import SimpleNamespace as Args

    for generation, iterations, accumulation, steps in [(4, 1, 4, 1), (4, 2, 4, 2), (2, 1, 3, 2)]:
        args = Args(
            steps_per_generation=generation,
            num_iterations=iterations,
            gradient_accumulation_steps=accumulation,
        )
        assert updates_per_generation(args) == steps


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_a_run_that_ends_within_a_sampling_leaves_the_model(make_trainer, tmp_path, strategy):
    """3 steps, 2 to a sampling; an epoch has 8."""
    trainer = make_trainer(args={"max_steps": 3, "save_strategy": strategy, "save_steps": 2})
    with pytest.warns(UserWarning, match="is within a generation") as told:
        trainer.train()
    assert [str(w.message) for w in told if "generation" in str(w.message)] == [
        f"step 3 is within a generation: the model is in {tmp_path}, without a checkpoint"
    ]
    assert checkpoints(tmp_path) == ([2] if strategy == "steps" else [])
    left = type(trainer.model).from_pretrained(tmp_path).state_dict()
    assert same(left, weights(trainer))


def test_a_run_that_saves_nothing_leaves_nothing(make_trainer, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make_trainer(args={"max_steps": 3}).train()
    assert not [*tmp_path.glob("*.safetensors"), *tmp_path.glob("checkpoint-*")]


def test_a_save_asked_for_by_a_callback_waits_too(make_trainer, tmp_path):
    class Asking(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_save = state.global_step == 3

    saved = []

    class Saved(TrainerCallback):
        def on_save(self, args, state, control, **_):
            saved.append(state.global_step)

    trainer = make_trainer(args={"max_steps": 6})
    trainer.add_callback(Asking())
    trainer.add_callback(Saved())
    trainer.train()
    assert checkpoints(tmp_path) == saved == [4]


def test_epochs_are_saved_at_their_ends(make_trainer, tmp_path):
    settings = {"max_steps": -1, "num_train_epochs": 2, "save_strategy": "epoch"}
    straight = make_trainer(args=settings, train_dataset=Dataset.from_list(FOUR))
    straight.train()
    assert checkpoints(tmp_path) == [4, 8]
    again = make_trainer(args=settings, train_dataset=Dataset.from_list(FOUR))
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert same(weights(again), weights(straight))


def test_the_best_model_is_loaded_at_the_end(make_trainer, tmp_path):
    settings = {
        "max_steps": 4,
        "save_strategy": "best",
        "eval_strategy": "steps",
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "reward",
        "per_device_eval_batch_size": 4,
    }
    data = Dataset.from_list(FOUR)
    trainer = make_trainer(args=settings, eval_dataset=data)
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best is not None
    kept = type(trainer.model).from_pretrained(best).state_dict()
    assert same(kept, weights(trainer))


BEST = {"save_strategy": "best", "eval_strategy": "steps", "metric_for_best_model": "reward"}


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            {"ignore_data_skip": True},
            "ignore_data_skip: True resumes with the wrong prompts; leave it off",
        ),
        (
            {"enable_jit_checkpoint": True},
            "enable_jit_checkpoint: True saves within a generation; save every few steps instead",
        ),
    ],
)
def test_settings_that_cannot_go_on_are_refused(make_trainer, args, line):
    with pytest.raises(EngineError) as refused:
        make_trainer(args=args)
    assert str(refused.value) == line


def test_a_reference_that_moves_is_refused_with_checkpoints(make_trainer, task, tmp_path):
    saved = tmp_path / "model"
    make_trainer().save_model(str(saved))
    args = {"beta": 0.1, "sync_ref_model": True, "save_strategy": "steps"}
    with pytest.raises(EngineError) as refused:
        make_trainer(args=args, model=str(saved))
    assert str(refused.value) == (
        "sync_ref_model: True changes the reference, which no checkpoint holds; set "
        "save_strategy='no'"
    )


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            {**BEST, "eval_steps": 3, "max_steps": 6},
            "eval_steps: step 3 is within a generation, where the best model can't be kept; use a "
            "multiple of 2",
        ),
        (
            {**BEST, "eval_steps": 2, "max_steps": 5},
            "max_steps: step 5 is within a generation, where the best model can't be kept; use a "
            "multiple of 2",
        ),
    ],
)
def test_a_best_model_within_a_sampling_is_refused(make_trainer, args, line):
    trainer = make_trainer(args=args, eval_dataset=Dataset.from_list(FOUR))
    with pytest.raises(EngineError) as refused:
        trainer.train()
    assert str(refused.value) == line


def test_a_checkpoint_within_a_sampling_is_refused(make_trainer, tmp_path):
    """Such as TRL's own trainer writes."""
    make_trainer(args={"save_strategy": "steps", "save_steps": 4}).train()
    with pytest.raises(EngineError) as refused:
        make_trainer(args={"num_iterations": 3, "max_steps": 12}).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-4")
        )
    assert str(refused.value) == (
        "resume_from_checkpoint: step 4 is within a generation; resume from a multiple of 6"
    )


def test_a_checkpoint_of_the_model_alone_is_refused(make_trainer, tmp_path):
    args = {"save_strategy": "steps", "save_steps": 2, "save_only_model": True}
    make_trainer(args=args).train()
    folder = str(tmp_path / "checkpoint-2")
    with pytest.raises(EngineError) as refused:
        make_trainer(args=args).train(resume_from_checkpoint=folder)
    assert str(refused.value) == (
        f"resume_from_checkpoint: {folder} holds only the model: start a new training from it"
    )


def test_a_checkpoint_of_another_number_of_processes_is_refused(make_trainer, tmp_path):
    make_trainer(args={"save_strategy": "steps", "save_steps": 2}).train()
    state = tmp_path / "checkpoint-2" / STATE
    kept = torch.load(state)
    torch.save({**kept, "loss": kept["loss"].repeat(2)}, state)
    with pytest.raises(EngineError) as refused:
        make_trainer().train(resume_from_checkpoint=str(state.parent))
    assert str(refused.value) == (
        "resume_from_checkpoint: it was written by 2 processes, but there are 1: start 2"
    )
