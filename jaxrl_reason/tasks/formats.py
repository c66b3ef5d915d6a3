r"""Records of maths data sets, recognised by their fields.

Host side. Reads: nothing. Writes: nothing.

| data set | question | gold answer | solution |
| --- | --- | --- | --- |
| MATH, Minerva | problem | last \boxed{} of solution | solution |
| MATH-500, AIME, AMC, HMMT, Big-Math | problem or question | answer: text or number | solution, where there is one |
| DeepMath-103K | question | final_answer | none: its solutions are model text of 10^4 tokens |
| OlympiadBench | context and question | final_answer: list | solution: list |
| GSM8K | question | answer, behind its last "####" | answer |
| TRL's stepwise supervision | prompt | as MATH or GSM8K, or none | completions: steps, all with a right label |
| verl: DAPO-Math, Skywork, GSM8K | prompt: messages | reward_model.ground_truth | extra_info.answer, if any |
| ShareGPT, chats | conversations, messages | as MATH, of the last reply | the last reply |

More names for the same: `tasks.turns` for questions, `GOLDS` here. Names of fields are compared without case ("Problem"
in some copies of AIME).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxrl_reason.tasks import checking, golds, turns
from jaxrl_reason.tasks.records import Unusable
from jaxrl_reason.tasks.sources import Entry, pass_rate
from jaxrl_reason.verify import extract

GOLDS = ("answer", "final_answer", "expected_answer", "ground_truth", "reward_model", "label")


class Read(NamedTuple):
    """Question, gold answer and solution, before a task writes the solution in its own answer format."""

    asked: turns.Asked
    gold: str  # "" where TRL's steps have no answer
    solution: str | None  # with at least one step besides the answer
    steps: tuple[str, ...] | None  # of the solution, in TRL's form


def maths_entry(fields: Mapping[str, Any]) -> Entry:
    r"""Question, gold answer and solution of one record.

    Args:
      fields: of a record, in one of the formats at the top of this module.
    Returns:
      Entry; its answer can be read by `verify.answers`, or is "", which only TRL's form allows.
    Raises:
      Unusable: a field is missing or wrong, the gold answer is a placeholder, cannot be read or holds only within a
        tolerance, the question needs its picture, or a step is labelled wrong.
    Example:
      >>> maths_entry({"problem": "1 + 1?", "solution": r"It is $\boxed{2}$."})[:3]
      ('1 + 1?', '2', None)
      >>> maths_entry({"question": "How many?", "answer": 27.0}).answer
      '27'
    """
    fields = {name.lower(): value for name, value in fields.items()}
    found = read(fields)
    solution = found.solution
    if found.gold:
        check_gold(found.gold)
        marked = solution and extract.marked(
            solution
        )  # one without a mark needs no worker's opinion
        if solution and not (marked and checking.ends_in(solution, found.gold)):
            # It serves as an example of the answer format too.
            solution += f"\n\n\\boxed{{{found.gold}}}"
    return Entry(
        found.asked.text,
        found.gold,
        solution,
        pass_rate(fields),
        steps=found.steps,
        messages=found.asked.before,
    )


def check_gold(gold: str) -> None:
    """Refuses, as unusable, a gold answer that cannot be read."""
    try:
        checking.check_gold(gold)
    except ValueError as error:
        slow = " (it takes too long)" * ("takes too long" in str(error))
        raise Unusable("the gold answer cannot be read", repr(gold[:60]) + slow) from error


def read(fields: Mapping[str, Any]) -> Read:
    """What a record says; `fields` with names in small letters; see `maths_entry`."""
    asked = turns.read(fields)
    steps = _steps(fields)
    if steps is not None:
        fields = {**fields, "solution": "\n\n".join(steps)}
        if not any(fields.get(name) for name in GOLDS) and not _has_answer(fields["solution"]):
            return Read(asked, "", fields["solution"], steps)
    gold, solution = _gold(fields, asked.reply)
    if fields.get("modality") == "Multimodal":
        raise Unusable("the question needs its picture")
    if fields.get("error"):
        raise Unusable(
            "the gold answer holds within a tolerance only", f"{gold[:40]!r}, {fields['error']}"
        )
    if solution and not golds.has_step(solution, gold):
        solution = None
    return Read(asked, gold, solution, steps)


def _steps(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Steps of an expert, of a record in TRL's form; None of other records."""
    steps, labels = fields.get("completions"), fields.get("labels")
    if steps is None:
        return None
    if not isinstance(steps, list) or not all(isinstance(s, str) and s.strip() for s in steps):
        raise Unusable("field completions is no list of texts, the steps", golds.shown(steps))
    if (
        not steps
        or labels is not None
        and (not isinstance(labels, list) or len(labels) != len(steps))
    ):
        raise Unusable(
            "fields completions and labels are no lists of one length, at least 1",
            golds.shown(labels),
        )
    wrong = [i for i, label in enumerate(labels or ()) if label is not None and label != 1]
    if wrong:
        raise Unusable(
            "a step is labelled wrong", f"step {wrong[0] + 1} is labelled {labels[wrong[0]]!r}"
        )
    return tuple(step.strip() for step in steps)


