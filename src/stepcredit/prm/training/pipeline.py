"""Train a process reward model on labelled rows, judge it on held-out questions, write a folder."""

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


def train_prm(
    rows: Sequence[LabelledRow],
    model: str | Path,
    output: str | Path,
    settings: PRMTrainSettings | None = None,
    *,
    resume: bool = False,
    told: Mapping[str, Any] | None = None,
    report: Report | None = None,
    scored: Progress | None = None,
) -> dict[str, Any]:
    """Train a two-class head on a body, and judge it on questions that it was not trained on.

    The threshold of the first error is chosen on the validation questions; every figure is
    computed on the test questions.

    Args:
        rows: step-labelled, of `read_labelled`.
        model: the body: a folder, or a name on the Hub; a two-class token classifier is
            trained further.
        output: a folder for the trained model, new or empty.
        settings: `PRMTrainSettings()` if absent.
        resume: continue the run in this folder, from its newest checkpoint.
        told: further entries of `training.json`, such as the files.
        report: called with (updates done, in all, newest loss or None).
        scored: called with (part, solutions scored, in all) while the trained model is judged.

    Returns:
        What `metrics.json` holds: what each part had (`parts`), and the test questions' figures of
        `judge`. The folder is a checkpoint of transformers and serves as the signal `prm`, with
        `training.json`, `training.jsonl` (the losses) and `judged.png`.

    Raises:
        RolloutError: a solution longer than `max_length` or the model's context.
        StepCreditError: a part without a labelled row, or a launcher of several processes.
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
        **(told or {}),
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
    """Refuse a folder that holds something else than what is to be done in it."""
    with file_errors(str(folder)):
        if not resume:
            if folder.is_dir() and any(folder.iterdir()):
                reason = "is not empty: choose another, or go on with the run in it by --resume"
                raise FileError(reason, field=str(folder))
            return
        path = folder / RECORD
        if not path.is_file():
            raise FileError("holds no run to go on with", field=str(folder))
        if json.loads(path.read_bytes()) != json.loads(json.dumps(record)):
            reason = "holds a run of other rows, settings or model"
            raise FileError(reason, field=str(folder))


def _fingerprint(rows: Sequence[LabelledRow]) -> str:
    """Of what is trained on and judged: questions, steps, labels."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(json.dumps([row.key, row.question, row.steps, row.labels]).encode())
    return digest.hexdigest()


def _prepared(rows: Sequence[LabelledRow], model: str, settings: PRMTrainSettings) -> Data:
    """Rows by part, laid out; the model's context bounds them all, `max_length` what is trained."""
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
            reason = f"no question fell into the {name} part: expected more rows or a larger share"
            raise StepCreditError(reason, field=name)
    return Data(**fitted)


def _train(
    part: Fitted, source: str, folder: Path, settings: PRMTrainSettings, report: Report | None
) -> None:
    """The trained checkpoint, and then the log, which marks it whole."""
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
    """The trained model's figures, by the signal that anyone would load it as."""
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
    parts = {name: _told(getattr(data, name)) for name in ("train", "validation", "test")}
    return {"parts": parts, **figures}


def _told(part: Fitted) -> dict[str, int]:
    return {**row_counts(part.rows), "rows_cut": part.cut, "rows_dropped": part.dropped}
