r"""Gold answers as data sets write them, to one text each; what is no answer is told apart, with a reason.

Host side. Reads: nothing. Writes: nothing.

A number of a JSON file, or of a column of floats, is mostly the outcome of a computation: 0.1 + 0.2 is stored as
0.30000000000000004. Which number was meant is decided here, once, and the verifier goes on comparing exactly. Of all
numbers within FLOAT_ULPS units in the last place of the float, it is

1. the decimal of fewest digits, if it has at most FLOAT_DIGITS of them: 0.3, 57, 3.3;
2. else the simplest fraction, if its denominator is at most FLOAT_DENOMINATOR: 1/3, 22/7;
3. else the square root, or the multiple of pi, of a fraction with small terms: \sqrt{2}, \frac{2\pi}{3};
4. else the float as it is written.

The same holds of a text that spells a float out to 16 digits or more, as a CSV file does.
"""

from __future__ import annotations

import decimal
import json
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from jaxrl_reason.tasks.records import Unusable, is_number
from jaxrl_reason.verify import answers

FLOAT_ULPS = 4  # a few roundings, each of at most half a unit in the last place
FLOAT_DIGITS = 12
FLOAT_DENOMINATOR = 100_000
_SMALL = 1000  # terms of what stands under a root or before pi
_SPELT_OUT = re.compile(r"[+-]?\d+\.\d+(?:[eE][+-]?\d+)?")

# Texts that say that no answer stands here; another field of the record may have it.
MISSING = frozenset(
    "n/a,na,n.a,#n/a,#na,<na>,none,null,nil,nan,unknown,not found,notfound,not available,unavailable,not given,"
    "not provided,not specified,not applicable,no answer,no final answer,no answer found,no answer provided,"
    "answer not found,missing,tbd,todo,to be determined,see solution,see the solution,see solutions,see above,"
    "see below,see explanation,see proof,see the proof,see answer,see text,see figure,-,--,---,?,??,???,...,…,[],{},"
    "(),\"\",'',[object object],error,invalid".split(",")
)
# Texts that say that no answer is asked for.
PROOFS = frozenset(
    "proof,proofs,the proof,proved,proven,prove,prove it,qed,q.e.d,proof required,proof omitted,proof needed,"
    "proof problem,proof question".split(",")
)
_WRAP = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|mathrm|mbox|textrm|mathbf)\s*\{([^{}]*)\}")
_WORD = re.compile(r"[^\W\d_]+")
# What stands around an answer without being a step towards it.
_FILLING = frozenset(
    "a an and answer answers are be boxed correct equal equals fbox final finally get hence have i is it mathbf mathrm"
    " of our result so solution text textbf that the then therefore this thus to value we which".split()
)


def number_text(value: int | float | decimal.Decimal) -> str:
    r"""The number that was meant, as text that the verifier reads; see the top of this module.

    Args:
      value: finite.
    Returns:
      A whole number, a decimal, a fraction, or a root or multiple of pi in TeX.
    Example:
      >>> [number_text(x) for x in (0.1 + 0.2, 1 / 3, 0.57 * 100, 27.0, math.sqrt(2), 1e23)]
      ['0.3', '1/3', '57', '27', '\\sqrt{2}', '100000000000000000000000']
    """
    if isinstance(value, decimal.Decimal):
        return _plain(value)
    if isinstance(value, int):
        return str(value)
    value = float(value)  # of NumPy's, which show themselves otherwise
    short = _shortest(value)
    if len(short.as_tuple().digits) <= FLOAT_DIGITS:
        return _plain(short)
    sign, size = "-" if value < 0 else "", abs(Fraction(value))
    margin = FLOAT_ULPS * Fraction(math.ulp(value))
    found = simplest(size - margin, size + margin)
    if found.denominator <= FLOAT_DENOMINATOR:
        return f"{sign}{found}"
    return sign + (_irrational(abs(value)) or _plain(decimal.Decimal(repr(abs(value)))))


def _shortest(value: float) -> decimal.Decimal:
    """The decimal of fewest digits within FLOAT_ULPS of a float."""
    exact, margin = Fraction(value), FLOAT_ULPS * Fraction(math.ulp(value))
    for digits in range(1, FLOAT_DIGITS + 1):
        found = decimal.Decimal(f"{value:.{digits - 1}e}")
        if abs(Fraction(found) - exact) <= margin:
            return found.normalize()
    return decimal.Decimal(repr(value))


