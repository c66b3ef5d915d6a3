"""What runs in a worker process of `verify.pool`: checks from standard input, reasons to standard output.

Host side. Reads: standard input. Writes: standard output.

One JSON object per line each way, so nothing that is read can bring code with it. Must stay light:
whatever this module imports, every worker loads, and jax must not be among it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable

from jaxrl_reason.verify import judge

MAX_MEMORY_BYTES = 4 << 30  # address space of this process


def serve(function: str) -> None:
    """Answers requests until standard input ends.

    A request is [number, completion, gold, timeout_s]; its reply [number, reason, answer], or
    [number, null, message] where the gold answer cannot be read.

    Args:
      function: "module:name" of a check with the signature of `verify.judge.judge`.
    """
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    # What a check might print must not end up among the replies.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    check = _load(function)
    _limit_memory()
    replies.write(b"[-1, null, null]\n")
    while line := requests.readline():
        number, completion, gold, timeout_s = json.loads(line)
        try:
            reason, answer = check(completion, gold, timeout_s)
        except judge.UnreadableGold as error:
            reason, answer = None, str(error)
        except Exception:  # no text may change the verdict on the next one
            reason, answer = "unparsable", None
        replies.write(json.dumps([number, reason, answer]).encode() + b"\n")


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
    serve(sys.argv[1])
