"""What runs between `verify.sandbox` and a program of a policy: namespaces, limits, one child per test.

Host side. Reads: standard input; the interpreter's library, shown to programs. Writes: standard output; files that a
program makes go to a file system in memory that ends with the sandbox.

An interpreter starts for every program, so imports are those that cost little: this package's own start is left out
(`sandbox._BOOT`).

    parent -- pipes --> launcher: unshare -- fork --> supervisor, process 1: mounts, drops rights -- fork --> program

The supervisor has no right that a program has not, but it stands behind three fences: process 1 of a pid namespace
takes no signal from inside, it cannot be traced, and the pipes to the parent are closed in the child.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import sys
import time

from jaxrl_reason.verify import sandbox_isolation as isolation

READY = b"ready"
MISSING = b"missing"
# Seconds on the clock for each second of processor time, at most: on a machine with ten programs per core an honest one
# needs so many. What a program sleeps is limited by itself, to as many seconds as its processor time.
SLACK = 10

_SIGKILL = 9
_SAMPLE_MS = 100  # from one look at a program to the next
_STDERR_BYTES = 2000  # its end, for the record of what went wrong
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_RESERVE_BYTES = 32 << 20  # of memory, for telling that there is no more


def _receive() -> bytes | None:
    """One field: 8 bytes of length, then so many; None where standard input has ended."""
    parts = []
    for size in (8, None):
        size = int.from_bytes(parts[0], "little") if size is None else size
        data = b""
        while len(data) < size:
            more = os.read(0, min(size - len(data), 1 << 20))
            if not more:
                return None
            data += more
        parts.append(data)
    return parts[1]


def _send(*fields: bytes) -> None:
    data = b"".join(len(f).to_bytes(8, "little") + f for f in fields)
    while data:
        data = data[os.write(1, data) :]


def _memory_file(data: bytes = b"") -> int:
    handle = os.memfd_create("sandbox")
    while data:
        data = data[os.write(handle, data) :]
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _read_back(handle: int, limit: int, *, tail: bool = False) -> bytes:
    size = os.fstat(handle).st_size
    data = os.pread(handle, limit, max(0, size - limit) if tail else 0)
    os.close(handle)
    return data


def _empty(folder: str) -> None:
    for entry in os.scandir(folder):
        try:
            if entry.is_dir(follow_symlinks=False):
                _empty(entry.path)
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)
        except OSError:
            pass  # what a program locks up fills its own folder alone


def _wait(child: int, timeout_ms: int, processes: int | None) -> bool:
    """Whether a process ends before it has used up its processor time, or its patience on the clock.

    Processor time, since on a busy machine the clock says little of a program that wants to run. One that does not, as
    it sleeps or is blocked, loses nothing by others: it gets no more seconds asleep than awake, and a second at a time.

    Args:
      child: the process.
      timeout_ms: of processor time.
      processes: handle of /proc; None: there is none, so that only the clock limits a process that sleeps at times.
    """
    watch, poll = os.pidfd_open(child), select.poll()
    poll.register(watch, select.POLLIN)
    clock = (
        ~child << 3
    ) | 2  # of the processor time of another process, see clock_getcpuclockid(3)
    start = then = time.monotonic_ns() // 1_000_000
    wait, used, idle, asleep = min(timeout_ms, _SAMPLE_MS), 0, 0, 0
    while not (ended := bool(poll.poll(wait))):
        now, before = time.monotonic_ns() // 1_000_000, used
        used, passed, then = time.clock_gettime_ns(clock) // 1_000_000, now - then, now
        idle = idle + passed if used == before else 0
        if not _wants_to_run(processes, watch):
            asleep += max(0, passed - (used - before))
        left = timeout_ms - used
        if left <= 0 or now - start >= SLACK * timeout_ms or idle >= 1000 or asleep >= timeout_ms:
            break
        wait = max(10, min(left, _SAMPLE_MS))
    os.close(watch)
    return ended


def _wants_to_run(processes: int | None, watch: int) -> bool:
    """Whether a thread of this process runs, waits for a core or for a disk; True where that cannot be told.

    Our own /proc is gone and the program has none; `processes` is that of the namespace outside, where both of us have
    other numbers.
    """
    if processes is None:
        return True
    try:
        own = os.readlink("self", dir_fd=processes)
        fields = _read_at(processes, f"{own}/fdinfo/{watch}").split()
        threads = f"{int(fields[fields.index(b'Pid:') + 1])}/task"
        folder = os.open(threads, os.O_RDONLY | os.O_DIRECTORY, dir_fd=processes)
        try:
            names = os.listdir(folder)
            # The state stands behind the name, which may hold any character.
            return any(
                _read_at(folder, f"{name}/stat").rpartition(b")")[2].split()[0] in (b"R", b"D")
                for name in names
            )
        finally:
            os.close(folder)
    except (OSError, ValueError, IndexError):
        return True


def _read_at(folder: int, path: str) -> bytes:
    handle = os.open(path, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(handle, 4096)
    finally:
        os.close(handle)


def _open_processes() -> int | None:
    """Handle of /proc, to be opened before it is gone from sight."""
    try:
        return os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None


def _run_test(
    program: bytes,
    function: str,
    given: bytes,
    limits: dict,
    isolated: bool,
    processes: int | None,
) -> None:
    """One child; sends (how it ended, CPU milliseconds, size of output, output, end of stderr, report)."""
    files = [_memory_file(given), _memory_file(), _memory_file(), _memory_file()]
    child = os.fork()
    if child == 0:
        try:
            _become_program(files, limits, isolated)
            _run_program(program, function)
        finally:
            os._exit(1)
    ended = _wait(child, limits["timeout_ms"], processes)
    if isolated:
        try:
            os.kill(-1, _SIGKILL)  # all but process 1, which this is
        except ProcessLookupError:
            pass
    else:
        for kill in (os.killpg, os.kill):  # before its setsid there is no group
            try:
                kill(child, _SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
    _, status, usage = os.wait4(child, 0)
    how = f"exit {os.waitstatus_to_exitcode(status)}" if ended else "deadline"
    cpu = f"{1000 * (usage.ru_utime + usage.ru_stime):.0f}"
    _, output, errors, report = files
    size = f"{max(os.fstat(output).st_size, os.fstat(errors).st_size)}"
    os.close(files[0])
    _send(
        how.encode(),
        cpu.encode(),
        size.encode(),
        _read_back(output, limits["output_bytes"]),
        _read_back(errors, _STDERR_BYTES, tail=True),
        _read_back(report, limits["output_bytes"]),
    )
    _empty(".")


def _become_program(files: list[int], limits: dict, isolated: bool) -> None:
    """In the child: standard handles and the report as handle 3, no other; limits; filter."""
    os.setsid()
    for number, handle in enumerate(files):
        os.dup2(handle, number + 100)
    for number in range(len(files)):
        os.dup2(number + 100, number)
    os.closerange(len(files), 1 << 16)
    os.environ.clear()
    sys.argv, sys.dont_write_bytecode = [""], True
    memory, seconds = limits["memory_bytes"], -(-limits["timeout_ms"] // 1000)
    for limit, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, seconds + 1, seconds + 2),
        (resource.RLIMIT_FSIZE, limits["output_bytes"], limits["output_bytes"]),
        (resource.RLIMIT_NOFILE, limits["max_files"], limits["max_files"]),
        (resource.RLIMIT_NPROC, limits["max_threads"] + 1, limits["max_threads"] + 1),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_STACK, min(memory, 64 << 20), resource.RLIM_INFINITY),
        (resource.RLIMIT_AS, memory, memory + _RESERVE_BYTES),
    ):
        most = resource.getrlimit(limit)[1]
        if most != resource.RLIM_INFINITY:
            hard = most if hard == resource.RLIM_INFINITY else min(hard, most)
            soft = min(soft, most)
        resource.setrlimit(limit, (soft, hard))
    try:
        isolation.filter_calls()
    except (OSError, KeyError):  # KeyError: the numbers of this machine's calls are not known
        if isolated:
            raise


# --- In the child: the program --------------------------------------------------------------------


def _run_program(program: bytes, function: str) -> None:
    """Runs it as `__main__`, calls `function` if one is named, reports and ends the process."""
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    module.__dict__.update(exit=sys.exit, quit=sys.exit)  # `site`, which is left out, makes them
    sys.set_int_max_str_digits(0)  # long integers are right answers too; their time is limited
    box, noted = os.getcwd(), [""]
    sys.addaudithook(_make_hook(box, noted))
    _note_reads(noted)
    kind, detail, code = "done", "", 0
    try:
        compiled = compile(program, _PROGRAM, "exec")
        if function:
            module.__dict__.update(_lent(compiled))
        exec(compiled, module.__dict__)
        if function:
            detail = _call_function(module, function)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        kind, detail, code = _kind(error, box), _describe(error), 1
        _report(noted[0], kind, detail)  # threads that never end may keep us from doing it below
    try:
        threading = sys.modules.get("threading")
        for thread in threading.enumerate() if threading else ():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        sys.stdout.flush()
    except BaseException as error:
        kind, detail, code = _kind(error, box), _describe(error), 1
    _report(noted[0], kind, detail)
    os._exit(code & 0xFF)


# What those who ask for a function, LeetCode and LiveCodeBench, have imported before: module, names out of it.
_LENT = {
    "typing": "Any Callable DefaultDict Deque Dict Iterable Iterator List Optional Sequence Set Tuple Union",
    "collections": "Counter OrderedDict defaultdict deque namedtuple",
    "functools": "cache cmp_to_key lru_cache reduce",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "bisect": "bisect_left bisect_right insort insort_left insort_right",
    "itertools": "accumulate chain combinations count cycle groupby pairwise permutations product zip_longest",
    "math": "ceil comb factorial floor gcd inf isqrt lcm log log2 perm pi sqrt",
    **dict.fromkeys(("copy", "datetime", "operator", "random", "re", "string", "sys"), ""),
}


def _lent(code: object) -> dict[str, object]:
    """Of these modules and names, those that a program speaks of; what it defines itself takes their place."""
    spoken, codes = set(), [code]
    while codes:
        one = codes.pop()
        spoken.update(one.co_names)
        codes += [c for c in one.co_consts if hasattr(c, "co_names")]
    found = {}
    for home, names in _LENT.items():
        for name in spoken.intersection((home, *names.split())):
            found[name] = __import__(home)
            if name != home:
                found[name] = getattr(found[name], name)
    return found


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_STDERR_BYTES]


def _report(noted: str, kind: str, detail: str) -> None:
    try:
        os.pwrite(3, f"{noted}\n{kind}\n{detail}".encode("utf-8", "backslashreplace"), 0)
    except OSError:
        pass  # the program closed it: its loss


_PROCESS_EVENTS = ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system", "os.spawn")
_NETWORK_EVENTS = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo")
# Of the C library, by name: what has an event of its own in `os` would else be told from nothing.
_PROCESS_CALLS = frozenset(
    "fork vfork clone kill killpg tgkill ptrace process_vm_readv process_vm_writev execve system popen syscall".split()
)
_CHANGE_EVENTS = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.link")


def _make_hook(box: str, noted: list[str]):
    """Notes the first attempt at what is refused, so that a program that hides the refusal is told apart as well.

    A courtesy to the reader of verdicts, no fence: a program can get around it, not around the kernel.
    """

    def outside(path: object, changes: bool) -> bool:
        if not isinstance(path, (str, bytes)):
            return False
        path = os.path.realpath(os.fsdecode(path))  # a link in the folder may lead out of it
        return (
            path != box
            and not path.startswith(box + "/")
            and (changes or not os.path.lexists(path))
        )

    def hook(event: str, given: tuple) -> None:
        if noted[0] or not event.startswith(("os.", "open", "socket.", "subprocess.", "ctypes.")):
            return
        if event in _PROCESS_EVENTS or event == "subprocess.Popen":
            noted[0] = "process"
        elif event == "ctypes.dlsym" and given[1] in _PROCESS_CALLS:
            noted[0] = "process"
        elif event == "os.kill" and given[0] != os.getpid():
            noted[0] = "process"
        elif event in _NETWORK_EVENTS:
            noted[0] = "network"
        elif event == "open" and outside(given[0], bool((given[2] or 0) & _WRITES)):
            noted[0] = "file"
        elif event in ("os.listdir", "os.scandir") and outside(given[0], False):
            noted[0] = "file"
        elif event in _CHANGE_EVENTS and outside(given[0], True):
            noted[0] = "file"
        if noted[0]:
            _report(noted[0], "", "")

    return hook


def _note_reads(noted: list[str]) -> None:
    """Notes that the program itself, and no library for it, asked for the environment, which is empty."""

    def note() -> None:
        frame = sys._getframe(2)
        while frame and os.path.basename(frame.f_code.co_filename) in _ENVIRONMENT_FILES:
            frame = frame.f_back
        if frame and frame.f_code.co_filename == _PROGRAM:
            noted[0] = noted[0] or "environment"

    class Noting(type(os.environ)):
        def __getitem__(self, name):
            note()
            return super().__getitem__(name)

        def __iter__(self):
            note()
            return super().__iter__()

        def __repr__(self):
            note()
            return "{}"

    os.environ.__class__ = os.environb.__class__ = Noting


_ENVIRONMENT_FILES = ("os.py", "<frozen os>", "_collections_abc.py", "<frozen _collections_abc>")
_PROGRAM = "program.py"


def _call_function(module: object, name: str) -> str:
    """JSON of what the function, or the method of class Solution, returns for the arguments on stdin."""
    import json

    arguments = json.loads(os.pread(0, os.fstat(0).st_size, 0))
    owner = module if hasattr(module, name) else module.Solution()
    return json.dumps(getattr(owner, name)(*arguments))


def _kind(error: BaseException | None, box: str) -> str:
    """Which limit an error speaks of; "error": none."""
    for _ in range(8):
        if error is None:
            break
        if isinstance(error, MemoryError):
            return "memory"
        if "can't start new thread" in str(error):
            return "process"
        if isinstance(error, OSError):
            if error.errno == errno.ENETUNREACH or type(error).__name__ == "gaierror":
                return "network"
            if error.errno == errno.ENOMEM:
                return "memory"
            if error.errno in (errno.EFBIG, errno.ENOSPC):
                return "output"
            if error.errno == errno.EAGAIN or error.errno == errno.EPERM and not error.filename:
                return "process"
            if error.errno == errno.EMFILE or error.errno == errno.ENOENT and not error.filename:
                return "file"  # without a name: semaphores, terminals
            if isinstance(error.filename, (str, bytes)):
                path = os.path.realpath(os.fsdecode(error.filename))
                if not path.startswith(box + "/"):
                    return "file"
        reason = getattr(error, "reason", None)
        error = reason if isinstance(reason, OSError) else error.__cause__ or error.__context__
    return "error"


def main(arguments: list[str]) -> None:
    """Sets up, says `READY` or what is `MISSING`, then answers one test per field of standard input.

    Args:
      arguments: isolated ("1" or "0"), then name=integer for every limit.
    """
    isolated, processes = arguments[0] == "1", _open_processes()
    limits = {name: int(value) for name, value in (a.split("=") for a in arguments[1:])}
    if isolated:
        try:
            user = isolation.own_namespaces()
        except OSError as error:
            return _send(MISSING, str(error.strerror).encode())
        first = os.fork()
        if first:
            # The pipes are the supervisor's: its end must be the parent's end of file.
            os.closerange(0, 2)
            os.waitpid(first, 0)
            return
        try:
            isolation.new_root(user, limits["disk_bytes"])
            isolation.drop_rights(user)
        except OSError as error:
            return _send(MISSING, str(error.strerror).encode())
    _send(READY, b"")
    program, function = _receive(), _receive()
    while (given := _receive()) is not None:
        _run_test(program, function.decode(), given, limits, isolated, processes)
