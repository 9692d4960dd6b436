"""What one checkout computes from seeded random inputs; `same_results.py` runs it for two.

    PYTHONPATH=CHECKOUT/src:ROOT python benchmarks/compared_results.py OUT.pickle --batches 1000

The inputs come from the generators of the tests, so PYTHONPATH needs the folder that holds `tests`.
A result is an array or a text; an error is the text of its type and message.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from tests.conftest import SHARED
from tests.credit.cases import CASES, Case
from tests.credit.padding import pad, padded_rollouts
from tests.credit.strategies import SCORES, build, process_fields, random_rows
from tests.fuzz.cases import generator
from tests.fuzz.test_rows import changed_file
from tests.fuzz.test_tensors import arguments
from tests.vectors import FILES, cases_of
from typer.testing import CliRunner

import stepcredit as sc
from stepcredit.cli import app
from stepcredit.credit.metrics import training_metrics
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings

DTYPES = (None, torch.float32, torch.float64, torch.bfloat16)
"""None: from lists."""
ADVANTAGES = re.compile(r'"advantages": ?\[([^]]+)\]')
"""The advantages in a row that `shape` wrote."""
LARGE = ((64, 2048), (37, 5001), (256, 1024), (8, 40000))
"""Responses and width of batches that are cut into several blocks."""


class Result(NamedTuple):
    """One result: an array or a text.

    Args:
        value: the array, or the text.
        groups: the group of each value of the array; None: all are one group.
    """

    value: np.ndarray | str
    groups: np.ndarray | None = None


Named = Mapping[str, Result]
Calls = Iterator[tuple[str, Callable[[], Named]]]


def array(tensor: torch.Tensor, groups: torch.Tensor | None = None) -> Result:
    """A tensor as a result; bfloat16, which numpy does not have, as float32."""
    held = tensor.detach().cpu()
    held = held.float() if held.dtype == torch.bfloat16 else held
    return Result(held.numpy(), None if groups is None else groups.cpu().numpy())


def computed(name: str, call: Callable[[], Named]) -> dict[str, Result]:
    """The results of a call by name, or its error; addresses in a message are left out."""
    try:
        return {f"{name}: {part}": result for part, result in call().items()}
    except Exception as error:
        text = re.sub(r"0x[0-9a-f]+", "0x", f"{type(error).__name__}: {error}")
        return {f"{name}: error": Result(text)}


# Methods


def of_methods(batches: int) -> Calls:
    """Each batch under eight of the contract's cases, so that every case meets many batches."""
    cases = list(CASES.items())
    for batch in range(batches):
        for turn in range(8):
            name, case = cases[(8 * batch + turn) % len(cases)]
            rng = generator(f"same results of {name}", batch)
            yield f"{name}, batch {batch}", lambda case=case, rng=rng: method_results(case, rng)


def method_results(case: Case, rng: Random) -> Named:
    """Advantages of packed and of padded inputs; of some also the explanation and the metrics."""
    sizes = [rng.randint(1, 8) for _ in range(rng.randint(1, 5))]
    signal, kind = rng.choice(case.signals), rng.choice((*SCORES, "extreme"))
    longest = rng.choice((6, 12, 60))
    rows = random_rows(rng, sizes, signal, kind, max_length=longest, **case.options)
    method, packed = case.estimator(), build(rows, rng.choice(DTYPES))
    layout = pad(rows, rng)
    padded = padded_rollouts(rows, layout)
    found = {
        "packed": of_tokens(method(packed), packed),
        "padded": at_mask(method, padded, layout.mask),
    }
    if rng.random() < 0.25:
        found |= explained(method, packed) | metrics(method, packed)
        clipped = sc.estimator(case.method, **case.params | {"clip": 0.25})
        found["clipped"] = of_tokens(clipped(packed), packed)
    return found


def of_tokens(advantages: sc.Advantages, rollouts: sc.Rollouts) -> Result:
    """Packed advantages, each with its group."""
    groups = rollouts.group_index.repeat_interleave(rollouts.lengths)
    return array(advantages.packed(), groups)


