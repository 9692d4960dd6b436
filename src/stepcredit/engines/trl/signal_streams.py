"""What signals and callables give a generation: streams, step ends and texts of policy tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import stepcredit as sc
from stepcredit.data.inputs import LOGPROBS, step_ends_stream
from stepcredit.data.masking import (
    row_steps_to_trained,
    step_ends_to_trained,
    stream_to_trained,
    turn_ends,
)
from stepcredit.data.rules import NAME_TAKEN, RESERVED_NAMES
from stepcredit.data.streams import Stream
from stepcredit.engines.build import check_known_streams, unread_streams
from stepcredit.engines.each_stream import of_each_stream
from stepcredit.engines.method_probe import check_shape
from stepcredit.engines.run_record import by_stream
from stepcredit.engines.scoring_costs import ScoringMeter
from stepcredit.engines.texts import decode_with_steps, trained_texts
from stepcredit.engines.trl.distributed import GivenStreams, made_once
from stepcredit.engines.trl.generation import Generation
from stepcredit.errors import EngineError
from stepcredit.signals.signal import Signal
from stepcredit.signals.splitting import Turns
from stepcredit.signals.state_keys import StateFunction, checked_keys, step_keys

Source = Signal | Callable[..., Any]
Given = Source | Mapping[str, Source] | None


def check_sources(process_signal: Given, logprobs: Given) -> None:
    """Refuse sources that are neither signals nor callables, and log-probs of no model or of steps.

    Raises:
        EngineError: names the argument, and the stream where there are several.
    """
    for field, given in (("process_signal", process_signal), ("logprobs", logprobs)):
        named = given if isinstance(given, Mapping) else {"": given}
        for name, source in named.items():
            if not callable(source) and (source is not None or name):
                reason = f"expected a Signal or a callable, got {type(source).__name__}"
                raise EngineError(reason, field=f"{field}.{name}" if name else field)
    for name in process_signal if isinstance(process_signal, Mapping) else ():
        if name in RESERVED_NAMES:
            raise EngineError(NAME_TAKEN, field=f"process_signal.{name}")
    models = ", ".join(LOGPROBS)
    if isinstance(logprobs, Signal):
        reason = f"expected {{model: signal}}, where the model is one of {models}; got one signal"
        raise EngineError(reason, field="logprobs")
    for name, source in logprobs.items() if isinstance(logprobs, Mapping) else ():
        if name not in LOGPROBS:
            raise EngineError(f"expected one of {models}", field=f"logprobs.{name}")
        if isinstance(source, Signal) and source.grain != "tokens":
            reason = "it scores steps, but there must be one log-prob per token"
            raise EngineError(reason, field=f"logprobs.{name}")


def has_named_streams(process_signal: Given) -> bool:
    """Whether the names of all streams are known at the start; a callable may give any."""
    return process_signal is None or isinstance(process_signal, Signal | Mapping)


def check_weights(estimator: sc.Estimator, process_signal: Given) -> None:
    """Refuse a method that gives no credit, and weights that fit no stream.

    What a callable gives is known only with the first generation: see `check_given_streams`.

    Raises:
        EngineError: names the stream, or the setting.
    """
    streams: Iterable[str] = [] if process_signal is None else ["process"]
    if isinstance(process_signal, Mapping):
        streams = process_signal
    if has_named_streams(process_signal):
        check_known_streams(estimator, streams, "fields.weights")
    check_shape(estimator, streams, "method")


def check_given_streams(
    estimator: sc.Estimator, process_signal: Given, streams: GivenStreams
) -> None:
    """Refuse streams from a callable that do not fit the method's weights.

    Args:
        estimator: the method.
        process_signal: the trainer's.
        streams: what it gave; a single one is the stream "process".

    Raises:
        EngineError: names the stream.
    """
    if not has_named_streams(process_signal):
        names = streams if isinstance(streams, Mapping) else ["process"]
        check_known_streams(estimator, names, "fields.weights")


def unread_settings(
    estimator: sc.Estimator, process_signal: Given, logprobs: Given, format_reward: str | None
) -> Iterator[str]:
    """What is computed for a method that does not read it, one line per setting.

    Args:
        estimator: the method.
        process_signal, logprobs, format_reward: the trainer's.
    """
    reads, name = estimator.reads, estimator.name or type(estimator).__name__
    if process_signal is not None:
        known = by_stream(process_signal) if has_named_streams(process_signal) else ()
        yield from unread_streams(estimator, known, "process_signal")
    models = logprobs if isinstance(logprobs, Mapping) else {}
    unread = [model for model in models if model not in reads.logprobs]
    if unread or (logprobs is not None and not reads.logprobs):
        yield f"logprobs: {name} does not read those of {', '.join(unread) or 'any model'}"
    if format_reward is not None and not (reads.format or reads.gate):
        yield f"format_reward: {name} reads no format reward: {format_reward} trains nothing"


def cut_rows(given: Given, generation: Generation, streams: Any) -> dict[str, list[bool]]:
    """Which completions each signal scored only up to a step before the last.

    Args:
        given: the trainer's `process_signal`.
        generation: what was sampled.
        streams: what the signals gave, over all tokens.
    """
    sources = given if isinstance(given, Mapping) else {"process": given}
    by_name = streams if isinstance(streams, Mapping) else {"process": streams}
    found = {}
    for name, source in sources.items():
        if isinstance(source, Signal) and source.may_leave_out and source.grain == "steps":
            steps = [len(response.steps or ()) for response in generation.responses]
            counts = by_name[name].counts.tolist()
            found[name] = [0 < own < all_ for own, all_ in zip(counts, steps, strict=True)]
    return found


def process_streams(given: Given, generation: Generation) -> Any:
    """The process streams of a generation, over the policy's tokens; None without a signal.

    Args:
        given: the trainer's `process_signal`.
        generation: what was sampled.

    Raises:
        EngineError: an answer that does not fit the completions.
    """
    return streams_and_cut_rows(given, generation, ScoringMeter())[0]


def streams_and_cut_rows(
    given: Given, generation: Generation, meter: ScoringMeter
) -> tuple[Any, dict[str, list[bool]]]:
    """`process_streams`, and `cut_rows`."""
    if given is None:
        return None, {}
    scores = measured_scores(given, generation, meter)
    streams = policy_streams(scores, generation.policy_tokens, generation.lengths)
    return streams, cut_rows(given, generation, scores)


def logprob_streams(
    given: Given,
    generation: Generation,
    estimator: sc.Estimator,
    meter: ScoringMeter | None = None,
) -> Any:
    """The log-probs of a generation, over the policy's tokens.

    They are the given ones, plus the policy's and the reference's where the method needs them.

    Args:
        given: the trainer's `logprobs`.
        generation: what was sampled.
        estimator: the method.
        meter: measures what the given ones take; those of a model are `MODEL_logprobs`.

    Raises:
        EngineError: an answer that does not fit the completions.
    """
    meter = ScoringMeter() if meter is None else meter
    if not isinstance(given, Mapping | None):
        with meter.of("logprobs", given):
            scores = scores_from(given, generation)
        return policy_streams(scores, generation.policy_tokens, generation.lengths)
    models = estimator.reads.logprobs
    own = {name: sc.Tokens(rows) for name, rows in generation.logprobs.items() if name in models}
    measure = meter.of_logprobs
    scored = of_each_stream(given or {}, lambda each: scores_from(each, generation), measure)
    streams = {**own, **scored}
    if not streams:
        return None
    return policy_streams(streams, generation.policy_tokens, generation.lengths)


def measured_scores(
    given: Source | Mapping[str, Source], generation: Generation, meter: ScoringMeter
) -> Any:
    """What a signal, a callable or each of several gives for a generation.

    Args:
        given: the trainer's; a single one is measured as the stream "process".
        generation: what was sampled.
        meter: measures what the scores take.
    """
    if isinstance(given, Mapping):
        return of_each_stream(given, lambda each: scores_from(each, generation), meter.of)
    with meter.of("process", given):
        return scores_from(given, generation)


def scores_from(source: Source, generation: Generation) -> Any:
    """What a signal or a callable gives for a generation.

    A signal that reads whole groups is asked once, by the first process: each judge in it is paid
    for one answer, and all processes have the same scores.
    """
    if isinstance(source, Signal) and source.cacheable:
        return source(generation.responses)
    if isinstance(source, Signal):
        responses, own = generation.responses_of_all_processes
        return made_once(lambda: source(responses)).take(own)
    return source(**generation.arguments())


def policy_streams(
    given: Any, policy_tokens: Tensor, lengths: Sequence[int] | None = None
) -> GivenStreams:
    """What a process signal gave, as the `process` argument of `sc.Rollouts`.

    Args:
        given: `sc.Steps`, `sc.Tokens`, a list of (step_ends, step_scores) pairs, or {name: any of
            these}; ends and token scores count all tokens of a completion.
        policy_tokens: (rollout, token) bool, True on the tokens that the policy wrote.
        lengths: all tokens of each completion; None: the streams fit the completions.

    Returns:
        The same over the policy's tokens, on the CPU. Steps without such a token are dropped.

    Raises:
        EngineError: something of another form, or for another number of completions or tokens.
    """
    if isinstance(given, Mapping):
        names = sorted(given, key=lambda name: name != "process")  # as in a file of rollouts
        ordered = {name: given[name] for name in names}
        return of_each_stream(ordered, lambda each: _policy_stream(each, policy_tokens, lengths))
    return _policy_stream(given, policy_tokens, lengths)


def _policy_stream(given: Any, policy_tokens: Tensor, lengths: Sequence[int] | None) -> Stream:
    stream = given if isinstance(given, Stream) else _steps_of_pairs(given)
    if stream.counts.numel() != policy_tokens.shape[0]:
        reason = f"answered for {stream.counts.numel()} completions of {policy_tokens.shape[0]}"
        raise EngineError(reason, field="process_signal")
    stream = stream.to("cpu")
    if lengths is not None:
        every = torch.as_tensor(lengths)
        if torch.equal(policy_tokens.sum(1), every):  # the policy wrote every token
            return stream
        _check_lengths(stream, every)
    return stream_to_trained(stream, policy_tokens)


def _check_lengths(stream: Stream, lengths: Tensor) -> None:
    """Refuse ends or scores beyond a completion, which the change to policy tokens would hide."""
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


def _steps_of_pairs(given: Any) -> sc.Steps:
    try:
        pairs = [(list(ends), list(scores)) for ends, scores in given]
    except (TypeError, ValueError):
        reason = "must give Steps, Tokens, or one (step_ends, step_scores) per completion"
        raise EngineError(f"{reason}, got {type(given).__name__}", field="process_signal") from None
    return sc.Steps(ends=[ends for ends, _ in pairs], scores=[scores for _, scores in pairs])


def step_ends_of(generation: Generation, estimator: sc.Estimator) -> Stream | None:
    """Where steps end, for streams without step ends: the policy's turns, or the chunks `steps`.

    Args:
        generation: what was sampled.
        estimator: its chunks may be the steps.

    Returns:
        The last token of each step among the policy's tokens; None where nothing reads them.
    """
    if isinstance(generation.splitter, Turns):
        return turn_ends(generation.policy_tokens)
    if not estimator.reads.steps:
        return None
    ends = step_ends_stream([response.step_ends for response in generation.responses])
    return None if ends is None else step_ends_to_trained(ends, generation.policy_tokens)


def completion_states(
    generation: Generation, states: StateFunction | Sequence[Sequence[Any]]
) -> list[list[Any]]:
    """The state of each step of each completion.

    Args:
        generation: what was sampled.
        states: a function of a response; or the keys themselves, by completion.

    Raises:
        RolloutError: another number of states than of steps; it names the completion.
        SignalError: the function fails.
    """
    responses = generation.responses
    if callable(states):
        return [step_keys(response, states) for response in responses]
    return [checked_keys(*pair) for pair in zip(responses, states, strict=True)]


def trained_states(generation: Generation) -> list[list[Any]] | None:
    """The states of the steps that have a token of the policy."""
    if generation.states is None:
        return None
    masks = generation.policy_tokens.tolist()
    rows = zip(generation.responses, generation.states, masks, strict=True)
    return [
        row_steps_to_trained(list(response.step_ends), keys, mask)[1]
        for response, keys, mask in rows
    ]


def response_and_step_texts(
    generation: Generation, process: GivenStreams, ends: Stream | None
) -> tuple[list[str], list[list[str]] | None]:
    """The texts of the responses and of their steps, without special tokens and tools' answers.

    Args:
        generation: what was sampled.
        process: its process streams; the first that has steps says where they end.
        ends: where steps end if no stream has steps.

    Returns:
        One text per response and one text per step; None for the steps where none are known.
    """
    streams = process.values() if isinstance(process, Mapping) else [process]
    for stream in streams:
        if isinstance(stream, sc.Steps):
            ends = Stream._of(values=stream.ends, counts=stream.counts)
            break
    return decode_with_steps(generation.tokenizer, generation.policy_ids, ends)


def policy_token_texts(generation: Generation, estimator: sc.Estimator) -> list[list[str]] | None:
    """The texts of the policy's tokens, where the estimator's chunks are cut by text."""
    if not estimator.reads.text:
        return None
    return trained_texts(generation.responses, generation.policy_tokens.tolist())


def truncated_rows(ids: Sequence[Sequence[int]], ending: Sequence[int]) -> list[bool]:
    """Which completions were cut off: those whose last token is none that ends a completion.

    Args:
        ids: token ids of each completion.
        ending: the ids that end one.

    Example:
        >>> truncated_rows([[5, 0], [5, 6]], ending=[0])
        [False, True]
    """
    return [row[-1] not in ending for row in ids]
