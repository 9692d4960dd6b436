"""TRL's `GRPOTrainer` with one advantage per token, computed by any estimator of stepcredit.

All knowledge of TRL is in this folder. The hooks, as read in TRL 1.16, are three methods:
`_calculate_rewards`, where we keep what each reward function gave;
`_generate_and_score_completions`, whose advantages of shape (B,) we replace by ones of shape
(B, T); and TRL's own `_compute_loss`, which multiplies each token's loss by its advantage.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepcredit.errors import MissingExtra

try:
    from trl.trainer.grpo_trainer import GRPOTrainer
except ImportError as error:  # pragma: no cover - needs an environment without the extra
    raise MissingExtra("needs the extra: pip install 'stepcredit[train]'", field="trl") from error

import stepcredit as sc
from stepcredit.credit.metrics.batch_warnings import CreditWarning, credit_warnings
from stepcredit.credit.metrics.metric_table import PREFIX
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.data.states import FIELD as STATES
from stepcredit.data.trajectories import FIELD as TRAJECTORY
from stepcredit.engines.build import SPLITTER, SPLITTER_FIELDS, check_states, keeps_format
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.prompt_pass_at_k import prompt_pass_at_k
from stepcredit.engines.run_record import Record
from stepcredit.engines.scoring_costs import Prices, ScoringMeter, cost_metrics, server_warnings
from stepcredit.engines.trl.checkpointing import CreditReport, ResumingGRPOTrainer, check_saving
from stepcredit.engines.trl.distributed import RankData, all_gather
from stepcredit.engines.trl.generation import Generation
from stepcredit.engines.trl.generation_clock import GenerationClock
from stepcredit.engines.trl.generation_file import (
    check_folder,
    check_no_rollouts,
    write_generation,
)
from stepcredit.engines.trl.keywords import credit_settings
from stepcredit.engines.trl.model_card import card_of, reward_figures
from stepcredit.engines.trl.planned_run import planned_record, planned_run
from stepcredit.engines.trl.policy_logprobs import (
    as_lists,
    check_models,
    needed_models,
    policy_logprobs,
)
from stepcredit.engines.trl.privileged_logprobs import (
    teacher_stream,
    trained_teacher,
    with_privileged_logprobs,
)
from stepcredit.engines.trl.reward_function import check_gold_answers
from stepcredit.engines.trl.reward_values import (
    equal_names,
    format_values,
    outcome_values,
    summed_outcome,
)
from stepcredit.engines.trl.signal_streams import (
    Given,
    check_given_streams,
    check_sources,
    check_weights,
    completion_states,
    logprob_streams,
    policy_token_texts,
    response_and_step_texts,
    step_ends_of,
    streams_and_cut_rows,
    trained_states,
    truncated_rows,
    unread_settings,
)
from stepcredit.engines.trl.start_checks import (
    check_advantages,
    check_format_gate,
    check_hooks,
    check_loss,
    check_reward_name,
    check_settings,
)
from stepcredit.engines.trl.start_preflight import preflight_of_trainer
from stepcredit.engines.trl.watch_callback import WatchCallback, check_watch
from stepcredit.engines.watch import Bound
from stepcredit.errors import EngineError
from stepcredit.signals.splitting import Splitter, Turns, splitter
from stepcredit.signals.state_keys import StateFunction

FormatGate = float | Callable[..., Sequence[bool]] | None


class StepCreditGRPOTrainer(ResumingGRPOTrainer):
    """TRL's GRPOTrainer with one advantage per token, computed by an estimator.

    If `args` is a `StepCreditConfig`, arguments left out here are taken from it.

    Args:
        method: an estimator, or the name of a method; PASS where neither place names one. A name
            has the config's `fields` if the config names the same method; so have the names of
            signals and splitters.
        process_signal: a `stepcredit.signals.Signal`, or its name; or a callable, called with the
            keywords prompts, completions, completion_ids and inputs, that returns `sc.Steps`,
            `sc.Tokens`, a list of (step_ends, step_scores) pairs, or {name: any of these}; or
            {name: a signal, its name, or a callable}. Ends and token scores count all tokens of the
            completion, those of tools included.
        outcome_reward: name of the reward function that is the outcome; without it, the outcome is
            the sum of all functions but `format_reward`.
        format_reward: name of the reward function that is the format reward.
        format_gate: a response keeps its format where the format reward is > 0 (None) or >= a
            number; or a callable with the keywords of `process_signal` that returns one bool per
            completion.
        logprobs: for the methods made of log-probs: {"student" | "teacher" | "base" | "prm" |
            "ref": a signal of tokens, or a callable}; or a callable that returns {the same:
            `sc.Tokens`}. Where they are needed and not given, the student's log-probs come from the
            policy, and those of base and ref from the trainer's reference model.
        splitter: cuts completions into the steps that a `Signal` scores; an object, or its name.
            Without it a step is a paragraph, extended to the end of its last token, or with tools
            a turn of the policy.
        states: the state that each step was taken in, which `gigpo` reads: "tool-calls", or a
            function of a `Response` that returns a key per step, or several from the finest on.
            Without it, the field `step_states` that a `rollout_func` returns. The facts of a
            response hold the dataset row, and what else a `rollout_func` returns.
        rollouts_dir: folder that gets one file per generation in training, with the rollouts, their
            signals and advantages, which the `stepcredit` commands read.
        right_above: the metrics call a response right where its outcome is above this; 0 if it is
            not given.
        preflight: whether `train` first tries rewards and signals on made-up responses; True if it
            is not given.
        judge_prices: {stream: {"read": price, "written": price}}, per million tokens of its judge:
            what the judges cost is logged.
        watch: bounds on logged metrics, {metric: {"min": ..., "max": ..., "for": values in a row,
            "then": "warn" or "stop"}}: the run warns, or stops with a checkpoint, where a metric
            is outside.
        estimator: the old name of `method`, read until 0.2.0 with a FutureWarning.
        args, kwargs: GRPOTrainer's own.

    Raises:
        EngineError: a setting under which token credit would be lost; it names the setting, before
            training starts.

    Example:
        trainer = StepCreditGRPOTrainer(
            model=model, reward_funcs=[accuracy], args=config, train_dataset=data,
            method=sc.PASS(k=0.7), process_signal=prm,
        )

    Source: trl 1.16.0, trl/trainer/grpo_trainer.py. Differs: the advantages, what is logged of
        them, and when a checkpoint is written (`ResumingGRPOTrainer`).
    """

    _tag_names = ["trl", "grpo", "stepcredit"]  # noqa: RUF012 - TRL's own convention
    _name = "stepcredit"

    def __init__(
        self,
        *args: Any,
        method: sc.Estimator | str | None = None,
        process_signal: Given = None,
        outcome_reward: str | None = None,
        format_reward: str | None = None,
        format_gate: FormatGate = None,
        logprobs: Given = None,
        splitter: Splitter | str | None = None,
        states: StateFunction | str | None = None,
        rollouts_dir: str | Path | None = None,
        right_above: float | None = None,
        preflight: bool | None = None,
        judge_prices: Prices | None = None,
        watch: Mapping[str, Any] | None = None,
        estimator: sc.Estimator | str | None = None,
        **kwargs: Any,
    ) -> None:
        config = kwargs.get("args", args[2] if len(args) > 2 else None)
        given = {
            "method": method,
            "process_signal": process_signal,
            "outcome_reward": outcome_reward,
            "format_reward": format_reward,
            "format_gate": format_gate,
            "logprobs": logprobs,
            "splitter": splitter,
            "states": states,
            "rollouts_dir": rollouts_dir,
            "right_above": right_above,
            "preflight": preflight,
            "judge_prices": judge_prices,
            "watch": watch,
            "estimator": estimator,
        }
        self._set_credit(credit_settings(config, given))
        check_hooks(GRPOTrainer)
        if config is not None:
            check_settings(config, has_tools=bool(kwargs.get("tools")))
        super().__init__(*args, **kwargs)
        check_settings(self.args, has_tools=bool(self.tools))
        check_saving(self.args, stops=any(bound.stops for bound in self.watch))
        check_folder(self.rollouts_dir)
        for setting in ("outcome_reward", "format_reward"):
            check_reward_name(setting, getattr(self, setting), self.reward_func_names)
        check_format_gate(self.format_gate, self.format_reward)
        logged_for = (self.reward_func_names, self.logprobs, self.judge_prices)
        check_watch(self.watch, self.process_signal, *logged_for)
        check_gold_answers(self.reward_funcs, self.train_dataset)
        check_states(self.estimator, "method", given=self.states or self.rollout_func)
        check_models(self, self._models)
        check_loss(self)
        self._warned: set[str] = set()
        unread = unread_settings(
            self.estimator, self.process_signal, self.logprobs, self.format_reward
        )
        roles = (self.outcome_reward, self.format_reward, self.right_above)
        names = self.reward_func_names
        for line in (*unread, *summed_outcome(names, *roles), *equal_names(names)):
            self._warn({line: line})
        self.add_callback(CreditReport(self))
        if self.watch:
            self.add_callback(WatchCallback(self, self.watch))

    def _set_credit(self, chosen: dict[str, Any]) -> None:
        check_sources(chosen["process_signal"], chosen["logprobs"])
        check_weights(chosen["method"], chosen["process_signal"])
        self.estimator: sc.Estimator = chosen["method"]
        self.process_signal: Given = chosen["process_signal"]
        self.logprobs: Given = chosen["logprobs"]
        self.outcome_reward: str | None = chosen["outcome_reward"]
        self.format_reward: str | None = chosen["format_reward"]
        self.format_gate: FormatGate = chosen["format_gate"]
        self.splitter: Splitter | None = chosen["splitter"]
        self.states: StateFunction | None = chosen["states"]
        self.rollouts_dir: str | Path | None = chosen["rollouts_dir"]
        self.right_above: float = chosen["right_above"]
        self.preflight: bool = chosen["preflight"]
        self.judge_prices: Prices = chosen["judge_prices"]
        self.watch: tuple[Bound, ...] = chosen["watch"]
        self._clock = GenerationClock()
        self._last_generation = (-1, 0)
        self._name, self._paper = card_of(self.estimator)
        self._models = needed_models(self.estimator, self.process_signal, self.logprobs)
        self._teacher = trained_teacher(self.process_signal)
        self.credited: Generation | None = None
        self._sampled: Generation | None = None

    @property
    def credit_record(self) -> Record:
        """What credit is made of, as it is printed at the start and kept with checkpoints."""
        return planned_record(planned_run(self), self.right_above)

    def check(self) -> Preflight:
        """Run the preflight alone: nothing is sampled or trained.

        Returns:
            The results: `print(*trainer.check().lines(), sep="\\n")` shows them as a table, and
            `faults` has a line per fault. Nothing is raised.
        """
        return preflight_of_trainer(self)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, after the preflight: rewards, signals, folders and lengths are tried first.

        Raises:
            Exception: of the one fault that the preflight finds.
            SeveralErrors: of all faults, one line each.
        """
        if self.preflight:
            found = self.check()
            found.stop()
            if self.accelerator.is_main_process:
                print(found.summary, flush=True)
        return super().train(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's step; after the last one on a generation, the share of scoring in its time."""
        with self._clock.running():
            loss = super().training_step(*args, **kwargs)
        if self.is_between_generations:
            for name, value in self._clock.ended().items():
                self._metrics["train"][f"{PREFIX}{name}"].append(value)
        return loss

    def _check_other_runs(self) -> None:
        super()._check_other_runs()
        if self.accelerator.is_main_process:
            check_no_rollouts(self.rollouts_dir)

    def _warn(self, lines: Mapping[str, str]) -> None:
        """Warn once per kind, on the first process."""
        for kind, line in lines.items():
            if kind not in self._warned and self.accelerator.is_main_process:
                warnings.warn(line, CreditWarning, stacklevel=2)
            self._warned.add(kind)

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        self._sampled = Generation(inputs, prompts, completions, completion_ids_list, rewards)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        sampled, self._sampled = self._sampled, None
        if sampled is None:
            raise EngineError("TRL did not call it", field="_calculate_rewards")
        check_settings(self.args, has_tools="tool_mask" in output)
        first = self.accelerator.process_index * len(sampled.completion_ids)
        meter = ScoringMeter()
        generation = self._with_facts(sampled.with_output(output, first), output, meter)
        data = all_gather(self._rank_data(generation, meter))
        rollouts = self._rollouts(data, generation.rewards)
        advantages = self.estimator(rollouts)
        check_advantages(advantages, self.estimator.name)
        generation = generation.with_credit(rollouts, advantages)
        output["advantages"] = generation.advantages
        self.credited = generation
        self._log_credit(data, rollouts, advantages)
        if self.rollouts_dir is not None and self._mode() == "train":
            write_generation(
                self.rollouts_dir,
                self._generation_label(),
                generation,
                names=self.reward_func_names,
                truncated=data.truncated[first:][: len(generation.completion_ids)],
            )
        return output

    def _generation_label(self) -> str:
        """The training step; from the second generation of a step on, with a number."""
        step, before = self.state.global_step, self._last_generation
        self._last_generation = (step, before[1] + 1 if step == before[0] else 0)
        number = self._last_generation[1]
        return f"{step:06d}" + (f"-{number}" if number else "")

    def _with_facts(
        self, generation: Generation, output: Mapping[str, Any], meter: ScoringMeter
    ) -> Generation:
        """The generation with what signals read of it: splitter, groups, outcomes, log-probs."""
        lengths = generation.lengths
        own = slice(generation.first, generation.first + len(lengths))
        outcomes = self._outcome(generation.rewards)
        logprobs = policy_logprobs(self, output, torch.tensor(lengths), self._models)
        if generation.has_tools:
            default: Splitter = Turns(inside="extend")
        else:
            default = splitter(SPLITTER, **SPLITTER_FIELDS)
        known = replace(
            generation,
            tokenizer=self._tokenizer,
            splitter=self.splitter or default,
            groups=self._groups(own.stop)[own],
            outcomes=None if outcomes is None else outcomes[own],
            logprobs=as_lists(logprobs, lengths),
            trajectory=self._from_rollout_func(TRAJECTORY, generation.inputs),
        )
        known = replace(known, states=self._states(known))
        if self._teacher is None:
            return known
        with meter.of(teacher_stream(self._teacher, self.process_signal), self._teacher):
            return with_privileged_logprobs(self, self._teacher, known, output)

    def _from_rollout_func(self, name: str, inputs: list[dict[str, Any]]) -> list[Any] | None:
        """A field of the `rollout_func`; a column of the data set is another thing."""
        columns = getattr(self.train_dataset, "column_names", None) or ()
        given = any(name in row for row in inputs)
        if self.rollout_func is None or not given or name in columns:
            return None
        return [row.get(name) for row in inputs]

    def _states(self, generation: Generation) -> list[list[Any]] | None:
        """The state of each step of each completion, where the method compares states."""
        if not self.estimator.reads.states:
            return None
        if self.states is not None:
            return completion_states(generation, self.states)
        given = self._from_rollout_func(STATES, generation.inputs)
        if given is None:
            raise EngineError("missing: the rollout_func gives no such field", field=STATES)
        return completion_states(generation, given)

    def _rank_data(self, generation: Generation, meter: ScoringMeter) -> RankData:
        """What this process knows of its rollouts and the estimator or the metrics read."""
        gate = self.format_gate
        kept = gate(**generation.arguments()) if callable(gate) else None
        process, cut = streams_and_cut_rows(self.process_signal, generation, meter)
        check_given_streams(self.estimator, self.process_signal, process)
        ends = step_ends_of(generation, self.estimator)
        texts, steps = response_and_step_texts(generation, process, ends)
        ending = [*self.eos_token_ids, self._tokenizer.pad_token_id]
        return RankData(
            lengths=generation.policy_tokens.sum(1).tolist(),
            trained=generation.mask.any(1).tolist(),
            process=process,
            logprobs=logprob_streams(self.logprobs, generation, self.estimator, meter),
            format_ok=None if kept is None else [bool(ok) for ok in kept],
            step_ends=ends,
            tokens=policy_token_texts(generation, self.estimator),
            truncated=truncated_rows(generation.completion_ids, ending),
            texts=texts,
            steps=steps,
            cut=cut,
            trajectory=generation.trajectory,
            states=trained_states(generation),
            costs=meter.costs,
        )

    def _rollouts(self, data: RankData, rewards: Tensor) -> sc.Rollouts:
        """The generation of all processes as `sc.Rollouts`."""
        format_ = self._format(rewards)
        kept = self._format_ok(format_) if data.format_ok is None else data.format_ok
        logprobs: Any = data.logprobs
        return sc.Rollouts(
            group=self._groups(len(data.lengths)),
            lengths=data.lengths,
            process=data.process,
            logprobs=logprobs,
            outcome=self._outcome(rewards),
            format=format_,
            format_ok=kept,
            step_ends=data.step_ends,
            tokens=data.tokens,
            trajectory=data.trajectory,
            step_states=data.states,
        )

    def _groups(self, count: int) -> list[int]:
        """Groups by position over all processes, as TRL's sampler has them."""
        training = self._mode() == "train"
        size: Any = self.num_generations if training else self.num_generations_eval
        return [row // size for row in range(count)]

    def _mode(self) -> str:
        model: Any = self.model
        return "train" if model.training else "eval"

    def _outcome(self, rewards: Tensor) -> list[float | None] | None:
        names = self.reward_func_names
        return outcome_values(rewards, names, self.outcome_reward, self.format_reward)

    def _format(self, rewards: Tensor) -> list[float | None] | None:
        return format_values(rewards, self.reward_func_names, self.format_reward)

    def _format_ok(self, format_: list[float | None] | None) -> list[bool] | None:
        gate: Any = self.format_gate
        if format_ is None:
            return None
        return [keeps_format(value, gate) for value in format_]

    def _pass_at_k(self, rollouts: sc.Rollouts) -> dict[str, list[float]]:
        outcomes = rollouts.outcome.masked_fill(~rollouts.has_outcome, torch.nan)
        return prompt_pass_at_k(rollouts.group_index.tolist(), outcomes.tolist(), self.right_above)

    def _log_credit(self, data: RankData, rollouts: sc.Rollouts, advantages: sc.Advantages) -> None:
        """Log the metrics, and replace TRL's reward figures and the advantages of its table."""
        figures = training_metrics(
            rollouts,
            self.estimator,
            advantages=advantages,
            steps=data.steps,
            texts=data.texts,
            truncated=data.truncated,
            right_above=self.right_above,
            cut=data.cut,
        )
        figures |= cost_metrics(data.costs, self.judge_prices)
        if self._mode() == "train":
            self._clock.scored(data.costs)
        self._warn(server_warnings(data.costs))
        self._warn(credit_warnings(rollouts, figures, right_above=self.right_above))
        metrics = self._metrics[self._mode()]
        for name, value in figures.items():
            metrics[f"{PREFIX}{name}"].append(value)
        for name, value in reward_figures(rollouts).items():
            metrics[name][-1:] = [value]
        if self._mode() == "eval":
            for name, each in self._pass_at_k(rollouts.joined()).items():
                metrics[f"{PREFIX}{name}"].extend(each)
        pairs = zip(advantages.ragged(), data.trained, strict=True)
        means = [float(row.mean()) if trained else 0.0 for row, trained in pairs]
        logged: Any = self._logs["advantages"]
        for _ in range(min(len(means), len(logged))):
            logged.pop()
        logged.extend(means)
