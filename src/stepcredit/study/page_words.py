"""The words of the page: what an arm, a signal and a comparison are, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stepcredit.lab.simulated_prm import BLUR, FILLER, FLIPS, RIGHT, WRONG
from stepcredit.study.claims import StudyClaim
from stepcredit.study.method_standings import BELOW, GOOD, UNKNOWN
from stepcredit.study.study_cells import Arm
from stepcredit.study.study_presets import find_preset, preset_names
from stepcredit.study.study_statistics import TIE
from stepcredit.study.tuning import TUNING

METRIC_WORDS = {
    "pass_at_1": "pass@1",
    "pass_at_8": "pass@8",
    "length": "tokens per answer",
    "fillers": "filler lines per answer",
    "step_accuracy": "share of right steps",
    "format": "share of answers in the right format",
    "collapse": "share of collapsed runs",
    "cpu_ratio": "CPU time",
    "length_ratio": "length",
}
"""What each metric of a claim is; of a ratio, what is divided."""
SIZE_WORDS = (
    "The policies are decoders of 0.13 to 0.34 million parameters, trained for 40 to 240 updates "
    "of 96 answers on three synthetic tasks: sums that are worked out line by line (arithmetic), "
    "questions over a small knowledge base (multihop), and the same with tools (agent).",
    "Process scores are simulated, or log-ratios of a small teacher.",
    "So these runs test mechanisms; they do not show that a ranking holds for a model of billions "
    "of parameters.",
    "The warm start is the supervised checkpoint from which all runs of a seed begin on one "
    "machine (“warm starts” below says what differs on another); filler is a line that adds "
    "nothing; right steps are the right lines of an answer, divided by the lines that the problem "
    "needs.",
)
"""How large the experiment is, and words that all tables use."""
CLAIMS_WORDS = (
    "Each claim was written down before the runs, in `evidence/claims.yaml`, with its comparison "
    "and its margin; claims that were added later, or changed in one of these, are marked.",
    '"Ours" is the paired difference on the same seeds and problems, with its 95 % interval, then '
    "on each signal alone where there are two to four. n counts pairs of one task and seed; the "
    "signals of a pair are averaged.",
    "The verdict compares that interval with the margin, for each claim alone; differences on one "
    "signal have no verdict and no correction for their number.",
    "An undecided claim is called a tie where the interval of pass@1 lies within "
    f"± {TIE}: then no larger difference is left, in either direction.",
    "The Holm p of a primary claim comes from another test (sign flips over seeds), and counts "
    "that several claims are tested.",
    "So a claim can be held by its interval and have a p above 0.05; then it is weakly supported.",
    "The link leads to the runs and the command that made them. A preset without a link has no run "
    "yet; one with a link may lack the arm or the signal of a claim.",
)
"""How to read the table of claims."""
STANDINGS_QUESTION = "Is there a method that never collapses and is best or tied on most signals?"
NONE_QUALIFIES = "No method is shown to be."
STANDINGS_WORDS = (
    f'On each signal a method is compared with the best of the others. "{GOOD}": the interval of '
    "the difference of pass@1 lies above 0, or within the margin of a tie. "
    f'"{BELOW}": it lies below 0, and is no tie. "{UNKNOWN}": neither. The best of the others is '
    f'chosen by the same runs, so "{BELOW}" is a little too frequent. The last column counts the '
    "runs of all presets on test seeds, also those of `hacking`, which are twice as long, and "
    "those with other settings."
)
OVERVIEW_WORDS = (
    "pass@1 / pass@8 of every method that was run on all signals; the mean counts each signal "
    "equally. The published figures are percentages, on other tasks and models."
)
SPLITS_WORDS = "pass@1 on what the runs were not trained on; the first row is before training."
ANCHOR_WORDS = (
    "PASS, PASS-min and GRPO on a real small model, by `examples/smollm2_anchor.py`: chain sums "
    "such as `33 - 86 - 20`, after a short supervised start that all runs share; steps are "
    "scored by a program that redoes their arithmetic. This is an anchor, and no proof: one task, "
    "few seeds, few steps, nothing tuned. Differences are paired by seed, with the 95 % interval "
    "of Student's t."
)
ORIGINS_WORDS = (
    "CPU seconds depend on the machine and on what else ran on it, so only those of one origin can "
    "be compared."
)
TABLE_WORDS = {
    "IQM": "the interquartile mean, without the lowest and the highest quarter of the runs.",
    "P(better)": "the probability that a run of the arm ends above one of the reference arm.",
    "at most": "the one-sided 95 % upper bound of the rate of collapse.",
    "at equal tokens": "the paired difference of pass@1 on the training problems, after as many "
    "sampled tokens as the run with fewer of them had in the middle of its last twelfth.",
    "collapsed": "how many runs; in brackets, how many of them by a lower pass@1, the others by "
    "their length alone.",
    "learning rate": "as tuned for the arm where the preset uses tuned settings, else the default. "
    "Arms with different rates differ by it, too.",
    "CPU seconds": "means over runs that several machines made; see the last section.",
}
"""What the columns of the tables are."""
COSTS_SHOWN = {
    "signal_calls": "scored by the signal",
    "teacher_calls": "by a teacher",
    "monte_carlo_calls": "by Monte Carlo",
}
"""The costs that are counts of answers, and their columns."""
SIGNAL_WORDS = {
    "exact": "the checker itself: 1 for a right step, 0 for a wrong one, 0.5 for filler",
    "noisy": f"a simulated reward model: right steps {RIGHT}, wrong {WRONG}, filler "
    f"{FILLER['noisy']}, with noise of std {BLUR}; a share of {FLIPS} of the scores is exchanged, "
    "right for wrong",
    "hackable": f"as `noisy`, but filler scores {FILLER['hackable']}, above a right step",
    "centred": "2s − 1 of `noisy`, so that wrong steps score below 0",
    "negative": "the logarithm of `noisy`, so that every score is below 0",
    "opd": "log-ratios of a better teacher, token by token (on-policy distillation)",
    "g-opd": "as `opd`, plus a part of the teacher's log-ratio to the warm start (G-OPD)",
    "opd-steps": "`opd`, summed over each step",
    "g-opd-steps": "`g-opd`, summed over each step",
    "opd-mismatched": "as `opd`, with a teacher that prefers longer answers",
    "g-opd-mismatched": "as `g-opd`, with a teacher that prefers longer answers",
    "opd-steps-mismatched": "`opd-mismatched`, summed over each step",
    "g-opd-steps-mismatched": "`g-opd-mismatched`, summed over each step",
    "monte-carlo": "the mean outcome of four answers continued from the end of each step",
    "answer-progress": "the change of the right answer's log-likelihood under the policy",
    "shared-prefix": "the mean outcome of those answers of the group that begin alike",
    "none": "outcomes alone",
}
"""What each signal of the lab is. `docs/lab.md` has the numbers."""


@dataclass(frozen=True)
class PresetWords:
    """What a preset is, for its readers.

    Args:
        about: what it asks; "" for a preset that is not the package's.
        left_out: what was asked for and is not in it, with the reason.
        arms: what each arm is, by label.
        signals: what each signal is, by its name in tables.
    """

    about: str = ""
    left_out: tuple[str, ...] = ()
    arms: tuple[tuple[str, str], ...] = ()
    signals: tuple[tuple[str, str], ...] = ()


def preset_words(name: str) -> PresetWords:
    """What a preset of the package is; empty for a preset of one's own, whose file is not here.

    Example:
        >>> words = preset_words("clip")
        >>> words.about
        'The bound on the absolute value of an advantage.'
        >>> dict(words.arms)["pass:clip1"]
        '`pass` with clip = 1.0'
    """
    if name not in preset_names():
        return PresetWords()
    preset = find_preset(name, None)
    arms = [arm for block in preset.blocks for arm in block.arms] if name != TUNING else []
    signals = [
        (label, signal_words(label, {**settings, **block.lab}))
        for block in preset.blocks
        for label, settings in block.signals.items()
    ]
    return PresetWords(
        preset.about,
        preset.left_out,
        tuple({arm.label: arm_words(arm) for arm in arms}.items()),
        tuple(dict(signals).items()),
    )


def arm_words(arm: Arm) -> str:
    """What an arm is: its sentence, or the settings that its method has."""
    settings = {**arm.fields, **arm.lab}
    if arm.about or not settings:
        return arm.about or f"the method `{arm.method}`"
    return f"`{arm.method}` with {_listed(settings)}"


def signal_words(label: str, settings: Mapping[str, Any]) -> str:
    """What a signal is; of one that a preset defines, its settings.

    Args:
        label: its name in tables.
        settings: the settings of the lab that go with it.

    Example:
        >>> signal_words("flips-0.2", {"signal": "noisy", "signal_fields": {"flips": 0.2}})
        '`noisy` with flips = 0.2'
    """
    if label in SIGNAL_WORDS:
        return SIGNAL_WORDS[label]
    more = {name: value for name, value in settings.items() if name != "signal"}
    parts = {**more.pop("signal_fields", {}), **more.pop("task_fields", {}), **more}
    base = f"`{settings['signal']}`"
    return f"{base} with {_listed(parts)}" if parts else base


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


def merged_words(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Each label once, in alphabetical order, with its first meaning."""
    merged: dict[str, str] = {}
    for label, words in found:
        merged.setdefault(label, words)
    return dict(sorted(merged.items()))


def comparison_words(claim: StudyClaim) -> str:
    """What a claim compares and by which margin, in words.

    Example:
        >>> claim = StudyClaim("a", "", "", "", ("main",), ("pass", "grpo"), "greater", -0.03)
        >>> comparison_words(claim)
        'pass@1 of `pass` less that of `grpo`: above -0.03'
    """
    metric, first = METRIC_WORDS[claim.metric], f"`{claim.compare[0]}`"
    if claim.kind == "never":
        return f"no run of {first} collapses"
    if claim.kind == "most":
        return f"{first} beside the best other method: best, or within ± {claim.margin:g}"
    bound = {
        "greater": f"above {claim.margin:g}",
        "less": f"below {claim.margin:g}",
        "tied": f"within ± {claim.margin:g}",
    }[claim.kind]
    if claim.metric == "collapse":
        return f"{metric} of {first}: {bound}"
    if claim.metric.endswith("_ratio"):
        return f"{metric} of {first} divided by that of `{claim.compare[1]}`, less 1: {bound}"
    return f"{metric} of {first} less that of `{claim.compare[1]}`: {bound}"
