"""Answer progress against one forward a prefix in float64, and a model that knows an answer."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tests.signals.tiny_models import build, save, tokenizer
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.signals.models.answer_progress import AnswerProgress
from stepcredit.signals.models.causal import CausalLM
from stepcredit.signals.models.tree_attention import takes_tree_masks
from stepcredit.signals.responses import Response
from stepcredit.signals.signal_registry import signal
from stepcredit.signals.splitting import BlankLine, Newline

TEXTS = [
    ("Tom has 3 apples and buys 4 more.\n\nSo he has 3 + 4 = 7 apples.\n\nThe answer is 7.", "7"),
    ("3 + 4 = 7 apples", 7),
    ("So 12.\n\nNo: 8.\n\nHmm é ü.\n\nSo he has 12 apples.\n\n", "12"),
    ("a\n\nb\n\nc\n\nd\n\ne\n\nf\n\ng\n\nh\n\ni\n\nj", "\\frac{1}{2}"),
]
PROMPT = "How many apples has Tom?\n"
BEFORE, AFTER = "\n\nThe answer is \\boxed{", "}"


def rows_of(end=True):
    """Responses of the tiny tokenizer, split at blank lines, most with an end-of-text token."""
    known, rows = tokenizer(), []
    for index, (text, answer) in enumerate(TEXTS):
        ids = known(text, add_special_tokens=False)["input_ids"]
        ids += [known.eos_token_id] if end and index != 2 else []
        rows.append(
            Response.of_ids(
                PROMPT,
                ids,
                known,
                name=f"r:{index + 1}",
                prompt_ids=tuple(known(PROMPT)["input_ids"]),
                facts={"answer": answer},
            )
        )
    return BlankLine()(rows)


def slow(model, row, *, over="sum", before=BEFORE, after=AFTER):
    """The definition: tokens by hand, each prefix alone, the answer's tokens by their offsets."""
    known, values = tokenizer(), []
    for through in [-1, *row.step_ends]:
        prefix = [*row.prompt_ids, *row.token_ids[: through + 1]]
        if prefix[-1] == known.eos_token_id:
            prefix.pop()
        joint = before.lstrip() if known.decode(prefix)[-1:].isspace() else before
        framed = known(joint + str(row.facts["answer"]) + after, return_offsets_mapping=True)
        branch = framed["input_ids"]
        kept = [i for i, (_, end) in enumerate(framed["offset_mapping"]) if end > len(joint)]
        with torch.no_grad():
            logits = model.double()(torch.tensor([prefix + branch])).logits[0]
        table = torch.log_softmax(logits, 1)
        picked = [table[len(prefix) + i - 1, branch[i]].item() for i in kept]
        values.append(sum(picked) / (len(picked) if over == "mean" else 1))
    return [after - before for before, after in pairwise(values)]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral", "gemma2"])
@pytest.mark.parametrize("over", ["sum", "mean"])
def test_the_packed_forward_is_one_forward_a_prefix(kind, over, tmp_path):
    path = save(tmp_path, kind)
    rows = rows_of()
    settings = {"model": path, "over": over, "max_tokens_per_batch": 400}
    packed = AnswerProgress(**settings).scores(rows)
    plain = AnswerProgress(**settings, packed=False).scores(rows)
    reference = AutoModelForCausalLM.from_pretrained(path)
    for row, one, other in zip(rows, packed, plain, strict=True):
        expected = slow(reference, row, over=over)
        assert one == pytest.approx(expected, abs=1e-4)
        assert other == pytest.approx(expected, abs=1e-4)
        assert max(map(abs, expected)) > 0.02


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_both_attentions_take_the_mask(attention):
    model = build("llama", attn_implementation=attention)
    found = AnswerProgress(model=model, tokenizer=tokenizer()).scores(rows_of())
    reference = build("llama", attn_implementation=attention)
    for row, scores in zip(rows_of(), found, strict=True):
        assert scores == pytest.approx(slow(reference, row), abs=1e-4)


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("", "."), ("So ", ""), ("= ", "\n\n"), (" \\boxed{", "}")]
)
def test_any_frame_will_do(before, after):
    """Also none: the answer's first token is then read at the prefix's last."""
    model, rows = build("llama"), rows_of()
    frame = {"before": before, "after": after}
    found = AnswerProgress(model=model, tokenizer=tokenizer(), **frame).scores(rows)
    for row, scores in zip(rows, found, strict=True):
        assert scores == pytest.approx(slow(build("llama"), row, **frame), abs=1e-4)


