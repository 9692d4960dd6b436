"""The models that `stepcredit serve` knows, and what vLLM needs to be told about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.prm.protocol import PROTOCOLS, Protocol, build_protocol
from stepcredit.prm.served_prm import HEADS

ROLES = ("prm", "teacher", "judge")
EXTRA_0 = 151651
"""The id of <extra_0> in the vocabulary of Qwen2.5."""
_NOT_IN_POOLING = {
    "words": "the logits of two words of the vocabulary, which vLLM's /pooling does not give",
    "value": "a value head, which vLLM does not load",
}


@dataclass(frozen=True)
class ServedModel:
    """A model and how it is served.

    Args:
        name: on the Hub, or a folder.
        role: "prm", "teacher" or "judge".
        protocol: of a reward model, by name.
        protocol_settings: fields of the protocol.
        step_tag: the id of the token at which steps are read; None: the server gives
            probabilities at each token.
        context: the most tokens that the model takes; None: as its config says.
        gpus: GPUs of 80 GB that hold the weights in bfloat16.
    """

    name: str
    role: str
    protocol: str | None = None
    protocol_settings: Mapping[str, Any] = field(default_factory=dict)
    step_tag: int | None = None
    context: int | None = None
    gpus: int = 1

    @property
    def refusal(self) -> str | None:
        """Why vLLM can't serve it as its protocol reads it; None if it can."""
        if self.role != "prm":
            return None
        own = self.protocol_used
        if own.head in HEADS:
            return None
        return f"{own.name} reads {_NOT_IN_POOLING[own.head]}"

    @property
    def protocol_used(self) -> Protocol:
        """The protocol, built from its name and fields.

        Raises:
            SettingError: there is no such protocol or field.
        """
        if self.protocol is None:
            reason = f"expected one of {', '.join(PROTOCOLS.names())} for a reward model"
            raise SettingError(reason, field="protocol")
        return build_protocol(self.protocol, self.protocol_settings)

    @property
    def pooling(self) -> str:
        """Where the server gives probabilities, as `ServedPRM` names it: "step" or "all"."""
        return "all" if self.step_tag is None else "step"


def _qwen(name: str, gpus: int = 1) -> ServedModel:
    return ServedModel(name, "prm", "qwen2.5-math-prm", {}, EXTRA_0, 4096, gpus)


KNOWN_MODELS = (
    _qwen("Qwen/Qwen2.5-Math-PRM-7B"),
    _qwen("Qwen/Qwen2.5-Math-PRM-72B", gpus=4),
    _qwen("Qwen/Qwen2.5-Math-7B-PRM800K"),
    ServedModel("Gen-Verse/ReasonFlux-PRM-7B", "prm", "reasonflux", {}, EXTRA_0),
    ServedModel("jinachris/PURE-PRM-7B", "prm", "pure", context=4096),
    ServedModel("peiyi9979/math-shepherd-mistral-7b-prm", "prm", "math-shepherd"),
    ServedModel("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", "prm", "rlhflow"),
    ServedModel("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "prm", "rlhflow"),
    ServedModel("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B", "prm", "skywork"),
    ServedModel("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B", "prm", "skywork"),
    ServedModel("Qwen/Qwen2.5-7B-Instruct", "teacher"),
    ServedModel("Qwen/Qwen2.5-32B-Instruct", "teacher", gpus=4),
    ServedModel("Qwen/Qwen3-8B", "judge"),
)
"""The published reward models, and the teachers and judges of the docs and recipes."""


def model_to_serve(
    name: str,
    role: str | None = None,
    protocol: str | None = None,
    protocol_settings: Mapping[str, Any] | None = None,
) -> ServedModel:
    """How a model is served: as it is known, with what is given in its place.

    Args:
        name: on the Hub, or a folder.
        role: "prm", "teacher" or "judge"; None: the known one, or "prm" with a protocol.
        protocol: of a reward model; None: the known one.
        protocol_settings: fields of the protocol.

    Raises:
        SettingError: the role or the protocol is missing or unknown, or vLLM can't serve the model
            as the protocol reads it.

    Example:
        >>> model_to_serve("Qwen/Qwen2.5-Math-PRM-7B").pooling
        'step'
        >>> model_to_serve("models/own", protocol="token-classifier").pooling
        'all'
    """
    known = next((each for each in KNOWN_MODELS if each.name == name), None)
    if role is None and protocol is not None:
        role = "prm"
    if role is None and known is None:
        reason = "is not among the known models: say --as prm, teacher or judge"
        raise SettingError(reason, field=name)
    if role not in (None, *ROLES):
        raise SettingError(f"expected one of {', '.join(ROLES)}, got {role!r}", field="as")
    found = known or ServedModel(name, str(role))
    if role not in (None, found.role):
        found = ServedModel(name, str(role), gpus=found.gpus)
    if protocol not in (None, found.protocol):
        found = replace(found, protocol=protocol, step_tag=None)
    if protocol_settings:
        found = replace(found, protocol_settings=protocol_settings, step_tag=None)
    if found.role != "prm" and (protocol is not None or protocol_settings):
        raise SettingError("is for reward models alone", field="protocol")
    if found.refusal:
        local = f"run it in this process: --signal prm --set protocol={found.protocol}"
        raise SettingError(f"{found.refusal}; {local}", field=name)
    return found