def at_mask(method: sc.Estimator, rollouts: sc.Rollouts, mask: Any) -> Result:
    """The advantages at the padded positions of a mask, each with its group."""
    table = method(rollouts).padded(mask)
    return array(table, rollouts.group_index.repeat_interleave(table.shape[1]))


def explained(method: sc.Estimator, rollouts: sc.Rollouts) -> Named:
    """The columns of `explain`, its warnings and its text."""
    found = method.explain(rollouts)
    groups = rollouts.group_index[found.rollout.to(rollouts.device)]
    columns = {f"stage {name}": array(values, groups) for name, values in found.stages.items()}
    places = {"last": array(found.last), "advantage": array(found.advantage, groups)}
    return columns | places | {"warnings": Result("\n".join(found.warnings))}


def metrics(method: sc.Estimator, rollouts: sc.Rollouts) -> Named:
    """`training_metrics`, each metric compared at its own size."""
    found = training_metrics(rollouts, method)
    return {
        "names of the metrics": Result(", ".join(found)),
        "metrics": Result(np.array([*found.values()]), np.arange(len(found))),
    }


# Padded tensors


def of_padded(batches: int) -> Calls:
    """Padded tables with holes, left padding, ids -1, untrained steps; and wrong ones."""
    for batch in range(batches):
        rng = generator("same padded", batch)
        given = padded_tables(rng, rng.randint(1, 12), rng.choice((1, 7, 30, 200)))
        yield f"padded {batch}", lambda given=given: padded_results(given)
        wrong = rng.choice(WRONG)(rng, dict(given))
        yield f"padded {batch}, wrong", lambda given=wrong: padded_results(given)
        fuzz = arguments(generator("tensors", batch))
        yield f"containers {batch}", lambda given=fuzz: padded_results(given)


