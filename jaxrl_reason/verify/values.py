"""Value of an expression tree, by exact steps where possible.

Host side. Reads: nothing. Writes: nothing.

A clock is looked at in every node and no single step is large (`verify.numeric`), so the time of an
evaluation is bounded whatever the expression says.
"""

from __future__ import annotations

import decimal
import functools
import math
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction

from jaxrl_reason.verify import numeric
from jaxrl_reason.verify.lexer import Unreadable
from jaxrl_reason.verify.numeric import Complex, Value


class OutOfTime(Exception):
    """The deadline of this check has passed."""


def evaluate(
    node: tuple,
    variables: Mapping[str, Value],
    deadline: float,
    digits: int = numeric.PRECISION,
) -> Value:
    """Value of an expression tree (`verify.grammar`).

    Args:
      node: expression; sequences, relations and text have no value.
      variables: a value for every variable.
      deadline: on the clock of time.monotonic.
      digits: of a value that is not rational.
    Returns:
      Fraction where the value is rational and was reached by exact steps; else Complex.
    Raises:
      Unreadable: no value, undefined (division by zero), or beyond the size limits.
      OutOfTime: the deadline passed.
    Example:
      >>> evaluate(("div", ("num", Fraction(1)), ("num", Fraction(3))), {}, float("inf"))
      Fraction(1, 3)
    """
    with decimal.localcontext(numeric.context(digits)):
        try:
            return _evaluate(node, variables, deadline)
        except (ArithmeticError, ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"{node[0]}: {type(error).__name__} {error}"[:200]) from error


def _evaluate(node: tuple, variables: Mapping[str, Value], deadline: float) -> Value:
    kind = node[0]
    if kind == "num":
        return node[1]
    if time.monotonic() > deadline:
        raise OutOfTime
    if kind == "var":
        return variables[node[1]]
    if kind == "const":
        return _constant(node[1], decimal.getcontext().prec)
    rule, operands = _RULES.get(kind), node[1:]
    if kind == "func":
        rule, operands = FUNCTIONS[node[1]], node[2:]
    if rule is None:
        raise Unreadable(f"a {kind} has no value")
    return numeric.bounded(rule(*[_evaluate(n, variables, deadline) for n in operands]))


@functools.cache
def _constant(name: str, digits: int) -> Value:
    if name == "i":
        return _I
    context = numeric.context(digits)
    value = context.plus(numeric.PI) if name == "pi" else context.exp(Decimal(1))
    return Complex(value, numeric.ZERO)


def _pi() -> Value:
    return _constant("pi", decimal.getcontext().prec)


_RULES: dict[str, Callable[..., Value]] = {
    "add": numeric.add,
    "neg": numeric.neg,
    "mul": numeric.mul,
    "div": numeric.div,
    "pow": numeric.power,
    "root": numeric.root,
    "fact": numeric.factorial,
    "binom": numeric.binomial,
    "pct": lambda a: numeric.div(a, Fraction(100)),
    "deg": lambda a: numeric.mul(a, numeric.div(_pi(), Fraction(180))),
}

_ONE = Fraction(1)
_I = Complex(numeric.ZERO, Decimal(1))


def _cos(a: Value) -> Value:
    z = numeric.to_complex(a)
    if not z.im:
        return Complex(numeric.cos_sin(z.re)[0], numeric.ZERO)
    turned = numeric.mul(_I, z)
    both = numeric.add(numeric.exp(turned), numeric.exp(numeric.neg(turned)))
    return numeric.div(both, Fraction(2))


def _sin(a: Value) -> Value:
    z = numeric.to_complex(a)
    if not z.im:
        return Complex(numeric.cos_sin(z.re)[1], numeric.ZERO)
    turned = numeric.mul(_I, z)
    both = numeric.add(numeric.exp(turned), numeric.neg(numeric.exp(numeric.neg(turned))))
    return numeric.div(both, numeric.mul(Fraction(2), _I))


