"""`METRICS`: all metrics that trainers log, what each means, and what to do when it drifts.

The table in `docs/metrics.md`, the panels of dashboards and the names that a watch may bound are
made of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

PREFIX = "stepcredit/"
"""What trainers put before the names."""
Engine = Literal["trl", "verl"]
BOTH: tuple[Engine, ...] = ("trl", "verl")

SIGNALS = "What the signals say"
PAY = "What the credit pays"
LENGTH = "Length and steps"
COST = "Cost and time"
HEALTH = "Health"
PANELS = (SIGNALS, PAY, LENGTH, COST, HEALTH)
"""The groups of metrics, in the order of dashboards."""

STREAM, NUMBER = "STREAM", "NUMBER"
"""Words in a name that stand for the name of a stream, and for a number."""
_ANY = {STREAM: r".+", NUMBER: r"\d+"}


@dataclass(frozen=True)
class Metric:
    """One metric, or one per stream.

    Args:
        name: its name without the prefix; STREAM stands for a stream's name.
        panel: the group it belongs to.
        meaning: what it means.
        drift: what to do when it drifts.
        engines: the engines that log it.
    """

    name: str
    panel: str
    meaning: str
    drift: str
    engines: tuple[Engine, ...] = BOTH

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches its names, without the prefix.

        Example:
            >>> metric_of("share/prm").pattern.pattern
            'share/.+'
        """
        parts = re.split(f"({STREAM}|{NUMBER})", self.name)
        return re.compile("".join(_ANY.get(part, re.escape(part)) for part in parts))

    def names(self, streams: Collection[str]) -> Iterator[str]:
        """Its names for some streams.

        Example:
            >>> list(metric_of("share/prm").names(["prm", "outcome"]))
            ['share/prm', 'share/outcome']
        """
        if STREAM not in self.name:
            yield self.name
            return
        for stream in streams:
            yield self.name.replace(STREAM, stream)


def _of_panel(
    panel: str, *rows: tuple[str, str, str], engines: tuple[Engine, ...] = BOTH
) -> list[Metric]:
    return [Metric(name, panel, meaning, drift, engines) for name, meaning, drift in rows]


