"""A teacher's log-probs from a server: of each token the policy sampled, given its prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.settings.fields import choice, flag, number
from stepcredit.signals.facts import policy_ids
from stepcredit.signals.responses import Response
from stepcredit.signals.served import prompt_logprobs
from stepcredit.signals.served.failures import Refused
from stepcredit.signals.served.prompt_logprobs import TokenLogprob
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.signal_registry import register_signal

LEAST = -9999.0
"""What vLLM writes in place of minus infinity."""
APIS = ("vllm", "sglang")


@register_signal("logprobs-served")
@dataclass(frozen=True, kw_only=True)
class ServedLogProbs(Served):
    """Log-prob of each response token under a served model, teacher-forced.

        s_t = log π(y_t | x, y_<t)          at temperature 1

    The policy's own token ids are sent, so the served model must have the policy's vocabulary. The
    server returns each token's text; if that is not the text the policy wrote, the run stops.

    Args:
        api: "vllm" (`/v1/completions` with `prompt_logprobs`) or "sglang" (`/generate` with
            `return_logprob`).
        temperature: 1, the only one at which servers give a prompt's log-probs.
        check_vocabulary: compare the tokens' texts that the server returns with the policy's text.

    Raises:
        SettingError: another temperature, or a field out of range.

    Example:
        >>> teacher = ServedLogProbs(url="http://localhost:8000", model="Qwen/Qwen3-8B")
        >>> teacher.identity["temperature"]
        1.0

    Source: the HTTP interfaces of vLLM and SGLang.
    """

    grain = "tokens"
    reads_token_ids = True
    local_signal = "logprobs"
    api: str = choice("vllm", APIS, "the server's interface")
    temperature: float = number(1.0, "temperature of the log-probs: 1", above=0)
    check_vocabulary: bool = flag(True, "compare its tokens' texts with the policy's")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature != 1:
            reason = f"a server gives log-probs only at temperature 1, got {self.temperature:g}"
            raise SettingError(reason, field="temperature")

    @property
    def named_model(self) -> str | None:
        """As for every served signal; SGLang's requests name no model, so it may have any name."""
        return self.model if self.api == "vllm" else None

    async def ask(self, asking: Any, response: Response) -> list[float]:
        """One request: the log-probs of the response's tokens."""
        prompt, tokens = policy_ids(response)
        if self.api == "vllm":
            request, read = prompt_logprobs.vllm(self.model, prompt, tokens)
            read_tokens = await asking("/v1/completions", request, read)
        else:
            request, read = prompt_logprobs.sglang(prompt, tokens)
            read_tokens = await asking("/generate", request, read)
        self._check(response, tokens, read_tokens)
        return [logprob for logprob, _ in read_tokens]

    def _check(
        self, response: Response, tokens: tuple[int, ...], read_tokens: list[TokenLogprob]
    ) -> None:
        if self.check_vocabulary and all(text is None for _, text in read_tokens):
            raise Refused(
                "{} gives no token's text, which check_vocabulary needs", ", ".join(self.urls)
            )
        for index, (logprob, text) in enumerate(read_tokens):
            token = f"token {index} ({tokens[index]})"
            if logprob <= LEAST:
                raise Refused(f"the model {{}} gives {token} probability 0", self.model)
            if self.check_vocabulary and text and not fits(response, index, text):
                start, end = response.spans[index]
                texts = repr(response.text[start:end]), repr(text), self.model
                reason = f"{token} is {{}} to the policy and {{}} to {{}}: another vocabulary"
                raise Refused(reason, *texts)


def fits(response: Response, index: int, text: str) -> bool:
    """Whether a server's text of a token is what the policy wrote.

    Space at the ends is left out, as tokenizers differ in where they show it. Tokens without text
    (special tokens, and parts of a character) fit any text.

    Example:
        >>> response = Response("?", "a cat", spans=((0, 1), (1, 5)))
        >>> fits(response, 1, " cat"), fits(response, 1, " dog")
        (True, False)
    """
    start, end = response.spans[index]
    before = max((span[1] for span in response.spans[max(0, index - 1) : index]), default=start)
    after = min((span[0] for span in response.spans[index + 1 : index + 2]), default=end)
    shared = before > start or after < end
    if start == end or shared or "\N{REPLACEMENT CHARACTER}" in text:
        return True
    return text.replace("▁", " ").strip() == response.text[start:end].strip()
