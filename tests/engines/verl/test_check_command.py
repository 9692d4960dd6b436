"""`python -m stepcredit.engines.verl --check`: a whole config is checked, nothing is started."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import pandas
from omegaconf import OmegaConf
from transformers import PreTrainedModel

from stepcredit.engines.preflight import run_folders
from stepcredit.engines.verl import checkpoint_space
from stepcredit.engines.verl.check_command import check_from_flags
from stepcredit.launch.tiny_models import save_language_model, save_reward_model

CREDIT = "algorithm.stepcredit"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny policy and reward model, and a data set in verl's columns."""
    folder = tmp_path_factory.mktemp("files")
    save_language_model(folder / "policy")
    save_reward_model(folder / "prm", "token-classifier", {})
    rows = [
        {
            "data_source": "openai/gsm8k",
            "prompt": [{"role": "user", "content": f"{n} + 1 ="}],
            "reward_model": {"style": "rule", "ground_truth": str(n + 1)},
            "extra_info": {"index": n},
        }
        for n in range(4)
    ]
    pandas.DataFrame(rows).to_parquet(folder / "rows.parquet")
    return folder


@pytest.fixture
def check(files, tmp_path):
    """Runs the command on a config without a fault, whose overrides may plant one."""

    def run(*overrides):
        return check_from_flags(
            [
                "--check",
                "algorithm.adv_estimator=grpo",
                "trainer.v1.trainer_mode=stepcredit",
                "trainer.save_freq=10",
                f"trainer.default_local_dir={tmp_path}/out",
                f"actor_rollout_ref.model.path={files}/policy",
                "actor_rollout_ref.rollout.name=vllm",
                "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
                f"data.train_files={files}/rows.parquet",
                f"+data.cache_dir={tmp_path}/cache",
                "data.max_prompt_length=64",
                "data.max_response_length=128",
                f"+{CREDIT}.process_signal=prm",
                f"+{CREDIT}.process_signal_fields.model={files}/prm",
                f"+{CREDIT}.process_signal_fields.protocol=token-classifier",
                f"+{CREDIT}.process_signal_fields.empty=score",
                *overrides,
            ]
        )

    return run


def test_a_config_without_a_fault(check, capsys, tmp_path):
    assert check() == 0
    shown = capsys.readouterr().out
    assert "mean advantages" in shown
    assert "  process: prm(model=" in shown
    assert "memory of one GPU, estimated: " in shown
    assert "; G = 8" in shown
    assert shown.splitlines()[-1].startswith("preflight: ")
    assert not (tmp_path / "out").exists()
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_a_validation_of_other_rows_in_each_run_is_noted(check, capsys):
    line = "verl draws 3 of them anew in each run, so that runs can't be compared: set data.seed"
    for seed, noted in (("null", True), ("0", False)):
        assert check("data.val_max_samples=3", f"data.seed={seed}") == 0
        assert (line in " ".join(capsys.readouterr().out.split())) == noted


def test_several_faults_are_one_list(check, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code = check(
        f"+{CREDIT}.fields.kk=1",
        f"+{CREDIT}.outcome_reward=exakt",
        f"{CREDIT}.process_signal_fields.model=no/such/model",
        f"trainer.default_local_dir={tmp_path}/file/out",
    )
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    for line in (
        f"{CREDIT}.fields.kk: pass has no such field, did you mean 'k'?",
        f"{CREDIT}.outcome_reward: unknown reward 'exakt', did you mean 'exact'?",
    ):
        assert line in lines
    assert any(line.startswith(f"{CREDIT}.process_signal: no/such/model") for line in lines)
    assert any(line.startswith(f"trainer.default_local_dir: {tmp_path}/file/out") for line in lines)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["data.train_files=no.parquet"], "data.train_files: "),
        (
            ["reward.custom_reward_function.path=no_such.py"],
            "reward.custom_reward_function: FileNotFoundError: ",
        ),
        (
            [
                f"{CREDIT}.process_signal=prm-served",
                f"+{CREDIT}.process_signal_fields.url=http://127.0.0.1:9",
                f"+{CREDIT}.process_signal_fields.backoff=0.01",
                f"{CREDIT}.process_signal_fields.protocol=qwen2.5-math-prm",
            ],
            f"{CREDIT}.process_signal: ",
        ),
        (["algorithm.use_pf_ppo=true"], "algorithm.use_pf_ppo: True samples the rows again"),
    ],
)
def test_each_fault_is_a_line(check, capsys, overrides, line):
    assert check(*overrides) == 2
    assert any(each.startswith(line) for each in capsys.readouterr().err.splitlines())


