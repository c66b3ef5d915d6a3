"""Checker: who compares answers, what it counts, and what it leaves behind.

Host side. Reads: nothing. Writes: nothing.
"""

import gc
import importlib.util
import pathlib
import subprocess
import sys
import threading

import pytest

from jaxrl_reason.tasks import checking
from jaxrl_reason.verify import pool

PAIRS = [("#### 5", "5"), ("#### 6", "5"), ("Who knows?", "5"), (r"\boxed{9^{9^{9^{9}}}}", "5")]
REASONS = ["correct", "wrong", "unparsable"]


@pytest.mark.parametrize("workers", [0, 1])
def test_verdicts_do_not_depend_on_who_compares(workers):
    check = checking.Checker(workers)
    found = {}

    def run(number, check):
        found[number] = [v.reason for v in check(PAIRS)]

    threads = [threading.Thread(target=run, args=(i, check)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for reasons in found.values():
        assert reasons[:3] == REASONS and reasons[3] in ("wrong", "unparsable", "timeout")
    assert check.metrics() == {}
    processes = [w.process for w in check._pool._workers] if workers else []
    assert len(processes) == workers
    del check, threads, thread
    gc.collect()
    assert all(p.poll() is not None for p in processes), "workers outlive their checker"


UNMARKED = [
    ("5 + 18 = 23. So Tom has 23 apples.", "23", "correct"),
    ("So Tom has 22 apples.", "23", "wrong"),
    ("#### 23", "23", "correct"),
    ("So Tom has 23 or 24 apples.", "23", "unparsable"),
]


@pytest.mark.parametrize("workers", [0, 1])
def test_unmarked_answers_count_where_that_is_asked_for(workers):
    pairs = [pair[:2] for pair in UNMARKED]
    check = checking.Checker(workers, extract="flexible")
    assert [v.reason for v in check(pairs)] == [pair[2] for pair in UNMARKED]
    assert check.metrics() == {"verifier/flexible_frac": 2 / 4}
    assert check.metrics() == {}
    strict = checking.Checker()(pairs)
    assert [v.reason for v in strict] == ["unparsable", "unparsable", "correct", "unparsable"]


LEAVE = """
from jaxrl_reason.tasks import checking
check = checking.Checker(1)
check([("#### 5", "5")])
print(check._pool._workers[0].process.pid)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_no_worker_outlives_the_program():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEAVE], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert not pathlib.Path("/proc", done.stdout.strip()).exists()


def test_a_second_opinion_is_counted_and_changes_nothing(monkeypatch):
    if importlib.util.find_spec("math_verify") is None:
        with pytest.raises(ValueError, match="task.second_opinion = True: needs math-verify"):
            checking.Checker(second_opinion=True)
        # Any other check shows the counting; here one that calls every answer wrong.
        monkeypatch.setattr(checking.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(checking, "_SECOND", "tests.verify.hostile_checks:refuse")
        check = checking.Checker(second_opinion=True)
        assert [v.reason for v in check(PAIRS[:3])] == REASONS
        assert check.metrics() == {"verifier/disagree_frac": pytest.approx(1 / 3)}
    else:
        check = checking.Checker(second_opinion=True)
        assert [v.reason for v in check(PAIRS[:2])] == REASONS[:2]
        assert check.metrics() == {"verifier/disagree_frac": 0.0}
    assert check.metrics() == {}
    assert isinstance(check._second, pool.VerifyPool)
