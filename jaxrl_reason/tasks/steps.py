"""Next steps of expert solutions: each problem asks for one step, given those before it.

Host side. Reads: nothing. Writes: nothing. Source of the cut: SRL, arXiv 2510.25992 section 3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_reason.tasks import base
from jaxrl_reason.types import Problem, Verdict
from jaxrl_reason.verify import similarity, step_rules

_THINK = (
    "\nThink first, as freely as you like, between <think> and </think>."
    " Then write the next step of this solution, and nothing behind it.\n"
)


class Instance(NamedTuple):
    """One cut of a solution."""

    given: str  # text up to and with the separator before the step; "" before the first
    step: str  # the expert's step, stripped


def instances(solution: str, separator: str, *, first: bool, last: bool) -> list[Instance]:
    """All cuts of a solution of N steps: N - 1 with one end included, as in the paper.

    Args:
      solution: a right solution.
      separator: text that ends a step, or a rule of `verify.step_rules` that is about texts.
      first: the first step may be asked for, with nothing given.
      last: the last step may be asked for. The paper's formula includes the first and leaves the last out.
    Returns:
      Instances in order; empty steps are left out.
    Example:
      >>> instances("1 5 2 ; 1 7 ; 8 ; = 8", ";", first=False, last=False)
      [Instance(given='1 5 2 ;', step='1 7'), Instance(given='1 5 2 ; 1 7 ;', step='8')]
    """
    ends = [*step_rules.ends(solution, separator), len(solution)]
    cuts = []
    for start, end in zip([0, *ends], ends, strict=False):
        step = solution[start:end].removesuffix(step_rules.shown(separator)).strip()
        cuts.append(Instance(solution[:start], step))
    return _chosen(cuts, first=first, last=last)


def of_steps(parts: Sequence[str], separator: str, *, first: bool, last: bool) -> list[Instance]:
    """`instances` of a solution that comes in steps, which may hold separators themselves.

    Example:
      >>> of_steps(["a;b", "c"], ";", first=True, last=True)
      [Instance(given='', step='a;b'), Instance(given='a;b;', step='c')]
    """
    cuts, given = [], ""
    for part in parts:
        cuts.append(Instance(given, part.strip()))
        given += part + step_rules.shown(separator)
    return _chosen(cuts, first=first, last=last)


def _chosen(cuts: Sequence[Instance], *, first: bool, last: bool) -> list[Instance]:
    cuts = [cut for cut in cuts if cut.step]
    return cuts[0 if first else 1 : len(cuts) if last else -1]


class Steps:
    """A task whose problems are single steps of another task's solutions. A Task.

    The expert solution is the problem's reference, in the steps of its record where it has them (TRL's stepwise form),
    or, without one, a demonstration of the task.

    Args:
      whole: the other task; evaluation stays with it.
      first, last: see `instances`.
      think: the completion is a <think> block and the step, and the prompt says so.
      stop_at_separator: the step ends at the first separator, whatever follows: for policies that write whole
        solutions. Otherwise the completion is the step.
    Example:
      >>> from jaxrl_reason.tasks import arithmetic
      >>> task = Steps(arithmetic.Arithmetic(length=3), first=True, last=False, think=False, stop_at_separator=True)
      >>> (problem,) = task.batch(0, 1, 1)
      >>> task.policy_prompt(problem), problem.answer
      ('solve 4 9 9 : 3 9 ;', '2')
    """

    def __init__(
        self, whole: base.Task, *, first: bool, last: bool, think: bool, stop_at_separator: bool
    ):
        self.whole = whole
        self.first, self.last, self.think = first, last, think
        self.stop_at_separator = stop_at_separator
        self.name = f"{whole.name}_steps"
        self.tokenizer_name = whole.tokenizer_name
        self.step_separator, self.answer_marker = whole.step_separator, whole.answer_marker
        self.answer_cue = getattr(whole, "answer_cue", "")
        # Evaluation on whole problems goes through the same sampler, so that its budget must hold them.
        self.completion_tokens = whole.completion_tokens
        # A solution from a file is not bound by the budget of completions.
        given = max(
            (len(p.reference.encode()) for p in getattr(whole, "problems", ()) if p.reference),
            default=0,
        )
        self.prompt_tokens = whole.prompt_tokens + max(whole.completion_tokens, given)
        self.prompt_tokens += len(_THINK.encode()) if think else 0
        self.repair_prompt_tokens = whole.repair_prompt_tokens
        self._allowed: dict[str, int] = {}  # most characters that may be given, where not all may

    def batch(self, seed: int, update: int, num_problems: int, attempt: int = 0) -> list[Problem]:
        """One step of each problem of the other task's batch, uniformly; a pure function of its arguments.

        A solution that has no step to ask for gives its place to the next one that has.

        Raises:
          ValueError: no solution of the batch has one, or there is no expert.
        """
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(update, attempt, 1)))
        cut = []
        for problem in self.whole.batch(seed, update, num_problems, attempt):
            if found := self._cuts(problem, rng):
                cut.append((problem, found))
        if num_problems and not cut:
            raise ValueError(
                f"{self.whole.name}: none of {num_problems} problems has a solution with a step to ask for;"
                " set task.first_step or task.last_step, or choose a data set with solutions"
            )
        problems = []
        for i in range(num_problems):
            problem, found = cut[i % len(cut)]
            number = int(rng.integers(len(found)))
            name = f"{problem.id}-step-{number}-{i // len(cut)}"
            problems.append(self._asking(problem, found[number], name))
        return problems

    def _asking(self, problem: Problem, instance: Instance, name: str = "") -> Problem:
        meta = {"given": instance.given, "whole": problem, "separator": self.step_separator}
        if "messages" in problem.meta:
            meta["messages"] = problem.meta["messages"]
        return Problem(name, problem.prompt, instance.step, meta=meta)

    def _cuts(self, problem: Problem, rng: np.random.Generator) -> list[Instance]:
        """Steps of a problem that may be asked for; none of one without a solution."""
        ends = {"first": self.first, "last": self.last}
        if "steps" in problem.meta:
            found = of_steps(problem.meta["steps"], self.step_separator, **ends)
        elif problem.reference is not None:
            found = instances(problem.reference, self.step_separator, **ends)
        elif isinstance(self.whole, base.Demonstrator):
            found = instances(self.whole.demonstrate(problem, rng), self.step_separator, **ends)
        else:
            return []
        allowed = self._allowed.get(problem.id)
        return found if allowed is None else [cut for cut in found if len(cut.given) <= allowed]

    def fitting(self, fits: Callable[[Any, Sequence[Problem]], list[bool]]) -> Steps:
        """The task without the problems, and without the steps of the others, that do not fit (`Questions.fitting`)."""
        if not hasattr(self.whole, "fitting"):
            return self
        task = copy.copy(self)
        task.whole, task._allowed = self.whole.fitting(fits), {}
        rng = np.random.default_rng(0)  # solutions of a file are drawn by nothing
        for problem in task.whole.problems:
            cuts = self._cuts(problem, rng)
            kept = fits(task, [self._asking(problem, cut) for cut in cuts])
            if not all(kept):
                task._allowed[problem.id] = max(
                    (len(c.given) for c, k in zip(cuts, kept, strict=True) if k), default=-1
                )
        return task

    def policy_prompt(self, problem: Problem) -> str:
        """The other task's prompt with the given steps behind it, as if the policy had written them."""
        prompt = self.whole.policy_prompt(problem.meta["whole"])
        given = problem.meta["given"]
        if given and not prompt[-1:].isspace():
            given = f" {given}"
        return prompt + given + (_THINK if self.think else "")

    def chat_policy_prompt(self, problem: Problem) -> str:
        """The other task's prompt for a chat, the given steps, and what is wanted next."""
        whole = self.whole
        prompt = getattr(whole, "chat_policy_prompt", whole.policy_prompt)(problem.meta["whole"])
        prompt = prompt.removesuffix(getattr(whole, "answer_cue", "")).rstrip()
        given = problem.meta["given"].strip()
        if given:
            prompt += f"\nThe solution so far:\n{given}"
        return (
            prompt + (_THINK if self.think else "\nWrite the next step of the solution.").rstrip()
        )

    def repair_prompt(self, problem: Problem, failed: str, anchor: str) -> str:
        """That of the other task."""
        return self.whole.repair_prompt(problem.meta["whole"], failed, anchor)

    def verify(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """Reward: similarity of the written step to the expert's; 0 and `unparsable` where the format is wrong.

        Raises:
          ValueError: different lengths.
        """
        separator = self.step_separator if self.stop_at_separator else None
        verdicts = []
        for problem, text in zip(problems, completions, strict=True):
            step = similarity.written_step(text, think=self.think, separator=separator)
            if step is None:
                verdicts.append(Verdict(0.0, None, "unparsable"))
                continue
            reward = similarity.similarity(step, problem.answer)
            verdicts.append(Verdict(reward, step, "correct" if reward == 1 else "wrong"))
        return verdicts
