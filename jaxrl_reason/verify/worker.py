"""What runs in a worker process of `verify.pool`: checks from standard input, reasons to standard output.

Host side. Reads: standard input. Writes: standard output.

One JSON object per line each way, so nothing that is read can bring code with it. Must stay light:
whatever this module imports, every worker loads, and jax must not be among it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable

from jaxrl_reason.verify import judge

MAX_MEMORY_BYTES = 4 << 30  # address space of this process
LOAD_CPU_S = 60  # processor time until the first request
SPARE_CPU_S = (
    1  # processor time of a check beyond its timeout_s: what is read before the clock counts
)
_PR_SET_PDEATHSIG = 1


def serve(function: str, parent: int) -> None:
    """Answers requests until standard input ends, or the parent does.

    Each request renews the limit on processor time: timeout_s + SPARE_CPU_S from where it begins, after which the
    system ends this process, also within a call that no signal handler could interrupt. The pool's deadline comes
    first, where there is a pool left to keep it.

    A request is [number, completion, gold, timeout_s]; its reply [number, reason, answer], or
    [number, null, message] where the gold answer cannot be read.

    Args:
      function: "module:name" of a check with the signature of `verify.judge.judge`.
      parent: number of the process that asks.
    """
    _die_with(parent)
    _limit_time(LOAD_CPU_S)
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    # What a check might print must not end up among the replies.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    check = _load(function)
    _limit_memory()
    replies.write(b"[-1, null, null]\n")
    while line := requests.readline():
        number, completion, gold, timeout_s = json.loads(line)
        _limit_time(timeout_s + SPARE_CPU_S)
        try:
            reason, answer = check(completion, gold, timeout_s)
        except judge.UnreadableGold as error:
            reason, answer = None, str(error)
        except Exception:  # no text may change the verdict on the next one
            reason, answer = "unparsable", None
        replies.write(json.dumps([number, reason, answer]).encode() + b"\n")


def _die_with(parent: int) -> None:
    """Has the system kill this process when its parent ends, however it does; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it ended before


def _limit_time(seconds: float) -> None:
    try:
        import resource

        highest = resource.getrlimit(resource.RLIMIT_CPU)[1]
        limit = math.ceil(time.process_time() + seconds)
        if highest != resource.RLIM_INFINITY:
            limit = min(limit, highest)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, highest))
    except (ImportError, ValueError, OSError):
        pass  # not every system can; the deadline remains


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    except (ImportError, ValueError, OSError):
        pass  # not every system can; the deadline remains


def _load(function: str) -> Callable[[str, str, float], tuple[str, str | None]]:
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
