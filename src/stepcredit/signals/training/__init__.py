"""Training a process reward model on step-labelled rows, and judging any signal on them."""

from stepcredit.signals.training.evaluating import evaluate_signal
from stepcredit.signals.training.formats import Reading
from stepcredit.signals.training.judge import Judgement, judge, step_scores
from stepcredit.signals.training.plots import plot_judgement
from stepcredit.signals.training.reading import read_labelled
from stepcredit.signals.training.rows import LabelledRow, split_by_question
from stepcredit.signals.training.settings import TrainSettings
from stepcredit.signals.training.train import train_prm

__all__ = [
    "Judgement",
    "LabelledRow",
    "Reading",
    "TrainSettings",
    "evaluate_signal",
    "judge",
    "plot_judgement",
    "read_labelled",
    "split_by_question",
    "step_scores",
    "train_prm",
]
