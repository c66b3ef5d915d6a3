r"""Whether two expressions have one value, by their values at fixed random points.

Host side. Reads: nothing. Writes: nothing.

Roots and logarithms of variables are compared where what they are taken of is positive, as
ln(a/b) = ln a - ln b means it; factorials of variables at whole numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

from jaxrl_reason.verify import numeric, values
from jaxrl_reason.verify.lexer import Unreadable

_NUM_POINTS = 4  # where expressions with variables are compared
_NUM_SPECIAL_POINTS = 12  # where not every point counts
MIN_POINTS = 2  # of these must be defined
_MAX_SIZE = 4000  # nodes of an equation without its fractions

_CONSTANTS = frozenset(("c", "C", "c_1", "C_1", "C_0", "K"))
_INFINITE = ("inf",)
_DEPENDENT = [("var", f) for f in "fghFGHPQuvxyr"]
_FREE = [("var", x) for x in "xtsn"]


def nodes(tree: tuple) -> Iterator[tuple]:
    """All nodes of a tree, itself first."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack += [n for n in node[1:] if isinstance(n, tuple) and n and isinstance(n[0], str)]


def variables(tree: tuple) -> set[str]:
    """Names of the variables in a tree."""
    found, stack = set(), [tree]
    while stack:
        node = stack.pop()
        if node[0] == "var":
            found.add(node[1])
        elif node[0] == "rel":
            stack += node[2:]
        elif node[0] != "based":
            stack += [n for n in node[1:] if isinstance(n, tuple)]
    return found


def expressions_equal(a: tuple, b: tuple, deadline: float) -> bool:
    """Whether two trees without relations and brackets have the same value everywhere.

    Raises:
      values.OutOfTime: the deadline passed.
      Unreadable: one without variables has no value.
    """
    infinite = [_sign_of_infinity(t) for t in (a, b)]
    if any(infinite):
        return infinite[0] == infinite[1]
    names_a, names_b = variables(a), variables(b)
    if len(names_a & names_b) and len(names_a - names_b) == len(names_b - names_a) == 1:
        (mine,), (other,) = names_a - names_b, names_b - names_a
        if {mine, other} <= _CONSTANTS:  # of integration, whose name is free
            b, names_b = renamed(b, other, mine), names_a
    names = names_a | names_b
    if not names:
        return _values_equal(a, b, deadline)
    kinds = {node[:2] if node[0] in ("func", "const") else node[:1] for node in nodes(a)}
    kinds |= {node[:2] if node[0] in ("func", "const") else node[:1] for node in nodes(b)}
    if kinds & {("fact",), ("binom",)}:
        agreed = _agreements(a, b, _special_points(names, whole=True), deadline, skip=True)
        if agreed is None or agreed >= MIN_POINTS:
            return agreed is not None
    elif not kinds & {("func", "abs"), ("const", "i")}:
        under = [*_branches(a), *_branches(b)]
        if under:
            found = _positive(under, _special_points(names, whole=False), deadline)
            if len(found) >= MIN_POINTS:
                agreed = _agreements(a, b, found, deadline)
                return agreed is not None and agreed >= MIN_POINTS
    agreed = _agreements(a, b, points(names), deadline)
    return agreed is not None and agreed >= MIN_POINTS


def _values_equal(a: tuple, b: tuple, deadline: float) -> bool:
    for digits in (numeric.PRECISION, numeric.MORE_PRECISION):
        x, y = (values.evaluate(tree, {}, deadline, digits) for tree in (a, b))
        if isinstance(x, Fraction) and isinstance(y, Fraction):
            return x == y
        if not numeric.same(x, y, digits):
            return False
    return True


def renamed(tree: tuple, old: str, new: str) -> tuple:
    """A tree with another name for a variable."""
    if tree == ("var", old):
        return ("var", new)
    return tuple(renamed(n, old, new) if isinstance(n, tuple) else n for n in tree)


def calls(a: tuple, b: tuple) -> bool:
    """Whether one equation is y(t) = ... and the other y = ..., and t is what both are of."""
    left, name, right = a[2], b[2], a[3]
    if left[0] != "mul" or left[1] != name or name not in _DEPENDENT or left[2] not in _FREE:
        return False
    return left[2] != name and left[2][1] in variables(right) and name[1] not in variables(right)


