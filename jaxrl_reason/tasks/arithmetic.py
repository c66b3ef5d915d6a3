"""List reduction modulo m: merge adjacent numbers until one is left; each step can be checked.

Host side. Reads: nothing. Writes: nothing.

A problem "3 8 5 2" (modulo 10) has many right solutions, one per order of merges; one of them is

    1 5 2 ; 1 7 ; 8 ; = 8

Many valid derivations are the point: a repair that copies another solution is then far from the failed text, so that
keeping what was right and copying can be told apart.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxrl_reason.types import Problem, Verdict

_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_INTEGER = re.compile(r"-?[0-9]{1,100}")


_CHAT_FORM = (
    'End each step with " ; ", and behind the last one write "= " and the number, nothing else: for 3 8 5 2 modulo 10'
    ' that is "1 5 2 ; 1 7 ; 8 ; = 8".'
)


class _Line(NamedTuple):
    """A list on its way to one number; `operators[i]` stands between numbers i and i + 1."""

    numbers: tuple[int, ...]
    operators: str


def legal_merges(operators: str) -> list[int]:
    """Positions whose operands may be merged with the value kept, whatever the numbers are.

    A product may always be merged: nothing binds tighter, and products are associative. A sum or
    difference may be merged unless an operand belongs to a product beside it, or a minus sign
    stands before it: a - b + c is not a - (b + c). With a plus before it, a + (b - c) is a + b - c.

    Args:
      operators: text over "+-*", one character per gap between numbers.
    Returns:
      Increasing positions in 0..len(operators) - 1; never empty unless `operators` is.
    Example:
      >>> legal_merges("-+*")  # in a - b + c * d: a - b is free of products, c * d is a product
      [0, 2]
    """
    legal = []
    padded = f"+{operators}+"  # a plus at either end forbids nothing
    for i, sign in enumerate(operators):
        before, after = padded[i], padded[i + 2]
        if sign == "*" or (before == "+" and after != "*"):
            legal.append(i)
    return legal


class Arithmetic:
    """Reduce a list modulo m, one merge per step. A Task, a StepOracle and a Demonstrator.

    Args:
      length: numbers in a problem, 2..16.
      modulus: m in 2..100; every number shown is in 0..m-1.
      operators: one or more of "+-*", each at most once, drawn uniformly for every gap; "+" alone is not shown.
      expert_order: of the merges in demonstrations: random | left (the leftmost legal one).
    Raises:
      ValueError: a setting outside its range.
    Example:
      >>> task = Arithmetic(length=4, modulus=10, operators="+")
      >>> problem = Problem(id="a", prompt="3 8 5 2", answer="8")
      >>> task.verify([problem], ["1 5 2 ; 1 7 ; 8 ; = 8"])[0].reason
      'correct'
      >>> task.first_error(problem, "1 5 2 ; 1 9 ; 0 ; = 0")
      1
      >>> task.repair(problem, "1 5 2 ; 1 9 ; 0 ; = 0", np.random.default_rng(0))
      '1 5 2 ; 1 7 ; 8 ; = 8'
    """

    name = "arithmetic"
    tokenizer_name = "arithmetic"
    step_separator = ";"
    answer_marker = "="

    def __init__(
        self, length: int = 6, modulus: int = 10, operators: str = "+", expert_order: str = "random"
    ):
        if not 2 <= length <= 16:
            raise ValueError(f"length = {length}: must be in [2, 16]")
        if not 2 <= modulus <= 100:
            raise ValueError(
                f"modulus = {modulus}: must be in [2, 100], since one number is one token"
            )
        if not operators or set(operators) - set("+-*") or len(set(operators)) < len(operators):
            raise ValueError(f'operators = {operators!r}: must be one or more of "+-*", each once')
        if expert_order not in ("random", "left"):
            raise ValueError(f"expert_order = {expert_order!r}: must be random or left")
        self.length, self.modulus, self.operators = length, modulus, operators
        self.expert_order = expert_order
        self._numbers = {str(n): n for n in range(modulus)}
        # One token per word. Prompt: BOS, "solve", the list, ":". Completion: the lists of length-1, ..., 1 numbers,
        # each with its ";", then "=", the answer, EOS. Repair prompt: BOS, "repair", the list, ":", the anchor, "|",
        # the failed text, "|"; a failed text may have run out of budget (no EOS), an anchor has not.
        self.prompt_tokens = self._width(length) + 3
        self.completion_tokens = sum(self._width(n) + 1 for n in range(1, length)) + 3
        self.repair_prompt_tokens = self._width(length) + 5 + 2 * self.completion_tokens - 1

    def batch(self, seed: int, update: int, num_problems: int, attempt: int = 0) -> list[Problem]:
        """Problems of (seed, update, attempt); fewer problems are a prefix of more.

        Args:
          seed, update, attempt: int >= 0.
          num_problems: int >= 0.
        Returns:
          Problems with numbers uniform in 0..modulus-1 and uniform operators.
        Example:
          >>> task = Arithmetic()
          >>> task.batch(0, 3, 2) == task.batch(0, 3, 2), task.batch(0, 3, 2)[1].id
          (True, 'arithmetic-0-3-0-1')
        """
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(update, attempt)))
        problems = []
        for i in range(num_problems):
            numbers = rng.integers(self.modulus, size=self.length).tolist()
            drawn = rng.integers(len(self.operators), size=self.length - 1).tolist()
            line = _Line(tuple(numbers), "".join(self.operators[j] for j in drawn))
            name = f"arithmetic-{seed}-{update}-{attempt}-{i}"
            problems.append(Problem(name, self._text(line), str(self._value(line))))
        return problems

    def policy_prompt(self, problem: Problem) -> str:
        """`solve 3 8 5 2 :`"""
        return f"solve {problem.prompt} :"

    def repair_prompt(self, problem: Problem, failed: str, anchor: str) -> str:
        """`repair 3 8 5 2 : <anchor> | <failed> |`; what the repair mostly copies stands nearest to it."""
        return " ".join(f"repair {problem.prompt} : {anchor} | {failed} |".split())

    def chat_policy_prompt(self, problem: Problem) -> str:
        """The problem in words, for a chat model, which knows nothing of `solve`."""
        return f"{self._in_words(problem)} {_CHAT_FORM}"

    def chat_repair_prompt(self, problem: Problem, failed: str, anchor: str) -> str:
        """The problem in words, the failed text as draft, the anchor, and how to repair."""
        return (
            f"{self._in_words(problem)}\nDraft with a mistake: {failed}\nAnother solution, which is right: {anchor}\n"
            "Rewrite the draft so that it becomes right, and change as little as possible. Do not mention the draft or"
            f" the other solution. {_CHAT_FORM}"
        )

    def _in_words(self, problem: Problem) -> str:
        if self.operators == "+":
            what = "Add up the list of numbers"
            step = "replace two neighbours by their sum"
        else:
            what = "Work out the expression"
            step = "replace two neighbouring numbers and the sign between them by their result"
        return (
            f"{what} {problem.prompt} modulo {self.modulus}. In each step, {step} modulo {self.modulus}, and write down"
            " the whole new line, until one number is left."
        )

    def verify(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """Reward 1 if the one word after the last "=" is the gold number; steps are not looked at.

        Args:
          problems, completions: equally many.
        Returns:
          One verdict each: correct, wrong (another integer) or unparsable (no such word).
        Raises:
          ValueError: different lengths.
        """
        return [_verdict(p, text) for p, text in zip(problems, completions, strict=True)]

    def first_error(self, problem: Problem, completion: str) -> int:
        """First step that is not the line before it after one legal merge with the right result.

        A merge that `legal_merges` forbids is an error even where these numbers happen to hide it.

        Args:
          problem: one of this task.
          completion: any text.
        Returns:
          Step in 0..length-1 (length-1: all that follows the last merge, "= x"); -1: all right.
        """
        line = self._problem_line(problem)
        merges = len(line.operators)
        # At most that many cuts: what follows the answer belongs to its part and makes it wrong.
        parts = completion.split(";", merges)
        for step, part in enumerate(parts[:merges]):
            shown = self._parse(part.split())
            if shown is None or self._right_merge(line, shown) is None:
                return step
            line = shown
        if len(parts) <= merges:
            return len(parts)
        marker, _, answer = parts[merges].strip().partition("=")
        return -1 if not marker and _integer(answer) == line.numbers[0] else merges

    def demonstrate(self, problem: Problem, rng: np.random.Generator) -> str:
        """A right solution: at every step one of the legal merges, uniformly or the leftmost one.

        Example:
          >>> problem = Problem(id="a", prompt="3 8 5", answer="6")
          >>> Arithmetic(length=3).demonstrate(problem, np.random.default_rng(0))
          '3 3 ; 6 ; = 6'
        """
        line, steps = self._problem_line(problem), []
        while line.operators:
            legal = legal_merges(line.operators)
            line = self._merge(line, legal[0] if self.expert_order == "left" else _pick(legal, rng))
            steps.append(line)
        return self._solution(steps)

    def corrupt(self, problem: Problem, derivation: str, rng: np.random.Generator) -> str:
        """`derivation` with one or more merge results replaced, the rest redone from there.

        How many is uniform: where most of a text is right, copying pays, and nothing is checked.

        Args:
          problem: one of this task.
          derivation: a right solution of it; its order of merges is kept.
          rng: drawn from.
        Returns:
          A well-formed solution, its answer wrong: mistakes that cancel (0 * x) are redrawn.
        Raises:
          ValueError: the derivation is not right.
        """
        error = self.first_error(problem, derivation)
        if error != -1:
            raise ValueError(
                f"derivation {derivation!r}: step {error} is wrong; corrupt needs a right one"
            )
        start = line = self._problem_line(problem)
        positions = []
        for part in derivation.split(";")[:-1]:
            shown = self._parse(part.split())
            positions.append(self._right_merge(line, shown))
            line = shown
        answer = line.numbers[0]
        while True:
            mistakes = rng.permutation(len(positions))[: rng.integers(1, len(positions) + 1)]
            line, steps = start, []
            for step, position in enumerate(positions):
                shift = int(rng.integers(1, self.modulus)) if step in mistakes else 0
                line = self._merge(line, position, shift)
                steps.append(line)
            # Ends with probability 1: a lone mistake in the last merge changes the answer.
            if line.numbers[0] != answer:
                return self._solution(steps)

    def repair(self, problem: Problem, failed: str, rng: np.random.Generator) -> str:
        """The minimal honest repair: keep every merge that can be kept, recompute its value.

        Walks through the failed steps beside the corrected list. A step that shows the failed list before it after a
        merge at p, with whatever result, means p. Where equal numbers allow several p, one whose result was right goes
        first, then the one that leaves the fewest changed numbers, then the leftmost. Any other step (junk, a lost
        number, a forbidden merge) becomes the legal merge nearest to its text in words, ties by `rng`. Steps too many
        are dropped; left-out ones lead towards the next step shown, or are random where none follows.

        Args:
          problem: one of this task.
          failed: any text.
          rng: breaks ties and draws missing steps.
        Returns:
          A right solution; a right `failed` comes back as it is (white space normalised).
        """
        line = previous = self._problem_line(problem)
        hints = self._shown_steps(failed)
        steps = []
        while line.operators:
            hint, hints = self._next_hint(hints, len(line.operators))
            line = self._merge(line, self._intended_merge(line, previous, hint, rng))
            shown = None if hint is None else self._parse(hint)
            same_length = shown is not None and len(shown.numbers) == len(line.numbers)
            previous = shown if same_length else line
            steps.append(line)
        return self._solution(steps)

    def _shown_steps(self, text: str) -> list[list[str]]:
        """Words of each step before the answer part; long ones cut, so that junk costs no time."""
        steps = []
        for part in text.split(";", 4 * self.length):
            if "=" in part:
                break
            steps.append(part[: 16 * self.length].split())
        return steps[:-1] if steps and not steps[-1] else steps

    def _next_hint(
        self, hints: list[list[str]], wanted: int
    ) -> tuple[list[str] | None, list[list[str]]]:
        """The failed step about the next list, of `wanted` numbers, and the steps after it."""
        width = self._width(wanted)
        # Each coming merge leaves one list: `wanted` of them are needed, more may be passed over.
        for i in range(len(hints) - wanted + 1):
            if len(hints[i]) == width:
                return hints[i], hints[i + 1 :]
        if not hints:
            return None, []
        left_out = len(hints[0]) < width and len(hints) < wanted  # it speaks about a later list
        return hints[0], hints if left_out else hints[1:]

    def _intended_merge(
        self, line: _Line, previous: _Line, hint: list[str] | None, rng: np.random.Generator
    ) -> int:
        """Legal merge of `line` that the step `hint` made of `previous`, the failed list."""
        legal = legal_merges(line.operators)
        if hint is None:
            return _pick(legal, rng)
        shown = self._parse(hint)
        exact = [p for p in legal if shown is not None and _keeps(previous, p, shown)]
        if exact:

            def rank(p: int) -> tuple[bool, int]:
                wrong = shown.numbers[p] != self._result(previous, p)
                changed = map(int.__ne__, self._merge(line, p).numbers, shown.numbers)
                return wrong, sum(changed)

            return min(exact, key=rank)
        distances = [_distance(self._words(self._merge(line, p)), hint) for p in legal]
        nearest = min(distances)
        return _pick([p for p, d in zip(legal, distances, strict=True) if d == nearest], rng)

    def _right_merge(self, line: _Line, shown: _Line) -> int | None:
        """Leftmost legal merge that makes `shown` of `line`; None where there is none."""
        for p in legal_merges(line.operators):
            if _keeps(line, p, shown) and shown.numbers[p] == self._result(line, p):
                return p
        return None

    def _result(self, line: _Line, position: int) -> int:
        left, right = line.numbers[position], line.numbers[position + 1]
        return _OPERATIONS[line.operators[position]](left, right) % self.modulus

    def _merge(self, line: _Line, position: int, shift: int = 0) -> _Line:
        numbers, operators = line
        result = (self._result(line, position) + shift) % self.modulus
        return _Line(
            (*numbers[:position], result, *numbers[position + 2 :]),
            operators[:position] + operators[position + 1 :],
        )

    def _value(self, line: _Line) -> int:
        while line.operators:
            line = self._merge(line, legal_merges(line.operators)[0])
        return line.numbers[0]

    def _width(self, count: int) -> int:
        """Words of a list of `count` numbers."""
        return count if self.operators == "+" else 2 * count - 1

    def _words(self, line: _Line) -> list[str]:
        words = [str(n) for n in line.numbers]
        if self.operators == "+":
            return words
        for i in range(len(line.operators), 0, -1):
            words.insert(i, line.operators[i - 1])
        return words

    def _text(self, line: _Line) -> str:
        return " ".join(self._words(line))

    def _solution(self, steps: Sequence[_Line]) -> str:
        shown = " ; ".join(self._text(line) for line in steps)
        return f"{shown} ; = {steps[-1].numbers[0]}"

    def _parse(self, words: Sequence[str]) -> _Line | None:
        """The list that the words show; None where they show none."""
        stride = 1 if self.operators == "+" else 2
        numbers = tuple([self._numbers.get(word, -1) for word in words[::stride]])
        if not numbers or -1 in numbers or len(words) != self._width(len(numbers)):
            return None
        if stride == 1:
            return _Line(numbers, "+" * (len(numbers) - 1))
        gaps = words[1::2]
        return _Line(numbers, "".join(gaps)) if all(g in _OPERATIONS for g in gaps) else None

    def _problem_line(self, problem: Problem) -> _Line:
        line = self._parse(problem.prompt.split())
        if line is None or not line.operators:
            raise ValueError(
                f"problem {problem.id}: {problem.prompt!r} is no list of numbers in"
                f" 0..{self.modulus - 1} for operators {self.operators!r}"
            )
        return line


def _verdict(problem: Problem, completion: str) -> Verdict:
    _, marker, tail = completion.rpartition("=")
    answer = _integer(tail) if marker else None
    if answer is None:
        return Verdict(reward=0.0, answer=None, reason="unparsable")
    right = answer == int(problem.answer)
    return Verdict(float(right), str(answer), "correct" if right else "wrong")


def _integer(text: str) -> int | None:
    text = text.strip()
    return int(text) if _INTEGER.fullmatch(text) else None


def _pick(options: list[int], rng: np.random.Generator) -> int:
    return options[int(rng.integers(len(options)))]


def _keeps(line: _Line, position: int, shown: _Line) -> bool:
    """Whether `shown` is `line` after a merge at `position` with any result."""
    return (
        len(shown.numbers) == len(line.numbers) - 1
        and shown.numbers[:position] == line.numbers[:position]
        and shown.numbers[position + 1 :] == line.numbers[position + 2 :]
        and shown.operators == line.operators[:position] + line.operators[position + 1 :]
    )


def _distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Word edit distance, row by row."""
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]
