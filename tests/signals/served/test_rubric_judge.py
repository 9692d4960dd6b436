"""Rubric judges: what is asked, which score each label gives, what it costs, what is refused."""

from __future__ import annotations

import json
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving

import stepcredit as sc
from stepcredit.errors import SettingError, SignalError
from stepcredit.signals.cache import key_of
from stepcredit.signals.responses import Response
from stepcredit.signals.served.llm_judge import Judge
from stepcredit.signals.served.rubric_judge import RubricJudge
from stepcredit.signals.signal_registry import signal
from stepcredit.signals.splitting import Newline, Turns

THREE = Newline().split(Response.of_text("2 + 3 + 4?", "2 + 3 = 6\n6 + 4 = 10\nSo 10.", name="r:1"))


def judge(url: str, recipe: str = "wrong-steps", **settings: Any) -> RubricJudge:
    """Impatient, so that tests are fast."""
    quick = {"timeout": 1.0, "backoff": 0.01, "attempts": 2}
    return RubricJudge(url=url, model="judge", recipe=recipe, **quick | settings)


def agent() -> Response:
    """Two turns with a tool's answer between them; a token is a character."""
    parts = [("search Ann", True), ("[Ann is a writer]", False), ("A writer.", True)]
    text = "".join(part for part, _ in parts)
    own = tuple(written for part, written in parts for _ in part)
    spans = tuple((i, i + 1) for i in range(len(text)))
    return Turns().split(Response("Who is Ann?", text, spans, own=own, name="r:2"))


def test_only_faulty_steps_get_a_negative_score_by_their_votes(server: Misbehaving) -> None:
    says = [
        "Verdicts:\n2: wrong",
        "Step 1: wrong? No: 3 is right.\n\n**Verdicts:**\n none. ",
        "2: wrong\nVerdicts:\n- Step 2: **Wrong**\n- Step 3: wrong",
        "verdicts\n2) wrong\n",
    ]
    server.plan(setting={"says": says})
    given = judge(server.url, votes=4, temperature=0.7)
    assert given.scores([THREE]) == [[0.0, -0.75, 0.0]]
    assert judge(server.url, votes=4, temperature=0.7, quorum=0.0).scores([THREE]) == [
        [0.0, -0.75, -0.25]
    ]
    assert judge(server.url, votes=4, temperature=0.7, quorum=1.0).scores([THREE]) == [[0.0] * 3]
    changed = judge(server.url, votes=4, temperature=0.7, scores_by_label={"wrong": -2})
    assert changed.scores([THREE]) == [[0.0, -1.5, 0.0]]


def test_turns_have_roles_and_tools_answers_have_none(server: Misbehaving) -> None:
    says = ["Verdicts:\n1: exploration\n2: decisive", "Verdicts:\n1: decisive\n2: regression"]
    server.plan(setting={"says": says})
    given = judge(server.url, "turn-roles", votes=2, temperature=1.0)
    assert given.scores([agent()]) == [[0.75, 0.0, 0.0]]
    system, question = server.count()["last"]["messages"]
    assert question["content"] == (
        "Task:\nWho is Ann?\n\nTurns:\nTurn 1: search Ann\nAnswer of a tool: [Ann is a writer]\n"
        "Turn 2: A writer.\n\nWhich role has each of the 2 turns?"
    )
    for role in ("decisive", "exploration", "infrastructure", "regression"):
        assert f"\n{role}: the turn " in system["content"]


def test_the_question_about_wrong_steps(server: Misbehaving) -> None:
    server.plan(setting={"says": ["Verdicts:\nnone"]})
    given = judge(server.url, rubric="Signs matter.", extra={"seed": 5}, max_tokens=300)
    assert given.scores([THREE]) == [[0.0, 0.0, 0.0]]
    body = server.count()["last"]
    assert body["messages"][1]["content"] == (
        "Task:\n2 + 3 + 4?\n\nResponse:\nStep 1: 2 + 3 = 6\nStep 2: 6 + 4 = 10\nStep 3: So 10.\n\n"
        "Which of the 3 steps are wrong?"
    )
    assert "\nSigns matter.\n" in body["messages"][0]["content"]
    assert (body["n"], body["seed"], body["max_tokens"]) == (1, 5, 300)
    assert "logprobs" not in body


@pytest.mark.parametrize(
    ("recipe", "says", "reason"),
    [
        ("wrong-steps", "2: wrong", "the answer has no line `Verdicts:`"),
        ("wrong-steps", "Verdicts:\n\n", "the answer has no line after `Verdicts:`"),
        ("wrong-steps", "Verdicts:\n4: wrong", "step 4 of the answer is none of 1 to 3"),
        ("wrong-steps", "Verdicts:\n0: wrong", "step 0 of the answer is none of 1 to 3"),
        ("wrong-steps", "Verdicts:\n2: wrong\n2: wrong", "step 2 of the answer comes twice"),
        (
            "wrong-steps",
            "Verdicts:\n2: right",
            "the line '2: right' is no number and wrong",
        ),
        (
            "turn-roles",
            "Verdicts:\n1: decisive\n3: decisive",
            "the answer has no label of step 2",
        ),
    ],
)
def test_an_answer_of_another_form_makes_no_score(
    server: Misbehaving, recipe: str, says: str, reason: str
) -> None:
    server.plan(setting={"says": [says]})
    with pytest.raises(SignalError) as caught:
        judge(server.url, recipe).scores([THREE])
    place = f"r:1: {server.url}/v1/chat/completions"
    assert str(caught.value) == f"{place}: {reason} (attempt 2, the last)"


