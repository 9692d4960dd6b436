"""The committed claims file, beside the presets that are to decide it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("trl")

from stepcredit.errors import StepCreditError
from stepcredit.study.claims import METRICS, StudyClaim, read_claims_file
from stepcredit.study.collapse import LENGTH_RATIO, LOST_PASS_AT_1
from stepcredit.study.page_words import METRIC_WORDS
from stepcredit.study.study_presets import find_preset

CLAIMS = Path(__file__).resolve().parents[2] / "evidence" / "claims.yaml"
FILE = read_claims_file(CLAIMS)


@pytest.mark.parametrize("claim", FILE.claims, ids=lambda claim: claim.id)
def test_the_presets_have_the_arms_and_signals_of_each_claim(claim: StudyClaim) -> None:
    for name in claim.presets:
        preset = find_preset(name, None)
        blocks = [b for b in preset.blocks if claim.task in (None, b.task)]
        assert blocks
        assert set(claim.compare) <= {arm.label for b in blocks for arm in b.arms}
        assert set(claim.signals or ()) <= {name for b in blocks for name in b.signals}


def test_the_primary_claims_are_few_and_on_test_seeds() -> None:
    primary = [claim for claim in FILE.claims if claim.primary]
    assert 0 < len(primary) <= 12
    names = {name for claim in FILE.claims for name in claim.presets}
    assert {find_preset(name, None).role for name in names} == {"test"}


def test_the_definitions_say_what_the_code_does() -> None:
    text = FILE.definitions["collapse"]
    assert f"{LOST_PASS_AT_1} below" in text
    assert f"{LENGTH_RATIO[0]} to {LENGTH_RATIO[1]} times" in text
    assert all(claim.margin == 0.03 for claim in FILE.claims if claim.kind == "tied")


def test_the_page_has_words_for_every_metric_and_knows_every_arm_with_published_figures() -> None:
    assert set(METRIC_WORDS) == set(METRICS)
    arms = {"warm start", *(arm.label for b in find_preset("main", None).blocks for arm in b.arms)}
    assert set(FILE.published_by_arm) <= arms


def test_a_claim_about_most_signals_is_about_pass_at_1() -> None:
    claim = next(claim for claim in FILE.claims if claim.kind == "most")
    with pytest.raises(StepCreditError, match="metric: a claim of the kind 'most' is about pass@1"):
        replace(claim, metric="length")
