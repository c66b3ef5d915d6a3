"""Programming problems: the policy writes Python, and hidden tests decide.

Host side. Reads: a file of problems with their tests. Writes: what `tasks.sources` writes.
"""

from __future__ import annotations

import collections
import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_reason.tasks import questions, records, sources, turns
from jaxrl_reason.types import Problem, Verdict
from jaxrl_reason.verify import fences, sandbox, sandbox_tests

_FORMAT = "End with the whole program in one block that starts with ```python and ends with ```."

_POLICY_PROMPT = f"""Problem:
{{question}}
{{kind}}
Think first, one thought per line. {{format}}
{questions.ANSWER_CUE}"""

_REPAIR_PROMPT = f"""Problem:
{{question}}
{{kind}}
Draft with a mistake:
{{failed}}
A worked example of the same problem:
{{anchor}}
Rewrite the draft so that it becomes right. Copy every part that is right word for word.
Change as little as possible. Do not mention the draft or the example. {{format}}
{questions.ANSWER_CUE}"""

_STANDARD = "Write a Python program that reads standard input and prints the answer."
_FUNCTION = "Write Python that defines {name}, as a function or as a method of class Solution."

_QUESTIONS = (
    *("question", "question_content", "problem", "prompt", "description", "input"),
    *("messages", "conversations"),
)
_CASES = (
    *("public_test_cases", "private_test_cases"),
    *("public_tests", "private_tests", "generated_tests"),
    *("official_tests", "examples"),
)
_COLUMNS = (
    *(
        *_QUESTIONS,
        "system",
        "system_prompt",
        "starter_code",
        "solution",
        "solutions",
        "metadata",
        "pass_rate",
    ),
    *("tests", "input_output", *_CASES),
)


# Reasons of verdicts that have no metric of their own in every task.
_FAILURES = ("error", "memory", "output", "network", "file", "process", "environment")


