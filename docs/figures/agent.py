"""Draw the agent's curves: `python docs/figures/agent.py` reads the store and writes the PNG."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

from stepcredit.study.study_data import StudyData
from stepcredit.study.study_figures import COLOURS, GRID, INK
from stepcredit.study.study_store import StudyStore
from stepcredit.study.study_tables import ArmCurve, arm_curves, cell_tables

STORE = Path(__file__).parents[2] / "evidence" / "study.sqlite"
PANELS = {
    "pass_at_1": "pass@1 while training",
    "turns": "turns per response",
    "length": "tokens per response, tools left out",
}


def curves(store: Path) -> dict[str, ArmCurve]:
    """The curve of each arm by its name and its signal; an arm that reads none is there once."""
    with StudyStore(store) as opened:
        data = StudyData(opened)
    found = {}
    for table in cell_tables("agent", data):
        for curve in arm_curves(table, data):
            about = {"none": "outcomes alone", "noisy": "noisy scores"}[table.signal]
            if curve.label == "grpo" and table.signal == "noisy":
                continue
            found[f"{curve.label}, {about}"] = curve
    return found


def main(store: Path = STORE) -> None:
    figure, panels = plt.subplots(1, len(PANELS), figsize=(11.5, 3.6), layout="constrained")
    for axes, (name, title) in zip(panels, PANELS.items(), strict=True):
        for (label, curve), colour in zip(curves(store).items(), COLOURS, strict=False):
            low, high = curve.low[name], curve.high[name]
            axes.fill_between(curve.updates, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(curve.updates, curve.mean[name], color=colour, label=label)
        axes.set_title(title, fontsize=10, loc="left", color=INK)
        axes.set_xlabel("update", fontsize=9, color=INK)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=8, colors=INK)
        axes.spines[:].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
