"""Samples from a model that vLLM runs in this process; vLLM is no dependency of stepcredit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from stepcredit.errors import MissingExtra, SettingError, SignalError, first_line
from stepcredit.evals.sampler import (
    Drawn,
    EvalSample,
    Sampler,
    SampleRequest,
    SamplingSettings,
    finish_of,
    prompt_tokens,
    sample_of_ids,
    sample_of_text,
)

REQUESTS_PER_CALL = 512
"""Samples that are drawn, and then written, together."""
OWN_SETTINGS = ("model", "seed")


class VLLMSampler(Sampler):
    """A model in vLLM's offline engine, `vllm.LLM`.

    Args:
        model: a folder or a name on the Hub.
        settings: how samples are drawn.
        engine: further arguments of `vllm.LLM`, such as `tensor_parallel_size`, `max_model_len`,
            `gpu_memory_utilization` or `dtype`.

    Raises:
        MissingExtra: vLLM is not installed.
        SettingError: an argument that is not for `engine`.
    """

    def __init__(
        self, model: str, settings: SamplingSettings, engine: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(settings)
        self.model, self.engine = model, dict(engine or {})
        for name in OWN_SETTINGS:
            if name in self.engine:
                raise SettingError(f"is set by --{name}", field=f"engine {name}")
        if find_spec("vllm") is None:
            raise MissingExtra("not installed: pip install vllm", field="vllm")

    @cached_property
    def llm(self) -> Any:
        """vLLM's engine, started when the first sample is drawn.

        Raises:
            SignalError: vLLM can't load the model.
        """
        from vllm import LLM

        try:
            return LLM(model=self.model, seed=self.settings.seed, **self.engine)
        except Exception as error:  # vLLM has many
            raise SignalError(f"vLLM: {first_line(error)}", place=self.model) from error

    @property
    def identity(self) -> dict[str, Any]:
        """The model's name, and whether the chat template is used."""
        return {"backend": "vllm", "model": self.model, "chat": self.settings.chat}

    def draw(self, requests: Sequence[SampleRequest]) -> Iterator[Drawn]:
        """Samples in calls of `REQUESTS_PER_CALL`, in the order of the requests."""
        tokenizer, chat = self.llm.get_tokenizer(), self.settings.chat
        prompts = [prompt_tokens(tokenizer, request, chat) for request in requests]
        for start in range(0, len(requests), REQUESTS_PER_CALL):
            part = range(start, min(start + REQUESTS_PER_CALL, len(requests)))
            outputs = self._generate([requests[i] for i in part], [prompts[i] for i in part])
            yield [
                (index, _sample(output, tokenizer, prompts[index]))
                for index, output in zip(part, outputs, strict=True)
            ]

    def _generate(
        self, requests: Sequence[SampleRequest], prompts: Sequence[list[int]]
    ) -> list[Any]:
        from vllm import SamplingParams

        settings = self.settings
        params = [
            SamplingParams(
                n=1,
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=settings.max_tokens,
                seed=request.draw_seed(settings.seed),
            )
            for request in requests
        ]
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        try:
            found: list[Any] = self.llm.generate(inputs, params, use_tqdm=False)
        except ValueError as error:  # a prompt that is too long
            raise SignalError(f"vLLM: {first_line(error)}", place=requests[0].name) from error
        return found


def _sample(output: Any, tokenizer: Any, prompt: Sequence[int]) -> EvalSample:
    """The one completion of vLLM's `RequestOutput`."""
    completion = output.outputs[0]
    ids = list(completion.token_ids)
    finish = finish_of(completion.finish_reason)
    if not ids:
        return sample_of_text(completion.text, None, finish, None)
    return sample_of_ids(ids, tokenizer, finish, prompt)
