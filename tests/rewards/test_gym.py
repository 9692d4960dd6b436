"""reasoning-gym's graders: the answers of every data set, and rows that are none."""

from __future__ import annotations

from typing import Any

import pytest

from stepcredit.errors import MissingExtra, RolloutError
from stepcredit.rewards import gym as gym_reward
from stepcredit.rewards import reward
from stepcredit.rewards.gym_table import COMPOSITE, VERSION, names

gym = pytest.importorskip("reasoning_gym")

from tests.rewards.gym_rows import EVALUATING, one_row_each, rows_of, tagged  # noqa: E402

TASKS = {
    "gsm_symbolic", "chain_sum", "basic_arithmetic", "prime_factorization", "countdown",
    "spiral_matrix", "n_queens", "polynomial_multiplication", "simple_integration", "leg_counting",
    "letter_counting", "gcd", "number_sorting", "binary_matrix",
}  # fmt: skip


@pytest.fixture(scope="module")
def entries() -> dict[str, dict[str, Any]]:
    return one_row_each(TASKS)


def grades(rows: list[dict[str, Any]], answers: list[str]) -> list[float]:
    rule = reward("reasoning-gym", limit=60)
    return rule(tagged(answers), [{"entry": row} for row in rows])


def test_own_answers_are_right(entries: dict[str, dict[str, Any]]) -> None:
    rows = list(entries.values())
    facts = [{"entry": row} for row in rows]
    found = reward("reasoning-gym", limit=60)(tagged([row["answer"] for row in rows]), facts)
    assert dict(zip(entries, found, strict=True)) == dict.fromkeys(entries, 1.0)


def test_every_installed_data_set_is_in_the_table() -> None:
    from reasoning_gym.factory import DATASETS

    assert names() | {COMPOSITE} == set(DATASETS)


@pytest.mark.parametrize("name", sorted(names()))
def test_own_answers_are_right_where_the_library_says_so(name: str) -> None:
    """Five data sets give no answer, so that none can be right or wrong."""
    size = 20 if name in EVALUATING else 2
    rows = [row for seed in (1, 2) for row in rows_of(name, seed, size)]
    with_answer = [row for row in rows if row["answer"] is not None]
    assert with_answer or name in {
        "boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"
    }  # fmt: skip
    grader = gym.get_score_answer_fn(name)
    by_library = [float(grader(row["answer"], row) >= 1) for row in with_answer]
    assert by_library == [1.0] * len(with_answer)
    found = grades(with_answer, [row["answer"] for row in with_answer])
    assert found == by_library


def spelled(name: str, index: int, **changes: Any) -> dict[str, Any]:
    row = rows_of(name, 5, index + 1)[index]
    return {**row, **changes, "metadata": {**row["metadata"], **changes.get("metadata", {})}}


