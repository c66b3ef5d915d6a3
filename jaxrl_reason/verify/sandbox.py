"""Programs of a policy, run against tests where they can do no harm.

Host side. Reads: /proc of its children. Writes: nothing; without isolation, a temporary folder per program.

Each program gets a process tree of its own (`sandbox_worker`): no network, no file but Python's library, read-only,
and an empty folder in memory, no environment, no other process, and limits on time, memory, output, threads and
handles. What it should print never enters the sandbox; comparing is done here. A program can therefore cheat itself
alone.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from jaxrl_reason.verify import sandbox_tests, sandbox_worker
from jaxrl_reason.verify.sandbox_tests import Tests

Outcome = Literal[
    "passed",
    "wrong",
    "error",
    "timeout",
    "memory",
    "output",
    "network",
    "file",
    "process",
    "environment",
]

LEAST_TURN_S = 0.5  # of a program in a batch, however many there are
START_S = 30.0  # for an interpreter to come up on a busy machine
GRACE_S = 5.0  # on top of the longest test, which the sandbox ends itself

# The package's own start would cost more than the interpreter's: its modules are found without it.
_BOOT = """
import sys
root = sys.argv.pop(1)
for name in ("jaxrl_reason", "jaxrl_reason.verify"):
    package = type(sys)(name)
    package.__path__ = [root + "/" + name.replace(".", "/")]
    sys.modules[name] = package
