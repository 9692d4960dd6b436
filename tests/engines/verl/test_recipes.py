"""verl's recipes: each composes, passes verl's own checks, and names nothing that isn't there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("verl", reason="verl is not installed: its recipes are not tested")

from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl.trainer.distillation.losses import distillation_ppo_loss
from verl.trainer.ppo.utils import create_rl_dataset, need_critic, need_reference_policy
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.workers.utils.losses import ppo_loss

from stepcredit.engines.verl.config_checks import check_config
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.score_function import as_compute_score
from stepcredit.engines.verl.trainer import check_verls_own, is_verls_own
from stepcredit.lab.tokenizer import build_tokenizer
from stepcredit.rewards import reward

FOLDER = Path(__file__).resolve().parents[3] / "recipes"
RECIPES = sorted(FOLDER.glob("*/verl*.yaml"))
OWN = "algorithm.stepcredit"
RENAMED = {
    "log_prob_micro_batch_size": "ppo_micro_batch_size",
    "log_prob_micro_batch_size_per_gpu": "ppo_micro_batch_size_per_gpu",
    "log_prob_use_dynamic_bsz": "use_dynamic_bsz",
    "log_prob_max_token_len_per_gpu": "ppo_max_token_len_per_gpu",
}
"""What verl's worker calls the reference policy's keys before it builds its settings."""

each_recipe = pytest.mark.parametrize(
    "recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}"
)


@cache
def composed(recipe: Path, *overrides: str) -> DictConfig:
    """verl's whole config, as `--config-dir` and `--config-name` compose it: not to be changed."""
    beside = "hydra.searchpath=[pkg://verl.trainer.config]"
    with initialize_config_dir(str(recipe.parent), version_base=None):
        return compose(recipe.stem, overrides=[beside, *overrides])


def leaves(config: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of a YAML's values."""
    for key, value in config.items():
        place = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from leaves(value, place)
        else:
            yield place


def header(recipe: Path) -> str:
    """The comments at a recipe's beginning, lines that end in a backslash joined."""
    lines = [
        line.removeprefix("#")
        for line in recipe.read_text().partition("\ndefaults")[0].splitlines()
    ]
    return "\n".join(lines).replace("\\\n", " ")


OVERRIDE = re.compile(r"~[a-z][\w.]*|\+?[a-z][\w.]*=.*")


def baselines(recipe: Path) -> list[list[str]]:
    """The overrides of each baseline that a recipe's header names."""
    listed = header(recipe).partition("Baselines")[2].splitlines()
    rows = [
        [word.replace("'", "") for word in re.findall(r"(?:'[^']*'|[^\s'])+|'", line)]
        for line in listed
    ]
    found = [list(takewhile(OVERRIDE.fullmatch, words)) for words in rows]
    return [overrides for overrides in found if overrides]


def test_there_are_as_many_as_are_told() -> None:
    found = [str(path.relative_to(FOLDER)) for path in RECIPES]
    pure = ["pure/verl-prm-vr.yaml", "pure/verl-prm.yaml", "pure/verl-vr.yaml"]
    qa = ["pass-qa/verl-gopd.yaml", "pass-qa/verl-opd.yaml"]
    without = ["without-a-prm/verl-arithmetic.yaml", "without-a-prm/verl-judge.yaml"]
    assert found == ["pass-maths/verl.yaml", *qa, *pure, *without]


@each_recipe
def test_is_evaluated_on_rows_that_it_does_not_train_on(recipe: Path) -> None:
    config = composed(recipe)
    assert config.data.val_files != config.data.train_files
    assert config.trainer.test_freq > 0
    samples = config.actor_rollout_ref.rollout.val_kwargs
    assert (samples.n, samples.do_sample) == (4, True)
    assert samples.temperature == config.actor_rollout_ref.rollout.temperature
    assert config.trainer.max_actor_ckpt_to_keep == 2


@each_recipe
def test_composes_and_passes_verls_checks(recipe: Path) -> None:
    config = composed(recipe, "trainer.nnodes=4")
    assert config.trainer.v1.trainer_mode == "stepcredit"
    with pytest.warns(UserWarning, match="Disabled critic"):
        critic = need_critic(config)
    assert not critic
    validate_config(config, need_reference_policy(config), critic)


@each_recipe
def test_every_section_is_what_verl_builds_of_it(recipe: Path) -> None:
    config = deepcopy(composed(recipe))
    OmegaConf.set_struct(config, False)
    policy = config.actor_rollout_ref
    for own, name in RENAMED.items():
        policy.ref[name] = policy.ref.pop(own)
    policy.ref.ppo_mini_batch_size = policy.actor.ppo_mini_batch_size
    for section in (policy.actor, policy.ref, policy.rollout):
        omega_conf_to_dataclass(section)
    distillation = omega_conf_to_dataclass(config.distillation)
    assert distillation.enabled is ("opd" in recipe.stem)


@each_recipe
def test_no_key_is_unknown(recipe: Path) -> None:
    given = yaml.safe_load(recipe.read_text())
    given.pop("defaults")
    with initialize_config_module("verl.trainer.config", version_base=None):
        plain = compose("ppo_trainer")
    known = set(leaves(OmegaConf.to_container(plain)))
    own = {path for path in leaves(given) if not path.startswith(OWN)}
    assert own - known == set()


@each_recipe
def test_credits_keys_build_and_nothing_is_refused(recipe: Path) -> None:
    config = composed(recipe)
    settings = VerlSettings.of(config)
    check_config(config, settings)
    assert settings.estimator.name == ("pure" if recipe.parent.name == "pure" else "pass")
    assert set(settings.signals) == (set() if recipe.stem == "verl-vr" else {"process"})
    assert set(settings.scored_in_trainer) == ({"process"} if "opd" in recipe.stem else set())
    assert settings.outcome_reward is not None


@each_recipe
def test_baselines_are_one_line(recipe: Path) -> None:
    named = baselines(recipe)
    assert len(named) >= 3 or "defaults:\n  - verl-" in recipe.read_text()
    usual = composed(recipe)
    for overrides in named:
        changed = composed(recipe, *overrides)
        assert changed != usual
        trainer = get_trainer_cls(changed.trainer.v1.trainer_mode)
        check_verls_own(changed, trainer)
        if not is_verls_own(trainer):
            assert len(overrides) == 1
            check_config(changed, VerlSettings.of(changed))
        else:
            assert VerlSettings.of(changed).outcome_reward == VerlSettings.of(usual).outcome_reward


@each_recipe
def test_command_in_the_header_is_this_recipes(recipe: Path) -> None:
    commands = re.findall(r"main_ppo (.*)", header(recipe))
    if not commands:
        assert "defaults:\n  - verl-" in recipe.read_text()
        return
    for command in commands:
        options = shlex.split(command.replace("$PWD", str(FOLDER.parent)))
        flags = dict(zip(options[:4:2], options[1:4:2], strict=True))
        assert flags == {"--config-dir": str(recipe.parent), "--config-name": recipe.stem}
        config = composed(recipe, *options[4:])
        gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
        batch = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
        assert batch % gpus == 0


def test_command_line_composes_the_same() -> None:
    recipe = FOLDER / "pass-qa/verl-gopd.yaml"
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(recipe.parent)]
    command += ["--config-name", recipe.stem, "--cfg", "job", "trainer.nnodes=3"]
    printed = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=200
    ).stdout
    assert OmegaConf.create(printed) == OmegaConf.create(
        OmegaConf.to_yaml(composed(recipe, "trainer.nnodes=3"))
    )


