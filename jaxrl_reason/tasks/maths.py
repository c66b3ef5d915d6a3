r"""Competition maths: problems of many data sets, one \boxed{} answer each.

Host side. Reads: a JSONL or Parquet file, in a format of `tasks.formats`. Writes: what `tasks.sources` writes.
"""

from __future__ import annotations

import os

from jaxrl_reason.tasks import formats, questions, sources
from jaxrl_reason.tasks.checking import Checker

_FORMAT = r"Put the final answer, and nothing else, in \boxed{{}} at the end."

_POLICY_PROMPT = f"""Problem: {{question}}
Reason step by step, with a blank line between steps. {_FORMAT}
{questions.ANSWER_CUE}"""

_REPAIR_PROMPT = f"""Problem: {{question}}
Draft with a mistake:
{{failed}}
A correct solution of the same problem:
{{anchor}}
Rewrite the draft so that it becomes right. Copy every part that is right word for word.
Change as little as possible. Do not mention the draft or the other solution. {_FORMAT}
{questions.ANSWER_CUE}"""


class Maths(questions.Questions):
    r"""Problems from a file in any format of `tasks.formats`; the outcome is the last \boxed{}. A Task.

    Records whose gold answer cannot be read are left out, and a warning lists them.

    Args:
      source: JSONL or Parquet.
      completion_tokens: budget of a completion in bytes, EOS included, >= 2.
      check: compares answers; None: in this process.
    Raises:
      FileNotFoundError: no such file.
      ValueError: a record in no known format, named by file and line; or no problem that can be used.
    """

    def __init__(
        self,
        source: sources.Source | str | os.PathLike,
        *,
        completion_tokens: int = 512,
        check: Checker | None = None,
    ):
        problems, held_out = sources.load(source, "math", formats.maths_entry)
        super().__init__(
            "math",
            questions.Prompts(_POLICY_PROMPT, _REPAIR_PROMPT),
            step_separator="\n\n",
            answer_marker="\\boxed",
            problems=problems,
            held_out=held_out,
            completion_tokens=completion_tokens,
            check=check,
        )
