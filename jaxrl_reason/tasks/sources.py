"""From a file of records to the problems of a task: parsed, filtered, kept apart from the test set.

Host side. Reads: JSONL or Parquet files. Writes: `data_dir`, where one is given (`tasks.prepared`).
"""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from jaxrl_reason.tasks import records
from jaxrl_reason.types import Problem
from jaxrl_reason.verify.sandbox_tests import Tests

_SHOWN = 10  # records that a message names one by one


class Source(NamedTuple):
    """Where problems come from, and which of them are asked; fields as in `config.task`."""

    path: str  # JSONL or Parquet
    eval_path: str = ""  # JSONL or Parquet of the problems that evaluation asks; "": those of path
    data_dir: str = ""  # problems are prepared here once, as ArrayRecord; "": held in memory
    pass_rates: str = ""  # JSONL of measured pass rates by id; "": field pass_rate of the records
    min_pass_rate: float = 0.0  # in [0, 1]: harder problems are not asked in training
    max_pass_rate: float = 1.0  # in [0, 1]: easier problems are not asked in training


class Entry(NamedTuple):
    """What one record says."""

    prompt: str
    answer: str
    reference: str | None = None
    pass_rate: float | None = None
    tests: Tests | None = None  # of a program
    steps: tuple[str, ...] | None = None  # of the reference, where the record has it in steps


class Unusable(ValueError):
    """A record in order, of which no problem can be made: left out and reported."""


Parse = Callable[[Mapping[str, Any]], Entry]


class _Chosen(Sequence[Problem]):
    """Some problems of a sequence, which may lie on disk."""

    def __init__(self, problems: Sequence[Problem], indices: Sequence[int]):
        self._problems, self._indices = problems, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | Sequence[Problem]:
        if isinstance(index, slice):
            return _Chosen(self._problems, self._indices[index])
        return self._problems[self._indices[index]]


def load(
    source: Source | str | os.PathLike,
    name: str,
    parse: Parse,
    columns: Sequence[str] | None = None,
) -> tuple[Sequence[Problem], Sequence[Problem] | None]:
    """Problems to train on, and those to evaluate on where they have a file of their own.

    A training problem that also stands in the evaluation file (by `question_key`) is left out, with a warning.

    Args:
      source: files and filters; a path alone is one file without filters.
      name: ids are "<name>-<line or row>".
      parse: fields of a record to an Entry; ValueError where they are wrong, Unusable where the problem must be left
        out.
      columns: of Parquet that `parse` looks at; None: those of questions with answers.
    Returns:
      (training problems in the order of the file, evaluation problems or None).
    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a bad record, named by file and line; or no problem is left.
    """
    source = source if isinstance(source, Source) else Source(os.fspath(source))
    columns = columns or _COLUMNS
    problems = _problems(source.path, name, parse, source.data_dir, columns)
    if source.min_pass_rate > 0 or source.max_pass_rate < 1:
        problems = _of_pass_rate(problems, source)
    if not source.eval_path:
        return problems, None
    held_out = _problems(source.eval_path, f"{name}-eval", parse, source.data_dir, columns)
    return _without_overlap(problems, held_out, source), held_out


def _problems(
    path: str, name: str, parse: Parse, data_dir: str, columns: Sequence[str]
) -> Sequence[Problem]:
    if not data_dir:
        return list(_parsed(path, name, parse, columns))
    from jaxrl_reason.tasks import prepared  # half a second, for those who use it

    return prepared.problems(path, name, data_dir, lambda: _parsed(path, name, parse, columns))


# Parquet columns that some parser looks at: solutions of a strong model, in others, can be gigabytes.
_COLUMNS = (
    *("problem", "question", "prompt", "context", "answer", "final_answer", "reward_model"),
    *("solution", "is_multiple_answer", "unit", "answer_type", "error", "modality", "pass_rate"),
    *("completions", "labels"),
)


def _parsed(path: str, name: str, parse: Parse, columns: Sequence[str]) -> Iterator[Problem]:
    left_out, count = [], 0
    for record in records.read_records(path, columns):
        try:
            entry = parse(record.fields)
        except Unusable as error:
            left_out.append(f"{record.place}: {error}")
            continue
        except ValueError as error:
            raise ValueError(f"{path}, {record.place}: {error}") from error
        count += 1
        further = {"pass_rate": entry.pass_rate, "tests": entry.tests, "steps": entry.steps}
        yield Problem(
            id=f"{name}-{record.number}",
            prompt=entry.prompt,
            answer=entry.answer,
            reference=entry.reference,
            meta={key: value for key, value in further.items() if value is not None},
        )
    said = f"{path}: {len(left_out)} of {count + len(left_out)} problems cannot be used"
    if not count:
        raise ValueError(_list(said, left_out) if left_out else f"{path}: holds no problem")
    if left_out:
        warnings.warn(_list(said, left_out), stacklevel=2)


