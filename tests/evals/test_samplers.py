"""The backends: transformers on a tiny model, vLLM's documented interface as a fake, a server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.evals.eval_rows import FakeServer, solve
from tests.signals.tiny_models import save, tokenizer

from stepcredit.errors import MissingExtra, SettingError, SignalError
from stepcredit.evals.eval_tasks import EVAL_TASKS
from stepcredit.evals.problems import EvalProblem
from stepcredit.evals.sampler import EvalSample, Sampler, SampleRequest, SamplingSettings
from stepcredit.evals.server_sampler import Connection, ServerSampler
from stepcredit.evals.transformers_sampler import TransformersSampler
from stepcredit.evals.vllm_sampler import VLLMSampler

CHAT = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def requests(count: int, places: int = 1, system: str | None = None) -> list[SampleRequest]:
    task = EVAL_TASKS["gsm8k"]
    problems = [
        EvalProblem(f"gsm8k/{i}", task, f"Tom has {'9' * i} apples. {i} + 1?") for i in range(count)
    ]
    return [SampleRequest(p, place, p.prompt, system) for p in problems for place in range(places)]


def drawn(sampler: Sampler, asked: Sequence[SampleRequest]) -> list[EvalSample]:
    found = dict(pair for together in sampler.draw(asked) for pair in together)
    return [found[index] for index in range(len(asked))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def test_a_sample_is_the_same_in_any_batch(folder: str) -> None:
    settings = SamplingSettings(samples=3, max_tokens=12, seed=5)
    asked = requests(4, 3)
    whole = drawn(TransformersSampler(folder, settings, device="cpu"), asked)
    few = TransformersSampler(folder, settings, device="cpu", tokens_per_batch=60)
    assert len(list(few.draw(asked))) > 3
    assert [s.token_ids for s in drawn(few, asked)] == [s.token_ids for s in whole]
    alone = drawn(few, asked[7:8])[0]
    assert alone == whole[7]
    assert len({tuple(s.token_ids or ()) for s in whole}) == len(whole)
    other = TransformersSampler(folder, SamplingSettings(samples=3, max_tokens=12, seed=6))
    assert drawn(other, asked[:3]) != whole[:3]


def test_samples_hold_their_tokens_and_how_they_ended(folder: str) -> None:
    settings = SamplingSettings(samples=8, max_tokens=40, temperature=3.0)
    asked = requests(1, 8)
    sampler = TransformersSampler(folder, settings, device="cpu")
    found, ends = drawn(sampler, asked), sampler.causal.text_ends
    for sample in found:
        assert "".join(sample.tokens) == sample.text
        assert len(sample.tokens) == len(sample.token_ids or []) == sample.completion_tokens
        assert (sample.finish == "stop") == ((sample.token_ids or [-1])[-1] in ends)
        assert sample.finish == "stop" or sample.completion_tokens == 40
        assert sample.prompt_ids == tokenizer()(asked[0].plain)["input_ids"]


def test_temperature_zero_takes_the_most_likely_token(folder: str) -> None:
    sampler = TransformersSampler(folder, SamplingSettings(temperature=0.0, max_tokens=6))
    sample = drawn(sampler, requests(1))[0]
    model, ids = sampler.causal.model, list(sample.prompt_ids or [])
    import torch

    for token in sample.token_ids or []:
        with torch.no_grad():
            logits = model(torch.tensor([ids], device=model.device)).logits
        assert int(logits[0, -1].argmax()) == token
        ids.append(token)


def test_the_chat_template_is_used_if_there_is_one(folder: str) -> None:
    plain = drawn(TransformersSampler(folder, SamplingSettings(max_tokens=2)), requests(1))[0]
    assert tokenizer().decode(plain.prompt_ids) == "Tom has  apples. 0 + 1?"
    with_chat = tokenizer().__class__.from_pretrained(folder)
    with_chat.chat_template = CHAT
    for chat, expected in (
        (None, "[system]Think.[user]Tom has  apples. 0 + 1?[assistant]"),
        (False, "Think.\n\nTom has  apples. 0 + 1?"),
    ):
        settings = SamplingSettings(max_tokens=2, chat=chat)
        sampler = TransformersSampler(folder, settings, tokenizer=with_chat)
        sample = drawn(sampler, requests(1, system="Think."))[0]
        assert tokenizer().decode(sample.prompt_ids) == expected
    with pytest.raises(SignalError, match="the chat template refuses the turns"):
        drawn(TransformersSampler(folder, SamplingSettings(chat=True)), requests(1))


def test_a_prompt_over_the_context_is_refused_before_the_first_sample(folder: str) -> None:
    sampler = TransformersSampler(folder, SamplingSettings(max_tokens=250))
    with pytest.raises(SettingError) as error:
        next(sampler.draw(requests(3)))
    assert str(error.value).startswith("gsm8k/0, sample 0: needs ")
    assert str(error.value).endswith("positions, over the model's 256; lower --max-tokens")


def test_identity_follows_the_weights(tmp_path: Path) -> None:
    one, other = save(tmp_path / "a", seed=1), save(tmp_path / "b", seed=2)
    ids = [
        TransformersSampler(each, SamplingSettings()).identity["weights"] for each in (one, other)
    ]
    assert ids[0] != ids[1]


@dataclass
class Params:
    """vLLM's SamplingParams, as far as it is used."""

    n: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int


