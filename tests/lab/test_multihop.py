"""The multihop task: its questions, its demonstrations, its exact checker, its tokenizer."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import stepcredit as sc
from stepcredit.errors import StepCreditError
from stepcredit.keys import keyed_generator
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.log_ratios import LOG_RATIOS
from stepcredit.lab.multihop import NAMES, RELATIONS, MultihopTask
from stepcredit.lab.task import hash_split

TASK = MultihopTask()
FACTS = " Cid's boss Ann Ann's sister Eve Eve's sister Bob Ann's boss Bob Eve's boss Ida"
PROMPT = f"{FACTS}. Ann's sister's boss:"
SOLVED = " Ann's sister Eve\n Eve's boss Ida\n< Ida>$"


def triples(prompt: str) -> tuple[list[tuple[str, str, str]], str, list[str]]:
    """Facts, start and relations, read by splitting at spaces: nothing of the task is used."""
    facts, question = prompt.rstrip(":").split(".")
    words = facts.split()
    found = [
        (subject.removesuffix("'s"), relation, reached)
        for subject, relation, reached in zip(words[::3], words[1::3], words[2::3], strict=True)
    ]
    start, *relations = question.strip().replace("'s", "").split()
    return found, start, relations


def all_answers(prompt: str) -> list[str]:
    """Every person that some choice of one fact per hop reaches, by brute force."""
    facts, start, relations = triples(prompt)
    reached = []
    for chosen in product(facts, repeat=len(relations)):
        people = [start, *(fact[2] for fact in chosen)]
        steps = zip(chosen, people, relations, strict=False)
        if all((subject, rel) == (person, wanted) for (subject, rel, _), person, wanted in steps):
            reached.append(people[-1])
    return reached


@pytest.mark.parametrize(
    ("split", "hops", "n"), [("train", 2, 300), ("held_out_3", 3, 100), ("held_out_4", 4, 25)]
)
def test_every_question_has_one_answer_by_brute_force(split: str, hops: int, n: int) -> None:
    for problem in TASK.problems(n, split, seed=3):
        facts, _, relations = triples(problem.prompt)
        assert len(relations) == len(set(relations)) == hops
        assert len(facts) == len({fact[:2] for fact in facts}) == 8
        assert all(subject != reached for subject, _, reached in facts)
        assert all_answers(problem.prompt) == [problem.answer]


def test_one_distractor_shares_a_relation_and_others_a_subject_with_a_hop() -> None:
    shared = Counter[str]()
    for problem in TASK.problems(100, "held_out"):
        facts, start, relations = triples(problem.prompt)
        table = {fact[:2]: fact[2] for fact in facts}
        hops, person = [], start
        for relation in relations:
            hops.append((person, relation))
            person = table[person, relation]
        others = [pair for pair in table if pair not in hops]
        assert sum(relation in relations for _, relation in others) == 1
        shared["subject"] += sum(pair[0] in {hop[0] for hop in hops} for pair in others)
        shared["nothing"] += sum(pair[0] not in {hop[0] for hop in hops} for pair in others)
    assert shared == {"subject": 300, "nothing": 300}


def test_splits_share_no_prompt_over_all_seeds() -> None:
    seen = {
        split: {p.prompt for seed in range(3) for p in TASK.problems(200, split, seed)}
        for split in TASK.splits
    }
    assert sum(map(len, seen.values())) == len(set.union(*seen.values()))
    shown = TASK.demonstrated(keyed_generator(0, "test"))
    asked = [next(shown) for _ in range(500)]
    assert {hash_split(prompt) for prompt in asked} == {"train"}
    assert set(Counter(len(triples(prompt)[2]) for prompt in asked)) == {2, 3, 4}
    assert {hash_split(prompt) for prompt in seen["train"]} == {"train"}
    assert {hash_split(prompt) for prompt in seen["held_out_4"]} == {"held_out"}


@pytest.mark.parametrize(
    ("completion", "kinds", "outcome", "format"),
    [
        (SOLVED, ["right", "right", "answer"], 1, 1),
        # a wrong object; the next line goes on from it, and there is no such fact
        (" Ann's sister Bob\n Bob's boss Ida\n< Ida>$", ["wrong", "wrong", "answer"], 1, 1),
        # a true fact that is not the next hop; the relation comes too soon
        (" Ann's boss Bob\n< Bob>$", ["wrong", "answer"], 0, 1),
        (" Eve's boss Ida\n< Ida>$", ["wrong", "answer"], 1, 1),
        # one hop too many
        (SOLVED[:-7] + " Eve's sister Bob\n< Bob>$", ["right", "right", "wrong", "answer"], 0, 1),
        # stopped early: faithful to the last person; guessing, with luck
        (" Ann's sister Eve\n< Eve>$", ["right", "answer"], 0, 1),
        (" Ann's sister Eve\n< Ida>$", ["right", "bad_answer"], 1, 1),
        # filler: naming a person, repeating a line
        ("k Ann\n Ann's sister Eve\n Ann's sister Eve\nk Bob\n Eve's boss Ida\n< Ida>$",
         ["filler", "right", "filler", "filler", "right", "answer"], 1, 1),
        # no line of the grammar; its answer still counts, its format does not
        (" Ann's sister\n< Ida>$", ["malformed", "bad_answer"], 1, 0),
        ("k\n" + SOLVED, ["malformed", "right", "right", "answer"], 1, 0),
        (" Ann's sister Eve\n Eve's boss", ["right", "malformed"], 0, 0),
        (SOLVED[:-1], ["right", "right", "malformed"], 0, 0),
        ("$", ["malformed"], 0, 0),
        ("< Ida>\n< Ida>$", ["malformed", "bad_answer"], 1, 0),
        ("", [], 0, 0),
    ],
)  # fmt: skip
def test_the_checker(completion: str, kinds: list[str], outcome: float, format: float) -> None:
    graded = TASK.check(PROMPT, completion)
    assert graded.kinds == kinds
    assert (graded.outcome, graded.format, graded.format_ok) == (outcome, format, bool(format))
    tokens = TASK.build_tokenizer()(completion).input_ids
    if completion:
        assert graded.step_ends[-1] == len(tokens) - 1
        assert all(a < b for a, b in zip(graded.step_ends, graded.step_ends[1:], strict=False))
    assert graded == TASK.check_tokens(PROMPT, tokens, TASK.build_tokenizer())


def test_the_checker_agrees_with_the_brute_force_on_random_answers() -> None:
    generator = np.random.default_rng(0)
    for problem in TASK.problems(200, "held_out"):
        name = NAMES[int(generator.integers(len(NAMES)))]
        answer = name if generator.random() < 0.5 else f" {problem.answer}"
        expected = float([answer.strip()] == all_answers(problem.prompt))
        assert TASK.check(problem.prompt, f"<{answer}>$").outcome == expected


def test_demonstrations_hold_both_habits_in_their_shares() -> None:
    generator = keyed_generator(0, "test")
    source = TASK.demonstrated(generator)
    asked = [next(source) for _ in range(1500)]
    texts = [TASK.demonstration(prompt, generator, 0.12, 0.08) for prompt in asked]
    graded = [TASK.check(prompt, text) for prompt, text in zip(asked, texts, strict=True)]
    assert all(g.format_ok and "wrong" not in g.kinds for g in graded)
    lines = sum(len(g.kinds) - g.fillers for g in graded)
    assert 0.12 < sum(g.fillers for g in graded) / lines < 0.16
    assert 0.06 < sum(g.right_steps < g.operations for g in graded) / 1500 < 0.10
    tokenizer = TASK.build_tokenizer()
    assert max(len(ids) for ids in tokenizer(texts).input_ids) <= TASK.max_new_tokens
    plain = [TASK.demonstration(prompt, generator, 0.0, 0.0) for prompt in asked]
    assert all(
        TASK.check(prompt, text).outcome == 1 and text.count("\n") == len(triples(prompt)[2])
        for prompt, text in zip(asked, plain, strict=True)
    )


def test_the_saved_tokenizer_reads_one_word_a_token_and_gives_the_text_back(tmp_path: Path) -> None:
    TASK.build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for problem in TASK.problems(50, "held_out_4"):
        text = problem.prompt + TASK.demonstration(problem.prompt, keyed_generator(1, "x"), 0.3, 0)
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text
        assert "".join(tokenizer.convert_ids_to_tokens(ids)) == text
        assert tokenizer.unk_token_id not in ids
    assert len(tokenizer(PROMPT).input_ids) == 3 * 5 + 5
    assert tokenizer.padding_side == "left"
    assert len(tokenizer) == len(NAMES) + len(RELATIONS) + 9
    assert tokenizer("Zoe").input_ids == [tokenizer.unk_token_id] * 3


@pytest.mark.parametrize("name", LOG_RATIOS)
def test_a_signal_scores_tokens_or_steps(name: str) -> None:
    signal = TASK.signal(name, seed=0)
    graded = [TASK.check(PROMPT, SOLVED), TASK.check(PROMPT, "$")]
    counts = [12, 1]
    generator = torch.Generator().manual_seed(0)
    drawn = {
        model: -torch.rand(sum(counts), generator=generator, dtype=torch.float64)
        for model in signal.models
    }
    probs = {model: sc.Tokens(values, counts=counts) for model, values in drawn.items()}
    scores = signal.process([PROMPT, PROMPT], [[0] * 12, [0]], graded, probs)
    expected = drawn["teacher"] - drawn["student"]
    if name.startswith("g-"):
        taught, own = (drawn[m] - drawn["base"] for m in ("teacher", "student"))
        expected = 1.25 * taught - own
    assert ("base" in signal.models) == name.startswith("g-")
    if "steps" not in name:
        assert isinstance(scores, sc.Tokens)
        assert scores.values.tolist() == pytest.approx(expected.tolist())
        return
    assert isinstance(scores, sc.Steps)
    assert scores.ends.tolist() == [3, 7, 11, 0]
    parts = (expected[:4], expected[4:8], expected[8:12], expected[12:])
    assert scores.values.tolist() == pytest.approx([float(part.sum()) for part in parts])


def test_the_mismatched_teacher_is_shown_more_filler_and_is_another_model() -> None:
    policy = LabSettings(task="multihop", signal="opd")
    benign = policy.teacher
    mismatched = LabSettings(task="multihop", signal="opd-mismatched").teacher
    assert benign.filler == policy.warm.filler
    assert 3 * benign.filler < mismatched.filler
    assert benign.early_stop == mismatched.early_stop == 0
    assert benign.model.width > policy.warm.model.width
    assert benign.model.layers > policy.warm.model.layers
    assert benign.key() != mismatched.key()


def test_all_seeds_share_one_teacher() -> None:
    first, second = (LabSettings(task="multihop", signal="g-opd-steps", seed=s) for s in (0, 3))
    assert first.teacher == second.teacher
    assert first.warm != second.warm


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: TASK.problems(1, "test"),
         "split: expected one of train, check, held_out, held_out_3, held_out_4, got 'test'"),
        (lambda: TASK.check("Ann?", ""), "prompt: expected facts and a question such as"),
        (lambda: LabSettings(task="multihop", signal="noisy"),
         f"signal: expected one of {', '.join(LOG_RATIOS)}, got 'noisy'"),
        (lambda: LabSettings(signal="opd"),
         "signal: expected one of exact, noisy, hackable, centred, negative, monte-carlo, "
         "answer-progress, shared-prefix, got 'opd'"),
        (lambda: LabSettings(task="multihop", signal_fields={"filler": 0.5}),
         "signal_fields: has no setting 'filler'"),
    ],
)  # fmt: skip
def test_refuses(call, line: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StepCreditError) as error:
        call()
    assert str(error.value).startswith(line)


def test_every_relation_and_name_is_one_token() -> None:
    tokenizer = TASK.build_tokenizer()
    assert all(len(tokenizer(word).input_ids) == 1 for word in (*NAMES, *RELATIONS))
