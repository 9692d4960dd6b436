"""What the tiny policies of `--smoke` write, by the rewards' own reading."""

from __future__ import annotations

import pytest

from stepcredit.launch.tiny_models import tokenizer
from stepcredit.launch.tiny_vocabulary import SUMS, reward_pieces
from stepcredit.rewards import reward
from stepcredit.signals import Response, splitter

RECIPES = [
    ("boxed", "maths", "boxed"),
    ("think-boxed", "maths", "boxed"),
    ("think-answer", "qa-em", "answer-tag"),
    ("qa-tags", "qa-em", "answer-tag"),
    ("qa-tags", "maths", "boxed"),
    ("boxed", "exact", "hash"),
]


@pytest.mark.parametrize(("template", "rule", "read"), RECIPES)
def test_what_a_tiny_policy_writes_keeps_the_format_and_is_read(template, rule, read):
    rewards = {"layout": "format", "right": rule}
    made = reward_pieces(rewards, {"layout": {"template": template}, "right": {"read": read}})
    texts = ["".join((*made.opening, *made.steps[:3], answer)) for answer in made.answers]
    totals = sorted({str(left + right) for left, right in SUMS})
    facts = [{"answer": total} for total in totals]
    assert reward("format", template=template)(texts) == [1.0] * len(totals)
    assert reward(rule, read=read)(texts, facts) == [1.0] * len(totals)
    assert reward(rule, read=read)(texts, facts[::-1]) == [0.0] * len(totals)
    cut = ["".join((*made.opening, *made.steps[:3]))]
    assert reward("format", template=template)(cut) == [0.0]


def test_each_piece_is_a_token_and_each_sum_a_step():
    made = reward_pieces({"right": "maths"}, {})
    words = tokenizer(made.texts)
    ids = list(range(len(words)))
    whole = [text for text in words.batch_decode([[token] for token in ids]) if len(text) > 1]
    assert set(made.texts) <= set(whole)
    first = words.convert_tokens_to_ids("<unk>") + 1
    response = Response.of_ids("?", [first, first + 1, first + len(made.texts) - 1], words)
    assert splitter("newline-tokens").split(response).step_ends == [0, 1, 2]
    assert splitter("blank-line").split(response).step_ends == [0, 1, 2]
