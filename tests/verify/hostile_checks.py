"""Checks that misbehave, for workers to load.

Host side. Reads: nothing. Writes: nothing.
"""

import os
import re
import signal
import sys
import time

from jaxrl_reason.verify import golds, judge


def check(completion: str, gold: str, timeout_s: float) -> tuple[str, str | None]:
    """`judge`, but for completions that name a misdeed."""
    if completion == "sleep":
        time.sleep(600)
    if completion == "deaf sleep":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(600)
    if completion == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if completion == "spin":
        re.fullmatch("(a|a)*b", "a" * 100)  # in one call, which no signal handler could interrupt
    if completion == "exit":
        sys.exit(3)
    if completion == "raise":
        raise OSError("no")
    if completion == "print":
        print('[0, "correct", "5"]', flush=True)
    if completion == "memory":
        bytearray(64 << 30)
    if completion == "modules":
        return "wrong", ",".join(m for m in ("jax", "flax", "numpy", "sympy") if m in sys.modules)
    if completion == "environment":
        return "wrong", ",".join(sorted(os.environ))
    if completion == "handles":
        return "wrong", str(len(os.listdir("/proc/self/fd")) - 1)
    if completion == "process":
        return "wrong", str(os.getpid())
    return judge.judge(completion, gold, timeout_s)


def record(solution: str, gold: str, timeout_s: float) -> tuple[str, str | None]:
    """`golds.judge_record`, but for gold answers that name a misdeed."""
    return check(gold, "5", 1.0) if gold == "spin" else golds.judge_record(solution, gold, 1.0)


def refuse(completion: str, gold: str, timeout_s: float) -> tuple[str, str | None]:
    """Calls every answer wrong."""
    return "wrong", None
