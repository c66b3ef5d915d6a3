"""From a file of records to the problems of a task: parsed, filtered, split into what is trained and what is evaluated.

Host side. Reads: files of records. Writes: `data_dir`, where one is given (`tasks.prepared`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_reason.tasks import copies, records, turns
from jaxrl_reason.types import Problem
from jaxrl_reason.verify.sandbox_tests import Tests


class Source(NamedTuple):
    """Where problems come from, and which of them are asked; fields as in `config.task`."""

    path: str  # records (`tasks.records`)
    eval_path: str = ""  # records of the problems that evaluation asks; "": see hold_out
    data_dir: str = ""  # problems are prepared here once, as ArrayRecord; "": held in memory
    pass_rates: str = ""  # JSONL of measured pass rates by id; "": field pass_rate of the records
    min_pass_rate: float = 0.0  # in [0, 1]: harder problems are not asked in training
    max_pass_rate: float = 1.0  # in [0, 1]: easier problems are not asked in training
    fields: str = ""  # "question=their_name,answer=their_name": names that are not known
    hold_out: int = 0  # without eval_path, one problem in so many is for evaluation alone; 0: none


class Entry(NamedTuple):
    """What one record says."""

    prompt: str
    answer: str
    reference: str | None = None
    pass_rate: float | None = None
    tests: Tests | None = None  # of a program
    steps: tuple[str, ...] | None = None  # of the reference, where the record has it in steps
    messages: tuple[Mapping[str, str], ...] = ()  # turns before the question, {"role", "content"}


Parse = Callable[[Mapping[str, Any]], Entry]


class Loaded(NamedTuple):
    """The problems of a task."""

    problems: Sequence[Problem]  # to train on, in the order of the file
    held_out: Sequence[Problem] | None  # to evaluate on; None: the same
    where: str  # evaluation's problems come from, in words
    parse: Parse


def load(
    source: Source | str | os.PathLike,
    name: str,
    parse: Parse,
    columns: Sequence[str] | None = None,
    *,
    by_reference: bool = False,
) -> Loaded:
    """Problems to train on, and those to evaluate on.

    Each question is asked once: copies are left out, and so are all copies of a question that has different gold
    answers (`tasks.copies`), and training problems that evaluation asks too. One line says how many of each.

    Args:
      source: files and filters; a path alone is one file without filters, all of which is trained and evaluated on.
      name: ids are "<name>-<line or row>".
      parse: fields of a record to an Entry; ValueError where no problem can be made of it.
      columns: of Parquet that `parse` looks at; None: those of questions with answers.
      by_reference: problems with one question and different references are no copies: their solutions are trained on.
    Returns:
      Loaded.
    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file that cannot be read; or no problem is left.
    """
    source = source if isinstance(source, Source) else Source(os.fspath(source))
    names = mapping(source.fields)
    columns = (
        *(columns or _COLUMNS),
        *(value.partition(".")[0].lower() for value in names.values()),
    )

    def read(path: str, name: str) -> Sequence[Problem]:
        made = lambda: _parsed(path, name, parse, columns, names)  # noqa: E731
        found = list(made()) if not source.data_dir else _prepared(path, name, source, made)
        return copies.without_copies(found, path, by_reference=by_reference)

    problems = read(source.path, name)
    if source.min_pass_rate > 0 or source.max_pass_rate < 1:
        problems = _of_pass_rate(problems, source)
    if source.eval_path:
        held_out = read(source.eval_path, f"{name}-eval")
        problems = copies.without_overlap(problems, held_out, source.path, source.eval_path)
        return Loaded(problems, held_out, f"problems of {source.eval_path}", parse)
    return _split(problems, source, parse)


def _prepared(
    path: str, name: str, source: Source, made: Callable[[], Iterator[Problem]]
) -> Sequence[Problem]:
    from jaxrl_reason.tasks import prepared  # half a second, for those who use it

    return prepared.problems(path, name, source.data_dir, made, settings=source.fields)


def _split(problems: Sequence[Problem], source: Source, parse: Parse) -> Loaded:
    """One problem in `hold_out` is for evaluation: a hash of the question decides, whatever else the file holds."""
    if not source.hold_out or len(problems) < 2 * source.hold_out:
        few = f" (fewer than {2 * source.hold_out}, so that none are held out)"
        where = f"problems of {source.path}, which are trained on as well"
        return Loaded(problems, None, where + few * bool(source.hold_out), parse)
    digests = [copies.digest(copies.whole_text(problem)) for problem in problems]
    out = {i for i, digest in enumerate(digests) if digest % source.hold_out == 0}
    if not out or len(out) == len(problems):
        out = {min(range(len(problems)), key=digests.__getitem__)}
    held_out = copies.Chosen(problems, sorted(out))
    kept = copies.Chosen(problems, [i for i in range(len(problems)) if i not in out])
    where = (
        f"held-out problems of {source.path} (one in {source.hold_out}, by a hash of the question; training on the"
        f" other {len(kept)}); task.eval_path names others"
    )
    return Loaded(kept, held_out, where, parse)


# Parquet columns that some parser looks at: solutions of a strong model, in others, can be gigabytes.
_COLUMNS = (
    *turns.QUESTIONS,
    *turns.SYSTEMS,
    *(
        "context",
        "answer",
        "final_answer",
        "expected_answer",
        "ground_truth",
    ),
    *(
        "reward_model",
        "label",
        "extra_info",
        "solution",
        "is_multiple_answer",
        "unit",
        "answer_type",
    ),
    *(
        "error",
        "modality",
        "completions",
        "labels",
        "pass_rate",
        "solve_rate",
        "llama8b_solve_rate",
    ),
)
FIELDS = (
    "question",
    "answer",
    "solution",
    "pass_rate",
    "tests",
    "completion",
)  # that `task.fields` may name
# What else says the same, and goes where a setting names the field to be read.
_SAME = {
    "question": (
        "problem",
        "prompt",
        "query",
        "instruction",
        "input",
        "messages",
        "conversations",
        "question_content",
    ),
    "answer": ("final_answer", "expected_answer", "ground_truth", "reward_model", "label"),
    "pass_rate": ("solve_rate", "llama8b_solve_rate"),
    "tests": ("input_output",),
}


def mapping(text: str) -> dict[str, str]:
    """`task.fields` as {our name: theirs}.

    Raises:
      ValueError: it is written otherwise, or names a field that is not of FIELDS.
    Example:
      >>> mapping("question=my_q, answer=meta.gold")
      {'question': 'my_q', 'answer': 'meta.gold'}
    """
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        ours, _, theirs = (word.strip() for word in part.partition("="))
        if ours not in FIELDS or not theirs or ours in found:
            raise ValueError(
                f"task.fields = {text!r}: {part!r} must be name=their_name, each name once and one of"
                f" {', '.join(FIELDS)}"
            )
        found[ours] = theirs
    return found


def renamed(fields: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """Fields of a record under our names; where it has none of theirs, it stays as it is.

    Example:
      >>> renamed({"q": "1 + 1?", "meta": {"gold": 2}}, {"question": "q", "answer": "meta.gold"})["answer"]
      2
    """
    for ours, theirs in names.items():
        value: Any = fields
        for part in [theirs] if theirs in fields else theirs.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            others = _SAME.get(ours, ())
            fields = {k: v for k, v in fields.items() if k.lower() not in (*others, ours)} | {
                ours: value
            }
    return fields


def meta(entry: Entry) -> dict[str, Any]:
    """What else a problem carries: pass_rate, tests, steps and messages, where the record has them."""
    found = {"pass_rate": entry.pass_rate, "tests": entry.tests, "steps": entry.steps}
    found["messages"] = entry.messages or None
    return {name: value for name, value in found.items() if value is not None}


def _parsed(
    path: str, name: str, parse: Parse, columns: Sequence[str], names: Mapping[str, str]
) -> Iterator[Problem]:
    faults = records.Faults(path)
    for record in records.read_records(path, columns):
        try:
            entry = parse(renamed(record.fields, names))
        except ValueError as error:
            faults.add(record.place, error)
            continue
        faults.used += 1
        yield Problem(
            id=f"{name}-{record.number}",
            prompt=entry.prompt,
            answer=entry.answer,
            reference=entry.reference,
            meta=meta(entry),
        )
    faults.say("problem")


# --- filters ---------------------------------------------------------------------------------------


def answered(problems: Sequence[Problem]) -> Sequence[Problem]:
    """Those of the problems that have a gold answer."""
    kept = [i for i, problem in enumerate(problems) if problem.answer]
    return problems if len(kept) == len(problems) else copies.Chosen(problems, kept)


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
    return copies.Chosen(problems, kept)


def _read_rates(path: str) -> dict[str, float]:
    """{id: pass rate} of lines {"id", "pass_rate"} or {"id", "num_correct", "num_samples"}, or of an evaluation."""
    rates = {}
    for record in records.read_records(path):
        fields = record.fields
        if "problem" in fields and "rewards" in fields:
            fields = _of_evaluation(fields)
        rate, size = fields.get("pass_rate"), fields.get("num_samples")
        if (
            rate is None
            and records.is_number(size)
            and size > 0
            and records.is_number(fields.get("num_correct"))
        ):
            rate = fields["num_correct"] / size
        if (
            not isinstance(fields.get("id"), str)
            or not records.is_number(rate)
            or not 0 <= rate <= 1
        ):
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
    if not isinstance(rewards, list) or not rewards or not all(map(records.is_number, rewards)):
        return {"id": fields["problem"]}
    return {"id": fields["problem"], "pass_rate": float(np.mean([r >= 0.5 for r in rewards]))}


def pass_rate(fields: Mapping[str, Any]) -> float | None:
    """Measured pass rate in pass_rate, solve_rate or llama8b_solve_rate (Big-Math); None where a record has none.

    Raises:
      Unusable: no number in [0, 1].
    """
    for name in ("pass_rate", *_SAME["pass_rate"]):
        rate = fields.get(name)
        if isinstance(rate, str):  # of a CSV file
            rate = _float(rate)
        if rate is None or (isinstance(rate, float) and math.isnan(rate)):
            continue
        if not records.is_number(rate) or not 0 <= rate <= 1:
            raise records.Unusable(f"field {name} is no number in [0, 1]", f"{rate!r:.60}")
        return float(rate)
    return None


def _float(text: str) -> float | str | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return text
