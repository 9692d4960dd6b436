"""A step of the trainer on a CPU: all of verl's own but the servers that would generate.

Scripted rollouts go through verl's agent loop, the reward loop's workers (which ask a served reward
model), the queue, the trainer's `_compute_advantage` and one FSDP2 update with verl's policy loss.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import pandas
import ray
import torch
from omegaconf import OmegaConf, open_dict
from tensordict import TensorDict
from tokenizers import decoders
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM

import stepcredit as sc
from stepcredit.engines.verl.trainer import PPOTrainerSync, StepCreditPPOTrainer
from stepcredit.errors import EngineError

pytestmark = pytest.mark.timeout(150, method="thread")  # what waits for Ray hears no signal
HERE = Path(__file__).parent
SERVED = HERE.parents[1] / "signals" / "served"
TOOL = "<tool>6</tool>\n\n"
RESPONSES = {
    "2 + 3?": (
        ["2 + 3 is 5.\n\n", "So it is 5.\n#### 5"],
        ["I count.\n\n", "2, 3, 4.\n\n", "#### 4"],
        ["It is five.\n#### 5"],
        ["A guess:\n\n", "#### 6"],
    ),
    "4 * 5?": (
        ["Four fives.\n\n", "#### 20"],
        ["Let me ask.\n\n", TOOL, "Not 6.\n\n", "#### 20"],
        ["4 + 5 is 9.\n#### 9"],
        ["5 * 4.\n\n", "Hm.\n\n", "Hm.\n\n", "#### 21"],
    ),
}
GOLD = {"2 + 3?": "5", "4 * 5?": "20"}


def loaded(name):
    """A module of the served signals' tests: verl's wheel holds a package `tests` of its own."""
    spec = importlib.util.spec_from_file_location(f"served_{name}", SERVED / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


truth = loaded("truth")


@pytest.fixture(scope="module")
def server():
    """The served reward model's stand-in, in a process of its own."""
    script = [sys.executable, str(SERVED / "server.py")]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        yield loaded("conftest").Misbehaving(f"http://127.0.0.1:{int(process.stdout.readline())}")
        process.kill()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny policy with a token a character, the data set, and where the scripts are found."""
    folder = tmp_path_factory.mktemp("verl")
    tokenizer = truth.tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.save_pretrained(folder / "policy")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 512}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    policy = LlamaForCausalLM(LlamaConfig(vocab_size=len(truth.ALPHABET), **size, **heads))
    policy.save_pretrained(folder / "policy")
    rows = [
        {
            "data_source": "openai/gsm8k",
            "prompt": [{"role": "user", "content": question}],
            "reward_model": {"style": "rule", "ground_truth": GOLD[question]},
            "extra_info": {"index": row, "responses": ["".join(steps) for steps in said]},
        }
        for row, (question, said) in enumerate(RESPONSES.items())
    ]
    pandas.DataFrame(rows).to_parquet(folder / "sums.parquet")
    loop = {"name": "scripted", "_target_": "stepcredit_cpu_workers.ScriptedAgentLoop"}
    OmegaConf.save(OmegaConf.create([loop]), folder / "loops.yaml")
    return folder


@pytest.fixture(scope="module")
def config_of(compose, files, server):
    """A maker of verl's config."""
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    signal = {"url": server.url, "model": "prm", "tokenizer": str(files / "policy")}
    signal |= {"protocol": "qwen2.5-math-prm", "attempts": 2, "backoff": 0.01}
    credit = {
        "process_signal": "prm-served",
        "process_signal_fields": signal,
        "import": str(HERE / "on_cpu" / "own_rule.py"),
        "format_reward": "several-steps",
    }
    base = (
        "trainer.v1.trainer_mode=stepcredit",
        f"actor_rollout_ref.model.path={files / 'policy'}",
        "actor_rollout_ref.model.use_remove_padding=false",
        "+actor_rollout_ref.model.override_config.attn_implementation=eager",
        f"{actor}.strategy=fsdp2",
        f"{actor}.ppo_mini_batch_size=3",
        f"{actor}.use_dynamic_bsz=true",
        f"{actor}.use_torch_compile=false",
        f"{actor}.fsdp_config.use_torch_compile=false",
        f"+{actor}.fsdp_config.mixed_precision.param_dtype=fp32",
        f"{actor}.optim.optimizer=SGD",
        f"{actor}.optim.lr=0.05",
        f"{actor}.optim.weight_decay=0.0",
        f"{rollout}.n=4",
        f"{rollout}.val_kwargs.n=2",
        f"{rollout}.log_prob_use_dynamic_bsz=true",
        f"{rollout}.calculate_log_probs=false",
        f"{rollout}.agent.num_workers=1",
        f"{rollout}.agent.default_agent_loop=scripted",
        f"{rollout}.agent.agent_loop_config_path={files / 'loops.yaml'}",
        f"data.train_files={files / 'sums.parquet'}",
        f"data.val_files={files / 'sums.parquet'}",
        "data.train_batch_size=2",
        "data.max_prompt_length=128",
        "data.max_response_length=256",
        "data.dataloader_num_workers=0",
        "data.shuffle=false",
        "reward.num_workers=2",
        "trainer.total_training_steps=10",
        "trainer.n_gpus_per_node=1",
    )

    def make(*overrides):
        config = compose(*base, *overrides)
        with open_dict(config):
            config.algorithm.stepcredit = credit
        return config

    return make