def test_a_delimiter_stands_for_the_space_of_the_frame():
    """The last step is measured as those before it, whether a line's end follows it or not."""
    model, known = build("llama"), tokenizer()
    bare, ended = (
        Response.of_text("?", text, known, prompt_ids=(5, 6), facts={"answer": "5"})
        for text in ("2 + 3 = 5.\nSo 5", "2 + 3 = 5.\nSo 5\n")
    )
    frame = "\nThe answer is "
    joined = [*bare.token_ids, *known(frame).input_ids]
    assert joined == [*ended.token_ids, *known(frame.lstrip()).input_ids]
    progress = AnswerProgress(model=model, tokenizer=known, before=frame)
    one, other = progress.scores(Newline()([bare, ended]))
    assert one == pytest.approx(other, abs=1e-5)


def test_batches_and_order_change_nothing():
    model, rows = build("llama"), rows_of() * 3
    for bound in (1, 300, 100_000):
        settings = {"model": model, "tokenizer": tokenizer(), "max_tokens_per_batch": bound}
        found = AnswerProgress(**settings).scores(rows[::-1])[::-1]
        for row, scores in zip(rows, found, strict=True):
            alone = AnswerProgress(model=model, tokenizer=tokenizer()).scores([row])[0]
            assert scores == pytest.approx(alone, abs=1e-5)


