"""Labels of steps, to train a process reward model: files, first errors, hard and soft targets.

Host side. Reads: the file that a reader is given. Writes: nothing.

A label is the chance that the solution is right up to the end of the step: 1 right, 0 wrong, between them the share of
continuations that succeed; None: nobody said.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_reason.tasks import records

NO_ERROR = -1


class Labelled(NamedTuple):
    """A solution, or the beginning of one."""

    prompt: str  # the question
    steps: tuple[str, ...]  # S >= 1 texts
    labels: tuple[float | None, ...]  # [S] in [0, 1]


def from_first_error(
    prompt: str, steps: Sequence[str], numbers: Sequence[int], error: int
) -> Labelled:
    """Labels of a solution whose first wrong step is known: 1 before it, 0 from it on.

    Args:
      prompt: the question.
      steps: texts.
      numbers: [len(steps)] number of each step, as `error` counts.
      error: first wrong step; -1: none.
    Returns:
      Labelled.
    Example:
      >>> from_first_error("q", ["a", "b", "c"], [0, 2, 3], 2).labels
      (1.0, 0.0, 0.0)
    """
    labels = tuple(float(error == NO_ERROR or number < error) for number in numbers)
    return Labelled(prompt, tuple(steps), labels)


def targets(
    labels: Sequence[float | None], *, hard_above: float | None, drop_after_error: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Labels as the loss takes them.

    Args:
      labels: [S] in [0, 1] or None.
      hard_above: labels above it become 1, all others 0; None: they stay soft.
      drop_after_error: steps behind the first wrong one are not trained: wrong is 0 once hard, and 0 exactly if soft.
    Returns:
      ([S] float32 in [0, 1], [S] bool: where there is a target); values without a target are 0.
    Example:
      >>> targets([1.0, 0.25, None, 0.0, 0.5], hard_above=None, drop_after_error=True)[1].tolist()
      [True, True, False, True, False]
      >>> targets([1.0, 0.25, 0.0], hard_above=0.5, drop_after_error=False)[0].tolist()
      [1.0, 0.0, 0.0]
    Source: Qwen2.5-Math-PRM, arXiv 2501.07301 sections 2 and 3: steps behind the first error are dropped, and hard
      labels of Monte-Carlo shares are best at 0.
    """
    known = np.array([label is not None for label in labels], bool)
    values = np.array([label or 0.0 for label in labels], np.float32)
    if hard_above is not None:
        values = (known & (values > hard_above)).astype(np.float32)
    if drop_after_error:
        wrong = np.flatnonzero(known & (values == 0))
        if len(wrong):
            known[wrong[0] + 1 :] = False
    return np.where(known, values, np.float32(0)), known


def read_trl(path: str | os.PathLike) -> list[Labelled]:
    """Solutions of a file in TRL's form for stepwise supervision.

    Args:
      path: records (`tasks.records`) of {"prompt": str, "completions": [str, ...], "labels": [true, 0.25, null, ...]}.
    Returns:
      Labelled solutions in the order of the file.
    Raises:
      FileNotFoundError: no such file.
      ValueError: no record that can be used; others are left out with a warning.
    """
    return _read(path, _trl_records)


def read_prm800k(path: str | os.PathLike) -> list[Labelled]:
    """Solutions of a file of PRM800K.

    Each step of such a record has several candidates, with a rating: 1, 0 (right, but no progress) or -1. One of them,
    or a text that a person wrote, was gone on with. Every candidate ends one solution here, with its own rating behind
    the steps that were gone on with.

    Args:
      path: phase1_train.jsonl, phase2_train.jsonl and the like.
    Returns:
      Labelled solutions; 1 and 0 are right, and so are texts that a person wrote; no rating: None.
    Raises:
      FileNotFoundError: no such file.
      ValueError: no record that can be used; others are left out with a warning.
    Source: PRM800K, arXiv 2305.20050; 0 counts as right, as in its scoring of solutions.
    """
    return _read(path, _prm800k_records)


def _read(
    path: str | os.PathLike, solutions: Callable[[Any], Iterator[Labelled]]
) -> list[Labelled]:
    found: list[Labelled] = []
    faults = records.Faults(os.fspath(path))
    for record in records.read_records(path):
        try:
            found += list(solutions(record.fields))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            faults.add(record.place, records.Unusable("no labelled solution", repr(error)))
            continue
        faults.used += 1
    faults.say("record")
    if not found:
        raise ValueError(f"{path}: no labelled solutions")
    return found


def _trl_records(record: Any) -> Iterator[Labelled]:
    prompt, steps, labels = record["prompt"], record["completions"], record["labels"]
    if not isinstance(steps, list) or not isinstance(labels, list) or len(steps) != len(labels):
        raise ValueError("completions and labels must be lists of one length")
    yield _checked(prompt, steps, [None if x is None else _number(x) for x in labels])


def _number(label: Any) -> float:
    if not isinstance(label, (bool, int, float)) or not 0 <= label <= 1 or math.isnan(label):
        raise ValueError(f"label {label!r}: must be true, false, a number in [0, 1] or null")
    return float(label)


def _prm800k_records(record: Any) -> Iterator[Labelled]:
    prompt = record["question"]["problem"]
    steps: list[str] = []
    labels: list[float | None] = []
    for step in record["label"]["steps"]:
        candidates, chosen = step["completions"] or [], step["chosen_completion"]
        rated = [_rating(candidate["rating"]) for candidate in candidates]
        for number, candidate in enumerate(candidates):
            if number != chosen:
                yield _checked(prompt, [*steps, candidate["text"]], [*labels, rated[number]])
        if chosen is not None:
            steps, labels = [*steps, candidates[chosen]["text"]], [*labels, rated[chosen]]
        elif step["human_completion"] is not None:
            steps, labels = [*steps, step["human_completion"]["text"]], [*labels, 1.0]
        elif candidates:
            return  # they hold these steps
        else:
            break
    if steps:
        yield _checked(prompt, steps, labels)


def _rating(rating: int | None) -> float | None:
    if rating not in (None, -1, 0, 1):
        raise ValueError(f"rating {rating!r}: must be -1, 0, 1 or null")
    return None if rating is None else float(rating >= 0)


def _checked(prompt: Any, steps: list[Any], labels: list[float | None]) -> Labelled:
    if not isinstance(prompt, str) or not all(isinstance(step, str) for step in steps):
        raise TypeError("the prompt and all steps must be strings")
    if not steps:
        raise ValueError("there are no steps")
    return Labelled(prompt, tuple(steps), tuple(labels))
