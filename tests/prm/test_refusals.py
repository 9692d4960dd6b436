"""Bad input and models that don't fit, each told in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.prm import reference, vocabularies
from tests.prm.cases import BY_NAME, bare, responses
from transformers import PreTrainedTokenizerFast

from stepcredit import requires
from stepcredit.errors import MissingExtra, RolloutError, SettingError, SignalError
from stepcredit.prm import PROTOCOLS, LocalPRM, PurePRM
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.responses import Response
from stepcredit.signals.signal_registry import signal

QWEN = BY_NAME["qwen2.5-math-prm"]
ONE, NONE = "one token, but the tokenizer has none", "but the tokenizer has none"
KNOWN = "math-shepherd, pure, qwen2.5-math-prm, reasonflux, rlhflow, skywork, token-classifier"


def changed(make: Callable[[], Any], **settings: Any) -> PreTrainedTokenizerFast:
    """A tokenizer with other settings."""
    old = make()
    given = {"chat_template": old.chat_template, "bos_token": old.bos_token, **settings}
    return PreTrainedTokenizerFast(tokenizer_object=old.backend_tokenizer, **given)


def of_protocol(name: str, **fields: Any) -> dict[str, Any]:
    """Settings with fields of a protocol."""
    return {"protocol": name, "protocol_settings": fields}


PURE = {"protocol": "pure"}
WRONG_SETTINGS = [
    (
        {"protocol": "maths-shepherd"},
        "protocol: unknown protocol 'maths-shepherd', did you mean 'math-shepherd'?",
    ),
    ({"protocol": "gpt"}, f"protocol: unknown protocol 'gpt': expected {KNOWN}"),
    ({"protocol": 3}, "protocol: expected the name of a protocol, or one, got 3"),
    ({}, "protocol: prm needs it"),
    (PURE | {"model": 3}, "model: expected a model's folder or name, or a loaded model, got 3"),
    (PURE | {"empty": "zero"}, "empty: expected one of refuse, score, got 'zero'"),
    (
        PURE | {"dtype": "int8"},
        "dtype: expected one of auto, float32, bfloat16, float16, got 'int8'",
    ),
    (
        PURE | {"max_tokens_per_batch": 0},
        "max_tokens_per_batch: expected a whole number of at least 1, got 0",
    ),
    (
        PURE | {"protocol_settings": 3},
        "protocol_settings: expected an object of fields, got 3",
    ),
    (
        {"protocol": PurePRM(), "protocol_settings": {"tag": "x"}},
        "protocol_settings: only for a protocol by name",
    ),
    (
        of_protocol("rlhflow", tag="x"),
        "protocol_settings.tag: rlhflow has no such field: expected good, bad",
    ),
    (
        of_protocol("rlhflow", good=""),
        "protocol_settings.good: expected a string that is not empty, got ''",
    ),
    (
        of_protocol("token-classifier", positive=2),
        "protocol_settings.positive: expected one of 0, 1, got 2",
    ),
    (
        of_protocol("token-classifier", separator=1),
        "protocol_settings.separator: expected a string, got 1",
    ),
    (
        of_protocol("token-classifier", separator=""),
        "protocol_settings.separator: an empty separator has no token to read; use read='step'",
    ),
]


@pytest.mark.parametrize(("settings", "line"), WRONG_SETTINGS)
def test_settings(settings: dict[str, Any], line: str) -> None:
    """Before any model is loaded."""
    with pytest.raises(SettingError) as caught:
        signal("prm", **{"model": "somewhere", **settings})
    assert str(caught.value) == line


def test_a_loaded_model_without_a_tokenizer() -> None:
    """It has no folder to look in."""
    with pytest.raises(SettingError) as caught:
        LocalPRM(BY_NAME["pure"].model(), "pure")
    assert str(caught.value) == "tokenizer: is required with a model that is already loaded"


def test_a_reward_model_is_not_offered_as_a_language_model() -> None:
    """Its head gives no log-probs of tokens."""
    assert not hasattr(LocalPRM, "causal")
    assert hasattr(LocalLogProbs, "causal")


LATER = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if not loop.last and m['role'] == 'assistant' %}{{ '...' }}{% else %}"
    "{{ m['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
)
UPPER = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
REFUSES = "{{ raise_exception('roles must alternate') }}"
QWEN_WITH, LLAMA_WITH = partial(changed, vocabularies.qwen), partial(changed, vocabularies.llama)
MISFITS = [
    ("qwen2.5-math-prm", vocabularies.qwen(tags=()), f" needs '<extra_0>' to be {ONE}"),
    ("reasonflux", vocabularies.qwen(tags=()), f" needs '<extra_0>' to be {ONE}"),
    ("reasonflux", QWEN_WITH(chat_template=None), f" needs a chat template, {NONE}"),
    (
        "reasonflux",
        QWEN_WITH(chat_template=UPPER),
        ": the chat template rewrites the assistant's turn",
    ),
    (
        "reasonflux",
        QWEN_WITH(chat_template=REFUSES),
        ": the chat template refuses the turns: roles must alternate",
    ),
    ("math-shepherd", vocabularies.qwen(), f" needs 'ки' to be {ONE}"),
    ("rlhflow", vocabularies.mistral(), f" needs a chat template, {NONE}"),
    (
        "rlhflow",
        LLAMA_WITH(chat_template=LATER),
        ": the chat template rewrites earlier turns, so one run can't read them all",
    ),
    ("skywork", vocabularies.qwen(), f" needs a bos_token, {NONE}"),
    ("skywork", vocabularies.mistral(), f" needs '\\n' to be {ONE}"),
    ("pure", vocabularies.mistral(), f" needs '\\n' to be {ONE}"),
]


@pytest.mark.parametrize(("protocol", "tokenizer", "reason"), MISFITS)
def test_tokenizers_that_lack_something(protocol: str, tokenizer: Any, reason: str) -> None:
    """Names the protocol and the token."""
    with pytest.raises(SignalError) as caught:
        PROTOCOLS.build(protocol).encode(tokenizer, "Question?", ["One.\n\n", "Two."])
    assert str(caught.value) == protocol + reason


def test_verdicts_that_are_not_two_tokens() -> None:
    """Names them."""
    with pytest.raises(SignalError) as caught:
        PROTOCOLS.build("math-shepherd", {"verdicts": "+ - +"}).words(vocabularies.mistral())
    assert str(caught.value) == "math-shepherd needs '+ - +' to be two tokens, not 3"


def test_a_tag_that_merges() -> None:
    """The tokenizer has the tag, but writes another token where it is put."""
    protocol = PROTOCOLS.build("math-shepherd", {"tag": "e"})
    with pytest.raises(SignalError) as caught:
        protocol.encode(vocabularies.qwen(), "?", ["So the"])
    around = "the tokenizer merges the tag with its neighbours in ' So the e'"
    assert str(caught.value) == f"math-shepherd: {around}"


def test_a_slow_tokenizer() -> None:
    """Offsets are needed."""

    class Slow:
        is_fast, unk_token_id = False, None

        def encode(self, text: str, **_: Any) -> list[int]:
            return [1]

    with pytest.raises(SignalError) as caught:
        PROTOCOLS.build("math-shepherd").encode(Slow(), "?", ["2"])
    assert str(caught.value) == "math-shepherd needs a fast tokenizer: Slow keeps no offsets"


@pytest.mark.parametrize(
    ("protocol", "of", "reason"),
    [
        ("reasonflux", "pure", "a HeadedModel, not a Qwen2ForTokenClassification"),
        ("skywork", "rlhflow", "a HeadedModel, not a LlamaForCausalLM"),
        ("rlhflow", "pure", "a causal language model, not a Qwen2ForTokenClassification"),
        ("pure", "rlhflow", "a token classifier, not a LlamaForCausalLM"),
    ],
)
def test_loaded_models_of_another_kind(protocol: str, of: str, reason: str) -> None:
    """Names what is needed and what came."""
    tokenizer = BY_NAME[protocol].tokenizer()
    with pytest.raises(SignalError) as caught:
        LocalPRM(BY_NAME[of].model(), protocol, tokenizer=tokenizer).scores(responses())
    assert str(caught.value) == f"{protocol} needs {reason}"


def test_a_tokenizer_of_another_model() -> None:
    """More tokens than the model has."""
    case = BY_NAME["pure"]
    question, steps = bare(1)
    highest = max(case.tokenizer().encode(f"{question}\n{steps[0]}"))
    prm = LocalPRM(case.model(vocab_size=30), "pure", tokenizer=case.tokenizer())
    with pytest.raises(SignalError) as caught:
        prm.scores(responses()[1:2])
    line = f"the tokenizer has token {highest}, the model 30 tokens: they don't belong together"
    assert str(caught.value) == line


def refused(response: Response, folder: Path, **settings: Any) -> str:
    """The error of a response that comes after a good one."""
    prm = QWEN.signal(QWEN.checkpoint(folder), **settings)
    with pytest.raises(RolloutError) as caught:
        prm.scores([responses()[1], response])
    return str(caught.value)


def test_responses_that_are_too_long(tmp_path: Path) -> None:
    """Over the model's context, or over the bound of a forward: both lengths are told."""
    long = "2 + 2 = 4. " * 60
    length = len(QWEN.tokenizer().encode(reference.qwen_input("?", [long.strip()])))
    assert length > 512
    row = replace(Response.of_text("?", long), steps=(len(long),))
    told = f"text: is {length} tokens with its prompt, but"
    assert refused(row, tmp_path) == f"row 1: {told} the model's context is 512"
    short = "2 + 2 = 4. " * 30
    length = len(QWEN.tokenizer().encode(reference.qwen_input("?", [short.strip()])))
    row = replace(Response.of_text("?", short, name="r.jsonl:8"), steps=(len(short),))
    told = f"r.jsonl:8: text: is {length} tokens with its prompt, but"
    line = f"{told} max_tokens_per_batch is 256"
    assert refused(row, tmp_path, max_tokens_per_batch=256) == line


def test_responses_without_text_or_steps(tmp_path: Path) -> None:
    """The row is named."""
    empty = replace(Response.of_text("?", " \n"), steps=(2,))
    line = "row 1: text: is empty: learned models score it high; empty='score' lets them"
    assert refused(empty, tmp_path) == line
    whole = Response.of_text("?", "eggs")
    assert refused(whole, tmp_path) == "row 1: steps: not split into steps"


def test_a_step_without_a_token_to_read() -> None:
    """Only where steps are read at their own."""
    case = BY_NAME["token-classifier"]
    prm = LocalPRM(
        case.model(),
        "token-classifier",
        protocol_settings={"read": "step"},
        tokenizer=case.tokenizer(),
        empty="score",
    )
    empty = replace(Response.of_text("?", ""), steps=(0,))
    with pytest.raises(RolloutError) as caught:
        prm.scores([empty])
    line = "row 0: step 0 has no token to read; use read='separator'"
    assert str(caught.value) == line


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setattr(requires, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra) as caught:
        LocalPRM("somewhere", "pure").scores(responses())
    line = "transformers: not installed; it comes with the extra signals: "
    assert str(caught.value) == f"{line}pip install 'stepcredit[signals]'"