@dataclass
class Completion:
    """vLLM's CompletionOutput."""

    text: str
    token_ids: Sequence[int]
    finish_reason: str


@dataclass
class Output:
    """vLLM's RequestOutput."""

    outputs: list[Completion]


class FakeLLM:
    """vLLM's LLM: repeats the prompt's last tokens."""

    made: dict[str, Any]

    def __init__(self, **settings: Any) -> None:
        if settings["model"] == "broken":
            raise RuntimeError("no such model\nlong trace")
        FakeLLM.made = settings
        self.calls: list[int] = []

    def get_tokenizer(self) -> Any:
        return tokenizer()

    def generate(self, prompts: Any, params: Any, *, use_tqdm: bool) -> list[Output]:
        self.calls.append(len(prompts))
        found = []
        for prompt, own in zip(prompts, params, strict=True):
            ids = [*prompt["prompt_token_ids"], tokenizer().eos_token_id][-own.max_tokens :]
            cut = own.seed % 2 == 0
            found.append(Output([Completion("", tuple(ids), "length" if cut else "stop")]))
        return found


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = FakeLLM, Params  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.mark.usefixtures("vllm")
def test_vllm_gets_a_seed_per_sample_and_gives_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepcredit.evals.vllm_sampler.REQUESTS_PER_CALL", 4)
    settings = SamplingSettings(samples=3, max_tokens=5, temperature=0.7, top_p=0.9)
    sampler = VLLMSampler("m", settings, {"max_model_len": 512})
    asked = requests(2, 3)
    found = drawn(sampler, asked)
    assert FakeLLM.made == {"model": "m", "seed": 0, "max_model_len": 512}
    assert sampler.llm.calls == [4, 2]
    for request, sample in zip(asked, found, strict=True):
        ids = tokenizer()(request.plain)["input_ids"]
        assert sample.prompt_ids == ids
        assert sample.token_ids == [*ids, tokenizer().eos_token_id][-5:]
        assert "".join(sample.tokens) == sample.text
        assert sample.finish == ("length" if request.draw_seed(0) % 2 == 0 else "stop")
    assert len({request.draw_seed(0) for request in asked}) == len(asked)


@pytest.mark.usefixtures("vllm")
def test_vllm_that_fails_is_one_line() -> None:
    with pytest.raises(SignalError) as error:
        drawn(VLLMSampler("broken", SamplingSettings()), requests(1))
    assert str(error.value) == "broken: vLLM: no such model"
    with pytest.raises(SettingError, match="engine seed: is set by --seed"):
        VLLMSampler("m", SamplingSettings(), {"seed": 1})


