"""reasoning-gym's graders: every task's own answer, and what they must not do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import RolloutError
from stepcredit.rewards import reward
from stepcredit.rewards.gym_grader import harmless

gym = pytest.importorskip("reasoning_gym")

TASKS = {
    "gsm_symbolic", "chain_sum", "basic_arithmetic", "prime_factorization", "countdown",
    "spiral_matrix", "n_queens", "polynomial_multiplication", "simple_integration", "leg_counting",
    "letter_counting", "gcd", "number_sorting", "binary_matrix",
}  # fmt: skip


@pytest.fixture(scope="module")
def entries() -> dict[str, dict[str, Any]]:
    return {name: gym.create_dataset(name, size=1, seed=3)[0] for name in sorted(TASKS)}


def tagged(answers: list[str]) -> list[str]:
    return [f"<think>hm</think><answer>{answer}</answer>" for answer in answers]


def test_own_answers_are_right(entries: dict[str, dict[str, Any]]) -> None:
    rows = list(entries.values())
    facts = [{"entry": row} for row in rows]
    found = reward("reasoning-gym", limit=60)(tagged([row["answer"] for row in rows]), facts)
    assert dict(zip(entries, found, strict=True)) == dict.fromkeys(entries, 1.0)


def test_columns_may_be_the_row(entries: dict[str, dict[str, Any]]) -> None:
    row = entries["chain_sum"]
    rule = reward("reasoning-gym", limit=60)
    assert rule(tagged([row["answer"], "x"]), [row, row]) == [1.0, 0.0]


@pytest.mark.parametrize("answer", ["wrong", "[1", "-7", "{'a': 1}", "(", "0", "\u0664"])
def test_wrong_answers_are_wrong_where_graders_raise_or_console(
    answer: str, entries: dict[str, dict[str, Any]]
) -> None:
    facts = [{"entry": row} for row in entries.values()]
    found = reward("reasoning-gym", limit=60)(tagged([answer] * len(facts)), facts)
    assert found == [0.0] * len(facts)


def attacks(witness: Path) -> list[str]:
    write = f"open('{witness}', 'w')"
    return [
        write,
        f"[{write}]",
        f"[open][0]('{witness}', 'w')",
        f"open ('{witness}', 'w')",
        f"open\\\n('{witness}', 'w')",
        f"[open # +\n ('{witness}', 'w')]",
        f"(open)('{witness}', 'w')",
        f"{{**dict(a={write})}}",
        f"__import__('os').system('touch {witness}')",
        f"(lambda: {write})()",
        f"[0 for _ in [0] if {write}]",
        f"\uff4fpen('{witness}', 'w')",
        f'x + sympify("{write}")',
        f"print({write})",
        f"str.format('{{}}', {write})",
    ]


def test_no_answer_is_executed(tmp_path: Path, entries: dict[str, dict[str, Any]]) -> None:
    witness = tmp_path / "witness"
    rows = list(entries.values())
    tried = [(attack, row) for attack in attacks(witness) for row in rows]
    facts = [{"entry": row} for _, row in tried]
    found = reward("reasoning-gym", limit=60)(tagged([attack for attack, _ in tried]), facts)
    assert not witness.exists()
    assert set(found) == {0.0}


def test_the_attacks_would_work(tmp_path: Path) -> None:
    """Python's eval does write the witness: the test above can fail."""
    for attack in attacks(tmp_path / "witness")[:3]:
        (tmp_path / "witness").unlink(missing_ok=True)
        eval(attack)
        assert (tmp_path / "witness").exists()


@pytest.mark.parametrize(
    "answer",
    ["1 2 3", "[[1, 2], [3, 4]]", "(1 + 2)*3", "x**2*sin(x)/2 + C", "-(4)", "2 * (1)"],
)
def test_honest_answers_are_harmless(answer: str) -> None:
    assert harmless(answer)


def test_the_limit_holds(entries: dict[str, dict[str, Any]]) -> None:
    rule = reward("reasoning-gym", limit=2.0, workers=1)
    row = entries["countdown"]
    rule(tagged([row["answer"]]), [{"entry": row}])
    start = time.monotonic()
    hanging = "((9**9999)**9999)**9999"
    assert rule(tagged([hanging, row["answer"]]), [{"entry": row}] * 2) == [0.0, 1.0]
    assert time.monotonic() - start < 60.0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"answer": "1", "metadata": {"source_dataset": "no_such"}},
         "row 0: entry: reasoning-gym has no data set 'no_such'"),
        ({"answer": "1"},
         "row 0: entry: expected a row of reasoning-gym: answer, metadata with source_dataset"),
        ("1", "row 0: entry: expected a row of reasoning-gym: answer, metadata with "
              "source_dataset"),
    ],
)  # fmt: skip
def test_bad_entries_are_told(entry: object, message: str) -> None:
    with pytest.raises(RolloutError) as caught:
        reward("reasoning-gym", limit=60)(tagged(["1"]), [{"entry": entry}])
    assert str(caught.value) == message
