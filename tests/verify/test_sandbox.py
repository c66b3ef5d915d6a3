"""Hostile and honest programs: each stopped at its own limit, told by name, and nothing outside touched.

Host side. Reads: /proc of its children. Writes: temporary folders.
"""

import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from jaxrl_reason.verify import fences, sandbox, sandbox_tests

needs_isolation = pytest.mark.skipif(
    sandbox.missing() is not None, reason=f"the kernel denies isolation: {sandbox.missing()}"
)
SUM = sandbox_tests.read_tests({"inputs": ["2 3", "4 5"], "outputs": ["5", "9"]})
GOOD = "print(sum(map(int, input().split())))"
SHORT = sandbox.Limits(timeout_s=0.7)
LONG = sandbox.Limits(timeout_s=20.0)


def outcome_of(program: str, limits: sandbox.Limits = LONG) -> str:
    return sandbox.run(program, SUM, limits).outcome


@needs_isolation
@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        # Processes.
        ("import os\nwhile True: os.fork()", "process"),
        ("import subprocess; subprocess.run(['ls'])", "process"),
        ("import os; os.execv('/bin/sh', ['sh'])", "process"),
        ("import os; os.system('ls')", "process"),
        (
            "import threading, time\nfor _ in range(99):\n"
            "  threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
            "process",
        ),
        ("import os; os.kill(os.getppid(), 9)", "process"),
        ("import os; os.kill(-1, 9)", "process"),
        ("import os; os.killpg(0, 9)", "process"),
        ("import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0)", "process"),
        ("import ctypes, os; ctypes.CDLL(None).kill(os.getppid(), 9)", "process"),
        # The environment.
        ("import os; print(os.environ)", "environment"),
        ("import os; print(os.environ['PATH'])", "environment"),
        ("import os; print(os.getenv('SECRET'))", "environment"),
        ("import os; print(dict(os.environ), 'SECRET' in os.environ)", "environment"),
        # Memory.
        ("import mmap; mmap.mmap(-1, 10 << 30)", "memory"),
        ("x = bytearray(10 << 30)", "memory"),
        ("x = []\nwhile True: x.append(bytes(1 << 20))", "memory"),
        # Files.
        ("open('/evil', 'w')", "file"),
        ("open('../evil', 'w')", "file"),
        ("import os; open(os.__file__, 'a')", "file"),
        ("open('/tmp/evil', 'w')", "file"),
        ("open('/etc/passwd')", "file"),
        ("open('/root/.bashrc')", "file"),
        ("open('/proc/1/environ')", "file"),
        ("import os; os.listdir('/home')", "file"),
        ("import os; os.symlink('/etc', 'l'); open('l/passwd')", "file"),
        ("import os; os.symlink('/', 'l'); open('l/evil', 'w')", "file"),
        ("import multiprocessing; multiprocessing.Pool(2)", "file"),  # its semaphores
        ("try: open('/etc/shadow')\nexcept OSError: print('?')", "file"),
        ("x = [open(str(i), 'w') for i in range(999)]", "file"),
        # Network.
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "network"),
        ("import socket; socket.gethostbyname('example.com')", "network"),
        ("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "network"),
        ("import socket; socket.socket(40, socket.SOCK_STREAM)", "network"),  # vsock: no namespace
        # Output.
        ("while True: print('x' * 100)", "output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 100)", "output"),
        ("f = open('x', 'w')\nwhile True: f.write('x' * 1000)", "output"),
        # Honest mistakes.
        ("print(1)", "wrong"),
        ("1 / 0", "error"),
        ("def", "error"),
        ("(" * 5000 + ")" * 5000, "error"),
        ("raise SystemExit(3)", "error"),
        ("import os; os.abort()", "error"),
        ("import ctypes; ctypes.string_at(0)", "error"),
        ("import os; os.kill(os.getpid(), 15)", "error"),
    ],
)
def test_a_misdeed_is_stopped_and_named(program, outcome):
    assert outcome_of(program) == outcome
    assert outcome_of(GOOD) == "passed"


@needs_isolation
@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("import time; time.sleep(99)", "timeout"),
        ("while True: pass", "timeout"),
        ("import signal\nsignal.signal(15, lambda *a: 0)\nwhile True:\n try: exec('1')\n except: 0", "timeout"),
        ("while True:\n try: print('x' * 999, flush=True)\n except BaseException: pass", "output"),
        ("import os\nwhile True:\n try: os.fork()\n except OSError: pass", "process"),
    ],
)  # fmt: skip
def test_what_never_ends_is_ended(program, outcome):
    start = time.monotonic()
    assert outcome_of(program, SHORT) == outcome
    assert time.monotonic() - start < 60  # under a second on an idle machine
    assert outcome_of(GOOD) == "passed"