from jaxrl_reason.verify import sandbox_worker
sandbox_worker.main(sys.argv[1:])
"""
# Modules with libraries of their own: they must be found behind the mounts.
_PROBE = "import ctypes, decimal, json, random, zlib; print('ready')"
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_REFUSALS = ("memory", "output", "network", "file", "process", "environment")
_CUT = "the deadline of all tests"
_CPU_SIGNALS = (signal.SIGXCPU, signal.SIGKILL)


class IsolationMissing(ValueError):
    """This machine does not let us build the sandbox."""


class Limits(NamedTuple):
    """Of one test, unless it says otherwise."""

    # Seconds of processor time, > 0, and as many asleep. On the clock up to SLACK times as many in all, so that other
    # work on this machine changes no verdict.
    timeout_s: float = 4.0
    memory_mb: int = 512  # MiB of address space, >= 64
    output_kb: int = 1024  # KiB on each stream and in each file, >= 1
    disk_mb: int = 16  # MiB of files in the program's folder, >= 1
    max_threads: int = 16  # >= 1
    max_files: int = 64  # open handles, >= 8


DEFAULT_LIMITS = Limits()


class Result(NamedTuple):
    """What became of one program."""

    outcome: Outcome  # passed: every test; else that of the first test that was not
    detail: str  # the error in a few words; empty where there is none
    outcomes: tuple[Outcome, ...]  # of each test that was run, in order


def run(
    program: str,
    tests: Tests,
    limits: Limits = DEFAULT_LIMITS,
    *,
    require_isolation: bool = True,
    stop_at_failure: bool = True,
    total_timeout_s: float = float("inf"),
) -> Result:
    """Runs one program against its tests.

    "wrong": it ended well but said something else. "error": an exception, a signal, or an exit status that is not 0.
    "network", "file", "process": such an exception because it asked for a socket, for a file outside its folder, for a
    process or thread too many or a signal to another process. A program that catches it goes on, to no avail.

    Args:
      program: Python source; hostile as it may be.
      tests: at least one.
      limits: of each test.
      require_isolation: False: where the kernel denies isolation, do with limits, the filter of system calls and a
        temporary folder; a program can then read and write every file that we can.
      stop_at_failure: tests after the first that is not passed are not run.
      total_timeout_s: seconds for all tests; the one that meets the end is "timeout".
    Returns:
      Result.
    Raises:
      IsolationMissing: the kernel denies isolation.
      RuntimeError: the sandbox does not come up.
    Example:
      >>> tests = sandbox_tests.read_tests({"inputs": ["2 3"], "outputs": ["5"]})
      >>> run("print(sum(map(int, input().split())))", tests).outcome
      'passed'
      >>> run("open('/etc/passwd')", tests).outcome
      'file'
    """
    isolated = missing() is None
    if require_isolation:
        check_isolation()
    with _started(limits, isolated) as pipes:
        return _run_tests(
            pipes, program, tests, limits, total_timeout_s, stop_at_failure=stop_at_failure
        )


def _run_tests(
    pipes: _Pipes,
    program: str,
    tests: Tests,
    limits: Limits,
    total_timeout_s: float,
    *,
    stop_at_failure: bool,
) -> Result:
    end = time.monotonic() + total_timeout_s
    outcomes: list[Outcome] = []
    detail = ""
    pipes.send(program.encode("utf-8", "replace"), START_S)
    pipes.send((tests.function or "").encode(), START_S)
    for given, expected in zip(tests.inputs, tests.outputs, strict=True):
        seconds = min(sandbox_worker.SLACK * limits.timeout_s + GRACE_S, end - time.monotonic())
        try:
            pipes.send(given.encode("utf-8", "replace"), seconds)
            fields = [pipes.receive(seconds) for _ in range(6)]
        except (TimeoutError, EOFError) as error:
            outcomes.append("timeout" if isinstance(error, TimeoutError) else "error")
            detail = detail or str(error)
            break
        outcome, reason = _judge(fields, expected, tests, limits)
        outcomes.append(outcome)
        if outcome != "passed":
            detail = detail or reason
            if stop_at_failure:
                break
    worst = next((o for o in outcomes if o != "passed"), "passed")
    return Result(worst, detail, tuple(outcomes))


def run_many(
    programs: Sequence[str],
    tests: Sequence[Tests],
    limits: Limits = DEFAULT_LIMITS,
    *,
    workers: int = 2,
    require_isolation: bool = True,
    batch_timeout_s: float = float("inf"),
) -> list[Result]:
    """`run` for many programs, several at a time.

    No program can take the time of another: in the first half of `batch_timeout_s` each gets an equal share of what is
    left, but at least LEAST_TURN_S, and whoever was cut off by that, not by its own limits, runs once more in the rest.

    Args:
      programs: sources.
      tests: of each program.
      limits: of each test.
      workers: programs that run at once, >= 1.
      require_isolation: as in `run`.
      batch_timeout_s: seconds for all of them, and at most LEAST_TURN_S for each that had no turn by then; what two
        turns were too short for is "timeout".
    Returns:
      Results in the order of the programs.
    """
    start = time.monotonic()
    results: dict[int, Result] = {}
    waiting = list(range(len(programs)))
    lock = threading.Lock()

    def one(number: int, end: float, least: float) -> None:
        nonlocal left
        with lock:
            share, left = (end - time.monotonic()) * workers / left, left - 1
        seconds = max(share, least)
        if seconds <= 0:
            return
        results[number] = run(
            programs[number],
            tests[number],
            limits,
            require_isolation=require_isolation,
            total_timeout_s=seconds,
        )

    for part, least in ((0.5, LEAST_TURN_S), (1.0, 0.0)):
        left = len(waiting)
        end = start + part * batch_timeout_s
        with concurrent.futures.ThreadPoolExecutor(workers) as threads:
            list(threads.map(lambda number: one(number, end, least), waiting))  # noqa: B023
        waiting = [number for number in waiting if results[number].detail == _CUT]
    return [results[number] for number in range(len(programs))]


def check_isolation() -> None:
    """Nothing, where programs can be isolated.

    Raises:
      IsolationMissing: they cannot; with what is missing and what to do about it.
    """
    reason = missing()
    if reason is not None:
        raise IsolationMissing(
            f"programs cannot be isolated on this machine ({reason}). Needed: Linux 5.12 or later on x86_64 or aarch64,"
            " and namespaces: be root with CAP_SYS_ADMIN, or allow unprivileged user namespaces (sysctl"
            " user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0; in a container, a seccomp"
            " profile that lets unshare and mount through). To run model-written programs without isolation all the"
            " same, set task.sandbox.require_isolation to False"
        )


@functools.cache
def missing() -> str | None:
    """Why programs cannot be isolated on this machine; None: they can. Tried once per process, with a program."""
    if sys.platform != "linux":
        return f"{sys.platform} has no namespaces"
    limits = DEFAULT_LIMITS._replace(timeout_s=START_S)
    tests = Tests(("",), ("ready",), None)
    try:
        with _started(limits, True) as pipes:
            result = _run_tests(pipes, _PROBE, tests, limits, START_S, stop_at_failure=True)
    except IsolationMissing as error:
        return str(error)
    return None if result.outcome == "passed" else f"an honest program fails: {result.detail}"


# --- One sandbox ----------------------------------------------------------------------------------


class _Pipes:
    """Fields to and from a worker, each with a deadline."""

    def __init__(self, process: subprocess.Popen):
        self._in, self._out = process.stdout.fileno(), process.stdin.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._received = b""

    def send(self, field: bytes, seconds: float) -> None:
        end = time.monotonic() + seconds
        data = memoryview(len(field).to_bytes(8, "little") + field)
        while data:
            _wait(self._out, select.POLLOUT, end)
            try:
                data = data[os.write(self._out, data) :]
            except BrokenPipeError as error:
                raise EOFError("the sandbox has ended") from error

    def receive(self, seconds: float) -> bytes:
        end = time.monotonic() + seconds
        size = int.from_bytes(self._take(8, end), "little")
        return self._take(size, end)

    def _take(self, size: int, end: float) -> bytes:
        parts, have = [self._received], len(self._received)
        while have < size:
            _wait(self._in, select.POLLIN, end)
            data = os.read(self._in, 1 << 20)
            if not data:
                raise EOFError("the sandbox has ended")
            parts.append(data)
            have += len(data)
        data = b"".join(parts)
        self._received = data[size:]
        return data[:size]


def _wait(handle: int, event: int, end: float) -> None:
    poll = select.poll()
    poll.register(handle, event)
    left = end - time.monotonic()
    milliseconds = None if left == float("inf") else max(0, int(1000 * left))
    if not poll.poll(milliseconds):
        raise TimeoutError(_CUT)


@contextlib.contextmanager
def _started(limits: Limits, isolated: bool) -> Iterator[_Pipes]:
    """A worker that is ready; nothing of it is left afterwards."""
    numbers = {
        "timeout_ms": int(1000 * limits.timeout_s),
        "memory_bytes": limits.memory_mb << 20,
        "output_bytes": limits.output_kb << 10,
        "disk_bytes": limits.disk_mb << 20,
        "max_threads": limits.max_threads,
        "max_files": limits.max_files,
    }
    arguments = [str(int(isolated)), *(f"{name}={value}" for name, value in numbers.items())]
    with contextlib.ExitStack() as stack:
        folder = "/" if isolated else stack.enter_context(_temporary_folder())
        process = subprocess.Popen(
            [os.path.realpath(sys.executable), *("-s", "-S", "-P", "-c", _BOOT, _ROOT), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A fixed order of sets: one program, one verdict. No locale: the text is UTF-8.
            env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
            cwd=folder,
            bufsize=0,
            start_new_session=True,
        )
        stack.callback(_end, process)
        pipes = _Pipes(process)
        try:
            word, reason = pipes.receive(START_S), pipes.receive(START_S)
        except (TimeoutError, EOFError) as error:
            os.set_blocking(process.stderr.fileno(), False)
            said = (process.stderr.read() or b"").decode(errors="replace")[-500:]
            raise RuntimeError(
                f"the sandbox's process {process.args[0]} does not come up: {said}"
            ) from error
        if word == sandbox_worker.MISSING:
            raise IsolationMissing(reason.decode(errors="replace"))
        yield pipes


def _temporary_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="sandbox_", ignore_cleanup_errors=True)


def _end(process: subprocess.Popen) -> None:
    # Launcher and supervisor are one group; with the supervisor, process 1, ends all that it holds.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


def _judge(
    fields: Sequence[bytes], expected: object, tests: Tests, limits: Limits
) -> tuple[Outcome, str]:
    """Outcome of one test, from what the supervisor saw and, for the kind of an error, what the program said."""
    how, cpu_ms, size, output, errors, report = fields
    noted, kind, detail = (report.decode(errors="replace") + "\n\n").split("\n", 2)
    detail = detail.rstrip("\n")
    last_line = (errors.decode(errors="replace").strip().splitlines() or [""])[-1]
    word, _, code = how.decode().partition(" ")
    status = int(code or 0)
    if int(size) >= limits.output_kb << 10:
        return "output", f"more than {limits.output_kb} KiB"
    if word != "deadline" and status == 0:
        if tests.function:
            right = kind == "done" and sandbox_tests.same_json(detail, expected)
        else:
            right = sandbox_tests.same_output(output.decode(errors="replace"), expected)
        if right:
            return "passed", ""
    # What a program says of itself can change the name of its failure, nothing else.
    for said in (kind, noted):
        if said in _REFUSALS:
            return said, detail
    late = -status in _CPU_SIGNALS and int(cpu_ms) >= 1000 * limits.timeout_s
    if word == "deadline" or late:
        return "timeout", f"more than {limits.timeout_s:g} s"
    if status == -signal.SIGKILL:
        return "memory", "killed for its memory"
    if status == -signal.SIGSYS:
        return "process", "ended by the filter of system calls"
    if status < 0:
        return "error", f"ended by signal {-status}"
    return ("error", detail or last_line or f"exit status {status}") if status else ("wrong", "")
