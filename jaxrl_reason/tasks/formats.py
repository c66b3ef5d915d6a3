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
| DAPO-Math and others for verl | prompt: messages | reward_model.ground_truth | none |

Names of fields are compared without case ("Problem" in some copies of AIME).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxrl_reason.tasks import checking
from jaxrl_reason.tasks.sources import Entry, Unusable, is_number, pass_rate
from jaxrl_reason.verify import answers

_QUESTIONS = ("problem", "question", "prompt")
_GOLDS = ("answer", "final_answer")


def maths_entry(fields: Mapping[str, Any]) -> Entry:
    r"""Question, gold answer and solution of one record.

    Args:
      fields: of a record, in one of the formats at the top of this module.
    Returns:
      Entry; its answer can be read by `verify.answers`, or is "", which only TRL's form allows.
    Raises:
      ValueError: no such format; names the field that is missing or wrong.
      Unusable: the gold answer cannot be read, holds only within a tolerance, or the question needs its picture; or a
        step is labelled wrong.
    Example:
      >>> maths_entry({"problem": "1 + 1?", "solution": r"It is $\boxed{2}$."})[:3]
      ('1 + 1?', '2', 'It is $\\boxed{2}$.')
      >>> maths_entry({"question": "How many?", "answer": 27.0}).answer
      '27'
    """
    fields = {name.lower(): value for name, value in fields.items()}
    question = _question(fields)
    steps = _steps(fields)
    if steps is not None:
        fields["solution"] = "\n\n".join(steps)
        if not any(fields.get(name) for name in _GOLDS) and not _has_answer(fields["solution"]):
            return Entry(question, "", fields["solution"], pass_rate(fields), steps=steps)
    gold, solution = _gold(fields)
    if fields.get("modality") == "Multimodal":
        raise Unusable("the question needs its picture")
    if fields.get("error"):
        raise Unusable(f"gold answer {gold[:40]!r} holds within {fields['error']} only")
    try:
        checking.check_gold(gold)
    except ValueError as error:
        raise Unusable(str(error)) from None
    if solution is not None and not checking.ends_in(solution, gold):
        solution += f"\n\n\\boxed{{{gold}}}"  # it serves as an example of the answer format too
    return Entry(question, gold, solution, pass_rate(fields), steps=steps)


def _steps(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Steps of an expert, of a record in TRL's form; None of other records."""
    steps, labels = fields.get("completions"), fields.get("labels")
    if steps is None:
        return None
    if not isinstance(steps, list) or not all(isinstance(s, str) and s.strip() for s in steps):
        raise ValueError(f"field completions = {_shown(steps)}: must be a list of texts, the steps")
    if (
        not steps
        or labels is not None
        and (not isinstance(labels, list) or len(labels) != len(steps))
    ):
        raise ValueError("fields completions and labels: must be lists of one length, at least 1")
    wrong = [i for i, label in enumerate(labels or ()) if label is not None and label != 1]
    if wrong:
        raise Unusable(f"step {wrong[0] + 1} is labelled {labels[wrong[0]]!r}: no expert's")
    return tuple(step.strip() for step in steps)


def _has_answer(solution: str) -> bool:
    return any(mark in solution for mark in ("\\boxed", "\\fbox", "####"))


def _question(fields: Mapping[str, Any]) -> str:
    name = next((n for n in _QUESTIONS if fields.get(n) is not None), None)
    if name is None:
        raise ValueError(
            f"no question: must have one of the fields {', '.join(_QUESTIONS)};"
            f" has {', '.join(fields) or 'none that is known'}"
        )
    question = fields[name]
    if name == "prompt" and isinstance(question, list):
        turns = [t.get("content") for t in question if isinstance(t, dict) and _is_user(t)]
        question = turns[0] if len(turns) == 1 else question
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"field {name} = {_shown(question)}: must be a text that is not empty")
    context = fields.get("context")
    parts = [context.strip()] if isinstance(context, str) and context.strip() else []
    return "\n".join([*parts, question.strip()])


def _is_user(turn: Mapping[str, Any]) -> bool:
    return turn.get("role") == "user"


def _gold(fields: Mapping[str, Any]) -> tuple[str, str | None]:
    """(gold answer, solution)."""
    solution = fields.get("solution")
    if isinstance(solution, list):
        solution = solution[0] if solution else None
    if solution is not None and not isinstance(solution, str):
        raise ValueError(f"field solution = {_shown(solution)}: must be a text or a list of texts")
    solution = solution.strip() if solution and solution.strip() else None
    for name in _GOLDS:
        if fields.get(name) is not None:
            gold = _text(name, fields[name], several=bool(fields.get("is_multiple_answer")))
            if "####" in gold:
                solution, gold = gold, answers.final_answer(gold) or ""
            return gold, solution
    model = fields.get("reward_model")
    if isinstance(model, dict) and model.get("ground_truth") is not None:
        return _text("reward_model.ground_truth", model["ground_truth"], several=False), solution
    if solution is None:
        raise ValueError(f"no gold answer: must have one of {', '.join(_GOLDS)}, solution")
    if not _has_answer(solution):
        raise ValueError(f"field solution ends in {solution[-40:]!r}: must hold \\boxed{{answer}}")
    return answers.final_answer(solution) or "", solution


def _text(name: str, value: Any, *, several: bool) -> str:
    if isinstance(value, list) and value:
        texts = [_text(name, item, several=False) for item in value]
        return ", ".join(texts) if several else texts[0]
    if is_number(value) and math.isfinite(value):
        return str(int(value)) if value == int(value) else repr(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ValueError(f"field {name} = {_shown(value)}: must be a text or a number")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
