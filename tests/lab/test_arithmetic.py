"""The embedded task: its splits, its demonstrations, its exact checker, its tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from stepcredit.errors import StepCreditError
from stepcredit.keys import keyed_generator
from stepcredit.lab import arithmetic
from stepcredit.lab.arithmetic import check, check_tokens, demonstration, problems, solve
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.task import hash_split

PROMPT = "3+4*2-1="
SOLVED = "3+4=7\n7*2=4\n4-1=3\n<3>$"


def test_values_follow_left_to_right_modulo_ten() -> None:
    for problem in problems(200, "train", seed=3):
        value, rest = int(problem.prompt[0]), problem.prompt[1:-1]
        for operator, digit in zip(rest[::2], rest[1::2], strict=True):
            value = eval(f"({value}{operator}{digit}) % 10")
        assert problem.answer == value
        assert 3 <= len(rest) // 2 <= 5


def test_splits_share_no_prompt_over_all_seeds() -> None:
    seen: dict[str, set[str]] = {split: set() for split in arithmetic.ARITHMETIC.splits}
    for split, prompts in seen.items():
        for seed in range(5):
            prompts |= {problem.prompt for problem in problems(400, split, seed)}
        assert {hash_split(prompt) for prompt in prompts} == {split}
    assert not seen["train"] & seen["held_out"]
    assert not seen["train"] & seen["check"]
    assert not seen["check"] & seen["held_out"]


def test_a_draw_is_keyed_by_its_seed_and_longer_draws_continue_it() -> None:
    assert problems(50, "train", 1) == problems(80, "train", 1)[:50]
    assert problems(50, "train", 1) != problems(50, "train", 2)
    assert len({problem.prompt for problem in problems(500, "held_out")}) == 500


@pytest.mark.parametrize(
    ("completion", "kinds", "outcome", "format"),
    [
        (SOLVED, ["right", "right", "right", "answer"], 1, 1),
        # a wrong result; what follows on it is right, so is the answer it leads to
        ("3+4=8\n8*2=6\n6-1=5\n<5>$", ["wrong", "right", "right", "answer"], 0, 1),
        # the left operand is not the last value
        ("3+4=7\n8*2=6\n6-1=5\n<5>$", ["right", "wrong", "right", "answer"], 0, 1),
        # another operation than the next one
        ("3+4=7\n7-1=6\n6*2=2\n<2>$", ["right", "wrong", "wrong", "answer"], 0, 1),
        # one step too many
        (SOLVED[:18] + "3+0=3\n<3>$", ["right", "right", "right", "wrong", "answer"], 1, 1),
        # stopped early: faithful to the last value; guessing, with luck
        ("3+4=7\n<7>$", ["right", "answer"], 0, 1),
        ("3+4=7\n<3>$", ["right", "bad_answer"], 1, 1),
        # misreading the last value
        (SOLVED[:18] + "<4>$", ["right", "right", "right", "bad_answer"], 0, 1),
        # filler anywhere
        ("k0\n3+4=7\nk7\nk7\n7*2=4\n4-1=3\n<3>$",
         ["filler", "right", "filler", "filler", "right", "right", "answer"], 1, 1),
        # no line of the grammar; its answer still counts, its format does not
        ("3+4=\n7*2=4\n4-1=3\n<3>$", ["malformed", "wrong", "wrong", "answer"], 1, 0),
        ("k\n" + SOLVED, ["malformed", "right", "right", "right", "answer"], 1, 0),
        # cut off inside a step, after a whole line, before the end of sequence
        ("3+4=7\n7*2", ["right", "malformed"], 0, 0),
        ("3+4=7\n", ["right"], 0, 0),
        (SOLVED[:-1], ["right", "right", "right", "malformed"], 0, 0),
        # an end of sequence at once, and inside a step
        ("$", ["malformed"], 0, 0),
        ("3+4=7$", ["malformed"], 0, 0),
        # padding and unknown characters in the midst
        ("_?\n<3>$", ["malformed", "answer"], 1, 0),
        # an answer before the answer
        ("<3>\n<3>$", ["malformed", "answer"], 1, 0),
        ("", [], 0, 0),
    ],
)  # fmt: skip
def test_the_checker(completion: str, kinds: list[str], outcome: float, format: float) -> None:
    graded = check(PROMPT, completion)
    assert graded.kinds == kinds
    assert (graded.outcome, graded.format, graded.format_ok) == (outcome, format, bool(format))
    assert graded.fillers == kinds.count("filler")
    if completion:
        assert graded.step_ends[-1] == len(completion) - 1
        assert all(a < b for a, b in zip(graded.step_ends, graded.step_ends[1:], strict=False))


def test_a_wrong_chain_may_reach_the_answer_by_a_factor_of_zero() -> None:
    graded = check("3+4*0+2=", "3+4=9\n9*0=0\n0+2=2\n<2>$")
    assert graded.kinds == ["wrong", "right", "right", "answer"]
    assert graded.outcome == 1.0


@pytest.mark.parametrize(
    ("completion", "accuracy"),
    [
        (SOLVED, 1.0),
        ("3+4=7\n<3>$", 1 / 3),
        ("3+4=7\n7*2=5\nk5\n5-1=4\n<4>$", 2 / 3),
        (SOLVED[:18] + "3+0=3\n<3>$", 3 / 4),
        ("<3>$", 0.0),
    ],
)
def test_step_accuracy(completion: str, accuracy: float) -> None:
    assert check(PROMPT, completion).step_accuracy == pytest.approx(accuracy)


def test_demonstrations_hold_both_habits_in_their_shares() -> None:
    generator = keyed_generator(0, "test")
    asked = [problem.prompt for problem in problems(2000, "train")]
    texts = [demonstration(prompt, generator) for prompt in asked]
    graded = [check(prompt, text) for prompt, text in zip(asked, texts, strict=True)]
    assert all(g.format_ok and "wrong" not in g.kinds for g in graded)
    lines = sum(len(g.kinds) - g.fillers for g in graded)
    assert 0.12 < sum(g.fillers for g in graded) / lines < 0.16
    assert 0.06 < sum(g.right_steps < g.operations for g in graded) / 2000 < 0.10
    assert 28 < sum(map(len, texts)) / 2000 < 32
    assert max(map(len, texts)) <= arithmetic.MAX_NEW_TOKENS


def test_a_plain_demonstration_solves_the_problem() -> None:
    generator = keyed_generator(0, "test")
    assert demonstration(PROMPT, generator, filler=0, early_stop=0) == SOLVED
    assert solve(PROMPT) == [7, 4, 3]


def test_the_saved_tokenizer_loads_and_reads_one_character_a_token(tmp_path: Path) -> None:
    arithmetic.build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(SOLVED).input_ids
    assert len(ids) == len(SOLVED)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.padding_side == "left"
    assert tokenizer.decode(ids) == SOLVED
    assert tokenizer.decode(ids, skip_special_tokens=True) == SOLVED[:-1]
    assert check_tokens(PROMPT, ids, tokenizer) == check(PROMPT, SOLVED)
    assert arithmetic.completion_text(tokenizer("a$").input_ids, tokenizer) == "?$"


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: problems(1, "test"), "split: expected one of train, check, held_out, got 'test'"),
        (lambda: problems(0), "n: expected a positive number of problems, got 0"),
        (lambda: check("3+=", ""), "prompt: expected a chain such as 3+4*2=, got '3+='"),
    ],
)
def test_refuses(call, line: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StepCreditError) as error:
        call()
    assert str(error.value) == line


@pytest.mark.parametrize("operations", ["6-10", "11-20", "1-2"])
def test_longer_chains_are_an_option(operations: str) -> None:
    task = arithmetic.ArithmeticTask(operations)
    fewest, most = map(int, operations.split("-"))
    generator, tokenizer = keyed_generator(0, "test"), task.build_tokenizer()
    counts = set()
    for problem in task.problems(100, "held_out"):
        text = task.demonstration(problem.prompt, generator, 0.12, 0.0)
        graded = task.check(problem.prompt, text)
        counts.add(graded.operations)
        assert (graded.outcome, graded.right_steps) == (1.0, graded.operations)
        assert len(text) <= task.max_new_tokens
        assert len(problem.prompt) + task.max_new_tokens <= tokenizer.model_max_length
    assert (min(counts), max(counts)) == (fewest, most)
    assert task.cache_key != arithmetic.ARITHMETIC.cache_key


@pytest.mark.parametrize("operations", ["5-3", "0-2", "3-21", "3", "", 4])
def test_a_range_of_operations_that_cannot_be_is_refused(operations: object) -> None:
    with pytest.raises(StepCreditError) as error:
        LabSettings(task_fields={"operations": operations})
    reason = f"expected a range from 1 to 20 such as 6-10, got {operations!r}"
    assert str(error.value) == f"task_fields.operations: {reason}"


def test_a_runs_supervised_starts_are_on_chains_of_its_length() -> None:
    settings = LabSettings(task_fields={"operations": "6-10"}, model="medium")
    assert settings.warm.task_fields == settings.teacher.task_fields == {"operations": "6-10"}
    assert settings.warm.model.width == 192
    assert settings.max_new_tokens == 86
    assert settings.warm.key() != LabSettings(model="medium").warm.key()
