"""The implicit reward against the core's PRIME on the same log-probs, and two real models."""

from __future__ import annotations

import pytest
import torch
from tests.signals.test_distillation import read, rollouts_of, rows_of
from tests.signals.tiny_models import save

import stepcredit as sc
from stepcredit.errors import SettingError
from stepcredit.signals.models.ratios import ImplicitPRM
from stepcredit.signals.models.teacher_forcing import LocalLogProbs


def test_primes_return_is_the_suffix_sum_of_the_signal():
    """Less the others' mean, summed from each token on: what PRIME makes of the log-probs."""
    rows = rows_of(6, known=["prm", "ref"])
    estimator = sc.PRIME(beta=0.3, process_weight=1.0, whiten_batch=False)
    logprobs = {side: read(rows, side) for side in ("prm", "ref")}
    found = estimator(rollouts_of(rows, logprobs=logprobs)).ragged()
    scores = ImplicitPRM(beta=0.3).scores(rows)
    means = [sum(row) / len(row) for row in scores]
    for index, row in enumerate(scores):
        others = [means[k] for k in range(6) if k % 2 == index % 2 and k != index]
        base = sum(others) / len(others)
        expected = [sum(score - base for score in row[t:]) for t in range(len(row))]
        assert found[index].tolist() == pytest.approx(expected, abs=1e-5)


def test_from_folders_it_scales_the_log_ratio(tmp_path):
    prm, ref = save(tmp_path / "prm", seed=1), save(tmp_path / "ref", seed=2)
    rows = rows_of()
    found = ImplicitPRM(prm=prm, ref=ref, beta=0.2, tokenizer=ref).scores(rows)
    of_prm, of_ref = (LocalLogProbs(path).scores(rows) for path in (prm, ref))
    for scores, one, other in zip(found, of_prm, of_ref, strict=True):
        expected = 0.2 * (torch.tensor(one) - torch.tensor(other))
        assert scores == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_policys_tokenizer_is_needed(tmp_path):
    path = save(tmp_path)
    with pytest.raises(SettingError) as caught:
        ImplicitPRM(prm=path, ref=path).scores(rows_of())
    assert str(caught.value) == (
        "tokenizer: the policy's is needed, to check the vocabulary of the prm"
    )
