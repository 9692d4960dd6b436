"""A step of the trainer on a local Ray whose agent loop gives several outputs for a session."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import pandas
from omegaconf import open_dict

import stepcredit as sc


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


steps = loaded(Path(__file__).with_name("test_end_to_end.py"))
pytestmark = steps.pytestmark
server, config_of, actors = steps.server, steps.config_of, steps.actors
loops, trainer_of, policy_files = steps.loops, steps.trainer_of, steps.files
QUESTION = "2 + 3?"
SAID = (
    ("2 + 3 = 5\n\n5 + 1 = 7\n\n", "So it is 5.\n#### 5"),
    ("2 + 3 = 6\n\n", "It is 6.\n\n", "#### 6"),
    ("It is 5.\n#### 5",),
    ("2 + 3 = 5\n\n#### 1",),
)
"""What each session says, an output after the other."""
OUTCOMES = (1.0, 0.0, 1.0, 0.0)


@pytest.fixture(scope="module")
def files(policy_files):
    """The files of the other test, with a data set of these sessions."""
    row = {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": QUESTION}],
        "reward_model": {"style": "rule", "ground_truth": "5"},
        "extra_info": {"index": 0, "responses": ["<cut>".join(said) for said in SAID]},
    }
    pandas.DataFrame([row, row]).to_parquet(policy_files / "sums.parquet")
    return policy_files


def sessions_of(trainer, credit):
    """The advantages of each prompt's sessions after one step, one list per output."""
    with open_dict(trainer.config):
        trainer.config.algorithm.stepcredit = credit
    trainer.credit_settings = steps.StepCreditPPOTrainer(trainer.config).credit_settings
    _, metrics, rows = steps.stepped(trainer)
    assert metrics["actor/grad_norm"] > 0
    found = {}
    for key in sorted(rows):
        uid, session, output = key.rsplit("_", 2)
        text = trainer.tokenizer.decode(rows[key]["responses"], skip_special_tokens=True)
        assert text == SAID[int(session)][int(output)]
        found.setdefault(uid, {}).setdefault(int(session), []).append(rows[key]["advantages"])
    assert [len(each) for each in found.values()] == [4, 4]
    return list(found.values())


def test_a_session_is_one_member_of_its_group(trainer_of):
    credit = {"method": "rloo", "process_signal": "arithmetic"}  # rloo reads the outcome alone
    for found in sessions_of(trainer_of(), credit):
        for session, outcome in enumerate(OUTCOMES):
            others = (sum(OUTCOMES) - outcome) / 3
            assert [len(each) for each in found[session]] == [len(t) + 1 for t in SAID[session]]
            for row in found[session]:
                assert row.tolist() == pytest.approx([outcome - others] * len(row))


def test_returns_go_on_from_one_output_to_the_next(trainer_of):
    """Blank lines end steps, and so does the end of an output; their sums are checked."""
    credit = {"method": "turn-return", "process_signal": "arithmetic"}
    sizes = [[11, 11, 18], [11, 10, 6], [15], [11, 6]]  # characters, which are tokens
    scores = [[1.0, 0.0, 0.5], [0.0, 0.5, 0.5], [0.5], [1.0, 0.5]]  # 0.5: no sum
    cut = [{1}, {0, 1}, set(), set()]
    ends, place = [], 0
    for session, lengths in enumerate(sizes):
        place, own = 0, []
        for at, length in enumerate(lengths):
            place += length + (at in cut[session] or at == len(lengths) - 1)
            own.append(place - 1)
        ends.append(own)
    whole = sc.Rollouts(["q"] * 4, process=sc.Steps(ends, scores), outcome=OUTCOMES)
    expected = [row.tolist() for row in sc.TurnReturn()(whole).ragged()]
    for found in sessions_of(trainer_of(), credit):
        for session, want in enumerate(expected):
            got = [value for row in found[session] for value in row.tolist()]
            assert got == pytest.approx(want, abs=1e-6)
