"""pass@k of each prompt of an evaluation during training, by the outcomes of our own graders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import takewhile
from math import isnan, nan

from stepcredit.evals.unbiased_pass_at_k import pass_at_k


def prompt_pass_at_k(
    prompts: Sequence[Hashable], outcomes: Sequence[float | None], right_above: float = 0.0
) -> dict[str, list[float]]:
    """The chance that one of k samples of a prompt is right, without bias, for each prompt.

        pass@k = 1 - C(n - c, k) / C(n, k),  k = 1, 2, 4, ... up to n, and n

    Args:
        prompts: which prompt each sample answers; shape (sample,).
        outcomes: of the samples; a prompt with an unknown one (None or NaN) is left out.
        right_above: a sample is right where its outcome is above this; c counts the right ones.

    Returns:
        {"pass@k": one number per prompt}, for each k up to the fewest samples of a prompt; their
        mean is pass@k of the set.

    Example:
        >>> prompt_pass_at_k(["a", "a", "b", "b"], [1.0, 0.0, 0.0, 0.0])
        {'pass@1': [0.5, 0.0], 'pass@2': [1.0, 0.0]}

    Source: Chen et al. 2021 (arXiv 2107.03374), Equation 1.
    """
    samples: dict[Hashable, list[float]] = defaultdict(list)
    for prompt, outcome in zip(prompts, outcomes, strict=True):
        samples[prompt].append(nan if outcome is None else outcome)
    known = [values for values in samples.values() if not any(map(isnan, values))]
    if not known:
        return {}
    fewest = min(map(len, known))
    powers = takewhile(lambda k: k < fewest, (2**power for power in range(fewest)))
    right = [sum(value > right_above for value in values) for values in known]
    counts = [len(values) for values in known]
    return {f"pass@{k}": pass_at_k(right, counts, k).tolist() for k in (*powers, fewest)}