def _tan(a: Value) -> Value:
    return numeric.div(_sin(a), _cos(a))


def _arctan(a: Value) -> Value:
    z = numeric.to_complex(a)
    if not z.im:
        return Complex(numeric.arctan(z.re), numeric.ZERO)
    turned = numeric.mul(_I, z)
    top = numeric.log(numeric.add(_ONE, turned))
    bottom = numeric.log(numeric.add(_ONE, numeric.neg(turned)))
    return numeric.div(numeric.add(top, numeric.neg(bottom)), numeric.mul(Fraction(2), _I))


def _arcsin(a: Value) -> Value:
    # -i log(i a + sqrt(1 - a^2))
    rest = numeric.add(_ONE, numeric.neg(numeric.mul(a, a)))
    inner = numeric.add(numeric.mul(_I, a), numeric.root(Fraction(2), rest))
    return numeric.neg(numeric.mul(_I, numeric.log(inner)))


def _arccos(a: Value) -> Value:
    return numeric.add(numeric.div(_pi(), Fraction(2)), numeric.neg(_arcsin(a)))


def _sinh(a: Value) -> Value:
    both = numeric.add(numeric.exp(a), numeric.neg(numeric.exp(numeric.neg(a))))
    return numeric.div(both, Fraction(2))


def _cosh(a: Value) -> Value:
    return numeric.div(numeric.add(numeric.exp(a), numeric.exp(numeric.neg(a))), Fraction(2))


def _log_to_base(base: Value, a: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(a, Fraction) and base > 1 and a > 0:
        quotient = numeric.div(numeric.log(a), numeric.log(base)).re
        nearest = Fraction(round(quotient))
        if abs(nearest) < 1000 and numeric.power(base, nearest) == a:
            return nearest
        return Complex(quotient, numeric.ZERO)
    return numeric.div(numeric.log(a), numeric.log(base))


def _modulus(a: Value) -> Value:
    if isinstance(a, Fraction):
        return abs(a)
    if not a.im:
        return Complex(abs(a.re), numeric.ZERO)
    return Complex((a.re * a.re + a.im * a.im).sqrt(), numeric.ZERO)


def _whole(a: Value, rounded: Callable) -> Fraction:
    if not isinstance(a, Fraction):
        if a.im or abs(a.re) > 10**30:
            raise Unreadable("rounding of no real number, or of too large a number")
        a = Fraction(a.re)
    return Fraction(rounded(a))


def _integers(*values: Value) -> list[int]:
    if not all(isinstance(v, Fraction) and v.denominator == 1 for v in values):
        raise Unreadable("whole numbers are needed")
    return [int(v) for v in values]


def _real_part(a: Value) -> Fraction | Decimal:
    return a if isinstance(a, Fraction) else Fraction(a.re)


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "sin": _sin,
    "cos": _cos,
    "tan": _tan,
    "cot": lambda a: numeric.div(_cos(a), _sin(a)),
    "sec": lambda a: numeric.div(_ONE, _cos(a)),
    "csc": lambda a: numeric.div(_ONE, _sin(a)),
    "arcsin": _arcsin,
    "arccos": _arccos,
    "arctan": _arctan,
    "arccot": lambda a: _arctan(numeric.div(_ONE, a)),
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": lambda a: numeric.div(_sinh(a), _cosh(a)),
    "exp": numeric.exp,
    "ln": lambda a: Fraction(0) if a == 1 else numeric.log(a),
    "log": lambda a: _log_to_base(Fraction(10), a),
    "log_base": _log_to_base,
    "abs": _modulus,
    "floor": lambda a: _whole(a, math.floor),
    "ceil": lambda a: _whole(a, math.ceil),
    "gcd": lambda *a: Fraction(math.gcd(*_integers(*a))),
    "lcm": lambda *a: Fraction(math.lcm(*_integers(*a))),
    "max": lambda *a: max(a, key=_real_part),
    "min": lambda *a: min(a, key=_real_part),
}
