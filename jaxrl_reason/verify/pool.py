"""Outcome checks in processes that can be killed: one hostile answer costs its own deadline, no more.

Host side. Reads: nothing. Writes: nothing.

Workers are fresh interpreters that load the verifier alone: no jax, no handle of this process but
two pipes, an environment of three variables, no accelerator in sight. They are started with an
explicit command rather than by multiprocessing, whose spawned children would run the caller's main
script again and with it, most likely, jax. They end with this process, however it ends, and have a
limit on processor time (`verify.worker`).
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from jaxrl_reason.types import Verdict
from jaxrl_reason.verify import extract, judge

DEFAULT_CHECK = "jaxrl_reason.verify.judge:judge"
START_S = 60.0  # for an interpreter to come up on a busy machine
GRACE_S = 0.2  # between the polite signal and the other one, and beyond a check's own deadline
MAX_DEATHS = 3  # of workers at one check: a worker may die of something else, but not that often
_CHUNK = 32  # checks that wait in a worker's pipe

Pair = tuple[str, str]


@functools.cache
def _starter(process: int) -> concurrent.futures.Executor:
    """The thread that starts workers of a process: Linux ends them with the thread that did."""
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="verifier-workers")


class _Worker:
    """One process and what it owes us."""

    def __init__(self, check: str):
        # PYTHONPATH as it is seen here, so that the worker runs this very package.
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        environment = {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        here = os.getpid()
        module = "jaxrl_reason.verify.worker"
        start = functools.partial(
            subprocess.Popen,
            [sys.executable, "-s", "-m", module, check, str(here)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends its workers
        )
        self.process = _starter(here).submit(start).result()
        os.set_blocking(self.process.stdout.fileno(), False)
        os.set_blocking(self.process.stdin.fileno(), False)
        self.ready = False
        self.served = 0
        self.due = time.monotonic() + START_S
        self.queue: collections.deque[int] = collections.deque()  # numbers sent, oldest first
        self._received = b""
        self._unsent = b""

    def send(self, data: bytes) -> None:
        self._unsent += data
        self.flush()

    def flush(self) -> None:
        # Never blocks: the pipe takes what it can, the rest goes out with the next reply.
        while self._unsent:
            try:
                written = os.write(self.process.stdin.fileno(), self._unsent[: 1 << 16])
            except BlockingIOError:
                return
            except (BrokenPipeError, OSError):
                self._unsent = b""
                return
            self._unsent = self._unsent[written:]

    def receive(self) -> tuple[list[list], bool]:
        """Replies that are here, and whether the process is still there to send more."""
        alive = True
        while True:
            try:
                data = os.read(self.process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not data:
                alive = False
                break
            self._received += data
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines], alive

    @property
    def writing(self) -> bool:
        return bool(self._unsent)

    def end(self) -> None:
        """Terminates, then kills."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class VerifyPool:
    """Workers that verify batches; a context manager.

    An answer whose check takes over timeout_s is "timeout". One at which a worker died is tried again in a new worker,
    since something else may have killed it, and is "timeout" where MAX_DEATHS of them die.

    Args:
      num_workers: processes, >= 1.
      timeout_s: seconds for one answer, > 0; counted from the moment its worker turns to it.
      checks_per_worker: checks after which a worker is replaced, >= 1.
      check: "module:name" of a function with the signature of `verify.judge.judge`; its module is
        what workers load.
    Raises:
      ValueError: an argument is out of range.
    Example:
      >>> with VerifyPool(num_workers=1) as pool:
      ...     [v.reason for v in pool.verify([("#### 5", "5"), ("#### 6", "5")])]
      ['correct', 'wrong']
    """

    def __init__(
        self,
        num_workers: int = 2,
        *,
        timeout_s: float = 2.0,
        checks_per_worker: int = 100_000,
        check: str = DEFAULT_CHECK,
    ):
        if num_workers < 1 or checks_per_worker < 1 or not timeout_s > 0:
            raise ValueError(
                f"num_workers = {num_workers}, checks_per_worker = {checks_per_worker}, timeout_s = "
                f"{timeout_s}: the first two must be >= 1, the third > 0 seconds"
            )
        self._num_workers = num_workers
        self._timeout_s = timeout_s
        self._checks_per_worker = checks_per_worker
        self._check = check
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> VerifyPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers; a closed pool verifies nothing more."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.end()
            self._workers = []

    def verify(
        self, pairs: Sequence[Pair], *, batch_timeout_s: float | None = None
    ) -> list[Verdict]:
        """One verdict per (completion, gold).

        Batches of several threads are verified one after the other.

        Args:
          pairs: completions with their gold answers.
          batch_timeout_s: seconds for all of them; what is not done by then is "timeout". None:
            bounded by the deadlines of the answers alone.
        Returns:
          Verdicts in the order of the pairs.
        Raises:
          ValueError: a gold answer cannot be read.
          RuntimeError: the pool is closed, or workers do not come up.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("this VerifyPool is closed; make another")
            return _Batch(self, pairs, batch_timeout_s).run()


class _Batch:
    """The state of one call of `VerifyPool.verify`."""

    def __init__(self, pool: VerifyPool, pairs: Sequence[Pair], batch_timeout_s: float | None):
        self._pool = pool
        self._pairs = pairs
        self._verdicts: list[Verdict | None] = [None] * len(pairs)
        self._waiting = collections.deque(range(len(pairs)))
        self._again: collections.deque[int] = collections.deque()  # for new workers
        self._deaths: collections.Counter[int] = collections.Counter()
        self._left = len(pairs)
        seconds = float("inf") if batch_timeout_s is None else batch_timeout_s
        self._deadline = time.monotonic() + seconds
        self._selector = selectors.DefaultSelector()
        self._failed_starts = 0

    def run(self) -> list[Verdict]:
        pool = self._pool
        try:
            for worker in list(pool._workers):
                if worker.process.poll() is None:
                    self._admit(worker)
                else:  # it died while there was nothing to do
                    pool._workers.remove(worker)
                    worker.end()
            while len(pool._workers) < min(pool._num_workers, max(1, self._left)):
                self._start()
            while self._left:
                now = time.monotonic()
                if now >= self._deadline:
                    self._give_up()
                    break
                for worker in list(pool._workers):
                    if (worker.queue or not worker.ready) and now >= worker.due:
                        self._overdue(worker)
                due = [w.due for w in pool._workers if w.queue or not w.ready]
                wait = max(0.0, min([self._deadline, *due]) - time.monotonic())
                if any(worker.writing for worker in pool._workers):
                    wait = min(wait, 0.001)  # a pipe is full; its worker empties it meanwhile
                for key, _ in self._selector.select(min(wait, 1.0)):
                    self._progress(key.data)
                for worker in pool._workers:
                    worker.flush()
        except BaseException:
            for worker in pool._workers:  # their replies would reach the next batch
                worker.end()
            pool._workers = []
            raise
        finally:
            self._selector.close()
        return self._verdicts

    def _start(self) -> None:
        worker = _Worker(self._pool._check)
        self._pool._workers.append(worker)
        self._admit(worker)

    def _admit(self, worker: _Worker) -> None:
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        if worker.ready:
            self._feed(worker)

    def _drop(self, worker: _Worker) -> None:
        self._selector.unregister(worker.process.stdout)
        self._pool._workers.remove(worker)
        worker.end()
        if self._left:
            self._start()

    def _feed(self, worker: _Worker) -> None:
        pool = self._pool
        room = min(_CHUNK, pool._checks_per_worker - worker.served) - len(worker.queue)
        if not worker.queue:
            worker.due = time.monotonic() + pool._timeout_s + GRACE_S
        if not worker.served and not worker.queue:
            while self._again:
                self._send(worker, self._again.popleft())
        # Fair shares, so that the last answers do not all wait behind a slow one.
        room = min(room, -(-len(self._waiting) // len(pool._workers)))
        for _ in range(min(room, len(self._waiting))):
            self._send(worker, self._waiting.popleft())

    def _send(self, worker: _Worker, number: int) -> None:
        worker.queue.append(number)
        completion, gold = self._pairs[number]
        # One character beyond the limit is refused as the whole would be.
        completion = completion[: extract.MAX_CHARS + 1]
        request = json.dumps([number, completion, gold, self._pool._timeout_s])
        worker.send(request.encode() + b"\n")

    def _progress(self, worker: _Worker) -> None:
        replies, alive = worker.receive()
        for number, reason, answer in replies:
            if number == -1:
                worker.ready = True
                self._failed_starts = 0
                continue
            worker.queue.popleft()
            worker.served += 1
            worker.due = time.monotonic() + self._pool._timeout_s + GRACE_S
            if reason is None:
                raise judge.UnreadableGold(answer)
            self._record(number, Verdict(float(reason == "correct"), answer, reason))
        worker.flush()
        if not alive:
            self._overdue(worker, died=True)
        elif worker.ready and worker.served >= self._pool._checks_per_worker and not worker.queue:
            self._drop(worker)
        elif worker.ready and len(worker.queue) < _CHUNK // 2:
            self._feed(worker)

    def _overdue(self, worker: _Worker, *, died: bool = False) -> None:
        """The oldest check of this worker hangs, or may have killed it; the others wait anew."""
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts > 2 * self._pool._num_workers:
                raise RuntimeError(
                    f"worker processes do not come up ({sys.executable} -m "
                    f"jaxrl_reason.verify.worker {self._pool._check} ends or hangs)"
                )
        if worker.queue:
            number = worker.queue.popleft()
            self._deaths[number] += 1
            if died and self._deaths[number] < MAX_DEATHS:
                self._again.append(number)
            else:
                self._record(number, Verdict(0.0, None, "timeout"))
            self._waiting.extendleft(reversed(worker.queue))
            worker.queue.clear()
        self._drop(worker)

    def _give_up(self) -> None:
        for worker in list(self._pool._workers):
            if worker.queue:
                self._pool._workers.remove(worker)
                worker.end()
        for number, verdict in enumerate(self._verdicts):
            if verdict is None:
                self._record(number, Verdict(0.0, None, "timeout"))

    def _record(self, number: int, verdict: Verdict) -> None:
        self._verdicts[number] = verdict
        self._left -= 1
