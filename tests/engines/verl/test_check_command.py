"""`python -m stepcredit.engines.verl --check`: a whole config is checked, nothing is started."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import pandas

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
    assert shown.splitlines()[-1].startswith("preflight: ")
    assert not (tmp_path / "out").exists()
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_several_faults_are_one_list(check, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code = check(
        f"+{CREDIT}.fields.kk=1",
        f"+{CREDIT}.outcome_reward=exakt",
        f"{CREDIT}.process_signal_fields.model=no/such/model",
        "data.max_response_length=8192",
        f"trainer.default_local_dir={tmp_path}/file/out",
    )
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    for line in (
        f"{CREDIT}.fields.kk: pass has no such field, did you mean 'k'?",
        f"{CREDIT}.outcome_reward: unknown reward 'exakt', did you mean 'exact'?",
        "data.max_response_length: 8192 tokens after a prompt of 64 need 8256, the model has 4096",
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
    check(*more, workers, "data.max_response_length=8192", "trainer.default_local_dir=/proc/no/out")
    from transformers import AutoTokenizer

    trainer = StepCreditPPOTrainer.__new__(StepCreditPPOTrainer)
    trainer.tokenizer = AutoTokenizer.from_pretrained(f"{files}/policy")
    trainer.processor, trainer.trainer_mode, trainer.parameter_sync_step = None, "sync", 1
    trainer.config, trainer.credit_settings = configs[0], VerlSettings.of(configs[0])
    capsys.readouterr()
    trainer._init_dataloader()
    assert "preflight: " in capsys.readouterr().out
    trainer.config = configs[1]
    with pytest.raises(SeveralErrors) as refused:
        trainer._init_dataloader()
    keys = [line.partition(":")[0] for line in str(refused.value).splitlines()]
    assert {"data.max_response_length", "trainer.default_local_dir"} <= set(keys)
