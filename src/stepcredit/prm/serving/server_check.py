"""Whether a server scores as the model itself does: a known text, there and in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio
from anyio.from_thread import start_blocking_portal

from stepcredit.errors import SettingError, SignalError, StepCreditError
from stepcredit.prm.local import LocalPRM
from stepcredit.prm.served_prm import ServedPRM
from stepcredit.prm.serving.vllm_command import VLLMCommand
from stepcredit.signals.models.checkpoints import load_tokenizer, load_whole, loading, to_device
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.responses import Response
from stepcredit.signals.served.failures import Ended
from stepcredit.signals.served.llm_judge import Judge
from stepcredit.signals.served.served_signal import OPERATION, Served
from stepcredit.signals.served.server import Server
from stepcredit.signals.served.server_pool import ServerPool
from stepcredit.signals.served.teacher import ServedLogProbs
from stepcredit.signals.signal import Signal
from stepcredit.signals.splitting import BlankLine

QUESTION = (
    "Each of 3 bags holds 4 apples. 5 of the apples are eaten. How many apples are left? "
    "Put the answer in \\boxed{}."
)
STEPS = (
    "The 3 bags hold 3 * 4 = 12 apples.\n\n",
    "After 5 are eaten, 12 - 5 = 9 apples are left.\n\n",
    "The answer is \\boxed{9}.",
)
"""A response whose second step is wrong."""
WRONG_STEP = 1
TOLERANCE = 0.05
"""How far scores of the same weights may differ: the largest difference of a reward model's scores,
the mean one of log-probs. Two kernels in bfloat16 round differently."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """How a server is checked.

    Args:
        tokenizer: the model's, as a folder or a name; None: the one at the model's name.
        api_key_env: environment variable that holds the key, where one is needed.
        local: whether the model is loaded here to compare; None: if its files are here already.
        tolerance: how far the scores may differ.
    """

    tokenizer: str | None = None
    api_key_env: str | None = None
    local: bool | None = None
    tolerance: float = TOLERANCE


def check_server(command: VLLMCommand, url: str, settings: CheckSettings) -> Iterator[str]:
    """Check a running server; yields one line per check that holds.

    Args:
        command: what it should serve, and as what.
        url: its address.
        settings: how it is checked.

    Raises:
        SignalError: it does not answer, serves another model or protocol, or scores differently
            from the model in this process.
        SettingError: a setting is out of range, or the tokenizer is needed and missing.
    """
    served = _served_signal(command, url, settings)
    names = models_at(served)
    if names is not None and command.name not in names:
        listed = ", ".join(sorted(names)) or "no model"
        raise SignalError(f"serves {listed}, not {command.name}", place=url)
    yield f"serves {command.name}" if names else "does not say which models it serves"
    response = _known_response(command, settings)
    [scores] = served.scores([response])
    yield _shown(command, scores)
    why_not = _why_not_local(command, settings)
    if why_not is not None:
        yield f"not compared with the model itself: {why_not}"
        return
    [own] = _local_signal(command, settings).scores([response])
    yield _compared(command, url, scores, own, settings.tolerance)


def models_at(signal: Served) -> frozenset[str] | None:
    """The names of the models that a signal's server serves; None: it does not say.

    Raises:
        SignalError: it does not answer.
    """
    server = Server(**{name: getattr(signal, name) for name in OPERATION})

    async def ask() -> frozenset[str] | None:
        async with ServerPool(server) as pool:
            client = pool.members[0].client
            try:
                with anyio.fail_after(server.deadline):
                    return await client.served_models()
            except Ended as ended:
                place = f"{client.url}/v1/models"
                raise SignalError(pool.text(ended), place=place) from None

    with start_blocking_portal() as portal:  # also inside another event loop
        return portal.call(ask)


def _served_signal(command: VLLMCommand, url: str, settings: CheckSettings) -> Served:
    fields = command.signal_fields(url)
    fields |= {"attempts": 2, "api_key_env": settings.api_key_env}
    if command.model.role == "teacher":
        return ServedLogProbs(**fields)
    if command.model.role == "judge":
        return Judge(**fields, tell=lambda notice: None)
    return ServedPRM(**{**fields, "tokenizer": _tokenizer(command, settings)})


def _tokenizer(command: VLLMCommand, settings: CheckSettings) -> Any:
    """The tokenizer that was named, or the one of the model at its revision."""
    if settings.tokenizer is not None:
        return load_tokenizer(settings.tokenizer)
    return load_tokenizer(command.model.name, command.settings.revision)


def _known_response(command: VLLMCommand, settings: CheckSettings) -> Response:
    text = "".join(STEPS)
    if command.model.role == "teacher":
        tokenizer = _tokenizer(command, settings)
        asked, written = (
            tuple(tokenizer(part, add_special_tokens=False)["input_ids"])
            for part in (QUESTION, text)
        )
        found = Response.of_ids(QUESTION, list(written), tokenizer, prompt_ids=asked)
        return BlankLine(inside="extend").split(found)
    ends = tuple(accumulate(map(len, STEPS)))
    spans = tuple(zip((0, *ends[:-1]), ends, strict=True))
    return Response(QUESTION, text, spans, ends, name="the known text")


def _shown(command: VLLMCommand, scores: Sequence[float]) -> str:
    if command.model.role == "teacher":
        return f"{len(scores)} tokens, {len(scores)} log-probs, {fmean(scores):.3f} on average"
    shown = ", ".join(f"{score:.3f}" for score in scores)
    return f"{len(STEPS)} steps, {len(scores)} scores: {shown} (step {WRONG_STEP + 1} is wrong)"


def _why_not_local(command: VLLMCommand, settings: CheckSettings) -> str | None:
    """Why the model is not loaded here to compare; None if it is."""
    if command.model.role == "judge":
        return "a judge's verdict is compared with nothing"
    if settings.local is False:
        return "--no-local"
    if settings.local or has_weights(command.model.name, command.settings.revision):
        return None
    return "its weights are not on this machine (--local loads them)"


def has_weights(source: str, revision: str | None = None) -> bool:
    """Whether a checkpoint's weights are all on this machine; nothing is downloaded.

    Example:
        >>> has_weights("no/such-model-anywhere")
        False
    """
    from transformers.utils import cached_file

    def path(name: str) -> str | None:
        try:
            found: str | None = cached_file(
                source,
                name,
                revision=revision,
                local_files_only=True,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
        except OSError:  # neither a folder nor a name that the Hub could have
            return None
        return found

    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = path(f"{whole}.index.json")
        if index is None and path(whole) is not None:
            return True
        if index is not None:
            shards = set(json.loads(Path(index).read_bytes())["weight_map"].values())
            return all(path(shard) is not None for shard in shards)
    return False


def _local_signal(command: VLLMCommand, settings: CheckSettings) -> Signal:
    model = command.model
    try:
        if model.role == "teacher":
            return _local_teacher(command, settings)
        return LocalPRM(
            model.name,
            protocol=model.protocol,
            protocol_settings=dict(model.protocol_settings),
            tokenizer=_tokenizer(command, settings),
            revision=command.settings.revision,
        )
    except SettingError:
        raise
    except StepCreditError as error:
        raise SignalError(f"the model can't be loaded here: {error.reason}") from error


def _local_teacher(command: VLLMCommand, settings: CheckSettings) -> LocalLogProbs:
    """The teacher's weights at its revision, which the signal itself has no setting for."""
    revision = command.settings.revision
    if revision is None:
        return LocalLogProbs(command.model.name)
    from transformers import AutoModelForCausalLM

    with loading(command.model.name):
        loaded = load_whole(AutoModelForCausalLM, command.model.name, revision=revision)
    tokenizer = _tokenizer(command, settings)
    return LocalLogProbs(to_device(loaded, "auto").eval(), tokenizer=tokenizer)


def _compared(
    command: VLLMCommand, url: str, there: Sequence[float], here: Sequence[float], tolerance: float
) -> str:
    """How far the scores differ.

    Raises:
        SignalError: further than the tolerance.
    """
    gaps = [abs(one - other) for one, other in zip(there, here, strict=True)]
    is_teacher = command.model.role == "teacher"
    gap = fmean(gaps) if is_teacher else max(gaps)
    how = "on average" if is_teacher else "at most"
    if gap <= tolerance:
        return f"as the model in this process: {gap:.2g} apart {how}, {tolerance:g} is allowed"
    shown = [", ".join(f"{score:.3f}" for score in scores[:6]) for scores in (there, here)]
    reason = f"its scores are {gap:.3g} apart {how} from the model's in this process"
    detail = f"there {shown[0]}, here {shown[1]}"
    raise SignalError(f"{reason} ({detail}): another protocol or other weights", place=url)
