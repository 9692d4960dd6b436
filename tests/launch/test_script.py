"""`python -m stepcredit.launch`: recipes read, refused, tried and trained."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from stepcredit.engines.trl.reward_function import TRLReward
from stepcredit.errors import SettingError
from stepcredit.launch import script
from stepcredit.launch.recipe import RecipeParser, help_text, read_recipe
from stepcredit.launch.reward_functions import (
    NamedReward,
    check_facts,
    reward_functions,
    tag_format,
)
from stepcredit.launch.script import checkpoint_of, train_from_flags
from stepcredit.launch.smoke import for_smoke_test
from stepcredit.launch.tiny_models import save_language_model, save_reward_model
from stepcredit.prm.protocol import PROTOCOLS
from stepcredit.signals import Response, splitter
from stepcredit.signals.signal_registry import signal

ROWS = [{"problem": f"{n} + 1 =", "gold": {"value": str(n + 1)}, "id": n} for n in range(1, 7)]
RECIPE = """\
model_name_or_path: {folder}/policy
dataset_name: {folder}/rows.jsonl
columns: {{prompt: problem, answer: gold.value}}
system_prompt: Add.
prompt_template: "{{prompt}}?"
rewards: {{right: exact, layout: format}}
reward_fields: {{layout: {{template: "^[^aeiou]*$"}}}}
output_dir: {folder}/out
method: pass
fields: {{k: 0.9, gate: false}}
process_signal: arithmetic
splitter: newline
max_steps: 2
per_device_train_batch_size: 4
num_generations: 2
max_completion_length: 8
learning_rate: 1.0e-2
use_cpu: true
bf16: false
report_to: none
logging_steps: 1
save_steps: 2
disable_tqdm: true
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def folder(tmp_path, policy):
    """A folder with a tiny policy, rows, and a recipe that trains the one on the other."""
    (tmp_path / "policy").symlink_to(policy)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    return tmp_path


def run(folder, *flags):
    return train_from_flags(["--config", str(folder / "recipe.yaml"), *flags])


def values_of(folder, *flags):
    return RecipeParser().values(["--config", str(folder / "recipe.yaml"), *flags])


