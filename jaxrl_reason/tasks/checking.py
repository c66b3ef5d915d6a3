"""Who compares answers: this process, or worker processes that can be killed.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import threading
import weakref
from collections.abc import Sequence

from jaxrl_reason.types import Verdict
from jaxrl_reason.verify import answers, judge
from jaxrl_reason.verify.pool import Pair, VerifyPool

_LENIENT = "jaxrl_reason.verify.judge:judge_leniently"
_SECOND = "jaxrl_reason.verify.second_opinion:judge"
_RECORDS = "jaxrl_reason.verify.golds:judge_record"


@functools.cache
def _reader(process: int) -> VerifyPool:
    """The worker of this process that reads what data sets hold."""
    pool = VerifyPool(1, check=_RECORDS)
    atexit.register(pool.close)
    return pool


def check_gold(gold: str) -> None:
    """`answers.check_gold` for texts that nobody has looked at: all but plain numbers are read in a worker process.

    Raises:
      ValueError: the gold answer cannot be read, or not within two seconds.
    Example:
      >>> check_gold("1,200")
    """
    if answers.parse_number(gold) is None:
        reason = _reader(os.getpid()).verify([("", gold)])[0].reason
        if reason != "correct":
            raise judge.UnreadableGold(
                f"gold answer {gold[:80]!r}: cannot be read, so nothing can be compared with it"
                + (" (it takes too long)" if reason == "timeout" else "")
            )


def ends_in(solution: str, gold: str) -> bool:
    """Whether a record's solution ends in its gold answer; but for plain numbers, a worker process says.

    Example:
      >>> ends_in("so #### 5", "5"), ends_in("so 5 it is, or 6", "5")
      (True, False)
    """
    if answers.parse_number(gold) is not None:
        found = answers.final_answer(solution)
        if found is not None and answers.parse_number(found) is not None:
            return answers.verify_answer(solution, gold).reason == "correct"
    return _reader(os.getpid()).verify([(solution, gold)])[0].reason == "correct"


class Checker:
    """Verdicts on (completion, gold) pairs, from any thread.

    Worker processes start with the first pair and end with this object, or with the program.

    Args:
      workers: processes, >= 0; 0: compare in this process, where the clock alone bounds a hostile answer.
      timeout_s: seconds for one answer, > 0.
      extract: "strict" | "flexible": whether the number of the final sentence counts where no answer is marked; how
        often it did is counted.
      second_opinion: math-verify is asked as well, in a worker of its own, and disagreements are counted; verdicts
        stay ours.
    Raises:
      ValueError: `second_opinion` without math-verify installed.
    Example:
      >>> Checker()([("#### 5", "5"), ("#### 6", "5")])[1].reason
      'wrong'
    """

    def __init__(
        self,
        workers: int = 0,
        *,
        timeout_s: float = 2.0,
        extract: str = "strict",
        second_opinion: bool = False,
    ):
        if second_opinion and importlib.util.find_spec("math_verify") is None:
            raise ValueError(
                "task.second_opinion = True: needs math-verify; pip install 'math-verify>=0.9'"
            )
        self._timeout_s = timeout_s
        self._pool = VerifyPool(workers, timeout_s=timeout_s) if workers else None
        self._flexible = extract == "flexible"
        self._lenient = self._second = None
        if self._flexible and workers:
            self._lenient = VerifyPool(1, timeout_s=timeout_s, check=_LENIENT)
        if second_opinion:
            self._second = VerifyPool(max(1, workers), timeout_s=timeout_s, check=_SECOND)
        for pool in (self._pool, self._lenient, self._second):
            if pool is not None:
                weakref.finalize(self, pool.close)  # at exit too
        self._lock = threading.Lock()
        self._compared = self._disagreed = 0
        self._answered = self._unmarked = 0

    def __call__(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """One verdict per pair, in their order.

        Raises:
          ValueError: a gold answer cannot be read.
        """
        verdicts = self._verified(pairs, self._pool, "strict")
        if self._flexible:
            verdicts = self._with_unmarked(pairs, verdicts)
        if self._second is not None:
            others = self._second.verify(pairs)
            differ = [a.reward != b.reward for a, b in zip(verdicts, others, strict=True)]
            with self._lock:
                self._compared += len(differ)
                self._disagreed += sum(differ)
        return verdicts

    def _verified(
        self, pairs: Sequence[Pair], pool: VerifyPool | None, extract: str
    ) -> list[Verdict]:
        if pool is not None:
            return pool.verify(pairs)
        seconds = self._timeout_s
        return [
            answers.verify_answer(text, gold, timeout_s=seconds, extract=extract)
            for text, gold in pairs
        ]

    def _with_unmarked(self, pairs: Sequence[Pair], verdicts: list[Verdict]) -> list[Verdict]:
        """Verdicts with those of the lenient reading where the strict one finds no answer."""
        places = [i for i, verdict in enumerate(verdicts) if verdict.reason == "unparsable"]
        found = (
            self._verified([pairs[i] for i in places], self._lenient, "flexible") if places else []
        )
        verdicts = list(verdicts)
        for place, verdict in zip(places, found, strict=True):
            verdicts[place] = verdict
        with self._lock:
            self._answered += len(pairs)
            self._unmarked += sum(verdict.reason != "unparsable" for verdict in found)
        return verdicts

    def metrics(self) -> dict[str, float]:
        """Since the last call: share of verdicts with which math-verify disagreed, and of completions that mark no
        answer and were read by their final sentence; nothing of what was not asked."""
        with self._lock:
            compared, disagreed = self._compared, self._disagreed
            answered, unmarked = self._answered, self._unmarked
            self._compared = self._disagreed = self._answered = self._unmarked = 0
        found = {"verifier/disagree_frac": disagreed / compared} if compared else {}
        return found | ({"verifier/flexible_frac": unmarked / answered} if answered else {})
