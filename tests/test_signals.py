"""A signal is answered at once, gives the work its grace, and what was there before the work is kept."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrl_reason import signals

pytestmark = pytest.mark.usefixtures("heard_signals")

# A run whose work is one call: `saved` is what lies on the disk.
RUN = """
import signal, sys, time
from jaxrl_reason import signals
grace, raises, seconds = float(sys.argv[1]), sys.argv[2] == "raises", float(sys.argv[3])
def save():
    print("saved", flush=True)
    return 7
with signals.stopping(grace) as stop:
    with stop.droppable(lambda: print("early") if not raises else save()):
        if not raises:
            stop.commit(save)
        print("working", flush=True)
        {work}
        print("worked", flush=True)
    print("dropped" if stop.dropped else "done", stop.is_set(), flush=True)
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
"""
SLEEP = "time.sleep(seconds)"


def start(grace: float, raises: str, seconds: float, work: str = SLEEP, first=(), **options):
    command = [
        *first,
        sys.executable,
        "-c",
        RUN.replace("{work}", work),
        str(grace),
        raises,
        str(seconds),
    ]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    process = subprocess.Popen(command, text=True, **options)
    if process.stdout:
        assert process.stdout.readline() == "working\n"
    return process


def ended(process: subprocess.Popen) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out.split("\n")[:-1], err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_work_that_ends_within_the_grace_is_kept(number):
    process = start(20, "raises", 0.3)
    process.send_signal(number)
    status, out, err = ended(process)
    assert (status, out) == (0, ["worked", "done True", "True"])
    assert err == f"{number.name}: saving after this update, at most 20 s\n"


def test_without_a_grace_the_work_is_waited_for():
    process = start(0, "raises", 0.3)
    process.send_signal(signal.SIGTERM)
    status, out, err = ended(process)
    assert (status, out) == (0, ["worked", "done True", "True"])
    assert err == "SIGTERM: saving after this update\n"


def test_work_that_outlasts_the_grace_is_dropped_after_saving():
    process = start(0.2, "raises", 600)
    process.send_signal(signal.SIGTERM)
    status, out, err = ended(process)
    assert (status, out) == (0, ["saved", "dropped True", "True"])
    assert err.endswith("SIGTERM: dropped what ran; --resume goes on from update 7\n")


def test_a_second_signal_ends_the_grace_but_not_at_once():
    process = start(600, "raises", 600)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # the same one, through the process group
    time.sleep(0.2)
    assert process.poll() is None
    time.sleep(signals._AGAIN_S)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == (0, ["saved", "dropped True", "True"])


# Work that must not be left in the middle; and work that no handler reaches, since exceptions vanish in it.
UNREACHED = """
class Swallowing:
    def __del__(self):
        time.sleep(seconds)
swallowing = Swallowing(); del swallowing; time.sleep(seconds)
""".strip().replace("\n", "\n        ")


@pytest.mark.parametrize(("raises", "work"), [("waits", SLEEP), ("raises", UNREACHED)])
def test_work_that_cannot_be_left_ends_with_the_process(raises, work, monkeypatch):
    process = start(0.2, raises, 600, work, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    process.send_signal(signal.SIGTERM)
    status, out, err = ended(process)
    assert status == 0
    assert out[0] == "saved"
    assert "worked" not in out
    assert "--resume goes on from update 7\n" in err


def test_a_signal_that_the_parent_ignores_stays_ignored():
    process = start(0.1, "raises", 0.5, first=["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"])
    process.send_signal(signal.SIGHUP)
    status, out, err = ended(process)
    assert (status, out[:2], err) == (0, ["worked", "done False"], "")


def test_a_closed_terminal_saves_too(tmp_path):
    # Output goes to the terminal, which answers with an error once it is closed.
    work = f"time.sleep(0.6); open({str(tmp_path / 'out')!r}, 'w').write('worked')"
    ours, theirs = pty.openpty()
    process = start(
        20, "raises", 0, work, stdout=theirs, stderr=theirs, stdin=theirs, start_new_session=True
    )
    os.close(theirs)
    assert b"working" in os.read(ours, 100)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 0
    assert (tmp_path / "out").read_text() == "worked"


def test_another_thread_leaves_signals_alone():
    found = []

    def run():
        with signals.stopping(1) as stop, stop.droppable(lambda: 0):
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [before]


def test_an_error_in_the_work_comes_out_as_it_is():
    with pytest.raises(KeyError, match="mine"), signals.stopping(1) as stop:
        with stop.droppable(lambda: 0):
            raise KeyError("mine")
    assert not stop.dropped
