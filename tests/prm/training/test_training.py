"""A tiny reward model: what its loss is made of, that it learns, resumes, and loads back."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
from tests.prm.training.labelled import make_body, row_of, ruled_rows
from torch import Tensor
from transformers import AutoModelForTokenClassification, AutoTokenizer

from stepcredit.errors import FileError, RolloutError, SettingError, SignalError, StepCreditError
from stepcredit.prm.judging.judged_files import evaluate_signal
from stepcredit.prm.labelled.labelled_file import read_labelled
from stepcredit.prm.labelled.labelled_rows import LabelledRow, split_by_question
from stepcredit.prm.local import LocalPRM
from stepcredit.prm.training.examples import (
    batched,
    collated,
    examples_of,
    fit_to_length,
)
from stepcredit.prm.training.fitting import load_classifier, step_loss
from stepcredit.prm.training.pipeline import train_prm
from stepcredit.prm.training.train_settings import PRMTrainSettings
from stepcredit.signals.signal_registry import signal

QUICK = {"learning_rate": 5e-3, "batch_tokens": 1024, "warmup": 0.1}


@pytest.fixture(scope="module")
def rows() -> list[LabelledRow]:
    return ruled_rows(160)


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory, rows: list[LabelledRow]) -> Path:
    return make_body(tmp_path_factory.mktemp("body"), rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, body: Path, rows: list[LabelledRow]) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "prm"
    train_prm(rows, body, folder, PRMTrainSettings(epochs=12, **QUICK))
    return folder


def test_it_learns_a_rule_it_was_not_shown(trained: Path, rows: list[LabelledRow]) -> None:
    found = json.loads((trained / "metrics.json").read_text())
    parts = split_by_question(rows)
    assert found["data"]["questions"] == len(parts.test)
    assert found["parts"]["train"]["rows"] == len(parts.train)
    assert found["steps"]["roc_auc"] > 0.9
    assert found["first_error"]["f1"] > 0.7
    low, high = found["intervals"]["roc_auc"]
    assert 0.5 < low <= found["steps"]["roc_auc"] <= high
    losses = [json.loads(line) for line in (trained / "training.jsonl").read_text().splitlines()]
    assert losses[-1]["loss"] < 0.5 * losses[0]["loss"]
    assert (trained / "judged.png").read_bytes()[:4] == b"\x89PNG"


def test_before_training_it_knew_nothing(body: Path, rows: list[LabelledRow]) -> None:
    model = load_classifier(str(body), PRMTrainSettings())
    tokenizer = AutoTokenizer.from_pretrained(body)
    prm = LocalPRM(model, "token-classifier", tokenizer=tokenizer)
    found = evaluate_signal(prm, rows, threshold=0.5, test=1.0, validation=0.0)
    assert found["steps"]["roc_auc"] == pytest.approx(0.5, abs=0.1)


def test_the_threshold_is_of_the_validation_questions_alone(
    trained: Path, rows: list[LabelledRow]
) -> None:
    """The same threshold comes out where no test question is there."""
    found = json.loads((trained / "metrics.json").read_text())["first_error"]
    validation = split_by_question(rows).validation
    prm = signal("prm", model=str(trained), protocol="token-classifier")
    scores = prm.scores([row.response for row in validation])
    grid = sorted({0.0, *(score for own in scores for score in own), 1.1})
    best = max(f1_of(validation, scores, threshold) for threshold in grid)
    assert f1_of(validation, scores, found["threshold"]) == pytest.approx(best)
    assert found["threshold_from"] == "best F1 on the validation questions"


def f1_of(rows: list[LabelledRow], scores: list[list[float]], threshold: float) -> float:
    hits: dict[bool, list[bool]] = {True: [0], False: [0]}  # type: ignore[list-item]
    for row, own in zip(rows, scores, strict=True):
        first = next((i for i, score in enumerate(own) if score < threshold), None)
        hits[0 in row.labels].append(first == row.first_error)
    wrong, right = (sum(h) / max(1, len(h) - 1) for h in (hits[True], hits[False]))
    return 2 * wrong * right / (wrong + right) if wrong + right else 0.0


def test_the_folder_loads_back_as_a_signal_and_as_transformers_model(
    trained: Path, rows: list[LabelledRow]
) -> None:
    """The signal's scores are those of the input built by hand, each step in its own forward."""
    row = split_by_question(rows).test[0]
    (scores,) = signal("prm", model=str(trained), protocol="token-classifier").scores(
        [row.response]
    )
    model = AutoModelForTokenClassification.from_pretrained(trained).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert model.config.id2label == {0: "wrong", 1: "right"}
    ids = tokenizer.encode(row.question, add_special_tokens=False)
    for step, score in zip(row.steps, scores, strict=True):
        ids += tokenizer.encode(step, add_special_tokens=False)
        ids += tokenizer.encode("\n", add_special_tokens=False)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        assert score == pytest.approx(float(logits.softmax(-1)[1]), abs=1e-5)


