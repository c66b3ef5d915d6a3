"""Scores of first-error locators on files of labelled solutions.

Host side. Reads: ProcessBench files. Writes: nothing.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.table

from jaxrl_reason.types import Problem
from jaxrl_reason.verify import processbench, steps

# Problems and the texts of their solutions' steps -> first wrong step of each; -1: none, -2: unknown.
LocateSteps = Callable[[Sequence[Problem], Sequence[Sequence[str]]], Sequence[int]]


def executable(problems: Sequence[Problem], solutions: Sequence[Sequence[str]]) -> list[int]:
    """First step with an equation that does not hold (`verify.steps`)."""
    del problems
    return [steps.first_wrong_step(solution) for solution in solutions]


_LOCATORS: dict[str, Callable[[], LocateSteps]] = {"executable": lambda: executable}


def make_locator(name: str) -> LocateSteps:
    """The locator of this name.

    Raises:
      ValueError: there is none.
    Example:
      >>> make_locator("executable")([Problem("p", "Add.", "")], [["2 + 3 = 5", "5 + 1 = 7"]])
      [1]
    """
    if name not in _LOCATORS:
        raise ValueError(f"locator {name!r}: must be one of {', '.join(_LOCATORS)}")
    return _LOCATORS[name]()


def measure(
    paths: Sequence[str | os.PathLike], locate_fn: LocateSteps
) -> dict[str, dict[str, float]]:
    """Scores of each file, and their means in "average" where there are several, as ProcessBench reports them.

    Args:
      paths: ProcessBench subsets.
      locate_fn: sees questions and steps, not labels.
    Returns:
      {name of the file: fields of `verify.processbench.Scores`, and seconds}.
    Raises:
      FileNotFoundError: no such file.
      ValueError: a bad record; two files of one name.
    """
    results: dict[str, dict[str, float]] = {}
    for path in paths:
        name = pathlib.Path(path).stem
        if name in results:
            raise ValueError(f"{path}: a second file called {name}; the table needs other names")
        found = processbench.read(path)
        problems = [Problem(r.id, r.problem, "") for r in found]
        start = time.monotonic()
        predictions = locate_fn(problems, [r.steps for r in found])
        seconds = time.monotonic() - start
        scores = processbench.score([r.label for r in found], list(predictions))
        results[name] = {**scores._asdict(), "seconds": seconds}
    if len(results) > 1:
        each = list(results.values())
        results["average"] = {f: sum(r[f] for r in each) / len(each) for f in each[0]}
    return results


def table(results: Mapping[str, Mapping[str, Any]]) -> rich.table.Table:
    """Scores in percent; erroneous (match), earlier, later and missed split the solutions with an error."""
    columns = ("f1", "erroneous", "correct", "earlier", "later", "missed")
    made = rich.table.Table("subset", *columns, "of")
    for name, scores in results.items():
        total = scores["num_erroneous"] + scores["num_correct"]
        counts = f"{scores['num_erroneous']:g} / {total:g}"
        made.add_row(name, *(f"{100 * scores[c]:.1f}" for c in columns), counts)
    return made
