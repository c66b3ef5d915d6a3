"""Where reasoning first goes wrong: the interface of all locators, the oracle, and the difference to a repair.

Host side. Reads: nothing. Writes: nothing.

A locator gets completions whose answer is wrong and says, for each, the first wrong step, or that it does not know.
What it may ask of a network comes in as a function. `locators.make_locator` builds the one that a config names;
`locate_monte_carlo` and `locate_steps` hold the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxrl_reason.credit import gate
from jaxrl_reason.types import (
    AlignFn,
    Completion,
    FirstError,
    PairAlignment,
    Problem,
    SampleFn,
    VerifyFn,
)

NONE = -1  # no wrong step was found
UNKNOWN = -2  # the locator cannot say

StepIdsFn = Callable[[Sequence[int]], np.ndarray]  # tokens of a completion -> step of each


class Located(NamedTuple):
    """First errors of B completions and what finding them cost; columns count from the completion's first token."""

    first_error: FirstError  # [B] int32 arrays
    generations: np.ndarray  # [B] int: completions sampled for it
    tokens: np.ndarray  # [B] int: tokens that a reward model read, or a critic wrote, for it


@runtime_checkable
class Locator(Protocol):
    """First wrong step of completions whose answer is wrong; one entry per completion in every argument."""

    def __call__(
        self,
        problems: Sequence[Problem],
        completions: Sequence[Completion],
        references: Sequence[Completion | None] | None = None,
    ) -> Located:
        """`references`: a right completion of each problem; only `repair_diff` and `repaired` look at them."""
        ...


def first_token(completion: Completion, step_ids: np.ndarray, step: int) -> int:
    """Number of tokens before the given step: the column of its first token.

    Args:
      completion: one completion.
      step_ids: [length] int, non-decreasing.
      step: 0-indexed; a step that was never written (the text stops before it) is what the last token, EOS, left out.
    Returns:
      A column in [0, length]; `length` where the missing step was cut off by the budget.
    Example:
      >>> completion = Completion((5, 3, 6, 1), np.zeros(4, np.float32), "5 ; 6", False, 4)
      >>> ids = np.array([0, 0, 1, 1])
      >>> first_token(completion, ids, 1), first_token(completion, ids, 2)
      (2, 3)
    """
    length = len(completion.tokens)
    end = length if completion.truncated else max(length - 1, 0)
    return min(int(np.searchsorted(np.asarray(step_ids), step)), end)


def located(
    completions: Sequence[Completion],
    steps: Sequence[int],
    step_ids_fn: StepIdsFn,
    generations: Sequence[int] | np.ndarray | None = None,
    tokens: Sequence[int] | np.ndarray | None = None,
) -> Located:
    """`Located` of first wrong steps, negative codes included; costs that are not given are 0."""
    columns = [
        first_token(completion, step_ids_fn(completion.tokens), step) if step >= 0 else step
        for completion, step in zip(completions, steps, strict=True)
    ]
    first_error = FirstError(np.asarray(steps, np.int32), np.asarray(columns, np.int32))
    free = np.zeros(len(columns), int)
    return Located(
        first_error,
        free if generations is None else np.asarray(generations, int),
        free if tokens is None else np.asarray(tokens, int),
    )


def oracle(first_error: Callable[[Problem, str], int], step_ids_fn: StepIdsFn) -> Locator:
    """Ask the task itself: exact, for tasks that can judge every step.

    Args:
      first_error: 0-indexed first wrong step of a text, -1 where there is none (`tasks.base.StepOracle`).
      step_ids_fn: step of each token.
    Returns:
      Locator; costs nothing.
    """

    def locate(problems, completions, references=None):
        del references
        steps = [first_error(p, c.text) for p, c in zip(problems, completions, strict=True)]
        return located(completions, steps, step_ids_fn)

    return locate


