"""A server's bound on requests at once, divided among the reward loop's workers."""

from __future__ import annotations

import pytest

from stepcredit.engines.verl.reward_loop import split_concurrency
from stepcredit.errors import SettingError
from stepcredit.signals.cache import Cached
from stepcredit.signals.combine import Affine, Weighted
from stepcredit.signals.served.teacher import ServedLogProbs
from stepcredit.signals.signal import Signal
from stepcredit.signals.signal_registry import signal


def asked_at_once(given):
    """The `concurrency` of each served signal that a signal is or is made of."""
    if isinstance(given, ServedLogProbs):
        return [given.concurrency]
    if isinstance(given, Signal):
        return [found for name in vars(given) for found in asked_at_once(getattr(given, name))]
    return (
        [found for each in given for found in asked_at_once(each)] if type(given) is tuple else []
    )


def test_served_parts_of_a_signal_have_the_workers_share(tmp_path):
    model = {"url": "http://localhost:8000", "model": "m"}
    teacher = signal("logprobs-served", **model, concurrency=20)
    settings = {**model, "concurrency": 9}
    ratio = signal("g-opd", teacher=teacher, student=settings, base=model)
    assert asked_at_once(split_concurrency(ratio, 4)) == [5, 2, 8]
    mapped = Affine(Cached(teacher, tmp_path / "scores"), scale=2.0)
    whole = Weighted((mapped, signal("opd", teacher=teacher, student=settings)), weights=(1, 3))
    split = split_concurrency(whole, 4)
    assert asked_at_once(split) == [5, 5, 2]
    assert (split.weights, split.signals[0].scale, split.cacheable) == ((1, 3), 2.0, True)
    assert split.identity == whole.identity
    equations = signal("equations")
    assert split_concurrency(equations, 4) == equations


def test_a_teachers_settings_that_make_no_sense_are_told_by_its_name():
    with pytest.raises(SettingError, match=r"^teacher: .*'model'"):
        signal("opd", teacher={"url": "http://localhost:8000"}, student="a-folder")