@needs_isolation
@pytest.mark.parametrize(
    "program",
    [
        "import os, sys\na = input()\nos.close(0); fd = os.dup(1); os.close(1); os.close(3)\n"
        "os.dup2(fd, 1); print(sum(map(int, a.split())))",
        "import sys, threading\nthreading.stack_size(64 << 20); sys.setrecursionlimit(10**6)\n"
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
        f"def main():\n  assert f(20_000) == 20_000\n  {GOOD}\nthreading.Thread(target=main).start()",
        f"import collections, heapq, math, random, decimal, re, json, asyncio\n{GOOD}",
        "import sys; print(sum(map(int, sys.stdin.buffer.read().split()))); sys.exit()",
        f"open('note', 'w').write('mine'); assert open('note').read() == 'mine'\n{GOOD}",
        f"if __name__ == '__main__': {GOOD}",
        f"{GOOD}\nexit()",
        f"import os\nif not os.environ.get('LOCAL'): {GOOD}",
    ],
)
def test_what_solutions_do_is_allowed(program):
    assert sandbox.run(program, SUM, LONG) == ("passed", "", ("passed", "passed"))


@needs_isolation
def test_what_a_program_sees():
    says = """
import os, sys, ctypes
libc = ctypes.CDLL(None, use_errno=True)
open("left", "w")
def handles():
    for i in range(100):
        try:
            os.fstat(i)
            yield i
        except OSError:
            pass
print(dict(os.environ), os.getenv("HOME"))
print(list(handles()))
print(os.getppid(), os.getpid() > 1)
print(sorted(set(os.listdir("/")) - {"lib", "lib64", "usr", "etc", "root", "opt", "home"}), os.listdir("."))
print(libc.unshare(0x10000000), libc.shmget(0, 1 << 30, 0o1777), libc.mount(b"a", b"/", b"tmpfs", 0, 0))
print(os.geteuid() != 0 or os.path.exists("/root/.bashrc"), os.path.exists("/etc/passwd"))
"""
    expected = "{} None\n[0, 1, 2, 3]\n1 True\n['box'] ['left']\n-1 -1 -1\n"
    if os.geteuid():
        says = says[: says.rindex("print(")]
    else:
        expected += "True False\n"
    tests = sandbox_tests.read_tests({"inputs": ["", ""], "outputs": [expected] * 2})
    result = sandbox.run(
        says.replace('"root"', f'"{os.path.realpath(sys.executable).split("/")[1]}"'), tests, LONG
    )
    assert result.outcomes == ("passed", "passed"), "each test starts in an empty folder"


@needs_isolation
def test_the_parent_is_unharmed_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    handles, children = len(os.listdir("/proc/self/fd")), _children()
    programs = [
        f"print(open({str(secret)!r}).read())",
        f"import os; os.remove({str(secret)!r})",
        "import os\nfor i in range(3, 300):\n  try: os.write(i, b'passed')\n  except OSError: 0",
        "import os\nfor p in (1, os.getppid(), -1):\n  try: os.kill(p, 9)\n  except OSError: 0\n"
        "while True: pass",
    ]
    outcomes = [r.outcome for r in sandbox.run_many(programs, [SUM] * 4, SHORT, workers=4)]
    assert outcomes == ["file", "file", "wrong", "process"]
    assert secret.read_text() == "hunter2"
    assert len(os.listdir("/proc/self/fd")) == handles
    assert _children() == children


def _children() -> int:
    found = subprocess.run(
        ["grep", "-l", "sandbox_worker.main", *_command_lines()], capture_output=True, text=True
    )
    return len(found.stdout.split())


def _command_lines() -> list[str]:
    return [
        f"/proc/{n}/cmdline" for n in os.listdir("/proc") if n.isdigit() and int(n) != os.getpid()
    ]


@needs_isolation
def test_functions_are_called():
    record = {"inputs": [[[1, 2], 3], [[4], 0]], "outputs": [[6], [4]], "fn_name": "total"}
    tests = sandbox_tests.read_tests(record)
    bare = "def total(xs, y): print('talk'); return sum(xs) + y"
    method = "class Solution:\n  def total(self, xs, y): return sum(xs) + y + 0.0"
    forged = "import os\nos.pwrite(3, b'\\ndone\\n6', 0); os._exit(0)"
    # What LeetCode has imported for its users, and nothing that they define themselves.
    lent = "class Solution:\n  def total(self, xs: List[int], y):\n    return reduce(lambda a, b: a + b, xs) + y"
    own = "ceil = lambda x: 7\ndef total(xs, y): return 6 if math.floor(2.5) == 2 and ceil(1) == 7 else 0"
    for program in (lent, own):
        assert sandbox.run(program, tests, LONG).outcomes[0] == "passed"
    programs = [bare, method, "def total(xs): return 0", "def total(*a): return {1}", "total = 6"]
    results = sandbox.run_many([*programs, forged], [tests] * 6, LONG)
    assert [r.outcome for r in results] == ["passed", "passed", "error", "error", "error", "wrong"]
    assert results[-1].outcomes == ("passed", "wrong"), "a forged answer is but an answer"