class Code(questions.Questions):
    """Programming problems from a file; the outcome is that of all tests, in a sandbox. A Task.

    A record has its question in a field of `_QUESTIONS`, as a text or as turns (`tasks.turns`); its tests in a form of
    `tests_of`; further, where there is one, `starter_code`, and `solution` or the first of `solutions` as reference.

    Args:
      source: records, filters, and problems to evaluate on.
      limits: of each test.
      workers: programs that run at once, >= 1.
      batch_timeout_s: seconds for all programs of one call of `verify`; the rest is "timeout".
      require_isolation: as in `sandbox.run`.
      completion_tokens: budget of a completion in bytes, EOS included, >= 2.
    Raises:
      FileNotFoundError: no such file.
      ValueError: no problem that can be used; or programs cannot be isolated here.
    """

    def __init__(
        self,
        source: sources.Source | str | os.PathLike,
        *,
        limits: sandbox.Limits = sandbox.DEFAULT_LIMITS,
        workers: int = 2,
        batch_timeout_s: float = 600.0,
        require_isolation: bool = True,
        completion_tokens: int = 1024,
    ):
        loaded = sources.load(source, "code", _entry, _COLUMNS)
        if require_isolation:
            sandbox.check_isolation()  # before anything is trained
        self._lock, self._counts = threading.Lock(), collections.Counter()
        self._limits, self._workers = limits, workers
        self._batch_timeout_s, self._require_isolation = batch_timeout_s, require_isolation
        super().__init__(
            "code",
            questions.Prompts(_POLICY_PROMPT, _REPAIR_PROMPT),
            step_separator="\n",
            answer_marker="```python",
            loaded=loaded,
            completion_tokens=completion_tokens,
            check=None,
        )

    def policy_prompt(self, problem: Problem) -> str:
        """The question, what kind of program it wants, and the answer format."""
        return _POLICY_PROMPT.format(question=problem.prompt, kind=_kind(problem), format=_FORMAT)

    def repair_prompt(self, problem: Problem, failed: str, anchor: str) -> str:
        """The question, the failed text as draft, the anchor, and how to repair."""
        return _REPAIR_PROMPT.format(
            question=problem.prompt,
            kind=_kind(problem),
            failed=failed,
            anchor=anchor,
            format=_FORMAT,
        )

    def verify(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """Reward 1 where the last Python block passes every test; reasons are those of `sandbox.run`.

        "unparsable" without such a block. The same program for the same problem runs once.

        Raises:
          ValueError: different lengths.
        """
        programs = [fences.extract_code(text) for text in completions]
        pairs = list(zip([p.id for p in problems], programs, strict=True))
        tests = {p.id: p.meta["tests"] for p in problems}
        wanted = list(dict.fromkeys(pair for pair in pairs if pair[1] is not None))
        results = sandbox.run_many(
            [program for _, program in wanted],
            [tests[name] for name, _ in wanted],
            self._limits,
            workers=self._workers,
            require_isolation=self._require_isolation,
            batch_timeout_s=self._batch_timeout_s,
        )
        found = dict(zip(wanted, results, strict=True))
        verdicts = [_verdict(program, found.get((name, program))) for name, program in pairs]
        with self._lock:
            self._counts.update(verdict.reason for verdict in verdicts)
        return verdicts

    def metrics(self) -> dict[str, float]:
        """Share of each way to fail in the sandbox, of all verdicts since the last call; nothing without any."""
        with self._lock:
            counts, total = dict(self._counts), self._counts.total()
            self._counts.clear()
        return {f"verifier/{name}_frac": counts.get(name, 0) / total for name in _FAILURES if total}


def _verdict(program: str | None, result: sandbox.Result | None) -> Verdict:
    if result is None:
        return Verdict(0.0, None, "unparsable")
    if result.outcome == "passed":
        return Verdict(1.0, program, "correct")
    return Verdict(0.0, program, result.outcome)


def _kind(problem: Problem) -> str:
    name = problem.meta["tests"].function
    return _FUNCTION.format(name=name) if name else _STANDARD


def _entry(fields: Mapping[str, Any]) -> sources.Entry:
    asked = turns.read(fields, _QUESTIONS)
    if len(question := asked.text) < 2:  # "-": to be looked up elsewhere
        raise records.Unusable("the question is no text", repr(question))
    if fields.get("starter_code"):
        question += f"\nStart from:\n{fields['starter_code']}"
    solutions = _json(fields.get("solutions")) or [fields.get("solution")]
    solution = solutions[0] if isinstance(solutions, list) else None
    answer, reference = "", None
    if isinstance(solution, str) and solution.strip():
        answer = fences.extract_code(solution) or solution
        reference = f"```python\n{answer.strip()}\n```"
    try:
        tests = sandbox_tests.read_tests(tests_of(fields))
    except ValueError as error:
        raise records.Unusable("the tests cannot be read", str(error)) from error
    rate = sources.pass_rate(fields)
    return sources.Entry(question, answer, reference, rate, tests, messages=asked.before)


def tests_of(fields: Mapping[str, Any]) -> Any:
    """The tests of a record, in one of the forms of `sandbox_tests.read_tests`.

    | fields | data sets |
    | --- | --- |
    | `tests`, `input_output`: an object, or one as JSON text | APPS, TACO, and others in their form |
    | `public_test_cases`, `private_test_cases`: JSON text, or packed (`sandbox_tests.unpack`) | LiveCodeBench |
    | `public_tests`, `private_tests`, `generated_tests`: {"input": [...], "output": [...]} | CodeContests |
    | `official_tests`, `examples`: [{"input", "output"}, ...] | Codeforces of Open-R1 |

    OpenCodeReasoning asks the questions of these four, APPS, TACO, CodeContests and Codeforces, and has no tests of its
    own: they must be put beside its records.

    Raises:
      ValueError: none of these fields holds a test, or one cannot be read.
    """
    for field in ("tests", "input_output"):
        if fields.get(field):
            found = _json(fields[field])
            if isinstance(found, str):
                raise ValueError(f"{field} = {found!r:.80}: must be JSON")
            return found
    cases: list[Any] = []
    for field in _CASES:
        found = _json(fields.get(field) or [])
        if isinstance(found, str):
            try:
                found = sandbox_tests.unpack(found)
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from error
        if isinstance(found, Mapping):
            inputs, outputs = found.get("input") or [], found.get("output") or []
            if len(inputs) != len(outputs):
                raise ValueError(f"{field}: {len(inputs)} inputs and {len(outputs)} outputs")
            pairs = zip(inputs, outputs, strict=True)
            found = [{"input": one, "output": other} for one, other in pairs]
        if not isinstance(found, list):
            raise ValueError(f"{field} = {found!r:.80}: must be a list of tests")
        cases += found
    if not cases:
        raise ValueError(f"no tests: needs tests, input_output or {', '.join(_CASES)}")
    metadata = _json(fields.get("metadata") or {})
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    return {"tests": cases, "fn_name": name}


def _json(value: Any) -> Any:
    """The value, or what it says where it is JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
