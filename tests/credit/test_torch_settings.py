"""What torch is set to elsewhere in a program changes nothing: devices, dtypes, determinism."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
import torch
from tests.credit.cases import CASES, Case
from tests.credit.strategies import Rows, build, random_rows
from torch.utils._python_dispatch import TorchDispatchMode

import stepcredit as sc
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.credit.stages.chunker_registry import OURS
from stepcredit.data import forest

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
CHUNKERS = [name for name in OURS if name != "steps"]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS = {
    "meta": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
}


def rows_of(case: Case) -> Rows:
    options = {name: value for name, value in case.options.items() if name != "gaps"}
    return random_rows(Random(7), [3, 2], case.signals[0], "real", **options)


def everything(estimator: sc.Estimator, rows: Rows, dtype: torch.dtype | None) -> dict[str, Any]:
    rollouts = build(rows, dtype) if dtype is None else build(rows)
    advantages = estimator(rollouts)
    mask = [[1] * n + [0] * (12 - n) for n in rollouts.lengths.tolist()]
    return {
        "packed": advantages.packed().tolist(),
        "padded": advantages.padded(mask).tolist(),
        "wide": advantages.padded(width=12).tolist(),
        "explained": estimator.explain(rollouts).rows,
        "shown": str(estimator.explain(rollouts)),
        "metrics": training_metrics(rollouts, estimator, truncated=[True] + [False] * 4),
        "taken": estimator(rollouts.take(range(5))).packed().tolist(),
        "flagged": rollouts.take([True, False] * 2 + [True]).lengths.tolist(),
    }


@pytest.mark.parametrize("setting", SETTINGS)
@every_case
def test_a_default_changes_nothing(case: Case, setting: str) -> None:
    rows, estimator = rows_of(case), case.estimator()
    want = everything(estimator, rows, None)
    with SETTINGS[setting]():
        assert everything(estimator, rows, None) == want


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("chunker", CHUNKERS)
def test_a_default_changes_no_chunk(chunker: str, setting: str) -> None:
    rows = random_rows(Random(3), [3, 2], "tokens", "real")
    texts = [["a.", "b\n", "c"][: row["length"]] + ["d"] * (row["length"] - 3) for row in rows]
    method = sc.PASS(chunks=chunker)

    def found() -> list[float]:
        return method(build(rows).replaced(tokens=texts)).packed().tolist()

    want = found()
    with SETTINGS[setting]():
        assert found() == want


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_default_changes_no_padded_rollouts(setting: str) -> None:
    mask, ids = torch.tensor([[1, 1, 0], [0, 1, 1]]), torch.tensor([[0, 1, 1], [-1, 0, 1]])
    scores = torch.tensor([[0.5, 0.25], [0.125, 1.0]])

    def found() -> list[float]:
        rollouts = sc.Rollouts.from_padded(
            mask,
            ["q", "q"],
            step_id=ids,
            step_scores=scores,
            outcome=[1.0, 0.0],
            format_ok=[True, False],
            tokens=[["a", "b", "c"]] * 2,
        )
        return sc.PASS()(rollouts).padded(mask).tolist()

    want = found()
    with SETTINGS[setting]():
        assert found() == want


class Deterministic(TorchDispatchMode):
    """Refuses the operations that torch refuses on CUDA under deterministic algorithms."""

    NEVER = ("histc", "put_", "kthvalue", "median.dim", "cumprod")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        assert not name.startswith(self.NEVER), name
        if name.startswith("cumsum"):
            assert not args[0].is_floating_point(), name
        if name.startswith("bincount"):
            assert len(args) < 2 or args[1] is None
        if name.startswith("scatter_reduce"):
            assert args[4] in ("amax", "amin", "sum", "mean")
        return func(*args, **(kwargs or {}))


@every_case
def test_no_operation_is_used_that_cuda_has_no_deterministic_form_of(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, as if it were CUDA: float sums are then made by doubling, and agree."""
    rows, estimator = rows_of(case), case.estimator()
    want = estimator(build(rows)).packed()
    monkeypatch.setattr(forest, "_refuses_cumsum", lambda dense: True)
    with Deterministic():
        found = estimator(build(rows)).packed()
        training_metrics(build(rows), estimator)
        estimator.explain(build(rows))
    assert float((found - want).abs().max()) <= 1e-6 * max(1.0, float(want.abs().max()))


def test_the_check_of_operations_refuses_a_float_sum() -> None:
    with Deterministic(), pytest.raises(AssertionError, match="cumsum"):
        forest.suffix_sum(torch.ones(2, 3))


@pytest.mark.parametrize("width", [1, 2, 3, 7, 64, 100])
def test_sums_by_doubling_are_suffix_sums(width: int) -> None:
    table = torch.randn(5, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = table.clone()
    torch.testing.assert_close(forest.doubling_suffix_sum(table), forest.suffix_sum(table))
    assert torch.equal(table, before)


@every_case
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_gives_the_same_under_deterministic_algorithms(case: Case) -> None:
    rows, estimator = rows_of(case), case.estimator()
    want = estimator(build(rows)).packed()
    torch.use_deterministic_algorithms(True)
    try:
        found = estimator(build(rows).to("cuda")).packed().cpu()
    finally:
        torch.use_deterministic_algorithms(False)
    assert float((found - want).abs().max()) <= 1e-6 * max(1.0, float(want.abs().max()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_signals_on_several_devices_meet_on_the_gpu() -> None:
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]], device="cuda")
    scores = torch.tensor([[0.5, 0.25, 0.0], [0.0, 1.0, 0.75]])
    found = sc.Rollouts.from_padded(mask, [0, 0], token_scores=scores, outcome=[1.0, 0.0])
    mixed = sc.Rollouts(
        [0, 0],
        process={"process": sc.Tokens([[0.5, 0.25], [1.0, 0.75]]), "b": found.streams["process"]},
        step_ends=[[0, 1], [1]],
        outcome=[1.0, 0.0],
    )
    assert {s.values.device.type for s in mixed.streams.values()} == {"cuda"}
    on_gpu = sc.PASS(chunks="steps")(mixed).padded(mask.cpu())
    assert on_gpu.device.type == "cuda"
    assert torch.equal(on_gpu.cpu(), sc.PASS(chunks="steps")(mixed.to("cpu")).padded(mask.cpu()))
