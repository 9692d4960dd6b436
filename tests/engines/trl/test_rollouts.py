"""Rollouts kept while training: files that say again what was trained and logged."""

from __future__ import annotations

import pytest
import torch
from accelerate import PartialState
from datasets import Dataset
from typer.testing import CliRunner

import stepcredit as sc
from stepcredit.cli import app
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.data.files.reading import read_rollouts, read_rows
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.engines.trl.generation import Generation
from stepcredit.engines.trl.generation_file import (
    check_folder,
    check_no_rollouts,
    set_rollouts_aside,
)
from stepcredit.errors import EngineError
from stepcredit.lab.arithmetic import problems
from stepcredit.signals import Regex
from stepcredit.signals.programs.checked import Program

STEPS = 30
WEIGHTS = {"process": 1.0, "drift": 0.5, "outcome": 1.0, "format": 0.3}


def drift(completion_ids, **_):
    return sc.Tokens(
        [[(-1.0) ** place * token / 7 for place, token in enumerate(ids)] for ids in completion_ids]
    )


def in_pairs(completion_ids, **_):
    """Steps of two tokens, scored by their first."""
    ends = [sorted({*range(1, len(ids), 2), len(ids) - 1}) for ids in completion_ids]
    return [(e, [ids[end] / 20 for end in e]) for e, ids in zip(ends, completion_ids, strict=True)]


def files(folder):
    return sorted(folder.glob("rollouts-*.jsonl"))


