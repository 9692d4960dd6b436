"""Trains a process reward model on labelled rows, judges it and writes it to a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from stepcredit._moved import reads_old_keyword
from stepcredit.data.files.atomic import replacing, write_json
from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import FileError, StepCreditError
from stepcredit.prm.judging.judged_files import (
    METRICS,
    Progress,
    evaluate_signal,
)
from stepcredit.prm.labelled.labelled_rows import LabelledRow, row_counts, split_by_question
from stepcredit.prm.local import LocalPRM
from stepcredit.prm.training.examples import Fitted, examples_of, fit_to_length
from stepcredit.prm.training.fitting import Report, fit, load_classifier
from stepcredit.prm.training.train_settings import PRMTrainSettings
from stepcredit.requires import require
from stepcredit.signals.models.checkpoints import load_tokenizer, quiet_transformers

RECORD, LOG, CHECKPOINTS = "training.json", "training.jsonl", "checkpoints"


@dataclass(frozen=True)
class Data:
    """The rows of each part as the model reads them."""

    train: Fitted
    validation: Fitted
    test: Fitted


@reads_old_keyword("told", "extra")
def train_prm(
    rows: Sequence[LabelledRow],
    model: str | Path,
    output: str | Path,
    settings: PRMTrainSettings | None = None,
    *,
    resume: bool = False,
    extra: Mapping[str, Any] | None = None,
    report: Report | None = None,
    scored: Progress | None = None,
) -> dict[str, Any]:
    """Train a two-class head on a body, and judge it on questions that it was not trained on.

    The threshold of the first error is chosen on the validation questions; every figure is
    computed on the test questions.

    Args:
        rows: step-labelled rows, from `read_labelled`.
        model: the body to train: a folder, or a name on the Hub. A two-class token classifier
            is trained further.
        output: a folder for the trained model, new or empty.
        settings: `PRMTrainSettings()` if absent.
        resume: whether to continue the run in this folder, from its newest checkpoint.
        extra: further entries of `training.json`, such as the names of the files.
        report: called with (updates done, all updates, newest loss or None).
        scored: called with (part, solutions scored, all solutions) while the model is judged.

    Returns:
        The contents of `metrics.json`: the counts of each part (`parts`), and the figures of
        `judge_scores` on the test questions. The folder is a checkpoint of transformers, which the
        signal `prm` loads, with `training.json`, `training.jsonl` (the losses) and `judged.png`.

    Raises:
        RolloutError: a solution is longer than `max_length` or the model's context.
        StepCreditError: a part has no labelled row, or a launcher started several processes.
        FileError: the folder is not empty, or holds another run.
        SignalError: the model does not load.
        MissingExtra: the extra `prm` is not installed.

    Source: Lightman et al. 2023 (arXiv 2305.20050), section 2.6: each step's label predicted at its
    last token. Differs: a head of two classes in place of the vocabulary.
    """
    require("prm", "transformers", "accelerate", "sklearn", "scipy", "matplotlib")
    _one_process()
    settings, folder = settings or PRMTrainSettings(), Path(output)
    record = {
        "model": str(model),
        "settings": asdict(settings),
        "rows": _fingerprint(rows),
        **(extra or {}),
    }
    _check(folder, record, resume=resume)
    data = _prepared(rows, str(model), settings)
    with file_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record)
    if not (folder / LOG).is_file():
        _train(data.train, str(model), folder, settings, report)
    figures = _judged(data, folder, settings, scored)
    write_json(folder / METRICS, figures)
    return figures


def _one_process() -> None:
    """Refuse a launcher's second process, which would write the same files."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise StepCreditError(f"{processes} processes: training runs in one", field="WORLD_SIZE")


def _check(folder: Path, record: dict[str, Any], *, resume: bool) -> None:
    """Refuse a folder that is not empty, or to resume a run that is not in the folder."""
    with file_errors(str(folder)):
        if not resume:
            if folder.is_dir() and any(folder.iterdir()):
                reason = "is not empty: choose another, or continue the run in it with --resume"
                raise FileError(reason, field=str(folder))
            return
        path = folder / RECORD
        if not path.is_file():
            raise FileError("holds no run to resume", field=str(folder))
        if json.loads(path.read_bytes()) != json.loads(json.dumps(record)):
            reason = "holds a run of other rows, settings or model"
            raise FileError(reason, field=str(folder))


def _fingerprint(rows: Sequence[LabelledRow]) -> str:
    """A digest of the rows that are trained on and judged: questions, steps, labels."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(json.dumps([row.key, row.question, row.steps, row.labels]).encode())
    return digest.hexdigest()


def _prepared(rows: Sequence[LabelledRow], model: str, settings: PRMTrainSettings) -> Data:
    """Each part's model inputs; `max_length` bounds the training rows, the context all rows."""
    from transformers import AutoConfig

    tokenizer = load_tokenizer(model)
    context = getattr(AutoConfig.from_pretrained(model), "max_position_embeddings", None)
    longest = min(filter(None, (settings.max_length, context)), default=None)
    shares = {"test": settings.test, "validation": settings.validation}
    parts = split_by_question(rows, seed=settings.seed, **shares)
    fitted = {
        name: fit_to_length(
            getattr(parts, name), settings.protocol_used, tokenizer, limit, settings.overlong
        )
        for name, limit in (("train", longest), ("validation", context), ("test", context))
    }
    for name, part in fitted.items():
        if not part.rows:
            reason = f"the {name} part has no question: expected more rows or a larger share"
            raise StepCreditError(reason, field=name)
    return Data(**fitted)


def _train(
    part: Fitted, source: str, folder: Path, settings: PRMTrainSettings, report: Report | None
) -> None:
    """Write the trained checkpoint, then the log, whose presence marks it as complete."""
    model = load_classifier(source, settings)
    tokenizer = load_tokenizer(source)
    examples = examples_of(part, settings.right_class, mask_after_error=settings.mask_after_error)
    log = fit(model, examples, settings, folder / CHECKPOINTS, report)
    with quiet_transformers():
        model.to(getattr(torch, settings.precision)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    with replacing(folder / LOG) as out:
        out.writelines(json.dumps(row).encode() + b"\n" for row in log)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _judged(
    data: Data, folder: Path, settings: PRMTrainSettings, scored: Progress | None
) -> dict[str, Any]:
    """The trained model's figures, computed with the signal `prm` that loads it."""
    inputs = [*data.validation.inputs, *data.test.inputs]
    longest = max(len(model_input.ids) for model_input in inputs)
    prm = LocalPRM(
        str(folder),
        settings.protocol,
        dict(settings.protocol_settings),
        max_tokens_per_batch=max(settings.batch_tokens, longest),
    )
    figures = evaluate_signal(
        prm,
        [*data.validation.rows, *data.test.rows],
        seed=settings.seed,
        test=settings.test,
        validation=settings.validation,
        output=folder,
        title=folder.name,
        scored=scored,
    )
    fitted = {"train": data.train, "validation": data.validation, "test": data.test}
    parts = {
        name: {**row_counts(part.rows), "rows_cut": part.cut, "rows_dropped": part.dropped}
        for name, part in fitted.items()
    }
    return {"parts": parts, **figures}
