"""Worker processes: verdicts, deadlines, what they inherit, threads.

Host side. Reads: nothing. Writes: nothing.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrl_reason.verify import answers, judge
from jaxrl_reason.verify.pool import VerifyPool

CHECK = "tests.verify.hostile_checks:check"
ROUND = [(f"#### {i}", "5") for i in range(8)]
VERDICTS = ["correct" if i == 5 else "wrong" for i in range(8)]


def test_verdicts_are_those_of_the_caller():
    pairs = [(rf"\boxed{{{i}/2}}", str(i % 7)) for i in range(300)] + [("so", "5"), ("\ud800", "5")]
    pairs.append(("x" * 999_990 + "#### 5", "5"))
    pairs.append(("x" * 999_999 + "#### 5", "5"))  # over the limit
    with VerifyPool(num_workers=2) as pool:
        expected = [answers.verify_answer(text, gold) for text, gold in pairs]
        assert pool.verify(pairs) == expected
        assert pool.verify([]) == []
        with pytest.raises(judge.UnreadableGold, match="gold answer '= ='"):
            pool.verify([("#### 5", "= =")])
        assert pool.verify(pairs[:9]) == expected[:9]
    with pytest.raises(RuntimeError, match="closed"):
        pool.verify(pairs)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_what_a_worker_has():
    with VerifyPool(num_workers=1, check=CHECK) as pool:
        asked = [(name, "5") for name in ("modules", "environment", "handles")]
        modules, environment, handles = (v.answer for v in pool.verify(asked))
    assert modules == "", "a worker must load the verifier alone"
    assert set(environment.split(",")) - {"LC_CTYPE"} == {
        "CUDA_VISIBLE_DEVICES",
        "JAX_PLATFORMS",
        "PYTHONPATH",
    }
    assert int(handles) <= 5  # standard ones, the replies, the null device


@pytest.mark.parametrize(
    "misdeed", ["sleep", "deaf sleep", "die", "exit", "raise", "print", "memory"]
)
def test_a_misdeed_costs_its_own_verdict_alone(misdeed):
    with VerifyPool(num_workers=1, timeout_s=0.5, check=CHECK) as pool:
        pool.verify(ROUND[:1])  # comes up
        start = time.monotonic()
        verdicts = pool.verify([*ROUND[:4], (misdeed, "5"), *ROUND[4:]])
        seconds = time.monotonic() - start
        again = pool.verify(ROUND)
    reasons = [v.reason for v in verdicts]
    hostile = reasons.pop(4)
    assert reasons == VERDICTS == [v.reason for v in again]
    assert hostile == ("unparsable" if misdeed in ("raise", "print", "memory") else "timeout")
    assert seconds < 30, "a deadline and the start of another interpreter"


def _processes(pool: VerifyPool) -> list[int]:
    pool.verify(ROUND)
    return sorted({int(v.answer) for v in pool.verify([("process", "5")] * 100)})


def test_workers_that_are_killed_cost_no_verdict():
    with VerifyPool(num_workers=2, check=CHECK) as pool:
        for waits in (0.0, 0.2):  # before and after they are known to be gone
            for process in _processes(pool):
                os.kill(process, signal.SIGKILL)
            time.sleep(waits)
            assert [v.reason for v in pool.verify(ROUND * 10)] == VERDICTS * 10
        done = threading.Event()

        def kill() -> None:
            while not done.wait(0.1):
                for worker in list(pool._workers)[:1]:
                    if worker.served:  # one at work
                        worker.process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            verdicts = pool.verify(ROUND * 1000)
        finally:
            done.set()
            killer.join()
        assert [v.reason for v in verdicts] == VERDICTS * 1000


def test_workers_outlive_the_thread_that_asked_first():
    with VerifyPool(num_workers=1, check=CHECK) as pool:
        found = []
        thread = threading.Thread(target=lambda: found.extend(_processes(pool)))
        thread.start()
        thread.join()
        time.sleep(0.1)
        assert _processes(pool) == found


PARENT = """
import sys, threading
from jaxrl_reason.verify.pool import VerifyPool
pool = VerifyPool(num_workers=2, timeout_s=600.0, check=sys.argv[1])
print(*{v.answer for v in pool.verify([("process", "5")] * 100)}, flush=True)
pool.verify([(sys.argv[2], "5")] * 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system for it")
@pytest.mark.parametrize("misdeed", ["spin", "deaf sleep"])
def test_workers_end_with_their_parent(misdeed):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHECK, misdeed], stdout=subprocess.PIPE, text=True
    )
    with parent:
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert workers and all(_lives(worker) for worker in workers)
        parent.kill()
    until = time.monotonic() + 20
    while any(map(_lives, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_lives, workers))


def _lives(process: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_worker_has_a_limit_on_processor_time():
    worker = subprocess.Popen(
        [sys.executable, "-m", "jaxrl_reason.verify.worker", CHECK, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    requests = [[i, f"#### {i}", "5", 0.1] for i in range(20)] + [[20, "spin", "5", 0.1]]
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    replies, _ = worker.communicate(lines.encode())
    assert worker.returncode == -signal.SIGXCPU
    assert len(replies.splitlines()) == 21  # that it is ready, and each of the others


def test_a_batch_deadline_gives_up_what_is_left():
    with VerifyPool(num_workers=1, timeout_s=60.0, check=CHECK) as pool:
        pool.verify(ROUND)
        start = time.monotonic()
        verdicts = pool.verify([*ROUND, ("sleep", "5"), *ROUND], batch_timeout_s=1.0)
        assert time.monotonic() - start < 3
        assert [v.reason for v in verdicts] == VERDICTS + ["timeout"] * 9
        assert [v.reason for v in pool.verify(ROUND)] == VERDICTS


def test_workers_are_recycled():
    with VerifyPool(num_workers=1, checks_per_worker=3, check=CHECK) as pool:
        processes = [v.answer for v in pool.verify([("process", "5")] * 8)]
    assert [processes.count(p) for p in dict.fromkeys(processes)] == [3, 3, 2]


def test_threads_share_a_pool():
    found = {}
    with VerifyPool(num_workers=2) as pool:

        def run(number: int) -> None:
            found[number] = [v.reason for v in pool.verify(ROUND)]

        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert list(found.values()) == [VERDICTS] * 4


def test_bad_arguments_and_checks_that_do_not_load():
    with pytest.raises(ValueError, match="num_workers = 0"):
        VerifyPool(num_workers=0)
    with VerifyPool(num_workers=1, check="tests.verify.nowhere:check") as pool:
        with pytest.raises(RuntimeError, match="do not come up"):
            pool.verify(ROUND)


def test_modules_of_a_worker_import_nothing_heavy():
    # By name too, so that the reason is told where the test above fails.
    folder = pathlib.Path(judge.__file__).parent
    for path in folder.glob("*.py"):
        if path.stem not in ("answers", "pool", "step_labels"):
            text = path.read_text()
            assert "import numpy" not in text and "jaxrl_reason.types" not in text, path