def test_the_metrics_of_30_steps_are_those_of_the_rollouts_it_kept(make_trainer, tmp_path):
    folder = tmp_path / "rollouts"
    trainer = make_trainer(
        args={
            "max_steps": STEPS,
            "steps_per_generation": 1,
            "per_device_train_batch_size": 8,
            "logging_steps": 1,
        },
        method=sc.PASS(weights=WEIGHTS, clip=1.5, gate=False),
        process_signal={"process": in_pairs, "drift": drift},
        rollouts_dir=folder,
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == len(files(folder)) == STEPS
    told = set()
    for entry, path in zip(logs, files(folder), strict=True):
        with RolloutFile(path) as file:
            (batch,) = file.fold(list, lambda done, batch: [*done, batch])
        figures = training_metrics(
            batch.rollouts,
            trainer.estimator,
            truncated=[row.fields["truncated"] for row in batch.rows],
        )
        shown = without_clock(entry)
        expected = {f"stepcredit/{name}": value for name, value in figures.items()}
        assert shown == pytest.approx(expected, rel=1e-12, abs=1e-15)
        told |= figures.keys()
    assert {"share/drift", "filler_gap", "clipped_share", "variance/drift"} <= told


def without_clock(entry):
    """The metrics of ours in a log, but for those of time, which no file holds."""
    ours = {name: value for name, value in entry.items() if name.startswith("stepcredit/")}
    return {name: value for name, value in ours.items() if "/scoring_" not in name}


def test_a_file_holds_the_generation_and_the_commands_read_it(make_trainer, tmp_path):
    folder = tmp_path / "rollouts"
    rows = [{"prompt": p.prompt, "answer": n} for n, p in enumerate(problems(4))]
    trainer = make_trainer(
        args={"max_steps": 2}, train_dataset=Dataset.from_list(rows), rollouts_dir=folder
    )
    trainer.train()
    (path,) = files(folder)
    assert path.name == "rollouts-000000.jsonl"
    batch = trainer.credited
    kept = list(read_rows(path))
    for row, line in enumerate(kept):
        assert line["group"] == f"000000/{row // 4}"
        assert line["prompt"] == batch.prompts[row]
        assert line["answer"] == batch.inputs[row]["answer"]
        assert line["token_ids"] == batch.completion_ids[row]
        assert line["text"] == batch.completions[row] == "".join(line["tokens"])
        assert line["rewards"]["accuracy"] == line["outcome"] == float(batch.rollouts.outcome[row])
        trained = batch.advantages[row, : len(line["token_ids"])].tolist()
        assert line["advantages"] == pytest.approx(trained, rel=1e-7)
    shaped = tmp_path / "shaped.jsonl"
    options = ["--method", "pass", "--set", "weights=[1.0,1.0,0.3]", "--set", "clip=5.0"]
    options += ["--set", "gate=false"]
    ended = CliRunner().invoke(app, ["shape", str(path), "-o", str(shaped), *options])
    assert ended.exit_code == 0, ended.output
    again = [line["advantages"] for line in read_rows(shaped)]
    assert again == [pytest.approx(line["advantages"], rel=1e-6, abs=1e-9) for line in kept]
    ended = CliRunner().invoke(app, ["explain", str(path), "--group", "000000/1", *options])
    assert ended.exit_code == 0, ended.output


def test_completions_are_decoded_once_for_signals_and_files(make_trainer, tmp_path, monkeypatch):
    decoded, original = [], Generation._response

    def counted(generation, row):
        decoded.append(row)
        return original(generation, row)

    monkeypatch.setattr(Generation, "_response", counted)
    signal = Program(function=lambda response: [0.5] * len(response.step_texts))
    trainer = make_trainer(
        args={"max_steps": 1}, process_signal=signal, rollouts_dir=tmp_path / "rollouts"
    )
    trainer.train()
    assert sorted(decoded) == list(range(len(trainer.credited.completion_ids)))


def test_masked_and_truncated_tokens_are_kept_as_they_were(make_trainer, task, tmp_path):
    """A tool's tokens have loss_mask 0, and no step or log-prob of theirs is trained."""
    folder = tmp_path / "rollouts"
    own = [1, 1, 0, 0, 1, 0]

    def rollout(prompts, trainer):
        return {
            "prompt_ids": [task.tokenizer(p).input_ids for p in prompts],
            "completion_ids": [[1, 2, 3, 4, 5, 6 + (i % 3)] for i in range(len(prompts))],
            "logprobs": None,
            "env_mask": [own for _ in prompts],
        }

    tokens = Program(lambda r: [i / 7 for i in r.token_ids], per="tokens")
    turns = Program(lambda r: [len(text) + r.token_ids[-1] for text in r.step_texts])
    trainer = make_trainer(
        args={"max_steps": 2},
        rollout_func=rollout,
        process_signal={"turns": turns, "tokens": tokens},
        method=sc.PASS(weights={"turns": 1.0, "tokens": 0.5}, gate=False),
        logprobs={"teacher": tokens},
        rollouts_dir=folder,
    )
    trainer.train()
    (path,) = files(folder)
    line = next(read_rows(path))
    assert line["loss_mask"] == own
    assert line["signals"]["turns"]["ends"] == line["step_ends"] == [1, 5]
    assert line["signals"]["turns"]["scores"] == [8.0, 7.0]
    assert line["signals"]["tokens"]["scores"] == pytest.approx([1 / 7, 2 / 7, 0, 0, 5 / 7, 0])
    assert line["teacher_logprobs"] == pytest.approx([1 / 7, 2 / 7, 0, 0, 5 / 7, 0])
    assert line["truncated"] is True
    read, batch = read_rollouts(path), trainer.credited
    assert torch.equal(trainer.estimator(read).packed(), trainer.estimator(batch.rollouts).packed())
    assert read.step_ends.values.tolist() == batch.rollouts.step_ends.values.tolist()


def test_each_sampling_has_its_file(make_trainer, tmp_path):
    """Two samplings a step, and none of an evaluation."""
    folder = tmp_path / "rollouts"
    trainer = make_trainer(
        args={
            "max_steps": 2,
            "steps_per_generation": 1,
            "gradient_accumulation_steps": 2,
            "per_device_eval_batch_size": 4,
        },
        eval_dataset=Dataset.from_list([{"prompt": "1+2*3="}]),
        rollouts_dir=folder,
        splitter=Regex(pattern="1"),
    )
    trainer.train()
    trainer.evaluate()
    assert [path.name for path in files(folder)] == [
        "rollouts-000000-1.jsonl",
        "rollouts-000000.jsonl",
        "rollouts-000001-1.jsonl",
        "rollouts-000001.jsonl",
    ]
    labels = {row["group"] for path in files(folder) for row in read_rows(path)}
    assert labels == {"000000/0", "000000-1/0", "000001/0", "000001-1/0"}


def test_a_folder_that_takes_no_file_is_refused_at_start(make_trainer, tmp_path):
    """Before the model samples, in one line; a folder that does not exist yet is made."""
    file = tmp_path / "a-file"
    file.write_text("mine")
    for folder, reason in ((file, "File exists"), (file / "inside", "Not a directory")):
        with pytest.raises(EngineError) as raised:
            make_trainer(rollouts_dir=folder)
        line = f"rollouts_dir: rollouts can't be written to {folder}: {reason}"
        assert str(raised.value) == line
    assert file.read_text() == "mine"
    make_trainer(rollouts_dir=tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_folder_below_the_users_home_is_found_there(tmp_path, monkeypatch):
    """As the preflight reads it; without it, a folder called `~` appears where the run starts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    check_folder("~/rollouts")
    assert (tmp_path / "rollouts").is_dir()
    assert not (tmp_path / "~").exists()
    (tmp_path / "rollouts/rollouts-000000.jsonl").write_text("")
    with pytest.raises(EngineError, match=r"rollouts-000000.jsonl is of an earlier run"):
        check_no_rollouts("~/rollouts")
    assert set_rollouts_aside("~/rollouts") == tmp_path / "rollouts/earlier-1"


def test_a_folder_without_leave_to_write_is_refused_by_the_first_process(monkeypatch, tmp_path):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(EngineError, match=r"rollouts_dir: .*: Permission denied$"):
        check_folder(tmp_path)
    monkeypatch.setattr(PartialState, "is_main_process", False)
    check_folder(tmp_path)


@pytest.mark.parametrize(
    "streams", [("hops", "pairs"), ("process", "pairs"), ("drift", "pairs"), ("process", "drift")]
)
def test_a_first_row_without_the_first_stream_changes_no_metric(make_trainer, tmp_path, streams):
    """Its streams, their kinds and their order are read back as they were, in one batch."""

    def by_hops(completion_ids, **_):
        rows = in_thirds(completion_ids)
        return [([], []) if row < 4 else pair for row, pair in enumerate(rows)]

    def some_drift(completion_ids, **_):
        kept = [[] if row < 4 else ids for row, ids in enumerate(completion_ids)]
        return drift(kept)

    signals = {"hops": by_hops, "process": by_hops, "drift": some_drift, "pairs": in_pairs}
    trainer = make_trainer(
        args={"max_steps": 1, "logging_steps": 1},
        method=sc.PASS(weights={**dict.fromkeys(streams, 1.0), "outcome": 1.0}, gate=False),
        process_signal={name: signals[name] for name in streams},
        rollouts_dir=tmp_path / "kept",
    )
    trainer.train()
    (path,) = files(tmp_path / "kept")
    with RolloutFile(path) as file:
        (batch,) = file.fold(list, lambda done, batch: [*done, batch])
    ran, read = trainer.credited.rollouts, batch.rollouts
    assert list(read.streams) == list(ran.streams) == list(streams)
    for name, stream in ran.streams.items():
        assert type(read.streams[name]) is type(stream)
        assert read.streams[name].counts.tolist() == stream.counts.tolist()
    cut_off = [row.fields["truncated"] for row in batch.rows]
    figures = training_metrics(read, trainer.estimator, truncated=cut_off)
    shown = {f"stepcredit/{name}": value for name, value in figures.items()}
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    logged = without_clock(entry)
    assert logged == pytest.approx(shown, rel=1e-12, abs=1e-15)
    out = tmp_path / "scored.jsonl"
    options = ["--signal", "equations", "--replace", "--split", "blank-line"]
    kind = trainer.credited.rollouts.streams.get("process")
    if kind is None or isinstance(kind, sc.Steps):
        ended = CliRunner().invoke(app, ["score", str(path), "-o", str(out), *options])
        assert ended.exit_code == 0, ended.output
        assert all("step_scores" in row for row in read_rows(out))
        assert CliRunner().invoke(app, ["validate", str(out)]).exit_code == 0


def in_thirds(completion_ids):
    """One step of three tokens, and the rest."""
    ends = [sorted({min(2, len(ids) - 1), len(ids) - 1}) for ids in completion_ids]
    return [(e, [ids[end] / 9 for end in e]) for e, ids in zip(ends, completion_ids, strict=True)]
