r"""Arithmetic expressions over given numbers: what they are worth, and which numbers they use.

Host side. Reads: nothing. Writes: nothing.

Read by `verify.grammar`, so that no text is ever evaluated as a program. Of its trees only whole
numbers and the four operations are let through, and the numbers are compared before anything is
computed: what is computed is then as small as the numbers that were given.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from jaxrl_reason.verify import grammar, lexer
from jaxrl_reason.verify.lexer import Unreadable

MAX_CHARS = 2000  # of an expression that is read
_OPERATIONS = frozenset(("add", "mul", "div", "neg"))


class Expression(NamedTuple):
    """A tree of whole numbers and operations, and the value behind its "=", where there is one."""

    tree: tuple
    numbers: tuple[int, ...]  # as they occur, left to right
    claimed: Fraction | None


def read(text: str) -> Expression:
    r"""An expression of whole numbers, + - * / and brackets; "= 24" may stand behind it.

    Args:
      text: an answer, in plain text or LaTeX.
    Returns:
      Expression, nothing of it computed.
    Raises:
      Unreadable: anything else: powers, decimals, functions, names, over MAX_CHARS characters.
    Example:
      >>> read("(8 - 3) * 5 = 25").numbers
      (8, 3, 5)
    """
    if len(text) > MAX_CHARS:
        raise Unreadable(f"over {MAX_CHARS} characters")
    try:
        tree = grammar.parse(lexer.clean(text))
        claimed = None
        if tree[0] == "rel" and tree[1] == ("=",):
            tree, right = tree[2:]
            claimed = value(right) if _leaves(right) else None
        return Expression(tree, _leaves(tree), claimed)
    except (RecursionError, ArithmeticError) as error:
        raise Unreadable(f"{type(error).__name__}") from error


def _leaves(tree: tuple) -> tuple[int, ...]:
    found, stack = [], [tree]
    while stack:
        node = stack.pop()
        if node[0] == "num":
            if node[1].denominator != 1:
                raise Unreadable("a number that is not whole")
            found.append(int(node[1]))
        elif node[0] in _OPERATIONS:
            stack += reversed(node[1:])
        else:
            raise Unreadable(f"{node[0]!r}: only + - * / and brackets are allowed")
    return tuple(found)


def value(tree: tuple) -> Fraction:
    """Exact value of a tree of whole numbers and the four operations.

    Raises:
      ZeroDivisionError: it divides by zero.
    Example:
      >>> value(read("8 / (3 - 8 / 3)").tree)
      Fraction(24, 1)
    """
    if tree[0] == "num":
        return tree[1]
    if tree[0] == "neg":
        return -value(tree[1])
    left, right = value(tree[1]), value(tree[2])
    if tree[0] == "add":
        return left + right
    return left * right if tree[0] == "mul" else left / right


def judge(text: str, numbers: Sequence[int], target: int, *, use_all: bool) -> str:
    """Whether an expression makes the target of the numbers.

    Args:
      text: the answer.
      numbers: each may be used once for each time that it is here.
      target: what must come out.
      use_all: each must be used; otherwise some may be left over.
    Returns:
      "correct"; "wrong": other numbers, another value, or a false "= n" behind it; "unparsable": no expression, or one
      without a value.
    Example:
      >>> judge("(8 - 3) * 5", [3, 5, 8], 25, use_all=True), judge("5 * 5", [3, 5, 8], 25, use_all=False)
      ('correct', 'wrong')
    """
    try:
        expression = read(text)
        used, given = collections.Counter(expression.numbers), collections.Counter(numbers)
        if used != given if use_all else not used <= given:
            return "wrong"
        made = value(expression.tree)
    except (Unreadable, ZeroDivisionError):
        return "unparsable"
    right = made == target and expression.claimed in (None, made)
    return "correct" if right else "wrong"
