"""TRL: `GRPOTrainer` with one advantage a token, from any estimator of stepcredit.

All knowledge of TRL is here and in the modules beside this one. The hooks, as read in TRL 1.16:
`_calculate_rewards` keeps what each reward function gave, `_generate_and_score_completions`
replaces the (B,) advantages by (B, T), and `_compute_loss`, TRL's own, multiplies them in token by
token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.engines.trl.checkpointing import ResumingGRPOTrainer, check_saving
from stepcredit.engines.trl.config import SPLITTER, SPLITTER_FIELDS, credit_settings
from stepcredit.engines.trl.distributed import Share, gathered
from stepcredit.engines.trl.generation_file import (
    Credited,
    check_folder,
    rewards_of,
    write_generation,
)
from stepcredit.engines.trl.model_card import card_of, reward_figures
from stepcredit.engines.trl.policy_logprobs import (
    check_models,
    needed_models,
    policy_logprobs,
    rows_of,
)
from stepcredit.engines.trl.responses import Asked, SampledBatch, prompt_ids_of
from stepcredit.engines.trl.signal_streams import (
    Given,
    check_sources,
    check_weights,
    logprobs_of,
    process_of,
)
from stepcredit.engines.trl.start_checks import (
    check_finite,
    check_hooks,
    check_loss,
    check_settings,
)
from stepcredit.engines.trl.texts import decoded, step_ends_of, token_texts, truncated_rows
from stepcredit.errors import EngineError
from stepcredit.signals.splitting import Splitter, Turns, splitter

FormatGate = float | Callable[..., Sequence[bool]] | None


@dataclass(frozen=True)
class CreditedBatch:
    """A generation batch with its credit: kept by the trainer for logs, callbacks and tests.

    With several processes, `rollouts` are those of all, so that groups are whole; the rest is this
    process's own: its row i is rollout `first + i`.

    Args:
        sampled: what was generated.
        rollouts: the same as the core's input.
        advantages: (rollout, token), 0 off the trained mask.
        mask: (rollout, token), True = trained.
        first: which of the rollouts row 0 is; 0 in a single process.
    """

    sampled: SampledBatch
    rollouts: sc.Rollouts
    advantages: Tensor
    mask: Tensor
    first: int = 0


class StepCreditGRPOTrainer(ResumingGRPOTrainer):
    """TRL's GRPOTrainer whose advantages are an estimator's, one a token.

    With `args` a `StepCreditConfig`, what is not given here is as it says there.

    Args:
        method: an estimator, or the name of a method; PASS where neither place names one.
        process_signal: a `stepcredit.signals.Signal`; or a callable, called as (prompts=,
            completions=, completion_ids=, inputs=), that gives `sc.Steps` or `sc.Tokens`, a list of
            (step_ends, step_scores) pairs, or {name: any of these}; or {name: any of either}. Ends
            and token scores count all tokens of the completion, tool output included.
        outcome_reward: name of the reward function that is the outcome; without it, the sum of all
            functions but `format_reward`.
        format_reward: name of the reward function that is the format reward.
        format_gate: a response keeps the format where the format reward is > 0 (None) or >= a
            number; or a callable with `process_signal`'s arguments, giving a bool a completion.
        logprobs: for the methods made of them: {"student" | "teacher" | "base" | "prm" | "ref":
            a signal of tokens, or a callable}; or a callable that gives {the same: `sc.Tokens`}.
            The student's are the trainer's own, and base and ref its reference's, where they are
            needed and not given.
        splitter: cuts completions into the steps that a `Signal` scores; without it, paragraphs,
            each made to end where a token does, or where tools answered the model's turns.
        rollouts_dir: folder that gets the rollouts of each generation in training, with signals and
            advantages, as a file that the `stepcredit` commands read.
        estimator: the old name of `method`, read for this release with a FutureWarning.
        args, kwargs: GRPOTrainer's own.

    Raises:
        EngineError: a setting under which token credit would be lost, by name, at start.

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
        splitter: Splitter | None = None,
        rollouts_dir: str | Path | None = None,
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
            "rollouts_dir": rollouts_dir,
            "estimator": estimator,
        }
        self._set_credit(credit_settings(config, given))
        check_hooks(GRPOTrainer)
        if config is not None:
            check_settings(config, has_tools=bool(kwargs.get("tools")))
        super().__init__(*args, **kwargs)
        check_settings(self.args, has_tools=bool(self.tools))
        check_saving(self.args)
        check_folder(self.rollouts_dir)
        for setting in ("outcome_reward", "format_reward"):
            name = getattr(self, setting)
            if name is not None and name not in self.reward_func_names:
                names = ", ".join(self.reward_func_names)
                raise EngineError(f"no reward function {name!r}, there are: {names}", field=setting)
        if isinstance(self.format_gate, int | float) and self.format_reward is None:
            reason = f"{self.format_gate:g} is a threshold of the format reward: name format_reward"
            raise EngineError(reason, field="format_gate")
        check_models(self, self._models)
        check_loss(self)

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
        self.rollouts_dir: str | Path | None = chosen["rollouts_dir"]
        self._generation = (-1, 0)
        self._name, self._paper = card_of(self.estimator)
        self._models = needed_models(self.estimator, self.process_signal, self.logprobs)
        self.credited: CreditedBatch | None = None
        self._sampled: SampledBatch | None = None

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        self._sampled = SampledBatch(
            inputs, prompts, completions, completion_ids_list, rewards, prompt_ids=[]
        )
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        sampled, self._sampled = self._sampled, None
        if sampled is None:
            raise EngineError("TRL did not call it", field="_calculate_rewards")
        check_settings(self.args, has_tools="tool_mask" in output)
        sampled = replace(sampled, prompt_ids=prompt_ids_of(output))
        trained = trained_mask(output)
        present = present_mask(output, sampled.completion_ids)
        count = len(sampled.completion_ids)
        first = self.accelerator.process_index * count
        asked = self._asked(sampled, output, present, first)
        share = gathered(self._share(asked, present, trained))
        rollouts = self._rollouts(share, sampled.rewards)
        whole = self.estimator(rollouts)
        rows = whole.ragged()
        check_finite(rows, self.estimator.name)
        own = torch.zeros(present.shape).masked_scatter_(present, torch.cat(rows[first:][:count]))
        advantages = own.to(trained.device).masked_fill(~trained, 0.0)
        output["advantages"] = advantages
        self.credited = CreditedBatch(sampled, rollouts, advantages, trained, first)
        figures = training_metrics(
            rollouts,
            self.estimator,
            advantages=whole,
            steps=share.steps,
            texts=share.texts,
            truncated=share.truncated,
        )
        self._log_credit(share, rollouts, rows, figures)
        if self.rollouts_dir is not None and self._mode() == "train":
            self._write_rollouts(asked, present)
        return output

    def _write_rollouts(self, asked: Asked, present: Tensor) -> None:
        """The generation's file, named by the step, and from its second one on by a number."""
        batch: Any = self.credited
        step, before = self.state.global_step, self._generation
        self._generation = (step, before[1] + 1 if step == before[0] else 0)
        label = f"{step:06d}" + (f"-{self._generation[1]}" if self._generation[1] else "")
        own = slice(batch.first, batch.first + len(present))
        credited = Credited(
            asked,
            present,
            batch.advantages,
            batch.rollouts,
            batch.first,
            rewards=rewards_of(self.reward_func_names, batch.sampled.rewards[own]),
            truncated=self._truncated(asked),
        )
        write_generation(self.rollouts_dir, label, credited)  # type: ignore[arg-type]

    def _truncated(self, asked: Asked) -> list[bool]:
        ending = [*self.eos_token_ids, self._tokenizer.pad_token_id]
        return truncated_rows(asked.sampled.completion_ids, ending)

    def _asked(
        self, sampled: SampledBatch, output: Mapping[str, Any], present: Tensor, first: int
    ) -> Asked:
        """This process's part of the batch, whose row 0 is rollout `first` of all, for signals."""
        lengths = [len(ids) for ids in sampled.completion_ids]
        outcomes = self._outcome(sampled.rewards)
        logprobs = policy_logprobs(self, output, torch.tensor(lengths), self._models)
        tools = "tool_mask" in output
        unnamed = Turns(inside="extend") if tools else splitter(SPLITTER, **SPLITTER_FIELDS)
        return Asked(
            sampled,
            self._tokenizer,
            self.splitter or unnamed,
            groups=self._groups(first + len(lengths))[first:],
            outcomes=None if outcomes is None else outcomes[first:][: len(lengths)],
            own=present if tools else None,
            logprobs=rows_of(logprobs, lengths),
        )

    def _share(self, asked: Asked, present: Tensor, trained: Tensor) -> Share:
        """What this process knows of its rollouts."""
        gate = self.format_gate
        kept = gate(**asked.sampled.as_arguments()) if callable(gate) else None
        process = process_of(self.process_signal, asked, present)
        ends = step_ends_of(asked, self.estimator, present)
        texts, steps = decoded(asked, present, process, ends)
        return Share(
            lengths=present.sum(1).tolist(),
            trained=trained.any(1).tolist(),
            process=process,
            logprobs=logprobs_of(self.logprobs, asked, present, self.estimator),
            format_ok=None if kept is None else [bool(ok) for ok in kept],
            step_ends=ends,
            tokens=token_texts(asked, self.estimator, present),
            truncated=self._truncated(asked),
            texts=texts,
            steps=steps,
        )

    def _rollouts(self, share: Share, rewards: Tensor) -> sc.Rollouts:
        """The batch of all processes as `sc.Rollouts`."""
        format_ = self._format(rewards)
        kept = self._format_ok(format_) if share.format_ok is None else share.format_ok
        logprobs: Any = share.logprobs
        return sc.Rollouts(
            group=self._groups(len(share.lengths)),
            lengths=share.lengths,
            process=share.process,
            logprobs=logprobs,
            outcome=self._outcome(rewards),
            format=format_,
            format_ok=kept,
            step_ends=share.step_ends,
            tokens=share.tokens,
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
        if self.outcome_reward is not None:
            return _known(rewards[:, names.index(self.outcome_reward)])
        columns = [i for i, name in enumerate(names) if name != self.format_reward]
        if not columns:
            return None
        chosen = rewards[:, columns]
        return _known(chosen.nansum(1).masked_fill(chosen.isnan().all(1), torch.nan))

    def _format(self, rewards: Tensor) -> list[float | None] | None:
        if self.format_reward is None:
            return None
        return _known(rewards[:, self.reward_func_names.index(self.format_reward)])

    def _format_ok(self, format_: list[float | None] | None) -> list[bool] | None:
        gate: Any = self.format_gate
        if format_ is None:
            return None
        if gate is None:
            return [value is None or value > 0 for value in format_]
        return [value is None or value >= gate for value in format_]

    def _log_credit(
        self,
        share: Share,
        rollouts: sc.Rollouts,
        rows: Sequence[Tensor],
        figures: dict[str, float],
    ) -> None:
        """The metrics; and in place of TRL's, its reward figures and its table's advantages."""
        metrics = self._metrics[self._mode()]
        for name, value in figures.items():
            metrics[f"stepcredit/{name}"].append(value)
        for name, value in reward_figures(rollouts).items():
            metrics[name][-1:] = [value]
        pairs = zip(rows, share.trained, strict=True)
        means = [float(row.mean()) if trained else 0.0 for row, trained in pairs]
        logged: Any = self._logs["advantages"]
        for _ in range(min(len(means), len(logged))):
            logged.pop()
        logged.extend(means)


def trained_mask(output: Mapping[str, Tensor]) -> Tensor:
    """True where TRL's loss trains: completion_mask x tool_mask."""
    mask = output["completion_mask"].bool()
    return mask & output["tool_mask"].bool() if "tool_mask" in output else mask


def present_mask(output: Mapping[str, Tensor], completion_ids: list[list[int]]) -> Tensor:
    """True on the model's own tokens, those of a masked truncated completion included.

    `mask_truncated_completions` zeroes `completion_mask`, yet such a response stays a member of its
    group: lengths come from the sampled ids.
    """
    width = output["completion_ids"].shape[1]
    lengths = torch.tensor([len(ids) for ids in completion_ids])
    present = torch.arange(width) < lengths[:, None]
    return present & output["tool_mask"].bool().cpu() if "tool_mask" in output else present


def _known(column: Tensor) -> list[float | None]:
    return [None if value != value else value for value in column.double().tolist()]
