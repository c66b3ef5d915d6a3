"""math-verify as a second opinion, with the signature of `verify.judge.judge`; runs in a worker of `verify.pool` alone.

Host side. Reads: nothing. Writes: nothing.

It parses with sympy, which is slow and which text can hang or crash: hence a process that can be killed. Without
math-verify installed, `tasks.checking.Checker` refuses to start it.
"""

from __future__ import annotations

try:
    import math_verify  # here, so that no check's deadline pays for it
except ImportError:
    math_verify = None


def judge(completion: str, gold: str, timeout_s: float) -> tuple[str, str | None]:
    """Reason and extracted answer, by math-verify's defaults.

    Args:
      completion: text of a policy.
      gold: the right answer.
      timeout_s: not looked at; the pool ends a worker that takes longer.
    Returns:
      (reason, answer): correct, wrong or unparsable.
    """
    expected = math_verify.parse(f"${gold}$", parsing_timeout=None)
    found = math_verify.parse(completion, parsing_timeout=None)
    if not expected or not found:
        return "unparsable", None
    right = math_verify.verify(expected, found, timeout_seconds=None)
    return ("correct" if right else "wrong"), str(found[-1])