def test_the_trainer_runs_it_before_a_worker_starts(check, files, tmp_path, capsys, monkeypatch):
    """The command's own config, given to the trainer's hook: a fault stops it."""
    from stepcredit.engines.verl import check_command
    from stepcredit.engines.verl.config_keys import VerlSettings
    from stepcredit.engines.verl.trainer import StepCreditPPOTrainer
    from stepcredit.errors import SeveralErrors

    configs = []
    whole = check_command.check_whole_config
    monkeypatch.setattr(
        check_command,
        "check_whole_config",
        lambda found, config: configs.append(config) or whole(found, config),
    )
    more = (f"data.val_files={files}/rows.parquet", "data.train_batch_size=2")
    workers = "data.dataloader_num_workers=0"
    assert check(*more, workers) == 0
    wrong = "reward.custom_reward_function.path=no_such.py"
    check(*more, workers, wrong, "trainer.default_local_dir=/proc/no/out")
    from transformers import AutoTokenizer

    trainer = StepCreditPPOTrainer.__new__(StepCreditPPOTrainer)
    trainer.tokenizer = AutoTokenizer.from_pretrained(f"{files}/policy")
    trainer.processor, trainer.trainer_mode, trainer.parameter_sync_step = None, "sync", 1
    trainer.config, trainer.credit_settings = configs[0], VerlSettings.of(configs[0])
    capsys.readouterr()
    trainer._init_dataloader()
    shown = capsys.readouterr().out
    assert "signal process (its model is loaded only by the reward workers)" in shown
    prm = trainer.credit_settings.signals["process"]
    assert not any(isinstance(each, torch.nn.Module) for each in _kept_by(prm))
    trainer.config = configs[1]
    with pytest.raises(SeveralErrors) as refused:
        trainer._init_dataloader()
    keys = [line.partition(":")[0] for line in str(refused.value).splitlines()]
    assert {"reward.custom_reward_function", "trainer.default_local_dir"} <= set(keys)


def _kept_by(signal):
    """What a signal keeps, and what those keep, such as a loaded model."""
    kept = list(vars(signal).values())
    return [*kept, *(inner for each in kept for inner in getattr(each, "__dict__", {}).values())]


def _models_in_memory():
    gc.collect()
    return sum(issubclass(type(each), PreTrainedModel) for each in gc.get_objects())


def test_nothing_that_it_loads_stays_in_memory(check):
    before = _models_in_memory()
    assert check() == 0
    assert _models_in_memory() == before


def _reward_file(folder, body):
    """A reward function of the user's, as an override."""
    path = folder / "mine.py"
    begin = "import numpy, torch\ndef compute_score(data_source, solution_str, ground_truth"
    path.write_text(f"{begin}, extra_info):\n    {body}\n")
    return f"reward.custom_reward_function.path={path}"


@pytest.mark.parametrize(
    "body",
    [
        "return 1.0 / extra_info['num_turns']",
        "return float(extra_info['rollout_reward_scores'] == {})",
        "return float(extra_info.pop('index') >= 0)",
        "return numpy.bool_(True)",
        "return torch.tensor(1.0)",
        "return {'score': numpy.float32(0.5)}",
    ],
)
def test_a_reward_function_that_works_under_verl_passes(check, tmp_path, body):
    assert check(_reward_file(tmp_path, body)) == 0


def test_a_reward_function_without_a_number_is_a_fault(check, tmp_path, capsys):
    assert check(_reward_file(tmp_path, "return 'good'")) == 2
    place = "reward.custom_reward_function: "
    assert [line[: len(place)] for line in capsys.readouterr().err.splitlines()] == [place]