@pytest.fixture(scope="module")
def actors(transfer_queue, config_of):
    """verl's actor workers, one, and two that share the model and the batch."""
    from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup

    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(HERE / "on_cpu"))
        from stepcredit_cpu_workers import CPUActor

        config = config_of().actor_rollout_ref
        OmegaConf.resolve(config)
        groups = {}
        for count in (1, 2):
            made = RayClassWithInitArgs(ray.remote(CPUActor), config=config, role="actor")
            pool = RayResourcePool([count], use_gpu=False, max_colocate_count=1)
            groups[count] = RayWorkerGroup(pool, made, device_name="cpu")
            groups[count].init_model()
        return groups


@pytest.fixture(scope="module")
def loops(transfer_queue, config_of):
    """verl's reward loop and agent loop, with workers of their own; as the trainer has them."""
    from verl.experimental.reward_loop import RewardLoopManager
    from verl.trainer.ppo.v1 import AgentLoopManagerTQ

    config = config_of()
    StepCreditPPOTrainer(config)
    rewards = RewardLoopManager(config)
    agents = AgentLoopManagerTQ.create(config, None, None, rewards.reward_loop_workers)
    return SimpleNamespace(rewards=rewards, agents=agents)


@pytest.fixture
def trainer_of(transfer_queue, config_of, actors, loops, server):
    """A maker of trainers as verl's `init` leaves them, but for servers that generate."""
    server.plan(setting={"step_tag_id": truth.TAG})

    def make(*overrides, workers=1):
        from verl.trainer.ppo.v1 import get_trainer_cls

        config = config_of(*overrides)
        trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
        trainer._init_tokenizer()
        trainer._init_dataloader()
        trainer.reward_loop_manager, trainer.agent_loop_manager = loops.rewards, loops.agents
        trainer.actor_rollout_wg = actors[workers]
        trainer.actor_rollout_wg.restart()
        trainer.checkpoint_manager = SimpleNamespace(sleep_replicas=lambda: None)
        trainer.curr_step_profile, trainer.distillation_config = False, None
        trainer.global_steps, trainer.timing_raw = 1, {}
        return trainer

    yield make
    for partition, keys in (transfer_queue.kv_list() or {}).items():
        if keys:
            transfer_queue.kv_clear(keys=list(keys), partition_id=partition)


def stepped(trainer):
    """One step: its metrics, and the rows that it left in the queue, by key."""
    import transfer_queue as queue

    metrics = {}
    batch = trainer.step(metrics, trainer.timing_raw)
    fields = ["uid", "prompts", "responses", "response_mask", "advantages", "returns"]
    got = queue.kv_batch_get(batch.keys, batch.partition_id, [*fields, "old_log_probs"])
    columns = {name: list(got[name]) for name in (*fields, "old_log_probs")}
    rows = {
        key: {name: columns[name][row] for name in columns}
        for row, (key, tag) in enumerate(zip(batch.keys, batch.tags, strict=True))
        if not tag.get("is_padding")
    }
    return batch, metrics, rows


