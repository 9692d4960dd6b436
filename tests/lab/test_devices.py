"""A run's device: part of its key, refused where it is not, and on a GPU the same job."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

pytest.importorskip("trl")

import torch
from tests.lab.micro import MICRO_WARM
from tests.study.fake_store import fill_store
from tests.study.micro_study import MICRO, MICRO_LAB, run_micro

from stepcredit.errors import FileError, StepCreditError
from stepcredit.lab import comparison as job
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.study.agreement_check import check_agreement
from stepcredit.study.budget import preset_costs
from stepcredit.study.run_key import run_key
from stepcredit.study.single_run import run_once, start_name
from stepcredit.study.study_cells import Arm
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_presets import find_preset
from stepcredit.study.study_store import Origin, StudyStore

ORIGIN = Origin("a machine", "versions", "")
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_a_gpu_changes_the_key_and_the_cpu_does_not() -> None:
    plain, cpu, gpu = (
        LabSettings(compare=None, **given) for given in ({}, {"device": "cpu"}, {"device": "cuda"})
    )
    assert run_key(plain) == run_key(cpu) != run_key(gpu)
    assert start_name(plain) == start_name(cpu) != start_name(gpu)
    assert plain.warm.key() == gpu.warm.key()


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(StepCreditError, match="device: expected one of cpu, cuda, got 'gpu'"):
        LabSettings(device="gpu")


@NO_GPU
def test_a_gpu_that_is_not_here_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    settings = LabSettings(device="cuda")
    with pytest.raises(StepCreditError, match="torch sees no GPU here"):
        job.train(settings, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@NO_GPU
def test_a_study_on_a_gpu_that_is_not_here_records_no_run(tmp_path: Path) -> None:
    with pytest.raises(StepCreditError, match="torch sees no GPU here"):
        run_micro(tmp_path / "study.sqlite", tmp_path / "cache", MICRO.on_device("cuda"))
    with StudyStore(tmp_path / "study.sqlite") as store:
        assert store.statuses() == {}
        assert StudyData(store).runs == []  # nor a plan


def test_a_store_holds_runs_of_one_device(tmp_path: Path) -> None:
    cpu, gpu = MICRO.cells(), MICRO.on_device("cuda").cells()
    with StudyStore(tmp_path / "study.sqlite", create=True) as store:
        store.fail(gpu[0], "an error", ORIGIN)  # which is no run of a page
        store.check_devices(cpu)
        with pytest.raises(FileError, match="has no run yet, and gets runs on cpu, cuda"):
            store.check_devices([*cpu, *gpu])
    for name, device in (("cpu.sqlite", "cpu"), ("gpu.sqlite", "cuda")):
        preset = find_preset("quick", None).on_device(device)
        fill_store(tmp_path / name, preset, {})
    with StudyStore(tmp_path / "cpu.sqlite") as store:
        store.check_devices(cpu)
        with pytest.raises(FileError, match="has runs on cpu, and gets runs on cuda"):
            store.check_devices(gpu)
        before = store.statuses()
        with pytest.raises(FileError, match="has runs on cpu, and gets runs on cuda"):
            store.merge(tmp_path / "gpu.sqlite")
        assert store.statuses() == before


def test_a_preset_is_moved_whole_whatever_its_parts_say() -> None:
    block = replace(
        MICRO.blocks[0],
        lab={**MICRO_LAB, "device": "cpu"},
        arms=(Arm("grpo", "grpo", {}, {"device": "cpu"}), Arm("pass", "pass")),
    )
    moved = replace(MICRO, blocks=(block,)).on_device("cuda").cells()
    assert {cell.settings.device for cell in moved} == {"cuda"}
    with pytest.raises(StepCreditError, match=r"^device: expected one of cpu, cuda, got 'gpu'"):
        MICRO.on_device("gpu")


def test_runs_of_two_devices_are_checked_against_each_other(tmp_path: Path) -> None:
    found = []
    for name, device in (("cpu.sqlite", "cpu"), ("gpu.sqlite", "cuda")):
        fill_store(tmp_path / name, find_preset("quick", None).on_device(device), {})
        with StudyStore(tmp_path / name) as store:
            found.append(StudyData(store))
    assert check_agreement(*found).agrees
    on_cpu, on_gpu = (
        sum(cost.done for cost in preset_costs(tmp_path / "gpu.sqlite", tmp_path / "no.yaml", name))
        for name in (None, "cuda")
    )
    assert (on_cpu, on_gpu) == (0, len(found[1].finished))


@GPU
@pytest.mark.parametrize("method", ["pass", "opd"])
def test_a_run_on_a_gpu_samples_as_the_cpu_does(tmp_path: Path, method: str) -> None:
    micro: dict[str, Any] = {**MICRO_LAB, "teacher": replace(MICRO_WARM, seed=7)}
    cpu = LabSettings(method=method, compare=None, **micro)
    results = [
        run_once(
            replace(cpu, device=name), tmp_path / "cache", tmp_path / name, lambda update: None
        )
        for name in ("cpu", "cuda")
    ]
    before = [result.before[0].figures["pass_at_1"] for result in results]
    assert before[0] == pytest.approx(before[1], abs=0.05)
    first = [result.curve[0]["length"] for result in results]
    assert first[0] == pytest.approx(first[1], rel=0.1)
