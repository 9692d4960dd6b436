"""What TRL would take without a word, or fail at with a traceback, is told by its key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

import stepcredit as sc
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.data.files.reading import read_rollouts
from stepcredit.engines.build import check_states
from stepcredit.engines.trl.signal_streams import check_weights
from stepcredit.errors import EngineError, SettingError
from stepcredit.launch.datasets import with_named_columns, with_prompts
from stepcredit.launch.reward_functions import NamedReward
from stepcredit.launch.script import train_from_flags
from stepcredit.launch.tiny_models import save_language_model
from stepcredit.signals.signal_registry import signal

ROWS = [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(1, 7)]
TURNS = [{"role": "user", "content": "1 + 1 ="}]


def with_tools(tokenizer, answered=3):
    """A rollout_func: five tokens, of which the third is a tool's."""

    def rollout(prompts, trainer):
        return {
            "prompt_ids": [tokenizer(prompt).input_ids for prompt in prompts],
            "completion_ids": [[3, 4, 5, 6, 7] for _ in prompts],
            "env_mask": [[int(i + 1 != answered) for i in range(5)] for _ in prompts],
            "logprobs": None,
        }

    return rollout


def test_masked_truncated_responses_of_an_environment_are_refused(make_trainer, task):
    trainer = make_trainer(
        {"mask_truncated_completions": True}, rollout_func=with_tools(task.tokenizer)
    )
    with pytest.raises(EngineError) as fault:
        trainer.train()
    line = "True hides which tokens of a truncated response are a tool's; leave it off with tools"
    assert str(fault.value) == f"mask_truncated_completions: {line}"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ([([4], [0.5])] * 7 + [([1, 5], [0.5, 0.1])], "row 7: process_signal: a step ends at 5, "
         "but the completion has 5 tokens, a tool's included"),
        (sc.Tokens([[0.1] * 6] * 8), "row 0: process_signal: 6 values, but the completion has 5 "
         "tokens, a tool's included"),
    ],
)  # fmt: skip
def test_tools_do_not_hide_an_answer_that_does_not_fit(make_trainer, task, answer, line):
    trainer = make_trainer(
        process_signal=lambda **_: answer, rollout_func=with_tools(task.tokenizer)
    )
    with pytest.raises(EngineError) as fault:
        trainer.train()
    assert str(fault.value) == line


def test_fewer_rows_than_a_generation_samples_are_refused(make_trainer):
    trainer = make_trainer(train_dataset=Dataset.from_list([{"prompt": "1+1="}]))
    with pytest.raises(EngineError) as fault:
        trainer.train()
    assert str(fault.value) == (
        "train_dataset: 1 rows, but a generation samples 2 prompts: not one step would be made; "
        "lower steps_per_generation or the batch"
    )


@pytest.fixture
def recipe(tmp_path):
    """A maker of recipes' files on six rows, whose keys may be changed."""
    save_language_model(tmp_path / "policy")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    keys = {
        "model_name_or_path": f"{tmp_path}/policy",
        "dataset_name": f"{tmp_path}/rows.jsonl",
        "output_dir": f"{tmp_path}/out",
        "rewards": {"right": "exact"},
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_steps": 1,
        "max_completion_length": 8,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
    }

    def make(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps({**keys, **changes}))  # JSON is YAML
        return str(path)

    return make


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"per_device_train_batch_size": 16}, "dataset_name: 6 rows, but a generation samples 8 "
         "prompts: not one step would be made; lower steps_per_generation or the batch"),
        ({"eval_strategy": "steps"}, "dataset_test_split: {}/rows.jsonl is one split, 'train', and "
         "has no 'test': name a part of 'train', such as 'train[90%:]', or name an "
         "eval_dataset_name"),
        ({"max_steps": None}, "{}/recipe.yaml: max_steps: expected int, got null"),
        ({"num_generations": 2.0}, "{}/recipe.yaml: num_generations: expected int, got 2.0"),
        ({"dataset_name": 5}, "{}/recipe.yaml: dataset_name: expected a text, got 5"),
        ({"output_dir": ["a"]}, "{}/recipe.yaml: output_dir: expected a text, got ['a']"),
        ({"reward_weights": [1.0, "a"]}, "{}/recipe.yaml: reward_weights: expected float, got 'a'"),
        ({"reward_weights": [1.0]}, "reward_weights: [1.0] has no effect: the method weighs the "
         "streams; leave it out, and set the method's weights, or name one reward function that "
         "returns the weighted sum"),
        ({"reward_fields": {"right": "last"}}, "reward_fields.right: expected a mapping, got "
         "'last'"),
        ({"format_gate": 0.5}, "format_gate: 0.5 is a threshold of the format reward: name "
         "format_reward"),
        ({"process_signal": "arithmetic", "fields": {"weights": {"prm": 1.0}}},
         "fields.weights: the stream 'process' has no weight, the weights are prm: 1"),
        ({"resume_from_checkpoint": True}, "resume_from_checkpoint: no checkpoint in {}/out"),
    ],
)  # fmt: skip
def test_a_recipes_faults_are_one_line(recipe, tmp_path, capfd, changes, line):
    assert train_from_flags(["--config", recipe(**changes)]) == 2
    told = capfd.readouterr().err.strip().splitlines()
    assert told[-1] == line.replace("{}", str(tmp_path))


