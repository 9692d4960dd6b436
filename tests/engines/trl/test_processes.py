"""Two processes, whose groups straddle them, give the advantages of one."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from tests.engines.trl.scripted_agent import CALLS, GROUPS, OUTCOME

import stepcredit as sc
from stepcredit.data.files.reading import read_rows
from stepcredit.data.streams import Stream
from stepcredit.engines.trl.distributed import RankData, concat_ranks
from stepcredit.errors import EngineError

SCRIPT = Path(__file__).with_name("two_processes.py")
AGENT = Path(__file__).with_name("scripted_agent.py")
ROOT = Path(__file__).parents[3]
ALONE = [sys.executable]
TWO = [*ALONE, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d"]
TWO += ["--rdzv-endpoint", "127.0.0.1:0"]


def records(command, folder, script=SCRIPT):
    """What each process of a run recorded, by rank."""
    folder.mkdir()
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [*command, str(script), str(folder)],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(path) for path in sorted(folder.glob("rank-*.pt"))]


def test_two_processes_give_the_advantages_of_one(tmp_path):
    (alone,) = records(ALONE, tmp_path / "one")
    pair = records(TWO, tmp_path / "two")
    assert alone["world"] == 1
    assert [(record["rank"], record["world"]) for record in pair] == [(0, 2), (1, 2)]
    assert len(alone["generations"]) == len(pair[0]["generations"]) == 2
    for whole, left, right in zip(
        alone["generations"], pair[0]["generations"], pair[1]["generations"], strict=True
    ):
        for name in ("ids", "prompts", "groups"):
            assert whole[name] == left[name] + right[name]
        assert left["groups"][-1] == right["groups"][0] == 1
        assert left["width"] < right["width"]
        close_by_group(whole, left["advantages"] + right["advantages"])
        assert left["table"] == right["table"] == pytest.approx(whole["table"], abs=1e-6)
        means = [sum(row) / len(row) for row in whole["advantages"]]
        assert whole["table"] == pytest.approx(means, abs=1e-6)
    written = [kept(tmp_path / folder) for folder in ("one", "two")]
    assert written[1] == written[0]
    assert [row["token_ids"] for row in written[0]] == alone["generations"][0]["ids"]
    named = [entry for entry in alone["metrics"] if entry]
    assert named
    assert {"stepcredit/filler_gap", "stepcredit/truncated_share"} <= named[0].keys()
    assert named[0]["stepcredit/repeated_step_share"] > 0
    assert [entry for entry in pair[0]["metrics"] if entry] == [pytest.approx(e) for e in named]
    # A signal of whole groups scores each response once, in the first process.
    assert alone["scored"] == pair[0]["scored"] == [12, 12]
    assert pair[1]["scored"] == []


def test_agents_with_tools_and_states_are_credited_alike_in_two_processes(tmp_path):
    (alone,) = records(ALONE, tmp_path / "one", AGENT)
    pair = records(TWO, tmp_path / "two", AGENT)
    assert (alone["world"], [each["world"] for each in pair]) == (1, [2, 2])
    for name in ("ids", "mask"):
        assert alone[name] == pair[0][name] + pair[1][name]
    assert any(not all(row) for row in alone["mask"])
    for each in (alone, *pair):  # every process knows the states and outcomes of all
        assert each["steps"] == [len(calls) + 1 for calls in CALLS]
        assert each["states"] == alone["states"]
        assert each["outcomes"] == alone["outcomes"]
    assert pair[0]["advantages"] + pair[1]["advantages"] == alone["advantages"]
    by_turn = {place: a for group in GROUPS for place, a in by_hand(group).items()}
    for row, (advantages, mask) in enumerate(zip(alone["advantages"], alone["mask"], strict=True)):
        pairs = zip(mask, advantages, strict=True)
        runs = [list(part) for _, part in groupby(pairs, itemgetter(0))]
        turns = [part for part in runs if part[0][0]]
        for turn, part in enumerate(turns):
            expected = pytest.approx(by_turn[row, turn], abs=1e-5)
            assert all(value == expected for _, value in part), (row, turn)
        assert not any(value for part in runs if not part[0][0] for _, value in part)


def by_hand(group):
    """GiGPO's advantages of the turns of a group's rows, by row, from the script alone.

    A turn's reward is 0.2 times its number, and the last one's also the outcome; a turn's return is
    compared with those of all turns after the same last call. Then the outcome is added.
    """
    returns, members = {}, {}
    for row in group:
        for turn in range(len(CALLS[row]) + 1):
            state = CALLS[row][turn - 1] if turn else "start"
            value = 0.2 * sum(range(turn, len(CALLS[row]) + 1)) + OUTCOME[row]
            returns[row, turn] = state, value
            members.setdefault(state, []).append(value)
    outcomes = [OUTCOME[row] for row in group]
    return {
        place: standardized(value, members[state]) + standardized(OUTCOME[place[0]], outcomes)
        for place, (state, value) in returns.items()
    }


def standardized(value, members):
    """N of one value; 0 where there is nothing to compare."""
    if max(members) - min(members) < 1e-9:
        return 0.0
    return (value - mean(members)) / (stdev(members) + 1e-6)


def kept(folder):
    """The first generation's rows, without their advantages."""
    rows = list(read_rows(folder / "output" / "rollouts" / "rollouts-000000.jsonl"))
    return [{name: row[name] for name in row if name != "advantages"} for row in rows]