def _plain(value: decimal.Decimal) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def simplest(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of smallest denominator in [low, high], both >= 0.

    Example:
      >>> simplest(Fraction(33, 100), Fraction(34, 100))
      Fraction(1, 3)
    """
    whole = math.ceil(low)
    if whole <= high:
        return Fraction(whole)
    whole -= 1
    return whole + 1 / simplest(1 / (high - whole), 1 / (low - whole))


def _irrational(size: float) -> str | None:
    margin = Fraction(FLOAT_ULPS + 2) * Fraction(
        math.ulp(1.0)
    )  # relative; squares and quotients round too
    for quantity, text in (
        (Fraction(size) ** 2, "\\sqrt{{{}}}"),
        (Fraction(size / math.pi), "{}\\pi"),
    ):
        found = simplest(quantity * (1 - 2 * margin), quantity * (1 + 2 * margin))
        if max(found.numerator, found.denominator) <= _SMALL:
            whole = (
                str(found.numerator)
                if found.denominator == 1
                else f"\\frac{{{found.numerator}}}{{{found.denominator}}}"
            )
            return text.format("" if whole == "1" else whole)
    return None


def text_of(name: str, value: Any, *, several: bool) -> str | None:
    """The gold answer that a field holds; None where it says that it holds none.

    Args:
      name: of the field, for messages.
      value: of any type.
      several: a list holds several answers, all of which belong to the gold one; else they are ways to write one.
    Returns:
      Text, or None for null, NaN, an empty text or list, and a text of MISSING.
    Raises:
      Unusable: a text of PROOFS; a value that is no answer; a list of different answers, with `several` False.
    Example:
      >>> text_of("answer", '["5"]', several=False), text_of("answer", "N/A", several=False)
      ('5', None)
    """
    if isinstance(value, str):
        return _of_text(value, several)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return _of_list(name, value, several)
    if isinstance(value, decimal.Decimal) or is_number(value):
        if math.isfinite(value):
            return number_text(value)
        if math.isnan(value):
            return None
    if value is None:
        return None
    raise Unusable(f"field {name} is no answer", shown(value))


def _of_text(value: str, several: bool) -> str | None:
    text = value.strip()
    if text.startswith(('["', '[ "')) and text.endswith("]"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list) and all(isinstance(item, str) for item in found):
            return _of_list("answer", found, several)
    word = placeholder(text)
    if word in PROOFS:
        raise Unusable("a proof is asked for, and no answer", repr(text))
    if not word or word in MISSING:
        return None
    if len(text) > 16 and _SPELT_OUT.fullmatch(text):
        number = float(text)
        if math.isfinite(number) and repr(abs(number)) == text.lstrip("+-"):
            return number_text(number)
    return text


def _of_list(name: str, value: Sequence[Any], several: bool) -> str | None:
    texts = [text_of(name, item, several=False) for item in value]
    texts = [text for text in texts if text is not None]
    if several or len(texts) < 2:
        return ", ".join(texts) or None
    if not all(same(texts[0], text) for text in texts[1:]):
        raise Unusable(
            "several answers, and no word whether all or any of them are meant", shown(value)
        )
    return texts[0]


def placeholder(text: str) -> str:
    """A short text as it stands in MISSING and PROOFS: without case, TeX wrappers and marks around it."""
    if len(text) > 60:
        return text
    while (bare := _WRAP.sub(r"\1", text)) != text:
        text = bare
    text = " ".join(text.replace("_", " ").casefold().split())
    bare = text.strip(" $*.:;!\"'`")
    return next((t for t in (text, bare, bare.strip("()[]<>{} ")) if t in MISSING | PROOFS), bare)


def same(one: str, other: str) -> bool:
    """Whether two gold answers are the same to the verifier.

    Example:
      >>> same("4", "4.0"), same("0.5", r"\\frac12"), same("4", "5")
      (True, True, False)
    """
    if one == other:
        return True
    numbers = answers.parse_number(one), answers.parse_number(other)
    if None not in numbers:
        return numbers[0] == numbers[1]
    for gold, text in ((one, other), (other, one)):
        try:
            if answers.verify_answer(f"\\boxed{{{text}}}", gold, timeout_s=0.5).reward:
                return True
        except ValueError:
            continue
    return False


def is_bare(text: str) -> bool:
    """Whether a text is an answer and nothing else, such as "34" or x + 1: one line, without a word of prose.

    Example:
      >>> is_bare("34"), is_bare(r"\\frac{1}{2}"), is_bare("so it is 5")
      (True, True, False)
    """
    plain = re.sub(r"\\[a-zA-Z]+", " ", text)
    if len(text) > 200 or "\n" in text or any(len(word) > 1 for word in _WORD.findall(plain)):
        return False
    try:
        answers.check_gold(text)
    except ValueError:
        return False
    return True


def has_step(solution: str, gold: str) -> bool:
    """Whether a solution says more than its answer: a text without any step is no example of how to solve a problem.

    Example:
      >>> has_step("The answer is: 34.", "34"), has_step("#### 34", "34"), has_step("2 * 17 = 34", "34")
      (False, False, True)
    """
    rest = solution.replace(gold, " ") if gold else solution
    words = re.findall(r"[^\W_]+", rest.casefold())
    return any(word not in _FILLING for word in words)


def shown(value: Any) -> str:
    """A value of a record for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