def test_it_trains_on_a_local_file_and_saves(folder, capfd):
    before = load_file(folder / "policy/model.safetensors")
    assert run(folder) == 0
    out = folder / "out"
    after = load_file(out / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not after[name].equal(before[name])
    history = json.loads((out / "trainer_state.json").read_text())
    assert history["global_step"] == 2
    logged = history["log_history"][0]
    assert {"rewards/right/mean", "rewards/layout/mean", "stepcredit/advantage_std"} <= set(logged)
    card = (out / "README.md").read_text()
    assert "stepcredit" in card
    assert AutoTokenizer.from_pretrained(out).chat_template
    printed = capfd.readouterr().out
    assert f"train: 6 rows of {folder}/rows.jsonl (train)" in printed
    assert f"2 steps; model in {out}" in printed


def test_it_goes_on_from_a_checkpoint_and_evaluates(folder, capfd):
    assert run(folder) == 0
    longer = ("--max_steps", "4", "--resume_from_checkpoint", "true")
    evaluated = ("--eval_strategy", "steps", "--eval_steps", "2", "--dataset_test_split", "train")
    batch = ("--per_device_eval_batch_size", "2")
    assert run(folder, *longer, *evaluated, *batch) == 0
    assert f"resuming from {folder}/out/checkpoint-2" in capfd.readouterr().out
    history = json.loads((folder / "out/trainer_state.json").read_text())
    assert history["global_step"] == 4
    assert [entry["step"] for entry in history["log_history"] if "eval_reward" in entry] == [4]


def test_a_run_that_goes_on_ends_as_one_without_a_stop(folder):
    steady = ("--lr_scheduler_type", "constant", "--max_steps", "4")
    assert run(folder, *steady, "--output_dir", str(folder / "whole")) == 0
    assert run(folder, *steady, "--max_steps", "2") == 0
    assert run(folder, *steady, "--resume_from_checkpoint", "auto") == 0
    whole, parts = (load_file(folder / name / "model.safetensors") for name in ("whole", "out"))
    assert all(weight.equal(parts[name]) for name, weight in whole.items())


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--dataset_name", "rows.jsonl"], "dataset_name: no such file or folder: rows.jsonl"),
        (["--dataset_name", "{}/policy/config.txt"], "dataset_name: "),
        (["--model_name_or_path", "{}/none"], "model_name_or_path: "),
        (["--num_generations", "3"], "generation_batch_size (4) must be divisible by "
         "num_generations (3)."),
        (["--columns", '{"prompt": "problme"}'], "columns.prompt: {}/rows.jsonl has no column "
         "'problme', did you mean 'problem'?"),
        (["--columns", '{"prompt": "gold.valeu"}'], "columns.prompt: {}/rows.jsonl has no column "
         "'gold.valeu', did you mean 'value'?"),
        (["--columns", "{}"], "columns.prompt: {}/rows.jsonl has no column 'prompt'; name the "
         "column that holds it: problem, gold, id"),
        (["--columns", "prompt"], "columns: expected a mapping, got 'prompt'"),
        (["--prompt_template", "{promt}"], "prompt_template: no column 'promt', did you mean "
         "'prompt'?"),
        (["--chat", "false"], "chat: needs conversations: leave chat on, or leave "
         "the system prompt out"),
        (["--max_prompt_length", "3"], "max_prompt_length: each of the 6 prompts has more than 3 "
         "tokens"),
        (["--rewards", '{"right": "exakt"}', "--reward_fields", "{}"], "rewards.right: unknown "
         "reward 'exakt', did you mean 'exact'?, or MODULE:FUNCTION"),
        (["--rewards", "{}", "--reward_fields", "{}"], 'rewards: required, such as {"accuracy": '
         '"maths"}'),
        (["--rewards", '{"right": "qa-em", "a": "format", "b": "format"}', "--reward_fields", "{}"],
         "format_reward: name one of a, b: each of them is a format reward"),
        (["--reward_fields", '{"rigth": {}}'], "reward_fields.rigth: no reward has this name, did "
         "you mean 'right'?"),
        (["--reward_fields", '{"right": {"red": 1}}'], "reward_fields.right.red: exact has no such "
         "field, did you mean 'read'?"),
        (["--columns", '{"prompt": "problem"}'], "rewards.right: exact: answer: missing: the "
         "reward needs it (columns: problem, gold, id)"),
        (["--resume_from_checkpoint", "true"], "resume_from_checkpoint: no checkpoint in {}/out"),
        (["--resume_from_checkpoint", "at/step"], "resume_from_checkpoint: no such folder: "
         "at/step"),
        (["--method", "gpro"], "method: unknown method 'gpro', did you mean 'grpo'?"),
        (["--tools", "no_such:tool"], "tools: no_such:tool: ModuleNotFoundError: No module named "
         "'no_such'"),
        (["--max_steps", "ten"], "max_steps: invalid int value: 'ten'"),
        (["--max_step", "3"], "--max_step: unknown flag, did you mean '--max_steps'?"),
        (["--importance_sampling_level", "sequence"], "importance_sampling_level: 'sequence' gives "
         "every token its response's mean advantage under loss_type='dapo'; use 'token'"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_line(folder, capfd, flags, line):
    given = [flag.replace("{}/", f"{folder}/") for flag in flags]
    assert run(folder, *given) == 2
    told = capfd.readouterr().err.strip().splitlines()
    if line.endswith(": "):
        assert told[-1].startswith(line)
        assert str(folder) in told[-1]
    else:
        assert told[-1] == line.replace("{}/", f"{folder}/")
    assert not any("Traceback" in each for each in told)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("methud: grpo\n", "{}: methud: unknown key, did you mean 'method'?"),
        ("max_steps: [1]\n", "{}: max_steps: expected int, got [1]"),
        ("max_steps: 2.5\n", "{}: max_steps: expected int, got 2.5"),
        ("learning_rate: true\n", "{}: learning_rate: expected float, got True"),
        ("use_vllm: 3\n", "{}: use_vllm: expected true or false, got 3"),
        ("eval_strategy: no\n", "{}: eval_strategy: False is unknown: expected no, steps, epoch"),
        ("- estimator\n", "{}: expected keys and values"),
        ("rewards: {a: b\n", "{}: line 2: expected ',' or '}', but got '<stream end>'"),
        (None, "--config: {}: no such file or directory"),
    ],
)
def test_a_faulty_yaml_is_one_line(tmp_path, capfd, text, line):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    assert train_from_flags(["--config", str(path)]) == 2
    assert line.replace("{}", str(path)) in capfd.readouterr().err.splitlines()


def test_env_sets_variables(folder, monkeypatch):
    monkeypatch.setenv("STEPCREDIT_TRIED", "0")
    with (folder / "recipe.yaml").open("a") as recipe:
        recipe.write("env: {STEPCREDIT_TRIED: 7}\n")
    values_of(folder)
    assert os.environ["STEPCREDIT_TRIED"] == "7"