def _has_answer(solution: str) -> bool:
    return any(mark in solution for mark in ("\\boxed", "\\fbox", "####"))


def _gold(fields: Mapping[str, Any], reply: str | None) -> tuple[str, str | None]:
    """(gold answer, solution): the first field that has an answer; of none, what the solution ends with."""
    solution = _solution(fields, reply)
    empty = []
    several = bool(fields.get("is_multiple_answer"))
    for name, value in _candidates(fields):
        gold = golds.text_of(name, value, several=several)
        if gold is None:
            empty.append(f"field {name} = {golds.shown(value)}")
        elif _has_answer(gold) and (found := _final(gold)):
            # A whole solution stands where the answer belongs.
            return found, solution if solution and "####" not in gold else gold
        else:
            return gold, solution or _of_extra_info(fields, gold)
    if solution is None:
        what = empty[0] if empty else f"it has {', '.join(fields)}"
        raise Unusable(f"no gold answer in {', '.join(GOLDS)}, solution", what)
    if gold := _final(solution) if _has_answer(solution) else None:
        return gold, solution
    if golds.is_bare(solution) and (gold := golds.text_of("solution", solution, several=False)):
        return gold, None
    raise Unusable(
        "the solution has no answer in \\boxed{} or behind ####", f"it ends in {solution[-40:]!r}"
    )


def _final(solution: str) -> str | None:
    found = extract.marked(solution)
    return golds.text_of("solution", found, several=False) if found else None


def _candidates(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in GOLDS:
        value = fields.get(name)
        if name == "reward_model":
            if isinstance(value, str) and value.lstrip().startswith("{"):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError):
                    continue
            if isinstance(value, Mapping) and "ground_truth" in value:
                yield "reward_model.ground_truth", value["ground_truth"]
        elif name in fields:
            yield name, value


def _solution(fields: Mapping[str, Any], reply: str | None) -> str | None:
    solution = fields.get("solution")
    solution = reply if solution is None else solution
    if isinstance(solution, list):
        solution = solution[0] if solution else None
    if isinstance(solution, (int, float)) and not isinstance(solution, bool):
        solution = golds.text_of("solution", solution, several=False)
    if solution is not None and not isinstance(solution, str):
        raise Unusable(
            "field solution is neither a text nor a list of texts", golds.shown(solution)
        )
    if solution is None or golds.placeholder(solution) in golds.MISSING | {""}:
        return None
    return solution.strip()


def _of_extra_info(fields: Mapping[str, Any], gold: str) -> str | None:
    """The solution that verl keeps beside a problem, where it comes to the same answer."""
    extra = fields.get("extra_info")
    solution = extra.get("answer") if isinstance(extra, Mapping) else None
    if not isinstance(solution, str) or not _has_answer(solution):
        return None
    found = _final(solution)
    return solution.strip() if found and golds.same(found, gold) else None
