"""The metrics of training as loops over plain lists."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import replace
from statistics import fmean, median, pstdev
from typing import Any

import torch
from tests.credit.strategies import Rows, build
from tests.reference import trained

import stepcredit as sc

REFLECTIVE = ("wait", "however", "alternatively", "recheck", "let me check")


def silent(rows: Rows, stream: str) -> Rows:
    """The rows with a stream's values at 0, as they would stand in a file."""
    out = []
    for row in rows:
        new = dict(row)
        if stream == "process":
            for field in ("step_scores", "token_scores"):
                if field in row:
                    new[field] = [0.0] * len(row[field])
        elif stream == "logprobs":
            new |= {f: [0.0] * len(v) for f, v in row.items() if f.endswith("_logprobs")}
        elif stream in ("outcome", "format"):
            new |= {stream: 0.0} if row.get(stream) is not None else {}
        elif stream in row.get("signals", {}):
            signal = row["signals"][stream]
            field = "advantages" if "advantages" in signal else "scores"
            signals = {**row["signals"], stream: {**signal, field: [0.0] * len(signal[field])}}
            new["signals"] = signals
        out.append(new)
    return out


def flat(ragged: list[torch.Tensor]) -> list[float]:
    return [value for row in ragged for value in row.tolist()]


def names_of(rows: Rows) -> list[str]:
    streams = dict.fromkeys(name for row in rows for name in trained(row).streams)
    known = [n for n in ("outcome", "format") if any(row.get(n) is not None for row in rows)]
    return [*streams, *known]


