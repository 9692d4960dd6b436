"""The command that serves a model with vLLM, and the settings of the signal that fit it.

The flags are those of vLLM 0.19 to 0.33. Before 0.19, vLLM knows no `task` in `--pooler-config`:
leave it out there, the request names it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.prm.serving.served_models import ServedModel
from stepcredit.settings.fields import check_fields, declare, is_name, number, text, whole
from stepcredit.signals.served.llm_judge import Judge
from stepcredit.signals.served.secrets import HIDDEN
from stepcredit.signals.served.served_signal import is_address

WIDTH = 100
"""Columns of a printed command."""
LOGPROBS = Judge.top_logprobs
"""Log-probs per token that a judge asks for."""
CHUNK = 2048
"""Tokens of a forward pass of a teacher: vLLM may hold their logits over the whole vocabulary."""
TEACHER_SHARE = 0.85
"""Share of the memory of a teacher's server: prompt log-probs need some beside it."""

SECRET = re.compile(
    r"(--(?:api[-_]k\w*|hf[-_]t\w*|[\w-]*[-_](?:key|token|password|secret))(?:[= ]|$))(.*)",
    re.DOTALL | re.IGNORECASE,
)
"""An option with a secret; argparse also takes the beginning of a name."""


def _strings(value: Any) -> str | None:
    given = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    return None if given else "a list of strings"


