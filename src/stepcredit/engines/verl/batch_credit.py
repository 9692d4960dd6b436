"""From a batch of verl's queue to one advantage per token, without Ray or a queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import stepcredit as sc
from stepcredit.credit.metrics.batch_warnings import credit_warnings
from stepcredit.credit.metrics.metric_table import PREFIX
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.credit.metrics.signal_statistics import step_boundaries
from stepcredit.data.masking import row_tokens_to_trained
from stepcredit.data.states import FIELD as STATES
from stepcredit.data.streams import Stream
from stepcredit.engines.build import check_stream_weights, weights_of_no_stream
from stepcredit.engines.each_stream import of_each_stream
from stepcredit.engines.scoring_costs import ScoringCost, ScoringMeter, summed_costs
from stepcredit.engines.texts import decode_with_steps
from stepcredit.engines.verl.batch import QueuedBatch, with_key
from stepcredit.engines.verl.config_keys import CONFIG_KEY, ENGINE_STREAM, VerlSettings
from stepcredit.engines.verl.extras import CUT, has_scores_of, reported_streams, scoring_costs
from stepcredit.engines.verl.metric_names import safe_name
from stepcredit.errors import EngineError, MethodError, RolloutError
from stepcredit.signals.models.ratios import models_from_rows
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Signal
from stepcredit.signals.state_keys import step_keys


@dataclass(frozen=True)
class BatchCredit:
    """The credit of one batch. Each result is computed when it is first needed.

    Args:
        batch: rows of the queue.
        settings: method, signals, splitter and rewards.
        tokenizer: the policy's, a fast one; needed by signals, chunks and metrics that read text.
        engine: verl's own advantages of each row, over all tokens. They are the stream "engine",
            which replaces the outcome. None: the method reads the outcome itself.
        figures: the metrics of the batch, once they are computed.
    """

    batch: QueuedBatch
    settings: VerlSettings
    tokenizer: Any = None
    engine: Sequence[Tensor] | None = None
    figures: dict[str, float] = field(default_factory=dict, compare=False)

    @cached_property
    def estimator(self) -> sc.Estimator:
        """The method; with verl's own advantages, the outcome's weight is the weight of those."""
        given = self.settings.estimator
        return given if self.engine is None else with_engine(given)

    @cached_property
    def rollouts(self) -> sc.Rollouts:
        """The members as rollouts; only the tokens that the policy wrote are trained.

        The outputs of a session are one trajectory, credited as one response.

        Raises:
            RolloutError: a row that breaks a rule, by its key.
            EngineError: the scores of a signal are missing.
        """
        batch, extras = self.batch, self.batch.extras
        formats = [None if row.get("format") is None else float(row["format"]) for row in extras]
        reads = self.estimator.reads
        with self._naming_keys():
            return sc.Rollouts(
                group=[str(uid) for uid in batch.member_column("uid")],
                process=self._streams(),
                outcome=batch.outcomes,
                format=formats,
                format_ok=[
                    self.settings.keeps_format(format_)
                    if row.get("format_ok") is None
                    else bool(row["format_ok"])
                    for row, format_ in zip(extras, formats, strict=True)
                ],
                logprobs=self._logprobs(),
                step_ends=self._step_ends() if reads.steps else None,
                step_states=self._states() if reads.states else None,
                tokens=[each.token_texts for each in self._responses] if reads.text else None,
                mask=batch.masks,
                trajectory=batch.sessions,
            )

    @cached_property
    def advantages(self) -> sc.Advantages:
        """One advantage per trained token of each member."""
        with self._naming_keys():
            return self.estimator(self.rollouts)

    def rows(self) -> list[Tensor]:
        """Advantages of every row of the batch over all its tokens; 0 where nothing is trained.

        Returns:
            float32, in the batch's order; rows that are no members hold zeros.
        """
        masks = self.batch.columns["response_mask"]
        members = dict(zip(self.batch.members, self.advantages.on_response(), strict=True))
        return [
            members[row] if row in members else torch.zeros(len(mask))
            for row, mask in enumerate(masks)
        ]

    def metrics(self, longest: int | None = None) -> dict[str, float]:
        """What is logged of the batch, under the prefix `stepcredit/`; the trainer adds `costs`.

        Args:
            longest: verl's limit on a response's tokens; a response of that length that does not
                end with the end-of-sequence token counts as cut off.
        """
        ends = step_boundaries(self.rollouts)
        ids = [row.tolist() for row in self.batch.member_column("responses")]
        trained_ids = [
            row_tokens_to_trained(row, mask.tolist())
            for row, mask in zip(ids, self.batch.masks, strict=True)
        ]
        texts, steps = decode_with_steps(self.tokenizer, trained_ids, ends)
        last = self.tokenizer.eos_token_id
        truncated = [len(row) >= longest and row[-1] != last for row in ids] if longest else None
        self.figures.update(
            training_metrics(
                self.rollouts,
                self.estimator,
                advantages=self.advantages,
                steps=steps,
                texts=texts,
                truncated=truncated,
                right_above=self.settings.right_above,
                cut=self._cut_rows(),
            )
        )
        return {f"{PREFIX}{safe_name(name)}": value for name, value in self.figures.items()}

    def warnings(self) -> dict[str, str]:
        """What a person should know of the batch's credit, by kind, after `metrics`."""
        found = self._absent_streams() | self._skipped_responses()
        return found | credit_warnings(
            self.rollouts, self.figures, right_above=self.settings.right_above
        )

    def _absent_streams(self) -> dict[str, str]:
        """Weights of streams that no response of the batch has, by kind."""
        line = "no response of the batch has this stream; its weight only enlarges the sum by which"
        line += " gated responses learn their format"
        return {
            f"absent/{name}": f"{CONFIG_KEY}.fields.weights.{name}: {line}"
            for name in weights_of_no_stream(self.estimator, self.rollouts.streams)
        }

    def _cut_rows(self) -> dict[str, list[bool]]:
        """Which responses each signal scored only up to a step before the last."""
        extras = [row.get(CUT) or {} for row in self.batch.extras]
        if self.batch.has_several_outputs:  # they speak of the last output alone
            extras = [{} for _ in extras]
        names = dict.fromkeys(name for row in extras for name in row)
        found = {name: [bool(row.get(name)) for row in extras] for name in names}
        for name, signal in self._signals_here.items():
            if signal.may_leave_out and signal.grain == "steps":
                counts = self._scored_here[name].counts.tolist()
                steps = [len(response.steps or ()) for response in self._responses]
                found[name] = [0 < own < all_ for own, all_ in zip(counts, steps, strict=True)]
        return found

    @cached_property
    def _scored_here(self) -> dict[str, Stream]:
        """The streams of the signals that are scored in the trainer, over all tokens."""
        signals = self._signals_here
        return of_each_stream(
            signals, lambda signal: signal(self._responses).to("cpu"), self._meter.of
        )

    @cached_property
    def _meter(self) -> ScoringMeter:
        """Measures what is scored in the trainer."""
        return ScoringMeter()

    def costs(self) -> dict[str, ScoringCost]:
        """What scoring took, in the reward loop and then in the trainer, by stream."""
        by_session = dict(zip(self.batch.sessions, self.batch.extras, strict=True))
        rewarding = scoring_costs(by_session.values())  # all outputs of a session have the same
        return summed_costs([rewarding, self._meter.costs])

    @cached_property
    def _signals_here(self) -> dict[str, Signal]:
        """The signals that are scored in the trainer.

        These are all of them if a session has several outputs: verl's reward loop scores the last
        output, and copies its scores to the others.
        """
        if self.batch.has_several_outputs:
            return dict(self.settings.signals)
        return self.settings.scored_in_trainer

    @cached_property
    def _responses(self) -> list[Response]:
        """The members as signals read them, with the log-probs that the signals need."""
        models = sorted(models_from_rows(self._signals_here))
        return self.batch.responses(self.tokenizer, self.settings.splitter, models)

    def _streams(self) -> dict[str, Stream]:
        """The process streams: `process` first, then in the order of the config, as under TRL."""
        streams = self._reported_streams()
        for name in self.settings.scored_with_rewards.keys() - self._signals_here.keys():
            self._check_scored(name)
        for name, stream in self._scored_here.items():
            if name in streams:
                reason = "the reward function returns a stream of this name too"
                raise EngineError(reason, field=f"{CONFIG_KEY}.process_signal ({name})")
            streams[name] = stream
        names = dict.fromkeys(("process", *self.settings.signals, *streams))
        streams = {name: streams[name] for name in names if name in streams}
        check_stream_weights(self.estimator, streams, f"{CONFIG_KEY}.fields.weights")
        if self.engine is not None:
            check_outcomes(self.batch)
            rows = [self.engine[row].double() for row in self.batch.members]
            streams[ENGINE_STREAM] = sc.TokenAdvantages(rows)
        return streams

    def _check_scored(self, name: str) -> None:
        """Refuse rows that the reward loop did not score: all of them, or those without a mark."""
        if name in self._agent_streams:
            return
        self.batch.check_marks(lambda extras: has_scores_of(extras, name))
        if all(self._unscored(name)):
            reason = "no response has its scores: does another reward manager run?"
            raise EngineError(reason, field=f"{CONFIG_KEY}.process_signal ({name})")

    def _unscored(self, name: str) -> list[bool]:
        """Which members the reward loop did not score for a stream."""
        return [not has_scores_of(row, name) for row in self.batch.extras]

    def _skipped_responses(self) -> dict[str, str]:
        """What a person should know of members that the reward loop did not read, by kind.

        verl's reward loop does not read a response whose agent loop gave a reward of its own.
        """
        found = {}
        for name in self.settings.scored_with_rewards.keys() - self._signals_here.keys():
            skipped = [] if name in self._agent_streams else self._unscored(name)
            if any(skipped):
                line = f"{CONFIG_KEY}.process_signal ({name}): has no scores of {sum(skipped)} of"
                line += (
                    f" {len(skipped)} responses, such as {self.batch.name_of(skipped.index(True))}:"
                )
                line += " only their outcome trains them. verl's reward loop does not read a"
                line += " response whose agent loop returns a reward_score of its own"
                found[f"skipped/{name}"] = line
        return found

    def _step_ends(self) -> list[Sequence[int] | None]:
        """Where steps end: as the agent loop says, or as the splitter cuts the response."""
        rows = zip(self.batch.agent_extras, self._responses, strict=True)
        return [fields.get("step_ends") or each.step_ends for fields, each in rows]

    def _states(self) -> list[Any]:
        """The state of each step: by the setting `states`, or as the agent loop says.

        Raises:
            RolloutError: another number of states than of steps; it names the row's key.
            EngineError: nothing gives the states.
        """
        function = self.settings.states
        if function is not None:
            return [step_keys(response, function) for response in self._responses]
        given = [fields.get(STATES) for fields in self.batch.agent_extras]
        if all(row is None for row in given):
            reason = "no agent loop put them into the extra_fields of its outputs"
            raise EngineError(f"{reason}, and {CONFIG_KEY}.states is not set", field=STATES)
        return given

    def _reported_streams(self) -> dict[str, Stream]:
        """The streams that the agent loop and the reward loop reported.

        Of a session with several outputs the reward loop's are left out: the trainer scores them.

        Raises:
            EngineError: both give a stream; or the reward function's own scores, of the last of
                several outputs alone.
        """
        own = self._agent_streams
        streams = reported_streams(self.batch.extras)
        for name in own.keys() & streams.keys():
            reason = "the agent loop and the reward function both give it"
            raise EngineError(reason, field=f"stream {name!r}")
        if not self.batch.has_several_outputs:
            return streams | own
        for name in streams:
            if name not in self.settings.signals:
                reason = "the reward function scores only the last of a session's outputs: expected"
                reason += f" a signal of {CONFIG_KEY}.process_signal"
                raise EngineError(reason, field=f"stream {name!r}")
        return own

    @cached_property
    def _agent_streams(self) -> dict[str, Stream]:
        return reported_streams(self.batch.agent_extras)

    def _logprobs(self) -> dict[str, list[Tensor]]:
        """The log-probs that the method reads; 0 on tokens that are not trained."""
        return {
            model: [
                torch.where(mask, row, 0.0)
                for row, mask in zip(self.batch.logprobs(model), self.batch.masks, strict=True)
            ]
            for model in self.estimator.reads.logprobs
        }

    @contextmanager
    def _naming_keys(self) -> Iterator[None]:
        """Errors about a row name its key."""
        try:
            yield
        except RolloutError as error:
            raise with_key(error, self.batch) from error


