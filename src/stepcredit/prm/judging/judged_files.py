"""Judges a signal on labelled rows, and writes the figures and a plot to a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepcredit.data.files.atomic import check_writable, write_json
from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import StepCreditError
from stepcredit.prm.judging.evaluation import check_judges_text, judge_scores, step_scores
from stepcredit.prm.judging.judgement_plots import plot_judgement
from stepcredit.prm.judging.step_metrics import FirstErrors
from stepcredit.prm.labelled.labelled_rows import LabelledRow, split_by_question
from stepcredit.requires import require
from stepcredit.settings.fields import check_seed
from stepcredit.signals.signal import Signal

METRICS, PICTURE = "metrics.json", "judged.png"
CHOSEN = "best F1 on the validation questions"
Progress = Callable[[str, int, int], None]


def evaluate_signal(
    signal: Signal,
    rows: Sequence[LabelledRow],
    *,
    threshold: float | None = None,
    pool: str = "sum",
    seed: int = 0,
    test: float = 0.8,
    validation: float = 0.2,
    output: str | Path | None = None,
    title: str | None = None,
    scored: Progress | None = None,
) -> dict[str, Any]:
    """Judge a signal on the test questions, with a threshold from the validation questions.

    Args:
        signal: any signal; scores of tokens are pooled by step.
        rows: step-labelled rows, from `read_labelled`.
        threshold: a step that scores below it counts as an error; None: the threshold with the
            best F1 on the validation questions, which are not judged. Steps about which the signal
            says nothing (its `unknown_score`) never count as errors by that threshold.
        pool: as in `step_scores`.
        seed, test, validation: the split by question; with the values that `train_prm` had, the
            parts are the same.
        output: a folder for `metrics.json` and `judged.png`.
        title: title of the plot; the signal's name if absent.
        scored: called with (part, solutions scored, all solutions).

    Returns:
        The figures of `judge_scores`.

    Raises:
        SettingError: the signal reads token ids, which labelled rows don't have.
        StepCreditError: no question falls into a part that is needed.
        RolloutError, SignalError: as the signal raises them.
        MissingExtra: scikit-learn, scipy or matplotlib is not installed.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> rows = [LabelledRow("?", ("2 + 2 = 5",), (0,), "r.jsonl:1", "?"),
        ...         LabelledRow("!", ("2 + 2 = 4",), (1,), "r.jsonl:2", "!")]
        >>> figures = evaluate_signal(
        ...     signal("arithmetic"), rows, threshold=0.5, test=1.0, validation=0.0)
        >>> figures["first_error"]["f1"]
        1.0
    """
    check_seed(seed)
    check_judges_text(signal)
    require("prm", "sklearn", "scipy")
    parts = split_by_question(rows, seed=seed, test=test, validation=validation)
    needed = {"test": parts.test} | ({"validation": parts.validation} if threshold is None else {})
    for name, part in needed.items():
        if not part:
            reason = f"the {name} part has no question: expected more rows or a larger share"
            raise StepCreditError(reason, field=name)
    if output is not None:
        with file_errors(str(output)):
            Path(output).mkdir(parents=True, exist_ok=True)
        check_writable(Path(output) / METRICS)

    def scores(name: str) -> list[list[float]]:
        own = needed[name]
        progress = None if scored is None else lambda done: scored(name, done, len(own))
        return step_scores(signal, own, pool, progress)

    chosen_on = "given"
    if threshold is None:
        chosen_on = CHOSEN
        errors = FirstErrors.of(parts.validation, scores("validation"))
        threshold = errors.best_threshold(signal.unknown_score)
    found = judge_scores(parts.test, scores("test"), threshold, chosen_on=chosen_on, seed=seed)
    if output is not None:
        folder = Path(output)
        heading = f"{title or signal.name}: {found.figures['data']['questions']} questions"
        plot_judgement(found, folder / PICTURE, heading)
        write_json(folder / METRICS, found.figures)
    return found.figures