@needs_isolation
def test_one_program_gives_one_verdict():
    tests = sandbox_tests.read_tests({"inputs": [""], "outputs": [""]})
    seen = {sandbox.run("raise ValueError(list(set('abcdefgh')))", tests).detail for _ in range(3)}
    assert len(seen) == 1


@needs_isolation
def test_batches_end_in_time_from_any_thread():
    start = time.monotonic()
    found = {}

    def batch(name):
        programs = [GOOD, "while True: pass", "while True: pass", "while True: pass"]
        limits = sandbox.Limits(timeout_s=30.0)
        found[name] = sandbox.run_many(programs, [SUM] * 4, limits, workers=2, batch_timeout_s=2.0)

    threads = [threading.Thread(target=batch, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < 25, "less than one program's own time"
    for results in found.values():
        assert [r.outcome for r in results] == ["passed", "timeout", "timeout", "timeout"]


# Sleeps, and does some work before it could be taken for dead.
DRIP = "import time\nwhile True:\n  time.sleep(0.3)\n  sum(range(100_000))"


@needs_isolation
@pytest.mark.parametrize(
    "program",
    [
        DRIP,
        "import threading\ndef f():\n  " + DRIP.replace("\n", "\n  ") + "\n"
        "for _ in range(3): threading.Thread(target=f).start()",
        "import select\nwhile True:\n  select.select([], [], [], 0.3)\n  sum(range(100_000))",
    ],
)
def test_sleep_is_limited_like_work(program):
    start = time.monotonic()
    assert outcome_of(program, sandbox.Limits(timeout_s=1.5)) == "timeout"
    assert time.monotonic() - start < 8, "SLACK seconds for each of its own are 15"


@needs_isolation
def test_a_busy_machine_is_no_sleep():
    """Six programs on each core that all want to run: none is taken for one that sleeps."""
    work = f"import time\nwhile time.process_time() < 0.4: pass\n{GOOD}"
    body = work.replace("\n", "\n  ")
    inside = f"import threading\ndef f():\n  {body}\nthreading.Thread(target=f).start()"
    programs = [work, inside] * 3 * min(os.cpu_count() or 1, 8)
    limits = sandbox.Limits(timeout_s=0.8)
    one = sandbox_tests.read_tests({"inputs": ["2 3"], "outputs": ["5"]})
    results = sandbox.run_many(programs, [one] * len(programs), limits, workers=len(programs))
    assert {r.outcome for r in results} == {"passed"}


@needs_isolation
def test_no_program_takes_the_time_of_another():
    programs = [DRIP, "while True: pass"] * 5 + [GOOD] * 2
    limits = sandbox.Limits(timeout_s=20.0)
    results = sandbox.run_many(programs, [SUM] * 12, limits, workers=2, batch_timeout_s=6.0)
    assert [r.outcome for r in results] == ["timeout"] * 10 + ["passed"] * 2


@needs_isolation
def test_who_was_cut_off_by_others_runs_again():
    slow = f"import time\nwhile time.process_time() < 0.7: pass\n{GOOD}"
    one = sandbox_tests.read_tests({"inputs": ["2 3"], "outputs": ["5"]})
    programs = [slow] + [GOOD] * 23
    results = sandbox.run_many(programs, [one] * 24, LONG, workers=1, batch_timeout_s=24.0)
    assert {r.outcome for r in results} == {"passed"}


@needs_isolation
def test_long_integers_are_right():
    digits = "7" * 6000
    record = {"inputs": [[digits]], "outputs": [digits], "fn_name": "f"}
    tests = sandbox_tests.read_tests(record)
    for program, outcome in (
        ("def f(x): return int(x)", "passed"),
        ("def f(x): return int(x) + 1", "wrong"),
        ("def f(x): return -int(x)", "wrong"),
    ):
        assert sandbox.run(program, tests, LONG).outcome == outcome
    printed = sandbox_tests.read_tests({"inputs": [digits], "outputs": [digits]})
    assert sandbox.run("print(int(input()))", printed, LONG).outcome == "passed"
    taken = sandbox_tests.read_tests({"inputs": [digits], "outputs": ["7"], "fn_name": "f"})
    assert sandbox.run("def f(x): return x % 10", taken, LONG).outcome == "passed"


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs the unshare program")
def test_it_refuses_where_the_kernel_denies_isolation():
    code = (
        "from jaxrl_reason.verify import fences, sandbox, sandbox_tests\n"
        "tests = sandbox_tests.read_tests({'inputs': ['2 3'], 'outputs': ['5']})\n"
        "try: sandbox.run('print(5)', tests)\n"
        "except sandbox.IsolationMissing as error: print(error)\n"
        "for program in ('print(5)', 'import os\\nwhile True: os.fork()', 'x = bytearray(10 << 30)',\n"
        "                'import socket; socket.socket()', \"while True: print('x' * 99)\"):\n"
        "  print(sandbox.run(program, tests, require_isolation=False).outcome)\n"
    )
    deny = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", deny, "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no user namespace to deny it in: {done.stderr[-200:]}")
    refusal, *outcomes = done.stdout.splitlines()
    assert "unshare: " in refusal and "max_user_namespaces" in refusal
    assert "task.sandbox.require_isolation" in refusal
    assert outcomes == ["passed", "process", "memory", "network", "output"]


def test_a_batch_without_isolation_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox, "missing", lambda: "no namespaces")
    with pytest.raises(sandbox.IsolationMissing, match="no namespaces"):
        sandbox.run_many([GOOD], [SUM])


# --- Records, completions, comparison -------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "inputs and outputs"),
        ({"inputs": [], "outputs": []}, "at least one"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        ({"inputs": [1], "outputs": ["1"]}, "1: must be a text"),
        ({"inputs": ["{"], "outputs": ["1"], "fn_name": "f"}, "one line of JSON"),
        ({"inputs": [3], "outputs": ["1"], "fn_name": "f"}, "one line of JSON"),
        ({"inputs": ["1"], "outputs": ["1"], "fn_name": "f()"}, "name of a function"),
        ({"tests": [{"input": "1"}]}, "input"),
        ({"tests": "12"}, "list of"),
    ],
)
def test_bad_records_are_named(record, words):
    with pytest.raises(ValueError, match=words):
        sandbox_tests.read_tests(record)


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("```python\na\n```", "a\n"),
        ("```py\na\n```\ntext\n```Python\nb\n```\nend", "b\n"),
        ("```\na\n```", "a\n"),
        ("```python\na\n```\nOutput:\n```text\n5\n```", "a\n"),
        ("```python\na\n```\nOutput:\n```\n5\n```", "a\n"),
        ("```cpp\nx\n```", None),
        ("```python\na\n```\n```python\nb", None),  # cut off
        ("print(1)", None),
        ("", None),
        ("```" * 1000, None),
        ("``` python \r\na\r\n```  \r\n", "a\r\n"),
    ],
)
def test_code_is_the_last_closed_block(completion, code):
    assert fences.extract_code(completion) == code


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("1\n2\n", "1\n2", True),
        ("\n1 \r\n2\n\n", "1\n2\n", True),
        ("1\n\n2", "1\n2", False),
        ("1 2", "1\n2", False),
        ("1.0", "1", False),
        ("1", "1.0", True),
        ("0.33333334", "0.333333333", True),
        ("0.3333", "0.333333333", False),
        ("1000000.5", "1000000.0", True),
        ("nan", "1.5", False),
        ("inf", "1e400", True),
        ("yes", "YES", False),
        ("", "", True),
        ("", "0", False),
        ("9" * 5000, "9" * 4999 + "8", False),
    ],
)
def test_outputs_are_compared(output, expected, same):
    assert sandbox_tests.same_output(output, expected) == same


