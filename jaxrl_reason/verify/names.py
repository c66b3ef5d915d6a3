r"""What may stand before "=" as a mere name of the value behind it, and names that say nothing.

Host side. Reads: nothing. Writes: nothing.

|AB| = 1, NO/BO = 1/3, S_1:S = 7:32 and \tan\theta = 3/4 name what is 1, 1/3, 7:32, 3/4; 2x = 10 and
x^2 + y^2 = 4 are equations, whose right sides are no answers.
"""

from __future__ import annotations

import re
from fractions import Fraction

from jaxrl_reason.verify import sameness, vocabulary

_DIFFERENTIALS = [("var", "d"), ("var", "partial")]
_CALLED = [("var", f) for f in "fghFGH"]
_INVERSES = [("pow", ("var", f), ("neg", ("num", Fraction(1)))) for f in "fgh"]  # f^{-1}(x)
FUNCTIONS = _CALLED + _INVERSES
CALLED = _CALLED
_NUMBERED = re.compile(r"([A-Za-z]|[a-z]{2,8})_?([0-9]{1,2})'*")
_INTEGERS = frozenset(("mathbb Z", "Z"))
_COUNTERS = ("k", "m", "l", "n")  # what whole numbers are called where nothing else is said


def is_name(tree: tuple) -> bool:
    """A variable, a function of variables, or a quantity of named things."""
    if tree[0] == "var":
        return True
    if tree[0] == "seq":
        return all(n[0] == "var" for n in tree[3:])
    if tree[0] == "mul":
        if tree[1] in _INVERSES:
            return tree[2][0] == "var"
        called = tree[1][0] == "var" and tree[2][0] in ("var", "num", "seq", "mul", "const")
        return called or _is_quantity(tree)
    if tree[0] == "div":  # m/n = 5/9, dy/dx = 2x
        parts = [n[2] if n[0] == "mul" and n[1] in _DIFFERENTIALS else n for n in tree[1:]]
        return parts[0][0] == parts[1][0] == "var" or _is_quantity(tree)
    if tree[0] == "func" and len(tree) > 2 and all(n[0] == "var" for n in tree[2:]):
        return True
    return _is_quantity(tree)


def _is_quantity(tree: tuple) -> bool:
    """Lengths, areas, angles, vectors and what is made of them; no unknown is among them."""
    found = sameness.variables(tree)
    if "angle" in found:
        found.discard("m")  # the measure of an angle
    if not found or any(name in "xyztn" for name in found if len(name) == 1):
        return False
    if not all(_names_a_thing(name) for name in found):
        return False
    return all(_builds(node) for node in sameness.nodes(tree))


def _builds(node: tuple) -> bool:
    if node[0] == "num":
        return node[1].denominator == 1 and 1 < node[1] < 10  # cos 2A, sin^2 A
    return node[0] in ("var", "func", "mul", "div", "add", "neg", "ratio", "pow")


def _names_a_thing(name: str) -> bool:
    plain = name.rstrip("'")
    if plain in vocabulary.LETTERS or " " in plain or "_" in plain:
        return True  # a Greek letter, an accent or a number on it
    return plain.isupper()


def group(names: list[str | None]) -> str | None:
    """The letter that all of the names number: x of x_1, x_2; None: they are not of one letter."""
    matches = [_NUMBERED.fullmatch(name or "") for name in names]
    if len(names) < 2 or None in matches or len({m[2] for m in matches}) < len(names):
        return None
    letters = {m[1] for m in matches}
    return letters.pop() if len(letters) == 1 else None


def without_counter(items: list[tuple]) -> list[tuple]:
    """Entries of a list without "n is whole", and with one name for that n."""
    kept, counters = [], []
    for item in items:
        whole = item[0] == "rel" and item[1] == ("in",) and item[3][0] == "var"
        if whole and item[2][0] == "var" and item[3][1] in _INTEGERS:
            counters.append(item[2][1])
        else:
            kept.append(item)
    if (
        len(counters) != 1
        or not kept
        or not any(counters[0] in sameness.variables(k) for k in kept)
    ):
        return items
    return [sameness.renamed(item, counters[0], "n") for item in kept]


def counter_named(tree: tuple) -> tuple:
    r"""pi/6 + 2k pi with the one name n for a k of which nothing is said."""
    if ("const", "pi") not in sameness.nodes(tree) and not any(
        n[0] == "deg" for n in sameness.nodes(tree)
    ):
        return tree
    found = sameness.variables(tree[3] if tree[0] == "rel" and len(tree) == 4 else tree)
    if len(found) == 1 and (name := found.pop()) in _COUNTERS:
        return sameness.renamed(tree, name, "n")
    return tree


def built(head: tuple, condition: tuple) -> tuple | None:
    """A set {head : condition} as ("such", head, condition), its variables numbered; None: they share none.

    The condition alone is the set where the head is one variable of the reals.
    """
    if head[0] == "rel" and head[1] == ("in",) and head[2][0] == "var":
        if head[3] == vocabulary.REALS:
            head = head[2]
        else:
            head, condition = head[2], ("list", head, condition)
    names = [n[1] for n in sameness.nodes(head) if n[0] == "var"]
    of_condition = sameness.variables(condition)
    bound = [name for name in dict.fromkeys(names) if name in of_condition]
    if not bound:
        return None
    for i, name in enumerate(bound):
        head, condition = (sameness.renamed(t, name, f"#{i}") for t in (head, condition))
    if head == ("var", "#0") and not (condition[0] == "rel" and condition[1] == ("in",)):
        if condition[0] != "list" or all(c[0] == "rel" and c[1] != ("in",) for c in condition[1:]):
            return (
                sameness.renamed(condition, "#0", "x")
                if "x" not in of_condition - {bound[0]}
                else None
            )
    return ("such", head, condition)