def close_by_group(whole, rows):
    """To 2^-23 of each group's largest, which is above 0."""
    at = 0
    for _, members in groupby(whole["groups"]):
        size = len(list(members))
        expected = torch.tensor([*chain(*whole["advantages"][at : at + size])])
        found = torch.tensor([*chain(*rows[at : at + size])])
        largest = expected.abs().max()
        assert largest > 0
        assert (found - expected).abs().max() <= largest * 2**-23
        at += size


def rank_data(**changes):
    return RankData(**{"lengths": [2], "trained": [True], **changes})


def test_the_data_of_processes_are_joined_in_order():
    one = rank_data(
        process={"a": sc.Steps([[0, 1]], [[0.1, 0.2]])},
        logprobs={"student": sc.Tokens([[-1.0, -2.0]])},
        format_ok=[True],
        step_ends=Stream._of(values=torch.tensor([1]), counts=torch.tensor([1])),
        truncated=[True],
        texts=["ab"],
        steps=[["a", "b"]],
    )
    two = rank_data(
        lengths=[3],
        trained=[False],
        process={"a": sc.Steps([[2]], [[0.3]])},
        logprobs={"student": sc.Tokens([[-3.0, -4.0, -5.0]])},
        format_ok=[False],
        step_ends=Stream._of(values=torch.tensor([0, 2]), counts=torch.tensor([2])),
        truncated=[False],
        texts=["cd"],
        steps=[["cd"]],
    )
    both = concat_ranks([one, two])
    assert (both.lengths, both.trained, both.format_ok) == ([2, 3], [True, False], [True, False])
    assert (both.truncated, both.texts) == ([True, False], ["ab", "cd"])
    assert both.steps == [["a", "b"], ["cd"]]
    assert both.step_ends.values.tolist() == [1, 0, 2]
    assert both.tokens is None
    assert both.process["a"].ends.tolist() == [0, 1, 2]
    assert both.process["a"].counts.tolist() == [2, 1]
    assert both.process["a"].values.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert both.logprobs["student"].values.tolist() == [-1.0, -2.0, -3.0, -4.0, -5.0]


@pytest.mark.parametrize(
    ("one", "two", "line"),
    [
        (
            {"a": sc.Tokens([[0.1, 0.2]])},
            {"b": sc.Tokens([[0.1, 0.2]])},
            "process_signal: gave a: Tokens on one process, b: Tokens on another",
        ),
        (
            sc.Tokens([[0.1, 0.2]]),
            sc.Steps([[1]], [[0.1]]),
            "process_signal: gave Tokens on one process, Steps on another",
        ),
    ],
)
def test_streams_that_differ_between_processes_are_refused(one, two, line):
    with pytest.raises(EngineError) as refused:
        concat_ranks([rank_data(process=one), rank_data(process=two)])
    assert str(refused.value) == line
