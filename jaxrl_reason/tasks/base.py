"""What a task must offer, and what it may offer on top.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from jaxrl_reason.types import Problem, Verdict


@runtime_checkable
class Task(Protocol):
    """Problems, their prompts and their outcome check; no state: resuming needs one integer.

    Token counts are those of the tokenizer called `tokenizer_name`
    (`models.tokenizer.make_tokenizer`).
    """

    name: str
    tokenizer_name: str  # arithmetic | byte
    step_separator: str  # text that ends a reasoning step, or a rule of `verify.step_rules`
    answer_marker: str  # text that starts the answer span
    prompt_tokens: int  # longest policy prompt, BOS included
    completion_tokens: int  # longest completion, EOS included
    repair_prompt_tokens: int  # longest repair prompt, BOS included

    def batch(self, seed: int, update: int, num_problems: int, attempt: int = 0) -> list[Problem]:
        """Problems of one update; a pure function of its arguments. `attempt` counts refills."""
        ...

    def policy_prompt(self, problem: Problem) -> str:
        """Prompt under which the policy solves the problem."""
        ...

    def repair_prompt(self, problem: Problem, failed: str, anchor: str) -> str:
        """Prompt under which the policy repairs `failed`, shown one correct solution as anchor."""
        ...

    def verify(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """Outcome of each completion: looks at the final answer alone."""
        ...


@runtime_checkable
class HoldsOut(Protocol):
    """Tasks that keep some problems for evaluation."""

    held_out: Task  # asks those problems alone, within the same token budgets


@runtime_checkable
class StepOracle(Protocol):
    """Tasks that can judge every step exactly."""

    def first_error(self, problem: Problem, completion: str) -> int:
        """0-indexed first wrong step; the answer part is the last step; -1: all right."""
        ...


@runtime_checkable
class Demonstrator(Protocol):
    """Tasks that can cold-start a policy without any data set."""

    def demonstrate(self, problem: Problem, rng: np.random.Generator) -> str:
        """A correct solution, drawn at random among many."""
        ...

    def corrupt(self, problem: Problem, derivation: str, rng: np.random.Generator) -> str:
        """A solution with a wrong answer: `derivation` with a mistake, carried on faithfully."""
        ...

    def repair(self, problem: Problem, failed: str, rng: np.random.Generator) -> str:
        """A correct solution that keeps all of `failed` that can be kept."""
        ...
