"""Programming problems: the policy writes Python, and hidden tests decide.

Host side. Reads: one file of problems with their tests. Writes: nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_reason.tasks import records, schedule
from jaxrl_reason.types import Problem, Verdict
from jaxrl_reason.verify import sandbox, sandbox_tests

_FORMAT = "End with the whole program in one block that starts with ```python and ends with ```."

_POLICY_PROMPT = """Problem:
{question}
{kind}
Think first, one thought per line. {format}
Solution:
"""

_REPAIR_PROMPT = """Problem:
{question}
{kind}
Draft with a mistake:
{failed}
A worked example of the same problem:
{anchor}
Rewrite the draft so that it becomes right. Copy every part that is right word for word.
Change as little as possible. Do not mention the draft or the example. {format}
Solution:
"""

_STANDARD = "Write a Python program that reads standard input and prints the answer."
_FUNCTION = "Write Python that defines {name}, as a function or as a method of class Solution."

_QUESTIONS = ("question", "question_content", "problem", "prompt", "input")


class Code:
    """Programming problems from a file; the outcome is that of all tests, in a sandbox. A Task.

    A record has its question in `question`, `question_content`, `problem`, `prompt` or `input`; its tests in `tests`
    or `input_output` (an object, or one as JSON text: APPS, TACO, OpenCodeReasoning), or in `public_test_cases` and
    `private_test_cases` (LiveCodeBench, as JSON); further, where there is one, `starter_code`, and `solution` or the
    first of `solutions` as reference. `sandbox_tests.read_tests` says what tests look like.

    Args:
      path: JSONL or Parquet.
      limits: of each test.
      workers: programs that run at once, >= 1.
      batch_timeout_s: seconds for all programs of one call of `verify`; the rest is "timeout".
      require_isolation: as in `sandbox.run`.
      completion_tokens: budget of a completion in bytes, EOS included, >= 2.
    Raises:
      FileNotFoundError: no such file.
      ValueError: a bad record, named by file and line; no problem at all; or programs cannot be isolated here.
    """

    name = "code"
    tokenizer_name = "byte"
    step_separator = "\n"
    answer_marker = "```python"
    answer_cue = "Solution:\n"

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        limits: sandbox.Limits = sandbox.DEFAULT_LIMITS,
        workers: int = 2,
        batch_timeout_s: float = 600.0,
        require_isolation: bool = True,
        completion_tokens: int = 1024,
    ):
        self._problems = _read(os.fspath(path))
        if require_isolation:
            sandbox.check_isolation()  # before anything is trained
        self._limits, self._workers = limits, workers
        self._batch_timeout_s, self._require_isolation = batch_timeout_s, require_isolation
        self.completion_tokens = completion_tokens
        self.prompt_tokens = 1 + max(_bytes(self.policy_prompt(p)) for p in self._problems)
        frame = 1 + max(_bytes(self.repair_prompt(p, "", "")) for p in self._problems)
        references = [_bytes(p.reference) for p in self._problems if p.reference is not None]
        anchor = max([completion_tokens - 1, *references])
        self.repair_prompt_tokens = frame + completion_tokens + anchor

    @property
    def problems(self) -> Sequence[Problem]:
        """All problems, in the order of the file."""
        return self._problems

    def __len__(self) -> int:
        return len(self._problems)

    def batch(self, seed: int, update: int, num_problems: int, attempt: int = 0) -> list[Problem]:
        """The next problems of an endless sequence of shuffled epochs (`schedule.epoch_indices`)."""
        size = len(self._problems)
        chosen = schedule.epoch_indices(size, seed, update, num_problems, attempt)
        return [self._problems[i] for i in chosen]

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
        programs = [sandbox_tests.extract_code(text) for text in completions]
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
        return [_verdict(program, found.get((name, program))) for name, program in pairs]


def _verdict(program: str | None, result: sandbox.Result | None) -> Verdict:
    if result is None:
        return Verdict(0.0, None, "unparsable")
    if result.outcome == "passed":
        return Verdict(1.0, program, "correct")
    return Verdict(0.0, program, result.outcome)


def _kind(problem: Problem) -> str:
    name = problem.meta["tests"].function
    return _FUNCTION.format(name=name) if name else _STANDARD


def _read(path: str) -> list[Problem]:
    problems = []
    for record in records.read_records(path):
        try:
            problems.append(_problem(record.fields, record.number))
        except ValueError as error:
            raise ValueError(f"{path}, {record.place}: {error}") from error
    if not problems:
        raise ValueError(f"{path}: holds no problem; one JSON object per line is expected")
    return problems


def _problem(fields: Mapping[str, Any], number: int) -> Problem:
    question = next((fields[f] for f in _QUESTIONS if fields.get(f)), None)
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"question = {question!r:.80}: must be a text, in {', '.join(_QUESTIONS)}")
    question = question.strip()
    if fields.get("starter_code"):
        question += f"\nStart from:\n{fields['starter_code']}"
    solutions = _json(fields.get("solutions")) or [fields.get("solution")]
    solution = solutions[0] if isinstance(solutions, list) else None
    reference = f"```python\n{solution.strip()}\n```" if isinstance(solution, str) else None
    return Problem(
        id=f"code-{number}",
        prompt=question,
        answer=solution if isinstance(solution, str) else "",
        reference=reference,
        meta={"tests": sandbox_tests.read_tests(_tests(fields))},
    )


def _tests(fields: Mapping[str, Any]) -> Any:
    """The record's tests, in one of the forms of `read_tests`."""
    for field in ("tests", "input_output"):
        if fields.get(field):
            return _json(fields[field])
    cases = []
    for field in ("public_test_cases", "private_test_cases"):
        found = _json(fields.get(field) or [])
        if not isinstance(found, list):
            # LiveCodeBench packs some as a pickle, which runs code when it is opened.
            raise ValueError(
                f"{field}: must be a JSON list; unpack it with the data set's own tool"
            )
        cases += found
    if not cases:
        raise ValueError("no tests: needs tests, input_output or public_test_cases")
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


def _bytes(text: str) -> int:
    return len(text.encode())
