"""The reward `reasoning-gym` runs no code: neither a response's, nor that of a row of a file."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.security.payloads import PAYLOADS, filled

from stepcredit.errors import RolloutError
from stepcredit.rewards import reward
from stepcredit.rewards.gym_grader import GRADER
from stepcredit.rewards.gym_table import names, rule_of
from stepcredit.rewards.serving import RIGHT, WRONG

gym = pytest.importorskip("reasoning_gym")

from tests.rewards.gym_rows import EVALUATING, one_row_each, tagged  # noqa: E402

RUN_CODE = [kind for kind in PAYLOADS if kind.startswith(("python", "sympy"))]
RUN_BY_LIBRARY = [(name, "") for name in sorted(EVALUATING) if rule_of(name).answer] + [
    ("bitwise_arithmetic", "metadata.problem"),
    ("number_sorting", "answer"),
    ("polynomial_multiplication", "answer"),
    ("simple_integration", "metadata.integrand"),
    ("intermediate_integration", "metadata.integrand"),
]
UNGATED = """
import json, sys
from contextlib import suppress
from reasoning_gym import get_score_answer_fn
name, answer, entry = json.loads(sys.argv[1])
with suppress(Exception):
    get_score_answer_fn(name)(answer, entry)
"""


@pytest.fixture(scope="module")
def evaluated() -> dict[str, dict[str, Any]]:
    """One row of each data set whose grader evaluates text."""
    return one_row_each(EVALUATING)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def test_the_payloads_are_many_and_different() -> None:
    payloads = [payload for kind in PAYLOADS.values() for payload in kind]
    assert len(payloads) == len(set(payloads))
    assert len(payloads) > 400


@pytest.mark.parametrize("kind", sorted(PAYLOADS))
def test_no_answer_is_executed(
    kind: str, canary: Path, evaluated: dict[str, dict[str, Any]]
) -> None:
    """All payloads to all graders that evaluate; the rows after them are graded right."""
    rows = list(evaluated.values())
    tried = [(payload, row) for payload in filled(canary)[kind] for row in rows]
    pairs = [*tried, *((row["answer"], row) for row in rows)]
    facts = [{"entry": row} for _, row in pairs]
    rule = reward("reasoning-gym", limit=60, workers=1)
    found = rule(tagged([answer for answer, _ in pairs]), facts)
    assert set(found[: len(tried)]) == {0.0}
    assert set(found[len(tried) :]) == {1.0}


def test_no_answer_is_executed_by_the_other_graders(canary: Path) -> None:
    rows = one_row_each(names() - EVALUATING)
    texts = filled(canary)
    payloads = [payload for kind in RUN_CODE for payload in texts[kind][:1]]
    tried = [(payload, name) for payload in payloads for name in rows]
    rule = reward("reasoning-gym", limit=60, workers=2)
    found = rule(tagged([payload for payload, _ in tried]), [rows[name] for _, name in tried])
    right = {name for (_, name), grade in zip(tried, found, strict=True) if grade}
    assert right <= {"gsm_symbolic"}  # it looks for a number in any text


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of a row's values, of lists' only the first three."""
    if not isinstance(value, dict | list | tuple):
        yield path
        return
    items = value.items() if isinstance(value, dict) else enumerate(value[:3])
    for key, inner in items:
        yield from places(inner, (*path, key))


def with_value(entry: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = json.loads(json.dumps(entry))
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return changed


@pytest.mark.parametrize("name", sorted(EVALUATING))
def test_no_field_of_a_row_is_executed(
    name: str, canary: Path, evaluated: dict[str, dict[str, Any]]
) -> None:
    """A payload in each field: the row is refused, or graded without running it."""
    own = evaluated[name]
    run = {tuple(path.split(".")) for path in rule_of(name).fields}
    texts = [text for kind in RUN_CODE for text in filled(canary)[kind]][::16]
    for path in places(own):
        if path in run or path == ("metadata", "source_dataset"):
            continue
        rows = [with_value(own, path, text) for text in texts]
        shown = [row["answer"] for row in rows] + [own["answer"]] * len(rows)
        reward("reasoning-gym", limit=60)(tagged(shown), [{"entry": row} for row in rows * 2])
        assert not canary.exists(), path


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name in sorted(EVALUATING) for path in rule_of(name).fields],
)
def test_a_row_that_would_run_code_is_refused(
    name: str, path: str, canary: Path, evaluated: dict[str, dict[str, Any]]
) -> None:
    own, rule = evaluated[name], reward("reasoning-gym", limit=60)
    for text in [text for kind in RUN_CODE for text in filled(canary)[kind]]:
        row = with_value(own, tuple(path.split(".")), text)
        with pytest.raises(RolloutError, match=rf"^row 0: entry\.{path}: the grader of {name} "):
            rule(tagged([own["answer"]]), [{"entry": row}])


