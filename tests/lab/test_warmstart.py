"""The supervised start: stopped by threshold, keyed by its settings, cached whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepcredit.errors import StepCreditError
from stepcredit.lab.arithmetic import problems
from stepcredit.lab.evaluate import Evaluation, evaluate
from stepcredit.lab.model import ModelSettings, build_model
from stepcredit.lab.warmstart import FIGURES, WarmStartSettings, warm_start

TINY = WarmStartSettings(
    model=ModelSettings(width=16, layers=1, heads=2, feed_forward=32),
    batch_size=4,
    floor=0.0,
    target=0.0,
    check_from=2,
    check_every=2,
    check_problems=4,
    check_samples=2,
    max_steps=6,
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def _untrained(tokenizer: Any, size: ModelSettings) -> Evaluation:
    return evaluate(build_model(tokenizer, size), tokenizer, problems(32, "check"), 2)


def test_stops_at_the_first_check_that_reaches_the_target(tmp_path: Path) -> None:
    seen = []
    small = ModelSettings(width=64, layers=2, heads=2, feed_forward=128)
    settings = WarmStartSettings(
        model=small, learning_rate=4e-3, batch_size=32, target=0.1, check_from=10, check_every=15,
        check_problems=32, max_steps=250,
    )  # fmt: skip
    folder = warm_start(settings, tmp_path, lambda step, most, found: seen.append((step, found)))
    figures = json.loads((folder / FIGURES).read_text())
    assert figures["check"]["pass_at_1"]["mean"] >= 0.1
    assert figures["steps"] == seen[-1][0] + 1
    checks = {id(found): found for _, found in seen if found is not None}.values()
    assert all(found.pass_at_1.mean < 0.1 for found in checks)
    assert len(checks) >= 1, "the target was reached before anything was learned"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    after = evaluate(model, tokenizer, problems(32, "check"), settings.check_samples)
    assert after.as_dict() == figures["check"]
    assert after.format.mean > 0.05 > _untrained(tokenizer, small).format.mean


def test_is_cached_by_its_settings_and_appears_whole(tmp_path: Path) -> None:
    first = warm_start(TINY, tmp_path)
    stamp = (first / FIGURES).stat().st_mtime_ns
    assert warm_start(TINY, tmp_path) == first
    assert (first / FIGURES).stat().st_mtime_ns == stamp
    other = warm_start(replace(TINY, learning_rate=1e-3), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([first.name, other.name])


def test_a_broken_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(step: int, most: int, found: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm_start(TINY, tmp_path, stop)
    assert list(tmp_path.iterdir()) == []


def test_repeats_bit_for_bit_and_seeds_differ(tmp_path: Path) -> None:
    torch.manual_seed(1)
    once = weights(warm_start(TINY, tmp_path / "a"))
    torch.manual_seed(2)
    again = weights(warm_start(TINY, tmp_path / "b"))
    other = weights(warm_start(replace(TINY, seed=1), tmp_path / "a"))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["lm_head.weight"], other["lm_head.weight"])


def test_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    warm_start(TINY, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_fails_where_the_target_is_not_reached(tmp_path: Path) -> None:
    with pytest.raises(StepCreditError) as error:
        warm_start(replace(TINY, target=0.9), tmp_path)
    assert str(error.value) == "pass@1 0.9: not reached in 6 supervised steps"


def test_fails_where_the_first_check_is_above_the_band(tmp_path: Path) -> None:
    with pytest.raises(StepCreditError) as error:
        warm_start(replace(TINY, floor=-0.2, target=-0.1, ceiling=-0.05), tmp_path)
    reason = "jumped over at step 2 to 0.000: check earlier or more often"
    assert str(error.value) == f"pass@1 -0.2 to -0.05: {reason}"


def test_takes_the_check_before_where_the_target_is_overshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stepcredit.evals import Interval
    from stepcredit.lab import warmstart

    shown = iter([0.36, 0.60])

    def jumping(*args: object, **options: object) -> object:
        value = Interval(next(shown), 0.0, 1.0)
        return replace(evaluate(*args, **options), pass_at_1=value)  # type: ignore[arg-type]

    monkeypatch.setattr(warmstart, "evaluate", jumping)
    band = replace(TINY, floor=0.35, target=0.40, ceiling=0.45)
    folder = warm_start(band, tmp_path)
    figures = json.loads((folder / FIGURES).read_text())
    assert (figures["steps"], figures["check"]["pass_at_1"]["mean"]) == (2, 0.36)
    monkeypatch.undo()
    two_steps = weights(warm_start(TINY, tmp_path))
    assert all(torch.equal(value, two_steps[name]) for name, value in weights(folder).items())


def test_keys_from_before_muon_stay_valid() -> None:
    assert WarmStartSettings().key() == "ae2b0681d2fc54af"
    assert WarmStartSettings(matrix_learning_rate=1e-2).key() != WarmStartSettings().key()


def test_muon_moves_a_matrix_by_an_orthogonal_update(tmp_path: Path) -> None:
    """Its singular values are those of an orthogonal matrix, scaled to the size of Adam's."""
    rate = 1e-2
    once = replace(
        TINY, matrix_learning_rate=rate, warmup_steps=1, averaging=0.0, check_from=1, check_every=1
    )
    folder = warm_start(once, tmp_path)
    before = build_model(AutoTokenizer.from_pretrained(folder), once.model, once.seed).state_dict()
    moved = {name: after - before[name] for name, after in weights(folder).items()}
    matrices = [change for name, change in moved.items() if "_proj" in name]
    assert len(matrices) == 7
    for change in matrices:
        wanted = rate * 0.2 * max(change.shape) ** 0.5
        found = torch.linalg.svdvals(change)
        assert 0.5 * wanted < found.median() < 1.5 * wanted
        assert found.max() < 1.5 * wanted
    largest = moved["model.embed_tokens.weight"].abs().max()
    assert float(largest) == pytest.approx(once.learning_rate, rel=0.05)


def test_muon_needs_a_torch_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(StepCreditError, match=r"^matrix_learning_rate: Muon needs torch 2\.9"):
        warm_start(replace(TINY, matrix_learning_rate=1e-2), tmp_path)
