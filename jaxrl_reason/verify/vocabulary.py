"""Words of answers: known names, and how runs of letters fall apart into them.

Host side. Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import re
from fractions import Fraction

from jaxrl_reason.verify.lexer import Token, Unreadable

RELATIONS = {
    "=": "=", "==": "=", "approx": "~", "simeq": "~", "equiv": "=", "coloneqq": "=",
    "<": "<", "lt": "<", ">": ">", "gt": ">", "<=": "<=", "le": "<=", "leq": "<=",
    "leqslant": "<=", ">=": ">=", "ge": ">=", "geq": ">=", "geqslant": ">=", "!=": "!=",
    "ne": "!=", "neq": "!=", "in": "in",
}  # fmt: skip
FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc",
    "arcsin": "arcsin", "arccos": "arccos", "arctan": "arctan", "asin": "arcsin",
    "acos": "arccos", "atan": "arctan", "arccot": "arccot", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "exp": "exp", "ln": "ln", "log": "log", "lg": "log", "gcd": "gcd",
    "lcm": "lcm", "max": "max", "min": "min", "abs": "abs", "floor": "floor", "ceil": "ceil",
}  # fmt: skip
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
INFINITE = {"infty", "inf", "infinity", "oo"}
LETTERS = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi "
    "Psi Omega ell hbar odot star prime partial nabla angle triangle cdots".split()
)
ACCENTS = frozenset(
    "overline overrightarrow overleftarrow overarc bar vec hat dot ddot tilde widehat underline mathbb".split()
)
CLOSERS = {"(": ")][", "[": ")][", "]": "[])"}
AND = frozenset(("and", "or", "&", "to"))
NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
}


_TENS = {
    word: 20 + 10 * i
    for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())
}
_POWERS = {"thousand": 1000, "million": 1_000_000}
_PARTS = {"half": 2, "quarter": 4} | {
    word: i + 3
    for i, word in enumerate("third fourth fifth sixth seventh eighth ninth tenth".split())
}
REALS = ("var", "mathbb R")  # as the grammar reads R in blackboard letters
_ZERO, _INFINITE = ("num", Fraction(0)), ("inf",)
HALVES = {
    "+": ("seq", "(", ")", _ZERO, _INFINITE),
    "-": ("seq", "(", ")", ("neg", _INFINITE), _ZERO),
}  # of the reals
_NOTHING = frozenset(
    ("no solution", "no solutions", "no real solution", "no real solutions", "empty set")
)
_EVERYTHING = frozenset(("all real numbers", "all reals", "every real number", "real numbers"))


def said(words: str) -> tuple | None:
    """What words say that stand for a number or a set, in lower case and without articles."""
    for lead in ("there is ", "there are ", "exactly "):
        words = words.removeprefix(lead)
    sign, _, rest = words.partition(" ")
    if sign in ("negative", "minus", "positive", "plus") and rest:
        tree = said(rest)
        if tree is None or tree[0] not in ("num", "inf"):
            return None
        return ("neg", tree) if sign in ("negative", "minus") else tree
    if words == "infinity":
        return ("inf",)
    value = counted(words)
    if value is not None:
        return ("num", value)
    if words in _NOTHING:
        return ("empty",)
    return REALS if words in _EVERYTHING else None


def counted(words: str) -> Fraction | None:
    """The number that words in lower case spell, below a thousand million; None: they do not.

    Example:
      >>> counted("seventy two"), counted("two thirds"), counted("two seven")
      (Fraction(72, 1), Fraction(2, 3), None)
    """
    top, _, part = words.rpartition(" ")
    if (part := "half" if part == "halves" else part.removesuffix("s")) in _PARTS:
        top = top or ("one" if part == "half" else "")
        return Fraction(int(NUMBERS[top]), _PARTS[part]) if top in NUMBERS else None
    if not words:
        return None
    total = group = 0
    room = scale = 1_000_000_000  # what follows must be smaller, so that "two seven" is no nine
    for i, word in enumerate(words.split()):
        small = int(NUMBERS[word]) if word in NUMBERS else _TENS.get(word)
        if word == "and" and i:
            continue
        if small is not None and small < room and (small or not i):
            group += small
            room = 10 if word in _TENS else 1
        elif word == "hundred" and 0 < group < 10:
            group, room = 100 * group, 100
        elif word in _POWERS and group and _POWERS[word] < scale:
            scale = _POWERS[word]
            total, group, room = total + group * scale, 0, 1000
        else:
            return None
    return Fraction(total + group)


_DIGITS = re.compile(
    r"(?:\\(?:text|mathrm)\s*+)?(?:\{\s*+)?([0-9A-Za-z]{1,60}+)\s*+(?:\}\s*+)?_\s*+(?:\{\s*+)?"
    r"(1[1-9]|[23][0-9])\s*+\}?"
)


def based(text: str) -> tuple | None:
    """Digits to a base above ten, which are letters too, as in 2B_{16}; else None."""
    match = _DIGITS.fullmatch(text)
    if not match or match[1].isalpha() or match[1].islower() and match[2] != "16":
        return None
    digits, base = match[1].upper().lstrip("0"), int(match[2])
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:base]
    return ("based", digits, match[2]) if base <= 36 and set(digits) <= set(alphabet) else None


SPECIAL = {"emptyset": ("empty",), "varnothing": ("empty",)}
PRIMARY_COMMANDS = frozenset(
    {"begin", "pi", "frac", "binom", "dbinom", "tbinom", "sqrt", "cbrt", "lfloor", "lceil", "lvert"}
    | INFINITE | FUNCTIONS.keys() | LETTERS | ACCENTS
)  # fmt: skip


def split_words(tokens: list[Token]) -> list[Token]:
    """Runs of letters become known names or products of single letters."""
    split: list[Token] = []
    for token in tokens:
        word = token.text
        if (
            token.kind not in ("word", "text")
            or len(word) == 1
            or split
            and split[-1].text in ("begin", "end")
        ):
            split.append(token)
        elif len(split) > 1 and split[-1].text == "{" and split[-2].text in ("begin", "end"):
            split.append(token)
        elif word.strip().lower() in AND:
            split.append(token._replace(kind="text", text=word.strip().lower()))
        elif token.kind == "text":
            split.append(token)
        elif word.lower() in FUNCTIONS | {"sqrt": 1, "pi": 1, "cbrt": 1} or word in INFINITE:
            split.append(token._replace(kind="cmd", text=word.lower()))
        elif word == "in" or word.lower() == "infinity":
            split.append(token._replace(kind="cmd", text=word.lower()))
        else:
            split += _letters(token)
    return split


def acronym(word: str) -> bool:
    """Whether capital letters are one name, as in SRMC = LRMC, and not a product of letters."""
    return 4 <= len(word) <= 8 and word.isascii() and word.isalpha() and word.isupper()


def _letters(token: Token) -> list[Token]:
    word, found = token.text, []
    if acronym(word):
        return [token]
    for name in (
        "sqrt",
        "arctan",
        "arcsin",
        "arccos",
        "sin",
        "cos",
        "tan",
        "exp",
        "log",
        "ln",
        "pi",
    ):
        if word.startswith(name) and len(word) <= len(name) + 2:
            found, word = [token._replace(kind="cmd", text=name)], word[len(name) :]
            break
    if len(word) > 3:
        raise Unreadable(f"the word {word!r}")
    found += [Token("word", letter, token.spaced and i == 0) for i, letter in enumerate(word)]
    return found


def marked(base: tuple, mark: str) -> tuple:
    """A name with a mark behind it, as in y'."""
    if base[0] != "var":
        raise Unreadable(f"the mark {mark!r} behind no name")
    return ("var", base[1] + mark.replace("prime", "'"))


def with_subscript(base: tuple, subscript: str) -> tuple:
    """A name with a subscript, which is another name."""
    if base[0] == "var":
        return ("var", f"{base[1]}_{subscript}")
    if base[0] in ("const", "func"):
        return ("var", f"{base[1]}_{subscript}")
    raise Unreadable("a subscript behind no name")


def repeating(start: str, digits: str) -> Fraction:
    """Value of the digits under a bar, behind the start of a decimal."""
    if not digits.isdecimal() or len(digits) > 100:
        raise Unreadable("a repeating part that is no digits")
    places = len(start.partition(".")[2])
    return Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)


def continued(decimal: str) -> Fraction:
    """Value of a decimal behind which dots stand, if its last digits repeat.

    Example:
      >>> continued("0.1666"), continued("0.2727")
      (Fraction(1, 6), Fraction(3, 11))
    """
    places = decimal.partition(".")[2][-100:]
    for length in range(1, len(places) // 2 + 1):
        times = 3 if length == 1 else 2
        block = places[-length:]
        if places.endswith(block * times):
            start = decimal.removesuffix(block * times)
            return Fraction(start + "0") + repeating(start, block)
    raise Unreadable("dots behind digits that do not repeat")