COUNTDOWN = spelled("countdown", 0, metadata={"numbers": [4, 3, 2], "target": 10})
PUZZLE = spelled("puzzle24", 0, metadata={"numbers": [8, 3, 1, 1]})
PRODUCT = spelled("polynomial_multiplication", 0, answer="6*x**2 - 7*x - 3")
INTEGRAL = spelled("simple_integration", 0, metadata={"integrand": "3*x**2 + 4/5", "variable": "x"})
SINE = spelled(
    "intermediate_integration", 0, metadata={"integrand": "2*x*cos(x**2)", "variable": "x"}
)
LOGARITHM = spelled(
    "intermediate_integration", 0, metadata={"integrand": "1/(2*x + 1)", "variable": "x"}
)
SHIFT = spelled("bitwise_arithmetic", 0, metadata={"problem": "((0x10 - 0x1) << 0x2)"})
SORTED = spelled("number_sorting", 0, answer="['-1.5', '2.0']", metadata={"direction": "ascending"})


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (COUNTDOWN, "3 * 4 - 2"),
        (COUNTDOWN, "3*4-2"),
        (COUNTDOWN, "  ((4) * 3) - +2 "),
        (COUNTDOWN, "-2 - (-(4*3))"),
        (COUNTDOWN, "4*3 - 2"),
        (PUZZLE, "8*3*1*1"),
        (PUZZLE, "8 * 3 / (1 / 1)"),
        (PUZZLE, "8*3**(1*1)"),
        (PRODUCT, "6*x**2 - 7*x - 3"),
        (PRODUCT, "6*x**2-7*x-3"),
        (PRODUCT, "-3 - 7*x + 6*x**2"),
        (PRODUCT, "-(3) + x*(-7) + x**2*6"),
        (PRODUCT, "6*x*x - 7*x - 3"),
        (INTEGRAL, "x**3 + 4*x/5 + C"),
        (INTEGRAL, "x**3 + 4*x/5"),
        (INTEGRAL, "C + x**3 + (4/5)*x"),
        (INTEGRAL, "x**3+0.8*x+C"),
        (INTEGRAL, "x**3 + 4*x/5 + 7"),
        (SINE, "sin(x**2) + C"),
        (SINE, "-cos(x**2 + pi/2) + C"),
        (LOGARITHM, "log(2*x + 1)/2 + C"),
        (LOGARITHM, "ln(2*x + 1)/2 + C"),
        (LOGARITHM, "log(x + 1/2)/2 + C"),
        (SHIFT, "0x3c"),
        (SHIFT, "60"),
        (SORTED, "['-1.5', '2.0']"),
        (SORTED, "[-1.5, 2]"),
        (SORTED, '["-1.5", "2.0"]'),
    ],
)
def test_other_spellings_are_right(row: dict[str, Any], answer: str) -> None:
    assert grades([row], [answer]) == [1.0]


def test_partial_scores_of_lists(entries: dict[str, dict[str, Any]]) -> None:
    """Lists in place of rows of text, which graders evaluate, keep their partial scores."""
    matrix, spiral = entries["binary_matrix"], entries["spiral_matrix"]
    queens = entries["n_queens"]
    lists = [
        str([[int(n) for n in line.split()] for line in matrix["answer"].split("\n")]),
        str([int(n) for n in spiral["answer"].split()]),
        str([line.split() for line in queens["answer"].split("\n")]),
    ]
    rule = reward("reasoning-gym", limit=60, threshold=0.1)
    assert rule(tagged(lists), [matrix, spiral, queens]) == [1.0, 1.0, 1.0]
    rule = reward("reasoning-gym", limit=60, threshold=1.0)
    assert rule(tagged(lists), [matrix, spiral, queens]) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("complex_arithmetic", ["nan", "NaN", "n a n", "nan+nanj"]),
        ("number_sorting", [f"[{', '.join(['NaN'] * n)}]" for n in range(1, 12)]
            + [f"[{', '.join(['%s'] * n)}]" % (('"\\u006ean"',) * n) for n in range(1, 12)]),
        ("game_of_life_halting", ["yes", "0", "anything"]),
        ("puzzle24", ["6*4*1*1", "4*6/1/1"]),
        ("intermediate_integration", ["Integral(x, x)", "Integral(cos(x), x)"]),
    ],
)  # fmt: skip
def test_no_answer_is_right_for_every_row(name: str, answers: list[str]) -> None:
    rows = [row for row in rows_of(name, 1, 12) if row["metadata"].get("numbers") != [6, 4, 1, 1]]
    for answer in answers:
        assert sum(grades(rows, [answer] * len(rows))) == 0, answer


def test_a_copied_integrand_is_no_integral() -> None:
    row = spelled(
        "intermediate_integration", 0, answer="x*exp(x) - exp(x) + C",
        metadata={"integrand": "x*exp(x)", "variable": "x"},
    )  # fmt: skip
    answers = ["Integral(x*exp(x), x)", "x*exp(x) - exp(x)"]
    assert grades([row, row], answers) == [0.0, 1.0]


def test_a_row_without_a_date_has_one_right_answer() -> None:
    row = next(
        row for row in rows_of("calendar_arithmetic", 1, 200)
        if row["metadata"]["task"] == "recurring_event_day"
    )  # fmt: skip
    row["answer"] = "-1"
    assert grades([row] * 3, ["-1", "5", "999999"]) == [1.0, 0.0, 0.0]


