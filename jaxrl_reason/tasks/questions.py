"""A task whose problems are questions in words, from a file, each with one gold answer.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxrl_reason.tasks import schedule, sources
from jaxrl_reason.tasks.checking import Checker
from jaxrl_reason.tasks.copies import Chosen
from jaxrl_reason.types import Problem, Verdict

Fits = Callable[[Any, Sequence[Problem]], list[bool]]

ANSWER_CUE = "Solution:\n"  # for a base model, which goes on from it; a chat has no need of it


class Prompts(NamedTuple):
    """Templates with {question}, the second also with {failed} and {anchor}; both end with ANSWER_CUE."""

    policy: str
    repair: str


class Questions:
    """Questions and answers, asked in shuffled epochs. A Task.

    Attributes:
      held_out: what evaluation asks: other questions than this task, or this task itself.
      parse: a record of the task's data sets to an Entry.

    Args:
      name: of the task.
      prompts: their templates; only {question}, {failed} and {anchor} are filled in.
      step_separator: text that ends a step.
      answer_marker: text that starts the answer.
      loaded: problems to train on and to evaluate on.
      completion_tokens: budget of a completion in bytes, EOS included, >= 2.
      check: compares answers; None: in this process.
    Raises:
      ValueError: completion_tokens is too small.
    """

    tokenizer_name = "byte"
    answer_cue = ANSWER_CUE

    def __init__(
        self,
        name: str,
        prompts: Prompts,
        *,
        step_separator: str,
        answer_marker: str,
        loaded: sources.Loaded,
        completion_tokens: int,
        check: Checker | None,
    ):
        if completion_tokens < 2:
            raise ValueError(
                f"completion_tokens = {completion_tokens}: must be >= 2, one of them EOS"
            )
        self.name, self._prompts = name, prompts
        self.step_separator, self.answer_marker = step_separator, answer_marker
        self.completion_tokens = completion_tokens
        self.parse = loaded.parse
        self._check, self._where = check or Checker(), loaded.where
        self._ask(loaded.problems, loaded.held_out)

    def _ask(self, problems: Sequence[Problem], held_out: Sequence[Problem] | None) -> None:
        self._problems = problems
        # BOS and one token per byte. Failed and anchor texts are completions: at most
        # completion_tokens - 1 bytes and EOS, or no EOS where the failed one ran out of budget. A
        # reference solution taken as anchor is not bound by the budget.
        self.prompt_tokens = frame = 1
        anchor = self.completion_tokens - 1
        for problem in itertools.chain(problems, held_out or ()):
            # A turn before the question stands behind its role, and before an empty line.
            turns = problem.meta.get("messages", ())
            before = sum(_bytes(m["role"] + m["content"]) + 4 for m in turns)
            size = 1 + before + _bytes(self.policy_prompt(problem))
            self.prompt_tokens = max(self.prompt_tokens, size)
            frame = max(frame, 1 + before + _bytes(self.repair_prompt(problem, "", "")))
            anchor = max(anchor, _bytes(problem.reference or ""))
        self.repair_prompt_tokens = frame + self.completion_tokens + anchor
        self.held_out = self
        if held_out is not None:
            self.held_out = copy.copy(self)
            self.held_out._problems = held_out
            self.held_out.held_out = self.held_out

    @property
    def problems(self) -> list[Problem]:
        """All problems, those of the evaluation file too, in the order of the files."""
        held_out = () if self.held_out is self else self.held_out._problems
        return [*self._problems, *held_out]

    @property
    def trained(self) -> Sequence[Problem]:
        """All problems to train on."""
        return self._problems

    @property
    def note(self) -> str:
        """What evaluation is on, in a line."""
        return f"evaluating on {len(self.held_out)} {self._where}"

    def __len__(self) -> int:
        return len(self._problems)

    def fitting(self, fits: Fits) -> Questions:
        """The task without the problems that do not fit, in training and in evaluation.

        Args:
          fits: (task, problems) -> whether each of them fits.
        Returns:
          A task; it may have no problem left.
        """
        task, held_out = copy.copy(self), None
        if self.held_out is not self:
            held_out = _those(self.held_out._problems, fits(self, self.held_out._problems))
        task._ask(_those(self._problems, fits(self, self._problems)), held_out)
        return task

    def batch(self, seed: int, update: int, num_problems: int, attempt: int = 0) -> list[Problem]:
        """Problems update * num_problems, ... of an endless sequence of shuffled epochs (`schedule.epoch_indices`).

        Args:
          seed, update, attempt, num_problems: int >= 0.
        Returns:
          num_problems problems, none twice unless there are fewer; a pure function of the arguments and the file.
        """
        chosen = schedule.epoch_indices(len(self), seed, update, num_problems, attempt)
        return [self._problems[i] for i in chosen]

    def policy_prompt(self, problem: Problem) -> str:
        """The question with the answer format."""
        return self._prompts.policy.format(question=problem.prompt)

    def repair_prompt(self, problem: Problem, failed: str, anchor: str) -> str:
        """The question, the failed text as draft, the anchor, and how to repair."""
        return self._prompts.repair.format(question=problem.prompt, failed=failed, anchor=anchor)

    def verify(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """Exact comparison of the final answer (`verify.answers`), one verdict per completion.

        Raises:
          ValueError: different lengths.
        """
        pairs = zip(completions, problems, strict=True)
        return self._check([(text, problem.answer) for text, problem in pairs])

    def metrics(self) -> dict[str, float]:
        """What the verifier has counted since the last call."""
        return self._check.metrics()


def _those(problems: Sequence[Problem], keep: Sequence[bool]) -> Sequence[Problem]:
    return problems if all(keep) else Chosen(problems, [i for i, kept in enumerate(keep) if kept])


def _bytes(text: str) -> int:
    return len(text.encode())