def _list(message: str, places: Sequence[str]) -> str:
    shown = "".join(f"\n  {place}" for place in places[:_SHOWN])
    more = f"\n  and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return f"{message}:{shown}{more}"


# --- filters ---------------------------------------------------------------------------------------


def question_key(question: str) -> str:
    """What two copies of a question share: letters, digits and signs, without case, white space and maths marks.

    Example:
      >>> question_key("Find  $x^2$ for X = 3.") == question_key("find x^2 for x=3.")
      True
      >>> question_key("Find 3 + x.") == question_key("Find 3 - x.")
      False
    """
    text = unicodedata.normalize("NFKC", question).casefold()
    return "".join(re.sub(r"\\[()\[\],;! ]|\\left|\\right|\\displaystyle|\$", "", text).split())


def _without_overlap(
    problems: Sequence[Problem], held_out: Sequence[Problem], source: Source
) -> Sequence[Problem]:
    tested = {question_key(p.prompt): p.id for p in held_out}
    kept, shared = [], []
    for i, problem in enumerate(problems):
        twin = tested.get(question_key(problem.prompt))
        if twin is None:
            kept.append(i)
        else:
            shared.append(f"{problem.id} is {twin}")
    if not shared:
        return problems
    said = f"{source.path}: {len(shared)} of {len(problems)} problems also stand in"
    if not kept:
        raise ValueError(f"{said} {source.eval_path}, so that none is left to train on")
    warnings.warn(
        _list(f"{said} {source.eval_path}, and are left out of training", shared), stacklevel=2
    )
    return _Chosen(problems, kept)


def answered(problems: Sequence[Problem]) -> Sequence[Problem]:
    """Those of the problems that have a gold answer."""
    kept = [i for i, problem in enumerate(problems) if problem.answer]
    return problems if len(kept) == len(problems) else _Chosen(problems, kept)


def _of_pass_rate(problems: Sequence[Problem], source: Source) -> Sequence[Problem]:
    """Problems whose measured pass rate lies in [min_pass_rate, max_pass_rate]; those without one are left out."""
    rates = _read_rates(source.pass_rates) if source.pass_rates else None
    kept, measured = [], 0
    for i, problem in enumerate(problems):
        rate = problem.meta.get("pass_rate") if rates is None else rates.get(problem.id)
        measured += rate is not None
        if rate is not None and source.min_pass_rate <= rate <= source.max_pass_rate:
            kept.append(i)
    if not measured:
        where = source.pass_rates or f"{source.path}, field pass_rate"
        first = problems[0].id
        raise ValueError(
            f"{where}: says no pass rate of any problem of {source.path} (the first is {first!r})"
        )
    if not kept:
        raise ValueError(
            f"{source.path}: no pass rate in [{source.min_pass_rate}, {source.max_pass_rate}]"
            f" among {measured} problems; widen task.min_pass_rate and task.max_pass_rate"
        )
    return _Chosen(problems, kept)


def _read_rates(path: str) -> dict[str, float]:
    """{id: pass rate} of lines {"id", "pass_rate"} or {"id", "num_correct", "num_samples"}, or of an evaluation."""
    rates = {}
    for record in records.read_records(path):
        fields = record.fields
        if "problem" in fields and "rewards" in fields:
            fields = _of_evaluation(fields)
        rate, size = fields.get("pass_rate"), fields.get("num_samples")
        if rate is None and is_number(size) and size > 0 and is_number(fields.get("num_correct")):
            rate = fields["num_correct"] / size
        if not isinstance(fields.get("id"), str) or not is_number(rate) or not 0 <= rate <= 1:
            raise ValueError(
                f'{path}, {record.place}: must hold "id" and "pass_rate" in [0, 1],'
                f' or "id", "num_correct" and "num_samples"; holds {str(fields)[:80]}'
            )
        if fields["id"] in rates:
            raise ValueError(f"{path}, {record.place}: a second pass rate of {fields['id']!r}")
        rates[fields["id"]] = float(rate)
    return rates


def _of_evaluation(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A line of `jaxrl-reason evaluate --out` as {"id", "pass_rate"}; what it lacks is found by the caller."""
    rewards = fields["rewards"]
    if not isinstance(rewards, list) or not rewards or not all(map(is_number, rewards)):
        return {"id": fields["problem"]}
    return {"id": fields["problem"], "pass_rate": float(np.mean([r >= 0.5 for r in rewards]))}


def is_number(value: Any) -> bool:
    """Whether a field holds a number; JSON's true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def pass_rate(fields: Mapping[str, Any]) -> float | None:
    """Field pass_rate of a record; None where it has none.

    Raises:
      ValueError: no number in [0, 1].
    """
    rate = fields.get("pass_rate")
    if rate is not None and not (is_number(rate) and 0 <= rate <= 1):
        raise ValueError(f"field pass_rate = {rate!r}: must be a number in [0, 1]")
    return None if rate is None else float(rate)
