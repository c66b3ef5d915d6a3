"""The task `code`: records of several data sets, prompts, verdicts from the sandbox.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

import base64
import json
import pickle
import re
import zlib

import pyarrow
import pytest
from pyarrow import parquet

from jaxrl_reason import config, evaluate, tasks
from jaxrl_reason.tasks import base, code
from jaxrl_reason.tasks.sources import Source
from jaxrl_reason.verify import sandbox, sandbox_tests

needs_isolation = pytest.mark.skipif(
    sandbox.missing() is not None, reason=f"the kernel denies isolation: {sandbox.missing()}"
)
ADD = {"inputs": ["2 3", "4 5"], "outputs": ["5", "9"]}
APPS = {
    "question": "Add two numbers.",
    "input_output": json.dumps(ADD),
    "solutions": '["print(5)"]',
}
NAMED = {
    "problem": "Add.",
    "tests": {"inputs": [[2, 3]], "outputs": [[5]], "fn_name": "add"},
    "solution": "def add(a, b): return a + b",
}
LIVE = {
    "question_content": "Add the list.",
    "starter_code": "class Solution:\n    def add(self, xs):",
    "public_test_cases": '[{"input": "[1, 2]", "output": "3", "testtype": "functional"}]',
    "private_test_cases": '[{"input": "[4]", "output": "4", "testtype": "functional"}]',
    "metadata": '{"func_name": "add"}',
}


class Evil:
    def __reduce__(self):
        return (open, ("/dev/null", "w"))


EVIL = pickle.dumps(Evil())


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("code") / "problems.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in (APPS, NAMED, LIVE)))
    settings = config.base().task
    settings.name, settings.path = "code", str(path)
    settings.sandbox.timeout_s, settings.sandbox.require_isolation = 1.0, False
    return tasks.make_task(settings)


def fenced(program: str) -> str:
    return f"First I think.\n```python\n{program}\n```\n"


def test_records_of_several_data_sets(task):
    problems = {p.id: p for p in task.batch(0, 0, 3)}
    apps, named, live = (problems[f"code-{n}"] for n in (1, 2, 3))
    assert apps.meta["tests"] == (("2 3", "4 5"), ("5", "9"), None)
    assert named.meta["tests"].inputs == ("[2, 3]",) and named.meta["tests"].function == "add"
    assert live.meta["tests"].inputs == ("[[1, 2]]", "[[4]]")
    assert isinstance(task, base.Task)
    assert "standard input" in task.policy_prompt(apps)
    assert "defines add" in task.policy_prompt(live) and "class Solution" in live.prompt
    assert apps.reference == fenced("print(5)").partition("\n")[2].strip()
    prompt = task.repair_prompt(named, "MY DRAFT", "ITS EXAMPLE")
    assert prompt.index("MY DRAFT") < prompt.index("ITS EXAMPLE") < prompt.index("Rewrite")
    assert len(prompt.encode()) < task.repair_prompt_tokens


@needs_isolation
def test_verdicts(task):
    apps, named, live = sorted(task.batch(0, 0, 3), key=lambda p: p.id)
    cases = [
        (apps, fenced("print(sum(map(int, input().split())))"), "correct"),
        (apps, fenced("print(5)"), "wrong"),  # the second test tells
        (apps, "print(5)", "unparsable"),
        (apps, fenced("while True: pass"), "timeout"),
        (apps, fenced("open('/etc/passwd')"), "file"),
        (apps, fenced("import socket; socket.socket()"), "network"),
        (apps, fenced("x = bytearray(10 << 30)"), "memory"),
        (apps, fenced("import os; os.fork()"), "process"),
        (apps, fenced("1 / 0"), "error"),
        (apps, fenced("import os; os.environ['HOME']"), "environment"),
        (named, named.reference, "correct"),
        (live, fenced("class Solution:\n  def add(self, xs): return sum(xs)"), "correct"),
        (live, fenced("def add(xs): return sum(xs)"), "correct"),
        (apps, fenced("print(sum(map(int, input().split())))"), "correct"),
    ]
    task.metrics()
    verdicts = task.verify([c[0] for c in cases], [c[1] for c in cases])
    counted = task.metrics()
    assert counted.pop("verifier/output_frac") == 0 and len(counted) == 6
    assert set(counted.values()) == {1 / len(cases)} and task.metrics() == {}
    assert [v.reason for v in verdicts] == [c[2] for c in cases]
    assert [v.reward for v in verdicts] == [float(c[2] == "correct") for c in cases]
    assert verdicts[1].answer == "print(5)\n" and verdicts[2].answer is None


def test_it_refuses_before_anything_is_trained(tmp_path, monkeypatch):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(APPS))
    monkeypatch.setattr(sandbox, "missing", lambda: "no namespaces")
    with pytest.raises(sandbox.IsolationMissing, match="require_isolation"):
        code.Code(path)
    assert len(code.Code(path, require_isolation=False)) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question": ""}, "question"),
        ({"input_output": None}, "no tests"),
        ({"input_output": "{"}, "must be|list"),
        ({"input_output": None, "public_test_cases": "eJwrSS0uAQ=="}, "public_test_cases: must be"),
        (
            {"input_output": None, "private_test_cases": packed(EVIL)},
            "more than a text .(STACK_)?GLOBAL",
        ),
        ({"question": "-", "input": "-"}, "the question is no text: '-'"),
        (
            {"input_output": None, "public_tests": {"input": ["1"], "output": []}},
            "public_tests: 1 inputs and 0",
        ),
        ({"pass_rate": "half"}, "field pass_rate is no number .*'half'"),
        ({"input_output": json.dumps(ADD | {"outputs": []})}, "2 inputs and 0 outputs"),
    ],
)
def test_bad_records_are_left_out_and_named(tmp_path, change, words):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(APPS) + "\n" + json.dumps(APPS | change))
    with pytest.warns(UserWarning, match="bad.jsonl: 1 of 2 problems cannot be used") as said:
        assert len(code.Code(path, require_isolation=False)) == 1
    assert re.search(f"line 2: .*({words})", str(said[0].message))
    path.write_text(json.dumps(APPS | change))
    with pytest.raises(ValueError, match="1 of 1 problems cannot be used:"):
        code.Code(path, require_isolation=False)


def test_packed_tests_are_read_without_loading_a_pickle(monkeypatch):
    monkeypatch.setattr(pickle, "loads", None)
    cases = [{"input": "[4]", "output": "4", "testtype": "functional"}]
    for protocol in range(6):
        text = packed(pickle.dumps(json.dumps(cases), protocol))
        live = LIVE | {"public_test_cases": "[]", "private_test_cases": text}
        assert code.tests_of(live) == {"tests": cases, "fn_name": "add"}
    monkeypatch.setattr(sandbox_tests, "MAX_PACKED_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="more than 1 MiB"):
        sandbox_tests.unpack(packed(pickle.dumps("[" + " " * (4 << 20) + "]")))
    for data in (
        b"",
        b"\x80\x04",
        pickle.dumps(["[]"]),
        pickle.dumps("{") + pickle.dumps("}"),
        b"S'[]'\n.",
    ):
        with pytest.raises(ValueError, match="or one that is packed"):
            sandbox_tests.unpack(packed(data))


@pytest.mark.parametrize(
    "fields",
    [
        {"description": "Add.", "public_tests": {"input": ["2 3"], "output": ["5"]},
         "generated_tests": {"input": ["4 5"], "output": ["9"]}, "private_tests": {"input": [], "output": []}},
        {"description": "Add.", "official_tests": [{"input": "2 3", "output": "5"}, {"input": "4 5", "output": "9"}]},
        {"input": "Add.", "output": "<think>", "dataset": "taco", "input_output": json.dumps(ADD)},
    ],
)  # fmt: skip
def test_other_forms_of_tests(tmp_path, fields):
    path = tmp_path / "one.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([fields]), path)
    (problem,) = code.Code(path, require_isolation=False).problems
    assert problem.prompt == "Add." and problem.meta["tests"] == (("2 3", "4 5"), ("5", "9"), None)


def test_filters_and_problems_to_evaluate_on(tmp_path):
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    rows = [
        r | {"pass_rate": i / 4}
        for i, r in enumerate((APPS, NAMED, LIVE, APPS | {"question": "Other"}))
    ]
    train.write_text("".join(json.dumps(r) + "\n" for r in rows))
    test.write_text(json.dumps(APPS | {"question": "other"}))
    source = Source(str(train), eval_path=str(test), min_pass_rate=0.2)
    with pytest.warns(UserWarning, match="code-4 is code-eval-1"):
        plain = code.Code(source, require_isolation=False)
    assert [p.id for p in plain.problems] == ["code-2", "code-3", "code-eval-1"]
    assert [p.id for p in evaluate.whole_task(plain).batch(0, 0, 1)] == ["code-eval-1"]
    with pytest.warns(UserWarning, match="code-4 is code-eval-1"):
        prepared = code.Code(source._replace(data_dir=str(tmp_path / "d")), require_isolation=False)
    assert prepared.problems == plain.problems
    assert prepared.repair_prompt_tokens == plain.repair_prompt_tokens