def test_requests_and_tokens_are_counted_before_and_after(server: Misbehaving) -> None:
    server.plan(
        setting={
            "says": ["Verdicts:\nnone"],
            "usage": {"prompt_tokens": 250, "completion_tokens": 12},
        }
    )
    said: list[str] = []
    given = judge(server.url, votes=2, temperature=0.7, max_tokens=100, tell=said.append)
    letters = sum(len(turn["content"]) for turn in given.bodies(THREE)[0]["messages"])
    given.scores([THREE] * 3)
    assert said == [
        f"3 requests, about {-(-3 * letters // 4):,} tokens to read, at most 600 to write",
        "3 answers, 750 tokens read, 36 written",
    ]
    given.scores([THREE])
    assert str(given.spent) == "4 answers, 1,000 tokens read, 48 written"


def test_answers_that_are_asked_for_again_are_counted_too(server: Misbehaving) -> None:
    server.plan(share=1.0, times=1, kinds=["drop"], setting={})
    said: list[str] = []
    rows = truth.responses(4)
    steps = sum(len(row.steps or ()) for row in rows)
    Judge(url=server.url, model="judge", backoff=0.01, tell=said.append).scores(rows)
    assert said[0].startswith(f"{steps} requests, about ")
    assert said[0].endswith(f" tokens to read, at most {steps} to write")
    assert said[1] == f"{2 * steps} answers; the server counted no tokens of {2 * steps}"


def test_redistribute_moves_the_blame_to_the_flagged_step_and_keeps_the_sum() -> None:
    """The scores of `wrong-steps`: one step of the wrong response flagged, one of the right one."""
    steps = sc.Steps(ends=[[0, 1, 2], [0, 1]], scores=[[0.0, -0.75, 0.0], [0.0, -1.0]])
    rollouts = sc.Rollouts([0, 0], process=steps, outcome=[0.0, 1.0])
    wrong, right = sc.Redistribute(outcome="rloo", temperature=0.5)(rollouts).ragged()
    mean = (2 + exp(1.5)) / 3
    assert wrong.tolist() == pytest.approx([-1 / mean, -exp(1.5) / mean, -1 / mean])
    half = (1 + exp(-2)) / 2
    assert right.tolist() == pytest.approx([1 / half, exp(-2) / half])
    assert torch.stack([wrong.sum(), right.sum()]).tolist() == pytest.approx([-3.0, 2.0])


OWN = """\
labels:
  good: {score: 1, about: it helps}
  bad: {score: -0.5, about: it harms}
system: "{% for label in labels %}{{ label.name }}={{ label.about }};{% endfor %}"
question: "{{ prompt }}/{{ count }}"
"""


def test_a_rubric_of_ones_own(server: Misbehaving, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    server.plan(setting={"says": ["Verdicts:\n1: good\n2: bad\n3: GOOD"]})
    given = judge(server.url, str(path))
    assert given.scores([THREE]) == [[1.0, -0.5, 1.0]]
    messages = server.count()["last"]["messages"]
    assert [turn["content"] for turn in messages] == [
        "good=it helps;bad=it harms;",
        "2 + 3 + 4?/3",
    ]
    before = key_of(given, THREE)
    path.write_text(OWN.replace("-0.5", "-1"))
    assert key_of(judge(server.url, str(path)), THREE) != before


def test_what_is_said_is_no_part_of_what_is_kept() -> None:
    one, other = (judge("http://localhost:1", tell=tell) for tell in (print, str))
    assert key_of(one, THREE) == key_of(other, THREE)
    assert json.dumps(one.identity)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- 1", "recipe: {path}: expected a mapping"),
        ("a: [", "recipe: {path}: is no YAML: while parsing"),
        ("label: {}", "recipe.label: no such key, did you mean 'labels'?"),
        (OWN + "quorum: most", "recipe.quorum: expected a number, got 'most'"),
        (OWN.replace("score: 1", "score: much"), "recipe.labels.good.score: expected a number,"),
        (OWN.replace("about: it helps", "when: x"), "recipe.labels.good: expected score and about"),
        (OWN.replace("good:", "none:"), "recipe.labels.none: expected one word, and not none,"),
        (OWN.replace("{{ count }}", "{{ gold }}"), "recipe.question: unknown variable gold: exp"),
        (OWN.replace("{{ count }}", "{{ 1 / 0 }}"), "recipe.question: on an example: fails: Zero"),
        (OWN.replace("system:", "sytem:"), "recipe.sytem: no such key, did you mean 'system'?"),
    ],
)
def test_a_rubric_with_a_fault_is_refused_by_its_key(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        judge("http://localhost:1", str(path))
    assert str(caught.value).startswith(line.format(path=path))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"recipe": "wrong-step"}, "recipe: no rubric 'wrong-step', did you mean 'wrong-steps'?"),
        ({"recipe": "no.yaml"}, "recipe: no.yaml: No such file or directory"),
        ({"votes": 3}, "temperature: expected a number above 0: at 0 all 3 votes are the same"),
        ({"quorum": 2}, "quorum: expected a number of at least 0 and at most 1 or null, got 2"),
        ({"scores_by_label": {"wrnog": 1}}, "scores_by_label.wrnog: no such label, did you mean"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(settings: dict[str, Any], line: str) -> None:
    given = {"url": "http://localhost:1", "model": "judge", "recipe": "wrong-steps", **settings}
    with pytest.raises(SettingError) as caught:
        signal("rubric", **given)
    assert str(caught.value).startswith(line)
