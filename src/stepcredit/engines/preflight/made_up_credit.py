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
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.signal import Signal
from stepcredit.signals.splitting import Splitter
from stepcredit.signals.state_keys import StateFunction, step_keys

ATTEMPTS = 2
"""How often a server is asked at most: one that does not answer should be told of soon."""
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
        stream = found.run(
            f"{part} {name}" if part == "logprobs" else f"signal {name}",
            partial(_impatient(source), responses),
            at=sources.place(part, name),
        )
        if isinstance(stream, Mapping):  # of a callable, which names its streams
            streams.update(stream)
        elif stream is not None:
            streams[name] = stream
    return streams


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
    """The mean advantage of each response, as a text.

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
    return "mean advantages " + ", ".join(f"{mean:.3g}" for mean in means)
