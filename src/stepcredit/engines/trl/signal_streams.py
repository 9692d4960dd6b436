"""What process signals give a trainer, as the core's streams over trained tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import stepcredit as sc
from stepcredit.data.inputs import LOGPROBS
from stepcredit.data.masking import stream_to_trained
from stepcredit.data.streams import Stream
from stepcredit.engines.build import check_stream_weights
from stepcredit.engines.trl.responses import Asked
from stepcredit.errors import EngineError
from stepcredit.signals.signal import Signal

Source = Signal | Callable[..., Any]
Given = Source | Mapping[str, Source] | None


def check_sources(process_signal: Given, logprobs: Given) -> None:
    """Refuse what can't be asked for scores, and log-probs of nobody or of steps.

    Raises:
        EngineError: names the argument, and the stream where it is one of several.
    """
    for field, given in (("process_signal", process_signal), ("logprobs", logprobs)):
        named = given if isinstance(given, Mapping) else {"": given}
        for name, source in named.items():
            if not callable(source) and (source is not None or name):
                reason = f"expected a Signal or a callable, got {type(source).__name__}"
                raise EngineError(reason, field=f"{field}.{name}" if name else field)
    if isinstance(logprobs, Signal):
        reason = f"whose are they? give {{name: signal}}, the name one of {', '.join(LOGPROBS)}"
        raise EngineError(reason, field="logprobs")
    for name, source in logprobs.items() if isinstance(logprobs, Mapping) else ():
        if name not in LOGPROBS:
            raise EngineError(f"expected one of {', '.join(LOGPROBS)}", field=f"logprobs.{name}")
        if isinstance(source, Signal) and source.grain != "tokens":
            reason = "scores steps, but log-probs are one a token"
            raise EngineError(reason, field=f"logprobs.{name}")


def check_weights(estimator: sc.Estimator, process_signal: Given) -> None:
    """Refuse a signal that a method of weighted streams would ask and then leave out.

    Raises:
        EngineError: names the stream.
    """
    if not isinstance(process_signal, Signal | Mapping):
        return
    streams = process_signal if isinstance(process_signal, Mapping) else ["process"]
    check_stream_weights(estimator, streams, "fields.weights")


def process_of(given: Given, asked: Asked, present: Tensor) -> Any:
    """The process streams of a batch, over the model's own tokens; None where there is no signal.

    Args:
        given: the trainer's `process_signal`.
        asked: the batch.
        present: (completion, token) bool, True on the tokens that are the model's own.
    """
    return None if given is None else streams_of(ask(given, asked), present, lengths_of(asked))


def logprobs_of(given: Given, asked: Asked, present: Tensor, estimator: sc.Estimator) -> Any:
    """The log-probs of a batch, over the model's own tokens: those given, and of what the method is
    made of besides, the policy's own and its reference's.

    Args:
        given: the trainer's `logprobs`.
        asked: the batch.
        present: (completion, token) bool, True on the tokens that are the model's own.
        estimator: the method.
    """
    models = estimator.reads.logprobs
    own = {name: sc.Tokens(rows) for name, rows in asked.logprobs.items() if name in models}
    if not isinstance(given, Mapping | None):
        return process_of(given, asked, present)
    found = {**own, **({} if given is None else ask(given, asked))}
    return streams_of(found, present, lengths_of(asked)) if found else None


def lengths_of(asked: Asked) -> list[int]:
    """All tokens of each completion, a tool's included."""
    return [len(ids) for ids in asked.sampled.completion_ids]


def ask(given: Source | Mapping[str, Source], asked: Asked) -> Any:
    """What a signal, a callable or each of several says of a batch."""
    if isinstance(given, Mapping):
        return {name: ask(source, asked) for name, source in given.items()}
    if isinstance(given, Signal) and given.cacheable:
        return given(asked.responses)
    if isinstance(given, Signal):  # reads whole groups
        responses, own = asked.everyones
        return given(responses).take(own)
    return given(**asked.sampled.as_arguments())


def streams_of(given: Any, present: Tensor, lengths: Sequence[int] | None = None) -> Any:
    """A process signal's answer as the `process` argument of `sc.Rollouts`.

    Args:
        given: `sc.Steps`, `sc.Tokens`, a list of (step_ends, step_scores) pairs, or {name: such};
            ends and token scores count all tokens of a completion.
        present: (rollout, token) bool, True on the tokens that are the model's own.
        lengths: all tokens of each completion; None: the answer fits them.

    Returns:
        the same over trained tokens only, on the CPU: a step without a trained token is gone.

    Raises:
        EngineError: an answer of another form, or for another number of completions or tokens.
    """
    if isinstance(given, Mapping):
        names = sorted(given, key=lambda name: name != "process")  # as in a file of rollouts
        return {name: _stream(given[name], present, lengths) for name in names}
    return _stream(given, present, lengths)


def _stream(given: Any, present: Tensor, lengths: Sequence[int] | None) -> Stream:
    stream = given if isinstance(given, Stream) else _from_pairs(given)
    if stream.counts.numel() != present.shape[0]:
        reason = f"answered for {stream.counts.numel()} completions of {present.shape[0]}"
        raise EngineError(reason, field="process_signal")
    stream = stream.to("cpu")
    if bool(present[:, 1:].le(present[:, :-1]).all()):
        return stream
    if lengths is not None:
        _check_lengths(stream, torch.as_tensor(lengths))
    return stream_to_trained(stream, present)


def _check_lengths(stream: Stream, lengths: Tensor) -> None:
    """Refuse ends or scores beyond a completion, which its tools' tokens would swallow."""
    if isinstance(stream, sc.Steps):
        rows = torch.repeat_interleave(torch.arange(len(lengths)), stream.counts)
        wrong = stream.ends >= lengths[rows]
        rows, found = rows[wrong], [f"a step ends at {end}" for end in stream.ends[wrong].tolist()]
    else:
        rows = ((stream.counts != lengths) & (stream.counts > 0)).nonzero()[:, 0]
        found = [f"{count} values" for count in stream.counts[rows].tolist()]
    if found:
        row = int(rows[0])
        reason = f"{found[0]}, but the completion has {int(lengths[row])} tokens, a tool's included"
        raise EngineError(reason, row=row, field="process_signal")


def _from_pairs(given: Any) -> sc.Steps:
    try:
        pairs = [(list(ends), list(scores)) for ends, scores in given]
    except (TypeError, ValueError):
        reason = "must give Steps, Tokens, or (step_ends, step_scores) a completion"
        raise EngineError(f"{reason}, got {type(given).__name__}", field="process_signal") from None
    return sc.Steps(ends=[ends for ends, _ in pairs], scores=[scores for _, scores in pairs])