def known(tokenizer, row):
    """A row of the queue: its question, and the steps that it was scripted to say."""
    text = tokenizer.decode(row["responses"], skip_special_tokens=True)
    for question, said in RESPONSES.items():
        for steps in said:
            if "".join(steps) == text:
                return question, steps
    raise AssertionError(text)


def expected(tokenizer, rows, engine=None):
    """The core's advantages of the same rows, scored here by the served model's formula.

    Args:
        engine: verl's own of each row, in the outcome's place.
    """
    masks, ids, scores, outcomes, formats = [], [], [], [], []
    for row in rows.values():
        question, steps = known(tokenizer, row)
        spoken = [int(step != TOOL) for step in steps]
        sizes = [len(step) for step in steps]
        sizes[-1] += 1  # the end of text
        masks.append(torch.repeat_interleave(torch.tensor(spoken), torch.tensor(sizes)))
        ids.append(torch.repeat_interleave(torch.arange(len(steps)), torch.tensor(sizes)))
        told = truth.step_scores(truth.response(question, list(steps)))
        scores.append(torch.tensor(told, dtype=torch.float64))
        outcomes.append(float(steps[-1].endswith(f"#### {GOLD[question]}")))
        formats.append(float(len(steps) > 1))
    mask = pad_sequence(masks, batch_first=True)
    further, method = {}, sc.PASS()
    if engine is not None:
        rows_of_engine = [engine[key][own.bool()] for key, own in zip(rows, masks, strict=True)]
        further["process"] = {
            "engine": sc.TokenAdvantages([row.double() for row in rows_of_engine])
        }
        method = sc.PASS(weights={"process": 1.0, "engine": 1.0, "format": 1.0})
    rollouts = sc.Rollouts.from_padded(
        mask=mask,
        group=[str(row["uid"]) for row in rows.values()],
        step_id=pad_sequence(ids, batch_first=True, padding_value=-1),
        step_scores=pad_sequence(scores, batch_first=True),
        outcome=outcomes,
        format=formats,
        format_ok=[value > 0 for value in formats],
        **further,
    )
    padded = method(rollouts).padded(mask)
    return {key: padded[row, : len(masks[row])] for row, key in enumerate(rows)}


def along(trainer, batch, rows):
    """Sum over tokens of advantage times the change of log-prob that the update made."""
    import transfer_queue as queue

    trainer._compute_old_log_prob(batch, {})
    now = queue.kv_batch_get(list(rows), batch.partition_id, ["old_log_probs"])["old_log_probs"]
    pairs = zip(rows.values(), now, strict=True)
    return sum(
        float((row["advantages"] * (new - row["old_log_probs"])).sum()) for row, new in pairs
    )


def test_the_plugin_and_ones_own_module_are_in_every_worker_of_the_reward_loop(loops):
    def names(worker):
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        manager = type(worker.reward_manager)
        rule = type(worker.reward_manager.settings.format_reward)
        known = "stepcredit" in TRAINER_REGISTRY
        return [manager.__module__, manager.__name__, known, rule.__module__, rule.__name__]

    calls = [w.__ray_call__.remote(names) for w in loops.rewards.reward_loop_workers]
    found = ["stepcredit.engines.verl.reward_manager", "StepCreditRewardManager", True]
    found += ["own_rule", "SeveralSteps"]  # the module that the key `import` names
    assert ray.get(calls, timeout=60) == [found, found]


def test_a_step_trains_along_the_cores_advantages(trainer_of, server):
    trainer = trainer_of()
    checked = server.count()["questions"]  # what the preflight asked
    before = trainer.actor_rollout_wg.weights()[0]
    batch, metrics, rows = stepped(trainer)
    assert len(rows) == 8
    assert len(batch) == 12
    assert server.count()["questions"] - checked == 8
    own = expected(trainer.tokenizer, rows)
    for key, row in rows.items():
        torch.testing.assert_close(row["advantages"], own[key], rtol=2**-22, atol=1e-7)
    assert metrics["actor/grad_norm"] > 0
    assert any(name.startswith("stepcredit/") for name in metrics)
    after = trainer.actor_rollout_wg.weights()[0]
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert along(trainer, batch, rows) > 0


