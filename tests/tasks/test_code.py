"""The task `code`: records of several data sets, prompts, verdicts from the sandbox.

Host side. Reads: files it wrote. Writes: a temporary folder.
"""

import json

import pytest

from jaxrl_reason import config, tasks
from jaxrl_reason.tasks import base, code
from jaxrl_reason.verify import sandbox

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
        (named, named.reference, "correct"),
        (live, fenced("class Solution:\n  def add(self, xs): return sum(xs)"), "correct"),
        (live, fenced("def add(xs): return sum(xs)"), "correct"),
        (apps, fenced("print(sum(map(int, input().split())))"), "correct"),
    ]
    verdicts = task.verify([c[0] for c in cases], [c[1] for c in cases])
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
        ({"input_output": json.dumps(ADD | {"outputs": []})}, "2 inputs and 0 outputs"),
    ],
)
def test_bad_records_are_named(tmp_path, change, words):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(APPS) + "\n" + json.dumps(APPS | change))
    with pytest.raises(ValueError, match=f"bad.jsonl, line 2: .*({words})"):
        code.Code(path, require_isolation=False)
