"""pass@k of the prompts of an evaluation, against draws of k samples counted one by one."""

from __future__ import annotations

from itertools import combinations

import pytest

from stepcredit.engines.prompt_pass_at_k import prompt_pass_at_k


def test_each_prompt_has_the_share_of_draws_with_a_right_sample() -> None:
    outcomes = {"a": [1.0, 0.0, 0.0, 0.2, 1.0, 0.0], "b": [0.0] * 6}
    prompts = [name for _ in range(6) for name in outcomes]
    values = [outcomes[name][row // 2] for row, name in enumerate(prompts)]
    found = prompt_pass_at_k(prompts, values, right_above=0.5)
    assert list(found) == ["pass@1", "pass@2", "pass@4", "pass@6"]
    for name, (first, second) in found.items():
        draws = list(combinations(outcomes["a"], int(name[5:])))
        counted = sum(any(value > 0.5 for value in draw) for draw in draws) / len(draws)
        assert first == pytest.approx(counted)
        assert second == 0.0


def test_prompts_with_an_unknown_outcome_are_left_out() -> None:
    found = prompt_pass_at_k(list("aabbcc"), [1.0, 1.0, None, 1.0, float("nan"), 0.0])
    assert found == {"pass@1": [1.0], "pass@2": [1.0]}
    assert prompt_pass_at_k(["a"], [None]) == {}


def test_prompts_with_more_samples_count_all_of_them() -> None:
    """Of 3 samples with one right, 2 of the 3 pairs hold it; of 2 samples, the one pair does."""
    found = prompt_pass_at_k(list("aaabb"), [1.0, 0.0, 0.0, 1.0, 0.0])
    assert found == {"pass@1": pytest.approx([1 / 3, 1 / 2]), "pass@2": pytest.approx([2 / 3, 1.0])}
