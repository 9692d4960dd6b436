"""Agents in TRL: a turn is a step, a tool's answer is none.

The tools, the calls' parsing and the mask are TRL's own; only what the model writes is scripted.
"""

from __future__ import annotations

import pytest
import torch
from tests.engines.trl import scripted_agent
from tests.engines.trl.scripted_agent import CALL
from typer.testing import CliRunner

import stepcredit as sc
from stepcredit.cli import app
from stepcredit.data.files.reading import read_rollouts, read_rows
from stepcredit.signals import BlankLine
from stepcredit.signals.programs.checked import Program


def script(row, turn):
    """Even rows ask the tool once, row 0 twice; odd rows answer at once."""
    if row % 2 == 0 and turn < (2 if row == 0 else 1):
        return f"Let me\n\nadd {row}.\n" + CALL.format(a=row + turn)
    return f"It is {row + 2}.\n\nDone.<|im_end|>"


@pytest.fixture
def tokenizer():
    return scripted_agent.tokenizer()


@pytest.fixture
def make_agent(tmp_path):
    """A maker of trainers whose model writes the script, and calls a real tool; they have run."""

    def make(**changes):
        outcomes = {"reward_funcs": [lambda completions, **_: [1.0, 0.0, 0.5, 0.0]]}
        trainer = scripted_agent.make_trainer(script, tmp_path, **{**outcomes, **changes})
        trainer.train()
        return trainer

    return make


def turns_of(trainer, row):
    """The model's turns as texts, read from its ids and TRL's mask alone."""
    batch = trainer.credited
    ids = batch.completion_ids[row]
    turns, current = [], []
    for token, own in zip(ids, batch.mask[row, : len(ids)].tolist(), strict=True):
        if own:
            current.append(token)
        elif current:
            turns, current = [*turns, current], []
    return [*turns, current]


def lengths(turns):
    return [len(turn) for turn in turns]


def all_turns(trainer):
    return [turns_of(trainer, row) for row in range(4)]


def own_advantages(batch):
    return (row[own] for row, own in zip(batch.advantages, batch.mask, strict=True))


def test_without_a_score_the_turns_are_the_steps(make_agent, tokenizer):
    trainer = make_agent(method="grpo")
    batch = trainer.credited
    turns = [turns_of(trainer, row) for row in range(4)]
    assert [len(row) for row in turns] == [3, 1, 2, 1]
    assert tokenizer.decode(turns[2][0]) == script(2, 0)
    assert not batch.mask[0, : len(batch.completion_ids[0])].all()
    ends = batch.rollouts.step_ends
    assert ends.counts.tolist() == [3, 1, 2, 1]
    lengths = [len(turn) for row in turns for turn in row]
    first = torch.tensor(lengths[:3]).cumsum(0) - 1
    assert ends.values[:3].tolist() == first.tolist()
    assert batch.rollouts.lengths.tolist() == [sum(map(len, row)) for row in turns]
    logged = trainer.state.log_history[0]
    assert logged["stepcredit/steps"] == 7 / 4
    assert logged["stepcredit/length"] == pytest.approx(logged["completions/mean_length"])


def test_an_outcome_alone_is_discounted_by_turn(make_agent):
    trainer = make_agent(method=sc.TurnReturn(gamma=0.5, baseline="none"))
    batch = trainer.credited
    per_turn = [[0.25, 0.5, 1.0], [0.0], [0.25, 0.5], [0.0]]
    rows = batch.advantages[batch.mask].split(batch.rollouts.lengths.tolist())
    for row, values, turns in zip(rows, per_turn, all_turns(trainer), strict=True):
        parts = zip(values, turns, strict=True)
        assert row.tolist() == [value for value, turn in parts for _ in turn]


