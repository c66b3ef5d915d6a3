"""Solutions that the policy of a run writes, cut into steps and labelled with their first wrong one.

Host side; drives the device. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from jaxrl_reason import parts, timing
from jaxrl_reason.credit import locate_monte_carlo, locate_steps, segment
from jaxrl_reason.methods import base
from jaxrl_reason.types import Completion, Problem
from jaxrl_reason.verify import processbench, step_labels


class Solution(NamedTuple):
    """One completion of the policy, cut into steps that have text, and its first wrong step."""

    problem: Problem
    completion: Completion
    correct: bool
    steps: list[str]
    numbers: list[int]  # of the steps, as `error` counts
    error: int  # -1: none; a number that no step has: something is missing at the end


def sample(run: parts.Run, first: int, count: int, *, by: str) -> list[Solution]:
    """Completions of the policy at temperature 1, labelled; those whose first error is unknown are left out.

    Args:
      run: parts of the run; its policy writes.
      first: number of the update whose problems are taken.
      count: completions sampled, in whole groups.
      by: oracle | monte_carlo.
    Returns:
      Solutions.
    Raises:
      ValueError: the oracle is asked for and the task has none.
    """
    config, size = run.config, run.config.rollout.group_size
    stages = parts.bind_stages(
        run,
        run.policy.params,
        jax.random.fold_in(jax.random.key(config.seed), first),
        run.task.verify,
        timing.Clock(),
    )
    problems = run.task.batch(config.seed, first, -(-count // size))
    groups = stages.sample(
        [stages.policy_prompt(p) for p in problems], stage="policy", num_samples=size
    )
    owners = [p for p in problems for _ in range(size)]
    completions = [c for group in groups for c in group]
    correct = [v.reward >= 0.5 for v in base.judge(stages.verify, owners, completions)]
    ids = [segment.step_ids(c.tokens, run.pieces, stages.step_separator) for c in completions]
    errors = _first_errors(config, stages, owners, completions, correct, ids, by)
    found = []
    for row in zip(owners, completions, correct, ids, errors, strict=True):
        problem, completion, right, own, error = row
        steps, numbers = locate_steps.step_texts(
            completion.tokens, own, stages.decode, stages.step_separator
        )
        if steps and error >= step_labels.NO_ERROR:
            found.append(Solution(problem, completion, right, steps, numbers, int(error)))
    return found


def _first_errors(
    config: ml_collections.ConfigDict,
    stages: base.Stages,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    correct: Sequence[bool],
    ids: Sequence[np.ndarray],
    by: str,
) -> list[int]:
    if by == "oracle":
        if stages.first_error is None:
            raise ValueError("labels by 'oracle': this task cannot judge steps; use monte_carlo")
        return [stages.first_error(p, c.text) for p, c in zip(problems, completions, strict=True)]
    by_tokens = {c.tokens: own for c, own in zip(completions, ids, strict=True)}
    search = locate_monte_carlo.monte_carlo(
        stages.sample,
        stages.verify,
        stages.policy_prompt,
        lambda tokens: by_tokens[tuple(tokens)],
        continuations=config.locate.continuations,
        retest=config.locate.retest,
        max_generations=config.locate.max_generations,
        threshold=config.locate.threshold,
    )
    wrong = np.flatnonzero(~np.asarray(correct, bool))
    errors = np.full(len(completions), step_labels.NO_ERROR)
    located = search([problems[i] for i in wrong], [completions[i] for i in wrong])
    errors[wrong] = located.first_error.step
    return errors.tolist()


def exam(
    run: parts.Run, first: int, count: int, question: Callable[[Problem], str]
) -> list[processbench.Record]:
    """Right and wrong solutions of the policy in the form of ProcessBench, labelled by the task.

    Solutions that lack a step are left out: no step that they show is their first error.

    Args:
      run, first, count: see `sample`.
      question: what a judge reads before the first step.
    Returns:
      Records.
    """
    records = []
    for number, s in enumerate(sample(run, first, count, by="oracle")):
        if s.error == step_labels.NO_ERROR or s.error in s.numbers:
            label = -1 if s.error == step_labels.NO_ERROR else s.numbers.index(s.error)
            records.append(
                processbench.Record(str(number), question(s.problem), tuple(s.steps), label)
            )
    return records
