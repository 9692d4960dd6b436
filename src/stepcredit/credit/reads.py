"""`Reads`: what a method reads of the rollouts, for trainers, metrics and commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from stepcredit.settings.fields import frozen


@dataclass(frozen=True)
class Reads:
    """What a method reads of the rollouts, under its settings.

    The defaults are for a method that does not override `Estimator.reads`: it gets every stream
    that the rollouts have, and nothing is refused on its behalf.

    Args:
        process: which process streams: "weighted", those named in `weights`; "one", the stream
            named "process" or the only one; "every", all streams; None: none.
        weights: weight of each stream, outcome and format included, where `process` is "weighted";
            None for a method that does not weigh process streams by name.
        logprobs: the models whose log-probs the method needs, such as ("student", "teacher").
        outcome: "required": every response needs one; "optional": an unknown one adds nothing;
            None: not read.
        format: whether the format reward is read as a separate stream.
        gate: whether a response that broke its format learns only from the format reward.
        ready_made: whether ready-made advantages (`TokenAdvantages`) are read, as streams with a
            weight.
        text: whether chunks are cut by the tokens' texts.
        steps: whether chunks are the steps, so that a token signal needs `step_ends` too.
        states: whether the method compares steps taken in the same state, which `step_states` name.

    Example:
        >>> import stepcredit as sc
        >>> sc.OPD().reads.logprobs, sc.GRPO().reads.outcome, sc.PASS(chunks="steps").reads.steps
        (('student', 'teacher'), 'required', True)
    """

    process: Literal["weighted", "one", "every"] | None = "every"
    weights: Mapping[str, float] | None = None
    logprobs: tuple[str, ...] = ()
    outcome: Literal["required", "optional"] | None = "optional"
    format: bool = False
    gate: bool = False
    ready_made: bool = False
    text: bool = False
    steps: bool = False
    states: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", frozen(self.weights))

    def first_unweighted_stream(self, streams: Iterable[str]) -> str | None:
        """The first of the process streams that the method would leave out for lack of a weight.

        Args:
            streams: names of the process streams that the method will be given.

        Returns:
            None where all have a weight, or where the method does not weigh streams by name.

        Example:
            >>> import stepcredit as sc
            >>> weighted = sc.PASS(weights={"prm": 1.0, "outcome": 1.0})
            >>> weighted.reads.first_unweighted_stream(["prm", "judge"])
            'judge'
            >>> sc.GDPO().reads.first_unweighted_stream(["process"]) is None
            True
        """
        if self.process != "weighted" or self.weights is None:
            return None
        return next((stream for stream in streams if stream not in self.weights), None)
