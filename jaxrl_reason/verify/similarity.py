"""How close a written step is to the expert's: format check and Ratcliff-Obershelp similarity.

Host side. Reads: nothing. Writes: nothing.

`cydifflib` computes the same numbers as Python's `difflib` (a test compares them) 3 to 22 times as fast: 0.06 instead
of 0.7 ms for two steps of 230 characters, 2.9 instead of 64 ms for 1,900 (`benchmarks/similarity.py`). It has no wheels
for Python 3.14 yet, so where it is not installed, `difflib` does the work.
"""

from __future__ import annotations

import collections
import itertools

try:
    from cydifflib import SequenceMatcher
except ImportError:
    from difflib import SequenceMatcher

MAX_CHARS = 4000  # of each text that are compared
MAX_WORK = 20_000_000  # pairs of equal characters that are looked at

_OPEN, _CLOSE = "<think>", "</think>"
_SOLUTION = ("<solution>", "</solution>")


def similarity(step: str, expert: str, *, autojunk: bool = False) -> float:
    """R = 2 M / (|step| + |expert|), with M the characters in matching blocks.

    The longest common block comes first, then the same left and right of it. Not symmetric: which blocks are found
    depends on which text comes first.

    Long texts of few characters could take time that grows as the cube of their length. So M counts blocks within the
    first MAX_CHARS characters of each text alone, until MAX_WORK pairs have been looked at; what is left then matches
    nothing. Steps of up to a few thousand characters of prose are far from both.

    Args:
      step: what the model wrote, stripped.
      expert: the expert's step, stripped.
      autojunk: leave out characters that make up more than 1% of an expert's step of 200 or more, as `difflib` does by
        default. That lowers the score of near copies; it is here for comparison only.
    Returns:
      In [0, 1]; 1 for equal texts, also two empty ones.
    Example:
      >>> similarity("abcd", "bcde"), similarity("tide", "diet"), similarity("diet", "tide")
      (0.75, 0.25, 0.5)

    Source: SRL, arXiv 2510.25992 section 3; J. W. Ratcliff and D. E. Metzener, Dr. Dobb's Journal, July 1988.
    """
    total = len(step) + len(expert)
    if step == expert:
        return 1.0
    a, b = step[:MAX_CHARS], expert[:MAX_CHARS]
    matcher = SequenceMatcher(None, a, b, autojunk=autojunk)
    if len(a) * len(b) * min(len(a), len(b)) <= MAX_WORK:
        return matcher.ratio() * (len(a) + len(b)) / total
    return 2.0 * _matched(matcher, a, b) / total


def _matched(matcher: SequenceMatcher, a: str, b: str) -> int:
    """Characters in matching blocks, as `SequenceMatcher` finds them, of MAX_WORK pairs."""
    counts = collections.Counter(b)
    pairs = [0, *itertools.accumulate(counts[char] for char in a)]
    work = matched = 0
    waiting = [(0, len(a), 0, len(b))]
    while waiting:
        a_low, a_high, b_low, b_high = waiting.pop()
        work += min(pairs[a_high] - pairs[a_low], (a_high - a_low) * b_high)
        if work > MAX_WORK:
            break
        i, j, size = matcher.find_longest_match(a_low, a_high, b_low, b_high)
        matched += size
        if size and a_low < i and b_low < j:
            waiting.append((a_low, i, b_low, j))
        if size and i + size < a_high and j + size < b_high:
            waiting.append((i + size, a_high, j + size, b_high))
    return matched


def written_step(completion: str, *, think: bool, separator: str | None) -> str | None:
    """The one step that a completion consists of, stripped; None where its format is wrong.

    Args:
      completion: text, special tokens left out.
      think: the completion is one closed <think> block and then the step; without it there is no block at all.
      separator: the step ends before the first one; None: it ends with the completion.
    Returns:
      The step without any <solution> tags around it; None where it is empty, or the blocks are not as they must be.
    Example:
      >>> written_step("<think>carry 1</think> 8 + 5 = 13", think=True, separator=None)
      '8 + 5 = 13'
      >>> written_step("1 7 ; 8 ; = 8", think=False, separator=";")
      '1 7'
    """
    blocks = int(think)
    if completion.count(_OPEN) != blocks or completion.count(_CLOSE) != blocks:
        return None
    if think:
        thought, _, completion = completion.partition(_CLOSE)
        if not thought.lstrip().startswith(_OPEN):
            return None
    step = completion.strip()
    for tag in _SOLUTION:
        step = step.replace(tag, "")
    if separator is not None:
        step = step.partition(separator)[0]
    return step.strip() or None
