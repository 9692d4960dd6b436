"""What prompts ask, whatever a trainer holds them in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stepcredit.engines.texts import question_of
from stepcredit.errors import EngineError

PARTS = [{"type": "image"}, {"type": "text", "text": "2"}, {"type": "text", "text": "?"}]
TURNS = [
    {"role": "user", "content": "1?"},
    {"role": "user", "content": PARTS},
    {"role": "assistant", "content": "So"},
]


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("2+3=", "2+3="),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "c"}], "c"),
        (TURNS, "2?"),
        (np.array(TURNS, dtype=object), "2?"),
    ],
)
@pytest.mark.parametrize("without", [None, ""])
def test_the_question_is_the_text_or_the_last_users(
    prompt: Any, question: str, without: str | None
) -> None:
    assert question_of(prompt, without=without) == question


SYSTEM = [{"role": "system", "content": "a"}]


@pytest.mark.parametrize("prompt", [SYSTEM, [], None, np.array([])])
def test_a_conversation_without_a_users_turn_is_refused_or_given_another_question(
    prompt: Any,
) -> None:
    with pytest.raises(EngineError) as refused:
        question_of(prompt)
    assert str(refused.value) == "prompt: no message is the user's, so signals have no question"
    assert question_of(prompt, without="") == ""


@pytest.mark.parametrize(("prompt", "kind"), [(7, "int"), (["2?"], "list")])
def test_what_is_no_conversation_is_refused(prompt: Any, kind: str) -> None:
    with pytest.raises(EngineError) as refused:
        question_of(prompt, without="")
    assert str(refused.value) == f"prompt: expected a text or a conversation, got {kind}"
