"""The metrics of a batch: pure functions of an estimator, rollouts and advantages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from stepcredit._moved import renamed
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.metrics.advantage_statistics import (
    advantage_shares,
    beyond_share,
    gated_rows,
    length_correlation,
    path_density,
    read_at_steps,
    zero_group_share,
)
from stepcredit.credit.metrics.credit_payment import (
    length_correlations,
    pay_of_responses,
    pay_of_steps,
)
from stepcredit.credit.metrics.leave_one_out import (
    EVERY_PROCESS,
    LeaveOneOut,
    Silence,
    silence_of,
    without_process,
)
from stepcredit.credit.metrics.signal_statistics import (
    agreements,
    means_where,
    raw_statistics,
    right_and_wrong,
    step_boundaries,
    stream_variances,
)
from stepcredit.credit.metrics.step_kinds import FILLER, REPEATED, StepKinds
from stepcredit.credit.metrics.text_statistics import (
    Step,
    check_one_per_rollout,
    check_steps,
    cut_steps,
    fraction,
    gap_of_steps,
    is_contentless,
    reflection_words,
)
from stepcredit.credit.metrics.token_sums import TokenSums
from stepcredit.credit.stages.fusion import SCALARS
from stepcredit.credit.stages.state_groups import StateGroups
from stepcredit.data.advantages import Advantages
from stepcredit.data.inputs import flags_of
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.trajectories import flat
from stepcredit.settings.fields import checked_number

Known = dict[str, float | None]
Truncated = Sequence[bool] | Bool[Tensor, " rollout"]


def training_metrics(
    rollouts: Rollouts,
    estimator: Estimator,
    *,
    advantages: Advantages | None = None,
    steps: Sequence[Sequence[Step]] | None = None,
    contentless: Callable[[Step], bool] = is_contentless,
    texts: Sequence[str] | None = None,
    truncated: Truncated | None = None,
    right_above: float = 0.0,
    cut: Mapping[str, Sequence[bool]] | None = None,
) -> dict[str, float]:
    """All metrics that a trainer logs of a batch; a metric that is unknown is left out, never NaN.

    `METRICS` (of `credit.metrics.metric_table`) says of each what it means, and what to do when it
    drifts.

    The metrics do not depend on the order or the layout of the rollouts; for one process's part of
    a batch they describe that part. The parts of a trajectory are joined first: a response is a
    whole trajectory, truncated where one of its parts is.

    Args:
        rollouts: whole groups.
        estimator: gives the advantages; it runs once more for each stream the rollouts hold.
        advantages: its advantages, if they are already computed.
        steps: the steps of each response, as texts or token ids, one for each step of the rollouts;
            None: texts cut from the rollouts' `tokens`, if they hold them.
        contentless: rule for a contentless step; the default: no letter or digit.
        texts: the responses; None: the rollouts' `tokens` joined, if they hold them.
        truncated: which responses were cut off at the length limit.
        right_above: a response is right where its outcome is above this.
        cut: by stream, which responses were scored only up to a place before their end, because
            they were too long for the model.

    Returns:
        {name: value}, in the order above; engines log them under `stepcredit/`.

    Raises:
        RolloutError: steps, texts or truncated have another number of rows than the rollouts.
        MethodError: a signal that the estimator needs is missing.
        SettingError: `right_above` is no finite number.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[3, 1], outcome=[1.0, 0.0])
        >>> found = training_metrics(r, sc.GRPO(), truncated=[False, True])
        >>> found["share/outcome"], found["length_right"], found["truncated_share"]
        (1.0, 3.0, 0.5)

    Source: the last eight rows follow the panel of PURE (2504.15275).
    """
    checked_number(right_above, "right_above")
    if rollouts.device.type == "mps":  # it has no float64
        rollouts, advantages = rollouts.to("cpu"), advantages and advantages.to("cpu")
    if rollouts.trajectories is not None:
        joined = _joined(rollouts, steps=steps, texts=texts, truncated=truncated, cut=cut)
        rules: Any = {"contentless": contentless, "right_above": right_above}
        return training_metrics(rollouts.joined(), estimator, **joined, **rules)
    clip = estimator.clip
    plain = estimator if clip is None else replace(estimator, clip=None)
    whole = plain(rollouts) if clip is not None or advantages is None else advantages
    final = whole if clip is None else replace(whole, values=whole.values.clamp(-clip, clip))
    silence = silence_of(rollouts)
    if len(rollouts.streams) > 1:
        silence[EVERY_PROCESS] = _without_any_process(rollouts)
    without = LeaveOneOut.of(plain, rollouts, whole, silence)
    found = _of_streams(rollouts, whole, without, right_above)
    found |= _of_scored(rollouts, cut or {})
    found |= _of_credit(estimator, rollouts, whole, without.chunks)
    if rollouts.step_states is not None:
        found["single_state_share"] = StateGroups.of(rollouts).alone_share
    if truncated is not None:
        found["truncated_share"] = _share_of_flags(truncated, rollouts, "truncated")
    found |= _of_right(rollouts, right_above)
    found |= _of_lengths(rollouts, right_above)
    found |= _of_steps(rollouts, final, steps, contentless)
    texts = _texts(rollouts, texts)
    found |= _of_pay(rollouts, final, texts, truncated, right_above)
    found["reflection_words"] = None if texts is None else reflection_words(texts)
    return {name: value for name, value in found.items() if value is not None}


def _joined(
    rollouts: Rollouts,
    *,
    steps: Sequence[Sequence[Step]] | None,
    texts: Sequence[str] | None,
    truncated: Truncated | None,
    cut: Mapping[str, Sequence[bool]] | None,
) -> dict[str, Any]:
    """The arguments of `training_metrics` with one item per rollout, one item per trajectory."""

    def join(items: Sequence[Any] | Tensor | None, field: str, whole: Callable[[Any], Any]) -> Any:
        if items is None or rollouts.trajectories is None:
            return items
        check_one_per_rollout(items, rollouts.num_rollouts, field)
        listed = items.tolist() if isinstance(items, Tensor) else items
        return rollouts.trajectories.join_lists(listed, whole)

    return {
        "steps": join(steps, "steps", flat),
        "texts": join(texts, "texts", "\n".join),
        "truncated": join(truncated, "truncated", any),
        "cut": {name: join(flags, f"cut.{name}", any) for name, flags in (cut or {}).items()},
    }


def stream_std(estimator: Estimator, rollouts: Rollouts) -> dict[str, float]:
    """Standard deviation, over tokens, of the advantages and of each stream's part of them.

        std(A),  std(A - A with the stream's values set to 0)

    Before clipping. A stream whose values are all equal has 0 under every estimator.

    Args:
        estimator: gives the advantages.
        rollouts: a batch.

    Returns:
        {"advantage", "process", "outcome", "format"}: population std; "process" is all process
        streams together; an absent stream has 0.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
        >>> {name: round(std, 3) for name, std in stream_std(sc.GRPO(), r).items()}
        {'advantage': 0.707, 'process': 0.0, 'outcome': 0.707, 'format': 0.0}
    """
    plain, rollouts = replace(estimator, clip=None), rollouts.joined()
    silence = {name: each for name, each in silence_of(rollouts).items() if name in SCALARS}
    if rollouts.streams:
        silence[EVERY_PROCESS] = _without_any_process(rollouts)
    whole = plain(rollouts)
    return _stds(whole, LeaveOneOut.of(plain, rollouts, whole, silence).changes)


def clipped_share(estimator: Estimator, rollouts: Rollouts) -> float:
    """Share of trained tokens whose advantage `clip` cuts; 0 without a clip.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[3, 1], outcome=[2.0, 0.0])
        >>> clipped_share(sc.DrGRPO(clip=0.5), r)
        1.0
    """
    if estimator.clip is None:
        return 0.0
    return beyond_share(replace(estimator, clip=None)(rollouts), estimator.clip)


def _of_streams(
    rollouts: Rollouts, whole: Advantages, without: LeaveOneOut, right_above: float
) -> Known:
    """Share, variance and agreement of each stream, and the stds."""
    each = {name: change for name, change in without.changes.items() if name != EVERY_PROCESS}
    raw = raw_statistics(rollouts)
    by_stream = {
        "share": advantage_shares(each),
        "raw_mean": {name: mean for name, (mean, _) in raw.items()},
        "raw_std": {name: std for name, (_, std) in raw.items()},
        "variance": stream_variances(rollouts),
        "agreement": agreements(rollouts, right_above),
    }
    found: Known = {f"{kind}/{n}": v for kind, by in by_stream.items() for n, v in by.items()}
    parts = dict(without.changes)
    if len(rollouts.streams) == 1:
        parts[EVERY_PROCESS] = parts[next(iter(rollouts.streams))]
    return found | {f"{name}_std": std for name, std in _stds(whole, parts).items()}


def _of_scored(rollouts: Rollouts, cut: Mapping[str, Sequence[bool]]) -> Known:
    """Shares of responses that a process stream scored not at all, or in part."""
    found: Known = {
        f"unscored_share/{name}": float((stream.counts == 0).to(torch.float64).mean())
        for name, stream in rollouts.streams.items()
    }
    for name, rows in cut.items():
        found[f"cut_share/{name}"] = _share_of_flags(rows, rollouts, f"cut.{name}")
    return found


def _of_right(rollouts: Rollouts, right_above: float) -> Known:
    """The share of right responses, and what "right" means; nothing where no outcome is known."""
    known = rollouts.has_outcome
    right, _ = right_and_wrong(rollouts, right_above)
    (share,) = means_where(right, known[None])
    return {"right_share": share, "right_above": None if share is None else float(right_above)}


def _of_credit(
    estimator: Estimator, rollouts: Rollouts, whole: Advantages, chunks: Tensor
) -> Known:
    """From `chunks_per_response` to `clipped_share`; `whole` is before clipping."""
    clip = estimator.clip
    return {
        "chunks_per_response": float(chunks.to(torch.float64).mean()),
        "tokens_per_chunk": float(rollouts.lengths.sum()) / float(chunks.sum()),
        "path_density": path_density(whole),
        "advantage_length_correlation": length_correlation(whole, rollouts),
        "zero_advantage_group_share": zero_group_share(whole, rollouts),
        "format_gated_share": float(gated_rows(estimator, rollouts).to(torch.float64).mean()),
        "clipped_share": 0.0 if clip is None else beyond_share(whole, clip),
    }


def _share_of_flags(flags: Truncated, rollouts: Rollouts, field: str) -> float:
    return float(_flags(flags, rollouts, field).to(torch.float64).mean())


def _flags(flags: Truncated, rollouts: Rollouts, field: str) -> Tensor:
    check_one_per_rollout(flags, rollouts.num_rollouts, field)
    return flags_of(flags, rollouts.num_rollouts, torch.device("cpu"), field)


def _of_lengths(rollouts: Rollouts, right_above: float) -> Known:
    """Tokens and steps of all, right and wrong responses."""
    right, wrong = right_and_wrong(rollouts, right_above)
    chosen = torch.stack([torch.ones_like(right), right, wrong])
    sizes, ends = {"length": rollouts.lengths}, step_boundaries(rollouts)
    if ends is not None:
        sizes["steps"] = ends.counts
    means = {
        name: means_where(values, chosen & (values > 0))  # 0 steps: they are unknown
        for name, values in sizes.items()
    }
    return {
        name + of: mean
        for name, found in means.items()
        for of, mean in zip(("", "_right", "_wrong"), found, strict=True)
    }


def _of_steps(
    rollouts: Rollouts,
    advantages: Advantages,
    steps: Sequence[Sequence[Step]] | None,
    contentless: Callable[[Step], bool],
) -> Known:
    """Shares of repeated and contentless steps, the filler gap, and what kinds of steps get."""
    ends = step_boundaries(rollouts)
    if ends is None:
        return {}
    if steps is None:
        tokens = _every_text(rollouts)
        steps = None if tokens is None else cut_steps(tokens, ends)
    if steps is not None:
        check_steps(steps, ends, "steps")
    kinds = StepKinds.of(rollouts, steps, contentless=contentless)
    if kinds is None:
        return {}
    values = read_at_steps(advantages, ends)
    paid = pay_of_steps(values, kinds)
    if steps is None:
        return paid
    either = kinds.flags[FILLER] | kinds.flags[REPEATED]
    return {
        "repeated_step_share": fraction([kinds.flags[REPEATED].tolist()]),
        "contentless_step_share": fraction([kinds.flags[FILLER].tolist()]),
        "filler_gap": gap_of_steps(values, torch.from_numpy(either).to(values.device)),
        **paid,
    }


def _of_pay(
    rollouts: Rollouts,
    advantages: Advantages,
    texts: Sequence[str] | None,
    truncated: Truncated | None,
    right_above: float,
) -> Known:
    """What responses get, and how outcome and scores go with length."""
    cut = None if truncated is None else np.array(_flags(truncated, rollouts, "truncated").tolist())
    paid = pay_of_responses(
        advantages, rollouts, texts=texts, truncated=cut, right_above=right_above
    )
    return length_correlations(rollouts) | paid


def _texts(rollouts: Rollouts, texts: Sequence[str] | None) -> Sequence[str] | None:
    """The responses' texts as given, or of their tokens where every response has them."""
    if texts is not None:
        check_one_per_rollout(texts, rollouts.num_rollouts, "texts")
        return texts
    tokens = _every_text(rollouts)
    return None if tokens is None else ["".join(row) for row in tokens]


def _every_text(rollouts: Rollouts) -> list[list[str]] | None:
    """The tokens' texts, where every response has them."""
    tokens = rollouts.tokens
    return tokens if tokens is not None and all(tokens) else None


def _without_any_process(rollouts: Rollouts) -> Silence:
    """What sets all process streams to 0 at once."""
    return partial(without_process, names=[*rollouts.streams])


def _stds(whole: Advantages, changes: Mapping[str, TokenSums]) -> dict[str, float]:
    """Std of the advantages and of the change that each part makes; 0 for an absent part."""
    parts = {"process": changes.get(EVERY_PROCESS)} | {n: changes.get(n) for n in SCALARS}
    stds = {name: 0.0 if change is None else change.std for name, change in parts.items()}
    return {"advantage": TokenSums.of(whole.values, whole.sizes).std} | stds


__getattr__ = partial(renamed, __name__)