@pytest.fixture
def foreign_rows(files, tmp_path):
    """The same rows from a source that verl's own reward function does not know."""

    def write(**columns):
        rows = pandas.read_parquet(files / "rows.parquet")
        rows = rows.assign(data_source="mine", **columns)
        rows.to_parquet(tmp_path / "mine.parquet")
        return f"data.train_files={tmp_path}/mine.parquet"

    return write


def test_rows_that_no_reward_function_knows_are_a_fault(check, foreign_rows, capsys):
    assert check(foreign_rows()) == 2
    assert "\ndata.reward_fn_key: NotImplementedError: " in capsys.readouterr().err


def test_an_agent_loop_that_a_row_names_gives_the_outcomes(check, foreign_rows, capsys):
    assert check(foreign_rows(agent_name="my_agent")) == 0
    assert "the agent loop my_agent may give them" in capsys.readouterr().out


def test_another_reward_manager_gives_the_outcomes(check, foreign_rows, capsys, tmp_path):
    path = tmp_path / "manager.py"
    path.write_text(
        "from stepcredit.engines.verl.reward_manager import StepCreditRewardManager\n"
        "class Mine(StepCreditRewardManager):\n    pass\n"
    )
    manager = "reward.reward_manager"
    own = (f"{manager}.source=importlib", f"{manager}.name=Mine", f"{manager}.module.path={path}")
    assert check(foreign_rows(), *own) == 0
    assert "the reward manager Mine gives them" in capsys.readouterr().out


def test_a_data_set_of_ones_own_class_is_skipped(check, tmp_path, capsys):
    path = tmp_path / "own.py"
    path.write_text(
        "from verl.utils.dataset.rl_dataset import RLHFDataset\nclass Own(RLHFDataset):\n    pass\n"
    )
    assert check(f"data.custom_cls.path={path}", "data.custom_cls.name=Own") == 0
    assert "a data set of your own class" in capsys.readouterr().out


def test_a_response_that_the_sampler_ends_early_is_a_note(check, capsys):
    """verl's samplers end it at their context, so the run works."""
    own = "actor_rollout_ref.model.override_config.max_position_embeddings"
    signal = (f"{CREDIT}.process_signal=equations", f"{CREDIT}.process_signal_fields=null")
    longer = ("data.max_response_length=8192", *signal)
    assert check(*longer) == 0
    assert "after a prompt of 64 it ends responses at 4032, not at 8192" in _one_line(capsys)
    assert check(*longer, f"+{own}=16384") == 0
    assert "64 + 8192 of 16384" in _one_line(capsys)


def _one_line(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_a_policy_whose_code_is_its_own(check, files, tmp_path):
    """Its config is loaded as verl loads it, with `trust_remote_code`."""
    folder = shutil.copytree(files / "policy", tmp_path / "policy")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_mine.py").write_text(
        "from transformers import Qwen2Config\n\n\nclass Mine(Qwen2Config):\n"
        "    model_type = 'mine'\n"
    )
    model = "actor_rollout_ref.model"
    assert check(f"{model}.path={folder}", f"{model}.trust_remote_code=true") == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1200),  # 100 parameters: 4 bytes each, and two moments
        ({"actor.checkpoint.save_contents": ["model"]}, 400),
        ({"actor.checkpoint.save_contents": ["optimizer", "extra"]}, 800),
        ({"actor.checkpoint.save_contents": ["model", "hf_model"]}, 600),
        ({"actor.fsdp_config.model_dtype": "bf16"}, 600),
        ({"actor.optim.optimizer": "SGD"}, 400),
        ({"model.lora_rank": 8}, 400),
        ({"model.lora_rank": 8, "actor.checkpoint.save_lora_only": True}, 0),
    ],
)
def test_the_size_of_a_checkpoint(changes, expected):
    config = OmegaConf.create(
        {
            "actor": {
                "checkpoint": {"save_contents": ["model", "optimizer", "extra"]},
                "optim": {"optimizer": "AdamW"},
                "fsdp_config": {"model_dtype": "fp32"},
            },
            "model": {"lora_rank": 0},
        }
    )
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    assert checkpoint_space.saved_bytes(config, 100) == expected


