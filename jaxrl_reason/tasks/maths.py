r"""Competition maths: problems of many data sets, one \boxed{} answer each.

Host side. Reads: a file of records, in a format of `tasks.formats`. Writes: what `tasks.sources` writes.
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

    Records of which no problem can be made are left out, and a warning counts them by reason.

    Args:
      source: records in any form of `tasks.records`.
      completion_tokens: budget of a completion in bytes, EOS included, >= 2.
      check: compares answers; None: in this process.
      steps: the problems are for `tasks.steps`, which needs solutions and no final answers. Without it, those of TRL's
        stepwise form that have no final answer are left out.
    Raises:
      FileNotFoundError: no such file.
      ValueError: no problem that can be used, or none with an answer to evaluate on.
    """

    def __init__(
        self,
        source: sources.Source | str | os.PathLike,
        *,
        completion_tokens: int = 512,
        check: Checker | None = None,
        steps: bool = False,
    ):
        loaded = sources.load(source, "math", formats.maths_entry, by_reference=steps)
        problems, held_out = loaded.problems, loaded.held_out
        if held_out is not None:
            held_out = sources.answered(held_out) or None
        if not steps or held_out is None:
            answered = sources.answered(problems)
            if not answered:
                raise ValueError(
                    f"{problems[0].id}: has no final answer, and neither has any other; set task.eval_path to problems"
                    " to evaluate on"
                    + ("" if steps else ", and task.steps to True to train on steps")
                )
            if not steps:
                problems = answered
            elif len(answered) < len(problems):
                held_out = answered
        super().__init__(
            "math",
            questions.Prompts(_POLICY_PROMPT, _REPAIR_PROMPT),
            step_separator="\n\n",
            answer_marker="\\boxed",
            loaded=loaded._replace(problems=problems, held_out=held_out),
            completion_tokens=completion_tokens,
            check=check,
        )
