"""Knights and Knaves: who always tells the truth, and who always lies?

Host side. Reads: nothing. Writes: nothing.

Statements are drawn until exactly one assignment of roles fits them all, which 2^n trials show. One puzzle in eight,
by a hash of its statements, is asked in evaluation alone; puzzles that differ in names only are on the same side.

No step oracle: conclusions stand under suppositions, and which ones cannot be read off a line of prose.

Source: the kinds of statement are those of arXiv 2410.23123, one level deep.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import re
from collections.abc import Sequence

import numpy as np

from jaxrl_reason.tasks import questions
from jaxrl_reason.types import Problem, Verdict
from jaxrl_reason.verify import answers

_NAMES = ("Ada", "Ben", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivan", "Jack", "Kim", "Leo")
_KINDS = ("is", "and", "or", "if", "iff")
_HELD_OUT = 8  # one puzzle in so many
_ROLES = {"knight": True, "knave": False}
_ITEM = re.compile(r"([A-Z][a-z]{1,60})\s*+(?:(?:[:=-]|is)\s*+)?(?:an?\s++)?(knight|knave)", re.I)
_MAX_CHARS = 1000  # of an answer that is read

# (kind, person, role) says of one person; (kind, statement, statement) joins two.
Statement = tuple

_FORMAT = (
    'End with a line that says "#### " and the role of each person, such as'
    ' "#### NAME is a knight, NAME is a knave".'
)

_POLICY_PROMPT = f"""Knights always tell the truth; knaves always lie. Everybody here is one or the other.
{{puzzle}}
Who is what? Think step by step, one step per line. {_FORMAT}
{questions.ANSWER_CUE}"""

_REPAIR_PROMPT = f"""Knights always tell the truth; knaves always lie. Everybody here is one or the other.
{{puzzle}}
Draft with a mistake:
{{failed}}
A correct solution of the same puzzle:
{{anchor}}
Rewrite the draft so that it becomes right. Copy every part that is right word for word.
Change as little as possible. Do not mention the draft or the other solution. {_FORMAT}
{questions.ANSWER_CUE}"""


class Knights:
    """Puzzles with one solution each. A Task.

    Attributes:
      held_out: the same task, asking only the puzzles that training never asks.

    Args:
      people: in a puzzle, each with one statement, 2..8.
    Raises:
      ValueError: a number of people outside this range.
    Example:
      >>> task = Knights(people=2)
      >>> problem = task.batch(0, 0, 1)[0]
      >>> print(problem.prompt)
      Ben says: "Ada is a knight."
      Ada says: "Ada is a knight exactly if Ben is a knave."
      >>> task.verify([problem], ["#### Ada: knave, Ben: knave"])[0].reason
      'correct'
    """

    name = "knights"
    tokenizer_name = "byte"
    step_separator = "\n"
    answer_marker = "####"
    answer_cue = questions.ANSWER_CUE

    def __init__(self, people: int = 3):
        if not 2 <= people <= 8:
            raise ValueError(f"people = {people}: must be in [2, 8]")
        self.people = people
        self._asks_held_out = False
        longest = ("iff", ("is", 0, True), ("is", 0, True))
        name = max(_NAMES, key=len)
        puzzle = Problem("", _puzzle_text([name] * people, [longest] * people), "")
        solution = _solution_text([name] * people, [longest] * people, (True,) * people)
        # BOS and one token per byte, EOS; a line of reasoning more for each person.
        self.completion_tokens = 2 * len(solution) + 1
        self.prompt_tokens = 1 + len(self.policy_prompt(puzzle))
        frame = 1 + len(self.repair_prompt(puzzle, "", ""))
        self.repair_prompt_tokens = frame + 2 * self.completion_tokens - 1
        self.held_out = copy.copy(self)
        self.held_out._asks_held_out = True
        self.held_out.held_out = self.held_out

    def batch(self, seed: int, update: int, num_problems: int, attempt: int = 0) -> list[Problem]:
        """Puzzles of (seed, update, attempt); fewer puzzles are a prefix of more.

        Args:
          seed, update, attempt, num_problems: int >= 0.
        Returns:
          Problems with answer "Ada is a knight, Ben is a knave", in the order in which they speak, and with a
          `reference` that goes through the statements.
        """
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(update, attempt)))
        problems = []
        while len(problems) < num_problems:
            statements = [_draw(self.people, speaker, rng) for speaker in range(self.people)]
            if self._is_other_side(statements):
                continue
            found = solutions(statements)
            if len(found) != 1:
                continue
            names = [_NAMES[i] for i in rng.permutation(len(_NAMES))[: self.people]]
            problems.append(
                Problem(
                    id=f"knights-{seed}-{update}-{attempt}-{len(problems)}",
                    prompt=_puzzle_text(names, statements),
                    answer=_answer_text(names, found[0]),
                    reference=_solution_text(names, statements, found[0]),
                )
            )
        return problems

    def _is_other_side(self, statements: Sequence[Statement]) -> bool:
        digest = hashlib.sha256(repr(statements).encode()).digest()
        return (digest[0] % _HELD_OUT == 0) != self._asks_held_out

    def policy_prompt(self, problem: Problem) -> str:
        """The rules, the statements and the answer format."""
        return _POLICY_PROMPT.format(puzzle=problem.prompt)

    def repair_prompt(self, problem: Problem, failed: str, anchor: str) -> str:
        """The puzzle, the failed text as draft, the anchor, and how to repair."""
        return _REPAIR_PROMPT.format(puzzle=problem.prompt, failed=failed, anchor=anchor)

    def verify(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        r"""Reward 1 if the answer gives everybody the right role, in any order; nobody may be named twice or left out.

        Args:
          problems, completions: equally many.
        Returns:
          One verdict each; `answer` is in the order of the gold answer.
        Raises:
          ValueError: different lengths.
        """
        verdicts = []
        for problem, text in zip(problems, completions, strict=True):
            gold = read_roles(problem.answer)
            shown = read_roles(answers.final_answer(text) or "")
            if shown is None or gold is None or shown.keys() != gold.keys():
                verdicts.append(Verdict(0.0, None, "unparsable"))
                continue
            answer = _answer_text(list(gold), [shown[name] for name in gold])
            right = shown == gold
            verdicts.append(Verdict(float(right), answer, "correct" if right else "wrong"))
        return verdicts


def read_roles(text: str) -> dict[str, bool] | None:
    """{name: whether a knight} of a list such as "Ada is a knight, Ben is a knave".

    Args:
      text: items parted by commas, semicolons, full stops, line breaks or "and", each a name and a role.
    Returns:
      Roles; None where an item is anything else, or a name stands twice.
    Example:
      >>> read_roles("Ada: knight; Ben is a knave.")
      {'Ada': True, 'Ben': False}
      >>> read_roles("Ada is not a knight"), read_roles("Ada is a knight, Ada is a knave")
      (None, None)
    """
    if len(text) > _MAX_CHARS:
        return None
    # Numbers, bold marks and maths mark-up around the items say nothing.
    text = re.sub(r"\\(?:text|mathrm|textbf)\b|\(\d{1,2}\)|[*${}]|\\[, ]", " ", text)
    items = [i.strip() for i in re.split(r"[,;.\n]|\band\b", text)]
    matches = [_ITEM.fullmatch(item) for item in items if item]
    if not matches or None in matches:
        return None
    roles = {m[1].capitalize(): _ROLES[m[2].lower()] for m in matches}
    return roles if len(roles) == len(matches) else None


def solutions(statements: Sequence[Statement]) -> list[tuple[bool, ...]]:
    """All assignments of roles under which knights' statements are true and knaves' false.

    Args:
      statements: of person i at place i.
    Returns:
      Assignments, True for a knight.
    Example:
      >>> solutions([("is", 1, False), ("and", ("is", 0, False), ("is", 1, False))])
      [(True, False)]
    """
    trials = itertools.product((True, False), repeat=len(statements))
    return [
        roles
        for roles in trials
        if all(role == holds(s, roles) for role, s in zip(roles, statements, strict=True))
    ]


def holds(statement: Statement, roles: Sequence[bool]) -> bool:
    """Whether a statement is true under an assignment of roles."""
    kind, first, second = statement
    if kind == "is":
        return roles[first] == second
    a, b = holds(first, roles), holds(second, roles)
    return {"and": a and b, "or": a or b, "if": not a or b, "iff": a == b}[kind]


def _draw(people: int, speaker: int, rng: np.random.Generator) -> Statement:
    kind = _KINDS[int(rng.integers(len(_KINDS)))]
    if kind == "is":
        # Of oneself it would say nothing: everybody can say "I am a knight", nobody the other.
        other = (speaker + 1 + int(rng.integers(people - 1))) % people
        return ("is", other, bool(rng.integers(2)))
    pair = rng.permutation(people)[:2].tolist()
    return (kind, *(("is", person, bool(rng.integers(2))) for person in pair))


def _statement_text(names: Sequence[str], statement: Statement) -> str:
    kind, first, second = statement
    if kind == "is":
        return f"{names[first]} is a {'knight' if second else 'knave'}"
    a, b = _statement_text(names, first), _statement_text(names, second)
    words = {"and": "{} and {}", "or": "{} or {}", "if": "if {} then {}", "iff": "{} exactly if {}"}
    return words[kind].format(a, b)


def _puzzle_text(names: Sequence[str], statements: Sequence[Statement]) -> str:
    lines = []
    for name, statement in zip(names, statements, strict=True):
        said = _statement_text(names, statement)
        lines.append(f'{name} says: "{said[0].upper()}{said[1:]}."')
    return "\n".join(lines)


def _answer_text(names: Sequence[str], roles: Sequence[bool]) -> str:
    pairs = zip(names, roles, strict=True)
    return ", ".join(f"{name} is a {'knight' if role else 'knave'}" for name, role in pairs)


def _solution_text(
    names: Sequence[str], statements: Sequence[Statement], roles: Sequence[bool]
) -> str:
    """A proof that the roles fit: each statement is true or false as it must be."""
    lines = [f"Try: {_answer_text(names, roles)}."]
    for name, statement, role in zip(names, statements, roles, strict=True):
        kind, fits = ("knight", "true") if role else ("knave", "false")
        lines.append(
            f"{name} is a {kind}, and it is {fits} that {_statement_text(names, statement)}."
        )
    return "\n".join([*lines, f"#### {_answer_text(names, roles)}"])
