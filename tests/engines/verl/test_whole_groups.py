"""Which batches hold whole groups: sessions are counted, not outputs and not padding."""

from __future__ import annotations

import pytest
import torch

from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.whole_groups import WholeGroups
from stepcredit.errors import EngineError


def batch_of(*keys: str, padding: int = 0) -> QueuedBatch:
    """A batch of rows with these keys, of which the last so many are padding."""
    uids = [key.split("_")[0] for key in keys]
    is_padding = [row >= len(keys) - padding for row in range(len(keys))]
    return QueuedBatch(
        keys, is_padding, {"uid": uids, "response_mask": [torch.ones(2)] * len(keys)}
    )


def test_a_group_that_a_users_sampler_cut_is_refused_with_its_numbers() -> None:
    whole = ["b_0_0", "b_1_0", "b_2_0", "b_3_0"]
    assert WholeGroups(4, is_custom=True).check(batch_of(*whole)) == {}
    with pytest.raises(EngineError) as caught:
        WholeGroups(4, is_custom=True).check(batch_of(*whole, "a_0_0", "a_1_0"))
    line = "trainer.v1.sampler.custom_sampler: prompt a has 2 of 4 sessions "
    line += "(actor_rollout_ref.rollout.n) in its batch, so its group is not whole when credit is "
    assert str(caught.value) == f"{line}computed"


def test_outputs_of_a_session_and_padding_are_no_sessions() -> None:
    outputs = batch_of("a_0_0", "a_0_1", "a_0_2")
    padded = batch_of("a_0_0", "a_1_0", "a_2_0", padding=2)
    for batch in (outputs, padded):
        with pytest.raises(EngineError, match="prompt a has 1 of 3 sessions"):
            WholeGroups(3, is_custom=True).check(batch)


def test_sessions_that_failed_under_verls_own_sampler_are_a_warning_of_one_kind() -> None:
    groups = WholeGroups(2)
    first, second = (groups.check(batch_of(key)) for key in ("a_1_0", "b_0_0"))
    assert first.keys() == second.keys() == {"missing sessions"}
    line = "prompt a has 1 of 2 sessions (actor_rollout_ref.rollout.n): the others failed or gave "
    assert first["missing sessions"] == f"{line}nothing, and its credit compares the rest alone"
    with pytest.raises(EngineError, match="prompt a come in several batches"):
        groups.check(batch_of("a_0_0"))
