"""The preflight lets runs pass that TRL would train."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.trl import scripted_agent

import stepcredit as sc
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.trl.planned_run import PlannedRun, planned_run
from stepcredit.engines.trl.start_preflight import check_made_up, preflight_of_trainer
from stepcredit.launch.tiny_models import tokenizer

ROWS = [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(1, 4)]


def made_up(method: sc.Estimator | None = None, **changes: Any) -> Preflight:
    """The results for a run whose rewards are right unless they are given."""
    settings = {
        "estimator": method or sc.GRPO(),
        "reward_funcs": {"right": lambda completions, **_: [1.0] * len(completions)},
        "tokenizer": tokenizer(),
        "rows": ROWS,
        "longest": 64,
        "num_generations": 8,
    }
    found = Preflight()
    check_made_up(found, PlannedRun(**{**settings, **changes}))
    return found


def of_states(found: Preflight, state: str) -> list[str]:
    return [result.what for result in found.results if result.state == state]


def test_rewards_signals_and_gates_are_called_with_whole_groups():
    sizes = []

    def centred(completions, **_):
        scores = torch.arange(len(completions), dtype=torch.float32).view(-1, 4)
        return (scores - scores.mean(1, keepdim=True)).flatten()

    def signal(completions, completion_ids, **_):
        sizes.append(len(completions))
        return sc.Tokens([[0.5] * len(ids) for ids in completion_ids])

    def gate(completions, **_):
        sizes.append(len(completions))
        return [True] * len(completions)

    found = made_up(
        sc.PASS(weights={"a": 1.0, "b": 1.0, "outcome": 1.0}),
        reward_funcs={"centred": centred},
        process_signal={"a": signal, "b": signal},
        format_gate=gate,
        num_generations=4,
    )
    assert not found.faults
    assert sizes == [4, 4, 4]
    assert "credit of the made-up responses" in of_states(found, "ok")


def test_groups_of_two_hold_all_three_made_up_responses():
    seen = []

    def right(completions, **_):
        seen.extend(completions)
        return [1.0] * len(completions)

    assert not made_up(reward_funcs={"right": right}, num_generations=2).faults
    assert len(seen) == 4 + 2 * 2  # two groups of the first row, one of each other
    assert len(set(seen[:3])) == 3
    assert seen[3] == seen[0]


@pytest.mark.parametrize(
    "value", [np.True_, np.float32(1), torch.tensor(1.0), torch.ones(1), Fraction(1, 2), True, None]
)
def test_whatever_torch_reads_as_a_number_is_a_reward(value):
    def given(completions, **_):
        return [1.0, 0.0, value] * (len(completions) // 3)

    found = made_up(sc.PASS(), reward_funcs={"given": given}, num_generations=3)
    assert [each for each in found.faults if each.startswith("rewards")] == []


@pytest.mark.parametrize("value", ["1.0", [1.0], 1j])
def test_what_torch_reads_as_no_number_is_refused(value):
    found = made_up(reward_funcs={"given": lambda completions, **_: [value] * len(completions)})
    assert found.faults == [f"rewards.given: gave {value!r}, expected a number or None"]


def test_a_reward_model_alone_leaves_the_outcomes_made_up():
    model = torch.nn.Linear(1, 1)
    found = made_up(reward_funcs={"model": model}, format_reward=None)
    assert not found.faults
    assert of_states(found, "skipped") == ["reward model"]
    both = {"model": model, "right": lambda completions, **_: [0.5] * len(completions)}
    assert not made_up(reward_funcs=both).faults


def test_a_first_row_without_an_outcome_is_no_fault():
    def known(answer, **_):
        return [None if each == "2" else 1.0 for each in answer]

    assert not made_up(reward_funcs={"known": known}).faults
    never = made_up(reward_funcs={"never": lambda completions, **_: [None] * len(completions)})
    assert len(never.faults) == 1
    assert "missing" in never.faults[0]


def test_a_reward_may_read_how_far_training_is_and_own_columns():
    rows = [{**row, "completion_ids": [1]} for row in ROWS]

    def by_progress(completions, completion_ids, trainer_state, **_):
        done = trainer_state.global_step / trainer_state.max_steps + trainer_state.epoch
        return [done + 0 * len(ids) for ids in completion_ids]

    assert not made_up(reward_funcs={"by_progress": by_progress}, rows=rows).faults


def test_a_prompt_is_rendered_with_the_run_s_own_arguments():
    policy, options = tokenizer(), []
    render = policy.apply_chat_template

    def spy(turns, **given):
        options.append(given)
        return render(turns, **given)

    policy.apply_chat_template = spy
    rows = [{"prompt": [{"role": "user", "content": "1 + 1 ="}], "answer": "2"}]
    found = made_up(tokenizer=policy, rows=rows, template={"enable_thinking": False})
    assert not found.faults
    assert [each["enable_thinking"] for each in options] == [False]


class Counter:
    """An environment that owns its reward."""

    def reset(self, **_: Any) -> None:
        self.count = 0

    def add(self, number: int) -> int:
        """Add a number.

        Args:
            number: what is added.

        Returns:
            The sum.
        """
        self.count += number
        return self.count

    def get_reward(self) -> float:
        return float(self.count)


def test_a_run_in_an_environment_is_not_tried_and_trains(tmp_path):
    def script(row, turn):
        call = '<tool_call>\n{"name": "add", "arguments": {"number": 2}}\n</tool_call><|im_end|>'
        return call if turn == 0 and row % 2 else "Done.<|im_end|>"

    def counted(environments, **_):
        return [each.count / 2 for each in environments]

    trainer = scripted_agent.make_trainer(
        script,
        tmp_path,
        tools=None,
        environment_factory=Counter,
        reward_funcs=[counted],
        method=sc.GRPO(),
        process_signal=None,
        preflight=True,
    )
    found = preflight_of_trainer(trainer)
    assert not found.faults
    assert "rewards, signals and credit" in of_states(found, "skipped")
    trainer.train()
    assert trainer.credited.rewards.shape[1] == 2  # `counted`, and the environment's own
    assert set(trainer.credited.rewards[:, 1].tolist()) == {0.0, 2.0}


def test_a_coroutine_reward_runs_on_trl_s_loop_also_inside_another(make_trainer, task):
    """As in a notebook, where a loop runs already; an open connection belongs to its loop."""
    loops = []

    async def accuracy(completions, **_):
        loops.append(asyncio.get_running_loop())
        return [1.0] * len(completions)

    trainer = make_trainer(
        reward_funcs=[accuracy], outcome_reward=None, format_reward=None, process_signal=None
    )

    async def notebook():
        return preflight_of_trainer(trainer)

    found = asyncio.run(notebook())
    assert not [fault for fault in found.faults if fault.startswith("rewards")]
    assert loops == [trainer.async_loop]


def test_a_trainer_s_own_chat_template_arguments_and_groups_are_used(make_trainer):
    trainer = make_trainer({"chat_template_kwargs": {"enable_thinking": False}})
    run = planned_run(trainer)
    assert run.template["enable_thinking"] is False
    assert run.num_generations == 4


def test_a_reward_that_knows_no_answer_is_noted_at_the_start(make_trainer):
    """A run with a column of another name would train on process scores alone."""

    def unsure(completions, **_):
        return [None] * len(completions)

    settings = {"outcome_reward": "unsure", "format_reward": None, "process_signal": "arithmetic"}
    found = make_trainer(reward_funcs=[unsure], **settings, method="pass").check()
    assert not found.faults
    noted = "note: outcomes (no reward gives a number for one of the first 8 rows"
    assert noted in found.summary
    sure = make_trainer(
        reward_funcs=[lambda completions, **_: [1.0] * len(completions)],
        **{**settings, "outcome_reward": None},
        method="pass",
    ).check()
    assert "note: outcomes" not in sure.summary
