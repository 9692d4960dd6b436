"""How responses are packed and run: order, neighbours, bounds, one forward, what is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tests.prm import reference, vocabularies
from tests.prm.cases import BY_NAME, CASES, Case, bare, responses
from transformers import BertConfig, BertForTokenClassification

from stepcredit.errors import SignalError
from stepcredit.prm import HeadedModel, LocalPRM, local
from stepcredit.signals.models.batching import MAX_PADDING
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import splitter

QWEN = BY_NAME["qwen2.5-math-prm"]


@contextmanager
def watched(signal: LocalPRM) -> Iterator[list[torch.Size]]:
    """The shapes of all forwards that the model runs."""
    shapes: list[torch.Size] = []
    scorer = signal.scorer
    model = scorer.body if isinstance(scorer, HeadedModel) else scorer.model
    _ = scorer.needs_mask  # runs the model

    def note(_: Any, __: Any, given: dict[str, torch.Tensor]) -> None:
        shapes.append(given["input_ids"].shape)

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    yield shapes
    handle.remove()


def many(count: int) -> list[Response]:
    """Responses of very different lengths, in no order."""
    random, tokenizer = Random(3), vocabularies.policy()
    words = ["eggs", "sell", "13", "café", "=", "the answer.", "+"]
    found = []
    for row in range(count):
        steps = [
            " ".join(random.choices(words, k=random.randint(1, 14)))
            for _ in range(random.randint(1, 7))
        ]
        found.append(Response.of_text(f"Question {row}?", "\n\n".join(steps), tokenizer))
    return splitter("blank-line")(found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.protocol)
def test_neither_order_nor_neighbours_matter(case: Case, tmp_path: Path) -> None:
    """A response scores the same alone, packed with others, and wherever it stands."""
    signal = case.signal(case.checkpoint(tmp_path), max_tokens_per_batch=900)
    rows = many(24)
    alone = [signal.scores([row])[0] for row in rows]
    order = list(range(len(rows)))
    for seed in range(3):
        Random(seed).shuffle(order)
        for at, scores in zip(order, signal.scores([rows[at] for at in order]), strict=True):
            assert scores == pytest.approx(alone[at], abs=2e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.protocol)
@pytest.mark.parametrize("bound", [450, 1200])
def test_no_forward_is_over_the_bound(case: Case, bound: int, tmp_path: Path) -> None:
    """Padding counts; every response is in one forward, packed as the bound allows."""
    signal = case.signal(case.checkpoint(tmp_path), max_tokens_per_batch=bound)
    with watched(signal) as shapes:
        signal.scores(many(30))
    assert max(rows * width for rows, width in shapes) <= bound
    assert sum(rows for rows, _ in shapes) == 30
    assert len(shapes) < 30


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.protocol)
def test_no_forward_holds_much_padding(case: Case, tmp_path: Path) -> None:
    """However many tokens a forward may have, a few long responses widen no batch of short ones."""
    signal = case.signal(case.checkpoint(tmp_path), max_tokens_per_batch=100_000)
    read, rows = signal.protocol_used.model_input, many(30)
    with watched(signal) as shapes:
        signal.scores(rows)
    real = sum(len(read(signal.tokenizer_used, row).ids) for row in rows)
    padding = sum(rows * width for rows, width in shapes) - real
    assert 0 < padding <= MAX_PADDING * len(shapes)
    assert 1 < len(shapes) < 10


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.protocol)
def test_a_model_that_reads_from_left_to_right_gets_no_mask(case: Case, tmp_path: Path) -> None:
    """Attention without a mask leaves out what comes later."""
    scorer = case.signal(case.checkpoint(tmp_path)).scorer
    assert not scorer.needs_mask


def test_one_forward_whatever_the_number_of_steps(tmp_path: Path) -> None:
    """And the head runs at the read positions alone."""
    signal = QWEN.signal(QWEN.checkpoint(tmp_path))
    scorer = signal.scorer
    assert isinstance(scorer, HeadedModel)
    heads: list[torch.Size] = []
    scorer.head.register_forward_hook(lambda _, given, __: heads.append(given[0].shape))
    for steps in (1, 2, 16):
        text = "\n\n".join(["eggs"] * steps)
        with watched(signal) as shapes:
            signal.scores(splitter("blank-line")([Response.of_text("?", text)]))
        assert len(shapes) == 1
        assert heads[-1] == (steps, 32)


def test_long_inputs_go_window_by_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows change nothing but what is held in memory."""
    signal = QWEN.signal(QWEN.checkpoint(tmp_path))
    whole = signal.scores(many(11))
    monkeypatch.setattr(local, "WINDOW", 4)
    monkeypatch.setattr(local, "MAX_PADDING", 10_000)
    with watched(signal) as shapes:
        assert signal.scores(many(11)) == [pytest.approx(row, abs=2e-5) for row in whole]
    assert [rows for rows, _ in shapes] == [4, 4, 3]


