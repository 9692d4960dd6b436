"""An agent's turns: each is worth what it and its tool's answer did for the gold answer."""

from __future__ import annotations

from math import fsum

import pytest
import torch
from tests.signals.tiny_models import save, tokenizer
from transformers import AutoModelForCausalLM

from stepcredit.signals.cache import key_of
from stepcredit.signals.models.answer_progress import AnswerProgress
from stepcredit.signals.models.turn_progress import TurnProgress, credit_callers
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import Turns

PROMPT = "How many apples has Tom?\n"
PARTS = [
    ("I look it up.", True),
    ("3 + 4 = 7 apples", False),
    (" So 12?", True),
    (" No, 7.", False),
    (" The answer is 7.", True),
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save(tmp_path_factory.mktemp("policy"), seed=2)


def agent(answer="7"):
    known = tokenizer()
    ids, own = [], []
    for text, written in PARTS:
        part = known(text, add_special_tokens=False)["input_ids"]
        ids += part
        own += [written] * len(part)
    response = Response.of_ids(
        PROMPT,
        ids,
        known,
        prompt_ids=tuple(known(PROMPT)["input_ids"]),
        own=tuple(own),
        facts={"answer": answer},
    )
    return Turns().split(response)


def likelihood(folder, prefix, answer):
    """log p of the closed answer behind a prefix, by one plain forward pass."""
    known = tokenizer()
    framed = known(f"<a>{answer}</a>", add_special_tokens=False, return_offsets_mapping=True)
    skipped = sum(end <= len("<a>") for _, end in framed["offset_mapping"])
    ids = [*prefix, *framed["input_ids"]]
    model = AutoModelForCausalLM.from_pretrained(folder).eval().double()
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    places = range(len(prefix) + skipped, len(ids))
    return fsum(float(logps[at - 1, ids[at]]) for at in places)


def test_a_turn_is_worth_what_it_and_its_tools_answer_did(policy):
    response = agent()
    assert response.written_steps == [True, False, True, False, True]
    signal = TurnProgress(model=policy, before="<a>", after="</a>")
    found = signal.scores([response])[0]
    cuts = [0, *(end + 1 for end in response.step_ends)]
    prefixes = [[*response.prompt_ids, *response.token_ids[:cut]] for cut in cuts]
    states = [likelihood(policy, prefix, "7") for prefix in prefixes]
    turns = [states[2] - states[0], states[4] - states[2], states[5] - states[4]]
    assert found == pytest.approx([turns[0], 0.0, turns[1], 0.0, turns[2]], abs=1e-4)
    assert fsum(found) == pytest.approx(states[-1] - states[0], abs=1e-4)


def test_without_tools_it_is_answer_progress(policy):
    response = agent()
    plain = Turns().split(
        Response.of_ids(
            PROMPT,
            response.token_ids,
            tokenizer(),
            prompt_ids=response.prompt_ids,
            facts={"answer": "7"},
        )
    )
    one, other = (kind(model=policy).scores([plain]) for kind in (TurnProgress, AnswerProgress))
    assert one == other


def test_who_wrote_a_step_is_part_of_what_is_kept(policy):
    from dataclasses import replace

    signal, response = TurnProgress(model=policy), agent()
    other = replace(response, own=(True,) * response.num_tokens)
    assert key_of(signal, response) != key_of(signal, other)


@pytest.mark.parametrize(
    ("scores", "written", "expected"),
    [
        ([1.0, 2.0, 4.0], [False, True, False], [1.0, 6.0, 0.0]),
        ([1.0, 2.0, 4.0], [True, False, False], [7.0, 0.0, 0.0]),
        ([1.0, 2.0, 4.0], [True, True, True], [1.0, 2.0, 4.0]),
        ([], [True, False], []),
    ],
)
def test_the_scores_of_answers_go_to_their_callers(scores, written, expected):
    assert credit_callers(scores, written) == expected
