"""Grade-school maths in the GSM8K layout: word problems with one number as answer.

Host side. Reads: a file of problems (`tasks.records`). Writes: what `tasks.sources` writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from jaxrl_reason.tasks import formats, questions, records, sources
from jaxrl_reason.tasks.checking import Checker

_ANNOTATION = re.compile(r"<<[^<>]*>>")

_NUMBER = re.compile(r"\W*\d")  # and perhaps a unit behind it

_FORMAT = 'End with a line that says "#### " and the final number, nothing else.'

_POLICY_PROMPT = f"""Question: {{question}}
Think step by step, one step per line. {_FORMAT}
{questions.ANSWER_CUE}"""

_REPAIR_PROMPT = f"""Question: {{question}}
Draft with a mistake:
{{failed}}
A worked example of the same question:
{{anchor}}
Rewrite the draft so that it becomes right. Copy every part that is right word for word.
Change as little as possible. Do not mention the draft or the example. {_FORMAT}
{questions.ANSWER_CUE}"""


class Gsm8k(questions.Questions):
    """Word problems from a file; the outcome is the number after "####". A Task.

    Args:
      source: records in any form of `tasks.formats`: solutions with optional `<<48/2=24>>` annotations, then "#### 42",
        or numbers alone.
      completion_tokens: budget of a completion in bytes, EOS included, >= 2.
      check: compares answers; None: in this process.
    Raises:
      FileNotFoundError: no such file.
      ValueError: no problem that can be used.
    Source: arXiv 2110.14168; differs: annotations are removed, and answers are compared as exact
    fractions.
    """

    def __init__(
        self,
        source: sources.Source | str | os.PathLike,
        *,
        completion_tokens: int = 256,
        check: Checker | None = None,
    ):
        loaded = sources.load(source, "gsm8k", _entry)
        super().__init__(
            "gsm8k",
            questions.Prompts(_POLICY_PROMPT, _REPAIR_PROMPT),
            step_separator="\n",
            answer_marker="####",
            loaded=loaded,
            completion_tokens=completion_tokens,
            check=check,
        )


def _entry(fields: Mapping[str, Any]) -> sources.Entry:
    fields = {name.lower(): value for name, value in fields.items()}
    found = formats.read(fields)
    if not _NUMBER.match(found.gold):
        raise records.Unusable("the gold answer is no number", repr(found.gold[:60]))
    formats.check_gold(found.gold)
    solution = found.solution
    if solution:
        steps = _ANNOTATION.sub("", solution.rpartition("####")[0] or solution).strip()
        solution = f"{steps}\n#### {found.gold}"
    asked = found.asked
    return sources.Entry(
        asked.text, found.gold, solution, sources.pass_rate(fields), messages=asked.before
    )
