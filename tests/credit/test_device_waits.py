"""On a GPU the work does not wait for each group: shown on a CPU, along the paths of a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from tests.credit.cases import CASES, Case
from tests.credit.padding import pad, padded_arguments
from tests.credit.strategies import Rows, random_rows
from tests.device_waits import DeviceWaits, as_on_a_gpu

import stepcredit as sc
from stepcredit.errors import StepCreditError

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
FLAGS = torch.tensor([True, False, True])
VALUES = torch.tensor([3.0, 4.0, 5.0])
GROUPS = (4, 16, 64)


def with_flags(values: torch.Tensor) -> None:
    values.clone()[FLAGS] = 0.0


WAITS: dict[str, Callable[[], Any]] = {
    "item": lambda: VALUES.sum().item(),
    "tolist": lambda: VALUES.tolist(),
    "cpu": lambda: VALUES.cpu(),
    "numpy": lambda: VALUES.numpy(),
    "__bool__": lambda: bool(FLAGS.any()),
    "__int__": lambda: int(VALUES.max()),
    "__float__": lambda: float(VALUES.max()),
    "__index__": lambda: [1, 2, 3][FLAGS.sum()],
    "nonzero": lambda: FLAGS.nonzero(),
    "unique": lambda: VALUES.unique(),
    "masked_select": lambda: VALUES.masked_select(FLAGS),
    "equal": lambda: torch.equal(VALUES, VALUES),
    "bincount": lambda: torch.bincount(FLAGS.long()),
    "boolean index": lambda: VALUES[FLAGS],
    "repeat_interleave without output_size": lambda: VALUES.repeat_interleave(FLAGS.long()),
    "where of a condition alone": lambda: torch.where(FLAGS),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_is_counted(name: str) -> None:
    with DeviceWaits() as found:
        WAITS[name]()
    assert found.waits == Counter([name])


def test_writing_by_flags_is_counted_and_what_does_not_wait_is_not() -> None:
    with DeviceWaits() as found:
        with_flags(VALUES)
    assert found.waits == Counter(["boolean index"])
    with DeviceWaits() as found:
        torch.where(FLAGS, VALUES[1:].sum(), VALUES[torch.tensor([0, 1, 1])]).cumsum(0)
        VALUES.repeat_interleave(FLAGS.long(), output_size=2)
    assert not found.waits
    assert found.calls > 4


def batch(case: Case, groups: int) -> Rows:
    """The rows of four groups, again and again under other labels, all rows between each other."""
    options = {name: value for name, value in case.options.items() if name != "gaps"}
    rows = random_rows(Random(7), [3, 2, 4, 3], case.signals[0], "real", **options)
    return [row | {"group": f"{row['group']}-{n}"} for n in range(groups // 4) for row in rows]


def padded_batch(rows: Rows) -> dict[str, Any]:
    """Arguments of `from_padded`; the groups' labels are a tensor, as everything else."""
    given = padded_arguments(rows, pad(rows, Random(3)))
    labels = list(dict.fromkeys(given["group"]))
    return given | {"group": torch.tensor([labels.index(label) for label in given["group"]])}


def advantages_of(case: Case, given: dict[str, Any]) -> torch.Tensor:
    return case.estimator()(sc.Rollouts.from_padded(**given)).padded(given["mask"])


@every_case
@pytest.mark.parametrize("together", [True, False])
def test_waits_do_not_grow_with_groups(
    case: Case, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_a_gpu(monkeypatch)
    found = []
    for groups in GROUPS:
        rows = batch(case, groups)
        given = padded_batch(sorted(rows, key=lambda row: row["group"]) if together else rows)
        with DeviceWaits() as device:
            advantages_of(case, given)
        found.append(device.waits)
    assert found[0] == found[1] == found[2]


@every_case
def test_calls_around_a_method_do_not_grow_with_groups(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_a_gpu(monkeypatch)
    found = []
    for groups in GROUPS:
        given = padded_batch(batch(case, groups))
        with DeviceWaits() as reading:
            rollouts = sc.Rollouts.from_padded(**given)
        advantages = case.estimator()(rollouts)
        with DeviceWaits() as padding:
            advantages.padded(given["mask"])
        found.append((reading.calls, padding.calls))
    assert found[0] == found[1] == found[2]


@every_case
def test_the_paths_of_a_gpu_give_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    given = padded_batch(batch(case, 8))
    want = advantages_of(case, given)
    as_on_a_gpu(monkeypatch)
    assert torch.equal(advantages_of(case, given), want)


def random_tables(seed: int) -> dict[str, Any]:
    """Masks with holes, and step ids with gaps and noise: about half of them are refused."""
    rng = Random(seed)
    rows, width = rng.randint(1, 4), rng.randint(1, 8)
    mask = [[rng.random() < 0.8 for _ in range(width)] for _ in range(rows)]
    ids = [sorted(rng.randint(0, 3) for _ in range(width)) for _ in range(rows)]
    gaps = rng.choice((0.0, 0.3))
    ids = [[-1 if rng.random() < gaps else step for step in row] for row in ids]
    if rng.random() < 0.2:
        ids[-1][rng.randrange(width)] = rng.choice((-2, 0, 4))
    return {
        "mask": torch.tensor(mask),
        "group": [0] * rows,
        "step_id": torch.tensor(ids, dtype=rng.choice((torch.int64, torch.int32))),
        "step_scores": torch.rand(rows, 4),
        "logprobs": {"student": torch.rand(rows, width)},
    }


def read(given: dict[str, Any]) -> tuple[Any, ...] | str:
    try:
        rollouts = sc.Rollouts.from_padded(**given)
    except StepCreditError as error:
        return str(error)
    streams = [*rollouts.streams.values(), *rollouts.logprobs.values()]
    held = [getattr(s, name).tolist() for s in streams for name in ("counts", *s.packed)]
    return (rollouts.lengths.tolist(), rollouts.left_out, held)


def test_the_paths_of_a_gpu_read_and_refuse_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [random_tables(seed) for seed in range(1000)]
    want = [read(given) for given in batches]
    as_on_a_gpu(monkeypatch)
    assert [read(given) for given in batches] == want
    assert 200 < sum(isinstance(found, tuple) for found in want) < 800
    assert len({found.partition(": ")[2] for found in want if isinstance(found, str)}) >= 4


def on_gpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cuda()
    if isinstance(value, dict):
        return {name: on_gpu(part) for name, part in value.items()}
    return value.to("cuda") if isinstance(value, sc.Tokens | sc.Steps) else value


@every_case
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_padded_tensors_on_a_gpu_give_what_the_cpu_gives(case: Case) -> None:
    given = padded_batch(batch(case, 8))
    want, found = advantages_of(case, given), advantages_of(case, on_gpu(given))
    assert found.device.type == "cuda"
    assert float((found.cpu() - want).abs().max()) <= 1e-6 * max(1.0, float(want.abs().max()))
