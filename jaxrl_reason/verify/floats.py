"""Gold answers that a program printed: 0.30000000000000004 for 0.3.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import re
from fractions import Fraction

DIGITS = 16  # of a number, from which on nobody wrote it
ERROR = Fraction(1, 10**14)  # relative, of a few operations on floats

_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,15})\.\d{1,20}")


def is_float(text: str) -> bool:
    """Whether a decimal has the digits of a float that was rounded.

    Example:
      >>> is_float("56.99999999999999"), is_float("3.14159")
      (True, False)
    """
    return (
        _DECIMAL.fullmatch(text) is not None and len(text.lstrip("-0.").replace(".", "")) >= DIGITS
    )


def same(text: str, gold: Fraction, value: Fraction) -> bool:
    """Whether a value is the gold one: exactly, or to what floats keep where `text` is one.

    Example:
      >>> same("0.3333333333333333", Fraction("0.3333333333333333"), Fraction(1, 3))
      True
    """
    return value == gold or is_float(text) and abs(value - gold) <= abs(gold) * ERROR
