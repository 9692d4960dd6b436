"""Scores and credits the made-up responses, as the trainer will those that it samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import stepcredit as sc
from stepcredit.engines.preflight.made_up_responses import LOGPROB
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.errors import EngineError
from stepcredit.signals.responses import Response
from stepcredit.signals.served.chat_judge import ChatJudge
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.signal import Signal, distinct_signals
from stepcredit.signals.splitting import Splitter
from stepcredit.signals.state_keys import StateFunction, step_keys

ATTEMPTS = 2
"""How often a server is asked at most: one that does not answer should be told of soon."""
SAME_WEIGHTS = 0.1
"""The mean difference between scores of two servers that rounding and batching may explain."""
Source = Signal | Callable[[Sequence[Response]], Any]


@dataclass(frozen=True)
class CreditSources:
    """What credit is computed from, in a trainer's own words.

    Args:
        estimator: the method.
        splitter: cuts responses into steps.
        process: what gives the process streams, by stream.
        logprobs: what gives log-probs, by model; those of other models that the method reads are
            the trainer's own.
        states: gives the state of each step; None: nothing does, or only the run itself.
        places: the settings of the method, the process streams, the log-probs, the splitter and
            the states, for faults.
        unscored: process streams that this process can't score, and why.
    """

    estimator: sc.Estimator
    splitter: Splitter
    process: Mapping[str, Source] = field(default_factory=dict)
    logprobs: Mapping[str, Source] = field(default_factory=dict)
    states: StateFunction | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)

    def place(self, part: str, name: str | None = None) -> str:
        """The setting of a part; of one of its streams or models, where there are several."""
        setting = self.places.get(part, part)
        return setting if name in (None, "process") else f"{setting}.{name}"


def check_scoring(
    found: Preflight,
    sources: CreditSources,
    responses: Sequence[Response],
    *,
    outcomes: Sequence[float | None] | None,
    formats: Sequence[float | None] | None = None,
    format_ok: Sequence[bool] | None = None,
) -> None:
    """Score the responses by every signal, and compute their advantages if nothing failed.

    Args:
        found: gets the results.
        sources: what credit is computed from.
        responses: the made-up ones, one group, not split into steps.
        outcomes, formats, format_ok: what the rewards gave for them.
    """
    split = found.run(
        "steps of the made-up responses",
        lambda: [sources.splitter.split(response) for response in responses],
        at=sources.place("splitter"),
    )
    if split is None:
        found.skip("signals and credit", "the responses have no steps")
        return
    faults = len(found.errors)
    for name, why in sources.unscored.items():
        found.skip(f"signal {name}", why)
    process = _scores(found, sources, "process", split)
    logprobs = _scores(found, sources, "logprobs", split)
    keys = None
    if sources.estimator.reads.states and sources.states is not None:
        function = sources.states
        keys = found.run(
            "states of steps",
            lambda: [step_keys(response, function) for response in split],
            at=sources.place("states"),
        )
    if sources.estimator.reads.states and keys is None:
        found.skip("credit of the made-up responses", "the states of steps come from the run")
    elif len(found.errors) > faults:
        found.skip("credit of the made-up responses", "a signal has a fault")
    elif sources.unscored:
        found.skip("credit of the made-up responses", "not all signals are scored here")
    else:
        known = {"outcome": outcomes, "format": formats, "format_ok": format_ok}
        found.run(
            "credit of the made-up responses",
            lambda: _credit(sources.estimator, split, process, logprobs, keys, known),
            at=sources.place("method"),
        )


def _scores(
    found: Preflight, sources: CreditSources, part: str, responses: Sequence[Response]
) -> dict[str, Any]:
    """The streams of a part; of a source that fails there is none."""
    streams: dict[str, Any] = {}
    for name, source in getattr(sources, part).items():
        stream = _stream_of(
            found,
            f"{part} {name}" if part == "logprobs" else f"signal {name}",
            source,
            responses,
            sources.place(part, name),
        )
        if isinstance(stream, Mapping):  # of a callable, which names its streams
            streams.update(stream)
        elif stream is not None:
            streams[name] = stream
    return streams


def _stream_of(
    found: Preflight, what: str, source: Source, responses: Sequence[Response], at: str
) -> Any:
    """The scores of one source; None if it or one of its servers has a fault."""
    for part in _parts_of_several(source):
        name = what if part is source else f"{what}: {part.name} ({part.model})"
        streams = _of_each_server(found, name, part, responses, at)
        if streams is None:
            return None
        if part is source:
            return next(iter(streams.values()))
    return found.run(what, partial(_impatient(source), responses), at=at)


def _parts_of_several(source: Source) -> list[Served]:
    """The parts of a source, or itself, that have several servers."""
    parts = distinct_signals(source)
    return [part for part in parts if isinstance(part, Served) and len(part.urls) > 1]


def _of_each_server(
    found: Preflight, what: str, part: Served, responses: Sequence[Response], at: str
) -> dict[str, Any] | None:
    """The scores of a served part by each server's address; None if one has a fault.

    They are its own scores: what a signal makes of them may hide a difference, or enlarge it.
    """
    streams = {}
    for url in part.urls:
        each = _impatient(replace(part, url=url))
        streams[url] = found.run(f"{what} at {url}", partial(each, responses), at=at)
    if any(stream is None for stream in streams.values()):
        return None
    if not isinstance(part, ChatJudge):  # a chat model's answers are drawn
        same = f"{what}: the same from each server"
        if found.run(same, partial(_agree, part.name, streams), at=at) is None:
            return None
    return streams


def _agree(part: str, streams: Mapping[str, Any]) -> str:
    """How far the scores of a part's several servers differ, as a text.

    Raises:
        EngineError: further than the rounding of one model explains.
    """
    (first, one), *others = streams.items()
    worst = 0.0
    for server, other in others:
        gap = float((one.values - other.values).abs().mean()) if len(one.values) else 0.0
        if gap > SAME_WEIGHTS:
            reason = f"scores of {part} at {first} and {server} differ by {gap:.3g} on average"
            raise EngineError(f"{reason}: they do not serve the same weights")
        worst = max(worst, gap)
    return f"mean difference {worst:.3g}"


def _impatient(source: Source) -> Source:
    """The same signal, whose servers are asked twice at most."""
    if isinstance(source, Served):
        return replace(source, attempts=min(source.attempts, ATTEMPTS))
    return source.with_parts(_impatient) if isinstance(source, Signal) else source  # type: ignore[arg-type]


def _credit(
    estimator: sc.Estimator,
    responses: Sequence[Response],
    process: Mapping[str, Any],
    logprobs: Mapping[str, Any],
    states: list[list[Any]] | None,
    known: Mapping[str, Any],
) -> str:
    """The outcome and the mean advantage of each response, as a text.

    Raises:
        EngineError: an advantage is not a finite number.
        Exception: whatever the method raises.
    """
    lengths = [response.num_tokens for response in responses]
    made_up = {
        name: sc.Tokens([[LOGPROB] * length for length in lengths])
        for name in estimator.reads.logprobs
    }
    rollouts = sc.Rollouts(
        group=[0] * len(responses),
        lengths=lengths,
        process=dict(process) or None,
        logprobs={**made_up, **logprobs} or None,
        step_ends=[response.step_ends for response in responses],
        tokens=[response.token_texts for response in responses] if estimator.reads.text else None,
        step_states=states,
        **known,
    )
    advantages = estimator(rollouts)
    if not bool(advantages.packed().isfinite().all()):
        raise EngineError("gave an advantage that is not a finite number")
    means = [float(row.mean()) for row in advantages.ragged()]
    shown = f"mean advantages {', '.join(f'{mean:.3g}' for mean in means)}"
    outcomes = known.get("outcome")
    if outcomes is None:
        return shown
    told = ("unknown" if outcome is None else f"{outcome:g}" for outcome in outcomes)
    return f"outcomes {', '.join(told)}; {shown}"