def test_a_signal_scores_turns_and_a_tools_answer_gets_nothing(make_agent, tmp_path):
    seen = []

    def score(response):
        seen.append(response)
        return [float(len(text.strip())) for text in response.step_texts]

    trainer = make_agent(method=sc.PASS(gate=False), process_signal=Program(score))
    batch = trainer.credited
    assert [len(response.steps) for response in seen] == [5, 1, 3, 1]
    assert "<tool_response>\n4\n</tool_response>" in seen[2].step_texts[1]
    assert "Let me\n\nadd 2." in seen[2].step_texts[0]
    steps = batch.rollouts.streams["process"]
    assert steps.counts.tolist() == [3, 1, 2, 1]
    said = [len(script(2, turn).replace("<|im_end|>", "")) for turn in range(2)]
    assert steps.values[4:6].tolist() == said
    ends = [row.cumsum(0) - 1 for row in map(torch.tensor, map(lengths, all_turns(trainer)))]
    assert steps.ends.tolist() == torch.cat(ends).tolist()
    tools = ~batch.mask
    assert (batch.advantages[tools] == 0).all()
    for row in batch.advantages[batch.mask].split(batch.rollouts.lengths.tolist()):
        assert (row != 0).all()
    again = sc.PASS(gate=False)(read_rollouts(next((tmp_path / "rollouts").glob("*"))))
    assert torch.allclose(again.packed(), torch.cat(list(own_advantages(batch))), atol=1e-6)


def test_a_named_splitter_goes_before_turns(make_agent):
    trainer = make_agent(
        method=sc.PASS(gate=False),
        process_signal=Program(lambda r: [1.0 * len(text) for text in r.step_texts]),
        splitter=BlankLine(inside="extend"),
    )
    assert trainer.credited.rollouts.streams["process"].counts.tolist() == [4, 2, 3, 2]
    assert trainer.credited.rollouts.step_ends is None


def test_token_signals_are_chunked_by_turns(make_agent):
    scored = Program(lambda r: [t / 100 for t in r.token_ids], per="tokens")
    trainer = make_agent(method=sc.PASS(chunks="steps", gate=False), process_signal=scored)
    batch = trainer.credited
    rows = batch.advantages[batch.mask].split(batch.rollouts.lengths.tolist())
    parts = [row.split(lengths(turns)) for row, turns in zip(rows, all_turns(trainer), strict=True)]
    assert all(part.unique().numel() == 1 for row in parts for part in row)
    assert torch.cat([part[:1] for part in parts[0]]).unique().numel() == 3


def test_the_kept_rollouts_have_the_mask(make_agent, tmp_path):
    trainer = make_agent(method="grpo")
    rows = list(read_rows(next((tmp_path / "rollouts").glob("*"))))
    for row, line in enumerate(rows):
        ids = trainer.credited.completion_ids[row]
        own = trainer.credited.mask[row, : len(ids)].int().tolist()
        assert line.get("loss_mask", [1] * len(ids)) == own
    assert rows[0]["prompt"] == "Add 1 and 2."


@pytest.mark.parametrize("named", [True, False], ids=["tokenizer", "kept-tokens"])
def test_kept_turns_are_scored_again(make_agent, tmp_path, tokenizer, named):
    """Each turn ends in an end-of-turn token, which has no text."""
    trainer = make_agent(
        method=sc.PASS(gate=False),
        process_signal=Program(lambda r: [1.0 * len(text) for text in r.step_texts]),
    )
    tokenizer.save_pretrained(tmp_path / "policy")
    kept, out = next((tmp_path / "rollouts").glob("*")), tmp_path / "scored.jsonl"
    options = ["--signal", "arithmetic", "--replace"]
    options += ["--tokenizer", str(tmp_path / "policy")] if named else []
    ran = trainer.credited.rollouts.streams["process"]
    for split in ([], ["--split", "turns"]):
        ended = CliRunner().invoke(app, ["score", str(kept), "-o", str(out), *options, *split])
        assert ended.exit_code == 0, ended.output
        read = read_rollouts(out).streams["process"]
        assert read.ends.tolist() == ran.ends.tolist()
        assert read.counts.tolist() == ran.counts.tolist()
    before = [line["step_ends"] for line in read_rows(kept)]
    after = [line["step_ends"] for line in read_rows(out)]
    assert [len(row) for row in before] == [3, 1, 2, 1]
    assert [len(row) for row in after] == [5, 1, 3, 1]