def test_a_full_disk(check, capsys, monkeypatch, tmp_path):
    """5712 parameters take 68.5 kB with their moments, 22.8 kB without."""
    usage = SimpleNamespace(free=160_000)
    monkeypatch.setattr(run_folders.shutil, "disk_usage", lambda _: usage)
    steps = "trainer.total_training_steps=30"
    assert check(steps) == 2
    begin = "trainer.default_local_dir: 3 checkpoints take 205.6 kB, and 160.0 kB are free"
    assert any(line.startswith(begin) for line in capsys.readouterr().err.splitlines())
    assert check(steps, "actor_rollout_ref.actor.checkpoint.save_contents=[model]") == 0
    assert check(steps, "trainer.max_actor_ckpt_to_keep=2") == 0
    assert check(steps, "actor_rollout_ref.model.lora_rank=4") == 0
    capsys.readouterr()
    assert check(steps, "trainer.nnodes=2") == 0
    assert "each node writes its part" in _one_line(capsys)
    before = tmp_path / "out" / "global_step_10"
    before.mkdir(parents=True)
    (before / "model.pt").write_bytes(bytes(68_544))
    assert check(steps) == 0


MODES = "stepcredit, stepcredit_colocate_async, stepcredit_separate_async"
SYNC = "trainer.v1.trainer_mode=sync"


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
def test_keys_that_verls_own_trainer_ignores_are_a_fault(check, capsys, mode):
    assert check(f"trainer.v1.trainer_mode={mode}", f"+{CREDIT}.fields.kk=1") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"{CREDIT}: trainer.v1.trainer_mode={mode} does not read these keys, and grpo would train "
        f"instead: use one of the modes {MODES}",
        f"{CREDIT}.fields.kk: pass has no such field, did you mean 'k'?",  # beside all other faults
    ]


def test_an_unknown_trainer_mode_is_a_fault(check, capsys):
    assert check("trainer.v1.trainer_mode=stepcredt") == 2
    line = "trainer.v1.trainer_mode: ValueError: Unknown trainer 'stepcredt'. Available trainers: "
    assert capsys.readouterr().err.startswith(line)


def test_a_run_of_verl_without_credit_is_told_so(check, capsys):
    assert check(SYNC, f"~{CREDIT}") == 0
    said = f"{SYNC} computes no credit: use one of the modes {MODES}"
    assert f"rows, rewards and credit ({said})" in _one_line(capsys)


def test_an_estimator_of_ours_under_verls_own_trainer(check, capsys):
    """Its keys are read there, its credit is tried, and others are refused."""
    rloo = (SYNC, "algorithm.adv_estimator=stepcredit-rloo", f"~{CREDIT}")
    fields = f"+{CREDIT}.fields.clip=1.0"
    assert check(*rloo) == 0
    assert (
        check(SYNC, rloo[1], f"~{CREDIT}.process_signal", f"~{CREDIT}.process_signal_fields") == 0
    )
    shown = capsys.readouterr().out
    assert "mean advantages" in shown
    assert "advantages: stepcredit-rloo, of rewards alone" in shown
    assert check(SYNC, rloo[1], fields) == 2
    assert capsys.readouterr().err.startswith(f"{CREDIT}.process_signal: stepcredit-rloo gets ")
    assert check(SYNC, "algorithm.adv_estimator=stepcredit-pass", f"~{CREDIT}") == 2
    assert capsys.readouterr().err.startswith("algorithm.adv_estimator: ValueError: ")


def test_a_trainer_of_the_users_may_read_the_keys(check, monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainerSync, trainer_base

    class Mine(PPOTrainerSync):
        pass

    monkeypatch.setitem(trainer_base.TRAINER_REGISTRY, "mine", Mine)
    assert check("trainer.v1.trainer_mode=mine") == 0
