"""Figures of an evaluation from its records: avg@n, unbiased pass@k, maj@k, lengths, intervals over problems.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

THRESHOLD = 0.5  # a reward at or above it counts as right


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased chance that one of k samples is right: 1 - C(n - c, k) / C(n, k).

    Args:
      num_samples: n, samples drawn, >= k.
      num_correct: c, of them right.
      k: samples allowed.
    Returns:
      Estimate in [0, 1].
    Raises:
      ValueError: k is larger than n.
    Example:
      >>> pass_at_k(4, 1, 2)
      0.5
    Source: arXiv 2107.03374 eq. 1.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k = {k}: must be in [1, {num_samples}], the number of samples")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """Chance that the most frequent answer is right, where one of several equally frequent ones is drawn at random.

    Args:
      answers: of the samples of one problem, as the verifier writes them, so that equal values mostly have one text;
        None does not vote.
      right: whether each is equivalent to the gold answer; all that are right are one answer, whatever their text.
    Returns:
      1 / t where the right answer is among t tied ones, else 0; 0 without votes.
    Example:
      >>> majority(["4", "0.5", "1/2", "4", None], [False, True, True, False, False])
      0.5
    Source: self-consistency, arXiv 2203.11171; the rule for ties is ours.
    """
    votes = collections.Counter(
        None if r else answer
        for answer, r in zip(answers, right, strict=True)
        if r or answer is not None
    )
    most = max(votes.values(), default=0)
    tied = [answer for answer, count in votes.items() if count == most]
    return 1.0 / len(tied) if None in tied else 0.0


def maj_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """Mean of `majority` over the n // k disjoint runs of k samples, in the order in which they were drawn.

    Raises:
      ValueError: k is larger than n.
    Example:
      >>> maj_at_k(["1", "2", "2", "1"], [True, False, False, True], 2)
      0.5
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"k = {k}: must be in [1, {len(answers)}], the number of samples")
    runs = [slice(i, i + k) for i in range(0, len(answers) - k + 1, k)]
    return float(np.mean([majority(answers[run], right[run]) for run in runs]))


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over problems, by resampling problems.

    Args:
      values: one figure per problem.
      level: coverage in (0, 1).
      draws: resamples.
      seed: of the resampling.
    Returns:
      (low, high).
    Example:
      >>> bootstrap_interval([1.0, 1.0, 1.0])
      (1.0, 1.0)
    """
    values = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    means = rng.choice(values, (draws, len(values))).mean(axis=1)
    tail = (1 - level) / 2 * 100
    return float(np.percentile(means, tail)), float(np.percentile(means, 100 - tail))


def record(problem_id: str, verdicts: Sequence[Any], lengths: Sequence[int]) -> dict[str, Any]:
    """What is kept of the samples of one problem.

    Args:
      problem_id: as in `types.Problem`.
      verdicts: `types.Verdict` of each sample.
      lengths: tokens of each.
    Returns:
      JSON object.
    """
    return {
        "problem": problem_id,
        "rewards": [v.reward for v in verdicts],
        "reasons": [v.reason for v in verdicts],
        "answers": [v.answer for v in verdicts],
        "tokens": list(lengths),
    }


def summarise(
    records: Sequence[Mapping[str, Any]], greedy: Sequence[Mapping[str, Any]], k: Sequence[int]
) -> dict[str, float]:
    """Means over problems with 95% intervals.

    Args:
      records: of each problem, with n samples each.
      greedy: of each problem, with one sample.
      k: of pass@k and maj@k, each <= n.
    Returns:
      avg@n, greedy, pass@k, maj@k (k > 1), response_length (tokens), truncated (share); each with /low and /high.
    Raises:
      ValueError: a k larger than n.
    Example:
      >>> one = {"rewards": [1.0, 0.0], "reasons": ["correct", "wrong"], "answers": ["1", "2"], "tokens": [4, 6]}
      >>> found = summarise([one], [one | {"rewards": [1.0]}], [2])
      >>> found["avg@2"], found["pass@2"], found["maj@2"], found["response_length"]
      (0.5, 1.0, 0.5, 5.0)
    """
    right = [[reward >= THRESHOLD for reward in r["rewards"]] for r in records]
    size = len(right[0])
    figures: dict[str, list[float]] = {
        f"avg@{size}": [sum(r) / size for r in right],
        "greedy": [float(r["rewards"][0] >= THRESHOLD) for r in greedy],
    }
    for number in k:
        figures[f"pass@{number}"] = [pass_at_k(size, sum(r), number) for r in right]
    for number in k:
        if number > 1:
            pairs = zip(records, right, strict=True)
            figures[f"maj@{number}"] = [maj_at_k(r["answers"], ok, number) for r, ok in pairs]
    figures["response_length"] = [float(np.mean(r["tokens"])) for r in records]
    figures["truncated"] = [r["reasons"].count("truncated") / size for r in records]
    found = {}
    for name, values in figures.items():
        found[name] = float(np.mean(values))
        found[f"{name}/low"], found[f"{name}/high"] = bootstrap_interval(values)
    return found