METRICS: tuple[Metric, ...] = (
    *_of_panel(
        SIGNALS,
        (
            "raw_mean/STREAM",
            "mean of the raw scores, before any standardization; also of `outcome`, `format` and "
            "`MODEL_logprobs`",
            "rises while `agreement` and `right_share` do not: the policy has found what the "
            "signal overrates; read the best-paid responses",
        ),
        (
            "raw_std/STREAM",
            "standard deviation of the raw scores over all values of the batch",
            "falls towards 0: the signal gives the same score to everything; set `min_std`, lower"
            " its weight, or take another signal",
        ),
        (
            "variance/STREAM",
            "mean variance of its raw values within groups",
            "0: the stream has no effect; see whether prompts are too easy or too hard for it",
        ),
        (
            "agreement/STREAM",
            "how often it ranks a right response above a wrong one of its group; 1/2 is chance",
            "near or below 1/2: lower its weight or train the signal anew on what the policy "
            "writes now",
        ),
        (
            "share/STREAM",
            "the stream's share of all absolute advantage; `logprobs` for methods that read log-"
            "probs",
            "one stream near 1: the others have almost no effect; change `weights`",
        ),
        (
            "length_correlation/STREAM",
            "correlation of its mean score, or of `outcome`, with length, within groups",
            "of a signal far above that of `outcome`: it prefers long responses; use `k=1.0` or "
            "another signal",
        ),
        (
            "unscored_share/STREAM",
            "share of responses that the stream did not score",
            "rises: responses are too long for the model; shorten them or give the model a longer"
            " context",
        ),
        (
            "cut_share/STREAM",
            "share of responses that the stream scored only in part",
            "rises: as for `unscored_share`",
        ),
    ),
    *_of_panel(
        SIGNALS,
        (
            "no_context_share",
            "share of responses without a context for `self-teacher`: they score 0",
            "near 1: the signal has no effect; see which contexts the rows lack",
        ),
        engines=("trl",),
    ),
    *_of_panel(
        PAY,
        (
            "pay/right_responses",
            "mean advantage of right responses, each group counted once",
            "falls to that of wrong ones: the outcome has too little weight",
        ),
        (
            "pay/wrong_responses",
            "mean advantage of wrong responses",
            "above 0: wrong answers are reinforced; give the outcome more weight",
        ),
        (
            "pay/convincing_responses",
            "mean advantage of wrong responses that score like right ones of their group, by the "
            "first stream with scores: `process`, if there is one",
            "above 0: the signal is fooled; give the outcome more weight, or use `pass-min`",
        ),
        (
            "pay/contentless_responses",
            "mean advantage of responses without a letter or digit",
            "above 0: let the format gate refuse them",
        ),
        (
            "pay/unsolved_responses",
            "mean advantage of responses that think and give no answer",
            "above 0: grade them as wrong, and let the format gate refuse them",
        ),
        (
            "pay/truncated_responses",
            "mean advantage of responses that were cut off",
            "above 0: grade them as wrong, or raise the limit on tokens",
        ),
        (
            "pay/one_step_responses",
            "mean advantage of responses of one giant step, where most have several",
            "above 0: cut steps by another rule, or take a method that does not favour few steps",
        ),
        (
            "pay/no_step_responses",
            "mean advantage of responses without any score, where others have scores",
            "above 0: to leave a step out pays; let the format gate refuse them",
        ),
        (
            "pay/first_steps",
            "mean advantage at first steps",
            "far from `pay/other_steps`: credit goes by place; compare methods with `stepcredit "
            "compare`",
        ),
        (
            "pay/last_steps",
            "mean advantage at last steps",
            "far from `pay/other_steps`: credit goes by place; compare methods with `stepcredit "
            "compare`",
        ),
        (
            "pay/filler_steps",
            "mean advantage at steps without a letter or digit",
            "above 0: the policy learns to pad; see `pay_gap/filler_steps`",
        ),
        (
            "pay/repeated_steps",
            "mean advantage at steps that repeat an earlier one of their response",
            "above 0: the policy learns to repeat itself; see `pay_gap/repeated_steps`",
        ),
        (
            "pay/other_steps",
            "mean advantage at steps that are neither filler nor repeated",
            "it is what the other kinds are compared with",
        ),
        (
            "pay_gap/filler_steps",
            "advantage of filler steps minus that of the other steps of their group",
            "above 0: the policy learns to pad; put `cap-filler` around the signal, or use "
            "`pass-min`",
        ),
        (
            "pay_gap/repeated_steps",
            "advantage of repeated steps minus that of the other steps of their group",
            "above 0: the policy learns to repeat; put `cap-filler` around the signal, or use "
            "`pass-min`",
        ),
        (
            "filler_gap",
            "advantage of filler and repeated steps minus that of the others, over all steps of "
            "the batch",
            "above that of a run without the signal: see `pay_gap`, which is within groups",
        ),
        (
            "advantage_length_correlation",
            "correlation of a response's mean advantage with its length, within groups",
            "above `length_correlation/outcome`: length is paid; set `k=1.0` or use `pass-min`",
        ),
        (
            "path_density",
            "advantage of a response's whole path, in which chunks are added up",
            "rises while `right_share` does not: something else than right answers is paid",
        ),
    ),
    *_of_panel(
        LENGTH,
        (
            "length",
            "trained tokens per response",
            "grows without `right_share`: the policy pads; see `advantage_length_correlation`",
        ),
        (
            "length_right",
            "trained tokens per right response",
            "see `length_wrong`",
        ),
        (
            "length_wrong",
            "trained tokens per wrong response",
            "grows away from `length_right`: wrong answers are padded",
        ),
        (
            "truncated_share",
            "share of responses cut off at the length limit",
            "rises: many outcomes belong to unfinished responses; raise the limit or see `length`",
        ),
        (
            "steps",
            "steps per response whose steps are known; they end where the first stream of steps "
            "says: `process`, if it is one",
            "grows without `length`: steps become shorter; cut them by another rule",
        ),
        ("steps_right", "steps per right response", "see `steps_wrong`"),
        (
            "steps_wrong",
            "steps per wrong response",
            "grows away from `steps_right`: more steps are paid whatever they say",
        ),
        (
            "repeated_step_share",
            "share of steps that repeat an earlier one",
            "rises: see `pay_gap/repeated_steps`",
        ),
        (
            "contentless_step_share",
            "share of steps without a letter or digit (filler)",
            "rises: see `pay_gap/filler_steps`",
        ),
        (
            "reflection_words",
            'words such as "wait" or "let me check" per response',
            "rises without `right_share`: reflection is paid for itself",
        ),
        (
            "chunks_per_response",
            "mean number of chunks, which can have different advantages",
            "1: the credit is that of an outcome reward; see the method's `chunks`",
        ),
        (
            "tokens_per_chunk",
            "tokens that share one credit",
            "changes with `length`: the rule of the chunks does not fit what is written",
        ),
        (
            "single_state_share",
            "share of steps that are alone in their state, where states are known",
            "near 1: `gigpo` has nothing to compare, and is GRPO",
        ),
    ),
    *_of_panel(
        COST,
        (
            "scoring_seconds/STREAM",
            "seconds in which the signal scored, in the slowest process; per generation under "
            "TRL (its `log()` averages over `logging_steps`), per step under verl, without the "
            "groups that verl drops before it trains",
            "grows faster than `length`: the server is overloaded; add servers, or raise "
            "`concurrency`",
        ),
        (
            "scoring_step_share/STREAM",
            "`scoring_seconds` as a share of the time of the training step",
            "large: serve the model on more devices, or use a cheaper signal",
        ),
        (
            "server_queue/STREAM",
            "mean number of responses and requests that waited for one of the signal's "
            "`concurrency` places while it scored; per generation or step, as `scoring_seconds`",
            "far above `concurrency`: the servers are the bottleneck; add some",
        ),
        (
            "server_failed_share/STREAM",
            "share of the requests to the signal's servers that got no usable answer, and were "
            "sent again; per generation or step, as `scoring_seconds`",
            "above 0: a warning names the server and the reason; start it again",
        ),
        (
            "judge_answers/STREAM",
            "answers of the judge, those included that were asked for again; per generation or "
            "step, as `scoring_seconds`",
            "grows without `steps`: answers are malformed; look at the judge's prompt",
        ),
        (
            "judge_tokens_read/STREAM",
            "tokens that the judge read, as its server counts them; per generation or step, as "
            "`scoring_seconds`",
            "grows with `length`: shorten the template, or judge whole responses (`per`)",
        ),
        (
            "judge_tokens_written/STREAM",
            "tokens that the judge wrote, as its server counts them; per generation or step, as "
            "`scoring_seconds`",
            "grows: set `max_tokens`, or turn the judge's thinking off",
        ),
        (
            "judge_uncounted_answers/STREAM",
            "answers whose tokens the server did not count; per generation or step, as "
            "`scoring_seconds`",
            "above 0: tokens are too low, and `judge_cost` is left out",
        ),
        (
            "judge_cost/STREAM",
            "what the answers cost, where `judge_prices` gives the prices; in their currency; per "
            "generation or step, as `scoring_seconds`",
            "grows: see `judge_tokens_read` and `judge_tokens_written`",
        ),
    ),
    *_of_panel(
        HEALTH,
        (
            "right_share",
            "share of right responses, of those with a known outcome",
            "0 or 1: there is nothing to learn from outcomes; choose other prompts",
        ),
        (
            "right_above",
            "the outcome above which a response is right",
            "it is a setting and does not drift",
        ),
        (
            "advantage_std",
            "standard deviation over tokens of the advantage",
            "0: every group has equal rewards, or nothing reached the method",
        ),
        (
            "process_std",
            "the same of the part that all process streams make",
            "0: the signals have no effect",
        ),
        (
            "outcome_std",
            "the same of the outcome's part",
            "0: outcomes are equal in every group",
        ),
        (
            "format_std",
            "the same of the format's part",
            "large for long: the format is not learned, or weighs too much",
        ),
        (
            "zero_advantage_group_share",
            "share of groups in which all advantages are 0: they give no gradient",
            "rises: prompts are too easy or too hard; replace them, or sample more per prompt",
        ),
        (
            "format_gated_share",
            "share of responses whose advantage is the format's alone (format gate)",
            "stays high or rises: responses learn the format alone; see the template of the format",
        ),
        (
            "clipped_share",
            "share of tokens whose advantage `clip` cuts",
            "above a few percent: the clip decides; raise it, or find the outliers",
        ),
    ),
    *_of_panel(
        HEALTH,
        (
            "pass@NUMBER",
            "of an evaluation: chance that one of so many samples is right, without bias",
            "falls while `right_share` rises: the policy has become less diverse",
        ),
        engines=("trl",),
    ),
)


def metric_of(name: str) -> Metric | None:
    """The row of a metric's name, with or without the prefix; None: there is no such metric.

    Example:
        >>> metric_of("stepcredit/agreement/prm").panel
        'What the signals say'
        >>> metric_of("agrement/prm") is None
        True
    """
    bare = name.removeprefix(PREFIX)
    return next((metric for metric in METRICS if metric.pattern.fullmatch(bare)), None)


def as_markdown() -> str:
    """The table of `docs/metrics.md`: a heading and a table per panel."""
    parts = []
    for panel in PANELS:
        rows = [metric for metric in METRICS if metric.panel == panel]
        lines = [f"### {panel}", "", "| metric | meaning | when it drifts |", "|---|---|---|"]
        lines += [f"| `{row.name}`{_only(row)} | {row.meaning} | {row.drift} |" for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _only(metric: Metric) -> str:
    return "" if metric.engines == BOTH else f" ({' and '.join(metric.engines).upper()} alone)"
