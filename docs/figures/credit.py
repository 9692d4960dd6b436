"""Draws `credit.svg`: what each method gives every token of one right and one wrong response."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

import stepcredit as sc

ENDS = [[2, 5, 8, 11], [2, 5, 8]]
SCORES = [[0.9, 0.8, 0.3, 0.9], [0.9, 0.2, 0.4]]
LENGTHS = [12, 9]
COLOURS = {"right response": "#1f6f8b", "wrong response": "#d1495b"}


def token_scores() -> list[list[float]]:
    """Each step's score on each of its three tokens."""
    return [[score for score in row for _ in range(3)] for row in SCORES]


def example() -> sc.Rollouts:
    """One group: a right response with a weak third step, a wrong one with a strong first step."""
    likelier = token_scores()
    return sc.Rollouts(
        group=["one question"] * 2,
        process=sc.Steps(ends=ENDS, scores=SCORES),
        outcome=[1.0, 0.0],
        logprobs={
            "student": [[-1.0] * length for length in LENGTHS],
            "base": [[-1.1] * length for length in LENGTHS],
            "teacher": [[score - 1.6 for score in row] for row in likelier],
            "prm": [[score - 1.6 for score in row] for row in likelier],
            "ref": [[-1.0] * length for length in LENGTHS],
        },
    )


def main() -> None:
    """Draw one panel per method."""
    rollouts, names = example(), sorted(sc.methods())
    figure, panels = plt.subplots(3, 4, figsize=(10, 6.2), sharex=True, layout="constrained")
    for panel, name in zip(panels.flat, names, strict=True):
        rows = sc.estimator(name)(rollouts).ragged()
        panel.axhline(0, color="grey", linewidth=0.6)
        for (label, colour), row in zip(COLOURS.items(), rows, strict=True):
            panel.stairs(row.tolist(), color=colour, linewidth=2, label=label, baseline=None)
        panel.set_title(name, loc="left", fontsize=11, family="monospace")
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        panel.set_xticks([0, 3, 6, 9, 12])
    for panel in panels[-1]:
        panel.set_xlabel("token", fontsize=9)
    for panel in panels[:, 0]:
        panel.set_ylabel("advantage", fontsize=9)
    figure.legend(
        *panels.flat[0].get_legend_handles_labels(),
        loc="outside upper right",
        ncols=2,
        frameon=False,
    )
    place = Path(__file__).with_suffix(".svg")
    plt.rcParams["svg.hashsalt"] = "stepcredit"
    figure.savefig(place, metadata={"Date": None})


if __name__ == "__main__":
    main()
