r"""Sets of real numbers: unions, differences and bounds as one sorted row of intervals.

Host side. Reads: nothing. Writes: nothing.

So R without 2 is (-oo, 2) u (2, oo), and [1, 3] u [2, 5] is [1, 5].
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import NamedTuple

from jaxrl_reason.verify import numeric, values, vocabulary
from jaxrl_reason.verify.lexer import Unreadable
from jaxrl_reason.verify.numeric import Value

MAX_INTERVALS = 64


class End(NamedTuple):
    """An end of an interval: its value, or the sign of infinity."""

    infinite: int  # -1, 0, 1
    value: Value | None = None


class Interval(NamedTuple):
    """All numbers between two ends, which belong to it or not."""

    low: End
    has_low: bool
    high: End
    has_high: bool


_BELOW, _ABOVE = End(-1), End(1)
_LINE = Interval(_BELOW, False, _ABOVE, False)


def is_set(tree: tuple) -> bool:
    """Whether a tree is a set of numbers that has to be read as one to be compared."""
    return tree[0] in ("union", "minus", "some", "empty") or tree == vocabulary.REALS


def read(tree: tuple, deadline: float) -> list[Interval] | None:
    """Intervals of a tree in order, none of them touching another.

    Args:
      tree: see `verify.grammar`; ("some", *sets) is what inequalities on one variable say together:
        their common part, or if there is none all of them.
      deadline: on the clock of time.monotonic.
    Returns:
      None for what is no set of real numbers, or one with ends that are no numbers.
    """
    kind = tree[0]
    if tree == vocabulary.REALS:
        return [_LINE]
    if kind == "empty":
        return []
    if kind == "seq" and len(tree) == 5:
        return _interval(tree, deadline)
    if kind in ("set", "list"):
        ends = [_end(item, deadline) for item in tree[1:]]
        if any(end is None or end.infinite for end in ends):
            return None
        return _joined([Interval(end, True, end, True) for end in ends])
    if kind not in ("union", "minus", "some"):
        return None
    parts = [read(part, deadline) for part in tree[1:]]
    if any(part is None for part in parts):
        return None
    if kind == "minus":
        return _common(parts[0], _rest(parts[1]))
    if kind == "some":
        common = functools.reduce(_common, parts)
        if any(_order(part.low, part.high) < 0 for part in common):
            return common
    return _joined([interval for part in parts for interval in part])


def equal(first: list[Interval], second: list[Interval]) -> bool:
    """Whether two sets have the same elements."""
    return len(first) == len(second) and all(
        _order(a.low, b.low) == 0
        and _order(a.high, b.high) == 0
        and (a.has_low, a.has_high) == (b.has_low, b.has_high)
        for a, b in zip(first, second, strict=True)
    )


def _interval(tree: tuple, deadline: float) -> list[Interval] | None:
    low, high = (_end(item, deadline) for item in tree[3:])
    if low is None or high is None:
        return None
    has_low, has_high = tree[1] == "[", tree[2] == "]"
    order = _order(low, high)
    if order > 0 or order == 0 and not (has_low and has_high):
        return None  # (5, 2) is a pair, or a slip, and not the empty set
    return [Interval(low, has_low and not low.infinite, high, has_high and not high.infinite)]


def _end(tree: tuple, deadline: float) -> End | None:
    sign, inner = 1, tree
    while inner[0] == "neg":
        sign, inner = -sign, inner[1]
    if inner == ("inf",):
        return End(sign)
    try:
        value = values.evaluate(tree, {}, deadline)
    except Unreadable:
        return None
    return None if isinstance(value, numeric.Complex) and value.im else End(0, value)


def _order(a: End, b: End) -> int:
    if a.infinite or b.infinite:
        return (a.infinite > b.infinite) - (a.infinite < b.infinite)
    if isinstance(a.value, Fraction) and isinstance(b.value, Fraction):
        return (a.value > b.value) - (a.value < b.value)
    if numeric.same(a.value, b.value):
        return 0
    x, y = (numeric.to_complex(end.value).re for end in (a, b))
    return 1 if x > y else -1


def _joined(intervals: list[Interval]) -> list[Interval]:
    if len(intervals) > MAX_INTERVALS:
        raise Unreadable(f"over {MAX_INTERVALS} intervals")

    def before(a: Interval, b: Interval) -> int:
        return _order(a.low, b.low) or b.has_low - a.has_low

    found: list[Interval] = []
    for part in sorted(intervals, key=functools.cmp_to_key(before)):
        if found:
            last = found[-1]
            gap = _order(part.low, last.high)
            if gap < 0 or gap == 0 and (part.has_low or last.has_high):
                reach = _order(part.high, last.high)
                if reach > 0 or reach == 0 and part.has_high:
                    found[-1] = last._replace(high=part.high, has_high=part.has_high)
                continue
        found.append(part)
    return found


def _rest(intervals: list[Interval]) -> list[Interval]:
    """What of the line is in none of them."""
    found, low, has_low = [], _BELOW, False
    for part in intervals:
        if _order(low, part.low) < 0 or has_low and not part.has_low:
            found.append(
                Interval(low, has_low, part.low, not part.has_low and not part.low.infinite)
            )
        low, has_low = part.high, not part.has_high
    if not low.infinite > 0:
        found.append(Interval(low, has_low and not low.infinite, _ABOVE, False))
    return found


def _common(first: list[Interval], second: list[Interval]) -> list[Interval]:
    found, i, j = [], 0, 0
    while i < len(first) and j < len(second):  # both are in order
        a, b = first[i], second[j]
        down, up = _order(a.low, b.low), _order(a.high, b.high)
        low, has_low = (a.low, a.has_low) if down > 0 else (b.low, b.has_low)
        high, has_high = (a.high, a.has_high) if up < 0 else (b.high, b.has_high)
        has_low = a.has_low and b.has_low if down == 0 else has_low
        has_high = a.has_high and b.has_high if up == 0 else has_high
        order = _order(low, high)
        if order < 0 or order == 0 and has_low and has_high:
            found.append(Interval(low, has_low, high, has_high))
        i, j = i + (up <= 0), j + (up >= 0)
    if len(found) > MAX_INTERVALS:
        raise Unreadable(f"over {MAX_INTERVALS} intervals")
    return found