def test_text_is_read_by_the_models_own_tokenizer():
    """The same as ids where the policy's tokenizer is the model's; ids need not be known."""
    model, rows = build("llama"), rows_of(end=False)
    bare = [replace(row, token_ids=None, prompt_ids=None) for row in rows]
    of_ids = AnswerProgress(model=model, tokenizer=tokenizer()).scores(rows)
    of_text = AnswerProgress(model=model, tokenizer=tokenizer(), reads="text").scores(bare)
    for one, other in zip(of_ids, of_text, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_a_prompt_becomes_a_chat_turn_where_there_is_a_template():
    known = AnswerProgress(model=build("llama"), tokenizer=tokenizer(), reads="text")
    row = rows_of()[0]
    plain = known._tree(row).trunk.ids
    templated = type(tokenizer())(tokenizer_object=tokenizer().backend_tokenizer)
    templated.chat_template = "{% for m in messages %}U:{{ m.content }}{% endfor %}A:"
    chat = AnswerProgress(model=build("llama"), tokenizer=templated, reads="text")._tree(row)
    assert tokenizer().decode(chat.trunk.ids) == f"U:{PROMPT}A:{TEXTS[0][0]}"
    assert tokenizer().decode(plain) == PROMPT + TEXTS[0][0]


def told(digit):
    """A response whose second step says a digit."""
    known = tokenizer()
    row = Response.of_text(
        "Well?\n",
        f"Hmm.\n\nIt is {digit}.\n\nDone.\n\n",
        known,
        prompt_ids=tuple(known("Well?\n")["input_ids"]),
        facts={"answer": digit},
    )
    return BlankLine()([row])[0]


@pytest.fixture(scope="module")
def reader():
    """A tiny model trained to answer with the digit that was said, and any before it was."""
    known, model = tokenizer(), build("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3 if parameter.ndim > 1 else 1.0)
    rows = []
    for digit in range(10):
        row, answer = told(digit), known(f"So:\n{digit}")["input_ids"]
        for through in [-1, *row.step_ends]:
            rows.append([*row.prompt_ids, *row.token_ids[: through + 1], *answer])
    width = max(map(len, rows))
    ids = torch.tensor([row + [known.pad_token_id] * (width - len(row)) for row in rows])
    labels = torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        labels[index, len(row) - 1] = row[-1]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        loss = model(input_ids=ids, attention_mask=(ids != known.pad_token_id), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("digit", range(10))
def test_the_step_that_tells_the_answer_makes_the_progress(reader, digit):
    """From one in ten to nearly sure, and for another answer from one in ten to hardly."""
    progress = AnswerProgress(model=reader, tokenizer=tokenizer(), before="So:\n", after="")
    found = progress.scores([told(digit)])[0]
    assert found == pytest.approx([0.0, 2.3, 0.0], abs=0.4)
    wrong = replace(told(digit), facts={"answer": (digit + 1) % 10})
    found = progress.scores([wrong])[0]
    assert found[1] < -1.0
    assert abs(found[0]) < 0.4


def test_a_model_that_cannot_be_packed_is_refused_and_scored_prefix_by_prefix():
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=330, hidden_size=16, num_hidden_layers=2, state_size=4)
    model, rows = MambaForCausalLM(config).eval(), rows_of()
    model.name_or_path = "mamba"
    with pytest.raises(SignalError) as caught:
        AnswerProgress(model=model, tokenizer=tokenizer()).scores(rows)
    assert str(caught.value) == (
        "mamba: its attention does not take the packed mask: "
        "packed=false runs one forward per prefix"
    )
    found = AnswerProgress(model=model, tokenizer=tokenizer(), packed=False).scores(rows)
    for row, scores in zip(rows, found, strict=True):
        assert scores == pytest.approx(slow(model, row), abs=1e-4)


def test_a_window_shorter_than_a_response_is_refused_by_name():
    model, rows = build("mistral", sliding_window=24), rows_of()
    with pytest.raises(RolloutError) as caught:
        AnswerProgress(model=model, tokenizer=tokenizer()).scores(rows[:1])
    assert str(caught.value).endswith(
        "positions, over the attention's window of 24: packed=false runs one forward per prefix"
    )
    assert str(caught.value).startswith("r:1: token_ids: ")
    found = AnswerProgress(model=model, tokenizer=tokenizer(), packed=False).scores(rows[:1])
    reference = build("mistral", sliding_window=24)
    assert found[0] == pytest.approx(slow(reference, rows[0]), abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral", "gemma2"])
def test_the_trial_tells_which_models_can_be_packed(kind):
    assert takes_tree_masks(CausalLM(build(kind)))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"facts": {}}, "r:1: answer: missing: this signal needs it"),
        ({"facts": {"answer": None}}, "r:1: answer: missing: this signal needs it"),
        ({"facts": {"answer": [7]}}, "r:1: answer: expected a text or a number, got [7]"),
        ({"facts": {"answer": " "}}, "r:1: answer: expected a text or a number, got ' '"),
        (
            {"facts": {"answer": float("nan")}},
            "r:1: answer: expected a text or a number, got nan",
        ),
        ({"prompt_ids": None}, "r:1: prompt_ids: missing: this signal needs it"),
        ({"steps": None}, "r:1: steps: not split into steps"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(change, line):
    row = replace(rows_of()[0], **change)
    with pytest.raises(RolloutError) as caught:
        AnswerProgress(model=build("llama"), tokenizer=tokenizer()).scores([row])
    assert str(caught.value) == line


def test_a_row_over_the_context_is_named():
    row = replace(rows_of()[0], prompt_ids=tuple(range(240)))
    with pytest.raises(
        RolloutError, match=r"^r:1: token_ids: needs .* positions, over the model's"
    ):
        AnswerProgress(model=build("llama"), tokenizer=tokenizer()).scores([row])


def test_a_loaded_model_needs_its_tokenizer():
    with pytest.raises(SettingError) as caught:
        AnswerProgress(model=build("llama")).scores(rows_of())
    assert str(caught.value) == "tokenizer: is required with a model that is already loaded"


def test_what_is_cached_depends_on_the_answer_and_the_frame(tmp_path):
    path, row = save(tmp_path), rows_of()[0]
    one = signal("answer-progress", model=path)
    assert one.content(row) != one.content(replace(row, facts={"answer": 8}))
    others = [{"before": "x"}, {"after": ""}, {"over": "mean"}, {"reads": "text"}]
    others += [{"tokenizer": tokenizer()}, {"tokenizer": tokenizer(300)}]
    identities = [signal("answer-progress", model=path, **other).identity for other in others]
    assert all(one != other for i, one in enumerate(identities) for other in identities[:i])
    assert one.identity not in identities
    assert signal("answer-progress", model=path, packed=False).identity == one.identity


def test_a_whole_number_is_the_answer_without_its_point():
    """A column with a gap in it is read as floats: 7 becomes 7.0."""
    row, progress = rows_of()[1], AnswerProgress(model=build("llama"), tokenizer=tokenizer())
    whole, real = (replace(row, facts={"answer": answer}) for answer in (7, 7.0))
    assert progress.scores([real]) == progress.scores([whole])
