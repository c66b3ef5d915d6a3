"""Locators that read the text of the steps: computed equations, a process reward model, a critic.

Host side. Reads: nothing. Writes: nothing.

Each is a `JudgeSteps`, problems and texts of steps in, first wrong steps out, so that it serves labelled solutions of a
benchmark as well; `by_steps` makes a `locate.Locator` of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxrl_reason.credit import critic, locate
from jaxrl_reason.types import CriticFn, Problem, StepRewardsFn
from jaxrl_reason.verify import step_rules
from jaxrl_reason.verify import steps as equations


class Judged(NamedTuple):
    """First wrong steps of B solutions, and what finding them cost."""

    steps: list[int]  # 0-indexed; -1: none is wrong, -2: unknown
    generations: np.ndarray  # [B] int: completions sampled
    tokens: np.ndarray  # [B] int: tokens that a reward model read, or a critic wrote


JudgeSteps = Callable[[Sequence[Problem], Sequence[Sequence[str]]], Judged]


def step_texts(
    tokens: Sequence[int],
    step_ids: np.ndarray,
    decode: Callable[[Sequence[int]], str],
    separator: str,
) -> tuple[list[str], list[int]]:
    """Texts of the steps of a completion, without the separator that ends them, and the number of each.

    Args:
      tokens: of one completion.
      step_ids: [length] int, step of each token.
      decode: tokens of a completion to text.
      separator: text that ends a step.
    Returns:
      (texts, numbers); steps without text are left out.
    Example:
      >>> step_texts([5, 3, 3, 6, 1], np.array([0, 0, 1, 2, 2]), lambda t: "".join("?$?; 56"[i] for i in t), ";")
      (['5', '6$'], [0, 2])
    """
    texts, numbers = [], []
    for number in range(int(step_ids[-1]) + 1 if len(step_ids) else 0):
        first, last = np.searchsorted(step_ids, [number, number + 1])
        text = decode(tokens[first:last]).strip().removesuffix(step_rules.shown(separator)).strip()
        if text:
            texts.append(text)
            numbers.append(number)
    return texts, numbers


def by_steps(
    judge: JudgeSteps,
    step_ids_fn: locate.StepIdsFn,
    decode: Callable[[Sequence[int]], str],
    separator: str,
) -> locate.Locator:
    """Locator that shows the steps of each completion to a judge; -2 for a completion without a step.

    Args:
      judge: reads texts of steps.
      step_ids_fn: step of each token.
      decode: tokens of a completion to text.
      separator: text that ends a step.
    Returns:
      Locator; steps keep the numbers that `step_ids_fn` gives them.
    """

    def find(problems, completions, references=None):
        del references
        shown = [
            step_texts(c.tokens, np.asarray(step_ids_fn(c.tokens)), decode, separator)
            for c in completions
        ]
        rows = [i for i, (texts, _) in enumerate(shown) if texts]
        judged = judge([problems[i] for i in rows], [shown[i][0] for i in rows])
        steps = [locate.UNKNOWN] * len(completions)
        costs = np.zeros((2, len(completions)), int)
        for i, step in zip(rows, judged.steps, strict=True):
            steps[i] = shown[i][1][step] if step >= 0 else step
        costs[:, rows] = judged.generations, judged.tokens
        return locate.located(completions, steps, step_ids_fn, *costs)

    return find


def executable(problems: Sequence[Problem], steps: Sequence[Sequence[str]]) -> Judged:
    """The first step in which an equation between numbers does not hold; -2 where there is no equation to compute.

    Args:
      problems: not looked at.
      steps: texts of the steps of each solution.
    Returns:
      Judged; costs nothing.
    Example:
      >>> executable([], [["2 + 3 = 5", "5 * 2 = 12"], ["2 + 3 = 5", "so 5"], ["1 5 2", "1 7"]]).steps
      [1, -1, -2]
    Source: `verify.steps`.
    """
    del problems
    free = np.zeros(len(steps), int)
    return Judged([_first_false(solution) for solution in steps], free, free)


def _first_false(steps: Sequence[str]) -> int:
    outcomes = [equations.check_step(step) for step in steps]
    if "wrong" in outcomes:
        return outcomes.index("wrong")
    return locate.NONE if "right" in outcomes else locate.UNKNOWN


def first_below(rewards: np.ndarray, num_steps: int, threshold: float) -> int:
    """The first step whose reward is below the threshold: min {m: p_m < tau}.

    Args:
      rewards: [<= num_steps] P(right so far); those of later steps are missing.
      num_steps: steps of the solution.
      threshold: tau in (0, 1]; a reward equal to it is right.
    Returns:
      0-indexed; -1: none is below; -2: none is below, but not all steps have a finite reward, or there is no step.
    Example:
      >>> first_below(np.array([0.9, 0.8, 0.3]), 3, 0.8), first_below(np.array([0.9]), 2, 0.8)
      (2, -2)
    Source: VPPO, arXiv 2601.18984 section 3.1, with tau = 0.8.
    """
    below = np.flatnonzero(np.asarray(rewards) < threshold)
    if len(below) and np.isfinite(rewards[: below[0]]).all():
        return int(below[0])
    whole = 0 < num_steps == len(rewards) and bool(np.isfinite(rewards).all())
    return locate.NONE if whole else locate.UNKNOWN


def by_rewards(step_rewards: StepRewardsFn, threshold: float) -> JudgeSteps:
    """Judge by a process reward model and a threshold, `first_below`; all steps are read in one pass.

    Args:
      step_rewards: process reward model.
      threshold: tau in (0, 1].
    Returns:
      JudgeSteps.
    """

    def judge(problems, steps):
        scored = step_rewards(problems, steps)
        found = [
            first_below(rewards, len(solution), threshold)
            for rewards, solution in zip(scored.rewards, steps, strict=True)
        ]
        return Judged(found, np.zeros(len(found), int), scored.tokens)

    return judge


def by_critic(
    ask: CriticFn, samples: int, form: critic.Form = critic.FORMS["paragraphs"]
) -> JudgeSteps:
    """Judge by a language model that is asked for the number of the first wrong step.

    Args:
      ask: samples k answers to each prompt.
      samples: k; with more than one, the most frequent readable answer counts (`critic.vote`).
      form: of question and answer.
    Returns:
      JudgeSteps; -2 where no answer is readable, or the prompt does not fit.
    """

    def judge(problems, steps):
        prompts = [form.prompt(p.prompt, s) for p, s in zip(problems, steps, strict=True)]
        answers = ask(prompts, samples)
        found = [
            critic.vote([form.parse(text, len(solution)) for text in texts])
            for texts, solution in zip(answers.texts, steps, strict=True)
        ]
        return Judged(found, np.array([len(t) for t in answers.texts], int), answers.tokens)

    return judge