def test_a_beginning_of_a_probability_is_no_probability() -> None:
    row = spelled("coin_flip", 0, answer="0.65625")
    answers = ["0", "0.0", "0/1", "-0", "0.6", "0.65", "21/32", "0.65625", "0.6563"]
    assert grades([row] * 9, answers) == [0.0] * 6 + [1.0] * 3


def test_what_follows_the_point_counts() -> None:
    row = {**PUZZLE, "metadata": {**PUZZLE["metadata"], "numbers": [7, 7, 2, 1]}}
    assert grades([row] * 3, ["7*7/2*1", "7*7/2**1", "7/0*7*2*1"]) == [0.0] * 3
    assert grades([PUZZLE] * 2, ["8*3**(1*1)", "8*3*1**1"]) == [1.0, 1.0]


def test_hidden_numbers_do_not_count() -> None:
    answers = ["(4 + 3 + 2)*0 + 0xa", "(4+3+2)*0x0 + 0xa", "4*3*2*0x0 + 1_0", "4 - 4 + 10"]
    assert grades([COUNTDOWN] * len(answers), answers) == [0.0] * len(answers)


def test_rows_of_a_composite_are_graded_by_their_own_data_set() -> None:
    row = one_row_each(["countdown"])["countdown"]
    rule = reward("reasoning-gym", limit=60, dataset=COMPOSITE)
    assert rule(tagged([row["answer"], "open('f', 'w')"]), [row, row]) == [1.0, 0.0]
    with pytest.raises(RolloutError, match="row 0: entry: data set 'composite' is not among"):
        rule(tagged(["1"]), [{**row, "metadata": {"source_dataset": COMPOSITE}}])


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


@pytest.mark.timeout(60)
def test_the_limit_holds(entries: dict[str, dict[str, Any]]) -> None:
    """A grader that takes moves at their word is ended; a power of powers is not even tried."""
    rule = reward("reasoning-gym", limit=2.0, workers=1)
    row, cars = entries["countdown"], one_row_each(["rush_hour"])["rush_hour"]
    rule(tagged([row["answer"]]), [{"entry": row}])
    hanging = "((9**9999)**9999)**9999"
    facts = [{"entry": row}, {"entry": cars}, {"entry": row}]
    assert rule(tagged([hanging, "B+999999999999", row["answer"]]), facts) == [0.0, 0.0, 1.0]
    assert rule.tally["timed out"] == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"answer": "1", "metadata": {"source_dataset": "no_such"}},
         f"row 0: entry: data set 'no_such' is not among those of reasoning-gym {VERSION} "
            "whose graders were reviewed"),
        ({"answer": "1"},
         "row 0: entry: expected a row of reasoning-gym: answer, metadata with source_dataset"),
        ({"answer": "1", "metadata": "no_such"},
         "row 0: entry: expected a row of reasoning-gym: answer, metadata with source_dataset"),
        ({"answer": "1", "metadata": {"source_dataset": ["gcd"]}},
         "row 0: entry: expected a row of reasoning-gym: answer, metadata with source_dataset"),
        ({"answer": {1}, "metadata": {"source_dataset": "gcd"}},
         "row 0: entry: cannot be written as JSON: Object of type set is not JSON serializable"),
        ("1", "row 0: entry: expected a row of reasoning-gym: answer, metadata with "
              "source_dataset"),
    ],
)  # fmt: skip
def test_bad_entries_are_told(entry: object, message: str) -> None:
    with pytest.raises(RolloutError) as caught:
        reward("reasoning-gym", limit=60)(tagged(["1"]), [{"entry": entry}])
    assert str(caught.value) == message


def test_a_version_that_nobody_reviewed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym_reward, "version", lambda name: "9.9")
    with pytest.raises(MissingExtra) as caught:
        reward("reasoning-gym")(tagged(["1"]), [{"entry": COUNTDOWN}])
    assert str(caught.value) == (
        "reasoning_gym: version 9.9 is installed, but only the graders of 0.1.25 were reviewed "
        "for what they run as code: pip install reasoning_gym==0.1.25"
    )