def test_a_missing_model_is_named(capfd):
    assert train_from_flags(["--use_cpu", "true", "--bf16", "false"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines == [
        "model_name_or_path: required: a folder or a name on the Hub",
        'rewards: required, such as {"accuracy": "maths"}',
        "dataset_name: required: a file, a folder or a name on the Hub",
    ]


def test_a_baseline_is_one_changed_key(folder):
    values, notes = values_of(folder, "--method", "grpo")
    assert (values["method"], values["fields"]) == ("grpo", None)
    assert values["process_signal"] == "arithmetic"
    assert notes == ("fields: left out, because they are not fields of --method grpo",)
    values, notes = values_of(folder, "--method=pass-min", "--fields", '{"eps": 0.1}')
    assert read_recipe(values).training.credit()["method"].eps == 0.1
    assert not notes
    values, notes = values_of(folder, "--process_signal", "none")
    assert (values["process_signal"], notes) == (None, ())
    assert values_of(folder)[0]["fields"] == {"k": 0.9, "gate": False}


def test_fields_of_a_flag_are_merged_into_the_recipes(folder):
    values, notes = values_of(folder, "--fields", '{"gate": true, "weights": {"process": 2}}')
    assert values["fields"] == {"k": 0.9, "gate": True, "weights": {"process": 2}}
    assert notes == (f"fields: k stay as in {folder / 'recipe.yaml'}",)
    recipe = folder / "recipe.yaml"
    text = recipe.read_text()
    assert "\nfields: {k: 0.9, gate: false}" in text
    weights = "{process: 1.0, outcome: 1.0}"
    recipe.write_text(text.replace("{k: 0.9,", f"{{k: 0.9, weights: {weights},"))
    values, _ = values_of(folder, "--fields", '{"weights": {"process": 2}}')
    assert values["fields"]["weights"] == {"process": 2, "outcome": 1.0}
    values, _ = values_of(folder, "--fields", '{"weights": [1, 2, 0]}')
    assert values["fields"] == {"k": 0.9, "gate": False, "weights": [1, 2, 0]}
    flags = ["--method", "pass", "--fields", '{"clip": 2}']
    assert values_of(folder, *flags)[0]["fields"] == '{"clip": 2}'  # of --method, not of the recipe
    assert values_of(folder, "--fields", "none of it")[0]["fields"] == "none of it"


def test_old_keys_and_flags_are_read_with_a_warning(folder):
    recipe = folder / "recipe.yaml"
    old = (
        recipe.read_text()
        .replace("method:", "estimator:")
        .replace("\nfields:", "\nestimator_fields:")
    )
    recipe.write_text(old)
    with pytest.warns(
        FutureWarning,
        match=r"the setting estimator_fields is now called fields; the old name goes in 0\.2\.0$",
    ):
        values, notes = values_of(folder)
    assert (values["method"], values["fields"], notes) == ("pass", {"k": 0.9, "gate": False}, ())
    with pytest.warns(
        FutureWarning,
        match=r"the setting estimator is now called method; the old name goes in 0\.2\.0$",
    ):
        values, notes = values_of(folder, "--estimator", "grpo")
    assert (values["method"], values["fields"]) == ("grpo", None)
    assert notes == ("fields: left out, because they are not fields of --method grpo",)


def test_an_old_key_beside_the_new_one_is_one_line(tmp_path, capfd):
    line = "estimator: it is the old name of method: give only method"
    path = tmp_path / "recipe.yaml"
    path.write_text("method: pass\nestimator: grpo\n")
    assert train_from_flags(["--config", str(path)]) == 2
    assert capfd.readouterr().err.strip() == line
    assert train_from_flags(["--method", "pass", "--estimator=grpo"]) == 2
    assert capfd.readouterr().err.strip() == line


OWN = """\
from dataclasses import dataclass

import stepcredit as sc
from stepcredit.rewards import Reward, register_reward


@sc.register("launched-own")
@dataclass(frozen=True)
class Own(sc.Estimator):
    def credit(self, rollouts):
        return sc.Credit.flat(rollouts, 2 * rollouts.outcome[:, None])


@sc.register_signal("launched-lengths")
@dataclass(frozen=True)
class Lengths(sc.Signal):
    grain = "steps"
    identity = {"signal": "launched-lengths"}

    def stream(self, responses):
        for row, response in enumerate(responses):
            yield row, [float(len(step)) for step in response.step_texts]


@register_reward("launched-short")
@dataclass(frozen=True)
class Short(Reward):
    def rewards(self, texts, facts):
        return [1.0 / (1 + len(text)) for text in texts]


def third(completions, **columns):
    return [len(completion) / 3 for completion in completions]
"""


def test_a_module_of_ones_own_gives_all_kinds_by_name(folder, tmp_path):
    """In a process of its own, for what is registered stays; the recipe names the file alone."""
    (folder / "my_launched.py").write_text(OWN)
    recipe = folder / "recipe.yaml"
    lines = recipe.read_text().splitlines()
    kept = [
        line for line in lines if not line.startswith(("fields", "reward", "method", "process"))
    ]
    kept += [
        f"import: {folder}/my_launched.py",
        "method: launched-own",
        "process_signal: launched-lengths",
        "rewards: {short: launched-short, third: 'my_launched:third'}",
    ]
    recipe.write_text("\n".join(kept) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "stepcredit.launch", "--config", str(recipe)],
        cwd=tmp_path.parent,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "credit by launched-own" in done.stdout
    assert "  process: launched-lengths" in done.stdout
    history = json.loads((folder / "out/trainer_state.json").read_text())["log_history"]
    assert {"rewards/short/mean", "rewards/third/mean"} <= set(history[0])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "import: {}/mine_here.py: no such file"),
        ("x = 1\ny = z", "import: {}/mine_here.py: line 2: NameError: name 'z' is not defined"),
    ],
)
def test_a_module_that_fails_is_one_line(folder, capfd, text, line):
    if text is not None:
        (folder / "mine_here.py").write_text(text)
    assert run(folder, "--import", f"{folder}/mine_here.py") == 2
    assert capfd.readouterr().err.strip().splitlines()[-1] == line.replace("{}", str(folder))


