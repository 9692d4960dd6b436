"""Plots a judgement: reliability, ROC, scores by label, F1 against the threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stepcredit.data.files.atomic import replacing
from stepcredit.prm.judging.evaluation import Judgement
from stepcredit.requires import require

RIGHT_COLOUR, WRONG_COLOUR, INK, GRID, GUIDE = "#1f5fa8", "#d1662a", "#333333", "#e6e6e6", "#888888"
DASHED = (0, (4, 3))


def plot_judgement(judgement: Judgement, path: str | Path, title: str) -> None:
    """Draw a judgement's four panels.

    Args:
        judgement: a signal's judgement.
        path: the PNG file to write.
        title: text above the panels.

    Raises:
        MissingExtra: matplotlib or scikit-learn is not installed.
    """
    require("prm", "matplotlib", "sklearn")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    panels = (_reliability, _roc, _histograms, _f1)
    for draw, axis in zip(panels, figure.subplots(2, 2).flatten(), strict=True):
        draw(axis, judgement)
        _dress(axis)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK, weight="bold")
    with replacing(path) as out:
        figure.savefig(out, format="png")


def _reliability(axis: Any, judgement: Judgement) -> None:
    """Share of right steps against mean score; a dot's area grows with the steps in its bin."""
    found = judgement.figures["calibration"]
    if not found["bins"]:
        _say(axis, "reliability", "scores outside 0 to 1:\nnot probabilities")
        return
    mean = [b["mean_score"] for b in found["bins"]]
    share = [b["right_share"] for b in found["bins"]]
    most = max(b["steps"] for b in found["bins"])
    area = [12 + 240 * b["steps"] / most for b in found["bins"]]
    axis.plot([0, 1], [0, 1], color=GUIDE, linewidth=0.9, linestyle=DASHED)
    axis.plot(mean, share, color=RIGHT_COLOUR, linewidth=1.6)
    axis.scatter(mean, share, s=area, color=RIGHT_COLOUR, alpha=0.55, linewidths=0, zorder=3)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axis.set(xlabel="mean score of the bin", ylabel="share of its steps that are right")
    _title(axis, f"reliability: ECE {found['ece']:.3f}, Brier {found['brier']:.3f}")


def _roc(axis: Any, judgement: Judgement) -> None:
    """Right steps kept against wrong steps kept, over all thresholds."""
    steps, auc = judgement.steps, judgement.figures["steps"]["roc_auc"]
    if auc is None:
        _say(axis, "ROC", "one kind of step only")
        return
    from sklearn.metrics import roc_curve

    wrong_kept, right_kept, _ = roc_curve(steps.right, steps.scores)
    axis.plot([0, 1], [0, 1], color=GUIDE, linewidth=0.9, linestyle=DASHED)
    axis.fill_between(wrong_kept, right_kept, color=RIGHT_COLOUR, alpha=0.1, linewidth=0)
    axis.plot(wrong_kept, right_kept, color=RIGHT_COLOUR, linewidth=1.8)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axis.set(xlabel="wrong steps at or above", ylabel="right steps at or above")
    interval = judgement.figures["intervals"].get("roc_auc")
    _title(axis, f"ROC of steps: AUC {auc:.3f}" + _bracket(interval))


def _histograms(axis: Any, judgement: Judgement) -> None:
    """Scores of right and of wrong steps, each summing to 1."""
    steps = judgement.steps
    edges = np.histogram_bin_edges(steps.scores, bins=30)
    kinds = ((steps.right, "right", RIGHT_COLOUR), (~steps.right, "wrong", WRONG_COLOUR))
    for kind, name, colour in kinds:
        if not kind.any():
            continue
        counts, _ = np.histogram(steps.scores[kind], edges)
        label = f"{name} ({int(kind.sum()):,})"
        axis.stairs(counts / counts.sum(), edges, color=colour, fill=True, alpha=0.35)
        axis.stairs(counts / counts.sum(), edges, color=colour, linewidth=1.4, label=label)
    threshold = judgement.figures["first_error"]["threshold"]
    axis.axvline(threshold, color=GUIDE, linewidth=0.9, linestyle=DASHED)
    axis.set(xlabel="score", ylabel="share of the steps of that label")
    axis.legend(frameon=False, fontsize=9, labelcolor=INK)
    _title(axis, "scores by label")


def _f1(axis: Any, judgement: Judgement) -> None:
    """F1 of the first error at every threshold, and at the one that was used."""
    found = judgement.figures["first_error"]
    if found["f1"] is None:
        _say(axis, "F1 of the first error", "one kind of solution only")
        return
    thresholds, f1 = judgement.first_errors.curve()
    axis.step(thresholds, f1, where="mid", color=RIGHT_COLOUR, linewidth=1.5)
    axis.axvline(found["threshold"], color=GUIDE, linewidth=0.9, linestyle=DASHED)
    axis.plot(found["threshold"], found["f1"], "o", color=WRONG_COLOUR, markersize=7)
    axis.set(xlabel=f"threshold ({found['threshold_from']}: {found['threshold']:.3f})", ylabel="F1")
    axis.set_ylim(0, None)
    interval = judgement.figures["intervals"].get("f1")
    _title(axis, f"F1 of the first error: {found['f1']:.3f}" + _bracket(interval))


def _bracket(interval: tuple[float, float] | None) -> str:
    return f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""


def _say(axis: Any, title: str, words: str) -> None:
    axis.text(0.5, 0.5, words, ha="center", va="center", color=GUIDE, transform=axis.transAxes)
    axis.set(xticks=[], yticks=[])
    _title(axis, title)


def _title(axis: Any, text: str) -> None:
    axis.set_title(text, loc="left", fontsize=10, color=INK)


def _dress(axis: Any) -> None:
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.xaxis.label.set(fontsize=9, color=INK)
    axis.yaxis.label.set(fontsize=9, color=INK)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left", "bottom"]].set_visible(False)
