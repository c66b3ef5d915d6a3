"""Countdown and the game of 24: make a target of given numbers with + - * / and brackets.

Host side. Reads: nothing. Writes: nothing.

A completion is a derivation, one merge of two numbers per line, and the expression that it amounts to:

    8 - 3 = 5
    5 * 5 = 25
    #### (8 - 3) * 5

Every problem has a solution by construction (Countdown) or by search (24). One problem in eight is asked in evaluation
alone: which ones, a hash of the sorted numbers and the target decides.
"""

from __future__ import annotations

import collections
import copy
import functools
import hashlib
import operator
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from jaxrl_reason.tasks import questions
from jaxrl_reason.types import Problem, Verdict
from jaxrl_reason.verify import answers, expressions

_OPERATIONS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else None,
}
_NUMBER = r"(-?\d{1,9}(?:/\d{1,9})?)"
_MERGE = re.compile(rf"\s*{_NUMBER}\s*([-+*/])\s*{_NUMBER}\s*=\s*{_NUMBER}\s*")
_HELD_OUT = 8  # one problem in so many

_POLICY_PROMPT = """Numbers: {numbers}. Target: {target}.
Make the target from the numbers with + - * / and brackets. {rule}
Combine two numbers per line, such as "2 + 3 = 5"; results may be combined in later lines.
End with a line that says "#### " and the whole expression, nothing else.
{cue}"""

_REPAIR_PROMPT = """Numbers: {numbers}. Target: {target}. {rule}
Draft with a mistake:
{failed}
Another solution:
{anchor}
Rewrite the draft so that it becomes right. Copy every line that is right word for word.
Change as little as possible. Do not mention the draft or the other solution.
End with a line that says "#### " and the whole expression, nothing else.
{cue}"""

_RULES = {
    True: "Use each number exactly once.",
    False: "Use each number at most once.",
}


class Merge(NamedTuple):
    """Two numbers become one."""

    left: Fraction
    sign: str
    right: Fraction
    result: Fraction


