"""Draw the path score against padding: `python docs/figures/path_score.py` writes the PNG."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from stepcredit.credit.theory.length_pressure import path_score, turning_point

TOTAL, CHUNKS, FILLER, MOST = 6.0, 6, 0.4, 150
CURVES = {0.5: "#b2182b", 0.7: "#e08214", 1.0: "#4393c3", 1.2: "#053061"}
ENDINGS = {0.5: "grows for ever", 0.7: "grows for ever", 1.0: "tends to ε", 1.2: "tends to 0"}
NOTES = {0.5: (23, 1.07), 0.7: (20, 0.75)}  # where the text on the turn stands


def relative_score(k: float, padding: float) -> float:
    """The path score of the padded response over that of the unpadded one."""
    padded = path_score(TOTAL, CHUNKS, k, filler=FILLER, padding=padding)
    return padded / path_score(TOTAL, CHUNKS, k)


def break_even(k: float) -> int:
    """The first padding that beats none, for an exponent below 1."""
    return next(m for m in range(1, 10_000) if relative_score(k, m) > 1)


def main() -> None:
    figure, axes = plt.subplots(figsize=(7.2, 4.0), layout="constrained")
    padding = np.linspace(0, MOST, 601)
    axes.axhline(1, color="0.6", linewidth=0.8, linestyle="--")
    axes.text(MOST + 3, 1, "no padding", color="0.4", fontsize=10, va="center")
    for k, colour in CURVES.items():
        scores = [relative_score(k, m) for m in padding]
        axes.plot(padding, scores, color=colour, linewidth=2)
        label = f"k = {k:g}: {ENDINGS[k]}"
        axes.text(MOST + 3, scores[-1], label, color=colour, fontsize=10, va="center")
        turn = turning_point(TOTAL, CHUNKS, FILLER, k)
        if turn is not None:
            lowest = relative_score(k, turn)
            axes.plot(turn, lowest, "o", color=colour, markersize=6)
            note = f"m* = {turn:g}, pays from m = {break_even(k)}"
            axes.text(*NOTES[k], note, color=colour, fontsize=9)
    axes.set(xlim=(0, MOST), ylim=(0, None))
    axes.set_xlabel(f"redundant chunks m, each worth ε = {FILLER:g}")
    axes.set_ylabel("path score S(m) / S(0)")
    axes.set_title(
        f"Padding a response of {CHUNKS} chunks worth 1 each: below k = 1 it pays in the end",
        fontsize=11,
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=160)


if __name__ == "__main__":
    main()