def test_it_fits_real_rows(tmp_path: Path, shared_dir: Path) -> None:
    path = shared_dir / "data/prm/prm800k_train_p1_first400_4o_circular.jsonl"
    short = [r for r in read_labelled([path], bad="skip").rows if len("".join(r.steps)) < 500][:60]
    settings = PRMTrainSettings(epochs=12, test=0.1, validation=0.1, **QUICK)
    train_prm(short, make_body(tmp_path / "body", short), tmp_path / "prm", settings)
    shown = split_by_question(short, test=0.1, validation=0.1).train
    prm = signal("prm", model=str(tmp_path / "prm"), protocol="token-classifier")
    found = evaluate_signal(prm, shown, threshold=0.5, test=1.0, validation=0.0)
    assert found["data"]["wrong_steps"] > 20
    assert found["steps"]["roc_auc"] > 0.85


class Stop(Exception):
    """What ends a run in the middle."""


def stop_at(update: int) -> Callable[[int, int, float | None], None]:
    def report(done: int, total: int, loss: float | None) -> None:
        if done == update:
            raise Stop

    return report


def weights(folder: Path) -> dict[str, Tensor]:
    return AutoModelForTokenClassification.from_pretrained(folder).state_dict()


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, body: Path, rows: list[LabelledRow]
) -> None:
    settings = PRMTrainSettings(max_steps=12, checkpoint_every=4, **{**QUICK, "batch_tokens": 512})
    whole = train_prm(rows, body, tmp_path / "whole", settings)
    with pytest.raises(Stop):
        train_prm(rows, body, tmp_path / "half", settings, report=stop_at(10))
    assert not (tmp_path / "half" / "metrics.json").exists()
    seen: list[int] = []
    half = train_prm(
        rows,
        body,
        tmp_path / "half",
        settings,
        resume=True,
        report=lambda done, total, loss: seen.append(done),
    )
    assert seen == [9, 10, 11, 12]
    assert half == whole
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "half")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not (tmp_path / "half" / "checkpoints").exists()


def test_resume_refuses_another_run(tmp_path: Path, body: Path, rows: list[LabelledRow]) -> None:
    settings = PRMTrainSettings(max_steps=1, **QUICK)
    with pytest.raises(FileError, match=r"none: holds no run to resume$"):
        train_prm(rows, body, tmp_path / "none", settings, resume=True)
    train_prm(rows, body, tmp_path / "one", settings)
    with pytest.raises(FileError, match=r"one: is not empty: choose another, or continue"):
        train_prm(rows, body, tmp_path / "one", settings)
    with pytest.raises(FileError, match=r"one: holds a run of other rows, settings or model$"):
        train_prm(rows[:-1], body, tmp_path / "one", settings, resume=True)