class Countdown:
    """Numbers and a target. A Task and a StepOracle.

    Attributes:
      held_out: the same task, asking only the problems that training never asks.

    Args:
      numbers: how many, 3..5.
      largest: they are uniform in 1..largest, 2..999.
      max_target: targets are in 1..max_target, 1..9999.
      use_all: each number must be used exactly once; otherwise at most once.
      target: the one target of all problems, whose numbers are then uniform among those that can make it; 0: the
        outcome of merging the numbers at random, all results whole and positive.
      name: of the task.
    Raises:
      ValueError: a setting outside its range.
    Example:
      >>> task = Countdown(numbers=3)
      >>> problem = Problem(id="p", prompt="3 5 8 -> 25", answer="25")
      >>> task.verify([problem], ["8 - 3 = 5 \\n #### 5 * (8 - 3)"])[0].reason
      'correct'
      >>> task.first_error(problem, "8 - 5 = 3")  # true, but no way leads from 3 and 3 to 25
      0
    """

    tokenizer_name = "byte"
    step_separator = "\n"
    answer_marker = "####"
    answer_cue = questions.ANSWER_CUE

    def __init__(
        self,
        numbers: int = 4,
        largest: int = 25,
        max_target: int = 100,
        *,
        use_all: bool = True,
        target: int = 0,
        name: str = "countdown",
    ):
        for field, value, low, high in (
            ("numbers", numbers, 3, 5),
            ("largest", largest, 2, 999),
            ("max_target", max_target, 1, 9999),
            ("target", target, 0, max_target),
        ):
            if not low <= value <= high:
                raise ValueError(f"{field} = {value}: must be in [{low}, {high}]")
        self.name = name
        self.numbers, self.largest, self.max_target = numbers, largest, max_target
        self.use_all, self.target = use_all, target
        self._asks_held_out = False
        # BOS and one token per byte. Intermediate results are bounded by the largest product or fraction of the
        # reference solutions; a policy's own may be longer, and are cut by the budget as all texts are.
        digits, most = len(str(largest)), len(str(max_target))
        widest = Problem("", f"{' '.join(['9' * digits] * numbers)} -> {'9' * most}", "")
        merge = 3 * (2 * digits * numbers) + 7
        expression = digits * numbers + 5 * (numbers - 1) + 5
        self.completion_tokens = (numbers - 1) * merge + expression + 1
        self.prompt_tokens = 1 + len(self.policy_prompt(widest))
        self.repair_prompt_tokens = (
            1 + len(self.repair_prompt(widest, "", "")) + 2 * self.completion_tokens - 1
        )
        self.held_out = copy.copy(self)
        self.held_out._asks_held_out = True
        self.held_out.held_out = self.held_out

    def batch(self, seed: int, update: int, num_problems: int, attempt: int = 0) -> list[Problem]:
        """Problems of (seed, update, attempt); fewer problems are a prefix of more.

        Args:
          seed, update, attempt, num_problems: int >= 0.
        Returns:
          Problems with `reference`, a derivation; prompt "3 5 8 -> 25", answer "25".
        """
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(update, attempt)))
        problems = []
        while len(problems) < num_problems:
            numbers = tuple(rng.integers(1, self.largest + 1, size=self.numbers).tolist())
            if self.target and self._is_other_side(numbers, self.target):
                continue  # before the search for a solution, which takes its time
            merges = self._derivation(numbers, rng)
            if merges is None:
                continue
            target = int(merges[-1].result)
            if target > self.max_target or self._is_other_side(numbers, target):
                continue
            problems.append(
                Problem(
                    id=f"{self.name}-{seed}-{update}-{attempt}-{len(problems)}",
                    prompt=f"{' '.join(map(str, numbers))} -> {target}",
                    answer=str(target),
                    reference=solution_text(numbers, merges),
                )
            )
        return problems

    def _derivation(self, numbers: tuple[int, ...], rng: np.random.Generator) -> list[Merge] | None:
        if self.target:
            found = derive(tuple(sorted(map(Fraction, numbers))), self.target, self.use_all)
            return None if found is None else list(found)
        values, merges = list(map(Fraction, numbers)), []
        fewest = 1 if self.use_all else 1 + int(rng.integers(self.numbers - 1))
        while len(values) > fewest:
            i, j = rng.permutation(len(values))[:2].tolist()
            signs = [s for s in _OPERATIONS if _playable(_OPERATIONS[s](values[i], values[j]))]
            sign = signs[int(rng.integers(len(signs)))]  # a sum can always be played
            merges.append(
                Merge(values[i], sign, values[j], _OPERATIONS[sign](values[i], values[j]))
            )
            values = [v for k, v in enumerate(values) if k not in (i, j)] + [merges[-1].result]
        # Only what leads to the last result belongs to the derivation.
        return merges if self.use_all else _needed(merges)

    def _is_other_side(self, numbers: tuple[int, ...], target: int) -> bool:
        key = f"{sorted(numbers)} {target}".encode()
        held_out = hashlib.sha256(key).digest()[0] % _HELD_OUT == 0
        return held_out != self._asks_held_out

    def policy_prompt(self, problem: Problem) -> str:
        """Numbers, target, rule and format."""
        numbers, target = problem.prompt.split(" -> ")
        rule = _RULES[self.use_all]
        return _POLICY_PROMPT.format(numbers=numbers, target=target, rule=rule, cue=self.answer_cue)

    def repair_prompt(self, problem: Problem, failed: str, anchor: str) -> str:
        """Numbers, target, the failed text as draft, the anchor, and how to repair."""
        numbers, target = problem.prompt.split(" -> ")
        rule = _RULES[self.use_all]
        return _REPAIR_PROMPT.format(
            numbers=numbers,
            target=target,
            rule=rule,
            failed=failed,
            anchor=anchor,
            cue=self.answer_cue,
        )

    def verify(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        r"""Reward 1 if the expression behind "####" (or in \boxed{}) makes the target of the numbers as told.

        Sizes are bounded before anything is computed, so hostile text costs no more than other text.

        Raises:
          ValueError: different lengths.
        """
        verdicts = []
        for problem, text in zip(problems, completions, strict=True):
            numbers, target = read_problem(problem)
            answer = answers.final_answer(text)
            reason = "unparsable"
            if answer is not None:
                reason = expressions.judge(answer, numbers, target, use_all=self.use_all)
            if reason == "unparsable":
                answer = None
            verdicts.append(Verdict(float(reason == "correct"), answer, reason))
        return verdicts

    def first_error(self, problem: Problem, completion: str) -> int:
        """First line that is no right merge of two numbers at hand, or after which no way leads to the target.

        Strict: a line in words is an error too. Blank lines are none.

        Args:
          problem: one of this task.
          completion: any text.
        Returns:
          Line, from 0; the line with "####" and all that follows is the last step; -1: all right.
        """
        numbers, target = read_problem(problem)
        hand = collections.Counter(map(Fraction, numbers))
        lines = completion.split("\n")
        for step, line in enumerate(lines):
            if self.answer_marker in line:
                rest = "\n".join(lines[step:])
                right = line.lstrip().startswith(self.answer_marker)
                right = right and self.verify([problem], [rest])[0].reason == "correct"
                return -1 if right else step
            if not line.strip():
                continue
            merge = _read_merge(line)
            if merge is None or not _play(hand, merge):
                return step
            if derive(tuple(sorted(hand.elements())), target, self.use_all) is None:
                return step
        return len(lines)


def game24() -> Countdown:
    """The game of 24: four numbers of 1..13, each used exactly once.

    Example:
      >>> game24().batch(0, 0, 1)[0].prompt
      '12 10 6 11 -> 24'
    """
    return Countdown(4, 13, 24, target=24, name="game24")


def read_problem(problem: Problem) -> tuple[list[int], int]:
    """Numbers and target of a problem's prompt.

    Raises:
      ValueError: no such prompt.
    """
    numbers, arrow, target = problem.prompt.partition(" -> ")
    try:
        return [int(n) for n in numbers.split()], int(target)
    except ValueError:
        raise ValueError(
            f"problem {problem.id}: {problem.prompt[:80]!r} is no list of numbers with a target, such as '3 5 8 -> 25'"
        ) from None


@functools.lru_cache(maxsize=100_000)
def derive(hand: tuple[Fraction, ...], target: int, use_all: bool) -> tuple[Merge, ...] | None:
    """Merges that make the target of the numbers, by depth-first search; None where there are none.

    Args:
      hand: sorted numbers, at most five or so: the search takes milliseconds with four, half a second with five.
      target: what must come out.
      use_all: of all numbers; otherwise some may be left over.
    Returns:
      Merges in order; empty where the target is there already.
    Example:
      >>> [str(m.result) for m in derive((Fraction(3), Fraction(3), Fraction(8), Fraction(8)), 24, True)]
      ['8/3', '1/3', '24']
    """
    if target in hand and (len(hand) == 1 or not use_all):
        return ()
    seen = set()
    for i in range(len(hand)):
        for j in range(i + 1, len(hand)):
            if (hand[i], hand[j]) in seen:
                continue
            seen.add((hand[i], hand[j]))
            rest = hand[:i] + hand[i + 1 : j] + hand[j + 1 :]
            for merge in _merges(hand[i], hand[j]):
                if not rest and merge.result != target:
                    continue
                found = derive(tuple(sorted((*rest, merge.result))), target, use_all)
                if found is not None:
                    return (merge, *found)
    return None


def _merges(low: Fraction, high: Fraction) -> list[Merge]:
    found = [Merge(low, "+", high, low + high), Merge(low, "*", high, low * high)]
    for left, right in ((high, low), (low, high)):
        found.append(Merge(left, "-", right, left - right))
        if right:
            found.append(Merge(left, "/", right, left / right))
    return found


def solution_text(numbers: Sequence[int], merges: Sequence[Merge]) -> str:
    """Merges as lines, then the expression that they amount to.

    Example:
      >>> solution_text([3, 8], [Merge(Fraction(8), "-", Fraction(3), Fraction(5))])
      '8 - 3 = 5\\n#### 8 - 3'
    """
    hand = [(Fraction(n), str(n)) for n in numbers]
    lines = []
    for left, sign, right, result in merges:
        texts = []
        for value in (left, right):
            place = next(i for i, (v, _) in enumerate(hand) if v == value)
            text = hand.pop(place)[1]
            texts.append(text if text.isdigit() else f"({text})")
        hand.append((result, f"{texts[0]} {sign} {texts[1]}"))
        lines.append(f"{left} {sign} {right} = {result}")
    last = hand[-1][1] if merges else hand[0][1]
    return "\n".join([*lines, f"#### {last}"])


def _playable(result: Fraction | None) -> bool:
    return result is not None and result > 0 and result.denominator == 1


def _needed(merges: list[Merge]) -> list[Merge]:
    """The merges without which the last one could not be played, in order."""
    needed, wanted = [], collections.Counter()
    for merge in reversed(merges):
        if not needed or wanted[merge.result]:
            wanted[merge.result] -= bool(needed)
            wanted.update((merge.left, merge.right))
            needed.append(merge)
    return needed[::-1]


def _read_merge(line: str) -> Merge | None:
    match = _MERGE.fullmatch(line)
    try:
        left, right, result = (Fraction(match[i]) for i in (1, 3, 4)) if match else (None,) * 3
    except ZeroDivisionError:
        return None
    if match is None or _OPERATIONS[match[2]](left, right) != result:
        return None
    return Merge(left, match[2], right, result)


def _play(hand: collections.Counter, merge: Merge) -> bool:
    """Take the merged numbers from the hand and add their result; False where they are not there."""
    taken = collections.Counter((merge.left, merge.right))
    if not taken <= hand:
        return False
    hand.subtract(taken)
    hand[merge.result] += 1
    return True
