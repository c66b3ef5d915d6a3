"""Signals that end a run: what was trained is saved, and a preemption costs at most the update that runs.

Host side. Reads: signals. Writes: lines to standard error.

| signal | effect |
| --- | --- |
| SIGTERM, SIGHUP | said at once; the work that runs has `grace_s` to end, or is dropped: what was before it is saved |
| one more, a second later | the grace is over |

SIGINT stays what Python makes of it. A signal that the parent process has set to be ignored (`nohup`) stays ignored.

Python runs a handler between two of its instructions, which can be minutes later where a device program runs. The
signals are therefore also read by a thread, which answers at once, asks the main thread to drop its work when the grace
is over, and where that cannot answer (it is inside a library) saves in its place and ends the process.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_AGAIN_S = 1.0  # a signal that comes sooner is the same one, sent to the process and to its group
_REACT_S = 2.0  # seconds that the main thread has to leave its work before the thread acts


class _Dropped(BaseException):
    """Raised in the main thread by the signal handler; no `except Exception` may swallow it."""


class Stop:
    """Whether the run is to end, and the work that may be dropped for it."""

    def __init__(self, grace_s: float | int):
        self.dropped = False  # work was dropped, and the state before it is saved
        self._grace_s = grace_s
        self._asked = threading.Event()
        self._first = (0.0, "")  # when, and by which signal
        # (save, raises) of the work that runs; a new tuple each time, so that it can be told from the one before.
        self._work: tuple[Callable[[], int], bool] | None = None
        self._kicked: tuple | None = None
        self._saving = threading.Lock()
        self._over = False
        self._terminals = [n for n in (1, 2) if os.isatty(n)]

    def is_set(self) -> bool:
        """Whether a signal has asked for the end: save and leave as soon as the update is done."""
        return self._asked.is_set()

    @contextlib.contextmanager
    def droppable(self, save: Callable[[], int]) -> Iterator[None]:
        """Work that is dropped once the grace is over.

        `dropped` is then True after the block, and `save` was called; or the process has ended with status 0, where
        the block could not be left.

        Args:
          save: makes sure that what was there before the work is on the disk; returns the update that a resumed run
            goes on from. Called by another thread where this one cannot be reached.
        """
        try:
            self._work = (save, True)
            yield
            self._work = None
        except _Dropped:
            with self._saving:  # held by the thread until the process ends, if it came first
                self._work = None
                self._say(f"dropped what ran; --resume goes on from update {save()}")
            self.dropped = True
        finally:
            self._work = None

    def commit(self, save: Callable[[], int]) -> None:
        """From here on the block uses up what its own `save` needs: `save` replaces it, and nothing may be raised."""
        self._work = (save, False)

    def _handle(self, number: int, frame: object) -> None:
        work = self._work
        if work is not None and work is self._kicked and work[1]:
            self._kicked = None
            raise _Dropped

    def _watch(self, ours: socket.socket) -> None:
        deadline = math.inf
        while not self._over and deadline > time.monotonic():
            deadline = self._read(ours, deadline)
        since, seen = time.monotonic(), None
        while not self._over:
            self._read(ours, time.monotonic() + 0.05)
            work = self._work
            if work is not seen:
                since, seen = time.monotonic(), work
                if work is not None and work[1]:
                    self._kicked = work
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
            elif work is not None and time.monotonic() - since > _REACT_S:
                self._end_for(work)

    def _read(self, ours: socket.socket, deadline: float) -> float:
        """Wait for signals until the deadline; the deadline from then on."""
        timeout = None if deadline == math.inf else max(deadline - time.monotonic(), 0)
        if select.select([ours], [], [], timeout)[0]:
            for number in ours.recv(4096):
                if number in _ENDING:
                    deadline = self._ask(signal.Signals(number), deadline)
        return deadline

    def _ask(self, number: signal.Signals, deadline: float) -> float:
        now = time.monotonic()
        if self._asked.is_set():
            return now if now - self._first[0] > _AGAIN_S else deadline
        self._first = (now, number.name)
        if number == signal.SIGHUP:
            self._leave_terminals()
        self._asked.set()
        limit = f", at most {self._grace_s:g} s" if self._grace_s else ""
        self._say(f"saving after this update{limit}")
        return now + self._grace_s if self._grace_s else math.inf

    def _end_for(self, work: tuple[Callable[[], int], bool]) -> None:
        """Save in the main thread's place and end the process, unless the main thread has come free."""
        with self._saving:
            if self._work is not work:
                return
            try:
                self._say(f"dropped what ran; --resume goes on from update {work[0]()}")
                status = 0
            except Exception as error:
                self._say(f"could not save: {error}")
                status = 1
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status)

    def _leave_terminals(self) -> None:
        """Send what is printed nowhere: a terminal that was closed answers every write with an error."""
        for descriptor in self._terminals:
            if not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody may be listening any more
            print(f"{self._first[1]}: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stopping(grace_s: float | int) -> Iterator[Stop]:
    """Turn SIGTERM and SIGHUP into a `Stop` while the block runs; outside the main thread they stay as they are.

    Args:
      grace_s: seconds between the signal and the end of work that may be dropped; 0: it is waited for.
    """
    stop = Stop(grace_s)
    handled = [n for n in _ENDING if signal.getsignal(n) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread() or not handled:
        yield stop
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    thread = threading.Thread(target=stop._watch, args=(ours,), name="signals", daemon=True)
    before = {number: signal.signal(number, stop._handle) for number in handled}
    others = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(others)
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        stop._over = True
        theirs.send(b"\0")  # wakes the thread
        thread.join()
        ours.close()
        theirs.close()