def _agreements(
    a: tuple, b: tuple, where: list[dict[str, Fraction]], deadline: float, *, skip: bool = False
) -> int | None:
    """At how many points both have one value; None: at some they do not.

    `skip` leaves points out where one of them has no value.
    """
    agreed = 0
    for point in where:
        x, y = (_value(tree, point, deadline) for tree in (a, b))
        if (x is None) != (y is None) and not skip:
            return None
        if x is None or y is None:
            continue
        if not numeric.same(x, y):
            return None
        agreed += 1
    return agreed


def _value(tree: tuple, point: dict, deadline: float) -> numeric.Value | None:
    try:
        return values.evaluate(tree, point, deadline)
    except Unreadable:
        return None


def _branches(tree: tuple) -> list[tuple]:
    """What stands with variables under an even root, a logarithm or a power that is not whole."""
    found = []
    for node in nodes(tree):
        if node[0] == "root" or node[0] == "func" and node[1] in ("ln", "log", "log_base"):
            under = node[-1]
        elif node[0] == "pow" and not (node[2][0] == "num" and node[2][1].denominator == 1):
            negated = node[2][0] == "neg" and node[2][1][0] == "num"
            if negated and node[2][1][1].denominator == 1:
                continue
            under = node[1]
        else:
            continue
        if variables(under):
            found.append(under)
    return found


def _positive(under: list[tuple], where: list, deadline: float) -> list[dict[str, Fraction]]:
    found = []
    for point in where:
        for tree in under:
            value = _value(tree, point, deadline)
            if isinstance(value, numeric.Complex):
                value = None if value.im else value.re
            if value is None or value <= 0:
                break
        else:
            found.append(point)
    return found


def points(names: set[str]) -> list[dict[str, Fraction]]:
    """Fixed random values for variables: all positive, all negative, then of both signs."""
    found = []
    for i in range(_NUM_POINTS):
        point = {}
        for name in sorted(names):
            draw = random.Random(f"{i} {name}")
            size = Fraction(draw.randint(1_000_003, 9_000_003), 2_097_143)
            negative = i == 1 or i > 1 and draw.random() < 0.5
            point[name] = -size if negative else size
        found.append(point)
    return found


def _special_points(names: set[str], *, whole: bool) -> list[dict[str, Fraction]]:
    """Fixed random values for variables, of several sizes, or whole numbers.

    Quantities of a formula are positive, so that sqrt(a^2 b) is a sqrt(b); a variable on its own has
    both signs, and sqrt(x^2) is not x.
    """
    found = []
    for i in range(_NUM_SPECIAL_POINTS):
        point = {}
        for name in sorted(names):
            draw = random.Random(f"special {i} {name}")
            if whole:
                point[name] = Fraction(draw.randint(2, 30))
            else:
                scale = (1, 4, 32)[draw.randrange(3)]
                size = Fraction(draw.randint(1_000_003, 9_000_003), scale * 1_048_583)
                point[name] = -size if len(names) == 1 and i % 3 == 2 else size
        found.append(point)
    return found


def _sign_of_infinity(tree: tuple) -> int:
    if tree == _INFINITE:
        return 1
    if tree[0] == "neg":
        return -_sign_of_infinity(tree[1])
    return 0


def without_fractions(left: tuple, right: tuple) -> tuple | None:
    """What is zero where left = right, as one tree without divisions; None: it grows too large."""
    top, bottom = _over_one_bar(("add", left, ("neg", right)), [_MAX_SIZE])
    return None if top is None or bottom is None else top


def _over_one_bar(tree: tuple, room: list[int]) -> tuple[tuple | None, tuple | None]:
    """Numerator and denominator; `room` is what may still be built."""
    one = ("num", Fraction(1))
    kind = tree[0]
    room[0] -= 1
    if kind == "neg":
        top, bottom = _over_one_bar(tree[1], room)
        return (None if top is None else ("neg", top)), bottom
    if kind not in ("add", "mul", "div"):
        return tree, one
    (a, b), (c, d) = (_over_one_bar(part, room) for part in tree[1:])
    if a is None or c is None or room[0] < 0:
        return None, None
    if kind == "mul":
        return _product(a, c), _product(b, d)
    if kind == "div":
        return _product(a, d), _product(b, c)
    room[0] -= sum(1 for side in (b, d) if side != one for _ in nodes(side))
    if b == d:
        return ("add", a, c), b
    return ("add", _product(a, d), _product(c, b)), _product(b, d)


def _product(a: tuple, b: tuple) -> tuple:
    one = ("num", Fraction(1))
    if a == one or b == one:
        return b if a == one else a
    return ("mul", a, b)
