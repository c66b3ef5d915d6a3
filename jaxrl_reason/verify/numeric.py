"""Values of expressions: exact rationals where possible, else complex numbers of fifty digits or more.

Host side. Reads: nothing. Writes: nothing.

Sizes are checked before anything large is computed. Functions expect decimal's context to be
one of `context`; what is undefined raises an ArithmeticError, as decimal itself does.
"""

from __future__ import annotations

import decimal
import functools
import math
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from jaxrl_reason.verify.lexer import Unreadable

PRECISION = 50  # digits that are carried
MORE_PRECISION = 150  # where two values agree at the first, so that pi + 10^{-31} is not pi
_DISAGREEMENT = 20  # last digits in which two irrational values that are one may differ
_NOISE = 8  # last digits that may be left of a sum whose terms cancel
MAX_BITS = 60_000  # of an exact integer
MAX_FACTORIAL = 4000
_MAX_ANGLE = Decimal(10) ** 6

PI = Decimal(
    "3.1415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679"
    "8214808651328230664709384460955058223172535940812848111745028410270193852110555964462294895493038196"
)


class Complex(NamedTuple):
    """Real and imaginary part, of the digits of the context."""

    re: Decimal
    im: Decimal


Value = Fraction | Complex
ZERO = Decimal(0)


@functools.cache
def context(digits: int = PRECISION) -> decimal.Context:
    """Decimal's context for values of so many digits."""
    return decimal.Context(prec=digits, Emax=999_999, Emin=-999_999)


def _noise() -> Decimal:
    return Decimal(10) ** (_NOISE - decimal.getcontext().prec)


def same(a: Value, b: Value, digits: int = PRECISION) -> bool:
    """Whether two values are one: exactly if both are rational, else to all but the last twenty digits.

    Example:
      >>> same(Fraction(1, 3), Fraction(333333, 1000000))
      False
    """
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    try:
        with decimal.localcontext(context(digits)):
            x, y = to_complex(a), to_complex(b)
            scale = max(size(x), size(y))
            return size(Complex(x.re - y.re, x.im - y.im)) <= scale.scaleb(_DISAGREEMENT - digits)
    except decimal.DecimalException:
        return False


def to_complex(value: Value) -> Complex:
    """The same value as two decimals."""
    if isinstance(value, Complex):
        return value
    return Complex(Decimal(value.numerator) / Decimal(value.denominator), ZERO)


def is_zero(value: Value) -> bool:
    """Whether a value is exactly zero."""
    return value == 0 if isinstance(value, Fraction) else not (value.re or value.im)


def bounded(value: Value) -> Value:
    """The value itself; Unreadable if it is not finite or over MAX_BITS."""
    if isinstance(value, Fraction):
        if value.numerator.bit_length() + value.denominator.bit_length() > 2 * MAX_BITS:
            raise Unreadable("too large a number")
        return value
    if not (value.re.is_finite() and value.im.is_finite()):
        raise Unreadable("no finite value")
    return value


def size(z: Complex) -> Decimal:
    """The larger part, without its sign."""
    return max(abs(z.re), abs(z.im))


def add(a: Value, b: Value) -> Value:
    """a + b; terms that cancel leave zero and no rounding error."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a + b
    x, y = to_complex(a), to_complex(b)

    def part(p: Decimal, q: Decimal) -> Decimal:
        # sqrt(2) - sqrt(2), reached on two ways, is zero and not the rounding error of the last digit.
        total = p + q
        return ZERO if abs(total) < _noise() * max(abs(p), abs(q)) else total

    return Complex(part(x.re, y.re), part(x.im, y.im))


def neg(a: Value) -> Value:
    """-a."""
    return -a if isinstance(a, Fraction) else Complex(-a.re, -a.im)


def mul(a: Value, b: Value) -> Value:
    """a b."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    x, y = to_complex(a), to_complex(b)
    if not x.im and not y.im:
        return Complex(x.re * y.re, ZERO)
    return add(Complex(x.re * y.re, x.re * y.im), Complex(-x.im * y.im, x.im * y.re))


def div(a: Value, b: Value) -> Value:
    """a / b; ZeroDivisionError where b is zero."""
    if is_zero(b):
        raise ZeroDivisionError
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a / b
    y = to_complex(b)
    if not y.im:
        x = to_complex(a)
        return Complex(x.re / y.re, x.im / y.re)
    norm = y.re * y.re + y.im * y.im
    return mul(a, Complex(y.re / norm, -y.im / norm))


def power(a: Value, b: Value) -> Value:
    """a^b, principal branch; exact where both are rational and the result is."""
    if isinstance(b, Fraction) and b.denominator == 1 and abs(b) <= MAX_BITS:
        n = int(b)
        if is_zero(a) and n <= 0:
            raise ZeroDivisionError
        if isinstance(a, Fraction):
            bits = max(a.numerator.bit_length(), a.denominator.bit_length())
            if abs(a) == 1 or a == 0 or bits * abs(n) <= MAX_BITS:
                return a**n
        elif abs(n) <= 64:
            product = to_complex(Fraction(1))
            for _ in range(abs(n)):
                product = mul(product, a)
            return product if n >= 0 else div(Fraction(1), product)
    if is_zero(a):
        if isinstance(b, Fraction) and b > 0:
            return Fraction(0)
        raise ZeroDivisionError
    if isinstance(a, Fraction) and a > 0 and isinstance(b, Fraction) and b.denominator <= 64:
        root = _exact_root(a, b.denominator)
        if root is not None and b.denominator > 1:
            return power(root, Fraction(b.numerator))
    return exp(mul(b, log(a)))


