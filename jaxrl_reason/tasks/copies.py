"""Copies of a question: inside one file, and between training and evaluation.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import collections
import hashlib
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from jaxrl_reason.tasks import golds
from jaxrl_reason.types import Problem

_WORDS = 8  # fewest words and signs of a question that is looked for inside other texts
_MARKS = re.compile(r"\\[()\[\],;! ]|\\left|\\right|\\displaystyle|\$")
_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")


class Chosen(Sequence[Problem]):
    """Some problems of a sequence, which may lie on disk; `indices` increase."""

    def __init__(self, problems: Sequence[Problem], indices: Sequence[int]):
        self._problems, self._indices = problems, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self._problems[i] for i in self._indices[index]]
        return self._problems[self._indices[index]]

    def __iter__(self) -> Iterator[Problem]:
        # All of the sequence, in its order: blocks on disk are then read once.
        wanted = set(self._indices)
        return (problem for i, problem in enumerate(self._problems) if i in wanted)


def question_key(question: str) -> str:
    """What two copies of a question share: letters, digits and signs, without case, white space and maths marks.

    Example:
      >>> question_key("Find  $x^2$ for X = 3.") == question_key("find x^2 for x=3.")
      True
      >>> question_key("Find 3 + x.") == question_key("Find 3 - x.")
      False
    """
    return "".join(_normal(question).split())


def whole_text(problem: Problem) -> str:
    """Question of a problem with the turns before it."""
    return "\n".join([*(m["content"] for m in problem.meta.get("messages", ())), problem.prompt])


def _normal(text: str) -> str:
    return _MARKS.sub("", unicodedata.normalize("NFKC", text).casefold())


def digest(question: str) -> int:
    """A number of a question, in [0, 2**32), that depends on its `question_key` alone."""
    return int.from_bytes(hashlib.sha256(question_key(question).encode()).digest()[:4], "big")


def without_copies(
    problems: Sequence[Problem], path: str, *, by_reference: bool = False
) -> Sequence[Problem]:
    """The problems with each question once; without all that have different gold answers; one warning counts them.

    Args:
      problems: of one file.
      path: of it, for the message.
      by_reference: one question with several references is no copy.
    Returns:
      The first problem of each question, in the order of the file.
    Raises:
      ValueError: none is left.
    """
    groups: dict[str, list[int]] = collections.defaultdict(list)
    golds_of: dict[str, list[str]] = collections.defaultdict(list)
    kept, seen, names = [], set(), []
    for i, problem in enumerate(problems):
        key = question_key(whole_text(problem))
        groups[key].append(i)
        names.append(problem.id)
        if problem.answer not in golds_of[key] and "tests" not in problem.meta:
            golds_of[key].append(problem.answer)
        unique = (key, problem.reference) if by_reference else key
        if unique not in seen:
            seen.add(unique)
            kept.append(i)
    against = [key for key, texts in golds_of.items() if not _agree(texts)]
    out = {i for key in against for i in groups[key]}
    copied = [(i, g[0]) for key, g in groups.items() if not out.issuperset(g) for i in g[1:]]
    copied = sorted(set(copied) - {(i, first) for i, first in copied if i in set(kept)})
    if not out and not copied:
        return problems
    said = []
    if copied:
        questions, (copy, first) = len({f for _, f in copied}), copied[0]
        said.append(
            f"{len(copied)} copies of {questions} question{'s' * (questions > 1)} are left out (the first:"
            f" {names[copy]} is {names[first]})"
        )
    if out:
        texts, (one, *_) = golds_of[against[0]], groups[against[0]]
        said.append(
            f"{len(out)} records of {len(against)} question{'s' * (len(against) > 1)} with different gold answers are"
            f" left out (the first: {names[one]}, {texts[0]!r:.40} and {texts[1]!r:.40})"
        )
    left = [i for i in kept if i not in out]
    if not left:
        raise ValueError(f"{path}: {'; '.join(said)}; no problem is left")
    warnings.warn(f"{path}: {'; '.join(said)}", stacklevel=2)
    return Chosen(problems, left)


def _agree(texts: Sequence[str]) -> bool:
    return all(golds.same(texts[0], text) for text in texts[1:])


def without_overlap(
    problems: Sequence[Problem], held_out: Sequence[Problem], path: str, eval_path: str
) -> Sequence[Problem]:
    """Training problems that evaluation does not ask, whatever stands around the question in either file.

    A question of _WORDS words and signs or more that is found whole inside another text is the same one.

    Args:
      problems, held_out: to train on and to evaluate on.
      path, eval_path: of them, for the message.
    Returns:
      Problems to train on; a warning of one line counts the others.
    Raises:
      ValueError: none is left.
    """
    prompts = [whole_text(problem) for problem in problems]
    tested = {question_key(whole_text(p)): p.id for p in held_out}
    ids = [p.id for p in held_out]
    twins = [tested.get(question_key(prompt)) for prompt in prompts]
    asked = [_tokens(whole_text(p)) for p in held_out]
    given = [_tokens(prompt) for prompt in prompts]
    for i, j in [*((i, j) for j, i in _inside(given, asked)), *_inside(asked, given)]:
        twins[j] = twins[j] or ids[i]
    kept = [i for i, twin in enumerate(twins) if twin is None]
    if len(kept) == len(problems):
        return problems
    shared = len(problems) - len(kept)
    said = f"{path}: {shared} of {len(problems)} problems also stand in {eval_path}"
    if not kept:
        raise ValueError(f"{said}, so that none is left to train on")
    first = next(i for i, twin in enumerate(twins) if twin is not None)
    warnings.warn(
        f"{said}, and are left out of training (the first: {problems[first].id} is {twins[first]})",
        stacklevel=2,
    )
    return Chosen(problems, kept)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(_normal(text))


def _inside(short: Sequence[list[str]], long: Sequence[list[str]]) -> Iterable[tuple[int, int]]:
    """(i, j) where all of short[i] stands in long[j]."""
    lengths: dict[tuple[str, ...], set[int]] = collections.defaultdict(set)
    whole: dict[tuple[str, ...], int] = {}
    for i, tokens in enumerate(short):
        if len(tokens) >= _WORDS:
            lengths[tuple(tokens[:_WORDS])].add(len(tokens))
            whole.setdefault(tuple(tokens), i)
    for j, tokens in enumerate(long):
        for start in range(len(tokens) - _WORDS + 1):
            for length in lengths.get(tuple(tokens[start : start + _WORDS]), ()):
                i = whole.get(tuple(tokens[start : start + length]))
                if i is not None:
                    yield i, j
