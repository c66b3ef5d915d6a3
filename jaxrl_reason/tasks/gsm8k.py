"""Grade-school maths in the GSM8K layout: word problems with one number as answer.

Host side. Reads: one JSONL file with `question` and `answer` per line. Writes: nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence

import numpy as np

from jaxrl_reason.types import Problem, Verdict
from jaxrl_reason.verify import answers

_ANNOTATION = re.compile(r"<<[^<>]*>>")

_FORMAT = 'End with a line that says "#### " and the final number, nothing else.'
_CUE = "Solution:\n"  # for a base model, which goes on from it; a chat has no need of it

_POLICY_PROMPT = """Question: {question}
Think step by step, one step per line. {format}
{cue}"""

_REPAIR_PROMPT = """Question: {question}
Draft with a mistake:
{failed}
A worked example of the same question:
{anchor}
Rewrite the draft so that it becomes right. Copy every part that is right word for word.
Change as little as possible. Do not mention the draft or the example. {format}
{cue}"""


class Gsm8k:
    """Word problems from a JSONL file; the outcome is the number after "####". A Task.

    Args:
      path: JSONL; `answer` is a solution with optional `<<48/2=24>>` annotations, then "#### 42".
      completion_tokens: budget of a completion in bytes, EOS included, >= 2.
    Raises:
      FileNotFoundError: no such file.
      ValueError: a bad line, named by file and number; or no problem at all.
    Source: arXiv 2110.14168; differs: annotations are removed, and answers are compared as exact
    fractions.
    """

    name = "gsm8k"
    tokenizer_name = "byte"
    step_separator = "\n"
    answer_marker = "####"
    answer_cue = _CUE

    def __init__(self, path: str | os.PathLike, *, completion_tokens: int = 256):
        if completion_tokens < 2:
            raise ValueError(
                f"completion_tokens = {completion_tokens}: must be >= 2, one of them EOS"
            )
        self._problems = _read(os.fspath(path))
        self.completion_tokens = completion_tokens
        # BOS and one token per byte. Failed and anchor texts are completions: at most
        # completion_tokens - 1 bytes and EOS, or no EOS where the failed one ran out of budget. A
        # reference solution taken as anchor is not bound by the budget.
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
        """Problems update * num_problems, ... of an endless sequence of shuffled epochs.

        For each (seed, attempt) there is one sequence: with a constant `num_problems`, the batches
        of updates 0, 1, ... meet every problem once before any comes again. Refills (attempt 1, 2,
        ...) walk through sequences of their own, so that they take nothing from later updates.

        Args:
          seed, update, attempt, num_problems: int >= 0.
        Returns:
          num_problems problems; a pure function of the arguments and the file.
        """
        size = len(self._problems)
        chosen, epoch, order = [], -1, np.zeros(0, int)
        for position in range(update * num_problems, (update + 1) * num_problems):
            if position // size != epoch:
                epoch = position // size
                stream = np.random.SeedSequence(seed, spawn_key=(epoch, attempt))
                order = np.random.default_rng(stream).permutation(size)
            chosen.append(self._problems[order[position % size]])
        return chosen

    def policy_prompt(self, problem: Problem) -> str:
        """The question with the answer format."""
        return _POLICY_PROMPT.format(question=problem.prompt, format=_FORMAT, cue=_CUE)

    def repair_prompt(self, problem: Problem, failed: str, anchor: str) -> str:
        """The question, the failed text as draft, the anchor, and how to repair."""
        return _REPAIR_PROMPT.format(
            question=problem.prompt, failed=failed, anchor=anchor, format=_FORMAT, cue=_CUE
        )

    def verify(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """Exact comparison of the final number (`verify.answers`), one verdict per completion.

        Raises:
          ValueError: different lengths.
        """
        pairs = zip(problems, completions, strict=True)
        return [answers.verify_answer(text, problem.answer) for problem, text in pairs]


def _read(path: str) -> list[Problem]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file; set task.path to a JSONL file of problems")
    problems = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    problems.append(_problem(line, number))
                except ValueError as error:  # JSON and UTF-8 errors are ValueErrors too
                    raise ValueError(f"{path}, line {number}: {error}") from error
    if not problems:
        raise ValueError(f"{path}: holds no problem; one JSON object per line is expected")
    return problems


def _problem(line: bytes, number: int) -> Problem:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"a {type(record).__name__}; must be an object with question and answer")
    for field in ("question", "answer"):
        if not isinstance(record.get(field), str) or not record[field].strip():
            raise ValueError(
                f"field {field} = {record.get(field)!r}: must be a text that is not empty"
            )
    solution, marker, gold = record["answer"].rpartition("####")
    gold = gold.strip()
    if not marker or answers.parse_number(gold) is None:
        raise ValueError(
            f'answer ends in {record["answer"][-40:]!r}: must end in "#### " and one number'
        )
    solution = _ANNOTATION.sub("", solution).strip()
    return Problem(
        id=f"gsm8k-{number}",
        prompt=record["question"].strip(),
        answer=gold,
        reference=f"{solution}\n#### {gold}" if solution else f"#### {gold}",
    )


def _bytes(text: str) -> int:
    return len(text.encode())
