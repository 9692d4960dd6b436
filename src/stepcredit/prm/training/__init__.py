"""Training a process reward model on step-labelled rows, and judging any signal on them."""

from stepcredit.prm.judging.evaluation import Judgement, judge_scores, step_scores
from stepcredit.prm.judging.judged_files import evaluate_signal
from stepcredit.prm.judging.judgement_plots import plot_judgement
from stepcredit.prm.labelled.label_fields import LabelOptions
from stepcredit.prm.labelled.labelled_file import read_labelled
from stepcredit.prm.labelled.labelled_rows import LabelledRow, split_by_question
from stepcredit.prm.training.pipeline import train_prm
from stepcredit.prm.training.train_settings import PRMTrainSettings

__all__ = [
    "Judgement",
    "LabelOptions",
    "LabelledRow",
    "PRMTrainSettings",
    "evaluate_signal",
    "judge_scores",
    "plot_judgement",
    "read_labelled",
    "split_by_question",
    "step_scores",
    "train_prm",
]
