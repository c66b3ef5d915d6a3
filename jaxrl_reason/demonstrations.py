"""Demonstrations for the cold start: rows of a file, or the reference solutions of the task's data set.

Host side. Reads: the files of `sft.path`. Writes: nothing.

| record | prompt | completion |
| --- | --- | --- |
| {"prompt", "completion"}: texts | the text as it stands, as the user's message in a chat | the text |
| the same with turns (TRL), or {"messages"}, {"conversations"} | the turns as they stand | the last reply |
| {"question", "completion"} | that of the task for this question | the text |
| {"question", "solution"}, and all that the task reads | that of the task | the solution in the task's answer format |

Names as in `tasks.turns` and `tasks.formats`; others by `task.fields`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from jaxrl_reason.models import prompts as prompts_lib
from jaxrl_reason.rollout import batching
from jaxrl_reason.tasks import records, sources, turns
from jaxrl_reason.types import Problem


class Demonstration(NamedTuple):
    """What the policy is shown, and what it is to write."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]  # with its end


def read(
    config: ml_collections.ConfigDict, prompts: prompts_lib.Prompts, shapes: batching.Shapes
) -> list[Demonstration] | None:
    """Demonstrations that fit the token budgets; a line says how many do not.

    Args:
      config: reads sft.path, empty: the task's own references; and task.fields.
      prompts: of the run and its task.
      shapes: the budgets.
    Returns:
      Demonstrations; None where there is no file, and the task makes its own (`tasks.base.Demonstrator`).
    Raises:
      FileNotFoundError: no such file.
      ValueError: no row that can be used, or that fits; or a task without any solution.
    """
    path, task = config.sft.path, prompts.task
    if path:
        names = sources.mapping(config.task.fields)
        return _fitting(shapes, _of_file(prompts, path, names), path)
    if all(hasattr(task, name) for name in ("demonstrate", "corrupt", "repair")):
        return None
    whole = getattr(task, "whole", task)
    problems = [p for p in getattr(whole, "trained", ()) if p.reference]
    if not problems:
        raise ValueError(
            f"task {task.name!r} neither demonstrates solutions nor has any in its data set: give demonstrations in"
            ' sft.path, records of {"question", "solution"} or {"prompt", "completion"}'
        )
    found = [Demonstration(prompts.policy(p), prompts.completion(p.reference)) for p in problems]
    return _fitting(shapes, found, f"{task.name}, reference solutions")


def _of_file(
    prompts: prompts_lib.Prompts, path: str, names: Mapping[str, str]
) -> list[Demonstration]:
    faults, found = records.Faults(path), []
    for record in records.read_records(path):
        fields = {
            name.lower(): value for name, value in sources.renamed(record.fields, names).items()
        }
        try:
            prompt, text = _shown(prompts, fields)
        except ValueError as error:
            faults.add(record.place, error)
            continue
        faults.used += 1
        found.append(Demonstration(prompt, prompts.completion(text)))
    faults.say("row")
    return found


def _shown(prompts: prompts_lib.Prompts, fields: Mapping[str, Any]) -> tuple[tuple[int, ...], str]:
    """Prompt and text of one record.

    Raises:
      records.Unusable: it has none.
    """
    completion = fields.get("completion")
    if completion is not None and not isinstance(completion, str):
        completion = turns.messages("completion", completion)[-1]["content"]
    if isinstance(completion, str) and not completion.strip():
        raise records.Unusable("the completion is empty")
    prompt = fields.get("prompt")
    if completion is not None and isinstance(prompt, str) and not turns.is_talk(prompt):
        return prompts.encode(prompt), completion
    talk = next(
        (n for n in ("prompt", "messages", "conversations") if turns.is_talk(fields.get(n))), None
    )
    if talk is not None and (completion is not None or talk != "prompt"):
        said = turns.messages(talk, fields[talk])
        if completion is None:
            *said, last = said
            if last["role"] != "assistant":
                raise records.Unusable("the last turn is not the assistant's", last["role"])
            completion = last["content"]
        if not said or said[-1]["role"] != "user":
            raise records.Unusable("no turn of the user stands before the completion")
        return prompts.encode(said[-1]["content"], before=said[:-1]), completion
    return _of_question(prompts, fields, completion)


def _of_question(
    prompts: prompts_lib.Prompts, fields: Mapping[str, Any], completion: str | None
) -> tuple[tuple[int, ...], str]:
    task = getattr(prompts.task, "whole", prompts.task)
    parse = getattr(task, "parse", None)
    if completion is None and parse is not None:
        entry = parse(fields)
        problem = Problem("", entry.prompt, entry.answer, meta=sources.meta(entry))
        completion = entry.reference
    else:
        asked = turns.read(fields)
        problem = Problem(
            "", asked.text, "", meta={"messages": asked.before} if asked.before else {}
        )
        completion = fields.get("solution") if completion is None else completion
    if not isinstance(completion, str) or not completion.strip():
        raise records.Unusable("no solution, or one without any step")
    return prompts.policy(problem), completion


def _fitting(
    shapes: batching.Shapes, found: Sequence[Demonstration], where: str
) -> list[Demonstration]:
    kept = [
        d
        for d in found
        if len(d.prompt) <= shapes.prompt and len(d.completion) <= shapes.completion
    ]
    if len(kept) == len(found):
        return kept
    longest = max(len(d.prompt) for d in found), max(len(d.completion) for d in found)
    said = (
        f"{where}: {len(found) - len(kept)} of {len(found)} rows do not fit {shapes.prompt} tokens of prompt"
        f" (rollout.prompt_length) and {shapes.completion} of completion with its end (rollout.max_new_tokens); the"
        f" longest have {longest[0]} and {longest[1]}"
    )
    if not kept:
        raise ValueError(f"{said}: none is left; raise them")
    print(f"{said}; they are left out", file=sys.stderr)
    return kept