def _exact_root(a: Fraction, n: int) -> Fraction | None:
    top, bottom = _integer_root(a.numerator, n), _integer_root(a.denominator, n)
    return None if top is None or bottom is None else Fraction(top, bottom)


def _integer_root(a: int, n: int) -> int | None:
    if a < 2 or n == 1:
        return a
    if n == 2:
        root = math.isqrt(a)
        return root if root * root == a else None
    # Newton's steps from just above, where the logarithm puts it: a dozen, however long the number.
    bits = math.log2(a) / n
    shift = max(0, int(bits) - 50)
    root = int(2.0 ** (bits - shift) * (1 + 1e-9)) + 2 << shift
    while (lower := ((n - 1) * root + a // root ** (n - 1)) // n) < root:
        root = lower
    return root if root**n == a else None


def root(n: Value, a: Value) -> Value:
    """Root of a whole degree; of a negative number the real one where the degree is odd."""
    if not isinstance(n, Fraction) or n.denominator != 1 or not 1 <= n <= 1000:
        raise Unreadable("a root of odd degree of a number")
    degree = int(n)
    if isinstance(a, Fraction):
        if a < 0 and degree % 2:
            return neg(root(n, -a))
        if a >= 0:
            exact = _exact_root(a, degree)
            if exact is not None:
                return exact
    return _square_root(a) if degree == 2 else power(a, 1 / n)


def _square_root(a: Value) -> Value:
    z = to_complex(a)
    if not z.im:
        size = abs(z.re).sqrt()
        return Complex(size, ZERO) if z.re >= 0 else Complex(ZERO, size)
    return power(a, Fraction(1, 2))


def exp(a: Value) -> Complex:
    """The exponential function."""
    z = to_complex(a)
    size = z.re.exp()
    if not z.im:
        return Complex(size, ZERO)
    cos, sin = cos_sin(z.im)
    return Complex(size * cos, size * sin)


def log(a: Value) -> Complex:
    """The natural logarithm, principal branch."""
    z = to_complex(a)
    if is_zero(z):
        raise ZeroDivisionError
    if not z.im:
        return Complex(abs(z.re).ln(), ZERO if z.re > 0 else +PI)
    return Complex((z.re * z.re + z.im * z.im).ln() / 2, _angle(z))


def cos_sin(x: Decimal) -> tuple[Decimal, Decimal]:
    """Cosine and sine of a real angle."""
    if abs(x) > _MAX_ANGLE:
        raise Unreadable("too large an angle")
    digits, noise = decimal.getcontext().prec, _noise()
    with decimal.localcontext(decimal.Context(prec=digits + 12)):
        x = x.remainder_near(2 * PI)
        x /= 16  # halves the work of the series; undone by doubling the angle four times
        cos, sin, term = Decimal(1), ZERO, Decimal(1)
        for n in range(1, digits + 10):
            term = term * x / n
            if n % 2:
                sin += term if n % 4 == 1 else -term
            else:
                cos += term if n % 4 == 0 else -term
            if abs(term) < Decimal(10) ** -(digits + 10):
                break
        for _ in range(4):
            cos, sin = cos * cos - sin * sin, 2 * sin * cos
    return tuple(ZERO if abs(v) < noise else +v for v in (cos, sin))


def arctan(x: Decimal) -> Decimal:
    """Arc tangent of a real number."""
    if abs(x) > 1:
        return (PI / 2).copy_sign(x) - arctan(1 / x)
    for _ in range(4):  # halve the angle until the series is short
        x = x / (1 + (1 + x * x).sqrt())
    total, power, n = ZERO, x, 1
    smallest = Decimal(10) ** -(decimal.getcontext().prec + 4)
    while abs(power) > smallest:
        total += power / n if n % 4 == 1 else -power / n
        power *= x * x
        n += 2
    return 16 * total


def _angle(z: Complex) -> Decimal:
    if not z.re:
        return (PI / 2).copy_sign(z.im)
    angle = arctan(z.im / z.re)
    return angle if z.re > 0 else angle + PI.copy_sign(z.im)


def factorial(a: Value) -> Value:
    """a!, of whole numbers up to MAX_FACTORIAL."""
    if not isinstance(a, Fraction) or a.denominator != 1 or not 0 <= a <= MAX_FACTORIAL:
        raise Unreadable("factorial of no number, or of too large a number")
    return Fraction(math.factorial(int(a)))


def binomial(n: Value, k: Value) -> Value:
    """n over k, of whole numbers up to MAX_FACTORIAL."""
    whole = [v for v in (n, k) if isinstance(v, Fraction) and v.denominator == 1]
    if len(whole) != 2 or not 0 <= k <= n <= MAX_FACTORIAL:
        raise Unreadable("binomial of no numbers, or of too large numbers")
    return Fraction(math.comb(int(n), int(k)))