def test_values_are_compared():
    same = sandbox_tests.same_json
    assert same('{"1": [1, 2.00000000001]}', ({"1": [1, 2.0]},))
    assert not same("[1, 2]", ([1, 2, 3],)) and not same("1", ("1",)) and not same("{", (1,))
    # True is no number and no number is True, at any depth; 1.0 is 1.
    for text, value in (("true", 1), ("false", 0), ("1", True), ("0", False), ("true", 1.0)):
        assert not same(text, (value,)) and not same(f"[[{text}]]", ([[value]],))
        assert not same(f'{{"a": {text}}}', ({"a": value},))
    assert same("true", (True,)) and same("[false]", ([False],)) and not same("true", (False,))
    assert same("1.0", (1,)) and same("1", (1.0,)) and same("-0.0", (0,)) and not same("1.1", (1,))
    # Digits that take minutes to read as a number are compared all the same.
    many = "9" * 900_000
    start = time.process_time()
    assert same(many, (many,)) and not same(many + "8", (many + "9",)) and not same(many, (9,))
    assert not same(f"[{many}]", ([1.5],)) and time.process_time() - start < 1
    assert not same("[" * 100_000, (1,)) and not same("1" + "0" * 400, (1.5,))
    assert sandbox_tests.read_tests(
        {"inputs": [[1]], "outputs": ["abc"], "fn_name": "f"}
    ).outputs == (("abc",),)
