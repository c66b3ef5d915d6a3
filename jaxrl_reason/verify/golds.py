"""Gold answers of data sets, with the signature of `verify.judge.judge`; runs in a worker of `verify.pool`.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from jaxrl_reason.verify import judge


def judge_record(solution: str, gold: str, timeout_s: float) -> tuple[str, str | None]:
    """What a loader asks of a record; "unparsable" speaks of the gold answer.

    Args:
      solution: text that should end in the gold answer; "": only the gold answer is read.
      gold: gold answer.
      timeout_s: seconds.
    Returns:
      (reason, answer): unparsable where the gold answer is; wrong where the solution does not end in it.
    Example:
      >>> judge_record("", "1/2", 1.0)[0], judge_record("so 3", "???", 1.0)[0], judge_record("so 3", "3", 1.0)[0]
      ('correct', 'unparsable', 'wrong')
    """
    try:
        judge.readable_gold(gold)
    except judge.UnreadableGold:
        return "unparsable", None
    reason, answer = judge.judge(solution, gold, timeout_s) if solution else ("correct", None)
    return ("wrong" if reason == "unparsable" else reason), answer