SHARED = {
    "model_name_or_path": "actor_rollout_ref.model.path",
    "dataset_name": "data.train_files",
    "method": f"{OWN}.method",
    "splitter": f"{OWN}.splitter",
    "learning_rate": "actor_rollout_ref.actor.optim.lr",
    "epsilon": "actor_rollout_ref.actor.clip_ratio",
    "beta": "actor_rollout_ref.actor.kl_loss_coef",
    "warmup_steps": "actor_rollout_ref.actor.optim.lr_warmup_steps",
    "num_generations": "actor_rollout_ref.rollout.n",
    "temperature": "actor_rollout_ref.rollout.temperature",
    "max_prompt_length": "data.max_prompt_length",
}
"""Keys of TRL's recipes, and where verl's has the same."""


@each_recipe
def test_is_the_method_of_the_recipe_for_trl(recipe: Path) -> None:
    other = recipe.with_stem("trl" if recipe.stem == "verl" else recipe.stem.removeprefix("verl-"))
    theirs, config = yaml.safe_load(other.read_text()), composed(recipe)
    same = {key: OmegaConf.select(config, place) for key, place in SHARED.items() if key in theirs}
    if theirs.get("use_peft"):
        assert same.pop("learning_rate") < theirs["learning_rate"]  # of all weights, of adapters
    assert same == {key: theirs[key] for key in same}
    betas = [theirs.get("adam_beta1", 0.9), theirs.get("adam_beta2", 0.999)]  # TRL's defaults
    assert list(config.actor_rollout_ref.actor.optim.betas) == betas
    own, fields = VerlSettings.of(config), dict(theirs["fields"])
    if "weights" in fields:
        fields["weights"] = tuple(fields["weights"].values())  # process, outcome, format
    assert {key: getattr(own.estimator, key) for key in fields} == fields
    rewards = theirs["rewards"]
    assert own.outcome_reward == reward(
        rewards["accuracy"], **theirs["reward_fields"].get("accuracy", {})
    )
    if "format" in rewards:
        assert own.format_reward == reward("format", **theirs["reward_fields"]["format"])


