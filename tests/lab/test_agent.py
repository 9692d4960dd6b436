"""The agent task: what its tools answer, how turns are graded, and what a run trains."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.lab.micro import MICRO_WARM

from stepcredit.data.files.reading import read_rollouts
from stepcredit.errors import StepCreditError
from stepcredit.lab import comparison as job
from stepcredit.lab import warmstart
from stepcredit.lab.agent import AgentTask, AgentTools, draw_agent_prompt, read_agent_prompt
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.model import build_model
from stepcredit.lab.sampling import sample, sample_with_logprobs
from stepcredit.lab.tokenizer import completion_text
from stepcredit.signals import Response
from stepcredit.signals.splitting import Turns

TASK, TOOLS = AgentTask(), AgentTools()
PROMPT = draw_agent_prompt(7)  # 0007 Fay's sister's teacher's number-0=
RIGHT = (
    "lookup Fay's sister= Bob\nlookup Bob's teacher= Dan\nlookup Dan's number=6\n"
    "calculator 6-0=6\n<6>$"
)


def test_the_tools_answer_by_the_knowledge_base() -> None:
    assert PROMPT == "0007 Fay's sister's teacher's number-0="
    so_far = ""
    for turn in RIGHT.splitlines(keepends=True)[:-1]:
        call = turn[: turn.index("=") + 1]
        assert TOOLS.reply(PROMPT, so_far + call) == turn[len(call) :]
        so_far += turn
    for call in ("lookup Fay's boss's", "calculator 12-0", "lookup", "", "calculator 1/1"):
        assert TOOLS.reply(PROMPT, f"{call}=") == " none\n"
    for left, sign, right, value in ((3, "-", 7, 6), (7, "*", 8, 6), (9, "+", 4, 3)):
        assert TOOLS.reply(PROMPT, f"calculator {left}{sign}{right}=") == f"{value}\n"


def test_every_question_is_answered_by_its_four_calls() -> None:
    for number in range(50):
        question = read_agent_prompt(draw_agent_prompt(number))
        replies = [question.reply(call) for call in question.calls()]
        assert " none" not in replies
        assert int(replies[-1]) == question.answer


@pytest.mark.parametrize("prompt", ["", "0007 Fay's boss's number-0=", "12", "Ann's boss="])
def test_another_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(StepCreditError, match='prompt: expected a question such as "0000 '):
        TASK.check(prompt, "<1>$")


@pytest.mark.parametrize(
    ("text", "kinds", "outcome"),
    [
        (RIGHT, ["right"] * 4 + ["answer"], 1.0),
        (  # a wrong lookup, the same again, and the way back
            "lookup Fay's boss= none\nlookup Fay's boss= none\n" + RIGHT,
            ["wrong", "filler"] + ["right"] * 4 + ["answer"],
            1.0,
        ),
        ("lookup Dan's number=6\n<6>$", ["wrong", "answer"], 1.0),  # by luck, in one call
        ("lookup Fay's sister= Bob\n<6>$", ["right", "bad_answer"], 1.0),
        ("<6>$", ["bad_answer"], 1.0),
        ("lookup= none\n<1>$", ["malformed", "bad_answer"], 0.0),
        ("lookup Fay's sister= Bob\n", ["right"], 0.0),
        ("lookup Fay's sister= Bob\nlookup Bob", ["right", "malformed"], 0.0),
        ("calculator 6-0=6\n<6>$<6>$", ["wrong", "malformed"], 0.0),
    ],
)
def test_turns_are_judged_by_the_calls_before_them(
    text: str, kinds: list[str], outcome: float
) -> None:
    graded = TASK.check(PROMPT, text)
    assert graded.kinds == kinds
    assert graded.outcome == outcome
    tokenizer = TASK.build_tokenizer()
    assert graded.step_ends[-1] == len(tokenizer(text).input_ids) - 1


def test_the_tools_tokens_are_not_the_policys() -> None:
    tokenizer = TASK.build_tokenizer()
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(RIGHT).input_ids)
    flags = TOOLS.policy_tokens(tokens)
    own = "".join(token for token, flag in zip(tokens, flags, strict=True) if flag)
    assert own == (
        "lookup Fay's sister=lookup Bob's teacher=lookup Dan's number=calculator 6-0=<6>$"
    )
    graded = TASK.check(PROMPT, RIGHT)
    assert [tokens[end] for end in graded.step_ends] == ["\n"] * 4 + ["$"]


def test_a_state_is_what_was_learned_in_any_order() -> None:
    one, two = "lookup Fay's sister= Bob\n", "calculator 1+1=2\n"
    assert TOOLS.state("") == TOOLS.state("lookup Fay's boss= none\n")
    assert TOOLS.state(one + two) == TOOLS.state(two + one) == TOOLS.state(one + two + one)
    assert len({TOOLS.state(text) for text in ("", one, two, one + two)}) == 4
    tokenizer = TASK.build_tokenizer()
    ids = tokenizer(one + two + "<2>$").input_ids
    own = TOOLS.policy_tokens(tokenizer.convert_ids_to_tokens(ids))
    response = Turns().split(Response.of_ids("", ids, tokenizer, own=tuple(own)))
    assert response.written_steps == [True, False, True, False, True]
    assert TOOLS.states(response)[::2] == [TOOLS.state(text) for text in ("", one, one + two)]


def test_demonstrations_are_what_the_tools_would_have_answered() -> None:
    generator = np.random.default_rng(0)
    for problem in TASK.problems(40):
        clean = TASK.demonstration(problem.prompt, generator, 0.0, 0.0)
        assert TASK.check(problem.prompt, clean).kinds == ["right"] * 4 + ["answer"]
        text = TASK.demonstration(problem.prompt, generator, 0.6, 0.5)
        for end in (i + 1 for i, character in enumerate(text) if character == "="):
            reply = TOOLS.reply(problem.prompt, text[:end])
            assert text[end:].startswith(reply)


def test_splits_share_no_prompt_and_questions_are_distinct() -> None:
    drawn = {split: {p.prompt for p in TASK.problems(256, split)} for split in TASK.splits}
    assert all(len(prompts) == 256 for prompts in drawn.values())
    assert not drawn["train"] & drawn["held_out"]


@pytest.fixture(scope="module")
def policy() -> tuple[Any, Any]:
    """A decoder whose weights are random, and which calls often."""
    tokenizer = TASK.build_tokenizer()
    model = build_model(tokenizer, MICRO_WARM.model, seed=3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(1.0 if "norm" in name else 8.0)
    return model.eval(), tokenizer


def test_sampled_completions_hold_the_tools_answers(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    prompts = [problem.prompt for problem in TASK.problems(6)]
    found, logprobs = sample_with_logprobs(
        model, tokenizer, prompts, 4, 0, "test", 40, environment=TOOLS
    )
    replies = 0
    for row, (ids, said) in enumerate(zip(found, logprobs, strict=True)):
        prompt, text = prompts[row // 4], completion_text(ids, tokenizer)
        tokens, place = tokenizer.convert_ids_to_tokens(ids), 0
        flags = TOOLS.policy_tokens(tokens)
        while place < len(tokens):
            place += 1
            if tokens[place - 1] == "=" and flags[place - 1]:
                reply = TOOLS.reply(prompt, "".join(tokens[:place]))
                expected = tokenizer.convert_ids_to_tokens(tokenizer(reply).input_ids)
                written = tokens[place : place + len(expected)]
                assert written == expected[: len(written)], text
                assert not any(flags[place : place + len(written)])
                replies += 1
        start = tokenizer(prompt).input_ids
        with torch.no_grad():
            logits = model(torch.tensor([start + ids])).logits[0, len(start) - 1 : -1]
        own = logits.double().log_softmax(-1)[range(len(ids)), ids].numpy()
        np.testing.assert_allclose(said, own, atol=1e-5)
    assert replies > 10
    apart = sample(model, tokenizer, prompts, 4, 0, "test", 40, rows_at_once=3, environment=TOOLS)
    assert apart == found


def test_the_warm_start_learns_no_token_of_a_tool(
    policy: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    loss = torch.nn.functional.cross_entropy

    def spy(logits: Any, labels: torch.Tensor, **options: Any) -> Any:
        seen.append(labels)
        return loss(logits, labels, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", spy)
    tokenizer = policy[1]
    model = build_model(tokenizer, MICRO_WARM.model)
    warmstart._step(model, tokenizer, [], [(PROMPT, RIGHT), (PROMPT, "<6>$")], TOOLS)
    learned = [token for token in seen[0].tolist() if token != -100]
    assert completion_text(learned, tokenizer) == (
        "lookup Fay's sister=lookup Bob's teacher=lookup Dan's number=calculator 6-0=<6>$<6>$"
    )


MICRO = LabSettings(
    task="agent",
    method="gigpo",
    compare="pass",
    updates=2,
    prompts=2,
    group_size=4,
    evaluate_every=2,
    checkpoint_every=1,
    record_every=2,
    evaluation_problems=4,
    evaluation_samples=8,
    warm=replace(MICRO_WARM, task="agent", check_from=60, check_every=60),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, what was printed) of one run: GiGPO, then PASS."""
    root, out = tmp_path_factory.mktemp("agent"), io.StringIO()
    folder = job.train(MICRO, root, "run", root / "cache", Console(file=out, width=120))
    return folder, out.getvalue()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_turns_stand_beside_the_reward(whole: tuple[Path, str]) -> None:
    metrics = lines(whole[0] / "metrics.jsonl")
    assert all(row["rollouts/turns"] >= 1 for row in metrics if row["update"] > 0)
    assert all(row["evaluation"]["turns"]["mean"] >= 1 for row in metrics if "evaluation" in row)
    assert "turns" in whole[1]
    assert (whole[0] / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_recorded_turns_give_the_recorded_advantages(whole: tuple[Path, str]) -> None:
    rows = [row for row in lines(whole[0] / "rollouts.jsonl") if row["update"] == 2]
    for method, estimator in MICRO.estimators():
        own = [row for row in rows if row["method"] == method]
        path = whole[0].parent / f"{method}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in own))
        again = estimator(read_rollouts(path)).ragged()
        for row, expected in zip(own, again, strict=True):
            pairs = list(zip(row["advantages"], row["loss_mask"], strict=True))
            trained = [value for value, flag in pairs if flag]
            assert trained == pytest.approx(expected.tolist(), abs=1e-5)
            assert not any(value for value, flag in pairs if not flag)
            flags = TOOLS.policy_tokens(row["tokens"])
            assert row["loss_mask"] == [int(flag) for flag in flags]
            assert len(row["step_states"]) == len(row["kinds"]) == len(row["step_ends"])
    assert any(0 in row["loss_mask"] for row in rows)


@pytest.mark.parametrize("signal", ["none", "hackable"])
def test_other_methods_and_signals_train(
    whole: tuple[Path, str], tmp_path: Path, signal: str
) -> None:
    settings = replace(MICRO, method="turn-return", compare=None, signal=signal, updates=1)
    folder = job.train(
        settings, tmp_path, "run", whole[0].parent / "cache", Console(file=io.StringIO())
    )
    row = lines(folder / "metrics.jsonl")[-1]
    assert (row["stepcredit/process_std"] == 0) == (signal == "none")
