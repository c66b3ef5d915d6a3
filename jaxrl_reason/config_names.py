"""Names of fields that were meant, of names that do not exist.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# Of fields with one last name, those of these sections are meant more often than others.
COMMON_SECTIONS = ("optim", "train", "rollout", "loss", "eval")


def nearest_field(
    name: str, known: Iterable[str], prefer: Sequence[str] = COMMON_SECTIONS
) -> str | None:
    """The field that a name most probably means: alike as a whole, in its last part, or in that part's initials.

    Args:
      name: with or without a section; dashes count as underscores.
      known: names of fields.
      prefer: sections that win where several fields are as near, the first before the second.
    Returns:
      A name of `known`; None where nothing is near.
    Example:
      >>> known = ["prm.learning_rate", "optim.learning_rate", "loss.clip_high"]
      >>> [nearest_field(name, known) for name in ("lr", "clip-hihg", "qqq")]
      ['optim.learning_rate', 'loss.clip_high', None]
    """
    name = name.replace("-", "_").lower()
    section, _, last = name.rpartition(".")
    best, near = 0.6, None
    for field in known:
        home, _, part = field.rpartition(".")
        words = part.split("_")
        score = _alike(name, field)
        if section in ("", home):
            score = max(score, 0.99 * _alike(last, part))
            if len(last) > 1 and last == "".join(word[0] for word in words if word):
                score = max(score, 0.9)
            elif len(last) > 2 and part.startswith(last):
                score = max(score, 0.8)
            elif last in words:
                score = max(score, 0.7)
        elif last == part:
            score = max(score, 0.9)
        if home in prefer:
            score += 1e-3 * (1 - prefer.index(home) / len(prefer))
        if score > best:
            best, near = score, field
    return near


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()