def by_group(rows: Rows, values: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row, value in zip(rows, values, strict=True):
        found[row["group"]].append(value)
    return found


def loop_streams(rows: Rows, plain: sc.Estimator) -> dict[str, float]:
    whole = flat(plain(build(rows)).ragged())
    moved: dict[str, float] = {}
    found: dict[str, float] = {}
    for name in [*names_of(rows), "logprobs"]:
        other = flat(plain(build(silent(rows, name))).ragged())
        moved[name] = fmean(abs(a - b) for a, b in zip(whole, other, strict=True))
    total = math.fsum(moved.values())
    if total > 0:
        found |= {f"share/{name}": value / total for name, value in moved.items()}
    plainly = [trained(row) for row in rows]
    for name in names_of(rows):
        if name in ("outcome", "format"):
            scored = [[] if row.get(name) is None else [row[name]] for row in rows]
        else:
            scored = [r.streams[name].scores if name in r.streams else [] for r in plainly]
        pooled = [[x for part in parts for x in part] for parts in by_group(rows, scored).values()]
        if name not in ("outcome", "format"):
            found[f"unscored_share/{name}"] = fmean(not part for part in scored)
        values = [x for part in scored for x in part]
        found |= {f"raw_mean/{name}": fmean(values), f"raw_std/{name}": pstdev(values)}
        several = [pstdev(values) ** 2 for values in pooled if len(values) > 1]
        if several:
            found[f"variance/{name}"] = fmean(several)
        if name not in ("outcome", "format") and (pairs := loop_pairs(rows, scored)):
            found[f"agreement/{name}"] = fmean(pairs)
    return found


def loop_pairs(rows: Rows, scored: list[list[float]]) -> list[float]:
    pairs = []
    for i, right in enumerate(rows):
        for j, wrong in enumerate(rows):
            if right["group"] != wrong["group"] or not scored[i] or not scored[j]:
                continue
            if (right["outcome"] or 0) <= 0 or wrong["outcome"] is None or wrong["outcome"] > 0:
                continue
            gap = fmean(scored[i]) - fmean(scored[j])
            pairs.append(0.5 if abs(gap) < 1e-7 else float(gap > 0))
    return pairs


def loop_credit(rows: Rows, estimator: sc.Estimator, plain: sc.Estimator) -> dict[str, float]:
    whole = [row.tolist() for row in plain(build(rows)).ragged()]
    chunks = len(plain.explain(build(rows)).rows)
    tokens = sum(row["length"] for row in rows)
    found = {
        "chunks_per_response": chunks / len(rows),
        "tokens_per_chunk": tokens / chunks,
        "path_density": fmean(row[0] for row in whole),
        "format_gated_share": 0.0,
        "clipped_share": 0.0,
    }
    groups = by_group(rows, whole).values()
    zero = [all(v == 0 for row in group for v in row) for group in groups]
    found["zero_advantage_group_share"] = sum(zero) / len(zero)
    if getattr(estimator, "gate", False):
        found["format_gated_share"] = fmean(not row["format_ok"] for row in rows)
    if estimator.clip is not None:
        found["clipped_share"] = sum(abs(v) > estimator.clip for r in whole for v in r) / tokens
    return found | loop_correlation(rows, whole)


def loop_correlation(
    rows: Rows, whole: list[list[float]], lengths: list[int] | None = None
) -> dict[str, float]:
    paid, long = [], []
    lengths = [len(row) for row in whole] if lengths is None else lengths
    pairs = list(zip(whole, lengths, strict=True))
    for group in by_group(rows, pairs).values():
        means, sizes = [fmean(row) for row, _ in group], [size for _, size in group]
        paid += [value - fmean(means) for value in means]
        long += [size - fmean(sizes) for size in sizes]
    top = max(abs(fmean(row)) for row in whole)
    paid = [0.0 if abs(v) <= 1e-9 * top else v for v in paid]
    size = math.sqrt(math.fsum(p * p for p in paid) * math.fsum(x * x for x in long))
    if size == 0:
        return {}
    covariance = math.fsum(p * x for p, x in zip(paid, long, strict=True))
    return {"advantage_length_correlation": covariance / size}


def loop_raw_logprobs(rows: Rows) -> dict[str, float]:
    found = {}
    for model in ("student", "teacher", "base", "prm", "ref"):
        name = f"{model}_logprobs"
        values = [x for row in rows for x in row.get(name, [])]
        if values:
            found |= {f"raw_mean/{name}": fmean(values), f"raw_std/{name}": pstdev(values)}
    return found


def mean_over_groups(rows: Rows, values: list[float | None]) -> float | None:
    """Mean of the groups' means of the values that are no None."""
    groups = [[v for v in own if v is not None] for own in by_group(rows, values).values()]
    means = [fmean(own) for own in groups if own]
    return fmean(means) if means else None


def loop_length_of(rows: Rows, values: list[float | None]) -> float | None:
    """Correlation with length, within groups, of the values that are no None."""
    kept = [row for row, value in zip(rows, values, strict=True) if value is not None]
    known = [value for value in values if value is not None]
    if not known:
        return None
    found = loop_correlation(kept, [[value] for value in known], [row["length"] for row in kept])
    return found.get("advantage_length_correlation")


def loop_responses(rows: Rows, estimator: sc.Estimator) -> dict[str, float]:
    """What right, wrong and convincing responses get, and what goes with length."""
    paid = [fmean(row.tolist()) for row in estimator(build(rows)).ragged()]
    right = [row["outcome"] is not None and row["outcome"] > 0 for row in rows]
    wrong = [row["outcome"] is not None and row["outcome"] <= 0 for row in rows]
    plainly = [trained(row) for row in rows]
    signals = [
        name
        for name in names_of(rows)
        if name not in ("outcome", "format")
        and not any("advantages" in row.get("signals", {}).get(name, {}) for row in rows)
    ]
    scores = {
        name: [fmean(r.streams[name].scores) if r.streams.get(name) else None for r in plainly]
        for name in signals
    }
    known = {"outcome": [row["outcome"] for row in rows], **scores}
    found = {f"length_correlation/{n}": loop_length_of(rows, own) for n, own in known.items()}
    kinds = {"right": right, "wrong": wrong}
    streams = [name for name in names_of(rows) if name not in ("outcome", "format")]
    if streams:
        held = [any(r.streams.get(n) and r.streams[n].scores for n in streams) for r in plainly]
        kinds["no_step"] = [not own and any(held) for own in held]
    if signals and (any(right) or any(wrong)):
        first = scores[signals[0]]
        of_right = by_group(
            rows, [own if ok else None for own, ok in zip(first, right, strict=True)]
        )
        means = {g: [v for v in own if v is not None] for g, own in of_right.items()}
        kinds["convincing"] = [
            bad
            and own is not None
            and bool(means[row["group"]])
            and own >= fmean(means[row["group"]])
            for row, own, bad in zip(rows, first, wrong, strict=True)
        ]
    for kind, flags in kinds.items():
        chosen = [value if flag else None for value, flag in zip(paid, flags, strict=True)]
        found[f"pay/{kind}_responses"] = mean_over_groups(rows, chosen)
    return {name: value for name, value in found.items() if value is not None}


def loop_steps(
    rows: Rows, estimator: sc.Estimator, steps: list[list[str]] | None
) -> dict[str, float]:
    """What kinds of steps get, each group counted once."""
    advantages = estimator(build(rows)).ragged()
    pay: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in rows])
    for at, (row, values) in enumerate(zip(rows, advantages, strict=True)):
        ends = row.get("step_ends", [])
        for place, end in enumerate(ends):
            kinds = ["first"] * (place == 0) + ["last"] * (place == len(ends) - 1)
            if steps is not None:
                text, before = steps[at][place], steps[at][:place]
                blank = re.search(r"[A-Za-z0-9]", text) is None
                again = text.lower().split() in [t.lower().split() for t in before]
                kinds += ["filler"] * blank + ["repeated"] * again
                kinds += ["other"] * (not blank and not again)
                kinds += ["later"] * (not blank and not again and place > 0)
            else:
                kinds += ["other"]
            for kind in kinds:
                pay[kind][at].append(float(values[end]))
    pooled = {
        kind: [[v for part in own for v in part] for own in by_group(rows, parts).values()]
        for kind, parts in pay.items()
    }
    found = {
        f"pay/{kind}_steps": fmean([fmean(own) for own in groups if own])
        for kind, groups in pooled.items()
        if kind != "later"
    }
    for kind, base in (("filler", "other"), ("repeated", "later")):
        pairs = zip(pooled.get(kind, []), pooled.get(base, []), strict=False)
        gaps = [fmean(one) - fmean(two) for one, two in pairs if one and two]
        if gaps:
            found[f"pay_gap/{kind}_steps"] = fmean(gaps)
    one = [len(row.get("step_ends", [])) for row in rows]
    if median(one) >= 3 and 1 in one:
        means = [fmean(row.tolist()) for row in advantages]
        chosen = [v if count == 1 else None for v, count in zip(means, one, strict=True)]
        paid = mean_over_groups(rows, chosen)
        assert paid is not None
        found["pay/one_step_responses"] = paid
    return found