def test_two_workers_give_the_same_advantages_and_weights_as_one(trainer_of, actors):
    updated, credited = {}, {}
    for workers in (1, 2):
        trainer = trainer_of(workers=workers)
        assert trainer.actor_rollout_wg.peers() == [workers] * workers
        before = trainer.actor_rollout_wg.weights()[0]
        _, _, rows = stepped(trainer)
        after = trainer.actor_rollout_wg.weights()[0]
        updated[workers] = {name: after[name] - before[name] for name in after}
        said = {"".join(known(trainer.tokenizer, row)[1]): row for row in rows.values()}
        credited[workers] = {text: row["advantages"] for text, row in said.items()}
    for text, advantages in credited[1].items():
        torch.testing.assert_close(advantages, credited[2][text], rtol=0, atol=0)
    assert max(float(update.abs().max()) for update in updated[1].values()) > 1e-4
    for name, update in updated[1].items():
        torch.testing.assert_close(updated[2][name], update, rtol=1e-3, atol=1e-6)


def test_pass_with_a_critic(trainer_of, transfer_queue):
    trainer = trainer_of("algorithm.adv_estimator=gae")
    made = torch.Generator().manual_seed(1)

    def values(batch, metrics):
        where = {"keys": batch.keys, "partition_id": batch.partition_id}
        masks = transfer_queue.kv_batch_get(**where, select_fields=["response_mask"])
        rows = [torch.rand(len(mask), generator=made) for mask in masks["response_mask"]]
        nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
        fields = TensorDict({"values": nested}, batch_size=len(rows))
        transfer_queue.kv_batch_put(**where, fields=fields)
        return batch

    trainer._compute_values, trainer._update_critic = values, lambda batch, metrics: batch
    batch, _, rows = stepped(trainer)
    assert trainer.use_critic
    assert_fused_with_engine(trainer, batch, rows)


def test_pass_with_reinforce_plus_plus(trainer_of):
    trainer = trainer_of("algorithm.adv_estimator=reinforce_plus_plus")
    batch, _, rows = stepped(trainer)
    assert_fused_with_engine(trainer, batch, rows)


def assert_fused_with_engine(trainer, batch, rows):
    """verl's advantage takes the outcome's place, and the update goes along the fusion."""
    import transfer_queue as queue

    PPOTrainerSync._compute_advantage(trainer, batch, {})
    verls = queue.kv_batch_get(list(rows), batch.partition_id, ["advantages", "returns"])
    engine = dict(zip(rows, verls["advantages"], strict=True))
    assert any(row.abs().max() > 0 for row in engine.values())
    own = expected(trainer.tokenizer, rows, engine)
    for (key, row), returns in zip(rows.items(), verls["returns"], strict=True):
        torch.testing.assert_close(row["advantages"], own[key], rtol=2**-22, atol=1e-7)
        torch.testing.assert_close(row["returns"], returns, rtol=0, atol=0)
    assert along(trainer, batch, rows) > 0


def test_validation_scores_no_steps_and_averages_outcome_and_format(trainer_of, server):
    trainer = trainer_of()
    checked = server.count()["requests"]  # what the preflight asked
    metrics = trainer._validate()
    assert server.count()["requests"] == checked
    assert metrics["val-core/openai/gsm8k/acc/mean@2"] == 0.75
    assert metrics["val-core/openai/gsm8k/outcome/pass@1"] == 0.75  # 3 of 4 samples, 2 per prompt
    assert metrics["val-core/openai/gsm8k/outcome/pass@2"] == 1.0
    assert metrics["val-aux/openai/gsm8k/format/mean@2"] == 1.0


def test_a_reward_model_that_fails_stops_the_step_and_says_why(trainer_of, server):
    trainer = trainer_of()
    server.plan(fail=[500, '{"error": "out of memory"}', {}])
    with pytest.raises(EngineError, match=r"HTTP 500: out of memory \(attempt 2, the last\)$"):
        stepped(trainer)
