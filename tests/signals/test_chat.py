"""A checkpoint's chat template runs in transformers' sandbox; what fails in it is one line."""

from __future__ import annotations

import pytest
from tests.signals.served import truth

from stepcredit.errors import RolloutError, SignalError
from stepcredit.prm.model_input import render
from stepcredit.signals.chat import apply_chat_template
from stepcredit.signals.models.contexts import trunk_of
from stepcredit.signals.row_scores import RowReader

TURNS = [{"role": "user", "content": "1+1?"}]
UNSAFE = "of 'list' object is unsafe."
PREFIX = "the chat template refuses the turns: "
FAILING = {
    "{{ 1 / 0 }}": "division by zero",
    "{{ messages.nothing.more }}": "'list object' has no attribute 'nothing'",
    "{{ messages[0] + 1 }}": "unsupported operand type(s) for +: 'dict' and 'int'",
    "{{ raise_exception('no\nuser') }}": "no user",
    "{% for i in range(10**9) %}{% endfor %}": (
        "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000)."
    ),
    "{{ messages.__class__.__mro__ }}": f"access to attribute '__class__' {UNSAFE}",
    "{{ messages.append(1) }}": f"access to attribute 'append' {UNSAFE}",
    "{% if %}": "Expected an expression, got 'end of statement block'",
}


@pytest.mark.parametrize("template", FAILING)
def test_failing_template_is_one_line(template: str) -> None:
    tokenizer = truth.tokenizer()
    tokenizer.chat_template = template
    reason = PREFIX + FAILING[template]
    with pytest.raises(SignalError) as caught:
        apply_chat_template(tokenizer, TURNS, tokenize=False)
    assert str(caught.value) == reason
    with pytest.raises(SignalError) as caught:
        render("reasonflux", tokenizer, TURNS)
    assert str(caught.value) == f"reasonflux: {reason}"
    with pytest.raises(SignalError) as caught:
        trunk_of(truth.response("1+1?", ["So 2."], name="r.jsonl:3"), tokenizer, "text")
    assert str(caught.value) == f"r.jsonl:3: prompt: {reason}"
    reader = RowReader(tokenizer=tokenizer, chat=True, question="question")
    row = reader.with_tokens({"question": "1+1?", "text": "So 2."})
    with pytest.raises(RolloutError) as caught:
        reader.response(row, "r.jsonl:3")
    assert str(caught.value) == f"r.jsonl:3: question: {reason}"


def test_absent_template_is_one_line() -> None:
    tokenizer = truth.tokenizer()
    tokenizer.chat_template = None
    reader = RowReader(tokenizer=tokenizer, chat=True)
    row = reader.with_tokens({"prompt": "1+1?", "text": "So 2."})
    with pytest.raises(RolloutError) as caught:
        reader.response(row, "r.jsonl:3")
    assert str(caught.value).startswith(f"r.jsonl:3: prompt: {PREFIX}Cannot use chat template")
    assert "\n" not in str(caught.value)
