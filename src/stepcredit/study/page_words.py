"""The words of the page: what an arm, a signal and a comparison are, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stepcredit.study.claims import StudyClaim
from stepcredit.study.study_cells import Arm
from stepcredit.study.study_presets import find_preset, preset_names
from stepcredit.study.tuning import TUNING

METRIC_WORDS = {
    "pass_at_1": "pass@1",
    "pass_at_8": "pass@8",
    "length": "tokens per answer",
    "length_ratio": "relative length",
    "fillers": "filler lines per answer",
    "cpu_ratio": "relative CPU time",
    "collapse": "share of collapsed runs",
}
SIGNAL_WORDS = {
    "exact": "the checker itself: 1 for a right step, 0 for a wrong one, 0.5 for filler",
    "noisy": "a simulated reward model: right steps 0.85, wrong 0.25, filler 0.70; blurred, and "
    "one score in ten exchanged",
    "hackable": "as `noisy`, but filler scores 0.95, above a right step",
    "centred": "2s − 1 of `noisy`, so that wrong steps score below 0",
    "negative": "the logarithm of `noisy`, so that every score is below 0",
    "opd": "log-ratios of a better teacher, token by token (on-policy distillation)",
    "g-opd": "as `opd`, and beyond the teacher, away from the warm start (G-OPD)",
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
    """What a signal is; one that a preset has made is told by its settings.

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
    """Each label once, in alphabetical order, with the first that is said of it."""
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
    metric, first = METRIC_WORDS.get(claim.metric, claim.metric), f"`{claim.compare[0]}`"
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
        what = METRIC_WORDS[claim.metric].removeprefix("relative ")
        return f"{what} of {first} divided by that of `{claim.compare[1]}`, less 1: {bound}"
    return f"{metric} of {first} less that of `{claim.compare[1]}`: {bound}"