def test_the_import_key_is_a_text_or_a_list(folder, capfd):
    recipe = folder / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text + "import: [a.py, b]\n")
    assert values_of(folder)[0]["import"] == ["a.py", "b"]
    assert values_of(folder, "--import", "c", "d.py")[0]["import"] == ["c", "d.py"]
    recipe.write_text(text + "import: {a: 1}\n")
    assert run(folder) == 2
    line = "import: expected a module, or a list of modules, got {'a': 1}"
    assert capfd.readouterr().err.strip().splitlines()[-1] == line


TOOLS = '''
def double(number: int) -> int:
    """Double a number.

    Args:
        number: any.
    """
    return 2 * number
'''


def test_named_tools_are_the_trainers(folder, monkeypatch):
    given = {}
    (folder / "tools_here.py").write_text(TOOLS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(script, "StepCreditGRPOTrainer", lambda **settings: given.update(settings))
    values, notes = values_of(folder, "--tools", "tools_here:double")
    script.trainer_of_recipe(read_recipe(values, notes))
    assert [tool.__name__ for tool in given["tools"]] == ["double"]
    given.clear()
    script.trainer_of_recipe(read_recipe(*values_of(folder)))
    assert "tools" not in given


def test_help_tells_every_key_of_ours(capsys):
    assert train_from_flags(["--help"]) == 0
    shown = capsys.readouterr().out
    for key in ("dataset_name", "reward_fields", "method", "process_signal", "--smoke"):
        assert f"  {key} " in shown
    assert max(map(len, shown.splitlines())) <= 100
    everything = help_text(everything=True)
    for key in ("--vllm_mode", "--lora_r", "--columns", "--splitter"):
        assert key in everything


@pytest.mark.parametrize("name", ["stepcredit.launch", "stepcredit.engines.trl"])
def test_the_modules_are_the_script(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-m", name, "--config", "no.yaml"],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "--config: no.yaml: no such file or directory"


def test_a_row_without_an_answer_gets_no_reward():
    scored = NamedReward("right", TRLReward("exact"))
    asked = {"prompts": ["?"] * 3, "completions": ["4", "4", "5"], "trainer_state": None}
    assert scored(**asked, answer=["4", None, "4"]) == [1.0, None, 0.0]
    assert scored(**asked, answer=[None] * 3) == [None] * 3
    check_facts([scored], [{"prompt": "?", "answer": None}])


def test_a_reward_may_be_a_function(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text("def short(completions, **_):\n    return [0.5]\n")
    monkeypatch.chdir(tmp_path)
    (found,) = reward_functions({"short": "my_rewards:short"}, {})
    assert (found.__name__, found(prompts=["?"], completions=["a"])) == ("short", [0.5])
    with pytest.raises(SettingError, match=r"rewards\.no: my_rewards:long: AttributeError"):
        reward_functions({"no": "my_rewards:long"}, {})
    with pytest.raises(SettingError, match=r"reward_fields\.short: a function has no fields"):
        reward_functions({"short": "my_rewards:short"}, {"short": {"limit": 3}})


def test_the_layouts_judge_is_the_format_reward(folder):
    recipe = read_recipe(values_of(folder)[0])
    tag_format(recipe.training, reward_functions({"right": "exact", "layout": "format"}, {}))
    assert recipe.training.format_reward == "layout"
    recipe.training.format_reward = "right"
    tag_format(recipe.training, reward_functions({"a": "format", "b": "format"}, {}))
    assert recipe.training.format_reward == "right"


def test_auto_resumes_only_where_there_is_a_checkpoint(folder):
    training = read_recipe(values_of(folder, "--resume_from_checkpoint", "auto")[0]).training
    assert checkpoint_of(training) is None
    (folder / "out/checkpoint-8").mkdir(parents=True)
    assert checkpoint_of(training) == f"{folder}/out/checkpoint-8"


@pytest.mark.parametrize("protocol", PROTOCOLS.names())
def test_a_tiny_reward_model_is_read_by_each_protocol(tmp_path, protocol):
    model = save_reward_model(tmp_path / "prm", protocol, {})
    prm = signal("prm", model=model, protocol=protocol, device="cpu")
    response = Response.of_text("2 + 3?", "2 + 3 = 5.\n\nSo 5.")
    (scores,) = prm.scores([splitter("blank-line").split(response)])
    low, high = prm.protocol_used.range
    assert len(set(scores)) == 2
    assert all(low <= score <= high for score in scores)


def test_smoke_changes_models_rows_and_steps_alone(folder, tmp_path):
    served = {"url": "http://localhost:1", "model": "big", "protocol": "pure", "empty": "score"}
    teacher = {"teacher": {"url": "http://localhost:1", "model": "big"}, "tokenizer": "x", "lam": 2}
    flags = ["--process_signal", '{"prm": "prm-served", "teacher": "g-opd"}']
    flags += ["--process_signal_fields", json.dumps({"prm": served, "teacher": teacher})]
    flags += ["--num_generations", "4", "--gradient_accumulation_steps", "8"]
    flags += ["--steps_per_generation", "16", "--use_vllm", "true", "--rollouts_dir", "kept"]
    values, _ = values_of(folder, *flags)
    place = tmp_path / "smoke"
    place.mkdir()
    tiny, told = for_smoke_test(values, place)
    assert sorted(line.partition(":")[0] for line in told) == sorted(
        key for key in values if tiny[key] != values[key]
    )
    kept = ("method", "fields", "splitter", "rewards", "reward_fields", "columns")
    kept += ("num_generations", "loss_type", "beta", "learning_rate", "system_prompt")
    assert [tiny[key] for key in kept] == [values[key] for key in kept]
    assert (tiny["max_steps"], tiny["use_vllm"]) == (2, False)
    first = json.loads(Path(tiny["dataset_name"]).read_text().partition("\n")[0])
    assert (first["problem"], first["gold"]) == ("2 + 5 =", {"value": "7"})
    assert {Path(tiny[key]).parent for key in ("output_dir", "rollouts_dir")} == {place}
    assert tiny["steps_per_generation"] == 2 * tiny["gradient_accumulation_steps"]
    assert tiny["process_signal"] == {"prm": "prm", "teacher": "g-opd"}
    prm, opd = tiny["process_signal_fields"]["prm"], tiny["process_signal_fields"]["teacher"]
    assert prm == {
        "model": f"{place}/reward-model-pure",
        "protocol": "pure",
        "empty": "score",
        "device": "cpu",
    }
    assert (opd["lam"], opd["teacher"]) == (2, f"{place}/teacher")
    assert "student" not in opd
    assert Path(opd["tokenizer"]) == place / "policy"


def test_smoke_refuses_what_no_tiny_model_can_answer(folder, capfd):
    fields = '{"url": "http://localhost:1", "model": "big"}'
    flags = ("--process_signal", "judge", "--process_signal_fields", fields)
    assert run(folder, *flags, "--smoke") == 2
    line = "judge: --smoke has no tiny model that gives verdicts; try the rest without it, by"
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last == f"process_signal: {line} --process_signal none"
    assert run(folder, "--process_signal", "none", "--smoke") == 0
    last = capfd.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"smoke: [1-9]\d* of \d+ responses had a nonzero advantage", last)