def parted(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each argument as a part that may be shown and a secret; either may be empty.

    Secret are the values of vLLM's `--api-key`, which may have several, of `--hf-token`, and of
    options whose names end in key, token, password or secret.

    Example:
        >>> list(parted(["--api-key", "sk-1", "sk-2", "--hf_token=hf-3", "--enforce-eager"]))[:3]
        [('--api-key', ''), ('', 'sk-1'), ('', 'sk-2')]
        >>> list(parted(["--hf_token=hf-3", "--enforce-eager"]))
        [('--hf_token=', 'hf-3'), ('--enforce-eager', '')]
    """
    follows = False
    for argument in arguments:
        named = SECRET.fullmatch(argument)
        if named:
            yield named[1], named[2]
        elif follows and not argument.startswith("--"):
            yield "", argument
            continue
        else:
            yield argument, ""
        follows = named is not None


def _in_address(host: str) -> str:
    """A host as an address holds it: IPv6 in brackets.

    Example:
        >>> _in_address("::1"), _in_address("10.0.0.5")
        ('[::1]', '10.0.0.5')
    """
    return f"[{host}]" if ":" in host else host


def _is_host(value: Any) -> str | None:
    """A check for a host's name or IP address, and None."""
    if value is None:
        return None
    given = isinstance(value, str) and "/" not in value and "[" not in value
    if given and is_address(f"http://{_in_address(value)}:8000") is None:
        return None
    return "a host's name or IP address, or null"


def _is_port(value: Any) -> str | None:
    given = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535
    return None if given else "a port from 1 to 65535"


@dataclass(frozen=True, kw_only=True)
class VLLMSettings:
    """How vLLM is started.

    Args:
        port: of the server.
        host: the address at which it listens; None: all of this machine's.
        served_name: the model's name on the server; None: that of the checkpoint.
        revision: branch, tag or commit on the Hub.
        max_model_len: the most tokens of a request; None: the model's context.
        dtype: type of the weights.
        memory_share: share of each GPU's memory; None: 0.9, and 0.85 for a teacher.
        tensor_parallel: GPUs that hold the model together; None: as many as are needed with 80 GB.
        data_parallel: copies of the model behind this one address.
        extra: further arguments, as they are.
    """

    port: int = declare(8000, _is_port, "of the server")
    host: str | None = declare(None, _is_host, "the address at which it listens")
    served_name: str | None = text(None, "the model's name on the server")
    revision: str | None = text(None, "branch, tag or commit on the Hub")
    max_model_len: int | None = whole(None, "tokens of a request", at_least=1, optional=True)
    dtype: str = declare("bfloat16", is_name, "type of the weights")
    memory_share: float | None = number(
        None, "share of each GPU's memory", above=0, at_most=1, optional=True
    )
    tensor_parallel: int | None = whole(None, "GPUs per copy", at_least=1, optional=True)
    data_parallel: int = whole(1, "copies of the model", at_least=1)
    extra: Sequence[str] = declare((), _strings, "further arguments")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class VLLMCommand:
    """The command that serves a model.

    Args:
        model: what is served, and as what.
        settings: how.

    Example:
        >>> from stepcredit.prm.serving.served_models import model_to_serve
        >>> command = VLLMCommand(model_to_serve("Qwen/Qwen3-8B"), VLLMSettings(port=8001))
        >>> print(command.text)
        vllm serve Qwen/Qwen3-8B --max-logprobs 20 --dtype bfloat16 --gpu-memory-utilization 0.9 \\
            --port 8001
    """

    model: ServedModel
    settings: VLLMSettings

    @property
    def context(self) -> int | None:
        """The most tokens of a request, where it is known."""
        return self.settings.max_model_len or self.model.context

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self.settings.served_name or self.model.name

    @property
    def arguments(self) -> list[str]:
        """The command as a list of arguments."""
        return [argument for group in self._groups() for argument in group]

    @property
    def shown(self) -> str:
        """The command on one line, without API keys."""
        return shlex.join(argument for group in self._groups(shown=True) for argument in group)

    @property
    def secrets(self) -> list[str]:
        """The API keys and the like among its arguments."""
        return [secret for _, secret in parted(self.settings.extra) if secret]

    def _groups(self, *, shown: bool = False) -> Iterator[list[str]]:
        own = self.settings
        yield ["vllm", "serve", self.model.name]
        yield from self._task()
        if self.context is not None:
            yield ["--max-model-len", str(self.context)]
        yield ["--dtype", own.dtype]
        usual = TEACHER_SHARE if self.model.role == "teacher" else 0.9
        share = usual if own.memory_share is None else own.memory_share
        yield ["--gpu-memory-utilization", f"{share:g}"]
        for flag, count in (
            ("--tensor-parallel-size", own.tensor_parallel or self.model.gpus),
            ("--data-parallel-size", own.data_parallel),
        ):
            if count > 1:
                yield [flag, str(count)]
        for flag, value in (
            ("--served-model-name", own.served_name),
            ("--revision", own.revision),
            ("--host", own.host),
            ("--port", str(own.port)),
        ):
            if value is not None:
                yield [flag, value]
        for open_part, secret in parted(own.extra):
            yield [open_part + (HIDDEN if shown and secret else secret)]

    def _task(self) -> Iterator[list[str]]:
        """What the server is for: probabilities of tokens, or generation."""
        if self.model.role == "prm":
            yield ["--runner", "pooling"]
            pooler: dict[str, Any] = {"task": "token_classify", "pooling_type": "ALL"}
            if self.model.step_tag is not None:
                pooler |= {"pooling_type": "STEP", "step_tag_id": self.model.step_tag}
            yield ["--pooler-config", json.dumps(pooler, separators=(",", ":"))]
            return
        if self.model.role == "teacher":
            yield ["--max-num-batched-tokens", str(CHUNK)]
        yield ["--max-logprobs", str(LOGPROBS)]

    @property
    def text(self) -> str:
        """The command for a shell, over several lines where it is long; API keys are hidden."""
        lines = [""]
        for group in map(shlex.join, self._groups(shown=True)):
            joined = f"{lines[-1]} {group}".lstrip(" ") if lines == [""] else f"{lines[-1]} {group}"
            if len(joined) > WIDTH - len(" \\") and lines != [""]:
                lines.append(f"    {group}")
            else:
                lines[-1] = joined
        return " \\\n".join(lines)

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
        host = self.settings.host
        named = "localhost" if host in (None, "0.0.0.0", "::") else _in_address(str(host))
        return f"http://{named}:{self.port}"

    @property
    def port(self) -> int:
        """Of the server."""
        return self.settings.port

    def signal_fields(self, url: str | None = None) -> dict[str, Any]:
        """The fields of the signal that reads this server.

        Args:
            url: the server's address; None: on this machine.

        Example:
            >>> from stepcredit.prm.serving.served_models import model_to_serve
            >>> pure = model_to_serve("jinachris/PURE-PRM-7B")
            >>> VLLMCommand(pure, VLLMSettings()).signal_fields()["pooling"]
            'all'
        """
        fields: dict[str, Any] = {"url": url or self.url, "model": self.name}
        if self.settings.revision is not None:  # part of the scores' identity
            fields["revision"] = self.settings.revision
        if self.model.role != "prm":
            return fields
        fields |= {"protocol": self.model.protocol, "pooling": self.model.pooling}
        if self.model.protocol_settings:
            fields["protocol_settings"] = dict(self.model.protocol_settings)
        if self.context is not None:
            fields["context"] = self.context
        if self.name != self.model.name:
            fields["tokenizer"] = self.model.name
        return fields

    @property
    def named(self) -> str:
        """How `stepcredit serve` names what is served: model, role or protocol, name, revision."""
        model = self.model
        words = [model.name, "--as", model.role]
        if model.protocol is not None:
            words[1:] = ["--protocol", model.protocol]
        for name, value in model.protocol_settings.items():
            words += ["--set", f"{name}={json.dumps(value)}"]
        if self.name != model.name:
            words += ["--served-name", self.name]
        if self.settings.revision is not None:
            words += ["--revision", self.settings.revision]
        return shlex.join(words)

    @property
    def signal(self) -> str:
        """The signal that reads this server."""
        return {"prm": "prm-served", "teacher": "logprobs-served"}.get(self.model.role, "judge")