def repair_diff(align_fn: AlignFn, step_ids_fn: StepIdsFn) -> Locator:
    """The step of the first token in which a completion and its repair differ.

    Args:
      align_fn: Levenshtein alignment of token ids.
      step_ids_fn: step of each token.
    Returns:
      Locator: -1 where they do not differ, -2 where there is no reference; samples nothing itself.
    Source: IOP, arXiv 2605.05226: the first edit of the repair is the first error.
    """

    def locate(problems, completions, references=None):
        del problems
        references = [None] * len(completions) if references is None else references
        known = [i for i, reference in enumerate(references) if reference is not None]
        pairs = align_fn(
            [completions[i].tokens for i in known], [references[i].tokens for i in known]
        )
        steps = [UNKNOWN] * len(completions)
        for i, pair in zip(known, pairs, strict=True):
            steps[i] = first_edited_step(pair, step_ids_fn(completions[i].tokens))
        return located(completions, steps, step_ids_fn)

    return locate


def repaired(
    sample_fn: SampleFn,
    verify_fn: VerifyFn,
    align_fn: AlignFn,
    repair_prompt: Callable[[Problem, Completion, Completion], Sequence[int]],
    step_ids_fn: StepIdsFn,
    *,
    num_repairs: int,
    threshold: float,
    stage: str = "locate-repair",
) -> Locator:
    """Let the policy repair each completion, and take the first edit of the right repair with the fewest edits.

    Args:
      sample_fn: draws repairs at temperature 1.
      verify_fn: outcome verifier on text.
      align_fn: Levenshtein alignment of token ids.
      repair_prompt: prompt of a repair, from problem, failed completion and a right one of the same problem.
      step_ids_fn: step of each token.
      num_repairs: repairs per completion, >= 1.
      threshold: tau_r in (0, 1]; a reward at or above it counts as correct.
      stage: name of the draw.
    Returns:
      Locator whose `references` are right completions of the problems, or None: -2 where there is none, or where no
      repair is right.
    Raises:
      ValueError: num_repairs < 1.
    Source: IOP, arXiv 2605.05226 section 3; differs: no audit, so a repair that copies the reference is located early.
    """
    if num_repairs < 1:
        raise ValueError(f"num_repairs = {num_repairs}: must be >= 1")
    diff = repair_diff(align_fn, step_ids_fn)

    def locate(problems, completions, references=None):
        references = [None] * len(completions) if references is None else references
        rows = [i for i, reference in enumerate(references) if reference is not None]
        groups = sample_fn(
            [repair_prompt(problems[i], completions[i], references[i]) for i in rows],
            stage=stage,
            num_samples=num_repairs,
            temperature=1.0,
        )
        owners = [i for i in rows for _ in range(num_repairs)]
        repairs = [repair for group in groups for repair in group]
        verdicts = verify_fn([problems[i] for i in owners], [r.text for r in repairs])
        right = [
            (i, repair)
            for i, repair, verdict in zip(owners, repairs, verdicts, strict=True)
            if verdict.reward >= threshold and not repair.truncated
        ]
        pairs = align_fn([completions[i].tokens for i, _ in right], [r.tokens for _, r in right])
        nearest: list[Completion | None] = [None] * len(completions)
        edits = np.full(len(completions), np.inf)
        for (i, repair), pair in zip(right, pairs, strict=True):
            if pair.num_edits < edits[i]:
                nearest[i], edits[i] = repair, pair.num_edits
        spent = np.zeros(len(completions), int)
        spent[rows] = num_repairs
        return diff(problems, completions, nearest)._replace(generations=spent)

    return locate


def first_edited_step(alignment: PairAlignment, step_ids: np.ndarray) -> int:
    """Step of the failed completion in which the first edit stands; -1 where nothing was edited.

    An insertion at the very end stands in the last step.

    Example:
      >>> pair = PairAlignment(np.array([-1, -1, 0, -1]), np.array([-1, -1, 0, -1]), 1)
      >>> first_edited_step(pair, np.array([0, 0, 1, 1]))
      1
    """
    if alignment.num_edits == 0:
        return NONE
    position = int(gate.edit_positions(alignment).failed_start[0])
    return int(step_ids[min(position, len(step_ids) - 1)])
