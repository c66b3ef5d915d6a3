"""Accuracy with intervals: avg@k, unbiased pass@k, greedy.

Host side; drives the device. Reads: a policy and problems. Writes: nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_reason import config as config_lib
from jaxrl_reason import sharding
from jaxrl_reason.methods import base
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.parts import Run, shapes_of
from jaxrl_reason.rollout import batching


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


def accuracies(line: Mapping[str, float | int]) -> tuple[float, float] | None:
    """(avg@k at temperature 1, greedy) of one line of metrics.jsonl; None where nothing was evaluated.

    Example:
      >>> accuracies({"update": 3, "eval/arithmetic/avg@1": 0.25, "eval/arithmetic/greedy": 0.5})
      (0.25, 0.5)
      >>> accuracies({"update": 4})
    """
    sampled = [v for k, v in line.items() if k.startswith("eval/") and "/avg@" in k]
    greedy = [v for k, v in line.items() if k.startswith("eval/") and k.endswith("/greedy")]
    return (sampled[0], greedy[0]) if sampled and greedy else None


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


def correct_counts(
    engine: batching.Engine,
    params: Any,
    task: Any,
    problems: Sequence[Any],
    key: jax.Array,
    *,
    num_samples: int,
    temperature: float,
    stage: str,
) -> np.ndarray:
    """[len(problems)] int: how many of `num_samples` completions are right."""
    tokenizer = engine.tokenizer
    prompts = [tokenizers.encode_prompt(tokenizer, task.policy_prompt(p)) for p in problems]
    groups = engine.sample(
        params, key, prompts, stage=stage, num_samples=num_samples, temperature=temperature
    )
    repeated = [p for p in problems for _ in range(num_samples)]
    verdicts = base.judge(task.verify, repeated, [c for group in groups for c in group])
    rewards = np.array([v.reward >= 0.5 for v in verdicts])
    return rewards.reshape(len(problems), num_samples).sum(axis=1)


def whole_task(task: Any) -> Any:
    """What evaluation asks: whole problems, also of a task that trains on single steps (`tasks.steps`); held-out ones
    where the task holds some out (`tasks.base.HoldsOut`).
    """
    whole = getattr(task, "whole", task)
    return getattr(whole, "held_out", whole)


def in_loop(run: Run, params: Any) -> dict[str, float]:
    """Accuracy at temperature 1 and greedy on the run's fixed evaluation problems; the same draws every time."""
    config, task = run.config.eval, whole_task(run.task)
    problems = task.batch(config.seed, 0, config.num_problems)
    key = jax.random.key(config.seed)
    sampled = correct_counts(
        run.engine,
        params,
        task,
        problems,
        key,
        num_samples=config.num_samples,
        temperature=1.0,
        stage="eval",
    )
    greedy = correct_counts(
        run.engine, params, task, problems, key, num_samples=1, temperature=0.0, stage="greedy"
    )
    prefix = f"eval/{task.name}"
    return {
        f"{prefix}/avg@{config.num_samples}": float(sampled.mean() / config.num_samples),
        f"{prefix}/greedy": float(greedy.mean()),
    }


def evaluate(
    policy: Any,
    task: Any,
    *,
    num_samples: int = 8,
    k: Sequence[int] = (1, 4, 8),
    num_problems: int = 256,
    seed: int = 1_000_003,
    temperature: float = 1.0,
) -> dict[str, float]:
    """avg@n, pass@k and greedy accuracy of a policy, with 95% bootstrap intervals over problems.

    Args:
      policy: from `load_policy`.
      task: from `tasks.make_task`.
      num_samples: n, completions per problem.
      k: each <= n.
      num_problems: how many problems.
      seed: of problems and draws.
      temperature: of the samples; greedy is measured beside them.
    Returns:
      {"eval/<task>/pass@4": 0.5, "eval/<task>/pass@4/low": 0.4, "eval/<task>/pass@4/high": 0.6, ...}.
    Raises:
      ValueError: a k larger than num_samples.
    """
    task = whole_task(task)
    config = config_lib.base()
    mesh = sharding.make_mesh(config.mesh)
    engine = batching.Engine(
        policy.config,
        policy.tokenizer,
        shapes_of(config, task),
        mesh=mesh,
        vocab_chunk=config.loss.vocab_chunk,
    )
    problems = task.batch(seed, 0, num_problems)
    key = jax.random.key(seed)
    counts = correct_counts(
        engine,
        policy.params,
        task,
        problems,
        key,
        num_samples=num_samples,
        temperature=temperature,
        stage="eval",
    )
    greedy = correct_counts(
        engine, policy.params, task, problems, key, num_samples=1, temperature=0.0, stage="greedy"
    )
    figures = {f"avg@{num_samples}": counts / num_samples, "greedy": greedy.astype(float)}
    figures |= {f"pass@{n}": [pass_at_k(num_samples, int(c), n) for c in counts] for n in k}
    results = {}
    for name, values in figures.items():
        full = f"eval/{task.name}/{name}"
        results[full] = float(np.mean(values))
        results[f"{full}/low"], results[f"{full}/high"] = bootstrap_interval(values)
    return results