def test_vllm_that_is_absent_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepcredit.evals.vllm_sampler.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="vllm: not installed: pip install vllm"):
        VLLMSampler("m", SamplingSettings())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fake = FakeServer()
    yield fake
    fake.close()


def served(server: FakeServer, settings: SamplingSettings, **rest: Any) -> ServerSampler:
    quick = {"timeout": 5.0, "attempts": 3, "backoff": 0.01}
    return ServerSampler("m", settings, Connection(url=server.url, **quick), **rest)


def test_a_server_is_asked_once_per_sample(server: FakeServer) -> None:
    settings = SamplingSettings(samples=2, temperature=0.6, top_p=0.9, max_tokens=50)
    asked = requests(3, 2, system="Think.")
    found = drawn(served(server, settings), asked)
    assert [sample.text for sample in found] == [solve({"prompt": r.user}) for r in asked]
    assert {body["path"] for body in server.asked} == {"/v1/chat/completions"}
    assert len({body["seed"] for body in server.asked}) == 6
    assert all(0 <= body["seed"] < 2**31 for body in server.asked)
    expected = {"model": "m", "n": 1, "temperature": 0.6, "top_p": 0.9, "max_tokens": 50}
    assert all(expected.items() <= body.items() for body in server.asked)
    assert server.asked[0]["messages"][0] == {"role": "system", "content": "Think."}
    assert (found[0].completion_tokens, found[0].tokens) == (4, ["It ", "is ", "\\boxed{1}."])
    assert (found[0].finish, found[0].token_ids) == ("stop", None)


def test_a_server_without_chat_gets_one_text(server: FakeServer) -> None:
    sampler = served(server, SamplingSettings(chat=False), tokenizer=tokenizer())
    sample = drawn(sampler, requests(1, system="Think."))[0]
    assert server.asked[0]["path"] == "/v1/completions"
    assert server.asked[0]["prompt"] == "Think.\n\nTom has  apples. 0 + 1?"
    assert tokenizer().decode(sample.token_ids) == "".join(sample.tokens) == sample.text


def test_faults_are_repeated_and_refusals_end(server: FakeServer) -> None:
    def busy(body: dict[str, Any]) -> Any:
        seen = sum(own["seed"] == body["seed"] for own in server.asked)
        return (503, {"error": "busy"}) if seen == 1 else solve(body)

    server.answer = busy
    assert len(drawn(served(server, SamplingSettings()), requests(3))) == 3
    assert len(server.asked) == 6
    server.answer = lambda _: (400, {"error": {"message": "no model m"}})
    with pytest.raises(SignalError) as error:
        drawn(served(server, SamplingSettings()), requests(1))
    assert str(error.value).endswith("/v1/chat/completions: HTTP 400: no model m")
    server.answer = lambda _: (200, {"choices": []})
    with pytest.raises(SignalError, match="the answer has 0 choices, expected 1"):
        drawn(served(server, SamplingSettings()), requests(1))


def test_settings_out_of_range_are_refused() -> None:
    for wrong, line in (
        ({"samples": 0}, "samples: expected a whole number of at least 1, got 0"),
        ({"top_p": 0.0}, "top_p: expected a number above 0 and at most 1, got 0.0"),
        ({"temperature": -1.0}, "temperature: expected a number of at least 0, got -1.0"),
        ({"samples": 2, "temperature": 0.0}, "samples: 2 at temperature 0 would all be the same"),
        ({"templates": {"gsm8k": "Solve."}}, "template gsm8k: holds no {prompt}"),
    ):
        with pytest.raises(SettingError) as error:
            SamplingSettings(**wrong)
        assert str(error.value).startswith(line)


def test_a_template_takes_the_problem_as_text() -> None:
    problem = EvalProblem("gsm8k/0", EVAL_TASKS["gsm8k"], "What is {prompt} \\boxed{}?")
    settings = SamplingSettings(templates={"gsm8k": "Q: {prompt}\n{x} \\boxed{}"})
    assert settings.user_turn(problem) == "Q: What is {prompt} \\boxed{}?\n{x} \\boxed{}"
