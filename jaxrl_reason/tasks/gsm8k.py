"""Grade-school maths in the GSM8K layout: word problems with one number as answer.

Host side. Reads: a JSONL or Parquet file with `question` and `answer`. Writes: what `tasks.sources` writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from jaxrl_reason.tasks import checking, questions, sources
from jaxrl_reason.tasks.checking import Checker

_ANNOTATION = re.compile(r"<<[^<>]*>>")

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
      source: JSONL or Parquet; `answer` is a solution with optional `<<48/2=24>>` annotations, then "#### 42".
      completion_tokens: budget of a completion in bytes, EOS included, >= 2.
      check: compares answers; None: in this process.
    Raises:
      FileNotFoundError: no such file.
      ValueError: a bad record or an unreadable gold answer, named by file and line; or no problem at all.
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
        problems, held_out = sources.load(source, "gsm8k", _entry)
        super().__init__(
            "gsm8k",
            questions.Prompts(_POLICY_PROMPT, _REPAIR_PROMPT),
            step_separator="\n",
            answer_marker="####",
            problems=problems,
            held_out=held_out,
            completion_tokens=completion_tokens,
            check=check,
        )


def _entry(fields: Mapping[str, Any]) -> sources.Entry:
    for name in ("question", "answer"):
        if name not in fields:
            raise ValueError(f"no field {name}; it has {', '.join(fields) or 'none that is known'}")
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise ValueError(
                f"field {name} = {fields.get(name)!r}: must be a text that is not empty"
            )
    solution, marker, gold = fields["answer"].rpartition("####")
    gold = gold.strip()
    if not marker or not any(c.isdigit() for c in gold):
        raise ValueError(
            f'answer ends in {fields["answer"][-40:]!r}: must end in "#### " and one number'
        )
    checking.check_gold(gold)
    solution = _ANNOTATION.sub("", solution).strip()
    return sources.Entry(
        fields["question"].strip(),
        gold,
        f"{solution}\n#### {gold}" if solution else f"#### {gold}",
        sources.pass_rate(fields),
    )
