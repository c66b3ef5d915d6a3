r"""Units behind (and currencies before) a number: split off, converted exactly, compared.

Host side. Reads: nothing. Writes: nothing.

A unit is a factor and a dimension. What else is counted ("apples", see `verify.nouns`) is a dimension
of its own, so that "5 apples" is neither 5 cm nor 5 oranges; "5 halves" and "5 dozen" are numbers.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from jaxrl_reason.verify import fonts, nouns

MAX_CHARS = 80  # of a unit
MAX_PIECES = 12  # words and operators of a unit


class Unit(NamedTuple):
    """Exact factor to the base of a dimension; the dimension as sorted (name, power) pairs."""

    factor: Fraction
    dimension: tuple[tuple[str, int], ...]


def _table() -> dict[str, tuple[Fraction, dict[str, int]]]:
    rows = [
        ("metre", 1, "m meter metre"), ("metre", "1/100", "cm centimeter centimetre"),
        ("metre", "1/1000", "mm millimeter millimetre"), ("metre", "1/10", "dm decimeter"),
        ("metre", 1000, "km kilometer kilometre"), ("metre", "1/1000000", "um micron micrometer"),
        ("metre", "1/1000000000", "nm nanometer"), ("metre", "0.0254", "in inch inche"),
        ("metre", "0.3048", "ft foot feet"), ("metre", "0.9144", "yd yard"),
        ("metre", "1609.344", "mi mile"),
        ("gram", 1, "g gm gram"), ("gram", "1/1000", "mg milligram"),
        ("gram", 1000, "kg kilogram kilo"), ("gram", 1_000_000, "tonne"),
        ("gram", "453.59237", "lb lbs pound"), ("gram", "28.349523125", "oz ounce"),
        ("gram", "907184.74", "ton"),
        ("second", 1, "s sec second"), ("second", 60, "min minute"), ("second", 3600, "h hr hour"),
        ("second", "1/1000", "ms millisecond"), ("second", 86400, "day d"),
        ("second", 604800, "week wk"), ("second", 1209600, "fortnight"),
        ("month", 1, "month mo"), ("month", 12, "year yr y"), ("month", 120, "decade"),
        ("month", 1200, "century"),
        ("dollar", 1, "$ dollar buck usd"), ("dollar", "1/100", "cent ¢"),
        ("euro", 1, "€ euro eur"), ("sterling", 1, "£ gbp"), ("yen", 1, "¥ yen"),
        ("rupee", 1, "₹ rupee"), ("degree", 1, "deg degree"), ("radian", 1, "rad radian"),
        ("kelvin", 1, "kelvin k"), ("ampere", 1, "a amp ampere"), ("mole", 1, "mol mole"),
        ("bit", 1, "bit"), ("bit", 8, "byte"), ("unit", 1, "unit"),
        ("am", 1, "am"), ("pm", 1, "pm"),
        ("gallon", 1, "gallon gal"), ("gallon", "1/4", "quart qt"),
        ("gallon", "1/8", "pint pt"), ("gallon", "1/16", "cup"),
    ]  # fmt: skip
    found = {}
    for base, factor, names in rows:
        for name in names.split():
            found[name] = (Fraction(factor), {base: 1})
    derived = [
        ("liter litre l", "1/1000", {"metre": 3}), ("ml milliliter millilitre cc", "1/1000000", {"metre": 3}),
        ("hectare ha", 10000, {"metre": 2}), ("mph", "0.44704", {"metre": 1, "second": -1}),
        ("mpg", "1609.344", {"metre": 1, "gallon": -1}),
        ("rpm", "1/60", {"revolution": 1, "second": -1}),
        ("kph kmh", "5/18", {"metre": 1, "second": -1}),
        ("n newton", 1000, {"gram": 1, "metre": 1, "second": -2}),
        ("j joule", 1000, {"gram": 1, "metre": 2, "second": -2}),
        ("kj kilojoule", 1_000_000, {"gram": 1, "metre": 2, "second": -2}),
        ("w watt", 1000, {"gram": 1, "metre": 2, "second": -3}),
        ("kw kilowatt", 1_000_000, {"gram": 1, "metre": 2, "second": -3}),
        ("hz hertz", 1, {"second": -1}),
        ("erg", "1/10000", {"gram": 1, "metre": 2, "second": -2}),
        ("volt v", 1000, {"gram": 1, "metre": 2, "second": -3, "ampere": -1}),
        ("coulomb c", 1, {"ampere": 1, "second": 1}),
        ("pascal pa", 1000, {"gram": 1, "metre": -1, "second": -2}),
        ("kpa kilopascal", 1_000_000, {"gram": 1, "metre": -1, "second": -2}),
        ("dyne dyn", "1/100", {"gram": 1, "metre": 1, "second": -2}),
    ]  # fmt: skip
    for names, factor, dimension in derived:
        for name in names.split():
            found[name] = (Fraction(factor), dimension)
    return found


_UNITS = _table()
DOLLAR = Unit(Fraction(1), (("dollar", 1),))
SCALES = {
    "hundred": 2,
    "thousand": 3,
    "lakh": 5,
    "million": 6,
    "crore": 7,
    "billion": 9,
    "trillion": 12,
}  # powers of ten; fmt: skip
_PARTS = {
    "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "eleventh": 11, "twelfth": 12, "fifteenth": 15, "sixteenth": 16, "twentieth": 20, "hundredth": 100,
    "thousandth": 1000, "millionth": 10**6,
}  # fmt: skip
_WRAP = re.compile(r"\\(?:text|mathrm|mbox|textrm|textnormal|operatorname|rm|textbf|textit)\s*+\{")
_NAMED = r"\{\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\}"
_QUOTIENT = re.compile(rf"\\frac\s*{_NAMED}\s*{_NAMED}")
_ANGLE_OF = re.compile(r"(?<!arc)(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?\$|(€|£|¥|₹))\s*(?=[\d.\\({-])")
_DEGREE = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})\s*(?:\\(?:text|mathrm)\{)?([CF]?)\}?$")
_WORDS = r"[A-Za-z°%²³µ$¢€£]"
_TAIL_START = re.compile(rf"(?:\s|(?<=[\d)}}\]!]))(?={_WORDS})")
_WORD = rf"{_WORDS}[A-Za-z.%²³\-']*+"
_TAIL = re.compile(rf"{_WORD}(?:(?:[\s/*·]|\\cdot|\^\s*+\{{?-?[1-4]\}}?)(?:{_WORD})?)*")
_NAMED_TAIL = re.compile(r"(?<=[A-Za-z0-9)}])\s*\\(?:text|mathrm)\s*\{([A-Za-z ]{3,30})\}$")
_OF = re.compile(r"of (?:the|a|an|all|her|his|its|their) [a-z' -]+", re.I)  # 5/8 of the cake
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([A-Za-z]++)")
_COMPOUND = re.compile(rf"{_PART.pattern}(?:(?:\s*,)?\s*(?:and\s+)?{_PART.pattern}){{1,3}}\.?")
_SQUARES = ("square", "sq", "cubic", "cu")
_DECIMAL = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30})?")
_ONE = re.compile(
    r"[+-]?(?:1|0?\.\d++|0\.\d++|\d{1,9}\s?/\s?\d{1,9}|\\frac\{?\d{1,9}\}?\{?\d{1,9}\}?|one)"
)
_POWER = re.compile(r"\^\s*\{?(-?[1-4])\}?$")


def split(text: str) -> tuple[str, Unit | None]:
    r"""Number part and unit of cleaned text.

    Args:
      text: what `lexer.clean` returned.
    Returns:
      What is left without the unit, and the unit; (text, None) where no unit is seen.
    Example:
      >>> split(r"5\text{ cm}^2")[0], split("$12")[0], split("x + 2")
      ('5', '12', ('x + 2', None))
    """
    match = _CURRENCY.match(text)
    if match:
        symbol = match[2] or "$"
        rest, behind = split(match[1] + text[match.end() :])
        money = Unit(*_pack(*_UNITS[symbol]))
        if (
            behind is not None
            and behind.dimension
            and all(power < 0 for _, power in behind.dimension)
        ):
            return rest, Unit(behind.factor, tuple(sorted((*money.dimension, *behind.dimension))))
        return (rest, money) if behind is None or behind == money else (text, None)
    match = _DEGREE.search(text)
    if match and match.start() and not _ANGLE_OF.search(text):  # sin 20^o is no number of degrees
        names = {"C": "celsius", "F": "fahrenheit", "": "degree"}
        return text[: match.start()].rstrip(), Unit(Fraction(1), ((names[match[1]], 1),))
    plain = text
    if "\\" in text:
        plain = _unwrapped(_QUOTIENT.sub(r" \1/\2 ", text)).strip()
    start = _tail(plain)
    if start is None:
        return text, None
    number = plain[:start].strip()
    if not any(c.isdigit() or c in ")}" for c in number):
        return text, None
    words = plain[start:].strip()
    scaled, words = _scaled(number, words)
    if not words:
        return scaled, None
    if _OF.fullmatch(words) and not any(map(nouns.changes, words.split()[2:])):
        return scaled, None
    if words.lower() in ("percent", "percentage", "pct", "per cent"):
        return f"({scaled})%", None
    one = _ONE.fullmatch(number) is not None
    unit = _parse(words, one=one)
    if unit is None and (named := _NAMED_TAIL.search(text)):  # 3a + 2b dollars
        unit, scaled = _parse(named[1].strip(), one=one), text[: named.start()]
    return (text, None) if unit is None else (scaled, unit)


def compound(text: str) -> tuple[Fraction, Unit] | None:
    """Hours and minutes, feet and inches: a number of the smallest of the units; else None.

    Example:
      >>> compound("3 hours 20 minutes")[0], compound("3 hours 20 metres")
      (Fraction(200, 1), None)
    """
    plain = _unwrapped(text).strip() if "\\" in text else text
    if len(plain) > MAX_CHARS or not _COMPOUND.fullmatch(plain):
        return None
    parts = [(Fraction(n), _lookup(name)) for n, name in _PART.findall(plain)]
    if any(unit is None for _, unit in parts):
        return None
    dimensions, factors = [p[1][1] for p in parts], [p[1][0] for p in parts]
    if any(d != dimensions[0] for d in dimensions) or factors != sorted(set(factors), reverse=True):
        return None
    total = sum(n * factor for n, (factor, _) in parts)
    return total / factors[-1], Unit(*_pack(factors[-1], dict(dimensions[0])))


def _tail(plain: str) -> int | None:
    """Where the words and operators at the end of a text begin, behind a number; None: nowhere."""
    first = at = max(0, len(plain) - MAX_CHARS)
    # From within a row of words the same end is reached, so that none is read twice.
    while start := _TAIL_START.search(plain, at):
        at = _TAIL.match(plain, start.end()).end()
        if at == len(plain):
            return None if first and start.start() == first else start.start()
    return None


def _unwrapped(text: str) -> str:
    r"""What stands in \text{...} and the like, between spaces."""
    closing = fonts.closing_braces(text)
    pieces, at = [], 0
    for match in _WRAP.finditer(text):
        end = closing.get(match.end() - 1)
        if end is not None and match.start() >= at:
            pieces += [text[at : match.start()], " ", text[match.end() : end], " "]
            at = end + 1
    return "".join([*pieces, text[at:]])


def _scaled(number: str, words: str) -> tuple[str, str]:
    """Five hundred thousand people, 5 tenths of a mile, 5 dozen: the number with its scale, and the other words."""
    power = 0
    first, _, rest = words.partition(" ")
    while first.lower() in SCALES:
        power += SCALES[first.lower()]
        first, _, rest = rest.strip().partition(" ")
    name = first.lower()
    part = (
        _PARTS.get("half" if name == "halves" else name.removesuffix("s"))
        if name.endswith("s")
        else None
    )
    if part is not None or name in ("dozen", "dozens"):
        if part is not None:
            number = rf"\frac{{{number}}}{{{part}}}"
        elif _DECIMAL.fullmatch(number):
            number = str(12 * Fraction(number))
        else:
            number = rf"12({number})"
        first, _, rest = rest.strip().partition(" ")
    if power:
        number = rf"({number})\times 10^{{{power}}}"
    return number, f"{first} {rest}".strip()


def _parse(words: str, *, one: bool) -> Unit | None:
    """Unit of measurement, or what is counted; None: words that may change the number before them."""
    words = words.replace(r"\cdot", "*").replace("²", "^2").replace("³", "^3")
    words = "^".join(part.strip() for part in words.split("^"))
    pieces = [p for p in re.split(r"(/|\bper\b|\*|\s)", words) if p.strip()]
    if len(pieces) > MAX_PIECES or not pieces:
        return None
    measure, pieces = _split_measure(pieces)
    if pieces is None:
        return None
    factor, dimension, sign, pending, unknown = Fraction(1), {}, 1, 1, []
    for piece in [*measure, *pieces]:
        if piece in ("/", "per"):
            if unknown and not nouns.counts(unknown, one=one):
                return None
            sign, unknown, one = -1, [], True
            continue
        if piece == "*":
            continue
        lowered = piece.lower().strip(".")
        if lowered in _SQUARES:
            pending = 2 if lowered.startswith("s") else 3
            continue
        match = _POWER.search(piece)
        power = (int(match[1]) if match else 1) * pending * sign
        name = _POWER.sub("", piece).strip(".")
        known = _lookup(name)
        if known is None:
            if not re.fullmatch(r"[A-Za-z][A-Za-z\-']+", name):
                return None
            unknown.append(name.lower())
            known = (Fraction(1), {_singular(name.lower()): 1})
        factor *= known[0] ** power
        for key, exponent in known[1].items():
            dimension[key] = dimension.get(key, 0) + exponent * power
        pending = 1
    if unknown and not nouns.counts(unknown, one=one):
        return None
    if pending != 1:
        dimension["unit"] = dimension.get("unit", 0) + pending  # "5 square" is 5 square units
    return Unit(*_pack(factor, dimension))


def _split_measure(pieces: list[str]) -> tuple[list[str], list[str] | None]:
    """What goes before "per" or a sign, and the noun phrase behind the last of them without its trimmings."""
    at = max((i + 1 for i, piece in enumerate(pieces) if piece in ("/", "per", "*")), default=0)
    words = [word.strip(".").lower() for word in pieces[at:]]
    if all(word in _SQUARES or _lookup(word) for word in words):
        return pieces[:at], pieces[at:]  # "in" is an inch here, and no word of place
    if all(word.isalpha() or "-" in word or "'" in word for word in words):
        noun = nouns.trimmed(words)
        kept = None if noun is None else words.index(noun[0])
        return pieces[:at], None if noun is None else pieces[at + kept : at + kept + len(noun)]
    return pieces[:at], pieces[at:]


def _pack(factor: Fraction, dimension: dict[str, int]) -> tuple[Fraction, tuple]:
    return factor, tuple(sorted((k, v) for k, v in dimension.items() if v and k != "unit"))


def _lookup(name: str) -> tuple[Fraction, dict[str, int]] | None:
    if len(name) == 1 and name.isalpha() and name not in "mgshLlNJWKAVCd":
        return None
    lowered = name.lower()
    return _UNITS.get(lowered) or _UNITS.get(_singular(lowered))


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word