def by_hand(logits: list[list[float]], classes: list[int], smoothing: float) -> list[float]:
    """Each labelled token's loss, from its definition."""
    losses = []
    for (a, b), wanted in zip(logits, classes, strict=True):
        if wanted == -100:
            continue
        total = math.log(math.exp(a) + math.exp(b))
        log_p = [a - total, b - total]
        smoothed = sum(log_p) / 2
        losses.append(-((1 - smoothing) * log_p[wanted] + smoothing * smoothed))
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_by_hand(smoothing: float) -> None:
    logits = [[0.3, -1.0], [2.0, 0.5], [0.0, 0.0], [-1.0, 3.0]]
    classes = [-100, 1, -100, 0]
    expected = by_hand(logits, classes, smoothing)
    outputs, labels = SimpleNamespace(logits=torch.tensor([logits])), torch.tensor([classes])
    assert float(step_loss(outputs, labels, smoothing=smoothing)) == pytest.approx(
        sum(expected) / 2
    )
    assert float(step_loss(outputs, labels, 8, smoothing=smoothing)) == pytest.approx(
        sum(expected) / 8
    )


def examples_by_hand(
    body: Path, rows: list[LabelledRow], *, masked: bool
) -> list[tuple[list[int], list[int]]]:
    """Tokens and classes: a step's label at the newline after it, nothing elsewhere."""
    tokenizer = AutoTokenizer.from_pretrained(body)
    newline = tokenizer.encode("\n", add_special_tokens=False)
    found = []
    for row in rows:
        ids = tokenizer.encode(row.question, add_special_tokens=False)
        classes, wrong = [-100] * len(ids), False
        for step, label in zip(row.steps, row.labels, strict=True):
            own = tokenizer.encode(step, add_special_tokens=False) + newline
            ids += own
            hidden = label is None or (masked and wrong)
            classes += [-100] * (len(own) - 1) + [-100 if hidden else label]  # type: ignore[list-item]
            wrong = wrong or label == 0
        found.append((ids, classes))
    return found


@pytest.mark.parametrize("masked", [False, True])
def test_labels_stand_where_steps_are_read(body: Path, masked: bool) -> None:
    rows = [row_of([1, 0, 0, 1], question="red?"), row_of([None, 1, 0, None], question="blue?")]
    tokenizer = AutoTokenizer.from_pretrained(body)
    fitted = fit_to_length(rows, PRMTrainSettings().protocol_used, tokenizer, None)
    found = examples_of(fitted, 1, mask_after_error=masked)
    expected = examples_by_hand(body, rows, masked=masked)
    assert [(one.ids, one.classes) for one in found] == expected
    batch = collated(found)
    width = max(len(ids) for ids, _ in expected)
    assert batch["attention_mask"].sum(1).tolist() == [len(ids) for ids, _ in expected]
    assert batch["labels"].tolist() == [
        classes + [-100] * (width - len(classes)) for _, classes in expected
    ]


def test_the_trainer_minimizes_that_loss(
    tmp_path: Path, trained: Path, rows: list[LabelledRow]
) -> None:
    """One update over two batches: its loss is the mean over all steps of both, smoothed.

    It starts from a trained head, of which every label and every mask makes a difference.
    """
    body = without_dropout(trained, tmp_path / "body")
    settings = PRMTrainSettings(
        max_steps=1,
        accumulate=2,
        label_smoothing=0.2,
        mask_after_error=True,
        test=0.4,
        validation=0.3,
        **{**QUICK, "batch_tokens": 700},
    )
    train_prm(rows, body, tmp_path / "prm", settings)
    (logged,) = map(json.loads, (tmp_path / "prm/training.jsonl").read_text().splitlines())
    shown = split_by_question(rows, test=0.4, validation=0.3).train
    tokenizer = AutoTokenizer.from_pretrained(body)
    fitted = fit_to_length(shown, settings.protocol_used, tokenizer, None)
    assert len(batched(examples_of(fitted, 1, mask_after_error=True), 700)) == 2
    assert logged["loss"] == pytest.approx(mean_loss(body, shown, 0.2, masked=True), abs=1e-4)
    assert abs(mean_loss(body, shown, 0.0, masked=True) - logged["loss"]) > 0.01
    assert abs(mean_loss(body, shown, 0.2, masked=False) - logged["loss"]) > 0.001


def without_dropout(trained: Path, folder: Path) -> Path:
    shutil.copytree(trained, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "classifier_dropout": 0.0}))
    return folder


