"""Every protocol, loaded from a checkpoint, against a slow reference written from the cards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.prm import vocabularies
from tests.prm.cases import CASES, ROWS, Case, bare, responses

import stepcredit as sc

KEEPS_INDENT = ("skywork", "pure", "token-classifier")


def expected(case: Case) -> list[list[float]]:
    """The reference's scores of all rows."""
    model, tokenizer = case.model(), case.tokenizer()
    rows = ROWS if case.protocol in KEEPS_INDENT else [bare(row) for row in range(len(ROWS))]
    return [case.score(model, tokenizer, question, steps) for question, steps in rows]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.protocol)
def test_scores_are_the_references(case: Case, tmp_path: Path) -> None:
    """Equal to 1e-4, whatever was packed together, and far from constant."""
    signal = case.signal(case.checkpoint(tmp_path))
    want = expected(case)
    flat = torch.tensor([score for row in want for score in row])
    assert flat.std() > 0.02
    for bound in (16384, 700, 300):
        found = case.signal(tmp_path, max_tokens_per_batch=bound).scores(responses())
        assert [len(row) for row in found] == [len(steps) for _, steps in ROWS]
        for got, wanted in zip(found, want, strict=True):
            assert got == pytest.approx(wanted, abs=1e-4)
    low, high = signal.protocol_used.range
    assert low <= flat.min()
    assert flat.max() <= high


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.protocol)
def test_scores_land_on_the_policys_tokens(case: Case, tmp_path: Path) -> None:
    """Steps end where the policy's tokens of them end, though the reward model has others."""
    steps = case.signal(case.checkpoint(tmp_path))(responses())
    assert isinstance(steps, sc.Steps)
    policy = vocabularies.policy()
    ends = steps.ends.split(steps.counts.tolist())
    for (_, written), found in zip(ROWS, ends, strict=True):
        text, reached, want = "\n\n".join(written), 0, []
        spans = policy(text, return_offsets_mapping=True)["offset_mapping"]
        for step in written:
            begins = text.index(step.strip(), reached)
            reached = begins + len(step.strip())
            want.append(max((i for i, (_, end) in enumerate(spans) if end <= begins), default=-1))
        assert found.tolist() == [*want[1:], len(spans) - 1]
