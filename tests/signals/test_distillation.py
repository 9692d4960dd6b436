"""Distillation signals against the core's estimators on the same log-probs, bit for bit."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import chain, pairwise

import pytest
import torch
from tests.signals.tiny_models import build, save, tokenizer
from transformers import AutoTokenizer

import stepcredit as sc
from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.signals.cache import Cached
from stepcredit.signals.models.ratios import Distillation, GeneralizedDistillation
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.programs.checked import Program
from stepcredit.signals.programs.prefixes import SharedPrefix
from stepcredit.signals.responses import Response
from stepcredit.signals.served.teacher import ServedLogProbs
from stepcredit.signals.signal import Signal
from stepcredit.signals.signal_registry import signal

SIDES = ("student", "teacher", "base")


def rows_of(count=6, seed=0, known=()):
    """Random responses, with random log-probs of the sides that are known."""
    draw, rows = random.Random(seed), []
    for row in range(count):
        size = draw.randint(1, 12)
        ids = tuple(draw.randrange(330) for _ in range(size))
        spans = tuple((index, index + 1) for index in range(size))
        facts = {f"{side}_logprobs": [-6 * draw.random() for _ in ids] for side in known}
        rows.append(
            Response("?", "x" * size, spans, None, f"r:{row + 1}", ids, (1, 2, 3), facts=facts)
        )
    return rows


def rollouts_of(rows, **streams):
    return sc.Rollouts([0, 1] * (len(rows) // 2), lengths=[r.num_tokens for r in rows], **streams)


def read(rows, side):
    return [row.facts[f"{side}_logprobs"] for row in rows]


def flat(rows):
    return list(chain.from_iterable(rows))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three models of one vocabulary; the teacher's embedding is padded."""
    root = tmp_path_factory.mktemp("models")
    return {
        "student": save(root / "student", seed=1),
        "teacher": save(root / "teacher", "gpt2", seed=2, vocab_size=384),
        "base": save(root / "base", seed=3),
    }


@pytest.mark.parametrize("coefficient", [1.0, 0.3])
def test_the_signal_is_the_estimators_advantage(coefficient):
    rows = rows_of(known=SIDES)
    logprobs = {side: read(rows, side) for side in SIDES}
    rollouts = rollouts_of(rows, logprobs=logprobs)
    pairs = [
        (Distillation(), sc.OPD(coefficient=coefficient)),
        (GeneralizedDistillation(lam=1.4), sc.GOPD(coefficient=coefficient, lam=1.4)),
    ]
    for of_signal, estimator in pairs:
        scores = torch.tensor(flat(of_signal.scores(rows)), dtype=torch.float64)
        assert torch.equal((coefficient * scores).float(), estimator(rollouts).packed())


def test_as_a_ready_made_advantage_it_is_the_estimator_too():
    rows = rows_of(known=SIDES)
    scores = Distillation().scores(rows)
    ready = rollouts_of(rows, process=sc.TokenAdvantages(scores))
    known = rollouts_of(rows, logprobs={side: read(rows, side) for side in SIDES})
    passed = sc.PASS(weights=(1, 0, 0))(ready).packed()
    assert torch.equal(passed, sc.OPD()(known).packed())


def test_a_lambda_of_one_is_plain_distillation():
    rows = rows_of(known=SIDES)
    plain, general = Distillation(), GeneralizedDistillation(lam=1.0)
    for one, other in zip(plain.scores(rows), general.scores(rows), strict=True):
        assert one == pytest.approx(other, abs=1e-12)


def test_it_is_positive_where_the_teacher_is_surer():
    row = Response("?", "x", ((0, 1),), facts={"student_logprobs": [-2], "teacher_logprobs": [-1]})
    assert Distillation().scores([row]) == [[1.0]]


