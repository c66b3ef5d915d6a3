"""Who compares answers: this process, or worker processes that can be killed.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import importlib.util
import threading
import weakref
from collections.abc import Sequence

from jaxrl_reason.types import Verdict
from jaxrl_reason.verify import answers
from jaxrl_reason.verify.pool import Pair, VerifyPool

_SECOND = "jaxrl_reason.verify.second_opinion:judge"


class Checker:
    """Verdicts on (completion, gold) pairs, from any thread.

    Worker processes start with the first pair and end with this object, or with the program.

    Args:
      workers: processes, >= 0; 0: compare in this process, where the clock alone bounds a hostile answer.
      timeout_s: seconds for one answer, > 0.
      second_opinion: math-verify is asked as well, in a worker of its own, and disagreements are counted; verdicts
        stay ours.
    Raises:
      ValueError: `second_opinion` without math-verify installed.
    Example:
      >>> Checker()([("#### 5", "5"), ("#### 6", "5")])[1].reason
      'wrong'
    """

    def __init__(self, workers: int = 0, *, timeout_s: float = 2.0, second_opinion: bool = False):
        if second_opinion and importlib.util.find_spec("math_verify") is None:
            raise ValueError(
                "task.second_opinion = True: needs math-verify; pip install 'math-verify>=0.9'"
            )
        self._timeout_s = timeout_s
        self._pool = VerifyPool(workers, timeout_s=timeout_s) if workers else None
        self._second = None
        if second_opinion:
            self._second = VerifyPool(max(1, workers), timeout_s=timeout_s, check=_SECOND)
        for pool in (self._pool, self._second):
            if pool is not None:
                weakref.finalize(self, pool.close)  # at exit too
        self._lock = threading.Lock()
        self._compared = self._disagreed = 0

    def __call__(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """One verdict per pair, in their order.

        Raises:
          ValueError: a gold answer cannot be read.
        """
        if self._pool is not None:
            verdicts = self._pool.verify(pairs)
        else:
            seconds = self._timeout_s
            verdicts = [answers.verify_answer(t, gold, timeout_s=seconds) for t, gold in pairs]
        if self._second is not None:
            others = self._second.verify(pairs)
            differ = [a.reward != b.reward for a, b in zip(verdicts, others, strict=True)]
            with self._lock:
                self._compared += len(differ)
                self._disagreed += sum(differ)
        return verdicts

    def metrics(self) -> dict[str, float]:
        """Share of verdicts with which math-verify disagreed since the last call; nothing where it was not asked."""
        with self._lock:
            compared, disagreed = self._compared, self._disagreed
            self._compared = self._disagreed = 0
        return {"verifier/disagree_frac": disagreed / compared} if compared else {}