@each_recipe
def test_every_run_is_evaluated_on_the_same_rows(recipe: Path) -> None:
    """verl draws `val_max_samples` rows with the data's seed, and without one anew in each run."""
    data = composed(recipe).data
    assert data.val_max_samples <= 0 or data.seed is not None


SOURCES: dict[str, tuple[str, Any, str]] = {
    "deepscaler": ("pass-maths/verl", {"problem": "1+1?", "answer": "2"}, r"\boxed{2}"),
    "gsm8k": (
        "without-a-prm/verl-arithmetic",
        {"question": "2+3?", "answer": "It is 5.\n#### 5"},
        r"\boxed{5}",
    ),
    "math": (
        "pure/verl-vr",
        {"problem": "2+3?", "solution": r"It is \boxed{5}.", "level": "Level 3"},
        r"\boxed{5}",
    ),
    "hotpotqa": (
        "pass-qa/verl-opd",
        {
            "question": "Who wrote it?",
            "answer": "Ann Lee",
            "context": [["It", ["It is by Ann Lee.", " It sold well."]], ["Ann", ["A writer."]]],
            "supporting_facts": [["It", 0]],
        },
        "<answer>ann lee</answer>",
    ),
}
"""For each data set that `prepare.py` makes: a recipe, a row at its source, a right response."""


@pytest.mark.parametrize("name", SOURCES)
def test_verl_reads_and_rewards_prepared_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    recipe, row, right = SOURCES[name]
    source, prepared = tmp_path / "source.json", tmp_path / "rows.parquet"
    source.write_text(json.dumps([row, row]))
    command = [sys.executable, str(FOLDER / "prepare.py"), name, str(prepared)]
    subprocess.run([*command, "--source", str(source)], check=True, timeout=200)
    config = composed(FOLDER / f"{recipe}.yaml", "data.filter_overlong_prompts_workers=1")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for turn in messages %}{{ turn.content }}{% endfor %}"
    data = create_rl_dataset([str(prepared)], config.data, tokenizer, None)
    assert len(data) == 2
    settings = VerlSettings.of(config)
    assert settings.outcome_reward is not None
    judge = as_compute_score(settings.outcome_reward)
    for response, outcome in ((right, 1.0), ("<answer>7</answer> \\boxed{7}", 0.0)):
        known = data[0]["extra_info"]
        answer = data[0]["reward_model"]["ground_truth"]
        assert judge(data[0]["data_source"], response, answer, known)["score"] == outcome


def jagged(*rows: list[Any]) -> torch.Tensor:
    """Rows of unequal length, as verl's queue holds them."""
    tensors = [torch.tensor(row) for row in rows]
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def micro_batch(teacher: float) -> TensorDict:
    """Prompts of 2 and 1 tokens, responses of 2 and 3; the teacher's stand over both."""
    fields = {
        "prompts": jagged([5, 6], [7]),
        "responses": jagged([1, 2], [3, 4, 5]),
        "response_mask": jagged([1, 1], [1, 1, 1]),
        "old_log_probs": jagged([-1.0, -1.0], [-1.0, -1.0, -1.0]),
        "ref_log_prob": jagged([-1.0, -1.1], [-0.9, -1.0, -1.0]),
        "advantages": jagged([0.5, -1.0], [2.0, 0.1, -0.3]),
        "teacher_logprobs": jagged([[teacher]] * 4, [[teacher]] * 4),
    }
    told = {"dp_size": 1, "batch_num_tokens": 5, "global_batch_size": 2}
    return TensorDict({**fields, **told}, batch_size=[])


def gradient(loss: Callable[..., Any], config: DictConfig, teacher: float) -> torch.Tensor:
    """Of one of verl's losses, by the policy's log-probs of prompts and responses."""
    logps = torch.full((8,), -1.0, requires_grad=True)
    value, _ = loss(
        config=omega_conf_to_dataclass(config.actor_rollout_ref.actor),
        model_output={
            "log_probs": torch.nested.nested_tensor_from_jagged(logps, torch.tensor([0, 4, 8]))
        },
        data=micro_batch(teacher),
    )
    (found,) = torch.autograd.grad(value, logps)
    return found


@pytest.mark.parametrize("teacher", [-0.3, -9.0, -torch.inf])
def test_distillation_adds_no_loss_of_its_own(teacher: float) -> None:
    """The teacher's log-probs come to be in the advantages: a loss would count them twice."""
    recipe = FOLDER / "pass-qa/verl-opd.yaml"
    coefficient = "distillation.distillation_loss.distillation_loss_coef=1.0"
    plain, counted = composed(recipe), composed(recipe, coefficient)
    credit = gradient(ppo_loss, plain, teacher)
    whole, twice = (
        gradient(partial(distillation_ppo_loss, distillation_config=told), plain, teacher)
        for told in map(omega_conf_to_dataclass, (plain.distillation, counted.distillation))
    )
    assert credit.abs().sum() > 0
    assert whole.equal(credit)
    assert teacher == -torch.inf or not twice.allclose(credit)