def test_a_steps_score_is_the_sum_over_its_tokens():
    rows = [
        replace(row, steps=tuple(sorted({1, row.num_tokens // 2 or 1, row.num_tokens})))
        for row in rows_of(known=SIDES)
    ]
    by_token = Distillation(clamp=1.0).scores(rows)
    by_step = Distillation(clamp=1.0, per="steps").scores(rows)
    for row, tokens, steps in zip(rows, by_token, by_step, strict=True):
        cut = [sum(tokens[a:b]) for a, b in pairwise((0, *row.steps))]
        assert steps == pytest.approx(cut)
    stream = Distillation(per="steps")(rows)
    assert sc.PURE()(rollouts_of(rows, process=stream)).packed().std() > 0


def test_the_clamp_bounds_both_ends():
    rows = rows_of(20, known=SIDES)
    free = flat(GeneralizedDistillation().scores(rows))
    held = flat(GeneralizedDistillation(clamp=0.5).scores(rows))
    assert held == [min(max(score, -0.5), 0.5) for score in free]
    assert min(held) == -0.5 < 0.5 == max(held)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_from_folders_it_subtracts_the_models_log_probs(folders, temperature):
    rows = rows_of()
    found = GeneralizedDistillation(**folders, lam=1.3, temperature=temperature).scores(rows)
    student, teacher, base = (
        LocalLogProbs(folders[side], temperature=temperature).scores(rows) for side in SIDES
    )
    for row, scores in enumerate(found):
        for token, score in enumerate(scores):
            s, t, b = student[row][token], teacher[row][token], base[row][token]
            assert score == pytest.approx(-((s - b) - 1.3 * (t - b)), abs=1e-9)


def test_known_student_log_probs_need_no_student_model(folders):
    rows = rows_of(known=["student"])
    found = Distillation(teacher=folders["teacher"], tokenizer=folders["student"]).scores(rows)
    teacher = LocalLogProbs(folders["teacher"]).scores(rows)
    for row, scores in enumerate(found):
        own = rows[row].facts["student_logprobs"]
        expected = [t - s for s, t in zip(own, teacher[row], strict=True)]
        assert scores == pytest.approx(expected, abs=1e-9)


def test_any_signal_of_log_probs_can_be_a_side():
    class Flat(Signal):
        grain = "tokens"
        identity = {"signal": "flat"}  # noqa: RUF012

        def stream(self, responses):
            yield from ((i, [-1.5] * row.num_tokens) for i, row in enumerate(responses))

    rows = rows_of(known=["student"])
    found = Distillation(teacher=Flat()).scores(rows)
    assert found[0] == [-1.5 - own for own in rows[0].facts["student_logprobs"]]


def test_a_side_that_reads_more_than_tokens_is_kept_by_what_it_reads(tmp_path):
    prompted = Program(lambda r: [-float(len(r.prompt))] * r.num_tokens, per="tokens")
    row = rows_of(1, known=["student"])[0]
    kept = Cached(Distillation(teacher=prompted), tmp_path / "scores.sqlite")
    short, long = kept.scores([row])[0], kept.scores([replace(row, prompt="What?")])[0]
    assert [a - b for a, b in zip(short, long, strict=True)] == [pytest.approx(4.0)] * len(short)


def test_a_side_of_group_statistics_cannot_be_kept(tmp_path):
    with pytest.raises(SettingError, match="the scores of opd depend on the other responses"):
        Cached(Distillation(teacher=SharedPrefix(per="tokens")), tmp_path / "scores.sqlite")


def test_a_teacher_whose_scores_are_kept_is_checked_as_any(folders, tmp_path):
    path = other_vocabulary(tmp_path, lambda known: known.add_tokens(["<think>"]))
    kept = Cached(LocalLogProbs(path), tmp_path / "scores.sqlite")
    with pytest.raises(SignalError, match="another vocabulary than"):
        Distillation(student=folders["student"], teacher=kept).scores(rows_of())
    kept = Cached(LocalLogProbs(folders["teacher"], temperature=0.7), tmp_path / "scores.sqlite")
    with pytest.raises(SettingError) as caught:
        Distillation(student=folders["student"], teacher=kept).scores(rows_of())
    assert str(caught.value) == "temperature: the teacher's is 0.7, the signal's 1"


def test_more_responses_than_a_window_keep_their_order():
    rows = rows_of(600, known=SIDES)
    found = Distillation().scores(rows)
    for row, scores in zip(rows, found, strict=True):
        student, teacher = (row.facts[f"{side}_logprobs"] for side in ("student", "teacher"))
        assert scores == [t - s for s, t in zip(student, teacher, strict=True)]


def other_vocabulary(folder, change):
    """A saved model whose tokenizer differs from the others' in one thing."""
    path = save(folder, seed=5)
    changed = AutoTokenizer.from_pretrained(path)
    change(changed)
    changed.save_pretrained(path)
    return path


def test_a_teacher_of_another_vocabulary_is_refused_by_name(folders, tmp_path):
    path = other_vocabulary(tmp_path, lambda known: known.add_tokens(["<think>"]))
    with pytest.raises(SignalError) as caught:
        Distillation(student=folders["student"], teacher=path).scores(rows_of())
    assert str(caught.value) == (
        f"{path}: another vocabulary than {folders['student']}'s: "
        f"token {len(tokenizer())} is '<think>', there nothing"
    )


def test_the_first_token_that_differs_is_named(folders, tmp_path):
    known = tokenizer()
    swapped = save(tmp_path, seed=5)
    file = tmp_path / "tokenizer.json"
    first, second = (known.convert_ids_to_tokens(index) for index in (40, 41))
    text = file.read_text()
    text = text.replace(f'"{first}": 40,', f'"{second}": 40,', 1)
    file.write_text(text.replace(f'"{second}": 41,', f'"{first}": 41,', 1))
    with pytest.raises(SignalError) as caught:
        GeneralizedDistillation(**{**folders, "base": swapped}).scores(rows_of())
    assert str(caught.value) == (
        f"{swapped}: another vocabulary than {folders['student']}'s: "
        f"token 40 is {second!r}, there {first!r}"
    )


def test_a_student_of_another_vocabulary_than_the_policys_is_refused(folders, tmp_path):
    path = other_vocabulary(tmp_path, lambda known: known.add_tokens(["<think>"]))
    with pytest.raises(SignalError, match="another vocabulary than"):
        Distillation(student=path, teacher=path, tokenizer=folders["student"]).scores(rows_of())


def test_a_vocabulary_that_cannot_be_checked_is_refused(folders):
    with pytest.raises(SettingError) as caught:
        Distillation(teacher=folders["teacher"]).scores(rows_of(known=["student"]))
    assert str(caught.value) == (
        "tokenizer: the policy's is needed, to check the vocabulary of the teacher"
    )
    with pytest.raises(SettingError) as caught:
        Distillation(student=build("llama"), teacher=folders["teacher"]).scores(rows_of())
    assert str(caught.value) == "tokenizer: is required with a model that is already loaded"


def test_a_mapping_is_a_served_model():
    served = {"url": "http://localhost:8000", "model": "big"}
    source = Distillation(teacher=served).sources["teacher"]
    assert isinstance(source, ServedLogProbs)
    assert (source.url, source.model) == ("http://localhost:8000", "big")
    with pytest.raises(SettingError) as caught:
        Distillation(teacher=served, temperature=0.7).scores(rows_of(known=["student"]))
    assert str(caught.value) == "temperature: the teacher's is 1, the signal's 0.7"
    with pytest.raises(SettingError, match=r"^teacher: .* unexpected keyword argument 'ulr'"):
        Distillation(teacher={"ulr": "x", "model": "big"}).scores(rows_of(known=["student"]))


def test_two_temperatures_are_refused(folders):
    teacher = LocalLogProbs(folders["teacher"], temperature=0.7)
    with pytest.raises(SettingError) as caught:
        Distillation(student=folders["student"], teacher=teacher).scores(rows_of())
    assert str(caught.value) == "temperature: the teacher's is 0.7, the signal's 1"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (None, "r:1: student_logprobs: missing: this signal needs it"),
        ([-1.0], "r:1: student_logprobs: 1 numbers for 2 tokens"),
        ([-1.0, None], "r:1: student_logprobs: expected finite numbers, got None"),
        (-1.0, "r:1: student_logprobs: expected a list of numbers, got -1.0"),
    ],
)
def test_log_probs_of_a_row_that_do_not_fit_are_named(given, line):
    facts = {"student_logprobs": given, "teacher_logprobs": [-1.0, -1.0]}
    row = Response("?", "ab", ((0, 1), (1, 2)), name="r:1", facts=facts)
    with pytest.raises(RolloutError) as caught:
        Distillation().scores([row])
    assert str(caught.value) == line


def test_a_step_signal_is_no_source_of_log_probs():
    with pytest.raises(SettingError, match="teacher: expected a signal of log-probs, one per"):
        Distillation(teacher=signal("shared-prefix"))


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("opd", {"teacher": 3}, "teacher: expected a model's folder or name, a loaded model, or"),
        ("logprobs", {"model": ["m"]}, "model: expected a model's folder or name, or a loaded"),
        ("answer-progress", {"model": 0.5}, "model: expected a model's folder or name, or a"),
        ("logprobs", {"model": "m", "policy": 5}, "policy: expected a tokenizer's folder or name,"),
    ],
)
def test_what_is_no_model_or_tokenizer_is_refused_before_anything_loads(name, settings, line):
    with pytest.raises(SettingError) as caught:
        signal(name, **settings)
    assert str(caught.value).startswith(line)


def test_what_is_cached_depends_on_models_settings_and_known_log_probs(folders):
    rows = rows_of(2, known=["student"])
    one = Distillation(teacher=folders["teacher"], tokenizer=folders["student"])
    assert one.content(rows[0])[0] == {"student": rows[0].facts["student_logprobs"]}
    assert one.content(rows[0]) != one.content(rows[1])
    marks = [
        signal("opd", **settings).identity
        for settings in (
            {"teacher": folders["teacher"]},
            {"teacher": folders["base"]},
            {"teacher": folders["teacher"], "clamp": 1.0},
            {"teacher": folders["teacher"], "temperature": 0.5},
        )
    ]
    assert all(one != other for i, one in enumerate(marks) for other in marks[:i])