def check_outcomes(batch: QueuedBatch) -> None:
    """Refuse an unknown outcome where verl's own advantage replaces the outcome.

    Raises:
        EngineError: names the first response without an outcome.
    """
    if None in batch.outcomes:
        name = batch.name_of(batch.outcomes.index(None))
        reason = f"verl's own advantage counts the unknown outcome of {name} as 0; use grpo"
        raise EngineError(reason, field="algorithm.adv_estimator")


def with_engine(estimator: sc.Estimator) -> sc.Estimator:
    """The method with verl's own advantage, the stream "engine", in place of the outcome.

    The stream gets the outcome's weight, unless the method's weights name it already.

    Raises:
        EngineError: the method weighs no process streams, or weighs both the outcome and "engine".

    Example:
        >>> with_engine(sc.PASS(weights=(1.0, 0.5, 0.0))).weights
        {'process': 1.0, 'engine': 0.5, 'format': 0.0}
    """
    weights = estimator.reads.weights
    if weights is None:
        raise _no_engine(estimator, "it weighs no process streams")
    if ENGINE_STREAM in weights and weights.get("outcome"):
        reason = "counts the outcome twice: verl's own advantage holds it"
        raise EngineError(reason, field=f"{CONFIG_KEY}.fields.weights")
    if ENGINE_STREAM not in weights:
        weights = {
            ENGINE_STREAM if name == "outcome" else name: weight for name, weight in weights.items()
        }
    try:
        return estimator.with_weights(weights)
    except MethodError as error:
        raise _no_engine(estimator, error.reason) from error


def _no_engine(estimator: sc.Estimator, reason: str) -> EngineError:
    line = f"{estimator.name!r} can't take verl's own advantage ({reason}); use grpo"
    return EngineError(line, field="algorithm.adv_estimator")
