"""The main job in the small: one run of two methods, and everything it leaves."""

from __future__ import annotations

import io
import json
import os
from collections import defaultdict
from dataclasses import dataclass, replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from rich.console import Console
from tests.lab.micro import MICRO_WARM
from transformers import AutoModelForCausalLM, AutoTokenizer

import stepcredit as sc
from stepcredit.errors import FileError, MethodError, RolloutError, StepCreditError
from stepcredit.lab import comparison as job
from stepcredit.lab.lab_settings import LabSettings, check_task_has, quick_settings
from stepcredit.lab.report import closing_figures
from stepcredit.lab.runs import RunFolder

MICRO = LabSettings(
    updates=4,
    prompts=2,
    group_size=4,
    evaluate_every=2,
    checkpoint_every=2,
    record_every=3,
    evaluation_problems=8,
    evaluation_samples=8,
    max_new_tokens=40,
    warm=MICRO_WARM,
    teacher=replace(MICRO_WARM, seed=7),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, what was printed) of one whole run: PASS, then GRPO."""
    root = tmp_path_factory.mktemp("train")
    out = io.StringIO()
    console = Console(file=out, width=120)
    return job.train(MICRO, root / "runs", None, root / "cache", console), out.getvalue()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_run_leaves_its_config(run):
    folder, _ = run
    assert folder.name == "pass-noisy-s0"
    assert LabSettings.load(folder / "config.json") == MICRO
    resolved = json.loads((folder / "config.json").read_text())["estimators"]
    assert list(resolved) == ["pass", "grpo"]
    assert resolved["pass"]["weights"] == [1.0, 1.0, 0.3]
    assert resolved["pass"]["clip"] == resolved["grpo"]["clip"] == 5.0


def test_metrics_have_a_row_an_update_and_evaluations_before_during_and_after(run):
    rows = lines(run[0] / "metrics.jsonl")
    numbers = defaultdict(list)
    evaluated = defaultdict(list)
    for row in rows:
        numbers[row["method"]].append(row["update"])
        if "evaluation" in row:
            evaluated[row["method"]].append(row["update"])
            assert row["evaluation"]["answers"] == 64
            assert {"mean", "low", "high"} == set(row["evaluation"]["pass_at_8"])
    assert dict(numbers) == {"warm start": [0], "pass": [1, 2, 3, 4], "grpo": [1, 2, 3, 4]}
    assert dict(evaluated) == {"warm start": [0], "pass": [2, 4], "grpo": [2, 4]}
    assert not any("time" in name for row in rows for name in row)
    wanted = {
        "reward",
        "completions/mean_length",
        "stepcredit/process_std",
        "stepcredit/clipped_share",
        "rollouts/fillers",
        "rollouts/step_accuracy",
    }
    assert all(wanted <= set(row) for row in rows if row["update"])


def test_recorded_advantages_are_what_the_estimator_makes_of_the_same_rows(run):
    batches = defaultdict(list)
    for row in lines(run[0] / "rollouts.jsonl"):
        batches[row["method"], row["update"]].append(row)
    assert list(batches) == [(m, u) for m in ("pass", "grpo") for u in (1, 3, 4)]
    estimators = dict(MICRO.estimators())
    for (method, _), rows in batches.items():
        assert len(rows) == 8
        rollouts = sc.Rollouts(
            group=[row["group"] for row in rows],
            lengths=[row["length"] for row in rows],
            process=sc.Steps(
                [row["step_ends"] for row in rows], [row["step_scores"] for row in rows]
            ),
            **{name: [row[name] for row in rows] for name in ("outcome", "format", "format_ok")},
        )
        for row, expected in zip(rows, estimators[method](rollouts).ragged(), strict=True):
            assert row["advantages"] == pytest.approx(expected.tolist(), abs=1e-6)
            assert len(row["tokens"]) == len(row["token_ids"]) == row["length"]
            assert "".join(row["tokens"]) == row["text"]
    assert any(row["advantages"][0] != 0 for rows in batches.values() for row in rows)


def test_both_methods_start_from_the_same_policy_problems_and_draws(run):
    rows = [row for row in lines(run[0] / "rollouts.jsonl") if row["update"] == 1]
    by_method = {m: [r["text"] for r in rows if r["method"] == m] for m in ("pass", "grpo")}
    assert by_method["pass"] == by_method["grpo"]


def test_checkpoints_load_and_differ(run):
    weights = []
    for name in ("warm_start", "checkpoint", "checkpoint-grpo"):
        model = AutoModelForCausalLM.from_pretrained(run[0] / name)
        tokenizer = AutoTokenizer.from_pretrained(run[0] / name)
        prompt = tokenizer("1+2*3=", return_tensors="pt")
        generated = model.generate(**prompt, max_new_tokens=2, do_sample=False)
        assert generated.shape[1] <= prompt.input_ids.shape[1] + 2
        weights.append(model.lm_head.weight)
    assert not weights[0].equal(weights[1])
    assert not weights[1].equal(weights[2])


def test_the_picture_and_the_summary(run):
    picture = (run[0] / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
    summary = json.loads((run[0] / "summary.json").read_text())
    assert [row["run"] for row in summary] == ["warm start", "pass", "grpo"]
    assert summary == closing_figures(lines(run[0] / "metrics.jsonl"))
    shares = [
        row["stepcredit/clipped_share"]
        for row in lines(run[0] / "metrics.jsonl")
        if row["method"] == "pass"
    ]
    assert summary[1]["credit"]["stepcredit/clipped_share"] == pytest.approx(sum(shares) / 4)


def test_progress_and_the_closing_table_are_printed(run):
    printed = run[1]
    assert "run " in printed.splitlines()[0]
    assert "pass 4/4  reward " in printed
    for name in (
        "pass@1",
        "pass@8",
        "length",
        "fillers",
        "step accuracy",
        "process std",
        "outcome std",
        "format std",
        "clipped share",
    ):
        assert name in printed
    assert "pass, 4 updates" in printed


def test_no_working_files_stay(run):
    left = {path.name for path in run[0].iterdir()}
    assert left == {
        "config.json",
        "metrics.jsonl",
        "rollouts.jsonl",
        "timing.jsonl",
        "warm_start",
        "checkpoint",
        "checkpoint-grpo",
        "curves.png",
        "summary.json",
        "progress.json",
    }


def test_a_finished_run_resumes_to_the_same_files(run):
    before = (run[0] / "metrics.jsonl").read_bytes()
    job.resume(run[0], run[0].parent / "cache", Console(file=io.StringIO()))
    assert (run[0] / "metrics.jsonl").read_bytes() == before


def test_a_terminal_gets_live_lines(run):
    from stepcredit.lab.report import live

    out = io.StringIO()
    row = lines(run[0] / "metrics.jsonl")[2]
    with live(Console(file=out, force_terminal=True, width=120), 4) as shown:
        shown.update("pass", row)
    assert f"reward {row['reward']:.3f}" in out.getvalue()
    assert "ETA" in out.getvalue()


def test_the_hackable_signal_is_warned_of_and_the_noisy_one_is_not(run, monkeypatch):
    from stepcredit.lab.arithmetic import solve
    from stepcredit.lab.loop import load_policy

    model, tokenizer = load_policy(run[0] / "warm_start")

    def padded(model, tokenizer, prompts, count, *_, **__):
        """Every answer: a filler line, then the true first step, then an answer."""
        texts = []
        for prompt in prompts:
            for i in range(count):
                step = f"{prompt[:3]}={solve(prompt)[0]}\n"
                texts.append(f"k{i}\n{step}<{i}>$")
        return [tokenizer(text).input_ids for text in texts]

    monkeypatch.setattr(job, "sample", padded)
    warned = job.signal_warnings(LabSettings(signal="hackable", warm=MICRO_WARM), model, tokenizer)
    assert len(warned) == 1
    assert warned[0].startswith("the signal 'hackable' scores a filler line +0.1")
    for signal in ("exact", "noisy", "centred", "negative"):
        settings = LabSettings(signal=signal, warm=MICRO_WARM)
        assert job.signal_warnings(settings, model, tokenizer) == []
    for method in ("grpo", "rloo", "opd"):  # they do not read the signal
        settings = LabSettings(method=method, signal="hackable", warm=MICRO_WARM)
        assert job.signal_warnings(settings, model, tokenizer) == []


def test_a_folder_that_exists_is_not_overwritten(run):
    root = run[0].parent
    with pytest.raises(FileError) as refused:
        job.train(MICRO, root, run[0].name, root / "cache")
    assert str(refused.value) == (
        f"{run[0]}: exists: choose another --name, or continue it with --resume"
    )
    assert RunFolder.create(root, None, run[0].name).path.name == "pass-noisy-s0-2"


def test_resuming_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileError) as refused:
        job.resume(tmp_path)
    assert str(refused.value) == f"{tmp_path / 'config.json'}: no such file: not a run folder"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"updates": 0}, "updates: expected a positive number, got 0"),
        ({"seed": -1}, "seed: expected a whole number from 0 to 4294967295, got -1"),
        ({"seed": 2**32}, "seed: expected a whole number from 0 to 4294967295, got 4294967296"),
        ({"minibatches": 5}, "minibatches: 5 do not divide 96 completions"),
        (
            {"signal": "loud"},
            "signal: expected one of exact, noisy, hackable, centred, negative, monte-carlo, "
            "answer-progress, shared-prefix, got 'loud'",
        ),
    ],
)
def test_settings_out_of_range_are_refused(changes, line):
    with pytest.raises(StepCreditError) as refused:
        LabSettings(**changes)
    assert str(refused.value) == line


def test_every_method_is_accepted_with_the_labs_weights():
    for name in sc.methods():
        task = "agent" if sc.estimator(name).reads.states else "arithmetic"
        settings = LabSettings(method=name, task=task)
        assert settings.estimators()[0][1].name == name
    with pytest.raises(MethodError) as refused:
        LabSettings(method="gigpo")
    assert str(refused.value) == (
        "gigpo: compares steps taken in one state, and the task 'arithmetic' has no tools whose "
        "answers make states: try the task agent"
    )
    assert LabSettings(method="gdpo").estimators()[0][1].weights == {
        "outcome": 1.0,
        "format": 0.3,
    }
    assert dict(LabSettings(method="grpo").estimators()).keys() == {"grpo", "grpo-defaults"}


def test_a_method_whose_signal_the_task_lacks_is_refused_before_training():
    @dataclass(frozen=True)
    class Critic(sc.Estimator):
        name = "critic"

        @property
        def reads(self):
            return sc.Reads(logprobs=("critic",))

        def credit(self, rollouts):
            raise RolloutError("missing", row=0, field="values")

    with pytest.raises(MethodError) as refused:
        check_task_has("critic", Critic(), LabSettings().built_task())
    assert str(refused.value) == (
        "critic: reads critic_logprobs, but the task has only those of student, teacher, "
        "base, prm, ref"
    )
    assert not sc.PASS().reads.logprobs
    assert sc.OPD().reads.logprobs


def test_a_users_method_of_log_probs_learns_from_the_teacher(own_methods, run, tmp_path):
    settings = replace(MICRO, method="log-ratio", compare=None, updates=1)
    folder = job.train(
        settings, tmp_path, None, run[0].parents[1] / "cache", Console(file=io.StringIO())
    )
    for row in lines(folder / "rollouts.jsonl"):
        ratios = zip(row["teacher_logprobs"], row["student_logprobs"], strict=True)
        expected = [min(max(2 * (t - s), -5), 5) for t, s in ratios]
        assert row["advantages"] == pytest.approx(expected, abs=1e-5)


def test_a_users_method_gets_the_labs_weights_under_its_own_name(own_methods, run, tmp_path):
    settings = replace(MICRO, method="blend", compare=None, updates=1)
    assert settings.estimators()[0][1].shares == {"process": 1.0, "outcome": 1.0}
    chosen = replace(settings, fields={"shares": {"process": 3.0}}).estimators()[0][1]
    assert chosen.shares == {"process": 3.0}
    folder = job.train(
        settings, tmp_path, None, run[0].parents[1] / "cache", Console(file=io.StringIO())
    )
    rows = lines(folder / "rollouts.jsonl")
    rollouts = sc.Rollouts(
        group=[row["group"] for row in rows],
        lengths=[row["length"] for row in rows],
        process=sc.Steps([row["step_ends"] for row in rows], [row["step_scores"] for row in rows]),
        **{name: [row[name] for row in rows] for name in ("outcome", "format", "format_ok")},
    )
    expected = sc.PASS(weights={"process": 1.0, "outcome": 1.0}, gate=False)(rollouts).ragged()
    for row, advantages in zip(rows, expected, strict=True):
        assert row["advantages"] == pytest.approx(advantages.tolist(), abs=1e-6)


@pytest.mark.parametrize("method", ["opd", "g-opd", "prime"])
def test_methods_made_of_log_probs_learn_from_a_teacher(run, tmp_path, method):
    """Log-probs of the models that a method reads, recorded, give the recorded advantages."""
    settings = replace(MICRO, method=method, compare=None, updates=1)
    cache = run[0].parents[1] / "cache"
    folder = job.train(settings, tmp_path, None, cache, Console(file=io.StringIO()))
    rows = lines(folder / "rollouts.jsonl")
    readers = sc.estimator(method).reads.logprobs
    assert not any(f"{name}_logprobs" in row for row in rows for name in {"ref"} - {*readers})
    rollouts = sc.Rollouts(
        group=[row["group"] for row in rows],
        outcome=[row["outcome"] for row in rows],
        logprobs={reader: [row[f"{reader}_logprobs"] for row in rows] for reader in readers},
    )
    expected = dict(settings.estimators())[method](rollouts).ragged()
    for row, advantages in zip(rows, expected, strict=True):
        assert row["advantages"] == pytest.approx(advantages.tolist(), abs=1e-6)
        if method == "g-opd":  # nothing is learned yet
            assert row["student_logprobs"] == pytest.approx(row["base_logprobs"], abs=1e-5)
            assert row["teacher_logprobs"] != row["base_logprobs"]


def test_the_quick_run_is_the_same_job_made_small():
    quick = quick_settings(seed=3)
    assert quick.warm.seed == quick.seed == 3
    assert quick.evaluation_problems * quick.evaluation_samples >= 1000
