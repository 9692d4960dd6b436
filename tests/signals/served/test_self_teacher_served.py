"""A served self-teacher against the log-probs that the server's rule gives by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving
from tokenizers import decoders

from stepcredit.signals.models.self_teacher import SelfTeacher
from stepcredit.signals.served.teacher import ServedLogProbs

SHORT = "{{ prompt }}|{{ answer }}"


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_served_it_asks_with_and_without_the_context(server: Misbehaving, api: str) -> None:
    server.plan(setting={"alphabet": truth.ALPHABET})
    served = ServedLogProbs(server.url, "policy", api=api, backoff=0.01)
    rows = [
        replace(row, facts={"answer": f"the gold of {index}"})
        for index, row in enumerate(truth.responses(12))
    ]
    letters = truth.tokenizer()
    letters.backend_tokenizer.decoder = decoders.Fuse()
    own = SelfTeacher(student=served, tokenizer=letters, template=SHORT)
    found = own.scores(rows)
    for index, (row, scores) in enumerate(zip(rows, found, strict=True)):
        told = replace(row, prompt=f"{row.prompt}|the gold of {index}")
        teacher, student = truth.token_scores(told), truth.token_scores(row)
        expected = [t - s for t, s in zip(teacher, student, strict=True)]
        assert scores == pytest.approx(expected)
    assert server.count()["requests"] == 24