def test_a_probability_of_zero_shifts_nothing(tmp_path: Path) -> None:
    """Where the card drops what is not above zero, every step keeps its place."""
    signal = QWEN.signal(QWEN.checkpoint(tmp_path))
    calm = signal.scores(responses())
    scorer = signal.scorer
    assert isinstance(scorer, HeadedModel)
    last = scorer.head.score[2]
    with torch.no_grad():
        last.weight *= 1e4
        last.bias *= 1e4
    found = signal.scores(responses())
    flat = [score for row in found for score in row]
    assert 0.0 in flat
    assert 1.0 in flat
    assert found == [[float(score > 0.5) for score in row] for row in calm]


def test_a_tag_in_the_response_shifts_nothing(tmp_path: Path) -> None:
    """A policy that writes the tag itself is scored where its steps end."""
    signal = QWEN.signal(QWEN.checkpoint(tmp_path))
    honest = Response.of_text("?", "eggs.\n\nSo 3.\n\nThe answer.")
    written = Response.of_text("?", "eggs.\n\nSo <extra_0> 3.\n\nThe answer.")
    a, b = signal.scores(splitter("blank-line")([honest, written]))
    assert len(a) == len(b) == 3
    assert a[0] == pytest.approx(b[0], abs=1e-5)


def test_a_classifier_that_looks_both_ways() -> None:
    """Padding is hidden from models that would see it."""
    torch.manual_seed(0)
    tokenizer = vocabularies.qwen()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.3,
    )
    model = BertForTokenClassification(config)
    signal = LocalPRM(model, "token-classifier", tokenizer=tokenizer)
    assert signal.scorer.needs_mask
    together = signal.scores(responses())
    assert together == [pytest.approx(signal.scores([row])[0], abs=1e-5) for row in responses()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.protocol)
def test_a_loaded_model_scores_as_its_checkpoint(case: Case, tmp_path: Path) -> None:
    """A language model, a classifier, or a body with a head of ours."""
    signal = case.signal(case.checkpoint(tmp_path))
    model: Any = case.model()
    if case.protocol == "skywork" or (
        hasattr(model, "score") and signal.protocol_used.head == "two-layer"
    ):
        model = signal.scorer
    given = LocalPRM(model.train(), case.protocol, tokenizer=case.tokenizer())
    assert given.scores(responses()) == [
        pytest.approx(row, abs=1e-5) for row in signal.scores(responses())
    ]


def test_a_step_read_at_its_own_last_token(tmp_path: Path) -> None:
    """With a separator of two tokens after it, or with none."""
    case = BY_NAME["token-classifier"]
    model, tokenizer = case.model(), case.tokenizer()
    question, steps = "Sell eggs.", ["She sells 26.", "So 26."]
    row = replace(Response.of_text(question, "".join(steps)), steps=(13, 19))
    for separator in ("", " #"):
        ids, want = [tokenizer.bos_token_id, *tokenizer.encode(question)[1:]], []
        for step in steps:
            ids += tokenizer.encode(step)[1:]
            want.append(model(torch.tensor([ids])).logits[0, -1].softmax(-1)[0].item())
            ids += tokenizer.encode(separator)[1:]
        fields = {"read": "step", "separator": separator, "positive": 0}
        signal = LocalPRM(model, "token-classifier", protocol_settings=fields, tokenizer=tokenizer)
        assert signal.scores([row])[0] == pytest.approx(want, abs=1e-5)


def test_empty_responses_are_scored_when_asked(tmp_path: Path) -> None:
    """As one empty step."""
    signal = QWEN.signal(QWEN.checkpoint(tmp_path), empty="score")
    empty = replace(Response.of_text("How many?", ""), steps=(0,))
    found = signal.scores([empty])
    assert found == [pytest.approx(QWEN.score(QWEN.model(), QWEN.tokenizer(), "How many?", [""]))]


def test_no_memory_is_told_with_the_bound(tmp_path: Path) -> None:
    """What to lower, and from where."""
    signal = QWEN.signal(QWEN.checkpoint(tmp_path), max_tokens_per_batch=2000)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError

    signal.scorer.register_forward_pre_hook(fail)
    with pytest.raises(SignalError) as caught:
        signal.scores(responses()[1:2])
    length = len(QWEN.tokenizer().encode(reference.qwen_input(*bare(1))))
    line = f"not enough memory for 1 x {length} tokens; lower max_tokens_per_batch"
    assert str(caught.value) == line


@pytest.mark.parametrize("name", ["qwen2.5-math-prm", "skywork", "rlhflow", "math-shepherd"])
def test_heads_stay_in_float32(name: str, tmp_path: Path) -> None:
    """The body has the type asked for; what stands on it does not lose digits."""
    case = BY_NAME[name]
    signal = case.signal(case.checkpoint(tmp_path), dtype="bfloat16")
    scorer = signal.scorer
    assert isinstance(scorer, HeadedModel)
    assert {weight.dtype for weight in scorer.body.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in scorer.head.state_dict().values()} == {torch.float32}
    whole = case.signal(tmp_path).scores(responses())
    for row, exact in zip(signal.scores(responses()), whole, strict=True):
        assert row == pytest.approx(exact, abs=0.25)
        assert row != exact