def padded_tables(rng: Random, rows: int, width: int) -> dict[str, Any]:
    """Arguments of `Rollouts.from_padded`: groups interleaved, anything allowed off the mask."""
    seed = np.random.default_rng(rng.randrange(2**32))
    mask = random_mask(rng, seed, rows, width)
    given: dict[str, Any] = {
        "mask": torch.from_numpy(mask).to(rng.choice((torch.bool, torch.int64, torch.float32))),
        "group": torch.from_numpy(seed.integers(0, max(1, rows // 3), rows)),
        "outcome": [rng.choice((0.0, 1.0, 0.25)) for _ in range(rows)]
        if rng.random() < 0.8
        else None,
        "format": [rng.choice((0.0, 1.0)) for _ in range(rows)] if rng.random() < 0.5 else None,
        "format_ok": [rng.random() < 0.7 for _ in range(rows)] if rng.random() < 0.5 else None,
    }
    dtype = rng.choice(DTYPES[1:])
    if rng.random() < 0.7:
        ids = random_step_ids(rng, seed, mask)
        given["step_id"] = torch.from_numpy(ids).to(rng.choice((torch.int64, torch.int32)))
    if "step_id" in given and rng.random() < 0.8:
        steps = int(given["step_id"].max()) + 1 + rng.randint(0, 2)
        given["step_scores"] = torch.from_numpy(seed.standard_normal((rows, max(1, steps)))).to(
            dtype
        )
    else:
        given["token_scores"] = torch.from_numpy(seed.standard_normal((rows, width))).to(dtype)
    if rng.random() < 0.2:
        given["logprobs"] = {"student": -torch.from_numpy(seed.random((rows, width)))}
    return given


def random_mask(rng: Random, seed: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Right or left padded, all trained, or with holes; every row has a trained token."""
    lengths = seed.integers(1, width + 1, rows)
    place = np.arange(width)
    layout = rng.choice(("right", "left", "all", "holes", "tools"))
    if layout == "left":
        return place >= width - lengths[:, None]
    mask = np.full((rows, width), True) if layout == "all" else place < lengths[:, None]
    if layout == "holes":
        mask = mask & (seed.random((rows, width)) < 0.8)
    if layout == "tools":
        mask = mask & (np.cumsum(seed.random((rows, width)) < 0.1, axis=1) % 2 == 0)
    mask[:, 0] |= ~mask.any(1)
    return mask


def random_step_ids(rng: Random, seed: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Ids that rise along the row; some steps skipped, some tokens -1, anything off the mask."""
    moves = (seed.random(mask.shape) < rng.choice((0.02, 0.2, 0.6))).astype(np.int64)
    if rng.random() < 0.3:
        moves *= seed.integers(1, 4, mask.shape)
    ids = moves.cumsum(1)
    if rng.random() < 0.6:
        ids[seed.random(mask.shape) < rng.choice((0.05, 0.5))] = -1
    if rng.random() < 0.3:
        ids[seed.random(len(ids)) < 0.3] = -1
    if rng.random() < 0.4:
        ids[~mask] = -1
    return ids


def padded_results(given: Mapping[str, Any]) -> Named:
    """The rollouts that are read, and the advantages of two methods at the mask's positions."""
    rollouts = sc.Rollouts.from_padded(**given)
    found = dict(rollout_results(rollouts))
    for method in (sc.PASS(), sc.PURE()):
        found |= computed(
            method.name, lambda method=method: {"": at_mask(method, rollouts, given["mask"])}
        )
    return found


def rollout_results(rollouts: sc.Rollouts) -> Iterator[tuple[str, Result]]:
    """Every tensor that the rollouts hold."""
    yield "rollouts", Result(repr(rollouts))
    yield "left_out", Result(str(rollouts.left_out))
    yield "labels", Result(repr(rollouts.group_labels))
    for name in ("group_index", "lengths", "outcome", "has_outcome", "format", "has_format"):
        yield name, array(getattr(rollouts, name))
    yield "format_ok", array(rollouts.format_ok)
    streams = {**rollouts.streams, **rollouts.logprobs, "step_ends": rollouts.step_ends}
    for name, stream in streams.items():
        for part in ("ends", "values", "counts"):
            if hasattr(stream, part):
                yield f"{name}.{part}", array(getattr(stream, part))


def _decreasing(rng: Random, given: dict[str, Any]) -> dict[str, Any]:
    """Ids that fall somewhere; where the batch has no ids, scores of another shape."""
    if "step_id" in given:
        return given | {"step_id": given["step_id"].flip(1)}
    return given | {"token_scores": given["token_scores"][:, :-1]}


def _outside(rng: Random, given: dict[str, Any]) -> dict[str, Any]:
    """An id outside the scores, or below -1."""
    ids = given.get("step_id", torch.zeros(given["mask"].shape, dtype=torch.int64)).clone()
    ids[rng.randrange(len(ids)), rng.randrange(ids.shape[1])] = rng.choice((-2, 10**6, -(10**6)))
    return given | {"step_id": ids}


def _not_finite(rng: Random, given: dict[str, Any]) -> dict[str, Any]:
    """A score that is no finite number."""
    name = "step_scores" if "step_scores" in given else "token_scores"
    scores = given[name].clone()
    place = rng.randrange(len(scores)), rng.randrange(scores.shape[1])
    scores[place] = rng.choice((float("nan"), float("inf"), -float("inf")))
    return given | {name: scores}


def _no_mask(rng: Random, given: dict[str, Any]) -> dict[str, Any]:
    """A row without a trained token, a mask that holds 2, or one of another shape."""
    mask = given["mask"].to(torch.float32).clone()
    change = rng.choice(("empty", "two", "shape"))
    if change == "shape":
        return given | {"mask": mask[:, :-1]}
    mask[rng.randrange(len(mask))] = 0.0 if change == "empty" else 2.0
    return given | {"mask": mask}


def _half_known(rng: Random, given: dict[str, Any]) -> dict[str, Any]:
    """Outcomes that are unknown for some rollouts."""
    outcome = [rng.choice((None, 1.0, float("nan"))) for _ in range(len(given["mask"]))]
    return given | {"outcome": outcome}


def _labels(rng: Random, given: dict[str, Any]) -> dict[str, Any]:
    """Another number of labels or of outcomes than of rollouts."""
    return given | {rng.choice(("group", "outcome", "format_ok")): [1] * (len(given["mask"]) + 1)}


WRONG = (_decreasing, _outside, _not_finite, _no_mask, _half_known, _labels)


# Masks with tool output


def of_masks(batches: int) -> Calls:
    """Streams over all tokens of a response with a mask of the trained ones; verl's queue."""
    for batch in range(batches):
        rng = generator("same masks", batch)
        rows = masked_rows(rng)
        yield f"mask {batch}", lambda rows=rows: mask_results(rows)
        yield f"queue {batch}", lambda rows=rows: queue_results(rows)


def masked_rows(rng: Random) -> list[dict[str, Any]]:
    """Random rows over all tokens, each with a mask; some are wrong."""
    sizes = [rng.randint(1, 6) for _ in range(rng.randint(1, 4))]
    signal = rng.choice(("steps", "tokens", "streams"))
    rows = random_rows(rng, sizes, signal, rng.choice(SCORES), max_length=rng.choice((8, 50)))
    untrained = rng.choice((0.0, 0.2, 0.6))
    for row in rows:
        row["mask"] = [int(rng.random() >= untrained) for _ in range(row["length"])]
        row["mask"][rng.randrange(row["length"])] = 1
    if rng.random() < 0.15:
        wrong = rng.choice(rows)
        longer = process_fields(rng, signal, "tenths", wrong["length"] + 1)
        rng.choice((wrong.update, lambda _: wrong.update(mask=[0])))(longer)
    return rows


def mask_results(rows: list[dict[str, Any]]) -> Named:
    """`Rollouts(mask=...)`, and its advantages on every token of the responses."""
    packed = build([{k: v for k, v in row.items() if k != "mask"} for row in rows])
    rollouts = sc.Rollouts(
        group=[row["group"] for row in rows],
        process=packed.streams,
        outcome=[row["outcome"] for row in rows],
        format_ok=[row["format_ok"] for row in rows],
        logprobs=packed.logprobs,
        mask=[row["mask"] for row in rows],
    )
    credit = sc.PASS(weights=dict.fromkeys((*packed.streams, "outcome"), 1.0))(rollouts)
    found = dict(rollout_results(rollouts))
    return found | {"on_response": array(torch.cat(credit.on_response()))}


def queue_results(rows: list[dict[str, Any]]) -> Named:
    """verl's queue path: the rows that `BatchCredit` writes back, padding rows included."""
    fields, keys, tags = queue_of(rows)
    names = {name for row in rows for name in row.get("signals", {})}
    weights = {"outcome": 1.0, **dict.fromkeys(sorted(names | {"process"}), 1.0)}
    settings = {"method": "pass", "fields": {"weights": weights}}
    credit = BatchCredit(
        QueuedBatch.of(fields, keys, tags), VerlSettings.of({"algorithm": {"stepcredit": settings}})
    )
    found = {f"row {number}": array(row) for number, row in enumerate(credit.rows())}
    return found | dict(rollout_results(credit.rollouts))


def queue_of(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str], list[dict[str, Any]]]:
    """Fields, keys and tags of verl's queue for the rows, and a row of padding."""
    reported = ("step_ends", "step_scores", "token_scores", "signals", "format", "format_ok")
    extras = [{name: row[name] for name in reported if name in row} for row in rows]
    for extra, row in zip(extras, rows, strict=True):
        extra["outcome"] = row["outcome"]
    masks = [*(row["mask"] for row in rows), [0]]
    fields = {
        "uid": [*(row["group"] for row in rows), "padding"],
        "response_mask": nested(masks, torch.int64),
        "rm_scores": nested([[0.0] * len(mask) for mask in masks], torch.float32),
        "prompts": nested([[1]] * len(masks), torch.int64),
        "responses": nested(masks, torch.int64),
        "extra_fields": [{"reward_extra_info": extra} for extra in [*extras, {}]],
    }
    keys = [f"{uid}_{row}_0" for row, uid in enumerate(fields["uid"])]
    return fields, keys, [{"is_padding": uid == "padding"} for uid in fields["uid"]]


def nested(rows: list[list[float]], dtype: torch.dtype) -> torch.Tensor:
    """Rows of several lengths, as verl's queue returns them."""
    tensors = [torch.tensor(row, dtype=dtype) for row in rows]
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


# Large batches, files, vectors


def of_large(batches: int) -> Calls:
    """Batches of several blocks, in groups of 8 that are neighbours or interleaved."""
    for rows, width in LARGE if batches >= 100 else LARGE[:1]:
        for turn in range(4):
            rng = generator(f"same large {rows} {width}", turn)
            yield f"large {rows} x {width}, {turn}", lambda r=rng, n=rows, w=width: large(r, n, w)


def large(rng: Random, rows: int, width: int) -> Named:
    """PASS and PURE of padded tables with groups of 8."""
    given = padded_tables(rng, rows, width)
    order = torch.arange(rows)
    given["group"] = order // 8 if rng.random() < 0.5 else order % max(1, rows // 8)
    return padded_results(given)


def of_files(batches: int) -> Calls:
    """`shape` of files by several methods: of a quarter as many, and of all that are accepted."""
    methods = ("pass", "pure", "grpo", "pass-min", "gdpo")
    for batch in range(batches):
        content, is_accepted = changed_file(generator("rows", batch))
        method = methods[batch % len(methods)]
        if is_accepted or batch % 4 == 0:
            yield f"shape {method}, file {batch}", lambda c=content, m=method: shaped(c, m)


def shaped(content: bytes, method: str) -> Named:
    """What the command prints and writes; the advantages apart from the rest of the file."""
    source, out = Path("in.jsonl"), Path("out.jsonl")
    source.write_bytes(content)
    out.unlink(missing_ok=True)
    run = CliRunner().invoke(app, ["shape", str(source), "-o", str(out), "--method", method])
    written = out.read_bytes().decode(errors="replace") if out.exists() else "nothing"
    numbers = [float(text) for row in ADVANTAGES.findall(written) for text in row.split(",")]
    return {
        "printed": Result(f"{run.exit_code} {run.exception!r} {run.output}"),
        "advantages": Result(np.array(numbers, np.float64)),
        "rest of the file": Result(ADVANTAGES.sub("", written)),
    }


def of_vectors(_: int) -> Calls:
    """The test vectors, where they are found."""
    for name in FILES if SHARED.is_dir() else ():
        for case in cases_of(SHARED, name):
            yield f"vector {case['name']}", lambda case=case: vector(case)


def vector(case: Mapping[str, Any]) -> Named:
    """Advantages of one vector, from lists and from float32."""
    method = sc.estimator(case["method"], **case["params"])
    given = [build(case["rollouts"], dtype) for dtype in (None, torch.float32)]
    return {str(number): of_tokens(method(each), each) for number, each in enumerate(given)}


PARTS = {
    "methods": of_methods,
    "padded": of_padded,
    "masks and verl's queue": of_masks,
    "large": of_large,
    "files": of_files,
    "vectors": of_vectors,
}


def compute(batches: int) -> dict[str, dict[str, Result]]:
    """All results by part and name."""
    found: dict[str, dict[str, Result]] = {}
    for part, calls in PARTS.items():
        found[part] = {}
        for name, call in calls(batches):
            found[part] |= computed(name, call)
    return found


def main() -> None:
    """Compute all, and write the results with the place of the package that computed them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batches", type=int, default=1000)
    options = parser.parse_args()
    out = options.out.absolute()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = compute(options.batches)
        os.chdir(out.parent)
    # plain tuples, which the reader can load without this module
    plain = {part: {n: tuple(r) for n, r in by.items()} for part, by in found.items()}
    out.write_bytes(pickle.dumps({"package": sc.__file__, "results": plain}))


if __name__ == "__main__":
    main()
