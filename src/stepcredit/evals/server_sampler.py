"""Samples from any server with OpenAI's interface: one request per sample, many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass
from typing import Any

from stepcredit.evals.sampler import (
    Drawn,
    EvalSample,
    Sampler,
    SampleRequest,
    SamplingSettings,
    finish_of,
    sample_of_text,
)
from stepcredit.requires import require
from stepcredit.settings.fields import check_fields, declare, number, whole
from stepcredit.signals.served.served_signal import (
    are_addresses,
    check_times,
    is_variable,
    shown_address,
)
from stepcredit.signals.served.server import MAX_BODY, Server
from stepcredit.signals.served.server_records import ServedRecords
from stepcredit.signals.server_statistics import ServedStatistics

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
SEED_BITS = 31
"""Servers take seeds of at most 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The server, with the fields of `Server`; generating takes longer than scoring.

    Args:
        url: its address, without /v1; or a list of the addresses of several servers of the model.
        concurrency: requests that run at the same time, on all servers together.
        timeout: seconds for one request; less than `deadline` where there are several servers.
        deadline: seconds for one sample, with all repetitions of its request.
        attempts: how often a request is sent to each server before the run stops.
        backoff: seconds before the first repetition at most; doubled for each further one.
        api_key_env: name of the environment variable that holds the key, where one is needed.
        max_body: bytes of one answer at most.
    """

    url: Any = declare(
        MISSING, are_addresses, "address of the server, or of several", shown=shown_address
    )
    concurrency: int = whole(32, "requests that run at the same time", at_least=1)
    timeout: float = number(600.0, "seconds for one request", above=0)
    deadline: float = number(3600.0, "seconds for one sample", above=0)
    attempts: int = whole(6, "how often a request is sent", at_least=1)
    backoff: float = number(0.5, "seconds before the first repetition at most", at_least=0)
    api_key_env: str | None = declare(None, is_variable, "variable with the key", repr=False)
    max_body: int = whole(MAX_BODY, "bytes of one answer at most", at_least=1)

    def __post_init__(self) -> None:
        check_fields(self)
        check_times(self)


class ServerSampler(Sampler):
    """A model behind a server with OpenAI's interface: vLLM, SGLang, llama.cpp, a provider's.

    Args:
        model: its name on the server.
        settings: how samples are drawn.
        connection: the server.
        tokenizer: the model's, of transformers, so that rows have its token ids; None: the tokens
            of a row are words.

    Raises:
        MissingExtra: a package of the extra `signals` is not installed.
    """

    def __init__(
        self,
        model: str,
        settings: SamplingSettings,
        connection: Connection,
        tokenizer: Any = None,
    ) -> None:
        require("signals", "httpx", "anyio", "tenacity")
        super().__init__(settings)
        self.model, self.connection, self.tokenizer = model, connection, tokenizer
        self.records = ServedRecords()

    @property
    def identity(self) -> dict[str, Any]:
        """The model's name, and whether turns are sent as such. The address does not matter."""
        return {"backend": "server", "model": self.model, "chat": self._is_chat}

    @property
    def server_counts(self) -> ServedStatistics:
        """The requests so far."""
        return self.records.statistics()

    @property
    def _is_chat(self) -> bool:
        return self.settings.chat is not False

    def draw(self, requests: Sequence[SampleRequest]) -> Iterator[Drawn]:
        """Samples one by one, as the server finishes them."""
        from stepcredit.signals.served.running import stream

        server = Server(**asdict(self.connection))
        known: dict[str, Any] = {"model": self.model, "records": self.records}
        for index, sample in stream(server, requests, self._ask, done="sampled", **known):
            yield [(index, sample)]

    async def _ask(self, asking: Any, request: SampleRequest) -> EvalSample:
        settings = self.settings
        body: dict[str, Any] = {
            "model": self.model,
            "n": 1,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            "seed": request.draw_seed(settings.seed, SEED_BITS),
        }
        turns = {"messages": request.messages} if self._is_chat else {"prompt": request.plain}
        found: EvalSample = await asking(CHAT if self._is_chat else PLAIN, body | turns, self._read)
        return found

    def _read(self, answer: Any) -> EvalSample:
        """The sample in an answer.

        Raises:
            Fault: a malformed answer.
        """
        from stepcredit.signals.served.answers import items, member
        from stepcredit.signals.served.failures import Fault

        choice = items(answer, "choices", expected=1, of="choices")[0]
        written = member(choice, "message", "content") if self._is_chat else member(choice, "text")
        if written is None and self._is_chat:  # a reasoner that was cut off while it thought
            written = ""
        if not isinstance(written, str):
            raise Fault("the answer's text is {}, expected a string", repr(written))
        finish = finish_of(choice.get("finish_reason"))
        return sample_of_text(written, self.tokenizer, finish, _sampled_tokens(answer))


def _sampled_tokens(answer: Any) -> int | None:
    """The number of tokens that the server counted; None if it tells none."""
    usage = answer.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count > 0 else None
