"""Scores of a first-error locator against labelled solutions.

Host side. Reads: the JSON file that `read` is given. Writes: nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from jaxrl_reason.tasks import records

NO_ERROR = -1


class Record(NamedTuple):
    """One labelled solution."""

    id: str
    problem: str
    steps: tuple[str, ...]
    label: int  # first wrong step, 0-indexed; NO_ERROR


class Scores(NamedTuple):
    """Shares in [0, 1]; those of an empty class are 0."""

    f1: float  # harmonic mean of the next two
    erroneous: float  # exact match, among solutions with an error
    correct: float  # "no error" said, among solutions without
    match: float  # the next four: where predictions lie, among solutions with an error
    earlier: float
    later: float
    missed: float
    num_erroneous: int
    num_correct: int


def score(labels: Sequence[int], predictions: Sequence[int]) -> Scores:
    """F1 of a locator, and where its predictions lie.

    Args:
      labels: first wrong step of each solution, 0-indexed; -1: none.
      predictions: the same from a locator; -2 (unknown) counts as none.
    Returns:
      Scores. "later" is the harmful class: tokens ahead of the true error would be rewarded.
    Raises:
      ValueError: different lengths, or a label below -1.
    Example:
      >>> s = score([2, 1, -1, -1], [2, 3, -1, 0])
      >>> s.f1, s.later
      (0.5, 0.5)
    Source: ProcessBench, arXiv 2412.06559, section 3; the split of the predictions is ours.
    """
    if len(labels) != len(predictions):
        raise ValueError(
            f"{len(labels)} labels and {len(predictions)} predictions: one for each is needed"
        )
    if min(labels, default=0) < NO_ERROR:
        raise ValueError(f"label {min(labels)}: must be a step number, or -1 for no error")
    pairs = list(zip(labels, (max(p, NO_ERROR) for p in predictions), strict=True))
    wrong = [(label, p) for label, p in pairs if label != NO_ERROR]
    right = [p for label, p in pairs if label == NO_ERROR]

    def share(hits: int, of: int) -> float:
        return hits / of if of else 0.0

    match = share(sum(p == label for label, p in wrong), len(wrong))
    correct = share(sum(p == NO_ERROR for p in right), len(right))
    return Scores(
        f1=2 * match * correct / (match + correct) if match + correct else 0.0,
        erroneous=match,
        correct=correct,
        match=match,
        earlier=share(sum(NO_ERROR < p < label for label, p in wrong), len(wrong)),
        later=share(sum(p > label for label, p in wrong), len(wrong)),
        missed=share(sum(p == NO_ERROR for _, p in wrong), len(wrong)),
        num_erroneous=len(wrong),
        num_correct=len(right),
    )


def read(path: str | os.PathLike) -> list[Record]:
    """Records of one ProcessBench subset.

    Args:
      path: objects with id, problem, steps and label, in any form of `tasks.records`.
    Returns:
      Records in the order of the file.
    Raises:
      FileNotFoundError: no such file.
      ValueError: a bad record, named by file and number.
    """
    found = [_record(r.fields, f"{path}, {r.place}") for r in records.read_records(path)]
    if not found:
        raise ValueError(f"{path}: must hold records")
    return found


def _record(row: object, place: str) -> Record:
    fields = {"id": str, "problem": str, "steps": list, "label": int}
    for field, kind in fields.items():
        value = row.get(field) if isinstance(row, dict) else None
        if not isinstance(value, kind):
            raise ValueError(f"{place}: field {field} = {value!r}: must be of type {kind.__name__}")
    if not NO_ERROR <= row["label"] < len(row["steps"]):
        raise ValueError(
            f"{place}: label {row['label']}: must be a step of {len(row['steps'])}, or -1"
        )
    return Record(row["id"], row["problem"], tuple(map(str, row["steps"])), row["label"])