@pytest.mark.parametrize("setting", ["fields", "process_signal_fields", "columns"])
def test_a_key_that_yaml_makes_no_text_of_is_refused(recipe, capfd, setting):
    path = Path(recipe(process_signal="arithmetic"))
    whole = json.loads(path.read_text())
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in whole.items())
    path.write_text(f"{lines}{setting}: {{no: 1}}\n")
    assert train_from_flags(["--config", str(path)]) == 2
    assert capfd.readouterr().err.strip().splitlines()[-1] == (
        f"{setting}: expected names, got False"
    )


def test_a_null_on_the_way_to_a_column_is_null():
    first_null = [{"prompt": "a", "gold": None}, {"prompt": "b", "gold": {"value": "2"}}]
    for rows in (first_null, first_null[::-1]):
        found = with_named_columns(Dataset.from_list(rows), {"answer": "gold.value"}, "rows")
        assert {row["prompt"]: row["answer"] for row in found} == {"a": None, "b": "2"}


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [(None, "None"), ([], "[]"), ([{"from": "human"}], "[{'from': 'human'}]")],
)
def test_a_prompt_that_is_none_is_told_by_its_row(prompt, shown):
    rows = Dataset.from_list([{"prompt": TURNS if isinstance(prompt, list) else "a"}])
    rows = [*rows, {"prompt": prompt}]
    with pytest.raises(SettingError) as fault:
        with_prompts(Plain(rows))
    reason = "expected a text, or messages of role and content, got"
    assert str(fault.value) == f"columns.prompt: row 1: {reason} {shown}"


class Plain(list):
    """Rows that keep each its own form, which a column of Arrow's does not."""

    column_names = ("prompt",)

    def map(self, function, with_indices):
        return [function(row, index) for index, row in enumerate(self)]


def test_a_system_turn_has_the_form_of_the_turn_it_precedes():
    parts = [{"role": "user", "content": [{"type": "text", "text": "1 + 1 ="}]}]
    (row,) = with_prompts(Dataset.from_list([{"prompt": parts}]), system="Add.")
    system = {"role": "system", "content": [{"type": "text", "text": "Add."}]}
    assert row["prompt"] == [system, *parts]


def test_the_stream_process_goes_before_the_others_as_in_a_file(make_trainer, tmp_path):
    def whole(completion_ids, **_):
        return [([len(ids) - 1], [float(ids[-1])]) for ids in completion_ids]

    def halves(completion_ids, **_):
        ends = [sorted({(len(ids) - 1) // 2, len(ids) - 1}) for ids in completion_ids]
        return [(each, [float(end) for end in each]) for each in ends]

    weights = {"halves": 1.0, "process": 1.0, "outcome": 1.0, "format": 0.3}
    trainer = make_trainer(
        {"max_steps": 1, "steps_per_generation": 1, "per_device_train_batch_size": 8},
        method=sc.PASS(weights=weights, gate=False),
        process_signal={"halves": halves, "process": whole},
        rollouts_dir=tmp_path,
    )
    trainer.train()
    rollouts = read_rollouts(tmp_path / "rollouts-000000.jsonl")
    assert list(trainer.credited.rollouts.streams) == list(rollouts.streams)
    assert training_metrics(rollouts, trainer.estimator)["steps"] == 1.0


def test_a_policy_without_a_chat_template_is_told(recipe, tmp_path, capfd):
    path = recipe()
    (tmp_path / "policy/chat_template.jinja").unlink()
    assert train_from_flags(["--config", path]) == 2
    line = f"chat: {tmp_path}/policy has no chat template: set it to false, for texts"
    assert capfd.readouterr().err.strip().splitlines()[-1] == line
    assert train_from_flags(["--config", path, "--chat", "false"]) == 0


async def later(completions, **_):
    return [float(len(completion)) for completion in completions]


def test_a_reward_may_be_a_coroutine_and_must_fit():
    asked = {"prompts": ["?"] * 3, "completions": ["a", "bc", ""]}
    assert NamedReward("late", later)(**asked) == [1.0, 2.0, 0.0]
    with pytest.raises(SettingError) as fault:
        NamedReward("one", lambda **_: [1.0])(**asked)
    assert str(fault.value) == "rewards.one: gave 1 rewards for 3 completions"


def test_a_baseline_of_outcomes_takes_the_recipe_with_its_signal():
    for method in ("gdpo", "grpo", "pass"):
        check_weights(sc.estimator(method), signal("arithmetic"))
    with pytest.raises(EngineError, match=r"^fields.weights: the stream 'b' has no"):
        check_weights(sc.PASS(), {"process": signal("arithmetic"), "b": signal("arithmetic")})


def test_a_method_of_states_is_refused_where_nothing_gives_them():
    with pytest.raises(EngineError) as refused:
        check_states(sc.GiGPO(), "method")
    assert str(refused.value) == "method: gigpo needs step_states: nothing gives them"
