"""Draw the oracle table as a heat map: `python docs/figures/oracles.py` writes the PNG."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from stepcredit.oracles import SIGNALS, OracleRow, oracle_table

PANELS = {
    "spearman": ("Spearman with the exact advantage", "viridis", 0.2, 1.0, "{:.2f}"),
    "error": ("error of the mean gradient", "viridis_r", 0.0, 0.55, "{:.2f}"),
    "filler": ("growth of filler beyond the exact gradient's", "RdBu_r", -0.09, 0.09, "{:+.2f}"),
}
"""Figure: title, colours, their range, format of a cell."""


def values(rows: list[OracleRow], methods: list[str], name: str) -> np.ndarray:
    """(method, signal); a method that reads no signal has the same value under each."""
    found = {(row.method, row.signal): row.figures[name].mean for row in rows}
    table = [[found.get((m, s), found.get((m, "none"), 0.0)) for s in SIGNALS] for m in methods]
    exact = found["exact advantage", "none"] if name == "filler" else 0.0
    return np.array(table) - exact


def main() -> None:
    rows = oracle_table()
    methods = list(dict.fromkeys(row.method for row in rows if row.signal in ("none", "right")))
    figure, panels = plt.subplots(1, 3, figsize=(11.5, 8.6), layout="constrained", sharey=True)
    for axes, (name, (title, colours, low, high, form)) in zip(panels, PANELS.items(), strict=True):
        table = values(rows, methods, name)
        axes.imshow(table, cmap=colours, vmin=low, vmax=high, aspect="auto")
        for (y, x), value in np.ndenumerate(table):
            shade = (np.clip(value, low, high) - low) / (high - low)
            red, green, blue, _ = plt.get_cmap(colours)(shade)
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            shown = form.format(0.0 if abs(value) < 0.005 else value)
            axes.text(x, y, shown, ha="center", va="center", fontsize=8, color="w" if dark else "k")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xticks(range(len(SIGNALS)), list(SIGNALS))
        axes.set_yticks(range(len(methods)), methods, fontsize=9)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
