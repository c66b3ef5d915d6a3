r"""Whether two parsed answers say the same.

Host side. Reads: nothing. Writes: nothing.

Values are compared exactly where they are rational and to thirty digits where they are not;
expressions with variables by their values at fixed random points; sets without order, tuples and
matrices entry by entry; equations up to a constant factor; inequalities as the intervals they are.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

from jaxrl_reason.verify import names, numeric, realsets, sameness, signs, values, vocabulary
from jaxrl_reason.verify.lexer import Unreadable
from jaxrl_reason.verify.sameness import variables

MAX_ITEMS = 64
MAX_SIGNS = 4  # of plus-minus in one answer

_CONTAINERS = tuple("list set seq matrix union minus some ratio rel based empty such".split())
_INFINITE = ("inf",)


def equal(gold: tuple, answer: tuple, deadline: float) -> bool:
    """Whether two trees (`verify.grammar`) are the same answer.

    Args:
      gold, answer: trees; the relation is symmetric.
      deadline: on the clock of time.monotonic.
    Returns:
      False also where one of them has no value.
    Raises:
      values.OutOfTime: the deadline passed.
    Example:
      >>> from jaxrl_reason.verify import grammar
      >>> equal(grammar.parse("2,1"), grammar.parse("{1, 2}"), float("inf"))
      True
    """
    try:
        return _equal(_normal(gold, deadline), _normal(answer, deadline), deadline)
    except Unreadable:
        return False


def _normal(tree: tuple, deadline: float) -> tuple:
    """Plus-minus written out, inequalities as intervals, names before "=" taken off both sides."""
    if tree[0] == "list":
        items = names.without_counter(list(tree[1:]))
        tree = items[0] if len(items) == 1 else ("list", *items)
    tree = names.counter_named(tree)
    if tree[0] == "rel":
        both = signs.both(tree)
        return _normal_relation(tree, deadline) if len(both) == 1 else ("list", *both)
    if tree[0] in ("list", "set"):
        items = [_normal(item, deadline) for entry in tree[1:] for item in signs.both(entry)]
        flat = []
        for item in items:
            flat += item[1:] if item[0] == "list" else [item]
        if tree[0] == "list" and len(bounded := _bounds(tree, deadline)) == 1:
            return ("some", *bounded.popitem()[1])  # x < 3 or x > 5
        if len(flat) > MAX_ITEMS:
            raise Unreadable(f"over {MAX_ITEMS} entries")
        return (tree[0], *flat)
    if tree[0] in _CONTAINERS:
        return tree
    if tree[0] == "mul" and tree[2][0] == "seq" and tree[1][0] == "var" and tree[1][1].isupper():
        return tree[2]  # the point A(1, 2)
    if tree[0] == "mul" and tree[2][0] == "matrix":
        return (*tree[2][:2], *(("mul", tree[1], entry) for entry in tree[2][2:]))
    readings = signs.written_out(tree)
    return readings[0] if len(readings) == 1 else ("list", *readings)


def _normal_relation(tree: tuple, deadline: float) -> tuple:
    operators, sides = tree[1], list(tree[2:])
    if "~" in operators:
        # x = 1/3 ~ 0.333 says 1/3; x ~ 11 has nothing more exact to say.
        first = operators.index("~")
        if first == 0 and names.is_name(sides[0]) and len(sides) == 2:
            return ("rel", ("=",), *sides)
        exact = ("rel", operators[:first], *sides[: first + 1]) if first else sides[0]
        return _normal(exact, deadline)
    if set(operators) == {"in"} and len(sides) == 2:
        return _normal(sides[1], deadline)
    if set(operators) <= {"<", ">", "<=", ">=", "!="}:
        bounds = _interval(operators, sides, deadline)
        return tree if bounds is None else ("some", bounds)  # 1 < x < 3 is no pair of 1 and 3
    if set(operators) == {"="} and len(sides) > 2:
        # x = 2y = 6: a name and steps towards a value. The steps must agree with one another.
        while len(sides) > 2 and names.group([s[1] if s[0] == "var" else None for s in sides[:2]]):
            sides = sides[1:]  # x_1 = x_2 = 4
        head, rest = (sides[:1], sides[1:]) if names.is_name(sides[0]) else ([], sides)
        for a, b in itertools.pairwise(rest):
            if not equal(a, b, deadline):
                return tree
        return _normal(("rel", ("=",), *head, rest[-1]), deadline) if head else tree
    return tree


def _bounds(tree: tuple, deadline: float) -> dict[str, list[tuple]]:
    """Sets that the entries of a list say of each variable; empty: not all of them say one."""
    found: dict[str, list[tuple]] = {}
    unequal = None
    for item in tree[1:]:
        if unequal and item[0] != "rel":
            item = ("rel", ("!=",), unequal, item)  # x != 2, 3
        if item[0] != "rel":
            return {}
        bounded = [side for side in item[2:] if side[0] == "var" and side != vocabulary.REALS]
        said = _normal(item, deadline)
        if len(bounded) != 1 or not (said[0] == "seq" or realsets.is_set(said)):
            return {}
        unequal = bounded[0] if item[1] == ("!=",) else None
        found.setdefault(bounded[0][1], []).append(said)
    return found


def _interval(operators: tuple[str, ...], sides: list[tuple], deadline: float) -> tuple | None:
    """x > 3 and 1 < x <= 2 as intervals; None where it is no bound on one variable."""
    minus_infinity = ("neg", _INFINITE)
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
    # 0 < f(x) < 1 bounds f(x) as 0 < y < 1 bounds y.
    sides = [
        s[1] if s[0] == "mul" and s[1] in names.CALLED and s[2][0] == "var" else s for s in sides
    ]
    if len(sides) == 2:
        (left, right), operator = sides, operators[0]
        if right[0] == "var" and not variables(left):
            left, right, operator = right, left, turned[operator]
        if left[:2] == ("func", "abs") and not variables(right):
            return _between(left[2], operator, right, deadline)
        if left[0] != "var" or variables(right):
            return _solved(left, operator, right, deadline)
        if operator == "!=":
            return ("minus", vocabulary.REALS, ("set", *signs.written_out(right)))
        if operator[0] == "<":
            return ("seq", "(", "]" if "=" in operator else ")", minus_infinity, right)
        return ("seq", "[" if "=" in operator else "(", ")", right, _INFINITE)
    if len(sides) == 3 and sides[1][0] == "var" and not variables(sides[0]) | variables(sides[2]):
        first, second = operators
        if first[0] == second[0] == ">":
            first, second, sides = turned[second], turned[first], sides[::-1]
        if first[0] == second[0] == "<":
            opener = "[" if "=" in first else "("
            return ("seq", opener, "]" if "=" in second else ")", sides[0], sides[2])
    return None


def _solved(left: tuple, operator: str, right: tuple, deadline: float) -> tuple | None:
    """-x > -1 as an interval; None where it is not linear in one name."""
    line = _line(("add", left, ("neg", right)), deadline)
    if line is None:
        return None
    start, slope = line
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
    bound = ("num", -start / slope)
    sides = [("var", "x"), bound]
    return _interval((operator if slope > 0 else turned[operator],), sides, deadline)


def _line(tree: tuple, deadline: float) -> tuple[Fraction, Fraction] | None:
    """Value at zero and slope of a tree that is linear in its one variable; else None."""
    found = variables(tree)
    if len(found) != 1 or any(node[0] in _CONTAINERS for node in sameness.nodes(tree)):
        return None
    at = [values.evaluate(tree, {n: Fraction(i) for n in found}, deadline) for i in range(4)]
    if not all(isinstance(v, Fraction) for v in at):
        return None
    slope = at[1] - at[0]
    return (at[0], slope) if slope and at[2] - at[1] == slope == at[3] - at[2] else None


def _between(inside: tuple, operator: str, bound: tuple, deadline: float) -> tuple | None:
    """|x - 3| < 5 as an interval, |x - 3| > 5 as two; None where it is not linear in one name."""
    line = None if operator == "!=" else _line(inside, deadline)
    if line is None:
        return None
    start, slope = line
    start, slope = (start, slope) if slope > 0 else (-start, -slope)

    def end(sign: int) -> tuple:
        signed = bound if sign > 0 else ("neg", bound)
        return ("div", ("add", signed, ("num", -start)), ("num", slope))

    closed = "=" in operator
    if operator[0] == "<":
        return ("seq", "[" if closed else "(", "]" if closed else ")", end(-1), end(1))
    below = ("seq", "(", "]" if closed else ")", ("neg", _INFINITE), end(-1))
    return ("union", below, ("seq", "[" if closed else "(", ")", end(1), _INFINITE))


def _equal(a: tuple, b: tuple, deadline: float) -> bool:
    if a == b:
        return True
    a, b = _matched(a, b, deadline)
    if realsets.is_set(a) or realsets.is_set(b):
        first, second = realsets.read(a, deadline), realsets.read(b, deadline)
        if first is not None and second is not None:
            return realsets.equal(first, second)
        a, b = (t[1] if t[0] in ("some", "union") and len(t) == 2 else t for t in (a, b))
        if {a[0], b[0]} & {"list", "set"}:
            return False
    kinds = {a[0], b[0]}
    if kinds == {"such"}:
        return all(
            _equal(_normal(x, deadline), _normal(y, deadline), deadline)
            for x, y in zip(a[1:], b[1:], strict=True)
        )
    if kinds == {"rel"}:
        return _relations_equal(a, b, deadline)
    if "rel" in kinds:
        return False
    if kinds <= {"list", "set"}:
        return _sets_equal(a[1:], b[1:], deadline)
    if kinds in ({"list", "seq"}, {"set", "seq"}, {"seq"}):
        return _sequences_equal(a, b, deadline)
    if kinds == {"ratio"}:
        return _ratios_equal(a[1:], b[1:], deadline)
    if kinds <= {"union", "some"}:
        return _sets_equal(a[1:], b[1:], deadline)
    if kinds == {"minus"}:
        return all(_equal(x, y, deadline) for x, y in zip(a[1:], b[1:], strict=True))
    if kinds in ({"matrix"}, {"matrix", "seq"}, {"matrix", "set"}):
        a, b = _as_matrix(a), _as_matrix(b)
        same_shape = a is not None and b is not None and a[1] == b[1] and len(a) == len(b)
        return same_shape and all(_equal(x, y, deadline) for x, y in zip(a[2:], b[2:], strict=True))
    if len(kinds) == 2 and len(a) == 2 and a[0] in ("list", "set") and b[0] not in _CONTAINERS:
        return _equal(a[1], b, deadline)
    if len(kinds) == 2 and len(b) == 2 and b[0] in ("list", "set") and a[0] not in _CONTAINERS:
        return _equal(a, b[1], deadline)
    if "ratio" in kinds:
        return _ratio_of_value(a, b, deadline)
    if kinds & set(_CONTAINERS):
        return False
    return sameness.expressions_equal(a, b, deadline)


def _matched(a: tuple, b: tuple, deadline: float) -> tuple[tuple, tuple]:
    """Drops "x =" where the other side names nothing, and the same ahead of every list entry."""
    if a[0] == "rel" and b[0] != "rel":
        a = _unnamed(a, deadline)
    elif b[0] == "rel" and a[0] != "rel":
        b = _unnamed(b, deadline)
    if a[0] in ("list", "set") and b[0] in ("list", "set", "seq"):
        names_a, names_b = _names(a), _names(b)
        if names_a and not names_b:
            a = _stripped(a, names_a, deadline)
        elif names_b and not names_a:
            b = _stripped(b, names_b, deadline)
        elif names_a and names_b and (None in names_a) != (None in names_b):
            a, b = (
                _stripped(a, names_a, deadline),
                _stripped(b, names_b, deadline),
            )  # x_1 = 2, x_2 = 3 and x = 2, 3
    elif b[0] in ("list", "set") and a[0] == "seq" and _names(b):
        b = _stripped(b, _names(b), deadline)
    return a, b


def _names(tree: tuple) -> list[str | None] | None:
    """Names of a list whose entries are "x = 1" (or, behind a first "x = 1", bare values)."""
    if tree[0] not in ("list", "set") or tree[1][0] != "rel":
        return None
    found = []
    for item in tree[1:]:
        named = item[0] == "rel" and item[1] == ("=",) and names.is_name(item[2])
        found.append(repr(item[2]) if named else None)
    return found


def _stripped(tree: tuple, said: list[str | None], deadline: float) -> tuple:
    items = tuple(_unnamed(item, deadline) for item in tree[1:])
    given = [n for n in said if n is not None]
    letters = [
        item[2][1] if item[0] == "rel" and item[2][0] == "var" else None for item in tree[1:]
    ]
    if len(set(given)) == 1 or names.group(letters):  # x_1 = 2, x_2 = 3 are two values of x
        return ("list", *items)
    if len(given) == len(items) == len(set(given)):
        # Values of different names: their order is that of the names, as in (x, y).
        order = sorted(range(len(items)), key=lambda i: said[i])
        return ("seq", "(", ")", *(items[i] for i in order))
    return tree


def _unnamed(tree: tuple, deadline: float) -> tuple:
    if tree[0] == "rel" and tree[1] == ("=",) and len(tree) == 4 and names.is_name(tree[2]):
        # x = x + 1 gives x no value. i and e are letters of names here, as in a_i.
        right = tree[3]
        if tree[2][0] != "var" or tree[2][1] not in variables(right):
            return _normal(right, deadline)
    if tree[0] == "rel" and set(tree[1]) == {"="} and not variables(tree):
        sides = tree[2:]
        if all(equal(a, b, deadline) for a, b in itertools.pairwise(sides)):
            return sides[-1]
    return tree


def _relations_equal(a: tuple, b: tuple, deadline: float) -> bool:
    a, b = _ascending(a), _ascending(b)
    if a[1] != b[1] or len(a) != len(b):
        return False
    if all(_equal(x, y, deadline) for x, y in zip(a[2:], b[2:], strict=True)):
        return True
    if a[1] == ("=",) and len(a) == 4 and {a[2], b[2]} & {("var", "y")}:
        given = b[2] if a[2] == ("var", "y") else a[2]  # y = x^2 and f(x) = x^2
        if given[0] == "mul" and given[2] == ("var", "x") and given[1] in names.FUNCTIONS:
            return _equal(a[3], b[3], deadline)
    b = _argument_renamed(a, b)
    if a[1] == ("=",) and len(a) == 4 and (sameness.calls(a, b) or sameness.calls(b, a)):
        return _equal(a[3], b[3], deadline)
    if a[1] not in (("=",), ("<",), ("<=",)) or variables(a) != variables(b):
        return False
    if any(side[0] in _CONTAINERS for side in (*a[2:], *b[2:])):
        return False
    # Equations: left minus right, up to one constant factor; as they stand, or without fractions.
    plain = [("add", t[2], ("neg", t[3])) for t in (a, b)]
    factor = _proportional(*plain, deadline)
    if factor is not None or a[1] != ("=",):
        return factor is not None and (a[1] == ("=",) or _is_positive(factor))
    cleared = [sameness.without_fractions(*t[2:]) for t in (a, b)]
    return (
        None not in cleared and cleared != plain and _proportional(*cleared, deadline) is not None
    )


def _argument_renamed(a: tuple, b: tuple) -> tuple:
    """f(t) = t + 1 as f(x) = x + 1, where the other equation is of f(x)."""
    first, second = a[2], b[2]
    if not (first[0] == second[0] == "mul" and first[1] == second[1] and first[1] in names.CALLED):
        return b
    x, t = first[2], second[2]
    if x == t or not x[0] == t[0] == "var" or x[1] in variables(b):
        return b
    return sameness.renamed(b, t[1], x[1])


def _ascending(tree: tuple) -> tuple:
    turned = {">": "<", ">=": "<="}
    if len(tree[1]) == 1 and tree[1][0] in turned:
        return ("rel", (turned[tree[1][0]],), tree[3], tree[2])
    return tree


def _is_positive(value: numeric.Value) -> bool:
    return value > 0 if isinstance(value, Fraction) else not value.im and value.re > 0


def _proportional(first: tuple, second: tuple, deadline: float) -> numeric.Value | None:
    """The constant by which two expressions differ; None: they differ by more."""
    ratios = []
    for point in sameness.points(variables(first)):
        try:
            x = values.evaluate(first, point, deadline)
            y = values.evaluate(second, point, deadline)
        except Unreadable:
            continue
        if numeric.is_zero(x) or numeric.is_zero(y):
            return None
        ratios.append(
            values.evaluate(("div", _leaf(x, 0), _leaf(y, 1)), {"0": x, "1": y}, deadline)
        )
    same = len(ratios) >= sameness.MIN_POINTS and all(numeric.same(ratios[0], r) for r in ratios)
    return ratios[0] if same else None


def _leaf(value: numeric.Value, name: int) -> tuple:
    return ("num", value) if isinstance(value, Fraction) else ("var", str(name))


def _sets_equal(a: tuple, b: tuple, deadline: float) -> bool:
    if max(len(a), len(b)) > MAX_ITEMS:
        return False

    def within(items: tuple, others: tuple) -> bool:
        return all(any(_equal(x, y, deadline) for y in others) for x in items)

    return within(a, b) and within(b, a)


def _sequences_equal(a: tuple, b: tuple, deadline: float) -> bool:
    if "set" in (a[0], b[0]):
        return False
    brackets = {t[1:3] for t in (a, b) if t[0] == "seq"}
    if len(brackets) > 1 or "list" in (a[0], b[0]) and brackets != {("(", ")")}:
        return False
    x, y = (t[3:] if t[0] == "seq" else t[1:] for t in (a, b))
    return len(x) == len(y) and all(_equal(p, q, deadline) for p, q in zip(x, y, strict=True))


def _ratios_equal(a: tuple, b: tuple, deadline: float) -> bool:
    if len(a) != len(b):
        return False
    products = (
        (("mul", a[0], b[i]), ("mul", a[i], b[0])) for i in range(1, len(a))
    )  # a0 : ai = b0 : bi
    return all(sameness.expressions_equal(x, y, deadline) for x, y in products)


def _ratio_of_value(a: tuple, b: tuple, deadline: float) -> bool:
    """3:4 and 3/4; but 2:1 is no 2."""
    ratio, other = (a, b) if a[0] == "ratio" else (b, a)
    if len(ratio) != 3 or other[0] in _CONTAINERS or variables(other):
        return False
    value = values.evaluate(other, {}, deadline)
    if isinstance(value, Fraction) and value.denominator == 1:
        return False
    return sameness.expressions_equal(("div", *ratio[1:]), other, deadline)


def _as_matrix(tree: tuple) -> tuple | None:
    """[[1, 2], [3, 4]] is a matrix too, and one column of it a vector in round brackets."""
    if tree[0] == "matrix":
        return tree
    rows = tree[3:] if tree[0] == "seq" else tree[1:]
    if all(row[0] in ("seq", "set") for row in rows):
        entries = [row[3:] if row[0] == "seq" else row[1:] for row in rows]
        if len({len(row) for row in entries}) == 1:
            return ("matrix", len(entries[0]), *(e for row in entries for e in row))
    if tree[0] == "seq" and tree[1:3] == ("(", ")"):
        return ("matrix", 1, *rows)
    return None