MARKS = ("\\boxed", "####", "answer")


def loop_bad_texts(rows: Rows, texts: list[str], estimator: sc.Estimator) -> dict[str, float]:
    """What responses without content get, and those that think and give no answer."""
    paid = [fmean(row.tolist()) for row in estimator(build(rows)).ragged()]
    empty = [re.search(r"[A-Za-z0-9]", text) is None for text in texts]
    assert not any(mark in text.lower() for text in texts for mark in (*MARKS, "<think>"))
    chosen = [value if flag else None for value, flag in zip(paid, empty, strict=True)]
    found = mean_over_groups(rows, chosen)
    return {} if found is None else {"pay/contentless_responses": found}


def loop_lengths(rows: Rows, has_steps: bool) -> dict[str, float]:
    sizes = {"length": [row["length"] for row in rows]}
    if has_steps:
        sizes["steps"] = [len(row.get("step_ends", [])) for row in rows]
    chosen = {
        "": [True] * len(rows),
        "_right": [(row["outcome"] or 0) > 0 for row in rows],
        "_wrong": [row["outcome"] is not None and row["outcome"] <= 0 for row in rows],
    }
    known = {
        name + of: [v for v, kept in zip(values, mask, strict=True) if kept and v > 0]
        for name, values in sizes.items()
        for of, mask in chosen.items()
    }
    return {name: fmean(values) for name, values in known.items() if values}


def loop_texts(rows: Rows, steps: list[list[str]], estimator: sc.Estimator) -> dict[str, float]:
    advantages = estimator(build(rows)).ragged()
    again, empty, filler, other = 0, 0, [], []
    for row, texts, values in zip(rows, steps, advantages, strict=True):
        for place, text in enumerate(texts):
            before = [t.lower().split() for t in texts[:place]]
            repeated = text.lower().split() in before
            blank = re.search(r"[A-Za-z0-9]", text) is None
            again, empty = again + repeated, empty + blank
            paid = float(values[row["step_ends"][place]])
            (filler if repeated or blank else other).append(paid)
    count = len(filler) + len(other)
    found = {}
    if count:
        found = {"repeated_step_share": again / count, "contentless_step_share": empty / count}
    if filler and other:
        found["filler_gap"] = fmean(filler) - fmean(other)
    words = [w for row in steps for w in re.findall(r"[a-z]+", " ".join(row).lower())]
    found["reflection_words"] = sum(word in REFLECTIVE for word in words) / len(rows)
    return found


def expected(
    rows: Rows, estimator: sc.Estimator, steps: list[list[str]] | None
) -> dict[str, float]:
    plain = replace(estimator, clip=None)
    found = loop_streams(rows, plain) | loop_credit(rows, estimator, plain)
    has_steps = any("process" in names_of([row]) and "step_ends" in row for row in rows)
    judged = [r["signals"]["judge"]["ends"] for r in rows if "judge" in r.get("signals", {})]
    assert has_steps or not judged
    known = [row["outcome"] for row in rows if row["outcome"] is not None]
    if known:
        found |= {"right_share": fmean(value > 0 for value in known), "right_above": 0.0}
    found |= loop_lengths(rows, has_steps) | loop_raw_logprobs(rows)
    found |= loop_responses(rows, estimator)
    if has_steps:
        found |= loop_steps(rows, estimator, steps)
    if steps is None:
        return found
    texts = [" ".join(row) for row in steps]
    return found | loop_texts(rows, steps, estimator) | loop_bad_texts(rows, texts, estimator)