@pytest.mark.parametrize("name", sorted(EVALUATING))
def test_an_answer_that_is_the_rows_own_is_not_executed(
    name: str, canary: Path, evaluated: dict[str, dict[str, Any]]
) -> None:
    """The row's answer and the response's are the same code, but for the space around it."""
    texts = [text for kind in RUN_CODE for text in filled(canary)[kind]]
    if "answer" in rule_of(name).fields:
        texts = []  # such a row is refused, as the test above shows
    rows = [{**evaluated[name], "answer": f" {text} "} for text in texts]
    rule = reward("reasoning-gym", limit=60, read="whole")
    assert sum(rule(texts, [{"entry": row} for row in rows])) == 0


@pytest.mark.parametrize("value", [7, None, ["1"], {"a": 1}, True])
def test_a_field_that_is_run_must_be_text(
    value: object, evaluated: dict[str, dict[str, Any]]
) -> None:
    row = with_value(evaluated["bitwise_arithmetic"], ("metadata", "problem"), value)
    with pytest.raises(RolloutError, match=r"^row 0: entry\.metadata\.problem: the grader of"):
        reward("reasoning-gym")(tagged(["1"]), [{"entry": row}])


def test_columns_are_named_without_the_entry(evaluated: dict[str, dict[str, Any]]) -> None:
    row = {**evaluated["polynomial_multiplication"], "answer": "open('f', 'w')"}
    with pytest.raises(RolloutError) as caught:
        reward("reasoning-gym")(tagged(["1"]), [row])
    assert str(caught.value) == (
        "row 0: answer: the grader of polynomial_multiplication would run it as code, and it is "
        "no number, formula or list that the data set could hold"
    )


def test_a_bad_row_is_refused_whether_or_not_it_is_answered(
    evaluated: dict[str, dict[str, Any]],
) -> None:
    row = with_value(evaluated["bitwise_arithmetic"], ("metadata", "problem"), "exit()")
    facts = [{"entry": evaluated["countdown"]}, {"entry": row}]
    with pytest.raises(RolloutError, match=r"^row 1: "):
        reward("reasoning-gym")(["no answer"] * 2, facts)


def grader_state(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What an answer could change: the graders' modules, SymPy, builtins and the environment."""
    modules = {type(gym.get_score_answer_fn(name).__self__).__module__ for name in rows}
    state = {name: dict(vars(sys.modules[name])) for name in modules | {"sympy", "numpy", "os"}}
    return {**state, "builtins": dict(vars(sys.modules["builtins"])), "env": dict(os.environ)}


def test_graders_keep_no_state(canary: Path, evaluated: dict[str, dict[str, Any]]) -> None:
    """What a worker runs, run here: nothing that later grades depend on has changed."""
    asked = {
        name: json.dumps({"dataset": name, "entry": row, "threshold": 1.0})
        for name, row in evaluated.items()
    }
    grade = {
        name: GRADER.verdict(evaluated[name]["answer"], entry) for name, entry in asked.items()
    }
    before = grader_state(evaluated)
    for kind in RUN_CODE:
        for payload in filled(canary)[kind]:
            assert {GRADER.verdict(payload, entry) for entry in asked.values()} == {WRONG}
    after = grader_state(evaluated)
    assert after.pop("env") == before.pop("env")
    for name, state in before.items():
        assert {key: id(value) for key, value in after[name].items()} == {
            key: id(value) for key, value in state.items()
        }
    assert grade == dict.fromkeys(evaluated, RIGHT)
    assert grade == {
        name: GRADER.verdict(evaluated[name]["answer"], row) for name, row in asked.items()
    }


@pytest.mark.parametrize(("name", "path"), RUN_BY_LIBRARY)
def test_the_library_alone_would_run_it(
    name: str, path: str, tmp_path: Path, evaluated: dict[str, dict[str, Any]]
) -> None:
    """Without the table, each of these creates the file: the tests above can fail."""
    canary = tmp_path / "canary"
    entry, code = copy.deepcopy(evaluated[name]), f"open('{canary}', 'w')"
    answer = entry["answer"] if path else code
    if path:
        entry = with_value(entry, tuple(path.split(".")), code)
    arguments = [sys.executable, "-c", UNGATED, json.dumps([name, answer, entry])]
    subprocess.run(arguments, check=True)
    assert canary.exists()