def mean_loss(body: Path, rows: list[LabelledRow], smoothing: float, *, masked: bool) -> float:
    """The loss by hand, each solution in its own forward."""
    model = AutoModelForTokenClassification.from_pretrained(body).eval()
    losses = []
    for ids, classes in examples_by_hand(body, rows, masked=masked):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].tolist()
        losses += by_hand(logits, classes, smoothing)
    return sum(losses) / len(losses)


def test_pure_s_protocol_trains_and_loads_back(
    tmp_path: Path, body: Path, rows: list[LabelledRow]
) -> None:
    settings = PRMTrainSettings(protocol="pure", max_steps=2, precision="bfloat16", **QUICK)
    train_prm(rows, body, tmp_path / "prm", settings)
    prm = signal("prm", model=str(tmp_path / "prm"), protocol="pure")
    assert isinstance(prm, LocalPRM)
    as_shares = signal("prm", model=str(tmp_path / "prm"), protocol="token-classifier")
    responses = [row.response for row in rows[:4]]
    for own, shares in zip(prm.scores(responses), as_shares.scores(responses), strict=True):
        assert own == pytest.approx([2 * share - 1 for share in shares], abs=1e-6)
    assert next(prm.scorer.parameters()).dtype == torch.bfloat16


def test_the_class_of_right_steps_is_the_protocol_s(
    tmp_path: Path, body: Path, rows: list[LabelledRow]
) -> None:
    settings = PRMTrainSettings(protocol_settings={"positive": 0}, epochs=2, **QUICK)
    found = train_prm(rows, body, tmp_path / "prm", settings)
    assert found["steps"]["roc_auc"] > 0.6
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "prm")
    assert model.config.id2label == {0: "right", 1: "wrong"}


def test_long_rows_are_refused_or_cut(body: Path) -> None:
    tokenizer, protocol = AutoTokenizer.from_pretrained(body), PRMTrainSettings().protocol_used
    row = row_of([1, 0, 1], question="red?", steps=["blue", "green", "pink"])
    whole = fit_to_length([row], protocol, tokenizer, None).inputs[0]
    limit = whole.positions[1] + 1
    length = len(whole.ids)
    with pytest.raises(RolloutError) as raised:
        fit_to_length([row], protocol, tokenizer, limit)
    reason = f"steps: is {length} tokens with its question, more than {limit}"
    assert str(raised.value) == f"rows.jsonl:1: {reason}"
    cut = fit_to_length([row], protocol, tokenizer, limit, "cut")
    assert (cut.cut, cut.dropped, cut.rows[0].labels) == (1, 0, (1, 0))
    assert cut.inputs[0].ids == whole.ids[:limit]
    none = fit_to_length([row, row_of([None])], protocol, tokenizer, 2, "cut")
    assert (none.cut, none.dropped, none.rows) == (2, 2, [])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "smoothing": ({"label_smoothing": 1.0}, "label_smoothing: expected a number below 1, got 1.0"),
    "head": (
        {"protocol": "math-shepherd"},
        "protocol: expected a protocol with a head of two classes; math-shepherd has another head",
    ),
    "protocol": ({"protocol": "x"}, "protocol: unknown protocol 'x'"),
    "shares": ({"test": 0.9}, "test: expected test + validation below 1, got 0.9 + 0.1"),
    "overlong": ({"overlong": "x"}, "overlong: expected one of refuse, cut, got 'x'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(name: str) -> None:
    fields, reason = BAD[name]
    with pytest.raises(SettingError) as raised:
        PRMTrainSettings(**fields)
    assert str(raised.value).startswith(reason)


def test_what_can_not_be_trained(tmp_path: Path, body: Path, rows: list[LabelledRow]) -> None:
    with pytest.raises(StepCreditError, match=r"^test: the test part has no question: "):
        train_prm(rows, body, tmp_path / "a", PRMTrainSettings(test=0.0, validation=0.1))
    with pytest.raises(SignalError, match=r"nothing: does not load: "):
        train_prm(rows, tmp_path / "nothing", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_several_processes_are_refused(
    tmp_path: Path, rows: list[LabelledRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StepCreditError, match=r"^WORLD_SIZE: 2 processes: training runs in one$"):
        train_prm(rows, tmp_path, tmp_path / "prm")
