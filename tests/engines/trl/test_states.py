"""States of steps reach the method: from a rollout function, from a function, from tool calls."""

from __future__ import annotations

import pytest
from datasets import Dataset

import stepcredit as sc
from stepcredit.data.files.reading import read_rollouts, read_rows
from stepcredit.errors import EngineError, RolloutError

STEPS = [2, 2, 1, 2, 2, 2, 2, 2]
STATES = [["x", "y"], ["x", "z"], ["q"], ["x", "y"], *(["x", "x"] for _ in range(4))]
"""Of two groups of four completions."""
OUTCOMES = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
METHOD = sc.GiGPO(weights=(1.0, 0.0, 0.0), gamma=1.0)


def rollout_of(tokenizer, states):
    """A rollout_func: completions with a line per step."""

    def rollout(prompts, trainer):
        ids = [tokenizer("1=1\n" * steps).input_ids for steps in STEPS]
        found = {"prompt_ids": [tokenizer(p).input_ids for p in prompts], "completion_ids": ids}
        return {**found, "logprobs": None} | ({} if states is None else {"step_states": states})

    return rollout


def told(prompts, **_):
    return OUTCOMES


def made(make_trainer, task, given=STATES, **changes):
    settings = {
        "args": {"max_steps": 1},
        "rollout_func": rollout_of(task.tokenizer, given),
        "reward_funcs": [told],
        "outcome_reward": "told",
        "format_reward": None,
        "process_signal": None,
        "splitter": "newline",
        "method": METHOD,
    }
    return make_trainer(**{**settings, **changes})


def by_step(trainer):
    """The advantage of each step of the first group's completions, at the step's first token."""
    credit = trainer.credited
    ends = [response.step_ends for response in credit.responses[:4]]
    starts = [[0, *(end + 1 for end in own[:-1])] for own in ends]
    rows = credit.advantages[:4].tolist()
    return [[row[at] for at in own] for row, own in zip(rows, starts, strict=True)]


def expected():
    """Outcomes 1, 0, 0 in the state x: (1 - 1/3) / sqrt(1/3); in y 1 and 0; q and z alone."""
    high, low, pair = 1.1547, -0.57735, 0.70711
    return [[high, pair], [low, 0.0], [0.0], [low, -pair]]


def test_a_rollout_function_gives_the_states(make_trainer, task, tmp_path):
    trainer = made(make_trainer, task, rollouts_dir=tmp_path / "rollouts")
    trainer.train()
    for got, wanted in zip(by_step(trainer), expected(), strict=True):
        assert got == pytest.approx(wanted, abs=1e-4)
    (path,) = (tmp_path / "rollouts").glob("*.jsonl")
    rows = list(read_rows(path))
    assert [row["step_states"] for row in rows] == STATES
    again = METHOD(read_rollouts(path)).ragged()
    for row, values in zip(rows, again, strict=True):
        assert row["advantages"] == pytest.approx(values.tolist())


def test_a_function_of_the_response_gives_them(make_trainer, task):
    keys = dict(enumerate(STATES))

    def states(response):
        return keys[int(response.name.rpartition(" ")[2])]

    trainer = made(make_trainer, task, given=None, states=states)
    trainer.train()
    for got, wanted in zip(by_step(trainer), expected(), strict=True):
        assert got == pytest.approx(wanted, abs=1e-4)


def test_tool_calls_by_name_are_states(make_trainer, task):
    """Nobody calls a tool, so every step is taken at the start."""
    trainer = made(make_trainer, task, given=None, states="tool-calls")
    trainer.train()
    states = trainer.credited.rollouts.step_states
    assert set(states.values.flatten().tolist()) == {0}


@pytest.mark.parametrize(
    ("settings", "error", "line"),
    [
        (
            {"given": [["x"]] * 8},
            RolloutError,
            "completion 0: step_states: 1 state, but 2 steps",
        ),
        (
            {"given": None},
            EngineError,
            "step_states: missing: the rollout_func gives no such field",
        ),
        (
            {"given": None, "rollout_func": None},
            EngineError,
            "method: gigpo needs step_states: nothing gives them",
        ),
        (
            {"states": "no-such"},
            EngineError,
            "states: expected tool-calls, or ",
        ),
        (
            {"states": "no_such_module:keys"},
            EngineError,
            "states: ",
        ),
        (
            {"given": [["x"] * steps for steps in (2, 2, 1, 2, 2, 2, 2, 3)]},
            RolloutError,
            "completion 7: step_states: 3 states, but 2 steps",
        ),
    ],
)
def test_states_that_are_missing_or_do_not_fit_are_refused(
    make_trainer, task, settings, error, line
):
    with pytest.raises(error) as refused:
        made(make_trainer, task, **settings).train()
    assert str(refused.value).startswith(line)


def test_a_column_of_the_data_set_is_no_state(make_trainer, task):
    data = Dataset.from_list([{"prompt": f"{n}+1=", "step_states": ["x"]} for n in range(8)])
    with pytest.raises(EngineError, match="the rollout_func gives no such field"):
        made(make_trainer, task, given=None, train_dataset=data).train()
